"""The simulated world: an LSP, clients, a chain, a network that loses and processes that die.

One seed decides everything that happens, so a failing seed replays. Signatures use fresh nonces
on every run; nothing that is decided depends on their bytes.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.handover import key_message
from cromford.factory.terms import FeePolicy
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_state import LspState, pending, taken_by
from cromford.protocol.journal.mail import Posted
from cromford.protocol.policy import MIN_DEPTH, MIN_DEPTH_LARGE
from cromford.wallet.account import RECEIVE
from tests.simulation.commitments import acknowledged, check_first_commitments
from tests.simulation.fates import Act, Hazard
from tests.simulation.life_node import LADDER_SAT_PER_KW, LifeNode
from tests.simulation.mixture import Mixture
from tests.simulation.reached import Reached
from tests.simulation.sim_blocks import FUNDING, SimBlocks
from tests.simulation.sim_chain import SimChain
from tests.simulation.sim_disk import SimDisk
from tests.simulation.sim_lines import SimLines
from tests.simulation.sim_node import Crash, SimNode
from tests.simulation.standstill import StoodStill

COIN_SAT: Final = 10_000_000
N_CHILDREN, CHILD_SAT = 12, 60_000  # Where nothing pays for itself, everybody has such coins.
LATE_SECONDS: Final = 3.0
LINGER_SECONDS: Final = 3.0  # For long enough that much else happens meanwhile.
DOUBLED_RATE: Final = 0.3  # Of letters that come again.
PAUSE_SECONDS: Final = (1.0, 30.0)  # Of a process that stands still.
STEPS_MAX: Final = 40_000  # A world that does not come to rest by then is a failure of its own.


@dataclass(order=True)
class _Planned:
    at: float
    order: int
    act: Callable[[], None] = field(compare=False)


def was_posted(state: LspState, letter: Posted) -> bool:
    """Say whether a letter is one that was taken already, or waits for it."""
    taken = taken_by(state, letter.receiver, sender=letter.sender)
    return letter.number <= taken or letter in pending(state)


class World:
    """One run.

    Attributes:
        funded: The fundings that were broadcast.
        reached: What was delivered, remembered and cut off.
    """

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self.fates = mixture.fates()
        self.fates.is_calm = True
        self.rng = random.Random(mixture.seed)
        self.reached = Reached()
        self.now = 0.0
        self.queue: list[_Planned] = []
        self.orders = itertools.count()
        self.notebook: dict[tuple[bytes, int], bytes] = {}
        self.deadlines: dict[tuple[str, str, fx.Deadline], int] = {}
        self.generations: Iterator[int] = itertools.count(1)
        self.funded: set[Txid] = set()
        self.blocks = SimBlocks(
            self.fates, self, lambda: self.now, hears_late=mixture.has(Act.LADDERS)
        )
        self.lines = SimLines(self)
        self._announced: set[tuple[str, str, int]] = set()  # Letters that are on their way.
        self.lsp = self._node("lsp", None)
        self.clients = [
            self._node(f"client {i}", self.lsp.node_id) for i in range(mixture.n_clients)
        ]
        self.by_id = {node.node_id: node for node in self.everybody}
        self._give_coins()
        for node in self.everybody:
            self.blocks.begin(node)
            self.blocks.sync(node)
        for client in self.clients:
            self.later(self.rng.random(), partial(self.lines.connect, client))
        self.fates.is_calm = not mixture.is_early

    def _give_coins(self) -> None:
        for _ in range(3):
            self.chain.fund(self.lsp.state.wallet.next_script(RECEIVE), COIN_SAT)
        if self.mixture.fee_policy is FeePolicy.EPHEMERAL or self.mixture.has(Hazard.FEES):
            for node in self.everybody:
                for _ in range(N_CHILDREN):
                    self.chain.fund(node.state.wallet.next_script(RECEIVE), CHILD_SAT)
        self.blocks.first_height = self.chain.height

    @property
    def chain(self) -> SimChain:
        """The chain."""
        return self.blocks.chain

    @property
    def everybody(self) -> list[LifeNode]:
        """The LSP and its clients."""
        return [self.lsp, *self.clients]

    # Time

    def run(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Run until nothing is planned, or `until` says so."""
        for _ in range(STEPS_MAX):
            if not self.queue or until():
                return
            planned = heapq.heappop(self.queue)
            self.now = max(self.now, planned.at)
            planned.act()
        raise AssertionError("the world does not come to rest")

    def pass_time(self, seconds: float) -> None:
        """Let everything happen that is planned for the next so many seconds."""
        end = self.now + seconds
        self.run(until=lambda: self.queue[0].at > end)
        self.now = max(self.now, end)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Plan something."""
        self.at(self.now + seconds, act)

    def at(self, at: float, act: Callable[[], None]) -> None:
        """Plan something for a moment."""
        heapq.heappush(self.queue, _Planned(at, next(self.orders), act))

    # What happens to everybody

    def mine(self, n_blocks: int = 1) -> None:
        """Find blocks, let everybody see each, and do all that follows."""
        for _ in range(n_blocks):
            self.find_block()
            self.run()

    def find_block(self) -> None:
        """Find a block, and let everybody see it."""
        self.blocks.mine()
        for node in self.everybody:
            self.blocks.sync(node)

    def bury(self, n_blocks: int) -> None:
        """Let fundings get as deep as channels need, and a little deeper."""
        depth = MIN_DEPTH_LARGE if self.mixture.has(Act.LADDERS) else MIN_DEPTH
        self.mine(n_blocks + depth - MIN_DEPTH)

    def calm(self) -> None:
        """From here on nothing fails, and whoever is down comes back."""
        self.fates.is_calm = True
        self.blocks.calm()
        self.lines.heal()
        for node in self.everybody:
            self.blocks.sync(node)

    def build(self) -> None:
        """Let everybody join, and the LSP build once they wait; hazards may delay both."""
        self.blocks.brew()
        tries = 4 if self.fates.hazards and not self.fates.is_calm else 2
        for start in range(0, tries * 30, 30):
            for client in self.clients:
                self.later(start + self.rng.random(), partial(self._wish, client))
            self.later(start + 5, partial(self.handle, self.lsp, self.build_request))
        self.run()

    @property
    def build_request(self) -> ev.BuildRequested:
        """How the LSP's operator builds with whoever waits."""
        feerates_sat_per_kw = LADDER_SAT_PER_KW if self.mixture.has(Act.LADDERS) else ()
        return ev.BuildRequested(
            min_clients=1, max_clients=100, feerates_sat_per_kw=feerates_sat_per_kw
        )

    def _wish(self, client: LifeNode) -> None:
        if client.driver is None or client.state.open_attempt or client.state.wish:
            return
        if any(attempt.ready_sent for attempt in client.state.attempts.values()):
            return
        self.wish(client)

    def wish(self, client: LifeNode) -> None:
        """Let a client's operator wish for a channel."""
        capacity_sat = 100_000 + self.rng.randrange(50_000)
        asked = ev.JoinRequested(capacity_sat=capacity_sat, capacity_least_sat=50_000)
        self.handle(client, asked)

    def attempts_of(self, client: LifeNode) -> list[ClientAttempt]:
        """Return what a client's journal holds."""
        return list(client.durable_state().attempts.values())

    # What happens to one

    def _node(self, name: str, lsp_node_id: bytes | None) -> LifeNode:
        eyes = self.blocks.open_eyes(name)
        return LifeNode(
            name,
            fates=self.fates,
            mixture=self.mixture,
            rng=self.rng,
            lsp_node_id=lsp_node_id,
            perform=self._perform,
            notebook=self.notebook,
            facts_at=eyes.facts,
        )

    def handle(self, node: SimNode, event: ev.Event) -> None:
        """Let a node handle an event; it may die of it, and comes back later."""
        assert isinstance(node, LifeNode)
        if node.driver is None:
            return
        self.blocks.note_facts(node)
        n_before = len(node.store.entries)
        try:
            node.handle(event)
        except StoodStill:
            go_on = partial(self._go_on_late, node, node.paused())
            self.crash(node)
            self.later(self.fates.dice("standstill").uniform(*PAUSE_SECONDS), go_on)
        except Crash:
            self.crash(node)
        self.reached.note_records(node.store.told_since(n_before))
        self._plan_writing(node)
        if node is self.lsp and node.driver is not None:
            state = node.state
            assert isinstance(state, LspState)
            assert not state.stopped, f"a factory stopped: {state.stopped}"
            self._plan_mail()

    def _go_on_late(self, node: LifeNode, go_on: Callable[[], bool]) -> None:
        """Let a process go on that stood still: nothing it does is outside the journal."""
        n_before = len(node.store.entries)
        is_refused = go_on()
        self.reached.note("late", "append refused" if is_refused else "end")
        assert len(node.store.entries) == n_before, "two processes write one journal"

    def crash(self, node: LifeNode, *, seconds: float | None = None) -> None:
        """Let a process die, and come back after some seconds."""
        self.stop(node)
        pause = 1 + self.rng.random() * 5
        self.later(pause if seconds is None else seconds, partial(self.restart, node))

    def stop(self, node: LifeNode) -> None:
        """Let a process die."""
        self.reached.note_cut(node.store.told_since(len(node.store.entries) - 1))
        node.die()
        for key in [key for key in self.deadlines if key[0] == node.name]:
            del self.deadlines[key]
        if node is self.lsp:
            self._announced.clear()
        for client in self.clients_of(node):
            self.lines.disconnect(client)

    def restart(self, node: LifeNode) -> None:
        """Start a process on its journal."""
        if node.driver is not None or node.is_gone:
            return
        self.blocks.begin(node)
        n_before = len(node.store.entries)
        try:
            node.start()
        except Crash:
            self.crash(node)
            return
        finally:
            self.reached.note_records(node.store.told_since(n_before))
        self._plan_writing(node)
        if node is self.lsp:
            self._plan_mail()
        self.blocks.sync(node)
        for client in self.clients_of(node):
            self.later(self.rng.random(), partial(self.lines.connect, client))

    def clients_of(self, node: LifeNode) -> list[LifeNode]:
        """Return whose connections are a node's."""
        return self.clients if node is self.lsp else [node]

    # What nothing waits for

    def _plan_writing(self, node: LifeNode) -> None:
        """Let what a node has yet to write be written after a while, if nothing takes it along."""
        disk = node.disk
        if disk is not None and disk.is_behind and not disk.is_planned:
            disk.is_planned = True
            seconds = self.fates.dice(Hazard.LATE_DISK).random() * LINGER_SECONDS
            self.later(seconds, partial(self._write, node, disk))

    def _write(self, node: LifeNode, disk: SimDisk) -> None:
        disk.is_planned = False
        if node.disk is not disk:
            return  # Whoever had yet to write it died.
        n_before = len(node.store.entries)
        try:
            disk.settle()
        except Crash:
            self.crash(node)
        self.reached.note_records(node.store.told_since(n_before))

    # The mail of an LSP that takes none by itself

    def _plan_mail(self) -> None:
        if not self.mixture.has(Hazard.LATE_MAIL) or self.lsp.driver is None:
            return
        dice = self.fates.dice(Hazard.LATE_MAIL)
        for letter in pending(self.lsp.state):
            name = (letter.sender, letter.receiver, letter.number)
            if name not in self._announced:
                self._announced.add(name)
                seconds = 0.01 if self.fates.is_calm else dice.random() ** 4 * LATE_SECONDS
                self.later(seconds, partial(self._deliver_mail, name, letter))

    def _deliver_mail(self, name: tuple[str, str, int], letter: Posted) -> None:
        self._announced.discard(name)
        self._hand_over(letter)
        if self.fates.dice(Hazard.LATE_MAIL).random() < DOUBLED_RATE:
            self.later(LATE_SECONDS, partial(self._hand_over, letter))

    def _hand_over(self, letter: Posted) -> None:
        # One whose record was not written yet, when its process died, was never posted.
        if self.lsp.driver is not None and was_posted(self.lsp.state, letter):
            self.handle(self.lsp, ev.MailArrived(delivery=letter))

    # What a node does to the world

    def is_set(self, node: LifeNode, stream: str, deadline: fx.Deadline) -> bool:
        """Say whether a deadline is."""
        return (node.name, stream, deadline) in self.deadlines

    def _perform(self, node: SimNode, effect: fx.Performed) -> Iterable[ev.Event]:
        assert isinstance(node, LifeNode)
        if node.is_late:
            return self._perform_late(node, effect)
        match effect:
            case fx.Send(node_id=node_id, message=message):
                self.lines.send(node, node_id, message)
            case fx.HandOverKeys():
                assert node.signer is not None
                sent = key_message(node.signer, effect)
                self.lines.send(node, sent.node_id, sent.message)
            case fx.Disconnect(node_id=node_id):
                is_ours = effect.is_ours and node is self.lsp
                client = self.by_id[node_id] if node is self.lsp else node
                self.lines.hang_up(node, client, is_ours=is_ours)
            case fx.LookUpCoins():
                return self.blocks.look_up(node, effect)
            case fx.LookUpSpenders():
                return self.blocks.look_up_spenders(node, effect)
            case fx.Broadcast(name=name, tx=tx):
                if node is self.lsp and name == FUNDING:
                    self._check_everybody_holds_an_exit(tx)
                return self.blocks.broadcast(node, effect)
            case fx.PublishBumped(funding=funding):
                self._check_everybody_holds_an_exit(funding)
                return self.blocks.publish_bumped(node, effect)
            case fx.SetDeadline(deadline=deadline, seconds=seconds, stream=stream):
                due = (node.name, stream, deadline)
                generation = self.deadlines[due] = next(self.generations)
                self.later(seconds, partial(self._deadline, node, due, generation))
            case fx.ClearDeadline(deadline=deadline, stream=stream):
                self.deadlines.pop((node.name, stream, deadline), None)
            case _:
                return node.perform_signing(effect)
        return ()

    def _perform_late(self, node: LifeNode, effect: fx.Performed) -> Iterable[ev.Event]:
        """Do what a process does that stood still: it publishes, and signs what nobody hears.

        Its connections and its timers ended with it.
        """
        self.reached.note("late", type(effect).__name__)
        match effect:
            case fx.Send() | fx.HandOverKeys() | fx.Disconnect():
                return ()
            case fx.SetDeadline() | fx.ClearDeadline() | fx.LookUpSpenders():
                return ()
            case fx.LookUpCoins():
                return self.blocks.look_up(node, effect)
            case fx.Broadcast(name=name, tx=tx):
                if node is self.lsp and name == FUNDING:
                    self._check_everybody_holds_an_exit(tx)
                self.blocks.publish_late(tx)
                return ()
            case fx.PublishBumped(funding=funding):
                self._check_everybody_holds_an_exit(funding)
                self.blocks.publish_late(funding)
                return ()
            case _:
                return node.perform_signing(effect)

    def _deadline(self, node: LifeNode, due: tuple[str, str, fx.Deadline], generation: int) -> None:
        if self.deadlines.get(due) == generation:
            del self.deadlines[due]
            _, stream, deadline = due
            self.reached.note_deadline(deadline)
            self.handle(node, ev.DeadlineReached(stream=stream, deadline=deadline))

    def _check_everybody_holds_an_exit(self, tx: Tx) -> None:
        """Never fund while a signature or an acknowledgement is missing, by what is durable."""
        attempt = next(
            attempt
            for attempt in self.lsp.durable_state().attempts.values()
            if tx.txid in {one.blueprint.funding_tx.txid for one in attempt.ladder}
        )
        assert attempt.funded is not None
        if tx.txid in self.funded:
            return
        said = acknowledged(self.lsp.store.remembered, attempt.attempt_id)
        assert len(said) == len(attempt.seats)
        for rung in range(len(attempt.ladder)):
            self._check_candidate(attempt.on_rung(rung))
        self.funded.add(tx.txid)

    def _check_candidate(self, attempt: LspAttempt) -> None:
        """Check that everybody holds its exit from the present candidate: any may be mined."""
        assert attempt.signed is not None
        attempt.signed.tree  # noqa: B018 - raises unless every signature is there and valid
        for number, seat in enumerate(attempt.seats, start=1):
            client = self.by_id[seat.node_id]
            if not client.is_honest:
                continue
            held = client.durable_state().attempts[attempt.attempt_id].on_rung(attempt.rung)
            assert isinstance(held.stage, Complete), "funding before a client held its exit"
            held.signed_branch  # noqa: B018 - as above
            check_first_commitments(attempt, number, held)
