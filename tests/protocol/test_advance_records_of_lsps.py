"""What each record of an advance changes at the LSP: in it, in its leaf, and in its channels."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import BUYER, NEIGHBOUR, Moments, purchase

from cromford.changed import changed
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advance_fold import (
    LspAdvances,
    with_committed_only,
    with_lsp_advance,
    without_lsp_sessions,
)
from cromford.protocol.journal.advances import (
    LspAdvance,
    Stall,
    with_stalls,
    without_session,
)
from cromford.protocol.journal.encoding import encoded_pool
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import (
    POISONS_HELD,
    SIGNED,
    STATE_HELD,
    HeldCommitment,
    NextFunding,
    OwnNonce,
)
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

OTHER: Final = b"\x07" * 32
SIGNATURE: Final = bytes(range(64))
HELD: Final = HeldCommitment(number=0, signature=SIGNATURE, htlc_signatures=())


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


def of_lsp(factory: Factory) -> LspAdvances:
    return LspAdvances(factory.advances, factory.attempt, factory.book)


@pytest.fixture(scope="module")
def asking(moments: Moments) -> LspAdvances:
    """Return an LSP whose clients are asked, and whose buyer's agreement comes next."""
    return of_lsp(moments.at(m.AdvanceAgree, moments.market.buyer).factory)


@pytest.fixture(scope="module")
def committed(moments: Moments) -> LspAdvances:
    """Return an LSP to which the buyer's signatures come."""
    return of_lsp(moments.at(m.AdvanceSign, moments.market.buyer).factory)


def advance_of(state: LspAdvances) -> LspAdvance:
    (advance,) = state.advances.values()
    return advance


def name_of(state: LspAdvances) -> str:
    (name,) = state.advances
    return name


def with_advance(state: LspAdvances, /, **changes: Any) -> LspAdvances:
    advance = replace(advance_of(state), **changes)
    return state._replace(advances=state.advances.set(name_of(state), advance))


def link_of(state: LspAdvances, client: int = BUYER) -> Link:
    return next(one for one in state.book.links.values() if one.client == client)


def with_link(state: LspAdvances, client: int = BUYER, /, **changes: Any) -> LspAdvances:
    link = changed(link_of(state, client), **changes)
    links = state.book.links.set(link.channel_id, link)
    return state._replace(book=changed(state.book, links=links))


def next_of(link: Link) -> NextFunding:
    assert link.next is not None
    return link.next


def with_next(state: LspAdvances, client: int = BUYER, /, **changes: Any) -> LspAdvances:
    following = changed(next_of(link_of(state, client)), **changes)
    return with_link(state, client, next=following)


def record(kind: type[Any], state: LspAdvances, **fields: Any) -> Any:
    attempt_id, advance_id = state.attempt.attempt_id, advance_of(state).advance_id
    return kind(**{"attempt_id": attempt_id, "advance_id": advance_id, **fields})


def test_what_is_said_of_an_advance_that_is_not_under_way_is_no_record_of_ours(
    committed: LspAdvances,
) -> None:
    ended = record(ar.AdvanceEnded, committed)
    other = replace(advance_of(committed), advance_id=OTHER)
    both = committed._replace(
        advances=Map({"another leaf": other, name_of(committed): advance_of(committed)})
    )
    assert dict(with_lsp_advance(both, ended).advances) == {"another leaf": other}
    with pytest.raises(AssertionError, match=f"advance {OTHER.hex()} is not under way"):
        with_lsp_advance(committed, record(ar.AdvanceEnded, committed, advance_id=OTHER))


def test_an_advance_that_is_proposed_makes_its_leaf_quiet_and_no_other(
    committed: LspAdvances,
) -> None:
    advance, elsewhere = advance_of(committed), 3
    outside = changed(link_of(committed), channel_id=OTHER, client=elsewhere, quiet_for=b"")
    links = committed.book.links.set(OTHER, outside)
    state = committed._replace(advances=Map(), book=changed(committed.book, links=links))
    for client in (BUYER, NEIGHBOUR):
        state = with_link(state, client, next=None, quiet_for=b"")
    proposed = record(
        ar.AdvanceProposed,
        committed,
        clients=advance.clients,
        state_index=advance.state_index,
        capacities_sat=advance.allocation.capacities_sat,
        lstock_sat=advance.allocation.lstock_sat,
        buyer=advance.buyer,
        quote_id=advance.quote_id,
        price_msat=advance.price_msat,
    )
    after = with_lsp_advance(state, proposed)
    assert advance_of(after) == LspAdvance(
        advance_id=advance.advance_id,
        clients=(BUYER, NEIGHBOUR),
        state_index=1,
        allocation=advance.allocation,
        buyer=BUYER,
        quote_id=advance.quote_id,
        price_msat=advance.price_msat,
        is_asking=True,
    )
    for client in (BUYER, NEIGHBOUR):
        assert link_of(after, client).quiet_for == advance.advance_id
    assert link_of(after, elsewhere) == outside
    dropped = with_lsp_advance(after, record(ar.AdvanceDropped, after, reason="why"))
    assert link_of(dropped, elsewhere) == outside


def test_who_agrees_has_a_next_funding_its_nonces_and_the_price_set_aside(
    moments: Moments, asking: LspAdvances
) -> None:
    agree = moments.message(m.AdvanceAgree)
    (theirs,) = agree.channel
    agreed = record(
        ar.AdvanceAgreementReceived, asking, client=BUYER, message=encode_message(agree)
    )
    after = with_lsp_advance(asking, agreed)
    session = advance_of(asking).session
    assert session is not None
    pool, link = session.channel_pools[BUYER], link_of(after)
    number = link.state.own_signed
    following = next_of(link)
    assert following.is_agreed
    assert not following.is_dual
    assert dict(following.peer_nonces) == {
        theirs.number: theirs.pubnonce,
        theirs.number + 1: theirs.following_pubnonce,
    }
    assert dict(following.own_nonces) == {
        number + place: OwnNonce(pool_id=pool.pool_id, index=place, pubnonce=pool.pubnonces[place])
        for place in (0, 1)
    }
    assert following.session_pool == pool.pool_id
    assert following.price_msat == link.state.reserved_msat == moments.quote.price_msat
    assert following.funding.capacity_sat == moments.quote.capacity_sat
    assert link_of(after, NEIGHBOUR) == link_of(asking, NEIGHBOUR)
    assert advance_of(after).holdouts == (NEIGHBOUR,)
    again = with_lsp_advance(with_next(after, own=HELD, stage=SIGNED), agreed)
    assert (next_of(link_of(again)).own, next_of(link_of(again)).stage) == (HELD, SIGNED)
    with pytest.raises(AssertionError, match="nobody was asked"):
        with_lsp_advance(with_advance(asking, session=None), agreed)
    signed_before = replace(agree, channel=())
    of_the_leaf_alone = record(
        ar.AdvanceAgreementReceived, asking, client=BUYER, message=encode_message(signed_before)
    )
    assert with_lsp_advance(asking, of_the_leaf_alone).book == asking.book


def test_whose_half_has_come_is_signed_for_both_and_need_not_be_quiet(
    moments: Moments, committed: LspAdvances
) -> None:
    sign = moments.message(m.AdvanceSign)

    def after(message: m.AdvanceSign, state: LspAdvances = committed) -> LspAdvances:
        received = record(
            ar.AdvancePartialsReceived, state, client=BUYER, message=encode_message(message)
        )
        return with_lsp_advance(state, received)

    both = after(sign)
    assert next_of(link_of(both)).is_dual
    assert link_of(both).quiet_for == b""
    assert advance_of(both).holdouts == (NEIGHBOUR,)
    again = after(replace(sign, half=()))
    assert again.book == committed.book, "its half was here before"
    assert advance_of(again).holdouts == (NEIGHBOUR,)
    late = after(replace(sign, partials=()))
    assert advance_of(late).holdouts == (BUYER, NEIGHBOUR), "it signs anew with fresh nonces"
    assert next_of(link_of(late)).is_dual
    session = advance_of(committed).session
    assert session is not None
    for stale in (None, replace(session, is_committed=False)):
        state = with_advance(committed, session=stale)
        assert advance_of(after(sign, state)) == advance_of(state), "its nonces are gone"
    assert after(sign, with_link(committed, next=None)).book == (
        with_link(committed, next=None).book
    )


def test_who_signs_nothing_goes_on_alone_and_has_said_so(committed: LspAdvances) -> None:
    declined = record(ar.AdvanceDeclined, committed, client=BUYER, reason="not now")
    after = with_lsp_advance(committed, declined)
    link = link_of(after)
    assert (link.quiet_for, link.state.reserved_msat) == (b"", 0)
    following = next_of(link)
    assert following == changed(
        next_of(link_of(committed)),
        is_agreed=False,
        own_nonces=Map(),
        peer_nonces=Map(),
        session_pool=b"",
        peer_stage=0,
    )
    none = with_link(committed, next=None)
    assert link_of(with_lsp_advance(none, declined)).next is None


def test_a_further_try_makes_those_quiet_who_are_on_one_funding_alone(
    committed: LspAdvances,
) -> None:
    state = with_link(with_link(committed, quiet_for=b""), NEIGHBOUR, quiet_for=b"")
    state = with_next(state, NEIGHBOUR, is_dual=True)
    session = advance_of(state).session
    assert session is not None
    pools = record(
        ar.AdvancePoolsMade,
        state,
        factory_pool=encoded_pool(session.factory_pool),
        channel_pools=tuple(
            encoded_pool(session.channel_pools[client]) for client in (BUYER, NEIGHBOUR)
        ),
    )
    for one in (record(ar.AdvanceResumed, state), pools):
        after = with_lsp_advance(state, one)
        assert link_of(after).quiet_for == advance_of(state).advance_id
        assert link_of(after, NEIGHBOUR).quiet_for == b""
    asked = advance_of(with_lsp_advance(with_advance(state, is_asking=True), pools))
    assert not asked.is_asking
    assert asked.session is not None
    assert asked.session.pool_ids == session.pool_ids
    assert asked.holdouts == (BUYER, NEIGHBOUR)
    assert advance_of(with_lsp_advance(state, record(ar.AdvanceResumed, state))).is_asking


def test_with_a_try_end_its_nonces_and_what_nobody_got_our_half_of(
    committed: LspAdvances,
) -> None:
    """Whoever got our half may sign with it still, in this connection."""
    ended = record(ar.AdvanceSessionEnded, committed)
    session = advance_of(committed).session
    assert session is not None
    assert session.is_committed
    after = with_lsp_advance(committed, ended)
    assert advance_of(after).session is None
    for client in (BUYER, NEIGHBOUR):
        assert link_of(after, client) == link_of(
            with_next(committed, client, session_pool=b""), client
        )
    for uncommitted in (None, replace(session, is_committed=False)):
        again = with_next(with_advance(committed, session=uncommitted), NEIGHBOUR, is_dual=True)
        after = with_lsp_advance(again, ended)
        let_go = link_of(after)
        assert (let_go.quiet_for, let_go.state.reserved_msat) == (b"", 0)
        assert not next_of(let_go).is_agreed
        assert not next_of(let_go).own_nonces
        stays = link_of(after, NEIGHBOUR)
        assert stays.quiet_for == link_of(again, NEIGHBOUR).quiet_for
        assert next_of(stays) == changed(next_of(link_of(again, NEIGHBOUR)), session_pool=b"")
    none = with_link(with_advance(committed, session=None), next=None)
    gone = link_of(with_lsp_advance(none, ended))
    assert (gone.next, gone.quiet_for, gone.state.reserved_msat) == (None, b"", 0)
    asking = with_advance(committed, session=None, is_asking=True)
    assert not advance_of(with_lsp_advance(asking, ended)).is_asking


def test_what_comes_to_nothing_leaves_nothing_in_any_channel(committed: LspAdvances) -> None:
    after = with_lsp_advance(committed, record(ar.AdvanceDropped, committed, reason="why"))
    assert not after.advances
    for client in (BUYER, NEIGHBOUR):
        link = link_of(after, client)
        assert (link.next, link.quiet_for, link.state.reserved_msat) == (None, b"", 0)


def test_a_state_is_in_its_leaf_once_and_its_poisons_with_it(committed: LspAdvances) -> None:
    signed = record(ar.StateSigned, committed, signature=SIGNATURE)
    once = with_lsp_advance(committed, signed)
    name = name_of(committed)
    (known,) = once.attempt.leaves[name]
    assert (known.advance_id, known.signature) == (advance_of(committed).advance_id, SIGNATURE)
    assert known.allocation == advance_of(committed).allocation
    assert advance_of(once).is_signed
    twice = with_lsp_advance(once, signed)
    assert twice.attempt.leaves == once.attempt.leaves
    later = replace(known, advance_id=OTHER)
    leaves = once.attempt.leaves.set(name, (later,))
    other = committed._replace(attempt=replace(committed.attempt, leaves=leaves))
    assert len(with_lsp_advance(other, signed).attempt.leaves[name]) == 2
    assert {next_of(link_of(once, one)).stage for one in (BUYER, NEIGHBOUR)} == {STATE_HELD}
    poisons = record(
        ar.PoisonHeld,
        committed,
        stock_signature=SIGNATURE,
        clients=(BUYER, NEIGHBOUR),
        channel_signatures=(bytes(64), SIGNATURE),
    )
    held = with_lsp_advance(once, poisons)
    (whole,) = held.attempt.leaves[name]
    assert whole.poisons is not None
    assert whole.poisons.stock == SIGNATURE
    assert dict(whole.poisons.channels) == {BUYER: bytes(64), NEIGHBOUR: SIGNATURE}
    assert advance_of(held).has_poisons
    assert advance_of(held).session is None
    for client in (BUYER, NEIGHBOUR):
        following = next_of(link_of(held, client))
        assert (following.stage, following.session_pool) == (POISONS_HELD, b"")
    none = with_link(once, next=None)
    assert link_of(with_lsp_advance(none, signed)).next is None


def test_how_far_we_are_is_never_taken_back(committed: LspAdvances) -> None:
    far = with_next(committed, stage=POISONS_HELD)
    for one in (
        record(ar.AdvanceCommitted, far),
        record(ar.StateSigned, far, signature=SIGNATURE),
    ):
        after = with_lsp_advance(far, one)
        assert next_of(link_of(after)).stage == POISONS_HELD
    start = with_next(committed, stage=0)
    after = with_lsp_advance(start, record(ar.AdvanceCommitted, start))
    assert next_of(link_of(after)).stage == SIGNED
    assert advance_of(after).is_committed
    session = advance_of(committed).session
    assert session is not None
    fresh = with_advance(
        committed, is_committed=False, session=replace(session, is_committed=False)
    )
    begun = advance_of(with_lsp_advance(fresh, record(ar.AdvanceCommitted, fresh)))
    assert begun == advance_of(committed)
    assert begun.is_committed
    sold = record(
        ar.LiquiditySold,
        committed,
        channel_id=link_of(committed).channel_id,
        client=BUYER,
        height=1,
        amount_sat=1,
        capacity_sat=1,
        price_msat=1,
    )
    assert with_lsp_advance(committed, sold) == with_advance(committed, is_sold=True)


def test_who_holds_the_poisons_may_be_rebased(committed: LspAdvances) -> None:
    acknowledged = record(ar.AdvanceAcknowledged, committed, client=BUYER)
    after = with_lsp_advance(committed, acknowledged)
    assert next_of(link_of(after)).may_rebase
    assert not next_of(link_of(after, NEIGHBOUR)).may_rebase
    assert advance_of(after).acknowledged == {BUYER}
    none = with_link(committed, next=None)
    assert link_of(with_lsp_advance(none, acknowledged)).next is None


def test_what_bound_nobody_is_gone_after_a_restore_and_every_nonce_after_a_start(
    committed: LspAdvances,
) -> None:
    advance = advance_of(committed)
    both = Map({"one": advance, "two": replace(advance, is_committed=False)})
    assert dict(with_committed_only(both)) == {"one": advance}
    started = without_lsp_sessions(both)
    assert {one.session for one in started.values()} == {None}
    assert without_session(replace(advance, is_asking=True)) == replace(advance, session=None)


def test_the_present_step_waits_for_who_has_not_done_it(
    moments: Moments, committed: LspAdvances
) -> None:
    advance, sign = advance_of(committed), moments.message(m.AdvanceSign)
    session = advance.session
    assert session is not None
    assert session.pool_ids == (
        session.factory_pool.pool_id,
        session.channel_pools[BUYER].pool_id,
        session.channel_pools[NEIGHBOUR].pool_id,
    )
    assert set(session.agreed) == {BUYER, NEIGHBOUR}
    assert replace(advance, session=None).holdouts == ()
    assert replace(advance, session=replace(session, signed=Map({BUYER: sign}))).holdouts == (
        NEIGHBOUR,
    )
    early = replace(session, is_committed=False, agreed=session.agreed.delete(NEIGHBOUR))
    assert replace(advance, session=early).holdouts == (NEIGHBOUR,)
    assert advance.price_of(BUYER) == advance.price_msat
    assert advance.price_of(NEIGHBOUR) == 0
    assert replace(advance, payment_hash=OTHER).price_of(BUYER) == 0


def test_whoever_lets_deadlines_pass_is_counted_until_it_comes_to_the_end(
    committed: LspAdvances,
) -> None:
    dropped = record(
        ar.AdvanceDropped, committed, reason="late", holdouts=(BUYER, NEIGHBOUR), height=7
    )
    late = record(ar.AdvanceSessionEnded, committed, holdouts=(BUYER,), height=9)
    once = with_stalls(Map(), dropped)
    assert dict(once) == dict.fromkeys((BUYER, NEIGHBOUR), Stall(n_missed=1, height=7))
    twice = with_stalls(once, late)
    assert twice[BUYER] == Stall(n_missed=2, height=9)
    done = record(ar.AdvanceAcknowledged, committed, client=BUYER)
    assert dict(with_stalls(twice, done)) == {NEIGHBOUR: Stall(n_missed=1, height=7)}
    assert with_stalls(Map(), done) == Map()
    assert with_stalls(twice, record(ar.AdvanceCommitted, committed)) is twice
