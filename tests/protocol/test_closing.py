"""A cooperative close from the operator's wish to a block: everybody is paid by one transaction."""

from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.closes import (
    QUICK,
    ask_for_close,
    below_the_other_child,
    check_all_is_paid,
    check_nobody_is_stuck,
    closable_factory,
    close,
    ended,
    finished,
    links,
    mine_until_on_chain,
    scope_in,
    under_way,
)
from tests.protocol.paying_clients import begin_payment, pay
from tests.protocol.pump import Pump

from cromford import effects as fx
from cromford import told
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.kinds import VertexKind
from cromford.protocol import events as ev
from cromford.protocol.closing.planning import usual_feerates
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.closes import is_frozen
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, MOST_SAT_PER_KW, OwnFees
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(12)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [1, 2, 5, 8])
def test_a_factory_is_closed_by_one_transaction(n_clients: int) -> None:
    pump = closable_factory(n_clients, watches_folds=True)
    close(pump)
    check_all_is_paid(pump)
    check_nobody_is_stuck(pump)
    for node in (pump.lsp, *pump.clients):
        assert not ended(node)
        assert len(finished(node)) == 1
    pump.mine(1)
    factory = pump.factory
    spender = factory.chain.spends[factory.attempt.funding_outpoint]
    assert spender.txid == next(iter(factory.closed.values())).txs[0].txid


@pytest.mark.sampled(1)
@pytest.mark.parametrize("order", range(5))
def test_a_close_is_finished_in_whatever_order_messages_arrive(order: int) -> None:
    pump = closable_factory(4, order=order)
    close(pump)
    check_all_is_paid(pump)
    assert len(finished(pump.lsp)) == 1


def test_whoever_publishes_first_everybody_asks_for_the_same_transaction() -> None:
    pump = closable_factory(2)
    close(pump)
    asked = {
        effect.tx.txid
        for node in (pump.lsp, *pump.clients)
        for effect in pump.wishes(node, fx.Broadcast)
        if effect.name.startswith("close ")
    }
    assert len(asked) == 1


def kicked_off(pump: Pump, seat: int = 1, *, n_blocks: int = 1) -> None:
    """Let a client leave, and mine so many blocks of its way out."""
    pump.handle(pump.client_at(seat), ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.run()
    pump.mine(n_blocks)


def test_below_a_neighbours_exit_a_subtree_is_closed_by_its_name() -> None:
    """Client 1 leaves: what is below the root's other child is whole, and signed by fewer."""
    pump = closable_factory(4)
    other = below_the_other_child(pump)
    close(pump, vertex=other.first.shape.name)
    check_all_is_paid(pump)
    (record,) = finished(pump.lsp)
    assert len(record.channels) == len(other.first.shape.clients) < 4
    pump.mine(1)
    spender = pump.factory.chain.spends[other.first.tx.inputs[0].outpoint]
    assert spender.serialize() in record.txs


@pytest.mark.parametrize("named", ["root", "kickoff_root", "state_root", None])
def test_once_a_kickoff_is_in_a_block_its_output_is_what_is_closed(named: str | None) -> None:
    """It has no script path; the close takes the place of the state that waits for its delay."""
    pump = closable_factory(2, policy=QUICK)
    signed = pump.attempt.signed
    assert signed is not None
    kickoff = signed.tree.txs["kickoff_root"]
    pump.chain.broadcast(kickoff)
    pump.mine(1)
    close(pump, vertex=named)
    check_all_is_paid(pump)
    (record,) = finished(pump.lsp)
    assert OutPoint.parse(record.outpoint) == kickoff.outpoint(0)


def test_a_channel_on_chain_is_closed_by_its_two_funding_keys() -> None:
    """A neighbour of the same leaf left: the channel is an ordinary one, and closed like one."""
    pump = closable_factory(2)
    kicked_off(pump)
    outpoint = links(pump)[2][0].setting.funding.outpoint
    mine_until_on_chain(pump, outpoint)
    close(pump, client=2)
    check_all_is_paid(pump)
    (record,) = finished(pump.lsp)
    assert OutPoint.parse(record.outpoint) == outpoint
    assert len(scope_in(pump, outpoint).output.signers) == 2
    pump.mine(1)
    assert pump.factory.chain.spends[outpoint].serialize() in record.txs


def test_a_static_vertex_is_closed_by_its_one_transactions_input() -> None:
    pump = closable_factory(4, policy=QUICK_STATIC)
    assert pump.attempt.tree.root_node.name == "static_root"
    close(pump, vertex="static_root")
    check_all_is_paid(pump)
    assert len(finished(pump.lsp)) == 1


QUICK_STATIC = type(QUICK)(
    min_clients=1,
    min_depth=1,
    step_blocks=4,
    states_per_layer=2,
    lstock_csv_blocks=4,
    inner_kind=VertexKind.STATIC,
)


def test_two_feerates_are_signed_at_once_and_the_cheaper_is_published() -> None:
    pump = closable_factory(2)
    close(pump, feerates_sat_per_kw=(1_000, 4_000))
    (record,) = finished(pump.lsp)
    cheap, dear = (Tx.parse(data) for data in record.txs)
    paid_sat = [sum(output.amount_sat for output in tx.outputs) for tx in (cheap, dear)]
    assert paid_sat[0] - paid_sat[1] == 4 * cheap.vsize * 3  # 3,000 sat per 1000 weight units
    assert cheap.txid in pump.chain.mempool
    assert dear.txid not in pump.chain.mempool


def test_the_dearer_is_published_where_the_cheaper_is_below_a_days_estimate() -> None:
    pump = closable_factory(2)
    for node in (pump.lsp, *pump.clients):
        node.fees = OwnFees(estimates=((144, 2_000),))
    close(pump, feerates_sat_per_kw=(1_000, 4_000))
    (record,) = finished(pump.lsp)
    assert Tx.parse(record.txs[1]).txid in pump.chain.mempool


def test_one_option_is_enough() -> None:
    pump = closable_factory(2)
    close(pump, feerates_sat_per_kw=(1_000,))
    (record,) = finished(pump.lsp)
    assert len(record.txs) == 1
    check_all_is_paid(pump)


def test_without_feerates_the_node_and_the_tree_are_asked() -> None:
    pump = closable_factory(1)
    ask_for_close(pump)
    assert under_way(pump).feerates_sat_per_kw == (750, 2_250)  # 1.5 times the tree's 500


def test_an_estimate_that_nobody_should_believe_begins_no_close_but_one_with_a_named_feerate() -> (
    None
):
    """The LSP's part would pay it, and a close hurries nobody: no day was ever so dear."""
    pump = closable_factory(1)
    believed = OwnFees(estimates=((36, BELIEVED_SAT_PER_KW),))
    most = (BELIEVED_SAT_PER_KW, 3 * BELIEVED_SAT_PER_KW)
    assert usual_feerates(pump.factory, believed) == most
    pump.lsp.fees = OwnFees(estimates=((36, BELIEVED_SAT_PER_KW + 1),))
    refusal = rejected(pump)
    assert (refusal.code, refusal.retryable) == ("bad_feerate", True)
    assert str(refusal) == (
        "feerates_sat_per_vb: expected an estimate of at most 1,000 sat/vB for 36 blocks, or one "
        "by name, received 1,000.004 sat/vB"
    )
    close(pump, feerates_sat_per_kw=(1_000,))
    assert finished(pump.lsp)


def test_a_dearer_option_that_nobody_asked_for_is_left_out_where_our_part_does_not_carry_it() -> (
    None
):
    pump = closable_factory(1)
    pump.lsp.fees = OwnFees(estimates=((36, 100_000),))
    ask_for_close(pump)
    assert under_way(pump).feerates_sat_per_kw == (100_000,)


def test_one_that_was_asked_for_is_refused_then() -> None:
    pump = closable_factory(1)
    assert rejected(pump, feerates_sat_per_kw=(100_000, 300_000)).code == "cannot_close"


# What is refused before anybody is asked


def rejected(pump: Pump, **asked: Any) -> Rejected:
    """Return how a request is refused; nothing is remembered of it."""
    before = len(pump.lsp.store.entries)
    event = ev.CloseRequested(**{"attempt_id": pump.attempt.attempt_id, **asked})
    assert pump.lsp.driver is not None
    pump.lsp.driver.facts = pump.lsp.facts
    with pytest.raises(Rejected) as caught:
        pump.lsp.driver.handle(event)
    assert len(pump.lsp.store.entries) == before
    assert pump.factory.closing is None or pump.wire
    return caught.value


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "factory_not_found": ({"attempt_id": b"\x01" * 32}, "no funded factory"),
    "vertex_not_found": ({"vertex": "kickoff_9"}, "expected one of root"),
    "client_not_found": ({"client": 3}, "expected 1..2, received 3"),
    "output_not_there": ({"client": 1}, "channel 1: its output is not on chain"),
    "bad_scope": ({"client": 1, "vertex": "root"}, "received both"),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("code", REFUSALS)
def test_what_does_not_exist_is_refused_by_name(code: str) -> None:
    pump = closable_factory(2)
    asked, said = REFUSALS[code]
    refusal = rejected(pump, **asked)
    assert refusal.code == code
    assert said in str(refusal)


@pytest.mark.parametrize(
    ("feerates", "said"),
    [
        ((749,), "feerates_sat_per_vb: expected at least 3 sat/vB, received 2.996 sat/vB"),
        ((750, 750), "expected above 3 sat/vB, the one before, received 3 sat/vB"),
        ((1_000, 900), "expected above 4 sat/vB, the one before, received 3.6 sat/vB"),
        ((MOST_SAT_PER_KW + 1,), f"expected at most {told.feerate(MOST_SAT_PER_KW)}, received"),
        ((750, 800, 900), "feerates_sat_per_vb: expected 1..2 feerates, received 3"),
    ],
)
def test_a_bad_feerate_is_refused_by_name(feerates: tuple[int, ...], said: str) -> None:
    pump = closable_factory(1)
    refusal = rejected(pump, feerates_sat_per_kw=feerates)
    assert refusal.code == "bad_feerate"
    assert said in str(refusal)


def test_twice_our_mempools_minimum_is_the_least_where_that_is_more() -> None:
    pump = closable_factory(1)
    pump.lsp.fees = OwnFees(mempool_min_sat_per_kw=500)
    assert "expected at least 4 sat/vB, received 3.996 sat/vB" in str(
        rejected(pump, feerates_sat_per_kw=(999,))
    )
    ask_for_close(pump, feerates_sat_per_kw=(1_000,))
    assert pump.factory.closing is not None


def test_who_is_away_is_named() -> None:
    pump = closable_factory(3)
    pump.disconnect(pump.client_at(2))
    refusal = rejected(pump)
    assert (refusal.code, str(refusal)) == ("clients_away", "not connected: client 2")


def test_a_factory_that_sleeps_wakes_to_say_who_is_away_and_closes_once_all_are_back() -> None:
    pump = closable_factory(2)
    number, attempt_id, driver = pump.factory.number, pump.attempt.attempt_id, pump.lsp.driver
    assert driver is not None
    for client in pump.clients:
        pump.disconnect(client)
    pump.lsp.checkpoint()
    assert number in pump.lsp.state.asleep
    with pytest.raises(Rejected, match="not connected: client 1, client 2"):
        driver.handle(ev.CloseRequested(attempt_id=attempt_id))
    pump.lsp.checkpoint()
    for client in pump.clients:
        pump.connect(client)
    pump.run()
    ask_for_close(pump)
    pump.lsp.checkpoint()
    assert number not in pump.lsp.state.asleep, "amid a close nobody sleeps"
    pump.run()
    assert len(finished(pump.lsp)) == 1


def test_a_pending_htlc_and_its_client_are_named() -> None:
    pump = closable_factory(2)
    payee = pump.client_at(1)
    pump.disconnect(payee)
    begin_payment(pump, pump.client_at(2), payee, 1_000_000)
    refusal = rejected(pump)
    assert refusal.code == "channel_not_ready"
    assert "client 2: an HTLC is pending" in str(refusal)


def test_one_close_at_a_time() -> None:
    pump = closable_factory(2)
    ask_for_close(pump)
    assert rejected(pump).code == "close_under_way"


def test_what_is_closed_is_not_closed_again() -> None:
    pump = closable_factory(2)
    close(pump)
    assert "another close of it is finished already" in str(rejected(pump))
    pump.mine(1)
    assert rejected(pump).code == "output_not_there"


def test_an_exit_in_scope_is_in_the_way() -> None:
    pump = closable_factory(2)
    exit_ = ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=2)
    pump.handle(pump.lsp, exit_)
    assert rejected(pump).code == "exit_under_way"


def test_a_client_that_left_is_in_the_way() -> None:
    pump = closable_factory(2)
    kicked_off(pump, n_blocks=0)
    assert "client 1: the channel failed" in str(rejected(pump))


def latest(pump: Pump) -> int:
    deadlines = (
        link.remaining(pump.factory.chain).exit_deadline_height for link, _ in links(pump).values()
    )
    return min(height for height in deadlines if height is not None) - 144


def test_it_is_too_late_from_a_day_before_the_exit_deadline_on() -> None:
    policy = type(QUICK)(
        min_clients=1,
        min_depth=1,
        step_blocks=4,
        states_per_layer=2,
        active_blocks=400,
        dying_blocks=144,
        ready_min_blocks=1,
        patience_blocks=20,
    )
    pump = closable_factory(1, policy=policy)
    pump.mine(latest(pump) - 1 - pump.chain.height)
    ask_for_close(pump)
    assert pump.factory.closing is not None, "a block before it is in time"
    pump.chain.mine()
    pump.sync()
    assert "too late" in ended(pump.lsp)[-1].reason
    pump.run()
    assert not finished(pump.lsp)
    check_nobody_is_stuck(pump)
    assert "too late" in str(rejected(pump))


def test_on_a_stale_chain_nothing_is_closed() -> None:
    pump = closable_factory(1)
    facts = replace(pump.lsp.facts, stale="the node does not answer")
    assert pump.lsp.driver is not None
    pump.lsp.driver.facts = facts
    with pytest.raises(Rejected) as caught:
        pump.lsp.driver.handle(ev.CloseRequested(attempt_id=pump.attempt.attempt_id))
    assert caught.value.code == "chain_stale"


# Two closes


def test_a_close_that_came_to_nothing_is_followed_by_another_at_the_balances_of_then() -> None:
    pump = closable_factory(4)
    vertex = below_the_other_child(pump)
    first, last = vertex.first.shape.clients
    ask_for_close(pump, vertex=vertex.first.name)
    pump.run_to(m.CloseSign)
    pump.disconnect(pump.client_at(last))
    pump.connect(pump.client_at(last))
    pump.run()
    check_nobody_is_stuck(pump)
    (neighbour,) = {1, 2, 3, 4} - {1, first, last}
    begun = pay(pump, pump.client_at(first), pump.client_at(neighbour), 100_000)
    assert begun.status == "paid"
    close(pump, vertex=vertex.first.name)
    check_all_is_paid(pump)
    (record,) = finished(pump.lsp)
    assert record.balances_msat[0] == links(pump)[first][0].state.accepter_msat


def test_a_finished_close_freezes_the_channels_of_its_scope_only() -> None:
    pump = closable_factory(4)
    other = below_the_other_child(pump)
    close(pump, vertex=other.first.name)
    for seat, (_, link) in links(pump).items():
        is_in_scope = seat in other.first.shape.clients
        assert is_frozen(link.closes, pump.factory.chain) is is_in_scope
