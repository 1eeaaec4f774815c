"""The same tree by the C implementation, in a program that whoever measures has built elsewhere.

`CROMFORD_C_BENCH` names it. Given a number of clients it builds one binary tree, two clients to a
leaf, signs it by all signers with one session for each transaction, and prints one JSON document:
`transactions`, and the milliseconds of CPU of `build_ms` and `sign_ms`.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench.in_process import SHARED, run_shared, works
from bench.op import Work
from bench.sizes import Size

VARIABLE: Final = "CROMFORD_C_BENCH"
IN_C: Final = f"{SHARED}, in C"
BESIDE_C: Final = f"{SHARED}, beside C"
SECONDS_MAX: Final = 600.0


class BadProgram(Exception):
    """The program does not do what it is to do."""


def program() -> Path | None:
    """Return the program; None where none is named."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def works_beside(size: Size) -> dict[str, Work]:
    """Return the operations of the floor, which is the same for both."""
    return dict.fromkeys((BESIDE_C, IN_C), works(size)[SHARED])


def beside(size: Size, path: Path) -> Callable[[int], Mapping[str, float]]:
    """Return what runs both, one straight after the other; given the number of the run."""

    def run_once(run: int) -> dict[str, float]:
        return {BESIDE_C: run_shared(size, run), IN_C: _construction_ms(size, path)}

    return run_once


def _construction_ms(size: Size, path: Path) -> float:
    """Return what the program says.

    Raises:
        BadProgram: If it fails, or builds another tree.
    """
    ended = subprocess.run(  # noqa: S603 - whoever measures has named it
        [path, str(size.n_clients)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if ended.returncode:
        raise BadProgram(f"{path}: ended with {ended.returncode}: {ended.stderr.strip()}")
    try:
        said = json.loads(ended.stdout)
        n_transactions, took_ms = said["transactions"], said["build_ms"] + said["sign_ms"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadProgram(f"{path}: expected a JSON document, received {ended.stdout!r}") from error
    if n_transactions != size.n_transactions:
        raise BadProgram(
            f"{path}: expected a tree of {size.n_transactions} transactions, "
            f"received {n_transactions}"
        )
    return float(took_ms)
