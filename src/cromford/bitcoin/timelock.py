"""Relative and absolute timelocks in blocks (BIP 68, BIP 65)."""

from typing import Final

NSEQUENCE_FINAL: Final = 0xFFFF_FFFF  # Disables the relative timelock and nLockTime.
NSEQUENCE_LOCKTIME: Final = 0xFFFF_FFFE  # nLockTime counts; no relative timelock, no BIP 125 flag.
NSEQUENCE_REPLACEABLE: Final = 0xFFFF_FFFD  # BIP 125; no relative timelock.
NSEQUENCE_DISABLE_FLAG: Final = 1 << 31
NSEQUENCE_TIME_FLAG: Final = 1 << 22  # Units of 512 seconds instead of blocks.
DELAY_BLOCKS_MAX: Final = 0xFFFF  # BIP 68: a block delay is the low 16 bits of nSequence.
LOCKTIME_THRESHOLD: Final = 500_000_000  # An nLockTime from here on is a time, not a height.


def nsequence_of_delay(delay_blocks: int) -> int:
    """Return the nSequence that demands `delay_blocks` confirmations of the spent output.

    Raises:
        ValueError: If the delay does not fit 16 bits.
    """
    if not 0 <= delay_blocks <= DELAY_BLOCKS_MAX:
        raise ValueError(f"a delay of 0..{DELAY_BLOCKS_MAX} blocks, received {delay_blocks}")
    return delay_blocks


def check_expiry_height(height: int) -> None:
    """Refuse an absolute timelock that is not a block height.

    Raises:
        ValueError: If it is not in 1..499,999,999 (BIP 65).
    """
    if not 0 < height < LOCKTIME_THRESHOLD:
        raise ValueError(f"a height of 1..{LOCKTIME_THRESHOLD - 1}, received {height}")
