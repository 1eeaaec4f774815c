"""When a client gives its keys away, how often it says so, and what it never does again."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.attacks import nothing, only_from, only_to
from tests.protocol.movers import BALANCE_MSAT, World, dying_world, spent_world
from tests.protocol.paying_clients import book, make_invoice, pay
from tests.protocol.pump import PumpNode
from tests.simulation.sim_node import durable

from cromford import effects as fx
from cromford.channel.stage import Edition
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol import policy
from cromford.protocol.channels.client import is_usable
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT, has_moved_out
from cromford.protocol.dying.outlook import outlook_of
from cromford.protocol.exiting.client import exit_effects
from cromford.protocol.exiting.client import watched as watched_outpoints
from cromford.protocol.faults import Rejected
from cromford.protocol.handover.client import moved_to
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.lobby.build import is_move_proven
from cromford.protocol.lobby.move import move_statement
from cromford.protocol.opening.client import channel_ready
from cromford.signing.keychain import FactoryKey
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(8)

DEPTH: Final = 3
N_MESSAGES_MIN: Final = 12  # Two channels, an HTLC in each, there and away.
TOO_LARGE_MSAT: Final = 90_000_000  # For a channel of 100,000 sat into which 20,000 were moved.


def retirements(client: PumpNode) -> list[hr.KeyRetired]:
    """Return what a client remembered of giving its keys away."""
    return [record for record in client.store.remembered if isinstance(record, hr.KeyRetired)]


def gone() -> tuple[World, PumpNode]:
    """Return a world with a client that moved out, and whose keys the LSP has."""
    world = dying_world(2)
    mover = world.pump.clients[0]
    world.move(mover)
    world.pump.mine()
    assert world.attempt(mover).keys_taken
    return world, mover


def test_who_moved_out_hands_its_keys_over_and_the_lsp_keeps_them() -> None:
    world = dying_world(2)
    mover, stayer = world.pump.clients
    assert not world.attempt(mover).is_retired
    world.move(mover)
    world.pump.mine()
    assert world.attempt(mover).is_retired
    assert world.attempt(mover).keys_taken
    assert not world.attempt(stayer).is_retired
    assert world.factory.held_keys == {world.seat(mover)}
    kept = world.pump.lsp.handed_over_keys.entries[world.old.number, world.seat(mover)]
    seat = world.old.attempt.seats[world.seat(mover) - 1]
    assert kept.factory_pubkey == seat.factory_pubkey
    assert kept.funding_pubkey == seat.channel.funding_pubkey


def test_a_message_goes_out_only_once_it_is_remembered_that_the_client_retired() -> None:
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    asked: list[bool] = []
    perform = mover._perform

    def watching(node: Any, effect: fx.Performed) -> Any:
        if isinstance(effect, fx.HandOverKeys):
            asked.append(mover.durable_state().attempts[world.old_id].is_retired)
        return perform(node, effect)

    mover._perform = watching
    world.pump.mine()
    assert asked == [True]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("left_msat", [0, LEFT_BEHIND_MSAT - 1, LEFT_BEHIND_MSAT])
def test_less_than_330_sat_may_stay_behind_and_not_one_msat_more(left_msat: int) -> None:
    world, spender = spent_world(left_msat)
    world.pump.mine()
    assert world.attempt(spender).is_retired is (left_msat < 330_000)


def test_who_spent_all_and_has_no_newer_channel_keeps_its_keys() -> None:
    """Its channel may still be paid into."""
    world = dying_world(2, movers=0)
    spender, payee = world.pump.clients
    assert pay(world.pump, spender, payee, BALANCE_MSAT).status == "paid"
    world.pump.mine(5)
    assert not world.attempt(spender).is_retired
    assert pay(world.pump, payee, spender, BALANCE_MSAT).status == "paid"


def test_nobody_retires_from_a_factory_that_does_not_die() -> None:
    """The second factory is younger; the first one is left at its dying height, and not before."""
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    attempt = world.attempt(mover)
    dying_height = attempt.branch.exit_deadline_height - attempt.terms.dying_blocks

    def moved_at(height: int) -> bool:
        known = mover.state.chain
        confirmed = known.confirmed.set(world.pump.held(mover).funding_tx.txid, 1)
        recent = (replace(known.recent[-1], height=height),)
        chain = replace(known, recent=recent, confirmed=confirmed)
        return moved_to(replace(mover.state, chain=chain), attempt) is not None

    assert not moved_at(dying_height - 1)
    assert moved_at(dying_height)


def test_nobody_retires_on_a_funding_that_is_too_shallow_for_what_was_bought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What grew large since its terms were agreed asks for more, here as at each payment."""
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    state, attempt = mover.state, world.attempt(mover)
    capacity_sat = world.new_link(mover).present.capacity_sat
    txid = world.pump.held(mover).funding_tx.txid
    monkeypatch.setattr(policy, "LARGE_CAPACITY_SAT", capacity_sat)
    for depth in (policy.MIN_DEPTH_LARGE - 1, policy.MIN_DEPTH_LARGE):
        confirmed = state.chain.confirmed.set(txid, state.chain.height - depth + 1)
        chain = replace(state.chain, confirmed=confirmed)
        is_deep = depth == policy.MIN_DEPTH_LARGE
        assert (moved_to(replace(state, chain=chain), attempt) is not None) is is_deep
        outlook = outlook_of(replace(state, chain=chain), attempt)
        assert outlook is not None
        assert (outlook.status == "moved") is is_deep


def test_whatever_is_under_way_keeps_the_keys_until_the_last_answer() -> None:
    """Looked at after each message of a move: not once before the end is it over."""
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.pump.handle(mover, ev.MoveRequested(attempt_id=world.old_id))
    seen = []

    def look() -> bool:
        seen.append(moved_to(mover.state, world.attempt(mover)) is not None)
        return False

    world.pump.run(until=look)
    is_over = moved_to(mover.state, world.attempt(mover)) is not None
    assert len(seen) > N_MESSAGES_MIN
    assert not any(seen)
    assert is_over


def test_a_stale_chain_gives_no_keys_away() -> None:
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    facts = replace(mover.facts, stale="the node has not answered")
    tip = mover.state.chain.recent[-1]
    event = ev.BlockAdded(height=tip.height + 1, block_hash=tip.block_hash, txs=())
    decision = client_role.decide(mover.state, event, facts)
    assert not any(isinstance(record, hr.KeyRetired) for record in decision.records)
    decision = client_role.decide(mover.state, event, mover.facts)
    assert any(isinstance(record, hr.KeyRetired) for record in decision.records)


def links_of_a_move() -> tuple[Link, Link, KnownChain]:
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    return world.link(mover), world.new_link(mover), mover.state.chain


def test_the_new_funding_is_deep_enough_at_its_depth_and_not_a_block_before() -> None:
    old, new, chain = links_of_a_move()
    txid = new.path[0].outpoint.txid
    for depth in (0, DEPTH - 1, DEPTH):
        confirmed = chain.confirmed.delete(txid)
        if depth:
            confirmed = confirmed.set(txid, chain.height - depth + 1)
        at_depth = replace(chain, confirmed=confirmed)
        assert has_moved_out(old, new, at_depth, min_depth=DEPTH) is (depth == DEPTH)


def test_a_new_channel_must_live_and_be_later_and_state_must_not_be_lost() -> None:
    old, new, chain = links_of_a_move()
    assert has_moved_out(old, new, chain, min_depth=1)
    for old_link, new_link in (
        (old, None),
        (old, replace(new, failure="it failed")),
        (old, old),
        (replace(old, is_behind=True), new),
        (replace(old, peer_is_behind=True), new),
        (replace(old, peer_unrevoked=old.state.content(old.me, Edition.SIGNED)), new),
        (old, replace(new, peer_unrevoked=new.state.content(new.me, Edition.SIGNED))),
    ):
        assert not has_moved_out(old_link, new_link, chain, min_depth=1)


# How often it is said


def test_a_message_that_is_lost_is_sent_again_at_the_next_connection_and_block() -> None:
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    with world.pump.tampering(only_from(mover, nothing, m.KeyHandover)):
        world.pump.mine()
        assert world.attempt(mover).is_retired
        assert not world.factory.held_keys
        world.pump.restart(mover)
        world.pump.run()
        assert not world.factory.held_keys
    world.pump.restart(mover)
    world.pump.run()
    assert world.attempt(mover).keys_taken
    assert len(retirements(mover)) == 1


def test_an_acknowledgement_that_is_lost_is_given_again_and_the_keys_are_held_once() -> None:
    world = dying_world(1)
    (mover,) = world.pump.clients
    world.move(mover)
    with world.pump.tampering(only_to(mover, nothing, m.KeyTaken)):
        world.pump.mine(2)
    assert not world.attempt(mover).keys_taken
    world.pump.mine()
    assert world.attempt(mover).keys_taken
    held = [r for r in world.pump.lsp.store.remembered if isinstance(r, hr.KeysHeld)]
    assert len(held) == 1


def test_a_client_whose_keys_are_taken_says_nothing_more_at_any_connection_or_block() -> None:
    world, mover = gone()
    n_asked = len(world.pump.wishes(mover, fx.HandOverKeys))
    n_said = len(world.pump.sent(mover, m.ChannelReady))
    world.pump.restart(mover)
    world.pump.run()
    world.pump.mine(3)
    assert len(world.pump.wishes(mover, fx.HandOverKeys)) == n_asked
    told = world.pump.sent(mover, m.ChannelReady)[n_said:]
    assert all(message.attempt_id != world.old_id for message in told)
    assert not world.link(mover).has_session
    assert not world.lsp_link(mover).has_session


def test_an_lsp_that_speaks_as_if_it_had_no_keys_is_sent_them_again_once() -> None:
    """So does one whose store was put back from a backup."""
    world, mover = gone()
    n_asked = len(world.pump.wishes(mover, fx.HandOverKeys))
    ready = channel_ready(world.attempt(mover))
    world.pump.lsp_says(mover, ready)
    world.pump.lsp_says(mover, ready)
    assert len(world.pump.wishes(mover, fx.HandOverKeys)) == n_asked + 1
    world.pump.run()
    assert world.attempt(mover).keys_taken


def test_a_refusal_is_remembered_once_and_what_is_not_asked_means_nothing() -> None:
    world = dying_world(2)
    mover, stayer = world.pump.clients
    world.move(mover)
    with world.pump.tampering(only_from(mover, nothing, m.KeyHandover)):
        world.pump.mine()
    for refusal in ("not now", "not now", "never"):
        answer = m.KeyTaken(attempt_id=world.old_id, refusal=refusal)
        with world.pump.tampering(only_from(mover, nothing, m.KeyHandover)):
            world.pump.mine()
        world.pump.lsp_says(mover, answer)
        world.pump.lsp_says(stayer, answer)
    answers = [r for r in mover.store.remembered if isinstance(r, hr.HandoverAnswered)]
    assert [answer.refusal for answer in answers] == ["not now", "never"]
    assert world.attempt(mover).keys_refused == "never"
    assert not any(isinstance(r, hr.HandoverAnswered) for r in stayer.store.remembered)
    unknown = m.KeyTaken(attempt_id=bytes(32), refusal="")
    world.pump.lsp_says(mover, unknown)
    assert not world.attempt(mover).keys_taken


def test_an_lsp_that_changes_its_mind_fills_no_clients_journal() -> None:
    world, mover = gone()

    def n_answers() -> int:
        return sum(isinstance(r, hr.HandoverAnswered) for r in mover.store.remembered)

    for n_blocks in range(1, 4):
        world.pump.mine()
        assert world.attempt(mover).keys_taken
        for number in range(20):
            refused = m.KeyTaken(attempt_id=world.old_id, refusal=f"refused {number}")
            world.pump.lsp_says(mover, refused)
            world.pump.lsp_says(mover, channel_ready(world.attempt(mover)))
            world.pump.lsp_says(mover, m.KeyTaken(attempt_id=world.old_id, refusal=""))
        assert n_answers() == 1 + 2 * n_blocks, "refused and taken, once a block"
    assert world.attempt(mover).keys_taken
    assert durable(mover.durable_state()) == durable(mover.state)


def test_an_lsp_that_hands_keys_to_a_client_is_parted_from() -> None:
    world = dying_world(1)
    (client,) = world.pump.clients
    message = m.KeyHandover(
        attempt_id=world.old_id, factory_secret=b"\1" * 32, funding_secret=b"\2" * 32
    )
    world.pump.lsp_says(client, message)
    (parted,) = world.pump.wishes(client, fx.Disconnect)
    assert parted.reason == "KeyHandover is a client's message"


# What it never does again


def test_who_retired_proves_no_move_with_the_old_key() -> None:
    world, mover = gone()
    world.pump.join(mover)
    (*_, join) = world.pump.sent(mover, m.Join)
    assert join.moves == ()
    assert not world.pump.lsp.state.house.members[mover.node_id].is_moving


def test_the_old_key_proves_no_move_to_the_lsp_that_holds_it_whoever_signs() -> None:
    """The client, a thief of the LSP's file who joins in its own name, or in the client's."""
    world, mover = gone()
    stayer = world.pump.clients[1]
    world.pump.join(stayer)
    (*_, fresh) = world.pump.sent(stayer, m.Join)
    statement = move_statement(
        client_node_id=mover.node_id,
        lsp_node_id=world.pump.lsp.node_id,
        old_attempt_id=world.old_id,
    )
    assert mover.signer is not None
    key = FactoryKey(attempt=world.attempt(mover).key_attempt)
    proof = m.Move(attempt_id=world.old_id, signature=mover.signer.sign_move(key, statement))
    house = world.pump.lsp.state.house
    join = replace(fresh, moves=(proof,))
    assert not is_move_proven(house, mover.node_id, join)
    assert not is_move_proven(house, stayer.node_id, join)
    assert house.entries[world.old_id].moved_out == {world.seat(mover)}
    entry = replace(house.entries[world.old_id], moved_out=frozenset())
    before = replace(house, entries=house.entries.set(world.old_id, entry))
    assert is_move_proven(before, mover.node_id, join), "it would have, before"
    assert not is_move_proven(before, stayer.node_id, join)


def test_who_retired_publishes_nothing_whoever_publishes_its_path() -> None:
    """Not its state in the race, no commitment, no sweep; nor does it watch."""
    world, mover = gone()
    stayer = world.pump.clients[1]
    world.pump.handle(stayer, ev.ExitRequested(attempt_id=world.old_id))
    n_published = len(world.pump.wishes(mover, fx.Broadcast))
    world.pump.mine(40)
    leaf = world.old.attempt.branch(world.seat(mover)).channel_outpoint.txid
    assert leaf in world.pump.chain.confirmed, "its channel is on chain"
    assert len(world.pump.wishes(mover, fx.Broadcast)) == n_published
    assert exit_effects(mover.state, world.attempt(mover), mover.fees) == ()
    assert not any(
        record.attempt_id == world.old_id
        for record in mover.store.remembered
        if isinstance(record, xr.TreePublished | xr.ExitStarted)
    )
    ours = world.attempt(mover).candidate.branch_outpoints
    assert not ours & watched_outpoints(mover.state)
    assert not world.attempt(mover).candidate.watched_txids & mover.state.watched_txids


def test_who_retired_cannot_be_told_to_leave() -> None:
    world, mover = gone()
    with pytest.raises(Rejected, match="moved out"):
        client_role.decide(mover.state, ev.ExitRequested(attempt_id=world.old_id))


def test_who_retired_is_paid_in_its_new_channel_only() -> None:
    world, mover = gone()
    stayer = world.pump.clients[1]
    assert not is_usable(mover.state, world.link(mover))
    assert pay(world.pump, stayer, mover, 1_000_000).status == "paid"
    assert world.link(mover).state.own_signed == world.lsp_link(mover).state.peer_signed
    assert book(mover).links[world.link(mover).channel_id].state.accepter_msat == 0


def test_an_htlc_that_crossed_the_keys_comes_back_and_then_they_are_taken() -> None:
    """It is too large for the new channel, and the LSP has no keys yet: it offers it in the old."""
    world = dying_world(2)
    mover = world.pump.clients[0]
    world.move(mover)
    with world.pump.tampering(only_from(mover, nothing, m.KeyHandover)):
        world.pump.mine()
        n_signed = world.link(mover).state.own_signed
        assert pay(world.pump, world.pump.lsp, mover, TOO_LARGE_MSAT).status == "failed"
        assert world.link(mover).state.own_signed > n_signed, "it was offered, and given back"
    world.pump.mine()
    assert world.attempt(mover).keys_taken
    n_signed = world.link(mover).state.own_signed
    request = make_invoice(world.pump, mover, TOO_LARGE_MSAT)
    with pytest.raises(Rejected):
        lsp_role.decide(world.pump.lsp.state, request, world.pump.lsp.facts)
    assert world.link(mover).state.own_signed == n_signed


def test_a_reorganisation_of_the_new_funding_gives_no_keys_back_and_costs_nothing() -> None:
    world, mover = gone()
    new = world.new_link(mover)
    world.pump.chain.remove_tip(2)
    for node in (world.pump.lsp, *world.pump.clients):
        while node.state.chain.height > world.pump.chain.height:
            world.pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    assert mover.state.chain.depth(new.path[0].outpoint.txid) == 0
    assert world.attempt(mover).is_retired
    world.pump.mine(3)
    assert len(retirements(mover)) == 1
    assert pay(world.pump, mover, world.pump.clients[1], 1_000_000).status == "paid"
