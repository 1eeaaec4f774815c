"""The methods that read the chain, and those that move it."""

from typing import Any, Final

from cromford.bitcoin.address import script_of_address
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.regtest import params, render
from cromford.regtest.chain import BlockUnknown, ChainCoin, IndexedBlock
from cromford.regtest.genesis import REGTEST_BITS, REGTEST_DIFFICULTY
from cromford.regtest.kernel import BlockRefused
from cromford.regtest.ledger import Ledger
from cromford.regtest.legacy_address import script_of_legacy_address
from cromford.regtest.params import RpcError
from cromford.regtest.render import BtcAmount, Json

CORE_VERSION: Final = 319_900  # Of the Bitcoin Core that the kernel's library is built from.
PROTOCOL_VERSION: Final = 70_016
LOCAL_SERVICES: Final = ("NETWORK", "WITNESS", "NETWORK_LIMITED", "P2P_V2")
LOCAL_SERVICES_BITS: Final = 0x0C09
WARNING: Final = "This is an embedded regtest node: for trying and testing, never for real money"
BLOCKS_AT_ONCE_MAX: Final = 50_000
NETWORKS: Final = ("ipv4", "ipv6", "onion", "i2p", "cjdns")


def getblockchaininfo(ledger: Ledger) -> Json:
    """Return the state of the chain."""
    chain = ledger.chain
    tip = chain.tip
    sizes = sum(len(at.block.raw) for h in range(tip.height + 1) if (at := chain.at_height(h)))
    return {
        "chain": REGTEST.core_name,
        "blocks": tip.height,
        "headers": tip.height,
        "bestblockhash": str(tip.block_hash),
        "bits": f"{REGTEST_BITS:08x}",
        "target": render.target_hex(),
        "difficulty": REGTEST_DIFFICULTY,
        "time": tip.block.header.time,
        "mediantime": tip.median_time,
        "verificationprogress": 1,
        "initialblockdownload": tip.height == 0,
        "chainwork": render.chainwork_hex(tip.height),
        "size_on_disk": sizes,
        "pruned": False,
        "warnings": [WARNING],
    }


def getnetworkinfo(ledger: Ledger) -> Json:
    """Return what a node without peers knows of the network."""
    return {
        "version": CORE_VERSION,
        "subversion": f"/Satoshi:{CORE_VERSION // 10_000}.{CORE_VERSION // 100 % 100}.0/",
        "protocolversion": PROTOCOL_VERSION,
        "localservices": f"{LOCAL_SERVICES_BITS:016x}",
        "localservicesnames": list(LOCAL_SERVICES),
        "localrelay": True,
        "timeoffset": 0,
        "networkactive": False,
        "connections": 0,
        "connections_in": 0,
        "connections_out": 0,
        "networks": [
            {
                "name": name,
                "limited": True,
                "reachable": False,
                "proxy": "",
                "proxy_randomize_credentials": False,
            }
            for name in NETWORKS
        ],
        "relayfee": BtcAmount(ledger.options.min_relay_sat_per_kvb),
        "incrementalfee": BtcAmount(ledger.options.incremental_relay_sat_per_kvb),
        "localaddresses": [],
        "warnings": [WARNING],
    }


def getblockcount(ledger: Ledger) -> int:
    """Return the height of the tip."""
    return ledger.chain.tip.height


def getbestblockhash(ledger: Ledger) -> str:
    """Return the hash of the tip."""
    return str(ledger.chain.tip.block_hash)


def getblockhash(ledger: Ledger, height: object) -> str:
    """Return the hash of the active chain's block at a height.

    Raises:
        RpcError: If the active chain has no such height.
    """
    indexed = ledger.chain.at_height(params.integer(height))
    if indexed is None:
        raise RpcError(params.INVALID_PARAMETER, "Block height out of range")
    return str(indexed.block_hash)


def find_block(ledger: Ledger, block_hash: Txid, message: str = "Block not found") -> IndexedBlock:
    """Return a block of any branch.

    Raises:
        RpcError: If it is unknown.
    """
    try:
        return ledger.chain.block(block_hash)
    except BlockUnknown:
        raise RpcError(params.INVALID_ADDRESS_OR_KEY, message) from None


def getblock(ledger: Ledger, block_hash: str, verbosity: object) -> object:
    """Return a block: its bytes, or as JSON with more or less of its transactions."""
    wanted = params.hash_of(block_hash, "blockhash")
    level = params.verbosity(verbosity, default=1)
    indexed = find_block(ledger, wanted)
    if level <= 0:
        return indexed.block.raw.hex()
    return render.block_json(ledger.chain, indexed, verbosity=level)


def getblockheader(ledger: Ledger, block_hash: str, is_verbose: bool | None) -> object:  # noqa: FBT001 - called by position
    """Return a header: as JSON, or its bytes."""
    indexed = find_block(ledger, params.hash_of(block_hash, "hash"))
    if is_verbose is False:
        return indexed.block.header.serialize().hex()
    return render.header_json(ledger.chain, indexed)


def gettxout(ledger: Ledger, txid: str, vout: object, with_mempool: bool | None) -> Json | None:  # noqa: FBT001 - called by position
    """Return an unspent output, or None; the mempool's creations and spends count by default."""
    chain = ledger.chain
    outpoint = OutPoint(
        txid=params.hash_of(txid, "txid"), vout=params.integer(vout, least=0, most=0xFFFF_FFFF)
    )
    coin = chain.coin(outpoint)
    confirmations = 0 if coin is None else chain.tip.height - coin.height + 1
    if with_mempool is not False:
        txout = ledger.mempool.output(outpoint)
        if ledger.mempool.spender(outpoint) is not None:
            return None
        if txout is not None:
            confirmations = 0
            coin = ChainCoin(txout=txout, height=0, is_coinbase=False)
    if coin is None:
        return None
    return {
        "bestblock": str(chain.tip.block_hash),
        "confirmations": confirmations,
        "value": BtcAmount(coin.txout.amount_sat),
        "scriptPubKey": render.script_json(coin.txout.script_pubkey),
        "coinbase": coin.is_coinbase,
    }


def script_of_any_address(address: str, message: str) -> bytes:
    """Return the script of a segwit or base58 address.

    Raises:
        RpcError: If it is none of regtest's.
    """
    try:
        return script_of_address(address, REGTEST)
    except ValueError:
        pass
    try:
        return script_of_legacy_address(address)
    except ValueError:
        raise RpcError(params.INVALID_ADDRESS_OR_KEY, message) from None


def generatetoaddress(
    ledger: Ledger, n_blocks: object, address: str, _max_tries: object
) -> list[str]:
    """Mine blocks of what the mempool holds, and return their hashes.

    Raises:
        RpcError: If the address is none of regtest's, or for too many blocks.
    """
    count = params.integer(n_blocks)
    script_pubkey = script_of_any_address(address, "Error: Invalid address")
    if count > BLOCKS_AT_ONCE_MAX:
        raise RpcError(
            params.INVALID_PARAMETER, f"At most {BLOCKS_AT_ONCE_MAX} blocks are mined at once"
        )
    hashes: list[str] = []
    while len(hashes) < count and not ledger.is_interrupted:
        hashes.append(str(ledger.mine(script_pubkey).block_hash))
    return hashes


def generateblock(
    ledger: Ledger,
    output: str,
    raw_txs: list[Any],
    is_submitted: bool | None,  # noqa: FBT001 - called by position
) -> Json:
    """Mine one block of exactly these transactions, by id from the mempool or by their bytes.

    Raises:
        RpcError: If a parameter is wrong, or the kernel refuses the block.
    """
    script_pubkey = script_of_any_address(output, "Error: Invalid address or descriptor")
    txs = [_block_tx(ledger, params.text(raw)) for raw in raw_txs]
    block = ledger.build(script_pubkey, txs)
    if is_submitted is False:
        return {"hash": str(block.header.block_hash), "hex": block.raw.hex()}
    try:
        ledger.connect(block)
    except BlockRefused as refused:
        raise RpcError(params.TRANSACTION_ERROR, f"TestBlockValidity failed: {refused}") from None
    return {"hash": str(block.header.block_hash)}


def _block_tx(ledger: Ledger, raw: str) -> Tx:
    if len(raw) != 64:
        return params.transaction(raw, lambda given: f"Transaction decode failed for {given}.")
    entry = ledger.mempool.get(params.hash_of(raw, "txid"))
    if entry is None:
        raise RpcError(params.INVALID_ADDRESS_OR_KEY, f"Transaction {raw} not in mempool.")
    return entry.tx


def invalidateblock(ledger: Ledger, block_hash: str) -> None:
    """Take a block and all that follow it out of the chain.

    Raises:
        RpcError: If the block is unknown, or the first.
    """
    indexed = find_block(ledger, params.hash_of(block_hash, "blockhash"))
    if indexed.height == 0:
        raise RpcError(params.MISC_ERROR, "The genesis block cannot be invalidated")
    ledger.invalidate(indexed.block_hash)


def reconsiderblock(ledger: Ledger, block_hash: str) -> None:
    """Take back an `invalidateblock`."""
    indexed = find_block(ledger, params.hash_of(block_hash, "blockhash"))
    ledger.reconsider(indexed.block_hash)


def getrawtransaction(
    ledger: Ledger, txid: str, verbosity: object, block_hash: str | None
) -> object:
    """Return a transaction of the mempool, the active chain, or the block that is named.

    Raises:
        RpcError: If there is no such transaction.
    """
    wanted = params.hash_of(txid, "parameter 1")
    genesis = ledger.chain.at_height(0)
    if genesis is not None and wanted == genesis.block.txs[0].txid:
        raise RpcError(
            params.INVALID_ADDRESS_OR_KEY,
            "The genesis block coinbase is not considered an ordinary transaction "
            "and cannot be retrieved",
        )
    level = params.verbosity(verbosity, default=0)
    tx, indexed, position = _find_tx(ledger, wanted, block_hash)
    if level <= 0:
        return tx.serialize().hex()
    shown: Json = {}
    if block_hash is not None and indexed is not None:
        shown["in_active_chain"] = ledger.chain.is_active(indexed)
    coins = None
    if level > 1 and indexed is not None and position:
        coins = ledger.chain.spent_coins(indexed.block_hash)[position]
    shown |= render.tx_json(tx, coins=coins, with_prevouts=True)
    if indexed is not None:
        header = render.header_json(ledger.chain, indexed)
        shown["blockhash"] = header["hash"]
        shown["confirmations"] = max(header["confirmations"], 0)
        if shown["confirmations"]:
            shown |= {"time": header["time"], "blocktime": header["time"]}
    return shown


def _find_tx(
    ledger: Ledger, txid: Txid, block_hash: str | None
) -> tuple[Tx, IndexedBlock | None, int]:
    hint = "Use gettransaction for wallet transactions."
    if block_hash is not None:
        wanted = params.hash_of(block_hash, "parameter 3")
        indexed = find_block(ledger, wanted, "Block hash not found")
        for position, tx in enumerate(indexed.block.txs):
            if tx.txid == txid:
                return tx, indexed, position
        message = f"No such transaction found in the provided block. {hint}"
        raise RpcError(params.INVALID_ADDRESS_OR_KEY, message)
    entry = ledger.mempool.get(txid)
    if entry is not None:
        return entry.tx, None, 0
    located = ledger.chain.locate(txid)
    if located is None:
        message = f"No such mempool or blockchain transaction. {hint}"
        raise RpcError(params.INVALID_ADDRESS_OR_KEY, message)
    return located[0].block.txs[located[1]], *located
