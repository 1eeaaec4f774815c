"""What is remembered of the lobby: wishes, joins, and builds that begin or end there."""

from cromford.protocol.journal.kept import KeptJoin
from cromford.protocol.journal.mail import Ordered, PayAsked
from cromford.protocol.journal.record import Record


class LobbyGreeted(Record, frozen=True, kw_only=True, tag="lobby_greeted"):
    """The LSP told who may join."""

    message: bytes


class WishMade(Record, frozen=True, kw_only=True, tag="wish_made"):
    """The operator wishes to be in the next factory; or the client, to move out of `moves_from`."""

    capacity_sat: int
    capacity_least_sat: int
    moves_from: bytes = b""  # Empty where it is the operator's.


class WishWithdrawn(Record, frozen=True, kw_only=True, tag="wish_withdrawn"):
    """Nobody wishes to join any more."""


class JoinSent(Record, frozen=True, kw_only=True, tag="join_sent"):
    """A wish went out with fresh keys; `attempt` is their index.

    `join` is what is kept of it. In older journals `message` is all of it: today that is empty.
    """

    attempt: int
    message: bytes = b""
    join: KeptJoin | None = None


class JoinAnswered(Record, frozen=True, kw_only=True, tag="join_answered"):
    """The LSP accepted the wish, or refused it with a reason."""

    factory_pubkey: bytes
    refusal: str | None


class ClientJoined(Record, frozen=True, kw_only=True, tag="client_joined"):
    """A client waits in the lobby. True of one run: what an attempt takes of it is ordered."""

    node_id: bytes
    message: bytes
    is_moving: bool


class ClientLeft(Record, frozen=True, kw_only=True, tag="client_left"):
    """A client no longer waits. True of one run, too."""

    node_id: bytes


class BuildStarted(Record, frozen=True, kw_only=True, tag="build_started"):
    """Clients were chosen and placed, in placement order; keys are being made.

    `feerates_sat_per_kw` are those of the fee ladder, lowest first; empty: the policy's one.
    `external_id` is what the operator calls the build; empty of one that nobody called anything.
    """

    attempt: int
    node_ids: tuple[bytes, ...]
    reasons: tuple[str, ...]
    capacity_sat: tuple[int, ...]
    min_clients: int
    max_clients: int
    feerates_sat_per_kw: tuple[int, ...] = ()
    external_id: str = ""


class BuildDropped(Record, frozen=True, kw_only=True, tag="build_dropped"):
    """The build ended before anything was proposed, or will not be tried again.

    `code` says what hinders the one that a schedule asks for; empty of any other, and where it is
    older than this field.
    """

    reason: str
    code: str = ""


class RebuildAwaited(Record, frozen=True, kw_only=True, tag="rebuild_awaited"):
    """An attempt was aborted; the clients that stayed are expected back with fresh keys."""

    node_ids: tuple[bytes, ...]
    min_clients: int
    max_clients: int
    feerates_sat_per_kw: tuple[int, ...] = ()
    external_id: str = ""


class RejoinMissed(Record, frozen=True, kw_only=True, tag="rejoin_missed"):
    """These did not come back with fresh keys in time, and kept the others waiting."""

    node_ids: tuple[bytes, ...]


class FactoryOrdered(Record, frozen=True, kw_only=True, tag="factory_ordered"):
    """A factory is to be signed: its coins are reserved, and its clients taken from the lobby.

    `factory_pubkeys` are the clients' and `dying_heights` say from when on each of them moves to
    another factory, both in placement order.
    """

    order: Ordered
    factory_pubkeys: tuple[bytes, ...]
    dying_heights: tuple[int, ...]


class Attendance(Record, frozen=True, kw_only=True, tag="attendance"):
    """Who came since the last block, and who of those before is gone as the next one is counted.

    Of those who have a channel or wait for one: how reliable they are is counted in blocks.
    """

    came: tuple[bytes, ...]
    went: tuple[bytes, ...]


class BanSet(Record, frozen=True, kw_only=True, tag="ban_set"):
    """The operator closed the lobby to a node until a height; a ban before it is replaced."""

    node_id: bytes
    until_height: int
    reason: str


class BanLifted(Record, frozen=True, kw_only=True, tag="ban_lifted"):
    """The operator opened the lobby to a node again: nothing that it did counts any more."""

    node_id: bytes


class PaymentExpected(Record, frozen=True, kw_only=True, tag="payment_expected"):
    """A client expects a payment, and asked to have it held while it is away; until a height."""

    node_id: bytes
    payment_hash: bytes
    hold_seconds: int
    until_height: int


class PaymentOrdered(Record, frozen=True, kw_only=True, tag="payment_ordered"):
    """The operator pays a client's invoice: the factory whose stream is `to` is asked.

    `label` is the operator's, and told to nobody else.
    """

    to: str
    asked: PayAsked
    label: str = ""


class PaymentWithdrawn(Record, frozen=True, kw_only=True, tag="payment_withdrawn"):
    """A payment that a factory was asked for, and did not take, failed; `reason` says why.

    The letter that asks is void: whenever it is taken, it says nothing.
    """

    payment_hash: bytes
    reason: str


class FundingAbandoned(Record, frozen=True, kw_only=True, tag="funding_abandoned"):
    """A funding that our node refuses is given up. `tx`, unsigned, pays a coin of it back to us."""

    attempt_id: bytes
    tx: bytes
    reason: str


class FundingBumped(Record, frozen=True, kw_only=True, tag="funding_bumped"):
    """A child pays for a funding without a block: `tx`, unsigned, spends its change first.

    It takes the place of any child before it. `funding` is signed.
    """

    attempt_id: bytes
    funding: bytes
    tx: bytes
    fee_sat: int


class FundingReplaced(Record, frozen=True, kw_only=True, tag="funding_replaced"):
    """A higher candidate of a fee ladder takes the place of the one that is published.

    The child of that one, if there is one, goes with it. `fee_sat` is what the new one pays.
    """

    attempt_id: bytes
    rung: int
    fee_sat: int


class LadderWanted(Record, frozen=True, kw_only=True, tag="ladder_wanted"):
    """From here on whoever joins is asked for keys of this many funding candidates."""

    candidates: int


ClientLobbyRecord = LobbyGreeted | WishMade | WishWithdrawn | JoinSent | JoinAnswered

HouseRecord = (
    ClientJoined
    | ClientLeft
    | BuildStarted
    | BuildDropped
    | RebuildAwaited
    | RejoinMissed
    | FactoryOrdered
    | Attendance
    | BanSet
    | BanLifted
    | PaymentExpected
    | PaymentOrdered
    | PaymentWithdrawn
    | FundingAbandoned
    | FundingBumped
    | FundingReplaced
    | LadderWanted
)
