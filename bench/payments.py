"""Payments in one process: an LSP and two clients, the production roles over a queue.

A row holds everything the daemons do for a payment but sockets and ciphers: messages and records
encoded and decoded, decisions, signatures, and where it says so the durable journals. Invoices
are made beforehand.
"""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

from bench.ceremony import Participant, World
from bench.op import Work
from bench.rows import CPU, WALL, Stopwatch
from bench.sizes import BINARY_SHAPE, TIP_HEIGHT, Size
from bench.stores import AppendCounter, journals, memory

from bench import payment_floor
from cromford.bitcoin.tx import Tx, Txid
from cromford.crypto.keys import sha256
from cromford.ports import Store
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import min_final_cltv_expiry_delta
from cromford.protocol.journal.link import Link

HOP: Final = "the LSP pays a client"
FORWARDED: Final = "a client pays a client"
LSP: Final = "the LSP's CPU in that"
HOP_DURABLE: Final = "the LSP pays a client, durable"
FORWARDED_DURABLE: Final = "a client pays a client, durable"
SIZE: Final = Size(2, BINARY_SHAPE)
PAYMENTS_DEFAULT: Final = 20  # of each kind in one run
PAYMENTS_MAX: Final = 50  # The LSP pays them from a million satoshi.
AMOUNT_MSAT: Final = 5_000_000  # Far above the amount below which an HTLC has no output.
STAKE_MSAT: Final = 100_000_000  # What each client is given to pay with.
EXPIRY_SECONDS: Final = 3600

_WORK: Final = {
    HOP: payment_floor.in_one_process(payment_floor.hop()),
    FORWARDED: payment_floor.in_one_process(payment_floor.forwarded()),
    LSP: payment_floor.in_one_process(payment_floor.lsp()),
    HOP_DURABLE: payment_floor.in_one_process(payment_floor.hop()),
    FORWARDED_DURABLE: payment_floor.in_one_process(payment_floor.forwarded()),
}


@dataclass(frozen=True)
class Kind:
    """Payments over one kind of journal: the rows, the clock, and how a journal is opened."""

    hop: str
    forwarded: str
    lsp: str | None
    clock: str
    stores: Callable[[], AbstractContextManager[Callable[[], Store]]]

    @property
    def works(self) -> dict[str, Work]:
        """The operations of each row's floor."""
        return {row: _WORK[row] for row in (self.hop, self.forwarded, self.lsp) if row is not None}


IN_MEMORY: Final = Kind(HOP, FORWARDED, LSP, CPU, memory)
# A disk is waited for, so that only the wall's clock sees what it costs.
DURABLE: Final = Kind(HOP_DURABLE, FORWARDED_DURABLE, None, WALL, journals)


@dataclass
class Payments:
    """Several payments of each kind. `n_appends` is for one of them, by row, after a run."""

    kind: Kind
    n_payments: int = PAYMENTS_DEFAULT
    n_appends: dict[str, float] = field(default_factory=dict)

    def run_once(self, run: int) -> dict[str, float]:
        """Return the milliseconds of one payment, by row.

        Raises:
            AssertionError: If a payment did not arrive.
        """
        kind, counter = self.kind, AppendCounter()
        with kind.stores() as open_store:
            world = PayingWorld(run, lambda: counter.counted(open_store()), kind.clock)
            first, second = world.clients
            routes = {
                kind.hop: [(world.lsp, first)] * self.n_payments,
                kind.forwarded: [(first, second), (second, first)] * self.n_payments,
            }
            spent_ms: dict[str, float] = {}
            for row, pairs in routes.items():
                requests = [
                    (payer, world.invoice(payee)) for payer, payee in pairs[: self.n_payments]
                ]
                n_before, world.watch = counter.n_appends, Stopwatch(kind.clock)
                gc.collect()
                for payer, request in requests:
                    world.pay(payer, request)
                spent_ms[row] = sum(world.watch.spent_ms.values()) / self.n_payments
                self.n_appends[row] = (counter.n_appends - n_before) / self.n_payments
                world.check_paid(requests)
            if kind.lsp is not None:
                spent_ms[kind.lsp] = world.watch.spent_ms[_LSP] / self.n_payments
        return spent_ms


_LSP: Final = "LSP"
_CLIENTS: Final = "clients"
Request = tuple[Participant, ev.PayRequested]


class PayingWorld:
    """A funded factory in one process, whose clients have something to spend."""

    def __init__(
        self, run: int, open_store: Callable[[], Store], clock: str, size: Size = SIZE
    ) -> None:
        self._world = World(size, run, open_store)
        self.watch = Stopwatch(clock)
        self.lsp, self.clients = self._world.lsp, self._world.clients
        self._n_invoices = 0
        self.lsp.handle(ev.BuildRequested(min_clients=size.n_clients, max_clients=size.n_clients))
        self.lsp.handle(self.lsp.prepared.pop())
        self._deliver_all()
        self._confirm()
        for client in self.clients:
            request = self.invoice(client, STAKE_MSAT)
            self.pay(self.lsp, request)
            self.check_paid([(self.lsp, request)])

    def invoice(
        self, payee: Participant, amount_msat: int = AMOUNT_MSAT, text: str = ""
    ) -> ev.PayRequested:
        """Let a client make an invoice, and return the request to pay it."""
        self._n_invoices += 1
        name = f"invoice {self._n_invoices}"
        text = text or name
        preimage, secret = sha256(name.encode()), sha256(b"secret of " + name.encode())
        payee.handle(
            ev.InvoiceRequested(
                preimage=preimage,
                payment_secret=secret,
                amount_msat=amount_msat,
                description=name,
                expires_at=EXPIRY_SECONDS,
                expiry_seconds=EXPIRY_SECONDS,
                text=text,
            )
        )
        return ev.PayRequested(
            text=text,
            payment_hash=sha256(preimage),
            payment_secret=secret,
            payee=payee.node_id,
            amount_msat=amount_msat,
            description=name,
            min_final_cltv_expiry_delta=min_final_cltv_expiry_delta(
                _link(payee), payee.driver.state.chain
            ),
        )

    def pay(self, payer: Participant, request: ev.PayRequested) -> None:
        """Let one pay another, until nothing is on its way."""
        with payer.memory.in_use(), self.watch.running(self._whose(payer)):
            payer.handle(request)
        self._deliver_all()

    def check_paid(self, requests: list[Request]) -> None:
        """Check that payments arrived.

        Raises:
            AssertionError: If one did not.
        """
        for payer, request in requests:
            payment = payer.driver.state.book.payments[request.payment_hash]
            if payment.status != "paid":
                raise AssertionError(f"{request.text} is {payment.status}: {payment.failure!r}")

    def find_block(self, height: int, *txs: Tx) -> None:
        """Let everybody see a block of these transactions; heights may be left out."""
        block_hash = Txid(sha256(b"block %d" % height))
        for participant in (self.lsp, *self.clients):
            relevant = participant.driver.relevant(txs)
            participant.handle(ev.BlockAdded(height=height, block_hash=block_hash, txs=relevant))

    def _deliver_all(self) -> None:
        while self.lsp.outbox or any(client.outbox for client in self.clients):
            self._world.deliver_to_clients(self._deliver)
            self._world.deliver_to_lsp(self._deliver)

    def _deliver(self, to: Participant, sender: bytes, data: bytes) -> None:
        with to.memory.in_use(), self.watch.running(self._whose(to)):
            to.receive(sender, data)

    def _whose(self, participant: Participant) -> str:
        return _LSP if participant is self.lsp else _CLIENTS

    def _confirm(self) -> None:
        (attempt,) = self.lsp.driver.state.attempts.values()
        for depth in range(1, attempt.terms.min_depth + 1):
            self.find_block(TIP_HEIGHT + depth, *[attempt.funded.funding_tx] * (depth == 1))
        self._deliver_all()
        for client in self.clients:
            if not _link(client).is_open:
                raise AssertionError("a channel is not open")


def _link(client: Participant) -> Link:
    (link,) = client.driver.state.book.links.values()
    found: Link = link
    return found
