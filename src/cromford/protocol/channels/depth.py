"""How deep a factory's funding is now: what is promised on a shallow one, a reorganisation takes.

It is asked each time, for a depth that was reached once may be gone.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from cromford import told
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.policy import least_depth

NOT_DEEP: Final = "funding_not_deep"


def is_deep(attempt: ClientAttempt | LspAttempt, chain: KnownChain) -> bool:
    """Say whether a funding is as deep now as its terms ask for."""
    return chain.depth(attempt.funding_tx.txid) >= attempt.terms.min_depth


def problem_with_growth(
    attempt: ClientAttempt | LspAttempt, chain: KnownChain, capacities_sat: Sequence[int]
) -> tuple[int, int] | None:
    """Return why channels may not come to hold so much: the depth that takes, and the funding's.

    None if they may. A sale can make a channel a large one that was none when its terms were
    agreed.
    """
    terms, depth = attempt.terms, chain.depth(attempt.funding_tx.txid)
    least = least_depth(terms.min_depth, capacities_sat, candidates=terms.candidates)
    return None if depth >= least else (least, depth)


def why_not_deep(attempt: ClientAttempt | LspAttempt, chain: KnownChain) -> str:
    """Return how far a funding is from its depth, in words."""
    depth = chain.depth(attempt.funding_tx.txid)
    return (
        f"factory {attempt.attempt_id.hex()}: its funding {attempt.funding_tx.txid} has {depth} of "
        f"{told.counted(attempt.terms.min_depth, 'confirmation')}"
    )


def no_channel(shallow: Iterable[ClientAttempt], chain: KnownChain, *, purpose: str) -> Rejected:
    """Return why nothing can be paid, or received, now: a funding by its name, if there is one.

    Args:
        shallow: The factories whose channels wait for nothing but the depth of a funding.
        chain: What is in blocks.
        purpose: What a channel was wanted for.
    """
    for attempt in shallow:
        return Rejected(NOT_DEEP, why_not_deep(attempt, chain), retryable=True)
    return Rejected("no_channel", f"no channel is ready to {purpose} through", retryable=True)
