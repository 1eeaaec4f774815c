"""Several factories expire together: their LSP takes them in one transaction."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from tests.protocol.late_mail import LatePump
from tests.protocol.pump import Pump
from tests.protocol.sleepers import lsp_state, sleeping
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.test_lsp_sweeps import SHORT
from tests.protocol.test_own_fees import asks
from tests.protocol.unanswered import mine_to, remove_blocks
from tests.simulation.sim_chain import SimRefused

from cromford import effects as fx
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.daemon.views import lsp as views
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.exiting.lsp import arriving_total_sat
from cromford.protocol.journal.exit_records import OutputsSwept
from cromford.protocol.journal.joint_sweeps import JOINTS_KEPT_MAX, with_joint_sweep
from cromford.protocol.journal.sweep_records import JointSweepParted, JointSweepWasSigned
from cromford.protocol.turn import StreamBug
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees

pytestmark = pytest.mark.sampled_file(4)

N_FACTORIES: Final = 3
ANYBODYS_SCRIPT: Final = b"\x00\x20" + sha256(b"\x51")
CHILD_SAT: Final = 6_000


def founded(pump: Pump | None = None) -> Pump:
    """Return three live factories of one expiry, and clients that see no block any more."""
    pump = pump or Pump(N_FACTORIES, policy=SHORT, watches_folds=True)
    for client in pump.clients:
        pump.join(client)
        pump.build()
        pump.run()
    pump.mine(pump.policy.min_depth)
    state = lsp_state(pump)
    assert len(state.factories) == N_FACTORIES
    assert len({entry.expiry_height for entry in state.house.factories()}) == 1
    pump.blind.update(client.name for client in pump.clients)
    return pump


def expiry_of(pump: Pump) -> int:
    return next(iter(lsp_state(pump).house.factories())).expiry_height


def funding_sat(pump: Pump) -> int:
    return sum(entry.funding_amount_sat for entry in lsp_state(pump).house.factories())


def outpoints(pump: Pump) -> list[OutPoint]:
    return [
        OutPoint(txid=entry.funding_txid, vout=0) for entry in lsp_state(pump).house.factories()
    ]


def statuses(pump: Pump) -> list[str]:
    state = lsp_state(pump)
    return [views.status_of(state.factory(number)) for number in range(N_FACTORIES)]


def takers(pump: Pump) -> list[Tx]:
    """Return what waits in the mempool and takes from the factories."""
    fundings = set(outpoints(pump))
    waiting = pump.chain.mempool.values()
    return [tx for tx in waiting if any(tx_in.outpoint in fundings for tx_in in tx.inputs)]


def told(pump: Pump, kind: type[Any]) -> list[Any]:
    return [record for record in pump.lsp.store.remembered if isinstance(record, kind)]


def root_of(pump: Pump, number: int) -> Tx:
    signed = lsp_state(pump).factory(number).attempt.signed
    assert signed is not None
    return signed.tree.txs[signed.tree.tree.root_node.name]


def publish_with_child(pump: Pump, root: Tx) -> Tx:
    """Let a client that is too late publish a root, and pay for it by a child."""
    pump.chain.fund(ANYBODYS_SCRIPT, 50_000)
    (source,) = pump.chain.blocks[-1][1]
    pump.chain.broadcast(root)
    (anchor,) = (
        vout for vout, out in enumerate(root.outputs) if out.script_pubkey == ANCHOR_SCRIPT
    )
    child = Tx(
        version=TRUC_VERSION,
        inputs=(
            TxIn(outpoint=root.outpoint(anchor), nsequence=0xFFFF_FFFD),
            TxIn(outpoint=source.outpoint(0), nsequence=0xFFFF_FFFD, witness=(b"\x51",)),
        ),
        outputs=(
            TxOut(
                amount_sat=50_000 + root.outputs[anchor].amount_sat - CHILD_SAT,
                script_pubkey=ANYBODYS_SCRIPT,
            ),
        ),
    )
    pump.chain.broadcast(child)
    return child


def refusing(
    pump: Pump,
    monkeypatch: pytest.MonkeyPatch,
    is_refused: Callable[[Tx], bool],
    reason: str = "insufficient fee, rejecting replacement",
) -> None:
    """Let the LSP's node refuse what a miner would."""
    broadcast = pump.chain.broadcast

    def picky(tx: Tx) -> None:
        if is_refused(tx):
            raise SimRefused(reason)
        broadcast(tx)

    monkeypatch.setattr(pump.chain, "broadcast", picky)


def check_all_is_in_the_wallet(pump: Pump, before_sat: int, *, fee_sat: int) -> None:
    assert statuses(pump) == ["swept"] * N_FACTORIES
    assert wallet_sat(pump.lsp) == before_sat + funding_sat(pump) - fee_sat
    assert sum(arriving_total_sat(factory) for factory in lsp_state(pump).all_factories()) == 0


def test_three_factories_that_expire_together_are_taken_by_one_transaction() -> None:
    pump = founded()
    before_sat = wallet_sat(pump.lsp)
    asks(pump, 2_500)  # 10 sat/vB: twice that is paid, more than what replaces three roots.
    mine_to(pump, expiry_of(pump))
    (joint,) = takers(pump)
    assert [tx_in.outpoint for tx_in in joint.inputs] == outpoints(pump)
    assert statuses(pump) == ["expired"] * N_FACTORIES
    for number in range(N_FACTORIES):
        (awaited,) = views.sweeping(lsp_state(pump).factory(number))
        assert awaited["name"] == "funding"
    pump.mine()
    (signed,) = told(pump, JointSweepWasSigned)
    fee_sat = fee_sat_of(vsize=joint.vsize, feerate_sat_per_kw=5_000)
    assert signed.fee_sat == fee_sat
    assert (joint.vsize, N_FACTORIES * 130) == (281, 390)
    check_all_is_in_the_wallet(pump, before_sat, fee_sat=fee_sat)
    entries = list(lsp_state(pump).house.factories())
    assert signed.attempt_ids == tuple(entry.attempt_id for entry in entries)
    swept = {
        (one.attempt_id, one.txid, one.amount_sat, one.outputs) for one in told(pump, OutputsSwept)
    }
    assert swept == {
        (entry.attempt_id, bytes(joint.txid), entry.funding_amount_sat, ("funding",))
        for entry in entries
    }
    n_wishes = len(pump.wished)
    pump.mine(8)
    later = [one.effect for one in pump.wished[n_wishes:]]
    assert not [one for one in later if isinstance(one, fx.LookUpSpenders | fx.SignJointSweep)]


@pytest.mark.sampled(0)
def test_while_it_waits_nothing_is_signed_or_published_again() -> None:
    pump = founded()
    mine_to(pump, expiry_of(pump))
    (joint,) = takers(pump)
    n_signed = len(pump.wishes(pump.lsp, fx.SignJointSweep))
    for _ in range(3):
        pump.chain.mempool.pop(joint.txid)  # No miner takes it yet.
        pump.chain.mine()
        pump.chain.broadcast(joint)
        pump.sync()
    pump.restart(pump.lsp)
    assert len(pump.wishes(pump.lsp, fx.SignJointSweep)) == n_signed
    assert takers(pump) == [joint]
    pump.mine()
    assert statuses(pump) == ["swept"] * N_FACTORIES


def test_a_rivals_root_with_a_child_keeps_out_its_own_input_alone() -> None:
    pump = founded()
    before_sat = wallet_sat(pump.lsp)
    mine_to(pump, expiry_of(pump) - 1)
    root = root_of(pump, 1)
    child = publish_with_child(pump, root)  # A block comes with its coin: the expiry.
    pump.sync()
    pump.run()
    joint, rival = sorted(takers(pump), key=lambda tx: -len(tx.inputs))
    first, second, third = outpoints(pump)
    assert [tx_in.outpoint for tx_in in joint.inputs] == [first, third]
    assert (rival.txid, rival.inputs[0].outpoint) == (root.txid, second)
    names = [wish.name for wish in pump.wishes(pump.lsp, fx.Broadcast)]
    assert names.count("expiry_sweep funding") == 1, "it is tried, and refused"
    pump.mine()
    assert child.txid in pump.chain.confirmed
    assert statuses(pump) == ["swept", "expired", "swept"]
    # The tree of that one goes on, down to what is the LSP's of it.
    left = lsp_state(pump).factory(1)
    state = next(node for node in left.attempt.tree.nodes if node.name == "state_root")
    pump.mine(state.delay_blocks + left.attempt.terms.lstock_csv_blocks + 2)
    assert arriving_total_sat(lsp_state(pump).factory(1)) == 0
    swept = {name for one in told(pump, OutputsSwept) for name in one.outputs}
    assert swept == {"funding", "state_root:1"}
    lstock_sat = sum(left.attempt.terms.lstock_sat)
    taken_sat = sum(lsp_state(pump).house.entry_of(number).funding_amount_sat for number in (0, 2))
    assert wallet_sat(pump.lsp) > before_sat + taken_sat + lstock_sat - 2_000


def test_what_is_refused_together_goes_alone_at_once_and_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = founded()
    mine_to(pump, expiry_of(pump) - 1)
    refusing(pump, monkeypatch, lambda tx: len(tx.inputs) > 1)
    pump.mine()
    (parted,) = told(pump, JointSweepParted)
    assert parted.reason == "refused: insufficient fee, rejecting replacement"
    assert [len(tx.inputs) for tx in takers(pump)] == [1] * N_FACTORIES
    monkeypatch.undo()
    pump.chain.mempool.clear()
    pump.restart(pump.lsp)
    assert [len(tx.inputs) for tx in takers(pump)] == [1] * N_FACTORIES
    pump.mine()
    assert statuses(pump) == ["swept"] * N_FACTORIES
    assert len(told(pump, JointSweepWasSigned)) == 1


@pytest.mark.parametrize(
    "reason",
    [
        "mempool min fee not met, 281 < 1405",
        "min relay fee not met, 281 < 1405",
        "mempool full",
        "non-final",
        "non-BIP68-final",
    ],
)
def test_what_is_refused_for_what_passes_is_tried_together_again(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a reason says nothing of one input, and each alone would hear the same."""
    pump = founded()
    mine_to(pump, expiry_of(pump) - 1)
    refusing(pump, monkeypatch, lambda tx: len(tx.inputs) > 1, reason)
    pump.mine(2)
    assert takers(pump) == []
    monkeypatch.undo()
    pump.mine()
    assert [len(tx.inputs) for tx in takers(pump)] == [N_FACTORIES]
    assert told(pump, JointSweepParted) == []
    pump.mine()
    assert statuses(pump) == ["swept"] * N_FACTORIES


@pytest.mark.sampled(0)
def test_what_a_miner_does_not_take_for_a_day_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mempool has a rival that the LSP's node never heard of."""
    pump = founded()
    is_final = pump.chain._is_final
    mine_to(pump, expiry_of(pump) - 1)
    second = outpoints(pump)[1]
    monkeypatch.setattr(
        pump.chain,
        "_is_final",
        lambda tx: is_final(tx) and second not in {tx_in.outpoint for tx_in in tx.inputs},
    )
    broadcast = pump.chain.broadcast

    def replacing(tx: Tx) -> None:
        """Take it though a timelock is said not to be over, in the place of what it replaces."""
        spent = {tx_in.outpoint for tx_in in tx.inputs}
        for other in list(pump.chain.mempool.values()):
            rivals = spent & {tx_in.outpoint for tx_in in other.inputs}
            if rivals and other.txid != tx.txid and other.version == tx.version:
                if pump.chain.fee_sat(tx) <= pump.chain.fee_sat(other):
                    raise SimRefused("insufficient fee, rejecting replacement")
                del pump.chain.mempool[other.txid]
        if second in spent:
            pump.chain.mempool[tx.txid] = tx
        else:
            broadcast(tx)

    monkeypatch.setattr(pump.chain, "broadcast", replacing)
    pump.mine()
    (joint,) = takers(pump)
    pump.mine(SWEEP_BLOCKS - 1)
    assert takers(pump) == [joint]
    pump.mine()
    (parted,) = told(pump, JointSweepParted)
    assert (parted.txid, parted.reason) == (bytes(joint.txid), "it waited for a day")
    pump.mine(3)
    assert statuses(pump) == ["swept", "expired", "swept"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("fuse", range(1, 9))
def test_an_lsp_that_dies_on_the_way_takes_them_together_all_the_same(fuse: int) -> None:
    pump = founded()
    before_sat = wallet_sat(pump.lsp)
    mine_to(pump, expiry_of(pump) - 1)
    pump.lsp.fuse = fuse
    pump.mine()
    has_died = pump.lsp.n_deaths == 1
    pump.lsp.fuse = None
    (joint,) = takers(pump)
    assert len(joint.inputs) == N_FACTORIES
    pump.mine()
    (signed,) = told(pump, JointSweepWasSigned)
    assert has_died == (fuse <= 5)
    check_all_is_in_the_wallet(pump, before_sat, fee_sat=signed.fee_sat)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("is_kept", [False, True])
def test_a_joint_sweep_that_a_reorganisation_takes_back_is_made_again(
    is_kept: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    pump = founded()
    before_sat = wallet_sat(pump.lsp)
    mine_to(pump, expiry_of(pump))
    (joint,) = takers(pump)
    pump.mine(3)
    assert statuses(pump) == ["swept"] * N_FACTORIES
    remove_blocks(pump, 3)
    assert statuses(pump) == ["expired"] * N_FACTORIES
    if is_kept:
        pump.chain.broadcast(joint)  # As a node does with what was in a block.
    pump.restart(pump.lsp)
    assert [tx.txid for tx in takers(pump)] == [joint.txid]
    pump.mine()
    (signed,) = told(pump, JointSweepWasSigned)
    check_all_is_in_the_wallet(pump, before_sat, fee_sat=signed.fee_sat)


def test_a_house_that_starts_from_its_checkpoint_knows_its_own_sweep() -> None:
    pump = founded()
    mine_to(pump, expiry_of(pump))
    (joint,) = takers(pump)
    known = lsp_state(pump).house.joint_sweeps
    assert list(known) == [joint.txid]
    pump.lsp.checkpoint()
    pump.restart(pump.lsp)
    assert lsp_state(pump).house.joint_sweeps == known
    assert len(pump.wishes(pump.lsp, fx.SignJointSweep)) == 1


def test_only_the_newest_joint_sweeps_are_known() -> None:
    pump = founded()
    mine_to(pump, expiry_of(pump))
    (signed,) = told(pump, JointSweepWasSigned)
    known = lsp_state(pump).house.joint_sweeps
    tx = Tx.parse(signed.tx)
    for fee_sat in range(1_000, 1_000 + JOINTS_KEPT_MAX):
        cheaper = replace(tx, outputs=(replace(tx.outputs[0], amount_sat=fee_sat),))
        again = msgspec.structs.replace(signed, tx=cheaper.serialize(), fee_sat=fee_sat)
        known = with_joint_sweep(known, again)
    assert tx.txid not in known
    assert [joint.fee_sat for joint in known.values()] == [*range(1_000, 1_000 + JOINTS_KEPT_MAX)]
    forgotten = JointSweepParted(txid=tx.txid, reason="")
    assert with_joint_sweep(known, forgotten) == known


@pytest.mark.sampled(0)
def test_factories_that_sleep_wake_and_are_taken_together() -> None:
    pump = founded()
    for client in pump.clients:
        pump.disconnect(client)
    pump.run()
    pump.lsp.checkpoint()
    assert sleeping(pump) == set(range(N_FACTORIES))
    mine_to(pump, expiry_of(pump))
    (joint,) = takers(pump)
    assert len(joint.inputs) == N_FACTORIES
    pump.mine(8)
    pump.lsp.checkpoint()
    assert sleeping(pump) == set(range(N_FACTORIES))
    assert statuses(pump) == ["swept"] * N_FACTORIES


def test_a_bug_in_one_factory_keeps_no_other_from_its_money() -> None:
    pump = founded()
    mine_to(pump, expiry_of(pump))
    asked = pump.wishes(pump.lsp, fx.LookUpSpenders)[-1]
    assert asked == fx.LookUpSpenders(
        factories=tuple(range(N_FACTORIES)), outpoints=tuple(outpoints(pump))
    )
    fault = StreamBug("factory:1", AssertionError("a bug"))
    state = lsp_role.stop(lsp_state(pump), fault)
    assert state is not None
    decision = lsp_role.decide(state, ev.SpendersLookedUp(asked=asked, spenders=()))
    (joint,) = (one for one in decision.effects if isinstance(one, fx.SignJointSweep))
    assert [key.attempt for key in joint.keys] == [0, 2]


def test_what_was_taken_since_the_mempool_was_asked_is_not_taken_again() -> None:
    pump = founded()
    mine_to(pump, expiry_of(pump) + 1)
    asked = pump.wishes(pump.lsp, fx.LookUpSpenders)[-1]
    late = ev.SpendersLookedUp(asked=asked, spenders=())
    assert lsp_role.decide(lsp_state(pump), late).is_nothing


def test_mail_that_comes_late_keeps_nothing_from_the_wallet() -> None:
    pump = founded(LatePump(N_FACTORIES, policy=SHORT, seed=1))
    mine_to(pump, expiry_of(pump) + 1)
    assert statuses(pump) == ["swept"] * N_FACTORIES


def test_one_that_pays_more_and_is_refused_leaves_what_waits_as_it_is() -> None:
    pump = founded()
    mine_to(pump, expiry_of(pump))
    (first,) = takers(pump)
    pump.lsp.fees = OwnFees(estimates=((144, 2_500),))
    del pump.chain.mempool[first.txid]  # No miner takes it yet.
    pump.chain.mine()
    pump.chain.broadcast(first)
    dear = replace(pump.chain.relay, incremental_sat_per_kw=1_000_000)
    pump.chain.relay = dear  # Nothing takes the place of another that spends its coin.
    pump.sync()
    again = told(pump, JointSweepWasSigned)[-1]
    (parted,) = told(pump, JointSweepParted)
    assert parted.txid == bytes(Tx.parse(again.tx).txid) != bytes(first.txid)
    assert again.fee_sat == fee_sat_of(vsize=281, feerate_sat_per_kw=2_500)
    names = [wish.name for wish in pump.wishes(pump.lsp, fx.Broadcast)]
    assert "expiry_sweep funding" not in names
    assert takers(pump) == [first]
    pump.mine()
    assert statuses(pump) == ["swept"] * N_FACTORIES


# One decision each


@pytest.fixture(scope="module")
def due() -> Pump:
    """Return a world in which all expired, and one transaction that takes all of it waits."""
    pump = founded()
    mine_to(pump, expiry_of(pump))
    return pump


def test_only_what_the_mempool_was_asked_about_is_taken(due: Pump) -> None:
    """Of what became due since then nobody knows who is after it."""
    asked = due.wishes(due.lsp, fx.LookUpSpenders)[-1]
    fewer = replace(asked, outpoints=asked.outpoints[:2])
    answer = ev.SpendersLookedUp(asked=fewer, spenders=())
    decision = lsp_role.decide(lsp_state(due), answer)
    (joint,) = decision.effects
    assert isinstance(joint, fx.SignJointSweep)
    assert [key.attempt for key in joint.keys] == [0, 1]


def test_what_is_signed_again_is_published_again_and_remembered_once(due: Pump) -> None:
    (made,) = due.lsp.perform(due.wishes(due.lsp, fx.SignJointSweep)[-1])
    assert isinstance(made, ev.JointSweepSigned)
    decision = lsp_role.decide(lsp_state(due), made)
    assert decision.records == ()
    assert decision.effects == (fx.Broadcast(name="joint_sweep", tx=made.tx),)


def test_what_is_refused_together_is_parted_once(due: Pump) -> None:
    (joint,) = takers(due)

    def refused(state: Any, tx: Tx, reason: str) -> Any:
        asked = fx.Broadcast(name="joint_sweep", tx=tx)
        return lsp_role.decide(state, ev.BroadcastRefused(asked=asked, reason=reason))

    def parted(decision: Any) -> list[bytes]:
        return [one.txid for one in decision.records if isinstance(one, JointSweepParted)]

    state = lsp_state(due)
    assert parted(refused(state, joint, "mempool full")) == []
    assert parted(refused(state, root_of(due, 0), "bad-txns-inputs-missingorspent")) == []
    first = refused(state, joint, "bad-txns-inputs-missingorspent")
    assert parted(first) == [bytes(joint.txid)]
    assert [one for one in first.effects if isinstance(one, fx.LookUpSpenders)]
    again = refused(first.state, joint, "bad-txns-inputs-missingorspent")
    assert parted(again) == []
    assert not [one for one in again.effects if isinstance(one, fx.LookUpSpenders)]
