"""A channel that failed is frozen for as long as the policy says, and not until the deadline."""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.stalling import lag, recover
from tests.protocol.test_exit_guards import SIDES, alices_link, remembered, rewind, show_blocks
from tests.protocol.test_leaving import QUICK, mute, reasons_to_leave
from tests.protocol.unanswered import FIRST_MSAT, mine_until_spent

from cromford.channel.stage import HtlcStage
from cromford.protocol.exiting.channel import never_signed
from cromford.protocol.journal import channel_records as cr
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(5)


def fail(pump: Pump, side: str) -> PumpNode:
    """Let one side of Alice's channel be told that it is over; return it."""
    alice = pump.clients[0]
    node, peer = (alice, pump.lsp) if side == "client" else (pump.lsp, alice)
    over = m.ChannelFailure(channel_id=newest_link(alice).channel_id, reason="no more")
    pump.tell(node, peer, over)
    assert alices_link(pump, node).failure == "the peer: no more"
    return node


@pytest.mark.sampled(1)
@SIDES
def test_a_channel_that_failed_is_left_144_blocks_later_and_not_a_block_before(side: str) -> None:
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT)
    pump.mine(7)
    node, height = fail(pump, side), pump.chain.height
    pump.mine(100)
    pump.restart(node)
    pump.run()
    pump.mine(43)
    assert reasons_to_leave(node) == []
    pump.mine()
    assert reasons_to_leave(node) == [f"the channel failed at height {height}: the peer: no more"]
    mine_until_spent(pump, alices_link(pump, node).setting.funding.outpoint)


def statuses_in_order(payer: PumpNode) -> list[str]:
    """Return what became of payments, in the order in which they were offered."""
    payments = sorted(book(payer).payments.values(), key=lambda payment: payment.htlc)
    return [payment.status for payment in payments]


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_payment_that_was_never_signed_has_failed_with_its_channel(*, is_behind: bool) -> None:
    """Unless state was lost: then nobody can say what was signed."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    with pump.tampering(mute(pump.lsp, alice, m.RevokeAndAck, m.CommitmentSigned)):
        for amount_msat in (5_000_000, 4_000_000):
            pump.handle(alice, make_invoice(pump, bob, amount_msat))
        pump.run()
    stages = [live.stage for live in newest_link(alice).state.htlcs]
    assert stages == [HtlcStage.ADD_SIGNED, HtlcStage.ADD_PROPOSED]
    pump.disconnect(alice)
    fail(pump, "client")
    if is_behind:
        link = replace(newest_link(alice), is_behind=True)
        assert never_signed(book(alice), link) == ()
        return
    pump.mine()
    assert statuses_in_order(alice) == ["pending", "failed"]
    pump.mine(3)
    assert len(remembered(alice, cr.HtlcDecided)) == 1, "once"


def test_a_forward_that_was_never_signed_comes_back_at_once_when_its_channel_fails() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    with pump.tampering(mute(bob, pump.lsp, m.RevokeAndAck, m.CommitmentSigned)):
        for amount_msat in (5_000_000, 4_000_000):
            pump.handle(alice, make_invoice(pump, bob, amount_msat))
            pump.run()
    link = newest_link(bob)
    over = m.ChannelFailure(channel_id=link.channel_id, reason="no more")
    pump.tell(pump.lsp, bob, over)
    pump.mine()
    assert statuses_in_order(alice) == ["pending", "failed"]


def test_a_failed_channel_in_which_nothing_is_ours_is_never_left() -> None:
    pump = live_factory(2, policy=QUICK)
    node = fail(pump, "client")
    assert balance(node).own_msat == 0
    pump.mine(400)
    assert reasons_to_leave(node) == []


@pytest.mark.parametrize("n_blocks", [0, 10])
def test_the_policy_says_how_long_a_failed_channel_waits(n_blocks: int) -> None:
    pump = live_factory(2, policy=replace(QUICK, failed_channel_blocks=n_blocks))
    node = fail(pump, "lsp")
    pump.mine(max(0, n_blocks - 1))
    assert reasons_to_leave(node) == []
    pump.mine()
    assert len(reasons_to_leave(node)) == 1


@SIDES
def test_a_second_failure_does_not_make_the_first_later(side: str) -> None:
    pump = live_factory(2, policy=QUICK)
    pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT)
    node, height = fail(pump, side), pump.chain.height
    pump.mine(50)
    fail(pump, side)
    assert alices_link(pump, node).failed_height == height


@SIDES
def test_what_fails_before_blocks_were_caught_up_with_waits_as_long_as_any_other(side: str) -> None:
    """Who comes back after weeks may hear of it first: those blocks are no time to close it in."""
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    late = alice if side == "client" else pump.lsp
    lag(pump, late)
    pump.mine(160)
    node, height = fail(pump, side), pump.chain.height
    assert node is late
    recover(pump, node)
    assert reasons_to_leave(node) == []
    pump.mine(143)
    assert reasons_to_leave(node) == []
    pump.mine()
    assert reasons_to_leave(node) == [f"the channel failed at height {height}: the peer: no more"]


@pytest.mark.sampled(1)
@SIDES
def test_a_failed_channel_is_not_left_while_its_funding_is_off_the_chain(side: str) -> None:
    pump = live_factory(2, policy=QUICK)
    pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT)
    node = fail(pump, side)
    since = pump.chain.height
    funding = rewind(pump, node)
    show_blocks(pump, node, until=since + 200)
    assert reasons_to_leave(node) == []
    show_blocks(pump, node, until=since + 201, txs=(funding,))
    assert len(reasons_to_leave(node)) == 1
