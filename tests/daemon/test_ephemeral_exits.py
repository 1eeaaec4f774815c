"""A factory whose transactions pay nothing themselves: every step goes with a child of ours."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.daemon.test_bumped_exits import COIN_SAT, PAID_MSAT, built, left, market, waits_for
from tests.daemon.town import LSP_POLICY, QUICK, town

from cromford.factory.terms import FeePolicy

EPHEMERAL_LSP = replace(LSP_POLICY, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0)
EPHEMERAL = replace(QUICK, fee_policies=tuple(FeePolicy))


@pytest.mark.sampled(0)
def test_one_coin_serves_the_whole_way_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=EPHEMERAL_LSP, client_policy=EPHEMERAL) as t:
            await built(t, with_coin=True)
            market(t, n2="0.00020", n144="0.00010")
            await t.call("alice", "exit_start")
            status = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            (kickoff,) = status["waiting"]
            assert 10 <= kickoff["package_sat_per_vb"] < 10.2
            assert kickoff["child_is_ours"]
            balance = await left(t, "alice")
            status = await t.call("alice", "exit_status")
            assert status["children_cost_sat"] > 3 * 2_000
            cost_sat = COIN_SAT + PAID_MSAT // 1_000 - balance["confirmed_sat"]
            assert status["children_cost_sat"] < cost_sat < status["children_cost_sat"] + 2_500

    asyncio.run(main())
