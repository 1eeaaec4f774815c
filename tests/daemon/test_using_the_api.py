"""What docs/using-the-api.md shows, word for word, against daemons: curl, Python, tokens by TCP."""

import asyncio
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.answers.fitting import check_fits
from tests.daemon.api.browsing import Browser
from tests.daemon.test_payments import invoice_of, with_money
from tests.daemon.town import STEP_SECONDS, Town, town

from cromford import ApiFailure, Client
from cromford.cli.api_reference import document_of_role
from cromford.daemon.api.calling import SOCKET_NAME, ApiClient
from cromford.daemon.api.operations import BY_ROLE
from cromford.daemon.api.page_files import page_files
from cromford.daemon.api.tokens import NOT_ASKED
from cromford.invoice.qr import svg_qr
from cromford.picture.factories import factories_picture
from cromford.picture.factory import factory_picture

PAGE = Path(__file__).parents[2] / "docs" / "using-the-api.md"
AMOUNT_MSAT = 7_000_000
RECEIVER_SECONDS = 300.0  # What a receiver may take to start, and what is then waited to try again.


def example(language: str) -> str:
    """Return the one example in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return str(found)


async def run(*command: str) -> subprocess.CompletedProcess[str]:
    def wait() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return await asyncio.to_thread(wait)


async def paid_by(t: Town, name: str) -> list[Any]:
    payments = (await t.call(name, "payments"))["payments"]
    return [one for one in payments if one["direction"] == "out"]


async def pays_once_with_curl(t: Town, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = tmp_path / "pay.sh"
    script.write_text(example("sh"))
    assert len([line for line in example("sh").splitlines() if line]) <= 10
    n_before = len(await paid_by(t, "alice"))
    invoice = await invoice_of(t, "bob", AMOUNT_MSAT)
    for _ in range(2):
        ran = await run("sh", str(script), str(t.base / "alice" / "regtest"), invoice)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert json.loads(ran.stdout)["status"] == "paid"
    assert len(await paid_by(t, "alice")) == n_before + 1
    refused = await run("sh", str(script), str(t.base / "alice" / "regtest"), "lnbcrt1nonsense")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["code"] == "invalid_invoice"


async def pays_once_with_python(t: Town, tmp_path: Path) -> None:
    script = tmp_path / "pay.py"
    script.write_text(example("python"))
    n_before = len(await paid_by(t, "alice"))
    ran = await run(sys.executable, str(script), str(t.base / "alice"), str(t.base / "bob"))
    assert ran.returncode == 0, ran.stderr
    plan, first, second, refused, own_msat = ran.stdout.splitlines()
    assert plan.startswith("25")
    assert first == second
    assert first.startswith("paid ")
    assert refused == "invalid_invoice"
    assert int(own_msat) >= 25_000_000
    assert len(await paid_by(t, "alice")) == n_before + 1


async def serves_what_it_says(t: Town) -> None:
    """Each daemon serves the operations of its role, and its document is the one in the docs."""
    for name, role in (("lsp", "lsp"), ("alice", "client")):
        daemon, _ = t.running[name]
        assert set(daemon.served_methods()) == {one.name for one in BY_ROLE[role]}
        socket = t.base / name / "regtest" / "api.sock"
        reader, writer = await asyncio.open_unix_connection(str(socket), limit=2**24)
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        assert json.loads(body) == document_of_role(role)


def cromford(*command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "cromford", *command)


async def posts_events_to_a_receiver(t: Town, tmp_path: Path) -> None:
    """A receiver that comes up late gets all, over a restart too, and sees who posts."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    of_alice = ("--datadir", str(t.base / "alice"), "--network", "regtest")
    url = f"http://127.0.0.1:{port}/paid"
    added = await run(
        *cromford("client", "webhook", "add", "shop", url, "--only", "address_issued", *of_alice)
    )
    assert added.returncode == 0, added.stderr
    secret = added.stdout.split()[0]
    await t.call("alice", "address")
    await t.until("alice", "webhooks", lambda answer: answer["webhooks"][0]["failures"])
    listed = await run(*cromford("client", "webhook", "list", *of_alice, "--json"))
    assert "Connection refused" in listed.stdout
    assert secret not in listed.stdout
    script = tmp_path / "receive.py"
    script.write_text(example("py"))
    receiver = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(port), env={**os.environ, "SECRET": secret},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert receiver.stdout is not None
    try:
        async with asyncio.timeout(RECEIVER_SECONDS):
            event_id, event = (await receiver.stdout.readline()).decode().split(" ", 1)
        told = (await t.call("alice", "events", only=["address_issued"]))["events"][-1]
        assert json.loads(event) == told
        assert event_id == f"evt_{told['cursor']}"
        await t.until("alice", "webhooks", lambda answer: not answer["webhooks"][0]["failures"])
        forged = urllib.request.Request(
            url,
            b"{}",
            {
                "webhook-id": "evt_1-1",
                "webhook-timestamp": str(int(time.time())),
                "webhook-signature": "v1,AAAA",
            },
        )
        with pytest.raises(urllib.error.HTTPError, match="401"):
            await asyncio.to_thread(urllib.request.urlopen, forged, timeout=STEP_SECONDS)
        await t.stop("alice")
        await t.start_client("alice")
        await t.call("alice", "address")
        async with asyncio.timeout(RECEIVER_SECONDS):
            after_restart = (await receiver.stdout.readline()).decode().split(" ", 1)
        told = (await t.call("alice", "events", only=["address_issued"]))["events"][-1]
        assert after_restart[0] == f"evt_{told['cursor']}" != event_id
    finally:
        receiver.kill()
        await receiver.wait()
    removed = await run(*cromford("client", "webhook", "remove", "shop", *of_alice))
    assert removed.stdout == "shop is removed\n"
    assert (await t.call("alice", "webhooks"))["webhooks"] == []


async def by_tcp(port: int, request: str, token: str) -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    head = f"{request} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    writer.write(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), json.loads(answer.partition(b"\r\n\r\n")[2])


async def is_asked_by_tcp(t: Town) -> None:
    alice, _ = t.running["alice"]
    port = alice.api.tcp_port
    assert port is not None
    operator = ApiClient(t.base / "alice" / "regtest" / SOCKET_NAME)
    made = await asyncio.to_thread(operator.call, "token_add", name="shop", scopes=["receive"])
    assert made["warnings"] == []
    status, told = await by_tcp(port, "GET /v1/status", made["token"])
    assert (status, told["node_id"]) == (200, (await t.call("alice", "status"))["node_id"])
    status, told = await by_tcp(port, "POST /v1/stop", made["token"])
    assert (status, told["code"]) == (403, "scope_missing")
    await asyncio.to_thread(operator.call, "token_revoke", name="shop")
    assert (await by_tcp(port, "GET /v1/status", made["token"]))[0] == 401


async def serves_a_page(t: Town) -> None:
    """Who signs in with a token has of the API what the token has, and no more than that long."""
    for name, role in (("lsp", "lsp"), ("alice", "client")):
        daemon, _ = t.running[name]
        assert daemon.api.tcp_port is not None
        assert daemon.api.tcp_url == f"http://127.0.0.1:{daemon.api.tcp_port}/"
        browser = Browser(daemon.api.tcp_port)
        assert (await browser.ask("/")).body == page_files(role)["/"].body
        operator = ApiClient(t.base / name / "regtest" / SOCKET_NAME)
        made = await asyncio.to_thread(operator.call, "token_add", name="page", scopes=["read"])
        assert (await browser.sign_in(made["token"])).json["role"] == role
        status = (await browser.ask("/v1/status")).json
        assert status["node_id"] == (await t.call(name, "status"))["node_id"]
        assert (await browser.post("/v1/stop", {})).code == "scope_missing"
        await asyncio.to_thread(operator.call, "token_revoke", name="page")
        assert (await browser.ask("/v1/status")).code == "token_unknown"


async def draws_what_the_command_line_draws(t: Town) -> None:
    client = Client(t.base / "alice")
    own = await asyncio.to_thread(client.factory_picture)
    assert own == factory_picture(await t.call("alice", "factory"))
    invoice = (await asyncio.to_thread(client.invoice, 1_000))["invoice"]
    assert await asyncio.to_thread(client.qr, invoice) == svg_qr(invoice)
    with pytest.raises(ApiFailure) as refused:
        await asyncio.to_thread(client.qr, "")
    assert (refused.value.code, refused.value.param) == ("invalid_param", "text")
    lsp = ApiClient(t.base / "lsp" / "regtest" / SOCKET_NAME)
    listed = await t.call("lsp", "factories")
    assert await asyncio.to_thread(lsp.call, "factories_picture") == factories_picture(listed)
    factory_id = listed["factories"][0]["factory_id"]
    drawn = await asyncio.to_thread(lsp.call, "factory_show_picture", factory_id=factory_id)
    assert drawn == factory_picture(await t.call("lsp", "factory_show", factory_id=factory_id))
    check_fits(await asyncio.to_thread(lsp.call, "plan", clients=16), "lsp", "plan")


async def follows_events(t: Town) -> None:
    client = Client(t.base / "alice")

    def first_three() -> list[Any]:
        events = client.events()
        return [next(events) for _ in range(3)]

    told = await asyncio.to_thread(first_three)
    assert told == (await t.call("alice", "events"))["events"][:3]
    with pytest.raises(ApiFailure) as refused:
        await asyncio.to_thread(Client(t.base / "lsp").status)
    assert refused.value.code == "wrong_role"
    with pytest.raises(ApiFailure) as missing:
        await asyncio.to_thread(Client(t.base / "nobody").status)
    assert missing.value.code == "daemon_not_running"


def test_the_examples_of_the_documentation_do_what_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="cromford.daemon.shell")

    async def main() -> None:
        async with town(tmp_path) as t:
            await t.stop("lsp")
            t.more = {name: {"api_listen": ("127.0.0.1", 0)} for name in ("lsp", "alice")}
            await t.start_lsp()
            await with_money(t)
            await serves_what_it_says(t)
            await is_asked_by_tcp(t)
            await serves_a_page(t)
            for name in ("lsp", "alice"):
                daemon, _ = t.running[name]
                assert f"page_served url={daemon.api.tcp_url}" in caplog.messages
            await draws_what_the_command_line_draws(t)
            await follows_events(t)
            await pays_once_with_python(t, tmp_path)
            await pays_once_with_curl(t, tmp_path)

    asyncio.run(main())


def test_the_receiver_of_the_documentation_is_told_what_happens(tmp_path: Path) -> None:
    async def main() -> None:
        async with town(tmp_path) as t:
            await t.start_client("alice")
            await posts_events_to_a_receiver(t, tmp_path)
            operator = ApiClient(t.base / "alice" / "regtest" / SOCKET_NAME)
            asked = {"name": "shop", "scopes": ["read"]}
            made = await asyncio.to_thread(operator.call, "token_add", **asked)
            assert made["warnings"] == [NOT_ASKED], "she is on her unix socket alone"

    asyncio.run(main())
