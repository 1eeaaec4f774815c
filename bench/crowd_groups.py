"""A crowd's clients in several processes: one event loop has only so many pings to answer.

Each process has a share of them. Whoever drives the crowd asks a share for one step, or all shares
at once, and waits until each has answered.
"""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from bench.crowd_clients import CrowdClient, Eyes, Turns, until_all

from cromford.adapters.bitcoind import BitcoindChain
from cromford.adapters.peer_address import PeerAddress
from cromford.open_files import OWN_FILES, allow_open_files
from cromford.protocol.policy import ClientPolicy

CLIENTS_PER_PROCESS: Final = 128
DIALS_AT_ONCE: Final = 16
JOINS_AT_ONCE: Final = 4
LOOK_SECONDS: Final = 0.5
END_SECONDS: Final = 30.0


class ShareFailed(Exception):
    """A step of a share failed; says what its process said, or that it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a share has to know: where its LSP and its node are, and what its clients accept."""

    lsp: PeerAddress
    chain_url: str
    cookie_file: Path | None
    policy: ClientPolicy
    tip_height: int
    step_seconds: float


class _Share:
    """The clients of one process. Each method is a step that may be asked for by its name."""

    def __init__(self, place: Place, numbers: Sequence[int], eyes: Eyes) -> None:
        turns = Turns()
        self._clients = [
            CrowdClient(number, place.lsp, place.policy, eyes, turns) for number in numbers
        ]
        self._seconds = place.step_seconds
        self._eyes = eyes

    async def come(self) -> None:
        """Connect, and hear what the lobby offers."""
        dials = asyncio.Semaphore(DIALS_AT_ONCE)

        async def come(client: CrowdClient) -> None:
            async with dials:
                await client.come()

        await asyncio.gather(*(come(client) for client in self._clients))
        await self._until(lambda client: client.state.lobby is not None)

    async def gather(self, capacity_sat: int) -> None:
        """Wait in the lobby.

        A few join at once: keys take a while, and meanwhile pings of all others are answered.
        """
        joins = asyncio.Semaphore(JOINS_AT_ONCE)

        async def join(client: CrowdClient) -> None:
            async with joins:
                client.join(capacity_sat)
                await self._until(lambda one: one.is_joined, [client])

        await asyncio.gather(*(join(client) for client in self._clients))

    async def sign(self) -> int:
        """Hold the whole way out; return how deep the funding has to be."""
        await self._until(lambda client: client.is_complete)
        return max(client.min_depth for client in self._clients)

    async def see_from(self, height: int) -> None:
        """See the blocks from a height on."""
        for block in await self._eyes.blocks_from(height):
            for client in self._clients:
                client.see(block)
                await asyncio.sleep(0)

    async def open(self) -> None:
        """Have channels that can be paid through."""
        await self._until(lambda client: client.is_ready)

    async def verify(self) -> int:
        """Return how many of the branches hold, checked anew."""
        n_verified = 0
        for client in self._clients:
            n_verified += all(verdict.ok for verdict in await client.verdicts())
            await asyncio.sleep(0)  # Pings are answered in between.
        return n_verified

    async def invoice(self, place: int, amount_msat: int) -> str:
        """Return an invoice of one client's."""
        return self._clients[place].invoice(amount_msat)

    async def be_paid(self, place: int) -> None:
        """Wait until one client was paid."""
        await self._until(lambda client: client.is_paid, self._clients[place : place + 1])

    async def leave(self, place: int) -> int:
        """Let one client leave, and return its seat."""
        self._clients[place].leave()
        attempt = self._clients[place].attempt
        return 0 if attempt is None else attempt.client

    async def settle(self, place: int) -> int:
        """Wait until the node has answered one client; return what is in its wallet, in sat."""
        await self._clients[place].settled()
        return self._clients[place].wallet_sat

    async def see_alone(self, place: int, height: int) -> int:
        """Let one client see the blocks from a height on; return what is in its wallet, in sat."""
        for block in await self._eyes.blocks_from(height):
            self._clients[place].see(block)
        return await self.settle(place)

    async def go(self) -> None:
        """Disconnect."""
        await asyncio.gather(*(client.go() for client in self._clients))

    async def _until(
        self,
        holds: Callable[[CrowdClient], bool],
        clients: Sequence[CrowdClient] | None = None,
    ) -> None:
        some = self._clients if clients is None else clients
        await until_all(some, holds, seconds=self._seconds, alive=lambda: None)


def _serve(pipe: Connection, place: Place, numbers: Sequence[int]) -> None:
    """Be the process of a share: take steps until the pipe is closed."""
    allow_open_files(2 * len(numbers) + OWN_FILES)
    try:
        asyncio.run(_take_steps(pipe, place, numbers))
    except (EOFError, KeyboardInterrupt):
        return


async def _take_steps(pipe: Connection, place: Place, numbers: Sequence[int]) -> None:
    async with BitcoindChain(place.chain_url, cookie_path=place.cookie_file) as chain:
        share = _Share(place, numbers, Eyes(chain))
        await share.see_from(place.tip_height)
        while True:
            name, arguments = await asyncio.to_thread(pipe.recv)
            step: Callable[..., Awaitable[object]] = getattr(share, name)
            try:
                answer = await step(*arguments)
            except Exception as error:  # noqa: BLE001 - whoever asked is told, whatever it is
                pipe.send((False, f"{name}: {type(error).__name__}: {error}"))
            else:
                pipe.send((True, answer))


@dataclass(frozen=True, slots=True)
class _Process:
    child: BaseProcess
    pipe: Connection


class Shares:
    """All shares, as whoever drives the crowd sees them."""

    def __init__(self, processes: Sequence[_Process], ends: Sequence[int], alive: Any) -> None:  # noqa: ANN401 - a callable
        self._processes = processes
        self._ends = ends  # The first number that is not of a share.
        self._alive: Callable[[], None] = alive

    async def all(self, step: str, *arguments: object) -> list[Any]:
        """Let all shares take a step at once, and return what each answers.

        Raises:
            ShareFailed: If one could not.
        """
        return await asyncio.gather(
            *(self._ask(process, step, arguments) for process in self._processes)
        )

    async def one(self, number: int, step: str, *arguments: object) -> Any:  # noqa: ANN401 - any
        """Let the share of one client take a step with it.

        Raises:
            ShareFailed: If it could not.
        """
        share = next(share for share, end in enumerate(self._ends) if number < end)
        place = number - (self._ends[share - 1] if share else 0)
        return await self._ask(self._processes[share], step, (place, *arguments))

    async def _ask(self, process: _Process, step: str, arguments: tuple[object, ...]) -> Any:  # noqa: ANN401 - any
        process.pipe.send((step, arguments))
        while not await asyncio.to_thread(process.pipe.poll, LOOK_SECONDS):
            self._alive()
            if not process.child.is_alive():
                raise ShareFailed(f"{step}: the clients' process ended")
        has_done, answer = process.pipe.recv()
        if not has_done:
            raise ShareFailed(answer)
        return answer


@contextmanager
def started(n_clients: int, place: Place, alive: Callable[[], None]) -> Iterator[Shares]:
    """Start the processes of so many clients; afterwards nothing is left of them."""
    ends = [*accumulate(_sizes(n_clients))]
    context = multiprocessing.get_context("spawn")
    processes: list[_Process] = []
    try:
        for first, end in zip([0, *ends], ends, strict=False):
            ours, theirs = context.Pipe()
            child = context.Process(
                target=_serve, args=(theirs, place, range(first, end)), daemon=True
            )
            child.start()
            theirs.close()
            processes.append(_Process(child, ours))
        yield Shares(processes, ends, alive)
    finally:
        for process in processes:
            process.pipe.close()
        for process in processes:
            process.child.join(END_SECONDS)
            if process.child.is_alive():
                process.child.kill()


def _sizes(n_clients: int) -> Iterator[int]:
    """Yield how many clients each process has: alike, and no more than it can serve."""
    n_processes = -(-n_clients // CLIENTS_PER_PROCESS)
    for process in range(n_processes):
        yield (n_clients + process) // n_processes
