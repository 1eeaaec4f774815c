"""What a client publishes to reach its channel, in order, and what that costs."""

from dataclasses import dataclass, field

from cromford.bitcoin.tx import Tx
from cromford.factory.branch import SignedBranch


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStep:
    """One transaction to publish, `delay_blocks` after its parent confirmed.

    `state_index` says which version of a state it is; None for what has no versions, and where the
    transaction alone is known.
    """

    name: str
    tx: Tx
    delay_blocks: int
    fee_sat: int
    state_index: int | None = field(default=None, compare=False)

    @property
    def is_raced(self) -> bool:
        """Whether its kickoff has started a race: older states may come after it."""
        return self.state_index is not None


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
            state_index=node.state_index,
        )
        for node, tx in zip(signed.branch.nodes, signed.txs, strict=True)
    )
