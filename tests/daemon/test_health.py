"""A probe fails where it should, and says why: a daemon that hangs, a chain that is stale."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cromford.daemon.health import HEALTH_PATH, READY_PATH, Check, checked, watched
from cromford.daemon.metrics import (
    CONNECTIONS_MAX,
    QUIET_SECONDS,
    MetricsServer,
    Sample,
    _Quiet,
)

FINE = [checked("chain", None), checked("peers", None)]
STALE = [checked("chain", "no block for hours"), checked("peers", None)]


def get(server: MetricsServer, path: str) -> tuple[int, Any]:
    """Return what a probe is answered: the status, and the document or the text."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
        error.close()
    return status, json.loads(text) if path in {HEALTH_PATH, READY_PATH} else text


async def settled() -> None:
    """Be as a disk that has written everything."""


def probed(
    *paths: str,
    checks: list[Check] = FINE,
    settle: Callable[[], Awaitable[None]] = settled,
    seconds: float = 30.0,
) -> list[tuple[int, Any]]:
    """Return the answers of a daemon whose loop runs in this process."""

    async def main() -> list[tuple[int, Any]]:
        server = watched(
            ("127.0.0.1", 0),
            asyncio.get_running_loop(),
            samples=lambda: [("height", {}, 7)],
            readiness=lambda: checks,
            settled=settle,
            seconds=seconds,
        )
        try:
            return [await asyncio.to_thread(get, server, path) for path in paths]
        finally:
            await asyncio.to_thread(server.close)

    return asyncio.run(main())


def test_a_daemon_that_answers_lives_and_one_to_whom_nothing_is_lacking_is_ready() -> None:
    (alive, health), (ready, readiness), (scraped, numbers) = probed(
        HEALTH_PATH, READY_PATH, "/metrics"
    )
    assert (alive, ready, scraped) == (200, 200, 200)
    assert health == {"ok": True, "checks": [{"check": "answers", "ok": True, "detail": ""}]}
    assert [check["check"] for check in readiness["checks"]] == ["chain", "peers"]
    assert "cromford_height 7.0" in numbers


def test_a_daemon_that_takes_no_risk_is_not_ready_says_why_and_lives() -> None:
    (alive, _), (ready, readiness) = probed(HEALTH_PATH, READY_PATH, checks=STALE)
    assert (alive, ready) == (200, 503)
    assert readiness["ok"] is False
    assert readiness["checks"][0] == {
        "check": "chain",
        "ok": False,
        "detail": "no block for hours",
    }


def test_a_disk_that_does_not_answer_fails_the_probe_of_life() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    ((alive, health),) = probed(HEALTH_PATH, settle=never, seconds=0.05)
    assert alive == 503
    assert "nor its disk answered" in health["checks"][0]["detail"]


@pytest.mark.parametrize("path", [HEALTH_PATH, READY_PATH])
def test_a_daemon_that_hangs_fails_both(path: str) -> None:
    loop = asyncio.new_event_loop()  # It never runs, as one that hangs.
    server = watched(
        ("127.0.0.1", 0), loop, samples=list, readiness=lambda: FINE, settled=settled, seconds=0.05
    )
    try:
        status, document = get(server, path)
    finally:
        server.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert (status, document["ok"]) == (503, False)


@pytest.mark.parametrize(
    ("host", "is_told"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)],  # noqa: S104 - asked for
)
def test_numbers_that_others_can_read_are_warned_of(
    caplog: pytest.LogCaptureFixture, host: str, *, is_told: bool
) -> None:
    server = MetricsServer((host, 0), lambda: [("height", {}, 7)])
    try:
        where = "[::1]" if ":" in host else "127.0.0.1"
        with urllib.request.urlopen(f"http://{where}:{server.port}/metrics") as answer:
            assert b"cromford_height 7.0" in answer.read()
    finally:
        server.close()
    warned = [record.getMessage() for record in caplog.records]
    expected = f"metrics_beyond_this_machine host={host} port={server.port}"
    assert warned == ([expected] if is_told else [])


def knock(server: MetricsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def test_a_path_that_is_none_is_not_found() -> None:
    """Kubernetes calls it `/livez` elsewhere: a probe that is answered numbers never fails."""
    for status, told in probed("/", "/health", "/livez", f"{HEALTH_PATH}/", f"{READY_PATH}%20"):
        assert status == 404
        assert told.startswith("expected one of /metrics, /healthz, /readyz, received '/")


def asked_for(host: str, listen: str = "127.0.0.1") -> int:
    """Return the status that a browser gets, which was led here by a name."""
    server = MetricsServer((listen, 0), lambda: [("height", {}, 7)])
    asking = http.client.HTTPConnection("127.0.0.1", server.port)
    try:
        asking.request("GET", "/metrics", headers={"Host": host.format(server.port)})
        return asking.getresponse().status
    finally:
        asking.close()
        server.close()


def test_another_sites_page_does_not_read_the_numbers_of_this_machine() -> None:
    """A browser asks a name of the page's own site, which resolves to our address."""
    assert asked_for("rebound.example:{}") == 403
    assert {asked_for(host) for host in ("127.0.0.1:{}", "localhost:{}", "[::1]:{}")} == {200}
    # In a container's network each has a name that only the network knows.
    assert asked_for("lsp:{}", listen="0.0.0.0") == 200  # noqa: S104 - asked for


def test_a_probe_that_names_nobody_is_answered() -> None:
    """HAProxy's asks by HTTP/1.0, which has no `Host`."""
    server = MetricsServer(("127.0.0.1", 0), lambda: [("height", {}, 7)])
    try:
        with knock(server) as probe:
            probe.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert probe.recv(64).startswith(b"HTTP/1.0 200 OK")
    finally:
        server.close()


def test_who_connects_and_says_nothing_keeps_nobody_out_and_takes_few_places() -> None:
    before = threading.active_count()
    server = MetricsServer(("127.0.0.1", 0), lambda: [("height", {}, 7)])
    with contextlib.ExitStack() as held:
        held.callback(server.close)
        first = held.enter_context(knock(server))
        for _ in range(2 * CONNECTIONS_MAX):
            held.enter_context(knock(server))
            n_serving = threading.active_count() - before - 1
            assert n_serving <= 2 * CONNECTIONS_MAX
        assert first.recv(1) == b""  # It came first, and made room.
        held.enter_context(knock(server))
        assert "cromford_height 7.0" in get(server, "/metrics")[1]


def test_a_connection_that_says_nothing_ends_in_silence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Quiet, "timeout", 0.05)
    server = MetricsServer(("127.0.0.1", 0), lambda: [("height", {}, 7)])
    try:
        with knock(server) as silent, knock(server) as slow:
            slow.sendall(b"GET /met")
            assert (silent.recv(1), slow.recv(1)) == (b"", b"")
    finally:
        server.close()
    assert capfd.readouterr().err == ""


def test_while_all_that_were_ended_are_still_there_nobody_is_let_in() -> None:
    """A thread that waits for the daemon's loop does not notice that it is to end."""
    goes_on, asked = threading.Event(), threading.Semaphore(0)

    def wait() -> list[Sample]:
        asked.release()
        goes_on.wait(30)
        return [("height", {}, 7)]

    server = MetricsServer(("127.0.0.1", 0), wait)
    with contextlib.ExitStack() as held:
        held.callback(server.close)
        held.callback(goes_on.set)
        for _ in range(2 * CONNECTIONS_MAX):
            newest = held.enter_context(knock(server))
            newest.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert asked.acquire(timeout=30)
        with knock(server) as late:
            late.settimeout(QUIET_SECONDS / 2)
            assert late.recv(1) == b""
        goes_on.set()
        assert newest.recv(12) == b"HTTP/1.0 200"
        assert "cromford_height 7.0" in get(server, "/metrics")[1]
