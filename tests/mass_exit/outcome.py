"""What a mass exit cost, against what each had been told before."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, SAT_PER_KW_OF_SAT_PER_VB
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import Tx
from cromford.watch.children_cost import children_cost
from cromford.watch.exit_cost import COMMITMENT_NAME
from tests.mass_exit.published import Bumped, OnChain


@dataclass(frozen=True, kw_only=True)
class Leaver:
    """One client.

    Attributes:
        name: What it is called.
        channel_outpoint: Its channel's.
        plan: What `exit plan` said before.
        coin_sat: What it had in its wallet.
        end_sat: What it has in the end.
        children_sat: What its children cost it.
        coin_txids: Where its coins came from.
    """

    name: str
    channel_outpoint: str
    plan: Mapping[str, Any]
    coin_sat: int
    end_sat: int
    children_sat: int
    coin_txids: frozenset[str]

    @property
    def steps_told(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return what the plan said of the commitment, and of the sweep."""
        commitment, sweep = self.plan["channel"]["steps"]
        assert commitment["name"] == COMMITMENT_NAME
        return commitment, sweep

    @property
    def gone_sat(self) -> int:
        """Return what is missing of its coin, and of what the plan said would be left for it."""
        exit_sat: int = self.plan["channel"]["exit_sat"]
        return self.coin_sat + exit_sat - self.end_sat

    def children_told_sat(self, feerate_sat_per_vb: int) -> int:
        """Return what the plan said that children cost at a feerate."""
        for told in self.plan["fees_at"]:
            if told["feerate_sat_per_vb"] == feerate_sat_per_vb:
                children_sat: int = told["children_sat"]
                return children_sat
        raise AssertionError(f"no plan is made for {feerate_sat_per_vb} sat/vB")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All of them.

    Attributes:
        leavers: The clients.
        start_height: The tip when they began.
        most_sat_per_vb: What the plans have to be looked up for.
        on_chain: What came on chain.
        bumped: What the daemons said of children.
        seconds: How long it took.
    """

    leavers: tuple[Leaver, ...]
    start_height: int
    most_sat_per_vb: int
    on_chain: OnChain
    bumped: Bumped
    seconds: float

    @property
    def tree_told(self) -> dict[str, int]:
        """Return the sizes of the tree's transactions that the plans told, by txid."""
        steps = [step for leaver in self.leavers for step in leaver.plan["steps"]]
        return {step["txid"]: step["vsize"] for step in steps}

    @property
    def children_sat(self) -> int:
        """Return what all children on chain pay."""
        fees = self.bumped.fees
        return sum(
            fees[self.on_chain.parent_of(child).txid][child.txid]
            for child in self.on_chain.children
        )

    @property
    def paid_once_sat(self) -> int:
        """Return what children cost if each transaction is paid for once, at that feerate.

        But for the commitments of those who have no coin: nobody pays for these.
        """
        fees = {step["txid"]: step["fee_sat"] for one in self.leavers for step in one.plan["steps"]}
        tree = [FeeAndWeight(fees[str(tx.txid)], tx.weight) for tx in self.on_chain.tree]
        commitments = [
            FeeAndWeight(leaver.steps_told[0]["fee_sat"], self.commitment(leaver)[0].weight)
            for leaver in self.leavers
            if leaver.coin_sat
        ]
        return children_cost(
            [*tree, *commitments],
            feerate_sat_per_kw=self.most_sat_per_vb * SAT_PER_KW_OF_SAT_PER_VB,
            mempool_min_sat_per_kw=MIN_RELAY_SAT_PER_KW,
        ).fee_sat

    def commitment(self, leaver: Leaver) -> tuple[Tx, int]:
        """Return a client's commitment, and the height of its block."""
        (found,) = [
            (tx, height)
            for tx, height in self.on_chain.commitments.items()
            if str(tx.inputs[0].outpoint) == leaver.channel_outpoint
        ]
        return found

    def sweep(self, leaver: Leaver) -> tuple[Tx, int]:
        """Return what brought a client's balance into its wallet, likewise."""
        commitment, _ = self.commitment(leaver)
        (found,) = [
            (tx, height)
            for tx, height in self.on_chain.rest.items()
            if str(tx.txid) in leaver.coin_txids and tx.inputs[0].outpoint.txid == commitment.txid
        ]
        return found

    def blocks_of(self, leaver: Leaver) -> int:
        """Return how many blocks a client took down to its commitment."""
        return self.commitment(leaver)[1] - self.start_height

    def least_blocks_of(self, leaver: Leaver) -> int:
        """Return how many blocks that takes at least: one a transaction, and the delays."""
        delays: list[int] = [step["delay_blocks"] for step in leaver.plan["steps"]]
        return 1 + sum(max(1, delay) for delay in delays)

    def broken(self) -> Iterator[str]:
        """Yield what is not as it was told."""
        for leaver in self.leavers:
            yield from self._broken_plan(leaver)
        tree = {str(tx.txid): tx.vsize for tx in self.on_chain.tree}
        if tree != self.tree_told:
            yield f"the tree: {self.tree_told} were told, {tree} are on chain"
        for (txid, height), paid in self.bumped.paid.items():
            if len(paid) > 1:
                yield f"{txid}: {len(paid)} children out of coins at one height, {height}: {paid}"

    def _broken_plan(self, leaver: Leaver) -> Iterator[str]:
        seen = (self.commitment(leaver)[0], self.sweep(leaver)[0])
        for told, tx in zip(leaver.steps_told, seen, strict=True):
            if told["vsize"] != tx.vsize:
                yield f"{leaver.name}: {told['name']} of {told['vsize']} vB has {tx.vsize}"
        n_blocks, n_told = self.blocks_of(leaver), leaver.plan["exit_blocks"]
        if leaver.coin_sat and n_blocks > n_told:
            yield f"{leaver.name}: {n_blocks} blocks, {n_told} were told"
        told_sat = leaver.children_told_sat(self.most_sat_per_vb)
        if leaver.children_sat > told_sat:
            yield f"{leaver.name}: children cost {leaver.children_sat} sat, {told_sat} were told"
        # The plan knows today's price of a sweep, and not that of the day when it is due.
        _, sweep_told = leaver.steps_told
        dearer_sat = self.most_sat_per_vb * sweep_told["vsize"] - sweep_told["fee_sat"]
        if leaver.gone_sat > leaver.children_sat + dearer_sat:
            yield f"{leaver.name}: {leaver.gone_sat} sat gone, {leaver.children_sat} by children"

    def lines(self) -> Iterator[str]:
        """Yield the figures."""
        swept = [self.sweep(leaver) for leaver in self.leavers]
        told = [leaver.steps_told for leaver in self.leavers]
        yield _sizes("tree", self.on_chain.tree, sum(self.tree_told.values()))
        yield _sizes("commitments", self.on_chain.commitments, sum(one["vsize"] for one, _ in told))
        yield _sizes("sweeps", [tx for tx, _ in swept], sum(one["vsize"] for _, one in told))
        yield _sizes("children", self.on_chain.children)
        paying = [leaver for leaver in self.leavers if leaver.coin_sat]
        n_blocks = [self.blocks_of(leaver) for leaver in paying]
        yield (
            f"blocks: {min(n_blocks)} to {max(n_blocks)} until the commitment, "
            f"{max(leaver.plan['exit_blocks'] for leaver in paying)} told; "
            f"all is swept after {max(height for _, height in swept) - self.start_height}; "
            f"without a coin {[self.blocks_of(one) for one in self.leavers if not one.coin_sat]}"
        )
        fees = self.bumped.fees.values()
        yield (
            f"children: {self.children_sat:,} sat on chain, "
            f"{sum(sum(one.values()) for one in fees):,} with all that were replaced; "
            f"of one parent at most {max(len(one) for one in fees)}, "
            f"{max(sum(one.values()) for one in fees):,} sat together, "
            f"{max(self.bumped.n_paid.values())} out of coins; "
            f"{self.bumped.n_refused} came too late"
        )
        for leaver in self.leavers:
            yield (
                f"{leaver.name}: {self.blocks_of(leaver)} blocks, {leaver.gone_sat:,} sat, "
                f"of it children {leaver.children_sat:,}, told "
                f"{leaver.children_told_sat(self.most_sat_per_vb):,} "
                f"at {self.most_sat_per_vb} sat/vB"
            )
        yield f"{self.seconds:.0f} seconds"


def _sizes(name: str, txs: Iterable[Tx], told_vsize: int | None = None) -> str:
    sizes = [tx.vsize for tx in txs]
    told = "" if told_vsize is None else f", {told_vsize:,} told"
    return f"{name}: {len(sizes)} transactions, {sum(sizes):,} vB{told}"
