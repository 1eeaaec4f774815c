"""Closing a factory that clients moved out of: with who is left, and without who gave its keys."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from tests.protocol.attacks import nothing, only_from
from tests.protocol.closes import ended, finished
from tests.protocol.movers import BALANCE_MSAT, World, dying_world
from tests.protocol.pump import PumpNode
from tests.protocol.restoring import backup_of, put_back

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.channels.seats import GONE
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import handover_records as hr
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(6)

CLOSE_MESSAGES = (m.CloseBegin, m.CloseAgree, m.ClosePropose, m.CloseSign, m.CloseEnd)


def left_by(n_movers: int, n_clients: int) -> World:
    """Return a world of which some moved out, and their processes are gone for ever."""
    world = dying_world(n_clients, movers=n_movers)
    movers = world.pump.clients[:n_movers]
    for mover in movers:
        world.move(mover)
    world.pump.mine()
    assert world.factory.held_keys == {world.seat(mover) for mover in movers}
    for mover in movers:
        world.pump.disconnect(mover)
        mover.die()
    return world


def close(world: World, **asked: object) -> None:
    request = ev.CloseRequested(attempt_id=world.old_id, **asked)  # type: ignore[arg-type]  # a test's
    world.pump.handle(world.pump.lsp, request)
    world.pump.run()


def test_five_of_eight_are_gone_for_ever_and_the_other_three_close_with_the_lsp() -> None:
    world = left_by(5, 8)
    close(world)
    (record,) = finished(world.pump.lsp)
    stayers = world.pump.clients[5:]
    scripts = {world.attempt(stayer).join.payout_script for stayer in stayers}
    world.pump.mine()
    closed = world.factory.closed[record.close_id]
    (confirmed,) = [tx for tx in closed.txs if tx.txid in world.pump.chain.confirmed]
    paid = [out for out in confirmed.outputs if out.script_pubkey in scripts]
    assert [out.amount_sat for out in paid] == [BALANCE_MSAT // 1000] * 3
    # The LSP's own part and the anchor; nobody who moved out has an output.
    assert len(confirmed.outputs) == 3 + 2
    assert [len(tx_in.witness) for tx_in in confirmed.inputs] == [1]
    for stayer in stayers:
        assert len(finished(stayer)) == 1
    assert not world.pump.deadlines_of(fx.CloseDeadline)


def test_who_moved_out_is_not_asked_though_it_is_there() -> None:
    world = dying_world(2)
    mover = world.pump.clients[0]
    world.move(mover)
    world.pump.mine()
    n_asked = len(world.pump.sent(world.pump.lsp, m.CloseBegin))
    close(world)
    assert len(finished(world.pump.lsp)) == 1
    assert len(world.pump.sent(world.pump.lsp, m.CloseBegin)) == n_asked + 1
    assert not any(world.pump.sent(mover, kind) for kind in CLOSE_MESSAGES)
    assert not finished(mover)


def test_a_part_of_the_tree_is_closed_with_those_below_it() -> None:
    world = left_by(5, 8)
    tree = world.old.attempt.tree
    exits_of = world.pump.clients[7]
    world.pump.handle(exits_of, ev.ExitRequested(attempt_id=world.old_id))
    world.pump.mine(12)
    confirmed = world.pump.chain.confirmed
    scope = next(
        node
        for node in tree.nodes_below_root
        if node.tx.inputs[0].outpoint.txid in confirmed
        and node.tx.txid not in confirmed
        and world.seat(exits_of) not in node.signers
    )
    close(world, vertex=scope.shape.name)
    (record,) = finished(world.pump.lsp)
    assert len(record.channels) == len(scope.shape.clients)


def test_a_channel_on_chain_that_its_client_left_is_closed_by_the_lsp_alone() -> None:
    """Somebody else's exit brought it there: its funding key signs, and not the factory key."""
    world = left_by(1, 2)
    stayer = world.pump.clients[1]
    seat = 3 - world.seat(stayer)
    world.pump.handle(stayer, ev.ExitRequested(attempt_id=world.old_id))
    world.pump.mine(20)
    channel = world.old.attempt.setting(seat).funding.outpoint
    assert channel.txid in world.pump.chain.confirmed
    close(world, client=seat)
    (record,) = finished(world.pump.lsp)
    assert record.outpoint == channel.serialize()
    world.pump.mine()
    assert world.pump.chain.coin(channel) is None


def test_a_factory_that_all_left_is_closed_by_the_lsp_alone() -> None:
    world = left_by(3, 3)
    close(world)
    (record,) = finished(world.pump.lsp)
    assert [len(Tx.parse(data).outputs) for data in record.txs] == [2] * len(record.txs)
    world.pump.chain.mine()
    closed = world.factory.closed[record.close_id]
    assert any(tx.txid in world.pump.chain.confirmed for tx in closed.txs)


def test_what_all_left_is_closed_after_the_last_day_for_those_who_stay() -> None:
    world = left_by(1, 1)
    (link,) = world.factory.book.ordered_links
    world.pump.mine(link.exit_deadline_height - 144 - world.pump.chain.height)
    close(world)
    assert len(finished(world.pump.lsp)) == 1


def test_one_who_stayed_and_is_away_is_waited_for_as_ever() -> None:
    world = left_by(2, 3)
    stayer = world.pump.clients[2]
    world.pump.disconnect(stayer)
    with pytest.raises(Rejected, match=rf"not connected: client {world.seat(stayer)}$"):
        lsp_role.decide(
            world.pump.lsp.state, ev.CloseRequested(attempt_id=world.old_id), world.pump.lsp.facts
        )


def test_what_one_who_moved_out_says_of_a_close_means_nothing() -> None:
    """It agrees to a lie, refuses, signs, and goes: the close goes on."""
    world = dying_world(2)
    mover, stayer = world.pump.clients
    world.move(mover)
    world.pump.mine()
    with world.pump.tampering(only_from(stayer, nothing, m.CloseAgree)):
        close(world)
    closing = world.factory.closing
    assert closing is not None
    assert closing.own == (world.seat(mover),)
    assert closing.holdouts == (world.seat(stayer),)
    word = closing.stage.agreed[world.seat(mover)]
    pool = m.Pool(pubkey=word.pool.pubkey, pubnonces=word.pool.pubnonces)
    script = world.attempt(mover).join.payout_script
    for message in (
        m.CloseAgree(
            close_id=closing.close_id, balance_msat=10**9, payout_script=script, pool=pool
        ),
        m.CloseSign(close_id=closing.close_id, partial_sigs=(bytes(32),) * 2),
        m.CloseEnd(close_id=closing.close_id, reason="no"),
    ):
        world.pump.tell(world.pump.lsp, mover, message)
        assert world.factory.closing == closing
    world.pump.disconnect(mover)
    assert world.factory.closing == closing


def test_pools_of_handed_over_keys_go_with_the_close() -> None:
    world = dying_world(2)
    world.move(world.pump.clients[0])
    world.pump.mine()
    signer = world.pump.lsp.signer
    assert signer is not None
    close(world)
    assert not signer._clients_pools
    (begun,) = [r for r in world.pump.lsp.store.remembered if isinstance(r, cl.CloseBegun)]
    assert begun.clients == (1, 2)


def test_a_refused_close_leaves_no_pool_behind() -> None:
    world = dying_world(2)
    mover, stayer = world.pump.clients
    world.move(mover)
    world.pump.mine()
    signer = world.pump.lsp.signer
    assert signer is not None
    with world.pump.tampering(only_from(stayer, nothing, m.CloseSign)):
        close(world)
        assert signer._clients_pools
        ((_, deadline),) = [
            (node, one)
            for node, one in world.pump.deadlines_of(fx.CloseDeadline)
            if node is world.pump.lsp
        ]
        world.pump.pass_deadline(world.pump.lsp, deadline)
        world.pump.run()
    assert not signer._clients_pools
    (over,) = ended(world.pump.lsp)
    assert over.culprits == (stayer.node_id,)
    close(world)
    assert len(finished(world.pump.lsp)) == 1, "and once more, with fresh nonces"


def test_keys_that_are_gone_end_the_close_ask_their_client_and_come_again() -> None:
    world = dying_world(2)
    mover = world.pump.clients[0]
    world.move(mover)
    world.pump.mine()
    world.pump.lsp.handed_over_keys.entries.clear()
    close(world)
    (over,) = ended(world.pump.lsp)
    seat = world.seat(mover)
    assert over.reason == f"the keys of clients [{seat}] are gone"
    assert not over.culprits
    assert any(isinstance(r, hr.KeysLost) for r in world.pump.lsp.store.remembered)
    assert world.pump.sent(world.pump.lsp, m.KeyTaken)[-2].refusal == GONE
    assert world.factory.held_keys == {seat}
    close(world)
    assert len(finished(world.pump.lsp)) == 1


def test_a_restored_lsp_that_has_the_keys_of_who_is_gone_for_ever_closes_without_it() -> None:
    """Nothing changed in that channel any more: who moved out would refuse, if it were there."""
    world = left_by(1, 2)
    pump, stayer = world.pump, world.pump.clients[1]
    backup = backup_of(pump.lsp)
    pump.disconnect(stayer)
    pump.lsp.die()
    put_back(pump.lsp, backup)
    pump.lsp.start()
    pump.connect(stayer)
    pump.run()
    assert world.lsp_link(stayer).mark is not None
    close(world)
    (record,) = finished(pump.lsp)
    assert dict(zip(range(1, 3), record.balances_msat, strict=True)) == {
        world.seat(stayer): BALANCE_MSAT,
        3 - world.seat(stayer): 0,
    }
    assert len(finished(stayer)) == 1


@pytest.mark.sampled(1)
@pytest.mark.parametrize("fuse", [3, 11, 19, 27])
def test_a_close_with_handed_over_keys_survives_a_death_of_the_lsp_at_any_step(fuse: int) -> None:
    world = dying_world(2)
    mover, _ = world.pump.clients
    world.move(mover)
    world.pump.mine()
    world.pump.lsp.fuse = fuse
    close(world)
    world.pump.lsp.fuse = None
    if not finished(world.pump.lsp):
        world.pump.mine()
        close(world)
    assert finished(world.pump.lsp)
    assert world.factory.closing is None
    assert world.factory.held_keys == {world.seat(mover)}


def asked_for_nonces(world: World) -> fx.PrepareSeats:
    """Let a close come to where the signer is asked for nonces of those who moved out."""
    asked: list[fx.PrepareSeats] = []
    lsp = world.pump.lsp
    perform = lsp.perform_signing

    def keeping(effect: fx.Performed) -> Iterable[ev.Event]:
        if isinstance(effect, fx.PrepareSeats):
            asked.append(effect)
            return ()
        return perform(effect)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lsp, "perform_signing", keeping)
        close(world)
    (prepare,) = asked
    return prepare


def moved_out_alone() -> tuple[World, PumpNode]:
    world = dying_world(1)
    mover = world.pump.clients[0]
    world.move(mover)
    world.pump.mine()
    return world, mover


def words_of(world: World, mover: PumpNode) -> tuple[m.CloseMessage, ...]:
    """Return what a client that moved out can say of a close: its name is no secret."""
    closing, link = world.factory.closing, world.lsp_link(mover)
    assert closing is not None
    attempt = world.attempt(mover)
    join = world.pump.sent(mover, m.Join)[-1]
    pubnonces = join.factory_pool.pubnonces[: len(closing.feerates_sat_per_kw)]
    agree = m.CloseAgree(
        close_id=closing.close_id,
        balance_msat=link.state.accepter_msat,
        payout_script=attempt.join.payout_script,
        pool=m.Pool(pubkey=attempt.join.factory_pool.pubkey, pubnonces=pubnonces),
    )
    bad = replace(agree, pool=m.Pool(pubkey=attempt.join.factory_pool.pubkey, pubnonces=()))
    return (agree, bad, m.CloseEnd(close_id=closing.close_id, reason="no"))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_nor_what_it_says_before_our_signer_made_its_nonces(number: int) -> None:
    """Taken for its word, it would go before ours, which then comes where none is expected."""
    world, mover = moved_out_alone()
    asked = asked_for_nonces(world)
    closing = world.factory.closing
    world.pump.tell(world.pump.lsp, mover, words_of(world, mover)[number])
    assert world.factory.closing == closing
    world.pump.disconnect(mover)
    assert world.factory.closing == closing
    for event in world.pump.lsp.perform_signing(asked):
        world.pump.handle(world.pump.lsp, event)
    world.pump.run()
    assert len(finished(world.pump.lsp)) == 1
