"""Bitcoin Core as a chain, over its JSON-RPC. Implements `ports.Chain`.

The client library blocks, so calls run in a few threads. It reads the cookie file at every call:
a node that restarted is simply there again. A password is asked for again where the node refuses
the one it was. Nothing else is retried here; `ChainUnavailable` says that a later try may succeed.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

from bitcoin_core_rpc import BitcoinCoreRpcClient, FetchError, HttpError, RpcError, RPCErrorCode

from cromford.adapters.bitcoind_answers import (
    KNOWN_REASONS,
    expect,
    not_judged,
    package_reason,
    read_amount_sat,
    read_estimate,
    read_hash,
    read_height,
    read_hex,
    read_mempool_tx,
    read_package,
    read_relay_feerates,
    read_spenders,
    read_time,
)
from cromford.bitcoin.block import parse_block
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.codec.reader import MalformedBytes
from cromford.ports import (
    Block,
    BlockRef,
    ChainStatus,
    ChainUnavailable,
    Coin,
    CredentialsRefused,
    Known,
    MempoolTx,
    NotTaken,
    PackageAnswer,
    PackageNotTaken,
    RelayFeerates,
    TxRefused,
)

CALLS_MAX: Final = 4  # Threads, and so calls at the node at one time; Core's work queue has 16.
CALL_TIMEOUT_SECONDS: Final = 30.0
# Of timeouts, until whoever asks is told that there is no answer: one may pass in waiting for a
# thread, while a node that hangs holds all of them, and a block takes two calls.
ANSWERS_PER_CALL: Final = 3
ESTIMATE_BLOCKS_MAX: Final = 1008  # A week, the furthest that Core estimates.
# Wrong name or password; and an address that `rpcallowip` leaves out.
_NOT_LET_IN: Final = frozenset({401, 403})

T = TypeVar("T")

_REFUSALS: Final = frozenset(
    {
        RPCErrorCode.DESERIALIZATION_ERROR,
        RPCErrorCode.VERIFY_ERROR,
        RPCErrorCode.VERIFY_REJECTED,
    }
)


class BitcoindChain:
    """One Bitcoin Core node. Close it to release its threads.

    It asks the node for blocks, coins, and what waits in its mempool: no wallet, no index, and a
    pruned node is fine as long as it still has the blocks asked for.
    """

    def __init__(
        self,
        url: str,
        *,
        cookie_path: Path | None = None,
        user: str | None = None,
        password: str | None = None,
        password_now: Callable[[], str | None] = lambda: None,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        """Remember where the node is: `url` without credentials, `http://127.0.0.1:8332`.

        Args:
            url: Where it answers.
            cookie_path: Its cookie file.
            user: Instead of a cookie, a user of it.
            password: The user's.
            password_now: Returns what the password is by now, or None where nobody knows; called in
                any thread.
            timeout_seconds: How long one call may take.

        Raises:
            ValueError: Unless there is either a cookie path, or a user and a password.
        """
        self._client = BitcoinCoreRpcClient(
            url, cookie_path=cookie_path, user=user, password=password, timeout=timeout_seconds
        )
        self._password = password
        self._password_now = password_now
        self._threads = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="bitcoind")
        self._answer_seconds = ANSWERS_PER_CALL * timeout_seconds

    async def call(self, method: str, *params: object) -> object:
        """Return the result of any of the node's methods.

        Numbers with a fraction are Decimals.

        Raises:
            RpcError: If the node answered with an error.
            CredentialsRefused: If it did not let us in.
            ChainUnavailable: If it did not answer, or is still starting.
        """
        return await self._in_thread(self._call, method, params)

    async def status(self) -> ChainStatus:
        """Return where the node is: its tip, its headers, the blocks it keeps.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        info = expect(await self._ask("getblockchaininfo"), dict, "getblockchaininfo")
        tip = BlockRef(
            height=read_height(info.get("blocks"), "blocks"),
            block_hash=read_hash(info.get("bestblockhash"), "bestblockhash"),
        )
        return ChainStatus(
            tip=tip,
            tip_time=read_time(info.get("time"), "time"),
            header_height=read_height(info.get("headers"), "headers", least=-1),
            is_initial_download=info.get("initialblockdownload") is True,
            kept_height=read_height(info.get("pruneheight", 0), "pruneheight"),
        )

    async def block_hash(self, height: int) -> Txid | None:
        """Return the hash of the active chain's block at `height`; None above the tip.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        return await self._find(
            lambda answer: read_hash(answer, "getblockhash"),
            "getblockhash",
            height,
            unless=RPCErrorCode.INVALID_PARAMETER,
        )

    async def block(self, block_hash: Txid) -> Block:
        """Return a block by its hash, also one that has left the active chain.

        Raises:
            ChainUnavailable: If the node does not answer, has pruned the block, or sends another.
        """
        return await self._in_thread(self._block, block_hash)

    async def previous_hash(self, block_hash: Txid) -> Txid | None:
        """Return the hash of the block before one; None where the node never heard of that one.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        return await self._find(
            _previous_in,
            "getblockheader",
            str(block_hash),
            unless=RPCErrorCode.INVALID_ADDRESS_OR_KEY,
        )

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed output nobody has spent in a block, or None.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        answer = await self._ask("gettxout", str(outpoint.txid), outpoint.vout, False)
        if answer is None:
            return None
        coin = expect(answer, dict, "gettxout")
        script = expect(coin.get("scriptPubKey"), dict, "scriptPubKey")
        txout = TxOut(
            amount_sat=read_amount_sat(coin.get("value"), "value"),
            script_pubkey=read_hex(script.get("hex"), "scriptPubKey.hex"),
        )
        confirmations = expect(coin.get("confirmations"), int, "confirmations")
        return Coin(outpoint=outpoint, txout=txout, confirmations=confirmations)

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
            if error.code == RPCErrorCode.VERIFY_ALREADY_IN_UTXO_SET or reason in KNOWN_REASONS:
                return
            if error.code in _REFUSALS:
                raise TxRefused(reason) from error
            raise _unavailable("sendrawtransaction", error) from error

    async def broadcast_package(self, txs: Sequence[Tx]) -> PackageAnswer:
        """Hand parents and their child to the mempool together (`submitpackage`).

        A child that confirmed, and whose outputs are all spent, is refused as in `broadcast`.

        Raises:
            PackageNotTaken: If the child did not get in.
            TxRefused: If the node could not make sense of them.
            ChainUnavailable: If the node does not answer.
        """
        try:
            told = await self.call("submitpackage", [tx.serialize().hex() for tx in txs])
        except RpcError as error:
            if error.code in _REFUSALS:
                raise TxRefused(self._reason("submitpackage", error)) from error
            raise _unavailable("submitpackage", error) from error
        message, answer = read_package(txs, told)
        left = not_judged(txs, answer)
        if left:
            # The parent confirmed in the meantime, and the node looked no further.
            for tx in left:
                await self.broadcast(tx)
            return PackageAnswer(verdicts=tuple(Known(txid=tx.txid) for tx in txs))
        if isinstance(answer.verdicts[-1], NotTaken):
            raise PackageNotTaken(package_reason(message, answer), answer)
        return answer

    async def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        """Return what the mempool has of a transaction (`getmempoolentry`); None without one.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        return await self._find(
            lambda told: read_mempool_tx(txid, told),
            "getmempoolentry",
            str(txid),
            unless=RPCErrorCode.INVALID_ADDRESS_OR_KEY,
        )

    async def spenders(self, outpoints: Sequence[OutPoint]) -> Mapping[OutPoint, Txid]:
        """Return by which transaction in the mempool each is spent (`gettxspendingprevout`).

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        if not outpoints:
            return {}
        asked = [{"txid": str(outpoint.txid), "vout": outpoint.vout} for outpoint in outpoints]
        return read_spenders(outpoints, await self._ask("gettxspendingprevout", asked))

    async def relay_feerates(self) -> RelayFeerates:
        """Return what the node asks for today (`getmempoolinfo`).

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        return read_relay_feerates(await self._ask("getmempoolinfo"))

    async def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        """Return the node's estimate for confirmation within `target_blocks`, or None.

        A target out of the node's range counts as the nearest in it. The mode is Core's default,
        `economical`, which follows a falling market.

        Raises:
            ChainUnavailable: If the node does not answer.
        """
        target = min(max(target_blocks, 1), ESTIMATE_BLOCKS_MAX)
        try:
            told = await self.call("estimatesmartfee", target, "economical")
        except RpcError:
            return None  # With `blocksonly`, a node that answers has no estimates at all.
        return read_estimate(told)

    def close(self) -> None:
        """Release the threads; a call still running ends at its timeout. Safe to call twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    async def _in_thread(self, ask: Callable[..., T], *args: object) -> T:
        """Ask in a thread; who would wait too long for one does not wait at all."""
        try:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, ask, *args)
        except RuntimeError as error:  # The system allows no more threads now; this need not last.
            raise ChainUnavailable(str(error)) from error
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await asked
        except TimeoutError as error:
            raise ChainUnavailable(f"no answer within {self._answer_seconds:g} s") from error

    async def _ask(self, method: str, *params: object) -> object:
        """Call a method of which no error is expected."""
        try:
            return await self.call(method, *params)
        except RpcError as error:
            raise _unavailable(method, error) from error

    async def _find(
        self,
        read: Callable[[object], T],
        method: str,
        *params: object,
        unless: RPCErrorCode,
    ) -> T | None:
        """Return what an answer says; None where the node says by a code that it has no such."""
        try:
            answer = await self.call(method, *params)
        except RpcError as error:
            if error.code == unless:
                return None
            raise _unavailable(method, error) from error
        return read(answer)

    def _call(self, method: str, params: Sequence[object]) -> object:
        client = self._client
        try:
            return _answer(client, method, params)
        except CredentialsRefused:
            # What was refused was not done.
            again = self._with_another_password(client)
            if again is None:
                raise
        return _answer(again, method, params)

    def _with_another_password(self, refused: BitcoinCoreRpcClient) -> BitcoinCoreRpcClient | None:
        """Return who calls with the password as it is now; None if that is what was refused."""
        if self._client is not refused:
            return self._client  # Another thread has found it.
        password = self._password_now()
        if password is None or password == self._password:
            return None
        again = BitcoinCoreRpcClient(
            refused.url, user=refused.user, password=password, timeout=refused.timeout
        )
        self._client, self._password = again, password
        return again

    def _block(self, block_hash: Txid) -> Block:
        # In the thread from end to end: a full block takes a while to parse.
        displayed = str(block_hash)
        try:
            header = expect(self._call("getblockheader", [displayed]), dict, "getblockheader")
            raw = read_hex(self._call("getblock", [displayed, 0]), "getblock")
        except RpcError as error:
            raise _unavailable("getblock", error) from error
        height = read_height(header.get("height"), "height")
        try:
            return parse_block(raw, block_hash=block_hash, height=height)
        except MalformedBytes as error:
            raise ChainUnavailable(f"getblock: {error}") from error

    def _reason(self, method: str, error: RpcError) -> str:
        """Return the node's own words, without what the client library puts before them."""
        return str(error.args[0]).removeprefix(f"{method} at {self._client.url}: ")


def _unavailable(method: str, error: Exception) -> ChainUnavailable:
    return ChainUnavailable(f"{method}: {error}")


def _previous_in(answer: object) -> Txid:
    header = expect(answer, dict, "getblockheader")
    return read_hash(header.get("previousblockhash"), "previousblockhash")


def _answer(client: BitcoinCoreRpcClient, method: str, params: Sequence[object]) -> object:
    try:
        answer: object = client.call(method, list(params))
    except RpcError as error:
        if error.code == RPCErrorCode.IN_WARMUP:
            raise ChainUnavailable(f"the node is starting: {error}") from error
        raise
    except FetchError as error:
        if isinstance(error, HttpError) and error.status in _NOT_LET_IN:
            raise CredentialsRefused(str(error)) from error
        raise ChainUnavailable(str(error)) from error
    return answer
