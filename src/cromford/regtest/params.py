"""Reading the parameters of a call, with Bitcoin Core's errors for wrong ones."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from cromford.bitcoin.tx import MAX_MONEY_SAT, Tx, Txid
from cromford.codec.reader import MalformedBytes

MISC_ERROR: Final = -1
TYPE_ERROR: Final = -3
INVALID_ADDRESS_OR_KEY: Final = -5
INVALID_PARAMETER: Final = -8
DESERIALIZATION_ERROR: Final = -22
TRANSACTION_ERROR: Final = -25
TRANSACTION_REJECTED: Final = -26
ALREADY_IN_UTXO_SET: Final = -27
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
PARSE_ERROR: Final = -32700

NUMBER: Final = ("number",)
STRING: Final = ("string",)
BOOL: Final = ("bool",)
ARRAY: Final = ("array",)
OBJECT: Final = ("object",)
AMOUNT: Final = ()  # A number or a string, which the amount itself is read from.
ANY: Final = ()


class RpcError(Exception):
    """An error of the call, with Core's code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """One parameter of a method."""

    name: str
    types: tuple[str, ...]  # Core checks none of its own accord where this is empty.
    is_required: bool = True


def required(name: str, types: tuple[str, ...]) -> Param:
    """Return a parameter that must be there."""
    return Param(name=name, types=types)


def optional(name: str, types: tuple[str, ...]) -> Param:
    """Return a parameter that may be left out or null."""
    return Param(name=name, types=types, is_required=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A method's name, what it gives, and its parameters."""

    name: str
    summary: str
    params: tuple[Param, ...] = ()

    @property
    def usage(self) -> str:
        """The help text."""
        words = [param.name if param.is_required else f"( {param.name} )" for param in self.params]
        return f"{' '.join([self.name, *words])}\n\n{self.summary}\n"

    def bind(self, given: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """Return one value for each parameter, None where none was given.

        Raises:
            RpcError: If one is missing, unknown, too many or of the wrong type.
        """
        values = self._by_name(given) if isinstance(given, Mapping) else list(given)
        n_required = sum(param.is_required for param in self.params)
        if not n_required <= len(values) <= len(self.params):
            raise RpcError(MISC_ERROR, self.usage)
        values += [None] * (len(self.params) - len(values))
        wrong = {
            f"Position {position} ({param.name})": problem
            for position, (param, value) in enumerate(zip(self.params, values, strict=True), 1)
            if (problem := _type_problem(param, value)) is not None
        }
        if wrong:
            raise RpcError(TYPE_ERROR, f"Wrong type passed:\n{json.dumps(wrong, indent=4)}")
        return values

    def _by_name(self, given: Mapping[str, Any]) -> list[Any]:
        names = [param.name for param in self.params]
        positional = given.get("args", [])
        for name in given:
            if name not in names and name != "args":
                raise RpcError(INVALID_PARAMETER, f"Unknown named parameter {name}")
            if name in names[: len(positional)]:
                raise RpcError(
                    INVALID_PARAMETER,
                    f"Parameter {name} specified twice both as positional and named argument",
                )
        values = list(positional) + [given.get(name) for name in names[len(positional) :]]
        while values and values[-1] is None:
            values.pop()
        return values


def _type_problem(param: Param, value: object) -> str | None:
    if not param.types or (value is None and not param.is_required):
        return None
    kind = type_name(value)
    if kind in param.types:
        return None
    return f"JSON value of type {kind} is not of expected type {param.types[0]}"


def type_name(value: object) -> str:
    """Return Core's name for the type of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float() | Decimal():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def integer(value: object, *, least: int = -(1 << 31), most: int = (1 << 31) - 1) -> int:
    """Return a whole number in a range.

    Raises:
        RpcError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        if type_name(value) != "number":
            problem = f"JSON value of type {type_name(value)} is not of expected type number"
            raise RpcError(TYPE_ERROR, problem)
        raise RpcError(MISC_ERROR, "JSON integer out of range")
    if not least <= value <= most:
        raise RpcError(MISC_ERROR, "JSON integer out of range")
    return value


def verbosity(value: object, *, default: int) -> int:
    """Return a verbosity, which may be a number or a boolean.

    Raises:
        RpcError: If it is neither.
    """
    if value is None:
        return default
    return int(value) if isinstance(value, bool) else integer(value)


def text(value: object) -> str:
    """Return a string out of an array.

    Raises:
        RpcError: If it is none.
    """
    if not isinstance(value, str):
        problem = f"JSON value of type {type_name(value)} is not of expected type string"
        raise RpcError(TYPE_ERROR, problem)
    return value


def fields(value: object) -> dict[str, Any]:
    """Return an object out of an array.

    Raises:
        RpcError: If it is none.
    """
    if not isinstance(value, dict):
        problem = f"JSON value of type {type_name(value)} is not of expected type object"
        raise RpcError(TYPE_ERROR, problem)
    return value


def check_fields(
    given: Mapping[str, Any], kinds: Mapping[str, str], *, required: bool = False
) -> None:
    """Check an object's fields against their types; whether they must be there is `required`.

    Raises:
        RpcError: If one is missing, of another type, or unknown.
    """
    for name, kind in kinds.items():
        value = given.get(name)
        if value is None and not required:
            continue
        if name not in given:
            raise RpcError(TYPE_ERROR, f"Missing {name}")
        if type_name(value) != kind:
            problem = f"JSON value of type {type_name(value)} for field {name}"
            raise RpcError(TYPE_ERROR, f"{problem} is not of expected type {kind}")
    for name in given:
        if name not in kinds:
            raise RpcError(TYPE_ERROR, f"Unexpected key {name}")


def hash_of(value: str, name: str) -> Txid:
    """Return the hash that a parameter's reversed hex stands for.

    Raises:
        RpcError: If it is not 64 hex digits.
    """
    if len(value) != 64:
        raise RpcError(
            INVALID_PARAMETER, f"{name} must be of length 64 (not {len(value)}, for '{value}')"
        )
    try:
        return Txid.from_hex(value)
    except ValueError:
        message = f"{name} must be hexadecimal string (not '{value}')"
        raise RpcError(INVALID_PARAMETER, message) from None


def amount_sat(value: object) -> int:
    """Return an amount in satoshi of a number or a string in bitcoin.

    Raises:
        RpcError: If it is no amount.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise RpcError(TYPE_ERROR, "Amount is not a number or string")
    try:
        scaled = Decimal(str(value)).scaleb(8)
    except InvalidOperation:
        raise RpcError(TYPE_ERROR, "Invalid amount") from None
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise RpcError(TYPE_ERROR, "Invalid amount")
    if not 0 <= scaled <= MAX_MONEY_SAT:
        raise RpcError(TYPE_ERROR, "Amount out of range")
    return int(scaled)


def transaction(raw_hex: str, describe: Callable[[str], str] | None = None) -> Tx:
    """Return the transaction of a parameter's hex.

    Raises:
        RpcError: If it is none.
    """
    try:
        return Tx.parse(bytes.fromhex(raw_hex) if raw_hex.isalnum() else b"")
    except (MalformedBytes, ValueError):
        message = "TX decode failed." if describe is None else describe(raw_hex)
        raise RpcError(
            DESERIALIZATION_ERROR, f"{message} Make sure the tx has at least one input."
        ) from None
