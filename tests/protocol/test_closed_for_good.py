"""What a house lends, knows of its clients, and expects, when channels are closed together."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.closes import (
    BALANCES_MSAT,
    below_the_other_child,
    closable_factory,
    close,
)
from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump
from tests.protocol.sleepers import lsp_state, sleeping
from tests.protocol.test_closed import (
    SHORT,
    closed,
    closed_factory,
    payout_sat,
    remembered,
    seats,
)
from tests.protocol.test_exit_guards import show_blocks
from tests.protocol.test_leaving import QUICK
from tests.simulation.sums import locked_sat

from cromford.answers.status import LspCapital
from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.tx import Tx, TxIn, TxOut
from cromford.daemon.parts import read_label
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.closes import closes_of
from cromford.factory.close import CLOSE_NSEQUENCE
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.exiting import client as client_exits
from cromford.protocol.exiting import lsp as lsp_exits
from cromford.protocol.exiting.closes import paid_sat
from cromford.protocol.exiting.lsp_sweep import is_to_be_swept
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.house import House
from cromford.protocol.journal.mail import FactoryDied
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.streams import HOUSE
from cromford.protocol.lobby.choosing import lasting_entries, left_sat, room_sat

CHILD_SAT: Final = 2_000
CAPACITY_SAT: Final = 100_000


def house_of(pump: Pump) -> House:
    return lsp_state(pump).house


def entry_of(pump: Pump) -> FactoryEntry:
    (entry,) = house_of(pump).factories()
    return entry


def capital_of(pump: Pump) -> LspCapital:
    state = lsp_state(pump)
    locking = [one for one in state.house.factories() if lsp_views.is_locking(state, one)]
    return lsp_views.capital(state, locking)


# What is lent


@pytest.mark.sampled(1)
@pytest.mark.parametrize("depth", [SETTLED_DEPTH - 1, SETTLED_DEPTH, SETTLED_DEPTH + 1])
def test_capital_is_free_once_a_close_is_six_blocks_deep(depth: int) -> None:
    pump = closed_factory()
    whole_sat = sum(entry_of(pump).capacity_sat)
    policy = house_of(pump).config.policy
    pump.mine(depth)
    pump.restart(pump.lsp)
    house, is_over = house_of(pump), depth >= SETTLED_DEPTH
    assert house.lent_sat() == (0 if is_over else whole_sat)
    assert room_sat(house) == min(
        policy.capital_per_build_sat, policy.capital_max_sat - house.lent_sat()
    )
    assert house.is_standing(entry_of(pump)) is not is_over
    for client, capacity_sat in zip(seats(pump), entry_of(pump).capacity_sat, strict=True):
        node_id = client.node_id
        used_sat = 0 if is_over else capacity_sat
        assert left_sat(house, node_id) == policy.capital_per_client_sat - used_sat
        assert len(lasting_entries(house, node_id)) == (not is_over)
        assert len(house.entries_of(node_id)) == (not is_over)
        assert len(house.streams_of(node_id)) == (not is_over)
        assert lsp_state(pump).has_seat(node_id) is not is_over
    assert len(remembered(pump.lsp, cl.PartClosed)) == is_over, "told once"
    assert capital_of(pump)["locked"] == [], "its coin is in the wallet from its first block on"


def test_a_reorganisation_before_that_frees_nothing() -> None:
    pump = closed_factory()
    pump.mine(SETTLED_DEPTH - 1)
    lent_sat = house_of(pump).lent_sat()
    pump.chain.remove_tip(2)
    pump.chain.mempool.clear()
    for node in (pump.lsp, *pump.clients):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height - 1))
    assert house_of(pump).lent_sat() == lent_sat > 0
    pump.mine(2)
    assert house_of(pump).lent_sat() == lent_sat
    assert remembered(pump.lsp, cl.PartClosed) == []
    pump.mine(1)
    assert house_of(pump).lent_sat() == 0


def test_a_part_frees_what_is_in_it_and_no_more() -> None:
    pump = closable_factory(4, policy=QUICK)
    vertex = below_the_other_child(pump)
    inside = tuple(vertex.first.shape.clients)
    close(pump, vertex=vertex.first.name)
    entry = entry_of(pump)
    spent = vertex.first.tx.inputs[0].outpoint
    (above,) = (node for node in pump.attempt.tree.nodes if node.tx.txid == spent.txid)
    spent_sat = above.tx.outputs[spent.vout].amount_sat
    assert closed(pump).confirmed(pump.factory.chain) is None
    pump.mine(SETTLED_DEPTH - 1)
    assert house_of(pump).lent_sat() == sum(entry.capacity_sat)
    pump.mine(1)
    (told,) = remembered(pump.lsp, cl.PartClosed)
    assert told.clients == inside
    assert told.amount_sat == spent_sat
    outside = [client for client in range(1, 5) if client not in inside]
    house = house_of(pump)
    assert house.lent_sat() == sum(entry.capacity_sat[client - 1] for client in outside)
    assert house.is_standing(entry_of(pump))
    for client in range(1, 5):
        node_id = pump.client_at(client).node_id
        assert len(house.streams_of(node_id)) == (client in outside)
    whole_sat = entry.funding_amount_sat
    (locked,) = capital_of(pump)["locked"]
    assert locked["amount_sat"] == whole_sat - told.amount_sat
    assert locked_sat(lsp_state(pump)) == whole_sat - told.amount_sat
    # At the expiry the rest is free, and what was free stays so.
    tally, height = house.tally, house.chain.height
    before = tally.at(height=entry.expiry_height - 1, before=height)
    assert before.lent_sat == house.lent_sat()
    assert tally.at(height=entry.expiry_height, before=height).lent_sat == 0


def test_what_was_freed_is_not_freed_once_more_when_a_factory_dies() -> None:
    """Blocks deeper than anything we count may be undone; then each satoshi counts once."""
    pump = closed_factory()
    pump.mine(SETTLED_DEPTH)
    house = house_of(pump)
    told = FactoryDied(attempt_id=entry_of(pump).attempt_id)
    state = lsp_state(pump)
    taken = MailTaken(
        sender=entry_of(pump).stream,
        number=house.post.taken[entry_of(pump).stream] + 1,
        mail=told,
    )
    died = lsp_role.apply(state, HOUSE, taken).house
    assert died.lent_sat() == house.lent_sat() == died.tally.lent_sat == 0
    assert died.tally.at(height=0, before=died.chain.height).lent_sat == 0


def test_a_client_of_a_closed_factory_may_have_all_of_its_capital_again() -> None:
    policy = replace(QUICK, capital_per_client_sat=CAPACITY_SAT, capital_max_sat=CAPACITY_SAT)
    pump = closable_factory(1, policy=policy)
    (client,) = pump.clients
    close(pump)
    pump.mine(SETTLED_DEPTH)
    assert lsp_state(pump).house.lent_sat() == 0
    pump.join_again()
    pump.build()
    pump.run()
    pump.mine(policy.min_depth)
    links = client.state.book.links.values()
    assert sorted(link.is_open for link in links) == [False, True]
    (stream,) = house_of(pump).streams_of(client.node_id)
    assert stream == pump.factory.stream


def test_a_closed_factory_sleeps_though_its_clients_are_here_and_none_of_them_wakes_it() -> None:
    pump = closed_factory()
    number = pump.factory.number
    pump.mine(SETTLED_DEPTH - 1)
    pump.lsp.checkpoint()
    assert sleeping(pump) == set()
    pump.mine(1)
    pump.lsp.checkpoint()
    assert sleeping(pump) == {number}
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()
    pump.mine(1)
    assert sleeping(pump) == {number}
    assert {newest_link(client).failure for client in pump.clients} == {CLOSED_TOGETHER}


def test_a_closed_factory_that_sleeps_is_shown_as_it_is_today() -> None:
    pump = closed_factory(policy=SHORT)
    lifetime, number = pump.factory.lifetime, pump.factory.number
    pump.mine(SETTLED_DEPTH)
    pump.lsp.checkpoint()
    assert sleeping(pump) == {number}
    n_blocks = lifetime.exit_deadline_height - pump.chain.height
    pump.mine(n_blocks)
    assert sleeping(pump) == {number}
    assert pump.lsp.driver is not None
    shown = read_label("", pump.lsp.driver.label(f"factory:{number}")).shown
    asleep = lsp_views.as_it_slept(house_of(pump), shown)
    assert asleep["closed"][0]["confirmations"] == SETTLED_DEPTH + n_blocks
    assert asleep["when_dying"][0]["what"].startswith("over: ")


# What is expected


def test_what_a_finished_close_pays_arrives_until_a_block_has_it() -> None:
    pump = closable_factory(3, policy=QUICK)
    alice, bob, carol = seats(pump)
    assert lsp_exits.arriving_total_sat(pump.factory) == 0
    close(pump)
    lsp_sat = min(paid_sat(tx, pump.attempt.payout_script) for tx in closed(pump).txs)
    assert lsp_sat == paid_sat(closed(pump).txs[1], pump.attempt.payout_script), "the dearer"
    assert lsp_exits.arriving_total_sat(pump.factory) == lsp_sat
    for client, balance_msat in zip((alice, bob, carol), BALANCES_MSAT, strict=False):
        assert client_exits.arriving_total_sat(client.state) == payout_sat(balance_msat)
    pump.mine(1)
    assert lsp_exits.arriving_total_sat(pump.factory) == 0
    assert [client_exits.arriving_total_sat(one.state) for one in pump.clients] == [0, 0, 0]
    assert alice.state.wallet.confirmed_sat() == payout_sat(BALANCES_MSAT[0])


def test_after_the_expiry_what_a_close_spends_is_not_being_swept() -> None:
    pump = closed_factory(1, policy=SHORT)
    pump.chain.mempool.clear()
    show_blocks(pump, pump.lsp, until=pump.attempt.terms.expiry_height + 2)
    factory = pump.factory
    assert lsp_views.status_of(factory) == "closing"
    assert lsp_views.sweeping(factory) == []
    lsp_sat = min(paid_sat(tx, pump.attempt.payout_script) for tx in closed(pump).txs)
    assert lsp_exits.arriving_total_sat(factory) == lsp_sat, "once, and not the whole output"
    assert is_to_be_swept(factory, 1), "no exit begins any more"
    without = replace(factory, closed=type(factory.closed)())
    assert [one["name"] for one in lsp_views.sweeping(without)] == ["funding"]


def closes_now(pump: Pump) -> tuple[int, int]:
    """Return how many closes are under way, and how many wait for a block with all signatures."""
    factories = [*lsp_state(pump).all_factories()]
    n_closing = sum(factory.closing is not None for factory in factories)
    return n_closing, sum(map(lsp_views.closes_waiting, factories))


def test_how_many_closes_are_under_way_and_how_many_wait() -> None:
    pump = closable_factory(1, policy=QUICK)
    assert closes_now(pump) == (0, 0)
    pump.handle(pump.lsp, ev.CloseRequested(attempt_id=pump.attempt.attempt_id))
    assert closes_now(pump) == (1, 0)
    pump.run()
    assert closes_now(pump) == (0, 1)
    pump.mine(1)
    assert closes_now(pump) == (0, 0)


# What a child costs


def child_of(tx: Tx, script: bytes, *, of_script: bytes) -> Tx:
    """Return a child of an anchor and of what pays a script, that pays another."""
    spent = [n for n, output in enumerate(tx.outputs) if output.script_pubkey == of_script]
    own_sat = sum(tx.outputs[n].amount_sat for n in spent)
    vouts = [*spent, len(tx.outputs) - 1]
    amount_sat = own_sat + ANCHOR_DUST_SAT - CHILD_SAT
    return Tx(
        version=3,
        inputs=tuple(TxIn(outpoint=tx.outpoints[n], nsequence=CLOSE_NSEQUENCE) for n in vouts),
        outputs=(TxOut(amount_sat=amount_sat, script_pubkey=script),),
    )


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_later", [0, 1, SETTLED_DEPTH])
@pytest.mark.parametrize("whose", ["lsp", "alice"])
def test_a_child_of_the_lsps_own_output_is_in_its_ledger(whose: str, n_later: int) -> None:
    """In the block of its close, or later; another's child costs the LSP nothing."""
    pump = closed_factory()
    tx, script = closed(pump).txs[0], pump.attempt.payout_script
    theirs = script if whose == "lsp" else pump.attempt.seats[0].payout_script
    child = child_of(tx, theirs, of_script=theirs)
    (before,) = closes_of(pump.factory)
    height = house_of(pump).chain.height
    first = (tx, child) if n_later == 0 else (tx,)
    show_blocks(pump, pump.lsp, until=height + 1, txs=first)
    if n_later:
        (shown,) = closes_of(pump.factory)
        assert shown["lsp_sat"] == before["lsp_sat"]
        show_blocks(pump, pump.lsp, until=height + n_later)
        show_blocks(pump, pump.lsp, until=height + n_later + 1, txs=(child,))
    (shown,) = closes_of(pump.factory)
    items = {one["item"]: one["amount_sat"] for one in shown["items"]}
    cost_sat = CHILD_SAT - ANCHOR_DUST_SAT if whose == "lsp" else 0
    assert items["close_child"] == -cost_sat
    assert sum(items.values()) == shown["lsp_sat"] == before["lsp_sat"] - cost_sat
    coins = house_of(pump).wallet.unspent.values()
    arrived = [coin.txout.amount_sat for coin in coins if coin.txout.script_pubkey == script]
    assert shown["lsp_sat"] in arrived
    for gone in range(house_of(pump).chain.height, height, -1):
        pump.handle(pump.lsp, ev.BlockRemoved(height=gone))
    assert closes_of(pump.factory) == [before]
