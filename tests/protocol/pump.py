"""An LSP, some clients, and a queue of messages between them that a test may read and change.

Both roles run in the production driver with the production signer. Nothing fails by itself: a
test tampers with messages, fires deadlines, cuts connections and kills processes where it likes.
What must always hold is asserted at every message sent and every transaction published.
"""

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from tests.protocol.leaf_audit import check_own_claims
from tests.simulation.commitments import (
    acknowledged,
    check_first_commitments,
    client_first_commitment,
    lsp_first_commitment,
)
from tests.simulation.sim_chain import SimChain, SimRefused
from tests.simulation.sim_disk import SimDisk
from tests.simulation.sim_node import LENIENT, POOL_SIZE, Crash, SimNode, durable

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.daemon.driver import Driver
from cromford.daemon.handover import key_message
from cromford.factory.terms import FeePolicy
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import BelowSent, ClientAttempt, Complete, RootSent
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.wallet.account import RECEIVE
from cromford.wire import messages as m

COIN_SAT: Final = 10_000_000
N_CHILDREN, CHILD_SAT = 12, 60_000  # Where nothing pays for itself, each client has such coins.
STEPS_MAX: Final = 5_000
WANTED_SAT: Final = 100_000
LEAST_SAT: Final = 50_000
REJOIN: Final = b"rejoin"

M = TypeVar("M", bound=m.Message)
E = TypeVar("E", bound=fx.Effect)


class PumpNode(SimNode):
    """A participant that dies when its fuse has burnt down; by default it has none."""

    checkpoint_rate = 0.0
    fuse: int | None = None
    n_deaths = 0
    disk: SimDisk | None = None  # What a process has yet to write; None where it waits for it.
    _n_durable = 0

    def _crashes(self) -> bool:
        if self.fuse is None:
            return False
        self.fuse -= 1
        return self.fuse == 0

    def _effect(self, effect: fx.Performed) -> Iterable[ev.Event]:
        # To die after an append and to die before the effect that follows it are one death.
        is_after_append = len(self.store.entries) != self._n_durable
        self._n_durable = len(self.store.entries)
        if not is_after_append and self._crashes():
            raise Crash
        return self.perform(effect)

    def settle(self) -> None:
        """Write what nothing waits for, as a daemon does a moment later."""
        if self.driver is not None and self.disk is not None:
            self.disk.settle()


class LingeringNode(PumpNode):
    """One whose records wait for others while nothing waits for them, as a daemon's do."""

    def _running(self, driver: Driver[Any]) -> Driver[Any]:
        self.disk = SimDisk(self.store, self._crashes)
        driver.commit = self.disk.commit
        return driver


class UsualNode(PumpNode):
    """One that makes as many nonces as a client does, and takes no LSP that wants fewer."""

    client_policy = replace(LENIENT, pool_size=ClientPolicy().pool_size)


Tamper = Callable[[PumpNode, PumpNode, m.Message], Sequence[m.Message]]


def honest(_sender: PumpNode, _receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
    """Deliver what was sent."""
    return (message,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message on its way."""

    sender: PumpNode
    receiver: PumpNode
    link: int
    message: m.Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Wished:
    """An effect that somebody asked for."""

    node: str
    effect: fx.Effect


class Pump:
    """One run.

    Args:
        n_clients: How many clients there are; they connect and join at once.
        policy: The LSP's.
        order: With a number, messages of different connections overtake each other by it.
        watches_folds: Compare, after every event, the live state with the fold of the journal,
            and judge every message by what is durable. Check then, too, that a side has a claim on
            each funding that it must have one on, and on no other.

    Attributes:
        lsp_kind: What its LSP is like.
        client_kind: What its clients are like.
        pool_size: How many nonces they make where the policy has the usual number.
    """

    lsp_kind: type[PumpNode] = PumpNode
    client_kind: type[PumpNode] = PumpNode
    pool_size = POOL_SIZE

    def __init__(
        self,
        n_clients: int = 3,
        *,
        policy: LspPolicy | None = None,
        order: int | None = None,
        watches_folds: bool = False,
    ) -> None:
        self.rng = random.Random(f"pump {order}")
        self.shuffles = order is not None
        self.watches_folds = watches_folds
        self.may_stop = False  # Whether a bug may stop a factory of the LSP.
        self.chain = self.new_chain()
        self.wire: deque[Letter] = deque()
        self.links: dict[str, int] = {}
        self.parting: set[str] = set()
        self.generations = itertools.count(1)
        self.tamper: Tamper = honest
        self.wished: list[Wished] = []
        self.deadlines: dict[tuple[str, fx.Deadline], int] = {}
        self.deadline_streams: dict[tuple[str, fx.Deadline], str] = {}  # of all that ever were
        self.closing: list[PumpNode] = []
        self.let_go: set[str] = set()  # Whom the LSP hung up on, for a reason of its own.
        self.notebook: dict[tuple[bytes, int], bytes] = {}
        self.published: list[Tx] = []
        self.told_ready: set[tuple[str, bytes]] = set()  # Which client said so of which factory.
        self.answers_coins = True
        self.blind: set[str] = set()  # Whose nodes show no block.
        self.policy = policy or LspPolicy(min_clients=1)
        if self.policy.pool_size == LspPolicy().pool_size:
            self.policy = replace(self.policy, pool_size=self.pool_size)
        self.lsp = self._node("lsp", None)
        self.clients = [self._node(f"client {i}", self.lsp.node_id) for i in range(n_clients)]
        self.by_id = {node.node_id: node for node in (self.lsp, *self.clients)}
        for _ in range(3):
            self.chain.fund(self.lsp.state.wallet.next_script(RECEIVE), COIN_SAT)
        if self.policy.fee_policy is FeePolicy.EPHEMERAL:
            for client in self.clients:
                for _ in range(N_CHILDREN):
                    self.chain.fund(client.state.wallet.next_script(RECEIVE), CHILD_SAT)
        self.sync()
        for client in self.clients:
            self.connect(client)
        self.run()

    def new_chain(self) -> SimChain:
        """Return the chain of this world."""
        return SimChain()

    def _node(self, name: str, lsp_node_id: bytes | None) -> PumpNode:
        kind = self.lsp_kind if lsp_node_id is None else self.client_kind
        return kind(
            name,
            rng=random.Random(name),
            lsp_node_id=lsp_node_id,
            perform=self._perform,
            notebook=self.notebook,
            lsp_policy=self.policy,
        )

    # What a test does

    def join(self, *clients: PumpNode) -> None:
        """Let clients wish to be in the next factory, and wait until the LSP knows."""
        for client in clients or self.clients:
            wish = ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT)
            self.handle(client, wish)
        self.run()

    def join_again(self) -> None:
        """Let those join who wish nothing: a wish may have been met, or lost in a crash."""
        idle = [client for client in self.clients if client.state.wish is None]
        if idle:
            self.join(*idle)

    def build(self, *, min_clients: int = 1) -> None:
        """Let the LSP's operator ask for a factory; nothing is delivered yet."""
        self.handle(self.lsp, ev.BuildRequested(min_clients=min_clients, max_clients=100))

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Deliver messages until there are none, or `until` says so."""
        for _ in range(STEPS_MAX):
            self._close_connections()
            if not self.wire:
                self._settle_disks()
            if not self.wire or until():
                return
            self._deliver(self._next_letter())
        raise AssertionError("the messages never end")

    def _settle_disks(self) -> None:
        """Let everything become durable, now that nobody has anything to say."""
        for node in (self.lsp, *self.clients):
            try:
                node.settle()
            except Crash:
                self.restart(node)

    def run_to(self, message_type: type[m.Message]) -> None:
        """Deliver until such a message is next, or nothing is left."""
        self.run(until=lambda: isinstance(self.wire[0].message, message_type))

    def handle(self, node: PumpNode, event: ev.Event) -> None:
        """Let a node handle an event; a crash is followed by a restart and new connections."""
        if node.driver is None:
            return
        try:
            node.handle(event)
        except Crash:
            self.restart(node)
        if isinstance(node.state, LspState):
            assert self.may_stop or not node.state.stopped, "a bug was met while mail was taken"
        if self.watches_folds:
            same = durable(node.durable_state()) == durable(node.state)
            assert same, "the journal folds to another state"
            for link in node.state.book.links.values():
                check_own_claims(link)

    def tell(self, receiver: PumpNode, sender: PumpNode, message: m.Message) -> None:
        """Hand over one message at once, as if `sender` had sent it."""
        decoded = m.decode_message(m.encode_message(message))
        assert decoded is not None
        if receiver.driver is not None:
            self.handle(receiver, receiver.heard(sender.node_id, decoded))

    def lsp_says(self, client: PumpNode, message: m.Message, *, answers_coins: bool = True) -> None:
        """Let a client hear the LSP; without `answers_coins`, its chain does not answer."""
        self.answers_coins, kept = answers_coins, self.answers_coins
        self.tell(client, self.lsp, message)
        self.answers_coins = kept

    def restart(self, node: PumpNode) -> None:
        """Kill a process, start it again on its journal, and connect again."""
        node.n_deaths += 1
        node.fuse = None
        node.die()
        for key in [key for key in self.deadlines if key[0] == node.name]:
            del self.deadlines[key]
        touched = self.clients if node is self.lsp else [node]
        for client in touched:
            self.disconnect(client)
        node.start()
        for client in touched:
            if client.name not in self.parting:
                self.connect(client)

    def connect(self, client: PumpNode) -> None:
        link = self.links[client.name] = next(self.generations)
        self.handle(self.lsp, ev.ConnectionOpened(node_id=client.node_id))
        # An LSP that died of it came back, and opened another connection.
        if self.links.get(client.name) == link:
            self.handle(client, ev.ConnectionOpened(node_id=self.lsp.node_id))

    def disconnect(self, client: PumpNode) -> None:
        if self.links.pop(client.name, None) is None:
            return
        # Whoever dies of it does not connect again before both know that it is over.
        self.parting.add(client.name)
        is_ours = client.name in self.let_go
        self.let_go.discard(client.name)
        self.handle(self.lsp, ev.ConnectionClosed(node_id=client.node_id, is_ours=is_ours))
        self.handle(client, ev.ConnectionClosed(node_id=self.lsp.node_id))
        self.parting.discard(client.name)

    def pass_deadline(self, node: PumpNode, deadline: fx.Deadline) -> None:
        """Let a deadline that is set pass; forget it if none is."""
        if self.deadlines.pop((node.name, deadline), None) is not None:
            self.reach_deadline(node, deadline)

    def reach_deadline(self, node: PumpNode, deadline: fx.Deadline) -> None:
        """Tell of a deadline, though it may have been cleared meanwhile."""
        stream = self.deadline_streams[node.name, deadline]
        self.handle(node, ev.DeadlineReached(stream=stream, deadline=deadline))

    def deadlines_of(self, kind: type[fx.Deadline]) -> list[tuple[PumpNode, fx.Deadline]]:
        """Return the deadlines of one kind that are set, and whose they are, in a fixed order."""
        nodes = {node.name: node for node in (self.lsp, *self.clients)}
        due = [key for key in self.deadlines if isinstance(key[1], kind)]
        return [(nodes[name], deadline) for name, deadline in sorted(due, key=repr)]

    def pass_holds(self) -> None:
        """Let so much time pass that payers hear of every failure, and deliver every message."""
        for node, deadline in self.deadlines_of(fx.HoldDeadline):
            self.pass_deadline(node, deadline)
        self.run()

    def mine(self, n_blocks: int = 1) -> None:
        """Find blocks, each of which everybody sees; one takes longer than any usual hold."""
        for _ in range(n_blocks):
            self.pass_holds()
            self.chain.mine()
            self.sync()
            self.run()

    def sync(self) -> None:
        """Let everybody see the blocks they have not seen."""
        for node in (self.lsp, *self.clients):
            if node.name in self.blind:
                continue
            while node.driver is not None and node.state.chain.height < self.chain.height:
                height = node.state.chain.height + 1
                block_hash, txs = self.chain.blocks[height]
                event = ev.BlockAdded(height=height, block_hash=block_hash, txs=node.relevant(txs))
                self.handle(node, event)

    @contextmanager
    def tampering(self, tamper: Tamper) -> Iterator[None]:
        """Change messages on their way."""
        self.tamper, kept = tamper, self.tamper
        try:
            yield
        finally:
            self.tamper = kept

    # What a test reads

    def wishes(self, node: PumpNode, effect_type: type[E]) -> list[E]:
        """Return the effects of a type that a node asked for, in order."""
        return [
            wished.effect
            for wished in self.wished
            if wished.node == node.name and isinstance(wished.effect, effect_type)
        ]

    def sent(self, node: PumpNode, message_type: type[M]) -> list[M]:
        """Return the messages of a type that a node sent, in order."""
        return [
            effect.message
            for effect in self.wishes(node, fx.Send)
            if isinstance(effect.message, message_type)
        ]

    @property
    def attempt(self) -> LspAttempt:
        """The LSP's newest attempt."""
        attempts: list[LspAttempt] = list(self.lsp.state.attempts.values())
        return attempts[-1]

    @property
    def factory(self) -> Factory:
        """The LSP's newest factory."""
        state: LspState = self.lsp.state
        return list(state.all_factories())[-1]

    def held(self, client: PumpNode) -> ClientAttempt:
        """Return a client's newest attempt."""
        attempts: list[ClientAttempt] = list(client.state.attempts.values())
        return attempts[-1]

    def client_at(self, seat: int) -> PumpNode:
        """Return the client in a seat of the newest attempt, counted from 1."""
        return self.by_id[self.attempt.seats[seat - 1].node_id]

    def is_funded(self) -> bool:
        """Say whether a funding transaction was published."""
        return bool(self.published)

    # How it works

    def _next_letter(self) -> Letter:
        if self.shuffles:
            # Within one connection and direction the order stays, as over TCP.
            routes = {
                (letter.sender.name, letter.receiver.name): letter for letter in reversed(self.wire)
            }
            letter = routes[self.rng.choice(sorted(routes))]
            self.wire.remove(letter)
            return letter
        return self.wire.popleft()

    def _deliver(self, letter: Letter) -> None:
        client = letter.receiver if letter.sender is self.lsp else letter.sender
        if self.links.get(client.name) != letter.link:
            return
        for message in self.tamper(letter.sender, letter.receiver, letter.message):
            self.tell(letter.receiver, letter.sender, message)

    def _close_connections(self) -> None:
        while self.closing:
            self.disconnect(self.closing.pop())

    def _perform(self, node: SimNode, effect: fx.Performed) -> Iterable[ev.Event]:
        assert isinstance(node, PumpNode)
        self.wished.append(Wished(node=node.name, effect=effect))
        match effect:
            case fx.Send():
                self._send(node, effect)
            case fx.HandOverKeys():
                assert node.signer is not None
                self._send(node, key_message(node.signer, effect))
            case fx.Disconnect(node_id=node_id, is_ours=is_ours):
                client = self.by_id[node_id] if node is self.lsp else node
                if is_ours and node is self.lsp:
                    self.let_go.add(client.name)
                self.closing.append(client)
            case fx.LookUpCoins(outpoints=outpoints):
                if not self.answers_coins:
                    return ()
                coins = tuple((outpoint, self.chain.coin(outpoint)) for outpoint in outpoints)
                return (ev.CoinsLookedUp(asked=effect, coins=coins),)
            case fx.LookUpSpenders(outpoints=outpoints):
                spenders = tuple(self.chain.spenders(outpoints).items())
                return (ev.SpendersLookedUp(asked=effect, spenders=spenders),)
            case fx.Broadcast():
                return self._publish(node, effect)
            case fx.PublishBumped(funding=funding, child=child):
                return self._publish_bumped(effect, funding, child)
            case fx.PartialSign():
                self._check_was_intended(node, effect)
                return node.perform_signing(effect)
            case fx.SetDeadline(deadline=deadline, seconds=seconds, stream=stream):
                self._check_is_of_one_stream(node, deadline, stream)
                self.deadlines[node.name, deadline] = seconds
            case fx.ClearDeadline(deadline=deadline, stream=stream):
                self._check_is_of_one_stream(node, deadline, stream)
                self.deadlines.pop((node.name, deadline), None)
            case _:
                return node.perform_signing(effect)
        return ()

    def _send(self, node: PumpNode, effect: fx.Send) -> None:
        self._check_word_is_kept(node, effect.message)
        client = self.by_id[effect.node_id] if node is self.lsp else node
        link = self.links.get(client.name)
        if link is not None:
            receiver = client if node is self.lsp else self.lsp
            letter = Letter(sender=node, receiver=receiver, link=link, message=effect.message)
            self.wire.append(letter)

    def _check_is_of_one_stream(self, node: PumpNode, deadline: fx.Deadline, stream: str) -> None:
        """Deadlines are set and cleared by the stream that they belong to, and it is named."""
        own = self.deadline_streams.setdefault((node.name, deadline), stream)
        assert own == stream != "", f"{deadline} is of {own}, and {stream} meddles with it"

    def _check_was_intended(self, node: PumpNode, effect: fx.PartialSign) -> None:
        """Every signature is made after the intent to make it became durable."""
        known: Any = node.durable_state() if self.watches_folds else node.state
        asked = {request.task.sighash for request in effect.requests}
        assert asked <= set(known.intents.values()), "a signature that was not intended"

    def _check_word_is_kept(self, node: PumpNode, message: m.Message) -> None:
        """Whatever a message says or gives away is remembered, and its conditions hold."""
        known: Any = node.durable_state() if self.watches_folds else node.state
        match message:
            case m.SignBelow():
                held = known.attempts[message.attempt_id]
                assert isinstance(held.stage, BelowSent), "partial signatures before they are kept"
                assert held.stage.own_partial_sig.hex() not in repr(message), "it never leaves"
            case m.SignRoot():
                held = known.attempts[message.attempt_id]
                assert isinstance(held.stage, RootSent), "the root before the exit"
                for rung in range(len(held.ladder)):
                    one = held.on_rung(rung)
                    one.candidate.check_below(one.stage.signatures)
                    client_first_commitment(one)  # raises unless its signature is valid
            case m.SignedBelow():
                attempt = known.attempts[message.attempt_id]
                assert attempt.signatures
                for rung in range(len(attempt.ladder)):
                    for client in range(1, len(attempt.seats) + 1):
                        # Raises unless it is held, and valid.
                        lsp_first_commitment(attempt.on_rung(rung), client)
            case m.SignedRoot():
                attempt = known.attempts[message.attempt_id]
                assert attempt.signed is not None
            case m.CloseAgree():
                closing = known.closing[message.close_id]
                balance_msat = closing.balance_msat
                expected_msat = m.NO_BALANCE if balance_msat is None else balance_msat
                assert expected_msat == message.balance_msat, "agreed to something else"
            case m.CloseSign():
                closing = known.closing[message.close_id]
                bound = known.book.links[closing.channel_id].closes
                assert message.close_id in {close.close_id for close in bound}, "signed for nothing"
            case m.Closed():
                assert any(
                    message.close_id in factory.closed for factory in known.all_factories()
                ), "told before it is remembered"
            case m.Acknowledge():
                held = known.attempts[message.attempt_id]
                assert isinstance(held.stage, Complete), "an acknowledgement of nothing"
                held.signed_branch  # noqa: B018 - raises unless every signature is valid
            case m.ChannelReady() if node is not self.lsp:
                held = known.attempts[message.attempt_id]
                assert isinstance(held.stage, Complete), "ready without an exit"
                # Said again in each connection, it takes up what there is, on whatever chain.
                if (node.name, message.attempt_id) not in self.told_ready:
                    assert known.chain.depth(held.funding_tx.txid) >= held.terms.min_depth
                self.told_ready.add((node.name, message.attempt_id))

    def _publish(self, node: PumpNode, asked: fx.Broadcast) -> Iterable[ev.Event]:
        name, tx = asked.name, asked.tx
        if node is self.lsp and name == "funding":
            self._check_everybody_can_leave(tx)
            if tx.txid not in {other.txid for other in self.published}:
                self.published.append(tx)
        try:
            self.chain.broadcast(tx)
        except SimRefused as error:
            return (ev.BroadcastRefused(asked=asked, reason=str(error)),)
        return ()

    def _publish_bumped(
        self, asked: fx.PublishBumped, funding: Tx, child: Tx
    ) -> Iterable[ev.Event]:
        self._check_everybody_can_leave(funding)
        try:
            self.chain.broadcast_package(funding, child)
        except SimRefused as error:
            whose = fx.Broadcast(name=asked.name, tx=child, stream=asked.stream)
            return (ev.BroadcastRefused(asked=whose, reason=str(error)),)
        return ()

    def _check_everybody_can_leave(self, tx: Tx) -> None:
        """Under each candidate of its ladder, whichever is published."""
        durable: Any = self.lsp.durable_state()
        attempt = next(
            a
            for a in durable.attempts.values()
            if tx.txid in {one.blueprint.funding_tx.txid for one in a.ladder}
        )
        for rung in range(len(attempt.ladder)):
            self._check_can_leave(attempt.on_rung(rung))

    def _check_can_leave(self, attempt: LspAttempt) -> None:
        assert attempt.funded is not None
        everybody = set(range(1, len(attempt.seats) + 1))
        assert acknowledged(self.lsp.store.remembered, attempt.attempt_id) == everybody
        assert attempt.signed is not None
        attempt.signed.tree  # noqa: B018 - raises unless every signature is there and valid
        for number, seat in enumerate(attempt.seats, start=1):
            client: Any = self.by_id[seat.node_id].durable_state()
            held = client.attempts[attempt.attempt_id].on_rung(attempt.rung)
            assert isinstance(held.stage, Complete), "funded before a client held its exit"
            held.signed_branch  # noqa: B018 - as above
            check_first_commitments(attempt, number, held)


class UsualPump(Pump):
    """One in which the number of nonces is what a policy says."""

    client_kind = UsualNode
    pool_size = LspPolicy().pool_size
