"""Every limit of a payment is refused by name, wherever it is broken: by us, or by a peer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.paying_clients import (
    POLICY,
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.unanswered import chain_at

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.channels.htlc_rules import acceptance_failure, check_offer
from cromford.protocol.faults import Rejected
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS, INVOICE_SLACK_BLOCKS
from cromford.protocol.journal.book import Payment
from cromford.protocol.journal.failures import Failure
from cromford.told import msat
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(12)

FIRST_MSAT = 30_000_000
TRIMMED_MSAT = 900_000
RESERVE_MSAT = 2_638_000
LEFT_MSAT = 100_000_000 - FIRST_MSAT - RESERVE_MSAT
FLIGHT_MSAT = 200_000_000  # The largest channel, and the largest L-stock: that of two of them.
UNKNOWN_DETAILS = Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS


@pytest.fixture
def pump() -> Pump:
    pump = live_factory(3)
    assert pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT).status == "paid"
    return pump


def refusal_of(pump: Pump, payer: PumpNode, request: ev.PayRequested) -> Rejected:
    """Return why a payer's own node does not even try; nothing may change."""
    assert payer.driver is not None
    before = payer.state
    with pytest.raises(Rejected) as refused:
        payer.driver.handle(request)
    assert payer.state is before
    pump.run()
    return refused.value


def pay_changed(
    pump: Pump, payer: PumpNode, payee: PumpNode, amount_msat: int, /, **changes: Any
) -> Payment:
    """Let somebody pay an invoice as if it said something else."""
    request = replace(make_invoice(pump, payee, amount_msat), **changes)
    pump.handle(payer, request)
    pump.run()
    pump.pass_holds()
    return book(payer).payments[request.payment_hash]


def failure_of(payment: Payment) -> bytes | None:
    assert payment.status == "failed"
    return payment.failure


def told_alone(pump: Pump, node: PumpNode) -> None:
    """Let one node see a block that the others have not seen yet."""
    pump.chain.mine()
    block_hash, txs = pump.chain.blocks[-1]
    event = ev.BlockAdded(height=pump.chain.height, block_hash=block_hash, txs=node.relevant(txs))
    pump.handle(node, event)


# What our own channel cannot carry


def test_a_thirteenth_htlc_is_not_offered(pump: Pump) -> None:
    bob = pump.clients[1]
    for _ in range(12):
        pump.handle(pump.lsp, make_invoice(pump, bob, 1_000_000))
    refused = refusal_of(pump, pump.lsp, make_invoice(pump, bob, 1_000_000))
    assert refused.code == "not_payable"
    assert "max_accepted_htlcs: expected at most 12, received 13" in str(refused)
    assert balance(bob).own_msat == 12_000_000


@pytest.mark.parametrize(
    ("amount_msat", "reason"),
    [
        (
            LEFT_MSAT + 1,
            f"at most {msat(LEFT_MSAT)}, so that a reserve of {msat(RESERVE_MSAT)}",
        ),
        (FLIGHT_MSAT + 1, f"value_in_flight_msat: expected at most {msat(FLIGHT_MSAT)}"),
    ],
)
def test_the_lsp_offers_nothing_beyond_its_reserve_or_what_may_be_in_flight(
    pump: Pump, amount_msat: int, reason: str
) -> None:
    alice = pump.clients[0]
    refused = refusal_of(pump, pump.lsp, make_invoice(pump, alice, amount_msat))
    assert reason in str(refused)
    assert f"received {msat(amount_msat)}" in str(refused)
    assert pay(pump, pump.lsp, alice, LEFT_MSAT).status == "paid"
    assert balance(alice).receivable_msat == 0


def test_a_client_pays_to_its_last_millisatoshi_and_no_further(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    fee_msat = 1000
    most_msat = next(
        amount
        for amount in range(FIRST_MSAT - fee_msat, 0, -1)
        if amount + fee_msat + amount // 1000 <= FIRST_MSAT
    )
    refused = refusal_of(pump, alice, make_invoice(pump, bob, most_msat + 1))
    assert f"amount_msat: expected at most {msat(FIRST_MSAT)}" in str(refused)
    assert pay(pump, alice, bob, most_msat).status == "paid"
    assert balance(alice).own_msat == FIRST_MSAT - most_msat - fee_msat - most_msat // 1000
    assert newest_link(alice).failure is None


def test_what_would_be_lost_to_fees_is_bounded(pump: Pump) -> None:
    bob = pump.clients[1]
    for _ in range(5):
        pump.handle(pump.lsp, make_invoice(pump, bob, TRIMMED_MSAT))
    refused = refusal_of(pump, pump.lsp, make_invoice(pump, bob, TRIMMED_MSAT))
    assert "exposure_msat: expected at most 5,000 sat, received 5,400 sat" in str(refused)


def test_small_ones_of_both_sides_at_once_are_given_back(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    requests = [make_invoice(pump, alice, TRIMMED_MSAT) for _ in range(5)]
    crossing = [make_invoice(pump, bob, TRIMMED_MSAT) for _ in range(5)]
    for request, cross in zip(requests, crossing, strict=True):
        pump.handle(pump.lsp, request)
        pump.handle(alice, cross)
    pump.run()
    paid = [book(pump.lsp).payments[request.payment_hash] for request in requests]
    paid += [book(alice).payments[request.payment_hash] for request in crossing]
    failed = [payment for payment in paid if payment.status == "failed"]
    assert failed
    assert {payment.failure for payment in failed} == {Failure.TEMPORARY_CHANNEL_FAILURE.reason}
    assert all(newest_link(client).failure is None for client in pump.clients)


@pytest.mark.parametrize(("delta", "received"), [(0, "too soon"), (5000, "too far")])
def test_an_expiry_that_nobody_would_accept_is_not_offered(
    pump: Pump, delta: int, received: str
) -> None:
    alice, bob, _ = pump.clients
    link, height = newest_link(alice), pump.chain.height
    for payer, payee in ((alice, bob), (pump.lsp, alice)):
        request = make_invoice(pump, payee, 1_000_000, min_final_cltv_expiry_delta=delta)
        refused = refusal_of(pump, payer, request)
        least = height + link.exit_blocks + CLAIM_BLOCKS + 144
        most = height + link.max_cltv_blocks
        assert f"cltv_expiry: expected {least}..{most}" in str(refused), received


def test_from_the_exit_deadline_on_nothing_is_offered_or_accepted(pump: Pump) -> None:
    link = newest_link(pump.clients[0])
    deadline = link.exit_deadline_height
    expiry = deadline + link.exit_blocks + 200
    check_offer(link, expiry, chain=chain_at(deadline - 1), height=deadline - 1)
    assert (
        acceptance_failure(link, expiry, chain=chain_at(deadline - 1), height=deadline - 1) is None
    )
    with pytest.raises(
        ValueError, match=f"below the exit deadline {deadline}, received {deadline}"
    ):
        check_offer(link, expiry, chain=chain_at(deadline), height=deadline)
    failure = acceptance_failure(link, expiry, chain=chain_at(deadline), height=deadline)
    assert failure is Failure.TEMPORARY_CHANNEL_FAILURE


def test_past_the_exit_deadline_both_roles_say_no() -> None:
    policy = replace(
        POLICY, active_blocks=144, dying_blocks=144, ready_min_blocks=1, step_blocks=10,
        states_per_layer=2, lstock_csv_blocks=10, to_self_delay_lsp=10, to_self_delay_client=10,
    )  # fmt: skip
    pump = live_factory(2, policy=policy)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, 10_000_000).status == "paid"
    early = make_invoice(pump, alice, 1_000_000)
    late = make_invoice(pump, bob, 1_000_000)
    deadline = newest_link(alice).exit_deadline_height
    pump.mine(deadline - 1 - pump.chain.height)
    assert pay(pump, alice, bob, 1_000_000).status == "paid"
    pump.chain.mine()
    pump.sync()
    assert pump.chain.height == deadline
    assert refusal_of(pump, pump.lsp, early).code == "payee_unknown"
    assert refusal_of(pump, alice, late).code == "no_channel"
    invoice = ev.InvoiceRequested(
        preimage=bytes(32), payment_secret=bytes(32), amount_msat=1, description="",
        expires_at=1, expiry_seconds=1, text="",
    )  # fmt: skip
    assert alice.driver is not None
    with pytest.raises(Rejected, match="no channel is ready to receive"):
        alice.driver.handle(invoice)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("late", ["lsp", "payee"])
def test_who_has_seen_the_deadline_gives_back_what_the_other_still_offers(late: str) -> None:
    policy = replace(
        POLICY, active_blocks=144, dying_blocks=144, ready_min_blocks=1, step_blocks=10,
        states_per_layer=2, lstock_csv_blocks=10, to_self_delay_lsp=10, to_self_delay_client=10,
    )  # fmt: skip
    pump = live_factory(2, policy=policy)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, 10_000_000).status == "paid"
    deadline = newest_link(alice).exit_deadline_height
    pump.mine(deadline - 1 - pump.chain.height)
    request = make_invoice(pump, bob, 1_000_000)
    told_alone(pump, pump.lsp if late == "lsp" else bob)
    pump.handle(alice, request)
    pump.run()
    pump.pass_holds()
    assert (
        failure_of(book(alice).payments[request.payment_hash])
        == Failure.TEMPORARY_CHANNEL_FAILURE.reason
    )


def test_a_price_above_the_payers_limit_is_not_paid(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    request = make_invoice(pump, bob, 1_000_000, fee_max_msat=1999)
    refused = refusal_of(pump, alice, request)
    assert refused.code == "fee_too_high"
    assert str(refused) == "fee_max_msat: expected at most 1,999 msat, the LSP asks 2 sat"
    assert pay(pump, alice, bob, 1_000_000, fee_max_msat=2000).status == "paid"


def test_an_lsp_that_asks_too_much_is_not_paid(pump: Pump) -> None:
    alice, bob, _ = pump.clients

    def dear(_sender: PumpNode, _receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        return (replace(message, fee_base_msat=10**6) if isinstance(message, m.Lobby) else message,)

    with pump.tampering(dear):
        pump.disconnect(alice)
        pump.connect(alice)
        pump.run()
    refused = refusal_of(pump, alice, make_invoice(pump, bob, 1_000_000))
    assert str(refused) == "fee_max_msat: expected at most 20 sat, the LSP asks 1,001 sat"


# What the LSP does not forward


def test_a_fee_that_is_too_low_is_insufficient(pump: Pump) -> None:
    alice, bob, _ = pump.clients

    def cheaper(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if isinstance(message, m.Lobby) and receiver is alice:
            return (replace(message, fee_base_msat=999),)
        return (message,)

    with pump.tampering(cheaper):
        pump.disconnect(alice)
        pump.connect(alice)
        pump.run()
    payment = pay(pump, alice, bob, 1_000_000)
    assert payment.fee_msat == 1999
    assert failure_of(payment) == Failure.FEE_INSUFFICIENT.reason
    assert balance(alice).own_msat == FIRST_MSAT
    assert book(pump.lsp).earned_msat == 0


def test_a_payee_without_another_channel_is_not_reached(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    payment = pay_changed(pump, alice, bob, 1_000_000, payee=b"\x02" * 33)
    assert failure_of(payment) == NOT_DELIVERED.reason
    assert balance(alice).own_msat == FIRST_MSAT


def test_an_expiry_that_leaves_no_time_to_forward_is_not_forwarded(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    delta = newest_link(bob).exit_blocks + CLAIM_BLOCKS + 144
    assert pay(pump, alice, bob, 1_000_000, min_final_cltv_expiry_delta=delta).status == "paid"
    n_forwarded = book(pump.lsp).n_finished
    payment = pay(pump, alice, bob, 1_000_000, min_final_cltv_expiry_delta=delta - 1)
    assert failure_of(payment) == NOT_DELIVERED.reason
    assert book(pump.lsp).n_finished == n_forwarded


@pytest.mark.parametrize(
    ("ahead", "delta", "failure"),
    [
        ("payer", "longest", Failure.EXPIRY_TOO_FAR),
        ("payee", "shortest", NOT_DELIVERED),
    ],
)
def test_who_sees_another_height_gives_back_what_lies_outside_of_it(
    pump: Pump, ahead: str, delta: str, failure: Failure
) -> None:
    alice, bob, _ = pump.clients
    link = newest_link(bob)
    deltas = {
        "longest": link.max_cltv_blocks - link.exit_blocks - 36,
        "shortest": link.exit_blocks + CLAIM_BLOCKS + 144,
    }
    told_alone(pump, alice if ahead == "payer" else bob)
    payment = pay(pump, alice, bob, 1_000_000, min_final_cltv_expiry_delta=deltas[delta])
    assert failure_of(payment) == failure.reason
    assert INVOICE_SLACK_BLOCKS > 1, "an honest invoice leaves room for that"


# What a payee does not take


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "changes",
    [
        {"payment_secret": bytes(32)},
        {"amount_msat": 999_999},
        {"amount_msat": 2_000_001},
        {"payment_hash": bytes(32)},
    ],
    ids=["wrong secret", "too little", "more than twice", "no such invoice"],
)
def test_whatever_does_not_pay_an_invoice_gets_one_answer(
    pump: Pump, changes: dict[str, Any]
) -> None:
    alice, bob, _ = pump.clients
    for payer in (alice, pump.lsp):
        payment = pay_changed(pump, payer, bob, 1_000_000, **changes)
        told = UNKNOWN_DETAILS if payer is pump.lsp else NOT_DELIVERED
        assert failure_of(payment) == told.reason
    assert {invoice.status for invoice in book(bob).invoices.values()} == {"open"}
    assert balance(alice).own_msat == FIRST_MSAT
    assert balance(bob).own_msat == 0


def test_twice_the_amount_is_taken_whole(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    assert pay_changed(pump, alice, bob, 1_000_000, amount_msat=2_000_000).status == "paid"
    assert balance(bob).own_msat == 2_000_000


def test_an_invoice_is_paid_once_whoever_pays_again(pump: Pump) -> None:
    alice, bob, carol = pump.clients
    assert pay(pump, pump.lsp, carol, FIRST_MSAT).status == "paid"
    request = make_invoice(pump, bob, 1_000_000)
    for payer in (alice, alice, carol, pump.lsp):
        pump.handle(payer, request)
        pump.run()
        pump.pass_holds()
    assert book(alice).payments[request.payment_hash].status == "paid"
    for late, told in ((carol, NOT_DELIVERED), (pump.lsp, UNKNOWN_DETAILS)):
        payment = book(late).payments[request.payment_hash]
        assert failure_of(payment) == told.reason
    assert balance(bob).own_msat == 1_000_000
    assert balance(carol).own_msat == FIRST_MSAT


def test_an_expired_invoice_is_not_paid_unless_it_was(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    paid, late = make_invoice(pump, bob, 1_000_000), make_invoice(pump, bob, 1_000_000)
    pump.handle(alice, paid)
    pump.run()
    for request in (paid, late):
        pump.pass_deadline(bob, fx.InvoiceDeadline(payment_hash=request.payment_hash))
    pump.handle(alice, late)
    pump.run()
    pump.pass_holds()
    assert book(bob).invoices[paid.payment_hash].status == "paid"
    assert book(bob).invoices[late.payment_hash].status == "expired"
    assert failure_of(book(alice).payments[late.payment_hash]) == NOT_DELIVERED.reason
    (forward,) = [one for one in book(pump.lsp).finished.values() if one.status == "failed"]
    assert forward.failure == UNKNOWN_DETAILS.reason, "the operator reads what the payee said"


# A payee that is away


def held_deadlines(pump: Pump) -> list[fx.Deadline]:
    return [deadline for _, deadline in pump.deadlines_of(fx.HoldDeadline)]


@pytest.fixture
def held(pump: Pump) -> tuple[Pump, ev.PayRequested]:
    """A payment of Alice that waits for Bob."""
    alice, bob, _ = pump.clients
    request = make_invoice(pump, bob, 1_000_000)
    pump.disconnect(bob)
    pump.handle(alice, request)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "pending"
    assert len(held_deadlines(pump)) == 1
    return pump, request


def test_a_payment_waits_for_its_payee(held: tuple[Pump, ev.PayRequested]) -> None:
    pump, request = held
    pump.connect(pump.clients[1])
    pump.run()
    assert book(pump.clients[0]).payments[request.payment_hash].status == "paid"
    assert not held_deadlines(pump)


def test_a_payment_does_not_wait_for_ever(held: tuple[Pump, ev.PayRequested]) -> None:
    pump, request = held
    pump.pass_deadline(pump.lsp, held_deadlines(pump)[0])
    pump.run()
    payment = book(pump.clients[0]).payments[request.payment_hash]
    assert failure_of(payment) == Failure.TEMPORARY_CHANNEL_FAILURE.reason
    assert balance(pump.clients[0]).own_msat == FIRST_MSAT


def test_who_comes_and_goes_does_not_prolong_the_wait_of_others(
    held: tuple[Pump, ev.PayRequested],
) -> None:
    pump, _ = held
    carol = pump.clients[2]
    n_set = len(hold_wishes(pump))
    pump.disconnect(carol)
    pump.connect(carol)
    pump.run()
    assert len(hold_wishes(pump)) == n_set


def test_a_payer_that_was_away_is_told_when_it_is_back(held: tuple[Pump, ev.PayRequested]) -> None:
    pump, request = held
    alice, bob, _ = pump.clients
    pump.disconnect(alice)
    pump.pass_deadline(pump.lsp, held_deadlines(pump)[0])
    assert not held_deadlines(pump)
    # Its payee came too late: who was told to forget it must not be told something else.
    pump.connect(bob)
    pump.run()
    assert not lsp_link(pump, newest_link(bob)).state.htlcs
    pump.connect(alice)
    pump.run()
    assert failure_of(book(alice).payments[request.payment_hash]) == NOT_DELIVERED.reason
    assert not held_deadlines(pump)


def test_an_lsp_that_restarted_waits_again(held: tuple[Pump, ev.PayRequested]) -> None:
    pump, request = held
    alice, bob, _ = pump.clients
    with pump.tampering(lambda _sender, receiver, message: () if receiver is bob else (message,)):
        pump.restart(pump.lsp)
        pump.run()
        assert len(held_deadlines(pump)) == 1
        pump.pass_deadline(pump.lsp, held_deadlines(pump)[0])
        pump.run()
    assert book(alice).payments[request.payment_hash].status == "failed"


def hold_wishes(pump: Pump) -> list[fx.Deadline]:
    deadlines = [effect.deadline for effect in pump.wishes(pump.lsp, fx.SetDeadline)]
    return [deadline for deadline in deadlines if isinstance(deadline, fx.HoldDeadline)]


# A peer that breaks a limit on the wire ends its channel


def an_add(pump: Pump, **changes: Any) -> m.UpdateAddHtlc:
    """Return an HTLC that Alice may offer, but for the changes."""
    alice, bob, _ = pump.clients
    link = newest_link(alice)
    fields: dict[str, Any] = {
        "channel_id": link.channel_id,
        "htlc_id": link.state.next_id(link.me),
        "amount_msat": 1_000_000,
        "payment_hash": bytes(32),
        "cltv_expiry": pump.chain.height + link.max_cltv_blocks,
        "delivery": m.Delivery(payee=bob.node_id, payment_secret=bytes(32), amount_msat=1),
    }
    return m.UpdateAddHtlc(**{**fields, **changes})


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"htlc_id": 1}, "id: expected 0, received 1"),
        ({"amount_msat": 0}, "htlc_minimum_msat: expected at least 1 msat, received 0 sat"),
        (
            {"amount_msat": FIRST_MSAT + 1},
            f"amount_msat: expected at most {msat(FIRST_MSAT)}, so that a reserve of 0 sat",
        ),
        (
            {"amount_msat": (1 << 64) - 1},
            f"max_htlc_value_in_flight_msat: expected at most {msat(FLIGHT_MSAT)}, received 18",
        ),
        ({"cltv_expiry": 0}, "cltv_expiry: expected 1..499999999, received 0"),
        ({"cltv_expiry": 500_000_000}, "cltv_expiry: expected 1..499999999, received 500000000"),
    ],
)
def test_an_update_outside_of_the_limits_ends_the_channel(
    pump: Pump, changes: dict[str, int], reason: str
) -> None:
    pump.tell(pump.lsp, pump.clients[0], an_add(pump, **changes))
    failure = lsp_link(pump, newest_link(pump.clients[0])).failure
    assert failure is not None
    assert failure.startswith(reason)
    assert_others_go_on(pump)


@pytest.mark.parametrize(
    ("amount_msat", "n_taken", "reason"),
    [
        (1_000_000, 12, "max_accepted_htlcs: expected at most 12, received 13"),
        (
            TRIMMED_MSAT,
            5,
            "max_dust_htlc_exposure_msat: expected at most 5,000 sat, received 5,400 sat",
        ),
    ],
)
def test_one_update_too_many_ends_the_channel(
    pump: Pump, amount_msat: int, n_taken: int, reason: str
) -> None:
    alice = pump.clients[0]
    for htlc_id in range(n_taken):
        pump.tell(pump.lsp, alice, an_add(pump, htlc_id=htlc_id, amount_msat=amount_msat))
    assert lsp_link(pump, newest_link(alice)).failure is None
    pump.tell(pump.lsp, alice, an_add(pump, htlc_id=n_taken, amount_msat=amount_msat))
    assert lsp_link(pump, newest_link(alice)).failure == reason
    assert_others_go_on(pump)


def _fulfil(channel_id: bytes) -> m.Message:
    return m.UpdateFulfillHtlc(channel_id=channel_id, htlc_id=0, payment_preimage=bytes(32))


def _fail(channel_id: bytes) -> m.Message:
    return m.UpdateFailHtlc(channel_id=channel_id, htlc_id=7, reason=b"no")


@pytest.mark.parametrize("removal", [_fulfil, _fail])
def test_the_end_of_an_htlc_that_is_none_ends_the_channel(
    pump: Pump, removal: Callable[[bytes], m.Message]
) -> None:
    alice = pump.clients[0]
    channel_id = newest_link(alice).channel_id
    pump.tell(pump.lsp, alice, removal(channel_id))
    failure = lsp_link(pump, newest_link(alice)).failure
    assert failure == "id: expected an HTLC that is locked in, received unknown"
    assert_others_go_on(pump)


def test_a_message_about_anothers_channel_is_dropped(pump: Pump) -> None:
    alice, bob, _ = pump.clients
    pump.tell(pump.lsp, bob, an_add(pump, amount_msat=0))
    pump.tell(bob, pump.lsp, an_add(pump, amount_msat=0))
    pump.run()
    assert lsp_link(pump, newest_link(alice)).failure is None
    assert_others_go_on(pump)


def assert_others_go_on(pump: Pump) -> None:
    """Check that every daemon goes on, and that Bob and Carol do not notice."""
    pump.run()
    _, bob, carol = pump.clients
    pump.restart(pump.lsp)
    pump.run()
    assert pay(pump, pump.lsp, bob, 5_000_000).status == "paid"
    assert pay(pump, bob, carol, 1_000_000).status == "paid"
    for client in (bob, carol):
        assert newest_link(client).failure is None
        assert lsp_link(pump, newest_link(client)).failure is None
