"""The simulated mempool has families as Core's: seen there, in tests/functional."""

import pytest

from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.ports import RelayFeerates
from tests.simulation.sim_chain import SimChain, SimRefused
from tests.simulation.sim_eyes import Away, SimEyes, Trouble

OPEN_SCRIPT = b"\x00\x20" + sha256(b"\x51")
COIN_SAT = 100_000


def coin(chain: SimChain) -> tuple[OutPoint, int]:
    chain.fund(OPEN_SCRIPT, COIN_SAT)
    [tx] = chain.blocks[-1][1]
    return tx.outpoint(0), COIN_SAT


def output(tx: Tx, vout: int) -> tuple[OutPoint, int]:
    return tx.outpoint(vout), tx.outputs[vout].amount_sat


def spend(
    *coins: tuple[OutPoint, int], fee_sat: int, nsequence: int = 0xFFFFFFFD, version: int = 3
) -> Tx:
    """Spend coins into an output that is open to all, and an anchor."""
    return Tx(
        version=version,
        inputs=tuple(
            TxIn(
                outpoint=outpoint,
                nsequence=nsequence,
                witness=() if amount_sat == 240 else (b"\x51",),
            )
            for outpoint, amount_sat in coins
        ),
        outputs=(
            TxOut(
                amount_sat=sum(sat for _, sat in coins) - 240 - fee_sat, script_pubkey=OPEN_SCRIPT
            ),
            TxOut(amount_sat=240, script_pubkey=ANCHOR_SCRIPT),
        ),
    )


def test_a_child_waits_with_its_parent_and_both_are_mined() -> None:
    chain = SimChain()
    parent = spend(coin(chain), fee_sat=200)
    child = spend(output(parent, 1), coin(chain), fee_sat=3_000)
    chain.broadcast(parent)
    chain.broadcast(child)
    found = chain.mempool_tx(parent.txid)
    assert found is not None
    assert (found.package_fee_sat, found.package_weight) == (3_200, parent.weight + child.weight)
    assert found.children == {child.txid}
    assert chain.spenders(parent.outpoints) == {parent.outpoint(1): child.txid}
    chain.mine()
    assert chain.mempool_tx(parent.txid) is None
    assert chain.coin(child.outpoint(0)) is not None
    chain.remove_tip(1)
    assert set(chain.mempool) == {parent.txid, child.txid}


def test_another_child_takes_the_place_of_the_first_one_by_paying_more() -> None:
    chain = SimChain()
    parent = spend(coin(chain), fee_sat=200)
    first = spend(output(parent, 1), coin(chain), fee_sat=3_000)
    chain.broadcast(parent)
    chain.broadcast(first)
    with pytest.raises(SimRefused, match="insufficient fee"):
        chain.broadcast(spend(output(parent, 0), fee_sat=3_005))
    second = spend(output(parent, 0), fee_sat=3_100)
    chain.broadcast(second)
    assert set(chain.mempool) == {parent.txid, second.txid}


def test_a_third_generation_and_a_second_parent_are_refused() -> None:
    chain = SimChain()
    parent = spend(coin(chain), fee_sat=200)
    child = spend(output(parent, 0), fee_sat=200)
    other = spend(coin(chain), fee_sat=200)
    for tx in (parent, child, other):
        chain.broadcast(tx)
    for tx in (
        spend(output(child, 0), fee_sat=900),
        spend(output(parent, 1), output(other, 1), coin(chain), fee_sat=900),
        spend(output(other, 0), fee_sat=900, version=2),
    ):
        with pytest.raises(SimRefused, match="TRUC-violation"):
            chain.broadcast(tx)


def test_a_relative_delay_waits_for_a_block_of_the_parent() -> None:
    chain = SimChain()
    parent = spend(coin(chain), fee_sat=200)
    delayed = spend(output(parent, 0), fee_sat=200, nsequence=1)
    chain.broadcast(parent)
    with pytest.raises(SimRefused, match="non-BIP68-final"):
        chain.broadcast(delayed)
    chain.broadcast(spend(output(parent, 0), fee_sat=200, nsequence=0))


def test_below_the_minimum_a_parent_comes_with_a_child_that_pays_for_both() -> None:
    chain = SimChain()
    chain.relay = RelayFeerates(
        mempool_min_sat_per_kw=1_000, min_relay_sat_per_kw=25, incremental_sat_per_kw=25
    )
    parent = spend(coin(chain), fee_sat=100)
    with pytest.raises(SimRefused, match="insufficient fee"):
        chain.broadcast(parent)
    coins = (output(parent, 1), coin(chain))
    size = spend(*coins, fee_sat=0).vsize
    least_sat = 4 * (parent.vsize + size) - 100
    with pytest.raises(SimRefused, match="insufficient fee"):
        chain.broadcast_package(parent, spend(*coins, fee_sat=least_sat - 1))
    assert not chain.mempool
    child = spend(*coins, fee_sat=least_sat)
    for _ in range(2):
        chain.broadcast_package(parent, child)
        assert set(chain.mempool) == {parent.txid, child.txid}
    chain.mine()
    chain.broadcast_package(parent, child)
    assert not chain.mempool


def test_a_node_that_stalls_tells_nothing_of_its_mempool() -> None:
    chain = SimChain(estimates={2: 5_000, 144: 500})
    parent = spend(coin(chain), fee_sat=200)
    chain.broadcast(parent)
    eyes = SimEyes(chain)
    assert eyes.mempool_tx(parent.txid) is not None
    assert [eyes.estimate_sat_per_kw(target) for target in (1, 2, 143, 144)] == [
        None,
        5_000,
        5_000,
        500,
    ]
    assert eyes.relay_feerates() == chain.relay
    eyes.begin(Trouble.STALLS)
    for ask in (
        lambda: eyes.mempool_tx(parent.txid),
        lambda: eyes.spenders(parent.outpoints),
        lambda: eyes.estimate_sat_per_kw(2),
        eyes.relay_feerates,
        lambda: eyes.broadcast_package(parent, parent),
    ):
        with pytest.raises(Away):
            ask()
