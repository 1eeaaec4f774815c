"""A block from its bytes, checked against the hash it was asked for."""

from typing import Final

from cromford.bitcoin.block import merkle_root
from cromford.bitcoin.tx import HASH_SIZE, Tx, Txid, read_compact_size
from cromford.codec.reader import MalformedBytes, Reader
from cromford.crypto.keys import sha256d
from cromford.ports import Block

HEADER_SIZE: Final = 80
BLOCK_SIZE_MAX: Final = 4_000_000  # BIP 141: a byte weighs at least one of four million.


def parse_block(raw: bytes, *, block_hash: Txid, height: int) -> Block:
    """Return the block of these bytes.

    The proof of work is the node's to check. That the bytes are the block asked for is checked
    here: the header has the hash, and the txids have the header's merkle root.

    Raises:
        MalformedBytes: If they are not that block.
    """
    if len(raw) > BLOCK_SIZE_MAX:
        raise MalformedBytes(f"a block has at most {BLOCK_SIZE_MAX} bytes, received {len(raw)}")
    reader = Reader(raw)
    header = reader.take(HEADER_SIZE)
    received_hash = Txid(sha256d(header))
    if received_hash != block_hash:
        raise MalformedBytes(f"block hash: expected {block_hash}, received {received_hash}")
    txs = tuple(Tx.read(reader) for _ in range(read_compact_size(reader)))
    reader.check_end()
    if not txs:
        raise MalformedBytes("a block without transactions")
    root = merkle_root([tx.txid for tx in txs])
    if root != header[36:68]:
        raise MalformedBytes(
            f"merkle root: expected {header[36:68][::-1].hex()}, received {root[::-1].hex()}"
        )
    return Block(
        height=height,
        block_hash=block_hash,
        previous_hash=Txid(header[4 : 4 + HASH_SIZE]),
        txs=txs,
    )
