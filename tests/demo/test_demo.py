"""The demo, end to end: real processes, real sockets, Core's consensus code."""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.demo.conftest import DEMO_SECONDS, Demo, processes_naming

BUILDING = ["start", "gather", "place", "sign", "fund", "confirm", "verify"]
STEPS = [*BUILDING, "receive", "pay", "settle", "buy"]
PATIENCE_SECONDS = 60


def transactions_of(exported: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {tx["name"]: tx for tx in exported["transactions"]}


@pytest.mark.sampled(0)
def test_two_clients_pay_each_other_and_one_leaves_alone_into_its_wallet(
    demo: Demo, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    shape = ("--arity", "1", "--step-blocks", "3", "--states", "2", "--capacity-sat", "70000")
    paying = ("--payments", "6", "--seed", "7")
    shown = demo.document("--clients", "2", *shape, *paying, "--exit", "2", "--keep", str(kept))

    assert [step["name"] for step in shown["steps"]] == [*STEPS, "leave"]
    assert [client["status"] for client in shown["clients"]] == ["live", "live"]
    exported = shown["factory"]
    assert json.loads((kept / "export.json").read_text(encoding="utf-8")) == exported
    assert len(exported["transactions"]) == 6
    assert exported["funding"]["confirmations"] >= 3

    check_payments(shown["payments"], n=6, seed=7, capacity_sat=70_000)
    on_chain = shown["payments"]["on_chain"]
    assert (on_chain["funding_txid"], on_chain["n_transactions"]) == (
        exported["funding"]["txid"],
        1,
    )
    check_sale(shown, capacity_sat=70_000)
    check_exit(shown)

    logs = {path.name for path in (kept / "logs").iterdir()}
    assert logs == {"node.log", "lsp.log", "client-a.log", "client-b.log"}
    assert processes_naming(kept) == {}
    assert list(demo.temporary.iterdir()) == []
    explore_again(shown["explore"])


def check_payments(payments: dict[str, Any], *, n: int, seed: int, capacity_sat: int) -> None:
    """The accounts add up: each alone, all together, and with what the LSP earned."""
    assert (payments["n"], payments["seed"]) == (n, seed)
    assert payments["per_second"] > 0
    accounts = payments["accounts"]
    assert [account["client"] for account in accounts] == [1, 2]
    for account in accounts:
        got_msat = account["from_lsp_msat"] + account["received_msat"]
        assert got_msat - account["paid_msat"] - account["fees_msat"] == account["own_msat"]
        assert account["own_msat"] + account["lsp_msat"] == 1000 * capacity_sat
        assert account["spendable_msat"] == account["own_msat"] > 0
    assert sum(account["n_paid"] for account in accounts) == n
    assert sum(account["paid_msat"] for account in accounts) == payments["amount_msat"]
    fees_msat = sum(account["fees_msat"] for account in accounts)
    assert fees_msat == payments["fees_msat"] == payments["earned_msat"] > 0


def check_sale(shown: dict[str, Any], *, capacity_sat: int) -> None:
    """The one who leaves bought half of its leaf's stock before, and nothing went on chain."""
    sale, accounts = shown["sale"], shown["payments"]["accounts"]
    before, after = sale["before"], sale["after"]
    assert sale["amount_sat"] == capacity_sat // 4
    assert sale["capacity_sat"] == capacity_sat + sale["amount_sat"]
    assert before["own_msat"] == accounts[sale["client"] - 1]["own_msat"]
    assert before["own_msat"] - after["own_msat"] == sale["price_msat"] > 0
    assert after["own_msat"] + after["lsp_msat"] == 1000 * sale["capacity_sat"]
    assert after["receivable_msat"] > before["receivable_msat"] + 1000 * sale["amount_sat"] // 2
    assert sale["sales_left"] == 0
    assert sale["on_chain"]["n_transactions"] == 1


def check_exit(shown: dict[str, Any]) -> None:
    """The second client's exit went through all delays, and what was its own is in its wallet."""
    left, txs = shown["exit"], transactions_of(shown["factory"])
    path = ["kickoff_root", "state_root", "kickoff_1", "state_1 v1"]
    assert [tx["name"] for tx in left["transactions"]] == [*path, "commitment", "sweep"]
    assert [tx["txid"] for tx in left["transactions"][:4]] == [txs[name]["txid"] for name in path]
    heights = [tx["height"] for tx in left["transactions"]]
    assert (heights[1] - heights[0], heights[3] - heights[2]) == (3, 1)
    assert heights[5] - heights[4] == left["transactions"][5]["delay_blocks"] == 144
    channel = next(out for out in txs["state_1 v1"]["outputs"] if out["kind"] == "channel")
    assert left["channel"]["outpoint"] == f"{txs['state_1 v1']['txid']}:0"
    assert left["channel"]["amount_sat"] == channel["amount_sat"] == shown["sale"]["capacity_sat"]
    assert left["channel"]["script_pubkey"] == channel["script_pubkey"]
    assert left["channel"]["confirmations"] >= 1

    coin = left["coin"]
    assert left["balance_msat"] == shown["sale"]["after"]["own_msat"]
    assert coin["balance_sat"] == left["balance_msat"] // 1000
    assert coin["amount_sat"] == coin["balance_sat"] - coin["fee_sat"]
    assert coin["outpoint"] == f"{left['transactions'][5]['txid']}:0"
    assert 200 < coin["fee_sat"] < 400


@pytest.mark.sampled(0)
def test_without_payments_an_exit_ends_at_the_commitment_for_there_is_nothing_to_take(
    demo: Demo,
) -> None:
    shape = ("--step-blocks", "3", "--states", "2", "--fee-policy", "endogenous")
    shown = demo.document("--clients", "1", *shape, "--payments", "0", "--exit", "1")
    assert [step["name"] for step in shown["steps"]] == [*BUILDING, "settle", "leave"]
    assert [account["own_msat"] for account in shown["payments"]["accounts"]] == [0]
    left = shown["exit"]
    path = ["kickoff_root", "state_root", "commitment"]
    assert [tx["name"] for tx in left["transactions"]] == path
    assert (left["balance_msat"], left["coin"]) == (0, None)
    assert "ends at its confirmed commitment" in shown["steps"][-1]["outcome"]


@pytest.mark.sampled(0)
def test_channels_of_the_published_type_carry_payments_too(demo: Demo) -> None:
    shown = demo.document("--clients", "2", "--fee-policy", "ephemeral", "--seed", "3")
    check_payments(shown["payments"], n=4, seed=3, capacity_sat=1_000_000)
    assert shown["factory"]["terms"]["fee_policy"] == "ephemeral"


def explore_again(commands: list[dict[str, str]]) -> None:
    """What the demo says about a kept directory is true: it starts, and it answers."""
    lines = [shlex.split(entry["command"]) for entry in commands]
    n_daemons = 3
    running: list[subprocess.Popen[bytes]] = []
    try:
        for line in lines[:n_daemons]:
            running.append(
                subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            if line is lines[0]:
                cookie = Path(lines[1][lines[1].index("--chain-cookie") + 1])
                wait_until(cookie.exists)
        for line in lines[n_daemons:]:
            wait_until(partial(answers, line))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=30)


def answers(line: list[str]) -> bool:
    done = subprocess.run(line, capture_output=True, check=False, timeout=30)
    return done.returncode == 0 and bool(done.stdout)


def wait_until(happened: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.sampled(0)
def test_a_single_client_gets_a_factory_and_money_and_people_can_read_it(demo: Demo) -> None:
    process = demo.start("--clients", "1")
    stdout, stderr = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == 0, stderr
    for text in (
        "kickoff_root  1,501,062 sat, no delay, fee 248 sat, signers LSP, 1",
        "delay 288 blocks (state 1)",
        "channel of client 1  1,250,000 sat",
        "L-stock of the LSP  250,000 sat",
        "tree fees",
        "client 1: 2 transactions, 291 vB, fees 582 sat, paid in advance, 288 blocks of delay; ",
        "; then 491,040 sat in its wallet, 145 blocks after the channel",
        "1 (client-a)  495,000,000   0         0     0     495,000,000  495,000,000  505,000,000",
        "the LSP earned 0 sat",
        "one on-chain transaction in all: ",
        "before  495,000,000  495,000,000  ",
        "after   491,300,694  491,300,694",
        "250,000 sat of the leaf's stock for 3,699,306 msat, usable for 13,389 blocks",
        "still one on-chain transaction: ",
        "cromford demo --keep DIR",
    ):
        assert text in stdout
    for text in (
        "rank 1",
        "every client holds its whole way out",
        "3 confirmations",
        "the LSP paid client 1 495,000 sat",
        "skipped: a single client has nobody to pay",
        "no millisatoshi is lost, and 1 payment took no transaction",
    ):
        assert text in stderr
    assert list(demo.temporary.iterdir()) == []


def begun(process: subprocess.Popen[str], step: str) -> None:
    """Return when the demo says that a step has begun."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(step):
            return
    raise AssertionError(process.wait())


@pytest.mark.sampled(0)
def test_when_a_process_dies_the_demo_says_which_and_leaves_nothing_behind(demo: Demo) -> None:
    process = demo.start("--clients", "2")
    begun(process, "gather")
    running = processes_naming(demo.temporary)
    lsp = next(pid for pid, command in running.items() if " lsp run " in command)
    assert len(running) == 4
    os.kill(lsp, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == 1
    assert stdout == ""
    assert "error: lsp ended with code -9; its log ends with" in stderr
    assert processes_naming(demo.temporary) == {}
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(demo: Demo, number: signal.Signals) -> None:
    process = demo.start("--clients", "2")
    begun(process, "start")
    wait_until(lambda: processes_naming(demo.temporary))
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.endswith("error: interrupted\n")
    assert processes_naming(demo.temporary) == {}
    assert list(demo.temporary.iterdir()) == []
