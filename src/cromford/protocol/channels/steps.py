"""BOLT 2 with the peer of a link: which message goes where, and what a peer's update may be."""

from cromford import effects as fx
from cromford.channel.errors import PeerViolation
from cromford.protocol.channels.failing import fail
from cromford.protocol.channels.next_signing import is_settled
from cromford.protocol.channels.resuming import (
    heed_lost_state,
    on_reestablish,
    recall_point,
)
from cromford.protocol.channels.signing import (
    STALE,
    check_may_rebase,
    on_commitment_signed,
    on_revoke_and_ack,
)
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.encoding import UpdateMessage, journalled
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m


def on_message(turn: AnyTurn, link: Link, message: m.ChannelMessage) -> None:
    """Take one message about a channel; a peer that breaks the rules ends the channel.

    What comes before both sides have told where the channel stands is dropped: it belongs to an
    earlier connection.
    """
    if link.failure is not None:
        if isinstance(message, m.ChannelReestablish):
            heed_lost_state(turn, link, message)
            recall_point(turn, link, message)
        if not isinstance(message, m.ChannelFailure):
            turn.send(
                link.node_id, m.ChannelFailure(channel_id=link.channel_id, reason=link.failure)
            )
        return
    try:
        match message:
            case m.ChannelReestablish():
                on_reestablish(turn, link, message)
            case m.UpdateRebase():
                _on_rebase(turn, link, message)
            case m.UpdateAddHtlc() | m.UpdateFulfillHtlc() | m.UpdateFailHtlc():
                _on_update(turn, link, message)
            case m.CommitmentSigned():
                on_commitment_signed(turn, link, message)
            case m.RevokeAndAck():
                on_revoke_and_ack(turn, link, message)
            case m.ChannelFailure(reason=reason):
                fail(turn, link, f"the peer: {reason}", tells_peer=False)
    except PeerViolation as violation:
        fail(turn, link, str(violation))


def _on_update(turn: AnyTurn, link: Link, message: UpdateMessage) -> None:
    if not link.state.is_connected:
        return
    link.check_may_act(type(message).__name__)
    turn.remember(cr.UpdateReceived(channel_id=link.channel_id, message=journalled(message)))


def _on_rebase(turn: AnyTurn, link: Link, message: m.UpdateRebase) -> None:
    """Take the LSP's rebase: what was agreed, and only once nothing is lost by it.

    We hold the poisons, or see that the old state can never confirm: then to revoke what we have
    there takes nothing from us.
    """
    following = link.next
    if not link.state.is_connected:
        return
    if following is None or not following.is_dual:
        raise PeerViolation("update_rebase", expected="none", received=message.advance_id)
    for field, expected, received in (
        ("advance_id", following.advance_id, message.advance_id),
        ("capacity_sat", following.funding.capacity_sat, message.capacity_sat),
        ("price_msat", following.price_msat, message.price_msat),
    ):
        if received != expected:
            raise PeerViolation(field, expected=expected, received=received)
    if not following.may_rebase and not is_settled(following, turn.chain):
        raise PeerViolation(
            "update_rebase", expected="the old state's poisons first", received="none of them"
        )
    if not turn.facts.is_fresh:
        turn.ask(fx.Disconnect(node_id=link.node_id, reason=STALE, is_ours=True))
        return
    check_may_rebase(turn, link)
    _on_update(turn, link, message)
