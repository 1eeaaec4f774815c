"""Links between the documents lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def documents() -> Iterator[Path]:
    for path in sorted(REPOSITORY.rglob("*.md")):
        inside = path.relative_to(REPOSITORY)
        if not any(part.startswith(".") for part in inside.parts):
            yield path


def anchors_of(path: Path) -> set[str]:
    """Return the anchors that a forge gives the headings of a document."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    anchors: set[str] = set()
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        n = 0
        while (anchor := f"{slug}-{n}" if n else slug) in anchors:
            n += 1
        anchors.add(anchor)
    return anchors


def broken_links(path: Path) -> Iterator[str]:
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    for target in LINK.findall(text) + REFERENCE.findall(text):
        if ELSEWHERE.match(target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists() or not linked.is_relative_to(REPOSITORY):
            yield f"{path.relative_to(REPOSITORY)}: {target} does not exist"
        elif anchor and linked.suffix == ".md" and anchor not in anchors_of(linked):
            yield f"{path.relative_to(REPOSITORY)}: {target} has no such heading"


def test_there_are_documents() -> None:
    assert REPOSITORY / "README.md" in set(documents())


def test_every_link_between_documents_resolves() -> None:
    broken = [link for path in documents() for link in broken_links(path)]
    assert not broken, "\n".join(broken)
