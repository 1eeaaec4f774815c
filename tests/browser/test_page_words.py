"""The page's words and numbers are the command line's, for whatever a daemon may answer."""

import asyncio
import io
import random
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import pytest
from rich.console import Console
from tests.browser.chromium import browser, needs_browser
from tests.browser.told_pages import CLIENT_LINES, LSP_LINES, ORIGIN, served_file
from tests.cli import answers, market_answers
from tests.cli.test_dying import STEPS, client_line
from tests.simulation.seeds import draw_start

from cromford import told
from cromford.answers.channels import ChannelStatus
from cromford.cli.amounts import msat_of
from cromford.cli.shown import lists, market
from cromford.cli.shown.dying import ending_text
from cromford.cli.shown.output import days, one_line

pytestmark = [needs_browser, pytest.mark.timeout(600)]

N_NUMBERS = 300
JSON_SAFE = 2**53
Document = dict[str, Any]
Call = Callable[[str, str, list[Any]], Awaitable[list[Any]]]


def printed(printer: Callable[..., None], *documents: Any) -> list[str]:
    """Return what the command line prints, in lines of words."""
    console = Console(file=io.StringIO(), width=400, markup=False, emoji=False, highlight=False)
    printer(console, *documents)
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def with_page_modules(scene: Callable[[Call], Awaitable[None]]) -> None:
    """Run a scene in a browser that has the page's modules, and no daemon."""

    async def serve(route: Any) -> None:
        if not await served_file(route):
            await route.fulfill(body="<!doctype html>", content_type="text/html")

    async def main() -> None:
        async with browser() as at:
            context = await at.chromium.new_context()
            await context.route(f"{ORIGIN}/**", serve)
            page = await context.new_page()
            await page.goto(f"{ORIGIN}/")

            async def call(module: str, function: str, asked: list[Any]) -> list[Any]:
                """Return what a function of a module makes of each."""
                script = """async ([module, name, asked]) => {
                  const made = (await import(`/page/${module}.js`))[name];
                  return asked.map((one) => made(one));
                }"""
                found: list[Any] = await page.evaluate(script, [module, function, asked])
                return found

            await scene(call)

    asyncio.run(main())


async def stages_are_told_alike(call: Call) -> None:
    for lines, function, printer in (
        (LSP_LINES, "lspStage", lists.lsp_factories),
        (CLIENT_LINES, "clientStage", lists.client_factories),
    ):
        stages = await call("words", function, lines)
        depths = await call("words", "depth", lines)
        times = [one["text"] for one in await call("words", "timeLeft", lines)]
        for line, stage, depth, time in zip(lines, stages, depths, times, strict=True):
            row = next(
                row
                for row in printed(printer, {"factories": [line]})
                if " ".join([answers.FACTORY_ID[:12], *stage.split()]) in row
            )
            assert row.endswith(f"{depth} {time}"), row


async def endings_are_told_alike(call: Call) -> None:
    dying = [client_line(status=word) for word in ("moved", "paying", "waiting", "over")]
    counted = {"n_waiting": 1, "n_elsewhere": 2, "n_clients": 4, "when_dying": STEPS}
    ended = [*LSP_LINES, *CLIENT_LINES, *dying, answers.lsp_summary(period="dying", **counted)]
    assert await call("words", "ending", ended) == [ending_text(line) for line in ended]


async def markets_are_told_alike(call: Call) -> None:
    liquidity = market_answers.LIQUIDITY
    stands = [
        {"factory_id": answers.FACTORY_ID, "status": status, "liquidity": liquidity | changes}
        for changes in (
            {},
            market_answers.BUYING,
            market_answers.BUYING | {"buying": None},
            {"covered_sat": None, "sales_left": 0},
        )
        for status in get_args(ChannelStatus)
    ]
    for stand, lines in zip(stands, await call("words", "liquidity", stands), strict=True):
        assert lines == printed(market.liquidity, [stand])
    prices = [market_answers.PRICE, market_answers.PRICE | {"is_for_sale": False}]
    assert await call("words", "price", prices) == [market.price_rows(one)[0][1] for one in prices]
    sums = [market_answers.SOLD, market_answers.SOLD | {"n_sold": 2}]
    assert await call("words", "sold", sums) == [market.sold_rows(one)[0][1] for one in sums]


async def amounts_are_told_alike(call: Call) -> None:
    dice = random.Random(draw_start())
    numbers = [0, 1, 999, 1_000, JSON_SAFE - 1]
    numbers += [dice.randrange(10 ** dice.randrange(1, 16)) for _ in range(N_NUMBERS)]
    assert await call("format", "sat", numbers) == [told.sat(one) for one in numbers]
    assert await call("format", "msat", numbers) == [told.msat(one) for one in numbers]
    lengths = [*range(400), *(dice.randrange(60_000) for _ in range(N_NUMBERS))]
    assert await call("format", "days", lengths) == [days(one) for one in lengths]
    typed = ["", "0", "1", "10,000", "1,00", "10000 sat", "1500msat", "0.001btc", "0.5", "1e3"]
    typed += ["0.5 sat", " 21 ", "-1", "0.00000000001 BTC", "0.000000000001btc", "\uff11", "1 000"]
    assert await call("form", "msatOf", typed) == [msat_of(one) for one in typed]


async def large_numbers_stay_exact(call: Call) -> None:
    most = 21 * 10**17  # All there will ever be, in msat: more than a Number holds.
    documents = [
        f'{{"own_msat":{most - 1}}}',
        f'{{"list":[{most - 3},1]}}',
        '{"a":"9007199254740993"}',
    ]
    parsed = await call("api", "parsed", documents)
    assert parsed == [{"own_msat": most - 1}, {"list": [most - 3, 1]}, {"a": "9007199254740993"}]


async def no_text_steers_a_line(call: Call) -> None:
    texts = ["plain, ümläut, 漢字", "a\nb\tc\x1b[31m", "\u202edrow\u2066", "\u200b\ufeff|\u2028"]
    assert await call("dom", "clean", texts) == [one_line(text) for text in texts]


def test_the_pages_words_and_numbers_are_those_of_the_command_line() -> None:
    async def scene(call: Call) -> None:
        await stages_are_told_alike(call)
        await endings_are_told_alike(call)
        await markets_are_told_alike(call)
        await amounts_are_told_alike(call)
        await large_numbers_stay_exact(call)
        await no_text_steers_a_line(call)

    with_page_modules(scene)
