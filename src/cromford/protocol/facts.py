"""What a decision may read besides its own state: true at this moment, and never remembered.

A fact is not folded, so it is not journalled either: a replay does not need it, because the records
say what was decided by it.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the daemon knows of the world now.

    Attributes:
        stale: Why our chain may be behind the world's, in words; None while it is fresh.
        header_height: The height of our node's best header; -1 if it said nothing yet.
    """

    stale: str | None = None
    header_height: int = -1

    @property
    def is_fresh(self) -> bool:
        """Whether new risk may be taken: what we see of the chain is of this moment."""
        return self.stale is None


FRESH: Final = Facts()  # Our chain is what the world sees.
