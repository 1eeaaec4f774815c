"""What is remembered of the lobby: wishes, joins, and builds that begin or end there."""

from cromford.protocol.journal.record import Record


class LobbyGreeted(Record, frozen=True, kw_only=True, tag="lobby_greeted"):
    """The LSP told who may join."""

    message: bytes


class WishMade(Record, frozen=True, kw_only=True, tag="wish_made"):
    """The operator wishes to be in the next factory."""

    capacity_sat: int
    capacity_least_sat: int


class WishWithdrawn(Record, frozen=True, kw_only=True, tag="wish_withdrawn"):
    """The operator no longer wishes to join."""


class JoinSent(Record, frozen=True, kw_only=True, tag="join_sent"):
    """A wish went out with fresh keys; `attempt` is their index."""

    attempt: int
    message: bytes


class JoinAnswered(Record, frozen=True, kw_only=True, tag="join_answered"):
    """The LSP accepted the wish, or refused it with a reason."""

    factory_pubkey: bytes
    refusal: str | None


class ClientJoined(Record, frozen=True, kw_only=True, tag="client_joined"):
    """A client waits in the lobby."""

    node_id: bytes
    message: bytes
    is_moving: bool


class ClientLeft(Record, frozen=True, kw_only=True, tag="client_left"):
    """A client no longer waits."""

    node_id: bytes


class BuildStarted(Record, frozen=True, kw_only=True, tag="build_started"):
    """Clients were chosen and placed, in placement order; keys are being made."""

    attempt: int
    node_ids: tuple[bytes, ...]
    reasons: tuple[str, ...]
    capacity_sat: tuple[int, ...]
    min_clients: int
    max_clients: int


class BuildDropped(Record, frozen=True, kw_only=True, tag="build_dropped"):
    """The build ended before anything was proposed, or will not be tried again."""

    reason: str


class RebuildAwaited(Record, frozen=True, kw_only=True, tag="rebuild_awaited"):
    """An attempt was aborted; the clients that stayed are expected back with fresh keys."""

    node_ids: tuple[bytes, ...]
    min_clients: int
    max_clients: int


ClientLobbyRecord = LobbyGreeted | WishMade | WishWithdrawn | JoinSent | JoinAnswered

LspLobbyRecord = ClientJoined | ClientLeft | BuildStarted | BuildDropped | RebuildAwaited
