"""A picture as software reads it: its elements, its texts, its places, and what it never holds."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

SVG: Final = "{http://www.w3.org/2000/svg}"
NUMBER: Final = re.compile(r"\d[\d,]*(?:\.\d+)?")
ALLOWED: Final = {
    "svg", "title", "desc", "style", "defs", "pattern", "rect", "path", "circle", "g", "text",
    "polyline", "clipPath",
}  # fmt: skip
FONT_MIN: Final = 10.0
# What a glyph is of its height in a usual font: less than the picture counts on.
GLYPH: Final = 0.5


@dataclass(frozen=True)
class Box:
    """A cell: what it is, where, and how it stands."""

    facts: str
    style: str
    x: float
    y: float
    width: float
    height: float
    letter: str
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """What comes first of its facts."""
        return re.split(r"[:,]", self.facts)[0]

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - our own markup


def texts(root: ET.Element) -> list[str]:
    """Return every text that is drawn, and every text that is told of what is drawn."""
    tags = (f"{SVG}text", f"{SVG}title", f"{SVG}desc")
    return [element.text or "" for element in root.iter() if element.tag in tags]


def boxes(root: ET.Element) -> list[Box]:
    found = []
    for group in root.iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        if title is None or rect is None:
            continue
        drawn = [text.text or "" for text in group.findall(f"{SVG}text")]
        letter = drawn.pop() if drawn and re.fullmatch("[A-Z]", drawn[-1]) else ""
        x, y, width, height = (float(rect.get(key, "")) for key in ("x", "y", "width", "height"))
        style = f"{rect.get('class')} {rect.get('fill', '')}".strip()
        found.append(Box(title.text or "", style, x, y, width, height, letter, tuple(drawn)))
    return found


def box_of(root: ET.Element, name: str) -> Box:
    (found,) = [box for box in boxes(root) if box.name == name]
    return found


def numbers(values: Iterable[str]) -> set[str]:
    """Return the numbers in texts, without the commas of thousands."""
    return {found.replace(",", "") for text in values for found in NUMBER.findall(text)}


def numbers_of(document: Any) -> Iterator[str]:
    """Yield every number that a document holds, in its texts too."""
    if isinstance(document, dict):
        for value in document.values():
            yield from numbers_of(value)
    elif isinstance(document, list):
        for value in document:
            yield from numbers_of(value)
    elif isinstance(document, str):
        yield from numbers([document])
    elif document is not None and not isinstance(document, bool):
        yield str(document)


def check_is_safe(root: ET.Element) -> None:
    """Assert that a picture runs nothing, and refers to nothing outside itself."""
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in ALLOWED, element.tag
        for key, value in element.attrib.items():
            assert not key.lower().startswith("on"), key
            assert key != "style"  # A page's policy lets in the one style of all pictures.
            assert "href" not in key
            for target in re.findall(r"url\(([^)]*)\)", value):
                assert target.startswith("#")
                assert target[1:] in ids, target
    (style,) = root.iter(f"{SVG}style")
    assert "url" not in (style.text or "")
    assert "@import" not in (style.text or "")


def check_is_told(root: ET.Element) -> None:
    """Assert that whoever does not see it is told what it is."""
    assert root.get("role") == "img"
    named = {element.get("id"): element for element in root if element.get("id")}
    for label in (root.get("aria-labelledby") or "").split():
        assert named[label].text
    assert (root.get("aria-labelledby") or "").count(" ") == 1


def check_is_readable(root: ET.Element) -> None:
    """Assert that all text is large enough, and lies upon the picture."""
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for text in root.iter(f"{SVG}text"):
        size, x, y = (float(text.get(key, "")) for key in ("font-size", "x", "y"))
        assert size >= FONT_MIN, text.text
        long = GLYPH * size * len(text.text or "")
        left = {"start": x, "middle": x - long / 2, "end": x - long}[text.get("text-anchor", "")]
        if text.get("transform"):
            assert long <= y <= height, text.text
            assert size <= x <= width, text.text
        else:
            assert 0 <= left <= width - long, text.text
            assert size <= y <= height, text.text
    for rect in root.iter(f"{SVG}rect"):
        if rect.get("x"):
            assert float(rect.get("x", "")) >= 0
            assert float(rect.get("x", "")) + float(rect.get("width", "")) <= width + 0.05
            assert float(rect.get("y", "")) + float(rect.get("height", "")) <= height


def check(svg: str) -> ET.Element:
    """Assert all of that, and return the picture."""
    root = parsed(svg)
    check_is_safe(root)
    check_is_told(root)
    check_is_readable(root)
    return root
