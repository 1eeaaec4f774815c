"""What a way to cheat is: its name, what is done, and where it is played."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.matrix.market import MARKETS
from tests.matrix.thief import Thief
from tests.matrix.world import MatrixWorld

ASLEEP: Final = ", victim asleep"
CLIENTS: Final = (2, 4)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A way to cheat.

    Attributes:
        name: For tables.
        cheat: Makes a history, and lets somebody go rogue; from then on time passes by itself.
        happens: How the name of a transaction begins that has to confirm for it to be any cheating.
        clients: With how many clients it is played.
        markets: At which feerates.
        has_outsider: Whether there is one more client, in a factory of its own: who signed a close
            of the whole factory can be paid no more by others who did, and can by the outsider.
        n_states: How many states each leaf can have.
    """

    name: str
    cheat: Callable[[MatrixWorld], Thief]
    happens: str
    clients: tuple[int, ...] = CLIENTS
    markets: tuple[str, ...] = tuple(MARKETS)
    has_outsider: bool = False
    n_states: int = 2
