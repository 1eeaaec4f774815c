"""A table that cuts nothing: where the terminal is too narrow for it, one value to a line."""

from collections.abc import Iterator
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

# Up to here a cell is a value (an amount, a height, a short id); beyond, words that may wrap.
VALUE_WIDTH_MAX: Final = 24
_GAP: Final = 2


class Listing(Table):
    """A table of texts in the style of all listings.

    A value is never cut, nor parted from its unit. What does not fit between the margins even with
    its sentences wrapped is shown row by row, each cell on a line of its own after its heading.
    """

    def __init__(self, *headings: str) -> None:
        super().__init__(
            *headings, box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold"
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table if it fits, or its rows one after the other."""
        least = [self._least_width(place) + _GAP for place in range(len(self.columns))]
        whole = [self._whole_width(place) + _GAP for place in range(len(self.columns))]
        room = options.max_width + _GAP  # Nothing follows the last column.
        if sum(least) > room:
            yield from self._stacked()
            return
        if sum(whole) > room:
            for column, width in zip(self.columns, _shared(least, whole, room), strict=True):
                column.width = width - _GAP
        yield from super().__rich_console__(console, options)

    def _texts(self, place: int) -> Iterator[Text]:
        column = self.columns[place]
        for value in (column.header, *column.cells):
            yield value if isinstance(value, Text) else Text(str(value))

    def _whole_width(self, place: int) -> int:
        return max(text.cell_len for text in self._texts(place))

    def _least_width(self, place: int) -> int:
        return max(_least(text) for text in self._texts(place))

    def _stacked(self) -> Iterator[Text]:
        headings = [str(column.header) for column in self.columns]
        width = max(map(len, headings))
        rows = zip(*([*self._texts(place)][1:] for place in range(len(headings))), strict=True)
        for number, row in enumerate(rows):
            if number:
                yield Text()
            for heading, text in zip(headings, row, strict=True):
                if text.plain:
                    line = Text(f"{heading:<{width}}  ", overflow="fold")
                    yield line.append_text(text)


def _least(text: Text) -> int:
    """Return how narrow a text may become: a value not at all, a sentence to its longest word."""
    if text.cell_len <= VALUE_WIDTH_MAX:
        return text.cell_len
    return max((Text(word).cell_len for word in text.plain.split()), default=0)


def _shared(least: list[int], whole: list[int], room: int) -> list[int]:
    """Return widths that come to `room`: those that want the fewest cells more get them first."""
    widths, left = list(least), room - sum(least)
    wanting = sorted(range(len(least)), key=lambda place: whole[place] - least[place])
    for number, place in enumerate(wanting):
        share = left // (len(wanting) - number)
        given = min(whole[place] - least[place], share)
        widths[place] += given
        left -= given
    return widths
