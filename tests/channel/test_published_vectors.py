"""Every transaction of the published vectors of `taproot_zero_fee_commitments`, byte for byte."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.channel import oracle, specimen

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.commitment import (
    ChannelKeys,
    Commitment,
    Funding,
    build_commitment,
    commitment_number_of,
)
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.keys import Basepoints
from cromford.channel.terms import HTLCS_MAX, ChannelTerms, Party
from cromford.channel.verification import check_commitment_signature, check_htlc_signatures
from cromford.crypto import schnorr
from cromford.crypto.keys import pubkey_of
from cromford.signing.derivation import derive_seckey

FILE = "bolt03-taproot-zero-fee-commitments.json"
N_CASES = 11
Vectors = Callable[[str], Any]


@pytest.fixture(params=range(N_CASES))
def vectors(request: pytest.FixtureRequest, json_vectors: Vectors) -> tuple[Any, Any]:
    """Return what all cases share, and one case."""
    shared = json_vectors(FILE)
    return shared, shared["tests"][request.param]


def channel_keys(shared: Any) -> ChannelKeys:
    def of(name: str) -> bytes:
        return pubkey_of(bytes.fromhex(shared[name]))

    unused = specimen.SECRETS[Party.OPENER].basepoints
    return ChannelKeys(
        opener=Basepoints(
            revocation=unused.revocation,
            payment=of("local_payment_basepoint_secret"),
            delayed_payment=of("local_delayed_payment_basepoint_secret"),
            htlc=of("local_htlc_basepoint_secret"),
        ),
        accepter=Basepoints(
            revocation=bytes.fromhex(shared["revocation_basepoint"]),
            payment=of("remote_payment_basepoint_secret"),
            delayed_payment=unused.delayed_payment,
            htlc=of("remote_htlc_basepoint_secret"),
        ),
    )


def commitment_of(shared: Any, case: Any) -> Commitment:
    htlcs = tuple(
        Htlc(
            offered_by=party,
            htlc_id=entry["id"],
            amount_msat=entry["amount_msat"],
            payment_hash=bytes.fromhex(entry["payment_hash"]),
            cltv_expiry=entry["cltv_expiry"],
        )
        for party, name in ((Party.OPENER, "outgoing_htlcs"), (Party.ACCEPTER, "incoming_htlcs"))
        for entry in case.get(name, [])
    )
    return build_commitment(
        CommitmentContent(
            holder=Party.OPENER,
            number=shared["commitment_number"],
            opener_msat=case["to_local_msat"],
            accepter_msat=case["to_remote_msat"],
            htlcs=htlcs,
        ),
        funding=Funding(
            outpoint=OutPoint(
                txid=Txid.from_hex(shared["funding_txid"]), vout=shared["funding_index"]
            ),
            pubkeys=(
                pubkey_of(bytes.fromhex(shared["local_funding_priv"])),
                pubkey_of(bytes.fromhex(shared["remote_funding_priv"])),
            ),
            capacity_sat=shared["funding_amount_satoshis"],
        ),
        terms=ChannelTerms(
            feerate_per_kw=0,
            to_self_delay_opener=shared["to_self_delay"],
            to_self_delay_accepter=1,
            max_accepted_htlcs=HTLCS_MAX,
            max_in_flight_msat=shared["funding_amount_satoshis"] * 1000,
            dust_limit_sat=case["dust_limit_satoshis"],
        ),
        keys=channel_keys(shared),
        per_commitment_point=bytes.fromhex(shared["per_commitment_point"]),
    )


def test_the_file_has_no_case_that_is_not_looked_at(json_vectors: Vectors) -> None:
    assert len(json_vectors(FILE)["tests"]) == N_CASES


def test_every_commitment_is_the_published_one_with_its_published_signature(
    vectors: tuple[Any, Any],
) -> None:
    """The oracle signs with the vector's secret nonces; the product checks what it made."""
    shared, case = vectors
    commitment = commitment_of(shared, case)
    signature = oracle.sign(
        [bytes.fromhex(shared[f"{side}_funding_priv"]) for side in ("local", "remote")],
        [bytes.fromhex(case[f"{side}_secret_nonce"]) for side in ("local", "remote")],
        commitment.signing_task.sighash,
    )

    check_commitment_signature(commitment, signature)

    assert commitment.signed(signature).serialize().hex() == case["signed_commit_tx"]
    assert commitment_number_of(commitment.tx, channel_keys(shared)) == shared["commitment_number"]


def test_every_htlc_transaction_is_the_published_one_with_its_published_signatures(
    vectors: tuple[Any, Any],
) -> None:
    shared, case = vectors
    commitment = commitment_of(shared, case)
    point = bytes.fromhex(shared["per_commitment_point"])
    holder, peer = (
        derive_seckey(bytes.fromhex(shared[f"{side}_htlc_basepoint_secret"]), point)
        for side in ("local", "remote")
    )
    preimages = shared["payment_hash_to_preimage"]
    signed: dict[bool, list[str]] = {False: [], True: []}
    peer_signatures = []
    for htlc_tx in htlc_txs(commitment):
        # BIP 340 without randomness, as the published signatures were made.
        peer_signature = schnorr.sign(htlc_tx.peer_sighash, peer, aux_rand=bytes(32))
        shown = preimages.get(htlc_tx.htlc.payment_hash.hex(), "")
        tx = htlc_tx.signed(
            peer_signature=peer_signature,
            holder_signature=schnorr.sign(htlc_tx.holder_sighash, holder, aux_rand=bytes(32)),
            preimage=None if htlc_tx.is_offered else bytes.fromhex(shown),
        )
        assert specimen.is_accepted(tx, [htlc_tx.prevout])
        signed[htlc_tx.is_offered].append(tx.serialize().hex())
        peer_signatures.append(peer_signature)

    check_htlc_signatures(commitment, peer_signatures)

    assert signed[False] == case.get("signed_htlc_success_txs", [])
    assert signed[True] == case.get("signed_htlc_timeout_txs", [])


def test_the_published_signatures_satisfy_the_kernel(vectors: tuple[Any, Any]) -> None:
    shared, case = vectors
    tx = Tx.parse(bytes.fromhex(case["signed_commit_tx"]))
    assert specimen.is_accepted(tx, [commitment_of(shared, case).funding.txout])
