"""Follow the active chain by hash, block by block, through any reorganisation.

A driver remembers the newest blocks it has processed and starts from them; the follower tells it
what to undo and what to do, in order, so that after each batch both stand at the same block.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cromford.adapters.chain_check import ChainMismatch
from cromford.ports import Block, BlockRef, Chain, ChainUnavailable

POLL_SECONDS: Final = 1.0
BATCH_EVENTS_MAX: Final = 8  # A parsed block can take tens of megabytes.
KNOWN_BLOCKS_MAX: Final = 288  # Remembered to walk back on; deeper, the node is asked.
BACKOFF_FIRST_SECONDS: Final = 0.5
BACKOFF_MAX_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connected:
    """A block joined the active chain, on top of the one before it."""

    block: Block


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The newest block left the active chain."""

    block_ref: BlockRef


ChainEvent: TypeAlias = Connected | Disconnected


class ChainFollower:
    """What has happened on the chain since the blocks already known."""

    def __init__(
        self,
        chain: Chain,
        known: Sequence[BlockRef],
        *,
        poll_seconds: float = POLL_SECONDS,
        batch_events_max: int = BATCH_EVENTS_MAX,
        backoff_first_seconds: float = BACKOFF_FIRST_SECONDS,
        backoff_max_seconds: float = BACKOFF_MAX_SECONDS,
    ) -> None:
        """Start after `known`: consecutive blocks that were processed, the newest last.

        One block is enough. More of them make a reorganisation cheaper to walk back.

        Raises:
            ValueError: If `known` is empty or has a gap.
        """
        if not known:
            raise ValueError("a follower needs at least one known block to start from")
        heights = [block_ref.height for block_ref in known]
        if heights != list(range(heights[0], heights[0] + len(heights))):
            raise ValueError(f"known blocks: expected consecutive heights, received {heights}")
        self._chain = chain
        self._known = tuple(known[-KNOWN_BLOCKS_MAX:])
        self._poll_seconds = poll_seconds
        self._batch_events_max = batch_events_max
        self._backoff_first_seconds = backoff_first_seconds
        self._backoff_max_seconds = backoff_max_seconds

    @property
    def known(self) -> tuple[BlockRef, ...]:
        """The blocks of the batches that were taken, the newest last."""
        return self._known

    async def batches(self) -> AsyncIterator[tuple[ChainEvent, ...]]:
        """Yield what happened, never empty, for ever.

        Asking for the next batch says that the last one was processed: one that was not is told
        again by the next iteration. While the node is unavailable it waits, longer each time.

        Raises:
            ChainMismatch: If the node's chain has another genesis block than the known ones.
        """
        backoff_seconds = self._backoff_first_seconds
        while True:
            walk = _Walk(self._chain, self._known)
            try:
                await walk.go(self._batch_events_max)
            except ChainUnavailable as unavailable:
                if not walk.events:
                    _log.warning("chain_unavailable reason=%s", unavailable)
                    await asyncio.sleep(backoff_seconds)
                    backoff_seconds = min(2 * backoff_seconds, self._backoff_max_seconds)
                    continue
            backoff_seconds = self._backoff_first_seconds
            if walk.events:
                yield tuple(walk.events)
                self._known = tuple(walk.known)
            else:
                await asyncio.sleep(self._poll_seconds)


class _Walk:
    """The way from the known blocks towards the tip, one event after another."""

    def __init__(self, chain: Chain, known: Sequence[BlockRef]) -> None:
        self._chain = chain
        self.known = list(known)
        self.events: list[ChainEvent] = []

    async def go(self, steps_max: int) -> None:
        """Take up to `steps_max` steps. After an exception `events` and `known` still agree."""
        for _ in range(steps_max):
            newest = self.known[-1]
            if await self._chain.block_hash(newest.height) != newest.block_hash:
                await self._disconnect(newest)
                continue
            next_hash = await self._chain.block_hash(newest.height + 1)
            if next_hash is None:
                return
            block = await self._chain.block(next_hash)
            # Otherwise the chain was reorganised between two questions: look again.
            if block.previous_hash == newest.block_hash:
                self._connect(block)

    def _connect(self, block: Block) -> None:
        self.events.append(Connected(block))
        self.known.append(BlockRef(height=block.height, block_hash=block.block_hash))
        del self.known[:-KNOWN_BLOCKS_MAX]

    async def _disconnect(self, newest: BlockRef) -> None:
        if newest.height == 0:
            received = await self._chain.block_hash(0)
            raise ChainMismatch("genesis hash", expected=newest.block_hash, received=received)
        if len(self.known) == 1:
            previous_hash = (await self._chain.block(newest.block_hash)).previous_hash
            self.known.insert(0, BlockRef(height=newest.height - 1, block_hash=previous_hash))
        self.known.pop()
        self.events.append(Disconnected(newest))
