"""What is about to be signed, remembered first: one sighash for each thing, for ever."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from cromford.channel.commitment import Commitment
from cromford.factory.poison import Poison, PoisonKind
from cromford.factory.vertices import NodeKind, TreeNode
from cromford.protocol.journal.opening_records import Intent

IntentKey = tuple[str, bytes, int]
_POISONS: Final = frozenset(kind.value for kind in PoisonKind)


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


def intent_of_poison(poison: Poison) -> Intent:
    """Return the intent to sign one poison of a superseded state."""
    return Intent(
        kind=poison.kind.value,
        outpoint=poison.tx.inputs[0].outpoint.serialize(),
        state_index=poison.state.state_index or 0,
        sighash=poison.task.sighash,
    )


def check_intents(
    known: Mapping[IntentKey, bytes], intents: tuple[Intent, ...]
) -> dict[IntentKey, bytes]:
    """Return the known intents with the new ones.

    A state after the opening one may be signed once the one before it was, and a poison together
    with the state that supersedes what it spends.

    Raises:
        DoubleSigning: If one of them has another sighash than before, or must not be signed yet.
    """
    merged = dict(known)
    replaced = {intent.state_index - 1 for intent in intents if intent.kind == NodeKind.STATE}
    for intent in intents:
        _check_order(known, intent, replaced)
        key = (intent.kind, intent.outpoint, intent.state_index)
        if merged.setdefault(key, intent.sighash) != intent.sighash:
            raise DoubleSigning(_name(intent))
    return merged


def _check_order(
    known: Mapping[IntentKey, bytes], intent: Intent, replaced: AbstractSet[int]
) -> None:
    if intent.kind == NodeKind.STATE and intent.state_index > 0:
        before = (intent.kind, intent.outpoint, intent.state_index - 1)
        if before not in known:
            raise DoubleSigning(f"{_name(intent)}: the state before was never signed")
    if intent.kind in _POISONS and intent.state_index not in replaced:
        raise DoubleSigning(f"{_name(intent)}: nothing supersedes the state")


def _name(intent: Intent) -> str:
    return f"{intent.kind} {intent.outpoint.hex()} {intent.state_index}"
