"""The webhooks of a daemon at work: each posts its events in order, one at a time, until taken.

What is taken is remembered on disk, but not after each event: while more wait, some are posted
before the file is written. So a crash lets some be posted again, with the ids they had, and none
be left out. Where the journal no longer has what followed a cursor, a webhook goes on with the
oldest event there is, and says so.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Self

import msgspec

from cromford.answers.events import EventAnswer
from cromford.daemon.backup.said import reason_of
from cromford.daemon.event_log import CursorExpired, CursorUnknown, EventLog
from cromford.daemon.metrics import Sample
from cromford.daemon.webhooks.kept import (
    Target,
    Webhook,
    key_of,
    read_webhooks,
    target_of,
    write_webhooks,
)
from cromford.daemon.webhooks.posting import Message, PostFailed, post

BACKOFF_SECONDS_MAX: Final = 3_600.0
MESSAGE_ID_PREFIX: Final = "evt_"
UNWRITTEN_TAKEN_MAX: Final = 32  # Events that a crash lets be posted again.
UNWRITTEN_SEEN_MAX: Final = 1_000  # Events that it lets be looked at again.
WAIT_SECONDS: Final = 3_600.0  # Until the log is asked again, where nothing happens.

Post = Callable[[Target, bytes, Message], Awaitable[None]]

_log = logging.getLogger(__name__)


def backoff_seconds(n_failures: int) -> float:
    """Return how many seconds to wait after failures in a row: 1 to 2 first, 1,800 to 3,600 last.

    Drawn from the upper half of what doubles, so that those who failed together come back apart.
    """
    longest = min(BACKOFF_SECONDS_MAX, 2.0 ** min(n_failures, 12))
    return random.uniform(longest / 2, longest)  # noqa: S311 - no secret hangs on it


async def post_now(target: Target, key: bytes, message: Message) -> None:
    """Post a message, signed with the time that it is.

    Raises:
        PostFailed: If it was not taken.
    """
    await post(target, key, message, unix_time=int(time.time()))


class WebhookWork:
    """A webhook at work.

    Attributes:
        webhook: What is kept of it, up to now.
        n_failures: How often the next event failed, in a row.
        next_try_at: When it is tried again, in unix seconds; None where nothing waits for that.
        last_error: Why it failed the last time, in words; empty if it did not.
    """

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        self.n_failures = 0
        self.next_try_at: int | None = None
        self.last_error = ""
        self.n_taken_unwritten = 0
        self.n_seen_unwritten = 0
        self.task: asyncio.Task[None] | None = None

    @property
    def is_unwritten(self) -> bool:
        """Whether it is further than the file says."""
        return self.n_seen_unwritten > 0

    def change(self, **fields: object) -> None:
        """Remember something of the webhook, which is written later."""
        self.webhook = msgspec.structs.replace(self.webhook, **fields)


class Webhooks:
    """The webhooks of a daemon. They work while its `async with` block lasts.

    Args:
        home: The daemon's directory.
        log: Its events.
        poster: Posts one message.
        backoff: Returns how many seconds to wait after that many failures in a row.

    Raises:
        BadWebhooks: If the file cannot be understood.
        OSError: If it cannot be read.
    """

    def __init__(
        self,
        home: Path,
        log: EventLog,
        *,
        poster: Post = post_now,
        backoff: Callable[[int], float] = backoff_seconds,
    ) -> None:
        self._home = home
        self._log = log
        self._post = poster
        self._backoff = backoff
        self._deliveries = [WebhookWork(webhook) for webhook in read_webhooks(home)]
        self._writing = asyncio.Lock()
        self._is_at_work = False

    @property
    def deliveries(self) -> tuple[WebhookWork, ...]:
        """The webhooks, in the order in which they were made."""
        return tuple(self._deliveries)

    @property
    def newest_cursor(self) -> str:
        """The cursor of the newest event: a new webhook begins behind it."""
        return self._log.cursor_of(self._log.n_seen)

    def samples(self) -> Iterator[Sample]:
        """Yield for Prometheus how many wait to try again what was not taken."""
        yield "webhooks_failing", {}, sum(bool(one.last_error) for one in self._deliveries)

    def named(self, name: str) -> WebhookWork | None:
        """Return the webhook of a name, if there is one."""
        return next((one for one in self._deliveries if one.webhook.name == name), None)

    async def add(self, webhook: Webhook) -> WebhookWork:
        """Let a webhook be there, durably before it posts.

        Raises:
            OSError: If the disk refuses; then it is not there.
        """
        added = WebhookWork(webhook)
        async with self._writing:
            self._write_at_once([*self._deliveries, added])
            self._deliveries.append(added)
        if self._is_at_work:
            self._begin(added)
        return added

    async def remove(self, delivery: WebhookWork) -> None:
        """Let a webhook be none: no post begins after this returns.

        Raises:
            OSError: If the disk refuses; then it goes on.
        """
        async with self._writing:
            self._write_at_once([one for one in self._deliveries if one is not delivery])
            self._deliveries.remove(delivery)
        await _ended(delivery)

    async def __aenter__(self) -> Self:
        self._is_at_work = True
        for delivery in self._deliveries:
            self._begin(delivery)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_at_work = False
        for delivery in self.deliveries:
            await _ended(delivery)
        if any(delivery.is_unwritten for delivery in self._deliveries):
            await self._save()

    def _begin(self, delivery: WebhookWork) -> None:
        task = asyncio.create_task(self._deliver(delivery))
        task.add_done_callback(partial(_tell_bug, delivery))
        delivery.task = task

    async def _deliver(self, delivery: WebhookWork) -> None:
        told = delivery.webhook.told
        while not self._log.is_closed:
            cursor = delivery.webhook.cursor
            number = self._number(delivery)
            found = await self._log.wait_after(number, seconds=WAIT_SECONDS, skips_gone=True)
            if found and found[0]["cursor"] != self._log.cursor_of(number + 1):
                # A commit came between, and took the next ones away before they were read.
                delivery.change(missed_after=cursor)
                _log.warning("webhook_missed name=%s after=%s", delivery.webhook.name, cursor)
            for event in found:
                if told.wants(event):
                    await self._until_taken(delivery, event)
                    delivery.n_taken_unwritten += 1
                delivery.n_seen_unwritten += 1
                delivery.change(cursor=event["cursor"])
                if (
                    delivery.n_taken_unwritten >= UNWRITTEN_TAKEN_MAX
                    or delivery.n_seen_unwritten >= UNWRITTEN_SEEN_MAX
                ):
                    await self._save()
            if delivery.n_taken_unwritten:
                await self._save()

    def _number(self, delivery: WebhookWork) -> int:
        """Return the number of the last event a webhook is done with, beyond what is gone."""
        cursor = delivery.webhook.cursor
        try:
            return self._log.number_of(cursor)
        except (CursorExpired, CursorUnknown) as error:
            number = self._log.number_of("")
            _log.warning("webhook_missed name=%s error=%s", delivery.webhook.name, error)
        delivery.change(cursor=self._log.cursor_of(number), missed_after=cursor)
        delivery.n_seen_unwritten += 1
        return number

    async def _until_taken(self, delivery: WebhookWork, event: EventAnswer) -> None:
        webhook = delivery.webhook
        target, key = target_of(webhook.url), key_of(webhook.secret)
        message = Message(
            message_id=MESSAGE_ID_PREFIX + event["cursor"], body=msgspec.json.encode(event)
        )
        while True:
            try:
                await self._post(target, key, message)
            except PostFailed as error:
                delivery.n_failures += 1
                delivery.last_error = str(error)
            else:
                break
            seconds = self._backoff(delivery.n_failures)
            delivery.next_try_at = int(time.time() + seconds)
            _log.warning(
                "webhook_failed name=%s failures=%d next_try_seconds=%.0f error=%s",
                webhook.name,
                delivery.n_failures,
                seconds,
                delivery.last_error,
            )
            if delivery.is_unwritten:
                await self._save()
            await asyncio.sleep(seconds)
            delivery.next_try_at = None
        if delivery.n_failures:
            _log.info("webhook_taken name=%s failures=%d", webhook.name, delivery.n_failures)
        delivery.n_failures, delivery.last_error = 0, ""
        delivery.change(delivered_at=int(time.time()))

    async def _save(self) -> None:
        """Write how far all are. A disk that refuses is told in the log, and tried again later."""
        async with self._writing:
            try:
                await self._write()
            except (OSError, RuntimeError) as error:  # No thread may be had, either.
                _log.warning("webhooks_not_written error=%s", reason_of(error))

    def _write_at_once(self, deliveries: list[WebhookWork]) -> None:
        # An operator who goes away meanwhile cannot part what is on disk from what is at work.
        write_webhooks(self._home, [delivery.webhook for delivery in deliveries])

    async def _write(self) -> None:
        counts = [(one, one.n_taken_unwritten, one.n_seen_unwritten) for one in self._deliveries]
        webhooks = [delivery.webhook for delivery in self._deliveries]
        is_over = False

        def write() -> None:
            # What no thread was had for is still done once one is: by then others have written.
            if not is_over:
                write_webhooks(self._home, webhooks)

        writing = asyncio.ensure_future(asyncio.to_thread(write))
        try:
            await asyncio.shield(writing)
        finally:
            # Whoever is cancelled meanwhile, too: the next to write has to find the disk at rest.
            await asyncio.wait({writing})
            is_over = True
            if writing.exception() is None:
                for delivery, n_taken, n_seen in counts:
                    delivery.n_taken_unwritten -= n_taken
                    delivery.n_seen_unwritten -= n_seen


async def _ended(delivery: WebhookWork) -> None:
    """End the work of a webhook; an answer that is still to come is not waited for."""
    if delivery.task is not None:
        delivery.task.cancel()
        await asyncio.wait({delivery.task})


def _tell_bug(delivery: WebhookWork, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        delivery.last_error = "it ended by a bug, until the daemon is started again: see its log"
        _log.error("webhook_ended name=%s", delivery.webhook.name, exc_info=task.exception())
