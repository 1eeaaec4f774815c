import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.adapters.peer_address import PeerAddress, parse_peer_address

NODE_ID = "028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7"


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("127.0.0.1:9735", "127.0.0.1", 9735),
        ("lsp.example.com:1", "lsp.example.com", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:9735", "fe80::1%eth0", 9735),
    ],
)
def test_an_address_reads_back_as_it_is_written(endpoint: str, host: str, port: int) -> None:
    written = f"{NODE_ID}@{endpoint}"
    address = parse_peer_address(f" {written}\n")
    assert address == PeerAddress(node_id=bytes.fromhex(NODE_ID), host=host, port=port)
    assert str(address) == written


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("", "no @"),
        ("127.0.0.1:9735", "no @"),
        ("@127.0.0.1:9735", "node id: expected 66 hex digits"),
        (NODE_ID[:-2] + "@127.0.0.1:9735", "node id: expected 66 hex digits"),
        (NODE_ID[:-1] + "g@127.0.0.1:9735", "node id: expected 66 hex digits"),
        ("05" + NODE_ID[2:] + "@127.0.0.1:9735", "node id: .* not a point on the curve"),
        (NODE_ID + "@", "port: expected HOST:PORT"),
        (NODE_ID + "@localhost", "port: expected HOST:PORT"),
        (NODE_ID + "@:9735", "host: expected a name"),
        (NODE_ID + "@local host:9735", "host: expected a name"),
        (NODE_ID + "@a@b:9735", "host: expected a name"),
        (NODE_ID + "@::1:9735", "host: an IPv6 address stands in brackets"),
        (NODE_ID + "@[::1]", r"host: expected \[IPV6\]:PORT"),
        (NODE_ID + "@[localhost]:9735", r"host: expected \[IPV6\]:PORT"),
        (NODE_ID + "@" + "a" * 254 + ":9735", "host: expected a name"),
        (NODE_ID + "@localhost:", "port: expected a number"),
        (NODE_ID + "@localhost:0", "port: expected a number"),
        (NODE_ID + "@localhost:65536", "port: expected a number"),
        (NODE_ID + "@localhost:-1", "port: expected a number"),
        (NODE_ID + "@localhost:9735000000", "port: expected a number"),
        (NODE_ID + "@localhost:0000809999", "port: expected a number"),
        (NODE_ID + "@localhost:\u0661", "port: expected a number"),
    ],
)
def test_a_wrong_address_is_refused_naming_the_part(written: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_peer_address(written)


@pytest.mark.sampled(0)
@given(st.text(max_size=200))
def test_any_text_is_an_address_or_a_value_error(written: str) -> None:
    try:
        address = parse_peer_address(written)
    except ValueError:
        return
    assert parse_peer_address(str(address)) == address
