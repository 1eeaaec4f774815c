"""Stores with something of everything, and what is in them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cromford.adapters.sqlite import Journal
from cromford.bitcoin.network import REGTEST
from cromford.daemon.backup.header import Owner
from cromford.daemon.backup.making import Made, create_backup
from cromford.ports import Archived, Checkpoint, Entry, Row, Store

NUMBER: Final = 7
NOON: Final = 1_700_000_000
OWNER: Final = Owner(role="lsp", network=REGTEST, fingerprint=b"a seed..", secret=bytes(32))
STREAMS: Final = ("creation", "house", "chain", "factory:1", "factory:2")


def fill(store: Journal, n_records: int = 20) -> None:
    """Give a store records of all streams, a checkpoint with rows and a label, an archive."""
    for number in range(n_records):
        stream = STREAMS[number % len(STREAMS)]
        archived = [Archived(stream, bytes([number]), b"archived")] if number % 3 == 0 else []
        store.append([Entry(stream, f"record {number}".encode())], archived)
    rows = [Row("keys", b"a", b"1"), Row("keys", b"b", b"2")]
    store.replace_checkpoint(
        Checkpoint("factory:1", store.head("factory:1"), b"snapshot", b"label", 99, rows)
    )


def content(store: Store) -> dict[str, Any]:
    """Return all that a reader of a store can see."""
    streams = sorted({*(name for name, _ in store.labels()), *store.unlabelled()})
    checkpoints = {stream: store.checkpoint(stream) for stream in streams}
    after = {s: 0 if c is None else c.n for s, c in checkpoints.items()}
    return {
        "newest": store.newest,
        "records": {s: list(store.replay(s, after=after[s])) for s in streams},
        "checkpoints": checkpoints,
        "labels": dict(store.labels()),
        "due": list(store.due(99)),
        "rows": {s: list(store.rows(s, "keys")) for s in streams},
        "archived": {
            (s, n): store.archived(s, bytes([n])) for s in streams for n in range(store.newest)
        },
        "history": hashlib.sha256(repr(store.history(after=0, limit=10_000)).encode()).hexdigest(),
    }


@contextmanager
def opened(home: Path) -> Iterator[Journal]:
    with Journal(home) as store:
        yield store


def backed_up(store: Journal, home: Path, path: Path, owner: Owner = OWNER) -> Made:
    return create_backup(
        store,
        home,
        path,
        owner,
        datadir=home,
        journal_number=NUMBER,
        unix_time=NOON,
        overwrites=False,
    )
