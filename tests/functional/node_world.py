"""Two nodes to ask the same questions: the embedded one, and a real Bitcoin Core if there is one.

The real one runs where CROMFORD_BITCOIND names a `bitcoind`. Both are asked over HTTP by the same
client.
"""

import asyncio
import os
import re
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from bitcoin_core_rpc import BitcoinCoreRpcClient, FetchError, RpcError

from cromford.adapters.bitcoind import BitcoindChain
from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import SAT_PER_BTC, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import pubkey_of, sha256, xonly_of
from cromford.crypto.schnorr import sign
from cromford.regtest.node import RegtestNode
from cromford.regtest.options import DEFAULTS, Options

START_TIMEOUT_SECONDS = 30
N_BLOCKS = 240  # A hundred to mature, and the rest for the cases to spend.

TRUE_SCRIPT = b"\x51"
OPEN_SCRIPT = b"\x00\x20" + sha256(TRUE_SCRIPT)  # Anyone may spend it, with OPEN_WITNESS.
OPEN_WITNESS = (TRUE_SCRIPT,)
OPEN_ADDRESS = address_of_script(OPEN_SCRIPT, REGTEST)
SECKEY = bytes(31) + b"\x07"
KEY_SCRIPT = p2tr_script(xonly_of(pubkey_of(SECKEY)))
INTERNAL_KEY = xonly_of(pubkey_of(bytes(31) + b"\x08"))
FINAL, LOCKTIME_COUNTS = 0xFFFF_FFFF, 0xFFFF_FFFE
FEE_SAT = 1_000
ACCEPTED = "accepted"
Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Coin:
    outpoint: OutPoint
    amount_sat: int
    script: bytes = OPEN_SCRIPT
    witness: tuple[bytes, ...] = OPEN_WITNESS


def pay(
    coins: Sequence[Coin],
    *outputs: tuple[int, bytes],
    fee_sat: int = FEE_SAT,
    version: int = 2,
    nsequence: int = FINAL,
    nlocktime: int = 0,
) -> Tx:
    """Spend coins into the outputs and, if their sum leaves something, one open change output."""
    change_sat = sum(coin.amount_sat for coin in coins) - sum(sat for sat, _ in outputs) - fee_sat
    change = [(change_sat, OPEN_SCRIPT)] if change_sat > 0 else []
    return Tx(
        version=version,
        inputs=tuple(
            TxIn(outpoint=coin.outpoint, nsequence=nsequence, witness=coin.witness)
            for coin in coins
        ),
        outputs=tuple(
            TxOut(amount_sat=sat, script_pubkey=script) for sat, script in (*outputs, *change)
        ),
        nlocktime=nlocktime,
    )


def coin_of(tx: Tx, vout: int, witness: tuple[bytes, ...] = OPEN_WITNESS) -> Coin:
    txout = tx.outputs[vout]
    return Coin(tx.outpoint(vout), txout.amount_sat, txout.script_pubkey, witness)


class World:
    """A node, and the coins a case may use: each is given out once.

    `set_time` tells the node the time, in seconds since the epoch, and keeps it there.
    """

    def __init__(self, url: str, cookie: Path, set_time: Callable[[int], None]) -> None:
        self.url = url
        self.cookie = cookie
        self.set_time = set_time
        self._client = BitcoinCoreRpcClient(url, cookie_path=cookie)
        self.call("generatetoaddress", N_BLOCKS, OPEN_ADDRESS)
        self._n_mined = 0
        self._next_coin = 1

    def call(self, method: str, *params: Any) -> Any:
        return self._client.call(method, list(params))

    def ask(self, question: Callable[[BitcoindChain], Awaitable[Asked]]) -> Asked:
        """Ask through the adapter that the daemons use."""

        async def run() -> Asked:
            async with BitcoindChain(self.url, cookie_path=self.cookie) as chain:
                return await question(chain)

        return asyncio.run(run())

    def mine(self, n_blocks: int = 1) -> list[str]:
        # Blocks of one height, time and address would be the same block.
        self._n_mined += 1
        script = b"\x00\x14" + self._n_mined.to_bytes(20, "big")
        address = address_of_script(script, REGTEST)
        hashes: list[str] = self.call("generatetoaddress", n_blocks, address)
        return hashes

    def coinbase_coin(self, height: int) -> Coin:
        block = self.call("getblock", self.call("getblockhash", height), 2)
        txid = Txid.from_hex(block["tx"][0]["txid"])
        amount_sat = int(block["tx"][0]["vout"][0]["value"] * 100_000_000)
        return Coin(OutPoint(txid=txid, vout=0), amount_sat)

    def coin(self) -> Coin:
        self._next_coin += 1
        assert self._next_coin < N_BLOCKS - 100, "the cases need more mature coins"
        return self.coinbase_coin(self._next_coin)

    def test(self, *txs: Tx) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = self.call("testmempoolaccept", [hex_of(tx) for tx in txs])
        return results

    def send(self, tx: Tx) -> str:
        """Offer a transaction, and return the reason of its refusal up to the first blank."""
        tested = self.test(tx)[0]
        code, message = self.error("sendrawtransaction", hex_of(tx))
        assert tested["allowed"] is (code == 0)
        if not code:
            assert tested["vsize"] == tx.vsize
            assert str(tx.txid) in self.call("getrawmempool")
            return ACCEPTED
        reason = first_word(message)
        if tested["reject-reason"] == "missing-inputs":
            assert (code, reason) == (-25, "bad-txns-inputs-missingorspent")
        else:
            assert (code, reason) == (-26, first_word(tested["reject-reason"]))
            assert tested["reject-details"].startswith(tested["reject-reason"])
        return reason

    def error(self, method: str, *params: Any) -> tuple[int, str]:
        """Return the code and the message of a call's error; 0 and nothing if it succeeds."""
        try:
            self.call(method, *params)
        except RpcError as error:
            frame = r"^\w+ at http://[\d.:]+: | \(rpc error code -?\d+\)$"
            return error.code, re.sub(frame, "", str(error)).replace("\\n", "\n")
        return 0, ""

    def package(self, *txs: Tx) -> str:
        """Offer a package, and return its message, and the first word of each error."""
        outcome = self.call("submitpackage", [hex_of(tx) for tx in txs])
        assert set(outcome) == {"package_msg", "tx-results", "replaced-transactions"}
        results = outcome["tx-results"]
        words = [outcome["package_msg"].partition(",")[0] + ":"]
        for tx in txs:
            result = results[str(tx.wtxid)]
            assert result["txid"] == str(tx.txid)
            words.append(first_word(result.get("error", ACCEPTED)))
        return " ".join(words)

    def confirmed(self, script: bytes, amount_sat: int, witness: tuple[bytes, ...]) -> Coin:
        """Return a confirmed coin of any script, standard or not."""
        tx = pay([self.coin()], (amount_sat, script))
        self.call("generateblock", OPEN_ADDRESS, [hex_of(tx)])
        return coin_of(tx, 0, witness)


def hex_of(tx: Tx) -> str:
    return tx.serialize().hex()


def first_word(text: str) -> str:
    return text.split(maxsplit=1)[0].rstrip(",")


def signed(tx: Tx, coins: Sequence[Coin]) -> Tx:
    """Return a transaction with key-path signatures for all its coins."""
    prevouts = [TxOut(amount_sat=coin.amount_sat, script_pubkey=coin.script) for coin in coins]
    digests = [
        taproot_sighash(tx, prevouts=prevouts, input_index=index) for index in range(len(coins))
    ]
    return tx.with_witnesses(*((sign(digest, SECKEY),) for digest in digests))


def embedded(datadir: Path, options: Options = DEFAULTS) -> Iterator[World]:
    told: list[int] = []

    def clock() -> int:
        return told[-1] if told else int(time.time())

    with RegtestNode(datadir, persist=False, clock=clock, options=options) as node:
        yield World(node.url, node.cookie_file, told.append)


def core_arguments(options: Options) -> list[str]:
    """Return the arguments that start a Bitcoin Core with these options."""
    return [
        f"-minrelaytxfee={Decimal(options.min_relay_sat_per_kvb) / SAT_PER_BTC:f}",
        f"-incrementalrelayfee={Decimal(options.incremental_relay_sat_per_kvb) / SAT_PER_BTC:f}",
        f"-datacarrier={int(options.datacarrier_size_max > 0)}",
        f"-datacarriersize={options.datacarrier_size_max}",
        f"-maxmempool={options.mempool_bytes_max // 1_000_000}",
        f"-blockmaxweight={options.block_weight_max}",
    ]


def real(datadir: Path, options: Options = DEFAULTS) -> Iterator[World]:
    binary = os.environ.get("CROMFORD_BITCOIND")
    if binary is None:
        pytest.skip("CROMFORD_BITCOIND does not name a bitcoind")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["-regtest", f"-datadir={datadir}", f"-rpcport={port}", "-rpcbind=127.0.0.1"]
    arguments += ["-rpcallowip=127.0.0.1", "-listen=0", "-dnsseed=0", "-fixedseeds=0", "-txindex"]
    arguments += core_arguments(options)
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    try:
        url, cookie = f"http://127.0.0.1:{port}", datadir / "regtest" / ".cookie"
        wait_for(url, cookie)
        client = BitcoinCoreRpcClient(url, cookie_path=cookie)
        yield World(url, cookie, lambda told: client.call("setmocktime", [told]))
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, cookie: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        try:
            BitcoinCoreRpcClient(url, cookie_path=cookie).call("getblockcount")
        except (FetchError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


NODES = (embedded, real)
