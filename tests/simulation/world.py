"""The simulated world: an LSP, clients, a chain, a network that loses and processes that die.

One seed decides everything that happens, so a failing seed replays. Signatures use fresh nonces
on every run; nothing that is decided depends on their bytes.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.handover import key_message
from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FeePolicy
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.streams import CLIENT
from cromford.protocol.policy import LspPolicy
from cromford.wallet.account import RECEIVE
from cromford.wire.messages import SignBelow, SignRoot, decode_message, encode_message
from tests.simulation.commitments import (
    acknowledged,
    check_all_is_the_lsps,
    check_first_commitments,
    client_first_commitment,
    lsp_first_commitment,
)
from tests.simulation.sim_chain import SimChain, SimRefused
from tests.simulation.sim_eyes import Away, SimEyes, Trouble
from tests.simulation.sim_node import POOL_SIZE, Crash, SimNode

INNER_KINDS = (None, *VertexKind)
COIN_SAT = 10_000_000
N_CHILDREN, CHILD_SAT = 12, 60_000  # Where nothing pays for itself, everybody has such coins.
TROUBLE_RATE = 0.3  # Of a node that is well, at each block.
TROUBLE_END_RATE = 0.4  # Of a node's trouble, at each block.
BUILD_TRIES = 4  # Requests of operators are lost with a crash, so they ask again.
STEPS_MAX = 20_000  # A world that does not come to rest by then is a failure of its own.


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How hostile a world is: probabilities per step."""

    crash_rate: float = 0.0
    cut_rate: float = 0.0  # a connection breaks as a message is sent
    silent_clients: frozenset[int] = frozenset()  # their partial signatures never leave
    trouble_rate: float = 0.0  # a participant's node stalls, lags, goes back or refuses


def troubled(weather: Weather, seed: int) -> Weather:
    """Return a weather in which, in every third world, nodes are in trouble too."""
    dice = random.Random(f"troubled {seed}")
    return replace(weather, trouble_rate=dice.choice((0.0, 0.0, TROUBLE_RATE)))


@dataclass(order=True)
class _Planned:
    at: float
    order: int
    act: Callable[[], None] = field(compare=False)


class World:
    """One run."""

    def __init__(
        self,
        seed: int,
        *,
        n_clients: int,
        weather: Weather,
        fee_policy: FeePolicy = FeePolicy.ENDOGENOUS,
        states_per_layer: int = 2,
    ) -> None:
        self.rng = random.Random(seed)
        self.weather = weather
        self.chain = SimChain()
        self.now = 0.0
        self.queue: list[_Planned] = []
        self.orders = itertools.count()
        self.notebook: dict[tuple[bytes, int], bytes] = {}
        self.deadlines: dict[tuple[str, str, fx.Deadline], int] = {}
        self.links: dict[bytes, int] = {}  # generation of each client's live connection
        self.generations = itertools.count(1)
        self.arrivals: dict[tuple[str, str], float] = {}
        self.funded: set[Txid] = set()
        self.eyes: dict[str, SimEyes] = {}
        self.told_fresh: set[str] = set()  # Whose roles know that their chain is fresh.
        # Dice of its own: a world is the same with and without troubles, but for them.
        self.trouble_rng = random.Random(f"trouble {seed}")
        self.troubles: Counter[Trouble] = Counter()
        self.muted: set[str] = set()  # Clients whose connection stays and carries nothing.
        policy = LspPolicy(
            step_blocks=4,
            states_per_layer=states_per_layer,
            lstock_csv_blocks=4,
            min_clients=1,
            pool_size=POOL_SIZE,
            inner_kind=INNER_KINDS[seed % len(INNER_KINDS)],
            fee_policy=fee_policy,
            tree_feerate_sat_per_kw=500 if fee_policy is FeePolicy.ENDOGENOUS else 0,
        )
        self.lsp = self._node("lsp", None, policy)
        self.clients = [
            self._node(f"client {i}", self.lsp.node_id, policy) for i in range(n_clients)
        ]
        self.by_id = {node.node_id: node for node in (self.lsp, *self.clients)}
        for _ in range(3):
            self.chain.fund(self.lsp.state.wallet.next_script(RECEIVE), COIN_SAT)
        if fee_policy is FeePolicy.EPHEMERAL:
            scripts = [client.state.wallet.next_script(RECEIVE) for client in self.clients]
            for script in (*scripts, self.lsp.state.wallet.next_script(RECEIVE)):
                for _ in range(N_CHILDREN):
                    self.chain.fund(script, CHILD_SAT)
        self._sync_all()
        for client in self.clients:
            self._later(self.rng.random(), partial(self._connect, client))

    def run(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Run until nothing is planned, or `until` says so."""
        for _ in range(STEPS_MAX):
            if not self.queue or until():
                return
            planned = heapq.heappop(self.queue)
            self.now = max(self.now, planned.at)
            planned.act()
        raise AssertionError("the world does not come to rest")

    def calm(self) -> None:
        """From here on nothing fails, and whoever is down comes back."""
        self.weather = Weather(silent_clients=self.weather.silent_clients)
        for node in (self.lsp, *self.clients):
            node.crash_rate = 0.0
            self._end_trouble(node)

    def brew(self) -> None:
        """Let troubles of nodes begin and end, as the weather is."""
        if not self.weather.trouble_rate:
            return
        for node in (self.lsp, *self.clients):
            eyes = self.eyes[node.name]
            if eyes.trouble is not None:
                if self.trouble_rng.random() < TROUBLE_END_RATE:
                    self._end_trouble(node)
            elif self.trouble_rng.random() < self.weather.trouble_rate:
                trouble = self.trouble_rng.choice(tuple(Trouble))
                self.troubles[trouble] += 1
                eyes.begin(trouble)

    def _end_trouble(self, node: SimNode) -> None:
        """Let a node be well again: it is told what it missed, and answers what it was asked."""
        eyes = self.eyes[node.name]
        eyes.trouble = None
        self._sync(node)
        unheard, eyes.unheard = eyes.unheard, []
        unanswered, eyes.unanswered = eyes.unanswered, []
        for asked in unheard:
            for event in self._broadcast(node, asked):
                self._handle(node, event)
        for question in unanswered:
            if isinstance(question, fx.LookUpSpenders):
                for event in self._look_up_spenders(node, question):
                    self._handle(node, event)
                continue
            # Nobody waits for the coins of an attempt that is over.
            deadline = fx.AttemptDeadline(attempt_id=question.attempt_id)
            if (node.name, CLIENT, deadline) in self.deadlines:
                for event in self._look_up(node, question):
                    self._handle(node, event)

    def request(self, node: SimNode, event: ev.Event) -> None:
        """Let a node's operator ask for something."""
        self._handle(node, event)

    def mine(self, n_blocks: int = 1) -> None:
        """Mine, and let everybody see each block."""
        for _ in range(n_blocks):
            self.brew()
            self.chain.mine()
            self._sync_all()
            self.run()

    def build(self) -> None:
        """Let everybody join, and the LSP build once they wait; crashes may delay both."""
        self.brew()
        for start in range(0, BUILD_TRIES * 30, 30):
            for client in self.clients:
                self._later(start + self.rng.random(), partial(self._wish, client))
            everybody = ev.BuildRequested(min_clients=1, max_clients=100)
            self._later(start + 5, partial(self._handle, self.lsp, everybody))
        self.run()

    def _wish(self, client: SimNode) -> None:
        if client.driver is None or client.state.open_attempt or client.state.wish:
            return
        if any(attempt.ready_sent for attempt in client.state.attempts.values()):
            return
        capacity_sat = 100_000 + self.rng.randrange(50_000)
        wish = ev.JoinRequested(capacity_sat=capacity_sat, capacity_least_sat=50_000)
        self._handle(client, wish)

    def cut(self, client: SimNode) -> None:
        """Let a client's connection break, if it has one; it comes back by itself."""
        self._disconnect(client)

    def attempts_of(self, client: SimNode) -> list[ClientAttempt]:
        """Return what a client's journal holds."""
        return list(client.durable_state().attempts.values())

    def exit_everybody(self) -> int:
        """Let every client with a confirmed factory leave; return how many reached their coin."""
        n_left = 0
        for client in self.clients:
            for attempt in self.attempts_of(client):
                if not attempt.is_checked or attempt.funding_tx.txid not in self.chain.confirmed:
                    continue
                assert isinstance(attempt.stage, Complete), "funded without an exit"
                self.request(client, ev.ExitRequested(attempt_id=attempt.attempt_id))
                self.mine(attempt.branch.exit_blocks)
                leaf = attempt.branch.channel_outpoint.txid
                assert leaf in self.chain.confirmed, f"{client.name} could not leave"
                self._close_unused(client, attempt)
                n_left += 1
        return n_left

    def _close_unused(self, client: SimNode, attempt: ClientAttempt) -> None:
        """Let one side publish its first commitment, unless one of them already has."""
        seats = self.lsp.durable_state().attempts[attempt.attempt_id]
        place = seats.client_of(client.node_id)
        both = (client_first_commitment(attempt), lsp_first_commitment(seats, place))
        known = {*self.chain.confirmed, *self.chain.mempool}
        if not any(held.tx.txid in known for held in both):
            self.chain.broadcast(both[place % 2].tx)
        self.mine()
        (closed,) = (held for held in both if held.tx.txid in self.chain.confirmed)
        assert self.chain.coin(attempt.branch.channel_outpoint) is None
        check_all_is_the_lsps(closed)

    # What the world does to a node

    def _node(self, name: str, lsp_node_id: bytes | None, policy: LspPolicy) -> SimNode:
        eyes = self.eyes[name] = SimEyes(self.chain, clock=lambda: self.now, is_heard=False)
        return SimNode(
            name,
            rng=self.rng,
            crash_rate=self.weather.crash_rate,
            lsp_node_id=lsp_node_id,
            perform=self._perform,
            notebook=self.notebook,
            lsp_policy=policy,
            facts_at=eyes.facts,
        )

    def _handle(self, node: SimNode, event: ev.Event) -> None:
        if node.driver is None:
            return
        if not node.facts.is_fresh:
            self.told_fresh.discard(node.name)
        try:
            node.handle(event)
        except Crash:
            self._crash(node)

    def _crash(self, node: SimNode) -> None:
        node.die()
        self.told_fresh.discard(node.name)
        self.eyes[node.name].forget()
        for key in [key for key in self.deadlines if key[0] == node.name]:
            del self.deadlines[key]
        for client in self.clients if node is self.lsp else [node]:
            self._disconnect(client)
        self._later(1 + self.rng.random() * 5, lambda: self._restart(node))

    def _restart(self, node: SimNode) -> None:
        try:
            node.start()
        except Crash:
            self._crash(node)
            return
        self._sync(node)
        for client in self.clients if node is self.lsp else [node]:
            self._later(self.rng.random(), partial(self._connect, client))

    def _connect(self, client: SimNode) -> None:
        if client.node_id in self.links or client.driver is None or self.lsp.driver is None:
            return
        self.links[client.node_id] = next(self.generations)
        self._handle(self.lsp, ev.ConnectionOpened(node_id=client.node_id))
        self._handle(client, ev.ConnectionOpened(node_id=self.lsp.node_id))

    def _disconnect(self, client: SimNode) -> None:
        if self.links.pop(client.node_id, None) is None:
            return
        self._handle(self.lsp, ev.ConnectionClosed(node_id=client.node_id))
        self._handle(client, ev.ConnectionClosed(node_id=self.lsp.node_id))
        self._later(1 + self.rng.random(), lambda: self._connect(client))

    def _sync_all(self) -> None:
        for node in (self.lsp, *self.clients):
            self._sync(node)

    def _sync(self, node: SimNode) -> None:
        eyes = self.eyes[node.name]
        while node.driver is not None and node.state.chain.height < eyes.look():
            height = node.state.chain.height + 1
            block_hash, txs = self.chain.blocks[height]
            relevant = node.relevant(txs)
            self._handle(node, ev.BlockAdded(height=height, block_hash=block_hash, txs=relevant))
        self._tell(node)

    def _tell(self, node: SimNode) -> None:
        """Let a role know that its chain is fresh again, or of blocks that do not come."""
        if node.driver is None:
            return
        is_fresh = node.facts.is_fresh
        if is_fresh and node.name not in self.told_fresh:
            self.told_fresh.add(node.name)
            self._handle(node, ev.FactsChanged())
        elif not is_fresh and self.eyes[node.name].hides_blocks:
            self._handle(node, ev.FactsChanged())

    # What a node does to the world

    def _perform(self, node: SimNode, effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.Send():
                self._send(node, effect)
            case fx.HandOverKeys():
                assert node.signer is not None
                self._send(node, key_message(node.signer, effect))
            case fx.Disconnect(node_id=node_id):
                client = self.by_id[node_id] if node is self.lsp else node
                self._later(0, lambda: self._disconnect(client))
            case fx.LookUpCoins():
                return self._look_up(node, effect)
            case fx.PublishBumped():
                raise AssertionError("no operator bumps a funding here")
            case fx.LookUpSpenders():
                return self._look_up_spenders(node, effect)
            case fx.Broadcast():
                return self._broadcast(node, effect)
            case fx.SetDeadline(deadline=deadline, seconds=seconds, stream=stream):
                due = (node.name, stream, deadline)
                generation = self.deadlines[due] = next(self.generations)
                self._later(seconds, partial(self._deadline, node, due, generation))
            case fx.ClearDeadline(deadline=deadline, stream=stream):
                self.deadlines.pop((node.name, stream, deadline), None)
            case _:
                return node.perform_signing(effect)
        return ()

    def _send(self, node: SimNode, effect: fx.Send) -> None:
        client = self.by_id[effect.node_id] if node is self.lsp else node
        receiver = client if node is self.lsp else self.lsp
        generation = self.links.get(client.node_id)
        if generation is None:
            return
        if self.rng.random() < self.weather.cut_rate:
            self._later(0, lambda: self._disconnect(client))
            return
        if client.name in self.muted:
            return
        if self._is_silent(node) and isinstance(effect.message, SignBelow | SignRoot):
            return
        data = encode_message(effect.message)
        # Messages of one connection arrive in their order, as over TCP.
        arrival = max(
            self.now + self.rng.random() * 0.2, self.arrivals.get((node.name, receiver.name), 0)
        )
        self.arrivals[node.name, receiver.name] = arrival
        sender_id = node.node_id

        def deliver() -> None:
            message = decode_message(data)
            if self.links.get(client.node_id) == generation and message is not None:
                self._handle(receiver, receiver.heard(sender_id, message))

        self._at(arrival, deliver)

    def _is_silent(self, node: SimNode) -> bool:
        return node in self.clients and self.clients.index(node) in self.weather.silent_clients

    def _look_up(self, node: SimNode, asked: fx.LookUpCoins) -> Iterable[ev.Event]:
        eyes = self.eyes[node.name]
        try:
            coins = tuple((outpoint, eyes.coin(outpoint)) for outpoint in asked.outpoints)
        except Away:
            eyes.unanswered.append(asked)
            return ()
        return (ev.CoinsLookedUp(asked=asked, coins=coins),)

    def _look_up_spenders(self, node: SimNode, asked: fx.LookUpSpenders) -> Iterable[ev.Event]:
        eyes = self.eyes[node.name]
        try:
            spenders = tuple(eyes.spenders(asked.outpoints).items())
        except Away:
            eyes.unanswered.append(asked)
            return ()
        return (ev.SpendersLookedUp(asked=asked, spenders=spenders),)

    def _broadcast(self, node: SimNode, asked: fx.Broadcast) -> Iterable[ev.Event]:
        name, tx = asked.name, asked.tx
        if name == "funding":
            self._check_everybody_holds_an_exit(tx)
        eyes = self.eyes[node.name]
        try:
            eyes.broadcast(tx)
        except Away:
            eyes.unheard.append(asked)
        except SimRefused as error:
            return (ev.BroadcastRefused(asked=asked, reason=str(error)),)
        return ()

    def _check_everybody_holds_an_exit(self, tx: Tx) -> None:
        """Never fund while a signature or an acknowledgement is missing, by what is durable."""
        attempt = next(
            attempt
            for attempt in self.lsp.durable_state().attempts.values()
            if attempt.funding_tx.txid == tx.txid
        )
        assert attempt.funded is not None
        attempt.signed.tree  # noqa: B018 - raises unless every signature is there and valid
        said = acknowledged(self.lsp.store.remembered, attempt.attempt_id)
        assert len(said) == len(attempt.seats)
        for number, seat in enumerate(attempt.seats, start=1):
            held = self.by_id[seat.node_id].durable_state().attempts[attempt.attempt_id]
            assert isinstance(held.stage, Complete), "funding before a client held its exit"
            held.signed_branch  # noqa: B018 - as above
            check_first_commitments(attempt, number, held)
        self.funded.add(tx.txid)

    def _deadline(self, node: SimNode, due: tuple[str, str, fx.Deadline], generation: int) -> None:
        if self.deadlines.get(due) == generation:
            del self.deadlines[due]
            _, stream, deadline = due
            self._handle(node, ev.DeadlineReached(stream=stream, deadline=deadline))

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self.now + seconds, act)

    def _at(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.queue, _Planned(at, next(self.orders), act))
