"""What is about to be signed, remembered first: one sighash for each thing, for ever."""

from collections.abc import Mapping

from cromford.channel.commitment import Commitment
from cromford.factory.vertices import TreeNode
from cromford.protocol.journal.opening_records import Intent

IntentKey = tuple[str, bytes, int]


class DoubleSigning(AssertionError):
    """A second sighash for something that may be signed once: always a bug of ours."""


def intent_of(node: TreeNode) -> Intent:
    """Return the intent to sign one tree transaction."""
    return Intent(
        kind=node.kind.value,
        outpoint=node.tx.inputs[0].outpoint.serialize(),
        state_index=node.state_index or 0,
        sighash=node.task.sighash,
    )


def intent_of_commitment(commitment: Commitment) -> Intent:
    """Return the intent to sign one commitment: ours, or the peer's."""
    return Intent(
        kind=f"commitment_{commitment.content.holder.name.lower()}",
        outpoint=commitment.funding.outpoint.serialize(),
        state_index=commitment.content.number,
        sighash=commitment.signing_task.sighash,
    )


def check_intents(
    known: Mapping[IntentKey, bytes], intents: tuple[Intent, ...]
) -> dict[IntentKey, bytes]:
    """Return the known intents with the new ones.

    Raises:
        DoubleSigning: If one of them has another sighash than before.
    """
    merged = dict(known)
    for intent in intents:
        key = (intent.kind, intent.outpoint, intent.state_index)
        if merged.setdefault(key, intent.sighash) != intent.sighash:
            raise DoubleSigning(f"{intent.kind} {intent.outpoint.hex()} {intent.state_index}")
    return merged
