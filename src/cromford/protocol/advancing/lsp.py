"""The LSP's side of an advance: everybody agrees, everybody signs, then each channel is rebased."""

from typing import assert_never

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.advancing import agreeing, completing, rebasing
from cromford.protocol.advancing.agreeing import begin
from cromford.protocol.advancing.ending import (
    advance_named,
    advances_in_order,
    give_up,
    node_id_of,
)
from cromford.protocol.advancing.making import is_quiet_at_our_side
from cromford.protocol.advancing.rules import links_of
from cromford.protocol.advancing.telling import tell_states
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advance_fold import is_to_be_quiet
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

__all__ = [
    "begin",
    "go_on",
    "on_block",
    "on_deadline",
    "on_disconnection",
    "on_partial_signed",
    "on_signing_failed",
    "on_start",
    "take",
    "take_message",
    "tell_if_restored",
]


def take(turn: Turn[Factory], event: ev.AdvanceEvent) -> None:
    """Take an answer of our signer."""
    match event:
        case ev.AdvancePrepared():
            agreeing.on_prepared(turn, event)
        case ev.AdvanceUnprepared():
            agreeing.on_unprepared(turn, event)
        case ev.NextSigned():
            agreeing.on_next_signed(turn, event)
        case ev.NextHalfMade():
            completing.on_half_made(turn, event)
        case ev.NextSigningFailed(asked=asked, reason=reason):
            _on_failed(turn, asked.advance_id, reason)
        case _:
            assert_never(event)


def take_message(turn: Turn[Factory], node_id: bytes, message: m.AdvanceMessage) -> None:
    """Take what a client says about an advance of its leaf; of one that is over it is dropped."""
    client = turn.state.attempt.client_of(node_id)
    advance = advance_named(turn.state, message.advance_id)
    if client is None or advance is None or client not in advance.clients:
        return
    match message:
        case m.AdvanceAgree():
            agreeing.on_agree(turn, advance, client, message)
        case m.AdvanceSign():
            completing.on_sign(turn, advance, client, message)
        case m.AdvanceHeld():
            completing.on_held(turn, advance, client)
        case m.AdvanceAbort():
            agreeing.on_abort(turn, advance, client, message)
        case m.AdvancePropose() | m.AdvanceCommit() | m.AdvanceDone():
            raise AssertionError(f"{type(message).__name__} is an LSP's message")
        case _:
            assert_never(message)


def tell_if_restored(
    turn: Turn[Factory], node_id: bytes, message: m.ChannelMessage | m.MarkMessage
) -> None:
    """Tell a client whose store lost state, as it says, what became of its leaf."""
    link = turn.book.links.get(message.channel_id)
    if link is None or link.node_id != node_id or link.client in turn.state.held_keys:
        return
    if isinstance(message, m.StoreMarked | m.ChannelReestablish) and link.peer_is_behind:
        tell_states(turn, link)


def on_partial_signed(turn: Turn[Factory], event: ev.PartialSigned) -> None:
    """Take our own partial signatures."""
    completing.on_partial_signed(turn, event)
    go_on(turn)


def on_signing_failed(turn: Turn[Factory], event: ev.SigningFailed) -> None:
    """Begin again with fresh nonces: what is signed stays signed."""
    _on_failed(turn, event.asked.advance_id, event.reason)


def _on_failed(turn: Turn[Factory], advance_id: bytes, reason: str) -> None:
    advance = advance_named(turn.state, advance_id)
    if advance is not None:
        give_up(turn, advance, f"our signer: {reason}")


def on_start(turn: Turn[Factory]) -> None:
    """Drop what a restart voids; what is committed goes on once its clients are back."""
    for advance in advances_in_order(turn.state):
        if not advance.is_committed:
            give_up(turn, advance, "the LSP restarted")


def on_disconnection(turn: Turn[Factory], node_id: bytes) -> None:
    """End what needs the nonces of a client's connection; before the record that it is over."""
    client = turn.state.attempt.client_of(node_id)
    if client is None:
        return
    for advance in advances_in_order(turn.state):
        if client in advance.clients and (advance.session is not None or advance.is_asking):
            give_up(turn, advance, f"client {client} disconnected", gone={node_id})


def on_deadline(turn: Turn[Factory], deadline: fx.AdvanceDeadline) -> None:
    """End, or begin again, what was not finished in time, naming the holdouts."""
    advance = advance_named(turn.state, deadline.advance_id)
    if advance is None:
        return
    if advance.is_signed and not (advance.is_asking or advance.holdouts):
        return  # It comes late: nobody is asked for poisons, or all have answered.
    if advance.is_asking:
        holdouts = _not_quiet(turn, advance)
        reason = f"deadline: clients {list(holdouts)} did not come to be quiet in time"
    else:
        holdouts = advance.holdouts
        reason = f"deadline: no answer from clients {list(holdouts)}"
    give_up(turn, advance, reason, culprits=holdouts, is_late=True)


def _not_quiet(turn: Turn[Factory], advance: LspAdvance) -> tuple[int, ...]:
    """Return whose channels an advance waits for; of whoever is bound it waits for none."""
    links = [link for link in links_of(turn.state, advance.clients) if is_to_be_quiet(link)]
    return tuple(link.client for link in links if not is_quiet_at_our_side(link))


def on_block(turn: Turn[Factory]) -> None:
    """Do what a new height makes due, or possible."""
    for advance in advances_in_order(turn.state):
        rebasing.on_block(turn, advance)
        if advance.has_poisons and agreeing.may_poison(turn, advance):
            _tell_connected(turn, advance)
        agreeing.resume(turn, advance)
    go_on(turn)


def _tell_connected(turn: Turn[Factory], advance: LspAdvance) -> None:
    """Send poisons that could not leave before, or got lost: once a block is often enough."""
    for client in advance.clients:
        if turn.facts.directory.is_connected(node_id_of(turn.state, client)):
            completing.tell_signed(turn, advance, client)


def go_on(turn: Turn[Factory], *, leaf: str | None = None) -> None:
    """Do all that can be done now: ask whom is to be asked, rebase what can be rebased.

    Args:
        turn: The decision so far.
        leaf: The one whose advance may have changed; None for any.
    """
    for advance in advances_in_order(turn.state, leaf=leaf):
        client = _back_in_this_turn(turn, advance)
        if client is not None:
            completing.heed_return(turn, advance, client)
        for step in (_resume_if_back, _ask, _sign, _rebase, _end):
            now = advance_named(turn.state, advance.advance_id)
            if now is not None:
                step(turn, now)


def _resume_if_back(turn: Turn[Factory], advance: LspAdvance) -> None:
    if _back_in_this_turn(turn, advance) is not None:
        agreeing.resume(turn, advance)


def _ask(turn: Turn[Factory], advance: LspAdvance) -> None:
    if advance.is_asking:
        agreeing.ask_when_quiet(turn, advance)


def _sign(turn: Turn[Factory], advance: LspAdvance) -> None:
    if advance.is_signed:
        completing.sign_what_can_be(turn, advance.advance_id)


def _rebase(turn: Turn[Factory], advance: LspAdvance) -> None:
    rebasing.rebase_what_can_be(turn, advance)


def _end(turn: Turn[Factory], advance: LspAdvance) -> None:
    rebasing.end_what_is_done(turn, advance)


def _back_in_this_turn(turn: Turn[Factory], advance: LspAdvance) -> int | None:
    """Return the client of an advance that told in this turn where its channel stands.

    Of a channel that failed it tells nothing more: that we begin with it again is as good.
    """
    back: cr.ChannelReestablished | cr.ChannelFailed | cr.ChannelPrepared | None
    back = turn.first(cr.ChannelReestablished) or turn.first(cr.ChannelFailed)
    if back is None:
        back = turn.first(cr.ChannelPrepared)
        if back is None or turn.link(back.channel_id).failure is None:
            return None
    link = turn.link(back.channel_id)
    return link.client if link.client in advance.clients else None
