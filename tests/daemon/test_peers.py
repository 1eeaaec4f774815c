"""A daemon's connections: how they end, whoever ends them."""

import asyncio
from dataclasses import dataclass, field

import pytest

from cromford.channel.terms import HTLCS_MAX
from cromford.daemon import peers as peers_room
from cromford.daemon.peers import Peers
from cromford.ports import ConnectionLost
from cromford.protocol import events as ev
from cromford.wire.messages import Leave, encode_message

PEER = b"\x02" * 33


class SlowToLetGo:
    """A connection that is lost at once, and whose sending takes its time to be cancelled."""

    node_id = PEER

    def __init__(self) -> None:
        self.sending = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.released = asyncio.Event()

    async def send(self, *_messages: bytes) -> None:
        self.sending.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.released.wait()
            raise

    async def receive(self) -> bytes:
        await self.sending.wait()
        raise ConnectionLost("gone")

    async def close(self) -> None:
        """Nothing to release."""


def test_whoever_stops_a_daemon_is_obeyed_while_a_connection_ends() -> None:
    """Swallowed, the cancellation would leave a daemon that connects again for ever."""

    async def stop_in_the_middle() -> list[ev.Event]:
        happened: list[ev.Event] = []
        peers, connection = Peers(happened.append), SlowToLetGo()
        serving = asyncio.create_task(peers.run(connection))
        async with asyncio.timeout(5):
            while not peers.n_connected:  # noqa: ASYNC110 - the state watched has no event
                await asyncio.sleep(0)
            peers.send(PEER, Leave(factory_pubkey=PEER))
            await connection.cancelled.wait()
            serving.cancel()
            await asyncio.sleep(0)
            connection.released.set()
            with pytest.raises(asyncio.CancelledError):
                await serving
        return happened

    happened = asyncio.run(stop_in_the_middle())
    assert happened[0] == ev.ConnectionOpened(node_id=PEER)


@dataclass(eq=False)
class Scripted:
    """A connection whose peer has said all its words before anybody reads; it is slow to close."""

    words: list[bytes] = field(default_factory=list)
    sends: Exception | None = None
    node_id: bytes = PEER
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[tuple[bytes, ...]] = field(default_factory=list)

    async def send(self, *messages: bytes) -> None:
        if self.sends is not None:
            raise self.sends
        self.heard.append(messages)

    async def receive(self) -> bytes:
        if self.words:
            await asyncio.sleep(0)
            return self.words.pop(0)
        await self.closing.wait()
        raise ConnectionLost("closed")

    async def close(self) -> None:
        self.closing.set()


def test_what_a_peer_said_after_it_had_to_go_is_not_heard() -> None:
    """Its words may be here already while its connection closes, which can take seconds."""

    async def scenario() -> list[ev.Event]:
        happened: list[ev.Event] = []

        def post(event: ev.Event) -> None:
            happened.append(event)
            if isinstance(event, ev.MessageReceived):
                peers.disconnect(PEER, "it broke a rule", is_ours=False)

        peers = Peers(post)
        word = encode_message(Leave(factory_pubkey=PEER))
        await peers.run(Scripted(words=[word, word, b"\x00", word]))
        return happened

    kinds = [type(event) for event in asyncio.run(scenario())]
    assert kinds == [ev.ConnectionOpened, ev.MessageReceived, ev.ConnectionClosed]


def test_nothing_is_heard_of_a_peer_that_is_hung_up_on_once_the_disk_has_it() -> None:
    """It says what follows from a word that was not taken: heard, that would fail its channel."""

    async def scenario() -> list[ev.Event]:
        happened: list[ev.Event] = []
        word = encode_message(Leave(factory_pubkey=PEER))
        connection = Scripted(words=[word, word, b"\x00", word])

        def post(event: ev.Event) -> None:
            happened.append(event)
            if isinstance(event, ev.MessageReceived):
                peers.let_go(PEER)

        peers = Peers(post)
        serving = asyncio.create_task(peers.run(connection))
        async with asyncio.timeout(5):
            while connection.words:  # noqa: ASYNC110 - the state watched has no event
                await asyncio.sleep(0)
            peers.disconnect(PEER, "the chain is stale", is_ours=True)
            await serving
        return happened

    happened = asyncio.run(scenario())
    kinds = [type(event) for event in happened]
    assert kinds == [ev.ConnectionOpened, ev.MessageReceived, ev.ConnectionClosed]
    assert happened[-1] == ev.ConnectionClosed(node_id=PEER, is_ours=True)


@pytest.mark.parametrize("is_ours", [False, True])
def test_whose_doing_it_was_that_we_hung_up_is_told_with_the_end(*, is_ours: bool) -> None:
    async def scenario() -> list[ev.Event]:
        happened: list[ev.Event] = []
        peers = Peers(happened.append)
        serving = asyncio.create_task(peers.run(Scripted()))
        await asyncio.sleep(0)
        peers.disconnect(PEER, "the first reason", is_ours=is_ours)
        peers.disconnect(PEER, "another one", is_ours=not is_ours)
        await serving
        return happened

    ended = asyncio.run(scenario())[-1]
    assert ended == ev.ConnectionClosed(node_id=PEER, is_ours=is_ours), "the first counts"


@dataclass(eq=False)
class Hanging(Scripted):
    """A connection of a line that broke without a word: what was sent does not leave."""

    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        await self.gone.wait()
        self.closing.set()


def test_the_newest_connection_of_a_peer_stays_and_waits_for_no_older_one_to_close() -> None:
    async def scenario() -> tuple[list[ev.Event], list[bool]]:
        happened: list[ev.Event] = []
        peers = Peers(happened.append)
        hanging, second, third = Hanging(), Scripted(), Scripted()
        tasks = []
        for connection in (hanging, second, third):
            tasks.append(asyncio.create_task(peers.run(connection)))
            await asyncio.sleep(0)
        hanging.gone.set()
        for _ in range(10):
            await asyncio.sleep(0)
        said, closed = [*happened], [one.closing.is_set() for one in (second, third)]
        await peers.close()
        await asyncio.gather(*tasks)
        return said, closed

    said, closed = asyncio.run(scenario())
    opened, ended = ev.ConnectionOpened(node_id=PEER), ev.ConnectionClosed(node_id=PEER)
    assert said == [opened, ended, opened, ended, opened], "each at once, in the order they came"
    assert closed == [True, False], "the newest is the one that is left"


def test_to_hang_up_on_everybody_is_our_doing() -> None:
    async def scenario() -> list[ev.Event]:
        happened: list[ev.Event] = []
        peers = Peers(happened.append)
        serving = asyncio.create_task(peers.run(Scripted()))
        await asyncio.sleep(0)
        peers.disconnect_all("we stop")
        await serving
        return happened

    assert asyncio.run(scenario())[-1] == ev.ConnectionClosed(node_id=PEER, is_ours=True)


def test_what_waits_for_a_peer_leaves_together_but_not_without_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [Leave(factory_pubkey=bytes([number]) * 33) for number in range(8)]
    size = len(encode_message(words[0]))
    monkeypatch.setattr(peers_room, "TOGETHER_SIZE", 2 * size + 1)

    async def scenario() -> list[tuple[bytes, ...]]:
        peers, connection = Peers(lambda _event: None), Scripted()
        serving = asyncio.create_task(peers.run(connection))
        await asyncio.sleep(0)
        for word in words:
            peers.send(PEER, word)
        async with asyncio.timeout(5):
            while sum(map(len, connection.heard)) < len(words):  # noqa: ASYNC110 - no event of its own
                await asyncio.sleep(0)
        connection.closing.set()
        await serving
        return connection.heard

    heard = asyncio.run(scenario())
    assert [len(together) for together in heard] == [3, 3, 2]
    assert [one for together in heard for one in together] == [encode_message(w) for w in words]


def test_a_peer_that_nothing_can_be_sent_to_any_more_is_let_go() -> None:
    """Whatever the reason: it would wait for an answer for ever, over a line that looks alive."""

    async def scenario() -> list[ev.Event]:
        happened: list[ev.Event] = []
        peers, connection = Peers(happened.append), Scripted(sends=ValueError("too long"))
        serving = asyncio.create_task(peers.run(connection))
        await asyncio.sleep(0)
        peers.send(PEER, Leave(factory_pubkey=PEER))
        async with asyncio.timeout(5):
            await serving
        return happened

    assert asyncio.run(scenario())[-1] == ev.ConnectionClosed(node_id=PEER)


def test_what_goes_again_in_many_full_channels_is_no_sign_that_a_peer_does_not_read() -> None:
    """Once the disk has it all of it leaves at once, before the peer could have read anything.

    Hung up on for that, it would come back to the same, for ever.
    """
    n_channels = 8
    updates = [Leave(factory_pubkey=PEER)] * (2 * HTLCS_MAX + 2)  # Both ways, and two signatures.

    async def scenario() -> Scripted:
        peers, connection = Peers(lambda _event: None), Scripted()
        serving = asyncio.create_task(peers.run(connection))
        async with asyncio.timeout(5):
            while not peers.n_connected:  # noqa: ASYNC110 - the state watched has no event
                await asyncio.sleep(0)
            for message in updates * n_channels:
                peers.send(PEER, message)
            for _ in range(len(updates) * n_channels):
                await asyncio.sleep(0)
            assert peers.n_connected == 1
            connection.closing.set()
            await serving
        return connection

    heard = asyncio.run(scenario()).heard
    assert sum(map(len, heard)) == n_channels * len(updates)
