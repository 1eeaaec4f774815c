"""Who is gathered in the lobby, and the build that some of them were chosen for."""

from dataclasses import dataclass

from cromford.wire import messages as m


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A client in the lobby."""

    node_id: bytes
    join: m.Join
    is_moving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build whose keys are being made, or that waits for its clients to come back."""

    attempt: int | None  # None while it waits
    node_ids: tuple[bytes, ...]
    reasons: tuple[str, ...]
    capacity_sat: tuple[int, ...]
    min_clients: int
    max_clients: int
