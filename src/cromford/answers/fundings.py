"""Building factories, and what becomes of their fundings: replaced, bumped, given up."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.export import ExportedTerms, VertexWord
from cromford.answers.factories import PlacedClient
from cromford.answers.units import (
    Blocks,
    Bytes,
    Count,
    HexId,
    Sat,
    SatPerVb,
    Txid,
    VBytes,
)

ShapeWord: TypeAlias = Literal["default", "dw", "static", "own"]


class PlannedCandidate(TypedDict):
    """What one candidate of a planned funding pays."""

    candidate: Count
    feerate_sat_per_vb: SatPerVb
    fee_sat: Sat
    change_sat: Sat


class LadderGrowth(TypedDict):
    """What signing all candidates takes: sessions, keys, nonces, and bytes to each client."""

    sessions: Count
    channel_keys: Count
    nonces_of_lsp: Count
    nonces_of_client: Count
    bytes_per_client_max: Bytes


class LadderPlan(TypedDict):
    """The candidates of a planned funding, the lowest feerate first."""

    candidates: list[PlannedCandidate]
    growth: LadderGrowth


class ShapeChoice(TypedDict):
    """What a choice of the tree's shape costs; None where `refusal` says why it is impossible.

    Blocks and sizes are those of the path that takes longest. `lock_blocks` is how long a payment
    between two such channels may lock its payer's money.
    """

    choice: ShapeWord
    is_chosen: bool
    inner_arities: list[Count] | None
    inner_kinds: list[VertexWord] | None
    exit_blocks: Blocks | None
    lock_blocks: Blocks | None
    branch_vsize: VBytes | None
    tree_vsize: VBytes | None
    refusal: str | None


class PlannedFactory(TypedDict):
    """A planned build: its terms, what it locks, and who sits where."""

    funding_amount_sat: Sat
    funding_fee_sat: Sat
    change_sat: Sat
    terms: ExportedTerms
    placed: list[PlacedClient]


class BuildAnswer(PlannedFactory, LadderPlan):
    """A build that was planned, or `started`.

    What becomes of it is told by the events that follow `cursor`, and so is its id: `attempt_id` of
    the terms that were planned is all zeros. Of a build that is asked for again by its external id
    it is the factory's that was built.
    """

    started: bool
    cursor: str
    shapes: list[ShapeChoice]


class ReplacedFunding(TypedDict):
    """A higher candidate that takes the place of the published one; `replaced` is false for a plan.

    `least_fee_sat` is what it has to pay, `replaces` the place of the other, and `child_fee_sat`
    what a child of that one pays, which ends with it. Asked for again, it takes nothing's place:
    `replaces` is its own.
    """

    replaced: bool
    factory_id: HexId
    candidate: Count
    funding_txid: Txid
    fee_sat: Sat
    feerate_sat_per_vb: SatPerVb
    least_fee_sat: Sat
    replaces: Count
    child_fee_sat: Sat


class BumpedFunding(TypedDict):
    """A child that pays for a funding without a block; `bumped` is false for a plan.

    `paid_sat_per_vb` is what the funding pays by itself, `feerate_sat_per_vb` what both are to pay.
    `n_coins` of the wallet's are added to its change.
    """

    bumped: bool
    factory_id: HexId
    funding_txid: Txid
    txid: Txid
    fee_sat: Sat
    change_sat: Sat
    n_coins: Count
    paid_sat_per_vb: SatPerVb
    feerate_sat_per_vb: SatPerVb
    feerate_source: str


class AbandonedFunding(TypedDict):
    """A funding that is given up, and what pays a coin of it back; `abandoned` is false for a plan.

    It is over once that transaction is `min_depth` deep.
    """

    abandoned: bool
    factory_id: HexId
    reason: str
    txid: Txid
    amount_sat: Sat
    fee_sat: Sat
    feerate_sat_per_vb: SatPerVb
    feerate_source: str
    min_depth: Blocks
