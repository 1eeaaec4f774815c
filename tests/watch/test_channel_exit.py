"""A channel on the embedded chain, left alone or by both: every satoshi is where it belongs."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.channel.specimen import payment_hash, preimage
from tests.simulation.seeds import seeds
from tests.watch.channel_world import (
    FEERATE_SAT_PER_KW,
    PAYOUTS,
    TERMS,
    Pair,
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
    pair_of,
    peers,
    publish,
    settle,
    sign,
)

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import Tx
from cromford.channel.content import Htlc
from cromford.channel.terms import Party
from cromford.regtest.verdict import MempoolRefused
from cromford.watch.channel_exit import (
    AwaitPreimage,
    PublishCommitment,
    Unrecognised,
    Wait,
    channel_actions,
    preimages_seen,
)
from cromford.watch.exit import WaitForFunding
from cromford.watch.sweep import TakingTx

pytestmark = pytest.mark.sampled_file(10)

LEAVERS = pytest.mark.parametrize("leaver", list(Party), ids=lambda party: party.name.lower())
DELAYS = {Party.OPENER: 5, Party.ACCEPTER: 8}
KEYPATH_VSIZE = 111  # One key-path input, one taproot output.


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with fresh_world() as world:
        yield world


def published_by(pair: Pair) -> Tx:
    return pair.leaver.finished.tx


def sweep_fee_sat(vsize: int) -> int:
    return fee_sat_of(vsize=vsize, feerate_sat_per_kw=FEERATE_SAT_PER_KW)


# --- without HTLCs ---


@LEAVERS
def test_without_htlcs_one_takes_its_balance_after_the_delay_and_the_other_at_once(
    world: World, leaver: Party
) -> None:
    pair = pair_of(world, leaver, has_htlcs=False)
    settle(world, *pair.both)

    commitment = published_by(pair)
    cost_sat = 334 + 240  # BOLT 3's weight of 668 at 500 sat per kw, and the anchor.
    balances = {Party.OPENER: 600_000 - cost_sat, Party.ACCEPTER: 400_000}
    [(mine, mine_out)] = coins(pair.leaver)
    [(theirs, theirs_out)] = coins(pair.other)
    sweep_tx, claim_tx = (world.spenders[commitment.outpoint(vout)] for vout in places(pair))

    assert mine == sweep_tx.outpoint(0)
    assert theirs == claim_tx.outpoint(0)
    assert mine_out.script_pubkey == PAYOUTS[leaver]
    assert theirs_out.script_pubkey == PAYOUTS[leaver.other]
    assert mine_out.amount_sat == balances[leaver] - sweep_fee_sat(sweep_tx.vsize)
    assert theirs_out.amount_sat == balances[leaver.other] - sweep_fee_sat(KEYPATH_VSIZE)
    published = world.heights[commitment.txid]
    assert world.heights[sweep_tx.txid] == published + DELAYS[leaver]
    assert world.heights[claim_tx.txid] == published + 1
    fees_sat = assert_adds_up(world, *pair.both)
    assert fees_sat == 334 + sweep_fee_sat(sweep_tx.vsize) + sweep_fee_sat(KEYPATH_VSIZE)
    assert [side.actions() for side in pair.both] == [(), ()]


def places(pair: Pair) -> tuple[int, int]:
    """Return where the leaver's and the other's balance are."""
    kinds = [output.kind.value for output in pair.leaver.finished.commitment.outputs]
    return kinds.index("to_local"), kinds.index("to_remote")


@LEAVERS
def test_a_real_delay_is_waited_out_to_the_block(world: World, leaver: Party) -> None:
    terms = replace(TERMS, to_self_delay_opener=144, to_self_delay_accepter=432)
    pair = pair_of(world, leaver, has_htlcs=False, terms=terms)
    assert pair.leaver.actions() == (PublishCommitment(tx=published_by(pair)),)
    publish([pair.leaver])
    world.mine()

    height = world.tip_height + terms.to_self_delay(leaver)
    assert pair.leaver.actions() == (Wait(name="to_local", height=height),)
    assert_only_from(pair.leaver, height, "non-BIP68-final")


def assert_only_from(side: Side, height: int, reason: str) -> None:
    """Assert that the chain refuses a block earlier what is due for `height`."""
    side.world.mine_to(height - 2)
    early = channel_actions(replace(side.channel(), tip_height=height - 1))
    [spend] = [action for action in early if isinstance(action, TakingTx)]
    with pytest.raises(MempoolRefused, match=reason):
        side.world.submit(sign(side.party, spend))
    assert not side.due()
    side.world.mine()
    [tx] = side.due()
    side.world.submit(tx)
    side.world.mine()
    assert side.world.heights[tx.txid] == height


# --- HTLCs ---


@LEAVERS
def test_unclaimed_htlcs_go_back_to_who_offered_them_after_their_expiry(
    world: World, leaver: Party
) -> None:
    pair = pair_of(world, leaver)
    settle(world, *pair.both)

    assert_adds_up(world, *pair.both)
    commitment = pair.leaver.finished.commitment
    for vout, output in enumerate(commitment.outputs):
        if output.htlc is None:
            continue
        taker = world.spenders[commitment.tx.outpoint(vout)]
        assert world.heights[taker.txid] == output.htlc.cltv_expiry + 1
        if output.htlc.offered_by is leaver:
            # HTLC-timeout at 696 weight units, its anchor, and then a sweep after the delay.
            swept = world.spenders[taker.outpoint(0)]
            assert world.heights[swept.txid] == output.htlc.cltv_expiry + 1 + DELAYS[leaver]
            assert taker.outputs[0].amount_sat == output.amount_sat - 348 - 240
            coin_sat = output.amount_sat - 588 - sweep_fee_sat(swept.vsize)
            assert (swept.outpoint(0), coin_sat) in [
                (one, txout.amount_sat) for one, txout in coins(pair.leaver)
            ]
        else:
            coin_sat = output.amount_sat - sweep_fee_sat(taker.vsize)
            assert (taker.outpoint(0), coin_sat) in [
                (one, txout.amount_sat) for one, txout in coins(pair.other)
            ]
    assert len(coins(pair.leaver)) == len(coins(pair.other)) == 1 + 3
    assert preimages_seen(pair.leaver.channel()) == preimages_seen(pair.other.channel()) == {}


@LEAVERS
def test_htlcs_whose_preimage_is_known_are_taken_by_whom_they_were_offered_to(
    world: World, leaver: Party
) -> None:
    pair = pair_of(world, leaver)
    pair.leaver.preimages = pair.other.preimages = knowing(*range(8))
    settle(world, *pair.both)

    assert_adds_up(world, *pair.both)
    seen = {
        party: knowing(*range(4 * party, 4 * party + 3)) for party in Party
    }  # Not of 3 and 7, which have no output.
    assert preimages_seen(pair.leaver.channel()) == seen[leaver]
    assert preimages_seen(pair.other.channel()) == seen[leaver.other]
    assert all(world.heights[tx.txid] <= pair.expiry for tx in htlc_spenders(pair))
    amounts = {
        output.amount_sat for output in pair.leaver.finished.commitment.outputs if output.htlc
    }
    assert amounts == {10_000, 20_000, 30_000, 40_000, 50_000, 60_000}
    made = [tx.outputs[0].amount_sat for tx in htlc_spenders(pair) if tx.version == 3]
    first_sat = 40_000 if leaver is Party.OPENER else 10_000
    assert made == [first_sat + more - 378 - 240 for more in (0, 10_000, 20_000)]


def htlc_spenders(pair: Pair) -> list[Tx]:
    commitment = pair.leaver.finished.commitment
    return [
        pair.leaver.world.spenders[commitment.tx.outpoint(vout)]
        for vout, output in enumerate(commitment.outputs)
        if output.htlc is not None
    ]


@LEAVERS
def test_a_preimage_that_comes_late_still_takes_the_htlc_until_the_peer_does(
    world: World, leaver: Party
) -> None:
    pair = pair_of(world, leaver)
    publish([pair.leaver])
    world.mine()
    for side, other in (pair.both, pair.both[::-1]):
        waiting = [action for action in side.actions() if isinstance(action, AwaitPreimage)]
        offered = [4 * other.party + place for place in range(3)]
        assert [action.payment_hash for action in waiting] == [payment_hash(n) for n in offered]
        assert [action.expiry_height for action in waiting] == [pair.expiry + n for n in range(3)]

    world.mine_to(pair.expiry - 1)
    assert len([one for one in pair.other.actions() if isinstance(one, AwaitPreimage)]) == 3
    world.mine()
    assert len([one for one in pair.other.actions() if isinstance(one, AwaitPreimage)]) == 2
    pair.other.preimages = knowing(4 * leaver)
    settle(world, pair.other, pair.leaver)
    assert preimages_seen(pair.leaver.channel()) == knowing(4 * leaver)
    assert_adds_up(world, *pair.both)


@LEAVERS
def test_neither_is_early_for_an_expiry(world: World, leaver: Party) -> None:
    pair = pair_of(world, leaver)
    publish([pair.leaver])
    world.mine()
    publish([pair.other])  # Its balance, so that only HTLCs are left.
    world.mine_to(world.tip_height + DELAYS[leaver])
    publish([pair.leaver])
    for side in pair.both:
        assert Wait(name=expiring_name(pair, side), height=pair.expiry + 1) in side.actions()
    height = pair.expiry + 1
    world.mine_to(height - 2)
    for side in pair.both:
        early = channel_actions(replace(side.channel(), tip_height=height - 1))
        [spend] = [action for action in early if isinstance(action, TakingTx)]
        assert spend.tx.nlocktime == pair.expiry
        with pytest.raises(MempoolRefused, match="non-final"):
            world.submit(sign(side.party, spend))
    world.mine()
    assert publish(pair.both)
    settle(world, *pair.both)


def expiring_name(pair: Pair, side: Side) -> str:
    kind = "htlc_timeout" if side is pair.leaver else "htlc"
    return f"{kind} {side.party.name.lower()} 0"


def test_what_nobody_else_can_take_is_swept_together_and_the_rest_alone(world: World) -> None:
    pair = pair_of(world, Party.OPENER)
    pair.other.preimages = knowing(0, 1, 2)
    publish([pair.leaver])
    world.mine()
    racing, own = [action for action in pair.other.actions() if isinstance(action, TakingTx)]
    assert (racing.name, own.name) == ("sweep htlcs", "sweep")
    assert len(own.inputs) == 1
    assert len(racing.inputs) == 3  # Before the expiry only it can take them.

    world.mine_to(pair.expiry - 1)
    assert pair.other.actions()[0] == Wait(name="htlc accepter 0", height=pair.expiry + 1)
    later, own_later = [one for one in pair.other.actions() if isinstance(one, TakingTx)]
    assert own_later == own
    assert later.inputs == racing.inputs
    assert later.fee_sat > racing.fee_sat  # It did not confirm, and the expiry comes nearer.
    world.mine()
    names = [action.name for action in pair.other.actions() if isinstance(action, TakingTx)]
    assert sorted(names) == ["sweep", "sweep htlc accepter 0", "sweep htlc opener 0", "sweep htlcs"]

    world.mine_to(pair.expiry + 10)
    alone = [action for action in pair.other.actions() if isinstance(action, TakingTx)]
    assert sorted(action.name for action in alone) == [
        "sweep",
        *(f"sweep htlc accepter {n}" for n in range(3)),
        *(f"sweep htlc opener {n}" for n in range(3)),
    ]
    assert all(len(action.inputs) == 1 for action in alone)
    settle(world, *pair.both)
    assert_adds_up(world, *pair.both)


def test_a_preimage_that_comes_late_does_not_cost_the_blocks_before_it(world: World) -> None:
    """The payee of a forward may show it when it likes: its payer's LSP has not been bidding."""
    pair = pair_of(world, Party.OPENER, in_blocks=400)
    publish([pair.leaver])
    world.mine_to(pair.expiry - 100)
    pair.other.preimages = knowing(0, 1, 2)
    racing, _ = [action for action in pair.other.actions() if isinstance(action, TakingTx)]
    assert racing.name == "sweep htlcs"
    assert racing.fee_sat == fee_sat_of(vsize=racing.vsize, feerate_sat_per_kw=FEERATE_SAT_PER_KW)


def test_a_small_htlc_that_ends_soon_is_not_claimed_with_what_a_large_one_could_pay(
    world: World,
) -> None:
    """Both go in one transaction, and blocks are full: the small one alone is in a hurry."""
    funding, soon = world.funded(), world.tip_height + 20
    htlcs = [
        replace(htlcs_of(soon)[0], amount_msat=3_000_000),
        replace(htlcs_of(soon + 500)[1], amount_msat=300_000_000),
    ]
    first, second = (built(funding, party, htlcs) for party in Party)
    leaving = Side(world, held_of(first), (peers(second),), is_leaving=True)
    claiming = Side(world, held_of(second), (peers(first),), preimages=knowing(0, 1))
    publish([leaving])
    world.mine_to(soon - 1)
    racing, _ = [action for action in claiming.actions() if isinstance(action, TakingTx)]
    assert (racing.name, len(racing.inputs)) == ("sweep htlcs", 2)
    days_sat = fee_sat_of(vsize=racing.vsize, feerate_sat_per_kw=FEERATE_SAT_PER_KW)
    assert days_sat < racing.fee_sat <= 1_500


# --- which commitment ---


@LEAVERS
def test_a_commitment_of_the_peer_that_is_not_yet_revoked_is_taken_like_its_latest(
    world: World, leaver: Party
) -> None:
    funding = world.funded()
    htlcs = htlcs_of(world.tip_height + 15)
    before = built(funding, leaver, htlcs, number=4)
    latest = built(funding, leaver, htlcs[:5], number=5)
    own = built(funding, leaver.other, htlcs[:5])
    cautious = Side(world, held_of(own), (peers(latest), peers(before)), preimages=knowing(0, 4))
    leaving = Side(world, held_of(before), (peers(own),), is_leaving=True)
    settle(world, leaving, cautious)
    assert_adds_up(world, leaving, cautious)
    assert world.spenders[funding.outpoint].txid == before.tx.txid
    got = {
        output.amount_sat
        for vout, output in enumerate(before.outputs)
        if (tx := world.spenders.get(before.tx.outpoint(vout))) is not None
        and tx.outputs[0].script_pubkey == PAYOUTS[leaver.other]
    }
    opener_sat = 600_000 - 210_000 - 2 * 900 - 850 - 240  # Its balance after HTLCs, fee, anchor.
    expected = {
        Party.ACCEPTER: {opener_sat, 10_000, 20_000, 30_000, 40_000},
        Party.OPENER: {400_000, 10_000, 40_000, 50_000, 60_000},
    }
    assert got == expected[leaver]


def test_a_spend_that_no_commitment_explains_is_shown_to_who_asked(world: World) -> None:
    pair = pair_of(world, Party.OPENER)
    pair.other.peer_commitments = ()
    publish([pair.leaver])
    world.mine()
    assert pair.other.actions() == (Unrecognised(tx=published_by(pair)),)
    assert pair.other.left() == ()
    assert preimages_seen(pair.other.channel()) == {}


def test_only_the_own_commitment_leaves_and_only_from_a_confirmed_unspent_output(
    world: World,
) -> None:
    pair = pair_of(world, Party.OPENER)
    funded = pair.leaver.channel()
    assert channel_actions(replace(funded, heights={})) == (WaitForFunding(),)
    assert channel_actions(funded) == (PublishCommitment(tx=published_by(pair)),)
    pair.other.is_leaving = True
    publish([pair.other])
    world.mine()
    assert published_by(pair) not in pair.leaver.due()


# --- what is not worth it ---


def test_outputs_that_are_not_worth_their_fee_are_listed_and_nothing_waits_for_them(
    world: World,
) -> None:
    pair = pair_of(world, Party.OPENER, accepter_msat=1_500_000)
    pair.other.feerate_sat_per_kw = 5_000  # 111 vbytes cost 2,220 sat, the input alone 1,160.
    settle(world, *pair.both)
    [left] = pair.other.left()
    assert (left.name, left.amount_sat) == ("to_remote", 1_500)
    assert len(coins(pair.other)) == 3

    pair.other.feerate_sat_per_kw = FEERATE_SAT_PER_KW
    settle(world, *pair.both)
    assert pair.other.left() == ()
    assert 1_500 - sweep_fee_sat(KEYPATH_VSIZE) in coins_sat(pair.other)


def test_what_costs_more_than_it_holds_is_not_even_waited_for(world: World) -> None:
    pair = pair_of(world, Party.ACCEPTER, has_htlcs=False, accepter_msat=400_000)
    pair.leaver.feerate_sat_per_kw = 5_000
    publish([pair.leaver])
    world.mine()
    assert pair.leaver.actions() == ()
    assert [(one.name, one.amount_sat) for one in pair.leaver.left()] == [("to_local", 400)]
    assert coins(pair.leaver) == []


def test_nothing_below_dust_is_made(world: World) -> None:
    """The fee is 345 sat, and dust begins below 330."""
    assert sweep_fee_sat(KEYPATH_VSIZE) == 345
    for amount_sat, n_coins in ((674, 0), (675, 1)):
        pair = pair_of(world, Party.OPENER, has_htlcs=False, accepter_msat=amount_sat * 1000)
        settle(world, *pair.both)
        assert len(coins(pair.other)) == n_coins
        assert len(pair.other.left()) == 1 - n_coins
        assert_adds_up(world, *pair.both)


def test_a_sweep_leaves_out_the_input_that_makes_it_poorer(world: World) -> None:
    pair = pair_of(world, Party.OPENER, accepter_msat=400_000)
    pair.other.preimages = knowing(0)
    pair.other.feerate_sat_per_kw = 3_000
    publish([pair.leaver])
    world.mine()
    [spend] = [action for action in pair.other.actions() if isinstance(action, TakingTx)]
    assert [one.prevout.amount_sat for one in spend.inputs] == [10_000]
    assert [one.name for one in pair.other.left()] == ["to_remote"]
    assert fee_sat_of(vsize=spend.vsize, feerate_sat_per_kw=3_000) == spend.fee_sat


# --- resuming ---


@pytest.mark.parametrize("seed", seeds(6))
def test_an_exit_that_stops_and_goes_ends_with_the_same_outputs_taken_by_the_same_party(
    world: World, seed: int
) -> None:
    """At each block only some of what is due gets out, and miners take their time."""
    dice = random.Random(seed)
    leaver = Party(seed % 2)
    pair = pair_of(world, leaver, in_blocks=60)
    pair.leaver.preimages = pair.other.preimages = knowing(0, 1, 4, 5)
    while world.tip_height < pair.expiry + 30:
        for side in pair.both:
            due = [
                tx
                for tx in side.due()
                if not any(tx_in.outpoint in world.pending for tx_in in tx.inputs)
            ]
            for tx in due:
                if dice.random() < 0.4:
                    world.submit(tx)
        world.mine(dice.choice((1, 1, 1, 2, 3)))
    settle(world, *pair.both)
    assert_adds_up(world, *pair.both)

    straight = pair_of(world, leaver, in_blocks=60)
    straight.leaver.preimages = straight.other.preimages = knowing(0, 1, 4, 5)
    settle(world, *straight.both)
    assert takers(pair) == takers(straight), f"seed {seed}"


def takers(pair: Pair) -> list[tuple[str, int, Party | None]]:
    """Return by name and amount who took each output, of the commitment and of what followed."""
    world, commitment = pair.leaver.world, pair.leaver.finished.commitment
    found: list[tuple[str, int, Party | None]] = []
    for vout, output in enumerate(commitment.outputs):
        taken = commitment.tx.outpoint(vout)
        tx = world.spenders.get(taken)
        while tx is not None and tx.version == 3:
            tx = world.spenders.get(tx.outpoint(0))
        party = None
        if tx is not None:
            [party] = [one for one in Party if PAYOUTS[one] == tx.outputs[0].script_pubkey]
        found.append((output.kind.value, output.amount_sat, party))
    return found


def test_asked_again_before_anything_changed_the_answer_is_the_same_to_the_byte(
    world: World,
) -> None:
    pair = pair_of(world, Party.ACCEPTER)
    pair.leaver.preimages = knowing(0, 1)
    for _ in range(12):
        assert pair.leaver.actions() == pair.leaver.actions()
        publish(pair.both)
        world.mine()


def test_what_a_reorganisation_unconfirms_is_published_again(world: World) -> None:
    pair = pair_of(world, Party.OPENER, has_htlcs=False)
    before = pair.leaver.channel()
    actions = pair.leaver.actions()
    settle(world, *pair.both)
    assert pair.leaver.actions() == ()
    assert channel_actions(replace(pair.leaver.channel(), spends=before.spends)) == actions


# --- any mix ---


@st.composite
def mixes(draw: st.DrawFn) -> list[tuple[Party, int, int, int]]:
    """Draw HTLCs: who offered, amount, expiry after now, and who knows the preimage (bits)."""
    one = st.tuples(
        st.sampled_from(Party),
        st.integers(1, 40_000_000),
        st.integers(1, 30),
        st.integers(0, 3),
    )
    return draw(st.lists(one, max_size=8))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mix=mixes(),
    leaver=st.sampled_from(Party),
    accepter_msat=st.integers(0, 500_000_000),
    feerate=st.sampled_from((25, 777, 12_500)),
    first=st.booleans(),
)
def test_any_mix_of_htlcs_adds_up_to_the_satoshi(
    world: World,
    *,
    mix: list[tuple[Party, int, int, int]],
    leaver: Party,
    accepter_msat: int,
    feerate: int,
    first: bool,
) -> None:
    funding = world.funded()
    htlcs = [
        Htlc(
            offered_by=offered_by,
            htlc_id=n,
            amount_msat=amount_msat,
            payment_hash=payment_hash(n),
            cltv_expiry=world.tip_height + in_blocks,
        )
        for n, (offered_by, amount_msat, in_blocks, _) in enumerate(mix)
    ]
    sides = []
    commitments = {
        party: built(funding, party, htlcs, accepter_msat=accepter_msat) for party in Party
    }
    for party in Party:
        side = Side(
            world,
            held_of(commitments[party]),
            (peers(commitments[party.other]),),
            preimages=knowing(*(n for n, one in enumerate(mix) if one[3] >> party & 1)),
            feerate_sat_per_kw=feerate,
            is_leaving=party is leaver,
        )
        sides.append(side)
    settle(world, *(sides if first else sides[::-1]))
    assert_adds_up(world, *sides, feerate_sat_per_kw=feerate)
    for side in sides:
        for one, preimage_seen in preimages_seen(side.channel()).items():
            assert (one, preimage_seen) in [(payment_hash(n), preimage(n)) for n in range(8)]
