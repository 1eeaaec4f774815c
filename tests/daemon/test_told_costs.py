"""What `exit plan` and docs/leaving.md say that leaving costs, and what it does cost on a chain."""

import asyncio
from pathlib import Path

import pytest
from tests.daemon.test_bumped_exits import COIN_SAT, PAID_MSAT, built, left, market
from tests.daemon.town import town

from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.channel.terms import MSAT_PER_SAT

# Of the way out of a factory of two: kickoff, state, commitment.
ROW = "| 2 | none | 3 | 501 | 450 | 1,722 | {} | {} | {} | 2.4 sat/vB |"
CHILDREN_SAT = {1: 0, 10: 8_598, 50: 46_998}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("feerate", CHILDREN_SAT)
def test_leaving_costs_what_was_told(repository: Path, tmp_path: Path, feerate: int) -> None:
    page = (repository / "docs/leaving.md").read_text(encoding="utf-8")
    assert ROW.format(*(f"{sat:,}" for sat in CHILDREN_SAT.values())) in page

    async def main() -> None:
        async with town(tmp_path) as t:
            await built(t, with_coin=True)
            market(t, n2=f"{2 * feerate / 100_000:.8f}", n144=f"{feerate / 100_000:.8f}")
            await t.mine(1)
            plan = await t.call("alice", "exit_plan")
            (told,) = [one for one in plan["fees_at"] if one["feerate_sat_per_vb"] == feerate]
            children_sat = CHILDREN_SAT[feerate]
            assert told["children_sat"] == children_sat
            await t.call("alice", "exit_start")
            balance = await left(t, "alice")
            # Each child spends its parent's anchor, too.
            out_of_coins_sat = max(0, children_sat - 3 * ANCHOR_DUST_SAT)
            status = await t.call("alice", "exit_status")
            assert status["children_cost_sat"] == out_of_coins_sat
            sweep = plan["channel"]["steps"][-1]
            assert sweep["fee_sat"] == feerate * sweep["vsize"]
            cost_sat = COIN_SAT + PAID_MSAT // MSAT_PER_SAT - balance["confirmed_sat"]
            assert cost_sat == out_of_coins_sat + sweep["fee_sat"]

    asyncio.run(main())
