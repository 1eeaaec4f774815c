"""A client's exit package, as it stands: the path alone, and the commitment once it is final."""

from typing import Any

from cromford.bitcoin.network import Network
from cromford.protocol.exiting.client import in_hand
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.watch.package import package_document, package_of


def exit_package(state: ClientState, attempt: ClientAttempt, network: Network) -> dict[str, Any]:
    """Return the document. Before the exit was started a payment would revoke the commitment.

    Whoever lost state, or may have, holds no commitment that it could publish: the path alone is
    exported.
    """
    link = in_hand(state, attempt).link
    is_final = attempt.is_exiting and not link.withholds_commitment
    return package_document(
        package_of(
            attempt.signed_branch,
            network,
            commitment=link.finished.tx if is_final else None,
        )
    )
