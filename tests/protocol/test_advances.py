"""A leaf is advanced: all of it, whoever takes part and whatever is on its way meanwhile."""

import random
from collections.abc import Iterator

import pytest
from tests.protocol.advances import (
    STEPS,
    advancing_factory,
    both_links,
    check_claims,
    check_nothing_is_left,
    check_payments_work,
    check_sold,
    deliver,
    leaf_of,
    market,
    n_pools,
    quote_for,
    sell,
)
from tests.protocol.paying_clients import begin_payment, book, make_invoice
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.stalling import be_fresh_untold, stall
from tests.simulation.seeds import seeds

from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(3)


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [1, 2, 4])
def test_a_purchase_makes_a_channel_larger_without_a_transaction(n_clients: int) -> None:
    pump = advancing_factory(n_clients)
    n_before = n_pools(pump)
    quote = sell(pump, 1)
    check_sold(pump, 1, quote)
    check_nothing_is_left(pump)
    assert n_pools(pump) == n_before
    n_agreed = [len(pump.sent(client, m.AdvanceAgree)) for client in pump.clients]
    n_in_leaf = min(n_clients, 2)
    assert sum(n_agreed) == n_in_leaf, "and not again with nonces that were used"
    assert max(n_agreed) == 1
    check_payments_work(pump, *range(1, n_clients + 1))


def test_htlcs_pend_in_both_directions_while_a_leaf_is_advanced_and_are_answered_afterwards() -> (
    None
):
    pump = advancing_factory(4)
    pump.disconnect(pump.client_at(3))
    waiting = begin_payment(pump, pump.client_at(1), pump.client_at(3), 4_000_000)
    stall(pump, pump.client_at(2))
    taken = begin_payment(pump, pump.client_at(1), pump.client_at(2), 3_000_000)
    be_fresh_untold(pump, pump.client_at(2))
    assert {waiting.status, taken.status} == {"pending"}

    quote = sell(pump, 2)
    commits = {len(one.half[0].htlc_signatures) for one in pump.sent(pump.lsp, m.AdvanceCommit)}
    assert commits == {1, 2}
    check_sold(pump, 2, quote)
    payments = book(pump.client_at(1)).payments
    assert payments[taken.payment_hash].status == "paid"

    pump.connect(pump.client_at(3))
    pump.run()
    assert book(pump.client_at(1)).payments[waiting.payment_hash].status == "paid"
    check_payments_work(pump, 1, 2, 3, 4)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("order", seeds(2))
def test_payments_cross_every_step_of_an_advance_and_none_is_stuck(order: int) -> None:
    dice = random.Random(f"advance {order}")
    pump = advancing_factory(2, order=order, watches_folds=True)
    quote = quote_for(pump, 1)
    pump.lsp_says(pump.client_at(1), quote)
    begun = []
    for _ in range(200):
        if dice.random() < 0.4:
            begun.append(some_payment(pump, dice))
        if not pump.wire:
            break
        deliver(pump)
        check_claims(pump)
    pump.run()
    pump.pass_holds()
    check_sold(pump, 1, quote)
    # While a channel is quiet nothing is begun in it: what was to be paid then never was.
    payments = [book(payer).payments.get(payment_hash) for payer, payment_hash in begun]
    outcomes = [payment.status for payment in payments if payment is not None]
    assert "paid" in outcomes
    assert "pending" not in outcomes
    check_payments_work(pump, 1, 2)


def some_payment(pump: Pump, dice: random.Random) -> tuple[PumpNode, bytes]:
    """Let somebody pay somebody a little, and deliver nothing of it yet."""
    nodes = [pump.lsp, pump.client_at(1), pump.client_at(2)]
    payer, payee = dice.sample(nodes, 2)
    if payee is pump.lsp:
        payee = next(node for node in nodes[1:] if node is not payer)
    request = make_invoice(pump, payee, dice.randint(1, 400) * 1_000)
    pump.handle(payer, request)
    return payer, request.payment_hash


def test_a_leaf_is_advanced_until_no_state_is_left_and_each_supersedes_the_one_before() -> None:
    pump = advancing_factory(2)
    for buyer, amount_sat in ((1, 20_000), (2, 30_000), (1, None)):
        quote = sell(pump, buyer, amount_sat=amount_sat)
        check_sold(pump, buyer, quote)
        check_payments_work(pump, 1, 2)
    leaf = leaf_of(pump, 1)
    assert leaf.allocation.lstock_sat == 0
    assert [len(link.superseded) for link in both_links(pump, 2)] == [3, 3]
    for client in pump.clients:
        assert len(pump.held(client).leaf_states) == 3


def test_two_leaves_of_a_factory_are_advanced_at_once() -> None:
    pump = advancing_factory(4)
    quotes = {seat: quote_for(pump, seat, price_msat=100_000) for seat in (1, 4)}
    for seat, quote in quotes.items():
        pump.lsp_says(pump.client_at(seat), quote)
    pump.run_to(m.AdvanceDone)
    assert len(pump.factory.advances) == 2
    pump.run()
    for seat, quote in quotes.items():
        check_sold(pump, seat, quote)
    check_payments_work(pump, 1, 2, 3, 4)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("step", [step for step in STEPS if step is not m.UpdateRebase])
def test_a_message_that_comes_twice_changes_nothing(step: type[m.Message]) -> None:
    pump = advancing_factory(2)

    def twice(_sender: PumpNode, _receiver: PumpNode, message: m.Message) -> list[m.Message]:
        return [message] * (2 if isinstance(message, step) else 1)

    with pump.tampering(twice):
        quote = sell(pump, 1)
    check_sold(pump, 1, quote)
    check_payments_work(pump, 1, 2)
