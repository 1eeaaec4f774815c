"""`python -m bench.payment_pairs OTHER`: payments by this program and by another version of it.

Both run at the same time, each with its own LSP, clients and node, and pay in turns: what else the
machine does hits both alike, so the ratio says more than the milliseconds.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import click
from bench.payment_processes import Payers, Spent, running_payers, size_by

ROUNDS_DEFAULT: Final = 7
PAYMENTS: Final = 4  # of each client in a round: few, so that both meet the same moment
OTHER: Final = "other"
THIS: Final = "this"
ROOT: Final = Path(__file__).parents[1]


@contextmanager
def _program(root: Path) -> Iterator[None]:
    """Let processes that are started run the program of a checkout."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(root / "src")
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@click.command()
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--clients", default=8, show_default=True, type=click.IntRange(2, 8))
@click.option("--rounds", default=ROUNDS_DEFAULT, show_default=True, type=click.IntRange(min=1))
def main(other: Path, *, clients: int, rounds: int) -> None:
    """Pay with the program of another checkout and with this one in turns, and compare."""
    with ExitStack() as stack:
        payers: dict[str, Payers] = {}
        for name, root in ((OTHER, other.resolve()), (THIS, ROOT)):
            with _program(root):
                payers[name] = stack.enter_context(running_payers(size_by([clients])))
        spent: list[dict[str, dict[str, Spent]]] = []
        for round_ in range(rounds):
            # Who begins changes, so that nobody always pays for what the other left behind.
            names = sorted(payers, reverse=bool(round_ % 2))
            spent.append({name: payers[name].pay(PAYMENTS) for name in names})
    for row in spent[0][OTHER]:
        click.echo(json.dumps({"row": row, "clients": clients, **_compared(row, spent)}))


def _compared(row: str, spent: Sequence[Mapping[str, Mapping[str, Spent]]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for clock in Spent._fields:
        by_name = {
            name: [getattr(one[name][row], clock) for one in spent] for name in (OTHER, THIS)
        }
        ratios = [a / b for a, b in zip(by_name[OTHER], by_name[THIS], strict=True)]
        found[clock] = {name: round(median(several), 2) for name, several in by_name.items()}
        found[f"{clock}_ratio"] = round(median(ratios), 3)
        found[f"{clock}_ratios"] = [round(ratio, 2) for ratio in sorted(ratios)]
    return found


if __name__ == "__main__":
    main()
