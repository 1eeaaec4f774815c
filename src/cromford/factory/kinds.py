"""The two kinds of vertex, and how long a path through vertices of both takes to the chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

PICTURE_CLIENTS_MAX: Final = 4  # Up to here the default is the construction's own picture.
BLOCKS_PER_TX: Final = 6  # An exit allows six blocks for each transaction to confirm.


class VertexKind(IntEnum):
    """What a vertex is made of. The value is its number in the terms."""

    DW = 0  # Decker-Wattenhofer: a kickoff, and a state that can be replaced, after a delay
    STATIC = 1  # one transaction, never replaced, without a delay

    @property
    def label(self) -> str:
        """The name that people and exports use."""
        return self.name.lower()

    @property
    def n_txs(self) -> int:
        """How many transactions a vertex of this kind is."""
        return 2 if self is VertexKind.DW else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerLevels:
    """The levels above the leaves, the root first: how wide each is, and of which kind."""

    arities: tuple[int, ...] = ()
    kinds: tuple[VertexKind, ...] = ()

    @property
    def said_kinds(self) -> tuple[VertexKind, ...]:
        """The kinds as terms say them: none where every level is `dw`."""
        return self.kinds if VertexKind.STATIC in self.kinds else ()


def exit_delay_blocks_of(kinds: Sequence[VertexKind], *, delay_max_blocks: int) -> int:
    """Return the sum of the largest delays on a path: of its `dw` vertices, for no other has one.

    Args:
        kinds: Of the path's vertices.
        delay_max_blocks: The delay of a state that was never replaced.
    """
    return delay_max_blocks * sum(kind is VertexKind.DW for kind in kinds)


def exit_blocks_of(kinds: Sequence[VertexKind], *, delay_max_blocks: int) -> int:
    """Return how long an exit through a path may take, in blocks.

    The delays, and six blocks for each transaction and for the commitment: a third unconfirmed
    generation of version 3 is not relayed (BIP 431), so each waits until its parent confirmed.
    """
    n_txs = sum(kind.n_txs for kind in kinds) + 1
    return exit_delay_blocks_of(kinds, delay_max_blocks=delay_max_blocks) + BLOCKS_PER_TX * n_txs
