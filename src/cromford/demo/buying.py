"""One client buys inbound liquidity: its channel grows, and still nothing goes on chain."""

from typing import Any, Final

from cromford.channel.terms import MSAT_PER_SAT
from cromford.daemon.api.failures import ApiFailure
from cromford.demo.accounts import Accounts, accounts_at_rest, check_on_chain
from cromford.demo.building import seconds_for
from cromford.demo.failure import DemoFailed
from cromford.demo.steps import DemoStep, Steps
from cromford.demo.world import World

BUYER: Final = 1  # The seat; whoever leaves later buys, so that it leaves with what it bought.
ANSWER_SECONDS: Final = 50.0  # Below a call's own timeout.
# What an LSP says where this factory has nothing to sell: the demo goes on without a sale.
NOTHING_TO_SELL: Final = frozenset(
    {"amount_too_small", "insufficient_balance", "no_race", "no_sales_left", "no_stock"}
)
Document = dict[str, Any]


def buy_liquidity(world: World, steps: Steps, exported: Document) -> Document | None:
    """Let one client buy half of its leaf's stock, and check who has what then.

    Returns what was bought, and the buyer's money before and after; None where nothing is sold.

    Raises:
        DemoFailed: If it is not bought, or anything does not add up.
    """
    settings, factory_id = world.site.settings, exported["factory_id"]
    with steps.step("buy", seconds=seconds_for(settings)) as step:
        seat = settings.exit_client or BUYER
        before = step.wait_for("the channels", lambda: accounts_at_rest(world, factory_id))
        quote = _quote(world, seat, factory_id)
        if isinstance(quote, str):
            step.outcome = f"skipped: {quote}"
            return None
        price_msat = quote["price_msat"]
        step.progress.note(
            f"client {seat} buys {quote['amount_sat']:,} sat to receive with, usable for "
            f"{quote['usable_blocks']:,} blocks, for {price_msat:,} msat"
        )
        receipt = _buy(world, step, seat, quote)
        after = step.wait_for("the channels", lambda: accounts_at_rest(world, factory_id))
        _check_bought(before, after, seat=seat, quote=quote, receipt=receipt)
        on_chain = check_on_chain(world, exported)
        step.outcome = (
            f"client {seat} can receive {after[seat].receivable_msat:,} msat instead of "
            f"{before[seat].receivable_msat:,}; {len(quote['needed'])} clients signed the leaf's "
            "next state, and the funding is still the only transaction on chain"
        )
    return {
        "client": seat,
        "name": world.seat(seat).name,
        "amount_sat": quote["amount_sat"],
        "price_msat": price_msat,
        "usable_blocks": quote["usable_blocks"],
        "sales_left": quote["sales_left"],
        "capacity_before_sat": quote["capacity_before_sat"],
        "capacity_sat": receipt["capacity_sat"],
        "before": before[seat].as_document(),
        "after": after[seat].as_document(),
        "on_chain": on_chain,
    }


def _quote(world: World, seat: int, factory_id: str) -> Document | str:
    """Return the LSP's quote for half of the leaf's stock, or why there is none to be had."""
    buyer = world.seat(seat)
    listed = buyer.call("balance")["channels"]
    stands = next(one["liquidity"] for one in listed if one["factory_id"] == factory_id)
    amount_sat = stands["lstock_sat"] // 2
    try:
        quote: Document = buyer.call(
            "liquidity_quote", factory_id=factory_id, amount_sat=max(1, amount_sat)
        )
    except ApiFailure as failure:
        if failure.code in NOTHING_TO_SELL:
            return failure.message
        raise
    return quote


def _buy(world: World, step: DemoStep, seat: int, quote: Document) -> Document:
    """Buy, wait until it is there, and return the receipt."""
    buyer = world.seat(seat)
    bought = buyer.call(
        "liquidity_buy",
        factory_id=quote["factory_id"],
        quote_id=quote["quote_id"],
        price_max_msat=quote["price_msat"],
        beyond_coverage=True,  # A demo's coins are nobody's; any shape of a factory shall sell.
        wait_seconds=ANSWER_SECONDS,
    )

    def receipt() -> Document | None:
        factory = buyer.newest_factory() or {}
        return factory["bought"][-1] if factory.get("bought") else None

    if bought["status"] == "bought":
        found: Document = bought["receipt"]
        return found
    return step.wait_for("the receipt", receipt)


def _check_bought(
    before: Accounts, after: Accounts, *, seat: int, quote: Document, receipt: Document
) -> None:
    """Compare every account with what was bought, to the millisatoshi.

    Raises:
        DemoFailed: Naming the first number that is not what it should be.
    """
    price_msat = quote["price_msat"]
    grown_msat = MSAT_PER_SAT * (quote["capacity_sat"] - quote["capacity_before_sat"])
    for client, account in before.items():
        paid_msat, bought_msat = (price_msat, grown_msat) if client == seat else (0, 0)
        _check(f"client {client}'s balance", account.own_msat - paid_msat, after[client].own_msat)
        lsp_msat = account.lsp_msat + bought_msat + paid_msat
        _check(f"the LSP's side of client {client}'s channel", lsp_msat, after[client].lsp_msat)
    _check("the receipt's price", price_msat, receipt["price_msat"])
    _check("the receipt's capacity", quote["capacity_sat"], receipt["capacity_sat"])


def _check(what: str, expected: int, received: int) -> None:
    if expected != received:
        raise DemoFailed("sale_wrong", f"{what}: expected {expected:,}, received {received:,}")
