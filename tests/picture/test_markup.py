"""What is not markup never becomes any."""

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from cromford.picture.markup import element, escaped, joined, words
from cromford.picture.paper import ROOM, shortened, width_of, wrapped


@given(text=st.text(max_size=40))
def test_any_text_comes_back_as_text(text: str) -> None:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    parsed = ET.fromstring(words("p", text, title=text))  # noqa: S314 - our own markup
    assert (parsed.text or "") == shown
    assert parsed.get("title") == shown
    assert len(list(parsed.iter())) == 1


def test_attributes_are_named_as_in_the_source() -> None:
    assert element("p", class_="a b", font_size=10.0, x=1.005, y=2) == (
        '<p class="a b" font-size="10" x="1" y="2"/>'
    )


def test_elements_nest() -> None:
    assert element("g", words("a", "<"), element("b")) == "<g><a>&lt;</a><b/></g>"
    assert joined([escaped("&"), escaped('"')]) == "&amp;&quot;"


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=400))
def test_wrapped_prose_loses_no_word_that_fits_a_line(text: str) -> None:
    lines = wrapped(text, ROOM)
    for line in lines:
        assert line.endswith("…") or all(word in text.split(" ") for word in line.split(" "))
    if "…" not in "".join(lines):
        assert " ".join(lines) == text


@given(text=st.text(max_size=100), room=st.floats(20, 400))
def test_what_is_shortened_fits_or_was_short(text: str, room: float) -> None:
    short = shortened(text, room)
    assert width_of(short) <= room
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))
