"""Inbound liquidity for real: daemons sell and buy over sockets, and their operators read of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli import market_answers
from tests.daemon.test_answers import fields_of, fields_of_the_table
from tests.daemon.town import CAPACITY_SAT, LSP_POLICY, Town, town

from cromford.daemon.api.failures import ApiFailure

MONEY_MSAT = 50_000_000
SELLING = replace(LSP_POLICY, states_per_layer=3)
Scenario = Callable[[Town, str], Awaitable[None]]


@asynccontextmanager
async def market(base: Path) -> AsyncIterator[tuple[Town, str]]:
    """Yield a town in which alice has money and a leaf with bob, and the factory's id."""
    async with town(base, lsp_policy=SELLING) as t:
        factory_id = await t.build("alice", "bob")
        await t.until(
            "alice", "factories", lambda a: a["factories"][-1]["channel_status"] == "open"
        )
        invoice = (await t.call("alice", "invoice", amount_msat=MONEY_MSAT))["invoice"]
        assert (await t.call("lsp", "pay", invoice=invoice))["status"] == "paid"
        await t.until("alice", "balance", lambda b: b["total"]["spendable_msat"] == MONEY_MSAT)
        yield t, factory_id


def in_market(base: Path, scenario: Scenario) -> None:
    async def main() -> None:
        async with market(base) as (t, factory_id):
            await scenario(t, factory_id)

    asyncio.run(main())


async def refusal(t: Town, name: str, method: str, **params: object) -> ApiFailure:
    with pytest.raises(ApiFailure) as caught:
        await t.call(name, method, **params)
    return caught.value


async def own(t: Town, name: str) -> dict[str, Any]:
    (channel,) = (await t.call(name, "balance"))["channels"]
    return dict(channel)


async def buy(t: Town, name: str, **asked: Any) -> dict[str, Any]:
    """Let a client buy at whatever price, and return what became of it."""
    quote = await t.call(name, "liquidity_quote", **asked)
    bought: dict[str, Any] = await t.call(
        name,
        "liquidity_buy",
        factory_id=quote["factory_id"],
        quote_id=quote["quote_id"],
        price_max_msat=quote["price_msat"],
        wait_seconds=30,
    )
    return bought


@pytest.mark.sampled(0)
def test_a_client_buys_over_a_socket_and_everybody_reads_of_it(tmp_path: Path) -> None:
    async def scenario(t: Town, factory_id: str) -> None:
        await t.call("lsp", "set_price", base_msat=7_000, per_million=10_000, per_month=0)
        before = await own(t, "alice")
        assert before["liquidity"]["sales_left"] == 2
        quote = await t.call("alice", "liquidity_quote", amount_sat=40_000)
        assert (quote["price_msat"], quote["capacity_before_sat"]) == (407_000, CAPACITY_SAT)
        bought = await buy(t, "alice", amount_sat=40_000)
        receipt = bought["receipt"]
        assert (bought["status"], bought["factory_id"]) == ("bought", factory_id)
        assert (receipt["amount_sat"], receipt["price_msat"]) == (40_000, 407_000)
        assert receipt["payment_hash"] is None  # It paid out of its balance.

        after = await own(t, "alice")
        assert after["capacity_sat"] == receipt["capacity_sat"] == CAPACITY_SAT + 40_000
        assert after["own_msat"] == before["own_msat"] - 407_000
        assert after["receivable_msat"] > before["receivable_msat"] + 35_000_000
        assert after["liquidity"]["covered_sat"] > MONEY_MSAT // 1_000
        assert (after["liquidity"]["state_index"], after["liquidity"]["sales_left"]) == (1, 1)
        assert (after["liquidity"]["advance"], after["liquidity"]["buying"]) == (None, None)
        listed = (await t.call("alice", "factories"))["factories"][-1]
        assert listed["bought"] == [receipt]

        ledger = await t.call("lsp", "ledger")
        (sale,) = ledger["sales"]
        assert (sale["amount_sat"], sale["price_msat"], sale["factory_id"]) == (
            40_000,
            407_000,
            factory_id,
        )
        assert sale["payment_hash"] is None
        assert sale["node_id"] == (await t.call("alice", "status"))["node_id"]
        capital = (await t.call("lsp", "status"))["capital"]
        for sums in (ledger, capital):
            assert (sums["n_sold"], sums["sold_sat"], sums["sold_for_msat"]) == (1, 40_000, 407_000)
        shown = await t.call("lsp", "factory_show", factory_id=factory_id)
        (leaf,) = shown["leaves"]
        assert (leaf["state_index"], leaf["sales_left"]) == (1, 1)
        assert leaf["lstock_sat"] == before["liquidity"]["lstock_sat"] - 40_000
        assert shown["advances"] == []
        told = {event["event"]: event for event in await t.told("lsp")}
        assert told["liquidity_sold"]["price_msat"] == 407_000
        assert told["price_set"]["per_million"] == 10_000
        assert (await t.told("alice"))[-1]["event"] == "purchase_ended"

        # What the command line is tested with is what daemons answer.
        for real, table in (
            (await t.call("lsp", "price"), market_answers.PRICE),
            (ledger, market_answers.LEDGER),
            (quote, market_answers.QUOTE),
            (bought, market_answers.BOUGHT),
        ):
            assert set(fields_of(real)) == fields_of_the_table(table)

    in_market(tmp_path, scenario)


@pytest.mark.sampled(0)
def test_a_price_outlives_the_lsp_and_a_payment_uses_what_was_bought(tmp_path: Path) -> None:
    async def scenario(t: Town, _factory_id: str) -> None:
        set_now = await t.call("lsp", "set_price", per_month=0, min_sat=1_000)
        await t.stop("lsp")
        await t.start_lsp()
        assert await t.call("lsp", "price") == set_now
        assert (await t.call("lsp", "status"))["price"] == set_now
        for name in ("alice", "bob"):  # The LSP listens at another port now.
            await t.stop(name)
            await t.start_client(name)
            await t.until(
                name, "factories", lambda a: a["factories"][-1]["channel_status"] == "open"
            )
        full = await own(t, "alice")
        await buy(t, "alice", amount_sat=50_000)
        amount_msat = full["receivable_msat"] + 30_000_000
        invoice = (await t.call("alice", "invoice", amount_msat=amount_msat))["invoice"]
        assert (await t.call("lsp", "pay", invoice=invoice))["status"] == "paid"

    in_market(tmp_path, scenario)


@pytest.mark.sampled(0)
def test_refusals_come_by_code_with_what_to_do(tmp_path: Path) -> None:
    async def scenario(t: Town, factory_id: str) -> None:
        poor = await refusal(t, "bob", "liquidity_quote", amount_sat=40_000)
        assert (poor.code, poor.retryable) == ("insufficient_balance", True)
        assert "sat are missing" in poor.message
        assert "--from-payment" in poor.remediation
        small = await refusal(t, "alice", "liquidity_quote", amount_sat=10)
        assert small.code == "amount_too_small"
        odd = await refusal(t, "alice", "liquidity_quote", amount_sat=0)
        assert (odd.code, odd.message) == (
            "invalid_param",
            "amount_sat: expected at least 1, received 0",
        )
        for field, value in (("payment_hash", "abc"), ("factory_id", "00112233")):
            wrong = await refusal(t, "alice", "liquidity_quote", **{field: value})
            assert wrong.code in {"invalid_param", "factory_not_found"}

        quote = await t.call("alice", "liquidity_quote")
        by_it = {"factory_id": factory_id, "quote_id": quote["quote_id"]}
        dear = await refusal(t, "alice", "liquidity_buy", **by_it, price_max_msat=1)
        assert (dear.code, "--max-price-msat" in dear.remediation) == ("price_too_high", True)
        await t.stop("bob")
        await t.until("lsp", "status", lambda status: status["n_connected"] == 1)
        away = await t.call("alice", "liquidity_quote", amount_sat=40_000)
        assert [one["is_online"] for one in away["needed"]].count(False) == 1
        alone = await refusal(
            t,
            "alice",
            "liquidity_buy",
            factory_id=factory_id,
            quote_id=away["quote_id"],
            price_max_msat=away["price_msat"],
            wait_seconds=10,
        )
        assert (alone.code, alone.retryable) == ("client_away", True)
        assert alone.message.startswith("nothing was bought: ")
        await t.call("lsp", "set_price", is_for_sale=False)
        assert (await refusal(t, "alice", "liquidity_quote")).code == "not_for_sale"
        bad = await refusal(t, "lsp", "set_price", per_million=-1)
        assert (bad.code, bad.message) == (
            "invalid_param",
            "per_million: expected 0..1000000, received -1",
        )

    in_market(tmp_path, scenario)
