"""How much a reader does for an input: bytes in use at once, and calls. Neither needs a clock.

A reader that allocates what an input only claims, or that does for each byte something with all
of them, is found by an input of a few kinds of bytes, each of which is short at first and then
twice as long.
"""

import sys
import tracemalloc
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from tests.fuzz.target import Target, is_read

MEMORY_MIN: Final = 2 * 1024 * 1024  # Bytes that any reader may use: its tables, a file, a library.
CALLS_MIN: Final = 4_000
GROWTH_MAX: Final = 2.6  # Of calls, where an input is twice as long; 2 and the noise of limits.
# What is repeated: zeros, counts as large as can be, nested lists of each format, records and text.
REPEATED: Final = (
    b"\0",
    b"\xff",
    b"\x01",
    b"[",
    b"\x91",
    b'{"a":',
    b"\x81\xa1a",
    b"\x00\x00\x00\x01\xc0",
    b"\x02\x00",
    b"a.",
    b"=",
    b"7",
)


def large_inputs(kept: list[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield inputs of a size beside those of twice that: kept ones, and what is repeated after."""
    longest = max(kept, key=len, default=b"")
    for unit in (*REPEATED, longest or b"\0"):
        for before in {b"", longest[: len(longest) // 2 + 1]}:
            n = max(1, size // len(unit))
            yield before + n * unit, before + 2 * n * unit


def peak_of(target: Target, data: bytes) -> int:
    """Return how many bytes a target has in use at most, besides its input."""
    tracemalloc.start()
    try:
        is_read(target, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def calls_of(target: Target, data: bytes) -> int:
    """Return how many functions a target calls, Python's own included."""
    n_calls = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal n_calls
        n_calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        is_read(target, data)
    finally:
        sys.setprofile(before)
    return n_calls


def check_memory(target: Target, data: bytes) -> None:
    """Check that a target uses no more memory for an input than follows from its length."""
    peak, limit = peak_of(target, data), MEMORY_MIN + target.memory_factor * len(data)
    assert peak <= limit, f"{target.name}: {len(data)} bytes {data[:20]!r} take {peak} bytes"


def check_bounded(target: Target, shorter: bytes, longer: bytes) -> None:
    """Check that a target does no more for an input than follows from its length."""
    check_memory(target, longer)
    calls, twice = calls_of(target, shorter), calls_of(target, longer)
    assert twice <= CALLS_MIN + GROWTH_MAX * calls, (
        f"{target.name}: {calls} calls for {len(shorter)} bytes {shorter[:20]!r}, {twice} for twice"
    )
