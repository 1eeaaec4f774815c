"""The connections of a world: slow, broken, silent, or tampered with on their way."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from cromford.codec.reader import MalformedBytes
from cromford.protocol import events as ev
from cromford.wire.messages import Message, decode_message, encode_message
from tests.simulation.fates import Fates, Hazard
from tests.simulation.life_node import LifeNode
from tests.simulation.reached import Reached

DELAY_SECONDS: Final = 0.2
SLOW_SECONDS: Final = (5.0, 90.0)
GARBLINGS: Final = ("lost", "doubled", "overtaken")

Tamper = Callable[[LifeNode, LifeNode, bytes], list[bytes]]


class Around(Protocol):
    """What connections need of a world."""

    fates: Fates
    rng: random.Random
    now: float
    generations: Iterator[int]
    lsp: LifeNode
    clients: list[LifeNode]
    by_id: dict[bytes, LifeNode]
    reached: Reached

    def handle(self, node: LifeNode, event: ev.Event) -> None:
        """Let a node handle an event."""

    def at(self, at: float, act: Callable[[], None]) -> None:
        """Plan something for a moment."""

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Plan something."""


def untouched(_sender: LifeNode, _receiver: LifeNode, data: bytes) -> list[bytes]:
    """Deliver what was sent."""
    return [data]


class SimLines:
    """Everybody's connection with the LSP.

    Attributes:
        links: The generation of each client's live connection, by node id.
        muted: Clients whose connection stays and carries nothing.
        tamper: What a rogue does to its own messages.
    """

    def __init__(self, around: Around) -> None:
        self.around = around
        self.links: dict[bytes, int] = {}
        self.muted: set[str] = set()
        self.tamper: Tamper = untouched
        self._arrivals: dict[tuple[str, str], float] = {}
        self._let_go: set[tuple[str, int]] = set()

    def connect(self, client: LifeNode) -> None:
        """Let a client and the LSP have a connection, if both have a process and none yet."""
        lsp = self.around.lsp
        if client.node_id in self.links or client.driver is None or lsp.driver is None:
            return
        generation = self.links[client.node_id] = next(self.around.generations)
        self.around.handle(lsp, ev.ConnectionOpened(node_id=client.node_id))
        if self.links.get(client.node_id) == generation:
            self.around.handle(client, ev.ConnectionOpened(node_id=lsp.node_id))

    def disconnect(self, client: LifeNode, *, is_ours: bool = False) -> None:
        """Let a client's connection break, if it has one; it comes back by itself.

        Args:
            client: The client.
            is_ours: Whether the LSP hung up, for a reason of its own.
        """
        if self.links.pop(client.node_id, None) is None:
            return
        gone = ev.ConnectionClosed(node_id=client.node_id, is_ours=is_ours)
        self.around.handle(self.around.lsp, gone)
        self.around.handle(client, ev.ConnectionClosed(node_id=self.around.lsp.node_id))
        self.around.later(1 + self.around.rng.random(), partial(self.connect, client))

    def hang_up(self, node: LifeNode, client: LifeNode, *, is_ours: bool) -> None:
        """Let a node close a client's connection: it hears no more in it, as a daemon does not."""
        generation = self.links.get(client.node_id)
        if generation is not None:
            self._let_go.add((node.name, generation))
        self.around.later(0, partial(self.disconnect, client, is_ours=is_ours))

    def mute(self, client: LifeNode) -> None:
        """Let a client's connection carry nothing, or let it break if it does so already."""
        if client.name in self.muted:
            self.muted.discard(client.name)
            self.disconnect(client)
        else:
            self.muted.add(client.name)

    def heal(self) -> None:
        """Let everybody have a connection that carries everything."""
        self.muted.clear()
        for client in self.around.clients:
            self.disconnect(client)

    def send(self, sender: LifeNode, node_id: bytes, message: Message) -> None:
        """Let a message leave; it arrives later, if it does."""
        around = self.around
        client = around.by_id[node_id] if sender is around.lsp else sender
        receiver = client if sender is around.lsp else around.lsp
        generation = self.links.get(client.node_id)
        if generation is None:
            return
        if around.fates.strikes(Hazard.CUTS):
            around.later(0, partial(self.disconnect, client))
            return
        if client.name in self.muted:
            return
        for data in self.tamper(sender, receiver, encode_message(message)):
            for is_in_order in self._garbled():
                arrival = self._arrival(sender, receiver, is_in_order=is_in_order)
                deliver = partial(self._deliver, client, generation, sender, receiver, data)
                around.at(arrival, deliver)

    def _garbled(self) -> list[bool]:
        """Return how often a message arrives, each time whether in its order."""
        fates = self.around.fates
        if not fates.strikes(Hazard.GARBLES):
            return [True]
        match fates.dice("garbling").choice(GARBLINGS):
            case "lost":
                return []
            case "doubled":
                return [True, False]
            case _:
                return [False]

    def _arrival(self, sender: LifeNode, receiver: LifeNode, *, is_in_order: bool) -> float:
        around = self.around
        seconds = around.rng.random() * DELAY_SECONDS
        if around.fates.strikes(Hazard.SLOW):
            seconds += around.fates.dice("slowness").uniform(*SLOW_SECONDS)
        if not is_in_order:
            return around.now + seconds + around.fates.dice("garbling").random() * 3
        # Messages of one connection arrive in their order, as over TCP.
        route = (sender.name, receiver.name)
        arrival = max(around.now + seconds, self._arrivals.get(route, 0))
        self._arrivals[route] = arrival
        return arrival

    def _deliver(
        self, client: LifeNode, generation: int, sender: LifeNode, receiver: LifeNode, data: bytes
    ) -> None:
        if self.links.get(client.node_id) != generation or receiver.driver is None:
            return
        if (receiver.name, generation) in self._let_go:
            return
        try:
            message = decode_message(data)
        except MalformedBytes as error:
            malformed = ev.MessageMalformed(node_id=sender.node_id, reason=str(error))
            self.around.handle(receiver, malformed)
            return
        if message is not None:
            self.around.reached.note_message(message)
            self.around.handle(receiver, receiver.heard(sender.node_id, message))
