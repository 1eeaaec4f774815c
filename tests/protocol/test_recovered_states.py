"""A client whose store is from before a sale gets back from its LSP what it signed since."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advanced import Advance, Step, advance, kickoff_of
from tests.protocol.old_states import (
    SOLD_SAT,
    bring_on_chain,
    look_again,
    look_away,
    mine_blindly,
    sold,
    spender_of,
    told,
)
from tests.protocol.paying_clients import balance, lsp_link, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import Backup, backup_of, put_back, restore
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.test_superseded import SWEEP_SAT, poisoned_sat

from cromford import effects as fx
from cromford.bitcoin.tx import Txid
from cromford.protocol import events as ev
from cromford.protocol.exiting import client as client_exits
from cromford.protocol.journal import advance_records as ar
from cromford.wire import messages as m
from cromford.wire.seldom import LeafState
from cromford.wire.selling import AllocatedChannel

pytestmark = pytest.mark.sampled_file(6)

WAY_BLOCKS: Final = 40
PAID_MSAT: Final = 10_000_000


def forgetful(until: Step = Step.REBASED) -> tuple[Pump, Advance, Backup]:
    """Return a world in which Alice bought and was paid, and her backup from before that."""
    pump, done = sold(None)
    alice, _ = pump.clients
    backup = backup_of(alice)
    done.begin(until)
    if until is Step.REBASED:
        assert pay(pump, pump.lsp, alice, PAID_MSAT).status == "paid"
    return pump, done, backup


def start_alone(pump: Pump, client: PumpNode, backup: Backup) -> None:
    """Put a client's store back and start it; its LSP is gone."""
    pump.disconnect(client)
    client.die()
    put_back(client, backup)
    client.start()


def published_txids(pump: Pump, node: PumpNode) -> set[Txid]:
    return {one.tx.txid for one in pump.wishes(node, fx.Broadcast)}


def leave(pump: Pump, client: PumpNode) -> None:
    pump.handle(client, ev.ExitRequested(attempt_id=pump.held(client).attempt_id))


def test_an_old_state_that_lands_pays_a_restored_client_what_its_poisons_do() -> None:
    pump, done, backup = forgetful()
    alice, _ = pump.clients
    due_sat = sum(poisoned_sat(pump, alice))
    assert due_sat > balance(alice).own_msat // 1000
    restore(pump, (alice, backup))
    assert pump.held(alice).leaf.states == done.leaf.states
    assert newest_link(alice).mark is not None
    before_sat = wallet_sat(alice)
    bring_on_chain(pump, done, 0)
    look_again(pump)
    assert client_exits.arriving_total_sat(alice.state) == due_sat
    pump.mine(3)
    assert due_sat - SWEEP_SAT < wallet_sat(alice) - before_sat < due_sat
    assert client_exits.arriving_total_sat(alice.state) == 0
    pump.mine(WAY_BLOCKS)
    assert wallet_sat(alice) - before_sat < due_sat


def test_poisons_come_back_though_the_old_state_landed_before_the_client_did() -> None:
    pump, done, backup = forgetful()
    alice, _ = pump.clients
    due_sat = sum(poisoned_sat(pump, alice))
    bring_on_chain(pump, done, 0)
    look_again(pump, pump.lsp)
    restore(pump, (alice, backup))
    before_sat = wallet_sat(alice)
    look_again(pump)
    pump.mine(3)
    assert due_sat - SWEEP_SAT < wallet_sat(alice) - before_sat < due_sat


@pytest.mark.sampled(1)
@pytest.mark.parametrize("who", ["buyer", "neighbour"])
def test_what_came_back_is_published_though_the_lsp_is_gone_from_then_on(who: str) -> None:
    """After the second sale the buyer's store is from before both, its neighbour's from between."""
    pump, done, backup = forgetful()
    alice, bob = pump.clients
    if who == "neighbour":
        backup = backup_of(bob)
    client, other = (alice, bob) if who == "buyer" else (bob, alice)
    newest = advance(pump, alice, SOLD_SAT)
    restore(pump, (client, backup))
    assert pump.held(client).leaf.states == newest.leaf.states
    pump.restart(client)
    pump.disconnect(client)
    look_away(pump, pump.lsp, other)
    leave(pump, client)
    pump.mine(WAY_BLOCKS)
    assert newest.leaf.state.tx.txid in pump.chain.confirmed
    olds = {done.leaf.states[index].tx.txid for index in (0, 1)}
    assert not olds & published_txids(pump, client)
    outpoint = newest.leaf.state.tx.outpoint(newest.leaf.clients.index(newest_link(client).client))
    assert spender_of(pump, outpoint) is None, "our own commitment may be revoked"
    look_again(pump)
    pump.mine(WAY_BLOCKS)
    assert lsp_link(pump, newest_link(client)).finished.tx.txid in pump.chain.confirmed


def late_start(pump: Pump, done: Advance, client: PumpNode, backup: Backup) -> None:
    """Start a restored client that leaves, without its LSP, where its old state could be next."""
    look_away(pump, *(node for node in (pump.lsp, *pump.clients) if node is not client))
    mine_blindly(pump, 1, [kickoff_of(pump)])
    mine_blindly(pump, done.leaf.states[0].delay_blocks)
    start_alone(pump, client, backup)
    leave(pump, client)
    pump.sync()


def test_an_old_state_is_held_back_until_the_lsp_told_of_newer_ones() -> None:
    pump, done, backup = forgetful()
    alice, _ = pump.clients
    late_start(pump, done, alice, backup)
    pump.mine()
    assert not {state.tx.txid for state in done.leaf.states} & published_txids(pump, alice)
    pump.connect(alice)
    pump.run()
    assert done.leaf.state.tx.txid in published_txids(pump, alice)
    pump.mine()
    assert done.leaf.state.tx.txid in pump.chain.confirmed
    assert done.leaf.states[0].tx.txid not in published_txids(pump, alice)
    assert not pump.deadlines_of(fx.LeafDeadline)


def test_a_restored_client_does_not_wait_for_its_lsp_for_ever() -> None:
    """The poisons come when the LSP does."""
    pump, done, backup = forgetful()
    alice, _ = pump.clients
    due_sat = sum(poisoned_sat(pump, alice))
    late_start(pump, done, alice, backup)
    assert pump.deadlines_of(fx.LeafDeadline)
    pump.restart(alice)
    pump.disconnect(alice)
    ((_, deadline),) = pump.deadlines_of(fx.LeafDeadline)
    assert pump.deadlines[alice.name, deadline] == 60
    assert done.leaf.states[0].tx.txid not in published_txids(pump, alice)
    pump.pass_deadline(alice, deadline)
    assert done.leaf.states[0].tx.txid in published_txids(pump, alice)
    pump.mine()
    assert done.leaf.states[0].tx.txid in pump.chain.confirmed
    look_again(pump)
    before_sat = wallet_sat(alice)
    pump.connect(alice)
    pump.run()
    pump.mine(3)
    assert due_sat - SWEEP_SAT < wallet_sat(alice) - before_sat < due_sat


def test_what_is_told_twice_or_before_a_crash_is_held_once() -> None:
    pump, done, backup = forgetful()
    alice, _ = pump.clients
    pump.disconnect(alice)
    alice.die()
    put_back(alice, backup)
    alice.start()
    pump.connect(alice)
    pump.run_to(m.LeafStates)
    pump.restart(alice)
    pump.run()
    pump.restart(alice)
    pump.run()
    (message,) = {one.message for one in told(alice, ar.LeafStatesTold)}
    (sent, *_) = pump.sent(pump.lsp, m.LeafStates)
    n_before = len(told(alice, ar.LeafStatesTold))
    pump.lsp_says(alice, sent)
    pump.lsp_says(alice, sent)
    assert len(told(alice, ar.LeafStatesTold)) == n_before
    assert m.encode_message(sent) == message
    assert pump.held(alice).leaf.states == done.leaf.states


# Lies


def altered(states: tuple[LeafState, ...], **changes: Any) -> tuple[LeafState, ...]:
    return (*states[:-1], replace(states[-1], **changes))


def _grown(state: LeafState) -> tuple[AllocatedChannel, ...]:
    first, second = state.channels
    return (
        replace(first, capacity_sat=first.capacity_sat - 1_000),
        replace(second, capacity_sat=second.capacity_sat + 1_000),
    )


Lie = Callable[[tuple[LeafState, ...]], tuple[LeafState, ...]]
LIES: Final[dict[str, Lie]] = {
    "a sale that was none": lambda states: altered(
        states, lstock_sat=states[0].lstock_sat - 100, channels=_grown(states[0])
    ),
    "another sale": lambda states: altered(
        states,
        lstock_sat=states[0].lstock_sat + 1_000,
        channels=(
            replace(states[0].channels[0], capacity_sat=states[0].channels[0].capacity_sat - 1_000),
            states[0].channels[1],
        ),
    ),
    "a forged signature": lambda states: altered(states, signature=bytes(64)),
    "no channel": lambda states: altered(states, channels=()),
    "a forged poison": lambda states: altered(states, channel_poison=states[0].stock_poison),
    "half of the poisons": lambda states: altered(states, channel_poison=b""),
    "the same sale twice": lambda states: (*states, *states),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("lie", LIES)
def test_an_lsp_that_lies_about_a_leaf_is_not_believed(lie: str) -> None:
    pump, done, backup = forgetful()
    alice, _ = pump.clients

    def tampered(_by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if isinstance(message, m.LeafStates):
            return (replace(message, states=LIES[lie](message.states)),)
        return (message,)

    with pump.tampering(tampered):
        restore(pump, (alice, backup))
    assert not told(alice, ar.LeafStatesTold)
    assert len(pump.held(alice).leaf.states) == 1
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    assert pump.held(alice).leaf.states == done.leaf.states, "the truth is still taken"


def test_what_an_lsp_withholds_costs_it_its_own_race_alone() -> None:
    """Told of the first sale alone, the client publishes that state, and gets its poisons later."""
    pump, _, backup = forgetful()
    alice, bob = pump.clients
    newest = advance(pump, alice, SOLD_SAT)

    def tampered(_by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if isinstance(message, m.LeafStates):
            return (replace(message, states=message.states[:1]),)
        return (message,)

    with pump.tampering(tampered):
        restore(pump, (alice, backup))
    assert len(pump.held(alice).leaf.states) == 2
    look_away(pump, pump.lsp, bob)
    leave(pump, alice)
    pump.mine(WAY_BLOCKS)
    assert newest.leaf.states[1].tx.txid in pump.chain.confirmed
    leaf = pump.attempt.leaf(newest_link(alice).client)
    seat = newest_link(alice).client
    due_sat = leaf.channel_poison(1, seat).shares_sat[seat] + leaf.stock_poison(1).shares_sat[seat]
    pump.disconnect(alice)
    pump.connect(alice)
    pump.run()
    before_sat = wallet_sat(alice)
    pump.mine(3)
    assert due_sat - SWEEP_SAT < wallet_sat(alice) - before_sat < due_sat


def test_the_states_of_another_leaf_or_factory_are_not_taken() -> None:
    pump, _, backup = forgetful()
    alice, bob = pump.clients
    restore(pump, (alice, backup))
    (sent, *_) = pump.sent(pump.lsp, m.LeafStates)
    n_before = len(told(alice, ar.LeafStatesTold))
    pump.lsp_says(alice, replace(sent, attempt_id=bytes(32)))
    assert len(told(alice, ar.LeafStatesTold)) == n_before
    # Bob's store is whole: it is told nothing, whoever says what.
    pump.lsp_says(bob, replace(sent, states=()))
    pump.lsp_says(bob, sent)
    assert not told(bob, ar.LeafStatesTold)
    assert newest_link(bob).failure is None


# Who says that it lost its store


def claim(pump: Pump, client: PumpNode) -> tuple[LeafState, ...]:
    """Let a client whose store is whole say that it was restored; return what it is told."""
    n_before = len(pump.sent(pump.lsp, m.LeafStates))
    marked = m.StoreMarked(channel_id=newest_link(client).channel_id, revealed_hash=bytes(32))
    pump.tell(pump.lsp, client, marked)
    (answer,) = pump.sent(pump.lsp, m.LeafStates)[n_before:]
    return answer.states


@pytest.mark.sampled(2)
@pytest.mark.parametrize("has_kickoff", [False, True])
@pytest.mark.parametrize("until", [Step.COMMITTED, Step.DONE, Step.REBASED])
def test_a_client_that_pretends_gets_nothing_that_was_not_its_own(
    until: Step, *, has_kickoff: bool
) -> None:
    """Poisons leave while the kickoff is not on chain, or where the client gave up the state."""
    pump, _ = sold(until)
    _, bob = pump.clients
    if has_kickoff:
        pump.chain.broadcast(kickoff_of(pump))
        pump.chain.mine()
        pump.sync()
        pump.run()
    states = claim(pump, bob)
    if until is Step.COMMITTED:
        assert states == ()
        return
    (state,) = states
    may_leave = until is Step.REBASED or not has_kickoff
    assert bool(state.channel_poison) is bool(state.stock_poison) is may_leave


# The LSP's store was restored


@pytest.mark.parametrize("is_client_restored", [False, True])
def test_a_restored_lsp_tells_what_it_knows_and_takes_nothing_away(
    *, is_client_restored: bool
) -> None:
    """Whoever's store is whole publishes the newest state; of two restored ones both know none."""
    pump, done = sold(None)
    alice, bob = pump.clients
    backups = [(node, backup_of(node)) for node in (pump.lsp, alice)]
    done.begin(Step.REBASED)
    restore(pump, *(backups if is_client_restored else backups[:1]))
    n_told = len(pump.sent(pump.lsp, m.LeafStates))
    assert bool(n_told) is is_client_restored
    assert len(pump.held(alice).leaf.states) == (1 if is_client_restored else 2)
    assert not pump.held(alice).awaits_states
    assert len(pump.held(bob).leaf.states) == 2
