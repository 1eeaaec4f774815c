"""A town whose daemons have pages, and somebody at a browser in front of them."""

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.browser.chromium import Browser, Sight, browser
from tests.daemon.town import Town, town

from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from cromford.protocol import events as ev

TOKEN: Final = "page"
PATIENCE_SECONDS: Final = 300.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        port: int = place.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def street(base: Path, *names: str, **more: Any) -> AsyncIterator[tuple[Town, Browser]]:
    """Start a town in which these have pages, and a browser."""
    with pytest.MonkeyPatch.context() as patch:
        # A browser takes what there is of a small machine: the daemons are waited for longer.
        patch.setattr("tests.daemon.town.STEP_SECONDS", PATIENCE_SECONDS)
        async with town(base, **more) as t, browser() as started:
            yield await opened(t, names), started


async def opened(t: Town, names: tuple[str, ...]) -> Town:
    """Let these have pages: the LSP by its next run, clients from their first on."""
    t.more = {name: {"api_listen": ("127.0.0.1", free_port())} for name in names}
    if "lsp" in names:
        await t.stop("lsp")
        await t.start_lsp()
    return t


def url_of(t: Town, name: str) -> str:
    host, port = t.more[name]["api_listen"]
    return f"http://{host}:{port}/"


async def operator(t: Town, name: str, method: str, /, **params: object) -> Any:
    """Ask what a token may not, over the unix socket."""
    client = ApiClient(t.base / name / "regtest" / SOCKET_NAME)
    return await asyncio.to_thread(client.call, method, **params)


async def token_of(t: Town, name: str, scope: str, *, called: str = TOKEN) -> str:
    made = await operator(t, name, "token_add", name=called, scopes=[scope])
    return str(made["token"])


async def signed_in(
    t: Town, at: Browser, name: str, *, scope: str = "operate", width: int = 1280
) -> Sight:
    """Return the page of a daemon, signed in with a new token."""
    token = await token_of(t, name, scope, called=f"page{len(at.sights)}")
    sight = await at.open(url_of(t, name), width=width)
    await sight.page.get_by_label("Token").fill(token)
    await sight.page.get_by_role("button", name="Sign in").click()
    await is_live(sight)
    return sight


async def is_live(sight: Sight) -> None:
    await sight.page.locator("#connection[data-state=live]").wait_for()
    await sight.page.locator("#alarms-list > *").first.wait_for()


def silenced(t: Town, name: str) -> Callable[[], None]:
    """Let a client hear nothing more; return what lets it hear all of it after all."""
    daemon, _ = t.running[name]
    driver: Any = daemon.driver
    handle, kept = driver.handle, []

    def deaf(event: ev.Event) -> None:
        if isinstance(event, ev.MessageReceived):
            kept.append(event)
        else:
            handle(event)

    def hear() -> None:
        driver.handle = handle
        for event in kept:
            handle(event)

    driver.handle = deaf
    return hear


# What the page shows, and what the command line prints


async def facts_of(sight: Sight, section: str) -> dict[str, str]:
    """Return the names and values of a section; of a name that is there twice, the last."""
    pairs: list[tuple[str, str]] = await sight.page.locator(f"{section} .facts > div").evaluate_all(
        "all => all.map(one => [...one.children].map(part => part.textContent))"
    )
    return dict(pairs)


async def cells_of(sight: Sight, section: str) -> list[list[str]]:
    """Return the rows of the tables of a section, without their headings."""
    rows: list[list[str]] = await sight.page.locator(
        f"{section} tbody tr, {section} tfoot tr"
    ).evaluate_all("all => all.map(row => [...row.cells].map(cell => cell.textContent))")
    return rows


async def cli(t: Town, name: str, *command: str) -> str:
    """Return what a command prints of a daemon of the town."""
    role = "lsp" if name == "lsp" else "client"
    place = ("--datadir", str(t.base / name), "--network", "regtest")
    return await run_cromford(role, *command, *place)


async def run_cromford(*command: str) -> str:
    """Return what a command prints."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cromford", *command), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await program.communicate()
    assert program.returncode == 0
    return printed.decode()


def printed_cells(printed: str) -> list[list[str]]:
    """Return the rows of the one table in a print, without its headings."""
    lines = [line for line in printed.splitlines() if "  " in line]
    return [re.split(r"\s{2,}", line.strip()) for line in lines[1:]]


def printed_facts(printed: str) -> dict[str, str]:
    """Return names and values in a print; of a name that is there twice, the last."""
    found = (re.fullmatch(r"(\S[^\n]*?)\s{2,}(\S.*)", line) for line in printed.splitlines())
    return {one[1]: one[2] for one in found if one is not None}
