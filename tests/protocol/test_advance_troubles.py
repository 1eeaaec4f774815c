"""Advances amid trouble: somebody is silent, lies, or the leaf is on its way to the chain."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.advances import (
    STEPS,
    advancing_factory,
    both_links,
    check_claims,
    check_nothing_is_left,
    check_payments_work,
    check_sold,
    connect_again,
    leaf_of,
    market,
    quote_for,
    remembered,
    sell,
    settle,
    under_way,
)
from tests.protocol.closes import changing, losing
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.factory.vertices import TreeNode
from cromford.protocol import events as ev
from cromford.protocol.advancing.rules import STALL_BLOCKS
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(9)

BUYER, NEIGHBOUR = 1, 2


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def pass_deadlines(pump: Pump) -> None:
    """Let so much time pass that nobody waits any more for a word about an advance."""
    for node, deadline in pump.deadlines_of(fx.AdvanceDeadline):
        pump.pass_deadline(node, deadline)
    pump.run()


# Silence


@pytest.mark.parametrize("step", [m.AdvancePropose, m.AdvanceAgree])
def test_whoever_is_silent_before_anything_is_signed_ends_it_and_costs_nobody_anything(
    step: type[m.Message],
) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    with pump.tampering(losing(step, of=lambda node: node is neighbour)):
        sell(pump, BUYER)
        assert under_way(pump) is not None
        pass_deadlines(pump)
    connect_again(pump)
    pump.run()
    (dropped,) = remembered(pump.lsp, ar.AdvanceDropped)
    assert dropped.culprits == (neighbour.node_id,)
    assert not dropped.is_fault
    check_nothing_is_left(pump)
    check_sold(pump, BUYER, sell(pump, BUYER))
    check_payments_work(pump, BUYER, NEIGHBOUR)


@pytest.mark.parametrize("step", [m.AdvanceCommit, m.AdvanceSign])
def test_whoever_is_silent_after_that_is_hung_up_on_and_it_is_done_when_it_is_back(
    step: type[m.Message],
) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    quote = quote_for(pump, BUYER)
    with pump.tampering(losing(step, of=lambda node: node is neighbour)):
        sell(pump, BUYER)
        pass_deadlines(pump)
        assert neighbour.name not in pump.links
        check_payments_work(pump, BUYER)
    assert under_way(pump) is not None
    connect_again(pump)
    pump.run()
    check_sold(pump, BUYER, quote)
    check_nothing_is_left(pump)
    check_payments_work(pump, BUYER, NEIGHBOUR)


def test_whoever_lets_two_deadlines_pass_is_not_asked_for_a_day() -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    with pump.tampering(losing(m.AdvanceAgree, of=lambda node: node is neighbour)):
        for _ in range(2):
            sell(pump, BUYER)
            pass_deadlines(pump)
            connect_again(pump)
            pump.run()
    sell(pump, BUYER)
    refused = pump.sent(pump.lsp, m.QuoteRefused)[-1]
    assert refused.code == "leaf_blocked"
    assert "2 deadlines" in refused.reason
    height = pump.chain.height
    pump.lsp.facts_at = lambda _own_height: replace(FRESH, header_height=height + STALL_BLOCKS)
    check_sold(pump, BUYER, sell(pump, BUYER))


def test_a_client_does_not_wait_for_its_lsp_for_ever() -> None:
    pump = advancing_factory(2)
    buyer = pump.client_at(BUYER)
    with pump.tampering(losing(m.AdvanceCommit, of=lambda _node: True)):
        sell(pump, BUYER)
    ((_, deadline),) = [one for one in pump.deadlines_of(fx.AdvanceDeadline) if one[0] is buyer]
    pump.pass_deadline(buyer, deadline)
    pump.run()
    assert buyer.name not in pump.links
    settle(pump)
    check_payments_work(pump, BUYER, NEIGHBOUR)


def test_what_was_committed_and_signed_by_nobody_is_dropped_once_all_said_so() -> None:
    """Each refuses the LSP's half, and says in its next connection that it signed nothing."""
    pump = advancing_factory(2)
    sell_until(pump, m.AdvanceCommit)
    assert remembered(pump.lsp, ar.AdvanceCommitted)
    for client in pump.clients:
        client.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    pump.run()
    connect_again(pump)
    pump.run()
    (dropped,) = remembered(pump.lsp, ar.AdvanceDropped)
    assert "refused: chain: expected fresh" in dropped.reason
    assert not any(remembered(client, ar.AdvanceSigned) for client in pump.clients)
    check_nothing_is_left(pump)
    for client in pump.clients:
        client.facts_at = lambda _own_height: FRESH
    check_sold(pump, BUYER, sell(pump, BUYER))


def test_a_neighbour_that_never_answers_the_rebase_costs_the_leaf_its_further_sales() -> None:
    """The buyer has what it bought; of its neighbour both sides keep a claim on both states."""
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    answers = m.RevokeAndAck, m.CommitmentSigned
    with pump.tampering(losing(*answers, of=lambda node: node is neighbour)):
        quote = sell(pump, BUYER)
    (sold,) = remembered(pump.lsp, ar.LiquiditySold)
    assert sold.capacity_sat == quote.capacity_sat
    _, lsp_link = both_links(pump, NEIGHBOUR)
    assert all(lsp_link.finished_on(funding) for funding in lsp_link.fundings)
    assert len(lsp_link.fundings) == 2
    buy = m.Buy(attempt_id=quote.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
    pump.tell(pump.lsp, pump.client_at(BUYER), buy)
    assert pump.sent(pump.lsp, m.QuoteRefused)[-1].code == "busy"
    pump.disconnect(neighbour)
    settle(pump)
    check_sold(pump, BUYER, quote)


def test_a_client_is_not_rebased_while_it_does_not_see_the_chain() -> None:
    """It would give away its last claim on a state that may be in a block."""
    pump = advancing_factory(2)
    quote, buyer = sell_until(pump, m.UpdateRebase), pump.client_at(BUYER)
    buyer.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    pump.run()
    link, _ = both_links(pump, BUYER)
    assert link.finished_on(link.present) is not None
    assert not remembered(pump.lsp, ar.LiquiditySold)
    assert not link.failure
    buyer.facts_at = lambda _own_height: FRESH
    settle(pump)
    check_sold(pump, BUYER, quote)


def test_a_client_that_sees_the_old_state_is_not_rebased_though_its_lsp_does_not() -> None:
    pump = advancing_factory(2)
    sell_until(pump, m.UpdateRebase)
    buyer = pump.client_at(BUYER)
    wire = [*pump.wire]
    pump.wire.clear()
    land_old_state(pump)
    pump.blind |= {pump.lsp.name, pump.client_at(NEIGHBOUR).name}
    pump.sync()
    pump.wire.extend(letter for letter in wire if letter.receiver is buyer)
    pump.run()
    link, _ = both_links(pump, BUYER)
    assert link.finished_on(link.present) is not None, "its claim on what landed"
    assert not remembered(pump.lsp, ar.LiquiditySold)


def test_an_lsp_that_withholds_what_is_signed_gains_nothing_by_it() -> None:
    """Both states may confirm, and everybody has its money in both."""
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    with pump.tampering(losing(m.AdvanceDone, of=lambda _node: True)):
        sell(pump, BUYER)
        for seat in (BUYER, NEIGHBOUR):
            for link in both_links(pump, seat):
                assert all(link.finished_on(funding) for funding in link.fundings)
        check_payments_work(pump, BUYER, NEIGHBOUR)
        assert under_way(pump) is not None
    pump.mine(1)
    check_sold(pump, BUYER, quote)
    check_payments_work(pump, BUYER, NEIGHBOUR)


# Lies


def test_to_say_that_poisons_are_held_which_were_never_sent_ends_the_channel() -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    with pump.tampering(losing(m.AdvanceSign, of=lambda node: node is pump.client_at(BUYER))):
        sell(pump, BUYER)
    advance = under_way(pump)
    assert advance is not None
    held = m.AdvanceHeld(attempt_id=pump.attempt.attempt_id, advance_id=advance.advance_id)
    pump.tell(pump.lsp, neighbour, held)
    link, lsp_link = both_links(pump, NEIGHBOUR)
    assert lsp_link.failure is not None
    assert lsp_link.failure.startswith("advance_held")
    assert not remembered(pump.lsp, ar.AdvanceAcknowledged)
    assert link.next is not None


def stale(commit: m.AdvanceCommit) -> list[m.Message]:
    (half,) = commit.half
    return [replace(commit, half=(replace(half, number=half.number - 1),))]


def another_number(commit: m.AdvanceCommit) -> list[m.Message]:
    (nonces,) = commit.channel
    return [replace(commit, channel=(replace(nonces, number=nonces.number + 1),))]


def without_half(commit: m.AdvanceCommit) -> list[m.Message]:
    return [replace(commit, half=())]


def bad_half(commit: m.AdvanceCommit) -> list[m.Message]:
    (half,) = commit.half
    return [replace(commit, half=(replace(half, partial_sig=bytes(31) + b"\x01"),))]


def bad_nonce(commit: m.AdvanceCommit) -> list[m.Message]:
    return [replace(commit, poison_pubnonce=bytes(66))]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("lie", [stale, another_number, without_half, bad_half, bad_nonce])
def test_a_client_signs_nothing_for_an_lsp_whose_half_is_not_of_its_latest(lie: Any) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)

    def tamper(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> list[m.Message]:
        is_it = receiver is neighbour and isinstance(message, m.AdvanceCommit)
        return lie(message) if is_it else [message]

    with pump.tampering(tamper):
        sell(pump, BUYER)
    assert not remembered(neighbour, ar.AdvanceSigned)
    link, _ = both_links(pump, NEIGHBOUR)
    assert link.failure is not None
    assert link.next is None
    assert not neighbour.state.advances
    check_claims(pump)


def bad_signature(done: m.AdvanceDone) -> list[m.Message]:
    return [replace(done, state_signature=bytes(64))]


def bad_poison(done: m.AdvanceDone) -> list[m.Message]:
    return [replace(done, channel_poison=done.stock_poison)]


def one_poison(done: m.AdvanceDone) -> list[m.Message]:
    return [replace(done, channel_poison=b"")]


@pytest.mark.parametrize("lie", [bad_signature, bad_poison, one_poison])
def test_a_client_holds_nothing_that_is_not_signed_as_it_computed_it(lie: Any) -> None:
    pump = advancing_factory(2)
    with pump.tampering(changing(pump.lsp, m.AdvanceDone, lie)):
        sell(pump, BUYER)
    for client in pump.clients:
        assert not remembered(client, ar.PoisonHeld)
    assert not pump.sent(pump.client_at(BUYER), m.AdvanceHeld)
    assert all(both_links(pump, seat)[0].failure for seat in (BUYER, NEIGHBOUR))


def bad_partial(field: str) -> Any:
    def change(sign: m.AdvanceSign) -> list[m.Message]:
        (partials,) = sign.partials
        spoilt = replace(partials, **{field: bytes(31) + b"\x01"})
        return [replace(sign, partials=(spoilt,))]

    return change


@pytest.mark.sampled(1)
@pytest.mark.parametrize("field", ["state", "stock_poison", "channel_poison"])
def test_a_bad_partial_signature_is_named_and_with_good_ones_it_is_done(field: str) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    quote = quote_for(pump, BUYER)
    with pump.tampering(changing(neighbour, m.AdvanceSign, bad_partial(field))):
        sell(pump, BUYER)
    (ended,) = remembered(pump.lsp, ar.AdvanceSessionEnded)
    assert ended.holdouts == (NEIGHBOUR,)
    settle(pump)
    check_sold(pump, BUYER, quote)
    check_payments_work(pump, BUYER, NEIGHBOUR)


def test_an_update_while_a_channel_is_quiet_is_a_violation() -> None:
    pump = advancing_factory(2)
    sell_until(pump, m.AdvanceCommit)
    _, lsp_link = both_links(pump, NEIGHBOUR)
    update = m.UpdateFailHtlc(channel_id=lsp_link.channel_id, htlc_id=0, reason=b"")
    pump.tell(pump.lsp, pump.client_at(NEIGHBOUR), update)
    assert (both_links(pump, NEIGHBOUR)[1].failure or "").startswith("UpdateFailHtlc")


def sell_until(pump: Pump, step: type[m.Message]) -> m.Quote:
    """Let a purchase come to where such a message is next."""
    quote = quote_for(pump, BUYER)
    pump.lsp_says(pump.client_at(BUYER), quote)
    pump.run_to(step)
    return quote


# The chain


@pytest.mark.sampled(2)
@pytest.mark.parametrize("step", [*STEPS, None])
def test_a_kickoff_that_confirms_between_any_two_steps_costs_nobody_anything(
    step: type[m.Message] | None,
) -> None:
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    if step is None:
        sell(pump, BUYER)
    else:
        sell_until(pump, step)
    confirm_kickoff(pump)
    pump.sync()
    pump.run()
    check_claims(pump)
    is_sent = any(done.stock_poison for done in pump.sent(pump.lsp, m.AdvanceDone))
    is_sold = bool(remembered(pump.lsp, ar.LiquiditySold))
    assert is_sold == is_sent == (step in {m.AdvanceDone, m.AdvanceHeld, m.UpdateRebase, None})
    if is_sold:
        check_sold(pump, BUYER, quote)
    for _ in range(40):
        pump.mine(1)
        connect_again(pump)
        pump.run()
    check_claims(pump)
    assert not pump.factory.advances
    assert not any(client.state.advances for client in pump.clients)


def confirm_kickoff(pump: Pump) -> None:
    """Let the leaf's kickoff be in the next block."""
    confirm(pump, leaf_of(pump, BUYER).kickoff)


def confirm(pump: Pump, node: TreeNode) -> None:
    """Let a transaction of the tree be in the next block."""
    signed = pump.attempt.signed
    assert signed is not None
    pump.chain.broadcast(node.tx.with_witnesses((signed.by_name[node.name],)))
    pump.chain.mine()


def land_old_state(pump: Pump) -> None:
    """Let the leaf's first state be in a block, while nobody looks."""
    everybody = (pump.lsp, *pump.clients)
    pump.blind |= {node.name for node in everybody}
    leaf = leaf_of(pump, BUYER)
    confirm(pump, leaf.kickoff)
    for _ in range(leaf.states[0].delay_blocks):
        pump.chain.mine()
    confirm(pump, leaf.states[0])
    pump.blind -= {node.name for node in everybody}


@pytest.mark.parametrize("sees_last", [BUYER, None])
def test_an_old_state_that_lands_before_all_signed_is_gone_on_with(sees_last: int | None) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    last = pump.lsp if sees_last is None else pump.client_at(sees_last)
    with pump.tampering(losing(m.AdvanceSign, of=lambda node: node is neighbour)):
        sell(pump, BUYER)
    before = both_links(pump, BUYER)[0]
    land_old_state(pump)
    pump.sync()
    pump.run()
    check_claims(pump)
    assert both_links(pump, BUYER)[0].next is not None
    pump.blind.add(last.name)
    pump.mine(5)
    connect_again(pump)
    pump.run()
    assert both_links(pump, BUYER)[0].next is not None, "one side alone cannot know"
    pump.blind.discard(last.name)
    pump.mine(1)
    connect_again(pump)
    pump.run()
    for seat in (BUYER, NEIGHBOUR):
        for link in both_links(pump, seat):
            assert link.next is None
            assert link.failure is None
            assert link.state.reserved_msat == 0
    assert both_links(pump, BUYER)[0].present == before.present
    assert not remembered(pump.lsp, ar.LiquiditySold)
    check_nothing_is_left(pump)
    check_payments_work(pump, BUYER, NEIGHBOUR)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("step", [m.AdvanceHeld, m.UpdateRebase, m.RevokeAndAck, None])
def test_an_old_state_whose_poisons_left_is_dead_when_it_lands(
    step: type[m.Message] | None,
) -> None:
    pump = advancing_factory(2)
    sell_until(pump, step or m.AdvanceDone)
    if step is None:
        pump.run()
    for client in pump.clients:
        pump.disconnect(client)
    pump.wire.clear()
    land_old_state(pump)
    pump.sync()
    pump.run()
    for seat in (BUYER, NEIGHBOUR):
        for link in both_links(pump, seat):
            assert "poisons" in (link.failure or "")
    connect_again(pump)
    pump.run()
    assert not any(link.is_open for link in both_links(pump, BUYER))


def test_a_state_six_deep_needs_no_poisons_and_is_rebased_onto() -> None:
    pump = advancing_factory(2)
    quote = sell_until(pump, m.AdvanceSign)
    confirm_kickoff(pump)
    pump.sync()
    pump.run()
    assert not any(done.stock_poison for done in pump.sent(pump.lsp, m.AdvanceDone))
    assert not remembered(pump.lsp, ar.AdvanceAcknowledged)
    for _ in range(30):
        pump.mine(1)
    for client in pump.clients:
        assert pump.sent(client, m.AdvanceHeld)
        assert not remembered(client, ar.PoisonHeld)
    (sold,) = remembered(pump.lsp, ar.LiquiditySold)
    assert sold.capacity_sat == quote.capacity_sat
    check_nothing_is_left(pump)


def test_poisons_leave_once_a_reorganisation_undoes_the_kickoff() -> None:
    pump = advancing_factory(2)
    quote = sell_until(pump, m.AdvanceSign)
    confirm_kickoff(pump)
    pump.sync()
    pump.run()
    assert not remembered(pump.lsp, ar.PoisonHeld)
    pump.chain.remove_tip(1)
    pump.chain.mempool.clear()
    for node in (pump.lsp, *pump.clients):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    pump.mine(2)
    check_sold(pump, BUYER, quote)


def test_poisons_wait_until_the_lsp_sees_the_chain_again() -> None:
    """A kickoff may be in a block that it has not read: two states would be payable at once."""
    pump = advancing_factory(2)
    quote = sell_until(pump, m.AdvanceSign)
    pump.lsp.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    pump.run()
    assert remembered(pump.lsp, ar.StateSigned)
    told = pump.sent(pump.lsp, m.AdvanceDone)
    assert told
    assert not any(done.stock_poison or done.channel_poison for done in told)
    assert not any(remembered(node, ar.PoisonHeld) for node in (pump.lsp, *pump.clients))
    pump.lsp.facts_at = lambda _own_height: FRESH
    pump.mine(1)
    check_sold(pump, BUYER, quote)


def test_poisons_are_not_sent_again_once_the_kickoff_is_on_chain() -> None:
    """That they are remembered is no licence: meanwhile two states would be payable at once."""
    pump = advancing_factory(2)
    with pump.tampering(losing(m.AdvanceDone, of=lambda _node: True)):
        sell(pump, BUYER)
    assert remembered(pump.lsp, ar.PoisonHeld)
    confirm_kickoff(pump)
    n_before = len(pump.sent(pump.lsp, m.AdvanceDone))
    pump.sync()
    pump.disconnect(pump.client_at(BUYER))
    connect_again(pump)
    pump.run()
    again = pump.sent(pump.lsp, m.AdvanceDone)[n_before:]
    assert again
    assert not any(done.stock_poison or done.channel_poison for done in again)


@pytest.mark.parametrize("has_kickoff", [False, True])
def test_whoever_was_away_for_the_whole_delay_when_poisons_left_gets_them_or_needs_none(
    *, has_kickoff: bool
) -> None:
    """Remembered and sent, and heard by nobody: with the kickoff on chain the newer state lands."""
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    with pump.tampering(losing(m.AdvanceDone, of=lambda _node: True)):
        sell(pump, BUYER)
    (held,) = remembered(pump.lsp, ar.PoisonHeld)
    before, after = both_links(pump, BUYER)[1].fundings
    for client in pump.clients:
        pump.disconnect(client)
    if has_kickoff:
        confirm_kickoff(pump)
    pump.mine(leaf_of(pump, BUYER).states[0].delay_blocks)
    connect_again(pump)
    pump.run()
    (sale,) = remembered(pump.lsp, ar.LiquiditySold)
    assert (
        sale.capacity_sat == quote.capacity_sat == both_links(pump, BUYER)[0].present.capacity_sat
    )
    check_nothing_is_left(pump)
    (again,) = remembered(pump.lsp, ar.PoisonHeld)
    assert again == held
    for client in pump.clients:
        kept = remembered(client, ar.PoisonHeld)
        assert [one.stock_signature for one in kept] == (
            [] if has_kickoff else [held.stock_signature]
        )
    assert before.outpoint.txid not in pump.chain.confirmed
    assert (after.outpoint.txid in pump.chain.confirmed) is has_kickoff
