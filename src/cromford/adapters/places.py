"""Who may be connected to a server: places for those who hold channels, and for strangers.

A name costs nothing and an address little, so what strangers may hold is limited by number, by
address and by time. Whoever has a channel comes in all the same: it knows no limit but the whole.
"""

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from ipaddress import IPv6Address, IPv6Network, ip_address
from itertools import islice
from typing import Final

from cromford.allowance import Allowance, Allowances, Rate
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.open_files import OWN_FILES, TooFewFiles
from cromford.recent import Recent

# All who wait for the largest factory are strangers until it is built, and as many places are kept
# for those who have channels: whoever else comes, all clients of a factory of that size come in.
STRANGERS_MAX: Final = N_CLIENTS_MAX
CONNECTIONS_MAX: Final = STRANGERS_MAX + N_CLIENTS_MAX
# Enough for a household or an office behind one address; 64 addresses would fill the lobby's
# places, and each newcomer then ends the oldest of them.
PER_ADDRESS_MAX: Final = 16
# Connections that have not yet said who they are: after a restart a whole factory comes at once.
HANDSHAKES_MAX: Final = N_CLIENTS_MAX
# An honest handshake takes one round trip.
HANDSHAKE_TIMEOUT_SECONDS: Final = 10.0
# A stranger that does not wait in the lobby, and says nothing for this long, makes room.
IDLE_SECONDS: Final = 600.0
# A handshake costs us a millisecond and a greeting. An address that shows more at once goes on
# at the pace of a client that dials again every few seconds.
HANDSHAKES_BURST_PER_PLACE: Final = 2
HANDSHAKES_PER_SECOND_PER_PLACE: Final = 1 / 16
# And all addresses together, but those at which somebody with a channel was seen: as many at once
# as there are places, when everybody comes back after a restart, and then 3 % of a core.
# However few places an operator gives: who has a channel may come from an address never seen.
KNOCKS: Final = Rate(burst=CONNECTIONS_MAX, per_second=32)
# Of those who came with a channel, how many are asked at once whether they still have one.
FORMER_OWNERS_AT_ONCE: Final = 128
ADDRESSES_MAX: Final = 4096  # Of more, those that came longest ago are forgotten.
# Each return of somebody known is written to the journal. A client whose line breaks at once comes
# back every 15 seconds at the least, on average, once its pauses have grown.
RETURNS: Final = Rate(burst=20, per_second=1 / 15)
IDS_MAX: Final = 4096
IPV6_PREFIX: Final = 64  # The smallest network that a subscriber gets: all of it is one of them.


class Relation(enum.Enum):
    """What a peer is to us; it may change while the peer is connected."""

    OWNER = enum.auto()  # It has a channel with us, or a seat in a factory that is being built.
    WAITING = enum.auto()  # It waits in the lobby.
    STRANGER = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server holds at most.

    Attributes:
        connections_max: Peers in all.
        strangers_max: Of them, those without a channel.
        per_address_max: Of these, those of one address.
        handshakes_max: Connections that have not said who they are.
        handshake_seconds: How long they may take to say it.
        idle_seconds: How long a stranger may be silent that does not wait in the lobby.
    """

    connections_max: int = CONNECTIONS_MAX
    strangers_max: int = STRANGERS_MAX
    per_address_max: int = PER_ADDRESS_MAX
    handshakes_max: int = HANDSHAKES_MAX
    handshake_seconds: float = HANDSHAKE_TIMEOUT_SECONDS
    idle_seconds: float = IDLE_SECONDS

    @property
    def n_files(self) -> int:
        """How many files the process may have to open at once."""
        return self.connections_max + self.handshakes_max + OWN_FILES

    def within(self, n_files: int) -> "Limits":
        """Return limits for which this many open files are enough: all of them lowered alike.

        Raises:
            TooFewFiles: If there would be no place for anybody.
        """
        if n_files >= self.n_files:
            return self
        share = Fraction(n_files - OWN_FILES, self.n_files - OWN_FILES)
        connections_max = int(self.connections_max * share)
        handshakes_max = int(self.handshakes_max * share)
        if min(connections_max, handshakes_max) < 1:
            raise TooFewFiles(needed=self.n_files, available=n_files)
        return replace(
            self,
            connections_max=connections_max,
            strangers_max=max(1, int(self.strangers_max * share)),
            handshakes_max=handshakes_max,
        )


def subscriber_of(host: str) -> str:
    """Return what stands for all addresses of one subscriber: IPv4 each, IPv6 by its /64."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host  # No address at all; whoever has none shares one place.
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((address, IPV6_PREFIX), strict=False))
    return str(address)


@dataclass(eq=False, slots=True)
class Place:
    """One connection. `end` ends it; `n_heard` returns how much it asked."""

    subscriber: str
    end: Callable[[], None]
    node_id: bytes = b""
    n_heard: Callable[[], int] = field(default=lambda: 0)
    known_heard: int = -1
    heard_at: float = 0.0


class Places:
    """Gives places, and says whose connection has to end for it.

    Args:
        limits: How many there are.
        relation_of: What a peer is to us now.
    """

    def __init__(self, limits: Limits, relation_of: Callable[[bytes], Relation]) -> None:
        self._limits = limits
        self._relation_of = relation_of
        # In order of arrival: a dict is an ordered set.
        self._pending: dict[Place, None] = {}
        self._owners: dict[Place, None] = {}
        self._strangers: dict[Place, None] = {}
        knocks = Rate(
            burst=HANDSHAKES_BURST_PER_PLACE * limits.per_address_max,
            per_second=HANDSHAKES_PER_SECOND_PER_PLACE * limits.per_address_max,
        )
        self._knocks = Allowances(knocks, users_max=ADDRESSES_MAX)
        self._all_knocks: Allowance | None = None
        self._owners_at = Recent[str, None](ADDRESSES_MAX)
        self._returns = Allowances(RETURNS, users_max=IDS_MAX)

    @property
    def n_pending(self) -> int:
        """How many have not said who they are."""
        return len(self._pending)

    @property
    def n_entered(self) -> int:
        """How many have."""
        return len(self._owners) + len(self._strangers)

    def may_knock(self, subscriber: str, *, now: float) -> bool:
        """Say whether another handshake with this subscriber is due, and count it."""
        if not self._knocks.of(subscriber, now=now).spend(1, now=now):
            return False
        if subscriber in self._owners_at:
            return True
        if self._all_knocks is None:
            self._all_knocks = Allowance(KNOCKS, now=now)
        return self._all_knocks.spend(1, now=now)

    def knock(self, place: Place) -> Place | None:
        """Let somebody say who it is; return whose handshake ends for it.

        The oldest goes, of the same address or of the one that has the most: an honest handshake
        takes one round trip, so whoever fills the places with silence loses them first.
        """
        count = Counter(other.subscriber for other in self._pending)
        evicted = None
        if count[place.subscriber] >= self._limits.per_address_max:
            evicted = _oldest_of(self._pending, place.subscriber)
        elif len(self._pending) >= self._limits.handshakes_max:
            evicted = _oldest_of(self._pending, count.most_common(1)[0][0])
        self._pending[place] = None
        return self._taken(evicted)

    def enter(self, place: Place, node_id: bytes, *, now: float) -> tuple[Place | None, str]:
        """Let somebody in who said who it is.

        Returns:
            Whose connection ends for it, and why it may not come in itself; empty if it may.
        """
        self._pending.pop(place, None)
        if not self._returns.of(node_id, now=now).spend(1, now=now):
            return None, "it comes back too often"
        place.node_id, place.heard_at = node_id, now
        is_owner = self._relation_of(node_id) is Relation.OWNER
        evicted = None if is_owner else self._crowding_out(place.subscriber)
        if evicted is None and self.n_entered >= self._limits.connections_max:
            evicted = self._oldest_stranger(self._strangers)
            if evicted is None and is_owner:
                self._look_for_former_owners()
                evicted = self._oldest_stranger(self._strangers)
            if evicted is None:
                return None, "every place is taken by somebody with a channel"
        (self._owners if is_owner else self._strangers)[place] = None
        if is_owner:
            self._owners_at.note(place.subscriber, None)
        return self._taken(evicted), ""

    def leave(self, place: Place) -> None:
        """Forget a connection that ended. Harmless if there is none."""
        for places in (self._pending, self._owners, self._strangers):
            places.pop(place, None)

    def idle(self, *, now: float) -> tuple[Place, ...]:
        """Return the strangers that were silent for too long, and need no place."""
        self._look_for_former_owners()
        found = []
        for place in self._strangers:
            if place.known_heard != (n_heard := place.n_heard()):
                place.known_heard, place.heard_at = n_heard, now
            elif now - place.heard_at >= self._limits.idle_seconds:
                found.append(place)
        return tuple(p for p in found if self._relation_of(p.node_id) is Relation.STRANGER)

    def _crowding_out(self, subscriber: str) -> Place | None:
        """Return whose connection ends for a stranger's: of its address, or of all strangers."""
        same = [place for place in self._strangers if place.subscriber == subscriber]
        for places, limit in (
            (same, self._limits.per_address_max),
            (list(self._strangers), self._limits.strangers_max),
        ):
            if len(places) >= limit:
                oldest = self._oldest_stranger(places)
                if sum(place in self._strangers for place in places) >= limit:
                    return oldest
        return None

    def _look_for_former_owners(self) -> None:
        """Let those be strangers whose channels are over, or whose build came to nothing: by turns.

        They stay connected for as long as they like, and would take the places of those who have a
        channel.
        """
        for place in list(islice(self._owners, FORMER_OWNERS_AT_ONCE)):
            del self._owners[place]
            is_owner = self._relation_of(place.node_id) is Relation.OWNER
            (self._owners if is_owner else self._strangers)[place] = None

    def _oldest_stranger(self, places: Iterable[Place]) -> Place | None:
        """Return who goes first: who wants nothing, then who waits; owners are none of them."""
        waiting: Place | None = None
        for place in list(places):
            match self._relation_of(place.node_id):
                case Relation.STRANGER:
                    return place
                case Relation.WAITING:
                    waiting = waiting or place
                case Relation.OWNER:
                    # It came as a stranger, and has a channel by now.
                    del self._strangers[place]
                    self._owners[place] = None
        return waiting

    def _taken(self, place: Place | None) -> Place | None:
        if place is not None:
            self.leave(place)
        return place


def _oldest_of(places: Iterable[Place], subscriber: str) -> Place:
    return next(place for place in places if place.subscriber == subscriber)
