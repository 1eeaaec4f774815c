"""A pump whose LSP's streams hear of one another late, in any order, and often twice.

Each letter is an append of its own, as if every stream were another machine's.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tests.protocol.pump import STEPS_MAX, Pump, PumpNode
from tests.simulation.sim_node import LSP_ROLE, watched

from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal.lsp_state import LspState, pending
from cromford.protocol.journal.mail import Posted
from cromford.protocol.policy import LspPolicy

LATE_ROLE: Final = replace(
    LSP_ROLE, decide=watched(partial(lsp_role.decide, delivers=False), lsp_role.apply)
)
AGAIN: Final = 0.3  # How often a letter that was taken is delivered once more.


class LateNode(PumpNode):
    """An LSP in whose decisions no mail is taken."""

    lsp_role = LATE_ROLE


class LatePump(Pump):
    """One run; `n_letters` were delivered, `n_again` of them not for the first time."""

    lsp_kind = LateNode

    def __init__(self, n_clients: int, *, policy: LspPolicy, seed: int) -> None:
        self.dice = random.Random(f"late mail {seed}")
        self.n_letters = self.n_again = 0
        self.taken: list[Posted] = []
        super().__init__(n_clients, policy=policy)

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Deliver messages and mail, whichever comes first, until there is none of either."""
        for _ in range(STEPS_MAX):
            self._close_connections()
            letters = self.letters()
            if not letters and not self.wire:
                return
            if self.wire and until():
                return
            if letters and (not self.wire or self.dice.random() < 0.5):
                self.deliver(self.dice.choice(letters))
            else:
                self._deliver(self._next_letter())
        raise AssertionError("the mail never ends")

    def letters(self) -> list[Posted]:
        """Return the mail that is on its way."""
        state: Any = self.lsp.state
        assert isinstance(state, LspState)
        return list(pending(state))

    def deliver(self, delivery: Posted) -> None:
        """Let a letter arrive; sometimes one that was taken before arrives again after it."""
        self.n_letters += 1
        self.handle(self.lsp, ev.MailArrived(delivery=delivery))
        self.taken.append(delivery)
        if self.dice.random() < AGAIN:
            self.n_again += 1
            again = ev.MailArrived(delivery=self.dice.choice(self.taken))
            n_before = len(self.lsp.store.entries)
            is_taken = again.delivery not in self.letters()
            self.handle(self.lsp, again)
            if is_taken and self.lsp.n_deaths == 0:
                assert len(self.lsp.store.entries) == n_before, "it was taken twice"
