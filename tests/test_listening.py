"""Who listens on all addresses of its machine is reached at any of them."""

import asyncio
import socket
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
from cromford.listening import PEERS, CannotListen, listening_for, place_of
from cromford.ports import Connection

ANY = "::"

pytestmark = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="IPv4 or IPv6 is off")


async def assert_reached(port: int) -> None:
    for own in ("127.0.0.1", "::1"):
        _, writer = await asyncio.open_connection(own, port)
        writer.close()
        await writer.wait_closed()


async def peers(_tmp_path: Path) -> None:
    async def ignore(_connection: Connection) -> None:
        """Say nothing."""

    server = await serve(
        ANY,
        0,
        identity=NodeIdentity.from_seckey(b"\x11" * 32),
        on_connection=ignore,
        limits=Limits(connections_max=8, strangers_max=8, handshakes_max=8),
        relation_of=lambda _node_id: Relation.STRANGER,
    )
    async with server:
        await assert_reached(server.port)


async def programs(tmp_path: Path) -> None:
    tcp = TcpListener(host=ANY, port=0, gate=TokenGate(Tokens(tmp_path), host=ANY))
    async with ApiServer(tmp_path / "api.sock", {}, tcp=tcp) as server:
        assert server.tcp_port is not None
        await assert_reached(server.tcp_port)


@pytest.mark.parametrize("scenario", [peers, programs])
def test_all_addresses_in_ipv6_are_those_in_ipv4_too(
    tmp_path: Path, scenario: Callable[[Path], Coroutine[Any, Any, None]]
) -> None:
    asyncio.run(scenario(tmp_path))


def test_a_port_that_another_program_has_in_ipv4_is_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(CannotListen, match=r"on \[::\]:1 for .*another program listens there"),
        listening_for(PEERS, ANY, 1),
    ):
        place_of(ANY, other.getsockname()[1])
