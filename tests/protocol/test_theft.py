"""Attempts to take what belongs to others: each test is one, and shows that it gains nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode, Tamper
from tests.protocol.test_leaving import QUICK, reasons_to_leave, wallet_sat

from cromford import effects as fx
from cromford.bitcoin.timelock import LOCKTIME_THRESHOLD
from cromford.channel.stage import HtlcStage
from cromford.channel.terms import Party
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.channels import payments
from cromford.protocol.channels.htlc_rules import check_offer, forward_delta_blocks
from cromford.protocol.channels.signing import sign_if_due
from cromford.protocol.exiting.channel import given_up
from cromford.protocol.facts import FRESH
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS, INVOICE_SLACK_BLOCKS
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(5)

FIRST_MSAT: Final = 30_000_000
PAID_MSAT: Final = 9_000_000
ACCEPTED_BLOCKS: Final = CLAIM_BLOCKS + SAFETY_BLOCKS + INVOICE_SLACK_BLOCKS  # Beyond the exit.
SHORT: Final = replace(
    QUICK,
    tree_feerate_sat_per_kw=5_000,
    active_blocks=144,
    dying_blocks=144,
    ready_min_blocks=1,
)


def deaf_after(speaker: PumpNode, listener: PumpNode, last: type[m.Message]) -> Tamper:
    """Return a tamper: from some kind of message on the listener hears nothing about channels."""
    heard: list[bool] = []

    def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if (by, to) != (speaker, listener):
            return (message,)
        if isinstance(message, last):
            heard.append(True)
        return () if heard and isinstance(message, m.ChannelMessage) else (message,)

    return tamper


def mine_until(pump: Pump, condition: Callable[[], bool], *, most: int) -> None:
    """Mine until something holds."""
    for _ in range(most):
        if condition():
            return
        pump.mine()
    raise AssertionError(f"it did not hold within {most} blocks")


def test_a_payer_that_ignores_the_preimage_cannot_take_its_htlc_back() -> None:
    """Alice and Bob are one: Bob is paid, and Alice waits for the expiry of what she paid with."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, PAID_MSAT)
    link = newest_link(alice)
    with pump.tampering(deaf_after(pump.lsp, alice, m.UpdateFulfillHtlc)):
        pump.handle(alice, request)
        pump.run()
        pump.restart(pump.lsp)
        assert balance(bob).own_msat == PAID_MSAT
        assert book(alice).payments[request.payment_hash].status == "pending"
        pump.mine(2 * link.exit_blocks + ACCEPTED_BLOCKS + 60)
    kept_sat = (FIRST_MSAT - PAID_MSAT) // 1000
    assert "an HTLC expires" in reasons_to_leave(pump.lsp) + reasons_to_leave(alice)
    assert wallet_sat(alice) < kept_sat
    assert book(alice).payments[request.payment_hash].status == "paid", "the chain told"


def test_a_payee_shows_no_preimage_in_a_channel_whose_funding_left_the_chain() -> None:
    """The LSP may spend the factory's inputs elsewhere: what it offers then is worth nothing."""
    pump = live_factory(2, policy=QUICK)
    alice, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, alice, PAID_MSAT)
    funding_txid = alice.state.attempts[newest_link(alice).attempt_id].funding_tx.txid
    while alice.state.chain.depth(funding_txid):
        pump.handle(alice, ev.BlockRemoved(height=alice.state.chain.height))
    pump.handle(pump.lsp, request)
    pump.run()
    assert book(pump.lsp).payments[request.payment_hash].status == "failed"
    assert book(alice).invoices[request.payment_hash].status == "open"
    assert balance(alice).own_msat == FIRST_MSAT
    pump.sync()
    pump.handle(pump.lsp, request)
    pump.run()
    assert book(pump.lsp).payments[request.payment_hash].status == "paid"


def test_a_payment_hash_used_twice_pays_the_payee_once_and_the_payer_gets_one_back() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, carol = pump.clients
    for payer in (alice, carol):
        pay(pump, pump.lsp, payer, FIRST_MSAT)
    request = make_invoice(pump, bob, PAID_MSAT)
    for payer in (alice, carol):
        pump.handle(payer, request)
    pump.run()
    pump.pass_holds()
    statuses = [book(payer).payments[request.payment_hash].status for payer in (alice, carol)]
    assert sorted(statuses) == ["failed", "paid"]
    assert balance(bob).own_msat == PAID_MSAT
    kept_msat = balance(alice).own_msat + balance(carol).own_msat
    fee_msat = PAID_MSAT // 1000 + 1000
    assert kept_msat == 2 * FIRST_MSAT - PAID_MSAT - fee_msat
    assert book(pump.lsp).earned_msat == fee_msat


def test_who_closed_on_chain_is_offered_nothing_any_more_however_it_answers() -> None:
    """Alice's commitment confirms while her connection goes on as if nothing had happened."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    for client in (alice, bob):
        pay(pump, pump.lsp, client, FIRST_MSAT)
    link = newest_link(alice)
    outpoint = link.setting.funding.outpoint
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    mine_until(pump, lambda: outpoint in pump.lsp.state.chain.spends, most=60)
    request = make_invoice(pump, alice, PAID_MSAT)
    pump.handle(bob, request)
    pump.run()
    pump.pass_holds()
    assert book(bob).payments[request.payment_hash].status == "failed", "Bob may go on paying"
    assert not lsp_link(pump, link).is_open
    assert not book(pump.lsp).forwards


@pytest.mark.parametrize(("amount_msat", "is_defended"), [(1_000_000, True), (940_000, False)])
def test_payees_that_keep_silent_gain_nothing_and_do_not_drive_the_payer_out(
    amount_msat: int, *, is_defended: bool
) -> None:
    """An HTLC with an output costs its payee less than it brings: the LSP takes it back on chain.

    One without an output nobody can take: it is given back without leaving anybody. Else Alice
    would have to leave for both, for all her money, and the whole factory would be on chain.
    """
    pump = live_factory(3, policy=QUICK)
    alice, *silent = pump.clients
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)

    def never_bound(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_lost = by is pump.lsp and to in silent and isinstance(message, m.RevokeAndAck)
        return () if is_lost else (message,)

    with pump.tampering(never_bound):
        for payee in silent:
            pump.handle(alice, make_invoice(pump, payee, amount_msat))
            pump.run()
    for payee in silent:
        pump.disconnect(payee)
    pump.mine(2 * newest_link(alice).exit_blocks + ACCEPTED_BLOCKS + 60)
    assert reasons_to_leave(pump.lsp) == ["an HTLC expires"] * (2 if is_defended else 0)
    assert reasons_to_leave(alice) == []
    assert {payment.status for payment in book(alice).payments.values()} == {"failed"}


@pytest.mark.parametrize(("amount_msat", "n_given_up"), [(1_000_000, 0), (940_000, 1)])
def test_only_an_htlc_without_an_output_is_ever_given_up(amount_msat: int, n_given_up: int) -> None:
    """Not even while the funding is off the chain, and nobody can leave for it."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)
    request = make_invoice(pump, bob, amount_msat)
    with pump.tampering(deaf_after(pump.lsp, bob, m.RevokeAndAck)):
        pump.handle(alice, request)
        pump.run()
    link = lsp_link(pump, newest_link(bob))
    (live,) = link.state.htlcs
    late = live.htlc.cltv_expiry + 12
    assert len(given_up(book(pump.lsp), link, height=late)) == n_given_up
    assert not given_up(book(pump.lsp), link, height=late - 1)


def test_an_lsp_cannot_keep_a_payment_by_making_its_claim_dear() -> None:
    """What Bob's claim costs by the LSP's feerate is more than the HTLC holds; he leaves for it.

    Did he not, the LSP would have Alice's money at once, and Bob's with the factory's expiry.
    """
    pump = live_factory(3, policy=replace(QUICK, tree_feerate_sat_per_kw=5_000))
    alice, bob, _ = pump.clients
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)
    request = make_invoice(pump, bob, 5_000_000)
    pump.handle(alice, request)
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(bob)
    pump.run()
    assert book(bob).invoices[request.payment_hash].status == "paid"
    terms = newest_link(bob).setting.terms
    assert 130 * 20 + terms.htlc_tx_cost_sat(is_offered=False) > 5_000
    pump.mine(newest_link(bob).exit_blocks + ACCEPTED_BLOCKS)
    assert reasons_to_leave(bob) == ["an HTLC expires"]


@pytest.mark.parametrize(("balance_sat", "leaves"), [(353, False), (354, True)])
def test_at_the_exit_deadline_a_client_leaves_for_any_balance_that_has_an_output(
    balance_sat: int, *, leaves: bool
) -> None:
    """By the terms' feerate a sweep of it would cost 2,600 sat; but it can wait for a lower one."""
    pump = live_factory(3, policy=SHORT)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, 1000 * balance_sat)
    deadline = newest_link(alice).exit_deadline_height
    pump.disconnect(alice)
    while pump.chain.height < deadline:
        pump.chain.mine()
    pump.sync()
    assert reasons_to_leave(alice) == (["the exit deadline"] if leaves else [])


def test_an_lsp_cannot_make_leaving_too_dear_by_its_own_feerate() -> None:
    """The LSP has paid the branch's fees already, whatever they are: leaving costs Alice a sweep.

    With them as her cost she stays beyond the exit deadline, and the LSP takes all at the expiry.
    """
    pump = live_factory(3, policy=SHORT)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, 12_000_000)
    deadline = newest_link(alice).exit_deadline_height
    pump.disconnect(alice)
    while pump.chain.height < deadline:
        pump.chain.mine()
    pump.sync()
    assert reasons_to_leave(alice) == ["the exit deadline"]


def test_an_htlc_that_is_on_no_commitment_drives_nobody_out() -> None:
    """Bob answers nothing after an HTLC of a satoshi, so the next waits on the LSP's side alone."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)

    def mute(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        is_answer = isinstance(message, m.RevokeAndAck | m.CommitmentSigned)
        return () if by is bob and is_answer else (message,)

    with pump.tampering(mute):
        for amount_msat in (1000, PAID_MSAT):
            pump.handle(alice, make_invoice(pump, bob, amount_msat))
            pump.run()
    pump.disconnect(bob)
    stages = [live.stage for live in lsp_link(pump, newest_link(bob)).state.htlcs]
    assert stages == [HtlcStage.ADD_SIGNED, HtlcStage.ADD_PROPOSED]
    pump.mine(2 * newest_link(bob).exit_blocks + ACCEPTED_BLOCKS + 60)
    assert reasons_to_leave(pump.lsp) == []


@pytest.mark.parametrize(
    ("delivery", "cltv_expiry"),
    [
        ({"amount_msat": 0}, None),
        ({"amount_msat": PAID_MSAT + 8_001}, None),
        ({"amount_msat": 2**64 - 1}, None),
        ({"amount_msat": 2**63}, None),
        ({"payee": bytes(33)}, None),
        ({"payee": b"\x02" * 33}, None),
        ({"payee": "alice"}, None),
        ({"payee": "lsp"}, None),
        ({"payment_secret": bytes(32)}, None),
        ({}, 1),
        ({}, 800),
        ({}, 100_000),
        ({}, LOCKTIME_THRESHOLD - 1),
    ],
)
def test_an_htlc_that_is_signed_and_makes_no_sense_is_given_back(
    monkeypatch: pytest.MonkeyPatch, delivery: dict[str, Any], cltv_expiry: int | None
) -> None:
    """What stands in place of an onion is covered by no signature, and Alice checks no expiry."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice, bob = pump.clients
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)
    request = make_invoice(pump, bob, PAID_MSAT)
    names = {"alice": alice.node_id, "lsp": pump.lsp.node_id}
    changes = {name: names.get(value, value) for name, value in delivery.items()}

    def spoil(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if by is alice and isinstance(message, m.UpdateAddHtlc):
            return (replace(message, delivery=replace(message.delivery, **changes)),)
        return (message,)

    def carefree(link: Link, expiry: int, *, chain: KnownChain, height: int) -> None:
        if link.me is Party.OPENER:
            check_offer(link, expiry, chain=chain, height=height)

    monkeypatch.setattr(payments, "check_offer", carefree)
    if cltv_expiry is not None:
        delta = forward_delta_blocks(newest_link(alice), alice.state.chain)
        delta += alice.state.chain.height
        request = replace(request, min_final_cltv_expiry_delta=cltv_expiry - delta)
    with pump.tampering(spoil):
        pump.handle(alice, request)
        pump.run()
        pump.pass_holds()
    assert book(alice).payments[request.payment_hash].status == "failed"
    assert balance(alice).own_msat == balance(bob).own_msat == FIRST_MSAT
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"


def test_htlcs_that_are_equal_in_everything_are_each_taken_once() -> None:
    """Hash, amount and expiry alike: their outputs differ in nothing, and their order by id."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    request = make_invoice(pump, bob, PAID_MSAT)
    link = newest_link(alice)
    pump.handle(alice, request)
    pump.run()
    # A payer that is no program of ours pays again what is on its way.
    turn = Turn(alice.state, client_role.apply, FRESH)
    payments.start_payment(
        turn,
        newest_link(alice),
        request,
        fee_msat=PAID_MSAT // 1000 + 1000,
        cltv_expiry=newest_link(alice).state.htlcs[0].htlc.cltv_expiry,
    )
    sign_if_due(turn, turn.link(link.channel_id))
    assert alice.driver is not None
    alice.driver._remember(turn.decision, [])
    for effect in turn.decision.effects:
        assert isinstance(effect, fx.SignCommitment)
        for event in alice.driver._perform(effect):
            pump.handle(alice, event)
    pump.run()
    assert len(lsp_link(pump, link).finished.commitment.content.htlcs) == 2
    pump.connect(bob)
    pump.run()
    pump.pass_holds()
    assert balance(bob).own_msat == PAID_MSAT
    assert balance(alice).own_msat == FIRST_MSAT - PAID_MSAT - PAID_MSAT // 1000 - 1000
    assert newest_link(alice).failure is None
    assert not newest_link(alice).state.htlcs
