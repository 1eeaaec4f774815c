"""JSON and MessagePack of whoever wrote it: a value of the expected type, or one error."""

import json
import re
from typing import Any, Final, Protocol, TypeVar

from cromford.codec.reader import MalformedBytes

T_co = TypeVar("T_co", covariant=True)
_SPACE: Final = re.compile(r"[ \t\n\r]*")
# Of values nothing is wanted but where they end: no number is worked out.
_SCANNER: Final = json.JSONDecoder(parse_int=len, parse_float=len)


class RepeatedName(MalformedBytes):
    """An object gives a value to one name twice, and nobody can say which of them is meant.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: expected the name once, received it twice")
        self.name = name


class Decoder(Protocol[T_co]):
    """A decoder of msgspec, for one type."""

    def decode(self, data: bytes, /) -> T_co:
        """Return the value of these bytes."""


def decoded(decoder: Decoder[T_co], data: bytes) -> T_co:
    """Return the value of bytes.

    Besides its own error msgspec raises Python's: of text that is no UTF-8, and of what is nested
    too deeply, even where that is in a field that nobody knows.

    Raises:
        MalformedBytes: If they have none of the decoder's type.
    """
    try:
        return decoder.decode(data)
    except ValueError as error:
        raise MalformedBytes(str(error)) from error
    except RecursionError as error:
        raise MalformedBytes("nested too deeply") from error


def decoded_object(decoder: Decoder[dict[str, Any]], data: bytes) -> dict[str, Any]:
    """Return the JSON object of bytes: a decoder keeps the last value of a name that stands twice.

    Raises:
        MalformedBytes: If they are none.
        RepeatedName: If the object says a name twice. One inside of it is not looked into.
    """
    found = decoded(decoder, data)
    try:
        _check_names_once(data.decode())
    except RecursionError as error:
        raise MalformedBytes("nested too deeply") from error
    return found


def _check_names_once(text: str) -> None:
    """Check what is an object already."""
    names: set[str] = set()
    at = _after_space(text, _after_space(text, 0) + 1)
    while text[at] != "}":
        name, at = _SCANNER.raw_decode(text, _after_space(text, at))
        if name in names:
            raise RepeatedName(name)
        names.add(name)
        _, at = _SCANNER.raw_decode(text, _after_space(text, _after_space(text, at) + 1))
        at = _after_space(text, at)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
