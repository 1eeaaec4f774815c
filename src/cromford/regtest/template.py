"""Building the next block: what goes in, in which order, and the proof of work.

Pure: the time comes from the caller. On regtest every second nonce is proof enough.
"""

from collections.abc import Sequence
from typing import Final

from cromford.bitcoin.block import (
    NULL_OUTPOINT,
    FullBlock,
    Header,
    merkle_root,
)
from cromford.bitcoin.script import OP_0, push_number
from cromford.bitcoin.timelock import NSEQUENCE_LOCKTIME
from cromford.bitcoin.tx import HASH_SIZE, Tx, TxIn, TxOut
from cromford.crypto.keys import sha256d
from cromford.regtest.chain import IndexedBlock
from cromford.regtest.genesis import REGTEST_BITS, VERSION_BITS_NONE, meets_target, subsidy_sat
from cromford.regtest.mempool import Mempool, MempoolEntry
from cromford.regtest.options import RESERVED_WEIGHT

BLOCK_MIN_SAT_PER_KVB: Final = 1  # A chunk that pays nothing is not mined.
COMMITMENT_PREFIX: Final = bytes.fromhex("6a24aa21a9ed")  # BIP 141
TIME_AHEAD_MAX: Final = 3_600  # Half of what consensus allows over the clock.


def next_time(tip: IndexedBlock, clock: int) -> int:
    """Return the time of the block after `tip`, in seconds since the epoch.

    The clock's time; a second after the tip when blocks come faster than that; and once thousands
    of blocks have run an hour ahead of the clock, only what consensus demands, a second more than
    the median of the last eleven (BIP 113).
    """
    least = tip.median_time + 1
    following = tip.block.header.time + 1
    return max(least, clock, following if following <= clock + TIME_AHEAD_MAX else 0)


def chosen_entries(mempool: Mempool, *, weight_max: int) -> list[MempoolEntry]:
    """Return what a miner would put into a block of this weight, parents before children."""
    chunks = [
        chunk
        for chunk in mempool.chunks()
        if chunk.fee_sat * 1000 * 4 >= BLOCK_MIN_SAT_PER_KVB * chunk.weight
    ]
    entries: list[MempoolEntry] = []
    left_out: set[bytes] = set()
    weight_left = weight_max - RESERVED_WEIGHT
    for chunk in chunks:
        members = [entry for txid in chunk.txids if (entry := mempool.get(txid)) is not None]
        hangs_on = {tx_in.outpoint.txid for entry in members for tx_in in entry.tx.inputs}
        if chunk.weight >= weight_left or hangs_on & left_out:
            left_out.update(chunk.txids)
            continue
        weight_left -= chunk.weight
        entries += members
    return entries


def build_block(
    tip: IndexedBlock, *, txs: Sequence[Tx], fees_sat: int, script_pubkey: bytes, time: int
) -> FullBlock:
    """Return a block after `tip` with its proof of work.

    Args:
        tip: The block it extends.
        txs: What it holds besides the coinbase, parents before children.
        fees_sat: What these pay together.
        script_pubkey: Who gets the subsidy and the fees.
        time: Its time, in seconds since the epoch.
    """
    height = tip.height + 1
    witness_root = merkle_root([bytes(HASH_SIZE), *(tx.wtxid for tx in txs)])
    coinbase = Tx(
        version=2,
        inputs=(
            TxIn(
                outpoint=NULL_OUTPOINT,
                nsequence=NSEQUENCE_LOCKTIME,
                # BIP 34; the byte after it because a coinbase script has at least two.
                script_sig=push_number(height) + bytes((OP_0,)),
                witness=(bytes(HASH_SIZE),),
            ),
        ),
        outputs=(
            TxOut(amount_sat=subsidy_sat(height) + fees_sat, script_pubkey=script_pubkey),
            TxOut(
                amount_sat=0,
                script_pubkey=COMMITMENT_PREFIX + sha256d(witness_root + bytes(HASH_SIZE)),
            ),
        ),
        nlocktime=height - 1,
    )
    header = Header(
        version=VERSION_BITS_NONE,
        previous_hash=tip.block_hash,
        merkle_root=merkle_root([coinbase.txid, *(tx.txid for tx in txs)]),
        time=time,
        bits=REGTEST_BITS,
        nonce=0,
    )
    return FullBlock(header=with_proof_of_work(header), txs=(coinbase, *txs))


def with_proof_of_work(header: Header) -> Header:
    """Return the header with the first nonce that meets regtest's target."""
    prefix = header.prefix
    nonce = 0
    while not meets_target(sha256d(prefix + nonce.to_bytes(4, "little"))):
        nonce += 1
    return Header(
        version=header.version,
        previous_hash=header.previous_hash,
        merkle_root=header.merkle_root,
        time=header.time,
        bits=header.bits,
        nonce=nonce,
    )
