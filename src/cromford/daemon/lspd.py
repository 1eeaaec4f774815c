"""The LSP's daemon: listens, builds, answers its operator."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final

import msgspec

from cromford import effects as fx
from cromford.adapters.noise_server import NoiseServer, serve
from cromford.adapters.peer_address import PeerAddress, written_endpoint
from cromford.adapters.places import Limits, Relation
from cromford.answers.bans import LobbyAnswer
from cromford.answers.chain import RefusedTransaction
from cromford.answers.exits import ExitBegun
from cromford.answers.export import FactoryExport
from cromford.answers.factories import LspFactories, LspFactory, LspFactoryLine
from cromford.answers.fundings import AbandonedFunding, BumpedFunding
from cromford.answers.index import LSP_ANSWERS
from cromford.answers.status import LspStatus
from cromford.bitcoin.fees import sat_per_vb
from cromford.daemon.api import lsp_bans, lsp_closing, lsp_fundings, lsp_market, lsp_payments
from cromford.daemon.api.factory_id import find_factory
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.lsp_bans import LspBans
from cromford.daemon.api.lsp_closing import LspClosing
from cromford.daemon.api.lsp_fundings import LspFundings
from cromford.daemon.api.lsp_market import LspMarket
from cromford.daemon.api.lsp_payments import LspPayments
from cromford.daemon.api.lsp_pictures import PICTURE_PARAMS, picture_methods
from cromford.daemon.api.wallet import (
    FEERATE_TARGET_BLOCKS,
    check_believable,
    feerate_of,
    given_feerate,
    refusal_of,
)
from cromford.daemon.attempt_keys import AttemptKeys
from cromford.daemon.budgets import Budgets
from cromford.daemon.ceremonies import Ceremonies
from cromford.daemon.ceremony_log import CeremonyLog
from cromford.daemon.deadlines import Due
from cromford.daemon.driver import Role
from cromford.daemon.factory_numbers import AllNumbers
from cromford.daemon.happenings import Happenings
from cromford.daemon.logs import set_up_logging
from cromford.daemon.lookups import LspLookup
from cromford.daemon.metrics import Sample
from cromford.daemon.options import LspOptions
from cromford.daemon.parts import LspParts, read_label
from cromford.daemon.seats import Seats
from cromford.daemon.serving import SHARED_PARAMS
from cromford.daemon.shell import Daemon
from cromford.daemon.signing import draw
from cromford.daemon.views import lsp as views
from cromford.daemon.views.bans import paused
from cromford.daemon.views.closing import close_under_way
from cromford.daemon.views.lsp_exit import exit_next
from cromford.open_files import allow_open_files
from cromford.ports import BlockRef
from cromford.protocol import events as ev
from cromford.protocol import lsp
from cromford.protocol.exiting.lsp import arriving_total_sat
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspConfig, LspState
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.streams import factory_number
from cromford.protocol.lobby import bumping
from cromford.protocol.lobby.giving_up import is_outbid, planned
from cromford.protocol.opening.funding import (
    is_too_late,
    published_funding,
    published_ladder,
    why_too_late,
)
from cromford.signing.keychain import Keychain
from cromford.wallet.account import Account
from cromford.wallet.coins import Wallet

KEYS_KEPT_BLOCKS: Final = 144  # Beyond a factory's expiry: a reorganisation is no reason to ask.
OUTBID: Final = "the operator gives up all candidates of its fee ladder"
ENTRIES_AT_ONCE: Final = 64  # Factories that are listed before others are served.
FILES_HINT: Final = "raise the hard limit of open files (ulimit -Hn, LimitNOFILE=)"

LSP_ROLE: Role[LspState] = Role(
    name="lsp",
    decide=lsp.decide,
    apply=lsp.apply,
    relevant=lsp.relevant,
    parts=LspParts(),
    stop=lsp.stop,
)

_log = logging.getLogger(__name__)


class _FactoryParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str


class _AbandonFactoryParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str
    feerate_sat_per_vb: str | None = None  # a decimal number; None: the node's estimate
    dry_run: bool = False


class _BumpFactoryParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str
    feerate_sat_per_vb: str | None = None  # of both together; None: our own node's
    dry_run: bool = False


class _ExitParams(msgspec.Struct, forbid_unknown_fields=True):
    factory_id: str
    client: int
    publish_stale_commitment: bool = False


PARAMS: Final[Params] = {
    **SHARED_PARAMS,
    **lsp_payments.PARAMS,
    **lsp_closing.PARAMS,
    **lsp_market.PARAMS,
    **lsp_bans.PARAMS,
    **lsp_fundings.PARAMS,
    **PICTURE_PARAMS,
    "factory_show": _FactoryParams,
    "factory_export": _FactoryParams,
    "factory_abandon": _AbandonFactoryParams,
    "factory_bump": _BumpFactoryParams,
    "exit_start": _ExitParams,
}


class LspDaemon(Daemon[LspState]):
    """One LSP."""

    params = PARAMS
    answers = LSP_ANSWERS

    def __init__(self, options: LspOptions) -> None:
        def new_state(keychain: Keychain) -> LspState:
            return lsp.new_lsp(
                LspConfig(
                    network=options.network,
                    node_id=keychain.node_id,
                    policy=options.policy,
                    account=Account(keychain.wallet_account),
                )
            )

        self._limits = possible_limits(options.limits)
        self._has_seat = Seats(lambda: self.state)
        super().__init__(
            role=LSP_ROLE,
            options=options,
            new_state=new_state,
            budgets=Budgets(self._has_seat),
        )
        self._listen = (options.listen_host, options.listen_port)
        self._announce = options.announce
        self._server: NoiseServer | None = None
        self._payments = LspPayments(self)
        self._closing = LspClosing(self)
        self._market = LspMarket(self)
        self._bans = LspBans(self)
        self._fundings = LspFundings(self)
        self._attempt_keys = AttemptKeys(self._signer, draw=draw, post=self.post)
        self._ceremonies = Ceremonies()
        self._numbers = AllNumbers()
        self._ceremony_log = CeremonyLog()
        self._happenings = Happenings(LspLookup(lambda: self.state), is_lsp=True)
        self._forget_old_keys()

    @property
    def state(self) -> LspState:
        """The LSP's state."""
        return self.driver.state

    @property
    def factory_keys(self) -> Iterator[tuple[int, bytes]]:
        """The LSP's key in each factory that was funded, whether or not it is in memory."""
        return self.state.house.own_keys()

    @property
    def book(self) -> Book:
        """The LSP's channels and payments."""
        return self.driver.state.book

    @property
    def payment_statuses(self) -> Mapping[tuple[str, str], int]:
        """How many payments there are, in factories that sleep, too."""
        return views.payment_statuses(self.driver.state.house)

    def payment_status(self, payment_hash: bytes) -> str:
        """Return what became of a payment that was ordered: no factory is looked at for it."""
        return self.driver.state.house.payments[payment_hash].status

    @property
    def wallet(self) -> Wallet:
        """The LSP's wallet."""
        return self.driver.state.wallet

    @property
    def unreachable(self) -> str | None:
        """Why no peer can reach us; None where nothing hinders it."""
        return "no port is listened on yet" if self._server is None else None

    @property
    def n_channels(self) -> int:
        """How many channels are in memory."""
        return len(self.driver.state.channels)

    @property
    def arriving_sat(self) -> int:
        """What is on its way to the wallet, of channels on chain, of sweeps and of closes."""
        return sum(arriving_total_sat(factory) for factory in self.state.all_factories())

    @property
    def n_connected(self) -> int:
        """How many peers have a place.

        Whoever had to make room is not among them any more, though the task that served it may
        still be on its way to notice.
        """
        return 0 if self._server is None else self._server.n_connections

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        """The newest blocks the LSP has seen."""
        return self.driver.state.scan.recent

    @property
    def recorded_height(self) -> int:
        """The height of the tip that was recorded, also where no block is remembered; or -1."""
        return self.driver.state.scan.recorded_height

    async def network_side(self) -> None:
        """Listen until cancelled."""
        self._server = await serve(
            *self._listen,
            identity=self.identity,
            on_connection=self.peers.run,
            limits=self._limits,
            relation_of=self._relation_of,
        )
        _log.info("lsp_listening address=%s on=%s", self._address(), self._listening())
        async with self._server:
            await asyncio.Event().wait()

    def _forget_old_keys(self) -> None:
        """Erase clients' keys of factories whose expiry is long past: we need nobody there."""
        order, height = self.state.house.order, self.recorded_height

        def is_over(number: int) -> bool:
            if number not in order:
                return False
            expiry_height = self.state.house.entry_of(number).expiry_height
            return expiry_height + KEYS_KEPT_BLOCKS <= height

        try:
            n_forgotten = self.handed_over_keys.forget(is_over)
        except OSError as error:
            _log.warning("keys_not_forgotten reason=%s", error.strerror)
        else:
            if n_forgotten:
                _log.info("keys_forgotten clients=%d", n_forgotten)
        if self.handed_over_keys.problem:
            _log.error("keys_damaged problem=%s", self.handed_over_keys.problem)

    def _relation_of(self, node_id: bytes) -> Relation:
        if self._has_seat(node_id):
            return Relation.OWNER
        return Relation.WAITING if node_id in self.state.house.members else Relation.STRANGER

    def samples(self) -> Iterator[Sample]:
        """Yield an LSP's numbers for Prometheus."""
        yield from super().samples()
        state = self.driver.state
        yield "lobby_clients", {}, len(state.house.members)
        yield "banned_peers", {}, len(list(paused(state.house)))
        yield from self._ceremonies.samples(state)
        yield from self._happenings.samples()
        yield from self._numbers.samples(state, self.facts)
        yield "lacking_sat", {}, state.house.lacking_sat()

    def _perform(self, effect: fx.Performed) -> Iterable[ev.Event]:
        if isinstance(effect, fx.PrepareAttempt):
            self.spawn(self._attempt_keys.prepare(effect))
            return ()
        return super()._perform(effect)

    def _observe(self, record: AnyRecord) -> None:
        super()._observe(record)
        self._ceremonies.observe(record)
        self._ceremony_log.observe(record)
        self._happenings.observe(record)

    def methods(self) -> Mapping[str, Handler]:
        """Return the API methods of an LSP."""
        return {
            "status": without_params(self._status),
            "lobby": without_params(self._lobby),
            "factories": without_params(self._factories),
            "factory_show": self._factory_show,
            "factory_export": self._factory_export,
            "factory_abandon": self._factory_abandon,
            "factory_bump": self._factory_bump,
            "exit_start": self._exit_start,
            **self._payments.methods(),
            **self._closing.methods(),
            **self._market.methods(),
            **self._bans.methods(),
            **self._fundings.methods(),
            **picture_methods(self._factory_show, without_params(self._factories)),
        }

    def _address(self) -> str | None:
        if self._server is None:
            return None
        host, port = self._announce or (self._server.host, self._server.port)
        return str(PeerAddress(node_id=self.identity.node_id, host=host, port=port))

    def _listening(self) -> str | None:
        if self._server is None:
            return None
        return written_endpoint(self._server.host, self._server.port)

    async def _entries(self) -> AsyncIterator[FactoryEntry]:
        """Yield what is known of every factory, oldest first; others are served meanwhile."""
        for number, entry in enumerate(self.state.house.factories(), start=1):
            if number % ENTRIES_AT_ONCE == 0:
                await asyncio.sleep(0)
            yield entry

    async def _status(self) -> LspStatus:
        locking = [e async for e in self._entries() if views.is_locking(self.state, e)]
        ending = [views.dying(self.state.house, entry) for entry in locking]
        state = self.driver.state
        return {
            "role": "lsp",
            **await self.status(),
            "listen": self._listening(),
            "address": self._address(),
            "n_connected": self.n_connected,
            "contested": [node_id.hex() for node_id in self.peers.contested],
            "n_waiting": len(state.house.members),
            "build": views.show_build(state.house.build, state.open_attempt),
            "build_dropped": state.house.build_dropped,
            "look_blocks": views.look_blocks(state),
            "capital": views.capital(state, locking),
            "price": self._market.shown_price(),
            "n_factories": state.house.tally.n_funded,
            "closing": [
                {"factory_id": factory.attempt.attempt_id.hex(), **under_way}
                for factory in state.all_factories()
                if factory.begun is not None and (under_way := close_under_way(factory)) is not None
            ],
            "handed_over_keys": {
                "n_clients": len(self.handed_over_keys),
                "problem": self.handed_over_keys.problem,
            },
            "dying": [factory for factory in ending if factory is not None],
            "stopped": [
                {"factory_id": state.house.entry_of(number).attempt_id.hex(), "error": error}
                for stream, error in state.stopped.items()
                if (number := factory_number(stream)) is not None
            ],
        }

    async def _lobby(self) -> LobbyAnswer:
        return {"address": self._address(), **views.lobby(self.driver.state.house)}

    async def _factories(self) -> LspFactories:
        lines: list[LspFactoryLine] = []
        async for entry in self._entries():
            state = self.driver.state
            if entry.number in state.factories:
                factory = state.factory(entry.number)
                line, refused = views.summary(factory), self._refused(factory)
            elif label := self.driver.label(entry.stream):
                shown = read_label(entry.stream, label).shown
                line, refused = views.as_it_slept(state.house, shown), []
            else:
                continue
            bump = views.bump_of(state.house, entry.attempt_id)
            lines.append({**line, "refused": refused, "bump": bump})
        return {"factories": lines}

    async def _factory_show(self, params: dict[str, Any]) -> LspFactory:
        factory = self._factory(params)
        attempt = factory.attempt
        return {
            **views.show(factory),
            "refused": self._refused(factory),
            "bump": views.bump_of(self.driver.state.house, attempt.attempt_id),
            "not_worth_sweeping": views.not_worth_sweeping(factory, self.facts.fees),
            "seconds_left": self.deadlines.seconds_left(
                Due(factory.stream, fx.AttemptDeadline(attempt_id=attempt.attempt_id))
            ),
        }

    async def _factory_export(self, params: dict[str, Any]) -> FactoryExport:
        return views.export(self._factory(params))

    async def _factory_abandon(self, params: dict[str, Any]) -> AbandonedFunding:
        """Give up a funding that is too late, or that the node refuses and no block can have."""
        wanted = read_params(params, _AbandonFactoryParams)
        factory = self._named(self._found(wanted.factory_id))
        attempt = factory.attempt
        feerate_sat_per_kw, source = await feerate_of(
            self.chain,
            wanted.feerate_sat_per_vb,
            fallback_sat_per_kw=self.fallback_sat_per_kw,
        )
        asked = ev.FactoryAbandonRequested(
            attempt_id=attempt.attempt_id, reason="", feerate_sat_per_kw=feerate_sat_per_kw
        )
        self.foresee(asked)  # The node would say of a funding in a block that it takes it.
        funded, reason = attempt.funded, ""
        if funded is not None and is_too_late(factory):
            reason = why_too_late(factory)
        elif funded is not None and is_outbid(self.driver.state.house, attempt.attempt_id):
            reason = OUTBID  # Replaced where it waits: the node need not refuse it.
        elif funded is not None:
            reason = await refusal_of(self.chain, funded.funding_tx, lambda: self.wallet)
        asked = replace(asked, reason=reason)
        self.foresee(asked)
        plan = planned(
            self.driver.state.house,
            attempt.attempt_id,
            feerate_sat_per_kw=feerate_sat_per_kw,
            fundings=published_ladder(factory),
            fees=self.facts.fees,
        )
        if not wanted.dry_run:
            self.request(asked)
        return {
            "abandoned": not wanted.dry_run,
            "factory_id": attempt.attempt_id.hex(),
            "reason": reason,
            "txid": str(plan.tx.txid),
            "amount_sat": plan.amount_sat,
            "fee_sat": plan.fee_sat,
            "feerate_sat_per_vb": sat_per_vb(feerate_sat_per_kw),
            "feerate_source": source,
            "min_depth": attempt.terms.min_depth,
        }

    async def _factory_bump(self, params: dict[str, Any]) -> BumpedFunding:
        """Let a funding without a block pay more, by a child of its change."""
        wanted = read_params(params, _BumpFactoryParams)
        factory = self._named(self._found(wanted.factory_id))
        attempt_id, fees = factory.attempt.attempt_id, self.facts.fees
        funding = published_funding(factory)
        if funding is not None and is_too_late(factory):
            raise ApiFailure(
                "factory_too_late",
                why_too_late(factory),
                remediation="Give it up with `lsp factory abandon`: its coins are free then.",
            )
        feerate_sat_per_kw, source = fees.within(FEERATE_TARGET_BLOCKS), "our node, for 6 blocks"
        if wanted.feerate_sat_per_vb is not None:
            feerate_sat_per_kw, source = given_feerate(wanted.feerate_sat_per_vb), "given"
        check_believable(feerate_sat_per_kw)
        asked = ev.FundingBumpRequested(
            attempt_id=attempt_id, feerate_sat_per_kw=feerate_sat_per_kw
        )
        self.foresee(asked)
        house = self.driver.state.house
        if funding is None:
            raise AssertionError("a funding that is not signed is not found")
        plan = bumping.planned(
            house, attempt_id, funding, feerate_sat_per_kw=feerate_sat_per_kw, fees=fees
        )
        paid_sat_per_kw = bumping.funding_sat_per_kw(house, attempt_id, funding)
        if not wanted.dry_run:
            self.request(asked)
        return {
            "bumped": not wanted.dry_run,
            "factory_id": attempt_id.hex(),
            "funding_txid": str(funding.txid),
            "txid": str(plan.tx.txid),
            "fee_sat": plan.fee_sat,
            "change_sat": plan.change_sat,
            "n_coins": len(plan.coins),
            "paid_sat_per_vb": sat_per_vb(paid_sat_per_kw),
            "feerate_sat_per_vb": sat_per_vb(feerate_sat_per_kw),
            "feerate_source": source,
        }

    def _refused(self, factory: Factory) -> list[RefusedTransaction]:
        """Return which transactions of a factory the node does not take."""
        return self.refusals.shown_of(factory.attempt.watched_txids, factory.chain.spends)

    async def _exit_start(self, params: dict[str, Any]) -> ExitBegun:
        wanted = read_params(params, _ExitParams)
        attempt_id = self._found(wanted.factory_id)
        await self.following.ask_fees()
        self.request(
            ev.ExitRequested(
                attempt_id=attempt_id,
                client=wanted.client,
                publishes_stale=wanted.publish_stale_commitment,
            )
        )
        return {
            "exiting": True,
            "next": exit_next(self._named(attempt_id), wanted.client, self.facts.fees),
        }

    def _factory(self, params: dict[str, Any]) -> Factory:
        return self.factory_named(read_params(params, _FactoryParams).factory_id)

    def factory_named(self, wanted: str) -> Factory:
        """Return a factory by its id, or the beginning of it; one that sleeps is woken.

        Raises:
            ApiFailure: If there is none, or more than one.
        """
        return self._named(self._found(wanted))

    def _found(self, wanted: str) -> bytes:
        """Return the factory id that begins with these hex digits; no others are looked at.

        Raises:
            ApiFailure: If none does, or more than one.
        """
        digits = wanted.lower()
        try:
            least = bytes.fromhex(digits + "0" * (len(digits) % 2))
        except ValueError:
            return find_factory((), wanted)
        ids = self.driver.state.house.attempt_ids(least)
        return find_factory(takewhile(lambda one: one.hex().startswith(digits), ids), wanted)

    def _named(self, attempt_id: bytes) -> Factory:
        entry = self.driver.state.house.entries[attempt_id]
        self.driver.wake(entry.stream)
        return self.driver.state.factory(entry.number)


def possible_limits(limits: Limits) -> Limits:
    """Return how many peers the system lets us hold; its soft limit of open files is raised for it.

    Raises:
        TooFewFiles: If it is nobody.
    """
    available = allow_open_files(limits.n_files)
    possible = limits.within(available)
    if possible is not limits:
        _log.warning(
            "open_files_limited needed=%d available=%d connections_max=%d strangers_max=%d hint=%s",
            limits.n_files,
            available,
            possible.connections_max,
            possible.strangers_max,
            FILES_HINT,
        )
    return possible


def run(options: LspOptions) -> None:
    """Run an LSP until it is told to stop.

    Raises:
        TooFewFiles: If the system lets us open too few files to serve anybody.
        StoreFailed: If the journal cannot be opened, or another process has it.
        ForeignJournal: If it belongs to another role, network or seed.
        BadSeed: If the seed file is not valid.
        ChainMismatch: If the node is the wrong one.
        CredentialsRefused: If the node does not let us in. One that is not there is waited for.
    """
    set_up_logging(level=options.log_level, form=options.log_format)
    asyncio.run(_run(options))


async def _run(options: LspOptions) -> None:
    await LspDaemon(options).run()
