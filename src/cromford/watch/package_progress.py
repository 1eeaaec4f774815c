"""How far an exit package is on chain, and what is published of it next. Pure.

All of it follows from which output of the path is unspent, and since when. So it goes on from any
half-published state, whoever published it, and a reorganisation takes nothing but its own blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.exit_path import ExitStep
from cromford.watch.package import ExitPackage, delay_of
from cromford.watch.remaining import Remaining


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPlace:
    """Where a path is: its newest output that is unspent in a block.

    Attributes:
        n_confirmed: How many of its transactions are on chain.
        height: Where the newest of them confirmed, or the funding.
        is_channel_spent: Whether the channel's own output was spent; the path is on chain then.
    """

    n_confirmed: int
    height: int
    is_channel_spent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishNow:
    """This transaction can be in the next block."""

    step: ExitStep


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitDelay:
    """Its parent is on chain; it can be in the block at `height` at the earliest (BIP 68)."""

    step: ExitStep
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitDeadline:
    """Nothing has to be published before the exit deadline, `height`."""

    step: ExitStep
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PathOnChain:
    """The channel's output is on chain since `height`, and nothing is left to publish."""

    height: int
    is_channel_spent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingFound:
    """No output of the path is unspent in a block.

    The funding is not confirmed, or something else was published, as a sweep after the expiry.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeApart:
    """A state that was replaced is on chain: publish these poisons of it now, if there are any.

    None of them, where all are in a block already: what they pay waits for the owner's key.
    """

    due: tuple[Tx, ...]


PackageAction = PublishNow | AwaitDelay | AwaitDeadline | PathOnChain | TakeApart | NothingFound
NOTHING_FOUND: Final = NothingFound()


def place_of(
    package: ExitPackage, coins: Mapping[OutPoint, Coin], *, tip_height: int
) -> PathPlace | None:
    """Return where a path is; None if nothing of it is an unspent output.

    Args:
        package: The path.
        coins: Unspent outputs in blocks: those there are of what the package's transactions pay.
        tip_height: The height of the block after which they are unspent.
    """
    for n, outpoint in enumerate(package.path_outpoints):
        coin = coins.get(outpoint)
        if coin is not None:
            return PathPlace(n_confirmed=n, height=tip_height - coin.confirmations + 1)
    # After the channel's output was spent, the others of the leaf still tell where that is.
    ends = [(len(package.txs), package.txs[-1])]
    if package.commitment is not None:
        ends.insert(0, (len(package.steps), package.commitment))
    for n_confirmed, tx in ends:
        for outpoint in tx.outpoints:
            coin = coins.get(outpoint)
            if coin is not None:
                return PathPlace(
                    n_confirmed=n_confirmed,
                    height=tip_height - coin.confirmations + 1,
                    is_channel_spent=True,
                )
    return None


def remaining_at(package: ExitPackage, place: PathPlace | None, *, tip_height: int) -> Remaining:
    """Return how long an exit may still take, and until when it must begin.

    Of what is above the newest transaction only that it is on chain is known: it counts as not
    older than that one, so the deadline is never told too late.
    """
    confirmed = (
        {} if place is None else {tx.txid: place.height for tx in package.txs[: place.n_confirmed]}
    )
    return package.remaining(confirmed=confirmed, tip_height=tip_height)


def poisons_due(package: ExitPackage, coins: Mapping[OutPoint, Coin]) -> TakeApart | None:
    """Return what is done about a replaced state that is on chain; None if none is.

    Args:
        package: The package.
        coins: Unspent outputs in blocks: of what its poisons spend, and what they pay.
    """
    due = tuple(tx for tx in package.poisons if tx.inputs[0].outpoint in coins)
    is_paid = any(outpoint in coins for tx in package.poisons for outpoint in tx.outpoints)
    return TakeApart(due=due) if due or is_paid else None


def is_due(
    package: ExitPackage, place: PathPlace | None, *, tip_height: int, highest_height: int
) -> bool:
    """Say whether an exit has to go on to its end: it was started, or its deadline is reached.

    Args:
        package: The package.
        place: Where its path is.
        tip_height: The height of the block after which that was so.
        highest_height: Of the highest block that is known to exist.
    """
    if place is None or place.is_channel_spent:
        return False
    deadline = remaining_at(package, place, tip_height=tip_height).exit_deadline_height
    is_reached = deadline is not None and max(tip_height, highest_height) >= deadline
    return is_reached or package.commitment is not None


def next_package_action(
    package: ExitPackage, place: PathPlace | None, *, tip_height: int, is_begun: bool
) -> PackageAction:
    """Return what is done next with a package, where no replaced state of its leaf is on chain.

    Until the exit is begun nothing is, whoever else leaves by a part of the path, but for one
    thing: once a kickoff is on chain, its latest state has to follow.

    Args:
        package: The package.
        place: Where its path is.
        tip_height: The height of the block after which that was so.
        is_begun: Whether the exit is to go on to its end now: it was due once, or is wished for.
    """
    if place is None:
        return NOTHING_FOUND
    if place.is_channel_spent or place.n_confirmed == len(package.steps):
        return PathOnChain(height=place.height, is_channel_spent=place.is_channel_spent)
    step = package.steps[place.n_confirmed]
    if not (is_begun or delay_of(step.tx) is not None):
        deadline = remaining_at(package, place, tip_height=tip_height).exit_deadline_height
        if deadline is not None:
            return AwaitDeadline(step=step, height=deadline)
    earliest = place.height + max(step.delay_blocks, 1)
    if tip_height + 1 >= earliest:
        return PublishNow(step=step)
    return AwaitDelay(step=step, height=earliest)
