"""What answers a request, and how its parameters are read."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar

import msgspec

from cromford.daemon.api.failures import InvalidParam

Handler = Callable[[dict[str, Any]], Awaitable[object]]
# What operations take, by their names.
Params = Mapping[str, type[msgspec.Struct]]

_Params = TypeVar("_Params")

# How msgspec names the parameter it complains about.
_PARAM_PATTERNS: Final = (
    re.compile(r"missing required field `(?P<param>[^`]+)`"),
    re.compile(r"contains unknown field `(?P<param>[^`]+)`"),
    re.compile(r"at `\$\.(?P<param>[^`]+)`"),
)
# What a record, or a number on the wire, can hold: beyond it no amount, height or time is anything.
NUMBER_MIN: Final = -(2**63)
NUMBER_MAX: Final = 2**63 - 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def read_params(params: dict[str, Any], kind: type[_Params]) -> _Params:
    """Return a handler's parameters as a msgspec struct or a dataclass, strictly typed.

    Raises:
        InvalidParam: Naming the first parameter that does not fit.
    """
    try:
        read = msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        raise complaint_of(error) from error
    for param, value in params.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and not NUMBER_MIN <= one <= NUMBER_MAX:
                # Not written out: it may have a million digits.
                raise InvalidParam(
                    param,
                    f"expected {NUMBER_MIN}..{NUMBER_MAX}, received {one.bit_length()} bits",
                )
    return read


def complaint_of(error: msgspec.ValidationError) -> InvalidParam:
    """Return what msgspec says of the first parameter that does not fit."""
    complaint = str(error)
    for pattern in _PARAM_PATTERNS:
        if match := pattern.search(complaint):
            return InvalidParam(match["param"], complaint)
    return InvalidParam("params", complaint)


def check_name(name: str) -> None:
    """Check what an owner calls something: it stands in paths, in logs and on command lines.

    Raises:
        InvalidParam: If it cannot be a name.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidParam(
            "name",
            f"expected 1..64 letters, digits, dots, underscores and hyphens, received {name!r}",
        )


def without_params(answer: Callable[[], Awaitable[object]]) -> Handler:
    """Return the handler of an operation that takes no parameters, and refuses any."""

    @wraps(answer)
    async def handler(params: dict[str, Any]) -> object:
        for param in params:
            raise InvalidParam(param, "this operation takes no parameters")
        return await answer()

    return handler
