"""Blocks, transactions and scripts as Bitcoin Core's JSON shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.block import is_coinbase
from cromford.bitcoin.descriptor import with_checksum
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import SAT_PER_BTC, Tx
from cromford.regtest import scripts
from cromford.regtest.chain import ChainCoin, IndexedBlock, RegtestChain
from cromford.regtest.genesis import REGTEST_DIFFICULTY, REGTEST_TARGET, REGTEST_WORK_PER_BLOCK
from cromford.regtest.legacy_address import (
    PUBKEYHASH_PREFIX,
    SCRIPTHASH_PREFIX,
    address_of_hash,
)

Json = dict[str, Any]

VERBOSITY_TXIDS: Final = 1
VERBOSITY_PREVOUTS: Final = 3


@dataclass(frozen=True, slots=True)
class BtcAmount:
    """An amount that JSON shows in bitcoin with eight decimals."""

    sat: int

    def __str__(self) -> str:
        whole, part = divmod(abs(self.sat), SAT_PER_BTC)
        return f"{'-' if self.sat < 0 else ''}{whole}.{part:08d}"


def encode(value: object) -> bytes:
    """Return the bytes of a JSON value in which amounts may stand."""
    return _ENCODER.encode(_plain(value))


def _plain(value: object) -> object:
    match value:
        case BtcAmount():
            return msgspec.Raw(str(value).encode())
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


_ENCODER: Final = msgspec.json.Encoder()


def target_hex() -> str:
    """Return regtest's target as Core prints it."""
    return f"{REGTEST_TARGET:064x}"


def chainwork_hex(height: int) -> str:
    """Return the work of a chain up to a height."""
    return f"{REGTEST_WORK_PER_BLOCK * (height + 1):064x}"


def header_json(chain: RegtestChain, indexed: IndexedBlock) -> Json:
    """Return what `getblockheader` shows of a block."""
    header = indexed.block.header
    is_active = chain.is_active(indexed)
    following = chain.at_height(indexed.height + 1) if is_active else None
    shown: Json = {
        "hash": str(indexed.block_hash),
        "confirmations": chain.tip.height - indexed.height + 1 if is_active else -1,
        "height": indexed.height,
        "version": header.version,
        "versionHex": f"{header.version:08x}",
        "merkleroot": header.merkle_root[::-1].hex(),
        "time": header.time,
        "mediantime": indexed.median_time,
        "nonce": header.nonce,
        "bits": f"{header.bits:08x}",
        "target": target_hex(),
        "difficulty": REGTEST_DIFFICULTY,
        "chainwork": chainwork_hex(indexed.height),
        "nTx": len(indexed.block.txs),
    }
    if indexed.height:
        shown["previousblockhash"] = str(header.previous_hash)
    if following is not None:
        shown["nextblockhash"] = str(following.block_hash)
    return shown


def block_json(chain: RegtestChain, indexed: IndexedBlock, *, verbosity: int) -> Json:
    """Return what `getblock` shows of a block, with its transactions as the verbosity says."""
    block = indexed.block
    coinbase = block.txs[0]
    coinbase_json: Json = {
        "version": coinbase.version,
        "locktime": coinbase.nlocktime,
        "sequence": coinbase.inputs[0].nsequence,
        "coinbase": coinbase.inputs[0].script_sig.hex(),
    }
    if coinbase.inputs[0].witness:
        coinbase_json["witness"] = coinbase.inputs[0].witness[0].hex()
    txs: list[Any]
    if verbosity <= VERBOSITY_TXIDS:
        txs = [str(tx.txid) for tx in block.txs]
    else:
        spent = chain.spent_coins(indexed.block_hash)
        txs = [
            tx_json(
                tx,
                coins=spent[position] if position else None,
                with_prevouts=verbosity >= VERBOSITY_PREVOUTS,
            )
            for position, tx in enumerate(block.txs)
        ]
    return header_json(chain, indexed) | {
        "strippedsize": block.stripped_size,
        "size": len(block.raw),
        "weight": block.weight,
        "coinbase_tx": coinbase_json,
        "tx": txs,
    }


def tx_json(
    tx: Tx, *, coins: Sequence[ChainCoin] | None = None, with_prevouts: bool = False
) -> Json:
    """Return a transaction as `getblock` and `getrawtransaction` show it.

    Args:
        tx: The transaction.
        coins: What each input spends, to show the fee; None if unknown or a coinbase.
        with_prevouts: Show those coins too.
    """
    shown: Json = {
        "txid": str(tx.txid),
        "hash": str(tx.wtxid),
        "version": tx.version,
        "size": len(tx.serialize()),
        "vsize": tx.vsize,
        "weight": tx.weight,
        "locktime": tx.nlocktime,
        "vin": [
            _input_json(tx, index, coins[index] if coins and with_prevouts else None)
            for index in range(len(tx.inputs))
        ],
        "vout": [
            {
                "value": BtcAmount(txout.amount_sat),
                "n": vout,
                "scriptPubKey": script_json(txout.script_pubkey),
            }
            for vout, txout in enumerate(tx.outputs)
        ],
    }
    if coins is not None:
        input_sat = sum(coin.txout.amount_sat for coin in coins)
        shown["fee"] = BtcAmount(input_sat - sum(txout.amount_sat for txout in tx.outputs))
    return shown | {"hex": tx.serialize().hex()}


def _input_json(tx: Tx, index: int, coin: ChainCoin | None) -> Json:
    tx_in = tx.inputs[index]
    shown: Json
    if is_coinbase(tx):
        shown = {"coinbase": tx_in.script_sig.hex()}
    else:
        shown = {
            "txid": str(tx_in.outpoint.txid),
            "vout": tx_in.outpoint.vout,
            "scriptSig": {"asm": scripts.asm(tx_in.script_sig), "hex": tx_in.script_sig.hex()},
        }
    if tx_in.witness:
        shown["txinwitness"] = [item.hex() for item in tx_in.witness]
    if coin is not None:
        shown["prevout"] = {
            "generated": coin.is_coinbase,
            "height": coin.height,
            "value": BtcAmount(coin.txout.amount_sat),
            "scriptPubKey": script_json(coin.txout.script_pubkey),
        }
    return shown | {"sequence": tx_in.nsequence}


def script_json(script: bytes) -> Json:
    """Return an output script as Core shows it."""
    kind = scripts.script_type(script)
    address = _address(script, kind)
    shown: Json = {
        "asm": scripts.asm(script),
        "desc": with_checksum(_descriptor(script, kind, address)),
        "hex": script.hex(),
    }
    if address is not None:
        shown["address"] = address
    return shown | {"type": kind}


def _address(script: bytes, kind: str) -> str | None:
    if kind.startswith("witness_") or kind == "anchor":
        return address_of_script(script, REGTEST)
    if kind == "pubkeyhash":
        return address_of_hash(PUBKEYHASH_PREFIX, script[3:23])
    if kind == "scripthash":
        return address_of_hash(SCRIPTHASH_PREFIX, script[2:22])
    return None


def _descriptor(script: bytes, kind: str, address: str | None) -> str:
    if kind == "witness_v1_taproot":
        return f"rawtr({script[2:].hex()})"
    if kind == "pubkey":
        return f"pk({script[1:-1].hex()})"
    multisig = scripts.multisig_of(script)
    if multisig is not None:
        keys = ",".join(key.hex() for key in multisig[1])
        return f"multi({multisig[0]},{keys})"
    return f"addr({address})" if address is not None else f"raw({script.hex()})"
