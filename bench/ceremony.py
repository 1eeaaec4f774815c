"""A whole ceremony in one process: the production roles over a queue, each on its own stopwatch.

The LSP's row and the clients' rows hold everything their daemons do for a ceremony but sockets,
ciphers and the disk: messages decoded and encoded, records encoded, decisions, signatures.
"""

import gc
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from bench.memory import OwnMemory
from bench.op import Work
from bench.rows import Stopwatch
from bench.sizes import CAPACITY_SAT, TIP_HASH, TIP_HEIGHT, Size, keychain_of

from bench import floor
from cromford import effects as fx
from cromford.adapters.memory import MemoryJournal
from cromford.bitcoin.block import Coin
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.daemon.clientd import CLIENT_ROLE
from cromford.daemon.driver import Driver, Role
from cromford.daemon.lspd import LSP_ROLE
from cromford.daemon.signing import perform_signing
from cromford.ports import Store
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol.journal.client_state import ClientConfig
from cromford.signing.keychain import Keychain
from cromford.signing.signer import Signer
from cromford.wallet.account import RECEIVE, Account
from cromford.wire import messages as m

LSP: Final = "the LSP's CPU in a ceremony"
CLIENT: Final = "one client's CPU in a ceremony"
EVERYBODY: Final = "a ceremony, everybody's CPU"
_BEFORE: Final = "keys and nonces of the LSP"
_AFTER: Final = "acknowledgements and funding"


class Participant:
    """One role over its driver.

    `outbox` holds what it sent, to whom and the bytes; `prepared` the fresh keys of an attempt;
    `published` what it wanted in a block.
    """

    def __init__(
        self,
        keychain: Keychain,
        role: Role[Any],
        state: Any,  # noqa: ANN401 - either role's
        look_up: Callable[[OutPoint], Coin | None],
        store: Store,
    ) -> None:
        self.node_id = keychain.node_id
        self.outbox: deque[tuple[bytes, bytes]] = deque()
        self.prepared: list[ev.Event] = []
        self.published: dict[Txid, Tx] = {}
        self._signer = Signer(keychain)
        self.memory = OwnMemory()
        self._look_up = look_up
        self._n_drawn = 0
        self.driver: Driver[Any] = Driver(role, state, store, self._perform)
        with self.memory.in_use():
            self.driver.start()

    def handle(self, event: ev.Event) -> None:
        """Handle one event."""
        with self.memory.in_use():
            self.driver.handle(event)

    def receive(self, sender: bytes, data: bytes) -> None:
        """Handle a message's bytes."""
        message = m.decode_message(data)
        if message is not None:
            self.handle(ev.MessageReceived(node_id=sender, message=message))

    def _perform(self, effect: fx.Performed) -> Iterable[ev.Event]:
        match effect:
            case fx.Send(node_id=node_id, message=message):
                self.outbox.append((node_id, m.encode_message(message)))
                return ()
            case fx.LookUpCoins(outpoints=outpoints):
                coins = tuple((outpoint, self._look_up(outpoint)) for outpoint in outpoints)
                return (ev.CoinsLookedUp(asked=effect, coins=coins),)
            case fx.PrepareAttempt():
                # Held back: fresh keys and nonces are not part of the LSP's row.
                self.prepared += perform_signing(self._signer, self._draw_attempt_id, effect)
                return ()
            case fx.Disconnect(reason=reason):
                raise AssertionError(reason)
            case fx.Broadcast(tx=tx):
                self.published[tx.txid] = tx
                return ()
            case fx.SetDeadline() | fx.ClearDeadline() | fx.LookUpSpenders() | fx.PublishBumped():
                return ()
            case (
                fx.HandOverKeys()
                | fx.KeepKeys()
                | fx.DropOffered()
                | fx.LookUpKeys()
                | fx.PrepareSeats()
                | fx.SignForSeats()
            ):
                raise AssertionError("nobody moves out of what is being built")
            case _:
                return perform_signing(self._signer, self._draw_attempt_id, effect)

    def _draw_attempt_id(self) -> bytes:
        self._n_drawn += 1
        return sha256(self.node_id + bytes((self._n_drawn,)))


class World:
    """An LSP with a coin, and clients that wait in its lobby; each with a store of its own."""

    def __init__(
        self, size: Size, run: int, open_store: Callable[[], Store] = MemoryJournal
    ) -> None:
        self._open_store = open_store
        keychain = keychain_of(size, run, "LSP")
        self.lsp = Participant(
            keychain, LSP_ROLE, size.new_lsp(keychain), lambda _: None, open_store()
        )
        coin_tx = Tx(
            version=2,
            inputs=(
                TxIn(outpoint=OutPoint(txid=Txid(sha256(b"coin")), vout=run), nsequence=0xFFFFFFFF),
            ),
            outputs=(
                TxOut(
                    amount_sat=3 * size.n_clients * CAPACITY_SAT,
                    script_pubkey=self.lsp.driver.state.wallet.next_script(RECEIVE),
                ),
            ),
        )
        coin = Coin(outpoint=coin_tx.outpoint(0), txout=coin_tx.outputs[0], confirmations=1)
        self.lsp.handle(_block(coin_tx))
        self.clients = [
            self._client(size, keychain_of(size, run, "client", i), {coin.outpoint: coin}.get)
            for i in range(size.n_clients)
        ]
        for client in self.clients:
            self.lsp.handle(ev.ConnectionOpened(node_id=client.node_id))
            self.deliver_to_clients(_untimed)
            self.deliver_to_lsp(_untimed)

    def deliver_to_clients(self, deliver: Callable[..., None]) -> None:
        """Deliver all that the LSP sent."""
        by_id = {client.node_id: client for client in self.clients}
        while self.lsp.outbox:
            node_id, data = self.lsp.outbox.popleft()
            deliver(by_id[node_id], self.lsp.node_id, data)

    def deliver_to_lsp(self, deliver: Callable[..., None]) -> None:
        """Deliver all that the clients sent."""
        for client in self.clients:
            while client.outbox:
                _, data = client.outbox.popleft()
                deliver(self.lsp, client.node_id, data)

    def _client(
        self, size: Size, keychain: Keychain, look_up: Callable[[OutPoint], Coin | None]
    ) -> Participant:
        config = ClientConfig(
            network=REGTEST,
            node_id=keychain.node_id,
            lsp_node_id=self.lsp.node_id,
            policy=size.client_policy,
            account=Account(keychain.wallet_account),
        )
        client = Participant(
            keychain, CLIENT_ROLE, client_role.new_client(config), look_up, self._open_store()
        )
        client.handle(_block())
        client.handle(ev.ConnectionOpened(node_id=self.lsp.node_id))
        client.handle(ev.JoinRequested(capacity_sat=CAPACITY_SAT, capacity_least_sat=CAPACITY_SAT))
        return client


def works(size: Size) -> dict[str, Work]:
    """Return the operations of each row's floor; `CLIENT`'s are those of all clients."""
    return {
        LSP: floor.lsp(size.shape),
        CLIENT: floor.clients(size.shape),
        EVERYBODY: floor.ceremony(size.shape),
    }


def run_once(size: Size, run: int) -> dict[str, float]:
    """Return the milliseconds of the LSP, of the mean client, and of everybody together.

    Raises:
        AssertionError: If the ceremony was over before the funding transaction was signed.
    """
    world = World(size, run)
    watch = Stopwatch()

    def timed(name: str, to: Participant, sender: bytes, data: bytes) -> None:
        with watch.running(name):
            to.receive(sender, data)

    gc.collect()
    with watch.running(_BEFORE):
        world.lsp.handle(ev.BuildRequested(min_clients=size.n_clients, max_clients=size.n_clients))
    with watch.running(LSP):
        world.lsp.handle(world.lsp.prepared.pop())
    for lsp_name in (LSP, LSP, _AFTER):
        world.deliver_to_clients(partial(timed, CLIENT))
        world.deliver_to_lsp(partial(timed, lsp_name))
    (attempt,) = world.lsp.driver.state.attempts.values()
    if attempt.funded is None:
        raise AssertionError(f"the ceremony ended in {attempt.stage.label}: {attempt.aborted}")
    return {
        LSP: watch.spent_ms[LSP],
        CLIENT: watch.spent_ms[CLIENT] / size.n_clients,
        EVERYBODY: sum(watch.spent_ms.values()),
    }


def _block(*txs: Tx) -> ev.BlockAdded:
    return ev.BlockAdded(height=TIP_HEIGHT, block_hash=TIP_HASH, txs=txs)


def _untimed(to: Participant, sender: bytes, data: bytes) -> None:
    to.receive(sender, data)
