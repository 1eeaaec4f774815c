"""What our node refuses to publish is remembered once, and a payment of it can be given up."""

import pytest
from tests.protocol.paying_clients import live_factory
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.stalling import WHY, recover, stall
from tests.protocol.test_bumped_payments import take_block_back
from tests.protocol.test_leaving import QUICK
from tests.protocol.test_paying import each_role, pay, with_wallet

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.records import BroadcastRefusalSeen
from cromford.protocol.journal.spending_records import SpendingOvertaken
from cromford.protocol.publishing import KINDS_PER_TX_MAX

TOO_CHEAP = "min relay fee not met, 2 < 154"
SCRIPT = b"\x51\x20" + bytes(32)


def paying_lsp() -> tuple[Pump, Tx]:
    """Return a pump whose LSP pays somebody, and the payment, of which nobody has heard."""
    pump = Pump(1, watches_folds=True)
    asked = ev.SpendingRequested(script_pubkey=SCRIPT, amount_sat=50_000, feerate_sat_per_kw=500)
    pump.handle(pump.lsp, asked)
    (tx,) = pump.lsp.state.wallet.payments.values()
    pump.chain.mempool.clear()
    return pump, tx


def refuse(pump: Pump, tx: Tx, reason: str) -> None:
    asked = fx.Broadcast(name="payment", tx=tx)
    pump.handle(pump.lsp, ev.BroadcastRefused(asked=asked, reason=reason))


def reasons(node: PumpNode) -> list[str]:
    records = node.store.remembered
    return [record.reason for record in records if isinstance(record, BroadcastRefusalSeen)]


def test_a_refusal_is_remembered_once_for_each_kind_of_reason() -> None:
    pump, tx = paying_lsp()
    for n_blocks in range(5):
        refuse(pump, tx, f"min relay fee not met, {n_blocks} < 154")
    refuse(pump, tx, "txn-mempool-conflict")
    pump.restart(pump.lsp)
    refuse(pump, tx, TOO_CHEAP)
    assert reasons(pump.lsp) == ["min relay fee not met, 0 < 154", "txn-mempool-conflict"]


def test_a_node_that_knows_ever_new_reasons_does_not_fill_the_journal() -> None:
    pump, tx = paying_lsp()
    for number in range(30):
        refuse(pump, tx, f"reason {number} " + "x" * 10_000)
    assert len(reasons(pump.lsp)) == KINDS_PER_TX_MAX
    assert max(len(reason) for reason in reasons(pump.lsp)) <= 500


def test_a_transaction_that_is_in_a_block_is_refused_no_more() -> None:
    pump, tx = paying_lsp()
    refuse(pump, tx, TOO_CHEAP)
    assert list(pump.lsp.state.chain.refused) == [tx.txid]
    pump.mine(2)
    assert tx.txid in pump.lsp.state.chain.confirmed
    assert pump.lsp.state.chain.refused == {}
    refuse(pump, tx, "bad-txns-inputs-missingorspent")
    assert len(reasons(pump.lsp)) == 1


def test_a_client_remembers_an_exit_step_that_its_node_refuses() -> None:
    pump = live_factory(2, policy=QUICK)
    alice = pump.clients[0]
    (attempt,) = alice.state.attempts.values()
    root = attempt.branch.root_node.tx
    refused = ev.BroadcastRefused(asked=fx.Broadcast(name="kickoff_root", tx=root), reason="no")
    pump.handle(alice, refused)
    assert reasons(alice) == ["no"]


def test_the_coins_of_a_payment_that_is_given_up_are_free_and_it_is_published_no_more() -> None:
    pump, tx = paying_lsp()
    refuse(pump, tx, TOO_CHEAP)
    wallet = pump.lsp.state.wallet
    assert {tx_in.outpoint for tx_in in tx.inputs} == set(wallet.reserved)
    pump.handle(pump.lsp, ev.AbandonRequested(txid=tx.txid, reason=TOO_CHEAP))
    after = pump.lsp.state.wallet
    assert (after.payments, after.reserved) == ({}, {})
    published = len(pump.wishes(pump.lsp, fx.Broadcast))
    pump.mine(3)
    pump.restart(pump.lsp)
    assert len(pump.wishes(pump.lsp, fx.Broadcast)) == published
    assert tx.txid not in pump.chain.confirmed


def test_a_payment_that_was_given_up_and_confirms_all_the_same_is_recognised() -> None:
    pump, tx = paying_lsp()
    pump.handle(pump.lsp, ev.AbandonRequested(txid=tx.txid, reason=TOO_CHEAP))
    # The wallet pays with the same coin again, and then somebody publishes the first payment.
    again = ev.SpendingRequested(script_pubkey=SCRIPT, amount_sat=60_000, feerate_sat_per_kw=500)
    pump.handle(pump.lsp, again)
    (second,) = pump.lsp.state.wallet.payments.values()
    assert second.inputs[0].outpoint == tx.inputs[0].outpoint
    pump.chain.mempool.clear()
    pump.chain.broadcast(tx)
    pump.mine()
    wallet = pump.lsp.state.wallet
    assert (wallet.payments, wallet.reserved) == ({}, {})
    assert all(wallet.coins[tx_in.outpoint].spent_height is not None for tx_in in tx.inputs)
    change = [coin for coin in wallet.coins if coin.txid == tx.txid]
    assert len(change) == 1


def test_a_payment_whose_coin_a_given_up_one_takes_is_told_to_be_over() -> None:
    """Its payee is paid nothing, and nobody else would say so; a reorganisation takes it back."""
    pump, tx = paying_lsp()
    pump.handle(pump.lsp, ev.AbandonRequested(txid=tx.txid, reason=TOO_CHEAP))
    again = ev.SpendingRequested(script_pubkey=SCRIPT, amount_sat=60_000, feerate_sat_per_kw=500)
    pump.handle(pump.lsp, again)
    (second,) = pump.lsp.state.wallet.payments.values()
    pump.chain.mempool.clear()
    pump.chain.broadcast(tx)
    pump.mine()
    told = SpendingOvertaken(txid=second.txid, spent_by=tx.txid)
    assert overtaken(pump.lsp) == [told]
    assert pump.lsp.state.wallet.overtaken == {second.txid: tx.txid}
    pump.restart(pump.lsp)
    take_block_back(pump)
    assert pump.lsp.state.wallet.overtaken == {}
    pump.chain.mempool.clear()
    pump.restart(pump.lsp)
    pump.mine(2)
    assert second.txid in pump.chain.confirmed, "it was published again"
    assert overtaken(pump.lsp) == [told]


@each_role
def test_a_payment_that_confirms_is_told_to_be_over_by_its_block_alone(role: str) -> None:
    pump, node = with_wallet(role)
    pay(pump, node, 1_000_000)
    pump.mine()
    assert node.state.wallet.payments == {}
    assert overtaken(node) == []


def test_a_client_is_told_too_of_what_took_a_payments_place() -> None:
    pump, node = with_wallet("client")
    first = pay(pump, node, 1_000_000)
    pump.handle(node, ev.AbandonRequested(txid=first.txid, reason=TOO_CHEAP))
    pump.chain.mempool.clear()
    second = pay(pump, node, 2_000_000)
    pump.chain.mempool.clear()
    pump.chain.broadcast(first)
    pump.mine()
    assert overtaken(node) == [SpendingOvertaken(txid=second.txid, spent_by=first.txid)]


def overtaken(node: PumpNode) -> list[SpendingOvertaken]:
    return [one for one in node.store.remembered if isinstance(one, SpendingOvertaken)]


def test_what_is_no_payment_without_a_block_is_not_given_up() -> None:
    pump, tx = paying_lsp()
    pump.chain.broadcast(tx)
    pump.mine()
    assert refusal_code(pump.lsp, tx) == "payment_not_found"


def test_on_a_stale_chain_no_payment_is_given_up() -> None:
    """It may be in a block that was not read."""
    pump, tx = paying_lsp()
    stall(pump, pump.lsp)
    assert refusal_code(pump.lsp, tx) == "chain_stale"
    recover(pump, pump.lsp)
    pump.handle(pump.lsp, ev.AbandonRequested(txid=tx.txid, reason=TOO_CHEAP))
    assert pump.lsp.state.wallet.payments == {}


def refusal_code(node: PumpNode, tx: Tx) -> str:
    assert node.driver is not None
    node.driver.facts = node.facts
    before = node.state
    with pytest.raises(Rejected) as rejected:
        node.driver.handle(ev.AbandonRequested(txid=tx.txid, reason=TOO_CHEAP))
    assert node.state is before
    assert rejected.value.code != "chain_stale" or WHY in str(rejected.value)
    return rejected.value.code
