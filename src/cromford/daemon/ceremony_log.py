"""How an LSP's ceremony goes, as lines of the log: its phases, and who kept the others waiting."""

import logging
import time
from collections.abc import Callable
from typing import Final

from cromford.bitcoin.tx import Tx
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.records import AnyRecord

_log: Final = logging.getLogger(__name__)


class CeremonyLog:
    """Tells of the one ceremony that is under way, as its records become durable.

    After a restart nothing is known of one that went on before: it is aborted then.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._node_ids: tuple[bytes, ...] = ()
        self._began = self._since = clock()
        self._answered: dict[int, float] = {}  # Who answered in this phase, and when.

    def observe(self, record: AnyRecord) -> None:
        """Tell of what is durable now."""
        match record:
            case lr.BuildStarted():
                self._began = self._clock()
                _log.info(
                    "build_begun clients=%d min_clients=%d max_clients=%d",
                    len(record.node_ids),
                    record.min_clients,
                    record.max_clients,
                )
            case lr.FactoryOrdered(order=order):
                self._node_ids = tuple(seat.node_id for seat in order.seats)
                self._next_phase()
                _log.info(
                    "factory_proposed factory=%s clients=%d",
                    order.attempt_id.hex(),
                    len(order.seats),
                )
            case op.BelowPartialsReceived() | op.RootPartialReceived() | op.Acknowledged():
                self._answered[record.client] = self._clock() - self._since
            case op.BelowSigned():
                self._tell_phase(record.attempt_id, "signing_below")
            case op.RootSigned():
                self._tell_phase(record.attempt_id, "signing_root")
            case op.FundingWasSigned():
                self._tell_phase(record.attempt_id, "acknowledging")
                _log.info(
                    "factory_funded factory=%s txid=%s seconds=%.3f",
                    record.attempt_id.hex(),
                    Tx.parse(record.tx).txid,
                    self._clock() - self._began,
                )
            case op.AttemptAborted():
                self._tell_abort(record)
            case _:
                _tell_lobby(record)

    def _next_phase(self) -> None:
        self._since, self._answered = self._clock(), {}

    def _tell_phase(self, attempt_id: bytes, phase: str) -> None:
        """Tell how long a phase took, and for whom it waited longest."""
        if self._answered:
            slowest = max(self._answered, key=lambda client: self._answered[client])
            _log.info(
                "phase_over factory=%s phase=%s seconds=%.3f slowest=%s slowest_seconds=%.3f",
                attempt_id.hex(),
                phase,
                self._clock() - self._since,
                self._named(slowest),
                self._answered[slowest],
            )
        self._next_phase()

    def _tell_abort(self, record: op.AttemptAborted) -> None:
        _log.warning(
            "factory_aborted factory=%s outcome=%s answered=%d reason=%r culprits=%s",
            record.attempt_id.hex(),
            record.outcome,
            len(self._answered),
            record.reason,  # A peer's words: quoted, in one line.
            ",".join(node_id.hex() for node_id in record.culprits),
        )
        self._next_phase()

    def _named(self, client: int) -> str:
        """Return the node id of a client; its number if it is not known."""
        if 1 <= client <= len(self._node_ids):
            return self._node_ids[client - 1].hex()
        return str(client)


def _tell_lobby(record: AnyRecord) -> None:
    match record:
        case lr.RebuildAwaited():
            _log.info("rejoin_awaited clients=%d", len(record.node_ids))
        case lr.RejoinMissed():
            _log.warning("rejoin_missed clients=%s", ",".join(n.hex() for n in record.node_ids))
        case lr.BuildDropped():
            _log.warning("build_dropped reason=%r", record.reason)
        case _:
            return
