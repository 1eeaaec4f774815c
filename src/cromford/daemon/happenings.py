"""What happens to a daemon's factories, as lines of the log that name them, and as counters."""

import logging
from collections.abc import Iterator
from typing import Final

from cromford.daemon.lookups import Lookup
from cromford.daemon.metrics import Sample
from cromford.daemon.payment_outcomes import PaymentOutcomes
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as ex
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.records import AnyRecord, BroadcastRefusalSeen

_log: Final = logging.getLogger(__name__)


class Happenings:
    """Tells of a role's factories, channels and payments, as their records become durable.

    Args:
        lookup: The role's state.
        is_lsp: Whether it is an LSP's.
    """

    def __init__(self, lookup: Lookup, *, is_lsp: bool) -> None:
        self._lookup = lookup
        self._is_lsp = is_lsp
        self._payments = PaymentOutcomes(lookup, is_lsp=is_lsp)
        self._n_refused = 0
        self._live: set[bytes] = set()  # Those that became so in this run.

    def observe(self, record: AnyRecord) -> None:
        """Tell of what is durable now."""
        match record:
            case op.ReadySent() | op.ReadyReceived():
                self._tell_ready(record)
            case cr.ChannelFailed() | cr.PeerLostState() | cr.BreachFound():
                self._tell_channel(record)
            case ex.ExitStarted() | ex.ExitPaused() | ex.ExitResumed():
                _tell_exit(record)
            case BroadcastRefusalSeen():
                self._n_refused += 1
            case _:
                if not self._is_lsp:
                    _tell_opening(record)
        self._payments.observe(record)

    def samples(self) -> Iterator[Sample]:
        """Yield the numbers for Prometheus."""
        yield from self._payments.samples()
        yield "broadcasts_refused_total", {}, self._n_refused

    def _tell_ready(self, record: op.ReadySent | op.ReadyReceived) -> None:
        factory = record.attempt_id.hex()
        if isinstance(record, op.ReadySent):
            _log.info("funding_deep factory=%s", factory)
        else:
            _log.info("peer_ready factory=%s node_id=%s", factory, record.node_id.hex())
        # Both sides' words may become durable at once: it is live once.
        if record.attempt_id not in self._live and self._lookup.is_live(record.attempt_id):
            self._live.add(record.attempt_id)
            _log.info("factory_live factory=%s", factory)

    def _tell_channel(self, record: cr.ChannelFailed | cr.PeerLostState | cr.BreachFound) -> None:
        factory = self._lookup.factory_of(record.channel_id).hex()
        channel = record.channel_id.hex()
        match record:
            case cr.ChannelFailed(reason=reason) if reason == CLOSED_TOGETHER:
                _log.info("channel_closed factory=%s channel=%s", factory, channel)
            case cr.ChannelFailed():
                _log.warning(
                    "channel_failed factory=%s channel=%s height=%d is_behind=%d reason=%r",
                    factory,
                    channel,
                    record.height,
                    record.is_behind,
                    record.reason,  # A peer's words may be among them.
                )
            case cr.PeerLostState():
                _log.warning("peer_lost_state factory=%s channel=%s", factory, channel)
            case cr.BreachFound():
                _log.warning("breach_found factory=%s channel=%s", factory, channel)


def _tell_exit(record: ex.ExitStarted | ex.ExitPaused | ex.ExitResumed) -> None:
    factory = record.attempt_id.hex()
    match record:
        case ex.ExitStarted():
            _log.info(
                "exit_started factory=%s client=%d reason=%r", factory, record.client, record.reason
            )
        case ex.ExitPaused():
            _log.info("exit_paused factory=%s", factory)
        case ex.ExitResumed():
            _log.info("exit_resumed factory=%s reason=%r", factory, record.reason)


def _tell_opening(record: AnyRecord) -> None:
    """Tell how a ceremony goes for a client."""
    match record:
        case op.ProposalAccepted():
            _log.info("proposal_accepted factory=%s", record.attempt_id.hex())
        case op.BranchCompleted():
            _log.info("branch_complete factory=%s", record.attempt_id.hex())
        case op.AttemptAborted():
            _log.warning(
                "factory_aborted factory=%s reason=%r", record.attempt_id.hex(), record.reason
            )
        case op.WaitGivenUp():
            _log.warning("wait_given_up factory=%s", record.attempt_id.hex())
        case _:
            return
