"""After purchases everybody leaves with its own, out of a real Bitcoin Core's mempool."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.functional.core_chain import CoreChain
from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode
from tests.protocol.paying_clients import open_factory
from tests.protocol.pump import Pump
from tests.simulation.sold_exits import POLICY, SHAPES, Shape, play

from cromford.factory.terms import FeePolicy

# Who pays a tree's fees with children needs a daemon: `test_bumped_exits_on_core`.
PAID = {name: one for name, one in SHAPES.items() if one.fee_policy is FeePolicy.ENDOGENOUS}


def world_on(node: CoreNode, shape: Shape) -> Pump:
    """Return clients with live channels in a tree of this shape, whose one chain is this node's."""

    class CorePump(Pump):
        def new_chain(self) -> CoreChain:
            return CoreChain(node)

    policy = replace(POLICY, leaf_arity=shape.leaf_arity, inner_kind=shape.inner_kind)
    pump = CorePump(shape.n_clients, policy=policy)
    open_factory(pump)
    return pump


@pytest.mark.parametrize("shape", PAID.values(), ids=PAID)
def test_all_leave_one_after_the_other_with_what_they_bought(tmp_path: Path, shape: Shape) -> None:
    datadir = tmp_path / "core"
    datadir.mkdir()
    for running in started(datadir, "regtest"):
        world = world_on(CoreNode(running.url, running.cookie), shape)
        play(world, random.Random(f"on core {shape.n_clients}"))
