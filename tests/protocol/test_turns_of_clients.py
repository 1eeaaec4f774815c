"""What a client does in an advance with what comes late, twice, or cannot be."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    Moments,
    link_of,
    of_client,
    purchase,
    records,
    said,
    wishes,
    with_link,
)
from tests.protocol.advance_steps import NEIGHBOUR, answer_of, at_step, next_message

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.advancing import client as advancing
from cromford.protocol.advancing import signing
from cromford.protocol.advancing.checking import next_leaf
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.next_funding import HeldCommitment
from cromford.protocol.turn import Decision, Turn
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32
Client = Decision[ClientState]


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


def advance_of(state: ClientState) -> ClientAdvance:
    (advance,) = state.advances.values()
    return advance


def with_advance(state: ClientState, /, **changes: Any) -> ClientState:
    ((attempt_id, advance),) = state.advances.items()
    return changed(state, advances=Map({attempt_id: replace(advance, **changes)}))


def with_next(state: ClientState, /, **changes: Any) -> ClientState:
    following = link_of(state).next
    assert following is not None
    return with_link(state, next=changed(following, **changes))


# Before it agrees


@pytest.fixture(scope="module")
def prepared(moments: Moments) -> ClientState:
    """Return a buyer that has its nonces, and did not agree yet."""
    agreed = moments.at(m.AdvanceCommit, moments.market.buyer).buyer
    return with_link(with_advance(agreed, is_agreed=False), next=None)


def agrees(state: ClientState) -> list[m.Message]:
    return said(of_client(state, advancing.go_on))


def test_a_client_agrees_once_and_with_all_of_its_nonces(prepared: ClientState) -> None:
    (word,) = agrees(prepared)
    assert isinstance(word, m.AdvanceAgree)
    advance = advance_of(prepared)
    assert advance.factory_pool is not None
    assert advance.channel_pool is not None
    assert word.pubnonces == advance.factory_pool.pubnonces
    (nonces,) = word.channel
    assert (nonces.pubnonce, nonces.following_pubnonce) == advance.channel_pool.pubnonces[:2]
    for waits in (
        with_advance(prepared, factory_pool=None),
        with_advance(prepared, channel_pool=None),
        with_advance(prepared, is_agreed=True),
    ):
        assert agrees(waits) == []


def test_what_ends_in_one_factory_is_no_end_of_what_is_agreed_to_in_another(
    prepared: ClientState,
) -> None:
    """Two factories, of which the first to be looked at has nothing bought any more."""
    ((attempt_id, advance),) = prepared.advances.items()
    first, ended = bytes(32), replace(advance, quote_id=OTHER)
    assert first < attempt_id
    both = changed(
        prepared,
        attempts={**prepared.attempts, first: prepared.attempts[attempt_id]},
        advances=Map({first: ended, attempt_id: advance}),
    )
    decision = of_client(both, advancing.go_on)
    (dropped,) = records(decision, ar.AdvanceDropped)
    assert (dropped.attempt_id, dropped.reason) == (first, advancing.NOT_BOUGHT)
    (agreed,) = records(decision, ar.AdvanceAgreed)
    assert agreed.attempt_id == attempt_id


def test_with_a_connection_go_the_nonces_that_are_there(prepared: ClientState) -> None:
    for state, pool_ids in (
        (prepared, [advance_of(prepared).pool_ids]),
        (with_advance(prepared, factory_pool=None, channel_pool=None), []),
    ):
        decision = of_client(state, advancing.void_connection)
        assert [one.pool_ids for one in wishes(decision, fx.DropPools)] == pool_ids
        (cleared,) = wishes(decision, fx.ClearDeadline)
        assert cleared.deadline == fx.AdvanceDeadline(advance_id=advance_of(prepared).advance_id)


def test_a_proposal_that_comes_again_is_not_answered_again(moments: Moments) -> None:
    agreed = moments.at(m.AdvanceCommit, moments.market.buyer).buyer
    propose = moments.message(m.AdvancePropose)
    again = of_client(agreed, lambda turn: advancing.take_message(turn, propose))
    assert again.is_nothing


# What is made in an advance


@cache
def making() -> dict[str, Any]:
    """Return a neighbour's states as its signer answers, and what it answers, to its word."""
    pump = at_step(m.AdvanceCommit)
    client = pump.client_at(NEIGHBOUR)
    commit = next_message(pump, client, m.AdvanceCommit)
    finishing = client_role.decide(client.state, commit)
    half = answer_of(client, only_wish(finishing, fx.FinishNext))
    signed = client_role.decide(finishing.state, half)
    parts = answer_of(client, only_wish(signed, fx.PartialSign))
    return {
        "agreed": client.state,
        "commit": commit.message,
        "half": half,
        "signed": signed.state,
        "parts": parts,
    }


def only_wish(decision: Client, kind: type[Any]) -> Any:
    (wish,) = wishes(decision, kind)
    return wish


@pytest.fixture
def agreed() -> ClientState:
    """Return a neighbour that agreed."""
    state: ClientState = making()["agreed"]
    return state


@pytest.fixture
def signed() -> ClientState:
    """Return a neighbour that signed: what it makes is on its way."""
    state: ClientState = making()["signed"]
    return state


def hears_commit(state: ClientState) -> Client:
    return of_client(state, partial(advancing.take_message, message=making()["commit"]))


def hears_half(state: ClientState, event: ev.NextHalfMade) -> Client:
    return of_client(state, partial(advancing.take, event=event))


def hears_parts(state: ClientState) -> Client:
    return of_client(state, partial(advancing.on_partial_signed, event=making()["parts"]))


def test_a_half_that_is_held_is_not_finished_again(agreed: ClientState) -> None:
    assert wishes(hears_commit(agreed), fx.FinishNext)
    number = link_of(agreed).state.own_signed
    held = HeldCommitment(number=number, signature=bytes(64), htlc_signatures=())
    assert hears_commit(with_next(agreed, own=held)).is_nothing


def test_a_client_signs_once_for_its_latest_commitment_and_for_what_the_lsp_gave_for_it(
    agreed: ClientState, signed: ClientState
) -> None:
    half: ev.NextHalfMade = making()["half"]
    assert records(hears_half(agreed, half), ar.AdvanceSigned)
    asked = half.asked
    sign = m.AdvanceSign(
        attempt_id=asked.attempt_id, advance_id=asked.advance_id, half=(), partials=()
    )
    asked_by_none = replace(half, asked=replace(half.asked, message=sign))
    state = link_of(agreed).state
    newer = with_link(agreed, state=changed(state, own_signed=state.own_signed + 1))
    forgot = with_next(signed, own=None)
    for over, event in (
        (agreed, asked_by_none),
        (newer, half),
        (with_next(agreed, advance_id=OTHER), half),
        (with_link(agreed, next=None), half),
        (signed, half),
        (forgot, half),
    ):
        assert hears_half(over, event).is_nothing


def test_parts_that_are_made_after_their_connection_are_not_sent(signed: ClientState) -> None:
    wish = only_wish(hears_parts(signed), fx.SignNext)
    assert len(wish.partials) == 1
    gone = client_role.decide(signed, ev.ConnectionClosed(node_id=signed.lsp_node_id)).state
    assert advance_of(gone).is_signed
    assert hears_parts(gone).is_nothing


# Who comes back


def goes_on(state: ClientState, channel_id: bytes) -> Client:
    """Return what a client does at the end of a decision in which a channel was taken up.

    Its state is the one after it.
    """
    record = cr.ChannelReestablished(channel_id=channel_id, message=b"", own_point=b"")

    def apply(before: ClientState, one: Any, at: int) -> ClientState:
        return before if one is record else client_role.apply(before, one, at)

    turn = Turn(state, apply, FRESH)
    turn.remember(record)
    advancing.go_on(turn)
    return turn.decision


def test_with_its_channel_a_client_says_again_what_it_holds(moments: Moments) -> None:
    holding = next(
        one.buyer
        for one in moments.all
        if isinstance(one.message, m.AdvanceHeld) and one.buyer.advances
    )
    following = link_of(holding).next
    assert following is not None
    assert following.may_rebase
    (word,) = said(goes_on(holding, link_of(holding).channel_id))
    assert isinstance(word, m.AdvanceHeld)
    assert said(goes_on(holding, OTHER)) == [], "another channel is no word of this one"
    assert said(of_client(holding, advancing.go_on)) == []
    lacking = with_next(holding, may_rebase=False)
    assert said(goes_on(lacking, link_of(holding).channel_id)) == []


# What cannot be


def test_what_cannot_be_ends_the_decision_and_nothing_of_it_is_remembered(
    agreed: ClientState, signed: ClientState
) -> None:
    decide: Callable[[], Client]
    for why, decide in (
        ("agreed without a next funding", lambda: hears_commit(with_link(agreed, next=None))),
        (
            "an advance is signed without the LSP's nonces",
            lambda: hears_parts(with_next(signed, peer_nonces=Map())),
        ),
    ):
        with pytest.raises(AssertionError, match=why):
            decide()


@pytest.mark.parametrize("pool", ["factory_pool", "channel_pool"])
def test_nothing_is_signed_without_nonces(agreed: ClientState, pool: str) -> None:
    ((attempt_id, advance),) = agreed.advances.items()
    leaf = next_leaf(agreed.attempts[attempt_id], advance)
    commit = making()["commit"]
    assert len(signing.requests_of(leaf, advance, commit)) == 3
    bare: Any = {pool: None}
    with pytest.raises(AssertionError, match="agreed without nonces"):
        signing.requests_of(leaf, replace(advance, **bare), commit)
