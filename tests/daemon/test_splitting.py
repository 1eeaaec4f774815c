"""Coins are split ahead: both roles make several of one, and an HTLC finds its own."""

import asyncio
from pathlib import Path

import pytest
from tests.daemon.test_bumped_exits import COIN_SAT, built, market, waits_for
from tests.daemon.test_ephemeral_exits import EPHEMERAL, EPHEMERAL_LSP
from tests.daemon.town import town

from cromford.daemon.api.failures import ApiFailure

HELD_MSAT = 20_000_000


@pytest.mark.sampled(0)
def test_after_a_split_there_is_a_coin_for_a_second_htlc_and_for_the_way_out(
    tmp_path: Path,
) -> None:
    """Where no transaction pays for itself; the daemon starts again before the block."""

    async def main() -> None:
        async with town(tmp_path, lsp_policy=EPHEMERAL_LSP, client_policy=EPHEMERAL) as t:
            await built(t, with_coin=True)
            invoices = [
                (await t.call("bob", "invoice", amount_msat=HELD_MSAT))["invoice"] for _ in range(2)
            ]
            await t.stop("bob")
            await t.call("alice", "pay", invoice=invoices[0], wait_seconds=0)
            await t.until("lsp", "payments", lambda a: len(a["forwards"]) == 1)
            with pytest.raises(ApiFailure, match="coins: expected a coin in the wallet for each"):
                await t.call("alice", "pay", invoice=invoices[1], wait_seconds=0)

            planned = await t.call("alice", "wallet_split", n_coins=3, dry_run=True)
            assert t.node.call("getrawmempool") == []
            split = await t.call("alice", "wallet_split", n_coins=3)
            assert split == planned | {"split": True}
            assert (await t.call("alice", "wallet_balance"))["paying_sat"] == COIN_SAT
            await t.stop("alice")
            await t.start_client("alice")
            await t.mine(1, mempool=1)
            coins = (await t.call("alice", "wallet_coins"))["coins"]
            each_sat = (COIN_SAT - split["fee_sat"]) // 3
            found = [(coin["amount_sat"], coin["status"]) for coin in coins]
            assert found == [(each_sat, "free")] * 3
            assert {coin["outpoint"].split(":")[0] for coin in coins} == {split["txid"]}

            await t.call("alice", "pay", invoice=invoices[1], wait_seconds=0)
            await t.until("lsp", "payments", lambda a: len(a["forwards"]) == 2)
            market(t, n2="0.00005", n144="0.00005")
            await t.call("alice", "exit_start")
            status = await t.until("alice", "exit_status", waits_for("kickoff_root"))
            (kickoff,) = status["waiting"]
            assert kickoff["child_is_ours"]
            balance = await t.call("alice", "wallet_balance")
            assert balance["free_sat"] >= each_sat, "what the kickoff does not need is left"

    asyncio.run(main())


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"n_coins": 1}, "split_out_of_range", "n_coins: expected 2 to 20, received 1"),
        ({"n_coins": 2, "amount_sat": 329}, "dust", "expected at least 330, received 329"),
        ({"n_coins": 2, "amount_sat": 10**9}, "insufficient_coins", "0 sat are free"),
        ({"n_coins": "3"}, "invalid_param", "n_coins"),
    ],
)
def test_a_split_that_cannot_be_made_has_a_code_and_changes_nothing(
    tmp_path: Path, params: dict[str, object], code: str, words: str
) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            with pytest.raises(ApiFailure, match=words) as failure:
                await t.call("alice", "wallet_split", **params)
            assert failure.value.code == code
            assert t.node.call("getrawmempool") == []

    asyncio.run(main())


def test_an_lsp_splits_coins_of_one_amount_and_keeps_the_rest(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            split = await t.call("lsp", "wallet_split", n_coins=3, amount_sat=70_000)
            await t.mine(1, mempool=1)
            made = [
                (coin["amount_sat"], coin["status"])
                for coin in (await t.call("lsp", "wallet_coins"))["coins"]
                if coin["outpoint"].startswith(split["txid"])
            ]
            assert sorted(made) == [*[(70_000, "free")] * 3, (split["change_sat"], "free")]

    asyncio.run(main())


@pytest.mark.parametrize("amount_sat", [None, 70_000])
def test_whoever_did_not_hear_the_answer_asks_again_and_splits_once(
    tmp_path: Path, amount_sat: int | None
) -> None:
    """Over a bump and the block; anything else by that id is refused, and names what differs."""

    async def main() -> None:
        async with town(tmp_path) as t:
            asked = {"n_coins": 3, "amount_sat": amount_sat, "external_id": "coins-7"}
            split = await t.call("lsp", "wallet_split", **asked)
            again = await t.call("lsp", "wallet_split", **asked, dry_run=True)
            same = ("txid", "amount_sat", "fee_sat", "change_sat", "n_coins", "split")
            assert {field: again[field] for field in same} == {
                field: split[field] for field in same
            }
            for other in ({"n_coins": 4}, {"n_coins": 2}, {"amount_sat": 80_000}):
                (field,) = other
                with pytest.raises(ApiFailure, match=f"another payment: {field}: expected") as no:
                    await t.call("lsp", "wallet_split", **asked | other)
                assert no.value.code == "external_id_taken"
            sent = {"address": t.mining_address, "amount_sat": 70_000, "external_id": "coins-7"}
            with pytest.raises(ApiFailure, match="address: expected bcrt1p"):
                await t.call("lsp", "wallet_send", **sent)
            waiting = (await t.call("lsp", "wallet_balance"))["waiting"]
            assert [one["txid"] for one in waiting] == [split["txid"]]
            bumped = await t.call(
                "lsp", "wallet_bump", txid=split["txid"], feerate_sat_per_vb="20", from_amount=True
            )
            again = await t.call("lsp", "wallet_split", **asked)
            assert [again[field] for field in same[:3]] == [
                *(bumped["txid"], split["amount_sat"], bumped["fee_sat"])
            ]
            published = [bumped["txid"]]
            await t.until("lsp", "status", lambda _: t.node.call("getrawmempool") == published)
            await t.mine(1, mempool=1)
            assert (await t.call("lsp", "wallet_split", **asked))["txid"] == bumped["txid"]
            assert t.node.call("getrawmempool") == []

    asyncio.run(main())
