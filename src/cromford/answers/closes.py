"""Cooperative closes: planned, under way, finished, and what each brought back."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.units import (
    Blocks,
    ClientIndex,
    HexId,
    Msat,
    NodeId,
    Outpoint,
    Sat,
    SatChange,
    SatPerVb,
    Txid,
    VBytes,
)

OwnCloseStatus: TypeAlias = Literal["confirmed", "waiting", "signed"]
ClosePhase: TypeAlias = Literal["agreeing", "signing"]
CloseItem: TypeAlias = Literal[
    "channel_balances",
    "rounded",
    "omitted",
    "lstock",
    "tree_fees",
    "anchors",
    "close_fee",
    "close_anchor",
    "close_child",
]


# An LSP's


class CloseShare(TypedDict):
    """What a close owes a client, and pays it: nothing where that is dust.

    `restored` says whose stores of its channel may lack state. `moved_out` where it left the
    factory, and the LSP signs for it.
    """

    client: ClientIndex
    node_id: NodeId
    due_msat: Msat
    paid_sat: Sat
    moved_out: bool
    restored: list[Literal["lsp", "client"]]


class CloseCost(TypedDict):
    """What a close costs at a feerate, and what it leaves to the LSP."""

    feerate_sat_per_vb: SatPerVb
    fee_sat: Sat
    lsp_sat: Sat
    vsize: VBytes
    txid: Txid


class PlannedClose(TypedDict):
    """What a close would spend, who is paid what, and what each option costs the LSP.

    `omitted` are the clients whose share is dust.
    """

    factory_id: HexId
    name: str
    outpoint: Outpoint
    amount_sat: Sat
    clients: list[CloseShare]
    omitted: list[ClientIndex]
    options: list[CloseCost]


class CloseTransactions(TypedDict):
    """The transactions of a close that everybody signed."""

    txids: list[Txid]


class CloseAnswer(PlannedClose):
    """A close that was planned, or `started`.

    `finished` where it was waited for, and everybody signed; None while it is under way.
    """

    started: bool
    close_id: HexId | None
    finished: CloseTransactions | None


class NamedClose(TypedDict):
    """Which close is meant: what it spends, and at which feerates."""

    close_id: HexId
    outpoint: Outpoint
    feerates_sat_per_vb: list[SatPerVb]


class CloseUnderWay(NamedClose):
    """A close that an LSP leads: who did its part of the phase, and who holds out."""

    name: str
    phase: ClosePhase
    clients: list[ClientIndex]
    done: list[ClientIndex]
    holdouts: list[ClientIndex]


class FactoryCloseUnderWay(CloseUnderWay):
    """A close of a factory's that an LSP leads: who did its part of the phase, who holds out."""

    factory_id: HexId


class CloseSeen(TypedDict):
    """Which transaction of a close is in a block, or would be, and how deep it is."""

    status: Literal["confirmed", "waiting"]
    txid: Txid
    confirmations: Blocks


class CloseLine(TypedDict):
    """One item of what a close brings back to the LSP, and costs it."""

    item: CloseItem
    amount_sat: SatChange


class LspClose(CloseSeen):
    """A close that everybody signed, and what it brings back to the LSP.

    `items` are what opening locked below its outpoint, without what the clients are paid, and what
    the close itself costs, with a child of the LSP's in a block. They sum to `lsp_sat`. `paid_sat`
    is in the order of `clients`.
    """

    close_id: HexId
    name: str
    clients: list[ClientIndex]
    outpoint: Outpoint
    txids: list[Txid]
    amount_sat: Sat
    paid_sat: list[Sat]
    items: list[CloseLine]
    lsp_sat: SatChange


# A client's


class OwnClose(TypedDict):
    """The close of a client's channel that matters most.

    `confirmed`: a block has it; `waiting`: everybody signed it; `signed`: the client did, and the
    LSP may finish it at any time. `payout_sat` is what it pays the client. `txid` is None while it
    is not known which one it will be.
    """

    close_id: HexId
    outpoint: Outpoint
    status: OwnCloseStatus
    txid: Txid | None
    confirmations: Blocks
    balance_msat: Msat
    payout_sat: Sat


class OwnCloseUnderWay(NamedClose):
    """A close that a client agreed to, and at which balance of its own.

    `balance_msat` is None where its store was restored, and the LSP says what it pays.
    """

    phase: ClosePhase
    balance_msat: Msat | None


class FinishedOwnClose(TypedDict):
    """A close that everybody signed; `txid` is the one in a block, None while none is."""

    close_id: HexId
    outpoint: Outpoint
    txids: list[Txid]
    txid: Txid | None
    confirmations: Blocks
