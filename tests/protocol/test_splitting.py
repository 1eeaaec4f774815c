"""A split of coins is a payment like any other: remembered first, its script given out once."""

import pytest
from tests.protocol.pump import COIN_SAT, Pump, PumpNode
from tests.protocol.test_paying import FEERATE, N_COINS, each_role, paid, rejection, with_wallet

from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol.journal import spending_records as sr
from cromford.wallet.account import CHANGE


def request(n_coins: int, amount_sat: int | None = None) -> ev.SplitRequested:
    return ev.SplitRequested(n_coins=n_coins, amount_sat=amount_sat, feerate_sat_per_kw=FEERATE)


def split(pump: Pump, node: PumpNode, n_coins: int, amount_sat: int | None = None) -> Tx:
    """Let the operator split; return the one transaction that is new in the mempool."""
    before = set(pump.chain.mempool)
    pump.handle(node, request(n_coins, amount_sat))
    (txid,) = set(pump.chain.mempool) - before
    return pump.chain.mempool[txid]


def free(pump: Pump, node: PumpNode) -> list[int]:
    coins = node.state.wallet.free(pump.chain.height)
    return [coin.txout.amount_sat for coin in coins]


@each_role
@pytest.mark.parametrize("amount_sat", [None, 20_000], ids=["divided", "amount"])
def test_the_coins_of_a_split_are_free_once_it_is_in_a_block(
    role: str, amount_sat: int | None
) -> None:
    """Dropped by the mempool, it is published again; a restart in between changes nothing."""
    pump, node = with_wallet(role)
    tx = split(pump, node, 3, amount_sat)
    before = node.state.wallet
    pump.restart(node)
    after = node.state.wallet
    assert (after.payments, after.next_change) == (before.payments, before.next_change)
    assert dict(after.reserved.walk()) == dict(before.reserved.walk())
    pump.chain.mempool.clear()
    pump.mine()
    assert set(pump.chain.mempool) == {tx.txid}
    assert len(free(pump, node)) == N_COINS - len(tx.inputs)
    pump.mine()
    made = [out.amount_sat for out in tx.outputs]
    assert sorted(free(pump, node)) == sorted(made + [COIN_SAT] * (N_COINS - len(tx.inputs)))
    assert len(made) == (3 if amount_sat is None else 4)
    assert not node.state.wallet.payments


@each_role
@pytest.mark.parametrize("amount_sat", [None, 20_000], ids=["without change", "with change"])
def test_the_script_of_a_split_is_never_given_out_again(role: str, amount_sat: int | None) -> None:
    pump, node = with_wallet(role)
    script = node.state.wallet.next_script(CHANGE)
    tx = split(pump, node, 2, amount_sat)
    assert {to for _, to in paid([tx])} == {script}
    pump.restart(node)
    again = node.state.wallet.next_script(CHANGE)
    assert again != script
    pump.chain.mempool.clear()
    pump.handle(node, ev.AbandonRequested(txid=tx.txid, reason="min relay fee not met, 2 < 9"))
    pump.restart(node)
    assert free(pump, node) == [COIN_SAT] * N_COINS, "given up, and its coins free again"
    assert node.state.wallet.next_script(CHANGE) == again
    assert {to for _, to in paid([split(pump, node, 2, amount_sat)])} == {again}


@each_role
@pytest.mark.parametrize(("fuse", "n_kept"), [(2, 0), (3, 1)], ids=["before", "after"])
def test_a_split_is_published_if_and_only_if_it_was_remembered(
    role: str, fuse: int, n_kept: int
) -> None:
    pump, node = with_wallet(role)
    split(pump, node, 2, 20_000)
    node.fuse = fuse
    pump.handle(node, request(2, 30_000))
    assert node.n_deaths == 1
    published = [tx for tx in pump.chain.mempool.values() if tx.outputs[0].amount_sat == 30_000]
    kept = [r for r in node.store.remembered if isinstance(r, sr.SpendingWasSigned)]
    assert published == [Tx.parse(record.tx) for record in kept[1:]]
    assert len(published) == n_kept


@each_role
@pytest.mark.parametrize(
    ("n_coins", "amount_sat", "code", "words"),
    [
        (1, None, "split_out_of_range", "n_coins: expected 2 to 20, received 1"),
        (21, 1_000, "split_out_of_range", "n_coins: expected 2 to 20, received 21"),
        (2, 329, "dust", "amount_sat: expected at least 330, received 329"),
        (2, N_COINS * COIN_SAT, "insufficient_coins", f"{N_COINS * COIN_SAT:,} sat are free"),
    ],
)
def test_a_split_that_cannot_be_made_is_rejected_with_its_reason(
    role: str, n_coins: int, amount_sat: int | None, code: str, words: str
) -> None:
    _, node = with_wallet(role)
    refused = rejection(node, request(n_coins, amount_sat))
    assert (refused.code, refused.retryable) == (code, code == "insufficient_coins")
    assert words in str(refused)
