"""How long each step of a ceremony may take, and what is never funded."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.attacks import kept, only_from, proposed
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_abandoned_fundings import POLICY, abandon, unheard

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.client_state import apply
from cromford.protocol.journal.lsp_attempt import Aborted
from cromford.protocol.journal.streams import CLIENT
from cromford.protocol.opening.client import on_coins
from cromford.protocol.opening.funding import fund, published_ladder
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

STEP_SECONDS: Final = 20  # The default of the LSP's policy.
CEREMONY_SECONDS: Final = 240  # Four steps of a client's 60.


def deadlines_set(pump: Pump, node: PumpNode) -> list[int]:
    """Return the seconds of every deadline that a node set for the attempt."""
    asked = pump.wishes(node, fx.SetDeadline)
    return [one.seconds for one in asked if one.deadline == deadline_of(pump)]


def deadline_of(pump: Pump) -> fx.AttemptDeadline:
    return fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)


def test_each_step_of_a_ceremony_has_its_own_deadline() -> None:
    pump = proposed(3)
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS]
    pump.run_to(m.SignedBelow)
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS] * 2
    pump.run_to(m.SignedRoot)
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS] * 3
    pump.run()
    assert pump.is_funded()
    assert deadlines_set(pump, pump.lsp) == [STEP_SECONDS] * 3
    assert (pump.lsp.name, deadline_of(pump)) not in pump.deadlines


def test_a_client_waits_for_all_steps_together_and_sets_its_deadline_once() -> None:
    pump = proposed(3)
    pump.run()
    for client in pump.clients:
        assert deadlines_set(pump, client) == [CEREMONY_SECONDS]
        assert (client.name, deadline_of(pump)) not in pump.deadlines


@pytest.mark.parametrize("missing", [m.SignBelow, m.SignRoot, m.Acknowledge])
def test_nothing_is_funded_while_somebody_holds_out(missing: type[m.Message]) -> None:
    """Whoever would ask for it: the wish itself is refused."""
    pump = proposed(3)
    silent = pump.client_at(2)
    with pump.tampering(only_from(silent, lambda _message: (), missing)):
        pump.run()
    assert pump.attempt.holdouts == (2,)
    with pytest.raises(AssertionError, match="funding before everybody holds an exit"):
        fund(pump.factory)
    assert not pump.is_funded()


def test_nothing_is_funded_after_an_abort_or_a_second_time() -> None:
    pump = proposed(2)
    pump.run()
    attempt = pump.attempt
    assert attempt.funded is not None
    for over in (attempt, replace(attempt, stage=Aborted(reason="over"))):
        with pytest.raises(AssertionError, match="funding before everybody holds an exit"):
            fund(replace(pump.factory, begun=over))


def test_nobody_hears_of_a_funding_before_it_is_signed() -> None:
    pump = proposed(2)
    watched = replace(pump.factory, is_watched=True)
    assert published_ladder(watched) == ()
    pump.run()
    assert published_ladder(pump.factory) == (pump.published[0],)
    assert published_ladder(replace(pump.factory, is_watched=False)) == ()


@pytest.mark.parametrize("kind", [m.Acknowledge, m.Resume])
def test_who_asks_about_a_factory_whose_coins_are_spent_hears_that_it_is_over(
    kind: type[m.Acknowledge | m.Resume],
) -> None:
    """It signed the root, and would wait for the funding up to its expiry."""
    pump = unheard()
    abandon(pump)
    pump.mine(POLICY.min_depth)
    attempt, client = pump.attempt, pump.clients[0]
    assert pump.factory.is_dead
    asked = kind(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    event = ev.MessageReceived(node_id=client.node_id, message=asked)
    decision = lsp_role.decide(pump.lsp.state, event)
    assert [one for one in decision.effects if isinstance(one, fx.Send)] == [
        fx.Send(
            node_id=client.node_id,
            message=m.Abort(attempt_id=attempt.attempt_id, reason="this attempt is over"),
        )
    ]
    assert kept(decision) == ()


def coins_for(attempt_id: bytes, propose: m.Propose | None = None) -> ev.CoinsLookedUp:
    asked = fx.LookUpCoins(attempt_id=attempt_id, outpoints=(), propose=propose)
    return ev.CoinsLookedUp(asked=asked, coins=())


def test_coins_that_nobody_looks_for_any_more_change_nothing() -> None:
    pump = proposed(2)
    client, (propose, *_) = pump.clients[0], pump.sent(pump.lsp, m.Propose)
    assert client_role.decide(client.state, coins_for(propose.attempt_id, propose)).is_nothing
    pump.run()
    assert client_role.decide(client.state, coins_for(propose.attempt_id, propose)).is_nothing


def test_coins_are_looked_up_for_a_proposal_alone() -> None:
    pump = proposed(1)
    (propose,) = pump.sent(pump.lsp, m.Propose)
    received = op.ProposalReceived(
        attempt_id=propose.attempt_id, client=propose.client, terms_hash=propose.terms_hash
    )
    turn = Turn(apply(pump.clients[0].state, received), apply, FRESH, stream=CLIENT)
    with pytest.raises(AssertionError, match="coins were looked up for no proposal"):
        on_coins(turn, coins_for(propose.attempt_id))
