"""What a sale makes of a leaf's amounts: each number at its boundary, and what never changes."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factory import oracle

from cromford.factory.allocation import (
    AdvanceRefused,
    Allocation,
    Purchase,
    after_sale,
    channel_poison_fee_sat,
    lstock_sat_min,
    sale_between,
    sales_in_stock,
)
from cromford.factory.kinds import VertexKind
from cromford.factory.shape import planned_txs
from cromford.factory.terms import FactoryTerms, FeePolicy


def terms_of(n_clients: int, *, feerate: int = 500) -> FactoryTerms:
    return oracle.terms_of(
        [100_000] * n_clients,
        [50_000],
        leaf_arity=n_clients,
        fee_policy=FeePolicy.ENDOGENOUS if feerate else FeePolicy.EPHEMERAL,
        feerate=feerate,
    )


TWO = terms_of(2)
CLIENTS = range(1, 3)


def leaf(*capacities_sat: int, lstock_sat: int) -> Allocation:
    return Allocation(capacities_sat=capacities_sat, lstock_sat=lstock_sat)


BEFORE = leaf(100_000, 100_000, lstock_sat=50_000)


def sold(before: Allocation, amount_sat: int | None, *, buyer: int = 1) -> Allocation:
    purchase = Purchase(buyer=buyer, amount_sat=amount_sat)
    return after_sale(before, purchase, clients=CLIENTS, terms=TWO)


def refused(before: Allocation, amount_sat: int | None, *, buyer: int = 1) -> tuple[object, ...]:
    with pytest.raises(AdvanceRefused) as caught:
        sold(before, amount_sat, buyer=buyer)
    return caught.value.field, caught.value.expected, caught.value.received


@pytest.mark.parametrize(("n_clients", "least_sat"), [(1, 552), (2, 638), (3, 724), (4, 810)])
def test_the_least_lstock_is_an_output_and_the_fee_of_its_poison(
    n_clients: int, least_sat: int
) -> None:
    assert lstock_sat_min(terms_of(n_clients), n_clients=n_clients) == least_sat
    assert lstock_sat_min(terms_of(n_clients, feerate=0), n_clients=n_clients) == 330


def test_a_part_of_the_lstock_goes_to_the_buyer_alone() -> None:
    assert sold(BEFORE, 1) == leaf(100_001, 100_000, lstock_sat=49_999)
    assert sold(BEFORE, 20_000, buyer=2) == leaf(100_000, 120_000, lstock_sat=30_000)


def test_with_the_last_of_the_lstock_goes_the_fee_that_its_output_saves() -> None:
    """43 vB at 2 sat/vB, where all is said by name or by number."""
    assert sold(BEFORE, None) == leaf(150_086, 100_000, lstock_sat=0)
    assert sold(BEFORE, 50_000) == sold(BEFORE, None)


def test_what_stays_is_nothing_or_enough_for_a_poison() -> None:
    assert sold(BEFORE, 50_000 - 638).lstock_sat == 638
    expected = "1..49362, or all 50000"
    assert refused(BEFORE, 50_000 - 637) == ("amount_sat", expected, 49_363)
    assert refused(BEFORE, 49_999) == ("amount_sat", expected, 49_999)
    assert refused(BEFORE, 50_001) == ("amount_sat", expected, 50_001)
    assert refused(BEFORE, 0) == ("amount_sat", expected, 0)
    assert refused(BEFORE, -1) == ("amount_sat", expected, -1)


def test_of_the_least_lstock_only_all_is_sold_and_of_less_nothing() -> None:
    least = leaf(100_000, 100_000, lstock_sat=638)
    assert sold(least, None) == leaf(100_724, 100_000, lstock_sat=0)
    assert refused(least, 1) == ("amount_sat", "all 638", 1)
    for lstock_sat in (637, 330, 0):
        too_little = leaf(100_000, 100_000, lstock_sat=lstock_sat)
        assert refused(too_little, None) == ("lstock_sat", "at least 638 to sell of", lstock_sat)


def test_only_who_is_in_the_leaf_buys() -> None:
    assert refused(BEFORE, 1, buyer=3) == ("buyer", "one of [1, 2]", 3)
    assert refused(BEFORE, 1, buyer=0) == ("buyer", "one of [1, 2]", 0)


def test_a_channel_too_small_for_its_poison_is_never_superseded() -> None:
    assert channel_poison_fee_sat(TWO) == 222
    assert sold(leaf(100_000, 552, lstock_sat=50_000), 1).capacities_sat == (100_001, 552)
    small = leaf(100_000, 551, lstock_sat=50_000)
    assert refused(small, 1) == ("capacity_sat of client 2", "at least 552", 551)


@pytest.mark.parametrize(
    ("before_sat", "n_sales"),
    [(0, 0), (330, 0), (637, 0), (638, 1), (639, 2), (640, 3), (50_000, 49_363)],
)
def test_a_stock_is_sold_a_satoshi_at_a_time_and_in_the_end_all(
    before_sat: int, n_sales: int
) -> None:
    before = leaf(100_000, 100_000, lstock_sat=before_sat)
    assert sales_in_stock(before, TWO) == n_sales
    if n_sales <= 3:
        for _ in range(n_sales - 1):
            before = sold(before, 1)
        if n_sales:
            assert sold(before, None).lstock_sat == 0


@pytest.mark.parametrize(
    ("after", "field", "expected", "received"),
    [
        (leaf(120_000, lstock_sat=30_000), "capacities_sat", "2 channels", "1"),
        (
            leaf(120_000, 99_999, lstock_sat=30_001),
            "capacity_sat of client 2",
            "at least 100000",
            99_999,
        ),
        (BEFORE, "capacities_sat", "one client's to grow", "none"),
        (
            leaf(110_000, 110_000, lstock_sat=30_000),
            "capacities_sat",
            "one client's to grow",
            "[1, 2]",
        ),
        (leaf(100_000, 120_001, lstock_sat=30_000), "capacity_sat of client 2", "120000", 120_001),
        (leaf(119_999, 100_000, lstock_sat=30_000), "capacity_sat of client 1", "120000", 119_999),
        (leaf(150_000, 100_000, lstock_sat=0), "capacity_sat of client 1", "150086", 150_000),
        (
            leaf(100_001, 100_000, lstock_sat=50_000),
            "amount_sat",
            "1..49362, or all 50000",
            0,
        ),
        (
            leaf(100_001, 100_000, lstock_sat=1 << 64),
            "amount_sat",
            "1..49362, or all 50000",
            50_000 - (1 << 64),
        ),
    ],
)
def test_what_no_sale_leads_to_is_refused_by_name(
    after: Allocation, field: str, expected: str, received: object
) -> None:
    with pytest.raises(AdvanceRefused) as caught:
        sale_between(BEFORE, after, clients=CLIENTS, terms=TWO)
    assert (caught.value.field, caught.value.expected, caught.value.received) == (
        field,
        expected,
        received,
    )
    assert str(caught.value) == f"{field}: expected {expected}, received {received}"


@st.composite
def sales(draw: st.DrawFn) -> tuple[FactoryTerms, Allocation, Purchase]:
    """Draw a leaf of any size and feerate, and a sale that its L-stock carries."""
    n_clients = draw(st.integers(1, 8))
    terms = terms_of(n_clients, feerate=draw(st.one_of(st.just(0), st.integers(1, 25_000))))
    least_sat = lstock_sat_min(terms, n_clients=n_clients)
    lstock_sat = draw(st.one_of(st.just(least_sat), st.integers(least_sat, 5_000_000)))
    before = Allocation(
        capacities_sat=tuple(
            draw(st.lists(st.integers(12_000, 10_000_000), min_size=n_clients, max_size=n_clients))
        ),
        lstock_sat=lstock_sat,
    )
    part_sat = lstock_sat - least_sat
    amounts = st.sampled_from([None, lstock_sat])
    if part_sat:
        amounts = st.one_of(amounts, st.sampled_from([1, part_sat]), st.integers(1, part_sat))
    return terms, before, Purchase(buyer=draw(st.integers(1, n_clients)), amount_sat=draw(amounts))


@given(drawn=sales())
def test_a_sale_keeps_what_the_kickoff_pays_and_is_known_again(
    drawn: tuple[FactoryTerms, Allocation, Purchase],
) -> None:
    terms, before, purchase = drawn
    clients: Sequence[int] = range(1, len(before.capacities_sat) + 1)
    after = after_sale(before, purchase, clients=clients, terms=terms)
    assert after.input_sat(terms) == before.input_sat(terms)
    *_, state = planned_txs(VertexKind.DW, [*before.capacities_sat, before.lstock_sat], terms)
    assert before.input_sat(terms) == state.input_sat
    growths = after.growths_sat(before)
    assert [client for client, growth in zip(clients, growths, strict=True) if growth] == [
        purchase.buyer
    ]
    saved_sat = before.fee_sat(terms) - after.fee_sat(terms)
    assert sum(growths) == before.lstock_sat - after.lstock_sat + saved_sat
    larger, smaller = (terms.fee_sat(n_p2tr_outputs=len(clients) + more) for more in (1, 0))
    assert saved_sat == (0 if after.lstock_sat else larger - smaller)
    known = sale_between(before, after, clients=clients, terms=terms)
    assert known.buyer == purchase.buyer
    assert known.amount_sat == purchase.amount_sat or purchase.amount_sat is None


@given(drawn=sales(), data=st.data())
def test_a_satoshi_more_or_less_anywhere_is_refused(
    drawn: tuple[FactoryTerms, Allocation, Purchase], data: st.DataObject
) -> None:
    """Whoever moves a satoshi moves it from or to something that the rules fix."""
    terms, before, purchase = drawn
    clients = range(1, len(before.capacities_sat) + 1)
    after = after_sale(before, purchase, clients=clients, terms=terms)
    amounts = [*after.capacities_sat, after.lstock_sat]
    amounts[data.draw(st.integers(0, len(amounts) - 1))] += data.draw(st.sampled_from([-1, 1]))
    forged = Allocation(capacities_sat=tuple(amounts[:-1]), lstock_sat=amounts[-1])
    with pytest.raises(AdvanceRefused):
        sale_between(before, forged, clients=clients, terms=terms)
