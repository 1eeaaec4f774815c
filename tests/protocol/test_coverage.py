"""What of a client's money is covered once its leaf's state is superseded, and what that limits."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advances import (
    ADVANCING,
    both_links,
    leaf_of,
    market,
    remembered,
    sell,
)
from tests.protocol.paying_clients import live_factory, make_invoice, pay
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import LENIENT

from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.allocation import Purchase
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.channels.coverage import (
    check_covered,
    coverage_in,
    coverage_of,
    covered_after,
    exposure_of,
    limit_in,
)
from cromford.protocol.faults import Refusal
from cromford.protocol.journal import channel_records as cr
from cromford.told import msat
from cromford.watch.coverage import Fullest, covered_by_state_sat, fullest_of

BUYER, NEIGHBOUR, ELSEWHERE = 1, 2, 3
SOLD_SAT: Final = 30_000
TRIMMED_MSAT: Final = 340_000


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


class Receiver(PumpNode):
    """A client whose operator takes what is not covered."""

    client_policy = replace(LENIENT, receive_beyond_coverage=True)


class BoldPump(Pump):
    client_kind = Receiver


def sold_leaf(pump: Pump | None = None, *, amount_sat: int | None = None, **policy: Any) -> Pump:
    """Return a pump in whose first leaf the first client bought, by default all that there is.

    Its neighbour once had many HTLCs without an output, and gets no share: of all limits its
    coverage is the least.
    """
    if pump is None:
        pump = live_factory(3, policy=replace(ADVANCING, **policy))
    for seat in (BUYER, NEIGHBOUR, ELSEWHERE):
        assert pay(pump, pump.lsp, pump.client_at(seat), 2_000_000).status == "paid"
    for _ in range(12):
        pump.handle(pump.lsp, make_invoice(pump, pump.client_at(NEIGHBOUR), TRIMMED_MSAT))
    pump.run()
    sell(pump, BUYER, amount_sat=amount_sat, price_msat=1_000)
    assert len(leaf_of(pump, BUYER).states) == 2
    return pump


def covered(pump: Pump, seat: int) -> int:
    """Return a client's coverage, in sat, which both sides know alike."""
    link, lsp_link = both_links(pump, seat)
    covered_sat = coverage_in(pump.client_at(seat).state, link)
    assert covered_sat == coverage_in(pump.factory, lsp_link)
    assert covered_sat is not None
    return covered_sat


def test_nothing_limits_a_client_in_whose_leaf_nobody_ever_bought() -> None:
    pump = sold_leaf()
    link, lsp_link = both_links(pump, ELSEWHERE)
    assert coverage_in(pump.client_at(ELSEWHERE).state, link) is None
    assert coverage_in(pump.factory, lsp_link) is None
    assert coverage_of(link, leaf_of(pump, ELSEWHERE)) is None
    assert exposure_of(link, None).balance_msat == 0


def test_what_was_signed_for_the_old_output_is_what_counts_and_no_more() -> None:
    """One payment at a time had an output there. Both sides counted it, up to the rebase."""
    pump = sold_leaf()
    link, lsp_link = both_links(pump, BUYER)
    one = Fullest(n_htlc_outputs=1, trimmed_sat=0)
    assert link.fullest_superseded == lsp_link.fullest_superseded == (one,)
    leaf, terms = leaf_of(pump, BUYER), link.setting.terms
    expected_sat = covered_by_state_sat(leaf, 0, BUYER, terms=terms, fullest=one)
    assert covered(pump, BUYER) == coverage_of(link, leaf) == expected_sat
    at_most = covered_by_state_sat(leaf, 0, BUYER, terms=terms, fullest=fullest_of(terms))
    assert expected_sat > at_most
    for _ in range(3):
        pump.handle(pump.lsp, make_invoice(pump, pump.client_at(BUYER), 1_000_000))
    pump.run()
    assert covered(pump, BUYER) == expected_sat, "nothing is signed for the old state any more"
    assert both_links(pump, BUYER)[0].fullest != one
    pump.restart(pump.lsp)
    pump.restart(pump.client_at(BUYER))
    assert covered(pump, BUYER) == expected_sat


def test_a_store_that_did_not_count_takes_the_terms_fullest() -> None:
    pump = sold_leaf()
    link, leaf = both_links(pump, BUYER)[0], leaf_of(pump, BUYER)
    unknown = replace(link, fullest_superseded=(None,))
    terms = link.setting.terms
    expected_sat = covered_by_state_sat(leaf, 0, BUYER, terms=terms, fullest=fullest_of(terms))
    assert coverage_of(unknown, leaf) == expected_sat


def test_a_sale_covers_no_less_than_was_foreseen() -> None:
    """Foreseen is all that the LSP may still add on the state that is replaced; it added little."""
    pump = sold_leaf(amount_sat=SOLD_SAT)
    (link, _), leaf = both_links(pump, NEIGHBOUR), leaf_of(pump, NEIGHBOUR)
    foreseen_sat = covered_after(link, leaf, Purchase(buyer=BUYER, amount_sat=None))
    sell(pump, BUYER, amount_sat=None, price_msat=1_000)
    assert len(leaf_of(pump, BUYER).states) == 3
    covered_sat = covered(pump, NEIGHBOUR)
    assert covered_sat is not None
    assert covered_sat > foreseen_sat


def fill(pump: Pump, seat: int) -> int:
    """Pay a client up to what is covered; return that, in msat."""
    link, _ = both_links(pump, seat)
    room_msat = covered(pump, seat) * MSAT_PER_SAT - owed_msat(link.state)
    assert pay(pump, pump.lsp, pump.client_at(seat), room_msat).status == "paid"
    return covered(pump, seat) * MSAT_PER_SAT


def test_a_client_is_paid_up_to_what_is_covered_and_no_further() -> None:
    """The LSP does not offer more, and both show that."""
    pump = sold_leaf()
    client, elsewhere = pump.client_at(NEIGHBOUR), pump.client_at(ELSEWHERE)
    limit_msat = fill(pump, NEIGHBOUR)
    link, lsp_link = both_links(pump, NEIGHBOUR)
    assert owed_msat(link.state) == limit_msat
    assert exposure_of(link, limit_in(client.state, link)).balance_msat == 0
    shown = balance_now(link, client.state.chain, covered_sat=limit_in(client.state, link))
    assert shown.receivable_msat == 0
    limit_sat = limit_in(pump.factory, lsp_link)
    shown = balance_now(lsp_link, pump.factory.chain, covered_sat=limit_sat)
    assert shown.spendable_msat == 0
    request = make_invoice(pump, client, 10_000)
    pump.handle(elsewhere, request)
    pump.run()
    pump.pass_holds()
    assert elsewhere.state.book.payments[request.payment_hash].status == "failed"
    held = remembered(pump.lsp, cr.HtlcHeld)[-1]
    assert "coverage: expected at most 0 sat more" in held.reason
    assert not remembered(client, cr.HtlcRefused), "it never came so far"
    assert pay(pump, client, elsewhere, 50_000).status == "paid"
    assert pay(pump, pump.lsp, client, 20_000).status == "paid", "there is room again"


def test_an_lsp_that_offers_more_gets_it_back_by_name_and_the_channel_goes_on() -> None:
    pump = sold_leaf(forward_beyond_coverage=True)
    client = pump.client_at(NEIGHBOUR)
    limit_msat = fill(pump, NEIGHBOUR)
    assert pay(pump, pump.lsp, client, 10_000).status == "failed"
    (refused,) = remembered(client, cr.HtlcRefused)
    most, received = msat(limit_msat), msat(limit_msat + 10_000)
    assert f"expected at most {most} of ours, received {received}" in refused.reason
    assert [link.failure for link in both_links(pump, NEIGHBOUR)] == [None, None]


def test_who_says_so_is_paid_beyond_and_is_shown_what_is_not_covered() -> None:
    policy = replace(ADVANCING, forward_beyond_coverage=True)
    pump = BoldPump(3, policy=policy)
    pump.join()
    pump.build()
    pump.run()
    pump.mine(policy.min_depth)
    sold_leaf(pump)
    client, limit_msat = pump.client_at(NEIGHBOUR), fill(pump, NEIGHBOUR)
    assert pay(pump, pump.lsp, client, 10_000).status == "paid"
    link, _ = both_links(pump, NEIGHBOUR)
    assert owed_msat(link.state) == limit_msat + 10_000
    assert limit_in(client.state, link) is None
    shown = exposure_of(link, covered(pump, NEIGHBOUR))
    assert (shown.balance_msat, shown.htlcs_msat) == (10_000, 0)
    request = make_invoice(pump, client, 20_000)
    pump.handle(pump.lsp, request)
    pump.run(until=lambda: bool(both_links(pump, NEIGHBOUR)[0].state.htlcs))
    shown = exposure_of(both_links(pump, NEIGHBOUR)[0], covered_alone(pump, NEIGHBOUR))
    assert (shown.balance_msat, shown.htlcs_msat) == (10_000, 20_000)


def covered_alone(pump: Pump, seat: int) -> int | None:
    """Return a coverage while the two sides' views differ: what a client says of itself."""
    link, _ = both_links(pump, seat)
    return coverage_in(pump.client_at(seat).state, link)


def test_no_client_agrees_to_what_leaves_it_beyond_what_is_covered() -> None:
    pump = sold_leaf(amount_sat=SOLD_SAT)
    link, leaf = both_links(pump, NEIGHBOUR)[0], leaf_of(pump, NEIGHBOUR)
    all_of_it = Purchase(buyer=BUYER, amount_sat=None)
    after, limit_sat = leaf.sold(all_of_it), covered_after(link, leaf, all_of_it)
    for beyond_msat in (0, 1):
        accepter_msat = limit_sat * MSAT_PER_SAT + beyond_msat
        richer = replace(link, state=replace(link.state, accepter_msat=accepter_msat))
        if not beyond_msat:
            check_covered(richer, after)
            continue
        with pytest.raises(Refusal, match=f"coverage: expected {msat(accepter_msat)} or more"):
            check_covered(richer, after)
