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
from cromford.crypto.keys import SECKEY_SIZE
from cromford.listening import stop_listening
from cromford.ports import ConnectionLost

CONNECTIONS_MAX: Final = 512  # Established connections a server holds.
PENDING_HANDSHAKES_MAX: Final = 64  # Connections that have not yet said who they are.
HANDSHAKE_TIMEOUT_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class NoiseServer:
    """Accepts peers until it is closed. Made by `serve`."""

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        on_connection: Callable[[NoiseConnection], Awaitable[None]],
        handshake_timeout_seconds: float,
        pending_max: int,
        connections_max: int,
    ) -> None:
        self._identity = identity
        self._on_connection = on_connection
        self._handshake_timeout_seconds = handshake_timeout_seconds
        self._pending_max = pending_max
        self._connections_max = connections_max
        # In order of arrival: a dict is an ordered set.
        self._pending: dict[asyncio.Task[None], None] = {}
        self._established: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._closed = False

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 lets the system choose one.

        Raises:
            OSError: If the address cannot be bound.
        """
        self._server = await asyncio.start_server(self._accept, host, port)

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
        return len(self._established)

    async def close(self) -> None:
        """Stop listening and end every connection. Safe to call twice."""
        server, self._server = self._server, None
        self._closed = True
        if server is None:
            return
        await stop_listening(server)
        tasks = [*self._pending, *self._established]
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

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        if len(self._pending) >= self._pending_max:
            # The oldest goes: an honest handshake takes one round trip, so whoever fills the
            # places with silence loses them first.
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            oldest.cancel()
            _log.warning("handshake_evicted pending_max=%d", self._pending_max)
        task = asyncio.create_task(self._run(reader, writer))
        self._pending[task] = None

        def forget(done: asyncio.Task[None]) -> None:
            self._pending.pop(done, None)
            self._established.discard(done)
            # A task cancelled before its first step has not closed anything.
            writer.transport.abort()

        task.add_done_callback(forget)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            keys = await self._handshake(reader, writer)
            if keys is not None and self._promote():
                await self._on_connection(NoiseConnection(reader, writer, keys))
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
            async with asyncio.timeout(self._handshake_timeout_seconds):
                return await _respond(reader, writer, self._identity)
        except HandshakeFailed as failed:
            _log.info("handshake_failed act=%d reason=%s", failed.act, failed.reason)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            _log.info("handshake_failed reason=%s", type(error).__name__)
        # BOLT 8: the responder ends a failed handshake without any further bytes.
        writer.transport.abort()
        return None

    def _promote(self) -> bool:
        """Move the running task from the pending ones to the established ones, if it fits."""
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - a coroutine runs in a task
            raise AssertionError
        self._pending.pop(task, None)
        if len(self._established) >= self._connections_max:
            _log.warning("connection_refused connections_max=%d", self._connections_max)
            return False
        self._established.add(task)
        return True


async def serve(
    host: str,
    port: int,
    *,
    identity: NodeIdentity,
    on_connection: Callable[[NoiseConnection], Awaitable[None]],
    handshake_timeout_seconds: float = HANDSHAKE_TIMEOUT_SECONDS,
    pending_max: int = PENDING_HANDSHAKES_MAX,
    connections_max: int = CONNECTIONS_MAX,
) -> NoiseServer:
    """Return a server that runs `on_connection` for each peer whose handshake holds.

    The connection is closed when `on_connection` returns or raises; what it raises is logged and
    ends that connection alone. Close the server to stop it; running calls are cancelled.

    Raises:
        OSError: If the address cannot be bound.
    """
    server = NoiseServer(
        identity=identity,
        on_connection=on_connection,
        handshake_timeout_seconds=handshake_timeout_seconds,
        pending_max=pending_max,
        connections_max=connections_max,
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
