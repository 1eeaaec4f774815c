"""A factory as a stranger verifies it: its terms, and every transaction (docs/export.md)."""

from typing import Literal, TypeAlias, TypedDict

from cromford.answers.factory_words import LspFactoryStatus
from cromford.answers.units import (
    Blocks,
    ClientIndex,
    Count,
    Height,
    HexBytes,
    HexId,
    Msat,
    NodeId,
    Sat,
    Txid,
    VBytes,
    Vout,
)

VertexWord: TypeAlias = Literal["dw", "static"]
NodeWord: TypeAlias = Literal["kickoff", "state", "static"]
OutputWord: TypeAlias = Literal["child", "channel", "lstock", "anchor"]
FeePolicyWord: TypeAlias = Literal["endogenous", "ephemeral"]
LedgerItem: TypeAlias = Literal[
    "channel_capacities", "lstock", "tree_fees", "anchors", "funding_fee"
]


class ExportedGeneralTerms(TypedDict):
    """What of the terms is the same for every client, under the protocol's own names.

    `inner_arities` and `inner_kinds` are of each level above the leaves, the root first. `network`
    is the hash of the chain's first block.
    """

    attempt_id: HexId
    network: HexId
    build_height: Height
    expiry_height: Height
    active_blocks: Blocks
    dying_blocks: Blocks
    ready_min_blocks: Blocks
    step_blocks: Blocks
    states_per_layer: Count
    leaf_arity: Count
    inner_arities: list[Count]
    max_exit_delay_blocks: Blocks
    max_cltv_blocks: Blocks
    patience_blocks: Blocks
    fee_policy: FeePolicyWord
    tree_feerate_sat_per_kw: Count
    lstock_csv_blocks: Blocks
    min_depth: Blocks
    candidates: Count
    to_self_delay_lsp: Blocks
    to_self_delay_client: Blocks
    dust_limit_sat: Sat
    max_accepted_htlcs: Count
    max_in_flight_msat: Msat
    inner_kinds: list[VertexWord]


class ExportedTerms(ExportedGeneralTerms):
    """What a factory's participants agreed on. Lists of amounts are in placement order."""

    capacity_sat: list[Sat]
    lstock_sat: list[Sat]


class ExportedBranchTerms(ExportedGeneralTerms):
    """What a client keeps of that: it has no amounts but those of its own branch."""

    n_clients: Count


class ExportedOutput(TypedDict):
    """One output of a tree transaction; `client` is whose channel it is, None of any other.

    `descriptor` is None where only the script is known: a client does not know the keys of its
    neighbours' channels.
    """

    kind: OutputWord
    amount_sat: Sat
    script_pubkey: HexBytes
    descriptor: str | None
    client: ClientIndex | None


class ExportedTransaction(TypedDict):
    """One tree transaction: what it spends, who signs it, what it pays.

    The root's `parent` is None. `tx_hex` is signed as soon as its own signature is finished;
    `vsize` is that of the signed one. `state_index` is None of what is no state.
    """

    name: str
    kind: NodeWord
    layer: Count
    parent: str | None
    parent_vout: Vout
    txid: Txid
    signers: list[Count]
    nsequence: Count
    state_index: Count | None
    input_amount_sat: Sat
    fee_sat: Sat
    vsize: VBytes
    tx_hex: HexBytes
    outputs: list[ExportedOutput]


class ExportedFunding(TypedDict):
    """A factory's funding transaction, and the output of it that is the factory."""

    txid: Txid
    vout: Vout
    amount_sat: Sat
    script_pubkey: HexBytes
    descriptor: str
    tx_hex: HexBytes
    confirmations: Blocks


class ExportedParticipant(TypedDict):
    """One participant; the LSP's index is 0, clients count from 1 in placement order."""

    index: Count
    role: Literal["lsp", "client"]
    factory_pubkey: NodeId


class LedgerLine(TypedDict):
    """What was paid at the opening, and when it comes back, in words."""

    payer: Literal["lsp"]
    item: LedgerItem
    amount_sat: Sat
    recovered: str


class FactoryExport(TypedDict):
    """A factory as one document, from which a stranger verifies everything with other software."""

    version: Literal[1]
    network: str
    factory_id: HexId
    status: LspFactoryStatus
    terms: ExportedTerms
    participants: list[ExportedParticipant]
    funding: ExportedFunding
    transactions: list[ExportedTransaction]
    ledger: list[LedgerLine]
