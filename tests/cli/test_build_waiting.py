"""`lsp build --wait` ends with the factory's id, or with the reason why there is none."""

import json
from typing import Any

import pytest
from tests.cli import answers
from tests.cli.conftest import CommandLine
from tests.cli.world_answers import TERMS

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.cli import build_waiting

FIRST, SECOND = "ab" * 32, "cd" * 32
FUNDING_TX = Tx(
    version=2,
    inputs=(TxIn(outpoint=OutPoint(txid=Txid(bytes(32)), vout=0), nsequence=0),),
    outputs=tuple(TxOut(amount_sat=sat, script_pubkey=bytes(34)) for sat in (500_000, 7_000)),
)
PROPOSED = {"event": "attempt_proposed", "attempt_id": FIRST}
ABORTED = {"event": "attempt_aborted", "attempt_id": FIRST, "reason": "client 2\x1b was silent"}
STORY = [
    PROPOSED,
    ABORTED,
    {"event": "rebuild_awaited"},
    PROPOSED | {"attempt_id": SECOND},
    {"event": "funding_signed", "attempt_id": SECOND},
]


def telling(*events: dict[str, Any], at_once: int = 1) -> dict[str, Any]:
    """Return the answers of a daemon in which a build goes on while it is followed."""

    def told(params: dict[str, Any]) -> dict[str, Any]:
        number = int(params["after"].partition("-")[2])
        page = [dict(one) for one in events[number : number + at_once]]
        return {"events": page, "cursor": f"7f-{number + len(page)}"}

    def shown(params: dict[str, Any]) -> dict[str, Any]:
        """Return what was built: a client fewer than was planned."""
        funding = answers.FUNDING | {"amount_sat": 500_000, "tx_hex": FUNDING_TX.serialize().hex()}
        fee = {"payer": "lsp", "item": "funding_fee", "amount_sat": 250, "recovered": "never"}
        return answers.SHOWN | {
            "factory_id": params["factory_id"],
            "terms": TERMS | {"attempt_id": params["factory_id"]},
            "placed": answers.PLACED[:1],
            "funding": funding,
            "ledger": [*answers.SHOWN["ledger"], fee],
        }

    return {"build": answers.BUILD | {"cursor": "7f-0"}, "events": told, "factory_show": shown}


def test_it_waits_over_an_abort_for_the_factory_that_is_funded(fake: Any) -> None:
    line = CommandLine(fake(telling(*STORY)).datadir)
    document = line.document("lsp", "build", "--wait")
    assert document == answers.BUILD | {
        "cursor": "7f-0",
        "factory_id": SECOND,
        "terms": TERMS | {"attempt_id": SECOND},
        "placed": answers.PLACED[:1],
        "funding_amount_sat": 500_000,
        "funding_fee_sat": 250,
        "change_sat": 7_000,
    }
    for_people = line.run("lsp", "build", "--wait")
    assert for_people.stdout.startswith(f"built: factory {SECOND}")
    assert for_people.stderr.splitlines() == [
        f"factory {FIRST} is proposed, and is being signed",
        f"factory {FIRST} is given up: client 2? was silent",
        "tried again with those who stay",
        f"factory {SECOND} is proposed, and is being signed",
    ]


def test_a_factory_that_was_built_before_is_shown_and_not_waited_for(fake: Any) -> None:
    daemon = fake(telling() | {"build": answers.BUILD | {"terms": TERMS | {"attempt_id": FIRST}}})
    line = CommandLine(daemon.datadir)
    for wait in ((), ("--wait",)):
        document = line.document("lsp", "build", "--external-id", "may", *wait)
        assert document["factory_id"] == document["terms"]["attempt_id"] == FIRST
        assert document["funding_amount_sat"] == 500_000
    assert [params["external_id"] for name, params in daemon.calls if name == "build"] == [
        "may"
    ] * 2
    assert "events" not in [name for name, _ in daemon.calls]
    told = line.run("lsp", "build", "--external-id", "may").stdout
    assert told.startswith(f"built: factory {FIRST}")


def test_a_build_that_is_dropped_ends_with_its_reason(fake: Any) -> None:
    story = telling(PROPOSED, ABORTED, {"event": "build_dropped", "reason": "1 client is left"})
    result = CommandLine(fake(story).datadir).run("lsp", "build", "--wait", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    error = json.loads(result.stderr)
    assert (error["code"], error["retryable"]) == ("build_dropped", True)
    assert error["message"] == "nothing was built: 1 client is left"


def test_a_build_that_goes_on_without_those_who_left_is_not_over(fake: Any) -> None:
    dropped = {"event": "build_dropped", "reason": "1 client left before the proposal"}
    funded = {"event": "funding_signed", "attempt_id": FIRST}
    story = telling(dropped, {"event": "rebuild_awaited"}, funded, at_once=2)
    document = CommandLine(fake(story).datadir).document("lsp", "build", "--wait")
    assert document["factory_id"] == FIRST


def test_a_build_that_takes_too_long_is_still_under_way(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_waiting, "BUILD_WAIT_SECONDS_MAX", 0.0)
    result = CommandLine(fake(telling(PROPOSED)).datadir).run("lsp", "build", "--wait", "--json")
    assert json.loads(result.stderr)["code"] == "build_pending"


def test_nobody_waits_for_a_dry_run(fake: Any) -> None:
    result = CommandLine(fake(telling()).datadir).run("lsp", "build", "--wait", "--dry-run")
    assert result.exit_code == 2
