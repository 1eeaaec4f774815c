"""Each payment ends once, in the log and in the numbers, with its reason if it failed."""

import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest

from cromford.daemon.logs import JsonFormatter
from cromford.daemon.lookups import PaymentEnd
from cromford.daemon.payment_outcomes import PaymentOutcomes
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.records import AnyRecord, BlockConnected

FIRST, SECOND, CHANNEL, FACTORY = (bytes((n,)) * 32 for n in range(1, 5))
BLOCK = BlockConnected(height=1, block_hash=bytes(32), txs=())


def started(payment_hash: bytes, *, asker: str = "") -> AnyRecord:
    return cr.PaymentStarted(
        payment_hash=payment_hash,
        payee=b"\x02" * 33,
        amount_msat=5_000,
        fee_msat=7,
        description="private words",
        channel_id=CHANNEL,
        htlc_id=0,
        text="lnbcrt1",
        asker=asker,
    )


class Ends:
    """What became of payments, as a test says."""

    def __init__(self) -> None:
        self.ends: dict[bytes, PaymentEnd] = {}

    def factory_of(self, channel_id: bytes) -> bytes:
        return FACTORY if channel_id == CHANNEL else b""

    def is_live(self, attempt_id: bytes) -> bool:
        raise AssertionError(f"nobody asks: {attempt_id.hex()}")

    def pending(self) -> Iterable[bytes]:
        return [one for one, end in self.ends.items() if end.status == "pending"]

    def payment(self, payment_hash: bytes) -> PaymentEnd:
        return self.ends[payment_hash]


def numbers(outcomes: PaymentOutcomes) -> dict[tuple[str, str], float]:
    return {
        (labels["direction"], labels["outcome"]): value
        for _, labels, value in outcomes.samples()
        if value
    }


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_a_payment_that_fails_is_told_once_with_why(caplog: pytest.LogCaptureFixture) -> None:
    now, ends = 3.0, Ends()
    outcomes = PaymentOutcomes(ends, is_lsp=False, clock=lambda: now)
    with caplog.at_level(logging.INFO, logger="cromford"):
        ends.ends[FIRST] = PaymentEnd(status="pending")
        outcomes.observe(started(FIRST))
        now = 5.5
        ends.ends[FIRST] = PaymentEnd(status="failed", reason="temporary_channel_failure")
        for _ in range(2):
            outcomes.observe(BLOCK)
    begun, failed = lines(caplog)
    assert (begun["event"], begun["factory"], begun["fee_msat"]) == (
        "payment_started",
        FACTORY.hex(),
        7,
    )
    assert (failed["event"], failed["payment"]) == ("payment_failed", FIRST.hex())
    assert (failed["reason"], failed["seconds"]) == ("temporary_channel_failure", 2.5)
    assert "private" not in caplog.text
    assert numbers(outcomes) == {("out", "failed"): 1}


def test_what_was_on_its_way_at_the_start_ends_in_the_log_too() -> None:
    ends = Ends()
    ends.ends = {FIRST: PaymentEnd(status="pending"), SECOND: PaymentEnd(status="paid")}
    outcomes = PaymentOutcomes(ends, is_lsp=True)
    ends.ends[FIRST] = PaymentEnd(status="paid")
    outcomes.observe(BLOCK)
    assert numbers(outcomes) == {("out", "paid"): 1}, "the other one ended before"


def test_an_htlc_that_is_given_back_is_a_forward_at_an_lsp_only() -> None:
    refused = cr.HtlcRefused(channel_id=CHANNEL, htlc_id=1, reason="full")
    paid = cr.FeeEarned(channel_id=CHANNEL, htlc_id=2, payment_hash=FIRST, fee_msat=3)
    lsp, client = (PaymentOutcomes(Ends(), is_lsp=is_lsp) for is_lsp in (True, False))
    for record in (refused, paid, started(FIRST, asker="house")):
        lsp.observe(record)
    client.observe(refused)
    client.observe(cr.InvoiceExpired(payment_hash=FIRST))
    assert numbers(lsp) == {("forwarded", "failed"): 1, ("forwarded", "paid"): 1}
    assert numbers(client) == {("in", "expired"): 1}


@pytest.mark.parametrize(("paid_msat", "outcome"), [(0, "failed"), (7_000, "unsettled")])
def test_what_ended_with_its_payers_channel_is_told(
    paid_msat: int, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = PaymentOutcomes(Ends(), is_lsp=True)
    ended = cr.IncomingEnded(channel_id=CHANNEL, htlc_id=3, reason="why", paid_msat=paid_msat)
    with caplog.at_level(logging.INFO, logger="cromford"):
        outcomes.observe(ended)
    (line,) = lines(caplog)
    assert (line["event"], line["factory"], line["htlc"]) == ("forward_ended", FACTORY.hex(), 3)
    assert (line["paid_msat"], line["reason"]) == (paid_msat, "why")
    assert numbers(outcomes) == {("forwarded", outcome): 1}


def test_a_payment_of_which_nothing_will_tell_ends_as_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = Ends()
    ends.ends[FIRST] = PaymentEnd(status="pending")
    outcomes = PaymentOutcomes(ends, is_lsp=False)
    ends.ends[FIRST] = PaymentEnd(status="unknown", reason="swept")
    with caplog.at_level(logging.INFO, logger="cromford"):
        outcomes.observe(BLOCK)
    (line,) = lines(caplog)
    assert (line["event"], line["reason"]) == ("payment_unknown", "swept")
    assert numbers(outcomes) == {("out", "unknown"): 1}
