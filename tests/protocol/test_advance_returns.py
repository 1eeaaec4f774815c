"""What an LSP does in an advance as its clients come and go, as time passes, and as blocks come."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    BUYER,
    NEIGHBOUR,
    Moments,
    advance_of,
    channel_of,
    factory_later,
    here,
    of_lsp,
    purchase,
    records,
    said,
    wishes,
    with_advance,
    with_channel,
    with_next,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.factory.leaf import advance_height_max
from cromford.protocol.advancing import lsp as advancing
from cromford.protocol.advancing import sessions
from cromford.protocol.facts import Facts
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.next_funding import POISONS_HELD
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.turn import Decision, Turn
from cromford.wire import messages as m

BOTH: Final = (BUYER, NEIGHBOUR)
OTHER: Final = b"\x07" * 32


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def asked(moments: Moments) -> Factory:
    """Return a factory that asked its clients."""
    return moments.at(m.AdvanceAgree).factory


@pytest.fixture(scope="module")
def committed(moments: Moments) -> Factory:
    """Return a factory that gave its clients something to sign."""
    return moments.at(m.AdvanceSign).factory


@pytest.fixture(scope="module")
def poisoned(moments: Moments) -> Factory:
    """Return a factory that told its clients of the new state and the old one's poisons."""
    return moments.at(m.AdvanceHeld).factory


@pytest.fixture(scope="module")
def bound(poisoned: Factory) -> Factory:
    """Return a factory between two tries: both are bound, and their state is not signed."""
    return with_advance(poisoned, is_signed=False, has_poisons=False)


@pytest.fixture(scope="module")
def free(committed: Factory) -> Factory:
    """Return a factory between two tries: both said that they signed nothing."""
    for client in BOTH:
        committed = with_next(committed, client, peer_stage=0)
        committed = with_channel(committed, client, quiet_for=b"")
    return with_advance(committed, session=None)


def node_id_of(factory: Factory, client: int) -> bytes:
    return factory.attempt.seats[client - 1].node_id


def told(decision: Decision[Factory]) -> list[bytes]:
    """Return who is told of what is signed."""
    return [
        one.node_id for one in wishes(decision, fx.Send) if isinstance(one.message, m.AdvanceDone)
    ]


# Who comes back


def reestablished(factory: Factory, client: int) -> AnyRecord:
    channel_id = channel_of(factory, client).channel_id
    return cr.ChannelReestablished(channel_id=channel_id, message=b"", own_point=b"")


def failed(factory: Factory, client: int) -> AnyRecord:
    channel_id = channel_of(factory, client).channel_id
    return cr.ChannelFailed(channel_id=channel_id, reason="it broke", height=0)


def prepared(factory: Factory, client: int) -> AnyRecord:
    channel_id = channel_of(factory, client).channel_id
    return cr.ChannelPrepared(channel_id=channel_id, pool_id=OTHER, pubnonce=b"")


def goes_on(factory: Factory, *before: AnyRecord, facts: Facts | None = None) -> Decision[Factory]:
    """Return what an LSP does at the end of a decision in which channels began with that.

    Its state is the one after it.
    """

    def apply(state: Factory, record: AnyRecord, at: int) -> Factory:
        return state if record in before else apply_to_factory(state, record, at)

    turn = Turn(factory, apply, facts or here(factory))
    turn.remember(*before)
    advancing.go_on(turn)
    return turn.decision


def test_whoever_says_where_its_channel_stands_gets_what_it_lacks(poisoned: Factory) -> None:
    for client in BOTH:
        back = goes_on(poisoned, reestablished(poisoned, client))
        assert told(back) == [node_id_of(poisoned, client)]
    assert told(goes_on(poisoned)) == [], "nobody came back"
    holds = with_next(poisoned, BUYER, peer_stage=POISONS_HELD)
    back = goes_on(holds, reestablished(holds, BUYER))
    assert [one.client for one in records(back, ar.AdvanceAcknowledged)] == [BUYER]
    assert [one.channel_id for one in records(back, cr.UpdateProposed)] == [
        channel_of(holds, BUYER).channel_id
    ]


def test_of_a_channel_that_failed_its_beginning_is_as_good_as_its_word(poisoned: Factory) -> None:
    for client in BOTH:
        over = with_channel(poisoned, client, failure="it broke")
        for record in (failed(over, client), prepared(over, client)):
            assert told(goes_on(over, record)) == [node_id_of(over, client)]
        assert told(goes_on(poisoned, prepared(poisoned, client))) == [], "it says more yet"


def test_with_the_last_who_comes_back_another_try_begins(bound: Factory) -> None:
    advance_id = advance_of(bound).advance_id
    for client in BOTH:
        back = goes_on(bound, reestablished(bound, client))
        assert [type(one) for one in back.records[1:]] == [ar.AdvanceResumed]
        (wish,) = wishes(back, fx.PrepareAdvance)
        assert wish.advance_id == advance_id
    assert goes_on(bound).is_nothing
    away = goes_on(bound, reestablished(bound, BUYER), facts=here(bound, NEIGHBOUR))
    assert len(away.records) == 1
    elsewhere = with_advance(bound, clients=(BUYER,))
    assert len(goes_on(elsewhere, reestablished(bound, NEIGHBOUR)).records) == 1


def test_what_ends_with_whoever_comes_back_is_gone_on_with_no_further(free: Factory) -> None:
    last = advance_height_max(
        exit_deadline_height=channel_of(free, BUYER).exit_deadline_height,
        patience_blocks=free.attempt.terms.patience_blocks,
    )
    late = here(free, header_height=last + 1)
    over = goes_on(free, reestablished(free, BUYER), facts=late)
    assert [type(one) for one in over.records[1:]] == [ar.AdvanceDropped]
    assert not over.state.advances
    assert not wishes(over, fx.PrepareAdvance)


def test_what_waits_for_a_channel_goes_on_with_any_word_of_it(
    moments: Moments, asked: Factory, poisoned: Factory
) -> None:
    about_to = with_advance(asked, session=None, is_asking=True)
    assert len(wishes(goes_on(about_to), fx.PrepareAdvance)) == 1
    assert goes_on(asked).is_nothing, "they were asked"
    ready = with_next(poisoned, BUYER, may_rebase=True)
    assert [one.channel_id for one in records(goes_on(ready), cr.UpdateProposed)] == [
        channel_of(ready, BUYER).channel_id
    ]
    moved = changed(moments.market.pump.factory, advances=poisoned.advances)
    over = goes_on(moved)
    assert [type(one) for one in over.records] == [ar.LiquiditySold, ar.AdvanceEnded]


# Who goes


def test_with_a_connection_ends_what_needs_its_nonces_and_nothing_between_two_tries(
    asked: Factory, committed: Factory, free: Factory, bound: Factory
) -> None:
    def gone(factory: Factory, node_id: bytes) -> Decision[Factory]:
        return of_lsp(factory, lambda turn: advancing.on_disconnection(turn, node_id))

    for client in BOTH:
        node_id = node_id_of(asked, client)
        (dropped,) = gone(asked, node_id).records
        assert isinstance(dropped, ar.AdvanceDropped)
        assert (dropped.reason, dropped.culprits) == (f"client {client} disconnected", ())
        about_to = with_advance(asked, session=None, is_asking=True)
        assert records(gone(about_to, node_id), ar.AdvanceDropped)
        (ended,) = gone(committed, node_id).records
        assert isinstance(ended, ar.AdvanceSessionEnded)
        for waits in (free, bound):
            assert gone(waits, node_id).is_nothing
        elsewhere = with_advance(asked, clients=(3 - client,))
        assert gone(elsewhere, node_id).is_nothing
    assert gone(asked, OTHER).is_nothing


def test_after_a_start_what_was_committed_waits_for_its_clients_and_else_it_is_over(
    asked: Factory, free: Factory, bound: Factory
) -> None:
    unasked = with_advance(asked, session=None)
    (dropped,) = of_lsp(unasked, advancing.on_start).records
    assert isinstance(dropped, ar.AdvanceDropped)
    assert dropped.reason == "the LSP restarted"
    for waits in (free, bound):
        assert of_lsp(waits, advancing.on_start).is_nothing


# Time


def passed(factory: Factory, advance_id: bytes | None = None) -> Decision[Factory]:
    name = advance_of(factory).advance_id if advance_id is None else advance_id
    deadline = fx.AdvanceDeadline(advance_id=name)
    return of_lsp(factory, lambda turn: advancing.on_deadline(turn, deadline))


def test_whoever_is_waited_for_in_vain_is_named_and_so_is_what_for(
    asked: Factory, committed: Factory, poisoned: Factory
) -> None:
    about_to = with_advance(asked, session=None, is_asking=True)
    state = channel_of(asked, NEIGHBOUR).state
    moving = changed(state, peer_signed=state.peer_signed + 1)
    (unquiet,) = passed(with_channel(about_to, NEIGHBOUR, state=moving)).records
    assert isinstance(unquiet, ar.AdvanceDropped)
    assert unquiet.reason == "deadline: clients [2] did not come to be quiet in time"
    assert (unquiet.holdouts, unquiet.culprits) == (
        (NEIGHBOUR,),
        (node_id_of(asked, NEIGHBOUR),),
    )
    (silent,) = passed(asked).records
    assert isinstance(silent, ar.AdvanceDropped)
    assert (silent.reason, silent.holdouts) == ("deadline: no answer from clients [1, 2]", BOTH)
    (ended,) = passed(committed).records
    assert isinstance(ended, ar.AdvanceSessionEnded)
    assert ended.holdouts == BOTH
    assert passed(poisoned).is_nothing
    assert passed(asked, OTHER).is_nothing


def test_in_another_try_only_who_is_not_bound_is_waited_for_to_be_quiet(
    moments: Moments,
) -> None:
    """The channel of whoever is bound goes on: that an update is on its way there is no delay."""
    half = moments.at(m.AdvanceSign, moments.market.pump.client_at(NEIGHBOUR)).factory
    again = with_advance(half, session=None, is_asking=True)
    for client in BOTH:
        state = channel_of(again, client).state
        moving = changed(state, peer_signed=state.peer_signed + 1)
        again = with_channel(again, client, state=moving)
    (ended,) = passed(again).records
    assert isinstance(ended, ar.AdvanceSessionEnded)
    assert ended.holdouts == (NEIGHBOUR,)
    assert [one.node_id for one in wishes(passed(again), fx.Disconnect)] == [
        node_id_of(again, NEIGHBOUR)
    ]


def test_whoever_is_asked_for_poisons_alone_is_not_waited_for_for_ever_either(
    moments: Moments, committed: Factory, poisoned: Factory
) -> None:
    session = advance_of(committed).session
    assert session is not None
    asked_again = replace(session, is_committed=False, agreed=Map(), signed=Map())
    lacking = with_advance(poisoned, has_poisons=False, session=asked_again)
    (ended,) = passed(lacking).records
    assert isinstance(ended, ar.AdvanceSessionEnded)
    assert ended.holdouts == BOTH
    assert len(wishes(passed(lacking), fx.Disconnect)) == 2
    about_to = with_advance(poisoned, has_poisons=False, is_asking=True)
    assert records(passed(about_to), ar.AdvanceSessionEnded)
    assert passed(with_advance(poisoned, has_poisons=False)).is_nothing, "nobody is asked"
    sign = moments.message(m.AdvanceSign)
    answered = replace(session, signed=Map(dict.fromkeys(BOTH, sign)))
    all_of_it = with_advance(poisoned, has_poisons=False, session=answered)
    assert passed(all_of_it).is_nothing, "all have answered"
    unsigned = passed(with_advance(all_of_it, is_signed=False))
    assert records(unsigned, ar.AdvanceSessionEnded), "it was not signed with that: it is again"


# Blocks


def with_block(factory: Factory, facts: Facts | None = None) -> Decision[Factory]:
    return of_lsp(factory, advancing.on_block, facts or here(factory))


def test_with_each_block_whoever_is_here_is_told_what_it_does_not_hold_yet(
    poisoned: Factory,
) -> None:
    nodes = [node_id_of(poisoned, client) for client in BOTH]
    assert told(with_block(poisoned)) == nodes
    assert told(with_block(poisoned, here(poisoned, BUYER))) == nodes[1:]
    holds = with_advance(poisoned, acknowledged=frozenset({NEIGHBOUR}))
    assert told(with_block(holds)) == nodes[:1]
    assert told(with_block(poisoned, here(poisoned, stale="no block for hours"))) == []
    kickoff = poisoned.attempt.leaf(BUYER).kickoff.tx
    assert told(with_block(factory_later(poisoned, 1, kickoff))) == []
    assert told(with_block(with_advance(poisoned, has_poisons=False))) == []


def test_a_block_makes_another_try_possible_or_the_old_state_final(
    bound: Factory, free: Factory
) -> None:
    resumed = with_block(bound)
    assert [type(one) for one in resumed.records] == [ar.AdvanceResumed]
    assert wishes(resumed, fx.PrepareAdvance)
    old = sessions.leaf_of(free, advance_of(free)).states[0].tx
    voided = with_block(factory_later(free, SETTLED_DEPTH, old))
    assert [one.channel_id for one in records(voided, ar.NextFundingVoid)] == [
        channel_of(free, client).channel_id for client in BOTH
    ]
    assert records(voided, ar.AdvanceEnded)


# A store that lost state


def test_who_lost_state_and_says_so_is_told_what_became_of_its_leaf(poisoned: Factory) -> None:
    channel_id = channel_of(poisoned, BUYER).channel_id
    lost = with_channel(poisoned, BUYER, peer_is_behind=True)
    word = m.ChannelReestablish(
        channel_id=channel_id,
        next_commitment_number=1,
        next_revocation_number=0,
        your_last_per_commitment_secret=bytes(32),
        next_pubnonce=b"",
        advance=(),
    )
    failure = m.ChannelFailure(channel_id=channel_id, reason="it broke")

    def hears(factory: Factory, message: Any, seat: int = BUYER) -> list[m.Message]:
        node_id = node_id_of(factory, seat)
        return said(
            of_lsp(factory, lambda turn: advancing.tell_if_restored(turn, node_id, message))
        )

    for message in (word, m.StoreMarked(channel_id=channel_id, revealed_hash=OTHER)):
        (answer,) = hears(lost, message)
        assert isinstance(answer, m.LeafStates)
        assert len(answer.states) == 1
        assert hears(poisoned, message) == [], "its store is the newest"
        assert hears(lost, message, NEIGHBOUR) == [], "it is no channel of its"
        assert hears(changed(lost, held_keys=frozenset({BUYER})), message) == [], "it moved out"
        assert hears(lost, replace(message, channel_id=OTHER)) == []
    assert hears(lost, failure) == [], "it says nothing of its store"
