"""Who is killed when: a schedule that a seed repeats, kept as far as real time allows."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.drill.people import LSP, People

EVERYBODY: Final = "everybody"
SOON_SECONDS: Final = (0.0, 0.4)  # Into its start, or the recovery of others.
LATER_SECONDS: Final = (0.4, 3.0)
DOWN_SECONDS: Final = (0.0, 0.4)
SOON_RATE, EVERYBODY_RATE, LSP_RATE = 0.35, 0.08, 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One of the schedule: after how long, whom, and for how long. Times in seconds."""

    pause: float
    victim: str
    down: float


def schedule(seed: int, n_kills: int, clients: tuple[str, ...]) -> list[Kill]:
    """Return who is killed when."""
    dice = random.Random(f"kills {seed}")
    return [
        Kill(
            pause=dice.uniform(*(SOON_SECONDS if dice.random() < SOON_RATE else LATER_SECONDS)),
            victim=_victim(dice, clients),
            down=dice.uniform(*DOWN_SECONDS),
        )
        for _ in range(n_kills)
    ]


def _victim(dice: random.Random, clients: tuple[str, ...]) -> str:
    drawn = dice.random()
    if drawn < EVERYBODY_RATE:
        return EVERYBODY
    return LSP if drawn < EVERYBODY_RATE + LSP_RATE else dice.choice(clients)


@dataclass
class Killer:
    """Kills by a schedule, in a thread of its own, as many as it is allowed to.

    Attributes:
        phase: What goes on meanwhile.
        told: Each kill: what went on, whom, and when, in seconds.
    """

    people: People
    planned: list[Kill]
    phase: str = ""
    told: list[str] = field(default_factory=list)
    by_phase: Counter[str] = field(default_factory=Counter)
    _n_allowed: int = 0
    _n_done: int = 0
    _began: float = field(default_factory=time.monotonic)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _is_idle: bool = True

    def begin(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="killer", daemon=True).start()

    def allow(self, n_kills: int, phase: str) -> None:
        """Let it kill so many more."""
        with self._changed:
            self.phase = phase
            self._n_allowed = min(self._n_allowed + n_kills, len(self.planned))
            self._changed.notify_all()

    def hold(self) -> int:
        """Stop killing once what it is at is done; return how many were allowed and not done.

        Raises:
            DrillFailed: As `is_busy`.
        """
        with self._changed:
            wanted, self._n_allowed = self._n_allowed, self._n_done
            self._changed.wait_for(lambda: self._is_idle)
            left, self._n_allowed = wanted - self._n_done, self._n_done
        self.people.check_all_run()
        return left

    @property
    def n_done(self) -> int:
        """How many were killed."""
        return self._n_done

    @property
    def is_busy(self) -> bool:
        """Whether it will kill again without being allowed to.

        Raises:
            DrillFailed: If whom it wanted to kill had ended before.
        """
        self.people.check_all_run()
        return self._n_done < self._n_allowed

    def _run(self) -> None:
        try:
            for kill in self.planned:
                with self._changed:
                    self._is_idle = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._n_done < self._n_allowed)
                    self._is_idle = False
                self._kill(kill)
                self._n_done += 1
        except BaseException as error:  # noqa: BLE001 - told to whoever asks next
            self.people.failure = error
        finally:
            with self._changed:
                self._is_idle = True
                self._changed.notify_all()

    def _kill(self, kill: Kill) -> None:
        time.sleep(kill.pause)
        victims = self.people.names if kill.victim == EVERYBODY else (kill.victim,)
        for victim in victims:
            self.people.kill(victim)
        at = time.monotonic() - self._began
        self.told.append(f"{at:7.2f} s, {self.phase}: {kill.victim}, down {kill.down:.2f} s")
        self.by_phase[self.phase] += 1
        time.sleep(kill.down)
        for victim in victims:
            self.people.start(victim)
