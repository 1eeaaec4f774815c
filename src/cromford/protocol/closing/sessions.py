"""The signing sessions of a close: option k takes nonce k of everybody's pool."""

from collections.abc import Mapping

from cromford.crypto.musig2 import is_pubnonce
from cromford.effects import SignRequest
from cromford.factory.close import CloseScope
from cromford.protocol.channels.seats import key_of
from cromford.protocol.journal.close_scopes import close_task, lsp_scope
from cromford.protocol.journal.closing import Closing, Signing
from cromford.protocol.journal.factory import Factory
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces
from cromford.wire import messages as m


def fault_of_word(
    state: Factory, closing: Closing, client: int, message: m.CloseAgree
) -> str | None:
    """Return what is wrong with an agreement's key, nonces or script; None if nothing is.

    There is one nonce for each option; key and script are those it joined with.
    """
    scope = lsp_scope(state.attempt, closing.outpoint)
    if message.pool.pubkey != key_of(state, scope, client):
        return "nonces of another key"
    n_options, n_nonces = len(closing.feerates_sat_per_kw), len(message.pool.pubnonces)
    if n_nonces != n_options:
        return f"{n_nonces} nonces for {n_options} options"
    if not all(is_pubnonce(pubnonce) for pubnonce in message.pool.pubnonces):
        return "a nonce that is not two points"
    if message.payout_script != state.attempt.seats[client - 1].payout_script:
        return "another payout script than it joined with"
    return None


def client_of_key(state: Factory, scope: CloseScope, pubkey: bytes) -> int:
    """Return the client in scope that signs with a key.

    Raises:
        AssertionError: If it is our own.
    """
    for client in scope.clients:
        if key_of(state, scope, client) == pubkey:
            return client
    raise AssertionError("our own part of a close is bad")


def sessions_of(scope: CloseScope, signing: Signing) -> tuple[SigningSession, ...]:
    """Return the session of each option.

    Raises:
        FaultyContribution: If a public nonce is malformed; they were checked as they came.
    """
    pools = (signing.pool, *(word.pool for word in signing.agreed.values()))
    sessions = []
    for number, tx in enumerate(signing.txs):
        pubnonces = {pool.pubkey: pool.pubnonces[number] for pool in pools}
        sessions.append(
            SigningSession(
                task=close_task(scope, tx, number),
                pubnonces=pubnonces,
                aggnonce=aggregate_nonces(pubnonces),
            )
        )
    return tuple(sessions)


def own_requests(scope: CloseScope, signing: Signing) -> tuple[SignRequest, ...]:
    """Return the requests for our own partial signatures."""
    return tuple(
        SignRequest(
            pool_id=signing.pool.pool_id,
            nonce_index=number,
            task=session.task,
            aggnonce=session.aggnonce,
        )
        for number, session in enumerate(sessions_of(scope, signing))
    )


def close_round(
    state: Factory, scope: CloseScope, signing: Signing, own: Mapping[str, bytes]
) -> SigningRound:
    """Return the round of a close: each client's parts in the order of the options, and ours.

    Raises:
        FaultyContribution: If a partial signature is malformed.
    """
    sessions = {session.task.name: session for session in sessions_of(scope, signing)}
    signing_round = SigningRound(sessions=sessions)
    for client, partial_sigs in signing.partial_sigs.items():
        theirs = dict(zip(sessions, partial_sigs, strict=True))
        key = key_of(state, scope, client)
        signing_round = signing_round.with_contribution(key, theirs)
    return signing_round.with_contribution(signing.pool.pubkey, own)
