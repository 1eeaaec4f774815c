"""The signing sessions of an advance, at the LSP: the state, and the poisons of the one before.

State and L-stock's poison are everybody's; a channel's poison is of the channel's two funding keys.
"""

from collections.abc import Mapping

from cromford.crypto.musig2 import is_partial_sig, is_pubnonce
from cromford.effects import SignRequest
from cromford.factory.leaf import Leaf
from cromford.protocol.advancing.making import (
    FACTORY_NONCES,
    POISON_NONCE,
    STATE_NONCE,
    STOCK_NONCE,
    leaf_with_next,
)
from cromford.protocol.journal.advances import LspAdvance, asked_session
from cromford.protocol.journal.factory import Factory
from cromford.signing.nonces import PublicPool
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces
from cromford.signing.task import SigningTask
from cromford.wire import messages as m
from cromford.wire.selling import AdvancePartials, NextNonces


def leaf_of(state: Factory, advance: LspAdvance) -> Leaf:
    """Return the leaf of an advance, with the state that it makes."""
    return leaf_with_next(
        state.attempt.leaf(advance.buyer),
        state_index=advance.state_index,
        allocation=advance.allocation,
    )


def fault_of_nonces(message: m.AdvanceAgree, factory_pubkey: bytes) -> str | None:
    """Return what is wrong with an agreement's key or nonces; None if nothing is."""
    if message.factory_pubkey != factory_pubkey:
        return "nonces of another key"
    if len(message.pubnonces) != FACTORY_NONCES:
        return f"{len(message.pubnonces)} nonces of the factory key, expected {FACTORY_NONCES}"
    if not all(is_pubnonce(pubnonce) for pubnonce in (*message.pubnonces, *_nonces_of(message))):
        return "a nonce that is not two points"
    return None


def _nonces_of(message: m.AdvanceAgree) -> tuple[bytes, ...]:
    return tuple(
        pubnonce for one in message.channel for pubnonce in (one.pubnonce, one.following_pubnonce)
    )


def numbers_of(channel: tuple[NextNonces, ...]) -> tuple[int, ...]:
    """Return for which commitment a message brings nonces, if for any."""
    return tuple(one.number for one in channel)


def factory_sessions(state: Factory, advance: LspAdvance) -> tuple[SigningSession, SigningSession]:
    """Return the sessions of the state, and of the poison of the L-stock before.

    Raises:
        FaultyContribution: If a public nonce is malformed; they were checked as they came.
    """
    leaf, session = leaf_of(state, advance), asked_session(advance)
    pools = {session.factory_pool.pubkey: session.factory_pool.pubnonces}
    for client, agree in session.agreed.items():
        pools[leaf.factory_pubkeys[client]] = agree.pubnonces
    tasks = {
        STATE_NONCE: leaf.states[advance.state_index].task,
        STOCK_NONCE: leaf.stock_poison(advance.state_index - 1).task,
    }
    of_state, of_stock = (
        _session(task, {key: pubnonces[number] for key, pubnonces in pools.items()})
        for number, task in tasks.items()
    )
    return of_state, of_stock


def channel_session(
    state: Factory, advance: LspAdvance, client: int, partials: AdvancePartials
) -> SigningSession:
    """Return the session of the poison of one client's channel.

    Raises:
        FaultyContribution: If the client's public nonce is malformed.
    """
    task = leaf_of(state, advance).channel_poison(advance.state_index - 1, client).task
    pool = asked_session(advance).channel_pools[client]
    (client_key,) = (key for key in task.signers if key != pool.pubkey)
    nonces = {pool.pubkey: pool.pubnonces[POISON_NONCE], client_key: partials.poison_pubnonce}
    return _session(task, nonces)


def _session(task: SigningTask, pubnonces: Mapping[bytes, bytes]) -> SigningSession:
    return SigningSession(task=task, pubnonces=pubnonces, aggnonce=aggregate_nonces(pubnonces))


def fault_of_partials(
    state: Factory, advance: LspAdvance, client: int, partials: AdvancePartials
) -> str | None:
    """Return what is wrong with a client's partial signatures; None if all of them are good.

    Each is verified as it comes, and the poisons' before the state is signed: it is too late then.
    """
    if not is_pubnonce(partials.poison_pubnonce):
        return "a nonce that is not two points"
    of_state, of_stock = factory_sessions(state, advance)
    of_channel = channel_session(state, advance, client, partials)
    own_key = asked_session(advance).channel_pools[client].pubkey
    factory_key = leaf_of(state, advance).factory_pubkeys[client]
    (channel_key,) = (key for key in of_channel.task.signers if key != own_key)
    for session, key, partial_sig in (
        (of_state, factory_key, partials.state),
        (of_stock, factory_key, partials.stock_poison),
        (of_channel, channel_key, partials.channel_poison),
    ):
        if not is_partial_sig(partial_sig):
            return f"{session.task.name}: a partial signature that is no scalar"
        opened = session.task.session(session.aggnonce)
        if not opened.partial_sig_verify(
            partial_sig=partial_sig, pubnonce=session.pubnonces[key], pubkey=key
        ):
            return f"{session.task.name}: a bad partial signature"
    return None


def state_requests(state: Factory, advance: LspAdvance) -> tuple[SignRequest, ...]:
    """Return the request for our own part of the state."""
    of_state, _ = factory_sessions(state, advance)
    return (_request(asked_session(advance).factory_pool, STATE_NONCE, of_state),)


def poison_requests(state: Factory, advance: LspAdvance) -> tuple[SignRequest, ...]:
    """Return the requests for our own parts of the poisons: the L-stock's, then each channel's."""
    session = asked_session(advance)
    _, of_stock = factory_sessions(state, advance)
    stock = _request(session.factory_pool, STOCK_NONCE, of_stock)
    channels = (
        _request(session.channel_pools[client], POISON_NONCE, one)
        for client, one in channel_sessions(state, advance).items()
    )
    return (stock, *channels)


def channel_sessions(state: Factory, advance: LspAdvance) -> dict[int, SigningSession]:
    """Return the session of each channel's poison, by client, once everybody signed."""
    signed = asked_session(advance).signed
    return {
        client: channel_session(state, advance, client, signed[client].partials[0])
        for client in advance.clients
    }


def _request(pool: PublicPool, number: int, session: SigningSession) -> SignRequest:
    return SignRequest(
        pool_id=pool.pool_id, nonce_index=number, task=session.task, aggnonce=session.aggnonce
    )


def state_signature(state: Factory, advance: LspAdvance, own: Mapping[str, bytes]) -> bytes:
    """Return everybody's signature of the state, with our own part.

    Raises:
        FaultyContribution: If a part is bad; those of clients were verified as they came.
    """
    of_state, _ = factory_sessions(state, advance)
    return _signature(of_state, _of_clients(state, advance, "state"), own)


def poison_signatures(
    state: Factory, advance: LspAdvance, own: Mapping[str, bytes]
) -> tuple[bytes, dict[int, bytes]]:
    """Return the signatures of the L-stock's poison, and of each channel's by client.

    Raises:
        FaultyContribution: As `state_signature`.
    """
    _, of_stock = factory_sessions(state, advance)
    stock = _signature(of_stock, _of_clients(state, advance, "stock_poison"), own)
    session, channels = asked_session(advance), {}
    for client, one in channel_sessions(state, advance).items():
        own_key = session.channel_pools[client].pubkey
        (key,) = (key for key in one.task.signers if key != own_key)
        theirs = session.signed[client].partials[0].channel_poison
        channels[client] = _signature(one, {key: theirs}, own)
    return stock, channels


def _of_clients(state: Factory, advance: LspAdvance, field: str) -> dict[bytes, bytes]:
    pubkeys = leaf_of(state, advance).factory_pubkeys
    return {
        pubkeys[client]: getattr(signed.partials[0], field)
        for client, signed in asked_session(advance).signed.items()
    }


def _signature(
    session: SigningSession, theirs: Mapping[bytes, bytes], own: Mapping[str, bytes]
) -> bytes:
    name = session.task.name
    (own_key,) = (key for key in session.task.signers if key not in theirs)
    signing_round = SigningRound(
        sessions={name: session}, partial_sigs={name: {**theirs, own_key: own[name]}}
    )
    return signing_round.signatures()[name]
