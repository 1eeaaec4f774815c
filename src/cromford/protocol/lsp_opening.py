"""The LSP's side of the ceremony: from fresh keys to a signed funding transaction.

Each step waits for everybody: partial signatures below the root, then the root's, then the
acknowledgements. An aggregate is verified before it is sent; who spoiled a bad one is named.
"""

from collections.abc import Mapping

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, TxOut
from cromford.channel.terms import Party
from cromford.factory.funding import funding_tx_of
from cromford.factory.shape import plan_of
from cromford.factory.vertices import funding_output_of
from cromford.protocol import events as ev
from cromford.protocol import records as r
from cromford.protocol.decision import NOTHING, Decision, intent_of, intent_of_commitment
from cromford.protocol.lobby import select_coins, shape_by_policy, terms_of
from cromford.protocol.lsp_attempt import ROOT, LspAttempt
from cromford.protocol.lsp_state import Build, LspState, apply
from cromford.protocol.offers import offer_of
from cromford.protocol.verification import N_CANDIDATES
from cromford.signing.nonces import PublicPool
from cromford.signing.round import FaultyContribution
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import InsufficientCoins
from cromford.wire import messages as m
from cromford.wire.fields import encode_fields


def on_attempt_prepared(state: LspState, event: ev.AttemptPrepared) -> Decision:
    """Compute the tree from everybody's fresh keys and propose it."""
    build = state.build
    pools = (event.factory_pool, *(pool for _, pool in event.channels))
    drop = fx.DropPools(pool_ids=tuple(pool.pool_id for pool in pools))
    if build is None or build.attempt != event.attempt:
        return Decision(effects=(drop,))
    missing = [node_id for node_id in build.node_ids if node_id not in state.members]
    if missing:
        # Nothing was proposed, so nobody has to make fresh keys; those who stayed still wait.
        dropped = r.BuildDropped(reason=f"{len(missing)} clients left before the proposal")
        return Decision(records=(dropped,), effects=(drop,))
    try:
        proposed = _propose(state, build, event)
    except InsufficientCoins as error:
        return Decision(records=(r.BuildDropped(reason=str(error)),), effects=(drop,))
    after = apply(state, proposed)
    attempt = after.attempts[event.attempt_id]
    sends = tuple(
        fx.Send(node_id=seat.node_id, message=attempt.proposal_for(client))
        for client, seat in enumerate(attempt.seats, start=1)
    )
    return Decision(records=(proposed,), effects=(*sends, _deadline(state, attempt)))


def _propose(state: LspState, build: Build, event: ev.AttemptPrepared) -> r.AttemptProposed:
    joins = [state.members[node_id].join for node_id in build.node_ids]
    shape, inner_arities = shape_by_policy(state.config.policy, len(joins))
    terms = terms_of(state, build.capacity_sat, shape, inner_arities, attempt_id=event.attempt_id)
    pubkeys = [event.factory_pool.pubkey, *(join.factory_pool.pubkey for join in joins)]
    amount_sat = plan_of(terms).kickoff_input_sat
    selection = select_coins(state, amount_sat)
    funding_tx = funding_tx_of(
        inputs=[coin.outpoint for coin in selection.coins],
        factory_output=TxOut(
            amount_sat=amount_sat, script_pubkey=funding_output_of(pubkeys, terms).script_pubkey
        ),
        change_output=TxOut(
            amount_sat=selection.change_sat, script_pubkey=state.wallet.next_script(CHANGE)
        ),
    )
    return r.AttemptProposed(
        attempt_id=event.attempt_id,
        attempt=event.attempt,
        terms=terms.encode(),
        seats=tuple(
            r.Seat(node_id=node_id, join=m.encode_message(join))
            for node_id, join in zip(build.node_ids, joins, strict=True)
        ),
        lsp_factory_pool=_encoded_pool(event.factory_pool),
        lsp_channels=tuple(encode_fields(offer_of(keys)) for keys, _ in event.channels),
        lsp_channel_pools=tuple(_encoded_pool(pool) for _, pool in event.channels),
        funding_tx=funding_tx.serialize(),
    )


def _encoded_pool(pool: PublicPool) -> bytes:
    return encode_fields(m.Pool(pubkey=pool.pubkey, pubnonces=pool.pubnonces))


def on_sign_below(state: LspState, node_id: bytes, message: m.SignBelow) -> Decision:
    """Take one client's partial signatures below the root; with the last, add our own."""
    found = _seat(state, node_id, message)
    if found is None:
        return NOTHING
    attempt, client = found
    if len(message.candidates) != N_CANDIDATES:
        return _fault(state, attempt, client, f"{len(message.candidates)} candidates")
    partial_sigs = message.candidates[0].partial_sigs
    commitment_partial_sig = message.candidates[0].commitment_partial_sig
    known = attempt.below_partials.get(client)
    if known is not None:
        if (known, attempt.commitment_partials[client]) == (partial_sigs, commitment_partial_sig):
            return NOTHING
        return _fault(state, attempt, client, "second, different partial signatures")
    n_expected = sum(1 for _ in attempt.branch(client).nodes_below_root)
    if len(partial_sigs) != n_expected:
        return _fault(
            state, attempt, client, f"{len(partial_sigs)} of {n_expected} partial signatures"
        )
    record = r.BelowPartialsReceived(
        attempt_id=attempt.attempt_id,
        client=client,
        partial_sigs=partial_sigs,
        commitment_partial_sig=commitment_partial_sig,
    )
    after = apply(state, record).attempts[attempt.attempt_id]
    return Decision(records=(record,)) + (NOTHING if after.holdouts else _sign_below(after))


def on_sign_root(state: LspState, node_id: bytes, message: m.SignRoot) -> Decision:
    """Take one client's partial signature of the root; with the last, add our own."""
    found = _seat(state, node_id, message)
    if found is None:
        return NOTHING
    attempt, client = found
    if not attempt.below_signatures:
        return _fault(state, attempt, client, "a root signature before its exit was signed")
    if len(message.partial_sigs) != N_CANDIDATES:
        return _fault(state, attempt, client, f"{len(message.partial_sigs)} root signatures")
    known = attempt.root_partials.get(client)
    if known is not None:
        if known == message.partial_sigs[0]:
            return NOTHING
        return _fault(state, attempt, client, "a second, different root signature")
    record = r.RootPartialReceived(
        attempt_id=attempt.attempt_id, client=client, partial_sig=message.partial_sigs[0]
    )
    after = apply(state, record).attempts[attempt.attempt_id]
    return Decision(records=(record,)) + (NOTHING if after.holdouts else _sign_root(after))


def _sign_below(attempt: LspAttempt) -> Decision:
    """Ask for our halves of the tree below the root, and of both first commitments per channel."""
    nodes = [node for node in attempt.tree.nodes if node.name != ROOT]
    intents = (
        *(intent_of(node) for node in nodes),
        *(intent_of_commitment(commitment) for commitment in attempt.first_commitments.values()),
    )
    requests = (*attempt.own_requests(root=False), *attempt.own_commitment_requests())
    return _sign(attempt, intents, requests)


def _sign_root(attempt: LspAttempt) -> Decision:
    """Ask for our half of kickoff_root."""
    intent = intent_of(attempt.tree.node_by_name[ROOT])
    return _sign(attempt, (intent,), attempt.own_requests(root=True))


def _sign(
    attempt: LspAttempt, intents: tuple[r.Intent, ...], requests: tuple[fx.SignRequest, ...]
) -> Decision:
    """Ask for our own partial signatures, after writing down what they are for."""
    return Decision(
        records=(r.SigningIntended(attempt_id=attempt.attempt_id, intents=intents),),
        effects=(fx.PartialSign(attempt_id=attempt.attempt_id, requests=requests),),
    )


def on_partial_signed(state: LspState, attempt_id: bytes, own: Mapping[str, bytes]) -> Decision:
    """Aggregate, verify and hand out: the part below the root, or the root."""
    attempt = state.attempts[attempt_id]
    if not attempt.is_open:
        return NOTHING
    try:
        if not attempt.below_signatures:
            return _send_below(state, attempt, own)
        return _send_root(state, attempt, attempt.root_round(own).signatures()[ROOT])
    except FaultyContribution as fault:
        client = attempt.blamed(fault)
        return _fault(state, attempt, client, f"{fault.session_name}: bad {fault.contribution}")


def _send_below(state: LspState, attempt: LspAttempt, own: Mapping[str, bytes]) -> Decision:
    """Finish the tree below the root and our first commitments; then give out what is theirs.

    Raises:
        FaultyContribution: If a client spoiled a signature.
    """
    signatures = attempt.below_round(own).signatures()
    commitment_signatures = attempt.commitment_round(own).signatures()
    record = r.BelowSigned(
        attempt_id=attempt.attempt_id,
        signatures=tuple(signatures[name] for name in attempt.sessions if name != ROOT),
        # The round has our own commitments' sessions in the order of the clients.
        commitment_signatures=tuple(commitment_signatures.values()),
        commitment_partial_sigs=tuple(
            own[session.task.name]
            for (_, holder), session in attempt.commitment_sessions.items()
            if holder is Party.ACCEPTER
        ),
    )
    after = apply(state, record).attempts[attempt.attempt_id]
    sends = tuple(
        fx.Send(node_id=seat.node_id, message=after.signed_below_for(client))
        for client, seat in enumerate(after.seats, start=1)
    )
    return Decision(records=(record,), effects=(*sends, _deadline(state, attempt)))


def _send_root(state: LspState, attempt: LspAttempt, signature: bytes) -> Decision:
    record = r.RootSigned(attempt_id=attempt.attempt_id, signature=signature)
    after = apply(state, record).attempts[attempt.attempt_id]
    sends = tuple(
        fx.Send(node_id=seat.node_id, message=after.signed_root()) for seat in after.seats
    )
    return Decision(
        records=(record,),
        effects=(
            *sends,
            _deadline(state, attempt),
            fx.DropPools(pool_ids=attempt.pool_ids),
        ),
    )


def on_acknowledge(state: LspState, node_id: bytes, message: m.Acknowledge) -> Decision:
    """Take one client's word that it holds its branch; with the last, fund."""
    found = _seat(state, node_id, message)
    if found is None:
        return NOTHING
    attempt, client = found
    if attempt.root_signature is None or client in attempt.acknowledged:
        return NOTHING
    record = r.Acknowledged(attempt_id=attempt.attempt_id, client=client)
    after = apply(state, record)
    acknowledged = after.attempts[attempt.attempt_id]
    if acknowledged.holdouts or not is_fundable(after, acknowledged):
        return Decision(records=(record,))
    return Decision(
        records=(record,),
        effects=(fx.ClearDeadline(name=attempt.attempt_id), fund(after, acknowledged)),
    )


def is_fundable(state: LspState, attempt: LspAttempt) -> bool:
    """Say whether the wallet still has every coin of the funding: a reorg may take one away."""
    coins = [state.wallet.coins.get(tx_in.outpoint) for tx_in in attempt.funding_tx.inputs]
    return all(coin is not None and coin.spent_height is None for coin in coins)


def fund(state: LspState, attempt: LspAttempt) -> fx.SignFunding:
    """Return the wish to sign the funding transaction.

    Funding waits for every signature and every acknowledgement: once the coins sit in the
    funding output, a client without a signed path has only the LSP's goodwill, and the LSP
    only the expiry. Of a channel without a commitment of its own it could not even take its
    balance.

    Raises:
        AssertionError: If anything is missing. Never to be caught.
    """
    if attempt.root_signature is None or not attempt.below_signatures or attempt.holdouts:
        raise AssertionError("funding before everybody holds an exit")
    if len(attempt.commitment_signatures) != len(attempt.seats):
        raise AssertionError("funding before every own first commitment is held")
    if attempt.aborted is not None:
        raise AssertionError("funding an aborted attempt")
    coins = [state.wallet.coins[tx_in.outpoint] for tx_in in attempt.funding_tx.inputs]
    return fx.SignFunding(
        attempt_id=attempt.attempt_id,
        tx=attempt.funding_tx,
        prevouts=tuple(coin.txout for coin in coins),
        paths=tuple(coin.path for coin in coins),
    )


def funding_broadcast(tx: Tx) -> fx.Broadcast:
    """Return the wish to publish a signed funding transaction."""
    return fx.Broadcast(name="funding", tx=tx)


def on_deadline(state: LspState, name: bytes) -> Decision:
    """End a ceremony whose present step was not finished in time, naming the holdouts."""
    attempt = state.attempts.get(name)
    if attempt is None or not attempt.is_open:
        return NOTHING
    holdouts = attempt.holdouts
    missing = f"no answer from clients {list(holdouts)}" if holdouts else "a funding coin is gone"
    return abort(
        state,
        name,
        reason=f"deadline in {attempt.phase}: {missing}",
        culprits=tuple(attempt.seats[client - 1].node_id for client in holdouts),
    )


def abort(
    state: LspState,
    attempt_id: bytes,
    *,
    reason: str,
    culprits: tuple[bytes, ...] = (),
    is_fault: bool = False,
) -> Decision:
    """End an attempt: tell everybody, forget the nonces, free the coins.

    Raises:
        AssertionError: If the funding transaction was signed; then nothing can be taken back.
    """
    attempt = state.attempts[attempt_id]
    if attempt.signed_funding_tx is not None:
        raise AssertionError("a funded attempt cannot be aborted")
    if attempt.aborted is not None:
        return NOTHING
    message = m.Abort(attempt_id=attempt_id, reason=reason)
    return Decision(
        records=(
            r.AttemptAborted(
                attempt_id=attempt_id, reason=reason, culprits=culprits, is_fault=is_fault
            ),
        ),
        effects=(
            *(fx.Send(node_id=seat.node_id, message=message) for seat in attempt.seats),
            fx.ClearDeadline(name=attempt_id),
            fx.DropPools(pool_ids=attempt.pool_ids),
        ),
    )


def _fault(state: LspState, attempt: LspAttempt, client: int, what: str) -> Decision:
    node_id = attempt.seats[client - 1].node_id
    return abort(
        state,
        attempt.attempt_id,
        reason=f"client {client}: {what}",
        culprits=(node_id,),
        is_fault=True,
    )


def _seat(
    state: LspState, node_id: bytes, message: m.SignBelow | m.SignRoot | m.Acknowledge
) -> tuple[LspAttempt, int] | None:
    """Return the open attempt a message belongs to; one of another attempt is dropped."""
    attempt = state.attempts.get(message.attempt_id)
    if attempt is None or not attempt.is_open:
        return None
    client = attempt.client_of(node_id)
    if client is None or message.terms_hash != attempt.terms.terms_hash:
        return None
    return attempt, client


def _deadline(state: LspState, attempt: LspAttempt) -> fx.SetDeadline:
    return fx.SetDeadline(name=attempt.attempt_id, seconds=state.config.policy.deadline_seconds)
