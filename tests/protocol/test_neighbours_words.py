"""What a client says when it refuses an advance is for the LSP: its neighbours hear that it did."""

from typing import Any, Final

import pytest
from tests.protocol.advance_moments import (
    BUYER,
    NEIGHBOUR,
    Moment,
    Moments,
    of_lsp,
    purchase,
    records,
    said,
    wishes,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol.advancing.lsp import take_message
from cromford.protocol.advancing.rules import Obstacle, told_of
from cromford.protocol.channels.seats import link_of as link_in
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

WORDS: Final = "coverage: expected 5,123,000 msat or more of ours, received 4,000,000 msat"
HEARD: Final = f"client {NEIGHBOUR} refused"


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


def test_why_a_client_refuses_is_not_told_to_its_neighbours(moments: Moments) -> None:
    """It names what it owns: a buyer would learn that of whoever does not agree."""
    pump = moments.market.pump
    buyer, neighbour = moments.market.buyer, pump.client_at(NEIGHBOUR)
    factory = moments.at(m.AdvanceAgree, neighbour).factory
    (advance,) = factory.advances.values()
    abort = m.AdvanceAbort(
        attempt_id=moments.quote.attempt_id, advance_id=advance.advance_id, reason=WORDS
    )
    decision = of_lsp(factory, lambda turn: take_message(turn, neighbour.node_id, abort))
    (dropped,) = records(decision, ar.AdvanceDropped)
    assert dropped.reason == f"{HEARD}: {WORDS}", "the LSP's operator may read it"
    (told,) = wishes(decision, fx.Send)
    assert told.node_id == buyer.node_id
    assert isinstance(told.message, m.AdvanceAbort)
    assert told.message.reason == HEARD


def told_by(factory: Factory, node_id: bytes, message: m.AdvanceMessage) -> Decision[Factory]:
    """Return what an LSP decides about a client's word."""
    return of_lsp(factory, lambda turn: take_message(turn, node_id, message))


def heard(decision: Decision[Factory]) -> set[str]:
    """Return what the clients of a leaf hear of why an advance is over."""
    return {one.reason for one in said(decision) if isinstance(one, m.AdvanceAbort)}


def test_nor_by_hanging_up_where_a_neighbour_may_have_signed(moments: Moments) -> None:
    """That reason is a line of the log, unquoted, under the neighbour's name."""
    buyer, neighbour = moments.market.buyer, moments.market.pump.client_at(NEIGHBOUR)
    factory = moments.at(m.AdvanceCommit, neighbour).factory
    (advance,) = factory.advances.values()
    abort = m.AdvanceAbort(
        attempt_id=moments.quote.attempt_id, advance_id=advance.advance_id, reason=WORDS
    )
    decision = told_by(factory, neighbour.node_id, abort)
    assert records(decision, ar.AdvanceSessionEnded)
    (declined,) = records(decision, ar.AdvanceDeclined)
    assert declined.reason == f"{HEARD}: {WORDS}"
    (parted,) = wishes(decision, fx.Disconnect)
    assert (parted.node_id, parted.reason) == (buyer.node_id, HEARD)


def with_neighbour(factory: Factory, client: int, /, **changes: Any) -> Factory:
    """Return a factory in which a client's channel is otherwise."""
    link = link_in(factory, client)
    assert link is not None
    links = factory.book.links.set(link.channel_id, changed(link, **changes))
    return changed(factory, book=changed(factory.book, links=links))


def last_agreement(moments: Moments) -> tuple[Factory, Moment]:
    """Return a factory in which one agreement is missing, and when that comes."""
    agreements = [one for one in moments.all if isinstance(one.message, m.AdvanceAgree)]
    return agreements[-1].factory, agreements[-1]


@pytest.mark.parametrize("client", [BUYER, NEIGHBOUR])
def test_what_came_in_the_way_of_a_leaf_is_told_by_whose_it_is_alone(
    moments: Moments, client: int
) -> None:
    """That a store was restored helps whoever would lie to it."""
    factory, moment = last_agreement(moments)
    assert isinstance(moment.message, m.AdvanceAgree)
    pump = moments.market.pump
    (sender,) = (one for one in pump.clients if one.name == moment.sender)
    decision = told_by(
        with_neighbour(factory, client, peer_is_behind=True), sender.node_id, moment.message
    )
    (dropped,) = records(decision, ar.AdvanceDropped)
    assert dropped.reason == f"client {client}: a store was restored from a backup"
    assert heard(decision) == {f"client {client} is in the way"}


def test_what_a_buyer_lacks_is_not_told_to_its_neighbours(moments: Moments) -> None:
    """How much it is short of a price that they can compute is what it owns."""
    buyer = moments.market.buyer
    moment = moments.at(m.AdvanceAgree, buyer)
    assert isinstance(moment.message, m.AdvanceAgree)
    link = link_in(moment.factory, BUYER)
    assert link is not None
    poor = with_neighbour(moment.factory, BUYER, state=changed(link.state, accepter_msat=1_000))
    decision = told_by(poor, buyer.node_id, moment.message)
    (dropped,) = records(decision, ar.AdvanceDropped)
    assert "more than its balance" in dropped.reason
    assert heard(decision) == {f"client {BUYER} is in the way"}


def test_what_is_no_clients_business_is_told_as_it_is() -> None:
    late = Obstacle("too_late", "height: expected at most 7, received 8")
    assert told_of(late) == late.reason


def test_whose_business_it_is_is_read_from_no_words() -> None:
    """They are for people, and may say first what is the matter."""
    poor = Obstacle("price", "price_msat: 7 sat is more than its balance", BUYER)
    assert told_of(poor) == f"client {BUYER} is in the way"
    assert told_of(poor, to=NEIGHBOUR) == told_of(poor)
    assert told_of(poor, to=BUYER) == poor.reason
    restored = Obstacle("leaf_blocked", f"a restored store: that of client {NEIGHBOUR}", NEIGHBOUR)
    assert told_of(restored) == f"client {NEIGHBOUR} is in the way"
