"""The client's daemon: stays connected to its LSP, joins, verifies, leaves."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec

from cromford.adapters.noise_tcp import NoiseConnection, connect
from cromford.answers.chain import RefusedTransaction
from cromford.answers.exits import ExitBegun, ExitPause, ExitPlan, ExitStatus
from cromford.answers.factories import FactoryVerification, MoveBegun, OwnFactories, OwnFactory
from cromford.answers.index import CLIENT_ANSWERS
from cromford.answers.packages import PackageDocument
from cromford.answers.status import ClientStatus, WishLeft, WishState
from cromford.daemon.api import client_market, client_payments
from cromford.daemon.api.client_market import ClientMarket
from cromford.daemon.api.client_payments import ClientPayments
from cromford.daemon.api.factory_id import find_factory
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.pictures import Pictures
from cromford.daemon.driver import Role
from cromford.daemon.happenings import Happenings
from cromford.daemon.logs import set_up_logging
from cromford.daemon.lookups import ClientLookup
from cromford.daemon.metrics import Sample
from cromford.daemon.options import ClientOptions
from cromford.daemon.parts import ClientParts
from cromford.daemon.reconnecting import Reconnecting
from cromford.daemon.serving import SHARED_PARAMS
from cromford.daemon.shell import Daemon
from cromford.daemon.signing import derive_keys
from cromford.daemon.views import client as views
from cromford.daemon.views.deadlines import client_deadline_blocks
from cromford.daemon.views.dying import show_moving
from cromford.daemon.views.exit import exit_plan
from cromford.daemon.views.exit_package import exit_package
from cromford.daemon.views.exit_status import exit_status
from cromford.invoice.qr import QR_LENGTH_MAX, svg_qr
from cromford.picture.factory import factory_picture
from cromford.ports import BlockRef, ChainUnavailable
from cromford.protocol import client
from cromford.protocol import events as ev
from cromford.protocol.exiting.client import MOVED_OUT, arriving_total_sat
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete, Received
from cromford.protocol.journal.client_state import ClientConfig, ClientState
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.lobby.client import objection
from cromford.protocol.opening.verify import verify_attempt
from cromford.signing.keychain import Keychain
from cromford.wallet.account import Account
from cromford.wallet.coins import Wallet

CLIENT_ROLE: Role[ClientState] = Role(
    name="client",
    decide=client.decide,
    apply=client.apply_in,
    relevant=client.relevant,
    parts=ClientParts(),
)
CONNECT_TIMEOUT_SECONDS: Final = 10.0
_log = logging.getLogger(__name__)


class _JoinParams(msgspec.Struct, forbid_unknown_fields=True):
    capacity_sat: int
    capacity_least_sat: int | None = None


class _OwnFactoryParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str | None = None


class _QrParams(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=QR_LENGTH_MAX)]


class _OwnExitParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str | None = None
    publish_stale_commitment: bool = False


PARAMS: Final[Params] = {
    **SHARED_PARAMS,
    **client_payments.PARAMS,
    **client_market.PARAMS,
    "join": _JoinParams,
    "move": _OwnFactoryParams,
    "factory": _OwnFactoryParams,
    "factory_picture": _OwnFactoryParams,
    "qr": _QrParams,
    "verify": _OwnFactoryParams,
    "exit_export": _OwnFactoryParams,
    "exit_plan": _OwnFactoryParams,
    "exit_start": _OwnExitParams,
    "exit_status": _OwnFactoryParams,
    "exit_pause": _OwnFactoryParams,
}


class ClientDaemon(Daemon[ClientState]):
    """One client."""

    params = PARAMS
    answers = CLIENT_ANSWERS

    def __init__(self, options: ClientOptions) -> None:
        def new_state(keychain: Keychain) -> ClientState:
            return client.new_client(
                ClientConfig(
                    network=options.network,
                    node_id=keychain.node_id,
                    lsp_node_id=options.lsp.node_id,
                    policy=options.policy,
                    account=Account(keychain.wallet_account),
                )
            )

        super().__init__(
            role=CLIENT_ROLE,
            options=options,
            new_state=new_state,
        )
        self._lsp = options.lsp
        self._reconnecting = Reconnecting(self._dial, self.peers.run)
        self._payments = ClientPayments(self, self._signer.sign_node)
        self.events.called = self._payments.called
        self._market = ClientMarket(self)
        self._pictures = Pictures()
        self._happenings = Happenings(ClientLookup(lambda: self.state), is_lsp=False)

    @property
    def state(self) -> ClientState:
        """The client's state."""
        return self.driver.state

    @property
    def factory_keys(self) -> Iterator[tuple[int, bytes]]:
        """The client's key in each factory that it can leave."""
        for attempt in self.state.attempts.values():
            if isinstance(attempt.stage, Complete):
                yield attempt.key_attempt, attempt.join.factory_pool.pubkey

    @property
    def book(self) -> Book:
        """The client's channels and payments."""
        return self.driver.state.book

    @property
    def wallet(self) -> Wallet:
        """The client's wallet."""
        return self.driver.state.wallet

    @property
    def unreachable(self) -> str | None:
        """Why we cannot reach our LSP; None where nothing hinders it."""
        return None if self.state.is_connected else "not connected to the LSP"

    @property
    def n_channels(self) -> int:
        """How many channels are in memory."""
        return len(self.driver.state.book.links)

    @property
    def arriving_sat(self) -> int:
        """What is on its way to the wallet out of channels that are on chain."""
        return arriving_total_sat(self.driver.state)

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        """The newest blocks the client has seen."""
        return self.driver.state.chain.recent

    @property
    def recorded_height(self) -> int:
        """The height of the tip that was recorded, also where no block is remembered; or -1."""
        return self.driver.state.chain.recorded_height

    async def network_side(self) -> None:
        """Stay connected to the LSP."""
        tell_other_lsps(self.state)
        await self._reconnecting.run()

    async def _dial(self) -> NoiseConnection:
        return await connect(
            self._lsp.host,
            self._lsp.port,
            node_id=self._lsp.node_id,
            identity=self.identity,
            timeout_seconds=CONNECT_TIMEOUT_SECONDS,
        )

    def samples(self) -> Iterator[Sample]:
        """Yield a client's numbers for Prometheus."""
        yield from super().samples()
        state = self.driver.state
        by_status: dict[str, int] = {}
        for attempt in state.attempts.values():
            status = views.status_of(state, attempt)
            by_status[status] = by_status.get(status, 0) + 1
            if status == "live":
                left = attempt.terms.expiry_height - state.chain.height
                name = {"factory": attempt.attempt_id.hex()[:8]}
                yield "blocks_to_expiry", name, left
                to_dying = attempt.lifetime.dying_height - state.chain.height
                yield "blocks_to_dying", name, to_dying
        for word, count in by_status.items():
            yield "factories", {"status": word}, count
        yield from self._payments.samples()
        yield from self._happenings.samples()
        deadline_blocks = client_deadline_blocks(state)
        if deadline_blocks is not None:
            yield "blocks_to_next_deadline", {}, deadline_blocks

    def _observe(self, record: AnyRecord) -> None:
        super()._observe(record)
        self._happenings.observe(record)

    def methods(self) -> Mapping[str, Handler]:
        """Return the API methods of a client."""
        return {
            "status": without_params(self._status),
            "join": self._join,
            "leave": without_params(self._leave),
            "move": self._move,
            "factories": without_params(self._factories),
            "factory": self._factory,
            "factory_picture": self._pictures.of(self._factory, factory_picture),
            "qr": self._qr,
            "verify": self._verify,
            "exit_export": self._exit_export,
            "exit_plan": self._exit_plan,
            "exit_start": self._exit_start,
            "exit_status": self._exit_status,
            "exit_pause": self._exit_pause,
            **self._payments.methods(),
            **self._market.methods(),
        }

    async def _status(self) -> ClientStatus:
        state = self.driver.state
        lobby = state.lobby
        return {
            "role": "client",
            **await self.status(),
            "lsp": str(self._lsp),
            "connected": state.is_connected,
            "connections_are_short": self._reconnecting.connections_are_short,
            "lobby": None
            if lobby is None
            else {
                "capacity_min_sat": lobby.capacity_min_sat,
                "capacity_max_sat": lobby.capacity_max_sat,
                "min_clients": lobby.min_clients,
                "max_clients": lobby.max_clients,
                "deadline_seconds": lobby.deadline_seconds,
                "fee_base_msat": lobby.fee_base_msat,
                "fee_proportional_millionths": lobby.fee_proportional_millionths,
            },
            **self._wish(),
            "refusal": state.refusal or self._objection(),
            "dying": views.dying(state),
            "channels": self._payments.stands(),
            "paused_until_height": state.paused_until,
        }

    def _objection(self) -> str | None:
        state = self.driver.state
        unfit = None if state.wish is None else objection(state)
        return None if unfit is None else f"this client cannot join this lobby: {unfit}"

    def _wish(self) -> WishState:
        state = self.driver.state
        wish = state.wish
        return {
            "wish": None
            if wish is None
            else {
                "capacity_sat": wish.capacity_sat,
                "capacity_least_sat": wish.capacity_least_sat,
                "moves_from": wish.moves_from.hex() or None,
            },
            "joined": state.joining is not None and state.joining.is_accepted,
        }

    async def _join(self, params: dict[str, Any]) -> WishState:
        wanted = read_params(params, _JoinParams)
        least_sat = wanted.capacity_least_sat
        self.request(
            ev.JoinRequested(
                capacity_sat=wanted.capacity_sat,
                capacity_least_sat=wanted.capacity_sat if least_sat is None else least_sat,
            )
        )
        return self._wish()

    async def _leave(self) -> WishLeft:
        self.request(ev.LeaveRequested())
        return {"left": True}

    async def _move(self, params: dict[str, Any]) -> MoveBegun:
        wanted = read_params(params, _OwnFactoryParams).factory_id
        attempts = self.driver.state.attempts
        dying = [one["factory_id"] for one in views.dying(self.driver.state)]
        if wanted is None and len(dying) != 1:
            several = f"{len(dying)} of this client's factories die: expected the id of one"
            raise ApiFailure(
                "factory_not_found",
                several if dying else "none of this client's factories dies",
                remediation="`client factories` lists them, and when each dies.",
                exit_code=4,
            )
        attempt_id = find_factory(attempts, dying[0] if wanted is None else wanted)
        self.request(ev.MoveRequested(attempt_id=attempt_id))
        return {
            "factory_id": attempt_id.hex(),
            "moving": show_moving(self.driver.state, attempts[attempt_id]),
        }

    async def _factories(self) -> OwnFactories:
        state = self.driver.state
        return {
            "factories": [
                {**views.summary(state, attempt, self.facts), "refused": self._refused(attempt)}
                for attempt in state.attempts.values()
            ]
        }

    async def _factory(self, params: dict[str, Any]) -> OwnFactory:
        attempt = self._attempt(params)
        return {
            **views.show(self.driver.state, attempt, self.facts),
            "refused": self._refused(attempt),
        }

    async def _qr(self, params: dict[str, Any]) -> str:
        text = read_params(params, _QrParams).text
        try:
            return await self._pictures.beside(lambda: svg_qr(text))
        except ValueError as error:
            raise InvalidParam("text", str(error)) from error

    async def _verify(self, params: dict[str, Any]) -> FactoryVerification:
        attempt = self._checked(params)
        try:
            coin = await self.chain.coin(attempt.funding_outpoint)
        except ChainUnavailable as error:
            raise ApiFailure("chain_unavailable", str(error), retryable=True) from error
        derived = derive_keys(self._signer, self.driver.state, attempt)
        verdicts = verify_attempt(self.driver.state, attempt, coin, derived)
        return {
            "factory_id": attempt.attempt_id.hex(),
            "ok": all(verdict.ok for verdict in verdicts),
            # Nothing is wrong, and something is not there yet.
            "waits": any(verdict.waits for verdict in verdicts)
            and all(verdict.ok or verdict.waits for verdict in verdicts),
            "checks": [
                {
                    "check": verdict.check,
                    "ok": verdict.ok,
                    "detail": verdict.detail,
                    "waits": verdict.waits,
                }
                for verdict in verdicts
            ],
        }

    async def _exit_export(self, params: dict[str, Any]) -> PackageDocument:
        state, attempt = self.driver.state, self._complete(params)
        if attempt.other_stages and not attempt.ready_sent and attempt.rung_in(state.chain) is None:
            raise ApiFailure(
                "factory_not_funded",
                "no block says yet which of its funding's candidates this factory is in",
                remediation="A package is for one of them: export it once the funding confirmed.",
                retryable=True,
            )
        return exit_package(state, attempt, self.network)

    async def _exit_plan(self, params: dict[str, Any]) -> ExitPlan:
        attempt = self._complete(params)
        await self.following.ask_fees()
        return exit_plan(self.driver.state, attempt, self.facts.fees)

    async def _exit_start(self, params: dict[str, Any]) -> ExitBegun:
        wanted = read_params(params, _OwnExitParams)
        attempt = self._complete({"factory_id": wanted.factory_id})
        await self.following.ask_fees()
        self.request(
            ev.ExitRequested(
                attempt_id=attempt.attempt_id, publishes_stale=wanted.publish_stale_commitment
            )
        )
        after = self.driver.state.attempts[attempt.attempt_id]
        return {
            "exiting": True,
            "next": exit_plan(self.driver.state, after, self.facts.fees)["next"],
        }

    async def _exit_status(self, params: dict[str, Any]) -> ExitStatus:
        attempt = self._complete(params)
        status = exit_status(self.driver.state, attempt, self.facts.fees, self.seen_waiting)
        return {**status, "refused": self._refused(attempt)}

    async def _exit_pause(self, params: dict[str, Any]) -> ExitPause:
        attempt = self._complete(params)
        self.request(ev.ExitPauseRequested(attempt_id=attempt.attempt_id))
        after = self.driver.state.attempts[attempt.attempt_id]
        return {"exiting": after.is_exiting, "paused": after.is_paused}

    def _refused(self, attempt: ClientAttempt) -> list[RefusedTransaction]:
        """Return which transactions of a factory the node does not take."""
        if isinstance(attempt.stage, Received):
            return []
        txids = attempt.watched_txids
        return self.refusals.shown_of(txids, self.driver.state.chain.spends)

    def _attempt(self, params: dict[str, Any]) -> ClientAttempt:
        """Return the factory that is meant: by default the newest that lives, or may yet."""
        state = self.driver.state
        wanted = read_params(params, _OwnFactoryParams).factory_id
        if wanted is not None:
            return state.attempts[find_factory(state.attempts, wanted)]
        attempt = views.meant_by_default(state)
        if attempt is not None:
            return attempt
        raise ApiFailure(
            "factory_not_found",
            "this client is in no factory",
            remediation="Join the LSP's lobby with `join`, and wait for a build.",
            exit_code=4,
        )

    def _checked(self, params: dict[str, Any]) -> ClientAttempt:
        attempt = self._attempt(params)
        if attempt.is_checked:
            return attempt
        if attempt.aborted is None:
            raise ApiFailure(
                "factory_unchecked", "the LSP's proposal is being checked", retryable=True
            )
        raise ApiFailure(
            "factory_refused",
            f"there is nothing to verify: {attempt.aborted}",
            remediation="`client factories` lists the factories that were accepted, too.",
        )

    def _complete(self, params: dict[str, Any]) -> ClientAttempt:
        attempt = self._attempt(params)
        if not isinstance(attempt.stage, Complete):
            raise ApiFailure(
                "factory_not_complete",
                "the branch is not completely signed; nothing was funded",
                retryable=attempt.is_open,
            )
        if attempt.is_retired:
            raise ApiFailure(
                "moved_out",
                MOVED_OUT,
                remediation="Nothing of yours is left there; the LSP closes it without you.",
            )
        return attempt


def tell_other_lsps(state: ClientState) -> None:
    """Say in the log that channels of the store are with another LSP than the one that was named.

    They are no less ours; but a node id that somebody mistyped, or an older configuration, leaves
    them without payments for good.
    """
    ours = state.config.lsp_node_id.hex()
    for node_id, n_channels in sorted(views.with_other_lsps(state).items()):
        _log.warning(
            "channels_of_another_lsp lsp=%s configured=%s channels=%d",
            node_id.hex(),
            ours,
            n_channels,
        )


def run(options: ClientOptions) -> None:
    """Run a client until it is told to stop.

    Raises:
        StoreFailed: If the journal cannot be opened, or another process has it.
        ForeignJournal: If it belongs to another role, network or seed.
        BadSeed: If the seed file is not valid.
        ChainMismatch: If the node is the wrong one.
        CredentialsRefused: If the node does not let us in. One that is not there is waited for.
    """
    set_up_logging(level=options.log_level, form=options.log_format)
    asyncio.run(_run(options))


async def _run(options: ClientOptions) -> None:
    await ClientDaemon(options).run()
