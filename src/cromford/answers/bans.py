"""To whom an LSP's lobby is closed, and who waits in it."""

from typing import Literal, TypedDict

from cromford.answers.units import Blocks, BlocksLeft, Count, Height, NodeId, Sat


class BannedNode(TypedDict):
    """A node that may not join, by whom, why, and until when.

    `rules` where the node closed the lobby to itself; `n_faults` are those that were proven against
    it and still count.
    """

    node_id: NodeId
    by: Literal["operator", "rules"]
    why: str
    since_height: Height
    until_height: Height
    blocks_left: BlocksLeft
    n_faults: Count
    is_connected: bool


class BannedNodes(TypedDict):
    """Everybody who may not join, those for longest first."""

    bans: list[BannedNode]


class WaitingClient(TypedDict):
    """A client that waits in the lobby, and what it wishes for.

    `uptime_blocks` is for how long it has been seen there.
    """

    node_id: NodeId
    capacity_sat: Sat
    capacity_least_sat: Sat
    is_moving: bool
    uptime_blocks: Blocks


class BannedUntil(TypedDict):
    """A node that may not join, and until when."""

    node_id: NodeId
    until_height: Height


class LobbyMembers(TypedDict):
    """Who waits in an LSP's lobby, who may not, and how many a build takes."""

    node_id: NodeId
    min_clients: Count
    max_clients: Count
    waiting: list[WaitingClient]
    banned: list[BannedUntil]


class LobbyAnswer(LobbyMembers):
    """An LSP's lobby, and where clients find it; `address` is None before it listens."""

    address: str | None
