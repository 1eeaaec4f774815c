"""What is remembered of a channel whose store was put back from a backup: a mark.

What came after the backup was made may be lost: commitments that were revoked, preimages, updates.
So nothing in such a store is known to be the newest, and no word of the peer's can prove that it
is: a peer that lies answers with the backup's own numbers.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMark:
    """A channel's mark.

    Attributes:
        peer_hash: What a peer that is marked, too, committed itself to, once for ever; empty where
            it never said that it is.
        agreed_msat: What is ours by the later of both stores; None before they were compared.
    """

    peer_hash: bytes = b""
    agreed_msat: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore left open about a store as a whole.

    Attributes:
        is_unproven: Whether it was put back from a backup, and no high-water mark proved since that
            nothing was lost.
        forgot_keys: Whether attempts from the next number on may have been used, and forgotten.
        since: When its daemon started for the first time since then, in unix seconds; 0 where
            nobody wrote it down.
    """

    is_unproven: bool = False
    forgot_keys: bool = False
    since: int = 0

    def may_have_paid(self, created_at: int | None) -> bool:
        """Say whether an invoice may have been paid in what was lost.

        Args:
            created_at: When it was made, in unix seconds; None for one that was only just made.
        """
        return self.is_unproven and created_at is not None and created_at <= self.since
