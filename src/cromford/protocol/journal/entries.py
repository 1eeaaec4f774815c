"""What a house remembers of one factory, and of one payment that its operator ordered."""

from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol.journal import mail
from cromford.protocol.journal.streams import factory_stream

BUILDING: Final = "building"
FUNDED: Final = "funded"
ABORTED: Final = "aborted"
DEAD: Final = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryEntry:
    """What the house remembers of one factory.

    Attributes:
        attempt_id: Its name among people and on the wire.
        number: Its number; its stream is named by it.
        node_ids: Its clients, in placement order.
        factory_pubkeys: Theirs, in the same order.
        capacity_sat: Of each channel.
        dying_heights: From when on each of them moves to another factory.
        expiry_height: The factory's.
        funding_amount_sat: What is in it.
        funding_txid: Of the transaction that funds it.
        coins: What that spends.
        status: `building`, `funded`, `aborted` or `dead`.
        replacement: What was to take a coin of its funding, if that was given up.
        own_pubkey: Our factory key.
        moved_out: The clients whose keys we hold, or held: by them nobody proves a move.
        dying_blocks: How long each of them has to move out.
    """

    attempt_id: bytes
    number: int
    node_ids: tuple[bytes, ...]
    factory_pubkeys: tuple[bytes, ...]
    capacity_sat: tuple[int, ...]
    dying_heights: tuple[int, ...]
    expiry_height: int
    funding_amount_sat: int
    funding_txid: Txid
    coins: tuple[OutPoint, ...]
    status: str = BUILDING
    replacement: Tx | None = None
    own_pubkey: bytes = b""
    moved_out: frozenset[int] = frozenset()
    dying_blocks: int = 0  # Not known of a factory that an older version built.

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return factory_stream(self.number)

    def client_of(self, node_id: bytes) -> int | None:
        """Return a client's participant index, or None."""
        return self.node_ids.index(node_id) + 1 if node_id in self.node_ids else None

    def is_dying(self, client: int, *, height: int) -> bool:
        """Say whether a client's channel is in the period in which it moves elsewhere, or past."""
        return height >= self.dying_heights[client - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class HousePayment:
    """An invoice that the operator pays, once for each hash.

    `to` is the stream that was asked; `number` counts them in the order in which they began.
    """

    asked: mail.PayAsked
    to: str
    number: int
    preimage: bytes | None = None
    failure: bytes | None = None
    refused: str | None = None

    @property
    def status(self) -> str:
        """`paid`, `failed` or `pending`."""
        if self.preimage is not None:
            return "paid"
        return "pending" if self.failure is None and self.refused is None else "failed"
