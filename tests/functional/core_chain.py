"""A real Bitcoin Core as the chain of a world: its consensus, its mempool, its policy."""

from collections.abc import Sequence
from typing import Any, Protocol

from bitcoin_core_rpc import RpcError
from tests.functional.node_world import OPEN_ADDRESS, OPEN_SCRIPT, coin_of, pay
from tests.functional.node_world import Coin as OpenCoin
from tests.simulation.sim_chain import SimChain, SimRefused

from cromford.bitcoin.block import FullBlock
from cromford.bitcoin.tx import SAT_PER_BTC, OutPoint, Tx, Txid, TxOut
from cromford.ports import Coin

N_MATURE = 30  # Coins that a world may use.
MATURITY_BLOCKS = 100


class CoreRpc(Protocol):
    """A node that is asked over its RPC."""

    def call(self, method: str, *params: Any) -> Any:
        """Ask."""


class CoreChain(SimChain):
    """The chain that a pump's participants see: what a real node says of it."""

    def __init__(self, node: CoreRpc) -> None:
        super().__init__()
        self.node = node
        node.call("generatetoaddress", N_MATURE + MATURITY_BLOCKS, OPEN_ADDRESS)
        for height in range(N_MATURE + MATURITY_BLOCKS + 1):
            self._read(height)
        self._next_coin = 1

    def _read(self, height: int) -> None:
        block_hash = self.node.call("getblockhash", height)
        block = FullBlock.parse(bytes.fromhex(self.node.call("getblock", block_hash, 0)))
        self.blocks.append((Txid(bytes.fromhex(block_hash)[::-1]), block.txs))
        self.confirmed |= dict.fromkeys((tx.txid for tx in block.txs), height)

    def fund(self, script_pubkey: bytes, amount_sat: int) -> None:
        """Mine a block that gives somebody a coin, out of an old block's subsidy."""
        self.broadcast(pay([self.strangers_coin()], (amount_sat, script_pubkey)))
        self.mine()

    def strangers_coin(self) -> OpenCoin:
        """Return a coin that anybody may spend: an old block's subsidy, each once."""
        (coinbase, *_) = self.blocks[self._next_coin][1]
        self._next_coin += 1
        assert coinbase.outputs[0].script_pubkey == OPEN_SCRIPT
        return coin_of(coinbase, 0)

    def mine(self) -> None:
        """Let the node mine a block."""
        self.node.call("generatetoaddress", 1, OPEN_ADDRESS)
        self.read_on()

    def read_on(self) -> None:
        """Read one block more that the node has."""
        self._read(self.height + 1)

    def broadcast(self, tx: Tx) -> None:
        """Hand a transaction to the node.

        Raises:
            SimRefused: In its own words.
        """
        if tx.txid in self.confirmed:
            return
        try:
            self.node.call("sendrawtransaction", tx.serialize().hex())
        except RpcError as error:
            raise SimRefused(str(error)) from error

    def broadcast_package(self, parent: Tx, child: Tx) -> None:
        """Hand a parent and its child to the node.

        Raises:
            SimRefused: In its own words.
        """
        answer = self.node.call(
            "submitpackage", [parent.serialize().hex(), child.serialize().hex()]
        )
        if answer["package_msg"] != "success":
            raise SimRefused(str(answer))

    def spenders(self, outpoints: Sequence[OutPoint]) -> dict[OutPoint, Txid]:
        """Return by what in the mempool each is spent, where one is."""
        asked = [{"txid": str(one.txid), "vout": one.vout} for one in outpoints]
        found = self.node.call("gettxspendingprevout", asked) if asked else []
        return {
            outpoint: Txid(bytes.fromhex(one["spendingtxid"])[::-1])
            for outpoint, one in zip(outpoints, found, strict=True)
            if "spendingtxid" in one
        }

    def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed, unspent output."""
        found = self.node.call("gettxout", str(outpoint.txid), outpoint.vout, False)
        if found is None:
            return None
        return Coin(
            outpoint=outpoint,
            txout=TxOut(
                amount_sat=int(found["value"] * SAT_PER_BTC),
                script_pubkey=bytes.fromhex(found["scriptPubKey"]["hex"]),
            ),
            confirmations=found["confirmations"],
        )
