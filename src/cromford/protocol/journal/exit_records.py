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


class ExitSettled(Record, frozen=True, kw_only=True, tag="exit_settled"):
    """All that was ours in a channel that went on chain is taken, six blocks deep.

    `amount_sat` is what the channel held. The house is told: its capital is free.
    """

    attempt_id: bytes
    client: int
    amount_sat: int


class Watching(Record, frozen=True, kw_only=True, tag="watching"):
    """From this height on these outpoints are watched for a factory: a spend of one is news."""

    height: int
    outpoints: tuple[bytes, ...]


class CoinsLent(Record, frozen=True, kw_only=True, tag="coins_lent"):
    """Coins of the wallet are set aside, for children of what spends this outpoint.

    `change_script` is where change goes, a fresh one of the wallet's. `to` is the stream of the
    factory that asked; empty in a client's journal.
    """

    outpoint: bytes
    coins: tuple[bytes, ...]
    change_script: bytes
    to: str = ""


class CoinsReturned(Record, frozen=True, kw_only=True, tag="coins_returned"):
    """What spends this outpoint is in a block: what its children did not need is free again.

    `cost_sat` is what they have cost: it stays gone from what a way out may cost.
    """

    outpoint: bytes
    cost_sat: int


class CoinsAsked(Record, frozen=True, kw_only=True, tag="coins_asked"):
    """A factory needs coins that hold this much, for children of what spends this outpoint.

    `feerate_sat_per_kw` is what was wanted then: the more, the more it hurries. 0 where it is older
    than this field.
    """

    outpoint: bytes
    needed_sat: int
    feerate_sat_per_kw: int = 0


class FirstPublished(Record, frozen=True, kw_only=True, tag="first_published"):
    """What spends this outpoint, and may be paid for, is published for the first time.

    `height` is the highest that was known of: from there on its fee rises, near a deadline. Blocks
    that are only read afterwards were no time in which it could confirm.
    """

    outpoint: bytes
    height: int


class ExitPaused(Record, frozen=True, kw_only=True, tag="exit_paused"):
    """The operator lets an exit rest: no new transaction of it is published by us for now."""

    attempt_id: bytes


class ExitResumed(Record, frozen=True, kw_only=True, tag="exit_resumed"):
    """An exit goes on that had rested, for this reason."""

    attempt_id: bytes
    reason: str


ExitRecord = ExitStarted | TreePublished | CoinsReturned | FirstPublished
ClientExitRecord = ExitPaused | ExitResumed
LspExitRecord = OutputsSwept | ExitSettled | Watching | CoinsAsked
PurseRecord = CoinsLent  # Of whoever holds the wallet: a client, or the house.
