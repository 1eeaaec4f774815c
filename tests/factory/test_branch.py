"""A client's branch: rebuilt from little, signed by everybody, accepted by Bitcoin Core."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.specimen import FUNDING, channel_keys, tree_of

from cromford.bitcoin.tx import Tx, TxOut
from cromford.crypto.curve import Keypair
from cromford.crypto.musig2 import InvalidContribution, SecNonce, nonce_agg
from cromford.factory.branch import Branch, branch_of, build_branch
from cromford.factory.exit_path import exit_path
from cromford.factory.key_path import InvalidSignature
from cromford.factory.outputs import OutputKind
from cromford.factory.terms import FactoryTerms
from cromford.factory.tree import Tree
from cromford.factory.vertices import ChannelFundingPubkeys, NodeKind, TreeNode
from cromford.regtest.kernel import ScriptRefused, check_scripts

heavy = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
FOUR = oracle.terms_of([50_000, 60_000, 70_000, 80_000], [10_000, 0], inner_arities=[2])


def scripts_of_neighbours(tree: Tree, client: int) -> dict[int, bytes]:
    """What a client is told: the channel scripts of its own leaf, its own excepted."""
    leaf = branch_of(tree, client).vertices[-1].last
    return {
        output.client: output.script_pubkey
        for output in leaf.outputs
        if output.client is not None and output.client != client
    }


def rebuilt_by(tree: Tree, client: int, scripts: Mapping[int, bytes]) -> Branch:
    return build_branch(
        tree.terms,
        client=client,
        factory_pubkeys=tree.factory_pubkeys,
        channel_keys=channel_keys(client),
        neighbour_scripts=scripts,
        funding_outpoint=FUNDING,
    )


def sign(node: TreeNode, *, without: int | None = None) -> bytes:
    """All signers of a transaction sign it, or all but one."""
    seckeys = [oracle.seckey("factory", signer) for signer in node.signers if signer != without]
    nonces = [SecNonce(Keypair(seckey)) for seckey in seckeys]
    session = node.task.session(nonce_agg([nonce.pubnonce for nonce in nonces]))
    return session.partial_sig_agg([nonce.sign(session) for nonce in nonces])


def accepted(tx: Tx, node: TreeNode) -> bool:
    prevout = TxOut(amount_sat=node.input_amount_sat, script_pubkey=node.spends.script_pubkey)
    try:
        check_scripts(tx, [prevout])
    except ScriptRefused:
        return False
    return True


@heavy
@given(terms=oracle.random_terms(), seed=st.integers(0, 2**32))
def test_what_all_signers_sign_core_accepts_and_with_one_bit_changed_refuses(
    terms: FactoryTerms, seed: int
) -> None:
    dice = random.Random(seed)
    nodes = list(tree_of(terms).nodes)
    for node in dice.sample(nodes, min(3, len(nodes))):
        signature = sign(node)
        signed = node.signed(signature)
        assert accepted(signed, node), node.name
        assert (signed.txid, signed.vsize) == (
            node.tx.txid,
            node.tx.with_witnesses((bytes(64),)).vsize,
        )
        flipped = bytearray(signature)
        flipped[dice.randrange(64)] ^= 1 << dice.randrange(8)
        assert not accepted(node.tx.with_witnesses((bytes(flipped),)), node)
        with pytest.raises(InvalidSignature, match=node.name) as refused:
            node.signed(bytes(flipped))
        assert refused.value.name == node.name


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(terms=oracle.random_terms(), seed=st.integers(0, 2**32))
def test_without_any_one_signer_there_is_no_signature(terms: FactoryTerms, seed: int) -> None:
    dice = random.Random(seed)
    node = dice.choice(list(tree_of(terms).nodes))
    signature = sign(node, without=dice.choice(node.signers))
    assert not accepted(node.tx.with_witnesses((signature,)), node)
    with pytest.raises(InvalidSignature):
        node.signed(signature)


@pytest.mark.sampled(0)
@heavy
@given(terms=oracle.random_terms(), seed=st.integers(0, 2**32))
def test_every_branch_is_part_of_its_tree_and_its_owner_can_rebuild_it(
    terms: FactoryTerms, seed: int
) -> None:
    tree = tree_of(terms)
    nodes = tree.node_by_name
    n_clients = len(terms.capacity_sat)
    for client in random.Random(seed).sample(range(1, n_clients + 1), min(4, n_clients)):
        branch = branch_of(tree, client)
        mine = rebuilt_by(tree, client, scripts_of_neighbours(tree, client))
        for node, again in zip(branch.nodes, mine.nodes, strict=True):
            assert node is nodes[node.name]
            assert (again.name, again.tx, again.signers) == (node.name, node.tx, node.signers)
            assert again.task == node.task
            assert client in node.signers
        assert mine.funding_amount_sat == tree.funding_amount_sat
        assert mine.funding_output.script_pubkey == tree.funding_output.script_pubkey
        assert (mine.client, mine.kinds) == (client, branch.kinds)
        assert mine.channel.amount_sat == terms.capacity_sat[client - 1]
        pair = channel_keys(client)
        both = [pair.client_funding_pubkey, pair.lsp_funding_pubkey]
        assert mine.channel.script_pubkey == oracle.output_script(both, None)
        leaf = mine.vertices[-1].last.tx
        assert mine.channel_outpoint == leaf.outpoint(mine.channel_outpoint.vout)
        assert leaf.outputs[mine.channel_outpoint.vout] == mine.channel.txout


@heavy
@given(terms=oracle.random_terms(), seed=st.integers(0, 2**32))
def test_an_exit_is_the_shortest_way_down_with_the_delays_it_must_wait(
    terms: FactoryTerms, seed: int
) -> None:
    tree = tree_of(terms)
    client = random.Random(seed).randint(1, len(terms.capacity_sat))
    branch = branch_of(tree, client)
    signatures = {node.name: sign(node) for node in branch.nodes}
    steps = exit_path(branch.with_signatures(signatures))
    parent = FUNDING.txid
    for step, node in zip(steps, branch.nodes, strict=True):
        assert step.tx.inputs[0].outpoint.txid == parent
        assert step.name == node.name
        assert step.fee_sat == node.fee_sat
        is_state = node.kind is NodeKind.STATE
        assert step.is_raced is is_state
        assert step.delay_blocks == (step.tx.inputs[0].nsequence if is_state else 0)
        assert replace(step, state_index=None) == step, "a transaction read back is the same step"
        assert accepted(step.tx, node)
        parent = step.tx.txid
    assert parent == branch.channel_outpoint.txid
    waited = sum(step.delay_blocks for step in steps)
    assert waited == terms.exit_delay_blocks(branch.kinds)
    assert branch.exit_blocks == waited + 6 * (len(steps) + 1)
    assert branch.exit_deadline_height == terms.expiry_height - branch.exit_blocks - 144


@pytest.mark.parametrize(
    ("kind", "root", "below"),
    [
        ("dw", "kickoff_root", ["state_root", "kickoff_1", "state_1"]),
        ("static", "static_root", ["kickoff_1", "state_1"]),
    ],
)
def test_the_root_is_set_apart_because_it_is_signed_last(
    kind: str, root: str, below: list[str]
) -> None:
    terms = oracle.terms_of(
        [50_000, 60_000, 70_000, 80_000], [10_000, 0], inner_arities=[2], inner_kinds=[kind]
    )
    tree = tree_of(terms)
    branch = branch_of(tree, 3)
    assert branch.root_node.name == tree.root_node.name == root
    assert [node.name for node in branch.nodes_below_root] == below
    assert [node.name for node in branch.nodes] == [root, *below]
    assert [*tree.nodes] == [tree.root_node, *tree.nodes_below_root]


def test_a_signed_tree_has_every_signature_or_does_not_exist() -> None:
    tree = tree_of(FOUR)
    signatures = {node.name: sign(node) for node in tree.nodes}
    signed = tree.with_signatures(signatures)
    assert list(signed.txs) == [node.name for node in tree.nodes]
    assert all(accepted(tx, tree.node_by_name[name]) for name, tx in signed.txs.items())
    for name in signatures:
        missing = {other: s for other, s in signatures.items() if other != name}
        with pytest.raises(KeyError, match=name):
            tree.with_signatures(missing)
        swapped = {**signatures, name: signatures["state_1" if name != "state_1" else "state_0"]}
        with pytest.raises(InvalidSignature, match=name):
            tree.with_signatures(swapped)


def test_a_signed_branch_has_every_signature_or_does_not_exist() -> None:
    branch = branch_of(tree_of(FOUR), 2)
    signatures = {node.name: sign(node) for node in branch.nodes}
    assert len(branch.with_signatures(signatures).txs) == 4
    for name in signatures:
        with pytest.raises(KeyError, match=name):
            branch.with_signatures({n: s for n, s in signatures.items() if n != name})
        with pytest.raises(InvalidSignature, match=name):
            branch.with_signatures({**signatures, name: bytes(64)})


@pytest.mark.parametrize("client", [-1, 0, 5, 1000])
def test_nobody_else_has_a_branch(client: int) -> None:
    tree = tree_of(FOUR)
    with pytest.raises(ValueError, match=f"client {client}"):
        branch_of(tree, client)
    with pytest.raises(ValueError, match=f"client {client}"):
        rebuilt_by(tree, client, {})


def test_a_branch_without_a_neighbours_script_cannot_be_built() -> None:
    with pytest.raises(KeyError, match="2"):
        rebuilt_by(tree_of(FOUR), 1, {})


def test_a_wrong_script_of_a_neighbour_changes_only_the_leaf_state() -> None:
    """It cannot be signed for another leaf state than everybody else's: only its teller loses."""
    tree = tree_of(FOUR)
    honest = rebuilt_by(tree, 1, scripts_of_neighbours(tree, 1))
    fooled = rebuilt_by(tree, 1, {2: b"\x51\x20" + b"\x01" * 32})
    changed = [
        a.name for a, b in zip(honest.nodes, fooled.nodes, strict=True) if a.tx.txid != b.tx.txid
    ]
    assert changed == ["state_0"]
    assert [o.descriptor is None for o in fooled.vertices[-1].last.outputs][:2] == [False, True]


@pytest.mark.parametrize(
    "script", [b"", bytes(34), b"\x51\x20" + bytes(33), b"\x6a" + bytes(9_900), b"\x51" * 34]
)
def test_a_neighbours_script_that_is_not_taproot_is_refused(script: bytes) -> None:
    """A neighbour and the LSP could else make everybody's leaf state too large to be relayed."""
    with pytest.raises(ValueError, match="2"):
        rebuilt_by(tree_of(FOUR), 1, {2: script})


def test_a_branch_needs_every_factory_key() -> None:
    tree = replace(tree_of(FOUR), factory_pubkeys=tuple(oracle.factory_pubkeys(3)))
    with pytest.raises(ValueError, match="4 clients and 4 factory keys"):
        rebuilt_by(tree, 1, {})


def test_a_channel_of_one_key_or_of_no_point_is_refused() -> None:
    key = oracle.pubkey("client funding", 1)
    for lsp_key, refusal in ((key, ValueError), (b"\x02" + bytes(32), InvalidContribution)):
        with pytest.raises(refusal):
            build_branch(
                FOUR,
                client=1,
                factory_pubkeys=oracle.factory_pubkeys(4),
                channel_keys=ChannelFundingPubkeys(
                    client_funding_pubkey=key, lsp_funding_pubkey=lsp_key
                ),
                neighbour_scripts={2: b""},
                funding_outpoint=FUNDING,
            )


def test_an_lstock_that_is_used_up_leaves_no_output() -> None:
    with_stock, without = (branch_of(tree_of(FOUR), client) for client in (1, 4))
    kinds = [[o.kind for o in branch.vertices[-1].last.outputs] for branch in (with_stock, without)]
    channel, anchor = OutputKind.CHANNEL, OutputKind.ANCHOR
    assert kinds == [[channel, channel, OutputKind.LSTOCK, anchor], [channel, channel, anchor]]
