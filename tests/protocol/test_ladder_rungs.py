"""Everything that is done in a factory is done in the candidate that is live, whichever that is."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advances import check_sold, market, sell
from tests.protocol.attacks import flipped
from tests.protocol.closes import check_all_is_paid, close, finished
from tests.protocol.ladders import DEPTH, candidates, funded
from tests.protocol.movers import BALANCE_MSAT, DYING_SOON, HastyPump, World
from tests.protocol.paying_clients import balance, book, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import FIRST_MSAT, QUICK, backup_of, coins_sat, restore

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Tx
from cromford.daemon.signing import derive_keys
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.exit_package import exit_package
from cromford.protocol import events as ev
from cromford.protocol.journal.client_attempt import Complete
from cromford.protocol.journal.link import Link
from cromford.protocol.opening.verify import Verdict, verify_attempt
from cromford.protocol.policy import LspPolicy
from cromford.signing.keychain import ChannelKey

PAID_MSAT: Final = 3_000_000
ROOMY: Final = LspPolicy(
    min_clients=1,
    min_depth=1,
    step_blocks=8,
    states_per_layer=2,
    lstock_csv_blocks=8,
    to_self_delay_lsp=4,
    to_self_delay_client=5,
)


def confirm(pump: Pump, rung: int) -> None:
    """Let this candidate confirm, whichever the LSP published."""
    pump.chain.mempool.clear()
    pump.chain.broadcast(candidates(pump)[rung])
    pump.mine(DEPTH)
    links = [newest_link(client) for client in pump.clients]
    for link in (*links, *(book(pump.lsp).links[one.channel_id] for one in links)):
        check_is_in(pump, link, rung)
        assert link.is_open


def check_is_in(pump: Pump, link: Link, rung: int) -> None:
    """Check that a channel is in a candidate: its output, its name and its points."""
    assert link.key.candidate == rung
    assert link.path[0].outpoint.txid == candidates(pump)[rung].txid
    owner = (
        pump.lsp if link.key.channel else pump.by_id[pump.attempt.seats[link.client - 1].node_id]
    )
    assert owner.signer is not None
    point = owner.signer.per_commitment_point(link.key, link.state.own_signed)
    assert link.own_point == point


def live(rung: int, policy: LspPolicy = ROOMY) -> Pump:
    """Return a world of two clients that were paid in this candidate, and paid."""
    pump = funded(Pump(2, policy=policy, watches_folds=True))
    confirm(pump, rung)
    alice, bob = pump.clients
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"
    return pump


def verdicts(pump: Pump, client: PumpNode, **changes: Any) -> dict[str, Verdict]:
    """Return what `verify` finds, each check by its name, with another stage or other stages."""
    attempt = pump.held(client)
    assert client.signer is not None
    derived = derive_keys(client.signer, client.state, attempt)
    coin = pump.chain.coin(attempt.funding_outpoint)
    found = verify_attempt(client.state, replace(attempt, **changes), coin, derived)
    named = {verdict.check: verdict for verdict in found}
    assert len(named) == len(found), "two checks have one name"
    return named


def test_a_client_verifies_every_candidate_and_names_the_one_that_is_wrong() -> None:
    pump = live(2)
    alice = pump.clients[0]
    good = verdicts(pump, alice)
    assert all(verdict.ok for verdict in good.values())
    for name in ("kickoff_root", "first commitment"):
        assert {name, f"candidates[1].{name}", f"candidates[2].{name}"} <= set(good)
    assert str(candidates(pump)[2].txid) in good["funding"].detail
    second = pump.held(alice).ladder[1]
    assert isinstance(second, Complete)
    spoiled = replace(second, root_signature=flipped(second.root_signature))
    others = tuple(spoiled if one is second else one for one in pump.held(alice).other_stages)
    found = verdicts(pump, alice, other_stages=others)
    assert [name for name, one in found.items() if not one.ok] == ["candidates[1].kickoff_root"]


@pytest.mark.sampled(0)
def test_what_is_exported_is_of_the_candidate_that_is_live() -> None:
    pump = live(2)
    alice = pump.clients[0]
    pump.handle(alice, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    package = exit_package(alice.state, pump.held(alice), REGTEST)
    funding = candidates(pump)[2]
    assert package["funding"]["txid"] == str(funding.txid)
    root, *_ = (Tx.parse(bytes.fromhex(tx)) for tx in package["transactions"])
    assert root.inputs[0].outpoint.txid == funding.txid
    assert "commitment" in package
    exported = lsp_views.export(pump.factory)
    assert exported["funding"]["txid"] == str(funding.txid)
    pump.mine(40)
    assert coins_sat(alice) > (FIRST_MSAT - PAID_MSAT) // 1000 - 2_000


@pytest.mark.sampled(0)
def test_liquidity_is_sold_in_it_and_the_new_state_pays_whoever_leaves() -> None:
    pump = live(1)
    buyer = pump.client_at(1)
    with market():
        quote = sell(pump, 1)
    check_sold(pump, 1, quote)
    check_is_in(pump, newest_link(buyer), 1)
    assert all(verdict.ok for verdict in verdicts(pump, buyer).values())
    left_msat = balance(buyer).own_msat
    pump.handle(buyer, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine(60)
    newest = pump.attempt.leaf(1).states[-1]
    assert newest.tx.txid in pump.chain.confirmed
    assert coins_sat(buyer) > left_msat // 1000 - 2_000


@pytest.mark.sampled(0)
def test_a_close_together_spends_it() -> None:
    pump = live(1)
    owed_sat = {client.name: balance(client).own_msat // 1000 for client in pump.clients}
    close(pump)
    check_all_is_paid(pump)
    pump.mine()
    (record,) = finished(pump.lsp)
    assert record.outpoint == pump.attempt.funding_outpoint.serialize()
    spender = pump.factory.chain.spends[candidates(pump)[1].outpoint(0)]
    assert spender.serialize() in record.txs
    assert {client.name: coins_sat(client) for client in pump.clients} == owed_sat


@pytest.mark.sampled(0)
def test_who_moved_out_hands_over_the_keys_of_its_channel_in_it() -> None:
    """And the LSP signs with them for the seat."""
    pump = funded(HastyPump(2, policy=replace(DYING_SOON, active_blocks=40)))
    confirm(pump, 2)
    old = pump.factory
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, BALANCE_MSAT).status == "paid"
    pump.mine(40)
    mover, stayer = pump.clients
    pump.join(mover)
    pump.build()
    pump.run()
    pump.mine(DEPTH)
    world = World(pump, old)
    world.move(mover)
    pump.mine()
    assert world.attempt(mover).keys_taken
    seat = world.seat(mover)
    kept = pump.lsp.handed_over_keys.entries[old.number, seat]
    assert mover.signer is not None
    own = ChannelKey(attempt=world.attempt(mover).key_attempt, channel=0, candidate=2)
    assert kept.funding_pubkey == mover.signer.channel_pubkeys(own).funding_pubkey
    assert kept.funding_pubkey == old.attempt.seats[seat - 1].channel.funding_pubkey
    pump.disconnect(mover)
    pump.handle(pump.lsp, ev.CloseRequested(attempt_id=world.old_id))
    pump.run()
    pump.mine()
    assert old.attempt.funding_outpoint in world.factory.chain.spends, "nobody else was needed"
    assert coins_sat(stayer) == BALANCE_MSAT // 1000


@pytest.mark.sampled(1)
@pytest.mark.parametrize("side", ["client", "lsp"])
def test_a_store_of_before_it_confirmed_finds_its_channel_in_it(side: str) -> None:
    """It is marked, and closed at what the other side knows; nothing of a sibling is used."""
    pump = funded(Pump(2, policy=QUICK))
    alice, bob = pump.clients
    node = alice if side == "client" else pump.lsp
    backup = backup_of(node)
    confirm(pump, 1)
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"
    owed_sat = balance(alice).own_msat // 1000
    restore(pump, (node, backup))
    pump.sync()
    pump.run()
    restored = newest_link(alice)
    check_is_in(pump, restored, 1)
    link = restored if side == "client" else book(pump.lsp).links[restored.channel_id]
    assert link.mark is not None
    if side == "client":
        close(pump)
        check_all_is_paid(pump)
    else:  # Its restored store says that all is its own: it closes at nothing else.
        pump.handle(alice, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine(60)
    assert owed_sat - 2_000 < coins_sat(alice) <= owed_sat
