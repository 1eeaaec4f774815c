"""How a wallet changes by what its operator does: both roles have one."""

from dataclasses import replace
from typing import assert_never

from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol.journal import spending_records as sr
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import Wallet


def with_spending_record(wallet: Wallet, record: sr.SpendingRecord) -> Wallet:
    """Return the wallet after remembering one thing."""
    match record:
        case sr.AddressIssued(change=change):
            return wallet.with_address_used(change)
        case sr.SpendingWasSigned():
            return _with_signed(wallet, record)
        case sr.SpendingAbandoned(txid=txid):
            return wallet.without_payment(Txid(txid))
        case sr.SpendingOvertaken(txid=txid, spent_by=spent_by):
            return replace(wallet, overtaken={**wallet.overtaken, Txid(txid): Txid(spent_by)})
        case _:
            assert_never(record)


def _with_signed(wallet: Wallet, record: sr.SpendingWasSigned) -> Wallet:
    tx, external_id, asked_sat = Tx.parse(record.tx), record.external_id, record.asked_sat
    if record.replaces:
        replaced = Txid(record.replaces)
        wallet = wallet.without_payment(replaced)
        called = wallet.called.get(replaced)
        if called is not None:
            external_id, asked_sat = called.external_id, called.asked_sat
    spent = wallet.with_spending(tx)
    if external_id:
        spent = spent.with_called(tx, external_id, asked_sat)
    return spent.with_address_used(CHANGE) if record.has_change else spent
