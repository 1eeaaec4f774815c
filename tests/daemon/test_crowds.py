"""A crowd at an LSP's port, and what its operator is told of it."""

import asyncio
import contextlib
import secrets
from pathlib import Path

from tests.daemon.town import town

from cromford.adapters.noise import NodeIdentity
from cromford.adapters.noise_tcp import NoiseConnection, connect
from cromford.adapters.peer_address import parse_peer_address
from cromford.adapters.places import PER_ADDRESS_MAX
from cromford.crypto.keys import SECKEY_SIZE
from cromford.daemon.lspd import LspDaemon
from cromford.ports import ConnectionLost


async def strangers_at(address: str) -> list[NoiseConnection]:
    """Come in one moment, as many as one address may."""
    lsp = parse_peer_address(address)

    async def come() -> NoiseConnection:
        identity = NodeIdentity.from_seckey(secrets.token_bytes(SECKEY_SIZE))
        return await connect(lsp.host, lsp.port, node_id=lsp.node_id, identity=identity)

    return await asyncio.gather(*(come() for _ in range(PER_ADDRESS_MAX)))


async def until_gone(stranger: NoiseConnection) -> None:
    with contextlib.suppress(ConnectionLost):
        while True:
            await stranger.receive()


async def look(lsp: LspDaemon, seen: list[int]) -> None:
    """Look how many are connected, in each round of the event loop."""
    while True:
        seen.append(lsp.n_connected)
        await asyncio.sleep(0)


def test_the_operator_is_told_of_no_more_peers_than_there_are_places(tmp_path: Path) -> None:
    """Not of those, too, that had to go and whose task has yet to notice."""

    async def scenario() -> None:
        async with town(tmp_path) as t:
            lsp, _ = t.running["lsp"]
            assert isinstance(lsp, LspDaemon)
            first = await strangers_at(t.lsp_address)
            await t.until("lsp", "status", lambda s: s["n_connected"] == PER_ADDRESS_MAX)
            seen: list[int] = []
            looking = asyncio.create_task(look(lsp, seen))
            second = await strangers_at(t.lsp_address)
            for gone in first:
                await until_gone(gone)
            looking.cancel()
            assert set(seen) == {PER_ADDRESS_MAX}
            for stranger in (*first, *second):
                await stranger.close()

    asyncio.run(scenario())
