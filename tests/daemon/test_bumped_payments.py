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
    async def scenario() -> None:
        async with town(tmp_path) as t:
            await pays_more_twice(t)

    asyncio.run(scenario())


async def pays_more_twice(t: Town) -> None:
    """A payment can be replaced, again and again, while it cannot be given up."""
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


def test_who_cannot_pay_is_told_what_would_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            everything = {"address": t.mining_address, "feerate_sat_per_vb": "1"}
            sent = await t.call("lsp", "wallet_send", **everything)
            await waits(t, sent["txid"])
            for asked in ({"address": t.mining_address, "amount_sat": 1_000}, {"n_coins": 2}):
                method = "wallet_send" if "address" in asked else "wallet_split"
                with pytest.raises(ApiFailure) as nothing:
                    await t.call("lsp", method, **asked)
                assert (nothing.value.code, nothing.value.retryable) == ("insufficient_coins", True)
                assert "`wallet balance` shows" in nothing.value.remediation
            with pytest.raises(ApiFailure, match="out of the amount, from_amount") as no_change:
                await bump(t, sent["txid"], "5")
            assert no_change.value.code == "insufficient_coins"
            asked = {"txid": sent["txid"], "feerate_sat_per_vb": "5", "from_amount": True}
            paid = await t.call("lsp", "wallet_bump", **asked)
            assert paid["amount_sat"] == sent["amount_sat"] + sent["fee_sat"] - paid["fee_sat"]
            await waits(t, paid["txid"])

    asyncio.run(scenario())


def test_whoever_did_not_hear_the_answer_asks_again_and_pays_once(tmp_path: Path) -> None:
    """Over a bump, a start, and the block; another payment by that id is refused."""

    async def scenario() -> None:
        async with town(tmp_path) as t:
            asked = {"address": t.mining_address, "amount_sat": AMOUNT_SAT, "external_id": "a-7"}
            planned = await t.call("lsp", "wallet_send", **asked, dry_run=True)
            assert planned["sent"] is False
            sent = await t.call("lsp", "wallet_send", **asked)
            told = sent | {"feerate_source": "what it pays"}
            for more in ({}, {"dry_run": True}, {"feerate_sat_per_vb": "9"}):
                assert close_to(await t.call("lsp", "wallet_send", **asked, **more), told)
            await waits(t, sent["txid"])
            for other in ({"amount_sat": AMOUNT_SAT + 1}, {"address": await fresh(t)}):
                with pytest.raises(ApiFailure, match=f"another payment: {next(iter(other))}") as no:
                    await t.call("lsp", "wallet_send", **asked | other)
                assert no.value.code == "external_id_taken"
            bumped = await bump(t, sent["txid"], "20")
            told = [one for one in await t.told("lsp") if one["event"] == "payment_signed"]
            assert [(one["txid"], one["external_id"], one.get("replaces")) for one in told] == [
                (sent["txid"], "a-7", None),
                (bumped["txid"], "", sent["txid"]),
            ]
            await t.stop("lsp")
            await t.start_lsp()
            await waits(t, bumped["txid"])
            await t.mine(1, mempool=1)
            again = await t.call("lsp", "wallet_send", **asked)
            assert (again["txid"], again["fee_sat"]) == (bumped["txid"], bumped["fee_sat"])
            assert t.node.call("getrawmempool") == []

    asyncio.run(scenario())


def test_an_id_whose_payment_was_given_up_pays_nothing_more(tmp_path: Path) -> None:
    """It may confirm all the same: who pays anew has to say so, by another id."""

    async def scenario() -> None:
        async with town(tmp_path) as t:
            asked = {"address": t.mining_address, "amount_sat": None, "external_id": "a-8"}
            sent = await t.call("lsp", "wallet_send", **asked, feerate_sat_per_vb="0.01")
            await t.until("lsp", "status", lambda status: status["refused"])
            assert (await t.call("lsp", "wallet_send", **asked))["txid"] == sent["txid"]
            await t.call("lsp", "wallet_abandon", txid=sent["txid"])
            with pytest.raises(ApiFailure) as given_up:
                await t.call("lsp", "wallet_send", **asked)
            assert given_up.value.code == "payment_abandoned"
            with pytest.raises(ApiFailure) as too_long:
                await t.call("lsp", "wallet_send", **asked | {"external_id": "x" * 129})
            assert too_long.value.param == "external_id"

    asyncio.run(scenario())


def close_to(answer: Any, expected: Any) -> bool:
    """Say whether a payment is told as it was; its feerate is made of what it pays."""
    told, paid = (one.pop("feerate_sat_per_vb") for one in (dict(answer), expected | {}))
    return told == pytest.approx(paid, rel=0.01) and {**answer, "feerate_sat_per_vb": paid} == {
        **expected,
        "feerate_sat_per_vb": paid,
    }


async def fresh(t: Town) -> str:
    return str((await t.call("lsp", "address"))["address"])


async def bump(t: Town, txid: str, feerate: str, *, dry_run: bool = False) -> Any:
    asked = {"txid": txid, "feerate_sat_per_vb": feerate, "dry_run": dry_run}
    return await t.call("lsp", "wallet_bump", **asked)


async def waits(t: Town, txid: str) -> None:
    """Wait until the node's mempool has this, and nothing else."""
    await t.until("lsp", "status", lambda _status: t.node.call("getrawmempool") == [txid])
