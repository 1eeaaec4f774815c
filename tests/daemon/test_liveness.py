"""A peer that is connected and silent: whoever hangs keeps its socket, and its kernel answers."""

import asyncio
import os
import signal
import sys

import pytest

from cromford.adapters.noise import NodeIdentity
from cromford.adapters.noise_server import serve
from cromford.adapters.noise_tcp import NoiseConnection
from cromford.adapters.places import Limits
from cromford.daemon import liveness
from cromford.daemon.peers import Peers
from cromford.protocol import events as ev
from cromford.wire.ping import is_ping, is_pong, ping

SERVER = NodeIdentity.from_seckey(b"\x21" * 32)
PEER = NodeIdentity.from_seckey(b"\x11" * 32)
DIALLER = """
import asyncio, sys
from cromford.adapters.noise import NodeIdentity
from cromford.adapters.noise_tcp import connect
from cromford.daemon.peers import Peers

async def main():
    identity = NodeIdentity.from_seckey(b"\\x11" * 32)
    node_id = bytes.fromhex(sys.argv[2])
    connection = await connect("127.0.0.1", int(sys.argv[1]), node_id=node_id, identity=identity)
    await Peers(lambda event: None).run(connection)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "SLICE_SECONDS", 0.25)


class Overheard:
    """A connection whose incoming messages a test counts."""

    def __init__(self, connection: NoiseConnection, pongs: "asyncio.Queue[bytes]") -> None:
        self._connection = connection
        self._pongs = pongs
        self.node_id = connection.node_id
        self.send = connection.send
        self.close = connection.close

    async def receive(self) -> bytes:
        message = await self._connection.receive()
        if is_pong(message):
            self._pongs.put_nowait(message)
        return message


@pytest.mark.sampled(0)
def test_a_process_that_was_stopped_is_disconnected_and_one_that_idles_is_not() -> None:
    async def main() -> list[ev.Event]:
        happened: list[ev.Event] = []
        peers, pongs, is_over = Peers(happened.append), asyncio.Queue[bytes](), asyncio.Event()

        async def run(connection: NoiseConnection) -> None:
            await peers.run(Overheard(connection, pongs))
            is_over.set()

        server = await serve("127.0.0.1", 0, identity=SERVER, on_connection=run, limits=Limits())
        async with server, asyncio.timeout(60):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", DIALLER, str(server.port), SERVER.node_id.hex()
            )
            try:
                for _ in range(2):
                    await pongs.get()
                assert happened == [ev.ConnectionOpened(node_id=PEER.node_id)], "it only idles"
                os.kill(process.pid, signal.SIGSTOP)
                await is_over.wait()
            finally:
                process.kill()
                await process.wait()
        return happened

    assert asyncio.run(main()) == [
        ev.ConnectionOpened(node_id=PEER.node_id),
        ev.ConnectionClosed(node_id=PEER.node_id),
    ]


class Scripted:
    """A connection that hears what a test says."""

    node_id = PEER.node_id

    def __init__(self, *, reads: bool = True) -> None:
        self.sent: list[bytes] = []
        self.said: asyncio.Queue[bytes] = asyncio.Queue()
        self.reads = reads

    async def send(self, *messages: bytes) -> None:
        if not self.reads:
            await asyncio.Event().wait()
        self.sent.extend(messages)

    async def receive(self) -> bytes:
        return await self.said.get()

    async def close(self) -> None:
        """Nothing to release."""


def test_pings_are_answered_by_the_connection_and_no_role_hears_of_them() -> None:
    async def main() -> tuple[list[ev.Event], Scripted]:
        happened: list[ev.Event] = []
        connection = Scripted()
        serving = asyncio.create_task(Peers(happened.append).run(connection))
        for message in (ping(), bytes.fromhex("0013 0001 00"), bytes.fromhex("0012 00")):
            connection.said.put_nowait(message)
        async with asyncio.timeout(5):
            while len(happened) < 2:  # noqa: ASYNC110 - the list watched has no event
                await asyncio.sleep(0)
        serving.cancel()
        await asyncio.wait({serving})
        return happened, connection

    happened, connection = asyncio.run(main())
    assert [type(event) for event in happened[:2]] == [ev.ConnectionOpened, ev.MessageMalformed]
    assert [message for message in connection.sent if is_pong(message)] == [b"\x00\x13\x00\x00"]


def test_many_pings_of_a_peer_that_reads_nothing_wait_as_one_pong() -> None:
    async def main() -> int:
        connection = Scripted(reads=False)
        peers = Peers(lambda _event: None)
        serving = asyncio.create_task(peers.run(connection))
        for _ in range(1_000):
            connection.said.put_nowait(bytes.fromhex("0012 fffb 0000"))
        async with asyncio.timeout(5):
            while not connection.said.empty():  # noqa: ASYNC110 - the queue watched has no event
                await asyncio.sleep(0)
        (peer,) = peers._peers.values()
        n_waiting = peer.outbox.qsize()
        serving.cancel()
        await asyncio.wait({serving})
        return n_waiting

    assert asyncio.run(main()) <= 1


def test_a_peer_that_says_anything_at_all_is_there() -> None:
    async def main() -> Scripted:
        connection = Scripted()
        serving = asyncio.create_task(Peers(lambda _event: None).run(connection))
        for _ in range(2 * liveness.GONE_AT_SLICE):
            connection.said.put_nowait(bytes.fromhex("9999"))
            await asyncio.sleep(0.1)
        serving.cancel()
        await asyncio.wait({serving})
        return connection

    assert not any(is_ping(message) for message in asyncio.run(main()).sent)
