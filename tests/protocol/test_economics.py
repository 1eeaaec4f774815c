"""Every number in docs/economics.md, from the code that decides it."""

from pathlib import Path
from typing import Final

import pytest
from tests.factory import oracle

from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms
from cromford.daemon.api.payment_limits import ANNOUNCED_HOLD_SECONDS_MAX
from cromford.factory.kinds import VertexKind, exit_blocks_of
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol.advancing.pricing import MONTH_BLOCKS, price_msat
from cromford.protocol.htlc_blocks import final_blocks, payment_blocks
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.lobby.build import CLTV_MARGIN_BLOCKS
from cromford.protocol.lobby.shapes import ShapeCost, shape_costs
from cromford.protocol.policy import ClientPolicy, LspPolicy, SalePrice
from cromford.watch.burnt import channel_burns_sat
from cromford.watch.sweep import SWEEP_VSIZE

POLICY: Final = LspPolicy()
BLOCKS_PER_YEAR: Final = 52_560
LEAF_ALONE: Final = (VertexKind.STATIC, VertexKind.DW)  # A static tree of 8 clients.


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs/economics.md").read_text(encoding="utf-8")


def shape_row(n_clients: int, names: str, cost: ShapeCost) -> str:
    assert cost.inner is not None
    assert None not in (cost.exit_blocks, cost.lock_blocks, cost.branch_vsize, cost.tree_vsize)
    levels = zip(cost.inner.kinds, cost.inner.arities, strict=True)
    told = ", ".join(f"{kind.label} {arity}" for kind, arity in levels)
    return (
        f"| {n_clients:,} | {names} | {told} | {cost.exit_blocks:,} | {cost.lock_blocks:,} "
        f"| {cost.branch_vsize:,} | {cost.tree_vsize:,} |"
    )


@pytest.mark.parametrize("n_clients", [4, 8, 16, 64, 127, 1024])
def test_what_each_shape_costs(page: str, n_clients: int) -> None:
    costs = {cost.choice: cost for cost in shape_costs(POLICY, n_clients)}
    is_picture = costs["default"].inner == costs["dw"].inner
    for name in ("dw", "static"):
        names = f"default, {name}" if is_picture is (name == "dw") else name
        assert shape_row(n_clients, names, costs[name]) in page


def test_the_parts_of_a_payees_expiry(page: str) -> None:
    assert final_blocks(456) == 456 + 174 == 630
    assert final_blocks(462) == 636
    assert final_blocks(1_338) == 1_512
    assert payment_blocks(payer_exit_blocks=462, payee_exit_blocks=462) == 1_134
    assert "is 636 (462 + 174)" in page
    assert "never one whose part is 1,512" in page


@pytest.mark.parametrize(
    ("active_blocks", "days"),
    [(4_320, "30 days"), (12_960, "90 days"), (25_920, "180 days"), (51_528, "358 days")],
)
def test_how_often_a_factory_is_paid_for(page: str, active_blocks: int, days: str) -> None:
    exit_blocks = exit_blocks_of(LEAF_ALONE, delay_max_blocks=POLICY.delay_max_blocks)
    life = active_blocks + POLICY.dying_blocks + exit_blocks + SAFETY_BLOCKS
    row = f"| {active_blocks:,} ({days}) | {life:,} | {BLOCKS_PER_YEAR / life:.1f} |"
    assert row in page
    assert ClientPolicy().expiry_blocks_max == BLOCKS_PER_YEAR


def test_the_defaults_that_the_page_gives(page: str) -> None:
    assert (POLICY.active_blocks, POLICY.to_self_delay_client) == (12_960, 144)
    assert (POLICY.to_self_delay_lsp, POLICY.step_blocks) == (144, 144)
    assert (POLICY.hold_seconds, POLICY.announced_hold_seconds) == (30, 10_800)
    assert (
        f"| `announced_hold_seconds` | {10_800:,}, at most {ANNOUNCED_HOLD_SECONDS_MAX:,} |" in page
    )
    slow = [exit_blocks_of(kinds, delay_max_blocks=432) for kinds in SLOWEST]
    assert [2 * blocks + CLTV_MARGIN_BLOCKS for blocks in slow] == [1_632, 1_644, 3_396]
    assert ClientPolicy().max_cltv_blocks[1] == 4_032
    assert payment_blocks(payer_exit_blocks=0, payee_exit_blocks=0) == 210
    assert CLTV_MARGIN_BLOCKS - 210 == 510


SLOWEST: Final = (
    (VertexKind.STATIC, VertexKind.DW),
    (VertexKind.STATIC, VertexKind.STATIC, VertexKind.DW),
    (VertexKind.DW, VertexKind.DW, VertexKind.DW),
)


@pytest.mark.parametrize("feerate_sat_per_vb", [1, 2, 4, 10, 20])
def test_the_smallest_htlc_with_an_output(page: str, feerate_sat_per_vb: int) -> None:
    feerate = feerate_sat_per_vb * SAT_PER_KW_OF_SAT_PER_VB
    terms = channel_terms_of(oracle.terms_of([1_000_000], [0], feerate=feerate))
    offered, received = (floor_sat(terms, is_offered=is_offered) for is_offered in (True, False))
    default = " (default)" if feerate == POLICY.tree_feerate_sat_per_kw else ""
    assert f"| {feerate_sat_per_vb} sat/vB{default} | {offered:,} sat | {received:,} sat |" in page
    assert f"{terms.dust_limit_sat / SWEEP_VSIZE:.1f} sat/vB" == "2.7 sat/vB"


@pytest.mark.parametrize("feerate_sat_per_vb", [1, 2, 4, 10, 20])
def test_what_leaving_burns(page: str, feerate_sat_per_vb: int) -> None:
    feerate = feerate_sat_per_vb * SAT_PER_KW_OF_SAT_PER_VB
    terms = channel_terms_of(oracle.terms_of([1_000_000], [0], feerate=feerate))
    burnt_sat, least_sat = channel_burns_sat(terms), POLICY.burn_limit.capacity_min_sat(terms)
    default = " (default)" if feerate == POLICY.tree_feerate_sat_per_kw else ""
    assert (
        f"| {feerate_sat_per_vb} sat/vB{default} | {burnt_sat:,} sat | {least_sat:,} sat |" in page
    )
    assert (POLICY.burn_limit.percent, POLICY.burn_limit.times_estimate) == (10, 10)


@pytest.mark.parametrize("amount_sat", [10_000, 100_000, 1_000_000])
def test_what_inbound_liquidity_costs(page: str, amount_sat: int) -> None:
    short, usual = (
        price_msat(SalePrice(), amount_sat=amount_sat, usable_blocks=blocks) // MSAT_PER_SAT
        for blocks in (MONTH_BLOCKS, POLICY.active_blocks)
    )
    percent = f"{100 * short / amount_sat:.2f} to {100 * usual / amount_sat:.2f} %"
    assert f"| {amount_sat:,} sat | {short:,} sat | {usual:,} sat | {percent} |" in page


def test_the_parts_of_a_price_that_the_page_gives(page: str) -> None:
    price = SalePrice()
    per_year = price.per_month * BLOCKS_PER_YEAR / MONTH_BLOCKS / 10_000
    assert f"{per_year:.2f} % a year" in page
    assert f"| `per_month` | {price.per_month / 10_000:g} % of the amount" in page
    assert f"| `per_million` | {price.per_million / 10_000:g} % of the amount" in page
    assert price.per_million * 2 == price.per_month  # Half a month of it.
    assert f"| `base_msat` | {price.base_msat // MSAT_PER_SAT} sat |" in page
    assert f"| `min_sat` | {price.min_sat:,} sat |" in page
    assert price.base_msat * 100 == price.min_sat * MSAT_PER_SAT  # One percent of it.
    assert POLICY.states_per_layer - 1 == 3


def floor_sat(terms: ChannelTerms, *, is_offered: bool) -> int:
    """Return the least amount that has an output, tried one by one around where it should be."""
    found = terms.dust_limit_sat + terms.htlc_tx_cost_sat(is_offered=is_offered)
    assert terms.is_trimmed((found - 1) * MSAT_PER_SAT, is_offered=is_offered)
    assert not terms.is_trimmed(found * MSAT_PER_SAT, is_offered=is_offered)
    return found
