"""The effects that need the node: coins and their spenders looked up, transactions published.

Each is a task. A node that is busy or away has not said anything: a coin it did not tell of is not
a coin that does not exist, and a transaction it did not hear is published once it is back.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.daemon.bumping import Bumper
from cromford.daemon.refusals import Refusals
from cromford.ports import Chain, ChainUnavailable, Coin, TxRefused
from cromford.protocol import events as ev
from cromford.protocol.journal.exit_records import ExitPaused
from cromford.protocol.journal.records import AnyRecord, BlockConnected
from cromford.protocol.journal.scan_records import Scanned
from cromford.protocol.journal.spending_records import SpendingAbandoned, SpendingWasSigned
from cromford.recent import Recent
from cromford.wallet.account import WalletPath
from cromford.watch.bumping import ChildTx

RETRY_SECONDS: Final = 1.0
# How often coins are asked for again that our node does not have: of a block that others saw first.
LAGS_MAX: Final = 5
TAKEN_KEPT_MAX: Final = 10_000
PAYS_TOO_LITTLE: Final = "insufficient fee"  # Core's word for less than what it would replace.

_log = logging.getLogger(__name__)


class ChainEffects:
    """Performs them. What comes of an effect is posted as an event.

    Args:
        chain: The node.
        post: Takes an event.
        spawn: Runs a task of the daemon.
        height: Returns the height of the role's tip.
        is_pending: Says whether a client still waits for a deadline.
        sign: Signs the inputs of a child that are the wallet's.
        path_of: Returns the path of the wallet's key that a script pays; None of any other script.
        retry_seconds: The pause before a node that did not answer is asked again.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        post: Callable[[ev.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        height: Callable[[], int],
        is_pending: Callable[[fx.Deadline], bool],
        sign: Callable[[ChildTx], Tx],
        path_of: Callable[[bytes], WalletPath | None] = lambda _: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._chain = chain
        self._post = post
        self._spawn = spawn
        self._height = height
        self._is_pending = is_pending
        self._retry_seconds = retry_seconds
        self._unheard: dict[Txid, fx.Broadcast | fx.PublishBumped] = {}
        self._unanswered: fx.LookUpSpenders | None = None  # The newest says all that is due.
        self._asking: Counter[Txid] = Counter()
        self._given_up: set[Txid] = set()  # while the node is asked
        self._taken: Recent[Txid, None] = Recent(TAKEN_KEPT_MAX)  # Of what is signed anew.
        self._is_ready = False
        self.refusals = Refusals()
        self.bumper = Bumper(chain, sign=sign, path_of=path_of)

    def look_up(self, asked: fx.LookUpCoins) -> None:
        """Ask for coins, and answer once the node has; nobody is answered after the deadline."""
        self._spawn(self._look_up(asked))

    def look_up_spenders(self, asked: fx.LookUpSpenders) -> None:
        """Ask what spends outputs in the mempool, as soon as there is a node to ask."""
        if self._is_ready:
            self._spawn(self._look_up_spenders(asked))
        else:
            self._unanswered = asked

    def broadcast(self, asked: fx.Broadcast) -> None:
        """Publish a transaction, as soon as there is a node to tell."""
        if self._is_ready:
            self._asking[asked.tx.txid] += 1
            self._spawn(self._broadcast(asked))
        else:
            self._unheard[asked.tx.txid] = asked

    def publish_bumped(self, asked: fx.PublishBumped) -> None:
        """Publish a funding and the child that pays for it, as soon as there is a node to tell."""
        if self._is_ready:
            self._spawn(self._publish_bumped(asked))
        else:
            self._unheard[asked.child.txid] = asked

    def node_answers(self) -> None:
        """Take note that the node is there, and is ours: publish what it has not heard."""
        self._is_ready = True
        unanswered, self._unanswered = self._unanswered, None
        if unanswered is not None:
            self.look_up_spenders(unanswered)
        unheard, self._unheard = self._unheard, {}
        for asked in unheard.values():
            if isinstance(asked, fx.PublishBumped):
                self.publish_bumped(asked)
            else:
                self.broadcast(asked)

    def observe(self, record: AnyRecord) -> None:
        """Take note of what confirmed, or was given up: it is refused no more."""
        given_up = _given_up_by(record)
        if given_up:
            txid = Txid(given_up)
            self._unheard.pop(txid, None)
            self.refusals.ended((txid,))
            if self._asking[txid]:
                self._given_up.add(txid)
        if isinstance(record, ExitPaused):
            self._unheard.clear()  # What is owed all the same is asked for again by each block.
        if isinstance(record, BlockConnected | Scanned) and len(self.refusals):
            self.refusals.decided(Tx.parse(data) for data in _txs_of(record))
            self.refusals.forget_untried(height=record.height)

    async def _look_up(self, asked: fx.LookUpCoins) -> None:
        coins: list[tuple[OutPoint, Coin | None]] = []
        n_lags = 0
        for outpoint in asked.outpoints:
            while True:
                try:
                    coin = await self._chain.coin(outpoint)
                except ChainUnavailable as error:
                    _log.warning("coin_lookup_failed outpoint=%s reason=%s", outpoint, error)
                else:
                    if coin is not None or n_lags >= LAGS_MAX:
                        coins.append((outpoint, coin))
                        break
                    n_lags += 1
                await asyncio.sleep(self._retry_seconds)
                if not self._is_pending(fx.AttemptDeadline(attempt_id=asked.attempt_id)):
                    # The attempt is over, and nothing was said about its coins.
                    _log.warning("coins_unknown attempt=%s", asked.attempt_id.hex())
                    return
        self._post(ev.CoinsLookedUp(asked=asked, coins=tuple(coins)))

    async def _look_up_spenders(self, asked: fx.LookUpSpenders) -> None:
        try:
            spenders = await self._chain.spenders(asked.outpoints)
        except ChainUnavailable as error:
            self._unanswered = self._unanswered or asked
            _log.warning("spenders_unknown n=%d reason=%s", len(asked.outpoints), error)
            return
        self._post(ev.SpendersLookedUp(asked=asked, spenders=tuple(spenders.items())))

    async def _broadcast(self, asked: fx.Broadcast) -> None:
        txid = asked.tx.txid
        try:
            await self._ask_to_take(asked)
        finally:
            self._asking[txid] -= 1
            if not self._asking[txid]:
                del self._asking[txid]
                self._given_up.discard(txid)

    async def _publish_bumped(self, asked: fx.PublishBumped) -> None:
        name, child = asked.name, asked.child
        try:
            await self._chain.broadcast_package((asked.funding, child))
        except TxRefused as refused:
            if self.refusals.refused(name, child, refused.reason, height=self._height()):
                _log.warning(
                    "tx_refused name=%s txid=%s reason=%s", name, child.txid, refused.reason
                )
            whose = fx.Broadcast(name=name, tx=child, stream=asked.stream)
            self._post(ev.BroadcastRefused(asked=whose, reason=refused.reason))
        except ChainUnavailable as error:
            self._unheard[child.txid] = asked
            _log.warning("broadcast_failed name=%s txid=%s reason=%s", name, child.txid, error)
        else:
            self.refusals.decided((asked.funding, child))
            _log.info("tx_broadcast name=%s txid=%s", name, child.txid)

    async def _ask_to_take(self, asked: fx.Broadcast) -> None:
        name, tx = asked.name, asked.tx
        try:
            if asked.bumping is None:
                await self._chain.broadcast(tx)
            else:
                await self.bumper.publish(asked, asked.bumping)
        except TxRefused as refused:
            if tx.txid in self._given_up:
                return  # It was given up while the node was asked: nobody is refused anything.
            is_too_little = asked.replaces and refused.reason.startswith(PAYS_TOO_LITTLE)
            if is_too_little and await self._is_only_rivalled_by_us(tx):
                _log.debug("tx_waits name=%s txid=%s reason=%s", name, tx.txid, refused.reason)
                return
            is_news = self.refusals.refused(name, tx, refused.reason, height=self._height())
            if is_news:
                _log.warning("tx_refused name=%s txid=%s reason=%s", name, tx.txid, refused.reason)
            if is_news or not asked.replaces:  # Signed anew for each block, it has many names.
                self._post(ev.BroadcastRefused(asked=asked, reason=refused.reason))
        except ChainUnavailable as error:
            if tx.txid not in self._given_up:
                self._unheard[tx.txid] = asked
            _log.warning("broadcast_failed name=%s txid=%s reason=%s", name, tx.txid, error)
        else:
            self.refusals.decided((tx,))
            if asked.replaces:
                self._taken.note(tx.txid, None)
            _log.info("tx_broadcast name=%s txid=%s", name, tx.txid)

    async def _is_only_rivalled_by_us(self, tx: Tx) -> bool:
        """Say whether what waits for the coins of a transaction is what we published before."""
        try:
            spenders = await self._chain.spenders([tx_in.outpoint for tx_in in tx.inputs])
        except ChainUnavailable:
            return False  # What is not known is shown.
        return all(txid in self._taken for txid in spenders.values())


def _txs_of(record: BlockConnected | Scanned) -> Iterable[bytes]:
    """Return the transactions of ours in a block that a client, or an LSP, has read."""
    if isinstance(record, BlockConnected):
        return record.txs
    return (data for finding in record.found for data in finding.txs)


def _given_up_by(record: AnyRecord) -> bytes:
    """Return the txid of the payment that a record ends; empty if it ends none."""
    match record:
        case SpendingAbandoned(txid=txid):
            return txid
        case SpendingWasSigned(replaces=replaced):
            return replaced
        case _:
            return b""
