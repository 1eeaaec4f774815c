"""A report next to an earlier one: which rows take longer now, measured by their own floors."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

REGRESSION: Final = 1.10  # Below a tenth it is the machine as likely as the program.
_Place = tuple[str, int, str]


@dataclass(frozen=True)
class Compared:
    """One row of both reports: how many times its floor it took."""

    row: str
    clients: int
    shape: str
    ratio_before: float
    ratio: float

    @property
    def change(self) -> float:
        """How many times as long it takes."""
        return self.ratio / self.ratio_before

    @property
    def is_regression(self) -> bool:
        """Whether it takes longer by more than chance."""
        return self.change > REGRESSION


def read(path: Path, *, report_format: int) -> dict[str, Any]:
    """Return an earlier report.

    Raises:
        ValueError: If the file holds none, or one of another format.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        received = report["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a report, received something else") from error
    if received != report_format:
        raise ValueError(
            f"{path}: expected a report of format {report_format}, received {received}"
        )
    return report


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Compared]:
    """Yield the rows that both reports have, in the order of the later one."""
    ratios: dict[_Place, float] = {_place(row): row["ratio"] for row in before["rows"]}
    for row in after["rows"]:
        ratio_before = ratios.get(_place(row))
        if ratio_before:
            yield Compared(*_place(row), ratio_before, row["ratio"])


def _place(row: Mapping[str, Any]) -> _Place:
    return row["row"], row["clients"], row["shape"]


def show(console: Console, rows: list[Compared]) -> None:
    """Show every row of both, those that take longer marked."""
    table = Table(title="Times the floor, before and now", title_justify="left")
    for heading in ("clients", "shape", "row"):
        table.add_column(heading)
    for heading in ("before", "now", "change", ""):
        table.add_column(heading, justify="right")
    for one in rows:
        table.add_row(
            str(one.clients),
            one.shape,
            one.row,
            f"{one.ratio_before:.2f}",
            f"{one.ratio:.2f}",
            f"{one.change - 1:+.0%}",
            "longer" if one.is_regression else "",
        )
    console.print(table)
