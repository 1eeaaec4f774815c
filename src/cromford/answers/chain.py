"""How a daemon's node and its chain stand, and what the node does not take."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.units import Count, Height, SeenHeight, Txid, UnixTime

StaleKind: TypeAlias = Literal[
    "blocks_missing",
    "blocks_pruned",
    "clock_off",
    "initial_download",
    "node_silent",
    "tip_old",
]


class NodeStanding(TypedDict):
    """Whether what is known of the chain is of this moment, and since when and why it is not.

    The node's heights are None until it was heard.
    """

    fresh: bool
    stale_kind: StaleKind | None
    stale_since: UnixTime | None
    stale_reason: str | None
    node_height: Height | None
    header_height: Height | None


class ChainStanding(NodeStanding):
    """Whether what is known of the chain is of this moment, and since when and why it is not.

    The node's heights are None until it was heard. `kept_height` is the lowest block that it still
    has, `needed_height` the next one that is needed.
    """

    kept_height: Height | None
    needed_height: Height


class RefusedTransaction(TypedDict):
    """A transaction that the node does not take: how often since which height, and when last."""

    name: str
    txid: Txid
    reason: str
    first_height: SeenHeight
    height: SeenHeight
    count: Count


class RescanBegun(TypedDict):
    """The blocks that are read again."""

    from_height: Height
    to_height: Height
