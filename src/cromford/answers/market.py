"""Inbound liquidity: prices, stocks, sales, quotes, purchases, and what is under way."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.units import (
    Blocks,
    ClientIndex,
    Count,
    Height,
    HexId,
    Msat,
    NodeId,
    Sat,
    UnixTime,
)

LspAdvanceStep: TypeAlias = Literal["agreeing", "signing", "waiting", "protecting", "rebasing"]
OwnAdvanceStep: TypeAlias = Literal["proposed", "agreed", "signed", "held", "rebasing"]


# An LSP's


class PriceExample(TypedDict):
    """What a price makes of an amount, in a factory that is new."""

    amount_sat: Sat
    usable_blocks: Blocks
    price_msat: Msat


class AskingPrice(TypedDict):
    """What an LSP asks for inbound liquidity, and an example.

    `per_million` and `per_month` are millionths of the amount: once, and for each month of use.
    """

    is_for_sale: bool
    base_msat: Msat
    per_million: Count
    per_month: Count
    min_sat: Sat
    example: PriceExample


class SoldLiquidity(TypedDict):
    """One sale: to whom, at which height, how much, and for what.

    When the client was told the price, when it bought by it, and since when it is in force. With a
    `payment_hash` the price is kept of that payment, if it comes to be paid; else it was paid out
    of the client's balance.
    """

    factory_id: HexId
    client: ClientIndex
    node_id: NodeId
    height: Height
    quoted_at: UnixTime | None
    ordered_at: UnixTime | None
    in_force_at: UnixTime | None
    amount_sat: Sat
    capacity_sat: Sat
    price_msat: Msat
    advance_id: HexId
    payment_hash: HexId | None


class SalesTotals(TypedDict):
    """The sums of all sales."""

    n_sold: Count
    sold_sat: Sat
    sold_for_msat: Msat


class SalesLedger(SalesTotals):
    """A page of sales, newest first, the sums of all, and what forwarding earned.

    `next` is what the next page is asked with, None at the end.
    """

    sales: list[SoldLiquidity]
    next: str | None
    forwarding_msat: Msat
    price: AskingPrice


class LeafStock(TypedDict):
    """What is left to be sold in a leaf: of its L-stock, and of its states."""

    leaf: str
    clients: list[ClientIndex]
    state_index: Count
    states: Count
    lstock_sat: Sat
    sales_left: Count


class AdvanceUnderWay(TypedDict):
    """An advance that an LSP leads, in the leaf of its buyer, and who holds out.

    `agreeing`: its clients are asked; `signing`: they sign; `waiting`: for somebody to come back;
    `protecting`: they are handed poisons; `rebasing`: channels move to the new state.
    """

    leaf: str
    advance_id: HexId
    buyer: ClientIndex
    amount_sat: Sat
    price_msat: Msat
    state_index: Count
    step: LspAdvanceStep
    holdouts: list[ClientIndex]


# A client's


class NeededClient(TypedDict):
    """A client whose signature a purchase takes."""

    client: ClientIndex
    is_online: bool
    is_you: bool


class LiquidityQuote(TypedDict):
    """What is bought, for what, what it takes, and what poisons would cover.

    `most_owned_sat` is the most that the channel could come to hold for the client then. With a
    `payment_hash` that payment pays for it.
    """

    factory_id: HexId
    quote_id: HexId
    amount_sat: Sat
    price_msat: Msat
    capacity_before_sat: Sat
    capacity_sat: Sat
    state_index: Count
    needed: list[NeededClient]
    sales_left: Count
    covered_sat: Sat
    most_owned_sat: Sat
    is_covered: bool
    valid_until_height: Height
    usable_blocks: Blocks
    payment_hash: HexId | None


class PurchaseReceipt(TypedDict):
    """What was bought, at which height, and for what; times and `payment_hash` as of a sale."""

    height: Height
    quoted_at: UnixTime | None
    ordered_at: UnixTime | None
    in_force_at: UnixTime | None
    amount_sat: Sat
    capacity_sat: Sat
    price_msat: Msat
    advance_id: HexId
    payment_hash: HexId | None


class OwnAdvance(TypedDict):
    """The advance of a client's leaf that is under way, and what it waits for.

    `proposed`: the client's channel is to become quiet; `agreed`: the others are to agree;
    `signed`: the LSP is to finish the state; `held`: the LSP is to hand out poisons; `rebasing`:
    the channel moves to the new state.
    """

    advance_id: HexId
    state_index: Count
    step: OwnAdvanceStep
    is_ours: bool
    capacity_sat: Sat
    price_msat: Msat


class OrderedPurchase(TypedDict):
    """A purchase that is ordered, and neither in force nor refused."""

    quote_id: HexId
    amount_sat: Sat
    capacity_sat: Sat
    price_msat: Msat
    payment_hash: HexId | None


class ChannelLiquidity(TypedDict):
    """How a client's channel stands in its leaf: what is covered, what is left to buy.

    What is beyond coverage would be lost should a superseded state confirm: of the balance, and of
    the HTLCs on their way, which hold `htlcs_msat` together. `covered_sat` is None while nothing is
    superseded: then all is covered. Before there is a channel, nothing is known.
    """

    state_index: Count | None
    lstock_sat: Sat | None
    sales_left: Count | None
    covered_sat: Sat | None
    beyond_coverage_msat: Msat
    htlcs_beyond_coverage_msat: Msat
    htlcs_msat: Msat
    advance: OwnAdvance | None
    buying: OrderedPurchase | None


class PurchaseOutcome(TypedDict):
    """What became of a purchase: its receipt once it is bought."""

    factory_id: HexId
    quote_id: HexId
    status: Literal["ordered", "bought"]
    receipt: PurchaseReceipt | None
    advance: OwnAdvance | None
