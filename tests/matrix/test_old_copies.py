"""What is lost by running an old copy of a store, exactly, where nothing says that it is old."""

from collections.abc import Sequence

import pytest

from cromford.wire import messages as m
from tests.matrix.histories import give_everybody
from tests.matrix.market import LOW
from tests.matrix.play import finish
from tests.matrix.stores import live_through, restore
from tests.matrix.world import MatrixWorld
from tests.protocol.pump import PumpNode


@pytest.mark.sampled(0)
def test_an_old_copy_that_no_mark_tells_of_costs_all_of_its_channel_and_no_other_one() -> None:
    """Somebody copied files, no mark is kept, and the LSP is silent: the client leaves by itself.

    What it publishes is revoked. With `restore`, or a mark in a third place, it would publish none.
    """
    world = MatrixWorld(n_clients=2, market=LOW, seed="copied")
    client, other = (world.node(one.name) for one in world.members)
    give_everybody(world, client)
    past = live_through(world, client)
    world.note_ends()
    _, end = world.ends[client.name]
    due_sat = end.finished.commitment.content.accepter_msat // 1000

    def silent(by: PumpNode, to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        return () if client in (by, to) else (message,)

    with world.tampering(silent):
        restore(world, (client, past.clients[-3]), is_told=False)
        world.begin()
        accounts = finish(world, ["lsp"])
    world.chain.close()
    assert any(one.name.startswith("old commitment") for one in accounts.story)
    assert accounts.by_name[client.name].gain_sat == -due_sat
    assert accounts.by_name[client.name].held_sat == 0
    assert accounts.by_name["lsp"].gain_sat == due_sat
    assert accounts.by_name[other.name].gain_sat == 0
