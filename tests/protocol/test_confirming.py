"""What may be paid so that something of a channel confirms in time: stakes, budgets, costs."""

from dataclasses import replace
from typing import Final

import pytest
from tests.channel import specimen
from tests.protocol.paying_clients import book, live_factory, newest_link, pay
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_leaving import QUICK, reasons_to_leave
from tests.protocol.unanswered import (
    WORTH_MSAT,
    chain_at,
    htlc_outpoint,
    mine_to,
    only_expiry,
    pending_for,
)
from tests.simulation.sim_chain import SimRefused

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.channel.terms import Party
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.confirming import (
    children_cost_sat,
    cost_in_blocks_sat,
    unspent_of,
)
from cromford.protocol.exiting.in_hand import Risk, Stake, stake_of
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.journal.purses import Purses, filled, with_settled
from cromford.wallet.account import WalletPath
from cromford.wallet.coins import Purse, SpentCoin

DUST_SAT: Final = 330


# What could be lost, and until when


@pytest.fixture(scope="module")
def link() -> Link:
    """Return a client's end of a channel in which it owns 20,000.123 sat."""
    pump = live_factory(1)
    assert pay(pump, pump.lsp, pump.clients[0], 20_000_123).status == "paid"
    return newest_link(pump.clients[0])


def test_what_hurries_is_lost_with_all_that_ends_before_it(link: Link) -> None:
    htlcs = [
        specimen.htlc(Party.OPENER, 0, 7_000_500, expiry=900),
        specimen.htlc(Party.ACCEPTER, 1, 2_000_400, expiry=700),
        specimen.htlc(Party.OPENER, 2, 1_000_000, expiry=900),
    ]
    stake = stake_of(link, htlcs, chain_at(100), expires=False, forwarded=[1])
    assert stake == Stake(
        amount_sat=30_001,
        risks=(
            Risk(end_height=700 - 18, amount_sat=2_000),
            Risk(end_height=900 - 18, amount_sat=10_000),
        ),
        forwarded=frozenset({1}),
    )
    assert stake.end_height == 682


def test_a_balance_is_lost_at_the_expiry_to_whom_it_takes_it_from(link: Link) -> None:
    ends_height = link.expiry_height - 144
    stake = stake_of(link, (), chain_at(100), expires=True)
    assert stake.risks == (Risk(end_height=ends_height, amount_sat=20_000),)
    stake = stake_of(link, (), chain_at(100), expires=False)
    assert (stake.amount_sat, stake.risks, stake.end_height) == (20_000, (), None)


def test_once_its_output_is_settled_nothing_of_a_balance_is_lost(link: Link) -> None:
    chain = chain_at(100)
    confirmed = chain.confirmed.update({step.txid: 90 for step in link.path})
    settled = replace(chain, confirmed=confirmed)
    assert stake_of(link, (), settled, expires=True).risks == ()


def test_a_store_that_does_not_know_its_balance_pays_for_its_way_out_with_half_the_channel(
    link: Link,
) -> None:
    """A client's: any of it may be its own. What both stores found counts where they compared."""
    chain, half_sat = chain_at(100), link.present.capacity_sat // 2
    behind = replace(link, is_behind=True)
    assert stake_of(behind, (), chain, expires=True).amount_sat == half_sat > 20_000
    assert stake_of(behind, (), chain, expires=False).amount_sat == 20_000
    rich = replace(behind, state=replace(link.state, accepter_msat=1_000 * half_sat + 5_000))
    assert stake_of(rich, (), chain, expires=True).amount_sat == half_sat + 5
    unknown = replace(link, mark=StoreMark())
    assert stake_of(unknown, (), chain, expires=True).amount_sat == half_sat
    found = replace(link, mark=StoreMark(agreed_msat=7_000_999))
    for expires in (False, True):
        assert stake_of(found, (), chain, expires=expires).amount_sat == 7_000


# What an HTLC's own transaction may cost


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("side", "after_blocks"), [("payee", -6), ("lsp", 12), ("payer", None)])
def test_for_an_htlc_half_may_go_until_it_is_lost_and_then_all_but_dust(
    side: str, after_blocks: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer may take one that we were offered from its expiry on.

    One that the LSP forwarded is late once it cannot be six deep before its payer has to leave; to
    its own payer nobody else is owed anything, so that it waits for as long as it takes.
    """
    pump = live_factory(3, policy=QUICK)
    node, link = pending_for(pump, side, WORTH_MSAT)
    expiry, taken = only_expiry(link), htlc_outpoint(link)
    amount_sat = link.finished.commitment.outputs[taken.vout].amount_sat
    publish, funding = pump.chain.broadcast, link.setting.funding.outpoint

    def publish_all_but_the_peers(tx: Tx) -> None:
        if tx.inputs[0].outpoint == funding and tx.txid != taken.txid:
            raise SimRefused("another was first")
        publish(tx)

    monkeypatch.setattr(pump.chain, "broadcast", publish_all_but_the_peers)
    while taken.txid not in pump.chain.confirmed and pump.chain.height < expiry:
        pump.mine()
    monkeypatch.setattr(pump.chain, "broadcast", _refuse)
    pump.chain.mempool.clear()
    seen: dict[int, int] = {}
    mine_to(pump, max(pump.chain.height, expiry - 10))
    while pump.chain.height < expiry + 20:
        n_before = len(pump.wishes(node, fx.SignTakingTx))
        pump.mine()
        for one in pump.wishes(node, fx.SignTakingTx)[n_before:]:
            if one.spend.tx.inputs[0].outpoint == taken:
                assert one.bumping is not None
                seen[pump.chain.height - expiry] = one.bumping.budget_sat
    assert seen
    late = {blocks for blocks in seen if after_blocks is not None and blocks >= after_blocks}
    assert bool(late) is (after_blocks is not None)
    assert late != seen.keys()
    assert seen == {
        blocks: amount_sat - DUST_SAT if blocks in late else amount_sat // 2 for blocks in seen
    }


def _refuse(_tx: Tx) -> None:
    raise SimRefused("mempool full")


def test_one_that_is_taken_back_by_its_deadline_is_given_back_before_its_payer_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its payer may be in another factory, of which nothing is on chain."""
    pump = live_factory(3, policy=QUICK)
    alice = pump.clients[0]
    _, link = pending_for(pump, "lsp", WORTH_MSAT)
    deadline, taken, paying = only_expiry(link) + 12, htlc_outpoint(link), newest_link(alice)
    leaves_at = publish_height(paying, only_expiry(paying), chain=alice.state.chain)
    publish = pump.chain.broadcast

    def publish_in_time(tx: Tx) -> None:
        if tx.inputs[0].outpoint == taken and pump.chain.height < deadline - 1:
            raise SimRefused("mempool full")
        publish(tx)

    monkeypatch.setattr(pump.chain, "broadcast", publish_in_time)
    while taken not in pump.lsp.state.chain.spends:
        pump.mine()
    assert pump.chain.height == deadline
    (payment_hash,) = book(alice).payments
    mine_to(pump, leaves_at - 1)
    assert book(alice).payments[payment_hash].status == "failed"
    assert reasons_to_leave(alice) == []


# What children have cost

PARENT_OUT: Final = OutPoint(txid=Txid(b"\x0a" * 32), vout=0)
CHANGE: Final = b"\x51\x20" + b"\x0c" * 32
ELSEWHERE: Final = b"\x51\x20" + b"\x0e" * 32


def coin(number: int, amount_sat: int) -> SpentCoin:
    return SpentCoin(
        outpoint=OutPoint(txid=Txid(bytes((number,)) * 32), vout=0),
        txout=TxOut(amount_sat=amount_sat, script_pubkey=CHANGE),
        path=WalletPath(change=0, index=number),
    )


COINS: Final = (coin(1, 5_000), coin(2, 3_000))
PURSE: Final = Purse(coins=COINS, change_script=CHANGE)


def tx_of(outpoints: list[OutPoint], *outputs: tuple[int, bytes]) -> Tx:
    return Tx(
        version=3,
        inputs=tuple(TxIn(outpoint=one, nsequence=0xFFFFFFFD) for one in outpoints),
        outputs=tuple(TxOut(amount_sat=sat, script_pubkey=script) for sat, script in outputs),
    )


PARENT: Final = tx_of([PARENT_OUT], (240, ANCHOR_SCRIPT))


def chain_of(*txs: Tx) -> KnownChain:
    return KnownChain().with_block(BlockRef(height=9, block_hash=Txid(bytes(32))), txs)


def cost_sat(*txs: Tx, purse: Purse = PURSE) -> int:
    return cost_in_blocks_sat(PARENT_OUT, purse, chain_of(*txs))


def test_a_child_cost_what_its_coins_held_but_for_the_change() -> None:
    anchor = PARENT.outpoint(0)
    child = tx_of([anchor, COINS[0].outpoint], (4_100, CHANGE))
    assert cost_sat(PARENT, child) == 900
    both = tx_of([anchor, *(one.outpoint for one in COINS)], (7_000, CHANGE), (100, ELSEWHERE))
    assert cost_sat(PARENT, both) == 1_000
    assert cost_sat(PARENT) == 0, "no child is in a block"
    assert cost_sat(child) == 0, "nor is what it was for"
    richer = tx_of([anchor, COINS[0].outpoint], (5_200, CHANGE))
    assert cost_sat(PARENT, richer) == 0, "an anchor of somebody else's may pay for it"


def test_a_parent_that_a_coin_pays_itself_cost_what_it_held() -> None:
    parent = tx_of([PARENT_OUT, COINS[0].outpoint], (4_800, CHANGE))
    assert cost_sat(parent) == 200


def test_what_takes_another_output_of_the_parent_or_goes_elsewhere_cost_its_purse_nothing() -> None:
    parent = tx_of([PARENT_OUT], (240, ANCHOR_SCRIPT), (500, ELSEWHERE))
    child = tx_of([parent.outpoint(0), COINS[0].outpoint], (4_000, CHANGE))
    htlc_tx = tx_of([parent.outpoint(1), COINS[1].outpoint], (2_500, ELSEWHERE))
    assert cost_sat(parent, child, htlc_tx) == 1_000, "that one has a purse of its own"
    stranger = tx_of([COINS[1].outpoint], (1, ELSEWHERE))
    assert cost_sat(parent, child, stranger) == 1_000


def test_coins_that_went_back_cost_what_a_child_in_a_block_spent_of_them() -> None:
    child = tx_of([PARENT.outpoint(0), COINS[0].outpoint], (4_100, CHANGE))
    given_back = with_settled(Purses({PARENT_OUT: PURSE}), PARENT_OUT, cost_sat=0)
    assert given_back[PARENT_OUT].coins == ()
    assert children_cost_sat(given_back, chain_of(PARENT)) == 0
    assert children_cost_sat(given_back, chain_of(PARENT, child)) == 900
    again = filled(given_back[PARENT_OUT], COINS[:1], change_script=CHANGE)
    assert cost_sat(PARENT, child, purse=again) == 900, "a coin counts once"
    twice = with_settled(Purses({PARENT_OUT: again}), PARENT_OUT, cost_sat=900)
    assert twice[PARENT_OUT].returned == COINS
    assert children_cost_sat(twice, chain_of(PARENT, child)) == 900


def test_children_cost_what_is_settled_or_in_blocks_and_nothing_that_was_undone() -> None:
    child = tx_of([PARENT.outpoint(0), COINS[0].outpoint], (4_100, CHANGE))
    other = OutPoint(txid=Txid(b"\x0b" * 32), vout=0)
    settled = Purse(coins=(), change_script=CHANGE, cost_sat=70)
    purses = Purses({PARENT_OUT: PURSE, other: settled})
    elsewhere = spend_of(other, 240)
    assert children_cost_sat(purses, chain_of(PARENT, child, elsewhere)) == 970
    assert children_cost_sat(purses, chain_of(PARENT, child)) == 900
    assert children_cost_sat(purses, chain_of(child)) == 0


def test_of_a_purse_the_coins_that_are_left_are_those_that_no_block_spent() -> None:
    child = tx_of([COINS[0].outpoint], (4_100, CHANGE))
    assert unspent_of(PURSE, chain_of(child)) == replace(PURSE, coins=(COINS[1],))
    assert unspent_of(PURSE, KnownChain()) == PURSE
    assert unspent_of(None, KnownChain()) is None
