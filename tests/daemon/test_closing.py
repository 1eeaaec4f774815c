"""Two clients and their LSP close a factory on a real chain, and everybody has its coin."""

import asyncio
import logging
from pathlib import Path

import pytest
from tests.daemon.test_payments import ALLOWANCE_MSAT, with_money
from tests.daemon.town import Town, town

from cromford.channel.terms import MSAT_PER_SAT
from cromford.daemon.api.failures import ApiFailure
from cromford.protocol.exiting.channel import RESOLVED_DEPTH


def test_a_factory_is_closed_by_its_operator_and_everybody_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(t: Town) -> None:
        factory_id = await with_money(t)
        with pytest.raises(ApiFailure, match="wait: expected false with dry_run") as refused:
            await t.call("lsp", "close", factory_id=factory_id, dry_run=True, wait=True)
        assert refused.value.code == "invalid_param"
        planned = await t.call("lsp", "close", factory_id=factory_id, dry_run=True)
        owed = {one["due_msat"]: one["paid_sat"] for one in planned["clients"]}
        assert owed == {ALLOWANCE_MSAT: ALLOWANCE_MSAT // MSAT_PER_SAT, 0: 0}
        with pytest.raises(ApiFailure) as caught:
            await t.call("lsp", "close", factory_id=factory_id, vertex="9")
        assert caught.value.code == "vertex_not_found"

        closed = await t.call("lsp", "close", factory_id=factory_id, wait=True)
        assert closed["finished"]["txids"] == [option["txid"] for option in planned["options"]]
        for name in ("alice", "bob", "lsp"):
            shown = await t.until(
                name, "factories", lambda answer: answer["factories"][0]["closed"]
            )
            (close,) = shown["factories"][0]["closed"]
            assert close["txids"] == closed["finished"]["txids"]
        events = [one["event"] for one in await t.told("lsp") if "close" in one["event"]]
        assert events[0] == "close_begun"
        assert events[-1] == "close_finished"
        lines = [one.message for one in caplog.records if "close_finished" in one.message]
        assert len(lines) == 3

        await t.mine(1, mempool=1)
        for name in ("lsp", "alice"):
            await t.until(
                name,
                "factories",
                lambda answer: answer["factories"][0]["closed"][0]["confirmations"] == 1,
            )
        balance = await t.until("alice", "wallet_balance", lambda one: one["confirmed_sat"])
        assert balance["confirmed_sat"] == ALLOWANCE_MSAT // MSAT_PER_SAT
        await t.mine(RESOLVED_DEPTH)
        await t.until("alice", "factories", lambda answer: answer["factories"][0]["channel_failed"])
        told = [one for one in caplog.records if one.message.startswith("channel_")]
        assert {one.message.split()[0] for one in told} == {"channel_closed"}, "nothing failed"
        assert {one.levelno for one in told} == {logging.INFO}

    async def main() -> None:
        async with town(tmp_path) as t:
            await scenario(t)

    asyncio.run(main())
