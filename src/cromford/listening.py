"""Begin to listen, or say why not; end it without losing who has just knocked."""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

PEERS: Final = "peers"
METRICS: Final = "metrics"
API: Final = "the API"
ANY_IPV6: Final = "::"
_LOCALHOST: Final = "localhost"
# Of the event loop, for what the kernel handed over last: it becomes a connection, is made known,
# is met by whoever serves it, is closed by them, and is gone.
TURNS: Final = 5


class CannotListen(Exception):
    """An address that nobody can listen on here: taken, not ours, or not allowed.

    Attributes:
        purpose: What was to be served there: `PEERS`, `METRICS` or `API`.
        is_taken: Whether another program has it.
    """

    def __init__(self, purpose: str, host: str, port: int, error: OSError) -> None:
        self.purpose = purpose
        self.is_taken = error.errno == errno.EADDRINUSE
        reason = "another program listens there" if self.is_taken else _reason_of(error)
        where = f"[{host}]" if ":" in host else host
        super().__init__(f"cannot listen on {where}:{port} for {purpose}: {reason}")


def _reason_of(error: OSError) -> str:
    """Return the system's words; asyncio puts its own sentence before them."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error)


@contextmanager
def listening_for(purpose: str, host: str, port: int) -> Iterator[None]:
    """Turn what the system refuses inside the block into one error that names the address.

    Raises:
        CannotListen: If it refuses.
    """
    try:
        yield
    except OSError as error:
        raise CannotListen(purpose, host, port, error) from error


def place_of(host: str, port: int) -> dict[str, Any]:
    """Return where an event loop shall listen, as it is told that.

    `::` is all addresses of this machine, IPv4 as well: asyncio by itself would let none of those
    in, whatever the system's rule is. `localhost` is those of its addresses that this machine has:
    a container's hosts file names one of IPv6, which asyncio would fail at, and no interface of it
    need have that.

    Raises:
        OSError: If the system lets nobody listen there.
    """
    if host == _LOCALHOST:
        return {"host": _own_addresses(host) or host, "port": port}
    if host != ANY_IPV6 or not socket.has_dualstack_ipv6():
        return {"host": host, "port": port}
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return {"sock": sock}


def _own_addresses(name: str) -> list[str]:
    own: list[str] = []
    found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            own.append(str(address[0]))
    return own


async def stop_listening(server: asyncio.Server) -> None:
    """Close a server's listening sockets.

    Whoever serves must turn newcomers away from before this is called. asyncio drops the socket
    of one that meets a closed server, or an ended loop, without closing it: so those that have
    been accepted already are let through first.
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    server.close()
