"""A client is told how often its node must see the chain: more often while it is leaving."""

from tests.protocol.closes import close
from tests.protocol.paying_clients import live_factory, lsp_link
from tests.protocol.test_neighbours_leave import pending_in
from tests.protocol.unanswered import mine_to

from cromford.daemon.views.client import summary
from cromford.daemon.views.lsp import look_blocks
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.facts import FRESH
from cromford.protocol.policy import LspPolicy

PATIENT = LspPolicy(min_clients=1, step_blocks=24, states_per_layer=2, lstock_csv_blocks=24)


def test_a_path_in_sight_is_looked_at_every_six_blocks() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    (attempt_id,) = alice.state.attempts

    def look_blocks() -> object:
        return summary(alice.state, alice.state.attempts[attempt_id], FRESH)["look_blocks"]

    assert look_blocks() == 12
    pump.handle(alice, ev.ExitRequested(attempt_id=attempt_id))
    pump.run()
    pump.mine(1)
    assert look_blocks() == 6


def test_an_htlc_that_is_at_stake_is_looked_after_in_time() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    (attempt_id,) = alice.state.attempts
    link = pending_in(pump, alice)
    (live,) = link.state.htlcs
    due_height = publish_height(link, live.htlc.cltv_expiry, chain=alice.state.chain)

    def look_blocks() -> object:
        return summary(alice.state, alice.state.attempts[attempt_id], FRESH)["look_blocks"]

    assert look_blocks() == 12, "it is far away"
    mine_to(pump, due_height - 5)
    assert look_blocks() == 5
    mine_to(pump, due_height - 1)
    assert look_blocks() == 1


def test_an_lsp_counts_what_it_owes_for_in_all_its_channels() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    assert look_blocks(pump.lsp.state) == PATIENT.look_blocks == 6
    link = lsp_link(pump, pending_in(pump, alice))
    (live,) = link.state.htlcs
    mine_to(pump, publish_height(link, live.htlc.cltv_expiry, chain=pump.factory.chain) - 2)
    assert look_blocks(pump.lsp.state) == 2


def test_what_was_closed_for_good_asks_nobody_to_look() -> None:
    pump = live_factory(2, policy=PATIENT)
    alice = pump.clients[0]
    (attempt_id,) = alice.state.attempts
    close(pump)
    pump.mine(5)
    told = summary(alice.state, alice.state.attempts[attempt_id], FRESH)
    assert (told["status"], told["look_blocks"]) == ("closed", 12), "a reorganisation may undo it"
    pump.mine(1)
    told = summary(alice.state, alice.state.attempts[attempt_id], FRESH)
    assert (told["status"], told["look_blocks"]) == ("closed", None)
