"""The whole tree, recomputed by `oracle` from PROTOCOL's words and compared to the byte."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import pytest
import wallycore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.oracle import Spot
from tests.factory.specimen import FUNDING, channel_keys, tree_of

from cromford.bitcoin.tx import OutPoint
from cromford.crypto.musig2 import InvalidContribution
from cromford.factory.outputs import OutputKind
from cromford.factory.terms import FactoryTerms, FeePolicy
from cromford.factory.tree import build_tree
from cromford.factory.vertices import NodeKind

heavy = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Expected:
    """What one transaction should be: its name, signers, and bytes from two other hands."""

    name: str
    signers: tuple[int, ...]
    nsequence: int
    outputs: list[tuple[str, int, bytes]]
    fee_sat: int

    def unsigned(self, outpoint: OutPoint) -> bytes:
        """The transaction as wallycore writes it."""
        tx = wallycore.tx_init_alloc(3, 0, 1, len(self.outputs))
        wallycore.tx_add_raw_input(tx, outpoint.txid, outpoint.vout, self.nsequence, None, None, 0)
        for _, amount_sat, script in self.outputs:
            wallycore.tx_add_raw_output(tx, amount_sat, script, 0)
        return bytes(wallycore.tx_to_bytes(tx, 0))

    def vsize(self) -> int:
        """The size with one 64-byte signature, by wallycore's count."""
        tx = wallycore.tx_from_bytes(self.unsigned(FUNDING), 0)
        stack = wallycore.tx_witness_stack_init_alloc(1)
        wallycore.tx_witness_stack_add(stack, bytes(64))
        wallycore.tx_set_input_witness(tx, 0, stack)
        size: int = wallycore.tx_get_vsize(tx)
        return size

    @property
    def total_sat(self) -> int:
        return sum(amount_sat for _, amount_sat, _ in self.outputs) + self.fee_sat


class Rebuilt:
    """Every transaction of a factory, bottom up, from the terms alone."""

    def __init__(self, terms: FactoryTerms) -> None:
        self.terms = terms
        self.root = oracle.spot_of(terms)
        self.lsp = oracle.pubkey("factory", 0)
        self.lstocks = dict(
            zip((leaf.path for leaf in self.root.leaves()), terms.lstock_sat, strict=True)
        )
        self.anchor_sat = 240 if terms.fee_policy is FeePolicy.ENDOGENOUS else 0
        self.transactions: dict[str, Expected] = {}
        self.funding_sat = self.build(self.root)

    def keys(self, spot: Spot) -> list[bytes]:
        return [self.lsp, *(oracle.pubkey("factory", client) for client in spot.clients)]

    def fee_sat(self, n_outputs: int) -> int:
        """Price a transaction of so many taproot outputs and an anchor by its real size."""
        outputs = [("", 1, b"\x51\x20" + bytes(32))] * n_outputs + [("", 1, oracle.ANCHOR)]
        vsize = Expected("", (), 0, outputs, 0).vsize()
        return math.ceil(Fraction(vsize * 4 * self.terms.tree_feerate_sat_per_kw, 1000))

    def expiring(self, spot: Spot) -> bytes:
        tapscript = oracle.timelock_tapscript(
            self.lsp, self.terms.expiry_height, "OP_CHECKLOCKTIMEVERIFY"
        )
        return oracle.output_script(self.keys(spot), tapscript)

    def state_outputs(self, spot: Spot) -> Iterator[tuple[str, int, bytes]]:
        for child in spot.below:
            yield "child", self.build(child), self.expiring(child)
        if not spot.below:
            for client in spot.clients:
                pair = channel_keys(client)
                both = [pair.client_funding_pubkey, pair.lsp_funding_pubkey]
                amount_sat = self.terms.capacity_sat[client - 1]
                yield "channel", amount_sat, oracle.output_script(both, None)
            if lstock_sat := self.lstocks[spot.path]:
                tapscript = oracle.timelock_tapscript(
                    self.lsp, self.terms.lstock_csv_blocks, "OP_CHECKSEQUENCEVERIFY"
                )
                yield "lstock", lstock_sat, oracle.output_script(self.keys(spot), tapscript)

    def build(self, spot: Spot) -> int:
        """Add the transactions of a vertex; return what their input must hold."""
        anchor = ("anchor", self.anchor_sat, oracle.ANCHOR)
        signers = (0, *spot.clients)
        paid = list(self.state_outputs(spot))
        if spot.is_static:
            outputs, fee_sat = [*paid, anchor], self.fee_sat(len(paid))
            static = Expected(f"static_{spot.name}", signers, 0xFFFFFFFF, outputs, fee_sat)
            self.transactions[static.name] = static
            return static.total_sat
        delay_blocks = self.terms.step_blocks * (self.terms.states_per_layer - 1)
        state = Expected(
            f"state_{spot.name}", signers, delay_blocks, [*paid, anchor], self.fee_sat(len(paid))
        )
        clock = ("child", state.total_sat, oracle.output_script(self.keys(spot), None))
        kickoff = Expected(
            f"kickoff_{spot.name}", signers, 0xFFFFFFFF, [clock, anchor], self.fee_sat(1)
        )
        self.transactions |= {state.name: state, kickoff.name: kickoff}
        return kickoff.total_sat

    def names(self) -> list[str]:
        return [
            f"{kind}_{spot.name}"
            for spot in self.root.depth_first()
            for kind in (("static",) if spot.is_static else ("kickoff", "state"))
        ]

    def spent_by(self, name: str) -> tuple[str, int]:
        """Return which transaction's output it spends, and which output."""
        kind, _, place = name.partition("_")
        if kind == "state":
            return f"kickoff_{place}", 0
        if place == "root":
            return "", 0
        *above, last = place.split("_")
        parent = "_".join(above) or "root"
        kind = "static" if f"static_{parent}" in self.transactions else "state"
        return f"{kind}_{parent}", int(last)


@heavy
@given(terms=oracle.random_terms())
def test_every_transaction_is_to_the_byte_what_an_independent_reading_gives(
    terms: FactoryTerms,
) -> None:
    tree, rebuilt = tree_of(terms), Rebuilt(terms)
    nodes = {node.name: node for node in tree.nodes}
    assert list(nodes) == rebuilt.names()
    assert nodes == tree.node_by_name
    for name, node in nodes.items():
        expected = rebuilt.transactions[name]
        parent, vout = rebuilt.spent_by(name)
        outpoint = OutPoint(txid=nodes[parent].tx.txid, vout=vout) if parent else FUNDING
        assert node.tx.serialize() == expected.unsigned(outpoint), name
        assert node.signers == expected.signers
        paid = [(o.kind.value, o.amount_sat, o.script_pubkey) for o in node.outputs]
        assert paid == expected.outputs
        assert node.fee_sat == expected.fee_sat


@heavy
@given(terms=oracle.random_terms())
def test_nothing_is_lost_between_the_funding_and_the_channels(terms: FactoryTerms) -> None:
    tree = tree_of(terms)
    nodes = tree.node_by_name
    held = {(FUNDING.txid, FUNDING.vout): tree.funding_amount_sat}
    for node in nodes.values():
        for vout, tx_out in enumerate(node.tx.outputs):
            held[node.tx.txid, vout] = tx_out.amount_sat
    for node in nodes.values():
        (tx_in,) = node.tx.inputs
        input_sat = held.pop((tx_in.outpoint.txid, tx_in.outpoint.vout))
        assert input_sat == node.input_amount_sat
        assert input_sat == sum(o.amount_sat for o in node.tx.outputs) + node.fee_sat
    fees = sum(node.fee_sat for node in nodes.values())
    assert sum(held.values()) + fees == tree.funding_amount_sat
    anchors = len(nodes) * (240 if terms.fee_policy is FeePolicy.ENDOGENOUS else 0)
    assert tree.funding_amount_sat == (
        sum(terms.capacity_sat) + sum(terms.lstock_sat) + fees + anchors
    )


@heavy
@given(terms=oracle.random_terms())
def test_a_fee_is_the_feerate_to_the_satoshi_or_nothing(terms: FactoryTerms) -> None:
    for node in tree_of(terms).nodes:
        vsize = node.tx.with_witnesses((bytes(64),)).vsize
        assert vsize <= 10_000
        if terms.fee_policy is FeePolicy.EPHEMERAL:
            assert node.fee_sat == 0
            assert node.tx.outputs[-1].amount_sat == 0
        else:
            exact = Fraction(4 * vsize * terms.tree_feerate_sat_per_kw, 1000)
            assert exact <= node.fee_sat < exact + 1
            assert node.tx.outputs[-1].amount_sat == 240


@heavy
@given(terms=oracle.random_terms(), index=st.integers(0, 5))
def test_form_and_delays_are_section_4s_and_6s(terms: FactoryTerms, index: int) -> None:
    for node in tree_of(terms).nodes:
        assert (node.tx.version, node.tx.nlocktime, len(node.tx.inputs)) == (3, 0, 1)
        assert node.outputs[-1].kind is OutputKind.ANCHOR
        assert [o.kind is OutputKind.ANCHOR for o in node.outputs].count(True) == 1
        (tx_in,) = node.tx.inputs
        if node.kind is NodeKind.STATE:
            assert node.state_index == 0
            assert node.delay_blocks == tx_in.nsequence <= 0xFFFF
        else:
            assert node.state_index is None
            assert (node.delay_blocks, tx_in.nsequence) == (0, 0xFFFFFFFF)
        for output in node.outputs[:-1]:
            assert output.amount_sat >= 330
    last = terms.states_per_layer - 1
    if index <= last:
        assert terms.odometer.delay_blocks(index) == terms.step_blocks * (last - index)


def test_a_descriptor_tells_the_signers_and_what_the_lsp_may_do_alone() -> None:
    tree = tree_of(oracle.terms_of([50_000] * 4, [10_000, 0], inner_arities=[2]))
    funding = tree.funding_output.descriptor
    assert funding.startswith("tr(musig(")
    assert f",after({tree.terms.expiry_height})))#" in funding
    state = tree.node_by_name["state_0"]
    channel, _, stock, anchor = (output.descriptor or "" for output in state.outputs)
    assert channel.startswith("tr(musig(")
    assert "older(" not in channel
    assert "older(" in stock
    assert anchor.startswith("raw(51024e73)#")


@pytest.mark.sampled(0)
@heavy
@given(terms=oracle.random_terms())
def test_every_descriptor_derives_its_script(terms: FactoryTerms) -> None:
    tree = tree_of(terms)
    amounts_and_scripts = 0
    for node in tree.nodes:
        for output in node.outputs:
            assert output.descriptor is not None
            assert oracle.script_of_descriptor(output.descriptor) == output.script_pubkey
            assert output.txout.script_pubkey == output.script_pubkey
            amounts_and_scripts += 1
    funding = tree.funding_output
    assert oracle.script_of_descriptor(funding.descriptor) == funding.script_pubkey
    assert amounts_and_scripts >= 2


@heavy
@given(terms=oracle.random_terms())
def test_only_the_signers_of_the_spender_hold_the_key_path(terms: FactoryTerms) -> None:
    tree = tree_of(terms)
    for node in tree.nodes:
        keys = [oracle.pubkey("factory", signer) for signer in node.signers]
        assert node.spends.signers == tuple(sorted(keys))
        assert node.task.signers == tuple(sorted(keys))
        assert node.task.key_agg.output_key == node.spends.script_pubkey[2:]


def test_a_single_client_has_a_root_that_is_its_leaf() -> None:
    tree = tree_of(oracle.terms_of([50_000], [25_000]))
    assert list(tree.node_by_name) == ["kickoff_root", "state_root"]
    kinds = [output.kind.value for output in tree.vertices[0].last.outputs]
    assert kinds == ["channel", "lstock", "anchor"]
    assert tree.vertices[0].last.layer == 0


TWO = oracle.terms_of([50_000, 60_000], [0])


@pytest.mark.parametrize(("n_keys", "n_channels"), [(2, 2), (4, 2), (3, 1), (3, 3)])
def test_a_key_too_many_or_too_few_is_refused(n_keys: int, n_channels: int) -> None:
    with pytest.raises(ValueError, match=f"2 clients, {n_keys} factory keys, {n_channels}"):
        build_tree(
            TWO,
            factory_pubkeys=oracle.factory_pubkeys(8)[:n_keys],
            channels=[channel_keys(1)] * n_channels,
            funding_outpoint=FUNDING,
        )


def test_two_participants_with_one_key_are_refused_wherever_they_sit() -> None:
    keys = oracle.factory_pubkeys(2)
    for twins in ([keys[0], keys[0], keys[2]], [keys[0], keys[1], keys[1]]):
        with pytest.raises(ValueError, match="two signers with one pubkey"):
            build_tree(
                TWO,
                factory_pubkeys=twins,
                channels=[channel_keys(1), channel_keys(2)],
                funding_outpoint=FUNDING,
            )


def test_a_key_that_is_no_point_is_refused() -> None:
    keys = [*oracle.factory_pubkeys(1), b"\x02" + bytes(31) + b"\x05"]
    with pytest.raises(InvalidContribution):
        build_tree(
            TWO,
            factory_pubkeys=keys,
            channels=[channel_keys(1), channel_keys(2)],
            funding_outpoint=FUNDING,
        )
