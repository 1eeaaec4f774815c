"""A client's exit package, as it stands: the path alone, and the commitment once it is final."""

from collections.abc import Iterator
from typing import cast

from cromford.answers.packages import PackageDocument
from cromford.bitcoin.network import Network
from cromford.protocol.exiting.client import in_hand
from cromford.protocol.exiting.poisons import poisons_held_of
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.watch.package import ReplacedState, package_document, package_of


def exit_package(state: ClientState, attempt: ClientAttempt, network: Network) -> PackageDocument:
    """Return the document. Before the exit was started a payment would revoke the commitment.

    Whoever lost state, or may have, holds no commitment that it could publish: the path alone is
    exported.
    """
    link = in_hand(state, attempt).link
    finished = link.finished_on(link.funding_on(state.chain))
    is_final = attempt.is_exiting and not link.withholds_commitment
    package = package_of(
        attempt.signed_branch_on(state.chain),
        network,
        commitment=finished.tx if is_final and finished is not None else None,
        replaced=tuple(_replaced(attempt)),
    )
    # Its format is of the package's own room, which reads it, too.
    return cast("PackageDocument", package_document(package))


def _replaced(attempt: ClientAttempt) -> Iterator[ReplacedState]:
    """Yield the states whose poisons we hold, which are no secret; only the LSP minds them."""
    states = attempt.leaf.states[:-1] if attempt.leaf_states else ()
    for state_index, old in enumerate(states):
        poisons = poisons_held_of(attempt, state_index)
        if poisons:
            yield ReplacedState(tx=old.tx, poisons=tuple(one.tx for one in poisons))
