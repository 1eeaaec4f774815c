"""A line of numbers as columns of block characters, for any terminal, with colour or without."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

ROWS: Final = 10
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_MARK: Final = "▲"
_MARGIN: Final = 2


def columns(
    console: Console,
    heights: Sequence[float],
    *,
    marked: int,
    ends: tuple[str, str],
    under_mark: str,
    caption: str,
) -> None:
    """Print numbers as columns, the least of them one row high: the axis does not begin at 0.

    Args:
        console: How wide.
        heights: The numbers, left to right; more than there is room for are left out evenly.
        marked: Which of them stands out.
        ends: What stands below the first and the last.
        under_mark: What stands below the one that is marked.
        caption: What they are, in one line above.
    """
    most, least = max(heights), min(heights)
    bottom = least - (most - least) / (ROWS - 1) if most > least else least - 1
    labels = [f"{number:,.0f}" for number in (most, bottom)]
    margin = max(map(len, labels)) + _MARGIN
    shown, place = _shown(len(heights), room=console.width - margin, marked=marked)
    eighths = [
        round((heights[index] - bottom) / (max(most, least + 1) - bottom) * ROWS * 8)
        for index in shown
    ]
    console.print(Text(caption))
    for row in range(ROWS - 1, -1, -1):
        label = labels[0] if row == ROWS - 1 else labels[1] if row == 0 else ""
        line = Text(f"{label:>{margin - _MARGIN}}  ")
        for number, filled in enumerate(eighths):
            cut = min(max(filled - 8 * row, 0), 8)
            line.append(_EIGHTHS[cut], style="bold green" if number == place else "")
        console.print(line)
    console.print(Text(" " * (margin + place) + _MARK, style="bold green"))
    console.print(_below(margin, len(shown), place, ends=ends, under_mark=under_mark))


def _shown(n: int, *, room: int, marked: int) -> tuple[list[int], int]:
    """Return which numbers are shown, the marked one among them, and its place."""
    if n <= room:
        return list(range(n)), marked
    shown = sorted({round(place * (n - 1) / (room - 1)) for place in range(room)})
    place = min(range(len(shown)), key=lambda place: abs(shown[place] - marked))
    shown[place] = marked
    return shown, place


def _below(
    margin: int, n_columns: int, place: int, *, ends: tuple[str, str], under_mark: str
) -> Text:
    """Return the line below: both ends, and between them, as near as there is room, the mark's."""
    first, last = ends
    row = [" "] * n_columns
    row[: len(first)] = first
    row[n_columns - len(last) :] = last
    least, most = len(first) + 1, n_columns - len(last) - 1 - len(under_mark)
    start = min(max(place - len(under_mark) // 2, least), most)
    if least > most:
        return Text(" " * margin + "".join(row))
    row[start : start + len(under_mark)] = under_mark
    return Text(" " * margin + "".join(row))
