"""How deep a factory's funding is now: what is promised on a shallow one, a reorganisation takes.

It is asked each time, for a depth that was reached once may be gone.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from cromford import told
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.policy import least_depth

NOT_DEEP: Final = "funding_not_deep"


def is_deep(attempt: ClientAttempt | LspAttempt, chain: KnownChain, link: Link) -> bool:
    """Say whether a funding is as deep now as what a channel holds asks for."""
    return problem_with_growth(attempt, chain, (link.present.capacity_sat,)) is None


def problem_with_growth(
    attempt: ClientAttempt | LspAttempt, chain: KnownChain, capacities_sat: Sequence[int]
) -> tuple[int, int] | None:
    """Return why channels may not come to hold so much: the depth that takes, and the funding's.

    None if they may. A sale can make a channel a large one that was none when its terms were
    agreed.
    """
    least, depth = _least_depth(attempt, capacities_sat), chain.depth(attempt.funding_tx.txid)
    return None if depth >= least else (least, depth)


def _least_depth(attempt: ClientAttempt | LspAttempt, capacities_sat: Sequence[int]) -> int:
    terms = attempt.terms
    return least_depth(terms.min_depth, capacities_sat, candidates=terms.candidates)


def depth_asked(attempt: ClientAttempt | LspAttempt, link: Link) -> int:
    """Return how many confirmations a channel asks for, by what it holds now."""
    return _least_depth(attempt, (link.present.capacity_sat,))


def why_not_deep(attempt: ClientAttempt | LspAttempt, chain: KnownChain, link: Link) -> str:
    """Return how far a funding is from what a channel asks for, in words."""
    depth = chain.depth(attempt.funding_tx.txid)
    least = depth_asked(attempt, link)
    return (
        f"factory {attempt.attempt_id.hex()}: its funding {attempt.funding_tx.txid} has {depth} of "
        f"{told.counted(least, 'confirmation')}"
    )


def no_channel(
    shallow: Iterable[tuple[ClientAttempt, Link]], chain: KnownChain, *, purpose: str
) -> Rejected:
    """Return why nothing can be paid, or received, now: a funding by its name, if there is one.

    Args:
        shallow: The channels that wait for nothing but the depth of a funding, each with its
            factory.
        chain: What is in blocks.
        purpose: What a channel was wanted for.
    """
    for attempt, link in shallow:
        return Rejected(NOT_DEEP, why_not_deep(attempt, chain, link), retryable=True)
    return Rejected("no_channel", f"no channel is ready to {purpose} through", retryable=True)
