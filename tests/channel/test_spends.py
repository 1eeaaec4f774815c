"""Real transactions, signed: their weight is what the fees assume, and the kernel takes them.

Each test builds what a party would publish and lets Bitcoin Core's consensus code judge it, and
then the same with one bit changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.channel import specimen
from tests.channel.specimen import ENDOGENOUS, EPHEMERAL

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, TRUC_VSIZE_MAX
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import Tx, TxIn, TxOut
from cromford.channel.claims import (
    Claim,
    delayed_claim,
    holder_claims,
    htlc_tx_penalties,
    peer_claims,
    penalty_claims,
    to_peer_claims,
)
from cromford.channel.commitment import (
    Commitment,
    CommitmentOutputKind,
    UnpayableFee,
    commitment_number_of,
)
from cromford.channel.content import Htlc
from cromford.channel.htlc_sighash import single_anyonecanpay_sighash
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.terms import (
    COMMITMENT_WEIGHT,
    HTLC_OUTPUT_WEIGHT,
    HTLC_SUCCESS_WEIGHT,
    HTLC_TIMEOUT_WEIGHT,
    ChannelTerms,
    Party,
)
from cromford.crypto import schnorr

BOTH_TERMS = pytest.mark.parametrize("terms", [ENDOGENOUS, EPHEMERAL], ids=["fixed", "zero"])
HOLDERS = pytest.mark.parametrize("holder", list(Party), ids=lambda party: party.name.lower())


def some_htlcs(n_each_way: int = 2) -> list[Htlc]:
    return [
        specimen.htlc(party, htlc_id, 3_000_999 + 1_000_000 * htlc_id, expiry=900_000 + htlc_id)
        for party in Party
        for htlc_id in range(n_each_way)
    ]


def commitment_of(holder: Party, terms: ChannelTerms) -> Commitment:
    return specimen.build(specimen.content(holder, some_htlcs()), terms=terms)


def assert_spends(tx: Tx, prevouts: Sequence[TxOut]) -> None:
    """Assert that the kernel takes `tx`, and nothing that differs from it by one bit."""
    assert specimen.is_accepted(tx, prevouts)
    for damaged in specimen.flipped(tx):
        assert not specimen.is_accepted(damaged, prevouts)


def assert_claimable(commitment: Commitment, claims: Sequence[Claim]) -> None:
    tx = specimen.claim_tx(commitment, claims)
    assert_spends(tx, [claim.prevout for claim in claims])


@BOTH_TERMS
@HOLDERS
@pytest.mark.parametrize("n_each_way", [0, 1, 12])
def test_a_signed_commitment_has_the_weight_its_fee_assumes(
    holder: Party, terms: ChannelTerms, n_each_way: int
) -> None:
    commitment = specimen.build(specimen.content(holder, some_htlcs(n_each_way)), terms=terms)
    tx = commitment.signed(specimen.musig_sign(commitment.signing_task))

    assert tx.weight == COMMITMENT_WEIGHT + HTLC_OUTPUT_WEIGHT * 2 * n_each_way
    assert specimen.is_accepted(tx, [commitment.funding.txout])


def test_the_largest_commitment_of_the_published_type_fits_bip_431() -> None:
    htlcs = [specimen.htlc(party, n, 1_000_000) for party in Party for n in range(114)]
    commitment = specimen.build(specimen.content(Party.OPENER, htlcs), terms=EPHEMERAL)
    tx = commitment.signed(bytes(64))
    assert tx.weight == 39_884
    assert tx.vsize == 9_971 <= TRUC_VSIZE_MAX


@BOTH_TERMS
@HOLDERS
def test_signed_htlc_transactions_have_the_weight_their_fee_assumes(
    holder: Party, terms: ChannelTerms
) -> None:
    commitment = commitment_of(holder, terms)
    peer_signatures = specimen.peer_htlc_signatures(commitment)
    for htlc_tx, peer_signature in zip(htlc_txs(commitment), peer_signatures, strict=True):
        tx = specimen.signed_htlc_tx(commitment, htlc_tx, peer_signature)
        weight = HTLC_TIMEOUT_WEIGHT if htlc_tx.is_offered else HTLC_SUCCESS_WEIGHT
        # At feerate 0 there is no anchor (13 bytes), and one byte for the peer's hash type.
        assert tx.weight == (weight if terms is ENDOGENOUS else weight - 4 * 13 + 1)
        assert tx.nlocktime == (htlc_tx.htlc.cltv_expiry if htlc_tx.is_offered else 0)


@given(
    feerate=st.integers(1, 20_000),
    amounts_msat=st.lists(st.integers(1, 30_000_000), max_size=24),
    holder=st.sampled_from(Party),
    accepter_msat=st.integers(0, 5_000_000),
)
def test_with_a_feerate_every_satoshi_is_paid_or_is_fee(
    feerate: int, amounts_msat: list[int], holder: Party, accepter_msat: int
) -> None:
    terms = ChannelTerms(
        feerate_per_kw=feerate,
        to_self_delay_opener=144,
        to_self_delay_accepter=432,
        max_accepted_htlcs=24,
        max_in_flight_msat=10**9,
    )
    htlcs = [
        specimen.htlc(Party(n % 2), n, amount_msat) for n, amount_msat in enumerate(amounts_msat)
    ]
    commitment = specimen.build(
        specimen.content(holder, htlcs, accepter_msat=accepter_msat), terms=terms
    )
    made = {output.htlc.htlc_id: output for output in commitment.outputs if output.htlc}
    for htlc in htlcs:
        is_offered = htlc.offered_by is holder
        cost_sat = 240 + feerate * (696 if is_offered else 756) // 1000
        assert (htlc.htlc_id in made) is (htlc.amount_msat // 1000 - cost_sat >= 354)
    fee_sat = feerate * (668 + 172 * len(made)) // 1000
    held_msat = sum(amounts_msat) + accepter_msat
    opener_sat = (specimen.CAPACITY_SAT * 1000 - held_msat) // 1000
    opener_kind = (
        CommitmentOutputKind.TO_HOLDER if holder is Party.OPENER else CommitmentOutputKind.TO_PEER
    )

    assert specimen.output_of(commitment, opener_kind).amount_sat == opener_sat - fee_sat - 240
    assert specimen.output_of(commitment, CommitmentOutputKind.ANCHOR).amount_sat == ANCHOR_DUST_SAT
    paid_sat = sum(output.amount_sat for output in commitment.outputs)
    assert specimen.CAPACITY_SAT - paid_sat >= fee_sat
    for htlc_tx in htlc_txs(commitment):
        cost_sat = feerate * (696 if htlc_tx.is_offered else 756) // 1000
        amounts_sat = [tx_out.amount_sat for tx_out in htlc_tx.tx.outputs]
        assert htlc_tx.prevout.amount_sat - sum(amounts_sat) == cost_sat
        assert amounts_sat[0] >= 354
        assert htlc_tx.tx.outputs[1] == TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT)


@given(
    amounts_msat=st.lists(st.integers(1, 3_000_000), max_size=24), accepter=st.integers(0, 10**6)
)
def test_without_a_feerate_the_anchor_takes_what_is_left_up_to_240_sat(
    amounts_msat: list[int], accepter: int
) -> None:
    htlcs = [
        specimen.htlc(Party(n % 2), n, amount_msat) for n, amount_msat in enumerate(amounts_msat)
    ]
    commitment = specimen.build(
        specimen.content(Party.ACCEPTER, htlcs, accepter_msat=accepter), terms=EPHEMERAL
    )
    anchor_sat = specimen.output_of(commitment, CommitmentOutputKind.ANCHOR).amount_sat
    fee_sat = specimen.CAPACITY_SAT - sum(output.amount_sat for output in commitment.outputs)
    assert 0 <= anchor_sat <= ANCHOR_DUST_SAT
    # An anchor below dust is only relayed in a transaction without any fee.
    assert fee_sat == 0 or anchor_sat == ANCHOR_DUST_SAT


def test_an_opener_that_cannot_pay_the_fee_gets_no_commitment() -> None:
    what = specimen.content(Party.OPENER, accepter_msat=specimen.CAPACITY_SAT * 1000 - 500_000)
    with pytest.raises(UnpayableFee) as caught:
        specimen.build(what, terms=ENDOGENOUS)
    assert (caught.value.balance_sat, caught.value.cost_sat) == (500, 334 + 240)
    assert str(caught.value) == "the opener has 500 sat, fee and anchor take 574 sat"


@HOLDERS
@pytest.mark.parametrize("accepter_msat", [353_999, 354_000])
def test_a_balance_has_an_output_from_the_dust_limit_on(holder: Party, accepter_msat: int) -> None:
    commitment = specimen.build(specimen.content(holder, accepter_msat=accepter_msat))
    kind = (
        CommitmentOutputKind.TO_HOLDER if holder is Party.ACCEPTER else CommitmentOutputKind.TO_PEER
    )
    kinds = [output.kind for output in commitment.outputs]
    assert (kind in kinds) is (accepter_msat == 354_000)


@HOLDERS
def test_an_htlc_has_an_output_from_what_its_own_transaction_leaves_of_it_on(holder: Party) -> None:
    """The dust limit, an anchor, and the fee of HTLC-timeout or HTLC-success."""
    least_sat = {holder: 354 + 240 + 348, holder.other: 354 + 240 + 378}
    htlcs = [
        specimen.htlc(party, n, least_sat[party] * 1000 - 1 + n) for party in Party for n in (0, 1)
    ]
    commitment = specimen.build(specimen.content(holder, htlcs))
    made = [output.htlc for output in commitment.outputs if output.htlc]
    assert sorted((htlc.offered_by, htlc.htlc_id) for htlc in made) == [(0, 1), (1, 1)]


def test_outputs_are_in_the_order_of_amount_script_expiry() -> None:
    htlcs = [
        specimen.htlc(Party.OPENER, 3, 5_000_000, expiry=900_001),
        specimen.htlc(Party.OPENER, 3, 5_000_000, expiry=900_000),
        specimen.htlc(Party.ACCEPTER, 4, 5_000_999, expiry=900_000),
        specimen.htlc(Party.OPENER, 5, 4_000_000, expiry=900_000),
    ]
    commitment = specimen.build(specimen.content(Party.OPENER, htlcs))
    keys = [
        (
            output.amount_sat,
            output.txout.script_pubkey,
            output.htlc.cltv_expiry if output.htlc else 0,
        )
        for output in commitment.outputs
    ]
    assert all(left <= right for left, right in pairwise(keys))
    assert next(output.htlc.htlc_id for output in commitment.outputs if output.htlc) == 5


def test_the_same_content_can_be_built_for_several_fundings_at_once() -> None:
    """The opener has what a larger funding holds more; the number and the keys are the same."""
    what = specimen.content(Party.ACCEPTER, some_htlcs())
    small = specimen.build(what)
    large = specimen.build(what, spends=specimen.funding(specimen.CAPACITY_SAT + 7_000, vout=1))

    assert small.signing_task.sighash != large.signing_task.sighash
    assert small.signing_task.name != large.signing_task.name
    assert small.keys == large.keys
    assert commitment_number_of(large.tx, specimen.KEYS) == what.number
    amounts = [
        specimen.output_of(one, CommitmentOutputKind.TO_PEER).amount_sat for one in (small, large)
    ]
    assert amounts[1] - amounts[0] == 7_000
    for commitment in (small, large):
        tx = commitment.signed(specimen.musig_sign(commitment.signing_task))
        assert_spends(tx, [commitment.funding.txout])


def test_only_a_marked_transaction_is_taken_for_a_commitment() -> None:
    commitment = commitment_of(Party.OPENER, ENDOGENOUS)
    tx = commitment.tx
    for changed in (
        Tx(version=3, inputs=tx.inputs, outputs=tx.outputs, nlocktime=0),
        Tx(
            version=3,
            inputs=(TxIn(outpoint=tx.inputs[0].outpoint, nsequence=0),),
            outputs=tx.outputs,
            nlocktime=tx.nlocktime,
        ),
    ):
        with pytest.raises(ValueError, match="not a commitment"):
            commitment_number_of(changed, specimen.KEYS)


def test_a_commitment_is_marked_alike_whatever_its_number() -> None:
    """Each field has half of the bits; obscured, a number may be 0."""
    for obscured in (0, 1 << 23, 1 << 24, 1 << 47, (1 << 48) - 1):
        number = obscured ^ specimen.KEYS.obscuring_factor
        tx = specimen.build(specimen.content(Party.OPENER, number=number)).tx
        assert (tx.inputs[0].nsequence >> 24, tx.nlocktime >> 24) == (0x80, 0x20)
        assert commitment_number_of(tx, specimen.KEYS) == number


@pytest.mark.parametrize("obscured", [-1, 1 << 48])
def test_a_commitment_number_has_48_bits(obscured: int) -> None:
    number = obscured ^ specimen.KEYS.obscuring_factor
    with pytest.raises(ValueError, match="48 bits"):
        specimen.build(specimen.content(Party.OPENER, number=number))


@BOTH_TERMS
@HOLDERS
def test_the_commitment_is_spent_from_the_funding_by_both_keys(
    holder: Party, terms: ChannelTerms
) -> None:
    commitment = commitment_of(holder, terms)
    tx = commitment.signed(specimen.musig_sign(commitment.signing_task))
    assert_spends(tx, [commitment.funding.txout])


@BOTH_TERMS
@HOLDERS
def test_the_holder_takes_its_balance_after_the_delay(holder: Party, terms: ChannelTerms) -> None:
    commitment = commitment_of(holder, terms)
    claims = holder_claims(commitment)
    assert [claim.nsequence for claim in claims] == [144 if holder is Party.OPENER else 432]
    assert_claimable(commitment, claims)

    tx = specimen.claim_tx(commitment, claims)
    early = Tx(
        version=3,
        inputs=(
            TxIn(
                outpoint=tx.inputs[0].outpoint,
                nsequence=claims[0].nsequence - 1,
                witness=tx.inputs[0].witness,
            ),
        ),
        outputs=tx.outputs,
    )
    assert not specimen.is_accepted(early, [claims[0].prevout])


@BOTH_TERMS
@HOLDERS
def test_the_peer_takes_its_balance_its_expired_htlcs_and_those_it_knows_the_preimage_of(
    holder: Party, terms: ChannelTerms
) -> None:
    commitment = commitment_of(holder, terms)
    claims = peer_claims(commitment)
    assert len(claims) == 1 + 4
    for claim in claims:
        assert_claimable(commitment, [claim])
        waits_for = None if claim.needs_preimage else claim.htlc
        assert claim.nlocktime_min == (waits_for.cltv_expiry if waits_for else 0)
    # All at once, as one transaction would after the last expiry.
    assert_claimable(commitment, claims)


@BOTH_TERMS
@HOLDERS
def test_the_peer_finds_its_balance_in_a_commitment_that_it_does_not_know(
    holder: Party, terms: ChannelTerms
) -> None:
    commitment = commitment_of(holder, terms)
    claims = to_peer_claims(commitment.tx, specimen.KEYS.to_peer(holder.other))
    assert claims == tuple(claim for claim in peer_claims(commitment) if claim.htlc is None)
    assert_claimable(commitment, claims)
    assert to_peer_claims(commitment.tx, specimen.KEYS.to_peer(holder)) == ()


@BOTH_TERMS
@HOLDERS
def test_the_holder_takes_its_htlcs_with_both_signatures(
    holder: Party, terms: ChannelTerms
) -> None:
    commitment = commitment_of(holder, terms)
    peer_signatures = specimen.peer_htlc_signatures(commitment)
    for htlc_tx, peer_signature in zip(htlc_txs(commitment), peer_signatures, strict=True):
        tx = specimen.signed_htlc_tx(commitment, htlc_tx, peer_signature)
        assert_spends(tx, [htlc_tx.prevout])

        claim = delayed_claim(commitment, outpoint=tx.outpoint(0), prevout=tx.outputs[0])
        assert_claimable(commitment, [claim])


@BOTH_TERMS
@HOLDERS
def test_every_output_of_a_revoked_commitment_is_taken_by_the_peer_at_once(
    holder: Party, terms: ChannelTerms
) -> None:
    commitment = commitment_of(holder, terms)
    claims = penalty_claims(commitment)
    assert len(claims) == len(commitment.outputs) - 1  # all but the anchor
    for claim in claims:
        assert_claimable(commitment, [claim])
    assert_claimable(commitment, claims)
    assert specimen.claim_tx(commitment, claims).nlocktime == 0


@BOTH_TERMS
@HOLDERS
def test_htlc_transactions_of_a_revoked_commitment_are_punished_too(
    holder: Party, terms: ChannelTerms
) -> None:
    commitment = commitment_of(holder, terms)
    peer_signatures = specimen.peer_htlc_signatures(commitment)
    for htlc_tx, peer_signature in zip(htlc_txs(commitment), peer_signatures, strict=True):
        tx = specimen.signed_htlc_tx(commitment, htlc_tx, peer_signature)
        claims = htlc_tx_penalties(commitment, tx)
        assert [claim.htlc for claim in claims] == [htlc_tx.htlc]
        assert_claimable(commitment, claims)


def merged(commitment: Commitment) -> tuple[Tx, list[TxOut]]:
    """Return one transaction that a cheater makes of all its HTLC transactions, fee included."""
    parts = htlc_txs(commitment)
    fee_coin = specimen.funding(50_000, vout=9)
    tx = Tx(
        version=3,
        inputs=(
            *(part.tx.inputs[0] for part in parts),
            TxIn(outpoint=fee_coin.outpoint, nsequence=0),
        ),
        outputs=tuple(part.tx.outputs[0] for part in parts),
    )
    return tx, [*(part.prevout for part in parts), fee_coin.txout]


def signed_merged(commitment: Commitment) -> tuple[Tx, list[TxOut]]:
    tx, prevouts = merged(commitment)
    holder = commitment.content.holder
    witnesses = []
    signatures = zip(htlc_txs(commitment), specimen.peer_htlc_signatures(commitment), strict=True)
    for place, (part, peer_signature) in enumerate(signatures):
        sighash = taproot_sighash(
            tx, prevouts=prevouts, input_index=place, tapscript=part.tapscript
        )
        signed = part.signed(
            peer_signature=peer_signature,
            holder_signature=schnorr.sign(sighash, specimen.htlc_seckey(commitment, holder)),
            preimage=specimen.preimage(part.htlc.htlc_id),
        )
        witnesses.append(signed.inputs[0].witness)
    return tx.with_witnesses(*witnesses, ()), prevouts


def only_accepted(holder: Party, terms: ChannelTerms) -> Commitment:
    htlcs = [specimen.htlc(holder.other, n, 5_000_000 + n) for n in range(3)]
    return specimen.build(specimen.content(holder, htlcs), terms=terms)


def test_merged_htlc_transactions_of_the_published_type_are_punished_output_by_output() -> None:
    commitment = only_accepted(Party.OPENER, EPHEMERAL)
    tx, prevouts = signed_merged(commitment)
    assert_htlc_inputs_valid(tx, prevouts, n_htlcs=3, is_valid=True)

    claims = htlc_tx_penalties(commitment, tx)
    assert [claim.outpoint for claim in claims] == [tx.outpoint(place) for place in range(3)]
    assert_claimable(commitment, claims)


def test_what_a_cheater_delays_for_itself_beside_other_inputs_is_no_trouble() -> None:
    commitment = only_accepted(Party.OPENER, EPHEMERAL)
    tx, _ = merged(commitment)
    gift = TxOut(amount_sat=1_000, script_pubkey=tx.outputs[0].script_pubkey)
    outputs = (*tx.outputs, gift, gift)
    claims = htlc_tx_penalties(commitment, replace(tx, outputs=outputs))
    assert [claim.prevout for claim in claims] == list(tx.outputs)


def test_a_cheaters_balance_that_it_delays_once_more_is_taken_too() -> None:
    commitment = only_accepted(Party.OPENER, ENDOGENOUS)
    taken = specimen.claim_tx(commitment, holder_claims(commitment))
    again = replace(
        taken,
        outputs=(
            replace(taken.outputs[0], script_pubkey=commitment.delayed.taproot.script_pubkey),
        ),
    )
    claims = htlc_tx_penalties(commitment, again)
    assert [claim.prevout for claim in claims] == list(again.outputs)
    assert_claimable(commitment, claims)


def test_the_peers_signature_of_the_published_type_says_nothing_of_other_inputs() -> None:
    commitment = only_accepted(Party.OPENER, EPHEMERAL)
    tx, _ = merged(commitment)
    other = TxIn(outpoint=specimen.funding(vout=8).outpoint, nsequence=5)
    changed = Tx(version=3, inputs=(other, *tx.inputs[1:]), outputs=tx.outputs)
    for place, part in list(enumerate(htlc_txs(commitment)))[1:]:
        digest = single_anyonecanpay_sighash(
            changed, prevout=part.prevout, input_index=place, tapscript=part.tapscript
        )
        assert digest == part.peer_sighash


def test_with_a_feerate_htlc_transactions_cannot_be_merged() -> None:
    """Their fees would go to the cheater."""
    commitment = only_accepted(Party.OPENER, ENDOGENOUS)
    tx, prevouts = signed_merged(commitment)
    assert_htlc_inputs_valid(tx, prevouts, n_htlcs=3, is_valid=False)


def assert_htlc_inputs_valid(
    tx: Tx, prevouts: list[TxOut], *, n_htlcs: int, is_valid: bool
) -> None:
    """The kernel goes from first to last; the coin for the fee is last and never signed here."""
    refused = specimen.first_refused(tx, prevouts)
    assert refused == (n_htlcs if is_valid else 0)


def test_what_the_peer_itself_took_of_a_revoked_commitment_is_no_penalty() -> None:
    commitment = only_accepted(Party.OPENER, ENDOGENOUS)
    own = specimen.claim_tx(commitment, penalty_claims(commitment))
    assert htlc_tx_penalties(commitment, own) == ()


def test_witnesses_need_their_preimage_and_no_other() -> None:
    commitment = commitment_of(Party.OPENER, ENDOGENOUS)
    offered = next(tx for tx in htlc_txs(commitment) if tx.is_offered)
    accepted = next(tx for tx in htlc_txs(commitment) if not tx.is_offered)
    signatures = {"peer_signature": bytes(64), "holder_signature": bytes(64)}
    with pytest.raises(ValueError, match="needs a preimage"):
        accepted.signed(**signatures)
    with pytest.raises(ValueError, match="needs a preimage"):
        offered.signed(**signatures, preimage=bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        accepted.signed(**signatures, preimage=bytes(31))

    by_preimage = next(claim for claim in peer_claims(commitment) if claim.needs_preimage)
    by_key = penalty_claims(commitment)[0]
    with pytest.raises(ValueError, match="exactly where"):
        by_preimage.witness(bytes(64))
    with pytest.raises(ValueError, match="exactly where"):
        by_key.witness(bytes(64), preimage=bytes(32))
    with pytest.raises(ValueError, match="32 bytes"):
        by_preimage.witness(bytes(64), preimage=bytes(33))


@settings(max_examples=25)
@given(
    holder=st.sampled_from(Party),
    terms=st.sampled_from((ENDOGENOUS, EPHEMERAL)),
    amounts_msat=st.lists(st.integers(1, 20_000_000), max_size=6),
    accepter_msat=st.integers(0, 500_000_000),
    number=st.integers(0, (1 << 48) - 1),
)
def test_any_revoked_commitment_is_punished_whole(
    holder: Party, terms: ChannelTerms, amounts_msat: list[int], accepter_msat: int, number: int
) -> None:
    htlcs = [
        specimen.htlc(Party(n % 2), n, amount_msat) for n, amount_msat in enumerate(amounts_msat)
    ]
    commitment = specimen.build(
        specimen.content(holder, htlcs, accepter_msat=accepter_msat, number=number), terms=terms
    )
    claims = penalty_claims(commitment)
    tx = specimen.claim_tx(commitment, claims)
    assert specimen.is_accepted(tx, [claim.prevout for claim in claims])
    assert sum(claim.prevout.amount_sat for claim in claims) == sum(
        output.amount_sat
        for output in commitment.outputs
        if output.kind is not CommitmentOutputKind.ANCHOR
    )
