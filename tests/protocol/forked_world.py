"""A pump whose one chain is the embedded node's, and whose last blocks may be taken back."""

from collections.abc import Collection, Iterable
from typing import Final

from tests.matrix.node_chain import NodeChain
from tests.matrix.world import MatrixNode
from tests.protocol.pump import Pump, PumpNode

from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import events as ev
from cromford.protocol.policy import LspPolicy

# Delays as a user would have them, but for their lengths.
QUICK: Final = LspPolicy(
    min_clients=1,
    min_depth=3,
    step_blocks=2,
    states_per_layer=2,
    lstock_csv_blocks=4,
    to_self_delay_lsp=4,
    to_self_delay_client=4,
)


class ForkedChain(NodeChain):
    """Core's consensus code and policy, and a chain that is not always the one it was."""

    def remove_tip(self, n_blocks: int) -> None:
        """Take the last blocks back; what was in them waits again, where it still can."""
        self.ledger.invalidate(self.blocks[-n_blocks][0])
        del self.blocks[-n_blocks:]
        self.confirmed = {txid: at for txid, at in self.confirmed.items() if at <= self.height}
        self.spends = {o: tx for o, tx in self.spends.items() if tx.txid in self.confirmed}
        self._look()

    def forget(self, txids: Iterable[Txid]) -> None:
        """Let the mempool let go of transactions, and of all that spends them."""
        mempool = self.ledger.mempool
        known = [txid for txid in txids if txid in mempool]
        mempool.remove(mempool.descendants(known) | set(known))
        self._look()

    def forget_all(self) -> None:
        """Let the mempool be empty, as after a restart that lost it."""
        self.forget(list(self.mempool))


class ForkedPump(Pump):
    """One run. Everybody looks from the embedded node's first blocks on."""

    lsp_kind = MatrixNode
    client_kind = MatrixNode
    chain: ForkedChain

    def __init__(self, n_clients: int = 2, *, policy: LspPolicy = QUICK) -> None:
        super().__init__(n_clients, policy=policy)

    def new_chain(self) -> ForkedChain:
        """Return the chain of this world."""
        return ForkedChain()

    def sync(self) -> None:
        """Let everybody see the blocks they have not seen: of what was before, only the last."""
        for node in self.everybody:
            while node.driver is not None and node.state.chain.height < self.chain.height:
                height = max(node.state.chain.height + 1, self.chain.base_height)
                block_hash, txs = self.chain.blocks[height]
                event = ev.BlockAdded(height=height, block_hash=block_hash, txs=node.relevant(txs))
                self.handle(node, event)

    @property
    def everybody(self) -> list[PumpNode]:
        """The LSP and its clients."""
        return [self.lsp, *self.clients]

    def take_back(self, n_blocks: int, *, without: Collection[Tx] = ()) -> None:
        """Take blocks back, at everybody. `without` is not in the mempool of any node then."""
        heights = range(self.chain.height, self.chain.height - n_blocks, -1)
        self.chain.remove_tip(n_blocks)
        self.chain.forget([tx.txid for tx in without])
        for node in self.everybody:
            for height in heights:
                self.handle(node, ev.BlockRemoved(height=height))
        self.run()

    def mine_only(self, *txs: Tx) -> None:
        """Mine a block of these and nothing else, which everybody sees."""
        self.pass_holds()
        self.chain.mine_these(txs)
        self.sync()
        self.run()
