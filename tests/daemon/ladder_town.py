"""A town whose factory has a fee ladder: what is done on the embedded node and on Bitcoin Core."""

import asyncio
from typing import Any, Final

import pytest
from tests.daemon.town import CAPACITY_SAT, Town

from cromford.daemon.api.failures import ApiFailure

FEERATES: Final = ["2", "8", "30"]
DEPTH: Final = 6
PAID_MSAT: Final = 5_000_000
TRIES: Final = 400


async def ladder(t: Town, name: str = "alice", *, external_id: str = "") -> dict[str, Any]:
    """Build a factory with a ladder; return its line once its first candidate waits."""
    if name not in t.running:
        await t.start_client(name)
    n_before = len((await t.call("lsp", "factories"))["factories"])
    await t.call(name, "join", capacity_sat=CAPACITY_SAT)
    await t.until(name, "status", lambda status: status["joined"])
    for _ in range(TRIES):
        try:
            asked = {"funding_feerates_sat_per_vb": FEERATES, "external_id": external_id}
            await t.call("lsp", "build", **asked)
            break
        except ApiFailure as failure:
            if not failure.retryable:
                raise
            await asyncio.sleep(0.02)
    answer = await t.until(
        "lsp",
        "factories",
        lambda a: (
            len(a["factories"]) > n_before
            and a["factories"][-1]["phase"] == "funding"
            and a["factories"][-1]["candidates"][0]["status"] == "published"
        ),
    )
    line: dict[str, Any] = answer["factories"][-1]
    await waits(t, line["candidates"][0]["funding_txid"])
    return line


async def waits(t: Town, *txids: str) -> None:
    """Wait until these, and nothing else, are in the mempool."""
    await t.until("lsp", "status", lambda _: set(t.node.call("getrawmempool")) == set(txids))


async def replace_by(t: Town, line: dict[str, Any], candidate: int) -> str:
    """Publish a higher candidate; return its txid once the mempool has it alone."""
    wanted = {"factory_id": line["factory_id"], "candidate": candidate}
    planned = await t.call("lsp", "factory_replace", **wanted, dry_run=True)
    replaced = await t.call("lsp", "factory_replace", **wanted)
    assert replaced == planned | {"replaced": True}
    again = {"replaces": candidate, "least_fee_sat": replaced["fee_sat"], "child_fee_sat": 0}
    assert await t.call("lsp", "factory_replace", **wanted) == replaced | again
    with pytest.raises(ApiFailure, match="candidate: expected its place"):
        await t.call("lsp", "factory_replace", factory_id=line["factory_id"])
    txid: str = replaced["funding_txid"]
    assert txid == line["candidates"][candidate]["funding_txid"]
    assert replaced["fee_sat"] >= replaced["least_fee_sat"]
    await waits(t, txid)
    return txid


async def stands(t: Town, status: str, client_status: str, name: str = "alice") -> dict[str, Any]:
    """Wait until both sides show these; return the LSP's line."""
    await t.until(name, "factories", lambda a: a["factories"][-1]["status"] == client_status)
    answer = await t.until("lsp", "factories", lambda a: a["factories"][-1]["status"] == status)
    line: dict[str, Any] = answer["factories"][-1]
    return line


async def paid(t: Town, name: str = "alice") -> None:
    """Let the LSP pay a client's invoice."""
    await t.until(name, "factories", lambda a: a["factories"][-1]["channel_status"] == "open")
    invoice = await t.call(name, "invoice", amount_msat=PAID_MSAT)
    answer = await t.call("lsp", "pay", invoice=invoice["invoice"])
    assert answer["status"] == "paid", answer


async def own_msat(t: Town, status: str) -> int:
    """Return what alice has in her channel, which has this status; pending, none can be spent."""
    answer = await t.until("alice", "balance", lambda a: a["channels"][0]["status"] == status)
    channel = answer["channels"][0]
    assert (channel["spendable_msat"] > 0) == (status == "open")
    own: int = channel["own_msat"]
    return own


async def refuses(t: Town, code: str, name: str = "alice") -> None:
    """Check that a client takes no payment now."""
    with pytest.raises(ApiFailure) as refused:
        await t.call(name, "invoice", amount_msat=PAID_MSAT)
    assert refused.value.code == code


async def bury(t: Town, raw: str, n_blocks: int) -> str:
    """Mine a transaction so deep; return the hash of its block."""
    # Another address each time: the same block again would be the one that was taken back.
    address = (await t.call("lsp", "address"))["address"]
    block: str = t.node.call("generateblock", address, [raw])["hash"]
    await t.mine(n_blocks - 1) if n_blocks > 1 else await seen(t)
    return block


async def seen(t: Town) -> None:
    height = t.node.call("getblockcount")
    for name in t.running:
        await t.until(name, "status", lambda status: status["height"] >= height)


async def each_in_turn(t: Town) -> None:
    """Each candidate is replaced in the mempool by the next, and is live once it is six deep."""
    for rung, name in enumerate(("alice", "bob", "carol")):
        line = await ladder(t, name)
        for candidate in range(1, rung + 1):
            await replace_by(t, line, candidate)
        await t.mine(DEPTH - 1)
        await stands(t, "funding", "confirming", name)
        await refuses(t, "no_channel", name)
        await t.mine(1)
        live = await stands(t, "live", "live", name)
        assert [one["status"] == "confirmed" for one in live["candidates"]] == [
            place == rung for place in range(len(FEERATES))
        ]
        assert live["candidates"][rung]["has_channels"]
        await paid(t, name)


async def siblings_give_way(t: Town) -> None:
    """Reorganisations of one to six blocks between candidates; before the sixth nothing is paid."""
    line = await ladder(t)
    raws = [t.node.call("getrawtransaction", line["candidates"][0]["funding_txid"])]
    raws.append(t.node.call("getrawtransaction", await replace_by(t, line, 1)))
    with pytest.raises(ApiFailure) as refused:
        await t.call("alice", "exit_export")
    assert (refused.value.code, refused.value.retryable) == ("factory_not_funded", True)
    for depth in range(1, DEPTH):
        block = await bury(t, raws[depth % 2], depth)
        shown = await stands(t, "funding", "confirming")
        assert shown["candidates"][depth % 2]["status"] == "confirmed"
        assert shown["candidates"][1 - depth % 2]["status"] == "overtaken"
        await refuses(t, "no_channel")
        t.node.call("invalidateblock", block)
    block = await bury(t, raws[0], DEPTH)
    await stands(t, "live", "live")
    await paid(t)
    before = await own_msat(t, "open")
    package = await t.call("alice", "exit_export")
    assert package["funding"]["txid"] == line["candidates"][0]["funding_txid"]
    t.node.call("invalidateblock", block)
    block = await bury(t, raws[1], DEPTH - 1)
    await stands(t, "funding", "waiting_for_funding")
    assert await own_msat(t, "pending") == before
    await refuses(t, "funding_not_deep")
    await t.mine(2)
    shown = await stands(t, "displaced", "displaced")
    assert [one["status"] for one in shown["candidates"]] == ["dead", "confirmed", "dead"]
    assert [one["has_channels"] for one in shown["candidates"]] == [True, False, False]
    await t.until("alice", "balance", lambda a: a["channels"] == [])
    await refuses(t, "funding_not_deep")
    t.node.call("invalidateblock", block)
    await bury(t, raws[0], DEPTH + 3)
    await stands(t, "live", "live")
    assert await own_msat(t, "open") == before
    await paid(t)


async def given_up(t: Town) -> None:
    """A ladder that is given up is dead for everybody once another spend is six deep."""
    line = await ladder(t)
    await replace_by(t, line, 1)
    with pytest.raises(ApiFailure) as refused:
        await t.call(
            "lsp", "factory_abandon", factory_id=line["factory_id"], feerate_sat_per_vb="2"
        )
    assert refused.value.code == "feerate_too_low"
    answer = await t.call(
        "lsp", "factory_abandon", factory_id=line["factory_id"], feerate_sat_per_vb="40"
    )
    await waits(t, answer["txid"])
    await t.mine(DEPTH)
    await t.until("lsp", "factories", lambda a: a["factories"][-1]["status"] == "dead")
    await t.until(
        "alice",
        "factories",
        lambda a: (
            a["factories"][0]["status"] in {"dead", "aborted"} or a["factories"][0]["given_up"]
        ),
    )
