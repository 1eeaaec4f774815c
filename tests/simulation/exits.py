"""Exits in one simulated world: whatever is pending, everybody gets on chain what is theirs."""

from tests.protocol.exit_accounts import Books
from tests.protocol.exits import Ended, play


def run_exits(seed: int) -> str:
    """Run one world from its seed and check everything; return a line that describes it."""
    return _described(play(seed, reorgs=seed % 3 == 0))


def run_midway(seed: int) -> str:
    """Run one world in which capacity is bought before somebody leaves, maybe midway in it."""
    return _described(play(seed, reorgs=seed % 3 == 0, sells=True))


def _described(ended: Ended) -> str:
    books = Books(ended)
    books.check()
    on_chain = [one for one in books.settled if one.commitment is not None]
    story = ended.story
    return (
        f"{len(books.settled)} clients, asked: {story.leavers}, away: {story.gone}, "
        f"{len(on_chain)} channels on chain: "
        f"{sum(len(one.paid) for one in on_chain)} HTLCs taken, "
        f"{sum(len(one.back) for one in on_chain)} back, "
        f"{sum(len(one.trimmed) for one in on_chain)} too small, "
        f"{ended.pump.n_reorgs} reorganisations, "
        f"{ended.pump.n_paid_beside_an_exit} paid while somebody left"
    )
