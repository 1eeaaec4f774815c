"""An advance step by step, as both sides remember it: what is held when, and what ends when."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace as said_otherwise
from tests.protocol.advances import PRICE_MSAT, STEPS, advancing_factory, buy, market, remembered
from tests.protocol.pump import PumpNode

from cromford.changed import changed
from cromford.channel.stage import Edition
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import records as r
from cromford.protocol.journal.advance_fold import is_to_be_quiet
from cromford.protocol.journal.advances import LspAdvance, Stall
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.client_state import apply as apply_to_client
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import UNSAID, NextFunding
from cromford.protocol.journal.purchases import OwnPurchase
from cromford.wire import messages as m

LAST = (cr.UpdateProposed, cr.CommitmentIntended)
BUYER, NEIGHBOUR, STRANGER = 1, 2, 3  # The buyer's neighbour in its leaf, and one in another.
END = "the end"


@dataclass(frozen=True)
class Moment:
    """Both sides while one message is on its way; `clients` by seat."""

    factory: Factory
    clients: dict[int, ClientState]

    @property
    def advance(self) -> LspAdvance:
        (advance,) = self.factory.advances.values()
        return advance

    def lsp(self, seat: int) -> Link:
        (link,) = [one for one in self.factory.book.links.values() if one.client == seat]
        return link

    def client(self, seat: int) -> Link:
        (link,) = self.clients[seat].book.links.values()
        return link


@cache
def life() -> tuple[dict[str, Moment], list[Any], dict[int, list[Any]]]:
    """Return an advance by the messages that are next, and what all remember of it."""
    pump = advancing_factory(3)
    nodes: dict[int, PumpNode] = {seat: pump.client_at(seat) for seat in (1, 2, 3)}
    moments: dict[str, Moment] = {}

    def note(name: str) -> None:
        states = {seat: node.state for seat, node in nodes.items()}
        moments[name] = Moment(pump.factory, states)

    with market():
        buy(pump, BUYER)
        for step in STEPS:
            pump.run_to(step)
            note(step.__name__)
        pump.run()
        note(END)
    kinds: Any = ar.SharedAdvanceRecord | ar.LspAdvanceRecord | ar.ClientAdvanceRecord
    kinds |= ar.NextCommitmentIntended | ar.NextCommitmentHeld
    kinds |= cr.CommitmentIntended | cr.UpdateProposed
    by_client = {seat: remembered(node, kinds) for seat, node in nodes.items()}
    return moments, remembered(pump.lsp, kinds), by_client


def at(step: type[m.Message] | str) -> Moment:
    return life()[0][step if isinstance(step, str) else step.__name__]


def said(of: type[Any], seat: int | None = None) -> Any:
    """Return the one record of a kind that the LSP remembers, of a client if it names one."""
    found = [one for one in life()[1] if isinstance(one, of)]
    (one,) = [one for one in found if seat is None or one.client == seat]
    return one


def own(of: type[Any], seat: int = BUYER) -> Any:
    """Return the one record of a kind that a client remembers."""
    (one,) = [one for one in life()[2][seat] if isinstance(one, of)]
    return one


def next_of(link: Link) -> NextFunding:
    assert link.next is not None
    return link.next


def only_attempt(state: ClientState) -> ClientAttempt:
    (attempt,) = state.attempts.values()
    return attempt


# The steps


@pytest.mark.parametrize("seat", [BUYER, NEIGHBOUR])
def test_a_channel_is_quiet_from_the_question_until_what_the_client_signed_left(seat: int) -> None:
    advance_id = at(m.AdvancePropose).advance.advance_id
    quiet: dict[Any, tuple[bytes, bytes]] = {
        m.AdvancePropose: (b"", advance_id),
        m.AdvanceAgree: (advance_id, advance_id),
        m.AdvanceCommit: (advance_id, advance_id),
        m.AdvanceSign: (b"", advance_id),
        m.AdvanceDone: (b"", b""),
        m.AdvanceHeld: (b"", b""),
        m.UpdateRebase: (b"", b""),
        END: (b"", b""),
    }
    for step, both in quiet.items():
        assert (at(step).client(seat).quiet_for, at(step).lsp(seat).quiet_for) == both, step


@pytest.mark.parametrize("seat", [BUYER, NEIGHBOUR])
def test_both_sides_know_how_far_each_channel_is(seat: int) -> None:
    """Stage, whether both fundings carry what it says, and whether it may be rebased."""
    told: dict[type[m.Message], tuple[Any, Any]] = {
        m.AdvancePropose: (None, None),
        m.AdvanceAgree: ((0, False, False), None),
        m.AdvanceCommit: ((0, False, False), (1, False, False)),
        m.AdvanceSign: ((1, True, False), (1, False, False)),
        m.AdvanceDone: ((1, True, False), (3, True, False)),
        m.AdvanceHeld: ((3, True, True), (3, True, False)),
        m.UpdateRebase: ((3, True, True), (3, True, True)),
    }
    for step, both in told.items():
        for link, expected in zip((at(step).client(seat), at(step).lsp(seat)), both, strict=True):
            found = link.next and (link.next.stage, link.next.is_dual, link.next.may_rebase)
            assert found == expected, step
            assert link.next is None or link.next.is_agreed
            assert link.next is None or link.next.peer_stage == UNSAID
            assert link.next is None or not link.next.is_leaving
            assert is_to_be_quiet(link) == (link.next is None or not link.next.is_dual)


def test_the_price_is_set_aside_in_the_buyers_channel_alone_until_it_is_paid() -> None:
    for step in (m.AdvanceCommit, m.AdvanceSign, m.AdvanceDone, m.AdvanceHeld, m.UpdateRebase):
        moment = at(step)
        for link in (moment.client(BUYER), moment.lsp(BUYER)):
            assert (link.state.reserved_msat, next_of(link).price_msat) == (PRICE_MSAT,) * 2
        for link in (moment.client(NEIGHBOUR), moment.lsp(NEIGHBOUR)):
            assert (link.state.reserved_msat, next_of(link).price_msat) == (0, 0)
    for link in (at(END).client(BUYER), at(END).lsp(BUYER)):
        assert link.state.reserved_msat == 0
    advance = at(m.AdvancePropose).advance
    assert [advance.price_of(seat) for seat in (BUYER, NEIGHBOUR)] == [PRICE_MSAT, 0]
    assert replace(advance, payment_hash=b"h").price_of(BUYER) == 0, "a payment pays"


@pytest.mark.parametrize("seat", [BUYER, NEIGHBOUR])
def test_nonces_are_there_for_the_latest_commitment_and_the_next_on_both_sides(seat: int) -> None:
    for step in (m.AdvanceSign, m.AdvanceDone, m.AdvanceHeld):
        client, lsp = at(step).client(seat), at(step).lsp(seat)
        latest = client.state.own_signed
        numbers = {latest: 0, latest + 1: 1}
        for link, other in ((client, lsp), (lsp, client)):
            nonces = next_of(link).own_nonces
            assert {n: one.index for n, one in nonces.items()} == numbers
            assert next_of(other).peer_nonces == Map({n: one.pubnonce for n, one in nonces.items()})


@pytest.mark.parametrize("seat", [BUYER, NEIGHBOUR])
def test_the_next_funding_is_where_the_newest_state_pays_the_channel(seat: int) -> None:
    before, after = at(m.AdvanceDone), at(END)
    funding = after.client(seat).present
    assert funding == after.lsp(seat).present
    for link in (before.client(seat), before.lsp(seat)):
        assert next_of(link).funding == funding
        step = next_of(link).step
        assert step is not None
        assert step.txid == funding.outpoint.txid
        assert step.outpoint == link.path[-1].outpoint
        assert step.delay_blocks < link.path[-1].delay_blocks
    for link, old in (
        (after.client(seat), before.client(seat)),
        (after.lsp(seat), before.lsp(seat)),
    ):
        assert link.path == (*old.path[:-1], next_of(old).step)
        assert link.superseded == (old.present,)
        assert (link.fullest, link.fullest_superseded) == (next_of(old).fullest, (old.fullest,))
        assert link.state.own_signed == old.state.own_signed + 1
        assert link.next is None
        assert link.fundings_of(link.state.content(link.me, Edition.SIGNED)) == (funding,)


def test_an_lsp_waits_for_agreements_then_for_signatures_then_for_nobody() -> None:
    steps = {
        m.AdvancePropose: ((False, False, False), (1, 2)),
        m.AdvanceCommit: ((True, False, False), (1, 2)),
        m.AdvanceDone: ((True, True, True), ()),
        m.UpdateRebase: ((True, True, True), ()),
    }
    for step, (how_far, holdouts) in steps.items():
        advance = at(step).advance
        assert (advance.is_committed, advance.is_signed, advance.has_poisons) == how_far, step
        assert advance.holdouts == holdouts, step
        assert not advance.is_asking, step
        assert not advance.is_sold, step
    assert at(m.AdvanceHeld).advance.acknowledged == frozenset()
    assert at(m.UpdateRebase).advance.acknowledged == {1, 2}
    assert not at(END).factory.advances
    session = at(m.AdvanceCommit).advance.session
    assert session is not None
    assert session.is_committed
    assert len(set(session.pool_ids)) == 3, "of the factory key, and of each channel"
    asked = at(m.AdvancePropose).advance.session
    assert asked is not None
    assert not asked.is_committed
    assert session.name == asked.name


def test_a_neighbour_in_another_leaf_hears_and_waits_for_nothing() -> None:
    links = [at(step).lsp(STRANGER) for step in (*STEPS, END)]
    assert all((one.next, one.quiet_for) == (None, b"") for one in links)
    assert not any(at(step).clients[STRANGER].advances for step in (*STEPS, END))


def test_the_state_is_kept_once_with_its_poisons_on_both_sides() -> None:
    before, after = at(m.AdvanceSign), at(END)
    attempt = after.factory.attempt
    (state,) = attempt.leaves[attempt.leaf_name(BUYER)]
    assert not before.factory.attempt.leaves
    advance_id = at(m.AdvanceSign).advance.advance_id
    assert state.advance_id == advance_id
    assert state.allocation == at(m.AdvanceSign).advance.allocation
    assert state.poisons is not None
    assert set(state.poisons.channels) == {1, 2}
    for seat in (BUYER, NEIGHBOUR):
        (kept,) = only_attempt(after.clients[seat]).leaf_states
        assert (kept.advance_id, kept.signature) == (advance_id, state.signature)
        assert kept.poisons is not None
        assert [*kept.poisons.channels] == [seat], "its own, and no other"
        assert not only_attempt(before.clients[seat]).leaf_states
    signed, held = said(ar.StateSigned), said(ar.PoisonHeld)
    again = apply_to_factory(apply_to_factory(at(m.AdvanceDone).factory, signed), held)
    assert again.attempt.leaves == attempt.leaves, "what is told once more counts once"
    client = at(m.AdvanceHeld).clients[BUYER]
    twice = apply_to_client(client, own(ar.StateSigned))
    assert only_attempt(twice) == only_attempt(client)


# What ends before its end


def with_lsp(moment: Moment, *records: Any) -> Moment:
    factory = moment.factory
    for record in records:
        factory = apply_to_factory(factory, record)
    return replace(moment, factory=factory)


def named(**more: Any) -> dict[str, Any]:
    proposed = said(ar.AdvanceProposed)
    return {"attempt_id": proposed.attempt_id, "advance_id": proposed.advance_id, **more}


@pytest.mark.parametrize("step", [m.AdvancePropose, m.AdvanceCommit])
def test_an_advance_that_is_dropped_leaves_nothing_in_any_channel(step: type[m.Message]) -> None:
    before = at(step)
    over = with_lsp(before, ar.AdvanceDropped(reason="why", holdouts=(2,), height=9, **named()))
    assert not over.factory.advances
    for seat in (BUYER, NEIGHBOUR):
        link = over.lsp(seat)
        assert (link.next, link.quiet_for, link.state.reserved_msat) == (None, b"", 0)
    assert over.lsp(STRANGER) == before.lsp(STRANGER)
    assert over.factory.stalls == Map({2: Stall(n_missed=1, height=9)})
    height = before.factory.chain.height
    assert over.factory.quoted.asked_at(BUYER, height) >= 16, "it counts as many questions"
    client = before.clients[BUYER]
    if client.advances:
        dropped = apply_to_client(client, ar.AdvanceDropped(reason="why", **named()))
        (link,) = dropped.book.links.values()
        assert (link.next, link.quiet_for, link.state.reserved_msat) == (None, b"", 0)
        assert not dropped.advances


def test_deadlines_that_a_client_lets_pass_in_a_row_are_counted_until_it_comes_to_the_end() -> None:
    ended = [
        ar.AdvanceSessionEnded(holdouts=holdouts, height=height, **named())
        for holdouts, height in (((1,), 5), ((1, 2), 7))
    ]
    after = with_lsp(at(m.AdvanceDone), *ended)
    assert after.factory.stalls == Map(
        {1: Stall(n_missed=2, height=7), 2: Stall(n_missed=1, height=7)}
    )
    done = with_lsp(after, ar.AdvanceAcknowledged(client=1, **named()))
    assert done.factory.stalls == Map({2: Stall(n_missed=1, height=7)})
    assert with_lsp(done, ar.AdvanceAcknowledged(client=1, **named())).factory.stalls == (
        done.factory.stalls
    )


def test_nonces_that_are_gone_free_who_got_no_half_of_ours_and_nobody_else() -> None:
    """Whoever got our half may sign with it still: its channel stays as it is."""
    ended = ar.AdvanceSessionEnded(**named())
    asked = with_lsp(at(m.AdvancePropose), ended)
    assert (asked.advance.session, asked.advance.is_asking) == (None, False)
    assert [asked.lsp(seat).quiet_for for seat in (1, 2)] == [b"", b""]
    agreeing = with_lsp(at(m.AdvancePropose), said(ar.AdvanceAgreementReceived, BUYER), ended).lsp(
        BUYER
    )
    let_go = next_of(agreeing)
    assert (agreeing.quiet_for, agreeing.state.reserved_msat) == (b"", 0)
    assert (let_go.is_agreed, let_go.own_nonces, let_go.peer_nonces) == (False, Map(), Map())
    assert let_go.session_pool == b""
    committed = at(m.AdvanceCommit)
    after = with_lsp(committed, ended)
    for seat in (BUYER, NEIGHBOUR):
        before = committed.lsp(seat)
        assert next_of(before).session_pool
        assert after.lsp(seat) == changed(before, next=changed(next_of(before), session_pool=b""))
    signed = with_lsp(committed, said(ar.AdvancePartialsReceived, BUYER), ended)
    assert signed.lsp(BUYER).quiet_for == b"", "it signed, so it carries both"
    assert next_of(signed.lsp(BUYER)).is_dual
    assert next_of(signed.lsp(BUYER)).own_nonces
    once_more = with_lsp(after, ended)
    assert once_more.advance == after.advance


def test_a_client_that_signs_nothing_goes_on_and_says_so_for_its_channel_alone() -> None:
    declined = ar.AdvanceDeclined(client=NEIGHBOUR, reason="why", **named())
    committed = at(m.AdvanceCommit)
    after = with_lsp(committed, declined)
    link = after.lsp(NEIGHBOUR)
    assert (link.quiet_for, link.state.reserved_msat) == (b"", 0)
    assert (next_of(link).is_agreed, next_of(link).peer_stage) == (False, 0)
    assert after.lsp(BUYER) == committed.lsp(BUYER)
    early = with_lsp(at(m.AdvancePropose), declined).lsp(NEIGHBOUR)
    assert (early.quiet_for, early.next) == (b"", None)


def test_who_comes_back_is_asked_again_where_its_channel_carries_only_one_funding() -> None:
    resumed = ar.AdvanceResumed(**named())
    ended = ar.AdvanceSessionEnded(**named())
    committed = with_lsp(at(m.AdvanceCommit), said(ar.AdvancePartialsReceived, BUYER), ended)
    after = with_lsp(committed, resumed)
    assert after.advance.is_asking
    assert after.lsp(BUYER).quiet_for == b""
    assert after.lsp(NEIGHBOUR).quiet_for == after.advance.advance_id
    assert after.lsp(STRANGER).quiet_for == b""
    asked = with_lsp(after, ended)
    assert not asked.advance.is_asking


def test_what_was_signed_without_nonces_counts_for_nothing_but_the_channel() -> None:
    partials = said(ar.AdvancePartialsReceived, BUYER)
    committed = at(m.AdvanceCommit)
    session = with_lsp(committed, partials).advance.session
    assert session is not None
    assert [*session.signed] == [BUYER]
    assert with_lsp(committed, partials).advance.holdouts == (NEIGHBOUR,)
    none = with_lsp(committed, ar.AdvanceSessionEnded(**named()), partials)
    assert none.advance.session is None
    assert next_of(none.lsp(BUYER)).is_dual
    asked_anew = committed.advance.session
    assert asked_anew is not None
    uncommitted = replace(committed.advance, session=replace(asked_anew, is_committed=False))
    name = committed.factory.attempt.leaf_name(BUYER)
    late = replace(
        committed,
        factory=replace(committed.factory, advances=Map({name: uncommitted})),
    )
    session = with_lsp(late, partials).advance.session
    assert session is not None
    assert not session.signed
    message = m.decode_message(partials.message)
    assert isinstance(message, m.AdvanceSign)
    half = said_otherwise(partials, message=m.encode_message(replace(message, partials=())))
    session = with_lsp(committed, half).advance.session
    assert session is not None
    assert not session.signed
    no_half = said_otherwise(partials, message=m.encode_message(replace(message, half=())))
    after = with_lsp(committed, no_half)
    assert not next_of(after.lsp(BUYER)).is_dual
    assert after.advance.holdouts == (NEIGHBOUR,)


def test_only_what_bound_somebody_is_gone_on_with_in_a_store_that_was_put_back() -> None:
    restored = r.StoreRestored(backup_id=b"", source="")
    assert not with_lsp(at(m.AdvancePropose), restored).factory.advances
    assert with_lsp(at(m.AdvanceCommit), restored).factory.advances
    started = with_lsp(at(m.AdvanceCommit), r.Started())
    assert (started.advance.session, started.advance.is_committed) == (None, True)
    agreed = at(m.AdvanceAgree).clients[BUYER]
    assert agreed.advances
    assert not apply_to_client(agreed, restored).advances
    signed = at(m.AdvanceSign).clients[BUYER]
    assert apply_to_client(signed, restored).advances


def test_a_clients_nonces_end_with_its_connection_and_its_signature_does_not() -> None:
    agreed, signed = at(m.AdvanceAgree).clients[BUYER], at(m.AdvanceSign).clients[BUYER]
    (advance,) = agreed.advances.values()
    assert (advance.is_agreed, advance.is_signed, len(advance.pool_ids)) == (True, False, 2)
    assert not apply_to_client(agreed, r.Started()).advances
    (advance,) = signed.advances.values()
    assert (advance.is_signed, advance.is_leaving) == (True, False)
    (after,) = apply_to_client(signed, r.Started()).advances.values()
    assert (after.is_signed, after.is_agreed, after.is_leaving) == (True, False, False)
    assert (after.factory_pool, after.channel_pool, after.pool_ids) == (None, None, ())
    (link,) = apply_to_client(signed, r.Started()).book.links.values()
    assert next_of(link).is_dual
    assert next_of(link).own is not None


def test_what_a_client_signed_leaves_only_once_it_is_made() -> None:
    committed = at(m.AdvanceCommit).clients[BUYER]
    signing = apply_to_client(committed, own(ar.AdvanceSigned))
    (link,) = signing.book.links.values()
    (advance,) = signing.advances.values()
    assert (next_of(link).is_leaving, advance.is_leaving, link.is_still) == (True, True, True)
    assert link.quiet_for
    sent = apply_to_client(signing, own(ar.AdvanceSent))
    (link,) = sent.book.links.values()
    (advance,) = sent.advances.values()
    assert (next_of(link).is_leaving, advance.is_leaving, link.quiet_for) == (False, False, b"")
    assert set(signing.intents) > set(committed.intents)


def test_records_of_another_advance_or_out_of_their_order_end_the_decision() -> None:
    other = {**named(), "advance_id": b"another"}
    for moment in (at(m.AdvanceCommit), at(END)):
        with pytest.raises(AssertionError, match="is not under way"):
            with_lsp(moment, ar.AdvanceEnded(**other))
        for state in (moment.clients[BUYER], moment.clients[STRANGER]):
            if state.attempts.get(other["attempt_id"]):
                with pytest.raises(AssertionError, match="is not under way"):
                    apply_to_client(state, ar.AdvanceEnded(**other))
    asked = with_lsp(at(m.AdvancePropose), ar.AdvanceSessionEnded(**named()))
    with pytest.raises(AssertionError, match="nobody was asked"):
        with_lsp(asked, said(ar.AdvanceAgreementReceived, BUYER))
    with pytest.raises(AssertionError, match=r"no state of advance \w+ was signed"):
        apply_to_client(at(m.AdvanceSign).clients[BUYER], own(ar.PoisonHeld))


def test_a_purchase_is_booked_with_its_times_and_a_payment_that_pays_owes_its_skim() -> None:
    sold = said(ar.LiquiditySold)
    moment = at(m.UpdateRebase)
    name = moment.factory.attempt.leaf_name(BUYER)
    for payment_hash in (b"", b"h"):
        advance = replace(moment.advance, payment_hash=payment_hash, quoted_at=3, ordered_at=4)
        factory = replace(moment.factory, advances=Map({name: advance}))
        after = apply_to_factory(factory, sold)
        assert all(one.is_sold for one in after.advances.values())
        booked: Any = after.post.outbox["house"][-1]
        assert (booked.quoted_at, booked.ordered_at, booked.payment_hash) == (3, 4, payment_hash)
        assert (booked.client, booked.capacity_sat) == (sold.client, sold.capacity_sat)
        if payment_hash:
            assert after.skims == Map({BUYER: Map({payment_hash: sold.price_msat})})
            assert after.kept_msat(BUYER + 1, payment_hash) == 0
        else:
            assert not after.skims
    proposed = said(ar.AdvanceProposed)
    begun = replace(moment.factory, advances=Map())
    (advance,) = apply_to_factory(begun, proposed, 50).advances.values()
    assert (advance.quoted_at, advance.ordered_at, advance.is_asking) == (0, 50, True)


def bought_by(state: ClientState, **changes: Any) -> ClientState:
    """Return a client that bought what its advance is for, in this way."""
    (advance,) = state.advances.values()
    known: dict[str, Any] = {
        "quote_id": advance.quote_id,
        "attempt_id": named()["attempt_id"],
        "amount_sat": 1,
        "capacity_sat": 2,
        "price_msat": 3,
        "quoted_at": 20,
        "ordered_at": 30,
    }
    purchase = OwnPurchase(**(known | changes))
    return replace(state, purchases=Map({advance.quote_id: purchase}))


def test_what_was_bought_out_of_a_payment_may_be_kept_of_it_and_the_receipt_says_when() -> None:
    record = own(ar.LiquidityBought)
    before = at(m.UpdateRebase).clients[BUYER]
    attempt_id = record.attempt_id
    for payment_hash in (b"", b"h"):
        after = apply_to_client(bought_by(before, payment_hash=payment_hash), record, 40)
        (receipt,) = after.receipts[attempt_id]
        assert (receipt.quoted_at, receipt.ordered_at, receipt.in_force_at) == (20, 30, 40)
        assert receipt.payment_hash == payment_hash
        assert after.skims == (Map({b"h": 3}) if payment_hash else Map())
    over = bought_by(before, payment_hash=b"h")
    for unknown in (replace(over, purchases=Map()), replace(over, advances=Map())):
        after = apply_to_client(unknown, record, 40)
        (receipt,) = after.receipts[attempt_id]
        assert (receipt.quoted_at, receipt.ordered_at, receipt.in_force_at) == (0, 0, 40)
        assert after.skims == Map()
    twice = apply_to_client(apply_to_client(over, record, 40), record, 50)
    assert [one.in_force_at for one in twice.receipts[attempt_id]] == [40, 50]


def test_a_purchase_is_agreed_once_its_buyer_agreed_to_the_advance_for_it() -> None:
    asked = at(m.AdvancePropose).clients[BUYER]
    received = apply_to_client(asked, own(ar.AdvanceReceived))
    ready = apply_to_client(bought_by(received), own(ar.AdvancePoolsMade))
    assert not any(one.is_agreed for one in ready.purchases.values())
    agreed = apply_to_client(ready, own(ar.AdvanceAgreed))
    assert [one.is_agreed for one in agreed.purchases.values()] == [True]
    other = replace(ready, purchases=Map({b"another": next(iter(ready.purchases.values()))}))
    unlike = apply_to_client(other, own(ar.AdvanceAgreed))
    assert not any(one.is_agreed for one in unlike.purchases.values())


# Commitments for both fundings


def records_of(link: Link, kind: type[Any]) -> list[Any]:
    """Return the LSP's records of one kind about a channel."""
    return [one for one in life()[1] if isinstance(one, kind) and one.channel_id == link.channel_id]


def test_a_commitment_is_signed_for_the_number_that_is_next_alone() -> None:
    """Nothing that a journal may say lets a second sighash be intended for one number."""
    before = at(m.AdvanceHeld)
    link = before.lsp(BUYER)
    rebase, intended = (records_of(link, kind)[-1] for kind in LAST)
    assert isinstance(m.decode_message(rebase.message), m.UpdateRebase)
    assert intended.number == link.state.peer_signed + 1
    rebased = apply_to_factory(before.factory, rebase)
    after = apply_to_factory(rebased, intended).book.links[link.channel_id]
    assert next_of(after).given == next_of(link).given.set(intended.number, intended.sighash)
    assert after.signed_sighash == intended.sighash
    assert after.peer_unrevoked == link.state.content(link.state.peer, Edition.SIGNED)
    with pytest.raises(DoubleSigning, match="expected"):
        apply_to_factory(rebased, said_otherwise(intended, number=intended.number - 1))
