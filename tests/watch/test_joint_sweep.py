"""What an LSP takes together: all that nobody else is after, and never what holds the rest up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import pytest
from tests.factory import oracle
from tests.watch.signed_factory import signatures_of
from tests.watch.test_lsp_sweep import (
    CSV,
    EXPIRY,
    OPEN_SCRIPT,
    TIME,
    Shown,
    signed,
    small_tree,
)

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto import schnorr
from cromford.regtest.kernel import BlockRefused
from cromford.regtest.ledger import Ledger
from cromford.regtest.template import build_block
from cromford.regtest.verdict import MempoolRefused
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees
from cromford.watch.joint_sweep import (
    N_JOINED_MAX,
    JointSweep,
    SignedJoint,
    SweepPlan,
    joint_sweep,
    plan_sweeps,
)
from cromford.watch.lsp_sweep import SweepTx, lsp_actions

CHEAP: Final = OwnFees(fallback_sat_per_kw=25)
DEAR: Final = OwnFees(estimates=((144, 10_000),))
STANDARD_WEIGHT_MAX: Final = 400_000


def signed_jointly(joint: JointSweep) -> Tx:
    """Sign every input as the LSP of the test keys."""
    key = oracle.seckey("factory", 0)
    return joint.signed(
        [
            schnorr.sign(
                taproot_sighash(
                    joint.tx,
                    prevouts=joint.prevouts,
                    input_index=index,
                    tapscript=member.output.tapleaf.script,
                ),
                key,
            )
            for index, member in enumerate(joint.members)
        ]
    )


def remembered(joint: JointSweep) -> SignedJoint:
    """Return what a house remembers of a joint sweep."""
    return SignedJoint(
        txid=joint.tx.txid,
        factories=tuple(range(len(joint.members))),
        outpoints=tuple(member.output.outpoint for member in joint.members),
        fee_sat=joint.fee_sat,
        weight=joint.weight,
        since_height=joint.since_height,
    )


class Street:
    """A chain of the kernel's with several factories on it, all funded by one transaction."""

    def __init__(
        self, ledger: Ledger, expiries: Sequence[int], *, feerates: Sequence[int] = ()
    ) -> None:
        self.ledger = ledger
        for _ in range(101):
            self.mine()
        coin = ledger.chain.at_height(1)
        assert coin is not None
        rates = feerates or [500] * len(expiries)
        drafts = [
            small_tree("static", feerate=rate, expiry_height=expiry)
            for rate, expiry in zip(rates, expiries, strict=True)
        ]
        funding = Tx(
            version=2,
            inputs=(
                TxIn(
                    outpoint=coin.block.txs[0].outpoint(0),
                    nsequence=0xFFFF_FFFF,
                    witness=(b"\x51",),
                ),
            ),
            outputs=tuple(
                TxOut(
                    amount_sat=draft.funding_amount_sat,
                    script_pubkey=draft.funding_output.script_pubkey,
                )
                for draft in drafts
            ),
        )
        self.mine(funding)
        self.trees = [
            small_tree(
                "static",
                feerate=rate,
                expiry_height=expiry,
                funding_outpoint=funding.outpoint(vout),
            )
            for vout, (rate, expiry) in enumerate(zip(rates, expiries, strict=True))
        ]
        self.shown = [Shown(tree, height=self.height) for tree in self.trees]
        for shown in self.shown:
            shown.heights[funding.txid] = self.height

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
        for shown in self.shown:
            shown.height = self.height

    def publish(self, place: int, *names: str) -> None:
        """Bring transactions of one tree into blocks."""
        tree = self.trees[place]
        txs = tree.with_signatures(signatures_of(tree)).txs
        for name in names:
            self.mine_to(self.height + tree.node_by_name[name].delay_blocks)
            self.mine(txs[name])
            self.shown[place].confirm_tx(txs[name], height=self.height)

    def root(self, place: int) -> Tx:
        tree = self.trees[place]
        return tree.with_signatures(signatures_of(tree)).txs["static_root"]

    def due(self, fees: OwnFees = CHEAP) -> list[SweepTx]:
        """Return what can be taken of all factories, in their order."""
        for shown in self.shown:
            shown.fees = fees
        actions = [action for shown in self.shown for action in lsp_actions(shown.factory)]
        return [action for action in actions if isinstance(action, SweepTx)]

    def plan(
        self,
        *,
        fees: OwnFees = CHEAP,
        spenders: dict[OutPoint, Txid] | None = None,
        known: Sequence[SignedJoint] = (),
    ) -> SweepPlan:
        return plan_sweeps(
            self.due(fees),
            spenders=spenders or {},
            known={joint.txid: joint for joint in known},
            height=self.height,
            fees=fees,
        )

    def refuses(self, tx: Tx) -> bool:
        try:
            self.mine(tx)
        except BlockRefused:
            return True
        return False

    def takes_from(self, cheapest_sat: int, tx_for: Callable[[int], Tx]) -> None:
        """Check that the mempool takes a transaction with this fee, and not with a satoshi less."""
        with pytest.raises(MempoolRefused, match="insufficient fee"):
            self.ledger.submit(tx_for(cheapest_sat - 1))
        self.ledger.submit(tx_for(cheapest_sat))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger(None, lambda: TIME)
    yield ledger
    ledger.close()


def with_fee(joint: JointSweep, fee_sat: int) -> Tx:
    """Return the same joint sweep, signed, with another fee."""
    amount_sat = sum(prevout.amount_sat for prevout in joint.prevouts) - fee_sat
    output = replace(joint.tx.outputs[0], amount_sat=amount_sat)
    return signed_jointly(replace(joint, tx=replace(joint.tx, outputs=(output,))))


def waiting_in(*joints: JointSweep) -> dict[OutPoint, Txid]:
    return {member.output.outpoint: joint.tx.txid for joint in joints for member in joint.members}


# The bytes


def test_outputs_of_several_expiries_and_an_lstock_are_taken_by_one_transaction(
    ledger: Ledger,
) -> None:
    street = Street(ledger, [EXPIRY, EXPIRY + 3, EXPIRY + 1, EXPIRY + 900])
    street.publish(3, "static_root", "kickoff_0", "state_0")
    assert street.height + CSV <= EXPIRY
    street.mine_to(EXPIRY + 2)
    early = joint_sweep(
        [*street.due(), replace(street.shown[1], height=EXPIRY + 3).sweep("expiry_sweep funding")],
        fees=CHEAP,
        since_height=street.height,
    )
    assert street.refuses(signed_jointly(early)), "one of them has not expired"
    street.mine_to(EXPIRY + 3)
    plan = street.plan(fees=DEAR)
    (joint,) = plan.joint
    assert (plan.alone, plan.parted) == ((), ())
    assert [member.name for member in joint.members] == [
        *["expiry_sweep funding"] * 3,
        "lstock_sweep state_0:2",
    ]
    tx = signed_jointly(joint)
    assert (tx.version, tx.nlocktime) == (2, EXPIRY + 3)
    assert [tx_in.nsequence for tx_in in tx.inputs] == [*[0xFFFF_FFFE] * 3, CSV]
    assert len(tx.outputs) == 1
    assert (sum(member.vsize for member in joint.members), joint.vsize) == (519, 356)
    assert joint.fee_sat == fee_sat_of(vsize=356, feerate_sat_per_kw=10_000)
    assert tx.vsize == 356
    assert not street.refuses(tx)


def test_no_input_of_a_joint_sweep_can_be_signed_for_another(ledger: Ledger) -> None:
    street = Street(ledger, [EXPIRY, EXPIRY])
    street.mine_to(EXPIRY)
    (joint,) = street.plan().joint
    first, second = (tx_in.witness for tx_in in signed_jointly(joint).inputs)
    crossed = joint.tx.with_witnesses((second[0], *first[1:]), (first[0], *second[1:]))
    assert street.refuses(crossed)


def test_the_first_ones_script_is_paid_and_one_alone_is_as_it_always_was(ledger: Ledger) -> None:
    street = Street(ledger, [EXPIRY, EXPIRY + 2])
    street.mine_to(EXPIRY)
    (alone,) = street.due()
    assert street.plan() == SweepPlan(alone=(alone,))
    street.mine_to(EXPIRY + 2)
    (joint,) = street.plan().joint
    assert joint.tx.outputs[0].script_pubkey == alone.tx.outputs[0].script_pubkey


def test_more_than_fifty_go_in_several_transactions_that_a_node_relays() -> None:
    sweep = Shown(small_tree("dw"), fees=DEAR).sweep("expiry_sweep funding")
    many = [
        replace(
            sweep,
            output=replace(
                sweep.output, outpoint=OutPoint(txid=sweep.output.outpoint.txid, vout=number)
            ),
        )
        for number in range(2 * N_JOINED_MAX + 1)
    ]
    plan = plan_sweeps(many, spenders={}, known={}, height=EXPIRY, fees=DEAR)
    assert [len(joint.members) for joint in plan.joint] == [50, 50]
    assert plan.alone == (many[-1],)
    assert max(joint.weight for joint in plan.joint) < STANDARD_WEIGHT_MAX // 20
    taken = [one for joint in plan.joint for one in joint.members] + list(plan.alone)
    assert taken == many


# What it pays


def test_on_a_cheap_day_it_pays_what_replaces_the_roots_of_all_its_members(
    ledger: Ledger,
) -> None:
    street = Street(ledger, [EXPIRY] * 3)
    street.mine_to(EXPIRY)
    for place in range(3):
        ledger.submit(street.root(place))
    (joint,) = street.plan().joint  # As by a node that has not seen the roots.
    roots_sat = sum(tree.root_node.fee_sat for tree in street.trees)
    assert joint.fee_sat == roots_sat + fee_sat_of(vsize=joint.vsize, feerate_sat_per_kw=25)
    street.takes_from(joint.fee_sat, lambda fee_sat: with_fee(joint, fee_sat))
    assert not any(street.root(place).txid in ledger.mempool for place in range(3))


def test_a_tree_that_is_far_dearer_than_the_others_goes_alone(ledger: Ledger) -> None:
    street = Street(ledger, [EXPIRY] * 3, feerates=[500, 25_000, 500])
    street.mine_to(EXPIRY)
    plan = street.plan()
    (joint,) = plan.joint
    funding = [tree.funding_outpoint for tree in street.trees]
    assert [member.output.outpoint for member in joint.members] == [funding[0], funding[2]]
    assert [sweep.output.outpoint for sweep in plan.alone] == [funding[1]]
    together = joint_sweep(street.due(), fees=CHEAP, since_height=street.height)
    assert together.fee_sat > sum(sweep.fee_sat for sweep in street.due())
    ledger.submit(street.root(1))
    ledger.submit(signed(plan.alone[0]))


# Who else is there


def test_only_what_a_rival_spends_goes_alone(ledger: Ledger) -> None:
    street = Street(ledger, [EXPIRY] * 3)
    street.mine_to(EXPIRY)
    rival = {street.trees[1].funding_outpoint: street.root(1).txid}
    plan = street.plan(spenders=rival)
    (joint,) = plan.joint
    assert [sweep.output.outpoint for sweep in plan.alone] == list(rival)
    assert not rival.keys() & {member.output.outpoint for member in joint.members}
    assert len(joint.members) == 2


def test_what_was_parted_never_goes_together_again(ledger: Ledger) -> None:
    street = Street(ledger, [EXPIRY] * 3)
    street.mine_to(EXPIRY)
    (joint,) = street.plan().joint
    refused = replace(remembered(joint), is_parted=True)
    assert street.plan(known=[refused]) == SweepPlan(alone=tuple(street.due()))


# What waits


def test_what_waits_stays_and_what_comes_due_meanwhile_goes_together_by_itself(
    ledger: Ledger,
) -> None:
    street = Street(ledger, [EXPIRY, EXPIRY, EXPIRY + 1, EXPIRY + 1])
    street.mine_to(EXPIRY)
    (first,) = street.plan().joint
    ledger.submit(signed_jointly(first))
    street.mine_to(EXPIRY + 1)
    plan = street.plan(known=[remembered(first)], spenders=waiting_in(first))
    (second,) = plan.joint
    assert plan.alone == ()
    assert {member.output.outpoint for member in second.members} == {
        tree.funding_outpoint for tree in street.trees[2:]
    }
    ledger.submit(signed_jointly(second))
    known = [remembered(first), remembered(second)]
    assert street.plan(known=known, spenders=waiting_in(first, second)) == SweepPlan()


def test_a_higher_rate_signs_what_waits_again_once_it_takes_its_place(ledger: Ledger) -> None:
    street = Street(ledger, [EXPIRY, EXPIRY])
    street.mine_to(EXPIRY)
    (first,) = street.plan(fees=DEAR).joint
    ledger.submit(signed_jointly(first))
    known, spenders = [remembered(first)], waiting_in(first)
    street.mine_to(EXPIRY + 5)
    for rate, is_signed in ((9_000, False), (10_000, False), (10_024, False), (10_025, True)):
        fees = OwnFees(estimates=((144, rate),))
        plan = street.plan(fees=fees, known=known, spenders=spenders)
        assert len(plan.joint) == is_signed, rate
    (again,) = plan.joint
    assert [tx_in.outpoint for tx_in in again.tx.inputs] == [
        tx_in.outpoint for tx_in in first.tx.inputs
    ]
    assert (again.since_height, plan.alone) == (EXPIRY, ())
    street.takes_from(again.fee_sat, lambda fee_sat: with_fee(again, fee_sat))
    refused = replace(remembered(again), is_parted=True)
    assert street.plan(fees=fees, known=[*known, refused], spenders=spenders) == SweepPlan()
    half = street.due(fees)[:1]
    by_txid = {joint.txid: joint for joint in known}
    quiet = plan_sweeps(half, spenders=spenders, known=by_txid, height=street.height, fees=fees)
    assert quiet == SweepPlan(), "a factory that says nothing keeps what waits as it is"


def test_after_a_day_in_vain_the_largest_takes_its_place_and_then_each_goes_alone(
    ledger: Ledger,
) -> None:
    street = Street(ledger, [EXPIRY] * 3)
    street.publish(2, "static_root")
    street.mine_to(EXPIRY)
    (joint,) = street.plan().joint
    ledger.submit(signed_jointly(joint))
    known, spenders = remembered(joint), waiting_in(joint)
    street.mine_to(EXPIRY + SWEEP_BLOCKS - 1)
    assert street.plan(known=[known], spenders=spenders) == SweepPlan()
    street.mine_to(EXPIRY + SWEEP_BLOCKS)
    plan = street.plan(known=[known], spenders=spenders)
    assert (plan.joint, plan.parted) == ((), (known.txid,))
    (largest,) = plan.alone
    amounts = [member.prevout.amount_sat for member in joint.members]
    assert largest.prevout.amount_sat == max(amounts) > min(amounts)
    with pytest.raises(MempoolRefused, match="insufficient fee"):
        ledger.submit(signed(street.due()[0]))
    ledger.submit(signed(largest))
    assert known.txid not in ledger.mempool
    parted = replace(known, is_parted=True)
    rest = street.plan(known=[parted], spenders={largest.output.outpoint: largest.tx.txid})
    assert rest == SweepPlan(alone=tuple(street.due()))
    for sweep in rest.alone:
        if sweep.output.outpoint != largest.output.outpoint:
            ledger.submit(signed(sweep))
    still = street.plan(known=[parted], spenders=spenders)
    assert (still.parted, still.alone) == ((), (largest,)), "it was not remembered a second time"


def test_what_is_too_small_to_take_its_place_leaves_it_as_it_is() -> None:
    shown = Shown(small_tree("dw"))
    sweep = shown.sweep("expiry_sweep funding")
    known = SignedJoint(
        txid=Txid(b"\x09" * 32),
        factories=(0,),
        outpoints=(sweep.output.outpoint,),
        fee_sat=sweep.prevout.amount_sat,
        weight=2_000,
        since_height=EXPIRY - SWEEP_BLOCKS,
    )
    plan = plan_sweeps(
        [sweep],
        spenders={sweep.output.outpoint: known.txid},
        known={known.txid: known},
        height=EXPIRY,
        fees=CHEAP,
    )
    assert plan == SweepPlan(parted=(known.txid,))
