"""What a factory would cost, before it exists: the plan's document, field by field."""

from typing import Annotated, TypedDict

from msgspec import Meta

from cromford.answers.units import Blocks, Count, Msat, Sat, SatPerVb, VBytes

Percent = Annotated[float, Meta(ge=0, description="percent")]


class PlanAsked(TypedDict):
    """What a plan is for; the rates are a year's."""

    n_clients: Count
    leaf_arity: Count
    step_blocks: Blocks
    states_per_layer: Count
    active_blocks: Blocks
    dying_blocks: Blocks
    capacity_sat: Sat
    tree_feerate_sat_per_vb: SatPerVb
    feerate_sat_per_vb: SatPerVb
    capital_percent_per_year: Percent
    loss_percent_per_year: Percent


class PlannedShape(TypedDict):
    """The tree of a plan."""

    inner_arities: list[Count]
    inner_kinds: list[str]
    n_leaves: Count
    n_transactions: Count


class PlannedTimes(TypedDict):
    """How long things take at the most; `life_blocks` from the funding to the expiry."""

    exit_delay_blocks: Blocks
    exit_blocks: Blocks
    lock_blocks: Blocks
    life_blocks: Blocks
    active_min_blocks: Blocks
    active_max_blocks: Blocks


class PlannedSizes(TypedDict):
    """What transactions take. The last three are a plain channel's."""

    funding_vsize: VBytes
    close_vsize: VBytes
    sweep_vsize: VBytes
    branch_vsize: VBytes
    tree_vsize: VBytes
    commitment_vsize: VBytes
    open_vsize: VBytes
    coop_close_vsize: VBytes
    forced_close_vsize: VBytes


class PlannedCapital(TypedDict):
    """What the LSP would lock."""

    capacities_sat: Sat
    lstocks_sat: Sat
    tree_fees_sat: Sat
    anchors_sat: Sat
    funding_amount_sat: Sat
    per_client_sat: Annotated[float, Meta(ge=0, description="sat, on average")]


class PlannedExit(TypedDict):
    """What leaving by force takes. `vsize` without the children, `n_blocks` with them."""

    n_transactions: Count
    vsize: VBytes
    agreed_fee_sat: Sat
    claim_fee_sat: Sat
    n_children: Count
    children_vsize: VBytes
    children_fee_sat: Sat
    total_vsize: VBytes
    total_fee_sat: Sat
    n_blocks: Annotated[float, Meta(ge=0, description="blocks, full of nothing else")]


class PlannedExitAlone(PlannedExit):
    """What leaving takes of one client, and what a coin of its own has to hold for its children."""

    coin_sat: Sat


class PlannedMonth(TypedDict):
    """What one client that is there costs in a month."""

    vsize: Annotated[float, Meta(ge=0, description="virtual bytes, on average")]
    fee_msat: Msat
    capital_msat: Msat
    cost_msat: Msat


class PlannedLife(PlannedMonth):
    """What one client costs in a month, in a factory of some lifetime."""

    active_blocks: Blocks
    locked_blocks: Blocks
    all_there_percent: Percent


class PlannedBestLife(PlannedLife):
    """The lifetime at which a client costs the least; at a limit, clients sign no better one."""

    is_shortest: bool
    is_longest: bool


class PlannedChannel(PlannedMonth):
    """What one client costs in a plain channel; None of the feerate: a factory is never less.

    `kept_blocks` is None for a channel that is kept until the client is lost.
    """

    kept_blocks: Blocks | None
    factory_is_less_from_sat_per_vb: SatPerVb | None


class PlannedPoint(TypedDict):
    """A lifetime in the plot, and what a client costs in a month."""

    active_blocks: Blocks
    cost_msat: Msat
    channel_cost_msat: Msat


class PlannedChoice(TypedDict):
    """Another shape for the same clients; one that cannot be has a name and a refusal alone."""

    choice: str
    is_chosen: bool
    inner_arities: list[Count] | None
    inner_kinds: list[str] | None
    exit_blocks: Blocks | None
    lock_blocks: Blocks | None
    branch_vsize: VBytes | None
    tree_vsize: VBytes | None
    cost_msat: Msat | None
    best_active_blocks: Blocks | None
    best_cost_msat: Msat | None
    refusal: str | None


class PlanAnswer(TypedDict):
    """What a factory would cost, as `cromford plan` says it: every number follows from `asked`."""

    asked: PlanAsked
    shape: PlannedShape
    times: PlannedTimes
    sizes: PlannedSizes
    capital: PlannedCapital
    one_leaves: PlannedExitAlone
    all_leave: PlannedExit
    factory: PlannedLife
    best: PlannedBestLife
    channel_as_long: PlannedChannel
    channel_kept: PlannedChannel
    lifetimes: list[PlannedPoint]
    choices: list[PlannedChoice]
