"""What is remembered of cooperative closes."""

from cromford.protocol.journal.record import Record


class CloseFinished(Record, frozen=True, kw_only=True, tag="close_finished"):
    """A close has everybody's signature: these transactions are published until one confirms.

    `txs` are signed, the one of the lower feerate first. `channels` are those it ends that we have,
    and `balances_msat` what each owed its client.
    """

    attempt_id: bytes
    close_id: bytes
    outpoint: bytes
    txs: tuple[bytes, ...]
    channels: tuple[bytes, ...]
    balances_msat: tuple[int, ...]


SharedCloseRecord = CloseFinished
