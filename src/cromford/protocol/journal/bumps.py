"""The children that pay for fundings without a block: which there are, and the coins in them.

Once signed, a child is a payment of the wallet like any other: what it spends is set aside, and a
block that has it, or another spend of its coins, ends it.
"""

from dataclasses import dataclass
from typing import Final

from immutables import Map

from cromford.bitcoin.tx import Tx, TxOut
from cromford.factory.funding import CHANGE_VOUT
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.known_chain import KnownChain
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import Wallet

SETTLED_DEPTH: Final = 100  # From here on nobody asks what paid for a funding.


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingBump:
    """A child that pays for a funding, out of its change.

    Attributes:
        funding: The funding transaction, signed.
        child: What spends its change first, unsigned.
        fee_sat: What the child pays.
    """

    funding: Tx
    child: Tx
    fee_sat: int

    @property
    def change(self) -> TxOut:
        """What the child's first input spends."""
        return self.funding.outputs[CHANGE_VOUT]


Bumps = Map[bytes, FundingBump]  # by attempt id


def with_bump(bumps: Bumps, wallet: Wallet, record: lr.FundingBumped) -> tuple[Bumps, Wallet]:
    """Return bumps and wallet with a child, in the place of any before it."""
    funding, child = Tx.parse(record.funding), Tx.parse(record.tx)
    bumps, wallet = without_bump(bumps, wallet, record.attempt_id)
    if child.outputs[0].script_pubkey == wallet.next_script(CHANGE):
        wallet = wallet.with_address_used(CHANGE)
    # Reserved without a gap: a crash may come before it is signed.
    spent = [tx_in.outpoint for tx_in in child.inputs]
    bump = FundingBump(funding=funding, child=child, fee_sat=record.fee_sat)
    return bumps.set(record.attempt_id, bump), wallet.with_reserved(spent, child.txid)


def without_bump(bumps: Bumps, wallet: Wallet, attempt_id: bytes) -> tuple[Bumps, Wallet]:
    """Return bumps and wallet without the child of a funding: what it spends is free again."""
    bump = bumps.get(attempt_id)
    if bump is None:
        return bumps, wallet
    return bumps.delete(attempt_id), wallet.without_payment(bump.child.txid)


def unsettled(bumps: Bumps, chain: KnownChain) -> Bumps:
    """Return the bumps without those whose funding is deep in the chain."""
    for attempt_id, bump in bumps.items():
        if chain.depth(bump.funding.txid) >= SETTLED_DEPTH:
            bumps = bumps.delete(attempt_id)
    return bumps
