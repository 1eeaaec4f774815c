"""What an LSP takes of several outputs in one transaction, while nobody else is after one of them.

One transaction is smaller than many, and one coin cheaper to spend. But whoever spends one of its
inputs keeps all of it out of a block. So only what nobody is seen to spend is joined; what a
transaction of somebody else spends, and what was refused or waited in vain together, goes alone.
What is refused for a reason that passes stays together, and is tried again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Final

from cromford.bitcoin.fees import P2TR_DUST_SAT, fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees
from cromford.watch.lsp_sweep import SweepTx, rival_of, sweep_tx
from cromford.watch.sweep import BLANK_SIGNATURE, SWEEP_VERSION

N_JOINED_MAX: Final = 50  # About 15,000 weight units, of the 400,000 that a node relays.
REFUSED: Final = "refused"
WAITED: Final = "it waited for a day"

# A node's words for what says nothing of one input: each alone would hear the same. A full mempool
# asks for more than a moment ago; where blocks were taken back, a timelock is not over.
_PASSING: Final = (
    "mempool full",
    "mempool min fee not met",
    "min relay fee not met",
    "non-final",
    "non-BIP68-final",
)


@dataclass(frozen=True, kw_only=True)
class JointSweep:
    """Sign each input by the LSP's path of its own factory, and broadcast the transaction.

    Attributes:
        members: What each input takes, in the order of the inputs.
        tx: The transaction.
        since_height: The tip when these outputs were first taken together.
    """

    members: tuple[SweepTx, ...]
    tx: Tx
    since_height: int

    @property
    def prevouts(self) -> tuple[TxOut, ...]:
        """What each input spends."""
        return tuple(member.prevout for member in self.members)

    @property
    def fee_sat(self) -> int:
        """What it pays."""
        return sum(prevout.amount_sat for prevout in self.prevouts) - self.tx.outputs[0].amount_sat

    def signed(self, signatures: Sequence[bytes]) -> Tx:
        """Return the transaction with a 64-byte signature for each input, which are not checked."""
        return self.tx.with_witnesses(
            *(
                member.signed(signature).inputs[0].witness
                for member, signature in zip(self.members, signatures, strict=True)
            )
        )

    @cached_property
    def _blank(self) -> Tx:
        return self.signed([BLANK_SIGNATURE] * len(self.members))

    @property
    def vsize(self) -> int:
        """The virtual bytes of the signed transaction."""
        return self._blank.vsize

    @property
    def weight(self) -> int:
        """Its weight units."""
        return self._blank.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedJoint:
    """What is remembered of a joint sweep that was signed.

    Attributes:
        txid: Its name.
        factories: The numbers of those whose outputs it takes.
        outpoints: What it spends.
        fee_sat: What it pays.
        weight: Of the signed transaction.
        since_height: The tip when these outputs were first taken together.
        is_parted: Whether they go alone from then on.
    """

    txid: Txid
    factories: tuple[int, ...]
    outpoints: tuple[OutPoint, ...]
    fee_sat: int
    weight: int
    since_height: int
    is_parted: bool = False


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What to do about all that is due now.

    Attributes:
        joint: What goes together.
        alone: What goes in a transaction of its own.
        parted: Joint sweeps whose outputs go alone from now on, for they waited too long.
    """

    joint: tuple[JointSweep, ...] = ()
    alone: tuple[SweepTx, ...] = ()
    parted: tuple[Txid, ...] = ()


def passes(reason: str) -> bool:
    """Say whether what a node refuses for this reason is to be tried as it is again."""
    return reason.startswith(_PASSING)


def plan_sweeps(
    due: Sequence[SweepTx],
    *,
    spenders: Mapping[OutPoint, Txid],
    known: Mapping[Txid, SignedJoint],
    height: int,
    fees: OwnFees,
) -> SweepPlan:
    """Return what goes together, and what alone.

    Together goes what nothing in the mempool spends. What waits there in a joint sweep of ours
    stays in it, and is signed again with the same inputs once the day's rate replaces it; what
    comes due meanwhile goes together by itself. After a day in vain a miner may know of a rival
    that our node does not: then each goes alone, the largest first, for it pays for the place of
    the joint sweep.

    Args:
        due: What can be taken now, as each would go alone.
        spenders: What spends their outpoints in the mempool, where something does.
        known: The joint sweeps that we signed.
        height: The tip.
        fees: One's own node's.
    """
    apart = {one for joint in known.values() if joint.is_parted for one in joint.outpoints}
    waiting: dict[Txid, list[SweepTx]] = {}
    free: list[SweepTx] = []
    alone: list[SweepTx] = []
    for sweep in due:
        spender = spenders.get(sweep.output.outpoint)
        if spender is not None and spender in known:
            waiting.setdefault(spender, []).append(sweep)
        elif spender is None and sweep.output.outpoint not in apart:
            free.append(sweep)
        else:
            alone.append(sweep)
    joint: list[JointSweep] = []
    parted: list[Txid] = []
    for txid, members in waiting.items():
        signed = known[txid]
        if signed.is_parted or height >= signed.since_height + SWEEP_BLOCKS:
            parted += [] if signed.is_parted else [txid]
            alone += _in_the_place_of(signed, members, fees)
        else:
            joint += _signed_again(signed, members, known, fees)
    for first in range(0, len(free), N_JOINED_MAX):
        together, rest = _worth_joining(free[first : first + N_JOINED_MAX], fees, height)
        joint += together
        alone += rest
    return SweepPlan(joint=tuple(joint), alone=tuple(alone), parted=tuple(parted))


def joint_sweep(members: Sequence[SweepTx], *, fees: OwnFees, since_height: int) -> JointSweep:
    """Return the transaction that takes several outputs to the first one's script.

    Each input keeps its own timelock: its nSequence, and of all expiries the latest as nLockTime,
    which has passed for each (BIP 65).

    Args:
        members: What it takes, each as it would go alone.
        fees: One's own node's.
        since_height: The tip when these outputs were first taken together.
    """
    draft = _draft(members, fee_sat=0, since_height=since_height)
    return _draft(members, fee_sat=_fee_sat(draft, fees), since_height=since_height)


def _draft(members: Sequence[SweepTx], *, fee_sat: int, since_height: int) -> JointSweep:
    amount_sat = sum(member.prevout.amount_sat for member in members) - fee_sat
    tx = Tx(
        version=SWEEP_VERSION,
        inputs=tuple(
            TxIn(outpoint=member.output.outpoint, nsequence=member.lock.nsequence)
            for member in members
        ),
        outputs=(replace(members[0].tx.outputs[0], amount_sat=amount_sat),),
        nlocktime=max(member.lock.nlocktime for member in members),
    )
    return JointSweep(members=tuple(members), tx=tx, since_height=since_height)


def _fee_sat(draft: JointSweep, fees: OwnFees) -> int:
    """Return the day's rate, and never less than what replaces the rivals of all its inputs.

    Our node sees none of them; another may. What replaces several pays all their fees and its own
    relay (BIP 125, rules 3 and 4), and no less than the feerate of any.
    """
    own_sat = fee_sat_of(vsize=draft.vsize, feerate_sat_per_kw=fees.within(SWEEP_BLOCKS))
    rivals = [rival for member in draft.members if (rival := rival_of(member)) is not None]
    if not rivals:
        return own_sat
    relay_sat = fee_sat_of(vsize=draft.vsize, feerate_sat_per_kw=fees.incremental_sat_per_kw)
    dearest = max(_rate(rival) for rival in rivals)
    rivals_sat = sum(rival.fee_sat for rival in rivals)
    return max(own_sat, rivals_sat + relay_sat, ceil(dearest * draft.weight))


def _rate(rival: FeeAndWeight | None) -> Fraction:
    return Fraction(0) if rival is None else Fraction(rival.fee_sat, rival.weight)


def _worth_joining(
    free: Sequence[SweepTx], fees: OwnFees, height: int
) -> tuple[list[JointSweep], list[SweepTx]]:
    """Return what goes together, as long as that costs no more, and what is left.

    One tree that is far dearer than the others would make all of them pay its feerate.
    """
    together = list(free)
    while len(together) > 1:
        joint = joint_sweep(together, fees=fees, since_height=height)
        if joint.fee_sat <= sum(sweep.fee_sat for sweep in together):
            return [joint], [sweep for sweep in free if sweep not in together]
        together.remove(max(together, key=lambda sweep: _rate(rival_of(sweep))))
    return [], list(free)


def _signed_again(
    signed: SignedJoint,
    members: Sequence[SweepTx],
    known: Mapping[Txid, SignedJoint],
    fees: OwnFees,
) -> list[JointSweep]:
    """Return the same inputs at the day's rate, if that takes the place of what waits."""
    if len(members) < len(signed.outpoints):
        return []  # Who has a bug to get over says nothing; what waits, waits.
    again = joint_sweep(members, fees=fees, since_height=signed.since_height)
    refused = known.get(again.tx.txid)
    is_refused = refused is not None and refused.is_parted
    return (
        [] if is_refused or again.fee_sat < _replacing_sat(signed, again.weight, fees) else [again]
    )


def _in_the_place_of(
    signed: SignedJoint, members: Sequence[SweepTx], fees: OwnFees
) -> list[SweepTx]:
    """Return the largest member, with a fee that takes the place of a joint sweep; none if dust."""
    largest = max(members, key=lambda sweep: sweep.prevout.amount_sat)
    replacing_sat = _replacing_sat(signed, largest.signed(BLANK_SIGNATURE).weight, fees)
    fee_sat = max(largest.fee_sat, replacing_sat)
    if largest.prevout.amount_sat - fee_sat < P2TR_DUST_SAT:
        return []
    payout_script = largest.tx.outputs[0].script_pubkey
    return [sweep_tx(largest.output, payout_script=payout_script, fee_sat=fee_sat)]


def _replacing_sat(signed: SignedJoint, weight: int, fees: OwnFees) -> int:
    return replacement_fee_sat(
        weight,
        parent=None,
        rival=FeeAndWeight(signed.fee_sat, signed.weight),
        incremental_sat_per_kw=fees.incremental_sat_per_kw,
    )
