"""What an LSP takes of what clients signed, what it signs then, and what it tells whom of it."""

from dataclasses import replace
from functools import partial
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    BUYER,
    NEIGHBOUR,
    advance_of,
    channel_of,
    factory_later,
    of_lsp,
    records,
    said,
    wishes,
    with_advance,
    with_channel,
    with_next,
    without_channel,
)
from tests.protocol.test_advance_signing import Signed, factory_of, signed

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol import events as ev
from cromford.protocol.advancing import completing
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.next_funding import POISONS_HELD, STATE_HELD
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

BOTH: Final = (BUYER, NEIGHBOUR)
OTHER: Final = b"\x07" * 32
STALE: Final = replace(FRESH, stale="no block for hours")


@pytest.fixture(scope="module")
def done() -> Signed:
    return signed()


@pytest.fixture(scope="module")
def committed(done: Signed) -> Factory:
    """Return a factory that heard of no signature yet."""
    return done.pump.factory


@pytest.fixture(scope="module")
def whole(done: Signed) -> Factory:
    """Return a factory that has everything of everybody, and asked for its own part."""
    return factory_of(done.second[1].state)


@pytest.fixture(scope="module")
def state_signed(done: Signed) -> Factory:
    """Return a factory whose new state is signed, and that asked for its parts of the poisons."""
    return factory_of(done.state.state)


@pytest.fixture(scope="module")
def poisoned(done: Signed) -> Factory:
    """Return a factory that told everybody of the new state and the old one's poisons."""
    return factory_of(done.poisons.state)


def kicked_off(factory: Factory) -> Factory:
    return factory_later(factory, 1, factory.attempt.leaf(BUYER).kickoff.tx)


def with_session(factory: Factory, **changes: Any) -> Factory:
    session = advance_of(factory).session
    assert session is not None
    return with_advance(factory, session=replace(session, **changes))


def without_one(factory: Factory) -> Factory:
    """Return a factory in whose try the neighbour did not sign."""
    session = advance_of(factory).session
    assert session is not None
    return with_session(factory, signed=session.signed.delete(NEIGHBOUR))


# What clients sign


def first_word(done: Signed) -> tuple[int, m.AdvanceSign]:
    event = done.events[0]
    assert isinstance(event, ev.MessageReceived)
    assert isinstance(event.message, m.AdvanceSign)
    client = done.pump.attempt.client_of(event.node_id)
    assert client is not None
    return client, event.message


def heard(factory: Factory, client: int, message: m.AdvanceSign) -> Decision[Factory]:
    advance = advance_of(factory)
    return of_lsp(factory, lambda turn: completing.on_sign(turn, advance, client, message))


def test_what_a_client_signed_counts_for_the_next_funding_of_this_advance(
    done: Signed, committed: Factory
) -> None:
    client, message = first_word(done)
    decision = heard(committed, client, message)
    assert records(decision, ar.AdvancePartialsReceived)
    assert wishes(decision, fx.FinishNext)
    for over in (
        with_channel(committed, client, next=None),
        with_next(committed, client, advance_id=OTHER),
        without_channel(committed, client),
    ):
        assert heard(over, client, message).is_nothing


def test_parts_that_come_before_their_nonces_are_agreed_on_are_not_looked_at(
    done: Signed,
) -> None:
    """They are of an earlier try: who is bound sends them again, made with the new nonces."""
    client, message = first_word(done)
    again = replace(message, half=())
    held = factory_of(done.first[1].state)
    session = advance_of(held).session
    assert session is not None
    agreed = Map({client: session.agreed[client]})
    asked = with_session(held, is_committed=False, agreed=agreed, signed=Map())
    assert heard(asked, client, again).is_nothing
    assert heard(with_advance(held, session=None), client, again).is_nothing
    assert heard(held, client, again).is_nothing, "they were heard"


# What we sign


def asks(factory: Factory, facts: Facts = FRESH) -> Decision[Factory]:
    advance_id = advance_of(factory).advance_id
    return of_lsp(factory, lambda turn: completing.sign_what_can_be(turn, advance_id), facts)


def n_asked(decision: Decision[Factory]) -> list[int]:
    return [len(one.requests) for one in wishes(decision, fx.PartialSign)]


def closing(factory: Factory) -> Factory:
    outpoint = channel_of(factory, BUYER).present.outpoint
    close = SignedClose(close_id=bytes(32), outpoint=outpoint, balance_msat=1)
    return with_channel(factory, BUYER, closes=(close,))


def test_the_state_is_signed_once_everything_is_there_and_that_is_remembered_once(
    done: Signed, whole: Factory
) -> None:
    again = asks(whole)
    assert (n_asked(again), list(again.records)) == ([1], []), "it was intended before"
    assert n_asked(asks(closing(whole))) == [1], "it may be signed already"
    new = changed(whole, intents=factory_of(done.second[0].state).intents)
    first = asks(new)
    assert n_asked(first) == [1]
    (intended,) = records(first, op.SigningIntended)
    assert first.state.intents == whole.intents
    assert len(intended.intents) == 4, "of the state, of the stock's poison, of each channel's"
    assert asks(closing(new)).is_nothing
    lacking = (
        with_advance(new, session=None),
        with_session(new, is_committed=False),
        without_one(new),
        *(with_next(new, client, own=None) for client in BOTH),
        *(with_next(new, client, given=Map()) for client in BOTH),
        *(with_channel(new, client, next=None) for client in BOTH),
    )
    for one in lacking:
        assert asks(one).is_nothing
    assert of_lsp(new, lambda turn: completing.sign_what_can_be(turn, OTHER)).is_nothing


def test_poisons_are_signed_once_the_state_is_and_may_leave(state_signed: Factory) -> None:
    assert n_asked(asks(state_signed)) == [3]
    assert asks(kicked_off(state_signed)).is_nothing
    assert asks(state_signed, STALE).is_nothing
    assert asks(without_one(state_signed)).is_nothing
    for client in BOTH:
        assert n_asked(asks(with_channel(state_signed, client, next=None))) == [3], "it has moved"
        assert asks(with_next(state_signed, client, own=None)).is_nothing


def answered(factory: Factory, event: ev.Event, facts: Facts = FRESH) -> Decision[Factory]:
    assert isinstance(event, ev.PartialSigned)
    return of_lsp(factory, lambda turn: completing.on_partial_signed(turn, event), facts)


def test_our_own_parts_finish_what_everybody_signed_in_this_try(
    done: Signed, whole: Factory, state_signed: Factory
) -> None:
    part, parts = done.events[4:]
    for factory, event, kind in (
        (whole, part, ar.StateSigned),
        (state_signed, parts, ar.PoisonHeld),
    ):
        assert [type(one) for one in answered(factory, event).records] == [kind]
        for late in (
            changed(factory, advances=Map()),
            with_advance(factory, session=None),
            without_one(factory),
        ):
            assert answered(late, event).is_nothing
    assert answered(state_signed, part).is_nothing, "once"


def told(decision: Decision[Factory]) -> list[tuple[bool, bool]]:
    """Return of each word about what is signed whether it has the poisons."""
    words = [one for one in said(decision) if isinstance(one, m.AdvanceDone)]
    assert all(word.state_signature for word in words)
    return [(bool(word.stock_poison), bool(word.channel_poison)) for word in words]


def test_a_state_is_told_with_its_poisons_or_at_once_where_they_may_not_leave(
    done: Signed, whole: Factory, state_signed: Factory
) -> None:
    part, parts = done.events[4:]
    assert told(answered(whole, part)) == []
    assert told(answered(state_signed, parts)) == [(True, True)] * 2
    with_state = [(False, False)] * 2
    assert told(answered(kicked_off(whole), part)) == with_state
    assert told(answered(whole, part, STALE)) == with_state
    late = answered(kicked_off(state_signed), parts)
    assert told(late) == with_state
    assert not late.records, "what nobody saw is forgotten"


# What is told


def tells(factory: Factory, client: int, facts: Facts = FRESH) -> list[tuple[bool, bool]]:
    advance = advance_of(factory)
    decision = of_lsp(factory, lambda turn: completing.tell_signed(turn, advance, client), facts)
    assert not decision.records
    return told(decision)


def test_a_client_is_told_until_it_holds_it_and_of_poisons_while_they_may_leave(
    poisoned: Factory, state_signed: Factory
) -> None:
    for client in BOTH:
        assert tells(poisoned, client) == [(True, True)]
        assert tells(kicked_off(poisoned), client) == [(False, False)]
        assert tells(poisoned, client, STALE) == [(False, False)]
        assert tells(state_signed, client) == [(False, False)], "they are not there yet"
        assert tells(with_channel(poisoned, client, next=None), client) == [], "it has moved"
        assert tells(without_channel(poisoned, client), client) == []
        assert tells(with_advance(poisoned, acknowledged=frozenset({client})), client) == []


def test_that_it_holds_the_poisons_is_heard_of_a_client_that_did_not_say_so_nor_moved(
    poisoned: Factory,
) -> None:
    def holds(factory: Factory) -> list[Any]:
        advance = advance_of(factory)
        decision = of_lsp(factory, lambda turn: completing.on_held(turn, advance, BUYER))
        assert not decision.effects
        return [(type(one), one.client) for one in records(decision, ar.AdvanceAcknowledged)]

    assert holds(poisoned) == [(ar.AdvanceAcknowledged, BUYER)]
    assert holds(with_channel(poisoned, BUYER, next=None)) == []
    assert holds(without_channel(poisoned, BUYER)) == []
    assert holds(with_advance(poisoned, acknowledged=frozenset({BUYER}))) == []


# Who comes back


def returns(factory: Factory, **changes: Any) -> Decision[Factory]:
    """Return what follows once the buyer said how far it is."""
    back = with_next(factory, BUYER, **changes)
    advance = advance_of(back)
    return of_lsp(back, lambda turn: completing.heed_return(turn, advance, BUYER))


def test_whoever_comes_back_gets_what_it_lacks_or_is_believed_to_hold_it(
    poisoned: Factory, whole: Factory
) -> None:
    holds = returns(poisoned, peer_stage=POISONS_HELD)
    assert [one.client for one in records(holds, ar.AdvanceAcknowledged)] == [BUYER]
    assert told(holds) == []
    for peer_stage in (0, STATE_HELD):
        lacks = returns(poisoned, peer_stage=peer_stage)
        assert not lacks.records
        assert told(lacks) == [(True, True)]
        assert [one.node_id for one in wishes(lacks, fx.Send)] == [
            channel_of(poisoned, BUYER).node_id
        ]
        assert returns(whole, peer_stage=peer_stage).is_nothing, "nothing is signed"


def test_a_word_of_an_earlier_connection_says_nothing_of_what_a_client_holds(
    poisoned: Factory,
) -> None:
    """Of a channel that failed it is told again what is signed, with every beginning."""
    state = changed(channel_of(poisoned, BUYER).state, is_connected=False)
    failed = with_channel(poisoned, BUYER, state=state, failure="it broke")
    again = returns(failed, peer_stage=POISONS_HELD)
    assert not again.records
    assert told(again) == [(True, True)]
    for moved in (with_channel(poisoned, BUYER, next=None), without_channel(poisoned, BUYER)):
        heed = partial(completing.heed_return, advance=advance_of(moved), client=BUYER)
        assert of_lsp(moved, heed).is_nothing
