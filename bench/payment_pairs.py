"""`python -m bench.payment_pairs OTHER`: payments by this program and by another version of it.

Both run at the same time, each with its own LSP, clients, node and caller, and pay in turns: what
else the machine does hits both alike, so the ratio says more than the milliseconds.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import click

from bench import payers

ROUNDS_DEFAULT: Final = 7
PAYMENTS: Final = 4  # of each client in a round: few, so that both meet the same moment
OTHER: Final = "other"
THIS: Final = "this"
ROOT: Final = Path(__file__).parents[1]
CPU: Final = "cpu_ms"  # of the LSP and all clients together

Spent = Mapping[str, float]  # what one payment took in milliseconds, by clock


class _Program:
    """A program that pays in a process of its own, so that it is asked as it understands it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def pay(self) -> dict[str, Spent]:
        """Return what one payment took of one more round, by row."""
        self._say("pay")
        told: dict[str, list[float]] = json.loads(self.hear())
        return {row: _with_sum(payers.Spent(*spent)) for row, spent in told.items()}

    def hear(self) -> str:
        """Return the next line that it says.

        Raises:
            EOFError: If it ended.
        """
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"{self._process.args!r} ended")
        return line

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


def _with_sum(spent: payers.Spent) -> Spent:
    return {**spent._asdict(), CPU: spent.lsp_cpu_ms + spent.clients_cpu_ms}


@contextmanager
def _running(root: Path, n_clients: int) -> Iterator[_Program]:
    """Run the program of a checkout with a live factory; what pays is this checkout's script."""
    # Its `bench` comes along: it knows how that program begins.
    paths = os.pathsep.join((str(root / "src"), str(root)))
    command = [sys.executable, "-P", str(payers.__file__), str(n_clients), str(PAYMENTS)]
    with subprocess.Popen(  # noqa: S603 - our own script
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
        text=True,
    ) as process:
        program = _Program(process)
        program.hear()
        yield program  # Leaving closes its input, at whose end it ends.


@click.command()
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--clients", default=8, show_default=True, type=click.IntRange(2, 8))
@click.option("--rounds", default=ROUNDS_DEFAULT, show_default=True, type=click.IntRange(min=1))
def main(other: Path, *, clients: int, rounds: int) -> None:
    """Pay with the program of another checkout and with this one in turns, and compare."""
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(_running(root, clients))
            for name, root in ((OTHER, other.resolve()), (THIS, ROOT))
        }
        spent: list[dict[str, dict[str, Spent]]] = []
        for round_ in range(rounds):
            # Who begins changes, so that nobody always pays for what the other left behind.
            names = sorted(programs, reverse=bool(round_ % 2))
            spent.append({name: programs[name].pay() for name in names})
    for row in spent[0][OTHER]:
        click.echo(json.dumps({"row": row, "clients": clients, **_compared(row, spent)}))


def _compared(row: str, spent: Sequence[Mapping[str, Mapping[str, Spent]]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for clock in spent[0][OTHER][row]:
        by_name = {name: [one[name][row][clock] for one in spent] for name in (OTHER, THIS)}
        ratios = [a / b for a, b in zip(by_name[OTHER], by_name[THIS], strict=True)]
        found[clock] = {name: round(median(several), 2) for name, several in by_name.items()}
        found[f"{clock}_ratio"] = round(median(ratios), 3)
        found[f"{clock}_ratios"] = [round(ratio, 2) for ratio in sorted(ratios)]
    return found


if __name__ == "__main__":
    main()
