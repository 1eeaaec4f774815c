"""The life of an HTLC: added in four steps, removed in four steps (BOLT 2, normal operation).

A rebase onto another funding is added by the same four steps, and is then over.

An update by one party first enters the other's commitment, and after the other revoked its old
one, the updater's. So an update passes four steps: the updater signs it (`commitment_signed`),
the other revokes, the other signs, the updater revokes. An HTLC is added by whoever offers it and
removed by the other. One table moves every HTLC of the channel.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from cromford.channel.content import Htlc
from cromford.channel.terms import Party


class HtlcStage(IntEnum):
    """How far an HTLC has come. Higher is later; it never goes back, but for a disconnect."""

    ADD_PROPOSED = 1
    ADD_SIGNED = 2
    ADD_ACKED = 3
    ADD_COUNTERSIGNED = 4
    LOCKED_IN = 5  # On both commitments, and no commitment without it is left.
    REMOVE_PROPOSED = 6
    REMOVE_SIGNED = 7
    REMOVE_ACKED = 8
    REMOVE_COUNTERSIGNED = 9
    GONE = 10  # On neither commitment, and none with it is left.

    __hash__ = int.__hash__  # An enum's own is a function of its name, in Python.


class UpdateStep(Enum):
    """What moves HTLCs."""

    SIGN = "commitment_signed"
    REVOKE = "revoke_and_ack"

    __hash__ = object.__hash__  # As above: it is looked up at every step.


# (step, whether the offerer takes it) -> stage before -> stage after.
_MOVES: Final[dict[tuple[UpdateStep, bool], dict[HtlcStage, HtlcStage]]] = {
    (UpdateStep.SIGN, True): {
        HtlcStage.ADD_PROPOSED: HtlcStage.ADD_SIGNED,
        HtlcStage.REMOVE_ACKED: HtlcStage.REMOVE_COUNTERSIGNED,
    },
    (UpdateStep.REVOKE, False): {
        HtlcStage.ADD_SIGNED: HtlcStage.ADD_ACKED,
        HtlcStage.REMOVE_COUNTERSIGNED: HtlcStage.GONE,
    },
    (UpdateStep.SIGN, False): {
        HtlcStage.ADD_ACKED: HtlcStage.ADD_COUNTERSIGNED,
        HtlcStage.REMOVE_PROPOSED: HtlcStage.REMOVE_SIGNED,
    },
    (UpdateStep.REVOKE, True): {
        HtlcStage.ADD_COUNTERSIGNED: HtlcStage.LOCKED_IN,
        HtlcStage.REMOVE_SIGNED: HtlcStage.REMOVE_ACKED,
    },
}


class Edition(Enum):
    """Which of a holder's commitments is asked for."""

    SIGNED = "signed"  # The latest that was signed.
    NEXT = "next"  # What `commitment_signed` would sign now.

    __hash__ = object.__hash__  # As above: it is looked up at every step.


# (edition, whether the holder offered it) -> the first stage that is on it, the first that is not.
_PRESENT: Final[dict[tuple[Edition, bool], tuple[HtlcStage, HtlcStage]]] = {
    (Edition.NEXT, False): (HtlcStage.ADD_PROPOSED, HtlcStage.REMOVE_ACKED),
    (Edition.SIGNED, False): (HtlcStage.ADD_SIGNED, HtlcStage.REMOVE_COUNTERSIGNED),
    (Edition.NEXT, True): (HtlcStage.ADD_ACKED, HtlcStage.REMOVE_PROPOSED),
    (Edition.SIGNED, True): (HtlcStage.ADD_COUNTERSIGNED, HtlcStage.REMOVE_SIGNED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Why an HTLC is removed: a preimage pays it, a reason gives it back (BOLT 4, opaque here)."""

    preimage: bytes | None = None
    reason: bytes = b""

    @property
    def is_paid(self) -> bool:
        """Whether the amount goes to the other party."""
        return self.preimage is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHtlc:
    """An HTLC with the stage it is in, and from `REMOVE_PROPOSED` on how it ends."""

    htlc: Htlc
    stage: HtlcStage = HtlcStage.ADD_PROPOSED
    removal: Removal | None = None
    payload: bytes = b""

    @property
    def is_paid(self) -> bool:
        """Whether it is removed by its preimage, so that the amount goes to the other party."""
        return self.removal is not None and self.removal.is_paid

    def moved(self, step: UpdateStep, by: Party) -> "LiveHtlc":
        """Return it after a party took a step; most often unchanged."""
        after = _MOVES[step, by is self.htlc.offered_by].get(self.stage)
        return self if after is None else self.at(after, self.removal)

    def is_moved(self, step: UpdateStep, by: Party) -> bool:
        """Say whether a step of a party moves it."""
        return self.stage in _MOVES[step, by is self.htlc.offered_by]

    def at(self, stage: HtlcStage, removal: Removal | None) -> "LiveHtlc":
        """Return it in another stage."""
        return LiveHtlc(htlc=self.htlc, stage=stage, removal=removal, payload=self.payload)

    def is_on(self, holder: Party, edition: Edition) -> bool:
        """Say whether a commitment of this holder has it."""
        first, end = _PRESENT[edition, holder is self.htlc.offered_by]
        return first <= self.stage < end

    def paid_msat_on(self, holder: Party, edition: Edition) -> int:
        """Return what a commitment of this holder has already moved to the other party for it."""
        _, end = _PRESENT[edition, holder is self.htlc.offered_by]
        return self.htlc.amount_msat if self.is_paid and self.stage >= end else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRebase:
    """A rebase with the stage it is in. The opener offers it; LOCKED_IN it is over."""

    growth_msat: int
    price_msat: int
    stage: HtlcStage = HtlcStage.ADD_PROPOSED

    def moved(self, step: UpdateStep, by: Party) -> "LiveRebase":
        """Return it after a party took a step; most often unchanged."""
        after = _MOVES[step, by is Party.OPENER].get(self.stage)
        if after is None:
            return self
        return LiveRebase(growth_msat=self.growth_msat, price_msat=self.price_msat, stage=after)

    def is_moved(self, step: UpdateStep, by: Party) -> bool:
        """Say whether a step of a party moves it."""
        return self.stage in _MOVES[step, by is Party.OPENER]

    @property
    def is_over(self) -> bool:
        """Whether both parties are bound to it: no commitment without it is left."""
        return self.stage is HtlcStage.LOCKED_IN

    def is_on(self, holder: Party, edition: Edition) -> bool:
        """Say whether a commitment of this holder has it."""
        first, _ = _PRESENT[edition, holder is Party.OPENER]
        return first <= self.stage
