"""Moving out of a factory that dies costs nothing, and nobody else rides for nothing."""

import pytest
from tests.protocol.moving_clients import (
    factory_with_money,
    mine_to_dying,
    own_msat,
    told,
)
from tests.protocol.paying_clients import book, make_invoice, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_moving_out import ALL_MSAT, StayingPump

from cromford.protocol.channels import client as channels
from cromford.protocol.channels.forwarding import ForwardingRules
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.lobby.choosing import lasting_entries
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m


def rules(*, is_dying: bool) -> ForwardingRules:
    policy = LspPolicy()
    return ForwardingRules(
        fee_base_msat=policy.fee_base_msat,
        fee_proportional_millionths=policy.fee_proportional_millionths,
        hold_seconds=0,
        is_usable=lambda _: True,
        is_dying=lambda _: is_dying,
    )


def delivery_to(payee: bytes, *, amount_msat: int = 7_000_000) -> m.Delivery:
    return m.Delivery(payee=payee, payment_secret=bytes(32), amount_msat=amount_msat)


def lsp_links(pump: Pump) -> tuple[Link, ...]:
    return tuple(book(pump.lsp).links.values())


@pytest.mark.parametrize(
    ("is_own", "is_dying", "price_msat"),
    [(True, True, 0), (True, False, 8_000), (False, True, 8_000), (False, False, 8_000)],
)
def test_only_ones_own_money_out_of_a_factory_that_dies_costs_nothing(
    *, is_own: bool, is_dying: bool, price_msat: int
) -> None:
    (link, other) = lsp_links(factory_with_money(2))
    payee = link.node_id if is_own else other.node_id
    assert rules(is_dying=is_dying).price_msat(link, delivery_to(payee)) == price_msat


@pytest.mark.parametrize(("amount_msat", "price_msat"), [(329_999, 1_329), (330_000, 0)])
def test_crumbs_are_not_moved_for_nothing(amount_msat: int, price_msat: int) -> None:
    (link, _) = lsp_links(factory_with_money(2))
    delivery = delivery_to(link.node_id, amount_msat=amount_msat)
    assert rules(is_dying=True).price_msat(link, delivery) == price_msat


def test_a_stranger_is_charged_the_usual_price_in_the_dying_period() -> None:
    pump = factory_with_money(2, kind=StayingPump)
    alice, bob = pump.clients
    mine_to_dying(pump)
    paid = pay(pump, alice, bob, 1_000_000)
    assert (paid.status, paid.fee_msat) == ("paid", 2_000)
    assert book(pump.lsp).earned_msat == 2_000
    offered = offer_free(pump, alice, bob)
    assert book(alice).payments[offered].failure == Failure.FEE_INSUFFICIENT.reason


def offer_free(pump: Pump, payer: PumpNode, payee: PumpNode) -> bytes:
    """Let a client pay another without the LSP's fee; return the payment's hash."""
    request = make_invoice(pump, payee, 1_000_000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(channels, "forwarding_fee_msat", lambda *_, **__: 0)
        pump.handle(payer, request)
    pump.run()
    return request.payment_hash


def test_free_money_goes_to_a_factory_that_lasts_only() -> None:
    """Between two that die it could be moved to and fro for nothing."""
    pump = factory_with_money(2)
    alice = pump.clients[0]
    house = pump.lsp.state.house
    assert len(lasting_entries(house, alice.node_id)) == 1
    mine_to_dying(pump)
    pump.mine()
    first, second = pump.lsp.state.house.factories()
    assert lasting_entries(pump.lsp.state.house, alice.node_id) == (second,)
    assert own_msat(pump, alice) == (0, ALL_MSAT[0])
    assert [one.to for one in told(pump.lsp, cr.HtlcForwarded)] == [second.stream]
    assert first.is_dying(1, height=pump.chain.height)
