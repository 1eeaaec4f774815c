"""`commitment_signed` and `revoke_and_ack`: how updates become commitments (BOLT 2).

A party never signs a second commitment before the first was revoked, so of each side at most two
commitments can be broadcast safely for its holder: the latest, and until its revocation the one
before.
"""

from dataclasses import dataclass

from cromford.changed import changed
from cromford.channel.content import CommitmentContent
from cromford.channel.errors import PeerViolation, UpdateRefused
from cromford.channel.messages import CommitmentDue, RevocationDue
from cromford.channel.secret_store import InconsistentSecret
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc, LiveRebase, UpdateStep
from cromford.channel.state import ChannelState
from cromford.channel.terms import Party
from cromford.channel.updates import check_connected
from cromford.crypto.keys import is_pubkey, is_seckey, pubkey_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a revocation made final, besides the new state.

    Attributes:
        state: The new state.
        locked_in: HTLCs that both parties are now bound to: forward or answer those of the peer.
        rebase: The rebase that both parties are now bound to, if this completed one.
        gone: HTLCs that ended, each with its removal: resolve what depended on ours.
    """

    state: ChannelState
    locked_in: tuple[LiveHtlc, ...]
    gone: tuple[LiveHtlc, ...]
    rebase: LiveRebase | None = None


def receive_channel_ready(state: ChannelState, second_point: bytes) -> ChannelState:
    """Return the state after `channel_ready` brought the peer's second per-commitment point.

    A repeated one is ignored (BOLT 2).

    Raises:
        PeerViolation: If it is not a point.
    """
    _check_point("second_per_commitment_point", second_point)
    if state.peer_next_point is not None:
        return state
    return changed(state, peer_next_point=second_point)


def has_changes(state: ChannelState, holder: Party) -> bool:
    """Say whether the next commitment of a holder would have an update that the latest has not."""
    signer, rebase = holder.other, state.rebase
    if rebase is not None and rebase.is_moved(UpdateStep.SIGN, signer):
        return True
    return any(live.is_moved(UpdateStep.SIGN, signer) for live in state.htlcs)


def next_signing_due(state: ChannelState) -> CommitmentDue:
    """Return what to sign to get all updates so far into the peer's next commitment.

    Raises:
        UpdateRefused: If there is nothing new, the peer has not revoked the commitment before,
            its next point is not known, or the channel is paused.
    """
    check_connected(state)
    if state.awaits_revocation:
        raise UpdateRefused(
            "commitment_signed",
            expected=f"the revocation of commitment {state.peer_revoked} first",
            received="a second signature",
        )
    if state.peer_next_point is None:
        raise UpdateRefused("commitment_signed", expected="channel_ready first", received="none")
    if not has_changes(state, state.peer):
        raise UpdateRefused("commitment_signed", expected="an update", received="none")
    return CommitmentDue(
        content=state.content(state.peer, Edition.NEXT),
        per_commitment_point=state.peer_next_point,
    )


def sign_commitment(state: ChannelState) -> tuple[ChannelState, CommitmentDue]:
    """Sign all updates so far into the peer's next commitment.

    Returns:
        The new state, and what to sign and send.

    Raises:
        UpdateRefused: As `next_signing_due`.
    """
    due = next_signing_due(state)
    after = state.moved(
        UpdateStep.SIGN,
        state.me,
        peer_signed=state.peer_signed + 1,
        n_signed_updates=len(state.unacked),
        is_revocation_last=False,
    )
    return after, due


def signing_due(state: ChannelState, per_commitment_point: bytes) -> CommitmentDue:
    """Return what to sign for the peer's latest commitment."""
    return CommitmentDue(
        content=state.content(state.peer, Edition.SIGNED),
        per_commitment_point=per_commitment_point,
    )


def next_own_content(state: ChannelState) -> CommitmentContent:
    """Return what our next commitment must say, for which a `commitment_signed` came.

    Raises:
        PeerViolation: If the peer must not sign now.
    """
    _check_peer_may_act(state, "commitment_signed")
    if state.owes_revocation:
        raise PeerViolation(
            "commitment_signed",
            expected=f"to wait for the revocation of commitment {state.own_revoked}",
            received="a second signature",
        )
    if not has_changes(state, state.me):
        raise PeerViolation("commitment_signed", expected="an update", received="none")
    return state.content(state.me, Edition.NEXT)


def receive_commitment(state: ChannelState) -> tuple[ChannelState, CommitmentContent]:
    """Take a `commitment_signed` of the peer.

    The new state must be adopted, and journaled, only after every signature was found valid for
    a commitment with the returned content; then the revocation is owed.

    Returns:
        The new state, and what our new commitment must say.

    Raises:
        PeerViolation: As `next_own_content`.
    """
    content = next_own_content(state)
    return state.moved(UpdateStep.SIGN, state.peer, own_signed=content.number), content


def revoke(state: ChannelState) -> tuple[Settlement, RevocationDue]:
    """Revoke our commitment before the latest one.

    Returns:
        What follows, and what to send.

    Raises:
        UpdateRefused: If no revocation is owed, or the channel is paused.
    """
    check_connected(state)
    if not state.owes_revocation:
        raise UpdateRefused("revoke_and_ack", expected="a new commitment", received="none")
    number = state.own_revoked
    after = state.moved(
        UpdateStep.REVOKE, state.me, own_revoked=number + 1, is_revocation_last=True
    )
    return _settlement(state, after), RevocationDue(number=number)


def receive_revocation(state: ChannelState, *, secret: bytes, next_point: bytes) -> Settlement:
    """Take a `revoke_and_ack` of the peer.

    Args:
        state: The state so far.
        secret: The per-commitment secret of the peer's commitment before the latest.
        next_point: Its per-commitment point of the commitment after the latest.

    Raises:
        PeerViolation: If nothing was to be revoked, or the secret or the point is wrong.
    """
    _check_peer_may_act(state, "revoke_and_ack")
    if not state.awaits_revocation:
        raise PeerViolation("revoke_and_ack", expected="a signature first", received="none")
    _check_point("next_per_commitment_point", next_point)
    if not is_seckey(secret) or pubkey_of(secret) != state.peer_point:
        raise PeerViolation(
            "per_commitment_secret",
            expected=f"the secret of {state.peer_point.hex()}",
            received="another",
        )
    try:
        peer_secrets = state.peer_secrets.with_secret(secret)
    except InconsistentSecret as error:
        raise PeerViolation(
            "per_commitment_secret",
            expected="one of the same tree as those before (BOLT 3)",
            received="another",
        ) from error
    assert state.peer_next_point is not None  # noqa: S101 - nothing is signed without it
    after = state.moved(
        UpdateStep.REVOKE,
        state.peer,
        peer_secrets=peer_secrets,
        peer_point=state.peer_next_point,
        peer_next_point=next_point,
        unacked=state.unacked[state.n_signed_updates :],
        n_signed_updates=0,
    )
    return _settlement(state, after)


def _settlement(before: ChannelState, after: ChannelState) -> Settlement:
    left = {live.htlc for live in after.htlcs}
    were_locked_in = {live.htlc for live in before.htlcs if live.stage is HtlcStage.LOCKED_IN}
    return Settlement(
        state=after,
        locked_in=tuple(
            live
            for live in after.htlcs
            if live.stage is HtlcStage.LOCKED_IN and live.htlc not in were_locked_in
        ),
        gone=tuple(live for live in before.htlcs if live.htlc not in left),
        rebase=before.rebase if after.rebase is None else None,
    )


def _check_peer_may_act(state: ChannelState, message: str) -> None:
    if not state.is_connected:
        raise PeerViolation(message, expected="channel_reestablish first", received="none")


def _check_point(field: str, point: bytes) -> None:
    if not is_pubkey(point):
        raise PeerViolation(field, expected="a point on the curve", received=point)
