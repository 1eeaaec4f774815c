"""What leaving takes, as a client's operator reads it: from the root down to the wallet."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, assert_never

from cromford.answers.exits import (
    DueOnChain,
    DueStatus,
    ExitFees,
    ExitPlan,
    ExitStepStanding,
    OutOfTheChannel,
)
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB, sat_per_vb
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import WITNESS_SCALE, Txid
from cromford.daemon.views.client import remaining_now
from cromford.daemon.views.closes import own_close
from cromford.daemon.views.poisons import describe_superseded, superseded
from cromford.factory.exit_path import ExitStep, exit_path
from cromford.factory.terms import FeePolicy
from cromford.protocol.exiting.channel import landed_channel
from cromford.protocol.exiting.client import in_hand, was_closed
from cromford.protocol.exiting.confirming import purses_of
from cromford.protocol.exiting.in_hand import InHand
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.known_chain import KnownChain
from cromford.watch.channel_exit import (
    AwaitPreimage,
    ChannelAction,
    NeedsChild,
    PublishCommitment,
    Unrecognised,
    Wait,
    channel_actions,
    left_behind,
)
from cromford.watch.children_cost import children_cost, without_coins_sat_per_kw
from cromford.watch.exit import (
    ChannelOnChain,
    ExitAction,
    Publish,
    WaitForFunding,
    WaitForHeight,
    next_exit_action,
)
from cromford.watch.exit_cost import COMMITMENT_NAME, ExitCost, exit_cost_of
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees
from cromford.watch.landed import LandedChannel
from cromford.watch.sweep import TakingTx

CLOSED: Final = "nothing: a close of the channel is in a block"
GONE: Final = "nothing: a block has something else in the place of what leads to the channel"
FEERATES_SAT_PER_VB: Final = (1, 10, 50)  # At which an exit's cost is shown.


def exit_plan(state: ClientState, attempt: ClientAttempt, fees: OwnFees) -> ExitPlan:
    """Return what leaving takes: transactions, fees, blocks, and what comes next.

    Of what is in a block, or can be in none any more, nothing is paid for; and once nothing is left
    to do, no time is to be allowed for it.
    """
    signed = attempt.signed_branch_on(state.chain)
    steps = exit_path(signed)
    action = next_exit_action(
        signed, confirmed=state.chain.confirmed, tip_height=state.chain.height
    )
    total_vsize = sum(step.tx.vsize for step in steps)
    lost = _lost(steps, state.chain)
    leaving = None if lost else _out_of_the_channel(state, attempt, fees)
    path = {step.tx.txid: FeeAndWeight(step.fee_sat, step.tx.weight) for step in steps}
    left = [txid for txid in path if txid not in lost and txid not in state.chain.confirmed]
    agreed = [path[txid] for txid in left]
    is_done = not agreed and (bool(lost) or (leaving is not None and not leaving.steps))
    out = [one for one in (() if leaving is None else leaving.steps) if one.is_agreed]
    agreed += [FeeAndWeight(one.fee_sat, WITNESS_SCALE * one.vsize) for one in out]
    n_htlcs = sum(one.name != COMMITMENT_NAME for one in out)
    today = _fees_at(agreed, n_htlcs, fees.within(SWEEP_BLOCKS), fees)
    return {
        "factory_id": attempt.attempt_id.hex(),
        "steps": [
            {
                "name": step.name,
                "txid": str(step.tx.txid),
                "vsize": step.tx.vsize,
                "fee_sat": step.fee_sat,
                "delay_blocks": step.delay_blocks,
                **_step_status(state, step, action, lost),
            }
            for step in steps
        ],
        "n_transactions": len(steps),
        "total_vsize": total_vsize,
        "total_fee_sat": sum(step.fee_sat for step in steps),
        "total_delay_blocks": sum(step.delay_blocks for step in steps),
        "exit_blocks": 0 if is_done else remaining_now(state, attempt).exit_blocks,
        "fees_at": [
            _fees_at(agreed, n_htlcs, feerate * SAT_PER_KW_OF_SAT_PER_VB, fees)
            for feerate in FEERATES_SAT_PER_VB
        ],
        "fees_today": {
            **today,
            "short_sat": max(0, today["coin_sat"] - _free_sat(state, attempt, fees)),
        },
        "without_coins_sat_per_vb": sat_per_vb(
            without_coins_sat_per_kw(
                agreed or [*path.values()], anchor_sat=attempt.terms.anchor_sat
            )
        ),
        "channel_sat": signed.branch.channel.amount_sat,
        "needs_coin": attempt.terms.fee_policy is FeePolicy.EPHEMERAL,
        "channel": None if leaving is None else _show_leaving(leaving),
        "due": _due(state, attempt, fees) if isinstance(action, ChannelOnChain) else [],
        "close": own_close(state, attempt),
        "superseded": superseded(state, attempt),
        "next": GONE
        if lost and not was_closed(state, attempt)
        else _next(state, attempt, action, fees),
    }


def _lost(steps: Sequence[ExitStep], chain: KnownChain) -> frozenset[Txid]:
    """Return the steps that no block can have: another transaction spends what one of them would.

    With it all that follow are lost.
    """
    for place, step in enumerate(steps):
        spender = chain.spends.get(step.tx.inputs[0].outpoint)
        if spender is not None and spender.txid != step.tx.txid:
            return frozenset(one.tx.txid for one in steps[place:])
    return frozenset()


def _fees_at(
    agreed: Sequence[FeeAndWeight], n_htlcs: int, feerate_sat_per_kw: int, fees: OwnFees
) -> ExitFees:
    """Return what is paid for what was agreed so that each step pays a feerate.

    `n_coins` names how many coins it needs at once: one for the way out, one for each HTLC.
    """
    cost = children_cost(
        agreed,
        feerate_sat_per_kw=feerate_sat_per_kw,
        mempool_min_sat_per_kw=fees.min_relay_sat_per_kw,
    )
    return {
        "feerate_sat_per_vb": sat_per_vb(feerate_sat_per_kw),
        "fee_sat": sum(parent.fee_sat for parent in agreed) + cost.fee_sat,
        "children_sat": cost.fee_sat,
        "coin_sat": cost.coin_sat,
        "n_coins": min(cost.n_children, 1 + n_htlcs),
    }


def _free_sat(state: ClientState, attempt: ClientAttempt, fees: OwnFees) -> int:
    """Return what can be spent for children: coins that are free, or set aside for them."""
    purses = purses_of(in_hand(state, attempt), state.chain)
    free_sat = state.wallet.payable_sat(
        tip_height=state.chain.height, feerate_sat_per_kw=fees.within(SWEEP_BLOCKS)
    )
    return free_sat + sum(purse.amount_sat for purse in purses.values())


def _out_of_the_channel(
    state: ClientState, attempt: ClientAttempt, fees: OwnFees
) -> ExitCost | None:
    """Return what follows once the channel is on chain, up to the wallet: what is in no block yet.

    None where it cannot be said: state that was lost, or may be, and where the LSP's commitment is
    on chain instead of ours.
    """
    holding = in_hand(state, attempt)
    landed = landed_channel(holding, state.chain)
    is_theirs = landed.landed is not None and landed.landed is not landed.finished
    if holding.link.withholds_commitment or is_theirs or landed.finished is None:
        return None
    cost = exit_cost_of(
        landed.finished,
        landed_height=_landed_height(attempt, state),
        fees=fees,
        preimages=holding.preimages,
    )
    left = tuple(step for step in cost.steps if step.outpoint not in state.chain.spends)
    return replace(cost, steps=left)


def _show_leaving(leaving: ExitCost) -> OutOfTheChannel:
    return {
        "steps": [
            {
                "name": step.name,
                "vsize": step.vsize,
                "fee_sat": step.fee_sat,
                "delay_blocks": step.delay_blocks,
                "is_agreed": step.is_agreed,
            }
            for step in leaving.steps
        ],
        "exit_sat": leaving.remainder_sat,
        "left_behind": [
            {"name": left.name, "amount_sat": left.amount_sat} for left in leaving.left_behind
        ],
    }


def _landed_height(attempt: ClientAttempt, state: ClientState) -> int:
    """Return where the channel's output confirmed, or would if the exit began now."""
    outpoint = attempt.branch_on(state.chain).channel_outpoint
    begun_now = state.chain.height + remaining_now(state, attempt).exit_blocks
    return state.chain.confirmed.get(outpoint.txid, begun_now)


def _due(state: ClientState, attempt: ClientAttempt, fees: OwnFees) -> list[DueOnChain]:
    """Return what is to be done about a channel that is on chain; nothing once all is taken.

    Nothing, either, where a close took it.

    `height`: the first block that can hold it, or for `await_preimage` the one from which on the
    peer may take it.
    """
    if was_closed(state, attempt):
        return []
    holding = in_hand(state, attempt)
    if holding.link.is_poisoned(state.chain):
        return _due_of_poisoned(state, holding, fees)
    return [
        due_entry(one, tip_height=state.chain.height, is_withheld=holding.link.withholds_commitment)
        for one in channel_actions(landed_channel(holding, state.chain, fees=fees))
    ]


def _due_of_poisoned(state: ClientState, holding: InHand, fees: OwnFees) -> list[DueOnChain]:
    """Return what is to be done about a channel in a state that was replaced: penalties, if any.

    Its poisons are listed by themselves.
    """
    actions = channel_actions(landed_channel(holding, state.chain, fees=fees))
    return [
        due_entry(one, tip_height=state.chain.height, is_withheld=False)
        for one in actions
        if isinstance(one, TakingTx | Wait)
    ]


def _next(state: ClientState, attempt: ClientAttempt, action: ExitAction, fees: OwnFees) -> str:
    if was_closed(state, attempt):
        return CLOSED
    following = _next_step(state, attempt, action, fees)
    close = own_close(state, attempt)
    return beside_a_close(following) if close and close["status"] == "waiting" else following


def beside_a_close(following: str) -> str:
    """Return what comes next of an exit where a finished close of the channel waits, too."""
    return (
        "a close that everybody signed waits for a block; leaving beside it loses nothing, and"
        f" whichever comes first counts: {following}"
    )


def _next_step(
    state: ClientState, attempt: ClientAttempt, action: ExitAction, fees: OwnFees
) -> str:
    if not isinstance(action, ChannelOnChain):
        return describe(action)
    poisoned = superseded(state, attempt)
    if poisoned is not None:
        return describe_superseded(poisoned)
    holding = in_hand(state, attempt)
    landed = landed_channel(holding, state.chain, fees=fees)
    return next_of_channel(landed, is_withheld=holding.link.withholds_commitment, peer="the LSP")


def _step_status(
    state: ClientState, step: ExitStep, action: ExitAction, lost: frozenset[Txid]
) -> ExitStepStanding:
    height = state.chain.confirmed.get(step.tx.txid)
    if height is not None:
        return {"status": "confirmed", "height": height}
    if step.tx.txid in lost:
        return {"status": "lost", "height": None}
    match action:
        case Publish(step=present) if present.name == step.name:
            return {"status": "publish_now", "height": state.chain.height + 1}
        case WaitForHeight(step=present, height=height) if present.name == step.name:
            return {"status": "wait", "height": height}
        case _:
            return {"status": "later", "height": None}


def describe(action: ExitAction) -> str:
    """Return the next action in a sentence."""
    match action:
        case Publish(step=step):
            return f"publish {step.name} now"
        case WaitForHeight(step=step, height=height):
            return f"publish {step.name} so that it can confirm at height {height}"
        case WaitForFunding():
            return "the funding is not confirmed: there is nothing to leave from"
        case ChannelOnChain(outpoint=outpoint, height=height):
            return f"the channel output {outpoint} has been on chain since height {height}"


def next_of_channel(channel: LandedChannel, *, is_withheld: bool, peer: str) -> str:
    """Return what comes next for a channel that is on chain, and what is left at today's fees."""
    following = [
        describe_channel(one, is_withheld=is_withheld, peer=peer)
        for one in channel_actions(channel)
    ]
    left = [f"{one.name} ({one.amount_sat} sat)" for one in left_behind(channel)]
    if left:
        following.append(f"not worth today's fee: {', '.join(left)}")
    return "; ".join(following) or "nothing: all of it is spent"


def describe_channel(action: ChannelAction, *, is_withheld: bool, peer: str = "the LSP") -> str:
    """Return the next action in a channel that is on chain in a sentence.

    One that `is_withheld` may be revoked: state was lost, or the store was restored. `peer` is who
    publishes one for both.
    """
    match action:
        case PublishCommitment():
            if is_withheld:
                return f"wait for {peer} to publish its commitment: your own may be revoked"
            return "publish the commitment now"
        case TakingTx(name=name):
            return f"publish {name} now"
        case Wait(name=name, height=height):
            return f"publish {name} so that it can confirm at height {height}"
        case AwaitPreimage(name=name, expiry_height=height):
            return f"{name} is there for a preimage, until height {height}"
        case NeedsChild(due=due):
            said = describe_channel(due, is_withheld=is_withheld, peer=peer)
            return f"{said}, with coins that pay for it"
        case Unrecognised(tx=tx, pays_us=True):
            said = "a commitment that is not known here any more: what it pays is taken"
            return f"the channel was spent by {tx.txid}, {said}"
        case Unrecognised(tx=tx):
            return f"the channel was spent by {tx.txid}, which is no commitment held here"
        case WaitForFunding():
            return describe(action)
        case _:
            assert_never(action)


def due_entry(action: ChannelAction, *, tip_height: int, is_withheld: bool) -> DueOnChain:
    """Return the next action in a channel that is on chain as plain data.

    Its status is `publish_now`, `wait`, `await_preimage`, `unrecognised`, or `withheld` for the
    commitment that `is_withheld`; the txid is there where the transaction is known.
    """
    match action:
        case PublishCommitment(tx=tx) if is_withheld:
            return _entry(COMMITMENT_NAME, "withheld", tx.txid, None)
        case PublishCommitment(tx=tx):
            return _entry(COMMITMENT_NAME, "publish_now", tx.txid, tip_height + 1)
        case TakingTx(name=name, tx=tx):
            return _entry(name, "publish_now", tx.txid, tip_height + 1)
        case Wait(name=name, height=height):
            return _entry(name, "wait", None, height)
        case AwaitPreimage(name=name, expiry_height=height):
            return _entry(name, "await_preimage", None, height)
        case NeedsChild(due=due):
            return due_entry(due, tip_height=tip_height, is_withheld=is_withheld)
        case Unrecognised(tx=tx):
            return _entry("channel", "unrecognised", tx.txid, None)
        case WaitForFunding():
            return _entry("channel", "wait", None, None)
        case _:
            assert_never(action)


def _entry(name: str, status: DueStatus, txid: Txid | None, height: int | None) -> DueOnChain:
    return {
        "name": name,
        "status": status,
        "txid": None if txid is None else str(txid),
        "height": height,
    }
