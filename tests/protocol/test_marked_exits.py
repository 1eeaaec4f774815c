"""What a restored store publishes, and what it ends with, whatever the other side publishes."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import (
    balance,
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import FIRST_MSAT as PAID_FIRST_MSAT
from tests.protocol.restoring import (
    QUICK,
    STEP_MSAT,
    Past,
    backup_of,
    coins_sat,
    is_marked_at,
    link_of,
    live_through,
    published,
    restore,
)
from tests.protocol.test_exit_guards import ask_to_leave, own_commitments, remembered
from tests.protocol.test_leaving import mute, reasons_to_leave
from tests.protocol.unanswered import (
    FIRST_MSAT,
    SMALL_MSAT,
    WORTH_MSAT,
    htlc_outpoint,
    mine_to,
    mine_until_spent,
    only_expiry,
    pending_for,
)

from cromford import effects as fx
from cromford.bitcoin.network import REGTEST
from cromford.crypto.keys import sha256
from cromford.daemon.views.exit_package import exit_package
from cromford.protocol import events as ev
from cromford.protocol.channels.marks import least_close_msat
from cromford.protocol.exiting import client as client_exits
from cromford.protocol.exiting.client import EXIT_DEADLINE
from cromford.protocol.exiting.rest import wakes_at
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(6)

UPDATES_MSAT: Final = [STEP_MSAT, -2 * STEP_MSAT, STEP_MSAT, -STEP_MSAT]
SWEEP_SAT: Final = 400  # More than a sweep of one output costs here.
TREE: Final = {"kickoff_root", "state_root"}


def used_factory() -> tuple[Pump, Past]:
    pump = live_factory(2, policy=QUICK)
    return pump, live_through(pump, UPDATES_MSAT)


def bring_on_chain(pump: Pump, node: PumpNode) -> Link:
    """Let a side leave Alice's channel, until its output is on chain; return the channel."""
    ask_to_leave(pump, node, pump.clients[0])
    link = link_of(pump, node)
    txid = link.setting.funding.outpoint.txid
    for _ in range(200):
        if txid in pump.chain.confirmed:
            return link
        pump.mine()
    raise AssertionError("the channel's output never comes on chain")


def mute_about_the_restore(
    _by: PumpNode, _to: PumpNode, message: m.Message
) -> tuple[m.Message, ...]:
    """Let neither side hear that the other's store was restored, nor where it stands."""
    is_lost = isinstance(message, m.StoreMarked | m.ChannelReestablish | m.ChannelFailure)
    return () if is_lost else (message,)


def vanish(pump: Pump, client: PumpNode) -> None:
    """Let a client be gone for good."""
    pump.disconnect(client)
    client.die()
    pump.clients.remove(client)


def punished(pump: Pump, node: PumpNode) -> list[str]:
    """Return what a node took as a penalty."""
    taken = (one.spend.name for one in pump.wishes(node, fx.SignTakingTx))
    return [name for name in taken if name.startswith("penalty")]


# A client


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("n_lost", "when"),
    [(0, "the operator asks"), (3, "the operator asks"), (1, "the exit deadline comes")],
)
def test_a_restored_client_publishes_its_path_and_is_paid_by_the_lsps_commitment(
    n_lost: int, when: str
) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-1 - n_lost]))
    link = newest_link(alice)
    if when == "the operator asks":
        ask_to_leave(pump, alice, alice)
    else:
        mine_to(pump, link.exit_deadline_height - 1)
    pump.restart(alice)
    mine_until_spent(pump, link.setting.funding.outpoint)
    pump.mine(2)
    assert past.commitments[-1].txid in pump.chain.confirmed, "the LSP's latest"
    assert own_commitments(pump, alice) == []
    assert punished(pump, alice) == punished(pump, pump.lsp) == []
    due_sat = past.alice_msat[-1] // 1000
    assert due_sat - SWEEP_SAT <= coins_sat(alice) <= due_sat


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("n_lost", "n_back"), [(1, 0), (2, 1), (3, 0), (3, 2), (2, 2), (1, 2), (2, 3)]
)
def test_whatever_an_lsp_publishes_a_restored_client_has_the_least_balance_since_its_backup(
    n_lost: int, n_back: int
) -> None:
    """A newer commitment is no revoked one; an older one that it knows is revoked is punished."""
    pump, past = used_factory()
    alice = pump.clients[0]
    with pump.tampering(mute_about_the_restore):
        restore(pump, (alice, past.alice[-1 - n_lost]))
        bring_on_chain(pump, alice)
        pump.lsp.die()
        pump.chain.broadcast(past.commitments[-1 - n_back])
        pump.mine(8)
    assert past.commitments[-1 - n_back].txid in pump.chain.confirmed
    assert own_commitments(pump, alice) == []
    if n_back > n_lost:
        assert punished(pump, alice), "what was revoked before the backup is known to be"
        assert coins_sat(alice) > past.alice_msat[-1 - n_back] // 1000
        return
    assert punished(pump, alice) == []
    since_msat = past.alice_msat[-1 - n_lost :]
    assert coins_sat(alice) >= min(since_msat) // 1000 - SWEEP_SAT
    assert coins_sat(alice) >= past.alice_msat[-1 - n_back] // 1000 - SWEEP_SAT


def test_a_restored_client_exports_its_path_alone() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    with pump.tampering(mute_about_the_restore):
        restore(pump, (alice, past.alice[-1]))
        ask_to_leave(pump, alice, alice)
    own = past.own_commitments[-1].serialize().hex()
    document = str(exit_package(alice.state, pump.held(alice), REGTEST))
    assert own not in document
    attempt_id = newest_link(alice).attempt_id
    pump.handle(alice, ev.ExitRequested(attempt_id=attempt_id, publishes_stale=True))
    assert own in str(exit_package(alice.state, pump.held(alice), REGTEST))


@pytest.mark.parametrize("n_lost", [0, 2])
def test_an_operator_who_publishes_a_stale_commitment_all_the_same_is_punished_for_it(
    n_lost: int,
) -> None:
    """So nobody does without being told; with nothing lost it is as good as any."""
    pump, past = used_factory()
    alice = pump.clients[0]
    with pump.tampering(mute_about_the_restore):
        restore(pump, (alice, past.alice[-1 - n_lost]))
    link = newest_link(alice)
    pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id, publishes_stale=True))
    mine_until_spent(pump, link.setting.funding.outpoint)
    assert past.own_commitments[-1 - n_lost].txid in pump.chain.confirmed
    pump.mine(10)
    assert bool(punished(pump, pump.lsp)) == (n_lost > 0)
    assert (coins_sat(alice) > 0) == (n_lost == 0)


def test_what_the_peer_proved_to_be_revoked_is_not_the_operators_to_publish() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-2]))
    link = newest_link(alice)
    assert link.is_behind
    assert alice.driver is not None
    with pytest.raises(Rejected, match="the peer proved"):
        alice.driver.handle(ev.ExitRequested(attempt_id=link.attempt_id, publishes_stale=True))
    assert reasons_to_leave(alice) == []


@pytest.mark.parametrize("side", ["client", "lsp"])
def test_a_store_that_was_not_restored_withholds_nothing(side: str) -> None:
    pump, _ = used_factory()
    alice = pump.clients[0]
    node = alice if side == "client" else pump.lsp
    link = newest_link(alice)
    request = ev.ExitRequested(
        attempt_id=link.attempt_id,
        client=None if side == "client" else link.client,
        publishes_stale=True,
    )
    assert node.driver is not None
    with pytest.raises(Rejected, match="nothing is withheld"):
        node.driver.handle(request)
    assert reasons_to_leave(node) == []


def test_an_lsp_leaves_the_channel_of_a_restored_client_once_it_could_have_been_closed() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-2]))
    since = link_of(pump, pump.lsp).failed_height
    assert since is not None
    mine_to(pump, since + QUICK.failed_channel_blocks - 1)
    assert reasons_to_leave(pump.lsp) == []
    pump.mine()
    (reason,) = reasons_to_leave(pump.lsp)
    assert reason.startswith("the channel failed at height"), "it ended the channel, and leaves"


# An LSP


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_lost", [0, 2])
def test_a_client_of_a_restored_lsp_leaves_by_itself_and_both_are_paid(n_lost: int) -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (pump.lsp, past.lsp[-1 - n_lost]))
    before = len(pump.wishes(pump.lsp, fx.Broadcast))
    link = newest_link(alice)
    mine_until_spent(pump, link.setting.funding.outpoint)
    pump.mine(8)
    assert reasons_to_leave(alice)[0].startswith("the channel failed at height")
    assert past.own_commitments[-1].txid in pump.chain.confirmed
    names = {one.name for one in pump.wishes(pump.lsp, fx.Broadcast)[before:]}
    assert not names & {"commitment"}
    assert not any(name.startswith(("kickoff", "state", "static")) for name in names), names
    assert any(name.startswith("sweep") for name in names), "its balance is its own"
    assert punished(pump, pump.lsp) == punished(pump, alice) == []
    assert coins_sat(alice) >= past.alice_msat[-1] // 1000 - SWEEP_SAT


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_lost", [0, 2])
def test_a_restored_lsp_publishes_nothing_and_sweeps_at_the_expiry(n_lost: int) -> None:
    pump, past = used_factory()
    restore(pump, (pump.lsp, past.lsp[-1 - n_lost]))
    link = link_of(pump, pump.lsp)
    funding = pump.attempt.funding_outpoint
    before = len(pump.wishes(pump.lsp, fx.Broadcast))
    for client in [*pump.clients]:
        vanish(pump, client)
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected, match="restored from a backup"):
        pump.lsp.driver.handle(ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.restart(pump.lsp)
    mine_to(pump, link.expiry_height - 1)
    assert pump.wishes(pump.lsp, fx.Broadcast)[before:] == []
    assert reasons_to_leave(pump.lsp) == []
    pump.mine(3)
    assert funding in pump.lsp.state.chain.spends
    names = {one.name for one in pump.wishes(pump.lsp, fx.Broadcast)[before:]}
    assert not names & {"commitment", "kickoff_root"}


def test_an_exit_of_an_lsp_that_had_begun_before_the_backup_does_not_go_on() -> None:
    """Its commitment is the last one, but the path to it takes the place of what is swept."""
    pump, _ = used_factory()
    alice = pump.clients[0]
    link = link_of(pump, pump.lsp)
    pump.chain.mempool.clear()
    ask_to_leave(pump, pump.lsp, alice)
    pump.chain.mempool.clear()
    backup = backup_of(pump.lsp)
    for client in [*pump.clients]:
        vanish(pump, client)
    restore(pump, (pump.lsp, backup))
    assert not is_marked_at_lsp(pump, link)
    before = len(pump.wishes(pump.lsp, fx.Broadcast))
    pump.mine(30)
    assert pump.wishes(pump.lsp, fx.Broadcast)[before:] == []
    request = ev.ExitRequested(attempt_id=link.attempt_id, client=link.client, publishes_stale=True)
    pump.handle(pump.lsp, request)
    assert remembered(pump.lsp, cr.StaleAllowed) == [cr.StaleAllowed(channel_id=link.channel_id)]
    mine_until_spent(pump, link.setting.funding.outpoint)
    assert link.finished.tx.txid in pump.chain.confirmed


def is_marked_at_lsp(pump: Pump, link: Link) -> bool:
    return book(pump.lsp).links[link.channel_id].mark is not None


def test_a_marked_factory_does_not_sleep_and_hears_that_nothing_was_lost() -> None:
    pump, _ = used_factory()
    for client in pump.clients:
        pump.disconnect(client)
    assert wakes_at(pump.factory) == pump.factory.lifetime.dying_height
    clients, pump.clients = pump.clients, []
    restore(pump, (pump.lsp, backup_of(pump.lsp)))
    assert wakes_at(pump.factory) is None
    pump.handle(pump.lsp, ev.StoreProven())
    assert wakes_at(pump.factory) == pump.factory.lifetime.dying_height
    pump.clients = clients


def test_the_operator_of_a_restored_lsp_may_take_the_risk() -> None:
    pump, past = used_factory()
    alice = pump.clients[0]
    with pump.tampering(mute_about_the_restore):
        restore(pump, (pump.lsp, past.lsp[-1]))
    link = link_of(pump, pump.lsp)
    request = ev.ExitRequested(attempt_id=link.attempt_id, client=link.client, publishes_stale=True)
    vanish(pump, alice)
    pump.handle(pump.lsp, request)
    mine_until_spent(pump, link.setting.funding.outpoint)
    assert past.commitments[-1].txid in pump.chain.confirmed


def test_a_restored_lsp_publishes_no_state_before_the_expiry_and_goes_on_below_from_then_on() -> (
    None
):
    """A client started the clock and vanished; whoever has a newer state has until the expiry."""
    pump, past = used_factory()
    alice, bob = pump.clients
    vanish(pump, bob)
    restore(pump, (pump.lsp, past.lsp[-2]))
    link = link_of(pump, pump.lsp)
    ask_to_leave(pump, alice, alice)
    pump.mine()
    kickoff = pump.attempt.tree.root_node.tx.txid
    assert kickoff in pump.chain.confirmed
    vanish(pump, alice)
    before = len(pump.wishes(pump.lsp, fx.Broadcast))
    mine_to(pump, link.expiry_height - 1)
    assert pump.wishes(pump.lsp, fx.Broadcast)[before:] == []
    pump.mine(30)
    names = {one.name for one in pump.wishes(pump.lsp, fx.Broadcast)[before:]}
    assert any(name.startswith("state") for name in names)
    assert "commitment" not in names


def test_an_htlc_brings_no_channel_of_a_restored_lsp_on_chain() -> None:
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    live_through(pump, [])
    request = make_invoice(pump, bob, STEP_MSAT)
    pump.disconnect(bob)
    pump.handle(alice, request)
    pump.run()
    assert book(pump.lsp).held
    restore(pump, (pump.lsp, backup_of(pump.lsp)))
    for client in [*pump.clients]:
        vanish(pump, client)
    expiry = only_expiry(link_of_lsp(pump))
    mine_to(pump, expiry + 20)
    assert reasons_to_leave(pump.lsp) == []
    assert published(pump, pump.lsp) == ["funding"]


@pytest.mark.parametrize("amount_msat", [SMALL_MSAT, WORTH_MSAT])
def test_a_restored_lsp_writes_no_htlc_off(amount_msat: int) -> None:
    """Its client may have answered, in what was lost."""
    pump = live_factory(3, policy=QUICK)
    _, link = pending_for(pump, "lsp", amount_msat)
    restore(pump, (pump.lsp, backup_of(pump.lsp)))
    for client in [*pump.clients]:
        vanish(pump, client)
    mine_to(pump, only_expiry(link) + 30)
    assert remembered(pump.lsp, cr.HtlcDecided) == []
    assert reasons_to_leave(pump.lsp) == []


def test_a_restored_lsp_takes_what_pays_for_a_preimage_that_a_lost_commitment_shows() -> None:
    """Its backup has the HTLC in both channels, and not what came later in the payee's."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    bob.facts_at = lambda _height: replace(FRESH, stale="no block comes")
    request = make_invoice(pump, bob, WORTH_MSAT)
    pump.handle(alice, request)
    pump.run()
    backup = backup_of(pump.lsp)
    pump.handle(pump.lsp, make_invoice(pump, bob, STEP_MSAT))
    pump.run()
    bob.facts_at = lambda _height: FRESH
    with pump.tampering(mute(bob, pump.lsp, m.UpdateFulfillHtlc, m.CommitmentSigned)):
        pump.handle(bob, ev.FactsChanged())
        pump.run()
    restore(pump, (pump.lsp, backup))
    bobs = newest_link(bob)
    assert book(pump.lsp).links[bobs.channel_id].state.peer_signed < bobs.state.own_signed
    ask_to_leave(pump, bob, bob)
    while not (decided := remembered(pump.lsp, cr.HtlcDecided)):
        pump.mine()
    assert bobs.finished.commitment.tx.txid in pump.chain.confirmed, "not the one in its store"
    (preimage,) = (one.preimage for one in decided)
    assert preimage is not None
    assert sha256(preimage) == request.payment_hash
    ask_to_leave(pump, alice, alice)
    outpoint = htlc_outpoint(newest_link(alice))
    mine_until_spent(pump, outpoint)
    taken = pump.lsp.state.chain.spends[outpoint]
    assert preimage in taken.inputs[0].witness


def test_a_restored_payer_learns_by_a_lost_commitment_that_it_paid() -> None:
    """Its backup has the HTLC, and not what came later: the LSP takes it in a later block."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    bob.facts_at = lambda _height: replace(FRESH, stale="no block comes")
    request = make_invoice(pump, bob, WORTH_MSAT)
    pump.handle(alice, request)
    pump.run()
    backup = backup_of(alice)
    pump.handle(pump.lsp, make_invoice(pump, alice, STEP_MSAT))
    pump.run()
    bob.facts_at = lambda _height: FRESH
    with pump.tampering(mute(pump.lsp, alice, m.UpdateFulfillHtlc, m.CommitmentSigned)):
        pump.handle(bob, ev.FactsChanged())
        pump.run()
    restore(pump, (alice, backup))
    link = lsp_link(pump, newest_link(alice))
    ask_to_leave(pump, pump.lsp, alice)
    mine_until_spent(pump, htlc_outpoint(link))
    assert link.finished.commitment.tx.txid in pump.chain.confirmed, "not one in its store"
    assert book(alice).payments[request.payment_hash].status == "paid"


def link_of_lsp(pump: Pump) -> Link:
    """Return the LSP's channel that holds an HTLC."""
    return next(link for link in book(pump.lsp).links.values() if link.state.htlcs)


# Both


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("n_alice_lost", "n_lsp_lost"), [(0, 0), (2, 1)])
def test_of_two_restored_sides_neither_publishes_a_commitment(
    n_alice_lost: int, n_lsp_lost: int
) -> None:
    """The client brings its channel on chain in time, where the close still can pay both."""
    pump, past = used_factory()
    alice = pump.clients[0]
    restore(pump, (alice, past.alice[-1 - n_alice_lost]), (pump.lsp, past.lsp[-1 - n_lsp_lost]))
    link = newest_link(alice)
    mine_to(pump, link.expiry_height + 10)
    assert link.setting.funding.outpoint.txid in pump.chain.confirmed
    assert pump.chain.coin(link.setting.funding.outpoint) is not None
    for node in (alice, pump.lsp):
        assert is_marked_at(pump, node)
        assert own_commitments(pump, node) == []
        assert punished(pump, node) == []


def test_what_two_restored_stores_found_is_brought_on_chain_whatever_the_clients_has() -> None:
    """Its backup is from before it was paid: else the expiry would take what both agree on."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.clients
    backups = [(client, backup_of(client)) for client in pump.clients]
    past = live_through(pump, [])
    restore(pump, *backups, (pump.lsp, past.lsp[-1]))
    link, other = newest_link(alice), newest_link(bob)
    assert balance(alice).own_msat == balance(bob).own_msat == 0
    assert [least_close_msat(one) for one in (link, other)] == [PAID_FIRST_MSAT, 0]
    mine_to(pump, link.exit_deadline_height - 1)
    assert reasons_to_leave(alice) == []
    mine_to(pump, link.expiry_height + 10)
    assert pump.chain.coin(link.setting.funding.outpoint) is not None
    assert reasons_to_leave(alice) == [EXIT_DEADLINE]
    holding = client_exits.in_hand(alice.state, pump.held(alice))
    assert holding.stake.amount_sat == PAID_FIRST_MSAT // 1000
    assert reasons_to_leave(bob) == [], "both stores know that nothing in it is his"


def test_a_client_whose_restored_store_has_nothing_leaves_at_its_deadline_all_the_same() -> None:
    """Nobody told it what it has, and what is not on chain by the expiry is swept."""
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    backup = backup_of(alice)
    past = live_through(pump, [])
    with pump.tampering(mute_about_the_restore):
        restore(pump, (alice, backup))
        link = newest_link(alice)
        assert balance(alice).own_msat == 0
        mine_to(pump, link.exit_deadline_height - 1)
        assert reasons_to_leave(alice) == []
        pump.mine()
        assert reasons_to_leave(alice) == [EXIT_DEADLINE]
        at_stake_sat = client_exits.in_hand(alice.state, pump.held(alice)).stake.amount_sat
        assert at_stake_sat == link.setting.funding.capacity_sat // 2, "else nothing pays for it"
    pump.restart(alice)
    mine_until_spent(pump, link.setting.funding.outpoint)
    pump.mine(2)
    due_sat = past.alice_msat[-1] // 1000
    assert due_sat - SWEEP_SAT <= coins_sat(alice) <= due_sat, "the LSP's commitment pays it"
