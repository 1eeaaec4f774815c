"""What of the records an operator must not overlook, as lines of the log."""

import logging
from typing import Final

from cromford.bitcoin.tx import Tx, Txid
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.journal.close_records import (
    CloseBegun,
    CloseConfirmed,
    CloseEnded,
    CloseFinished,
)
from cromford.protocol.journal.dying_records import (
    CloseWanted,
    MoveEnded,
    MoveHindered,
    PeriodBegan,
)
from cromford.protocol.journal.exit_records import OutputsSwept, TreePublished
from cromford.protocol.journal.lobby_records import FundingReplaced
from cromford.protocol.journal.opening_records import FundingDied, WaitGivenUp
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.spending_records import SpendingOvertaken

_log: Final = logging.getLogger(__name__)


def log_record(record: AnyRecord) -> None:
    """Log a record that is durable, if it is one that is logged."""
    match record:
        case TreePublished():
            _log.warning(
                "tree_published factory=%s height=%d transactions=%s",
                record.attempt_id.hex(),
                record.height,
                ",".join(record.transactions),
            )
        case OutputsSwept():
            _log.info(
                "outputs_swept factory=%s height=%d txid=%s outputs=%s amount_sat=%d",
                record.attempt_id.hex(),
                record.height,
                Txid(record.txid),
                ",".join(record.outputs),
                record.amount_sat,
            )
        case CloseBegun() | CloseEnded() | CloseFinished() | CloseConfirmed():
            _log_close(record)
        case FundingDied(rung=rung) | WaitGivenUp(rung=rung) if rung is not None:
            _log.error("funding_displaced factory=%s candidate=%d", record.attempt_id.hex(), rung)
        case FundingReplaced():
            _log.info(
                "funding_replaced factory=%s candidate=%d fee_sat=%d",
                record.attempt_id.hex(),
                record.rung,
                record.fee_sat,
            )
        case SpendingOvertaken():
            _log.warning(
                "payment_overtaken txid=%s spent_by=%s", Txid(record.txid), Txid(record.spent_by)
            )
        case PeriodBegan() | CloseWanted() | MoveHindered() | MoveEnded():
            _log_dying(record)
        case _:
            return


def _log_close(record: CloseBegun | CloseEnded | CloseFinished | CloseConfirmed) -> None:
    match record:
        case CloseBegun():
            _log.info(
                "close_begun factory=%s close=%s name=%s clients=%s",
                record.attempt_id.hex(),
                record.close_id.hex(),
                record.name.replace(" ", "_"),
                ",".join(map(str, record.clients)),
            )
        case CloseEnded():
            _log.warning(
                "close_ended factory=%s close=%s reason=%r",  # A peer's words: quoted, in one line.
                record.attempt_id.hex(),
                record.close_id.hex(),
                record.reason,
            )
        case CloseFinished():
            _log.info(
                "close_finished factory=%s close=%s txids=%s",
                record.attempt_id.hex(),
                record.close_id.hex(),
                ",".join(str(Tx.parse(tx).txid) for tx in record.txs),
            )
        case CloseConfirmed():
            _log.info(
                "close_confirmed factory=%s close=%s height=%d txid=%s amount_sat=%d",
                record.attempt_id.hex(),
                record.close_id.hex(),
                record.height,
                Txid(record.txid),
                record.amount_sat,
            )


def _log_dying(record: PeriodBegan | CloseWanted | MoveHindered | MoveEnded) -> None:
    match record:
        case PeriodBegan(attempt_id=attempt_id, height=height, period=period):
            _log.warning(
                "period_began factory=%s height=%d period=%s", attempt_id.hex(), height, period
            )
        case CloseWanted(attempt_id=attempt_id, height=height):
            _log.warning("close_wanted factory=%s height=%d", attempt_id.hex(), height)
        case MoveHindered(attempt_id=attempt_id, reason=reason):
            _log.warning("move_hindered from=%s reason=%s", attempt_id.hex(), reason)
        case MoveEnded(is_moved=True):
            _log.info(
                "balance_moved amount_sat=%d amount_msat=%d from=%s to=%s",
                record.amount_msat // MSAT_PER_SAT,
                record.amount_msat,
                record.attempt_id.hex(),
                record.to_attempt_id.hex(),
            )
        case MoveEnded():
            _log.warning(
                "balance_not_moved amount_msat=%d from=%s",
                record.amount_msat,
                record.attempt_id.hex(),
            )
