"""`localhost` is what of its addresses this machine has: a container may lack the one of IPv6."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cromford.adapters.noise import NodeIdentity
from cromford.adapters.noise_server import serve
from cromford.adapters.places import Limits, Relation
from cromford.daemon.api.gate import TokenGate
from cromford.daemon.api.server import ApiServer, TcpListener
from cromford.daemon.api.tokens import Tokens
from cromford.listening import CannotListen
from cromford.ports import Connection
from tests.dead_ends import let_it_have

LOCALHOST = "localhost"
NOT_OURS = "192.0.2.1"  # RFC 5737: no machine has it.


async def reach(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


async def peers(_tmp_path: Path) -> None:
    async def ignore(_connection: Connection) -> None:
        """Say nothing."""

    server = await serve(
        LOCALHOST,
        0,
        identity=NodeIdentity.from_seckey(b"\x11" * 32),
        on_connection=ignore,
        limits=Limits(connections_max=8, strangers_max=8, handshakes_max=8),
        relation_of=lambda _node_id: Relation.STRANGER,
    )
    async with server:
        await reach(server.port)


async def programs(tmp_path: Path) -> None:
    tcp = TcpListener(host=LOCALHOST, port=0, gate=TokenGate(Tokens(tmp_path), host=LOCALHOST))
    async with ApiServer(tmp_path / "api.sock", {}, tcp=tcp) as server:
        assert server.tcp_port is not None
        assert server.tcp_url == f"http://localhost:{server.tcp_port}/"
        await reach(server.tcp_port)


scenarios = pytest.mark.parametrize("scenario", [peers, programs])
Scenario = Callable[[Path], Coroutine[Any, Any, None]]


@scenarios
@pytest.mark.parametrize("addresses", [[NOT_OURS, "127.0.0.1"], ["127.0.0.1", NOT_OURS]])
def test_one_that_this_machine_has_not_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: Scenario, addresses: list[str]
) -> None:
    let_it_have(monkeypatch, addresses, name=LOCALHOST)
    asyncio.run(scenario(tmp_path))


@scenarios
def test_where_it_has_none_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    let_it_have(monkeypatch, [NOT_OURS], name=LOCALHOST)
    with pytest.raises(CannotListen, match=r"cannot listen on localhost:0 .*: Cannot assign"):
        asyncio.run(scenario(tmp_path))


@scenarios
def test_of_another_name_all_addresses_have_to_be_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    """Whoever names another one wants to be reached at all of them."""
    monkeypatch.setattr("tests.test_localhost.LOCALHOST", "lsp.example")
    let_it_have(monkeypatch, ["127.0.0.1", NOT_OURS], name="lsp.example")
    with pytest.raises(CannotListen, match=r"cannot listen on lsp\.example:0 .*: Cannot assign"):
        asyncio.run(scenario(tmp_path))
