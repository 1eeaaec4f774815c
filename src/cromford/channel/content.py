"""What one commitment says, before it has a funding outpoint, keys or bytes.

In terms of opener and accepter, never of "local" and "remote", so that both parties can compare.
"""

from dataclasses import dataclass

from cromford.changed import computed
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.crypto.ripemd160 import ripemd160


@dataclass(frozen=True, kw_only=True)
class Htlc:
    """A payment on its way, as BOLT 2 `update_add_htlc` offers it."""

    offered_by: Party
    htlc_id: int
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int

    @computed
    def payment_hash160(self) -> bytes:
        """What its script hashes a preimage to (BOLT 3): RIPEMD-160 of the payment hash."""
        return ripemd160(self.payment_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentContent:
    """Balances and HTLCs of one commitment.

    `holder` is who may broadcast it; `number` counts that party's commitments from 0. The HTLCs
    are in the order of (party, id); their amounts are not in the balances. One that `is_rebased`
    is for the funding that takes the place of the present one, and for no other.
    """

    holder: Party
    number: int
    opener_msat: int
    accepter_msat: int
    htlcs: tuple[Htlc, ...] = ()
    is_rebased: bool = False

    @property
    def htlcs_msat(self) -> int:
        """What all HTLCs hold."""
        return sum(htlc.amount_msat for htlc in self.htlcs)

    @property
    def capacity_sat(self) -> int:
        """What it spends, rounded down: all that it says is somebody's."""
        return (self.opener_msat + self.accepter_msat + self.htlcs_msat) // MSAT_PER_SAT

    def balance_msat(self, party: Party) -> int:
        """Return what a party has outside of HTLCs."""
        return self.opener_msat if party is Party.OPENER else self.accepter_msat
