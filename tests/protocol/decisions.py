"""One decision about one stream, on a state that a world came to: nothing else goes on meanwhile.

What a house would know of others is what a test says; all else is what happened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint
from cromford.protocol import client as client_role
from cromford.protocol.facts import FRESH, Facts, Lacking
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.record import Record
from cromford.protocol.policy import SalePrice
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

STALE: Final = Facts(stale="no block for two hours")
UNMARKABLE: Final = Facts(unmarkable="the mark's place does not answer")

R = TypeVar("R", bound=Record)
E = TypeVar("E", bound=fx.Effect)
M = TypeVar("M", bound=m.Message)


@dataclass(kw_only=True)
class Known:
    """A directory that says what a test says.

    Attributes:
        here: Who is connected.
        streams: In which factories anybody has a channel, oldest first; the same for everybody.
        lasting: Those of them that do not die.
        announced: How long a payment is held, by its hash.
        obstacles: Why a factory would take nothing.
        kept: What other factories keep of any payment, in msat; None if one waits.
        room: What anybody could be offered, in msat.
        coins: How many coins are free.
        elsewhere: How many HTLCs of other factories need one.
        asked: What factories were asked for, in order: the stream and the question.
        least_sat: What a coin had to hold that was asked for last.
    """

    here: frozenset[bytes] = frozenset()
    streams: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()
    announced: Mapping[bytes, int] = field(default_factory=dict)
    obstacles: Mapping[str, str] = field(default_factory=dict)
    kept: int | None = 0
    room: int = 0
    coins: int = 0
    elsewhere: int | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    least_sat: int | None = None

    def is_connected(self, node_id: bytes) -> bool:
        return node_id in self.here

    def is_vanished(self, node_id: bytes) -> bool:
        return node_id not in self.here

    def streams_of(self, _node_id: bytes) -> tuple[str, ...]:
        return self.streams

    def lasting_streams_of(self, _node_id: bytes) -> tuple[str, ...]:
        return self.lasting

    def hold_seconds(self, _node_id: bytes, payment_hash: bytes) -> int:
        return self.announced.get(payment_hash, 0)

    def has_coins(self, outpoints: Sequence[OutPoint]) -> bool:
        return not outpoints

    def lacking(self) -> Mapping[OutPoint, Lacking]:
        return {}

    def is_lent_to(self, _outpoint: OutPoint) -> bool:
        return False

    def n_free_coins(self, least_sat: int) -> int:
        self.least_sat = least_sat
        return self.coins

    def n_needing_coins(self, *, besides: str) -> int | None:
        assert besides
        return self.elsewhere

    def sale_price(self) -> SalePrice:
        return SalePrice()

    def waiting_msat(self, _node_id: bytes, _payment_hash: bytes) -> int:
        return 0

    def kept_msat(self, _node_id: bytes, _payment_hash: bytes, *, besides: str) -> int | None:
        assert besides
        return self.kept

    def room_msat(self, _node_id: bytes) -> int:
        return self.room

    def obstacle(self, stream: str, **question: Any) -> str | None:
        self.asked.append((stream, question))
        return self.obstacles.get(stream)


def in_factory(factory: Factory, facts: Facts = FRESH, known: Known | None = None) -> Turn[Factory]:
    """Return a decision of a factory of the LSP's."""
    told: Any = known or Known()
    facts = replace(facts, directory=told)
    return Turn(factory, apply_to_factory, facts, stream=factory.stream)


def in_client(state: ClientState, facts: Facts = FRESH) -> Turn[ClientState]:
    """Return a decision of a client."""
    return Turn(state, client_role.apply, facts)


def remembered(turn: Turn[Any], kind: type[R]) -> list[R]:
    """Return what a decision remembers of a kind, in order."""
    return [one for one in turn.decision.records if isinstance(one, kind)]


def wished(turn: Turn[Any], kind: type[E]) -> list[E]:
    """Return the effects of a kind that a decision asks for, in order."""
    return [one for one in turn.decision.effects if isinstance(one, kind)]


def said(turn: Turn[Any], kind: type[M]) -> list[M]:
    """Return the messages of a kind that a decision sends, in order."""
    return [one.message for one in wished(turn, fx.Send) if isinstance(one.message, kind)]
