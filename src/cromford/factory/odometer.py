"""Decker-Wattenhofer: the relative delay of each state node, and which version wins.

A factory replaces a state without publishing anything. The replacement lowers the relative
timelock of the state transaction, so that if both versions are published the newer one can
confirm first. A layer of K states can be replaced K - 1 times. Every state node has its own
index, and replacing one rebuilds everything below it at index 0: read along a path, the indices
turn like the digits of an odometer, layer 0 slowest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX


class OdometerExhausted(Exception):
    """Every version of this state has been used. The factory can only be closed or rotated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Odometer:
    """The shape of the odometer: agreed in the factory terms, and never changed."""

    states_per_layer: int
    step_blocks: int

    def __post_init__(self) -> None:
        if self.states_per_layer < 2:
            raise ValueError(
                f"states_per_layer: at least 2 (fewer can never be replaced), "
                f"received {self.states_per_layer}"
            )
        if self.step_blocks < 1:
            raise ValueError(
                f"step_blocks: at least 1 (without a delay between states the newest cannot win "
                f"the race), received {self.step_blocks}"
            )
        if self.delay_max_blocks > DELAY_BLOCKS_MAX:
            raise ValueError(
                f"step_blocks x (states_per_layer - 1): at most {DELAY_BLOCKS_MAX} (BIP 68), "
                f"received {self.delay_max_blocks}"
            )

    @property
    def delay_max_blocks(self) -> int:
        """The delay of index 0, the oldest version."""
        return self.step_blocks * (self.states_per_layer - 1)

    def delay_blocks(self, state_index: int) -> int:
        """Return the relative delay of one version of a state node.

        Raises:
            ValueError: If there is no such version.
        """
        if not 0 <= state_index < self.states_per_layer:
            raise ValueError(
                f"state_index: 0..{self.states_per_layer - 1} was expected, received {state_index}"
            )
        return self.step_blocks * (self.states_per_layer - 1 - state_index)

    def next_index(self, state_index: int) -> int:
        """Return the index that replaces `state_index`.

        Raises:
            OdometerExhausted: If it was the last.
        """
        if state_index + 1 >= self.states_per_layer:
            raise OdometerExhausted(f"state index {state_index} is the last of its layer")
        return state_index + 1

    def advanced(self, indices: Sequence[int], layer: int) -> tuple[int, ...]:
        """Return the path's reading after the state at `layer` was replaced.

        Raises:
            OdometerExhausted: If that state has no version left.
        """
        kept = tuple(indices[:layer])
        return (*kept, self.next_index(indices[layer]), *(0 for _ in indices[layer + 1 :]))
