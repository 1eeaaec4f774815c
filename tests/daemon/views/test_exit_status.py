"""`exit status`: what waits for a block waits, and nothing else."""

import pytest
from tests.protocol.closes import closable_factory, close
from tests.protocol.paying_clients import pay
from tests.protocol.test_client_verify import PAID_MSAT, moments
from tests.protocol.test_swept_factories import factory_with_balance, own_attempt, see, sweep_of

from cromford.answers.exits import WaitingTransaction
from cromford.bitcoin.tx import OutPoint
from cromford.daemon.views.exit import CLOSED, GONE, exit_plan
from cromford.daemon.views.exit_status import exit_status
from cromford.watch.feerates import OwnFees


def seen(outpoint: OutPoint) -> WaitingTransaction:
    """Answer as a node's mempool did before the block: it had something for each outpoint."""
    return {
        "name": str(outpoint),
        "txid": str(outpoint.txid),
        "waits": True,
        "wanted_sat_per_vb": 1.0,
        "package_sat_per_vb": 1.0,
        "child_txid": None,
        "child_fee_sat": None,
        "child_is_ours": False,
    }


def test_what_is_in_a_block_waits_for_none() -> None:
    moment = moments()["leaving"]
    status = exit_status(moment.state, moment.attempt, OwnFees(), seen)
    in_blocks = [step["name"] for step in status["steps"] if step["status"] == "confirmed"]
    assert in_blocks == ["kickoff_root"]
    waiting = [one["name"] for one in status["waiting"]]
    assert str(moment.attempt.funding_outpoint) not in waiting
    assert len(waiting) == len(status["steps"])  # The other steps, and the commitment.


def test_once_a_close_is_in_a_block_there_is_no_way_out_to_publish() -> None:
    pump = closable_factory(2)
    client = pump.client_at(1)
    pay(pump, pump.lsp, client, PAID_MSAT)
    close(pump)
    (attempt,) = client.state.attempts.values()
    assert exit_plan(client.state, attempt, OwnFees())["steps"][0]["status"] == "publish_now"
    pump.mine()
    plan = exit_plan(client.state, attempt, OwnFees())
    status = exit_status(client.state, attempt, OwnFees(), seen)
    for shown in (plan, status):
        assert {step["status"] for step in shown["steps"]} == {"lost"}
    assert (plan["next"], plan["channel"], plan["exit_blocks"]) == (CLOSED, None, 0)
    assert {fees["fee_sat"] for fees in (*plan["fees_at"], plan["fees_today"])} == {0}


@pytest.mark.parametrize("place", ["funding", "kickoff"])
def test_what_else_takes_the_place_of_a_step_takes_that_of_all_behind_it(place: str) -> None:
    pump = factory_with_balance()
    alice = pump.clients[0]
    kickoff = own_attempt(alice).branch.nodes[0].tx
    if place == "kickoff":
        see(pump, alice, kickoff)
    before = exit_plan(alice.state, own_attempt(alice), OwnFees())
    spent = own_attempt(alice).funding_outpoint if place == "funding" else kickoff.outpoint(0)
    see(pump, alice, sweep_of(spent))
    plan = exit_plan(alice.state, own_attempt(alice), OwnFees())
    statuses = [step["status"] for step in plan["steps"]]
    n_there = int(place == "kickoff")
    assert statuses[:n_there] == ["confirmed"] * n_there
    assert set(statuses[n_there:]) == {"lost"}
    assert (plan["next"], plan["channel"], plan["exit_blocks"]) == (GONE, None, 0)
    assert before["exit_blocks"] > 0
