"""Starting the daemons, and saying what to do when one does not start.

A module of its own, because it imports all that the daemons are made of.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cromford.adapters.chain_check import ChainMismatch
from cromford.cli.failures import EXIT_AUTHENTICATION, EXIT_USAGE, CommandFailed
from cromford.daemon import clientd, lspd
from cromford.daemon.api.rpc_server import SocketInUse
from cromford.daemon.driver import ForeignJournal
from cromford.daemon.options import ClientOptions, LspOptions
from cromford.daemon.seed_file import BadSeed, NeedlessPassphrase, WrongPassphrase
from cromford.ports import CredentialsRefused, StoreFailed
from cromford.protocol.journal.records import UnknownRecord

_MISMATCH_REMEDIES: Final = {
    "signet challenge": "For a signet of your own, see --signet-challenge.",
}


def run_lsp(options: LspOptions) -> None:
    """Run an LSP until it is told to stop.

    Raises:
        CommandFailed: If it cannot run.
    """
    with _startup_failures():
        lspd.run(options)


def run_client(options: ClientOptions) -> None:
    """Run a client until it is told to stop.

    Raises:
        CommandFailed: If it cannot run.
    """
    with _startup_failures():
        clientd.run(options)


@contextmanager
def _startup_failures() -> Iterator[None]:
    """Turn what the world can do to a daemon into errors that say what to do."""
    try:
        yield
    except (StoreFailed, ForeignJournal, UnknownRecord, SocketInUse) as error:
        raise CommandFailed(
            "datadir_unusable",
            str(error),
            remediation="Each daemon needs a data directory of its own: see --datadir.",
        ) from error
    except ChainMismatch as error:
        raise CommandFailed(
            "chain_mismatch",
            f"the node does not fit: {error}",
            remediation=_MISMATCH_REMEDIES.get(
                error.field,
                "Point --chain-url at a node of the network, Bitcoin Core 29 or newer.",
            ),
        ) from error
    except CredentialsRefused as error:
        raise CommandFailed(
            "chain_credentials_refused",
            str(error),
            remediation="See --chain-cookie, or --chain-user and --chain-password-file; and at "
            "the node, rpcallowip.",
            exit_code=EXIT_AUTHENTICATION,
        ) from error
    except WrongPassphrase as error:
        raise CommandFailed(
            "wrong_passphrase",
            str(error),
            remediation="Name the file with the passphrase: see --seed-passphrase-file.",
            exit_code=EXIT_AUTHENTICATION,
        ) from error
    except NeedlessPassphrase as error:
        raise CommandFailed(
            "needless_passphrase",
            str(error),
            remediation="Leave out seed.passphrase_file: this version encrypts a seed file only "
            "when it makes or restores one.",
            exit_code=EXIT_USAGE,
        ) from error
    except BadSeed as error:
        raise CommandFailed(
            "bad_seed",
            str(error),
            remediation="Restore the seed file from your backup, or make it readable by you only.",
        ) from error
    except OSError as error:
        raise CommandFailed("system", str(error)) from error
