"""A branch as its client keeps it: made again it is the same, and nothing else is taken for it."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.factory import oracle
from tests.factory.specimen import FUNDING, channel_keys, tree_of

from cromford.bitcoin.tx import MAX_MONEY_SAT, TxOut
from cromford.changed import changed
from cromford.factory.branch import Branch, KnownVertex, branch_of, known_branch, known_vertices
from cromford.factory.outputs import OutputKind
from cromford.factory.terms import FactoryTerms, decode_branch_terms
from cromford.factory.vertices import TreeNode

ONE_LEAF = oracle.terms_of([50_000, 60_000], [10_000])
EIGHT = oracle.terms_of(
    [50_000 + 1_000 * client for client in range(8)],
    [10_000, 0, 10_000, 10_000],
    inner_arities=[2, 2],
    inner_kinds=["static", "dw"],
)
ALL = [(ONE_LEAF, 1), (ONE_LEAF, 2), *((EIGHT, client) for client in range(1, 9))]


def kept_by(
    terms: FactoryTerms,
    client: int,
    vertices: Sequence[KnownVertex] | None = None,
    **other: Any,
) -> Branch:
    branch = branch_of(tree_of(terms), client)
    leaf = branch.vertices[-1].first.shape
    return known_branch(
        decode_branch_terms(terms.of_branch.encode(), n_clients=terms.n_clients),
        client=client,
        vertices=known_vertices(branch) if vertices is None else vertices,
        funding_outpoint=FUNDING,
        **{
            "leaf_pubkeys": {one: oracle.pubkey("factory", one) for one in (0, *leaf.clients)},
            "channel_keys": channel_keys(client),
            **other,
        },
    )


def paying(vertices: Sequence[KnownVertex], layer: int, *amounts_sat: int) -> list[KnownVertex]:
    """Return the vertices, of which one pays these amounts first."""
    known = vertices[layer]
    first = [
        changed(txout, amount_sat=amount_sat)
        for txout, amount_sat in zip(known.paid, amounts_sat, strict=False)
    ]
    other = known._replace(paid=(*first, *known.paid[len(first) :]))
    return [*vertices[:layer], other, *vertices[layer + 1 :]]


def _scripts(branch: Branch) -> set[bytes]:
    return {vertex.first.spends.script_pubkey for vertex in branch.vertices}


@pytest.mark.parametrize(("terms", "client"), ALL)
def test_what_is_kept_of_a_branch_is_the_branch_again(terms: FactoryTerms, client: int) -> None:
    branch, again = branch_of(tree_of(terms), client), kept_by(terms, client)
    assert [node.tx for node in again.nodes] == [node.tx for node in branch.nodes]
    assert [node.task.sighash for node in again.nodes] == [
        node.task.sighash for node in branch.nodes
    ]
    assert again.channel_outpoint == branch.channel_outpoint
    assert again.channel == branch.channel
    assert again.terms == terms.of_branch
    assert (again.client, again.funding_outpoint) == (client, FUNDING)
    assert again.funding_amount_sat == branch.funding_amount_sat
    assert again.funding_output.script_pubkey == branch.funding_output.script_pubkey


@pytest.mark.parametrize(("terms", "client"), ALL)
def test_a_branch_as_it_is_kept_is_the_one_that_is_made_of_what_is_kept(
    terms: FactoryTerms, client: int
) -> None:
    kept, again = branch_of(tree_of(terms), client).as_kept(terms.of_branch), kept_by(terms, client)
    assert [node.name for node in kept.nodes] == [node.name for node in again.nodes]
    assert kept == again
    for one, other in zip(kept.nodes, again.nodes, strict=True):
        assert one.task == other.task
        assert one.spends.descriptor == other.spends.descriptor
        assert _own_descriptors(kept, one) == _own_descriptors(again, other)
    assert kept.funding_output.descriptor == again.funding_output.descriptor


def _own_descriptors(branch: Branch, node: TreeNode) -> list[str | None]:
    """Return those of the outputs that lead down the branch."""
    own = {*_scripts(branch), branch.channel.script_pubkey}
    return [one.descriptor for one in node.outputs if one.script_pubkey in own]


@pytest.mark.parametrize(("terms", "client"), [(ONE_LEAF, 2), (EIGHT, 5)])
def test_above_the_leaf_it_is_not_known_who_signs(terms: FactoryTerms, client: int) -> None:
    *above, leaf = kept_by(terms, client).vertices
    for vertex in above:
        for node in vertex.nodes:
            with pytest.raises(ValueError, match="not known who signs"):
                _ = node.spends.signers
    for node in leaf.nodes:
        assert len(node.spends.signers) == 3


def test_no_script_is_kept_that_follows_from_the_rest() -> None:
    tree = tree_of(EIGHT)
    branch = branch_of(tree, 4)
    own = ["", "", branch.channel.script_pubkey.hex()]
    for vertex, known, script in zip(branch.vertices, known_vertices(branch), own, strict=True):
        paid = vertex.last.outputs[:-1]
        assert [txout.amount_sat for txout in known.paid] == [one.amount_sat for one in paid]
        for txout, output in zip(known.paid, paid, strict=True):
            follows = (
                output.kind is OutputKind.LSTOCK
                or output.script_pubkey.hex() == script
                or (output.client is None and output.script_pubkey in _scripts(branch))
            )
            assert txout.script_pubkey == (b"" if follows else output.script_pubkey)
        assert known.internal_key == vertex.first.spends.key_agg.internal_key


def test_too_many_vertices_or_too_few_are_no_branch() -> None:
    vertices = known_vertices(branch_of(tree_of(EIGHT), 3))
    for wrong in (vertices[1:], vertices[:-1], (*vertices, vertices[-1])):
        with pytest.raises(ValueError, match=rf"vertices: expected 3, received {len(wrong)}$"):
            kept_by(EIGHT, 3, wrong)


def test_other_keys_of_the_leaf_are_refused_by_what_they_add_up_to() -> None:
    keys = {one: oracle.pubkey("factory", one) for one in (0, 3, 4)}
    with pytest.raises(ValueError, match="0_1: expected keys that add up to"):
        kept_by(EIGHT, 3, leaf_pubkeys={**keys, 4: oracle.pubkey("factory", 5)})
    with pytest.raises(KeyError):
        kept_by(EIGHT, 3, leaf_pubkeys={0: keys[0], 3: keys[3]})


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_satoshi_more_or_less_adds_up_to_no_branch(layer: int) -> None:
    branch = branch_of(tree_of(EIGHT), 1)
    vertices = known_vertices(branch)
    amount_sat = vertices[layer].paid[0].amount_sat
    for wrong_sat in (amount_sat + 1, amount_sat - 1):
        wrong = paying(vertices, layer, wrong_sat)
        if layer == 0:  # Of a static root, so the funding is another.
            with pytest.raises(ValueError, match="kickoff_0: expected an input of"):
                kept_by(EIGHT, 1, wrong)
        else:
            with pytest.raises(ValueError, match=r"expected an input of .* sat, received .* sat"):
                kept_by(EIGHT, 1, wrong)


def test_amounts_that_are_none_are_refused_with_their_vertex() -> None:
    vertices = known_vertices(branch_of(tree_of(EIGHT), 1))
    with pytest.raises(ValueError, match=r"root: expected amounts of .*, received -1$"):
        kept_by(EIGHT, 1, paying(vertices, 0, -1))
    with pytest.raises(ValueError, match="kickoff_0: expected an input of"):
        kept_by(EIGHT, 1, paying(vertices, 0, 0))
    for amount_sat in (MAX_MONEY_SAT, MAX_MONEY_SAT + 1):
        with pytest.raises(ValueError, match="root: expected amounts of") as refused:
            kept_by(EIGHT, 1, paying(vertices, 0, amount_sat, 0))
        assert int(str(refused.value).split()[-1]) > MAX_MONEY_SAT


def test_all_the_money_there_is_is_the_most_that_a_kickoff_spends() -> None:
    """A kickoff pays more than its state, whose input is less than all the money."""
    branch = branch_of(tree_of(ONE_LEAF), 1)
    vertices = known_vertices(branch)
    spare_sat = MAX_MONEY_SAT - branch.funding_amount_sat
    most_sat = vertices[0].paid[0].amount_sat + spare_sat
    assert kept_by(ONE_LEAF, 1, paying(vertices, 0, most_sat)).funding_amount_sat == MAX_MONEY_SAT
    with pytest.raises(ValueError, match=rf"root: .*, received {MAX_MONEY_SAT + 1}$"):
        kept_by(ONE_LEAF, 1, paying(vertices, 0, most_sat + 1))


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_a_leaf_pays_its_channels_and_at_most_an_lstock(n_outputs: int) -> None:
    (known,) = known_vertices(branch_of(tree_of(ONE_LEAF), 1))
    outputs = (*known.paid, TxOut(amount_sat=1_000, script_pubkey=b""))
    wrong = [known._replace(paid=outputs[:n_outputs])]
    with pytest.raises(ValueError, match=rf"at most an L-stock, received {n_outputs} outputs"):
        kept_by(ONE_LEAF, 1, wrong)


def test_what_is_kept_of_terms_has_every_field_but_those_of_each_client_and_leaf() -> None:
    encoded = EIGHT.of_branch.encode()
    assert decode_branch_terms(encoded, n_clients=8) == EIGHT.of_branch
    assert len(encoded) < len(EIGHT.encode())
    with pytest.raises(ValueError, match=r"terms without attempt_id, .*expiry_height"):
        decode_branch_terms(b"", n_clients=2)


@pytest.mark.parametrize(("terms", "client"), ALL)
def test_of_scripts_only_those_are_kept_that_follow_from_nothing_else(
    terms: FactoryTerms, client: int
) -> None:
    """Not the script of the way down, nor of an L-stock: its leaf's keys are kept."""
    branch = branch_of(tree_of(terms), client)
    for vertex, known in zip(branch.vertices, known_vertices(branch), strict=True):
        kept = {txout.script_pubkey for txout in known.paid} - {b""}
        own = {below.first.spends.script_pubkey for below in branch.vertices}
        own |= {branch.channel.script_pubkey}
        own |= {
            output.script_pubkey
            for output in vertex.last.outputs
            if output.kind is OutputKind.LSTOCK
        }
        assert kept == {
            output.script_pubkey
            for output in vertex.last.outputs[:-1]
            if output.script_pubkey not in own
        }


def test_what_a_transaction_pays_is_the_same_whoever_is_known_to_sign_for_it() -> None:
    branch = branch_of(tree_of(EIGHT), 3)
    for vertex in branch.vertices:
        bare = vertex.without_signers(but=branch.funding_output)
        assert bare.last.outputs == vertex.last.outputs
        assert bare.is_static == vertex.is_static
