"""What a reader of bytes is to the fuzzer: one function, and the one error that it may raise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SIZE_MAX: Final = 8 * 1024  # Bytes of an input, where a target does not say otherwise.


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader, and what it promises.

    Attributes:
        name: Its own, and its corpus's.
        read: Reads bytes, and checks what a value of them must be: that it is written as it was
            read, or reads the same once it is written.
        errors: What it may raise. Anything else that comes out of it is a finding.
        size_max: The longest input worth trying, in bytes.
        memory_factor: At most as many bytes are in use at once for each byte of an input.
        is_slow: Whether one input takes a file, or milliseconds: it is tried less often.
    """

    name: str
    read: Callable[[bytes], None]
    errors: tuple[type[Exception], ...]
    size_max: int = SIZE_MAX
    memory_factor: int = 64
    is_slow: bool = False


def is_read(target: Target, data: bytes) -> bool:
    """Say whether a target takes bytes, or refuses them as it should; whatever else is raised."""
    try:
        target.read(data)
    except target.errors as error:
        if str(error):
            return False
        raise AssertionError("an error says what it is about") from error
    return True


def halves(data: bytes) -> tuple[bytes, bytes]:
    """Return two inputs out of one: the first byte says how many bytes the first of them has."""
    return data[1 : 1 + data[0]] if data else b"", data[1 + data[0] :] if data else b""
