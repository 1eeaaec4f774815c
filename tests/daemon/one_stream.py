"""The layout of a role of one stream that is always folded, for tests of the driver."""

from collections.abc import Callable, Iterable
from typing import Any

from cromford.daemon.parts import Library
from cromford.protocol.journal.channel_records import RevocationReceived
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.revoked import Kept


class OneStream:
    """Implements `daemon.parts.Parts`."""

    def __init__(self, stream: str, fold: Callable[[Any, AnyRecord, int], Any]) -> None:
        self._stream = stream
        self._fold = fold

    def begin(self, state: Any, _library: Library) -> Any:
        return state

    def is_ours(self, stream: str) -> bool:
        return stream == self._stream

    def value(self, state: Any, _stream: str) -> Any:
        return state

    def with_value(self, _state: Any, _stream: str, value: Any) -> Any:
        return value

    def stored(self, state: Any, _stream: str, _change: Callable[[Any], Any]) -> Any:
        return state

    def fold(self, _stream: str) -> Callable[[Any, AnyRecord, int], Any]:
        return self._fold

    def snapshots(self, _state: Any, _stream: str) -> None:
        return None

    def archived(
        self, _state: Any, _stream: str, _record: RevocationReceived, /
    ) -> tuple[Kept, ...]:
        raise AssertionError("nothing is revoked")

    def settled(self, state: Any) -> Any:
        return state

    def label(self, _state: Any, _stream: str) -> bytes:
        return b""

    def wake_height(self, _label: bytes) -> None:
        return None

    def asleep(self, _state: Any, _stream: str, _label: bytes) -> Any:
        raise AssertionError("it never sleeps")

    def is_asleep(self, _state: Any, _stream: str) -> bool:
        return False

    def quiet(self, _state: Any) -> Iterable[str]:
        return ()

    def is_passing(self, _state: Any, _stream: str) -> bool:
        return False
