"""One participant of a world in which anything may go wrong."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from cromford.daemon.driver import Driver
from cromford.factory.terms import FeePolicy
from cromford.ports import StoreFailed
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal.snapshot import UnreadableSnapshot
from cromford.protocol.policy import ClientPolicy, LspPolicy, WhenDying
from tests.simulation.fates import Act, Fates, Hazard
from tests.simulation.mixture import Mixture
from tests.simulation.policies import changed_client_policy, changed_lsp_policy
from tests.simulation.sim_disk import SimDisk
from tests.simulation.sim_node import LENIENT, LSP_ROLE, POOL_SIZE, SimNode, watched
from tests.simulation.standstill import Holder, StoodStill

# In its decisions no mail is taken: each letter comes by itself, as from another machine.
LATE_ROLE: Final = replace(
    LSP_ROLE, decide=watched(partial(lsp_role.decide, delivers=False), lsp_role.apply)
)
STEP_BLOCKS: Final = 4
SHORT_LIFE_BLOCKS: Final = 144  # The shortest active, and the shortest dying period.
FAILED_CHANNEL_BLOCKS: Final = 12
LADDER_SAT_PER_KW: Final = (500, 1_500, 4_000)  # Of the candidates of a funding.


def lsp_policy(mixture: Mixture) -> LspPolicy:
    """Return what the LSP of a world offers: everything is quick there."""
    policy = LspPolicy(
        step_blocks=STEP_BLOCKS,
        states_per_layer=5 if mixture.has(Act.SALES) else 2,
        lstock_csv_blocks=STEP_BLOCKS,
        to_self_delay_lsp=STEP_BLOCKS,
        to_self_delay_client=STEP_BLOCKS + 1,
        failed_channel_blocks=FAILED_CHANNEL_BLOCKS,
        min_clients=1,
        pool_size=POOL_SIZE,
        inner_kind=mixture.inner_kind,
        fee_policy=mixture.fee_policy,
        tree_feerate_sat_per_kw=500 if mixture.fee_policy is FeePolicy.ENDOGENOUS else 0,
        funding_candidates=len(LADDER_SAT_PER_KW) if mixture.has(Act.LADDERS) else 1,
    )
    if not mixture.is_dying:
        return policy
    return replace(
        policy,
        active_blocks=SHORT_LIFE_BLOCKS,
        dying_blocks=SHORT_LIFE_BLOCKS,
        ready_min_blocks=1,
    )


def client_policy(mixture: Mixture) -> ClientPolicy:
    """Return what its clients take."""
    return replace(
        LENIENT,
        failed_channel_blocks=FAILED_CHANNEL_BLOCKS,
        dying_blocks=(1, 4320),
        when_dying=WhenDying.MOVE if mixture.is_dying else WhenDying.STAY,
    )


class LifeNode(SimNode):
    """A participant whose fates are the world's.

    Attributes:
        is_honest: Whether it does what the program does; a rogue does more.
        is_gone: Whether it never comes back.
        is_late: Whether what happens now is done by a process that stood still, and that a
            successor has taken the place of.
        disk: What its process has yet to write; None where it waits for its disk.
    """

    def __init__(
        self, name: str, *, fates: Fates, mixture: Mixture, lsp_node_id: bytes | None, **seen: Any
    ) -> None:
        self.fates = fates
        self.is_honest = True
        self.is_gone = False
        self.is_late = False
        self._holder: Holder | None = None
        self._standing: Holder | None = None
        self._is_made = False
        self._has_late_disk = mixture.has(Hazard.LATE_DISK)
        self.disk: SimDisk | None = None
        if lsp_node_id is None and mixture.has(Hazard.LATE_MAIL):
            self.lsp_role = LATE_ROLE
        self._mixture = mixture
        self.client_policy = client_policy(mixture)
        super().__init__(name, lsp_node_id=lsp_node_id, lsp_policy=lsp_policy(mixture), **seen)
        self.store.fence = self._check_holds_journal
        self._is_made = True

    def start(self) -> None:
        """Start the process: replay the journal, and tell the role; its operator may say more."""
        if self._is_made and self.fates.strikes(Hazard.POLICIES):
            dice = self.fates.dice(f"{Hazard.POLICIES} {self.name}")
            self.lsp_policy = changed_lsp_policy(lsp_policy(self._mixture), dice)
            self.client_policy = changed_client_policy(client_policy(self._mixture), dice)
            self._fold = None  # It has the configuration of before.
        super().start()

    def handle(self, event: ev.Event) -> None:
        """Handle one event; what the operator may not ask is ignored.

        Raises:
            Crash: If the process dies on the way, or stands still: `paused` tells how it goes on.
        """
        if not self.fates.has(Hazard.PAUSES):
            super().handle(event)
            return
        self._holder = holder = Holder(partial(super().handle, event))
        holder.begin()
        self._holder = None
        if not holder.is_over:
            raise StoodStill
        if holder.error is not None:
            raise holder.error

    def checkpoint(self) -> None:
        """Take a checkpoint of every stream, after all that it stands for.

        Raises:
            Crash: If the process dies on the way.
        """
        if self.disk is not None:
            self.disk.settle()
        super().checkpoint()

    def die(self) -> None:
        """Lose everything but the journal, and what was not written yet."""
        super().die()
        self.disk = None

    def _running(self, driver: Driver[Any]) -> Driver[Any]:
        if self._has_late_disk:
            self.disk = SimDisk(self.store, self._crashes)
            driver.commit = self.disk.commit
        return driver

    def paused(self) -> Callable[[], bool]:
        """Return what lets the process go on that stands still, whoever has its place by then.

        That returns whether it wanted to append something, and was refused.
        """
        assert self._standing is not None
        holder, its_own = self._standing, (self.driver, self.signer, self.disk)

        def go_on() -> bool:
            present = self.driver, self.signer, self.disk
            (self.driver, self.signer, self.disk), self.is_late = its_own, True
            holder.go_on()
            (self.driver, self.signer, self.disk), self.is_late = present, False
            # Or it found its successor's rows where its checkpoint was to lie beside its own.
            is_refused = isinstance(holder.error, StoreFailed | UnreadableSnapshot)
            if holder.error is not None and not is_refused:
                raise holder.error
            return is_refused

        return go_on

    def _crashes(self) -> bool:
        if not self._is_made or self.is_late:
            return False
        if self._holder is not None and self.fates.strikes(Hazard.PAUSES):
            self._standing = self._holder
            self._holder.stand_still()
            return False
        return self.fates.strikes(Hazard.CRASHES)

    def _check_holds_journal(self) -> None:
        """Refuse what a process appends that stood still: a successor holds the journal."""
        if self.is_late:
            raise StoreFailed("another process holds the journal")

    def _check_sums(self) -> None:
        """Check nothing late: what a process reads that stood still, its successor has changed."""
        if not self.is_late:
            super()._check_sums()
