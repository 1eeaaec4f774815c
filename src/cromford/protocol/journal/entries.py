"""What a house remembers of one factory, and of one payment that its operator ordered."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.factory.terms import decode_terms
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail
from cromford.protocol.journal.market import SoldEntry, sold_entry
from cromford.protocol.journal.streams import factory_stream
from cromford.shelf import Shelf
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields

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
        closed: The clients whose channels were closed together, for good.
        closed_sat: What was in the outputs that these closes spent.
        sold: What was sold of its L-stocks, oldest first: `capacity_sat` has it.
        higher_txids: Of a fee ladder's candidates after the first, which is `funding_txid`.
        published: The place of the candidate that is published.
        settled: The clients whose channels went on chain, where all that was ours is taken.
        settled_sat: What was in these channels.
        displaced_by: Of a dead one, the candidate that had its place, in which nobody has anything
            but us; None where something else had.
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
    closed: frozenset[int] = frozenset()
    closed_sat: int = 0
    sold: tuple[SoldEntry, ...] = ()
    higher_txids: tuple[Txid, ...] = ()
    published: int = 0
    settled: frozenset[int] = frozenset()
    settled_sat: int = 0
    displaced_by: Txid | None = None

    @property
    def funding_txids(self) -> tuple[Txid, ...]:
        """Of every transaction that may fund it, lowest feerate first."""
        return (self.funding_txid, *self.higher_txids)

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return factory_stream(self.number)

    @property
    def seated(self) -> tuple[bytes, ...]:
        """The clients whose channels were not closed together, in placement order."""
        if not self.closed:
            return self.node_ids
        seats = enumerate(self.node_ids, start=1)
        return tuple(node_id for client, node_id in seats if client not in self.closed)

    @property
    def lent_to(self) -> tuple[bytes, ...]:
        """The clients to whom we lend in it: neither closed together nor settled on chain."""
        over = self.closed | self.settled
        seats = enumerate(self.node_ids, start=1)
        return tuple(node_id for client, node_id in seats if client not in over)

    @property
    def lent_sat(self) -> int:
        """What the channels come to that were neither closed together nor settled on chain."""
        over_sat = sum(self.capacity_sat[client - 1] for client in self.closed | self.settled)
        return sum(self.capacity_sat) - over_sat

    @property
    def locked_sat(self) -> int:
        """What is in it, without what closes spent of it and what was in settled channels."""
        return self.funding_amount_sat - self.closed_sat - self.settled_sat

    def with_closed(self, closed: mail.ChannelsClosed) -> "FactoryEntry":
        """Return the entry after channels were closed together for good."""
        clients = self.closed | frozenset(closed.clients)
        return replace(self, closed=clients, closed_sat=self.closed_sat + closed.amount_sat)

    def with_settled(self, told: mail.ChannelSettled) -> "FactoryEntry":
        """Return the entry after a channel on chain was settled; it counts once."""
        if told.client in self.settled:
            return self
        settled_sat = self.settled_sat + told.amount_sat
        return replace(self, settled=self.settled | {told.client}, settled_sat=settled_sat)

    def with_sale(self, sold: mail.SaleBooked, at: int = 0) -> "FactoryEntry":
        """Return the entry after a client's channel grew, of which was heard at this unix time."""
        capacity_sat = list(self.capacity_sat)
        capacity_sat[sold.client - 1] = sold.capacity_sat
        ledger = (*self.sold, sold_entry(sold, at))
        return replace(self, capacity_sat=tuple(capacity_sat), sold=ledger)

    def client_of(self, node_id: bytes) -> int | None:
        """Return a client's participant index, or None."""
        return self.node_ids.index(node_id) + 1 if node_id in self.node_ids else None

    def is_dying(self, client: int, *, height: int) -> bool:
        """Say whether a client's channel is in the period in which it moves elsewhere, or past."""
        return height >= self.dying_heights[client - 1]


def ordered_entry(record: lr.FactoryOrdered) -> FactoryEntry:
    """Return what the house remembers of a factory once it is ordered."""
    order = record.order
    terms, tx = decode_terms(order.terms), Tx.parse(order.funding_tx)
    return FactoryEntry(
        attempt_id=order.attempt_id,
        number=order.attempt,
        node_ids=tuple(seat.node_id for seat in order.seats),
        factory_pubkeys=record.factory_pubkeys,
        capacity_sat=terms.capacity_sat,
        dying_heights=record.dying_heights,
        expiry_height=terms.expiry_height,
        funding_amount_sat=tx.outputs[0].amount_sat,
        funding_txid=tx.txid,
        coins=tuple(tx_in.outpoint for tx_in in tx.inputs),
        own_pubkey=decode_fields(m.Pool, order.lsp_factory_pool).pubkey,
        dying_blocks=terms.dying_blocks,
        higher_txids=tuple(Tx.parse(one.funding_tx).txid for one in order.higher),
    )


Seats = Shelf[bytes, tuple[int, ...]]  # The numbers of each client's factories, oldest first.


def with_seats(of_client: Seats, entry: FactoryEntry) -> Seats:
    """Return in which factories clients have channels, after one was funded."""
    for node_id in entry.node_ids:
        of_client = of_client.set(node_id, (*of_client.get(node_id, ()), entry.number))
    return of_client


def without_seats(of_client: Seats, entry: FactoryEntry, clients: Iterable[int]) -> Seats:
    """Return in which factories clients have channels, after those of one were closed together."""
    for client in clients:
        node_id = entry.node_ids[client - 1]
        numbers = tuple(n for n in of_client.get(node_id, ()) if n != entry.number)
        of_client = of_client.set(node_id, numbers) if numbers else of_client.delete(node_id)
    return of_client


@dataclass(frozen=True, slots=True, kw_only=True)
class HousePayment:
    """An invoice that the operator pays, once for each hash.

    `to` is the stream that was asked; `number` counts them in the order in which they began.
    `created_at` is when that was, `settled_at` when it was paid or failed, in unix seconds; 0 if
    unknown. `label` is the operator's.
    """

    asked: mail.PayAsked
    to: str
    number: int
    preimage: bytes | None = None
    failure: bytes | None = None
    refused: str | None = None
    created_at: int = 0
    settled_at: int = 0
    label: str = ""

    @property
    def status(self) -> str:
        """`paid`, `failed` or `pending`."""
        if self.preimage is not None:
            return "paid"
        return "pending" if self.failure is None and self.refused is None else "failed"
