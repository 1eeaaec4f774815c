"""`client exit export` and `client exit broadcast`, typed beside a node: every daemon is down.

The command line runs in a thread of its own, as it would in a process of its own.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.agent.test_agent_daemon import DEEP, exported, in_town, is_unspent, waiting
from tests.daemon.test_expiry_sweeps import SHORT
from tests.daemon.town import STEP_SECONDS, Town

from cromford.bitcoin.tx import Tx
from cromford.cli.main import cromford

PAID_MSAT = 60_000_000


def typed(t: Town, *words: str) -> Result:
    return CliRunner().invoke(cromford, [*words, "--json"], env={"HOME": str(t.base)})


def chain_of(t: Town, url: str | None = None) -> tuple[str, ...]:
    where = ("--chain-url", url or t.node.url, "--chain-cookie", str(t.node.cookie_file))
    return (*where, "--network", "regtest")


async def broadcast(t: Town, file: Path, *more: str, url: str | None = None) -> Result:
    pause = ("--poll-seconds", "0.05") if "--watch" in more else ()
    words = ("client", "exit", "broadcast", str(file), "--yes", *chain_of(t, url), *pause, *more)
    return await asyncio.to_thread(typed, t, *words)


async def once(t: Town, file: Path) -> dict[str, Any]:
    result = await broadcast(t, file)
    assert (result.exit_code, result.stderr) == (0, "")
    document: dict[str, Any] = json.loads(result.stdout)
    return document


async def export_to(t: Town, name: str, file: Path) -> None:
    """Export as a user does, by the command line of a client that runs."""
    words = ("client", "exit", "export", "--datadir", str(t.base / name), "--network", "regtest")
    result = await asyncio.to_thread(typed, t, *words)
    assert (result.exit_code, result.stderr) == (0, "")
    await asyncio.to_thread(file.write_text, result.stdout, encoding="utf-8")
    assert json.loads(result.stdout) == json.loads(await exported(t, name))


async def leave_by_hand(t: Town) -> None:
    """Leave with a file and a node: some steps one by one, the rest watched, all daemons down."""
    await t.build("alice", "bob")
    channel = (await t.call("alice", "factory"))["channel_outpoint"]
    file = t.base / "alice.json"
    await export_to(t, "alice", file)
    for name in ("alice", "bob", "lsp"):
        await t.stop(name)
    document = await once(t, file)
    kickoff = document["steps"][0]
    assert (kickoff["name"], kickoff["status"]) == ("kickoff_root", "published")
    assert (document["channel_outpoint"], document["is_expiry_checked"]) == (channel, True)
    assert (
        document["exit_deadline_height"]
        == document["expiry_height"] - 144 - (document["exit_blocks"])
    )
    assert waiting(t) == {kickoff["txid"]}
    assert (await once(t, file))["steps"] == document["steps"]
    await t.mine(1, mempool=1)
    # The state may be in the fourth block: in the second and third nothing is to be done.
    state = document["steps"][1]
    assert state["delay_blocks"] == 4
    height = int(t.node.call("getblockcount")) + 4
    for _ in range(3):
        document = await once(t, file)
        assert document["next"] == f"publish state_root, which can be in block {height}"
        assert waiting(t) == set()
        await t.mine(1)
    assert (await once(t, file))["steps"][1]["status"] == "published"
    assert waiting(t) == {state["txid"]}
    await t.mine(1, mempool=1)

    watching = asyncio.create_task(broadcast(t, file, "--watch"))
    async with asyncio.timeout(STEP_SECONDS):
        while not watching.done():
            await asyncio.sleep(0.1)
            await t.mine(1)
    result = await watching
    assert (result.exit_code, result.stderr) == (0, "")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [step["status"] for step in told[-1]["steps"]] == ["confirmed"] * 4
    assert told[-1]["next"].startswith("nothing: the channel's output is on chain since block")
    assert is_unspent(t, channel)
    assert (await once(t, file))["status"] == "on_chain"


@pytest.mark.sampled(0)
def test_a_client_leaves_with_a_file_and_a_node(tmp_path: Path) -> None:
    in_town(tmp_path, leave_by_hand, lsp_policy=DEEP)


def test_an_exit_that_was_started_is_brought_to_its_commitment_by_anybody(tmp_path: Path) -> None:
    """And its owner, back one day, finds the balance in the wallet."""

    async def scenario(t: Town) -> None:
        await t.build("alice")
        await t.until("alice", "factory", lambda a: a["channel_status"] == "open")
        invoice = (await t.call("alice", "invoice", amount_msat=PAID_MSAT))["invoice"]
        assert "commitment" not in json.loads(await exported(t, "alice"))
        await t.call("lsp", "pay", invoice=invoice)
        await t.until("alice", "balance", lambda b: b["total"]["own_msat"] == PAID_MSAT)
        before = await exported(t, "alice")
        assert "commitment" not in json.loads(before)
        await t.call("alice", "exit_start")
        file = t.base / "leaving.json"
        await export_to(t, "alice", file)
        after = json.loads(file.read_text(encoding="utf-8"))
        commitment = after.pop("commitment")
        assert after == json.loads(before)
        planned = (await t.call("alice", "exit_plan"))["channel"]["exit_sat"]
        await t.stop("alice")
        await t.stop("lsp")
        # What a person reads.
        words = ("client", "exit", "broadcast", str(file), "--yes", *chain_of(t))
        read = await asyncio.to_thread(CliRunner().invoke, cromford, words)
        assert (read.exit_code, read.stderr) == (0, "")
        assert "kickoff_root is published and waits for a block" in read.stdout
        assert re.search(r"commitment +\d+ vB +[\d,]+ sat +0 blocks +later", read.stdout)
        txid = Tx.parse(bytes.fromhex(commitment)).txid
        async with asyncio.timeout(STEP_SECONDS):
            while (await once(t, file))["steps"][-1]["status"] != "confirmed":
                await t.mine(1)
        assert any(is_unspent(t, f"{txid}:{n}") for n in range(3))
        await t.mine(5)
        read = await asyncio.to_thread(CliRunner().invoke, cromford, [*words, "--watch"])
        assert (read.exit_code, read.stderr) == (0, "")
        height = t.node.call("getblockcount")
        end = "nothing: the channel is on chain, and its output was spent"
        assert read.stdout == f"height {height}: {end}\n"
        await t.start_alone("alice")  # Her delay is over by now.
        await t.mine(1, mempool=1)
        coins = (await t.call("alice", "wallet_coins"))["coins"]
        assert [coin["amount_sat"] for coin in coins] == [planned]
        assert 59_000 < planned < 60_000

    in_town(tmp_path, scenario, lsp_policy=SHORT)


def test_what_is_wrong_with_a_file_is_said_before_anything_is_asked_or_published(
    tmp_path: Path,
) -> None:
    async def scenario(t: Town) -> None:
        await t.build("alice")
        file = t.base / "alice.json"
        await export_to(t, "alice", file)
        package = file.read_text(encoding="utf-8")
        for changed, code, said in (
            (package.replace('"version": 1', '"version": 2'), 2, "version: expected 1, received 2"),
            (package.replace('"regtest"', '"mainnet"'), 2, "network: expected regtest, received m"),
            (package[: len(package) // 2], 2, "package: expected one JSON document"),
            ("x" * 1_100_000, 2, "package: expected at most 1048576 bytes"),
        ):
            file.write_text(changed, encoding="utf-8")
            result = await broadcast(t, file)
            error = json.loads(result.stderr)
            assert (result.exit_code, error["code"]) == (code, "package_invalid")
            assert error["message"].startswith(said)
        result = await broadcast(t, t.base / "nowhere.json")
        assert (result.exit_code, json.loads(result.stderr)["code"]) == (4, "package_not_found")
        file.write_text(package, encoding="utf-8")
        words = ("client", "exit", "broadcast", str(file), *chain_of(t))
        result = await asyncio.to_thread(typed, t, *words)
        assert (result.exit_code, json.loads(result.stderr)["code"]) == (5, "needs_confirmation")
        result = await broadcast(t, file, url="http://127.0.0.1:1")
        assert (result.exit_code, json.loads(result.stderr)["code"]) == (1, "chain_unavailable")
        assert waiting(t) == set()
        # A package whose funding is nowhere on this chain.
        tip = t.node.call("getblockhash", t.node.call("getblockcount") - 2)
        t.node.call("invalidateblock", tip)
        result = await broadcast(t, file)
        assert (result.exit_code, json.loads(result.stderr)["code"]) == (1, "nothing_found")
        result = await broadcast(t, file, "--watch")
        assert (result.exit_code, json.loads(result.stderr)["code"]) == (1, "nothing_found")
        t.node.call("reconsiderblock", tip)

    in_town(tmp_path, scenario, lsp_policy=SHORT)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("what", ["edited", "whole"])
def test_the_agents_own_commands_are_the_same_for_people_and_machines(
    tmp_path: Path, what: str
) -> None:
    async def scenario(t: Town) -> None:
        await t.build("alice")
        await t.start_agent()
        file = t.base / "alice.json"
        await export_to(t, "alice", file)
        if what == "edited":
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace('"vout": 0', '"vout": 1', 1), encoding="utf-8")
        place = ("--datadir", str(t.base / "agent"), "--network", "regtest")

        async def agent(*words: str) -> Any:
            result = await asyncio.to_thread(typed, t, "agent", *words, *place)
            return json.loads(result.stdout or result.stderr), result.exit_code

        added, code = await agent("add", str(file))
        if what == "edited":
            assert (added["code"], code) == ("package_invalid", 2)
            assert added["message"].startswith("transactions[0].inputs: expected ")
            assert (await agent("list"))[0]["packages"] == []
            return
        assert (added["status"], code) == ("waiting", 0)
        assert added.pop("added")
        assert (await agent("list"))[0] == {"kind": "coinless", "packages": [added]}
        status, _ = await agent("status")
        assert (status["role"], status["kind"], status["n_packages"]) == ("agent", "coinless", 1)
        missing, code = await agent("withdraw", "abcdef")
        assert (missing["code"], code) == ("package_not_found", 4)
        given_back, code = await agent("withdraw", added["package_id"])
        assert (given_back["withdrawn"], code) == (True, 0)
        assert (await agent("list"))[0]["packages"] == []

    in_town(tmp_path, scenario, lsp_policy=SHORT)
