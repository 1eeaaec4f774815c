"""Messages that few channels ever see: of keys that are handed over, and of restored stores.

What a message is, and its number, says `messages`, by which all of these are known.
"""

from dataclasses import dataclass

from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.factory.terms import HASH_SIZE
from cromford.wire.fields import fixed, secret, text, u64
from cromford.wire.sizes import PUBKEY_SIZE, REASON_SIZE_MAX, SECKEY_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHandover:
    """Client to LSP: I moved out of this factory; close it without me. Two keys of this attempt.

    `factory_secret` signs for the tree's outputs above the client's channel, `funding_secret` for
    the channel. What sees this message sees the secrets: it is no event, and in no record.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    factory_secret: bytes = secret(SECKEY_SIZE)
    funding_secret: bytes = secret(SECKEY_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTaken:
    """LSP to client: your keys are kept, durably; or why they are not.

    An empty `refusal` ends it. After any other they are sent again, at a later time.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    refusal: str = text(REASON_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMarked:
    """Either way, in the place of `ChannelReestablish`: the sender's store was restored.

    It asks the peer to publish its commitment, or to close. `revealed_hash` binds it to what it
    would reveal to a peer whose store was restored, too.
    """

    channel_id: bytes = fixed(HASH_SIZE)
    revealed_hash: bytes = fixed(HASH_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRevealed:
    """Either way, once both said `StoreMarked`, the LSP first: where a restored store stands.

    `commitment_number` and the balances are those of the sender's latest commitment, `peer_number`
    is that of the receiver's which it signed last. `nonce` and `proof` prove that it has the
    receiver's signature of that commitment, without showing it.
    """

    channel_id: bytes = fixed(HASH_SIZE)
    commitment_number: int = u64()
    peer_number: int = u64()
    opener_msat: int = u64()
    accepter_msat: int = u64()
    per_commitment_point: bytes = fixed(PUBKEY_SIZE)
    nonce: bytes = fixed(HASH_SIZE)
    proof: bytes = fixed(SIGNATURE_SIZE)
