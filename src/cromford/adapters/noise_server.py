"""BOLT 8 over TCP: serve the peers that connect.

Nothing a peer does, or fails to do, reaches beyond its own connection.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, Self

from cromford.adapters.noise import (
    ACT_ONE_SIZE,
    ACT_THREE_SIZE,
    HandshakeFailed,
    NodeIdentity,
    SessionKeys,
    respond,
)
from cromford.adapters.noise_tcp import NoiseConnection, close_stream, keep_alive
from cromford.adapters.places import Limits, Place, Places, Relation, subscriber_of
from cromford.crypto.keys import SECKEY_SIZE
from cromford.listening import PEERS, listening_for, place_of, stop_listening
from cromford.ports import ConnectionLost

IDLE_CHECK_SECONDS: Final = 15.0  # How often idle strangers are looked for.
# Bytes that are read before somebody asks for them; with what one call at the kernel returns a peer
# that is not heard for a while holds 80 kB of ours.
READ_AHEAD_SIZE: Final = 16 * 1024

_log = logging.getLogger(__name__)


def _stranger(_node_id: bytes) -> Relation:
    return Relation.STRANGER


class NoiseServer:
    """Accepts peers until it is closed. Made by `serve`."""

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        on_connection: Callable[[NoiseConnection], Awaitable[None]],
        limits: Limits,
        relation_of: Callable[[bytes], Relation],
        clock: Callable[[], float] | None,
    ) -> None:
        self._identity = identity
        self._on_connection = on_connection
        self._limits = limits
        self._places = Places(limits, relation_of)
        self._clock = clock or asyncio.get_running_loop().time
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._idle_check: asyncio.TimerHandle | None = None
        self._closed = False

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 lets the system choose one.

        Raises:
            CannotListen: If the address cannot be bound.
        """
        with listening_for(PEERS, host, port):
            # As many wait in the kernel as may show who they are: a whole factory comes at once.
            self._server = await asyncio.start_server(
                self._accept,
                limit=READ_AHEAD_SIZE,
                backlog=self._limits.handshakes_max,
                **place_of(host, port),
            )
        self._check_idle_later()

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._socket_name()[0]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._socket_name()[1]

    @property
    def n_connections(self) -> int:
        """How many peers are connected, handshakes excluded."""
        return self._places.n_entered

    @property
    def n_pending(self) -> int:
        """How many have not said who they are."""
        return self._places.n_pending

    def end_idle(self) -> None:
        """End the connections of strangers that were silent for too long."""
        for place in self._places.idle(now=self._clock()):
            _log.info("connection_idle node_id=%s", place.node_id.hex())
            place.end()

    async def close(self) -> None:
        """Stop listening and end every connection. Safe to call twice."""
        server, self._server = self._server, None
        self._closed = True
        if server is None:
            return
        if self._idle_check is not None:
            self._idle_check.cancel()
        await stop_listening(server)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _socket_name(self) -> tuple[str, int]:
        if self._server is None:
            raise ValueError("the server is closed")
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    def _check_idle_later(self) -> None:
        def check() -> None:
            self.end_idle()
            self._check_idle_later()

        loop = asyncio.get_running_loop()
        self._idle_check = loop.call_later(IDLE_CHECK_SECONDS, check)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A socket that the peer has already reset has no name any more.
        name = writer.get_extra_info("peername")
        subscriber = subscriber_of(name[0]) if name else ""
        if self._closed or not self._places.may_knock(subscriber, now=self._clock()):
            writer.transport.abort()
            return
        place = Place(subscriber, end=writer.transport.abort)
        evicted = self._places.knock(place)
        if evicted is not None:
            _log.warning("handshake_evicted address=%s", evicted.subscriber)
            evicted.end()
        task = asyncio.create_task(self._run(reader, writer, place))
        self._tasks.add(task)

        def end() -> None:
            writer.transport.abort()
            task.cancel()

        place.end = end

        def forget(done: asyncio.Task[None]) -> None:
            self._places.leave(place)
            self._tasks.discard(done)
            # A task cancelled before its first step has not closed anything.
            writer.transport.abort()

        task.add_done_callback(forget)

    async def _run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: Place
    ) -> None:
        try:
            keys = await self._handshake(reader, writer)
            if keys is not None:
                connection = NoiseConnection(reader, writer, keys)
                if self._enter(place, connection):
                    await self._on_connection(connection)
        except ConnectionLost as lost:
            _log.info("connection_lost reason=%s", lost)
        except Exception:  # noqa: BLE001 - one connection's failure must not reach the others
            _log.exception("connection_failed")
        finally:
            await close_stream(writer)

    async def _handshake(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> SessionKeys | None:
        keep_alive(writer)
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                return await _respond(reader, writer, self._identity)
        except HandshakeFailed as failed:
            _log.info("handshake_failed act=%d reason=%s", failed.act, failed.reason)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            _log.info("handshake_failed reason=%s", type(error).__name__)
        # BOLT 8: the responder ends a failed handshake without any further bytes.
        writer.transport.abort()
        return None

    def _enter(self, place: Place, connection: NoiseConnection) -> bool:
        """Give a place to who said who it is; end another's connection for it, if need be."""
        place.n_heard = lambda: connection.n_asked
        evicted, refusal = self._places.enter(place, connection.node_id, now=self._clock())
        if evicted is not None:
            _log.warning("connection_evicted node_id=%s", evicted.node_id.hex())
            evicted.end()
        if refusal:
            _log.warning("connection_refused node_id=%s why=%s", connection.node_id.hex(), refusal)
        return not refusal


async def serve(
    host: str,
    port: int,
    *,
    identity: NodeIdentity,
    on_connection: Callable[[NoiseConnection], Awaitable[None]],
    limits: Limits,
    relation_of: Callable[[bytes], Relation] = _stranger,
    clock: Callable[[], float] | None = None,
) -> NoiseServer:
    """Return a server that runs `on_connection` for each peer whose handshake holds.

    The connection is closed when `on_connection` returns or raises; what it raises is logged and
    ends that connection alone. Close the server to stop it; running calls are cancelled.

    Args:
        host: Where to listen.
        port: Where to listen; 0 lets the system choose one.
        identity: Who answers.
        on_connection: Serves a peer.
        limits: How many peers are served at once, and for how long without a word.
        relation_of: What a peer is to us: whoever has a channel always comes in.
        clock: Seconds, for the limits; None is the event loop's.

    Raises:
        CannotListen: If the address cannot be bound.
    """
    server = NoiseServer(
        identity=identity,
        on_connection=on_connection,
        limits=limits,
        relation_of=relation_of,
        clock=clock,
    )
    await server.start(host, port)
    return server


async def _respond(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, identity: NodeIdentity
) -> SessionKeys:
    act_one = await reader.readexactly(ACT_ONE_SIZE)
    ephemeral_seckey = secrets.token_bytes(SECKEY_SIZE)
    act_two, awaiting = respond(identity, act_one, ephemeral_seckey=ephemeral_seckey)
    writer.write(act_two)
    return awaiting.finish(await reader.readexactly(ACT_THREE_SIZE))
