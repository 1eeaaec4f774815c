"""What is remembered of sweeps that take outputs of several trees together."""

from cromford.protocol.journal.record import Record


class JointSweepWasSigned(Record, frozen=True, kw_only=True, tag="joint_sweep_signed"):
    """One transaction takes several outputs of trees, about to be broadcast.

    `factories`, their numbers, `attempt_ids` and `outputs` say of each input whose tree it is from,
    and its name there. These outputs were first taken together when `since_height` was the tip.
    """

    tx: bytes
    fee_sat: int
    since_height: int
    factories: tuple[int, ...]
    attempt_ids: tuple[bytes, ...]
    outputs: tuple[str, ...]


class JointSweepParted(Record, frozen=True, kw_only=True, tag="joint_sweep_parted"):
    """What a transaction was to take together goes alone from now on, for this reason."""

    txid: bytes
    reason: str


JointSweepRecord = JointSweepWasSigned | JointSweepParted
