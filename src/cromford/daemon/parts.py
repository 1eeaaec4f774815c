"""How a role's state is made of the values of its streams: what the driver has to know of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

import msgspec
from immutables import Map

from cromford.codec.decoders import decoded
from cromford.codec.reader import MalformedBytes
from cromford.daemon.views.channels import sums_of, totals
from cromford.daemon.views.lsp import LOCKING, channels_of, period_of, status_of, summary
from cromford.ports import StoreFailed
from cromford.protocol.client import apply as apply_to_client
from cromford.protocol.exiting.rest import NEVER, has_guests, wakes_at
from cromford.protocol.facts import FRESH
from cromford.protocol.journal.channel_records import RevocationReceived
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.completing import (
    completed_client,
    completed_factory,
    completed_house,
)
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.lsp_state import LspState, settled
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.revoked import Kept, revoked_by
from cromford.protocol.journal.scan import Scan, apply_to_scan
from cromford.protocol.journal.sleep import Asleep
from cromford.protocol.journal.snapshot import Snapshots, references_of
from cromford.protocol.journal.streams import (
    CHAIN,
    CLIENT,
    HOUSE,
    factory_number,
    factory_stream,
)

S = TypeVar("S")


class Library(Protocol):
    """Where the streams lie that are not in memory."""

    def load(self, stream: str) -> Any:  # noqa: ANN401 - streams have values of their own
        """Return a stream's value."""

    def label(self, stream: str) -> bytes:
        """Return what is known of it without loading it; empty if it has to be in memory."""

    def due(self, height: int) -> Iterable[str]:
        """Return those with a label that are to be loaded at a height, or should have been."""


class Parts(Protocol[S]):
    """A role's streams. A value is what a stream folds to, as a restart finds it."""

    def begin(self, state: S, library: Library) -> S:
        """Return a state that loads by itself what is not in memory."""

    def is_ours(self, stream: str) -> bool:
        """Say whether a stream is the role's to load."""

    def value(self, state: S, stream: str) -> Any:  # noqa: ANN401 - streams have values of their own
        """Return the value of a stream; of one that is not begun, what it begins with."""

    def with_value(self, state: S, stream: str, value: Any) -> S:  # noqa: ANN401 - the same
        """Return the state with a stream's value put in."""

    def stored(self, state: S, stream: str, change: Callable[[Any], Any]) -> S:
        """Return the state after a stream's shelves were stored: `change` says so of its value."""

    def fold(self, stream: str) -> Callable[[Any, AnyRecord, int], Any]:
        """Return a stream's fold, of records with the times they were remembered at."""

    def snapshots(self, state: S, stream: str) -> Snapshots[Any] | None:
        """Return what writes and reads a stream's values; None where it is always folded."""

    def archived(self, state: S, stream: str, record: RevocationReceived, /) -> tuple[Kept, ...]:
        """Return what is kept for ever, by its keys, from the state before a record."""

    def settled(self, state: S) -> S:
        """Return a state that says the same, without what its streams have told one another."""

    def label(self, state: S, stream: str) -> bytes:
        """Return what is to be known of a stream that is not in memory; empty if it has to be."""

    def wake_height(self, label: bytes) -> int | None:
        """Return from which height a stream with a label is to be in memory; None for never."""

    def asleep(self, state: S, stream: str, label: bytes) -> S:
        """Return the state with a stream out of memory."""

    def is_asleep(self, state: S, stream: str) -> bool:
        """Say whether a stream is out of memory."""

    def quiet(self, state: S) -> Iterable[str]:
        """Yield the streams that need not be in memory."""

    def is_passing(self, state: S, stream: str) -> bool:
        """Say whether a stream has much to say that is over in a moment: no checkpoint is due."""


class ClientParts:
    """A client is one stream."""

    def begin(self, state: ClientState, library: Library) -> ClientState:  # noqa: ARG002 - a client is one stream
        """Return the state: all of it is always in memory."""
        return state

    def is_ours(self, stream: str) -> bool:
        """Say whether it is the one stream."""
        return stream == CLIENT

    def value(self, state: ClientState, stream: str) -> ClientState:  # noqa: ARG002 - a client is one stream
        """Return the state."""
        return state

    def with_value(self, state: ClientState, stream: str, value: ClientState) -> ClientState:  # noqa: ARG002 - a client is one stream
        """Return the value."""
        return value

    def stored(
        self,
        state: ClientState,
        stream: str,  # noqa: ARG002 - a client is one stream
        change: Callable[[Any], Any],  # noqa: ARG002 - all of it is in its snapshot
    ) -> ClientState:
        """Return the state: nothing lies beside a client's snapshot."""
        return state

    def fold(self, stream: str) -> Callable[[ClientState, AnyRecord, int], ClientState]:  # noqa: ARG002 - a client is one stream
        """Return the client's fold."""
        return apply_to_client

    def snapshots(self, state: ClientState, stream: str) -> Snapshots[ClientState]:  # noqa: ARG002 - a client is one stream
        """Return what writes and reads a client's states."""
        return Snapshots(
            ClientState,
            references_of(state.config),
            completed=completed_client,
        )

    def archived(
        self, state: ClientState, _stream: str, record: RevocationReceived, /
    ) -> tuple[Kept, ...]:
        """Return what the LSP's revoked commitment said."""
        return revoked_by(state.book, record)

    def settled(self, state: ClientState) -> ClientState:
        """Return the state: a client's stream tells nobody anything."""
        return state

    def label(self, state: ClientState, stream: str) -> bytes:  # noqa: ARG002 - a client is one stream
        """Return that it has to be in memory."""
        return b""

    def wake_height(self, label: bytes) -> int | None:  # noqa: ARG002 - there is none
        """Return None: a client does not sleep."""
        return None

    def asleep(self, state: ClientState, stream: str, label: bytes) -> ClientState:  # noqa: ARG002 - a client is one stream
        """Never happens: there is no label.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError("a client does not sleep")

    def is_asleep(self, state: ClientState, stream: str) -> bool:  # noqa: ARG002 - a client is one stream
        """Say that it is not."""
        return False

    def quiet(self, state: ClientState) -> Iterable[str]:  # noqa: ARG002 - a client is one stream
        """Yield nothing."""
        return ()

    def is_passing(self, state: ClientState, stream: str) -> bool:  # noqa: ARG002 - a client is one stream
        """Say no: what a client has of a ceremony is its own branch."""
        return False


class LspParts:
    """An LSP is its house, its scan of the chain, and a stream for each factory."""

    def begin(self, state: LspState, library: Library) -> LspState:
        """Return a state that loads factories."""

        def find(number: int) -> Asleep | None:
            stream = factory_stream(number)
            label = library.label(stream)
            return _asleep_of(stream, label) if label else None

        return replace(
            state,
            load=lambda number: library.load(factory_stream(number)),
            find=find,
            due=lambda height: sorted(map(_number, library.due(height))),
        )

    def is_ours(self, stream: str) -> bool:
        """Say whether it is one of them."""
        return stream in {HOUSE, CHAIN} or factory_number(stream) is not None

    def value(self, state: LspState, stream: str) -> House | Scan | Factory:
        """Return a stream's value, without what is true of this run only."""
        if stream == HOUSE:
            return state.house.durable
        return state.scan if stream == CHAIN else state.factory(_number(stream)).durable

    def with_value(self, state: LspState, stream: str, value: Any) -> LspState:  # noqa: ANN401 - the same
        """Return the state with a stream's value put in."""
        if stream == HOUSE:
            return replace(state, house=value)
        return replace(state, scan=value) if stream == CHAIN else state.with_factory(value)

    def stored(self, state: LspState, stream: str, change: Callable[[Any], Any]) -> LspState:
        """Return the state after the shelves of the house, or of the scan, were stored."""
        if stream == HOUSE:
            return replace(state, house=change(state.house))
        return replace(state, scan=change(state.scan)) if stream == CHAIN else state

    def fold(self, stream: str) -> Callable[[Any, AnyRecord, int], Any]:
        """Return a stream's fold."""
        folds: Mapping[str, Callable[[Any, AnyRecord, int], Any]] = {
            HOUSE: apply_to_house,
            CHAIN: apply_to_scan,
        }
        return folds.get(stream, apply_to_factory)

    def snapshots(self, state: LspState, stream: str) -> Snapshots[Any]:
        """Return what writes and reads a stream's values."""
        references = references_of(state.config)
        if stream == HOUSE:
            return Snapshots(House, references, has_shelves=True, completed=completed_house)
        if stream == CHAIN:
            return Snapshots(Scan, references, has_shelves=True)
        return Snapshots(Factory, references, completed=completed_factory)

    def archived(
        self, state: LspState, stream: str, record: RevocationReceived, /
    ) -> tuple[Kept, ...]:
        """Return what a client's revoked commitment said."""
        return revoked_by(state.factory(_number(stream)).book, record)

    def settled(self, state: LspState) -> LspState:
        """Return the state without mail that was taken."""
        return settled(state)

    def label(self, state: LspState, stream: str) -> bytes:
        """Return until when a factory sleeps, and what is shown of it meanwhile."""
        number = factory_number(stream)
        factory = None if number is None else state.factories.get(number)
        if factory is None or stream in state.stopped:
            return b""
        factory = state.factory(factory.number)
        wake_height = wakes_at(factory)
        if wake_height is None or has_guests(factory, state.house.connected.__contains__):
            return b""
        return msgspec.json.encode(
            Label(
                wake_height=wake_height,
                status=status_of(factory),
                earned_msat=factory.book.earned_msat,
                n_finished=factory.book.n_finished,
                totals=sums_of(totals(channels_of(state.house, factory, FRESH))),
                taken=dict(sorted(factory.post.taken.items())),
                shown=dict(summary(factory)),
                period=period_of(factory),
            )
        )

    def wake_height(self, label: bytes) -> int | None:
        """Return until when a factory sleeps; None for ever, or if it may not."""
        height = decoded(_LABEL_DECODER, label).wake_height if label else NEVER
        return None if height == NEVER else height

    def asleep(self, state: LspState, stream: str, label: bytes) -> LspState:
        """Return the state with a factory out of memory.

        Raises:
            StoreFailed: If its label is damaged.
        """
        return state.without_factory(_number(stream), _asleep_of(stream, label))

    def is_asleep(self, state: LspState, stream: str) -> bool:
        """Say whether a factory is out of memory."""
        return factory_number(stream) in state.asleep

    def quiet(self, state: LspState) -> Iterable[str]:
        """Yield the factories in which nothing happens, and no client of which is here."""
        connected = state.house.connected.__contains__
        for number in sorted(state.restless.asked):
            if number not in state.factories:
                continue  # It went before its rest was over.
            factory = state.factory(number)
            is_idle = factory.stream not in state.stopped and wakes_at(factory) is not None
            if is_idle and not has_guests(factory, connected):
                yield factory.stream

    def is_passing(self, state: LspState, stream: str) -> bool:
        """Say whether a factory's ceremony is under way, of which a restart keeps nothing.

        Everybody's nonces and halves are there, and to write a checkpoint takes twice their memory.
        """
        number = factory_number(stream)
        factory = None if number is None else state.factories.get(number)
        return factory is not None and factory.begun is not None and factory.attempt.is_open


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a factory that sleeps; `shown` is how people read it."""

    wake_height: int
    status: str
    earned_msat: int
    n_finished: int
    totals: dict[str, int]
    taken: dict[str, int]
    shown: dict[str, Any]
    period: str = ""  # Of its life; empty where it has none, or an older version wrote the label.


LOCKED: Final = "funding_amount_sat"  # Of what is shown: counted while the factory has it.
_LABEL_DECODER: Final = msgspec.json.Decoder(Label)


def read_label(stream: str, label: bytes) -> Label:
    """Return what is known of a factory that sleeps.

    Raises:
        StoreFailed: If its label is damaged.
    """
    try:
        read = decoded(_LABEL_DECODER, label)
    except MalformedBytes as error:
        raise StoreFailed(f"the label of {stream} is damaged: {error}") from error
    if read.status in LOCKING and type(read.shown.get(LOCKED)) is not int:
        raise StoreFailed(f"the label of {stream} is damaged: {LOCKED}: expected an amount")
    return read


def _asleep_of(stream: str, label: bytes) -> Asleep:
    read = read_label(stream, label)
    return Asleep(
        wake_height=read.wake_height,
        status=read.status,
        earned_msat=read.earned_msat,
        n_finished=read.n_finished,
        locked_sat=read.shown[LOCKED] if read.status in LOCKING else 0,
        totals=Map(read.totals),
        taken=Map(read.taken),
        period=read.period,
        expiry_height=_expiry_of(read),
    )


def _expiry_of(label: Label) -> int:
    """Return the height at which a factory that sleeps expires; 0 of one that does not say."""
    height = label.shown.get("expiry_height")
    return height if type(height) is int else 0


def _number(stream: str) -> int:
    number = factory_number(stream)
    if number is None:
        raise ValueError(f"{stream} is no factory's stream")
    return number
