"""What must be published now for a channel whose output is on chain.

It depends only on what a party holds and what the chain shows, so it resumes from any
half-published state: asked again, it names the same transactions until they or their rivals
have confirmed.

Outputs that nobody else can ever take are swept together, because that is cheapest, and at the rate
of a day, for they can wait. Those that the peer may take later go in another transaction: it is a
race, and what it costs comes out of them alone. An output that the peer may take already goes by
itself: together with others, the peer's own transaction for it, as long as it waits unconfirmed,
would keep all of them out of the mempool.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.commitment import Commitment
from cromford.channel.scripts import PREIMAGE_SIZE
from cromford.crypto.keys import sha256
from cromford.watch.exit import WaitForFunding
from cromford.watch.feerates import (
    RISING_BLOCKS,
    SWEEP_BLOCKS,
    blocks_left,
    path_budget_sat,
    penalty_budget_sat,
    racing_fee_sat,
)
from cromford.watch.landed import (
    HtlcTxDue,
    LandedChannel,
    PreimageMissing,
    RevokedCommitment,
    Sweepable,
    takings,
)
from cromford.watch.sweep import TakingTx, htlc_spend, sweep


@dataclass(frozen=True, kw_only=True)
class PublishCommitment:
    """Broadcast this party's commitment. Whoever wants to stay in the channel does not."""

    tx: Tx


@dataclass(frozen=True, kw_only=True)
class NeedsChild:
    """This is due, and pays no fee: the published channel type wants a child or inputs for it."""

    due: PublishCommitment | TakingTx


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Wait: what `name` says can be in the block at `height` at the earliest."""

    name: str
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitPreimage:
    """An HTLC waits for its preimage; after `expiry_height` the peer may take it back."""

    name: str
    payment_hash: bytes
    expiry_height: int


@dataclass(frozen=True, kw_only=True)
class Unrecognised:
    """The channel's output was spent, by no commitment that is known here.

    A revoked commitment, which `commitment_number_of` tells: ask again with it. A commitment that
    this party forgot, whose `to_remote` it takes all the same. A cooperative close or a poison
    transaction otherwise, and then there is nothing to do here. `pays_us` says that it has outputs
    which this party takes.
    """

    tx: Tx
    pays_us: bool = False


ChannelAction = (
    WaitForFunding | PublishCommitment | NeedsChild | TakingTx | Wait | AwaitPreimage | Unrecognised
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """An output that is not worth its fee, or leaves less than dust, at the feerate given."""

    name: str
    outpoint: OutPoint
    amount_sat: int


def channel_actions(channel: LandedChannel) -> tuple[ChannelAction, ...]:
    """Return what is to be published, signed or waited for now; nothing once all is taken.

    What `left_behind` lists is not waited for.
    """
    spender = channel.spends.get(channel.outpoint)
    if spender is None:
        return tuple(_departure(channel))
    if channel.landed is None:
        pays_us = channel.unknown is not None and bool(channel.unknown.claims)
        return (Unrecognised(tx=spender, pays_us=pays_us), *_plan(channel).actions)
    return tuple(_plan(channel).actions)


def left_behind(channel: LandedChannel) -> tuple[LeftBehind, ...]:
    """Return this party's outputs that are left at this feerate; a lower one may take them."""
    return tuple(_plan(channel).left)


def outpoints_of_interest(channel: LandedChannel) -> tuple[OutPoint, ...]:
    """Return the outpoints whose confirmed spends decide what comes next.

    With the spends of these, further ones may come: ask until none is new. None is dropped when
    it was spent, so that a reorganisation is seen too.
    """
    return (channel.outpoint, *(taking.outpoint for taking in takings(channel)))


def preimages_seen(channel: LandedChannel) -> dict[bytes, bytes]:
    """Return the preimages that the peer showed on chain, by payment hash.

    It takes an HTLC that this party offered with its preimage, and with the same preimage this
    party is paid for it elsewhere.
    """
    landed = channel.landed
    if landed is None:
        return {}
    seen = {}
    for payment_hash, outpoint in _offered(landed.commitment, channel):
        spender = channel.spends.get(outpoint)
        shown = {} if spender is None else preimages_in(spender)
        if payment_hash in shown:
            seen[payment_hash] = shown[payment_hash]
    return seen


def preimages_in(tx: Tx) -> dict[bytes, bytes]:
    """Return all that a transaction shows that may be a preimage, by its hash."""
    items = (item for tx_in in tx.inputs for item in tx_in.witness if len(item) == PREIMAGE_SIZE)
    return {sha256(item): item for item in items}


def _offered(commitment: Commitment, channel: LandedChannel) -> list[tuple[bytes, OutPoint]]:
    return [
        (output.htlc.payment_hash, commitment.tx.outpoint(vout))
        for vout, output in enumerate(commitment.outputs)
        if output.htlc is not None and output.htlc.offered_by is channel.me
    ]


def _departure(channel: LandedChannel) -> Iterator[ChannelAction]:
    """Yield how our commitment is published; nothing where we have revoked all of them."""
    if channel.outpoint.txid not in channel.heights:
        yield WaitForFunding()
    elif channel.finished is not None:
        publish = PublishCommitment(tx=channel.finished.tx)
        is_zero_fee = channel.finished.commitment.terms.is_zero_fee
        yield NeedsChild(due=publish) if is_zero_fee else publish


@dataclass
class _Plan:
    actions: list[ChannelAction] = field(default_factory=list)
    left: list[LeftBehind] = field(default_factory=list)


def _plan(channel: LandedChannel) -> _Plan:
    """Sort what is not spent yet by what is to be done about it."""
    plan = _Plan()
    unhurried: list[Sweepable] = []
    racing: list[Sweepable] = []
    for taking in takings(channel):
        if taking.outpoint in channel.spends:
            continue
        match taking:
            case Sweepable():
                if taking.rival_height is None and not _is_worth_its_fee(channel, taking):
                    plan.left.append(_left(taking))
                elif not _is_due(channel, taking.height):
                    plan.actions.append(Wait(name=taking.name, height=taking.height))
                elif taking.rival_height is None:
                    unhurried.append(taking)
                elif _is_due(channel, taking.rival_height):
                    _sweep(channel, plan, [taking], suffix=f" {taking.name}")
                else:
                    racing.append(taking)
            case HtlcTxDue():
                plan.actions.append(_htlc_tx_action(channel, taking))
            case PreimageMissing(htlc=htlc):
                if channel.tip_height < htlc.cltv_expiry:
                    plan.actions.append(
                        AwaitPreimage(
                            name=taking.name,
                            payment_hash=htlc.payment_hash,
                            expiry_height=htlc.cltv_expiry,
                        )
                    )
            case _:
                assert_never(taking)
    # What only we can take is no part of what a race may cost.
    if racing:
        is_penalty = isinstance(channel.landed, RevokedCommitment)
        # Where none is worth a day's rate, what they can pay may still do before the rival comes.
        worth = [taking for taking in racing if _is_worth_its_fee(channel, taking)] or racing
        plan.left.extend(_left(taking) for taking in racing if taking not in worth)
        _sweep(channel, plan, worth, suffix="" if is_penalty else " htlcs")
    if unhurried:
        _sweep(channel, plan, unhurried)
    return plan


def _is_due(channel: LandedChannel, height: int) -> bool:
    return channel.tip_height + 1 >= height


def _is_worth_its_fee(channel: LandedChannel, taking: Sweepable) -> bool:
    feerate = channel.fees.day_sat_per_kw
    return feerate is not None and taking.input.prevout.amount_sat > taking.input.fee_sat(feerate)


def _sweep(
    channel: LandedChannel, plan: _Plan, chosen: Sequence[Sweepable], *, suffix: str = ""
) -> None:
    kind = "sweep"
    if chosen[0].rival_height is not None and isinstance(channel.landed, RevokedCommitment):
        kind = "penalty"
    spend = sweep(
        kind + suffix,
        [taking.input for taking in chosen],
        payout_script=channel.payout_script,
        fee_sat=partial(_fee_sat, channel, chosen),
    )
    if spend is None:
        plan.left.extend(_left(taking) for taking in chosen)
    else:
        plan.actions.append(spend)


def _fee_sat(channel: LandedChannel, chosen: Sequence[Sweepable], vsize: int) -> int | None:
    """Return what a sweep of these pays now; None if that is more than they are worth."""
    rivals = {taking.rival_height for taking in chosen if taking.rival_height is not None}
    if not rivals:
        feerate = channel.fees.within(SWEEP_BLOCKS)
        return fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate)
    if isinstance(channel.landed, RevokedCommitment):
        return _penalty_fee_sat(channel, chosen, vsize, rival_height=min(rivals))
    fees_sat = (_racing_fee_sat(channel, chosen, vsize, rival_height=rival) for rival in rivals)
    return max((fee_sat for fee_sat in fees_sat if fee_sat is not None), default=None)


def _racing_fee_sat(
    channel: LandedChannel, chosen: Sequence[Sweepable], vsize: int, *, rival_height: int
) -> int | None:
    """Return what a sweep pays so as not to lose what rivals may take at a height, or before.

    Only that pays for it: of what ends later there is nothing to lose yet.
    """
    stake_sat = sum(
        taking.input.prevout.amount_sat
        for taking in chosen
        if taking.rival_height is not None and taking.rival_height <= rival_height
    )
    return racing_fee_sat(
        vsize,
        fees=channel.fees,
        budget_sat=path_budget_sat(stake_sat),
        # A preimage that came late does not cost the blocks before it.
        first_height=max(_first_height(chosen), rival_height - RISING_BLOCKS),
        height=channel.tip_height,
        rival_height=rival_height,
    )


def _penalty_fee_sat(
    channel: LandedChannel, chosen: Sequence[Sweepable], vsize: int, *, rival_height: int
) -> int | None:
    """Return what a penalty pays before the first rival: what it takes is none of our own."""
    stake_sat = sum(taking.input.prevout.amount_sat for taking in chosen)
    left = blocks_left(deadline_height=rival_height, height=channel.tip_height)
    return racing_fee_sat(
        vsize,
        fees=channel.fees,
        budget_sat=penalty_budget_sat(stake_sat, blocks_left=left),
        first_height=_first_height(chosen),
        height=channel.tip_height,
        rival_height=rival_height,
    )


def _first_height(chosen: Sequence[Sweepable]) -> int:
    """Return the tip at the first broadcast of the first of them.

    What the rival adds later does not make it cheaper again.
    """
    return min(taking.height for taking in chosen) - 1


def _left(taking: Sweepable) -> LeftBehind:
    return LeftBehind(
        name=taking.name,
        outpoint=taking.outpoint,
        amount_sat=taking.input.prevout.amount_sat,
    )


def _htlc_tx_action(channel: LandedChannel, taking: HtlcTxDue) -> ChannelAction:
    if not _is_due(channel, taking.height):
        return Wait(name=taking.name, height=taking.height)
    spend = htlc_spend(taking.name, taking.input)
    return NeedsChild(due=spend) if taking.input.htlc_tx.is_zero_fee else spend
