"""Two clients live through the end of their factory, and nobody types anything."""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.test_expiry_sweeps import HASTY
from tests.daemon.town import LSP_POLICY, Town, town

POLICY = replace(LSP_POLICY, min_clients=2, active_blocks=24, dying_blocks=40, ready_min_blocks=1)
PAID_MSAT = {"alice": 123_456_789, "bob": 7_000_000}


async def earned(t: Town) -> int:
    status = await t.call("lsp", "status")
    found: int = status["capital"]["earned_msat"]
    return found


def has(amounts_msat: list[int], balance: dict[str, Any]) -> bool:
    return [channel["own_msat"] for channel in balance["channels"]] == amounts_msat


@pytest.mark.sampled(0)
def test_clients_move_by_themselves_with_all_that_they_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(t: Town) -> None:
        old = await t.build("alice", "bob")
        for name, amount_msat in PAID_MSAT.items():
            await t.until(name, "factory", lambda a: a["channel_status"] == "open")
            invoice = (await t.call(name, "invoice", amount_msat=amount_msat))["invoice"]
            await t.call("lsp", "pay", invoice=invoice)
        before_msat = await earned(t)
        (factory,) = (await t.call("lsp", "factories"))["factories"]
        assert (factory["period"], factory["status"]) == ("active", "live")
        await t.mine(factory["blocks_to_next_period"])
        (ending,) = (await t.call("lsp", "status"))["dying"]
        assert (ending["factory_id"], ending["period"]) == (old, "dying")
        await t.mine(3, mempool=1)
        for name, amount_msat in PAID_MSAT.items():
            all_of_it = [0, amount_msat]
            await t.until(name, "balance", partial(has, all_of_it))
            (moving,) = (
                await t.until(
                    name, "status", lambda s: s["dying"][0]["moving"]["status"] == "moved"
                )
            )["dying"]
            assert (moving["moving"]["status"], moving["moving"]["moved_msat"]) == (
                "moved",
                amount_msat,
            )
            listed = (await t.call(name, "payments"))["payments"]
            assert [one["direction"] for one in listed] == ["move", "in"]
            assert (listed[0]["factory_id"], listed[0]["amount_msat"]) == (old, amount_msat)
            assert listed[0]["to_factory_id"] == moving["moving"]["to_factory_id"]
            events = await t.told(name)
            assert [one["event"] for one in events if one["event"] == "period_began"] != []
            (ended,) = (one for one in events if one["event"] == "move_ended")
            assert (ended["amount_msat"], ended["is_moved"]) == (amount_msat, True)
        assert await earned(t) == before_msat, "it cost them nothing"
        first, second = (await t.call("lsp", "balances"))["channels"][:2]
        assert {first["own_msat"], second["own_msat"]} == {200_000_000}, "all of the old is its own"
        await t.mine(6)  # The next channel is as deep as it has to be for that.
        for name in PAID_MSAT:
            await t.until(name, "factories", lambda a: a["factories"][0]["status"] == "moved_out")
        for name, method in (("lsp", "balances"), ("alice", "balance")):
            listed = (await t.call(name, method))["channels"]
            n_open = sum(channel["status"] == "open" for channel in listed)
            assert n_open == len(listed) // 2, (
                "no payment goes through what is empty and given away"
            )
            assert ("channels_open", {}, n_open) in list(t.running[name][0].samples())
        assert "period_began" in caplog.text
        assert "balance_moved amount_sat=123456 amount_msat=123456789" in caplog.text

    async def main() -> None:
        async with town(tmp_path, lsp_policy=POLICY, client_policy=HASTY) as built:
            await scenario(built)

    asyncio.run(main())
