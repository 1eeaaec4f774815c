"""The client's side of the ceremony: check, sign the exit, hold it, sign the root, acknowledge."""

from collections.abc import Mapping

from cromford import effects as fx
from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.terms import Party
from cromford.factory.branch import Branch
from cromford.protocol.faults import FaultyLsp, Refusal
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import (
    BelowSent,
    Checked,
    ClientAttempt,
    Complete,
    HoldsExit,
    Received,
    RootSent,
    pool_ids_of,
)
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.intents import intent_of, intent_of_commitment
from cromford.protocol.journal.proposal import N_CANDIDATES
from cromford.protocol.opening.verification import ClientView, check_proposal
from cromford.protocol.turn import NOTHING, Decision
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

# A ceremony waits for the slowest client in each of its steps.
DEADLINES_PER_CEREMONY = 4


def on_propose(state: ClientState, propose: m.Propose) -> Decision:
    """Remember a proposal, and ask our own chain for the coins it would spend."""
    joining = state.joining
    if joining is None or propose.factory_pubkey != joining.join.factory_pool.pubkey:
        return NOTHING  # It answers another join, one that we have left.
    if propose.attempt_id in state.attempts:
        return NOTHING  # of another attempt: dropped, never a fault
    received = r.ProposalReceived(message=encode_message(propose))
    try:
        funding_tx = Tx.parse(propose.candidates[0].funding_tx)
    except (IndexError, ValueError):
        # The checks give it its name.
        outpoints: tuple[OutPoint, ...] = ()
    else:
        outpoints = tuple(tx_in.outpoint for tx_in in funding_tx.inputs)
    return Decision(
        records=(received,),
        effects=(
            fx.LookUpCoins(attempt_id=propose.attempt_id, outpoints=outpoints),
            fx.SetDeadline(
                deadline=fx.AttemptDeadline(attempt_id=propose.attempt_id),
                seconds=DEADLINES_PER_CEREMONY * state.config.policy.deadline_seconds,
            ),
        ),
    )


def on_coins(
    state: ClientState, attempt_id: bytes, coins: Mapping[OutPoint, Coin | None]
) -> Decision:
    """Check everything; then sign below the root, or refuse by name."""
    attempt = state.attempts.get(attempt_id)
    if attempt is None or attempt.aborted is not None or not isinstance(attempt.stage, Received):
        return NOTHING
    view = ClientView(
        network=state.config.network,
        policy=state.config.policy,
        join=attempt.join,
        tip_height=state.chain.height,
        known_funding_outpoints=frozenset(
            other.funding_outpoint
            for other in state.attempts.values()
            if not isinstance(other.stage, Received)
        ),
    )
    try:
        branch = check_proposal(attempt.propose, view, coins)
    except Refusal as refusal:
        return abort(state, attempt_id, f"refused: {refusal}") + Decision(
            records=(r.WishWithdrawn(),)
        )
    return Decision(
        records=(r.ProposalAccepted(attempt_id=attempt_id, inputs=_inputs(coins)),)
    ) + _sign_below(attempt, branch)


def _sign_below(attempt: ClientAttempt, branch: Branch) -> Decision:
    """Ask for our halves of the branch below the root, of the LSP's first commitment and ours."""
    nodes = tuple(branch.nodes_below_root)
    intents = (
        *(intent_of(node) for node in nodes),
        *(intent_of_commitment(commitment) for commitment in attempt.first_commitments),
    )
    requests = (
        *(attempt.request_for(node) for node in nodes),
        *(attempt.commitment_request(holder) for holder in Party),
    )
    return Decision(
        records=(r.SigningIntended(attempt_id=attempt.attempt_id, intents=intents),),
        effects=(fx.PartialSign(attempt_id=attempt.attempt_id, requests=requests),),
    )


def _inputs(coins: Mapping[OutPoint, Coin | None]) -> tuple[r.FundingInput, ...]:
    return tuple(
        r.FundingInput(
            txid=outpoint.txid,
            vout=outpoint.vout,
            amount_sat=coin.txout.amount_sat,
            script_pubkey=coin.txout.script_pubkey,
        )
        for outpoint, coin in coins.items()
        if coin is not None
    )


def on_partial_signed(
    state: ClientState, attempt_id: bytes, partial_sigs: tuple[bytes, ...]
) -> Decision:
    """Remember our partial signatures, then send them."""
    attempt = state.attempts[attempt_id]
    if attempt.aborted is not None:
        return NOTHING
    ids = {"attempt_id": attempt_id, "terms_hash": attempt.propose.terms_hash}
    lsp = state.config.lsp_node_id
    match attempt.stage:
        case Checked():
            *below, theirs, own = partial_sigs
            made = r.BelowPartialsMade(
                attempt_id=attempt_id,
                partial_sigs=tuple(below),
                commitment_partial_sig=theirs,
                own_partial_sig=own,
            )
            halves = m.PartialSigs(partial_sigs=tuple(below), commitment_partial_sig=theirs)
            sign_below = m.SignBelow(**ids, candidates=(halves,))
            return Decision(records=(made,), effects=(fx.Send(node_id=lsp, message=sign_below),))
        case HoldsExit():
            sign_root = m.SignRoot(**ids, partial_sigs=partial_sigs)
            return Decision(
                records=(r.RootPartialMade(attempt_id=attempt_id, partial_sig=partial_sigs[0]),),
                effects=(fx.Send(node_id=lsp, message=sign_root),),
            )
        case _:
            return NOTHING


def on_signatures(state: ClientState, message: m.SignedBelow | m.SignedRoot) -> Decision:
    """Take finished signatures; a bad one ends the attempt."""
    attempt = state.attempts.get(message.attempt_id)
    if (
        attempt is None
        or attempt.aborted is not None
        or message.terms_hash != attempt.propose.terms_hash
    ):
        return NOTHING
    try:
        if isinstance(message, m.SignedBelow):
            return _on_signed_below(attempt, message)
        return _on_signed_root(state, attempt, message)
    except FaultyLsp as fault:
        return abort(state, attempt.attempt_id, f"the LSP is at fault: {fault}") + Decision(
            records=(r.WishWithdrawn(),)
        )


def _on_signed_below(attempt: ClientAttempt, message: m.SignedBelow) -> Decision:
    if not isinstance(attempt.stage, BelowSent):
        return NOTHING
    if len(message.candidates) != N_CANDIDATES:
        raise FaultyLsp(f"signatures for {len(message.candidates)} candidates")
    received = message.candidates[0]
    attempt.check_below(received.signatures)
    commitment_signature = attempt.commitment_signature(
        own_partial_sig=attempt.stage.own_partial_sig,
        lsp_partial_sig=received.commitment_partial_sig,
    )
    root = attempt.branch.root_kickoff
    # From here on the root may become spendable; whatever happens, the exit below it is held,
    # and the way out of the channel too.
    return Decision(
        records=(
            r.ExitHeld(
                attempt_id=attempt.attempt_id,
                signatures=received.signatures,
                commitment_signature=commitment_signature,
            ),
            r.SigningIntended(attempt_id=attempt.attempt_id, intents=(intent_of(root),)),
        ),
        effects=(
            fx.PartialSign(attempt_id=attempt.attempt_id, requests=(attempt.request_for(root),)),
        ),
    )


def _on_signed_root(state: ClientState, attempt: ClientAttempt, message: m.SignedRoot) -> Decision:
    ids = {"attempt_id": attempt.attempt_id, "terms_hash": message.terms_hash}
    acknowledge = fx.Send(node_id=state.config.lsp_node_id, message=m.Acknowledge(**ids))
    if isinstance(attempt.stage, Complete):
        return Decision(effects=(acknowledge,))
    if not isinstance(attempt.stage, RootSent):
        return NOTHING
    if len(message.signatures) != N_CANDIDATES:
        raise FaultyLsp(f"{len(message.signatures)} root signatures")
    attempt.check_root(message.signatures[0])
    return Decision(
        records=(
            r.BranchCompleted(attempt_id=attempt.attempt_id, signature=message.signatures[0]),
        ),
        effects=(
            acknowledge,
            fx.ClearDeadline(deadline=fx.AttemptDeadline(attempt_id=attempt.attempt_id)),
            fx.DropPools(pool_ids=pool_ids_of(attempt.join)),
        ),
    )


def abort(state: ClientState, attempt_id: bytes, reason: str) -> Decision:
    """End an attempt ourselves, and tell the LSP why."""
    attempt = state.attempts[attempt_id]
    if attempt.aborted is not None:
        return NOTHING
    # What an LSP sent can be in a refusal at any length.
    reason = reason[: m.REASON_SIZE_MAX]
    return Decision(
        records=(r.AttemptAborted(attempt_id=attempt_id, reason=reason, culprits=()),),
        effects=(
            fx.DropPools(pool_ids=pool_ids_of(attempt.join)),
            fx.ClearDeadline(deadline=fx.AttemptDeadline(attempt_id=attempt_id)),
            fx.Send(
                node_id=state.config.lsp_node_id,
                message=m.Abort(attempt_id=attempt_id, reason=reason),
            ),
        ),
    )


def on_deadline(state: ClientState, attempt_id: bytes) -> Decision:
    """Stop waiting for the LSP."""
    attempt = state.attempts.get(attempt_id)
    if attempt is None or attempt.aborted is not None or isinstance(attempt.stage, Complete):
        return NOTHING
    if isinstance(attempt.stage, RootSent):
        # The LSP may hold kickoff_root, so nothing may be forgotten: we only stop waiting.
        return Decision(records=(r.WaitGivenUp(attempt_id=attempt_id),))
    if isinstance(attempt.stage, Received):
        # The first step is our own: the coins were never looked up.
        return abort(state, attempt_id, "deadline: our own node did not answer")
    return abort(state, attempt_id, "deadline: the LSP went silent")
