"""What the house remembers of the sweeps that take several outputs: how it knows its own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, assert_never

from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol.journal import sweep_records as sw
from cromford.watch.joint_sweep import SignedJoint

JOINTS_KEPT_MAX: Final = 64  # An older one is a stranger's: what it spends goes alone.


def with_joint_sweep(
    known: Mapping[Txid, SignedJoint], record: sw.JointSweepRecord
) -> Mapping[Txid, SignedJoint]:
    """Return the joint sweeps after remembering one thing, the newest last."""
    joints = dict(known)
    match record:
        case sw.JointSweepWasSigned():
            tx = Tx.parse(record.tx)
            joints[tx.txid] = SignedJoint(
                txid=tx.txid,
                factories=tuple(dict.fromkeys(record.factories)),
                outpoints=tuple(tx_in.outpoint for tx_in in tx.inputs),
                fee_sat=record.fee_sat,
                weight=tx.weight,
                since_height=record.since_height,
            )
        case sw.JointSweepParted(txid=data):
            txid = Txid(data)
            if txid in joints:
                joints[txid] = replace(joints[txid], is_parted=True)
        case _:
            assert_never(record)
    return dict([*joints.items()][-JOINTS_KEPT_MAX:])
