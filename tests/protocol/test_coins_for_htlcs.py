"""Where nothing pays for itself: coins before joining, and one for each HTLC with an output."""

import itertools
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import book, live_factory, make_invoice, pay
from tests.protocol.pump import Pump

from cromford.factory.terms import FeePolicy
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Payment
from cromford.protocol.policy import LspPolicy
from cromford.wallet.account import RECEIVE
from cromford.watch.feerates import OwnFees

EPHEMERAL: Final = LspPolicy(
    min_clients=1, min_depth=1, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0
)
ENDOGENOUS: Final = LspPolicy(min_clients=1, min_depth=1)
AMOUNT_MSAT: Final = 2_000_000
DEAR: Final = OwnFees(mempool_min_sat_per_kw=750)


def with_coins(monkeypatch: pytest.MonkeyPatch, n_coins: int, *, sat: int = 60_000) -> None:
    monkeypatch.setattr("tests.protocol.pump.N_CHILDREN", n_coins)
    monkeypatch.setattr("tests.protocol.pump.CHILD_SAT", sat)


def paid_at_once(pump: Pump, n_payments: int) -> list[str]:
    """Let the LSP pay a client several invoices in one breath; return what became of each."""
    invoices = [make_invoice(pump, pump.clients[0], AMOUNT_MSAT) for _ in range(n_payments)]
    for invoice in invoices:
        pump.handle(pump.lsp, invoice)
    pump.run()
    payments: list[Payment] = [pump.lsp.state.house.payments[one.payment_hash] for one in invoices]
    return sorted(payment.status for payment in payments)


@pytest.mark.parametrize("n_coins", [0, 1])
def test_whoever_cannot_pay_for_its_way_out_does_not_join(
    monkeypatch: pytest.MonkeyPatch, n_coins: int
) -> None:
    with_coins(monkeypatch, n_coins, sat=1_000)
    pump = Pump(1, policy=EPHEMERAL)
    pump.join()
    pump.build()
    pump.run()
    (attempt,) = pump.clients[0].state.attempts.values()
    refused = (
        "refused: fee_policy: expected ephemeral with coins of at least 2164 sat for the way out, "
        f"received coins of {1_000 * n_coins} sat"
    )
    assert attempt.aborted == refused
    assert pump.clients[0].state.wish is None
    assert not pump.is_funded()


def test_dust_pays_for_no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together these coins hold enough, and each costs nearly all that it holds."""
    with_coins(monkeypatch, 12, sat=200)
    pump = Pump(1, policy=EPHEMERAL)
    pump.join()
    pump.build()
    pump.run()
    assert not pump.is_funded()


def test_with_coins_for_it_a_client_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    with_coins(monkeypatch, 1, sat=2_164)
    assert live_factory(1, policy=EPHEMERAL).is_funded()


def test_an_htlc_for_which_there_is_no_coin_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with_coins(monkeypatch, 1)
    pump = live_factory(1, policy=EPHEMERAL)
    assert paid_at_once(pump, 2) == ["failed", "paid"]
    assert paid_at_once(pump, 1) == ["paid"], "one after the other is no trouble"


def test_with_two_coins_there_is_room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    with_coins(monkeypatch, 2)
    assert paid_at_once(live_factory(1, policy=EPHEMERAL), 2) == ["paid", "paid"]


def test_one_client_takes_no_more_of_the_houses_coins_than_it_leaves_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_coins(monkeypatch, 4)
    pump = live_factory(2, policy=EPHEMERAL)
    alice, bob = pump.clients
    invoices = [make_invoice(pump, who, AMOUNT_MSAT) for who in (alice, alice, alice, alice, bob)]
    for invoice in invoices:
        pump.handle(pump.lsp, invoice)
    pump.run()
    begun = pump.lsp.state.house.payments
    known = [begun.get(invoice.payment_hash) for invoice in invoices]
    assert [one and one.status for one in known] == ["paid", "paid", None, None, "paid"]


def test_a_payer_without_a_coin_for_it_offers_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with_coins(monkeypatch, 1)
    pump = live_factory(2, policy=EPHEMERAL)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, 30_000_000).status == "paid"
    first, second = (make_invoice(pump, bob, AMOUNT_MSAT) for _ in range(2))
    pump.handle(alice, first)
    with pytest.raises(Rejected, match="coins: expected a coin in the wallet for each HTLC"):
        client_role.decide(alice.state, second, alice.facts)
    pump.run()
    assert book(alice).payments[first.payment_hash].status == "paid"


def test_fees_agreed_are_enough_until_the_minimum_is_above_them() -> None:
    pump = live_factory(1, policy=ENDOGENOUS)
    assert paid_at_once(pump, 3) == ["paid"] * 3, "2 sat/vB were agreed: no coin is needed"
    client = pump.clients[0]
    client.fees = replace(DEAR)
    assert paid_at_once(pump, 1) == ["failed"], "its mempool asks for 3, and it has no coin"
    client.fees = OwnFees()
    assert paid_at_once(pump, 1) == ["paid"]


def test_a_coin_that_pays_for_no_child_makes_room_for_no_htlc() -> None:
    """Its address is known to the LSP: dust must not make a client take what it cannot claim."""
    pump = live_factory(1, policy=ENDOGENOUS)
    client = pump.clients[0]
    client.fees = replace(DEAR)
    for amount_sat, status in ((330, "failed"), (60_000, "paid")):
        pump.chain.fund(client.state.wallet.next_script(RECEIVE), amount_sat)
        pump.sync()
        assert paid_at_once(pump, 1) == [status]


def empty_the_wallet(pump: Pump) -> None:
    """Let the LSP's operator pay all that is in its wallet to somebody else."""
    script = b"\x51\x20" + bytes(31) + b"\x01"
    pump.handle(
        pump.lsp,
        ev.SpendingRequested(script_pubkey=script, amount_sat=None, feerate_sat_per_kw=500),
    )
    pump.run()
    pump.mine()


def give_house(pump: Pump, n_coins: int) -> None:
    """Let the LSP's house have so many coins, and no other."""
    empty_the_wallet(pump)
    for _ in range(n_coins):
        pump.chain.fund(pump.lsp.state.house.wallet.next_script(RECEIVE), 60_000)
    pump.sync()


def test_a_house_does_not_count_dust_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can pay it to an address that it showed."""
    with_coins(monkeypatch, 4)
    pump = live_factory(1, policy=EPHEMERAL)
    empty_the_wallet(pump)
    pump.chain.fund(pump.lsp.state.house.wallet.next_script(RECEIVE), 330)
    pump.sync()
    invoice = make_invoice(pump, pump.clients[0], AMOUNT_MSAT)
    with pytest.raises(Rejected, match="coins"):
        lsp_role.decide(pump.lsp.state, invoice, pump.lsp.facts)
    pump.chain.fund(pump.lsp.state.house.wallet.next_script(RECEIVE), 5_000)
    pump.sync()
    assert paid_at_once(pump, 1) == ["paid"]


def test_clients_that_act_together_leave_a_coin_to_whoever_has_none() -> None:
    """Each takes what it can, one after the other; the last has a channel like any other."""
    pump = live_factory(5, policy=EPHEMERAL)
    give_house(pump, 8)
    invoices = [
        [make_invoice(pump, client, AMOUNT_MSAT) for _ in range(5)] for client in pump.clients
    ]
    for invoice in itertools.chain(*invoices):
        pump.handle(pump.lsp, invoice)
    begun = pump.lsp.state.house.payments
    n_begun = [sum(one.payment_hash in begun for one in each) for each in invoices]
    assert n_begun == [4, 1, 1, 1, 1]


def two_factories(policy: LspPolicy, *, n_coins: int) -> Pump:
    """Return two clients, each alone in a factory of its own, and coins of their LSP's house."""
    pump = Pump(2, policy=policy)
    for client in pump.clients:
        pump.join(client)
        pump.build()
        pump.run()
        pump.mine(policy.min_depth)
    give_house(pump, n_coins)
    return pump


def paid_in_each(pump: Pump, n_each: int) -> list[str]:
    """Let the LSP pay both clients several invoices in one breath; return what became of each."""
    invoices = [
        make_invoice(pump, client, AMOUNT_MSAT) for client in pump.clients for _ in range(n_each)
    ]
    for invoice in invoices:
        pump.handle(pump.lsp, invoice)
    pump.run()
    known = [pump.lsp.state.house.payments.get(one.payment_hash) for one in invoices]
    return ["none" if one is None else one.status for one in known]


@pytest.mark.parametrize(
    ("n_coins", "n_each", "became"),
    [
        (1, 1, ["paid", "none"]),
        (2, 1, ["paid", "paid"]),
        (3, 2, ["paid", "paid", "paid", "none"]),
        (4, 3, ["paid", "paid", "none", "paid", "none", "none"]),
    ],
)
def test_a_coin_of_the_house_counts_for_one_factory_alone(
    n_coins: int, n_each: int, became: list[str]
) -> None:
    pump = two_factories(EPHEMERAL, n_coins=n_coins)
    assert len(pump.lsp.state.factories) == 2
    assert paid_in_each(pump, n_each) == became
    assert paid_in_each(pump, 1)[0] == "paid", "what is paid needs no coin any more"
