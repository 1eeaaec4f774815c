"""The demo's node, asked over Bitcoin Core's JSON-RPC as any other program would."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from bitcoin_core_rpc import BitcoinCoreRpcClient, RpcError

SAT_PER_BTC: Final = 100_000_000
CALL_TIMEOUT_SECONDS: Final = 60.0
INVALID_ADDRESS_OR_KEY: Final = -5  # Core's code for a transaction it does not have.


class Node:
    """A regtest node that mines when it is told to."""

    def __init__(self, url: str, cookie_file: Path, *, miner_address: str) -> None:
        self.url = url
        self.cookie_file = cookie_file
        self._miner_address = miner_address
        self._client = BitcoinCoreRpcClient(
            url, cookie_path=cookie_file, timeout=CALL_TIMEOUT_SECONDS
        )

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
        """Return the height at which a transaction confirmed, or None."""
        shown = self._known("getrawtransaction", txid, 1)
        if shown is None or not shown.get("confirmations"):
            return None
        return self.height() - int(shown["confirmations"]) + 1

    def output(self, txid: str, vout: int) -> dict[str, Any] | None:
        """Return a confirmed unspent output: amount_sat, script_pubkey, confirmations; or None."""
        shown = self._call("gettxout", txid, vout, False)
        if shown is None:
            return None
        return {
            "amount_sat": int(Decimal(shown["value"]) * SAT_PER_BTC),
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
