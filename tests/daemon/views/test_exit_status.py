"""`exit status`: what waits for a block waits, and nothing else."""

from typing import Any

from tests.protocol.test_client_verify import moments

from cromford.bitcoin.tx import OutPoint
from cromford.daemon.views.exit_status import exit_status
from cromford.watch.feerates import OwnFees


def seen(outpoint: OutPoint) -> dict[str, Any]:
    """Answer as a node's mempool did before the block: it had something for each outpoint."""
    return {"spends": str(outpoint)}


def test_what_is_in_a_block_waits_for_none() -> None:
    moment = moments()["leaving"]
    status = exit_status(moment.state, moment.attempt, OwnFees(), seen)
    in_blocks = [step["name"] for step in status["steps"] if step["status"] == "confirmed"]
    assert in_blocks == ["kickoff_root"]
    waiting = [one["spends"] for one in status["waiting"]]
    assert str(moment.attempt.funding_outpoint) not in waiting
    assert len(waiting) == len(status["steps"])  # The other steps, and the commitment.
