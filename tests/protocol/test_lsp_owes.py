"""What an LSP waits for and what it owes, as its operator and the next process find it."""

from typing import Any

import pytest
from tests.protocol.attacks import proposed
from tests.protocol.paying_clients import live_factory

from cromford import effects as fx
from cromford.protocol import lsp as lsp_role
from cromford.protocol.exiting import client as client_leaving
from cromford.protocol.exiting import lsp as lsp_leaving
from cromford.wire import messages as m


def test_whoever_is_waited_for_is_named_until_the_ceremony_is_over() -> None:
    """An operator reads it while it waits; nobody is waited for once it is funded or ended."""
    pump = proposed(2)
    seen = []
    for kind in (m.SignBelow, m.SignRoot, m.Acknowledge):
        pump.run_to(kind)
        seen.append((pump.attempt.stage.label, pump.attempt.holdouts))
    assert seen == [
        ("signing_below", (1, 2)),
        ("signing_root", (1, 2)),
        ("acknowledging", (1, 2)),
    ]
    pump.run()
    assert (pump.attempt.stage.label, pump.attempt.holdouts) == ("funding", ())

    ended = proposed(2)
    ended.reach_deadline(ended.lsp, fx.AttemptDeadline(attempt_id=ended.attempt.attempt_id))
    assert (ended.attempt.stage.label, ended.attempt.holdouts) == ("aborted", ())


@pytest.mark.parametrize("kind", [m.Propose, m.SignBelow, m.SignRoot])
def test_before_the_root_is_signed_an_lsp_owes_nothing_and_cannot_say_otherwise(
    kind: type[m.Message],
) -> None:
    """Nonces live in the process, so there is no ceremony to resume: nothing may be promised."""
    pump = proposed(2)
    pump.run_to(kind)
    assert pump.attempt.is_open
    assert lsp_role.resume(pump.lsp.state) == ()
    assert pump.attempt.signed is None


def test_a_funding_that_fell_out_of_the_mempool_is_published_with_the_next_block() -> None:
    pump = proposed(1)
    pump.run()
    funding_tx = pump.attempt.funding_tx
    pump.chain.mempool.clear()
    pump.mine()
    assert set(pump.chain.mempool) == {funding_tx.txid}
    pump.mine()
    n_broadcasts = len(pump.wishes(pump.lsp, fx.Broadcast))
    pump.mine()
    assert len(pump.wishes(pump.lsp, fx.Broadcast)) == n_broadcasts, "not once it confirmed"


@pytest.mark.parametrize(
    ("room", "asked", "n_blocks"),
    [(client_leaving, "exit_effects", 3), (lsp_leaving, "_exit_effects", 1)],
)
def test_what_is_owed_for_a_channel_is_asked_once_a_block_where_nothing_is_new(
    monkeypatch: pytest.MonkeyPatch, room: Any, asked: str, n_blocks: int
) -> None:
    """On either side: it is most of what a block costs. Then an LSP's factory is at rest."""
    monkeypatch.setattr("tests.simulation.sim_node.COMPARED_EVERY", 1_000_000)
    pump = live_factory(2)
    answer, n_asked = getattr(room, asked), 0

    def counted(*args: Any) -> Any:
        nonlocal n_asked
        n_asked += 1
        return answer(*args)

    monkeypatch.setattr(room, asked, counted)
    pump.mine(3)
    assert n_asked == 2 * n_blocks
