"""What a decision may read besides its own state: true at this moment, and never remembered.

A fact is not folded, so it is not journalled either: a replay does not need it, because the records
say what was decided by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from cromford.bitcoin.tx import OutPoint
from cromford.protocol.policy import SalePrice
from cromford.watch.feerates import OwnFees


class Lacking(NamedTuple):
    """What coins have to hold for something that has too few, and the feerate that is wanted."""

    needed_sat: int
    feerate_sat_per_kw: int


class Directory(Protocol):
    """Who is where, as an LSP's house knows it. A factory asks, and remembers no answer."""

    def is_connected(self, node_id: bytes) -> bool:
        """Say whether a client is connected now."""

    def is_vanished(self, node_id: bytes) -> bool:
        """Say whether nobody waits for a client any more: it was not seen for too long."""

    def streams_of(self, node_id: bytes) -> tuple[str, ...]:
        """Return the streams of the factories in which a client has a channel, oldest first."""

    def lasting_streams_of(self, node_id: bytes) -> tuple[str, ...]:
        """Return those of them in which its channel does not die yet."""

    def hold_seconds(self, node_id: bytes, payment_hash: bytes) -> int:
        """Return how long a payment is held because its payee announced it; 0 if it did not."""

    def has_coins(self, outpoints: Sequence[OutPoint]) -> bool:
        """Say whether the wallet has all these coins, in a block and unspent."""

    def lacking(self) -> Mapping[OutPoint, Lacking]:
        """Return what the house has no coin for now, by what is to be spent."""

    def is_lent_to(self, outpoint: OutPoint) -> bool:
        """Say whether coins of the house are set aside for what spends an outpoint."""

    def n_free_coins(self, least_sat: int) -> int:
        """Return how many coins of this size are in a block, unspent, set aside for nobody."""

    def n_needing_coins(self, *, besides: str) -> int | None:
        """Return how many HTLCs of all factories but one need a coin each; None if none is there.

        Those of a factory that sleeps are none.
        """

    def sale_price(self) -> SalePrice:
        """Return what the operator asks for inbound liquidity now."""

    def waiting_msat(self, node_id: bytes, payment_hash: bytes) -> int:
        """Return what a payment brings a client that waits for it here; 0 if none does."""

    def kept_msat(self, node_id: bytes, payment_hash: bytes, *, besides: str) -> int | None:
        """Return what is kept of a payment for what its payee bought in all factories but one.

        None while it buys out of it there: the payment waits for that.
        """

    def room_msat(self, node_id: bytes) -> int:
        """Return what no HTLC may be larger than that a client could be offered now; 0 for none.

        It may be refused one that is smaller; one that is larger it is.
        """

    def obstacle(
        self,
        stream: str,
        *,
        channel_id: bytes,
        payment_hash: bytes,
        cltv_expiry: int,
        delivery: bytes,
    ) -> str | None:
        """Return why a factory would refuse an HTLC of this channel now, as far as is known."""


class _Nowhere:
    """The directory of a role that needs none: nobody is anywhere."""

    def is_connected(self, node_id: bytes) -> bool:  # noqa: ARG002 - nobody is
        return False

    def is_vanished(self, node_id: bytes) -> bool:  # noqa: ARG002 - nor missed
        return False

    def streams_of(self, node_id: bytes) -> tuple[str, ...]:  # noqa: ARG002 - nor known
        return ()

    def lasting_streams_of(self, node_id: bytes) -> tuple[str, ...]:  # noqa: ARG002 - nor there
        return ()

    def hold_seconds(self, node_id: bytes, payment_hash: bytes) -> int:  # noqa: ARG002 - nor paid
        return 0

    def has_coins(self, outpoints: Sequence[OutPoint]) -> bool:
        return not outpoints

    def lacking(self) -> Mapping[OutPoint, Lacking]:
        return {}

    def is_lent_to(self, outpoint: OutPoint) -> bool:  # noqa: ARG002 - nor lent
        return False

    def n_free_coins(self, least_sat: int) -> int:  # noqa: ARG002 - nor funded
        return 0

    def n_needing_coins(self, *, besides: str) -> int | None:  # noqa: ARG002 - nor offered
        return None

    def sale_price(self) -> SalePrice:
        return SalePrice()

    def waiting_msat(self, node_id: bytes, payment_hash: bytes) -> int:  # noqa: ARG002 - nor paid
        return 0

    def kept_msat(
        self,
        node_id: bytes,  # noqa: ARG002 - nor anybody's
        payment_hash: bytes,  # noqa: ARG002 - the same
        *,
        besides: str,  # noqa: ARG002 - the same
    ) -> int | None:
        return 0

    def room_msat(self, node_id: bytes) -> int:  # noqa: ARG002 - nor to be paid
        return 0

    def obstacle(
        self,
        stream: str,  # noqa: ARG002 - nobody is known
        *,
        channel_id: bytes,  # noqa: ARG002 - the same
        payment_hash: bytes,  # noqa: ARG002 - the same
        cltv_expiry: int,  # noqa: ARG002 - the same
        delivery: bytes,  # noqa: ARG002 - the same
    ) -> str | None:
        return "nobody is known"


NOWHERE: Final[Directory] = _Nowhere()


# Without slots: made anew for each decision.
@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the world now.

    Attributes:
        stale: Why our chain may be behind the world's, in words; None while it is fresh.
        header_height: The height of our node's best header; -1 if it said nothing yet.
        fresh_since: The height from which on the chain has been fresh: what came before it we read
            late, and were away for; -1 if it is not known that we were.
        unmarkable: Why the place of the high-water mark does not take one now, in words: no
            channel is updated. None while it does, or where no place is configured.
        fees: What our node and our operator say of feerates: it prices whatever we sign alone.
        directory: Who is where.
        unix_time: The time by our clock, in seconds; what is remembered is dated by it, and until
            when an invoice can be paid; nothing else is decided. 0 if nobody says.
    """

    stale: str | None = None
    header_height: int = -1
    fresh_since: int = field(default=-1, compare=False)
    unmarkable: str | None = None
    fees: OwnFees = field(default_factory=OwnFees, compare=False)
    directory: Directory = field(default=NOWHERE, compare=False)
    unix_time: int = field(default=0, compare=False)

    @property
    def is_fresh(self) -> bool:
        """Whether what we see of the chain is of this moment."""
        return self.stale is None

    @property
    def why_no_risk(self) -> str | None:
        """Why no new risk may be taken, as a peer may hear it; None if it may."""
        if not self.is_fresh:
            return "our chain is stale"
        return None if self.unmarkable is None else "no mark can be written here"

    @property
    def may_risk(self) -> bool:
        """Whether new risk may be taken: the chain is fresh, and what we remember is marked."""
        return self.why_no_risk is None


FRESH: Final = Facts()  # Our chain is what the world sees.
