"""A page that is told what a daemon may answer, and none does: what seldom happens, all at once."""

import json
from importlib.resources import files
from typing import Any, Final

from tests.browser.chromium import Browser, Sight
from tests.cli import answers, market_answers

from cromford.daemon.api.operations import BY_ROLE, Operation
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER

ORIGIN: Final = "http://page.test"
PICTURE: Final = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 1"><title>-</title></svg>'
MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
CLOSING: Final[dict[str, Any]] = {
    "close_id": "c1" * 32,
    "name": "funding",
    "phase": "signing",
    "clients": [1, 2],
    "done": [1],
    "holdouts": [2],
    "outpoint": f"{answers.FUNDING_TXID}:0",
    "feerates_sat_per_vb": [2.0],
}
CLOSED: Final[dict[str, Any]] = {
    "close_id": "c2" * 32,
    "txids": ["ab" * 32, "cd" * 32],
    "txid": "ab" * 32,
    "confirmations": 0,
}
REFUSED: Final[dict[str, Any]] = {
    "name": "state_0",
    "txid": "ab" * 32,
    "reason": "min relay fee not met",
    "first_height": 1_000,
    "height": 1_234,
    "count": 3,
}
_LSP_CHANGES: Final[list[dict[str, Any]]] = [
    {},
    {"status": "building", "phase": "signing_below", "holdouts": [1, 2], "min_depth": 3},
    {"aborted": "client 2 is silent", "status": "aborted"},
    {"status": "funding", "too_late": True, "confirmations": 0},
    {"refused": [REFUSED]},
    {"closing": CLOSING, "status": "live"},
    {"closed": [CLOSED], "status": "closing"},
    {"closed": [CLOSED | {"confirmations": 1_500}], "status": "closed"},
    {"channels_failed": {"1": "it lied", "3": "gone"}, "is_marked": True},
    {"channels_failed": {"2": "the channel is on chain"}, "leaving": [2], "published": ["root"]},
    {"advances": [market_answers.ADVANCE, market_answers.ADVANCE | {"holdouts": []}]},
    {"published": ["kickoff_root"], "leaving": [1, 4], "moved_out": [2]},
    {
        "sweeping": [
            {"name": "a", "outpoint": "x", "amount_sat": 123_456, "height": 1_300},
            {"name": "b", "outpoint": "y", "amount_sat": 1_000, "height": 1_300},
        ]
    },
    *({"blocks_to_expiry": left} for left in (594 + 1_008, 594 + 144, 595, 594, 1, 0, -5)),
    {"period": "late", "blocks_to_next_period": 12, "blocks_to_expiry": 12},
]
_CLIENT_CHANGES: Final[list[dict[str, Any]]] = [
    {},
    {"status": "building", "stage": "received"}
    | dict.fromkeys(("n_clients", "capacity_sat", "min_depth", "blocks_to_expiry")),
    {"status": "aborted", "aborted": "the LSP: client 2 is silent"},
    {"status": "moved_out", "keys_handed_over": {"height": 1, "taken": True, "refused": None}},
    {
        "status": "moved_out",
        "keys_handed_over": {"height": 1, "taken": False, "refused": "too early"},
    },
    {"refused": [REFUSED]},
    {"closed": [CLOSED], "close": {"close_id": "c2" * 32, "payout_sat": 99_000}},
    {"closing": CLOSING | {"balance_msat": 1_500}},
    {"closing": CLOSING | {"balance_msat": None}},
    {"channel_status": "marked"},
    {"channel_failed": "the peer: no more"},
    {"channel_failed": "the channel is on chain", "status": "live", "look_blocks": None},
    {"closed": [CLOSED], "status": "closed", "channel_failed": CLOSED_TOGETHER},
    {"published": ["kickoff_root"], "channel_status": "offline"},
    {"exit_deadline_height": None},
    {"status": "given_up", "given_up": True, "blocks_to_expiry": -3},
    {"status": "displaced", "blocks_to_expiry": 7},
]
LSP_LINES: Final = [answers.lsp_summary(**changes) for changes in _LSP_CHANGES]
CLIENT_LINES: Final = [answers.client_summary(**changes) for changes in _CLIENT_CHANGES]


async def served_file(route: Any) -> bool:
    """Answer with a file of the page, if one is asked for; say whether it was."""
    name = route.request.url.removeprefix(f"{ORIGIN}/page/")
    if name == route.request.url:
        return False
    body = (files("cromford") / "page" / name).read_text(encoding="utf-8")
    kind = next(kind for end, kind in MEDIA_TYPES.items() if name.endswith(end))
    await route.fulfill(body=body, content_type=kind)
    return True


async def told_page(at: Browser, role: str, told: dict[str, Any]) -> Sight:
    """Return the page of a role, signed in, with these answers by their operations' names."""
    html = (files("cromford") / "page" / f"{role}.html").read_text(encoding="utf-8")
    session = {"name": "told", "role": role, "scopes": ["read"], "expires_at": 2**32}
    at_path = {ORIGIN + one.path: one for one in BY_ROLE[role] if one.verb == "GET"}

    async def serve(route: Any) -> None:
        url = route.request.url.partition("?")[0]
        if await served_file(route):
            return
        if url == f"{ORIGIN}/":
            await route.fulfill(body=html, content_type="text/html")
        elif url == f"{ORIGIN}/session":
            await route.fulfill(json=session | {"key": "key"})
        elif url == f"{ORIGIN}/v1/events":
            await events(route)
        elif url.endswith("/picture"):
            await route.fulfill(body=PICTURE, content_type="image/svg+xml")
        else:
            name = operation_of(url, at_path).name
            await route.fulfill(body=json.dumps(told[name]), content_type="application/json")

    sight = await at.open("about:blank")
    await sight.page.context.route(f"{ORIGIN}/**", serve)
    await sight.page.goto(f"{ORIGIN}/")
    await sight.page.get_by_label("Token").fill("cromford_token")
    await sight.page.get_by_role("button", name="Sign in").click()
    return sight


async def events(route: Any) -> None:
    """Answer which cursor is the newest; whoever follows hears nothing for a while."""
    if "event-stream" not in route.request.headers["accept"]:
        await route.fulfill(json={"events": [], "cursor": "1-1"})


def operation_of(url: str, at_path: dict[str, Operation]) -> Operation:
    """Return what is asked for: by its whole path, or that of the one factory."""
    return at_path.get(url) or at_path[f"{url.rpartition('/')[0]}/{{factory_id}}"]
