"""A history that one can book: times, names, look-ups and pages, asked of real daemons."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.town import Town, town

from cromford.daemon.api.failures import ApiFailure

pytestmark = pytest.mark.sampled_file(1)

AMOUNT_MSAT = 1_000_000
ORDER: dict[str, Any] = {
    "amount_msat": AMOUNT_MSAT,
    "description": "two coffees",
    "label": "Table 7",
    "external_id": "order-12",
}


async def refused(t: Town, name: str, method: str, **params: object) -> tuple[str, str]:
    with pytest.raises(ApiFailure) as caught:
        await t.call(name, method, **params)
    return caught.value.code, caught.value.message


async def pages(t: Town, name: str, method: str, field: str, **asked: object) -> list[Any]:
    """Return a list, page by page."""
    found: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = await t.call(name, method, after=after, **asked)
        found += page[field]
        after = page["next"]
    return found


async def opened(t: Town) -> None:
    await t.build("alice", "bob")
    for name in ("alice", "bob"):
        await t.until(name, "factory", lambda a: a["channel_status"] == "open")


async def pay(t: Town, payer: str, payee: str, amount_msat: int, **named: object) -> str:
    asked = await t.call(payee, "invoice", amount_msat=amount_msat)
    paid = await t.call(payer, "pay", invoice=asked["invoice"], **named)
    assert paid["status"] == "paid"
    payment_hash: str = paid["payment_hash"]
    return payment_hash


def test_a_shop_finds_every_payment_by_its_own_names_and_by_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            begun = int(time.time())
            await opened(t)
            first = await pay(t, "lsp", "alice", 50 * AMOUNT_MSAT, label="a start")
            invoice = await t.call("bob", "invoice", **ORDER)
            assert invoice["created_at"] >= begun
            assert (invoice["label"], invoice["external_id"]) == ("Table 7", "order-12")
            again = await t.call("bob", "invoice", **ORDER)
            assert again == invoice, "the same, not another"
            code, message = await refused(t, "bob", "invoice", **ORDER | {"amount_msat": 5})
            assert code == "external_id_taken"
            assert message.endswith("amount_msat: expected 1000000, received 5")
            for field, size_max in (("label", 256), ("external_id", 128)):
                told = await refused(t, "bob", "invoice", **ORDER | {field: "é" * size_max})
                expected = f"expected at most {size_max} bytes of UTF-8"
                assert told == (
                    "invalid_param",
                    f"{field}: {expected}, received {2 * size_max} bytes",
                )

            paid = await t.call("alice", "pay", invoice=invoice["invoice"], label="breakfast")
            assert begun <= paid["created_at"] <= paid["settled_at"] <= time.time()
            assert paid["label"] == "breakfast"
            others = [await pay(t, "alice", "bob", AMOUNT_MSAT) for _ in range(3)]
            (found,) = await pages(t, "bob", "invoices", "payments", external_id="order-12")
            assert (found["status"], found["payment_hash"]) == ("paid", invoice["payment_hash"])
            assert found["settled_at"] >= paid["created_at"]
            assert await pages(t, "bob", "invoices", "payments", label="table") == [found]
            (told,) = [
                event
                for event in (await t.call("bob", "events", only=["invoice_paid"]))["events"]
                if event["payment_hash"] == invoice["payment_hash"]
            ]
            assert (told["label"], told["external_id"]) == ("Table 7", "order-12")
            assert told["at"] == found["settled_at"]

            listed = await pages(t, "alice", "payments", "payments", limit=2)
            hashes = [one["payment_hash"] for one in listed]
            assert hashes == [*reversed(others), paid["payment_hash"], first]
            assert listed == await pages(t, "alice", "payments", "payments")
            since = listed[0]["created_at"]
            newest = await pages(t, "alice", "payments", "payments", limit=1, since=since)
            assert newest == [one for one in listed if one["created_at"] >= since]
            assert await pages(t, "alice", "payments", "payments", until=begun) == []
            (asked,) = await pages(t, "alice", "payments", "payments", direction="in")
            assert asked["payment_hash"] == first

            # Whoever pays while the list is gone through neither moves nor repeats an entry.
            page = await t.call("alice", "payments", limit=2)
            await pay(t, "alice", "bob", AMOUNT_MSAT)
            after = await t.call("alice", "payments", limit=9, after=page["next"])
            both = [one["payment_hash"] for one in page["payments"] + after["payments"]]
            assert (both, after["next"]) == (hashes, None)

    asyncio.run(scenario())


def test_an_operator_finds_what_it_paid_and_forwarded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            await opened(t)
            first = await pay(t, "lsp", "alice", 50 * AMOUNT_MSAT, label="a start")
            hashes = [await pay(t, "alice", "bob", AMOUNT_MSAT) for _ in range(3)]
            await t.until("lsp", "payments", lambda a: a["n_forwards"] == len(hashes))
            await t.until("lsp", "forwards", lambda a: len(a["forwards"]) == len(hashes))
            through = await pages(t, "lsp", "forwards", "forwards", limit=1)
            assert [one["payment_hash"] for one in through] == [*reversed(hashes)]
            assert all(one["settled_at"] >= one["created_at"] > 0 for one in through)
            found = await t.call("lsp", "forward_show", payment_hash=hashes[0])
            assert found["forwards"] == through[-1:]
            assert await pages(t, "lsp", "forwards", "forwards", status="failed") == []

            (own,) = await pages(t, "lsp", "payments", "payments", label="START")
            assert (own["payment_hash"], own["label"]) == (first, "a start")
            shown = (await t.call("lsp", "payment_show", payment_hash=first))["payments"]
            assert shown == [own]
            assert (await t.call("lsp", "ledger"))["next"] is None

            assert await refused(t, "lsp", "forward_show", payment_hash="ab" * 32) == (
                "forward_not_found",
                f"payment_hash: expected that of a forward known here, received {'ab' * 32}",
            )
            for name, method in (
                ("lsp", "payment_show"),
                ("alice", "payment_show"),
                ("alice", "invoice_show"),
            ):
                code, _ = await refused(t, name, method, payment_hash="ab" * 32)
                assert code == f"{method.partition('_')[0]}_not_found"
                code, message = await refused(t, name, method, payment_hash="ab")
                assert (code, message) == (
                    "invalid_param",
                    "payment_hash: expected 64 hex digits, received 'ab'",
                )
            cursor = (await t.call("alice", "payments", limit=1))["next"]
            for name, method, wrong in (
                ("alice", "payments", "nonsense"),
                ("lsp", "payments", cursor),
                ("lsp", "forwards", cursor),
                ("lsp", "ledger", cursor),
            ):
                code, message = await refused(t, name, method, after=wrong)
                assert code == "cursor_unknown"
                assert message.startswith("after: expected `next` of the page before, received")
            code, message = await refused(t, "alice", "payments", status="maybe")
            assert (code, message.partition(",")[0]) == (
                "invalid_param",
                "status: expected one of paid",
            )
            # A word by which nothing could ever be found is refused, and not answered with nothing.
            for name, method, param, wrong, expected in (
                ("alice", "invoices", "direction", "out", "in"),
                ("alice", "invoices", "status", "pending", "open, paid, expired"),
                ("lsp", "payments", "direction", "in", "out"),
                ("lsp", "payments", "status", "open", "paid, failed, pending, unknown"),
            ):
                code, message = await refused(t, name, method, **{param: wrong})
                assert code == "invalid_param"
                assert message == f"{param}: expected one of {expected}, received '{wrong}'"
            assert await pages(t, "lsp", "payments", "payments", direction="out")

    asyncio.run(scenario())


def test_a_status_that_nothing_of_a_direction_has_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            for direction, wrong, expected in (
                ("in", "failed", "open, paid, expired"),
                ("out", "open", "paid, failed, pending, unknown"),
                ("move", "expired", "paid, failed, pending, unknown"),
            ):
                asked = {"direction": direction, "status": wrong}
                assert await refused(t, "alice", "payments", **asked) == (
                    "invalid_param",
                    f"status: expected one of {expected}, received '{wrong}'",
                )
            assert (
                await pages(t, "alice", "payments", "payments", direction="in", status="paid") == []
            )

    asyncio.run(scenario())
