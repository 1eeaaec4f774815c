"""Advances that somebody attacks, by words that come late, or are untrue."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.protocol.advances import (
    PRICE_MSAT,
    advancing_factory,
    both_links,
    check_payments_work,
    check_sold,
    leaf_of,
    market,
    quote_for,
    remembered,
    sell,
    under_way,
)
from tests.protocol.paying_clients import make_invoice, pay
from tests.protocol.pump import Letter, Pump, PumpNode

from cromford.factory.allocation import Purchase
from cromford.factory.leaf import advance_id_of
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.coverage import covered_after
from cromford.protocol.journal import advance_records as ar
from cromford.wire import messages as m
from cromford.wire.selling import AllocatedChannel

BUYER, NEIGHBOUR = 1, 2


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def deliver(pump: Pump, receiver: PumpNode, sender: PumpNode) -> Letter:
    """Deliver the first message from one to another."""
    letter = next(x for x in pump.wire if (x.receiver, x.sender) == (receiver, sender))
    pump.wire.remove(letter)
    pump.tell(receiver, sender, letter.message)
    return letter


def take_away(pump: Pump, receiver: PumpNode, sender: PumpNode) -> Letter:
    """Take the first message from one to another off the wire."""
    letter = next(x for x in pump.wire if (x.receiver, x.sender) == (receiver, sender))
    pump.wire.remove(letter)
    return letter


def test_an_agreement_to_an_earlier_try_is_none_to_the_next() -> None:
    pump = advancing_factory(2)
    buyer, neighbour = pump.client_at(BUYER), pump.client_at(NEIGHBOUR)
    quote = quote_for(pump, BUYER)
    pump.lsp_says(buyer, quote)
    pump.run_to(m.AdvancePropose)
    deliver(pump, neighbour, pump.lsp)
    late = take_away(pump, pump.lsp, neighbour)
    assert isinstance(late.message, m.AdvanceAgree)
    propose = take_away(pump, buyer, pump.lsp).message
    assert isinstance(propose, m.AdvancePropose)
    abort = m.AdvanceAbort(
        attempt_id=propose.attempt_id, advance_id=propose.advance_id, reason="not now"
    )
    pump.tell(pump.lsp, buyer, abort)
    assert under_way(pump) is None
    buy = m.Buy(attempt_id=quote.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
    pump.tell(pump.lsp, buyer, buy)
    deliver(pump, buyer, pump.lsp)
    deliver(pump, pump.lsp, buyer)
    pump.tell(pump.lsp, neighbour, late.message)
    pump.run()
    for link in both_links(pump, NEIGHBOUR):
        assert link.failure is None
    check_sold(pump, BUYER, quote)
    check_payments_work(pump, BUYER, NEIGHBOUR)


def half_signed(pump: Pump) -> None:
    """Let the buyer sign an advance, and its neighbour go before it did."""
    neighbour = pump.client_at(NEIGHBOUR)

    def withhold(_: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_withheld = receiver is neighbour and isinstance(message, m.AdvanceCommit)
        return () if is_withheld else (message,)

    with pump.tampering(withhold):
        pump.lsp_says(pump.client_at(BUYER), quote_for(pump, BUYER))
        pump.run()
    pump.disconnect(neighbour)
    pump.run()
    following = both_links(pump, BUYER)[1].next
    assert following is not None
    assert following.is_dual


def test_whoever_comes_and_goes_leaves_no_nonces_behind() -> None:
    pump = advancing_factory(2)
    half_signed(pump)
    neighbour = pump.client_at(NEIGHBOUR)
    held = []
    for _ in range(8):
        pump.connect(neighbour)
        pump.run_to(m.AdvancePropose)
        pump.handle(neighbour, make_invoice(pump, pump.client_at(BUYER), 5_000))
        pump.run_to(m.AdvanceCommit)
        assert under_way(pump) is not None
        pump.disconnect(neighbour)
        pump.run()
        assert pump.lsp.signer is not None
        held.append(len(pump.lsp.signer._pools))
        pump.mine(1)
    assert len(set(held[1:])) == 1, held


def test_an_lsp_that_says_that_the_next_funding_is_the_present_one_ends_the_channel() -> None:
    pump = advancing_factory(2)
    half_signed(pump)
    buyer = pump.client_at(BUYER)
    present = both_links(pump, BUYER)[0].present

    def lie(_: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if receiver is not buyer or not isinstance(message, m.ChannelReestablish):
            return (message,)
        told = tuple(replace(one, funding_txid=present.outpoint.txid) for one in message.advance)
        assert told
        return (replace(message, advance=told),)

    pump.disconnect(buyer)
    with pump.tampering(lie):
        pump.connect(buyer)
        pump.run()
    failure = both_links(pump, BUYER)[0].failure
    assert failure is not None
    assert "funding_txid" in failure


def test_a_price_stays_set_aside_whatever_its_client_said_in_between() -> None:
    pump = advancing_factory(2)
    buyer = pump.client_at(BUYER)

    def lie(sender: PumpNode, _: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if sender is buyer and isinstance(message, m.AdvanceSign):
            return ()
        if sender is buyer and isinstance(message, m.ChannelReestablish):
            return (replace(message, advance=()),)
        return (message,)

    with pump.tampering(lie):
        pump.lsp_says(buyer, quote_for(pump, BUYER))
        pump.run()
        pump.disconnect(buyer)
        pump.connect(buyer)
        pump.run(until=lambda: isinstance(pump.wire[0].message, m.AdvancePropose))
    assert both_links(pump, BUYER)[1].state.reserved_msat == 0
    pump.disconnect(buyer)
    pump.connect(buyer)
    pump.run(until=lambda: both_links(pump, BUYER)[1].state.is_connected)
    link = both_links(pump, BUYER)[1]
    assert link.next is not None
    assert link.next.is_dual
    assert link.state.reserved_msat == PRICE_MSAT


def test_a_client_that_says_that_the_next_funding_is_the_present_one_ends_its_channel() -> None:
    pump = advancing_factory(2)
    half_signed(pump)
    buyer = pump.client_at(BUYER)
    present = both_links(pump, BUYER)[1].present
    pump.handle(pump.lsp, make_invoice(pump, buyer, 5_000))
    pump.disconnect(buyer)

    def lie(sender: PumpNode, _: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if sender is not buyer or not isinstance(message, m.ChannelReestablish):
            return (message,)
        told = tuple(replace(one, funding_txid=present.outpoint.txid) for one in message.advance)
        return (replace(message, advance=told),)

    with pump.tampering(lie):
        pump.connect(buyer)
        pump.run()
    failure = both_links(pump, BUYER)[1].failure
    assert failure is not None
    assert "funding_txid" in failure


def test_an_lsp_that_lacks_a_rebased_commitment_and_gives_no_nonce_ends_the_channel() -> None:
    pump = advancing_factory(2)
    buyer = pump.client_at(BUYER)
    pump.lsp_says(buyer, quote_for(pump, BUYER))
    pump.run(until=lambda: both_links(pump, BUYER)[1].superseded != ())
    link = both_links(pump, BUYER)[0]
    assert link.next is not None
    assert link.state.awaits_revocation

    def lie(_: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if receiver is not buyer or not isinstance(message, m.ChannelReestablish):
            return (message,)
        return (replace(message, next_commitment_number=link.state.peer_signed),)

    pump.disconnect(buyer)
    with pump.tampering(lie):
        pump.connect(buyer)
        pump.run()
    failure = both_links(pump, BUYER)[0].failure
    assert failure is not None
    assert "nonces" in failure


def test_a_neighbour_agrees_to_no_sale_that_uncovers_what_it_owns() -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    for _ in range(12):  # All on one commitment, and without an output: lost, if that is punished.
        pump.handle(pump.lsp, make_invoice(pump, neighbour, 340_000))
    pump.run()
    _, lsp_link = both_links(pump, NEIGHBOUR)
    most_msat = balance_now(lsp_link, pump.factory.chain).spendable_msat
    assert pay(pump, pump.lsp, neighbour, most_msat).status == "paid"
    link, _ = both_links(pump, NEIGHBOUR)
    covered_sat = covered_after(link, leaf_of(pump, BUYER), Purchase(buyer=BUYER, amount_sat=None))
    assert link.state.accepter_msat > covered_sat * 1_000
    pump.lsp_says(pump.client_at(BUYER), quote_for(pump, BUYER, amount_sat=None))
    pump.run()
    assert under_way(pump) is None
    (refused,) = pump.sent(neighbour, m.AdvanceAbort)
    assert "coverage" in refused.reason
    assert len(leaf_of(pump, BUYER).states) == 1


def test_whoever_signed_a_next_state_takes_no_part_in_another_of_the_same_index() -> None:
    """The LSP would sell one stock twice: to the buyer, and in another state to the neighbour."""
    pump = advancing_factory(2)
    half_signed(pump)
    buyer, leaf = pump.client_at(BUYER), leaf_of(pump, BUYER)
    (signed,) = (one.advance_id for one in buyer.state.advances.values())
    other = leaf.sold(Purchase(buyer=NEIGHBOUR, amount_sat=20_000))
    attempt_id = pump.attempt.attempt_id
    advance_id = advance_id_of(
        other, attempt_id=attempt_id, state_index=1, allocation=other.allocation
    )
    propose = m.AdvancePropose(
        attempt_id=attempt_id,
        advance_id=advance_id,
        terms_hash=pump.attempt.terms.terms_hash,
        state_index=1,
        channels=tuple(
            AllocatedChannel(capacity_sat=capacity_sat)
            for capacity_sat in other.allocation.capacities_sat
        ),
        lstock_sat=other.allocation.lstock_sat,
        quote_id=b"",
        price_msat=0,
        session=bytes(32),
    )
    n_agreed, n_entries = len(pump.sent(buyer, m.AdvanceAgree)), len(buyer.store.entries)
    pump.tell(buyer, pump.lsp, propose)
    assert len(pump.sent(buyer, m.AdvanceAgree)) == n_agreed
    assert len(buyer.store.entries) == n_entries
    assert [one.advance_id for one in buyer.state.advances.values()] == [signed]


def test_an_lsp_that_drops_what_a_client_signed_ends_its_channel_and_takes_no_claim() -> None:
    pump = advancing_factory(2)
    half_signed(pump)
    buyer = pump.client_at(BUYER)
    (advance,) = buyer.state.advances.values()
    abort = m.AdvanceAbort(
        attempt_id=pump.attempt.attempt_id, advance_id=advance.advance_id, reason="not now"
    )
    pump.tell(buyer, pump.lsp, abort)
    link = both_links(pump, BUYER)[0]
    assert (link.failure or "").startswith("advance_abort: expected none: we signed")
    assert all(link.finished_on(funding) for funding in link.fundings)
    assert len(link.fundings) == 2


def test_a_client_that_agrees_twice_differently_is_named_and_nothing_is_signed_with_it() -> None:
    pump = advancing_factory(2)
    pump.lsp_says(pump.client_at(BUYER), quote_for(pump, BUYER))
    pump.run_to(m.AdvancePropose)
    neighbour = pump.client_at(NEIGHBOUR)
    deliver(pump, neighbour, pump.lsp)
    agree = deliver(pump, pump.lsp, neighbour).message
    assert isinstance(agree, m.AdvanceAgree)
    again = replace(agree, pubnonces=tuple(reversed(agree.pubnonces)))
    pump.tell(pump.lsp, neighbour, again)
    (dropped,) = remembered(pump.lsp, ar.AdvanceDropped)
    assert dropped.is_fault
    assert dropped.culprits == (neighbour.node_id,)
    assert dropped.reason == f"client {NEIGHBOUR}: it agreed twice, differently"
    pump.run()
    assert not pump.sent(pump.lsp, m.AdvanceCommit)
    check_sold(pump, BUYER, sell(pump, BUYER))
