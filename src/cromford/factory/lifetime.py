"""Where a factory, or one channel of it, stands in its life: a function of its terms and a height.

Every rule about a dying factory asks here, so that both roles, and both ends of a channel, tell the
same from the same block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cromford.factory.kinds import VertexKind
from cromford.factory.terms import GeneralTerms


class Period(IntEnum):
    """What a factory is at, in the order of time."""

    WAITING = 0  # its funding is not as deep as the terms ask for
    ACTIVE = 1  # normal life
    DYING = 2  # time to move out
    LATE = 3  # past the exit deadline: who did not leave by now may be too late
    EXPIRED = 4  # from here on the LSP may take what nobody claimed

    @property
    def label(self) -> str:
        """The name that people and records use."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """The heights at which a factory's life changes.

    Attributes:
        dying_height: From here on it dies: each client moves elsewhere.
        exit_deadline_height: From here on an exit may no longer end before the expiry.
        expiry_height: From here on its timeout paths are open.
    """

    dying_height: int
    exit_deadline_height: int
    expiry_height: int

    @property
    def dying_blocks(self) -> int:
        """How long it dies."""
        return self.exit_deadline_height - self.dying_height

    def period_at(self, height: int, *, is_funded: bool = True) -> Period:
        """Return what it is at when the tip has this height.

        Args:
            height: Of the chain's tip.
            is_funded: Whether its funding is as deep as its terms ask for. The expiry comes to one
                that is not, as well.
        """
        if height >= self.expiry_height:
            return Period.EXPIRED
        if not is_funded:
            return Period.WAITING
        if height >= self.exit_deadline_height:
            return Period.LATE
        return Period.DYING if height >= self.dying_height else Period.ACTIVE

    def untold_at(self, height: int, told: Period) -> Period | None:
        """Return the period at a height, if it is to be told: a later one than was, from dying on.

        Never an earlier one: a reorganisation makes no factory younger.
        """
        period = self.period_at(height)
        return period if period > max(told, Period.ACTIVE) else None

    def is_dying_at(self, height: int) -> bool:
        """Say whether a height is in the dying period: begun, and the exit deadline ahead."""
        return self.dying_height <= height < self.exit_deadline_height

    def next_change(self, height: int) -> int | None:
        """Return the first height above this one at which it changes; None after the expiry."""
        heights = (self.dying_height, self.exit_deadline_height, self.expiry_height)
        return next((change for change in heights if change > height), None)

    def blocks_of(self, percent: int) -> int:
        """Return how many blocks a share of the dying period is, rounded up."""
        return -(-self.dying_blocks * percent // 100)

    def share_height(self, percent: int) -> int:
        """Return the height at which a share of the dying period is over, rounded up."""
        return self.dying_height + self.blocks_of(percent)


def lifetime_of(terms: GeneralTerms, kinds: Sequence[VertexKind]) -> Lifetime:
    """Return when a path through a factory's tree dies, whatever of it is published.

    Whoever publishes a part of the path makes its exit shorter and its exit deadline later; that
    the factory dies does not wait for it.

    Args:
        terms: The factory's.
        kinds: Of the path's vertices: a client's own, or the slowest for the factory as a whole.
    """
    exit_deadline_height = terms.exit_deadline_height(kinds)
    return Lifetime(
        dying_height=exit_deadline_height - terms.dying_blocks,
        exit_deadline_height=exit_deadline_height,
        expiry_height=terms.expiry_height,
    )
