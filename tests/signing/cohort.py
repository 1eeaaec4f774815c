"""Signers of several sessions at once, each with a pool of nonces."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from cromford.bitcoin.taproot import tweaked_key_agg
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of, sha256
from cromford.crypto.musig2 import KeyAgg
from cromford.signing.nonces import NoncePool
from cromford.signing.round import SigningRound, SigningSession, aggregate_nonces
from cromford.signing.task import SigningTask

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@cache
def seckey(signer: int) -> bytes:
    return sha256(f"test signer {signer}".encode())


@cache
def pubkey(signer: int) -> bytes:
    return pubkey_of(seckey(signer))


@dataclass
class Cohort:
    """Sessions, who is in each of them, and everybody's honest contribution."""

    sessions: dict[str, SigningSession]
    contributions: dict[bytes, dict[str, bytes]]

    @property
    def empty_round(self) -> SigningRound:
        return SigningRound(sessions=self.sessions)

    @property
    def full_round(self) -> SigningRound:
        return self.round_with(self.contributions)

    def round_with(self, contributions: dict[bytes, dict[str, bytes]]) -> SigningRound:
        collected = self.empty_round
        for signer, partial_sigs in contributions.items():
            collected = collected.with_contribution(signer, partial_sigs)
        return collected


def cohort_of(memberships: Sequence[Sequence[int]], *, merkle_root: bytes | None = None) -> Cohort:
    """Return sessions `s0`, `s1` and so on with these signers, ready to be collected."""
    everybody = sorted({signer for members in memberships for signer in members})
    pools = {
        pubkey(signer): NoncePool(Keypair(seckey(signer)), size=len(memberships))
        for signer in everybody
    }
    sessions: dict[str, SigningSession] = {}
    contributions: dict[bytes, dict[str, bytes]] = {pubkey(signer): {} for signer in everybody}
    for place, members in enumerate(memberships):
        task = SigningTask(
            name=f"s{place}",
            sighash=sha256(f"message {place}".encode()),
            key_agg=tweaked_key_agg(KeyAgg([pubkey(signer) for signer in members]), merkle_root),
        )
        pubnonces = {signer: pools[signer].public.pubnonces[place] for signer in task.signers}
        aggnonce = aggregate_nonces(pubnonces)
        sessions[task.name] = SigningSession(task=task, pubnonces=pubnonces, aggnonce=aggnonce)
        for signer in task.signers:
            contributions[signer][task.name] = pools[signer].partial_sign(place, task, aggnonce)
    return Cohort(sessions=sessions, contributions=contributions)


def shifted(partial_sig: bytes, by: int) -> bytes:
    """Return another, well-formed partial signature."""
    return ((int.from_bytes(partial_sig, "big") + by) % ORDER).to_bytes(32, "big")
