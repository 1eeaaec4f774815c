"""The scripts of a BIP 86 account, derived without any secret."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford.bitcoin.taproot import taproot_output
from cromford.crypto.keys import xonly_of
from cromford.signing.bip32 import ExtendedPubkey

RECEIVE: Final = 0
CHANGE: Final = 1
GAP_LIMIT: Final = 20  # BIP 44: scripts watched beyond the last one used.


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WalletPath:
    """The last two steps of a wallet key's path: receive or change, and the index."""

    change: int
    index: int


@dataclass(frozen=True)
class Account:
    """Derives scripts from an account's extended pubkey (m/86'/coin'/0')."""

    extended: ExtendedPubkey

    @cached_property
    def _chains(self) -> tuple[ExtendedPubkey, ExtendedPubkey]:
        return self.extended.child(RECEIVE), self.extended.child(CHANGE)

    def script(self, path: WalletPath) -> bytes:
        """Return the taproot script of a path (BIP 86: key path only)."""
        pubkey = self._chains[path.change].child(path.index).pubkey
        return taproot_output(xonly_of(pubkey), None).script_pubkey
