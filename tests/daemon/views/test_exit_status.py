"""`exit status`: what waits for a block waits, and nothing else."""

from tests.protocol.test_client_verify import moments

from cromford.answers.exits import WaitingTransaction
from cromford.bitcoin.tx import OutPoint
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
