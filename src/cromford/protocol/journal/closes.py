"""Cooperative closes as values: what of each binds a channel, and what is published of it.

A close that a client signed can be finished by the LSP alone, at any later time: until its outpoint
is spent, six blocks deep, the channel may not come to owe the client more than the close pays it.
Once the LSP's own part may have left, the channel stands still.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol.journal.known_chain import KnownChain

SETTLED_DEPTH: Final = 6  # What spent an outpoint so deep is what will have spent it.


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedClose:
    """A close that a channel's client signed; at the LSP, one whose signature arrived.

    Attributes:
        close_id: Its name.
        outpoint: What it spends.
        balance_msat: What it was agreed to owe the client.
        is_finished: Whether the LSP's own part may have left, too.
        txids: Of its transactions: they are the same before and after they are signed.
    """

    close_id: bytes
    outpoint: OutPoint
    balance_msat: int
    is_finished: bool = False
    txids: tuple[Txid, ...] = ()

    def spender(self, chain: KnownChain) -> Tx | None:
        """Return what spends its outpoint in a block, be it this close or not."""
        return chain.spends.get(self.outpoint)

    def is_live(self, chain: KnownChain) -> bool:
        """Say whether it may still become what spends its outpoint."""
        spender = self.spender(chain)
        return spender is None or chain.depth(spender.txid) < SETTLED_DEPTH

    def is_confirmed(self, chain: KnownChain) -> bool:
        """Say whether it is what spends its outpoint in a block."""
        spender = self.spender(chain)
        return spender is not None and spender.txid in self.txids

    def binds(self, chain: KnownChain) -> bool:
        """Say whether the channel takes no update because of it.

        Its transactions may be on their way to a block, or one is in a block: who signed it knows
        them, also where it never heard that it was finished.
        """
        return self.is_confirmed(chain) or (self.is_finished and self.is_live(chain))


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedClose:
    """A close that everybody signed.

    Attributes:
        close_id: Its name.
        outpoint: What it spends.
        txs: The signed transactions, the one of the lower feerate first: any one may confirm.
    """

    close_id: bytes
    outpoint: OutPoint
    txs: tuple[Tx, ...]

    @property
    def txids(self) -> tuple[Txid, ...]:
        """Those of its transactions."""
        return tuple(tx.txid for tx in self.txs)

    def is_live(self, chain: KnownChain) -> bool:
        """Say whether it may still be what spends its output, or did."""
        spender = chain.spends.get(self.outpoint)
        if spender is None or spender.txid in self.txids:
            return True
        return chain.depth(spender.txid) < SETTLED_DEPTH

    def is_waiting(self, chain: KnownChain) -> bool:
        """Say whether it could be in the next block: its coin is in one, and unspent."""
        return self.outpoint not in chain.spends and chain.depth(self.outpoint.txid) > 0

    def confirmed(self, chain: KnownChain) -> Tx | None:
        """Return its transaction that is in a block; None if none is."""
        spender = chain.spends.get(self.outpoint)
        return spender if spender is not None and spender.txid in self.txids else None


def limit_msat(closes: Collection[SignedClose], chain: KnownChain) -> int | None:
    """Return the most that a channel may come to owe its client, by its closes; None if no limit.

    The least of what any of them owes it: the LSP chooses which to finish.
    """
    if not closes:  # Asked at every update of every channel, and nearly always so.
        return None
    return min((close.balance_msat for close in closes if close.is_live(chain)), default=None)


def is_frozen(closes: Collection[SignedClose], chain: KnownChain) -> bool:
    """Say whether a channel takes no update, for a close is in a block or on its way to one."""
    return any(close.binds(chain) for close in closes)


def with_close(closes: tuple[SignedClose, ...], close: SignedClose) -> tuple[SignedClose, ...]:
    """Return the closes with one more, in place of those that bind a channel no further.

    However often the LSP begins anew, there is one for each outpoint: no later one owes more while
    an earlier one is live. The transactions of earlier ones stay known: what was signed stays
    signed, and the LSP may finish any of it.
    """
    covered = [one for one in closes if _is_covered(one, close)]
    known = (txid for one in (*covered, close) for txid in one.txids)
    kept = replace(close, txids=tuple(dict.fromkeys(known)))
    return (*(one for one in closes if one not in covered), kept)


def _is_covered(earlier: SignedClose, close: SignedClose) -> bool:
    is_no_tighter = not earlier.is_finished and earlier.balance_msat >= close.balance_msat
    return earlier.close_id == close.close_id or (
        earlier.outpoint == close.outpoint and is_no_tighter
    )
