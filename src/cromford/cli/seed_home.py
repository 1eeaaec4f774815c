"""What the commands of `seed` do, in the directory of a daemon that is stopped.

A module of its own, because it imports keys and journals; no other command needs them.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cromford.adapters.sqlite import locked
from cromford.bitcoin.network import NETWORKS, Network
from cromford.cli.asking import confirm
from cromford.cli.configuration.run_options import allowed_network
from cromford.cli.configuration.settings import Settings
from cromford.cli.failures import EXIT_NOT_FOUND, EXIT_USAGE, CommandFailed
from cromford.cli.invocation import Invocation
from cromford.cli.seed_asking import (
    asked_words,
    known_passphrase,
    new_passphrase,
    wished_passphrase,
)
from cromford.cli.seed_failures import seed_failures, system_failure
from cromford.daemon.home import NEW_PASSPHRASE, open_home, read_passphrase
from cromford.daemon.pairing import ForeignJournal, check_pair, creation_in
from cromford.daemon.seed_file import (
    SEED_FILE,
    change_passphrase,
    check_phrase,
    has_seed,
    is_encrypted,
    read_phrase,
    seed_of,
    write_phrase,
)
from cromford.ports import StoreFailed
from cromford.protocol.journal.records import Created, UnknownRecord
from cromford.signing.keychain import seed_fingerprint

AFTER_RESTORE: Final = (
    (
        "A seed alone cannot leave a factory: the signatures of a way out are in the journal that "
        "was lost with it, and no words bring them back. If there is a backup, put it back before "
        "the daemon starts: see `backup restore`."
    ),
    (
        "Begun anew, the wallet sees what it receives from now on. Coins it received earlier are "
        "still yours (BIP 86): `rescan --from HEIGHT` reads the blocks again that they came in."
    ),
    "Never run two copies: if the old data directory still exists anywhere, use that one instead.",
)
AFTER_REUNION: Final = (
    "The journal here belongs to this seed, and the daemon goes on where it ends.",
    (
        "If the journal is a copy, or a newer one exists anywhere, use that one instead: who "
        "publishes an old state of a channel can lose all of it."
    ),
)
FIRST_START: Final = "The daemon's first start makes one. See --datadir and --network."
AFTER_ENCRYPTION: Final = (
    (
        "Copies of the seed file that were made before, and what the disk still keeps of it, are "
        "not encrypted."
    ),
    "From now on the daemon needs the passphrase: see --seed-passphrase-file.",
)
AFTER_CHANGE: Final = ("Copies of the seed file that were made before open with the old one.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedHome:
    """The directory of a role's seed, and what the configuration says about it."""

    invocation: Invocation
    role: str
    settings: Settings
    path: Path

    @property
    def network(self) -> Network:
        """The network of the directory."""
        return NETWORKS[self.settings["chain.network"]]

    def passphrase(self, named: Path | None) -> str | None:
        """Return the passphrase of a named file, or of the configuration's, or None."""
        return read_passphrase(named or self.settings["seed.passphrase_file"])

    def check_seed_there(self, *, remediation: str = FIRST_START) -> None:
        """Check that there is a seed.

        Args:
            remediation: What is to be done where there is none.

        Raises:
            CommandFailed: If not.
        """
        if not has_seed(self.path):
            raise CommandFailed(
                "seed_not_found",
                f"{self.path / SEED_FILE}: there is no seed",
                remediation=remediation,
                exit_code=EXIT_NOT_FOUND,
            )

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep the daemon from starting inside the block.

        Raises:
            StoreInUse: If it runs.
            StoreFailed: If the directory cannot be written.
        """
        with locked(self.path):
            yield

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Turn what can go wrong into errors that say what to do.

        Raises:
            CommandFailed: If something does.
        """
        try:
            with seed_failures(self.role, passphrase_flag="--passphrase-file"):  # noqa: S106 - a flag
                yield
        except OSError as error:
            raise system_failure(error) from error
        except UnicodeDecodeError as error:  # Of what was piped to us.
            raise CommandFailed("system", "what was read from stdin is no text") from error


def seed_home(invocation: Invocation, role: str, flags: dict[str, Any]) -> SeedHome:
    """Return the directory of a role's seed.

    Raises:
        CommandFailed: If the configuration cannot be read.
    """
    settings = invocation.settings_of(role, flags)
    return SeedHome(
        invocation=invocation, role=role, settings=settings, path=invocation.home_of(role)
    )


def shown(home: SeedHome, *, passphrase_file: Path | None, yes: bool) -> dict[str, Any]:
    """Return the words of the seed, after asking.

    Raises:
        CommandFailed: If they cannot be shown, or belong to another seed than the journal's.
    """
    home.check_seed_there()
    with home.reported():
        created = _creation_if_readable(home)
        with home.stopped():
            confirm(
                home.invocation,
                "Whoever sees the words has every key. Show them here?",
                yes=yes,
                why="whoever sees the words has every key",
                remediation="Add --yes, where nobody else sees the output.",
            )
            phrase = read_phrase(
                home.path,
                known_passphrase(home.invocation, home.path, home.passphrase(passphrase_file)),
            )
        fingerprint = seed_fingerprint(seed_of(phrase), home.network)
        # Words that are written down as this journal's, and are not, are found out too late.
        check_pair(created, fingerprint)
    return {"phrase": phrase, "fingerprint": fingerprint.hex()}


def restored(
    home: SeedHome, *, phrase_file: Path | None, passphrase_file: Path | None, yes: bool
) -> dict[str, Any]:
    """Make the seed file from words, where there is none, and no journal of another seed.

    Raises:
        CommandFailed: If it cannot be made; nothing was written.
    """
    allowed_network(home.settings)
    _check_no_seed(home)
    with home.reported():
        phrase = check_phrase(asked_words(home.invocation, phrase_file))
        passphrase = home.passphrase(passphrase_file)
        if passphrase is None and phrase_file is None:
            passphrase = wished_passphrase(home.invocation)
        confirm(
            home.invocation,
            f"Make {home.path} the home of this seed?",
            yes=yes,
            why=f"this makes {home.path} the home of a seed",
            remediation="Add --yes.",
        )
        fingerprint = seed_fingerprint(seed_of(phrase), home.network)
        # A daemon that starts in between finds a record without a seed, and stops; or it makes a
        # seed, and there is one.
        created = creation_in(home.path, role=home.role, network=home.network)
        check_pair(created, fingerprint)
        open_home(home.invocation.datadir_of(home.role), home.network)
        with home.stopped():
            _check_no_seed(home)
            write_phrase(home.path, phrase, passphrase)
    return {
        "seed_file": str(home.path / SEED_FILE),
        "fingerprint": fingerprint.hex(),
        "is_encrypted": passphrase is not None,
        "has_journal": created is not None,
        "warnings": list(AFTER_RESTORE if created is None else AFTER_REUNION),
    }


def encrypted(home: SeedHome, *, passphrase_file: Path | None) -> dict[str, Any]:
    """Encrypt a seed file that is not.

    Raises:
        CommandFailed: If it is already, or there is no passphrase; nothing was changed.
    """
    home.check_seed_there()
    with home.reported(), home.stopped():
        if is_encrypted(home.path):
            raise CommandFailed(
                "seed_encrypted",
                f"{home.path / SEED_FILE}: the seed is encrypted already",
                remediation=f"Change its passphrase with `cromford {home.role} seed passphrase`.",
            )
        new = new_passphrase(
            home.invocation, home.passphrase(passphrase_file), flag="--passphrase-file"
        )
        change_passphrase(home.path, old=None, new=new)
    return _changed(home, AFTER_ENCRYPTION)


def passphrase_changed(
    home: SeedHome, *, passphrase_file: Path | None, new_passphrase_file: Path | None
) -> dict[str, Any]:
    """Put an encrypted seed file under another passphrase.

    Raises:
        CommandFailed: If it is not encrypted, or a passphrase is missing or wrong; nothing was
            changed.
    """
    home.check_seed_there()
    with home.reported(), home.stopped():
        old = home.passphrase(passphrase_file)
        if not is_encrypted(home.path):
            raise CommandFailed(
                "seed_not_encrypted",
                f"{home.path / SEED_FILE}: the seed is not encrypted",
                remediation=f"Encrypt it with `cromford {home.role} seed encrypt`.",
                exit_code=EXIT_USAGE,
            )
        old = known_passphrase(home.invocation, home.path, old)
        read_phrase(home.path, old)  # Whoever does not know it is not asked for another.
        new = new_passphrase(
            home.invocation,
            read_passphrase(new_passphrase_file, NEW_PASSPHRASE),
            flag="--new-passphrase-file",
        )
        if new == old:
            raise CommandFailed(
                "passphrase_unchanged",
                "another passphrase was expected, received the one that the seed file has",
                exit_code=EXIT_USAGE,
            )
        change_passphrase(home.path, old=old, new=new)
    return _changed(home, AFTER_CHANGE)


def _changed(home: SeedHome, warnings: tuple[str, ...]) -> dict[str, Any]:
    return {
        "seed_file": str(home.path / SEED_FILE),
        "is_encrypted": True,
        "warnings": list(warnings),
    }


def _check_no_seed(home: SeedHome) -> None:
    if has_seed(home.path):
        raise CommandFailed(
            "home_not_empty",
            f"{home.path / SEED_FILE} exists: a seed is restored only where there is none",
            remediation="Name a data directory without one: see --datadir.",
        )


def _creation_if_readable(home: SeedHome) -> Created | None:
    """Return what the journal says of its seed, if it says anything: words outlive a journal."""
    with suppress(ForeignJournal, UnknownRecord, StoreFailed):
        return creation_in(home.path, role=home.role, network=home.network)
    return None
