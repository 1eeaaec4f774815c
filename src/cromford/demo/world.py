"""The demo's world: a node, an LSP and its clients, each a process with a directory of its own."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Final

from bitcoin_core_rpc import FetchError, RpcError

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from cromford.daemon.api.failures import ApiFailure, DaemonNotRunning
from cromford.daemon.options import ChainOptions
from cromford.demo.failure import DemoFailed
from cromford.demo.node import Node
from cromford.demo.processes import Child, Children
from cromford.demo.settings import STEP_BLOCKS_MIN, DemoSettings
from cromford.demo.steps import DemoStep

LSP_NAME: Final = "lsp"
NODE_NAME: Final = "node"
LOOPBACK_ANY_PORT: Final = "127.0.0.1:0"
# Many processes on few cores answer late; that is nobody's fault, so nobody is dropped for it.
CEREMONY_DEADLINE_SECONDS: Final = 120
ADDRESS_FACTOR: Final = 2
# The chain is the demo's own, and so are its coins.
CAPITAL_KEYS: Final = ("--capital-per-client-sat", "--capital-per-build-sat", "--capital-max-sat")
POLL_SECONDS_MIN: Final = 0.1
POLL_SECONDS_PER_CLIENT: Final = 0.02
CALL_TIMEOUT_SECONDS: Final = 60.0
# How long a process that was killed may take to be seen as gone.
DEATH_SECONDS: Final = 2.0
DEATH_POLL_SECONDS: Final = 0.02
# What is answered when a process has gone: by its socket, or by a client whose LSP it was.
LOSS_CODES: Final = frozenset(
    {"connection_lost", "daemon_not_running", "lsp_unreachable", "no_channel"}
)
# BIP 341's point that nobody knows the secret key of: what is mined to it is nobody's.
NOBODY_XONLY: Final = bytes.fromhex(
    "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"
)


@dataclass(slots=True, kw_only=True)
class DaemonProcess:
    """One running daemon and its local API. `client` is its seat, once it has one."""

    name: str
    datadir: Path
    arguments: tuple[str, ...]
    child: Child
    node_id: str = ""
    client: int = 0

    def call(self, method: str, /, **params: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return the answer of a method.

        Raises:
            ApiFailure: If the daemon refused, or is gone.
        """
        socket_path = self.datadir / REGTEST.name / SOCKET_NAME
        return ApiClient(socket_path, timeout_seconds=CALL_TIMEOUT_SECONDS).call(method, **params)

    def status(self) -> dict[str, Any] | None:
        """Return its status, or None while it is starting."""
        try:
            status: dict[str, Any] = self.call("status")
        except DaemonNotRunning:
            return None
        return status

    def newest_factory(self) -> dict[str, Any] | None:
        """Return the summary of the factory it began last, if there is one."""
        factories: list[dict[str, Any]] = self.call("factories")["factories"]
        return factories[-1] if factories else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a demo takes place, and how it shall be."""

    settings: DemoSettings
    directory: Path
    children: Children


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that runs."""

    site: Site
    node: Node
    lsp: DaemonProcess
    clients: list[DaemonProcess] = field(default_factory=list)

    def seat(self, client: int) -> DaemonProcess:
        """Return the client's daemon at a seat of the factory."""
        return next(daemon for daemon in self.clients if daemon.client == client)


def client_names(n_clients: int) -> list[str]:
    """Return the names of client processes. Letters, because seats have numbers."""
    letters = list(ascii_lowercase)
    pairs = [first + second for first in letters for second in letters]
    return [f"client-{name}" for name in (letters + pairs)[:n_clients]]


def open_node(site: Site, step: DemoStep) -> Node:
    """Return the user's node, or the embedded one, started, once it answers.

    Raises:
        DemoFailed: If it does not answer, or is not on regtest.
    """
    chain = site.settings.chain or _start_embedded(site, step)
    nobody = address_of_script(b"\x51\x20" + NOBODY_XONLY, REGTEST)
    try:
        node = Node(chain, miner_address=nobody)
    except (OSError, ValueError) as error:
        raise DemoFailed("chain_unavailable", f"{chain.url}: {error}") from error
    node.check_chain()
    return node


def _start_embedded(site: Site, step: DemoStep) -> ChainOptions:
    datadir = site.directory / NODE_NAME
    child = site.children.start(
        NODE_NAME, ["regtest", "--datadir", str(datadir), "--port", "0", "--json"]
    )

    def said_where() -> dict[str, str] | None:
        text = child.log.read_text(encoding="utf-8", errors="replace")
        try:
            where: dict[str, str] = json.loads(text)
        except ValueError:
            return None
        return where

    where = step.wait_for("the node", said_where)
    return ChainOptions(url=where["url"], cookie_file=Path(where["cookie_file"]))


def start_lsp(site: Site, node: Node) -> DaemonProcess:
    """Start the LSP."""
    settings = site.settings
    policy = [
        ("--leaf-arity", settings.leaf_arity),
        ("--step-blocks", settings.step_blocks),
        ("--states", settings.states),
        ("--max-exit-delay-blocks", settings.max_exit_delay_blocks),
        ("--fee-policy", settings.fee_policy.label),
        ("--capacity-min-sat", settings.capacity_sat),
        ("--capacity-max-sat", settings.capacity_sat),
        *((key, MAX_MONEY_SAT) for key in CAPITAL_KEYS),
        ("--min-clients", settings.n_clients),
        ("--max-clients", settings.n_clients),
        ("--deadline-seconds", CEREMONY_DEADLINE_SECONDS),
        # Everybody is at one address here, and each of them comes back once.
        ("--connections-per-address", ADDRESS_FACTOR * settings.n_clients),
    ]
    if settings.inner_kind is not None:
        policy.append(("--inner", settings.inner_kind.label))
    if settings.feerate is not None:
        policy.append(("--feerate-sat-per-vb", str(settings.feerate)))
    told = tuple(str(word) for option in policy for word in option)
    return _start_daemon(site, node, LSP_NAME, ("lsp", "run", *told))


def start_clients(site: Site, node: Node, lsp_address: str) -> list[DaemonProcess]:
    """Start all clients at once."""
    settings = site.settings
    told: tuple[str, ...] = (
        *("client", "run", "--lsp", lsp_address),
        *("--max-exit-delay-blocks", str(settings.max_exit_delay_blocks)),
        *("--fee-policies", settings.fee_policy.label),
        *("--step-blocks-min", str(min(settings.step_blocks, STEP_BLOCKS_MIN))),
    )
    if settings.feerate:
        feerate = str(settings.feerate)
        told += ("--min-feerate-sat-per-vb", feerate, "--max-feerate-sat-per-vb", feerate)
    return [_start_daemon(site, node, name, told) for name in client_names(settings.n_clients)]


def _start_daemon(site: Site, node: Node, name: str, told: Sequence[str]) -> DaemonProcess:
    datadir = site.directory / name
    poll_seconds = max(POLL_SECONDS_MIN, POLL_SECONDS_PER_CLIENT * site.settings.n_clients)
    arguments = (*told, "--datadir", str(datadir), *_chain_arguments(node.chain))
    listening = ("--listen", LOOPBACK_ANY_PORT) if name == LSP_NAME else ()
    speed = ("--poll-seconds", f"{poll_seconds:g}")
    child = site.children.start(name, [*arguments, *listening, *speed])
    return DaemonProcess(name=name, datadir=datadir, arguments=arguments, child=child)


def _chain_arguments(chain: ChainOptions) -> tuple[str, ...]:
    where = ("--chain-url", chain.url)
    if chain.cookie_file is not None:
        return (*where, "--chain-cookie", str(chain.cookie_file))
    return (
        *where,
        *("--chain-user", str(chain.user)),
        *("--chain-password-file", str(chain.password_file)),
    )


def explain_loss(children: Children, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the work gives
    """Return what `work` gives; say which process was lost when it fails for want of one.

    Raises:
        DemoFailed: With the reason.
    """
    try:
        return work()
    except (ApiFailure, RpcError, FetchError) as error:
        give_up = time.monotonic() + DEATH_SECONDS
        while isinstance(error, FetchError) or _is_lost(error):
            children.check_alive()
            if time.monotonic() > give_up:
                break
            time.sleep(DEATH_POLL_SECONDS)
        remediation = error.remediation if isinstance(error, ApiFailure) else ""
        raise DemoFailed("call_failed", str(error), remediation=remediation) from error


def _is_lost(error: Exception) -> bool:
    return isinstance(error, ApiFailure) and error.code in LOSS_CODES
