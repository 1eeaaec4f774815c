"""The address of a peer as people write it: `NODEID@HOST:PORT`."""

import ipaddress
from dataclasses import dataclass
from typing import Final

from cromford.crypto.keys import PUBKEY_SIZE, is_pubkey

PORT_MAX: Final = 0xFFFF
HOST_SIZE_MAX: Final = 253  # RFC 1035: a domain name's longest written form.
_FORM: Final = "NODEID@HOST:PORT or NODEID@[IPV6]:PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """Where a peer listens, and the 33-byte node id it has to prove there."""

    node_id: bytes
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.node_id.hex()}@{written_endpoint(self.host, self.port)}"


def written_endpoint(host: str, port: int) -> str:
    """Return `HOST:PORT`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_peer_address(written: str) -> PeerAddress:
    """Return the parts of `NODEID@HOST:PORT`; an IPv6 host stands in brackets.

    Raises:
        ValueError: Naming the part that is missing or wrong.
    """
    node_id_hex, at_sign, endpoint = written.strip().partition("@")
    if not at_sign:
        raise ValueError(f"a peer address is {_FORM}: no @ in {written!r}")
    host, port = parse_endpoint(endpoint)
    return PeerAddress(node_id=_parse_node_id(node_id_hex), host=host, port=port)


def parse_endpoint(written: str) -> tuple[str, int]:
    """Return the parts of `HOST:PORT`, to connect to; an IPv6 host stands in brackets.

    Raises:
        ValueError: Naming the part that is missing or wrong.
    """
    host, port = split_endpoint(written)
    return host, _parse_port(port)


def _parse_node_id(node_id_hex: str) -> bytes:
    try:
        node_id = bytes.fromhex(node_id_hex)
    except ValueError:
        node_id = b""
    if len(node_id_hex) != 2 * PUBKEY_SIZE or len(node_id) != PUBKEY_SIZE:
        raise ValueError(
            f"node id: expected {2 * PUBKEY_SIZE} hex digits, received {node_id_hex!r}"
        )
    if not is_pubkey(node_id):
        raise ValueError(f"node id: {node_id_hex} is not a point on the curve")
    return node_id


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """Return the host and what stands for a port; an IPv6 host stands in brackets.

    Without them nobody can tell where the host ends: `::1:9750` is an address by itself.

    Raises:
        ValueError: Naming the part that is missing or wrong.
    """
    if endpoint.startswith("["):
        host, bracket, port = endpoint[1:].partition("]:")
        if not bracket or ":" not in host:
            raise ValueError(f"host: expected [IPV6]:PORT, received {endpoint!r}")
    else:
        host, colon, port = endpoint.rpartition(":")
        if not colon:
            raise ValueError(f"port: expected HOST:PORT, received {endpoint!r}")
        if ":" in host:
            raise ValueError(f"host: an IPv6 address stands in brackets, received {host!r}")
    if not host or len(host) > HOST_SIZE_MAX or not host.isascii() or not host.isprintable():
        raise ValueError(f"host: expected a name or an address, received {host!r}")
    if " " in host or "@" in host or not can_be_looked_up(host):
        raise ValueError(f"host: expected a name or an address, received {host!r}")
    return host, port


def is_of_one_machine(host: str) -> bool:
    """Say whether a host may be handed on, to connect to; `0.0.0.0` and a group may not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # A name; who it is, only those know who ask for it.
        return True
    return not (address.is_unspecified or address.is_multicast)


def can_be_looked_up(host: str) -> bool:
    """Say whether the system can be asked for a host: a name is put into labels of 1 to 63 bytes.

    What cannot is a `UnicodeError` of whoever asks, and no `OSError`, each time.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in host


def _parse_port(port: str) -> int:
    number = port_number(port)
    if not number:
        raise ValueError(f"port: expected a number in 1..{PORT_MAX}, received {port!r}")
    return number


def port_number(digits: str) -> int | None:
    """Return the number of a port, 0 included; None if these are not the digits of one."""
    is_short = len(digits) <= len(str(PORT_MAX)) and digits.isascii() and digits.isdecimal()
    return int(digits) if is_short and int(digits) <= PORT_MAX else None
