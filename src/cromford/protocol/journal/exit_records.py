"""What is remembered of exits; what a channel's exit shows is among the channel's records."""

from cromford.protocol.journal.record import Record


class ExitStarted(Record, frozen=True, kw_only=True, tag="exit_started"):
    """We leave a client's channel by publishing its branch, for this reason."""

    attempt_id: bytes
    client: int
    reason: str


class TreePublished(Record, frozen=True, kw_only=True, tag="tree_published"):
    """Somebody publishes the factory: these transactions of its tree confirmed at this height.

    Of a client's journal, its own branch. It changes no state, which the block did already: it says
    by a number of its own, once for each block, what an operator must not overlook.
    """

    attempt_id: bytes
    height: int
    transactions: tuple[str, ...]


class OutputsSwept(Record, frozen=True, kw_only=True, tag="outputs_swept"):
    """A transaction that is none of the tree took these outputs of it, at this height.

    After the expiry, or of an L-stock, it is the LSP's own sweep. Like `TreePublished` it changes
    no state, and says what an operator wants to know. `txid` is in the order of the wire.
    """

    attempt_id: bytes
    height: int
    txid: bytes
    outputs: tuple[str, ...]
    amount_sat: int


class Watching(Record, frozen=True, kw_only=True, tag="watching"):
    """From this height on these outpoints are watched for a factory: a spend of one is news."""

    height: int
    outpoints: tuple[bytes, ...]


ExitRecord = ExitStarted | TreePublished
LspExitRecord = OutputsSwept | Watching
