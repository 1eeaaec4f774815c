"""Events: in order, each once, and following them ends when one wants."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

PAGE = 3
EVENTS: list[dict[str, Any]] = [
    {"cursor": f"7f-{number}", "event": "block_connected", "height": 100 + number}
    for number in range(1, 8)
]
EVENTS[4] = {
    "cursor": "7f-5",
    "event": "attempt_aborted",
    "reason": "gone \x1b[31m",
    "culprits": ["02"],
}


def told(params: dict[str, Any]) -> dict[str, Any]:
    """Answer as a daemon does, whose cursors sort by their numbers."""
    newer = [event for event in EVENTS if event["cursor"] > params["after"]][:PAGE]
    return {"events": newer, "cursor": newer[-1]["cursor"] if newer else params["after"]}


def test_all_events_are_told_however_many_the_daemon_tells_at_a_time(fake: Any) -> None:
    line = CommandLine(fake({"events": told}).datadir)
    assert line.document("lsp", "events") == {"events": EVENTS}
    assert line.document("client", "events", "--after", "7f-6") == {"events": EVENTS[6:]}


def test_people_read_one_event_to_a_line(fake: Any) -> None:
    line = CommandLine(fake({"events": told}).datadir)
    lines = line.run("lsp", "events").stdout.splitlines()
    assert lines[0].split() == ["7f-1", "-", "block_connected", "height=101"]
    assert lines[4].endswith('reason="gone ?[31m" culprits=02')
    assert line.run("lsp", "events", "--after", "7f-7").stdout == "no events\n"


def following(daemon: FakeDaemon, *words: str) -> subprocess.Popen[bytes]:
    words = ("lsp", "events", "--follow", "--datadir", str(daemon.datadir), *words)
    # A shell's background job ignores Ctrl-C, and hands that on to what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cromford", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def test_following_tells_each_event_once_and_ends_with_ctrl_c(fake: Any) -> None:
    process = following(fake({"events": told}), "--json", "--after", "7f-1")
    assert process.stdout is not None
    seen = [json.loads(process.stdout.readline()) for _ in EVENTS[1:]]
    assert seen == EVENTS[1:]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, b"", b"")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_following_into_a_pipe_that_was_closed_ends_in_silence(
    fake: Any, words: tuple[str, ...]
) -> None:
    process = following(
        fake({"events": lambda _params: {"events": EVENTS, "cursor": "7f-7"}}), *words
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, b"")


def test_what_a_peer_wrote_cannot_pretend_to_be_another_event(fake: Any) -> None:
    forged = {"cursor": "7f-1", "event": "aborted", "reason": "gone\n     2  payment_started"}
    daemon = fake(
        {"events": lambda p: {"events": [] if p["after"] else [forged], "cursor": "7f-1"}}
    )
    assert len(CommandLine(daemon.datadir).run("lsp", "events").stdout.splitlines()) == 1


def test_events_are_asked_for_by_name_and_by_what_they_are_about(fake: Any) -> None:
    daemon = fake({"events": told})
    line = CommandLine(daemon.datadir)
    line.document(
        "lsp", "events", "--only", "attempt_aborted", "--only", "started", "--about", "ab"
    )
    asked = {"only": ["attempt_aborted", "started"], "about": "ab", "wait_seconds": 0.0}
    assert daemon.calls[0] == ("events", {"after": ""} | asked)
    assert daemon.calls[-1] == ("events", {"after": "7f-7"} | asked)


def test_a_page_that_had_nothing_to_tell_is_not_looked_at_again(fake: Any) -> None:
    """The cursor goes on over events that nobody asked for."""

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        last = params["after"] == "7f-9"
        return {"events": [] if last else EVENTS[:1], "cursor": "7f-9"}

    daemon = fake({"events": answer})
    assert CommandLine(daemon.datadir).document("lsp", "events") == {"events": EVENTS[:1]}
    assert [params["after"] for _, params in daemon.calls] == ["", "7f-9"]
