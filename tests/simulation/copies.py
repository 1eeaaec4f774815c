"""Copies of participants' stores, and how one is put back."""

from dataclasses import dataclass
from typing import Final

from cromford.daemon.backup.restored import mark_as_restored
from cromford.ports import Entry
from cromford.protocol import events as ev
from tests.simulation.fates import Act
from tests.simulation.life_node import LifeNode
from tests.simulation.sim_node import Crash, SimNode
from tests.simulation.world import World

BACKUP_ID: Final = bytes(16)
BACKUP_PLACE: Final = "/second/backup"
COPIED_RATE: Final = 0.4  # Of rounds, for each store.
LOSSLESS_RATE: Final = 0.3  # Of restores that lose nothing, and can prove it.


@dataclass(frozen=True, kw_only=True)
class Copy:
    """All that a store had at some moment."""

    entries: list[Entry]
    archive: dict[tuple[str, bytes], bytes]

    @staticmethod
    def of(node: SimNode) -> "Copy":
        """Return a copy of a store as it is now."""
        return Copy(entries=[*node.store.entries], archive={**node.store.archive})

    def put_into(self, node: SimNode) -> None:
        """Put the copy in the place of a store whose process is down."""
        assert node.driver is None
        store = node.store
        store.entries[:] = self.entries
        store.archive = {**self.archive}
        for kept in (store.checkpoints, store.shelves, store._heads):
            kept.clear()
        store._n_counted = 0
        node._fold = None


class Backups:
    """The newest copy of each store of a world, and their way back.

    Args:
        world: The world.

    Attributes:
        restored: Whose store was put back, and is marked since, by name.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.fates.dice("backups")
        self.copies: dict[str, Copy] = {}
        self.restored: set[str] = set()

    def take(self) -> None:
        """Copy some stores."""
        if not self.world.mixture.has(Act.RESTORES):
            return
        for node in self.world.everybody:
            if self.dice.random() < COPIED_RATE:
                self.copies[node.name] = Copy.of(node)

    def restore(self) -> LifeNode | None:
        """Put a store back; return whose, if its journal is another then."""
        node = self.dice.choice(self.world.everybody)
        is_lossless = self.dice.random() < LOSSLESS_RATE
        if node.driver is None or not (is_lossless or node.name in self.copies):
            return None
        self.world.stop(node)
        copy = Copy.of(node) if is_lossless else self.copies[node.name]
        while not self._is_put_back(copy, node):
            pass
        self.world.reached.note_records(node.store.told_since(len(copy.entries)))
        self.world.restart(node)
        if is_lossless:
            self.world.handle(node, ev.StoreProven())
        else:
            self.restored.add(node.name)
        return node

    def _is_put_back(self, copy: Copy, node: LifeNode) -> bool:
        """Put a store back, and say whether it is: what is cut short is done again."""
        copy.put_into(node)
        try:
            mark_as_restored(node.store, backup_id=BACKUP_ID, source=BACKUP_PLACE)
        except Crash:
            return False
        return True
