"""The LSP's second half of an advance: what clients signed is finished, and told.

A client's channel half counts whether or not its try goes on: it is bound from its signature on.
The state is signed once every channel's latest commitments lie on it; that is the point of no
return for us. Poisons leave only while the leaf's kickoff is not on chain.
"""

from typing import Final

from cromford import effects as fx
from cromford.channel.errors import PeerViolation
from cromford.protocol import events as ev
from cromford.protocol.advancing.agreeing import may_poison
from cromford.protocol.advancing.ending import (
    advance_named,
    drop_pools,
    give_up_for_fault,
    is_intended,
    node_id_of,
)
from cromford.protocol.advancing.halves import finish_half, held_next, still_awaits
from cromford.protocol.advancing.landing import is_decided
from cromford.protocol.advancing.making import lies_on_next, own_intents
from cromford.protocol.advancing.rules import links_of, problem_with_closes
from cromford.protocol.advancing.sessions import (
    fault_of_partials,
    leaf_of,
    poison_requests,
    poison_signatures,
    state_requests,
    state_signature,
)
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.next_signing import is_settled
from cromford.protocol.channels.seats import link_of
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.next_funding import POISONS_HELD
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

NOT_EARNED: Final = "the poisons were not sent, and the new state is not known to be six deep"


def on_sign(turn: Turn[Factory], advance: LspAdvance, client: int, message: m.AdvanceSign) -> None:
    """Take what a client signed: from here on its channel is signed for both fundings."""
    link = link_of(turn.state, client)
    if link is None or link.next is None or link.next.advance_id != advance.advance_id:
        return
    try:
        finishing = finish_half(link, link.next, message.half, message)
    except PeerViolation as violation:
        end_updates(turn, link, str(violation))
        return
    partials = message.partials if _are_awaited(advance, client) else ()
    fault = None
    if partials:
        fault = fault_of_partials(turn.state, advance, client, partials[0])
    if fault is not None:
        give_up_for_fault(turn, advance, client, fault, is_late=True)
        return
    if finishing is None and not partials:
        return
    turn.remember(
        ar.AdvancePartialsReceived(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            client=client,
            message=encode_message(message),
        )
    )
    if finishing is not None:
        turn.ask(finishing)
    sign_what_can_be(turn, advance.advance_id)


def _are_awaited(advance: LspAdvance, client: int) -> bool:
    session = advance.session
    return session is not None and session.is_committed and client not in session.signed


def on_half_made(turn: Turn[Factory], event: ev.NextHalfMade) -> None:
    """Hold our latest commitment on the next funding, if the client's part of it is good."""
    link = turn.link(event.asked.channel_id)
    if not still_awaits(link, event):
        return
    try:
        held = held_next(event)
    except PeerViolation as violation:
        end_updates(turn, link, str(violation))
        return
    turn.remember(held)
    sign_what_can_be(turn, event.asked.advance_id)


def sign_what_can_be(turn: Turn[Factory], advance_id: bytes) -> None:
    """Sign the state once everybody did and nothing is missing on it; then the poisons."""
    state, advance = turn.state, advance_named(turn.state, advance_id)
    if advance is None or advance.session is None or not advance.session.is_committed:
        return
    if advance.holdouts:
        return
    links = links_of(state, advance.clients)
    if not all(lies_on_next(link) or link.next is None for link in links):
        return
    if advance.is_signed:
        if may_poison(turn, advance):
            _ask(turn, advance, poison_requests(state, advance))
        return
    if any(link.next is None or is_decided(turn, link) for link in links):
        return
    leaf = leaf_of(state, advance)
    if not is_intended(state, advance):
        if problem_with_closes(state, advance.clients) is not None:
            return
        intents = own_intents(leaf, advance.state_index)
        turn.remember(op.SigningIntended(attempt_id=state.attempt.attempt_id, intents=intents))
    _ask(turn, advance, state_requests(state, advance))


def _ask(turn: Turn[Factory], advance: LspAdvance, requests: tuple[fx.SignRequest, ...]) -> None:
    turn.ask(
        fx.PartialSign(
            attempt_id=turn.state.attempt.attempt_id,
            requests=requests,
            advance_id=advance.advance_id,
        )
    )


def on_partial_signed(turn: Turn[Factory], event: ev.PartialSigned) -> None:
    """Finish the state, or its predecessor's poisons, and tell every client."""
    advance = advance_named(turn.state, event.asked.advance_id)
    if advance is None or advance.session is None or advance.holdouts:
        return
    own = dict(event.partial_sigs)
    name = leaf_of(turn.state, advance).states[advance.state_index].task.name
    if name in own:
        _finish_state(turn, advance, own)
    else:  # They are asked for once the state is signed, and in no try after they were held.
        _finish_poisons(turn, advance, own)


def _finish_state(turn: Turn[Factory], advance: LspAdvance, own: dict[str, bytes]) -> None:
    if advance.is_signed:
        return
    turn.remember(
        ar.StateSigned(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            signature=state_signature(turn.state, advance, own),
        )
    )
    turn.ask(fx.ClearDeadline(deadline=fx.AdvanceDeadline(advance_id=advance.advance_id)))
    if not may_poison(turn, advance):  # Else the poisons are signed next, and told with it.
        tell_everybody(turn, advance.advance_id)


def _finish_poisons(turn: Turn[Factory], advance: LspAdvance, own: dict[str, bytes]) -> None:
    if not may_poison(turn, advance):
        # What nobody saw is forgotten; should the kickoff leave the chain, it is made again.
        tell_everybody(turn, advance.advance_id)
        return
    stock, channels = poison_signatures(turn.state, advance, own)
    turn.remember(
        ar.PoisonHeld(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            stock_signature=stock,
            clients=tuple(channels),
            channel_signatures=tuple(channels.values()),
        )
    )
    drop_pools(turn, advance)
    tell_everybody(turn, advance.advance_id)


def tell_everybody(turn: Turn[Factory], advance_id: bytes) -> None:
    """Send every client of the leaf that may lack it what is signed."""
    advance = advance_named(turn.state, advance_id)
    if advance is not None:
        for client in advance.clients:
            tell_signed(turn, advance, client)


def tell_signed(turn: Turn[Factory], advance: LspAdvance, client: int) -> None:
    """Send a client the new state, and the old one's poisons if they may leave now."""
    state = turn.state
    link = link_of(state, client)
    if client in advance.acknowledged or link is None or link.next is None:
        return
    states = state.attempt.leaves[state.attempt.leaf_name(client)]
    (signed,) = (one for one in states if one.advance_id == advance.advance_id)
    poisons = signed.poisons if may_poison(turn, advance) else None
    done = m.AdvanceDone(
        attempt_id=state.attempt.attempt_id,
        advance_id=advance.advance_id,
        state_signature=signed.signature,
        stock_poison=b"" if poisons is None else poisons.stock,
        channel_poison=b"" if poisons is None else poisons.channels[client],
    )
    turn.send(node_id_of(state, client), done)


def on_held(turn: Turn[Factory], advance: LspAdvance, client: int) -> None:
    """Hear that a client holds the poisons, or sees the new state six deep.

    It cannot hold what we never sent. That its view of the chain is ahead of ours is no fault.
    """
    link = link_of(turn.state, client)
    if client in advance.acknowledged or link is None or link.next is None:
        return
    if not advance.has_poisons and not is_settled(link.next, turn.chain):
        if may_poison(turn, advance):
            violation = PeerViolation("advance_held", expected="the poisons first", received="it")
            end_updates(turn, link, str(violation))
        else:
            turn.ask(fx.Disconnect(node_id=link.node_id, reason=NOT_EARNED))
        return
    turn.remember(
        ar.AdvanceAcknowledged(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            client=client,
        )
    )


def heed_return(turn: Turn[Factory], advance: LspAdvance, client: int) -> None:
    """Do what a client's word of its stage makes due: what it lacks, or what it holds already."""
    link = link_of(turn.state, client)
    if link is None or link.next is None:
        return
    if link.state.is_connected and link.next.peer_stage >= POISONS_HELD:
        on_held(turn, advance, client)
    elif advance.is_signed:
        tell_signed(turn, advance, client)
