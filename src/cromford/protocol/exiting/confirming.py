"""What may be done so that what we publish of a channel confirms in time, and what it may cost.

One budget, half of what could be lost, is for all children of a way out; what children in blocks
have cost is gone from it. What hurries for a part of it is paid for out of that part.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from cromford import effects as fx
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.exit_path import ExitStep, exit_path
from cromford.factory.kinds import BLOCKS_PER_TX
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.in_hand import InHand
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.purses import Purses
from cromford.wallet.coins import Purse
from cromford.watch.bumping import Bumping, anchor_of, coin_needed_sat
from cromford.watch.feerates import OwnFees, fee_to_offer_sat, path_budget_sat
from cromford.watch.schedule import (
    MARGIN_BLOCKS,
    scheduled_budget_sat,
    scheduled_sat_per_kw,
    state_deadline_height,
    step_deadline_height,
)
from cromford.watch.sweep import HtlcInput, TakingTx, with_coins


def step_of_path(
    holding: InHand, chain: KnownChain, step: ExitStep, *, fees: OwnFees, is_leaving: bool
) -> fx.Broadcast:
    """Return how a step of the way out is published; it can be in the next block.

    Whoever does not leave pays only where an older state could come first.
    """
    steps = exit_path(holding.signed)
    later = steps[steps.index(step) + 1 :]
    first_height = _first_height(holding, chain, step.tx)
    hurries: list[_Hurry] = []
    if is_leaving:
        hurries += _hurries_of(
            holding,
            first_height=first_height,
            deadline_of=lambda end_height: step_deadline_height(later, end_height=end_height),
        )
    deadline_height = state_deadline_height(
        step,
        kickoff_height=_height_of(chain, step.tx),
        step_blocks=holding.terms.step_blocks,
    )
    if deadline_height is not None:
        hurries.append(
            _Hurry(
                deadline_height=deadline_height,
                first_height=first_height,
                amount_sat=holding.stake.amount_sat,
            )
        )
    if not hurries:
        return fx.Broadcast(name=step.name, tx=step.tx)
    bumping = _dearest(holding, chain, step.tx, hurries, fee_sat=step.fee_sat, fees=fees)
    return fx.Broadcast(name=step.name, tx=step.tx, bumping=bumping)


def of_commitment(holding: InHand, chain: KnownChain, tx: Tx, *, fees: OwnFees) -> Bumping:
    """Return what may be done for our commitment; a peer's in its place is as good."""
    paid_sat = sum(txout.amount_sat for txout in tx.outputs)
    return _dearest(
        holding,
        chain,
        tx,
        _hurries_of(
            holding,
            first_height=_first_height(holding, chain, tx),
            deadline_of=lambda end_height: end_height,
        ),
        fee_sat=holding.link.funding_on(chain).capacity_sat - paid_sat,
        fees=fees,
        gives_way=True,
    )


def of_spend(
    holding: InHand, chain: KnownChain, spend: TakingTx, *, fees: OwnFees
) -> Bumping | None:
    """Return what may be done for an HTLC transaction; None for what names its own fee.

    HTLC-success has to come before the peer may take it back; HTLC-timeout, where it pays for an
    HTLC of somebody else, so long before that one has to be left for that it is given back first.
    """
    one = spend.inputs[0]
    if not isinstance(one, HtlcInput):
        return None
    htlc = one.htlc_tx.htlc
    deadline_height: int | None = htlc.cltv_expiry - MARGIN_BLOCKS
    if one.htlc_tx.is_offered:
        is_forwarded = htlc.htlc_id in holding.stake.forwarded
        deadline_height = give_up_height(htlc.cltv_expiry) if is_forwarded else None
    hurry = _Hurry(
        deadline_height=deadline_height,
        first_height=_first_height(holding, chain, spend.tx),
        amount_sat=one.prevout.amount_sat,
    )
    return _bumping(holding, chain, spend.tx, hurry, fee_sat=spend.fee_sat, fees=fees)


def paid_for(spend: TakingTx, bumping: Bumping) -> TakingTx:
    """Return an HTLC transaction that pays nothing itself with coins that pay for it.

    As it is, where no coin is there, or they do not reach: a node refuses it, and says so.
    """
    if bumping.purse is None:
        return spend
    with_fee = with_coins(spend, bumping.purse, fee_sat=lambda vsize: _fee_sat(vsize, bumping))
    return with_fee or spend


def _fee_sat(vsize: int, bumping: Bumping) -> int | None:
    fees = bumping.fees
    return fee_to_offer_sat(
        fee_sat_of(vsize=vsize, feerate_sat_per_kw=bumping.wanted_sat_per_kw),
        least_sat=fee_sat_of(vsize=vsize, feerate_sat_per_kw=fees.mempool_min_sat_per_kw),
        budget_sat=bumping.budget_sat,
    )


def children_cost_sat(purses: Purses, chain: KnownChain) -> int:
    """Return what children in blocks have cost our coins.

    What a reorganisation undid has cost nothing, until it is in a block again.
    """
    return sum(
        max(purse.cost_sat, cost_in_blocks_sat(outpoint, purse, chain))
        for outpoint, purse in purses.items()
        if outpoint in chain.spends
    )


def cost_in_blocks_sat(outpoint: OutPoint, purse: Purse, chain: KnownChain) -> int:
    """Return what the children that spend coins of a purse, and are in blocks, have cost it.

    Also coins that went back to the wallet: what was published with them may confirm all the same.
    A coin that went elsewhere was no part of what the way out costs: an HTLC transaction, say,
    which spends what a commitment pays and not its anchor, has a purse of its own.

    Args:
        outpoint: What the purse is for.
        purse: The coins.
        chain: What is in blocks.
    """
    parent = chain.spends.get(outpoint)
    if parent is None:
        return 0
    anchor = anchor_of(parent)
    spent = {
        coin.outpoint: spender
        for coin in purse.ever_held
        if (spender := chain.spends.get(coin.outpoint)) is not None
        and (
            spender.txid == parent.txid or any(tx_in.outpoint == anchor for tx_in in spender.inputs)
        )
    }
    spent_sat = sum(coin.txout.amount_sat for coin in purse.ever_held if coin.outpoint in spent)
    children = {spender.txid: spender for spender in spent.values()}
    kept_sat = sum(
        txout.amount_sat
        for child in children.values()
        for txout in child.outputs
        if txout.script_pubkey == purse.change_script
    )
    return max(0, spent_sat - kept_sat)


def unspent_of(purse: Purse | None, chain: KnownChain) -> Purse | None:
    """Return a purse without coins that are spent in a block: no node takes a child of these."""
    if purse is None:
        return None
    coins = tuple(coin for coin in purse.coins if coin.outpoint not in chain.spends)
    return replace(purse, coins=coins)


def _bumping(
    holding: InHand,
    chain: KnownChain,
    tx: Tx,
    hurry: "_Hurry",
    *,
    fee_sat: int,
    fees: OwnFees,
    cost_sat: int = 0,
    gives_way: bool = False,
) -> Bumping:
    """Return what may be done for a transaction because of one hurry.

    `cost_sat` is what the same budget has paid for already.
    """
    return Bumping(
        fee_sat=fee_sat,
        feerate_sat_per_kw=scheduled_sat_per_kw(
            fees,
            deadline_height=hurry.deadline_height,
            first_height=hurry.first_height,
            height=chain.height,
        ),
        budget_sat=max(0, hurry.budget_sat(fees, chain.height) - cost_sat),
        fees=fees,
        purse=unspent_of(holding.purses.get(tx.inputs[0].outpoint), chain),
        spare_anchors=tuple(_spare_anchors(holding, chain)),
        gives_way=gives_way,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hurry:
    """Until when something has to be in a block, and what is lost if it is not; None for never."""

    deadline_height: int | None
    first_height: int
    amount_sat: int

    def budget_sat(self, fees: OwnFees, height: int) -> int:
        """Return what children of the whole way out may cost for this."""
        return scheduled_budget_sat(
            self.amount_sat, fees, deadline_height=self.deadline_height, height=height
        )


def _hurries_of(
    holding: InHand, *, first_height: int, deadline_of: Callable[[int], int]
) -> list[_Hurry]:
    """Return what a step of a way out hurries for: nothing, and each of what could be lost.

    It hurries from its share of blocks on: it could have begun long before, and is not the dearer
    for that.
    """
    hurries = [
        _Hurry(deadline_height=None, first_height=first_height, amount_sat=holding.stake.amount_sat)
    ]
    for risk in holding.stake.risks:
        deadline_height = deadline_of(risk.end_height)
        hurries.append(
            _Hurry(
                deadline_height=deadline_height,
                first_height=max(first_height, deadline_height - BLOCKS_PER_TX),
                amount_sat=risk.amount_sat,
            )
        )
    return hurries


def _dearest(
    holding: InHand,
    chain: KnownChain,
    tx: Tx,
    hurries: Iterable[_Hurry],
    *,
    fee_sat: int,
    fees: OwnFees,
    gives_way: bool = False,
) -> Bumping:
    """Return what most may be paid for, each hurry out of what is lost without it.

    So a small HTLC that is about to expire is not saved with what the balance could pay.
    """
    cost_sat = children_cost_sat(_purses_of_path(holding), chain)
    bumpings = [
        _bumping(
            holding,
            chain,
            tx,
            hurry,
            fee_sat=fee_sat,
            fees=fees,
            cost_sat=cost_sat,
            gives_way=gives_way,
        )
        for hurry in hurries
    ]
    return max(bumpings, key=lambda one: (coin_needed_sat(tx, one), one.feerate_sat_per_kw))


def budget_left_sat(holding: InHand, chain: KnownChain) -> int:
    """Return what children of a way out may still cost: what is left of half the stake."""
    budget_sat = path_budget_sat(holding.stake.amount_sat)
    return max(0, budget_sat - children_cost_sat(_purses_of_path(holding), chain))


def purses_of(holding: InHand, chain: KnownChain) -> Purses:
    """Return our coins for children on one way out, those for HTLCs of its channel included."""
    path = _outpoints_of_path(holding)
    spenders = {spender.txid for one in path if (spender := chain.spends.get(one)) is not None}
    return _only(
        holding.purses,
        {one for one in holding.purses if one in path or one.txid in spenders},
    )


def _purses_of_path(holding: InHand) -> Purses:
    return _only(holding.purses, _outpoints_of_path(holding))


def _outpoints_of_path(holding: InHand) -> set[OutPoint]:
    outpoints = {step.tx.inputs[0].outpoint for step in exit_path(holding.signed)}
    outpoints.update(funding.outpoint for funding in holding.link.fundings)
    return outpoints


def _only(purses: Purses, outpoints: set[OutPoint]) -> Purses:
    for outpoint in purses:
        if outpoint not in outpoints:
            purses = purses.delete(outpoint)
    return purses


def _spare_anchors(holding: InHand, chain: KnownChain) -> Iterator[OutPoint]:
    """Yield the anchors of the way out that are in blocks, as far as is known unspent."""
    for step in exit_path(holding.signed):
        anchor, is_known = anchor_of(step.tx), step.tx.txid in chain.confirmed
        if anchor is not None and is_known and anchor not in chain.spends:
            yield anchor


def _first_height(holding: InHand, chain: KnownChain, tx: Tx) -> int:
    """Return since when a transaction is published; the tip if it was not yet."""
    return holding.published.get(tx.inputs[0].outpoint, chain.height)


def _height_of(chain: KnownChain, tx: Tx) -> int:
    """Return where what a transaction spends confirmed; the tip if it did not."""
    return chain.confirmed.get(tx.inputs[0].outpoint.txid, chain.height)
