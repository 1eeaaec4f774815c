"""A close that was agreed at a low feerate, in full blocks, and pinned: one payee's child pays.

Strangers fill the blocks at 10 sat/vB, and nobody honest has a coin but what the close pays.
"""

from dataclasses import replace
from typing import Final

import pytest

from cromford.bitcoin.fees import TRUC_CHILD_VSIZE_MAX
from cromford.bitcoin.tx import Tx
from tests.functional.family_world import anchor_of, padded
from tests.functional.node_world import KEY_SCRIPT, Coin
from tests.matrix.market import HIGH
from tests.matrix.world import MatrixWorld
from tests.protocol.closes import BALANCES_MSAT, close, finished

POOR: Final = replace(HIGH, n_coins=0)
CLOSE_SAT_PER_KW: Final = 1_500  # 6 sat/vB, as a quiet day's node allows.
PIN_SAT: Final = 9_500  # Of 1,000 vB, just too little for a block.


@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_low_close_confirms_and_costs_one_payee_a_child(*, is_pinned: bool) -> None:
    world = MatrixWorld(n_clients=3, market=POOR, seed="pinned")
    for seat, amount_msat in zip((1, 2, 3), BALANCES_MSAT, strict=False):
        world.give(world.client_at(seat), amount_msat)
    before_sat = world.lsp.state.house.wallet.confirmed_sat()
    world.chain.fund_all([(KEY_SCRIPT, 100_000)])
    world.sync()
    close(world, feerates_sat_per_kw=(CLOSE_SAT_PER_KW,))
    (record,) = finished(world.lsp)
    (tx,) = (Tx.parse(data) for data in record.txs)
    assert world.chain.mempool_tx(tx.txid) is not None
    if is_pinned:
        pin(world, tx)
    world.begin()
    world.mine(2)
    assert world.chain.spends[tx.inputs[0].outpoint].txid == tx.txid

    paid_sat = {
        seat: amount_msat // 1000 for seat, amount_msat in ((1, 30_000_123), (2, 12_345_678))
    }
    short = {
        seat: amount_sat - world.client_at(seat).state.wallet.confirmed_sat()
        for seat, amount_sat in paid_sat.items()
    }
    lsp_sat = next(
        out.amount_sat for out in tx.outputs if out.script_pubkey == world.attempt.payout_script
    )
    short[0] = before_sat + lsp_sat - world.lsp.state.house.wallet.confirmed_sat()
    payers = {seat: cost_sat for seat, cost_sat in short.items() if cost_sat}
    assert len(payers) == 1, "whoever comes first pays, and nobody else"
    (cost_sat,) = payers.values()
    # The child has the anchor's 240 sat, too; the pin costs no more than its fee and our own size.
    assert 0 < cost_sat < (PIN_SAT + 200 if is_pinned else 4_000)
    assert world.client_at(3).state.wallet.confirmed_sat() == 0, "329,999 msat have no output"


def pin(world: MatrixWorld, tx: Tx) -> None:
    """Hang a stranger's child at the anchor, as large as one may be, and too cheap for a block."""
    ((outpoint, coin),) = world.coins_of([KEY_SCRIPT]).items()
    funds = Coin(outpoint, coin.txout.amount_sat, KEY_SCRIPT, ())
    world.chain.broadcast(
        padded([anchor_of(tx), funds], vsize=TRUC_CHILD_VSIZE_MAX, fee_sat=PIN_SAT)
    )
