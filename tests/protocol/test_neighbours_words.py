"""What a client says when it refuses an advance is for the LSP: its neighbours hear that it did."""

from typing import Final

import pytest
from tests.protocol.advance_moments import NEIGHBOUR, Moments, of_lsp, purchase, records, wishes

from cromford import effects as fx
from cromford.protocol.advancing.lsp import take_message
from cromford.protocol.journal import advance_records as ar
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
