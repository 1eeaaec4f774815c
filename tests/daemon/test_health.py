"""A probe fails where it should, and says why: a daemon that hangs, a chain that is stale."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cromford.daemon.health import HEALTH_PATH, READY_PATH, Check, checked, watched
from cromford.daemon.metrics import MetricsServer

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
    return status, json.loads(text) if path != "/metrics" else text


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
