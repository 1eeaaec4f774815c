"""The part of a client's state that is its blocks, its wallet, its channels, and its signatures."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.book_fold import apply_to_book
from cromford.protocol.journal.channel_records import BookRecord
from cromford.protocol.journal.intents import IntentKey, check_intents
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.spent import with_spending_record
from cromford.wallet.coins import Wallet

AlikeRecord = (
    r.Created
    | r.BlockConnected
    | r.BlockDisconnected
    | r.BroadcastRefusalSeen
    | sr.SpendingRecord
    | op.SigningIntended
    | BookRecord
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedState:
    """The part of a client's state that holds its blocks, coins, channels and signatures."""

    chain: KnownChain
    wallet: Wallet
    book: Book
    intents: Mapping[IntentKey, bytes]


def apply_alike(state: SharedState, record: AlikeRecord) -> SharedState:
    """Return this part after a record that concerns it.

    Raises:
        DoubleSigning: If a second sighash is intended for something that may be signed once.
    """
    if isinstance(record, BookRecord):
        return replace(state, book=apply_to_book(state.book, record))
    if isinstance(record, sr.SpendingRecord):
        return replace(state, wallet=with_spending_record(state.wallet, record))
    wallet = state.wallet
    match record:
        case r.Created():
            return state
        case r.BlockConnected():
            return _with_block(state, record)
        case r.BlockDisconnected(height=height):
            chain = state.chain.without_block(height)
            return replace(state, chain=chain, wallet=wallet.without_block(height))
        case r.BroadcastRefusalSeen(txid=txid, reason=reason):
            return replace(state, chain=state.chain.with_refusal(Txid(txid), reason))
        case op.SigningIntended(intents=intents):
            return replace(state, intents=check_intents(state.intents, intents))
        case _:
            assert_never(record)


def _with_block(state: SharedState, record: r.BlockConnected) -> SharedState:
    wallet, txs = state.wallet, [Tx.parse(data) for data in record.txs]
    for tx in txs:
        wallet = wallet.with_tx(tx, record.height)
    block = BlockRef(height=record.height, block_hash=Txid(record.block_hash))
    return replace(state, chain=state.chain.with_block(block, txs), wallet=wallet)
