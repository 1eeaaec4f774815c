"""Events about what is on chain: what the signer made of it, what the node and the journal know."""

from dataclasses import dataclass

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.content import CommitmentContent
from cromford.effects import (
    LookUpSpenders,
    RecallCommitment,
    SignJointSweep,
    SignPayouts,
    SignSweep,
    SignTakingTx,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakingTxSigned:
    """Answers `SignTakingTx`."""

    asked: SignTakingTx
    tx: Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSigned:
    """Answers `SignSweep`."""

    asked: SignSweep
    tx: Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendersLookedUp:
    """Answers `LookUpSpenders`; what nothing in the mempool spends is not in it."""

    asked: LookUpSpenders
    spenders: tuple[tuple[OutPoint, Txid], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutsSigned:
    """Answers `SignPayouts`."""

    asked: SignPayouts
    tx: Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class JointSweepSigned:
    """Answers `SignJointSweep`."""

    asked: SignJointSweep
    tx: Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRecalled:
    """Answers `RecallCommitment`."""

    asked: RecallCommitment
    content: CommitmentContent
