"""BOLT 8: the handshake, without any I/O.

The handshake is `Noise_XK_secp256k1_ChaChaPoly_SHA256`: the initiator knows the responder's node
id, the responder learns the initiator's in the third act. Each act is a function from bytes
received to bytes to send, and each step between two acts is a type of its own:

    initiate -> AwaitingActTwo.finish -> SessionKeys
    respond -> AwaitingActThree.finish -> SessionKeys

After any error the step is to be dropped and the connection closed without another byte.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from cromford.adapters.noise_cipher import TAG_SIZE, MessageCipher, hkdf, nonce_bytes
from cromford.crypto.keys import PUBKEY_SIZE, is_pubkey, pubkey_of, sha256, shared_secret

PROTOCOL_NAME: Final = b"Noise_XK_secp256k1_ChaChaPoly_SHA256"
PROLOGUE: Final = b"lightning"
HANDSHAKE_VERSION: Final = 0  # BOLT 8: any other version is refused.

ACT_ONE_SIZE: Final = 1 + PUBKEY_SIZE + TAG_SIZE
ACT_TWO_SIZE: Final = ACT_ONE_SIZE
ACT_THREE_SIZE: Final = 1 + PUBKEY_SIZE + TAG_SIZE + TAG_SIZE


class HandshakeFailed(Exception):
    """The peer's part of the handshake does not hold.

    `act` is the act that failed (1 to 3); `reason` is one of `read_failed`, `bad_version`,
    `bad_pubkey`, `bad_ciphertext` and `bad_tag`, the cases of BOLT 8's appendix.
    """

    def __init__(self, *, act: int, reason: str, detail: str = "") -> None:
        super().__init__(f"act {act} of the handshake: {reason}{detail and f' ({detail})'}")
        self.act = act
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """A node's public id and its one secret operation.

    `ecdh(pubkey)` returns the SHA-256 of the compressed product of the node's seckey and `pubkey`
    (BOLT 8's ECDH), so the seckey itself stays with whoever made this object. It raises
    ValueError for bytes that are no pubkey.
    """

    node_id: bytes
    ecdh: Callable[[bytes], bytes] = field(repr=False)

    @classmethod
    def from_seckey(cls, seckey: bytes) -> "NodeIdentity":
        """Return the identity of a seckey held in this process.

        Raises:
            ValueError: If `seckey` is not a scalar in 1..n-1.
        """
        return cls(node_id=pubkey_of(seckey), ecdh=lambda pubkey: shared_secret(pubkey, seckey))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeys:
    """What a completed handshake gives: the peer's proven node id and a cipher per direction."""

    node_id: bytes
    sending: MessageCipher
    receiving: MessageCipher


def initiate(
    identity: NodeIdentity, *, responder_id: bytes, ephemeral_seckey: bytes
) -> tuple[bytes, "AwaitingActTwo"]:
    """Return act one and the step that waits for act two.

    `ephemeral_seckey` must be 32 fresh random bytes: a second handshake with the same ones would
    reuse its keys.

    Raises:
        ValueError: If `responder_id` is no pubkey or `ephemeral_seckey` no seckey.
    """
    if not is_pubkey(responder_id):
        raise ValueError(f"the peer's node id {responder_id.hex()} is not a point on the curve")
    transcript = _Transcript(responder_id)
    ephemeral_pubkey = pubkey_of(ephemeral_seckey)
    transcript.mix(ephemeral_pubkey)
    transcript.mix_key(shared_secret(responder_id, ephemeral_seckey))
    act_one = bytes([HANDSHAKE_VERSION]) + ephemeral_pubkey + transcript.seal(b"")
    return act_one, AwaitingActTwo(identity, responder_id, ephemeral_seckey, transcript)


class AwaitingActTwo:
    """The initiator after it sent act one."""

    __slots__ = ("_ephemeral_seckey", "_identity", "_responder_id", "_transcript")

    def __init__(
        self,
        identity: NodeIdentity,
        responder_id: bytes,
        ephemeral_seckey: bytes,
        transcript: "_Transcript",
    ) -> None:
        self._identity = identity
        self._responder_id = responder_id
        self._ephemeral_seckey = ephemeral_seckey
        self._transcript = transcript

    def finish(self, act_two: bytes) -> tuple[bytes, SessionKeys]:
        """Return act three, to be sent, and the keys of the session.

        Raises:
            HandshakeFailed: If act two does not prove that the peer holds its node id.
        """
        transcript = self._transcript
        _check_form(act_two, act=2, size_bytes=ACT_TWO_SIZE)
        responder_ephemeral = _read_pubkey(act_two[1:-TAG_SIZE], act=2)
        transcript.mix(responder_ephemeral)
        transcript.mix_key(shared_secret(responder_ephemeral, self._ephemeral_seckey))
        transcript.open(act_two[-TAG_SIZE:], act=2, reason="bad_tag")
        sealed_id = transcript.seal(self._identity.node_id)
        transcript.mix_key(self._identity.ecdh(responder_ephemeral))
        act_three = bytes([HANDSHAKE_VERSION]) + sealed_id + transcript.seal(b"")
        sending, receiving = transcript.split()
        return act_three, SessionKeys(
            node_id=self._responder_id, sending=sending, receiving=receiving
        )


def respond(
    identity: NodeIdentity, act_one: bytes, *, ephemeral_seckey: bytes
) -> tuple[bytes, "AwaitingActThree"]:
    """Return act two and the step that waits for act three.

    `ephemeral_seckey` must be 32 fresh random bytes.

    Raises:
        HandshakeFailed: If act one does not prove that the peer knows our node id.
        ValueError: If `ephemeral_seckey` is no seckey.
    """
    transcript = _Transcript(identity.node_id)
    _check_form(act_one, act=1, size_bytes=ACT_ONE_SIZE)
    initiator_ephemeral = _read_pubkey(act_one[1:-TAG_SIZE], act=1)
    transcript.mix(initiator_ephemeral)
    transcript.mix_key(identity.ecdh(initiator_ephemeral))
    transcript.open(act_one[-TAG_SIZE:], act=1, reason="bad_tag")
    ephemeral_pubkey = pubkey_of(ephemeral_seckey)
    transcript.mix(ephemeral_pubkey)
    transcript.mix_key(shared_secret(initiator_ephemeral, ephemeral_seckey))
    act_two = bytes([HANDSHAKE_VERSION]) + ephemeral_pubkey + transcript.seal(b"")
    return act_two, AwaitingActThree(ephemeral_seckey, transcript)


class AwaitingActThree:
    """The responder after it sent act two."""

    __slots__ = ("_ephemeral_seckey", "_transcript")

    def __init__(self, ephemeral_seckey: bytes, transcript: "_Transcript") -> None:
        self._ephemeral_seckey = ephemeral_seckey
        self._transcript = transcript

    def finish(self, act_three: bytes) -> SessionKeys:
        """Return the keys of the session, with the initiator's proven node id.

        Raises:
            HandshakeFailed: If act three does not prove that the peer holds the id it names.
        """
        transcript = self._transcript
        _check_form(act_three, act=3, size_bytes=ACT_THREE_SIZE)
        node_id = transcript.open(act_three[1:-TAG_SIZE], act=3, reason="bad_ciphertext")
        _read_pubkey(node_id, act=3)
        transcript.mix_key(shared_secret(node_id, self._ephemeral_seckey))
        transcript.open(act_three[-TAG_SIZE:], act=3, reason="bad_tag")
        receiving, sending = transcript.split()
        return SessionKeys(node_id=node_id, sending=sending, receiving=receiving)


class _Transcript:
    """The handshake hash `h`, the chaining key `ck` and the intermediate key of BOLT 8."""

    __slots__ = ("_chaining_key", "_hash", "_key", "_nonce")

    def __init__(self, responder_id: bytes) -> None:
        self._chaining_key = self._hash = sha256(PROTOCOL_NAME)
        self._key = b""
        self._nonce = 0
        self.mix(PROLOGUE)
        self.mix(responder_id)

    def mix(self, data: bytes) -> None:
        self._hash = sha256(self._hash + data)

    def mix_key(self, secret: bytes) -> None:
        self._chaining_key, self._key = hkdf(self._chaining_key, secret)
        self._nonce = 0

    def seal(self, plaintext: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self._key).encrypt(
            nonce_bytes(self._nonce), plaintext, self._hash
        )
        self._nonce += 1
        self.mix(sealed)
        return sealed

    def open(self, ciphertext: bytes, *, act: int, reason: str) -> bytes:
        aead = ChaCha20Poly1305(self._key)
        try:
            plaintext = aead.decrypt(nonce_bytes(self._nonce), ciphertext, self._hash)
        except InvalidTag as error:
            raise HandshakeFailed(act=act, reason=reason) from error
        self._nonce += 1
        self.mix(ciphertext)
        return plaintext

    def split(self) -> tuple[MessageCipher, MessageCipher]:
        """Return the ciphers initiator to responder and responder to initiator."""
        first, second = hkdf(self._chaining_key, b"")
        return (
            MessageCipher(key=first, chaining_key=self._chaining_key),
            MessageCipher(key=second, chaining_key=self._chaining_key),
        )


def _check_form(act_bytes: bytes, *, act: int, size_bytes: int) -> None:
    if len(act_bytes) != size_bytes:
        detail = f"expected {size_bytes} bytes, received {len(act_bytes)}"
        raise HandshakeFailed(act=act, reason="read_failed", detail=detail)
    if act_bytes[0] != HANDSHAKE_VERSION:
        detail = f"expected {HANDSHAKE_VERSION}, received {act_bytes[0]}"
        raise HandshakeFailed(act=act, reason="bad_version", detail=detail)


def _read_pubkey(pubkey: bytes, *, act: int) -> bytes:
    if not is_pubkey(pubkey):
        raise HandshakeFailed(act=act, reason="bad_pubkey", detail=pubkey.hex())
    return pubkey
