"""What an LSP takes of a factory on chain: not too early, and nothing that is not its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from tests.factory import oracle
from tests.factory.specimen import channel_keys, tree_of
from tests.factory.test_tree_vectors import SHAPES, tree_of_vector
from tests.watch.signed_factory import signatures_of

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto import schnorr
from cromford.crypto.keys import sha256
from cromford.factory.tree import SignedTree, Tree
from cromford.factory.vertices import TreeNode, build_vertices
from cromford.regtest.kernel import BlockRefused
from cromford.regtest.ledger import Ledger
from cromford.regtest.template import build_block
from cromford.regtest.verdict import MempoolRefused
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, OwnFees
from cromford.watch.lsp_sweep import (
    FactoryOnChain,
    PublishState,
    SweepTx,
    awaited,
    lsp_actions,
    lsp_outputs,
    not_worth_its_fee,
    sweep_tx,
    taken,
)

PAYOUT: Final = b"\x51\x20" + b"\x07" * 32
OPEN_SCRIPT: Final = b"\x00\x20" + sha256(b"\x51")  # Anyone may spend it.
TIME: Final = 1_700_000_000
EXPIRY: Final = 320
CSV: Final = 5
DELAY: Final = 3


def small_tree(
    kind: str,
    *,
    feerate: int = 500,
    funding_outpoint: OutPoint | None = None,
    expiry_height: int = EXPIRY,
) -> Tree:
    """Return a tree of four clients below one inner vertex, which expires soon."""
    terms = oracle.terms_of(
        [50_000, 51_000, 52_000, 53_000],
        [10_000, 11_000],
        leaf_arity=2,
        inner_arities=(2,),
        inner_kinds=(kind,),
        states_per_layer=2,
        step_blocks=DELAY,
        feerate=feerate,
        csv_blocks=CSV,
    )
    soon = {"active_blocks": 10, "dying_blocks": 10, "ready_min_blocks": 1}
    terms = oracle.with_field(terms, expiry_height=expiry_height, **soon)
    if funding_outpoint is None:
        return tree_of(terms)
    return tree_of(terms, funding_outpoint=funding_outpoint)


@dataclass
class Shown:
    """A chain that shows what a test lets it show."""

    tree: Tree
    height: int = EXPIRY
    heights: dict[Txid, int] = field(default_factory=dict)
    spends: dict[OutPoint, Tx] = field(default_factory=dict)
    fees: OwnFees = field(default_factory=OwnFees)

    def __post_init__(self) -> None:
        self.heights[self.tree.funding_outpoint.txid] = 101

    @property
    def factory(self) -> FactoryOnChain:
        return FactoryOnChain(
            tree=self.tree,
            spends=self.spends,
            heights=self.heights,
            tip_height=self.height,
            payout_script=PAYOUT,
            fees=self.fees,
        )

    def confirm(self, *names: str, height: int = 110) -> "Shown":
        for name in names:
            self.confirm_tx(self.tree.node_by_name[name].tx, height=height)
        return self

    def confirm_tx(self, tx: Tx, *, height: int) -> None:
        self.heights[tx.txid] = height
        self.spends.update({tx_in.outpoint: tx for tx_in in tx.inputs})

    def actions(self) -> list[str]:
        return [
            action.name if isinstance(action, SweepTx) else action.node.name
            for action in lsp_actions(self.factory)
        ]

    def sweep(self, name: str) -> SweepTx:
        (found,) = (
            one
            for one in lsp_actions(self.factory)
            if isinstance(one, SweepTx) and one.name == name
        )
        return found


def signed(sweep: SweepTx) -> Tx:
    """Sign as the LSP of the test keys."""
    sighash = taproot_sighash(
        sweep.tx,
        prevouts=[sweep.prevout],
        input_index=0,
        tapscript=sweep.output.tapleaf.script,
    )
    return sweep.signed(schnorr.sign(sighash, oracle.seckey("factory", 0)))


# The bytes


@pytest.mark.parametrize("place", range(len(SHAPES)), ids=SHAPES)
def test_the_agreed_expiry_sweeps_are_reproduced_to_the_byte(
    json_vectors: Callable[[str], Any], place: int
) -> None:
    vector = json_vectors("factory-shapes.json")[place]
    tree, agreed = tree_of_vector(vector["case"]), vector["result"]["expiry_sweep funding"]
    shown = Shown(tree, height=tree.terms.expiry_height)
    (output,) = lsp_outputs(shown.factory)
    payout = bytes.fromhex(vector["case"]["participants"][0]["payout_script"])
    fee_sat = fee_sat_of(vsize=130, feerate_sat_per_kw=500)
    sweep = sweep_tx(output, payout_script=payout, fee_sat=fee_sat)
    assert {
        "txid": str(sweep.tx.txid),
        "vsize_signed": sweep.vsize,
        "fee_sat": sweep.fee_sat,
        "outputs": [[one.amount_sat, one.script_pubkey.hex()] for one in sweep.tx.outputs],
    } == agreed
    assert sweep.name == "expiry_sweep funding"
    assert (sweep.tx.version, sweep.tx.nlocktime) == (2, tree.terms.expiry_height)
    assert sweep.tx.inputs[0].nsequence == 0xFFFF_FFFE


# What Bitcoin's consensus says


class Miner:
    """A chain of the kernel's, with a factory on it; whatever is given to it goes into a block."""

    def __init__(self, ledger: Ledger, kind: str, *, feerate: int = 500) -> None:
        self.ledger = ledger
        for _ in range(101):
            self.mine()
        coin = ledger.chain.at_height(1)
        assert coin is not None
        coinbase = coin.block.txs[0]
        draft = small_tree(kind, feerate=feerate)
        funding = Tx(
            version=2,
            inputs=(
                TxIn(outpoint=coinbase.outpoint(0), nsequence=0xFFFF_FFFF, witness=(b"\x51",)),
            ),
            outputs=(
                TxOut(
                    amount_sat=draft.funding_amount_sat,
                    script_pubkey=draft.funding_output.script_pubkey,
                ),
            ),
        )
        self.mine(funding)
        tree = small_tree(kind, feerate=feerate, funding_outpoint=funding.outpoint(0))
        self.signed: SignedTree = tree.with_signatures(signatures_of(tree))
        self.shown = Shown(tree, height=self.height)
        self.shown.heights[funding.txid] = self.height

    @property
    def height(self) -> int:
        return self.ledger.chain.tip.height

    def mine(self, *txs: Tx) -> None:
        tip = self.ledger.chain.tip
        block = build_block(
            tip, txs=txs, fees_sat=0, script_pubkey=OPEN_SCRIPT, time=tip.median_time + 1
        )
        self.ledger.connect(block)

    def mine_to(self, height: int) -> None:
        while self.height < height:
            self.mine()
        self.shown.height = self.height

    def publish(self, *names: str) -> None:
        for name in names:
            self.mine_to(self.height + self.signed.tree.node_by_name[name].delay_blocks)
            self.take(self.signed.txs[name])

    def take(self, tx: Tx) -> None:
        self.mine(tx)
        self.shown.confirm_tx(tx, height=self.height)
        self.shown.height = self.height

    def refuses(self, tx: Tx) -> bool:
        try:
            self.mine(tx)
        except BlockRefused:
            return True
        return False


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger(None, lambda: TIME)
    yield ledger
    ledger.close()


def test_the_funding_is_refused_at_the_tip_before_the_expiry_and_taken_at_it(
    ledger: Ledger,
) -> None:
    miner = Miner(ledger, "dw")
    miner.mine_to(EXPIRY - 1)
    assert miner.shown.actions() == []
    assert awaited(miner.shown.factory) == ()
    early = replace(miner.shown, height=EXPIRY).sweep("expiry_sweep funding")
    assert miner.refuses(signed(early)), "nLockTime T is final in block T + 1 (BIP 65)"
    assert miner.refuses(signed(replace(early, tx=replace(early.tx, nlocktime=EXPIRY - 1))))
    miner.mine_to(EXPIRY)
    sweep = miner.shown.sweep("expiry_sweep funding")
    miner.take(signed(sweep))
    assert miner.height == EXPIRY + 1
    assert miner.shown.actions() == []
    assert [(output.name, tx.txid) for output, tx in taken(miner.shown.factory)] == [
        ("funding", sweep.tx.txid)
    ]


@pytest.mark.parametrize(
    ("kind", "root_name", "feerate"),
    [
        ("static", "static_root", 500),
        # A kickoff is smaller than its sweep: at a dear tree's feerate, its fee and relay are too
        # little for what a miner collects from each weight.
        ("dw", "kickoff_root", 500),
        ("dw", "kickoff_root", 5_000),
    ],
)
def test_a_root_that_waits_in_the_mempool_is_replaced_on_the_cheapest_day(
    ledger: Ledger, kind: str, root_name: str, feerate: int
) -> None:
    miner = Miner(ledger, kind, feerate=feerate)
    miner.mine_to(EXPIRY)
    root = miner.signed.txs[root_name]
    ledger.submit(root)
    miner.shown.fees = OwnFees(fallback_sat_per_kw=25)
    sweep = miner.shown.sweep("expiry_sweep funding")
    cheaper = sweep_tx(sweep.output, payout_script=PAYOUT, fee_sat=sweep.fee_sat - 1)
    with pytest.raises(MempoolRefused, match="insufficient fee"):
        ledger.submit(signed(cheaper))
    assert root.txid in ledger.mempool
    ledger.submit(signed(sweep))
    assert root.txid not in ledger.mempool
    assert sweep.tx.txid in ledger.mempool


@pytest.mark.parametrize(
    ("kind", "published", "swept"),
    [
        ("static", ["static_root"], ["static_root:0", "static_root:1"]),
        ("dw", ["kickoff_root", "state_root"], ["state_root:0", "state_root:1"]),
        ("static", ["static_root", "kickoff_0", "state_0"], ["static_root:1"]),
    ],
)
def test_each_unspent_child_output_is_taken_at_the_level_that_the_tree_has_reached(
    ledger: Ledger, kind: str, published: Sequence[str], swept: Sequence[str]
) -> None:
    miner = Miner(ledger, kind)
    miner.publish(*published)
    miner.mine_to(EXPIRY - 1)
    due = [output for output in lsp_outputs(miner.shown.factory) if output.name in swept]
    for output in due:
        early = sweep_tx(output, payout_script=PAYOUT, fee_sat=500)
        assert miner.refuses(signed(early))
    miner.mine_to(EXPIRY)
    names = [f"expiry_sweep {name}" for name in swept]
    assert [name for name in miner.shown.actions() if name.startswith("expiry")] == names
    for name in names:
        miner.take(signed(miner.shown.sweep(name)))
    assert [name for name in miner.shown.actions() if name.startswith("expiry")] == []


def test_a_kickoff_that_is_stranded_is_followed_by_its_state_and_then_by_the_lstock(
    ledger: Ledger,
) -> None:
    miner = Miner(ledger, "static")
    miner.publish("static_root")
    miner.mine_to(EXPIRY - 1)
    miner.take(miner.signed.txs["kickoff_0"])
    assert miner.height == EXPIRY
    assert miner.shown.actions() == ["expiry_sweep static_root:1"], "its delay is not over"
    kickoff = miner.shown.tree.node_by_name["kickoff_0"]
    assert kickoff.tx.outpoint(0) not in {o.outpoint for o in lsp_outputs(miner.shown.factory)}
    state = miner.signed.txs["state_0"]
    miner.mine_to(EXPIRY + DELAY - 2)
    assert miner.refuses(state)
    miner.mine_to(EXPIRY + DELAY - 1)
    assert "state_0" in miner.shown.actions()
    miner.take(state)
    stock = next(one for one in lsp_outputs(miner.shown.factory) if not one.is_expiring)
    assert stock in awaited(miner.shown.factory)
    first = miner.height + CSV
    miner.mine_to(first - 2)
    assert "lstock_sweep" not in " ".join(miner.shown.actions())
    early = sweep_tx(stock, payout_script=PAYOUT, fee_sat=500)
    assert miner.refuses(signed(early)), "BIP 68: one block too early"
    miner.mine_to(first - 1)
    (name,) = (name for name in miner.shown.actions() if name.startswith("lstock_sweep"))
    sweep = miner.shown.sweep(name)
    assert sweep.tx.inputs[0].nsequence == CSV
    miner.take(signed(sweep))
    assert not any(name.startswith("lstock") for name in miner.shown.actions())


# What it does not take


def newer_state(tree: Tree, name: str) -> tuple[Tree, TreeNode]:
    """Return a tree in which a state was replaced, and that newer state."""
    vertex = tree.node_by_name[name].shape
    vertices = build_vertices(
        tree.root.vertices(),
        terms=tree.terms,
        factory_pubkeys=tree.factory_pubkeys,
        channels={client: channel_keys(client) for client in range(1, 5)},
        spends=tree.funding_output,
        outpoint=tree.funding_outpoint,
        state_indices={vertex.path: 1},
    )
    newer = replace(tree, vertices=vertices)
    return newer, next(node for node in newer.nodes if node.name.split()[0] == name)


def test_nothing_is_taken_of_a_state_that_was_superseded() -> None:
    old = small_tree("dw")
    newer, latest = newer_state(old, "state_0")
    superseded = old.node_by_name["state_0"].tx
    assert latest.tx.txid != superseded.txid
    path = ("kickoff_root", "state_root", "kickoff_0")
    right = Shown(newer, height=EXPIRY - 1).confirm(*path, latest.name)
    assert right.actions() == ["lstock_sweep state_0 v1:2"]
    wrong = Shown(newer, height=EXPIRY - 1).confirm(*path)
    wrong.confirm_tx(superseded, height=112)
    assert wrong.actions() == []
    wrong.height = EXPIRY + 2_000
    assert wrong.actions() == ["expiry_sweep state_root:1"], "the other leaf's, and no L-stock"


def test_of_a_superseded_inner_state_nothing_is_taken_either() -> None:
    old = small_tree("dw")
    newer, _ = newer_state(old, "state_root")
    wrong = Shown(newer, height=EXPIRY + 2_000).confirm("kickoff_root")
    wrong.confirm_tx(old.node_by_name["state_root"].tx, height=112)
    assert wrong.actions() == []
    assert awaited(wrong.factory) == ()


def test_before_the_expiry_only_a_state_whose_clock_runs_is_published_and_an_lstock_taken() -> None:
    shown = Shown(small_tree("dw"), height=EXPIRY - 1)
    assert shown.actions() == []
    shown.confirm("kickoff_root", "state_root", "kickoff_0")
    assert shown.actions() == ["state_0"]
    shown.confirm("state_0")
    assert shown.actions() == ["lstock_sweep state_0:2"]


def test_what_has_no_tapleaf_of_the_lsp_is_never_listed() -> None:
    shown = Shown(small_tree("dw")).confirm(*(node.name for node in small_tree("dw").nodes))
    assert {output.name for output in lsp_outputs(shown.factory)} == {
        "funding",
        "state_root:0",
        "state_root:1",
        "state_0:2",
        "state_1:2",
    }


# What it pays


def test_a_sweep_pays_the_days_rate_of_ones_own_node() -> None:
    dear = OwnFees(estimates=((2, 40_000), (144, 20_000)), mempool_min_sat_per_kw=750)
    sweep = Shown(small_tree("dw"), fees=dear).sweep("expiry_sweep funding")
    assert sweep.fee_sat == fee_sat_of(vsize=130, feerate_sat_per_kw=20_000)
    high = OwnFees(mempool_min_sat_per_kw=2_500)
    sweep = Shown(small_tree("dw"), fees=high).sweep("expiry_sweep funding")
    assert sweep.fee_sat == fee_sat_of(vsize=130, feerate_sat_per_kw=5_000)


def test_a_sweep_waits_while_its_node_says_what_nobody_should_believe() -> None:
    """It has no budget: at 1,200 sat/vB the LSP would burn most of what a factory held."""
    shown = Shown(small_tree("dw"), height=EXPIRY)
    for estimate in (BELIEVED_SAT_PER_KW + 1, 300_000, 2_500_000):
        shown.fees = OwnFees(estimates=((144, estimate),))
        assert shown.actions() == []
        (left,) = not_worth_its_fee(shown.factory)
        assert left.name == "funding"
    shown.fees = OwnFees(estimates=((2, 2_500_000), (144, BELIEVED_SAT_PER_KW)))
    assert shown.actions() == ["expiry_sweep funding"]


def test_on_a_cheap_day_it_still_pays_what_replaces_a_root_that_waits() -> None:
    cheap = OwnFees(fallback_sat_per_kw=25)
    shown = Shown(small_tree("dw"), fees=cheap)
    root = shown.tree.root_node
    sweep = shown.sweep("expiry_sweep funding")
    assert sweep.fee_sat == root.fee_sat + fee_sat_of(vsize=130, feerate_sat_per_kw=25)
    # An L-stock has no rival.
    shown.height = EXPIRY - 1
    shown.confirm("kickoff_root", "state_root", "kickoff_0", "state_0")
    stock = shown.sweep("lstock_sweep state_0:2")
    assert stock.fee_sat == fee_sat_of(vsize=stock.vsize, feerate_sat_per_kw=50)


def test_what_is_not_worth_its_fee_is_listed_and_taken_when_fees_fall() -> None:
    shown = Shown(small_tree("dw"), height=EXPIRY - 1)
    shown.confirm("kickoff_root", "state_root", "kickoff_0", "state_0")
    shown.fees = OwnFees(estimates=((144, 19_000),))  # 76 sat/vB: 9,880 of 10,000 sat.
    assert shown.actions() == []
    (left,) = not_worth_its_fee(shown.factory)
    assert (left.name, left.amount_sat) == ("state_0:2", 10_000)
    assert [output.name for output in awaited(shown.factory)] == ["state_0:2"]
    shown.fees = OwnFees(estimates=((144, 18_000),))
    assert shown.actions() == ["lstock_sweep state_0:2"]
    assert not_worth_its_fee(shown.factory) == ()


def test_a_sweep_that_leaves_an_output_just_large_enough_is_made() -> None:
    shown = Shown(small_tree("dw"), height=EXPIRY - 1)
    shown.confirm("kickoff_root", "state_root", "kickoff_0", "state_0")
    stock = shown.sweep("lstock_sweep state_0:2")
    most_sat = stock.prevout.amount_sat - 330
    paid = {
        fee_sat_of(vsize=stock.vsize, feerate_sat_per_kw=rate): rate
        for rate in range(18_000, 20_000)
    }
    shown.fees = OwnFees(estimates=((144, paid[most_sat]),))
    assert shown.sweep("lstock_sweep state_0:2").tx.outputs[0].amount_sat == 330
    shown.fees = OwnFees(estimates=((144, paid[most_sat + 1]),))
    assert shown.actions() == []


def test_what_expires_is_awaited_from_the_block_on_that_allows_it_in_the_next() -> None:
    shown = Shown(small_tree("dw"), height=EXPIRY - 1)
    assert (shown.factory.is_expired, awaited(shown.factory)) == (False, ())
    shown.height = EXPIRY
    assert shown.factory.is_expired
    assert [output.name for output in awaited(shown.factory)] == ["funding"]


def test_states_are_published_once_their_kickoff_is_deep_enough_and_only_then() -> None:
    shown = Shown(small_tree("dw")).confirm("kickoff_root", height=EXPIRY)
    assert shown.actions() == []
    shown.height = EXPIRY + DELAY - 1
    (action,) = lsp_actions(shown.factory)
    assert isinstance(action, PublishState)
    assert action.node.name == "state_root"
