"""Performs what live channels ask of the signer: nonces, halves of commitments, secrets."""

from cromford import effects as fx
from cromford.channel.htlc_tx import htlc_txs
from cromford.protocol import events as ev
from cromford.signing.derivation import ClaimKey
from cromford.signing.nonces import NonceFault, NoPoolFree
from cromford.signing.signer import Signer
from cromford.watch.sweep import CoinSignatureNeeded, SignatureNeeded

ChannelSigningEffect = (
    fx.PrepareNonce
    | fx.SignCommitment
    | fx.FinishCommitment
    | fx.RecallPoint
    | fx.SignTakingTx
    | fx.SignNext
    | fx.FinishNext
)


def perform_channel_signing(signer: Signer, effect: ChannelSigningEffect) -> ev.Event:
    """Perform one effect with the signer and return the event that answers it."""
    if isinstance(effect, fx.SignTakingTx):
        return _sign_spend(signer, effect)
    if isinstance(effect, fx.PrepareNonce):
        return _prepare_nonce(signer, effect)
    if isinstance(effect, fx.SignNext | fx.FinishNext):
        return _for_next(signer, effect)
    try:
        match effect:
            case fx.SignCommitment():
                return _sign_commitment(signer, effect)
            case fx.FinishCommitment():
                return _hold_commitment(signer, effect)
            case fx.RecallPoint(key=key, number=number):
                point = signer.per_commitment_point(key, number)
                return ev.PointRecalled(asked=effect, point=point)
    except (NonceFault, ValueError) as error:
        return ev.ChannelSigningFailed(asked=effect, reason=str(error))


def _for_next(
    signer: Signer, effect: fx.SignNext | fx.FinishNext
) -> ev.NextSigned | ev.NextHalfMade | ev.NextSigningFailed:
    try:
        match effect:
            case fx.SignNext():
                return _sign_next(signer, effect)
            case fx.FinishNext():
                return _finish_next(signer, effect)
    except (NonceFault, ValueError) as error:
        return ev.NextSigningFailed(asked=effect, reason=str(error))


def _prepare_nonce(signer: Signer, effect: fx.PrepareNonce) -> ev.NoncePrepared | ev.NonceLacking:
    try:
        pool = signer.make_pool(effect.key, size=1 + effect.n_next)
    except NoPoolFree:
        return ev.NonceLacking(asked=effect)
    return ev.NoncePrepared(asked=effect, pool=pool)


def _sign_commitment(signer: Signer, effect: fx.SignCommitment) -> ev.CommitmentMade:
    return ev.CommitmentMade(
        asked=effect, parts=tuple(_made_part(signer, effect, part) for part in effect.parts)
    )


def _made_part(signer: Signer, effect: fx.SignCommitment, part: fx.CommitmentPart) -> ev.MadePart:
    commitment = part.commitment
    pubnonce, partial_sig = signer.partial_sign_fresh(
        effect.key, commitment.signing_task, part.pubnonce
    )
    return ev.MadePart(
        pubnonce=pubnonce,
        partial_sig=partial_sig,
        htlc_signatures=tuple(
            signer.sign_claim(
                effect.key, ClaimKey.HTLC, effect.per_commitment_point, htlc.peer_sighash
            )
            for htlc in htlc_txs(commitment)
        ),
    )


def _sign_next(signer: Signer, effect: fx.SignNext) -> ev.NextSigned:
    pubnonce, partial_sig = signer.partial_sign_fresh(effect.key, effect.task, effect.pubnonce)
    return ev.NextSigned(
        asked=effect,
        pubnonce=pubnonce,
        partial_sig=partial_sig,
        htlc_signatures=tuple(
            signer.sign_claim(effect.key, ClaimKey.HTLC, effect.per_commitment_point, sighash)
            for sighash in effect.htlc_sighashes
        ),
    )


def _finish_next(signer: Signer, effect: fx.FinishNext) -> ev.NextHalfMade:
    task = effect.commitment.signing_task
    partial_sig = signer.partial_sign(effect.pool_id, effect.nonce_index, task, effect.aggnonce)
    return ev.NextHalfMade(asked=effect, partial_sig=partial_sig)


def _hold_commitment(signer: Signer, effect: fx.FinishCommitment) -> ev.HalfMade:
    number = effect.parts[0].commitment.content.number
    return ev.HalfMade(
        asked=effect,
        partial_sigs=tuple(
            signer.partial_sign(
                part.pool_id, part.nonce_index, part.commitment.signing_task, part.aggnonce
            )
            for part in effect.parts
        ),
        secret=signer.per_commitment_secret(effect.key, number - 1),
        next_point=signer.per_commitment_point(effect.key, number + 1),
        pool=signer.make_pool(effect.key, size=effect.n_nonces, after=effect.after),
    )


def _sign_spend(signer: Signer, effect: fx.SignTakingTx) -> ev.TakingTxSigned:
    signatures = [_signature(signer, effect, needed) for needed in effect.spend.signatures_needed]
    return ev.TakingTxSigned(asked=effect, tx=effect.spend.signed(signatures))


def _signature(
    signer: Signer, effect: fx.SignTakingTx, needed: SignatureNeeded | CoinSignatureNeeded
) -> bytes:
    if isinstance(needed, CoinSignatureNeeded):
        path = needed.path
        return signer.sign_coin(path.change, path.index, needed.sighash)
    return signer.sign_claim(
        effect.key, needed.key, needed.secret_or_point, needed.sighash, tweak=needed.tweak
    )
