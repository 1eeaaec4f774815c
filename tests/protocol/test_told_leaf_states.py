"""What a restored store takes of what its LSP tells of its leaf, and what it does not."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    AMOUNT_SAT,
    Moments,
    link_of,
    of_client,
    purchase,
    records,
    said,
    wishes,
    with_link,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.factory.allocation import Purchase
from cromford.protocol.advancing import recovering
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.client_attempt import RootSent
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.turn import Decision
from cromford.wire import messages as m
from cromford.wire.messages import encode_message
from cromford.wire.seldom import LeafState
from cromford.wire.selling import AllocatedChannel

OTHER: Final = b"\x07" * 32
Client = Decision[ClientState]


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def over(moments: Moments) -> ClientState:
    """Return a buyer whose channel has grown."""
    state: ClientState = moments.market.buyer.state
    return state


def failure(decision: Client) -> str:
    (failed,) = records(decision, cr.ChannelFailed)
    (word,) = said(decision)
    assert isinstance(word, m.ChannelFailure)
    assert word.reason == failed.reason
    return failed.reason


@pytest.fixture(scope="module")
def forgetful(moments: Moments) -> ClientState:
    """Return a buyer whose store is from before it bought: it waits for what the LSP tells."""
    state = moments.at(m.Buy).buyer
    link = link_of(state)
    attempt = replace(state.attempts[link.attempt_id], awaits_states=True)
    return with_link(changed(state, attempts={link.attempt_id: attempt}), mark=StoreMark())


@pytest.fixture(scope="module")
def word(moments: Moments, over: ClientState) -> m.LeafStates:
    """Return what the LSP tells of the leaf."""
    attempt_id = moments.quote.attempt_id
    (state,) = over.attempts[attempt_id].leaf_states
    assert state.poisons is not None
    told_state = LeafState(
        channels=tuple(
            AllocatedChannel(capacity_sat=one) for one in state.allocation.capacities_sat
        ),
        lstock_sat=state.allocation.lstock_sat,
        signature=state.signature,
        stock_poison=state.poisons.stock,
        channel_poison=state.poisons.channels[1],
    )
    return m.LeafStates(attempt_id=attempt_id, states=(told_state,))


def hears(state: ClientState, message: m.LeafStates) -> Client:
    return of_client(state, lambda turn: recovering.on_told(turn, message))


def with_attempt(state: ClientState, /, **changes: Any) -> ClientState:
    attempt_id = link_of(state).attempt_id
    attempt = replace(state.attempts[attempt_id], **changes)
    return changed(state, attempts={attempt_id: attempt})


def test_for_what_the_lsp_tells_of_a_leaf_a_minute_is_waited(forgetful: ClientState) -> None:
    attempt_id = link_of(forgetful).attempt_id
    deadline = fx.LeafDeadline(attempt_id=attempt_id)
    whole = with_attempt(forgetful, awaits_states=False)
    decision = of_client(forgetful, recovering.on_start)
    assert wishes(decision, fx.SetDeadline) == [
        fx.SetDeadline(deadline=deadline, seconds=60, stream=decision.asked[0].stream)
    ]
    assert of_client(whole, recovering.on_start).is_nothing

    def reached(state: ClientState, name: bytes) -> Client:
        reached = fx.LeafDeadline(attempt_id=name)
        return of_client(state, lambda turn: recovering.on_deadline(turn, reached))

    gives_up = ar.LeafStatesTold(attempt_id=attempt_id, message=b"")
    assert list(reached(forgetful, attempt_id).records) == [gives_up]
    assert reached(whole, attempt_id).is_nothing
    assert reached(forgetful, OTHER).is_nothing


def test_what_a_store_lacks_is_taken_and_is_no_news_twice(
    forgetful: ClientState, word: m.LeafStates, over: ClientState
) -> None:
    decision = hears(forgetful, word)
    assert list(decision.records) == [
        ar.LeafStatesTold(attempt_id=word.attempt_id, message=encode_message(word))
    ]
    (cleared,) = wishes(decision, fx.ClearDeadline)
    assert cleared.deadline == fx.LeafDeadline(attempt_id=word.attempt_id)
    assert decision.state.attempts == {
        word.attempt_id: replace(
            forgetful.attempts[word.attempt_id],
            leaf_states=over.attempts[word.attempt_id].leaf_states,
            awaits_states=False,
        )
    }
    assert hears(decision.state, word).is_nothing
    awaiting = with_attempt(decision.state, awaits_states=True)
    assert len(hears(awaiting, word).records) == 1, "now it is known that nothing lacks"


def test_poisons_that_may_not_leave_come_later(forgetful: ClientState, word: m.LeafStates) -> None:
    (state,) = word.states
    early = replace(word, states=(replace(state, stock_poison=b"", channel_poison=b""),))
    first = hears(forgetful, early)
    (known,) = first.state.attempts[word.attempt_id].leaf_states
    assert known.poisons is None
    second = hears(first.state, word)
    (known,) = second.state.attempts[word.attempt_id].leaf_states
    assert known.poisons is not None


def test_of_a_factory_that_is_not_ours_or_a_store_that_is_whole_nothing_is_heard(
    forgetful: ClientState, word: m.LeafStates
) -> None:
    attempt = forgetful.attempts[word.attempt_id]
    unfinished = RootSent(
        candidate=attempt.candidate, signatures=(), commitment_signature=b"", partial_sig=b""
    )
    for state in (
        with_link(forgetful, mark=None),
        with_attempt(forgetful, stage=unfinished),
        changed(forgetful, book=changed(forgetful.book, links=Map())),
        changed(forgetful, lsp_node_id=OTHER),
        with_attempt(forgetful, retired_height=1),
        changed(forgetful, attempts={}),
    ):
        assert hears(state, word).is_nothing


def test_a_state_that_contradicts_ours_or_is_not_signed_ends_the_channel(
    forgetful: ClientState, word: m.LeafStates, over: ClientState
) -> None:
    (told_state,) = word.states
    (known,) = over.attempts[word.attempt_id].leaf_states
    leaf = forgetful.attempts[word.attempt_id].leaf
    other = leaf.sold(Purchase(buyer=1, amount_sat=AMOUNT_SAT + 1))
    contradicted = with_attempt(
        forgetful, leaf_states=(replace(known, allocation=other.allocation),)
    )
    expected, received = other.state.tx.txid, leaf.advanced(known.allocation).state.tx.txid
    for state, lie, why in (
        (contradicted, {}, f"expected {expected}, received {received}"),
        (forgetful, {"signature": bytes(64)}, "expected a valid signature"),
        (forgetful, {"stock_poison": bytes(64)}, "expected a valid signature"),
        (forgetful, {"channel_poison": bytes(64)}, "expected a valid signature"),
        (forgetful, {"channel_poison": b""}, "poisons: expected both or none"),
        (forgetful, {"stock_poison": b""}, "poisons: expected both or none"),
        (forgetful, {"lstock_sat": told_state.lstock_sat + 1}, "expected"),
    ):
        decision = hears(state, replace(word, states=(replace(told_state, **lie),)))
        assert why in failure(decision)
        assert not records(decision, ar.LeafStatesTold)


def test_a_store_that_knows_more_than_is_told_keeps_it(
    forgetful: ClientState, word: m.LeafStates, over: ClientState
) -> None:
    (known,) = over.attempts[word.attempt_id].leaf_states
    leaf = over.attempts[word.attempt_id].leaf
    second = replace(
        known,
        advance_id=OTHER,
        allocation=leaf.sold(Purchase(buyer=1, amount_sat=1_000)).allocation,
        poisons=None,
    )
    two = with_attempt(forgetful, leaf_states=(known, second), awaits_states=False)
    assert hears(two, word).is_nothing
