"""`python -m bench`: how long payments and factories take, next to libsecp256k1 alone."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click
from bench.blocks import BlockRow
from bench.history import StoreRow
from bench.idle import IdleRow
from bench.op import median_costs
from bench.operations import measure
from bench.rows import WALL, Row, repeat
from bench.sizes import BINARY_SHAPE, CLIENTS_DEFAULT, CLIENTS_QUICK, Size, sizes_of
from rich.console import Console

from bench import (
    blocks,
    c_program,
    ceremony,
    comparing,
    history,
    idle,
    in_process,
    payment_processes,
    payments,
    processes,
    report,
)

PAYMENTS: Final = "payments"
FACTORIES: Final = "factories"
HISTORY: Final = "history"
IDLE: Final = "idle"
BLOCKS: Final = "blocks"
RESULTS: Final = Path(__file__).parent / "results"
RUNS_DEFAULT: Final = 5
RUNS_QUICK: Final = 3
RUNS_LARGE: Final = 3  # of a ceremony from CLIENTS_LARGE on, where one takes seconds
CLIENTS_LARGE: Final = 64
TABLE_WIDTH: Final = 100  # where the output is no terminal


def payments_measured(
    process_clients: Sequence[int], *, n_runs: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """Yield every row about payments."""
    for kind in (payments.IN_MEMORY, payments.DURABLE):
        say(f"payments: {', '.join(kind.works)}")
        several = payments.Payments(kind)
        yield from repeat(
            payments.SIZE,
            several.run_once,
            kind.works,
            n_runs=n_runs,
            clock=kind.clock,
            n_appends=several.n_appends,
        )
    if any(process_clients):
        size = payment_processes.size_by(process_clients)
        say(f"payments: between processes, {size.n_clients} clients")
        with payment_processes.running(size) as run_once:
            yield from repeat(
                size,
                run_once,
                payment_processes.works(),
                n_runs=n_runs,
                clock=WALL,
                shared_by=payment_processes.SHARED_BY,
            )


def factories_measured(
    clients: Sequence[int],
    process_clients: Sequence[int],
    *,
    n_runs: int,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Yield every row about factories, the smallest first."""
    for size in sizes_of(clients):
        say(f"{size.n_clients} clients, {size.shape_name}: in one process")
        run_tree = partial(in_process.run_once, size)
        yield from repeat(size, run_tree, in_process.works(size), n_runs=n_runs)
        run_threads = partial(in_process.run_in_threads, size)
        yield from repeat(
            size, run_threads, in_process.works_in_threads(size), n_runs=n_runs, clock=WALL
        )
        in_c = c_program.program()
        if in_c is not None and size.shape_name == BINARY_SHAPE:
            run_both = c_program.beside(size, in_c)
            yield from repeat(size, run_both, c_program.works_beside(size), n_runs=n_runs)
        n_ceremonies = n_runs if size.n_clients < CLIENTS_LARGE else min(n_runs, RUNS_LARGE)
        yield from repeat(
            size,
            partial(ceremony.run_once, size),
            ceremony.works(size),
            n_runs=n_ceremonies,
            shared_by={ceremony.CLIENT: size.n_clients},
        )
        if size.n_clients in process_clients:
            yield from _between_processes(size, n_runs=n_runs, say=say)


def _between_processes(size: Size, *, n_runs: int, say: Callable[[str], None]) -> Iterator[Row]:
    say(f"{size.n_clients} clients, {size.shape_name}: between processes")
    with processes.running(size) as run_once:
        yield from repeat(
            size,
            run_once,
            processes.works(size),
            n_runs=n_runs,
            clock=WALL,
            shared_by={processes.PROCESSES: processes.n_cores()},
        )


@click.command()
@click.option("--quick", is_flag=True, help="Few sizes and few runs: a look, not a measurement.")
@click.option("--clients", type=int, multiple=True, help="A number of clients; may be repeated.")
@click.option(
    "--process-clients",
    type=int,
    multiple=True,
    help="The same, of those that also run as processes; 0 for none.",
)
@click.option(
    "--only",
    type=click.Choice([PAYMENTS, FACTORIES, HISTORY, IDLE, BLOCKS]),
    help="Measure only these rows.",
)
@click.option(
    "--payments", "n_payments", type=click.IntRange(min=1), help="How many a store has seen."
)
@click.option("--runs", type=click.IntRange(min=1), help="Runs of each row; the median counts.")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=RESULTS,
    show_default=True,
    help="Where the JSON is written.",
)
@click.option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An earlier report; with a row that takes longer by a tenth, the exit code is 1.",
)
def main(
    clients: tuple[int, ...],
    process_clients: tuple[int, ...],
    only: str | None,
    runs: int | None,
    results: Path,
    *,
    compare: Path | None,
    n_payments: int | None,
    quick: bool,
) -> None:
    """Measure, show a table, and write the same as JSON."""
    quiet = Console(stderr=True)
    try:
        earlier = None if compare is None else comparing.read(compare, report_format=report.FORMAT)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    began, load_before = datetime.now(UTC), report.load_average()
    before = [measure()]
    n_runs = runs or (RUNS_QUICK if quick else RUNS_DEFAULT)
    sizes = sorted(clients or (CLIENTS_QUICK if quick else CLIENTS_DEFAULT))
    as_processes = process_clients or (
        processes.CLIENTS_QUICK if quick else processes.CLIENTS_DEFAULT
    )
    rows: list[Row] = []
    if only in {None, PAYMENTS}:
        rows += payments_measured(as_processes, n_runs=n_runs, say=quiet.print)
    if only in {None, FACTORIES}:
        rows += factories_measured(sizes, as_processes, n_runs=n_runs, say=quiet.print)
    stores: list[StoreRow] = []
    if only in {None, HISTORY}:
        n_payments = n_payments or (history.PAYMENTS_QUICK if quick else history.PAYMENTS_DEFAULT)
        stores += history.rows(n_payments, say=quiet.print)
    carried: list[IdleRow] = []
    if only in {None, IDLE}:
        n_idle = idle.FACTORIES_QUICK if quick else idle.FACTORIES_DEFAULT
        carried += idle.rows(n_idle, say=quiet.print)
    of_blocks: list[BlockRow] = []
    if only in {None, BLOCKS}:
        n_channels = blocks.CHANNELS_QUICK if quick else blocks.CHANNELS_DEFAULT
        of_blocks += blocks.rows(n_channels, say=quiet.print)
    found = report.document(
        rows,
        median_costs([*before, measure()]),
        began=began,
        ended=datetime.now(UTC),
        load_before=load_before,
        stores=stores,
        idle=carried,
        blocks=of_blocks,
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    report.show(console, found)
    quiet.print(f"written to {report.write(found, results)}", soft_wrap=True)
    if earlier is not None:
        both = list(comparing.compared(earlier, found))
        comparing.show(console, both)
        if any(one.is_regression for one in both):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
