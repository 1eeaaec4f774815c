"""A participant that lies, cheats and vanishes, beside the program that it runs.

Its own process is the production one; what it says is changed on its way, and what it once held is
published when it pays.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final

from cromford.bitcoin.tx import Tx
from cromford.codec.reader import MalformedBytes
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.watch.exit import Publish, next_exit_action
from cromford.wire.messages import decode_message, encode_message
from tests.simulation.fates import Hazard
from tests.simulation.life_node import LifeNode
from tests.simulation.sim_chain import SimRefused
from tests.simulation.world import World

KEPT_MAX: Final = 60  # Messages that a rogue can say again.
CHEAT_RATE: Final = 0.5  # Of rogues that publish what is revoked.
LIES: Final = ("corrupts", "flips", "repeats", "borrows", "omits")


@dataclass(frozen=True, kw_only=True)
class Held:
    """A commitment that a rogue once held, and what brings its channel on chain."""

    attempt: ClientAttempt
    tx: Tx


@dataclass
class Rogue:
    """The world's.

    Attributes:
        world: The world.
        node: Who it is; None where everybody is honest.
        victim: Whom it lies to; None for everybody it speaks with.
        said: What it can say again.
        held: What it held, oldest first.
        cheats: What it publishes.
    """

    world: World
    node: LifeNode | None = None
    victim: LifeNode | None = None
    said: list[bytes] = field(default_factory=list)
    held: dict[bytes, Held] = field(default_factory=dict)
    cheats: Held | None = None

    def __post_init__(self) -> None:
        mixture, dice = self.world.mixture, self.world.fates.dice("rogue")
        someone = dice.choice(self.world.clients)
        if mixture.has(Hazard.ROGUE_CLIENT):
            self.node = someone
            someone.is_honest = False
        elif mixture.has(Hazard.ROGUE_LSP):
            self.node, self.victim = self.world.lsp, someone
            self.world.lsp.is_honest = False
        if self.node is not None:
            self.world.lines.tamper = self.tamper

    @property
    def hazard(self) -> Hazard:
        """What it is called."""
        return Hazard.ROGUE_LSP if self.node is self.world.lsp else Hazard.ROGUE_CLIENT

    # What it says

    def tamper(self, sender: LifeNode, receiver: LifeNode, data: bytes) -> list[bytes]:
        """Return what arrives of a message, in what order."""
        if sender is not self.node:
            if len(self.said) < KEPT_MAX:
                self.said.append(data)
            return [data]
        if self.victim is not None and receiver is not self.victim:
            return [data]
        if not self.world.fates.strikes(self.hazard):
            return [data]
        dice = self.world.fates.dice("lies")
        lie = dice.choice(LIES)
        self.world.reached.note("lie", lie)
        match lie:
            case "corrupts":
                return [self._corrupted(data)]
            case "flips":
                place, bit = dice.randrange(len(data)), 1 << dice.randrange(8)
                return [data[:place] + bytes((data[place] ^ bit,)) + data[place + 1 :]]
            case "repeats":
                return [data, data]
            case "borrows":
                return [dice.choice(self.said)] if self.said else []
            case _:
                return []

    def _corrupted(self, data: bytes) -> bytes:
        message = decode_message(data)
        assert message is not None
        try:
            return encode_message(self._changed(message))
        except (MalformedBytes, OverflowError, ValueError):
            return data

    def _changed(self, value: Any) -> Any:
        """Return a value with one thing in it changed."""
        dice = self.world.fates.dice("lies")
        if is_dataclass(value) and not isinstance(value, type) and fields(value):
            name = dice.choice([one.name for one in fields(value)])
            return replace(value, **{name: self._changed(getattr(value, name))})
        match value:
            case bytes() if value:
                place = dice.randrange(len(value))
                return value[:place] + bytes((value[place] ^ 1,)) + value[place + 1 :]
            case bool():
                return not value
            case int():
                return max(0, value + dice.choice((-1, 1, 1000)))
            case tuple() if value:
                place = dice.randrange(len(value))
                if dice.random() < 0.3:
                    return value[:place] + value[place + 1 :]
                return (*value[:place], self._changed(value[place]), *value[place + 1 :])
            case str():
                return value + "!"
            case _:
                return value

    # What it publishes

    def look(self) -> None:
        """Keep the commitments that it holds now, and go on with what it publishes."""
        node = self.node
        if node is None:
            return
        if node.driver is not None:
            for link in node.state.book.links.values():
                client = self.world.by_id[node.node_id if node.lsp_node_id else link.node_id]
                if self.victim is not None and client is not self.victim:
                    continue
                attempt = client.durable_state().attempts.get(link.attempt_id)
                finished = link.finished
                if attempt is not None and attempt.ready_sent:
                    self.held.setdefault(finished.tx.txid, Held(attempt=attempt, tx=finished.tx))
        self._publish()

    def begin_to_cheat(self) -> None:
        """Let it publish an old commitment from now on, or not."""
        dice = self.world.fates.dice("cheating")
        if self.held and dice.random() < CHEAT_RATE:
            self.cheats = dice.choice(list(self.held.values()))

    def _publish(self) -> None:
        held, chain = self.cheats, self.world.chain
        if held is None:
            return
        step = next_exit_action(
            held.attempt.signed_branch, confirmed=chain.confirmed, tip_height=chain.height
        )
        try:
            if isinstance(step, Publish):
                chain.broadcast(step.step.tx)
            elif held.tx.txid not in chain.confirmed:
                chain.broadcast(held.tx)
                self.world.reached.note("lie", "publishes")
        except SimRefused:
            return

    def vanish(self) -> None:
        """End its process for ever."""
        if self.node is None:
            return
        self.world.stop(self.node)
        self.node.is_gone = True
