"""One cell of a picture: a place with a badge, and as much text as there is room for."""

from collections.abc import Sequence
from typing import Final

from cromford.picture.markup import Markup, element, joined, words
from cromford.picture.paper import FONT, LINE, SMALL, line_of_text, width_of
from cromford.picture.reading import Badge

PAD: Final = 4.0
NARROW: Final = 10.5  # Narrower, a cell has room for no line at all, not even an upright one.
UPRIGHT_STEP: Final = 12.0
LEAST_SHARE: Final = 12.0  # Of a bar, so that its letter has room.
_FILLS: Final = {
    Badge.SUPERSEDED: "old",
    Badge.CLOSED: "done",
    Badge.VOID: "void",
    Badge.MOVED: "moved",
}
_STYLES: Final = {
    Badge.UNSIGNED: "cell unsigned",
    Badge.ON_CHAIN: "cell chain",
    Badge.LEAVING: "cell chain",
    Badge.FAILED: "cell failed",
}


def box(badge: Badge, x: float, y: float, *, width: float, height: float, prefix: str) -> Markup:
    """Return the ground of a cell: its border and its pattern say how it stands."""
    fill = _FILLS.get(badge)
    more = {} if fill is None else {"fill": f"url(#{prefix}-{fill})"}
    style = _STYLES.get(badge, "cell" if fill is None else "filled")
    return element(
        "rect",
        x=x,
        y=y,
        width=width,
        height=height,
        class_=style,
        **more,
    )


def lies(lines: Sequence[str], width: float, badge: Badge) -> bool:
    """Say whether all lines of a cell have room side by side, its letter beside the first."""
    return all(
        width_of(line, _font(place)) <= width - 2 * PAD - (_corner(badge) if place == 0 else 0)
        for place, line in enumerate(lines)
    )


def cell(
    badge: Badge,
    lines: Sequence[str],
    x: float,
    y: float,
    *,
    width: float,
    height: float,
    prefix: str,
    facts: str,
    is_upright: bool = False,
) -> Markup:
    """Return a cell.

    Args:
        badge: How it stands.
        lines: What it says, the most important first; what has no room is left out, never cut.
        x: Its left.
        y: Its top.
        width: Of it.
        height: Of it.
        prefix: Of the names of patterns.
        facts: All that is to be said of it, for whoever points at it.
        is_upright: Whether its lines go up, for want of room.
    """
    draw = _upright if is_upright else _lying
    shown = [
        *draw(lines, x, y, width=width, height=height, badge=badge),
        *_letter(badge.letter, x, y, width=width, height=height),
    ]
    ground = box(badge, x, y, width=width, height=height, prefix=prefix)
    # On a pattern text needs a halo to be read; elsewhere it only blurs.
    style = "halo" if badge in _FILLS else "plain"
    return element("g", words("title", facts), ground, *shown, class_=style)


def _font(place: int) -> float:
    return FONT if place == 0 else SMALL


def _corner(badge: Badge) -> float:
    """Return what a badge's letter takes of the first line."""
    return width_of(badge.letter, FONT) + PAD if badge.letter else 0.0


def _style(place: int) -> str:
    return "bold" if place == 0 else ""


def _lying(
    lines: Sequence[str], x: float, y: float, *, width: float, height: float, badge: Badge
) -> list[Markup]:
    fits = [
        (place, line)
        for place, line in enumerate(lines)
        if width_of(line, _font(place)) + (_corner(badge) if place == 0 else 0) <= width - 2 * PAD
    ]
    return [
        line_of_text(
            line, x + PAD, y + LINE * (row + 1) - 2, font=_font(place), style=_style(place)
        )
        for row, (place, line) in enumerate(fits[: int(height / LINE)])
    ]


def _upright(
    lines: Sequence[str], x: float, y: float, *, width: float, height: float, badge: Badge
) -> list[Markup]:
    room = height - 2 * PAD - (LINE if badge.letter else 0)
    fits = [(place, line) for place, line in enumerate(lines) if width_of(line, SMALL) <= room]
    shown = fits[: max(1, int(width / UPRIGHT_STEP))]
    first = x + (width - UPRIGHT_STEP * (len(shown) - 1)) / 2 + SMALL / 3
    return [
        line_of_text(
            line,
            first + UPRIGHT_STEP * row,
            y + height - PAD,
            font=SMALL,
            style=_style(place),
            is_upright=False,
        )
        for row, (place, line) in enumerate(shown)
    ]


def _letter(letter: str, x: float, y: float, *, width: float, height: float) -> list[Markup]:
    """Return the badge's letter in the upper right corner, or in the middle of a narrow cell."""
    if not letter or width < width_of(letter, SMALL) or height < SMALL:
        return []
    if width < 2 * NARROW:
        drawn = line_of_text(letter, x + width / 2, y + LINE - 3, font=SMALL, anchor="middle")
        return [drawn]
    return [
        line_of_text(letter, x + width - PAD, y + LINE - 2, style="bold", anchor="end"),
    ]


def shares(
    badges: Sequence[Badge], x: float, y: float, *, width: float, height: float, prefix: str
) -> Markup:
    """Return one bar for many cells: how many of them stand how, by length, and nothing unseen."""
    counts = [(badge, badges.count(badge)) for badge in Badge if badge in badges]
    widths = [max(LEAST_SHARE, width * n / len(badges)) for _, n in counts]
    drawn: list[Markup] = []
    for (badge, _), wide in zip(counts, widths, strict=True):
        part = wide * width / sum(widths)
        drawn.append(box(badge, x, y, width=part, height=height, prefix=prefix))
        drawn += _letter(badge.letter, x, y, width=part, height=height)
        x += part
    return joined(drawn)
