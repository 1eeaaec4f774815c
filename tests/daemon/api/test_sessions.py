"""Signing in to the page, and everything that others might try with what a browser sends."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from tests.daemon.api.browsing import Browser, Served, add, revoke, with_page

from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.operations import Scope
from cromford.daemon.api.page import SIGN_IN_SIZE_MAX
from cromford.daemon.api.sessions import SESSION_SECONDS, SESSIONS_MAX, BegunSession, Sessions
from cromford.daemon.api.tokens import TOKENS_MAX, Tokens

STREAM = "Accept: text/event-stream"
HOST = "127.0.0.1:8080"
BEGUN_AT = 1_800_000_000


class Clock:
    def __init__(self) -> None:
        self.time = float(BEGUN_AT)
        self.stood_at: float | None = None  # Where the steady one stands, if not with this one.

    def __call__(self) -> float:
        return self.time

    def uptime(self) -> float:
        return self.time - BEGUN_AT if self.stood_at is None else self.stood_at


def sessions_of(tmp_path: Path, *names: str) -> tuple[Sessions, Tokens, dict[str, str], Clock]:
    tokens, clock = Tokens(tmp_path), Clock()
    made = {name: asyncio.run(add(tokens, name, "read")) for name in names}
    return Sessions(tokens, now=clock, uptime=clock.uptime), tokens, made, clock


def headers(begun: BegunSession, **more: str) -> Headers:
    said = {"host": HOST, "cookie": f"cromford_8080={begun.cookie}", "cromford-key": begun.key}
    return Headers(said | {name.replace("_", "-"): value for name, value in more.items()})


def allowed(sessions: Sessions, asked: Headers) -> frozenset[Scope]:
    return sessions.scopes(sessions.of(asked))


def is_open(sessions: Sessions, begun: BegunSession) -> bool:
    try:
        return allowed(sessions, headers(begun)) == {Scope.READ}
    except ApiFailure:
        return False


# What is kept


def test_neither_a_cookie_nor_a_key_is_kept(tmp_path: Path) -> None:
    sessions, _, made, _ = sessions_of(tmp_path, "a")
    begun = sessions.begin(made["a"])
    other = sessions.begin(made["a"])
    drawn = {begun.cookie, begun.key, other.cookie, other.key}
    assert len(drawn) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", text) for text in drawn)  # 32 bytes
    kept = repr(sessions._kept)
    assert not [text for text in drawn if text in kept]
    assert made["a"] not in kept


def test_a_session_ends_after_its_time_and_with_its_token(tmp_path: Path) -> None:
    sessions, tokens, made, clock = sessions_of(tmp_path, "a", "b")
    first, second = sessions.begin(made["a"]), sessions.begin(made["b"])
    assert first.session.expires_at == BEGUN_AT + SESSION_SECONDS
    clock.time += SESSION_SECONDS - 1
    assert is_open(sessions, first)
    asyncio.run(revoke(tokens, "b"))
    for _ in range(2):  # Whoever asks again hears the same.
        with pytest.raises(ApiFailure) as revoked:
            allowed(sessions, headers(second))
        assert revoked.value.code == "token_unknown"
    clock.time += 1
    with pytest.raises(ApiFailure) as ended:
        allowed(sessions, headers(first))
    assert ended.value.code == "session_unknown"


def test_a_session_ends_after_its_time_though_the_clock_is_set_back(tmp_path: Path) -> None:
    sessions, _, made, clock = sessions_of(tmp_path, "a", "b")
    begun = sessions.begin(made["a"])
    clock.time, clock.stood_at = BEGUN_AT - 86_400.0, SESSION_SECONDS - 1.0
    assert is_open(sessions, begun)
    clock.stood_at += 1
    assert not is_open(sessions, begun)
    # Such a one makes room as well.
    crowd = [sessions.begin(made["a"]) for _ in range(SESSIONS_MAX)]
    clock.stood_at += SESSION_SECONDS
    sessions.begin(made["b"])
    assert len(sessions) == 1
    assert not any(is_open(sessions, one) for one in crowd)


def test_a_session_ends_after_its_time_though_its_machine_was_asleep(tmp_path: Path) -> None:
    sessions, _, made, clock = sessions_of(tmp_path, "a")
    begun = sessions.begin(made["a"])
    clock.time, clock.stood_at = BEGUN_AT + SESSION_SECONDS - 1.0, 0.0
    assert is_open(sessions, begun)
    clock.time += 1
    assert not is_open(sessions, begun)


def test_another_token_of_the_name_of_a_revoked_one_opens_no_old_session(tmp_path: Path) -> None:
    sessions, tokens, made, _ = sessions_of(tmp_path, "a")
    begun = sessions.begin(made["a"])
    asyncio.run(revoke(tokens, "a"))
    asyncio.run(add(tokens, "a", "operate"))
    assert not is_open(sessions, begun)


def test_signing_in_a_thousand_times_with_one_token_takes_nobody_elses_place(
    tmp_path: Path,
) -> None:
    sessions, _, made, _ = sessions_of(tmp_path, "operator", "shop")
    own = sessions.begin(made["operator"])
    crowd = [sessions.begin(made["shop"]) for _ in range(1000)]
    assert is_open(sessions, own)
    # And with the other, once more, in the middle of it.
    second = sessions.begin(made["operator"])
    crowd += [sessions.begin(made["shop"]) for _ in range(1000)]
    assert is_open(sessions, own)
    assert is_open(sessions, second)
    assert len(sessions) == SESSIONS_MAX
    assert [is_open(sessions, one) for one in crowd] == [False] * 1902 + [True] * 98


def test_of_one_token_the_session_that_was_not_of_use_for_longest_goes(tmp_path: Path) -> None:
    sessions, _, made, _ = sessions_of(tmp_path, "a")
    first, second, *rest = (sessions.begin(made["a"]) for _ in range(SESSIONS_MAX))
    assert is_open(sessions, first)
    sessions.begin(made["a"])
    assert [is_open(sessions, one) for one in (first, second, *rest)] == [True, False, *[True] * 98]


def test_everybody_who_has_a_token_has_a_place(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(TOKENS_MAX)]
    sessions, _, made, _ = sessions_of(tmp_path, *names)
    for _ in range(SESSIONS_MAX):
        sessions.begin(made["t0"])
    begun = [sessions.begin(made[name]) for name in names[1:]]
    assert all(is_open(sessions, one) for one in begun)
    assert len(sessions) == SESSIONS_MAX


def test_what_is_over_goes_before_anybody_who_is_there(tmp_path: Path) -> None:
    sessions, tokens, made, clock = sessions_of(tmp_path, "old", "revoked", "a")
    for _ in range(10):
        sessions.begin(made["old"])
    clock.time += SESSION_SECONDS - 10
    for _ in range(10):
        sessions.begin(made["revoked"])
    own = [sessions.begin(made["a"]) for _ in range(SESSIONS_MAX - 20)]
    asyncio.run(revoke(tokens, "revoked"))
    clock.time += 10
    own += [sessions.begin(made["a"]) for _ in range(20)]
    assert all(is_open(sessions, one) for one in own)


@pytest.mark.parametrize(
    ("said", "is_ours"),
    [
        ({}, True),
        ({"origin": f"http://{HOST}"}, True),
        ({"origin": f"https://{HOST}"}, True),  # A proxy with TLS is between.
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"origin": "http://127.0.0.1:8081"}, False),
        ({"origin": "http://127.0.0.1"}, False),
        ({"origin": "http://localhost:8080"}, False),
        ({"origin": f"http://{HOST}.evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": HOST}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": ""}, False),
        ({"origin": f"http://{HOST}", "sec_fetch_site": "cross-site"}, False),
    ],
)
def test_a_request_of_another_page_is_refused_with_cookie_and_key(
    tmp_path: Path, said: dict[str, str], *, is_ours: bool
) -> None:
    sessions, _, made, _ = sessions_of(tmp_path, "a")
    begun = sessions.begin(made["a"])
    if is_ours:
        assert allowed(sessions, headers(begun, **said)) == {Scope.READ}
        return
    with pytest.raises(ApiFailure) as refused:
        allowed(sessions, headers(begun, **said))
    assert (refused.value.code, refused.value.status) == ("origin_refused", 403)


def test_one_origin_of_ours_does_not_hide_another(tmp_path: Path) -> None:
    sessions, _, made, _ = sessions_of(tmp_path, "a")
    raw = headers(sessions.begin(made["a"])).raw
    own, others = (b"origin", f"http://{HOST}".encode()), (b"origin", b"http://evil.example")
    for pairs in ((own, others), (others, own)):
        with pytest.raises(ApiFailure, match="received another"):
            allowed(sessions, Headers(raw=[*raw, *pairs]))


# Over the network


def test_signing_in_opens_the_api_to_the_page_until_it_signs_out(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "till", "spend")
        page = s.browser()
        assert (await page.ask("/v1/status")).code == "token_missing"
        begun = await page.sign_in(token)
        assert begun.status == 200
        told = dict(begun.json)
        key = told.pop("key")
        assert (told["name"], told["role"]) == ("till", "client")
        assert told["scopes"] == ["read", "receive", "spend"]
        assert begun.headers["cache-control"] == "no-store"
        pair, *attributes = begun.headers["set-cookie"].split("; ")
        assert pair.startswith(f"cromford_{s.server.tcp_port}=")
        assert {one.lower() for one in attributes} == {
            *("httponly", "samesite=strict", "path=/", f"max-age={SESSION_SECONDS}")
        }
        assert key not in begun.headers["set-cookie"]
        shown = await page.ask("/session")
        assert (shown.status, shown.json) == (200, told)
        assert (await page.ask("/v1/status")).status == 200
        assert (await page.post("/v1/payments", {"a": 1})).json == {"a": 1}
        assert (await page.post("/v1/lobby/join", {})).code == "scope_missing"
        assert (await page.ask("/v1/tokens")).code == "scope_missing"
        stolen = dict(page.jar)
        ended = await page.ask("/session", verb="DELETE")
        assert (ended.status, ended.json, page.jar) == (200, {"ended": True}, {})
        page.jar = stolen
        for path in ("/session", "/v1/status"):
            refused = await page.ask(path)
            assert (refused.status, refused.code) == (401, "session_unknown")
        assert (await page.ask("/session", verb="DELETE")).status == 401

    with_page(tmp_path, scenario)


def test_a_cookie_alone_opens_nothing_and_neither_does_a_key(tmp_path: Path) -> None:
    """As a web server at another port of this host would try it, to whom the browser sends it."""

    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "operate")
        page, thief = s.browser(), s.browser()
        await page.sign_in(token)
        other = s.browser()
        await other.sign_in(token)
        for jar, key in (
            (page.jar, ""),
            (page.jar, "x" * 43),
            (page.jar, other.key),
            (page.jar, next(iter(page.jar.values()))),
            ({}, page.key),
            ({"cromford_1": next(iter(page.jar.values()))}, page.key),
        ):
            thief.jar, thief.key = dict(jar), key
            for verb, target in (
                *(("GET", "/session"), ("DELETE", "/session")),
                *(("GET", "/v1/status"), ("POST", "/v1/payments"), ("GET", "/v1/nope")),
            ):
                refused = await thief.ask(target, verb=verb)
                assert refused.status == 401, (verb, target)
        assert (await page.ask("/v1/status")).status == 200

    with_page(tmp_path, scenario)


def test_a_cookie_that_another_port_sets_neither_replaces_ours_nor_hides_it(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "read")
        page, attacker = s.browser(), s.browser()
        await page.sign_in(token)
        await attacker.sign_in(token)
        (name,) = page.jar
        planted = f"{name}={attacker.jar[name]}; {name}=; {name}; {name}={'y' * 100}"
        own = page.cookie
        page.jar = {}
        for cookie in (f"{planted}; {own}", f"{own}; {planted}"):
            assert (await page.ask("/v1/status", f"Cookie: {cookie}")).status == 200
        # Theirs alone is not ours: our page's key does not belong to it.
        refused = await page.ask("/v1/status", f"Cookie: {planted}")
        assert (refused.status, refused.code) == (401, "session_unknown")
        crowd = "; ".join([f"{name}=z"] * 5000)
        assert (await page.ask("/v1/status", f"Cookie: {crowd}")).status == 401

    with_page(tmp_path, scenario)


def test_cookies_of_another_port_keep_nobody_out_however_many_they_are(tmp_path: Path) -> None:
    """Those with a longer path come first, and a browser keeps some two hundred of a host."""
    sessions, _, made, _ = sessions_of(tmp_path, "a")
    begun = sessions.begin(made["a"])
    planted = "; ".join(f"cromford_8080={number}" for number in range(1_000))
    own = f"cromford_8080={begun.cookie}"
    assert allowed(sessions, headers(begun, cookie=f"{planted}; {own}")) == {Scope.READ}


def test_a_cookie_that_came_by_tls_is_sent_by_tls_alone(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "read")
        address = f"127.0.0.1:{s.server.tcp_port}"
        for scheme, is_secure in (("http", False), ("https", True)):
            page = s.browser(origin=f"{scheme}://{address}")
            begun = await page.sign_in(token)
            assert ("Secure" in begun.headers["set-cookie"].split("; ")) is is_secure
            ended = await page.ask("/session", verb="DELETE")
            assert ("Secure" in ended.headers["set-cookie"].split("; ")) is is_secure
            assert not page.jar

    with_page(tmp_path, scenario)


def of_other_pages(s: Served) -> Iterator[Browser]:
    """Yield browsers that have a page of somebody else open."""
    for origin, site in (
        ("http://evil.example", "cross-site"),
        ("http://127.0.0.1:1", "same-site"),
        ("null", "cross-site"),
        ("http://evil.example", ""),
        ("", "cross-site"),
    ):
        yield s.browser(origin=origin, site=site)


def test_another_sites_page_neither_signs_in_nor_does_anything(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "operate")
        page = s.browser()
        await page.sign_in(token)
        for other in of_other_pages(s):
            assert (await other.sign_in(token)).code == "origin_refused"
            assert not other.jar
            other.jar, other.key = dict(page.jar), page.key
            for answer in (
                await other.ask("/session"),
                await other.ask("/session", verb="DELETE"),
                await other.post("/v1/payments", {"a": 1}),
            ):
                assert (answer.status, answer.code) == (403, "origin_refused")
            # It would have to ask whether it may send our header, and is not told so.
            asked = await other.ask(
                "/v1/payments",
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: cromford-key",
                verb="OPTIONS",
            )
            assert asked.status == 405
            assert not [name for name in asked.headers if name.startswith("access-control")]
        assert (await page.ask("/v1/status")).status == 200

    with_page(tmp_path, scenario)


def test_a_form_can_sign_nobody_in(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "read")
        body = json.dumps({"token": token}).encode()
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            page = s.browser(site="")
            refused = await page.ask("/session", f"Content-Type: {kind}", verb="POST", body=body)
            assert (refused.status, page.jar) == (415, {})

    with_page(tmp_path, scenario)


def test_a_name_of_another_that_leads_here_opens_nothing(tmp_path: Path) -> None:
    """As a page does whose own name is made to lead here (DNS rebinding)."""

    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "operate")
        page = s.browser()
        await page.sign_in(token)
        rebound = s.browser(host=f"evil.example:{s.server.tcp_port}")
        assert (await rebound.sign_in(token)).code == "host_refused"
        rebound.jar, rebound.key = dict(page.jar), page.key
        for target in ("/session", "/v1/status", "/"):
            assert (await rebound.ask(target)).code == "host_refused"

    with_page(tmp_path, scenario)


def test_what_a_session_follows_ends_with_its_token_and_when_it_signs_out(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        pages = [s.browser(), s.browser(), s.browser()]
        followed = []
        for name, page in zip("abc", pages, strict=True):
            await page.sign_in(await add(s.tokens, name, "read"))
            reader, writer = await page.opened("/v1/events", STREAM)
            followed.append((reader, writer))
            await reader.readuntil(b"begun\n\n")
        await revoke(s.tokens, "a")
        await pages[1].ask("/session", verb="DELETE")
        for queue in s.told:
            queue.put_nowait(b": after\n\n")
        for reader, _ in followed[:2]:
            # The last chunk (RFC 9112, section 7.1).
            assert b"after" not in await reader.readuntil(b"\r\n0\r\n\r\n")
        await followed[2][0].readuntil(b"after\n\n")
        assert (await pages[0].ask("/session")).code == "token_unknown"
        assert (await pages[1].ask("/session")).status == 401
        for _, writer in followed:
            writer.close()

    with_page(tmp_path, scenario)


def test_wrong_tokens_leave_nothing_behind_and_keep_nobody_out(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "read")
        page = s.browser()
        await page.sign_in(token)
        wrong = [
            {"token": "cromford_" + "x" * 43},
            {"token": token[:-1]},
            {"token": token + " "},
            {"token": "\ud800"},
            {"token": ""},
            {"token": None},
            {"token": [token]},
            {"token": token, "more": 1},
            {},
        ]
        stranger = s.browser()
        for number in range(200):
            refused = await stranger.post("/session", wrong[number % len(wrong)])
            assert refused.status in {400, 401}
            assert not stranger.jar
            assert token not in refused.body.decode()
        assert (await page.ask("/v1/status")).status == 200
        assert (await s.browser().sign_in(token)).status == 200

    with_page(tmp_path, scenario)


def test_signing_in_reads_no_more_than_a_token_needs(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        refused = await s.browser().post("/session", {"token": "x" * SIGN_IN_SIZE_MAX})
        assert (refused.status, refused.code) == (413, "request_too_large")
        for body in (b"", b"[]", b"{", b"\xff"):
            answer = await s.browser().ask(
                "/session", "Content-Type: application/json", verb="POST", body=body
            )
            assert answer.status == 400

    with_page(tmp_path, scenario)


@pytest.mark.parametrize("verb", ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE"])
def test_a_session_knows_three_methods(tmp_path: Path, verb: str) -> None:
    async def scenario(s: Served) -> None:
        refused = await s.browser().ask("/session", verb=verb)
        assert refused.status == 405
        assert refused.headers["allow"] == "DELETE, GET, POST"

    with_page(tmp_path, scenario)


def test_a_bearer_token_counts_as_before_whatever_a_browser_says(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        token = await add(s.tokens, "a", "read")
        other = await add(s.tokens, "b", "spend")
        script = s.browser(origin="http://evil.example", site="cross-site")
        bearer = f"Authorization: Bearer {token}"
        assert (await script.ask("/v1/status", bearer)).status == 200
        page = s.browser()
        await page.sign_in(other)
        # The token that is said counts, not the session beside it.
        body: Any = await page.post("/v1/payments", {"a": 1}, bearer)
        assert (body.status, body.code) == (403, "scope_missing")
        assert (await page.ask("/v1/status", "Authorization: Bearer wrong")).code == "token_unknown"
        # With a token alone there is no session.
        assert (await s.browser().ask("/session", bearer)).code == "session_unknown"

    with_page(tmp_path, scenario)


def test_every_answer_by_tcp_keeps_other_sites_out(tmp_path: Path) -> None:
    async def scenario(s: Served) -> None:
        page = s.browser()
        await page.sign_in(await add(s.tokens, "a", "read"))
        for target in ("/v1/status", "/v1/nope", "/session", "/openapi.json"):
            told = (await page.ask(target)).headers
            assert told["x-content-type-options"] == "nosniff"
            assert told["cross-origin-resource-policy"] == "same-origin"
            assert told["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"

    with_page(tmp_path, scenario)
