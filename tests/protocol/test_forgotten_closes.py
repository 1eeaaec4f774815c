"""Closes in a block that a restored store forgot: which are recalled, and by whom."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Final

from immutables import Map
from tests.protocol.advanced import kickoff_of
from tests.protocol.closes import QUICK, closable_factory, close, finished, give_money
from tests.protocol.decisions import in_client, in_factory, remembered
from tests.protocol.left_factories import ALICE, BOB, channel, having, seeing
from tests.protocol.markets import Market
from tests.protocol.old_states import POLICY, look_away, mine_blindly
from tests.protocol.paying_clients import live_factory, newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import backup_of, restore
from tests.protocol.seen_blocks import spending, with_blocks

from cromford.bitcoin.tx import Tx
from cromford.changed import changed
from cromford.factory.close import CloseScope, Payout, build_close, scope_of
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.exiting.forgotten import recall_as_client, recall_as_lsp
from cromford.protocol.exiting.lsp import on_block
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import Restored, StoreMark
from cromford.wire import messages as m

SIGNED: Final = (b"\x07" * 64,)


@cache
def closed() -> tuple[Pump, Tx]:
    """Return a factory of two that was closed, and the close that confirms; nobody saw it yet."""
    pump = closable_factory(2)
    close(pump)
    (record,) = finished(pump.lsp)
    return pump, Tx.parse(record.txs[0])


def due_msat(link: Link) -> int:
    """Return what a close pays a client, in msat: whole satoshi, from the dust limit on."""
    paid_msat = balance_of(link).peer_msat // 1000 * 1000
    return paid_msat if paid_msat >= 330_000 else 0


# An LSP


def forgetting() -> Factory:
    """Return the factory without its close."""
    factory = closed()[0].factory
    for client in (ALICE, BOB):
        factory = having(factory, client, closes=())
    return replace(factory, closed=Map())


def recalled(factory: Factory) -> list[cl.CloseFinished]:
    turn = in_factory(factory)
    recall_as_lsp(turn)
    found = remembered(turn, cl.CloseFinished)
    assert len(found) == len(turn.decision.records)
    again = in_factory(turn.state)
    recall_as_lsp(again)
    assert again.decision.records == (), "it is recalled once"
    return found


def test_a_restored_lsp_recalls_a_close_with_what_it_paid_each_client() -> None:
    tx = closed()[1]
    factory = replace(seeing(forgetting(), tx), is_marked=True)
    (found,) = recalled(factory)
    assert (found.attempt_id, found.close_id) == (factory.attempt.attempt_id, tx.txid)
    assert found.outpoint == factory.attempt.funding_outpoint.serialize()
    assert found.txs == (tx.serialize(),)
    both = [channel(factory, client) for client in (ALICE, BOB)]
    assert dict(zip(found.channels, found.balances_msat, strict=True)) == {
        link.channel_id: due_msat(link) for link in both
    }
    assert due_msat(both[0]) != due_msat(both[1])


def test_what_is_recalled_of_a_block_counts_as_closed_in_the_same_decision() -> None:
    factory = replace(seeing(forgetting(), closed()[1]), is_marked=True)
    turn = in_factory(factory)
    on_block(turn)
    assert [type(one) for one in turn.decision.records] == [cl.CloseFinished, cl.CloseConfirmed]


def test_a_channel_whose_client_proved_that_state_was_lost_recalls_its_own_alone() -> None:
    there = seeing(forgetting(), closed()[1])
    assert recalled(there) == [], "a whole store knows its closes"
    for lacks in ({"is_behind": True}, {"mark": StoreMark()}):
        (found,) = recalled(having(there, BOB, **lacks))
        assert found.channels == (channel(there, BOB).channel_id,)


def test_what_is_no_close_is_not_taken_for_one() -> None:
    """A sweep by the script has more than a signature; a kickoff has no close's form."""
    factory = replace(forgetting(), is_marked=True)
    tx = closed()[1]
    swept = tx.with_witnesses((b"\x07" * 64, b"a script", b"a control block"))
    for other in (swept, spending(factory.attempt.funding_outpoint), root_of(factory)):
        assert recalled(seeing(factory, other)) == []
    assert recalled(factory) == []


def root_of(factory: Factory) -> Tx:
    return factory.attempt.signed_txs[factory.attempt.tree.root_node.name]


@cache
def split() -> tuple[Factory, list[CloseScope], list[Tx]]:
    """Return a factory with two leaves on chain, and a close of each."""
    pump = live_factory(4, policy=QUICK)
    give_money(pump)
    factory, attempt = pump.factory, pump.attempt
    root, *leaves = attempt.tree.vertices
    scopes = [scope_of(leaf.first) for leaf in leaves]
    txs = []
    for scope in scopes:
        payouts = [
            Payout(
                script_pubkey=attempt.seats[client - 1].payout_script,
                due_msat=due_msat(channel(factory, client)),
            )
            for client in scope.clients
        ]
        made = build_close(scope, payouts, lsp_script=attempt.payout_script, feerate_sat_per_kw=250)
        txs.append(made.tx.with_witnesses(SIGNED))
    down = [attempt.signed_txs[node.name] for node in (root.first, root.last)]
    return seeing(factory, *down), scopes, txs


def knowing(factory: Factory, clients: Iterable[int], tx: Tx) -> Factory:
    """Return a factory that knows of one close of these clients' channels."""
    outpoint = tx.inputs[0].outpoint
    one = SignedClose(
        close_id=b"c" * 32, outpoint=outpoint, balance_msat=0, is_finished=True, txids=(tx.txid,)
    )
    for client in clients:
        factory = having(factory, client, closes=(one,))
    return factory


def test_of_several_parts_each_is_recalled_that_was_forgotten() -> None:
    factory, scopes, txs = split()
    marked = replace(seeing(factory, *txs), is_marked=True)
    assert len(scopes) == 2
    assert [one.txs for one in recalled(marked)] == [(tx.serialize(),) for tx in txs]
    for number in (0, 1):
        known = knowing(marked, scopes[number].clients, txs[number])
        (found,) = recalled(known)
        assert found.txs == (txs[1 - number].serialize(),)
    # A part in which nobody's store lacks anything is none of its business.
    for number in (0, 1):
        client = scopes[number].clients[-1]
        (found,) = recalled(having(seeing(factory, *txs), client, is_behind=True))
        assert (found.txs, found.channels) == (
            (txs[number].serialize(),),
            (channel(factory, client).channel_id,),
        )


def test_a_restored_lsp_reads_on_where_a_state_lands_that_it_never_held() -> None:
    """It has its clients' word of that state; the old one, six blocks deep, had ended the sale."""
    market = Market(policy=POLICY).with_money()
    pump, buyer, lsp = market.pump, market.buyer, market.pump.lsp
    before = []

    def keep(_by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if isinstance(message, m.AdvanceSign):
            before.append(backup_of(lsp))
        return (message,)

    quote = market.quote(40_000)
    with pump.tampering(keep):
        order = ev.PurchaseRequested(
            attempt_id=market.attempt_id,
            quote_id=quote.quote_id,
            price_max_msat=quote.price_msat,
            beyond_coverage=True,
        )
        pump.handle(buyer, order)
        pump.run()
    link = newest_link(buyer)
    states = pump.attempt.leaf(link.client).states
    old, new = (pump.attempt.signed_txs[state.name] for state in states)
    restore(pump, (lsp, before[-1]))
    for client in pump.clients:
        pump.disconnect(client)
    look_away(pump)
    mine_blindly(pump, 1, [kickoff_of(pump)])
    mine_blindly(pump, states[0].delay_blocks, [old])
    mine_blindly(pump, 5)
    pump.blind.clear()
    pump.sync()
    assert not pump.factory.advances
    look_away(pump)
    n_blocks = pump.chain.height - pump.chain.confirmed[old.txid] + 1
    pump.chain.remove_tip(n_blocks)
    for _ in range(n_blocks):
        pump.handle(lsp, ev.BlockRemoved(height=lsp.state.chain.height))
    pump.chain.mempool.clear()
    mine_blindly(pump, 1, [new])
    mine_blindly(pump, n_blocks, [link.finished.tx])
    pump.blind.discard(lsp.name)
    pump.sync()
    assert lsp.state.chain.height == pump.chain.height
    assert not finished(lsp)


# A client


def clients_view() -> tuple[ClientState, ClientAttempt, Link, Tx]:
    """Return what Alice has, without the close, and the close."""
    pump, tx = closed()
    alice = pump.client_at(ALICE)
    link = changed(newest_link(alice), closes=())
    state: ClientState = alice.state
    book = changed(state.book, links=state.book.links.set(link.channel_id, link))
    chain = with_blocks(state.chain, [tx])
    return replace(state, book=book, chain=chain), pump.held(alice), link, tx


def recalled_by_client(
    state: ClientState, attempt: ClientAttempt, link: Link
) -> list[cl.CloseFinished]:
    turn = in_client(state)
    recall_as_client(turn, attempt, link)
    return remembered(turn, cl.CloseFinished)


def test_a_restored_client_recalls_its_close_with_what_it_was_paid() -> None:
    state, attempt, link, tx = clients_view()
    assert recalled_by_client(state, attempt, link) == [], "a whole store knows its closes"
    restored = replace(state, restored=Restored(is_unproven=True))
    behind = changed(link, is_behind=True)
    for found in (
        recalled_by_client(restored, attempt, link),
        recalled_by_client(state, attempt, behind),
    ):
        (record,) = found
        assert (record.close_id, record.txs) == (tx.txid, (tx.serialize(),))
        assert (record.channels, record.balances_msat) == ((link.channel_id,), (due_own(link),))
    known = newest_link(closed()[0].client_at(ALICE))
    assert recalled_by_client(restored, attempt, known) == [], "it knows of it"


def due_own(link: Link) -> int:
    return balance_of(link).own_msat // 1000 * 1000


def test_a_client_looks_for_closes_only_where_its_own_channel_is_or_above() -> None:
    """What spends another output says nothing of its channel, whatever it looks like."""
    state, attempt, link, tx = clients_view()
    unproven = replace(state, restored=Restored(is_unproven=True))
    strange = replace(link.present, outpoint=tx.outpoint(0))
    elsewhere = tx.with_witnesses(SIGNED)
    elsewhere = replace(
        elsewhere, inputs=(replace(elsewhere.inputs[0], outpoint=strange.outpoint),)
    )
    before = closed()[0].client_at(ALICE).state.chain
    there = replace(unproven, chain=with_blocks(before, [elsewhere]))
    odd = changed(link, superseded=(strange,))
    assert recalled_by_client(there, attempt, odd) == []
    (found,) = recalled_by_client(
        replace(unproven, chain=with_blocks(before, [elsewhere], [tx])), attempt, odd
    )
    assert found.close_id == tx.txid
