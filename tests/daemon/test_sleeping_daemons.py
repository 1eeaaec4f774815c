"""A factory whose clients are all gone leaves an LSP's memory, and nobody who asks can tell."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.test_durable_daemons import pay
from tests.daemon.town import Town, town

from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.lspd import LspDaemon

AMOUNT_MSAT = 5_000_000
FIRST_MSAT = 50_000_000


def lsp_of(t: Town) -> LspDaemon:
    daemon, _ = t.running["lsp"]
    assert isinstance(daemon, LspDaemon)
    return daemon


def sleeping(t: Town) -> set[int]:
    return set(lsp_of(t).state.asleep)


async def until_asleep(t: Town, *numbers: int) -> None:
    """Let everybody be gone, and mine until these factories sleep."""
    await t.until("lsp", "status", lambda status: status["n_connected"] == 0)
    async with asyncio.timeout(30):
        while sleeping(t) != set(numbers):
            await t.mine(1)
            await asyncio.sleep(0.05)


async def open_again(t: Town, *names: str) -> None:
    for name in names:
        await t.start_client(name)
    for name in names:
        await t.until(name, "factory", lambda a: a["channel_status"] == "open")


async def said(t: Town) -> dict[str, Any]:
    """Return what an operator reads, but for what is of this moment: heights, fees and places.

    And for what is counted since the start of a process.
    """
    factories = (await t.call("lsp", "factories"))["factories"]
    status = await t.call("lsp", "status")
    balances = await t.call("lsp", "balances")
    of_today = (
        "confirmations",
        "blocks_to_expiry",
        "blocks_to_exit_deadline",
        "blocks_to_next_period",
    )
    samples = [
        (name, labels, value)
        for name, labels, value in lsp_of(t).samples()
        if name.startswith(("payments", "forwards", "factories", "channels_msat", "earned"))
        and not name.endswith("_total")
    ]
    return {
        **{
            name: [{key: one[key] for key in one if key not in of_today} for one in lines]
            for name, lines in (("factories", factories), ("channels", balances["channels"]))
        },
        "total": balances["total"],
        "earned": status["capital"]["earned_msat"],
        "locked": status["capital"]["locked_sat"],
        "n_factories": status["n_factories"],
        "stopped": status["stopped"],
        "samples": sorted(samples, key=repr),
    }


@pytest.mark.sampled(0)
def test_a_factory_whose_clients_are_gone_sleeps_and_everybody_is_told_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with town(tmp_path) as t:
            factory_id = await t.build("alice", "bob")
            for name in ("alice", "bob"):
                await t.until(name, "factory", lambda a: a["channel_status"] == "open")
            await pay(t, "lsp", "alice", FIRST_MSAT)
            await pay(t, "alice", "bob", AMOUNT_MSAT)
            for name in ("alice", "bob"):
                await t.stop(name)
            await t.until("lsp", "status", lambda status: status["n_connected"] == 0)
            before, payments = await said(t), await t.call("lsp", "payments")
            await until_asleep(t, 0)
            assert await said(t) == before
            assert sleeping(t) == {0}, "nobody has to wake it to say so"
            (line,) = (await t.call("lsp", "factories"))["factories"]
            height = (await t.call("lsp", "status"))["height"]
            assert line["blocks_to_expiry"] == line["expiry_height"] - height
            assert await t.call("lsp", "payments") == payments
            await until_asleep(t, 0)
            shown = await t.call("lsp", "factory_show", factory_id=factory_id)
            assert {key: shown[key] for key in line} == line | {
                key: shown[key]
                for key in ("confirmations", "blocks_to_expiry", "blocks_to_next_period")
            }
            assert sleeping(t) == set(), "who shows it wakes it"

            await until_asleep(t, 0)
            await t.stop("lsp")
            await t.start_lsp()
            assert sleeping(t) == {0}, "and it sleeps through a restart"
            assert await said(t) == before

            await open_again(t, "alice", "bob")
            assert sleeping(t) == set()
            await pay(t, "bob", "alice", AMOUNT_MSAT // 2)
            await pay(t, "lsp", "bob", AMOUNT_MSAT)
            forwards = (await t.call("lsp", "payments"))["forwards"]
            assert [one["status"] for one in forwards] == ["paid", "paid"]

    asyncio.run(scenario())
    logged = [record.getMessage() for record in caplog.records]
    assert "stream_asleep stream=factory:0" in logged
    assert not [line for line in logged if "checkpoint_failed" in line or "stream_stopped" in line]


@pytest.mark.sampled(0)
def test_what_went_through_a_factory_is_told_while_it_sleeps(tmp_path: Path) -> None:
    """None of the LSP's own payments was in it, so nothing else wakes it."""

    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.build("alice", "bob")
            for name in ("alice", "bob"):
                await t.until(name, "factory", lambda a: a["channel_status"] == "open")
            await pay(t, "lsp", "alice", FIRST_MSAT)
            await pay(t, "alice", "bob", 4 * AMOUNT_MSAT)
            await t.build("carol")
            await t.until("carol", "factory", lambda a: a["channel_status"] == "open")
            for _ in range(2):
                await pay(t, "bob", "carol", AMOUNT_MSAT)
            payments = await t.call("lsp", "payments", limit=2)
            assert len(payments["forwards"]) == 2
            await pay(t, "carol", "bob", AMOUNT_MSAT)
            for name in ("alice", "bob", "carol"):
                await t.stop(name)
            await t.until("lsp", "status", lambda status: status["n_connected"] == 0)
            payments = await t.call("lsp", "payments")
            assert [one["status"] for one in payments["forwards"]] == ["paid"] * 4
            await until_asleep(t, 0, 1)
            assert await t.call("lsp", "payments") == payments
            assert sleeping(t) == set()

    asyncio.run(scenario())


def test_a_factory_that_sleeps_is_found_by_the_first_digits_of_its_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            ids = [await t.build("alice"), await t.build("bob")]
            for name in ("alice", "bob"):
                await t.until(name, "factory", lambda a: a["channel_status"] == "open")
                await t.stop(name)
            await until_asleep(t, 0, 1)
            driver = lsp_of(t).driver
            for stream in ("house", "chain"):
                driver.keep(driver.begin_checkpoint(stream)())
            for factory_id in ids:
                for digits in (factory_id, factory_id[:9], factory_id[:8].upper()):
                    shown = await t.call("lsp", "factory_show", factory_id=digits)
                    assert shown["factory_id"] == factory_id
            for digits in (ids[0][:3], "no factory", "f" * 64, ids[0] + "00"):
                with pytest.raises(ApiFailure, match="no factory begins with"):
                    await t.call("lsp", "factory_show", factory_id=digits)

    asyncio.run(scenario())


@pytest.mark.sampled(0)
def test_a_payment_that_waited_for_a_client_goes_on_when_its_factory_wakes(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            for name in ("alice", "bob"):
                await t.build(name)
                await t.until(name, "factory", lambda a: a["channel_status"] == "open")
            await pay(t, "lsp", "alice", FIRST_MSAT)
            asked = await t.call("bob", "invoice", amount_msat=AMOUNT_MSAT)
            await t.stop("bob")
            async with asyncio.timeout(30):
                while sleeping(t) != {1}:
                    await t.mine(1)
                    await asyncio.sleep(0.05)
            begun = await t.call("alice", "pay", invoice=asked["invoice"], wait_seconds=0)
            assert begun["status"] == "pending"
            await t.mine(1)
            (held,) = (await t.call("lsp", "payments"))["forwards"]
            assert (held["status"], held["waits_for"]) == ("held", "the payee is away")
            assert sleeping(t) == {1}
            await t.start_client("bob")
            await t.until("alice", "payments", lambda a: a["payments"][0]["status"] == "paid")
            assert sleeping(t) == set()
            total = (await t.call("bob", "balance"))["total"]
            assert total["own_msat"] == AMOUNT_MSAT

    asyncio.run(scenario())
