"""An agent's rounds: at each new block every package is looked at, and what is due is published.

What is published is handed to the node again at every block until it is in one: a mempool forgets.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cromford.agent.keeping import HeldPackage, Keeping
from cromford.agent.looking import Sight, look, publish, publish_poisons
from cromford.daemon.freshness import Freshness, Stale
from cromford.ports import (
    BlockRef,
    Chain,
    ChainStatus,
    ChainUnavailable,
    CredentialsRefused,
    RelayFeerates,
    StoreFailed,
)
from cromford.watch.package_progress import (
    NOTHING_FOUND,
    PackageAction,
    PublishNow,
    TakeApart,
    is_due,
    next_package_action,
)

WAIT_FIRST_SECONDS: Final = 0.5
WAIT_MAX_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attended:
    """What was found about a package at the last look, and done.

    Attributes:
        sight: Where its path was.
        action: What was to be done then.
        refused: The node's word, if it did not take what was published.
        is_failed: Whether a bug kept it from being looked at; the log says which.
    """

    sight: Sight
    action: PackageAction
    refused: str | None = None
    is_failed: bool = False


class Rounds:
    """Goes round the packages for ever.

    Args:
        chain: The node.
        keeping: The packages.
        check: Asks the node whether it is the one we need, at first and whenever it was away.
        has_real_time: Whether blocks are stamped when they are mined.
        poll_seconds: How often the node is asked for a new tip.
        clock: Returns the seconds since 1970, UTC.
    """

    def __init__(
        self,
        chain: Chain,
        keeping: Keeping,
        *,
        check: Callable[[], Awaitable[None]],
        has_real_time: bool,
        poll_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain = chain
        self._keeping = keeping
        self._check = check
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._freshness = Freshness(has_real_time=has_real_time, started_at=clock())
        self._seen: BlockRef | None = None  # The tip of the last whole round.
        self._is_round_owed = True
        self._is_checked = False
        self._unanswered: set[bytes] = set()
        # Whoever takes or gives back a package waits for what is being done with one: what was
        # given back is not published a moment later.
        self.lock = asyncio.Lock()
        self._attended: dict[bytes, Attended] = {}
        self.relay: RelayFeerates | None = None
        self.has_looked = asyncio.Event()  # the node was asked once, answered or not

    @property
    def height(self) -> int:
        """The height of the last whole round; -1 before the first."""
        return -1 if self._seen is None else self._seen.height

    @property
    def stale(self) -> Stale | None:
        """Why what is seen of the chain is not of this moment, or None."""
        status = self._freshness.status
        height = -1 if status is None else status.tip.height
        return self._freshness.stale(own_height=height, now=self._clock())

    @property
    def status(self) -> ChainStatus | None:
        """What the node said of itself last."""
        return self._freshness.status

    def forget(self, package_id: bytes) -> None:
        """Forget what was found about a package that is held no more, or anew."""
        self._attended.pop(package_id, None)

    @property
    def attended(self) -> Mapping[bytes, Attended]:
        """What was found about each package at the last look."""
        return self._attended

    async def run(self) -> None:
        """Go round for ever.

        Raises:
            ChainMismatch: If the node is of another network, or too old.
            CredentialsRefused: If it does not let us in. One that is not there is waited for.
            StoreFailed: If the disk refused.
        """
        pause = WAIT_FIRST_SECONDS
        while True:
            try:
                if not self._is_checked:
                    await self._check()
                    self._is_checked = True
                await self._round()
            except CredentialsRefused as refused:
                if self._freshness.status is None:
                    raise
                self._missed(refused)
            except ChainUnavailable as unavailable:
                self._missed(unavailable)
            else:
                pause = WAIT_FIRST_SECONDS
                self.has_looked.set()
                await asyncio.sleep(self._poll_seconds)
                continue
            self.has_looked.set()
            await asyncio.sleep(pause)
            pause = min(2 * pause, WAIT_MAX_SECONDS)

    def _missed(self, unavailable: ChainUnavailable) -> None:
        _log.warning("chain_unavailable reason=%s", unavailable)
        self._freshness = self._freshness.after_silence(unavailable, now=self._clock())
        self._is_checked = False  # Another node may have come to its address.
        self._is_round_owed = True

    async def _round(self) -> None:
        status = await self._chain.status()
        self._freshness = self._freshness.after_answer(
            status, own_height=status.tip.height, now=self._clock()
        )
        if status.tip == self._seen and not self._is_round_owed:
            return
        self._is_round_owed = True
        self.relay = await self._chain.relay_feerates()
        # What the node left unanswered may be the fault of one package: the others come first.
        for package_id in sorted(self._keeping.held, key=self._unanswered.__contains__):
            async with self.lock:
                self._unanswered.add(package_id)
                await self.attend(package_id)
                self._unanswered.remove(package_id)
        self._seen, self._is_round_owed = status.tip, False

    async def attend(self, package_id: bytes) -> None:
        """Look at one package, if it is held, and publish what is due; with `lock` held.

        Raises:
            ChainUnavailable: If the node does not answer.
            StoreFailed: If the disk refused: stop.
        """
        held = self._keeping.held.get(package_id)
        if held is None:
            return
        try:
            attended = await self._look_and_publish(package_id, held)
        except (ChainUnavailable, StoreFailed):
            raise
        except Exception:  # noqa: BLE001 - a bug in one package must not cost the others their exits
            _log.exception("package_failed id=%s", package_id.hex())
            nowhere = Sight(height=self.height, place=None)
            attended = Attended(sight=nowhere, action=NOTHING_FOUND, is_failed=True)
        self._attended[package_id] = attended

    async def _look_and_publish(self, package_id: bytes, held: HeldPackage) -> Attended:
        sight = await look(self._chain, held.package)
        if held.begun_height is None and is_due(
            held.package,
            sight.place,
            tip_height=sight.height,
            highest_height=self._highest_height(sight.height),
        ):
            _log.warning("exit_begun id=%s height=%d", package_id.hex(), sight.height)
            held = self._keeping.begin(package_id, sight.height)
        action = sight.poisoned or next_package_action(
            held.package,
            sight.place,
            tip_height=sight.height,
            is_begun=held.begun_height is not None,
        )
        refused = None
        if isinstance(action, PublishNow):
            refused = await publish(self._chain, held.package, action.step)
        if isinstance(action, TakeApart):
            refused = await publish_poisons(self._chain, action.due)
        return Attended(sight=sight, action=action, refused=refused)

    def _highest_height(self, tip_height: int) -> int:
        """Return the height that deadlines are told by: of blocks that we cannot see, too."""
        if self._freshness.hides_blocks(now=self._clock()):
            return max(tip_height, self._freshness.header_height)
        return tip_height
