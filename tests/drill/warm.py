"""A warm interpreter that starts daemons by forking: a start is what a daemon does, not imports.

Each is a process of its own, which runs the command line from its first word on.

A line of JSON is a request, and so is its answer. `start` gives the process's id, `poll` its exit
code if it has ended, `wait` the same once it has.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn, Self

MODULES: Final = ("cromford.cli.lsp", "cromford.cli.client", "cromford.cli.daemons")


class WarmInterpreter:
    """Starts processes, and knows which of them have ended."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CROMFORD_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.drill.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._turn = threading.Lock()

    def start(self, arguments: tuple[str, ...], log: Path) -> int:
        """Start `cromford` with these arguments; both its outputs go to a file; return its id."""
        return int(self._ask("start", list(arguments), str(log)))

    def poll(self, pid: int) -> int | None:
        """Return a process's exit code, negative for a signal; None while it runs."""
        code: int | None = self._ask("poll", pid)
        return code

    def kill(self, pid: int) -> None:
        """Kill a process that has not ended, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        self._ask("wait", pid)

    def _ask(self, *request: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """Answer requests until there are none; then kill whatever still runs."""
    for name in MODULES:
        importlib.import_module(name)
    codes: dict[int, int | None] = {}
    answer: int | None = None
    for line in sys.stdin:
        match json.loads(line):
            case "start", list(arguments), str(log):
                pid = os.fork() or _become(arguments, log)
                codes[pid], answer = None, pid
            case "poll", int(pid):
                answer = _code(codes, pid, os.WNOHANG)
            case "wait", int(pid):
                answer = _code(codes, pid, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in codes:
        if _code(codes, pid, os.WNOHANG) is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _code(codes: dict[int, int | None], pid: int, options: int) -> int | None:
    if codes[pid] is None:
        ended, status = os.waitpid(pid, options)
        codes[pid] = os.waitstatus_to_exitcode(status) if ended else None
    return codes[pid]


def _become(arguments: list[str], log: str) -> NoReturn:
    """Run the command line in this process, which was forked for it."""
    from cromford.cli.main import cromford  # noqa: PLC0415 - the parent has imported it

    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for place, descriptor in ((0, nothing), (1, output), (2, output)):
        os.dup2(descriptor, place)
    code = 1
    try:
        cromford.main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter shows what nobody caught
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Without the clean-up of what the parent had.


if __name__ == "__main__":
    serve()
