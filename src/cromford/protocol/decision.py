"""What a role answers to an event: what to remember, and then what to do."""

from collections.abc import Mapping
from dataclasses import dataclass

from cromford.channel.commitment import Commitment
from cromford.effects import Effect
from cromford.factory.vertices import StateNode, TreeNode
from cromford.protocol.records import AnyRecord, Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Records to append durably and apply, then effects to perform. Never the other way."""

    records: tuple[AnyRecord, ...] = ()
    effects: tuple[Effect, ...] = ()

    def __add__(self, other: "Decision") -> "Decision":
        """Return both, one after the other."""
        return Decision(records=self.records + other.records, effects=self.effects + other.effects)


NOTHING = Decision()

IntentKey = tuple[str, bytes, int]


class DoubleSigning(AssertionError):
    """A second sighash for something that may be signed once: always a bug of ours."""


def intent_of(node: TreeNode) -> Intent:
    """Return the intent to sign one tree transaction."""
    is_state = isinstance(node, StateNode)
    return Intent(
        kind="state" if is_state else "kickoff",
        outpoint=node.tx.inputs[0].outpoint.serialize(),
        state_index=node.state_index if isinstance(node, StateNode) else 0,
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
