"""What one seed mixes: how many clients, which kind of factory, which hazards and which acts.

A seed has a random subset of everything that can happen (swarm testing): what is rare beside all
the rest is common where half of the rest is missing.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FeePolicy
from tests.simulation.fates import Act, Fates, Fault, Hazard

N_CLIENTS_MAX: Final = 4
ROUNDS: Final = (3, 9)
HAZARD_RATE: Final = 0.3
ACT_RATES: Final = {
    Act.PAYMENTS: 0.95,
    Act.SALES: 0.4,
    Act.CLOSES: 0.3,
    Act.EXITS: 0.3,
    Act.RESTORES: 0.2,
    Act.BUILDS: 0.2,
    Act.SPENDINGS: 0.2,
}
# Each makes every world with it slow, or takes so much of what can be checked, that fewer have it.
RARE: Final = {
    Hazard.GARBLES: 0.1,
    Hazard.PAUSES: 0.2,
    Hazard.ROGUE_CLIENT: 0.12,
    Hazard.ROGUE_LSP: 0.12,
    Hazard.REORGS: 0.2,
    Hazard.FEES: 0.2,
}
# Drawn by dice of their own, so that a seed that was told of goes on to mix what it mixed then.
DRAWN_ALONE: Final[tuple[Hazard, ...]] = (Hazard.LATE_DISK, Hazard.POLICIES)
LADDER_RATE: Final = 0.25  # The same: dice of their own.
EARLY_RATE: Final = 0.4  # Of worlds whose hazards are there before their first factory.
DYING_RATE: Final = 0.1  # Of worlds whose factories do not live long.


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """One world, before it is played.

    Attributes:
        seed: Decides everything else.
        n_clients: How many there are.
        n_rounds: How often operators act.
        hazards: What may strike.
        acts: What operators do.
        fee_policy: Of the tree.
        inner_kind: Likewise; None for what follows from the number of clients.
        is_early: Whether hazards are there before the first factory.
        is_dying: Whether its factories do not live long.
        without: What of it was taken away again.
        until: After how many rounds it ends; None for all.
        spared: Single faults and acts that do not happen.
    """

    seed: int
    n_clients: int
    n_rounds: int
    hazards: frozenset[Hazard]
    acts: frozenset[Act]
    fee_policy: FeePolicy
    inner_kind: VertexKind | None
    is_early: bool
    is_dying: bool
    without: frozenset[str] = frozenset()
    until: int | None = None
    spared: frozenset[Fault] = field(default=frozenset())

    @property
    def rounds(self) -> int:
        """How often operators act."""
        return self.n_rounds if self.until is None else min(self.until, self.n_rounds)

    @property
    def features(self) -> list[str]:
        """What is mixed, by name."""
        return sorted(str(one) for one in {*self.hazards, *self.acts} - self.without)

    def has(self, feature: Hazard | Act) -> bool:
        """Say whether something is in it."""
        return str(feature) in self.features

    def fates(self) -> Fates:
        """Return the dice of this world."""
        hazards = frozenset(one for one in self.hazards if one not in self.without)
        return Fates(self.seed, hazards, spared=self.spared)

    @property
    def replay(self) -> str:
        """The line that plays exactly this again."""
        line = f"python -m tests.simulation --seed {self.seed}"
        if self.without:
            line += f" --without {','.join(sorted(self.without))}"
        if self.until is not None:
            line += f" --until {self.until}"
        if self.n_clients != drawn(self.seed).n_clients:
            line += f" --clients {self.n_clients}"
        if self.spared:
            line += f" --spare {','.join(str(fault) for fault in sorted(self.spared))}"
        return line

    def __str__(self) -> str:
        return (
            f"{self.n_clients} clients, {self.rounds} rounds, {self.fee_policy.label}"
            f"{', early' if self.is_early else ''}{', dying' if self.is_dying else ''}: "
            f"{' '.join(self.features)}"
        )


def drawn(seed: int) -> Mixture:
    """Return what a seed mixes."""
    dice = random.Random(f"mixture {seed}")
    drawn_here = (one for one in Hazard if one not in DRAWN_ALONE)
    hazards: set[Hazard] = {one for one in drawn_here if dice.random() < RARE.get(one, HAZARD_RATE)}
    for alone in DRAWN_ALONE:
        if random.Random(f"{alone} {seed}").random() < HAZARD_RATE:
            hazards.add(alone)
    has_ladders = random.Random(f"{Act.LADDERS} {seed}").random() < LADDER_RATE
    if hazards >= {Hazard.ROGUE_CLIENT, Hazard.ROGUE_LSP}:
        hazards.discard(dice.choice((Hazard.ROGUE_CLIENT, Hazard.ROGUE_LSP)))
    return Mixture(
        seed=seed,
        n_clients=dice.randint(1, N_CLIENTS_MAX),
        n_rounds=dice.randint(*ROUNDS),
        hazards=frozenset(hazards),
        acts=frozenset(act for act, rate in ACT_RATES.items() if dice.random() < rate)
        | ({Act.LADDERS} if has_ladders else set()),
        fee_policy=dice.choice((FeePolicy.ENDOGENOUS, FeePolicy.EPHEMERAL)),
        inner_kind=dice.choice((None, *VertexKind)),
        is_early=dice.random() < EARLY_RATE,
        is_dying=dice.random() < DYING_RATE,
    )


def faults_of(text: str) -> Iterable[Fault]:
    """Yield the faults in a text like `crashes:3,payments:7`."""
    for part in filter(None, text.split(",")):
        kind, _, number = part.partition(":")
        yield Fault(kind, int(number))
