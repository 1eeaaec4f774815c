"""Three factories expire while their clients are gone: one transaction takes all of them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from tests.daemon.test_expiry_sweeps import HASTY, SHORT
from tests.daemon.town import CAPACITY_SAT, Town, town

from cromford.adapters.bitcoind import BitcoindChain
from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.daemon.lspd import LspDaemon

CLIENTS: Final = ("alice", "bob", "carol")
ANYBODYS_SCRIPT: Final = b"\x00\x20" + sha256(b"\x51")
ANYBODY: Final = address_of_script(ANYBODYS_SCRIPT, REGTEST)
CHILD_SAT: Final = 6_000
MATURE_BLOCKS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Trio:
    """Three factories of one expiry, and a coin of somebody who may be late.

    Attributes:
        fundings: What they hold, by outpoint as a node writes it.
        expiry_height: Of all of them.
        coin: An output that anybody may spend.
        coin_sat: What it holds.
    """

    fundings: Mapping[str, int]
    expiry_height: int
    coin: OutPoint
    coin_sat: int


async def found_three(t: Town) -> Trio:
    """Build a factory for each client without a block between them, and lose the clients."""
    t.mining_address = ANYBODY
    await t.mine(1)
    coinbase = t.node.call("getblock", t.node.call("getbestblockhash"), 2)["tx"][0]
    await t.mine(MATURE_BLOCKS)
    for name in CLIENTS:
        await t.start_client(name)
        await t.call(name, "join", capacity_sat=CAPACITY_SAT)
        await t.until(name, "status", lambda status: status["joined"])
        await t.call("lsp", "build")
        await t.until("lsp", "factories", lambda a: a["factories"][-1:] and is_funded(a))
    await t.mine(3, mempool=len(CLIENTS))
    for name in CLIENTS:
        await t.until(name, "factories", lambda a: a["factories"][-1]["status"] == "live")
        await t.stop(name)
    factories = (await t.call("lsp", "factories"))["factories"]
    (expiry_height,) = {factory["expiry_height"] for factory in factories}
    return Trio(
        fundings={f"{one['funding_txid']}:0": one["funding_amount_sat"] for one in factories},
        expiry_height=expiry_height,
        coin=OutPoint(txid=Txid.from_hex(coinbase["txid"]), vout=0),
        coin_sat=round(float(coinbase["vout"][0]["value"]) * 100_000_000),
    )


def is_funded(answer: Any) -> bool:
    lobby_is_empty: bool = all(one["phase"] == "funding" for one in answer["factories"])
    return lobby_is_empty


async def mine_to(t: Town, height: int) -> None:
    await t.mine(height - t.node.call("getblockcount"))


def waiting(t: Town) -> list[dict[str, Any]]:
    """Return what waits in the mempool, the one with most inputs first."""
    txs = [t.node.call("getrawtransaction", txid, True) for txid in t.node.call("getrawmempool")]
    return sorted(txs, key=lambda tx: -len(tx["vin"]))


def spent_by(tx: Mapping[str, Any]) -> set[str]:
    return {f"{tx_in['txid']}:{tx_in['vout']}" for tx_in in tx["vin"]}


async def statuses(t: Town) -> list[str]:
    return [one["status"] for one in (await t.call("lsp", "factories"))["factories"]]


async def told(t: Town, event: str) -> list[dict[str, Any]]:
    return [one for one in await t.told("lsp") if one["event"] == event]


def roots(t: Town) -> list[Tx]:
    """Return what each factory's clients could publish, in the order of the factories."""
    daemon, _ = t.running["lsp"]
    assert isinstance(daemon, LspDaemon)
    found = []
    for factory in map(daemon.state.factory, range(len(CLIENTS))):
        signed = factory.attempt.signed
        assert signed is not None
        found.append(signed.tree.txs[factory.attempt.tree.root_node.name])
    return found


def publish_late(t: Town, trio: Trio, root: Tx) -> Tx:
    """Let somebody publish a root with a child that pays 6,000 sat; return the child."""
    anchor = [out.script_pubkey for out in root.outputs].index(ANCHOR_SCRIPT)
    amount_sat = trio.coin_sat + root.outputs[anchor].amount_sat - CHILD_SAT
    child = Tx(
        version=TRUC_VERSION,
        inputs=(
            TxIn(outpoint=root.outpoint(anchor), nsequence=0xFFFF_FFFD),
            TxIn(outpoint=trio.coin, nsequence=0xFFFF_FFFD, witness=(b"\x51",)),
        ),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=ANYBODYS_SCRIPT),),
    )
    t.node.call("submitpackage", [root.serialize().hex(), child.serialize().hex()])
    assert {str(root.txid), str(child.txid)} <= set(t.node.call("getrawmempool"))
    return child


async def expire_together(t: Town) -> None:
    """Take three factories with one transaction, though the LSP starts again and a block goes."""
    trio = await found_three(t)
    await mine_to(t, trio.expiry_height - 1)
    assert await statuses(t) == ["live"] * 3
    await t.stop("lsp")
    t.node.call("generatetoaddress", 1, ANYBODY)
    await t.start_lsp()
    await t.until("lsp", "wallet_balance", lambda _: t.node.call("getrawmempool"))
    (joint,) = waiting(t)
    assert spent_by(joint) == trio.fundings.keys()
    assert (joint["version"], joint["locktime"], len(joint["vout"])) == (2, trio.expiry_height, 1)
    assert joint["vsize"] == 281, "three alone take 390"
    for factory in (await t.call("lsp", "factories"))["factories"]:
        (awaited,) = factory["sweeping"]
        assert awaited["outpoint"] in trio.fundings
    await t.stop("lsp")  # It finds its own in the mempool, and leaves it there.
    await t.start_lsp()
    await t.mine(1, mempool=1)
    assert await statuses(t) == ["swept"] * 3
    t.node.call("invalidateblock", t.node.call("getbestblockhash"))
    assert [one["txid"] for one in waiting(t)] == [joint["txid"]]
    t.mining_address = address_of_script(b"\x00\x20" + sha256(b"\x52"), REGTEST)  # Another block.
    await t.mine(2)
    assert await statuses(t) == ["swept"] * 3
    (signed,) = await told(t, "joint_sweep_signed")
    assert signed["outputs"] == ["funding"] * 3
    (coin,) = [
        one
        for one in (await t.call("lsp", "wallet_coins"))["coins"]
        if one["outpoint"] == f"{joint['txid']}:0"
    ]
    assert coin["amount_sat"] == sum(trio.fundings.values()) - signed["fee_sat"]
    assert signed["fee_sat"] < 281 * 4
    assert len(await told(t, "outputs_swept")) == 6, "each factory's, and again in the other block"
    assert await told(t, "broadcast_refused") == []


async def expire_beside_a_rival(t: Town, *, is_seen: bool) -> None:
    """Take two of three factories, while a root of the other waits with a child that pays more."""
    trio = await found_three(t)
    await mine_to(t, trio.expiry_height - 1)
    root = roots(t)[1]
    await t.stop("lsp")
    t.node.call("generatetoaddress", 1, ANYBODY)
    child = publish_late(t, trio, root)
    await t.start_lsp()
    n_ours = 1 if is_seen else 2
    await t.until("lsp", "status", lambda _: len(t.node.call("getrawmempool")) == 2 + n_ours)
    first, second, third = trio.fundings
    ours = [tx for tx in waiting(t) if tx["txid"] not in {str(root.txid), str(child.txid)}]
    taken = [spent_by(tx) for tx in ours]
    parted = await told(t, "joint_sweep_parted")
    if is_seen:
        assert taken == [{first, third}]
        assert parted == []
    else:
        assert sorted(map(sorted, taken)) == sorted([[first], [third]])
        assert parted[0]["reason"].startswith("refused: insufficient fee")
    refused = await t.until("lsp", "status", lambda status: status["refused"])
    assert "expiry_sweep funding" in {one["name"] for one in refused["refused"]}
    await t.mine(1)
    assert await statuses(t) == ["swept", "expired", "swept"]
    assert t.node.call("getrawtransaction", str(child.txid), True, t.node.call("getbestblockhash"))
    (_, left, _) = (await t.call("lsp", "factories"))["factories"]
    assert left["published"] == ["kickoff_root"]
    # Below it the LSP publishes its own state, and takes its L-stock, as ever.
    await t.mine(SHORT.step_blocks * (SHORT.states_per_layer - 1))
    await t.until("lsp", "status", lambda _: t.node.call("getrawmempool"))
    await t.mine(1)
    (_, left, _) = (await t.call("lsp", "factories"))["factories"]
    assert left["published"] == ["kickoff_root", "state_root"]
    assert second not in {tx for one in await told(t, "outputs_swept") for tx in one["outputs"]}


async def expire_before_a_rival(t: Town) -> None:
    """Lose the place of a joint sweep to somebody late, and take the others one block later."""
    trio = await found_three(t)
    await mine_to(t, trio.expiry_height - 1)
    root = roots(t)[1]
    await t.mine(1)
    await t.until("lsp", "status", lambda _: t.node.call("getrawmempool"))
    (joint,) = waiting(t)
    assert spent_by(joint) == trio.fundings.keys()
    child = publish_late(t, trio, root)
    assert joint["txid"] not in t.node.call("getrawmempool")
    await t.mine(1)
    await t.until("lsp", "status", lambda _: t.node.call("getrawmempool"))
    (again,) = waiting(t)
    first, _, third = trio.fundings
    assert spent_by(again) == {first, third}
    await t.mine(1)
    assert await statuses(t) == ["swept", "expired", "swept"]
    assert await told(t, "joint_sweep_parted") == []
    assert str(child.txid) not in t.node.call("getrawmempool")


@pytest.mark.sampled(0)
def test_who_takes_the_place_of_a_joint_sweep_holds_up_the_others_for_a_block(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY) as built:
            await expire_before_a_rival(built)

    asyncio.run(main())


@pytest.mark.sampled(0)
def test_factories_that_expire_together_are_taken_by_one_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY) as built:
            await expire_together(built)

    asyncio.run(main())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("is_seen", [True, False])
def test_a_rival_keeps_out_what_it_spends_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_seen: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    if not is_seen:
        see_no_rivals(monkeypatch)

    async def main() -> None:
        async with town(tmp_path, lsp_policy=SHORT, client_policy=HASTY) as built:
            await expire_beside_a_rival(built, is_seen=is_seen)

    asyncio.run(main())


def see_no_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rival come right after the LSP asked for it."""

    spenders = BitcoindChain.spenders

    async def early(chain: BitcoindChain, asked: Sequence[OutPoint]) -> Mapping[OutPoint, Txid]:
        return {} if len(asked) == len(CLIENTS) else await spenders(chain, asked)

    monkeypatch.setattr(BitcoindChain, "spenders", early)
