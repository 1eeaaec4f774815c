"""Payments in one simulated world: whatever crashes, breaks or falls silent, nobody loses any."""

import hashlib
import random
from dataclasses import replace
from typing import Final

from cromford.crypto.keys import sha256
from cromford.factory.terms import FeePolicy
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import min_final_cltv_expiry_delta
from cromford.regtest.kernel import check_scripts
from tests.protocol.money import Auditor
from tests.simulation.sim_node import SimNode
from tests.simulation.world import Weather, World, troubled

N_ROUNDS: Final = 12
PAYMENTS_MAX: Final = 5  # In one round.
EXPIRY_SECONDS: Final = 600
PAUSE_SECONDS_MAX: Final = 4.0
WEATHERS: Final = (
    Weather(),
    Weather(crash_rate=0.002),
    Weather(cut_rate=0.02),
    Weather(crash_rate=0.005, cut_rate=0.01),
    Weather(crash_rate=0.02, cut_rate=0.03),
)


def run_payments(seed: int) -> str:
    """Run one world from its seed and check everything; return a line that describes it."""
    rng = random.Random(f"payments {seed}")
    weather = troubled(rng.choice(WEATHERS), seed)
    world = World(
        seed,
        n_clients=rng.randint(1, 4),
        weather=Weather(),
        fee_policy=rng.choice((FeePolicy.ENDOGENOUS, FeePolicy.EPHEMERAL)),
    )
    world.build()
    world.mine(4)
    audit = Auditor(world.lsp, world.clients, seed=seed, kernel_rate=0.05)
    market = Market(world, rng)
    market.be_paid_first()
    blow(world, weather)
    for _ in range(N_ROUNDS):
        market.trade()
        market.disturb(weather)
        pass_time(world, rng.uniform(0, PAUSE_SECONDS_MAX))
        audit.read()
    world.muted.clear()
    for client in world.clients:
        world._disconnect(client)
    world.calm()
    world.run()
    audit.check_rest()
    check_exits(world)
    statuses = market.statuses()
    if weather == Weather():
        assert "paid" in statuses, "in fair weather payments arrive"
    return (
        f"{len(world.clients)} clients, {weather}: "
        f"{statuses.count('paid')} paid, {statuses.count('failed')} failed, "
        f"{len(audit.held)} commitments, {audit.n_punished} punished in a rehearsal"
    )


def check_exits(world: World) -> None:
    """Check that everybody's latest commitment spends its channel's output, by the kernel."""
    for node in (world.lsp, *world.clients):
        for link in node.durable_state().book.links.values():
            check_scripts(link.finished.tx, [link.setting.funding.txout])


class Market:
    """Who pays whom, by the seed.

    Args:
        world: Where.
        rng: Decides.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.requests: list[ev.PayRequested] = []
        self.n_invoices = 0

    def be_paid_first(self) -> None:
        """Let the LSP pay everybody something to trade with."""
        for client in self.world.clients:
            request = self._invoice(client, self.rng.randrange(10_000_000, 40_000_000))
            assert request is not None
            self.world.request(self.world.lsp, request)
        self.world.run()
        for client in self.world.clients:
            (link,) = client.state.book.links.values()
            assert link.state.accepter_msat > 0, "in fair weather payments arrive"

    def trade(self) -> None:
        """Let some pay: small and large amounts, mostly as the invoice says."""
        for _ in range(self.rng.randint(1, PAYMENTS_MAX)):
            payer = self.rng.choice((self.world.lsp, *self.world.clients))
            if self.requests and self.rng.random() < 0.1:
                self.world.request(payer, self.rng.choice(self.requests))
                continue
            payee = self.rng.choice(self.world.clients)
            amount_msat = int(10 ** self.rng.uniform(0, 7.6))
            request = self._invoice(payee, amount_msat)
            if request is not None:
                self.world.request(payer, self._mistaken(request))

    def disturb(self, weather: Weather) -> None:
        """Find blocks; in bad weather let clients fall silent, and be heard again later."""
        if self.rng.random() < 0.3:
            self.world.brew()
            self.world.chain.mine()
            self.world._sync_all()
        if weather == Weather():
            return
        client = self.rng.choice(self.world.clients)
        if client.name in self.world.muted:
            self.world.muted.discard(client.name)
            self.world._disconnect(client)
        elif self.rng.random() < 0.2:
            self.world.muted.add(client.name)

    def statuses(self) -> list[str]:
        """Return how every payment ended."""
        return [
            payment.status
            for node in (self.world.lsp, *self.world.clients)
            for payment in node.state.book.payments.values()
        ]

    def _invoice(self, payee: SimNode, amount_msat: int) -> ev.PayRequested | None:
        self.n_invoices += 1
        preimage = hashlib.sha256(f"preimage {self.n_invoices}".encode()).digest()
        secret = hashlib.sha256(f"secret {self.n_invoices}".encode()).digest()
        requested = ev.InvoiceRequested(
            preimage=preimage,
            payment_secret=secret,
            amount_msat=amount_msat,
            description=f"order {self.n_invoices}",
            expires_at=EXPIRY_SECONDS,
            expiry_seconds=EXPIRY_SECONDS,
            text=f"invoice {self.n_invoices}",
        )
        self.world.request(payee, requested)
        if payee.driver is None or sha256(preimage) not in payee.state.book.invoices:
            return None
        (link,) = payee.state.book.links.values()
        request = ev.PayRequested(
            text=requested.text,
            payment_hash=sha256(preimage),
            payment_secret=secret,
            payee=payee.node_id,
            amount_msat=amount_msat,
            description=requested.description,
            min_final_cltv_expiry_delta=min_final_cltv_expiry_delta(link, payee.state.chain),
        )
        self.requests.append(request)
        return request

    def _mistaken(self, request: ev.PayRequested) -> ev.PayRequested:
        if self.rng.random() < 0.8:
            return request
        return self.rng.choice(
            (
                replace(request, payment_secret=bytes(32)),
                replace(request, amount_msat=2 * request.amount_msat),
                replace(request, amount_msat=2 * request.amount_msat + 1),
                replace(request, min_final_cltv_expiry_delta=0),
            )
        )


def blow(world: World, weather: Weather) -> None:
    """Let the weather change."""
    world.weather = weather
    for node in (world.lsp, *world.clients):
        node.crash_rate = weather.crash_rate


def pass_time(world: World, seconds: float) -> None:
    """Let everything happen that is planned for the next so many seconds."""
    end = world.now + seconds
    world.run(until=lambda: world.queue[0].at > end)
    world.now = max(world.now, end)
