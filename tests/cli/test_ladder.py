"""A build with a fee ladder is asked for again while its clients join with more keys."""

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any, Final

import pytest
from tests.cli import answers, ladder_answers
from tests.cli.conftest import CommandLine

from cromford.cli import ladder
from cromford.daemon.api.failures import ApiFailure
from cromford.protocol.lobby.ladder import JOIN_AGAIN

BUILD: Final = ("lsp", "build", "--funding-feerates", "2,8")
LACKING: Final = ApiFailure(JOIN_AGAIN, "1 of 2 clients joined with too few keys", retryable=True)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no test wait; return how long it would have."""
    slept: list[float] = []
    monkeypatch.setattr("cromford.cli.ladder.time.sleep", slept.append)
    return slept


def answering(outcomes: Iterator[ApiFailure | None]) -> Callable[[dict[str, Any]], object]:
    """Return what refuses a build as long as there are refusals."""

    def build(_params: dict[str, Any]) -> object:
        refusal = next(outcomes)
        if refusal is not None:
            raise refusal
        return answers.BUILD

    return build


def test_it_is_asked_for_until_they_have_joined_again(fake: Any, pauses: list[float]) -> None:
    daemon = fake({"build": answering(chain(repeat(LACKING, 3), repeat(None)))})
    result = CommandLine(daemon.datadir).run(*BUILD)
    assert result.exit_code == 0, result.stderr
    assert pauses == [ladder.PAUSE_SECONDS] * 3
    asked = {"dry_run": False, "funding_feerates_sat_per_vb": ["2", "8"]}
    assert [params for _, params in daemon.calls] == [asked] * 4


def test_who_does_not_join_in_time_is_not_waited_for_any_longer(
    fake: Any, pauses: list[float]
) -> None:
    daemon = fake({"build": answering(repeat(LACKING))})
    result = CommandLine(daemon.datadir).run(*BUILD)
    assert result.exit_code != 0
    assert "joined with too few keys" in result.stderr
    assert len(daemon.calls) == len(pauses) + 1 == ladder.TRIES + 1
    assert sum(pauses) == ladder.TRIES * ladder.PAUSE_SECONDS <= 60


def test_any_other_refusal_is_the_last_word(fake: Any, pauses: list[float]) -> None:
    other = ApiFailure("too_few_clients", "1 client waits", retryable=True)
    daemon = fake({"build": answering(chain([LACKING], repeat(other)))})
    result = CommandLine(daemon.datadir).run(*BUILD)
    assert result.exit_code != 0
    assert "1 client waits" in result.stderr
    assert (len(daemon.calls), len(pauses)) == (2, 1)


def test_a_candidate_that_is_published_without_asking_is_named(fake: Any) -> None:
    daemon = fake({"factory_replace": ladder_answers.replaced})
    line = CommandLine(daemon.datadir)
    refused = line.run("lsp", "factory", "replace", "f0f0", "--yes")
    assert refused.exit_code != 0
    assert "--yes: expected --candidate beside it" in refused.stderr
    assert not daemon.calls
    unasked = line.run("lsp", "factory", "replace", "f0f0")
    assert "then add --candidate 1 --yes" in unasked.stderr
    assert [params["dry_run"] for _, params in daemon.calls] == [True]


def test_a_candidate_that_is_published_already_is_shown_and_asks_nothing(fake: Any) -> None:
    before = ladder_answers.REPLACED_FACTORY | {"replaces": 1}
    daemon = fake({"factory_replace": lambda _params: before})
    result = CommandLine(daemon.datadir).run(
        "lsp", "factory", "replace", "f0f0", "--candidate", "1"
    )
    assert result.exit_code == 0, result.stderr
    assert "replaced before: nothing is paid a second time" in result.stdout
    assert "in the place of" not in result.stdout
