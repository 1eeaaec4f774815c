"""A factory's life as a line: where it is, and what is left until its deadline and its expiry."""

from dataclasses import dataclass
from typing import Final

from cromford import told
from cromford.picture.cells import box
from cromford.picture.markup import Markup, element, joined
from cromford.picture.paper import LARGE, LINE, MARGIN, ROOM, SMALL, line_of_text, paragraph
from cromford.picture.reading import Badge, Document

BAR: Final = 14.0
LEAST: Final = 12.0  # Of a part of the bar: a dying period is short beside a whole life.
# Statuses of what has to do nothing any more before some height: left, ended, or never to be.
OVER: Final = frozenset(
    {
        *("on_chain", "swept", "closed", "moved_out", "aborted"),
        *("abandoned", "given_up", "dead", "displaced"),
    }
)
_PARTS: Final = (("A", Badge.WAITING), ("D", Badge.MOVED), ("T", Badge.VOID))
NOW: Final = "now"
UNFUNDED: Final = frozenset({None, "waiting"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """The heights of a factory's life, and the tip's."""

    begin: int
    dying: int
    deadline: int
    expiry: int
    tip: int
    is_funded: bool

    @property
    def heights(self) -> tuple[int, int, int, int]:
        """Where its parts begin and end."""
        return self.begin, self.dying, self.deadline, self.expiry


def life_of(document: Document) -> Life | None:
    """Return the heights of a factory's life; None where they are not known, or matter no more."""
    if document["status"] in OVER or document["terms"] is None:
        return None
    heights = [document[f"{name}_height"] for name in ("dying", "exit_deadline", "expiry")]
    if None in heights:
        return None
    dying, deadline, expiry = heights
    tip = expiry - document["blocks_to_expiry"]
    return Life(
        begin=min(document["terms"]["build_height"], tip, dying),
        dying=dying,
        deadline=deadline,
        expiry=expiry,
        tip=tip,
        is_funded=document["period"] not in UNFUNDED,
    )


def countdown(life: Life) -> tuple[str, bool]:
    """Return what is left in words, and whether it is urgent."""
    to_deadline, to_expiry = life.deadline - life.tip, life.expiry - life.tip
    if to_expiry <= 0:
        return f"EXPIRED at height {life.expiry:,}", True
    if not life.is_funded:
        return "waits for its funding", False
    if to_deadline <= 0:
        return f"EXIT DEADLINE PASSED, expiry in {told.counted(to_expiry, 'block')}", True
    if life.tip >= life.dying:
        return f"DYING: exit within {told.counted(to_deadline, 'block')}", True
    return f"exit within {told.counted(to_deadline, 'block')}", False


def timeline(life: Life, y: float, prefix: str) -> tuple[Markup, float]:
    """Return the line with its words from a height on, and where the next goes on."""
    words, is_urgent = countdown(life)
    head, y = paragraph(words, y, font=LARGE, style="loud" if is_urgent else "bold")
    y += LINE
    places = _places(life)
    drawn: list[Markup] = [head]
    for (letter, badge), left, right in zip(_PARTS, places, places[1:], strict=False):
        drawn += [
            box(badge, left, y, width=right - left, height=BAR, prefix=prefix),
            line_of_text(
                letter, (left + right) / 2, y + BAR - 3, font=SMALL, style="bold", anchor="middle"
            ),
        ]
    x = _place(life, places)
    near = "start" if x < MARGIN + ROOM / 2 else "end"
    tip = f"{NOW}: {life.tip:,}"
    drawn += [
        element("path", d=f"M{x:.2f},{y - 4:.2f} V{y + BAR + 4:.2f}", class_="now"),
        line_of_text(tip, x, y - 5, font=SMALL, style="bold", anchor=near),
    ]
    y += BAR + 5
    for text in (
        f"A active, until height {life.dying:,}",
        f"D dying, time to move out: the exit deadline is {life.deadline:,}",
        f"T too late to leave by force: it expires at {life.expiry:,}{_left(life)}",
    ):
        part, y = paragraph(text, y, font=SMALL)
        drawn.append(part)
    return joined(drawn), y


def _left(life: Life) -> str:
    left = life.expiry - life.tip
    return f", in {told.counted(left, 'block')}" if left > 0 else ""


def _places(life: Life) -> list[float]:
    """Return where the parts of the bar begin and end: as long as they last, never too short."""
    begin, *ends = life.heights
    lengths = [max(0, end - start) for start, end in zip((begin, *ends), ends, strict=False)]
    whole = max(sum(lengths), 1)
    # Each has the least, and all share the rest by their lengths.
    rest = ROOM - LEAST * len(lengths)
    widths = [LEAST + rest * length / whole for length in lengths]
    places = [MARGIN + 0.0]
    for width in widths:
        places.append(places[-1] + width)
    return places


def _place(life: Life, places: list[float]) -> float:
    """Return where the tip is: within its own part of the bar."""
    for number, (start, end) in enumerate(zip(life.heights, life.heights[1:], strict=False)):
        if life.tip < end:
            share = max(0.0, (life.tip - start) / max(end - start, 1))
            return places[number] + share * (places[number + 1] - places[number])
    return places[-1]
