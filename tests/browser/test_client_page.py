"""A client's page: paid and paying before one's eyes, by keyboard alone, whatever peers say."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.browser.chromium import NARROW, Browser, Sight, needs_browser
from tests.browser.street import (
    cells_of,
    cli,
    facts_of,
    is_live,
    printed_cells,
    printed_facts,
    signed_in,
    silenced,
    street,
    token_of,
    url_of,
)
from tests.daemon.test_payments import ALLOWANCE_MSAT, invoice_of, with_money
from tests.daemon.town import Town

from cromford import told

pytestmark = [needs_browser, pytest.mark.timeout(1200)]

AMOUNT_MSAT = 25_000_000
FEE_MSAT = 26_000  # 1 sat and 1,000 ppm.
HOSTILE = "<img src=x onerror=alert(1)> \u202eevil\u2066 <b>bold</b> "
SHOWN = "<img src=x onerror=alert(1)> ?evil? <b>bold</b> "


async def with_keys_alone(t: Town, at: Browser, name: str) -> Sight:
    """Return the page of a client, signed in without a pointer."""
    sight = await at.open(url_of(t, name))
    await sight.page.locator("#sign-in-token").wait_for()
    await sight.check_names()
    await sight.tab_to("Token")
    await sight.page.keyboard.type(await token_of(t, name, "spend"))
    await sight.page.keyboard.press("Enter")
    await is_live(sight)
    return sight


async def asks_by_keys(sight: Sight) -> str:
    keyboard = sight.page.keyboard
    await sight.tab_to("Amount")
    await keyboard.type("half a coffee")
    await keyboard.press("Enter")
    wrong = sight.page.locator("#invoice-form-amount_msat-error")
    await wrong.filter(has_text="expected a whole number of sat").wait_for()
    assert "received 'half a coffee'" in await wrong.inner_text()
    assert await sight.page.locator("#invoice-amount").input_value() == "half a coffee"
    assert await sight.focused() == "Amount"
    await keyboard.press("Control+A")
    await keyboard.type("25,000")
    await sight.tab_to("Description")
    await keyboard.type("two coffees")
    await keyboard.press("Enter")
    await sight.page.locator("#invoice-qr svg").wait_for()
    assert await sight.focused() == "Copy the invoice"
    invoice: str = await sight.page.locator("#invoice-text").input_value()
    return invoice


async def pays_by_keys(sight: Sight, invoice: str) -> None:
    keyboard = sight.page.keyboard
    await sight.tab_to("Invoice")
    await keyboard.insert_text(invoice)
    await sight.tab_to("Show what it asks for")
    await keyboard.press("Enter")
    await sight.page.locator("#pay-yes").wait_for()
    facts = await facts_of(sight, "#pay-plan")
    assert facts["amount"] == "25,000 sat"
    assert facts["for"] == "two coffees"
    assert facts["in all"] == told.msat(AMOUNT_MSAT + FEE_MSAT)
    assert await sight.focused() == f"Pay {facts['in all']}"
    for _ in range(2):  # Whoever presses twice pays once.
        await keyboard.press("Enter")
    await sight.page.locator("#pay-status[data-status=paid]").wait_for()


async def paid_out(t: Town, name: str) -> list[Any]:
    payments = (await t.call(name, "payments"))["payments"]
    return [one for one in payments if one["direction"] == "out"]


async def pays_once(t: Town, sight: Sight, invoice: str) -> None:
    """Neither loading the page again nor showing the invoice again pays it again."""
    await sight.page.reload()
    await is_live(sight)
    await sight.page.locator("#pay-status[data-status=paid]").wait_for()
    await sight.page.locator("#pay-invoice").fill(f"lightning:{invoice}")
    await sight.page.get_by_role("button", name="Show what it asks for").click()
    await sight.page.get_by_role("heading", name="It is known here").wait_for()
    assert not await sight.page.locator("#pay-yes").is_visible()
    await sight.page.get_by_role("button", name="Do not pay").click()
    assert len(await paid_out(t, "alice")) == 1


async def is_under_way_until_it_is_paid(t: Town, sight: Sight) -> None:
    """A payee that does not answer makes no payment failed, nor does loading the page again."""
    invoice = await invoice_of(t, "bob", 1_000_000)
    n_before = len(await paid_out(t, "alice"))
    hear = silenced(t, "bob")
    await sight.page.locator("#pay-invoice").fill(invoice)
    await sight.page.get_by_role("button", name="Show what it asks for").click()
    await sight.page.locator("#pay-yes").click()
    pending = sight.page.locator("#pay-status[data-status=pending]", has_text="Under way")
    await pending.wait_for()
    await t.until("alice", "payments", lambda a: a["payments"][0]["status"] == "pending")
    await sight.page.reload()
    await is_live(sight)
    await pending.wait_for()
    hear()
    await sight.page.locator("#pay-status[data-status=paid]").wait_for()
    assert len(await paid_out(t, "alice")) == n_before + 1


async def says_what_the_command_says(t: Town, sight: Sight) -> None:
    """Nothing happens meanwhile: page and command line are asked for the same moment."""
    balance = await cli(t, "alice", "balance", "--json")
    total = json.loads(balance)["total"]
    figures = await sight.page.locator("#balance .figures dd").all_inner_texts()
    assert figures[0] == told.msat(total["spendable_msat"])
    assert figures[1] == told.msat(total["receivable_msat"])
    for section, command in (("#balance", ["balance"]), ("#history", ["payments"])):
        on_page = await cells_of(sight, section)
        printed = printed_cells(await cli(t, "alice", *command))
        assert len(printed) > 1
        for row in printed:
            assert any(set(row) <= set(shown) for shown in on_page), (row, on_page)
    facts = printed_facts(await cli(t, "alice", "exit", "plan"))
    await sight.page.locator("#exit summary").click()
    shown = await facts_of(sight, "#exit")
    both = facts.keys() & shown.keys()
    assert len(both) >= 10
    assert {name: shown[name] for name in both} == {name: facts[name] for name in both}


def test_two_pages_pay_each_other_by_keyboard_and_say_what_the_commands_say(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with street(tmp_path, "alice", "bob") as (t, at):
            await with_money(t)
            bob = await with_keys_alone(t, at, "bob")
            alice = await with_keys_alone(t, at, "alice")
            assert told.msat(ALLOWANCE_MSAT) in await alice.page.locator("#balance").inner_text()
            invoice = await asks_by_keys(bob)
            await bob.portraits("client-invoice")
            await pays_by_keys(alice, invoice)
            await bob.page.locator("#invoice-status[data-status=paid]").wait_for()
            assert await bob.page.locator("#invoice-status").inner_text() == "Paid: 25,000 sat"
            await bob.page.locator("#balance .figures", has_text="25,000 sat").wait_for()
            assert len(await paid_out(t, "alice")) == 1
            await pays_once(t, alice, invoice)
            left = told.msat(ALLOWANCE_MSAT - AMOUNT_MSAT - FEE_MSAT)
            await alice.page.locator("#balance .figures", has_text=left).wait_for()
            await says_what_the_command_says(t, alice)
            await is_under_way_until_it_is_paid(t, alice)
            for sight in (alice, bob):
                await sight.check_names()
            await alice.portraits("client")

    asyncio.run(main())


async def shows_hostile_text(t: Town, sight: Sight) -> None:
    """What a payee or an operator wrote is text, in one line, from left to right."""
    description = (HOSTILE * 20).encode()[:600].decode(errors="ignore")
    invoice = await invoice_of(t, "bob", 1_000_000, description=description)
    await sight.page.locator("#pay-invoice").fill(invoice)
    await sight.page.locator("#pay-label").fill(HOSTILE)
    await sight.page.get_by_role("button", name="Show what it asks for").click()
    await sight.page.locator("#pay-yes").click()
    await sight.page.locator("#pay-status[data-status=paid]").wait_for()
    row = sight.page.locator("#history tbody tr", has_text="paid out").first
    await row.filter(has_text=SHOWN.strip()).wait_for()
    assert await sight.page.locator("main img").count() == 0
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", await sight.page.content())
    assert await sight.is_in_its_width()


async def keeps_what_is_too_long(sight: Sight) -> None:
    """Ten kilobytes where an invoice belongs are refused in words, and stay to be corrected."""
    text = "<script>alert(1)</script>" * 400
    await sight.page.locator("#pay-invoice").fill(text)
    await sight.page.get_by_role("button", name="Show what it asks for").click()
    problem = sight.page.locator("#pay-form .problem")
    await problem.filter(has_text="invoice").wait_for()
    assert await sight.page.locator("#pay-invoice").input_value() == text
    assert await sight.page.locator("main script").count() == 0
    assert await sight.is_in_its_width()


def test_what_others_wrote_is_text_and_nothing_is_wider_than_a_telephone(tmp_path: Path) -> None:
    async def main() -> None:
        async with street(tmp_path, "alice", "bob") as (t, at):
            await with_money(t)
            sight = await signed_in(t, at, "alice", scope="spend", width=NARROW)
            sight.expected.append("status of 400")  # The invoice that is none.
            assert not await sight.page.locator("#exit-buttons").is_visible()
            assert "scope operate" in await sight.page.locator("#exit").inner_text()
            await shows_hostile_text(t, sight)
            await keeps_what_is_too_long(sight)

    asyncio.run(main())


async def leaves(t: Town, alice: Sight, lsp: Sight) -> None:
    """Begin an exit, let it rest, go on, and see it through to the wallet."""
    page = alice.page
    await page.get_by_role("button", name="Leave…").click()
    question = page.get_by_role("dialog", name="alone?")
    await question.wait_for()
    told_first = await question.inner_text()
    assert "cannot be taken back" in told_first
    assert re.search(r"It takes up to \d+ blocks, about \d+\.\d days\.", told_first)
    assert re.search(r"Today, at \S+ sat/vB, it costs [\d,]+ sat", told_first)
    await alice.portraits("client-question")
    await page.keyboard.press("Escape")
    assert (await t.call("alice", "exit_status"))["exiting"] is False
    await page.get_by_role("button", name="Leave…").click()
    await question.get_by_role("button", name="Leave").click()
    await page.locator("#exit dd", has_text="under way").wait_for()
    await page.get_by_role("button", name="Let it rest…").click()
    await page.get_by_role("button", name="Let it rest", exact=True).click()
    await page.locator("#exit dd", has_text="paused").wait_for()
    await page.get_by_role("button", name="Go on leaving…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Leave").click()
    await page.locator("#exit dd", has_text="under way").wait_for()
    await t.mine(1, mempool=1)
    await page.locator("#exit td", has_text="✓ confirmed").first.wait_for()
    await lsp.page.locator("#factories td", has_text="transaction of the tree on chain").wait_for()
    await lsp.page.locator("#factory-picture svg").wait_for()
    await alice.portraits("client-leaving")
    await lsp.portraits("lsp-being-left")
    for _ in range(40):
        await t.mine(1)
        if (await t.call("alice", "status"))["wallet"]["confirmed_sat"]:
            break
    wallet = (await t.call("alice", "status"))["wallet"]["confirmed_sat"]
    assert wallet > 0
    await page.locator("#balance .figures", has_text=told.sat(wallet)).wait_for()


def test_a_client_leaves_by_its_page_and_the_lsp_sees_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with street(tmp_path, "lsp", "alice") as (t, at):
            await with_money(t)
            lsp = await signed_in(t, at, "lsp", scope="read")
            alice = await signed_in(t, at, "alice")
            await leaves(t, alice, lsp)

    asyncio.run(main())
