"""The LSP's side of the ceremony: from fresh keys to a signed funding transaction.

Each step waits for everybody: partial signatures below the root, then the root's, then the
acknowledgements. An aggregate is verified before it is sent; who spoiled a bad one is named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar, assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.channel.terms import Party
from cromford.protocol import events as ev
from cromford.protocol.channels.lsp import begin
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.intents import intent_of, intent_of_commitment
from cromford.protocol.journal.lsp_attempt import (
    Acknowledging,
    Funded,
    LspAttempt,
    LspRung,
    SigningBelow,
    SigningRoot,
)
from cromford.protocol.journal.lsp_candidate import LspCandidate
from cromford.protocol.journal.opening_fold import stage_of
from cromford.protocol.journal.opening_records import Outcome
from cromford.protocol.opening import abandoning
from cromford.protocol.opening.funding import (
    first_watch,
    fund_if_due,
    is_too_late,
    owed_of_funding,
    why_too_late,
)
from cromford.protocol.turn import Turn
from cromford.signing.round import FaultyContribution
from cromford.wire import messages as m

FinishedT = TypeVar("FinishedT")

RECONNECT_DEADLINES: Final = 3  # How many deadlines an LSP that restarted gives its clients.


def take(turn: Turn[Factory], event: ev.OpeningEvent) -> None:
    """Take an answer of our signer in a ceremony."""
    match event:
        case ev.PartialSigned():
            on_partial_signed(turn, event)
        case ev.SigningFailed():
            on_signing_failed(turn, event)
        case ev.FundingSigned():
            on_funding_signed(turn, event)
        case (
            ev.AttemptPrepared()
            | ev.FactoryAbandonRequested()
            | ev.FundingBumpRequested()
            | ev.FundingReplaceRequested()
            | ev.CoinsLookedUp()
        ):
            raise AssertionError(f"{type(event).__name__} is no factory's event")
        case _:
            assert_never(event)


def take_message(turn: Turn[Factory], node_id: bytes, message: m.OpeningMessage) -> None:
    """Take what a client with a seat says in this factory's ceremony, or of its funding."""
    match message:
        case m.SignBelow():
            on_sign_below(turn, node_id, message)
        case m.SignRoot():
            on_sign_root(turn, node_id, message)
        case m.Acknowledge():
            on_acknowledge(turn, node_id, message)
        case m.Resume():
            on_resume(turn, node_id, message)
        case m.ChannelReady():
            on_channel_ready(turn, node_id, message)
        case m.Abort():
            on_abort(turn, node_id, message)
        case m.Propose() | m.SignedBelow() | m.SignedRoot():
            raise AssertionError(f"{type(message).__name__} is an LSP's message")
        case _:
            assert_never(message)


def on_ordered(turn: Turn[Factory]) -> None:
    """Propose the factory that the house ordered, to each of its clients."""
    attempt = turn.state.attempt
    for client, seat in enumerate(attempt.seats, start=1):
        turn.send(seat.node_id, attempt.proposal_for(client))
    turn.ask(_deadline(turn.state))


def on_sign_below(turn: Turn[Factory], node_id: bytes, message: m.SignBelow) -> None:
    """Take one client's partial signatures below the root; with the last, add our own."""
    found = _seat(turn.state, node_id, message)
    if found is None:
        return
    attempt, client = found
    if len(message.candidates) != attempt.terms.candidates:
        _fault(turn, attempt, client, f"{len(message.candidates)} candidates")
        return
    said = attempt.said_below
    if said is not None and client in said.done:
        if _known_below(attempt, client) != message.candidates:
            _fault(turn, attempt, client, "second, different partial signatures")
        return
    n_expected = len(attempt.branch(client).nodes_below_root)
    for halves in message.candidates:
        n_received = len(halves.partial_sigs)
        if n_received != n_expected:
            _fault(turn, attempt, client, f"{n_received} of {n_expected} partial signatures")
            return
    first, *higher = message.candidates
    turn.remember(
        op.BelowPartialsReceived(
            attempt_id=attempt.attempt_id,
            client=client,
            partial_sigs=first.partial_sigs,
            commitment_partial_sig=first.commitment_partial_sig,
            higher=tuple(
                op.GivenHalves(
                    partial_sigs=halves.partial_sigs,
                    commitment_partial_sig=halves.commitment_partial_sig,
                )
                for halves in higher
            ),
        )
    )
    if not turn.state.attempt.has_holdouts:
        _sign_below(turn, attempt)


def _known_below(attempt: LspAttempt, client: int) -> tuple[m.PartialSigs, ...]:
    """Return what a client signed below the root of each candidate, as it sent it."""
    return tuple(
        m.PartialSigs(
            partial_sigs=said.partial_sigs[client],
            commitment_partial_sig=said.commitment_partial_sigs[client],
        )
        for one in attempt.ladder
        if (said := one.said_below) is not None
    )


def on_sign_root(turn: Turn[Factory], node_id: bytes, message: m.SignRoot) -> None:
    """Take one client's partial signature of the root; with the last, add our own."""
    found = _seat(turn.state, node_id, message)
    if found is None:
        return
    attempt, client = found
    said = attempt.said_root
    if said is None:
        _fault(turn, attempt, client, "a root signature before its exit was signed")
        return
    if len(message.partial_sigs) != attempt.terms.candidates:
        _fault(turn, attempt, client, f"{len(message.partial_sigs)} root signatures")
        return
    if client in said.partial_sigs:
        roots = (one.said_root for one in attempt.ladder)
        known = tuple(root.partial_sigs[client] for root in roots if root is not None)
        if known != message.partial_sigs:
            _fault(turn, attempt, client, "a second, different root signature")
        return
    first, *higher = message.partial_sigs
    turn.remember(
        op.RootPartialReceived(
            attempt_id=attempt.attempt_id, client=client, partial_sig=first, higher=tuple(higher)
        )
    )
    if not turn.state.attempt.has_holdouts:
        _sign_root(turn, attempt)


def _sign_below(turn: Turn[Factory], attempt: LspAttempt) -> None:
    """Ask for our halves of the tree below the root, and of both first commitments per channel.

    Of all candidates at once: each spends another outpoint, so none of them is signed twice.
    """
    blueprints = [candidate.blueprint for candidate in attempt.candidates]
    intents = (
        *(intent_of(node) for one in blueprints for node in one.tree.nodes_below_root),
        *(
            intent_of_commitment(commitment)
            for one in blueprints
            for commitment in one.first_commitments.values()
        ),
    )
    requests = tuple(
        request
        for candidate in attempt.candidates
        for request in (*candidate.own_requests(root=False), *candidate.own_commitment_requests())
    )
    _sign(turn, attempt, intents, requests)


def _sign_root(turn: Turn[Factory], attempt: LspAttempt) -> None:
    """Ask for our half of each candidate's root."""
    candidates = attempt.candidates
    intents = tuple(intent_of(one.blueprint.tree.root_node) for one in candidates)
    requests = tuple(request for one in candidates for request in one.own_requests(root=True))
    _sign(turn, attempt, intents, requests)


def _sign(
    turn: Turn[Factory],
    attempt: LspAttempt,
    intents: tuple[op.Intent, ...],
    requests: tuple[fx.SignRequest, ...],
) -> None:
    """Ask for our own partial signatures, after writing down what they are for."""
    turn.remember(op.SigningIntended(attempt_id=attempt.attempt_id, intents=intents))
    turn.ask(fx.PartialSign(attempt_id=attempt.attempt_id, requests=requests))


def on_partial_signed(turn: Turn[Factory], event: ev.PartialSigned) -> None:
    """Aggregate, verify and hand out: the part below the root, or the root."""
    attempt = turn.state.attempt
    match attempt.stage:
        case SigningBelow():
            finished = _finished(turn, attempt, event, _finish_below)
            if finished is not None:
                _send_below(turn, attempt, finished)
        case SigningRoot():
            signatures = _finished(turn, attempt, event, _finish_root)
            if signatures is not None:
                _send_root(turn, attempt, signatures)
        case _:
            return


def _finished(
    turn: Turn[Factory],
    attempt: LspAttempt,
    event: ev.PartialSigned,
    finish: Callable[[LspRung, LspCandidate, Mapping[str, bytes]], FinishedT],
) -> list[FinishedT] | None:
    """Return what is finished of each candidate; None after the abort for whoever spoiled one.

    Our signer's answers are in the order of the candidates, and each has as many as any other.
    """
    candidates, partial_sigs = attempt.candidates, event.partial_sigs
    n_each = len(partial_sigs) // len(candidates)
    finished: list[FinishedT] = []
    for place, (one, candidate) in enumerate(zip(attempt.ladder, candidates, strict=True)):
        own = dict(partial_sigs[place * n_each : (place + 1) * n_each])
        try:
            finished.append(finish(one, candidate, own))
        except FaultyContribution as fault:
            what = f"{fault.session_name}: bad {fault.contribution}"
            if place:
                what = f"candidate {place}: {what}"
            _fault(turn, attempt, candidate.blamed(fault), what)
            return None
    return finished


def on_signing_failed(turn: Turn[Factory], event: ev.SigningFailed) -> None:
    """End an attempt that our own signer cannot go on with; another try would fail alike."""
    attempt = turn.state.attempt
    if attempt.is_open:
        reason = f"our signer: {event.reason}"
        abort(turn, reason=reason, outcome=Outcome.SIGNER, tries_again=False)


def _finish_below(
    one: LspRung, candidate: LspCandidate, own: Mapping[str, bytes]
) -> op.FinishedBelow:
    """Finish one candidate's tree below the root, and our first commitments in it.

    Raises:
        FaultyContribution: If a client spoiled a signature.
    """
    stage = stage_of(one, SigningBelow)
    signatures = candidate.below_round(stage.partial_sigs, own).signatures()
    commitments = candidate.commitment_round(stage.commitment_partial_sigs, own).signatures()
    return op.FinishedBelow(
        signatures=tuple(
            signatures[node.name] for node in candidate.blueprint.tree.nodes_below_root
        ),
        # The round has our own commitments' sessions in the order of the clients.
        commitment_signatures=tuple(commitments.values()),
        commitment_partial_sigs=tuple(
            own[session.task.name]
            for (_, holder), session in candidate.commitment_sessions.items()
            if holder is Party.ACCEPTER
        ),
    )


def _send_below(
    turn: Turn[Factory], attempt: LspAttempt, finished: Sequence[op.FinishedBelow]
) -> None:
    """Remember what is finished below the roots; then give out what is theirs."""
    first, *higher = finished
    turn.remember(
        op.BelowSigned(
            attempt_id=attempt.attempt_id,
            signatures=first.signatures,
            commitment_signatures=first.commitment_signatures,
            commitment_partial_sigs=first.commitment_partial_sigs,
            higher=tuple(higher),
        )
    )
    roots = [stage_of(one, SigningRoot) for one in turn.state.attempt.ladder]
    for client, seat in enumerate(attempt.seats, start=1):
        signed_below = m.SignedBelow(
            attempt_id=attempt.attempt_id,
            terms_hash=attempt.terms.terms_hash,
            candidates=tuple(root.below.for_client(client) for root in roots),
        )
        turn.send(seat.node_id, signed_below)
    turn.ask(_deadline(turn.state))


def _finish_root(one: LspRung, candidate: LspCandidate, own: Mapping[str, bytes]) -> bytes:
    """Finish one candidate's root.

    Raises:
        FaultyContribution: If a client spoiled it.
    """
    partial_sigs = stage_of(one, SigningRoot).partial_sigs
    return candidate.root_round(partial_sigs, own).signatures()[one.blueprint.root_name]


def _send_root(turn: Turn[Factory], attempt: LspAttempt, signatures: Sequence[bytes]) -> None:
    """Remember the finished roots, and give them out."""
    first, *higher = signatures
    turn.remember(
        op.RootSigned(attempt_id=attempt.attempt_id, signature=first, higher=tuple(higher))
    )
    root = _signed_root(turn.state.attempt)
    for seat in attempt.seats:
        turn.send(seat.node_id, root)
    pools = fx.DropPools(pool_ids=attempt.pool_ids)
    turn.ask(_deadline(turn.state), pools)


def _signed_root(attempt: LspAttempt) -> m.SignedRoot:
    """Return the finished root of each candidate, once everything is signed."""
    signed = (one.signed for one in attempt.ladder)
    return m.SignedRoot(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms.terms_hash,
        signatures=tuple(one.root_signature for one in signed if one is not None),
    )


def on_acknowledge(turn: Turn[Factory], node_id: bytes, message: m.Acknowledge) -> None:
    """Take one client's word that it holds its branch; with the last, fund."""
    if turn.state.is_dead:
        turn.send(node_id, over(message))
        return
    found = _seat(turn.state, node_id, message)
    if found is None:
        return
    attempt, client = found
    if not isinstance(attempt.stage, Acknowledging) or client in attempt.stage.done:
        return
    turn.remember(op.Acknowledged(attempt_id=attempt.attempt_id, client=client))
    fund_if_due(turn)


def on_funding_signed(turn: Turn[Factory], event: ev.FundingSigned) -> None:
    """Remember the signed funding transaction; it is published once the chain watches for it."""
    attempt = turn.state.attempt
    if attempt.is_open:
        turn.remember(
            op.FundingWasSigned(
                attempt_id=attempt.attempt_id,
                tx=event.tx.serialize(),
                higher=tuple(tx.serialize() for tx in event.higher),
            ),
            first_watch(turn.state),
        )


def on_watched(turn: Turn[Factory]) -> None:
    """Publish a funding now that nothing which becomes of it can be missed."""
    funded = turn.state.attempt.funded
    if funded is not None and turn.chain.depth(turn.state.attempt.funding_tx.txid) == 0:
        turn.ask(*owed_of_funding(turn.state, funded))


def on_abort(turn: Turn[Factory], node_id: bytes, message: m.Abort) -> None:
    """Go on without a client that refuses. That is no fault: the terms may be ours to change.

    Nobody else hears its words: whoever joins could tell all users of the LSP whatever it likes.
    """
    attempt = turn.state.attempt
    client = attempt.client_of(node_id) if attempt.is_open else None
    if client is not None:
        told = f"client {client} refused"
        why = f"{told}: {message.reason}"
        abort(turn, reason=why, told=told, outcome=Outcome.REFUSED, culprits=(node_id,))


def on_malformed(turn: Turn[Factory], node_id: bytes, reason: str) -> None:
    """End the ceremony with a peer that sends no message of the protocol."""
    attempt = turn.state.attempt
    if attempt.is_open and attempt.client_of(node_id) is not None:
        _abort_for(turn, node_id, f"malformed message: {reason}")


def on_disconnection(turn: Turn[Factory], node_id: bytes, *, is_ours: bool) -> None:
    """End the ceremony that a client's pools were needed for: they went with its connection.

    Where we hung up for a reason of our own, nobody is named for it.
    """
    attempt = turn.state.attempt
    client = attempt.client_of(node_id) if attempt.is_open else None
    said = attempt.said_root
    if client is not None and (said is None or client not in said.done):
        why = f"the LSP hung up on client {client}" if is_ours else f"client {client} disconnected"
        culprits = () if is_ours else (node_id,)
        abort(turn, reason=why, outcome=Outcome.DISCONNECTED, culprits=culprits)


def on_resume(turn: Turn[Factory], node_id: bytes, message: m.Resume) -> None:
    """Tell a client that came back what became of the root it signed."""
    attempt = turn.state.attempt
    if turn.state.is_dead or attempt.aborted is not None:
        turn.send(node_id, over(message))
    elif attempt.signed is not None:
        turn.send(node_id, _signed_root(attempt))
    # Before it is finished there is nothing to tell; then everybody hears it.


def over(message: m.Resume | m.Acknowledge) -> m.Abort:
    """Return the answer about an attempt of which there is nothing to wait for."""
    return m.Abort(attempt_id=message.attempt_id, reason="this attempt is over")


def on_start(turn: Turn[Factory]) -> None:
    """End the ceremony whose nonces a restart lost."""
    if isinstance(turn.state.attempt.stage, SigningBelow | SigningRoot):
        abort(turn, reason="the LSP restarted", outcome=Outcome.RESTARTED)


def owed(state: Factory) -> Iterator[fx.Effect]:
    """Yield what is still owed of a ceremony and its funding, whatever was done before."""
    attempt = state.attempt
    if isinstance(attempt.stage, Funded):
        if state.chain.depth(attempt.funding_tx.txid) == 0:
            yield from owed_of_funding(state, attempt.stage)
    elif isinstance(attempt.stage, Acknowledging):
        # Clients come back with a growing pause, which is not theirs to answer for.
        seconds = RECONNECT_DEADLINES * state.config.policy.deadline_seconds
        deadline = fx.AttemptDeadline(attempt_id=attempt.attempt_id)
        yield fx.SetDeadline(deadline=deadline, seconds=seconds)


def on_block(turn: Turn[Factory]) -> None:
    """Publish a funding that is in no block; tell everybody about one that is deep enough."""
    attempt = turn.state.attempt
    if turn.height >= attempt.terms.patience_end_height:
        # Its clients stop waiting now; the timer of its step begins anew with every restart.
        on_deadline(turn)
    funded = attempt.funded
    if funded is None:
        return
    depth = turn.chain.depth(attempt.funding_tx.txid)
    if depth == 0:
        abandoning.end_if_dead(turn, attempt, funded)
        turn.ask(*owed_of_funding(turn.state, funded))
    elif depth >= attempt.terms.min_depth and not funded.ready_sent:
        _tell_ready(turn, attempt, funded)


def _tell_ready(turn: Turn[Factory], attempt: LspAttempt, funded: Funded) -> None:
    """Tell everybody that the funding is deep enough, and begin with those who said so."""
    turn.remember(op.ReadySent(attempt_id=attempt.attempt_id, rung=attempt.rung))
    for seat in attempt.seats:
        turn.send(seat.node_id, channel_ready(attempt))
    for seat in attempt.seats:
        if seat.node_id in funded.ready_received:
            begin(turn, seat.node_id)


def tell_ready_again(turn: Turn[Factory], node_id: bytes) -> None:
    """Tell a client that came back that the factory is deep enough."""
    attempt = turn.state.attempt
    is_ready = attempt.funded is not None and attempt.funded.ready_sent
    if is_ready and attempt.client_of(node_id) not in turn.state.held_keys:
        turn.send(node_id, channel_ready(attempt))


def on_channel_ready(turn: Turn[Factory], node_id: bytes, message: m.ChannelReady) -> None:
    """Take a client's word that the funding is deep enough, and begin with its channel."""
    attempt = turn.state.attempt
    if attempt.funded is None:
        return
    for one in attempt.ladder:
        if message == _channel_ready(attempt, one.blueprint.funding_tx):
            rung, funded = one.blueprint.rung, stage_of(one, Funded)
            if node_id not in funded.ready_received:
                ready = op.ReadyReceived(attempt_id=message.attempt_id, node_id=node_id, rung=rung)
                turn.remember(ready)
            if rung == attempt.rung:
                begin(turn, node_id)


def channel_ready(attempt: LspAttempt) -> m.ChannelReady:
    """Return what is said of a factory once its funding is deep enough."""
    return _channel_ready(attempt, attempt.funding_tx)


def _channel_ready(attempt: LspAttempt, funding_tx: Tx) -> m.ChannelReady:
    return m.ChannelReady(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms.terms_hash,
        funding_txid=funding_tx.txid,
    )


def on_deadline(turn: Turn[Factory]) -> None:
    """End a ceremony whose present step was not finished in time, naming the holdouts."""
    attempt = turn.state.attempt
    if not attempt.is_open:
        return
    holdouts = attempt.holdouts
    missing = f"no answer from clients {list(holdouts)}" if holdouts else _unfunded(turn)
    abort(
        turn,
        reason=f"deadline in {attempt.stage.label}: {missing}",
        outcome=Outcome.SILENCE if holdouts else Outcome.UNFUNDED,
        culprits=tuple(attempt.seats[client - 1].node_id for client in holdouts),
    )


def _unfunded(turn: Turn[Factory]) -> str:
    if is_too_late(turn.state):
        return why_too_late(turn.state)
    return turn.facts.why_no_risk or "a funding coin is gone"


def abort(
    turn: Turn[Factory],
    *,
    reason: str,
    outcome: Outcome,
    culprits: tuple[bytes, ...] = (),
    is_fault: bool = False,
    tries_again: bool = True,
    told: str | None = None,
) -> None:
    """End an attempt: tell everybody why, or `told`; forget the nonces; the house frees the coins.

    Raises:
        AssertionError: If the funding transaction was signed; then nothing can be taken back.
    """
    attempt = turn.state.attempt
    if attempt.funded is not None:
        raise AssertionError("a funded attempt cannot be aborted")
    if attempt.aborted is not None:
        return
    turn.remember(
        op.AttemptAborted(
            attempt_id=attempt.attempt_id,
            reason=reason,
            culprits=culprits,
            is_fault=is_fault,
            tries_again=tries_again,
            outcome=outcome,
        )
    )
    message = m.Abort(attempt_id=attempt.attempt_id, reason=reason if told is None else told)
    for seat in attempt.seats:
        turn.send(seat.node_id, message)
    cleared = fx.ClearDeadline(deadline=fx.AttemptDeadline(attempt_id=attempt.attempt_id))
    turn.ask(cleared, fx.DropPools(pool_ids=attempt.pool_ids))


def _fault(turn: Turn[Factory], attempt: LspAttempt, client: int, what: str) -> None:
    _abort_for(turn, attempt.seats[client - 1].node_id, f"client {client}: {what}")


def _abort_for(turn: Turn[Factory], node_id: bytes, reason: str) -> None:
    """End an attempt for a deviation that is proven against a client."""
    abort(turn, reason=reason, outcome=Outcome.FAULT, culprits=(node_id,), is_fault=True)


def _seat(
    state: Factory, node_id: bytes, message: m.SignBelow | m.SignRoot | m.Acknowledge
) -> tuple[LspAttempt, int] | None:
    """Return the open attempt and the client's seat in it; None if a message is out of place."""
    attempt = state.attempt
    client = attempt.client_of(node_id) if attempt.is_open else None
    if client is None or message.terms_hash != attempt.terms.terms_hash:
        return None
    return attempt, client


def _deadline(state: Factory) -> fx.SetDeadline:
    deadline = fx.AttemptDeadline(attempt_id=state.attempt.attempt_id)
    return fx.SetDeadline(deadline=deadline, seconds=state.config.policy.deadline_seconds)
