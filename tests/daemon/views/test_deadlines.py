"""The blocks to the next deadline are of what can still be lost, and of nothing that is over."""

from types import SimpleNamespace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import live_factory
from tests.protocol.test_forked_fundings import overtaken
from tests.protocol.test_key_handover import gone
from tests.protocol.unanswered import WORTH_MSAT, mine_to, pending_for

from cromford.daemon.api.client_payments import ClientPayments
from cromford.daemon.views.client import summary
from cromford.daemon.views.deadlines import (
    FAR_BLOCKS,
    client_deadline_blocks,
    factory_deadline_blocks,
)
from cromford.daemon.views.lsp import channels_of, look_blocks
from cromford.protocol.facts import FRESH
from cromford.protocol.journal.lsp_state import LspState

SETTLED_BLOCKS: Final = 2_300  # After which nothing of an exit is left to be done.
RESOLVED_BLOCKS: Final = 3  # From where a funding counts as dead, until it does so for good.


def lsp_deadline_blocks(state: LspState) -> int | None:
    """Return what the LSP's numbers say of its factories together."""
    left = [factory_deadline_blocks(factory) for factory in state.all_factories()]
    return min(left) if min(left) < FAR_BLOCKS else None


def test_who_moved_out_has_no_deadline_in_the_old_factory() -> None:
    world, mover = gone()
    mine_to(world.pump, world.attempt(mover).lifetime.exit_deadline_height - 1)
    left = client_deadline_blocks(mover.state)
    assert left is None or left > 1


def test_of_a_funding_that_is_dead_nothing_is_due_and_nothing_is_left() -> None:
    pump, _ = overtaken()
    pump.mine(RESOLVED_BLOCKS)
    alice, lsp = pump.clients[0], pump.lsp
    owner: Any = SimpleNamespace(state=alice.state, book=alice.state.book, facts=FRESH)
    assert client_deadline_blocks(alice.state) is None
    assert lsp_deadline_blocks(lsp.state) is None
    samples = [*ClientPayments(owner, sign_node=bytes).samples()]
    assert ("channels_msat", {"kind": "own"}, 0) in samples
    assert channels_of(lsp.state.house, lsp.state.factory(0), FRESH) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("side", ["lsp", "payee", "payer"])
def test_an_htlc_that_the_chain_decided_is_waited_for_no_more(side: str) -> None:
    pump = live_factory(3)
    node, _ = pending_for(pump, side, WORTH_MSAT)
    usual_blocks = look_blocks(pump.lsp.state)
    pump.mine(SETTLED_BLOCKS)
    left = lsp_deadline_blocks(pump.lsp.state)
    assert left is not None
    assert left > SETTLED_BLOCKS
    assert look_blocks(pump.lsp.state) == usual_blocks
    if node is not pump.lsp:
        (attempt,) = node.state.attempts.values()
        assert client_deadline_blocks(node.state) is None
        assert summary(node.state, attempt, FRESH)["look_blocks"] is None
