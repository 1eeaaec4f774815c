"""The house takes together what several factories have to give, while nobody else is after it.

What a factory has to give is true at each block, and said at each block: so it is no mail, and
nobody remembers it. What the house remembers is what it signed, to know its own in the mempool,
and what it will not take together again.
"""

from collections.abc import Mapping, Sequence

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.protocol import events as ev
from cromford.protocol.journal import sweep_records as sw
from cromford.protocol.journal.house import House
from cromford.protocol.turn import Turn
from cromford.watch.joint_sweep import REFUSED, WAITED, passes, plan_sweeps

JOINT_SWEEP = "joint_sweep"


def look_up_at_once(lookups: Sequence[fx.LookUpSpenders]) -> fx.LookUpSpenders:
    """Return one question for all that is due in one decision."""
    return fx.LookUpSpenders(
        factories=tuple(dict.fromkeys(one for asked in lookups for one in asked.factories)),
        outpoints=tuple(dict.fromkeys(one for asked in lookups for one in asked.outpoints)),
    )


def join(
    turn: Turn[House], due: Sequence[fx.SignSweep], spenders: Mapping[OutPoint, Txid]
) -> list[fx.SignSweep]:
    """Ask for what goes together, and return what goes alone."""
    key_of = {sweep.spend.output.outpoint: sweep.key for sweep in due}
    plan = plan_sweeps(
        [sweep.spend for sweep in due],
        spenders=spenders,
        known=turn.state.joint_sweeps,
        height=turn.height,
        fees=turn.facts.fees,
    )
    turn.remember(*(sw.JointSweepParted(txid=txid, reason=WAITED) for txid in plan.parted))
    for joint in plan.joint:
        keys = tuple(key_of[member.output.outpoint] for member in joint.members)
        turn.ask(fx.SignJointSweep(keys=keys, spend=joint))
    return [fx.SignSweep(key=key_of[one.output.outpoint], spend=one) for one in plan.alone]


def on_signed(turn: Turn[House], event: ev.JointSweepSigned) -> None:
    """Remember what was signed, then publish it."""
    asked, tx = event.asked, event.tx
    if tx.txid not in turn.state.joint_sweeps:
        entries = [turn.state.entry_of(key.attempt) for key in asked.keys]
        turn.remember(
            sw.JointSweepWasSigned(
                tx=tx.serialize(),
                fee_sat=asked.spend.fee_sat,
                since_height=asked.spend.since_height,
                factories=tuple(entry.number for entry in entries),
                attempt_ids=tuple(entry.attempt_id for entry in entries),
                outputs=tuple(member.output.name for member in asked.spend.members),
            )
        )
    turn.ask(fx.Broadcast(name=JOINT_SWEEP, tx=tx))


def on_refused(turn: Turn[House], event: ev.BroadcastRefused) -> tuple[int, ...]:
    """Part what our node refuses together; return the factories that are to be asked again.

    What it refuses for a reason that passes is signed again at the next block.
    """
    joint = turn.state.joint_sweeps.get(event.asked.tx.txid)
    if joint is None or joint.is_parted or passes(event.reason):
        return ()
    turn.remember(sw.JointSweepParted(txid=joint.txid, reason=f"{REFUSED}: {event.reason}"))
    return joint.factories
