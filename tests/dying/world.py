"""Eight clients of a factory that dies: five are there, two come back later, one is gone for ever.

On the embedded node, with production code. Lives and delays are short; what is done about a factory
that dies is the default policy, and the dying period long enough for each of its steps.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from cromford.protocol import events as ev
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.exiting.rest import wakes_at
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.policy import LspPolicy, WhenDying
from tests.matrix.market import LOW
from tests.matrix.world import MatrixNode, MatrixWorld
from tests.protocol.moving_clients import told

DELAY_BLOCKS: Final = 6
POLICY: Final = LspPolicy(
    min_depth=1,
    step_blocks=4,
    states_per_layer=2,
    lstock_csv_blocks=DELAY_BLOCKS,
    to_self_delay_lsp=DELAY_BLOCKS,
    to_self_delay_client=DELAY_BLOCKS,
    ready_min_blocks=144,
    # The next factory outlives the one that dies.
    active_blocks=580,
    dying_blocks=360,
)
# 2 sat/vB for the tree, as by default; a child or a close for 36 blocks pays 3.
MARKET: Final = replace(LOW, tree_sat_per_kw=500, estimates_sat_per_kvb=((2, 3_000), (144, 1_000)))
# By seat, two to a leaf: who is there, F and G who are away, H who is gone.
SEATS: Final[Mapping[str, int]] = MappingProxyType(
    {"A": 1, "B": 2, "C": 3, "F": 4, "D": 5, "G": 6, "E": 7, "H": 8}
)
MOVERS: Final = ("A", "B", "C", "D", "E")
BACK_BLOCKS: Final = 20  # From one who comes back to the next.
NEVER_BLOCKS: Final = 10_000


def balance_msat(seat: int) -> int:
    """Return what a client has in the factory that dies, in msat."""
    return 10_000_123 + 1_000_000 * seat


class Townsman(MatrixNode):
    """A participant with the default policy of a client about factories that die."""

    client_policy = replace(MatrixNode.client_policy, when_dying=WhenDying.MOVE)


class DyingWorld(MatrixWorld):
    """A factory of eight with the default shape, in which everybody has a balance.

    Attributes:
        people: The clients, by letter.
        old: The factory that dies, before it does.
        life: When it dies.
        came_back: By letter, the block with which one was there again.
        woken_at: Until when it sleeps, once its last transaction is five and six blocks deep.
    """

    lsp_kind = Townsman
    client_kind = Townsman
    usual_policy = POLICY

    def __init__(self) -> None:
        super().__init__(n_clients=len(SEATS), market=MARKET, seed="dying")
        self.people = {name: self.client_named(seat) for name, seat in SEATS.items()}
        for name, seat in SEATS.items():
            self.give(self.people[name], balance_msat(seat))
        self.begin()
        self.old: Factory = self.factory
        self.life = self.old.lifetime
        self.came_back: dict[str, int] = {}
        self.woken_at: list[int | None] = []

    def client_named(self, seat: int) -> MatrixNode:
        """Return the client in a seat."""
        client = self.client_at(seat)
        assert isinstance(client, MatrixNode)
        return client

    @property
    def dying_factory(self) -> Factory:
        """The factory that dies, as its LSP has it now."""
        factory: Factory = self.lsp.state.factory(self.old.number)
        return factory

    def of_old(self, kind: type[AnyRecord]) -> list[Any]:
        """Return what the LSP remembered of one kind about the factory that dies, in order."""
        attempt_id = self.old.attempt.attempt_id
        return [one for one in told(self.lsp, kind) if one.attempt_id == attempt_id]

    def play(self) -> None:
        """Let the factory die: blocks alone, and F's operator, who leaves at once."""
        self.mine_to(self.life.dying_height - 1)
        for name in ("F", "G"):
            self.sleep(self.people[name], NEVER_BLOCKS)
        self.go_rogue(self.people["H"])
        self.mine_to(self.life.share_height(self.policy.dying_wait_percent))
        self._come_back("F")
        self.handle(self.people["F"], ev.ExitRequested(attempt_id=self.old.attempt.attempt_id))
        self.run()
        self.mine(BACK_BLOCKS)
        self._come_back("G")
        self.mine_to(self.life.expiry_height + RESOLVED_DEPTH - 1)
        for _ in range(2):
            self.woken_at.append(wakes_at(self.dying_factory))
            self.mine()

    def _come_back(self, name: str) -> None:
        self.asleep[self.people[name].name] = self.chain.height + 1
        self.mine()
        self.came_back[name] = self.chain.height
