"""The scripts of a BIP 86 account, derived without any secret."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cromford.bitcoin.taproot import taproot_output
from cromford.crypto.keys import xonly_of
from cromford.signing.bip32 import ExtendedPubkey

RECEIVE: Final = 0
CHANGE: Final = 1
GAP_LIMIT: Final = 20  # BIP 44: scripts watched beyond the last one used.
SCRIPTS_KEPT: Final = 4_096  # In memory, about 600 bytes each; a start goes through a wallet's.
CHAINS_KEPT: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WalletPath:
    """The last two steps of a wallet key's path: receive or change, and the index."""

    change: int
    index: int


@dataclass(frozen=True)
class Account:
    """Derives scripts from an account's extended pubkey (m/86'/coin'/0')."""

    extended: ExtendedPubkey

    def script(self, path: WalletPath) -> bytes:
        """Return the taproot script of a path (BIP 86: key path only)."""
        return _script_of(self.extended, path.change, path.index)


# Whoever goes on from an older state, or starts again, asks for the same ones once more.
@lru_cache(maxsize=SCRIPTS_KEPT)
def _script_of(extended: ExtendedPubkey, change: int, index: int) -> bytes:
    pubkey = _chain_of(extended, change).child(index).pubkey
    return taproot_output(xonly_of(pubkey), None).script_pubkey


@lru_cache(maxsize=CHAINS_KEPT)
def _chain_of(extended: ExtendedPubkey, change: int) -> ExtendedPubkey:
    return extended.child(change)
