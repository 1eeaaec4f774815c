"""The money in channels, and what can be sent and received."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.market import ChannelLiquidity
from cromford.answers.units import Blocks, BlocksLeft, ClientIndex, HexId, Msat, NodeId, Sat

ChannelStatus: TypeAlias = Literal[
    "open",
    "offline",
    "stale",
    "unmarkable",
    "pending",
    "exiting",
    "ending",
    "behind",
    "marked",
    "swept",
    "failed",
    "closed",
    "closing",
    "moved_out",
    "displaced",
    "dead",
]


class ChannelAmounts(TypedDict):
    """What channels hold: of one, or the sum of several."""

    own_msat: Msat
    peer_msat: Msat
    spendable_msat: Msat
    receivable_msat: Msat
    sending_msat: Msat
    receiving_msat: Msat


class ChannelMoney(ChannelAmounts):
    """A channel's money, and the blocks that are left to use it.

    What can be sent and received is 0 where no new payment may begin now; the status says why.

    `open`: payments may begin; `offline`: they may when the peer is back; `stale`: they may when
    the chain is fresh again; `unmarkable`: they may when the mark's place answers again; `pending`:
    the funding is not deep enough; `exiting`: on its way to the chain; `ending`: past its exit
    deadline; `behind`: the peer proved that state was lost here; `marked`: the store was restored
    from a backup, and nothing but a close is signed; `swept`: it is gone with its factory;
    `failed`: no update any more; `closed`: a block has a close of it; `closing`: one that everybody
    signed waits for a block; `moved_out`: it was left empty, and its keys are the LSP's;
    `displaced`: another candidate of its factory's fee ladder confirmed; `dead`: something else
    took the place of the funding, so deep that the channel is over.

    `failed` and `marked` say why, in words. `close_limit_msat` is the most that the client may come
    to own by the closes that it signed, None if no such limit binds it.
    `blocks_to_exit_deadline` is None once the channel's output is on chain.
    """

    channel_id: HexId
    factory_id: HexId
    status: ChannelStatus
    failed: str | None
    marked: str | None
    capacity_sat: Sat
    close_limit_msat: Msat | None
    blocks_to_exit_deadline: BlocksLeft | None


# An LSP's


class LspChannel(ChannelMoney):
    """An LSP's channel with a client, and whether that is connected."""

    node_id: NodeId
    client: ClientIndex
    connected: bool


class LspBalances(TypedDict):
    """Every channel that is not on chain yet, by factory and client, and their sum."""

    channels: list[LspChannel]
    total: ChannelAmounts


# A client's


class OwnChannel(ChannelMoney):
    """A client's channel, and what leaving with it would bring to the wallet.

    `exit_sat` is None where state was lost, or may be. Where it `is_worth_an_exit`, the daemon
    leaves at the exit deadline by itself.
    """

    exit_sat: Sat | None
    is_worth_an_exit: bool
    exit_blocks: Blocks
    blocks_to_expiry: BlocksLeft
    liquidity: ChannelLiquidity


class OwnTotal(ChannelAmounts):
    """The sum of all channels, and of what leaving them would bring."""

    exit_sat: Sat


class OwnBalance(TypedDict):
    """Every channel that is not over, oldest first, and their sum."""

    channels: list[OwnChannel]
    total: OwnTotal


class ChannelStand(TypedDict):
    """How a client's channel stands, in short: what it can receive, and what is for sale."""

    factory_id: HexId
    status: ChannelStatus
    capacity_sat: Sat
    receivable_msat: Msat
    liquidity: ChannelLiquidity
