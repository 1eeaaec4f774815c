"""Starting the daemons, and saying what to do when one does not start.

A module of its own, because it imports all that the daemons are made of.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cromford.adapters.chain_check import ChainMismatch
from cromford.agent import agentd
from cromford.agent.options import AgentOptions
from cromford.cli.failures import EXIT_AUTHENTICATION, EXIT_USAGE, CommandFailed
from cromford.cli.seed_failures import (
    seed_failures,
    system_failure,
    unreadable_file,
)
from cromford.daemon import clientd, lspd
from cromford.daemon.api.server import SocketInUse
from cromford.daemon.api.tokens import BadTokens
from cromford.daemon.backup.places import PlaceRefused
from cromford.daemon.backup.restored import RecordsLost
from cromford.daemon.home import UnreadableFile
from cromford.daemon.options import ClientOptions, LspOptions
from cromford.daemon.webhooks.kept import BadWebhooks
from cromford.heap import share_one_heap
from cromford.listening import API, METRICS, PEERS, CannotListen
from cromford.open_files import TooFewFiles
from cromford.ports import CredentialsRefused

_LISTENING_FLAGS: Final = {PEERS: "--listen", METRICS: "--metrics-listen", API: "--api-listen"}
_MISMATCH_REMEDIES: Final = {
    "signet": "For a signet of your own, see --signet-challenge.",
    "block": "The store was begun on another chain of this network, such as a signet or a regtest "
    "node of somebody's own. Point --chain-url at a node of that one; nothing was undone.",
}


def run_lsp(options: LspOptions) -> None:
    """Run an LSP until it is told to stop.

    Raises:
        CommandFailed: If it cannot run.
    """
    _settle_memory()
    with _startup_failures("lsp"):
        lspd.run(options)


def run_client(options: ClientOptions) -> None:
    """Run a client until it is told to stop.

    Raises:
        CommandFailed: If it cannot run.
    """
    _settle_memory()
    with _startup_failures("client"):
        clientd.run(options)


def run_agent(options: AgentOptions) -> None:
    """Run an exit agent until it is told to stop.

    Raises:
        CommandFailed: If it cannot run.
    """
    with _startup_failures("agent"):
        agentd.run(options)


def _settle_memory() -> None:
    gc.freeze()  # What was imported stays, so nobody need look through it again for cycles.
    share_one_heap()


@contextmanager
def _startup_failures(role: str) -> Iterator[None]:
    """Turn what the world can do to a daemon into errors that say what to do."""
    try:
        with (
            node_failures(),
            seed_failures(role, passphrase_flag="--seed-passphrase-file"),  # noqa: S106 - a flag
        ):
            yield
    except PlaceRefused as error:
        raise CommandFailed(
            "place_refused",
            str(error),
            remediation="Name directories on other disks, best on other machines: see --backup-dir "
            "and --mark-dir.",
            exit_code=EXIT_USAGE,
        ) from error
    except RecordsLost as error:
        raise CommandFailed(
            "records_lost",
            str(error),
            remediation="Start the daemon again: the store is marked as restored then, and signs "
            "nothing that could lose money.",
        ) from error
    except CannotListen as error:
        raise _cannot_listen(error) from error
    except BadTokens as error:
        raise CommandFailed(
            "tokens_unreadable",
            str(error),
            remediation="Put the file back from a backup, or move it away: then there are no "
            "tokens.",
        ) from error
    except BadWebhooks as error:
        raise CommandFailed(
            "webhooks_unreadable",
            str(error),
            remediation="Put a copy of the file back, or move it away: then there are no webhooks.",
        ) from error
    except SocketInUse as error:
        raise CommandFailed(
            "datadir_unusable",
            str(error),
            remediation="Each daemon needs a data directory of its own: see --datadir.",
        ) from error
    except TooFewFiles as error:
        raise CommandFailed(
            "too_few_files",
            str(error),
            remediation="Raise the hard limit of open files (ulimit -Hn, LimitNOFILE=), or lower "
            "--connections-max.",
        ) from error
    except OSError as error:
        raise system_failure(error) from error


def _cannot_listen(error: CannotListen) -> CommandFailed:
    flag = _LISTENING_FLAGS[error.purpose]
    if error.is_taken:
        return CommandFailed(
            "port_taken",
            str(error),
            retryable=True,
            remediation=f"Stop that program, or name another port: see {flag}. Is it another "
            "Cromford? Each daemon needs ports of its own.",
        )
    return CommandFailed(
        "address_unusable",
        str(error),
        remediation=f"Name an address of this machine, and a port above 1023: see {flag}.",
    )


@contextmanager
def node_failures() -> Iterator[None]:
    """Turn a node that does not fit into errors that say what to do.

    Raises:
        CommandFailed: If it is the wrong one, does not let us in, or its password cannot be read.
    """
    try:
        yield
    except UnreadableFile as error:
        raise unreadable_file(error, passphrase_flag="--seed-passphrase-file") from error  # noqa: S106 - a flag
    except ChainMismatch as error:
        raise CommandFailed(
            "chain_mismatch",
            f"the node does not fit: {error}",
            remediation=_MISMATCH_REMEDIES.get(
                error.field.split(" ")[0],
                "Point --chain-url at a node of the network, Bitcoin Core 29 or newer.",
            ),
        ) from error
    except CredentialsRefused as error:
        raise CommandFailed(
            "chain_credentials_refused",
            str(error),
            remediation="See --chain-cookie, or --chain-user and --chain-password-file; and at "
            "the node, rpcallowip and rpcwhitelist.",
            exit_code=EXIT_AUTHENTICATION,
        ) from error
