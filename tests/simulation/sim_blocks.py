"""What participants see of the chain, each through a node of its own, and what they publish."""

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from cromford import effects as fx
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.chain_effects import ChainEffects
from cromford.daemon.own_fees import asked_again
from cromford.daemon.signing import sign_child
from cromford.ports import RelayFeerates
from cromford.protocol import events as ev
from cromford.protocol.journal.streams import CLIENT
from cromford.wallet.account import CHANGE, RECEIVE, WalletPath
from cromford.watch.bumping import ChildTx
from tests.simulation.fates import Fates, Hazard
from tests.simulation.life_node import LifeNode
from tests.simulation.sim_chain import FREE_RELAY, SimChain, SimRefused
from tests.simulation.sim_eyes import Away, SimEyes, Trouble
from tests.simulation.sim_port import SimPort, at_once

REORG_BLOCKS_MAX: Final = 4  # Below the depth at which a role believes the chain.
TROUBLE_BLOCKS_MAX: Final = 3  # Below a step, and enough for a chain to be stale.
TROUBLE_END_RATE: Final = 0.4  # Of a node's trouble, at each block.
FORGETTING_RATE: Final = 0.5  # Of reorganisations after which nothing waits.
HEARD_LATE_RATE: Final = 0.2  # Of candidates, whose replacement has not reached whoever mines.
FUNDING: Final = "funding"
MARKETS_SAT_PER_KW: Final = (0, 0, 250, 1_000, 2_500)
N_SCRIPTS: Final = 60  # Of a wallet, on each of its two chains.


class Around(Protocol):
    """What blocks need of a world."""

    def handle(self, node: LifeNode, event: ev.Event) -> None:
        """Let a node handle an event."""

    def is_set(self, node: LifeNode, stream: str, deadline: fx.Deadline) -> bool:
        """Say whether a deadline is."""


class SimBlocks:
    """The chain of a world, and everybody's node.

    Args:
        fates: What goes wrong.
        around: The world.
        clock: Returns its time, in seconds.
        hears_late: Whether blocks may have another candidate of a funding than the newest.
    """

    def __init__(
        self, fates: Fates, around: Around, clock: Callable[[], float], *, hears_late: bool = False
    ) -> None:
        self.fates = fates
        self.hears_late = hears_late
        self.around = around
        self.clock = clock
        self.chain = SimChain()
        self.eyes: dict[str, SimEyes] = {}
        self.hands: dict[str, ChainEffects] = {}
        self.first_height = 0  # Below it nothing is replaced: coins come from nowhere there.
        self._told_fresh: set[str] = set()  # Whose roles know that their chain is fresh.
        self._scripts: dict[bytes, WalletPath] = {}
        self._posted: list[ev.Event] = []
        self._fundings: dict[Txid, Tx] = {}  # All that were ever published.

    def open_eyes(self, name: str) -> SimEyes:
        """Give somebody a node that has said nothing yet."""
        self.eyes[name] = SimEyes(self.chain, clock=self.clock, is_heard=False)
        return self.eyes[name]

    def begin(self, node: LifeNode) -> None:
        """Let a process begin: it has asked its node nothing yet."""
        self._told_fresh.discard(node.name)
        self.eyes[node.name].forget()
        self.hands[node.name] = ChainEffects(
            SimPort(self.eyes[node.name]),
            post=self._post,
            spawn=_at_once,
            height=lambda: int(node.state.chain.height),
            is_pending=lambda deadline: self.around.is_set(node, CLIENT, deadline),
            sign=partial(_sign_child, node),
            path_of=partial(self._path_of, node),
        )

    def _path_of(self, node: LifeNode, script: bytes) -> WalletPath | None:
        if script not in self._scripts:
            account = node.state.wallet.account
            for change in (RECEIVE, CHANGE):
                for index in range(N_SCRIPTS):
                    path = WalletPath(change=change, index=index)
                    self._scripts[account.script(path)] = path
        return self._scripts.get(script)

    # What is found

    def mine(self) -> None:
        """Find a block, or find that others were found instead of the last ones."""
        self.brew()
        depth = min(REORG_BLOCKS_MAX, self.chain.height - self.first_height)
        if depth > 0 and self.fates.strikes(Hazard.REORGS):
            dice = self.fates.dice("reorganisation")
            n_blocks = dice.randint(1, depth)
            self.chain.remove_tip(n_blocks)
            if dice.random() < FORGETTING_RATE:
                self.chain.mempool.clear()
            for _ in range(n_blocks):
                self.chain.mine()
        if self.hears_late and not self.fates.is_calm:
            self._hear_late()
        self.chain.mine()

    def _hear_late(self) -> None:
        """Let whoever finds the next block know another candidate of a funding than the others."""
        dice = self.fates.dice("heard late")
        for tx in self._fundings.values():
            if tx.txid not in self.chain.mempool and dice.random() < HEARD_LATE_RATE:
                with contextlib.suppress(SimRefused):
                    self.chain.hear_first(tx)

    def brew(self) -> None:
        """Let troubles of nodes begin and end, and feerates rise and fall."""
        if self.fates.strikes(Hazard.FEES):
            self._price(self.fates.dice("feerates").choice(MARKETS_SAT_PER_KW))
        if not self.fates.has(Hazard.TROUBLES):
            return
        dice = self.fates.dice("trouble")
        for eyes in self.eyes.values():
            if eyes.trouble is None:
                if self.fates.strikes(Hazard.TROUBLES):
                    eyes.begin(dice.choice(tuple(Trouble)))
            elif dice.random() < TROUBLE_END_RATE or self._is_long(eyes):
                eyes.trouble = None

    def _is_long(self, eyes: SimEyes) -> bool:
        """Say whether a node was in trouble for so long that a race might be lost for it."""
        return self.chain.height - eyes.height >= TROUBLE_BLOCKS_MAX

    def _price(self, sat_per_kw: int) -> None:
        """Let strangers pay so much for blocks, and nodes ask for a half of it."""
        self.chain.floor_sat_per_kw = sat_per_kw
        self.chain.estimates = dict.fromkeys((2, 6, 36), sat_per_kw) if sat_per_kw else {}
        least_sat_per_kw = max(25, sat_per_kw // 2)
        self.chain.ask_for(
            RelayFeerates(
                mempool_min_sat_per_kw=least_sat_per_kw,
                min_relay_sat_per_kw=25,
                incremental_sat_per_kw=25,
            )
        )

    def calm(self) -> None:
        """Let every node be well, and blocks cost nothing."""
        for eyes in self.eyes.values():
            eyes.trouble = None
        self.chain.floor_sat_per_kw = 0
        self.chain.estimates = {}
        self.chain.ask_for(FREE_RELAY)

    # What is seen

    def sync(self, node: LifeNode) -> None:
        """Let somebody see the blocks that its node shows, as a daemon does that follows it."""
        if node.driver is None:
            return
        eyes = self.eyes[node.name]
        height = eyes.look()
        if eyes.trouble is not Trouble.STALLS:
            self.hands[node.name].node_answers()
            self._take(node)
        if eyes.trouble in {None, Trouble.REFUSES}:
            while node.driver is not None and not self._is_on_chain(node):
                self.around.handle(node, ev.BlockRemoved(height=node.state.chain.height))
        while node.driver is not None and node.state.chain.height < height:
            if not self._is_on_chain(node):
                break
            self._show(node, node.state.chain.height + 1)
        if node.driver is not None:
            self._tell(node)
            self._answer(node)

    def _show(self, node: LifeNode, height: int) -> None:
        node.fees = at_once(asked_again(SimPort(self.eyes[node.name]), node.fees))
        block_hash, txs = self.chain.blocks[height]
        relevant = node.relevant(txs)
        self.around.handle(node, ev.BlockAdded(height=height, block_hash=block_hash, txs=relevant))

    def _is_on_chain(self, node: LifeNode) -> bool:
        recent = node.state.chain.recent
        if not recent:
            return True
        height = recent[-1].height
        is_there = height <= self.chain.height
        return is_there and bool(self.chain.blocks[height][0] == recent[-1].block_hash)

    def note_facts(self, node: LifeNode) -> None:
        """Take note of what a role knows before it decides: that its chain is not fresh."""
        if not node.facts.is_fresh:
            self._told_fresh.discard(node.name)

    def _tell(self, node: LifeNode) -> None:
        """Let a role know that its chain is fresh again, or of blocks that do not come."""
        is_fresh = node.facts.is_fresh
        if is_fresh and node.name not in self._told_fresh:
            self._told_fresh.add(node.name)
            self.around.handle(node, ev.FactsChanged())
        elif not is_fresh and self.eyes[node.name].hides_blocks:
            self.around.handle(node, ev.FactsChanged())

    def _answer(self, node: LifeNode) -> None:
        """Let a node that is well again answer what it was asked of coins."""
        eyes = self.eyes[node.name]
        unanswered, eyes.unanswered = eyes.unanswered, []
        for asked in unanswered:
            # Nobody waits for the coins of an attempt that is over.
            deadline = fx.AttemptDeadline(attempt_id=asked.attempt_id)
            if self.around.is_set(node, CLIENT, deadline):
                for event in self.look_up(node, asked):
                    self.around.handle(node, event)

    # What is asked, and published

    def look_up(self, node: LifeNode, asked: fx.LookUpCoins) -> Iterable[ev.Event]:
        """Return which of these coins there are, if the node answers; else it does later."""
        eyes = self.eyes[node.name]
        try:
            coins = tuple((outpoint, eyes.coin(outpoint)) for outpoint in asked.outpoints)
        except Away:
            eyes.unanswered.append(asked)
            return ()
        return (ev.CoinsLookedUp(asked=asked, coins=coins),)

    def look_up_spenders(self, node: LifeNode, asked: fx.LookUpSpenders) -> Iterable[ev.Event]:
        """Return what spends these outputs in the mempool, if the node answers."""
        self.hands[node.name].look_up_spenders(asked)
        return self._posted_now()

    def broadcast(self, node: LifeNode, asked: fx.Broadcast) -> Iterable[ev.Event]:
        """Publish a transaction, and return what comes of it."""
        if asked.name == FUNDING:
            self._fundings[asked.tx.txid] = asked.tx
        self.hands[node.name].broadcast(asked)
        return self._posted_now()

    def publish_bumped(self, node: LifeNode, asked: fx.PublishBumped) -> Iterable[ev.Event]:
        """Publish a funding and its child, and return what comes of it."""
        self._fundings[asked.funding.txid] = asked.funding
        self.hands[node.name].publish_bumped(asked)
        return self._posted_now()

    def publish_late(self, tx: Tx) -> None:
        """Publish what a process publishes that stood still: it hears no answer."""
        with contextlib.suppress(SimRefused):
            self.chain.broadcast(tx)

    def _post(self, event: ev.Event) -> None:
        self._posted.append(event)

    def _take(self, node: LifeNode) -> None:
        for event in self._posted_now():
            self.around.handle(node, event)

    def _posted_now(self) -> Sequence[ev.Event]:
        posted, self._posted = self._posted, []
        return posted


def _at_once(work: Coroutine[Any, Any, None]) -> None:
    at_once(work)


def _sign_child(node: LifeNode, child: ChildTx) -> Any:
    assert node.signer is not None
    return sign_child(node.signer, child)
