"""All factories on one time line: where each is drawn, what it says, and what it leaves out."""

from typing import Any

import pytest
from tests.picture.documents import Document, lsp_line
from tests.picture.drawn import SVG, boxes, check, texts

from cromford.picture.factories import ROWS_MAX, factories_picture

TIP = 100_000


def line(digit: str, **more: Any) -> Document:
    return lsp_line(digit * 64, TIP, **more)


def picture(*factories: Document) -> Any:
    return check(factories_picture({"factories": list(factories)}))


def said(root: Any) -> str:
    """Return all text, with what was wrapped in one line again."""
    return " ".join(element.text or "" for element in root.iter(f"{SVG}text"))


def test_each_factory_is_a_line_with_what_it_holds_and_until_when() -> None:
    root = picture(line("a", left_blocks=13_000))
    told = said(root)
    assert "1 factory, 12,005,338 sat in them; the tip is 100,000" in told
    assert "factory aaaaaaaaaaaa: live, 8 clients" in told
    assert "exit within 12,400 blocks" in told
    assert "12,005,338 sat locked until 113,000 at the latest, in 13,000 blocks" in told
    (description,) = [element.text for element in root.iter(f"{SVG}desc")]
    assert "active until 111,968, exit deadline 112,400, expiry 113,000" in description


def test_parts_begin_and_end_where_their_heights_are_on_the_common_line() -> None:
    first, last = TIP - 999, TIP + 13_000
    root = picture(line("a", left_blocks=13_000), line("b", left_blocks=5_000, confirmations=500))
    rects = [rect for group in root.iter(f"{SVG}g") for rect in group.findall(f"{SVG}rect")]
    assert len(rects) == 6
    places = [
        (float(rect.get("x", "")), float(rect.get("x", "")) + float(rect.get("width", "")))
        for rect in rects
    ]

    def x(height: int) -> float:
        return 8 + 344 * (height - first) / (last - first)

    # The nearest deadline first.
    for drawn, (begin, left) in zip(
        (places[:3], places[3:]), ((TIP - 499, 5_000), (first, 13_000)), strict=True
    ):
        expected = [begin, TIP + left - 1_032, TIP + left - 600, TIP + left]
        for (start, end), low, high in zip(drawn, expected, expected[1:], strict=False):
            assert start == pytest.approx(x(low), abs=0.02)
            assert end == pytest.approx(x(high), abs=0.02)
    now = [path.get("d", "") for path in root.iter(f"{SVG}path") if path.get("class") == "now"]
    assert {d.split(",")[0] for d in now} == {f"M{x(TIP):.2f}"}


@pytest.mark.parametrize(
    ("left_blocks", "more", "words"),
    [
        (1_000, {}, "DYING: exit within 400 blocks"),
        (500, {}, "EXIT DEADLINE PASSED, expiry in 500 blocks"),
        (-5, {}, "EXPIRED at height 99,995"),
        (13_000, {"period": "waiting", "confirmations": 0}, "waits for its funding"),
    ],
)
def test_what_is_urgent_is_said_in_words(
    left_blocks: int, more: dict[str, Any], words: str
) -> None:
    root = picture(line("a", left_blocks=left_blocks, **more))
    assert words in said(root)
    (style,) = [
        element.get("class", "") for element in root.iter(f"{SVG}text") if element.text == words
    ]
    assert style == ("" if "waits" in words else "loud")


def test_a_funding_without_its_blocks_has_dashed_borders() -> None:
    root = picture(line("a", left_blocks=13_000, period="waiting", confirmations=0))
    styles = {rect.get("class") for group in root.iter(f"{SVG}g") for rect in group}
    assert "cell unsigned" in styles
    assert boxes(root)[0].style == "cell unsigned"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        *((one, "1 factory is over.") for one in ("closed", "swept", "dead", "displaced")),
        ("abandoned", "1 factory is over."),
        ("aborted", "1 factory is over."),
        ("building", "1 factory is being built."),
    ],
)
def test_what_is_over_or_being_built_is_counted_and_not_drawn(status: str, words: str) -> None:
    root = picture(line("a", left_blocks=13_000), line("b", left_blocks=2_000, status=status))
    told = said(root)
    assert "factory bbbb" not in told
    assert "1 factory, 12,005,338 sat in them" in told
    assert told.endswith(words)


def test_without_a_factory_it_says_so() -> None:
    assert "0 factories, 0 sat in them" in said(picture())
    assert "0 factories" in said(picture(line("b", left_blocks=2_000, status="closed")))


def test_of_very_many_the_nearest_deadlines_are_drawn_and_all_are_counted() -> None:
    lines = [
        {**line("a", left_blocks=13_000 - n), "factory_id": f"{n:064x}"}
        for n in range(ROWS_MAX + 7)
    ]
    root = picture(*lines)
    told = said(root)
    assert "107 factories" in told
    assert "7 more have later deadlines." in told
    assert told.count("locked until") == ROWS_MAX
    assert f"until {TIP + 13_000 - ROWS_MAX - 6:,} at" in told
    assert f"until {TIP + 13_000:,} at" not in told


def test_nothing_that_a_peer_wrote_becomes_markup() -> None:
    root = picture(line("<", left_blocks=13_000, status="<script>"))
    assert any("<script>" in text for text in texts(root))
