"""The LSP's side of the ceremony: from fresh keys to a signed funding transaction.

Each step waits for everybody: partial signatures below the root, then the root's, then the
acknowledgements. An aggregate is verified before it is sent; who spoiled a bad one is named.
"""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from cromford import effects as fx
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
    SigningBelow,
    SigningRoot,
)
from cromford.protocol.journal.opening_records import Outcome
from cromford.protocol.journal.proposal import N_CANDIDATES
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
            | ev.CoinsLookedUp()
        ):
            raise AssertionError(f"{type(event).__name__} is no factory's event")
        case _:
            assert_never(event)


def take_message(turn: Turn[Factory], node_id: bytes, message: m.OpeningMessage) -> None:
    """Take what a client says in this factory's ceremony, or of its funding."""
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
    if len(message.candidates) != N_CANDIDATES:
        _fault(turn, attempt, client, f"{len(message.candidates)} candidates")
        return
    partial_sigs = message.candidates[0].partial_sigs
    commitment_partial_sig = message.candidates[0].commitment_partial_sig
    said = attempt.said_below
    if said is not None and client in said.done:
        known = (said.partial_sigs[client], said.commitment_partial_sigs[client])
        if known != (partial_sigs, commitment_partial_sig):
            _fault(turn, attempt, client, "second, different partial signatures")
        return
    n_expected = sum(1 for _ in attempt.branch(client).nodes_below_root)
    if len(partial_sigs) != n_expected:
        _fault(turn, attempt, client, f"{len(partial_sigs)} of {n_expected} partial signatures")
        return
    turn.remember(
        op.BelowPartialsReceived(
            attempt_id=attempt.attempt_id,
            client=client,
            partial_sigs=partial_sigs,
            commitment_partial_sig=commitment_partial_sig,
        )
    )
    if not turn.state.attempt.holdouts:
        _sign_below(turn, attempt)


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
    if len(message.partial_sigs) != N_CANDIDATES:
        _fault(turn, attempt, client, f"{len(message.partial_sigs)} root signatures")
        return
    known = said.partial_sigs.get(client)
    if known is not None:
        if known != message.partial_sigs[0]:
            _fault(turn, attempt, client, "a second, different root signature")
        return
    turn.remember(
        op.RootPartialReceived(
            attempt_id=attempt.attempt_id, client=client, partial_sig=message.partial_sigs[0]
        )
    )
    if not turn.state.attempt.holdouts:
        _sign_root(turn, attempt)


def _sign_below(turn: Turn[Factory], attempt: LspAttempt) -> None:
    """Ask for our halves of the tree below the root, and of both first commitments per channel."""
    candidate = attempt.candidate
    nodes = [*candidate.blueprint.tree.nodes_below_root]
    intents = (
        *(intent_of(node) for node in nodes),
        *(
            intent_of_commitment(commitment)
            for commitment in candidate.blueprint.first_commitments.values()
        ),
    )
    requests = (*candidate.own_requests(root=False), *candidate.own_commitment_requests())
    _sign(turn, attempt, intents, requests)


def _sign_root(turn: Turn[Factory], attempt: LspAttempt) -> None:
    """Ask for our half of the root."""
    intent = intent_of(attempt.tree.root_node)
    _sign(turn, attempt, (intent,), attempt.candidate.own_requests(root=True))


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
    own = dict(event.partial_sigs)
    try:
        match attempt.stage:
            case SigningBelow():
                _send_below(turn, attempt, attempt.stage, own)
            case SigningRoot():
                _send_root(turn, attempt, attempt.stage, own)
            case _:
                return
    except FaultyContribution as fault:
        client = attempt.candidate.blamed(fault)
        _fault(turn, attempt, client, f"{fault.session_name}: bad {fault.contribution}")


def on_signing_failed(turn: Turn[Factory], event: ev.SigningFailed) -> None:
    """End an attempt that our own signer cannot go on with; another try would fail alike."""
    attempt = turn.state.attempt
    if attempt.is_open:
        reason = f"our signer: {event.reason}"
        abort(turn, reason=reason, outcome=Outcome.SIGNER, tries_again=False)


def _send_below(
    turn: Turn[Factory], attempt: LspAttempt, stage: SigningBelow, own: Mapping[str, bytes]
) -> None:
    """Finish the tree below the root and our first commitments; then give out what is theirs.

    Raises:
        FaultyContribution: If a client spoiled a signature.
    """
    candidate = attempt.candidate
    signatures = candidate.below_round(stage.partial_sigs, own).signatures()
    commitments = candidate.commitment_round(stage.commitment_partial_sigs, own).signatures()
    turn.remember(
        op.BelowSigned(
            attempt_id=attempt.attempt_id,
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
    )
    after = turn.state.attempt.stage
    if not isinstance(after, SigningRoot):
        raise AssertionError("what was signed below the root is not remembered")
    for client, seat in enumerate(attempt.seats, start=1):
        signed_below = m.SignedBelow(
            attempt_id=attempt.attempt_id,
            terms_hash=attempt.terms.terms_hash,
            candidates=(after.below.for_client(client),),
        )
        turn.send(seat.node_id, signed_below)
    turn.ask(_deadline(turn.state))


def _send_root(
    turn: Turn[Factory], attempt: LspAttempt, stage: SigningRoot, own: Mapping[str, bytes]
) -> None:
    """Finish the root and give it out.

    Raises:
        FaultyContribution: If a client spoiled it.
    """
    signatures = attempt.candidate.root_round(stage.partial_sigs, own).signatures()
    signature = signatures[attempt.blueprint.root_name]
    turn.remember(op.RootSigned(attempt_id=attempt.attempt_id, signature=signature))
    root = _signed_root(attempt, signature)
    for seat in attempt.seats:
        turn.send(seat.node_id, root)
    pools = fx.DropPools(pool_ids=attempt.candidate.pool_ids)
    turn.ask(_deadline(turn.state), pools)


def _signed_root(attempt: LspAttempt, signature: bytes) -> m.SignedRoot:
    return m.SignedRoot(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms.terms_hash,
        signatures=(signature,),
    )


def on_acknowledge(turn: Turn[Factory], node_id: bytes, message: m.Acknowledge) -> None:
    """Take one client's word that it holds its branch; with the last, fund."""
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
            op.FundingWasSigned(attempt_id=attempt.attempt_id, tx=event.tx.serialize()),
            first_watch(turn.state),
        )


def on_watched(turn: Turn[Factory]) -> None:
    """Publish a funding now that nothing which becomes of it can be missed."""
    funded = turn.state.attempt.funded
    if funded is not None and turn.chain.depth(turn.state.attempt.funding_tx.txid) == 0:
        turn.ask(*owed_of_funding(turn.state, funded))


def on_abort(turn: Turn[Factory], node_id: bytes, message: m.Abort) -> None:
    """Go on without a client that refuses. That is no fault: the terms may be ours to change."""
    attempt = turn.state.attempt
    client = attempt.client_of(node_id) if attempt.is_open else None
    if client is not None:
        reason = f"client {client} refused: {message.reason}"
        abort(turn, reason=reason, outcome=Outcome.REFUSED, culprits=(node_id,))


def on_malformed(turn: Turn[Factory], node_id: bytes, reason: str) -> None:
    """End the ceremony with a peer that sends no message of the protocol."""
    attempt = turn.state.attempt
    if attempt.is_open and attempt.client_of(node_id) is not None:
        _abort_for(turn, node_id, f"malformed message: {reason}")


def on_disconnection(turn: Turn[Factory], node_id: bytes) -> None:
    """End the ceremony that a client's pools were needed for: they went with its connection."""
    attempt = turn.state.attempt
    client = attempt.client_of(node_id) if attempt.is_open else None
    said = attempt.said_root
    if client is not None and (said is None or client not in said.done):
        reason = f"client {client} disconnected"
        abort(turn, reason=reason, outcome=Outcome.DISCONNECTED, culprits=(node_id,))


def on_resume(turn: Turn[Factory], node_id: bytes, message: m.Resume) -> None:
    """Tell a client that came back what became of the root it signed."""
    attempt = turn.state.attempt
    if turn.state.is_dead or attempt.aborted is not None or attempt.client_of(node_id) is None:
        turn.send(node_id, over(message))
    elif attempt.signed is not None:
        turn.send(node_id, _signed_root(attempt, attempt.signed.root_signature))
    # Before it is finished there is nothing to tell; then everybody hears it.


def over(message: m.Resume) -> m.Abort:
    """Return the answer about an attempt of which there is nothing to go on with."""
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
    if attempt.is_open and turn.height >= attempt.terms.patience_end_height:
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
    turn.remember(op.ReadySent(attempt_id=attempt.attempt_id))
    for seat in attempt.seats:
        turn.send(seat.node_id, channel_ready(attempt))
    for seat in attempt.seats:
        if seat.node_id in funded.ready_received:
            begin(turn, seat.node_id)


def tell_ready_again(turn: Turn[Factory], node_id: bytes) -> None:
    """Tell a client that came back that the factory is deep enough."""
    attempt = turn.state.attempt
    is_ready = attempt.funded is not None and attempt.funded.ready_sent
    client = attempt.client_of(node_id)
    if is_ready and client is not None and client not in turn.state.held_keys:
        turn.send(node_id, channel_ready(attempt))


def on_channel_ready(turn: Turn[Factory], node_id: bytes, message: m.ChannelReady) -> None:
    """Take a client's word that the funding is deep enough, and begin with its channel."""
    attempt = turn.state.attempt
    if (
        attempt.funded is None
        or attempt.client_of(node_id) is None
        or message != channel_ready(attempt)
    ):
        return
    if node_id not in attempt.funded.ready_received:
        turn.remember(op.ReadyReceived(attempt_id=message.attempt_id, node_id=node_id))
    begin(turn, node_id)


def channel_ready(attempt: LspAttempt) -> m.ChannelReady:
    """Return what is said of a factory once its funding is deep enough."""
    return m.ChannelReady(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms.terms_hash,
        funding_txid=attempt.funding_tx.txid,
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
) -> None:
    """End an attempt: tell everybody, forget the nonces; the house frees the coins.

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
    message = m.Abort(attempt_id=attempt.attempt_id, reason=reason)
    for seat in attempt.seats:
        turn.send(seat.node_id, message)
    turn.ask(_cleared(attempt), fx.DropPools(pool_ids=attempt.candidate.pool_ids))


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


def _cleared(attempt: LspAttempt) -> fx.ClearDeadline:
    return fx.ClearDeadline(deadline=fx.AttemptDeadline(attempt_id=attempt.attempt_id))
