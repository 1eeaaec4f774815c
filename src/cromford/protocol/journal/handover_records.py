"""What is remembered of keys that clients hand over. None of it holds a key."""

from cromford.protocol.journal.record import Record


class KeyRetired(Record, frozen=True, kw_only=True, tag="key_retired"):
    """The client moved out of a factory, and gives its keys of it away: it never uses them again.

    Remembered before they are sent. `to_attempt_id` is the factory that it moved to.
    """

    attempt_id: bytes
    to_attempt_id: bytes
    height: int


class HandoverAnswered(Record, frozen=True, kw_only=True, tag="handover_answered"):
    """The LSP keeps the keys; or says why it does not, and they are sent again."""

    attempt_id: bytes
    refusal: str


class KeysHeld(Record, frozen=True, kw_only=True, tag="keys_held"):
    """A client's keys are kept, durably: the LSP signs for its seat in a close."""

    attempt_id: bytes
    client: int


class KeysLost(Record, frozen=True, kw_only=True, tag="keys_lost"):
    """A client's keys are not there any more, or damaged: it is asked again, or signs itself."""

    attempt_id: bytes
    client: int
    reason: str


ClientHandoverRecord = KeyRetired | HandoverAnswered
LspHandoverRecord = KeysHeld | KeysLost
