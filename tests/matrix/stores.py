"""Copies of participants' stores that are put back, and marks in a third place."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cromford.adapters.memory import MemoryJournal
from cromford.daemon.backup.high_water import HighWater, HighWaterMark
from cromford.daemon.backup.mark_place import StoreIs, judge
from cromford.daemon.backup.restored import mark_as_restored
from cromford.protocol import events as ev
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m
from tests.matrix.histories import another
from tests.matrix.world import MatrixNode, MatrixWorld
from tests.protocol.paying_clients import lsp_link
from tests.protocol.pump import PumpNode, Tamper
from tests.simulation.copies import Copy

MARK_PLACE: Final = Path("/third/store")
BACKUP_PLACE: Final = "/second/backup"
LINE: Final = b"the line"
FIRST_MSAT: Final = 40_000_000
STEPS_MSAT: Final = (5_000_000, 7_000_000, 9_000_000, 11_000_000)
BACKUP_ID: Final = bytes(16)


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a channel's two stores were after each of its updates, the oldest first.

    Attributes:
        clients: The client's.
        lsps: The LSP's.
        dues_msat: What the client was owed then.
    """

    clients: list[Copy] = field(default_factory=list)
    lsps: list[Copy] = field(default_factory=list)
    dues_msat: list[int] = field(default_factory=list)


def live_through(world: MatrixWorld, client: MatrixNode) -> Past:
    """Let a client be paid, then pay and be paid by the dice; keep every position.

    Whom it pays is the outsider, if there is one: then no other channel of the factory changes.
    """
    past = Past()
    outsiders = world.clients[len(world.members) :]
    deltas_msat = [sat * world.dice.choice((1, -1)) for sat in STEPS_MSAT]
    world.dice.shuffle(deltas_msat)
    for delta_msat in (FIRST_MSAT, *deltas_msat):
        if delta_msat > 0:
            world.give(client, delta_msat)
        else:
            world.pay(client, outsiders[0] if outsiders else another(world, client), -delta_msat)
        past.clients.append(Copy.of(client))
        past.lsps.append(Copy.of(world.node("lsp")))
        past.dues_msat.append(world.link_of(client).state.accepter_msat)
    return past


class ThirdPlace:
    """Where the high-water marks of one store are: raised after each of its commits."""

    def __init__(self, node: MatrixNode) -> None:
        water = HighWater.of(node.store)
        water.change(line=LINE, known=(LINE,), is_kept=True)
        node.store.keep([], [water.written()])
        self.node = node
        self.marks: dict[bytes, HighWaterMark | None] = {}

    def note(self) -> None:
        """Raise the mark to the newest record."""
        self.marks[LINE] = HighWater.of(self.node.store).position

    def judge(self) -> StoreIs:
        """Look at the store before it is read, as a daemon does; mark it if records are lost."""
        judged = judge(HighWater.of(self.node.store), self.marks, MARK_PLACE)
        if judged.verdict is StoreIs.LOST:
            _mark(self.node.store, is_provable=False)
        return judged.verdict


def _mark(store: MemoryJournal, *, is_provable: bool = True) -> None:
    mark_as_restored(
        store, backup_id=BACKUP_ID, source=BACKUP_PLACE, known=(LINE,), is_provable=is_provable
    )


def restore(
    world: MatrixWorld,
    *copies: tuple[MatrixNode, Copy],
    copied: tuple[MatrixNode, Copy] | None = None,
    third: ThirdPlace | None = None,
    is_told: bool = True,
) -> None:
    """Put stores back, all before any of their daemons starts, and let them connect.

    Args:
        world: Where.
        copies: What is put back in the place of whose store.
        copied: Likewise, of somebody who copied files by hand.
        third: Where the marks of one of them are.
        is_told: Whether by `restore`; else somebody copied files.
    """
    for client in world.clients:
        world.disconnect(client)
    if third is not None:
        third.note()
    told = [node for node, _ in copies if is_told]
    everything = [*copies, *([] if copied is None else [copied])]
    for node, copy in everything:
        node.die()
        copy.put_into(node)
        if node in told:
            _mark(node.store)
    verdict = None if third is None else third.judge()
    for node, _ in everything:
        node.start()
    if third is not None and verdict is StoreIs.PROVEN:
        world.handle(third.node, ev.StoreProven())
    world.sync()
    for client in world.clients:
        world.connect(client)
    world.run()


def lying_to(world: MatrixWorld, client: MatrixNode, lower: int) -> Tamper:
    """Return how an LSP lies to a client: with the client's own numbers, or lower ones.

    It hears nothing of a restore.
    """
    lsps = lsp_link(world, world.link_of(client)).state

    def lie(by: PumpNode, to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if by is client and to is world.lsp and isinstance(message, m.StoreMarked):
            return ()
        if by is world.lsp and to is client and isinstance(message, m.ChannelReestablish):
            own: Link = world.link_of(client)
            n_revoked = own.state.own_revoked - lower
            lied = replace(
                message,
                next_commitment_number=own.state.peer_revoked + 1 - lower,
                next_revocation_number=n_revoked,
                your_last_per_commitment_secret=lsps.peer_secrets.secret_of(n_revoked - 1),
            )
            return (lied,)
        return (message,)

    return lie
