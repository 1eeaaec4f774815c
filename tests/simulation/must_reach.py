"""What a full run has to reach, so that a world which stopped reaching something is noticed.

Every message, record, letter and deadline that the program knows, but for those named here; and of
outcomes and cuts those that are named.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from cromford import effects as fx
from cromford.protocol.journal.mail import AnyMail
from cromford.protocol.journal.records import AnyRecord
from cromford.wire.messages import MESSAGE_TYPES

FULL_SEEDS: Final = 500

MAY_BE_MISSED: Final = frozenset[str]()

CUTS: Final = frozenset[str]()
OUTCOMES: Final = frozenset[str]()


def known() -> Iterator[str]:
    """Yield everything that there is to reach, by name."""
    yield from (f"message {one.__name__}" for one in MESSAGE_TYPES)
    yield from (f"record {name}" for name in _names(AnyRecord))
    yield from (f"mail {name}" for name in _names(AnyMail))
    yield from (f"deadline {name}" for name in _names(fx.Deadline))


def never_reached(counts: Mapping[str, int]) -> list[str]:
    """Return what has to be reached and was not."""
    has_to = {*known()} - MAY_BE_MISSED
    has_to |= {f"cut {name}" for name in CUTS} | {f"outcome {name}" for name in OUTCOMES}
    return sorted(has_to - counts.keys())


def unreached(counts: Mapping[str, int]) -> list[str]:
    """Return what is known and was not reached, whether or not it has to be."""
    return sorted({*known()} - counts.keys())


def _names(union: Any) -> Iterator[str]:
    for one in get_args(union):
        yield one.__name__
