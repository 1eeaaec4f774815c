"""What an LSP asks for at each step of a close: of those who are here, and for who moved out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.decisions import in_factory, remembered, said, wished
from tests.protocol.five_seats import (
    ALL,
    holding,
    known,
    link_of,
    split,
    tx_of,
    whole,
    with_block,
    with_link,
)

from cromford import effects as fx
from cromford.factory.allocation import Allocation
from cromford.factory.close import CloseScope
from cromford.protocol import events as ev
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT
from cromford.protocol.channels.seats import NOT_FOR_IT, key_of
from cromford.protocol.closing import lsp as closing
from cromford.protocol.closing.restored import NO_NUMBER
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.close_scopes import lsp_scope
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.turn import Turn
from cromford.signing.keychain import FactoryKey, HandedOverKey
from cromford.signing.nonces import PublicPool
from cromford.wire import messages as m

FEERATE: Final = 1_000
OTHER: Final = b"\x09" * 32


def step(factory: Factory, do: Callable[..., None], *args: Any, facts: Facts = FRESH) -> Turn[Any]:
    turn = in_factory(factory, facts, known(ALL))
    do(turn, *args)
    return turn


def asked(factory: Factory, **scope: Any) -> Turn[Factory]:
    """Let the operator ask for a close."""
    attempt_id = factory.attempt.attempt_id
    request = ev.CloseRequested(attempt_id=attempt_id, feerates_sat_per_kw=(FEERATE,), **scope)
    return step(factory, closing.on_requested, request)


def pool_with(pubkey: bytes, number: int = 0) -> PublicPool:
    """Return nonces that are points, whoever knows their secrets."""
    points = sorted(seat.factory_pubkey for seat in whole().attempt.seats)
    return PublicPool(pubkey=pubkey, pubnonces=(points[number] + points[number - 1],))


def scope_now(factory: Factory) -> CloseScope:
    assert factory.closing is not None
    return lsp_scope(factory.attempt, factory.closing.outpoint)


def own_pool(factory: Factory) -> PublicPool:
    """Return nonces of the one key in scope that is no client's."""
    scope = scope_now(factory)
    theirs = {key_of(factory, scope, client) for client in scope.clients}
    (own,) = set(scope.output.signers) - theirs
    return pool_with(own)


def prepared(turn: Turn[Factory]) -> Turn[Factory]:
    """Let our signer have made our nonces."""
    (prepare,) = wished(turn, fx.PrepareClose)
    pool = own_pool(turn.state)
    return step(turn.state, closing.on_prepared, ev.ClosePrepared(asked=prepare, pool=pool))


def word(factory: Factory, client: int, balance_msat: int = 0) -> m.CloseAgree:
    assert factory.closing is not None
    pool = pool_with(key_of(factory, scope_now(factory), client), client)
    return m.CloseAgree(
        close_id=factory.closing.close_id,
        balance_msat=balance_msat,
        payout_script=factory.attempt.seats[client - 1].payout_script,
        pool=m.Pool(pubkey=pool.pubkey, pubnonces=pool.pubnonces),
    )


def node_of(client: int) -> bytes:
    return whole().attempt.seats[client - 1].node_id


def agreed(factory: Factory, *clients: int, facts: Facts = FRESH, due_msat: int = 0) -> Turn[Any]:
    """Let clients agree, one after the other; return the turn of the last."""
    turn = in_factory(factory, facts)
    for client in clients:
        message = word(turn.state, client, due_msat)
        turn = step(turn.state, closing.on_agree, node_of(client), message, facts=facts)
    return turn


def signed(factory: Factory, *clients: int, facts: Facts = FRESH) -> Turn[Any]:
    """Let clients sign, with what is a scalar, likewise."""
    turn = in_factory(factory, facts)
    for client in clients:
        assert turn.state.closing is not None
        message = m.CloseSign(
            close_id=turn.state.closing.close_id, partial_sigs=(bytes([client]) * 32,)
        )
        turn = step(turn.state, closing.on_sign, node_of(client), message, facts=facts)
    return turn


def told(turn: Turn[Any], kind: type[m.Message]) -> list[int]:
    """Return who is sent messages of a kind."""
    seats = [seat.node_id for seat in whole().attempt.seats]
    return [
        seats.index(one.node_id) + 1
        for one in wished(turn, fx.Send)
        if isinstance(one.message, kind)
    ]


def why_ended(turn: Turn[Any]) -> str | None:
    records = remembered(turn, cl.CloseEnded)
    return records[0].reason if records else None


# The key, and whose closes are known


def test_our_nonces_are_of_the_key_that_signs_for_the_output() -> None:
    landed = with_block(split(), tx_of("kickoff_0"), tx_of("state_0"))
    factory_key = FactoryKey(attempt=whole().attempt.key_attempt)
    for turn, key in (
        (asked(whole()), factory_key),
        (asked(split(), vertex="1"), factory_key),
        (asked(landed, client=2), link_of(landed, 2).key),
    ):
        (prepare,) = wished(turn, fx.PrepareClose)
        assert turn.state.closing is not None
        assert prepare == fx.PrepareClose(
            attempt_id=whole().attempt.attempt_id,
            close_id=turn.state.closing.close_id,
            key=key,
            n_options=1,
        )


def test_a_close_is_known_while_it_is_under_way() -> None:
    factory = asked(whole()).state
    assert factory.closing is not None
    assert closing.knows(factory, factory.closing.close_id)
    assert not closing.knows(factory, OTHER)
    assert not closing.knows(whole(), factory.closing.close_id)


def test_nonces_of_another_close_are_forgotten_while_ours_are_being_made() -> None:
    turn = asked(whole())
    (prepare,) = wished(turn, fx.PrepareClose)
    pool = own_pool(turn.state)
    late = ev.ClosePrepared(asked=replace(prepare, close_id=OTHER), pool=pool)
    turn = step(turn.state, closing.on_prepared, late)
    assert turn.decision.records == ()
    assert turn.decision.effects == (fx.DropPools(pool_ids=(pool.pool_id,)),)


# Who is asked, and for whom the LSP signs itself


def test_everybody_is_asked_who_did_not_give_us_its_keys() -> None:
    turn = prepared(asked(whole()))
    assert told(turn, m.CloseBegin) == [*ALL]
    assert not wished(turn, fx.PrepareSeats)
    factory = holding(whole(), 2, 4)
    turn = prepared(asked(factory))
    assert told(turn, m.CloseBegin) == [1, 3, 5]
    (seats,) = wished(turn, fx.PrepareSeats)
    assert [seat.name for seat in seats.seats] == [
        HandedOverKey(attempt=factory.attempt.key_attempt, client=client, is_funding=False)
        for client in (2, 4)
    ]
    assert [seat.pubkey for seat in seats.seats] == [
        factory.attempt.seats[client - 1].factory_pubkey for client in (2, 4)
    ]
    assert seats.pool_size == 1


def seats_prepared(turn: Turn[Any]) -> Turn[Any]:
    (seats,) = wished(turn, fx.PrepareSeats)
    pools = tuple(pool_with(seat.pubkey, seat.name.client) for seat in seats.seats)
    return step(turn.state, closing.on_seats_prepared, ev.SeatsPrepared(asked=seats, pools=pools))


def test_who_moved_out_signs_before_us_and_what_is_signed_is_written_down_once() -> None:
    factory = holding(split(), 1)
    turn = seats_prepared(prepared(asked(factory, vertex="0")))
    turn = agreed(turn.state, 2)
    assert told(turn, m.ClosePropose) == [2]
    turn = signed(turn.state, 2)
    assert len(remembered(turn, op.SigningIntended)) == 1
    assert not wished(turn, fx.PartialSign)
    (for_seats,) = wished(turn, fx.SignForSeats)
    answer = ev.SeatsSigned(asked=for_seats, partial_sigs=((bytes([1]) * 32,),))
    turn = step(turn.state, closing.on_seats_signed, answer)
    assert [one.client for one in remembered(turn, cl.ClosePartialsReceived)] == [1]
    assert not remembered(turn, op.SigningIntended)
    assert len(wished(turn, fx.PartialSign)) == 1


def test_where_nobody_moved_out_we_sign_after_the_last_and_write_it_down_first() -> None:
    turn = agreed(prepared(asked(split(), vertex="0")).state, 1, 2)
    turn = signed(turn.state, 1)
    assert not remembered(turn, op.SigningIntended)
    turn = signed(turn.state, 2)
    assert len(remembered(turn, op.SigningIntended)) == 1
    assert len(wished(turn, fx.PartialSign)) == 1


# What ends it


def test_a_client_that_names_nothing_to_a_store_that_knows_nothing_ends_it() -> None:
    """It is nobody's fault: both were restored, and nobody compared them."""
    factory = with_link(split(), 1, mark=StoreMark(), failure="restored")
    turn = agreed(prepared(asked(factory, vertex="0")).state, 1, due_msat=m.NO_BALANCE)
    assert why_ended(turn) == f"client 1: {NO_NUMBER}"
    (record,) = remembered(turn, cl.CloseEnded)
    assert (record.culprits, record.is_fault) == ((), False)
    assert told(turn, m.CloseEnd) == [1, 2]


def paid(factory: Factory, client: int, amount_msat: int) -> Factory:
    """Return the factory in which a client was paid so much."""
    state = link_of(factory, client).state
    moved = replace(
        state,
        accepter_msat=state.accepter_msat + amount_msat,
        opener_msat=state.opener_msat - amount_msat,
    )
    return with_link(factory, client, state=moved)


def test_a_fee_that_our_part_does_not_carry_any_more_ends_it() -> None:
    """Until it agrees, a client may be paid."""
    landed = with_block(split(), tx_of("kickoff_0"), tx_of("state_0"))
    turn = prepared(asked(landed, client=1))
    all_msat = link_of(landed, 1).present.capacity_sat * 1_000
    factory = paid(turn.state, 1, all_msat)
    turn = agreed(factory, 1, due_msat=all_msat)
    assert "fee" in (why_ended(turn) or "")
    assert turn.state.closing is None
    assert told(turn, m.ClosePropose) == []


@pytest.mark.parametrize("stage", ["agreeing", "signing"])
def test_a_balance_that_is_not_what_was_said_ends_it_before_anybody_else_signs(stage: str) -> None:
    factory = prepared(asked(split(), vertex="0")).state
    if stage == "agreeing":
        turn = agreed(paid(agreed(factory, 1).state, 1, 1_000), 2)
    else:
        proposed = agreed(factory, 1, 2).state
        turn = signed(paid(signed(proposed, 1).state, 1, 1_000), 2)
    assert (why_ended(turn) or "").startswith("client 1: balance_msat: expected ")
    assert not wished(turn, fx.PartialSign)
    assert not said(turn, m.ClosePropose)


def advancing(factory: Factory, *clients: int) -> Factory:
    advance = LspAdvance(
        advance_id=OTHER,
        clients=clients,
        state_index=1,
        allocation=Allocation(capacities_sat=(1_000, 1_000), lstock_sat=0),
        buyer=clients[0],
        quote_id=OTHER,
        price_msat=0,
        is_asking=True,
    )
    name = factory.attempt.leaf_name(clients[0])
    return replace(factory, advances=factory.advances.set(name, advance))


def test_whose_keys_we_hold_ends_no_close_of_ours() -> None:
    factory = prepared(asked(holding(split(), 1), vertex="0")).state
    assert factory.closing is not None
    no = m.CloseEnd(close_id=factory.closing.close_id, reason="no")
    turn = step(factory, closing.on_end, node_of(1), no)
    assert (turn.decision.records, turn.decision.effects) == ((), ())
    assert why_ended(step(factory, closing.on_end, node_of(2), no)) == "client 2 refused: no"


def test_an_advance_of_a_leaf_in_scope_ends_it_with_the_next_block() -> None:
    factory = asked(split(), vertex="1").state
    assert why_ended(step(advancing(factory, 1, 2), closing.on_block)) is None
    turn = step(advancing(factory, 3, 4), closing.on_block)
    assert why_ended(turn) == "client 3, client 4: an advance of its leaf is under way"


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        ("preparing", NOT_FOR_IT),
        ("agreeing", "balance_msat: expected 330 sat, received 0 sat"),
        ("signing", "balance_msat: expected 330 sat, received 0 sat"),
    ],
)
def test_for_whom_something_is_due_again_nobody_signs_whatever_keys_it_gave(
    stage: str, why: str
) -> None:
    """It is closed with its client, or not at all: what was true of its keys is asked each time."""
    turn = prepared(asked(holding(split(), 1), vertex="0"))
    if stage == "preparing":
        (seats,) = wished(turn, fx.PrepareSeats)
        pools = tuple(pool_with(seat.pubkey, seat.name.client) for seat in seats.seats)
        answer = ev.SeatsPrepared(asked=seats, pools=pools)
        due = paid(turn.state, 1, LEFT_BEHIND_MSAT)
        turn = agreed(step(due, closing.on_seats_prepared, answer).state, 2)
    else:
        factory = seats_prepared(turn).state
        if stage == "agreeing":
            turn = agreed(paid(factory, 1, LEFT_BEHIND_MSAT), 2)
        else:
            turn = signed(paid(agreed(factory, 2).state, 1, LEFT_BEHIND_MSAT), 2)
    assert why_ended(turn) == f"client 1: {why}"
    assert not wished(turn, fx.SignForSeats)
    assert not said(turn, m.ClosePropose)


def test_it_is_never_too_late_for_who_moved_out_and_may_be_for_everybody_else() -> None:
    late = Facts(header_height=whole().attempt.terms.expiry_height)
    factory = holding(split(), 1, 2)
    turn = seats_prepared(prepared(asked(factory, vertex="0")))
    assert len(wished(turn, fx.SignForSeats)) == 1
    (for_seats,) = wished(turn, fx.SignForSeats)
    answer = ev.SeatsSigned(asked=for_seats, partial_sigs=((bytes([1]) * 32,),) * 2)
    turn = step(turn.state, closing.on_seats_signed, answer, facts=late)
    assert why_ended(turn) is None
    assert len(wished(turn, fx.PartialSign)) == 1
    asking = prepared(asked(split(), vertex="0")).state
    turn = agreed(asking, 1, facts=late)
    assert (why_ended(turn) or "").startswith("client 1: too late: ")


def test_a_restart_ends_what_is_under_way_and_says_so_and_else_nothing() -> None:
    agreeing = prepared(asked(split(), vertex="1")).state
    turn = step(agreeing, closing.on_start)
    assert why_ended(turn) == "the LSP restarted"
    assert told(turn, m.CloseEnd) == [3, 4]
    turn = step(split(), closing.on_start)
    assert (turn.decision.records, turn.decision.effects) == ((), ())
