"""What is said of a way out that is behind us: nothing more to pay, to watch, or at stake."""

import asyncio
from pathlib import Path

import pytest
from tests.daemon.test_bumped_exits import PAID_MSAT, built, left, market
from tests.daemon.town import town

from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.exiting.channel import RESOLVED_DEPTH


@pytest.mark.sampled(1)
def test_what_is_in_a_block_is_not_paid_for_again_nor_at_stake_nor_watched(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            first = await built(t, with_coin=True)
            market(t, n2="0.00020", n144="0.00010")
            second = await t.build("alice", "bob")
            before = await t.call("alice", "exit_plan", factory_id=first)
            assert before["fees_today"]["n_coins"] == 1
            status = await t.call("alice", "exit_status", factory_id=first)
            assert (status["over"], status["stake_sat"]) == (False, PAID_MSAT // MSAT_PER_SAT)
            await t.call("alice", "exit_start", factory_id=first)
            await t.until("alice", "exit_status", lambda s: s["waiting"], factory_id=first)
            await t.mine(1, mempool=2)
            plan = await t.call("alice", "exit_plan", factory_id=first)
            # Three children of like cost, and now two: the kickoff is in a block.
            ten, ten_before = plan["fees_at"][1], before["fees_at"][1]
            assert 0 < ten["children_sat"] < ten_before["children_sat"] * 3 / 4
            assert ten["coin_sat"] < ten_before["coin_sat"]
            assert plan["total_fee_sat"] == before["total_fee_sat"], "the path is what it is"
            await left(t, "alice", factory_id=first)
            plan = await t.call("alice", "exit_plan", factory_id=first)
            assert [fee["fee_sat"] for fee in plan["fees_at"]] == [0, 0, 0]
            assert (plan["fees_today"]["n_coins"], plan["fees_today"]["short_sat"]) == (0, 0)
            await t.mine(RESOLVED_DEPTH)
            status = await t.call("alice", "exit_status", factory_id=first)
            assert (status["over"], status["stake_sat"], status["budget_left_sat"]) == (True, 0, 0)
            assert status["children_cost_sat"] > 0
            # Of the other factory nothing was spent.
            other = await t.call("alice", "exit_status", factory_id=second)
            assert (other["over"], other["children_cost_sat"], other["coins"]) == (False, 0, [])
            looks = {
                one["factory_id"]: one["look_blocks"]
                for one in (await t.call("alice", "factories"))["factories"]
            }
            assert looks[first] is None
            assert looks[second] > 0

    asyncio.run(main())
