"""A peer that publishes what it revoked loses everything, whatever it made of it meanwhile."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.channel.specimen import payment_hash
from tests.simulation.seeds import seeds
from tests.watch.channel_world import (
    FEERATE_SAT_PER_KW,
    KEYS,
    PAYOUTS,
    Side,
    World,
    assert_adds_up,
    built,
    coins,
    coins_sat,
    fresh_world,
    held_of,
    htlcs_of,
    knowing,
    peers,
    publish,
    revoked,
    settle,
)

from cromford.bitcoin.fees import fee_sat_of
from cromford.channel.commitment import CommitmentOutputKind, commitment_number_of
from cromford.channel.content import Htlc
from cromford.channel.terms import Party
from cromford.watch.channel_exit import Unrecognised, Wait, preimages_seen
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
    world: World, cheater: Party, *, in_blocks: int = 20, htlcs: list[Htlc] | None = None
) -> Fraud:
    """Return a cheater that holds commitment 4, which it has revoked, and both latest ones."""
    funding = world.funded()
    expiry = world.tip_height + in_blocks
    old = built(funding, cheater, htlcs_of(expiry) if htlcs is None else htlcs, number=4)
    latest = built(funding, cheater)
    own = built(funding, cheater.other)
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
    # Before the cheater's expiries and delays are over, only the honest party can take these:
    # both balances, the three it has not touched, and what it made of the other three.
    assert len(penalty.inputs) == 2 + 3 + 3
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
