"""A funding that leaves the chain: before it is deep, when it is live, and for ever."""

from typing import Final

import pytest
from tests.protocol.forked_world import ForkedPump
from tests.protocol.paying_clients import balance, book, make_invoice, open_factory, pay
from tests.protocol.pump import PumpNode
from tests.protocol.sleepers import all_away, lsp_state, sleeping
from tests.protocol.test_abandoned_fundings import abandon
from tests.protocol.unanswered import WORTH_MSAT, only_expiry, pending_for
from tests.simulation.sums import locked_sat

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.daemon.views import client as client_views
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.channels import status_of
from cromford.protocol import events as ev
from cromford.protocol import policy
from cromford.protocol.channels.depth import NOT_DEEP
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.wallet.spending import plan_return

pytestmark = pytest.mark.sampled_file(4)

FIRST_MSAT: Final = 30_000_000
PAID_MSAT: Final = 1_000_000
LATE_BLOCKS: Final = 5  # Of those that an exit has to spare before an HTLC expires.
EXIT_BLOCKS: Final = 40
SAVED_SAT: Final = 8_000  # Of 9,000, after the fees of what takes it.
AN_INVOICE: Final = ev.InvoiceRequested(
    preimage=bytes(32),
    payment_secret=bytes(32),
    amount_msat=PAID_MSAT,
    description="",
    expires_at=3600,
    expiry_seconds=3600,
    text="",
)


def live(n_clients: int = 2) -> ForkedPump:
    """Return a live factory whose funding is exactly as deep as it has to be, with money in it."""
    pump = ForkedPump(n_clients)
    open_factory(pump)
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    return pump


def shown(pump: ForkedPump) -> tuple[str, ...]:
    """Return a factory's status at its LSP, and at each client."""
    clients = (client_views.status_of(node.state, pump.held(node)) for node in pump.clients)
    return (lsp_views.status_of(pump.factory), *clients)


def rejected(node: PumpNode, event: ev.Event) -> str:
    """Return by which name a participant refuses what its operator asks for."""
    assert node.driver is not None
    with pytest.raises(Rejected) as refused:
        node.driver.handle(event)
    assert refused.value.retryable
    return refused.value.code


@pytest.mark.parametrize(
    ("n_blocks", "depth", "words"),
    [(1, 2, ("funding", *["confirming"] * 2)), (3, 0, ("funding", *["waiting_for_funding"] * 2))],
)
def test_a_live_factory_whose_funding_is_shallow_again_takes_no_payment_until_it_is_deep(
    n_blocks: int, depth: int, words: tuple[str, ...]
) -> None:
    pump = live()
    alice, bob = pump.clients
    funding = pump.attempt.funding_tx.txid
    early = make_invoice(pump, bob, PAID_MSAT)
    pump.take_back(n_blocks)
    for node in pump.everybody:
        assert node.state.chain.depth(funding) == depth
    assert shown(pump) == words
    for asker, event in ((alice, early), (pump.lsp, early), (bob, AN_INVOICE)):
        assert rejected(asker, event) == NOT_DEEP
    for _ in range(3 - depth):
        assert rejected(alice, early) == NOT_DEEP
        pump.mine()
    assert shown(pump) == ("live", "live", "live")
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"
    assert pay(pump, bob, alice, 2 * PAID_MSAT).status == "paid"
    assert balance(alice).own_msat > FIRST_MSAT


def test_a_channel_that_grew_large_is_paid_through_at_a_large_ones_depth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = live()
    alice, bob = pump.clients
    capacity_sat = book(alice).ordered_links[0].present.capacity_sat
    monkeypatch.setattr(policy, "LARGE_CAPACITY_SAT", capacity_sat)
    early = make_invoice(pump, bob, PAID_MSAT)
    while pump.factory.chain.depth(pump.attempt.funding_tx.txid) < policy.MIN_DEPTH_LARGE:
        assert channel_words(pump, alice) == ("pending", "pending")
        line = client_views.summary(alice.state, pump.held(alice), FRESH)
        assert line["min_depth"] == policy.MIN_DEPTH_LARGE
        for asker, event in ((alice, early), (pump.lsp, early), (bob, AN_INVOICE)):
            assert rejected(asker, event) == NOT_DEEP
        pump.mine()
    assert channel_words(pump, alice) == ("open", "open")
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"


def channel_words(pump: ForkedPump, client: PumpNode) -> tuple[str, str]:
    """Return how a client's channel stands, as both sides show it."""
    link = book(client).ordered_links[0]
    other = pump.factory.book.links[link.channel_id]
    return (
        status_of(link, client_views.standing_of(client.state, link, FRESH)),
        status_of(other, lsp_views.standing_of(pump.factory, other, FRESH)),
    )


@pytest.mark.parametrize("side", ["payee"])
def test_an_htlc_that_falls_due_while_its_funding_is_out_of_the_chain_is_saved_once_it_is_back(
    side: str,
) -> None:
    """Nothing can be published before; the blocks that are kept for a claim are enough."""
    pump = ForkedPump(3)
    open_factory(pump)
    node, link = pending_for(pump, side, WORTH_MSAT)
    funding = pump.attempt.funding_tx
    due_height = publish_height(link, only_expiry(link), chain=node.state.chain)
    pump.take_back(node.state.chain.depth(funding.txid), without=[funding])
    while pump.chain.height < due_height + LATE_BLOCKS:
        pump.mine_only()
    assert not any(pump.held(client).is_exiting for client in pump.clients)
    pump.mine(2)
    assert pump.held(node).is_exiting
    pump.mine(EXIT_BLOCKS)
    alice, bob, _ = pump.clients
    assert [payment.status for payment in book(alice).payments.values()] == ["paid"]
    assert [invoice.status for invoice in book(bob).invoices.values()] == ["paid"]
    assert bob.state.wallet.confirmed_sat() > SAVED_SAT


# A funding that was overtaken


def rival_of(pump: ForkedPump) -> Tx:
    """Return what a copy of the LSP signs: it pays a coin of the funding back to the wallet."""
    house = lsp_state(pump).house
    (tx_in,) = pump.attempt.funding_tx.inputs
    coin = house.wallet.coins[tx_in.outpoint]
    plan = plan_return(house.wallet, coin, feerate_sat_per_kw=1_000)
    asked = fx.SignSpending(tx=plan.tx, prevouts=(coin.txout,), paths=(coin.path,))
    (signed,) = pump.lsp.perform_signing(asked)
    assert isinstance(signed, ev.SpendingSigned)
    return signed.tx


def overtaken() -> tuple[ForkedPump, Tx]:
    """Return a world in which a live factory's funding was taken back, and a rival is deep."""
    pump = live()
    rival = rival_of(pump)
    pump.take_back(3)
    pump.mine_only(rival)
    pump.mine(2)
    assert pump.chain.confirmed[rival.txid] == pump.chain.height - 2
    return pump, rival


def test_a_live_factory_of_which_a_coin_is_spent_is_over_for_its_clients_too() -> None:
    """They do not take the LSP's word for it: each sees it on its own chain."""
    pump, _ = overtaken()
    assert shown(pump) == ("dead", "dead", "dead")
    for client in pump.clients:
        assert pump.held(client).given_up
        assert pump.held(client).aborted is None
        assert rejected(client, AN_INVOICE) == NOT_DEEP
    assert lsp_state(pump).wallet.reserved == {}
    assert locked_sat(lsp_state(pump)) == 0
    pump.join()
    pump.build(min_clients=2)
    pump.run()
    pump.mine(3)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("is_asleep", [False, True])
def test_a_funding_that_confirms_after_all_brings_its_factory_back_with_all_signatures(
    *, is_asleep: bool
) -> None:
    pump, rival = overtaken()
    alice, bob = pump.clients
    if is_asleep:
        all_away(pump)
        assert sleeping(pump) == {0}
    pump.take_back(3, without=[rival])
    for client in pump.clients if is_asleep else ():
        pump.connect(client)
    pump.run()
    assert shown(pump)[0] == "funding"
    pump.mine_only(pump.published[0])
    pump.mine(2)
    assert shown(pump) == ("live", "live", "live")
    funding_sat = pump.attempt.tree.funding_amount_sat
    assert locked_sat(lsp_state(pump)) == funding_sat
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"
    pump.handle(alice, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine(EXIT_BLOCKS)
    assert pump.chain.confirmed.keys() >= {tx.txid for tx in pump.held(alice).signed_branch.txs}
    assert alice.state.wallet.confirmed_sat() > (FIRST_MSAT - 2 * PAID_MSAT) // 1000


def test_coins_of_a_dead_funding_are_set_aside_again_while_it_could_confirm() -> None:
    pump, rival = overtaken()
    coins = {tx_in.outpoint for tx_in in pump.attempt.funding_tx.inputs}

    def free() -> set[OutPoint]:
        house = lsp_state(pump).house
        return {coin.outpoint for coin in house.wallet.free(house.chain.height)}

    pump.take_back(3, without=[rival])
    assert not free() & coins
    assert all(lsp_state(pump).wallet.reserved.get(coin) for coin in coins)
    pump.restart(pump.lsp)
    assert not free() & coins
    pump.mine_only(rival)
    pump.mine(2)
    assert lsp_state(pump).wallet.reserved == {}
    assert rival.outpoint(0) in free()


def test_a_funding_whose_death_was_undone_can_be_given_up_once_more() -> None:
    pump, rival = overtaken()
    pump.take_back(3, without=[rival])
    replacement = abandon(pump)
    assert shown(pump)[0] == "abandoned"
    pump.mine(3)
    assert replacement.txid in pump.chain.confirmed
    assert shown(pump) == ("dead", "dead", "dead")
    assert lsp_state(pump).wallet.reserved == {}
