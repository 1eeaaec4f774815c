"""The coin set kept beside the kernel, through every way a chain can turn."""

import random
from collections.abc import Iterator

import pytest
from tests.simulation.seeds import seeds

from cromford.bitcoin.block import FullBlock
from cromford.bitcoin.tx import Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.regtest.chain import BlockUnknown, RegtestChain
from cromford.regtest.kernel import BlockRefused
from cromford.regtest.ledger import Ledger
from cromford.regtest.template import build_block

TIME = 1_700_000_000
OPEN_SCRIPT = b"\x00\x20" + sha256(b"\x51")


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger(None, lambda: TIME)
    yield ledger
    ledger.close()


def spend(ledger: Ledger, height: int) -> Tx:
    indexed = ledger.chain.at_height(height)
    assert indexed is not None
    coinbase = indexed.block.txs[0]
    return Tx(
        version=2,
        inputs=(TxIn(outpoint=coinbase.outpoint(0), nsequence=0xFFFF_FFFF, witness=(b"\x51",)),),
        outputs=(
            TxOut(amount_sat=coinbase.outputs[0].amount_sat - 1_000, script_pubkey=OPEN_SCRIPT),
        ),
    )


def coins_of(chain: RegtestChain) -> set[str]:
    """Reckon the coins of the active chain from its blocks alone."""
    coins: set[str] = set()
    for height in range(1, chain.tip.height + 1):
        indexed = chain.at_height(height)
        assert indexed is not None
        for tx in indexed.block.txs:
            coins -= {str(tx_in.outpoint) for tx_in in tx.inputs}
            coins |= {
                str(tx.outpoint(vout))
                for vout, txout in enumerate(tx.outputs)
                if txout.script_pubkey[:1] != b"\x6a"
            }
    return coins


@pytest.mark.parametrize("seed", seeds(4))
def test_the_coins_are_those_of_the_active_blocks_however_they_came(
    ledger: Ledger, seed: int
) -> None:
    dice = random.Random(seed)
    for _ in range(105):
        ledger.mine(OPEN_SCRIPT)
    seen: list[Txid] = []
    for _ in range(12):
        match dice.randrange(4):
            case 0 if seen:
                ledger.reconsider(dice.choice(seen))
            case 1 if seen:
                ledger.invalidate(dice.choice(seen))
            case _:
                tip = ledger.chain.tip.height
                tx = spend(ledger, dice.randrange(1, tip - 99))
                if ledger.chain.coin(tx.inputs[0].outpoint) and tx.txid not in ledger.mempool:
                    ledger.submit(tx)
                seen.append(ledger.mine(OPEN_SCRIPT + bytes(0)).block_hash)
        expected = coins_of(ledger.chain)
        assert ledger.chain.n_coins == len(expected), f"seed {seed}"
        assert ledger.chain.tip.height >= 105, f"seed {seed}"


def test_a_block_with_a_false_coinbase_is_refused_and_changes_nothing(ledger: Ledger) -> None:
    block = build_block(ledger.chain.tip, txs=[], fees_sat=1, script_pubkey=OPEN_SCRIPT, time=TIME)
    tip, n_coins = ledger.chain.tip, ledger.chain.n_coins
    with pytest.raises(BlockRefused, match="CONSENSUS"):
        ledger.connect(block)
    assert (ledger.chain.tip, ledger.chain.n_coins) == (tip, n_coins)
    ledger.mine(OPEN_SCRIPT)


def test_a_block_that_does_not_extend_the_tip_is_refused(ledger: Ledger) -> None:
    first = ledger.build(OPEN_SCRIPT, [])
    ledger.mine(b"\x51")
    with pytest.raises(BlockUnknown, match="is not the tip"):
        ledger.connect(first)


def test_the_genesis_block_cannot_be_invalidated(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="genesis"):
        ledger.invalidate(ledger.chain.tip.block_hash)


def test_an_unknown_block_is_said_to_be_unknown(ledger: Ledger) -> None:
    with pytest.raises(BlockUnknown):
        ledger.reconsider(Txid(bytes(32)))


def test_the_same_moves_at_the_same_time_make_the_same_blocks() -> None:
    hashes = []
    for _ in range(2):
        ledger = Ledger(None, lambda: TIME)
        hashes.append([ledger.mine(OPEN_SCRIPT).block_hash for _ in range(3)])
        ledger.close()
    assert hashes[0] == hashes[1]


def test_the_subsidy_halves_every_150_blocks_and_the_kernel_agrees(ledger: Ledger) -> None:
    for _ in range(150):
        ledger.mine(OPEN_SCRIPT)
    amounts = [
        indexed.block.txs[0].outputs[0].amount_sat
        for height in (1, 149, 150)
        if (indexed := ledger.chain.at_height(height))
    ]
    assert amounts == [5_000_000_000, 5_000_000_000, 2_500_000_000]


def test_a_blocks_bytes_survive_their_reading(ledger: Ledger) -> None:
    block = ledger.mine(OPEN_SCRIPT).block
    assert FullBlock.parse(block.raw) == block
