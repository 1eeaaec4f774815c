"""A purchase, stopped at each of its messages: what everybody knows there, as values.

One world is run once; what a test wants to be otherwise it changes in a value, and asks the program
for its decision alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import pytest
from immutables import Map
from tests.protocol.markets import Market
from tests.protocol.paying_clients import make_invoice, newest_link
from tests.protocol.pump import PumpNode

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid
from cromford.changed import changed
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Decision, Turn
from cromford.wire import messages as m

BUYER, NEIGHBOUR = 1, 2
AMOUNT_SAT: Final = 20_000
M = TypeVar("M", bound=m.Message)
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What everybody knew just before a message was delivered."""

    message: m.Message
    sender: str
    receiver: str
    buyer: ClientState
    neighbour: ClientState
    factory: Factory


@dataclass
class Moments:
    """All moments of a purchase, from the price that is asked for to its end."""

    market: Market
    quote: m.Quote
    all: list[Moment] = field(default_factory=list)

    def at(self, kind: type[Any], who: PumpNode | None = None) -> Moment:
        """Return the first moment before a message of a kind, from or to somebody."""
        names = {one.name for one in ([who] if who else self.market.pump.clients)}
        return next(
            one
            for one in self.all
            if isinstance(one.message, kind) and names & {one.sender, one.receiver}
        )

    def message(self, kind: type[M]) -> M:
        """Return the first message of a kind to or from the buyer."""
        found = self.at(kind, self.market.buyer).message
        assert isinstance(found, kind)
        return found


@cache
def purchase() -> Moments:
    """Return a purchase by a client that has money, and an invoice that is open."""
    market = Market().with_money()
    make_invoice(market.pump, market.buyer, 50_000_000)
    return bought(market)


def bought(market: Market, *, amount_sat: int = AMOUNT_SAT) -> Moments:
    """Let the buyer buy, and remember every moment of it."""
    pump = market.pump
    moments = Moments(market=market, quote=market.quote(amount_sat))
    order = ev.PurchaseRequested(
        attempt_id=market.attempt_id,
        quote_id=moments.quote.quote_id,
        price_max_msat=moments.quote.price_msat,
    )
    listen, neighbour = pump.tamper, pump.client_at(NEIGHBOUR)

    def remember(by: PumpNode, to: PumpNode, message: m.Message) -> Any:
        moment = Moment(
            message=message,
            sender=by.name,
            receiver=to.name,
            buyer=market.buyer.state,
            neighbour=neighbour.state,
            factory=pump.factory,
        )
        moments.all.append(moment)
        return listen(by, to, message)

    with pump.tampering(remember):
        pump.handle(market.buyer, order)
        pump.run()
    assert newest_link(market.buyer).state.capacity_sat == moments.quote.capacity_sat
    return moments


# What is decided on a value


def of_client(
    state: ClientState, decide: Callable[[Turn[ClientState]], object], facts: Facts = FRESH
) -> Decision[ClientState]:
    """Return what a client decides in one step."""
    turn = Turn(state, client_role.apply, facts)
    decide(turn)
    return turn.decision


def of_lsp(
    state: Factory, decide: Callable[[Turn[Factory]], object], facts: Facts = FRESH
) -> Decision[Factory]:
    """Return what a factory of an LSP decides in one step."""
    turn = Turn(state, apply_to_factory, facts)
    decide(turn)
    return turn.decision


def rejection(state: ClientState, event: ev.Event, facts: Facts = FRESH) -> Rejected:
    """Return why a client's operator may not do something."""
    with pytest.raises(Rejected) as caught:
        client_role.decide(state, event, facts)
    return caught.value


def records(decision: Decision[Any], kind: type[R]) -> list[R]:
    """Return the records of one kind."""
    return [one for one in decision.records if isinstance(one, kind)]


def wishes(decision: Decision[Any], kind: type[R]) -> list[R]:
    """Return the effects of one kind."""
    return [one for one in decision.effects if isinstance(one, kind)]


def said(decision: Decision[Any]) -> list[m.Message]:
    """Return the messages that are sent, in order."""
    return [one.message for one in wishes(decision, fx.Send)]


# Values that are otherwise


def link_of(state: ClientState) -> Link:
    """Return a client's only channel."""
    (link,) = state.book.links.values()
    return link


def with_link(state: ClientState, /, **changes: Any) -> ClientState:
    """Return a client whose only channel is otherwise."""
    link = changed(link_of(state), **changes)
    links = state.book.links.set(link.channel_id, link)
    return changed(state, book=changed(state.book, links=links))


def blocks(chain: KnownChain, n_blocks: int, *txs: Tx) -> KnownChain:
    """Return a chain with so many blocks more, the first of which has some transactions."""
    for n in range(n_blocks):
        block = BlockRef(height=chain.height + 1, block_hash=Txid(bytes(32)))
        chain = chain.with_block(block, () if n else txs)
    return chain


def later(state: ClientState, n_blocks: int, *txs: Tx) -> ClientState:
    """Return a client that saw so many blocks more, the first with some transactions."""
    return changed(state, chain=blocks(state.chain, n_blocks, *txs))


# An LSP's


def channel_of(factory: Factory, client: int) -> Link:
    """Return the channel with a client."""
    return factory.book.links[factory.attempt.setting(client).channel_id]


def with_channel(factory: Factory, client: int, /, **changes: Any) -> Factory:
    """Return a factory in which the channel with a client is otherwise."""
    link = changed(channel_of(factory, client), **changes)
    links = factory.book.links.set(link.channel_id, link)
    return changed(factory, book=changed(factory.book, links=links))


def without_channel(factory: Factory, client: int) -> Factory:
    """Return a factory in which a client's channel is not there yet."""
    links = factory.book.links.delete(factory.attempt.setting(client).channel_id)
    return changed(factory, book=changed(factory.book, links=links))


def with_next(factory: Factory, client: int, /, **changes: Any) -> Factory:
    """Return a factory in which the next funding of a client's channel is otherwise."""
    following = channel_of(factory, client).next
    assert following is not None
    return with_channel(factory, client, next=changed(following, **changes))


def advance_of(factory: Factory) -> LspAdvance:
    """Return the only advance under way."""
    (advance,) = factory.advances.values()
    return advance


def with_advance(factory: Factory, /, **changes: Any) -> Factory:
    """Return a factory whose only advance is otherwise."""
    ((name, advance),) = factory.advances.items()
    return changed(factory, advances=Map({name: replace(advance, **changes)}))


def factory_later(factory: Factory, n_blocks: int, *txs: Tx) -> Factory:
    """Return a factory that saw some blocks more, the first with some transactions."""
    return changed(factory, chain=blocks(factory.chain, n_blocks, *txs))


def here(factory: Factory, *away: int, **facts: Any) -> Facts:
    """Return what is true while all its clients but some are connected."""
    gone = {factory.attempt.seats[client - 1].node_id for client in away}
    directory: Any = SimpleNamespace(is_connected=lambda node_id: node_id not in gone)
    return replace(FRESH, directory=directory, **facts)
