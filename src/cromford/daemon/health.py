"""Whether a daemon lives, and whether it can do what it is for: for whoever restarts or warns.

`/healthz` fails where only a restart, or a human, helps: the daemon does not answer, or its disk
does not. `/readyz` fails while it takes no new risk, or nobody can reach it, and says why.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import asdict, dataclass
from typing import Final, Protocol

from cromford.daemon.chain_following import ChainFollowing
from cromford.daemon.metrics import MetricsServer, Page, Sample
from cromford.protocol.facts import Facts

ANSWER_SECONDS: Final = 10.0  # That a scrape, or a probe, waits for the loop and the disk.
HEALTH_PATH: Final = "/healthz"
READY_PATH: Final = "/readyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that has to be so: its name, whether it is, and what hinders it."""

    check: str
    ok: bool
    detail: str = ""


def checked(check: str, problem: str | None) -> Check:
    """Return a check that holds where there is no problem."""
    return Check(check=check, ok=problem is None, detail=problem or "")


class Probed(Protocol):
    """What a daemon is asked about itself."""

    following: ChainFollowing

    @property
    def height(self) -> int:
        """The height of the tip the role has seen, or -1."""

    @property
    def facts(self) -> Facts:
        """What a decision may read now."""

    @property
    def unreachable(self) -> str | None:
        """Why no peer can reach us, or we cannot reach ours."""


def readiness(daemon: Probed) -> list[Check]:
    """Return what it takes to build, to pay and to be paid, and whether it is so."""
    stale = daemon.following.stale()
    has_block = daemon.following.has_block.is_set()
    return [
        checked("block", None if has_block else "no block was read yet"),
        checked("chain", None if stale is None else str(stale)),
        checked("mark", daemon.facts.unmarkable),
        checked("peers", daemon.unreachable),
    ]


def page_of(checks: Iterable[Check]) -> Page:
    """Return checks as a page: 200 if all hold, or 503."""
    found = list(checks)
    is_ok = all(one.ok for one in found)
    body = {"ok": is_ok, "checks": [asdict(one) for one in found]}
    return Page(status=200 if is_ok else 503, body=json.dumps(body, indent=2) + "\n")


def watched(
    listen: tuple[str, int],
    loop: asyncio.AbstractEventLoop,
    *,
    samples: Callable[[], Iterable[Sample]],
    readiness: Callable[[], Iterable[Check]],
    settled: Callable[[], Awaitable[None]],
    seconds: float = ANSWER_SECONDS,
) -> MetricsServer:
    """Serve a daemon's numbers and its health; port 0 takes any that is free.

    Args:
        listen: Where: a host and a port.
        loop: The daemon's.
        samples: Returns the numbers; called in the loop.
        readiness: Returns what it takes to be of use; called in the loop.
        settled: Returns once all that was decided by now is durable, so that nothing else is told.
        seconds: How long an answer may take.

    Raises:
        CannotListen: If nobody can listen there.
    """

    async def read() -> list[Sample]:
        found = list(samples())
        await settled()
        return found

    async def health() -> Page:
        await settled()
        return page_of([checked("answers", None)])

    async def ready() -> Page:
        return page_of(readiness())

    def asked(page: Callable[[], Awaitable[Page]]) -> Callable[[], Page]:
        async def answer() -> Page:
            return await page()

        def ask() -> Page:
            try:
                return asyncio.run_coroutine_threadsafe(answer(), loop).result(seconds)
            except NoAnswer:
                problem = f"neither the daemon nor its disk answered in {seconds:g} s"
                return page_of([checked("answers", problem)])

        return ask

    pages: Mapping[str, Callable[[], Page]] = {
        HEALTH_PATH: asked(health),
        READY_PATH: asked(ready),
    }
    return MetricsServer(
        listen,
        lambda: asyncio.run_coroutine_threadsafe(read(), loop).result(seconds),
        pages=pages,
    )
