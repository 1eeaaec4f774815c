"""The kept inputs of each target: a file each, an input a line, in base64.

What was a finding once has a `!` before it, and stays whatever else is kept.
"""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "corpus"
KEPT_SIZE_MAX: Final = 10 * 1024  # Bytes of one target, so that all of them stay below a megabyte.
KEPT_MAX: Final = 80  # Inputs of one target.
FOUND: Final = "!"


def kept_inputs(name: str) -> list[bytes]:
    """Return the inputs that are kept of a target."""
    return [data for _, data in _lines(name)]


def found_inputs(name: str) -> list[bytes]:
    """Return those of them that were findings."""
    return [data for is_found, data in _lines(name) if is_found]


def keep(name: str, inputs: Iterable[bytes], found: Iterable[bytes] = ()) -> None:
    """Keep findings of a target, and of these inputs the first ones that there is room for."""
    findings = {*found_inputs(name), *found}
    some: set[bytes] = set()
    for data in inputs:
        if (
            data not in findings
            and sum(map(len, some)) + len(data) <= KEPT_SIZE_MAX
            and len(some) < KEPT_MAX
        ):
            some.add(data)
    lines = [
        f"{mark}{base64.b64encode(data).decode('ascii')}\n"
        for mark, kept in ((FOUND, findings), ("", some))
        for data in sorted(kept, key=_by_size)
    ]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(lines), encoding="ascii")


def _lines(name: str) -> Iterator[tuple[bool, bytes]]:
    path = FOLDER / f"{name}.txt"
    for line in path.read_text(encoding="ascii").splitlines() if path.exists() else ():
        text = line.removeprefix(FOUND)
        yield text != line, base64.b64decode(text, validate=True)


def _by_size(data: bytes) -> tuple[int, bytes]:
    return len(data), data
