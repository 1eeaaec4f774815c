"""Keys that clients hand over, between the wire, the signer and the file: never an event.

A message with secrets is taken here, before anything is decided about it: the signer keeps the
secrets, and the decision hears which keys they are.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from cromford import effects as fx
from cromford.daemon.backup.said import reason_of
from cromford.factory.close import check_is_close
from cromford.ports import KeyStore
from cromford.protocol import events as ev
from cromford.signing.handed_over import KeysUnusable, SealedKeys
from cromford.signing.nonces import NonceFault, NoPoolFree, PublicPool
from cromford.signing.signer import Signer
from cromford.wire.messages import KeyHandover, Message

HandoverEffect = fx.KeepKeys | fx.DropOffered | fx.LookUpKeys | fx.PrepareSeats | fx.SignForSeats
LOST: Final = "not there any more"
_log = logging.getLogger(__name__)


def key_message(signer: Signer, effect: fx.HandOverKeys) -> fx.Send:
    """Return what gives two of our keys away. It is sent at once, and goes nowhere else."""
    factory_secret, funding_secret = signer.hand_over(effect.factory, effect.channel)
    message = KeyHandover(
        attempt_id=effect.attempt_id, factory_secret=factory_secret, funding_secret=funding_secret
    )
    return fx.Send(node_id=effect.node_id, message=message)


def heard(signer: Signer, node_id: bytes, message: Message) -> ev.Event:
    """Return the event of a message; of one with secrets, the one without."""
    if not isinstance(message, KeyHandover):
        return ev.MessageReceived(node_id=node_id, message=message)
    offered = signer.offer(
        factory_secret=message.factory_secret, funding_secret=message.funding_secret
    )
    return ev.KeysOffered(node_id=node_id, attempt_id=message.attempt_id, offered=offered)


class HandedOver:
    """Performs what is asked about keys of clients that moved out.

    Args:
        signer: Holds keys, and signs.
        store: Holds them sealed.
        put: Writes to the store, and then tells of the outcome; None to write at once, and wait.
    """

    def __init__(
        self,
        signer: Signer,
        store: KeyStore,
        put: Callable[[fx.KeepKeys, SealedKeys], None] | None = None,
    ) -> None:
        self._signer = signer
        self._store = store
        self._put = put

    def perform(self, effect: HandoverEffect) -> tuple[ev.Event, ...]:
        """Perform one effect and return the events that answer it at once."""
        match effect:
            case fx.KeepKeys():
                return self._keep(effect)
            case fx.DropOffered(offered=offered):
                self._signer.drop_offered(offered)
                return ()
            case fx.LookUpKeys():
                return (ev.KeysLookedUp(asked=effect, problem=self._problem_of(effect)),)
            case fx.PrepareSeats():
                return (self._prepare(effect),)
            case fx.SignForSeats():
                return (self._sign(effect),)

    def _keep(self, effect: fx.KeepKeys) -> tuple[ev.Event, ...]:
        attempt, client = effect.attempt, effect.client
        try:
            sealed = self._signer.seal_offered(effect.offered, attempt=attempt, client=client)
        except KeysUnusable as error:
            return (ev.KeysNotKept(asked=effect, reason=str(error)),)
        if self._put is not None:
            self._put(effect, sealed)
            return ()
        self._store.put(sealed)
        return (ev.KeysKept(asked=effect),)

    def _problem_of(self, effect: fx.LookUpKeys) -> str:
        stored = self._store.get(attempt=effect.attempt, client=effect.client)
        if stored is None:
            return LOST
        try:
            self._signer.check_stored(stored, effect.offered)
        except KeysUnusable as error:
            return str(error)
        return ""

    def _prepare(self, effect: fx.PrepareSeats) -> ev.SeatsPrepared | ev.SeatsLacking:
        pools: list[PublicPool] = []
        problems: list[tuple[int, str]] = []
        try:
            for seat in effect.seats:
                try:
                    pools.append(self._pool_of(seat, effect.pool_size))
                except KeysUnusable as error:
                    problems.append((seat.name.client, str(error)))
        except NoPoolFree:
            self._drop(pools)
            return ev.SeatsLacking(asked=effect, problems=())
        if problems:
            self._drop(pools)
            return ev.SeatsLacking(asked=effect, problems=tuple(problems))
        return ev.SeatsPrepared(asked=effect, pools=tuple(pools))

    def _pool_of(self, seat: fx.SeatKey, size: int) -> PublicPool:
        stored = self._store.get(attempt=seat.name.attempt, client=seat.name.client)
        if stored is None:
            raise KeysUnusable(LOST)
        return self._signer.make_pool_for(seat.name, stored, seat.pubkey, size)

    def _drop(self, pools: list[PublicPool]) -> None:
        for pool in pools:
            self._signer.drop_pool(pool.pool_id)

    def _sign(self, effect: fx.SignForSeats) -> ev.SeatsSigned | ev.SeatsFailed:
        try:
            partial_sigs = tuple(
                tuple(self._signed_by(effect, pool_id)) for pool_id in effect.pool_ids
            )
        except (NonceFault, ValueError) as error:
            return ev.SeatsFailed(asked=effect, reason=str(error))
        return ev.SeatsSigned(asked=effect, partial_sigs=partial_sigs)

    def _signed_by(self, effect: fx.SignForSeats, pool_id: bytes) -> Iterator[bytes]:
        for index, (tx, aggnonce) in enumerate(zip(effect.txs, effect.aggnonces, strict=True)):
            check_is_close(effect.scope, tx)
            task = effect.scope.task(tx)
            yield self._signer.partial_sign_for(pool_id, index, task, aggnonce)


class KeyWriting:
    """Writes keys beside the loop, and tells what became of it.

    Args:
        store: Where.
        post: Takes an event.
        spawn: Runs a task of the daemon.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        post: Callable[[ev.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.store = store
        self._post = post
        self._spawn = spawn

    def put(self, asked: fx.KeepKeys, keys: SealedKeys) -> None:
        """Begin to write. Answered by `KeysKept` or `KeysNotKept`."""
        self._spawn(self._write(asked, keys))

    async def _write(self, asked: fx.KeepKeys, keys: SealedKeys) -> None:
        try:
            await asyncio.to_thread(self.store.put, keys)
        except (OSError, RuntimeError) as error:  # No thread may be had, either.
            reason = reason_of(error)
            _log.error(
                "keys_not_kept factory=%s client=%d reason=%s",
                asked.attempt_id.hex(),
                asked.client,
                reason,
            )
            self._post(ev.KeysNotKept(asked=asked, reason=reason))
        else:
            self._post(ev.KeysKept(asked=asked))
