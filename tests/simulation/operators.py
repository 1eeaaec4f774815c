"""What operators do in a world, by its seed: they pay, buy, close, leave, build, and spend."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cromford.bitcoin.script import p2tr_script
from cromford.crypto.keys import pubkey_of, sha256, xonly_of
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import min_final_cltv_expiry_delta
from cromford.protocol.journal.link import Link
from tests.protocol.shoppers import ALL, ask_price, buy_what_is_quoted
from tests.simulation.fates import Act
from tests.simulation.life_node import LifeNode
from tests.simulation.world import World

FIRST_MSAT: Final = (10_000_000, 40_000_000)
SOLD_SAT: Final = (10_000, 60_000)
ALL_RATE: Final = 0.1
TOO_MUCH_SAT: Final = 50_000_000
HOLD_RATE, HOLD_SECONDS = 0.1, 120  # Of invoices that may be paid while their payee is away.
PAYMENTS_MAX: Final = 4  # In one act.
EXPIRY_SECONDS: Final = 600
CLOSE_FEERATES: Final = ((), (), (1_000,), (1_500, 3_000))
PAY_MORE_RATE: Final = 0.5  # Of fundings of a ladder, before each block.
BUMP_SAT_PER_KW: Final = (1_000, 6_000)
ELSEWHERE: Final = p2tr_script(xonly_of(pubkey_of(b"\x09" * 32)))
# How often each act is done, of those that a world has.
WEIGHTS: Final = {
    Act.PAYMENTS: 6,
    Act.SALES: 4,
    Act.CLOSES: 2,
    Act.EXITS: 1,
    Act.RESTORES: 2,
    Act.BUILDS: 2,
    Act.SPENDINGS: 1,
}


def newest_usable(node: LifeNode) -> Link | None:
    """Return a client's newest channel that takes updates; None if it has none."""
    if node.driver is None:
        return None
    usable = {one.attempt_id: one for one in node.state.book.links.values() if one.takes_updates}
    return next((usable[one] for one in reversed([*node.state.attempts]) if one in usable), None)


class Operators:
    """Everybody's.

    Args:
        world: Where.
        restore: Puts somebody's store back.
    """

    def __init__(self, world: World, restore: Callable[[], None]) -> None:
        self.world = world
        self.rng = random.Random(f"operators {world.mixture.seed}")
        self.n_invoices = 0
        self.requests: list[ev.PayRequested] = []
        self._acts: dict[Act, Callable[[], None]] = {
            Act.PAYMENTS: self.trade,
            Act.SALES: self.shop,
            Act.CLOSES: self.close,
            Act.EXITS: self.leave,
            Act.RESTORES: restore,
            Act.BUILDS: self.build_more,
            Act.SPENDINGS: self.spend,
        }

    def act(self, n_round: int) -> None:
        """Let something be done; the dice of each round are its own."""
        self.rng = random.Random(f"round {n_round} {self.world.mixture.seed}")
        acts = [act for act in WEIGHTS if act in self.world.mixture.acts]
        if not acts:
            return
        (act,) = self.rng.choices(acts, [WEIGHTS[act] for act in acts])
        if self.world.mixture.has(act) and self.world.fates.happens(act):
            self._acts[act]()

    # Payments

    def be_paid_first(self) -> None:
        """Let the LSP pay everybody something to trade with."""
        for client in self.world.clients:
            request = self.invoice(client, self.rng.randrange(*FIRST_MSAT))
            if request is not None:
                self.world.handle(self.world.lsp, request)
        self.world.pass_time(2.0)

    def trade(self) -> None:
        """Let some pay: small and large amounts, mostly as the invoice says."""
        for _ in range(self.rng.randint(1, PAYMENTS_MAX)):
            payer = self.rng.choice(self.world.everybody)
            if self.requests and self.rng.random() < 0.1:
                self.world.handle(payer, self.rng.choice(self.requests))
                continue
            payee = self.rng.choice(self.world.clients)
            request = self.invoice(payee, int(10 ** self.rng.uniform(0, 7.6)))
            if request is not None:
                self.world.handle(payer, self._mistaken(request))

    def invoice(self, payee: LifeNode, amount_msat: int) -> ev.PayRequested | None:
        """Let a client make an invoice; return what a payer reads, or None if it makes none."""
        self.n_invoices += 1
        link = newest_usable(payee)
        if link is None:
            return None
        preimage = hashlib.sha256(f"preimage {self.n_invoices}".encode()).digest()
        secret = hashlib.sha256(f"secret {self.n_invoices}".encode()).digest()
        hold_seconds = HOLD_SECONDS if self.rng.random() < HOLD_RATE else 0
        requested = ev.InvoiceRequested(
            preimage=preimage,
            payment_secret=secret,
            amount_msat=amount_msat,
            description=f"order {self.n_invoices}",
            expires_at=EXPIRY_SECONDS,
            expiry_seconds=EXPIRY_SECONDS,
            text=f"invoice {self.n_invoices}",
            hold_seconds=hold_seconds,
        )
        self.world.handle(payee, requested)
        if payee.driver is None or sha256(preimage) not in payee.state.book.invoices:
            return None
        request = ev.PayRequested(
            text=requested.text,
            payment_hash=sha256(preimage),
            payment_secret=secret,
            payee=payee.node_id,
            amount_msat=amount_msat,
            description=requested.description,
            min_final_cltv_expiry_delta=min_final_cltv_expiry_delta(
                link, payee.state.chain, hold_seconds=hold_seconds
            ),
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

    # Everything else

    def shop(self) -> None:
        """Let somebody ask for a price, and perhaps buy."""
        client = self.rng.choice(self.world.clients)
        (amount_sat,) = self.rng.choices(
            (self.rng.randint(*SOLD_SAT), ALL, TOO_MUCH_SAT), (1 - 2 * ALL_RATE, ALL_RATE, ALL_RATE)
        )
        ask_price(self.world.handle, client, amount_sat)
        self.world.pass_time(self.rng.uniform(0.3, 1))
        if self.rng.random() < 0.9:
            buy_what_is_quoted(self.world.handle, client)

    def close(self) -> None:
        """Let the LSP's operator close a factory together with its clients."""
        attempt_id = self._some_factory()
        if attempt_id is not None:
            asked = ev.CloseRequested(
                attempt_id=attempt_id, feerates_sat_per_kw=self.rng.choice(CLOSE_FEERATES)
            )
            self.world.handle(self.world.lsp, asked)

    def leave(self) -> None:
        """Let a client's operator leave, or the LSP's bring a channel on chain."""
        client = self.rng.choice(self.world.clients)
        link = newest_usable(client)
        if link is None:
            return
        if self.rng.random() < 0.6:
            self.world.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))
            return
        asked = ev.ExitRequested(attempt_id=link.attempt_id, client=link.client)
        self.world.handle(self.world.lsp, asked)

    def leave_all(self) -> None:
        """Let every client's operator leave with whatever channel it has."""
        for client in self.world.clients:
            for link in client.state.book.ordered_links if client.driver else ():
                self.world.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))

    def close_all(self) -> None:
        """Let the LSP's operator close every factory."""
        if self.world.lsp.driver is None:
            return
        for attempt in list(self.world.lsp.state.attempts.values()):
            if attempt.funded is not None and self.world.lsp.driver is not None:
                asked = ev.CloseRequested(attempt_id=attempt.attempt_id)
                self.world.handle(self.world.lsp, asked)
                self.world.pass_time(2.0)

    def build_more(self) -> None:
        """Let some wish for another channel, and the LSP build."""
        clients = self.world.clients
        for client in self.rng.sample(clients, self.rng.randint(1, len(clients))):
            if client.driver is not None and not client.state.open_attempt:
                self.world.wish(client)
        self.world.pass_time(1.0)
        self.world.handle(self.world.lsp, self.world.build_request)
        self.world.pass_time(self.rng.uniform(0.5, 4))
        for _ in range(3):
            self.pay_more()
            self.world.find_block()

    def pay_more(self) -> None:
        """Let the LSP's operator pay more for a funding that waits, where it has a fee ladder."""
        lsp = self.world.lsp
        has_ladders = self.world.mixture.has(Act.LADDERS)
        for attempt in list(lsp.state.attempts.values()) if has_ladders and lsp.driver else ():
            if attempt.funded is None or self.rng.random() >= PAY_MORE_RATE:
                continue
            asked = self.rng.choice(
                (
                    ev.FundingReplaceRequested(attempt_id=attempt.attempt_id, rung=None),
                    ev.FundingReplaceRequested(
                        attempt_id=attempt.attempt_id, rung=len(attempt.ladder) - 1
                    ),
                    ev.FundingBumpRequested(
                        attempt_id=attempt.attempt_id,
                        feerate_sat_per_kw=self.rng.choice(BUMP_SAT_PER_KW),
                    ),
                )
            )
            self.world.handle(lsp, asked)

    def spend(self) -> None:
        """Let somebody pay out of its wallet, or pay more for what waits."""
        node = self.rng.choice(self.world.everybody)
        waiting = [] if node.driver is None else sorted(node.state.wallet.payments)
        if waiting and self.rng.random() < PAY_MORE_RATE:
            more = ev.SpendingBumpRequested(
                txid=self.rng.choice(waiting),
                feerate_sat_per_kw=self.rng.choice(BUMP_SAT_PER_KW),
                takes_from_amount=self.rng.random() < PAY_MORE_RATE,
                incremental_sat_per_kw=self.world.chain.relay.incremental_sat_per_kw,
                others_sat=0,
            )
            self.world.handle(node, more)
            return
        asked = ev.SpendingRequested(
            script_pubkey=ELSEWHERE,
            amount_sat=self.rng.randint(1_000, 50_000),
            feerate_sat_per_kw=self.rng.choice((250, 1_000)),
        )
        self.world.handle(node, asked)

    def _some_factory(self) -> bytes | None:
        if self.world.lsp.driver is None:
            return None
        found = [one for one in self.world.lsp.state.attempts.values() if one.funded is not None]
        return self.rng.choice(found).attempt_id if found else None
