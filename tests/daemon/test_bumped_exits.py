"""Leaving on a node whose minimum rose above what was agreed: children pay, out of own coins."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.town import Town, town

from cromford.daemon.api.failures import ApiFailure

PAID_MSAT = 120_000_000
COIN_SAT = 100_000
HTLC_MSAT = 20_000_000


async def built(t: Town, *, with_coin: bool) -> str:
    """Build a factory in which alice owns something; with a coin of her own, or without."""
    for name in ("alice", "bob") if with_coin else ():
        await t.give(name, COIN_SAT)
    factory_id: str = await t.build("alice", "bob")
    invoice = (await t.call("alice", "invoice", amount_msat=PAID_MSAT))["invoice"]
    await t.call("lsp", "pay", invoice=invoice)
    t.mining_address = (await t.call("bob", "address"))["address"]  # Nobody's who leaves.
    return factory_id


def is_held(payments: Any) -> bool:
    """Say whether the newest payment waits for its payee."""
    forwards = payments["forwards"]
    return bool(forwards) and forwards[0]["status"] == "held"


def market(t: Town, *, minimum: str = "0", **estimates: str) -> None:
    """Set what the node asks for, in BTC for 1,000 virtual bytes."""
    t.node.call("setmempoolminimum", minimum)
    t.node.call(
        "setestimates", {target.removeprefix("n"): rate for target, rate in estimates.items()}
    )


async def left(t: Town, name: str, *, blocks_max: int = 60, **of_factory: str) -> dict[str, Any]:
    """Mine until an exit has ended in the wallet; return the balance."""
    for _ in range(blocks_max):
        await t.mine(1)
        await asyncio.sleep(0.3)  # What the block made due reaches the node.
        balance: dict[str, Any] = await t.call(name, "wallet_balance")
        status = await t.call(name, "exit_status", **of_factory)
        if status["next"].startswith("nothing") and balance["arriving_sat"] == 0:
            return balance
    raise AssertionError(f"{name} is still leaving: {status}")


def waits_for(name: str) -> Callable[[Any], bool]:
    """Return what says that a transaction waits in the node's mempool."""
    return lambda status: any(one["name"] == name and one["waits"] for one in status["waiting"])


@pytest.mark.sampled(0)
def test_with_a_coin_of_its_own_a_client_leaves_at_the_feerate_of_the_day(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=True)
            market(t, minimum="0.00003", n2="0.00020", n144="0.00010")
            plan = await t.call("alice", "exit_plan")
            assert plan["without_coins_sat_per_vb"] == 2.4
            assert plan["fees_today"]["feerate_sat_per_vb"] == 10
            assert plan["fees_today"]["short_sat"] == 0
            assert (await t.call("alice", "exit_start"))["exiting"]
            status = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            (kickoff,) = status["waiting"]
            assert (kickoff["name"], kickoff["child_is_ours"]) == ("kickoff_root", True)
            assert 10 <= kickoff["package_sat_per_vb"] < 10.2, "a day's estimate"
            balance = await left(t, "alice")
            # Three children lift three transactions from 2 to 10 sat/vB, and then there is a sweep.
            status = await t.call("alice", "exit_status")
            (told,) = [one for one in plan["fees_at"] if one["feerate_sat_per_vb"] == 10]
            # A child spends its parent's anchor, too.
            anchors_sat = 3 * 240
            assert status["children_cost_sat"] == told["children_sat"] - anchors_sat
            assert told["n_coins"] == 1
            cost_sat = COIN_SAT + PAID_MSAT // 1_000 - balance["confirmed_sat"]
            assert status["children_cost_sat"] + 1_000 < cost_sat < 12_000
            assert status["coins"] == [], "what was not needed is free again"
            assert balance["free_sat"] == balance["confirmed_sat"]

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_without_a_coin_a_client_leaves_as_soon_as_its_anchor_lifts_it_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=False)
            market(t, minimum="0.00003")
            await t.call("alice", "exit_start")
            status = await t.until("alice", "exit_status", lambda s: s["refused"])
            (refused,) = status["refused"]
            assert (refused["name"], refused["reason"]) == (
                "kickoff_root",
                "mempool min fee not met, 248 < 372",
            )
            # With its anchor it pays 2.58 sat/vB: as the minimum falls, it goes in by itself.
            market(t, minimum="0.000023")
            await t.mine(1)
            status = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            (kickoff,) = status["waiting"]
            assert kickoff["child_fee_sat"] == 240
            assert round(kickoff["package_sat_per_vb"], 1) == 2.6
            balance = await left(t, "alice")
            assert PAID_MSAT // 1_000 - 2_000 < balance["confirmed_sat"] < PAID_MSAT // 1_000

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_a_minimum_that_rises_in_the_middle_costs_a_child_and_no_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=True)
            await t.call("alice", "exit_start")
            status = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            (kickoff,) = status["waiting"]
            assert kickoff["child_txid"] is None, "2 sat/vB are enough today"
            market(t, minimum="0.00003")
            assert t.node.call("getrawmempool") == []
            await t.call("alice", "exit_start")  # Or the next block: it is asked again.
            status = await t.until("alice", "exit_status", lambda s: s["waiting"][0]["child_txid"])
            (kickoff,) = status["waiting"]
            assert kickoff["child_is_ours"]
            assert kickoff["package_sat_per_vb"] >= 6, "twice the minimum, without an estimate"
            await left(t, "alice")

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_a_crash_in_the_middle_forgets_no_coin_and_no_child(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=True)
            market(t, minimum="0.00003")
            await t.call("alice", "exit_start")
            before = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            await t.stop("alice")
            await t.start_alone("alice")
            after = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            assert after["coins"] == before["coins"]
            (kickoff,) = after["waiting"]
            assert kickoff["child_txid"] == before["waiting"][0]["child_txid"]
            balance = await t.call("alice", "wallet_balance")
            assert balance["free_sat"] == 0, "it is set aside"
            await left(t, "alice")

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_what_is_published_at_a_start_pays_what_the_node_asks_for_that_day(tmp_path: Path) -> None:
    """No block comes, and the market rose while the daemon was away."""

    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=True)
            market(t, minimum="0.00003")
            await t.call("alice", "exit_start")
            await t.until("alice", "exit_status", waits_for("kickoff_root"))
            await t.stop("alice")
            market(t, minimum="0.00020", n144="0.00040")
            assert t.node.call("getrawmempool") == []
            await t.start_alone("alice")
            status = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            (kickoff,) = status["waiting"]
            assert 40 <= kickoff["package_sat_per_vb"] < 41

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_an_exit_rests_until_it_is_taken_up_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=True)
            with pytest.raises(ApiFailure, match="no exit"):
                await t.call("alice", "exit_pause")
            market(t, minimum="0.00003")
            await t.call("alice", "exit_start")
            await t.until("alice", "exit_status", waits_for("kickoff_root"))
            assert (await t.call("alice", "exit_pause"))["paused"]
            await t.stop("alice")
            market(t)  # It waits no more: neither is it published again.
            t.node.call("setmempoolminimum", "1")
            t.node.call("setmempoolminimum", "0")
            assert t.node.call("getrawmempool") == []
            await t.start_alone("alice")
            await t.mine(3)
            status = await t.call("alice", "exit_status")
            assert (status["exiting"], status["paused"]) == (True, True)
            assert t.node.call("getrawmempool") == []
            await t.call("alice", "exit_start")
            assert not (await t.call("alice", "exit_status"))["paused"]
            await left(t, "alice")

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_an_lsp_brings_a_channel_on_chain_out_of_coins_of_its_house(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            factory_id = await built(t, with_coin=False)
            market(t, minimum="0.00003", n2="0.00020", n144="0.00010")
            await t.mine(1)
            await t.call("lsp", "exit_start", factory_id=factory_id, client=1)
            names = [one["event"] for one in await t.told("lsp")]
            assert names.count("coins_lent") == 1
            for _ in range(20):
                await t.mine(1)
                await asyncio.sleep(0.1)
                factory = (await t.call("lsp", "factories"))["factories"][0]
                published = set(factory["published"])
                if {"kickoff_root", "state_root"} <= published:
                    break
            assert {"kickoff_root", "state_root"} <= published
            await t.mine(8)
            await t.until(
                "lsp",
                "events",
                lambda a: [e["event"] for e in a["events"]].count("coins_returned") >= 3,
            )

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_an_htlc_that_comes_back_is_bumped_out_of_a_coin_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=True)
            invoice = (await t.call("bob", "invoice", amount_msat=HTLC_MSAT))["invoice"]
            await t.stop("bob")
            await t.call("alice", "pay", invoice=invoice, wait_seconds=0)
            await t.until("lsp", "payments", is_held)
            market(t, minimum="0.00003", n2="0.00020", n144="0.00010")
            await t.call("alice", "exit_start")
            timeout = None
            for _ in range(60):
                await t.mine(1)
                await asyncio.sleep(0.1)
                status = await t.call("alice", "exit_status")
                timeout = next((one for one in status["due"] if "timeout" in one["name"]), None)
                if timeout is not None:
                    break
            assert timeout is not None
            assert timeout["status"] == "wait", "it comes back after its expiry"
            before_sat = status["children_cost_sat"]
            await t.mine(timeout["height"] - t.node.call("getblockcount") - 1)
            status = await t.until("alice", "exit_status", lambda s: s["coins"])
            assert len(status["coins"]) == 1
            balance = await left(t, "alice")
            status = await t.call("alice", "exit_status")
            assert status["children_cost_sat"] > before_sat + 1_000
            cost_sat = COIN_SAT + PAID_MSAT // 1_000 - balance["confirmed_sat"]
            assert 0 < cost_sat < 25_000

    asyncio.run(main())
