"""Payments: what is asked, what is sent, and that nothing is sent unasked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli import answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.cli import asking

SEND = ("wallet", "send", "bcrt1qthere", "70000")


def test_where_nobody_can_be_asked_nothing_is_sent(client: FakeDaemon) -> None:
    result = CommandLine(client.datadir).run("client", *SEND, "--json")
    assert result.exit_code == 5
    error = json.loads(result.stderr)
    assert error["code"] == "needs_confirmation"
    assert "70,000 sat to bcrt1qthere, and a fee of 308 sat" in error["message"]
    assert [params["dry_run"] for _, params in client.calls] == [True]


@pytest.mark.parametrize(("answer", "dry_runs"), [("y\n", [True, False]), ("n\n", [True])])
def test_a_person_sees_the_payment_before_it_is_sent(
    lsp: FakeDaemon, monkeypatch: pytest.MonkeyPatch, answer: str, dry_runs: list[bool]
) -> None:
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    result = CommandLine(lsp.datadir).run("lsp", *SEND, typed=answer)
    assert "70,000 sat to bcrt1qthere, and a fee of 308 sat (2.004 sat/vB" in result.stderr
    assert [params["dry_run"] for _, params in lsp.calls] == dry_runs
    assert (result.exit_code == 0) is (len(dry_runs) == 2)


def test_what_was_shown_is_what_is_sent(lsp: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    CommandLine(lsp.datadir).run("lsp", *SEND, typed="y\n")
    payment = {"address": "bcrt1qthere", "amount_sat": 70_000}
    assert lsp.calls[0][1] == payment | {"dry_run": True}
    assert lsp.calls[1][1] == payment | {"feerate_sat_per_vb": "2.004", "dry_run": False}


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("all",), {}),
        (("1",), {"amount_sat": 1}),
        (("all", "--feerate-sat-per-vb", "1.50"), {"feerate_sat_per_vb": "1.50"}),
        (("1", "--external-id", "payout-7"), {"amount_sat": 1, "external_id": "payout-7"}),
    ],
)
def test_a_payment_is_asked_for_as_it_was_typed(
    lsp: FakeDaemon, words: tuple[str, ...], asked: dict[str, Any]
) -> None:
    line = CommandLine(lsp.datadir)
    document = line.document("lsp", "wallet", "send", "bcrt1q", *words, "--yes")
    assert document == answers.PAYMENT
    assert lsp.calls == [("wallet_send", {"address": "bcrt1q", "dry_run": False} | asked)]


def test_what_was_sent_before_by_an_id_is_shown_and_nobody_is_asked(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, {"wallet_send": answers.PAYMENT}) as lsp:
        result = CommandLine(lsp.datadir).run("lsp", *SEND, "--external-id", "payout-7")
    assert (result.exit_code, result.stdout.split("\n")[0]) == (0, "sent")
    assert [params["dry_run"] for _, params in lsp.calls] == [True]


def test_where_nobody_can_be_asked_nothing_is_split(client: FakeDaemon) -> None:
    result = CommandLine(client.datadir).run("client", "wallet", "split", "3", "--json")
    assert result.exit_code == 5
    message = json.loads(result.stderr)["message"]
    assert "the fee cannot be taken back: 3 coins of 20,000 sat, for a fee of 567 sat" in message
    assert client.calls == [("wallet_split", {"n_coins": 3, "dry_run": True})]


def test_what_was_shown_is_what_is_split(
    client: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an amount too: a coin that comes while somebody thinks changes none of them."""
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    result = CommandLine(client.datadir).run("client", "wallet", "split", "3", typed="y\n")
    assert "(2.004 sat/vB, estimate for 6 blocks). Split?" in result.stderr
    assert "3 of 20,000 sat" in result.stdout
    shown = {"amount_sat": 20_000, "feerate_sat_per_vb": "2.004"}
    assert client.calls[1:] == [("wallet_split", {"n_coins": 3, "dry_run": False} | shown)]


def test_a_split_is_asked_for_as_it_was_typed(lsp: FakeDaemon) -> None:
    words = ("20", "--amount-sat", "5000", "--feerate", "1.50", "--dry-run")
    result = CommandLine(lsp.datadir).run("lsp", "wallet", "split", *words)
    assert result.stdout.startswith("dry run: nothing was split")
    asked = {"n_coins": 20, "amount_sat": 5_000, "feerate_sat_per_vb": "1.50", "dry_run": True}
    assert lsp.calls == [("wallet_split", asked)]


def test_what_was_split_before_by_an_id_is_shown_and_nobody_is_asked(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path, {"wallet_split": answers.SPLIT | {"split": True}}) as lsp:
        words = ("split", "3", "--external-id", "coins-7")
        result = CommandLine(lsp.datadir).run("lsp", "wallet", *words)
    assert result.exit_code == 0
    assert result.stdout.startswith("split: the coins are free")
    assert lsp.calls == [
        ("wallet_split", {"n_coins": 3, "external_id": "coins-7", "dry_run": True})
    ]


@pytest.mark.parametrize("n_coins", ["1", "21", "three"])
def test_a_number_of_coins_that_is_never_made_is_not_asked_for(
    client: FakeDaemon, n_coins: str
) -> None:
    result = CommandLine(client.datadir).run("client", "wallet", "split", n_coins, "--yes")
    assert result.exit_code == 2
    assert "a whole number in 2..20" in result.stderr
    assert not client.calls


def test_where_nobody_can_be_asked_no_payment_pays_more(client: FakeDaemon) -> None:
    result = CommandLine(client.datadir).run("client", "wallet", "bump", "ab" * 32, "--json")
    assert result.exit_code == 5
    message = json.loads(result.stderr)["message"]
    assert "the fee cannot be taken back: 70,000 sat to its payee, and a fee of 1,540" in message
    assert [(name, asked["dry_run"]) for name, asked in client.calls] == [("wallet_bump", True)]


def test_a_bump_is_asked_for_as_it_was_typed_and_shown(
    client: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    line = CommandLine(client.datadir)
    result = line.run("client", "wallet", "bump", "ab" * 32, "--from-amount", typed="y\n")
    assert "(10.0 sat/vB, given). Bump it?" in result.stderr
    assert result.stdout.startswith("bumped")
    asked = {"txid": "ab" * 32, "from_amount": True}
    assert client.calls == [
        ("wallet_bump", asked | {"dry_run": True}),
        ("wallet_bump", asked | {"feerate_sat_per_vb": "10.0", "dry_run": False}),
    ]
    words = ("client", "wallet", "bump", "ab" * 32, "--feerate", "12", "--dry-run")
    assert line.run(*words).stdout.startswith("dry run: nothing was bumped")
    assert client.calls[-1][1]["feerate_sat_per_vb"] == "12"


def test_payments_that_wait_are_listed(lsp: FakeDaemon) -> None:
    shown = CommandLine(lsp.datadir).run("lsp", "wallet", "balance").stdout
    assert f"{answers.CHANNEL_TXID}, at 2.004 sat/vB" in shown
    assert f"{answers.FUNDING_TXID}\n" in shown


def test_a_payment_is_given_up_only_by_somebody_who_was_told_why_it_may_confirm(
    client: FakeDaemon,
) -> None:
    result = CommandLine(client.datadir).run("client", "wallet", "abandon", "ab" * 32, "--json")
    assert result.exit_code == 5
    message = json.loads(result.stderr)["message"]
    assert "min relay fee not met, 2 < 154; who else has it may publish it" in message
    assert [params["dry_run"] for _, params in client.calls] == [True]


def test_a_factory_is_given_up_only_by_somebody_who_was_told_what_it_costs(
    lsp: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("lsp", "factory", "abandon", "cdcd")
    result = CommandLine(lsp.datadir).run(*command, "--json")
    assert result.exit_code == 5
    assert "a coin is paid back for a fee of 800 sat" in json.loads(result.stderr)["message"]
    assert lsp.calls == [("factory_abandon", {"factory_id": "cdcd", "dry_run": True})]
    lsp.calls.clear()
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    assert CommandLine(lsp.datadir).run(*command, typed="y\n").exit_code == 0
    shown = {"factory_id": "cdcd", "feerate_sat_per_vb": "7.208", "dry_run": False}
    assert lsp.calls[1] == ("factory_abandon", shown)


def test_a_funding_is_bumped_only_by_somebody_who_was_told_what_it_costs(
    lsp: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("lsp", "factory", "bump", "cdcd", "--feerate", "15.5")
    result = CommandLine(lsp.datadir).run(*command, "--json")
    assert result.exit_code == 5
    told = json.loads(result.stderr)["message"]
    assert "a child pays 4,210 sat, so that both together pay 15.5 sat/vB" in told
    asked = {"factory_id": "cdcd", "feerate_sat_per_vb": "15.5", "dry_run": True}
    assert lsp.calls == [("factory_bump", asked)]
    lsp.calls.clear()
    monkeypatch.setattr(asking, "can_ask", lambda _session: True)
    answer = CommandLine(lsp.datadir).run(*command, typed="y\n")
    assert answer.exit_code == 0
    assert lsp.calls[1] == ("factory_bump", asked | {"dry_run": False})
    assert "4,210 sat (15.5 sat/vB with its funding, our node, for 6 blocks)" in answer.stdout


def test_without_a_feerate_the_daemons_node_is_asked(lsp: FakeDaemon) -> None:
    answer = CommandLine(lsp.datadir).run("lsp", "factory", "bump", "cdcd", "--dry-run")
    assert lsp.calls == [("factory_bump", {"factory_id": "cdcd", "dry_run": True})]
    assert answer.stdout.startswith("dry run: nothing was published")


def test_a_wallet_without_coins_says_so(fake: Any) -> None:
    daemon = fake({"wallet_coins": {"coins": []}})
    assert CommandLine(daemon.datadir).run("lsp", "wallet", "coins").stdout == "no coins\n"


@pytest.mark.parametrize("is_new", [True, False])
def test_an_address_that_was_given_before_is_said_to_be_beside_it(
    fake: Callable[[dict[str, Any]], FakeDaemon], *, is_new: bool
) -> None:
    line = CommandLine(fake({"address": {"address": "bcrt1q", "is_new": is_new}}).datadir)
    result = line.run("client", "wallet", "address")
    assert result.stdout == "bcrt1q\n"
    assert ("WARNING: this address was given before" in result.stderr) is not is_new
    assert line.document("client", "wallet", "address")["is_new"] is is_new


def test_a_coin_names_the_payment_that_spends_it(fake: Any) -> None:
    txid = str(answers.FUNDING_TXID)
    coin = {
        "outpoint": f"{answers.FUNDING_TXID}:1",
        "amount_sat": 5_000,
        "address": "bcrt1qcoin",
        "confirmations": 7,
        "status": "paying",
        "reserved_for": txid,
    }
    daemon = fake({"wallet_coins": {"coins": [coin]}})
    shown = CommandLine(daemon.datadir).run("lsp", "wallet", "coins").stdout
    assert f"paying for {txid[:12]}" in " ".join(shown.split())
