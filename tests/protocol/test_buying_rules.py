"""What is in the way of a purchase, one by one, and what is believed of an answer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    AMOUNT_SAT,
    Moments,
    later,
    link_of,
    of_client,
    purchase,
    rejection,
    said,
    with_link,
)

from cromford import told
from cromford.changed import changed
from cromford.channel.commitment import build_commitment
from cromford.channel.content import CommitmentContent
from cromford.channel.rebase import payable_msat
from cromford.channel.terms import Party
from cromford.factory.allocation import Purchase
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.advancing import buying
from cromford.protocol.advancing.buying import (
    WRONG_QUOTE,
    answer_to,
    most_owned_sat,
)
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal.book import OwnInvoice
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.mark import StoreMark
from cromford.wire import messages as m
from cromford.wire.messages import decode_message, encode_message

OTHER: Final = b"\x07" * 32
FAR: Final = 1 << 40
SIX_HOURS: Final = 36  # In blocks.


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def ordered(moments: Moments) -> ClientState:
    """Return a buyer whose LSP has not heard of it."""
    return moments.at(m.Buy).buyer


@pytest.fixture(scope="module")
def asked(ordered: ClientState) -> ClientState:
    """Return a client that heard a price, and may buy by it."""
    return changed(ordered, purchases=Map())


@pytest.fixture(scope="module")
def agreed(moments: Moments) -> ClientState:
    """Return a buyer that agreed to an advance, and did not sign."""
    return moments.at(m.AdvanceCommit, moments.market.buyer).buyer


@pytest.fixture(scope="module")
def signed(moments: Moments) -> ClientState:
    """Return a buyer that signed."""
    return moments.at(m.AdvanceDone, moments.market.buyer).buyer


def order(moments: Moments, **changes: Any) -> ev.PurchaseRequested:
    quote = moments.quote
    wanted = ev.PurchaseRequested(
        attempt_id=quote.attempt_id, quote_id=quote.quote_id, price_max_msat=quote.price_msat
    )
    return replace(wanted, **changes)


def question(moments: Moments, **changes: Any) -> ev.QuoteRequested:
    wanted = ev.QuoteRequested(attempt_id=moments.quote.attempt_id, amount_sat=AMOUNT_SAT)
    return replace(wanted, **changes)


def with_answer(state: ClientState, quote: m.Quote, **wanted: Any) -> ClientState:
    """Return a client that heard another quote, or asked for another."""
    known = state.quotes[quote.attempt_id]
    heard = replace(known, answer=encode_message(quote), **wanted)
    return changed(state, quotes=state.quotes.set(quote.attempt_id, heard))


def invoice_of(state: ClientState) -> OwnInvoice:
    return max(state.book.invoices.values(), key=lambda one: one.number)


def with_invoice(state: ClientState, **changes: Any) -> ClientState:
    invoice = changed(invoice_of(state), **changes)
    invoices = state.book.invoices.set(invoice.payment_hash, invoice)
    return changed(state, book=changed(state.book, invoices=invoices))


# Asking


NO_USE: Final = "nothing is bought for this channel: "
Disturb = Callable[[ClientState], ClientState]
IN_THE_WAY: Final[dict[str, tuple[Disturb, str, bool]]] = {
    "not connected to the LSP": (
        lambda one: changed(one, is_connected=False),
        "lsp_unreachable",
        True,
    ),
    "not connected to the LSP: another is": (
        lambda one: changed(one, lsp_node_id=OTHER),
        "lsp_unreachable",
        True,
    ),
    f"{NO_USE}it broke": (lambda one: with_link(one, failure="it broke"), "no_channel", False),
    f"{NO_USE}no payment may begin in this channel any more": (
        lambda one: with_link(one, mark=StoreMark()),
        "no_channel",
        False,
    ),
    f"{NO_USE}no payment may begin in this channel any more: too late": (
        lambda one: later(one, link_of(one).exit_deadline_height - one.chain.height),
        "no_channel",
        False,
    ),
    "the channel is not open yet: ask again": (
        lambda one: with_link(one, state=changed(link_of(one).state, is_connected=False)),
        "no_channel",
        True,
    ),
    "there is no channel in this factory yet": (
        lambda one: changed(one, book=changed(one.book, links=Map())),
        "no_channel",
        True,
    ),
    "there is no channel in this factory yet: no factory": (
        lambda one: changed(one, attempts={}),
        "no_channel",
        True,
    ),
}


@pytest.mark.parametrize("why", IN_THE_WAY)
def test_nobody_asks_for_a_price_or_buys_for_a_channel_that_could_not_use_it(
    moments: Moments, asked: ClientState, why: str
) -> None:
    disturb, code, is_retryable = IN_THE_WAY[why]
    for event in (question(moments), order(moments)):
        refused = rejection(disturb(asked), event)
        assert (refused.code, refused.retryable) == (code, is_retryable)
        assert why.startswith(str(refused).removeprefix(f"{code}: "))


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (replace(FRESH, stale="no block for hours"), "chain_stale"),
        (replace(FRESH, unmarkable="the disk is full"), "mark_unreachable"),
    ],
)
def test_nobody_asks_or_buys_while_no_risk_may_be_taken(
    moments: Moments, asked: ClientState, facts: Facts, code: str
) -> None:
    for event in (question(moments), order(moments)):
        assert rejection(asked, event, facts).code == code


def test_what_is_asked_for_is_remembered_and_sent(moments: Moments, asked: ClientState) -> None:
    invoice = invoice_of(asked)
    event = question(moments, payment_hash=invoice.payment_hash, amount_sat=0)
    decision = client_role.decide(asked, event)
    named: dict[str, Any] = {
        "attempt_id": event.attempt_id,
        "amount_sat": 0,
        "payment_hash": invoice.payment_hash,
    }
    assert list(decision.records) == [mk.QuoteAsked(**named)]
    assert said(decision) == [m.QuoteRequest(**named)]


def test_of_two_factories_each_channel_is_asked_for_by_itself(
    moments: Moments, asked: ClientState
) -> None:
    link = link_of(asked)
    failed = changed(link, channel_id=bytes(32), attempt_id=OTHER, failure="it broke")
    links = Map({failed.channel_id: failed, link.channel_id: link})
    both = changed(
        asked,
        book=changed(asked.book, links=links),
        attempts={OTHER: asked.attempts[link.attempt_id], **asked.attempts},
    )
    assert said(client_role.decide(both, question(moments)))
    why = rejection(both, question(moments, attempt_id=OTHER))
    assert str(why).endswith("it broke")


@pytest.mark.parametrize(
    ("changes", "received"), [({"is_expired": True}, "one that is expired"), (None, "none")]
)
def test_only_a_payment_that_can_still_come_pays(
    moments: Moments, asked: ClientState, changes: dict[str, Any] | None, received: str
) -> None:
    state = with_invoice(asked, **(changes or {}))
    named = OTHER if changes is None else invoice_of(asked).payment_hash
    events = (question(moments, payment_hash=named), order(moments))
    for event in events:
        why = rejection(with_answer(state, moments.quote, payment_hash=named), event)
        assert (why.code, str(why).rpartition(", ")[2]) == (
            "invoice_unknown",
            f"received {received}",
        )


# What is heard


def hear(state: ClientState, message: m.QuoteMessage) -> list[Any]:
    """Return what a client remembers of a message about prices."""
    return list(of_client(state, lambda turn: buying.take_message(turn, message)).records)


def waiting(state: ClientState, moments: Moments, *, amount_sat: int = AMOUNT_SAT) -> ClientState:
    """Return a client that asked, and has no answer yet."""
    known = state.quotes[moments.quote.attempt_id]
    asking = replace(known, answer=b"", n_waiting=1, amount_sat=amount_sat)
    return changed(state, quotes=state.quotes.set(moments.quote.attempt_id, asking))


def lies(moments: Moments, asked: ClientState) -> dict[str, tuple[m.Quote, str]]:
    quote = moments.quote
    leaf = asked.attempts[quote.attempt_id].leaf
    other = leaf.sold(Purchase(buyer=1, amount_sat=AMOUNT_SAT + 1))
    too_much = leaf.allocation.lstock_sat + 1
    return {
        "another amount, all else by it": (
            replace(
                quote,
                amount_sat=AMOUNT_SAT + 1,
                capacity_sat=other.allocation.capacities_sat[0],
            ),
            f"amount_sat: expected {AMOUNT_SAT}, received {AMOUNT_SAT + 1}",
        ),
        "more than there is": (replace(quote, amount_sat=too_much), f"received {too_much}"),
        "another state": (replace(quote, state_index=2), "state_index: expected 1, received 2"),
        "a larger channel": (
            replace(quote, capacity_sat=quote.capacity_sat + 1),
            f"capacity_sat: expected {quote.capacity_sat}, received {quote.capacity_sat + 1}",
        ),
        "more sales": (
            replace(quote, sales_left=quote.sales_left + 1),
            f"sales_left: expected {quote.sales_left}, received {quote.sales_left + 1}",
        ),
    }


@pytest.mark.parametrize(
    "lie",
    [
        "another amount, all else by it",
        "more than there is",
        "another state",
        "a larger channel",
        "more sales",
    ],
)
def test_what_is_not_so_in_a_quote_is_named_and_nothing_can_be_bought_by_it(
    moments: Moments, asked: ClientState, lie: str
) -> None:
    quote, why = lies(moments, asked)[lie]
    (answered,) = hear(waiting(asked, moments), quote)
    refused = decode_message(answered.message)
    assert isinstance(refused, m.QuoteRefused)
    assert refused.reason.endswith(why)
    assert refused == m.QuoteRefused(
        attempt_id=quote.attempt_id,
        quote_id=b"",
        code=WRONG_QUOTE,
        reason=refused.reason,
        missing_msat=0,
        next_factory=0,
    )
    state = of_client(waiting(asked, moments), lambda turn: buying.take_message(turn, quote)).state
    assert rejection(state, order(moments)).code == "quote_unknown"


def test_who_asks_for_all_is_told_how_much_that_is(moments: Moments, asked: ClientState) -> None:
    leaf = asked.attempts[moments.quote.attempt_id].leaf
    after = leaf.sold(Purchase(buyer=1, amount_sat=None))
    quote = replace(
        moments.quote,
        amount_sat=leaf.allocation.lstock_sat,
        capacity_sat=after.allocation.capacities_sat[0],
        sales_left=after.sales_left,
    )
    for amount_sat, is_true in ((0, True), (leaf.allocation.lstock_sat, True), (1, False)):
        (answered,) = hear(waiting(asked, moments, amount_sat=amount_sat), quote)
        assert (answered.message == encode_message(quote)) is is_true


def refusal(moments: Moments, **changes: Any) -> m.QuoteRefused:
    refused = m.QuoteRefused(
        attempt_id=moments.quote.attempt_id,
        quote_id=b"",
        code="no_stock",
        reason="it is gone",
        missing_msat=0,
        next_factory=0,
    )
    return replace(refused, **changes)


def test_a_refusal_is_an_answer_to_who_asked_and_to_nobody_else(
    moments: Moments, asked: ClientState
) -> None:
    refused = refusal(moments)
    answered = mk.QuoteAnswered(attempt_id=refused.attempt_id, message=encode_message(refused))
    assert hear(waiting(asked, moments), refused) == [answered]
    assert hear(asked, refused) == [], "it has its answer"
    assert hear(asked, replace(refused, attempt_id=OTHER)) == []


def test_a_refusal_of_a_purchase_ends_it_until_an_advance_for_it_is_signed(
    moments: Moments, ordered: ClientState, agreed: ClientState, signed: ClientState
) -> None:
    refused = refusal(moments, quote_id=moments.quote.quote_id)
    ended = ar.PurchaseEnded(
        attempt_id=refused.attempt_id, quote_id=refused.quote_id, reason="no_stock: it is gone"
    )
    assert hear(ordered, refused) == [ended]
    assert hear(agreed, refused) == [ended]
    assert hear(signed, refused) == []
    assert hear(waiting(ordered, moments), replace(refused, quote_id=OTHER)) == []
    (advance,) = signed.advances.values()
    another = changed(
        signed, advances=Map({refused.attempt_id: replace(advance, quote_id=b"", price_msat=0)})
    )
    assert hear(another, refused) == [ended], "what is signed is the neighbour's purchase"


def test_what_is_no_answer_is_none(asked: ClientState, moments: Moments) -> None:
    (wanted,) = asked.quotes.values()
    assert answer_to(wanted) == moments.quote
    assert answer_to(replace(wanted, answer=b"")) is None
    wrong = replace(wanted, answer=encode_message(moments.message(m.Buy)))
    with pytest.raises(AssertionError, match="Buy is no answer"):
        answer_to(wrong)


# Buying


def test_an_order_is_remembered_and_sent(moments: Moments, asked: ClientState) -> None:
    quote = moments.quote
    decision = client_role.decide(asked, order(moments))
    assert list(decision.records) == [
        ar.PurchaseOrdered(
            attempt_id=quote.attempt_id,
            quote_id=quote.quote_id,
            amount_sat=AMOUNT_SAT,
            capacity_sat=quote.capacity_sat,
            price_msat=quote.price_msat,
            valid_until_height=quote.valid_until_height,
        )
    ]
    (buy,) = said(decision)
    assert buy == m.Buy(attempt_id=quote.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
    payment_hash = invoice_of(asked).payment_hash
    paid_by_it = with_answer(asked, quote, payment_hash=payment_hash)
    (buy,) = said(client_role.decide(paid_by_it, order(moments)))
    assert buy == m.Buy(
        attempt_id=quote.attempt_id, quote_id=quote.quote_id, payment_hash=payment_hash
    )


def test_nothing_is_bought_by_what_was_not_quoted(moments: Moments, asked: ClientState) -> None:
    refused = encode_message(refusal(moments))
    (known,) = asked.quotes.values()
    none_heard = changed(asked, quotes=Map({moments.quote.attempt_id: replace(known, answer=b"")}))
    was_refused = changed(
        asked, quotes=Map({moments.quote.attempt_id: replace(known, answer=refused)})
    )
    for state in (changed(asked, quotes=Map()), none_heard, was_refused):
        assert rejection(state, order(moments)).code == "quote_unknown"
    assert rejection(asked, order(moments, quote_id=OTHER)).code == "quote_unknown"


def test_one_purchase_at_a_time_in_a_factory_and_no_name_twice(
    moments: Moments, asked: ClientState, ordered: ClientState
) -> None:
    (known,) = ordered.purchases.values()
    elsewhere = replace(known, attempt_id=OTHER)
    here = replace(known, quote_id=OTHER)
    for one, is_free in (
        (known, False),
        (elsewhere, False),
        (here, False),
        (replace(elsewhere, quote_id=OTHER), True),
    ):
        state = changed(asked, purchases=Map({one.quote_id: one}))
        if is_free:
            assert said(client_role.decide(state, order(moments)))
        else:
            why = rejection(state, order(moments))
            assert (why.code, why.retryable) == ("purchase_under_way", True)


def test_a_quote_holds_at_its_last_height_and_not_at_the_next(
    moments: Moments, asked: ClientState
) -> None:
    last = moments.quote.valid_until_height
    assert said(client_role.decide(asked, order(moments), replace(FRESH, header_height=last)))
    why = rejection(asked, order(moments), replace(FRESH, header_height=last + 1))
    assert str(why).endswith(f"height: expected at most {last}, received {last + 1}")
    assert why.code == "quote_expired"


def test_a_quote_of_another_state_of_the_leaf_is_old(moments: Moments, asked: ClientState) -> None:
    state = with_answer(asked, replace(moments.quote, state_index=2))
    why = rejection(state, order(moments))
    assert why.code == "quote_expired"
    assert "state_index: expected 1, received 2: the leaf was sold of since" in str(why)


@pytest.mark.parametrize(
    ("extra", "wait"), [(0, 0), (SIX_HOURS - 1, SIX_HOURS - 1), (FAR, SIX_HOURS)]
)
def test_the_lsp_may_begin_until_its_quote_ends_and_no_longer_than_six_hours(
    moments: Moments, asked: ClientState, extra: int, wait: int
) -> None:
    height = asked.chain.height
    state = with_answer(asked, replace(moments.quote, valid_until_height=height + extra))
    (record,) = client_role.decide(state, order(moments)).records
    assert isinstance(record, ar.PurchaseOrdered)
    assert record.valid_until_height == height + wait


def test_the_balance_has_to_carry_the_price_and_what_lacks_is_said(
    moments: Moments, asked: ClientState
) -> None:
    most = payable_msat(link_of(asked).state)
    dear = with_answer(asked, replace(moments.quote, price_msat=most))
    assert said(client_role.decide(dear, order(moments, price_max_msat=most)))
    dearer = with_answer(asked, replace(moments.quote, price_msat=most + 7))
    why = rejection(dearer, order(moments, price_max_msat=most + 7))
    assert (why.code, why.retryable) == ("insufficient_balance", True)
    assert str(why).endswith(
        f"price_msat: expected at most {told.msat(most)} by the balance, received "
        f"{told.msat(most + 7)}: {told.msat(7)} are missing"
    )
    assert rejection(dearer, order(moments, price_max_msat=most + 6)).code == "price_too_high"


def test_a_payment_pays_a_price_that_leaves_something_of_it_whatever_the_balance_is(
    moments: Moments, asked: ClientState
) -> None:
    price_msat = payable_msat(link_of(asked).state) + 1
    for more_msat, is_enough in ((1, True), (0, False), (-1, False)):
        state = with_answer(
            with_invoice(asked, amount_msat=price_msat + more_msat),
            replace(moments.quote, price_msat=price_msat),
            payment_hash=invoice_of(asked).payment_hash,
        )
        event = order(moments, price_max_msat=price_msat)
        if is_enough:
            (record,) = client_role.decide(state, event).records
            assert isinstance(record, ar.PurchaseOrdered)
            assert record.payment_hash == invoice_of(asked).payment_hash
            continue
        why = rejection(state, event)
        assert (why.code, why.retryable) == ("insufficient_balance", False)
        assert str(why).endswith(
            f"price_msat: expected less than the payment's {told.msat(price_msat + more_msat)}, "
            f"received {told.msat(price_msat)}"
        )


def test_poisons_have_to_cover_what_may_become_ours_and_what_is(
    moments: Moments, asked: ClientState, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = most_owned_sat(link_of(asked), moments.quote.capacity_sat)
    owed_msat = 0

    def answer(covered_sat: int, **said_too: Any) -> str:
        monkeypatch.setattr(buying, "covered_by", lambda *_: covered_sat)
        monkeypatch.setattr(buying, "owed_msat", lambda _: owed_msat)
        try:
            (record,) = client_role.decide(asked, order(moments, **said_too)).records
        except Rejected as why:
            return f"{why.code}: {why}"
        assert isinstance(record, ar.PurchaseOrdered)
        return "beyond" if record.takes_beyond else "covered"

    def check_is_refused(covered_sat: int) -> None:
        why = answer(covered_sat)
        assert why.startswith("not_covered: ")
        assert f"expected at least {most}" in why
        assert f"received {covered_sat}" in why

    assert answer(most) == "covered"
    check_is_refused(most - 1)
    assert answer(most - 1, beyond_coverage=True) == "beyond"
    owed_msat = most * 1_000
    assert answer(most) == "covered"
    owed_msat = most * 1_000 + 1
    check_is_refused(most)
    assert answer(most + 1) == "covered"


@pytest.mark.parametrize("capacity_sat", [40_000, 5_000_000])
@pytest.mark.parametrize("feerate", [0, 253])
def test_the_most_that_a_channel_may_come_to_hold_leaves_the_lsp_what_it_has_to_keep(
    asked: ClientState, capacity_sat: int, feerate: int
) -> None:
    """Its reserve, which is never less than what it pays for a commitment."""
    link = link_of(asked)
    terms = replace(link.state.terms, feerate_per_kw=feerate)
    link = changed(link, state=changed(link.state, terms=terms))
    most = most_owned_sat(link, capacity_sat)
    assert most == capacity_sat - terms.reserve_sat(Party.OPENER, capacity_sat=capacity_sat)
    content = CommitmentContent(
        holder=Party.ACCEPTER,
        number=1,
        opener_msat=(capacity_sat - most) * 1_000,
        accepter_msat=most * 1_000,
    )
    build_commitment(
        content,
        funding=replace(link.present, capacity_sat=capacity_sat),
        terms=terms,
        keys=link.setting.keys,
        per_commitment_point=link.own_point,
    )
