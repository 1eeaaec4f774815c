"""A funding below what its node's mempool asks for is bumped into it, and into the next block."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.test_bumped_exits import market
from tests.daemon.town import CAPACITY_SAT, Town, town

from cromford.daemon.api.failures import ApiFailure


async def stuck(t: Town, *, is_in_mempool: bool = False) -> dict[str, Any]:
    """Sign a factory whose funding waits, or is refused; return its line in the list."""
    await t.start_client("alice")
    await t.call("alice", "join", capacity_sat=CAPACITY_SAT)
    await t.until("alice", "status", lambda status: status["joined"])
    await t.call("lsp", "build")
    answer = await t.until(
        "lsp",
        "factories",
        lambda a: (
            a["factories"]
            and a["factories"][0]["phase"] == "funding"
            and (a["factories"][0]["refused"] or is_in_mempool)
        ),
    )
    line: dict[str, Any] = answer["factories"][0]
    return line


async def code_of(t: Town, method: str = "factory_bump", **params: object) -> str:
    with pytest.raises(ApiFailure) as refused:
        await t.call("lsp", method, **params)
    return refused.value.code


async def wait_for_both(t: Town, *txids: str) -> None:
    """Wait until a funding and its child are in the mempool."""
    await t.until("lsp", "status", lambda _: set(txids) <= set(t.node.call("getrawmempool")))


def test_a_funding_that_the_mempool_refuses_gets_in_with_its_child(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            t.mining_address = (await t.call("lsp", "status"))["wallet"]["address"]
            await t.mine(1)
            market(t, minimum="0.00003")  # After what the LSP asked: with this block it knows.
            before = await t.call("lsp", "wallet_balance")
            line = await stuck(t)
            await t.mine(1)
            assert line["refused"][0]["reason"].startswith("mempool min fee not met")
            assert line["bump"] is None
            wanted = {"factory_id": line["factory_id"]}
            planned = await t.call("lsp", "factory_bump", **wanted, dry_run=True)
            assert planned["paid_sat_per_vb"] == 2
            assert (planned["feerate_sat_per_vb"], planned["feerate_source"]) == (
                6.0,
                "our node, for 6 blocks",
            )
            assert t.node.call("getrawmempool") == []
            bumped = await t.call("lsp", "factory_bump", **wanted)
            assert bumped == planned | {"bumped": True}
            await wait_for_both(t, line["funding_txid"], bumped["txid"])
            answer = await t.until("lsp", "factories", lambda a: not a["factories"][0]["refused"])
            assert answer["factories"][0]["bump"] == {
                "txid": bumped["txid"],
                "fee_sat": bumped["fee_sat"],
                "feerate_sat_per_vb": 6.0,
            }
            assert await code_of(t, **wanted, feerate_sat_per_vb="6") == "feerate_too_low"
            again = await t.call("lsp", "factory_bump", **wanted, feerate_sat_per_vb="12")
            await wait_for_both(t, line["funding_txid"], again["txid"])
            assert bumped["txid"] not in t.node.call("getrawmempool")
            await t.stop("lsp")
            await t.start_lsp()
            await t.mine(1, mempool=2)
            assert t.node.call("getrawmempool") == []
            assert await code_of(t, **wanted, feerate_sat_per_vb="24") == "factory_funded"
            assert await code_of(t, "factory_abandon", **wanted) == "factory_funded"
            after = await t.call("lsp", "wallet_balance")
            assert (after["paying_sat"], after["refused"]) == (0, [])
            coins = (await t.call("lsp", "wallet_coins"))["coins"]
            (change,) = [one for one in coins if one["outpoint"] == f"{again['txid']}:0"]
            assert (change["status"], change["amount_sat"]) == ("free", again["change_sat"])
            assert after["confirmed_sat"] > 0
            assert before["refused"] == []
            await t.mine(2)
            (line,) = (await t.call("lsp", "factories"))["factories"]
            assert (line["status"], line["bump"]["txid"]) == ("live", again["txid"])
            shown = await t.call("lsp", "factory_show", **wanted)
            assert shown["bump"] == line["bump"]

    asyncio.run(main())


async def bump_out_of_a_full_mempool(t: Town, line: dict[str, Any]) -> None:
    """Bump a funding that left a full mempool; the next block has it, and leaves others."""
    assert line["funding_txid"] not in t.node.call("getrawmempool")
    n_others = len(t.node.call("getrawmempool"))
    bumped = await t.call(
        "lsp", "factory_bump", factory_id=line["factory_id"], feerate_sat_per_vb="20"
    )
    await wait_for_both(t, line["funding_txid"], bumped["txid"])
    await t.mine(1)
    block = t.node.call("getblock", t.node.call("getbestblockhash"))["tx"]
    assert {line["funding_txid"], bumped["txid"]} <= set(block)
    left = t.node.call("getrawmempool")
    assert 0 < len(left) < n_others
    again = await t.call("lsp", "factories")
    assert again["factories"][0]["confirmations"] == 1
