"""Verifying a backup, and putting it back: all or nothing, and never unmarked."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cromford.adapters.directories import make_directory, sync_directory
from cromford.adapters.sealed import BadFile
from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.adapters.store_copy import n_records_in
from cromford.bitcoin.network import Network
from cromford.daemon.backup.folding import n_channels_in
from cromford.daemon.backup.header import Owner
from cromford.daemon.backup.high_water import HighWater
from cromford.daemon.backup.reading import FoundBackup, load
from cromford.daemon.backup.restored import mark_as_restored
from cromford.daemon.pairing import creation_of
from cromford.ports import StoreFailed
from cromford.protocol.journal.records import UnknownRecord
from cromford.signing.keychain import Keychain, backup_secret, seed_fingerprint

WORK_NAME: Final = "backup-work"  # And a random end: beside the journal while one is read.


class JournalThere(Exception):
    """A journal with records is where a backup was to be put. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A backup that could be put back."""

    found: FoundBackup
    n_channels: int
    n_marked: int = 0
    is_provable: bool = False


def owner_of(seed: bytes, *, role: str, network: Network) -> Owner:
    """Return whose backups a role's are that runs from a seed."""
    return Owner(
        role=role,
        network=network,
        fingerprint=seed_fingerprint(seed, network),
        secret=backup_secret(seed, network),
    )


def verify(path: Path, seed: bytes, owner: Owner, *, beside: Path) -> Verified:
    """Read a backup to its end and fold it as a daemon would; nothing of it stays.

    Args:
        path: A backup's file, or a replica's directory.
        seed: Whose it has to be.
        owner: The same, as backups say it.
        beside: Where there is room for what is read, meanwhile.

    Raises:
        BadFile: If it is none that could be put back: named by what is wrong.
        OSError: If there is no room beside it.
        StoreFailed: If what is read cannot be written.
    """
    with _read(path, seed, owner, beside=beside) as (_, verified):
        return verified


def restore(path: Path, seed: bytes, owner: Owner, home: Path) -> Verified:
    """Put a backup's store into a home that has none, marked as restored.

    The home's lock is held by whoever asks.

    Raises:
        JournalThere: If the home has a journal with records.
        BadFile: As `verify`.
        OSError: As `verify`.
        StoreFailed: As `verify`.
    """
    n_records = n_records_in(home)
    if n_records:
        raise JournalThere(
            f"{home / JOURNAL_NAME} has {n_records} records: a backup is put back only where there "
            "are none"
        )
    with _read(path, seed, owner, beside=home) as (work, verified):
        with Journal(work) as store:
            n_marked = mark_as_restored(
                store,
                backup_id=verified.found.backup_id,
                source=str(path.absolute()),
            )
            is_provable = all(HighWater.of(store).memo.origins)
        _install(work / JOURNAL_NAME, home / JOURNAL_NAME)
    return Verified(
        found=verified.found,
        n_channels=verified.n_channels,
        n_marked=n_marked,
        is_provable=is_provable,
    )


def forget_work(home: Path) -> None:
    """Remove what a process left that died while it read a backup. Its home is held."""
    for path in home.glob(f"{WORK_NAME}-*"):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _read(
    path: Path, seed: bytes, owner: Owner, *, beside: Path
) -> Iterator[tuple[Path, Verified]]:
    """Give the directory in which a backup is a journal, for as long as the block lasts."""
    work = beside / f"{WORK_NAME}-{secrets.token_hex(4)}"
    try:
        make_directory(work)
        found = load(path, owner, work)
        yield work, Verified(found=found, n_channels=_folded(found, seed, owner, work))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _folded(found: FoundBackup, seed: bytes, owner: Owner, work: Path) -> int:
    keychain = Keychain(seed, owner.network, journal_number=found.says.journal_number)
    try:
        with Journal(work) as store:
            created = creation_of(store, role=owner.role, network=owner.network)
            if created is None or created.journal_number != found.says.journal_number:
                raise BadFile(f"{found.path} is damaged: it is not of the journal that it names")
            return n_channels_in(store, keychain, role=owner.role, network=owner.network)
    except UnknownRecord as error:
        raise BadFile(f"{found.path}: a record cannot be read: {error}") from error


def _install(made: Path, path: Path) -> None:
    """Give a closed journal its name, durably. An empty one that is there makes room."""
    left = [f"{made.name}-wal", f"{made.name}-journal"]
    if any((made.parent / name).exists() for name in left):
        raise StoreFailed(f"{made} was not closed")
    fd = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    for name in (f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)
    made.replace(path)
    sync_directory(path.parent)


def shown(verified: Verified) -> dict[str, Any]:
    """Return a backup as plain data."""
    found, says = verified.found, verified.found.says
    return {
        "path": str(found.path),
        "backup_id": found.backup_id.hex(),
        "role": says.role,
        "network": says.network,
        "seed": says.seed,
        "journal_number": says.journal_number,
        "created": says.created,
        "version": says.version,
        "records": found.newest,
        "streams": len(found.heads),
        "channels": verified.n_channels,
        "segments": found.n_segments,
        "bytes_left_out": found.n_bytes_left_out,
    }
