"""How a daemon is, and what it does: of each role."""

from typing import Literal, TypedDict

from cromford.answers.chain import ChainStanding, RefusedTransaction
from cromford.answers.channels import ChannelStand
from cromford.answers.closes import FactoryCloseUnderWay
from cromford.answers.factories import DyingOwnFactory, LspDyingFactory
from cromford.answers.market import AskingPrice, SalesTotals
from cromford.answers.units import (
    Blocks,
    BlocksLeft,
    Count,
    Height,
    HexId,
    Msat,
    NodeId,
    Sat,
    Seconds,
    SeenHeight,
    UnixTime,
)
from cromford.answers.wallet import WalletBalance


class Stopping(TypedDict):
    """The daemon ends."""

    stopping: bool


class FailedDecisionKind(TypedDict):
    """A bug that was met while deciding: what was not decided, how often, and since when.

    `alarm`: a second signature for one thing was prevented. `node_id` is the last peer that caused
    it, None where it was the operator.
    """

    event: str
    error: str
    place: str
    alarm: bool
    node_id: NodeId | None
    first_time: UnixTime
    last_time: UnixTime
    count: Count


class DaemonStatus(TypedDict):
    """What an LSP's and a client's daemon tell about themselves.

    `synced` where what is known of the chain is of this moment. `refused` is what the node does not
    take. `backup_warnings` say what keeps the store from being safe.
    """

    version: str
    network: str
    node_id: NodeId
    height: SeenHeight
    synced: bool
    chain: ChainStanding
    refused: list[RefusedTransaction]
    failed_decisions: list[FailedDecisionKind]
    backup_warnings: list[str]
    datadir: str
    chain_url: str
    wallet: WalletBalance


# An LSP's


class BuildUnderWay(TypedDict):
    """What a build waits for: clients' keys, or its own."""

    phase: Literal["awaiting_clients", "preparing"]


class LockedCapital(TypedDict):
    """What a factory holds of the LSP's coins, and until when."""

    factory_id: HexId
    amount_sat: Sat
    expiry_height: Height
    blocks_to_expiry: BlocksLeft


class LspCapital(SalesTotals):
    """Where an LSP's money is: free, reserved, locked until which expiry, earned.

    `locked_sat` is the sum of `locked`. `lacking_sat` is what coins would have to hold that its
    transactions on chain need now for their fees, and that it does not have.
    """

    free_sat: Sat
    reserved_sat: Sat
    lacking_sat: Sat
    locked_sat: Sat
    locked: list[LockedCapital]
    earned_sat: Sat
    earned_msat: Msat


class HandedOverKeys(TypedDict):
    """The keys that clients left behind: of how many, and what of them cannot be read, if any."""

    n_clients: Count
    problem: str


class StoppedFactory(TypedDict):
    """A factory that a bug stopped, until the next block, and the bug's kind."""

    factory_id: HexId
    error: str


class LspStatus(DaemonStatus):
    """How an LSP is: its peers, its builds, its money, its price, and what is to be looked after.

    `address` is what clients are told, `listen` where it hears them. `contested` are nodes with two
    connections that both answer. `build_dropped` says why the last build came to nothing. After
    `look_blocks` blocks the LSP has to look at the chain again.
    """

    role: Literal["lsp"]
    listen: str | None
    address: str | None
    n_connected: Count
    contested: list[NodeId]
    n_waiting: Count
    build: BuildUnderWay | None
    build_dropped: str | None
    look_blocks: Blocks
    capital: LspCapital
    price: AskingPrice
    n_factories: Count
    closing: list[FactoryCloseUnderWay]
    handed_over_keys: HandedOverKeys
    dying: list[LspDyingFactory]
    stopped: list[StoppedFactory]


# A client's


class LobbyOffer(TypedDict):
    """What an LSP says of its lobby: whom it takes, and what forwarding costs."""

    capacity_min_sat: Sat
    capacity_max_sat: Sat
    min_clients: Count
    max_clients: Count
    deadline_seconds: Seconds
    fee_base_msat: Msat
    fee_proportional_millionths: Count


class WishedChannel(TypedDict):
    """What a client wishes for; `moves_from` is the factory that it moves out of, if any."""

    capacity_sat: Sat
    capacity_least_sat: Sat
    moves_from: HexId | None


class WishState(TypedDict):
    """What a client wishes for, None if nothing, and whether the LSP took it into its lobby."""

    wish: WishedChannel | None
    joined: bool


class ClientStatus(DaemonStatus, WishState):
    """How a client is: its LSP, its wish, its channels, and what is to be looked after.

    `lobby` is None before the LSP greeted. `connections_are_short` where the LSP ends them soon,
    again and again. `refusal` says why the LSP refused the wish last; until `paused_until_height`
    the client does not ask again.
    """

    role: Literal["client"]
    lsp: str
    connected: bool
    connections_are_short: bool
    lobby: LobbyOffer | None
    refusal: str | None
    dying: list[DyingOwnFactory]
    channels: list[ChannelStand]
    paused_until_height: Height | None


class WishLeft(TypedDict):
    """The wish was taken back."""

    left: bool
