"""What a cooperative close may spend, as either role knows it: the tree's outputs, and channels.

Computed from what was agreed, never taken from a message.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.commitment import Funding
from cromford.factory.close import CloseScope, scope_of
from cromford.factory.outputs import channel_output
from cromford.factory.vertices import TreeNode
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.intents import IntentKey
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.opening_records import Intent
from cromford.signing.task import SigningTask


def channel_scope(funding: Funding, client: int) -> CloseScope:
    """Return the scope of a channel's output: its two funding keys sign (BOLT 3, simple taproot).

    Args:
        funding: Where the channel is.
        client: Its client's participant index.
    """
    return CloseScope(
        name=f"channel {client}",
        outpoint=funding.outpoint,
        amount_sat=funding.capacity_sat,
        output=channel_output(funding.pubkeys),
        clients=(client,),
    )


def lsp_scope(attempt: LspAttempt, outpoint: OutPoint) -> CloseScope:
    """Return the scope of an output of an LSP's factory.

    Raises:
        AssertionError: If the factory has none there: the LSP chooses it itself.
    """
    found = known_lsp_scope(attempt, outpoint)
    if found is None:
        raise AssertionError(f"{outpoint} is no output of the factory")
    return found


def known_lsp_scope(attempt: LspAttempt, outpoint: OutPoint) -> CloseScope | None:
    """Return the scope of an output of an LSP's factory; None of any other.

    A channel's in a state of its leaf that is not signed here is none of it.
    """
    found = _tree_scope(attempt.tree.nodes, outpoint)
    for client in range(1, len(attempt.seats) + 1):
        if found is None:
            found = _channel_scope(attempt.fundings(client), client, outpoint)
    return found


def client_scope(attempt: ClientAttempt, outpoint: OutPoint) -> CloseScope | None:
    """Return the scope of an output on a client's own path, or its channel's; None of any other."""
    channel = _channel_scope(attempt.fundings, attempt.client, outpoint)
    return channel or _tree_scope(attempt.branch.nodes, outpoint)


def _channel_scope(
    fundings: Iterable[Funding], client: int, outpoint: OutPoint
) -> CloseScope | None:
    """Return the scope of a channel in whichever state of its leaf pays this output."""
    found = (funding for funding in fundings if funding.outpoint == outpoint)
    funding = next(found, None)
    return None if funding is None else channel_scope(funding, client)


def _tree_scope(nodes: Iterable[TreeNode], outpoint: OutPoint) -> CloseScope | None:
    spenders = (node for node in nodes if node.tx.inputs[0].outpoint == outpoint)
    node = next(spenders, None)
    return None if node is None else scope_of(node)


def close_task(scope: CloseScope, tx: Tx, number: int) -> SigningTask:
    """Return what has to be signed of one option of a close; the option's number names it.

    Two options may be one transaction, where the LSP's part is too small for an output; each has
    its own nonces all the same.
    """
    return replace(scope.task(tx), name=f"close_{number}")


def is_intended(intents: Mapping[IntentKey, bytes], close_id: bytes, outpoint: OutPoint) -> bool:
    """Say whether a close of this name and output was signed: then none other is under its name."""
    return (_kind_of(close_id), outpoint.serialize(), 0) in intents


def _kind_of(close_id: bytes) -> str:
    return f"close_{close_id.hex()}"


def close_intents(close_id: bytes, scope: CloseScope, txs: Iterable[Tx]) -> tuple[Intent, ...]:
    """Return the intents to sign a close: one sighash for each of its options, for ever."""
    return tuple(
        Intent(
            kind=_kind_of(close_id),
            outpoint=scope.outpoint.serialize(),
            state_index=number,
            sighash=close_task(scope, tx, number).sighash,
        )
        for number, tx in enumerate(txs)
    )
