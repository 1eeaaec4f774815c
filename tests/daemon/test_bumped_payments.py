"""A payment of the wallet's that no block takes pays more: the node judges what takes its place."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.test_town_clock import failure_of
from tests.daemon.town import Town, town

from cromford.daemon.api.failures import ApiFailure

AMOUNT_SAT = 50_000


def test_a_payment_that_waits_is_replaced_in_the_mempool_and_never_paid_twice(
    tmp_path: Path,
) -> None:
    """It can be replaced, again and again, while it cannot be given up."""

    async def scenario() -> None:
        async with town(tmp_path) as t:
            address = t.mining_address
            asked = {"address": address, "amount_sat": AMOUNT_SAT, "feerate_sat_per_vb": "1"}
            sent = await t.call("lsp", "wallet_send", **asked)
            await waits(t, sent["txid"])
            assert await failure_of(t, sent["txid"]) == "transaction_accepted"
            with pytest.raises(ApiFailure, match=r"at least 1\.1 to take the place") as low:
                await bump(t, sent["txid"], "1.09")
            assert low.value.code == "feerate_too_low"
            planned = await bump(t, sent["txid"], "1.1", dry_run=True)
            assert t.node.call("getrawmempool") == [sent["txid"]]
            first = await bump(t, sent["txid"], "1.1")
            assert first == planned | {"bumped": True}
            assert (first["amount_sat"], first["replaces"]) == (AMOUNT_SAT, sent["txid"])
            await waits(t, first["txid"])
            with pytest.raises(ApiFailure) as gone:
                await bump(t, sent["txid"], "20")
            assert gone.value.code == "payment_not_found"
            second = await bump(t, first["txid"], "20")
            await waits(t, second["txid"])
            balance = await t.call("lsp", "wallet_balance")
            (waiting,) = balance["waiting"]
            assert waiting["txid"] == second["txid"]
            assert waiting["fee_sat"] == second["fee_sat"]
            assert waiting["feerate_sat_per_vb"] == pytest.approx(20, rel=0.01)
            assert balance["refused"] == []
            await t.stop("lsp")
            await t.start_lsp()
            await t.mine(1, mempool=1)
            assert (await t.call("lsp", "wallet_balance"))["waiting"] == []

    asyncio.run(scenario())


async def bump(t: Town, txid: str, feerate: str, *, dry_run: bool = False) -> Any:
    asked = {"txid": txid, "feerate_sat_per_vb": feerate, "dry_run": dry_run}
    return await t.call("lsp", "wallet_bump", **asked)


async def waits(t: Town, txid: str) -> None:
    """Wait until the node's mempool has this, and nothing else."""
    await t.until("lsp", "status", lambda _status: t.node.call("getrawmempool") == [txid])
