"""A factory as plain data, from which a stranger verifies everything with other software.

The format is documented in docs/export.md. Ids are hex, txids in the order people read, amounts
in sat. A transaction stands signed as soon as its own signature is finished.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, cast

from cromford.answers.export import (
    ExportedBranchTerms,
    ExportedFunding,
    ExportedOutput,
    ExportedTerms,
    ExportedTransaction,
    FactoryExport,
    LedgerItem,
    LedgerLine,
)
from cromford.answers.factory_words import LspFactoryStatus
from cromford.bitcoin.network import Network
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.views.words import policy_word, vertex_word
from cromford.factory.outputs import OutputKind, TreeOutput
from cromford.factory.shape import LSP_INDEX
from cromford.factory.terms import BranchTerms, FactoryTerms, FeePolicy, GeneralTerms
from cromford.factory.tree import FACTORY_VOUT, Tree
from cromford.factory.vertices import TreeNode
from cromford.protocol.journal.lsp_attempt import LspAttempt

EXPORT_VERSION: Final = 1


def export_terms(terms: FactoryTerms) -> ExportedTerms:
    """Return the terms under their own names."""
    return cast("ExportedTerms", _exported(terms))  # Their names are compared by a test.


def export_branch_terms(terms: BranchTerms) -> ExportedBranchTerms:
    """Return what a client keeps of the terms, under their own names."""
    return cast("ExportedBranchTerms", _exported(terms))  # As above.


def _exported(terms: GeneralTerms) -> dict[str, Any]:
    exported: dict[str, Any] = {}
    for field in fields(terms):
        value = getattr(terms, field.name)
        if isinstance(value, FeePolicy):
            exported[field.name] = policy_word(value)
        elif field.name == "inner_kinds":
            exported[field.name] = [vertex_word(kind) for kind in terms.inner_levels.kinds]
        elif field.name == "network":
            exported[field.name] = str(Txid(value))
        elif isinstance(value, bytes):
            exported[field.name] = value.hex()
        elif isinstance(value, tuple):
            exported[field.name] = list(value)
        else:
            exported[field.name] = value
    return exported


def export_output(output: TreeOutput) -> ExportedOutput:
    """Return one output of a tree transaction."""
    return {
        "kind": output.kind.value,
        "amount_sat": output.amount_sat,
        "script_pubkey": output.script_pubkey.hex(),
        "descriptor": output.descriptor,
        "client": output.client,
    }


def export_node(
    node: TreeNode, *, parent: str | None, parent_vout: int, signature: bytes | None
) -> ExportedTransaction:
    """Return one tree transaction; `vsize` is that of the signed one."""
    tx = node.tx if signature is None else node.signed(signature)
    return {
        "name": node.name,
        "kind": node.kind.value,
        "layer": node.layer,
        "parent": parent,
        "parent_vout": parent_vout,
        "txid": str(node.tx.txid),
        "signers": list(node.signers),
        "nsequence": node.tx.inputs[0].nsequence,
        "state_index": node.state_index,
        "input_amount_sat": node.input_amount_sat,
        "fee_sat": node.fee_sat,
        "vsize": node.vsize,
        "tx_hex": tx.serialize().hex(),
        "outputs": [export_output(output) for output in node.outputs],
    }


def export_nodes(
    nodes: Sequence[TreeNode], signatures: Mapping[str, bytes]
) -> list[ExportedTransaction]:
    """Return tree transactions, each with the name of its parent; the root's parent is null."""
    by_txid = {node.tx.txid: node.name for node in nodes}
    return [
        export_node(
            node,
            parent=by_txid.get(node.tx.inputs[0].outpoint.txid),
            parent_vout=node.tx.inputs[0].outpoint.vout,
            signature=signatures.get(node.name),
        )
        for node in nodes
    ]


def export_funding(
    tx: Tx, *, amount_sat: int, script_pubkey: bytes, descriptor: str, confirmations: int
) -> ExportedFunding:
    """Return the funding transaction and its factory output."""
    return {
        "txid": str(tx.txid),
        "vout": FACTORY_VOUT,
        "amount_sat": amount_sat,
        "script_pubkey": script_pubkey.hex(),
        "descriptor": descriptor,
        "tx_hex": tx.serialize().hex(),
        "confirmations": confirmations,
    }


def export_ledger(tree: Tree, *, funding_fee_sat: int) -> list[LedgerLine]:
    """Return who paid what: at opening, everything is the LSP's.

    What was sold of an L-stock since is in the capacity of who bought it.
    """
    nodes = tree.nodes
    held = [output for node in nodes for output in node.outputs]
    closing = "when it closes cooperatively, or expires unpublished"
    items: tuple[tuple[LedgerItem, int, str], ...] = (
        (
            "channel_capacities",
            _sum_sat(held, OutputKind.CHANNEL),
            "its balances, when channels close",
        ),
        (
            "lstock",
            _sum_sat(held, OutputKind.LSTOCK),
            "when it closes cooperatively, or is swept",
        ),
        ("tree_fees", sum(node.fee_sat for node in nodes), closing),
        ("anchors", tree.terms.anchor_sat * len(nodes), closing),
        ("funding_fee", funding_fee_sat, "never"),
    )
    return [
        {"payer": "lsp", "item": item, "amount_sat": amount_sat, "recovered": recovered}
        for item, amount_sat, recovered in items
    ]


def _sum_sat(outputs: Iterable[TreeOutput], kind: OutputKind) -> int:
    return sum(output.amount_sat for output in outputs if output.kind is kind)


def export_factory(
    attempt: LspAttempt,
    *,
    network: Network,
    status: LspFactoryStatus,
    confirmations: int,
    funding_fee_sat: int,
) -> FactoryExport:
    """Return the export document of a factory."""
    tree = attempt.tree
    return {
        "version": EXPORT_VERSION,
        "network": network.name,
        "factory_id": attempt.attempt_id.hex(),
        "status": status,
        "terms": export_terms(attempt.terms),
        "participants": [
            {
                "index": index,
                "role": "lsp" if index == LSP_INDEX else "client",
                "factory_pubkey": pubkey.hex(),
            }
            for index, pubkey in enumerate(attempt.blueprint.factory_pubkeys)
        ],
        "funding": export_funding(
            attempt.funding_tx if attempt.funded is None else attempt.funded.funding_tx,
            amount_sat=tree.funding_amount_sat,
            script_pubkey=tree.funding_output.script_pubkey,
            descriptor=tree.funding_output.descriptor,
            confirmations=confirmations,
        ),
        "transactions": export_nodes(tree.nodes, attempt.signatures),
        "ledger": export_ledger(tree, funding_fee_sat=funding_fee_sat),
    }
