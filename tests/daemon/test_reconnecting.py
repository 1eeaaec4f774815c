"""How often a client comes back to its LSP, in a time that jumps from one thing to the next."""

import asyncio
import selectors
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from cromford.daemon.displaced import DISPLACED_TO_TELL, PEERS_MAX, WINDOW_SECONDS, Displaced
from cromford.daemon.peers import Peers
from cromford.daemon.reconnecting import (
    PAUSE_FIRST_SECONDS,
    PAUSE_MAX_SECONDS,
    SPREAD_HIGH,
    SPREAD_LOW,
    STEADY_SECONDS,
    Patience,
    Reconnecting,
)
from cromford.ports import ConnectionLost
from cromford.wire.ping import pong_for

PEER = b"\x02" * 33
HOUR_SECONDS = 3600.0


class Jumping(selectors.DefaultSelector):
    """Waits for nothing: the clock jumps to the next timer instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop in which an hour takes as long as what happens in it."""

    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def in_jumping_time(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(work)


@dataclass(eq=False)
class Line:
    """One end of a connection on which pings are answered. Closing it ends the other end too."""

    node_id: bytes = PEER
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    said: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    async def send(self, *messages: bytes) -> None:
        for message in messages:
            self.said.put_nowait(pong_for(message))

    async def receive(self) -> bytes:
        message = await self.said.get()
        if message is None:
            raise ConnectionLost("closed")
        return message

    async def close(self) -> None:
        self.ended.set()
        self.said.put_nowait(None)


async def until(seconds: float, *work: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(one) for one in work]
    await asyncio.sleep(seconds)
    for task in tasks:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def dials_in_an_hour(lasts_seconds: float) -> list[float]:
    """Return when a client came back to an LSP that hangs up after a while."""
    times: list[float] = []

    async def dial() -> Line:
        times.append(asyncio.get_running_loop().time())
        return Line()

    async def serve(_connection: object) -> None:
        await asyncio.sleep(lasts_seconds)

    in_jumping_time(until(HOUR_SECONDS, Reconnecting(dial, serve).run()))
    return times


@pytest.mark.parametrize("lasts_seconds", [0.0, 1.0, STEADY_SECONDS - 1])
def test_an_lsp_that_hangs_up_after_the_handshake_is_tried_less_and_less(
    lasts_seconds: float,
) -> None:
    times = dials_in_an_hour(lasts_seconds)
    n_growing = 6  # Pauses until they are as long as they get.
    rare = HOUR_SECONDS / (SPREAD_LOW * PAUSE_MAX_SECONDS + lasts_seconds)
    assert len(times) <= rare + n_growing
    late = [later - earlier for earlier, later in pairwise(times[n_growing:])]
    assert min(late) >= SPREAD_LOW * PAUSE_MAX_SECONDS
    assert max(late) <= SPREAD_HIGH * PAUSE_MAX_SECONDS + lasts_seconds


def test_after_a_connection_that_lasted_a_client_is_back_at_once() -> None:
    lasts_seconds = STEADY_SECONDS + 1
    times = dials_in_an_hour(lasts_seconds)
    pauses = [later - earlier - lasts_seconds for earlier, later in pairwise(times)]
    assert pauses
    assert max(pauses) <= SPREAD_HIGH * PAUSE_FIRST_SECONDS


def test_patience_is_forgotten_by_a_connection_that_lasted_and_by_nothing_else() -> None:
    worn = Patience().after_silence().after_connection(1.0).after_silence()
    assert worn == Patience(8 * PAUSE_FIRST_SECONDS, n_short=1)
    assert worn.after_connection(STEADY_SECONDS - 0.001).n_short == 2
    assert worn.after_connection(STEADY_SECONDS) == Patience()


class Town:
    """An LSP's connections, and clients that dial it."""

    def __init__(self) -> None:
        self.lsp = Peers(lambda _event: None)
        self.n_dialled = 0
        self._serving: set[asyncio.Task[None]] = set()

    def client(self) -> Reconnecting:
        async def dial() -> Line:
            self.n_dialled += 1
            line = Line()
            task = asyncio.create_task(self.lsp.run(line))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            return line

        async def serve(connection: Any) -> None:
            await connection.ended.wait()

        return Reconnecting(dial, serve)


def test_two_copies_of_one_data_directory_are_noticed_by_both_sides_and_slow_down() -> None:
    async def scenario() -> None:
        town = Town()
        copies = [town.client(), town.client()]
        await until(HOUR_SECONDS, *(copy.run() for copy in copies))
        assert [copy.connections_are_short for copy in copies] == [True, True]
        assert town.lsp.contested == (PEER,)
        assert town.n_dialled <= 2 * (HOUR_SECONDS / (SPREAD_LOW * PAUSE_MAX_SECONDS) + 8)
        await town.lsp.close()

    in_jumping_time(scenario())


def test_one_copy_alone_is_not_suspected() -> None:
    async def scenario() -> None:
        town = Town()
        copy = town.client()
        await until(HOUR_SECONDS, copy.run())
        assert not copy.connections_are_short
        assert town.lsp.contested == ()
        assert town.n_dialled == 1
        await town.lsp.close()

    in_jumping_time(scenario())


def test_once_the_other_copy_has_stopped_nothing_is_said_any_more() -> None:
    async def scenario() -> None:
        town = Town()
        copy, other = town.client(), town.client()
        running = asyncio.create_task(copy.run())
        await until(HOUR_SECONDS, other.run())
        suspects = [copy.connections_are_short]
        await asyncio.sleep(2 * STEADY_SECONDS + WINDOW_SECONDS)
        suspects.append(copy.connections_are_short)
        assert suspects == [True, False]
        assert town.lsp.contested == ()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await town.lsp.close()

    in_jumping_time(scenario())


def test_a_peer_is_contested_by_many_displacements_in_a_short_time_only() -> None:
    seldom = Displaced()
    apart = WINDOW_SECONDS / (DISPLACED_TO_TELL - 1) + 1
    assert not any(seldom.note(PEER, now=n * apart) for n in range(100))
    often = Displaced()
    told = [often.note(PEER, now=float(n)) for n in range(DISPLACED_TO_TELL)]
    assert told == [False] * (DISPLACED_TO_TELL - 1) + [True]
    assert often.contested(now=10.0) == (PEER,)
    assert often.contested(now=10.0 + WINDOW_SECONDS) == ()


def test_displacements_of_strangers_take_no_room_without_end() -> None:
    found = Displaced()
    for n in range(2 * PEERS_MAX):
        for _ in range(DISPLACED_TO_TELL):
            found.note(n.to_bytes(33, "big"), now=0.0)
    assert len(found.contested(now=0.0)) == PEERS_MAX
