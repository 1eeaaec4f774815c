"""Moving a channel onto its next funding: one update of the opener's, like an HTLC that only comes.

While a funding is being replaced every commitment is signed for both outpoints. The first that has
the rebase is for the new one alone; once both parties have one, the old outpoint is superseded.
"""

from cromford import told
from cromford.changed import changed
from cromford.channel.errors import PeerViolation, UpdateRefused
from cromford.channel.messages import Rebase
from cromford.channel.stage import Edition, LiveRebase
from cromford.channel.state import ChannelState
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.channel.updates import check_connected


def reserve(state: ChannelState, price_msat: int) -> ChannelState:
    """Return the state in which the accepter keeps the price of a rebase that is agreed on.

    It offers nothing out of it until the rebase is on the commitment, where it is paid; 0 ends it.
    """
    return changed(state, reserved_msat=price_msat)


def payable_msat(state: ChannelState) -> int:
    """Return what the accepter's balance carries, on either party's next commitment."""
    return min(state.content(holder, Edition.NEXT).balance_msat(Party.ACCEPTER) for holder in Party)


def can_pay(state: ChannelState, price_msat: int) -> bool:
    """Say whether the accepter's balance carries a price, on either party's next commitment."""
    return payable_msat(state) >= price_msat


def propose_rebase(state: ChannelState, message: Rebase) -> ChannelState:
    """Offer the rebase to the accepter.

    Raises:
        UpdateRefused: If one is under way, the balance does not carry the price, or the channel is
            paused.
        ValueError: If we are not the opener.
    """
    if state.me is not Party.OPENER:
        raise ValueError("the opener alone offers a rebase")
    check_connected(state)
    return changed(_with_rebase(state, message), unacked=(*state.unacked, message))


def receive_rebase(state: ChannelState, message: Rebase) -> ChannelState:
    """Return the state after the opener offered the rebase.

    Raises:
        PeerViolation: If it must not have; names the field.
    """
    if state.me is not Party.ACCEPTER:
        raise PeerViolation("update_rebase", expected="the opener's", received="the accepter's")
    try:
        check_connected(state)
        return _with_rebase(state, message)
    except UpdateRefused as error:
        raise PeerViolation(
            error.field, expected=error.expected, received=error.received
        ) from error


def _with_rebase(state: ChannelState, message: Rebase) -> ChannelState:
    if state.rebase is not None:
        raise UpdateRefused("update_rebase", expected="none under way", received="another")
    if not can_pay(state, message.price_msat):
        raise UpdateRefused(
            "price_msat",
            expected=f"at most {told.msat(payable_msat(state))}",
            received=message.price_msat,
        )
    growth_sat = message.capacity_sat - state.capacity_sat
    if growth_sat < 0:
        raise UpdateRefused(
            "capacity_sat", expected=f"at least {state.capacity_sat}", received=message.capacity_sat
        )
    rebase = LiveRebase(growth_msat=growth_sat * MSAT_PER_SAT, price_msat=message.price_msat)
    return changed(state, rebase=rebase)
