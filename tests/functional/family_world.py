"""Transactions as an exit publishes them: a kickoff, a state, and the children that pay for them.

Built of plain taproot outputs with one key, and anchors; the sizes are those of the real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.functional.node_world import KEY_SCRIPT, Coin, World, coin_of, hex_of, signed

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import SAT_PER_BTC, TRUC_VERSION, Tx, TxIn, TxOut

SAT_PER_VB = 250  # In satoshi per 1000 weight units.
FUNDING_SAT = 200_000
PURSE_SAT = 50_000
BUMP_NSEQUENCE = 0xFFFF_FFFD
NOTHING = b"\x6a\x0ccromford was"  # An OP_RETURN that makes the smallest child relayable.


def funding(world: World, amount_sat: int = FUNDING_SAT) -> Coin:
    return world.confirmed(KEY_SCRIPT, amount_sat, ())


def purse(world: World) -> Coin:
    """Return a confirmed coin that pays for a child."""
    return world.confirmed(KEY_SCRIPT, PURSE_SAT, ())


def spend(
    coins: Sequence[Coin],
    *outputs: tuple[int, bytes],
    version: int = TRUC_VERSION,
    nsequence: int = BUMP_NSEQUENCE,
) -> Tx:
    """Spend coins into exactly these outputs; anchors need no signature."""
    tx = Tx(
        version=version,
        inputs=tuple(TxIn(outpoint=coin.outpoint, nsequence=nsequence) for coin in coins),
        outputs=tuple(TxOut(amount_sat=sat, script_pubkey=script) for sat, script in outputs),
    )
    witnesses = [tx_in.witness for tx_in in signed(tx, coins).inputs]
    return tx.with_witnesses(
        *(
            () if coin.script == ANCHOR_SCRIPT else witness
            for coin, witness in zip(coins, witnesses, strict=True)
        )
    )


def node_tx(
    coin: Coin, *, fee_sat: int, n_outputs: int = 1, anchor_sat: int = ANCHOR_DUST_SAT
) -> Tx:
    """Return a kickoff or a state: outputs to the key, the first with all that is left; anchor."""
    small = [(P2TR_DUST_SAT, KEY_SCRIPT)] * (n_outputs - 1)
    first_sat = coin.amount_sat - fee_sat - anchor_sat - P2TR_DUST_SAT * (n_outputs - 1)
    return spend([coin], (first_sat, KEY_SCRIPT), *small, (anchor_sat, ANCHOR_SCRIPT))


def anchor_of(tx: Tx) -> Coin:
    return coin_of(tx, len(tx.outputs) - 1, ())


def child(coins: Sequence[Coin], *, fee_sat: int, script: bytes = KEY_SCRIPT) -> Tx:
    """Return a child that pays this fee out of its coins, and has one change output."""
    return spend(coins, (sum(coin.amount_sat for coin in coins) - fee_sat, script))


def padded(coins: Sequence[Coin], *, vsize: int, fee_sat: int, version: int = TRUC_VERSION) -> Tx:
    """Return a transaction of exactly this size: change, and an OP_RETURN that fills it."""
    change = (sum(coin.amount_sat for coin in coins) - fee_sat, KEY_SCRIPT)
    with_nothing = spend(coins, change, (0, b"\x6a"), version=version)
    data = b"\x6a" + _push(vsize - with_nothing.vsize)
    tx = spend(coins, change, (0, data), version=version)
    assert tx.vsize == vsize
    return tx


def _push(size: int) -> bytes:
    """Return a push with which a script becomes so much larger, its length prefix included."""
    if size < 0x4C:
        return bytes((size - 1,)) + bytes(size - 1)
    if size + 1 < 0xFD:
        return b"\x4c" + bytes((size - 2,)) + bytes(size - 2)
    return b"\x4d" + (size - 5).to_bytes(2, "little") + bytes(size - 5)


def fee_at(sat_per_vb: float, *txs: Tx) -> int:
    vsize = sum(tx.vsize for tx in txs)
    return fee_sat_of(vsize=vsize, feerate_sat_per_kw=int(sat_per_vb * SAT_PER_VB))


def sent(world: World, *txs: Tx) -> None:
    for tx in txs:
        assert world.error("sendrawtransaction", hex_of(tx)) == (0, "")


def refusal(world: World, tx: Tx) -> str:
    """Return the node's own words, without the names of transactions."""
    tested = world.test(tx)[0]
    code, message = world.error("sendrawtransaction", hex_of(tx))
    assert code in {-25, -26}
    assert not tested["allowed"]
    assert message in {tested.get("reject-details"), "bad-txns-inputs-missingorspent"}
    return plain(message, tx)


def plain(message: str, *txs: Tx) -> str:
    for number, tx in enumerate(txs):
        name = f"<{number}>" if number else "<tx>"
        message = message.replace(f"{tx.txid} (wtxid={tx.wtxid})", name)
        message = message.replace(str(tx.txid), name)
    return message


@dataclass(frozen=True)
class Outcome:
    """What `submitpackage` said, comparable: satoshi, and transactions by their place."""

    message: str
    results: tuple[object, ...]
    replaced: frozenset[str] = frozenset()


def submitted(world: World, *txs: Tx) -> Outcome:
    """Offer a package. A transaction's result is its error, or its fee and what it was judged by:
    satoshi per 1000 virtual bytes, and the places of the transactions reckoned together.
    """
    answer = world.call("submitpackage", [hex_of(tx) for tx in txs])
    places = {str(tx.wtxid): place for place, tx in enumerate(txs)}
    results = []
    for tx in txs:
        result = answer["tx-results"][str(tx.wtxid)]
        assert result.pop("txid") == str(tx.txid)
        results.append(_shown(result, places, txs))
    return Outcome(
        message=plain(answer["package_msg"], *txs),
        results=tuple(results),
        replaced=frozenset(answer["replaced-transactions"]),
    )


def _shown(result: dict[str, Any], places: dict[str, int], txs: Sequence[Tx]) -> object:
    if "error" in result:
        return plain(result["error"], *txs)
    fees = result["fees"]
    base_sat = int(fees["base"] * SAT_PER_BTC)
    if "effective-feerate" not in fees:
        return base_sat
    includes = tuple(places[wtxid] for wtxid in fees["effective-includes"])
    return base_sat, int(fees["effective-feerate"] * SAT_PER_BTC), includes


def waiting(world: World) -> set[str]:
    return set(world.call("getrawmempool"))


def chunk_of(world: World, tx: Tx) -> tuple[int, int]:
    """Return the fee and the weight that a miner takes a transaction with."""
    entry = world.call("getmempoolentry", str(tx.txid))
    return int(entry["fees"]["chunk"] * SAT_PER_BTC), entry["chunkweight"]


def spender_of(world: World, coin: Coin) -> str | None:
    outpoint = {"txid": str(coin.outpoint.txid), "vout": coin.outpoint.vout}
    [answer] = world.call("gettxspendingprevout", [outpoint])
    found: str | None = answer.get("spendingtxid")
    return found
