"""BOLT 8 over TCP: a connection, and how to open one to a peer.

A connection exists only after its handshake: whoever holds a `NoiseConnection` knows who is at
the other end.
"""

import asyncio
import contextlib
import secrets
import socket
from typing import Final

from cromford.adapters.dialing import ATTEMPT_DELAY_SECONDS
from cromford.adapters.noise import (
    ACT_TWO_SIZE,
    HandshakeFailed,
    NodeIdentity,
    SessionKeys,
    initiate,
)
from cromford.adapters.noise_cipher import HEADER_SIZE, BadCiphertext, check_size
from cromford.crypto.keys import SECKEY_SIZE
from cromford.ports import ConnectionLost
from cromford.wire.ping import is_ping, is_pong

CONNECT_TIMEOUT_SECONDS: Final = 15.0
SEND_TIMEOUT_SECONDS: Final = 60.0  # A peer that reads nothing for this long is gone.
CLOSE_TIMEOUT_SECONDS: Final = 5.0  # How long a close waits for what was sent to leave.
KEEPALIVE_IDLE_SECONDS: Final = 60  # Silence after which the kernel asks whether the peer lives.
KEEPALIVE_INTERVAL_SECONDS: Final = 15
KEEPALIVE_PROBES: Final = 4


class NoiseConnection:
    """An encrypted stream of messages with one peer. Implements `ports.Connection`.

    One task may receive; any number may send. Cancelling either is safe.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keys: SessionKeys
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._keys = keys
        self._send_turn = asyncio.Lock()
        # A header that was decrypted before its body came, so that a cancelled `receive` does
        # not lose its place in the stream.
        self._body_size: int | None = None
        self._broken = False
        self.n_asked = 0  # Messages since the handshake, but for pings and pongs.

    @property
    def node_id(self) -> bytes:
        """The peer's 33-byte node key, proven by the handshake."""
        return self._keys.node_id

    async def send(self, *messages: bytes) -> None:
        """Send messages of at most 65,535 bytes each, empty ones included; they leave together.

        Raises:
            ValueError: If one is longer; none is sent then.
            ConnectionLost: If the peer is gone, or read nothing for `SEND_TIMEOUT_SECONDS`.
        """
        for message in messages:
            check_size(message)  # Before the first is encrypted: a key's next use cannot be undone.
        async with self._send_turn:
            if self._writer.is_closing():
                raise ConnectionLost("the connection is closed")
            sealed = b"".join([self._keys.sending.encrypt(message) for message in messages])
            try:
                self._writer.write(sealed)
                is_taken = not self._writer.transport.get_write_buffer_size()
                if is_taken and not self._writer.is_closing():
                    return  # The kernel has it all: nothing is waited for.
                async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                    await self._writer.drain()
            except TimeoutError as error:
                self._writer.transport.abort()
                raise ConnectionLost(
                    f"the peer read nothing for {SEND_TIMEOUT_SECONDS:.0f} seconds"
                ) from error
            except OSError as error:
                raise ConnectionLost(f"the stream broke: {error}") from error

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            ConnectionLost: If the peer closed, vanished, or broke the encryption.
        """
        if self._broken:
            raise ConnectionLost("the peer broke the encryption")
        try:
            if self._body_size is None:
                header = await self._reader.readexactly(HEADER_SIZE)
                self._body_size = self._keys.receiving.decrypt_header(header)
            body = await self._reader.readexactly(self._body_size)
            self._body_size = None
            message = self._keys.receiving.decrypt_body(body)
        except asyncio.IncompleteReadError as error:
            cut_short = bool(error.partial) or self._body_size is not None
            how = "in the middle of a message" if cut_short else "the stream"
            raise ConnectionLost(f"the peer closed {how}") from error
        except BadCiphertext as error:
            # Nothing after it can be trusted, so nothing after it is read, buffered or not.
            self._broken = True
            self._writer.transport.abort()
            raise ConnectionLost(f"the peer broke the encryption: {error}") from error
        except OSError as error:
            raise ConnectionLost(f"the stream broke: {error}") from error
        else:
            # A pong says that there is somebody, not that it wants anything.
            self.n_asked += not (is_ping(message) or is_pong(message))
            return message

    async def close(self) -> None:
        """Close the stream, after what was sent has left. Safe to call twice."""
        await close_stream(self._writer)


async def connect(
    host: str,
    port: int,
    *,
    node_id: bytes,
    identity: NodeIdentity,
    timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
) -> NoiseConnection:
    """Return a connection to the peer that proves `node_id` at this address.

    Raises:
        ValueError: If `node_id` is no pubkey.
        ConnectionLost: If nobody answers in time, or whoever answers is not that peer.
    """
    ephemeral_seckey = secrets.token_bytes(SECKEY_SIZE)
    act_one, awaiting = initiate(identity, responder_id=node_id, ephemeral_seckey=ephemeral_seckey)
    where = f"{host}:{port}"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(
                host, port, happy_eyeballs_delay=ATTEMPT_DELAY_SECONDS
            )
            keep_alive(writer)
            writer.write(act_one)
            act_three, keys = awaiting.finish(await reader.readexactly(ACT_TWO_SIZE))
            writer.write(act_three)
            await writer.drain()
        connection = NoiseConnection(reader, writer, keys)
        writer = None
    except TimeoutError as error:
        raise ConnectionLost(f"{where} did not answer in {timeout_seconds:g} seconds") from error
    except HandshakeFailed as error:
        raise ConnectionLost(f"{where} is not {node_id.hex()}: {error}") from error
    except asyncio.IncompleteReadError as error:
        raise ConnectionLost(
            f"{where} closed during the handshake: is its node id {node_id.hex()}?"
        ) from error
    except (OSError, RuntimeError) as error:  # No thread may be had to look the name up, either.
        raise ConnectionLost(f"{where}: {error}") from error
    else:
        return connection
    finally:
        if writer is not None:
            writer.transport.abort()
            await close_stream(writer)


async def close_stream(writer: asyncio.StreamWriter) -> None:
    """Close after the buffered bytes have left, or after `CLOSE_TIMEOUT_SECONDS` without them."""
    writer.close()
    # In a task of its own: every waiter of a stream awaits one and the same future, so a waiter
    # that is cancelled would cancel it for all the others.
    closing = asyncio.ensure_future(writer.wait_closed())
    closing.add_done_callback(_forget_outcome)
    try:
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_SECONDS)
    finally:
        # Also when whoever closes is cancelled: what has not left by then never will. Harmless
        # for a stream that is closed already.
        writer.transport.abort()


def _forget_outcome(closing: "asyncio.Future[None]") -> None:
    # How a closed stream ended interests nobody; unread, it would be logged as an error.
    if not closing.cancelled():
        closing.exception()


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let the kernel notice a peer that vanished without a word."""
    sock = writer.get_extra_info("socket")
    # A socket the peer has already reset refuses options; reading from it will say so.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
