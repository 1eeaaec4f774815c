"""A received commitment is checked signature by signature, and the error names which is bad."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.channel import specimen
from tests.channel.specimen import ENDOGENOUS, EPHEMERAL

from cromford.channel.commitment import Commitment
from cromford.channel.errors import PeerViolation
from cromford.channel.htlc_sighash import single_anyonecanpay_sighash
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.terms import ChannelTerms, Party
from cromford.channel.verification import check_commitment_signature, check_htlc_signatures

BOTH_TERMS = pytest.mark.parametrize("terms", [ENDOGENOUS, EPHEMERAL], ids=["fixed", "zero"])


def commitment_of(terms: ChannelTerms, number: int = 5) -> Commitment:
    htlcs = [specimen.htlc(party, n, 5_000_000) for party in Party for n in range(2)]
    return specimen.build(specimen.content(Party.OPENER, htlcs, number=number), terms=terms)


def flip(data: bytes) -> bytes:
    return bytes((data[0] ^ 1,)) + data[1:]


@BOTH_TERMS
def test_good_signatures_pass(terms: ChannelTerms) -> None:
    commitment = commitment_of(terms)
    check_commitment_signature(commitment, specimen.musig_sign(commitment.signing_task))
    check_htlc_signatures(commitment, specimen.peer_htlc_signatures(commitment))


@BOTH_TERMS
def test_a_signature_of_the_commitment_that_is_not_its_own_is_named(terms: ChannelTerms) -> None:
    commitment = commitment_of(terms)
    good = specimen.musig_sign(commitment.signing_task)
    other = specimen.musig_sign(commitment_of(terms, number=6).signing_task)
    for bad in (flip(good), other, good[:-1], b""):
        with pytest.raises(PeerViolation) as caught:
            check_commitment_signature(commitment, bad)
        assert caught.value.field == "partial_signature_with_nonce"


@BOTH_TERMS
@pytest.mark.parametrize("place", range(4))
def test_a_bad_htlc_signature_is_named_with_its_place(terms: ChannelTerms, place: int) -> None:
    commitment = commitment_of(terms)
    signatures = specimen.peer_htlc_signatures(commitment)
    signatures[place] = flip(signatures[place])
    with pytest.raises(PeerViolation) as caught:
        check_htlc_signatures(commitment, signatures)
    assert caught.value.field == f"htlc_signature[{place}]"


@pytest.mark.parametrize(
    "change", [lambda listed: listed[:-1], lambda listed: [*listed, listed[0]], lambda _: []]
)
def test_too_few_or_too_many_htlc_signatures_are_refused(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    commitment = commitment_of(ENDOGENOUS)
    signatures = change(specimen.peer_htlc_signatures(commitment))
    with pytest.raises(PeerViolation) as caught:
        check_htlc_signatures(commitment, signatures)
    assert (caught.value.field, caught.value.expected) == ("num_htlcs", 4)


def test_the_digest_of_one_input_and_output_needs_both() -> None:
    htlc_tx = htlc_txs(commitment_of(EPHEMERAL))[0]
    tx = htlc_tx.tx
    more_inputs = replace(tx, inputs=(*tx.inputs, *tx.inputs))
    more_outputs = replace(tx, outputs=(*tx.outputs, *tx.outputs))
    for changed, index in ((tx, -1), (tx, 1), (more_inputs, 1), (more_outputs, 1)):
        with pytest.raises(ValueError, match=f"input {index} of"):
            single_anyonecanpay_sighash(
                changed,
                prevout=htlc_tx.prevout,
                input_index=index,
                tapscript=htlc_tx.tapscript,
            )


def test_an_output_reveals_only_tapscripts_it_has() -> None:
    output = commitment_of(EPHEMERAL).delayed
    with pytest.raises(ValueError, match="tapleaf"):
        output.control_block(1)
