"""Worlds in which a leaf was advanced, and somebody brings one of its states on chain."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, TypeVar

from tests.protocol.advanced import Advance, Step, advance, kickoff_of
from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK, wallet_sat

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.vertices import TreeNode
from cromford.protocol.journal.record import Record

STEP_BLOCKS: Final = 8
POLICY: Final = replace(
    QUICK,
    step_blocks=STEP_BLOCKS,
    states_per_layer=3,
    lstock_csv_blocks=12,
    to_self_delay_lsp=4,
    to_self_delay_client=5,
)
ALICE_MSAT: Final = 30_000_000
BOB_MSAT: Final = 20_000_000
SOLD_SAT: Final = 40_000


def sold(
    until: Step | None = Step.REBASED,
    *,
    amount_sat: int | None = SOLD_SAT,
    pump: Pump | None = None,
    **options: Any,
) -> tuple[Pump, Advance]:
    """Return two clients with money of whom the first bought of their leaf's L-stock.

    Args:
        until: How far the advance goes.
        amount_sat: How much is bought; None for all.
        pump: A world of two clients with live channels; a new one if there is none.
        options: As `advance` takes them.
    """
    if pump is None:
        pump = live_factory(2, policy=POLICY)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, ALICE_MSAT)
    pay(pump, pump.lsp, bob, BOB_MSAT)
    return pump, advance(pump, alice, amount_sat, until=until, **options)


def everybody(pump: Pump) -> tuple[PumpNode, ...]:
    return (pump.lsp, *pump.clients)


def look_away(pump: Pump, *nodes: PumpNode) -> None:
    """Let nodes see no block any more; all of them, if none is named."""
    pump.blind |= {node.name for node in nodes or everybody(pump)}


def look_again(pump: Pump, *nodes: PumpNode) -> None:
    """Let nodes see all blocks, and act on them; everybody, if none is named."""
    pump.blind -= {node.name for node in nodes or everybody(pump)}
    pump.sync()
    pump.run()


def state_of(pump: Pump, done: Advance, state_index: int) -> Tx:
    """Return a signed state of the leaf."""
    return pump.attempt.signed_txs[done.leaf.states[state_index].name]


def mine_blindly(pump: Pump, n_blocks: int, txs: Iterable[Tx] = ()) -> None:
    """Find blocks that nobody who looks away sees; the last one has these transactions."""
    for _ in range(n_blocks - 1):
        pump.chain.mine()
    for tx in txs:
        pump.chain.broadcast(tx)
    pump.chain.mine()


def bring_on_chain(pump: Pump, done: Advance, state_index: int, *with_it: Tx) -> None:
    """Confirm the kickoff, and then one state of the leaf, while nobody looks.

    `with_it` goes into the state's block.
    """
    look_away(pump)
    kickoff = kickoff_of(pump)
    if kickoff.txid not in pump.chain.confirmed:
        mine_blindly(pump, 1, [kickoff])
    first_height = pump.chain.confirmed[kickoff.txid] + done.leaf.states[state_index].delay_blocks
    n_blocks = max(1, first_height - pump.chain.height)
    mine_blindly(pump, n_blocks, [state_of(pump, done, state_index), *with_it])
    assert state_of(pump, done, state_index).txid in pump.chain.confirmed


def spender_of(pump: Pump, outpoint: OutPoint) -> Tx | None:
    """Return what spends an output in a block."""
    for _, txs in pump.chain.blocks:
        for tx in txs:
            if outpoint in {tx_in.outpoint for tx_in in tx.inputs}:
                return tx
    return None


def channel_outpoint(done: Advance, state_index: int, client: PumpNode) -> OutPoint:
    """Return where a client's channel is in one state of its leaf."""
    state: TreeNode = done.leaf.states[state_index]
    return state.tx.outpoint(done.leaf.clients.index(newest_link(client).client))


def stock_outpoint(done: Advance, state_index: int) -> OutPoint:
    """Return where the L-stock is in one state of the leaf."""
    return done.leaf.states[state_index].tx.outpoint(len(done.leaf.clients))


R = TypeVar("R", bound=Record)


def told(node: PumpNode, kind: type[R]) -> list[R]:
    """Return what a node remembered of one kind, in order."""
    return [record for record in node.store.remembered if isinstance(record, kind)]


def wallets_sat(pump: Pump) -> dict[str, int]:
    return {node.name: wallet_sat(node) for node in everybody(pump)}
