"""The connections of a daemon: one for each peer, messages out in order, events in."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from cromford.codec.reader import MalformedBytes
from cromford.daemon.budgets import Budgets
from cromford.daemon.displaced import Displaced
from cromford.daemon.driver import Undecided
from cromford.daemon.liveness import Liveness
from cromford.daemon.offences import Offences
from cromford.daemon.turns import Turns
from cromford.ports import Connection, ConnectionLost
from cromford.protocol import events as ev
from cromford.wire.messages import Message, decode_message, encode_message
from cromford.wire.ping import is_ping, is_pong, ping, pong_for

# A peer that does not read is disconnected at this many. What goes again in a new connection leaves
# at once: 230 messages for each channel that is full both ways, and a client may have several.
OUTBOX_MESSAGES_MAX: Final = 4_096
TOGETHER_SIZE: Final = 16 * 1024  # Bytes that leave together; the message that reaches it is last.

# Of the event loop, for bytes the kernel has: they are read, become a message, and ask for a turn.
TURNS_TO_READ: Final = 5
# In each everybody who waits is heard once. More than what one says at once in a full channel, and
# few enough that nobody who says something all the time holds a deadline up.
HEARD_ROUNDS_MAX: Final = 256

CONTESTED_HINT: Final = "two daemons have this name, and each throws out the other"

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Peer:
    connection: Connection
    # Ping and pong are bytes. A message becomes bytes when it leaves: a thousand proposals that
    # wait to be sent share the keys that are in each of them, and as bytes are 48 kB each.
    outbox: asyncio.Queue[bytes | Message] = field(
        default_factory=lambda: asyncio.Queue(OUTBOX_MESSAGES_MAX)
    )
    is_full: bool = False  # A message was lost, so none may follow: the peer would misread it.
    owes_pong: bool = False  # One waits in the outbox: many pings make no more than that.
    parting: asyncio.Event = field(default_factory=asyncio.Event)  # We hung up.
    is_ours: bool = False  # We hung up, for a reason that is not the peer's doing.
    is_let_go: bool = False  # It was decided to hang up, and is done once that is durable.
    waits_for_us: bool = False  # A message of it has arrived, and had no turn yet.


def _taken_together(first: bytes | Message, outbox: asyncio.Queue[bytes | Message]) -> list[bytes]:
    """Return the bytes of the oldest message, and of what waits behind it and may go along."""
    together = [_bytes_of(first)]
    size = len(together[0])
    while size < TOGETHER_SIZE and not outbox.empty():
        together.append(_bytes_of(outbox.get_nowait()))
        size += len(together[-1])
    return together


def _bytes_of(message: bytes | Message) -> bytes:
    return message if isinstance(message, bytes) else encode_message(message)


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Return when something happens, or after some seconds without it."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _received(node_id: bytes, message: Message) -> ev.Event:
    return ev.MessageReceived(node_id=node_id, message=message)


class Peers:
    """Runs connections and tells what comes from them, each peer's messages in their turn.

    Args:
        post: Takes the events, in order. Where it raises `Undecided`, the peer has to go.
        budgets: What each peer may ask of us; None where there is one peer, chosen by us.
        clock: Seconds, for the budgets.
        pause: Waits for an event, at most some seconds.
        heard: Returns the event of a message: what may be in none stays behind.
    """

    def __init__(
        self,
        post: Callable[[ev.Event], None],
        budgets: Budgets | None = None,
        *,
        heard: Callable[[bytes, Message], ev.Event] = _received,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[asyncio.Event, float], Awaitable[None]] = wait_for,
    ) -> None:
        self._post = post
        self._budgets = budgets
        self._clock = clock
        self._pause = pause
        self._heard = heard
        self._turns = Turns()
        self._peers: dict[bytes, _Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._displaced = Displaced()
        self._offences = Offences()

    async def run(self, connection: Connection) -> None:
        """Serve one connection until it ends. A newer one of the same peer replaces it."""
        node_id = connection.node_id
        if self._offences.keeps_out(node_id, now=asyncio.get_running_loop().time()):
            _log.info("peer_kept_out node_id=%s", node_id.hex())
            await connection.close()
            return
        self._replace(node_id)
        peer = _Peer(connection)
        self._peers[node_id] = peer
        _log.info("peer_connected node_id=%s", node_id.hex())
        liveness = Liveness(lambda: self._queue(peer, ping()))
        writer = asyncio.create_task(self._write(peer))
        listener = asyncio.create_task(self._await_silence(peer, liveness))
        try:
            self._post(ev.ConnectionOpened(node_id=node_id))
            await self._read(peer, liveness)
        except ConnectionLost as error:
            _log.info("peer_disconnected node_id=%s reason=%s", node_id.hex(), error)
        except Undecided:
            # Why is our own affair: the peer sees its connection end, and no more.
            peer.is_ours = True
            seconds = self._offences.note(node_id, now=asyncio.get_running_loop().time())
            _log.warning("peer_let_go node_id=%s kept_out_seconds=%g", node_id.hex(), seconds)
        finally:
            writer.cancel()
            listener.cancel()
            # Not awaited themselves: their cancellation could not be told from our own.
            await asyncio.wait({writer, listener})
            await connection.close()
            self._forget(node_id, peer)

    def send(self, node_id: bytes, message: Message) -> None:
        """Queue a message. Nothing happens if the peer is not connected."""
        peer = self._peers.get(node_id)
        if self._budgets is not None:
            self._budgets.answered(node_id, message, now=self._clock())
        if peer is not None:
            self._queue(peer, message)

    def let_go(self, node_id: bytes) -> None:
        """Hear nothing more of a peer in this connection: we are about to close it.

        What it said after that is for a peer that goes on, and what came before was not taken.
        """
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.is_let_go = True

    def disconnect(self, node_id: bytes, reason: str, *, is_ours: bool) -> None:
        """Close a peer's connection. Harmless if there is none.

        Args:
            node_id: The peer.
            reason: Why, for the log.
            is_ours: Whether that is not the peer's doing.
        """
        peer = self._peers.get(node_id)
        if peer is not None:
            self._drop(peer, reason, is_ours=is_ours)

    def disconnect_all(self, reason: str) -> None:
        """Close every connection for a reason of our own; peers may connect again."""
        for peer in [*self._peers.values()]:
            self._drop(peer, reason, is_ours=True)

    def connection_of(self, node_id: bytes) -> object | None:
        """Return what stands for a peer's present connection, and for no other; None if none."""
        return self._peers.get(node_id)

    @property
    def n_connected(self) -> int:
        """How many peers are connected."""
        return len(self._peers)

    @property
    def contested(self) -> tuple[bytes, ...]:
        """The peers whose connections keep displacing one another."""
        return self._displaced.contested(now=asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Close every connection."""
        for peer in list(self._peers.values()):
            await peer.connection.close()

    async def heard(self) -> None:
        """Return once every message had its turn that has arrived, but those beyond a budget.

        Strangers are not waited for: none of them can be late for anything.
        """
        for _ in range(TURNS_TO_READ):
            await asyncio.sleep(0)
        for _ in range(HEARD_ROUNDS_MAX):
            if not any(
                peer.waits_for_us and not self._is_stranger(node_id)
                for node_id, peer in self._peers.items()
            ):
                return
            await self._turns.take(is_stranger=False)

    def _replace(self, node_id: bytes) -> None:
        older = self._peers.get(node_id)
        if older is None:
            return
        if self._displaced.note(node_id, now=asyncio.get_running_loop().time()):
            _log.warning("peer_contested node_id=%s hint=%s", node_id.hex(), CONTESTED_HINT)
        self._forget(node_id, older)
        # Not waited for: a line that broke takes seconds, and a newer one may come meanwhile.
        self._spawn(older.connection)

    def _forget(self, node_id: bytes, peer: _Peer) -> None:
        if self._peers.get(node_id) is peer:
            del self._peers[node_id]
            self._post(ev.ConnectionClosed(node_id=node_id, is_ours=peer.is_ours))

    def _queue(self, peer: _Peer, message: bytes | Message) -> None:
        if peer.is_full:
            return
        try:
            peer.outbox.put_nowait(message)
        except asyncio.QueueFull:
            peer.is_full = True
            self._drop(peer, "it does not read")

    def _drop(self, peer: _Peer, reason: str, *, is_ours: bool = False) -> None:
        node_id = peer.connection.node_id
        _log.info("peer_dropped node_id=%s reason=%s", node_id.hex(), reason)
        if not peer.parting.is_set():  # What came first ended it.
            peer.is_ours = is_ours
        peer.parting.set()
        self._spawn(peer.connection)

    async def _await_silence(self, peer: _Peer, liveness: Liveness) -> None:
        await liveness.gone()
        self._drop(peer, "it does not answer")

    async def _read(self, peer: _Peer, liveness: Liveness) -> None:
        node_id = peer.connection.node_id
        while True:
            data = await peer.connection.receive()
            liveness.note()
            await self._wait_for_turn(peer, data)
            if self._peers.get(node_id) is not peer or peer.parting.is_set():
                return
            if not peer.is_let_go:
                self._hear(peer, data)
            # Who waits in a lobby says nothing more for hours; what it said need not stay here.
            del data

    def _hear(self, peer: _Peer, data: bytes) -> None:
        node_id = peer.connection.node_id
        try:
            if is_ping(data):
                self._answer(peer, pong_for(data))
                return
            message = decode_message(data)
        except MalformedBytes as error:
            self._post(ev.MessageMalformed(node_id=node_id, reason=str(error)))
            return
        if message is not None:
            self._post(self._heard(node_id, message))

    def _answer(self, peer: _Peer, pong: bytes | None) -> None:
        if pong is not None and not peer.owes_pong:
            peer.owes_pong = True
            self._queue(peer, pong)

    async def _wait_for_turn(self, peer: _Peer, data: bytes) -> None:
        """Return when a message of this peer may be handled; until then it is not read further."""
        node_id = peer.connection.node_id
        if self._budgets is not None:
            # Its own doing, so nobody waits for it here.
            since = self._clock()
            while wait := self._budgets.wait_seconds(node_id, data, now=self._clock(), since=since):
                await self._pause(peer.parting, wait)
                if peer.parting.is_set():
                    return
            self._budgets.charge(node_id, data, now=self._clock(), since=since)
        peer.waits_for_us = True
        try:
            await self._turns.take(is_stranger=self._is_stranger(node_id))
        finally:
            peer.waits_for_us = False

    def _is_stranger(self, node_id: bytes) -> bool:
        return self._budgets is not None and not self._budgets.is_owner(node_id)

    async def _write(self, peer: _Peer) -> None:
        while True:
            first = await peer.outbox.get()
            try:
                together = _taken_together(first, peer.outbox)
                await peer.connection.send(*together)
            except ConnectionLost:
                return  # The reader notices too, and reports it.
            except Exception:  # noqa: BLE001 - whatever it is, the line is dead
                # A peer that hears nothing more would wait for ever: its connection has to end.
                _log.exception("peer_write_failed node_id=%s", peer.connection.node_id.hex())
                await peer.connection.close()
                return
            if any(is_pong(data) for data in together):
                peer.owes_pong = False

    def _spawn(self, connection: Connection) -> None:
        task = asyncio.create_task(connection.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
