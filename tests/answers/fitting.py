"""Whether an answer fits its type: every field is there, is what it should be, and has a type."""

from collections.abc import Callable, Iterator
from inspect import unwrap
from typing import get_type_hints

import msgspec

from cromford.answers.index import BY_ROLE


def check_fits(answer: object, role: str, method: str) -> None:
    """Check what a method answered, as it is read on the other side."""
    kind = BY_ROLE[role][method]
    told = msgspec.json.decode(msgspec.json.encode(answer))
    try:
        read: object = msgspec.convert(told, kind, strict=True)
    except msgspec.ValidationError as error:
        raise AssertionError(f"{role} {method}: {error}") from error
    unknown = [*unread(told, read)]
    assert not unknown, f"{role} {method}: without a type: {', '.join(unknown)}"


def declared(handler: Callable[..., object]) -> object:
    """Return the type that a handler is declared to answer with, which the checker proves."""
    return get_type_hints(unwrap(handler))["return"]


def unread(told: object, read: object, path: str = "$") -> Iterator[str]:
    """Yield the path of each field that was told, and is not in what was read."""
    if isinstance(told, dict) and isinstance(read, dict):
        for name, value in told.items():
            if name in read:
                yield from unread(value, read[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    if isinstance(told, list) and isinstance(read, list):
        for value, known in zip(told, read, strict=True):
            yield from unread(value, known, f"{path}[]")
