"""What a role answers to an event: what to remember, and then what to do."""

from dataclasses import dataclass

from cromford.effects import Effect
from cromford.protocol.journal.records import AnyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Records to append durably and apply, then effects to perform. Never the other way."""

    records: tuple[AnyRecord, ...] = ()
    effects: tuple[Effect, ...] = ()

    def __add__(self, other: "Decision") -> "Decision":
        """Return both, one after the other."""
        return Decision(records=self.records + other.records, effects=self.effects + other.effects)


NOTHING = Decision()
