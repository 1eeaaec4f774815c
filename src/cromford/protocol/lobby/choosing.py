"""Whom a build takes, and how much of the LSP's own coins may go to whom."""

from collections.abc import Sequence

from cromford import told
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.gathered import Member
from cromford.protocol.journal.house import House
from cromford.protocol.policy import LspPolicy


def capacity_ceiling_sat(policy: LspPolicy) -> int:
    """Return the largest channel this policy offers to anybody."""
    return min(policy.capacity_max_sat, policy.capital_per_client_sat)


def lasting_entries(state: House, node_id: bytes) -> tuple[FactoryEntry, ...]:
    """Return the factories in which a client has a channel that does not die, oldest first."""
    return tuple(
        entry
        for entry in state.entries_of(node_id)
        if state.is_standing(entry)
        and not entry.is_dying(entry.node_ids.index(node_id) + 1, height=state.chain.height)
    )


def lent_sat(state: House, node_id: bytes) -> int:
    """Return a client's channels, added up; one that it has to move out of does not count."""
    return sum(
        entry.capacity_sat[entry.node_ids.index(node_id)]
        for entry in lasting_entries(state, node_id)
    )


def left_sat(state: House, node_id: bytes) -> int:
    """Return how much of the LSP's coins a client may get besides what it has."""
    return max(0, state.config.policy.capital_per_client_sat - lent_sat(state, node_id))


def most_sat(state: House, node_id: bytes) -> int:
    """Return the largest channel that a client may get now."""
    return min(state.config.policy.capacity_max_sat, left_sat(state, node_id))


def room_sat(state: House) -> int:
    """Return how much the channels of one more factory may come to."""
    policy = state.config.policy
    return min(policy.capital_per_build_sat, policy.capital_max_sat - state.lent_sat())


def join_refusal(state: House, node_id: bytes, least_sat: int) -> str | None:
    """Return why a client may not join now, whatever else it brings; None if it may.

    Args:
        state: What the LSP knows.
        node_id: The client.
        least_sat: The smallest channel that it would take, and that there is.
    """
    policy = state.config.policy
    if policy.allowed_clients is not None and node_id not in policy.allowed_clients:
        return "this LSP serves only clients that its operator has named"
    if node_id not in state.of_client and state.n_new_joins >= policy.new_joins_per_block:
        until = state.chain.height + 1
        return f"too many new clients in this block: join again from height {until}"
    if least_sat > left_sat(state, node_id):
        return (
            f"capacity_sat: expected at most {left_sat(state, node_id)}, received {least_sat}: "
            f"{policy.capital_per_client_sat} for one client, {lent_sat(state, node_id)} in use"
        )
    return None


def chosen(
    state: House,
    waiting: Sequence[Member],
    *,
    min_clients: int,
    max_clients: int,
    floor_sat: int,
    room_sat: int,
) -> list[Member]:
    """Return whom a build takes, the most reliable first.

    Whoever has just ended a ceremony for everybody is left out where the others are enough; and
    nobody is taken for whom there is no capital left.

    Args:
        state: What the LSP knows.
        waiting: Who waits.
        min_clients: Fewer make no factory.
        max_clients: At most this many are taken.
        floor_sat: The smallest channel that there is.
        room_sat: What all their channels may come to.

    Raises:
        Rejected: If the capital does not reach for `min_clients`.
    """
    steady = [member for member in waiting if not state.is_unsteady(member.node_id)]
    candidates = steady if len(steady) >= min_clients else list(waiting)
    in_order = sorted(
        candidates,
        key=lambda member: (
            not member.is_moving,
            not state.is_reliable(member.node_id),
            -state.uptime_blocks(member.node_id),
            member.node_id,
        ),
    )
    room_left_sat = room_sat
    taken: list[Member] = []
    for member in in_order[:max_clients]:
        least_sat = max(member.join.capacity_least_sat, floor_sat)
        if least_sat <= min(room_left_sat, left_sat(state, member.node_id)):
            room_left_sat -= least_sat
            taken.append(member)
    if len(taken) < min_clients:
        raise Rejected(
            "capital_limit",
            f"the LSP's limits of capital leave {max(0, room_sat)} sat for a factory's "
            f"channels: enough for {told.counted(len(taken), 'client')}, "
            f"{told.counted(min_clients, 'is', 'are')} needed",
        )
    return taken
