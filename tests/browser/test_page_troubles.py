"""What seldom happens is on the page when it does: nothing of it may need a daemon to be seen."""

import asyncio
from typing import Any

import pytest
from tests.browser.chromium import browser, needs_browser
from tests.browser.street import is_live
from tests.browser.told_pages import CLIENT_LINES, LSP_LINES, REFUSED, told_page
from tests.cli import answers, exit_answers

from cromford.protocol.channels.close_rules import CLOSED_TOGETHER

pytestmark = [needs_browser, pytest.mark.timeout(600)]

STALE = {
    "fresh": False,
    "stale_kind": "node_silent",
    "stale_since": 1_700_000_000,
    "stale_reason": "the node does not answer",
}
BUG = {
    "event": "message_received",
    "error": "KeyError: 1",
    "place": "updates.py:12",
    "alarm": True,
    "node_id": answers.NODE_ID,
    "first_time": 1_700_000_000,
    "last_time": 1_700_000_100,
    "count": 2,
}


def numbered(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return factories as one daemon would have them: each with an id of its own."""
    return [line | {"factory_id": f"{place:02x}" * 32} for place, line in enumerate(lines, 16)]


def troubled(status: dict[str, Any]) -> dict[str, Any]:
    chain = status["chain"] | STALE
    return status | {"chain": chain, "failed_decisions": [BUG], "refused": [REFUSED]}


def test_an_lsps_page_tells_of_every_trouble_first() -> None:
    async def main() -> None:
        stopped = {"factory_id": "10" * 32, "error": "KeyError: 2"}
        status = troubled(answers.LSP_STATUS) | {
            "stopped": [stopped],
            "handed_over_keys": {"n_clients": 2, "problem": "a file is damaged"},
        }
        forwards: Any = answers.LSP_PAYMENTS["forwards"]
        told = answers.LSP_ANSWERS | {
            "status": status,
            "factories": {"factories": numbered(LSP_LINES)},
            "factory_show": answers.SHOWN | {"seconds_left": 12.0},
            "forwards": {"forwards": forwards, "in_flight": forwards[:1], "next": None},
        }
        async with browser() as at:
            sight = await told_page(at, "lsp", told)
            await is_live(sight)
            said = await sight.page.locator("#alarms-list").inner_text()
            for word in (
                "STALE since", "BUG MET", "a second signature was PREVENTED", "KEYS DAMAGED",
                "STOPPED BY A BUG", "keeps displacing itself", "Last build dropped",
                "min relay fee not met", "URGENT: exit within 144 blocks", "it lied",
                "EXIT DEADLINE PASSED", "EXPIRED at height 6,000", "give it up", "no mark is kept",
            ):  # fmt: skip
                assert word in said, word
            assert "the channel is on chain" not in said, "there is nothing to look after any more"
            assert await sight.page.title() != "Cromford LSP"
            kinds = await sight.page.locator("#alarms-list li").evaluate_all(
                "all => all.map(one => one.className)"
            )
            assert kinds == sorted(kinds)  # The bad ones before the others.
            assert "signing below" in await sight.page.locator("#ceremony").inner_text()
            await sight.check_names()
            await sight.portraits("lsp-troubled")

    asyncio.run(main())


def test_a_clients_page_tells_of_every_trouble_first() -> None:
    async def main() -> None:
        told = answers.CLIENT_ANSWERS | {
            "status": troubled(answers.CLIENT_STATUS) | {"connected": False},
            "factories": {"factories": numbered(CLIENT_LINES)},
            "exit_status": exit_answers.REPLACED_STATUS,
        }
        async with browser() as at:
            sight = await told_page(at, "client", told)
            await is_live(sight)
            said = await sight.page.locator("#alarms-list").inner_text()
            for word in (
                "STALE since", "BUG MET", "not connected", "end soon after they begin",
                "capacity_sat: too much", "failed: the peer: no more", "min relay fee not met",
            ):  # fmt: skip
                assert word in said, word
            assert "the channel is on chain" not in said, "there is nothing to look after any more"
            assert CLOSED_TOGETHER not in said
            text = await sight.page.locator("main").inner_text()
            assert "at height 1,240" in text
            assert "poisons cover 480,000 sat of yours" in text
            await sight.check_names()
            await sight.portraits("client-troubled")

    asyncio.run(main())
