"""Reading blocks again from a height, so that what was missed is seen: coins, a funding, a spend.

The role is taken back to the height as a reorganisation would, by the same records, and the
follower goes on from there. So a crash at any moment leaves a role that has seen every block up to
some height and none above; asking again finishes what was begun.
"""

from typing import Any, Final, Protocol

import msgspec

from cromford.answers.chain import RescanBegun
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.chain_following import ChainFollowing
from cromford.ports import BlockRef, Chain, ChainUnavailable
from cromford.protocol import events as ev
from cromford.shelf import key_bytes
from cromford.wallet.coins import Wallet

FROM_HEIGHT_MIN: Final = 1  # The genesis block pays nobody.


class RescanOwner(Protocol):
    """What a daemon offers the rescan."""

    @property
    def chain(self) -> Chain:
        """The node."""

    @property
    def following(self) -> ChainFollowing:
        """What follows the node."""

    @property
    def wallet(self) -> Wallet:
        """The wallet's present state."""

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        """The newest blocks the role has seen, oldest first."""

    @property
    def height(self) -> int:
        """The height of the tip the role has seen, or -1."""

    def post(self, event: ev.Event) -> None:
        """Handle one event."""


class RescanParams(msgspec.Struct, forbid_unknown_fields=True):
    """What `rescan` is asked: the first block to read again."""

    from_height: int


PARAMS: Final[Params] = {"rescan": RescanParams}


def rescan_method(owner: RescanOwner) -> Handler:
    """Return the method `rescan`."""

    async def rescan(params: dict[str, Any]) -> RescanBegun:
        from_height = read_params(params, RescanParams).from_height
        base, to_height = await _range_of(owner, from_height)
        owner.post(ev.RescanRequested())
        _take_back(owner, base)
        owner.following.go_on_from_the_recorded_blocks()
        return {"from_height": from_height, "to_height": to_height}

    return rescan


async def _range_of(owner: RescanOwner, from_height: int) -> tuple[BlockRef, int]:
    """Return the block below the first one to read, and the height of the last one.

    Raises:
        ApiFailure: If the node cannot show the blocks.
    """
    if not FROM_HEIGHT_MIN <= from_height <= owner.height:
        raise InvalidParam(
            "from_height", f"expected {FROM_HEIGHT_MIN}..{owner.height}, received {from_height}"
        )
    try:
        status = await owner.chain.status()
        block_hash = await owner.chain.block_hash(from_height - 1)
    except ChainUnavailable as error:
        raise ApiFailure("chain_unavailable", str(error), retryable=True) from error
    if from_height < status.kept_height:
        raise ApiFailure(
            "blocks_pruned",
            f"the node has pruned the blocks below height {status.kept_height}, and the rescan "
            f"begins at {from_height}",
            remediation="Use a node that has them (--chain-url), or let this one load them again "
            f"(bitcoind -reindex, with -prune=0). From height {status.kept_height} on it works "
            "as it is.",
        )
    known = {block.height: block.block_hash for block in owner.recent_blocks}
    if block_hash is None or known.get(from_height - 1, block_hash) != block_hash:
        raise ApiFailure(
            "chain_stale",
            f"the node has not got the block of height {from_height - 1} that was read before",
            retryable=True,
            remediation="Wait until `status` says that the chain is fresh.",
        )
    return BlockRef(height=from_height - 1, block_hash=block_hash), status.tip.height


def _take_back(owner: RescanOwner, base: BlockRef) -> None:
    """Take the role back to a block, without a moment in which another event comes between.

    To the chain a removed block removes all above it; the wallet forgets its coins block by block.
    """
    touched = {base.height + 1}
    touched.update(height for height, _ in owner.wallet.touched.walk(key_bytes(base.height + 1)))
    touched.update(height for height, _ in owner.wallet.ended_payments.values())
    for height in sorted(touched, reverse=True):
        if height > base.height:
            owner.post(ev.BlockRemoved(height=height))
    if not owner.recent_blocks:
        # It lies below the blocks that the role remembers.
        owner.post(ev.BlockAdded(height=base.height, block_hash=base.block_hash, txs=()))
