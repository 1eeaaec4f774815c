"""A program to which webhooks post, on loopback: it answers as it is told, and remembers."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cromford.adapters.memory import MemoryJournal
from cromford.daemon.api.webhooks import webhook_methods
from cromford.daemon.event_log import EventLog
from cromford.daemon.webhooks.delivering import Post, Webhooks, post_now
from cromford.daemon.webhooks.kept import FILE_NAME, Target, read_webhooks
from cromford.ports import Entry
from cromford.protocol.journal import records as r
from cromford.protocol.journal.records import encode_record

TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
STEP_SECONDS = 60.0  # Nothing takes as long; a test that hangs ends.


def status(number: int, *headers: str) -> bytes:
    """Return an answer without a body."""
    lines = (f"HTTP/1.1 {number} So", "Content-Length: 0", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


@dataclass(frozen=True)
class Got:
    """A request as it came."""

    request: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers each request with the next of `answers`, and with `TAKEN` once there is none.

    Where `is_silent`, nothing is answered at all.
    """

    answers: list[bytes] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    is_silent: bool = False
    port: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    is_left: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, n_requests: int) -> list[Got]:
        """Return all requests once there are so many."""
        async with asyncio.timeout(STEP_SECONDS):
            while len(self.got) < n_requests:
                self.news.clear()
                await self.news.wait()
        return self.got

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.rstrip().split("\r\n")
            headers = {
                name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            self.got.append(Got(request, headers, body))
            self.news.set()
            if self.is_silent:
                await reader.read()
                self.is_left.set()
            else:
                writer.write(self.answers.pop(0) if self.answers else TAKEN)
                await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def open(self, **where: Any) -> AsyncIterator["Receiver"]:
        """Listen while the block lasts."""
        where = where or {"host": "127.0.0.1", "port": 0}
        server = await asyncio.start_server(self._serve, **where)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


def tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a receiver needs to speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class House:
    """A journal, the log of it, and webhooks in a directory: a daemon without the rest."""

    def __init__(
        self, home: Path, *, store: MemoryJournal | None = None, journal_number: int = 0x7F
    ) -> None:
        self.home = home
        self.store = MemoryJournal() if store is None else store
        self.journal_number = journal_number
        self.n_failures: list[int] = []
        self.unknown: dict[str, str] = {}  # Why a host is not known, by its name.
        self.backoff: Callable[[int], float] = lambda _n: 0.0
        self.begin_anew()

    def begin_anew(self, *, poster: Post = post_now) -> None:
        """Start again: all but the journal and the files is forgotten."""

        def backoff(n_failures: int) -> float:
            self.n_failures.append(n_failures)
            return self.backoff(n_failures)

        self.log = EventLog(self.store, journal_number=self.journal_number)
        self.webhooks = Webhooks(self.home, self.log, poster=poster, backoff=backoff)
        self.methods = webhook_methods(self.webhooks, look_up=self._look_up)

    async def _look_up(self, target: Target) -> str | None:
        return self.unknown.get(target.host)

    def happen(self, *heights: int) -> None:
        """Let a block of each height come."""
        for height in heights:
            block = r.BlockConnected(height=height, block_hash=bytes(32), txs=())
            self.store.append([Entry("client", encode_record(block))])
            self.log.news()

    async def ask(self, method: str, **params: object) -> Any:
        return await self.methods[method](params)

    async def add(self, port: int, *, name: str = "shop", path: str = "/hook", **more: Any) -> str:
        """Make a webhook, and return its secret."""
        url = f"http://127.0.0.1:{port}{path}"
        secret: str = (await self.ask("webhook_add", name=name, url=url, **more))["secret"]
        return secret

    async def shown(self) -> Any:
        """Return the first webhook as `webhook list` gives it."""
        return (await self.ask("webhooks"))["webhooks"][0]

    async def until(self, holds: Callable[[Any], object]) -> Any:
        """Return the first webhook once something holds of it."""
        async with asyncio.timeout(STEP_SECONDS):
            while not holds(shown := await self.shown()):  # noqa: ASYNC110 - it is asked, as by users
                await asyncio.sleep(0.005)
        return shown

    async def until_written(self, cursor: str) -> bytes:
        """Return what is on disk once the first webhook is there as far as a cursor."""
        async with asyncio.timeout(STEP_SECONDS):
            while read_webhooks(self.home)[0].cursor != cursor:  # noqa: ASYNC110 - a file says nothing
                await asyncio.sleep(0.005)
        return (self.home / FILE_NAME).read_bytes()


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Play a scenario, which may not hang."""

    async def run() -> None:
        async with asyncio.timeout(2 * STEP_SECONDS):
            await scenario()

    asyncio.run(run())
