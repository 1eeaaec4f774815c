"""What both daemons share: a driver, a chain to follow, peers, deadlines, a local API.

Everything that happens ends in `post`, one event at a time. An effect that needs the chain runs
as a task and comes back as an event.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import Any, ClassVar, Final, Generic, TypeVar

from cromford import __version__
from cromford import effects as fx
from cromford.adapters.chain_check import ChainMismatch, NodeCheck
from cromford.adapters.key_file import KeyFile
from cromford.adapters.noise import NodeIdentity
from cromford.adapters.sqlite import Journal
from cromford.answers.exits import WaitingTransaction
from cromford.answers.status import DaemonStatus
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.daemon.api.endpoints import Answers
from cromford.daemon.api.handlers import Handler, Params
from cromford.daemon.api.tokens import Tokens
from cromford.daemon.api.wallet import wallet_samples, wallet_summary
from cromford.daemon.backup.places import check_places
from cromford.daemon.budgets import Budgets
from cromford.daemon.chain_effects import ChainEffects
from cromford.daemon.chain_following import ChainFollowing
from cromford.daemon.checkpoints import Checkpoints
from cromford.daemon.committer import Committer
from cromford.daemon.connecting import connect_chain
from cromford.daemon.deadlines import Deadlines, Due
from cromford.daemon.driver import DRAWN_BITS, Driver, Role, Undecided
from cromford.daemon.event_log import EventLog
from cromford.daemon.failed_decisions import FailedDecisions
from cromford.daemon.handover import HandedOver, KeyWriting, heard, key_message
from cromford.daemon.health import readiness, watched
from cromford.daemon.home import open_home, read_passphrase
from cromford.daemon.mark_keeping import MarkKeeping
from cromford.daemon.metrics import MetricsServer, Sample
from cromford.daemon.options import ClientOptions, LspOptions
from cromford.daemon.pairing import check_factory_keys, open_keychain
from cromford.daemon.peers import Peers
from cromford.daemon.record_log import log_record
from cromford.daemon.refusals import Refusals
from cromford.daemon.remedies import refusal
from cromford.daemon.safekeeping import UNMARKED, Safekeeping, waits_for_mark
from cromford.daemon.serving import api_server, shared_methods
from cromford.daemon.signing import draw, nonce_samples, perform_signing, sign_child
from cromford.daemon.supervisor import supervised
from cromford.daemon.views.payments import statuses
from cromford.daemon.webhooks.delivering import Webhooks
from cromford.listening import CannotListen
from cromford.ports import BlockRef, Checkpoint, CredentialsRefused
from cromford.protocol import events as ev
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.streams import CLIENT
from cromford.protocol.turn import Decision, StreamBug
from cromford.signing.keychain import Keychain
from cromford.signing.signer import Signer
from cromford.wallet.account import Account, WalletPath
from cromford.wallet.coins import Wallet

FIRST_LOOK_SECONDS: Final = 3.0

_log = logging.getLogger(__name__)
S = TypeVar("S")


class Daemon(Generic[S]):
    """One running role. Subclasses add the network side and the API methods of their role.

    Attributes:
        params: What the operations of the role take, by their names.
        answers: What they answer.
    """

    params: ClassVar[Params]
    answers: ClassVar[Answers]

    def __init__(
        self,
        *,
        role: Role[S],
        options: LspOptions | ClientOptions,
        new_state: Callable[[Keychain], S],
        budgets: Budgets | None = None,
    ) -> None:
        check_places(options.datadir, backup_dir=options.backup_dir, mark_dir=options.mark_dir)
        network = self.network = options.network
        self.home = open_home(options.datadir, network)
        self.handed_over_keys = KeyFile(self.home)
        self.tokens = Tokens(self.home, are_asked=options.api_listen is not None)
        self.chain_url = options.chain.url
        passphrase = read_passphrase(options.seed_passphrase_file)
        self.failed_decisions = FailedDecisions()
        self._committer: Committer | None = None
        self._checkpoints = Checkpoints(self.spawn, self._keep)
        self.chain = connect_chain(options.chain)
        self._chain_effects = ChainEffects(
            self.chain,
            post=self.post,
            spawn=self.spawn,
            height=lambda: self.height,
            is_pending=lambda deadline: Due(CLIENT, deadline) in self.deadlines,
            sign=lambda child: sign_child(self._signer, child),
            path_of=self._path_of,
        )
        self.fallback_sat_per_kw = options.fallback_sat_per_kw
        self.following = ChainFollowing(
            self.chain,
            self,
            check=NodeCheck(self.chain, network, signet_challenge=options.signet_challenge),
            has_real_time=network != REGTEST,
            poll_seconds=options.poll_seconds,
            fallback_sat_per_kw=options.fallback_sat_per_kw,
            answered=self._chain_effects.node_answers,
        )
        keychain = self._open_store(role, options, new_state, passphrase)
        self.identity = NodeIdentity(node_id=keychain.node_id, ecdh=keychain.ecdh)
        self.account = Account(keychain.wallet_account)
        self.peers = Peers(self.post, budgets, heard=partial(heard, self._signer))
        self._options = options
        self.deadlines = Deadlines(
            reached=lambda due: self.post(
                ev.DeadlineReached(stream=due.stream, deadline=due.deadline)
            ),
            heard=self.peers.heard,
            spawn=self.spawn,
            left=self.driver.afterwards,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._metrics: MetricsServer | None = None

    def _open_store(
        self,
        role: Role[S],
        options: LspOptions | ClientOptions,
        new_state: Callable[[Keychain], S],
        passphrase: str | None,
    ) -> Keychain:
        """Open the journal, judge it by its mark, then fold it; all is closed if that fails."""
        with contextlib.ExitStack() as undo:
            self._journal = Journal(self.home)
            undo.callback(self._journal.close)
            keychain = open_keychain(
                self._journal,
                self.home,
                role=role.name,
                network=options.network,
                passphrase=passphrase,
            )
            self.safe = Safekeeping(self._journal, self.home, options, keychain, role=role.name)
            undo.callback(self.safe.close)
            self.events = EventLog(
                self._journal,
                journal_number=keychain.journal_number,
                restores=lambda: self.safe.restores,
            )
            self.webhooks = Webhooks(self.home, self.events)
            self._signer = Signer(keychain, n_channels=lambda: self.n_channels)
            self.driver = Driver(
                role,
                new_state(keychain),
                self._journal,
                self._perform,
                self._observe,
                on_fault=self._note_fault,
            )
            check_factory_keys(keychain, self.factory_keys)
            undo.pop_all()
        return keychain

    # What a subclass provides

    async def network_side(self) -> None:
        """Listen or connect, until cancelled."""
        raise NotImplementedError

    def methods(self) -> Mapping[str, Handler]:
        """Return the API methods of the role."""
        raise NotImplementedError

    @property
    def factory_keys(self) -> Iterator[tuple[int, bytes]]:
        """Our key in each factory that was signed: the attempt in its path, and the pubkey."""
        raise NotImplementedError

    @property
    def wallet(self) -> Wallet:
        """The role's wallet."""
        raise NotImplementedError

    @property
    def book(self) -> Book:
        """The role's channels and payments."""
        raise NotImplementedError

    @property
    def payment_statuses(self) -> Mapping[tuple[str, str], int]:
        """How many payments there are by direction (`out`, `in`) and status."""
        return statuses(self.book)

    def payment_status(self, payment_hash: bytes) -> str:
        """Return what became of a payment that was asked for."""
        return self.book.payments[payment_hash].status

    @property
    def unreachable(self) -> str | None:
        """Why no peer can reach us, or we cannot reach ours; None where nothing hinders it."""
        raise NotImplementedError

    @property
    def n_channels(self) -> int:
        """How many channels may have a nonce now."""
        raise NotImplementedError

    @property
    def arriving_sat(self) -> int:
        """What is on its way to the wallet out of channels that are on chain."""
        raise NotImplementedError

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        """The newest blocks the role has seen, oldest first."""
        raise NotImplementedError

    @property
    def recorded_height(self) -> int:
        """The height of the tip that was recorded, also where no block is remembered; or -1."""
        raise NotImplementedError

    @property
    def height(self) -> int:
        """The height of the tip the role has seen, or -1."""
        return self.recent_blocks[-1].height if self.recent_blocks else -1

    @property
    def facts(self) -> Facts:
        """What a decision may read now."""
        now = self.safe.facts(self.following.facts())
        return changed(now, unix_time=int(time.time()))

    @property
    def n_connected(self) -> int:
        """How many peers are connected."""
        return self.peers.n_connected

    def seen_waiting(self, outpoint: OutPoint) -> WaitingTransaction | None:
        """Return what was seen last in the node's mempool of what we publish to spend an outpoint.

        As plain data; None if nothing that is to confirm in time was published for it.
        """
        waiting = self._chain_effects.bumper.waiting_at(outpoint)
        return None if waiting is None else waiting.shown()

    @property
    def refusals(self) -> Refusals:
        """What the node does not take."""
        return self._chain_effects.refusals

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        """Return the transactions of a block that matter to the role."""
        return self.driver.relevant(txs)

    def samples(self) -> Iterator[Sample]:
        """Yield the role's numbers for Prometheus."""
        yield "height", {}, self.height
        yield from self.following.samples()
        yield "refused_transactions", {}, len(self.refusals)
        yield "connected_peers", {}, self.n_connected
        yield from self.failed_decisions.samples()
        yield from self.webhooks.samples()
        yield from self.safe.samples()
        yield from wallet_samples(self)
        yield from nonce_samples(self._signer)
        for (direction, status), count in self.payment_statuses.items():
            yield "payments", {"direction": direction, "status": status}, count

    # The life of a daemon

    async def run(self) -> None:
        """Run until it is told to stop.

        Raises:
            ChainMismatch: If the node is of another network, or too old.
            CredentialsRefused: If it does not let us in. One that is not there is waited for.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        if self._options.metrics_listen is not None:
            self._metrics = watched(
                self._options.metrics_listen,
                loop,
                samples=self.samples,
                readiness=lambda: readiness(self),
                settled=self._settled,
            )
            _log.info("metrics_served port=%d", self._metrics.port)
        self.api = api_server(self, self.driver.role, listen=self._options.api_listen)
        try:
            self._begin_to_commit()
            await self.following.ask_fees(seconds=FIRST_LOOK_SECONDS)  # For what is owed at once.
            self.driver.facts = self.facts
            self.driver.start(unix_time=int(time.time()), drawn=secrets.randbits(DRAWN_BITS))
            self.spawn(self.following.run())
            if self.safe.marks is not None:
                MarkKeeping(
                    self.safe.marks,
                    peers=self.peers,
                    post=self.post,
                    spawn=self.spawn,
                    settled=self._settled,
                    cover=self._cover,
                )
            await self._first_look()
            async with self.webhooks, self.api, supervised(self, self._settled):
                self.spawn(self._network_once_it_knows_a_block())
                if self.api.tcp_url is not None:
                    _log.info("page_served url=%s", self.api.tcp_url)
                _log.info("daemon_started home=%s", self.home)
                await self._stopping.wait()
                self.events.close()
        finally:
            await self._close()
        if self._failure is not None:
            raise self._failure

    # What is told is durable

    def _begin_to_commit(self) -> None:
        self._committer = Committer(
            self._journal, failed=self._fail_to_commit, marks=self.safe.marks
        )
        self.driver.commit = self._committer.commit
        self.driver.caused = self.post
        self.driver.bound = self._bound

    def _fail_to_commit(self, error: Exception) -> None:
        _log.error("commit_failed", exc_info=error)
        self._failure = self._failure or error
        self._stopping.set()

    async def _settled(self) -> None:
        """Return once all that was decided by now is durable, and done."""
        if self._committer is not None:
            await self._committer.settled()

    async def _cover(self) -> None:
        if self._committer is not None:
            await self._committer.cover()

    async def _keep(self, checkpoint: Checkpoint) -> None:
        if self._committer is not None:
            await self._committer.keep(checkpoint)

    def served_methods(self) -> dict[str, Handler]:
        """Return every method of the API, as it is served."""
        role, stop = self.driver.role, self._stopping.set
        shared = shared_methods(self, role, stop=stop, settled=self._settled, cover=self._cover)
        methods = {**shared, **self.methods()}
        return {name: self._durably(method) for name, method in methods.items()}

    def _durably(self, handler: Handler) -> Handler:
        """Let a method answer when what it caused, and what it tells, is durable."""

        @wraps(handler)
        async def answer(params: dict[str, Any]) -> object:
            try:
                return await handler(params)
            finally:
                await self._settled()

        return answer

    def _bound(self, effect: fx.Performed) -> Callable[[], Iterable[ev.Event]]:
        """Bind what is said to a peer to its present connection: the next is another talk."""
        if not isinstance(effect, fx.Send | fx.Disconnect | fx.HandOverKeys):
            return partial(self._perform, effect)
        node_id = effect.node_id
        connection = self.peers.connection_of(node_id)
        if isinstance(effect, fx.Disconnect):
            self.peers.let_go(node_id)

        def perform() -> Iterable[ev.Event]:
            if self.peers.connection_of(node_id) is not connection:
                return ()
            if not self._is_covered and waits_for_mark(effect):
                self.peers.disconnect(node_id, UNMARKED, is_ours=True)
                return ()
            return self._perform(effect)

        return perform

    @property
    def _is_covered(self) -> bool:
        """Whether all that led to what is done now is marked, where marks are kept."""
        return self._committer is None or self._committer.is_covered

    async def _first_look(self) -> None:
        """Wait a moment for the node: whoever asks us at once is not refused for want of it."""
        waits = {
            asyncio.create_task(what.wait()) for what in (self.following.has_looked, self._stopping)
        }
        await asyncio.wait(waits, timeout=FIRST_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def post(self, event: ev.Event) -> None:
        """Handle one event. A bug or a failed journal ends the daemon, loudly.

        But for one that stops a single factory, which the driver sees to; and one that is met while
        deciding about a peer's word, before anything is remembered: that peer goes, and the daemon
        stays. It cannot stay where it would have to skip the event:
        a block, a deadline, the end of a connection.

        Raises:
            Rejected: If the operator asked for something impossible.
            Undecided: If the peer that caused the event has to go.
        """
        try:
            self._handle(event)
        except Undecided as undecided:
            if isinstance(event, ev.PeerEvent):
                raise
            self._fail(event, undecided)
            raise

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request.

        Raises:
            ApiFailure: If it is impossible.
            Undecided: If a bug was met; nothing is changed, and the daemon stays.
        """
        try:
            self._handle(event)
        except Rejected as rejected:
            raise refusal(rejected) from rejected

    def _handle(self, event: ev.Event) -> None:
        self.driver.facts = self.facts
        try:
            self.driver.handle(event)
        except Rejected:
            raise
        except Undecided as undecided:
            self._note_undecided(event, undecided.__cause__ or undecided)
            raise
        except Exception as error:
            self._fail(event, error)
            raise
        self._checkpoints.look(self.driver)
        if isinstance(event, ev.BlockAdded):
            self._checkpoints.rest(self.driver)

    def _note_fault(self, fault: StreamBug, event: ev.Event) -> None:
        """Say that a bug stopped one stream, while the others go on."""
        _log.critical("stream_stopped stream=%s error=%s", fault.stream, type(fault.error).__name__)
        self._note_undecided(event, fault.error)

    def _note_undecided(self, event: ev.Event, error: BaseException) -> None:
        met = self.failed_decisions.note(event, error, unix_time=int(time.time()))
        if met.is_alarm:
            _log.critical("double_signing_prevented event=%s place=%s", met.event, met.place)
        _log.error("decision_failed event=%s count=%d", met.event, met.count, exc_info=error)

    def _fail(self, event: ev.Event, error: Exception) -> None:
        _log.error("daemon_failed event=%s", type(event).__name__, exc_info=error)
        self._failure = self._failure or error
        self._stopping.set()

    def foresee(self, event: ev.Event) -> Decision[S]:
        """Return what a request would do; nothing is done.

        Raises:
            ApiFailure: If it is impossible.
        """
        self.driver.facts = self.facts
        try:
            return self.driver.foresee(event)
        except Rejected as rejected:
            raise refusal(rejected) from rejected

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that belongs to the daemon; its failure ends the daemon."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    async def status(self) -> DaemonStatus:
        """Return what both roles tell about themselves."""
        return {
            "version": __version__,
            "network": self.network.name,
            "node_id": self.identity.node_id.hex(),
            "height": self.height,
            "synced": self.following.stale() is None,
            "chain": self.following.shown(),
            "refused": self.refusals.shown(),
            "failed_decisions": self.failed_decisions.shown(),
            "backup_warnings": self.safe.shown()["warnings"],
            "datadir": str(self.home.parent),
            "chain_url": self.chain_url,
            "wallet": wallet_summary(self),
        }

    async def _close(self) -> None:
        with contextlib.ExitStack() as last:
            # The journal last, whatever the others do: nothing may be lost by a clumsy end.
            last.callback(self._journal.close)
            last.callback(self.safe.close)
            last.callback(self.chain.close)
            if self._metrics is not None:
                last.callback(self._metrics.close)
            self.deadlines.close()
            self.peers.disconnect_all("we stop")  # First: no peer answers for what ends of it.
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.peers.close()
            if self._committer is not None:
                await self._committer.close()
                self.driver.commit = None  # Whoever still leaves is written down at once.
        _log.info("daemon_stopped home=%s", self.home)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, ChainMismatch | CredentialsRefused | CannotListen):
            _log.error("task_failed", exc_info=error)  # Those are told to who started us.
        self._failure = self._failure or error
        self._stopping.set()

    async def _network_once_it_knows_a_block(self) -> None:
        # Peers are heard whether or not the chain is fresh: what is owed to them goes on.
        await self.following.has_block.wait()
        await self.network_side()

    # Effects

    def _path_of(self, script_pubkey: bytes) -> WalletPath | None:
        return self.wallet.scripts.get(script_pubkey)

    def _observe(self, record: AnyRecord) -> None:
        self._chain_effects.observe(record)
        log_record(record)
        self.events.news()

    def _perform(self, effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.Send(node_id=node_id, message=message):
                self.peers.send(node_id, message)
            case fx.HandOverKeys():
                # The secrets go from the signer to the wire, and to nobody else.
                self._perform(key_message(self._signer, effect))
            case (
                fx.KeepKeys()
                | fx.DropOffered()
                | fx.LookUpKeys()
                | fx.PrepareSeats()
                | fx.SignForSeats()
            ):
                writing = KeyWriting(self.handed_over_keys, post=self.post, spawn=self.spawn)
                return HandedOver(self._signer, writing.store, writing.put).perform(effect)
            case fx.Disconnect(node_id=node_id, reason=reason, is_ours=is_ours):
                self.peers.disconnect(node_id, reason, is_ours=is_ours)
            case fx.SetDeadline(deadline=deadline, seconds=seconds, stream=stream):
                self.deadlines.set(Due(stream, deadline), seconds)
            case fx.ClearDeadline(deadline=deadline, stream=stream):
                self.deadlines.clear(Due(stream, deadline))
            case fx.LookUpCoins():
                self._chain_effects.look_up(effect)
            case fx.PublishBumped():
                self._chain_effects.publish_bumped(effect)
            case fx.LookUpSpenders():
                self._chain_effects.look_up_spenders(effect)
            case fx.Broadcast():
                self._chain_effects.broadcast(effect)
            case _:
                return perform_signing(self._signer, draw, effect)
        return ()
