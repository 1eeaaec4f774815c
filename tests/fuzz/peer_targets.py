"""Readers of what peers send: the handshake, the stream, every message, what is inside of them."""

import asyncio
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, Final

from cromford.adapters.noise import (
    ACT_ONE_SIZE,
    ACT_TWO_SIZE,
    HandshakeFailed,
    NodeIdentity,
    initiate,
    respond,
)
from cromford.adapters.noise_cipher import MessageCipher
from cromford.adapters.noise_tcp import NoiseConnection
from cromford.codec.reader import MalformedBytes
from cromford.crypto.keys import pubkey_of, shared_secret
from cromford.factory.terms import InvalidTerms, decode_terms
from cromford.ports import ConnectionLost
from cromford.protocol.journal.encoding import delivery_of
from cromford.wire.fields import decode_fields, encode_fields
from cromford.wire.messages import (
    MESSAGE_TYPES,
    Abort,
    Delivery,
    decode_message,
    encode_message,
)
from cromford.wire.ping import is_pong, pong_for
from cromford.wire.pool import Pool
from tests.fuzz.target import Target

OURS, THEIRS = NodeIdentity.from_seckey(b"\x01" * 32), NodeIdentity.from_seckey(b"\x02" * 32)
EPHEMERAL, THEIR_EPHEMERAL = b"\x03" * 32, b"\x04" * 32
CLASSES: Final = sorted(MESSAGE_TYPES, key=MESSAGE_TYPES.__getitem__)
# What is for people alone is read leniently: a byte that is no UTF-8 becomes a mark.
WITH_TEXT: Final = tuple(cls for cls in CLASSES if any(one.type is str for one in fields(cls)))


def read_message(data: bytes) -> None:
    """Read a message: it is written as it was read, but for odd types that nobody knows."""
    message = decode_message(data)
    if message is None:
        assert int.from_bytes(data[:2], "big") % 2
        return
    again = encode_message(message)
    assert again == data or len(again) < len(data) or isinstance(message, WITH_TEXT)
    read = decode_message(again)
    assert read == message or isinstance(message, WITH_TEXT)
    assert read is not None
    assert encode_message(read) == again


def read_message_body(data: bytes) -> None:
    """Read a message whose first byte chooses its kind."""
    kind = CLASSES[data[0] % len(CLASSES)] if data else Abort
    read_message(MESSAGE_TYPES[kind].to_bytes(2, "big") + b"\x01" + data[1:])


def read_inside(data: bytes) -> None:
    """Read what travels inside of messages, and is kept: a pool of nonces, a payment's payload."""
    delivery = delivery_of(data)
    if delivery is not None:
        assert decode_fields(Delivery, encode_fields(delivery)) == delivery
    pool = decode_fields(Pool, data)
    assert len(encode_fields(pool)) <= len(data)


def read_ping(data: bytes) -> None:
    """Answer a ping with no more than it may ask for."""
    pong = pong_for(b"\x00\x12" + data)
    assert pong is None or (is_pong(pong) and len(pong) < 65_536)


def read_terms(data: bytes) -> None:
    """Read what a factory is agreed to be; its hash is of one encoding."""
    terms = decode_terms(data)
    assert decode_terms(terms.encode()) == terms
    assert terms.encode() == data or len(terms.encode()) < len(data)


def read_handshake(data: bytes) -> None:
    """Take bytes for an act, which the first byte chooses.

    After 3 it is an act three by whoever made the first two honestly: what it claims to be its
    node id authenticates, whatever it is.
    """
    which, act = data[0] % 4 if data else 0, data[1:]
    if which == 0:
        respond(OURS, act, ephemeral_seckey=EPHEMERAL)
        return
    act_one, awaiting_two = initiate(
        THEIRS, responder_id=OURS.node_id, ephemeral_seckey=THEIR_EPHEMERAL
    )
    if which == 1:
        awaiting_two.finish(act)
        return
    act_two, awaiting_three = respond(OURS, act_one, ephemeral_seckey=EPHEMERAL)
    assert (len(act_one), len(act_two)) == (ACT_ONE_SIZE, ACT_TWO_SIZE)
    keys = awaiting_three.finish(act if which == 2 else _act_three(awaiting_two, act_two, act))
    assert keys.node_id == pubkey_of(b"\x02" * 32)


def _act_three(awaiting_two: Any, act_two: bytes, claimed: bytes) -> bytes:
    """Return an act three that claims a node id, by whoever has the seckey of `THEIRS`."""
    transcript = awaiting_two._transcript
    ephemeral = act_two[1:34]
    transcript.mix(ephemeral)
    transcript.mix_key(shared_secret(ephemeral, THEIR_EPHEMERAL))
    transcript.open(act_two[34:], act=2, reason="bad_tag")
    sealed = transcript.seal(claimed)
    transcript.mix_key(THEIRS.ecdh(ephemeral))
    return bytes(1) + bytes(sealed + transcript.seal(b""))


def read_stream(data: bytes) -> None:
    """Receive from a connection until it is lost, as it must be.

    The first byte says whether whoever sends has the keys; then what it sends are messages of
    65,535 bytes and less, each behind its length, up to where the bytes end.
    """
    assert sum(map(len, _run(_received(data)))) <= len(data)


async def _received(data: bytes) -> list[bytes]:
    loop: Any = SimpleNamespace(get_debug=lambda: False)
    reader = asyncio.StreamReader(loop=loop)
    sent = data[1:]
    if data[:1] == b"\x01":
        sent = _sealed(sent)
    reader.feed_data(sent)
    reader.feed_eof()
    transport = SimpleNamespace(abort=lambda: None)
    writer: Any = SimpleNamespace(transport=transport)
    keys: Any = SimpleNamespace(receiving=_cipher(), sending=_cipher(), node_id=THEIRS.node_id)
    connection = NoiseConnection(reader, writer, keys)
    received: list[bytes] = []
    try:
        while True:
            received.append(await connection.receive())
    except ConnectionLost:
        return received


def _cipher() -> MessageCipher:
    return MessageCipher(key=b"\x05" * 32, chaining_key=b"\x06" * 32)


def _sealed(data: bytes) -> bytes:
    """Return messages, each of which has its length before it, as a peer would send them."""
    cipher, sent, at = _cipher(), b"", 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        header = cipher._seal(data[at : at + 2])
        body = data[at + 2 : at + 2 + size]
        sent += header + (cipher._seal(body) if len(body) == size else body)
        at += 2 + size
    return sent


def _run(coroutine: Any) -> Any:
    """Run what waits for nothing: all that could come is there."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits for bytes after the end")


TARGETS: Final = (
    Target(name="message", read=read_message, errors=(MalformedBytes,)),
    Target(name="message_body", read=read_message_body, errors=(MalformedBytes,)),
    Target(name="inside", read=read_inside, errors=(MalformedBytes,)),
    Target(name="ping", read=read_ping, errors=(MalformedBytes,), size_max=64),
    Target(name="terms", read=read_terms, errors=(MalformedBytes, InvalidTerms)),
    Target(name="handshake", read=read_handshake, errors=(HandshakeFailed,), size_max=128),
    Target(name="stream", read=read_stream, errors=(), size_max=2048),
)
