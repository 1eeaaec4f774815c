"""Exits after purchases on the embedded node: one leaves alone, then the others, each with its own.

Production code plays every part, the children included; the chain is the kernel's.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.kinds import VertexKind
from cromford.factory.terms import FeePolicy
from cromford.protocol import events as ev
from cromford.protocol.journal.advance_records import LiquidityBought
from cromford.protocol.policy import LspPolicy
from tests.matrix.market import LOW
from tests.matrix.world import MatrixWorld
from tests.protocol.paying_clients import make_invoice, newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.shoppers import ALL, ask_price, buy_what_is_quoted
from tests.simulation.sim_node import SimNode

N_SALES_MAX: Final = 3
SOLD_SAT: Final = (10_000, 25_000)
FIRST_MSAT: Final = (15_000_000, 40_000_000)
LATER_MSAT: Final = (1_000_000, 30_000_000)
SPARE_BLOCKS: Final = 6
POLICY: Final = LspPolicy(
    min_clients=1,
    min_depth=1,
    step_blocks=4,
    states_per_layer=N_SALES_MAX + 1,
    lstock_csv_blocks=4,
    to_self_delay_lsp=4,
    to_self_delay_client=5,
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A tree: for how many, and how it is made."""

    n_clients: int
    leaf_arity: int = 2
    inner_kind: VertexKind | None = None
    fee_policy: FeePolicy = FeePolicy.ENDOGENOUS


SHAPES: Final[Mapping[str, Shape]] = {
    "one alone": Shape(n_clients=1),
    "the root is the leaf": Shape(n_clients=3, leaf_arity=3),
    "below a level": Shape(n_clients=4, inner_kind=VertexKind.DW),
    "below a static level": Shape(n_clients=4, inner_kind=VertexKind.STATIC),
    "no fees, the root is the leaf": Shape(n_clients=2, fee_policy=FeePolicy.EPHEMERAL),
    "no fees, below a level": Shape(
        n_clients=3, inner_kind=VertexKind.STATIC, fee_policy=FeePolicy.EPHEMERAL
    ),
}


KEPT_SAT = 1_000  # More than an L-stock has to keep, if it keeps anything.


class ShapedWorld(MatrixWorld):
    """A world on the embedded node whose tree has a shape."""

    def __init__(self, shape: Shape, seed: int) -> None:
        is_paid = shape.fee_policy is FeePolicy.ENDOGENOUS
        self.usual_policy = replace(
            POLICY,
            leaf_arity=shape.leaf_arity,
            inner_kind=shape.inner_kind,
            fee_policy=shape.fee_policy,
        )
        market = replace(LOW, tree_sat_per_kw=500 if is_paid else 0)
        super().__init__(
            n_clients=shape.n_clients,
            market=market,
            seed=f"sold {seed}",
            n_states=N_SALES_MAX + 1,
        )
        self.chain.open_market(market)


def run_sold_exits(seed: int) -> str:
    """Run one world from its seed and check everything; return a line that describes it."""
    dice = random.Random(f"sold exits {seed}")
    name = list(SHAPES)[seed % len(SHAPES)]
    world = ShapedWorld(SHAPES[name], seed)
    try:
        return f"{name}: {play(world, dice)}"
    finally:
        world.chain.close()


def play(world: Pump, dice: random.Random) -> str:
    """Let some buy, and then all leave, one after the other; return what happened."""
    for client in world.clients:
        pay(world, world.lsp, client, dice.randrange(*FIRST_MSAT))
    n_sales = dice.randint(1, N_SALES_MAX)
    buyers = [buy(world, dice, is_last=n == n_sales - 1) for n in range(n_sales)]
    for buyer in buyers:
        pay(world, world.lsp, buyer, dice.randrange(*LATER_MSAT))
    leavers = dice.sample(world.clients, len(world.clients))
    for leaver in leavers:
        check_leaves(world, leaver)
    told = [[one.name for one in nodes] for nodes in (buyers, leavers)]
    return f"{told[0]} bought, {told[1]} left"


def pay(world: Pump, payer: PumpNode, payee: PumpNode, amount_msat: int) -> None:
    """Let one pay another, if it can be covered."""
    request = make_invoice(world, payee, amount_msat)
    world.handle(payer, request)
    world.run()


def buy(world: Pump, dice: random.Random, *, is_last: bool) -> PumpNode:
    """Let somebody buy some of its leaf's L-stock, the last time perhaps all that is left."""
    buyer = dice.choice(world.clients)
    n_before = n_bought(buyer)
    amount_sat = ALL if is_last and dice.random() < 0.5 else dice.randrange(*SOLD_SAT)
    left_sat = world.held(buyer).leaf.allocation.lstock_sat
    if not left_sat:
        return buyer  # Somebody took all that was left.
    if amount_sat > left_sat - KEPT_SAT:
        amount_sat = ALL
    handle = handler(world)
    ask_price(handle, buyer, amount_sat)
    world.run()
    assert buy_what_is_quoted(handle, buyer), buyer.state.quotes
    world.run()
    assert n_bought(buyer) == n_before + 1, "in fair weather whoever buys gets it"
    return buyer


def n_bought(client: PumpNode) -> int:
    """Return how often a client bought."""
    return sum(isinstance(record, LiquidityBought) for record in client.store.remembered)


def handler(world: Pump) -> Callable[[SimNode, ev.Event], None]:
    """Return what lets a node of a world handle an event."""

    def handle(node: SimNode, event: ev.Event) -> None:
        assert isinstance(node, PumpNode)
        world.handle(node, event)

    return handle


def check_leaves(world: Pump, client: PumpNode) -> None:
    """Let a client leave, whoever else did, and check that it gets all that was its own.

    Its balance, to the satoshi, less the fees that it pays by itself: of its sweep, and of children
    where the tree pays none.
    """
    link = newest_link(client)
    state = world.held(client).leaf.state
    due_sat = link.state.accepter_msat // MSAT_PER_SAT
    before_sat = wallet_sat(client)
    world.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))
    world.run()
    delay_blocks = link.setting.terms.to_self_delay_accepter
    world.mine(link.exit_blocks + delay_blocks + SPARE_BLOCKS)
    assert state.tx.txid in world.chain.confirmed, "the newest state is what lands"
    outputs = {
        tx.outpoint(vout): out.amount_sat
        for _, txs in world.chain.blocks
        for tx in txs
        for vout, out in enumerate(tx.outputs)
    }
    (sweep,) = own_sweeps(world, client)
    came_sat = sum(outputs[one.outpoint] for one in sweep.inputs)
    assert came_sat == due_sat, f"{client.name} left with {came_sat} of {due_sat} sat"
    children_sat = children_cost_sat(world, client, outputs)
    fee_sat = came_sat - sum(out.amount_sat for out in sweep.outputs)
    assert fee_sat <= fee_sat_of(vsize=sweep.vsize, feerate_sat_per_kw=1_000)
    assert wallet_sat(client) == before_sat + due_sat - fee_sat - children_sat


def wallet_sat(client: PumpNode) -> int:
    """Return what a client's wallet has in blocks, spent nowhere."""
    confirmed: int = client.state.wallet.confirmed_sat()
    return confirmed


def own_sweeps(world: Pump, client: PumpNode) -> list[Tx]:
    """Return what brought a client's balance from its commitment into its wallet."""
    commitment = newest_link(client).finished.tx.txid
    lsps = next(
        link.finished.tx.txid
        for link in world.lsp.state.book.links.values()
        if link.channel_id == newest_link(client).channel_id
    )
    script = world.held(client).join.payout_script
    return [
        tx
        for _, txs in world.chain.blocks
        for tx in txs
        if {one.outpoint.txid for one in tx.inputs} & {commitment, lsps}
        and tx.outputs[0].script_pubkey == script
    ]


def children_cost_sat(world: Pump, client: PumpNode, outputs: Mapping[OutPoint, int]) -> int:
    """Return what a client's coins paid for children, in all."""
    own = {
        coin_outpoint: coin
        for coin_outpoint, coin in client.state.wallet.coins.items()
        if coin.spent_height is not None
    }
    cost_sat = 0
    for _, txs in world.chain.blocks:
        for tx in txs:
            spent = [one.outpoint for one in tx.inputs if one.outpoint in own]
            if spent:
                cost_sat += sum(outputs[one] for one in spent)
                cost_sat -= sum(out.amount_sat for out in tx.outputs)
    return cost_sat
