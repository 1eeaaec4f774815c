"""One target under atheris, in a process of its own, and what came of it."""

import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.fuzz.target import Target, is_read

INSTRUMENTED: Final = ["cromford", "btclib", "btclib_wallet", "tomllib", "json"]
MEMORY_MAX_MIB: Final = 2048
ONE_INPUT_SECONDS_MAX: Final = 20
_STATUS: Final = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a target did in its time.

    Attributes:
        n_runs: How many inputs were tried.
        covered: Places of the code that the kept corpus reached, and that were reached in the end.
        findings: Files with an input each, whose answer was neither a value nor the error.
        told: What the fuzzer said, if its process died of it.
    """

    n_runs: int
    covered: tuple[int, int]
    findings: tuple[Path, ...]
    told: str = ""


def instrumented(load: Callable[[], Any]) -> Any:
    """Return what a function imports, with its branches counted; it must not be imported yet."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        return load()


def fuzz(target: Target, folder: Path, *, seconds: int, seed: int) -> Outcome:
    """Try inputs of a target for a time, from those in `folder/corpus` on, where new ones go."""
    log = folder / "log"
    arguments = (
        f"-max_total_time={seconds}",
        f"-max_len={target.size_max}",
        f"-seed={seed}",
        "-print_final_stats=1",
        str(folder / "corpus"),
    )
    status = _forked(target, folder, log, arguments)
    told = log.read_text(encoding="utf-8", errors="replace")
    lines = [tuple(line) for line in _STATUS.findall(told)]
    first = next((int(line[2]) for line in lines if line[1] == "INITED"), 0)
    return Outcome(
        n_runs=int(lines[-1][0]) if lines else 0,
        covered=(first, max((int(line[2]) for line in lines), default=0)),
        findings=tuple(sorted((folder / "found").iterdir())),
        told=told if status else "",
    )


def _forked(target: Target, folder: Path, log: Path, arguments: Sequence[str]) -> int:
    """Run the fuzzer in a child of this process, which has imported all that it tries."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        _run(target, folder, arguments)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _run(target: Target, folder: Path, arguments: Sequence[str]) -> None:
    atheris: Any = importlib.import_module("atheris")
    seen: set[str] = set()

    def one(data: bytes) -> None:
        try:
            is_read(target, data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            place = _place_of(error)
            if place in seen:
                return
            seen.add(place)
            name = hashlib.sha256(data).hexdigest()[:16]
            (folder / "found" / name).write_bytes(data)
            traceback.print_exc()

    limits = (
        f"-artifact_prefix={folder / 'found'}/",
        f"-rss_limit_mb={MEMORY_MAX_MIB}",
        f"-timeout={ONE_INPUT_SECONDS_MAX}",
    )
    atheris.Setup([target.name, *limits, *arguments], one)
    atheris.Fuzz()


def _place_of(error: BaseException) -> str:
    """Return where an error came from, so that each is kept once."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
