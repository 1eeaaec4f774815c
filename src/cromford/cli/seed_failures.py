"""What can be wrong with a seed, and what to do about it: for the daemons and for `seed` alike."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from cromford.cli.failures import (
    EXIT_AUTHENTICATION,
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_USAGE,
    CommandFailed,
    words_of,
)
from cromford.daemon.home import (
    NEW_PASSPHRASE,
    PASSPHRASE,
    PASSWORD,
    PHRASE,
    UnreadableFile,
)
from cromford.daemon.pairing import ForeignJournal, ForeignSeed, SeedMissing, SeedUnnamed
from cromford.daemon.seed_file import BadSeed, NotEncrypted, WrongPassphrase
from cromford.ports import (
    DiskFailed,
    StoreDamaged,
    StoreFailed,
    StoreFull,
    StoreInUse,
    StoreReadOnly,
    StoreTooNew,
)
from cromford.protocol.journal.records import NewerRecord, UnknownRecord


@contextmanager
def seed_failures(role: str, *, passphrase_flag: str) -> Iterator[None]:
    """Turn what can be wrong with a seed and its journal into errors that say what to do.

    Args:
        role: Whose.
        passphrase_flag: The option that names the file with the passphrase.

    Raises:
        CommandFailed: If something is.
    """
    try:
        yield
    except WrongPassphrase as error:
        raise CommandFailed(
            "wrong_passphrase",
            str(error),
            remediation=f"Name the file with the passphrase: see {passphrase_flag}.",
            exit_code=EXIT_AUTHENTICATION,
        ) from error
    except NotEncrypted as error:
        raise CommandFailed(
            "seed_not_encrypted",
            str(error),
            remediation=f"Encrypt it with `cromford {role} seed encrypt`, or name no passphrase: "
            f"see {passphrase_flag} and the key `seed.passphrase_file`.",
            exit_code=EXIT_USAGE,
        ) from error
    except BadSeed as error:
        raise CommandFailed(
            "bad_seed",
            str(error),
            remediation="Take the words or the file from your backup. The file must be readable by "
            "you only.",
            exit_code=EXIT_USAGE,
        ) from error
    except UnreadableFile as error:
        raise unreadable_file(error, passphrase_flag=passphrase_flag) from error
    except (ForeignJournal, UnknownRecord, StoreFailed) as error:
        raise _journal_failure(role, error) from error


def _journal_failure(role: str, error: Exception) -> CommandFailed:
    restore = f"`cromford {role} seed restore`"
    match error:
        case SeedMissing():
            return CommandFailed(
                "seed_missing",
                str(error),
                remediation=f"Put the seed file back, or its words with {restore}. No other seed "
                "has the keys of this journal.",
                exit_code=EXIT_NOT_FOUND,
            )
        case ForeignSeed():
            return CommandFailed(
                "foreign_seed",
                str(error),
                remediation="Move the seed file away, and put back the journal's own, or its "
                f"words with {restore}.",
            )
        case SeedUnnamed():
            return CommandFailed(
                "seed_unnamed",
                str(error),
                remediation="Leave its factories with the version that made them. This version "
                "begins in an empty data directory: see --datadir.",
            )
        case StoreInUse():
            return CommandFailed(
                "daemon_running",
                str(error),
                retryable=True,
                remediation=f"Stop it first: cromford {role} stop, or another role's, if that "
                "runs there. Each daemon needs a data directory of its own: see --datadir.",
            )
        case StoreFull():
            return disk_full(error)
        case StoreReadOnly():
            return store_read_only(error)
        case DiskFailed():
            return CommandFailed(
                "disk_failed",
                str(error),
                retryable=True,
                remediation="See what the system says of that disk (`dmesg`), or of the network to "
                "it. Start again once it is well; if it will not be, put the replica or the newest "
                "backup into a data directory on another one, see "
                f"`cromford {role} backup restore`.",
            )
        case StoreTooNew() | NewerRecord():
            return CommandFailed(
                "store_too_new",
                str(error),
                remediation="Nothing was changed: start the version that wrote it, or a newer one. "
                "If none ever ran here, the store is damaged: put a backup into a new data "
                f"directory, see `cromford {role} backup restore`.",
            )
        case StoreDamaged() | UnknownRecord():
            return CommandFailed(
                "store_damaged",
                str(error),
                remediation="Nothing was changed: keep a copy of the whole data directory, and "
                "look after its disk. Put the newest backup or the replica into a new data "
                f"directory, see `cromford {role} backup restore`; with the mark's place it "
                "proves itself whole.",
            )
        case _:
            return CommandFailed(
                "datadir_unusable",
                str(error),
                remediation="Each daemon needs a data directory of its own: see --datadir.",
            )


def unreadable_file(error: UnreadableFile, *, passphrase_flag: str) -> CommandFailed:
    """Return how a file is told that cannot be read, with the option that names it."""
    flags = {
        PASSPHRASE: passphrase_flag,
        NEW_PASSPHRASE: "--new-passphrase-file",
        PASSWORD: "--chain-password-file",
        PHRASE: "--phrase-file",
    }
    return CommandFailed(
        "file_unreadable",
        str(error),
        remediation=f"Name a file that this user can read, or name none: see {flags[error.what]}, "
        "and `cromford config dump`.",
        exit_code=EXIT_NOT_FOUND if error.is_missing else EXIT_FAILED,
    )


def disk_full(error: Exception) -> CommandFailed:
    """Return how a full disk is told: nothing of what was not written was done."""
    return CommandFailed(
        "disk_full",
        str(error),
        retryable=True,
        remediation="Make room on that disk and start again. What was not written was neither done "
        "nor told to anybody; all before it is there.",
    )


def store_read_only(error: Exception) -> CommandFailed:
    """Return how a place is told that can be read only."""
    return CommandFailed(
        "store_read_only",
        str(error),
        remediation="Let the user who runs the daemon own the data directory, and see that its "
        "file system is mounted for writing: after an error of the disk the system mounts it "
        "read-only. Then start again.",
    )


def system_failure(error: OSError) -> CommandFailed:
    """Return what the system refused, with what to do where that is known."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return disk_full(error)
        case errno.EROFS | errno.EACCES:
            return store_read_only(error)
        case _:
            return CommandFailed("system", words_of(error))
