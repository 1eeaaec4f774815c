"""Dialing a host that has several addresses: one that leads nowhere keeps nobody from the others.

Where the way to one of them is broken, as IPv6 often is, what is sent there is dropped and nobody
refuses. Event loops try the next address beside it, `ATTEMPT_DELAY_SECONDS` later (RFC 8305);
threads wait for each address in turn, for its share of the time.
"""

import contextlib
import errno
import os
import socket
import time
from typing import Final

ATTEMPT_DELAY_SECONDS: Final = 0.25  # RFC 8305, section 5: Connection Attempt Delay.
_LEAST_SECONDS: Final = 0.001  # Zero would not wait at all.


def connected(host: str, port: int, *, seconds: float) -> socket.socket:
    """Return a socket that is connected to a host; its timeout is `seconds`.

    Args:
        host: A name, or an address.
        port: The port.
        seconds: How long connecting may take, once the addresses are known.

    Raises:
        TimeoutError: If the last of its addresses did not answer in time.
        OSError: If there is none, or the last one refuses.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    until = time.monotonic() + seconds
    refusal = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for place, (family, kind, protocol, _, address) in enumerate(found):
        share = (until - time.monotonic()) / (len(found) - place)
        with contextlib.ExitStack() as held:
            try:
                trying = held.enter_context(socket.socket(family, kind, protocol))
                trying.settimeout(max(share, _LEAST_SECONDS))
                trying.connect(address)
            except OSError as error:
                refusal = error
                continue
            held.pop_all()
            trying.settimeout(seconds)
            return trying
    raise refusal
