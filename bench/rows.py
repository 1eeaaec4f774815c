"""One row of the results: what was timed, and the least it could have taken."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import monotonic_ns, process_time_ns
from types import MappingProxyType
from typing import Final

from bench.op import Work, floor_ms, median_costs
from bench.operations import measure
from bench.sizes import Size

CPU: Final = "cpu"  # of the one process that did it
WALL: Final = "wall"  # until everybody was done


@dataclass(frozen=True)
class Sample:
    """One run, and its floor by what the operations cost at that very time. In milliseconds."""

    ms: float
    floor_ms: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """Several runs of one thing.

    `work` is what the floor is made of, before it is shared out among `n_sharing`. `n_appends` is
    how often journals were written for it, all together, where that is counted.
    """

    name: str
    size: Size
    clock: str
    work: Work
    n_sharing: int
    samples: tuple[Sample, ...]
    n_appends: float | None = None

    @property
    def median_ms(self) -> float:
        """The median run."""
        return median(sample.ms for sample in self.samples)

    @property
    def floor_ms(self) -> float:
        """The median floor."""
        return median(sample.floor_ms for sample in self.samples)

    @property
    def ratio(self) -> float:
        """The median of how many times its floor each run took."""
        return median(sample.ms / sample.floor_ms for sample in self.samples)


def repeat(
    size: Size,
    run_once: Callable[[int], Mapping[str, float]],
    works: Mapping[str, Work],
    *,
    n_runs: int = 1,
    clock: str = CPU,
    shared_by: Mapping[str, int] = MappingProxyType({}),
    n_appends: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[Row]:
    """Run several times and yield a row for each name in `works`.

    Args:
        size: What is run.
        run_once: Given the number of the run, returns milliseconds by name.
        works: The operations of each floor.
        n_runs: How often.
        clock: What the milliseconds are of.
        shared_by: By name, among how many the work is shared out: clients, or cores.
        n_appends: By name, how often journals are written; read after the last run.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in works}
    for run in range(n_runs):
        # A shared machine is fast at one moment and slow at another, so the floor is timed on
        # both sides of every run.
        before = measure()
        spent_ms = run_once(run)
        costs = median_costs([before, measure()])
        for name, work in works.items():
            floor = floor_ms(work, costs) / shared_by.get(name, 1)
            samples[name].append(Sample(spent_ms[name], floor))
    for name, work in works.items():
        yield Row(
            name=name,
            size=size,
            clock=clock,
            work=work,
            n_sharing=shared_by.get(name, 1),
            samples=tuple(samples[name]),
            n_appends=n_appends.get(name),
        )


@dataclass
class Stopwatch:
    """Adds up the time of what runs under it, by name, in milliseconds: CPU, or the wall's."""

    clock: str = CPU
    spent_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        now_ns = process_time_ns if self.clock == CPU else monotonic_ns
        began = now_ns()
        try:
            yield
        finally:
            elapsed_ms = (now_ns() - began) / 1e6
            self.spent_ms[name] = self.spent_ms.get(name, 0.0) + elapsed_ms
