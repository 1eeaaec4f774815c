"""Strangers at an LSP's port: some say nothing, some join under fresh names, some never stop.

They come from many loopback addresses, so that what is limited for each address is not all that
holds them back.
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
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
NAMES_PER_NETWORK: Final = 200


LOWEST_PRIORITY: Final = 19
REPOSITORY: Final = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many strangers there are, of each kind, and of how many addresses."""

    n_idle: int
    n_joins: int
    n_noisy: int
    n_addresses: int
    capacity_sat: int


@contextmanager
def at_the_port(lsp: str, crowd: Crowd) -> Iterator[Callable[[], Counter[str]]]:
    """Run strangers in a process of their own; what is given ends them, and says what they saw.

    In the world they have machines of their own: here theirs is the lowest priority.
    """
    command = [sys.executable, "-m", "tests.flood.strangers", lsp, json.dumps(asdict(crowd))]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def end() -> Counter[str]:
            said, _ = process.communicate()  # Nothing more to read is their sign to go.
            return Counter(json.loads(said))

        try:
            assert process.stdout is not None
            process.stdout.readline()  # They are there.
            yield end
        finally:
            process.kill()


async def _come(lsp: PeerAddress, crowd: Crowd) -> Counter[str]:
    strangers = Strangers(lsp, crowd.n_addresses, crowd.capacity_sat)
    kinds = (
        strangers.idle(crowd.n_idle),
        strangers.noise(crowd.n_noisy),
        strangers.join(crowd.n_joins),
    )
    tasks = [asyncio.create_task(kind) for kind in kinds]
    sys.stdout.write("here\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return strangers.seen


def _address(number: int) -> str:
    return f"127.9.{number // NAMES_PER_NETWORK}.{number % NAMES_PER_NETWORK + 1}"


@dataclass
class Strangers:
    """Everybody that an LSP does not know, and what became of them."""

    lsp: PeerAddress
    n_addresses: int
    capacity_sat: int
    seen: Counter[str] = field(default_factory=Counter)
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

    async def noise(self, n_peers: int) -> None:
        """Say harmless things as fast as the LSP listens; until cancelled."""
        await _all(self._chatter() for _ in range(n_peers))

    async def _hold(self) -> None:
        connection = await self._dial("idle")
        if connection is None:
            return
        with contextlib.suppress(ConnectionLost):
            while True:
                await connection.receive()
        self.seen["idle ended"] += 1

    async def _join_once(self, join: m.Join) -> None:
        connection = await self._dial("join")
        if connection is None:
            return
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
        while True:
            connection = await self._dial("noise")
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
    os.nice(LOWEST_PRIORITY)
    lsp, crowd = parse_peer_address(sys.argv[1]), Crowd(**json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps(asyncio.run(_come(lsp, crowd))))


if __name__ == "__main__":
    main()
