"""What may be added to a channel: BOLT 2's limits, evaluated alike by both parties.

Each is evaluated on the receiver's next commitment. Messages arrive in order, so both parties
then see the same commitment, and a limit exceeded is the sender's doing beyond doubt.
"""

from typing import Final

from cromford import told
from cromford.bitcoin.timelock import LOCKTIME_THRESHOLD
from cromford.channel.content import Htlc
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import Edition, LiveHtlc
from cromford.channel.state import PAYLOAD_SIZE_MAX, ChannelState
from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms, Party

PAYMENT_HASH_SIZE: Final = 32


def check_add(state: ChannelState, live: LiveHtlc) -> None:
    """Check that an HTLC may be added, whoever offers it.

    Raises:
        UpdateRefused: If it may not; names the first field that is out of bounds.
    """
    htlc, terms = live.htlc, state.terms
    sender = htlc.offered_by
    _check_fields(live, state)
    content = state.with_added(live).content(sender.other, Edition.NEXT)
    offered = [other for other in content.htlcs if other.offered_by is sender]
    offered_msat = sum(other.amount_msat for other in offered)
    trimmed_msat = sum(_trimmed_msat(other, sender.other, terms) for other in offered)
    _check_at_most("max_accepted_htlcs", terms.max_accepted_htlcs, len(offered))
    _check_at_most("max_htlc_value_in_flight_msat", terms.max_in_flight_msat, offered_msat)
    _check_at_most("max_dust_htlc_exposure_msat", terms.max_dust_exposure_msat, trimmed_msat)
    # Of the commitment, which may be for the next funding: what is settled changes for both parties
    # at different times, and an HTLC may leave in between.
    reserve_msat = MSAT_PER_SAT * terms.reserve_sat(sender, capacity_sat=content.capacity_sat)
    reserve_msat += state.reserved_msat_of(sender, Edition.NEXT)
    balance_msat = content.balance_msat(sender)
    if balance_msat < reserve_msat:
        raise UpdateRefused(
            "amount_msat",
            expected=f"at most {told.msat(htlc.amount_msat + balance_msat - reserve_msat)}, "
            f"so that a reserve of {told.msat(reserve_msat)} stays",
            received=htlc.amount_msat,
        )


def check_exposure(state: ChannelState, live: LiveHtlc) -> None:
    """Check what would be lost to fees if either commitment confirmed, counting all on its way.

    It counts the HTLCs of both parties, so only the sender can check it: the receiver cannot blame
    a sender that has not yet seen what the receiver sent meanwhile. What both add at the same
    moment is found by `is_overexposed`.

    Raises:
        UpdateRefused: If the trimmed HTLCs of either commitment would hold too much together.
    """
    for holder in Party:
        added_msat = _trimmed_msat(live.htlc, holder, state.terms)
        if added_msat:
            _check_at_most(
                "max_dust_htlc_exposure_msat",
                state.terms.max_dust_exposure_msat,
                added_msat + pending_exposure_msat(state, holder),
            )


def is_overexposed(state: ChannelState, htlc: Htlc) -> bool:
    """Say whether a received HTLC must be failed back: trimmed HTLCs hold too much together.

    Nobody's fault: both parties added at the same moment (BOLT 2). No preimage may be shown.
    """
    return any(
        _trimmed_msat(htlc, holder, state.terms)
        and pending_exposure_msat(state, holder) > state.terms.max_dust_exposure_msat
        for holder in Party
    )


def pending_exposure_msat(state: ChannelState, holder: Party) -> int:
    """Return what trimmed HTLCs may hold on any commitment of a holder that can still come."""
    return sum(_trimmed_msat(live.htlc, holder, state.terms) for live in state.htlcs)


def check_cltv_expiry(cltv_expiry: int, *, least_height: int, most_height: int) -> None:
    """Check that an HTLC's expiry leaves time to act, and is not absurdly far.

    The heights follow from each party's own view of the chain, so an HTLC outside of them is
    failed back, never held against the peer.

    Raises:
        UpdateRefused: If the expiry is not in `least_height` to `most_height`.
    """
    if not least_height <= cltv_expiry <= most_height:
        raise UpdateRefused(
            "cltv_expiry", expected=f"{least_height}..{most_height}", received=cltv_expiry
        )


def _check_fields(live: LiveHtlc, state: ChannelState) -> None:
    htlc = live.htlc
    next_id = state.next_id(htlc.offered_by)
    if htlc.htlc_id != next_id:
        raise UpdateRefused("id", expected=next_id, received=htlc.htlc_id)
    if htlc.amount_msat < state.terms.htlc_minimum_msat:
        raise UpdateRefused(
            "htlc_minimum_msat",
            expected=f"at least {told.msat(state.terms.htlc_minimum_msat)}",
            received=htlc.amount_msat,
        )
    if not 0 < htlc.cltv_expiry < LOCKTIME_THRESHOLD:
        raise UpdateRefused(
            "cltv_expiry", expected=f"1..{LOCKTIME_THRESHOLD - 1}", received=htlc.cltv_expiry
        )
    if len(htlc.payment_hash) != PAYMENT_HASH_SIZE:
        raise UpdateRefused(
            "payment_hash",
            expected=f"{PAYMENT_HASH_SIZE} bytes",
            received=f"{len(htlc.payment_hash)} bytes",
        )
    _check_at_most("payload bytes", PAYLOAD_SIZE_MAX, len(live.payload))


def _check_at_most(field: str, limit: int, received: int) -> None:
    if received > limit:
        raise UpdateRefused(
            field, expected=f"at most {told.shown(field, limit)}", received=received
        )


def _trimmed_msat(htlc: Htlc, holder: Party, terms: ChannelTerms) -> int:
    is_trimmed = terms.is_trimmed(htlc.amount_msat, is_offered=htlc.offered_by is holder)
    return htlc.amount_msat if is_trimmed else 0
