"""What a party signs alone pays what its own node asks, whatever the terms say."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import balance, live_factory, lsp_link, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK, leave, publish_branch, wallet_sat

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.ports import RelayFeerates
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.lobby.build import BuildPlan, plan_build
from cromford.watch.feerates import OwnFees

DEAR: Final = 750  # 3 sat/vB, where the terms say 1 or 2.
FIRST_MSAT: Final = 30_000_000
DELAY_BLOCKS: Final = 144


def asks(pump: Pump, mempool_min_sat_per_kw: int) -> None:
    """Let every node ask for this feerate from now on, and every role know it."""
    pump.chain.relay = RelayFeerates(
        mempool_min_sat_per_kw=mempool_min_sat_per_kw,
        min_relay_sat_per_kw=25,
        incremental_sat_per_kw=25,
    )
    for node in (pump.lsp, *pump.clients):
        node.fees = OwnFees(mempool_min_sat_per_kw=mempool_min_sat_per_kw)


def mined(pump: Pump, tx: Tx) -> None:
    """Let a miner take a transaction that no mempool has: a thief knows one."""
    pump.chain.mempool.clear()
    pump.chain.mempool[tx.txid] = tx
    pump.chain.mine()
    assert tx.txid in pump.chain.confirmed
    pump.sync()
    pump.run()


def cheated(pump: Pump, thief: str) -> tuple[PumpNode, int]:
    """Let one side of a channel publish what it revoked; return the other, and the capacity."""
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    old = lsp_link(pump, newest_link(alice)) if thief == "lsp" else newest_link(alice)
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pay(pump, alice, bob, 5_000_000)
    link = newest_link(alice)
    node = pump.lsp if thief == "lsp" else alice
    client = link.client if thief == "lsp" else None
    pump.handle(node, ev.ExitRequested(attempt_id=link.attempt_id, client=client))
    publish_branch(pump, link)
    asks(pump, DEAR)
    mined(pump, old.finished.tx)
    return (alice if thief == "lsp" else pump.lsp), link.setting.funding.capacity_sat


@pytest.mark.parametrize("thief", ["lsp", "client"])
@pytest.mark.parametrize("terms_feerate", [250, 500])
def test_a_revoked_commitment_costs_everything_on_a_chain_dearer_than_the_terms(
    thief: str, terms_feerate: int
) -> None:
    # The L-stock is the LSP's all the same, and would come in between.
    policy = replace(QUICK, tree_feerate_sat_per_kw=terms_feerate, lstock_csv_blocks=144)
    pump = live_factory(2, policy=policy)
    before_sat = wallet_sat(pump.lsp)
    victim, capacity_sat = cheated(pump, thief)
    pump.mine(4)
    gained_sat = wallet_sat(victim) - (before_sat if thief == "client" else 0)
    assert gained_sat > capacity_sat - 4_000
    thiefs = pump.clients[0] if thief == "client" else pump.lsp
    assert wallet_sat(thiefs) <= (0 if thief == "client" else before_sat)


def test_a_penalty_that_is_not_mined_is_signed_anew_and_dearer_at_every_block() -> None:
    """The minimum rises in the middle: what waited is gone, and the next one gets in."""
    policy = replace(QUICK, to_self_delay_lsp=DELAY_BLOCKS, to_self_delay_client=DELAY_BLOCKS)
    pump = live_factory(2, policy=policy)
    alice, capacity_sat = cheated(pump, "lsp")
    fees = []
    for minimum in (DEAR, DEAR, 4 * DEAR, 4 * DEAR):
        asks(pump, minimum)
        pump.chain.mempool.clear()
        pump.chain._connect(())  # A block without it.
        pump.sync()
        pump.run()
        (penalty,) = (
            wish.tx
            for wish in pump.wishes(alice, fx.Broadcast)[-3:]
            if wish.name == "penalty" and wish.tx.txid in pump.chain.mempool
        )
        fees.append(pump.chain.fee_sat(penalty))
        assert fees[-1] >= 2 * (penalty.vsize * 4 * minimum // 1000)
    assert fees == sorted(set(fees))
    pump.mine(2)
    assert wallet_sat(alice) > capacity_sat - 10_000


def test_a_balance_of_ones_own_waits_for_no_rival_and_pays_the_days_rate() -> None:
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    asks(pump, 25)
    for node in (pump.lsp, *pump.clients):
        node.fees = OwnFees(estimates=((2, 5_000), (144, 1_000), (1008, 250)))
    own_sat = balance(alice).own_msat // 1000
    leave(pump, alice)
    (sweep,) = {wish.tx for wish in pump.wishes(alice, fx.Broadcast) if wish.name == "sweep"}
    fee_sat = own_sat - sweep.outputs[0].amount_sat
    assert fee_sat == sweep.vsize * 4 * 1_000 // 1000
    assert wallet_sat(alice) == own_sat - fee_sat


def relays_from(node: PumpNode, min_relay_sat_per_kw: int) -> None:
    node.fees = OwnFees(min_relay_sat_per_kw=min_relay_sat_per_kw)


def test_an_lsp_plans_no_factory_whose_way_out_its_own_node_would_not_relay() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    relays_from(pump.lsp, 401)
    pump.build()
    assert pump.lsp.state.house.build is None
    assert not pump.lsp.state.attempts
    relays_from(pump.lsp, 390)
    pump.build()
    pump.run()
    assert pump.is_funded()


def test_an_lsp_plans_no_funding_that_its_own_node_does_not_relay() -> None:
    """A child is no way in: up to version 30 Core asks that of each transaction of version 2."""
    pump = Pump(2, policy=replace(QUICK, funding_feerate_sat_per_kw=60))
    pump.join()
    relays_from(pump.lsp, 61)
    with pytest.raises(Rejected, match=r"^funding_feerate: expected at least 0\.244 sat/vB") as low:
        planned(pump)
    assert (low.value.code, low.value.retryable) == ("funding_feerate_too_low", False)
    with pytest.raises(Rejected, match=r"^funding_feerate: .*, received 0\.24 sat/vB"):
        planned(pump, 60, 500)
    pump.build()
    assert pump.lsp.state.house.build is None
    relays_from(pump.lsp, 60)
    pump.build()
    pump.run()
    assert pump.is_funded()


def test_nor_one_of_which_the_mempool_takes_no_candidate_today() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    asks(pump, 501)
    with pytest.raises(Rejected, match=r"^funding_feerate: expected at least 2\.004 sat/vB") as low:
        planned(pump)
    assert (low.value.code, low.value.retryable) == ("funding_feerate_too_low", True)
    assert planned(pump, 250, 501).ladder.rungs[0].feerate_sat_per_kw == 250, "the next one does"
    asks(pump, 500)
    pump.build()
    pump.run()
    assert pump.is_funded()


def test_a_schedule_waits_until_the_mempool_takes_what_it_would_publish() -> None:
    pump = Pump(2, policy=replace(QUICK, build_at_clients=2))
    asks(pump, 501)
    pump.join()
    house = pump.lsp.state.house
    assert (house.build, house.hindered_by) == (None, "funding_feerate_too_low")
    asks(pump, 500)
    pump.mine()
    pump.run()
    assert pump.is_funded()


def planned(pump: Pump, *feerates_sat_per_kw: int) -> BuildPlan:
    """Return what the LSP would build, as the operator is shown it."""
    return plan_build(
        pump.lsp.state.house,
        min_clients=2,
        max_clients=2,
        fees=pump.lsp.fees,
        feerates_sat_per_kw=feerates_sat_per_kw,
        needs_keys=False,
    )


def test_a_client_signs_no_terms_whose_transactions_its_own_node_would_not_relay() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    alice = pump.clients[0]
    relays_from(alice, 401)
    pump.build()
    pump.run()
    (attempt,) = alice.state.attempts.values()
    assert attempt.aborted is not None
    assert attempt.aborted.startswith("refused: kickoff_root.fee_sat: expected at least 249 for")
    assert attempt.aborted.endswith("received 248")
