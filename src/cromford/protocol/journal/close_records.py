"""What is remembered of cooperative closes."""

from cromford.protocol.journal.opening_records import Intent
from cromford.protocol.journal.record import Record


class CloseBegun(Record, frozen=True, kw_only=True, tag="close_begun"):
    """The LSP's operator closes what an outpoint holds: its clients are asked to agree.

    `clients` are in placement order, `feerates_sat_per_kw` the lowest first. From here on no update
    is begun in their channels.
    """

    attempt_id: bytes
    close_id: bytes
    outpoint: bytes
    name: str
    clients: tuple[int, ...]
    feerates_sat_per_kw: tuple[int, ...]


class CloseAgreed(Record, frozen=True, kw_only=True, tag="close_agreed"):
    """We agree to a close that pays us this: no update is begun in the channel until it is over.

    Without a balance where our store was restored: then what it pays is looked at when it is there.
    """

    attempt_id: bytes
    close_id: bytes
    channel_id: bytes
    outpoint: bytes
    feerates_sat_per_kw: tuple[int, ...]
    balance_msat: int | None


class ClosePoolMade(Record, frozen=True, kw_only=True, tag="close_pool_made"):
    """Our nonces of a close: one for each option. They last as long as the process."""

    attempt_id: bytes
    close_id: bytes
    pool: bytes


class CloseAgreementReceived(Record, frozen=True, kw_only=True, tag="close_agreement_received"):
    """A client agrees to a close that pays it this, and signs with these nonces.

    `is_ours` where it moved out and gave us its keys: then we do both, and it is not asked.
    """

    attempt_id: bytes
    close_id: bytes
    client: int
    balance_msat: int
    pool: bytes
    is_ours: bool = False


class CloseProposed(Record, frozen=True, kw_only=True, tag="close_proposed"):
    """Everybody agreed: these unsigned transactions, one for each option, go out to be signed."""

    attempt_id: bytes
    close_id: bytes
    txs: tuple[bytes, ...]


class CloseSigned(Record, frozen=True, kw_only=True, tag="close_signed"):
    """We are about to sign a close. From here on the LSP alone can finish it, whenever it likes.

    By the `txids` we know it in a block, also where we never hear that it was finished.
    `balance_msat` is what it pays us where we had agreed without one.
    """

    attempt_id: bytes
    close_id: bytes
    intents: tuple[Intent, ...]
    txids: tuple[bytes, ...] = ()
    balance_msat: int | None = None


class ClosePartialsReceived(Record, frozen=True, kw_only=True, tag="close_partials_received"):
    """A client signed a close: a partial signature for each option.

    From here on its channel may not come to owe it more than it agreed to.
    """

    attempt_id: bytes
    close_id: bytes
    client: int
    partial_sigs: tuple[bytes, ...]


class CloseEnded(Record, frozen=True, kw_only=True, tag="close_ended"):
    """A close was not finished. What was signed of it stays signed, and its channels go on.

    `culprits` are the node ids of those who caused it; `is_fault` says that it was proven.
    """

    attempt_id: bytes
    close_id: bytes
    reason: str
    culprits: tuple[bytes, ...] = ()
    is_fault: bool = False


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


class CloseConfirmed(Record, frozen=True, kw_only=True, tag="close_confirmed"):
    """A block has a close: its channels are over, and it pays us this in one output, 0 for none."""

    attempt_id: bytes
    close_id: bytes
    height: int
    txid: bytes
    amount_sat: int


class PartClosed(Record, frozen=True, kw_only=True, tag="part_closed"):
    """What a close spent is gone for good: six blocks deep, the channels of these clients with it.

    `amount_sat` is what the output held. The house is told: its capital is free.
    """

    attempt_id: bytes
    clients: tuple[int, ...]
    amount_sat: int


SharedCloseRecord = ClosePoolMade | CloseEnded | CloseFinished | CloseConfirmed
LspCloseRecord = CloseBegun | CloseAgreementReceived | CloseProposed | ClosePartialsReceived
ClientCloseRecord = CloseAgreed | CloseSigned
