"""`lsp close`: who is paid what is shown first, and nobody is asked without a yes."""

import json
from typing import Any

import pytest
from tests.cli import answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.cli import asking

TOLD = (
    "kickoff_root, 750,856 sat, pays client 1 300,000 sat, client 2 0 sat. The fee is 597 sat at 3 "
    "sat/vB, which leaves the LSP 450,019 sat or 1,891 sat at 9.5 sat/vB, which leaves the LSP "
    "448,725 sat."
)


def asked(**changes: Any) -> dict[str, Any]:
    return {"factory_id": "cdcd", "feerates_sat_per_vb": [], "dry_run": True} | changes


def test_nothing_is_closed_before_somebody_was_told_who_gets_what(lsp: FakeDaemon) -> None:
    result = CommandLine(lsp.datadir).run("lsp", "close", "cdcd", "--json")
    assert result.exit_code == 5
    told = json.loads(result.stderr)
    assert told["code"] == "needs_confirmation"
    assert told["message"].endswith(TOLD)
    assert lsp.calls == [("close", asked())]


def test_what_was_shown_is_what_is_signed(lsp: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    command = ("lsp", "close", "cdcd", "--vertex", "0")
    answer = CommandLine(lsp.datadir).run(*command, typed="y\n")
    assert answer.exit_code == 0
    feerates = ["3", "9.5"]
    signed = asked(vertex="0", feerates_sat_per_vb=feerates, dry_run=False, wait=False)
    assert lsp.calls == [("close", asked(vertex="0")), ("close", signed)]
    assert "everybody is asked to agree" in answer.stdout


def test_one_that_says_no_closes_nothing(lsp: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    answer = CommandLine(lsp.datadir).run("lsp", "close", "cdcd", typed="n\n")
    assert answer.exit_code != 0
    assert lsp.calls == [("close", asked())]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--vertex", "0", "--client", "1"), "expected one of them, received both"),
        (("--feerate", "3", "--feerate", "4", "--feerate", "5"), "at most 2 of them, received 3"),
        (("--wait", "--dry-run"), "there is nothing to wait for"),
        (("--client", "0"), "0 is not in the range"),
        (("--feerate", "10001"), "10001"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_daemon_is_asked(
    lsp: FakeDaemon, options: tuple[str, ...], said: str
) -> None:
    result = CommandLine(lsp.datadir).run("lsp", "close", "cdcd", "--yes", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert lsp.calls == []


def test_a_close_that_is_waited_for_and_not_over_is_no_success(lsp: FakeDaemon) -> None:
    result = CommandLine(lsp.datadir).run("lsp", "close", "cdcd", "--yes", "--wait")
    assert result.exit_code == 1
    assert "neither finished nor over" in result.stderr


def test_a_client_sees_what_it_is_owed_by_a_close_that_it_agreed_to(fake: Any) -> None:
    closing = {
        "close_id": "ee" * 32,
        "outpoint": f"{answers.FUNDING_TXID}:0",
        "feerates_sat_per_vb": [3.0],
        "phase": "agreeing",
        "balance_msat": 1_500,
    }
    summary = answers.client_summary(closing=closing)
    shown = answers.BRANCH | {"closing": closing}
    daemon = fake({"factories": {"factories": [summary]}, "factory": shown})
    cromford = CommandLine(daemon.datadir)
    for command in ("factories", "factory"):
        told = cromford.run("client", command).stdout
        assert "closing together: agreeing, you are owed 1,500 msat" in told


def test_a_close_under_way_and_a_finished_one_are_shown(fake: Any) -> None:
    closing = {
        "close_id": "ee" * 32,
        "name": "kickoff_root",
        "outpoint": f"{answers.FUNDING_TXID}:0",
        "feerates_sat_per_vb": [3.0],
        "phase": "signing",
        "clients": [1, 2, 3],
        "done": [1],
        "holdouts": [2, 3],
    }
    closed = {
        "close_id": "ee" * 32,
        "outpoint": f"{answers.FUNDING_TXID}:0",
        "txids": ["77" * 32],
        "txid": None,
        "confirmations": 0,
    }
    under_way = answers.lsp_summary(closing=closing)
    finished = answers.lsp_summary(closed=[closed])
    ended = answers.SHOWN | {"close_ended": "client 2 refused: an HTLC is pending"}
    daemon = fake({"factories": {"factories": [under_way, finished]}, "factory_show": ended})
    cromford = CommandLine(daemon.datadir)
    listed = cromford.run("lsp", "factories").stdout
    assert "closing kickoff_root: signing, 1 of 3; waits for client 2, client 3" in listed
    assert f"closed together, in no block yet: {'77' * 6}" in listed
    shown = cromford.run("lsp", "factory", "show", answers.FACTORY_ID).stdout
    assert "the last close came to nothing: client 2 refused: an HTLC is pending" in shown


def test_a_client_is_told_what_a_close_pays_it_and_by_which_transaction(fake: Any) -> None:
    closed = {
        "close_id": "ee" * 32,
        "outpoint": f"{answers.FUNDING_TXID}:0",
        "txids": ["77" * 32, "88" * 32],
        "txid": "88" * 32,
        "confirmations": 7,
    }
    own = {"close_id": "ee" * 32, "payout_sat": 74_974}
    over = answers.client_summary(status="closed", closed=[closed], close=own)
    daemon = fake({"factories": {"factories": [over]}})
    listed = CommandLine(daemon.datadir).run("client", "factories").stdout
    told = f"closed together, 7 deep: {'88' * 6}; pays you 74,974 sat"
    assert told in " ".join(listed.split())
    assert "77" * 6 not in listed
    assert "exit within" not in listed


def test_what_a_close_brought_back_is_drawn_up(fake: Any) -> None:
    closed = {
        "close_id": "ee" * 32,
        "name": "kickoff_root",
        "outpoint": f"{answers.FUNDING_TXID}:0",
        "txids": ["77" * 32],
        "txid": "77" * 32,
        "status": "confirmed",
        "confirmations": 6,
        "clients": [1],
        "paid_sat": [300_000],
        "amount_sat": 750_856,
        "items": [
            {"item": "channel_balances", "amount_sat": 199_999},
            {"item": "rounded", "amount_sat": 1},
            {"item": "omitted", "amount_sat": 0},
            {"item": "lstock", "amount_sat": 249_794},
            {"item": "tree_fees", "amount_sat": 582},
            {"item": "anchors", "amount_sat": 480},
            {"item": "close_fee", "amount_sat": -597},
            {"item": "close_anchor", "amount_sat": -240},
            {"item": "close_child", "amount_sat": -19},
        ],
        "lsp_sat": 450_000,
    }
    daemon = fake({"factory_show": answers.SHOWN | {"closed": [closed]}})
    shown = CommandLine(daemon.datadir).run("lsp", "factory", "show", answers.FACTORY_ID).stdout
    rows = " ".join(shown.split())
    for said in (
        "brought back",
        "lstock 249,794 sat",
        "close fee -597 sat",
        "close child -19 sat",
        "LSP 450,000 sat",
    ):
        assert said in rows
    assert "omitted" not in rows, "what is nothing is not listed"
