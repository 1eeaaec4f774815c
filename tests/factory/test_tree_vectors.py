"""Trees that two other implementations agreed on, reproduced to the byte."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from tests.factory import oracle

from cromford.bitcoin.network import NETWORKS
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.factory.branch import branch_of, build_branch
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.factory.shape import default_levels, default_lstocks_sat, shape_of
from cromford.factory.terms import FeePolicy
from cromford.factory.tree import Tree, build_tree
from cromford.factory.vertices import ChannelFundingPubkeys


def levels_of_vector(terms: dict[str, Any], n_clients: int) -> InnerLevels:
    arities = terms["inner_arities"]
    if arities == "default":
        return default_levels(
            n_clients,
            leaf_arity=terms["leaf_arity"],
            kind=None,
            delay_max_blocks=terms["step_blocks"] * (terms["states_per_layer"] - 1),
            max_exit_delay_blocks=1296,
        )
    kinds = terms.get("inner_kinds", ["dw"] * len(arities))
    return InnerLevels(
        arities=tuple(arities), kinds=tuple(VertexKind[kind.upper()] for kind in kinds)
    )


def tree_of_vector(given: dict[str, Any]) -> Tree:
    terms = given["terms"]
    capacities = [channel["capacity_sat"] for channel in given["channels"]]
    inner = levels_of_vector(terms, len(capacities))
    shape = shape_of(len(capacities), leaf_arity=terms["leaf_arity"], inner=inner)
    lstocks = terms.get("lstock_sat_per_leaf")
    return build_tree(
        oracle.with_field(
            oracle.terms_of(
                capacities,
                lstocks if isinstance(lstocks, list) else default_lstocks_sat(shape, capacities),
                leaf_arity=terms["leaf_arity"],
                inner_arities=inner.arities,
                inner_kinds=[kind.label for kind in inner.kinds],
                states_per_layer=terms["states_per_layer"],
                step_blocks=terms["step_blocks"],
                fee_policy=FeePolicy[terms["fee_policy"].upper()],
                feerate=terms["tree_feerate_sat_per_kw"],
                csv_blocks=terms["lstock_csv_blocks"],
            ),
            expiry_height=terms["expiry_height"],
            network=bytes(NETWORKS[terms["network"]].genesis_hash),
        ),
        factory_pubkeys=[bytes.fromhex(p["factory_pubkey"]) for p in given["participants"]],
        channels=[
            ChannelFundingPubkeys(
                client_funding_pubkey=bytes.fromhex(channel["client_funding_pubkey"]),
                lsp_funding_pubkey=bytes.fromhex(channel["lsp_funding_pubkey"]),
            )
            for channel in given["channels"]
        ],
        funding_outpoint=OutPoint(
            txid=Txid.from_hex(given["funding_outpoint"]["txid"]),
            vout=given["funding_outpoint"]["vout"],
        ),
    )


@pytest.mark.parametrize("case", range(3))
def test_the_agreed_trees_are_reproduced_to_the_byte(
    json_vectors: Callable[[str], Any], case: int
) -> None:
    vectors = json_vectors("factory-trees.json")
    assert len(vectors) == 3
    vector = vectors[case]
    assert vector["input"]["placement"] == list(range(1, len(vector["input"]["channels"]) + 1))
    tree, expected = tree_of_vector(vector["input"]), vector["expected"]

    assert tree.funding_amount_sat == expected["funding"]["amount_sat"]
    assert tree.funding_output.script_pubkey.hex() == expected["funding"]["script_pubkey"]
    rebuilt = [
        {
            "name": node.name,
            "txid": str(node.tx.txid),
            "signers": list(node.signers),
            "nsequence": node.tx.inputs[0].nsequence,
            "fee_sat": node.fee_sat,
            "vsize": node.tx.with_witnesses((bytes(64),)).vsize,
            "unsigned_hex": node.tx.serialize().hex(),
            "outputs": [
                {
                    "kind": output.kind.value,
                    "amount_sat": output.amount_sat,
                    "script_pubkey": output.script_pubkey.hex(),
                }
                for output in node.outputs
            ],
        }
        for node in tree.nodes
    ]
    assert rebuilt == [
        {**transaction, "outputs": [only_known(output) for output in transaction["outputs"]]}
        for transaction in expected["transactions"]
    ]


def only_known(output: dict[str, Any]) -> dict[str, Any]:
    return {name: output[name] for name in ("kind", "amount_sat", "script_pubkey")}


@pytest.mark.parametrize("case", range(3))
def test_each_client_of_an_agreed_tree_rebuilds_its_own_branch(
    json_vectors: Callable[[str], Any], case: int
) -> None:
    vector = json_vectors("factory-trees.json")[case]
    given = vector["input"]
    tree = tree_of_vector(given)
    expected = {t["name"]: t["unsigned_hex"] for t in vector["expected"]["transactions"]}
    scripts = {
        output.client: output.script_pubkey
        for node in tree.nodes
        for output in node.outputs
        if output.client is not None
    }
    for client, channel in enumerate(given["channels"], start=1):
        branch = build_branch(
            tree.terms,
            client=client,
            factory_pubkeys=tree.factory_pubkeys,
            channel_keys=ChannelFundingPubkeys(
                client_funding_pubkey=bytes.fromhex(channel["client_funding_pubkey"]),
                lsp_funding_pubkey=bytes.fromhex(channel["lsp_funding_pubkey"]),
            ),
            neighbour_scripts={other: s for other, s in scripts.items() if other != client},
            funding_outpoint=tree.funding_outpoint,
        )
        mine = {node.name: node.tx.serialize().hex() for node in branch.nodes}
        assert mine.items() <= expected.items()
        assert list(mine) == [node.name for node in branch_of(tree, client).nodes]


SHAPES: Final = (
    "five-default-shape",
    "eight-default-shape",
    "eight-dw",
    "two-advance-part",
    "two-advance-all",
    "three-in-a-leaf",
    "six-default-parts",
)


@pytest.mark.parametrize("place", range(len(SHAPES)), ids=SHAPES)
def test_the_agreed_shapes_are_reproduced_to_the_byte(
    json_vectors: Callable[[str], Any], place: int
) -> None:
    """Txids commit to every byte; names, fees and sizes are compared, too."""
    vectors = json_vectors("factory-shapes.json")
    assert [vector["case"]["name"] for vector in vectors] == list(SHAPES)
    given, result = vectors[place]["case"], vectors[place]["result"]
    tree = tree_of_vector(given)
    assert tree.funding_amount_sat == result["funding_amount_sat"]
    rebuilt = {
        node.name: {
            "txid": str(node.tx.txid),
            "vsize_signed": node.tx.with_witnesses((bytes(64),)).vsize,
            "fee_sat": node.fee_sat,
            "outputs": [[o.amount_sat, o.script_pubkey.hex()] for o in node.outputs],
        }
        for node in tree.nodes
    }
    later = (" v", "poison", "close", "sweep")  # What is made of a tree afterwards.
    agreed = {name: tx for name, tx in result.items() if not any(word in name for word in later)}
    del agreed["funding_amount_sat"]
    assert rebuilt == agreed
    assert list(rebuilt) == list(agreed), "depth first"
