"""What every picture is drawn on: sizes, colours, patterns, and text that fits its place.

Colour is never alone: whatever it says is also said by a pattern or a border, and by a letter. The
width is that of a small telephone, and larger screens enlarge all of it.
"""

from typing import Final

from cromford.picture.markup import Markup, element, joined, words

WIDTH: Final = 360
WIDTH_MAX: Final = 640  # Beyond, the text is larger than anybody reads it.
MARGIN: Final = 8
ROOM: Final = WIDTH - 2 * MARGIN
FONT: Final = 11.0
SMALL: Final = 10.0  # No text is smaller.
LARGE: Final = 15.0
LINE: Final = 14
# How wide a character is of its height, rounded up, in the fonts of systems: most text in cells is
# digits, and prose is narrower.
CHARACTER: Final = 0.58
PROSE_CHARACTER: Final = 0.51
ELLIPSIS: Final = "…"

# The one style of all pictures. Nothing in one has a `style` of its own: a page's policy (CSP) can
# allow this block by its hash, and no attribute.
STYLE: Final = (
    f".cf{{max-width:{WIDTH_MAX}px}}"
    """
.cf{--ink:#1b1f24;--paper:#fff;--line:#57606a;--chain:#9ecbff;--old:#b35900;--done:#1a7f37;
--void:#8c959f;--bad:#cf222e}
@media (prefers-color-scheme:dark){.cf{--ink:#e6edf3;--paper:#0d1117;--line:#9198a1;--chain:#1f4f8f;
--old:#f0a050;--done:#4ac26b;--void:#768390;--bad:#ff7b72}}
.cf text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
.cf .halo text{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.cf .bold{font-weight:600}.cf .dim{fill:var(--line)}.cf .loud{font-weight:700;fill:var(--bad)}
.cf .paper{fill:var(--paper)}.cf .cell{fill:var(--paper)}
.cf .cell,.cf .filled{stroke:var(--line);stroke-width:1}
.cf .unsigned{stroke-dasharray:4 3}
.cf .chain{fill:var(--chain);stroke:var(--ink);stroke-width:2.5}
.cf .failed{stroke:var(--bad);stroke-width:3;stroke-dasharray:8 2}
.cf .line{fill:none;stroke:var(--line);stroke-width:1}
.cf .now{fill:none;stroke:var(--ink);stroke-width:2}.cf .dashed{stroke-dasharray:5 4}
.cf .curve{fill:none;stroke:var(--ink);stroke-width:2.5}.cf .point{fill:var(--ink)}
.cf .strokes{fill:none}.cf .old{stroke:var(--old);stroke-width:1.2}
.cf .void{stroke:var(--void);stroke-width:1}.cf .moved{stroke:var(--line);stroke-width:.7}
.cf .done{fill:var(--done)}
"""
).strip()
# Name, size, and what is drawn of a pattern.
_PATTERNS: Final = (
    ("old", 6, "M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2"),
    ("void", 8, "M0,0 l8,8 M8,0 l-8,8"),
    ("moved", 6, "M0,3 h6"),
)
_DOTS: Final = ("done", 6, 1.3)


def patterns(prefix: str) -> Markup:
    """Return the patterns that fills refer to.

    Args:
        prefix: Of their names: two pictures on one page must not share them.
    """
    lines = (
        element(
            "pattern",
            element("rect", width=size, height=size, class_="paper"),
            element("path", d=path, class_=f"strokes {name}"),
            id=f"{prefix}-{name}",
            width=size,
            height=size,
            patternUnits="userSpaceOnUse",
        )
        for name, size, path in _PATTERNS
    )
    name, size, radius = _DOTS
    dots = element(
        "pattern",
        element("rect", width=size, height=size, class_="paper"),
        element("circle", cx=size / 2, cy=size / 2, r=radius, class_=name),
        id=f"{prefix}-{name}",
        width=size,
        height=size,
        patternUnits="userSpaceOnUse",
    )
    return element("defs", *lines, dots)


def sheet(*drawn: Markup, height: float, prefix: str, title: str, description: str) -> str:
    """Return a whole picture, on a ground of its own in light and in dark.

    Args:
        drawn: What is on it.
        height: Of it, where its width is `WIDTH`.
        prefix: As of `patterns`.
        title: What it is, for whoever does not see it.
        description: And what it shows.
    """
    return element(
        "svg",
        words("title", title, id=f"{prefix}-title"),
        words("desc", description, id=f"{prefix}-desc"),
        Markup(f"<style>{STYLE}</style>"),
        patterns(prefix),
        element("rect", width=WIDTH, height=height, class_="paper"),
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {round(height)}",
        width="100%",
        class_="cf",
        role="img",
        aria_labelledby=f"{prefix}-title {prefix}-desc",
    )


def width_of(text: str, font: float = FONT) -> float:
    """Return how wide text is at the most, or a little more."""
    return len(text) * CHARACTER * font


def shortened(text: str, room: float, font: float = FONT) -> str:
    """Return as much of a text as there is room for; what is cut says so."""
    if width_of(text, font) <= room:
        return text
    return text[: max(0, int(room / (CHARACTER * font)) - 1)].rstrip() + ELLIPSIS


def wrapped(text: str, room: float, font: float = FONT) -> list[str]:
    """Return prose in lines that there is room for; a word that is longer than a line is cut.

    A space that does not break stays in its line.
    """
    n_most = int(room / (PROSE_CHARACTER * font))
    lines: list[str] = []
    for word in text.split(" "):
        line = f"{lines[-1]} {word}" if lines else word
        if lines and len(line) <= n_most:
            lines[-1] = line
        else:
            lines.append(shortened(word, room, font))
    return lines


def line_of_text(
    text: str,
    x: float,
    y: float,
    *,
    font: float = FONT,
    style: str = "",
    anchor: str = "start",
    is_upright: bool = True,
) -> Markup:
    """Return one line of text, `y` its base line; not upright, it goes up from there."""
    turned = {} if is_upright else {"transform": f"rotate(-90 {x:.2f} {y:.2f})"}
    return words(
        "text",
        text,
        x=x,
        y=y,
        font_size=font,
        text_anchor=anchor,
        **({"class_": style} if style else {}),
        **turned,
    )


def paragraph(
    text: str, y: float, *, font: float = FONT, style: str = "", indent: float = 0
) -> tuple[Markup, float]:
    """Return text from a height on, and where the next goes on."""
    lines = wrapped(text, ROOM - indent, font)
    step = LINE * font / FONT
    drawn = joined(
        line_of_text(line, MARGIN + indent, y + step * (place + 1) - 3, font=font, style=style)
        for place, line in enumerate(lines)
    )
    return drawn, y + step * len(lines)
