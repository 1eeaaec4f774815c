"""An LSP's page: who waits, a ceremony as it goes, factories, and the numbers of the commands."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.browser.chromium import Sight, needs_browser
from tests.browser.street import (
    cells_of,
    cli,
    facts_of,
    printed_cells,
    printed_facts,
    run_cromford,
    signed_in,
    silenced,
    street,
)
from tests.daemon.test_payments import invoice_of
from tests.daemon.town import CAPACITY_SAT, LSP_POLICY, Town

from cromford import told

pytestmark = [needs_browser, pytest.mark.timeout(1200)]

PATIENT = replace(LSP_POLICY, deadline_seconds=600)


async def joins(t: Town, name: str) -> None:
    await t.start_client(name)
    await t.call(name, "join", capacity_sat=CAPACITY_SAT)
    await t.until(name, "status", lambda status: status["joined"])


async def shows_a_ceremony(t: Town, sight: Sight) -> str:
    """Who waits, each phase, and who is missing are there without anybody asking."""
    page = sight.page
    await page.locator("#lobby", has_text="Nobody waits.").wait_for()
    for n_waiting, name in enumerate(("alice", "bob"), start=1):
        await joins(t, name)
        await page.locator("#lobby dd", has_text=f"{n_waiting} waiting").wait_for()
    hear = silenced(t, "bob")
    await t.call("lsp", "build")
    now = page.locator("#ceremony [aria-current=step]")
    await now.wait_for()
    assert "signing below" in await now.inner_text()
    (factory,) = (await t.call("lsp", "factories"))["factories"]
    missing = ", ".join(f"client {client}" for client in factory["holdouts"])
    await page.locator("#ceremony dd", has_text=missing).wait_for()
    await page.locator("#ceremony-left", has_text=" s").wait_for()
    await sight.check_names()
    await sight.portraits("lsp-ceremony")
    hear()
    await t.until("lsp", "factories", lambda a: a["factories"][-1]["phase"] == "funding")
    await page.locator("#ceremony", has_text="None.").wait_for()
    await page.locator("#news", has_text="A factory was built.").wait_for(state="attached")
    await t.mine(3, mempool=1)
    for name in ("alice", "bob"):
        await t.until(name, "factories", lambda a: a["factories"][-1]["status"] == "live")
    await page.locator("#factories td", has_text="2 of 2 ready").wait_for()
    return str(factory["factory_id"])


async def shows_payments(t: Town, sight: Sight) -> None:
    await t.call("lsp", "pay", invoice=await invoice_of(t, "alice", 100_000_000))
    paid = await t.call("alice", "pay", invoice=await invoice_of(t, "bob", 5_000_000))
    assert paid["status"] == "paid"
    await sight.page.locator("#forwards td", has_text="5,000 sat").wait_for()
    earned = (await t.call("lsp", "status"))["capital"]["earned_msat"]
    await sight.page.locator("#capital .figures", has_text=told.msat(earned)).wait_for()


async def says_what_the_command_says(t: Town, sight: Sight) -> None:
    capital = json.loads(await cli(t, "lsp", "status", "--json"))["capital"]
    figures = await sight.page.locator("#capital .figures dd").all_inner_texts()
    assert figures == [
        told.sat(capital["free_sat"]),
        told.sat(capital["locked_sat"]),
        told.msat(capital["earned_msat"]),
    ]
    for section, command in (
        ("#channels", ["balances"]),
        ("#forwards", ["forwards"]),
        ("#factories", ["factories"]),
    ):
        on_page = await cells_of(sight, section)
        printed = printed_cells(await cli(t, "lsp", *command))
        assert printed
        for row in printed:
            assert any(set(row) <= set(shown) for shown in on_page), (section, row, on_page)


async def shows_a_picture(t: Town, sight: Sight, factory_id: str) -> None:
    """The picture is the one that the command writes, and the list says which is looked at."""
    picture = sight.page.locator("#factory-picture svg")
    await picture.wait_for()
    assert f"Factory {factory_id}" in await picture.locator("title").first.text_content()
    assert await sight.page.locator("#time-line svg").count() == 1
    choice = sight.page.get_by_role("button", name=factory_id[:12])
    assert await choice.get_attribute("aria-pressed") == "true"
    depth = (await t.call("lsp", "factories"))["factories"][-1]["confirmations"]
    assert f"{depth} deep" in await sight.page.locator("#factory").inner_text()


async def plans_a_factory(sight: Sight) -> None:
    """The page says what `cromford plan` says, and what is wrong stands beside its field."""
    page = sight.page
    await page.locator("#plan-clients").fill("0")
    await page.get_by_role("button", name="Plan").click()
    await page.locator("#plan-form-clients-error", has_text="clients").wait_for()
    assert await sight.focused() == "Clients"
    await page.locator("#plan-clients").fill("16")
    await page.locator("#plan-feerate").fill("10")
    await page.get_by_role("button", name="Plan").click()
    await page.locator("#plan-picture svg").wait_for()
    printed = await run_cromford("plan", "--clients", "16", "--feerate", "10")
    facts = printed_facts(printed.partition("\n\n")[0])  # Tables follow.
    shown = await facts_of(sight, "#plan")
    assert len(shown) >= 9
    assert {name: facts.get(name) for name in shown} == shown
    on_page = await cells_of(sight, "#plan")
    assert len(on_page) >= 7
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for row in on_page:
        told_here = " ".join(" ".join(row).split())
        assert told_here in lines, (told_here, lines)


def test_an_lsp_sees_a_ceremony_as_it_goes_and_what_the_commands_say(tmp_path: Path) -> None:
    async def main() -> None:
        async with street(tmp_path, "lsp", lsp_policy=PATIENT) as (t, at):
            sight = await signed_in(t, at, "lsp", scope="read")
            factory_id = await shows_a_ceremony(t, sight)
            await shows_payments(t, sight)
            await shows_a_picture(t, sight, factory_id)
            await says_what_the_command_says(t, sight)
            await sight.check_names()
            sight.expected.append("status of 400")  # The plan for nobody.
            await plans_a_factory(sight)
            await sight.portraits("lsp")

    asyncio.run(main())
