"""A stream and its checkpoint: the same state as of all its records, whatever crashes when."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulation.sim_node import Crash, SimStore

from cromford import ports
from cromford.adapters import sqlite
from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.daemon import streams
from cromford.daemon.checkpoints import Checkpoints
from cromford.daemon.streams import TAIL_SHARE, TAIL_SIZE_MIN, SnapshotDiffers, Stream
from cromford.ports import Checkpoint, Entry, Store, StoreDamaged, StoreFailed
from cromford.protocol.journal.records import AnyRecord, PeerConnected, encode_record
from cromford.protocol.journal.snapshot import Snapshots

NAME = "house"


@dataclass(frozen=True)
class Guests:
    """A state that remembers everybody in order."""

    node_ids: tuple[bytes, ...] = ()


def apply(state: Guests, record: AnyRecord, _at: int) -> Guests:
    assert isinstance(record, PeerConnected)
    return replace(state, node_ids=(*state.node_ids, record.node_id))


SNAPSHOTS = Snapshots(Guests, {})


def opened(store: Store, snapshots: Snapshots[Guests] | None = SNAPSHOTS) -> Stream[Guests]:
    return Stream(store, NAME, beginning=Guests(), apply=apply, snapshots=snapshots)


def guests(*names: bytes) -> list[PeerConnected]:
    return [PeerConnected(node_id=name) for name in names]


def remember(store: Store, stream: Stream[Guests], records: Sequence[AnyRecord]) -> None:
    """Append records as the driver does."""
    entries = [Entry(NAME, encode_record(record)) for record in records]
    store.append(entries)
    for record, entry in zip(records, entries, strict=True):
        stream.state = apply(stream.state, record, 0)
        stream.count(entry.record)


@given(
    steps=st.lists(st.sampled_from(["one", "three", "checkpoint", "late", "restart"]), max_size=20)
)
def test_a_stream_with_checkpoints_is_the_fold_of_all_its_records(steps: list[str]) -> None:
    store = MemoryJournal()
    stream, n = opened(store), 0
    begun: Callable[[], Checkpoint] | None = None
    for step in steps:
        match step:
            case "one" | "three":
                names = [b"%d" % (n + i) for i in range(1 if step == "one" else 3)]
                remember(store, stream, guests(*names))
                n += len(names)
            case "checkpoint":
                stream.keep(stream.begin_checkpoint()())
                begun = None
            case "late" if begun is not None:
                stream.keep(begun())
                begun = None
            case "late":
                begun = stream.begin_checkpoint()  # Kept when more has been remembered.
            case "restart":
                stream, begun = opened(store), None
    again = opened(store)
    assert again.state == stream.state == Guests(tuple(b"%d" % i for i in range(n)))
    assert again.n == stream.n == n


@pytest.mark.parametrize("n_writes", range(9))
@pytest.mark.parametrize("is_after", [False, True])
def test_a_crash_around_a_checkpoint_or_an_append_loses_nothing(
    n_writes: int,
    is_after: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    fuse = 2 * n_writes + is_after

    def dice() -> bool:
        nonlocal fuse
        fuse -= 1
        return fuse < 0

    store = SimStore(dice=dice)
    stream = opened(store)

    def live() -> None:
        while True:
            remember(store, stream, guests(b"%d" % stream.n))
            stream.keep(stream.begin_checkpoint()())

    with pytest.raises(Crash):
        live()
    again = opened(store)
    assert again.n in {stream.n, stream.n + 1}
    assert again.state == Guests(tuple(b"%d" % i for i in range(again.n)))


def test_a_checkpoint_is_due_when_the_tail_has_grown_to_a_share_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    least = 20_000
    monkeypatch.setattr(streams, "TAIL_SIZE_MIN", least)
    store = MemoryJournal()
    stream = opened(store)
    dice = iter(range(10**9))

    def grow(size: int) -> None:
        names = [
            hash_of(next(dice)) for _ in range(size // len(encode_record(guests(bytes(32))[0])))
        ]
        remember(store, stream, guests(*names))

    def is_due() -> bool:
        assert stream.is_due == opened(store).is_due, "also after a restart"
        return stream.is_due

    assert not is_due()
    grow(least - 200)
    assert not is_due()
    grow(400)
    assert is_due()
    grow(8 * least)
    checkpoint = stream.begin_checkpoint()()
    stream.keep(checkpoint)
    share = int(TAIL_SHARE * len(checkpoint.snapshot))
    assert share > least
    grow(share - 200)
    assert not is_due()
    grow(400)
    assert is_due()


def hash_of(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def test_a_stream_without_snapshots_never_has_one() -> None:
    store = MemoryJournal()
    stream = opened(store, None)
    remember(store, stream, guests(bytes(2 * TAIL_SIZE_MIN)))
    assert not stream.is_due
    with pytest.raises(ValueError, match="house has no checkpoints"):
        stream.begin_checkpoint()
    store.replace_checkpoint(Checkpoint(NAME, 1, b""))
    with pytest.raises(StoreFailed, match="nobody can read"):
        opened(store, None)


def spoil_checkpoint(journal: Journal, damage: str) -> None:
    """Put a damaged checkpoint in the place of the one that is there."""
    found = journal.checkpoint(NAME)
    assert found is not None
    n, snapshot = found.n, found.snapshot
    spoilt = {
        "flipped": Checkpoint(NAME, n, snapshot[:-1] + bytes((snapshot[-1] ^ 1,))),
        "cut": Checkpoint(NAME, n, snapshot[:-1]),
        "moved": Checkpoint(NAME, n + 1, snapshot),
    }[damage]
    journal.replace_checkpoint(spoilt)


@pytest.mark.parametrize("damage", ["flipped", "cut", "moved"])
def test_a_damaged_checkpoint_costs_nothing_while_the_records_are_there(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Journal(tmp_path) as journal:
        stream = opened(journal)
        remember(journal, stream, guests(b"a", b"b", b"c"))
        stream.keep(stream.begin_checkpoint()())
        remember(journal, stream, guests(b"d"))
        spoil_checkpoint(journal, damage)
    with Journal(tmp_path) as journal:
        stream = opened(journal)
        assert stream.state == Guests((b"a", b"b", b"c", b"d"))
        assert "checkpoint_damaged stream=house" in caplog.text
        assert stream.is_due, "the next one takes its place"
        stream.keep(stream.begin_checkpoint()())
        caplog.clear()
        assert opened(journal).state == stream.state
        assert not caplog.text


@pytest.mark.parametrize("damage", ["flipped", "cut", "moved"])
def test_a_damaged_checkpoint_whose_records_are_gone_starts_nothing_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(ports, "EVENTS_KEPT", 1)
    with Journal(tmp_path) as journal:
        stream = opened(journal)
        remember(journal, stream, guests(b"a", b"b", b"c"))
        stream.keep(stream.begin_checkpoint()())
        remember(journal, stream, guests(b"d"))
        spoil_checkpoint(journal, damage)
    before = (tmp_path / "journal.sqlite").read_bytes()
    both = r"checkpoint of house.*its records cannot take its place: .*record 1 of house is missing"
    with Journal(tmp_path) as journal, pytest.raises(StoreDamaged, match=both):
        opened(journal)
    assert (tmp_path / "journal.sqlite").read_bytes() == before


class Forgetful(Snapshots[Guests]):
    """Writes less than it is given."""

    def encode(self, state: Guests, *args: Any, **named: Any) -> bytes:
        return super().encode(replace(state, node_ids=state.node_ids[1:]), *args, **named)


def test_a_snapshot_that_does_not_say_what_the_state_says_is_never_written() -> None:
    store = MemoryJournal()
    stream = opened(store, Forgetful(Guests, {}))
    remember(store, stream, guests(b"a", b"b"))
    with pytest.raises(SnapshotDiffers, match="house after 2"):
        stream.begin_checkpoint()()
    assert store.checkpoints == {}


# In a daemon


class Holder:
    """As much of a driver as checkpoints need: one stream."""

    def __init__(self, stream: Stream[Any]) -> None:
        self.stream = stream

    def due_checkpoints(self) -> list[str]:
        return [self.stream.name] if self.stream.is_due else []

    def begin_checkpoint(self, _name: str) -> Callable[[], Checkpoint]:
        return self.stream.begin_checkpoint()

    def kept(self, checkpoint: Checkpoint) -> None:
        self.stream.kept(checkpoint)


def taken(
    store: Store, stream: Stream[Any], n_looks: int = 1, while_made: Callable[[], object] = bool
) -> None:
    """Let a running daemon look at a stream, and wait for what it does."""

    async def scenario() -> None:
        tasks: list[asyncio.Task[None]] = []

        async def keep(checkpoint: Checkpoint) -> None:
            store.replace_checkpoint(checkpoint)

        checkpoints = Checkpoints(lambda work: tasks.append(asyncio.create_task(work)), keep)
        for _ in range(n_looks):
            checkpoints.look(Holder(stream))  # type: ignore[arg-type]  # as a driver does
        await asyncio.sleep(0)
        while_made()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_a_daemon_takes_one_that_is_due_while_it_goes_on() -> None:
    store = MemoryJournal()
    stream = opened(store)
    taken(store, stream)
    assert store.checkpoints == {}
    remember(store, stream, guests(bytes(TAIL_SIZE_MIN)))
    taken(
        store, stream, n_looks=3, while_made=lambda: remember(store, stream, guests(b"meanwhile"))
    )
    assert store.checkpoints[NAME].n == 1
    assert opened(store).state == stream.state
    assert opened(store).n == 2


def test_a_daemon_goes_on_without_one_that_cannot_be_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryJournal()
    stream = opened(store, Forgetful(Guests, {}))
    remember(store, stream, guests(bytes(TAIL_SIZE_MIN)))
    with caplog.at_level(logging.ERROR):
        taken(store, stream)
    assert "checkpoint_failed stream=house" in caplog.text
    assert store.checkpoints == {}
    assert not stream.is_due, "not again before as much has come"


def test_a_daemon_goes_on_with_its_records_when_a_snapshot_outgrows_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (streams, sqlite):
        monkeypatch.setattr(module, "SNAPSHOT_SIZE_MAX", 200)
    with Journal(tmp_path) as journal:
        stream = opened(journal)
        remember(journal, stream, guests(*map(hash_of, range(10)), bytes(TAIL_SIZE_MIN)))
        with caplog.at_level(logging.ERROR):
            taken(journal, stream)
        assert "a snapshot has at most 200 bytes, this one " in caplog.text
        assert journal.checkpoint(NAME) is None
        assert not stream.is_due, "not again before as much has come"
        assert opened(journal).state == stream.state


def test_a_journal_that_cannot_keep_one_ends_the_daemon() -> None:
    class Full(MemoryJournal):
        def replace_checkpoint(self, checkpoint: Checkpoint) -> None:
            raise StoreFailed(f"no room for {checkpoint.stream}")

    store = Full()
    stream = opened(store)
    remember(store, stream, guests(bytes(TAIL_SIZE_MIN)))
    with pytest.raises(StoreFailed, match="no room"):
        taken(store, stream)


def test_streams_of_one_journal_know_nothing_of_each_other() -> None:
    store = MemoryJournal()
    store.append([Entry("chain", b"\0 nothing that house could read")])
    stream = opened(store)
    remember(store, stream, guests(b"a"))
    stream.keep(stream.begin_checkpoint()())
    assert opened(store).state == Guests((b"a",))
    assert list(store.replay("chain")) == [b"\0 nothing that house could read"]
