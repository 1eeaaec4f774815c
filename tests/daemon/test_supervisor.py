"""Who started a daemon is told when it is ready, how it is, that it lives, and that it stops."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cromford.daemon.health import checked
from cromford.daemon.supervisor import Supervisor, status_line
from cromford.ports import StoreFailed, StoreFull
from cromford.regtest.node import RegtestNode

PID = 4711
A_WHILE_SECONDS = 60.0
NODE_ID = f"02{'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}"


class Listening:
    """A notify socket, and what it was told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self._socket.settimeout(A_WHILE_SECONDS)

    def hear(self) -> str:
        """Return the next datagram."""
        self.heard.append(self._socket.recv(4096).decode())
        return self.heard[-1]

    def hear_until(self, wanted: str) -> str:
        """Return the first datagram with a line that begins so."""
        give_up = time.monotonic() + A_WHILE_SECONDS
        while time.monotonic() < give_up:
            if any(line.startswith(wanted) for line in self.hear().splitlines()):
                return self.heard[-1]
        raise AssertionError(f"no {wanted} in {self.heard}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["in a directory", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    is_abstract = request.param == "abstract"
    name = f"@cromford-{os.getpid()}-{tmp_path.name}" if is_abstract else str(tmp_path / "notify")
    with contextlib.closing(Listening(name)) as opened:
        yield opened


async def settled() -> None:
    """Be as a disk that has written everything."""


def told(
    environment: dict[str, str], *, statuses: Iterator[str], until: Callable[[], bool]
) -> None:
    async def main() -> None:
        async with Supervisor(environment, pid=PID).told(lambda: next(statuses), settled):
            while not until():  # noqa: ASYNC110 - who hears is no part of the loop
                await asyncio.sleep(0)

    asyncio.run(main())


def test_a_start_its_status_and_its_end_are_told(listening: Listening) -> None:
    told({"NOTIFY_SOCKET": listening.name}, statuses=iter(["height 7; ready"]), until=lambda: True)
    assert listening.hear() == "READY=1\nSTATUS=height 7; ready"
    assert listening.hear() == "STOPPING=1\nSTATUS=stopping"


def test_a_watchdog_hears_of_us_twice_in_its_time_and_a_status_only_when_it_is_news(
    listening: Listening,
) -> None:
    said: list[str] = []

    def heard_enough() -> bool:
        listening._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            said.append(listening.hear())
        return len(said) > 5

    environment = {"NOTIFY_SOCKET": listening.name, "WATCHDOG_USEC": "2000"}
    statuses = itertools.chain(["one", "one", "one"], itertools.repeat("two"))
    told(environment | {"WATCHDOG_PID": str(PID)}, statuses=statuses, until=heard_enough)
    assert said[0] == "READY=1\nSTATUS=one"
    assert said[1:6] == ["WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STATUS=two", "WATCHDOG=1"]


def test_a_watchdog_hears_nothing_while_the_disk_does_not_answer(listening: Listening) -> None:
    environment = {"NOTIFY_SOCKET": listening.name, "WATCHDOG_USEC": "2000"}

    async def main() -> None:
        asked = asyncio.Event()

        async def never() -> None:
            asked.set()
            await asyncio.Event().wait()

        async with Supervisor(environment, pid=PID).told(lambda: "fine", never):
            await asked.wait()
            await asyncio.sleep(0.02)

    asyncio.run(main())
    assert [listening.hear(), listening.hear()] == [
        "READY=1\nSTATUS=fine",
        "STOPPING=1\nSTATUS=stopping",
    ]


def test_why_a_write_failed_is_told_by_whoever_wrote_with_a_watchdog_too(
    listening: Listening,
) -> None:
    """A full disk would be told as a store that cannot be used, with the remedy for that."""
    environment = {"NOTIFY_SOCKET": listening.name, "WATCHDOG_USEC": "2000"}

    async def main() -> None:
        failed = asyncio.Event()

        async def never_durable() -> None:
            failed.set()
            raise StoreFailed("it will never be")

        async with Supervisor(environment, pid=PID).told(lambda: "fine", never_durable):
            await failed.wait()
            await asyncio.sleep(0.02)
        raise StoreFull("what the daemon ends with")

    with pytest.raises(StoreFull):
        asyncio.run(main())
    assert [listening.hear(), listening.hear()] == [
        "READY=1\nSTATUS=fine",
        "STOPPING=1\nSTATUS=stopping",
    ]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(PID + 1)},
    ],
)
def test_without_a_watchdog_of_ours_there_is_no_beat(environment: dict[str, str]) -> None:
    who = Supervisor({"NOTIFY_SOCKET": "/nowhere", **environment}, pid=PID)
    assert who.watchdog_seconds is None
    assert Supervisor({"WATCHDOG_USEC": "2000000"}, pid=PID).watchdog_seconds is None


def test_nobody_is_told_where_nobody_asked() -> None:
    told({"WATCHDOG_USEC": "2000"}, statuses=itertools.repeat("fine"), until=lambda: True)


def test_a_reader_that_sleeps_holds_nobody_up(listening: Listening) -> None:
    who = Supervisor({"NOTIFY_SOCKET": listening.name}, pid=PID)
    begin = time.monotonic()
    for _ in range(1000):  # More than any queue of datagrams holds.
        who.tell("WATCHDOG=1")
    assert time.monotonic() - begin < A_WHILE_SECONDS
    assert listening.hear() == "WATCHDOG=1"


def test_a_socket_that_is_gone_ends_no_daemon_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "nowhere")}
    told(environment, statuses=iter(["fine"]), until=lambda: True)
    assert [record.msg.split()[0] for record in caplog.records] == ["supervisor_unreachable"]


def test_a_status_is_one_line_whatever_the_node_says() -> None:
    checks = [checked("chain", "no answer:\nREADY=1"), checked("mark", None)]
    assert status_line(-1, checks) == "no block yet; chain: no answer:?READY=1"
    assert status_line(7, []) == "height 7; ready"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RegtestNode]:
    with RegtestNode(tmp_path / "node", persist=False) as running:
        yield running


RUNS = {
    "lsp": ("--listen", "127.0.0.1:0"),
    "client": ("--lsp", f"{NODE_ID}@127.0.0.1:1"),
    "agent": (),
}
READY = {
    "lsp": "STATUS=height 0; ready",
    "client": "STATUS=height 0; peers: not connected to the LSP",
    "agent": "STATUS=height 0; ready",
}


def cromford(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "cromford", *words]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("role", RUNS)
def test_a_daemon_tells_systemd_hears_a_hang_up_and_is_gone_when_stop_says_so(
    tmp_path: Path, node: RegtestNode, role: str
) -> None:
    config, log = tmp_path / "config.toml", tmp_path / "log"
    config.write_text("[log]\nlevel = 'warning'\n", encoding="utf-8")
    place = ("--datadir", str(tmp_path / role), "--config", str(config))
    chain = ("--chain-url", node.url, "--chain-cookie", str(node.cookie_file))
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with (
        contextlib.closing(Listening(environment["NOTIFY_SOCKET"])) as listening,
        log.open("wb") as output,
        subprocess.Popen(
            cromford(role, "run", *place, *chain, *RUNS[role]),
            env=os.environ | environment,
            stderr=output,
        ) as process,
    ):
        try:
            assert listening.hear().startswith("READY=1\nSTATUS=")
            while f"{READY[role]}\n" not in f"{listening.heard[-1]}\n":
                listening.hear_until("STATUS=")
            listening.hear_until("WATCHDOG=1")
            for text, event in (
                ("[log]\nlevel = 'debug'\n", "log_level_read level=debug"),
                ("[log]\nlevel = 'loud'\n", "log_level_kept reason="),
            ):
                config.write_text(text, encoding="utf-8")
                process.send_signal(signal.SIGHUP)
                while event not in log.read_text(encoding="utf-8"):
                    listening.hear_until("WATCHDOG=1")  # It lives on.
            config.write_text("", encoding="utf-8")
            words = cromford(role, "stop", "--wait", *place)
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as stop:
                listening.hear_until("STOPPING=1")
                assert stop.communicate()[0] == "the daemon has stopped\n"
            assert (stop.returncode, process.wait(A_WHILE_SECONDS)) == (0, 0)
        finally:
            process.kill()
