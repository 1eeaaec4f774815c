"""A leaf that was sold of, on a real Bitcoin Core: leaving with what was bought, and old states."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.functional.core_chain import CoreChain
from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode
from tests.protocol.old_states import POLICY, bring_on_chain, look_again, sold
from tests.protocol.paying_clients import balance, newest_link, open_factory, pay
from tests.protocol.pump import Pump
from tests.protocol.test_leaving import leave, wallet_sat
from tests.protocol.test_superseded import SWEEP_SAT, poisoned_sat, punish_on_either

from cromford import effects as fx


def world_on(node: CoreNode) -> Pump:
    """Return two clients with live channels whose one chain is this node's."""

    class CorePump(Pump):
        def new_chain(self) -> CoreChain:
            return CoreChain(node)

    pump = CorePump(2, policy=POLICY)
    open_factory(pump)
    return pump


@pytest.fixture
def pump(tmp_path: Path) -> Iterator[Pump]:
    datadir = tmp_path / "core"
    datadir.mkdir()
    for running in started(datadir, "regtest"):
        yield world_on(CoreNode(running.url, running.cookie))


def test_a_client_leaves_with_what_it_received_through_its_purchase(pump: Pump) -> None:
    _, done = sold(pump=pump)
    alice, _ = pump.clients
    assert pay(pump, pump.lsp, alice, 70_000_000).status == "paid"
    due_sat = balance(alice).own_msat // 1000
    assert due_sat > done.before.allocation.capacities_sat[newest_link(alice).client - 1] - 2_000
    leave(pump, alice)
    assert done.leaf.state.tx.txid in pump.chain.confirmed
    assert due_sat - 1_000 < wallet_sat(alice) <= due_sat


def test_a_replaced_state_is_taken_apart_by_its_poisons_and_swept(pump: Pump) -> None:
    _, done = sold(pump=pump)
    lsp_sat = wallet_sat(pump.lsp)
    bring_on_chain(pump, done, 0)
    look_again(pump)
    pump.mine(3)
    for client in pump.clients:
        due_sat = sum(poisoned_sat(pump, client))
        assert due_sat - SWEEP_SAT < wallet_sat(client) < due_sat
        names = {one.name for one in pump.wishes(client, fx.Broadcast)}
        assert {"stock_poison v0", "poison_sweep"} < names
    pump.mine(20)
    assert wallet_sat(pump.lsp) == lsp_sat


@pytest.mark.parametrize("who", ["lsp", "client"])
@pytest.mark.parametrize("state_index", [0, 1])
def test_what_was_signed_for_both_outputs_is_punished_on_either(
    pump: Pump, who: str, state_index: int
) -> None:
    punish_on_either(pump, who, state_index)
