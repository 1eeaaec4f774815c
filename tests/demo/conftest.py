"""Running the demo as a user does: the program, its outputs, and what it leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DEMO_SECONDS = 100


class Demo:
    """Runs `cromford demo` with temporary files below one directory."""

    def __init__(self, directory: Path) -> None:
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cromford", "demo", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary)},
        )
        self._running.append(process)
        return process

    def document(self, *words: str) -> Any:
        """Return the one document of a demo that succeeds in silence."""
        process = self.start(*words, "--json")
        stdout, stderr = process.communicate(timeout=DEMO_SECONDS)
        assert process.returncode == 0, stderr
        assert stderr == ""
        return json.loads(stdout)

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
            process.communicate(timeout=DEMO_SECONDS)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    running.stop()


def processes_naming(path: Path) -> dict[int, str]:
    """Return the command lines of all running processes that name a path."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(path) in command:
                found[int(entry.name)] = command
    return found
