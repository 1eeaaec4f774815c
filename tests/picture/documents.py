"""Documents of `factory show`, of real trees: as an LSP's daemon answers, and a client's."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from tests.cli import answers
from tests.factory.specimen import tree_of

from cromford.daemon.views.export import export_nodes, export_terms
from cromford.factory.branch import branch_of
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import Tree
from cromford.planning.draft import draft_of
from cromford.planning.idea import Idea

SIGNATURE: Final = bytes(64)
FACTORY_ID: Final = "0123456789abcdef" * 4
TXID: Final = "77" * 32
Document = dict[str, Any]


@cache
def tree_for(n_clients: int, inner_kind: Any = None, leaf_arity: int = 2) -> Tree:
    idea = Idea(n_clients=n_clients, inner_kind=inner_kind, leaf_arity=leaf_arity)
    return tree_of(draft_of(idea).terms)


def signed_nodes(nodes: Sequence[Any], *, is_signed: bool) -> list[Any]:
    """Return the transactions of an export, with a signature that nobody checks."""
    exported: list[Any] = [*export_nodes(list(nodes), {})]
    if is_signed:
        for node, told in zip(nodes, exported, strict=True):
            told["tx_hex"] = node.tx.with_witnesses((SIGNATURE,)).serialize().hex()
    return exported


def of_terms(terms: FactoryTerms, *, left_blocks: int, lifetime: tuple[int, int]) -> Document:
    dying_height, deadline_height = lifetime
    return {
        "factory_id": FACTORY_ID,
        "n_clients": terms.n_clients,
        "expiry_height": terms.expiry_height,
        "blocks_to_expiry": left_blocks,
        "exit_deadline_height": deadline_height,
        "dying_height": dying_height,
        "terms": export_terms(terms),
    }


def funding_of(tree: Tree, *, confirmations: int = 3) -> Document:
    return {
        "txid": TXID,
        "vout": 0,
        "amount_sat": tree.funding_amount_sat,
        "script_pubkey": tree.funding_output.script_pubkey.hex(),
        "descriptor": tree.funding_output.descriptor,
        "tx_hex": "00",
        "confirmations": confirmations,
    }


def life_of_tree(tree: Tree) -> tuple[int, int]:
    deadline_height = tree.terms.exit_deadline_height(tree.root.shape.slowest_kinds)
    return deadline_height - tree.terms.dying_blocks, deadline_height


def lsp_document(
    tree: Tree, *, left_blocks: int = 13_000, is_signed: bool = True, **changes: Any
) -> Document:
    """Return what `lsp factory show` answers about a tree."""
    leaves = [
        {
            "leaf": vertex.shape.name,
            "clients": list(vertex.shape.clients),
            "state_index": 0,
            "states": tree.terms.states_per_layer,
            "lstock_sat": vertex.lstock_sat,
            "sales_left": tree.terms.states_per_layer - 1,
        }
        for vertex in tree.root.vertices()
        if vertex.is_leaf
    ]
    return {
        **answers.SHOWN,
        "candidates": [],
        **of_terms(tree.terms, left_blocks=left_blocks, lifetime=life_of_tree(tree)),
        "funding_txid": TXID,
        "funding_amount_sat": tree.funding_amount_sat,
        "transactions": signed_nodes(list(tree.nodes), is_signed=is_signed),
        "funding": funding_of(tree),
        "leaves": leaves,
    } | changes


def client_document(
    tree: Tree, client: int, *, left_blocks: int = 13_000, **changes: Any
) -> Document:
    """Return what `client factory` answers to one of its clients."""
    branch = branch_of(tree, client)
    deadline_height = branch.exit_deadline_height
    lifetime = (deadline_height - tree.terms.dying_blocks, deadline_height)
    return {
        **answers.BRANCH,
        "candidates": [],
        **of_terms(tree.terms, left_blocks=left_blocks, lifetime=lifetime),
        "client": client,
        "capacity_sat": branch.channel.amount_sat,
        "channel_outpoint": str(branch.channel_outpoint),
        "funding_txid": TXID,
        "funding_amount_sat": tree.funding_amount_sat,
        "exit_blocks": branch.exit_blocks,
        "transactions": signed_nodes(list(branch.nodes), is_signed=True),
        "funding": funding_of(tree),
    } | changes


def lsp_line(
    factory_id: str, tip: int, *, left_blocks: int, confirmations: int = 1_000, **changes: Any
) -> Document:
    """Return a factory as `lsp factories` lists it, which expires this many blocks after a tip."""
    whole = lsp_document(tree_for(8))
    moved = tip + left_blocks - whole["expiry_height"]
    heights = ("dying_height", "exit_deadline_height", "expiry_height")
    return {
        **{key: value for key, value in whole.items() if key not in {"terms", "transactions"}},
        **{height: whole[height] + moved for height in heights},
        "blocks_to_expiry": left_blocks,
        "factory_id": factory_id,
        "confirmations": confirmations,
        "period": "active",
    } | changes


def with_state(document: Document, name: str, index: int) -> Document:
    """Return a document in which a leaf's state is a newer one, which waits less, and no more."""

    def newer(tx: Document) -> Document:
        waits = tx["nsequence"] - index * document["terms"]["step_blocks"]
        return {**tx, "name": f"{name} v{index}", "state_index": index, "nsequence": waits}

    txs = [newer(tx) if tx["name"] == name else tx for tx in document["transactions"]]
    return {**document, "transactions": txs}
