"""Collect the partial signatures of many sessions, from many signers, at once.

Contributions are idempotent, holdouts are known at any time, and blame is sought only when an
aggregate is bad: verifying every partial signature costs twice the signing itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cromford.crypto.musig2 import InvalidContribution, is_partial_sig, nonce_agg
from cromford.signing.task import SigningTask


class FaultyContribution(ValueError):
    """A signer's contribution is provably wrong."""

    def __init__(self, signer: bytes, session_name: str, contribution: str) -> None:
        super().__init__(f"{session_name}: bad {contribution} from {signer.hex()}")
        self.signer = signer
        self.session_name = session_name
        self.contribution = contribution


@dataclass(frozen=True, kw_only=True)
class SigningSession:
    """One task, with the public nonce of each signer and their aggregate."""

    task: SigningTask
    pubnonces: Mapping[bytes, bytes]  # by pubkey, of every signer and nobody else
    aggnonce: bytes


@dataclass(frozen=True, kw_only=True)
class SigningRound:
    """A batch of sessions and what has arrived, as a value.

    `partial_sigs` maps a session's name to the partial signature of each pubkey.
    """

    sessions: Mapping[str, SigningSession]
    partial_sigs: Mapping[str, Mapping[bytes, bytes]] = field(default_factory=dict)

    def holdouts(self) -> frozenset[bytes]:
        """Return the pubkeys of all who still owe a partial signature."""
        return frozenset(
            signer
            for name, session in self.sessions.items()
            # Nobody else contributes, so where there are as many, there are all.
            if len(given := self.partial_sigs.get(name, {})) < len(session.pubnonces)
            for signer in session.pubnonces
            if signer not in given
        )

    def with_contribution(self, signer: bytes, partial_sigs: Mapping[str, bytes]) -> "SigningRound":
        """Return the round after one signer's partial signatures arrived. Repeats are harmless.

        Raises:
            FaultyContribution: As `with_contributions` does.
        """
        return self.with_contributions(((signer, partial_sigs),))

    def with_contributions(
        self, contributions: Iterable[tuple[bytes, Mapping[str, bytes]]]
    ) -> "SigningRound":
        """Return the round after the partial signatures of several signers, each by session.

        Raises:
            FaultyContribution: If one is malformed, for a session that is not theirs, or differs
                from what the same signer sent before.
        """
        merged = {name: dict(given) for name, given in self.partial_sigs.items()}
        for signer, partial_sigs in contributions:
            for name, partial_sig in partial_sigs.items():
                session = self.sessions.get(name)
                if session is None or signer not in session.pubnonces:
                    raise FaultyContribution(signer, name, "session")
                if not is_partial_sig(partial_sig):
                    raise FaultyContribution(signer, name, "partial_sig")
                if merged.setdefault(name, {}).setdefault(signer, partial_sig) != partial_sig:
                    raise FaultyContribution(signer, name, "second, different partial_sig")
        return SigningRound(sessions=self.sessions, partial_sigs=merged)

    def signatures(self) -> dict[str, bytes]:
        """Return every session's final signature, verified.

        Raises:
            FaultyContribution: If a signature is bad, naming who spoiled it.
            ValueError: If somebody still holds out.
        """
        if self.holdouts():
            raise ValueError(f"{len(self.holdouts())} signers hold out")
        return {
            name: _aggregate(session, self.partial_sigs[name])
            for name, session in self.sessions.items()
        }


def _aggregate(session: SigningSession, partial_sigs: Mapping[bytes, bytes]) -> bytes:
    opened = session.task.session(session.aggnonce)
    signature = opened.partial_sig_agg([partial_sigs[signer] for signer in session.task.signers])
    if session.task.is_signed_by(signature, session.task.key_agg.output_key):
        return signature
    for signer in session.task.signers:
        if not opened.partial_sig_verify(
            partial_sig=partial_sigs[signer], pubnonce=session.pubnonces[signer], pubkey=signer
        ):
            raise FaultyContribution(signer, session.task.name, "partial_sig")
    raise AssertionError("a bad aggregate of good partial signatures")


def aggregate_nonces(pubnonces: Mapping[bytes, bytes]) -> bytes:
    """Return the aggregate of one session's public nonces, given by pubkey.

    Raises:
        FaultyContribution: If one is malformed, naming its signer.
    """
    try:
        return nonce_agg([*pubnonces.values()])
    except InvalidContribution as error:
        raise FaultyContribution([*pubnonces][error.signer_index], "", "pubnonce") from error
