"""After a disconnection: what is forgotten, what is told, what is sent again (BOLT 2).

A `commitment_signed` that the peer may have received is sent again with exactly the same updates,
never with others: then it signs the same bytes, and no second commitment of one number exists.
"""

from dataclasses import dataclass

from cromford.changed import changed
from cromford.channel.commits import signing_due
from cromford.channel.errors import FallenBehind, PeerViolation
from cromford.channel.messages import Outgoing, Reestablish, RevocationDue
from cromford.channel.secret_store import SECRET_SIZE
from cromford.channel.stage import HtlcStage
from cromford.channel.state import ChannelState
from cromford.channel.terms import Party
from cromford.crypto.keys import is_seckey, pubkey_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """What follows the peer's `channel_reestablish`.

    Attributes:
        state: The new state.
        resend: What to send, in this order.
        resends_channel_ready: Whether `channel_ready` goes before it: neither party can be sure
            that the other has it.
    """

    state: ChannelState
    resend: tuple[Outgoing, ...]
    resends_channel_ready: bool


def disconnect(state: ChannelState) -> ChannelState:
    """Return the state after the connection broke; harmless if it was broken already.

    Updates of the peer that it never signed are forgotten. Ours stay, to be sent again.
    """
    remaining, n_forgotten = [], 0
    for live in state.htlcs:
        is_peers_add = live.htlc.offered_by is state.peer
        if is_peers_add and live.stage is HtlcStage.ADD_PROPOSED:
            n_forgotten += 1
        elif not is_peers_add and live.stage is HtlcStage.REMOVE_PROPOSED:
            remaining.append(live.at(HtlcStage.LOCKED_IN, None))
        else:
            remaining.append(live)
    opener_id, accepter_id = state.next_ids
    next_ids = (
        (opener_id - n_forgotten, accepter_id)
        if state.peer is Party.OPENER
        else (opener_id, accepter_id - n_forgotten)
    )
    rebase = state.rebase
    if rebase is not None and rebase.stage is HtlcStage.ADD_PROPOSED:
        rebase = rebase if state.me is Party.OPENER else None
    return changed(
        state, htlcs=tuple(remaining), next_ids=next_ids, is_connected=False, rebase=rebase
    )


def reestablish_message(state: ChannelState) -> Reestablish:
    """Return the `channel_reestablish` to send."""
    n_revoked = state.peer_revoked
    return Reestablish(
        next_commitment_number=state.own_signed + 1,
        next_revocation_number=n_revoked,
        last_secret=(
            state.peer_secrets.secret_of(n_revoked - 1) if n_revoked else bytes(SECRET_SIZE)
        ),
    )


def claims_lost_state(state: ChannelState, message: Reestablish) -> bool:
    """Say whether the peer tells of less than it had when we last heard of it.

    Then it lost state, or says so untruly: nothing could prove it.
    """
    knows_less = message.next_revocation_number < state.own_revoked - 1
    return knows_less or message.next_commitment_number < _least_commitment_number(state)


def receive_reestablish(
    state: ChannelState, message: Reestablish, *, own_point: bytes | None
) -> Resumption:
    """Take the peer's `channel_reestablish`: updates may flow after what is to be sent again.

    Args:
        state: The state, disconnected.
        message: What the peer sent.
        own_point: Our per-commitment point of commitment `next_revocation_number` - 1, whose
            secret the peer must know; None if that is -1.

    Raises:
        FallenBehind: If the peer proves that we revoked more than we remember.
        PeerViolation: If its numbers or its secret cannot be.
        ValueError: If the channel is connected.
    """
    if state.is_connected:
        raise ValueError("channel_reestablish on a channel that is connected")
    _check_last_secret(message, own_point)
    _check_numbers(state, message)
    resends_revocation = message.next_revocation_number < state.own_revoked
    resends_signature = message.next_commitment_number == state.peer_signed
    revocation: tuple[Outgoing, ...] = (
        (RevocationDue(number=state.own_revoked - 1),) if resends_revocation else ()
    )
    signature: tuple[Outgoing, ...] = ()
    if resends_signature:
        assert state.peer_next_point is not None  # noqa: S101 - nothing is signed without it
        due = signing_due(state, state.peer_next_point)
        signature = (*state.unacked[: state.n_signed_updates], due)
    # What was first sent first comes first again, or the peer would sign something else.
    first, second = (signature, revocation) if state.is_revocation_last else (revocation, signature)
    return Resumption(
        state=changed(state, is_connected=True),
        resend=(*first, *second, *state.unacked[state.n_signed_updates :]),
        resends_channel_ready=message.next_commitment_number == 1 and state.own_signed == 0,
    )


def _check_last_secret(message: Reestablish, own_point: bytes | None) -> None:
    if message.next_revocation_number == 0:
        is_known = message.last_secret == bytes(SECRET_SIZE)
    else:
        is_known = is_seckey(message.last_secret) and pubkey_of(message.last_secret) == own_point
    if not is_known:
        raise PeerViolation(
            "your_last_per_commitment_secret",
            expected=f"ours of commitment {message.next_revocation_number - 1}",
            received="another",
        )


def _check_numbers(state: ChannelState, message: Reestablish) -> None:
    revoked, expected_revocation = message.next_revocation_number, state.own_revoked
    if revoked > expected_revocation:
        raise FallenBehind(remembered=expected_revocation, revoked=revoked)
    if revoked < expected_revocation - 1:
        raise PeerViolation(
            "next_revocation_number",
            expected=f"{expected_revocation - 1}..{expected_revocation}",
            received=revoked,
        )
    least = _least_commitment_number(state)
    if not least <= message.next_commitment_number <= state.peer_signed + 1:
        raise PeerViolation(
            "next_commitment_number",
            expected=f"{least}..{state.peer_signed + 1}",
            received=message.next_commitment_number,
        )


def _least_commitment_number(state: ChannelState) -> int:
    """Return the least `next_commitment_number` of a peer that lost nothing."""
    return state.peer_signed if state.awaits_revocation else state.peer_signed + 1
