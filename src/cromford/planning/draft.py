"""The factory that is asked about, as it would be built: its tree, its times, its sizes.

Nothing is said twice here: the terms are those that an LSP would propose by the same policy, and
the sizes those of the transactions that would be signed. Sizes in virtual bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford import told
from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, fee_sat_of, keypath_tx_vsize
from cromford.bitcoin.network import MAINNET
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import WITNESS_SCALE
from cromford.channel.terms import ChannelTerms
from cromford.factory.close import CLOSE_CLIENTS_MAX
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.shape import PlannedVertex, ShapeVertex, plan_of
from cromford.factory.terms import SAFETY_BLOCKS, FactoryTerms, InvalidTerms
from cromford.planning.idea import Idea, InvalidPlan
from cromford.protocol.faults import Refusal
from cromford.protocol.htlc_blocks import payment_blocks
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.lobby.build import (
    NO_ATTEMPT_ID,
    capacity_floor_sat,
    check_buildable,
    terms_by_policy,
)
from cromford.protocol.lobby.shapes import shape_by_policy
from cromford.protocol.term_ranges import check_usual_client_signs, usual_client
from cromford.wallet.coins import wallet_tx_vsize
from cromford.watch.children_cost import ChildrenCost, children_cost
from cromford.watch.relayed import FixedFee, commitment_fee, vertex_fees
from cromford.watch.sweep import SWEEP_VSIZE

FUNDING_INPUTS: Final = 1  # An LSP's coins are as large as it makes them.
FUNDING_OUTPUTS: Final = 2  # The factory, or the channel, and a change.


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOut:
    """What leaving takes when nobody answers: for one client, or for all of them.

    Attributes:
        n_txs: Of the tree, the commitments, and what brings the balances into the clients' wallets.
        vsize: Of all these.
        agreed_fee_sat: What those of them pay whose fee stands in the terms.
        claim_fee_sat: What the last ones pay, at the feerate of the day.
        children: What lifts the others to the feerate of the day, where they pay less.
    """

    n_txs: int
    vsize: int
    agreed_fee_sat: int
    claim_fee_sat: int
    children: ChildrenCost

    @property
    def total_vsize(self) -> int:
        """What it takes of blocks, the children included."""
        return self.vsize + self.children.vsize

    @property
    def total_fee_sat(self) -> int:
        """What miners get of it all."""
        return self.agreed_fee_sat + self.claim_fee_sat + self.children.fee_sat


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A factory that could be built.

    Attributes:
        idea: What was asked for.
        shape: Of its tree.
        inner: The levels above its leaves.
        terms: What would be agreed, as if the chain began today.
        plan: Its tree with amounts.
        channel: What all its channels have in common.
    """

    idea: Idea
    shape: ShapeVertex
    inner: InnerLevels
    terms: FactoryTerms
    plan: PlannedVertex
    channel: ChannelTerms

    @cached_property
    def slowest_kinds(self) -> tuple[VertexKind, ...]:
        """The kinds of the vertices on the path that takes longest."""
        return self.shape.slowest_kinds

    @property
    def exit_delay_blocks(self) -> int:
        """The sum of the delays on that path."""
        return self.terms.exit_delay_blocks(self.slowest_kinds)

    @property
    def exit_blocks(self) -> int:
        """How long leaving may take through it, the commitment included."""
        return self.terms.exit_blocks(self.slowest_kinds)

    @property
    def lock_blocks(self) -> int:
        """How far ahead the expiry of a payment between two of its channels lies at its payer."""
        return payment_blocks(
            payer_exit_blocks=self.exit_blocks, payee_exit_blocks=self.exit_blocks
        )

    @property
    def end_blocks(self) -> int:
        """What is left of its life when everybody has moved: nothing but leaving fits into it."""
        return self.exit_blocks + SAFETY_BLOCKS

    @cached_property
    def active_range_blocks(self) -> tuple[int, int]:
        """The shortest and the longest normal life that usual clients sign."""
        least, most = usual_client(self.idea.policy).active_blocks
        expiry_max = usual_client(self.idea.policy).expiry_blocks_max
        rest = self.terms.dying_blocks + self.end_blocks
        return max(least, self.terms.ready_min_blocks), min(most, expiry_max - rest)

    @property
    def channel_sat(self) -> float:
        """What each client's channel and its part of the L-stock hold."""
        held_sat = sum(self.terms.capacity_sat) + sum(self.terms.lstock_sat)
        return held_sat / self.terms.n_clients

    @property
    def funding_vsize(self) -> int:
        """The funding transaction: the factory and a change, out of one coin."""
        return wallet_tx_vsize(n_inputs=FUNDING_INPUTS, n_outputs=FUNDING_OUTPUTS)

    @property
    def close_vsize(self) -> int:
        """The close of a factory that everybody moved out of: the LSP's output and an anchor."""
        return keypath_tx_vsize(n_p2tr_outputs=1, n_anchors=1)

    @property
    def is_closable(self) -> bool:
        """Whether one close may have all of its clients in scope."""
        return self.terms.n_clients <= CLOSE_CLIENTS_MAX

    @property
    def sweep_vsize(self) -> int:
        """What takes the funding output from the expiry on, or a delayed balance."""
        return SWEEP_VSIZE

    @property
    def commitment(self) -> FixedFee:
        """A commitment without an HTLC."""
        return commitment_fee(self.channel, n_htlcs=0)

    @cached_property
    def tree_txs(self) -> tuple[FixedFee, ...]:
        """Every transaction of the tree."""
        return tuple(fee for vertex in self.plan.vertices() for fee in vertex_fees(vertex))

    @cached_property
    def branch_txs(self) -> tuple[FixedFee, ...]:
        """Those on the slowest path, in the order in which they are published."""
        deepest = max(self.shape.leaves(), key=lambda leaf: len(leaf.path))
        path = self.plan.path_to(deepest.first_client)
        return tuple(fee for vertex in path for fee in vertex_fees(vertex))

    @property
    def one_leaves(self) -> WayOut:
        """What it takes that one client leaves, through the slowest path."""
        return self._way_out(self.branch_txs, n_leaving=1)

    @property
    def all_leave(self) -> WayOut:
        """What it takes that everybody leaves."""
        return self._way_out(self.tree_txs, n_leaving=self.terms.n_clients)

    @property
    def coop_close_vsize(self) -> int:
        """The cooperative close of a plain channel: two balances."""
        return keypath_tx_vsize(n_p2tr_outputs=2, n_anchors=0)

    @property
    def forced_close_vsize(self) -> int:
        """The close of a plain channel by one side: a commitment, and what takes its balance."""
        return self.commitment.vsize + self.sweep_vsize

    def _way_out(self, tree: Sequence[FixedFee], *, n_leaving: int) -> WayOut:
        agreed = [*tree, *[self.commitment] * n_leaving]
        feerate = self.idea.feerate_sat_per_kw
        return WayOut(
            n_txs=len(agreed) + n_leaving,
            vsize=sum(tx.vsize for tx in agreed) + n_leaving * self.sweep_vsize,
            agreed_fee_sat=sum(tx.fee_sat for tx in agreed),
            claim_fee_sat=n_leaving
            * fee_sat_of(vsize=self.sweep_vsize, feerate_sat_per_kw=feerate),
            children=children_cost(
                [FeeAndWeight(tx.fee_sat, WITNESS_SCALE * tx.vsize) for tx in agreed],
                feerate_sat_per_kw=feerate,
                mempool_min_sat_per_kw=MIN_RELAY_SAT_PER_KW,
            ),
        )


def draft_of(idea: Idea) -> Draft:
    """Return the factory that an LSP would build.

    Raises:
        InvalidPlan: If there is none, or usual clients would not sign it.
    """
    policy = idea.policy
    least_sat = capacity_floor_sat(policy)
    if idea.capacity_sat < least_sat:
        raise InvalidPlan(
            "capacity_sat", expected=f"at least {least_sat}", received=idea.capacity_sat
        )
    try:
        shape, inner = shape_by_policy(policy, idea.n_clients)
        _check_all_needed(idea, inner)
        terms = terms_by_policy(
            policy,
            (idea.capacity_sat,) * idea.n_clients,
            shape,
            inner,
            attempt_id=NO_ATTEMPT_ID,
            network=MAINNET,
            build_height=0,
        )
        draft = Draft(
            idea=idea,
            shape=shape,
            inner=inner,
            terms=terms,
            plan=plan_of(terms),
            channel=channel_terms_of(terms),
        )
        least, most = draft.active_range_blocks
        if not least <= idea.active_blocks <= most:
            raise InvalidPlan(
                "active_blocks", expected=f"{least}..{most}", received=idea.active_blocks
            )
        check_buildable(terms, shape, pool_size=policy.pool_size)
        check_usual_client_signs(terms, policy, MAINNET, slowest_kinds=draft.slowest_kinds)
    except (InvalidTerms, Refusal) as error:
        raise InvalidPlan(error.field, expected=error.expected, received=error.received) from error
    return draft


def _check_all_needed(idea: Idea, inner: InnerLevels) -> None:
    """Check that every level that was asked for is one of the tree's.

    An LSP's policy names levels for factories of any size, and a small one is built of the first of
    them; a plan is of one size.
    """
    if idea.inner_kind is not None and not inner.arities:
        raise InvalidPlan(
            "inner_kind",
            expected=f"none for {told.counted(idea.n_clients, 'client')} in one leaf",
            received=idea.inner_kind.label,
        )
    asked = () if idea.inner_levels is None else idea.inner_levels.arities
    if len(asked) > len(inner.arities):
        raise InvalidPlan(
            "inner_levels",
            expected=f"{told.counted(len(inner.arities), 'level')} for {idea.n_clients} clients",
            received=len(asked),
        )
