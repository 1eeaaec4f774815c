"""What regtest fixes for its blocks: the target they meet, what they create, the first of them."""

from typing import Final

from cromford.bitcoin.block import NULL_OUTPOINT, FullBlock, Header
from cromford.bitcoin.timelock import NSEQUENCE_FINAL
from cromford.bitcoin.tx import HASH_SIZE, SAT_PER_BTC, Tx, Txid, TxIn, TxOut

REGTEST_BITS: Final = 0x207FFFFF  # The easiest target there is: every second hash meets it.
REGTEST_TARGET: Final = 0x7FFFFF << 8 * 29
REGTEST_DIFFICULTY: Final = 4.656542373906925e-10
REGTEST_WORK_PER_BLOCK: Final = 2
SUBSIDY_FIRST_SAT: Final = 50 * SAT_PER_BTC
HALVING_INTERVAL: Final = 150  # In blocks; elsewhere it is 210,000.
VERSION_BITS_NONE: Final = 0x2000_0000  # BIP 9: no deployment signalled.


def subsidy_sat(height: int) -> int:
    """Return what a block may create."""
    return SUBSIDY_FIRST_SAT >> (height // HALVING_INTERVAL)


def meets_target(block_hash: bytes) -> bool:
    """Say whether a hash is proof enough on regtest."""
    return int.from_bytes(block_hash, "little") <= REGTEST_TARGET


def genesis_block() -> FullBlock:
    """Return the regtest chain's first block, which every node has from the start."""
    coinbase = Tx(
        version=1,
        inputs=(
            TxIn(
                outpoint=NULL_OUTPOINT,
                nsequence=NSEQUENCE_FINAL,
                script_sig=bytes.fromhex("04ffff001d010445")
                + b"The Times 03/Jan/2009 Chancellor on brink of second bailout for banks",
            ),
        ),
        outputs=(
            TxOut(
                amount_sat=SUBSIDY_FIRST_SAT,
                script_pubkey=bytes.fromhex(
                    "4104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb6"
                    "49f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac"
                ),
            ),
        ),
    )
    header = Header(
        version=1,
        previous_hash=Txid(bytes(HASH_SIZE)),
        merkle_root=coinbase.txid,
        time=1_296_688_602,
        bits=REGTEST_BITS,
        nonce=2,
    )
    return FullBlock(header=header, txs=(coinbase,))
