"""Two leaves of one factory are advanced at once: what is remembered of one is no other's."""

from dataclasses import replace
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace as said_otherwise
from tests.protocol.markets import MONEY_MSAT, Market
from tests.protocol.paying_clients import pay
from tests.protocol.test_advance_steps import BUYER, NEIGHBOUR, STRANGER, at, said

from cromford.protocol import events as ev
from cromford.protocol.advancing import rebasing
from cromford.protocol.advancing.buying import answer_to
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

OTHER_ID = b"\x07" * 32


def both(step: type[m.Message]) -> Factory:
    """Return a factory with an advance in each of its leaves, the second of another client's."""
    moment = at(step)
    first = replace(moment.advance, quoted_at=3, ordered_at=4, payment_hash=b"first")
    second = replace(
        first,
        advance_id=OTHER_ID,
        buyer=STRANGER,
        clients=(STRANGER,),
        quoted_at=5,
        ordered_at=6,
        payment_hash=b"second",
    )
    name_of = moment.factory.attempt.leaf_name
    advances = Map({name_of(BUYER): first, name_of(STRANGER): second})
    assert len(advances) == 2
    return replace(moment.factory, advances=advances)


def test_each_sale_is_booked_with_what_is_known_of_its_own_advance() -> None:
    before, first = both(m.UpdateRebase), said(ar.LiquiditySold)
    second = said_otherwise(first, advance_id=OTHER_ID, client=STRANGER)
    for sold, times, payment_hash in ((first, (3, 4), b"first"), (second, (5, 6), b"second")):
        after = apply_to_factory(before, sold)
        booked: Any = after.post.outbox["house"][-1]
        assert (booked.quoted_at, booked.ordered_at) == times
        assert (booked.client, booked.payment_hash) == (sold.client, payment_hash)
        assert after.skims == Map({sold.client: Map({payment_hash: sold.price_msat})})


def test_what_came_to_nothing_counts_as_questions_of_who_wanted_it() -> None:
    before = both(m.AdvancePropose)
    height = before.chain.height
    first = at(m.AdvancePropose).advance.advance_id
    for advance_id, buyer in ((first, BUYER), (OTHER_ID, STRANGER)):
        dropped = ar.AdvanceDropped(
            attempt_id=before.attempt.attempt_id, advance_id=advance_id, reason="why"
        )
        after = apply_to_factory(before, dropped)
        more = {
            seat: after.quoted.asked_at(seat, height) - before.quoted.asked_at(seat, height)
            for seat in (BUYER, NEIGHBOUR, STRANGER)
        }
        assert more == {seat: 16 if seat == buyer else 0 for seat in more}
        assert len(after.advances) == 1


def test_an_advance_knows_when_its_buyer_was_told_the_price() -> None:
    proposed = said(ar.AdvanceProposed)
    begun = replace(at(m.AdvancePropose).factory, advances=Map())
    given = mk.QuoteGiven(
        client=BUYER,
        quote_id=b"q",
        amount_sat=1,
        state_index=1,
        price_msat=3,
        until_height=4,
        payment_hash=b"",
    )
    quoted = apply_to_factory(begun, given, 40)
    (advance,) = apply_to_factory(quoted, proposed, 50).advances.values()
    assert (advance.quoted_at, advance.ordered_at) == (40, 50)


def hanging(*seats: int) -> tuple[Market, dict[int, bytes]]:
    """Return a market in which these buyers went away as they were to sign, and their advances."""
    market = Market(4)
    pump, advances = market.pump, {}
    for seat in seats:
        buyer = pump.client_at(seat)
        assert pay(pump, pump.lsp, buyer, MONEY_MSAT).status == "paid"
        pump.handle(buyer, ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=20_000))
        pump.run()
        quote = answer_to(buyer.state.quotes[market.attempt_id])
        assert isinstance(quote, m.Quote)
        order = ev.PurchaseRequested(
            attempt_id=market.attempt_id,
            quote_id=quote.quote_id,
            price_max_msat=quote.price_msat,
        )
        pump.handle(buyer, order)
        pump.run_to(m.AdvanceSign)
        pump.disconnect(buyer)
        pump.run()
        leaf = pump.attempt.leaf_name(seat)
        advances[seat] = pump.factory.advances[leaf].advance_id
    return market, advances


@pytest.mark.parametrize("seat", [2, 4])
def test_what_is_said_in_a_leaf_goes_on_with_no_advance_of_another(
    seat: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many hang in other leaves: each word would cost what all of them do."""
    market, advances = hanging(1, 3)
    pump, speaker = market.pump, market.pump.client_at(seat)
    pump.connect(speaker)  # It was hung up on, to begin anew without the buyer.
    pump.run()
    looked_at: list[bytes] = []
    end = rebasing.end_what_is_done

    def noted(turn: Turn[Factory], advance: LspAdvance) -> None:
        looked_at.append(advance.advance_id)
        end(turn, advance)

    monkeypatch.setattr(rebasing, "end_what_is_done", noted)
    assert pay(pump, pump.lsp, speaker, 1_000_000).status == "paid"
    asked = m.QuoteRequest(attempt_id=market.attempt_id, amount_sat=20_000, payment_hash=b"")
    pump.tell(pump.lsp, speaker, asked)
    held = m.AdvanceHeld(attempt_id=market.attempt_id, advance_id=advances[1])
    pump.tell(pump.lsp, speaker, held)
    pump.run()
    assert set(looked_at) == {advances[seat - 1]}
    pump.mine()
    assert set(looked_at) == set(advances.values()), "a block asks all of them"
