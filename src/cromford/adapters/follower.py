"""Follow the active chain by hash, block by block, through any reorganisation.

A driver remembers the newest blocks it has processed and starts from them; the follower tells it
what to undo and what to do, in order, so that after each batch both stand at the same block.

A chain that ends below the newest known block is not a reorganisation but a node behind, as long
as its tip is an ancestor of ours: a node that rebuilds its chainstate shows all its blocks again
from the first one on. It is waited for; nothing is undone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cromford.adapters.chain_check import ChainMismatch
from cromford.ports import Block, BlockRef, BlocksPruned, Chain, ChainStatus, ChainUnavailable

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


def _ignore(_told: object) -> None:
    """Nobody listens."""


async def _fits() -> None:
    """Nobody doubts the node."""


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
        heard: Callable[[ChainStatus], None] = _ignore,
        missed: Callable[[ChainUnavailable], None] = _ignore,
        check: Callable[[], Awaitable[None]] = _fits,
    ) -> None:
        """Start after `known`: consecutive blocks that were processed, the newest last.

        One block is enough. More of them make a reorganisation cheaper to walk back.

        Args:
            chain: The node.
            known: The blocks to start after.
            poll_seconds: How long to wait where nothing happened.
            batch_events_max: How many events make a batch.
            backoff_first_seconds: How long to wait for a node that did not answer.
            backoff_max_seconds: How long that grows to.
            heard: Told where the node is, once it has answered all it was asked, before what
                happened is yielded.
            missed: Told what was not answered.
            check: Asks whether the node is the one we need, each time it was away, and before any
                block is undone: another one may have come to its address, silently or not, and
                nothing of another chain may undo a block of ours.

        Raises:
            ValueError: If `known` is empty or has a gap.
        """
        self._chain = chain
        self._known = _consecutive(known)
        self._poll_seconds = poll_seconds
        self._batch_events_max = batch_events_max
        self._backoff_first_seconds = backoff_first_seconds
        self._backoff_max_seconds = backoff_max_seconds
        self._heard = heard
        self._missed = missed
        self._check = check
        self._was_away = False

    @property
    def known(self) -> tuple[BlockRef, ...]:
        """The blocks of the batches that were taken, the newest last."""
        return self._known

    def start_after(self, known: Sequence[BlockRef]) -> None:
        """Go on after other blocks: what was found beyond the present ones is dropped.

        Raises:
            ValueError: If `known` is empty or has a gap.
        """
        self._known = _consecutive(known)

    async def batches(self) -> AsyncIterator[tuple[ChainEvent, ...]]:
        """Yield what happened, never empty, for ever.

        Asking for the next batch says that the last one was processed: one that was not is told
        again by the next iteration. While the node is unavailable it waits, longer each time.

        Raises:
            ChainMismatch: If the node's chain has another genesis block than the known ones, or the
                node that came back is not ours.
        """
        backoff_seconds = self._backoff_first_seconds
        while True:
            events: list[ChainEvent] = []
            known = self._known
            try:
                if self._was_away:
                    await self._check()
                    self._was_away = False
                status = await self._chain.status()
                walk = _Walk(self._chain, known, status, events, check=self._check)
                await walk.go(self._batch_events_max)
            except ChainUnavailable as unavailable:
                self._was_away = True
                if not events:
                    _log.warning("chain_unavailable reason=%s", unavailable)
                    self._missed(unavailable)
                    await asyncio.sleep(backoff_seconds)
                    backoff_seconds = min(2 * backoff_seconds, self._backoff_max_seconds)
                    continue
            self._heard(status)
            backoff_seconds = self._backoff_first_seconds
            if self._known is not known:
                continue
            if events:
                yield tuple(events)
                if self._known is known:
                    self._known = tuple(walk.known)
            else:
                await asyncio.sleep(self._poll_seconds)


def _consecutive(known: Sequence[BlockRef]) -> tuple[BlockRef, ...]:
    if not known:
        raise ValueError("a follower needs at least one known block to start from")
    heights = [block_ref.height for block_ref in known]
    if heights != list(range(heights[0], heights[0] + len(heights))):
        raise ValueError(f"known blocks: expected consecutive heights, received {heights}")
    return tuple(known[-KNOWN_BLOCKS_MAX:])


class _Walk:
    """The way from the known blocks towards the tip, one event after another."""

    def __init__(
        self,
        chain: Chain,
        known: Sequence[BlockRef],
        status: ChainStatus,
        events: list[ChainEvent],
        *,
        check: Callable[[], Awaitable[None]],
    ) -> None:
        self._chain = chain
        self._status = status
        self._check = check
        self._is_checked = False
        self.known = list(known)
        self.events = events

    async def go(self, steps_max: int) -> None:
        """Take up to `steps_max` steps. After an exception `events` and `known` still agree."""
        for _ in range(steps_max):
            newest = self.known[-1]
            if newest == self._status.tip:
                return
            found = await self._chain.block_hash(newest.height)
            if found is None and await self._is_behind():
                return
            if found != newest.block_hash:
                await self._disconnect(newest)
                continue
            next_height = newest.height + 1
            next_hash = await self._chain.block_hash(next_height)
            if next_hash is None:
                return
            if next_height < self._status.kept_height:
                raise BlocksPruned(
                    needed_height=next_height,
                    kept_height=self._status.kept_height,
                    header_height=self._status.header_height,
                )
            block = await self._chain.block(next_hash)
            if block.height != next_height:
                raise ChainUnavailable(
                    f"block {next_hash}: expected height {next_height}, received {block.height}"
                )
            # Otherwise the chain was reorganised between two questions: look again.
            if block.previous_hash == newest.block_hash:
                self._connect(block)

    async def _is_behind(self) -> bool:
        """Say whether nothing shows that the chain, shorter than ours, is another one.

        A tip below the blocks we remember shows nothing: what is undone has to be certain.
        """
        tip = (await self._chain.status()).tip
        known = {block_ref.height: block_ref.block_hash for block_ref in self.known}
        return known.get(tip.height, tip.block_hash) == tip.block_hash

    def _connect(self, block: Block) -> None:
        self.events.append(Connected(block))
        self.known.append(BlockRef(height=block.height, block_hash=block.block_hash))
        del self.known[:-KNOWN_BLOCKS_MAX]

    async def _disconnect(self, newest: BlockRef) -> None:
        if newest.height == 0:
            received = await self._chain.block_hash(0)
            raise ChainMismatch("genesis hash", expected=newest.block_hash, received=received)
        if not self._is_checked:
            await self._check()
            await self._check_is_fork()
            self._is_checked = True
        if len(self.known) == 1:
            previous_hash = await self._chain.previous_hash(newest.block_hash)
            if previous_hash is None:
                raise ChainUnavailable(f"block {newest.block_hash}: another node has answered")
            self.known.insert(0, BlockRef(height=newest.height - 1, block_hash=previous_hash))
        self.known.pop()
        self.events.append(Disconnected(newest))

    async def _check_is_fork(self) -> None:
        """Check that what the node has is a fork of our chain: all signets have one beginning.

        Where all that we know is gone, the way back goes below the oldest of it. A node that never
        heard of that one cannot say where, and so nothing is undone for it.

        Raises:
            ChainMismatch: If nothing of what we know is there; the block is named.
            ChainUnavailable: If the node does not answer.
        """
        oldest = self.known[0]
        found = await self._chain.block_hash(oldest.height)
        if found in {None, oldest.block_hash}:
            return
        if await self._chain.previous_hash(oldest.block_hash) is None:
            raise ChainMismatch(
                f"block {oldest.height}", expected=oldest.block_hash, received=found
            )
