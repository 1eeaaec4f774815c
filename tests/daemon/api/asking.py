"""An API with operations of a test's own, and requests to it as bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from cromford.daemon.api.calling import ApiClient
from cromford.daemon.api.endpoints import ServedOperation, endpoints
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.api.handlers import Handler, Params, read_params
from cromford.daemon.api.server import ApiServer

SOCKET = "api.sock"


class SaleParams(msgspec.Struct, forbid_unknown_fields=True):
    amount_sat: int
    leaf: str = "first"


class ListParams(msgspec.Struct, forbid_unknown_fields=True):
    after: str = ""
    wait_seconds: float = 0.0
    limit: int | None = None
    is_deep: bool = False
    only: list[str] = []


async def echo(params: dict[str, Any]) -> object:
    return params


async def sell(params: dict[str, Any]) -> object:
    return read_params(params, SaleParams)


async def listed(params: dict[str, Any]) -> object:
    read_params(params, ListParams)
    return params


async def refuse(_: dict[str, Any]) -> object:
    raise ApiFailure(
        "odometer_exhausted",
        "the leaf has no epoch left",
        retryable=False,
        remediation="Rotate into a new factory.",
        exit_code=3,
    )


async def fail(params: dict[str, Any]) -> object:
    raise RuntimeError(f"a bug that knows {params}")


async def answer_with_an_object(_: dict[str, Any]) -> object:
    return object()


# What these operations do elsewhere is not looked at: only where they are, and by which verb.
METHODS: dict[str, Handler] = {
    "pay": echo,
    "wallet_send": sell,
    "events": listed,
    "join": refuse,
    "leave": fail,
    "address": answer_with_an_object,
    "factory_show": echo,
    "ban_remove": echo,
    "set_price": echo,
}
PARAMS: Params = {"wallet_send": SaleParams, "events": ListParams}


def served(methods: dict[str, Handler] = METHODS) -> tuple[ServedOperation, ...]:
    return endpoints(methods, params=PARAMS, answers={})


def in_server(
    socket_path: Path,
    scenario: Callable[[ApiClient], object],
    methods: dict[str, Handler] = METHODS,
) -> None:
    """Run a blocking scenario in a thread against a server in this process."""

    async def run() -> None:
        async with ApiServer(socket_path, served(methods)):
            await asyncio.to_thread(scenario, ApiClient(socket_path, timeout_seconds=10))

    asyncio.run(run())


@asynccontextmanager
async def raw_connection(
    socket_path: Path,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_one(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Return the status, the headers and the JSON of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split(" ")[1]), headers, json.loads(body)


def posted(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join((*lines, "", "")).encode() + body


def got(target: str, *headers: str, verb: str = "GET") -> bytes:
    return "\r\n".join((f"{verb} {target} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


JSON = "Content-Type: application/json"
GOOD = posted("/v1/payments", b'{"a":1}', JSON)


async def ask_raw(socket_path: Path, *requests: bytes) -> list[tuple[int, dict[str, str], Any]]:
    async with raw_connection(socket_path) as (reader, writer), asyncio.timeout(20):
        answers = []
        for request in requests:
            writer.write(request)
            answers.append(await read_one(reader))
        return answers


def ask_server(tmp_path: Path, *requests: bytes) -> list[tuple[int, dict[str, str], Any]]:
    async def run() -> list[tuple[int, dict[str, str], Any]]:
        async with ApiServer(tmp_path / SOCKET, served()):
            return await ask_raw(tmp_path / SOCKET, *requests)

    return asyncio.run(run())
