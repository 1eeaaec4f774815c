"""Purchases in one simulated world, among payments: done for a whole leaf each, or for nobody."""

import random
from typing import Final, TypeVar

from cromford.factory.terms import FeePolicy
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.record import Record
from tests.protocol.money import Auditor
from tests.protocol.shoppers import ALL, ask_price, buy_what_is_quoted
from tests.simulation.payments import PAUSE_SECONDS_MAX, WEATHERS, Market, blow, pass_time
from tests.simulation.sim_node import SimNode
from tests.simulation.world import Weather, World, troubled

N_ROUNDS: Final = 16
STATES_PER_LAYER: Final = 5
SOLD_SAT: Final = (10_000, 60_000)
ASKING_RATE, BUYING_RATE, ALL_RATE = 0.7, 0.8, 0.1  # Of rounds, and of what is asked for.
END_BLOCKS: Final = 6  # Whatever is under way ends, once all are back, within that many.

R = TypeVar("R", bound=Record)


def run_sales(seed: int) -> str:
    """Run one world from its seed and check everything; return a line that describes it."""
    rng = random.Random(f"sales {seed}")
    weather = troubled(rng.choice(WEATHERS), seed)
    world = World(
        seed,
        n_clients=rng.randint(1, 4),
        weather=Weather(),
        fee_policy=rng.choice((FeePolicy.ENDOGENOUS, FeePolicy.EPHEMERAL)),
        states_per_layer=STATES_PER_LAYER,
    )
    world.build()
    world.mine(4)
    audit = Auditor(world.lsp, world.clients, seed=seed, kernel_rate=0.05)
    market, shop = Market(world, rng), Shop(world, rng)
    market.be_paid_first()
    blow(world, weather)
    for _ in range(N_ROUNDS):
        market.trade()
        shop.trade()
        market.disturb(weather)
        pass_time(world, rng.uniform(0, PAUSE_SECONDS_MAX))
        audit.read()
    world.muted.clear()
    for client in world.clients:
        world.cut(client)
    world.calm()
    world.run()
    n_blocks = shop.end()
    audit.check_rest()
    outcomes = shop.outcomes()
    if weather == Weather():
        assert not shop.n_ordered or "" in outcomes.values(), "in fair weather somebody buys"
    n_sold = sum(not reason for reason in outcomes.values())
    return (
        f"{len(world.clients)} clients, {weather}: {shop.n_ordered} ordered, {n_sold} bought, "
        f"{len(outcomes) - n_sold} came to nothing, over after {n_blocks} blocks, "
        f"{len(audit.held)} commitments, {audit.n_punished} punished in a rehearsal"
    )


class Shop:
    """Who buys how much, by the seed.

    Args:
        world: Where.
        rng: Decides.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.n_ordered = 0

    def trade(self) -> None:
        """Let somebody ask for a price, or buy what it was quoted."""
        client = self.rng.choice(self.world.clients)
        if self.rng.random() < ASKING_RATE:
            is_all = self.rng.random() < ALL_RATE
            ask_price(self.world.request, client, ALL if is_all else self.rng.randint(*SOLD_SAT))
            pass_time(self.world, self.rng.uniform(0, 1))
        if self.rng.random() < BUYING_RATE:
            self.n_ordered += buy_what_is_quoted(self.world.request, client)

    def end(self) -> int:
        """Mine until no advance is under way, and return how many blocks it took.

        Raises:
            AssertionError: If one outlives its deadlines though everybody is there.
        """
        for n_blocks in range(END_BLOCKS):
            if not self._is_advancing():
                return n_blocks
            self.world.mine()
        raise AssertionError("an advance has no end")

    def outcomes(self) -> dict[bytes, str]:
        """Return what became of each order that was remembered: why it came to nothing, or "".

        Raises:
            AssertionError: If of one nothing is known, or both sides know something else.
        """
        outcomes: dict[bytes, str] = {}
        for client in self.world.clients:
            ordered = _remembered(client, ar.PurchaseOrdered)
            ended = {one.quote_id: one.reason for one in _remembered(client, ar.PurchaseEnded)}
            assert {one.quote_id for one in ordered} == ended.keys(), "a purchase without an end"
            outcomes |= ended
            bought = [one.advance_id for one in _remembered(client, ar.LiquidityBought)]
            assert len(bought) == sum(not reason for reason in ended.values())
        lsp = self.world.lsp
        proposed = {one.advance_id for one in _remembered(lsp, ar.AdvanceProposed)}
        over = {one.advance_id for one in _remembered(lsp, ar.AdvanceDropped)}
        over |= {one.advance_id for one in _remembered(lsp, ar.AdvanceEnded)}
        assert proposed == over, "an advance without an outcome"
        assert all(one.reason for one in _remembered(lsp, ar.AdvanceDropped)), "no reason is named"
        sold = [one.advance_id for one in _remembered(lsp, ar.LiquiditySold)]
        assert len(sold) == sum(not reason for reason in outcomes.values())
        return outcomes

    def _is_advancing(self) -> bool:
        nodes = (*self.world.lsp.state.all_factories(), *(c.state for c in self.world.clients))
        return any(node.advances for node in nodes) or any(
            client.state.purchases for client in self.world.clients
        )


def _remembered(node: SimNode, kind: type[R]) -> list[R]:
    return [record for record in node.store.remembered if isinstance(record, kind)]
