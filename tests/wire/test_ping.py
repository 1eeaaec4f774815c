"""BOLT 1's ping and pong, byte by byte."""

import pytest

from cromford.codec.reader import MalformedBytes
from cromford.wire.messages import decode_message
from cromford.wire.ping import is_ping, is_pong, ping, pong_for


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("0012 0000 0000", "0013 0000"),
        ("0012 0003 0002 ffff", "0013 0003 000000"),
        ("0012 fffb 0000", "0013 fffb" + "00" * 65_531),
        ("0012 fffc 0000", None),
        ("0012 ffff 0001 00", None),
        ("0012 0001 0000 ff", "0013 0001 00"),
    ],
)
def test_a_ping_is_answered_with_as_many_bytes_as_it_asks_for(
    asked: str, answer: str | None
) -> None:
    message = bytes.fromhex(asked)
    assert is_ping(message)
    assert pong_for(message) == (None if answer is None else bytes.fromhex(answer))


@pytest.mark.parametrize("cut_short", ["0012", "0012 00", "0012 0001 00", "0012 0001 0002 ff"])
def test_a_ping_that_is_cut_short_is_malformed(cut_short: str) -> None:
    with pytest.raises(MalformedBytes, match="bytes at offset"):
        pong_for(bytes.fromhex(cut_short))


def test_what_is_no_ping_has_no_pong() -> None:
    with pytest.raises(MalformedBytes, match="another message"):
        pong_for(bytes.fromhex("0013 0000 0000"))


def test_our_own_ping_asks_for_the_shortest_pong_which_no_role_hears() -> None:
    answer = pong_for(ping())
    assert answer == bytes.fromhex("0013 0000")
    assert is_pong(answer)
    assert not is_ping(answer)
    assert decode_message(answer) is None
