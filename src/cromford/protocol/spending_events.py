"""What operators ask of a role's wallet, and the signatures that follow."""

from dataclasses import dataclass

from cromford.bitcoin.tx import Tx, Txid
from cromford.effects import SignSpending


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRequested:
    """The operator wants a fresh wallet address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingRequested:
    """The operator pays out of the wallet; without an amount, all that is free.

    By one `external_id` it pays once.
    """

    script_pubkey: bytes
    amount_sat: int | None
    feerate_sat_per_kw: int
    external_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRequested:
    """The operator wants coins of one amount each; without an amount, out of all that is free.

    By one `external_id` they are made once.
    """

    n_coins: int
    amount_sat: int | None
    feerate_sat_per_kw: int
    external_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingBumpRequested:
    """The operator lets a payment without a block pay more: another takes its place (BIP 125).

    Attributes:
        txid: The payment.
        feerate_sat_per_kw: What the other one is to pay.
        takes_from_amount: Whether its payee pays for it, and not the change or other coins.
        incremental_sat_per_kw: What our node asks for the relay of a replacement.
        others_sat: What is paid, by our node, by transactions that hang on the payment.
    """

    txid: Txid
    feerate_sat_per_kw: int
    takes_from_amount: bool
    incremental_sat_per_kw: int
    others_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingSigned:
    """Answers `SignSpending`."""

    asked: SignSpending
    tx: Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonRequested:
    """The operator gives up a payment that our node has just refused, with this reason."""

    txid: Txid
    reason: str
