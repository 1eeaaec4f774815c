"""Scripts of one key behind one timelock, which is the only kind a factory's outputs have.

The bytes are miniscript's: `and_v(v:pk(KEY),after(N))` or `and_v(v:pk(KEY),older(N))`.
"""

from dataclasses import dataclass
from enum import StrEnum

from cromford.bitcoin.script import (
    OP_CHECKLOCKTIMEVERIFY,
    OP_CHECKSEQUENCEVERIFY,
    OP_CHECKSIGVERIFY,
    push_bytes,
    push_number,
)
from cromford.bitcoin.timelock import NSEQUENCE_LOCKTIME, nsequence_of_delay


class LockKind(StrEnum):
    """What a timelock counts from. The value is miniscript's name."""

    AFTER = "after"  # An absolute height (BIP 65): it can be in the block after that one.
    OLDER = "older"  # That many blocks after the output's own (BIP 68, BIP 112).


@dataclass(frozen=True, slots=True, kw_only=True)
class Timelock:
    """A timelock in blocks; `number` is a height, or how many blocks."""

    kind: LockKind
    number: int

    def script(self, xonly_pubkey: bytes) -> bytes:
        """Return the script: this key's signature, once the timelock is over.

        Raises:
            ValueError: If the number is negative or too large for a script.
        """
        is_absolute = self.kind is LockKind.AFTER
        opcode = OP_CHECKLOCKTIMEVERIFY if is_absolute else OP_CHECKSEQUENCEVERIFY
        return (
            push_bytes(xonly_pubkey)
            + bytes((OP_CHECKSIGVERIFY,))
            + push_number(self.number)
            + bytes((opcode,))
        )

    def miniscript(self, xonly_pubkey: bytes) -> str:
        """Return the same as miniscript."""
        return f"and_v(v:pk({xonly_pubkey.hex()}),{self.kind}({self.number}))"

    @property
    def nlocktime(self) -> int:
        """What the spending transaction's nLockTime has to be at least."""
        return self.number if self.kind is LockKind.AFTER else 0

    @property
    def nsequence(self) -> int:
        """What the spending input's nSequence has to be.

        Raises:
            ValueError: If that many blocks do not fit (BIP 68).
        """
        if self.kind is LockKind.AFTER:
            return NSEQUENCE_LOCKTIME
        return nsequence_of_delay(self.number)

    def first_height(self, confirmed_height: int) -> int:
        """Return the first block that can hold the spend of an output confirmed at a height.

        A transaction with nLockTime T is final in block T + 1 (BIP 65); one with a relative lock of
        n blocks, n blocks after the output's (BIP 68).
        """
        if self.kind is LockKind.AFTER:
            return max(self.number, confirmed_height) + 1
        return confirmed_height + max(self.number, 1)
