"""What an LSP asks a leaf's clients, what it takes of their answers, and when its half leaves."""

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
    here,
    of_lsp,
    purchase,
    records,
    said,
    wishes,
    with_advance,
    with_channel,
    with_next,
    without_channel,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol import events as ev
from cromford.protocol.advancing import agreeing
from cromford.protocol.advancing.rules import problem_with_price
from cromford.protocol.facts import Facts
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import AdvanceSession
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.encoding import decoded_pool
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

BOTH: Final = (BUYER, NEIGHBOUR)
STALE: Final = "no block for hours"
SIG: Final = b"\x05" * 32


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def asked(moments: Moments) -> Factory:
    """Return a factory that asked both clients, and heard of neither."""
    return moments.at(m.AdvanceAgree, moments.market.buyer).factory


@pytest.fixture(scope="module")
def last(moments: Moments) -> Factory:
    """Return a factory in which only the neighbour did not agree yet."""
    return moments.at(m.AdvanceAgree, moments.market.pump.client_at(NEIGHBOUR)).factory


@pytest.fixture(scope="module")
def committed(moments: Moments) -> Factory:
    """Return a factory that gave both clients its half, and heard of neither."""
    return moments.at(m.AdvanceSign).factory


@pytest.fixture(scope="module")
def bound(moments: Moments) -> Factory:
    """Return a factory that asked again, where both are bound: they agree with nonces alone."""
    session = session_of(moments.at(m.AdvanceSign).factory)
    again = replace(session, is_committed=False, agreed=Map(), signed=Map())
    found = moments.at(m.AdvanceDone).factory
    return with_advance(found, session=again, is_signed=False, has_poisons=False)


def session_of(factory: Factory) -> AdvanceSession:
    session = advance_of(factory).session
    assert session is not None
    return session


def node_id_of(factory: Factory, client: int) -> bytes:
    return factory.attempt.seats[client - 1].node_id


def agreement(moments: Moments, client: int, **changes: Any) -> m.AdvanceAgree:
    moment = moments.at(m.AdvanceAgree, moments.market.pump.client_at(client))
    assert isinstance(moment.message, m.AdvanceAgree)
    return replace(moment.message, **changes)


def heard(
    factory: Factory, client: int, message: m.AdvanceAgree, facts: Facts | None = None
) -> Decision[Factory]:
    advance, facts = advance_of(factory), facts or here(factory)
    return of_lsp(factory, lambda turn: agreeing.on_agree(turn, advance, client, message), facts)


def commits(decision: Decision[Factory]) -> dict[bytes, m.AdvanceCommit]:
    """Return which clients get the LSP's half at once."""
    return {
        one.node_id: one.message
        for one in wishes(decision, fx.Send)
        if isinstance(one.message, m.AdvanceCommit)
    }


# The question


def test_each_client_is_asked_what_its_own_channel_is_to_pay(
    moments: Moments, asked: Factory
) -> None:
    pump = moments.market.pump
    (wish, *_) = pump.wishes(pump.lsp, fx.PrepareAdvance)
    (made,) = [one for one in pump.lsp.store.remembered if isinstance(one, ar.AdvancePoolsMade)]
    event = ev.AdvancePrepared(
        asked=wish,
        factory_pool=decoded_pool(made.factory_pool),
        channel_pools=tuple(map(decoded_pool, made.channel_pools)),
    )
    factory = with_advance(asked, session=None, is_asking=True)
    decision = of_lsp(factory, lambda turn: agreeing.on_prepared(turn, event), here(factory))
    assert list(decision.records) == [made]
    quote, advance = moments.quote, advance_of(asked)
    told = {one.node_id: one.message for one in wishes(decision, fx.Send)}
    assert list(told) == [node_id_of(asked, client) for client in BOTH]
    for client, quote_id, price_msat in (
        (BUYER, quote.quote_id, quote.price_msat),
        (NEIGHBOUR, b"", 0),
    ):
        propose = told[node_id_of(asked, client)]
        assert isinstance(propose, m.AdvancePropose)
        assert (propose.quote_id, propose.price_msat) == (quote_id, price_msat)
        assert propose.session == event.factory_pool.pool_id
        assert propose.advance_id == advance.advance_id
    (waits,) = wishes(decision, fx.SetDeadline)
    assert waits.deadline == fx.AdvanceDeadline(advance_id=advance.advance_id)
    pools = (event.factory_pool, *event.channel_pools)
    for late in (
        with_advance(asked, is_asking=False),
        changed(asked, advances=Map()),
    ):
        decision = of_lsp(late, lambda turn: agreeing.on_prepared(turn, event), here(late))
        (dropped,) = decision.effects
        assert isinstance(dropped, fx.DropPools)
        assert set(dropped.pool_ids) == {pool.pool_id for pool in pools}
        assert not decision.records


# The answers


def test_an_answer_counts_in_the_try_that_it_is_to_and_before_its_commitment(
    moments: Moments, asked: Factory, committed: Factory
) -> None:
    agree = agreement(moments, BUYER)
    assert records(heard(asked, BUYER, agree), ar.AdvanceAgreementReceived)
    for factory, message in (
        (asked, replace(agree, session=bytes(32))),
        (with_advance(asked, session=None), agree),
        (without_channel(asked, BUYER), agree),
        (committed, agree),
    ):
        assert heard(factory, BUYER, message).is_nothing


def test_who_answers_twice_says_the_same_or_is_at_fault_until_all_have_agreed(
    moments: Moments, last: Factory, committed: Factory
) -> None:
    agree = agreement(moments, BUYER)
    other = replace(agree, pubnonces=agree.pubnonces[::-1])
    assert heard(last, BUYER, agree).is_nothing
    (dropped,) = records(heard(last, BUYER, other), ar.AdvanceDropped)
    assert dropped.reason == "client 1: it agreed twice, differently"
    assert dropped.is_fault
    assert heard(committed, BUYER, other).is_nothing, "it is too late for it"


def test_an_answer_with_an_update_on_its_way_is_a_fault_of_whoever_is_not_bound(
    moments: Moments, asked: Factory, bound: Factory
) -> None:
    """Which commitment the next funding begins with would not be one and the same."""

    def moving(factory: Factory) -> Factory:
        state = channel_of(factory, BUYER).state
        return with_channel(factory, BUYER, state=changed(state, own_signed=state.own_signed + 1))

    fault = heard(moving(asked), BUYER, agreement(moments, BUYER))
    (dropped,) = records(fault, ar.AdvanceDropped)
    assert dropped.reason == "client 1: an agreement while an update is on its way"
    assert (dropped.is_fault, dropped.culprits) == (True, (node_id_of(asked, BUYER),))
    signed = heard(moving(bound), BUYER, agreement(moments, BUYER, channel=()))
    assert records(signed, ar.AdvanceAgreementReceived), "its channel goes on"


def test_what_the_balance_does_not_carry_any_more_ends_what_is_not_signed_alone(
    moments: Moments, asked: Factory, bound: Factory
) -> None:
    dear = 10**10
    assert problem_with_price(channel_of(asked, BUYER), dear)
    refused = heard(with_advance(asked, price_msat=dear), BUYER, agreement(moments, BUYER))
    assert records(refused, ar.AdvanceDropped)
    signed = with_advance(bound, price_msat=dear)
    again = heard(signed, BUYER, agreement(moments, BUYER, channel=()))
    (received,) = again.records
    assert isinstance(received, ar.AdvanceAgreementReceived)


# Our half


def test_with_the_last_answer_each_gets_our_half_of_its_own_commitment(
    moments: Moments, last: Factory
) -> None:
    """Made by the signer first; until then nobody hears of it."""
    decision = heard(last, NEIGHBOUR, agreement(moments, NEIGHBOUR))
    assert len(records(decision, ar.AdvanceCommitted)) == 1
    intended = records(decision, ar.NextCommitmentIntended)
    signing = wishes(decision, fx.SignNext)
    assert [one.channel_id for one in signing] == [one.channel_id for one in intended]
    assert [one.channel_id for one in signing] == [
        channel_of(last, client).channel_id for client in BOTH
    ]
    assert [one.task.sighash for one in signing] == [one.sighash for one in intended]
    for client, wish in zip(BOTH, signing, strict=True):
        (theirs,) = agreement(moments, client).channel
        assert (wish.number, wish.pubnonce) == (theirs.number, theirs.pubnonce)
    assert not said(decision)
    (waits,) = wishes(decision, fx.SetDeadline)
    assert waits.deadline == fx.AdvanceDeadline(advance_id=advance_of(last).advance_id)
    stale = heard(last, NEIGHBOUR, agreement(moments, NEIGHBOUR), here(last, stale=STALE))
    assert records(stale, ar.AdvanceDropped)
    assert not records(stale, ar.AdvanceCommitted)
    assert not wishes(stale, fx.SignNext)


def agreed_again(moments: Moments, bound: Factory) -> Factory:
    """Return a factory in which one of two that are bound agreed again."""
    first = heard(bound, BUYER, agreement(moments, BUYER, channel=()))
    assert [type(one) for one in first.records] == [ar.AdvanceAgreementReceived]
    return first.state


def test_who_is_bound_gets_nonces_at_once_and_no_second_half_whatever_has_changed(
    moments: Moments, bound: Factory
) -> None:
    once = agreed_again(moments, bound)
    for facts in (here(once), here(once, stale=STALE), here(once, header_height=10**6)):
        decision = heard(once, NEIGHBOUR, agreement(moments, NEIGHBOUR, channel=()), facts)
        assert records(decision, ar.AdvanceCommitted)
        assert not records(decision, ar.NextCommitmentIntended)
        assert not wishes(decision, fx.SignNext)
        told = commits(decision)
        assert list(told) == [node_id_of(once, client) for client in BOTH]
        for commit in told.values():
            assert (commit.half, commit.channel, len(commit.aggnonces)) == ((), (), 2)


def test_of_two_one_of_whom_is_bound_the_other_alone_gets_our_half(
    moments: Moments, bound: Factory, last: Factory
) -> None:
    new = channel_of(last, NEIGHBOUR)
    fresh = with_channel(bound, NEIGHBOUR, next=new.next, quiet_for=new.quiet_for)
    fresh = with_advance(fresh, is_committed=True)
    once = heard(fresh, BUYER, agreement(moments, BUYER, channel=())).state
    decision = heard(once, NEIGHBOUR, agreement(moments, NEIGHBOUR))
    assert list(commits(decision)) == [node_id_of(once, BUYER)]
    (wish,) = wishes(decision, fx.SignNext)
    assert wish.channel_id == new.channel_id


def test_a_close_that_may_be_finished_ends_a_try_even_of_those_who_are_bound(
    moments: Moments, bound: Factory
) -> None:
    """It spends what the state spends: nothing of it is signed while the close may come."""
    once = agreed_again(moments, bound)
    outpoint = channel_of(once, BUYER).present.outpoint
    close = SignedClose(close_id=bytes(32), outpoint=outpoint, balance_msat=1)
    closing = with_channel(once, BUYER, closes=(close,))
    decision = heard(closing, NEIGHBOUR, agreement(moments, NEIGHBOUR, channel=()))
    assert records(decision, ar.AdvanceSessionEnded)
    assert not records(decision, ar.AdvanceCommitted)
    assert not commits(decision)


def our_half(last: Factory, moments: Moments) -> tuple[Factory, ev.NextSigned]:
    """Return a factory that asked its signer for our half for the buyer, and the answer."""
    decision = heard(last, NEIGHBOUR, agreement(moments, NEIGHBOUR))
    (wish, _) = wishes(decision, fx.SignNext)
    event = ev.NextSigned(
        asked=wish, pubnonce=bytes(66), partial_sig=SIG, htlc_signatures=(bytes(64),)
    )
    return decision.state, event


def test_our_half_leaves_while_its_channel_waits_for_it_and_not_otherwise(
    moments: Moments, last: Factory
) -> None:
    factory, event = our_half(last, moments)

    def sent(factory: Factory) -> list[m.Message]:
        decision = of_lsp(factory, lambda turn: agreeing.on_next_signed(turn, event))
        assert not decision.records
        assert [one.node_id for one in wishes(decision, fx.Send)] in (
            [],
            [node_id_of(factory, BUYER)],
        )
        return said(decision)

    (commit,) = sent(factory)
    assert isinstance(commit, m.AdvanceCommit)
    (half,) = commit.half
    assert (half.number, half.partial_sig, half.htlc_signatures) == (
        event.asked.number,
        SIG,
        (bytes(64),),
    )
    (nonces,) = commit.channel
    assert nonces.number == channel_of(factory, BUYER).state.own_signed
    state = channel_of(factory, BUYER).state
    for late in (
        changed(factory, advances=Map()),
        with_advance(factory, session=None),
        with_advance(factory, session=replace(session_of(factory), is_committed=False)),
        with_next(factory, BUYER, is_dual=True),
        with_channel(factory, BUYER, next=None),
        with_channel(factory, BUYER, state=changed(state, is_connected=False)),
        with_channel(factory, BUYER, failure="it broke"),
    ):
        assert sent(late) == []


def test_what_cannot_be_ends_the_decision_before_anything_is_signed(
    moments: Moments, last: Factory, bound: Factory
) -> None:
    bare = with_next(last, BUYER, peer_nonces=Map())
    with pytest.raises(AssertionError, match="an agreement brought no nonce"):
        heard(bare, NEIGHBOUR, agreement(moments, NEIGHBOUR))
    gone = without_channel(agreed_again(moments, bound), BUYER)
    with pytest.raises(AssertionError, match="a client without a channel"):
        heard(gone, NEIGHBOUR, agreement(moments, NEIGHBOUR, channel=()))


# A refusal


def refused(factory: Factory) -> Decision[Factory]:
    advance = advance_of(factory)
    word = m.AdvanceAbort(
        attempt_id=factory.attempt.attempt_id, advance_id=advance.advance_id, reason="x" * 999
    )
    return of_lsp(factory, lambda turn: agreeing.on_abort(turn, advance, BUYER, word))


def test_a_refusal_ends_what_asks_or_is_about_to_and_nothing_between_two_tries(
    asked: Factory, committed: Factory
) -> None:
    about_to = with_advance(asked, session=None, is_asking=True)
    for factory, told in ((asked, [node_id_of(asked, NEIGHBOUR)]), (about_to, [])):
        decision = refused(factory)
        (dropped,) = decision.records
        assert isinstance(dropped, ar.AdvanceDropped)
        assert (dropped.is_fault, dropped.holdouts) == (False, ())
        assert dropped.culprits == (node_id_of(asked, BUYER),)
        assert [one.node_id for one in wishes(decision, fx.Send)] == told
    for over in (with_advance(committed, session=None), without_channel(committed, BUYER)):
        assert refused(over).is_nothing


def test_a_refusal_frees_the_channel_of_whoever_signed_nothing_and_of_nobody_else(
    committed: Factory,
) -> None:
    free = refused(committed)
    (declined,) = records(free, ar.AdvanceDeclined)
    assert declined.client == BUYER
    assert declined.reason == ("client 1 refused: " + "x" * 999)[: m.REASON_SIZE_MAX]
    assert not channel_of(free.state, BUYER).quiet_for
    assert records(free, ar.AdvanceSessionEnded)
    signed = refused(with_next(committed, BUYER, is_dual=True))
    assert not records(signed, ar.AdvanceDeclined), "it cannot be taken back"
    assert records(signed, ar.AdvanceSessionEnded)
    following = channel_of(signed.state, BUYER).next
    assert following is not None
    assert following.own_nonces, "what its channel signs with stays"
