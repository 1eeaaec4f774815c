"""What a client buys of its LSP, and what each of both remembers of prices that were told."""

from dataclasses import replace
from typing import Any

import pytest
from immutables import Map
from tests.protocol.test_client_memory import attempt_of, live

from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal.client_state import apply
from cromford.protocol.journal.purchases import Receipt, receipt_of
from cromford.protocol.journal.quotes import (
    NOTHING_QUOTED,
    VAIN_PURCHASE_ASKS,
    OfferedQuote,
    with_quote_record,
    with_vain_purchase,
    without_quote,
)


def purchase(attempt_id: bytes, **changes: Any) -> ar.PurchaseOrdered:
    known: dict[str, Any] = {
        "quote_id": b"q",
        "amount_sat": 1,
        "capacity_sat": 2,
        "price_msat": 3,
        "takes_beyond": True,
        "valid_until_height": 4,
    }
    return ar.PurchaseOrdered(attempt_id=attempt_id, **(known | changes))


def test_a_purchase_says_when_its_quote_was_heard_and_how_it_is_paid_and_ends_once() -> None:
    attempt_id = attempt_of(live()).attempt_id
    asked = mk.QuoteAsked(attempt_id=attempt_id, amount_sat=1, payment_hash=b"")
    heard = mk.QuoteAnswered(attempt_id=attempt_id, message=b"quote")
    state = apply(apply(live(), asked), heard, at=20)
    state = apply(state, purchase(attempt_id), at=30)
    one = state.purchases[b"q"]
    assert (one.quoted_at, one.ordered_at, one.takes_beyond, one.valid_until_height) == (
        20,
        30,
        True,
        4,
    )
    assert one.rebase_price_msat == 3
    assert replace(one, payment_hash=b"h").rebase_price_msat == 0
    assert not one.is_agreed
    unheard = apply(live(), purchase(attempt_id), at=30)
    assert unheard.purchases[b"q"].quoted_at == 0
    ended = ar.PurchaseEnded(attempt_id=attempt_id, quote_id=b"q", reason="why")
    over = apply(state, ended)
    assert (over.purchases, over.purchase_ended is not None) == (Map(), True)
    assert over.purchase_ended is not None
    assert (over.purchase_ended.quote_id, over.purchase_ended.reason) == (b"q", "why")
    assert apply(over, ended).purchases == Map()
    assert apply(over, purchase(attempt_id)).purchase_ended == over.purchase_ended


def test_a_receipt_has_the_times_of_the_purchase_it_is_for_or_none() -> None:
    attempt_id = attempt_of(live()).attempt_id
    bought_by = apply(live(), purchase(attempt_id, payment_hash=b"h"), at=30).purchases[b"q"]
    record = ar.LiquidityBought(
        attempt_id=attempt_id,
        channel_id=b"c",
        advance_id=b"a",
        height=5,
        amount_sat=1,
        capacity_sat=2,
        price_msat=3,
    )
    plain = Receipt(
        height=5, amount_sat=1, capacity_sat=2, price_msat=3, advance_id=b"a", in_force_at=9
    )
    assert receipt_of(record, None, 9) == plain
    known = replace(bought_by, quoted_at=20)
    assert receipt_of(record, known, 9) == replace(
        plain, quoted_at=20, ordered_at=30, payment_hash=b"h", quote_id=b"q"
    )


def test_of_answers_that_cross_only_the_last_counts() -> None:
    attempt_id = attempt_of(live()).attempt_id
    asked = mk.QuoteAsked(attempt_id=attempt_id, amount_sat=1, payment_hash=b"")
    state = apply(
        apply(live(), asked), mk.QuoteAsked(attempt_id=attempt_id, amount_sat=2, payment_hash=b"h")
    )
    assert state.quotes[attempt_id].n_waiting == 2
    early = apply(state, mk.QuoteAnswered(attempt_id=attempt_id, message=b"first"))
    assert (early.quotes[attempt_id].n_waiting, early.quotes[attempt_id].answer) == (1, b"")
    late = apply(early, mk.QuoteAnswered(attempt_id=attempt_id, message=b"second"), at=8)
    known = late.quotes[attempt_id]
    assert (known.n_waiting, known.answer, known.answered_at) == (0, b"second", 8)
    assert (known.amount_sat, known.payment_hash) == (2, b"h")
    with pytest.raises(AssertionError, match="an answer to no question"):
        apply(live(), mk.QuoteAnswered(attempt_id=attempt_id, message=b""))


def test_an_lsp_counts_questions_of_each_block_and_a_vain_purchase_as_many_of_them() -> None:
    quoted = NOTHING_QUOTED
    assert quoted.asked_at(1, 7) == 0
    for _ in range(2):
        quoted = with_quote_record(quoted, mk.QuoteCounted(client=1), height=7)
    quoted = with_vain_purchase(quoted, 2, height=7)
    assert [quoted.asked_at(client, 7) for client in (1, 2, 3)] == [2, VAIN_PURCHASE_ASKS, 0]
    assert VAIN_PURCHASE_ASKS == 16, "half of what a client may ask between two blocks"
    assert [quoted.asked_at(client, 8) for client in (1, 2)] == [0, 0]
    later = with_quote_record(quoted, mk.QuoteCounted(client=2), height=8)
    assert [later.asked_at(client, 8) for client in (1, 2)] == [0, 1]
    given = mk.QuoteGiven(
        client=1,
        quote_id=b"q",
        amount_sat=1,
        state_index=2,
        price_msat=3,
        until_height=4,
        payment_hash=b"h",
    )
    told = with_quote_record(later, given, 50, height=8)
    offered = OfferedQuote(
        quote_id=b"q",
        amount_sat=1,
        state_index=2,
        price_msat=3,
        until_height=4,
        payment_hash=b"h",
        given_at=50,
    )
    assert (told.newest, told.n_given) == (Map({1: offered}), 1)
    assert without_quote(told, 1).newest == Map()
    assert without_quote(told, 2) is told
