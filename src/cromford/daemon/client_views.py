"""A client's state as its operator reads it: plain data, computed on demand, never stored."""

from typing import Any, Final

from cromford.bitcoin.fees import fee_sat_of
from cromford.factory.exit_path import exit_path
from cromford.factory.terms import FeePolicy
from cromford.protocol.client_attempt import ClientAttempt, Complete
from cromford.protocol.client_state import ClientState
from cromford.protocol.export import export_funding, export_nodes, export_terms
from cromford.watch.exit import (
    ChannelOnChain,
    ExitAction,
    Publish,
    WaitForFunding,
    WaitForHeight,
    next_exit_action,
)

FEERATES_SAT_PER_VB: Final = (1, 10, 100)  # At which an exit's cost is shown.
_STAGES: Final = {
    "Received": "received",
    "Checked": "checked",
    "BelowSent": "below_sent",
    "HoldsExit": "holds_exit",
    "RootSent": "root_sent",
    "Complete": "complete",
}


def stage_of(attempt: ClientAttempt) -> str:
    """Return the stage of the ceremony in one word."""
    return _STAGES[type(attempt.stage).__name__]


def status_of(state: ClientState, attempt: ClientAttempt) -> str:
    """Return a factory's status in one word. What the chain shows outweighs what was said."""
    is_complete = isinstance(attempt.stage, Complete)
    confirmed = is_complete and attempt.funding_tx.txid in state.chain.confirmed
    if confirmed and attempt.branch.vertices[-1].state.tx.txid in state.chain.confirmed:
        return "on_chain"
    if attempt.is_exiting:
        return "exiting"
    if confirmed and attempt.ready_sent:
        return "live" if attempt.ready_received else "confirming"
    if confirmed and not attempt.given_up:
        return "confirming"
    if attempt.aborted is not None:
        return "aborted"
    if attempt.given_up:
        return "given_up"
    return "waiting_for_funding" if is_complete else "building"


def summary(state: ClientState, attempt: ClientAttempt) -> dict[str, Any]:
    """Return a factory in one line."""
    checked = stage_of(attempt) != "received"
    known: dict[str, Any] = {
        "n_clients": None,
        "capacity_sat": None,
        "channel_outpoint": None,
        "funding_txid": None,
        "funding_amount_sat": None,
        "confirmations": 0,
        "min_depth": None,
        "expiry_height": None,
        "blocks_to_expiry": None,
        "exit_deadline_height": None,
        "exit_blocks": None,
    }
    if checked:
        terms, branch = attempt.terms, attempt.branch
        known = {
            "n_clients": terms.n_clients,
            "capacity_sat": branch.channel.amount_sat,
            "channel_outpoint": str(branch.channel_outpoint),
            "funding_txid": str(attempt.funding_tx.txid),
            "funding_amount_sat": branch.funding_amount_sat,
            "confirmations": state.chain.depth(attempt.funding_tx.txid),
            "min_depth": terms.min_depth,
            "expiry_height": terms.expiry_height,
            "blocks_to_expiry": terms.expiry_height - state.chain.height,
            "exit_deadline_height": branch.exit_deadline_height,
            "exit_blocks": branch.exit_blocks,
        }
    return {
        "factory_id": attempt.attempt_id.hex(),
        "status": status_of(state, attempt),
        "stage": stage_of(attempt),
        "client": attempt.propose.client,
        **known,
        "aborted": attempt.aborted,
        "given_up": attempt.given_up,
        "ready_sent": attempt.ready_sent,
        "ready_received": attempt.ready_received,
        "is_exiting": attempt.is_exiting,
    }


def show(state: ClientState, attempt: ClientAttempt) -> dict[str, Any]:
    """Return everything about a factory: the client's own branch, nothing more."""
    if stage_of(attempt) == "received":
        return {**summary(state, attempt), "terms": None, "transactions": [], "funding": None}
    branch = attempt.branch
    signatures: dict[str, bytes] = {}
    if isinstance(attempt.stage, Complete):
        below = [node.name for node in branch.nodes_below_root]
        signatures = dict(zip(below, attempt.stage.signatures, strict=True))
        signatures[branch.root_kickoff.name] = attempt.stage.root_signature
    return {
        **summary(state, attempt),
        "terms": export_terms(attempt.terms),
        "transactions": export_nodes(list(branch.nodes), signatures),
        "funding": export_funding(
            attempt.funding_tx,
            amount_sat=branch.funding_amount_sat,
            script_pubkey=branch.funding_output.script_pubkey,
            descriptor=branch.funding_output.descriptor,
            confirmations=state.chain.depth(attempt.funding_tx.txid),
        ),
    }


def exit_plan(state: ClientState, attempt: ClientAttempt) -> dict[str, Any]:
    """Return what leaving takes: transactions, fees, blocks, and what comes next."""
    signed = attempt.signed_branch
    steps = exit_path(signed)
    action = next_exit_action(
        signed, confirmed=state.chain.confirmed, tip_height=state.chain.height
    )
    total_vsize = sum(step.tx.vsize for step in steps)
    return {
        "factory_id": attempt.attempt_id.hex(),
        "steps": [
            {
                "name": step.name,
                "txid": str(step.tx.txid),
                "vsize": step.tx.vsize,
                "fee_sat": step.fee_sat,
                "delay_blocks": step.delay_blocks,
                **_step_status(state, step.name, step.tx.txid, action),
            }
            for step in steps
        ],
        "n_transactions": len(steps),
        "total_vsize": total_vsize,
        "total_fee_sat": sum(step.fee_sat for step in steps),
        "total_delay_blocks": sum(step.delay_blocks for step in steps),
        "exit_blocks": signed.branch.exit_blocks,
        "fees_at": [
            {
                "feerate_sat_per_vb": feerate,
                "fee_sat": fee_sat_of(vsize=total_vsize, feerate_sat_per_kw=feerate * 250),
            }
            for feerate in FEERATES_SAT_PER_VB
        ],
        "channel_sat": signed.branch.channel.amount_sat,
        "needs_coin": attempt.terms.fee_policy is FeePolicy.EPHEMERAL,
        "next": describe(action),
    }


def _step_status(state: ClientState, name: str, txid: bytes, action: ExitAction) -> dict[str, Any]:
    for confirmed, height in state.chain.confirmed.items():
        if confirmed == txid:
            return {"status": "confirmed", "height": height}
    match action:
        case Publish(step=step) if step.name == name:
            return {"status": "publish_now", "height": state.chain.height + 1}
        case WaitForHeight(step=step, height=height) if step.name == name:
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
            return f"the channel output {outpoint} is on chain since height {height}"
