"""What makes nobody leave: an HTLC that nobody could lose any more."""

from dataclasses import replace

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
from tests.protocol.test_leaving import QUICK, mute, reasons_to_leave
from tests.protocol.unanswered import FIRST_MSAT, SMALL_MSAT, WORTH_MSAT, mine_to, only_expiry

from cromford.channel.stage import HtlcStage, Removal
from cromford.protocol import events as ev
from cromford.protocol.exiting.stake import htlcs_at_stake
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m


def mute_once_answered(payee: PumpNode, lost: type[m.Message]) -> Tamper:
    """Return a tamper that loses a payee's messages of one kind after it answered an HTLC."""
    has_answered = False

    def tamper(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        nonlocal has_answered
        has_answered |= isinstance(message, m.UpdateFulfillHtlc | m.UpdateFailHtlc)
        return () if has_answered and by is payee and isinstance(message, lost) else (message,)

    return tamper


def put_away_while_paid(pump: Pump, amount_msat: int, lost: type[m.Message]) -> Link:
    """Let Bob's phone show the preimage and go; return the LSP's end of his channel."""
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, amount_msat)
    with pump.tampering(mute_once_answered(bob, lost)):
        pump.handle(alice, request)
        pump.run()
    pump.disconnect(bob)
    pump.run()
    assert book(alice).payments[request.payment_hash].status == "paid"
    return lsp_link(pump, newest_link(bob))


@pytest.mark.parametrize("lost", [m.CommitmentSigned, m.RevokeAndAck])
@pytest.mark.parametrize("amount_msat", [WORTH_MSAT, SMALL_MSAT])
def test_a_phone_put_away_while_it_is_paid_finds_its_channel_as_it_left_it(
    lost: type[m.Message], amount_msat: int
) -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    link = put_away_while_paid(pump, amount_msat, lost)
    before_msat = balance(alice).own_msat
    # Bob sees no block: his own daemon, which could lose it, would leave in time.
    pump.clients.remove(bob)
    mine_to(pump, only_expiry(link) + 40)
    assert reasons_to_leave(pump.lsp) == []
    assert lsp_link(pump, link).failure is None
    pump.clients.append(bob)
    pump.connect(bob)
    pump.run()
    assert not lsp_link(pump, link).state.htlcs
    assert balance(bob).own_msat == amount_msat
    assert balance(alice).own_msat == before_msat


def pay_twice(pump: Pump, *, is_answered: bool) -> Link:
    """Let the LSP pay Bob's invoice a second time; return Bob's channel, the HTLC in it."""
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    request = make_invoice(pump, bob, WORTH_MSAT)
    pump.handle(alice, request)
    pump.run()
    assert book(bob).invoices[request.payment_hash].status == "paid"
    unanswered = mute(pump.lsp, bob, m.RevokeAndAck)
    tamper = mute_once_answered(bob, m.CommitmentSigned) if is_answered else unanswered
    with pump.tampering(tamper):
        pump.handle(pump.lsp, request)
        pump.run()
    pump.disconnect(bob)
    return newest_link(bob)


@pytest.mark.parametrize(
    ("is_answered", "stage"),
    [(False, HtlcStage.ADD_COUNTERSIGNED), (True, HtlcStage.REMOVE_SIGNED)],
)
def test_nobody_leaves_for_a_second_htlc_with_the_hash_of_a_paid_invoice(
    *, is_answered: bool, stage: HtlcStage
) -> None:
    pump = live_factory(3, policy=QUICK)
    bob = pump.clients[1]
    link = pay_twice(pump, is_answered=is_answered)
    (live,) = link.state.htlcs
    assert live.stage is stage
    height = live.htlc.cltv_expiry + 5
    while bob.state.chain.height < height:
        # Only Bob sees the blocks: the LSP would leave for what it offered.
        pump.chain.mine()
        tip = bob.state.chain.height + 1
        block_hash, txs = pump.chain.blocks[tip]
        relevant = bob.relevant(txs)
        pump.handle(bob, ev.BlockAdded(height=tip, block_hash=block_hash, txs=relevant))
    assert reasons_to_leave(bob) == []


def test_the_lsp_defends_an_htlc_that_it_is_owed_and_not_one_that_it_gave_back() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(alice)
    pump.run()
    link = lsp_link(pump, newest_link(alice))
    (owed,) = link.state.htlcs
    again = replace(owed, htlc=replace(owed.htlc, htlc_id=owed.htlc.htlc_id + 1))
    given_back = again.at(HtlcStage.REMOVE_ACKED, Removal(reason=b"no"))
    for second in (again, given_back):
        both = replace(link, state=replace(link.state, htlcs=(owed, second)))
        assert htlcs_at_stake(book(pump.lsp), both) == [owed.htlc]
