"""`client decode` and `client invoices wait`: what an invoice says, and whether it was paid."""

import math
import re
import time
from typing import Any, Final

import click

from cromford.cli.events import FOLLOW_WAIT_SECONDS, events_after
from cromford.cli.failures import EXIT_USAGE, CommandFailed
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.payments import invoices_list, show_command
from cromford.cli.shown import payment_lists
from cromford.cli.shown.output import show

PAID: Final = "invoice_paid"
EXPIRED: Final = "invoice_expired"
WAIT_SECONDS_MAX: Final = 30 * 24 * 3600
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)
Document = dict[str, Any]


def decode_command(role: str) -> click.Command:
    """Return the command `decode` of a role."""

    @click.command()
    @click.argument("invoice", metavar="INVOICE")
    @invocation_options
    @click.pass_obj
    def decode(invocation: Invocation, /, *, invoice: str) -> None:
        """Show what an invoice asks for, and of whom. No daemon is asked, and nothing is paid."""
        show(invocation, read(invocation, role, invoice), payment_lists.decoded)

    return decode


def read(invocation: Invocation, role: str, text: str) -> Document:
    """Return what an invoice of our network says, as plain data.

    Raises:
        CommandFailed: If it is none that could be paid here, whether or not it expired.
    """
    from cromford.bitcoin.network import NETWORKS  # noqa: PLC0415 - no other command needs it
    from cromford.invoice.bolt11 import parse_invoice  # noqa: PLC0415 - as above
    from cromford.invoice.invoice import InvalidInvoice  # noqa: PLC0415 - as above

    network = NETWORKS[invocation.settings_of(role, {})["chain.network"]]
    try:
        invoice = parse_invoice(text, network)
    except InvalidInvoice as error:
        raise CommandFailed(
            "invalid_invoice",
            f"invoice: {error}",
            remediation="Ask the payee for a BOLT 11 invoice with an amount, on this network.",
            exit_code=EXIT_USAGE,
        ) from error
    hint = invoice.route_hint
    return {
        "network": network.name,
        "payee": invoice.payee.hex(),
        "amount_msat": invoice.amount_msat,
        "description": invoice.description,
        "payment_hash": invoice.payment_hash.hex(),
        "created_at": invoice.created_at,
        "expires_at": invoice.expires_at,
        "expired": invoice.expires_at <= int(time.time()),
        "min_final_cltv_expiry_delta": invoice.min_final_cltv_expiry_delta,
        "lsp": None
        if hint is None
        else {
            "node_id": hint.lsp_node_id.hex(),
            "fee_base_msat": hint.fee_base_msat,
            "fee_proportional_millionths": hint.fee_proportional_millionths,
            "cltv_expiry_delta": hint.cltv_expiry_delta,
        },
    }


def invoices_group(role: str) -> click.Group:
    """Return the group `invoices` of a role."""
    group = invoices_list(role)
    group.add_command(_wait(role))
    group.add_command(show_command(role, "invoice_show", payment_lists.own_invoice, "invoice"))
    return group


def _wait(role: str) -> click.Command:
    @click.command()
    @click.argument("invoice", metavar="INVOICE|HASH")
    @click.option(
        "--seconds",
        type=click.FloatRange(0, WAIT_SECONDS_MAX),
        help="How long to wait.  [default: until it is paid or expires]",
    )
    @invocation_options
    @click.pass_obj
    def wait(invocation: Invocation, /, *, invoice: str, seconds: float | None) -> None:
        """Wait until an invoice is paid, and say so. Ends with 1 if it expires, or time is over."""
        if _HASH.fullmatch(invoice):
            payment_hash = invoice.lower()
        else:
            payment_hash = str(read(invocation, role, invoice)["payment_hash"])
        limit = math.inf if seconds is None else seconds
        _until_it_ends(invocation, role, payment_hash, seconds=limit)
        found = _shown(invocation, role, payment_hash)
        if found["status"] == "paid":
            show(invocation, found, payment_lists.paid_invoice)
            return
        is_open = found["status"] == "open"
        raise CommandFailed(
            "invoice_open" if is_open else "invoice_expired",
            f"the invoice is {'not paid yet' if is_open else 'expired, and was not paid'}",
            retryable=is_open,
            remediation="Wait again." if is_open else "Make a new one: `cromford client invoice`.",
        )

    return wait


def _until_it_ends(invocation: Invocation, role: str, payment_hash: str, *, seconds: float) -> None:
    """Return once an invoice is paid, or expired, or the time is over."""
    cursor = ""  # From the oldest event on: what ended meanwhile is among them.
    give_up = _now() + seconds
    if _shown(invocation, role, payment_hash)["status"] != "open":
        return
    while True:
        left = max(0.0, give_up - _now())
        found, cursor = events_after(
            invocation,
            role,
            cursor,
            wait_seconds=min(FOLLOW_WAIT_SECONDS, left),
            only=[PAID, EXPIRED],
            about=payment_hash,
        )
        if found or not left:
            return


def _shown(invocation: Invocation, role: str, payment_hash: str) -> Document:
    """Return an invoice as the daemon shows it.

    Raises:
        ApiFailure: If it is none of those made here.
    """
    shown: Document = invocation.call(role, "invoice_show", payment_hash=payment_hash)
    return shown


def _now() -> float:
    return time.monotonic()
