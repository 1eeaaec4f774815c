"""Readers of what we wrote ourselves, on a disk or in a place that nobody trusts."""

import hashlib
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from cromford.adapters import key_file
from cromford.adapters.key_file import KEY_FILE, KeyFile
from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sealed import BadFile, Reach, SealedWriter, check_whole, read_sealed
from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.agent.keeping import BEGUN, PACKAGES, Keeping
from cromford.agent.keeping import STREAM as AGENT
from cromford.bitcoin.network import REGTEST
from cromford.channel.content import CommitmentContent, Htlc
from cromford.channel.terms import Party
from cromford.daemon.backup import mark_file
from cromford.daemon.backup.contents import (
    Appended,
    End,
    Moment,
    Replaced,
    TableRows,
    encode_frame,
    frames,
)
from cromford.daemon.backup.header import BACKUP, begin_file, checked_header
from cromford.daemon.backup.high_water import MEMO_KEY, read_memo
from cromford.daemon.backup.mark_file import BadMark, MarkFile
from cromford.daemon.backup.reading import load
from cromford.daemon.parts import _asleep_of
from cromford.daemon.seed_file import BadSeed, _phrase_in, check_phrase
from cromford.ports import Archived, Checkpoint, Entry, Row, StoreFailed
from cromford.protocol.journal.records import UnknownRecord, decode_record, encode_record
from cromford.protocol.journal.revoked import (
    decode_content,
    encode_content,
    encode_htlc,
    encode_naming,
)
from cromford.protocol.journal.rows import SHAPE_ID_SIZE, SHAPES, Shapes
from cromford.protocol.journal.snapshot import (
    Position,
    Snapshots,
    UnreadableSnapshot,
    references_of,
)
from cromford.protocol.journal.streams import CREATION
from cromford.shelf import KEY_READERS, key_bytes
from cromford.signing.handed_over import SEALED_SIZE, KeysUnusable, SealedKeys, unsealed
from cromford.signing.keychain import Keychain
from tests.daemon.backup.stores import NOON, NUMBER, OWNER
from tests.daemon.backup.stores import fill as fill_store
from tests.fuzz.target import Target, halves
from tests.protocol.frozen_state import CONFIGS

POSITION: Final = Position("fuzzed", 1)
STREAMS: Final = tuple(CONFIGS)
FILE_ID: Final = bytes(16)
CHANNEL_ID: Final = bytes(32)
HERE: Final = Path("a file")


@contextmanager
def directory() -> Iterator[Path]:
    """Give an empty directory, in memory where the system has one there."""
    where = Path("/dev/shm")  # noqa: S108 - private below
    path = Path(tempfile.mkdtemp(dir=where if where.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def read_record(data: bytes) -> None:
    """Read a record: what it says is written as something that says the same."""
    record = decode_record(data)
    assert decode_record(encode_record(record)) == record


@cache
def snapshots(stream: str) -> Snapshots[Any]:
    """Return what reads the states of a stream."""
    root, config = CONFIGS[stream]
    return Snapshots(root, references_of(config))


def read_snapshot(data: bytes) -> None:
    """Read a snapshot, whose first byte says of which stream; its checksum is put right."""
    stream = STREAMS[data[0] % len(STREAMS)] if data else STREAMS[0]
    packed = zlib.compress(data[1:], 1)
    snapshots(stream).decode(hashlib.sha256(packed).digest() + packed, POSITION)


def read_damaged_snapshot(data: bytes) -> None:
    """Read bytes behind their checksum, be they compressed or not."""
    snapshots("house").decode(hashlib.sha256(data).digest() + data, POSITION)


def read_row(data: bytes) -> None:
    """Read a row of a shelf, and what describes its classes."""
    shape, value = halves(data)
    shape_id = hashlib.sha256(shape).digest()[:SHAPE_ID_SIZE]
    rows = snapshots("house")
    shapes = Shapes(_Rows({shape_id: shape}), (), rows._reader_of_rows)
    shapes.read(shape_id + value)


class _Rows:
    """The rows of one shelf."""

    def __init__(self, held: dict[bytes, bytes]) -> None:
        self._held = held

    def get(self, shelf: str, key: bytes) -> bytes | None:
        return self._held.get(key) if shelf == SHAPES else None

    def among(self, _shelf: str, _keys: Any) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

    def walk(self, _shelf: str, _start: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


def read_key(data: bytes) -> None:
    """Read a key of a shelf, of the type that the first byte chooses."""
    names = sorted(KEY_READERS)
    name = names[data[0] % len(names)] if data else names[0]
    key = KEY_READERS[name](data[1:])
    assert name == "int" or key_bytes(key) == data[1:]


def read_revoked(data: bytes) -> None:
    """Read what a revoked commitment said."""
    htlc = Htlc(
        offered_by=Party.OPENER, htlc_id=0, amount_msat=1, payment_hash=bytes(32), cltv_expiry=2
    )
    archived = encode_htlc(htlc)
    content = decode_content(data, CHANNEL_ID, 7, lambda _key: archived)
    told = encode_content(content)
    assert decode_content(told, CHANNEL_ID, 7, lambda _key: None) == content


def read_revoked_htlc(data: bytes) -> None:
    """Read an HTLC that a revoked commitment names."""
    one = Htlc(offered_by=Party.ACCEPTER, htlc_id=3, amount_msat=1, payment_hash=b"", cltv_expiry=2)
    content = CommitmentContent(
        holder=Party.OPENER, number=7, opener_msat=1, accepter_msat=2, htlcs=(one,)
    )
    told = decode_content(encode_naming(content), CHANNEL_ID, 7, lambda _key: data)
    (htlc,) = told.htlcs
    again = encode_htlc(htlc)
    assert decode_content(encode_naming(told), CHANNEL_ID, 7, lambda _key: again) == told


def read_label(data: bytes) -> None:
    """Read what is known of a factory that sleeps."""
    asleep = _asleep_of("factory:1", data)
    assert asleep.wake_height == int(asleep.wake_height)


def read_memo_of_marks(data: bytes) -> None:
    """Read what a store knows of its marks."""
    memo = read_memo(MemoryJournal(archive={(CREATION, MEMO_KEY): data}))
    assert memo is not None
    again = msgspec.msgpack.encode(memo)
    assert read_memo(MemoryJournal(archive={(CREATION, MEMO_KEY): again})) == memo


def read_sealed_file(data: bytes) -> None:
    """Read a sealed file as it is, with and without its end."""
    with directory() as home:
        path = home / "sealed"
        path.write_bytes(data)
        reach = Reach()
        try:
            assert b"".join(read_sealed(path, OWNER.secret, reach=reach)) is not None
        except BadFile:
            reach.is_finished = False
        checked_header(path, OWNER, kind=BACKUP)
        check_whole(path)
        b"".join(read_sealed(path, OWNER.secret))
        assert reach.is_finished


def read_header_of_backup(data: bytes) -> None:
    """Read a file whose header is well-formed, whatever it says."""
    with directory() as home:
        path = home / "sealed"
        begun = b"CRMFSEAL" + len(data).to_bytes(4, "big") + data
        path.write_bytes(begun + hashlib.sha256(begun).digest())
        checked_header(path, OWNER, kind=BACKUP)


def read_frames(data: bytes) -> None:
    """Read the frames of a file, which comes in chunks of any size."""
    whole = list(frames(HERE, [data]))
    size = 1 + len(data) // 3
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    assert list(frames(HERE, parts)) == whole


def read_backup(data: bytes) -> None:
    """Read a whole backup by its owner, in which any frames are."""
    with directory() as home:
        path, work = home / "one.backup", home / "work"
        writer, _ = begin_file(path, OWNER, kind=BACKUP, journal_number=NUMBER, unix_time=NOON)
        writer.write(data)
        writer.finish()
        work.mkdir()
        found = load(path, OWNER, work)
        with Journal(work) as store:
            assert store.newest == found.newest


def read_seed_file(data: bytes) -> None:
    """Read a seed file; one under a passphrase is read up to where that is asked for."""
    assert check_phrase(_phrase_in(HERE, data, None))


def read_key_file(data: bytes) -> None:
    """Read the file of handed-over keys, raw or, after a 1, with the entries' checks put right.

    Whatever is in it, it opens; keys that it gives are usable, or are said not to be.
    """
    if data[:1] == b"\x01":
        size = key_file.ENTRY_SIZE - key_file._CHECK_SIZE
        bodies = [data[at : at + size] for at in range(1, len(data), size)]
        data = key_file.MAGIC + b"".join(body + key_file._check_of(body) for body in bodies)
    with directory() as home:
        (home / KEY_FILE).write_bytes(data)
        store = KeyFile(home)
        held = list(store._entries.values())
        assert len(held) <= len(data) // key_file.ENTRY_SIZE
        for keys in held:
            check_unusable(keys)
        store.put(SEALED)
        again = KeyFile(home)
        assert again.get(attempt=SEALED.attempt, client=SEALED.client) == SEALED
        assert len(again) >= len(held)


SEALED: Final = SealedKeys(
    attempt=1,
    client=2,
    factory_pubkey=b"\x02" * 33,
    funding_pubkey=b"\x03" * 33,
    sealed=bytes(SEALED_SIZE),
)


def check_unusable(keys: SealedKeys) -> None:
    """Check that keys which nobody sealed are found out."""
    try:
        unsealed(Keychain(bytes(32), REGTEST, journal_number=1), keys)
    except KeysUnusable:
        return
    raise AssertionError("what nobody sealed was unsealed")


def read_mark(data: bytes) -> None:
    """Read a mark's file, raw or, after a 1, with its slots' hashes put right."""
    if data[:1] == b"\x01":
        body_size = mark_file._BODY.size
        bodies = [data[1:][at : at + body_size] for at in range(0, len(data) - 1, body_size)]
        data = b"".join(body + hashlib.sha256(body).digest() for body in bodies)
    with directory() as home:
        path = home / "one.mark"
        path.write_bytes(data)
        mark = MarkFile(path).read()
        assert mark is not None
        assert mark.number >= 0


@cache
def journal_file() -> bytes:
    """Return the bytes of a journal with something of everything."""
    with directory() as home:
        with Journal(home) as store:
            fill_store(store)
        return (home / JOURNAL_NAME).read_bytes()


def read_journal(data: bytes) -> None:
    """Open a journal's file with some bytes changed, and read all of it.

    Each change is three bytes of place, one of length, and what is put there.
    """
    changed = bytearray(journal_file())
    at = 0
    while at + 4 < len(data):
        place = int.from_bytes(data[at : at + 3], "big") % len(changed)
        put = data[at + 4 : at + 4 + 1 + data[at + 3] % 16]
        changed[place : place + len(put)] = put
        at += 4 + len(put)
    with directory() as home:
        (home / JOURNAL_NAME).write_bytes(changed)
        with Journal(home) as store:
            _read_all(store)
            store.append([Entry("house", b"one more")], [Archived("house", b"a key", b"")])


def _read_all(store: Journal) -> None:
    streams = {*(name for name, _ in store.labels()), *store.unlabelled(), *store.due(99)}
    for stream in streams:
        checkpoint = store.checkpoint(stream)
        list(store.replay(stream, after=0 if checkpoint is None else checkpoint.n))
        list(store.rows(stream, "keys"))
        store.label(stream)
        store.archived(stream, b"\x03")
    store.history(after=0, limit=100)


def read_agent_rows(data: bytes) -> None:
    """Open an agent's journal with any package and any height in it."""
    height, package = halves(data)
    store = MemoryJournal()
    Keeping(store, REGTEST, packages_max=4)
    rows = (Row(PACKAGES, b"one", package), Row(BEGUN, b"one", height))
    store.replace_checkpoint(Checkpoint(stream=AGENT, n=0, snapshot=b"", rows=rows))
    keeping = Keeping(store, REGTEST, packages_max=4)
    assert keeping.n_unreadable + len(keeping.held) == 1


TARGETS: Final = (
    Target(name="record", read=read_record, errors=(UnknownRecord,)),
    Target(name="snapshot", read=read_snapshot, errors=(UnreadableSnapshot,), memory_factor=256),
    Target(name="damaged_snapshot", read=read_damaged_snapshot, errors=(UnreadableSnapshot,)),
    Target(name="row", read=read_row, errors=(ValueError,), memory_factor=256),
    Target(name="shelf_key", read=read_key, errors=(ValueError,), size_max=128),
    Target(name="revoked", read=read_revoked, errors=(ValueError,)),
    Target(name="revoked_htlc", read=read_revoked_htlc, errors=(ValueError,)),
    Target(name="label", read=read_label, errors=(StoreFailed,)),
    Target(name="memo", read=read_memo_of_marks, errors=(StoreFailed,)),
    Target(name="sealed", read=read_sealed_file, errors=(BadFile,), is_slow=True),
    Target(name="backup_header", read=read_header_of_backup, errors=(BadFile,), is_slow=True),
    Target(name="frames", read=read_frames, errors=(BadFile,)),
    Target(name="backup", read=read_backup, errors=(BadFile,), is_slow=True),
    Target(name="seed_file", read=read_seed_file, errors=(BadSeed,)),
    Target(name="key_file", read=read_key_file, errors=(), is_slow=True, size_max=1024),
    Target(name="mark", read=read_mark, errors=(BadMark,), is_slow=True, size_max=512),
    Target(name="journal", read=read_journal, errors=(StoreFailed,), is_slow=True, size_max=128),
    Target(name="agent_rows", read=read_agent_rows, errors=()),
)


def sealed_seeds() -> Iterator[bytes]:
    """Yield sealed files, whole and cut."""
    with directory() as home:
        path = home / "sealed"
        writer = SealedWriter(path, OWNER.secret, FILE_ID, {"format": 1})
        writer.write(b"something")
        writer.finish()
        yield path.read_bytes()
        yield path.read_bytes()[:-20]
        path.unlink()
        writer, _ = begin_file(path, OWNER, kind=BACKUP, journal_number=NUMBER, unix_time=NOON)
        writer.write(b"something")
        writer.flush()
        writer.finish()
        yield path.read_bytes()


def frame_seeds() -> Iterator[bytes]:
    """Yield frames of each kind, and those of a backup."""
    every = (
        Appended(1, [("house", b"record")], [("house", b"key", b"value")]),
        Replaced("house", 1, b"snapshot", b"label", None, [("keys", b"a", b"1"), ("k", b"", None)]),
        Moment(1, bytes(32), {"house": 1}),
        TableRows("stream", [(1, "house")]),
        TableRows("journal", [(1, 1, 1, b"record")]),
        End(2),
    )
    yield b"".join(encode_frame(frame) for frame in every)
    yield b"".join(encode_frame(frame) for frame in every[2:])
