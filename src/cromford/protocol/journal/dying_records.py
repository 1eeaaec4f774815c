"""What is remembered of a factory that dies: that it does, and what becomes of who is in it."""

from cromford.protocol.journal.record import Record


class PeriodBegan(Record, frozen=True, kw_only=True, tag="period_began"):
    """A factory began to die, is past its exit deadline, or expired: at this height it was told.

    Once for each period. A daemon that slept over the change says it late, and a reorganisation
    that takes the height back and brings it again does not say it a second time.
    """

    attempt_id: bytes
    height: int
    period: str


class CloseWanted(Record, frozen=True, kw_only=True, tag="close_wanted"):
    """The policy of the LSP asks for a cooperative close of what is left in a factory."""

    attempt_id: bytes
    height: int


class MoveChosen(Record, frozen=True, kw_only=True, tag="move_chosen"):
    """The client's operator says whether it moves out of this factory, whatever the policy says."""

    attempt_id: bytes
    is_moving: bool


class MoveStarted(Record, frozen=True, kw_only=True, tag="move_started"):
    """We pay ourselves: out of a factory that dies, into the newest of our channels."""

    attempt_id: bytes
    to_attempt_id: bytes
    payment_hash: bytes
    amount_msat: int


class MoveHindered(Record, frozen=True, kw_only=True, tag="move_hindered"):
    """A channel does not carry what we would pay ourselves now, for a reason that is new.

    Or we refused the terms of the next factory, or what the LSP signed of it (`is_refusal`).
    """

    attempt_id: bytes
    reason: str
    is_refusal: bool = False


class MoveEnded(Record, frozen=True, kw_only=True, tag="move_ended"):
    """What we paid ourselves has arrived, or came back: then it is tried again.

    `to_attempt_id` is the factory it is in now, if it arrived.
    """

    attempt_id: bytes
    to_attempt_id: bytes
    payment_hash: bytes
    amount_msat: int
    is_moved: bool


DyingRecord = PeriodBegan
ClientDyingRecord = MoveChosen | MoveStarted | MoveHindered | MoveEnded
LspDyingRecord = CloseWanted
