"""What an LSP sells, for what, and whose signatures it takes: one by one."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advance_moments import (
    AMOUNT_SAT,
    BUYER,
    NEIGHBOUR,
    Moments,
    advance_of,
    channel_of,
    factory_later,
    of_lsp,
    purchase,
    records,
    said,
    wishes,
    with_channel,
    without_channel,
)

from cromford import effects as fx
from cromford import told
from cromford.changed import changed
from cromford.channel.rebase import payable_msat
from cromford.protocol import policy
from cromford.protocol.advancing import lsp, selling, sessions
from cromford.protocol.advancing.sales import NotSold, Sale
from cromford.protocol.advancing.selling import QUOTE_BLOCKS, QUOTES_PER_BLOCK
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.quotes import OfferedQuote, Quoted
from cromford.protocol.policy import SalePrice
from cromford.protocol.turn import Decision, Turn
from cromford.wire import messages as m

OTHER: Final = b"\x07" * 32
FREE: Final = SalePrice(base_msat=0, per_million=0, per_month=0)


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def quiet(moments: Moments) -> Factory:
    """Return a factory before anything is bought."""
    return moments.at(m.Buy).factory


# The market


class Directory:
    """Who is here, what it costs, and what waits for whom."""

    def __init__(
        self,
        price: SalePrice = FREE,
        *,
        away: int = 0,
        waiting_msat: int = 0,
        kept_msat: int | None = 0,
    ) -> None:
        self.price, self.away, self.waits, self.kept = price, away, waiting_msat, kept_msat
        self.asked: list[tuple[bytes, bytes]] = []
        self.seats: Any = ()

    def facts(self, factory: Factory) -> Facts:
        self.seats = factory.attempt.seats
        directory: Any = SimpleNamespace(
            is_connected=self.is_connected,
            sale_price=lambda: self.price,
            waiting_msat=self.waiting_msat,
            kept_msat=self.kept_msat,
        )
        return replace(FRESH, directory=directory)

    def is_connected(self, node_id: bytes) -> bool:
        return not self.away or node_id != self.seats[self.away - 1].node_id

    def waiting_msat(self, node_id: bytes, payment_hash: bytes) -> int:
        self.asked.append((node_id, payment_hash))
        return self.waits

    def kept_msat(self, node_id: bytes, payment_hash: bytes, *, besides: str) -> int | None:
        assert (node_id, payment_hash) == self.asked[-1]
        assert besides
        return self.kept


def hear(
    factory: Factory,
    message: m.QuoteRequest | m.Buy,
    directory: Directory | None = None,
    *,
    client: int = BUYER,
) -> Decision[Factory]:
    node_id = factory.attempt.seats[client - 1].node_id
    facts = (directory or Directory()).facts(factory)
    return of_lsp(factory, lambda turn: selling.take_message(turn, node_id, message), facts)


def refusal(decision: Decision[Factory]) -> m.QuoteRefused:
    (answer,) = said(decision)
    assert isinstance(answer, m.QuoteRefused), answer
    return answer


def asked(moments: Moments, **changes: Any) -> m.QuoteRequest:
    request = m.QuoteRequest(
        attempt_id=moments.quote.attempt_id, amount_sat=AMOUNT_SAT, payment_hash=b""
    )
    return replace(request, **changes)


def test_whoever_has_no_seat_is_not_answered(moments: Moments, quiet: Factory) -> None:
    facts = Directory().facts(quiet)
    for message in (asked(moments), moments.message(m.Buy)):
        take = partial(selling.take_message, node_id=OTHER, message=message)
        assert of_lsp(quiet, take, facts).is_nothing


def test_every_question_counts_the_refused_too_and_the_33rd_is_not_answered(
    moments: Moments, quiet: Factory
) -> None:
    height = quiet.chain.height
    assert hear(quiet, asked(moments, amount_sat=1)).state.quoted.asked_at(BUYER, height) == (
        quiet.quoted.asked_at(BUYER, height) + 1
    )

    def having_asked(n_asked: int) -> Factory:
        counted = replace(quiet.quoted, n_asked=Map({BUYER: n_asked}), height=height)
        return changed(quiet, quoted=counted)

    decision = hear(having_asked(QUOTES_PER_BLOCK - 1), asked(moments))
    assert isinstance(said(decision)[0], m.Quote)
    assert decision.state.quoted.asked_at(BUYER, height) == QUOTES_PER_BLOCK
    late = hear(decision.state, asked(moments))
    assert refusal(late).code == "too_many_requests"
    assert late.state.quoted.asked_at(BUYER, height) == QUOTES_PER_BLOCK
    assert isinstance(said(hear(decision.state, asked(moments), client=NEIGHBOUR))[0], m.Quote)
    assert not isinstance(said(late)[0], m.Quote)


def test_of_a_neighbour_that_is_in_the_way_no_more_is_said(
    moments: Moments, quiet: Factory
) -> None:
    blocked = with_channel(quiet, NEIGHBOUR, failure="its own business: a secret")
    answer = refusal(hear(blocked, asked(moments)))
    assert (answer.code, answer.reason) == ("leaf_blocked", "client 2 is in the way")
    own = refusal(hear(with_channel(quiet, BUYER, failure="a secret"), asked(moments)))
    assert own.code == "leaf_blocked"
    assert own.reason.startswith("client 1: "), "what is its own it hears"
    unready = without_channel(quiet, BUYER)
    with pytest.raises(NotSold, match="leaf_blocked: client 1: its channel is not ready"):
        selling.channel_of(unready, BUYER)


def test_the_least_that_is_sold_is_what_the_operator_says_or_all(
    moments: Moments, quiet: Factory
) -> None:
    lstock_sat = quiet.attempt.leaf(BUYER).allocation.lstock_sat
    price = replace(FREE, min_sat=AMOUNT_SAT)
    assert isinstance(said(hear(quiet, asked(moments), Directory(price)))[0], m.Quote)
    too_little = hear(quiet, asked(moments, amount_sat=AMOUNT_SAT - 1), Directory(price))
    assert refusal(too_little).code == "amount_too_small"
    dear = replace(FREE, min_sat=lstock_sat + 1)
    for amount_sat in (0, lstock_sat):
        (quote,) = said(hear(quiet, asked(moments, amount_sat=amount_sat), Directory(dear)))
        assert isinstance(quote, m.Quote)
        assert quote.amount_sat == lstock_sat


def test_what_makes_a_channel_a_large_one_is_not_quoted_before_its_funding_is_deep(
    moments: Moments, quiet: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "LARGE_CAPACITY_SAT", moments.quote.capacity_sat)
    depth = quiet.chain.depth(quiet.attempt.funding_tx.txid)
    shallow = refusal(hear(quiet, asked(moments)))
    assert shallow.code == "not_funded"
    assert shallow.reason.endswith(f"expected 6, received {depth} confirmations")
    assert isinstance(said(hear(quiet, asked(moments, amount_sat=AMOUNT_SAT - 1)))[0], m.Quote)
    deep = factory_later(quiet, 6 - depth)
    assert isinstance(said(hear(deep, asked(moments)))[0], m.Quote)


def test_a_quote_is_given_for_a_few_blocks_and_not_beyond_the_last_height(
    moments: Moments, quiet: Factory
) -> None:
    last = selling.last_height(quiet, BUYER)
    far = factory_later(quiet, last - 2 - quiet.chain.height)
    for factory, until in ((quiet, quiet.chain.height + QUOTE_BLOCKS), (far, last)):
        decision = hear(factory, asked(moments))
        (quote,) = said(decision)
        assert isinstance(quote, m.Quote)
        assert quote.valid_until_height == until
        given = decision.state.quoted.newest[BUYER]
        assert given == OfferedQuote(
            quote_id=quote.quote_id,
            amount_sat=AMOUNT_SAT,
            state_index=1,
            price_msat=0,
            until_height=until,
            payment_hash=b"",
        )


def test_a_price_is_paid_by_the_balance_or_by_the_payment_that_waits(
    moments: Moments, quiet: Factory
) -> None:
    most = payable_msat(channel_of(quiet, BUYER).state)
    node_id = quiet.attempt.seats[BUYER - 1].node_id

    def answer(price_msat: int, waiting_msat: int = 0, payment_hash: bytes = b"") -> m.Message:
        directory = Directory(replace(FREE, base_msat=price_msat), waiting_msat=waiting_msat)
        (word,) = said(hear(quiet, asked(moments, payment_hash=payment_hash), directory))
        assert directory.asked == ([(node_id, payment_hash)] if payment_hash else [])
        return word

    assert isinstance(answer(most), m.Quote)
    lacking = answer(most + 7)
    assert isinstance(lacking, m.QuoteRefused)
    assert (lacking.code, lacking.missing_msat) == ("insufficient_balance", 7)
    assert isinstance(answer(most + 7, most + 8, OTHER), m.Quote)
    for waiting_msat, missing_msat in ((most + 7, 1), (most, 8)):
        short = answer(most + 7, waiting_msat, OTHER)
        assert isinstance(short, m.QuoteRefused)
        assert (short.code, short.missing_msat) == ("insufficient_balance", missing_msat)
    none_waits = answer(0, 0, OTHER)
    assert isinstance(none_waits, m.QuoteRefused)
    assert none_waits.code == "payment_not_here"


def test_a_payment_pays_for_what_its_payee_bought_elsewhere_first(
    moments: Moments, quiet: Factory
) -> None:
    def answer(kept_msat: int | None, *, here_msat: int = 0, whose: int = BUYER) -> m.Message:
        price = replace(FREE, base_msat=10)
        directory = Directory(price, waiting_msat=100, kept_msat=kept_msat)
        factory = changed(quiet, skims=Map({whose: Map({OTHER: here_msat})}))
        (word,) = said(hear(factory, asked(moments, payment_hash=OTHER), directory))
        return word

    assert isinstance(answer(89), m.Quote)
    short = answer(90)
    assert isinstance(short, m.QuoteRefused)
    assert (short.code, short.missing_msat) == ("insufficient_balance", 1)
    busy = answer(None)
    assert isinstance(busy, m.QuoteRefused)
    assert (busy.code, busy.missing_msat) == ("leaf_busy", 0)
    assert isinstance(answer(80, here_msat=9), m.Quote)
    both = answer(80, here_msat=10)
    assert isinstance(both, m.QuoteRefused)
    assert (both.code, both.missing_msat) == ("insufficient_balance", 1)
    assert isinstance(answer(89, here_msat=50, whose=NEIGHBOUR), m.Quote), "what it buys it pays"


@pytest.mark.parametrize("have_msat", [-5, 0, 4])
def test_what_is_missing_is_counted_from_nothing_where_the_balance_is_below_it(
    quiet: Factory, have_msat: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's fees may be above what it has: it is not asked for those here."""
    monkeypatch.setattr(selling, "payable_msat", lambda _: have_msat)
    monkeypatch.setattr(selling, "can_pay", lambda _, price: have_msat >= price)
    link, has = channel_of(quiet, BUYER), max(0, have_msat)
    with pytest.raises(NotSold) as caught:
        selling.check_can_pay(link, 10)
    assert caught.value.missing_msat == 10 - has
    assert f"expected at most {told.msat(has)} by the balance" in caught.value.reason
    if have_msat >= 0:
        selling.check_can_pay(link, has)


def test_who_has_to_be_online_is_said_seat_by_seat(moments: Moments, quiet: Factory) -> None:
    for away in (BUYER, NEIGHBOUR):
        (quote,) = said(hear(quiet, asked(moments), Directory(away=away)))
        assert isinstance(quote, m.Quote)
        online = [(one.client, one.is_online) for one in quote.needed]
        assert online == [(client, int(client != away)) for client in (BUYER, NEIGHBOUR)]
        refused = refusal(hear(quiet, moments.message(m.Buy), Directory(away=away)))
        assert (refused.code, refused.quote_id) == ("client_away", moments.quote.quote_id)
        assert refused.reason.endswith(f"away: client {away}")


def test_what_is_sold_is_what_was_quoted(moments: Moments, quiet: Factory) -> None:
    buy, quote = moments.message(m.Buy), moments.quote
    (record,) = hear(quiet, buy).records
    assert isinstance(record, ar.AdvanceProposed)
    assert (record.quote_id, record.price_msat, record.buyer) == (
        quote.quote_id,
        quote.price_msat,
        BUYER,
    )
    given = quiet.quoted.newest[BUYER]

    def sold_by(away: int = 0, **changes: Any) -> m.QuoteRefused:
        newest = quiet.quoted.newest.set(BUYER, replace(given, **changes))
        state = changed(quiet, quoted=replace(quiet.quoted, newest=newest))
        decision = hear(state, buy, Directory(away=away))
        assert not decision.records
        return refusal(decision)

    assert sold_by(quote_id=OTHER).code == "quote_unknown"
    assert sold_by(payment_hash=OTHER).code == "quote_unknown"
    old = sold_by(state_index=2)
    assert (old.code, old.reason) == ("quote_expired", "state_index: expected 1, received 2")
    assert sold_by(away=NEIGHBOUR, state_index=2) == old, "nobody waits for it in vain"
    late = sold_by(until_height=quiet.chain.height - 1)
    assert late.code == "quote_expired"
    assert late.next_factory == 0
    dear = sold_by(price_msat=payable_msat(channel_of(quiet, BUYER).state) + 1)
    assert (dear.code, dear.missing_msat) == ("insufficient_balance", 1)


def test_nothing_half_done_stays_of_a_sale_that_is_refused(
    moments: Moments, quiet: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is found that it cannot be."""
    begin = lsp.begin

    def begin_in_vain(turn: Turn[Factory], sale: Sale) -> None:
        begin(turn, sale)
        raise NotSold("amount", "at the last moment")

    buy = moments.message(m.Buy)
    assert hear(quiet, buy).state.advances
    monkeypatch.setattr(lsp, "begin", begin_in_vain)
    refused = hear(quiet, buy)
    assert refusal(refused).reason == "at the last moment"
    assert not refused.records
    assert not wishes(refused, fx.SetDeadline)
    assert refused.state == quiet


def test_what_is_bought_out_of_a_payment_needs_the_payment_when_it_is_sold(
    moments: Moments, quiet: Factory
) -> None:
    """It may have been given back since; and the balance need not carry the price."""
    price_msat = payable_msat(channel_of(quiet, BUYER).state) + 1
    given = replace(quiet.quoted.newest[BUYER], payment_hash=OTHER, price_msat=price_msat)
    newest = quiet.quoted.newest.set(BUYER, given)
    state = changed(quiet, quoted=replace(quiet.quoted, newest=newest))
    buy = replace(moments.message(m.Buy), payment_hash=OTHER)
    assert refusal(hear(state, buy)).code == "payment_not_here"
    (record,) = hear(state, buy, Directory(waiting_msat=price_msat + 1)).records
    assert isinstance(record, ar.AdvanceProposed)
    assert record.payment_hash == OTHER


def test_a_neighbour_has_to_stay_covered_and_the_buyer_decides_for_itself(
    moments: Moments, quiet: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = with_channel(
        quiet,
        NEIGHBOUR,
        state=changed(channel_of(quiet, NEIGHBOUR).state, accepter_msat=5_000_000),
    )
    owed = owed_msat(channel_of(state, NEIGHBOUR).state)
    assert owed == 5_000_000

    def code(covered_sat: int) -> str:
        def covered(link: Link, *_: Any) -> int:
            return 0 if link.client == BUYER else covered_sat

        monkeypatch.setattr(selling, "covered_after", covered)
        decision = hear(state, moments.message(m.Buy))
        return "" if records(decision, ar.AdvanceProposed) else refusal(decision).code

    assert code(5_000) == ""
    assert code(4_999) == "not_covered"


def test_whoever_asks_by_purchases_what_its_neighbour_has_is_answered_twice_in_a_block(
    moments: Moments, quiet: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal says that the neighbour has more than so much, and costs nobody a deadline."""
    monkeypatch.setattr(selling, "covered_after", lambda *_: 0)
    state = with_channel(
        changed(quiet, quoted=Quoted()),
        NEIGHBOUR,
        state=changed(channel_of(quiet, NEIGHBOUR).state, accepter_msat=1),
    )
    n_answers = 0
    while n_answers < QUOTES_PER_BLOCK:
        asking = hear(state, asked(moments, amount_sat=AMOUNT_SAT + n_answers))
        (quote,) = said(asking)
        if isinstance(quote, m.QuoteRefused):
            assert quote.code == "too_many_requests"
            break
        assert isinstance(quote, m.Quote)
        buying = hear(asking.state, replace(moments.message(m.Buy), quote_id=quote.quote_id))
        assert refusal(buying).code == "not_covered"
        assert not any(one.is_kept for one in buying.entries), "and no record"
        state, n_answers = buying.state, n_answers + 1
    assert n_answers == 2
    assert isinstance(said(hear(factory_later(state, 1), asked(moments)))[0], m.Quote)


# Whose signatures are taken


@pytest.fixture(scope="module")
def committed(moments: Moments) -> Factory:
    """Return a factory to which the buyer's signatures come."""
    return moments.at(m.AdvanceSign, moments.market.buyer).factory


def test_nonces_of_another_key_of_another_number_or_none_are_named(
    moments: Moments, committed: Factory
) -> None:
    agree = moments.message(m.AdvanceAgree)
    key, (channel,) = agree.factory_pubkey, agree.channel
    first, second = agree.pubnonces
    none = bytes(66)

    def fault(**changes: Any) -> str | None:
        return sessions.fault_of_nonces(replace(agree, **changes), key)

    assert fault() is None
    assert fault(channel=()) is None, "who signed before says nothing of its channel"
    other_key = committed.attempt.seats[NEIGHBOUR - 1].factory_pubkey
    assert sessions.fault_of_nonces(agree, other_key) == "nonces of another key"
    for few_or_many in ((), (first,), (first, second, first)):
        n = len(few_or_many)
        assert fault(pubnonces=few_or_many) == f"{n} nonces of the factory key, expected 2"
    for bad in (
        {"pubnonces": (none, second)},
        {"pubnonces": (first, none)},
        {"channel": (replace(channel, pubnonce=none),)},
        {"channel": (replace(channel, following_pubnonce=none),)},
    ):
        assert fault(**bad) == "a nonce that is not two points"


def test_a_part_that_is_none_or_of_something_else_is_named_before_anything_is_signed(
    moments: Moments, committed: Factory
) -> None:
    (partials,) = moments.message(m.AdvanceSign).partials
    advance = advance_of(committed)
    leaf = sessions.leaf_of(committed, advance)
    names = {
        "state": leaf.states[1].task.name,
        "stock_poison": leaf.stock_poison(0).task.name,
        "channel_poison": leaf.channel_poison(0, BUYER).task.name,
    }
    assert len(set(names.values())) == 3

    def fault(**changes: bytes) -> str | None:
        return sessions.fault_of_partials(committed, advance, BUYER, replace(partials, **changes))

    assert fault() is None
    assert fault(poison_pubnonce=bytes(66)) == "a nonce that is not two points"
    other = {
        "state": partials.stock_poison,
        "stock_poison": partials.channel_poison,
        "channel_poison": partials.state,
    }
    for field, name in names.items():
        no_scalar = fault(**{field: b"\xff" * 32})
        assert no_scalar == f"{name}: a partial signature that is no scalar"
        assert fault(**{field: other[field]}) == f"{name}: a bad partial signature"
    with pytest.raises(AssertionError, match="nobody was asked"):
        sessions.factory_sessions(committed, replace(advance, session=None))
