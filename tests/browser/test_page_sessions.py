"""A page whose token is revoked, whose daemon goes away, and at which nobody looks."""

import asyncio
from pathlib import Path

import pytest
from tests.browser.chromium import Sight, needs_browser
from tests.browser.street import is_live, operator, signed_in, street, token_of
from tests.daemon.town import Town

pytestmark = [needs_browser, pytest.mark.timeout(1200)]

UNAUTHORIZED = "status of 401"
GONE = "net::ERR_"


async def signs_in(sight: Sight, token: str) -> None:
    await sight.page.get_by_label("Token").fill(token)
    await sight.page.get_by_role("button", name="Sign in").click()


async def tells_a_wrong_token(t: Town, sight: Sight) -> None:
    await sight.page.get_by_role("button", name="Sign out").click()
    field = sight.page.get_by_label("Token")
    await field.wait_for()
    await signs_in(sight, "cromford_nonsense")
    await sight.page.locator("#sign-in .problem", has_text="token").wait_for()
    assert await field.input_value() == "cromford_nonsense"
    assert not await sight.page.locator("main").is_visible()
    await signs_in(sight, await token_of(t, "alice", "read", called="again"))
    await is_live(sight)


async def is_out_once_revoked(t: Town, sight: Sight) -> None:
    """Within seconds, and without a press: nothing of what was shown is left."""
    address = (await t.call("alice", "status"))["wallet"]["address"]
    await sight.page.locator("#balance", has_text=address).wait_for()
    await operator(t, "alice", "token_revoke", name="again")
    why = sight.page.locator("#sign-in-why")
    await why.filter(has_text="signed out").wait_for()
    assert not await sight.page.locator("main").is_visible()
    assert address not in await sight.page.content()
    await sight.portraits("signed-out")


async def says_when_the_daemon_is_gone(t: Town, sight: Sight) -> None:
    """What is shown is old from then on, and says so; the daemon's next run asks to sign in."""
    await signs_in(sight, await token_of(t, "alice", "receive", called="third"))
    await is_live(sight)
    await sight.page.locator("#invoice-description").fill("typed before")
    await t.stop("alice")
    lost = sight.page.locator("#lost", has_text="What is shown is as of")
    await lost.wait_for()
    assert await sight.page.locator("#connection").inner_text() == "connection lost"
    await sight.portraits("connection-lost")
    await t.start_client("alice")
    await sight.page.locator("#sign-in-why", has_text="signed out").wait_for()
    await signs_in(sight, await token_of(t, "alice", "receive", called="fourth"))
    await is_live(sight)
    assert not await lost.is_visible()
    assert await sight.page.locator("#invoice-description").input_value() == "typed before"


async def asks_nothing_while_nobody_looks(t: Town, sight: Sight) -> None:
    asked: list[str] = []
    sight.page.on("request", lambda request: asked.append(request.url))
    see = """(isHidden) => {
      Object.defineProperty(document, "hidden", {value: isHidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await sight.page.evaluate(see, True)
    asked.clear()
    await t.mine(1)
    height = (await t.call("alice", "status"))["height"]
    await sight.page.wait_for_timeout(3_000)
    assert asked == []
    await sight.page.evaluate(see, False)
    await sight.page.locator("#standing", has_text=f"height {height:,}").wait_for()
    assert asked


def test_a_page_says_when_it_is_signed_out_or_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with street(tmp_path, "alice") as (t, at):
            await t.start_client("alice")
            sight = await signed_in(t, at, "alice", scope="receive")
            sight.expected += [UNAUTHORIZED, GONE]
            await asks_nothing_while_nobody_looks(t, sight)
            await tells_a_wrong_token(t, sight)
            await is_out_once_revoked(t, sight)
            await says_when_the_daemon_is_gone(t, sight)

    asyncio.run(main())
