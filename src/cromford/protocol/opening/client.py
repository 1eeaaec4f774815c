"""The client's side of the ceremony: check, sign the exit, hold it, sign the root, acknowledge."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, assert_never

from cromford import effects as fx
from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.protocol import events as ev
from cromford.protocol.channels.client import begin
from cromford.protocol.faults import FaultyLsp, Refusal
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import (
    BelowSent,
    Checked,
    ClientAttempt,
    Complete,
    HasExit,
    Received,
    RootSent,
)
from cromford.protocol.journal.client_candidate import ClientCandidate, pool_ids_of
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.intents import intent_of, intent_of_commitment
from cromford.protocol.journal.proposal import ClaimedCandidate, claims_of, kept_proposal
from cromford.protocol.lobby.client import part, prepare_join, withdraw
from cromford.protocol.opening.verification import ClientFacts, check_ladder
from cromford.protocol.turn import Turn
from cromford.wallet.coins import N_INPUTS_MAX
from cromford.watch.feerates import SWEEP_BLOCKS
from cromford.wire import messages as m

# A ceremony waits for the slowest client in each of its steps.
DEADLINES_PER_CEREMONY = 4
# What is wrong with our node in particular is not the LSP's business.
CHAIN_STALE: Final = "this client's chain is stale"
ANOTHER_CANDIDATE: Final = "it named another candidate of its funding ready before"
UNMARKABLE: Final = "this client cannot mark what it remembers"


def take(turn: Turn[ClientState], event: ev.OpeningEvent) -> None:
    """Take an answer of our signer, or of our chain, in a ceremony."""
    match event:
        case ev.CoinsLookedUp():
            on_coins(turn, event)
        case ev.PartialSigned():
            on_partial_signed(turn, event)
        case ev.SigningFailed(asked=asked, reason=reason):
            abort(turn, asked.attempt_id, reason)
        case (
            ev.AttemptPrepared()
            | ev.FundingSigned()
            | ev.FactoryAbandonRequested()
            | ev.FundingBumpRequested()
            | ev.FundingReplaceRequested()
        ):
            raise AssertionError(f"{type(event).__name__} is an LSP's event")
        case _:
            assert_never(event)


def take_message(turn: Turn[ClientState], message: m.OpeningMessage) -> None:
    """Take what the LSP says in a ceremony; what only a client says ends the connection."""
    match message:
        case m.Propose():
            on_propose(turn, message)
        case m.SignedBelow() | m.SignedRoot():
            on_signatures(turn, message)
        case m.Abort():
            on_abort(turn, message)
        case m.ChannelReady():
            on_channel_ready(turn, message)
        case m.SignBelow() | m.SignRoot() | m.Acknowledge() | m.Resume():
            part(turn, message)
        case _:
            assert_never(message)


def _attempt_of(turn: Turn[ClientState], attempt_id: bytes) -> ClientAttempt | None:
    """Return the attempt that the LSP of this connection speaks of, if it is one with it."""
    return turn.state.attempt_with(turn.state.lsp_node_id, attempt_id)


def on_propose(turn: Turn[ClientState], propose: m.Propose) -> None:
    """Remember a proposal, and ask our own chain for the coins it would spend."""
    joining = turn.state.joining
    if joining is None or propose.factory_pubkey != joining.join.factory_pool.pubkey:
        return  # It answers another join, one that we have left.
    if propose.attempt_id in turn.state.attempts:
        return  # of another attempt: dropped, never a fault
    turn.remember(
        op.ProposalReceived(
            attempt_id=propose.attempt_id, client=propose.client, terms_hash=propose.terms_hash
        )
    )
    if not turn.facts.may_risk:
        abort(turn, propose.attempt_id, _why_no_risk(turn))
        return
    try:
        funding_tx = Tx.parse(propose.candidates[0].funding_tx)
    except (IndexError, ValueError):
        # The checks give it its name.
        outpoints: tuple[OutPoint, ...] = ()
    else:
        outpoints = tuple(tx_in.outpoint for tx_in in funding_tx.inputs[:N_INPUTS_MAX])
    seconds = DEADLINES_PER_CEREMONY * turn.state.config.policy.deadline_seconds
    deadline = fx.AttemptDeadline(attempt_id=propose.attempt_id)
    turn.ask(
        fx.LookUpCoins(attempt_id=propose.attempt_id, outpoints=outpoints, propose=propose),
        fx.SetDeadline(deadline=deadline, seconds=seconds),
    )


def _why_no_risk(turn: Turn[ClientState]) -> str:
    return UNMARKABLE if turn.facts.is_fresh else CHAIN_STALE


def on_coins(turn: Turn[ClientState], event: ev.CoinsLookedUp) -> None:
    """Check everything; then sign below the root, or refuse by name."""
    state, attempt_id, coins = turn.state, event.asked.attempt_id, dict(event.coins)
    attempt, propose = state.attempts.get(attempt_id), event.asked.propose
    if attempt is None or attempt.aborted is not None or not isinstance(attempt.stage, Received):
        return
    if propose is None:
        raise AssertionError("coins were looked up for no proposal")
    if not turn.facts.may_risk:
        abort(turn, attempt_id, _why_no_risk(turn))
        return
    facts = ClientFacts(
        network=state.config.network,
        policy=state.config.policy,
        tip_height=state.chain.height,
        fees=turn.facts.fees,
        coins_sat=state.wallet.payable_sat(
            tip_height=state.chain.height,
            feerate_sat_per_kw=turn.facts.fees.within(SWEEP_BLOCKS),
        ),
        known_funding_outpoints=frozenset(
            candidate.funding_outpoint
            for other in state.attempts.values()
            if other.is_checked
            for candidate in other.candidates
        ),
    )
    claims = claims_of(attempt.join, propose)
    missing_height = _missing_block(claims, coins, state)
    if missing_height is not None:
        # The next block asks to join again.
        abort(turn, attempt_id, f"our node lacks block {missing_height}, which the LSP's has")
        return
    try:
        check_ladder(claims, facts, coins)
    except Refusal as refusal:
        _turn_down(turn, attempt_id, f"refused: {refusal}", str(refusal))
        return
    turn.remember(
        op.ProposalAccepted(
            attempt_id=attempt_id, inputs=_inputs(coins), kept=kept_proposal(claims)
        )
    )
    accepted = turn.state.attempts[attempt_id].candidates
    for candidate, claim in zip(accepted, claims, strict=True):
        candidate.take_computed(claim.branch.as_kept(claim.terms.of_branch), claim.setting)
    _sign_below(turn, claims)


def _missing_block(
    claims: Sequence[ClaimedCandidate], coins: Mapping[OutPoint, Coin | None], state: ClientState
) -> int | None:
    """Return the height of a block that may have a coin which we lack: the LSP has it, we do not.

    None if that is no reason. How far ahead an LSP may be is the policy's, and refused by name.
    """
    if None not in coins.values():
        return None
    try:
        height = claims[0].terms.build_height
    except ValueError:
        return None  # The checks give it its name.
    ahead_blocks = height - state.chain.height
    return height if 0 < ahead_blocks <= state.config.policy.build_height_slack_blocks else None


def _sign_below(turn: Turn[ClientState], claims: Sequence[ClaimedCandidate]) -> None:
    """Ask for our halves of the branch below the root, of the LSP's first commitment and ours.

    Of all candidates at once: each spends another outpoint, so none of them is signed twice. The
    root is signed last, when nobody but the signer remembers any more who else signs it.
    """
    intents: list[op.Intent] = []
    for claim in claims:
        intents += (intent_of(node) for node in claim.branch.nodes_below_root)
        intents += (intent_of_commitment(one) for one in claim.first_commitments)
    attempt_id = claims[0].propose.attempt_id
    turn.remember(op.SigningIntended(attempt_id=attempt_id, intents=tuple(intents)))
    turn.ask(
        fx.PartialSign(
            attempt_id=attempt_id,
            requests=tuple(request for claim in claims for request in claim.below_requests()),
            bound=tuple(claim.root_request for claim in claims),
        )
    )


def _inputs(coins: Mapping[OutPoint, Coin | None]) -> tuple[op.FundingInput, ...]:
    return tuple(
        op.FundingInput(
            txid=outpoint.txid,
            vout=outpoint.vout,
            amount_sat=coin.txout.amount_sat,
            script_pubkey=coin.txout.script_pubkey,
        )
        for outpoint, coin in coins.items()
        if coin is not None
    )


def on_partial_signed(turn: Turn[ClientState], event: ev.PartialSigned) -> None:
    """Remember our partial signatures, then send them."""
    attempt_id = event.asked.attempt_id
    attempt = turn.state.attempts[attempt_id]
    if attempt.aborted is not None:
        return
    partial_sigs = tuple(partial_sig for _, partial_sig in event.partial_sigs)
    ids = {"attempt_id": attempt_id, "terms_hash": attempt.terms_hash}
    lsp = attempt.lsp_node_id
    match attempt.stage:
        case Checked():
            first, *higher = _halves(partial_sigs, n_candidates=len(attempt.ladder))
            turn.remember(
                op.BelowPartialsMade(
                    attempt_id=attempt_id,
                    partial_sigs=first.partial_sigs,
                    commitment_partial_sig=first.commitment_partial_sig,
                    own_partial_sig=first.own_partial_sig,
                    higher=tuple(higher),
                )
            )
            given = tuple(
                m.PartialSigs(
                    partial_sigs=one.partial_sigs,
                    commitment_partial_sig=one.commitment_partial_sig,
                )
                for one in (first, *higher)
            )
            turn.send(lsp, m.SignBelow(**ids, candidates=given))
        case HasExit():
            root, *higher_roots = partial_sigs
            turn.remember(
                op.RootPartialMade(
                    attempt_id=attempt_id, partial_sig=root, higher=tuple(higher_roots)
                )
            )
            turn.send(lsp, m.SignRoot(**ids, partial_sigs=partial_sigs))
        case _:
            return


def _halves(partial_sigs: Sequence[bytes], *, n_candidates: int) -> Iterator[op.OwnHalves]:
    """Yield what we signed below each candidate's root: all have as many transactions."""
    n_each = len(partial_sigs) // n_candidates
    for first in range(0, len(partial_sigs), n_each):
        *below, theirs, own = partial_sigs[first : first + n_each]
        yield op.OwnHalves(
            partial_sigs=tuple(below), commitment_partial_sig=theirs, own_partial_sig=own
        )


def on_signatures(turn: Turn[ClientState], message: m.SignedBelow | m.SignedRoot) -> None:
    """Take finished signatures; a bad one ends the attempt."""
    attempt = _attempt_of(turn, message.attempt_id)
    if attempt is None or attempt.aborted is not None or message.terms_hash != attempt.terms_hash:
        return
    try:
        if isinstance(message, m.SignedBelow):
            _on_signed_below(turn, attempt, message)
        else:
            _on_signed_root(turn, attempt, message)
    except FaultyLsp as fault:
        _turn_down(turn, attempt.attempt_id, f"the LSP is at fault: {fault}", str(fault))


def _on_signed_below(
    turn: Turn[ClientState], attempt: ClientAttempt, message: m.SignedBelow
) -> None:
    if not isinstance(attempt.stage, BelowSent):
        return
    sent = [stage for stage in attempt.ladder if isinstance(stage, BelowSent)]
    if len(message.candidates) != len(sent):
        raise FaultyLsp(f"signatures for {len(message.candidates)} candidates")
    first, *higher = [
        _held_exit(stage, received)
        for stage, received in zip(sent, message.candidates, strict=True)
    ]
    # From here on a root may become spendable; whatever happens, the exit below it is held,
    # and the way out of the channel too: under every candidate.
    turn.remember(
        op.ExitFinished(
            attempt_id=attempt.attempt_id,
            signatures=first.signatures,
            commitment_signature=first.commitment_signature,
            higher=tuple(higher),
        )
    )
    intents = tuple(intent_of(stage.candidate.branch.root_node) for stage in sent)
    turn.remember(op.SigningIntended(attempt_id=attempt.attempt_id, intents=intents))
    requests = tuple(stage.candidate.root_request for stage in sent)
    turn.ask(fx.PartialSign(attempt_id=attempt.attempt_id, requests=requests))


def _held_exit(stage: BelowSent, received: m.BranchSignatures) -> op.HeldExit:
    """Return the finished signatures below one candidate's root, each verified.

    Raises:
        FaultyLsp: If one is missing or does not verify.
    """
    stage.candidate.check_below(received.signatures)
    return op.HeldExit(
        signatures=received.signatures,
        commitment_signature=stage.candidate.commitment_signature(
            own_partial_sig=stage.own_partial_sig,
            lsp_partial_sig=received.commitment_partial_sig,
        ),
    )


def _on_signed_root(turn: Turn[ClientState], attempt: ClientAttempt, message: m.SignedRoot) -> None:
    lsp = attempt.lsp_node_id
    acknowledge = m.Acknowledge(attempt_id=attempt.attempt_id, terms_hash=message.terms_hash)
    if isinstance(attempt.stage, Complete):
        turn.send(lsp, acknowledge)
        return
    if not isinstance(attempt.stage, RootSent):
        return
    candidates = attempt.candidates
    if len(message.signatures) != len(candidates):
        raise FaultyLsp(f"{len(message.signatures)} root signatures")
    for candidate, signature in zip(candidates, message.signatures, strict=True):
        candidate.check_root(signature)
    first, *higher = message.signatures
    turn.remember(
        op.BranchCompleted(attempt_id=attempt.attempt_id, signature=first, higher=tuple(higher))
    )
    turn.send(lsp, acknowledge)
    turn.ask(_cleared(attempt), fx.DropPools(pool_ids=pool_ids_of(attempt.join)))


def abort(turn: Turn[ClientState], attempt_id: bytes, reason: str) -> None:
    """End an attempt ourselves, and tell the LSP why."""
    attempt = turn.state.attempts[attempt_id]
    if attempt.aborted is not None:
        return
    # What an LSP sent can be in a refusal at any length.
    reason = reason[: m.REASON_SIZE_MAX]
    turn.remember(op.AttemptAborted(attempt_id=attempt_id, reason=reason, culprits=()))
    turn.ask(fx.DropPools(pool_ids=pool_ids_of(attempt.join)), _cleared(attempt))
    turn.send(attempt.lsp_node_id, m.Abort(attempt_id=attempt_id, reason=reason))


def _turn_down(turn: Turn[ClientState], attempt_id: bytes, reason: str, refusal: str) -> None:
    """End an attempt that we do not take part in, and the wish that led to it.

    Who moves out of a factory that dies wishes anew some blocks later: asked for at once, the same
    terms would end the same ceremony for everybody else.
    """
    wish = turn.state.wish
    abort(turn, attempt_id, reason)
    if wish is not None and wish.moves_from:
        why = refusal[: m.REASON_SIZE_MAX]
        turn.remember(dr.MoveHindered(attempt_id=wish.moves_from, reason=why, is_refusal=True))
    withdraw(turn)


def on_deadline(turn: Turn[ClientState], attempt_id: bytes) -> None:
    """Stop waiting for the LSP."""
    attempt = turn.state.attempts.get(attempt_id)
    if attempt is None or attempt.aborted is not None or isinstance(attempt.stage, Complete):
        return
    if isinstance(attempt.stage, RootSent):
        # The LSP may hold the root, so nothing may be forgotten: we only stop waiting.
        turn.remember(op.WaitGivenUp(attempt_id=attempt_id))
    elif isinstance(attempt.stage, Received):
        # The first step is our own: the coins were never looked up.
        abort(turn, attempt_id, "deadline: our own node did not answer")
    else:
        abort(turn, attempt_id, "deadline: the LSP went silent")


def on_abort(turn: Turn[ClientState], message: m.Abort) -> None:
    """Take the LSP's word that an attempt is over, and join again where there is a wish."""
    attempt = _attempt_of(turn, message.attempt_id)
    # Once we said that it is ready, the LSP cannot talk us out of a factory.
    if attempt is None or attempt.aborted is not None or attempt.ready_sent:
        return
    reason = f"the LSP: {message.reason}"
    turn.remember(op.AttemptAborted(attempt_id=message.attempt_id, reason=reason, culprits=()))
    turn.ask(_cleared(attempt), fx.DropPools(pool_ids=pool_ids_of(attempt.join)))
    prepare_join(turn)


def void_connection(turn: Turn[ClientState], record: r.AnyRecord) -> None:
    """Remember a connection's end, and void what hung on it: pools, and attempts needing them."""
    state = turn.state
    pools = [
        pool_id
        for attempt in state.attempts.values()
        if attempt.aborted is None
        for pool_id in pool_ids_of(attempt.join)
    ]
    if state.joining is not None:
        pools.extend(pool_ids_of(state.joining.join))
    pools += [pool_id for link in state.book.links.values() for pool_id in link.pool_ids]
    turn.remember(record)
    turn.ask(fx.DropPools(pool_ids=tuple(pools)))
    for attempt in state.attempts.values():
        if attempt.aborted is None and not isinstance(attempt.stage, RootSent | Complete):
            turn.remember(
                op.AttemptAborted(
                    attempt_id=attempt.attempt_id, reason="connection lost", culprits=()
                )
            )
            turn.ask(_cleared(attempt))


def after_reconnect(attempt: ClientAttempt) -> tuple[m.Message, ...]:
    """Return what is said of an attempt in a new connection: the question, or the last word."""
    ids = {"attempt_id": attempt.attempt_id, "terms_hash": attempt.terms_hash}
    if isinstance(attempt.stage, RootSent) and attempt.aborted is None:
        return (m.Resume(**ids),)
    if not isinstance(attempt.stage, Complete) or attempt.keys_taken:
        return ()
    if attempt.ready_sent:
        return (channel_ready(attempt),)
    return (m.Acknowledge(**ids),) if attempt.aborted is None else ()


def on_channel_ready(turn: Turn[ClientState], message: m.ChannelReady) -> None:
    """Take the LSP's word that the funding is deep enough, and begin with the channel."""
    attempt = _attempt_of(turn, message.attempt_id)
    if attempt is None or not isinstance(attempt.stage, Complete):
        return
    rungs = (one.rung for one in attempt.candidates if message == _channel_ready(attempt, one))
    rung = next(rungs, None)
    if rung is None:
        return
    if not attempt.ready_received or attempt.ready_rung != rung:
        lsp = attempt.lsp_node_id
        turn.remember(op.ReadyReceived(attempt_id=message.attempt_id, node_id=lsp, rung=rung))
        if attempt.ready_received:
            # Once in a connection, or it could fill our journal.
            turn.ask(fx.Disconnect(node_id=lsp, reason=ANOTHER_CANDIDATE))
            return
    begin(turn, turn.state.attempts[message.attempt_id])


def channel_ready(attempt: ClientAttempt) -> m.ChannelReady:
    """Return what is said of a factory once its funding is deep enough."""
    return _channel_ready(attempt, attempt.candidate)


def _channel_ready(attempt: ClientAttempt, candidate: ClientCandidate) -> m.ChannelReady:
    return m.ChannelReady(
        attempt_id=attempt.attempt_id,
        terms_hash=attempt.terms_hash,
        funding_txid=candidate.funding_tx.txid,
    )


def on_block(turn: Turn[ClientState]) -> None:
    """Tell the LSP of a funding that is deep enough; give one up that comes too late."""
    for attempt in turn.state.attempts.values():
        if is_ready(turn.state, attempt) and not attempt.ready_sent:
            turn.remember(op.ReadySent(attempt_id=attempt.attempt_id, rung=attempt.rung))
            turn.send(attempt.lsp_node_id, channel_ready(attempt))
            if turn.state.joining is not None:
                withdraw(turn)  # We joined again meanwhile, and one factory was wished for.
            begin(turn, turn.state.attempts[attempt.attempt_id])
        elif _is_waiting(attempt) and is_hopeless(turn.state, attempt):
            rung = attempt.rung_in(turn.chain) if attempt.ready_sent else None
            turn.remember(op.WaitGivenUp(attempt_id=attempt.attempt_id, rung=rung))


def _is_waiting(attempt: ClientAttempt) -> bool:
    """Say whether a funding is waited for; one that was live is, too, if it left the chain."""
    return attempt.is_open or (attempt.ready_sent and not attempt.given_up)


def is_hopeless(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether the funding did not confirm in the agreed patience, or too late to be used.

    Or never will: another transaction that spends a coin of it is deep enough.
    Without the root a funding is of no use, whenever it confirms. Every earlier stage ends with its
    connection, so no attempt is open for ever, whatever a restart forgets.
    """
    if not isinstance(attempt.stage, Complete | RootSent):
        return False
    if attempt.is_overtaken(state.chain):
        return True
    if attempt.ready_sent:
        return False
    height = state.chain.confirmed.get(attempt.funding_tx.txid)
    if height is None or isinstance(attempt.stage, RootSent):
        return state.chain.height >= attempt.terms.patience_end_height
    return height > attempt.branch.ready_height_max


def watched(state: ClientState) -> frozenset[OutPoint]:
    """Return the coins of fundings that are waited for: whoever else spends one ends the wait.

    A funding that a reorganisation took back is waited for again.
    """
    return frozenset(
        tx_in.outpoint
        for attempt in state.attempts.values()
        if isinstance(attempt.stage, Complete | RootSent)
        and not (attempt.ready_sent and attempt.funding_tx.txid in state.chain.confirmed)
        for tx_in in attempt.funding_tx.inputs
    )


def is_ready(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether the agreed funding is deep enough, in time, and we can leave alone.

    The txid covers outputs and amounts, so the confirmed output is the one that was checked.
    """
    if not isinstance(attempt.stage, Complete):
        return False
    height = state.chain.confirmed.get(attempt.funding_tx.txid)
    return (
        height is not None
        and state.chain.height - height + 1 >= attempt.terms.min_depth
        and height <= attempt.branch.ready_height_max
    )


def _cleared(attempt: ClientAttempt) -> fx.ClearDeadline:
    return fx.ClearDeadline(deadline=fx.AttemptDeadline(attempt_id=attempt.attempt_id))
