"""A plan as one document: plain data with units in its names, for machines, tables and pictures."""

from dataclasses import replace
from typing import Final, TypedDict

from cromford.bitcoin.block import BLOCK_WEIGHT_MAX
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.tx import WITNESS_SCALE
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.kinds import VertexKind
from cromford.planning.draft import Draft, WayOut, draft_of
from cromford.planning.idea import DAY_BLOCKS, MILLIONTHS_PER_PERCENT, Idea, InvalidPlan
from cromford.planning.monthly import (
    Monthly,
    all_there,
    feerate_from_which_less,
    in_channel,
    in_factory,
    in_lasting_channel,
    locked_blocks,
)
from cromford.protocol.lobby.shapes import BY_NUMBER, OWN

N_POINTS: Final = 50  # Lifetimes that are plotted: a column each, in a terminal of 60.


class AskedDocument(TypedDict):
    """What the plan is for; the rates are a year's."""

    n_clients: int
    leaf_arity: int
    step_blocks: int
    states_per_layer: int
    active_blocks: int
    dying_blocks: int
    capacity_sat: int
    tree_feerate_sat_per_vb: float
    feerate_sat_per_vb: float
    capital_percent_per_year: float
    loss_percent_per_year: float


class ShapeDocument(TypedDict):
    """The tree."""

    inner_arities: list[int]
    inner_kinds: list[str]
    n_leaves: int
    n_transactions: int


class TimesDocument(TypedDict):
    """How long things take at the most, in blocks; `life_blocks` from the funding to the expiry."""

    exit_delay_blocks: int
    exit_blocks: int
    lock_blocks: int
    life_blocks: int
    active_min_blocks: int
    active_max_blocks: int


class SizesDocument(TypedDict):
    """What transactions take, in virtual bytes. The last three are a plain channel's."""

    funding_vsize: int
    close_vsize: int
    sweep_vsize: int
    branch_vsize: int
    tree_vsize: int
    commitment_vsize: int
    open_vsize: int
    coop_close_vsize: int
    forced_close_vsize: int


class CapitalDocument(TypedDict):
    """What the LSP locks, in sat."""

    capacities_sat: int
    lstocks_sat: int
    tree_fees_sat: int
    anchors_sat: int
    funding_amount_sat: int
    per_client_sat: float


class WayOutDocument(TypedDict):
    """What leaving by force takes. `vsize` without the children, `n_blocks` with them."""

    n_transactions: int
    vsize: int
    agreed_fee_sat: int
    claim_fee_sat: int
    n_children: int
    children_vsize: int
    children_fee_sat: int
    total_vsize: int
    total_fee_sat: int
    n_blocks: float


class AloneDocument(WayOutDocument):
    """The same of one client, and what a coin of its own has to hold for its children."""

    coin_sat: int


class MonthDocument(TypedDict):
    """What one client that is there costs in a month."""

    vsize: float
    fee_msat: int
    capital_msat: int
    cost_msat: int


class LifeDocument(MonthDocument):
    """The same in a factory of some lifetime."""

    active_blocks: int
    locked_blocks: int
    all_there_percent: float


class BestDocument(LifeDocument):
    """The lifetime at which it costs the least; at a limit, clients sign no better one."""

    is_shortest: bool
    is_longest: bool


class ChannelDocument(MonthDocument):
    """The same in a plain channel; `factory_is_less_from_sat_per_vb` is null where it never is.

    `kept_blocks` is null for one that is kept until the client is lost.
    """

    kept_blocks: int | None
    factory_is_less_from_sat_per_vb: float | None


class PointDocument(TypedDict):
    """A lifetime in the plot, and what a client costs in a month."""

    active_blocks: int
    cost_msat: int
    channel_cost_msat: int


class ChoiceDocument(TypedDict):
    """Another shape for the same clients; if it cannot be, all is null but its name and why."""

    choice: str
    is_chosen: bool
    inner_arities: list[int] | None
    inner_kinds: list[str] | None
    exit_blocks: int | None
    lock_blocks: int | None
    branch_vsize: int | None
    tree_vsize: int | None
    cost_msat: int | None
    best_active_blocks: int | None
    best_cost_msat: int | None
    refusal: str | None


class PlanDocument(TypedDict):
    """A plan."""

    asked: AskedDocument
    shape: ShapeDocument
    times: TimesDocument
    sizes: SizesDocument
    capital: CapitalDocument
    one_leaves: AloneDocument
    all_leave: WayOutDocument
    factory: LifeDocument
    best: BestDocument
    channel_as_long: ChannelDocument
    channel_kept: ChannelDocument
    lifetimes: list[PointDocument]
    choices: list[ChoiceDocument]


def plan_factory(idea: Idea) -> PlanDocument:
    """Return the plan of a factory.

    Raises:
        InvalidPlan: If there is none, naming the field, what was expected, and what was received.
    """
    draft = draft_of(idea)
    month = in_factory(draft, idea.active_blocks)
    as_long = in_channel(draft, idea.active_blocks)
    return {
        "asked": _asked(idea),
        "shape": {
            "inner_arities": list(draft.inner.arities),
            "inner_kinds": [kind.label for kind in draft.inner.kinds],
            "n_leaves": len(draft.terms.lstock_sat),
            "n_transactions": draft.plan.n_txs,
        },
        "times": _times(draft),
        "sizes": _sizes(draft),
        "capital": _capital(draft),
        "one_leaves": {
            **_way_out(draft.one_leaves),
            "coin_sat": draft.one_leaves.children.coin_sat,
        },
        "all_leave": _way_out(draft.all_leave),
        "factory": _life(draft, idea.active_blocks),
        "best": _best(draft),
        "channel_as_long": {
            **_month(as_long),
            "kept_blocks": idea.active_blocks,
            "factory_is_less_from_sat_per_vb": _feerate(month, as_long),
        },
        "channel_kept": {
            **_month(in_lasting_channel(draft)),
            "kept_blocks": None,
            "factory_is_less_from_sat_per_vb": _feerate(month, in_lasting_channel(draft)),
        },
        "lifetimes": [_point(draft, blocks) for blocks in _plotted(draft)],
        "choices": _choices(idea),
    }


def best_active_blocks(draft: Draft) -> int:
    """Return the normal life at which a client costs the least; the shortest, of several.

    Of those that usual clients sign, from the shortest on day by day.
    """
    least, most = draft.active_range_blocks
    return min(
        range(least, most + 1, DAY_BLOCKS), key=lambda blocks: in_factory(draft, blocks).cost_sat
    )


def _asked(idea: Idea) -> AskedDocument:
    return {
        "n_clients": idea.n_clients,
        "leaf_arity": idea.leaf_arity,
        "step_blocks": idea.step_blocks,
        "states_per_layer": idea.states_per_layer,
        "active_blocks": idea.active_blocks,
        "dying_blocks": idea.dying_blocks,
        "capacity_sat": idea.capacity_sat,
        "tree_feerate_sat_per_vb": sat_per_vb(idea.tree_feerate_sat_per_kw),
        "feerate_sat_per_vb": sat_per_vb(idea.feerate_sat_per_kw),
        "capital_percent_per_year": idea.capital_millionths / MILLIONTHS_PER_PERCENT,
        "loss_percent_per_year": idea.loss_millionths / MILLIONTHS_PER_PERCENT,
    }


def _times(draft: Draft) -> TimesDocument:
    least, most = draft.active_range_blocks
    return {
        "exit_delay_blocks": draft.exit_delay_blocks,
        "exit_blocks": draft.exit_blocks,
        "lock_blocks": draft.lock_blocks,
        "life_blocks": draft.terms.expiry_height - draft.terms.build_height,
        "active_min_blocks": least,
        "active_max_blocks": most,
    }


def _sizes(draft: Draft) -> SizesDocument:
    return {
        "funding_vsize": draft.funding_vsize,
        "close_vsize": draft.close_vsize,
        "sweep_vsize": draft.sweep_vsize,
        "branch_vsize": sum(tx.vsize for tx in draft.branch_txs),
        "tree_vsize": sum(tx.vsize for tx in draft.tree_txs),
        "commitment_vsize": draft.commitment.vsize,
        "open_vsize": draft.funding_vsize,
        "coop_close_vsize": draft.coop_close_vsize,
        "forced_close_vsize": draft.forced_close_vsize,
    }


def _capital(draft: Draft) -> CapitalDocument:
    terms = draft.terms
    return {
        "capacities_sat": sum(terms.capacity_sat),
        "lstocks_sat": sum(terms.lstock_sat),
        "tree_fees_sat": sum(tx.fee_sat for tx in draft.tree_txs),
        "anchors_sat": terms.anchor_sat * draft.plan.n_txs,
        "funding_amount_sat": draft.plan.input_sat,
        "per_client_sat": draft.plan.input_sat / terms.n_clients,
    }


def _way_out(way: WayOut) -> WayOutDocument:
    return {
        "n_transactions": way.n_txs,
        "vsize": way.vsize,
        "agreed_fee_sat": way.agreed_fee_sat,
        "claim_fee_sat": way.claim_fee_sat,
        "n_children": way.children.n_children,
        "children_vsize": way.children.vsize,
        "children_fee_sat": way.children.fee_sat,
        "total_vsize": way.total_vsize,
        "total_fee_sat": way.total_fee_sat,
        "n_blocks": WITNESS_SCALE * way.total_vsize / BLOCK_WEIGHT_MAX,
    }


def _month(monthly: Monthly) -> MonthDocument:
    fee_msat = round(MSAT_PER_SAT * monthly.fee_sat)
    capital_msat = round(MSAT_PER_SAT * monthly.capital_sat)
    return {
        "vsize": round(monthly.vsize, 2),
        "fee_msat": fee_msat,
        "capital_msat": capital_msat,
        "cost_msat": fee_msat + capital_msat,
    }


def _life(draft: Draft, active_blocks: int) -> LifeDocument:
    return {
        **_month(in_factory(draft, active_blocks)),
        "active_blocks": active_blocks,
        "locked_blocks": round(locked_blocks(draft, active_blocks)),
        "all_there_percent": round(100 * all_there(draft, active_blocks), 1),
    }


def _best(draft: Draft) -> BestDocument:
    best = best_active_blocks(draft)
    least, most = draft.active_range_blocks
    return {
        **_life(draft, best),
        "is_shortest": best == least,
        "is_longest": best + DAY_BLOCKS > most,
    }


def _feerate(factory: Monthly, channel: Monthly) -> float | None:
    feerate = feerate_from_which_less(factory, channel)
    return None if feerate is None else round(feerate, 2)


def _plotted(draft: Draft) -> list[int]:
    """Return the lifetimes of the plot, evenly from the shortest to the longest."""
    least, most = draft.active_range_blocks
    return [least + (most - least) * place // (N_POINTS - 1) for place in range(N_POINTS)]


def _point(draft: Draft, active_blocks: int) -> PointDocument:
    return {
        "active_blocks": active_blocks,
        "cost_msat": _month(in_factory(draft, active_blocks))["cost_msat"],
        "channel_cost_msat": _month(in_channel(draft, active_blocks))["cost_msat"],
    }


def _choices(idea: Idea) -> list[ChoiceDocument]:
    """Return the shapes that a policy could choose, as a build's own dry run names them."""
    kinds: dict[str, VertexKind | None] = {
        BY_NUMBER: None,
        **{kind.label: kind for kind in VertexKind},
    }
    choices = [
        _choice(
            replace(idea, inner_levels=None, inner_kind=kind),
            choice,
            is_chosen=idea.inner_levels is None and idea.inner_kind is kind,
        )
        for choice, kind in kinds.items()
    ]
    if idea.inner_levels is not None:
        choices.append(_choice(idea, OWN, is_chosen=True))
    return choices


def _choice(idea: Idea, choice: str, *, is_chosen: bool) -> ChoiceDocument:
    try:
        draft = draft_of(idea)
    except InvalidPlan as error:
        return {
            "choice": choice,
            "is_chosen": is_chosen,
            "inner_arities": None,
            "inner_kinds": None,
            "exit_blocks": None,
            "lock_blocks": None,
            "branch_vsize": None,
            "tree_vsize": None,
            "cost_msat": None,
            "best_active_blocks": None,
            "best_cost_msat": None,
            "refusal": str(error),
        }
    best = best_active_blocks(draft)
    return {
        "choice": choice,
        "is_chosen": is_chosen,
        "inner_arities": list(draft.inner.arities),
        "inner_kinds": [kind.label for kind in draft.inner.kinds],
        "exit_blocks": draft.exit_blocks,
        "lock_blocks": draft.lock_blocks,
        "branch_vsize": sum(tx.vsize for tx in draft.branch_txs),
        "tree_vsize": sum(tx.vsize for tx in draft.tree_txs),
        "cost_msat": _month(in_factory(draft, idea.active_blocks))["cost_msat"],
        "best_active_blocks": best,
        "best_cost_msat": _month(in_factory(draft, best))["cost_msat"],
        "refusal": None,
    }
