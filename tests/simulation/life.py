"""The one world, from its first factory until nothing is under way any more."""

import random
from collections.abc import Callable
from typing import Final

from cromford.factory.lifetime import Lifetime
from tests.simulation.copies import Backups
from tests.simulation.fates import Hazard
from tests.simulation.laws import Laws
from tests.simulation.mixture import Mixture, drawn
from tests.simulation.operators import Operators
from tests.simulation.rogues import Rogue
from tests.simulation.world import World

PAUSE_SECONDS_MAX: Final = 4.0
BLOCK_RATE: Final = 0.4  # Of rounds in which a block is found.
BURIED_BLOCKS: Final = 4
REST_BLOCKS: Final = 6
# Of the storm in which all leave, or close. A process that dies there misses one block at the most.
STORM_BLOCKS: Final = (0, 20)
STORM_SECONDS: Final = 6.5
BEYOND_BLOCKS: Final = 12  # After an expiry: what nobody claimed is swept by then.
# How it ends: nobody does anything, all leave, or all close together. How often each.
ENDINGS: Final = {"stay": 2, "leave": 1, "close": 1}


class Life:
    """One world that is played.

    Args:
        mixture: What is in it.
    """

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self.world = World(mixture)
        self.operators = Operators(self.world, self._restore)
        self.backups = Backups(self.world)
        self.rogue = Rogue(self.world)

    def play(self) -> str:
        """Play it to its end, and check everything; return a line that describes it."""
        world = self.world
        world.build()
        self.operators.pay_more()
        world.bury(BURIED_BLOCKS)
        self.laws = Laws(world, self.backups.restored)
        self.operators.be_paid_first()
        world.fates.is_calm = False
        for n_round in range(self.mixture.rounds):
            self._round(n_round)
        told = self._end()
        self.laws.check_rest()
        return f"{self.mixture}: {told}, {self.laws.told}"

    def _round(self, n_round: int) -> None:
        world, dice = self.world, random.Random(f"moment {n_round} {self.mixture.seed}")
        self.backups.take()
        self.operators.act(n_round)
        client = dice.choice(world.clients)
        if client.name in world.lines.muted or world.fates.strikes(Hazard.MUTES):
            world.lines.mute(client)
        if dice.random() < BLOCK_RATE:
            self.operators.pay_more()
            world.find_block()
        world.pass_time(dice.uniform(0, PAUSE_SECONDS_MAX))
        self.rogue.look()
        self.laws.read()

    def _restore(self) -> None:
        self.laws.read()
        node = self.backups.restore()
        if node is not None:
            self.laws.forget(node)

    def _end(self) -> str:
        """Let the last things begin while all is still bad; then everybody is there."""
        world, dice = self.world, self.world.fates.dice("ending")
        (ending,) = dice.choices(tuple(ENDINGS), tuple(ENDINGS.values()))
        if self.mixture.is_dying:
            ending = "die"
            self._mine_to_dying()
        self.rogue.begin_to_cheat()
        if ending != "stay":
            self.laws.let_channels_end()
        self._ask_for(ending)
        for _ in range(dice.randint(*STORM_BLOCKS) if ending != "stay" else 0):
            world.find_block()
            self.rogue.look()
            world.pass_time(STORM_SECONDS)
            self.laws.read()
        if self.rogue.node is not None:
            self.rogue.vanish()
            ending = "leave" if self.rogue.node is world.lsp else ending
        world.calm()
        if world.lsp.is_gone:
            self.laws.let_channels_end()
            self._ask_for(ending)
        world.run()
        for _ in range(REST_BLOCKS):
            self._mine()
        self.laws.wait_for_rest(self._mine)
        self.laws.let_channels_end()
        self._ask_for(ending)  # Again: who was down has not heard it.
        world.run()
        self._mine()
        self.laws.wait_for_rest(self._mine)
        if ending == "die":
            self._mine_to(max(self._lifetimes(lambda one: one.expiry_height)) + BEYOND_BLOCKS)
            self.laws.wait_for_rest(self._mine)
        return ending

    def _mine_to_dying(self) -> None:
        """Let time pass without trouble until the newest factory begins to die."""
        fates = self.world.fates
        fates.is_calm = True
        self.world.blocks.calm()
        self._mine_to(max(self._lifetimes(lambda one: one.dying_height)))
        fates.is_calm = False

    def _mine_to(self, height: int) -> None:
        while self.world.chain.height < height:
            self._mine()

    def _lifetimes(self, at: Callable[[Lifetime], int]) -> list[int]:
        """Return a height of the life of each factory that a client is in, and the present one."""
        found = [self.world.chain.height]
        for client in self.world.clients:
            attempts = client.durable_state().attempts.values()
            found += [at(attempt.lifetime) for attempt in attempts if attempt.ready_sent]
        return found

    def _ask_for(self, ending: str) -> None:
        if ending == "leave":
            self.operators.leave_all()
        if ending == "close":
            self.operators.close_all()

    def _mine(self) -> None:
        self.rogue.look()
        self.world.mine()


def run_life(seed: int) -> str:
    """Play what a seed mixes, and return a line that describes it."""
    return Life(drawn(seed)).play()
