"""One participant leaves: the others go on paying, being paid, moving, and leave with their own."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol import test_leaving as leaving
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
from tests.protocol.test_leaving import publish_branch, reasons_to_leave, wallet_sat
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT, mine_to, only_expiry, remove_blocks

from cromford.bitcoin.tx import Tx, Txid
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.protocol import events as ev
from cromford.protocol.channels.client import is_usable as is_usable_for_client
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.channels.lsp import is_usable as is_usable_for_lsp
from cromford.protocol.exiting.client import arriving_total_sat
from cromford.protocol.exiting.stake import COME_BACK_BLOCKS
from cromford.protocol.facts import Facts
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(4)

QUICK: Final = replace(leaving.QUICK, to_self_delay_lsp=4, to_self_delay_client=5)
EXPIRING: Final = replace(QUICK, active_blocks=144, dying_blocks=144, ready_min_blocks=1)
SIZES: Final = pytest.mark.parametrize("n_clients", [3, 8])
VANISHED_BLOCKS: Final = 2_016
SWEEP_SAT: Final = 400  # More than a sweep of one output costs.


def with_money(n_clients: int, *, policy: LspPolicy = QUICK, **options: bool) -> Pump:
    """Return a live factory in which everybody but the first client has something."""
    pump = live_factory(n_clients, policy=policy, **options)
    for client in pump.clients[1:]:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    return pump


def root_of(client: PumpNode) -> Tx:
    """Return `kickoff_root` as a client holds it: it needs nobody to publish it."""
    (attempt,) = client.state.attempts.values()
    root: Tx = attempt.signed_branch.txs[0]
    return root


def publish_root(pump: Pump, client: PumpNode) -> None:
    """Let a client confirm `kickoff_root`, and nothing else."""
    pump.chain.broadcast(root_of(client))
    pump.mine()
    assert root_of(client).txid in pump.chain.confirmed


def ask_to_leave(pump: Pump, client: PumpNode) -> None:
    pump.handle(client, ev.ExitRequested(attempt_id=newest_link(client).attempt_id))
    pump.run()


def neighbour_of(pump: Pump, client: PumpNode) -> PumpNode:
    """Return who shares a client's leaf."""
    seat = pump.attempt.client_of(client.node_id)
    leaves = pump.attempt.tree.root.shape.leaves()
    (leaf,) = (leaf for leaf in leaves if seat in leaf.clients)
    (other,) = (mate for mate in leaf.clients if mate != seat)
    return pump.client_at(other)


def check_all_pay(pump: Pump, clients: list[PumpNode]) -> None:
    """Let each pay the next, and the LSP pay each."""
    for payer, payee in zip(clients, (*clients[1:], clients[0]), strict=True):
        assert pay(pump, payer, payee, 2_000_000).status == "paid"
        assert pay(pump, pump.lsp, payee, 1_000_000).status == "paid"


def check_leaves_with_its_balance(pump: Pump, client: PumpNode) -> None:
    """Let a client leave alone, and compare what reaches its wallet with what it had."""
    link, before_sat = newest_link(client), wallet_sat(client)
    had_sat = balance(client).own_msat // MSAT_PER_SAT
    ask_to_leave(pump, client)
    # Not a block longer than what was left of the exit, its delay, and the sweep.
    blocks = link.remaining(client.state.chain).exit_blocks
    pump.mine(blocks + link.setting.terms.to_self_delay(Party.ACCEPTER) + 2)
    assert had_sat - SWEEP_SAT < wallet_sat(client) - before_sat < had_sat


# Who leaves does not stop the others


@pytest.mark.sampled(1)
@SIZES
def test_a_client_with_nothing_that_confirms_the_root_stops_nobody(n_clients: int) -> None:
    pump = with_money(n_clients)
    poor, *others = pump.clients
    assert balance(poor).own_msat == 0
    publish_root(pump, poor)
    check_all_pay(pump, others)
    pump.mine(200)
    check_all_pay(pump, pump.clients[1:])
    assert pay(pump, others[0], poor, 1_000_000).status == "paid", "nor itself"
    assert all(reasons_to_leave(node) == [] for node in (pump.lsp, *pump.clients))
    check_leaves_with_its_balance(pump, others[-1])


@pytest.mark.sampled(1)
@SIZES
def test_the_others_pay_at_every_block_of_a_clients_exit_and_leave_later_with_what_is_theirs(
    n_clients: int,
) -> None:
    pump = with_money(n_clients, watches_folds=True)
    leaver, first, *_ = others = pump.clients[1:]
    mate = neighbour_of(pump, leaver)
    stay = [one for one in others if one not in {leaver, mate}]
    had_sat = balance(leaver).own_msat // MSAT_PER_SAT
    ask_to_leave(pump, leaver)
    for _ in range(newest_link(leaver).exit_blocks + 10):
        pump.mine()
        payer, payee = (pump.lsp, first) if len(stay) < 2 else (stay[0], stay[1])
        assert pay(pump, payer, payee, 400_000).status == "paid"
        pump.restart(payee)
        pump.run()
    assert had_sat - SWEEP_SAT < wallet_sat(leaver) < had_sat
    for client in stay[:2]:
        check_leaves_with_its_balance(pump, client)
    rest = [one for one in stay[2:] if newest_link(one).failure is None]
    if len(rest) > 1:
        check_all_pay(pump, rest)


def test_while_the_root_of_the_old_factory_is_confirmed_a_client_moves_to_a_second() -> None:
    policy = replace(QUICK, active_blocks=150, dying_blocks=144, ready_min_blocks=1)
    pump = with_money(3, policy=policy)
    poor, bob, carol = pump.clients
    publish_root(pump, poor)
    old = newest_link(bob)
    mine_to(pump, old.exit_deadline_height - policy.dying_blocks + 1)
    pump.join(bob, carol)
    assert pump.lsp.state.house.members[bob.node_id].is_moving
    pump.build(min_clients=2)
    pump.run()
    pump.mine(policy.min_depth)
    (new,) = (one for one in book(bob).links.values() if one.attempt_id == pump.attempt.attempt_id)
    assert new.attempt_id != old.attempt_id
    assert new.is_open
    pump.handle(bob, ev.MoveRequested(attempt_id=old.attempt_id))
    pump.run()
    assert book(bob).links[new.channel_id].state.accepter_msat == FIRST_MSAT
    assert book(bob).links[old.channel_id].state.accepter_msat == 0


def test_one_that_is_cut_off_from_its_path_is_not_usable() -> None:
    """Whatever it is that lands where the path was to be, the channel's output cannot follow."""
    pump = with_money(3)
    alice = pump.clients[1]
    link = newest_link(alice)
    other = Tx(version=2, inputs=root_of(alice).inputs, outputs=root_of(alice).outputs[:1])

    def usable(node: PumpNode) -> bool:
        ours = book(node).links[link.channel_id]
        if node is alice:
            return is_usable_for_client(alice.state, ours)
        return is_usable_for_lsp(pump.factory, ours)

    for node in (alice, pump.lsp):
        assert usable(node)
        (relevant,) = node.relevant((other,))
        height = node.state.chain.height + 1
        event = ev.BlockAdded(height=height, block_hash=Txid(bytes(32)), txs=(relevant,))
        pump.handle(node, event)
        assert not usable(node)


# The heights follow the chain


def pending_in(pump: Pump, payee: PumpNode) -> Link:
    """Leave an HTLC with a payee that shows its preimage to nobody; return the payee's end."""
    pump.handle(pump.lsp, make_invoice(pump, payee, WORTH_MSAT))
    pump.run_to(m.UpdateFulfillHtlc)
    pump.disconnect(payee)
    pump.run()
    return newest_link(payee)


def test_an_htlc_is_brought_on_chain_as_late_as_what_is_left_of_the_exit_allows() -> None:
    pump = live_factory(3, policy=QUICK)
    alice = pump.clients[0]
    whole = newest_link(alice).exit_blocks
    publish_root(pump, pump.clients[1])
    pump.mine(5)
    chain = alice.state.chain
    kickoff_blocks, delay_blocks = 6, 4
    assert newest_link(alice).remaining(chain).exit_blocks == whole - kickoff_blocks - delay_blocks
    link = pending_in(pump, alice)
    (live,) = link.state.htlcs
    assert publish_height(link, live.htlc.cltv_expiry, chain=chain) == (
        only_expiry(link) - whole + kickoff_blocks + delay_blocks - 18
    )
    state_blocks = 6  # Everybody published the root's state, so that no older one comes first.
    mine_to(pump, only_expiry(link) - whole + kickoff_blocks + delay_blocks + state_blocks - 19)
    assert reasons_to_leave(alice) == []
    pump.mine()
    assert reasons_to_leave(alice) == ["an HTLC expires"]


def test_invoices_and_forwards_ask_for_less_where_less_is_left() -> None:
    pump = with_money(3)
    bob, carol = pump.clients[1:]
    before = make_invoice(pump, bob, 1_000_000)
    publish_root(pump, pump.clients[0])
    pump.mine(5)
    after = make_invoice(pump, bob, 1_000_000)
    assert after.min_final_cltv_expiry_delta == before.min_final_cltv_expiry_delta - 10
    pump.handle(carol, after)
    pump.run()
    assert book(carol).payments[after.payment_hash].status == "paid"
    offered, forwarded = (pump.sent(node, m.UpdateAddHtlc)[-1] for node in (carol, pump.lsp))
    left = newest_link(carol).exit_blocks - 10
    assert offered.cltv_expiry - forwarded.cltv_expiry == left + 36
    assert offered.cltv_expiry == pump.chain.height + after.min_final_cltv_expiry_delta + left + 36


def test_a_reorganisation_of_the_root_gives_the_blocks_of_the_exit_back() -> None:
    pump = with_money(3)
    bob, carol = pump.clients[1:]
    link = newest_link(bob)
    whole = link.remaining(bob.state.chain)
    publish_root(pump, pump.clients[0])
    pump.mine(3)
    part = link.remaining(bob.state.chain)
    assert part.exit_blocks < whole.exit_blocks
    assert part.exit_deadline_height is not None
    assert whole.exit_deadline_height is not None
    assert part.exit_deadline_height > whole.exit_deadline_height
    remove_blocks(pump, 4)
    assert root_of(bob).txid not in bob.state.chain.confirmed
    assert link.remaining(bob.state.chain) == whole
    assert lsp_link(pump, link).remaining(pump.lsp.state.chain) == whole
    assert pay(pump, bob, carol, 1_000_000).status == "paid"
    check_leaves_with_its_balance(pump, bob)


def test_from_the_exit_deadline_on_nothing_is_added_while_anything_above_is_unconfirmed() -> None:
    pump = with_money(3, policy=EXPIRING)
    bob = pump.clients[1]
    link = newest_link(bob)
    publish_root(pump, pump.clients[0])
    pump.mine(9)  # The root's state is six deep, too.
    later = link.remaining(bob.state.chain).exit_deadline_height
    assert later is not None
    assert later == link.exit_deadline_height + 16
    mine_to(pump, later - 1)
    assert pay(pump, pump.lsp, bob, 1_000_000).status == "paid"
    pump.chain.mempool.clear()
    pump.mine()
    assert reasons_to_leave(bob) == ["the exit deadline"]
    assert not is_usable_for_client(bob.state, newest_link(bob))
    assert not is_usable_for_lsp(pump.factory, lsp_link(pump, link))


# A neighbour's exit brings the channel itself on chain


def landed_beside(policy: LspPolicy) -> tuple[Pump, PumpNode, PumpNode]:
    """Return a factory that one client left, its neighbour in the leaf, and a third."""
    pump = with_money(3, policy=policy)
    leaver = next(
        one
        for one in pump.clients
        if len(leaf_of(pump, one)) == 2  # The other leaf has one.
    )
    stays = neighbour_of(pump, leaver)
    (third,) = (one for one in pump.clients if one not in {leaver, stays})
    for client in (stays, third):
        if balance(client).own_msat == 0:
            assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    ask_to_leave(pump, leaver)
    publish_branch(pump, newest_link(stays))
    return pump, stays, third


def leaf_of(pump: Pump, client: PumpNode) -> tuple[int, ...]:
    seat = pump.attempt.client_of(client.node_id)
    leaves = pump.attempt.tree.root.shape.leaves()
    (leaf,) = (leaf for leaf in leaves if seat in leaf.clients)
    clients: tuple[int, ...] = tuple(leaf.clients)
    return clients


def outlive_the_factory(pump: Pump, stays: PumpNode) -> None:
    """Mine past the expiry, until the others have what is theirs and need no node any more."""
    mine_to(pump, newest_link(stays).expiry_height + 100)
    for client in [one for one in pump.clients if one is not stays]:
        assert wallet_sat(client) > 0
        assert arriving_total_sat(client.state) == 0
        pump.clients.remove(client)


@pytest.mark.sampled(0)
def test_a_channel_that_a_neighbour_brought_on_chain_is_an_ordinary_one_without_expiry() -> None:
    pump, stays, third = landed_beside(EXPIRING)
    link = newest_link(stays)
    assert pump.chain.coin(link.setting.funding.outpoint) is not None
    assert pay(pump, stays, third, 2_000_000).status == "paid"
    pump.mine(5)
    assert link.remaining(stays.state.chain).exit_deadline_height is None
    assert link.remaining(stays.state.chain).exit_blocks == 6
    mine_to(pump, link.expiry_height + 500)
    pump.restart(stays)
    pump.restart(pump.lsp)
    pump.run()
    assert reasons_to_leave(stays) == reasons_to_leave(pump.lsp) == []
    assert pay(pump, pump.lsp, stays, 3_000_000).status == "paid"
    fee_msat = next(iter(book(stays).payments.values())).fee_msat
    assert balance(stays).own_msat == FIRST_MSAT - 2_000_000 - fee_msat + 3_000_000
    check_leaves_with_its_balance(pump, stays)
    assert set(reasons_to_leave(third)) == {"the exit deadline"}, "it is not settled"


def test_an_htlc_in_a_settled_channel_takes_it_on_chain_24_blocks_before_it_expires() -> None:
    pump, stays, _ = landed_beside(QUICK)
    pump.mine(5)
    link = pending_in(pump, stays)
    mine_to(pump, only_expiry(link) - 25)
    assert reasons_to_leave(stays) == []
    pump.mine()
    assert reasons_to_leave(stays) == ["an HTLC expires"]
    had_sat = (balance(stays).own_msat + WORTH_MSAT) // MSAT_PER_SAT
    pump.mine(60)
    assert had_sat - 3_000 < wallet_sat(stays) < had_sat


@pytest.mark.sampled(1)
@pytest.mark.parametrize("is_seen_late", [False, True])
def test_of_a_vanished_client_the_lsp_brings_its_commitment_2016_blocks_after_it_was_seen(
    is_seen_late: bool,  # noqa: FBT001 - a case of two
) -> None:
    """And not before the factory's expiry, until which the money was promised."""
    pump, stays, _ = landed_beside(EXPIRING)
    link = newest_link(stays)
    pump.mine(5)
    if is_seen_late:
        outlive_the_factory(pump, stays)
        pump.disconnect(stays)
        due = link.expiry_height + 100 + VANISHED_BLOCKS
        pump.clients.remove(stays)
    else:
        pump.disconnect(stays)
        due = max(link.expiry_height, pump.chain.height + VANISHED_BLOCKS)
        pump.clients.remove(stays)
        outlive_the_factory(pump, stays)
    had_sat = balance(stays).own_msat // MSAT_PER_SAT
    mine_to(pump, due - 1)
    assert reasons_to_leave(pump.lsp) == []
    pump.mine()
    assert reasons_to_leave(pump.lsp) == ["the client vanished"]
    pump.mine(20)
    assert link.setting.funding.outpoint in pump.lsp.state.chain.spends
    pump.clients.append(stays)
    pump.sync()
    pump.mine(2)
    assert had_sat - SWEEP_SAT < wallet_sat(stays) < had_sat


@pytest.mark.sampled(0)
def test_a_client_that_comes_back_keeps_its_settled_channel() -> None:
    pump, stays, _ = landed_beside(EXPIRING)
    link = newest_link(stays)
    pump.mine(5)
    pump.disconnect(stays)
    outlive_the_factory(pump, stays)
    mine_to(pump, link.expiry_height + 1_000)
    pump.connect(stays)
    pump.run()
    pump.restart(pump.lsp)
    pump.run()
    pump.disconnect(stays)
    pump.mine(VANISHED_BLOCKS - 1)
    assert reasons_to_leave(pump.lsp) == []
    pump.connect(stays)
    pump.run()
    assert pay(pump, pump.lsp, stays, 1_000_000).status == "paid"


@pytest.mark.sampled(0)
def test_nobody_vanished_while_the_lsp_itself_was_away() -> None:
    """It reads weeks of blocks in a moment, before anybody had the time to come back."""
    pump, stays, _ = landed_beside(EXPIRING)
    pump.mine(5)
    outlive_the_factory(pump, stays)
    pump.lsp.die()
    pump.disconnect(stays)
    pump.mine(VANISHED_BLOCKS + 10)

    fresh_since = pump.chain.height - 2

    def facts_at(own_height: int) -> Facts:
        is_fresh = own_height >= fresh_since
        return Facts(fresh_since=fresh_since) if is_fresh else Facts(stale="blocks are missing")

    pump.lsp.facts_at = facts_at
    pump.lsp.start()
    pump.sync()
    mine_to(pump, fresh_since + COME_BACK_BLOCKS - 1)
    assert reasons_to_leave(pump.lsp) == []
    pump.connect(stays)
    pump.run()
    assert pay(pump, pump.lsp, stays, 1_000_000).status == "paid"

    pump.disconnect(stays)
    pump.mine(VANISHED_BLOCKS - 1)
    assert reasons_to_leave(pump.lsp) == []
    pump.mine()
    assert reasons_to_leave(pump.lsp) == ["the client vanished"]


@pytest.mark.sampled(0)
def test_who_does_not_come_back_to_an_lsp_that_was_away_vanished() -> None:
    pump, stays, _ = landed_beside(EXPIRING)
    pump.mine(5)
    outlive_the_factory(pump, stays)
    pump.lsp.die()
    pump.disconnect(stays)
    pump.clients.remove(stays)
    pump.mine(VANISHED_BLOCKS)
    fresh_since = pump.chain.height
    pump.lsp.facts_at = lambda _own_height: Facts(fresh_since=fresh_since)
    pump.lsp.start()
    pump.sync()
    pump.mine(COME_BACK_BLOCKS - 1)
    assert reasons_to_leave(pump.lsp) == []
    pump.mine(1)
    assert reasons_to_leave(pump.lsp) == ["the client vanished"]
