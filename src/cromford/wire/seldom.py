"""Messages that few channels ever see: of keys that are handed over, and of restored stores.

What a message is, and its number, says `messages`, by which all of these are known.
"""

from dataclasses import dataclass
from typing import Final

from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.factory.terms import HASH_SIZE, N_CLIENTS_MAX
from cromford.wire.fields import fixed, secret, struct_list, text, u64, varbytes
from cromford.wire.selling import AllocatedChannel
from cromford.wire.sizes import PUBKEY_SIZE, REASON_SIZE_MAX, SECKEY_SIZE

N_LEAF_STATES_MAX: Final = 64


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafState:
    """What a state of a leaf pays, everybody's signature, and poisons of the state before it.

    The channels are in placement order. Both poisons are empty where they may not leave now, or
    neither is: the L-stock's, and that of the receiver's channel.
    """

    channels: tuple[AllocatedChannel, ...] = struct_list(AllocatedChannel, N_CLIENTS_MAX)
    lstock_sat: int = u64()
    signature: bytes = fixed(SIGNATURE_SIZE)
    stock_poison: bytes = varbytes(SIGNATURE_SIZE)
    channel_poison: bytes = varbytes(SIGNATURE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafStates:
    """LSP to client, whose store lost state: all states of your leaf but the first, in order.

    What the client signed of them its lost store had. Empty where nothing was ever sold there.
    """

    attempt_id: bytes = fixed(HASH_SIZE)
    states: tuple[LeafState, ...] = struct_list(LeafState, N_LEAF_STATES_MAX)
