"""From the first sale on both roles race for every confirmed kickoff, whoever leaves or stays."""

import pytest
from tests.protocol.advanced import Advance, Step, kickoff_of
from tests.protocol.old_states import (
    STEP_BLOCKS,
    everybody,
    look_again,
    look_away,
    mine_blindly,
    sold,
    state_of,
)
from tests.protocol.paying_clients import balance, lsp_link, newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.unanswered import remove_blocks
from tests.simulation.sim_chain import SimRefused

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.journal import exit_records as xr
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import FALLBACK_SAT_PER_KW
from cromford.watch.race import race_of
from cromford.watch.schedule import MARGIN_BLOCKS


def bumpings(pump: Pump, node: PumpNode, tx: Tx) -> list[Bumping | None]:
    """Return what a node would do for a transaction, each time that it published it."""
    return [one.bumping for one in pump.wishes(node, fx.Broadcast) if one.tx.txid == tx.txid]


def kicked_off(pump: Pump) -> int:
    """Let a stranger confirm the kickoff; return where."""
    pump.chain.broadcast(kickoff_of(pump))
    pump.mine()
    return pump.chain.height


@pytest.mark.sampled(1)
@pytest.mark.parametrize("who", ["lsp", "alice", "bob"])
def test_the_newest_state_wins_though_all_but_one_sleep(who: str) -> None:
    """The buyer, its neighbour that bought nothing, or the LSP: one is enough, leaving or not."""
    pump, done = sold()
    alice, bob = pump.clients
    awake = {"lsp": pump.lsp, "alice": alice, "bob": bob}[who]
    due_sat = balance(alice).own_msat // 1000
    height = kicked_off(pump)
    look_away(pump, *(node for node in everybody(pump) if node is not awake))
    race = race_of(done.leaf.state, kickoff_height=height, step_blocks=STEP_BLOCKS)
    assert race is not None
    while pump.chain.height < race.first_height:
        pump.mine()
    newest, old = (state_of(pump, done, index) for index in (1, 0))
    assert pump.chain.confirmed[newest.txid] == race.first_height
    assert race.first_height + STEP_BLOCKS == race.rival_height
    with pytest.raises(SimRefused):
        pump.chain.broadcast(old)
    look_again(pump)
    pump.mine(2)
    assert not any(isinstance(one, xr.ExitStarted) for one in awake.store.remembered)
    assert balance(alice).own_msat // 1000 == due_sat, "nobody left, nothing was lost"


@pytest.mark.parametrize("who", ["lsp", "client"])
def test_it_is_bumped_within_the_step_at_every_block(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old state with a child may take its place in the mempool: it is outbid, ever higher."""
    pump, done = sold()
    node = pump.lsp if who == "lsp" else pump.clients[1]
    height = kicked_off(pump)
    newest = state_of(pump, done, 1)
    monkeypatch.setattr(pump.chain, "broadcast", _refuse)
    pump.mine(done.leaf.state.delay_blocks - 1 + STEP_BLOCKS)
    asked = bumpings(pump, node, newest)
    assert len(asked) >= STEP_BLOCKS + 1, "at every block"
    rates = [one.feerate_sat_per_kw for one in asked if one is not None]
    assert len(rates) == len(asked)
    assert rates == sorted(rates)
    assert rates[0] == FALLBACK_SAT_PER_KW
    assert rates[-1] > 2 * rates[0]
    budgets = [one.budget_sat for one in asked if one is not None]
    late_height = height + done.leaf.state.delay_blocks + STEP_BLOCKS - MARGIN_BLOCKS
    n_late = pump.chain.height - late_height + 1
    assert n_late > 0
    stake_sat = budgets[-1] + 330
    expected = [stake_sat // 2] * (len(budgets) - n_late) + [stake_sat - 330] * n_late
    assert budgets == expected, "from the deadline on all but dust may go for it"
    if who == "lsp":
        lstock_sat = done.leaf.allocation.lstock_sat
        own_msat = sum(
            balance_of(lsp_link(pump, newest_link(one))).own_msat for one in pump.clients
        )
        assert stake_sat == own_msat // 1000 + lstock_sat, "what is its own below"


def test_nobody_pays_for_a_state_that_nothing_can_overtake() -> None:
    pump, done = sold(Step.COMMITTED)
    kicked_off(pump)
    old = state_of(pump, done, 0)
    pump.mine(done.leaf.states[0].delay_blocks)
    assert old.txid in pump.chain.confirmed
    for node in everybody(pump):
        assert bumpings(pump, node, old) == [None]


def test_a_reorganisation_of_the_kickoff_begins_the_race_anew() -> None:
    pump, done = sold()
    kicked_off(pump)
    pump.mine(done.leaf.state.delay_blocks - 2)
    remove_blocks(pump, done.leaf.state.delay_blocks - 1)
    pump.mine(STEP_BLOCKS)
    newest = state_of(pump, done, 1)
    assert [len(bumpings(pump, node, newest)) for node in everybody(pump)] == [0, 0, 0]
    height = kicked_off(pump)
    pump.mine(done.leaf.state.delay_blocks)
    assert pump.chain.confirmed[newest.txid] == height + done.leaf.state.delay_blocks


def test_the_newest_state_in_a_block_can_be_undone_and_comes_again() -> None:
    pump, done = sold()
    alice, _ = pump.clients
    kicked_off(pump)
    pump.mine(done.leaf.state.delay_blocks)
    newest = state_of(pump, done, 1)
    assert newest.txid in pump.chain.confirmed
    remove_blocks(pump, 1)
    assert newest.txid not in pump.chain.confirmed
    pump.mine(2)
    assert newest.txid in pump.chain.confirmed
    assert wallet_sat(alice) == 0


def test_a_leaf_that_was_kicked_off_before_the_state_is_known_to_all_lands_in_the_newer() -> None:
    """The LSP holds the finished state and told nobody: it publishes it, and the clients see it."""
    pump, done = sold(Step.DONE)
    for client in pump.clients:
        pump.disconnect(client)
    kicked_off(pump)
    pump.mine(done.leaf.state.delay_blocks)
    for client in pump.clients:
        (agreed,) = pump.held(client).leaf_states
        assert agreed.signature == state_of(pump, done, 1).inputs[0].witness[0]
        assert agreed.poisons is None


def _published_by(pump: Pump, done: Advance) -> list[int]:
    newest = state_of(pump, done, 1)
    return [len(bumpings(pump, node, newest)) for node in everybody(pump)]


def test_who_slept_through_the_kickoff_publishes_it_at_once() -> None:
    pump, done = sold()
    look_away(pump)
    mine_blindly(pump, 1, [kickoff_of(pump)])
    mine_blindly(pump, done.leaf.state.delay_blocks + STEP_BLOCKS // 2)
    look_again(pump)
    assert all(n > 0 for n in _published_by(pump, done))
    pump.mine()
    assert state_of(pump, done, 1).txid in pump.chain.confirmed


def _refuse(_tx: Tx) -> None:
    raise SimRefused("mempool full")
