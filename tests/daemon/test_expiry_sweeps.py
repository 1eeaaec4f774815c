"""A client vanishes with its phone: at the expiry its LSP has everything back, in its wallet."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.daemon.town import LSP_POLICY, QUICK, Town, town

SHORT = replace(LSP_POLICY, active_blocks=24, dying_blocks=24, ready_min_blocks=1)
HASTY = replace(
    QUICK, active_blocks=(1, 52_560), dying_blocks=(1, 4_320), ready_min_blocks=(1, 4_320)
)
PAID_MSAT = 60_000_000


async def lose_a_client_and_sweep(t: Town) -> None:
    """Build a factory, pay its client, lose the client, and look at the LSP's wallet."""
    factory_id = await t.build("alice")
    invoice = (await t.call("alice", "invoice", amount_msat=PAID_MSAT))["invoice"]
    await t.call("lsp", "pay", invoice=invoice)
    t.mining_address = (await t.call("alice", "address"))["address"]  # Not into the LSP's wallet.
    await t.stop("alice")
    (factory,) = (await t.call("lsp", "factories"))["factories"]
    funding_sat = factory["funding_amount_sat"]

    await t.mine(factory["blocks_to_expiry"] - 1)
    (factory,) = (await t.call("lsp", "factories"))["factories"]
    assert (factory["status"], factory["blocks_to_expiry"], factory["sweeping"]) == ("live", 1, [])
    assert t.node.call("getrawmempool") == []

    await t.mine(1)
    balance = await t.until("lsp", "wallet_balance", lambda b: b["arriving_sat"])
    assert balance["arriving_sat"] == funding_sat
    await t.mine(1, mempool=1)
    (factory,) = (await t.call("lsp", "factories"))["factories"]
    assert (factory["status"], factory["sweeping"]) == ("swept", [])
    (told,) = [one for one in await t.told("lsp") if one["event"] == "outputs_swept"]
    assert (told["attempt_id"], told["outputs"]) == (factory_id, ["funding"])
    coins = (await t.call("lsp", "wallet_coins"))["coins"]
    (swept,) = [coin for coin in coins if coin["outpoint"] == f"{told['txid']}:0"]
    assert funding_sat - 1_000 < swept["amount_sat"] < funding_sat
    assert swept["confirmations"] == 1


@pytest.mark.sampled(0)
def test_what_nobody_claimed_is_a_coin_of_the_lsp_one_block_after_the_expiry(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY) as built:
            await lose_a_client_and_sweep(built)

    asyncio.run(main())
