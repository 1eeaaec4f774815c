"""A fee ladder on the embedded node: whichever candidate confirms is live, and one alone is."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.forked_world import QUICK, ForkedPump
from tests.protocol.ladders import DEPTH, candidates, forked, replace_by
from tests.protocol.paying_clients import balance, book, make_invoice, newest_link, pay
from tests.protocol.pump import PumpNode
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_forked_fundings import rejected, shown
from tests.simulation.sums import locked_sat

from cromford.bitcoin.tx import Tx
from cromford.daemon.views import client as client_views
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.channels import status_of
from cromford.protocol import events as ev
from cromford.protocol.channels.depth import NOT_DEEP
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import opening_records as op
from cromford.protocol.lobby.choosing import lent_sat
from cromford.protocol.policy import LspPolicy

FIRST_MSAT: Final = 30_000_000
PAID_MSAT: Final = 1_000_000
RUNGS: Final = range(3)
SHORT: Final = replace(QUICK, active_blocks=144, dying_blocks=144, ready_min_blocks=1)
WAITING: Final = ("funding", "waiting_for_funding", "waiting_for_funding")
CONFIRMING: Final = ("funding", "confirming", "confirming")
LIVE: Final = ("live", "live", "live")
DISPLACED: Final = ("displaced", "displaced", "displaced")


def bury(pump: ForkedPump, tx: Tx, n_blocks: int = DEPTH) -> None:
    """Mine a candidate that many blocks deep, whatever the mempool prefers."""
    pump.mine_only(tx)
    for _ in range(n_blocks - 1):
        pump.mine_only()


def live_in(pump: ForkedPump, rung: int) -> bool:
    """Say whether both sides have their channels in this candidate, and in no other."""
    keys = {link.key.candidate for node in pump.everybody for link in book(node).links.values()}
    held = {pump.held(client).rung for client in pump.clients}
    return shown(pump) == LIVE and keys == held == {pump.attempt.rung} == {rung}


def money(pump: ForkedPump) -> list[int]:
    return [balance(client).own_msat for client in pump.clients]


def given(pump: ForkedPump) -> None:
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"


def nobody_pays(pump: ForkedPump, invoice: ev.PayRequested) -> None:
    """Nothing new is offered by anybody."""
    assert rejected(pump.lsp, invoice) == NOT_DEEP
    assert rejected(pump.clients[0], invoice) == NOT_DEEP


@pytest.mark.sampled(1)
@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("published", RUNGS)
def test_whichever_candidate_confirms_is_live(published: int, rung: int) -> None:
    """Also a lower one than that which is published: whoever has it may mine it."""
    pump = forked()
    for n_replaced in range(published):
        assert replace_by(pump).txid == candidates(pump)[n_replaced + 1].txid
    assert list(pump.chain.mempool) == [candidates(pump)[published].txid]
    bury(pump, candidates(pump)[rung], DEPTH - 1)
    assert shown(pump) == CONFIRMING
    assert not any(book(node).links for node in pump.everybody)
    pump.mine_only()
    assert live_in(pump, rung)
    given(pump)
    alice, bob = pump.clients
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"
    pump.handle(alice, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine(40)
    assert alice.state.wallet.confirmed_sat() > (FIRST_MSAT - 2 * PAID_MSAT) // 1000


@pytest.mark.sampled(1)
@pytest.mark.parametrize("depth", range(1, DEPTH))
def test_before_it_is_six_deep_a_candidate_may_give_way_to_another(depth: int) -> None:
    """Nothing can have been paid: there is no channel yet."""
    pump = forked()
    first, _, last = candidates(pump)
    bury(pump, first, depth)
    assert shown(pump) == CONFIRMING
    for client in pump.clients:
        assert not book(client).links
        assert not pump.held(client).ready_sent
    pump.take_back(depth)
    assert shown(pump) == WAITING
    bury(pump, last)
    assert live_in(pump, 2)
    given(pump)
    alice, bob = pump.clients
    assert pay(pump, bob, alice, PAID_MSAT).status == "paid"


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_blocks", range(1, DEPTH + 1))
def test_a_shallow_reorganisation_pauses_the_channels_of_the_candidate_they_are_in(
    n_blocks: int,
) -> None:
    pump = forked()
    _, second, _ = candidates(pump)
    replace_by(pump)
    bury(pump, second)
    given(pump)
    alice, bob = pump.clients
    invoice = make_invoice(pump, bob, PAID_MSAT)
    pump.take_back(n_blocks)
    assert shown(pump) == (WAITING if n_blocks == DEPTH else CONFIRMING)
    nobody_pays(pump, invoice)
    pump.mine(n_blocks)
    assert live_in(pump, 1)
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"


def displaced(policy: LspPolicy = QUICK) -> tuple[ForkedPump, ev.PayRequested]:
    """Return a world in which channels hold money, and another candidate is six deep instead."""
    pump = forked(policy=policy)
    bury(pump, candidates(pump)[0])
    given(pump)
    invoice = make_invoice(pump, pump.clients[1], PAID_MSAT)
    pump.take_back(DEPTH)
    bury(pump, candidates(pump)[1])
    return pump, invoice


def words_of(pump: ForkedPump) -> list[tuple[str, str]]:
    """Return in one word each how a client and the LSP see every channel."""
    both: list[tuple[str, str]] = []
    for client in pump.clients:
        link = newest_link(client)
        own = client_views.standing_of(client.state, link, FRESH)
        lsps = book(pump.lsp).links[link.channel_id]
        standing = lsp_views.standing_of(pump.factory, lsps, FRESH)
        both.append((status_of(link, own), status_of(lsps, standing)))
    return both


def died(node: PumpNode) -> list[int | None]:
    """Return what a journal says took the place of a funding."""
    kinds = (op.FundingDied, op.WaitGivenUp)
    return [record.rung for record in node.store.remembered if isinstance(record, kinds)]


def test_a_channel_never_goes_over_into_another_candidate() -> None:
    """It has nothing of what was paid: to go on there would set every client to 0 in silence."""
    pump = forked()
    bury(pump, candidates(pump)[0])
    given(pump)
    before = money(pump)
    invoice = make_invoice(pump, pump.clients[1], PAID_MSAT)
    pump.take_back(DEPTH)
    for depth in range(1, DEPTH):
        pump.mine_only(*([candidates(pump)[1]] if depth == 1 else []))
        assert shown(pump) == WAITING
        assert words_of(pump) == [("pending", "pending")] * 2
        nobody_pays(pump, invoice)
    pump.mine_only()
    assert shown(pump) == DISPLACED
    assert words_of(pump) == [("displaced", "displaced")] * 2
    nobody_pays(pump, invoice)
    assert [died(node) for node in pump.everybody] == [[1]] * 3
    for node in pump.everybody:
        pump.restart(node)
    pump.run()
    assert shown(pump) == DISPLACED
    nobody_pays(pump, invoice)
    assert money(pump) == before
    signed_in = {
        link.key.candidate for node in pump.everybody for link in book(node).links.values()
    }
    assert signed_in == {0}


@pytest.mark.sampled(0)
def test_what_the_chain_says_can_turn_back() -> None:
    pump, _ = displaced()
    before, (alice, bob) = money(pump), pump.clients
    pump.take_back(DEPTH)
    bury(pump, candidates(pump)[0])
    assert live_in(pump, 0)
    assert words_of(pump) == [("open", "open")] * 2
    assert money(pump) == before
    assert pay(pump, alice, bob, PAID_MSAT).status == "paid"
    pump.handle(bob, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine(40)
    assert bob.state.wallet.confirmed_sat() > FIRST_MSAT // 1000 - 5_000


@pytest.mark.sampled(0)
def test_a_client_that_was_displaced_joins_the_next_factory() -> None:
    pump, _ = displaced()
    pump.join()
    pump.build(min_clients=2)
    pump.run()
    pump.mine(DEPTH)
    given(pump)
    assert [newest_link(client).key.candidate for client in pump.clients] == [0, 0]


@pytest.mark.sampled(0)
def test_who_was_displaced_is_lent_nothing_there_unless_the_chain_turns_back() -> None:
    """All of it is the LSP's. The client would have to wait for the expiry to join with it all."""
    pump, _ = displaced()
    all_sat = sum(pump.attempt.terms.capacity_sat)
    for lent_total_sat in (0, all_sat, 0):
        house = lsp_state(pump).house
        assert house.lent_sat() == lent_total_sat
        for client, capacity_sat in zip(pump.clients, pump.attempt.terms.capacity_sat, strict=True):
            assert lent_sat(house, client.node_id) == (capacity_sat if lent_total_sat else 0)
            assert lsp_state(pump).has_seat(client.node_id) is bool(lent_total_sat)
        pump.restart(pump.lsp)
        pump.take_back(DEPTH)
        bury(pump, candidates(pump)[0 if not lent_total_sat else 1])


@pytest.mark.sampled(0)
def test_the_lsp_takes_its_coins_out_of_a_candidate_without_channels_at_the_expiry() -> None:
    pump, _ = displaced(SHORT)
    house = lsp_state(pump).house
    whole_sat = pump.attempt.tree.funding_amount_sat
    assert locked_sat(lsp_state(pump)) == whole_sat
    before_sat = house.wallet.confirmed_sat()
    for client in pump.clients:
        pump.disconnect(client)
    while pump.chain.height <= pump.attempt.terms.expiry_height:
        pump.mine()
    pump.mine(8)
    assert shown(pump)[0] == "swept"
    assert locked_sat(lsp_state(pump)) == 0
    assert lsp_state(pump).house.wallet.confirmed_sat() > before_sat + whole_sat - 1_000


@pytest.mark.sampled(1)
@pytest.mark.parametrize("who", ["lsp", "client"])
def test_the_lsp_gets_its_coins_whoever_publishes_such_a_tree(who: str) -> None:
    """A client that does has nothing there, and pays for it if the tree does not."""
    pump, _ = displaced()
    before_sat = lsp_state(pump).house.wallet.confirmed_sat()
    factory = pump.factory
    capacity_sat = sum(factory.attempt.terms.capacity_sat)
    if who == "lsp":
        for client in (1, 2):
            attempt_id = pump.attempt.attempt_id
            pump.handle(pump.lsp, ev.ExitRequested(attempt_id=attempt_id, client=client))
    else:
        held = pump.held(pump.client_at(1)).on_rung(1)
        pump.restart(pump.lsp)
        for tx in held.signed_branch.txs:
            while tx.txid not in pump.chain.confirmed:
                pump.chain.broadcast(tx) if can_be_mined(pump, tx) else None
                pump.mine()
        for client in (1, 2):
            attempt_id = pump.attempt.attempt_id
            pump.handle(pump.lsp, ev.ExitRequested(attempt_id=attempt_id, client=client))
    pump.mine(40)
    gained_sat = lsp_state(pump).house.wallet.confirmed_sat() - before_sat
    assert gained_sat > capacity_sat - 10_000


def can_be_mined(pump: ForkedPump, tx: Tx) -> bool:
    """Say whether the delay of a transaction is over."""
    nsequence = tx.inputs[0].nsequence & 0xFFFF
    parent = pump.chain.confirmed.get(tx.inputs[0].outpoint.txid)
    if tx.inputs[0].nsequence == 0xFFFFFFFF:
        return True
    return parent is not None and pump.chain.height + 1 >= parent + nsequence
