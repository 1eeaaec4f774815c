"""Which addresses nobody but this machine reaches, and by which name one of them was asked."""

import ipaddress
from collections.abc import Collection
from typing import Final

LOCALHOST: Final = "localhost"


def is_loopback(host: str) -> bool:
    """Say whether nobody but this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOCALHOST


def names_us(asked: str, names: Collection[str]) -> bool:
    """Say whether a `Host` is an address, or one of our names.

    A page of another site can let its own name resolve to our address (DNS rebinding), and then
    asks with that name. An address cannot be made to lie.
    """
    host = _host_of(asked)
    return host in names or _is_address(host)


def _host_of(asked: str) -> str:
    """Return what stands before the port, without the brackets of an IPv6 address."""
    if asked.startswith("["):
        return asked[1:].partition("]")[0]
    return asked.partition(":")[0].lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
