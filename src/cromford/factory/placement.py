"""Which client sits where: the most reliable share the widest leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

from cromford.factory.shape import ShapeVertex


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """What placement looks at. Uptime in blocks connected of the last `UPTIME_WINDOW_BLOCKS`."""

    node_id: bytes
    is_moving: bool
    uptime_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One applicant's seat, and why it got it."""

    applicant: Applicant
    client: int
    leaf: str
    reason: str


def ranked(applicants: Sequence[Applicant]) -> tuple[Applicant, ...]:
    """Return the applicants in the order of choice: moves first, then uptime, then node id."""
    return tuple(sorted(applicants, key=lambda a: (not a.is_moving, -a.uptime_blocks, a.node_id)))


def place(applicants: Sequence[Applicant], shape: ShapeVertex) -> tuple[Placed, ...]:
    """Return every applicant's seat, in placement order (client 1 first).

    Leaves with more clients are filled first, then shallower ones, then from the left.

    Raises:
        ValueError: If there are more or fewer applicants than seats.
    """
    if len(applicants) != shape.n_clients:
        raise ValueError(f"{len(applicants)} applicants for {shape.n_clients} seats")
    leaves = sorted(shape.leaves(), key=lambda leaf: (-leaf.n_clients, len(leaf.path), leaf.path))
    seats = [(client, leaf) for leaf in leaves for client in leaf.clients]
    placed = [
        Placed(
            applicant=applicant,
            client=client,
            leaf=leaf.name,
            reason=_reason(rank, applicant, leaf),
        )
        for rank, (applicant, (client, leaf)) in enumerate(
            zip(ranked(applicants), seats, strict=True), start=1
        )
    ]
    return tuple(sorted(placed, key=lambda seat: seat.client))


def _reason(rank: int, applicant: Applicant, leaf: ShapeVertex) -> str:
    why = "moves from a dying factory" if applicant.is_moving else "waits in the lobby"
    return (
        f"rank {rank}: {why}, uptime {applicant.uptime_blocks} blocks; "
        f"leaf {leaf.name}, which seats {leaf.n_clients}"
    )
