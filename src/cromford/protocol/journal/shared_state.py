"""What records mean alike to both roles: blocks, and payments out of the wallet."""

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.records import BlockConnected
from cromford.protocol.journal.spending_records import SpendingWasSigned
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import Wallet


def connected(
    chain: KnownChain, wallet: Wallet, record: BlockConnected
) -> tuple[KnownChain, Wallet]:
    """Return what a role knows of the chain, and its wallet, after a block was connected."""
    txs = [Tx.parse(data) for data in record.txs]
    for tx in txs:
        wallet = wallet.with_tx(tx, record.height)
    block = BlockRef(height=record.height, block_hash=Txid(record.block_hash))
    return chain.with_block(block, txs), wallet


def with_spending(wallet: Wallet, record: SpendingWasSigned) -> Wallet:
    """Return the wallet after a payment was signed."""
    paid = wallet.with_spending(Tx.parse(record.tx))
    return paid.with_address_used(CHANGE) if record.has_change else paid
