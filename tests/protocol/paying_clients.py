"""A funded factory in a pump whose clients make invoices and pay them."""

import hashlib
import itertools
from typing import Any, Final

from tests.protocol.pump import Pump, PumpNode

from cromford.crypto.keys import sha256
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import Balance, balance_of
from cromford.protocol.channels.htlc_rules import min_final_cltv_expiry_delta
from cromford.protocol.journal.book import Book, Payment
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy

POLICY: Final = LspPolicy(min_clients=1, min_depth=1)
EXPIRY_SECONDS: Final = 3600
_numbers = itertools.count(1)


def live_factory(n_clients: int = 3, *, policy: LspPolicy = POLICY, **options: Any) -> Pump:
    """Return a pump whose clients all have a live channel."""
    pump = Pump(n_clients, policy=policy, **options)
    open_factory(pump)
    return pump


def open_factory(pump: Pump) -> None:
    """Build a factory with everybody and confirm its funding."""
    pump.join()
    pump.build()
    pump.run()
    pump.mine(pump.policy.min_depth)
    assert all(newest_link(client).is_open for client in pump.clients)


def book(node: PumpNode) -> Book:
    """Return a node's channels and payments."""
    found: Book = node.state.book
    return found


def newest_link(client: PumpNode) -> Link:
    """Return a client's newest channel, as it sees it."""
    links = {link.attempt_id: link for link in book(client).links.values()}
    return next(links[one] for one in reversed([*client.state.attempts]) if one in links)


def lsp_link(pump: Pump, link: Link) -> Link:
    """Return the LSP's end of a client's channel."""
    return book(pump.lsp).links[link.channel_id]


def balance(client: PumpNode) -> Balance:
    """Return the money in a client's newest channel."""
    return balance_of(newest_link(client))


def invoice_requested(amount_msat: int, *, hold_seconds: int = 0) -> ev.InvoiceRequested:
    """Return a wish for an invoice, another one each time."""
    number = next(_numbers)
    return ev.InvoiceRequested(
        preimage=hashlib.sha256(f"preimage {number}".encode()).digest(),
        payment_secret=hashlib.sha256(f"secret {number}".encode()).digest(),
        amount_msat=amount_msat,
        description=f"order {number}",
        expires_at=EXPIRY_SECONDS,
        expiry_seconds=EXPIRY_SECONDS,
        text=f"invoice {number}",
        hold_seconds=hold_seconds,
    )


def make_invoice(
    pump: Pump,
    payee: PumpNode,
    amount_msat: int,
    *,
    hold_seconds: int = 0,
    of: ev.InvoiceRequested | None = None,
    **changes: Any,
) -> ev.PayRequested:
    """Let a client make an invoice, and return what a payer reads in it.

    Args:
        pump: The world.
        payee: Who makes it.
        amount_msat: What it asks for.
        hold_seconds: How long it may be held.
        of: The wish that it is made of; another one each time by default.
        changes: What the payer reads instead.
    """
    requested = of or invoice_requested(amount_msat, hold_seconds=hold_seconds)
    pump.handle(payee, requested)
    read = {
        "text": requested.text,
        "payment_hash": sha256(requested.preimage),
        "payment_secret": requested.payment_secret,
        "payee": payee.node_id,
        "amount_msat": amount_msat,
        "description": requested.description,
        "min_final_cltv_expiry_delta": min_final_cltv_expiry_delta(
            newest_link(payee), payee.state.chain, hold_seconds=hold_seconds
        ),
    }
    return ev.PayRequested(**{**read, **changes})


def pay(pump: Pump, payer: PumpNode, payee: PumpNode, amount_msat: int, **changes: Any) -> Payment:
    """Let one node pay another until it is told, and return the payer's record of it."""
    begun = begin_payment(pump, payer, payee, amount_msat, **changes)
    if begun.status == "pending":
        pump.pass_holds()
    return book(payer).payments[begun.payment_hash]


def begin_payment(
    pump: Pump, payer: PumpNode, payee: PumpNode, amount_msat: int, **changes: Any
) -> Payment:
    """Let one node pay another in no time at all: what is held stays held."""
    request = make_invoice(pump, payee, amount_msat, **changes)
    pump.handle(payer, request)
    pump.run()
    return book(payer).payments[request.payment_hash]
