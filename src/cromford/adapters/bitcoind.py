"""Bitcoin Core as a chain, over its JSON-RPC. Implements `ports.Chain`.

The client library blocks, so calls run in a few threads. It reads the cookie file at every call:
a node that restarted is simply there again. Nothing is retried here; `ChainUnavailable` says that
a later try may succeed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Final, Self, TypeVar

from bitcoin_core_rpc import BitcoinCoreRpcClient, FetchError, HttpError, RpcError, RPCErrorCode

from cromford.bitcoin.block import parse_block
from cromford.bitcoin.tx import SAT_PER_BTC, OutPoint, Tx, Txid, TxOut
from cromford.codec.reader import MalformedBytes
from cromford.ports import (
    Block,
    BlockRef,
    ChainStatus,
    ChainUnavailable,
    Coin,
    CredentialsRefused,
    TxRefused,
)

CALLS_MAX: Final = 4  # Threads, and so calls at the node at one time; Core's work queue has 16.
CALL_TIMEOUT_SECONDS: Final = 30.0
# Wrong name or password; and an address that `rpcallowip` leaves out.
_NOT_LET_IN: Final = frozenset({401, 403})

_REFUSALS: Final = frozenset(
    {
        RPCErrorCode.DESERIALIZATION_ERROR,
        RPCErrorCode.VERIFY_ERROR,
        RPCErrorCode.VERIFY_REJECTED,
    }
)
# The node's words for a transaction it has: in the mempool, the same but for its witness, or in a
# block with an output still unspent.
_KNOWN_REASONS: Final = frozenset(
    {
        "txn-already-in-mempool",
        "txn-same-nonwitness-data-in-mempool",
        "txn-already-known",
        "Transaction outputs already in utxo set",
        "Transaction already in block chain",
    }
)
_NOT_VALIDATED: Final = "package-not-validated"

_Kind = TypeVar("_Kind")


class BitcoindChain:
    """One Bitcoin Core node. Close it to release its threads.

    It asks the node for nothing but blocks, coins and transactions: no wallet, no index, and a
    pruned node is fine as long as it still has the blocks asked for.
    """

    def __init__(
        self,
        url: str,
        *,
        cookie_path: Path | None = None,
        user: str | None = None,
        password: str | None = None,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        """Remember where the node is: `url` without credentials, `http://127.0.0.1:8332`.

        Raises:
            ValueError: Unless there is either a cookie path, or a user and a password.
        """
        self._client = BitcoinCoreRpcClient(
            url, cookie_path=cookie_path, user=user, password=password, timeout=timeout_seconds
        )
        self._threads = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="bitcoind")

    async def call(self, method: str, *params: object) -> object:
        """Return the result of any of the node's methods.

        Numbers with a fraction are Decimals.

        Raises:
            RpcError: If the node answered with an error.
            CredentialsRefused: If it did not let us in.
            ChainUnavailable: If it did not answer, or is still starting.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, method, params)

    async def status(self) -> ChainStatus:
        """Return where the node is: its tip, its headers, the blocks it keeps.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        info = _expect(await self._ask("getblockchaininfo"), dict, "getblockchaininfo")
        tip = BlockRef(
            height=_expect(info.get("blocks"), int, "blocks"),
            block_hash=_read_hash(info.get("bestblockhash"), "bestblockhash"),
        )
        return ChainStatus(
            tip=tip,
            tip_time=_expect(info.get("time"), int, "time"),
            header_height=_expect(info.get("headers"), int, "headers"),
            is_initial_download=info.get("initialblockdownload") is True,
            kept_height=_expect(info.get("pruneheight", 0), int, "pruneheight"),
        )

    async def block_hash(self, height: int) -> Txid | None:
        """Return the hash of the active chain's block at `height`; None above the tip.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        try:
            answer = await self.call("getblockhash", height)
        except RpcError as error:
            if error.code == RPCErrorCode.INVALID_PARAMETER:
                return None
            raise _unavailable("getblockhash", error) from error
        return _read_hash(answer, "getblockhash")

    async def block(self, block_hash: Txid) -> Block:
        """Return a block by its hash, also one that has left the active chain.

        Raises:
            ChainUnavailable: If the node does not answer, has pruned the block, or sends another.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._block, block_hash)

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed output nobody has spent in a block, or None.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        answer = await self._ask("gettxout", str(outpoint.txid), outpoint.vout, False)
        if answer is None:
            return None
        coin = _expect(answer, dict, "gettxout")
        script = _expect(coin.get("scriptPubKey"), dict, "scriptPubKey")
        txout = TxOut(
            amount_sat=_read_amount_sat(coin.get("value")),
            script_pubkey=_read_hex(script.get("hex"), "scriptPubKey.hex"),
        )
        confirmations = _expect(coin.get("confirmations"), int, "confirmations")
        return Coin(outpoint=outpoint, txout=txout, confirmations=confirmations)

    async def feerate_sat_per_kw(self, target_blocks: int) -> int | None:
        """Return the node's estimate for confirmation within `target_blocks`, or None.

        A young node, and every regtest one, has no estimate (`estimatesmartfee`).

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        estimate = await self.call("estimatesmartfee", target_blocks)
        if not isinstance(estimate, dict) or "feerate" not in estimate:
            return None
        btc_per_kvb = Decimal(str(estimate["feerate"]))
        return int(btc_per_kvb * SAT_PER_BTC / 4)

    async def broadcast(self, tx: Tx) -> None:
        """Hand a transaction to the mempool. One that is there, or confirmed, is accepted again.

        A confirmed transaction whose outputs are all spent is the exception: a node without an
        index cannot tell it from one with unknown inputs, and refuses it.

        Raises:
            TxRefused: With the node's reason.
            ChainUnavailable: If the node does not answer.
        """
        try:
            await self.call("sendrawtransaction", tx.serialize().hex())
        except RpcError as error:
            reason = self._reason("sendrawtransaction", error)
            if error.code == RPCErrorCode.VERIFY_ALREADY_IN_UTXO_SET or reason in _KNOWN_REASONS:
                return
            if error.code in _REFUSALS:
                raise TxRefused(reason) from error
            raise _unavailable("sendrawtransaction", error) from error

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        """Hand a parent and its child to the mempool together (`submitpackage`).

        Transactions the node has already are no obstacle to the others.

        Raises:
            TxRefused: With the node's reason for the first one refused.
            ChainUnavailable: If the node does not answer.
        """
        try:
            answer = await self.call("submitpackage", [tx.serialize().hex() for tx in txs])
        except RpcError as error:
            if error.code in _REFUSALS:
                raise TxRefused(self._reason("submitpackage", error)) from error
            raise _unavailable("submitpackage", error) from error
        package = _expect(answer, dict, "submitpackage")
        package_message = _expect(package.get("package_msg"), str, "package_msg")
        if package_message == "success":
            return
        errors = _package_errors(txs, _expect(package.get("tx-results"), dict, "tx-results"))
        refused = [
            reason for reason in errors.values() if reason not in {*_KNOWN_REASONS, _NOT_VALIDATED}
        ]
        if refused:
            raise TxRefused(refused[0])
        left = [tx for tx in txs if errors.get(tx.wtxid) == _NOT_VALIDATED]
        if len(left) == len(txs) or not errors:
            raise TxRefused(package_message)
        # The parent confirmed in the meantime, and the node looked no further.
        for tx in left:
            await self.broadcast(tx)

    def close(self) -> None:
        """Release the threads; a call still running ends at its timeout. Safe to call twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    async def _ask(self, method: str, *params: object) -> object:
        """Call a method of which no error is expected."""
        try:
            return await self.call(method, *params)
        except RpcError as error:
            raise _unavailable(method, error) from error

    def _call(self, method: str, params: Sequence[object]) -> object:
        try:
            answer: object = self._client.call(method, list(params))
        except RpcError as error:
            if error.code == RPCErrorCode.IN_WARMUP:
                raise ChainUnavailable(f"the node is starting: {error}") from error
            raise
        except FetchError as error:
            if isinstance(error, HttpError) and error.status in _NOT_LET_IN:
                raise CredentialsRefused(str(error)) from error
            raise ChainUnavailable(str(error)) from error
        return answer

    def _block(self, block_hash: Txid) -> Block:
        # In the thread from end to end: a full block takes a while to parse.
        displayed = str(block_hash)
        try:
            header = _expect(self._call("getblockheader", [displayed]), dict, "getblockheader")
            raw = _read_hex(self._call("getblock", [displayed, 0]), "getblock")
        except RpcError as error:
            raise _unavailable("getblock", error) from error
        height = _expect(header.get("height"), int, "height")
        try:
            return parse_block(raw, block_hash=block_hash, height=height)
        except MalformedBytes as error:
            raise ChainUnavailable(f"getblock: {error}") from error

    def _reason(self, method: str, error: RpcError) -> str:
        """Return the node's own words, without what the client library puts before them."""
        return str(error.args[0]).removeprefix(f"{method} at {self._client.url}: ")


def _package_errors(txs: Sequence[Tx], results: Mapping[str, object]) -> dict[Txid, str]:
    """Return the reasons of the transactions that were not accepted, in package order."""
    errors: dict[Txid, str] = {}
    for tx in txs:
        result = results.get(str(tx.wtxid))
        if isinstance(result, dict) and isinstance(reason := result.get("error"), str):
            errors[tx.wtxid] = reason
    return errors


def _unavailable(method: str, error: Exception) -> ChainUnavailable:
    return ChainUnavailable(f"{method}: {error}")


def _expect(value: object, kind: type[_Kind], field: str) -> _Kind:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ChainUnavailable(f"{field}: expected {kind.__name__}, received {value!r:.100}")
    return value


def _read_hash(value: object, field: str) -> Txid:
    try:
        return Txid.from_hex(_expect(value, str, field))
    except ValueError as error:
        raise ChainUnavailable(f"{field}: {error}") from error


def _read_hex(value: object, field: str) -> bytes:
    try:
        return bytes.fromhex(_expect(value, str, field))
    except ValueError as error:
        raise ChainUnavailable(f"{field}: expected hex digits") from error


def _read_amount_sat(value: object) -> int:
    # Amounts travel as decimal bitcoins; a float would round them.
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ChainUnavailable(f"value: expected a number, received {value!r}")
    amount_sat = Decimal(value) * SAT_PER_BTC
    if amount_sat != int(amount_sat) or amount_sat < 0:
        raise ChainUnavailable(f"value: expected whole satoshis, received {value}")
    return int(amount_sat)
