"""Messages of cooperative closes: who is asked, who agrees, what is signed (docs/protocol/18).

What a message is, and its number, says `messages`, by which all of these are known.
"""

from dataclasses import dataclass
from typing import Final

from cromford.crypto.musig2 import PARTIAL_SIG_SIZE, PUBNONCE_SIZE
from cromford.factory.close import CLOSE_CLIENTS_MAX
from cromford.factory.terms import HASH_SIZE
from cromford.wire.fields import fixed, fixed_list, struct, struct_list, text, u64, varbytes
from cromford.wire.pool import Pool
from cromford.wire.sizes import PUBKEY_SIZE, REASON_SIZE_MAX, SCRIPT_SIZE_MAX

OUTPOINT_SIZE: Final = 36
N_CLOSE_OPTIONS_MAX: Final = 2  # One that is cheap, and one for a day when that does not confirm.
NO_BALANCE: Final = 0xFFFF_FFFF_FFFF_FFFF  # In `CloseAgree`; no channel holds as much.
CLOSE_TX_SIZE_MAX: Final = 12_000  # Above BIP 431's 10,000 virtual bytes of a signed one.


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOption:
    """One of the feerates at which a close is signed."""

    feerate_sat_per_kw: int = u64()


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseBegin:
    """LSP to client: let us close what this outpoint holds, at these feerates, the lowest first."""

    attempt_id: bytes = fixed(HASH_SIZE)
    close_id: bytes = fixed(HASH_SIZE)
    outpoint: bytes = fixed(OUTPOINT_SIZE)
    options: tuple[CloseOption, ...] = struct_list(CloseOption, N_CLOSE_OPTIONS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseAgree:
    """Client to LSP: what I am owed, where I am paid, and a nonce for each option.

    `NO_BALANCE` from who restored its store: it cannot know, and signs what pays enough.

    The pool is of the key that signs for the outpoint: the factory key, or the funding key of a
    channel that is on chain.
    """

    close_id: bytes = fixed(HASH_SIZE)
    balance_msat: int = u64()
    payout_script: bytes = varbytes(SCRIPT_SIZE_MAX)
    pool: Pool = struct(Pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseProposal:
    """An unsigned close, and the aggregate nonce of its session."""

    tx: bytes = varbytes(CLOSE_TX_SIZE_MAX)
    aggnonce: bytes = fixed(PUBNONCE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePropose:
    """LSP to client: the transactions, one for each option; session k takes nonce k of the pool.

    `signers` are the keys of all who sign, in `KeySort` order: a client remembers what they add up
    to.
    """

    close_id: bytes = fixed(HASH_SIZE)
    signers: tuple[bytes, ...] = fixed_list(PUBKEY_SIZE, CLOSE_CLIENTS_MAX + 1)
    proposals: tuple[CloseProposal, ...] = struct_list(CloseProposal, N_CLOSE_OPTIONS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSign:
    """Client to LSP: my partial signature of each."""

    close_id: bytes = fixed(HASH_SIZE)
    partial_sigs: tuple[bytes, ...] = fixed_list(PARTIAL_SIG_SIZE, N_CLOSE_OPTIONS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedTx:
    """A close that everybody signed."""

    tx: bytes = varbytes(CLOSE_TX_SIZE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """LSP to client: everybody signed. The answer to all that comes about a channel in scope."""

    attempt_id: bytes = fixed(HASH_SIZE)
    close_id: bytes = fixed(HASH_SIZE)
    txs: tuple[ClosedTx, ...] = struct_list(ClosedTx, N_CLOSE_OPTIONS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseEnd:
    """Either way: this close is not agreed on; what is signed already stays signed."""

    close_id: bytes = fixed(HASH_SIZE)
    reason: str = text(REASON_SIZE_MAX)
