"""Two leaves of one factory are advanced at once: what is remembered of one is no other's."""

from dataclasses import replace
from typing import Any

from immutables import Map
from msgspec.structs import replace as said_otherwise
from tests.protocol.test_advance_steps import BUYER, NEIGHBOUR, STRANGER, at, said

from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal.factory import Factory, apply_to_factory
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
