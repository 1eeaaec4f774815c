"""Which of a leaf's states a client's coverage counts, while one is being replaced and after."""

from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.decisions import in_client, in_factory
from tests.protocol.samples import Sample, dual

from cromford.changed import changed
from cromford.channel.errors import UpdateRefused
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import Leaf
from cromford.protocol.channels import coverage
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.channels.coverage import (
    check_covered,
    check_offer_is_covered,
    coverage_in,
    coverage_of,
    exposure_of,
    room_msat,
)
from cromford.watch.coverage import covered_by_state_sat, fullest_of

SIDES: Final = pytest.mark.parametrize("of_lsp", [True, False])


def between(*, of_lsp: bool) -> Sample:
    """Return a side whose leaf's state is being replaced."""
    sample = dual().first("on_commitment_signed", of_lsp=of_lsp)
    assert sample.link.next is not None
    assert not sample.link.superseded
    return sample


def known_leaf(sample: Sample) -> Leaf:
    if sample.is_lsps:
        found: Leaf = sample.state.attempt.leaf(sample.link.client)
    else:
        found = sample.state.attempts[sample.link.attempt_id].leaf
    return found


def advance_of(sample: Sample) -> Any:
    (advance,) = sample.state.advances.values()
    return advance


def next_leaf(sample: Sample) -> Leaf:
    """Return the leaf with the state that is being made."""
    leaf = known_leaf(sample)
    return leaf if len(leaf.states) == 2 else leaf.advanced(advance_of(sample).allocation)


def expected_sat(sample: Sample) -> int:
    """Return what is left of the old state, however full the LSP may still make it."""
    link, terms = sample.link, sample.link.setting.terms
    return covered_by_state_sat(
        next_leaf(sample), 0, link.client, terms=terms, fullest=fullest_of(terms)
    )


@SIDES
def test_a_state_that_is_being_replaced_counts_once_both_agreed_to_it(*, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    link, leaf = sample.link, next_leaf(sample)
    assert coverage_in(sample.state, link) == expected_sat(sample)
    assert coverage_of(link, leaf) == expected_sat(sample)
    later = leaf.sold(Purchase(buyer=link.client, amount_sat=None))
    assert len(later.states) == 3
    assert coverage_of(link, later) == expected_sat(sample), "of no other is anything known"
    before = changed(link, next=None)
    assert coverage_in(sample.state, before) is None
    assert coverage_of(before, leaf) is None
    assert coverage_of(
        changed(before, superseded=(link.present,), fullest_superseded=(None,)), leaf
    )


@SIDES
def test_no_state_counts_that_the_channel_does_not_know(
    monkeypatch: pytest.MonkeyPatch, *, of_lsp: bool
) -> None:
    sample = between(of_lsp=of_lsp)
    later = next_leaf(sample).sold(Purchase(buyer=sample.link.client, amount_sat=None))
    counted: list[int] = []

    def noted(leaf: Leaf, *_: Any, **__: Any) -> int:
        counted.append(len(leaf.states))
        return 0

    monkeypatch.setattr(coverage, "coverage_sat", noted)
    assert coverage_of(sample.link, later) == 0
    assert counted == [2]


@SIDES
def test_where_nothing_is_known_of_an_advance_nothing_is_said_of_it(*, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    unsigned = changed(sample.link, superseded=(sample.link.present,) * 2, next=None)
    none = changed(sample.state, advances=Map())
    assert coverage_in(none, unsigned) is None, "that channel takes no update any more"


@SIDES
def test_an_advance_that_nobody_signed_yet_counts_by_what_it_will_pay(*, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    if len(known_leaf(sample).states) == 1:
        assert coverage_in(sample.state, sample.link) == expected_sat(sample)
        without = changed(sample.state, advances=Map())
        assert coverage_in(without, sample.link) is None


@SIDES
def test_what_is_covered_leaves_nothing_to_be_lost(*, of_lsp: bool) -> None:
    link = between(of_lsp=of_lsp).link
    for covered_sat in (None, 10**9):
        shown = exposure_of(link, covered_sat)
        assert (shown.balance_msat, shown.htlcs_msat) == (0, 0)


@SIDES
def test_only_what_the_lsp_offers_can_leave_a_client_beyond_what_is_covered(
    *, of_lsp: bool
) -> None:
    """What the client offers is its own already."""
    sample = between(of_lsp=of_lsp)
    limit_msat = expected_sat(sample) * MSAT_PER_SAT
    state = changed(sample.link.state, htlcs=(), accepter_msat=limit_msat + 1)
    link = changed(sample.link, state=state)
    assert owed_msat(link.state) == limit_msat + 1
    assert room_msat(sample.state, link) == -1
    if not of_lsp:
        check_offer_is_covered(in_client(sample.state), link, amount_msat=10_000)
        return
    with pytest.raises(UpdateRefused, match="coverage: expected at most 9,999 msat more"):
        check_offer_is_covered(in_factory(sample.state), link, amount_msat=10_000)
    full = changed(link, state=changed(state, accepter_msat=limit_msat))
    check_offer_is_covered(in_factory(sample.state), full, amount_msat=10_000)


@SIDES
def test_a_leaf_that_was_never_advanced_covers_nothing_to_be_checked(*, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    first = changed(next_leaf(sample), states=next_leaf(sample).states[:1])
    with pytest.raises(ValueError, match="states: expected one that is superseded"):
        check_covered(sample.link, first)
