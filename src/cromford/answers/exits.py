"""Leaving: what it takes, how far it is, and what it may still cost."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.chain import RefusedTransaction
from cromford.answers.closes import OwnClose
from cromford.answers.units import (
    Blocks,
    Count,
    Height,
    HexId,
    Outpoint,
    Sat,
    SatPerVb,
    Txid,
    VBytes,
)

DueStatus: TypeAlias = Literal["publish_now", "wait", "await_preimage", "unrecognised", "withheld"]
PoisonStatus: TypeAlias = Literal["publish_now", "confirmed", "lost"]


class ExitStepStanding(TypedDict):
    """Where a transaction of the way out stands, and from or since which height.

    `publish_now`: it can be in the next block; `wait`: its delay runs; `later`: another one comes
    first, and no height is known yet; `lost`: a block has something else, as a close, in its place
    or in that of one before it.
    """

    status: Literal["confirmed", "publish_now", "wait", "later", "lost"]
    height: Height | None


class ExitStepPlace(ExitStepStanding):
    """A transaction of the way out, where it stands, and from or since which height.

    `publish_now`: it can be in the next block; `wait`: its delay runs; `later`: another one comes
    first, and no height is known yet; `lost`: a block has something else, as a close, in its place
    or in that of one before it.
    """

    name: str
    txid: Txid


class PlannedExitStep(ExitStepPlace):
    """A transaction of the way out: where it stands, and what it costs, prepaid by the LSP."""

    vsize: VBytes
    fee_sat: Sat
    delay_blocks: Blocks


class ExitFees(TypedDict):
    """What is paid so that each step that is in no block yet pays a feerate.

    `fee_sat` is all of it, and `children_sat` what children add to what was agreed. `coin_sat` is
    what coins have to be there for that, and `n_coins` how many at once.
    """

    feerate_sat_per_vb: SatPerVb
    fee_sat: Sat
    children_sat: Sat
    coin_sat: Sat
    n_coins: Count


class ExitFeesToday(ExitFees):
    """What is paid so that each step pays the feerate of now, and what the wallet is short of."""

    short_sat: Sat


class ChannelExitStep(TypedDict):
    """A transaction that follows once the channel is on chain; agreed ones have their fee."""

    name: str
    vsize: VBytes
    fee_sat: Sat
    delay_blocks: Blocks
    is_agreed: bool


class NotWorthItsFee(TypedDict):
    """What is not worth its fee today."""

    name: str
    amount_sat: Sat


class OutOfTheChannel(TypedDict):
    """What follows once the channel is on chain, up to the wallet: `exit_sat` reaches it, in all.

    What is in a block already is no step any more.
    """

    steps: list[ChannelExitStep]
    exit_sat: Sat
    left_behind: list[NotWorthItsFee]


class DueOnChain(TypedDict):
    """What is to be done about a channel that is on chain.

    `height` is the first block that can hold it, or for `await_preimage` the one from which on the
    peer may take it. `withheld`: the client's own commitment may be revoked. The txid is there
    where the transaction is known.
    """

    name: str
    status: DueStatus
    txid: Txid | None
    height: Height | None


class PoisonPlace(TypedDict):
    """A poison: what it pays the client. `lost`: something else took the output."""

    name: str
    txid: Txid
    status: PoisonStatus
    height: Height | None
    pays_sat: Sat
    fee_sat: Sat


class SupersededState(TypedDict):
    """A state of the leaf that was replaced, and is in a block all the same.

    `arriving_sat` is what still comes of it, before the fees of what the client signs itself.
    """

    state: str
    height: Height
    poisons: list[PoisonPlace]
    arriving_sat: Sat


class ExitPlan(TypedDict):
    """What leaving takes: transactions, fees, blocks, and what comes next.

    `channel` is None where it cannot be said: state that was lost, or may be, and where the LSP's
    commitment is on chain instead of the client's. `without_coins_sat_per_vb` is the feerate up to
    which anchors alone suffice.
    """

    factory_id: HexId
    steps: list[PlannedExitStep]
    n_transactions: Count
    total_vsize: VBytes
    total_fee_sat: Sat
    total_delay_blocks: Blocks
    exit_blocks: Blocks
    fees_at: list[ExitFees]
    fees_today: ExitFeesToday
    without_coins_sat_per_vb: SatPerVb
    channel_sat: Sat
    needs_coin: bool
    channel: OutOfTheChannel | None
    due: list[DueOnChain]
    close: OwnClose | None
    superseded: SupersededState | None
    next: str


class WaitingTransaction(TypedDict):
    """What was seen last in the node's mempool of a transaction that is to confirm in time.

    `waits` is false where it is not there, and its package's feerate None. A child may be
    anybody's; `child_is_ours` where the client's own coins pay for it.
    """

    name: str
    txid: Txid
    waits: bool
    wanted_sat_per_vb: SatPerVb
    package_sat_per_vb: SatPerVb | None
    child_txid: Txid | None
    child_fee_sat: Sat | None
    child_is_ours: bool


class CoinForExit(TypedDict):
    """A coin that is set aside for children."""

    outpoint: Outpoint
    amount_sat: Sat


class ExitProgress(TypedDict):
    """How far an exit is, what waits for a block, and what it may still cost.

    `stake_sat` is what is lost unless it is over by `end_height`, None where no height does that;
    half of it is what children may cost. `over` once all that the factory held for the client was
    taken, by whichever way, six blocks deep: then nothing of it can be lost any more.
    """

    factory_id: HexId
    exiting: bool
    over: bool
    paused: bool
    steps: list[ExitStepPlace]
    due: list[DueOnChain]
    superseded: SupersededState | None
    waiting: list[WaitingTransaction]
    stake_sat: Sat
    end_height: Height | None
    children_cost_sat: Sat
    budget_left_sat: Sat
    coins: list[CoinForExit]
    next: str


class ExitStatus(ExitProgress):
    """How far an exit is, and which of its transactions the node does not take."""

    refused: list[RefusedTransaction]


class ExitBegun(TypedDict):
    """An exit was started; what comes next, in a sentence."""

    exiting: bool
    next: str


class ExitPause(TypedDict):
    """Whether an exit goes on."""

    exiting: bool
    paused: bool
