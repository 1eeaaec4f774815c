"""A funding that waits is replaced by a higher candidate of its fee ladder.

It was signed in the ceremony, with everything below it, so no client is asked. What takes the place
of a transaction pays for all that goes with it: BIP 125, rules 3 and 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, fee_sat_of, sat_per_vb
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.house import House
from cromford.protocol.lobby.bumping import (
    check_change_is_free,
    check_waits,
    funding_fee_sat,
    not_signed,
    signed_entry,
)
from cromford.protocol.turn import Turn
from cromford.watch.feerates import OwnFees


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacementPlan:
    """A candidate that takes the published one's place. Amounts in sat.

    Attributes:
        rung: Its place in the ladder.
        tx: The candidate, signed.
        fee_sat: What it pays.
        least_sat: What it has to pay.
        replaces: The place of the one that is published: its own, if it took that place before.
        child_fee_sat: What a child of that one pays, which ends with it.
    """

    rung: int
    tx: Tx
    fee_sat: int
    least_sat: int
    replaces: int
    child_fee_sat: int

    @property
    def feerate_sat_per_kw(self) -> int:
        """What the candidate pays by itself."""
        return 1000 * self.fee_sat // self.tx.weight

    @property
    def is_made(self) -> bool:
        """Whether the candidate is published already: asked again, it takes nothing's place."""
        return self.replaces == self.rung


def planned(
    house: House, attempt_id: bytes, fundings: Sequence[Tx], *, rung: int | None, fees: OwnFees
) -> ReplacementPlan:
    """Return the candidate that takes the place of the one that is published, or did so before.

    Args:
        house: The house.
        attempt_id: The factory's name.
        fundings: Its candidates, signed, lowest feerate first; empty while nobody may hear of them.
        rung: Which of them; None: the lowest that may.
        fees: What our own node asks for.

    Raises:
        Rejected: If there is no such funding without a block, its change is in use, it has no
            higher candidate, or that one pays too little: then with what would do.
    """
    entry = signed_entry(house, attempt_id)
    if not fundings:
        raise not_signed(attempt_id)
    check_waits(house, entry)
    if rung is not None and 0 < rung == entry.published:
        tx, fee_sat = fundings[rung], funding_fee_sat(house, entry, fundings[rung])
        return ReplacementPlan(
            rung=rung, tx=tx, fee_sat=fee_sat, least_sat=fee_sat, replaces=rung, child_fee_sat=0
        )
    check_change_is_free(house, attempt_id, fundings)
    if not entry.published < len(fundings) - 1:
        what = "it has no other candidate" if len(fundings) == 1 else "its highest is published"
        raise Rejected(
            "no_higher_candidate", f"{what}: `factory bump` lets a child of its change pay more"
        )
    if rung is not None and not entry.published < rung < len(fundings):
        raise Rejected(
            "invalid_candidate",
            f"candidate: expected {entry.published + 1}..{len(fundings) - 1}, received {rung}",
        )
    plans = [
        _plan(house, attempt_id, fundings, rung=one, fees=fees) for one in range(len(fundings))
    ]
    higher = plans[entry.published + 1 :]
    enough = [plan for plan in higher if plan.fee_sat >= plan.least_sat]
    chosen = plans[rung] if rung is not None else next(iter(enough), higher[-1])
    if chosen.fee_sat < chosen.least_sat:
        raise Rejected("feerate_too_low", _why_too_low(chosen, enough))
    return chosen


def least_sat_above(
    house: House, attempt_id: bytes, fundings: Sequence[Tx], *, vsize: int, fees: OwnFees
) -> int:
    """Return the least fee that takes the place of the published candidate, and of its child.

    What both pay, and the relay of the newcomer, at 0.1 sat/vB or what our own node asks for.
    """
    entry = house.entries[attempt_id]
    fee_sat = funding_fee_sat(house, entry, fundings[entry.published])
    incremental = max(MIN_RELAY_SAT_PER_KW, fees.incremental_sat_per_kw)
    relay_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=incremental)
    return fee_sat + _child_fee_sat(house, attempt_id) + relay_sat + 1


def on_replace_requested(
    turn: Turn[House], event: ev.FundingReplaceRequested, fundings: Sequence[Tx]
) -> None:
    """Remember which candidate is published from here on; the factory hears of it by mail.

    Whoever names the one that is published may not have heard the answer: nothing changes.

    Raises:
        Rejected: If it cannot be replaced; on a stale chain it may be in a block.
    """
    plan = planned(turn.state, event.attempt_id, fundings, rung=event.rung, fees=turn.facts.fees)
    if plan.is_made:
        return
    turn.check_fresh()
    turn.remember(
        lr.FundingReplaced(attempt_id=event.attempt_id, rung=plan.rung, fee_sat=plan.fee_sat)
    )


def _plan(
    house: House, attempt_id: bytes, fundings: Sequence[Tx], *, rung: int, fees: OwnFees
) -> ReplacementPlan:
    entry, tx = house.entries[attempt_id], fundings[rung]
    return ReplacementPlan(
        rung=rung,
        tx=tx,
        fee_sat=funding_fee_sat(house, entry, tx),
        least_sat=least_sat_above(house, attempt_id, fundings, vsize=tx.vsize, fees=fees),
        replaces=entry.published,
        child_fee_sat=_child_fee_sat(house, attempt_id),
    )


def _child_fee_sat(house: House, attempt_id: bytes) -> int:
    bump = house.bumps.get(attempt_id)
    return 0 if bump is None else bump.fee_sat


def _why_too_low(chosen: ReplacementPlan, enough: Sequence[ReplacementPlan]) -> str:
    child = " and its child" if chosen.child_fee_sat else ""
    if enough:
        rate = sat_per_vb(enough[0].feerate_sat_per_kw)
        remedy = f"candidate {enough[0].rung} would do, at {rate} sat/vB"
    else:
        remedy = "no candidate would do: `factory bump` lets a child pay more"
    return (
        f"fee_sat: expected at least {chosen.least_sat} to take the place of candidate "
        f"{chosen.replaces}{child}, received {chosen.fee_sat} of candidate {chosen.rung}; {remedy}"
    )
