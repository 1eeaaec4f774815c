"""What the LSP prepaid is no price of a theft, so no HTLC with an output is ever given up.

An HTLC could be given up where taking it costs the other side at least what it brings. These tests
reckon that for both sides, and play what follows where branch and commitment count for an LSP.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.specimen import tree_of
from tests.protocol.paying_clients import (
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode, Tamper
from tests.protocol.test_leaving import QUICK, mute, reasons_to_leave, wallet_sat
from tests.protocol.test_theft import SHORT
from tests.protocol.unanswered import mine_to, only_expiry

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, fee_sat_of
from cromford.channel.content import Htlc
from cromford.channel.terms import HTLCS_MAX, MSAT_PER_SAT, ChannelTerms, Party
from cromford.factory.branch import branch_of
from cromford.factory.shape import default_lstocks_sat
from cromford.factory.tree import Tree
from cromford.protocol.exiting import stake
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.journal.link import Link
from cromford.protocol.lobby.shapes import shape_by_policy
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.watch.remaining import remaining_of
from cromford.watch.sweep import SWEEP_VSIZE
from cromford.wire import messages as m

SWEEP_SAT: Final = fee_sat_of(vsize=SWEEP_VSIZE, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)
CAPACITY_SAT: Final = 100_000
STOLEN_MSAT: Final = 1_500_000
ROOMY: Final = replace(SHORT, tree_feerate_sat_per_kw=500)


# What the other side spends, whoever it is


def spent_sat(terms: ChannelTerms, *, is_offered: bool) -> int:
    """Return what a thief spends on one HTLC of its own commitment: the channel is on chain."""
    return terms.htlc_tx_cost_sat(is_offered=is_offered) + SWEEP_SAT


@given(
    feerate=st.integers(0, 25_000),
    dust_limit_sat=st.integers(330, 354),
    htlcs=st.lists(
        st.tuples(st.booleans(), st.integers(0, 10_000)), min_size=1, max_size=2 * HTLCS_MAX
    ),
)
def test_the_sum_of_htlcs_with_an_output_is_always_more_than_is_spent_on_all_of_them(
    feerate: int, dust_limit_sat: int, htlcs: list[tuple[bool, int]]
) -> None:
    """Many small ones are no way around it: each holds more than it costs, so their sum does."""
    terms = ChannelTerms(
        feerate_per_kw=feerate,
        to_self_delay_opener=144,
        to_self_delay_accepter=144,
        max_accepted_htlcs=HTLCS_MAX,
        max_in_flight_msat=10**9,
        dust_limit_sat=dust_limit_sat,
    )
    sum_sat = cost_sat = 0
    for is_offered, more_sat in htlcs:
        least_sat = terms.htlc_tx_cost_sat(is_offered=is_offered) + dust_limit_sat
        assert not terms.is_trimmed(MSAT_PER_SAT * least_sat, is_offered=is_offered)
        assert terms.is_trimmed(MSAT_PER_SAT * least_sat - 1, is_offered=is_offered)
        sum_sat += least_sat + more_sat
        cost_sat += spent_sat(terms, is_offered=is_offered)
    assert sum_sat >= cost_sat + len(htlcs) * (dust_limit_sat - SWEEP_SAT)


# What an LSP would keep if branch and commitment counted


def tree_for(n_clients: int, feerate: int) -> Tree:
    """Return a tree as an LSP builds it by default."""
    shape, inner = shape_by_policy(LspPolicy(), n_clients)
    capacities_sat = (CAPACITY_SAT,) * n_clients
    return tree_of(
        oracle.terms_of(
            capacities_sat,
            default_lstocks_sat(shape, capacities_sat),
            inner_arities=inner.arities,
            inner_kinds=[kind.label for kind in inner.said_kinds],
            feerate=feerate,
        )
    )


def branch_sat(tree: Tree, client: int) -> int:
    return sum(node.fee_sat + tree.terms.anchor_sat for node in branch_of(tree, client).nodes)


def commitment_sat(terms: ChannelTerms) -> int:
    return terms.commitment_fee_sat(n_htlc_outputs=1) + terms.paid_anchor_sat


def would_keep_sat(tree: Tree) -> dict[str, int]:
    """Return what the thief would gain by the largest HTLC that the clause gives up, by its way.

    `all clients`: what it would gain of everybody, whose branches it pays but once.
    """
    terms = channel_terms_of(tree.terms)
    taking_sat = spent_sat(terms, is_offered=True)
    given_up_sat = branch_sat(tree, 1) + commitment_sat(terms) + taking_sat
    clients = range(1, tree.terms.n_clients + 1)
    whole_sat = sum(node.fee_sat + tree.terms.anchor_sat for node in tree.nodes)
    return {
        "given up": given_up_sat,
        "its own exit": given_up_sat - branch_sat(tree, 1) - commitment_sat(terms) - taking_sat,
        "a neighbour's exit": given_up_sat - commitment_sat(terms) - taking_sat,
        "the victim's exit": given_up_sat - SWEEP_SAT,
        "nobody's exit": given_up_sat,
        "all clients": sum(branch_sat(tree, client) for client in clients) - whole_sat,
    }


@pytest.mark.parametrize(
    ("n_clients", "sat_per_vb", "told"),
    [
        (1, 2, (2_323, 0, 1_062, 2_310, 2_323, 0)),
        (8, 2, (3_155, 0, 1_894, 3_142, 3_155, 9_814)),
        (127, 2, (4_647, 0, 3_386, 4_634, 4_647, 340_884)),
        (8, 20, (20_633, 0, 12_460, 20_620, 20_633, 65_740)),
    ],
)
def test_the_numbers_of_the_decision_record(
    n_clients: int, sat_per_vb: int, told: tuple[int, ...]
) -> None:
    kept = would_keep_sat(tree_for(n_clients, 250 * sat_per_vb))
    assert tuple(kept.values()) == told
    assert all(gain_sat > 0 for way, gain_sat in kept.items() if way != "its own exit") == (
        n_clients > 1
    )


def test_what_a_silent_payee_makes_an_lsp_publish_in_numbers() -> None:
    tree = tree_for(8, LspPolicy().tree_feerate_sat_per_kw)
    terms = channel_terms_of(tree.terms)
    assert branch_sat(tree, 1) + commitment_sat(terms) == 2_554
    least_sat = [
        terms.htlc_tx_cost_sat(is_offered=is_offered) + terms.dust_limit_sat
        for is_offered in (True, False)
    ]
    assert least_sat == [942, 972]


def test_the_lsp_would_choose_itself_how_much_is_given_up() -> None:
    """The price is its own feerate's: from the least to the most that a client signs, ten times."""
    low, high = ClientPolicy().tree_feerate_sat_per_kw
    cheap, dear = (would_keep_sat(tree_for(8, rate))["given up"] for rate in (low, high))
    assert (cheap, dear) == (2_184, 20_633)


# The attack, played


def deaf_to_a_preimage(payee: PumpNode) -> Tamper:
    """Return a tamper: once a payee has shown its preimage it hears nothing more."""
    shown: list[bool] = []

    def tamper(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if by is payee and isinstance(message, m.UpdateFulfillHtlc):
            shown.append(True)
        return () if shown and to is payee else (message,)

    return tamper


def unpaid(pump: Pump, payee: PumpNode) -> Link:
    """Let an LSP take a payee's preimage, and not pay for it; return the payee's channel."""
    request = make_invoice(pump, payee, STOLEN_MSAT)
    with pump.tampering(deaf_to_a_preimage(payee)):
        pump.handle(pump.lsp, request)
        pump.run()
    pump.disconnect(payee)
    assert book(pump.lsp).payments[request.payment_hash].status == "paid"
    return newest_link(payee)


defended: Final = stake.htlcs_at_stake


def given_up_by(payee: PumpNode) -> Callable[[Book, Link], list[Htlc]]:
    """Return what is at stake if what the LSP prepaid counts: all of it, as nothing is on chain."""
    link = newest_link(payee)
    terms = link.setting.terms
    branch = payee.state.attempts[link.attempt_id].branch
    prepaid_sat = sum(node.fee_sat + terms.paid_anchor_sat for node in branch.nodes)

    def at_stake(own: Book, link: Link) -> list[Htlc]:
        htlcs = defended(own, link)
        if link.me is Party.OPENER:
            return htlcs
        cost_sat = prepaid_sat + commitment_sat(terms)
        cost_sat += len(htlcs) * spent_sat(terms, is_offered=True)
        sum_sat = sum(htlc.amount_msat for htlc in htlcs) // MSAT_PER_SAT
        return [] if sum_sat <= cost_sat else htlcs

    return at_stake


def after_the_expiry(pump: Pump, link: Link) -> int:
    """Mine until the LSP swept what it can, and return what its wallet has."""
    mine_to(pump, link.expiry_height + 20)
    return wallet_sat(pump.lsp)


@pytest.mark.sampled(0)
def test_if_what_it_prepaid_counted_an_lsp_would_keep_a_payment_and_spend_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for the expiry, and sweeps the factory as it would have without the theft."""
    untouched = live_factory(2, policy=ROOMY)
    without_sat = after_the_expiry(untouched, newest_link(untouched.clients[1]))
    pump = live_factory(2, policy=ROOMY)
    bob = pump.clients[1]
    monkeypatch.setattr(stake, "htlcs_at_stake", given_up_by(bob))
    link = unpaid(pump, bob)
    assert defended(book(bob), link), "it is worth more than the HTLC transaction and a sweep"
    assert after_the_expiry(pump, link) == without_sat
    assert reasons_to_leave(bob) == []
    assert wallet_sat(bob) == 0, "what the LSP got its receipt for was never paid"


def test_so_a_payee_leaves_for_an_htlc_that_is_smaller_than_what_the_lsp_prepaid() -> None:
    pump = live_factory(2, policy=ROOMY)
    bob = pump.clients[1]
    link = unpaid(pump, bob)
    assert given_up_by(bob)(book(bob), link) == [] != defended(book(bob), link)
    mine_to(pump, only_expiry(link) - link.exit_blocks - 18)
    assert reasons_to_leave(bob) == ["an HTLC expires"]
    pump.mine(link.exit_blocks + link.setting.terms.to_self_delay_accepter + 20)
    left_sat = STOLEN_MSAT // MSAT_PER_SAT
    left_sat -= link.setting.terms.htlc_tx_cost_sat(is_offered=False)
    assert left_sat - 270 < wallet_sat(bob) < left_sat, "all but its sweep, at 2 sat/vB"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_htlcs", [2, 5])
def test_an_lsp_leaves_for_many_small_htlcs_of_a_silent_payee_as_for_one(n_htlcs: int) -> None:
    """Each costs the payee 588 sat of 1,000 and a sweep; by the sum it would gain from all."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    # Bob never hears that the LSP is bound, so he shows no preimage.
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        for _ in range(n_htlcs):
            pump.handle(alice, make_invoice(pump, bob, 1_000_000))
            pump.run()
    pump.disconnect(bob)
    link = lsp_link(pump, newest_link(bob))
    assert len(link.state.htlcs) == len(stake.htlcs_at_stake(book(pump.lsp), link)) == n_htlcs
    first = min(live.htlc.cltv_expiry for live in link.state.htlcs)
    mine_to(pump, first - link.exit_blocks - 18)
    assert reasons_to_leave(pump.lsp) == ["an HTLC expires"]


# Asked again at each block, it would be too late


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("late_blocks", "is_in_time"), [(13, False), (400, False), (12, True)])
def test_who_let_the_publish_height_pass_is_not_in_time_when_a_neighbour_leaves(
    late_blocks: int, *, is_in_time: bool
) -> None:
    """A state's delay shortens the rest of the way by a block a block: the slack stays what it was.

    So an HTLC that was given up before a neighbour brought the branch on chain is not saved by
    asking again. What a transaction makes good is the six blocks that it was given to confirm.
    """
    link = newest_link(live_factory(8, policy=LspPolicy(min_clients=1, min_depth=1)).clients[0])
    cltv_expiry = 10_000
    kickoff_height = cltv_expiry - link.exit_blocks - 18 + late_blocks
    above = [step.txid for step in link.path if not step.delay_blocks]
    assert len(above) == 2
    confirmed = dict.fromkeys(above, kickoff_height)
    slacks = {
        cltv_expiry - left.exit_blocks - 18 - height
        for height in range(kickoff_height + 5, kickoff_height + 432)
        for left in [
            remaining_of(link.path, expiry_height=20_000, confirmed=confirmed, tip_height=height)
        ]
    }
    assert slacks == {6 * len(above) - late_blocks}
    assert all((slack >= 0) is is_in_time for slack in slacks)
