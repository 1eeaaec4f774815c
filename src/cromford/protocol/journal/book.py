"""All live channels of a client, or a factory, and their payments: the fold of their records.

What still has to be done about an HTLC is part of the value, so that nothing depends on when a
crash came: it is done as soon as its channel can carry the answer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from immutables import Map

from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.link_fold import disconnected
from cromford.protocol.journal.mail import Letter
from cromford.protocol.journal.numbers import Numbers

HtlcKey = tuple[bytes, int]  # A channel, and the id of an HTLC in it.
AWAY: Final = "the payee is away"  # Why an HTLC waits, for the operator.


def _status_of(preimage: bytes | None, failure: bytes | None) -> str:
    """Return what became of HTLCs of ours; a preimage outweighs whatever else was said."""
    if preimage is not None:
        return "paid"
    return "pending" if failure is None else "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """An invoice that we pay. It is paid once it has a preimage, failed with a failure.

    `ended` is how its HTLC ended where nothing will tell which of both it is; else empty.
    `asker` is the stream that hears of it; empty where it is our own.
    `number` counts payments and invoices together, in the order in which they began.
    `created_at` is when this try of it began, `settled_at` when it was paid or failed, in unix
    seconds; 0 where nobody wrote it down. `label` is the operator's, and leaves the machine never.
    """

    payment_hash: bytes
    payee: bytes
    amount_msat: int
    fee_msat: int
    description: str
    text: str
    htlc: HtlcKey
    number: int
    asker: str = ""
    preimage: bytes | None = None
    failure: bytes | None = None
    created_at: int = 0
    settled_at: int = 0
    label: str = ""
    ended: str = ""

    @property
    def status(self) -> str:
        """`paid`, `failed`, `pending`; or `unknown`: it ended, and nothing will tell which."""
        status = _status_of(self.preimage, self.failure)
        return "unknown" if self.ended and status == "pending" else status


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnInvoice:
    """An invoice of ours. `paid_by` is the HTLC that pays it, of `paid_msat`.

    What pays it may wait for `hold_seconds` if we are away; `agreed_seconds` is what the LSP said
    of that, None before it did.

    `number` counts payments and invoices together, in the order in which they began.
    `created_at` is when it was made, `settled_at` when it was paid or expired, in unix seconds; 0
    where nobody wrote it down. `label` and `external_id` are the operator's, and leave the machine
    never; no two invoices have one external id.
    """

    payment_hash: bytes
    preimage: bytes
    payment_secret: bytes
    amount_msat: int
    description: str
    expires_at: int
    text: str
    number: int
    is_expired: bool = False
    paid_by: HtlcKey | None = None
    paid_msat: int = 0
    expiry_seconds: int = 0
    hold_seconds: int = 0
    agreed_seconds: int | None = None
    is_doubtful: bool = False  # it may have been paid, in what a restored store has lost
    created_at: int = 0
    settled_at: int = 0
    label: str = ""
    external_id: str = ""

    @property
    def is_own_move(self) -> bool:
        """Whether we pay it ourselves, to move money to another channel: nobody else reads it."""
        return not self.text

    @property
    def status(self) -> str:
        """`paid`, `expired` or `open`."""
        if self.paid_by is not None:
            return "paid"
        return "expired" if self.is_expired or self.is_doubtful else "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """An HTLC of a channel here that goes on in a channel of the payee's factory.

    Attributes:
        payment_hash: The HTLC's.
        incoming: The HTLC.
        to: The stream of the factory that was asked.
        payee: Who gets it.
        amount_msat: What goes on.
        fee_msat: What stays here.
        preimage: What it is resolved by, or by a failure.
        failure: Likewise.
        out_channel_id: The channel it went on in, once the other factory said so.
        hold_seconds: How long it waits if its payee announced it.
        created_at: When it came to be held, or went on; in unix seconds, 0 if unknown.
        settled_at: When the payer's HTLC was taken, or given back, or ended; likewise.
        ended: How the payer's HTLC ended with its channel; empty where we answered it, or took it.
    """

    payment_hash: bytes
    incoming: HtlcKey
    to: str
    payee: bytes
    amount_msat: int
    fee_msat: int
    preimage: bytes | None = None
    failure: bytes | None = None
    out_channel_id: bytes | None = None
    hold_seconds: int = 0
    created_at: int = 0
    settled_at: int = 0
    ended: str = ""

    @property
    def announced_by(self) -> bytes:
        """Its payee, if that announced it; else empty."""
        return self.payee if self.hold_seconds else b""

    @property
    def status(self) -> str:
        """`paid`, `failed`, `pending`; or `unsettled`: paid on, and not taken from its payer."""
        if self.ended and self.preimage is not None:
            return "unsettled"
        return _status_of(self.preimage, self.failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What an HTLC of ours is for, if not a payment of ours: an HTLC of a channel elsewhere.

    Attributes:
        asker: The stream that asked for it.
        incoming: Its HTLC.
        preimage: What the peer took ours with, once it did: the asker was told.
    """

    asker: str
    incoming: HtlcKey
    preimage: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An HTLC that cannot go on yet: whom it is for, and what it waits for."""

    payee: bytes
    reason: str
    seconds: int = 0  # How long it waits if its payee announced it.
    created_at: int = 0  # Since when, in unix seconds; 0 if unknown.


# Without slots: it is made anew many times a payment, and a dict is copied at once.
@dataclass(frozen=True, kw_only=True)
class Book:
    """Channels and payments of one role.

    Attributes:
        links: By channel id.
        by_node: The channels with each peer, oldest first.
        payments: What we pay, by payment hash.
        invoices: What we want to be paid, by payment hash.
        arrived: HTLCs of peers that are locked in and wait for a decision.
        held: Those of them that cannot go on yet.
        held_for: The keys of these, by payee, in the order in which they came.
        released: Held and forwarded ones of whose failure the payer may hear.
        forwards: Unfinished ones, by their incoming HTLC.
        resolved: Those whose incoming HTLC has to be answered now.
        owners: Our HTLCs: what each is for, a payment's hash or another stream's HTLC.
        letters: What the last record has to tell other streams; the holder of the book takes it.
        finished: Finished forwards by number, the newest ones.
        n_finished: How many there ever were.
        earned_msat: Fees of all paid forwards.
        n_begun: How many payments and invoices there ever were; one that is paid anew counts anew.
        numbers: Whose the numbers up to that are.
        external_ids: The payment hashes of invoices that the operator gave an id.
    """

    links: Map[bytes, Link] = field(default_factory=Map)
    by_node: Map[bytes, tuple[bytes, ...]] = field(default_factory=Map)
    payments: Map[bytes, Payment] = field(default_factory=Map)
    invoices: Map[bytes, OwnInvoice] = field(default_factory=Map)
    arrived: Map[HtlcKey, None] = field(default_factory=Map)
    held: Map[HtlcKey, Held] = field(default_factory=Map)
    held_for: Map[bytes, tuple[HtlcKey, ...]] = field(default_factory=Map)
    released: Map[HtlcKey, None] = field(default_factory=Map)
    forwards: Map[HtlcKey, Forward] = field(default_factory=Map)
    resolved: Map[HtlcKey, None] = field(default_factory=Map)
    owners: Map[HtlcKey, bytes | Errand] = field(default_factory=Map)
    letters: tuple[Letter, ...] = ()
    finished: Map[int, Forward] = field(default_factory=Map)
    n_finished: int = 0
    earned_msat: int = 0
    n_begun: int = 0
    numbers: Numbers = field(default_factory=Numbers)
    external_ids: Map[str, bytes] = field(default_factory=Map)

    def links_with(self, node_id: bytes) -> tuple[Link, ...]:
        """Return the channels with a peer, oldest first."""
        return tuple(self.links[channel_id] for channel_id in self.by_node.get(node_id, ()))

    @property
    def ordered_links(self) -> tuple[Link, ...]:
        """Every channel in the order of their ids: a map has none, and decisions replay."""
        return tuple(self.links[channel_id] for channel_id in sorted(self.links))

    def is_unpaid(self, key: HtlcKey) -> bool:
        """Say whether nobody showed the preimage of an HTLC of ours, nor is it decided."""
        owner = self.owners.get(key)
        if owner is None:
            return False
        paid_for = self.payments[owner] if isinstance(owner, bytes) else owner
        return paid_for.preimage is None

    def is_awaited(self, key: HtlcKey) -> bool:
        """Say whether an HTLC of a peer waits for an answer of ours, whatever that will be."""
        return key in self.arrived or key in self.held or key in self.forwards

    def place_of_paid(self, key: HtlcKey) -> int | None:
        """Return where a forward is among the finished ones, by its HTLC, if it counts as paid."""
        newest = range(self.n_finished - 1, self.n_finished - len(self.finished) - 1, -1)
        found = (place for place in newest if self.finished[place].incoming == key)
        place = next(found, None)
        return None if place is None or self.finished[place].status != "paid" else place

    def undecided(self, link: Link) -> Iterator[Htlc]:
        """Yield our HTLCs of a channel of which it is not decided what became of them."""
        for live in link.state.htlcs:
            is_ours = live.htlc.offered_by is link.me
            if is_ours and (link.channel_id, live.htlc.htlc_id) in self.owners:
                yield live.htlc

    def with_link(self, link: Link) -> "Book":
        """Return the book with one channel more."""
        known = self.by_node.get(link.node_id, ())
        return changed(
            self,
            links=self.links.set(link.channel_id, link),
            by_node=self.by_node.set(link.node_id, (*known, link.channel_id)),
        )

    def disconnected(self, node_id: bytes) -> "Book":
        """Return the book after a peer's connection ended."""
        return self._with_links(disconnected(link) for link in self.links_with(node_id))

    def all_disconnected(self) -> "Book":
        """Return the book after a restart."""
        return self._with_links(disconnected(link) for link in self.links.values())

    def _with_links(self, links: Iterable[Link]) -> "Book":
        book = self
        for link in links:
            book = changed(book, links=book.links.set(link.channel_id, link))
        return book
