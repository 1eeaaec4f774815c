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
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from cromford import __version__
from cromford import effects as fx
from cromford.adapters.bitcoind import BitcoindChain
from cromford.adapters.chain_check import check_node
from cromford.adapters.follower import ChainFollower, Connected
from cromford.adapters.noise import NodeIdentity
from cromford.adapters.sqlite import Journal
from cromford.bitcoin.tx import OutPoint
from cromford.daemon.api.rpc import SOCKET_NAME, InvalidParam, RpcFailure
from cromford.daemon.api.rpc_server import Handler, RpcServer, read_params, without_params
from cromford.daemon.api.wallet import wallet_methods, wallet_summary
from cromford.daemon.driver import Driver, Role, open_journal
from cromford.daemon.event_log import EventLog
from cromford.daemon.home import open_home, read_passphrase
from cromford.daemon.metrics import MetricsServer, Sample
from cromford.daemon.options import ChainOptions, ClientOptions, LspOptions
from cromford.daemon.payment_numbers import PaymentNumbers
from cromford.daemon.peers import Peers
from cromford.daemon.seed_file import load_or_create_seed
from cromford.daemon.signing import perform_signing
from cromford.daemon.views.payments import statuses
from cromford.ports import BlockRef, ChainUnavailable, Coin, TxRefused
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.records import AnyRecord, TreePublished
from cromford.protocol.turn import Decision
from cromford.signing.keychain import Keychain
from cromford.signing.signer import Signer
from cromford.wallet.account import Account
from cromford.wallet.coins import Wallet

EVENTS_WAIT_SECONDS_MAX: Final = 60.0
CHAIN_TRIES: Final = 5  # How often a look-up is tried before it counts as unanswered.
CHAIN_RETRY_SECONDS: Final = 1.0
ATTEMPT_ID_SIZE: Final = 32
JOURNAL_NUMBER_BITS: Final = 31

_log = logging.getLogger(__name__)
S = TypeVar("S")


class EventsParams(msgspec.Struct, forbid_unknown_fields=True):
    """What `events` is asked: those after a number, and how long to wait for the first."""

    after: int = 0
    wait_seconds: float = 0.0


class Daemon(Generic[S]):
    """One running role. Subclasses add the network side and the API methods of their role."""

    _is_started = False  # Before, the journal is replayed: what it holds was logged once.

    def __init__(
        self,
        *,
        role: Role[S],
        options: LspOptions | ClientOptions,
        new_state: Callable[[Keychain], S],
    ) -> None:
        network = self.network = options.network
        self.home = open_home(options.datadir, network)
        self.chain_url = options.chain.url
        passphrase = read_passphrase(options.seed_passphrase_file)
        self._journal = Journal(self.home)
        seed = load_or_create_seed(self.home, passphrase)
        number = open_journal(
            self._journal,
            role=role.name,
            network_genesis=network.genesis_hash,
            draw_number=lambda: secrets.randbits(JOURNAL_NUMBER_BITS),
        )
        keychain = Keychain(seed, network, journal_number=number)
        self.identity = NodeIdentity(node_id=keychain.node_id, ecdh=keychain.ecdh)
        self._signer = Signer(keychain)
        self.account = Account(keychain.wallet_account)
        self.events = EventLog()
        self.payment_numbers = PaymentNumbers()
        self.driver = Driver(role, new_state(keychain), self._journal, self._perform, self._observe)
        self.chain = connect_chain(options.chain)
        self.peers = Peers(self.post)
        self._options = options
        self._deadlines: dict[fx.Deadline, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._failure: BaseException | None = None
        self._metrics: MetricsServer | None = None

    # What a subclass provides

    async def network_side(self) -> None:
        """Listen or connect, until cancelled."""
        raise NotImplementedError

    def methods(self) -> Mapping[str, Handler]:
        """Return the API methods of the role."""
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
    def arriving_sat(self) -> int:
        """What is on its way to the wallet out of channels that are on chain."""
        raise NotImplementedError

    @property
    def recent_blocks(self) -> tuple[BlockRef, ...]:
        """The newest blocks the role has seen, oldest first."""
        raise NotImplementedError

    @property
    def height(self) -> int:
        """The height of the tip the role has seen, or -1."""
        return self.recent_blocks[-1].height if self.recent_blocks else -1

    def samples(self) -> Iterator[Sample]:
        """Yield the role's numbers for Prometheus."""
        yield "height", {}, self.height
        yield "connected_peers", {}, self.peers.n_connected
        for name, amount_sat in wallet_summary(self).items():
            if isinstance(amount_sat, int):
                yield "wallet_sat", {"kind": name.removesuffix("_sat")}, amount_sat
        yield "channels_open", {}, sum(link.is_open for link in self.book.links.values())
        for (direction, status), count in statuses(self.book).items():
            yield "payments", {"direction": direction, "status": status}, count

    # The life of a daemon

    async def run(self) -> None:
        """Run until it is told to stop.

        Raises:
            ChainMismatch: If the node is of another network, too old, or not synchronised.
            ChainUnavailable: If it does not answer at the start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        if self._options.metrics_port is not None:
            self._metrics = MetricsServer(self._options.metrics_port, self.samples)
            _log.info("metrics_served port=%d", self._metrics.port)
        server = RpcServer(self.home / SOCKET_NAME, {**self._shared_methods(), **self.methods()})
        try:
            await check_node(
                self.chain, self.network, signet_challenge=self._options.signet_challenge
            )
            self._is_started = True
            self.driver.start(unix_time=int(time.time()))
            await self._see_first_block()
            self.spawn(self._follow())
            async with server:
                self.spawn(self._network_once_caught_up())
                _log.info("daemon_started home=%s", self.home)
                await self._stopping.wait()
                self.events.close()
        finally:
            await self._close()
        if self._failure is not None:
            raise self._failure

    def post(self, event: ev.Event) -> None:
        """Handle one event. A bug or a failed journal ends the daemon, loudly.

        Raises:
            Rejected: If the operator asked for something impossible.
        """
        try:
            self.driver.handle(event)
        except Rejected:
            raise
        except Exception as error:
            _log.exception("daemon_failed event=%s", type(event).__name__)
            self._failure = error
            self._stopping.set()
            raise

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request.

        Raises:
            RpcFailure: If it is impossible.
        """
        try:
            self.post(event)
        except Rejected as rejected:
            raise _refusal(rejected) from rejected

    def foresee(self, event: ev.Event) -> Decision[S]:
        """Return what a request would do; nothing is done.

        Raises:
            RpcFailure: If it is impossible.
        """
        try:
            return self.driver.foresee(event)
        except Rejected as rejected:
            raise _refusal(rejected) from rejected

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that belongs to the daemon; its failure ends the daemon."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    async def status(self) -> dict[str, object]:
        """Return what both roles tell about themselves."""
        return {
            "version": __version__,
            "network": self.network.name,
            "node_id": self.identity.node_id.hex(),
            "height": self.height,
            "synced": self._caught_up.is_set(),
            "datadir": str(self.home.parent),
            "chain_url": self.chain_url,
            "wallet": wallet_summary(self),
        }

    def _shared_methods(self) -> dict[str, Handler]:
        async def stop() -> object:
            # The answer leaves before the server closes: it lets begun requests finish.
            asyncio.get_running_loop().call_soon(self._stopping.set)
            return {"stopping": True}

        async def events(params: dict[str, Any]) -> object:
            wanted = read_params(params, EventsParams)
            if not 0 <= wanted.wait_seconds <= EVENTS_WAIT_SECONDS_MAX:
                raise InvalidParam(
                    "wait_seconds",
                    f"expected 0..{EVENTS_WAIT_SECONDS_MAX}, received {wanted.wait_seconds}",
                )
            found = await self.events.wait_after(wanted.after, seconds=wanted.wait_seconds)
            return {"events": found}

        return {"stop": without_params(stop), "events": events, **wallet_methods(self)}

    async def _close(self) -> None:
        with contextlib.ExitStack() as last:
            # The journal last, whatever the others do: nothing may be lost by a clumsy end.
            last.callback(self._journal.close)
            last.callback(self.chain.close)
            if self._metrics is not None:
                last.callback(self._metrics.close)
            for handle in self._deadlines.values():
                handle.cancel()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.peers.close()
        _log.info("daemon_stopped home=%s", self.home)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("task_failed", exc_info=task.exception())
            self._failure = self._failure or task.exception()
            self._stopping.set()

    # The chain

    async def _see_first_block(self) -> None:
        """Begin a new journal at the present tip: nothing of ours is older."""
        if self.recent_blocks:
            return
        tip = await self.chain.tip()
        self.post(ev.BlockAdded(height=tip.height, block_hash=tip.block_hash, txs=()))

    async def _follow(self) -> None:
        await self._check_caught_up()
        follower = ChainFollower(
            self.chain, self.recent_blocks, poll_seconds=self._options.poll_seconds
        )
        async for batch in follower.batches():
            for happened in batch:
                if isinstance(happened, Connected):
                    block = happened.block
                    self.post(
                        ev.BlockAdded(
                            height=block.height,
                            block_hash=block.block_hash,
                            txs=self.driver.relevant(block.txs),
                        )
                    )
                else:
                    self.post(ev.BlockRemoved(height=happened.block_ref.height))
                await asyncio.sleep(0)
            await self._check_caught_up()

    async def _check_caught_up(self) -> None:
        if self._caught_up.is_set():
            return
        with contextlib.suppress(ChainUnavailable):
            if self.recent_blocks[-1].height >= (await self.chain.tip()).height:
                self._caught_up.set()

    async def _network_once_caught_up(self) -> None:
        # With an old tip a client would refuse, and an LSP propose, the wrong heights.
        await self._caught_up.wait()
        await self.network_side()

    # Effects

    def _observe(self, record: AnyRecord) -> None:
        if self._is_started and isinstance(record, TreePublished):
            _log.warning(
                "tree_published factory=%s height=%d transactions=%s",
                record.attempt_id.hex(),
                record.height,
                ",".join(record.transactions),
            )
        self.payment_numbers.observe(self.events.observe(record), record)

    def _perform(self, effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.Send(node_id=node_id, message=message):
                self.peers.send(node_id, message)
            case fx.Disconnect(node_id=node_id, reason=reason):
                self.peers.disconnect(node_id, reason)
            case fx.SetDeadline(deadline=deadline, seconds=seconds):
                self._clear_deadline(deadline)
                self._deadlines[deadline] = asyncio.get_running_loop().call_later(
                    seconds, self._reach_deadline, deadline
                )
            case fx.ClearDeadline(deadline=deadline):
                self._clear_deadline(deadline)
            case fx.LookUpCoins():
                self.spawn(self._look_up(effect))
            case fx.Broadcast():
                self.spawn(self._broadcast(effect))
            case _:
                return perform_signing(
                    self._signer, lambda: secrets.token_bytes(ATTEMPT_ID_SIZE), effect
                )
        return ()

    def seconds_left(self, deadline: fx.Deadline) -> float | None:
        """Return how long a deadline is away, or None if there is none."""
        handle = self._deadlines.get(deadline)
        if handle is None:
            return None
        return max(0.0, round(handle.when() - asyncio.get_running_loop().time(), 1))

    def _clear_deadline(self, deadline: fx.Deadline) -> None:
        handle = self._deadlines.pop(deadline, None)
        if handle is not None:
            handle.cancel()

    def _reach_deadline(self, deadline: fx.Deadline) -> None:
        self._deadlines.pop(deadline, None)
        self.post(ev.DeadlineReached(deadline=deadline))

    async def _look_up(self, asked: fx.LookUpCoins) -> None:
        coins: list[tuple[OutPoint, Coin | None]] = [
            (outpoint, await self._coin(outpoint)) for outpoint in asked.outpoints
        ]
        self.post(ev.CoinsLookedUp(asked=asked, coins=tuple(coins)))

    async def _coin(self, outpoint: OutPoint) -> Coin | None:
        for _ in range(CHAIN_TRIES):
            try:
                return await self.chain.coin(outpoint)
            except ChainUnavailable as error:
                _log.warning("coin_lookup_failed outpoint=%s reason=%s", outpoint, error)
                await asyncio.sleep(CHAIN_RETRY_SECONDS)
        return None

    async def _broadcast(self, asked: fx.Broadcast) -> None:
        name, tx = asked.name, asked.tx
        try:
            await self.chain.broadcast(tx)
        except TxRefused as refused:
            _log.warning("tx_refused name=%s txid=%s reason=%s", name, tx.txid, refused.reason)
            self.post(ev.BroadcastRefused(asked=asked, reason=refused.reason))
        except ChainUnavailable as error:
            # What is owed is tried again with the next block.
            _log.warning("broadcast_failed name=%s txid=%s reason=%s", name, tx.txid, error)
        else:
            _log.info("tx_broadcast name=%s txid=%s", name, tx.txid)


def _refusal(rejected: Rejected) -> RpcFailure:
    not_found = rejected.code.endswith("not_found")
    return RpcFailure(
        rejected.code,
        str(rejected),
        retryable=rejected.retryable,
        exit_code=4 if not_found else 1,
    )


def connect_chain(options: ChainOptions) -> BitcoindChain:
    """Return the chain that the options name.

    Raises:
        OSError: If the password file cannot be read.
    """
    if options.cookie_file is not None:
        return BitcoindChain(options.url, cookie_path=options.cookie_file)
    if options.user is None or options.password_file is None:
        raise ValueError("chain: a cookie file, or a user and a password file")
    password = options.password_file.read_text(encoding="utf-8").strip()
    return BitcoindChain(options.url, user=options.user, password=password)
