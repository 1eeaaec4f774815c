"""What a configuration value can be: read from a command line, from the environment, from TOML.

Each kind refuses what it is not with what it expected and what it received.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urlsplit

import click

from cromford.adapters.peer_address import (
    PeerAddress,
    can_be_looked_up,
    is_of_one_machine,
    parse_endpoint,
    parse_peer_address,
    port_number,
    split_endpoint,
    written_endpoint,
)
from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, SAT_PER_KW_OF_SAT_PER_VB

PORT_MAX: Final = 0xFFFF
FEERATE_MAX_SAT_PER_VB: Final = 1000
FEERATE_MIN_SAT_PER_VB: Final = Decimal(MIN_RELAY_SAT_PER_KW) / SAT_PER_KW_OF_SAT_PER_VB


class KeyKind(Protocol):
    """One kind of value."""

    @property
    def metavar(self) -> str:
        """What help shows in the value's place."""

    def of_text(self, text: str) -> Any:  # noqa: ANN401 - each kind its own
        """Return the value of a word on a command line or in the environment.

        Raises:
            ValueError: If it has none: what was expected, and what was received.
        """

    def of_toml(self, value: object) -> Any:  # noqa: ANN401 - each kind its own
        """Return the value of what stands in a TOML file.

        Raises:
            ValueError: If it has none: what was expected, and what was received.
        """

    def to_toml(self, value: Any) -> str:  # noqa: ANN401 - each kind its own
        """Return a value as it stands in a TOML file."""


class Option(click.ParamType[Any]):
    """A kind as click's type of an option."""

    def __init__(self, kind: KeyKind) -> None:
        self._kind = kind
        self.name = kind.metavar

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click asks
        """Return what the help shows: the kind's own words, as they are to be written."""
        return self._kind.metavar

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - each kind its own
        """Return the value."""
        try:
            return self._kind.of_text(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _refuse(expected: str, received: object) -> NoReturn:
    shown = json.dumps(received) if isinstance(received, str | bool) else str(received)
    raise ValueError(f"expected {expected}, received {shown}") from None


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number in a range, both ends included."""

    low: int
    high: int
    metavar: str = "N"

    def of_text(self, text: str) -> int:
        """Return the number."""
        try:
            value = int(text)
        except ValueError:
            _refuse(self._expected(), text)
        return self._checked(value)

    def of_toml(self, value: object) -> int:
        """Return the number; a text is none."""
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse(self._expected(), value)
        return self._checked(value)

    def to_toml(self, value: int) -> str:
        """Return its digits."""
        return str(value)

    def _expected(self) -> str:
        return f"a whole number in {self.low}..{self.high}"

    def _checked(self, value: int) -> int:
        if not self.low <= value <= self.high:
            _refuse(self._expected(), value)
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range; a fraction is allowed, and so is 0 where the range says so."""

    low: Decimal
    high: Decimal
    metavar: str = "N"
    or_zero: bool = False

    def of_text(self, text: str) -> Decimal:
        """Return the number as it was written."""
        try:
            return self._checked(Decimal(text))
        except ArithmeticError:
            _refuse(self._expected(), text)

    def of_toml(self, value: object) -> Decimal:
        """Return the number; a text is none."""
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            _refuse(self._expected(), value)
        return self._checked(Decimal(value))

    def to_toml(self, value: Decimal) -> str:
        """Return its digits."""
        return f"{value:f}"

    def _expected(self) -> str:
        zero = "0 or " if self.or_zero else ""
        return f"{zero}a number in {self.low:f}..{self.high:f}"

    def _checked(self, value: Decimal) -> Decimal:
        is_zero = self.or_zero and value == 0
        if not value.is_finite() or not (is_zero or self.low <= value <= self.high):
            _refuse(self._expected(), value)
        return value or Decimal(0)  # A zero may have as many digits as it likes.


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    metavar: str = "true|false"

    def of_text(self, text: str) -> bool:
        """Return the answer."""
        if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
            _refuse("true or false", text)
        return text.lower() in {"true", "1", "yes"}

    def of_toml(self, value: object) -> bool:
        """Return the answer; a word or a number is none."""
        if not isinstance(value, bool):
            _refuse("true or false", value)
        return value

    def to_toml(self, value: bool) -> str:  # noqa: FBT001 - the one value of a flag
        """Return TOML's word."""
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Text:
    """A text of one line."""

    metavar: str = "TEXT"

    def of_text(self, text: str) -> str:
        """Return the text."""
        if not text or not text.isprintable():
            _refuse("a text of one line", text)
        return text

    def of_toml(self, value: object) -> str:
        """Return the text; a number is none."""
        if not isinstance(value, str):
            _refuse("a text", value)
        return self.of_text(value)

    def to_toml(self, value: str) -> str:
        """Return it in quotes."""
        return _quoted(value)


@dataclass(frozen=True, slots=True)
class NodeUrl(Text):
    """Where a node's JSON-RPC is: `http` or `https`, a host, perhaps a port and a path.

    A user and a password stand elsewhere, so what is refused is not repeated: they may be in it.
    """

    metavar: str = "URL"

    def of_text(self, text: str) -> str:
        """Return the URL.

        Raises:
            ValueError: If it is none, with what was expected.
        """
        try:
            parts = urlsplit(text)
            is_whole = bool(parts.hostname) and can_be_looked_up(parts.hostname or "")
            is_whole = is_whole and (parts.port is None or parts.port > 0)
        except ValueError:
            is_whole = False
        if not is_whole or not all("!" <= character <= "~" for character in text):
            raise ValueError("expected http://HOST[:PORT][/PATH], received another text")
        if parts.scheme not in {"http", "https"}:
            raise ValueError("expected http or https, received another scheme")
        if "@" in parts.netloc:
            raise ValueError("expected no user and no password, which have keys of their own")
        if parts.query or parts.fragment:
            raise ValueError("expected no query and no fragment, received one")
        return text


@dataclass(frozen=True, slots=True)
class NodeUser(Text):
    """A user of a node; a colon would end the name, and begin the password."""

    def of_text(self, text: str) -> str:
        """Return the name.

        Raises:
            ValueError: If it is none.
        """
        if ":" in text:
            raise ValueError("expected a name without a colon, received one with it")
        return Text.of_text(self, text)


@dataclass(frozen=True, slots=True)
class Hex:
    """Bytes in hex, up to a number of them."""

    size_max: int
    metavar: str = "HEX"

    def of_text(self, text: str) -> str:
        """Return the digits in lower case."""
        expected = f"1 to {self.size_max} bytes in hex"
        try:
            data = bytes.fromhex(text)
        except ValueError:
            _refuse(expected, text)
        if not 1 <= len(data) <= self.size_max:
            _refuse(expected, text)
        return data.hex()

    def of_toml(self, value: object) -> str:
        """Return the digits; a number is none."""
        if not isinstance(value, str):
            _refuse("bytes in hex, as a text", value)
        return self.of_text(value)

    def to_toml(self, value: str) -> str:
        """Return it in quotes."""
        return _quoted(value)


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file; `~` is the home directory."""

    metavar: str = "FILE"

    def of_text(self, text: str) -> Path:
        """Return the path."""
        if not text or "\0" in text:
            _refuse("a path", text)
        try:
            return Path(text).expanduser()
        except RuntimeError:  # Nobody of that name has a home.
            _refuse("a path", text)

    def of_toml(self, value: object) -> Path:
        """Return the path; a number is none."""
        if not isinstance(value, str):
            _refuse("a path, as a text", value)
        return self.of_text(value)

    def to_toml(self, value: Path) -> str:
        """Return it in quotes, whole: in a file it would be relative to that file."""
        return _quoted(str(value.absolute()))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def metavar(self) -> str:
        """The words."""
        return f"[{'|'.join(self.words)}]"

    def of_text(self, text: str) -> str:
        """Return the word."""
        return self.of_toml(text)

    def of_toml(self, value: object) -> str:
        """Return the word."""
        if not isinstance(value, str) or value not in self.words:
            _refuse(f"one of {', '.join(self.words)}", value)
        return value

    def to_toml(self, value: str) -> str:
        """Return it in quotes."""
        return _quoted(value)


@dataclass(frozen=True, slots=True)
class Several:
    """One or more values of a kind: a list in TOML, with commas between them elsewhere."""

    kind: KeyKind
    metavar: str

    def of_text(self, text: str) -> tuple[Any, ...]:
        """Return the values."""
        return tuple(self.kind.of_text(part.strip()) for part in text.split(","))

    def of_toml(self, value: object) -> tuple[Any, ...]:
        """Return the values; one alone is no list."""
        if not isinstance(value, list) or not value:
            _refuse("a list with at least one value", value)
        return tuple(self.kind.of_toml(part) for part in value)

    def to_toml(self, value: Sequence[Any]) -> str:
        """Return TOML's list."""
        return f"[{', '.join(self.kind.to_toml(part) for part in value)}]"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen: `HOST:PORT`, with an IPv6 host in brackets; port 0 is any free one."""

    metavar: str = "HOST:PORT"

    def of_text(self, text: str) -> tuple[str, int]:
        """Return the host and the port."""
        host, port = split_endpoint(text)
        number = port_number(port)
        if number is None:
            _refuse(self.metavar, text)
        return host, number

    def of_toml(self, value: object) -> tuple[str, int]:
        """Return the host and the port; a number is none."""
        if not isinstance(value, str):
            _refuse(f"{self.metavar}, as a text", value)
        return self.of_text(value)

    def to_toml(self, value: tuple[str, int]) -> str:
        """Return it in quotes."""
        return _quoted(written_endpoint(*value))


@dataclass(frozen=True, slots=True)
class Reachable:
    """What others connect to: `HOST:PORT` of one place, as an `Endpoint` need not be."""

    metavar: str = "HOST:PORT"

    def of_text(self, text: str) -> tuple[str, int]:
        """Return the host and the port."""
        host, port = parse_endpoint(text)
        if not is_of_one_machine(host):
            _refuse("an address of one machine", text)
        return host, port

    def of_toml(self, value: object) -> tuple[str, int]:
        """Return the host and the port; a number is none."""
        if not isinstance(value, str):
            _refuse(f"{self.metavar}, as a text", value)
        return self.of_text(value)

    def to_toml(self, value: tuple[str, int]) -> str:
        """Return it in quotes."""
        return _quoted(written_endpoint(*value))


@dataclass(frozen=True, slots=True)
class Peer:
    """A node's address, with the node id that it has to prove."""

    metavar: str = "NODEID@HOST:PORT"

    def of_text(self, text: str) -> PeerAddress:
        """Return the address."""
        return parse_peer_address(text)

    def of_toml(self, value: object) -> PeerAddress:
        """Return the address; a number is none."""
        if not isinstance(value, str):
            _refuse(f"{self.metavar}, as a text", value)
        return self.of_text(value)

    def to_toml(self, value: PeerAddress) -> str:
        """Return it in quotes."""
        return _quoted(str(value))


def _quoted(text: str) -> str:
    # A JSON text is a TOML basic string, but for one character that JSON leaves as it is.
    return json.dumps(text).replace("\x7f", "\\u007f")


FEERATE: Final = Number(
    FEERATE_MIN_SAT_PER_VB, Decimal(FEERATE_MAX_SAT_PER_VB), "sat/vB", or_zero=True
)


def sat_per_kw(feerate_sat_per_vb: Decimal) -> int:
    """Return a feerate in sat per 1000 weight units, rounded."""
    return round(feerate_sat_per_vb * SAT_PER_KW_OF_SAT_PER_VB)
