"""The LSP's side of a cooperative close: everybody agrees, everybody signs, then the LSP does.

A client that refuses, even at the last message, freezes nobody: until our own part is there, all
that its signature does is to limit what its channel may come to owe it. What makes a close binding
is one record, with every signature in it. It is durable before anything of ours leaves.
"""

from collections.abc import Iterable
from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint
from cromford.crypto.musig2 import is_partial_sig
from cromford.factory.close import CannotClose, CloseScope
from cromford.protocol import events as ev
from cromford.protocol.channels.seats import NOT_FOR_IT, is_own_seat, lose_keys
from cromford.protocol.closing.confirming import owed_by_factory
from cromford.protocol.closing.planning import (
    built_close,
    check_all_are_here,
    clients_advancing,
    close_name,
    link_of,
    named_clients,
    plan_close,
)
from cromford.protocol.closing.restored import NO_NUMBER, problem_with_word, word_msat
from cromford.protocol.closing.rules import (
    ADVANCE_OPEN,
    NEVER_LATE,
    NOT_NOW,
    problem_on_chain,
    problem_with_channel,
    problem_with_height,
)
from cromford.protocol.closing.seats import (
    agreements,
    has_say,
    partials,
    preparation,
    signing_for,
)
from cromford.protocol.closing.sessions import (
    client_of_key,
    close_round,
    fault_of_word,
    own_requests,
    sessions_of,
)
from cromford.protocol.closing.telling import closed_of, tell_closed
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.close_scopes import close_intents, lsp_scope
from cromford.protocol.journal.closing import Agreeing, Closing, Signing
from cromford.protocol.journal.encoding import encoded_pool, pool_of
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.signing.keychain import ChannelKey, FactoryKey
from cromford.signing.nonces import PublicPool
from cromford.signing.round import FaultyContribution
from cromford.wire import messages as m


def take(turn: Turn[Factory], event: ev.CloseEvent) -> None:
    """Take the operator's wish to close, or our signer's nonces for it.

    Raises:
        Rejected: If it cannot be closed now.
    """
    match event:
        case ev.CloseRequested():
            on_requested(turn, event)
        case ev.ClosePrepared():
            on_prepared(turn, event)
        case ev.CloseUnprepared(asked=asked, reason=reason):
            if _is_under_way(turn.state, asked.close_id):
                end(turn, f"our signer: {reason}")
        case ev.SeatsPrepared():
            on_seats_prepared(turn, event)
        case ev.SeatsLacking():
            on_seats_lacking(turn, event)
        case ev.SeatsSigned():
            on_seats_signed(turn, event)
        case ev.SeatsFailed(asked=seats, reason=reason):
            if _is_under_way(turn.state, seats.close_id):
                end(turn, f"our signer: {reason}")
        case _:
            assert_never(event)


def take_message(turn: Turn[Factory], node_id: bytes, message: m.CloseMessage) -> None:
    """Take what a client says about a close of this factory."""
    match message:
        case m.CloseAgree():
            on_agree(turn, node_id, message)
        case m.CloseSign():
            on_sign(turn, node_id, message)
        case m.CloseEnd():
            on_end(turn, node_id, message)
        case m.CloseBegin() | m.ClosePropose() | m.Closed():
            raise AssertionError(f"{type(message).__name__} is an LSP's message")
        case _:
            assert_never(message)


def knows(state: Factory, close_id: bytes) -> bool:
    """Say whether a close is one of this factory: under way, or finished."""
    return _is_under_way(state, close_id) or close_id in state.closed


def on_requested(turn: Turn[Factory], event: ev.CloseRequested) -> None:
    """Begin with a close; the first thing is fresh nonces.

    Raises:
        Rejected: If it cannot be closed now: names what is in the way, and whose it is.
    """
    turn.check_fresh()
    state = turn.state
    plan = plan_close(state, turn.facts, event)
    check_all_are_here(state, turn.facts, plan.scope)
    attempt_id = state.attempt.attempt_id
    outpoint = plan.scope.outpoint
    close_id = close_name(state, outpoint, height=turn.height)
    turn.remember(
        cl.CloseBegun(
            attempt_id=attempt_id,
            close_id=close_id,
            outpoint=outpoint.serialize(),
            name=plan.scope.name,
            clients=plan.scope.clients,
            feerates_sat_per_kw=plan.feerates_sat_per_kw,
        )
    )
    turn.ask(
        fx.PrepareClose(
            attempt_id=attempt_id,
            close_id=close_id,
            key=_key_of(state, outpoint),
            n_options=len(plan.options),
        ),
        _deadline(turn.state, close_id),
    )


def _key_of(state: Factory, outpoint: OutPoint) -> FactoryKey | ChannelKey:
    """Return our key that signs for an output: the factory's, or a channel's funding key."""
    for link in state.book.ordered_links:
        if outpoint in {funding.outpoint for funding in link.fundings}:
            return link.key
    return FactoryKey(attempt=state.attempt.key_attempt)


def on_prepared(turn: Turn[Factory], event: ev.ClosePrepared) -> None:
    """Ask everybody in scope to agree; for those who moved out we do."""
    closing = turn.state.closing
    if (
        closing is None
        or closing.close_id != event.asked.close_id
        or closing.stage.pool is not None
    ):
        turn.ask(fx.DropPools(pool_ids=(event.pool.pool_id,)))
        return
    attempt_id = turn.state.attempt.attempt_id
    turn.remember(
        cl.ClosePoolMade(
            attempt_id=attempt_id, close_id=closing.close_id, pool=encoded_pool(event.pool)
        )
    )
    begin = m.CloseBegin(
        attempt_id=attempt_id,
        close_id=closing.close_id,
        outpoint=closing.outpoint.serialize(),
        options=tuple(
            m.CloseOption(feerate_sat_per_kw=feerate) for feerate in closing.feerates_sat_per_kw
        ),
    )
    seats = preparation(turn.state, closing, _scope(turn.state, closing))
    own = {seat.name.client for seat in seats.seats}
    _tell(turn, (client for client in closing.clients if client not in own), begin)
    if own:
        turn.ask(seats)


def on_seats_prepared(turn: Turn[Factory], event: ev.SeatsPrepared) -> None:
    """Agree for those who moved out."""
    if not _is_under_way(turn.state, event.asked.close_id):
        turn.ask(fx.DropPools(pool_ids=tuple(pool.pool_id for pool in event.pools)))
        return
    turn.remember(*agreements(turn.state, event))
    _propose_if_all_agreed(turn)


def on_seats_lacking(turn: Turn[Factory], event: ev.SeatsLacking) -> None:
    """End a close for which keys are gone that were given to us, and ask for them again."""
    for client, problem in event.problems:
        lose_keys(turn, client, problem)
    if _is_under_way(turn.state, event.asked.close_id):
        gone = [client for client, _ in event.problems]
        end(turn, f"the keys of clients {gone} are gone" if gone else "no room for more nonces")


def on_agree(turn: Turn[Factory], node_id: bytes, message: m.CloseAgree) -> None:
    """Take a client's word of what it is owed; with the last, propose the transactions."""
    found = _seat(turn, node_id, message.close_id)
    if found is None:
        return
    closing, client = found
    pool = pool_of(message.pool)
    balance_msat = word_msat(link_of(turn.state, client), message.balance_msat)
    known = closing.stage.agreed.get(client)
    if known is not None:
        if (known.balance_msat, known.pool) != (balance_msat, pool):
            _fault(turn, client, "a second, different agreement")
        return
    if closing.stage.pool is None:
        _fault(turn, client, "an agreement to what it was not asked")
        return
    fault = fault_of_word(turn.state, closing, client, message)
    if fault is not None:
        _fault(turn, client, fault)
        return
    if balance_msat is None:
        end(turn, f"client {client}: {NO_NUMBER}", whose=client)
        return
    problem = _problem_with_client(turn, closing, client, balance_msat)
    if problem is not None:
        end(turn, problem, whose=client)
        return
    turn.remember(
        cl.CloseAgreementReceived(
            attempt_id=turn.state.attempt.attempt_id,
            close_id=closing.close_id,
            client=client,
            balance_msat=balance_msat,
            pool=encoded_pool(pool),
        )
    )
    _propose_if_all_agreed(turn)


def _propose_if_all_agreed(turn: Turn[Factory]) -> None:
    """Propose the transactions once everybody agreed, and every channel is still at its word."""
    closing = turn.state.closing
    if closing is None or closing.holdouts or not isinstance(closing.stage, Agreeing):
        return
    if _ends_for_a_problem(turn, closing):
        return
    scope = _scope(turn.state, closing)
    due = {client: word.balance_msat for client, word in closing.stage.agreed.items()}
    try:
        closes = [
            built_close(turn.state, scope, due, feerate) for feerate in closing.feerates_sat_per_kw
        ]
    except CannotClose as error:
        end(turn, str(error))
        return
    attempt_id = turn.state.attempt.attempt_id
    txs = tuple(close.tx for close in closes)
    turn.remember(
        cl.CloseProposed(
            attempt_id=attempt_id,
            close_id=closing.close_id,
            txs=tuple(tx.serialize() for tx in txs),
        )
    )
    proposed, signing = _signing_now(turn.state)
    sessions = sessions_of(scope, signing)
    propose = m.ClosePropose(
        close_id=proposed.close_id,
        signers=scope.output.signers,
        proposals=tuple(
            m.CloseProposal(tx=tx.serialize(), aggnonce=session.aggnonce)
            for tx, session in zip(txs, sessions, strict=True)
        ),
    )
    _tell(turn, proposed.others, propose)
    turn.ask(_deadline(turn.state, proposed.close_id))
    _sign_if_all_signed(turn)  # Where all of them moved out, nobody else has to.


def on_sign(turn: Turn[Factory], node_id: bytes, message: m.CloseSign) -> None:
    """Take a client's partial signatures; with the last, make our own."""
    found = _seat(turn, node_id, message.close_id)
    if found is None:
        return
    closing, client = found
    partial_sigs = message.partial_sigs
    if not isinstance(closing.stage, Signing):
        _fault(turn, client, "a signature of what was not proposed")
        return
    known = closing.stage.partial_sigs.get(client)
    if known is not None:
        if known != partial_sigs:
            _fault(turn, client, "second, different partial signatures")
        return
    n_options = len(closing.stage.txs)
    if len(partial_sigs) != n_options:
        _fault(turn, client, f"{len(partial_sigs)} of {n_options} partial signatures")
        return
    if not all(is_partial_sig(partial_sig) for partial_sig in partial_sigs):
        _fault(turn, client, "a partial signature that is no scalar")
        return
    turn.remember(
        cl.ClosePartialsReceived(
            attempt_id=turn.state.attempt.attempt_id,
            close_id=closing.close_id,
            client=client,
            partial_sigs=partial_sigs,
        )
    )
    _sign_if_all_signed(turn)


def _sign_if_all_signed(turn: Turn[Factory]) -> None:
    """Ask for our own part once everybody's is there, and every channel stands as it was agreed."""
    closing, signing = _signing_now(turn.state)
    if closing.holdouts:
        return
    if _ends_for_a_problem(turn, closing):
        return
    scope = _scope(turn.state, closing)
    attempt_id = turn.state.attempt.attempt_id
    intents = close_intents(closing.close_id, scope, signing.txs)
    if not set(closing.own) <= signing.done:
        turn.remember(op.SigningIntended(attempt_id=attempt_id, intents=intents))
        turn.ask(signing_for(turn.state, closing, signing, scope))
        return
    if not closing.own:
        turn.remember(op.SigningIntended(attempt_id=attempt_id, intents=intents))
    turn.ask(
        fx.PartialSign(
            attempt_id=attempt_id,
            requests=own_requests(scope, signing),
            close_id=closing.close_id,
        )
    )


def on_seats_signed(turn: Turn[Factory], event: ev.SeatsSigned) -> None:
    """Take the parts of those who moved out."""
    closing = turn.state.closing
    if closing is not None and closing.close_id == event.asked.close_id:
        turn.remember(*partials(turn.state, closing, event))
        _sign_if_all_signed(turn)


def on_partial_signed(turn: Turn[Factory], event: ev.PartialSigned) -> None:
    """Finish the close: from this record on its channels stand still, and it is published.

    Looked at once more: a client's word that came meanwhile may have changed its channel. Then our
    part, which nobody saw, is forgotten with its nonces.
    """
    closing = turn.state.closing
    if (
        closing is None
        or closing.close_id != event.asked.close_id
        or not isinstance(closing.stage, Signing)
        or closing.holdouts
    ):
        return
    if _ends_for_a_problem(turn, closing):
        return
    scope = _scope(turn.state, closing)
    own = dict(event.partial_sigs)
    try:
        signatures = close_round(turn.state, scope, closing.stage, own).signatures()
    except FaultyContribution as fault:
        client = client_of_key(turn.state, scope, fault.signer)
        _fault(turn, client, f"{fault.session_name}: bad {fault.contribution}")
        return
    txs = tuple(
        tx.with_witnesses((signature,))
        for tx, signature in zip(closing.stage.txs, signatures.values(), strict=True)
    )
    links = {client: link_of(turn.state, client) for client in closing.clients}
    agreed = closing.stage.agreed
    turn.remember(
        cl.CloseFinished(
            attempt_id=turn.state.attempt.attempt_id,
            close_id=closing.close_id,
            outpoint=closing.outpoint.serialize(),
            txs=tuple(tx.serialize() for tx in txs),
            channels=tuple(link.channel_id for link in links.values()),
            balances_msat=tuple(agreed[client].balance_msat for client in links),
        )
    )
    finished = turn.state.closed[closing.close_id]
    _tell(turn, closing.others, closed_of(turn.state, finished))
    turn.ask(*_cleared(closing))
    turn.ask(*owed_by_factory(turn.state, turn.facts.fees))


def on_signing_failed(turn: Turn[Factory], event: ev.SigningFailed) -> None:
    """End a close that our own signer cannot go on with."""
    if _is_under_way(turn.state, event.asked.close_id):
        end(turn, f"our signer: {event.reason}")


def on_end(turn: Turn[Factory], node_id: bytes, message: m.CloseEnd) -> None:
    """End a close that a client refuses: that is no fault of it."""
    closing = turn.state.closing
    client = turn.state.attempt.client_of(node_id)
    if closing is None or not has_say(turn.state, closing, client):
        return
    if closing.close_id == message.close_id:
        reason = f"client {client} refused: {message.reason}"
        end(turn, reason, culprit=node_id, whose=client)


def on_disconnection(turn: Turn[Factory], node_id: bytes, *, is_ours: bool) -> None:
    """End a close that still needs a client's nonces: they went with its connection.

    Where we hung up for a reason of our own, nobody is named for it.
    """
    closing = turn.state.closing
    client = turn.state.attempt.client_of(node_id)
    if closing is None or not has_say(turn.state, closing, client):
        return
    if isinstance(closing.stage, Signing) and client in closing.stage.done:
        return
    if is_ours:
        end(turn, f"the LSP hung up on client {client}")
    else:
        end(turn, f"client {client} disconnected", culprit=node_id)


def on_deadline(turn: Turn[Factory], deadline: fx.CloseDeadline) -> None:
    """End a close whose present step was not finished in time, naming the holdouts."""
    closing = turn.state.closing
    if closing is not None and closing.close_id == deadline.close_id:
        holdouts = list(closing.holdouts)
        seats = turn.state.attempt.seats
        end(
            turn,
            f"deadline in {closing.stage.label}: no answer from clients {holdouts}",
            culprits=tuple(seats[client - 1].node_id for client in holdouts),
        )


def on_block(turn: Turn[Factory]) -> None:
    """End a close that the chain has made impossible, or that came too late."""
    closing = turn.state.closing
    if closing is not None:
        problem = _problem_on_chain(turn, closing)
        if problem is not None:
            end(turn, problem)


def on_start(turn: Turn[Factory]) -> None:
    """End a close whose nonces a restart lost."""
    end(turn, "the LSP restarted")


def end(
    turn: Turn[Factory],
    reason: str,
    *,
    culprit: bytes | None = None,
    culprits: tuple[bytes, ...] = (),
    is_fault: bool = False,
    whose: int | None = None,
) -> None:
    """End the close under way, if one is, and tell the others; what was signed of it stays signed.

    Args:
        turn: The decision so far.
        reason: Why.
        whose: The client whose own business that is, for it may name what it owns: its neighbours
            hear whose channel it is.
        culprit: Whoever ended it, by node id: it need not be told.
        culprits: Those who caused it and are told, by node id.
        is_fault: Whether it was proven against them.
    """
    closing = turn.state.closing
    if closing is None:
        return
    reason = reason[: m.REASON_SIZE_MAX]
    turn.remember(
        cl.CloseEnded(
            attempt_id=turn.state.attempt.attempt_id,
            close_id=closing.close_id,
            reason=reason,
            culprits=culprits if culprit is None else (culprit,),
            is_fault=is_fault,
        )
    )
    seats = turn.state.attempt.seats
    for client in closing.others:
        if seats[client - 1].node_id != culprit:
            said = reason if whose in {None, client} else f"client {whose}: {NOT_NOW}"
            _tell(turn, (client,), m.CloseEnd(close_id=closing.close_id, reason=said))
    turn.ask(*_cleared(closing))


def _fault(turn: Turn[Factory], client: int, what: str) -> None:
    node_id = turn.state.attempt.seats[client - 1].node_id
    end(turn, f"client {client}: {what}", culprits=(node_id,), is_fault=True)


def _ends_for_a_problem(turn: Turn[Factory], closing: Closing) -> bool:
    """End a close that cannot go on, for the chain or a channel that left its word; say if so."""
    problem = _problem_on_chain(turn, closing)
    if problem is not None:
        end(turn, problem)
        return True
    for client, word in closing.stage.agreed.items():
        problem = _problem_with_client(turn, closing, client, word.balance_msat)
        if problem is not None:
            end(turn, problem, whose=client)
            return True
    return False


def _problem_on_chain(turn: Turn[Factory], closing: Closing) -> str | None:
    leaving = [client for client in closing.clients if client in turn.state.exits]
    if leaving:
        return f"the channels with clients {leaving} are being left"
    busy = clients_advancing(turn.state, closing.clients)
    if busy:
        return f"{named_clients(busy)}: {ADVANCE_OPEN}"
    for client in closing.others:
        link = link_of(turn.state, client)
        late = problem_with_height(link, turn.chain, height=turn.known_height)
        if late is not None:
            return f"client {client}: {late}"
    return problem_on_chain(_scope(turn.state, closing), turn.chain)


def _problem_with_client(
    turn: Turn[Factory], closing: Closing, client: int, balance_msat: int
) -> str | None:
    link, is_ours = link_of(turn.state, client), client in closing.own
    height = NEVER_LATE if is_ours else turn.known_height
    problem = problem_with_channel(link, turn.chain, height=height)
    if problem is None:
        problem = problem_with_word(link, balance_msat)
    if problem is None and is_ours and not is_own_seat(turn.state, client):
        problem = NOT_FOR_IT
    return None if problem is None else f"client {client}: {problem}"


def _seat(turn: Turn[Factory], node_id: bytes, close_id: bytes) -> tuple[Closing, int] | None:
    """Return the close under way and the client's index; None if what it says is out of place.

    Of a close that is finished it hears once more.
    """
    closing = turn.state.closing
    client = turn.state.attempt.client_of(node_id)
    if closing is None or closing.close_id != close_id:
        tell_closed(turn, node_id)
        return None
    if client is None or not has_say(turn.state, closing, client):
        return None
    return closing, client


def _signing_now(state: Factory) -> tuple[Closing, Signing]:
    closing = state.closing
    if closing is None or not isinstance(closing.stage, Signing):
        raise AssertionError("no close is being signed")
    return closing, closing.stage


def _is_under_way(state: Factory, close_id: bytes) -> bool:
    return state.closing is not None and state.closing.close_id == close_id


def _scope(state: Factory, closing: Closing) -> CloseScope:
    return lsp_scope(state.attempt, closing.outpoint)


def _tell(turn: Turn[Factory], clients: Iterable[int], message: m.CloseMessage) -> None:
    for client in clients:
        turn.send(turn.state.attempt.seats[client - 1].node_id, message)


def _deadline(state: Factory, close_id: bytes) -> fx.SetDeadline:
    deadline = fx.CloseDeadline(close_id=close_id)
    return fx.SetDeadline(deadline=deadline, seconds=state.config.policy.deadline_seconds)


def _cleared(closing: Closing) -> tuple[fx.Effect, ...]:
    cleared = fx.ClearDeadline(deadline=fx.CloseDeadline(close_id=closing.close_id))
    pool: PublicPool | None = closing.stage.pool
    own = (closing.stage.agreed[client].pool for client in closing.own)
    pool_ids = tuple(one.pool_id for one in (pool, *own) if one is not None)
    return (cleared, fx.DropPools(pool_ids=pool_ids)) if pool_ids else (cleared,)
