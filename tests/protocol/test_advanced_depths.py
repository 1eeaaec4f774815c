"""Leaves below several levels are advanced, and whoever leaves comes through all of them."""

from dataclasses import replace
from typing import Final

from tests.factory.specimen import dw
from tests.protocol.advances import both_links, check_sold, leaf_of, market, quote_for, sell
from tests.protocol.closes import losing
from tests.protocol.old_states import POLICY, told
from tests.protocol.paying_clients import balance, live_factory, pay
from tests.protocol.pump import Pump
from tests.protocol.test_leaving import wallet_sat

from cromford.factory.vertices import NodeKind
from cromford.protocol import events as ev
from cromford.protocol.journal import exit_records as xr
from cromford.wire import messages as m

N_CLIENTS: Final = 8
DEEP: Final = replace(
    POLICY, step_blocks=2, leaf_arity=2, inner_levels=dw([2, 2]), lstock_csv_blocks=4
)
BUYER, MATE, OTHER_BUYER = 1, 2, 8
SOLD_SAT: Final = 40_000
PAID_MSAT: Final = 20_000_000
MORE_MSAT: Final = 85_000_000  # More than a channel could hold before.
SWEEP_SAT: Final = 1_000  # More than what taking a balance costs, and satoshi rounded down.


def advanced() -> Pump:
    """Return a factory in which one leaf is advanced, and another before its channels know of it.

    They are under different inner vertices.
    """
    pump = live_factory(N_CLIENTS, policy=DEEP)
    for seat in (BUYER, MATE, OTHER_BUYER):
        assert pay(pump, pump.lsp, pump.client_at(seat), PAID_MSAT).status == "paid"
    with market():
        quote = sell(pump, BUYER, amount_sat=SOLD_SAT)
        check_sold(pump, BUYER, quote)
        with pump.tampering(losing(m.AdvanceHeld, of=lambda _node: True)):
            pump.lsp_says(pump.client_at(OTHER_BUYER), quote_for(pump, OTHER_BUYER))
            pump.run()
    return pump


def test_whoever_leaves_from_three_levels_deep_comes_out_of_the_newest_state_of_its_leaf() -> None:
    pump = advanced()
    assert pay(pump, pump.lsp, pump.client_at(BUYER), MORE_MSAT).status == "paid"
    vertices = pump.held(pump.client_at(BUYER)).branch.vertices
    assert [vertex.last.kind for vertex in vertices] == [NodeKind.STATE] * 3
    due_sat = {}
    for seat in (BUYER, OTHER_BUYER):
        client = pump.client_at(seat)
        due_sat[client] = balance(client).own_msat // 1000
        pump.handle(client, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.run()
    pump.mine(both_links(pump, BUYER)[0].exit_blocks + 4)
    for seat in (BUYER, OTHER_BUYER):
        leaf = leaf_of(pump, seat)
        assert len(leaf.states) == 2
        assert leaf.states[1].tx.txid in pump.chain.confirmed
    for client, client_due_sat in due_sat.items():
        assert client_due_sat - SWEEP_SAT < wallet_sat(client) <= client_due_sat
    mate = both_links(pump, MATE)[0]
    assert mate.is_open, "whoever stays goes on in a channel that is on chain"
    stocks_sat = sum(leaf_of(pump, seat).allocation.lstock_sat for seat in (BUYER, OTHER_BUYER))
    assert sum(one.amount_sat for one in told(pump.lsp, xr.OutputsSwept)) == stocks_sat
