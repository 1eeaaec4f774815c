"""Payments out of a role's wallet: remembered first, published until they confirm, never twice."""

from collections.abc import Sequence
from typing import Final

import pytest
from tests.protocol.attacks import proposed
from tests.protocol.pump import COIN_SAT, Pump, PumpNode

from cromford import effects as fx
from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.tx import Tx, TxIn, TxOut
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import spending_records as sr
from cromford.wallet.account import CHANGE, GAP_LIMIT, RECEIVE

PAYEE: Final = b"\x51\x20" + b"\x77" * 32
FEERATE: Final = 1_000
N_COINS: Final = 3

each_role = pytest.mark.parametrize("role", ["lsp", "client"])


def with_wallet(role: str) -> tuple[Pump, PumpNode]:
    """Return a world, and in it a participant with three coins."""
    pump = Pump(1, watches_folds=True)
    node = pump.lsp if role == "lsp" else pump.clients[0]
    if role == "client":
        for _ in range(N_COINS):
            pump.chain.fund(node.state.wallet.next_script(RECEIVE), COIN_SAT)
        pump.sync()
    assert node.state.wallet.confirmed_sat() == N_COINS * COIN_SAT
    return pump, node


def request(amount_sat: int | None, *, to: bytes = PAYEE) -> ev.SpendingRequested:
    return ev.SpendingRequested(script_pubkey=to, amount_sat=amount_sat, feerate_sat_per_kw=FEERATE)


def pay(pump: Pump, node: PumpNode, amount_sat: int | None) -> Tx:
    """Let the operator pay; return the one transaction that is new in the mempool."""
    before = set(pump.chain.mempool)
    pump.handle(node, request(amount_sat))
    (txid,) = set(pump.chain.mempool) - before
    return pump.chain.mempool[txid]


def rejection(node: PumpNode, event: ev.Event) -> Rejected:
    """Return why the operator's request is not met; nothing may have changed."""
    assert node.driver is not None
    state, n_entries = node.state, len(node.store.entries)
    with pytest.raises(Rejected) as caught:
        node.driver.handle(event)
    assert node.state is state
    assert len(node.store.entries) == n_entries
    return caught.value


def paid(txs: Sequence[Tx]) -> list[tuple[int, bytes]]:
    return [(out.amount_sat, out.script_pubkey) for tx in txs for out in tx.outputs]


@each_role
def test_a_payment_pays_its_payee_and_returns_the_rest_to_a_fresh_address(role: str) -> None:
    """The simulated chain lets the kernel check the scripts of whatever is published."""
    pump, node = with_wallet(role)
    change_script = node.state.wallet.next_script(CHANGE)
    tx = pay(pump, node, 123_456)
    fee_sat = COIN_SAT - sum(out.amount_sat for out in tx.outputs)
    assert paid([tx]) == [(123_456, PAYEE), (COIN_SAT - 123_456 - fee_sat, change_script)]
    assert fee_sat == -(-4 * tx.vsize * FEERATE // 1000)
    assert node.state.wallet.next_script(CHANGE) != change_script
    pump.mine()
    assert node.state.wallet.confirmed_sat() == N_COINS * COIN_SAT - 123_456 - fee_sat
    assert not node.state.wallet.payments, "nothing is owed once it confirmed"


@each_role
def test_to_pay_everything_leaves_no_coin_and_takes_no_change_address(role: str) -> None:
    pump, node = with_wallet(role)
    change_script = node.state.wallet.next_script(CHANGE)
    tx = pay(pump, node, None)
    assert len(tx.inputs) == N_COINS
    assert [out.script_pubkey for out in tx.outputs] == [PAYEE]
    pump.mine()
    assert node.state.wallet.confirmed_sat() == 0
    assert node.state.wallet.next_script(CHANGE) == change_script


@each_role
def test_two_payments_never_spend_one_coin(role: str) -> None:
    pump, node = with_wallet(role)
    txs = [pay(pump, node, 1_000_000) for _ in range(N_COINS)]
    spent = [tx_in.outpoint for tx in txs for tx_in in tx.inputs]
    assert len(set(spent)) == len(spent)
    assert rejection(node, request(1_000)).code == "insufficient_coins", "all are set aside"


@each_role
@pytest.mark.parametrize(("fuse", "n_kept"), [(2, 0), (3, 1)], ids=["before", "after"])
def test_a_payment_is_published_if_and_only_if_it_was_remembered(
    role: str, fuse: int, n_kept: int
) -> None:
    """The process dies just before, or just after, its signed payment became durable."""
    pump, node = with_wallet(role)
    pay(pump, node, 1_000_000)
    node.fuse = fuse
    pump.handle(node, request(2_000_000))
    assert node.n_deaths == 1
    published = [tx for tx in pump.chain.mempool.values() if tx.outputs[0].amount_sat == 2_000_000]
    kept = [
        Tx.parse(record.tx)
        for record in node.store.remembered
        if isinstance(record, sr.SpendingWasSigned)
    ]
    assert published == kept[1:]
    assert len(published) == n_kept


@each_role
def test_a_payment_that_fell_out_of_the_mempool_is_published_again(role: str) -> None:
    """The same transaction with every block and every start, until it confirms; then no more."""
    pump, node = with_wallet(role)
    tx = pay(pump, node, 1_000_000)
    pump.chain.mempool.clear()
    pump.mine()
    assert set(pump.chain.mempool) == {tx.txid}, "with the next block"
    pump.chain.mempool.clear()
    pump.restart(node)
    assert set(pump.chain.mempool) == {tx.txid}, "and with the next start"
    pump.mine()
    n_broadcasts = len(pump.wishes(node, fx.Broadcast))
    pump.mine()
    pump.restart(node)
    assert len(pump.wishes(node, fx.Broadcast)) == n_broadcasts


@each_role
def test_a_payment_that_a_node_refuses_stays_owed(role: str) -> None:
    """Its coins are in another transaction that the node saw first; who wins, a block says."""
    pump, node = with_wallet(role)
    first = pay(pump, node, 1_000_000)
    pump.chain.mempool.clear()
    rival = Tx(
        version=2,
        inputs=(TxIn(outpoint=first.inputs[0].outpoint, nsequence=0),),
        outputs=(TxOut(amount_sat=1, script_pubkey=PAYEE),),
    )
    pump.chain.mempool[rival.txid] = rival
    pump.restart(node)
    assert set(pump.chain.mempool) == {rival.txid}
    assert set(node.state.wallet.payments) == {first.txid}
    del pump.chain.mempool[rival.txid]
    pump.mine()
    assert set(pump.chain.mempool) == {first.txid}


@each_role
def test_a_payment_that_cannot_be_paid_is_rejected_with_its_reason(role: str) -> None:
    _, node = with_wallet(role)
    too_much = rejection(node, request(N_COINS * COIN_SAT))
    assert (too_much.code, too_much.retryable) == ("insufficient_coins", True)
    assert f"{N_COINS * COIN_SAT:,} sat are free" in str(too_much)
    dust = rejection(node, request(P2TR_DUST_SAT - 1))
    assert (dust.code, dust.retryable) == ("dust", False)
    assert f"at least {P2TR_DUST_SAT}, received {P2TR_DUST_SAT - 1}" in str(dust)


def test_the_coins_of_a_factory_under_way_are_nobody_elses() -> None:
    """Two factories must not want one coin, and no payment may take what is proposed."""
    pump = proposed(1)
    reserved = {tx_in.outpoint for tx_in in pump.attempt.funding_tx.inputs}
    tx = pay(pump, pump.lsp, None)
    assert not reserved & {tx_in.outpoint for tx_in in tx.inputs}
    pump.run()
    assert pump.is_funded()


@each_role
def test_every_address_is_handed_out_once_and_watched_for_ever(role: str) -> None:
    pump, node = with_wallet(role)
    handed_out = []
    for _ in range(3):
        handed_out.append(node.state.wallet.next_script(RECEIVE))
        pump.handle(node, ev.AddressRequested())
        pump.restart(node)
    assert node.state.wallet.next_script(RECEIVE) not in handed_out
    assert len(set(handed_out)) == 3
    had_sat = node.state.wallet.confirmed_sat()
    for amount_sat, script_pubkey in enumerate(handed_out, start=1_000):
        pump.chain.fund(script_pubkey, amount_sat)
    pump.sync()
    assert node.state.wallet.confirmed_sat() - had_sat == 1_000 + 1_001 + 1_002


@each_role
def test_an_address_that_no_restored_wallet_would_find_is_not_made(role: str) -> None:
    pump, node = with_wallet(role)
    wallet = node.state.wallet
    n_free = wallet.first_unpaid(RECEIVE) + GAP_LIMIT - wallet.next_receive
    for _ in range(n_free):
        pump.handle(node, ev.AddressRequested())
    last = node.state.wallet
    n_entries, script = len(node.store.entries), last.next_script(RECEIVE)
    assert last.is_at_gap(RECEIVE)
    for _ in range(3):
        pump.handle(node, ev.AddressRequested())
    assert len(node.store.entries) == n_entries
    assert node.state.wallet.next_script(RECEIVE) == script
    pump.chain.fund(script, 1_000)
    pump.sync()
    assert not node.state.wallet.is_at_gap(RECEIVE)
    assert node.state.wallet.next_script(RECEIVE) != script


def test_whoever_joins_is_paid_where_a_restored_wallet_looks() -> None:
    pump = Pump(1, watches_folds=True)
    (client,) = pump.clients
    for _ in range(GAP_LIMIT - 1):
        pump.handle(client, ev.AddressRequested())
    scripts = []
    for _ in range(3):
        pump.join()
        assert client.state.joining is not None
        scripts.append(client.state.joining.join.payout_script)
        pump.handle(client, ev.LeaveRequested())
        pump.run()
    wallet = client.state.wallet
    assert [wallet.scripts[script].index for script in scripts] == [GAP_LIMIT - 1] * 3
    assert wallet.next_receive == GAP_LIMIT
