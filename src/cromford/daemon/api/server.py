"""Where a daemon's local API is served: on its unix socket always, and on TCP where it is asked to.

Who can write to the socket's file is the operator: its permissions are the key. Each listener has
connections of its own, so that nobody who comes by TCP can keep the operator out.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from starlette.types import ASGIApp

from cromford.adapters.peer_address import written_endpoint
from cromford.daemon.api.application import Application, Gate, Stream
from cromford.daemon.api.calling import short_path
from cromford.daemon.api.connections import Connections
from cromford.daemon.api.endpoints import ServedOperation
from cromford.listening import API, listening_for, place_of, stop_listening

UNIX_CONNECTIONS_MAX: Final = 128
TCP_CONNECTIONS_MAX: Final = 64
SOCKET_MODE: Final = 0o600
GRACE_SECONDS: Final = 5.0  # How long a closing server waits for requests it has begun.

_log = logging.getLogger(__name__)


class SocketInUse(Exception):
    """Another daemon listens on the socket, or its name belongs to something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpListener:
    """An address to serve on, too.

    Attributes:
        host: Where.
        port: Which; 0 takes any that is free.
        gate: Who may ask for what.
        before: What is put before the API there; by default nothing.
    """

    host: str
    port: int
    gate: Gate
    before: Callable[[ASGIApp], ASGIApp] = lambda api: api


class ApiServer:
    """Answers requests on a unix socket, and on TCP where it is told to, until it is closed.

    The requests of one connection are answered in order, those of several at once.

    Args:
        socket_path: The unix socket.
        endpoints: What is served.
        role: Whose daemon it is: a request that is meant for another is refused unread.
        tcp: Where to serve besides.
        document: Returns the description of the API, as JSON.
        streams: Of some operations, what is told as it happens.
    """

    def __init__(
        self,
        socket_path: Path,
        endpoints: Iterable[ServedOperation],
        *,
        role: str | None = None,
        tcp: TcpListener | None = None,
        document: Callable[[], bytes] | None = None,
        streams: Mapping[str, Stream] | None = None,
    ) -> None:
        self._socket_path = socket_path
        self._tcp = tcp
        served = tuple(endpoints)

        def application(gate: Gate | None) -> Application:
            return Application(served, role=role, gate=gate, document=document, streams=streams)

        self._connections = [
            Connections(application(None), name="unix", n_max=UNIX_CONNECTIONS_MAX)
        ]
        if tcp is not None:
            app = tcp.before(application(tcp.gate))
            self._connections.append(Connections(app, name="tcp", n_max=TCP_CONNECTIONS_MAX))
        self._servers: list[asyncio.Server] = []
        self._inode = 0
        self._resources = contextlib.ExitStack()

    @property
    def tcp_port(self) -> int | None:
        """The port that is served on by TCP, if one is."""
        if self._tcp is None or not self._servers:
            return None
        port: int = self._servers[-1].sockets[0].getsockname()[1]
        return port

    @property
    def tcp_url(self) -> str | None:
        """Where a browser finds it, if it is served by TCP."""
        port = self.tcp_port
        if self._tcp is None or port is None:
            return None
        return f"http://{written_endpoint(self._tcp.host, port)}/"

    @property
    def n_connections(self) -> int:
        """How many connections there are, on all listeners."""
        return sum(len(one.open) for one in self._connections)

    async def start(self) -> None:
        """Listen. The file of a daemon that has gone is replaced.

        Two daemons that start at one moment are kept apart by the journal's lock, not here.

        Raises:
            SocketInUse: If a daemon is listening there, or the file is no socket.
            CannotListen: If the address cannot be listened on.
            OSError: If the directory is missing or cannot be written.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:
            # Held while listening, since newer versions of asyncio look the name up again.
            path = undo.enter_context(short_path(self._socket_path))
            listener = _bind(self._socket_path, path)
            self._resources = undo.pop_all()
        self._inode = self._socket_path.stat().st_ino
        self._servers.append(
            await loop.create_unix_server(self._connections[0].protocol, sock=listener)
        )
        if self._tcp is None:
            return
        try:
            with listening_for(API, self._tcp.host, self._tcp.port):
                server = await loop.create_server(
                    self._connections[1].protocol, **place_of(self._tcp.host, self._tcp.port)
                )
        except BaseException:
            await self.close()
            raise
        self._servers.append(server)

    async def close(self) -> None:
        """Stop listening, let begun requests finish for a moment, then end them.

        Safe to call twice. A handler must not wait for it: it would wait for itself.
        """
        servers, self._servers = self._servers, []
        if not servers:
            return
        for connections in self._connections:
            connections.is_closing = True
        for server in servers:
            await stop_listening(server)
        self._remove_file()
        await asyncio.gather(*(one.close(grace_seconds=GRACE_SECONDS) for one in self._connections))
        for server in servers:
            await server.wait_closed()
        self._resources.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _remove_file(self) -> None:
        # Only our own: another daemon may have taken the name in the meantime.
        try:
            if self._socket_path.stat().st_ino == self._inode:
                self._socket_path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("api_socket_left error=%s", error.strerror)


def _bind(socket_path: Path, path: str) -> socket.socket:
    _remove_stale(socket_path, path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before the bind, so that there is no moment in which others could connect.
        os.fchmod(listener.fileno(), SOCKET_MODE)
        listener.bind(path)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SocketInUse(f"another daemon has just taken {socket_path}") from error
        raise
    return listener


def _remove_stale(socket_path: Path, path: str) -> None:
    try:
        mode = socket_path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketInUse(f"{socket_path} is not a socket; it is left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            socket_path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # Its queue is full, so somebody has it.
    raise SocketInUse(f"another daemon listens on {socket_path}")
