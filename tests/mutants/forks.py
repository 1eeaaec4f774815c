"""Work in children of this process, a few at once: what each says, and how it ended."""

import json
import os
import resource
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

MEMORY_BYTES_MAX: Final = 4 << 30  # A child that makes a list without an end stops here.
WALL_SECONDS_MAX: Final = 1200.0  # A child that waits for nothing uses no CPU.
_READ_BYTES: Final = 1 << 16

Say = Callable[[object], None]
Job = TypeVar("Job")


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        said: What it said, in order.
        signal: The signal that ended it, 0 if none did.
        is_late: It was ended here, because it waited for too long.
    """

    said: tuple[Any, ...]
    signal: int
    is_late: bool


@dataclass
class _Child:
    pid: int
    started: float
    heard: bytes = b""
    is_late: bool = False


def split(
    jobs: Iterable[Job], *, at_once: int, wall_seconds: float | None = None
) -> Iterator[tuple[Job, Ended | Say]]:
    """Be a child for each job, and yield it with its mouth there; here, yield how each ended.

    A child goes on with whatever it is in the middle of, takes nothing more of this, and ends by
    itself (`os._exit`).
    """
    patience = WALL_SECONDS_MAX if wall_seconds is None else wall_seconds
    waiting, running = iter(jobs), 0
    with selectors.DefaultSelector() as selector:
        while True:
            while running < at_once and (job := next(waiting, None)) is not None:
                sys.stdout.flush()
                sys.stderr.flush()
                ear, mouth = os.pipe()
                pid = os.fork()
                if not pid:
                    os.close(ear)
                    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
                    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                    yield job, _mouth(mouth)
                    os._exit(1)  # It came back for more: a child of whom nothing is known.
                os.close(mouth)
                selector.register(ear, selectors.EVENT_READ, (job, _Child(pid, time.monotonic())))
                running += 1
            if not running:
                return
            for key, _ in selector.select(timeout=1.0):
                if heard := os.read(key.fd, _READ_BYTES):
                    key.data[1].heard += heard
                    continue
                selector.unregister(key.fd)
                os.close(key.fd)
                running -= 1
                yield key.data[0], _ended(key.data[1])
            _end_the_late((key.data[1] for key in selector.get_map().values()), patience)


def run_all(
    jobs: Iterable[Job],
    work: Callable[[Job, Say], None],
    *,
    at_once: int,
    wall_seconds: float | None = None,
) -> Iterator[tuple[Job, Ended]]:
    """Do each job in a child of its own, and yield it with how that ended, as they end."""
    for job, how in split(jobs, at_once=at_once, wall_seconds=wall_seconds):
        if isinstance(how, Ended):
            yield job, how
        else:
            _work(job, work, how)


def _work(job: Job, work: Callable[[Job, Say], None], say: Say) -> None:
    status = 1
    try:
        work(job, say)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may go on in the copy of a process but its work
        say(("unsound", traceback.format_exc()))
    finally:
        os._exit(status)


def _mouth(pipe: int) -> Say:
    def say(what: object) -> None:
        os.write(pipe, json.dumps(what).encode() + b"\n")

    return say


def _end_the_late(children: Iterable[_Child], patience: float) -> None:
    for child in children:
        if time.monotonic() - child.started > patience and not child.is_late:
            child.is_late = True
            os.kill(child.pid, signal.SIGKILL)


def _ended(child: _Child) -> Ended:
    _, status = os.waitpid(child.pid, 0)
    said = tuple(json.loads(line) for line in child.heard.splitlines(keepends=True))
    return Ended(said, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, child.is_late)


def limit_cpu(seconds: float) -> None:
    """Let this process use so much CPU from now on; more ends it with `SIGPROF`."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def silence() -> None:
    """Send what this process prints nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
