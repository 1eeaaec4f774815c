"""What a role knows of the chain, block by block, and which of a block's transactions it keeps."""

from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.frozen_state import ACCOUNT
from tests.protocol.houses import spend_of, txid_of

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.protocol.journal.known_chain import RECENT_BLOCKS, KnownChain, relevant_txs
from cromford.wallet.account import RECEIVE
from cromford.wallet.coins import new_wallet

COIN = OutPoint(txid=txid_of(1), vout=0)
OTHER = OutPoint(txid=txid_of(2), vout=0)


def block(height: int) -> BlockRef:
    return BlockRef(height=height, block_hash=txid_of(height))


def chain_of(*blocks: tuple[Tx, ...], first: int = 10) -> KnownChain:
    """Return a chain with these transactions, block by block."""
    chain = KnownChain()
    for height, txs in enumerate(blocks, start=first):
        chain = chain.with_block(block(height), txs)
    return chain


def test_a_transaction_is_as_deep_as_blocks_are_upon_it_and_gone_with_its_own() -> None:
    first, second = spend_of(COIN), spend_of(OTHER)
    chain = chain_of((first,), (), (second,))
    assert KnownChain().height == -1
    assert (chain.height, chain.recorded_height) == (12, 12)
    assert [chain.depth(tx.txid) for tx in (first, second)] == [3, 1]
    assert chain.spends == {COIN: first, OTHER: second}
    back = chain.without_block(12)
    assert (back.height, back.recorded_height) == (11, 11)
    assert [back.depth(tx.txid) for tx in (first, second)] == [2, 0]
    assert back.spends == {COIN: first}
    early = chain.without_block(11)
    assert (early.height, early.depth(first.txid), early.depth(second.txid)) == (10, 1, 0)
    none = chain.without_block(10)
    assert (none.height, none.recorded_height, none.spends) == (-1, 9, {})


def test_the_newest_blocks_are_remembered_and_no_more() -> None:
    chain = chain_of(*(() for _ in range(RECENT_BLOCKS + 3)))
    assert len(chain.recent) == RECENT_BLOCKS
    assert [one.height for one in chain.recent] == [*range(13, 13 + RECENT_BLOCKS)]


def test_what_a_node_refused_is_known_until_a_block_has_it() -> None:
    tx = spend_of(COIN)
    chain = chain_of(()).with_refusal(tx.txid, "min relay fee not met, 2 < 154")
    chain = chain.with_refusal(tx.txid, "txn-mempool-conflict").with_refusal(txid_of(9), "other")
    assert chain.refused[tx.txid] == ("min relay fee not met", "txn-mempool-conflict")
    assert chain.with_block(block(11), ()).refused == chain.refused
    assert chain.with_block(block(11), (tx,)).refused == {txid_of(9): ("other",)}


def test_what_else_spends_a_coin_of_a_transaction_is_its_rival_and_the_deepest_counts() -> None:
    tx = replace(spend_of(COIN), inputs=(*spend_of(COIN).inputs, *spend_of(OTHER).inputs))
    rival, later = spend_of(COIN), spend_of(OTHER)
    chain = chain_of((rival,), (), (later,))
    assert chain.rival_depth(tx) == 3
    assert chain.rival_depth(tx, but={rival.txid}) == 1
    assert chain.rival_depth(tx, but={rival.txid, later.txid}) == 0
    assert chain_of((tx,)).rival_depth(tx) == 0, "it is no rival of its own"
    assert chain_of(()).rival_depth(tx) == 0


def script() -> bytes:
    return new_wallet(ACCOUNT).next_script(RECEIVE)


def kept(*txs: Tx, **watched: Any) -> tuple[Tx, ...]:
    """Return what is kept of a block, by a wallet that has one coin."""
    funding = spend_of(OTHER, pays=script())
    wallet = new_wallet(ACCOUNT).with_tx(funding, 5)
    wanted: dict[str, Any] = {"watched": frozenset(), "watched_outpoints": frozenset()}
    return relevant_txs(txs, wallet=wallet, **(wanted | watched))


def joined(*txs: Tx) -> Tx:
    """Return one transaction with the inputs of several."""
    return replace(txs[0], inputs=tuple(tx_in for tx in txs for tx_in in tx.inputs))


def test_strangers_are_not_kept() -> None:
    assert kept(spend_of(COIN), spend_of(OutPoint(txid=txid_of(7), vout=1))) == ()
    assert kept() == ()


@pytest.mark.parametrize("n_strangers", [0, 1])
def test_what_pays_the_wallet_and_what_spends_from_it_is_kept(n_strangers: int) -> None:
    """Whatever else it spends beside; and what spends in the same block what was paid in it."""
    strangers = [spend_of(OutPoint(txid=txid_of(7), vout=1))] * n_strangers
    coin = spend_of(OTHER, pays=script()).outpoint(0)
    spending = joined(*strangers, spend_of(coin))
    pays = spend_of(COIN, pays=script())
    after = joined(*strangers, spend_of(pays.outpoint(0)))
    assert kept(spending) == (spending,)
    assert kept(pays, after) == (pays, after)
    assert kept(after) == ()


@pytest.mark.parametrize("n_strangers", [0, 1])
def test_what_is_watched_and_all_that_it_creates_in_a_block_is_kept(n_strangers: int) -> None:
    strangers = [spend_of(OutPoint(txid=txid_of(7), vout=1))] * n_strangers
    tx = joined(*strangers, spend_of(COIN))
    child = joined(*strangers, spend_of(tx.outpoint(0)))
    grandchild = spend_of(child.outpoint(0))
    assert kept(tx, child, grandchild, watched={tx.txid}) == (tx, child, grandchild)
    assert kept(tx, child, grandchild, watched_outpoints={COIN}) == (tx, child, grandchild)
    assert kept(tx, child, grandchild, watched={child.txid}) == (child, grandchild)


def test_what_a_spend_of_the_wallet_pays_to_strangers_is_not_followed() -> None:
    coin = spend_of(OTHER, pays=script()).outpoint(0)
    spending = spend_of(coin)
    theirs = spend_of(spending.outpoint(0))
    assert kept(spending, theirs) == (spending,)
