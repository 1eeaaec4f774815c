"""What is taken of a commitment that landed, by values alone: which outputs, when, at what fee."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.channel.specimen import payment_hash, preimage
from tests.watch.channel_world import (
    CAPACITY_SAT,
    FUNDING_PUBKEYS,
    PAYOUTS,
    built,
    flat,
    held_of,
    knowing,
    peers,
    point,
    revoked,
)

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.channel.claims import peer_claims
from cromford.channel.commitment import Commitment, Funding
from cromford.channel.content import Htlc
from cromford.channel.terms import Party
from cromford.signing.derivation import ClaimKey
from cromford.watch.channel_exit import (
    Unrecognised,
    channel_actions,
    left_behind,
    preimages_in,
)
from cromford.watch.landed import (
    LandedChannel,
    SupersededOutput,
    Sweepable,
    UnknownSpender,
    takings,
)
from cromford.watch.sweep import ClaimInput, TakingTx, sweep

FUNDING: Final = Funding(
    outpoint=OutPoint(txid=Txid(b"\x07" * 32), vout=1),
    pubkeys=FUNDING_PUBKEYS,
    capacity_sat=CAPACITY_SAT,
)
LANDED_HEIGHT: Final = 100
EXPIRY: Final = 150
ME: Final = Party.ACCEPTER
KEYPATH_VSIZE: Final = 58  # An input of 41 bytes, and 66 of its witness: 57.5.


def htlc(number: int, amount_sat: int, *, by: Party = ME.other, expiry: int = EXPIRY) -> Htlc:
    return Htlc(
        offered_by=by,
        htlc_id=number,
        amount_msat=1_000 * amount_sat,
        payment_hash=payment_hash(number),
        cltv_expiry=expiry,
    )


def holding(**changes: Any) -> LandedChannel:
    """Return what a party holds of a channel whose output is in a block and unspent."""
    own = built(FUNDING, ME)
    held: dict[str, Any] = {
        "finished": held_of(own),
        "own_point": point(own),
        "heights": {FUNDING.outpoint.txid: 50},
        "tip_height": LANDED_HEIGHT,
        "payout_script": PAYOUTS[ME],
        "fees": flat(1_000),
    }
    return LandedChannel(**held | changes)


def landed(
    *htlcs: Htlc, theirs: Commitment | None = None, tip_height: int = LANDED_HEIGHT, **changes: Any
) -> LandedChannel:
    """Return the same once the peer's commitment with these HTLCs is in a block."""
    theirs = theirs or built(FUNDING, ME.other, htlcs)
    held: dict[str, Any] = {
        "peer_commitments": (peers(theirs),),
        "preimages": knowing(*(one.htlc_id for one in htlcs)),
        "spends": {FUNDING.outpoint: theirs.tx},
        "heights": {FUNDING.outpoint.txid: 50, theirs.tx.txid: LANDED_HEIGHT},
        "tip_height": tip_height,
    }
    return holding(**held | changes)


def taking(channel: LandedChannel, name: str) -> TakingTx:
    (found,) = [
        one for one in channel_actions(channel) if isinstance(one, TakingTx) and one.name == name
    ]
    return found


def amounts_sat(spend: TakingTx) -> list[int]:
    return sorted(prevout.amount_sat for prevout in spend.prevouts)


def left_sat(channel: LandedChannel) -> list[int]:
    return sorted(one.amount_sat for one in left_behind(channel))


# What one party holds


def superseded(outpoint: OutPoint = FUNDING.outpoint) -> SupersededOutput:
    return SupersededOutput(me=ME, outpoint=outpoint)


def test_who_revoked_all_of_its_commitments_holds_the_output_alone_and_publishes_nothing() -> None:
    channel = holding(finished=None, superseded=superseded())
    assert (channel.me, channel.outpoint) == (ME, FUNDING.outpoint)
    assert channel_actions(channel) == ()
    theirs = built(FUNDING, ME.other)
    spent = landed(theirs=theirs, finished=None, superseded=superseded())
    assert spent.landed == peers(theirs)
    assert amounts_sat(taking(spent, "sweep")) == [400_000]


def test_a_party_holds_one_commitment_or_an_output_without_any() -> None:
    for both in (
        {"superseded": superseded()},
        {"finished": None},
    ):
        with pytest.raises(ValueError, match="finished: one commitment, or an output without any"):
            holding(**both)


def test_a_revoked_commitment_counts_where_it_is_what_landed() -> None:
    """One may be known by name and another in the block: each is taken by its own rules."""
    theirs, old = built(FUNDING, ME.other), built(FUNDING, ME.other, number=3)
    assert old.tx.txid != theirs.tx.txid
    assert landed(theirs=theirs, revoked=revoked(old)).landed == peers(theirs)
    spends = {FUNDING.outpoint: old.tx}
    heights = {FUNDING.outpoint.txid: 50, old.tx.txid: LANDED_HEIGHT}
    cheated = landed(theirs=theirs, revoked=revoked(old), spends=spends, heights=heights)
    assert cheated.landed == revoked(old)


# What is not known


def unknown_to(channel: LandedChannel, tx: Tx, commitment: Commitment) -> LandedChannel:
    claims = tuple(one for one in peer_claims(commitment) if one.htlc is None)
    return replace(channel, peer_commitments=(), unknown=UnknownSpender(tx=tx, claims=claims))


def test_of_a_commitment_that_was_forgotten_the_own_balance_is_taken_with_the_next_block() -> None:
    theirs = built(FUNDING, ME.other)
    channel = unknown_to(landed(theirs=theirs), theirs.tx, theirs)
    (one,) = takings(channel)
    assert isinstance(one, Sweepable)
    assert (one.name, one.height, one.rival_height) == ("to_remote", LANDED_HEIGHT + 1, None)
    first, sweeping = channel_actions(channel)
    assert first == Unrecognised(tx=theirs.tx, pays_us=True)
    assert isinstance(sweeping, TakingTx)
    assert amounts_sat(sweeping) == [400_000]


def test_what_pays_us_nothing_is_shown_and_nothing_taken_of_it() -> None:
    theirs = built(FUNDING, ME.other)
    channel = replace(
        landed(theirs=theirs),
        peer_commitments=(),
        unknown=UnknownSpender(tx=theirs.tx, claims=()),
    )
    assert channel_actions(channel) == (Unrecognised(tx=theirs.tx, pays_us=False),)
    assert channel_actions(replace(channel, unknown=None)) == (Unrecognised(tx=theirs.tx),)


def test_what_was_unknown_before_a_reorganisation_says_nothing_of_what_is_there_now() -> None:
    theirs, other = built(FUNDING, ME.other), built(FUNDING, ME.other, number=3)
    channel = unknown_to(landed(theirs=theirs), other.tx, other)
    assert takings(channel) == ()


# Preimages


def test_a_preimage_has_32_bytes_and_nothing_else_of_a_witness_is_one() -> None:
    shown = (bytes(64), preimage(3), b"\x51" * 33, b"", preimage(4))
    tx = Tx(
        version=2,
        inputs=(TxIn(outpoint=FUNDING.outpoint, nsequence=0, witness=shown),),
        outputs=(),
    )
    assert preimages_in(tx) == knowing(3, 4)


# What a race costs


def test_what_is_worth_no_fee_is_left_out_of_a_race_and_listed() -> None:
    """Together with it the others would get less."""
    fee_sat = claim_fee_sat(4_000)
    channel = landed(htlc(1, 40_000), htlc(2, fee_sat), htlc(3, fee_sat + 1), fees=flat(4_000))
    assert amounts_sat(taking(channel, "sweep htlcs")) == [fee_sat + 1, 40_000]
    assert left_sat(channel) == [fee_sat]


def claim_fee_sat(feerate_sat_per_kw: int) -> int:
    """Return what taking one HTLC by its preimage adds to a fee."""
    (one,) = [one for one in takings(landed(htlc(1, 40_000))) if one.name == "htlc opener 1"]
    assert isinstance(one, Sweepable)
    return one.input.fee_sat(feerate_sat_per_kw)


def test_where_none_of_a_race_is_worth_a_days_rate_they_pay_together_what_they_can() -> None:
    """Half of what they hold may still be enough before the peer's time comes."""
    channel = landed(htlc(1, 3_000), htlc(2, 2_500), fees=flat(20_000))
    assert claim_fee_sat(20_000) > 3_000
    spend = taking(channel, "sweep htlcs")
    assert amounts_sat(spend) == [2_500, 3_000]
    assert 0 < spend.fee_sat <= 2_750
    assert left_sat(channel) == []


def test_a_small_one_that_ends_first_and_cannot_pay_keeps_no_large_one_back() -> None:
    small, large = htlc(1, 1_200), htlc(2, 300_000, expiry=EXPIRY + 300)
    fees = replace(flat(2_000), mempool_min_sat_per_kw=1_500)
    channel = landed(small, large, tip_height=EXPIRY - 1, fees=fees)
    spend = taking(channel, "sweep htlcs")
    assert amounts_sat(spend) == [1_200, 300_000]
    days_sat = fee_sat_of(vsize=spend.vsize, feerate_sat_per_kw=2_000)
    assert spend.fee_sat == days_sat > 1_200, "more than the small one could pay, and no race"


def test_an_htlc_that_the_peer_offered_is_its_own_after_the_expiry_and_ours_until_then() -> None:
    channel = landed(htlc(1, 40_000), htlc(2, 30_000, by=ME))
    rivals = {
        one.name: (one.height, one.rival_height)
        for one in takings(channel)
        if isinstance(one, Sweepable)
    }
    first = LANDED_HEIGHT + 1
    assert rivals["to_remote"] == (first, None)
    assert rivals["htlc opener 1"] == (first, EXPIRY + 1)
    assert rivals["htlc accepter 2"][0] == EXPIRY + 1


# One transaction


def inputs_of(channel: LandedChannel, *names: str) -> Sequence[ClaimInput]:
    found = {one.name: one.input for one in takings(channel) if isinstance(one, Sweepable)}
    return [found[name] for name in names]


def test_an_input_pays_for_its_own_bytes() -> None:
    (balance,) = inputs_of(landed(), "to_remote")
    assert balance.key is ClaimKey.PAYMENT
    alone = sweep("one", [balance], payout_script=PAYOUTS[ME], fee_sat=lambda _: 400)
    twice = sweep("two", [balance, balance], payout_script=PAYOUTS[ME], fee_sat=lambda _: 400)
    assert alone is not None
    assert twice is not None
    added = twice.vsize - alone.vsize
    for feerate in (250, 1_000, 4_000):
        fee_sat = balance.fee_sat(feerate)
        assert fee_sat == fee_sat_of(vsize=added, feerate_sat_per_kw=feerate)


def test_htlcs_of_several_expiries_go_together_once_the_last_one_is_over() -> None:
    """BIP 65: a transaction has one nLockTime, which each of its inputs asks for at the least."""
    channel = landed(htlc(1, 40_000, by=ME), htlc(2, 30_000, by=ME, expiry=EXPIRY + 7))
    for names in (("htlc accepter 1", "htlc accepter 2"), ("htlc accepter 2", "htlc accepter 1")):
        spend = sweep(
            "both",
            inputs_of(channel, *names),
            payout_script=PAYOUTS[ME],
            fee_sat=lambda _: 500,
        )
        assert spend is not None
        assert spend.tx.nlocktime == EXPIRY + 7
        assert spend.tx.outputs == (TxOut(amount_sat=69_500, script_pubkey=PAYOUTS[ME]),)
