"""What an exit from a channel costs and gives, before anything is published.

The exit itself is played through on a chain where every transaction is in the next block and the
peer does nothing, so the list cannot say anything but what the exit does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cromford.bitcoin.script import P2TR_PROGRAM_SIZE, p2tr_script
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.finished import FinishedCommitment
from cromford.watch.channel_exit import (
    LeftBehind,
    NeedsChild,
    PublishCommitment,
    Wait,
    channel_actions,
    left_behind,
)
from cromford.watch.feerates import OwnFees
from cromford.watch.landed import LandedChannel
from cromford.watch.sweep import HtlcInput, TakingTx

COMMITMENT_NAME: Final = "commitment"
# As long as the wallet's own script, and the point is only handed to a signer.
_SOME_SCRIPT: Final = p2tr_script(bytes(P2TR_PROGRAM_SIZE))
_SOME_POINT: Final = bytes(33)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCostStep:
    """One transaction.

    Attributes:
        name: For lists.
        vsize: In virtual bytes.
        fee_sat: What it pays itself.
        delay_blocks: How long after the channel's output it can be mined.
        is_agreed: Whether its fee was agreed with the peer: what the day asks beyond, a child pays.
        outpoint: What it spends, the first of several.
    """

    name: str
    vsize: int
    fee_sat: int
    delay_blocks: int
    is_agreed: bool
    outpoint: OutPoint


@dataclass(frozen=True, kw_only=True)
class ExitCost:
    """The transactions in their order, what reaches the wallet, and what is not worth its fee."""

    steps: tuple[ExitCostStep, ...]
    remainder_sat: int
    left_behind: tuple[LeftBehind, ...]


def exit_cost_of(
    finished: FinishedCommitment,
    *,
    landed_height: int,
    fees: OwnFees,
    preimages: Mapping[bytes, bytes],
) -> ExitCost:
    """Return what the holder of a commitment publishes, pays and gets if the peer does nothing.

    HTLCs that it offered come back after their expiry; of those offered to it, only what it
    knows the preimage of counts.

    Args:
        finished: Its own latest commitment.
        landed_height: Where the channel's output confirms.
        fees: What the sweeps are priced by.
        preimages: By payment hash.
    """
    commitment = finished.commitment
    channel = LandedChannel(
        finished=finished,
        own_point=_SOME_POINT,
        preimages=preimages,
        heights={commitment.funding.outpoint.txid: landed_height},
        tip_height=landed_height,
        payout_script=_SOME_SCRIPT,
        fees=fees,
    )
    steps: list[ExitCostStep] = []
    remainder_sat = 0
    while (height := _next_height(channel)) is not None:
        for due in channel_actions(replace(channel, tip_height=height - 1)):
            action = due.due if isinstance(due, NeedsChild) else due
            if isinstance(action, PublishCommitment | TakingTx):
                step, tx = _published(finished, action, delay_blocks=height - landed_height)
                steps.append(step)
                remainder_sat += sum(
                    txout.amount_sat
                    for txout in tx.outputs
                    if txout.script_pubkey == channel.payout_script
                )
                channel = _with_mined(channel, tx, height)
        channel = replace(channel, tip_height=height)
    return ExitCost(
        steps=tuple(steps),
        remainder_sat=remainder_sat,
        left_behind=left_behind(channel),
    )


def _next_height(channel: LandedChannel) -> int | None:
    """Return the next block that holds something, or None if nothing is left to do."""
    actions = channel_actions(channel)
    if any(isinstance(action, PublishCommitment | TakingTx | NeedsChild) for action in actions):
        return channel.tip_height + 1
    return min((action.height for action in actions if isinstance(action, Wait)), default=None)


def _published(
    finished: FinishedCommitment, action: PublishCommitment | TakingTx, *, delay_blocks: int
) -> tuple[ExitCostStep, Tx]:
    if isinstance(action, TakingTx):
        tx, name, fee_sat = action.tx, action.name, action.fee_sat
        vsize = action.vsize
        is_agreed = isinstance(action.inputs[0], HtlcInput)
    else:
        is_agreed = True
        tx, name, vsize = action.tx, COMMITMENT_NAME, action.tx.vsize
        paid_sat = sum(txout.amount_sat for txout in tx.outputs)
        fee_sat = finished.commitment.funding.capacity_sat - paid_sat
    step = ExitCostStep(
        name=name,
        vsize=vsize,
        fee_sat=fee_sat,
        delay_blocks=delay_blocks,
        is_agreed=is_agreed,
        outpoint=tx.inputs[0].outpoint,
    )
    return step, tx


def _with_mined(channel: LandedChannel, tx: Tx, height: int) -> LandedChannel:
    return replace(
        channel,
        spends={**channel.spends, **{tx_in.outpoint: tx for tx_in in tx.inputs}},
        heights={**channel.heights, tx.txid: height},
    )
