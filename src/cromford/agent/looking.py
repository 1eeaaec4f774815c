"""Ask a node how far a package's path is on chain, and hand it what is published next.

A node without an index does not tell where a transaction is, but which outputs are unspent. That is
enough, so nothing is remembered of the chain and no block is read: a restart, or a reorganisation,
is one look.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.daemon.bumping import Bumper
from cromford.daemon.own_fees import asked_again
from cromford.factory.exit_path import ExitStep
from cromford.ports import Chain, Coin, TxRefused
from cromford.watch.bumping import Bumping, anchor_of
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees
from cromford.watch.package import ExitPackage
from cromford.watch.package_progress import PathPlace, TakeApart, place_of, poisons_due
from cromford.watch.package_reading import check_funding

POISON: Final = "poison"  # What the log calls one.

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Where a package's path is, after the block at `height`; None if nothing of it was found.

    `poisoned` says what is due of a state that was replaced, if one is on chain.
    """

    height: int
    place: PathPlace | None
    poisoned: TakeApart | None = None


async def look(chain: Chain, package: ExitPackage) -> Sight:
    """Return where a package's path is, as of one block.

    Raises:
        InvalidPackage: If the funding's output is not what the package says it is.
        ChainUnavailable: If the node does not answer.
    """
    while True:
        tip = (await chain.status()).tip
        coins = await _coins(chain, package)
        poisoned = None if coins else poisons_due(package, await _poison_coins(chain, package))
        if (await chain.status()).tip == tip:
            place = place_of(package, coins, tip_height=tip.height)
            return Sight(height=tip.height, place=place, poisoned=poisoned)


async def _coins(chain: Chain, package: ExitPackage) -> dict[OutPoint, Coin]:
    """Return the first output that is unspent: of the path, of its end, of the leaf."""
    ends = [] if package.commitment is None else [*package.commitment.outpoints]
    for outpoint in (*package.path_outpoints, *ends, *package.txs[-1].outpoints):
        coin = await chain.coin(outpoint)
        if coin is not None:
            if outpoint == package.funding_outpoint:
                check_funding(package, coin.txout)
            return {outpoint: coin}
    return {}


async def _poison_coins(chain: Chain, package: ExitPackage) -> dict[OutPoint, Coin]:
    """Return the unspent outputs that poisons spend or pay."""
    coins: dict[OutPoint, Coin] = {}
    for tx in package.poisons:
        for outpoint in (tx.inputs[0].outpoint, *tx.outpoints):
            coin = await chain.coin(outpoint)
            if coin is not None:
                coins[outpoint] = coin
    return coins


async def publish_poisons(chain: Chain, poisons: Sequence[Tx]) -> str | None:
    """Hand poisons to the node; return its word if one is refused.

    They pay what was agreed. Only those whom they pay could pay more, by a child of that output.

    Raises:
        ChainUnavailable: If the node does not answer.
    """
    reason = None
    for tx in poisons:
        try:
            await chain.broadcast(tx)
        except TxRefused as refused:
            _log.warning("tx_refused name=%s txid=%s reason=%s", POISON, tx.txid, refused.reason)
            reason = refused.reason
        else:
            _log.info("tx_broadcast name=%s txid=%s", POISON, tx.txid)
    return reason


async def publish(chain: Chain, package: ExitPackage, step: ExitStep) -> str | None:
    """Hand a transaction of a package to the node; return its word if it is refused.

    Where it pays too little, its anchor, and those of its path that are on chain, pay for it: they
    are anybody's, and nothing else is.

    Raises:
        ChainUnavailable: If the node does not answer.
    """
    fees = await asked_again(chain, OwnFees())
    anchors = (anchor_of(tx) for tx in package.txs if tx.txid != step.tx.txid)
    bumping = Bumping(
        fee_sat=step.fee_sat,
        feerate_sat_per_kw=fees.within(SWEEP_BLOCKS),
        budget_sat=0,
        fees=fees,
        spare_anchors=tuple(anchor for anchor in anchors if anchor is not None),
    )
    try:
        await Bumper(chain, sign=lambda child: child.tx).publish(
            fx.Broadcast(name=step.name, tx=step.tx), bumping
        )
    except TxRefused as refused:
        _log.warning(
            "tx_refused name=%s txid=%s reason=%s", step.name, step.tx.txid, refused.reason
        )
        return refused.reason
    _log.info("tx_broadcast name=%s txid=%s", step.name, step.tx.txid)
    return None
