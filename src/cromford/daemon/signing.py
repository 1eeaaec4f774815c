"""Performs the effects that need secrets, and derives the keys that `verify` compares.

With `channel_signing` the only caller of `Signer`, but for invoices: a client signs one before it
becomes an event.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.daemon.channel_signing import perform_channel_signing
from cromford.daemon.metrics import Sample
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.first_commitments import LSP_CHANNEL_POOL_SIZE
from cromford.protocol.opening.verify import DerivedKeys, held_points
from cromford.signing.keychain import ChannelKey, FactoryKey
from cromford.signing.nonces import NonceFault, NoPoolFree, PublicPool
from cromford.signing.signer import Signer
from cromford.wallet.account import WalletPath
from cromford.watch.bumping import ChildTx

DRAWN_SIZE: Final = 32  # Of an attempt's name, of a preimage, of a payment secret.

SigningEffect = (
    fx.PrepareJoin
    | fx.PrepareMove
    | fx.PrepareAttempt
    | fx.PartialSign
    | fx.PrepareClose
    | fx.PrepareAdvance
    | fx.SignNext
    | fx.FinishNext
    | fx.DropPools
    | fx.SignFunding
    | fx.SignSpending
    | fx.PrepareNonce
    | fx.SignCommitment
    | fx.FinishCommitment
    | fx.RecallPoint
    | fx.SignTakingTx
    | fx.SignSweep
    | fx.SignPayouts
    | fx.SignJointSweep
)


def draw() -> bytes:
    """Return random bytes that nobody can guess."""
    return secrets.token_bytes(DRAWN_SIZE)


def perform_signing(
    signer: Signer, draw: Callable[[], bytes], effect: SigningEffect
) -> tuple[ev.Event, ...]:
    """Perform one effect with the signer and return the events that answer it.

    Args:
        signer: Has the secrets.
        draw: Returns 32 random bytes.
        effect: What was asked for.
    """
    match effect:
        case fx.SignCommitment() | fx.FinishCommitment():  # Most effects are one.
            return (perform_channel_signing(signer, effect),)
        case fx.PrepareJoin():
            return (_prepare_join(signer, effect),)
        case fx.PrepareMove():
            return (ev.MovePrepared(asked=effect, preimage=draw(), payment_secret=draw()),)
        case fx.PrepareAttempt():
            return (_prepare_attempt(signer, draw, effect),)
        case fx.PartialSign():
            return (_partial_sign(signer, effect),)
        case fx.PrepareClose():
            return (_prepare_close(signer, effect),)
        case fx.PrepareAdvance():
            return (_prepare_advance(signer, effect),)
        case fx.DropPools(pool_ids=pool_ids):
            for pool_id in pool_ids:
                signer.drop_pool(pool_id)
            return ()
        case fx.SignFunding():
            paths = [(path.change, path.index) for path in effect.paths]
            tx, *higher = (
                signer.sign_wallet_tx(unsigned, effect.prevouts, paths)
                for unsigned in (effect.tx, *effect.higher)
            )
            return (ev.FundingSigned(asked=effect, tx=tx, higher=tuple(higher)),)
        case fx.SignSpending():
            tx = signer.sign_wallet_tx(
                effect.tx, effect.prevouts, [(path.change, path.index) for path in effect.paths]
            )
            return (ev.SpendingSigned(asked=effect, tx=tx),)
        case fx.SignSweep(key=key, spend=spend):
            signature = signer.sign_timelocked(key, spend.lock, spend.tx, (spend.prevout,))
            return (ev.SweepSigned(asked=effect, tx=spend.signed(signature)),)
        case fx.SignPayouts():
            return (ev.PayoutsSigned(asked=effect, tx=_signed_payouts(signer, effect)),)
        case fx.SignJointSweep():
            return (ev.JointSweepSigned(asked=effect, tx=_signed_jointly(signer, effect)),)
        case _:
            return (perform_channel_signing(signer, effect),)


def sign_child(signer: Signer, child: ChildTx) -> Tx:
    """Return a child with the signatures of our coins, or of a poison's output; an anchor has none.

    Raises:
        ValueError: If what a factory key is to sign for does not pay that key alone.
    """
    paths = [
        (path.change, path.index) if isinstance(path, WalletPath) else None for path in child.paths
    ]
    signed = signer.sign_wallet_tx(child.tx, child.prevouts, paths)
    witnesses = [
        (signer.sign_payout(path, child.tx, child.prevouts, input_index=index),)
        if isinstance(path, FactoryKey)
        else signed.inputs[index].witness
        for index, path in enumerate(child.paths)
    ]
    return signed.with_witnesses(*witnesses)


def _signed_payouts(signer: Signer, effect: fx.SignPayouts) -> Tx:
    spend = effect.spend
    return spend.signed(
        [
            signer.sign_payout(effect.key, spend.tx, spend.prevouts, input_index=index)
            for index in range(len(spend.prevouts))
        ]
    )


def derive_keys(signer: Signer, state: ClientState, attempt: ClientAttempt) -> DerivedKeys:
    """Return the public keys that a client's seed derives for an attempt, for a comparison."""
    names = [
        ChannelKey(attempt=attempt.key_attempt, channel=0, candidate=candidate)
        for candidate in range(len(attempt.join.candidates))
    ]
    number, _ = held_points(state, attempt)
    return DerivedKeys(
        factory_pubkey=signer.factory_pubkey(attempt.key_attempt),
        channels=tuple(signer.channel_pubkeys(name) for name in names),
        commitment_points=(
            signer.per_commitment_point(names[attempt.rung], number),
            signer.per_commitment_point(names[attempt.rung], number + 1),
        ),
    )


def _signed_jointly(signer: Signer, effect: fx.SignJointSweep) -> Tx:
    spend = effect.spend
    return spend.signed(
        [
            signer.sign_timelocked(key, member.lock, spend.tx, spend.prevouts, input_index=index)
            for index, (key, member) in enumerate(zip(effect.keys, spend.members, strict=True))
        ]
    )


def attempt_prepared(
    signer: Signer, draw: Callable[[], bytes], effect: fx.PrepareAttempt
) -> Iterator[ev.AttemptPrepared | None]:
    """Yield at last the factory's pool, and of each candidate the keys and pools of all channels.

    Before it yields None between them, where others may have a turn.

    Raises:
        NoPoolFree: If there is no room for one of them; none is kept then.
    """
    attempt = effect.attempt
    attempt_id = draw()
    made: list[PublicPool] = []

    def pool_of(name: FactoryKey | ChannelKey, size: int) -> PublicPool:
        made.append(signer.make_pool(name, size))
        return made[-1]

    try:
        factory_pool = pool_of(FactoryKey(attempt=attempt), effect.pool_size)
        of_candidates = []
        for candidate in range(effect.n_candidates):
            channels = []
            for client in range(1, effect.n_clients + 1):
                yield None
                name = ChannelKey(attempt=attempt, channel=client, candidate=candidate)
                channels.append(
                    (signer.channel_pubkeys(name), pool_of(name, LSP_CHANNEL_POOL_SIZE))
                )
            of_candidates.append(tuple(channels))
    except NoPoolFree:
        for pool in made:
            signer.drop_pool(pool.pool_id)
        raise
    first, *higher = of_candidates
    yield ev.AttemptPrepared(
        asked=effect,
        attempt_id=attempt_id,
        factory_pool=factory_pool,
        channels=first,
        higher=tuple(higher),
    )


def _prepare_attempt(
    signer: Signer, draw: Callable[[], bytes], effect: fx.PrepareAttempt
) -> ev.AttemptPrepared:
    """Make all of it at once."""
    return next(filter(None, attempt_prepared(signer, draw, effect)))


def _prepare_join(signer: Signer, effect: fx.PrepareJoin) -> ev.JoinPrepared:
    names = [
        ChannelKey(attempt=effect.attempt, channel=0, candidate=candidate)
        for candidate in range(effect.n_candidates)
    ]
    signature = None
    if effect.move is not None:
        old_attempt, statement = effect.move
        signature = signer.sign_move(FactoryKey(attempt=old_attempt), statement)
    return ev.JoinPrepared(
        asked=effect,
        factory_pool=signer.make_pool(FactoryKey(attempt=effect.attempt), effect.pool_size),
        channels=tuple(
            (signer.channel_pubkeys(name), signer.make_pool(name, effect.pool_size))
            for name in names
        ),
        move_signature=signature,
    )


def _prepare_close(signer: Signer, effect: fx.PrepareClose) -> ev.CloseEvent:
    try:
        pool = signer.make_pool(effect.key, effect.n_options)
    except NoPoolFree as error:
        return ev.CloseUnprepared(asked=effect, reason=str(error))
    return ev.ClosePrepared(asked=effect, pool=pool)


def _prepare_advance(signer: Signer, effect: fx.PrepareAdvance) -> ev.AdvanceEvent:
    """Make all pools of an advance, or none."""
    made: list[PublicPool] = []
    try:
        made.append(signer.make_pool(effect.factory_key, effect.factory_size))
        for key in effect.channel_keys:
            made.append(signer.make_pool(key, effect.channel_size))  # noqa: PERF401 - dropped below
    except NoPoolFree as error:
        for pool in made:
            signer.drop_pool(pool.pool_id)
        return ev.AdvanceUnprepared(asked=effect, reason=str(error))
    return ev.AdvancePrepared(asked=effect, factory_pool=made[0], channel_pools=tuple(made[1:]))


def _partial_sign(signer: Signer, effect: fx.PartialSign) -> ev.Event:
    try:
        for one in effect.bound:
            signer.bind(one.pool_id, one.nonce_index, one.task, one.aggnonce)
        partial_sigs = tuple(
            (
                request.task.name,
                signer.partial_sign(
                    request.pool_id, request.nonce_index, request.task, request.aggnonce
                ),
            )
            for request in effect.requests
        )
    except (NonceFault, ValueError) as error:
        return ev.SigningFailed(asked=effect, reason=str(error))
    return ev.PartialSigned(asked=effect, partial_sigs=partial_sigs)


def nonce_samples(signer: Signer) -> Iterator[Sample]:
    """Yield for Prometheus how many nonces are in memory."""
    counts = signer.n_nonces()
    yield "nonce_pools", {}, counts.n_pools
    yield "nonces", {"status": "used"}, counts.n_used
    yield "nonces", {"status": "left"}, counts.n_left
