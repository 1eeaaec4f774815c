"""Inbound liquidity: `client buy-liquidity`, and the LSP's price and ledger."""

import time
from typing import Any, Final

import click

from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.cli.asking import confirm
from cromford.cli.failures import CommandFailed
from cromford.cli.invocation import Invocation, invocation_options
from cromford.cli.pages import page_options
from cromford.cli.payments import show_list
from cromford.cli.shown import csv_lists, market
from cromford.cli.shown.output import msat, sat, show
from cromford.cli.wallet import SatOrAll
from cromford.daemon.api.calling import UNANSWERED
from cromford.daemon.api.failures import ApiFailure, DaemonNotRunning
from cromford.protocol.policy import PRICE_BASE_MSAT_MAX, PRICE_MILLIONTHS_MAX

LSP: Final = "lsp"
CLIENT: Final = "client"
ALL: Final = "all"
WAIT_SECONDS: Final = 90.0  # Two steps of everybody's, each with a deadline, and one update.
PAYMENT_POLL_SECONDS: Final = 5.0  # An LSP answers 32 times between two blocks.
REFUSAL_SECONDS: Final = 2.0  # An LSP that refuses does so at once: that should not go unseen.


@click.command(name="buy-liquidity")
@click.argument("amount", metavar="AMOUNT|all", type=SatOrAll())
@click.option(
    "--factory",
    "factory_id",
    metavar="ID",
    help="For the channel in this factory.  [default: the newest]",
)
@click.option(
    "--max-price-msat",
    type=click.IntRange(min=0),
    help="Buy without asking if it costs no more, in msat.  [default: ask]",
)
@click.option(
    "--from-payment",
    "payment_hash",
    metavar="HASH",
    help="Let the payment of this invoice of yours pay for it, one that waits at the LSP for your "
    "channel to have room: it arrives that much smaller. With --wait it is waited for.",
)
@click.option(
    "--beyond-coverage",
    is_flag=True,
    help="Buy though poisons would not cover all that the channel could come to hold for you.",
)
@click.option("--wait", is_flag=True, help="Wait until it is yours, or came to nothing.")
@click.option("--dry-run", is_flag=True, help="Show the quote; buy nothing.")
@click.option("--yes", is_flag=True, help="Do not ask: buy at whatever price the quote says.")
@invocation_options
@click.pass_obj
def buy_liquidity(
    invocation: Invocation,
    /,
    *,
    amount: int | str,
    factory_id: str | None,
    max_price_msat: int | None,
    payment_hash: str | None,
    beyond_coverage: bool,
    wait: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Buy inbound liquidity: capacity to receive with, from the LSP's stock in your leaf.

    AMOUNT is in sat; `all` takes all that the stock holds. Your channel grows by so much without a
    transaction on chain: everybody in your leaf signs its next state, so everybody has to be
    online for a moment. What it costs is paid out of your balance, when the channel grows.

    Shows the LSP's quote, and asks first.
    """
    if dry_run and wait:
        raise click.UsageError("--wait: with --dry-run there is nothing to wait for")
    quote = _quote(
        invocation,
        wait=wait and payment_hash is not None,
        amount_sat=None if amount == ALL else amount,
        factory_id=factory_id,
        payment_hash=payment_hash,
    )
    _check_price(quote, max_price_msat=max_price_msat)
    if dry_run:
        show(invocation, {"quote": quote, "purchase": None}, market.purchase)
        return
    price_max_msat = max_price_msat
    if price_max_msat is None:
        price_max_msat = _agreed_price(invocation, quote, yes=yes)
    purchase = _bought(
        invocation,
        factory_id=quote["factory_id"],
        quote_id=quote["quote_id"],
        price_max_msat=price_max_msat,
        beyond_coverage=beyond_coverage,
        wait_seconds=WAIT_SECONDS if wait else REFUSAL_SECONDS,
    )
    show(invocation, {"quote": quote, "purchase": purchase}, market.purchase)
    if wait and purchase["status"] != "bought":
        raise CommandFailed(
            "purchase_under_way",
            "the purchase is neither yours nor over",
            retryable=True,
            remediation="`cromford client balance` shows how far it is.",
        )


def _bought(invocation: Invocation, **asked: object) -> dict[str, Any]:
    """Buy by a quote; where the answer is lost, ask once more by the same one, which buys once.

    Raises:
        ApiFailure: If nothing is bought.
        CommandFailed: If nobody says what became of it: another quote would be another purchase.
    """
    try:
        return dict(invocation.call(CLIENT, "liquidity_buy", **asked))
    except ApiFailure as failure:
        if failure.code not in UNANSWERED:
            raise
    try:
        return dict(invocation.call(CLIENT, "liquidity_buy", **asked))
    except ApiFailure as failure:
        if failure.code not in UNANSWERED and not isinstance(failure, DaemonNotRunning):
            raise
        raise CommandFailed(
            "purchase_unknown",
            f"it may be bought, or not: {failure.message}",
            remediation="`cromford client balance` shows it: to ask again is to buy once more.",
        ) from failure


def _quote(invocation: Invocation, *, wait: bool, **asked: object) -> dict[str, Any]:
    """Return the LSP's quote; where the payment is waited for that pays, once it is there.

    Raises:
        ApiFailure: If nothing is quoted.
    """
    give_up = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            quote: dict[str, Any] = invocation.call(CLIENT, "liquidity_quote", **asked)
        except ApiFailure as failure:
            is_late = time.monotonic() + PAYMENT_POLL_SECONDS > give_up
            if not wait or failure.code != "payment_not_here" or is_late:
                raise
            time.sleep(PAYMENT_POLL_SECONDS)
        else:
            return quote


def _check_price(quote: dict[str, Any], *, max_price_msat: int | None) -> None:
    """Check a quote against what was allowed beforehand.

    Raises:
        CommandFailed: If it costs more than that.
    """
    price_msat: int = quote["price_msat"]
    if max_price_msat is not None and price_msat > max_price_msat:
        raise CommandFailed(
            "price_too_high",
            f"it costs {msat(price_msat)}, and no more than {msat(max_price_msat)} is allowed",
            remediation="Allow more with --max-price-msat.",
        )


def _agreed_price(invocation: Invocation, quote: dict[str, Any], *, yes: bool) -> int:
    """Return the most that is paid: what was shown and agreed to.

    Raises:
        CommandFailed: If nobody can be asked.
        click.Abort: If the answer is no.
    """
    price_msat: int = quote["price_msat"]
    told = f"{sat(quote['amount_sat'])} of inbound liquidity cost {msat(price_msat)}"
    confirm(
        invocation,
        f"{told}; {market.in_short(quote)}. Buy?",
        yes=yes,
        why=f"what is bought stays bought: {told}",
        remediation="Look at it with --dry-run, then add --max-price-msat or --yes.",
    )
    return price_msat


@click.command(name="price")
@invocation_options
@click.pass_obj
def price_command(invocation: Invocation) -> None:
    """Show what inbound liquidity costs."""
    show(invocation, invocation.call(LSP, "price"), market.price)


_millionths = click.IntRange(0, PRICE_MILLIONTHS_MAX)


@click.command(name="set-price")
@click.option(
    "--base-msat", type=click.IntRange(0, PRICE_BASE_MSAT_MAX), help="For each sale, in msat."
)
@click.option("--per-million", type=_millionths, help="Of the amount, in millionths.")
@click.option(
    "--per-month",
    type=_millionths,
    help="Of the amount, in millionths, for each 30 days (4,320 blocks) in which it can be used.",
)
@click.option(
    "--min-sat",
    type=click.IntRange(1, MAX_MONEY_SAT),
    help="The least that is sold; less only where it is all that is left.",
)
@click.option("--on/--off", "is_for_sale", default=None, help="Whether anything is sold at all.")
@invocation_options
@click.pass_obj
def set_price_command(invocation: Invocation, /, **changes: int | bool | None) -> None:
    """Set what inbound liquidity costs, in every factory, from now on.

    What is not named stays. It is remembered over restarts; quotes that were given keep their
    price until they expire, within the hour. `docs/economics.md` says where the defaults come from.
    """
    if all(value is None for value in changes.values()):
        raise click.UsageError("expected at least one of the options, received none")
    show(invocation, invocation.call(LSP, "set_price", **changes), market.price)


@click.command(name="ledger")
@page_options("sales")
@invocation_options
@click.pass_obj
def ledger_command(invocation: Invocation, /, **wanted: Any) -> None:  # noqa: ANN401 - of many options
    """List what was sold of the L-stocks, newest first, and what that and forwarding earned."""
    show_list(
        invocation,
        LSP,
        "ledger",
        field="sales",
        printer=market.ledger,
        columns=csv_lists.SALES,
        wanted=wanted,
    )
