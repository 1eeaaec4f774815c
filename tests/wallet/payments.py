"""A wallet with test keys, and transactions that pay to it or spend from it."""

from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Final

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.signing.keychain import Keychain
from cromford.wallet.account import RECEIVE, Account, WalletPath
from cromford.wallet.coins import Wallet, new_wallet

SEED: Final = bytes(range(64))
STRANGER: Final = b"\x51\x20" + b"\x99" * 32
_numbers = count(1)


@cache
def keychain() -> Keychain:
    return Keychain(SEED, REGTEST, journal_number=7)


@cache
def account() -> Account:
    return Account(keychain().wallet_account)


@cache
def script(index: int, change: int = RECEIVE) -> bytes:
    return account().script(WalletPath(change=change, index=index))


@cache
def empty_wallet() -> Wallet:
    return new_wallet(account())


def tx_of(inputs: Sequence[OutPoint], outputs: Sequence[TxOut]) -> Tx:
    return Tx(
        version=2,
        inputs=tuple(TxIn(outpoint=outpoint, nsequence=0xFFFF_FFFD) for outpoint in inputs),
        outputs=tuple(outputs),
    )


def strangers_outpoint() -> OutPoint:
    """An output that no wallet has seen, another each time."""
    return OutPoint(txid=Txid(next(_numbers).to_bytes(32, "big")), vout=0)


def payment(*outputs: tuple[bytes, int]) -> Tx:
    """A transaction by a stranger that pays these scripts these amounts in sat."""
    txouts = [TxOut(amount_sat=amount, script_pubkey=to) for to, amount in outputs]
    return tx_of([strangers_outpoint()], txouts)


def coinbase(height: int, to: bytes, amount_sat: int) -> Tx:
    return Tx(
        version=2,
        inputs=(
            TxIn(
                outpoint=OutPoint(txid=Txid(bytes(32)), vout=0xFFFF_FFFF),
                nsequence=0xFFFF_FFFF,
                script_sig=height.to_bytes(4, "little"),
            ),
        ),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=to),),
    )


def spend(*outpoints: OutPoint, to: bytes = STRANGER, amount_sat: int = 1_000) -> Tx:
    return tx_of(outpoints, [TxOut(amount_sat=amount_sat, script_pubkey=to)])


def wallet_with(*amounts_sat: int, height: int = 1) -> Wallet:
    """A wallet with confirmed coins of these amounts, all to its first script."""
    wallet = empty_wallet()
    for amount_sat in amounts_sat:
        wallet = wallet.with_tx(payment((script(0), amount_sat)), height)
    return wallet
