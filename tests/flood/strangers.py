"""Strangers at an LSP's port: some say nothing, some join under fresh names, some never stop.

They come from many loopback addresses, so that what is limited for each address is not all that
holds them back.
"""

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cromford.adapters.noise import (
    ACT_TWO_SIZE,
    HandshakeFailed,
    NodeIdentity,
    initiate,
)
from cromford.adapters.noise_tcp import NoiseConnection, close_stream
from cromford.adapters.peer_address import PeerAddress, parse_peer_address
from cromford.crypto.keys import SECKEY_SIZE
from cromford.ports import ConnectionLost
from cromford.wire import messages as m
from tests.protocol.attacks import join_of, lone

DIAL_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 5.0
DIALS_AT_ONCE: Final = 16  # More would measure this process, not the LSP.
REDIAL_SECONDS: Final = 0.2
POLL_SECONDS: Final = 0.05
NAMES_PER_NETWORK: Final = 200
N_LINES_COME: Final = 2  # What they say once they are there, and once all have come.
REPOSITORY: Final = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many strangers there are, of each kind, of how many addresses, and how nice."""

    n_idle: int
    n_joins: int
    n_noisy: int
    n_addresses: int
    capacity_sat: int
    niceness: int

    @property
    def n_all(self) -> int:
        """How many there are in all."""
        return self.n_idle + self.n_joins + self.n_noisy


@dataclass
class Visit:
    """Strangers in a process of their own, and what they said."""

    process: asyncio.subprocess.Process
    _lines: list[bytes] = field(default_factory=list)
    _is_over: bool = False

    @property
    def has_come(self) -> bool:
        """Whether each of them has tried to come in, and those that join were answered.

        Or whether nothing more is to be expected of them.
        """
        return self._is_over or len(self._lines) >= N_LINES_COME

    async def listen(self) -> None:
        """Hear what they say, until they have gone."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self._lines.append(line)
        self._is_over = True

    async def are_there(self) -> None:
        """Return once their process runs."""
        while not (self._lines or self._is_over):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(POLL_SECONDS)

    def tell_to_go(self) -> None:
        """Let them go: nothing more to read is their sign."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    @property
    def seen(self) -> Counter[str]:
        """What they saw; said once they have gone."""
        return Counter(json.loads(self._lines[-1]))


@asynccontextmanager
async def at_the_port(lsp: str, crowd: Crowd) -> AsyncIterator[Visit]:
    """Run strangers in a process of their own; at the end they have gone, and said what they saw.

    In the world they have machines of their own: here theirs may have the lowest priority.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.flood.strangers", lsp, json.dumps(asdict(crowd))),
        cwd=REPOSITORY,
        stdin=PIPE,
        stdout=PIPE,
    )
    visit = Visit(process)
    listening = asyncio.create_task(visit.listen())
    try:
        await visit.are_there()
        yield visit
        visit.tell_to_go()
        await listening
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.gather(listening, process.wait())


async def _come(lsp: PeerAddress, crowd: Crowd) -> Counter[str]:
    strangers = Strangers(lsp, crowd.n_addresses, crowd.capacity_sat, n_to_come=crowd.n_all)
    kinds = (
        strangers.idle(crowd.n_idle),
        strangers.noise(crowd.n_noisy),
        strangers.join(crowd.n_joins),
    )
    _say("here")
    tasks = [asyncio.create_task(kind) for kind in kinds]
    tasks.append(asyncio.create_task(_say_when_all_came(strangers)))
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return strangers.seen


async def _say_when_all_came(strangers: "Strangers") -> None:
    await strangers.all_came.wait()
    _say("come")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _address(number: int) -> str:
    return f"127.9.{number // NAMES_PER_NETWORK}.{number % NAMES_PER_NETWORK + 1}"


@dataclass
class Strangers:
    """Everybody that an LSP does not know, and what became of them."""

    lsp: PeerAddress
    n_addresses: int
    capacity_sat: int
    n_to_come: int
    seen: Counter[str] = field(default_factory=Counter)
    all_came: asyncio.Event = field(default_factory=asyncio.Event)
    _dials: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DIALS_AT_ONCE))
    _n_dialled: int = 0

    async def idle(self, n_peers: int) -> None:
        """Open connections, say nothing, and hold them; until cancelled."""
        await _all(self._hold() for _ in range(n_peers))
        await asyncio.Event().wait()

    async def join(self, n_names: int) -> None:
        """Join under fresh names, each once."""
        join = replace(
            join_of(lone(), lone().clients[0]),
            capacity_sat=self.capacity_sat,
            capacity_least_sat=self.capacity_sat,
        )
        await _all(self._join_once(join) for _ in range(n_names))

    def _note_one_more(self) -> None:
        self.n_to_come -= 1
        if not self.n_to_come:
            self.all_came.set()

    async def noise(self, n_peers: int) -> None:
        """Say harmless things as fast as the LSP listens; until cancelled."""
        await _all(self._chatter() for _ in range(n_peers))

    async def _hold(self) -> None:
        connection = await self._dial("idle")
        self._note_one_more()
        if connection is None:
            return
        with contextlib.suppress(ConnectionLost):
            while True:
                await connection.receive()
        self.seen["idle ended"] += 1

    async def _join_once(self, join: m.Join) -> None:
        connection = await self._dial("join")
        try:
            if connection is not None:
                await self._ask(connection, join)
        finally:
            self._note_one_more()

    async def _ask(self, connection: NoiseConnection, join: m.Join) -> None:
        pubkey = NodeIdentity.from_seckey(secrets.token_bytes(SECKEY_SIZE)).node_id
        mine = replace(join, factory_pool=replace(join.factory_pool, pubkey=pubkey))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.receive()  # The greeting.
                await connection.send(m.encode_message(mine))
                answer = m.decode_message(await connection.receive())
            self.seen[f"join {type(answer).__name__.lower()}"] += 1
        except (ConnectionLost, TimeoutError):
            self.seen["join unanswered"] += 1
        finally:
            await connection.close()

    async def _chatter(self) -> None:
        word = m.encode_message(m.Leave(factory_pubkey=self.lsp.node_id))
        for n_times in itertools.count():
            connection = await self._dial("noise")
            if not n_times:
                self._note_one_more()
            if connection is not None:
                with contextlib.suppress(ConnectionLost):
                    while True:
                        await connection.send(word)
                        self.seen["noise sent"] += 1
                        await asyncio.sleep(0)  # The other strangers have their turn too.
            await asyncio.sleep(REDIAL_SECONDS)

    async def _dial(self, kind: str) -> NoiseConnection | None:
        self._n_dialled += 1
        source = _address(self._n_dialled % self.n_addresses)
        async with self._dials:
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    connection = await _connect(self.lsp, source)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, HandshakeFailed):
                self.seen[f"{kind} turned away"] += 1
                return None
        self.seen[f"{kind} connected"] += 1
        return connection


async def _all(works: Any) -> None:
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(_quietly(work))


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    # A stranger whose socket breaks in the middle is one stranger less.
    with contextlib.suppress(OSError):
        await work


async def _connect(lsp: PeerAddress, source: str) -> NoiseConnection:
    identity = NodeIdentity.from_seckey(secrets.token_bytes(SECKEY_SIZE))
    ephemeral_seckey = secrets.token_bytes(SECKEY_SIZE)
    act_one, awaiting = initiate(
        identity, responder_id=lsp.node_id, ephemeral_seckey=ephemeral_seckey
    )
    reader, writer = await asyncio.open_connection(lsp.host, lsp.port, local_addr=(source, 0))
    try:
        writer.write(act_one)
        act_three, keys = awaiting.finish(await reader.readexactly(ACT_TWO_SIZE))
        writer.write(act_three)
        await writer.drain()
    except BaseException:
        writer.transport.abort()
        await close_stream(writer)
        raise
    return NoiseConnection(reader, writer, keys)


def main() -> None:
    """Be strangers until nothing more is to be read; then write what was seen."""
    lsp, crowd = parse_peer_address(sys.argv[1]), Crowd(**json.loads(sys.argv[2]))
    os.nice(crowd.niceness)
    _say(json.dumps(asyncio.run(_come(lsp, crowd))))


if __name__ == "__main__":
    main()
