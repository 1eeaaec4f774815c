"""Dialing a host that has several addresses: one that leads nowhere keeps nobody from the others.

Where the way to one of them is broken, as IPv6 often is, what is sent there is dropped and nobody
refuses. So the next address is tried a moment after the one before, beside it, the families taking
turns, and the first that answers counts (RFC 8305). Event loops do so by themselves where they are
told `ATTEMPT_DELAY_SECONDS`.
"""

import contextlib
import errno
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import Any, Final

ATTEMPT_DELAY_SECONDS: Final = 0.25  # RFC 8305, section 5: Connection Attempt Delay.

_Found = tuple[int, int, int, str, Any]  # Of `getaddrinfo`.


def connected(host: str, port: int, *, seconds: float) -> socket.socket:
    """Return a socket that is connected to a host; its timeout is `seconds`.

    Args:
        host: A name, or an address.
        port: The port.
        seconds: How long connecting may take, once the addresses are known.

    Raises:
        TimeoutError: If none of its addresses answered in time.
        OSError: If there is none, or each refuses: what the last one said.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with contextlib.closing(_Dialing(found, until=time.monotonic() + seconds)) as dialing:
        reached = dialing.first()
    reached.settimeout(seconds)
    return reached


class _Dialing:
    """Several attempts, of which the first that answers is kept; all others are closed."""

    def __init__(self, found: Iterable[_Found], *, until: float) -> None:
        self._left = deque(_taking_turns(found))
        self._until = until
        self._selector = selectors.DefaultSelector()
        self._refusal = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    def first(self) -> socket.socket:
        """Return the first socket that is connected.

        Raises:
            TimeoutError: If there is none in time.
            OSError: If there will be none.
        """
        while self._left or self._selector.get_map():
            if self._left and not self._begin(*self._left.popleft()) and self._left:
                continue
            next_at = time.monotonic() + ATTEMPT_DELAY_SECONDS if self._left else self._until
            reached = self._answered(min(next_at, self._until))
            if reached is not None:
                return reached
            if time.monotonic() >= self._until:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        raise self._refusal

    def close(self) -> None:
        """End what is still being tried."""
        for key in list(self._selector.get_map().values()):
            _socket_of(key).close()
        self._selector.close()

    def _begin(self, family: int, kind: int, protocol: int, _: str, address: Any) -> bool:  # noqa: ANN401 - of its family
        """Begin to try an address, and say whether its answer is waited for."""
        try:
            trying = socket.socket(family, kind, protocol)
        except OSError as error:  # A family that this machine has not.
            self._refusal = error
            return False
        trying.setblocking(False)
        number = trying.connect_ex(address)
        if number not in {0, errno.EINPROGRESS}:
            self._refused(trying, number)
            return False
        self._selector.register(trying, selectors.EVENT_WRITE)
        return True

    def _answered(self, until: float) -> socket.socket | None:
        """Return a socket once it is connected; None once it is another address's turn."""
        while self._selector.get_map():
            left_seconds = until - time.monotonic()
            if left_seconds <= 0:
                return None
            for key, _ in self._selector.select(left_seconds):
                trying = _socket_of(key)
                self._selector.unregister(trying)
                number = trying.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not number:
                    return trying
                self._refused(trying, number)
                if self._left:
                    return None
        return None

    def _refused(self, trying: socket.socket, number: int) -> None:
        trying.close()
        self._refusal = OSError(number, os.strerror(number))


def _socket_of(key: selectors.SelectorKey) -> socket.socket:
    if not isinstance(key.fileobj, socket.socket):
        raise AssertionError("only sockets are waited for")
    return key.fileobj


def _taking_turns(found: Iterable[_Found]) -> Iterator[_Found]:
    """Yield addresses, the families in turn, and in each the order that the system gave them."""
    by_family: dict[int, list[_Found]] = {}
    for one in found:
        by_family.setdefault(one[0], []).append(one)
    return (one for one in chain(*zip_longest(*by_family.values())) if one is not None)
