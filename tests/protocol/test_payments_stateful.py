"""Whatever happens to payments and purchases, in whatever order: nobody loses a millisatoshi."""

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.protocol import paying_clients
from tests.protocol.money import Auditor
from tests.protocol.paying_clients import POLICY, book, live_factory, make_invoice, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.shoppers import ALL, ask_price, buy_what_is_quoted
from tests.simulation.sim_node import SimNode

from cromford.effects import AdvanceDeadline, Deadline, HoldDeadline, InvoiceDeadline
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH, Facts
from cromford.wire import messages as m

N_CLIENTS = 3
CLIENTS = st.integers(0, N_CLIENTS - 1)
NODES = st.integers(-1, N_CLIENTS - 1)  # -1 is the LSP.
TRIMMED_MSAT = st.integers(1, 900_000)
AMOUNTS_MSAT = st.one_of(
    TRIMMED_MSAT, st.integers(900_000, 5_000_000), st.integers(5_000_000, 60_000_000)
)
SOLD_SAT = st.one_of(st.just(ALL), st.integers(10_000, 60_000))
ADVANCE_BLOCKS_MAX = 4  # Whatever is under way ends, once all are here, within that many.
DEADLINES = st.sampled_from((HoldDeadline, InvoiceDeadline, AdvanceDeadline))
STALE = Facts(stale="the source is away")
MISTAKES = st.sampled_from(
    ("none", "none", "none", "secret", "less", "double", "triple", "soon", "hurried", "far")
)


def mistaken(request: ev.PayRequested, mistake: str) -> ev.PayRequested:
    """Return what a payer asks for who makes this mistake."""
    changes: dict[str, dict[str, Any]] = {
        "none": {},
        "secret": {"payment_secret": bytes(32)},
        "less": {"amount_msat": request.amount_msat - 1},
        "double": {"amount_msat": 2 * request.amount_msat},
        "triple": {"amount_msat": 2 * request.amount_msat + 1},
        "soon": {"min_final_cltv_expiry_delta": 0},
        "hurried": {"min_final_cltv_expiry_delta": request.min_final_cltv_expiry_delta - 20},
        "far": {"min_final_cltv_expiry_delta": 3000},
    }
    return replace(request, **changes[mistake])


class Payments(RuleBasedStateMachine):
    """An LSP and its clients, on a good or a very bad day."""

    pump: Pump
    audit: Auditor

    @initialize(order=st.one_of(st.none(), st.integers(0, 999)))
    def open(self, order: int | None) -> None:
        # Payment hashes are the same in every run: whatever is sorted by them comes out alike.
        paying_clients._numbers = itertools.count(1)
        self.pump = live_factory(N_CLIENTS, policy=POLICY, order=order, watches_folds=True)
        self.pump.tamper = self.cheapen
        self.audit = Auditor(self.pump.lsp, self.pump.clients, seed=order or 0)
        self.deceived: set[str] = set()
        self.requests: list[ev.PayRequested] = []
        for client in self.pump.clients[:2]:
            assert pay(self.pump, self.pump.lsp, client, 30_000_000).status == "paid"

    def cheapen(
        self, _sender: PumpNode, receiver: PumpNode, message: m.Message
    ) -> tuple[m.Message, ...]:
        """Let a deceived client believe that forwarding costs nothing."""
        if isinstance(message, m.Lobby) and receiver.name in self.deceived:
            return (replace(message, fee_base_msat=0, fee_proportional_millionths=0),)
        return (message,)

    def handle(self, node: SimNode, event: ev.Event) -> None:
        assert isinstance(node, PumpNode)
        self.pump.handle(node, event)

    def node(self, index: int) -> PumpNode:
        return self.pump.lsp if index < 0 else self.pump.clients[index]

    def ask(self, payer: PumpNode, payee: PumpNode, amount_msat: int, mistake: str) -> None:
        request = make_invoice(self.pump, payee, amount_msat)
        if request.payment_hash not in book(payee).invoices:
            return  # The payee died of it, or may not be paid now.
        self.requests.append(request)
        request = mistaken(request, mistake)
        if request.amount_msat > 0:
            self.pump.handle(payer, request)

    # Payments. A payer that is the payee pays itself, which one channel cannot carry.

    @rule(payer=NODES, payee=CLIENTS, amount_msat=AMOUNTS_MSAT, mistake=MISTAKES)
    def somebody_pays(self, payer: int, payee: int, amount_msat: int, mistake: str) -> None:
        self.ask(self.node(payer), self.node(payee), amount_msat, mistake)

    @rule(one=NODES, other=CLIENTS, amounts_msat=st.lists(TRIMMED_MSAT, min_size=2, max_size=8))
    def small_ones_go_both_ways_at_once(
        self, one: int, other: int, amounts_msat: list[int]
    ) -> None:
        for place, amount_msat in enumerate(amounts_msat):
            payer, payee = (one, other) if place % 2 else (other, (other + 1) % N_CLIENTS)
            self.ask(self.node(payer), self.node(payee), amount_msat, "none")

    @precondition(lambda self: self.requests)
    @rule(payer=NODES, data=st.data())
    def an_invoice_is_paid_again(self, payer: int, data: st.DataObject) -> None:
        self.pump.handle(self.node(payer), data.draw(st.sampled_from(self.requests)))

    @rule(client=CLIENTS)
    def a_payer_believes_another_price(self, client: int) -> None:
        node = self.node(client)
        self.deceived ^= {node.name}
        self.pump.disconnect(node)
        self.pump.connect(node)
        self.pump.run()
        self.ask(node, self.node((client + 1) % N_CLIENTS), 1_000_000, "none")

    # Purchases, in the same channels at the same time

    @rule(client=CLIENTS, amount_sat=SOLD_SAT)
    def a_price_is_asked(self, client: int, amount_sat: int) -> None:
        ask_price(self.handle, self.node(client), amount_sat)

    @rule(client=CLIENTS, beyond_coverage=st.booleans())
    def what_was_quoted_is_bought(self, client: int, beyond_coverage: bool) -> None:  # noqa: FBT001 - as hypothesis draws it
        node = self.node(client)
        buy_what_is_quoted(self.handle, node, beyond_coverage=beyond_coverage)

    @rule(client=CLIENTS, amount_sat=SOLD_SAT, n_letters=st.integers(0, 40))
    def somebody_buys(self, client: int, amount_sat: int, n_letters: int) -> None:
        node = self.node(client)
        ask_price(self.handle, node, amount_sat)
        self.pump.run()
        buy_what_is_quoted(self.handle, node)
        self.some_messages(n_letters)

    @rule(node=NODES)
    def a_chain_goes_stale_or_comes_back(self, node: int) -> None:
        one = self.node(node)
        is_fresh = one.facts.is_fresh
        one.facts_at = lambda _own_height: STALE if is_fresh else FRESH
        self.pump.handle(one, ev.FactsChanged())

    # Time, messages, connections, processes

    @rule(n_letters=st.integers(1, 12))
    def some_messages_arrive(self, n_letters: int) -> None:
        self.some_messages(n_letters)

    def some_messages(self, n_letters: int) -> None:
        target = [n_letters]

        def enough() -> bool:
            target[0] -= 1
            return target[0] < 0

        self.pump.run(until=enough)

    @rule()
    def all_messages_arrive(self) -> None:
        self.pump.run()

    @rule(client=CLIENTS)
    def a_connection_breaks(self, client: int) -> None:
        self.pump.disconnect(self.node(client))

    @rule(client=CLIENTS)
    def a_connection_comes_back(self, client: int) -> None:
        if self.node(client).name not in self.pump.links:
            self.pump.connect(self.node(client))

    @rule(node=NODES, n_steps=st.integers(1, 30))
    def a_process_will_die(self, node: int, n_steps: int) -> None:
        self.node(node).fuse = n_steps

    @rule(node=NODES)
    def a_process_dies(self, node: int) -> None:
        self.pump.restart(self.node(node))

    @rule(kind=DEADLINES, n_deadlines=st.integers(1, 3))
    def deadlines_pass(self, kind: type[Deadline], n_deadlines: int) -> None:
        self.pass_deadlines(kind, n_deadlines)

    @rule(n_blocks=st.integers(1, 3))
    def blocks_are_found(self, n_blocks: int) -> None:
        for _ in range(n_blocks):
            self.pump.chain.mine()
            self.pump.sync()

    def pass_deadlines(self, kind: type[Deadline], n_most: int) -> None:
        for node, deadline in self.pump.deadlines_of(kind)[:n_most]:
            self.pump.pass_deadline(node, deadline)

    # What must hold

    @invariant()
    def nobody_lost_anything_so_far(self) -> None:
        if hasattr(self, "audit"):
            self.audit.read()

    @rule()
    def all_comes_to_rest(self) -> None:
        pump = self.pump
        for node in (pump.lsp, *pump.clients):
            node.fuse = None
            node.facts_at = lambda _own_height: FRESH
            pump.handle(node, ev.FactsChanged())
        for _ in range(ADVANCE_BLOCKS_MAX):
            self.all_are_here()
            if not self.is_advancing():
                break
            pump.chain.mine()
            pump.sync()
        self.pass_deadlines(HoldDeadline, len(pump.deadlines))
        pump.run()
        self.audit.check_rest()

    def all_are_here(self) -> None:
        for client in self.pump.clients:
            if client.name not in self.pump.links:
                self.pump.connect(client)
        self.pump.run()

    def is_advancing(self) -> bool:
        nodes = (self.pump.factory, *(client.state for client in self.pump.clients))
        return any(node.advances for node in nodes)

    def teardown(self) -> None:
        if hasattr(self, "audit"):
            self.all_comes_to_rest()
            n_sold = len(self.audit.lsp.traded)
            note(
                f"{self.audit.n_held_by_kernel} held, {self.audit.n_punished} punished, "
                f"{n_sold} purchases"
            )


Payments.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    # To shrink a failure takes longer than a test may; remove this to see a smaller one.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
TestPayments = Payments.TestCase
