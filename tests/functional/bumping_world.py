"""A pump whose one chain is a node: the embedded one, or a real Bitcoin Core.

It is asked over its RPC, and whoever publishes does as a daemon does: with children.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.functional.core_chain import CoreChain
from tests.functional.node_world import OPEN_ADDRESS, hex_of
from tests.functional.test_demo_on_core import started
from tests.functional.test_expiry_on_core import CoreNode
from tests.protocol.paying_clients import open_factory
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_node import SimNode

from cromford import effects as fx
from cromford.adapters.bitcoind import BitcoindChain
from cromford.bitcoin.tx import SAT_PER_BTC, Tx
from cromford.daemon.bumping import Bumper
from cromford.daemon.signing import sign_child
from cromford.ports import TxRefused
from cromford.protocol import events as ev
from cromford.protocol.policy import LspPolicy
from cromford.regtest.node import RegtestNode


def embedded_node(datadir: Path) -> Iterator[CoreNode]:
    with RegtestNode(datadir, persist=False) as node:
        yield CoreNode(node.url, node.cookie_file)


def real_node(datadir: Path) -> Iterator[CoreNode]:
    for running in started(datadir, "regtest"):
        yield CoreNode(running.url, running.cookie)


class BumpingPump(Pump):
    """Clients with live channels, and their LSP, each with a daemon's bumper.

    Args:
        node: Their node.
        policy: The LSP's.
        n_clients: How many there are.
    """

    chain: CoreChain

    def __init__(self, node: CoreNode, policy: LspPolicy, n_clients: int = 2) -> None:
        self.node = node
        super().__init__(n_clients, policy=policy)
        open_factory(self)

    def new_chain(self) -> CoreChain:
        return CoreChain(self.node)

    def mine_these(self, txs: Sequence[Tx]) -> None:
        """Mine a block with these and nothing else, which nobody is told of yet."""
        self.node.call("generateblock", OPEN_ADDRESS, [hex_of(tx) for tx in txs])
        self.chain.read_on()

    def waiting(self) -> set[str]:
        """Return the txids of what waits in the node's mempool."""
        return set(self.node.call("getrawmempool"))

    def children_of(self, tx: Tx) -> list[str]:
        """Return the txids of what waits and spends a transaction that waits."""
        return list(self._entry(tx)["spentby"])

    def family_fee_sat(self, tx: Tx) -> int:
        """Return what a transaction that waits, and what spends it, pay together."""
        return int(self._entry(tx)["fees"]["descendant"] * SAT_PER_BTC)

    def waiting_tx(self, txid: str) -> Tx:
        """Return a transaction that waits."""
        return Tx.parse(bytes.fromhex(self.node.call("getrawtransaction", txid)))

    def _entry(self, tx: Tx) -> dict[str, Any]:
        entry: dict[str, Any] = self.node.call("getmempoolentry", str(tx.txid))
        return entry

    def _publish(self, node: PumpNode, asked: fx.Broadcast) -> Iterable[ev.Event]:
        if asked.bumping is None:
            return super()._publish(node, asked)
        try:
            asyncio.run(self._bump(node, asked))
        except TxRefused as refused:
            return (ev.BroadcastRefused(asked=asked, reason=refused.reason),)
        return ()

    async def _bump(self, node: SimNode, asked: fx.Broadcast) -> None:
        signer, bumping = node.signer, asked.bumping
        assert signer is not None
        assert bumping is not None
        async with BitcoindChain(self.node.url, cookie_path=self.node.cookie_file) as chain:
            bumper = Bumper(chain, sign=lambda child: sign_child(signer, child))
            await bumper.publish(asked, bumping)
