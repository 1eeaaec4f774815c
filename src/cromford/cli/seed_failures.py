"""What can be wrong with a seed, and what to do about it: for the daemons and for `seed` alike."""

from collections.abc import Iterator
from contextlib import contextmanager

from cromford.cli.failures import (
    EXIT_AUTHENTICATION,
    EXIT_NOT_FOUND,
    EXIT_USAGE,
    CommandFailed,
)
from cromford.daemon.pairing import ForeignJournal, ForeignSeed, SeedMissing, SeedUnnamed
from cromford.daemon.seed_file import BadSeed, NotEncrypted, WrongPassphrase
from cromford.ports import StoreFailed, StoreInUse
from cromford.protocol.journal.records import UnknownRecord


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
                remediation=f"Stop it first: cromford {role} stop. Each daemon needs a data "
                "directory of its own: see --datadir.",
            )
        case _:
            return CommandFailed(
                "datadir_unusable",
                str(error),
                remediation="Each daemon needs a data directory of its own: see --datadir. "
                "Where a journal is damaged, a backup is put into a new one: see "
                f"`cromford {role} backup restore`.",
            )
