"""A page in a browser before a daemon that a test plays: no process, no chain, every answer a line.

The page's files are the real ones. What they ask is answered by `reply`, a function of JavaScript
that a test sets, and is kept in `asked`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tests.browser.chromium import Browser, Sight, browser

from cromford.daemon.api.page_files import ASSETS, INDEX, POLICY, page_files

ADDRESS: Final = "http://127.0.0.1:9/"
_SCRIPT: Final = """
globalThis.asked = [];
globalThis.reply = () => never();
globalThis.streams = [];
globalThis.fetch = (path, how = {}) => {
  const told = {verb: how.method, path, body: how.body && JSON.parse(how.body)};
  asked.push(told);
  return Promise.race([Promise.resolve().then(() => reply(told)), aborted(how.signal)]);
};
const aborted = (signal) => new Promise((_, refuse) => {
  signal?.addEventListener("abort", () => refuse(signal.reason));
});
globalThis.never = () => new Promise(() => {});
globalThis.json = (body, status = 200) => new Response(JSON.stringify(body), {status});
globalThis.refused = (code, status) => json({code, message: code}, status);
globalThis.lost = () => Promise.reject(new TypeError("Failed to fetch"));
globalThis.stream = () => new Response(new ReadableStream({
  start(way) {
    streams.push(way);
    way.enqueue(new TextEncoder().encode(": begun\\n\\n"));
  },
}));
globalThis.pause = (ms) => new Promise((done) => setTimeout(done, ms));
globalThis.until = async (isSo) => {
  for (let n = 0; n < 600; n += 1) {
    if (isSo()) return true;
    await pause(50);
  }
  throw new Error(`it never was: ${isSo}`);
};
// What every page asks first: the cursor, and then the events.
globalThis.follows = (more) => (told) => {
  if (told.path.startsWith("/v1/events?about")) return json({events: [], cursor: "1-1"});
  if (told.path.startsWith("/v1/events")) return stream();
  return more(told);
};
"""


async def open_page(at: Browser, role: str = "client", *, is_begun: bool = False) -> Sight:
    """Return a tab with the page of a role; `is_begun` says whether it begins by itself."""
    context = await at.chromium.new_context(locale="en-GB")
    context.set_default_timeout(60_000)
    files = page_files(role)

    async def answer(route: Any) -> None:
        file = files[INDEX if route.request.url == ADDRESS else _path(route.request.url)]
        body = file.body.decode()
        if not is_begun and file is files[INDEX]:
            body = re.sub(r"<script.*?</script>", "", body)
        told = {"content-type": file.media_type, "content-security-policy": POLICY}
        await route.fulfill(body=body, headers=told)

    await context.route("**/*", answer)
    await context.add_init_script(_SCRIPT)
    return await another_tab(at, context)


async def another_tab(at: Browser, context: Any) -> Sight:
    sight = Sight(await context.new_page())
    at.sights.append(sight)
    await sight.page.goto(ADDRESS)
    return sight


def _path(url: str) -> str:
    return ASSETS + url.rpartition("/")[2]


def play(scene: Callable[[Browser], Awaitable[None]]) -> None:
    """Play a scene in a browser."""

    async def run() -> None:
        async with browser() as at:
            await scene(at)

    asyncio.run(run())
