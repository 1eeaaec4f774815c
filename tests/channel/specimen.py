"""Two parties with known secrets, and everything a real channel would sign with them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Final

from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.channel.claims import Claim
from cromford.channel.commitment import (
    ChannelKeys,
    Commitment,
    CommitmentOutput,
    Funding,
    build_commitment,
)
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.htlc_tx import HtlcTx, htlc_txs
from cromford.channel.keys import Basepoints
from cromford.channel.terms import ChannelTerms, Party
from cromford.crypto import keys, schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.musig2 import SecNonce, nonce_agg
from cromford.regtest.kernel import ScriptRefused, check_scripts
from cromford.signing.derivation import ClaimKey, derive_seckey, revocation_seckey
from cromford.signing.keychain import FIRST_COMMITMENT_INDEX, per_commitment_secret
from cromford.signing.task import SigningTask

CAPACITY_SAT: Final = 1_000_000
ENDOGENOUS: Final = ChannelTerms(
    feerate_per_kw=500,
    to_self_delay_opener=144,
    to_self_delay_accepter=432,
    max_accepted_htlcs=12,
    max_in_flight_msat=CAPACITY_SAT * 1000,
)
EPHEMERAL: Final = ChannelTerms(
    feerate_per_kw=0,
    to_self_delay_opener=144,
    to_self_delay_accepter=432,
    max_accepted_htlcs=114,
    max_in_flight_msat=CAPACITY_SAT * 1000,
)
PAYOUT: Final = p2tr_script(keys.xonly_of(keys.pubkey_of(bytes(31) + b"\x07")))


@dataclass(frozen=True)
class Secrets:
    """One party's."""

    funding: bytes
    revocation: bytes
    payment: bytes
    delayed_payment: bytes
    htlc: bytes
    seed: bytes

    @property
    def basepoints(self) -> Basepoints:
        return Basepoints(
            revocation=keys.pubkey_of(self.revocation),
            payment=keys.pubkey_of(self.payment),
            delayed_payment=keys.pubkey_of(self.delayed_payment),
            htlc=keys.pubkey_of(self.htlc),
        )


def secrets_of(name: str) -> Secrets:
    jobs = ("funding", "revocation", "payment", "delayed_payment", "htlc", "seed")
    return Secrets(*(sha256(f"{name} {job}".encode()).digest() for job in jobs))


SECRETS: Final = {party: secrets_of(party.name) for party in Party}
KEYS: Final = ChannelKeys(
    opener=SECRETS[Party.OPENER].basepoints, accepter=SECRETS[Party.ACCEPTER].basepoints
)


@cache
def secret(party: Party, number: int) -> bytes:
    return per_commitment_secret(SECRETS[party].seed, FIRST_COMMITMENT_INDEX - number)


@cache
def point(party: Party, number: int) -> bytes:
    return keys.pubkey_of(secret(party, number))


def preimage(index: int) -> bytes:
    return sha256(b"preimage %d" % index).digest()


def payment_hash(index: int) -> bytes:
    return sha256(preimage(index)).digest()


def funding(capacity_sat: int = CAPACITY_SAT, *, vout: int = 0) -> Funding:
    return Funding(
        outpoint=OutPoint(txid=Txid(bytes(range(32))), vout=vout),
        pubkeys=(
            keys.pubkey_of(SECRETS[Party.OPENER].funding),
            keys.pubkey_of(SECRETS[Party.ACCEPTER].funding),
        ),
        capacity_sat=capacity_sat,
    )


def htlc(offered_by: Party, htlc_id: int, amount_msat: int, *, expiry: int = 900_000) -> Htlc:
    return Htlc(
        offered_by=offered_by,
        htlc_id=htlc_id,
        amount_msat=amount_msat,
        payment_hash=payment_hash(htlc_id),
        cltv_expiry=expiry,
    )


def content(
    holder: Party,
    htlcs: Iterable[Htlc] = (),
    *,
    accepter_msat: int = 400_000_000,
    number: int = 5,
    capacity_sat: int = CAPACITY_SAT,
) -> CommitmentContent:
    """Return a content whose amounts make up the capacity."""
    listed = tuple(htlcs)
    held_msat = sum(one.amount_msat for one in listed)
    return CommitmentContent(
        holder=holder,
        number=number,
        opener_msat=capacity_sat * 1000 - accepter_msat - held_msat,
        accepter_msat=accepter_msat,
        htlcs=listed,
    )


def total_msat(what: CommitmentContent) -> int:
    """Return everything in the channel."""
    return what.opener_msat + what.accepter_msat + what.htlcs_msat


def build(
    what: CommitmentContent,
    *,
    terms: ChannelTerms = ENDOGENOUS,
    spends: Funding | None = None,
) -> Commitment:
    return build_commitment(
        what,
        funding=spends or funding(),
        terms=terms,
        keys=KEYS,
        per_commitment_point=point(what.holder, what.number),
    )


def output_of(commitment: Commitment, kind: object) -> CommitmentOutput:
    return next(output for output in commitment.outputs if output.kind is kind)


def musig_sign(task: SigningTask) -> bytes:
    """Return the signature both funding keys make."""
    seckeys = sorted((SECRETS[party].funding for party in Party), key=keys.pubkey_of)
    nonces = [SecNonce(Keypair(seckey)) for seckey in seckeys]
    session = task.session(nonce_agg([nonce.pubnonce for nonce in nonces]))
    return session.partial_sig_agg([nonce.sign(session) for nonce in nonces])


def htlc_seckey(commitment: Commitment, party: Party) -> bytes:
    holder, number = commitment.content.holder, commitment.content.number
    return derive_seckey(SECRETS[party].htlc, point(holder, number))


def peer_htlc_signatures(commitment: Commitment) -> list[bytes]:
    """Return what the peer sends with `commitment_signed`."""
    seckey = htlc_seckey(commitment, commitment.content.holder.other)
    return [schnorr.sign(tx.peer_sighash, seckey) for tx in htlc_txs(commitment)]


def signed_htlc_tx(commitment: Commitment, htlc_tx: HtlcTx, peer_signature: bytes) -> Tx:
    seckey = htlc_seckey(commitment, commitment.content.holder)
    return htlc_tx.signed(
        peer_signature=peer_signature,
        holder_signature=schnorr.sign(htlc_tx.holder_sighash, seckey),
        preimage=None if htlc_tx.is_offered else preimage(htlc_tx.htlc.htlc_id),
    )


def claim_seckey(commitment: Commitment, claim: Claim) -> bytes:
    """Return the seckey that signs a claim, made as `ClaimKey` says."""
    holder, number = commitment.content.holder, commitment.content.number
    match claim.key:
        case ClaimKey.REVOCATION:
            seckey = revocation_seckey(SECRETS[holder.other].revocation, secret(holder, number))
        case ClaimKey.PAYMENT:
            seckey = SECRETS[holder.other].payment
        case ClaimKey.DELAYED:
            seckey = derive_seckey(SECRETS[holder].delayed_payment, point(holder, number))
        case ClaimKey.HTLC:
            seckey = derive_seckey(SECRETS[holder.other].htlc, point(holder, number))
    return seckey if claim.tweak is None else keys.xonly_tweak_seckey(seckey, claim.tweak)


def claim_tx(commitment: Commitment, claims: Sequence[Claim]) -> Tx:
    """Return one signed transaction that takes everything these claims name."""
    amount_sat = sum(claim.prevout.amount_sat for claim in claims)
    tx = Tx(
        version=3,
        inputs=tuple(TxIn(outpoint=claim.outpoint, nsequence=claim.nsequence) for claim in claims),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=PAYOUT),),
        nlocktime=max(claim.nlocktime_min for claim in claims),
    )
    prevouts = [claim.prevout for claim in claims]
    witnesses = []
    for index, claim in enumerate(claims):
        signature = schnorr.sign(
            claim.sighash(tx, prevouts=prevouts, input_index=index),
            claim_seckey(commitment, claim),
        )
        shown = None
        if claim.needs_preimage:
            assert claim.htlc is not None
            shown = preimage(claim.htlc.htlc_id)
        witnesses.append(claim.witness(signature, preimage=shown))
    return tx.with_witnesses(*witnesses)


def is_accepted(tx: Tx, prevouts: Sequence[TxOut]) -> bool:
    try:
        check_scripts(tx, prevouts)
    except ScriptRefused:
        return False
    return True


def first_refused(tx: Tx, prevouts: Sequence[TxOut]) -> int | None:
    """Return the first input that the kernel refuses, if any."""
    try:
        check_scripts(tx, prevouts)
    except ScriptRefused as error:
        return error.input_index
    return None


def flipped(tx: Tx) -> Iterable[Tx]:
    """Yield the transaction with one bit of each witness item flipped, and of each amount."""
    for place, tx_in in enumerate(tx.inputs):
        for item in range(len(tx_in.witness)):
            damaged = list(tx_in.witness)
            body = bytearray(damaged[item])
            body[len(body) // 2] ^= 1
            damaged[item] = bytes(body)
            witnesses = [one.witness for one in tx.inputs]
            witnesses[place] = tuple(damaged)
            yield tx.with_witnesses(*witnesses)
    for place, tx_out in enumerate(tx.outputs):
        outputs = list(tx.outputs)
        outputs[place] = TxOut(amount_sat=tx_out.amount_sat ^ 1, script_pubkey=tx_out.script_pubkey)
        yield Tx(
            version=tx.version, inputs=tx.inputs, outputs=tuple(outputs), nlocktime=tx.nlocktime
        )
