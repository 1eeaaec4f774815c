"""What an LSP looks at before it begins an advance, and again before anybody is bound by it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advance_moments import (
    AMOUNT_SAT,
    BUYER,
    NEIGHBOUR,
    Moments,
    advance_of,
    channel_of,
    here,
    purchase,
    with_advance,
    with_channel,
    without_channel,
)

from cromford.changed import changed
from cromford.channel.rebase import payable_msat
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import advance_height_max
from cromford.protocol import policy
from cromford.protocol.advancing import rules, sessions
from cromford.protocol.advancing.sales import NotSold, Sale
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.closing import Closing
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.leaf_states import AgreedState
from cromford.protocol.journal.lsp_attempt import Aborted
from cromford.wire import messages as m

BOTH: Final = (BUYER, NEIGHBOUR)
OTHER: Final = b"\x07" * 32


@pytest.fixture(scope="module")
def moments() -> Moments:
    return purchase()


@pytest.fixture(scope="module")
def quiet(moments: Moments) -> Factory:
    """Return a factory before anything is sold."""
    return moments.at(m.Buy).factory


@pytest.fixture(scope="module")
def asked(moments: Moments) -> Factory:
    """Return a factory in which an advance began."""
    return moments.at(m.AdvanceAgree).factory


# Before it begins


def code_of(factory: Factory, facts: Facts = FRESH) -> str:
    """Return what is in the way of a sale, said with a code and without it alike."""
    problem = rules.problem_of(factory, facts, BUYER)
    assert rules.problem_with_sale(factory, facts, BUYER) == (problem and problem.reason)
    return "" if problem is None else problem.code


def test_only_a_factory_that_is_funded_sells_and_a_leaf_only_once_at_a_time(
    quiet: Factory, asked: Factory
) -> None:
    assert code_of(quiet) == ""
    ended = replace(quiet.attempt, stage=Aborted(reason="nobody came"))
    for unfunded in (changed(quiet, begun=None), changed(quiet, begun=ended)):
        assert rules.problem_of(unfunded, FRESH, BUYER) == rules.Obstacle(
            "not_funded",
            "the factory is not funded",
        )
        assert code_of(unfunded) == "not_funded"
    assert code_of(asked) == "busy"


def sold(factory: Factory, *amounts_sat: int | None) -> Factory:
    """Return a factory that sold the buyer some amounts, one after the other; None is the rest."""
    attempt, leaf = factory.attempt, factory.attempt.leaf(BUYER)
    states = []
    for number, amount_sat in enumerate(amounts_sat):
        leaf = leaf.sold(Purchase(buyer=BUYER, amount_sat=amount_sat))
        name = number.to_bytes(32, "big")
        state = AgreedState(advance_id=name, allocation=leaf.allocation, signature=bytes(64))
        states.append(state)
    leaves = attempt.leaves.set(attempt.leaf_name(BUYER), tuple(states))
    return changed(factory, begun=replace(attempt, leaves=leaves))


def test_a_leaf_is_sold_of_while_it_has_a_state_and_stock_left(quiet: Factory) -> None:
    n_sales = quiet.attempt.terms.states_per_layer - 1
    assert n_sales == 3
    for n_sold in range(n_sales):
        assert code_of(sold(quiet, *[1_000] * n_sold)) == ""
    assert code_of(sold(quiet, *[1_000] * n_sales)) == "sold_out"
    assert code_of(sold(quiet, None)) == "sold_out"


def test_a_leaf_is_sold_of_while_its_step_leaves_everybody_a_part_of_it(
    quiet: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = quiet.attempt.leaf(BUYER).terms.step_blocks
    for least, code in ((step, ""), (step + 1, "no_race")):
        monkeypatch.setattr(rules, "STEP_BLOCKS_MIN", least)
        assert code_of(quiet) == code


def test_a_channel_that_is_not_there_yet_is_in_the_way_of_its_whole_leaf(quiet: Factory) -> None:
    for client in BOTH:
        unready = without_channel(quiet, client)
        problem = rules.problem_of(unready, FRESH, BUYER)
        assert problem == rules.blocked_by(client, "its channel is not ready")
        assert rules.problem_with_presence(unready, here(unready), BOTH) == rules.Obstacle(
            "offline",
            f"client {client}: its channel is not open yet",
        )
        (other,) = set(BOTH) - {client}
        assert rules.links_of(unready, BOTH) == [channel_of(quiet, other)]


def test_a_close_that_is_agreed_on_is_in_the_way_of_those_in_it_alone(quiet: Factory) -> None:
    def closing(*clients: int) -> Factory:
        outpoint = channel_of(quiet, BUYER).present.outpoint
        close = Closing(
            close_id=OTHER, outpoint=outpoint, clients=clients, feerates_sat_per_kw=(253,)
        )
        return changed(quiet, closing=close)

    said = rules.Obstacle("closing", "a close is being agreed on")
    assert rules.problem_with_closes(closing(NEIGHBOUR), BOTH) == said
    assert rules.problem_with_closes(closing(3, NEIGHBOUR), (NEIGHBOUR,)) == said
    assert rules.problem_with_closes(closing(NEIGHBOUR), (BUYER,)) is None


# A sale


def sale(moments: Moments, **changes: Any) -> Sale:
    quote = moments.quote
    asked = Sale(
        buyer=BUYER,
        amount_sat=AMOUNT_SAT,
        quote_id=quote.quote_id,
        state_index=1,
        price_msat=quote.price_msat,
    )
    return replace(asked, **changes)


def refusal(factory: Factory, asked: Sale, facts: Facts | None = None) -> NotSold:
    with pytest.raises(NotSold) as caught:
        rules.check_sale(factory, facts or here(factory), asked)
    return caught.value


def test_a_sale_is_of_the_state_that_is_next_and_of_what_there_is(
    moments: Moments, quiet: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = rules.check_sale(quiet, here(quiet), sale(moments))
    assert len(after.states) == 2
    assert (
        after.allocation
        == quiet.attempt.leaf(BUYER).sold(Purchase(buyer=BUYER, amount_sat=AMOUNT_SAT)).allocation
    )
    for state_index in (0, 2):
        stale = refusal(quiet, sale(moments, state_index=state_index))
        assert stale.code == "outdated"
        assert stale.reason == f"state_index: expected 1, received {state_index}"
    lstock_sat = quiet.attempt.leaf(BUYER).allocation.lstock_sat
    much = refusal(quiet, sale(moments, amount_sat=lstock_sat + 1))
    assert (much.code, much.missing_msat) == ("amount", 0)
    assert f"received {lstock_sat + 1}" in much.reason
    capacity_sat = after.allocation.capacities_sat[after.clients.index(BUYER)]
    monkeypatch.setattr(policy, "LARGE_CAPACITY_SAT", capacity_sat)
    large = refusal(quiet, sale(moments))
    assert large.code == "not_funded"
    rules.check_sale(quiet, here(quiet), sale(moments, amount_sat=AMOUNT_SAT - 1))


def test_nothing_is_sold_while_somebody_is_away_or_something_is_in_the_way(
    moments: Moments, quiet: Factory, asked: Factory
) -> None:
    for client in BOTH:
        assert refusal(quiet, sale(moments), here(quiet, client)).code == "offline"
    assert refusal(asked, sale(moments)).code == "busy"


def test_a_price_is_carried_by_the_balance_unless_a_payment_brings_it(
    moments: Moments, quiet: Factory
) -> None:
    most = payable_msat(channel_of(quiet, BUYER).state)
    rules.check_sale(quiet, here(quiet), sale(moments, price_msat=most))
    dear = refusal(quiet, sale(moments, price_msat=most + 7))
    assert (dear.code, dear.missing_msat) == ("price", 7)
    by_payment = sale(moments, price_msat=most + 7, payment_hash=OTHER)
    rules.check_sale(quiet, here(quiet), by_payment)


# Before anybody is bound


def too_late(factory: Factory) -> Facts:
    last = advance_height_max(
        exit_deadline_height=channel_of(factory, BUYER).exit_deadline_height,
        patience_blocks=factory.attempt.terms.patience_blocks,
    )
    return here(factory, header_height=last + 1)


def closable(factory: Factory) -> Factory:
    outpoint = channel_of(factory, NEIGHBOUR).present.outpoint
    close = SignedClose(close_id=OTHER, outpoint=outpoint, balance_msat=1)
    return with_channel(factory, NEIGHBOUR, closes=(close,))


Change = Callable[[Factory], Factory]
IN_THE_WAY: Final[dict[str, Change]] = {
    "client 2: its channel failed": lambda one: with_channel(one, NEIGHBOUR, failure="it broke"),
    "client 2 signed a close of ": closable,
    "price_msat: 10,000,000 sat is ": lambda one: with_advance(one, price_msat=10**10),
    "client 1: its channel is not ready": lambda one: without_channel(one, BUYER),
}


def before_signing(factory: Factory, facts: Facts | None = None) -> str | None:
    advance = advance_of(factory)
    leaf = sessions.leaf_of(factory, advance)
    problem = rules.problem_before_signing(factory, facts or here(factory), advance, leaf)
    return None if problem is None else problem.reason


@pytest.mark.parametrize("why", IN_THE_WAY)
def test_what_came_in_the_way_since_everybody_was_asked_is_named(asked: Factory, why: str) -> None:
    assert before_signing(asked) is None
    reason = before_signing(IN_THE_WAY[why](asked))
    assert reason is not None
    assert reason.startswith(why)


def test_so_is_the_time_and_what_is_first_in_the_way_is_said(asked: Factory) -> None:
    late = before_signing(asked, too_late(asked))
    assert late is not None
    assert late.startswith("height: expected at most ")
    dear = with_advance(asked, price_msat=10**10)
    assert before_signing(dear, too_late(asked)) == late


def test_what_is_paid_out_of_a_payment_needs_no_balance(asked: Factory) -> None:
    dear = with_advance(asked, price_msat=10**10, payment_hash=OTHER)
    assert before_signing(dear) is None


def test_what_is_nobodys_own_business_is_told_as_it_is() -> None:
    late = rules.Obstacle("too_late", "height: expected at most 7, received 8")
    assert rules.told_of(late) == late.reason
