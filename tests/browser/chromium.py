"""A real browser: Chromium, driven by Playwright, and what may never happen on a page of ours."""

import contextlib
import importlib
import importlib.util
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

PROGRAM: Final = Path("/usr/bin/chromium")
ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENSHOTS: Final = Path(__file__).parents[2] / ".screenshots"
WAIT_MS: Final = 120_000
NARROW: Final = 360
WIDE: Final = 1280
HEIGHT: Final = 800
TABS_MAX: Final = 80
# How a page is looked at: with which colours, and which of them whoever looks can tell apart.
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "grey": {"color_scheme": "light", "vision": "achromatopsia"},
    "forced": {"color_scheme": "dark", "forced_colors": "active"},
}
# What has to have a name for whoever does not see it (WAI-ARIA 1.2).
CONTROLS: Final = frozenset(
    {"button", "link", "textbox", "combobox", "checkbox", "dialog", "region", "image", "spinbutton"}
)


def why_not() -> str | None:
    """Return why there is no browser here, if there is none."""
    if not PROGRAM.exists():
        return f"{PROGRAM} is not installed (Debian, Ubuntu: apt-get install chromium)"
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: `make browser` brings it along"
    return None


needs_browser = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@dataclass
class Sight:
    """A tab, and what the browser complained of in it.

    Attributes:
        page: Playwright's.
        expected: What of complaints is part of the scene, as regular expressions.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def _on_console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    def check(self) -> None:
        """Fail if the browser complained of anything that the scene does not bring along."""
        left = [
            complaint
            for complaint in self.complaints
            if not any(re.search(pattern, complaint) for pattern in self.expected)
        ]
        assert not left, "\n".join(left)

    async def tab_to(self, name: str) -> None:
        """Press the tabulator key until the focus is on a control of this name."""
        seen = []
        for _ in range(TABS_MAX):
            await self.page.keyboard.press("Tab")
            seen.append(await self.focused())
            if seen[-1] == name:
                return
        raise AssertionError(f"no way by keyboard to {name!r}; there are {seen}")

    async def focused(self) -> str:
        """Return the name of what has the focus."""
        name: str = await self.page.evaluate(
            """() => {
              const one = document.activeElement;
              const label = one.labels?.[0]?.textContent ?? one.getAttribute("aria-label");
              return (label ?? one.textContent).trim();
            }"""
        )
        return name

    async def is_in_its_width(self) -> bool:
        """Say whether nothing of the page is beside the screen."""
        inside: bool = await self.page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
        return inside

    async def check_names(self) -> None:
        """Fail if a control has no name, or a heading is below none."""
        session = await self.page.context.new_cdp_session(self.page)
        tree = (await session.send("Accessibility.getFullAXTree"))["nodes"]
        await session.detach()
        nameless = [
            (node["role"]["value"], node.get("properties"))
            for node in tree
            if not node["ignored"]
            and node["role"]["value"] in CONTROLS
            and not node.get("name", {}).get("value", "").strip()
        ]
        assert not nameless, nameless
        levels: list[int] = await self.page.evaluate(
            """() => [...document.querySelectorAll("h1,h2,h3,h4")]
              .filter((one) => one.checkVisibility())
              .map((one) => Number(one.nodeName[1]))"""
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        steps = itertools.pairwise(levels)
        assert all(below <= above + 1 for above, below in steps), levels

    async def portraits(self, name: str) -> None:
        """Keep how the page looks at each width and in each look, and check that it fits."""
        SCREENSHOTS.mkdir(exist_ok=True)
        session = await self.page.context.new_cdp_session(self.page)
        for width in (NARROW, WIDE):
            await self.page.set_viewport_size({"width": width, "height": HEIGHT})
            for look, wanted in LOOKS.items():
                media = {"forced_colors": "none"} | wanted
                vision = media.pop("vision", "none")
                await self.page.emulate_media(**media)
                await session.send("Emulation.setEmulatedVisionDeficiency", {"type": vision})
                await self.page.evaluate("scrollTo(0, 0)")
                path = SCREENSHOTS / f"{name}-{width}-{look}.png"
                await self.page.screenshot(path=path, full_page=True)
            assert await self.is_in_its_width(), f"{name} at {width}"
        await session.send("Emulation.setEmulatedVisionDeficiency", {"type": "none"})
        await session.detach()
        await self.page.emulate_media(color_scheme="light", forced_colors="none")


@dataclass
class Browser:
    """A browser, and all tabs that were opened in it."""

    chromium: Any
    sights: list[Sight] = field(default_factory=list)

    async def open(self, url: str, *, width: int = WIDE, **more: Any) -> Sight:
        """Return a tab at an address, in a profile of its own."""
        viewport = {"width": width, "height": HEIGHT}
        context = await self.chromium.new_context(viewport=viewport, locale="en-GB", **more)
        context.set_default_timeout(WAIT_MS)
        sight = Sight(await context.new_page())
        self.sights.append(sight)
        await sight.page.goto(url)
        return sight


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start a browser; as it ends well, none of its tabs may have complained."""
    playwright = importlib.import_module("playwright.async_api")
    async with playwright.async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=PROGRAM, args=[*ARGUMENTS])
        try:
            started = Browser(chromium)
            yield started
            for sight in started.sights:
                sight.check()
        finally:
            await chromium.close()
