"""A balance is worth leaving for if it pays for its sweep at our own node's lowest estimate."""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK, reasons_to_leave, wallet_sat
from tests.protocol.test_theft import SHORT
from tests.protocol.unanswered import mine_to

from cromford.channel.commitment import CommitmentOutputKind
from cromford.protocol.exiting.stake import balance_output_sat, is_worth_an_exit
from cromford.protocol.journal.link import Link
from cromford.watch.feerates import OwnFees

pytestmark = pytest.mark.sampled_file(3)

DEADLINE = "the exit deadline"


def week_at(sat_per_kw: int) -> OwnFees:
    """Return what a node says that asks for much today, and for this within a week."""
    return OwnFees(
        estimates=((2, 20 * sat_per_kw), (144, 2 * sat_per_kw), (1008, sat_per_kw)),
        mempool_min_sat_per_kw=sat_per_kw,
    )


def away_with(balance_sat: int, fees: OwnFees) -> tuple[Pump, PumpNode]:
    """Return a client that is away from its LSP, with a balance and a node that says this."""
    pump = live_factory(2, policy=SHORT)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, 1000 * balance_sat)
    pump.disconnect(alice)
    alice.fees = fees
    return pump, alice


# By the lowest estimate


@pytest.mark.parametrize(
    ("sat_per_vb", "balance_sat", "leaves"),
    [
        (10, 1_300, False),
        (10, 1_301, True),
        (50, 6_500, False),
        (50, 6_501, True),
        (1, 353, False),
        (1, 354, True),
    ],
)
def test_a_balance_is_left_for_if_it_is_more_than_130_vbytes_at_the_lowest_estimate(
    sat_per_vb: int, balance_sat: int, *, leaves: bool
) -> None:
    """Neither today's rate nor the terms' 20 sat/vB count; nor does what has no output."""
    pump, alice = away_with(balance_sat, week_at(250 * sat_per_vb))
    deadline = newest_link(alice).exit_deadline_height
    mine_to(pump, deadline - 1)
    assert reasons_to_leave(alice) == []
    mine_to(pump, deadline)
    assert reasons_to_leave(alice) == ([DEADLINE] if leaves else [])


@pytest.mark.parametrize(
    "fees",
    [
        OwnFees(),
        OwnFees(mempool_min_sat_per_kw=12_500, fallback_sat_per_kw=25_000),
        OwnFees(estimates=((2, 25_000), (6, 25_000)), mempool_min_sat_per_kw=12_500),
        OwnFees(mempool_min_sat_per_kw=2_500_000, min_relay_sat_per_kw=2_500_000),
    ],
    ids=[
        "nothing",
        "a full mempool and a careful operator",
        "the next blocks only",
        "a minimum in the wrong unit",
    ],
)
def test_no_balance_is_lost_because_a_node_has_no_estimate_for_a_week(fees: OwnFees) -> None:
    pump, alice = away_with(354, fees)
    mine_to(pump, newest_link(alice).exit_deadline_height)
    assert reasons_to_leave(alice) == [DEADLINE]


@pytest.mark.sampled(0)
def test_what_is_not_worth_it_at_the_deadline_is_left_for_when_fees_fall_before_the_expiry() -> (
    None
):
    """Asked at every block; the sweep then waits for a day on which it pays, and is paid."""
    pump, alice = away_with(1_200, week_at(2_500))
    link = newest_link(alice)
    mine_to(pump, link.exit_deadline_height + 40)
    assert reasons_to_leave(alice) == []
    alice.fees = week_at(2_308)  # 1,201 sat for 130 vB.
    pump.mine()
    assert reasons_to_leave(alice) == []
    alice.fees = week_at(2_300)  # 1,196 sat.
    pump.mine()
    assert reasons_to_leave(alice) == [DEADLINE]
    mine_to(pump, link.expiry_height - 1)
    assert link.setting.funding.outpoint in alice.state.chain.spends, "before the expiry"
    pump.mine(200)
    assert wallet_sat(alice) == 0, "a day's rate is more than it holds"
    alice.fees = week_at(100)
    pump.mine(2)
    assert wallet_sat(alice) == 1_200 - 104


def test_until_the_expiry_it_is_asked_and_a_balance_that_is_never_worth_it_stays() -> None:
    pump, alice = away_with(1_200, week_at(2_500))
    link = newest_link(alice)
    mine_to(pump, link.expiry_height)
    assert reasons_to_leave(alice) == []
    pump.mine(2)
    assert reasons_to_leave(alice) == []
    assert pump.chain.coin(link.setting.funding.outpoint) is None


def test_a_client_whose_channel_failed_asks_the_same_question() -> None:
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, 1_200_000)
    link = newest_link(alice)
    for fees, is_worth_it in ((week_at(2_500), False), (week_at(2_300), True)):
        assert is_worth_an_exit(book(alice), link, fees) is is_worth_it


# Only outputs count


def test_an_lsps_balance_counts_as_the_output_that_is_left_of_it() -> None:
    """It pays the commitment's fee and the anchor: of its reserve of 2,638 sat 2,064 are left."""
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    own = lsp_link(pump, newest_link(alice))
    spendable_msat = 1000 * (own.state.capacity_sat - 2_638)
    pay(pump, pump.lsp, alice, spendable_msat)
    own = lsp_link(pump, newest_link(alice))
    assert balance_output_sat(own) == 2_064
    for sat_per_kw, is_worth_it in ((3_969, False), (3_967, True)):
        assert is_worth_an_exit(book(pump.lsp), own, week_at(sat_per_kw)) is is_worth_it


def own_output_sat(link: Link) -> int:
    kinds = [CommitmentOutputKind.TO_HOLDER]
    outputs = link.finished.commitment.outputs
    return sum(output.amount_sat for output in outputs if output.kind in kinds)


@pytest.mark.parametrize("amounts_msat", [[], [9_000_000], [700_000, 960_000, 9_000_000]])
def test_what_counts_is_what_the_own_commitment_pays(amounts_msat: list[int]) -> None:
    """With HTLCs of which some have an output, and some only on one side's commitment."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    pump.disconnect(bob)
    for amount_msat in amounts_msat:
        pump.handle(alice, make_invoice(pump, bob, amount_msat))
        pump.run()
    link = newest_link(alice)
    assert len(link.state.htlcs) == len(amounts_msat)
    for side in (link, lsp_link(pump, link)):
        assert balance_output_sat(side) == own_output_sat(side)
    bobs = newest_link(bob)
    assert balance_output_sat(bobs) == own_output_sat(bobs) == 0
    assert balance(bob).own_msat == 0


def test_an_htlc_at_stake_is_left_for_whatever_a_sweep_costs() -> None:
    pump, alice = away_with(12_000, OwnFees())
    bob = pump.clients[1]
    pump.connect(alice)
    request = make_invoice(pump, bob, 11_900_000)
    pump.disconnect(bob)
    mine_to(pump, newest_link(alice).exit_deadline_height - 2)
    pump.handle(alice, request)
    pump.run()
    link = newest_link(alice)
    assert len(link.state.htlcs) == 1
    assert is_worth_an_exit(book(alice), link, week_at(100_000))
    gone = replace(link, state=replace(link.state, htlcs=()))
    assert not is_worth_an_exit(book(alice), gone, week_at(100_000))
