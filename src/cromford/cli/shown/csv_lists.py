"""Lists as comma-separated values (RFC 4180), for whoever keeps books in a spreadsheet.

Amounts are plain integers, in msat and, rounded down, in sat; times are ISO 8601 in UTC. Text that
a spreadsheet would take for a formula begins with an apostrophe instead, and nothing in it steers
the terminal that it may be shown in.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from unicodedata import category

from cromford.told import MSAT_PER_SAT

Document = dict[str, Any]
# The four as they are, and in the full width that some spreadsheets take for the same.
_FORMULAS: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Column(NamedTuple):
    """One column: its heading, and what is in it for an entry."""

    heading: str
    value: Callable[[Document], object]


def csv_of(columns: Sequence[Column], entries: Iterable[Document]) -> str:
    """Return entries as comma-separated values, with a header row; lines end with CR LF."""
    written = io.StringIO(newline="")
    rows = csv.writer(written)
    rows.writerow([column.heading for column in columns])
    rows.writerows([column.value(entry) for column in columns] for entry in entries)
    return written.getvalue()


def guarded(text: str) -> str:
    """Return text that no spreadsheet takes for a formula, and no terminal for an order."""
    # No more than what steers: blanks and joiners of other scripts are what somebody wrote.
    shown = "".join("?" if category(c) == "Cc" and c not in "\n\t" else c for c in text)
    # Some look behind what is blank.
    return f"'{shown}" if shown.lstrip().startswith(_FORMULAS) else shown


def iso_time(unix_time: int | None) -> str:
    """Return a moment in UTC, as in 2026-11-29T16:00:00Z; nothing if it is not known."""
    return "" if unix_time is None else f"{datetime.fromtimestamp(unix_time, tz=UTC):%FT%TZ}"


def _text(name: str) -> Column:
    return Column(name, lambda entry: guarded(str(entry.get(name) or "")))


def _time(name: str) -> Column:
    return Column(name, lambda entry: iso_time(entry.get(name)))


def _number(name: str) -> Column:
    return Column(name, lambda entry: _or_nothing(entry.get(name)))


def _amount(name: str) -> tuple[Column, Column]:
    """Return the columns of an amount: in msat, and in sat."""

    def in_sat(entry: Document) -> object:
        amount_msat = entry.get(f"{name}_msat")
        return "" if amount_msat is None else amount_msat // MSAT_PER_SAT

    return _number(f"{name}_msat"), Column(f"{name}_sat", in_sat)


def _or_nothing(value: object) -> object:
    return "" if value is None else value


PAYMENTS: Final = (
    _number("number"),
    _text("direction"),
    _text("status"),
    _time("created_at"),
    _time("settled_at"),
    *_amount("amount"),
    *_amount("fee"),
    *_amount("received"),
    _text("description"),
    _text("label"),
    _text("external_id"),
    _text("payee"),
    _text("payment_hash"),
    _text("preimage"),
    _text("factory_id"),
    _text("channel_id"),
    _text("failure"),
)
FORWARDS: Final = (
    _text("status"),
    _time("created_at"),
    _time("settled_at"),
    *_amount("amount"),
    *_amount("fee"),
    _text("from_node_id"),
    _text("from_channel_id"),
    _text("to_node_id"),
    _text("to_channel_id"),
    _text("payment_hash"),
    _text("failure"),
)
SALES: Final = (
    _number("height"),
    _time("quoted_at"),
    _time("ordered_at"),
    _time("in_force_at"),
    _number("amount_sat"),
    _number("capacity_sat"),
    *_amount("price"),
    _number("client"),
    _text("node_id"),
    _text("factory_id"),
    _text("advance_id"),
    _text("payment_hash"),
)
