"""An LSP's state as its operator reads it: plain data, computed on demand, never stored."""

from typing import Any

from cromford.channel.terms import MSAT_PER_SAT
from cromford.daemon.views.channels import Standing
from cromford.daemon.views.export import export_factory, export_terms
from cromford.protocol.channels.lsp import is_usable
from cromford.protocol.exiting.lsp import is_swept
from cromford.protocol.facts import Facts
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_state import Build, LspState
from cromford.protocol.lobby.build import BuildPlan
from cromford.watch.exit import swept_by


def status_of(state: LspState, attempt: LspAttempt) -> str:
    """Return a factory's status in one word.

    Building, funding, live, expired, swept, aborted, abandoned or dead. `abandoned`: its funding
    was given up, and another transaction is to spend a coin of it; `dead`: that one is deep enough.
    What the chain shows of the funding outweighs both.
    """
    if attempt.aborted is not None:
        return "aborted"
    if attempt.funded is None:
        return "building"
    if state.is_dead(attempt):
        return "dead"
    depth = state.chain.depth(attempt.funding_tx.txid)
    if depth == 0 and attempt.funded.replacement is not None:
        return "abandoned"
    if depth < attempt.terms.min_depth:
        return "funding"
    if _is_swept(state, attempt):
        return "swept"
    return "live" if state.chain.height < attempt.terms.expiry_height else "expired"


def _is_swept(state: LspState, attempt: LspAttempt) -> bool:
    """Say whether the factory's output went elsewhere than into its tree."""
    return swept_by((attempt.tree.vertices[0].kickoff,), state.chain.spends) is not None


def summary(state: LspState, attempt: LspAttempt) -> dict[str, Any]:
    """Return a factory in one line."""
    terms = attempt.terms
    return {
        "factory_id": attempt.attempt_id.hex(),
        "status": status_of(state, attempt),
        "phase": attempt.stage.label,
        "n_clients": terms.n_clients,
        "funding_txid": str(attempt.funding_tx.txid),
        "funding_amount_sat": attempt.tree.funding_amount_sat,
        "confirmations": state.chain.depth(attempt.funding_tx.txid),
        "min_depth": terms.min_depth,
        "expiry_height": terms.expiry_height,
        "blocks_to_expiry": terms.expiry_height - state.chain.height,
        "exit_deadline_height": terms.exit_deadline_height(attempt.tree.root.shape.n_layers),
        "holdouts": list(attempt.holdouts),
        "aborted": attempt.aborted,
        "ready_clients": 0 if attempt.funded is None else len(attempt.funded.ready_received),
        "channels_failed": failed_channels(state, attempt),
        "published": published(state, attempt),
        "leaving": leaving(state, attempt),
    }


def published(state: LspState, attempt: LspAttempt) -> list[str]:
    """Return what is on chain of the tree, whoever published it."""
    confirmed = state.chain.confirmed
    return [node.name for node in attempt.tree.nodes if node.tx.txid in confirmed]


def leaving(state: LspState, attempt: LspAttempt) -> list[int]:
    """Return the clients whose channels the LSP brings on chain, or whose output is spent."""
    if attempt.funded is None:
        return []
    spends = state.chain.spends
    return [
        client
        for client in range(1, len(attempt.seats) + 1)
        if (attempt.attempt_id, client) in state.exits
        or attempt.setting(client).funding.outpoint in spends
    ]


def failed_channels(state: LspState, attempt: LspAttempt) -> dict[str, str]:
    """Return why channels take no update any more, by the client's participant index."""
    failed = (
        link
        for seat in attempt.seats
        for link in state.book.links_with(seat.node_id)
        if link.attempt_id == attempt.attempt_id and link.failure is not None
    )
    return {str(link.client): link.failure or "" for link in failed}


def standing_of(state: LspState, link: Link, facts: Facts) -> Standing:
    """Return how a channel stands to the chain."""
    attempt, chain = state.attempts[link.attempt_id], state.chain
    return Standing(
        is_usable=is_usable(state, link),
        is_fresh=facts.is_fresh,
        is_exiting=(link.attempt_id, link.client) in state.exits
        or link.setting.funding.outpoint in chain.spends,
        depth=chain.depth(attempt.funding_tx.txid),
        min_depth=attempt.terms.min_depth,
        is_swept=is_swept(state, attempt, link.client),
    )


def show(state: LspState, attempt: LspAttempt) -> dict[str, Any]:
    """Return everything about a factory."""
    exported = export(state, attempt)
    return {
        **summary(state, attempt),
        "placed": placed(attempt),
        **{key: exported[key] for key in ("participants", "funding", "transactions", "ledger")},
        "terms": exported["terms"],
    }


def placed(attempt: LspAttempt) -> list[dict[str, Any]]:
    """Return who sits where."""
    leaves = {
        client: leaf.name for leaf in attempt.tree.root.shape.leaves() for client in leaf.clients
    }
    return [
        {
            "client": client,
            "node_id": seat.node_id.hex(),
            "leaf": leaves[client],
            "capacity_sat": attempt.terms.capacity_sat[client - 1],
            "reason": attempt.reasons[client - 1],
        }
        for client, seat in enumerate(attempt.seats, start=1)
    ]


def export(state: LspState, attempt: LspAttempt) -> dict[str, Any]:
    """Return the export document."""
    coins = [state.wallet.coins.get(tx_in.outpoint) for tx_in in attempt.funding_tx.inputs]
    in_sat = sum(coin.txout.amount_sat for coin in coins if coin is not None)
    return export_factory(
        attempt,
        network=state.config.network,
        status=status_of(state, attempt),
        confirmations=state.chain.depth(attempt.funding_tx.txid),
        funding_fee_sat=in_sat - sum(out.amount_sat for out in attempt.funding_tx.outputs),
    )


def capital(state: LspState) -> dict[str, Any]:
    """Return where the LSP's money is: free, reserved, locked until which expiry, earned."""
    by_expiry = sorted(
        (
            a
            for a in state.attempts.values()
            if a.funded is not None and status_of(state, a) not in {"dead", "swept"}
        ),
        key=lambda attempt: attempt.terms.expiry_height,
    )
    locked = [
        {
            "factory_id": attempt.attempt_id.hex(),
            "amount_sat": attempt.tree.funding_amount_sat,
            "expiry_height": attempt.terms.expiry_height,
            "blocks_to_expiry": attempt.terms.expiry_height - state.chain.height,
        }
        for attempt in by_expiry
    ]
    free_sat = sum(coin.txout.amount_sat for coin in state.wallet.free(state.chain.height))
    reserved = [
        state.wallet.coins.get(outpoint)
        for outpoint, owner in state.wallet.reserved.items()
        if owner not in state.wallet.payments
    ]
    reserved_sat = sum(
        coin.txout.amount_sat for coin in reserved if coin and coin.spent_height is None
    )
    return {
        "free_sat": free_sat,
        "reserved_sat": reserved_sat,
        "locked_sat": sum(attempt.tree.funding_amount_sat for attempt in by_expiry),
        "locked": locked,
        "earned_sat": state.book.earned_msat // MSAT_PER_SAT,
        "earned_msat": state.book.earned_msat,
    }


def lobby(state: LspState) -> dict[str, Any]:
    """Return who waits, and who may not."""
    policy = state.config.policy
    banned = {node_id: state.banned_until(node_id) for node_id in {**state.faults, **state.aborts}}
    return {
        "node_id": state.config.node_id.hex(),
        "min_clients": policy.min_clients,
        "max_clients": policy.max_clients,
        "waiting": [
            {
                "node_id": member.node_id.hex(),
                "capacity_sat": member.join.capacity_sat,
                "capacity_least_sat": member.join.capacity_least_sat,
                "is_moving": member.is_moving,
                "uptime_blocks": state.uptime_blocks(member.node_id),
            }
            for member in state.members.values()
        ],
        "banned": [
            {"node_id": node_id.hex(), "until_height": until}
            for node_id, until in banned.items()
            if until is not None
        ],
    }


def show_plan(plan: BuildPlan) -> dict[str, Any]:
    """Return a planned build as plain data."""
    return {
        "funding_amount_sat": plan.funding_amount_sat,
        "funding_fee_sat": plan.selection.fee_sat,
        "change_sat": plan.selection.change_sat,
        "terms": export_terms(plan.terms),
        "placed": [
            {
                "client": seat.client,
                "node_id": seat.applicant.node_id.hex(),
                "leaf": seat.leaf,
                "capacity_sat": plan.terms.capacity_sat[seat.client - 1],
                "reason": seat.reason,
            }
            for seat in plan.placed
        ],
    }


def show_build(build: Build | None, attempt: LspAttempt | None) -> dict[str, Any] | None:
    """Return what a build under way waits for."""
    if build is None or attempt is not None:
        return None
    return {"phase": "awaiting_clients" if build.attempt is None else "preparing"}
