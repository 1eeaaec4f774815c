"""One client leaves on a real chain, with nothing: the other goes on, moves, and leaves later."""

import asyncio
import logging
from pathlib import Path

import pytest
from tests.daemon.test_payments import ALLOWANCE_MSAT, invoice_of, with_money
from tests.daemon.town import Town, town

from cromford.channel.terms import MSAT_PER_SAT

MOVED_MSAT = 60_000_000
SWEEP_SAT = 400  # More than a sweep of one output costs.


async def check_that_everybody_is_told(t: Town, factory_id: str) -> None:
    """Alice's views, the LSP's, and the events of both say that the root is on chain."""
    told = {"factory_id": factory_id, "published": ["kickoff_root"]}
    for name, more in (
        ("alice", {"status": "live", "channel_status": "open", "is_exiting": False}),
        ("lsp", {"status": "live", "leaving": []}),
    ):
        (factory,) = (await t.call(name, "factories"))["factories"]
        assert told | more == {key: factory[key] for key in told | more}
        events = [one for one in await t.told(name) if one["event"] == "tree_published"]
        assert [one["transactions"] for one in events] == [["kickoff_root"]]
        assert {one["attempt_id"] for one in events} == {factory_id}


@pytest.mark.sampled(0)
def test_a_client_without_a_balance_leaves_and_its_neighbour_loses_nothing_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def scenario(t: Town) -> None:
        old = await with_money(t)
        await t.call("bob", "exit_start")
        await t.mine(1, mempool=1)
        await check_that_everybody_is_told(t, old)
        lines = [one.message for one in caplog.records if "tree_published" in one.message]
        assert len(lines) == 3, "Alice's, Bob's and the LSP's"
        assert all(f"factory={old}" in line and "kickoff_root" in line for line in lines)

        await t.build("bob")
        invoice = await invoice_of(t, "bob", MOVED_MSAT)
        moved = await t.call("alice", "pay", invoice=invoice, factory_id=old)
        assert (moved["status"], moved["factory_id"]) == ("paid", old)

        await t.mine(1, mempool=1)
        await t.mine(6, mempool=1)
        (factory,) = (await t.call("alice", "factories"))["factories"]
        assert factory["published"] == ["kickoff_root", "state_root"]
        assert factory["exit_deadline_height"] is None
        assert (factory["exit_blocks"], factory["channel_status"]) == (6, "open")
        again = await invoice_of(t, "bob", 1_000_000)
        paid = await t.call("alice", "pay", invoice=again, factory_id=old)
        assert paid["status"] == "paid"
        left_msat = ALLOWANCE_MSAT - moved["total_msat"] - paid["total_msat"]
        balance = await t.until(
            "alice",
            "balance",
            lambda b: [one["own_msat"] for one in b["channels"]] == [left_msat],
        )
        assert balance["channels"][0]["blocks_to_exit_deadline"] is None

        await t.call("alice", "exit_start", factory_id=old)
        await t.mine(1, mempool=1)  # The commitment, and nothing else is missing.
        await t.mine(4)
        await t.mine(1, mempool=1)
        swept = await t.until("alice", "wallet_balance", lambda b: b["confirmed_sat"])
        left_sat = left_msat // MSAT_PER_SAT
        assert left_sat - SWEEP_SAT < swept["confirmed_sat"] < left_sat

    async def main() -> None:
        async with town(tmp_path) as built:
            await scenario(built)

    asyncio.run(main())
