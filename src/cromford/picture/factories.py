"""All factories of an LSP on one time line: how long each still has, and what it holds till when.

The document is that of `lsp factories`. What is over, or being built, is counted and
not drawn: it holds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cromford import told
from cromford.picture.cells import box
from cromford.picture.factory import ID_SHOWN
from cromford.picture.markup import Markup, element, joined, words
from cromford.picture.paper import (
    FONT,
    LINE,
    MARGIN,
    ROOM,
    SMALL,
    line_of_text,
    paragraph,
    sheet,
    width_of,
)
from cromford.picture.reading import Badge, Document
from cromford.picture.timeline import BAR, NOW, OVER, UNFUNDED, Life, countdown

PREFIX: Final = "all"
TITLE: Final = "Factories"
ROWS_MAX: Final = 100  # Those with the nearest deadlines; a picture of more is read by nobody.
GAP: Final = 6.0
BUILDING: Final = "building"
_PARTS: Final = (("A", Badge.WAITING), ("D", Badge.MOVED), ("T", Badge.VOID))
_LEGEND: Final = (
    "A active, D dying: time to move out, T past the exit deadline: too late to leave by force. "
    "It ends at the expiry. Dashed: its funding waits for its blocks."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A factory that lives: its heights, and what is said of it."""

    factory: Document
    life: Life

    @property
    def name(self) -> str:
        return f"factory {self.factory['factory_id'][:ID_SHOWN]}"

    @property
    def about(self) -> str:
        status = str(self.factory["status"]).replace("_", " ")
        return f"{status}, {told.counted(self.factory['n_clients'], 'client')}"

    @property
    def locked(self) -> str:
        """What is in it, and until when at the latest."""
        left = self.life.expiry - self.life.tip
        until = f"until {self.life.expiry:,} at the latest"
        amount = told.sat(self.factory["funding_amount_sat"])
        return f"{amount} locked {until}, {_in(left)}"

    @property
    def facts(self) -> str:
        life = self.life
        return (
            f"{self.name}: {self.about}; {countdown(life)[0]}; active until {life.dying:,}, exit "
            f"deadline {life.deadline:,}, expiry {life.expiry:,}; {self.locked}"
        )


def factories_picture(document: Document) -> str:
    """Return all factories that live on one time line, as SVG, the nearest deadline first.

    Args:
        document: What `lsp factories` answers with `--json`.
    """
    living = [
        _Row(factory=factory, life=life)
        for factory in document["factories"]
        if (life := _life_of(factory)) is not None
    ]
    living.sort(key=lambda row: (row.life.deadline, row.factory["factory_id"]))
    shown = living[:ROWS_MAX]
    n_over = sum(factory["status"] in OVER for factory in document["factories"])
    n_built = len(document["factories"]) - len(living) - n_over
    total = sum(row.factory["funding_amount_sat"] for row in living)
    about = f"{told.counted(len(living), 'factory', 'factories')}, {told.sat(total)} in them"
    if living:
        about += f"; the tip is {living[0].life.tip:,}"
    title, y = paragraph(TITLE, MARGIN + 0.0, font=FONT + 2, style="bold")
    head, y = paragraph(about, y)
    drawn: list[Markup] = [title, head]
    if shown:
        axis = _Axis([row.life for row in shown])
        part, y = axis.drawn(y + GAP)
        drawn.append(part)
        for row in shown:
            part, y = _drawn(row, axis, y + GAP)
            drawn.append(part)
        part, y = paragraph(_LEGEND, y + GAP, font=SMALL, style="dim")
        drawn.append(part)
    for note in _notes(len(living) - len(shown), n_built, n_over):
        part, y = paragraph(note, y + 2, font=SMALL)
        drawn.append(part)
    return sheet(
        *drawn,
        height=y + MARGIN,
        prefix=PREFIX,
        title=TITLE,
        description="; ".join([about, *(row.facts for row in shown)]),
    )


def _notes(n_left_out: int, n_built: int, n_over: int) -> list[str]:
    notes = []
    if n_left_out:
        notes.append(f"{n_left_out:,} more have later deadlines.")
    if n_built:
        notes.append(f"{told.counted(n_built, 'factory is', 'factories are')} being built.")
    if n_over:
        notes.append(f"{told.counted(n_over, 'factory is', 'factories are')} over.")
    return notes


def _life_of(factory: Document) -> Life | None:
    """Return the heights of a factory's life; None where it is over, or being built."""
    dying, deadline = factory["dying_height"], factory["exit_deadline_height"]
    if factory["status"] in {*OVER, BUILDING} or dying is None:
        return None
    expiry = factory["expiry_height"]
    tip = expiry - factory["blocks_to_expiry"]
    return Life(
        begin=min(tip - max(factory["confirmations"] - 1, 0), dying),
        dying=dying,
        deadline=deadline,
        expiry=expiry,
        tip=tip,
        is_funded=factory["period"] not in UNFUNDED,
    )


class _Axis:
    """Where a height lies, from the first that is drawn to the last."""

    def __init__(self, lives: Sequence[Life]) -> None:
        self.tip = lives[0].tip
        self._first = min(life.begin for life in lives)
        self._last = max(*(life.expiry for life in lives), self.tip)

    def x(self, height: int) -> float:
        """Return the place of a height."""
        share = (height - self._first) / max(self._last - self._first, 1)
        return MARGIN + ROOM * share

    def drawn(self, y: float) -> tuple[Markup, float]:
        """Return its ends and the tip in numbers, and where the next goes on."""
        x = self.x(self.tip)
        near = "start" if x < MARGIN + ROOM / 2 else "end"
        tip = line_of_text(
            f"{NOW}: {self.tip:,}", x, y + LINE - 3, font=SMALL, style="bold", anchor=near
        )
        ends = [
            line_of_text(f"{height:,}", place, y + 2 * LINE - 3, font=SMALL, anchor=anchor)
            for height, place, anchor in (
                (self._first, float(MARGIN), "start"),
                (self._last, float(MARGIN + ROOM), "end"),
            )
        ]
        return joined((tip, *ends)), y + 2 * LINE


def _drawn(row: _Row, axis: _Axis, y: float) -> tuple[Markup, float]:
    """Return a factory's line with its words, and where the next goes on."""
    life = row.life
    head, y = paragraph(f"{row.name}: {row.about}", y, style="bold")
    drawn: list[Markup] = [words("title", row.facts)]
    places = [axis.x(height) for height in life.heights]
    for (letter, badge), left, right in zip(_PARTS, places, places[1:], strict=False):
        width = right - left
        ground = badge if life.is_funded else Badge.UNSIGNED
        drawn.append(box(ground, left, y, width=width, height=BAR, prefix=PREFIX))
        if width >= width_of(letter, SMALL):
            drawn.append(
                line_of_text(
                    letter,
                    left + width / 2,
                    y + BAR - 3,
                    font=SMALL,
                    style="bold",
                    anchor="middle",
                )
            )
    x = axis.x(life.tip)
    drawn.append(element("path", d=f"M{x:.2f},{y - 2:.2f} V{y + BAR + 2:.2f}", class_="now"))
    y += BAR
    until, is_urgent = countdown(life)
    told_left, y = paragraph(until, y + 2, font=SMALL, style="loud" if is_urgent else "")
    locked, y = paragraph(row.locked, y, font=SMALL)
    return joined((head, element("g", *drawn, class_="halo"), told_left, locked)), y


def _in(blocks: int) -> str:
    return f"in {told.counted(blocks, 'block')}" if blocks > 0 else "which has passed"
