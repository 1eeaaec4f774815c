"""Whom a build takes, and how much of the LSP's own coins may go to whom."""

from collections.abc import Sequence
from itertools import accumulate, takewhile

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
        and node_id in entry.lent_to
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
    is_known = node_id in state.of_client or state.is_awaited(node_id)
    if not is_known and state.n_new_joins >= policy.new_joins_per_block:
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
    nobody is taken for whom there is no capital left. Where too few fit in this order, those are
    taken who ask for least: one wish must not stand in the way of all others.

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
    taken = _fitting(
        state, in_order, max_clients=max_clients, floor_sat=floor_sat, room_sat=room_sat
    )
    if len(taken) < min_clients:
        smallest = sorted(in_order, key=lambda member: least_sat(member, floor_sat))
        taken = _fitting(
            state, smallest, max_clients=max_clients, floor_sat=floor_sat, room_sat=room_sat
        )
    if len(taken) < min_clients:
        raise Rejected(
            "capital_limit",
            f"the LSP's limits of capital leave {max(0, room_sat)} sat for a factory's "
            f"channels: enough for {told.counted(len(taken), 'client')}, "
            f"{told.counted(min_clients, 'is', 'are')} needed",
        )
    return taken


def least_sat(member: Member, floor_sat: int) -> int:
    """Return the smallest channel that a client would take, and that there is."""
    return max(member.join.capacity_least_sat, floor_sat)


def _fitting(
    state: House, members: Sequence[Member], *, max_clients: int, floor_sat: int, room_sat: int
) -> list[Member]:
    """Return those for whom there is room, one after another; who does not fit takes no place."""
    taken: list[Member] = []
    for member in members:
        needed_sat = least_sat(member, floor_sat)
        if len(taken) < max_clients and needed_sat <= min(
            room_sat, left_sat(state, member.node_id)
        ):
            room_sat -= needed_sat
            taken.append(member)
    return taken


class Wishes:
    """Who gets more than the least that it would take, where not everybody can.

    Among those that nobody knows whoever wants least more comes first: a name costs nothing, and a
    wish no more, so a large one must not cost the others theirs.

    Args:
        state: What the LSP knows.
        members: Whom a build takes.
        floor_sat: The smallest channel that there is.
    """

    def __init__(self, state: House, members: Sequence[Member], *, floor_sat: int) -> None:
        self._least = [least_sat(member, floor_sat) for member in members]
        self._more = [
            min(member.join.capacity_sat, most_sat(state, member.node_id)) - least
            for member, least in zip(members, self._least, strict=True)
        ]
        self._order = sorted(
            range(len(members)),
            key=lambda place: (
                not members[place].is_moving,
                not state.is_reliable(members[place].node_id),
                self._more[place],
                members[place].node_id,
            ),
        )
        self._room_sat = room_sat(state)

    @property
    def n_within_room(self) -> int:
        """How many get what they want by the limits of capital alone."""
        room_left_sat = self._room_sat - sum(self._least)
        needed_sat = accumulate(self._more[place] for place in self._order)
        return sum(1 for _ in takewhile(lambda sat: sat <= room_left_sat, needed_sat))

    def capacities_sat(self, n_met: int) -> tuple[int, ...]:
        """Return the capacities, in the order of the members, if that many get what they want."""
        met = frozenset(self._order[:n_met])
        return tuple(
            least + self._more[place] * (place in met) for place, least in enumerate(self._least)
        )
