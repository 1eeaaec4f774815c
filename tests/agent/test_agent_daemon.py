"""The exit agent for real: a factory on the embedded chain, its client gone for good."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.answers.fitting import declared
from tests.daemon.test_expiry_sweeps import HASTY, SHORT
from tests.daemon.town import STEP_SECONDS, Town, town

from cromford.adapters.sqlite import Journal
from cromford.agent.agentd import AgentDaemon
from cromford.agent.options import AgentOptions
from cromford.answers.index import AGENT_ANSWERS
from cromford.bitcoin.network import REGTEST
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.options import ChainOptions
from cromford.factory.terms import FeePolicy
from cromford.ports import StoreFailed, StoreInUse
from cromford.protocol.policy import LspPolicy

DEEP = replace(SHORT, leaf_arity=1)  # Each client has a leaf of its own below the root.
Scenario = Callable[[Town], Awaitable[None]]


def in_town(base: Path, scenario: Scenario, *, lsp_policy: LspPolicy = DEEP) -> None:
    async def main() -> None:
        async with town(base, lsp_policy=lsp_policy, client_policy=HASTY) as built:
            await scenario(built)

    asyncio.run(main())


async def exported(t: Town, name: str) -> str:
    return json.dumps(await t.call(name, "exit_export"))


async def held(t: Town) -> dict[str, Any]:
    """Return the one package that the agent holds."""
    (package,) = (await t.call("agent", "list"))["packages"]
    shown: dict[str, Any] = package
    return shown


def waiting(t: Town) -> set[str]:
    return set(t.node.call("getrawmempool"))


def is_unspent(t: Town, outpoint: str) -> bool:
    txid, vout = outpoint.split(":")
    return t.node.call("gettxout", txid, int(vout), False) is not None


async def mine_to(t: Town, height: int) -> None:
    await t.mine(height - int(t.node.call("getblockcount")))


async def lose_a_client_to_an_agent(t: Town) -> None:
    """Hand the package of a client to an agent, lose the client, and see its channel on chain.

    With a restart in the middle, and a reorganisation.
    """
    await t.build("alice", "bob")
    channel = (await t.call("alice", "factory"))["channel_outpoint"]
    package = await exported(t, "alice")
    await t.start_agent()
    added = await t.call("agent", "add", package=package)
    assert (added["added"], added["status"], added["refused"]) == (True, "waiting", None)
    assert added["channel_outpoint"] == channel
    assert added["exit_deadline_height"] == added["expiry_height"] - added["exit_blocks"] - 144
    names = [step["name"] for step in added["steps"]]
    txids = [step["txid"] for step in added["steps"]]
    assert names[:3] == ["kickoff_root", "state_root", names[2]]
    assert len(names) == 4
    for name in ("alice", "bob", "lsp"):  # Who would publish the root's state, too.
        await t.stop(name)

    # Not a block too early.
    await mine_to(t, added["exit_deadline_height"] - 1)
    assert (await held(t))["next"].startswith("publish kickoff_root at height")
    assert waiting(t) == set()
    await t.mine(1)
    assert (await held(t))["status"] == "publishing"
    assert waiting(t) == {txids[0]}

    # It is off while the delay runs, and goes on when it is back.
    await t.mine(1, mempool=1)
    await t.stop("agent")
    await t.mine(5)
    assert waiting(t) == set()
    await t.start_agent()
    shown = await t.until("agent", "list", lambda a: a["packages"][0]["status"] == "publishing")
    assert shown["packages"][0]["begun_height"] == added["exit_deadline_height"]
    await t.mine(1, mempool=1)
    assert is_unspent(t, f"{txids[1]}:0")

    # A reorganisation takes the state back, and its block is not the one that comes again.
    t.node.call("invalidateblock", t.node.call("getbestblockhash"))
    assert not is_unspent(t, f"{txids[1]}:0")
    await t.mine(2, mempool=1)
    for _ in range(12):
        if is_unspent(t, channel):
            break
        await t.mine(1)
    assert is_unspent(t, channel)
    end = await held(t)
    assert end["status"] == "on_chain"
    assert [step["status"] for step in end["steps"]] == ["confirmed"] * 4
    assert t.node.call("getblockcount") < added["expiry_height"] - 144


@pytest.mark.sampled(0)
def test_an_agent_brings_the_channel_of_a_lost_client_on_chain_at_its_deadline(
    tmp_path: Path,
) -> None:
    in_town(tmp_path, lose_a_client_to_an_agent)


@pytest.mark.sampled(0)
def test_a_package_that_was_withdrawn_is_never_broadcast(tmp_path: Path) -> None:
    async def scenario(t: Town) -> None:
        await t.build("alice", "bob")
        await t.start_agent()
        packages = {name: await exported(t, name) for name in ("alice", "bob")}
        added = {n: await t.call("agent", "add", package=p) for n, p in packages.items()}
        channels = {name: added[name]["channel_outpoint"] for name in added}
        for name in ("alice", "bob"):
            await t.stop(name)
        deadline = added["alice"]["exit_deadline_height"]
        await mine_to(t, deadline - 1)
        answer = await t.call("agent", "withdraw", package_id=added["alice"]["package_id"][:8])
        assert answer == {
            "withdrawn": True,
            "package_id": added["alice"]["package_id"],
            "begun_height": None,
        }
        assert (await held(t))["package_id"] == added["bob"]["package_id"]
        with pytest.raises(ApiFailure, match="no package begins with"):
            await t.call("agent", "withdraw", package_id=added["alice"]["package_id"])
        # Also not by an agent that starts anew, and also not when the other one's way is open.
        await t.stop("agent")
        await t.start_agent()
        seen: set[str] = set()
        while not is_unspent(t, channels["bob"]):
            await t.mine(1)
            seen |= waiting(t)
            assert t.node.call("getblockcount") < added["bob"]["expiry_height"]
        await t.mine(20)
        alone = {step["txid"] for step in added["alice"]["steps"]} - {
            step["txid"] for step in added["bob"]["steps"]
        }
        assert len(alone) == 2
        assert not alone & (seen | waiting(t))
        assert seen == {step["txid"] for step in added["bob"]["steps"]}
        (kickoff, _) = [s for s in added["alice"]["steps"] if s["txid"] in alone]
        assert t.node.call("gettxout", kickoff["txid"], 0) is None

    in_town(tmp_path, scenario)


@pytest.mark.sampled(0)
def test_who_leaves_first_takes_nobody_along_and_the_way_is_open_for_the_others(
    tmp_path: Path,
) -> None:
    """The root is on chain long before the deadline: what is below it waits for its own."""

    async def scenario(t: Town) -> None:
        await t.build("alice", "bob")
        await t.start_agent()
        added = await t.call("agent", "add", package=await exported(t, "alice"))
        await t.stop("alice")
        await t.call("agent", "add", package=await exported(t, "bob"))
        await t.call("bob", "exit_start")
        bobs = await exported(t, "bob")
        assert "commitment" in json.loads(bobs)
        assert (await t.call("bob", "exit_plan"))["steps"][-1]["name"] != "commitment"
        txids = [step["txid"] for step in added["steps"]]
        while not is_unspent(t, f"{txids[1]}:0"):
            await t.mine(1)
        # What is held may get its commitment though it is under way: then it goes to the end.
        again = await t.call("agent", "add", package=bobs)
        assert (again["added"], again["has_commitment"]) == (False, True)
        assert again["status"] == "publishing"
        assert (await t.call("agent", "withdraw", package_id=again["package_id"]))["begun_height"]
        await t.mine(8)
        shown = await held(t)
        assert (shown["status"], shown["begun_height"]) == ("waiting", None)
        assert shown["exit_deadline_height"] > added["exit_deadline_height"]
        assert txids[2] not in waiting(t)
        # What is half published is not taken: nothing says any more when its funding expired.
        with pytest.raises(ApiFailure, match="to be confirmed and unspent") as refused:
            await t.call("agent", "add", package=bobs)
        assert refused.value.code == "funding_not_unspent"
        await mine_to(t, shown["exit_deadline_height"])
        assert (await held(t))["begun_height"] == shown["exit_deadline_height"]
        while not is_unspent(t, shown["channel_outpoint"]):
            await t.mine(1)
            assert t.node.call("getblockcount") < added["expiry_height"] - 144

    in_town(tmp_path, scenario)


@pytest.mark.sampled(0)
def test_what_is_not_in_order_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario(t: Town) -> None:
        await t.build("alice")
        package = await exported(t, "alice")
        await t.start_agent()
        before = await t.call("agent", "list")
        document = json.loads(package)
        document["funding"]["expiry_height"] += 1
        edited = json.dumps(document)
        for given, said in (
            ("nothing", "package: expected one JSON document"),
            (edited, "funding.script_pubkey: expected "),
            (package.replace('"regtest"', '"signet"'), "network: expected regtest"),
            (package[:-1], "package: expected one JSON document"),
            ("\ud800", "package: expected UTF-8"),
        ):
            with pytest.raises((ApiFailure, UnicodeEncodeError)) as refused:
                await t.call("agent", "add", package=given)
            if isinstance(refused.value, ApiFailure):
                assert refused.value.code == "package_invalid"
                assert str(refused.value).startswith(said)
        assert await t.call("agent", "list") == before
        assert before["packages"] == []

        assert (await t.call("agent", "add", package=package))["added"]
        assert not (await t.call("agent", "add", package=package))["added"]
        status = await t.call("agent", "status")
        assert (status["kind"], status["n_packages"]) == ("coinless", 1)
        shown = await held(t)
        assert status["next_deadline_height"] == shown["exit_deadline_height"]
        assert shown["passes_now"] is True
        assert status["mempool_min_sat_per_vb"] < shown["lowest_feerate_sat_per_vb"] == 2

    in_town(tmp_path, scenario, lsp_policy=SHORT)


def test_a_home_belongs_to_one_daemon(tmp_path: Path) -> None:
    async def scenario(t: Town) -> None:
        await t.start_agent()
        with pytest.raises(StoreInUse):
            await t.start_agent()
        with pytest.raises(StoreInUse):
            await t.start_agent("lsp")
        await t.stop("agent")
        with pytest.raises(Exception, match="the journal does not begin with its creation"):
            await t.start_alone("agent")
        await t.start_client("alice")
        await t.stop("alice")
        with pytest.raises(StoreFailed, match="expected the journal of an agent on regtest"):
            await t.start_agent("alice")
        await t.start_agent()

    in_town(tmp_path, scenario)


def test_an_agent_without_coins_takes_nothing_that_needs_them(tmp_path: Path) -> None:
    """What pays no fee itself goes nowhere without a child: better refused than pretended."""

    async def scenario(t: Town) -> None:
        await t.give("alice", 20_000)
        await t.build("alice")
        await t.start_agent()
        with pytest.raises(ApiFailure, match="kickoff_root pays no fee itself") as refused:
            await t.call("agent", "add", package=await exported(t, "alice"))
        assert refused.value.code == "needs_coins"
        assert (await t.call("agent", "list"))["packages"] == []

    policy = replace(SHORT, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0)

    async def main() -> None:
        client_policy = replace(HASTY, fee_policies=(FeePolicy.EPHEMERAL,))
        async with town(tmp_path, lsp_policy=policy, client_policy=client_policy) as built:
            await scenario(built)

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_an_agent_that_is_killed_holds_what_it_had_said_to_hold(tmp_path: Path) -> None:
    """As a process of its own, with no time to close anything; a signal stops the second one."""

    def start(t: Town) -> subprocess.Popen[bytes]:
        place = ("--datadir", str(t.base / "agent"), "--network", "regtest")
        chain = ("--chain-url", t.node.url, "--chain-cookie", str(t.node.cookie_file))
        words = ("agent", "run", *place, *chain, "--log-level", "error")
        return subprocess.Popen([sys.executable, "-P", "-m", "cromford", *words])

    async def until_it_answers(t: Town) -> dict[str, Any]:
        async with asyncio.timeout(STEP_SECONDS):
            while True:
                with contextlib.suppress(ApiFailure):
                    status: dict[str, Any] = await t.call("agent", "status")
                    return status
                await asyncio.sleep(0.05)

    async def scenario(t: Town) -> None:
        await t.build("alice")
        package = await exported(t, "alice")
        running = start(t)
        try:
            await until_it_answers(t)
            added = await t.call("agent", "add", package=package)
            running.kill()
            await asyncio.to_thread(running.wait)
            running = start(t)
            assert (await until_it_answers(t))["n_packages"] == 1
            assert (await held(t))["package_id"] == added["package_id"]
        finally:
            running.terminate()
            assert await asyncio.to_thread(running.wait) == 0

    in_town(tmp_path, scenario, lsp_policy=SHORT)


def test_an_agent_whose_disk_refuses_says_so_and_stops(tmp_path: Path) -> None:
    """What it would say from then on might not be so after the next start."""

    async def scenario(t: Town) -> None:
        await t.build("alice")
        package = await exported(t, "alice")
        await t.start_agent()
        with pytest.MonkeyPatch.context() as patch:

            def full(*_: object) -> None:
                raise StoreFailed("no room")

            patch.setattr(Journal, "replace_checkpoint", full)
            with pytest.raises(ApiFailure, match="no room") as refused:
                await t.call("agent", "add", package=package)
            assert refused.value.code == "store_failed"
            with pytest.raises(StoreFailed, match="no room"):
                await t.agents.pop("agent")
        await t.start_agent()
        assert (await t.call("agent", "list"))["packages"] == []

    in_town(tmp_path, scenario, lsp_policy=SHORT)


def test_each_method_is_declared_to_answer_as_the_index_says(tmp_path: Path) -> None:
    chain = ChainOptions(url="http://127.0.0.1:1", cookie_file=tmp_path / "none")
    agent = AgentDaemon(AgentOptions(datadir=tmp_path / "agent", network=REGTEST, chain=chain))
    methods = agent.methods()
    assert {method: declared(handler) for method, handler in methods.items()} == AGENT_ANSWERS


def test_what_is_in_order_and_not_taken_is_told_why(tmp_path: Path) -> None:
    async def scenario(t: Town) -> None:
        await t.build("alice", "bob")
        alice, bob = [{"package": await exported(t, name)} for name in ("alice", "bob")]
        options = AgentOptions(
            datadir=tmp_path / "small", network=REGTEST, chain=t.chain(), packages_max=1
        )
        small = AgentDaemon(options)
        assert await small.methods()["add"](alice)
        with pytest.raises(ApiFailure, match="holds 1 packages, its most") as refused:
            await small.methods()["add"](bob)
        assert refused.value.code == "agent_full"
        nowhere = replace(t.chain(), url="http://127.0.0.1:1")
        away = AgentDaemon(replace(options, datadir=tmp_path / "away", chain=nowhere))
        with pytest.raises(ApiFailure) as refused:
            await away.methods()["add"](alice)
        assert (refused.value.code, refused.value.retryable) == ("chain_unavailable", True)
        assert await away.methods()["list"]({}) == {"kind": "coinless", "packages": []}

    in_town(tmp_path, scenario)


@pytest.mark.sampled(0)
def test_an_agents_anchors_lift_a_package_over_a_minimum_that_it_does_not_pay(
    tmp_path: Path,
) -> None:
    async def scenario(t: Town) -> None:
        await t.build("alice", "bob")
        package = await exported(t, "alice")
        await t.start_agent()
        added = await t.call("agent", "add", package=package)
        for name in ("alice", "bob", "lsp"):
            await t.stop(name)
        t.node.call("setmempoolminimum", "0.000023")  # The tree pays 2 sat/vB.
        await mine_to(t, added["exit_deadline_height"])
        shown = await held(t)
        assert shown["passes_now"] is True
        assert shown["lowest_feerate_sat_per_vb"] == 2
        assert 2.3 <= shown["with_anchors_sat_per_vb"] < 2.5
        (kickoff,) = (one for one in waiting(t) if one == shown["steps"][0]["txid"])
        entry = t.node.call("getmempoolentry", kickoff)
        assert entry["descendantcount"] == 2
        for _ in range(30):
            await t.mine(1)
            if is_unspent(t, added["channel_outpoint"]):
                return
        raise AssertionError((await held(t))["next"])

    in_town(tmp_path, scenario)
