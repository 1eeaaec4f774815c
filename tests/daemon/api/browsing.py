"""A browser at a daemon's page, in as much as it matters: its cookies, its headers, its key."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.daemon.api.asking import METHODS, SOCKET, echo, served

from cromford.daemon.api.server import ApiServer
from cromford.daemon.api.tokens import Tokens
from cromford.daemon.serving import page_listener

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code: str = self.json["code"]
        return code


@dataclass
class Browser:
    """One that has a page of ours open, or of `origin`; the server's port is what it asks."""

    port: int
    origin: str = ""
    host: str = ""
    site: str = "same-origin"
    jar: dict[str, str] = field(default_factory=dict)
    key: str = ""

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.jar.items())

    async def opened(
        self, target: str, *more: str, verb: str = "GET", body: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Ask, and return where the answer comes."""
        host = self.host or f"{HOST}:{self.port}"
        lines = [f"{verb} {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
        lines += [f"Sec-Fetch-Site: {self.site}"] if self.site else []
        if verb not in {"GET", "HEAD"} or self.origin:
            lines.append(f"Origin: {self.origin or f'http://{host}'}")
        lines += [f"Cookie: {self.cookie}"] if self.jar else []
        lines += [f"Cromford-Key: {self.key}"] if self.key else []
        reader, writer = await asyncio.open_connection(HOST, self.port, limit=2**24)
        writer.write("\r\n".join((*lines, *more, "", "")).encode() + body)
        return reader, writer

    async def ask(self, target: str, *more: str, verb: str = "GET", body: bytes = b"") -> Answer:
        reader, writer = await self.opened(target, "Connection: close", *more, verb=verb, body=body)
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *lines = head.decode().split("\r\n")
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(": ") for line in lines):
            assert name.lower() not in headers, name
            headers[name.lower()] = value
        if "set-cookie" in headers:
            self._keep(headers["set-cookie"])
        return Answer(int(first.split(" ")[1]), headers, answer)

    def _keep(self, told: str) -> None:
        pair, *attributes = told.split("; ")
        name, _, value = pair.partition("=")
        if "Max-Age=0" in attributes:
            self.jar.pop(name, None)
        else:
            self.jar[name] = value

    async def post(self, target: str, said: object, *more: str) -> Answer:
        body = json.dumps(said).encode()
        return await self.ask(
            target, "Content-Type: application/json", *more, verb="POST", body=body
        )

    async def sign_in(self, token: str) -> Answer:
        answer = await self.post("/session", {"token": token})
        if answer.status == 200:
            self.key = answer.json["key"]
        return answer


async def add(tokens: Tokens, name: str, *scopes: str) -> str:
    made: Any = await tokens.methods()["token_add"]({"name": name, "scopes": list(scopes)})
    token: str = made["token"]
    return token


async def revoke(tokens: Tokens, name: str) -> None:
    await tokens.methods()["token_revoke"]({"name": name})


@dataclass
class Served:
    """A daemon's API with a page before it, and what it tells those who follow."""

    tokens: Tokens
    server: ApiServer
    told: list[asyncio.Queue[bytes]]

    def browser(self, **more: Any) -> Browser:
        port = self.server.tcp_port
        assert port is not None
        return Browser(port, **more)


def with_page(
    tmp_path: Path, scenario: Callable[[Served], Awaitable[None]], *, role: str = "client"
) -> None:
    """Play a scenario against a server with a page."""
    told: list[asyncio.Queue[bytes]] = []

    async def stream(_params: dict[str, Any], _last_id: str) -> AsyncGenerator[bytes, None]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        told.append(queue)
        yield b": begun\n\n"
        while True:
            yield await queue.get()

    async def run() -> None:
        tokens = Tokens(tmp_path)
        tcp = page_listener(role, tokens, HOST, 0)
        methods = {**METHODS, **tokens.methods(), "status": echo}
        async with (
            ApiServer(
                tmp_path / SOCKET, served(methods), tcp=tcp, streams={"events": stream}
            ) as server,
            asyncio.timeout(20),
        ):
            await scenario(Served(tokens, server, told))

    asyncio.run(run())
