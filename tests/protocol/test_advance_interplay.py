"""What an advance keeps from happening, what keeps it from beginning, and what nothing keeps away.

The neighbour never gets the LSP's half, so that the advance stays open; the buyer has signed.
"""

from collections.abc import Iterator

import pytest
from tests.protocol.advances import (
    advancing_factory,
    both_links,
    buy,
    check_payments_work,
    leaf_of,
    market,
    quote_for,
    remembered,
    sell,
)
from tests.protocol.closes import ask_for_close, check_all_is_paid, close, finished
from tests.protocol.paying_clients import pay
from tests.protocol.pump import Pump
from tests.protocol.restoring import backup_of, restore
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.test_two_fundings import between_states, connect_anew, hushed, silent

from cromford import effects as fx
from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol import events as ev
from cromford.protocol.advancing.rules import problem_with_sale
from cromford.protocol.channels.close_rules import problem_with_advance
from cromford.protocol.channels.marks import agreed_msat, revealed
from cromford.protocol.channels.moved import is_left
from cromford.protocol.exiting.rest import wakes_at
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.handover.client import moved_to
from cromford.protocol.handover.lsp import keys_of, refusal_of
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import exit_records as xr
from cromford.wire import messages as m

BUYER, NEIGHBOUR = 1, 2
OPEN = "an advance of its leaf is under way"


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def ask(pump: Pump) -> str:
    """Let the LSP's operator ask for a close, and return why there is none."""
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected) as refused:
        pump.lsp.driver.handle(ev.CloseRequested(attempt_id=pump.attempt.attempt_id))
    return f"{refused.value.code}: {refused.value}"


def test_no_close_begins_while_an_advance_is_open_and_one_does_afterwards() -> None:
    with between_states(2) as pump:
        reason = "advance_under_way: an advance of the leaf is under way: client 1, client 2"
        assert ask(pump) == reason
        assert not remembered(pump.lsp, cl.CloseBegun)
    connect_anew(pump, silent(pump))
    assert not pump.factory.advances
    balances = [link.state.accepter_msat for link in (both_links(pump, s)[0] for s in (1, 2))]
    close(pump)
    assert finished(pump.lsp)
    (closed,) = remembered(pump.lsp, cl.CloseFinished)
    assert list(closed.balances_msat) == balances


def test_a_close_pays_what_a_channel_came_to_hold_after_a_purchase() -> None:
    """More than it could hold before: of the factory as a whole, all is paid by one transaction."""
    pump = advancing_factory(2)
    before_sat = both_links(pump, BUYER)[0].present.capacity_sat
    sell(pump, BUYER)
    assert pay(pump, pump.lsp, pump.client_at(BUYER), 80_000_000).status == "paid"
    balances = [both_links(pump, seat)[0].state.accepter_msat for seat in (BUYER, NEIGHBOUR)]
    assert balances[0] > before_sat * MSAT_PER_SAT
    close(pump)
    (closed,) = finished(pump.lsp)
    assert list(closed.balances_msat) == balances
    check_all_is_paid(pump)
    pump.mine(2)
    for seat, balance_msat in zip((BUYER, NEIGHBOUR), balances, strict=True):
        assert wallet_sat(pump.client_at(seat)) == balance_msat // MSAT_PER_SAT


def test_a_client_agrees_to_no_close_while_an_advance_of_its_leaf_is_open() -> None:
    """Its LSP speaks as if there were none: before we agree, and after we agreed to the advance."""
    pump = advancing_factory(2)
    begin = close_begin(pump)
    buy(pump, BUYER)
    pump.run_to(m.AdvanceAgree)
    buyer = pump.client_at(BUYER)
    pump.tell(buyer, pump.lsp, begin)
    (ended,) = pump.sent(buyer, m.CloseEnd)
    assert ended.reason == f"channel: expected one that can be closed, received {OPEN}"
    assert not buyer.state.closing
    pump.run()
    assert not pump.factory.advances
    check_payments_work(pump, BUYER, NEIGHBOUR)


def close_begin(pump: Pump) -> m.CloseBegin:
    """Return how the LSP would begin with a close, which then comes to nothing."""
    ask_for_close(pump)
    (begin,) = {one.close_id: one for one in pump.sent(pump.lsp, m.CloseBegin)}.values()
    pump.run_to(m.CloseAgree)
    pump.pass_deadline(pump.lsp, fx.CloseDeadline(close_id=begin.close_id))
    pump.run()
    assert pump.factory.closing is None
    return m.CloseBegin(
        attempt_id=begin.attempt_id,
        close_id=bytes(32),
        outpoint=begin.outpoint,
        options=begin.options,
    )


def test_nothing_is_sold_while_a_close_is_agreed_on_or_may_be_finished() -> None:
    pump = advancing_factory(2)
    ask_for_close(pump)
    pump.run_to(m.CloseSign)
    (link, lsp_link), chain = both_links(pump, NEIGHBOUR), pump.factory.chain
    assert problem_with_advance(lsp_link, chain) == "a close is being agreed on"
    problem = problem_with_sale(pump.factory, FRESH, BUYER)
    assert problem == "a close is being agreed on"
    letter = pump.wire.popleft()
    pump.tell(pump.lsp, letter.sender, letter.message)
    pump.wire.clear()
    (closing,) = [pump.factory.closing]
    assert closing is not None
    pump.pass_deadline(pump.lsp, fx.CloseDeadline(close_id=closing.close_id))
    pump.run()
    assert pump.factory.closing is None
    signed = next(one for one in pump.factory.book.ordered_links if one.closes)
    problem = problem_with_advance(signed, chain)
    assert problem is not None
    assert "was signed, and may be finished" in problem
    assert problem_with_sale(pump.factory, FRESH, BUYER) is not None
    pump.lsp_says(pump.client_at(BUYER), quote_for(pump, BUYER))
    pump.run()
    assert not remembered(pump.lsp, ar.AdvanceProposed)
    assert link.failure is None


def test_who_has_an_advance_open_hands_no_keys_over_and_may_always_leave() -> None:
    with between_states(2) as pump:
        buyer, state = pump.client_at(BUYER), pump.factory
        refusal = refusal_of(state, BUYER, keys_of(state, BUYER))
        assert refusal == "an advance of the leaf is under way"
        assert moved_to(buyer.state, pump.held(buyer)) is None
        assert not is_left(both_links(pump, BUYER)[0])
        pump.handle(buyer, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
        assert remembered(buyer, xr.ExitStarted)
        asked = ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=NEIGHBOUR)
        pump.handle(pump.lsp, asked)
        assert remembered(pump.lsp, xr.ExitStarted)


def test_a_factory_with_an_open_advance_does_not_sleep_and_one_that_slept_has_its_states() -> None:
    with between_states(2) as pump:
        for client in pump.clients:
            pump.disconnect(client)
        assert pump.factory.advances
        assert wakes_at(pump.factory) is None
        for client in pump.clients:
            pump.connect(client)
        pump.run()
    connect_anew(pump, silent(pump))
    for client in pump.clients:
        pump.disconnect(client)
    before = pump.factory
    pump.lsp.checkpoint()
    assert pump.lsp.state.asleep, "nothing happens in it any more"
    for client in pump.clients:
        pump.connect(client)
    pump.run()
    assert pump.factory.attempt.leaves == before.attempt.leaves
    assert len(leaf_of(pump, BUYER).states) == 2
    check_payments_work(pump, BUYER, NEIGHBOUR)


# Restored stores


def test_stores_on_either_side_of_the_rebase_are_compared_by_what_each_funding_holds() -> None:
    pump = advancing_factory(1)
    buy(pump, BUYER)
    pump.run_to(m.UpdateRebase)
    before = both_links(pump, BUYER)
    pump.run()
    after = both_links(pump, BUYER)
    for mine, theirs, at in (
        (before[0], after[1], after[0]),  # The LSP's store is the later one.
        (after[0], after[1], after[0]),
        (after[1], before[0], after[1]),  # The client's is the earlier one.
    ):
        told = revealed(theirs)
        assert told is not None
        expected = at.state.content(at.me, Edition.SIGNED).balance_msat(at.me)
        assert agreed_msat(mine, told) == expected
    assert after[0].present.capacity_sat > before[0].present.capacity_sat


def test_a_restored_lsp_drops_an_advance_that_bound_nobody_and_sells_nothing() -> None:
    pump = advancing_factory(2)
    buy(pump, BUYER)
    assert pump.factory.advances
    restore(pump, (pump.lsp, backup_of(pump.lsp)))
    pump.run()
    assert pump.factory.is_marked
    assert not pump.factory.advances
    assert problem_with_sale(pump.factory, FRESH, BUYER) is not None
    n_proposed = len(remembered(pump.lsp, ar.AdvanceProposed))
    pump.lsp_says(pump.client_at(BUYER), quote_for(pump, BUYER))
    pump.run()
    assert len(remembered(pump.lsp, ar.AdvanceProposed)) == n_proposed


def test_a_restored_client_signs_no_second_next_state() -> None:
    """Its intents may be gone: the backup is from before it signed."""
    pump = advancing_factory(2)
    buyer = pump.client_at(BUYER)
    backup = backup_of(buyer)
    with pump.tampering(hushed(pump)):
        buy(pump, BUYER)
        pump.run()
        assert remembered(buyer, ar.AdvanceSigned)
        restore(pump, (buyer, backup))
        n_signed = len(pump.sent(buyer, m.AdvanceSign))
        pump.run()
    connect_anew(pump, silent(pump))
    pump.mine(2)
    assert len(pump.sent(buyer, m.AdvanceSign)) == n_signed
    assert not remembered(buyer, ar.AdvanceSigned)


def test_a_restored_store_keeps_what_it_signed() -> None:
    with between_states(2) as pump:
        buyer = pump.client_at(BUYER)
        restore(pump, (buyer, backup_of(buyer)))
        assert pump.held(buyer).attempt_id in buyer.state.advances
        link = both_links(pump, BUYER)[0]
        assert link.next is not None
        assert link.next.own is not None
        assert link.mark is not None


def test_an_advance_in_which_no_update_can_follow_keeps_nobody_from_a_close() -> None:
    """All stores were lost in the middle of it: it is dropped, and the channels are closed."""
    with between_states(2) as pump:
        for seat in (BUYER, NEIGHBOUR):
            client = pump.client_at(seat)
            restore(pump, (client, backup_of(client)))
        pump.run()
        assert not pump.factory.advances
        problems = [both_links(pump, seat)[1].takes_updates for seat in (BUYER, NEIGHBOUR)]
        assert problems == [False, False]
        close(pump)
        assert finished(pump.lsp)


def test_a_channel_may_be_paid_and_left_in_one_payment_after_it_grew() -> None:
    pump = advancing_factory(1)
    terms = pump.attempt.terms
    assert terms.max_in_flight_msat == MSAT_PER_SAT * (
        max(terms.capacity_sat) + max(terms.lstock_sat)
    )
    sell(pump, BUYER, amount_sat=None)
    link, _ = both_links(pump, BUYER)
    assert link.present.capacity_sat * MSAT_PER_SAT <= terms.max_in_flight_msat + (
        MSAT_PER_SAT * terms.fee_sat(n_p2tr_outputs=2)
    )
