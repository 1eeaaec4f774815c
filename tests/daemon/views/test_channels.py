"""Money is shown as spendable where a payment may begin now; else the status says why not."""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import backup_of, restore

from cromford.answers.channels import ChannelMoney
from cromford.daemon.views import client as client_views
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.channels import Standing, show_channel, status_of
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.policy import LspPolicy

PAID_MSAT = 30_000_000
QUICK = LspPolicy(min_clients=1, step_blocks=4, states_per_layer=2, lstock_csv_blocks=4)


def shown(pump: Pump, client: PumpNode, facts: Facts = FRESH) -> tuple[ChannelMoney, ChannelMoney]:
    """Return how a client and the LSP show the client's channel."""
    link = newest_link(client)
    standing = client_views.standing_of(client.state, link, facts)
    other = lsp_link(pump, link)
    return (
        show_channel(link, standing, client.state.chain),
        show_channel(
            other,
            lsp_views.standing_of(pump.factory, other, facts),
            pump.lsp.state.chain,
        ),
    )


def words_of(pump: Pump, client: PumpNode, facts: Facts = FRESH) -> tuple[str, str]:
    """Return both statuses, and check that nothing can be sent or received without `open`."""
    own, lsps = shown(pump, client, facts)
    for channel in (own, lsps):
        can = [channel["spendable_msat"], channel["receivable_msat"]]
        assert (max(can) > 0) == (channel["status"] == "open")
        assert channel["own_msat"] > 0, "the money is shown all the same"
    return own["status"], lsps["status"]


def paid_client() -> tuple[Pump, PumpNode]:
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, PAID_MSAT)
    return pump, alice


@pytest.mark.parametrize("side", ["client", "lsp"])
def test_a_marked_channel_says_why_and_at_which_balance_it_can_be_closed(side: str) -> None:
    pump, alice = paid_client()
    node = alice if side == "client" else pump.lsp
    restore(pump, (node, backup_of(node)))
    assert words_of(pump, alice) == (
        ("marked", "failed") if side == "client" else ("failed", "marked")
    )
    own, lsps = shown(pump, alice)
    mine, other = (own, lsps) if side == "client" else (lsps, own)
    what = "the store was restored from a backup: it can only be closed"
    who = "ask your LSP" if side == "client" else "see `lsp close`"
    least_sat = mine["own_msat"] // 1000
    assert mine["marked"] == f"{what}, at {least_sat:,} sat of ours or more: {who}"
    assert other["marked"] is None
    assert "restored from a backup" in str(other["failed"])


def test_money_in_an_open_channel_can_be_spent_and_only_while_the_peer_is_there() -> None:
    pump, alice = paid_client()
    assert words_of(pump, alice) == ("open", "open")
    pump.disconnect(alice)
    assert words_of(pump, alice) == ("offline", "offline")


def test_money_in_an_open_channel_cannot_be_spent_while_the_chain_is_stale() -> None:
    pump, alice = paid_client()
    assert words_of(pump, alice, Facts(stale="the node is silent")) == ("stale", "stale")
    pump.disconnect(alice)
    assert words_of(pump, alice, Facts(stale="the node is silent")) == ("stale", "stale")


def test_money_in_an_open_channel_cannot_be_spent_while_no_mark_can_be_written() -> None:
    pump, alice = paid_client()
    facts = Facts(unmarkable="the place is away")
    assert words_of(pump, alice, facts) == ("unmarkable", "unmarkable")


def test_money_whose_funding_was_reorganised_away_cannot_be_spent() -> None:
    """Its status says so until it is deep enough again."""
    pump, alice = paid_client()
    funding_txid = pump.attempt.funding_tx.txid
    min_depth = pump.attempt.terms.min_depth
    while alice.state.chain.depth(funding_txid) >= min_depth:
        for node in (alice, pump.lsp):
            pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    assert words_of(pump, alice) == ("pending", "pending")
    pump.sync()
    assert words_of(pump, alice) == ("open", "open")


def test_money_on_its_way_to_the_chain_cannot_be_spent() -> None:
    """Alice leaves; Bob's money is his to spend, whatever she publishes of the factory."""
    pump, alice = paid_client()
    bob = pump.clients[1]
    pay(pump, pump.lsp, bob, PAID_MSAT)
    link = newest_link(alice)
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    assert words_of(pump, alice)[0] == "exiting"
    assert words_of(pump, bob) == ("open", "open")
    pump.run()
    assert words_of(pump, alice) == ("exiting", "failed"), "the LSP heard that it is over"
    pump.mine()
    assert words_of(pump, alice) == ("exiting", "failed")
    assert words_of(pump, bob) == ("open", "open")
    (own, lsps) = shown(pump, bob)
    assert own["blocks_to_exit_deadline"] == lsps["blocks_to_exit_deadline"]
    assert (own["blocks_to_exit_deadline"] or 0) > 0
    pump.mine(40)
    assert words_of(pump, bob) == ("open", "open"), "its output is on chain, unspent"
    (own, lsps) = shown(pump, bob)
    assert own["blocks_to_exit_deadline"] is lsps["blocks_to_exit_deadline"] is None


def test_past_the_exit_deadline_and_behind_are_said_in_words() -> None:
    link = newest_link(paid_client()[1])
    over = Standing(is_usable=False, is_fresh=True, is_exiting=False, depth=9, min_depth=3)
    assert status_of(link, over) == "ending"
    assert status_of(replace(link, is_behind=True), over) == "behind"
    assert status_of(replace(link, failure="it is over"), replace(over, overtaken="dead")) == "dead"
