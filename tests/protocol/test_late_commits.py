"""Records that become durable late, many at once, or never: nothing is said before its time.

A daemon does not wait for its disk. It decides from what it has decided before, and what leaves it
follows once all that led there is durable; a crash loses the end of what was decided, and nothing
of that was ever said.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    book,
    lsp_link,
    make_invoice,
    newest_link,
    open_factory,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import Crash, durable

from cromford import effects as fx
from cromford.daemon.driver import Driver
from cromford.ports import Archived, Entry
from cromford.protocol import events as ev

Waiting = tuple[Sequence[Entry], Sequence[Archived], Callable[[], None]]
FIRST_MSAT: Final = 30_000_000
AMOUNT_MSAT: Final = 1_000_000


class LateNode(PumpNode):
    """A participant whose disk takes its time."""

    connection: Callable[[fx.Send | fx.Disconnect], object] = staticmethod(lambda _effect: None)

    def start(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.is_mute = False
        super().start()

    def _new_driver(self) -> Driver[Any]:
        driver = super()._new_driver()
        driver.commit = self._wait
        driver.bound = self._bound
        return driver

    def _wait(
        self,
        entries: Sequence[Entry],
        archived: Sequence[Archived],
        then: Callable[[], None],
        *,
        is_awaited: bool,
    ) -> None:
        n_waiting = sum(len(earlier) for earlier, _, _ in self.waiting)
        n = len(self.store.entries) + n_waiting + len(entries)

        def follow() -> None:
            assert len(self.store.entries) >= n, "said before it was durable"
            self.is_mute = not is_awaited
            then()
            self.is_mute = False

        self.waiting.append((entries, archived, follow))

    def _effect(self, effect: fx.Performed) -> Iterable[ev.Event]:
        assert not self.is_mute, "somebody waits for it"
        return super()._effect(effect)

    def _bound(self, effect: fx.Performed) -> Callable[[], Iterable[ev.Event]]:
        if not isinstance(effect, fx.Send | fx.Disconnect):
            return partial(self._effect, effect)
        connection = self.connection(effect)
        return lambda: self._effect(effect) if self.connection(effect) is connection else ()

    def catch_up(self, n_waiting: int) -> None:
        """Make the oldest that wait durable in one append, and do what follows."""
        now = [self.waiting.popleft() for _ in range(min(n_waiting, len(self.waiting)))]
        entries = [entry for entries, _, _ in now for entry in entries]
        if entries:
            self.store.append(entries, [one for _, archived, _ in now for one in archived])
        for _, _, follow in now:
            follow()


class LatePump(Pump):
    """A world whose disks are slow; the messages that they hold up are sent when all else rests."""

    lsp_kind = client_kind = LateNode

    def __init__(self, seed: int, n_clients: int) -> None:
        self.dice = random.Random(f"late {seed}")
        self.n_waited = 0
        super().__init__(n_clients, order=seed)

    def _node(self, name: str, lsp_node_id: bytes | None) -> PumpNode:
        node = super()._node(name, lsp_node_id)
        assert isinstance(node, LateNode)
        node.connection = partial(self._connection, node)
        return node

    def _connection(self, node: PumpNode, effect: fx.Send | fx.Disconnect) -> object:
        client = self.by_id[effect.node_id] if node is self.lsp else node
        return self.links.get(client.name)

    @property
    def nodes(self) -> list[LateNode]:
        everybody = [self.lsp, *self.clients] if hasattr(self, "clients") else []
        return [node for node in everybody if isinstance(node, LateNode)]

    def handle(self, node: PumpNode, event: ev.Event) -> None:
        super().handle(node, event)
        if self.dice.random() < 0.3:
            self._catch_up(self.dice.choice(self.nodes or [node]), self.dice.randint(1, 4))

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        while True:
            super().run(until)
            late = [node for node in self.nodes if node.waiting]
            if not late or until():
                return
            node = self.dice.choice(late)
            self._catch_up(node, self.dice.randint(1, 8))

    def _catch_up(self, node: PumpNode, n_waiting: int) -> None:
        if not isinstance(node, LateNode) or node.driver is None:
            return
        self.n_waited = max(self.n_waited, len(node.waiting))
        try:
            node.catch_up(n_waiting)
        except Crash:
            self.restart(node)


def check_both_ends_agree(pump: Pump) -> None:
    for client in pump.clients:
        own = newest_link(client).state
        other = lsp_link(pump, newest_link(client)).state
        assert (own.opener_msat, own.accepter_msat) == (other.opener_msat, other.accepter_msat)
        assert own.htlcs == other.htlcs == ()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(6))
def test_payments_arrive_however_late_records_become_durable(seed: int) -> None:
    pump = LatePump(seed, 3)
    open_factory(pump)
    alice, bob, carol = pump.clients
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    for payer, payee in ((alice, bob), (bob, carol), (carol, alice)):
        assert pay(pump, payer, payee, AMOUNT_MSAT).status == "paid"
    check_both_ends_agree(pump)
    assert pump.n_waited > 1, "several decisions were committed together"
    for node in pump.nodes:
        assert durable(node.durable_state()) == durable(node.state)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(30))
def test_whoever_dies_before_records_are_durable_has_said_nothing_of_them(seed: int) -> None:
    pump = LatePump(seed, 2)
    open_factory(pump)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    begun = []
    for _ in range(3):
        victim = pump.dice.choice([pump.lsp, alice, bob])
        victim.fuse = pump.dice.randint(1, 12)
        if book(alice).links and newest_link(alice).is_open:
            request = make_invoice(pump, bob, AMOUNT_MSAT)
            begun.append(request.payment_hash)
            pump.handle(alice, request)
        pump.run()
        victim.fuse = None
    pump.pass_holds()
    known = [book(alice).payments.get(payment_hash) for payment_hash in begun]
    assert all(payment is None or payment.status != "pending" for payment in known)
    check_both_ends_agree(pump)
    n_paid = sum(payment is not None and payment.status == "paid" for payment in known)
    assert newest_link(bob).state.accepter_msat == n_paid * AMOUNT_MSAT
    assert pay(pump, alice, bob, AMOUNT_MSAT).status == "paid"
