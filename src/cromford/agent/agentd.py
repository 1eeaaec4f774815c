"""The exit agent's daemon: holds packages, goes its rounds, and answers its operator."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping
from functools import wraps
from typing import Any, Final

import msgspec

from cromford import __version__
from cromford.adapters.chain_check import ChainMismatch, NodeCheck
from cromford.adapters.sqlite import Journal
from cromford.agent.keeping import Keeping, NotHeld
from cromford.agent.looking import look
from cromford.agent.options import AgentOptions
from cromford.agent.rounds import Rounds
from cromford.agent.views import WITHOUT_COINS, held_view
from cromford.answers.index import AGENT_ANSWERS
from cromford.answers.packages import (
    AddedPackage,
    AgentStatus,
    KeptPackage,
    KeptPackages,
    WithdrawnPackage,
)
from cromford.answers.status import Stopping
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.network import REGTEST
from cromford.daemon.api.calling import SOCKET_NAME
from cromford.daemon.api.document import document_of
from cromford.daemon.api.endpoints import endpoints
from cromford.daemon.api.factory_id import find_id
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.server import ApiServer
from cromford.daemon.connecting import connect_chain
from cromford.daemon.health import checked
from cromford.daemon.home import open_home
from cromford.daemon.logs import set_up_logging
from cromford.daemon.supervisor import status_line, supervisor
from cromford.ports import ChainUnavailable, CredentialsRefused, StoreFailed
from cromford.watch.package import ExitPackage
from cromford.watch.package_reading import InvalidPackage, read_package

FIRST_LOOK_SECONDS: Final = 3.0
ROLE: Final = "agent"

_log = logging.getLogger(__name__)


class _AddParams(msgspec.Struct, forbid_unknown_fields=True):
    package: str


class _WithdrawParams(msgspec.Struct, forbid_unknown_fields=True):
    package_id: str


PARAMS: Final[Params] = {"add": _AddParams, "withdraw": _WithdrawParams}


class AgentDaemon:
    """One agent. Whoever may write to its socket is its operator: nobody else adds or withdraws."""

    def __init__(self, options: AgentOptions) -> None:
        """Open its home.

        Raises:
            StoreInUse: If another process has it.
            StoreFailed: If it is another daemon's, or cannot be read.
            OSError: If it cannot be made.
        """
        self._options = options
        self._network = options.network
        self.home = open_home(options.datadir, options.network)
        self._chain = connect_chain(options.chain)
        with contextlib.ExitStack() as undo:
            undo.callback(self._chain.close)
            journal = Journal(self.home)
            undo.callback(journal.close)
            self._keeping = Keeping(journal, self._network, packages_max=options.packages_max)
            self._resources = undo.pop_all()
        self._rounds = Rounds(
            self._chain,
            self._keeping,
            check=NodeCheck(self._chain, self._network, signet_challenge=options.signet_challenge),
            has_real_time=self._network != REGTEST,
            poll_seconds=options.poll_seconds,
        )
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Run until it is told to stop.

        Raises:
            ChainMismatch: If the node is of another network, or too old.
            CredentialsRefused: If it does not let us in. One that is not there is waited for.
            StoreFailed: If the disk refused.
            SocketInUse: If another daemon has the socket.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        rounds = asyncio.create_task(self._rounds.run())
        rounds.add_done_callback(self._on_rounds_done)
        try:
            await self._first_look()
            served = endpoints(self.methods(), params=PARAMS, answers=AGENT_ANSWERS)
            async with (
                ApiServer(
                    self.home / SOCKET_NAME, served, role=ROLE, document=document_of(ROLE, served)
                ),
                supervisor().told(self._status_line, self._settled),
            ):
                _log.info("agent_started kind=%s home=%s", WITHOUT_COINS, self.home)
                await self._stopping.wait()
        finally:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)
            self._resources.close()
        _log.info("agent_stopped home=%s", self.home)
        if self._failure is not None:
            raise self._failure

    def _status_line(self) -> str:
        stale = self._rounds.stale
        return status_line(
            self._rounds.height, [checked("chain", None if stale is None else str(stale))]
        )

    async def _settled(self) -> None:
        """Return at once: an agent writes what it takes before it answers."""

    async def _first_look(self) -> None:
        """Wait a moment for the node: whoever asks us at once is not refused for want of it."""
        waits = {
            asyncio.create_task(what.wait()) for what in (self._rounds.has_looked, self._stopping)
        }
        await asyncio.wait(waits, timeout=FIRST_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _on_rounds_done(self, rounds: asyncio.Task[None]) -> None:
        error = None if rounds.cancelled() else rounds.exception()
        if error is None:
            return
        if not isinstance(error, ChainMismatch | CredentialsRefused):
            _log.error("rounds_failed", exc_info=error)  # Those two are told to who started us.
        self._failure = self._failure or error
        self._stopping.set()

    def methods(self) -> Mapping[str, Handler]:
        """Return the methods of the API."""
        return {
            "status": without_params(self._status),
            "list": without_params(self._list),
            "add": self._unless_the_disk_fails(self._add),
            "withdraw": self._unless_the_disk_fails(self._withdraw),
            "stop": without_params(self._stop),
        }

    def _unless_the_disk_fails(self, handler: Handler) -> Handler:
        """Let the agent stop where a method could not write: what it holds is known no more."""

        @wraps(handler)
        async def answer(params: dict[str, Any]) -> object:
            try:
                return await handler(params)
            except StoreFailed as error:
                _log.error("store_failed", exc_info=error)
                self._failure = self._failure or error
                self._stopping.set()
                raise ApiFailure("store_failed", str(error)) from error

        return answer

    async def _stop(self) -> Stopping:
        # The answer leaves before the server closes: it lets begun requests finish.
        asyncio.get_running_loop().call_soon(self._stopping.set)
        return {"stopping": True}

    async def _status(self) -> AgentStatus:
        stale, seen, relay = self._rounds.stale, self._rounds.status, self._rounds.relay
        views = self._views()
        deadlines = [
            view["exit_deadline_height"]
            for view in views
            if view["status"] == "waiting" and view["exit_deadline_height"] is not None
        ]
        return {
            "role": "agent",
            "kind": WITHOUT_COINS,
            "version": __version__,
            "network": self._network.name,
            "height": self._rounds.height,
            "synced": stale is None and self._rounds.height >= 0,
            "chain": {
                "fresh": stale is None,
                "stale_kind": None if stale is None else stale.kind,
                "stale_since": None if stale is None else int(stale.since),
                "stale_reason": None if stale is None else stale.reason,
                "node_height": None if seen is None else seen.tip.height,
                "header_height": None if seen is None else seen.header_height,
            },
            "mempool_min_sat_per_vb": (
                None if relay is None else sat_per_vb(relay.mempool_min_sat_per_kw)
            ),
            "datadir": str(self.home.parent),
            "chain_url": self._options.chain.url,
            "n_packages": len(views),
            "packages_max": self._keeping.packages_max,
            "n_unreadable": self._keeping.n_unreadable,
            "n_publishing": sum(view["status"] == "publishing" for view in views),
            "n_refused": sum(view["refused"] is not None for view in views),
            "next_deadline_height": min(deadlines, default=None),
        }

    async def _list(self) -> KeptPackages:
        return {"kind": WITHOUT_COINS, "packages": self._views()}

    def _views(self) -> list[KeptPackage]:
        return [self._view(package_id) for package_id in self._keeping.held]

    def _view(self, package_id: bytes) -> KeptPackage:
        held, attended = self._keeping.held[package_id], self._rounds.attended.get(package_id)
        return held_view(held, attended, self._rounds.relay)

    async def _add(self, params: dict[str, Any]) -> AddedPackage:
        data = read_params(params, _AddParams).package.encode("utf-8", "surrogatepass")
        try:
            package = read_package(data, self._network)
            async with self._rounds.lock:
                await self._check_is_unspent(package)
                is_new = self._keeping.take(package)
                await self._rounds.attend(package.package_id)
        except InvalidPackage as error:
            raise _invalid(error) from error
        except NotHeld as error:
            raise ApiFailure(
                error.code,
                str(error),
                remediation="See `cromford agent list`, and `cromford agent withdraw`.",
            ) from error
        except ChainUnavailable as error:
            raise ApiFailure("chain_unavailable", str(error), retryable=True) from error
        _log.info("package_taken id=%s new=%s", package.package_id.hex(), is_new)
        return {"added": is_new, **self._view(package.package_id)}

    async def _check_is_unspent(self, package: ExitPackage) -> None:
        """Check what only the chain can say: without the output nothing says when it expires."""
        for step in package.steps:
            if step.fee_sat == 0:
                raise ApiFailure(
                    "needs_coins",
                    f"{step.name} pays no fee itself, and this agent has no coins to pay with",
                    remediation="The policy `ephemeral` needs a child with a coin at each step.",
                )
        if package.package_id in self._keeping.held:
            return
        sight = await look(self._chain, package)
        if sight.place is None or sight.place.n_confirmed:
            raise ApiFailure(
                "funding_not_unspent",
                f"funding: expected {package.funding_outpoint} to be confirmed and unspent at "
                f"height {sight.height}, received another output or none",
                retryable=sight.place is None,
                remediation="A package that is half published already goes out with "
                "`cromford client exit broadcast`.",
            )

    async def _withdraw(self, params: dict[str, Any]) -> WithdrawnPackage:
        wanted = read_params(params, _WithdrawParams).package_id.lower()
        async with self._rounds.lock:
            package_id = self._find(wanted)
            held = self._keeping.held.get(package_id)
            self._keeping.give_back(package_id)
            self._rounds.forget(package_id)
        _log.info("package_withdrawn id=%s", package_id.hex())
        return {
            "withdrawn": True,
            "package_id": package_id.hex(),
            "begun_height": None if held is None else held.begun_height,
        }

    def _find(self, wanted: str) -> bytes:
        ids = self._keeping.ids  # What cannot be read any more is named by the log alone.
        return find_id(ids, wanted, what="package", many="packages", listed_by="list")


def _invalid(error: InvalidPackage) -> ApiFailure:
    return ApiFailure(
        "package_invalid",
        str(error),
        remediation="Take the file as `cromford client exit export` wrote it.",
        exit_code=2,
    )


def run(options: AgentOptions) -> None:
    """Run an agent until it is told to stop.

    Raises:
        StoreFailed: If its home is in use or another daemon's.
        SocketInUse: If another daemon has the socket.
        ChainMismatch: If the node is the wrong one.
        CredentialsRefused: If the node does not let us in. One that is not there is waited for.
    """
    set_up_logging(level=options.log_level, form=options.log_format)
    asyncio.run(_run(options))


async def _run(options: AgentOptions) -> None:
    await AgentDaemon(options).run()
