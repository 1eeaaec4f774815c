"""A daemon's eyes: it waits for its node, follows it, and judges whether what it sees is fresh."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol

from cromford.adapters.follower import ChainFollower, Connected
from cromford.answers.chain import ChainStanding
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.tx import Tx
from cromford.daemon.freshness import Freshness, Stale
from cromford.daemon.metrics import Sample
from cromford.daemon.own_fees import asked_again
from cromford.ports import (
    BlockRef,
    BlocksPruned,
    Chain,
    ChainStatus,
    ChainUnavailable,
    CredentialsRefused,
)
from cromford.protocol import events as ev
from cromford.protocol.facts import Facts
from cromford.watch.feerates import FALLBACK_SAT_PER_KW, OwnFees

WAIT_FIRST_SECONDS: Final = 0.5
WAIT_MAX_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


class BlockReader(Protocol):
    """The role, as far as it reads blocks."""

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        """The newest blocks the role has seen, oldest first."""

    @property
    def recorded_height(self) -> int:
        """The height of the tip that was recorded, also where no block is remembered; or -1."""

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        """Return the transactions of a block that matter to the role."""

    def post(self, event: ev.Event) -> None:
        """Handle one event."""


class ChainFollowing:
    """One daemon's view of its chain, from the first block on.

    Args:
        chain: The node.
        reader: Who reads the blocks.
        check: Asks the node whether it is the one we need, at first and whenever it was away.
        has_real_time: Whether blocks are stamped when they are mined.
        poll_seconds: How often the node is asked for a new tip.
        fallback_sat_per_kw: What our own transactions pay where the node has no estimate.
        answered: Told each time that the node has answered all it was asked.
        clock: Returns the seconds since 1970, UTC.
    """

    def __init__(
        self,
        chain: Chain,
        reader: BlockReader,
        *,
        check: Callable[[], Awaitable[None]],
        has_real_time: bool,
        poll_seconds: float,
        fallback_sat_per_kw: int = FALLBACK_SAT_PER_KW,
        answered: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain = chain
        self._reader = reader
        self._check = check
        self._poll_seconds = poll_seconds
        self._answered = answered
        self._clock = clock
        self._fees = OwnFees(fallback_sat_per_kw=fallback_sat_per_kw)
        self._tells_estimates = has_real_time  # No regtest has any.
        self._had_estimates: bool | None = None  # None before the node was asked.
        self._freshness = Freshness(has_real_time=has_real_time, started_at=clock())
        self._told: Stale | None = None
        self._is_told_fresh = False  # The role knows.
        self._fresh_since: int | None = None  # At which height it was, from when on it stayed so.
        self._told_header_height = -1
        self._follower: ChainFollower | None = None
        self.has_block = asyncio.Event()  # the role has seen one
        self.has_looked = asyncio.Event()  # the node was asked once, answered or not

    # What it says

    def stale(self) -> Stale | None:
        """Return why the chain is stale at this moment, or None."""
        return self._freshness.stale(own_height=self._height, now=self._clock())

    def facts(self) -> Facts:
        """Return what a decision may read at this moment."""
        stale, since = self._judge(), self._fresh_since
        return Facts(
            stale=None if stale is None else str(stale),
            header_height=self._freshness.header_height,
            fresh_since=-1 if since is None else since,
            fees=self._fees,
        )

    def shown(self) -> ChainStanding:
        """Return it as plain data."""
        stale, status = self.stale(), self._freshness.status
        return {
            "fresh": stale is None,
            "stale_kind": None if stale is None else stale.kind,
            "stale_since": None if stale is None else int(stale.since),
            "stale_reason": None if stale is None else stale.reason,
            "node_height": None if status is None else status.tip.height,
            "header_height": None if status is None else status.header_height,
            "kept_height": None if status is None else status.kept_height,
            "needed_height": self._height + 1,
        }

    @property
    def header_height(self) -> int:
        """The highest header the node knows; -1 before it was heard."""
        return self._freshness.header_height

    def samples(self) -> Iterator[Sample]:
        """Yield for Prometheus how the node and its chain stand."""
        status = self._freshness.status
        yield "header_height", {}, self.header_height
        yield "chain_fresh", {}, self.stale() is None
        yield "chain_up", {}, self._freshness.is_answering(now=self._clock())
        if status is not None:
            yield "seconds_since_block", {}, max(0.0, self._clock() - status.tip_time)

    @property
    def _height(self) -> int:
        recent = self._reader.recent_blocks
        if recent:
            return recent[-1].height
        if self._reader.recorded_height >= 0 or self._freshness.status is None:
            return self._reader.recorded_height
        return self._freshness.status.tip.height  # where a new journal will begin

    # What it does

    async def run(self) -> None:
        """Wait for the node, then follow it for ever.

        Raises:
            ChainMismatch: If the node is of another network, or too old.
            CredentialsRefused: If it does not let us in.
        """
        if self._reader.recent_blocks:
            self.has_block.set()
        await self._patiently(self._check, "check")
        await self.ask_fees()  # The next block, with which they are asked again, may be far.
        await self._patiently(self._see_first_block, "first block")
        self.has_block.set()
        self._follower = ChainFollower(
            self._chain,
            self._reader.recent_blocks,
            poll_seconds=self._poll_seconds,
            heard=self._hear,
            missed=self._missed,
            check=self._check,
        )
        await self._follow(self._follower)

    async def ask_fees(self, *, seconds: float | None = None) -> None:
        """Ask the node what it says of feerates now; what it said before stays, if it does not.

        Args:
            seconds: How long an answer is waited for; None for as long as the node may take.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                fees = await asked_again(self._chain, self._fees)
                is_told = fees is not self._fees  # Else it did not answer.
                self._fees = fees
                if is_told:
                    self._tell_estimates()

    def _tell_estimates(self) -> None:
        """Log it once where what hurries begins at a guess, for our node has no estimate."""
        had, has = self._had_estimates, bool(self._fees.estimates)
        if not self._tells_estimates or has is had:
            return
        self._had_estimates = has
        if not has:
            guess = sat_per_vb(self._fees.fallback_sat_per_kw)
            _log.warning("estimates_missing fallback_sat_per_vb=%s", guess)
        elif had is False:
            _log.info("estimates_known")

    async def _follow(self, follower: ChainFollower) -> None:
        async for batch in follower.batches():
            await self.ask_fees()
            known = follower.known
            for happened in batch:
                if follower.known is not known:
                    break  # A rescan took the role elsewhere.
                if isinstance(happened, Connected):
                    block = happened.block
                    self._reader.post(
                        ev.BlockAdded(
                            height=block.height,
                            block_hash=block.block_hash,
                            txs=self._reader.relevant(block.txs),
                        )
                    )
                else:
                    self._reader.post(ev.BlockRemoved(height=happened.block_ref.height))
                await asyncio.sleep(0)
            self._freshness = self._freshness.after_block(own_height=self._height)
            self._tell_role()

    def go_on_from_the_recorded_blocks(self) -> None:
        """Follow on from where the role is now: it was taken back."""
        if self._follower is not None:
            self._follower.start_after(self._reader.recent_blocks)

    async def _patiently(self, ask: Callable[[], Awaitable[None]], what: str) -> None:
        """Ask until there is an answer, with a growing pause."""
        pause = WAIT_FIRST_SECONDS
        while True:
            try:
                await ask()
            except CredentialsRefused:
                raise
            except ChainUnavailable as unavailable:
                _log.warning("waiting_for_node for=%s reason=%s", what, unavailable)
                self._missed(unavailable)
                await asyncio.sleep(pause)
                pause = min(2 * pause, WAIT_MAX_SECONDS)
            else:
                return

    async def _see_first_block(self) -> None:
        """See to it that the role knows a block to go on from.

        A new journal begins at the tip of a node that is fresh: nothing of ours is older. One with
        a past never does: what came after its last block would be skipped.
        """
        while not self._reader.recent_blocks:
            status = await self._chain.status()
            tip = status.tip
            recorded = self._reader.recorded_height
            if recorded >= 0:
                block_hash = await self._chain.block_hash(recorded)
                base = block_hash and BlockRef(height=recorded, block_hash=block_hash)
                self._hear(status)
            else:
                self._hear(status)
                base = None if self.stale() else tip
            if base:
                self._reader.post(
                    ev.BlockAdded(height=base.height, block_hash=base.block_hash, txs=())
                )
            else:
                await asyncio.sleep(self._poll_seconds)
        status = await self._chain.status()
        self._hear(status)
        _log.info(
            "blocks_needed from=%s kept_from=%s tip=%s",
            self._height + 1,
            status.kept_height,
            status.tip.height,
        )

    def _hear(self, status: ChainStatus) -> None:
        is_new = not self._reader.recent_blocks and self._reader.recorded_height < 0
        own_height = status.tip.height if is_new else self._height
        self._freshness = self._freshness.after_answer(
            status, own_height=own_height, now=self._clock()
        )
        self._answered()
        self._tell_role()
        self.has_looked.set()

    def _missed(self, unavailable: ChainUnavailable) -> None:
        self._freshness = self._freshness.after_silence(unavailable, now=self._clock())
        if isinstance(unavailable, BlocksPruned):
            _log.error("blocks_pruned reason=%s", unavailable)
        self._tell_role()
        self.has_looked.set()

    def _tell_role(self) -> None:
        """Let the role go on when the chain is fresh again, and know of blocks that do not come."""
        is_fresh = self._judge() is None
        if is_fresh:
            is_news = not self._is_told_fresh
            self._is_told_fresh = True
        else:
            is_news = (
                self._freshness.hides_blocks(now=self._clock())
                and self.header_height > self._told_header_height
            )
        if is_news:
            self._told_header_height = self.header_height
            self._reader.post(ev.FactsChanged())

    def _judge(self) -> Stale | None:
        """Return why the chain is stale at this moment, and log when that changes."""
        stale = self.stale()
        if stale is not None:
            self._is_told_fresh, self._fresh_since = False, None
        elif self._fresh_since is None:
            self._fresh_since = self._height
        if not self._freshness.was_asked:
            return stale  # That nobody has asked the node yet is no news.
        told, self._told = self._told, stale
        if stale is not None and (told is None or told.kind != stale.kind):
            _log.warning("chain_stale kind=%s reason=%s", stale.kind, stale.reason)
        elif stale is None and told is not None:
            _log.warning("chain_fresh_again kind=%s since=%s", told.kind, int(told.since))
        return stale
