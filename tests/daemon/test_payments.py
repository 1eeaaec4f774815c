"""Payments for real: daemons pay each other over sockets, and their operators read of it."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.daemon.town import CAPACITY_SAT, LSP_POLICY, Town, town

from cromford.bitcoin.network import MAINNET, REGTEST
from cromford.daemon.api import payments as payments_api
from cromford.daemon.api.failures import ApiFailure
from cromford.invoice.bolt11 import parse_invoice, sign_invoice
from cromford.invoice.invoice import Invoice

pytestmark = pytest.mark.sampled_file(6)

OTHER_NODE_ID = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
ALLOWANCE_MSAT = 100_000_000
Document = dict[str, Any]
Run = Callable[[Callable[[Town], Awaitable[None]]], None]


@pytest.fixture
def in_town(tmp_path: Path) -> Run:
    def run(scenario: Callable[[Town], Awaitable[None]]) -> None:
        async def main() -> None:
            async with town(tmp_path) as built:
                await scenario(built)

        asyncio.run(main())

    return run


async def with_money(t: Town) -> str:
    """Build a factory of alice and bob, and let the LSP pay alice; return its id."""
    factory_id = await t.build("alice", "bob")
    paid = await t.call("lsp", "pay", invoice=await invoice_of(t, "alice", ALLOWANCE_MSAT))
    assert (paid["status"], paid["fee_msat"]) == ("paid", 0)
    await t.until("alice", "balance", lambda b: b["total"]["spendable_msat"] == ALLOWANCE_MSAT)
    # It can be spent before the LSP has signed that it is no HTLC any more.
    await t.until("alice", "balance", lambda b: b["total"]["own_msat"] == ALLOWANCE_MSAT)
    return factory_id


async def invoice_of(t: Town, name: str, amount_msat: int, **asked: object) -> str:
    await t.until(name, "factories", lambda a: a["factories"][-1]["channel_status"] == "open")
    text: str = (await t.call(name, "invoice", amount_msat=amount_msat, **asked))["invoice"]
    return text


async def refusal(t: Town, name: str, method: str, **params: object) -> ApiFailure:
    """Return why a request is refused; nothing may have been journalled for it."""
    before = await told_of_payments(t, name)
    with pytest.raises(ApiFailure) as caught:
        await t.call(name, method, **params)
    assert await told_of_payments(t, name) == before
    return caught.value


async def told_of_payments(t: Town, name: str) -> list[Document]:
    """Return what happened, besides what a channel still does about the payment before."""
    return [event for event in await t.told(name) if set(event) != {"event", "channel_id"}]


async def total(t: Town, name: str) -> Document:
    found: Document = (await t.call(name, "balance"))["total"]
    return found


def signed_by(t: Town, name: str, invoice: Invoice) -> str:
    """Return an invoice that no daemon would make, with the signature of one."""
    return sign_invoice(invoice, t.running[name][0]._signer.sign_node)


@pytest.mark.sampled(0)
def test_clients_pay_each_other_and_everybodys_lists_agree(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        factory_id = await with_money(t)
        invoice = await invoice_of(t, "bob", 40_000_500, description="a \x1b[31mboat")
        planned = await t.call("alice", "pay", invoice=invoice, dry_run=True)
        assert (await total(t, "alice"))["spendable_msat"] == ALLOWANCE_MSAT
        paid = await t.call("alice", "pay", invoice=invoice)
        fee_msat = 1000 + 40_000_500 * 1000 // 1_000_000

        assert (planned["status"], paid["status"]) == ("planned", "paid")
        same = ("payee", "amount_msat", "fee_msat", "total_msat", "description", "channel_id")
        assert [planned[key] for key in same] == [paid[key] for key in same]
        assert planned["factory_id"] == factory_id
        assert planned["htlc_expiry_height"] > planned["payee_expiry_height"]
        assert paid["fee_msat"] == fee_msat
        proof = hashlib.sha256(bytes.fromhex(paid["preimage"])).hexdigest()
        assert proof == paid["payment_hash"] == parse_invoice(invoice, REGTEST).payment_hash.hex()

        await t.until("bob", "balance", lambda b: b["total"]["spendable_msat"] == 40_000_500)
        left_msat = ALLOWANCE_MSAT - 40_000_500 - fee_msat
        settled = await t.until("alice", "balance", lambda b: b["total"]["own_msat"] == left_msat)
        assert settled["total"]["sending_msat"] == 0
        assert settled["total"]["own_msat"] + settled["total"]["peer_msat"] == CAPACITY_SAT * 1000

        (ours,) = (await t.call("bob", "payments"))["payments"]
        assert (ours["direction"], ours["status"], ours["received_msat"]) == (
            "in",
            "paid",
            40_000_500,
        )
        assert "preimage" not in ours
        listed = (await t.call("alice", "payments"))["payments"]
        assert [one["direction"] for one in listed] == ["out", "in"]
        assert (await t.call("alice", "payments", limit=1))["payments"] == listed[:1]
        through = await t.until("lsp", "payments", lambda p: p["earned_msat"] == fee_msat)
        (forward,) = through["forwards"]
        assert (forward["status"], forward["amount_msat"], forward["fee_msat"]) == (
            "paid",
            40_000_500,
            fee_msat,
        )
        bob = (await t.call("bob", "status"))["node_id"]
        assert (forward["to_node_id"], through["n_forwards"]) == (bob, 1)
        assert [one["direction"] for one in through["payments"]] == ["out"]
        capital = (await t.call("lsp", "status"))["capital"]
        assert (capital["earned_msat"], capital["earned_sat"]) == (fee_msat, fee_msat // 1000)
        balances = await t.call("lsp", "balances")
        assert {channel["status"] for channel in balances["channels"]} == {"open"}
        assert balances["total"]["peer_msat"] == left_msat + 40_000_500

    in_town(scenario)


def test_events_tell_payments_and_no_secret_of_them(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        invoice = await invoice_of(t, "bob", 5_000_000, description="private words")
        paid = await t.call("alice", "pay", invoice=invoice)
        await t.until("lsp", "payments", lambda p: p["earned_msat"] > 0)
        secret = parse_invoice(invoice, REGTEST).payment_secret.hex()
        told = {name: await t.told(name) for name in t.running}
        for events in told.values():
            text = json.dumps(events)
            for hidden in (paid["preimage"], secret, invoice, "private words", "signature"):
                assert hidden not in text

        def fields(name: str, event: str) -> Document:
            found = [one for one in told[name] if one["event"] == event]
            return {key: value for key, value in found[-1].items() if key != "event"}

        started = fields("alice", "payment_started")
        assert started["payment_hash"] == paid["payment_hash"]
        assert (started["amount_msat"], started["fee_msat"]) == (5_000_000, 6_000)
        assert fields("bob", "invoice_issued")["amount_msat"] == 5_000_000
        assert fields("bob", "invoice_paid")["payment_hash"] == paid["payment_hash"]
        assert fields("lsp", "htlc_forwarded")["fee_msat"] == 6_000
        assert fields("lsp", "fee_earned")["payment_hash"] == paid["payment_hash"]
        for event in ("update_proposed", "update_received", "commitment_held"):
            assert set(fields("alice", event)) == {"channel_id"}
        samples = list(t.running["lsp"][0].samples())
        assert ("earned_msat", {}, 6_000) in samples
        assert ("channels_open", {}, 2) in samples
        assert ("payments", {"direction": "out", "status": "paid"}, 1) in samples
        assert ("forwards", {"status": "finished"}, 1) in samples
        left_msat = ALLOWANCE_MSAT - 5_006_000
        await t.until("alice", "balance", lambda b: b["total"]["spendable_msat"] == left_msat)
        samples = list(t.running["alice"][0].samples())
        assert ("channels_msat", {"kind": "spendable"}, left_msat) in samples
        assert ("payments", {"direction": "in", "status": "paid"}, 1) in samples

    in_town(scenario)


def test_paying_again_never_pays_twice_and_tells_the_outcome(
    in_town: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        invoice = await invoice_of(t, "bob", 1_000_000)
        # Both at one moment: the second finds the first on its way.
        first, second = await asyncio.gather(
            *(t.call("alice", "pay", invoice=text) for text in (invoice, f"lightning:{invoice} "))
        )
        assert first == second
        # What is known is told even when the invoice is over.
        late = SimpleNamespace(time=lambda: parse_invoice(invoice, REGTEST).expires_at)
        monkeypatch.setattr(payments_api, "time", late)
        unpaid = await invoice_of(t, "bob", 1_000_000)
        old = replace(parse_invoice(unpaid, REGTEST), expiry_seconds=1)
        refused = await refusal(t, "alice", "pay", invoice=signed_by(t, "bob", old))
        assert refused.code == "invoice_expired", "its time has come"
        same = {"fee_max_msat": first["fee_msat"], "factory_id": first["factory_id"]}
        for asked in ({}, same, {"dry_run": True}, {"label": ""}):
            assert await t.call("alice", "pay", invoice=invoice, **asked) == first
        events = [one["event"] for one in await t.told("alice")]
        assert events.count("payment_started") == 1

    in_town(scenario)


@pytest.mark.parametrize("payer", ["alice", "lsp"])
def test_what_is_asked_of_a_payment_that_is_not_made_again_is_refused_by_name_where_it_differs(
    in_town: Run, payer: str
) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        invoice = await invoice_of(t, "bob", 1_000_000)
        paid = await t.call(payer, "pay", invoice=invoice, label="rent")
        assert paid["status"] == "paid"
        for again in ({"label": "rent"}, {}):
            assert await t.call(payer, "pay", invoice=invoice, **again) == paid
        named = replace(parse_invoice(invoice, REGTEST), amount_msat=1_500_000)
        differs: list[tuple[str, Document]] = [
            ("label", {"label": "food"}),
            ("label", {"label": "food", "dry_run": True}),
            ("invoice", {"invoice": signed_by(t, "bob", named)}),
        ]
        if payer == "alice":
            assert paid["fee_msat"] == 2_000
            differs.append(("fee_max_msat", {"fee_max_msat": 1_999}))
        for field, asked in differs:
            told = await refusal(t, payer, "pay", **{"invoice": invoice, **asked})
            assert (told.code, told.param, told.status) == ("payment_differs", field, 409)
            assert told.message.startswith(f"{field}: the payment with this hash is paid, and")
        told = await refusal(t, payer, "pay", invoice=invoice, label="food")
        assert told.message.endswith("expected 'rent', received 'food'")

    in_town(scenario)


def test_what_cannot_be_paid_is_refused_by_its_name_and_nothing_moves(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        text = await invoice_of(t, "bob", 1_000_000)
        good = parse_invoice(text, REGTEST)
        assert good.route_hint is not None
        lsp_node_id = (await t.call("lsp", "status"))["node_id"]
        assert good.route_hint.lsp_node_id.hex() == lsp_node_id
        late = replace(good, created_at=int(time.time()) - 60, expiry_seconds=60)
        foreign = replace(good, network=MAINNET)
        elsewhere = replace(good, route_hint=replace(good.route_hint, lsp_node_id=OTHER_NODE_ID))
        impatient = replace(good, min_final_cltv_expiry_delta=1)
        large = await invoice_of(t, "bob", ALLOWANCE_MSAT)
        refused: list[tuple[str, Document, str, str, int]] = [
            ("late", {"invoice": signed_by(t, "bob", late)}, "invoice_expired", "expired 0 sec", 1),
            (
                "foreign",
                {"invoice": signed_by(t, "bob", foreign)},
                "invalid_invoice",
                "network: expected regtest (lnbcrt), received mainnet (lnbc)",
                2,
            ),
            ("words", {"invoice": "a boat, please"}, "invalid_invoice", "encoding", 2),
            (
                "elsewhere",
                {"invoice": signed_by(t, "bob", elsewhere)},
                "payee_unreachable",
                OTHER_NODE_ID.hex(),
                1,
            ),
            (
                "impatient",
                {"invoice": signed_by(t, "bob", impatient)},
                "not_payable",
                "cltv_expiry: expected",
                1,
            ),
            (
                "dear",
                {"invoice": text, "fee_max_msat": 1999},
                "fee_too_high",
                "at most 1,999 msat",
                1,
            ),
            (
                "large",
                {"invoice": large},
                "insufficient_balance",
                "with the fee 100,101 sat are needed, and no channel can send more than 100,000",
                1,
            ),
            ("unknown", {"invoice": text, "factory_id": "abcdef"}, "factory_not_found", "abcd", 4),
            ("long", {"invoice": text, "wait_seconds": 101.0}, "invalid_param", "0..100", 1),
            ("negative", {"invoice": text, "fee_max_msat": -1}, "invalid_param", "at least 0", 1),
        ]
        for name, asked, code, said, exit_code in refused:
            for dry_run in (True, False):
                failure = await refusal(t, "alice", "pay", **asked, dry_run=dry_run)
                assert failure.code == code, name
                assert said in failure.message.replace("expired 1 sec", "expired 0 sec"), name
                assert failure.exit_code == exit_code, name
                assert failure.remediation or code == "invalid_param", name
        assert (await total(t, "alice"))["own_msat"] == ALLOWANCE_MSAT
        # What was refused is paid once it is allowed.
        assert (await t.call("alice", "pay", invoice=text, fee_max_msat=2000))["status"] == "paid"

    in_town(scenario)


def test_an_invoice_that_cannot_be_is_refused_by_its_field(in_town: Run) -> None:
    bad: list[tuple[Document, str]] = [
        ({"amount_msat": 0}, "amount_msat: expected 1..2100000000000000000"),
        ({"amount_msat": 1, "expiry_seconds": 0}, "expiry_seconds"),
        ({"amount_msat": 1, "description": "x" * 640}, "description"),
        ({}, "amount_msat"),
    ]

    async def scenario(t: Town) -> None:
        await t.build("alice")
        for asked, said in bad:
            failure = await refusal(t, "alice", "invoice", **asked)
            assert failure.code == "invalid_param", said
            assert said in failure.message
            if asked:
                field = said.partition(":")[0]
                assert (failure.param, failure.message.count(field)) == (field, 1)

    in_town(scenario)


def test_without_a_channel_nothing_can_be_asked_for_nor_paid(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        factory_id = await t.build("bob")
        text = await invoice_of(t, "bob", 1_000_000)
        await t.start_client("alice")
        assert (await refusal(t, "alice", "invoice", amount_msat=1)).code == "no_channel"
        assert (await refusal(t, "alice", "pay", invoice=text)).code == "no_channel"
        assert await t.call("alice", "balance") == {
            "channels": [],
            "total": dict.fromkeys(
                (
                    "own_msat", "peer_msat", "spendable_msat", "receivable_msat", "sending_msat",
                    "receiving_msat", "exit_sat",
                ),
                0,
            ),
        }  # fmt: skip
        assert (await refusal(t, "lsp", "payments", limit=0)).code == "invalid_param"
        # The LSP pays its clients only, and only those that are there.
        stranger = replace(
            parse_invoice(text, REGTEST), payee=t.running["alice"][0].identity.node_id
        )
        unknown = await refusal(t, "lsp", "pay", invoice=signed_by(t, "alice", stranger))
        assert (unknown.code, unknown.retryable) == ("payee_unknown", False)
        await t.stop("bob")
        away = await t.until("lsp", "balances", lambda b: b["channels"][0]["status"] == "offline")
        assert (away["total"]["own_msat"] > 0, away["total"]["spendable_msat"]) == (True, 0)
        refused = await refusal(t, "lsp", "pay", invoice=text)
        assert (refused.code, refused.retryable) == ("payee_offline", True)
        assert (await t.call("lsp", "balances"))["channels"][0]["factory_id"] == factory_id

    in_town(scenario)


def test_a_payment_waits_for_its_payee_and_survives_its_payers_restart(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        invoice = await invoice_of(t, "bob", 7_000_000)
        await t.stop("bob")
        await t.until("lsp", "status", lambda status: status["n_connected"] == 1)
        began = await t.call("alice", "pay", invoice=invoice, wait_seconds=0.0)
        assert (began["status"], began["preimage"]) == ("pending", None)
        waiting = await t.until("lsp", "payments", lambda p: p["forwards"])
        assert (waiting["forwards"][0]["status"], waiting["n_forwards"]) == ("held", 1)
        assert (await total(t, "alice"))["sending_msat"] == began["total_msat"]

        await t.stop("alice")
        await t.start_client("alice")
        assert (await t.call("alice", "payments"))["payments"][0]["status"] == "pending"
        await t.start_client("bob")
        ended = await t.call("alice", "pay", invoice=invoice)
        assert ended["status"] == "paid"
        assert [one["event"] for one in await t.told("alice")].count("payment_started") == 1

    in_town(scenario)


def test_a_payee_that_stays_away_fails_the_payment_and_trying_again_may_pay(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path, lsp_policy=replace(LSP_POLICY, hold_seconds=0)) as t:
            await with_money(t)
            invoice = await invoice_of(t, "bob", 7_000_000)
            await t.stop("bob")
            await t.until("lsp", "status", lambda status: status["n_connected"] == 1)
            failed = await t.call("alice", "pay", invoice=invoice)
            assert (failed["status"], failed["failure"], failed["retryable"]) == (
                "failed",
                "temporary_channel_failure",
                True,
            )
            await t.until("alice", "balance", lambda b: b["total"]["sending_msat"] == 0)
            assert (await total(t, "alice"))["own_msat"] == ALLOWANCE_MSAT
            await t.start_client("bob")
            await t.until("lsp", "balances", lambda b: b["channels"][1]["status"] == "open")
            await t.until("lsp", "balances", lambda b: b["channels"][0]["status"] == "open")
            assert (await t.call("alice", "pay", invoice=invoice))["status"] == "paid"

    asyncio.run(main())


def test_a_caller_that_waits_is_answered_when_the_daemon_stops(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        invoice = await invoice_of(t, "bob", 7_000_000)
        await t.stop("bob")
        await t.until("lsp", "status", lambda status: status["n_connected"] == 1)
        waiting = asyncio.create_task(t.call("alice", "pay", invoice=invoice))
        await t.until("lsp", "payments", lambda p: p["forwards"])
        began = time.monotonic()
        await t.stop("alice")
        assert (await waiting)["status"] == "pending"
        assert time.monotonic() - began < 4.0

    in_town(scenario)


def test_nobody_pays_its_own_invoice(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        invoice = await invoice_of(t, "alice", 60_000_000)
        with pytest.raises(ApiFailure) as refused:
            await t.call("alice", "pay", invoice=invoice)
        assert (refused.value.code, refused.value.retryable) == ("own_invoice", False)
        assert "client factories" in refused.value.remediation

    in_town(scenario)


def test_the_balance_tells_what_an_exit_would_leave(in_town: Run) -> None:
    async def scenario(t: Town) -> None:
        await with_money(t)
        (channel,) = (await t.call("alice", "balance"))["channels"]
        # One sweep of one output pays for itself; all else is prepaid.
        assert ALLOWANCE_MSAT // 1000 - 400 < channel["exit_sat"] < ALLOWANCE_MSAT // 1000
        assert channel["blocks_to_expiry"] > channel["blocks_to_exit_deadline"] > 0
        (nothing,) = (await t.call("bob", "balance"))["channels"]
        assert nothing["exit_sat"] == 0
        assert (channel["is_worth_an_exit"], nothing["is_worth_an_exit"]) == (True, False)
        await t.call("alice", "exit_start")
        (left,) = (await t.call("alice", "balance"))["channels"]
        assert (left["status"], left["spendable_msat"]) == ("exiting", 0)
        assert (await t.call("alice", "factories"))["factories"][0]["channel_failed"]
        failed = await t.until("lsp", "factories", lambda a: a["factories"][0]["channels_failed"])
        assert len(failed["factories"][0]["channels_failed"]) == 1

    in_town(scenario)
