"""Many worlds, each in its turn, on as many processes as there are."""

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.life import Life
from tests.simulation.mixture import Mixture, drawn
from tests.simulation.sim_node import Crash

TRACEBACK_FRAMES: Final = 12


@dataclass(frozen=True, kw_only=True)
class Played:
    """What became of one world.

    Attributes:
        mixture: What was in it.
        told: A line that describes it, or what it died of.
        is_good: Whether everything held.
        cause: By what two failures are told apart: the error, and where it came from.
        traceback: Where it failed; empty if it did not.
        counts: What it reached.
        struck: The faults that struck, and the acts, in order, as text.
    """

    mixture: Mixture
    told: str
    is_good: bool
    cause: str = ""
    traceback: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    struck: tuple[str, ...] = ()


def played(mixture: Mixture) -> Played:
    """Play a mixture, whatever comes of it."""
    life: Life | None = None
    try:
        life = Life(mixture)
        told = life.play()
    except (Exception, Crash) as error:  # noqa: BLE001 - whatever went wrong, the seed is what matters
        return Played(
            mixture=mixture,
            told=f"{type(error).__name__}: {error}",
            is_good=False,
            cause=cause_of(error),
            traceback="".join(traceback.format_exception(error)),
            counts=Counter() if life is None else life.world.reached.counts,
            struck=() if life is None else _struck(life),
        )
    return Played(
        mixture=mixture,
        told=told,
        is_good=True,
        counts=life.world.reached.counts,
        struck=_struck(life),
    )


def _struck(life: Life) -> tuple[str, ...]:
    return tuple(str(fault) for fault in life.world.fates.struck)


def cause_of(error: BaseException) -> str:
    """Return what a failure is told apart by: its type, and the innermost lines it went through.

    Of a bug that the driver met while it decided, those are the bug's own.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)[-2:]
    places = " < ".join(f"{frame.name}:{frame.line}" for frame in reversed(frames))
    return f"{type(error).__name__} in {places}"


def played_many(seeds: Iterable[int], *, n_jobs: int) -> Iterator[Played]:
    """Play what each seed mixes, in the order of the seeds."""
    mixtures = (drawn(seed) for seed in seeds)
    if n_jobs == 1:
        yield from map(played, mixtures)
        return
    with ProcessPoolExecutor(n_jobs) as pool:
        yield from pool.map(played, mixtures, chunksize=1)
