"""An LSP and clients, each a process that may be killed at any moment and comes back."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from cromford.bitcoin.network import REGTEST
from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from cromford.daemon.api.failures import ApiFailure, DaemonNotRunning
from tests.drill.warm import WarmInterpreter

LSP: Final = "lsp"
PATIENCE_SECONDS: Final = 400.0  # Whatever takes so long hangs, on any machine.
CALL_SECONDS: Final = 60.0
LOG_LINES: Final = 12
POLL_SECONDS: Final = 0.05
# What is answered where a process has gone: nobody knows whether it did what it was asked.
LOST: Final = frozenset({"connection_lost", "daemon_not_running", "timeout"})
T = TypeVar("T")


class DrillFailed(Exception):
    """Something did not come back, or did not add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process of a daemon, and where it writes."""

    pid: int
    log: Path

    def lines(self) -> list[str]:
        """Return what it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def tail(self) -> str:
        """Return the last of it."""
        return "\n".join(self.lines()[-LOG_LINES:])


class People:
    """All daemons of a drill, by name.

    Args:
        warm: Starts their processes, and ends those that are left.
        base: Where their data directories and logs are.

    Attributes:
        failure: What else went wrong: whoever waits for anybody is told.
    """

    def __init__(self, warm: WarmInterpreter, base: Path) -> None:
        self.base = base
        self._warm = warm
        self.failure: BaseException | None = None
        self._logs = base / "logs"
        self._logs.mkdir()
        self._arguments: dict[str, tuple[str, ...]] = {}
        self._lives: dict[str, list[Life]] = {}
        self._turn = threading.RLock()
        self._down: set[str] = set()
        self._born: dict[str, float] = {}

    def add(self, name: str, *arguments: str, configuration: str = "") -> None:
        """Start a daemon for the first time."""
        datadir = self.base / name
        datadir.mkdir(mode=0o700)
        (datadir / "config.toml").write_text(configuration, encoding="utf-8")
        self._arguments[name] = (*arguments, "--datadir", str(datadir))
        self._lives[name] = []
        self.start(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody's name, the LSP's first."""
        return tuple(self._arguments)

    @property
    def clients(self) -> tuple[str, ...]:
        """The clients' names."""
        return tuple(name for name in self._arguments if name != LSP)

    def home(self, name: str) -> Path:
        """Return the directory of a daemon's store."""
        return self.base / name / REGTEST.name

    def start(self, name: str) -> None:
        """Start a daemon; each life has a log of its own."""
        with self._turn:
            lives = self._lives[name]
            log = self._logs / f"{name}.{len(lives)}.log"
            log.touch()  # Some lives end before they write anything.
            lives.append(Life(pid=self._warm.start(self._arguments[name], log), log=log))
            self._born[name] = time.monotonic()
            self._down.discard(name)

    def kill(self, name: str) -> None:
        """Kill a daemon, wherever it is: `kill -9`.

        Raises:
            DrillFailed: If it had ended by itself.
        """
        with self._turn:
            self._check_runs(name)
            self._down.add(name)
            self._warm.kill(self._lives[name][-1].pid)

    def start_anew(self, name: str, *, least_seconds: float) -> bool:
        """Kill a daemon and start it at once, if it and the LSP have lived so long; say so."""
        with self._turn:
            is_old = all(
                time.monotonic() - self._born[one] >= least_seconds and one not in self._down
                for one in (name, LSP)
            )
            if is_old:
                self.kill(name)
                self.start(name)
            return is_old

    def stop(self) -> None:
        """Stop every daemon as an operator does.

        Raises:
            DrillFailed: If one of them ends with an error.
        """
        for name in reversed(self.names):
            with self._turn:
                self._down.add(name)
            self.ask(name, "stop")
            life = self._lives[name][-1]
            code = self.until(f"{name} to end", partial(self._ended, life))
            if code != "0":
                raise DrillFailed(f"{name} was stopped, and ended with {code}:\n{life.tail()}")

    def _ended(self, life: Life) -> str | None:
        code = self._warm.poll(life.pid)
        return None if code is None else str(code)

    def check_all_run(self) -> None:
        """Check that whoever was not killed is there.

        Raises:
            DrillFailed: With the last lines of a log.
        """
        if self.failure is not None:
            raise self.failure
        with self._turn:
            for name in self.names:
                if name not in self._down:
                    self._check_runs(name)

    def _check_runs(self, name: str) -> None:
        life = self._lives[name][-1]
        code = self._warm.poll(life.pid)
        if code is not None:
            raise DrillFailed(
                f"{name} ended by itself with {code}, in its life {len(self._lives[name]) - 1}:\n"
                f"{life.tail()}"
            )

    def logs(self) -> Iterator[tuple[str, str]]:
        """Yield every line of every log, with the life that wrote it."""
        for name, lives in self._lives.items():
            for n, life in enumerate(lives):
                yield from ((f"{name}.{n}", line) for line in life.lines())

    # Asking them

    def call(self, name: str, method: str, /, **params: object) -> Any:
        """Return the answer of a daemon.

        Raises:
            ApiFailure: If it refused, or has gone.
        """
        client = ApiClient(self.home(name) / SOCKET_NAME, timeout_seconds=CALL_SECONDS)
        return client.call(method, **params)

    def ask(self, name: str, method: str, /, **params: object) -> Any:
        """Return the answer to a question, from whichever life of a daemon gives one."""

        def answered() -> Any:
            try:
                return self.call(name, method, **params)
            except ApiFailure as failure:
                if failure.code in LOST:
                    return None
                raise

        return self.until(f"{name} to answer {method}", answered)

    def wish(self, name: str, method: str, /, **params: object) -> Any | ApiFailure:
        """Return what a request led to, or why it was refused, or that nobody knows."""
        try:
            return self.call(name, method, **params)
        except ApiFailure as failure:
            if isinstance(failure, DaemonNotRunning):
                time.sleep(POLL_SECONDS)
            return failure

    def until(self, what: str, look: Callable[[], T | None]) -> T:
        """Return what `look` finds, which is asked until it finds something.

        Raises:
            DrillFailed: If that takes too long, or somebody ended that was not killed.
        """
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            self.check_all_run()
            if time.monotonic() > give_up:
                raise DrillFailed(f"gave up waiting for {what}")
            time.sleep(POLL_SECONDS)

    def until_all_at(self, height: int, names: Iterable[str] = ()) -> None:
        """Wait until everybody has seen a block."""
        for name in names or self.names:
            self.until(
                f"{name} at height {height}",
                partial(self._is_at, name, height),
            )

    def _is_at(self, name: str, height: int) -> bool:
        return bool(self.ask(name, "status")["height"] >= height)


def free_port() -> int:
    """Return a port that nobody listens at: an LSP comes back to the one that it had."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
