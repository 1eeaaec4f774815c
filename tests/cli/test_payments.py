"""Paying from the command line: units and a QR code for people, exit codes for scripts."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.cli import answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.cli.shown import payment_lists


@pytest.mark.parametrize(
    ("typed", "amount_msat"),
    [
        ("21", 21_000),
        ("21sat", 21_000),
        ("21 sat", 21_000),
        ("1500msat", 1_500),
        ("10,000", 10_000_000),
        ("1,234,567 msat", 1_234_567),
        ("0.001btc", 100_000_000),
        ("0.001 BTC", 100_000_000),
        ("0.00000000001btc", 1),
        ("1btc", 100_000_000_000),
    ],
)
def test_an_amount_is_in_sat_unless_its_suffix_says_otherwise(
    client: FakeDaemon, typed: str, amount_msat: int
) -> None:
    line = CommandLine(client.datadir)
    line.document("client", "invoice", typed, "--description", "a boat", "--expiry-seconds", "60")
    line.document("client", "pay", answers.TEXT, "--max-fee", typed, "--from", "f0f0")
    made, paid = client.calls
    assert made == (
        "invoice",
        {
            "amount_msat": amount_msat,
            "description": "a boat",
            "expiry_seconds": 60,
            "hold_seconds": 0,
        },
    )
    assert paid == (
        "pay",
        {
            "invoice": answers.TEXT,
            "fee_max_msat": amount_msat,
            "factory_id": "f0f0",
            "wait_seconds": 60.0,
            "dry_run": False,
        },
    )


@pytest.mark.parametrize(
    "typed",
    [
        "0",
        "1.5",
        "1.5sat",
        "-3",
        "",
        "9" * 21,
        "1,00",
        "1,0000",
        ",1",
        "1_0",
        "21  sat",
        "\u0661",
        "22000000btc",
    ],
)
def test_what_is_no_amount_is_wrong_usage(client: FakeDaemon, typed: str) -> None:
    result = CommandLine(client.datadir).run("client", "invoice", "--", typed)
    assert result.exit_code == 2
    assert "expected a whole number of sat" in result.stderr
    assert client.calls == []


def test_an_invoice_goes_into_a_pipe_alone(client: FakeDaemon) -> None:
    shown = CommandLine(client.datadir).run("client", "invoice", "1500msat")
    assert shown.stdout == f"{answers.TEXT}\n"


def terminal(width: int, answer: dict[str, Any]) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    payment_lists.invoice(console, answer)
    return stream.getvalue()


def test_in_a_terminal_an_invoice_comes_with_its_facts_and_a_code_for_cameras() -> None:
    shown = terminal(120, answers.INVOICE)
    assert "\x1b[38;5;16;48;5;231m" in shown
    assert "▀" in shown
    assert shown.endswith(f"{answers.TEXT}\n")
    for said in ("1,500 msat", "a boat?proof", "2023-11-14 22:13:20 UTC"):
        assert said in shown
    assert "▀" not in terminal(20, answers.INVOICE), "a code that does not fit is no code"


@pytest.mark.parametrize(("receivable_msat", "is_warned"), [(1_499, True), (1_500, False)])
def test_whoever_asks_for_more_than_can_be_received_is_warned(
    fake: Any, receivable_msat: int, *, is_warned: bool
) -> None:
    answer = answers.INVOICE | {"receivable_msat": receivable_msat}
    line = CommandLine(fake({"invoice": answer}).datadir)
    shown = line.run("client", "invoice", "1500msat")
    assert (shown.exit_code, shown.stdout) == (0, f"{answers.TEXT}\n"), "the pipe has it alone"
    assert ("more than a channel can receive now, 1,499 msat" in shown.stderr) == is_warned
    assert line.document("client", "invoice", "1500msat") == answer


@pytest.mark.parametrize(
    ("role", "changes", "retryable", "remediation"),
    [
        ("lsp", {}, True, "try again later"),
        ("client", {}, True, "to protect payees, the LSP does not say which"),
        ("client", {"failure": "failure 0x4321", "retryable": False}, False, "Nothing was paid"),
        ("client", {"failure": "fee_insufficient", "retryable": True}, True, "a new price"),
        (
            "lsp",
            {"failure": "incorrect_or_unknown_payment_details", "retryable": False},
            False,
            "new invoice",
        ),
    ],
)
def test_a_failed_payment_is_an_error_object_beside_its_document(
    fake: Any, role: str, changes: dict[str, Any], *, retryable: bool, remediation: str
) -> None:
    failed = answers.FAILED | changes
    line = CommandLine(fake({"pay": failed}).datadir)
    result = line.run(role, "pay", answers.TEXT, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, failed)
    problem = json.loads(result.stderr)
    assert remediation in problem.pop("remediation")
    assert problem == {
        "code": "payment_failed",
        "message": f"not paid: {failed['failure']}",
        "retryable": retryable,
    }
    said = line.run(role, "pay", answers.TEXT)
    assert f"error: not paid: {failed['failure']}\n" in said.stderr


def test_a_payment_that_is_still_on_its_way_is_no_success_unless_nobody_waits(fake: Any) -> None:
    line = CommandLine(fake({"pay": answers.PENDING}).datadir)
    waited = line.run("client", "pay", answers.TEXT, "--wait-seconds", "2", "--json")
    assert (waited.exit_code, json.loads(waited.stderr)["code"]) == (1, "payment_pending")
    assert "after 2 s, 40,041,500 msat are still" in json.loads(waited.stderr)["message"]
    at_once = line.run("client", "pay", answers.TEXT, "--wait-seconds", "0")
    assert (at_once.exit_code, at_once.stderr) == (0, "")
    assert "on its way" in at_once.stdout


def test_a_payment_that_may_be_lost_is_called_neither_paid_nor_failed(fake: Any) -> None:
    line = CommandLine(fake({"pay": answers.UNKNOWN}).datadir)
    waited = line.run("client", "pay", answers.TEXT, "--json")
    error = json.loads(waited.stderr)
    assert (waited.exit_code, error["code"]) == (1, "payment_pending")
    assert error["message"] == (
        "unknown whether it was paid: up to 40,041,500 msat may be lost; "
        "the channel is over: the peer: no more"
    )
    shown = line.run("client", "pay", answers.TEXT, "--wait-seconds", "0").stdout
    assert "unknown: up to 40,041,500 msat may be lost" in shown
    assert "after height 1,234" in shown
    assert "the channel is over" in shown
    listed = {"payments": [{"number": 1, **answers.UNKNOWN}]}
    lists = CommandLine(fake({"payments": listed}).datadir)
    assert "unknown, may be lost" in lists.run("client", "payments").stdout


def test_empty_lists_are_said(fake: Any) -> None:
    total = dict.fromkeys((*answers.MONEY, "exit_sat"), 0)
    nothing = {"payments": [], "forwards": [], "n_forwards": 0, "earned_msat": 0}
    own = {
        "payments": nothing,
        "balance": {"channels": [], "total": total},
        "balances": {"channels": [], "total": total},
    }
    line = CommandLine(fake(own).datadir)
    assert line.run("client", "payments").stdout == "no payments\n"
    assert "nothing was forwarded" in line.run("lsp", "payments", "--limit", "3").stdout
    assert line.run("client", "balance").stdout == "no channels\n"
    assert line.run("lsp", "balances").stdout == "no channels\n"


def test_a_channel_that_failed_is_loud_wherever_it_is_listed(fake: Any) -> None:
    failed = answers.client_summary(channel_status="failed", channel_failed="it \x1b[31mlied")
    theirs = answers.lsp_summary(channels_failed={"2": "it lied"})
    balance = {
        "channels": [
            answers.client_channel(exit_sat=None, failed="it lied", blocks_to_exit_deadline=0)
        ],
        "total": answers.CLIENT_BALANCE["total"],
    }
    line = CommandLine(fake({"factories": {"factories": [failed]}, "balance": balance}).datadir)
    assert "live, channel failed: it ?[31mlied" in line.run("client", "factories").stdout
    shown = line.run("client", "balance").stdout
    assert "EXIT DEADLINE PASSED" in shown
    assert f"channel {answers.FACTORY_ID[:12]} failed: it lied" in shown
    lsp = CommandLine(fake({"factories": {"factories": [theirs]}}).datadir)
    assert "live, failed: client 2's channel" in lsp.run("lsp", "factories").stdout


def test_what_a_signed_close_allows_is_said(fake: Any) -> None:
    channel = answers.client_channel(exit_sat=0, close_limit_msat=99_000_001)
    balance = {"channels": [channel], "total": answers.CLIENT_BALANCE["total"]}
    line = CommandLine(fake({"balance": balance}).datadir)
    shown = " ".join(line.run("client", "balance").stdout.split())
    assert (
        f"in channel {answers.FACTORY_ID[:12]} no more than 99,000,001 msat can be yours: "
        "a close was signed that pays no more"
    ) in shown


def test_a_marked_channel_is_loud_wherever_it_is_listed(fake: Any) -> None:
    ours = answers.client_summary(channel_status="marked", channel_failed="the peer: no more")
    theirs = answers.lsp_summary(is_marked=True)
    why = "the store was restored from a backup"
    channel = answers.client_channel(status="marked", failed="the peer: no more", marked=why)
    balance = {"channels": [channel], "total": answers.CLIENT_BALANCE["total"]}
    line = CommandLine(fake({"factories": {"factories": [ours]}, "balance": balance}).datadir)
    listed = " ".join(line.run("client", "factories").stdout.split())
    assert "marked: restored from a backup" in listed
    shown = line.run("client", "balance").stdout
    assert f"channel {answers.FACTORY_ID[:12]} is marked: {why}" in shown
    assert "failed" not in shown
    lsp = CommandLine(fake({"factories": {"factories": [theirs]}}).datadir)
    assert "live, marked: restored" in " ".join(lsp.run("lsp", "factories").stdout.split())


def test_why_a_client_stays_beyond_its_deadline_is_said(fake: Any) -> None:
    for is_worth_it in (True, False):
        channel = answers.client_channel(
            exit_sat=0, blocks_to_exit_deadline=0, is_worth_an_exit=is_worth_it
        )
        balance = {"channels": [channel], "total": answers.CLIENT_BALANCE["total"]}
        line = CommandLine(fake({"balance": balance}).datadir)
        shown = " ".join(line.run("client", "balance").stdout.split())
        assert ("not worth leaving" in shown) is not is_worth_it


def test_that_somebody_leaves_is_said_wherever_a_factory_is_listed(fake: Any) -> None:
    beside = answers.client_summary(published=["kickoff_root", "state_root"])
    own_exit = answers.client_summary(
        published=["kickoff_root"], status="exiting", channel_status="exiting"
    )
    line = CommandLine(fake({"factories": {"factories": [beside, own_exit]}}).datadir)
    shown = line.run("client", "factories").stdout
    told = "live, channel open; somebody leaves: kickoff_root, state_root on chain"
    assert shown.count(told) == shown.count("somebody leaves") == 1
    one = answers.lsp_summary(published=["kickoff_root"])
    two = answers.lsp_summary(published=["kickoff_root", "state_root"], leaving=[1, 3])
    lsp = CommandLine(fake({"factories": {"factories": [one, two]}}).datadir)
    shown = lsp.run("lsp", "factories").stdout
    assert "live, being left: 1 transaction of the tree on chain" in shown
    assert (
        "live, being left: 2 transactions of the tree on chain, clients leaving or out: 1, 3"
        in shown
    )


def test_a_channel_that_is_settled_on_chain_shows_no_deadline(fake: Any) -> None:
    balance = {
        "channels": [answers.client_channel(exit_sat=5_000, blocks_to_exit_deadline=None)],
        "total": answers.CLIENT_BALANCE["total"],
    }
    line = CommandLine(fake({"balance": balance}).datadir)
    assert "does not expire" in line.run("client", "balance").stdout


def test_a_channel_that_its_client_moved_out_of_has_no_deadline_to_miss(fake: Any) -> None:
    moved = answers.client_channel(exit_sat=0, status="moved_out", blocks_to_exit_deadline=-3)
    balance = {"channels": [moved], "total": answers.CLIENT_BALANCE["total"]}
    shown = CommandLine(fake({"balance": balance}).datadir).run("client", "balance").stdout
    assert "moved_out" in shown
    assert "DEADLINE" not in shown


@pytest.mark.parametrize(
    ("words", "option", "below"),
    [
        ("client payments --status paid show", "--status", "show"),
        ("client payments --csv show", "--csv", "show"),
        ("client payments --direction out show", "--direction", "show"),
        ("client invoices --external-id a show", "--external-id", "show"),
        ("client invoices --limit 3 wait", "--limit", "wait"),
        ("lsp payments --label a show", "--label", "show"),
        ("lsp forwards --since 2026-01-01 show", "--since", "show"),
    ],
)
def test_an_option_of_a_list_is_refused_before_a_command_that_lists_nothing(
    fake: Any, words: str, option: str, below: str
) -> None:
    daemon = fake({})
    result = CommandLine(daemon.datadir).run(*words.split(), "11" * 32)
    assert result.exit_code == 2
    assert f"{option}: `{below}` has no use for it" in result.stderr
    assert daemon.calls == []


@pytest.mark.parametrize("status", ["open", "expired"])
def test_an_lsp_has_no_invoices_to_be_asked_for(tmp_path: Path, status: str) -> None:
    result = CommandLine(tmp_path).run("lsp", "payments", "--status", status)
    assert result.exit_code == 2
    assert "'paid', 'failed', 'pending', 'unknown'" in result.stderr


def test_a_payment_of_which_nothing_will_tell_is_an_error_that_waiting_does_not_mend(
    fake: Any,
) -> None:
    untold = answers.UNKNOWN | {
        "status": "unknown",
        "obstacle": "its channel is gone",
        "expiry_height": None,
    }
    line = CommandLine(fake({"pay": untold}).datadir)
    for seconds in ("0", "2"):
        result = line.run("client", "pay", answers.TEXT, "--wait-seconds", seconds, "--json")
        error = json.loads(result.stderr)
        assert (result.exit_code, error["code"], error["retryable"]) == (
            1,
            "payment_unknown",
            False,
        )
        assert "its channel is gone" in error["message"]
    shown = line.run("client", "pay", answers.TEXT).stdout
    assert "unknown: 40,041,500 msat may be lost: its channel is gone" in shown
