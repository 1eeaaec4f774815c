"""A peer that publishes what it revoked loses everything, whatever it made of it meanwhile."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.channel.specimen import payment_hash
from tests.simulation.seeds import seeds
from tests.watch.channel_world import (
    FEERATE_SAT_PER_KW,
    KEYS,
    PAYOUTS,
    TERMS,
    Side,
    World,
    assert_adds_up,
    built,
    coins,
    coins_sat,
    flat,
    fresh_world,
    held_of,
    htlcs_of,
    knowing,
    peers,
    publish,
    revoked,
    settle,
)

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, P2TR_DUST_SAT, fee_sat_of
from cromford.channel.commitment import CommitmentOutputKind, commitment_number_of
from cromford.channel.content import Htlc
from cromford.channel.terms import ChannelTerms, Party
from cromford.daemon.views.exit import next_of_channel
from cromford.regtest.verdict import MempoolRefused
from cromford.watch.channel_exit import Unrecognised, Wait, preimages_seen
from cromford.watch.feerates import LAST_BLOCKS, OwnFees
from cromford.watch.sweep import TakingTx

CHEATERS = pytest.mark.parametrize("cheater", list(Party), ids=lambda party: party.name.lower())
DELAYS = {Party.OPENER: 5, Party.ACCEPTER: 8}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with fresh_world() as world:
        yield world


@dataclass(frozen=True)
class Fraud:
    cheater: Side
    honest: Side
    expiry: int

    @property
    def n_htlc_outputs(self) -> int:
        return sum(one.htlc is not None for one in self.cheater.finished.commitment.outputs)


def fraud_of(
    world: World,
    cheater: Party,
    *,
    in_blocks: int = 20,
    htlcs: list[Htlc] | None = None,
    terms: ChannelTerms = TERMS,
) -> Fraud:
    """Return a cheater that holds commitment 4, which it has revoked, and both latest ones."""
    funding = world.funded()
    expiry = world.tip_height + in_blocks
    pending = htlcs_of(expiry) if htlcs is None else htlcs
    old = built(funding, cheater, pending, number=4, terms=terms)
    latest = built(funding, cheater, terms=terms)
    own = built(funding, cheater.other, terms=terms)
    return Fraud(
        cheater=Side(world, held_of(old), (peers(own),), is_leaving=True),
        honest=Side(world, held_of(own), (peers(latest),), revoked(old)),
        expiry=expiry,
    )


def assert_punished(world: World, fraud: Fraud) -> None:
    """Assert that everything but anchors and fees is the honest party's."""
    assert coins(fraud.cheater) == []
    assert fraud.honest.actions() == ()
    fees_sat = assert_adds_up(world, fraud.honest)
    n_anchors = sum(
        tx.version == 3
        for tx in world.spent_from(fraud.honest.finished.commitment.funding.outpoint)
    )
    assert sum(coins_sat(fraud.honest)) == 1_000_000 - fees_sat - 240 * n_anchors


@CHEATERS
def test_every_output_of_a_revoked_commitment_is_taken_at_once(
    world: World, cheater: Party
) -> None:
    fraud = fraud_of(world, cheater)
    publish([fraud.cheater])
    world.mine()
    height = world.tip_height
    settle(world, fraud.honest)

    assert world.tip_height == height + 1
    assert_punished(world, fraud)
    commitment = fraud.cheater.finished.commitment
    got = []
    for vout, output in enumerate(commitment.outputs):
        if output.kind is CommitmentOutputKind.ANCHOR:
            continue
        tx = world.spenders[commitment.tx.outpoint(vout)]
        assert tx.nlocktime == 0
        assert all(len(tx_in.witness) == 1 for tx_in in tx.inputs)  # Key paths.
        got.append((tx.outpoint(0), tx.outputs[0]))
    assert set(got) == set(coins(fraud.honest))


@CHEATERS
def test_what_a_cheater_made_of_htlcs_is_taken_too(world: World, cheater: Party) -> None:
    fraud = fraud_of(world, cheater)
    fraud.cheater.preimages = knowing(*range(8))
    publish([fraud.cheater])
    world.mine()
    assert publish([fraud.cheater])  # HTLC-success of all it accepted.
    world.mine()
    assert preimages_seen(fraud.honest.channel()) == knowing(
        *range(4 * cheater.other, 4 * cheater.other + 3)
    )
    [penalty] = [one for one in fraud.honest.actions() if one_name(one) == "penalty"]
    assert isinstance(penalty, TakingTx)
    # Before the cheater's expiries and delays are over, only the honest party can take these: its
    # balance, the three it has not touched, and what it made of the other three.
    assert len(penalty.inputs) == 1 + 3 + 3
    [own] = [one for one in fraud.honest.actions() if one_name(one) == "sweep"]
    assert isinstance(own, TakingTx)
    assert len(own.inputs) == 1  # What is its own anyway pays nothing for the race.
    settle(world, fraud.honest)
    assert_punished(world, fraud)


def one_name(action: object) -> str:
    return action.name if isinstance(action, TakingTx | Wait) else ""


@CHEATERS
def test_what_a_cheater_made_of_an_htlc_is_swept_alone_once_its_delay_is_over(
    world: World, cheater: Party
) -> None:
    """From then on the cheater may take it, and its transaction would keep others out."""
    fraud = fraud_of(world, cheater)
    fraud.cheater.preimages = knowing(*range(8))
    publish([fraud.cheater])
    world.mine()
    assert publish([fraud.cheater])  # HTLC-success of all it accepted.
    world.mine()
    made_height = world.tip_height
    # The block that may hold the cheater's own sweep is the last one that is left to wait.
    world.mine(DELAYS[cheater] - 2)
    assert world.tip_height + 1 == made_height + DELAYS[cheater] - 1
    assert penalties_of_outputs(fraud) == []
    world.mine()
    alone = penalties_of_outputs(fraud)
    assert [len(penalty.inputs) for penalty in alone] == [1, 1, 1]
    heights = {fraud.honest.channel().heights[one.inputs[0].outpoint.txid] for one in alone}
    assert heights == {made_height}
    settle(world, fraud.honest)
    assert_punished(world, fraud)


def penalties_of_outputs(fraud: Fraud) -> list[TakingTx]:
    """Return the penalties that are only for what an HTLC transaction made."""
    spends = [action for action in fraud.honest.actions() if isinstance(action, TakingTx)]
    return [spend for spend in spends if spend.name.endswith(" output")]


@CHEATERS
def test_htlc_timeouts_of_a_cheater_are_punished_when_the_honest_party_comes_late(
    world: World, cheater: Party
) -> None:
    fraud = fraud_of(world, cheater, in_blocks=2)
    publish([fraud.cheater])
    world.mine(4)
    assert publish([fraud.cheater])
    world.mine()
    settle(world, fraud.honest)
    commitment = fraud.cheater.finished.commitment
    spenders = {
        world.spenders[commitment.tx.outpoint(vout)].version
        for vout, output in enumerate(commitment.outputs)
        if output.kind is CommitmentOutputKind.OFFERED_HTLC
    }
    assert spenders == {3}  # HTLC-timeouts, each of them.
    assert_punished(world, fraud)


@CHEATERS
def test_what_a_cheater_could_take_meanwhile_is_gone_and_the_rest_is_not(
    world: World, cheater: Party
) -> None:
    fraud = fraud_of(world, cheater)
    publish([fraud.cheater])
    world.mine(DELAYS[cheater])
    balance = next(
        one.amount_sat
        for one in fraud.cheater.finished.commitment.outputs
        if one.kind is CommitmentOutputKind.TO_HOLDER
    )
    names = {one_name(action) for action in fraud.honest.actions()}
    assert "penalty to_local" in names  # From now on the cheater may take it: not with others.
    [tx] = fraud.cheater.due()
    world.submit(tx)
    world.mine()
    settle(world, fraud.honest)
    fee_sat = fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=FEERATE_SAT_PER_KW)
    assert coins_sat(fraud.cheater) == [balance - fee_sat]
    assert fraud.honest.actions() == ()
    fees_sat = assert_adds_up(world, fraud.honest, fraud.cheater)
    assert sum(coins_sat(fraud.honest)) == 1_000_000 - 240 - fees_sat - (balance - fee_sat)


@CHEATERS
def test_a_revoked_commitment_is_found_by_its_number_and_then_punished(
    world: World, cheater: Party
) -> None:
    fraud = fraud_of(world, cheater)
    known, fraud.honest.revoked = fraud.honest.revoked, None
    publish([fraud.cheater])
    world.mine()
    [action] = fraud.honest.actions()
    assert isinstance(action, Unrecognised)
    assert commitment_number_of(action.tx, KEYS) == 4
    fraud.honest.revoked = known
    settle(world, fraud.honest)
    assert_punished(world, fraud)


@pytest.mark.parametrize("seed", seeds(6))
def test_punishing_that_stops_and_goes_takes_all_that_the_cheater_did_not(
    world: World, seed: int
) -> None:
    """Both get some of their transactions out at each block, the cheater before its delay."""
    dice = random.Random(seed)
    cheater = Party(seed % 2)
    fraud = fraud_of(world, cheater, in_blocks=3)
    fraud.cheater.preimages = knowing(*range(8))
    publish([fraud.cheater])
    world.mine()
    for _ in range(DELAYS[cheater] - 2):
        for side in dice.sample((fraud.cheater, fraud.honest), 2):
            for tx in side.due():
                is_rivalled = any(one.outpoint in world.pending for one in tx.inputs)
                if not is_rivalled and dice.random() < 0.3:
                    world.submit(tx)
        world.mine()
    settle(world, fraud.honest)
    assert_punished(world, fraud)


@settings(max_examples=25)
@given(
    mix=st.lists(
        st.tuples(st.sampled_from(Party), st.integers(1, 40_000_000), st.integers(0, 40)),
        max_size=8,
    ),
    cheater=st.sampled_from(Party),
    known=st.lists(st.integers(0, 7), unique=True),
)
def test_any_revoked_commitment_is_taken_whole(
    world: World, mix: list[tuple[Party, int, int]], cheater: Party, known: list[int]
) -> None:
    htlcs = [
        Htlc(
            offered_by=offered_by,
            htlc_id=n,
            amount_msat=amount_msat,
            payment_hash=payment_hash(n),
            cltv_expiry=world.tip_height + in_blocks,
        )
        for n, (offered_by, amount_msat, in_blocks) in enumerate(mix)
    ]
    fraud = fraud_of(world, cheater, htlcs=htlcs)
    fraud.cheater.preimages = knowing(*known)
    for _ in range(2):
        publish([fraud.cheater])
        world.mine()
    settle(world, fraud.honest)
    assert_punished(world, fraud)
    assert {txout.script_pubkey for _, txout in coins(fraud.honest)} == {PAYOUTS[cheater.other]}


# --- what a penalty pays ---

DEAR: Final = 750  # 3 sat/vB: what a mempool asks for that is fuller than the terms foresaw.


def penalty_of(side: Side) -> TakingTx:
    (penalty,) = (one for one in side.actions() if one_name(one) == "penalty")
    assert isinstance(penalty, TakingTx)
    return penalty


@CHEATERS
@pytest.mark.parametrize("terms_feerate", [27, 500])
def test_on_a_chain_dearer_than_the_terms_the_cheated_still_ends_with_everything(
    cheater: Party, terms_feerate: int
) -> None:
    """At the terms' 0.1 sat/vB, or 2, a mempool that asks for 3 does not hear of a penalty."""
    with fresh_world() as world:
        fraud = fraud_of(world, cheater, terms=replace(TERMS, feerate_per_kw=terms_feerate))
        publish([fraud.cheater])
        world.mine()
        world.ledger.limit.set_minimum(4 * DEAR)
        fraud.honest.fees = flat(terms_feerate)
        with pytest.raises(MempoolRefused, match="mempool min fee not met"):
            publish([fraud.honest])
        fraud.honest.fees = OwnFees(mempool_min_sat_per_kw=DEAR, fallback_sat_per_kw=500)
        for action in fraud.honest.actions():
            if isinstance(action, TakingTx):
                least_sat = fee_sat_of(vsize=action.vsize, feerate_sat_per_kw=DEAR)
                stake_sat = sum(one.prevout.amount_sat for one in action.inputs)
                wanted_sat = min(2 * least_sat - 1, stake_sat - P2TR_DUST_SAT)
                assert action.fee_sat >= wanted_sat >= least_sat
        height = world.tip_height
        settle(world, fraud.honest)
        assert world.tip_height == height + 1
        assert coins(fraud.cheater) == []


@CHEATERS
def test_a_penalty_rises_with_every_block_and_never_touches_an_own_balance(
    world: World, cheater: Party
) -> None:
    """As if every block were full: nothing confirms until the cheater may take its balance."""
    delay = 60
    terms = replace(TERMS, to_self_delay_opener=delay, to_self_delay_accepter=delay)
    fraud = fraud_of(world, cheater, in_blocks=200, terms=terms)
    publish([fraud.cheater])
    world.mine()
    landed, penalties, own_fees = world.tip_height, [], set()
    for _ in range(delay - 1):
        penalties.append(penalty_of(fraud.honest))
        own_fees |= {
            one.fee_sat
            for one in fraud.honest.actions()
            if isinstance(one, TakingTx) and one.name == "sweep"
        }
        world.mine()
    assert world.tip_height == landed + delay - 1, "the cheater's balance is free in the next block"
    assert len(own_fees) == 1, "what is one's own anyway pays one day's rate"
    stake_sat = sum(one.prevout.amount_sat for one in penalties[0].inputs)
    half_sat, all_sat = stake_sat // 2, stake_sat - P2TR_DUST_SAT
    fees = [one.fee_sat for one in penalties]
    assert fees[0] == fee_sat_of(vsize=penalties[0].vsize, feerate_sat_per_kw=FEERATE_SAT_PER_KW)
    for earlier, later in itertools.pairwise(penalties):
        again_sat = fee_sat_of(vsize=later.vsize, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)
        assert later.fee_sat >= earlier.fee_sat + again_sat or later.fee_sat in {half_sat, all_sat}
    assert max(fees[:-LAST_BLOCKS]) <= half_sat
    assert fees[-1] == all_sat


ABSURD: Final = 250_000_000  # 10 BTC for 1000 vB: what a node says in its worst hour, or by a bug.


@CHEATERS
def test_a_node_that_asks_for_more_than_all_outputs_hold_does_not_spare_the_cheater(
    world: World, cheater: Party
) -> None:
    """What they can pay is offered: any mempool that asks for less takes it."""
    fraud = fraud_of(world, cheater)
    fraud.honest.fees = OwnFees(estimates=((2, ABSURD), (1008, ABSURD)))
    publish([fraud.cheater])
    world.mine()
    due = [action for action in fraud.honest.actions() if isinstance(action, TakingTx)]
    assert sum(len(action.inputs) for action in due) == 1 + fraud.n_htlc_outputs
    for action in due:
        stake_sat = sum(one.prevout.amount_sat for one in action.inputs)
        assert action.fee_sat in {stake_sat // 2, stake_sat - P2TR_DUST_SAT}
    publish([fraud.honest])
    world.mine()
    for vout, output in enumerate(fraud.cheater.finished.commitment.outputs):
        is_raced = output.kind is CommitmentOutputKind.TO_HOLDER or output.htlc is not None
        outpoint = fraud.cheater.finished.commitment.tx.outpoint(vout)
        assert (outpoint in world.spenders) == is_raced  # One's own balance waits for better days.


@CHEATERS
def test_what_a_cheater_adds_to_a_race_does_not_make_it_cheaper_again(
    world: World, cheater: Party
) -> None:
    """Else an HTLC transaction for each of the last blocks would hold a penalty where it began."""
    delay = 60
    terms = replace(TERMS, to_self_delay_opener=delay, to_self_delay_accepter=delay)
    fraud = fraud_of(world, cheater, in_blocks=200, terms=terms)
    publish([fraud.cheater])
    world.mine(delay - 20)
    before = penalty_of(fraud.honest)
    fraud.cheater.preimages = knowing(4 * cheater.other)
    assert publish([fraud.cheater])
    world.mine()
    after = penalty_of(fraud.honest)
    assert len(after.inputs) == len(before.inputs) + 1
    again_sat = fee_sat_of(vsize=after.vsize, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)
    assert after.fee_sat >= before.fee_sat + again_sat


def test_a_penalty_that_a_full_mempool_keeps_out_is_named_and_not_called_taken(
    world: World,
) -> None:
    fraud = fraud_of(world, Party.OPENER)
    publish([fraud.cheater])
    world.mine()
    fraud.honest.fees = OwnFees(mempool_min_sat_per_kw=ABSURD)
    told = next_of_channel(fraud.honest.channel(), is_withheld=False, peer="the LSP")
    balance_sat = next(
        one.amount_sat
        for one in fraud.cheater.finished.commitment.outputs
        if one.kind is CommitmentOutputKind.TO_HOLDER
    )
    assert "not worth today's fee: " in told
    assert f"to_local ({balance_sat} sat)" in told
    fraud.honest.fees = None
    assert "worth" not in next_of_channel(fraud.honest.channel(), is_withheld=False, peer="the LSP")
