"""The part in a close of clients that moved out: their LSP agrees and signs with their keys."""

from collections.abc import Iterator

from cromford import effects as fx
from cromford.factory.close import CloseScope
from cromford.protocol import events as ev
from cromford.protocol.channels.seats import is_own_seat, own_seats, seat_keys
from cromford.protocol.closing.planning import link_of
from cromford.protocol.closing.rules import due_msat
from cromford.protocol.closing.sessions import sessions_of
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.closing import Closing, Signing
from cromford.protocol.journal.encoding import encoded_pool
from cromford.protocol.journal.factory import Factory


def preparation(state: Factory, closing: Closing, scope: CloseScope) -> fx.PrepareSeats:
    """Return what asks for the nonces of those who moved out; it may name nobody."""
    return fx.PrepareSeats(
        attempt_id=state.attempt.attempt_id,
        close_id=closing.close_id,
        seats=seat_keys(state, scope, own_seats(state, scope)),
        pool_size=len(closing.feerates_sat_per_kw),
    )


def agreements(state: Factory, prepared: ev.SeatsPrepared) -> Iterator[cl.CloseAgreementReceived]:
    """Yield their word, which is ours: each is due too little for an output."""
    for seat, pool in zip(prepared.asked.seats, prepared.pools, strict=True):
        client = seat.name.client
        yield cl.CloseAgreementReceived(
            attempt_id=state.attempt.attempt_id,
            close_id=prepared.asked.close_id,
            client=client,
            balance_msat=due_msat(link_of(state, client)),
            pool=encoded_pool(pool),
            is_ours=True,
        )


def has_say(state: Factory, closing: Closing, client: int | None) -> bool:
    """Say whether a client speaks for itself in a close: not one for which we agree, or are to."""
    if client is None or client not in closing.others:
        return False
    return client in closing.stage.agreed or not is_own_seat(state, client)


def signing_for(
    state: Factory, closing: Closing, signing: Signing, scope: CloseScope
) -> fx.SignForSeats:
    """Return what asks for their partial signatures."""
    return fx.SignForSeats(
        attempt_id=state.attempt.attempt_id,
        close_id=closing.close_id,
        scope=scope,
        txs=signing.txs,
        aggnonces=tuple(session.aggnonce for session in sessions_of(scope, signing)),
        pool_ids=tuple(signing.agreed[client].pool.pool_id for client in closing.own),
    )


def partials(
    state: Factory, closing: Closing, signed: ev.SeatsSigned
) -> Iterator[cl.ClosePartialsReceived]:
    """Yield their partial signatures, as if they had sent them."""
    for client, partial_sigs in zip(closing.own, signed.partial_sigs, strict=True):
        yield cl.ClosePartialsReceived(
            attempt_id=state.attempt.attempt_id,
            close_id=closing.close_id,
            client=client,
            partial_sigs=partial_sigs,
        )
