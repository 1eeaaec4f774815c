"""What became of payments, as lines of the log and as counters, from this start on."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from cromford.daemon.lookups import PENDING, Lookup
from cromford.daemon.metrics import Sample
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import mail
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.failures import Failure, describe_failure
from cromford.protocol.journal.lobby_records import PaymentOrdered
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.records import AnyRecord
from cromford.wire import messages as m

# How a proposal begins that gives an HTLC back: only those are read.
_FAILS: Final = m.MESSAGE_TYPES[m.UpdateFailHtlc].to_bytes(2, "big")
PAID: Final = "paid"
FAILED: Final = "failed"
EXPIRED: Final = "expired"
UNSETTLED: Final = "unsettled"
UNKNOWN: Final = "unknown"
OUT: Final = "out"
IN: Final = "in"
FORWARDED: Final = "forwarded"
# Each has a number from the start: a rate needs two.
CLIENTS: Final = ((OUT, PAID), (OUT, FAILED), (OUT, UNKNOWN), (IN, PAID), (IN, EXPIRED))
LSPS: Final = (
    (OUT, PAID),
    (OUT, FAILED),
    (FORWARDED, PAID),
    (FORWARDED, FAILED),
    (FORWARDED, UNSETTLED),
)
_log: Final = logging.getLogger(__name__)


class PaymentOutcomes:
    """Notes what becomes of payments, as their records become durable.

    Args:
        lookup: The role's state.
        is_lsp: Whether it forwards what others pay.
        clock: Seconds that only rise.
    """

    def __init__(
        self, lookup: Lookup, *, is_lsp: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lookup = lookup
        self._is_lsp = is_lsp
        self._clock = clock
        self._ended: Counter[tuple[str, str]] = Counter()
        # Since when; what was on its way already when the daemon started counts from there.
        self._pending = dict.fromkeys(lookup.pending(), clock())
        # What went on and has not ended, by its HTLC, and why it failed if it did.
        self._forwards = dict(lookup.forwards())

    def observe(self, record: AnyRecord) -> None:
        """Take note of what is durable now."""
        match record:
            case PaymentOrdered(asked=asked):
                self._pending.setdefault(asked.payment_hash, self._clock())
                _log.info(
                    "payment_started payment=%s amount_msat=%d",
                    asked.payment_hash.hex(),
                    asked.amount_msat,
                )
            case cr.PaymentStarted(asker=""):
                self._pending.setdefault(record.payment_hash, self._clock())
                _log.info(
                    "payment_started payment=%s amount_msat=%d fee_msat=%d factory=%s",
                    record.payment_hash.hex(),
                    record.amount_msat,
                    record.fee_msat,
                    self._lookup.factory_of(record.channel_id).hex(),
                )
            case cr.InvoicePaid():
                self._ended[IN, PAID] += 1
                _log.info(
                    "invoice_paid payment=%s amount_msat=%d factory=%s",
                    record.payment_hash.hex(),
                    record.amount_msat,
                    self._lookup.factory_of(record.channel_id).hex(),
                )
            case cr.InvoiceExpired():
                self._ended[IN, EXPIRED] += 1
            case _:
                if self._is_lsp:
                    self._observe_forward(record)
        self._look()

    def _observe_forward(self, record: AnyRecord) -> None:
        """Take note of what went on to somebody: each ends once, as an LSP's list has it.

        What was held, and never went on, is no forward.
        """
        match record:
            case cr.HtlcForwarded():
                self._forwards[record.channel_id, record.htlc_id] = None
            case MailTaken(mail=mail.ForwardRefused() as refused):
                self._forwards.pop((refused.channel_id, refused.htlc_id), None)
            case MailTaken(mail=mail.ForwardAnswered() as answered):
                if (key := (answered.channel_id, answered.htlc_id)) in self._forwards:
                    self._forwards[key] = answered.failure
            case cr.ForwardWithdrawn():
                reason = Failure.TEMPORARY_CHANNEL_FAILURE.reason
                self._forwards[record.channel_id, record.htlc_id] = reason
            case cr.FeeEarned():
                self._forwards.pop((record.channel_id, record.htlc_id), None)
                self._ended[FORWARDED, PAID] += 1
            case cr.UpdateProposed(message=message) if message.startswith(_FAILS):
                self._given_back(record)
            case cr.IncomingEnded():
                self._ended_on_chain(record)
            case _:
                pass

    def _given_back(self, proposed: cr.UpdateProposed) -> None:
        key = (proposed.channel_id, decoded(proposed.message, m.UpdateFailHtlc).htlc_id)
        if key not in self._forwards:
            return
        reason = self._forwards.pop(key)
        self._ended[FORWARDED, FAILED] += 1
        _log.info(
            "forward_failed factory=%s htlc=%d reason=%r",
            self._lookup.factory_of(key[0]).hex(),
            key[1],
            describe_failure(reason or b""),
        )

    def _ended_on_chain(self, ended: cr.IncomingEnded) -> None:
        key = (ended.channel_id, ended.htlc_id)
        # One that was paid on may have counted as paid, until its payer kept it on chain.
        if key in self._forwards or ended.paid_msat:
            self._ended[FORWARDED, UNSETTLED if ended.paid_msat else FAILED] += 1
        self._forwards.pop(key, None)
        _log.warning(
            "forward_ended factory=%s htlc=%d paid_msat=%d reason=%r",
            self._lookup.factory_of(key[0]).hex(),
            key[1],
            ended.paid_msat,
            ended.reason,
        )

    def samples(self) -> Iterator[Sample]:
        """Yield the numbers for Prometheus."""
        for direction, outcome in LSPS if self._is_lsp else CLIENTS:
            labels = {"direction": direction, "outcome": outcome}
            yield "payments_ended_total", labels, self._ended[direction, outcome]

    def _look(self) -> None:
        """Tell of each payment that is not on its way any more."""
        for payment_hash, since in list(self._pending.items()):
            end = self._lookup.payment(payment_hash)
            if end.status == PENDING:
                continue
            del self._pending[payment_hash]
            self._ended[OUT, end.status] += 1
            seconds = self._clock() - since
            if end.status == PAID:
                _log.info("payment_made payment=%s seconds=%.3f", payment_hash.hex(), seconds)
            else:
                _log.warning(
                    "payment_unknown payment=%s seconds=%.3f reason=%r"
                    if end.status == UNKNOWN
                    else "payment_failed payment=%s seconds=%.3f reason=%r",
                    payment_hash.hex(),
                    seconds,
                    end.reason,
                )
