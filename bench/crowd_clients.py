"""Some of many clients, in one process, at the port of an LSP that is another.

Each is the production role over its driver, with its connection, its cipher and its keys; its
journal is in memory, and all of them read the chain through one pair of eyes.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from bench.sizes import keychain_of

from cromford import effects as fx
from cromford.adapters.bitcoind import BitcoindChain
from cromford.adapters.memory import MemoryJournal
from cromford.adapters.noise import NodeIdentity
from cromford.adapters.noise_tcp import connect
from cromford.adapters.peer_address import PeerAddress
from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.crypto.keys import sha256
from cromford.daemon.clientd import CLIENT_ROLE
from cromford.daemon.driver import Driver
from cromford.daemon.peers import Peers
from cromford.daemon.signing import derive_keys, perform_signing
from cromford.invoice.bolt11 import sign_invoice
from cromford.invoice.invoice import Invoice
from cromford.ports import Block, Connection, ConnectionLost, TxRefused
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import min_final_cltv_expiry_delta
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientConfig, ClientState
from cromford.protocol.opening.verify import Verdict, verify_attempt
from cromford.protocol.policy import ClientPolicy
from cromford.signing.signer import Signer
from cromford.wallet.account import Account
from cromford.wire.ping import is_ping, is_pong

DRAWN_SIZE: Final = 32
INVOICE_SECONDS: Final = 3600


class Eyes:
    """What all clients see of the chain; every block and every coin is asked for once."""

    def __init__(self, chain: BitcoindChain) -> None:
        self.chain = chain
        self._coins: dict[OutPoint, asyncio.Task[Coin | None]] = {}

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a coin as it was when somebody first asked for it."""
        if outpoint not in self._coins:
            self._coins[outpoint] = asyncio.create_task(self.chain.coin(outpoint))
        return await self._coins[outpoint]

    async def blocks_from(self, height: int) -> list[Block]:
        """Return the blocks of the active chain from a height on."""
        found: list[Block] = []
        while (block_hash := await self.chain.block_hash(height + len(found))) is not None:
            found.append(await self.chain.block(block_hash))
        return found


class Turns:
    """Lets one message through in each turn of the loop.

    Each client would be a process of its own; here one that checks its branch keeps all waiting.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Return when it is one's turn."""
        async with self._turn:
            await asyncio.sleep(0)

    def others(self) -> asyncio.Lock:
        """Return what is held while others have theirs."""
        return self._turn


class InTurn:
    """A connection whose messages come in turn with all others'. Implements `ports.Connection`.

    Pings and pongs need none. Where a hundred branches are checked before one's own, the LSP would
    hear nothing for minutes, on cores that others want too, and hang up.
    """

    def __init__(self, connection: Connection, turns: Turns) -> None:
        self._connection = connection
        self._turns = turns
        self._waiting: asyncio.Queue[bytes | ConnectionLost] = asyncio.Queue()
        self._ready: asyncio.Queue[bytes | ConnectionLost] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._take_turns())]

    @property
    def node_id(self) -> bytes:
        """Who is at the other end."""
        return self._connection.node_id

    async def send(self, *messages: bytes) -> None:
        """Send messages, in order."""
        await self._connection.send(*messages)

    async def receive(self) -> bytes:
        """Return the next message, once it is its turn.

        Raises:
            ConnectionLost: After the last one.
        """
        message = await self._ready.get()
        if isinstance(message, ConnectionLost):
            raise message
        return message

    async def close(self) -> None:
        """Close the connection; what was read before has its turn still."""
        await self._connection.close()

    async def _read(self) -> None:
        while True:
            try:
                message = await self._connection.receive()
            except ConnectionLost as error:
                self._waiting.put_nowait(error)
                return
            needs_none = is_ping(message) or is_pong(message)
            (self._ready if needs_none else self._waiting).put_nowait(message)

    async def _take_turns(self) -> None:
        message: bytes | ConnectionLost = b""
        while not isinstance(message, ConnectionLost):
            message = await self._waiting.get()
            await self._turns.take()
            self._ready.put_nowait(message)


class CrowdClient:
    """One of them."""

    def __init__(
        self, number: int, lsp: PeerAddress, policy: ClientPolicy, eyes: Eyes, turns: Turns
    ) -> None:
        keychain = keychain_of("crowd", secrets.token_hex(DRAWN_SIZE), number)
        self._lsp = lsp
        self._eyes = eyes
        self._turns = turns
        self._identity = NodeIdentity(node_id=keychain.node_id, ecdh=keychain.ecdh)
        self._signer = Signer(keychain)
        self._tasks: set[asyncio.Task[None]] = set()
        self._peers = Peers(self.handle)
        config = ClientConfig(
            network=REGTEST,
            node_id=keychain.node_id,
            lsp_node_id=lsp.node_id,
            policy=policy,
            account=Account(keychain.wallet_account),
        )
        self._driver: Driver[ClientState] = Driver(
            CLIENT_ROLE, client_role.new_client(config), MemoryJournal(), self._perform
        )
        self._driver.start()

    @property
    def state(self) -> ClientState:
        """What it knows."""
        return self._driver.state

    @property
    def attempt(self) -> ClientAttempt | None:
        """The factory that it began last."""
        return next(reversed(list(self.state.attempts.values())), None)

    @property
    def is_complete(self) -> bool:
        """Whether it holds its whole way out."""
        return self.attempt is not None and isinstance(self.attempt.stage, Complete)

    @property
    def is_ready(self) -> bool:
        """Whether its channel can be paid through."""
        return any(link.is_open and link.has_session for link in self.state.book.links.values())

    @property
    def is_joined(self) -> bool:
        """Whether it waits in the lobby."""
        return self.state.joining is not None and self.state.joining.is_accepted

    @property
    def is_paid(self) -> bool:
        """Whether every invoice of its was paid, and nothing is on its way."""
        book = self.state.book
        is_quiet = not any(link.state.htlcs for link in book.links.values())
        return is_quiet and all(invoice.paid_by is not None for invoice in book.invoices.values())

    @property
    def min_depth(self) -> int:
        """How deep the funding of its factory has to be; 0 if it is in none."""
        return 0 if self.attempt is None else self.attempt.terms.min_depth

    @property
    def wallet_sat(self) -> int:
        """What is in its wallet, in blocks."""
        return sum(
            coin.txout.amount_sat
            for coin in self.state.wallet.coins.values()
            if coin.spent_height is None
        )

    def handle(self, event: ev.Event) -> None:
        """Handle one event."""
        self._driver.handle(event)

    def see(self, block: Block) -> None:
        """Handle a block."""
        self.handle(
            ev.BlockAdded(
                height=block.height,
                block_hash=block.block_hash,
                txs=self._driver.relevant(block.txs),
            )
        )

    def join(self, capacity_sat: int) -> None:
        """Ask for a channel."""
        self.handle(ev.JoinRequested(capacity_sat=capacity_sat, capacity_least_sat=capacity_sat))

    def leave(self) -> None:
        """Leave the factory by what it holds.

        Raises:
            AssertionError: If it is in none.
        """
        if self.attempt is None:
            raise AssertionError("it is in no factory")
        self.handle(ev.ExitRequested(attempt_id=self.attempt.attempt_id))

    async def come(self) -> None:
        """Connect to the LSP, and stay."""
        connection = await connect(
            self._lsp.host, self._lsp.port, node_id=self._lsp.node_id, identity=self._identity
        )
        self._spawn(self._peers.run(InTurn(connection, self._turns)))

    async def go(self) -> None:
        """Disconnect; what is still on its way is waited for."""
        await self._peers.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Return once the node has answered all that it was asked."""
        while asked := [task for task in self._tasks if task.get_name() == _ASKED]:
            await asyncio.wait(asked)

    def invoice(self, amount_msat: int) -> str:
        """Return an invoice of this client's."""
        preimage, payment_secret = (secrets.token_bytes(DRAWN_SIZE) for _ in range(2))
        (link,) = self.state.book.links.values()
        now = int(time.time())
        invoice = Invoice(
            network=REGTEST,
            payee=self.state.config.node_id,
            amount_msat=amount_msat,
            payment_hash=sha256(preimage),
            payment_secret=payment_secret,
            description="crowd",
            created_at=now,
            expiry_seconds=INVOICE_SECONDS,
            min_final_cltv_expiry_delta=min_final_cltv_expiry_delta(link, self.state.chain),
            route_hint=None,
        )
        text = sign_invoice(invoice, self._signer.sign_node)
        self.handle(
            ev.InvoiceRequested(
                preimage=preimage,
                payment_secret=payment_secret,
                amount_msat=amount_msat,
                description=invoice.description,
                expires_at=now + INVOICE_SECONDS,
                expiry_seconds=INVOICE_SECONDS,
                text=text,
            )
        )
        return text

    async def verdicts(self) -> tuple[Verdict, ...]:
        """Return every check of its branch, made anew, as `client verify` makes it.

        Raises:
            AssertionError: If it is in no factory.
        """
        attempt = self.attempt
        if attempt is None:
            raise AssertionError("it is in no factory")
        coin = await self._eyes.coin(attempt.funding_outpoint)
        derived = derive_keys(self._signer, self.state, attempt)
        return verify_attempt(self.state, attempt, coin, derived)

    def _perform(self, effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.Send(node_id=node_id, message=message):
                self._peers.send(node_id, message)
            case fx.Disconnect(reason=reason):
                raise AssertionError(f"a client hangs up: {reason}")
            case fx.LookUpCoins():
                self._spawn(self._look_up(effect), name=_ASKED)
            case fx.Broadcast(tx=tx):
                self._spawn(self._broadcast(tx), name=_ASKED)
            case fx.SetDeadline() | fx.ClearDeadline() | fx.LookUpSpenders():
                pass  # Nobody is late here, and nobody is in a hurry.
            case (
                fx.PublishBumped()
                | fx.HandOverKeys()
                | fx.KeepKeys()
                | fx.DropOffered()
                | fx.LookUpKeys()
                | fx.PrepareSeats()
                | fx.SignForSeats()
            ):
                raise AssertionError(f"{type(effect).__name__}: nobody moves out, or is stuck")
            case _:
                return perform_signing(
                    self._signer, lambda: secrets.token_bytes(DRAWN_SIZE), effect
                )
        return ()

    async def _look_up(self, asked: fx.LookUpCoins) -> None:
        coins = [(outpoint, await self._eyes.coin(outpoint)) for outpoint in asked.outpoints]
        self.handle(ev.CoinsLookedUp(asked=asked, coins=tuple(coins)))

    async def _broadcast(self, tx: Tx) -> None:
        # What is too early is asked for again with the next block.
        with contextlib.suppress(TxRefused):
            await self._eyes.chain.broadcast(tx)

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str = "") -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_ASKED: Final = "asked"


async def until_all(
    clients: Iterable[CrowdClient],
    holds: Callable[[CrowdClient], bool],
    *,
    seconds: float,
    alive: Callable[[], None],
) -> None:
    """Return once something holds for every client.

    Raises:
        TimeoutError: If it does not in time; it says for how many, and what one was refused.
    """
    give_up = time.monotonic() + seconds
    left = list(clients)
    while left := [client for client in left if not holds(client)]:
        alive()
        if time.monotonic() > give_up:
            one = left[0]
            told = one.state.refusal or (one.attempt.aborted if one.attempt else "")
            raise TimeoutError(f"{len(left)} clients still wait; one of them heard: {told}")
        await asyncio.sleep(POLL_SECONDS)


POLL_SECONDS: Final = 0.05
