"""What is due in a channel that is on chain, as plain data."""

import pytest

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.daemon.views.exit import describe_channel, due_entry
from cromford.watch.channel_exit import (
    AwaitPreimage,
    ChannelAction,
    NeedsChild,
    PublishCommitment,
    Unrecognised,
    Wait,
)
from cromford.watch.exit import WaitForFunding
from cromford.watch.sweep import TakingTx

TX = Tx(
    version=2,
    inputs=(TxIn(outpoint=OutPoint(txid=Txid(bytes(32)), vout=0), nsequence=0),),
    outputs=(TxOut(amount_sat=1000, script_pubkey=b"\x51"),),
    nlocktime=0,
)
TXID = str(TX.txid)
PUBLISH = PublishCommitment(tx=TX)
SWEEP = TakingTx(name="sweep", tx=TX, inputs=())


@pytest.mark.parametrize(
    ("action", "name", "status", "txid", "height"),
    [
        (PUBLISH, "commitment", "publish_now", TXID, 8),
        (SWEEP, "sweep", "publish_now", TXID, 8),
        (Wait(name="to_local", height=440), "to_local", "wait", None, 440),
        (
            AwaitPreimage(name="htlc opener 0", payment_hash=bytes(32), expiry_height=99),
            "htlc opener 0",
            "await_preimage",
            None,
            99,
        ),
        (NeedsChild(due=PUBLISH), "commitment", "publish_now", TXID, 8),
        (NeedsChild(due=SWEEP), "sweep", "publish_now", TXID, 8),
        (Unrecognised(tx=TX), "channel", "unrecognised", TXID, None),
        (WaitForFunding(), "channel", "wait", None, None),
    ],
)
def test_every_action_has_a_name_a_status_and_what_is_known_of_it(
    action: ChannelAction, name: str, status: str, txid: str | None, height: int | None
) -> None:
    entry = {"name": name, "status": status, "txid": txid, "height": height}
    assert due_entry(action, tip_height=7, is_withheld=False) == entry
    assert describe_channel(action, is_withheld=False)


def test_a_client_that_lost_state_withholds_its_commitment_and_says_so() -> None:
    entry = {"name": "commitment", "status": "withheld", "txid": TXID, "height": None}
    for action in (PUBLISH, NeedsChild(due=PUBLISH)):
        assert due_entry(action, tip_height=7, is_withheld=True) == entry
    assert "may be revoked" in describe_channel(PUBLISH, is_withheld=True)


def test_a_commitment_that_was_forgotten_is_told_by_what_becomes_of_it() -> None:
    forgotten = describe_channel(Unrecognised(tx=TX, pays_us=True), is_withheld=True)
    assert "what it pays is taken" in forgotten
    assert "what it pays is taken" not in describe_channel(Unrecognised(tx=TX), is_withheld=True)
