"""Advanced leaves and their poisons that other implementations agreed on, to the byte."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.factory.test_tree_vectors import SHAPES, tree_of_vector

from cromford.factory.allocation import Purchase
from cromford.factory.branch import Branch, build_branch
from cromford.factory.key_path import KeyPathTx
from cromford.factory.leaf import Leaf, opening_leaf
from cromford.factory.poison import Poison
from cromford.factory.tree import Tree
from cromford.factory.vertices import ChannelFundingPubkeys, Vertex

Told = dict[str, dict[str, object]]


def told(tx: KeyPathTx, fee_sat: int) -> Told:
    return {
        tx.name: {
            "txid": str(tx.tx.txid),
            "vsize_signed": tx.vsize,
            "fee_sat": fee_sat,
            "outputs": [[o.amount_sat, o.script_pubkey.hex()] for o in tx.tx.outputs],
        }
    }


def advances_of(vertex: Vertex, tree: Tree, advances: list[Mapping[str, Any]]) -> tuple[Leaf, Told]:
    """Play a vector's sales on one leaf; return it, and all that its signers here agree on."""
    leaf = opening_leaf(vertex, terms=tree.terms, factory_pubkeys=tree.factory_pubkeys)
    made: Told = {}
    for place, advance in enumerate(advances, start=1):
        amount = advance["amount_sat"]
        leaf = leaf.sold(
            Purchase(buyer=advance["buyer"], amount_sat=None if amount == "all" else amount)
        )
        assert leaf.state.state_index == advance["state_index"] == place
        made |= told(leaf.state, leaf.state.fee_sat)
        for poison in leaf.poisons(place - 1):
            made |= told(poison, poison.fee_sat)
    return leaf, made


def leaves_of(vertices: tuple[Vertex, ...]) -> list[Vertex]:
    return [vertex for vertex in vertices if not vertex.last.shape.children]


def own_branch(tree: Tree, client: int, channel: Mapping[str, Any]) -> Branch:
    """Rebuild a client's branch from what that client knows."""
    scripts = {
        output.client: output.script_pubkey
        for node in tree.nodes
        for output in node.outputs
        if output.client is not None
    }
    return build_branch(
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


@pytest.mark.parametrize("place", range(len(SHAPES)), ids=SHAPES)
def test_the_agreed_advances_are_reproduced_to_the_byte_by_the_lsp_and_by_each_client(
    json_vectors: Callable[[str], Any], place: int
) -> None:
    vector = json_vectors("factory-shapes.json")[place]
    given, result = vector["case"], vector["result"]
    agreed = {name: tx for name, tx in result.items() if " v" in name}
    tree = tree_of_vector(given)
    made: Told = {}
    for number, vertex in enumerate(leaves_of(tree.vertices)):
        advances = [advance for advance in given["advances"] if advance["leaf"] == number]
        _, told_of_leaf = advances_of(vertex, tree, advances)
        made |= told_of_leaf
    assert made == agreed
    assert bool(agreed) is bool(given["advances"])

    for client, channel in enumerate(given["channels"], start=1):
        branch = own_branch(tree, client, channel)
        (number,) = (
            n for n, v in enumerate(leaves_of(tree.vertices)) if client in v.last.shape.clients
        )
        advances = [advance for advance in given["advances"] if advance["leaf"] == number]
        leaf, own = advances_of(branch.vertices[-1], tree, advances)
        others = {f"channel_poison c{other} v0" for other in leaf.clients if other != client}
        assert own == {name: tx for name, tx in agreed.items() if name not in others}


def test_a_poison_and_a_state_are_signed_for_what_they_spend(
    json_vectors: Callable[[str], Any],
) -> None:
    """The task names the transaction, and its signers are those of the output that is spent."""
    vector = json_vectors("factory-shapes.json")[SHAPES.index("three-in-a-leaf")]
    tree = tree_of_vector(vector["case"])
    leaf, _ = advances_of(tree.vertices[0], tree, vector["case"]["advances"])
    everybody = tuple(sorted(tree.factory_pubkeys))
    assert leaf.state.task.signers == leaf.stock_poison(0).task.signers == everybody
    assert leaf.state.task.key_agg.output_key == leaf.kickoff.tx.outputs[0].script_pubkey[2:]
    channel = vector["case"]["channels"][1]
    poison: Poison = leaf.channel_poison(0, 2)
    keys = (channel["client_funding_pubkey"], channel["lsp_funding_pubkey"])
    assert poison.task.signers == tuple(sorted(map(bytes.fromhex, keys)))
    for one in leaf.poisons(0):
        assert one.task.name == one.name
        spent = leaf.states[0].outputs[one.tx.inputs[0].outpoint.vout]
        assert one.task.key_agg.output_key == spent.script_pubkey[2:]
        assert (one.tx.version, one.tx.nlocktime) == (3, 0)
        assert one.tx.inputs[0].nsequence == 0xFFFF_FFFD
