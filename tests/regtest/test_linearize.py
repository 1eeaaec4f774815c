from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.tx import Txid
from cromford.regtest.linearize import Chunk, Weighted, chunks_of, improves


def item(n: int, fee_sat: int, weight: int, *parents: int) -> Weighted:
    return Weighted(
        txid=txid(n),
        fee_sat=fee_sat,
        weight=weight,
        parents=frozenset(txid(parent) for parent in parents),
    )


def txid(n: int) -> Txid:
    return Txid(bytes([n]) * 32)


def cluster(*items: Weighted) -> dict[Txid, Weighted]:
    return {item.txid: item for item in items}


@st.composite
def clusters(draw: st.DrawFn) -> dict[Txid, Weighted]:
    items = []
    for n in range(draw(st.integers(1, 8))):
        parents = draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        items.append(
            item(n, draw(st.integers(0, 1_000)), draw(st.integers(1, 1_000)), *sorted(parents))
        )
    return cluster(*items)


def test_a_paying_child_carries_its_free_parent() -> None:
    [chunk] = chunks_of(cluster(item(1, 0, 400), item(2, 500, 400, 1)))
    assert (chunk.txids, chunk.feerate) == ((txid(1), txid(2)), Fraction(5, 8))


def test_a_poor_child_does_not_hold_its_rich_parent_back() -> None:
    chunks = chunks_of(cluster(item(1, 900, 400), item(2, 1, 400, 1)))
    assert [chunk.txids for chunk in chunks] == [(txid(1),), (txid(2),)]


@given(clusters())
def test_parents_come_first_and_feerates_never_rise(items: dict[Txid, Weighted]) -> None:
    chunks = chunks_of(items)
    order = [txid for chunk in chunks for txid in chunk.txids]
    assert sorted(order) == sorted(items)
    for position, one in enumerate(order):
        assert items[one].parents <= set(order[:position])
    feerates = [chunk.feerate for chunk in chunks]
    assert feerates == sorted(feerates, reverse=True)


def chunk(fee_sat: int, weight: int) -> Chunk:
    return Chunk(txids=(), fee_sat=fee_sat, weight=weight)


def test_only_more_somewhere_and_nowhere_less_improves() -> None:
    assert improves([chunk(10, 10)], [chunk(11, 10)])
    assert improves([], [chunk(1, 10)])
    assert not improves([chunk(10, 10)], [chunk(10, 10)])
    assert not improves([chunk(10, 10)], [chunk(15, 20)])  # The first ten units pay less.
    assert improves([chunk(10, 10), chunk(1, 10)], [chunk(10, 10), chunk(2, 10)])


@given(clusters())
def test_nothing_improves_on_itself(items: dict[Txid, Weighted]) -> None:
    assert not improves(chunks_of(items), chunks_of(items))
