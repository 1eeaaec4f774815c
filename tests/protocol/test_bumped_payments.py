"""A payment that no block takes: another with a higher fee takes its place, and pays the same."""

from dataclasses import replace

import pytest
from tests.protocol.pump import COIN_SAT, Pump, PumpNode
from tests.protocol.stalling import recover, stall
from tests.protocol.test_paying import (
    FEERATE,
    N_COINS,
    PAYEE,
    each_role,
    paid,
    pay,
    rejection,
    request,
    with_wallet,
)

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.journal import spending_records as sr
from cromford.wallet.account import CHANGE

BUMPED = 3 * FEERATE
INCREMENTAL = 25  # 0.1 sat/vB


def bump(
    txid: Txid, feerate: int = BUMPED, *, from_amount: bool = False, others_sat: int = 0
) -> ev.SpendingBumpRequested:
    return ev.SpendingBumpRequested(
        txid=txid,
        feerate_sat_per_kw=feerate,
        takes_from_amount=from_amount,
        incremental_sat_per_kw=INCREMENTAL,
        others_sat=others_sat,
    )


def bumped(pump: Pump, node: PumpNode, asked: ev.SpendingBumpRequested) -> Tx:
    """Return the one payment that there is after the operator's request, which the node has."""
    pump.handle(node, asked)
    tx: Tx
    (tx,) = node.state.wallet.payments.values()
    assert list(pump.chain.mempool) == [tx.txid]
    assert set(node.state.wallet.reserved) == {tx_in.outpoint for tx_in in tx.inputs}
    return tx


def fee_of(node: PumpNode, tx: Tx) -> int:
    coins = node.state.wallet.coins
    spent_sat: int = sum(coins[tx_in.outpoint].txout.amount_sat for tx_in in tx.inputs)
    return spent_sat - sum(out.amount_sat for out in tx.outputs)


@each_role
def test_the_change_pays_for_a_payment_that_takes_the_place_of_one(role: str) -> None:
    pump, node = with_wallet(role)
    first = pay(pump, node, 1_000_000)
    script = node.state.wallet.next_script(CHANGE)
    second = bumped(pump, node, bump(first.txid))
    assert [one.outpoint for one in second.inputs] == [one.outpoint for one in first.inputs]
    assert fee_of(node, second) == -(-4 * second.vsize * BUMPED // 1000)
    spared_sat = COIN_SAT - 1_000_000 - fee_of(node, second)
    change_script = first.outputs[1].script_pubkey
    assert paid([second]) == [(1_000_000, PAYEE), (spared_sat, change_script)]
    assert node.state.wallet.next_script(CHANGE) == script, "no new change address is used"
    pump.restart(node)
    pump.mine()
    assert second.txid in pump.chain.confirmed
    wallet = node.state.wallet
    assert (wallet.payments, wallet.reserved) == ({}, {})
    assert wallet.confirmed_sat() == (N_COINS - 1) * COIN_SAT + spared_sat


@each_role
def test_more_coins_pay_where_the_change_does_not_reach(role: str) -> None:
    """And what is left of them is change, to a fresh address."""
    pump, node = with_wallet(role)
    first = pay(pump, node, COIN_SAT - 700)
    assert len(first.outputs) == 1
    script = node.state.wallet.next_script(CHANGE)
    second = bumped(pump, node, bump(first.txid))
    assert len(second.inputs) == 2
    assert paid([second])[0] == (COIN_SAT - 700, PAYEE)
    assert second.outputs[1].script_pubkey == script
    assert node.state.wallet.next_script(CHANGE) != script


@each_role
def test_where_all_was_paid_its_payee_pays_if_the_operator_says_so(role: str) -> None:
    pump, node = with_wallet(role)
    first = pay(pump, node, None)
    assert rejection(node, bump(first.txid)).code == "insufficient_coins"
    second = bumped(pump, node, bump(first.txid, from_amount=True))
    assert paid([second]) == [(N_COINS * COIN_SAT - fee_of(node, second), PAYEE)]


def test_a_change_that_would_be_dust_goes_to_the_fee() -> None:
    pump, node = with_wallet("client")
    first = pay(pump, node, COIN_SAT - 1_200)
    fee_sat = fee_of(node, first)
    assert first.outputs[1].amount_sat == 1_200 - fee_sat
    second = bumped(pump, node, bump(first.txid, 2_400))
    assert paid([second]) == [(COIN_SAT - 1_200, PAYEE)]
    assert 1_200 - fee_sat - P2TR_DUST_SAT < fee_of(node, second) == 1_200


def test_what_no_node_would_take_in_its_place_is_refused_with_what_would_do() -> None:
    pump, node = with_wallet("client")
    first = pay(pump, node, 1_000_000)
    for feerate in (FEERATE - 1, FEERATE, FEERATE + INCREMENTAL - 1):
        refused = rejection(node, bump(first.txid, feerate))
        assert refused.code == "feerate_too_low"
        assert "expected at least 4.1 " in str(refused)
    second = bumped(pump, node, bump(first.txid, FEERATE + INCREMENTAL))
    assert rejection(node, bump(first.txid)).code == "payment_not_found", "it is none any more"
    bumped(pump, node, bump(second.txid))


def test_what_hangs_on_a_payment_is_paid_for_too() -> None:
    """A payee may spend what it was paid, dearly: that ends with the payment."""
    pump, node = with_wallet("client")
    first = pay(pump, node, 1_000_000)
    refused = rejection(node, bump(first.txid, others_sat=10_000))
    assert refused.code == "feerate_too_low"
    assert "the payment and what hangs on it" in str(refused)


def test_a_replaced_payment_that_confirms_all_the_same_ends_the_other() -> None:
    pump, node = with_wallet("client")
    first = pay(pump, node, 1_000_000)
    second = bumped(pump, node, bump(first.txid))
    pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    wallet = node.state.wallet
    assert (wallet.payments, wallet.reserved) == ({}, {})
    change_sat = first.outputs[1].amount_sat
    assert wallet.confirmed_sat() == (N_COINS - 1) * COIN_SAT + change_sat
    take_block_back(pump)
    assert set(node.state.wallet.payments) == {second.txid}, "which may confirm now"
    assert list(pump.chain.mempool) == [first.txid], "they pay the same payee the same"
    pump.mine(2)
    assert first.txid in pump.chain.confirmed
    assert node.state.wallet.payments == {}


def test_a_payment_that_came_back_takes_no_coin_from_what_has_it_now() -> None:
    """What replaced it was in a block; what the other coin paid meanwhile must not end."""
    pump, node = with_wallet("client")
    first = pay(pump, node, COIN_SAT - 700)
    second = bumped(pump, node, bump(first.txid))
    pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    since = pay(pump, node, None)
    shared = {one.outpoint for one in second.inputs} & {one.outpoint for one in since.inputs}
    take_block_back(pump)
    assert set(node.state.wallet.payments) == {second.txid, since.txid}
    assert rejection(node, bump(second.txid, 4 * BUMPED)).code == "coins_taken"
    assert [node.state.wallet.reserved[outpoint] for outpoint in shared] == [since.txid]
    assert since.txid in pump.chain.mempool


@each_role
def test_a_payment_that_came_back_is_not_published_while_its_coin_pays_for_another(
    role: str,
) -> None:
    """By its higher fee it would end that one in every mempool. Once that is given up, it goes."""
    pump, node = with_wallet(role)
    first = pay(pump, node, COIN_SAT - 700)
    second = bumped(pump, node, bump(first.txid))
    pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    since = pay(pump, node, None)
    take_block_back(pump)
    for _ in range(2):
        pump.chain.mempool.clear()
        pump.restart(node)
        assert list(pump.chain.mempool) == [since.txid]
    pump.handle(node, ev.AbandonRequested(txid=since.txid, reason="no"))
    pump.chain.mempool.clear()
    pump.restart(node)
    assert list(pump.chain.mempool) == [second.txid]
    free = {coin.outpoint for coin in node.state.wallet.free(pump.chain.height)}
    assert free.isdisjoint(one.outpoint for one in second.inputs), "they are its own again"


@each_role
def test_a_payment_that_came_back_stays_where_another_hangs_on_it(role: str) -> None:
    """By another txid its change would be gone, and what spends that could never confirm."""
    pump, node = with_wallet(role)
    first = pay(pump, node, 1_000_000)
    pump.mine()
    since = pay(pump, node, None)
    assert first.outpoint(1) in {one.outpoint for one in since.inputs}
    take_block_back(pump)
    assert rejection(node, bump(first.txid)).code == "change_spent"
    pump.handle(node, ev.AbandonRequested(txid=since.txid, reason="no"))
    pump.chain.mempool.clear()
    pump.restart(node)
    bumped(pump, node, bump(first.txid))


@each_role
def test_what_lost_to_what_it_replaced_does_not_end_what_that_paid_for_since(role: str) -> None:
    """After a reorganisation both may confirm: it waits while the other's change is in use."""
    pump, node = with_wallet(role)
    first = pay(pump, node, COIN_SAT - 100_000)
    second = bumped(pump, node, bump(first.txid, 20 * FEERATE))
    pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    since = pay(pump, node, None)
    assert first.outpoint(1) in {one.outpoint for one in since.inputs}
    take_block_back(pump)
    pump.restart(node)
    assert set(node.state.wallet.payments) == {second.txid, since.txid}
    assert list(pump.chain.mempool) == [first.txid, since.txid]
    assert rejection(node, bump(second.txid, 40 * FEERATE)).code == "change_spent"
    pump.mine(2)
    assert since.txid in pump.chain.confirmed
    assert node.state.wallet.payments == {}


def test_what_lost_to_what_it_replaced_is_published_once_nothing_spends_that() -> None:
    pump, node = with_wallet("client")
    pump.handle(node, replace(request(COIN_SAT - 100_000), external_id="payout-7"))
    (first,) = node.state.wallet.payments.values()
    second = bumped(pump, node, bump(first.txid, 20 * FEERATE))
    pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    since = pay(pump, node, None)
    take_block_back(pump)
    assert node.state.wallet.lost_to(second.txid) == first.txid
    pump.handle(node, ev.AbandonRequested(txid=since.txid, reason="no"))
    pump.restart(node)
    assert list(pump.chain.mempool) == [second.txid]
    assert known_as("payout-7", node) == (second.txid, 1, 0)
    pump.mine()
    assert known_as("payout-7", node) == (second.txid, 0, 1)


def take_block_back(pump: Pump) -> None:
    pump.chain.remove_tip(1)
    for each in (pump.lsp, *pump.clients):
        pump.handle(each, ev.BlockRemoved(height=each.state.chain.height))


@pytest.mark.parametrize(("fuse", "is_kept"), [(2, False), (3, True)], ids=["before", "after"])
def test_a_process_that_dies_leaves_one_of_both(
    fuse: int,
    is_kept: bool,  # noqa: FBT001 - a case
) -> None:
    pump, node = with_wallet("client")
    first = pay(pump, node, 1_000_000)
    node.fuse = fuse
    pump.handle(node, bump(first.txid))
    assert node.n_deaths == 1
    (tx,) = node.state.wallet.payments.values()
    assert (tx.txid == first.txid) is not is_kept
    assert list(pump.chain.mempool) == [tx.txid]
    signed = [one for one in node.store.remembered if isinstance(one, sr.SpendingWasSigned)]
    assert [Txid(one.replaces) for one in signed[1:]] == [first.txid] * is_kept


def test_coins_of_a_split_that_is_bumped_are_the_same_but_the_last() -> None:
    pump, node = with_wallet("client")
    pump.handle(node, ev.SplitRequested(n_coins=3, amount_sat=None, feerate_sat_per_kw=FEERATE))
    (first,) = node.state.wallet.payments.values()
    second = bumped(pump, node, bump(first.txid))
    assert second.outputs[:2] == first.outputs[:2]
    assert second.outputs[2].amount_sat < first.outputs[2].amount_sat
    pump.mine()
    assert len(node.state.wallet.unspent) == 3


def test_on_a_stale_chain_and_without_its_coins_a_payment_stays_as_it_is() -> None:
    """It may be in a block that was not read; what coins pay that are in none, nobody knows."""
    pump, node = with_wallet("client")
    first = pay(pump, node, 1_000_000)
    stall(pump, node)
    node.driver.facts = node.facts  # type: ignore[union-attr]  # it lives
    assert rejection(node, bump(first.txid)).code == "chain_stale"
    recover(pump, node)
    bumped(pump, node, bump(first.txid))


def test_by_one_external_id_one_payment_is_made_whatever_replaces_it() -> None:
    pump, node = with_wallet("client")
    asked = replace(request(1_000_000), external_id="payout-7")
    pump.handle(node, asked)
    (first,) = node.state.wallet.payments.values()
    assert rejection(node, asked).code == "external_id_taken"
    second = bumped(pump, node, bump(first.txid))
    third = bumped(pump, node, bump(second.txid, 2 * BUMPED))
    pump.restart(node)
    pump.mine()
    called = node.state.wallet.called_now("payout-7")
    assert called is not None
    assert (called.tx, called.asked_sat) == (third, 1_000_000)
    assert called.fee_sat == fee_of(node, third)
    assert set(node.state.wallet.called) == {first.txid, second.txid, third.txid}
    assert rejection(node, asked).code == "external_id_taken", "once it confirmed, too"
    pay(pump, node, 1_000_000)
    assert dict(node.state.wallet.newest_called) == {"payout-7": third.txid}, "no other has one"


@pytest.mark.parametrize("n_bumps", [0, 1])
def test_a_payment_of_an_id_that_was_given_up_and_confirms_is_that_of_its_id(n_bumps: int) -> None:
    """Also what the one that was given up had replaced: who looks for that finds nothing."""
    pump, node = with_wallet("client")
    pump.handle(node, replace(request(1_000_000), external_id="payout-7"))
    first = newest = next(iter(node.state.wallet.payments.values()))
    for _ in range(n_bumps):
        newest = bumped(pump, node, bump(first.txid))
    pump.handle(node, ev.AbandonRequested(txid=newest.txid, reason="no"))
    pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    assert known_as("payout-7", node) == (first.txid, 0, 1)
    pump.restart(node)
    take_block_back(pump)
    assert known_as("payout-7", node) == (first.txid, 1, 0), "it waits again"
    pump.mine(2)
    assert known_as("payout-7", node) == (first.txid, 0, 1)


def known_as(external_id: str, node: PumpNode) -> tuple[Txid, int, int]:
    """Return the payment of an id, and whether it waits, or is over."""
    wallet = node.state.wallet
    txid = wallet.newest_called[external_id]
    called = wallet.called_now(external_id)
    assert called is not None
    assert called.tx.txid == txid
    return txid, txid in wallet.payments, txid in wallet.ended_payments


@pytest.mark.parametrize("amount_sat", [COIN_SAT - 702, COIN_SAT - 701, COIN_SAT - 700])
@pytest.mark.parametrize("is_later", [False, True], ids=["with it", "later"])
def test_a_payment_whose_replacement_lost_another_coin_is_that_of_its_id(
    amount_sat: int,
    is_later: bool,  # noqa: FBT001 - a case
) -> None:
    """The coin that was added to it had paid for something that was given up."""
    pump, node = with_wallet("client")
    given_up, other = (pay(pump, node, amount_sat) for _ in range(2))
    pump.handle(node, replace(request(amount_sat), external_id="payout-7"))
    *_, first = node.state.wallet.payments.values()
    pump.handle(node, ev.AbandonRequested(txid=given_up.txid, reason="no"))
    pump.handle(node, bump(first.txid))
    *_, second = node.state.wallet.payments.values()
    assert given_up.inputs[0].outpoint in {one.outpoint for one in second.inputs}
    pump.chain.mempool.clear()
    pump.chain.broadcast(given_up)
    if is_later:
        pump.mine()
        pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    assert other.txid in node.state.wallet.payments
    called = node.state.wallet.called_now("payout-7")
    assert called is not None
    assert called.tx == first
    assert first.txid in pump.chain.confirmed
