"""A state that was replaced lands all the same: poisons, penalties, and who ends with what."""

from typing import Final

import pytest
from tests.protocol.advanced import Advance, Step
from tests.protocol.old_states import (
    POLICY,
    bring_on_chain,
    channel_outpoint,
    everybody,
    look_again,
    sold,
    spender_of,
    state_of,
    told,
    wallets_sat,
)
from tests.protocol.paying_clients import (
    balance,
    begin_payment,
    book,
    live_factory,
    lsp_link,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import mute, wallet_sat
from tests.protocol.unanswered import mine_to, only_expiry, remove_blocks
from tests.simulation.sim_chain import SimRefused

from cromford import effects as fx
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting import client as client_exits
from cromford.protocol.exiting import lsp as lsp_exits
from cromford.protocol.exiting.superseded import SUPERSEDED
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.watch.bumping import Bumping, Family, Rival, next_move
from cromford.watch.feerates import FALLBACK_SAT_PER_KW
from cromford.watch.schedule import MARGIN_BLOCKS
from cromford.wire import messages as m

SWEEP_SAT: Final = 600  # More than what taking two outputs of poisons costs.
PENALTY_SAT: Final = 1_500  # More than a commitment's fee and anchor, and the penalty's fee.


def poisoned_sat(pump: Pump, client: PumpNode) -> tuple[int, int]:
    """Return what the poisons of the first state pay a client: of its channel, of the stock."""
    number = newest_link(client).client
    leaf = pump.attempt.leaf(number)
    shares = dict(zip(leaf.clients, leaf.shares_sat(0), strict=True))
    assert leaf.stock_poison(0).shares_sat[number] == shares[number]
    return leaf.channel_poison(0, number).shares_sat[number], shares[number]


def test_poisons_give_each_client_its_channel_and_its_share_of_the_stock() -> None:
    pump, done = sold()
    before = wallets_sat(pump)
    bring_on_chain(pump, done, 0)
    look_again(pump)
    for client in pump.clients:
        due_sat = sum(poisoned_sat(pump, client))
        assert client_exits.arriving_total_sat(client.state) == due_sat
        assert due_sat > balance(client).own_msat // 1000
    pump.mine(3)
    for client in pump.clients:
        due_sat = sum(poisoned_sat(pump, client))
        assert due_sat - SWEEP_SAT < wallet_sat(client) < due_sat
        assert client_exits.arriving_total_sat(client.state) == 0
    pump.mine(40)
    assert wallet_sat(pump.lsp) == before["lsp"], "it lost its own race, and everything here"
    assert lsp_exits.arriving_total_sat(pump.factory) == 0
    assert told(pump.lsp, xr.OutputsSwept) == []
    assert told(pump.lsp, xr.ExitStarted) == []


def test_a_replaced_state_is_told_ends_the_updates_and_is_no_sweep() -> None:
    pump, done = sold()
    bring_on_chain(pump, done, 0)
    look_again(pump)
    for node in everybody(pump):
        assert [one.transactions for one in told(node, xr.TreePublished)] == [
            ("kickoff_root",),
            ("state_root",),
        ]
        reasons = {one.reason for one in told(node, cr.ChannelFailed)}
        assert reasons == {SUPERSEDED}
    for client in pump.clients:
        assert not client_exits.is_swept(client.state, pump.held(client))
        assert not lsp_exits.is_swept(pump.factory, newest_link(client).client)
        assert not newest_link(client).takes_updates


def test_poisons_are_published_again_after_a_reorganisation_and_a_restart() -> None:
    pump, done = sold()
    alice, _ = pump.clients
    bring_on_chain(pump, done, 0)
    look_again(pump)
    pump.mine()
    poison = spender_of(pump, channel_outpoint(done, 0, alice))
    assert poison is not None
    remove_blocks(pump, 1)
    assert spender_of(pump, channel_outpoint(done, 0, alice)) is None
    pump.restart(alice)
    pump.mine(4)
    found = spender_of(pump, channel_outpoint(done, 0, alice))
    assert found == poison
    assert wallet_sat(alice) > sum(poisoned_sat(pump, alice)) - SWEEP_SAT


def test_poisons_are_bumped_by_a_child_of_ones_own_output_alone() -> None:
    pump, done = sold()
    alice, _ = pump.clients
    bring_on_chain(pump, done, 0)
    look_again(pump)
    number = newest_link(alice).client
    wished = {
        one.name: one.bumping
        for one in pump.wishes(alice, fx.Broadcast)
        if one.name.split("_")[1].startswith("poison")
    }
    assert wished.keys() == {f"channel_poison c{number} v0", "stock_poison v0"}
    key, script = pump.held(alice).key_attempt, pump.held(alice).join.payout_script
    for bumping in wished.values():
        assert bumping is not None
        assert bumping.own is not None
        assert (bumping.own.key.attempt, bumping.own.payout_script) == (key, script)
        assert bumping.purse is None
    assert pump.wishes(alice, fx.SignTakingTx) == []


def test_a_commitment_that_will_be_punished_is_no_rival_that_a_client_outbids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large and dear, and never mined, it would make the client burn half of what it is covered."""
    pump, done = sold()
    alice, _ = pump.clients
    bring_on_chain(pump, done, 0)
    monkeypatch.setattr(pump.chain, "broadcast", refuse)
    look_again(pump)
    pump.mine(POLICY.lstock_csv_blocks - MARGIN_BLOCKS)
    asked = [one for one in pump.wishes(alice, fx.Broadcast) if one.name.startswith("channel_po")]
    assert len(asked) > POLICY.lstock_csv_blocks - MARGIN_BLOCKS
    large = Rival(fee_sat=40_000, family=FeeAndWeight(40_000, 4 * 2_300), txid=Txid(bytes(32)))
    cheap = Rival(fee_sat=500, family=FeeAndWeight(500, 4 * 400), txid=Txid(bytes(32)))
    for one in asked:
        assert one.bumping is not None
        assert next_move(one.tx, one.bumping, Family(rival=large)) is None
        move = next_move(one.tx, one.bumping, Family(rival=cheap))
        assert move is not None
        assert move.child is not None, "what pays less than a day's rate is outbid"
        # Nobody else can ever take it: it does not hurry.
        assert one.bumping.feerate_sat_per_kw == FALLBACK_SAT_PER_KW
        assert one.bumping.budget_sat == sum(out.amount_sat for out in one.tx.outputs) // 2


def test_a_poison_of_the_stock_hurries_until_the_lsp_may_take_it_and_gives_way_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From six blocks before that on, all that it pays but dust may go for it."""
    pump, done = sold()
    alice, _ = pump.clients
    bring_on_chain(pump, done, 0)
    monkeypatch.setattr(pump.chain, "broadcast", refuse)
    look_again(pump)
    landed = alice.state.chain.confirmed[state_of(pump, done, 0).txid]
    deadline = landed + POLICY.lstock_csv_blocks - 6
    _, share_sat = poisoned_sat(pump, alice)
    seen: dict[int, Bumping] = {}
    while pump.chain.height <= deadline:
        for one in pump.wishes(alice, fx.Broadcast):
            if one.name == "stock_poison v0":
                assert one.bumping is not None
                seen[pump.chain.height] = one.bumping
        pump.mine()
    assert max(seen) == deadline
    assert {height: one.budget_sat for height, one in seen.items()} == {
        height: share_sat - 330 if height == deadline else share_sat // 2 for height in seen
    }
    assert not any(one.gives_way for one in seen.values())
    rates = [one.feerate_sat_per_kw for one in seen.values()]
    assert rates == sorted(rates)
    assert rates[-1] > 2 * rates[0] == 2 * FALLBACK_SAT_PER_KW


def refuse(_tx: Tx) -> None:
    raise SimRefused("mempool full")


@pytest.mark.parametrize("who", ["lsp", "client"])
def test_a_revoked_commitment_on_the_old_output_is_punished(who: str) -> None:
    """What was signed long before the sale, while there was no other output."""
    pump, done = sold(None)
    alice, _ = pump.clients
    end = lsp_link(pump, newest_link(alice)) if who == "lsp" else newest_link(alice)
    fraud = end.finished.tx
    done.begin(Step.REBASED)
    check_punished(pump, done, who, 0, fraud)


@pytest.mark.parametrize("who", ["lsp", "client"])
@pytest.mark.parametrize("state_index", [0, 1])
def test_what_was_signed_for_both_outputs_is_punished_on_either(who: str, state_index: int) -> None:
    punish_on_either(live_factory(2, policy=POLICY), who, state_index)


def punish_on_either(pump: Pump, who: str, state_index: int) -> None:
    """Let one publish what it signed for both outputs, and revoked; check that it is punished."""
    _, done = sold(Step.ACKNOWLEDGED, pump=pump)
    alice, bob = pump.clients
    end = lsp_link(pump, newest_link(alice)) if who == "lsp" else newest_link(alice)
    finished = end.finished_on(end.fundings[state_index])
    assert finished is not None
    done.finish()
    assert pay(pump, alice, bob, 5_000_000).status == "paid"
    check_punished(pump, done, who, state_index, finished.tx)


def check_punished(pump: Pump, done: Advance, who: str, state_index: int, fraud: Tx) -> None:
    """Check that the other side has all of Alice's channel; poisons are none of that."""
    alice, _ = pump.clients
    victim, cheater = (alice, pump.lsp) if who == "lsp" else (pump.lsp, alice)
    before = wallets_sat(pump)
    bring_on_chain(pump, done, state_index, fraud)
    look_again(pump)
    pump.mine(4)
    (found,) = told(victim, cr.BreachFound)
    assert found.channel_id == newest_link(alice).channel_id
    place = done.leaf.clients.index(newest_link(alice).client)
    capacity_sat = done.leaf.allocation_at(state_index).capacities_sat[place]
    share_sat = poisoned_sat(pump, alice)[1] if state_index == 0 else 0
    gained = {node: wallet_sat(node) - before[node.name] for node in (victim, cheater)}
    own_sat = share_sat if victim is alice else 0
    assert own_sat + capacity_sat - PENALTY_SAT < gained[victim] <= own_sat + capacity_sat
    assert gained[cheater] <= (share_sat if cheater is alice else 0)


def test_an_htlc_of_a_poisoned_channel_is_given_back_upstream_six_blocks_deep() -> None:
    """What the client offered itself stays unknown: it may have been taken."""
    pump, done = sold()
    alice, bob = pump.clients
    with pump.tampering(mute(bob, pump.lsp, m.UpdateFulfillHtlc)):
        payment = begin_payment(pump, alice, bob, 6_000_000)
    assert payment.status == "pending"
    bring_on_chain(pump, done, 0)
    look_again(pump)
    pump.mine(4)
    assert told(pump.lsp, cr.HtlcDecided) == []
    pump.mine(4)
    decided = told(pump.lsp, cr.HtlcDecided)
    assert [one.channel_id for one in decided] == [newest_link(bob).channel_id]
    assert decided[0].preimage is None
    assert book(alice).payments[payment.payment_hash].status == "pending"


@pytest.mark.sampled(0)
def test_an_htlc_of_a_channel_whose_poison_nobody_publishes_is_given_up_in_time() -> None:
    """Whoever paid for it upstream has it back, and need not leave its own channel for it."""
    pump, done = sold()
    alice, bob = pump.clients
    with pump.tampering(mute(bob, pump.lsp, m.UpdateFulfillHtlc)):
        payment = begin_payment(pump, pump.lsp, bob, 6_000_000)
    height = give_up_height(only_expiry(lsp_link(pump, newest_link(bob))))
    pump.disconnect(bob)
    bring_on_chain(pump, done, 0)
    pump.blind = {bob.name}
    pump.sync()
    pump.run()
    mine_to(pump, height - 1)
    assert spender_of(pump, channel_outpoint(done, 0, bob)) is None
    assert wallet_sat(alice) > sum(poisoned_sat(pump, alice)) - SWEEP_SAT
    assert told(pump.lsp, cr.HtlcDecided) == []
    pump.mine()
    (decided,) = told(pump.lsp, cr.HtlcDecided)
    assert (decided.channel_id, decided.preimage) == (newest_link(bob).channel_id, None)
    assert book(pump.lsp).payments[payment.payment_hash].status == "failed"
    look_again(pump)
    pump.mine(3)
    assert wallet_sat(bob) > sum(poisoned_sat(pump, bob)) - SWEEP_SAT


def test_the_lsp_brings_its_commitment_where_the_client_has_poisons_and_no_rebase_yet() -> None:
    """Both claims are good until the rebase: whoever is first has the channel."""
    pump, done = sold(Step.HELD)
    alice, _ = pump.clients
    link = lsp_link(pump, newest_link(alice))
    bring_on_chain(pump, done, 0)
    look_again(pump)
    published = {one.tx.txid for one in pump.wishes(pump.lsp, fx.Broadcast)}
    assert link.finished.tx.txid in published
    assert newest_link(alice).finished.tx.txid not in {
        one.tx.txid for one in pump.wishes(alice, fx.Broadcast)
    }
