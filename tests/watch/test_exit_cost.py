"""What leaving gives, told beforehand; and what is refused before anything is reckoned."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.channel.specimen import payment_hash, preimage
from tests.watch.channel_world import (
    FEERATE_SAT_PER_KW,
    PAYOUTS,
    ZERO_FEE,
    Side,
    World,
    coins_sat,
    fee_of,
    flat,
    fresh_world,
    knowing,
    pair_of,
    peers,
    publish,
    revoked,
    settle,
)

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.terms import Party
from cromford.watch.channel_exit import (
    AwaitPreimage,
    NeedsChild,
    PublishCommitment,
    channel_actions,
    outpoints_of_interest,
)
from cromford.watch.exit_cost import exit_cost_of
from cromford.watch.landed import LandedChannel
from cromford.watch.sweep import TakingTx

LEAVERS = pytest.mark.parametrize("leaver", list(Party), ids=lambda party: party.name.lower())
DELAYS = {Party.OPENER: 5, Party.ACCEPTER: 8}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with fresh_world() as world:
        yield world


@LEAVERS
@pytest.mark.parametrize("known", [(), (0, 1, 4), tuple(range(8))])
@pytest.mark.parametrize("feerate", [25, 777, 5_000])
def test_leaving_costs_and_gives_what_was_told(
    world: World, leaver: Party, known: tuple[int, ...], feerate: int
) -> None:
    pair = pair_of(world, leaver)
    side = pair.leaver
    side.preimages, side.feerate_sat_per_kw = knowing(*known), feerate
    landed_height = world.tip_height
    told = exit_cost_of(
        side.finished,
        landed_height=landed_height,
        fees=flat(feerate),
        preimages=side.preimages,
    )
    settle(world, side)

    commitment = side.finished.commitment
    txs = {
        tx.txid: tx
        for vout in range(len(commitment.outputs))
        for tx in world.spent_from(commitment.tx.outpoint(vout))
    }
    txs[side.finished.tx.txid] = side.finished.tx
    outputs = {commitment.funding.outpoint: commitment.funding.txout}
    for tx in txs.values():
        outputs |= {tx.outpoint(vout): txout for vout, txout in enumerate(tx.outputs)}
    seen = [
        (tx.vsize, fee_of(tx, outputs), world.heights[txid] - landed_height)
        for txid, tx in txs.items()
    ]
    assert sorted(seen) == sorted((one.vsize, one.fee_sat, one.delay_blocks) for one in told.steps)
    assert told.remainder_sat == sum(coins_sat(side))
    assert told.left_behind == side.left()


def test_leaving_without_htlcs_is_a_commitment_and_a_sweep(world: World) -> None:
    pair = pair_of(world, Party.ACCEPTER, has_htlcs=False)
    told = exit_cost_of(
        pair.leaver.finished,
        landed_height=800_000,
        fees=flat(FEERATE_SAT_PER_KW),
        preimages={},
    )
    assert [(one.name, one.delay_blocks) for one in told.steps] == [("commitment", 1), ("sweep", 9)]
    commitment, sweep = told.steps
    assert (commitment.vsize, commitment.fee_sat) == (167, 334)
    assert told.remainder_sat == 400_000 - sweep.fee_sat
    assert told.left_behind == ()


# --- the published type ---


def test_the_published_type_says_that_its_transactions_need_children(world: World) -> None:
    pair = pair_of(world, Party.OPENER, terms=ZERO_FEE)
    side = pair.leaver
    side.preimages = knowing(4)
    told = exit_cost_of(side.finished, landed_height=1, fees=flat(25), preimages={})
    commitment, *_, sweep = told.steps
    assert (commitment.name, commitment.fee_sat, commitment.is_agreed) == ("commitment", 0, True)
    assert (sweep.is_agreed, sweep.fee_sat > 0) == (False, True)
    assert side.actions() == (NeedsChild(due=PublishCommitment(tx=side.finished.tx)),)

    landed = landed_by_hand(side, {}, tip_height=pair.expiry)
    names = [
        action.due.name
        for action in channel_actions(landed)
        if isinstance(action, NeedsChild) and isinstance(action.due, TakingTx)
    ]
    assert sorted(names) == ["htlc_success accepter 0", "htlc_timeout opener 0"]


def landed_by_hand(side: Side, spends: dict[OutPoint, Tx], *, tip_height: int) -> LandedChannel:
    """Return the channel as if its commitment and these had been mined now."""
    commitment = side.finished.commitment
    spends = {commitment.funding.outpoint: side.finished.tx, **spends}
    heights = {tx.txid: side.world.tip_height for tx in spends.values()}
    return replace(side.channel(), spends=spends, heights=heights, tip_height=tip_height)


def test_merged_htlc_transactions_of_the_published_type_are_swept_output_by_output(
    world: World,
) -> None:
    side = pair_of(world, Party.OPENER, terms=ZERO_FEE).leaver
    parts = [part for part in htlc_txs(side.finished.commitment) if not part.is_offered]
    merged = Tx(
        version=3,
        inputs=tuple(part.tx.inputs[0] for part in parts),
        outputs=tuple(part.tx.outputs[0] for part in parts),
    )
    spends = {tx_in.outpoint: merged for tx_in in merged.inputs}
    later = landed_by_hand(side, spends, tip_height=world.tip_height + DELAYS[Party.OPENER])
    [sweep] = [one for one in channel_actions(later) if isinstance(one, TakingTx)]
    swept = {one.outpoint for one in sweep.tx.inputs}
    assert {merged.outpoint(place) for place in range(len(parts))} < swept
    assert {merged.outpoint(place) for place in range(len(parts))} < set(
        outpoints_of_interest(later)
    )


@pytest.mark.parametrize("n_outputs", [0, 3])
def test_an_htlc_that_went_elsewhere_leaves_nothing_to_sweep(world: World, n_outputs: int) -> None:
    side = pair_of(world, Party.OPENER, terms=ZERO_FEE).leaver
    parts = [part for part in htlc_txs(side.finished.commitment) if part.is_offered]
    elsewhere = TxOut(amount_sat=1_000, script_pubkey=PAYOUTS[Party.ACCEPTER])
    taken = Tx(
        version=2,
        inputs=tuple(part.tx.inputs[0] for part in parts),
        outputs=(elsewhere,) * n_outputs,
    )
    spends = {tx_in.outpoint: taken for tx_in in taken.inputs}
    later = landed_by_hand(side, spends, tip_height=world.tip_height + DELAYS[Party.OPENER])
    assert [type(one) for one in channel_actions(later)] == [AwaitPreimage] * 4 + [TakingTx]


# --- what contradicts itself ---


def test_what_is_known_must_fit_together(world: World) -> None:
    pair = pair_of(world, Party.OPENER)
    publish([pair.leaver])
    world.mine()
    known = pair.leaver.channel()
    tx = pair.leaver.finished.tx
    own = pair.leaver.finished.commitment
    other = OutPoint(txid=Txid(bytes(32)), vout=0)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"peer_commitments": (peers(own),)}, "commitment of the peer"),
        ({"revoked": revoked(own)}, "commitment of the peer"),
        ({"preimages": {payment_hash(0): preimage(1)}}, "preimages"),
        ({"spends": {other: tx}}, "does not spend"),
        ({"heights": {}}, "heights"),
        ({"payout_script": b"\x00\x14" + bytes(20)}, "payout_script"),
    ]
    for change, field in wrong:
        with pytest.raises(ValueError, match=field):
            replace(known, **change)


def test_a_spend_wants_one_signature_for_each_input(world: World) -> None:
    pair = pair_of(world, Party.OPENER, has_htlcs=False)
    publish([pair.leaver])
    world.mine()
    [spend] = pair.other.actions()
    assert isinstance(spend, TakingTx)
    with pytest.raises(ValueError, match="argument"):
        spend.signed([])
