"""RIPEMD-160, which HTLC scripts hash a payment hash with (BOLT 3).

Apart from `keys`, because the library takes a moment to import that most commands need not wait.
"""

from btclib import hashes as _hashes


def ripemd160(data: bytes) -> bytes:
    """Return the 20-byte RIPEMD-160 of `data`.

    OpenSSL's where it offers it, which not every system's does; the library's own elsewhere.
    """
    return bytes(_hashes.ripemd160(data))
