import asyncio
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from cromford.adapters import noise_tcp, places
from cromford.adapters.noise import ACT_ONE_SIZE, NodeIdentity, initiate
from cromford.adapters.noise_cipher import MESSAGE_SIZE_MAX
from cromford.adapters.noise_server import NoiseServer, serve
from cromford.adapters.noise_tcp import NoiseConnection, connect
from cromford.adapters.places import Limits, Relation
from cromford.ports import Connection, ConnectionLost
from cromford.wire.ping import ping, pong_for

ALICE = NodeIdentity.from_seckey(b"\x11" * 32)
BOB = NodeIdentity.from_seckey(b"\x21" * 32)

OnConnection = Callable[[NoiseConnection], Awaitable[None]]


async def echo(connection: NoiseConnection) -> None:
    while True:
        await connection.send(await connection.receive())


@asynccontextmanager
async def serving(
    on_connection: OnConnection = echo,
    *,
    limits: Limits | None = None,
    owners: frozenset[bytes] = frozenset(),
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[NoiseServer]:
    server = await serve(
        "127.0.0.1",
        0,
        identity=BOB,
        on_connection=on_connection,
        limits=limits or Limits(connections_max=8, strangers_max=8, handshakes_max=8),
        relation_of=lambda i: Relation.OWNER if i in owners else Relation.STRANGER,
        clock=clock,
    )
    async with server:
        yield server


@asynccontextmanager
async def connected(
    server: NoiseServer, identity: NodeIdentity = ALICE
) -> AsyncIterator[NoiseConnection]:
    connection = await connect(
        server.host, server.port, node_id=BOB.node_id, identity=identity, timeout_seconds=5
    )
    try:
        yield connection
    finally:
        await connection.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the state watched has no event of its own
            await asyncio.sleep(0.005)


async def send_a_lot(connection: NoiseConnection) -> None:
    for _ in range(1000):
        await connection.send(bytes(MESSAGE_SIZE_MAX))


async def assert_hung_up(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def assert_echoes(server: NoiseServer, identity: NodeIdentity = ALICE) -> None:
    async with connected(server, identity) as connection:
        await connection.send(b"still here")
        assert await connection.receive() == b"still here"


def test_both_ends_learn_who_the_other_is() -> None:
    async def scenario() -> None:
        seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def remember(connection: Connection) -> None:
            seen.set_result(connection.node_id)

        async with serving(remember) as server, connected(server) as connection:
            assert connection.node_id == BOB.node_id
            assert await asyncio.wait_for(seen, 5) == ALICE.node_id

    asyncio.run(scenario())


def test_messages_of_every_size_arrive_in_order() -> None:
    async def scenario() -> None:
        messages = [b"", os.urandom(1), os.urandom(MESSAGE_SIZE_MAX), b"", b"last"] * 3
        async with serving() as server, connected(server) as connection:

            async def send_all() -> None:
                for message in messages:
                    await connection.send(message)

            sending = asyncio.create_task(send_all())
            received = [await connection.receive() for _ in messages]
            await sending
            assert received == messages

    asyncio.run(scenario())


def test_messages_that_leave_together_arrive_one_by_one_and_one_too_long_holds_all_back() -> None:
    async def scenario() -> None:
        async with serving() as server, connected(server) as connection:
            await connection.send(b"one", b"", b"three")
            assert [await connection.receive() for _ in range(3)] == [b"one", b"", b"three"]
            with pytest.raises(ValueError, match="65535"):
                await connection.send(b"short", bytes(MESSAGE_SIZE_MAX + 1))
            await connection.send(b"what comes after is read still")
            assert await connection.receive() == b"what comes after is read still"

    asyncio.run(scenario())


def test_many_tasks_may_send_at_once() -> None:
    async def scenario() -> None:
        messages = [number.to_bytes(2, "big") * 5000 for number in range(50)]
        async with serving() as server, connected(server) as connection:
            async with asyncio.TaskGroup() as tasks:
                for message in messages:
                    tasks.create_task(connection.send(message))
                received = [await connection.receive() for _ in messages]
            assert sorted(received) == messages

    asyncio.run(scenario())


def test_a_cancelled_receive_loses_nothing() -> None:
    async def scenario() -> None:
        halfway = asyncio.Event()
        go_on = asyncio.Event()

        async def send_in_two_pieces(connection: NoiseConnection) -> None:
            packet = connection._keys.sending.encrypt(b"in two pieces")
            connection._writer.write(packet[:20])
            halfway.set()
            await go_on.wait()
            connection._writer.write(packet[20:])
            await connection.receive()

        async with serving(send_in_two_pieces) as server, connected(server) as connection:
            receiving = asyncio.create_task(connection.receive())
            await asyncio.wait_for(halfway.wait(), 5)
            await until(lambda: connection._body_size is not None)
            receiving.cancel()
            await asyncio.wait([receiving])
            go_on.set()
            assert await asyncio.wait_for(connection.receive(), 5) == b"in two pieces"

    asyncio.run(scenario())


def test_a_peer_with_another_key_is_refused() -> None:
    async def scenario() -> None:
        impostor = NodeIdentity.from_seckey(b"\x31" * 32)
        async with serving() as server:
            with pytest.raises(ConnectionLost, match=f"is its node id {impostor.node_id.hex()}"):
                await connect(
                    server.host,
                    server.port,
                    node_id=impostor.node_id,
                    identity=ALICE,
                    timeout_seconds=5,
                )
            await assert_echoes(server)

    asyncio.run(scenario())


def test_nobody_listening_is_a_lost_connection() -> None:
    async def scenario() -> None:
        async with serving() as server:
            host, port = server.host, server.port
        with pytest.raises(ConnectionLost, match=f"{host}:{port}"):
            await connect(host, port, node_id=BOB.node_id, identity=ALICE, timeout_seconds=5)

    asyncio.run(scenario())


def test_where_no_thread_can_look_a_name_up_the_connection_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.

    async def scenario() -> None:
        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ConnectionLost, match="localhost:1: can't start new thread"):
                await connect("localhost", 1, node_id=BOB.node_id, identity=ALICE)

    asyncio.run(scenario())


def test_a_listener_that_says_nothing_runs_into_the_deadline() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            writer.close()

        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        host, port = silent.sockets[0].getsockname()
        with pytest.raises(ConnectionLost, match=r"did not answer in 0\.05 seconds"):
            await connect(host, port, node_id=BOB.node_id, identity=ALICE, timeout_seconds=0.05)
        release.set()
        silent.close()
        await silent.wait_closed()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "first_bytes",
    [
        pytest.param(b"GET / HTTP/1.1\r\n" * 8, id="another protocol"),
        pytest.param(b"\x00" * ACT_ONE_SIZE, id="no pubkey"),
        pytest.param(b"\x00\x02", id="cut short"),
        pytest.param(
            initiate(ALICE, responder_id=BOB.node_id, ephemeral_seckey=b"\x12" * 32)[0]
            + b"\x00" * 66,
            id="bad act three",
        ),
    ],
)
def test_a_bad_handshake_ends_that_connection_only(first_bytes: bytes) -> None:
    async def scenario() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(first_bytes)
            writer.write_eof()
            async with asyncio.timeout(5):
                # Act two may have been sent; nothing follows it.
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await reader.readexactly(ACT_ONE_SIZE + 1)
            writer.close()
            await assert_echoes(server)

    asyncio.run(scenario())


def test_a_silent_handshake_is_dropped_at_its_deadline() -> None:
    async def scenario() -> None:
        async with serving(limits=Limits(handshake_seconds=0.05)) as server:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            await assert_hung_up(reader)
            writer.close()
            await assert_echoes(server)

    asyncio.run(scenario())


def test_silent_connections_cannot_keep_a_peer_out() -> None:
    async def scenario() -> None:
        async with serving(limits=Limits(handshakes_max=2)) as server:
            streams = [await asyncio.open_connection(server.host, server.port) for _ in range(10)]
            await assert_echoes(server)
            await until(lambda: server.n_pending <= 2)
            await assert_hung_up(streams[0][0])
            for _, writer in streams:
                writer.close()

    asyncio.run(scenario())


def test_where_owners_have_every_place_nobody_else_comes_in() -> None:
    async def scenario() -> None:
        limits = Limits(connections_max=1)
        owners = frozenset((ALICE.node_id,))
        async with serving(limits=limits, owners=owners) as server, connected(server) as first:
            await first.send(b"first")
            assert await first.receive() == b"first"
            async with connected(server, name(1)) as second:
                with pytest.raises(ConnectionLost):
                    await asyncio.wait_for(second.receive(), 5)
            await first.send(b"first again")
            assert await first.receive() == b"first again"
        assert server.n_connections == 0

    asyncio.run(scenario())


def name(number: int) -> NodeIdentity:
    """Return one of many identities: they cost nothing."""
    return NodeIdentity.from_seckey(number.to_bytes(32, "big"))


@asynccontextmanager
async def crowd(server: NoiseServer, n_peers: int) -> AsyncIterator[list[NoiseConnection]]:
    """Connect strangers that say nothing, one after the other."""
    async with AsyncExitStack() as stack:
        found = []
        for number in range(1, n_peers + 1):
            found.append(await stack.enter_async_context(connected(server, name(number))))
            n_inside = min(number, server._limits.strangers_max, server._limits.per_address_max)
            await until(lambda n=n_inside: server.n_connections >= n)  # type: ignore[misc]  # a default argument
        yield found


async def assert_lost(connection: NoiseConnection) -> None:
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(connection.receive(), 5)


async def assert_answers(connection: NoiseConnection) -> None:
    await connection.send(b"here")
    assert await asyncio.wait_for(connection.receive(), 5) == b"here"


def test_idle_strangers_in_every_place_do_not_lock_out_who_has_a_channel() -> None:
    async def scenario() -> None:
        limits = Limits(connections_max=4, strangers_max=4)
        owners = frozenset((ALICE.node_id,))
        async with serving(limits=limits, owners=owners) as server, crowd(server, 4) as strangers:
            await assert_echoes(server)
            await assert_lost(strangers[0])
            await assert_answers(strangers[3])

    asyncio.run(scenario())


def test_strangers_are_evicted_the_oldest_first_and_leave_the_owners_places_free() -> None:
    async def scenario() -> None:
        async with (
            serving(limits=Limits(connections_max=8, strangers_max=2)) as server,
            crowd(server, 3) as strangers,
        ):
            await assert_lost(strangers[0])
            for stayed in strangers[1:]:
                await assert_answers(stayed)

    asyncio.run(scenario())


def test_who_is_evicted_is_gone_at_once_whoever_served_it() -> None:
    """Nothing more is read of it and its place is another's, while its task takes its time."""

    async def scenario() -> None:
        let_go, heard = asyncio.Event(), []

        async def slowly(connection: NoiseConnection) -> None:
            try:
                while True:
                    heard.append(await connection.receive())
            finally:
                await let_go.wait()

        async with (
            serving(slowly, limits=Limits(connections_max=8, strangers_max=2)) as server,
            crowd(server, 5) as strangers,
        ):
            await until(lambda: len(server._tasks) == 5)
            assert server.n_connections == 2
            for gone in strangers[:3]:
                with suppress(ConnectionLost):
                    await gone.send(b"here")
                await assert_lost(gone)
            assert heard == []
            let_go.set()

    asyncio.run(scenario())


def test_one_address_has_a_few_places_and_owners_behind_it_do_not_count() -> None:
    async def scenario() -> None:
        owners = frozenset((ALICE.node_id,))
        limits = Limits(per_address_max=2)
        async with (
            serving(limits=limits, owners=owners) as server,
            connected(server) as owner,
            crowd(server, 3) as strangers,
        ):
            await assert_lost(strangers[0])
            await assert_answers(owner)
            await assert_answers(strangers[2])

    asyncio.run(scenario())


def test_a_stranger_that_says_nothing_is_let_go_and_who_speaks_stays() -> None:
    async def scenario() -> None:
        now = [0.0]
        owners = frozenset((ALICE.node_id,))
        async with (
            serving(limits=Limits(idle_seconds=60), owners=owners, clock=lambda: now[0]) as server,
            connected(server) as owner,
            crowd(server, 2) as (silent, speaking),
        ):
            server.end_idle()
            now[0] = 60.0
            for idle_words in (ping(), pong_for(ping())):
                assert idle_words is not None
                await silent.send(idle_words)
                assert await silent.receive() == idle_words
            await assert_answers(speaking)
            server.end_idle()
            await assert_lost(silent)
            await assert_answers(speaking)
            await assert_answers(owner)

    asyncio.run(scenario())


def test_an_address_that_shows_too_many_handshakes_waits() -> None:
    async def scenario() -> None:
        now = [0.0]
        limits = Limits(per_address_max=1)
        async with serving(limits=limits, clock=lambda: now[0]) as server:
            for _ in range(places.HANDSHAKES_BURST_PER_PLACE):
                await assert_echoes(server)
            reader, writer = await asyncio.open_connection(server.host, server.port)
            await assert_hung_up(reader)
            writer.close()
            now[0] = 1 / places.HANDSHAKES_PER_SECOND_PER_PLACE
            await assert_echoes(server)

    asyncio.run(scenario())


def test_who_comes_back_over_and_over_waits_like_a_client_whose_line_is_bad() -> None:
    async def scenario() -> None:
        now = [0.0]
        owners = frozenset((ALICE.node_id,))
        limits = Limits(per_address_max=100)
        async with serving(limits=limits, owners=owners, clock=lambda: now[0]) as server:
            for _ in range(int(places.RETURNS.burst)):
                await assert_echoes(server)
            async with connected(server) as once_more:
                await assert_lost(once_more)
            await assert_echoes(server, name(1))
            now[0] = 1 / places.RETURNS.per_second
            await assert_echoes(server)

    asyncio.run(scenario())


def test_an_exception_in_our_own_code_ends_that_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async def fail_on_request(connection: NoiseConnection) -> None:
            if await connection.receive() == b"fail":
                raise RuntimeError("a bug")
            await connection.send(b"fine")

        async with (
            serving(fail_on_request) as server,
            connected(server) as bad,
            connected(server) as good,
        ):
            await bad.send(b"fail")
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(bad.receive(), 5)
            await good.send(b"go on")
            assert await good.receive() == b"fine"

    asyncio.run(scenario())
    assert "connection_failed" in caplog.text


def test_bytes_that_do_not_authenticate_end_the_connection_for_good() -> None:
    async def scenario() -> None:
        lost: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

        async def listen(connection: NoiseConnection) -> None:
            reasons = []
            for _ in range(2):
                with pytest.raises(ConnectionLost) as failure:
                    await connection.receive()
                reasons.append(str(failure.value))
            lost.set_result((reasons[0], reasons[1]))

        async with serving(listen) as server, connected(server) as connection:
            # A genuine packet after the forged one must not be taken for the next message.
            genuine = connection._keys.sending.encrypt(b"genuine")
            connection._writer.write(bytes(18) + genuine)
            first, second = await asyncio.wait_for(lost, 5)
            assert "broke the encryption" in first
            assert "broke the encryption" in second

    asyncio.run(scenario())


def test_a_closed_peer_is_a_lost_connection_to_both_verbs() -> None:
    async def scenario() -> None:
        async def leave(_: NoiseConnection) -> None:
            return

        async with serving(leave) as server, connected(server) as connection:
            with pytest.raises(ConnectionLost, match="the peer closed the stream"):
                await asyncio.wait_for(connection.receive(), 5)
            with pytest.raises(ConnectionLost):
                await send_a_lot(connection)

    asyncio.run(scenario())


def test_close_twice_is_safe_and_ends_a_waiting_receive() -> None:
    async def scenario() -> None:
        async with serving() as server, connected(server) as connection:
            waiting = asyncio.create_task(connection.receive())
            await asyncio.sleep(0)
            await connection.close()
            await connection.close()
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(waiting, 5)
            with pytest.raises(ConnectionLost, match="closed"):
                await connection.send(b"too late")

    asyncio.run(scenario())


def test_a_peer_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_tcp, "SEND_TIMEOUT_SECONDS", 0.05)

    async def scenario() -> None:
        async def never_read(connection: NoiseConnection) -> None:
            transport = connection._writer.transport
            assert isinstance(transport, asyncio.Transport)
            transport.pause_reading()
            await asyncio.Event().wait()

        async with serving(never_read) as server, connected(server) as connection:
            with pytest.raises(ConnectionLost, match="read nothing"):
                await send_a_lot(connection)

    asyncio.run(scenario())


def test_closing_the_server_ends_pending_and_established_connections() -> None:
    async def scenario() -> None:
        async with serving() as server:
            connection = await connect(
                server.host, server.port, node_id=BOB.node_id, identity=ALICE, timeout_seconds=5
            )
            reader, writer = await asyncio.open_connection(server.host, server.port)
            await until(lambda: server.n_pending == 1 and server.n_connections == 1)
            await server.close()
            await server.close()
            await assert_hung_up(reader)
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(connection.receive(), 5)
            writer.close()
            await connection.close()
            with pytest.raises(ValueError, match="closed"):
                _ = server.port

    asyncio.run(scenario())


def test_the_limits_leave_places_for_owners() -> None:
    usual = Limits()
    assert usual.per_address_max < usual.strangers_max < usual.connections_max
    assert usual.handshakes_max < usual.connections_max
    assert 0 < usual.handshake_seconds <= noise_tcp.CONNECT_TIMEOUT_SECONDS


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_turns", range(4))
def test_who_knocks_as_the_server_closes_is_not_left_open(n_turns: int) -> None:
    async def knock() -> None:
        async with serving() as server:
            knocking = socket.create_connection((server.host, server.port))
            for _ in range(n_turns):
                await asyncio.sleep(0)
        with knocking:
            # Whoever forgets a socket leaves it to the garbage collector, which complains.
            gc.collect()
            knocking.setblocking(False)
            with suppress(ConnectionResetError):
                async with asyncio.timeout(5):
                    assert await asyncio.get_running_loop().sock_recv(knocking, 1) == b""

    asyncio.run(knock())
