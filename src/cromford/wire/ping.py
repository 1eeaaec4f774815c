"""BOLT 1's `ping` and `pong`: whether there is anybody behind a connection.

The kernel of a process that hangs goes on answering for it, so only a message proves that somebody
reads. They concern the connection alone: no role hears of them, and no journal.
"""

from typing import Final

from cromford.codec.reader import MalformedBytes, Reader

PING_TYPE: Final = 18
PONG_TYPE: Final = 19  # Odd: who does not know it may ignore it.
N_PONG_BYTES_END: Final = 65_532  # BOLT 1: from here on a ping asks for no pong.
_NUMBER_SIZE: Final = 2


def ping() -> bytes:
    """Return a ping that asks for the shortest pong."""
    return _number(PING_TYPE) + _number(0) + _number(0)


def is_ping(message: bytes) -> bool:
    """Say whether a message is a ping, well-formed or not."""
    return message[:_NUMBER_SIZE] == _number(PING_TYPE)


def is_pong(message: bytes) -> bool:
    """Say whether a message is a pong; what is in it does not matter."""
    return message[:_NUMBER_SIZE] == _number(PONG_TYPE)


def pong_for(message: bytes) -> bytes | None:
    """Return the pong that a ping asks for; None if it asks for none.

    Raises:
        MalformedBytes: If the ping is cut short. Bytes after it are ignored (BOLT 1).
    """
    reader = Reader(message)
    if reader.uint_be(_NUMBER_SIZE) != PING_TYPE:
        raise MalformedBytes("ping: another message was received")
    n_pong_bytes = reader.uint_be(_NUMBER_SIZE)
    reader.take(reader.uint_be(_NUMBER_SIZE))
    if n_pong_bytes >= N_PONG_BYTES_END:
        return None
    return _number(PONG_TYPE) + _number(n_pong_bytes) + bytes(n_pong_bytes)


def _number(value: int) -> bytes:
    return value.to_bytes(_NUMBER_SIZE, "big")
