"""Who is gathered in the lobby, and the build that some of them were chosen for."""

from dataclasses import dataclass

from cromford.protocol.journal import lobby_records as lr
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
    feerates_sat_per_kw: tuple[int, ...] = ()  # of a fee ladder; empty: the policy's one
    external_id: str = ""  # what the operator calls it; empty for nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledBuild:
    """A build that its operator gave an id, and the newest attempt that it came to."""

    attempt_id: bytes
    min_clients: int
    max_clients: int
    feerates_sat_per_kw: tuple[int, ...]


def called_build(build: Build, attempt_id: bytes) -> CalledBuild:
    """Return what is kept of a build for whoever asks for it again."""
    return CalledBuild(
        attempt_id=attempt_id,
        min_clients=build.min_clients,
        max_clients=build.max_clients,
        feerates_sat_per_kw=build.feerates_sat_per_kw,
    )


def build_of(record: lr.BuildStarted | lr.RebuildAwaited) -> Build:
    """Return a build as it begins, or as it waits for its clients to join again."""
    if isinstance(record, lr.RebuildAwaited):
        return Build(
            attempt=None,
            node_ids=record.node_ids,
            reasons=(),
            capacity_sat=(),
            min_clients=record.min_clients,
            max_clients=record.max_clients,
            feerates_sat_per_kw=record.feerates_sat_per_kw,
            external_id=record.external_id,
        )
    return Build(
        attempt=record.attempt,
        node_ids=record.node_ids,
        reasons=record.reasons,
        capacity_sat=record.capacity_sat,
        min_clients=record.min_clients,
        max_clients=record.max_clients,
        feerates_sat_per_kw=record.feerates_sat_per_kw,
        external_id=record.external_id,
    )
