"""What a client publishes to reach its channel, in order, and what that costs."""

from dataclasses import dataclass

from cromford.bitcoin.tx import Tx
from cromford.factory.branch import SignedBranch


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStep:
    """One transaction to publish, `delay_blocks` after its parent confirmed."""

    name: str
    tx: Tx
    delay_blocks: int
    fee_sat: int


def exit_path(signed: SignedBranch) -> tuple[ExitStep, ...]:
    """Return what a client publishes to reach its channel, in order.

    Only the client's own path: siblings of a published state stay off chain.
    """
    return tuple(
        ExitStep(
            name=node.name,
            tx=tx,
            delay_blocks=node.delay_blocks,
            fee_sat=node.fee_sat,
        )
        for node, tx in zip(signed.branch.nodes, signed.txs, strict=True)
    )
