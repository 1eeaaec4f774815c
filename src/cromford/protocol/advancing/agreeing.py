"""The LSP's first half of an advance: everybody is asked, agrees, and gets our half.

We are quiet in every channel of the leaf before we ask. Whoever agrees is quiet as well, until its
next funding carries the same commitments as its present one.
"""

from cromford import effects as fx
from cromford.factory.leaf import Leaf, advance_id_of
from cromford.protocol import events as ev
from cromford.protocol.advancing.ending import (
    advance_named,
    give_up,
    give_up_for_fault,
    may_drop,
    node_id_of,
    set_deadline,
)
from cromford.protocol.advancing.making import (
    CHANNEL_NONCES,
    FACTORY_NONCES,
    POISON_NONCE,
    is_quiet_at_our_side,
    peer_latest,
)
from cromford.protocol.advancing.rules import (
    RESTORED,
    Obstacle,
    blocked_by,
    check_sale,
    links_of,
    problem_before_signing,
    problem_with_closes,
    problem_with_price,
    problem_with_stall,
    told_of,
)
from cromford.protocol.advancing.sales import Sale
from cromford.protocol.advancing.sessions import (
    factory_sessions,
    fault_of_nonces,
    leaf_of,
    numbers_of,
)
from cromford.protocol.channels.next_signing import sign_next_of
from cromford.protocol.channels.seats import link_of, restored_of
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advance_fold import is_to_be_quiet
from cromford.protocol.journal.advances import LspAdvance, asked_session
from cromford.protocol.journal.encoding import encoded_pool
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.signing.keychain import FactoryKey
from cromford.wire import messages as m
from cromford.wire.messages import encode_message
from cromford.wire.selling import AllocatedChannel, NextHalf, NextNonces


def begin(turn: Turn[Factory], sale: Sale) -> None:
    """Begin with an advance: the channels of the leaf become quiet, then its clients are asked.

    What follows is for `go_on`, at the end of the same decision.

    Raises:
        NotSold: If it cannot begin now; nothing is remembered.
    """
    state = turn.state
    leaf = check_sale(state, turn.facts, sale)
    attempt_id, allocation = state.attempt.attempt_id, leaf.allocation
    advance_id = advance_id_of(
        leaf, attempt_id=attempt_id, state_index=sale.state_index, allocation=allocation
    )
    turn.remember(
        ar.AdvanceProposed(
            attempt_id=attempt_id,
            advance_id=advance_id,
            clients=tuple(leaf.clients),
            state_index=sale.state_index,
            capacities_sat=allocation.capacities_sat,
            lstock_sat=allocation.lstock_sat,
            buyer=sale.buyer,
            quote_id=sale.quote_id,
            price_msat=sale.price_msat,
            payment_hash=sale.payment_hash,
        )
    )
    set_deadline(turn, advance_id)


def resume(turn: Turn[Factory], advance: LspAdvance) -> None:
    """Begin another try of an advance that somebody may have signed, once everybody is here."""
    if advance.session is not None or advance.is_asking or not advance.is_committed:
        return
    if not _lacks_signatures(turn, advance) or not _may_resume(turn, advance):
        return
    turn.remember(
        ar.AdvanceResumed(attempt_id=turn.state.attempt.attempt_id, advance_id=advance.advance_id)
    )
    set_deadline(turn, advance.advance_id)


def _lacks_signatures(turn: Turn[Factory], advance: LspAdvance) -> bool:
    """Say whether a try could bring what is missing: the state, or poisons that may be sent."""
    if advance.has_poisons:
        return False
    leaf = leaf_of(turn.state, advance)
    if leaf.states[advance.state_index].tx.txid in turn.chain.confirmed:
        return False
    if leaf.states[advance.state_index - 1].tx.txid in turn.chain.confirmed:
        return False
    return not advance.is_signed or may_poison(turn, advance)


def _may_resume(turn: Turn[Factory], advance: LspAdvance) -> bool:
    """Say whether everybody is here; who signed nothing needs all that a first try needs."""
    state, facts = turn.state, turn.facts
    links = links_of(state, advance.clients)
    behind = restored_of(state, advance.clients)
    if behind is not None:
        if may_drop(state, advance):
            _give_up_for(turn, advance, blocked_by(behind, RESTORED))
        return False
    if not all(_is_here(turn, link) for link in links):
        return False
    if any(problem_with_stall(state, facts, client) for client in advance.clients):
        return False
    if not any(is_to_be_quiet(link) for link in links):
        return problem_with_closes(state, advance.clients) is None
    problem = problem_before_signing(state, facts, advance, leaf_of(state, advance))
    if problem is None:
        return True
    _give_up_for(turn, advance, problem)
    return False


def _give_up_for(turn: Turn[Factory], advance: LspAdvance, problem: Obstacle) -> None:
    give_up(turn, advance, problem.reason, told=told_of(problem))


def _is_here(turn: Turn[Factory], link: Link) -> bool:
    if not turn.facts.directory.is_connected(link.node_id):
        return False
    return link.is_open or (link.failure is not None and not is_to_be_quiet(link))


def ask_when_quiet(turn: Turn[Factory], advance: LspAdvance) -> None:
    """Ask for our nonces once nothing of ours is on its way in a channel that becomes quiet."""
    if not advance.is_asking:
        return
    links = links_of(turn.state, advance.clients)
    if not all(_is_here(turn, link) for link in links):
        return
    if not all(is_quiet_at_our_side(link) for link in links if is_to_be_quiet(link)):
        return
    turn.ask(
        fx.PrepareAdvance(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            factory_key=FactoryKey(attempt=turn.state.attempt.key_attempt),
            factory_size=FACTORY_NONCES,
            channel_keys=tuple(link.key for link in links),
            channel_size=CHANNEL_NONCES,
        )
    )


def on_prepared(turn: Turn[Factory], event: ev.AdvancePrepared) -> None:
    """Ask every client of the leaf."""
    state = turn.state
    advance = advance_named(state, event.asked.advance_id)
    if advance is None or not advance.is_asking:
        pools = (event.factory_pool, *event.channel_pools)
        turn.ask(fx.DropPools(pool_ids=tuple(pool.pool_id for pool in pools)))
        return
    attempt = state.attempt
    turn.remember(
        ar.AdvancePoolsMade(
            attempt_id=attempt.attempt_id,
            advance_id=advance.advance_id,
            factory_pool=encoded_pool(event.factory_pool),
            channel_pools=tuple(encoded_pool(pool) for pool in event.channel_pools),
        )
    )
    for client in advance.clients:
        is_buyer = client == advance.buyer
        propose = m.AdvancePropose(
            attempt_id=attempt.attempt_id,
            advance_id=advance.advance_id,
            terms_hash=attempt.terms.terms_hash,
            state_index=advance.state_index,
            channels=tuple(
                AllocatedChannel(capacity_sat=capacity_sat)
                for capacity_sat in advance.allocation.capacities_sat
            ),
            lstock_sat=advance.allocation.lstock_sat,
            quote_id=advance.quote_id if is_buyer else b"",
            price_msat=advance.price_of(client),
            session=event.factory_pool.pool_id,
        )
        turn.send(node_id_of(state, client), propose)
    set_deadline(turn, advance.advance_id)


def on_unprepared(turn: Turn[Factory], event: ev.AdvanceUnprepared) -> None:
    """End a try for which there is no room for nonces."""
    advance = advance_named(turn.state, event.asked.advance_id)
    if advance is not None and advance.is_asking:
        give_up(turn, advance, f"our signer: {event.reason}")


def on_agree(
    turn: Turn[Factory], advance: LspAdvance, client: int, message: m.AdvanceAgree
) -> None:
    """Take a client's agreement; with the last, every client gets our half."""
    session = advance.session
    if session is None or session.is_committed or message.session != session.name:
        return  # What is over, or is further than that: its sender has lost a race.
    known = session.agreed.get(client)
    if known is not None:
        if known != message:
            give_up_for_fault(turn, advance, client, "it agreed twice, differently")
        return
    link = link_of(turn.state, client)
    if link is None:
        return
    fault = _fault_of_agreement(turn, advance, link, message)
    if fault is not None:
        give_up_for_fault(turn, advance, client, fault)
        return
    if is_to_be_quiet(link):
        problem = problem_with_price(link, advance.price_of(client))
        if problem is not None:
            _give_up_for(turn, advance, problem)
            return
    turn.remember(
        ar.AdvanceAgreementReceived(
            attempt_id=turn.state.attempt.attempt_id,
            advance_id=advance.advance_id,
            client=client,
            message=encode_message(message),
        )
    )
    agreed = advance_named(turn.state, advance.advance_id)
    if agreed is not None and not agreed.holdouts:
        _commit(turn, agreed)


def _fault_of_agreement(
    turn: Turn[Factory], advance: LspAdvance, link: Link, message: m.AdvanceAgree
) -> str | None:
    pubkey = leaf_of(turn.state, advance).factory_pubkeys[link.client]
    fault = fault_of_nonces(message, pubkey)
    if fault is not None:
        return fault
    expected = (link.state.peer_signed,) if is_to_be_quiet(link) else ()
    if numbers_of(message.channel) != expected:
        received = list(numbers_of(message.channel))
        return f"nonces for commitments {received}, expected {list(expected)}"
    if is_to_be_quiet(link) and not link.state.is_quiet:
        return "an agreement while an update is on its way"
    return None


def _commit(turn: Turn[Factory], advance: LspAdvance) -> None:
    """Remember that we sign for the next funding of whoever has nothing there, and sign."""
    state, attempt_id = turn.state, turn.state.attempt.attempt_id
    fresh = [link for link in links_of(state, advance.clients) if is_to_be_quiet(link)]
    problem = _problem_before_commit(turn, advance, fresh)
    if problem is not None:
        _give_up_for(turn, advance, problem)
        return
    turn.remember(ar.AdvanceCommitted(attempt_id=attempt_id, advance_id=advance.advance_id))
    for link in fresh:
        commitment = peer_latest(link)
        turn.remember(
            ar.NextCommitmentIntended(
                channel_id=link.channel_id,
                number=commitment.content.number,
                sighash=commitment.signing_task.sighash,
            )
        )
        following = turn.link(link.channel_id).next
        pubnonce = None
        if following is not None:
            pubnonce = following.peer_nonces.get(commitment.content.number)
        if pubnonce is None:
            raise AssertionError("an agreement brought no nonce for the latest commitment")
        point = link.state.peer_point
        turn.ask(sign_next_of(turn.link(link.channel_id), commitment, point, pubnonce))
    committed = advance_named(turn.state, advance.advance_id)
    if committed is None:
        raise AssertionError("an advance is gone that everybody agreed to")
    names = {link.client for link in fresh}
    for client in committed.clients:
        if client not in names:
            turn.send(node_id_of(turn.state, client), _commit_for(turn.state, committed, client))
    set_deadline(turn, committed.advance_id)


def _problem_before_commit(
    turn: Turn[Factory], advance: LspAdvance, fresh: list[Link]
) -> Obstacle | None:
    """Return what changed since everybody was asked; who signed already needs nothing of it."""
    leaf = leaf_of(turn.state, advance)
    if fresh:
        return problem_before_signing(turn.state, turn.facts, advance, leaf)
    return problem_with_closes(turn.state, advance.clients)


def on_next_signed(turn: Turn[Factory], event: ev.NextSigned) -> None:
    """Send a client its half: from here on it may sign."""
    advance = advance_named(turn.state, event.asked.advance_id)
    link = turn.link(event.asked.channel_id)
    if advance is None or advance.session is None or not advance.session.is_committed:
        return
    if not link.is_still or not link.is_open:
        return
    half = NextHalf(
        number=event.asked.number,
        pubnonce=event.pubnonce,
        partial_sig=event.partial_sig,
        htlc_signatures=event.htlc_signatures,
    )
    turn.send(link.node_id, _commit_for(turn.state, advance, link.client, half))


def _commit_for(
    state: Factory, advance: LspAdvance, client: int, half: NextHalf | None = None
) -> m.AdvanceCommit:
    pool = asked_session(advance).channel_pools[client]
    link = link_of(state, client)
    if link is None:
        raise AssertionError("a client without a channel")
    nonces = NextNonces(
        number=link.state.own_signed,
        pubnonce=pool.pubnonces[0],
        following_pubnonce=pool.pubnonces[1],
    )
    return m.AdvanceCommit(
        attempt_id=state.attempt.attempt_id,
        advance_id=advance.advance_id,
        aggnonces=tuple(session.aggnonce for session in factory_sessions(state, advance)),
        poison_pubnonce=pool.pubnonces[POISON_NONCE],
        half=() if half is None else (half,),
        channel=() if half is None else (nonces,),
    )


def on_abort(
    turn: Turn[Factory], advance: LspAdvance, client: int, message: m.AdvanceAbort
) -> None:
    """End an advance, or a try of it, that a client refuses: that is no fault of it.

    Why is the client's own business: it may name what it owns. Its neighbours do not hear it.
    """
    link = link_of(turn.state, client)
    if link is None or (advance.session is None and not advance.is_asking):
        return
    told = f"client {client} refused"
    reason = f"{told}: {message.reason}"
    if advance.is_committed and is_to_be_quiet(link):
        turn.remember(
            ar.AdvanceDeclined(
                attempt_id=turn.state.attempt.attempt_id,
                advance_id=advance.advance_id,
                client=client,
                reason=reason[: m.REASON_SIZE_MAX],
            )
        )
    node_id = node_id_of(turn.state, client)
    give_up(turn, advance, reason, gone={node_id}, culprits=(client,), told=told)


def may_poison(turn: Turn[Factory], advance: LspAdvance) -> bool:
    """Say whether poisons may leave now: the chain is fresh, and the leaf's kickoff is not on it.

    Asked at every sending. With a running kickoff two states would be payable at once; one that
    confirms afterwards leaves the whole step to the newer state.
    """
    return may_poison_in(turn, leaf_of(turn.state, advance))


def may_poison_in(turn: Turn[Factory], leaf: Leaf) -> bool:
    """Say the same of a leaf, whichever of its states is meant."""
    return turn.facts.is_fresh and leaf.kickoff.tx.txid not in turn.chain.confirmed
