"""Adding and removing HTLCs: the four updates of BOLT 2, proposed by us or by the peer.

An update changes no commitment yet; it waits for the next `commitment_signed`. `update_fee` does
not exist: the feerate is fixed.
"""

from typing import Final

from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.errors import PeerViolation, UpdateRefused
from cromford.channel.limits import check_add, check_exposure
from cromford.channel.messages import HtlcUpdate, UpdateAdd, UpdateFail, UpdateFulfill
from cromford.channel.scripts import PREIMAGE_SIZE
from cromford.channel.stage import HtlcStage, LiveHtlc, Removal
from cromford.channel.state import ChannelState
from cromford.channel.terms import Party
from cromford.crypto.keys import sha256

FAILURE_SIZE_MAX: Final = 1024  # A BOLT 4 failure is 292 bytes, with room for longer ones.


def propose_add(
    state: ChannelState,
    *,
    amount_msat: int,
    payment_hash: bytes,
    cltv_expiry: int,
    payload: bytes = b"",
) -> tuple[ChannelState, UpdateAdd]:
    """Offer an HTLC to the peer.

    Returns:
        The new state, and what to send.

    Raises:
        UpdateRefused: If a limit or our balance does not allow it, or the channel is paused.
    """
    check_connected(state)
    message = UpdateAdd(
        htlc_id=state.next_id(state.me),
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        cltv_expiry=cltv_expiry,
        payload=payload,
    )
    live = _live_htlc(message, state.me)
    check_add(state, live)
    check_exposure(state, live)
    return _with_sent(state.with_added(live), message), message


def take_back_adds(state: ChannelState, first_id: int) -> ChannelState:
    """Return the state without the HTLCs that we offered from an id on, as if they never were.

    Only what no signature covers may be taken back. The peer has not heard of it, because an update
    travels together with the signature that covers it.

    Raises:
        UpdateRefused: If there is none, or one of them was signed.
    """
    taken = [
        live
        for live in state.htlcs
        if live.htlc.offered_by is state.me and live.htlc.htlc_id >= first_id
    ]
    if not taken or any(live.stage is not HtlcStage.ADD_PROPOSED for live in taken):
        raise UpdateRefused("id", expected="HTLCs that were never signed", received=first_id)
    next_ids = list(state.next_ids)
    next_ids[state.me] = first_id
    return changed(
        state,
        htlcs=tuple(live for live in state.htlcs if live not in taken),
        unacked=tuple(
            update
            for update in state.unacked
            if not (isinstance(update, UpdateAdd) and update.htlc_id >= first_id)
        ),
        next_ids=(next_ids[0], next_ids[1]),
    )


def propose_fulfill(
    state: ChannelState, htlc_id: int, preimage: bytes
) -> tuple[ChannelState, UpdateFulfill]:
    """Take an HTLC that the peer offered.

    Returns:
        The new state, and what to send.

    Raises:
        UpdateRefused: If it is not locked in, is being removed already, or the preimage is not
            its own; or the channel is paused.
    """
    check_connected(state)
    message = UpdateFulfill(htlc_id=htlc_id, preimage=preimage)
    return _with_sent(_with_removal(state, state.peer, message), message), message


def propose_fail(
    state: ChannelState, htlc_id: int, reason: bytes
) -> tuple[ChannelState, UpdateFail]:
    """Give an HTLC back that the peer offered.

    Returns:
        The new state, and what to send.

    Raises:
        UpdateRefused: If it is not locked in or is being removed already, the reason is too
            long, or the channel is paused.
    """
    check_connected(state)
    message = UpdateFail(htlc_id=htlc_id, reason=reason)
    return _with_sent(_with_removal(state, state.peer, message), message), message


def receive_update(state: ChannelState, message: HtlcUpdate) -> ChannelState:
    """Return the state after an update arrived.

    The preimage of an `UpdateFulfill` may be used from now on, whatever happens next.

    Raises:
        PeerViolation: If the peer must not have sent it; names the field.
    """
    try:
        check_connected(state)
        if isinstance(message, UpdateAdd):
            live = _live_htlc(message, state.peer)
            check_add(state, live)
            return state.with_added(live)
        return _with_removal(state, state.me, message)
    except UpdateRefused as error:
        raise PeerViolation(
            error.field, expected=error.expected, received=error.received
        ) from error


def check_connected(state: ChannelState) -> None:
    """Check that both parties have exchanged `channel_reestablish`.

    Raises:
        UpdateRefused: If not: nothing may flow before.
    """
    if not state.is_connected:
        raise UpdateRefused("channel_reestablish", expected="exchanged", received="not yet")


def _live_htlc(message: UpdateAdd, offered_by: Party) -> LiveHtlc:
    return LiveHtlc(
        htlc=Htlc(
            offered_by=offered_by,
            htlc_id=message.htlc_id,
            amount_msat=message.amount_msat,
            payment_hash=message.payment_hash,
            cltv_expiry=message.cltv_expiry,
        ),
        payload=message.payload,
    )


def _with_sent(state: ChannelState, message: HtlcUpdate) -> ChannelState:
    return changed(state, unacked=(*state.unacked, message))


def _with_removal(
    state: ChannelState, offered_by: Party, message: UpdateFulfill | UpdateFail
) -> ChannelState:
    live = state.find(offered_by, message.htlc_id)
    if live is None or live.stage is not HtlcStage.LOCKED_IN:
        received = "unknown" if live is None else live.stage.name.lower()
        raise UpdateRefused("id", expected="an HTLC that is locked in", received=received)
    return state.with_changed(live.at(HtlcStage.REMOVE_PROPOSED, _removal(live.htlc, message)))


def _removal(htlc: Htlc, message: UpdateFulfill | UpdateFail) -> Removal:
    if isinstance(message, UpdateFail):
        if len(message.reason) > FAILURE_SIZE_MAX:
            raise UpdateRefused(
                "reason",
                expected=f"at most {FAILURE_SIZE_MAX} bytes",
                received=f"{len(message.reason)} bytes",
            )
        return Removal(reason=message.reason)
    # The script demands 32 bytes, so a longer preimage of the same hash would be worthless.
    if len(message.preimage) != PREIMAGE_SIZE or sha256(message.preimage) != htlc.payment_hash:
        raise UpdateRefused(
            "payment_preimage",
            expected=f"{PREIMAGE_SIZE} bytes with the hash {htlc.payment_hash.hex()}",
            received="another preimage",
        )
    return Removal(preimage=message.preimage)
