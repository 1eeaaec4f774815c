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
from cromford.protocol.journal import mail
from cromford.protocol.journal.book import HtlcKey
from cromford.protocol.journal.encoding import journalled
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.records import AnyRecord, BlockConnected
from cromford.wire import messages as m

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
        self.under_way: dict[HtlcKey, bytes | None] = {}

    def factory_of(self, channel_id: bytes) -> bytes:
        return FACTORY if channel_id == CHANNEL else b""

    def is_live(self, attempt_id: bytes) -> bool:
        raise AssertionError(f"nobody asks: {attempt_id.hex()}")

    def pending(self) -> Iterable[bytes]:
        return [one for one, end in self.ends.items() if end.status == "pending"]

    def payment(self, payment_hash: bytes) -> PaymentEnd:
        return self.ends[payment_hash]

    def forwards(self) -> Iterable[tuple[HtlcKey, bytes | None]]:
        return self.under_way.items()


def forwarded(htlc_id: int) -> AnyRecord:
    return cr.HtlcForwarded(
        channel_id=CHANNEL, htlc_id=htlc_id, to="factory:1", fee_msat=3, cltv_expiry=9
    )


def given_back(htlc_id: int) -> AnyRecord:
    message = m.UpdateFailHtlc(channel_id=CHANNEL, htlc_id=htlc_id, reason=b"\x10\x07")
    return cr.UpdateProposed(channel_id=CHANNEL, message=journalled(message))


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


def test_an_htlc_that_went_on_and_is_given_back_is_a_forward_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = Ends()
    ends.under_way = {(CHANNEL, 1): None, (CHANNEL, 2): Failure.EXPIRY_TOO_SOON.reason}
    outcomes = PaymentOutcomes(ends, is_lsp=True)
    refused = mail.ForwardRefused(channel_id=CHANNEL, htlc_id=4, reason="away")
    answered = mail.ForwardAnswered(
        channel_id=CHANNEL,
        htlc_id=5,
        out_channel_id=bytes(32),
        failure=Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS.reason,
    )
    paid = cr.FeeEarned(channel_id=CHANNEL, htlc_id=6, payment_hash=FIRST, fee_msat=3)
    taken = cr.UpdateProposed(
        channel_id=CHANNEL,
        message=journalled(
            m.UpdateFulfillHtlc(channel_id=CHANNEL, htlc_id=6, payment_preimage=bytes(32))
        ),
    )
    with caplog.at_level(logging.INFO, logger="cromford"):
        for record in (
            *(forwarded(htlc_id) for htlc_id in (4, 5, 6, 7)),
            MailTaken(sender="factory:1", number=1, mail=refused),
            MailTaken(sender="factory:1", number=2, mail=answered),
            cr.ForwardWithdrawn(channel_id=CHANNEL, htlc_id=7),
            paid,
            taken,
            *(given_back(htlc_id) for htlc_id in range(1, 8)),
        ):
            outcomes.observe(record)
    assert [(line["htlc"], line["reason"]) for line in lines(caplog)] == [
        (1, "no reason given"),
        (2, "expiry_too_soon"),
        (5, "incorrect_or_unknown_payment_details"),
        (7, "temporary_channel_failure"),
    ], "3 and 4 were held, 6 was paid"
    assert {(line["event"], line["factory"]) for line in lines(caplog)} == {
        ("forward_failed", FACTORY.hex())
    }
    assert numbers(outcomes) == {("forwarded", "failed"): 4, ("forwarded", "paid"): 1}


def test_a_client_forwards_nothing() -> None:
    outcomes = PaymentOutcomes(Ends(), is_lsp=False)
    outcomes.observe(given_back(1))
    outcomes.observe(cr.InvoiceExpired(payment_hash=FIRST))
    assert numbers(outcomes) == {("in", "expired"): 1}


@pytest.mark.parametrize(("paid_msat", "outcome"), [(0, "failed"), (7_000, "unsettled")])
def test_what_ended_with_its_payers_channel_is_told(
    paid_msat: int, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = PaymentOutcomes(Ends(), is_lsp=True)
    ended = cr.IncomingEnded(channel_id=CHANNEL, htlc_id=3, reason="why", paid_msat=paid_msat)
    outcomes.observe(forwarded(3))
    with caplog.at_level(logging.INFO, logger="cromford"):
        outcomes.observe(ended)
        outcomes.observe(given_back(3))
    (line,) = lines(caplog)
    assert (line["event"], line["factory"], line["htlc"]) == ("forward_ended", FACTORY.hex(), 3)
    assert (line["paid_msat"], line["reason"]) == (paid_msat, "why")
    assert numbers(outcomes) == {("forwarded", outcome): 1}


@pytest.mark.parametrize(
    ("paid_msat", "expected"), [(0, {}), (7_000, {("forwarded", "unsettled"): 1})]
)
def test_what_ended_is_a_forward_if_it_went_on(
    paid_msat: int, expected: dict[tuple[str, str], float]
) -> None:
    """One that its payer was told of and kept on chain ended before, as paid."""
    outcomes = PaymentOutcomes(Ends(), is_lsp=True)
    ended = cr.IncomingEnded(channel_id=CHANNEL, htlc_id=3, reason="why", paid_msat=paid_msat)
    outcomes.observe(ended)
    assert numbers(outcomes) == expected


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
