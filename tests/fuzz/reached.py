"""Which inputs are worth keeping: the fewest that together reach all that any of them reaches."""

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, Final

import cromford
from tests.fuzz.target import Target, is_read

_OURS: Final = cromford.__path__[0]
Reached = set[tuple[str, int, int]]  # A file, and two lines of it, one run after the other.
VALUE: Final = ("", 0, 0)  # What an input reaches that is read.


def minimized(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Return the inputs after each of which more of the code was reached than before.

    Values come first, which go furthest, and then what is refused; of both the shortest.
    """
    reached = {data: reached_by(target, data) for data in inputs}
    kept: list[bytes] = []
    known: Reached = set()
    for data in sorted(reached, key=lambda data: (VALUE not in reached[data], len(data), data)):
        if reached[data] - known:
            known |= reached[data]
            kept.append(data)
    return kept


def reached_by(target: Target, data: bytes) -> Reached:
    """Return what of the code an input reaches, and whether it was a value."""
    reached: Reached = set()

    def enter(frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS):
            return None
        last = 0

        def step(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line":
                reached.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        was_read = is_read(target, data)
    except Exception:  # noqa: BLE001 - a finding, which is kept beside these
        was_read = False
    finally:
        sys.settrace(before)
    if was_read:
        reached.add(VALUE)
    return reached
