"""Gets a transaction into a block in time: asks the node what waits, and pays what is missing.

What is to be paid, and out of which coins, the role has decided. Whose child pays does not matter.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from cromford import effects as fx
from cromford.answers.exits import WaitingTransaction
from cromford.bitcoin.fees import sat_per_vb
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.ports import Chain, MempoolTx, TxRefused
from cromford.recent import Recent
from cromford.wallet.account import WalletPath
from cromford.watch.bumping import Bumping, ChildTx, Family, Rival, next_move

SHOWN_MAX: Final = 1_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a transaction of ours and its child paid together when the node was asked last.

    Attributes:
        name: The transaction's.
        txid: Likewise.
        wanted_sat_per_kw: What both should pay.
        package_sat_per_kw: What they pay; None if it does not wait in the node's mempool.
        child_txid: The child that waits there, whoever's.
        child_fee_sat: What it pays.
        is_ours: Whether we made it.
    """

    name: str
    txid: Txid
    wanted_sat_per_kw: int
    package_sat_per_kw: int | None = None
    child_txid: Txid | None = None
    child_fee_sat: int | None = None
    is_ours: bool = False

    def shown(self) -> WaitingTransaction:
        """Return it as plain data."""
        package = self.package_sat_per_kw
        return {
            "name": self.name,
            "txid": str(self.txid),
            "waits": package is not None,
            "wanted_sat_per_vb": sat_per_vb(self.wanted_sat_per_kw),
            "package_sat_per_vb": None if package is None else sat_per_vb(package),
            "child_txid": None if self.child_txid is None else str(self.child_txid),
            "child_fee_sat": self.child_fee_sat,
            "child_is_ours": self.is_ours,
        }


class Bumper:
    """Publishes transactions, with children where they pay too little.

    Args:
        chain: The node.
        sign: Signs the inputs of a child that are the wallet's.
        path_of: Returns the path of the wallet's key that a script pays; None of any other script.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        sign: Callable[[ChildTx], Tx],
        path_of: Callable[[bytes], WalletPath | None] = lambda _: None,
    ) -> None:
        self._chain = chain
        self._sign = sign
        self._path_of = path_of
        self._children: Recent[Txid, None] = Recent(SHOWN_MAX)  # Ours, that the node took.
        self._waiting: Recent[OutPoint, Waiting] = Recent(SHOWN_MAX)

    def waiting_at(self, outpoint: OutPoint) -> Waiting | None:
        """Return what was seen last of what we publish to spend an outpoint."""
        return self._waiting.get(outpoint)

    async def publish(self, asked: fx.Broadcast, bumping: Bumping) -> None:
        """Publish a transaction, with a child if what waits does not pay what is wanted.

        Raises:
            TxRefused: If the node takes neither the transaction nor its child with it.
            ChainUnavailable: If the node does not answer.
        """
        tx = asked.tx
        if await self._chain.coin(tx.inputs[0].outpoint) is None:
            await self._chain.broadcast(tx)  # It, or something else, is in a block: none is paid.
            return
        family = await self._family(asked, bumping)
        possible = await self._possible(bumping)
        if bumping.own_script:
            possible = possible.with_own_output(tx, self._path_of(bumping.own_script))
        move = next_move(tx, possible, family)
        if move is None:
            return
        if move.child is None:
            await self._chain.broadcast(tx)
        else:
            await self._publish_with(asked, family, move.child)
        await self._family(asked, bumping)

    async def _publish_with(self, asked: fx.Broadcast, family: Family, unsigned: ChildTx) -> None:
        child = self._sign(unsigned)
        try:
            if family.is_waiting:
                await self._chain.broadcast(child)
            else:
                await self._chain.broadcast_package([asked.tx, child])
        except TxRefused as refused:
            _log.warning(
                "child_refused name=%s child=%s reason=%s", asked.name, child.txid, refused.reason
            )
            if family.is_waiting:
                return  # What waits goes on waiting; asked again, the child pays more.
            try:
                await self._chain.broadcast(asked.tx)  # As it was signed, it may do.
            except TxRefused:
                raise refused from None
            return
        self._children.note(child.txid, None)
        _log.info(
            "tx_bumped name=%s txid=%s child=%s fee_sat=%d",
            asked.name,
            asked.tx.txid,
            child.txid,
            unsigned.fee_sat,
        )

    async def _family(self, asked: fx.Broadcast, bumping: Bumping) -> Family:
        """Return what the node's mempool has of a transaction; and keep it, to be shown."""
        tx, outpoint = asked.tx, asked.tx.inputs[0].outpoint
        seen = Waiting(name=asked.name, txid=tx.txid, wanted_sat_per_kw=bumping.wanted_sat_per_kw)
        spender = (await self._chain.spenders([outpoint])).get(outpoint)
        entry = None if spender is None else await self._chain.mempool_tx(spender)
        if entry is None:
            family = Family()
        elif spender != tx.txid:
            family = Family(rival=_rival(entry, spender))
        else:
            family = Family(is_waiting=True)
            seen = replace(seen, package_sat_per_kw=1000 * bumping.fee_sat // tx.weight)
            # BIP 431: an unconfirmed parent has one child.
            for txid in entry.children:
                child = await self._chain.mempool_tx(txid)
                if child is None:
                    continue
                family = Family(is_waiting=True, child=FeeAndWeight(child.fee_sat, child.weight))
                together_sat = bumping.fee_sat + child.fee_sat
                seen = replace(
                    seen,
                    package_sat_per_kw=1000 * together_sat // (tx.weight + child.weight),
                    child_txid=txid,
                    child_fee_sat=child.fee_sat,
                    is_ours=txid in self._children,
                )
        self._waiting.note(outpoint, seen)
        return family

    async def _possible(self, bumping: Bumping) -> Bumping:
        """Return what can be spent of what may be: a block, or somebody, may have taken some."""
        spare = [anchor for anchor in bumping.spare_anchors if await self._is_free(anchor)]
        purse = bumping.purse
        if purse is not None:
            coins = [one for one in purse.coins if await self._chain.coin(one.outpoint) is not None]
            purse = replace(purse, coins=tuple(coins))
        return replace(bumping, spare_anchors=tuple(spare), purse=purse)

    async def _is_free(self, anchor: OutPoint) -> bool:
        """Say whether an anchor is in a block, and nobody spends it."""
        if await self._chain.coin(anchor) is None:
            return False
        return not await self._chain.spenders([anchor])


def _rival(entry: MempoolTx, txid: Txid | None) -> Rival:
    return Rival(
        txid=txid,
        fee_sat=entry.replaced_fee_sat,
        family=FeeAndWeight(entry.package_fee_sat, entry.package_weight),
    )
