"""What a store that was put back from a backup, or from a seed, does as if it had used more."""

from typing import Final, Protocol

from cromford.protocol.journal.mark import Restored
from cromford.protocol.journal.records import KeysSkipped
from cromford.protocol.turn import Turn

# Attempts that a store can have begun since its newest backup: it would need two a minute for a
# year. On top of it comes a number drawn anew at each start, for one backup may be restored twice.
ATTEMPTS_SKIPPED: Final = 1 << 20
# Of the wallet's receive and change scripts each. Older programs handed one out for each attempt,
# whatever became of it: some fifty a day for three weeks.
SCRIPTS_WATCHED: Final = 1_000
BEGIN_ANEW: Final = "begin again: the restored store lost nothing"


class NumbersAttempts(Protocol):
    """A state that numbers attempts: a client's, and a house's."""

    @property
    def next_attempt(self) -> int:
        """The number of the next attempt, a step of the path of its keys."""

    @property
    def restored(self) -> Restored:
        """What a restore left open."""


def skip_keys(turn: Turn[NumbersAttempts], drawn: int) -> None:
    """Skip the attempts that may have been made with what a restored store has lost.

    Attempts of one number have the same keys. In a channel that is forgotten, secrets of ours were
    told that revoke commitments of another channel with the same keys: what we publish of that one
    would be punished. And coins are looked for at scripts that may have been handed out since.

    Args:
        turn: The decision about the daemon's start.
        drawn: A random number.
    """
    if turn.state.restored.forgot_keys:
        turn.remember(
            KeysSkipped(
                next_attempt=turn.state.next_attempt + ATTEMPTS_SKIPPED + drawn,
                scripts=SCRIPTS_WATCHED,
            )
        )


def watch_further(turn: Turn[NumbersAttempts]) -> None:
    """Look for coins far beyond the last script used, from here on.

    A journal that was begun with the words of a seed alone does not know what was handed out.

    Args:
        turn: The decision about blocks that are to be read again.
    """
    turn.remember(KeysSkipped(next_attempt=turn.state.next_attempt, scripts=SCRIPTS_WATCHED))
