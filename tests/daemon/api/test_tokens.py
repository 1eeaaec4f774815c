"""Who may ask over TCP, for what, and how: tokens, scopes, hosts."""

import asyncio
import hashlib
import json
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from tests.daemon.api.asking import METHODS, SOCKET, echo, got, posted, read_one, served

from cromford.cli.configuration.run_options import api_listen
from cromford.cli.failures import CommandFailed
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.gate import TokenGate
from cromford.daemon.api.handlers import Handler
from cromford.daemon.api.operations import INCLUDED, OPERATIONS, Scope
from cromford.daemon.api.server import ApiServer, TcpListener
from cromford.daemon.api.tokens import FILE_NAME, NOT_ASKED, TOKENS_MAX, BadTokens, Tokens
from cromford.listening import CannotListen

STREAM = "Accept: text/event-stream"
Asked = Callable[[bytes], Awaitable[tuple[int, dict[str, str], Any]]]


def add(tokens: Tokens, name: str, *scopes: str) -> str:
    asked = tokens.methods()["token_add"]({"name": name, "scopes": list(scopes)})
    answer: Any = asyncio.run(_result(asked))
    token: str = answer["token"]
    return token


def revoke(tokens: Tokens, name: str) -> Any:
    return asyncio.run(_result(tokens.methods()["token_revoke"]({"name": name})))


def listed(tokens: Tokens) -> Any:
    return asyncio.run(_result(tokens.methods()["tokens"]({})))


def allowed(tokens: Tokens, presented: str) -> frozenset[Scope]:
    return tokens.scopes(tokens.find(presented))


async def _result(asked: Awaitable[object]) -> object:
    return await asked


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


def over_tcp(
    tmp_path: Path, tokens: Tokens, scenario: Callable[[Asked, ApiServer], Awaitable[None]]
) -> None:
    """Play a scenario against a server that listens on TCP, too."""

    async def run() -> None:
        gate = TokenGate(tokens, host="127.0.0.1")
        tcp = TcpListener(host="127.0.0.1", port=0, gate=gate)
        methods = {**METHODS, **tokens.methods(), "status": echo}
        async with (
            ApiServer(tmp_path / SOCKET, served(methods), tcp=tcp) as server,
            asyncio.timeout(20),
        ):

            async def ask(request: bytes) -> tuple[int, dict[str, str], Any]:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
                try:
                    writer.write(request)
                    return await read_one(reader)
                finally:
                    writer.close()

            await scenario(ask, server)

    asyncio.run(run())


def test_a_token_is_kept_as_a_hash_in_a_file_of_its_owner(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token = add(tokens, "shop", "receive", "read")
    kept = (tmp_path / FILE_NAME).read_text()
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert token not in kept
    assert hashlib.sha256(token.encode()).hexdigest() in kept
    assert len(token.removeprefix("cromford_")) >= 43  # 32 bytes
    (shown,) = listed(tokens)["tokens"]
    assert (shown["name"], shown["scopes"]) == ("shop", ["read", "receive"])
    assert set(shown) == {"name", "scopes", "made_at"}
    assert allowed(Tokens(tmp_path), token) == {Scope.READ, Scope.RECEIVE}


@pytest.mark.parametrize("are_asked", [True, False])
def test_a_token_that_nobody_is_asked_for_is_made_and_says_so(
    are_asked: bool,  # noqa: FBT001 - a case
    tmp_path: Path,
) -> None:
    """An API that is served by TCP later asks for the tokens that were made before."""
    tokens = Tokens(tmp_path, are_asked=are_asked)
    asked = tokens.methods()["token_add"]({"name": "shop", "scopes": ["read"]})
    made: Any = asyncio.run(_result(asked))
    assert made["warnings"] == ([] if are_asked else [NOT_ASKED])
    assert allowed(Tokens(tmp_path), made["token"]) == {Scope.READ}


def test_no_two_tokens_are_alike_and_a_revoked_one_is_none(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    first, second = add(tokens, "a", "read"), add(tokens, "b", "spend")
    assert first != second
    assert allowed(tokens, second) == {Scope.READ, Scope.RECEIVE, Scope.SPEND}
    assert revoke(tokens, "b")["name"] == "b"
    with pytest.raises(ApiFailure) as refused:
        allowed(tokens, second)
    assert (refused.value.code, refused.value.status) == ("token_unknown", 401)
    assert allowed(tokens, first) == {Scope.READ}
    with pytest.raises(ApiFailure) as missing:
        revoke(tokens, "b")
    assert (missing.value.code, missing.value.exit_code) == ("token_not_found", 4)
    assert [one["name"] for one in listed(Tokens(tmp_path))["tokens"]] == ["a"]


def test_what_no_token_can_be_is_refused(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    add(tokens, "a", "read")
    for name, scopes, param in (("", "read", "name"), ("a b", "read", "name"), ("b", "", "scopes")):
        with pytest.raises(InvalidParam) as refused:
            add(tokens, name, *scopes.split())
        assert refused.value.param == param
    with pytest.raises(InvalidParam, match="scopes"):
        add(tokens, "b", "everything")
    with pytest.raises(ApiFailure) as taken:
        add(tokens, "a", "read")
    assert taken.value.code == "token_exists"
    for number in range(TOKENS_MAX - 1):
        add(tokens, f"n{number}", "read")
    with pytest.raises(ApiFailure) as full:
        add(tokens, "more", "read")
    assert full.value.code == "too_many_tokens"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"version":2,"tokens":[]}',
        b'{"version":1,"tokens":[{}]}',
        b'{"version":1,"tokens":[{"name":"a","scopes":["read"],"sha256":"\xc3\xa9","made_at":1}]}',
    ],
)
def test_a_file_that_cannot_be_understood_lets_nobody_in(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(BadTokens, match=r"tokens\.json"):
        Tokens(tmp_path)


def test_a_file_that_is_a_link_is_written_where_it_leads(tmp_path: Path) -> None:
    """Else a token that was revoked would be there again with whoever makes the link anew."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / FILE_NAME).symlink_to(elsewhere / FILE_NAME)
    add(Tokens(home), "a", "read")
    revoke(Tokens(home), "a")
    assert (home / FILE_NAME).is_symlink()
    assert listed(Tokens(elsewhere)) == {"tokens": []}
    assert [path.name for path in (*home.iterdir(), *elsewhere.iterdir())] == [FILE_NAME] * 2


def test_a_disk_that_refuses_leaves_the_tokens_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(tmp_path)
    token = add(tokens, "a", "read")

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cromford.daemon.api.tokens.replace_file", full)
    with pytest.raises(ApiFailure, match="No space left") as refused:
        revoke(tokens, "a")
    assert refused.value.retryable
    assert allowed(tokens, token) == {Scope.READ}


def test_over_tcp_a_request_needs_a_token_of_its_scope(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    reader, payer = add(tokens, "reader", "read"), add(tokens, "payer", "spend")
    operator = add(tokens, "operator", "operate")

    async def scenario(ask: Asked, _server: ApiServer) -> None:
        status, headers, body = await ask(got("/v1/status"))
        assert (status, body["code"], body["exit_code"]) == (401, "token_missing", 3)
        assert headers["www-authenticate"] == "Bearer"
        for header in ("Authorization: Basic YTpi", "Authorization: Bearer ", bearer(reader[:-1])):
            status, _, body = await ask(got("/v1/status", header))
            assert status == 401
        for token in (reader, payer, operator):
            assert (await ask(got("/v1/status", bearer(token))))[0] == 200
        asked = {token: posted("/v1/payments", b"", bearer(token)) for token in (reader, payer)}
        status, _, body = await ask(asked[reader])
        assert (status, body["code"]) == (403, "scope_missing")
        assert "pay needs a token with the scope spend" in body["message"]
        assert (await ask(asked[payer]))[0] == 200
        assert (await ask(posted("/v1/lobby/join", b"", bearer(payer))))[0] == 403
        assert (await ask(got("/v1/nope")))[0] == 401
        assert (await ask(got("/v1/nope", bearer(reader))))[0] == 404

    over_tcp(tmp_path, tokens, scenario)


def test_a_token_is_made_over_the_unix_socket_only_and_counts_at_once(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    operator = add(tokens, "operator", "operate")

    async def scenario(ask: Asked, _server: ApiServer) -> None:
        status, _, body = await ask(got("/v1/tokens", bearer(operator)))
        assert (status, body["code"]) == (403, "scope_missing")
        assert "unix socket only" in body["message"]
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
        wanted = json.dumps({"name": "new", "scopes": ["read"]}).encode()
        writer.write(posted("/v1/tokens", wanted, "Content-Type: application/json"))
        made = (await read_one(reader))[2]["token"]
        assert (await ask(got("/v1/status", bearer(made))))[0] == 200
        writer.write(got("/v1/tokens/new", verb="DELETE"))
        assert (await read_one(reader))[0] == 200
        assert (await ask(got("/v1/status", bearer(made))))[0] == 401
        writer.close()

    over_tcp(tmp_path, tokens, scenario)


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("127.0.0.1:8080", True),
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("[::1]:80", True),
        ("10.0.0.7", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example:8080", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_a_name_that_is_not_ours_is_refused_with_the_right_token_too(
    tmp_path: Path, host: str, *, is_served: bool
) -> None:
    tokens = Tokens(tmp_path)
    token = add(tokens, "a", "read")
    gate = TokenGate(tokens, host="127.0.0.1")
    headers = Headers({"host": host, "authorization": f"Bearer {token}"})
    if is_served:
        assert gate(headers) == {Scope.READ}
        return
    with pytest.raises(ApiFailure) as refused:
        gate(headers)
    assert (refused.value.code, refused.value.status) == ("host_refused", 403)


def test_an_address_that_is_taken_is_said_and_the_unix_socket_goes_too(tmp_path: Path) -> None:
    async def run() -> None:
        other = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        gate = TokenGate(Tokens(tmp_path), host="127.0.0.1")
        tcp = TcpListener(host="127.0.0.1", port=port, gate=gate)
        with pytest.raises(CannotListen, match="for the API: another program listens there"):
            await ApiServer(tmp_path / SOCKET, served(), tcp=tcp).start()
        assert not (tmp_path / SOCKET).exists()
        other.close()
        await other.wait_closed()

    asyncio.run(run())


def test_each_scope_includes_what_it_says_and_every_act_needs_more_than_reading() -> None:
    assert INCLUDED[Scope.OPERATE] == set(Scope)
    for operation in OPERATIONS.values():
        assert operation.verb == "GET" or operation.scope != Scope.READ, operation
    spending = {"pay", "wallet_send", "wallet_split", "liquidity_buy"}
    assert all(OPERATIONS[name].scope == Scope.SPEND for name in spending)
    assert OPERATIONS["invoice"].scope == Scope.RECEIVE


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "box.example"])  # noqa: S104 - it is refused
def test_other_machines_are_let_in_only_where_somebody_says_so(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandFailed, match="an address of this machine alone") as refused:
        api_listen({"api.listen": (host, 80), "api.beyond_loopback": False})
    assert "--api-beyond-loopback" in refused.value.remediation
    assert api_listen({"api.listen": (host, 80), "api.beyond_loopback": True}) == (host, 80)
    assert "WARNING" in capsys.readouterr().err
    for own in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert api_listen({"api.listen": (own, 80), "api.beyond_loopback": False}) == (own, 80)
    assert api_listen({"api.listen": None, "api.beyond_loopback": False}) is None
    assert capsys.readouterr().err == ""


def test_a_stream_ends_once_its_token_is_revoked_and_tells_nothing_more(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    made = [add(tokens, name, "read") for name in ("a", "b")]
    followers: list[asyncio.Queue[bytes]] = []

    async def stream(_params: dict[str, Any], _last_id: str) -> AsyncGenerator[bytes, None]:
        told: asyncio.Queue[bytes] = asyncio.Queue()
        followers.append(told)
        yield b": begun\n\n"
        while True:
            yield await told.get()

    async def run() -> None:
        tcp = TcpListener(host="127.0.0.1", port=0, gate=TokenGate(tokens, host="127.0.0.1"))
        methods: dict[str, Handler] = {"events": echo}
        async with (
            ApiServer(
                tmp_path / SOCKET, served(methods), tcp=tcp, streams={"events": stream}
            ) as server,
            asyncio.timeout(20),
        ):
            readers, writers = [], []
            for token in made:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
                readers.append(reader)
                writers.append(writer)
                writer.write(got("/v1/events", bearer(token), STREAM))
                await reader.readuntil(b"begun\n\n")
                followers[-1].put_nowait(b": before\n\n")
                await reader.readuntil(b"before\n\n")
            await tokens.methods()["token_revoke"]({"name": "a"})
            for told in followers:
                told.put_nowait(b": after\n\n")
            # The last chunk (RFC 9112, section 7.1).
            assert b"after" not in await readers[0].readuntil(b"\r\n0\r\n\r\n")
            await readers[1].readuntil(b"after\n\n")
            for writer in writers:
                writer.close()

    asyncio.run(run())


def test_who_waits_for_events_hears_nothing_once_its_token_is_revoked(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token = add(tokens, "feed", "read")
    waits, happened = asyncio.Event(), asyncio.Event()

    async def events(_params: dict[str, Any]) -> object:
        waits.set()
        await happened.wait()
        return {"events": ["what happened since"]}

    async def stream(_params: dict[str, Any], _last_id: str) -> AsyncGenerator[bytes, None]:
        yield b": nobody follows\n\n"

    async def run() -> None:
        tcp = TcpListener(host="127.0.0.1", port=0, gate=TokenGate(tokens, host="127.0.0.1"))
        async with (
            ApiServer(
                tmp_path / SOCKET, served({"events": events}), tcp=tcp, streams={"events": stream}
            ) as server,
            asyncio.timeout(20),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
            writer.write(got("/v1/events?wait_seconds=60", bearer(token)))
            await waits.wait()
            await tokens.methods()["token_revoke"]({"name": "feed"})
            happened.set()
            status, _, body = await read_one(reader)
            assert (status, body["code"]) == (401, "token_unknown")
            writer.close()

    asyncio.run(run())


def test_a_request_that_was_begun_with_a_token_is_refused_once_that_is_revoked(
    tmp_path: Path,
) -> None:
    """A request may take half a minute to arrive, and whoever found a token would begin some."""
    tokens = Tokens(tmp_path)
    token = add(tokens, "leaked", "spend")
    said = (bearer(token), "Content-Type: application/json")
    whole = posted("/v1/wallet/sends", b'{"amount_sat": 1}', *said)

    async def scenario(_ask: Asked, server: ApiServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
        writer.write(whole[:-1])
        await writer.drain()
        await asyncio.sleep(0.1)
        await tokens.methods()["token_revoke"]({"name": "leaked"})
        writer.write(whole[-1:])
        status, _, answer = await read_one(reader)
        assert (status, answer["code"]) == (401, "token_unknown")
        writer.close()

    over_tcp(tmp_path, tokens, scenario)
