"""What the commands of `backup` do, beside a daemon that runs or in its directory.

A module of its own, because it imports keys and journals; no other command needs them.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cromford.adapters.sealed import BadFile
from cromford.adapters.sqlite import Journal, locked
from cromford.adapters.store_copy import n_records_in
from cromford.cli.configuration.run_options import allowed_network
from cromford.cli.failures import EXIT_NOT_FOUND, EXIT_USAGE, CommandFailed
from cromford.cli.invocation import Invocation
from cromford.cli.seed_asking import known_passphrase
from cromford.cli.seed_home import SeedHome, seed_home
from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from cromford.daemon.api.failures import ApiFailure, DaemonNotRunning
from cromford.daemon.backup.header import Owner, WrongVersion
from cromford.daemon.backup.high_water import read_memo
from cromford.daemon.backup.making import create_backup, forget_copies, shown_made
from cromford.daemon.backup.mark_place import MarkPlace
from cromford.daemon.backup.places import PlaceRefused, shared_devices
from cromford.daemon.backup.reading import NoBackup, Unreadable
from cromford.daemon.backup.replica_files import store_name
from cromford.daemon.backup.restoring import (
    WORK_NAME,
    JournalThere,
    Verified,
    forget_work,
    owner_of,
    restore,
    shown,
    verify,
)
from cromford.daemon.backup.said import (
    BACKUP_ELSEWHERE,
    CANNOT_WRITE,
    reason_at,
    reason_of,
    warnings_of,
)
from cromford.daemon.pairing import check_pair, creation_of
from cromford.daemon.seed_file import read_phrase, seed_of

WORDS_FIRST: Final = (
    "Bring the words back first, before the daemon is started: `seed restore`. See --datadir and "
    "--network."
)
STOPPED: Final = (
    "the daemon is stopped: only what the configuration says is known here, and not what `run` was "
    "told by --backup-dir and --mark-dir"
)
CREATE_SECONDS: Final = 3600.0  # That a daemon may take to write a backup.
NEXT_STEPS: Final = (
    (
        "The store is marked as restored: what came after the backup was made is lost. Its "
        "channels take no update and publish no commitment of ours. They can only be closed: a "
        "client asks its LSP, an LSP runs `lsp close`."
    ),
    (
        "If the mark of --mark-dir is at a place that was not lost, start the daemon with it: "
        "where it proves that nothing is missing, the marks are lifted by themselves."
    ),
    "Never start the store that this is a backup of, if it still exists anywhere.",
)


def created(
    invocation: Invocation,
    role: str,
    file: Path,
    *,
    overwrites: bool,
    passphrase_file: Path | None,
) -> dict[str, Any]:
    """Write a backup: by the daemon if it runs, or else here.

    Raises:
        CommandFailed: If it cannot be written; no file is left.
        ApiFailure: If the daemon could not write it.
    """
    socket = invocation.home_of(role) / SOCKET_NAME
    client = ApiClient(socket, role=role, timeout_seconds=CREATE_SECONDS)
    try:
        answer: dict[str, Any] = client.call("backup_create", file=str(file), overwrite=overwrites)
    except DaemonNotRunning:
        pass
    else:
        _check_seen(file, size=answer["size"])
        return answer
    home = seed_home(invocation, role, {})
    with _reported(home):
        _check_journal_there(home)
        seed = _seed(home, passphrase_file)
        owner = _owner(home, seed)
        with Journal(home.path) as store:
            forget_copies(home.path)
            created_record = creation_of(store, role=role, network=home.network)
            check_pair(created_record, owner.fingerprint)
            if created_record is None:
                raise _nothing_there(home)
            with _written(file):
                made = create_backup(
                    store,
                    home.path,
                    file,
                    owner,
                    datadir=invocation.datadir_of(role),
                    journal_number=created_record.journal_number,
                    unix_time=int(time.time()),
                    overwrites=overwrites,
                )
    return dict(shown_made(made))


def _check_seen(file: Path, *, size: int) -> None:
    """Check that a file that a daemon wrote is where we were told to let it be.

    Raises:
        CommandFailed: If it is not.
    """
    try:
        is_seen = file.stat().st_size == size
    except PermissionError:
        return  # Who may not look does not know.
    except OSError:
        is_seen = False
    if not is_seen:
        raise CommandFailed(
            "backup_elsewhere",
            f"{file}: the daemon wrote it, and this user does not find it there",
            remediation="The daemon sees other directories than you do, as with PrivateTmp= of "
            "systemd, or in a container: there it may be gone once the daemon stops. Name a file "
            "where both look.",
        )


def verified(
    invocation: Invocation, role: str, backup: Path, *, passphrase_file: Path | None
) -> dict[str, Any]:
    """Return what is in a backup that could be put back here.

    Raises:
        CommandFailed: If it could not.
    """
    home = seed_home(invocation, role, {})
    with _reported(home):
        home.check_seed_there(remediation=WORDS_FIRST)
        seed = _seed(home, passphrase_file)
        # Beside nothing that lives: the daemon may run meanwhile.
        with tempfile.TemporaryDirectory(prefix=f"{WORK_NAME}-", dir=home.path) as work:
            found = verify(backup, seed, _owner(home, seed), beside=Path(work))
    present = _present(invocation, home)
    return {**shown(found), **_compared(found, present), "warnings": _said_of(found)}


def home_for_restore(invocation: Invocation, role: str, flags: dict[str, Any]) -> SeedHome:
    """Return the home that a backup is to be put into.

    Raises:
        CommandFailed: If it has no seed, or is of a network that was not allowed.
    """
    home = seed_home(invocation, role, flags)
    allowed_network(home.settings)
    home.check_seed_there(remediation=WORDS_FIRST)
    return home


def restored(home: SeedHome, backup: Path, *, passphrase_file: Path | None) -> dict[str, Any]:
    """Put a backup's store into a home.

    Raises:
        CommandFailed: If it cannot be; nothing was changed.
    """
    with _reported(home), home.stopped():
        forget_work(home.path)
        seed = _seed(home, passphrase_file)
        put_back = restore(backup, seed, _owner(home, seed), home.path)
    has_place = home.settings["backup.mark_dir"] is not None
    warnings = _said_of(put_back)
    if not put_back.is_provable:
        warnings.append(
            "no mark was kept of the store that this is a backup of: nothing can prove that "
            "nothing is missing, and its channels only close"
        )
    elif not has_place:
        warnings.append(
            "no place of the mark is configured: start the daemon with --mark-dir, as it was"
        )
    return {
        **shown(put_back),
        "home": str(home.path),
        "marked_streams": put_back.n_marked,
        "next": list(NEXT_STEPS),
        "warnings": warnings,
    }


def status(invocation: Invocation, role: str) -> dict[str, Any]:
    """Return how safe a store is: as its daemon says, or as it lies there.

    Raises:
        CommandFailed: If there is none.
        ApiFailure: If the daemon does not answer.
    """
    try:
        answer: dict[str, Any] = invocation.call(role, "backup_status")
    except DaemonNotRunning:
        pass
    else:
        return answer
    home = seed_home(invocation, role, {})
    with _reported(home):
        _check_journal_there(home)
        with Journal(home.path) as store:
            created_record = creation_of(store, role=role, network=home.network)
            memo, newest = read_memo(store), store.newest
        if created_record is None:
            raise _nothing_there(home)
    fingerprint, number = created_record.seed_fingerprint, created_record.journal_number
    owner = Owner(role=role, network=home.network, fingerprint=fingerprint, secret=b"")
    backup_dir, mark_dir = home.settings["backup.dir"], home.settings["backup.mark_dir"]
    replica = None if backup_dir is None else _replica_of(backup_dir)
    mark = None
    if mark_dir is not None:
        line = b"" if memo is None else memo.line
        mark = _mark_of(mark_dir, store_name(owner, number), line, newest)
    source = "" if memo is None else memo.source
    datadir = invocation.datadir_of(role)
    return {
        "is_running": False,
        "seed": fingerprint.hex(),
        "journal_number": number,
        "records": newest,
        "replica": replica,
        "mark": mark,
        "is_restored": bool(source),
        "source": source,
        "warnings": [
            *([] if replica and mark else [STOPPED]),
            *warnings_of(replica, mark, source),
            *shared_devices(datadir, backup_dir=backup_dir, mark_dir=mark_dir),
        ],
    }


def _replica_of(directory: Path) -> dict[str, Any]:
    is_there = directory.is_dir()
    return {
        "place": str(directory),
        "is_reachable": is_there,
        "reason": None if is_there else f"{directory} is not there",
        "records": None,
        "behind_records": None,
        "behind_seconds": None,
        "written_at": None,
    }


def _mark_of(directory: Path, name: str, line: bytes, newest: int) -> dict[str, Any]:
    found, reason = None, None
    try:
        marks = MarkPlace(directory, name).read()
    except OSError as error:
        reason = reason_at(directory, error)
    else:
        found = marks.get(line)
        if found is None:
            reason = f"{directory} has no mark of this store that can be read"
    return {
        "place": str(directory),
        "is_reachable": reason is None,
        "reason": reason,
        "needs_begin_mark": False,
        "marked_records": None if found is None else found.number,
        "records": newest,
    }


def _seed(home: SeedHome, passphrase_file: Path | None) -> bytes:
    home.check_seed_there()
    passphrase = known_passphrase(home.invocation, home.path, home.passphrase(passphrase_file))
    return seed_of(read_phrase(home.path, passphrase))


def _owner(home: SeedHome, seed: bytes) -> Owner:
    return owner_of(seed, role=home.role, network=home.network)


def _check_journal_there(home: SeedHome) -> None:
    home.check_seed_there()
    with locked(home.path):
        n_records = n_records_in(home.path)
    if not n_records:
        raise _nothing_there(home)


def _nothing_there(home: SeedHome) -> CommandFailed:
    return CommandFailed(
        "journal_not_found",
        f"{home.path}: there is no journal with records",
        remediation="The daemon's first start begins one. See --datadir and --network.",
        exit_code=EXIT_NOT_FOUND,
    )


def _present(invocation: Invocation, home: SeedHome) -> dict[str, Any] | None:
    """Return what there is of the store here: its journal's number, and its newest record."""
    try:
        answer: dict[str, Any] = invocation.call(home.role, "backup_status")
    except ApiFailure:
        pass
    else:
        return answer
    try:
        return status(invocation, home.role)
    except (CommandFailed, ApiFailure):
        return None


def _compared(found: Verified, present: dict[str, Any] | None) -> dict[str, Any]:
    is_same = present is not None and (present["journal_number"] == found.found.says.journal_number)
    behind = present["records"] - found.found.newest if present is not None and is_same else None
    return {"is_of_this_journal": is_same, "behind_records": behind}


def _said_of(found: Verified) -> list[str]:
    left_out = found.found.n_bytes_left_out
    if not left_out:
        return []
    said = (
        f"the last segment of the replica was not written to its end: {left_out} bytes are left "
        f"out, and it reaches to record {found.found.newest}"
    )
    return [said]


@contextmanager
def _written(file: Path) -> Iterator[None]:
    """Turn what can be wrong with the place of a new backup into errors that say what to do.

    Raises:
        CommandFailed: If something is.
    """
    try:
        yield
    except PlaceRefused as error:
        raise CommandFailed(
            "place_refused", str(error), remediation=BACKUP_ELSEWHERE, exit_code=EXIT_USAGE
        ) from error
    except FileExistsError as error:
        raise CommandFailed(
            "backup_exists",
            f"{file} exists",
            remediation="Name another file, or add --overwrite.",
        ) from error
    except OSError as error:
        raise CommandFailed(
            "backup_not_written",
            f"{file}: {reason_of(error)}",
            remediation=CANNOT_WRITE,
            retryable=True,
        ) from error


@contextmanager
def _reported(home: SeedHome) -> Iterator[None]:
    """Turn what can be wrong with a backup into errors that say what to do.

    Raises:
        CommandFailed: If something is.
    """
    with home.reported():
        try:
            yield
        except NoBackup as error:
            raise CommandFailed(
                error.code,
                str(error),
                remediation="Name a file that `backup create` wrote, or the directory that was "
                "--backup-dir.",
                exit_code=EXIT_NOT_FOUND,
            ) from error
        except Unreadable as error:
            raise CommandFailed(
                error.code,
                str(error),
                remediation="Nothing was changed. Let this user read all of the backup, or copy it "
                "to a disk that can be read.",
            ) from error
        except WrongVersion as error:
            raise CommandFailed(
                error.code,
                str(error),
                remediation="Use the version that made it, or one that still reads it.",
                exit_code=EXIT_USAGE,
            ) from error
        except BadFile as error:
            raise CommandFailed(
                error.code,
                str(error),
                remediation="Nothing was changed. Use another backup: of this seed, role and "
                "network, whole, and as it was written.",
                exit_code=EXIT_USAGE,
            ) from error
        except JournalThere as error:
            raise CommandFailed(
                "home_not_empty",
                str(error),
                remediation="Name a data directory that has the seed and no journal: see "
                "--datadir. Never throw a journal away: it may be the newest.",
            ) from error
