"""`invoice`, `pay`, `payments` and the balances: money in channels, for both roles."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.cli.amounts import EXPECTED, msat_of
from cromford.cli.failures import CommandFailed
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.named import Id
from cromford.cli.pages import listed, page_options
from cromford.cli.shown import csv_lists, payment_lists
from cromford.cli.shown.output import Printer, msat, show
from cromford.daemon.api.payment_limits import (
    ANNOUNCED_HOLD_SECONDS_MAX,
    INVOICE_EXPIRY_SECONDS,
    WAIT_SECONDS,
    WAIT_SECONDS_MAX,
)

_STATUSES: Final = {
    "lsp": ("paid", "failed", "pending", "unknown"),
    "client": ("paid", "failed", "pending", "unknown", "open", "expired"),
}
_CLIENT_REMEDIES: Final = {
    "temporary_channel_failure": "The payee is away, its channel is full, the invoice is paid or "
    "expired, or it is no client of this LSP: to protect payees, the LSP does not say which. Try "
    "again later, or ask the payee for a new invoice.",
    "fee_insufficient": "The LSP has a new price: try again once the daemon has connected anew.",
}
_LSP_REMEDIES: Final = {
    "incorrect_or_unknown_payment_details": "Ask the payee for a new invoice: this one is paid, "
    "expired, or not known there.",
    "temporary_channel_failure": "The payee cannot take it now: try again later.",
}
MORE_ROOM: Final = "see `cromford client balance`, and `cromford client buy-liquidity`"
Document = dict[str, Any]
_Command = TypeVar("_Command", bound=Callable[..., Any])


class SatOrMsat(click.ParamType[int]):
    """An amount in sat, or in msat or btc where the suffix says so. Its value is in msat."""

    name = "AMOUNT"

    def __init__(self, *, least_msat: int) -> None:
        self._least_msat = least_msat

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the amount in msat."""
        amount_msat = msat_of(str(value))
        if amount_msat is None or not self._least_msat <= amount_msat <= 1000 * MAX_MONEY_SAT:
            self.fail(f"expected {EXPECTED}, received {value!r}", param, ctx)
        return amount_msat


def invoice_command(role: str) -> click.Command:
    """Return the command `invoice` of a role."""

    @click.command()
    @click.argument("amount", metavar="AMOUNT", type=SatOrMsat(least_msat=1))
    @click.option("--description", default="", help="What it is for; the payer reads it.")
    @click.option(
        "--expiry-seconds",
        type=click.IntRange(min=1),
        default=INVOICE_EXPIRY_SECONDS,
        show_default=True,
        help="How long it can be paid.",
    )
    @click.option(
        "--hold-seconds",
        type=click.IntRange(0, ANNOUNCED_HOLD_SECONDS_MAX),
        default=0,
        show_default=True,
        help="How long the LSP is to hold the payment if you are away then; it may hold it less. "
        "At most --expiry-seconds.",
    )
    @_label_option
    @click.option(
        "--external-id",
        metavar="ID",
        type=Id(),
        help="What you know it by, for no other invoice: asked for again with the same id, the "
        "same invoice is given. It does not leave this machine.",
    )
    @invocation_options
    @click.pass_obj
    def invoice(
        invocation: Invocation,
        /,
        *,
        amount: int,
        description: str,
        expiry_seconds: int,
        hold_seconds: int,
        label: str,
        external_id: str | None,
    ) -> None:
        """Ask for AMOUNT sat: make an invoice for whoever is to pay.

        AMOUNT is in sat, as in 10,000; with the suffix msat it is in millisatoshi, with btc in
        bitcoin, as in 0.001btc. In a terminal the invoice comes with a QR code; into a pipe it goes
        alone. Where it asks for more than a channel can receive now, a warning says so.
        """
        answer = invocation.call(
            role,
            "invoice",
            amount_msat=amount,
            description=description,
            expiry_seconds=expiry_seconds,
            hold_seconds=hold_seconds,
            label=label or None,
            external_id=external_id,
        )
        show(invocation, answer, payment_lists.invoice)
        if answer["amount_msat"] > answer["receivable_msat"] and not invocation.is_json:
            receivable = msat(answer["receivable_msat"])
            told = f"WARNING: more than a channel can receive now, {receivable}: {MORE_ROOM}"
            click.echo(told, err=True)

    return invoice


def client_pay_command(role: str) -> click.Command:
    """Return the command `pay` of a client."""

    @click.command()
    @click.argument("invoice", metavar="INVOICE")
    @click.option(
        "--max-fee",
        metavar="AMOUNT",
        type=SatOrMsat(least_msat=0),
        help="The highest fee, in sat or with the suffix msat.  [default: the daemon's limits]",
    )
    @click.option(
        "--from",
        "factory_id",
        metavar="ID",
        help="Pay out of this factory.  [default: any, the one with the most first]",
    )
    @_wait_option
    @_dry_run_option
    @_label_option
    @invocation_options
    @click.pass_obj
    def pay(
        invocation: Invocation,
        /,
        *,
        invoice: str,
        max_fee: int | None,
        factory_id: str | None,
        wait_seconds: float | None,
        dry_run: bool,
        label: str,
    ) -> None:
        """Pay an invoice, and wait for the proof. Never twice: a second time it tells the outcome.

        A second time another --label or --from is refused, and a --max-fee below what it costs:
        what is paid or on its way stays as it is. A payment that failed before is tried again. One
        whose outcome nobody knows yet is neither paid nor failed: it is told how much may be lost,
        and is not tried again.
        """
        asked = {"fee_max_msat": max_fee, "factory_id": factory_id, "label": label or None}
        _pay(invocation, role, invoice, wait_seconds=wait_seconds, dry_run=dry_run, **asked)

    return pay


def lsp_pay_command(role: str) -> click.Command:
    """Return the command `pay` of an LSP."""

    @click.command()
    @click.argument("invoice", metavar="INVOICE")
    @_wait_option
    @_dry_run_option
    @_label_option
    @invocation_options
    @click.pass_obj
    def pay(
        invocation: Invocation,
        /,
        *,
        invoice: str,
        wait_seconds: float | None,
        dry_run: bool,
        label: str,
    ) -> None:
        """Pay a client's invoice out of the LSP's side of its channel. Never twice.

        A second time another --label is refused. A payment that failed before is tried again.
        """
        asked = {"label": label or None}
        _pay(invocation, role, invoice, wait_seconds=wait_seconds, dry_run=dry_run, **asked)

    return pay


_wait_option = click.option(
    "--wait-seconds",
    type=click.FloatRange(0, WAIT_SECONDS_MAX),
    help=f"How long to wait for the outcome; 0 for not at all.  [default: {WAIT_SECONDS:g}]",
)
_dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show payee, amount, fee and heights; pay nothing."
)
_label_option = click.option(
    "--label",
    metavar="TEXT",
    default="",
    help="What you call it, at most 256 bytes. It does not leave this machine.",
)


def _pay(
    invocation: Invocation,
    role: str,
    invoice: str,
    *,
    wait_seconds: float | None,
    dry_run: bool,
    **asked: object,
) -> None:
    if dry_run and wait_seconds is not None:
        raise click.UsageError("--wait-seconds: with --dry-run there is no outcome to wait for")
    wait = WAIT_SECONDS if wait_seconds is None else wait_seconds
    answer = invocation.call(
        role, "pay", invoice=invoice, wait_seconds=wait, dry_run=dry_run, **asked
    )
    show(invocation, answer, payment_lists.payment)
    if answer["status"] == "failed":
        remedies = _LSP_REMEDIES if role == "lsp" else _CLIENT_REMEDIES
        raise CommandFailed(
            "payment_failed",
            f"not paid: {answer['failure']}",
            retryable=answer["retryable"],
            remediation=remedies.get(answer["failure"], "Nothing was paid; try again later."),
        )
    if answer["status"] == "unknown":
        raise CommandFailed(
            "payment_unknown",
            f"unknown whether it was paid, and nothing will tell: {msat(answer['may_lose_msat'])} "
            f"may be lost: {answer['obstacle']}",
            retryable=False,
            remediation="Ask the payee. It is not paid again.",
        )
    if answer["status"] == "pending" and wait > 0 and not dry_run:
        what = f"after {wait:g} s, {msat(answer['total_msat'])} are still on their way"
        if answer["may_lose_msat"]:
            what = f"unknown whether it was paid: up to {msat(answer['may_lose_msat'])} may be lost"
        raise CommandFailed(
            "payment_pending",
            what if answer["obstacle"] is None else f"{what}; {answer['obstacle']}",
            retryable=True,
            remediation="It may still be paid. `pay` with the same invoice waits on, and never "
            "pays twice.",
        )


def payments_group(role: str, printer: Printer) -> click.Group:
    """Return the command `payments` of a role, and what is below it."""
    what = {
        "lsp": "List what was paid, and the newest of what was forwarded and what that earned; the "
        "newest first.",
        "client": "List what was paid, and the invoices, newest first.",
    }

    @click.group(name="payments", invoke_without_command=True, help=what[role])
    @page_options("payments")
    @_status_option(*_STATUSES[role])
    @_direction_option(role)
    @_label_filter
    @invocation_options
    @click.pass_context
    def payments(ctx: click.Context, /, **wanted: Any) -> None:  # noqa: ANN401 - of many options
        refuse_before_another(ctx)
        if ctx.invoked_subcommand is None:
            show_list(
                ctx.obj,
                role,
                "payments",
                field="payments",
                printer=printer,
                columns=csv_lists.PAYMENTS,
                wanted=wanted,
            )

    payments.add_command(
        show_command(role, "payment_show", payment_lists.found_payments, "payment")
    )
    return payments


def refuse_before_another(ctx: click.Context) -> None:
    """Refuse the options of a list before a command that is below it, and lists nothing.

    Raises:
        click.UsageError: Naming the first.
    """
    if ctx.invoked_subcommand is None:
        return
    for param in ctx.command.params:
        is_of_list = isinstance(param, click.Option) and param.expose_value
        if is_of_list and ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{param.opts[0]}: `{ctx.invoked_subcommand}` has no use for it", ctx=ctx
            )


def show_list(
    invocation: Invocation,
    role: str,
    method: str,
    *,
    field: str,
    printer: Printer,
    columns: Sequence[csv_lists.Column],
    wanted: Mapping[str, Any],
) -> None:
    """Write a list to stdout, as JSON, for people, or as comma-separated values.

    Args:
        invocation: The run of the command.
        role: Whose list.
        method: What the daemon is asked.
        field: Under which name it answers with the entries.
        printer: Prints the answer.
        columns: Of the comma-separated values.
        wanted: The options of the command.
    """
    answer = listed(invocation, role, method, field=field, **wanted)
    if wanted["is_csv"]:
        # As bytes: a terminal's own line ends would be added to the standard's.
        click.echo(csv_lists.csv_of(columns, answer[field]).encode(), nl=False)
    else:
        show(invocation, answer, printer)


def show_command(role: str, method: str, printer: Printer, what: str) -> click.Command:
    """Return a command `show` that looks something up by its payment hash; `what` is its noun."""

    @click.command(name="show", help=f"Show what is known of the {what} with this payment hash.")
    @click.argument("payment_hash", metavar="HASH")
    @invocation_options
    @click.pass_obj
    def shown(invocation: Invocation, /, *, payment_hash: str) -> None:
        show(invocation, invocation.call(role, method, payment_hash=payment_hash), printer)

    return shown


def _status_option(*statuses: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--status", type=click.Choice(statuses), help="Only what stands so.", default=None
    )


def _direction_option(role: str) -> Callable[[_Command], _Command]:
    if role == "lsp":
        return lambda command: command  # It pays, and nobody pays it but with what it forwards.
    return click.option(
        "--direction",
        type=click.Choice(("out", "in", "move")),
        help="Only what was paid, what was asked for, or what moved between own channels.",
    )


_label_filter = click.option(
    "--label", metavar="TEXT", default="", help="Only what has this in its label."
)


def invoices_list(role: str) -> click.Group:
    """Return the command `invoices` of a role, without what is below it."""

    @click.group(name="invoices", invoke_without_command=True)
    @page_options("invoices")
    @_status_option("open", "paid", "expired")
    @_label_filter
    @click.option(
        "--external-id", metavar="ID", type=Id(), help="Only the one that has this external id."
    )
    @invocation_options
    @click.pass_context
    def invoices(ctx: click.Context, /, **wanted: Any) -> None:  # noqa: ANN401 - of many options
        """List the invoices that were made here, newest first, and what became of them."""
        refuse_before_another(ctx)
        if ctx.invoked_subcommand is None:
            show_list(
                ctx.obj,
                role,
                "invoices",
                field="payments",
                printer=payment_lists.payments,
                columns=csv_lists.PAYMENTS,
                wanted=wanted,
            )

    return invoices


def forwards_group(role: str) -> click.Group:
    """Return the command `forwards` of an LSP, and what is below it."""

    @click.group(name="forwards", invoke_without_command=True)
    @page_options("forwards")
    @_status_option("paid", "failed", "unsettled")
    @invocation_options
    @click.pass_context
    def forwards(ctx: click.Context, /, **wanted: Any) -> None:  # noqa: ANN401 - of many options
        """List what went through, by factory, the newest factory and its newest first.

        What is still on its way, or held, comes before that; of what came to its end the newest
        10,000 of each factory are kept. What was paid on, and ended on chain before it was taken
        from its payer, is unsettled. With --csv only what came to its end is written.
        """
        refuse_before_another(ctx)
        if ctx.invoked_subcommand is None:
            show_list(
                ctx.obj,
                role,
                "forwards",
                field="forwards",
                printer=payment_lists.forwards,
                columns=csv_lists.FORWARDS,
                wanted=wanted,
            )

    forwards.add_command(
        show_command(role, "forward_show", payment_lists.found_forwards, "forward")
    )
    return forwards


def balance_command(role: str) -> click.Command:
    """Return the command `balance` of a client."""

    @click.command()
    @invocation_options
    @click.pass_obj
    def balance(invocation: Invocation) -> None:
        """Show what each channel holds, can send and receive, and what an exit would leave.

        Nothing can be sent or received where no payment may begin now; the status says why: offline
        (until the LSP is back), stale (until our chain is fresh again, see `status`), unmarkable
        (until the mark's place answers again), pending (the funding is not deep enough), exiting,
        closing (a close that everybody signed waits for its block), ending (past the exit
        deadline), moved out, behind (state was lost here), marked (the store was restored from a
        backup: it can only be closed), failed, displaced (another candidate of the fee ladder
        confirmed) and dead (something else took the place of the funding): unless the chain turns
        back, nothing is in these two. A channel that is on chain is not listed: `exit plan` and the
        wallet tell about it; nor is one that is gone with its factory, was closed, or whose
        funding lost its place six blocks ago.
        """
        show(invocation, invocation.call(role, "balance"), payment_lists.balance)

    return balance


def balances_command(role: str) -> click.Command:
    """Return the command `balances` of an LSP."""

    @click.command()
    @invocation_options
    @click.pass_obj
    def balances(invocation: Invocation) -> None:
        """Show the money in the channel with each client."""
        show(invocation, invocation.call(role, "balances"), payment_lists.balances)

    return balances
