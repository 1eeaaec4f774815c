"""The demo's node, asked over Bitcoin Core's JSON-RPC as any other program would."""

from decimal import Decimal
from typing import Any, Final

from bitcoin_core_rpc import BitcoinCoreRpcClient, FetchError, RpcError

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import SAT_PER_BTC
from cromford.daemon.options import ChainOptions
from cromford.demo.failure import DemoFailed, refused
from cromford.regtest.genesis import subsidy_sat

CALL_TIMEOUT_SECONDS: Final = 60.0
INVALID_ADDRESS_OR_KEY: Final = -5  # Core's code for a transaction it does not have.


class Node:
    """A regtest node that mines when it is told to. It needs no index and no wallet."""

    def __init__(self, chain: ChainOptions, *, miner_address: str) -> None:
        """Remember where the node is.

        Raises:
            OSError: If the password file cannot be read.
        """
        password = None
        if chain.password_file is not None:
            password = chain.password_file.read_text(encoding="utf-8").strip()
        self.chain = chain
        self._miner_address = miner_address
        self._client = BitcoinCoreRpcClient(
            chain.url,
            cookie_path=chain.cookie_file,
            user=chain.user,
            password=password,
            timeout=CALL_TIMEOUT_SECONDS,
        )
        self._heights: dict[str, int] = {}  # of the transactions in blocks that were looked at
        self._looked_at = 0

    def check_chain(self) -> None:
        """Refuse a node that does not answer, or whose coins could be worth something.

        What is looked for later is looked for in the blocks after the present tip.

        Raises:
            DemoFailed: With what was received instead.
        """
        try:
            info = self._call("getblockchaininfo")
        except FetchError as error:
            raise DemoFailed(
                "chain_unavailable",
                f"{self.chain.url}: {error}",
                remediation="Start the node, or see --chain-url and --chain-cookie.",
            ) from error
        if info["chain"] != REGTEST.core_name:
            raise refused(
                "--chain-url",
                f"expected a node on {REGTEST.core_name}, received one on {info['chain']}",
                remediation="The demo mines its own blocks, so it needs a regtest chain.",
            )
        self._looked_at = int(info["blocks"])

    def mine(self, n_blocks: int, *, address: str | None = None) -> None:
        """Mine blocks of what the mempool holds, and pay them to an address."""
        self._call("generatetoaddress", n_blocks, address or self._miner_address)

    def height(self) -> int:
        """Return the height of the tip."""
        return int(self._call("getblockcount"))

    def has_unconfirmed(self, txid: str) -> bool:
        """Say whether a transaction is in the mempool."""
        return self._known("getmempoolentry", txid) is not None

    def confirmed_height(self, txid: str) -> int | None:
        """Return the height at which a transaction of this demo confirmed, or None."""
        return self.payments().get(txid)

    def payments(self) -> dict[str, int]:
        """Return the heights of all transactions, but coinbases, since `check_chain`, by txid."""
        tip = self.height()
        while self._looked_at < tip:
            self._looked_at += 1
            block = self._call("getblock", self._call("getblockhash", self._looked_at), 1)
            self._heights.update(dict.fromkeys(block["tx"][1:], self._looked_at))
        return self._heights

    def transaction(self, txid: str) -> dict[str, Any] | None:
        """Return a confirmed transaction of this demo as the node shows it, or None."""
        height = self.confirmed_height(txid)
        if height is None:
            return None
        block_hash = self._call("getblockhash", height)
        shown: dict[str, Any] = self._call("getrawtransaction", txid, 1, block_hash)
        return shown

    def output(self, txid: str, vout: int) -> dict[str, Any] | None:
        """Return a confirmed unspent output: amount_sat, script_pubkey, confirmations; or None."""
        shown = self._call("gettxout", txid, vout, False)
        if shown is None:
            return None
        return {
            "amount_sat": amount_sat_of(shown),
            "script_pubkey": shown["scriptPubKey"]["hex"],
            "confirmations": shown["confirmations"],
        }

    def _known(self, method: str, *params: object) -> Any:  # noqa: ANN401 - any JSON value
        try:
            return self._call(method, *params)
        except RpcError as error:
            if error.code == INVALID_ADDRESS_OR_KEY:
                return None
            raise

    def _call(self, method: str, *params: object) -> Any:  # noqa: ANN401 - any JSON value
        return self._client.call(method, list(params))


def amount_sat_of(shown: dict[str, Any]) -> int:
    """Return the amount of an output that the node shows in bitcoin."""
    return int(Decimal(shown["value"]) * SAT_PER_BTC)


def n_blocks_paying(amount_sat: int, *, tip_height: int, n_blocks_max: int) -> int | None:
    """Return how many blocks after the tip create an amount; None if `n_blocks_max` do not."""
    created_sat = 0
    for n_blocks in range(1, n_blocks_max + 1):
        created_sat += subsidy_sat(tip_height + n_blocks)
        if created_sat >= amount_sat:
            return n_blocks
    return None
