"""What streams tell one another counts once, however late it comes, and however often."""

import pytest
from tests.protocol.late_mail import LatePump
from tests.protocol.paying_clients import (
    POLICY,
    balance,
    begin_payment,
    book,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import PumpNode

from cromford import effects as fx
from cromford.protocol.channels.forwarding import forwarding_fee_msat
from cromford.protocol.journal.factory import apply_to_factory, new_factory
from cromford.protocol.journal.house import new_house
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.mail import Letter, Lost, Post
from cromford.protocol.journal.scan import Scan, apply_to_scan
from cromford.protocol.journal.streams import CHAIN, HOUSE

FIRST_MSAT = 30_000_000
AMOUNT_MSAT = 5_000_000
FEE_MSAT = forwarding_fee_msat(
    AMOUNT_MSAT,
    fee_base_msat=POLICY.fee_base_msat,
    fee_proportional_millionths=POLICY.fee_proportional_millionths,
)


def two_factories(seed: int) -> tuple[LatePump, PumpNode, PumpNode]:
    """Return two clients with money, each in a factory of its own."""
    pump = LatePump(2, policy=POLICY, seed=seed)
    for client in pump.clients:
        pump.join(client)
        pump.build()
        pump.run()
        pump.mine()
    alice, bob = pump.clients
    assert newest_link(alice).attempt_id != newest_link(bob).attempt_id
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    return pump, alice, bob


def check_streams_replay_alone(pump: LatePump) -> None:
    """Each stream folds to its part of the state, and needs no other for it."""
    state: LspState = pump.lsp.state
    scan, house = Scan(), new_house(state.config)
    factories = {number: new_factory(state.config, number) for number in state.factories}
    by_stream = {factory.stream: number for number, factory in factories.items()}
    for stream, record in pump.lsp.store.told:
        if stream == CHAIN:
            scan = apply_to_scan(scan, record)
        elif stream == HOUSE:
            house = apply_to_house(house, record)
        elif stream in by_stream:
            number = by_stream[stream]
            factories[number] = apply_to_factory(factories[number], record)
    alone = LspState(house=house, scan=scan)
    for factory in factories.values():
        alone = alone.with_factory(factory)
    assert alone.durable == state.durable


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", range(6))
def test_a_payment_between_two_factories_arrives_once_however_late_the_mail_is(seed: int) -> None:
    pump, alice, bob = two_factories(seed)
    paid = pay(pump, alice, bob, AMOUNT_MSAT)
    assert paid.status == "paid"
    assert balance(alice).own_msat == FIRST_MSAT - AMOUNT_MSAT - FEE_MSAT
    assert balance(bob).own_msat == FIRST_MSAT + AMOUNT_MSAT
    assert book(pump.lsp).earned_msat == FEE_MSAT
    assert pump.n_again > 0
    assert not pump.letters()
    check_streams_replay_alone(pump)


def test_a_payment_that_fails_elsewhere_comes_back_once() -> None:
    pump, alice, bob = two_factories(0)
    request = make_invoice(pump, bob, AMOUNT_MSAT)
    unknown = make_invoice(pump, bob, AMOUNT_MSAT, payment_secret=bytes(32))
    for asked in (unknown, request):
        pump.handle(alice, asked)
    pump.run()
    pump.pass_holds()
    statuses = [book(alice).payments[one.payment_hash].status for one in (unknown, request)]
    assert statuses == ["failed", "paid"]
    assert balance(alice).own_msat == FIRST_MSAT - AMOUNT_MSAT - FEE_MSAT
    check_streams_replay_alone(pump)


N_STEPS = 60  # More appends and effects than a payment between two factories takes.


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", range(1, N_STEPS, 2))
def test_an_lsp_that_dies_between_any_two_appends_of_a_payment_loses_none_of_it(step: int) -> None:
    """Each letter is an append of its own: between two of them, streams disagree."""
    pump, alice, bob = two_factories(step)
    pump.lsp.fuse = step
    begun = begin_payment(pump, alice, bob, AMOUNT_MSAT)
    pump.run()
    pump.pass_holds()
    payment = book(alice).payments[begun.payment_hash]
    assert payment.status in {"paid", "failed"}
    moved = AMOUNT_MSAT if payment.status == "paid" else 0
    fee = FEE_MSAT if payment.status == "paid" else 0
    assert balance(alice).own_msat == FIRST_MSAT - moved - fee
    assert balance(bob).own_msat == FIRST_MSAT + moved
    assert book(pump.lsp).earned_msat == fee
    pump.lsp.fuse = None
    assert pay(pump, bob, alice, AMOUNT_MSAT).status == "paid", "and all goes on"
    check_streams_replay_alone(pump)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("step", range(1, 40, 2))
def test_an_lsp_that_dies_between_any_two_appends_of_a_build_makes_it_or_frees_its_coins(
    step: int,
) -> None:
    pump = LatePump(2, policy=POLICY, seed=step)
    pump.join()
    pump.lsp.fuse = step
    pump.build()
    pump.run()
    pump.lsp.fuse = None
    pump.run()
    for node, deadline in pump.deadlines_of(fx.AttemptDeadline):
        pump.pass_deadline(node, deadline)  # An order that arrives after a restart ends by it.
    pump.mine()
    if not pump.is_funded():
        assert not pump.lsp.state.wallet.reserved
        pump.join_again()
        pump.build()
        pump.run()
        pump.mine()
    assert pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT).status == "paid"
    check_streams_replay_alone(pump)


def test_mail_is_taken_in_order_and_what_was_taken_leaves_the_outbox() -> None:
    sent = Post().with_sent(Letter("b", Lost(height=height)) for height in (1, 2, 3))
    assert [delivery.number for delivery in sent.pending("a")] == [1, 2, 3]
    taker = Post()
    assert not taker.is_next("a", 2)
    for number in (1, 2):
        assert taker.is_next("a", number)
        taker = taker.with_taken("a", number)
    assert not taker.is_next("a", 2)
    (left,) = sent.settled("b", taken=2).pending("a")
    assert (left.number, left.mail) == (3, Lost(height=3))
    with pytest.raises(AssertionError, match="not the next"):
        taker.with_taken("a", 2)
    assert not sent.settled("b", taken=3).outbox
