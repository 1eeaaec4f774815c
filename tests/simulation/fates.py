"""What goes wrong in a world, and when: dice of its own for each hazard, and a list of what struck.

Without one hazard the dice of all others fall as before, and so they do where single faults are
spared: a world that fails can be shrunk.
"""

import random
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Hazard(StrEnum):
    """One kind of fault."""

    CRASHES = "crashes"  # a process dies before or after an append, or before an effect
    PAUSES = "pauses"  # it stands still there, a successor starts, and it goes on later
    CUTS = "cuts"  # a connection breaks as a message is sent
    MUTES = "mutes"  # a connection stays, and carries nothing any more
    SLOW = "slow"  # a message takes longer than most deadlines
    GARBLES = "garbles"  # a message is lost, doubled or overtaken within a connection
    TROUBLES = "troubles"  # a node stalls, lags, goes back or refuses
    REORGS = "reorgs"  # blocks are replaced
    FEES = "fees"  # feerates, and the mempool's minimum, rise and fall
    LATE_MAIL = "late-mail"  # letters between an LSP's streams come late, and twice
    ROGUE_CLIENT = "rogue-client"  # one client lies, cheats and vanishes
    ROGUE_LSP = "rogue-lsp"  # the LSP does so, against one client
    LATE_DISK = "late-disk"  # records for which nothing waits are written late, or lost in a crash
    POLICIES = "policies"  # a process starts again with another configuration


class Act(StrEnum):
    """One kind of thing that an operator, or the world, does on purpose."""

    PAYMENTS = "payments"
    SALES = "sales"
    CLOSES = "closes"
    EXITS = "exits"
    RESTORES = "restores"
    BUILDS = "builds"  # another factory
    SPENDINGS = "spendings"  # a payment out of a wallet
    LADDERS = "ladders"  # fundings have several candidates; any that is known may be mined


class Fault(NamedTuple):
    """The nth time that a hazard struck, or that an operator acted."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}"


# How often each strikes, per chance that it has, in worlds that have it.
USUAL_RATES: Final[Mapping[Hazard, float]] = {
    Hazard.CRASHES: 0.008,
    Hazard.PAUSES: 0.01,
    Hazard.CUTS: 0.015,
    Hazard.MUTES: 0.25,
    Hazard.SLOW: 0.02,
    Hazard.GARBLES: 0.02,
    Hazard.TROUBLES: 0.3,
    Hazard.REORGS: 0.15,
    Hazard.FEES: 0.5,
    Hazard.LATE_MAIL: 1.0,
    Hazard.ROGUE_CLIENT: 0.1,
    Hazard.ROGUE_LSP: 0.1,
    Hazard.LATE_DISK: 1.0,
    Hazard.POLICIES: 0.8,
}


class Fates:
    """Decides what strikes.

    Args:
        seed: Decides.
        hazards: What may strike at all.
        spared: Faults that do not happen though the dice say so.

    Attributes:
        struck: What did, in order.
    """

    def __init__(
        self,
        seed: int,
        hazards: frozenset[Hazard] = frozenset(),
        *,
        spared: frozenset[Fault] = frozenset(),
        rates: Mapping[Hazard, float] = USUAL_RATES,
    ) -> None:
        self.seed = seed
        self.hazards = hazards
        self.rates = rates
        self.spared = spared
        self.struck: list[Fault] = []
        self.is_calm = False
        self._numbers: Counter[str] = Counter()
        self._dice: dict[str, random.Random] = {}

    def dice(self, name: str) -> random.Random:
        """Return the dice of a hazard, or of anything else with a name."""
        if name not in self._dice:
            self._dice[name] = random.Random(f"{name} {self.seed}")
        return self._dice[name]

    def has(self, hazard: Hazard) -> bool:
        """Say whether a hazard may strike now."""
        return hazard in self.hazards and not self.is_calm

    def strikes(self, hazard: Hazard) -> bool:
        """Say whether a hazard strikes here."""
        if not self.has(hazard) or self.dice(hazard).random() >= self.rates[hazard]:
            return False
        return self.happens(hazard)

    def happens(self, kind: str) -> bool:
        """Count something that is to happen; say whether it does."""
        fault = Fault(kind, self._numbers[kind])
        self._numbers[kind] += 1
        if fault in self.spared:
            return False
        self.struck.append(fault)
        return True
