"""What one participant sees of the simulated chain: its own node, which has troubles of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cromford import effects as fx
from cromford.bitcoin.block import Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.daemon.freshness import LAG_BLOCKS_MAX, SILENCE_SECONDS_MAX
from cromford.ports import MempoolTx, RelayFeerates
from cromford.protocol.facts import FRESH, Facts
from tests.simulation.sim_chain import SimChain, SimRefused

FORGOTTEN_BLOCKS = 2  # How far a node goes back that rebuilds its chainstate.


class Trouble(Enum):
    """What can be wrong with a node."""

    STALLS = "stalls"  # it answers nothing
    LAGS = "lags"  # it has the headers, and not the blocks
    GOES_BACK = "goes back"  # it shows an ancestor of what it has shown
    REFUSES = "refuses"  # it takes no transaction


class Away(Exception):
    """The node does not answer."""


@dataclass
class SimEyes:
    """A node between a participant and the chain.

    Attributes:
        chain: The chain as the world has it.
        clock: Returns the world's time, in seconds.
        trouble: What is wrong with the node, if anything.
        heard_at: When it last answered.
        height: The last block that it shows; it does not move while the node stalls or lags.
        unanswered: For which coins it was asked and gave no answer.
        is_heard: Whether the process that asks has had an answer.
    """

    chain: SimChain
    clock: Callable[[], float] = lambda: 0.0
    trouble: Trouble | None = None
    height: int = -1
    heard_at: float = 0.0
    unanswered: list[fx.LookUpCoins] = field(default_factory=list)
    is_heard: bool = True

    def look(self) -> int:
        """Return the height of what it shows now."""
        self.is_heard = self.is_heard or self.trouble is not Trouble.STALLS
        if self.trouble in {None, Trouble.REFUSES}:
            self.height = self.chain.height
        return self.height

    def begin(self, trouble: Trouble) -> None:
        """Let something be wrong from now on."""
        self.look()
        self.heard_at = self.clock()
        self.trouble = trouble
        if trouble is Trouble.GOES_BACK:
            self.height = max(0, self.height - FORGOTTEN_BLOCKS)

    def forget(self) -> None:
        """Forget who asked: the process that did is no more."""
        self.unanswered.clear()
        self.is_heard = False

    def facts(self, own_height: int) -> Facts:
        """Return what the daemon would tell its role."""
        if not self.is_heard:
            return Facts(stale="the node has not answered since the start")
        if self.trouble is Trouble.STALLS:
            n_missed = self.chain.height - own_height
            # Blocks take no time in this world; ten minutes each, outside it.
            is_long = self.clock() - self.heard_at > SILENCE_SECONDS_MAX or n_missed > 0
            stale = "the node does not answer" if is_long else FRESH.stale
            return Facts(stale=stale, header_height=self.height)
        known_height = max(self.chain.height, own_height)
        lag_blocks = known_height - min(own_height, self.look())
        stale = "blocks are missing" if lag_blocks > LAG_BLOCKS_MAX else FRESH.stale
        return Facts(stale=stale, header_height=self.chain.height)

    @property
    def hides_blocks(self) -> bool:
        """Whether it stays without blocks whose headers it has."""
        return self.trouble in {Trouble.LAGS, Trouble.GOES_BACK}

    def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed, unspent output.

        Raises:
            Away: If the node does not answer.
        """
        return self._answering().coin(outpoint)

    def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        """Return what the mempool has of a transaction, or None.

        Raises:
            Away: If the node does not answer.
        """
        return self._answering().mempool_tx(txid)

    def spenders(self, outpoints: Sequence[OutPoint]) -> dict[OutPoint, Txid]:
        """Return by what in the mempool each is spent, where one is.

        Raises:
            Away: If the node does not answer.
        """
        return self._answering().spenders(outpoints)

    def relay_feerates(self) -> RelayFeerates:
        """Return what the node asks for.

        Raises:
            Away: If the node does not answer.
        """
        return self._answering().relay

    def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        """Return what the node estimates, or None.

        Raises:
            Away: If the node does not answer.
        """
        return self._answering().estimate_sat_per_kw(target_blocks)

    def broadcast(self, tx: Tx) -> None:
        """Take a transaction into the mempool.

        Raises:
            Away: If the node does not answer.
            SimRefused: If it does not take it.
        """
        self._taking().broadcast(tx)

    def broadcast_package(self, parent: Tx, child: Tx) -> None:
        """Take a parent and its child, which pays for both.

        Raises:
            Away: If the node does not answer.
            SimRefused: If it does not take them.
        """
        self._taking().broadcast_package(parent, child)

    def _answering(self) -> SimChain:
        if self.trouble is Trouble.STALLS:
            raise Away
        return self.chain

    def _taking(self) -> SimChain:
        chain = self._answering()
        if self.trouble is Trouble.REFUSES:
            raise SimRefused("mempool min fee not met")
        return chain
