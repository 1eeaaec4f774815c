"""The page's files, without a browser: all are of use, and none is large."""

import re
from importlib.resources import files
from typing import get_args

from cromford.answers.factory_words import ClientFactoryStatus, LspFactoryStatus
from cromford.picture.timeline import OVER

FILES = {
    one.name: one.read_text(encoding="utf-8") for one in (files("cromford") / "page").iterdir()
}
LINES_MAX = 300
SIZE_MAX = 150_000  # Of all together, in characters: a telephone loads it in a second.


def test_every_file_of_the_page_is_asked_for_and_there() -> None:
    asked: set[str] = set()
    for text in FILES.values():
        asked |= set(re.findall(r'(?:from |import )"\./([\w.]+)"', text))
        asked |= set(re.findall(r'(?:href|src)="/page/([\w.]+)"', text))
    assert asked == {name for name in FILES if not name.endswith(".html")}


def test_the_page_is_small_and_each_of_its_files_too() -> None:
    lengths = {name: text.count("\n") for name, text in FILES.items()}
    assert {name: n for name, n in lengths.items() if n > LINES_MAX} == {}
    assert sum(map(len, FILES.values())) < SIZE_MAX


def test_a_page_has_each_place_that_its_modules_fill() -> None:
    """An id that is not there fails only once somebody needs it: in the browser, maybe never."""
    for page in ("lsp.html", "client.html"):
        ids = re.findall(r'id="([\w-]+)"', FILES[page])
        assert len(ids) == len(set(ids)), page
        named = set(re.findall(r'(?:for|aria-labelledby)="([\w-]+)"', FILES[page]))
        described = re.findall(r'aria-describedby="([\w -]+)"', FILES[page])
        named |= {name for names in described for name in names.split()}
        assert named - {"question-title"} <= set(ids), page


def test_the_page_has_no_deadline_for_what_is_over() -> None:
    (listed,) = re.findall(r"const OVER = new Set\(\[(.*?)\]\);", FILES["words.js"], re.DOTALL)
    assert set(re.findall(r'"(\w+)"', listed)) == OVER
    assert {*get_args(LspFactoryStatus), *get_args(ClientFactoryStatus)} > OVER
