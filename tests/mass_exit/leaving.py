"""All clients of a factory leave in one block, each as its own daemon, while blocks are full.

All own something in the factory, and all have one coin but for one, who is not alone in its leaf.
Either all of them ask in the same block; or nobody does, and their exit deadline comes.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cromford.bitcoin.address import script_of_address
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.network import REGTEST
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.terms import FeePolicy
from cromford.protocol.policy import ClientPolicy, DyingStep, LspPolicy, WhenDying
from cromford.regtest.node import RegtestNode
from cromford.regtest.options import Options
from tests.daemon.town import LSP_POLICY, QUICK, Town, TownNode, town
from tests.functional.node_world import OPEN_ADDRESS, hex_of, pay
from tests.mass_exit.full_blocks import FullBlocks, block_weight_of
from tests.mass_exit.outcome import Leaver, Outcome
from tests.mass_exit.published import Bumped, heard, on_chain

PAID_SAT: Final = 120_000
COIN_SAT: Final = 60_000
# Plans are made for these: what the day asks for, and what is above all that is paid in a hurry.
FEERATE, HURRIED = 10, 50
CHEAP: Final = 8
ESTIMATES: Final = {"2": "0.00040", "6": "0.00030", "144": "0.00010"}
FALLEN: Final = {"2": "0.00002", "144": "0.00001"}  # Once the others are out.
QUIET_SECONDS: Final = 0.3
LOOK_SECONDS: Final = 0.1
BLOCKS_MAX: Final = 120
# So short that the exit deadline is near.
SHORT = replace(LSP_POLICY, active_blocks=24, dying_blocks=24, ready_min_blocks=1)
HASTY = replace(
    QUICK, active_blocks=(1, 52_560), dying_blocks=(1, 4_320), ready_min_blocks=(1, 4_320)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many leave, and into which blocks.

    Attributes:
        n_clients: Of the factory.
        room_vsize: Of a block.
        left_vsize: What dearer transactions leave of it.
        dear_sat_per_vb: What those pay.
        is_at_deadline: Nobody asks to leave, and the exit deadline comes.
        is_zero_fee: No transaction pays for itself, and everybody has a coin.
        has_market: Whether the node's estimates can be set; else it makes its own of what is mined.
    """

    n_clients: int = 16
    room_vsize: int = 6_000
    left_vsize: int = 1_000
    dear_sat_per_vb: int = 30
    is_at_deadline: bool = False
    is_zero_fee: bool = False
    has_market: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Return what the clients are called."""
        return tuple(f"client-{place:02}" for place in range(1, self.n_clients + 1))

    @property
    def policies(self) -> tuple[LspPolicy, ClientPolicy]:
        """Return the LSP's, and the clients'."""
        lsp, client = (SHORT, HASTY) if self.is_at_deadline else (LSP_POLICY, QUICK)
        # Nobody moves or closes: it is about those who are still there at the exit deadline.
        lsp = replace(lsp, dying_policy=(DyingStep.SWEEP,))
        client = replace(client, when_dying=WhenDying.STAY)
        if self.is_zero_fee:
            lsp = replace(lsp, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0)
            client = replace(client, fee_policies=tuple(FeePolicy))
        return lsp, client

    @property
    def most_sat_per_vb(self) -> int:
        """Return the least feerate of those that a plan names which nobody pays more than."""
        return FEERATE if self.has_market and not self.is_at_deadline else HURRIED

    @property
    def block_weight(self) -> int:
        """Return the weight of a block."""
        return block_weight_of(self.room_vsize)


def run(base: Path, size: Size) -> Outcome:
    """Let everybody leave on the embedded node."""
    options = Options(block_weight_max=size.block_weight)
    with RegtestNode(base / "node", persist=False, options=options) as node:
        return run_on(base, node, size)


def run_on(base: Path, node: TownNode, size: Size) -> Outcome:
    """Let everybody leave on a node whose blocks are of that weight."""
    with heard() as bumped:
        return asyncio.run(_MassExit(base, node, size, bumped).run())


@dataclass
class _MassExit:
    base: Path
    node: TownNode
    size: Size
    bumped: Bumped
    left: set[str] = field(default_factory=set)
    paying: set[str] = field(default_factory=set)

    async def run(self) -> Outcome:
        size = self.size
        blocks = FullBlocks(
            self.node, size.room_vsize, size.left_vsize, size.dear_sat_per_vb, CHEAP
        )
        blocks.prepare()
        lsp_policy, client_policy = size.policies
        async with town(
            self.base,
            lsp_policy=lsp_policy,
            client_policy=client_policy,
            fallback_sat_per_kw=FEERATE * SAT_PER_KW_OF_SAT_PER_VB,
            real_node=self.node,
        ) as t:
            t.mining_address = OPEN_ADDRESS
            await self._prepare(t, blocks)
            plans = {name: await t.call(name, "exit_plan") for name in size.names}
            start_height = self.bumped.height = self.node.call("getblockcount")
            started = time.monotonic()
            for name in size.names:
                if not size.is_at_deadline:
                    await t.call(name, "exit_start")
                status = await t.call(name, "exit_status")
                assert status["exiting"], name
            await self._leave(t, blocks)
            tree = {step["txid"] for plan in plans.values() for step in plan["steps"]}
            return Outcome(
                leavers=tuple([await self._leaver(t, name, plans[name]) for name in size.names]),
                start_height=start_height,
                most_sat_per_vb=size.most_sat_per_vb,
                on_chain=on_chain(self.node, after_height=start_height, tree=tree),
                bumped=self.bumped,
                seconds=time.monotonic() - started,
            )

    async def _prepare(self, t: Town, blocks: FullBlocks) -> None:
        if self.size.is_zero_fee:  # Who has no coin does not join.
            await self._give_coins(t, blocks, self.size.names)
        await t.build(*self.size.names)
        for name in self.size.names:
            asked = await t.call(name, "invoice", amount_msat=PAID_SAT * MSAT_PER_SAT)
            await t.call("lsp", "pay", invoice=asked["invoice"])
        if not self.size.is_zero_fee:
            coinless = await self._with_a_neighbour(t)
            names = [name for name in self.size.names if name != coinless]
            await self._give_coins(t, blocks, names)
        if self.size.has_market:
            self.node.call("setestimates", ESTIMATES)
        if self.size.is_at_deadline:
            (factory,) = (await t.call(self.size.names[0], "factories"))["factories"]
            await t.mine(factory["exit_deadline_height"] - self.node.call("getblockcount") - 1)
        blocks.refill()
        await t.mine(1)

    async def _with_a_neighbour(self, t: Town) -> str:
        """Return a client that is not alone in its leaf."""
        leaves = {
            name: (await t.call(name, "exit_plan"))["steps"][-1]["txid"] for name in self.size.names
        }
        shared = Counter(leaves.values())
        return next(name for name, leaf in leaves.items() if shared[leaf] > 1)

    async def _give_coins(self, t: Town, blocks: FullBlocks, names: Sequence[str]) -> None:
        self.paying = set(names)
        for name in names:
            if name not in t.running:
                await t.start_client(name)
            address = (await t.call(name, "address"))["address"]
            tx = pay([blocks.coin()], (COIN_SAT, script_of_address(address, REGTEST)))
            self.node.call("sendrawtransaction", hex_of(tx))
        await t.mine(1, mempool=len(names))

    async def _leave(self, t: Town, blocks: FullBlocks) -> None:
        """Mine until all have left; once only who has no coin is there, blocks empty."""
        n_full = len(self.paying)
        for _ in range(BLOCKS_MAX):
            await self._settle()
            if len(self.left) < n_full:
                blocks.refill()
            elif self.size.has_market:
                self.node.call("setestimates", FALLEN)
            self.bumped.height = self.node.call("getblockcount") + 1
            await t.mine(1)
            await self._note_who_left(t)
            if len(self.left) == self.size.n_clients:
                return
        raise AssertionError(f"still leaving: {set(self.size.names) - self.left}")

    async def _settle(self) -> None:
        """Wait until nobody publishes anything more."""
        seen: set[str] | None = None
        since = time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            waiting = set(self.node.call("getrawmempool"))
            if waiting != seen:
                seen, since = waiting, time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    async def _note_who_left(self, t: Town) -> None:
        for name in self.size.names:
            if name not in self.left:
                status = await t.call(name, "exit_status")
                balance = await t.call(name, "wallet_balance")
                if status["next"].startswith("nothing") and balance["arriving_sat"] == 0:
                    self.left.add(name)

    async def _leaver(self, t: Town, name: str, plan: dict[str, Any]) -> Leaver:
        status = await t.call(name, "exit_status")
        (factory,) = (await t.call(name, "factories"))["factories"]
        coins = (await t.call(name, "wallet_coins"))["coins"]
        balance = await t.call(name, "wallet_balance")
        return Leaver(
            name=name,
            channel_outpoint=factory["channel_outpoint"],
            plan=plan,
            coin_sat=COIN_SAT if name in self.paying else 0,
            end_sat=balance["confirmed_sat"],
            children_sat=status["children_cost_sat"],
            coin_txids=frozenset(coin["outpoint"].partition(":")[0] for coin in coins),
        )
