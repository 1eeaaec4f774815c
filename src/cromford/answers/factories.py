"""Factories as an LSP and its clients see them: in one line, and in full."""

from typing import TypedDict

from cromford.answers.chain import RefusedTransaction
from cromford.answers.channels import ChannelStatus
from cromford.answers.closes import (
    CloseUnderWay,
    FinishedOwnClose,
    LspClose,
    OwnClose,
    OwnCloseUnderWay,
)
from cromford.answers.export import (
    ExportedBranchTerms,
    ExportedFunding,
    ExportedParticipant,
    ExportedTerms,
    ExportedTransaction,
    LedgerLine,
)
from cromford.answers.factory_words import (
    CandidateStatus,
    ClientFactoryStatus,
    ClientStage,
    DyingStepWord,
    LspFactoryStatus,
    LspPhase,
    MovingStatus,
    PeriodWord,
)
from cromford.answers.market import AdvanceUnderWay, ChannelLiquidity, LeafStock, PurchaseReceipt
from cromford.answers.units import (
    Blocks,
    BlocksLeft,
    ClientIndex,
    Count,
    Height,
    HexId,
    Msat,
    NodeId,
    Outpoint,
    Sat,
    SatPerVb,
    Txid,
)


class FactoryPeriod(TypedDict):
    """Which period of its life a factory is in, and for how many blocks; None while unknown.

    `waiting`: its funding is not deep enough; `active`; `dying`: time to move out; `late`: past the
    exit deadline; `expired`: the LSP may take what nobody claimed.
    """

    period: PeriodWord | None
    dying_height: Height | None
    blocks_to_next_period: BlocksLeft | None


class FundingCandidateState(TypedDict):
    """One candidate of a funding's fee ladder, by its place: how far it is.

    `overtaken`: a block has something else that spends its coins; `dead`: that is as deep as a
    funding has to be.
    """

    candidate: Count
    funding_txid: Txid
    status: CandidateStatus
    confirmations: Blocks
    has_channels: bool


# An LSP's


class LspCandidateState(FundingCandidateState):
    """One candidate of a funding's fee ladder, by its place: what it pays, and how far it is."""

    fee_sat: Sat
    feerate_sat_per_vb: SatPerVb


class StepWhenDying(TypedDict):
    """What an LSP does about a factory that dies, between which heights, and what that is.

    The heights are None of what is not done.
    """

    step: DyingStepWord
    from_height: Height | None
    to_height: Height | None
    what: str


class SweepDue(TypedDict):
    """What of a tree is the LSP's and not taken yet, and the first block that can do it."""

    name: str
    outpoint: Outpoint
    amount_sat: Sat
    height: Height


class NotWorthSweeping(TypedDict):
    """What could be taken now, and waits for lower fees."""

    name: str
    outpoint: Outpoint
    amount_sat: Sat


class FundingChild(TypedDict):
    """The child that pays for a funding, and what both pay."""

    txid: Txid
    fee_sat: Sat
    feerate_sat_per_vb: SatPerVb


class LspFactorySummary(FactoryPeriod):
    """An LSP's factory in one line.

    `closing` of the statuses: all of it was closed together, and waits for a block; `on_chain`: all
    of it went into its channels, and each of those was spent; `swept`: its output, or all that was
    left of the tree, went elsewhere than into channels; `abandoned`: its funding was given up, and
    another transaction is to spend a coin of it; `dead`: that one is deep enough; `displaced`:
    another candidate of the fee ladder confirmed than the one that channels are in.
    `channels_failed` says why, by the client's place. `holdouts`, `leaving` and `moved_out` are
    clients; `published` are the names of what of the tree is on chain.
    """

    factory_id: HexId
    status: LspFactoryStatus
    phase: LspPhase
    n_clients: Count
    funding_txid: Txid
    funding_amount_sat: Sat
    confirmations: Blocks
    min_depth: Blocks
    too_late: bool
    expiry_height: Height
    blocks_to_expiry: BlocksLeft
    exit_deadline_height: Height
    when_dying: list[StepWhenDying]
    candidates: list[LspCandidateState]
    holdouts: list[ClientIndex]
    aborted: str | None
    ready_clients: Count
    channels_failed: dict[str, str]
    is_marked: bool
    published: list[str]
    leaving: list[ClientIndex]
    sweeping: list[SweepDue]
    closing: CloseUnderWay | None
    close_ended: str | None
    closed: list[LspClose]
    moved_out: list[ClientIndex]
    advances: list[AdvanceUnderWay]


class LspFactoryLine(LspFactorySummary):
    """An LSP's factory in one line, with what the node does not take of it.

    `bump` is the child that pays for its funding, None without one.
    """

    refused: list[RefusedTransaction]
    bump: FundingChild | None


class LspFactories(TypedDict):
    """Every factory of an LSP's, oldest first."""

    factories: list[LspFactoryLine]


class PlacedClient(TypedDict):
    """A client's seat in a factory, and why it got it."""

    client: ClientIndex
    node_id: NodeId
    leaf: str
    capacity_sat: Sat
    reason: str


class LspFactoryDetail(LspFactorySummary):
    """Everything about an LSP's factory."""

    placed: list[PlacedClient]
    leaves: list[LeafStock]
    participants: list[ExportedParticipant]
    funding: ExportedFunding
    transactions: list[ExportedTransaction]
    ledger: list[LedgerLine]
    terms: ExportedTerms


class LspFactory(LspFactoryDetail):
    """Everything about an LSP's factory, with what the node and today's fees say of it.

    `seconds_left` is how long the step of its ceremony may still take, None where none is.
    """

    refused: list[RefusedTransaction]
    bump: FundingChild | None
    not_worth_sweeping: list[NotWorthSweeping]
    seconds_left: float | None


class LspDyingFactory(FactoryPeriod):
    """A factory that dies, as its LSP counts: who waits for the next one, who is elsewhere."""

    factory_id: HexId
    n_clients: Count
    n_waiting: Count
    n_elsewhere: Count
    when_dying: list[StepWhenDying]


# A client's


class MovingOut(TypedDict):
    """How far a client has moved out of a factory that dies, and what it waits for.

    `moved`, `paying`, `waiting` (for the next factory, or a channel in it), `staying` (by policy or
    the operator's word), or `over` (no payment leaves the channel any more).
    """

    status: MovingStatus
    why: str
    to_factory_id: HexId | None
    moved_msat: Msat
    left_msat: Msat


class DyingOwnFactory(FactoryPeriod):
    """A factory that dies, and how far the client has moved out of it."""

    factory_id: HexId
    moving: MovingOut


class MoveBegun(TypedDict):
    """A client moves out of a factory; None of `moving` before it dies."""

    factory_id: HexId
    moving: MovingOut | None


class KeysHandedOver(TypedDict):
    """From when on a factory's keys are not the client's alone, and whether the LSP has them."""

    height: Height
    taken: bool
    refused: str | None


class OwnFactoryOnceChecked(FactoryPeriod):
    """What a client knows of its factory once it checked the terms; before, nothing.

    `published` are the names of what of its own branch is on chain. It has to be there again after
    `look_blocks` blocks.
    """

    n_clients: Count | None
    capacity_sat: Sat | None
    channel_outpoint: Outpoint | None
    funding_txid: Txid | None
    candidates: list[FundingCandidateState]
    funding_amount_sat: Sat | None
    confirmations: Blocks
    min_depth: Blocks | None
    expiry_height: Height | None
    blocks_to_expiry: BlocksLeft | None
    exit_deadline_height: Height | None
    moving: MovingOut | None
    exit_blocks: Blocks | None
    look_blocks: Blocks | None
    published: list[str]
    channel_status: ChannelStatus | None
    channel_failed: str | None
    close: OwnClose | None


class OwnFactorySummary(OwnFactoryOnceChecked):
    """A client's factory in one line; what its terms say is None before they were checked.

    `moved_out`: the client is, and gave its keys to the LSP; `closed`: a close that it signed is in
    a block; `closing`: one that everybody signed waits for one. `on_chain`: its channel is;
    `swept`: something else than its branch spent an output above it, so nothing in it is its any
    more; `expired`: the LSP may do that now; `dead`: something else spends a coin of its funding,
    and is as deep as a funding has to be; `displaced`: that is another candidate of its fee ladder
    than the one that the channel is in. `published` are the names of what of its own branch is on
    chain. It has to be there again after `look_blocks` blocks.
    """

    factory_id: HexId
    status: ClientFactoryStatus
    stage: ClientStage
    client: ClientIndex
    aborted: str | None
    given_up: bool
    ready_sent: bool
    ready_received: bool
    is_exiting: bool
    closing: OwnCloseUnderWay | None
    closed: list[FinishedOwnClose]
    keys_handed_over: KeysHandedOver | None
    liquidity: ChannelLiquidity
    bought: list[PurchaseReceipt]


class OwnFactoryLine(OwnFactorySummary):
    """A client's factory in one line, with what the node does not take of it."""

    refused: list[RefusedTransaction]


class OwnFactories(TypedDict):
    """Every factory that the client was asked into, oldest first."""

    factories: list[OwnFactoryLine]


class OwnFactoryDetail(OwnFactorySummary):
    """Everything that a client has of its factory: its own branch, nothing more."""

    terms: ExportedBranchTerms | None
    transactions: list[ExportedTransaction]
    funding: ExportedFunding | None


class OwnFactory(OwnFactoryDetail):
    """Everything that a client has of its factory, with what the node does not take of it."""

    refused: list[RefusedTransaction]


class VerifiedPoint(TypedDict):
    """One thing that was checked. Where it `waits`, nothing is wrong: it is not there yet."""

    check: str
    ok: bool
    detail: str
    waits: bool


class FactoryVerification(TypedDict):
    """What a client's own check of its factory says, point by point.

    `waits`: nothing is wrong, and something is not there yet.
    """

    factory_id: HexId
    ok: bool
    waits: bool
    checks: list[VerifiedPoint]
