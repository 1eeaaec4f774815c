"""No amount that has an output is worth stealing: a table of factories, from real trees.

The thieves are the LSP and another client, or two clients. They may take an HTLC when its victim
gives it up. What they spend depends on how they come by the channel's output.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pytest
from tests.factory import oracle
from tests.factory.specimen import tree_of
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, fee_sat_of
from cromford.channel.terms import ChannelTerms
from cromford.factory.branch import branch_of
from cromford.factory.kinds import VertexKind
from cromford.factory.shape import default_levels, default_lstocks_sat, shape_of
from cromford.factory.tree import Tree
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.watch.sweep import SWEEP_VSIZE
from cromford.watch.worth import least_balance_sat

CAPACITY_SAT: Final = 100_000
LEAF_ARITY: Final = 2
SIZES: Final = (1, 2, 3, 4, 8, 16, 32, 64, 127, 128)
FEERATES: Final = (*ClientPolicy().tree_feerate_sat_per_kw, LspPolicy().tree_feerate_sat_per_kw)
SWEEP_SAT: Final = fee_sat_of(vsize=SWEEP_VSIZE, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)


@dataclass(frozen=True)
class Row:
    """One factory. `is_binary`: as deep as it takes; else within the default longest way out."""

    n_clients: int
    is_binary: bool
    feerate: int

    def __str__(self) -> str:
        shape = "binary" if self.is_binary else "default"
        return f"{self.n_clients}-{shape}-{self.feerate}"

    @cached_property
    def tree(self) -> Tree:
        policy = LspPolicy()
        delay_blocks = policy.step_blocks * (policy.states_per_layer - 1)
        limit_blocks = 40_000 if self.is_binary else policy.max_exit_delay_blocks
        inner = default_levels(
            self.n_clients,
            leaf_arity=LEAF_ARITY,
            kind=VertexKind.DW,
            delay_max_blocks=delay_blocks,
            max_exit_delay_blocks=limit_blocks,
        )
        shape = shape_of(self.n_clients, leaf_arity=LEAF_ARITY, inner=inner)
        capacities_sat = (CAPACITY_SAT,) * self.n_clients
        return tree_of(
            oracle.terms_of(
                list(capacities_sat),
                list(default_lstocks_sat(shape, capacities_sat)),
                leaf_arity=LEAF_ARITY,
                inner_arities=inner.arities,
                feerate=self.feerate,
            )
        )

    @property
    def channel(self) -> ChannelTerms:
        return channel_terms_of(self.tree.terms)

    def prepaid_sat(self, client: int) -> int:
        """Return what the LSP paid for a client's branch and commitment."""
        branch_sat = sum(node.fee_sat for node in branch_of(self.tree, client).nodes)
        return branch_sat + self.channel.commitment_fee_sat(n_htlc_outputs=1)

    @property
    def whole_tree_sat(self) -> int:
        """Return what the LSP paid for the tree, and for one commitment of each channel."""
        tree_sat = sum(node.fee_sat for node in self.tree.nodes)
        return tree_sat + self.n_clients * self.channel.commitment_fee_sat(n_htlc_outputs=1)


ROWS: Final = [
    Row(n_clients, is_binary, feerate)
    for feerate in FEERATES
    for is_binary in (False, True)
    for n_clients in SIZES
    if feerate == FEERATES[-1] or n_clients <= 8
]


def thefts_sat(row: Row, *, is_offered: bool) -> dict[str, int]:
    """Return what each way to an HTLC costs the thieves, by who brings the channel on chain.

    The anchor of an HTLC transaction is no cost: who makes it can sweep it.
    """
    terms = row.channel
    fee_sat = terms.htlc_tx_cost_sat(is_offered=is_offered) - terms.paid_anchor_sat
    return {
        "the thieves, and the branch is lost": row.prepaid_sat(1) + fee_sat + SWEEP_SAT,
        "somebody else, but for the commitment": fee_sat + SWEEP_SAT,
        "the victim, for its balance": SWEEP_SAT,
        "nobody: the LSP sweeps the factory after its expiry": 0,
    }


def profit_sat(row: Row, amount_sat: int, cost_sat: int) -> int:
    """Return what thieves gain of an HTLC with an output: nothing where its victim defends it."""
    is_given_up = amount_sat < least_balance_sat(row.channel)
    return amount_sat - cost_sat if is_given_up else -cost_sat


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_amount_that_has_an_output_is_profitable_to_steal(row: Row) -> None:
    """From the least to all that a channel holds, for each way that is open to thieves."""
    terms = row.channel
    for is_offered in (True, False):
        least_sat = terms.htlc_tx_cost_sat(is_offered=is_offered) + terms.dust_limit_sat
        for cost_sat in thefts_sat(row, is_offered=is_offered).values():
            amounts_sat = (*range(least_sat, CAPACITY_SAT, 997), row.prepaid_sat(1), CAPACITY_SAT)
            assert max(profit_sat(row, amount_sat, cost_sat) for amount_sat in amounts_sat) <= 0


@pytest.mark.parametrize("row", [row for row in ROWS if row.feerate == 500], ids=str)
def test_what_the_lsp_prepaid_must_not_count_as_a_cost_of_stealing(row: Row) -> None:
    """As a threshold it would give up more than the LSP spends, in three of four ways.

    And who takes from all clients at once pays but once for what their branches share.
    """
    for is_offered in (True, False):
        lost, *others = thefts_sat(row, is_offered=is_offered).values()
        assert all(lost - cost_sat >= row.prepaid_sat(1) for cost_sat in others)
    thresholds_sat = [row.prepaid_sat(client) for client in range(1, row.n_clients + 1)]
    assert (sum(thresholds_sat) > row.whole_tree_sat) == (row.n_clients > 1)


def test_the_numbers_of_the_decision_record() -> None:
    rows = [Row(n_clients, is_binary=False, feerate=500) for n_clients in (1, 8, 127)]
    told = [
        (
            row.n_clients,
            row.prepaid_sat(1),
            sum(row.prepaid_sat(client) for client in range(1, row.n_clients + 1)),
            row.whole_tree_sat,
        )
        for row in rows
    ]
    assert told == [
        (1, 1_002, 1_002, 1_002),
        (8, 2_252, 18_016, 7_778),
        (127, 3_284, 416_982, 105_888),
    ]


def test_both_roles_use_the_rule() -> None:
    pump = live_factory(3)
    own = newest_link(pump.clients[0])
    for link in (own, lsp_link(pump, own)):
        terms = link.setting.terms
        assert link.exit_cost_sat == least_balance_sat(terms) - 1
        for is_offered in (True, False):
            cost_sat = terms.htlc_tx_cost_sat(is_offered=is_offered)
            least_msat = 1000 * (cost_sat + terms.dust_limit_sat)
            assert terms.is_trimmed(least_msat - 1, is_offered=is_offered)
            assert not terms.is_trimmed(least_msat, is_offered=is_offered)
            assert least_msat > 1000 * link.exit_cost_sat
