"""What each record of an advance changes at a client: in it, in its leaf, and in its channel."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advance_moments import BUYER, Moments, purchase

from cromford.changed import changed
from cromford.factory.leaf import Leaf
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advance_fold import (
    ClientAdvances,
    next_funding_of,
    next_step_of,
    with_client_advance,
)
from cromford.protocol.journal.advances import (
    without_nonces,
)
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.encoding import encoded_pool
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import (
    POISONS_HELD,
    SIGNED,
    STATE_HELD,
    NextFunding,
    OwnNonce,
)
from cromford.wire import messages as m
from cromford.wire.messages import encode_message
from cromford.wire.seldom import LeafState
from cromford.wire.selling import AllocatedChannel

OTHER: Final = b"\x07" * 32
SIGNATURE: Final = bytes(range(64))


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


def next_of(link: Link) -> NextFunding:
    assert link.next is not None
    return link.next


def of_client(state: ClientState) -> ClientAdvances:
    ((attempt_id, advance),) = state.advances.items()
    return ClientAdvances(advance, state.attempts[attempt_id], state.book)


@pytest.fixture(scope="module")
def proposed(moments: Moments) -> ClientAdvances:
    """Return a buyer that agreed, as it was before it did."""
    agreed = of_client(moments.at(m.AdvanceAgree, moments.market.buyer).buyer)
    assert agreed.advance is not None
    link = own_link(agreed)
    before = changed(link, next=None, state=changed(link.state, reserved_msat=0))
    book = changed(agreed.book, links=agreed.book.links.set(link.channel_id, before))
    return agreed._replace(advance=replace(agreed.advance, is_agreed=False), book=book)


@pytest.fixture(scope="module")
def agreed(moments: Moments) -> ClientAdvances:
    return of_client(moments.at(m.AdvanceCommit, moments.market.buyer).buyer)


@pytest.fixture(scope="module")
def signed(moments: Moments) -> ClientAdvances:
    return of_client(moments.at(m.AdvanceDone, moments.market.buyer).buyer)


def own_link(state: ClientAdvances) -> Link:
    (link,) = state.book.links.values()
    return link


def with_own_link(state: ClientAdvances, /, **changes: Any) -> ClientAdvances:
    link = changed(own_link(state), **changes)
    links = state.book.links.set(link.channel_id, link)
    return state._replace(book=changed(state.book, links=links))


def own_record(kind: type[Any], state: ClientAdvances, **fields: Any) -> Any:
    assert state.advance is not None
    attempt_id, advance_id = state.attempt.attempt_id, state.advance.advance_id
    return kind(**{"attempt_id": attempt_id, "advance_id": advance_id, **fields})


def test_a_client_has_one_advance_and_no_record_is_of_another(agreed: ClientAdvances) -> None:
    sent = own_record(ar.AdvanceSent, agreed)
    other = own_record(ar.AdvanceSent, agreed, advance_id=OTHER)
    for state, one in ((agreed, other), (agreed._replace(advance=None), sent)):
        with pytest.raises(AssertionError, match="is not under way"):
            with_client_advance(state, one)
    receipt = own_record(
        ar.LiquidityBought,
        agreed,
        channel_id=own_link(agreed).channel_id,
        height=1,
        amount_sat=1,
        capacity_sat=1,
        price_msat=1,
    )
    assert with_client_advance(agreed, receipt) == agreed


def test_what_is_asked_of_us_makes_our_channel_quiet_and_has_nonces_of_each_connection(
    proposed: ClientAdvances,
) -> None:
    advance = proposed.advance
    assert advance is not None
    assert advance.factory_pool is not None
    assert advance.channel_pool is not None
    asked = own_record(
        ar.AdvanceReceived,
        proposed,
        channel_id=advance.channel_id,
        state_index=1,
        capacities_sat=advance.allocation.capacities_sat,
        lstock_sat=advance.allocation.lstock_sat,
        quote_id=advance.quote_id,
        price_msat=advance.price_msat,
    )
    before = with_own_link(proposed, quiet_for=b"")._replace(advance=None)
    after = with_client_advance(before, asked)
    assert own_link(after).quiet_for == advance.advance_id
    assert after.advance == replace(
        advance, factory_pool=None, channel_pool=None, is_agreed=False, session=b""
    )
    pools = own_record(
        ar.AdvancePoolsMade,
        proposed,
        factory_pool=encoded_pool(advance.factory_pool),
        channel_pools=(encoded_pool(advance.channel_pool),),
        session=advance.session,
    )
    assert with_client_advance(after, pools).advance == advance
    again = proposed._replace(advance=replace(advance, is_agreed=True))
    assert with_client_advance(again, pools).advance == advance, "what was agreed to was another"


def test_who_agrees_sets_the_price_aside_and_says_its_nonces(
    moments: Moments, proposed: ClientAdvances
) -> None:
    advance = proposed.advance
    assert advance is not None
    pool = advance.channel_pool
    assert pool is not None
    record = own_record(ar.AdvanceAgreed, proposed)
    after = with_client_advance(proposed, record)
    link = own_link(after)
    following, number = next_of(link), link.state.own_signed
    assert following.is_agreed
    assert dict(following.own_nonces) == {
        number + place: OwnNonce(pool_id=pool.pool_id, index=place, pubnonce=pool.pubnonces[place])
        for place in (0, 1)
    }
    assert following.funding.capacity_sat == moments.quote.capacity_sat
    assert following.price_msat == link.state.reserved_msat == moments.quote.price_msat
    assert after.advance == replace(advance, is_agreed=True)
    signed_before = proposed._replace(advance=replace(advance, is_signed=True))
    assert with_client_advance(signed_before, record).book == proposed.book
    without = proposed._replace(advance=replace(advance, channel_pool=None))
    with pytest.raises(AssertionError, match="a client agreed without nonces"):
        with_client_advance(without, record)


def test_who_signs_is_bound_to_both_and_leaves_nothing_unsaid_until_it_is_sent(
    moments: Moments, agreed: ClientAdvances
) -> None:
    commit = moments.message(m.AdvanceCommit)
    (theirs,) = commit.channel
    record = own_record(ar.AdvanceSigned, agreed, intents=(), message=encode_message(commit))
    after = with_client_advance(agreed, record)
    following = next_of(own_link(after))
    assert (following.is_dual, following.is_leaving, following.stage) == (True, True, SIGNED)
    assert dict(following.peer_nonces) == {
        theirs.number: theirs.pubnonce,
        theirs.number + 1: theirs.following_pubnonce,
    }
    assert own_link(after).is_still
    assert after.advance is not None
    assert (after.advance.is_signed, after.advance.is_leaving) == (True, True)
    with pytest.raises(AssertionError, match="never agreed to"):
        with_client_advance(with_own_link(agreed, next=None), record)
    sent = own_record(ar.AdvanceSent, agreed)
    left = with_client_advance(after, sent)
    assert next_of(own_link(left)) == changed(following, is_leaving=False)
    assert own_link(left).quiet_for == b""
    assert left.advance == replace(after.advance, is_leaving=False)
    gone = with_client_advance(with_own_link(after, next=None), sent)
    assert own_link(gone).next is None
    assert without_nonces(after.advance) == replace(
        after.advance, factory_pool=None, channel_pool=None, is_agreed=False, is_leaving=False
    )
    assert agreed.advance is not None
    assert without_nonces(agreed.advance) is None


def test_a_client_holds_a_state_once_and_may_be_rebased_with_its_poisons(
    signed: ClientAdvances,
) -> None:
    assert signed.advance is not None
    record = own_record(ar.StateSigned, signed, signature=SIGNATURE)
    once = with_client_advance(signed, record)
    (known,) = once.attempt.leaf_states
    assert (known.advance_id, known.signature) == (signed.advance.advance_id, SIGNATURE)
    assert next_of(own_link(once)).stage == STATE_HELD
    assert with_client_advance(once, record).attempt.leaf_states == (known,)
    other = replace(known, advance_id=OTHER)
    two = signed._replace(attempt=replace(signed.attempt, leaf_states=(other,)))
    assert len(with_client_advance(two, record).attempt.leaf_states) == 2
    poisons = own_record(
        ar.PoisonHeld,
        signed,
        stock_signature=SIGNATURE,
        clients=(BUYER,),
        channel_signatures=(bytes(64),),
    )
    held = with_client_advance(once, poisons)
    following = next_of(own_link(held))
    assert (following.stage, following.may_rebase) == (POISONS_HELD, True)
    gone = with_client_advance(with_own_link(once, next=None), poisons)
    assert own_link(gone).next is None
    (whole,) = gone.attempt.leaf_states
    assert whole.poisons is not None


def test_what_a_restored_store_is_told_is_added_and_it_waits_no_longer(
    moments: Moments, agreed: ClientAdvances
) -> None:
    attempt = replace(agreed.attempt, awaits_states=True)
    state = agreed._replace(attempt=attempt)
    leaf = attempt.leaf
    (sold,) = moments.market.pump.held(moments.market.buyer).leaf_states
    told = LeafState(
        channels=tuple(
            AllocatedChannel(capacity_sat=one) for one in sold.allocation.capacities_sat
        ),
        lstock_sat=sold.allocation.lstock_sat,
        signature=SIGNATURE,
        stock_poison=b"",
        channel_poison=b"",
    )
    word = m.LeafStates(attempt_id=attempt.attempt_id, states=(told,))
    name = attempt.attempt_id
    nothing = with_client_advance(state, ar.LeafStatesTold(attempt_id=name, message=b""))
    assert nothing.attempt == replace(attempt, awaits_states=False)
    heard = ar.LeafStatesTold(attempt_id=name, message=encode_message(word))
    after = with_client_advance(state, heard).attempt
    assert not after.awaits_states
    assert after.leaf.states == leaf.advanced(sold.allocation).states


def test_a_channels_place_in_the_next_state_is_the_same_before_and_after_it_is_signed(
    agreed: ClientAdvances,
) -> None:
    assert agreed.advance is not None
    allocation, link = agreed.advance.allocation, own_link(agreed)
    before: Leaf = agreed.attempt.leaf
    for leaf in (before, before.advanced(allocation)):
        assert next_funding_of(leaf, allocation, link) == next_of(link).funding
        assert next_step_of(leaf, allocation) == next_of(link).step
