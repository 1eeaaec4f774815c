"""What an agent shows of its packages; and `client exit broadcast` of the one it was given."""

from typing import Final, assert_never

from cromford.agent.keeping import HeldPackage
from cromford.agent.looking import Sight
from cromford.agent.rounds import Attended
from cromford.answers.packages import (
    KeptPackage,
    PackageFacts,
    PackageProgress,
    PackageStatus,
    PackageStep,
    PackageStepStatus,
)
from cromford.bitcoin.fees import sat_per_vb
from cromford.ports import RelayFeerates
from cromford.watch.package import ExitPackage
from cromford.watch.package_progress import (
    AwaitDeadline,
    AwaitDelay,
    NothingFound,
    PackageAction,
    PathOnChain,
    PublishNow,
    TakeApart,
    remaining_at,
)

WITHOUT_COINS: Final = "coinless"  # The kind of every agent there is: only anchors raise a fee.


def package_summary(package: ExitPackage) -> PackageFacts:
    """Return what is true of a package whatever the chain is like."""
    return {
        "package_id": package.package_id.hex(),
        "network": package.network.name,
        "funding_outpoint": str(package.funding_outpoint),
        "channel_outpoint": str(package.channel_outpoint),
        "channel_sat": package.channel_txout.amount_sat,
        "expiry_height": package.expiry_height,
        "has_commitment": package.commitment is not None,
        "n_transactions": len(package.steps),
        "lowest_feerate_sat_per_vb": sat_per_vb(package.lowest_sat_per_kw),
        "with_anchors_sat_per_vb": sat_per_vb(package.lifted_sat_per_kw),
    }


def package_state(
    package: ExitPackage, sight: Sight, action: PackageAction, *, refused: str | None
) -> PackageProgress:
    """Return how far a package is, and what is next."""
    remaining = remaining_at(package, sight.place, tip_height=sight.height)
    is_found = sight.place is not None
    return {
        "height": sight.height,
        "status": _status(action),
        "exit_deadline_height": remaining.exit_deadline_height if is_found else None,
        "exit_blocks": remaining.exit_blocks if is_found else None,
        "steps": _steps(package, sight, action, refused),
        "refused": refused,
        "next": _next(action, refused),
    }


def held_view(
    held: HeldPackage, attended: Attended | None, relay: RelayFeerates | None
) -> KeptPackage:
    """Return a package in an agent's care."""
    passes_now = (
        None if relay is None else held.package.lifted_sat_per_kw >= relay.mempool_min_sat_per_kw
    )
    state = _UNSEEN
    if attended is not None:
        state = package_state(
            held.package, attended.sight, attended.action, refused=attended.refused
        )
        if attended.is_failed:
            state["status"] = "failed"
            state["next"] = "try again at the next block; the log says why"
    return {
        **package_summary(held.package),
        "begun_height": held.begun_height,
        "passes_now": passes_now,
        **state,
    }


_UNSEEN: Final[PackageProgress] = {
    "height": None,
    "exit_blocks": None,
    "steps": [],
    "refused": None,
    "status": "unseen",
    "exit_deadline_height": None,
    "next": "look at the chain",
}


def _status(action: PackageAction) -> PackageStatus:
    match action:
        case AwaitDeadline():
            return "waiting"
        case PublishNow() | AwaitDelay():
            return "publishing"
        case PathOnChain():
            return "on_chain"
        case TakeApart():
            return "replaced"
        case NothingFound():
            return "nothing_found"
        case _:
            assert_never(action)


def _next(action: PackageAction, refused: str | None) -> str:
    match action:
        case PublishNow(step=step) if refused is None:
            return f"{step.name} is published and waits for a block"
        case PublishNow(step=step):
            return f"publish {step.name} again at the next block: the node refused it, {refused}"
        case AwaitDelay(step=step, height=height):
            return f"publish {step.name}, which can be in block {height}"
        case AwaitDeadline(step=step, height=height):
            return f"publish {step.name} at height {height}, the exit deadline"
        case PathOnChain(is_channel_spent=True):
            return "nothing: the channel is on chain, and its output was spent"
        case PathOnChain(height=height):
            return f"nothing: the channel's output is on chain since block {height}"
        case TakeApart(due=()):
            return "nothing: poisons took a replaced state apart; what they pay is their owner's"
        case TakeApart():
            what = "a replaced state is on chain: its poisons are published, and wait for a block"
            return what if refused is None else f"{what}; the node refused one, {refused}"
        case NothingFound():
            return (
                "nothing: no output of the path is unspent; the funding is not confirmed, or the "
                "factory is over"
            )
        case _:
            assert_never(action)


def _steps(
    package: ExitPackage, sight: Sight, action: PackageAction, refused: str | None
) -> list[PackageStep]:
    n_confirmed = 0 if sight.place is None else sight.place.n_confirmed
    steps: list[PackageStep] = []
    for n, step in enumerate(package.steps):
        status: PackageStepStatus = "later" if n >= n_confirmed else "confirmed"
        height = None
        if n == n_confirmed and isinstance(action, PublishNow):
            status = "refused" if refused is not None else "published"
        elif n == n_confirmed and isinstance(action, AwaitDelay | AwaitDeadline):
            status, height = "waits", action.height
        elif n == n_confirmed and isinstance(action, PathOnChain):
            status = "not_needed"  # A commitment, where something else spent the channel's output.
        steps.append(
            {
                "name": step.name,
                "txid": str(step.tx.txid),
                "vsize": step.tx.vsize,
                "fee_sat": step.fee_sat,
                "delay_blocks": step.delay_blocks,
                "status": status,
                "height": height,
            }
        )
    return steps
