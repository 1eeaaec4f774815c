"""What is written for people, in documents, messages and comments, is English."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
DOCUMENTS = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
SOURCES = [*(REPOSITORY / "src").rglob("*.py")]
# Each phrase that has slipped in before, and what is said instead.
NOT_ENGLISH = {
    r"(the|an) own": "its own, our own, one's own",
    r"so many": "that many, this many",
    r"for so long": "for that long, for this long",
    r"(against|by|for|with) who": "whoever, or those who",
    r"(allows?|permits?) to": "allows it to, allows doing",
    r"belongs? into": "belongs in",
}
LINE_BREAK = re.compile(r"\n[ \t]*(#:? |> )?[ \t]*")
EXCERPT = 30


def written() -> Iterator[tuple[str, str]]:
    """Yield each file's name and its text as one line: a phrase may be wrapped."""
    for path in [*DOCUMENTS, *SOURCES]:
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(REPOSITORY)), LINE_BREAK.sub(" ", text)


def test_there_is_something_to_read() -> None:
    names = {name for name, _ in written()}
    assert {"README.md", "docs/cli.md", "src/cromford/daemon/driver.py"} <= names


@pytest.mark.parametrize("phrase", NOT_ENGLISH)
def test_what_is_written_is_english(phrase: str) -> None:
    found = [
        f"{name}: …{text[max(0, hit.start() - EXCERPT) : hit.end() + EXCERPT]}…"
        for name, text in written()
        for hit in re.finditer(rf"\b(?:{phrase})\b", text, re.IGNORECASE)
    ]
    assert not found, "\n".join([f"say {NOT_ENGLISH[phrase]}:", *found])
