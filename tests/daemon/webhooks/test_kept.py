"""What is kept of webhooks and what is refused: addresses, names, a damaged file."""

import base64
import json
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.daemon.webhooks.receiver import STEP_SECONDS, House, play

from cromford.answers.webhooks import NewWebhook
from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.operations import OPERATIONS
from cromford.daemon.api.webhooks import WEBHOOKS_MAX
from cromford.daemon.webhooks import delivering
from cromford.daemon.webhooks.kept import (
    FILE_NAME,
    URL_LENGTH_MAX,
    BadUrl,
    BadWebhooks,
    Target,
    Webhook,
    read_webhooks,
    target_of,
    write_webhooks,
)
from cromford.daemon.webhooks.posting import look_up

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEPT = Webhook(
    name="shop", url="https://a.example/b", only=(), secret=SECRET, made_at=1, cursor="7f-0"
)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://a.example", (True, "a.example", 443, "/")),
        ("https://A.example:8443/b/c?d=e", (True, "a.example", 8443, "/b/c?d=e")),
        ("https://192.0.2.7?d", (True, "192.0.2.7", 443, "/?d")),
        ("https://[2001:db8::1]:444/b", (True, "2001:db8::1", 444, "/b")),
        ("http://127.0.0.1", (False, "127.0.0.1", 80, "/")),
        ("http://127.8.8.8:8080/b", (False, "127.8.8.8", 8080, "/b")),
        ("http://localhost:8080/b", (False, "localhost", 8080, "/b")),
        ("http://[::1]:8080/b", (False, "::1", 8080, "/b")),
    ],
)
def test_an_address_leads_where_it_says(url: str, target: tuple[Any, ...]) -> None:
    is_tls, host, port, path = target
    assert target_of(url) == Target(is_tls=is_tls, host=host, port=port, path=path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "expected 1..2048 characters, received 0"),
        ("https://a.example/" + "b" * URL_LENGTH_MAX, "received 2066"),
        ("http://a.example/b", "expected https, or http to an address of this machine alone"),
        ("http://192.168.1.7/b", "this machine alone"),
        ("http://0.0.0.0/b", "this machine alone"),
        ("http://localhost.example/b", "this machine alone"),
        ("http://127.0.0.1.example/b", "this machine alone"),
        ("https://user:hidden@a.example/b", "expected no user and no password, received some"),
        ("https://hidden@a.example/b", "expected no user"),
        ("http://127.0.0.1@hidden.example/b", "expected no user"),
        ("https://a.example/b#c", "expected no fragment"),
        ("https://a.example/b#", "expected no fragment"),
        ("ftp://a.example/b", r"expected https://HOST\[:PORT\]\[/PATH\], received 'ftp:"),
        ("a.example/b", "received 'a.example/b'"),
        ("https:///b", "received 'https:///b'"),
        ("https://a.example:0/b", "received 'https://a.example:0/b'"),
        ("https://a.example:65536/b", "a host and a port that can be, received a port out of"),
        ("https://a.example:hidden/b", "a host and a port that can be, received others"),
        ("https://[::1/b", "a host and a port that can be, received others"),
        ("https://a.example/b c", "visible ASCII"),
        ("https://a.example/b\r\nX: y", "visible ASCII"),
        ("https://\u00e4.example/b", "visible ASCII"),
    ],
)
def test_an_address_to_which_nothing_is_posted_is_refused(
    tmp_path: Path, url: str, said: str
) -> None:
    with pytest.raises(BadUrl, match=said) as bad:
        target_of(url)
    assert "hidden" not in str(bad.value)

    async def scenario() -> None:
        house = House(tmp_path)
        with pytest.raises(InvalidParam, match="url: expected") as refused:
            await house.ask("webhook_add", name="shop", url=url)
        assert refused.value.param == "url"
        assert not (tmp_path / FILE_NAME).exists()

    play(scenario)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://a..example/b", "expected a host that can be looked up, received 'a..example'"),
        (f"https://{64 * 'a'}.example/b", "expected a host that can be looked up"),
        ("https://{host}/b", "expected a host that can be looked up, received '{host}'"),
        ("https://a,b.example/b", "expected a host that can be looked up"),
        ("https://0.0.0.0/b", "expected an address of one machine, received '0.0.0.0'"),
        ("https://[::]/b", "expected an address of one machine, received '::'"),
        ("https://224.0.0.1/b", "expected an address of one machine"),
    ],
)
def test_a_host_that_nobody_could_ever_be_asked_for_is_refused_at_once_and_kept_if_it_was(
    tmp_path: Path, url: str, said: str
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        with pytest.raises(InvalidParam) as refused:
            await house.ask("webhook_add", name="shop", url=url)
        assert refused.value.param == "url"
        assert said in str(refused.value)
        assert not (tmp_path / FILE_NAME).exists()

    play(scenario)
    # What an earlier version took keeps no daemon from its start.
    write_webhooks(tmp_path, [msgspec.structs.replace(KEPT, url=url)])
    assert [one.url for one in read_webhooks(tmp_path)] == [url]


def test_a_host_that_is_not_known_now_is_taken_and_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        house.unknown["away.example"] = "Name or service not known"
        made = await house.ask("webhook_add", name="a", url="https://away.example/b")
        (warning,) = made["warnings"]
        assert warning.startswith("away.example is not known now: Name or service not known. ")
        assert (await house.ask("webhook_add", name="b", url=KEPT.url))["warnings"] == []
        assert [one.name for one in read_webhooks(tmp_path)] == ["a", "b"]

    play(scenario)


def test_a_name_is_looked_up_without_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()

    def asked(host: str, *_args: object, **_named: object) -> list[object]:
        if host == "slow.example":
            is_over.wait(STEP_SECONDS)
        if host == "none.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return []

    async def scenario() -> None:
        for host, said in (
            ("none.example", "Name or service not known"),
            ("slow.example", "no answer within 0.01 s"),
            ("a.example", None),
        ):
            target = target_of(f"https://{host}/b")
            seconds = 0.01 if host == "slow.example" else STEP_SECONDS
            assert await look_up(target, seconds=seconds) == said
        is_over.set()

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    play(scenario)


def test_a_secret_is_drawn_shown_once_and_kept_for_its_owner(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        made: NewWebhook = await house.ask(
            "webhook_add", name="shop", url=KEPT.url, only=["invoice_paid"]
        )
        secret = made["secret"]
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
        assert await house.add(1, name="b") != secret
        path = tmp_path / FILE_NAME
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert secret in path.read_text()
        listed = await house.ask("webhooks")
        assert [one["name"] for one in listed["webhooks"]] == ["shop", "b"]
        removed = await house.ask("webhook_remove", name="shop")
        assert secret not in json.dumps([listed, removed])
        assert made == removed | {"secret": secret, "warnings": []}
        assert secret not in path.read_text()
        assert [one.name for one in read_webhooks(tmp_path)] == ["b"]

    play(scenario)


def test_what_no_webhook_can_be_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        await house.add(1, name="a")
        for name in ("", "a b", "-a", "a" * 65):
            with pytest.raises(InvalidParam, match=r"name: expected 1\.\.64") as refused:
                await house.add(1, name=name)
            assert refused.value.param == "name"
        with pytest.raises(InvalidParam, match="did you mean invoice_paid") as unknown:
            await house.add(1, name="b", only=["invoice_payed"])
        assert unknown.value.param == "only"
        with pytest.raises(ApiFailure) as taken:
            await house.add(1, name="a")
        assert taken.value.code == "webhook_exists"
        with pytest.raises(ApiFailure) as missing:
            await house.ask("webhook_remove", name="b")
        assert (missing.value.code, missing.value.exit_code) == ("webhook_not_found", 4)
        for number in range(WEBHOOKS_MAX - 1):
            await house.add(1, name=f"n{number}")
        with pytest.raises(ApiFailure) as full:
            await house.add(1, name="more")
        assert full.value.code == "too_many_webhooks"

    play(scenario)


def test_a_disk_that_refuses_leaves_the_webhooks_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        house = House(tmp_path)
        await house.add(1, name="a")

        def full(_home: Path, _webhooks: list[Webhook]) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(delivering, "write_webhooks", full)
        for asked in (house.add(1, name="b"), house.ask("webhook_remove", name="a")):
            with pytest.raises(ApiFailure, match="No space left") as refused:
                await asked
            assert refused.value.retryable
        assert [one["name"] for one in (await house.ask("webhooks"))["webhooks"]] == ["a"]

    play(scenario)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    assert read_webhooks(tmp_path) == ()
    kept = Webhook(
        name="b",
        url="http://localhost:1/",
        only=("invoice_paid",),
        secret=SECRET,
        made_at=2,
        cursor="7f-9",
        delivered_at=3,
        missed_after="7f-1",
    )
    write_webhooks(tmp_path, [KEPT, kept])
    assert read_webhooks(tmp_path) == (KEPT, kept)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"url": "http://a.example"}, "shop: url: expected https"),
        ({"only": ["nonsense"]}, "shop: only: there is no event 'nonsense'"),
        ({"secret": SECRET[:-4]}, "shop: secret: expected whsec_ and 32 bytes in Base64"),
        ({"secret": SECRET.removeprefix("whsec_")}, "shop: secret: expected whsec_"),
        ({"cursor": 1}, "Expected `str`"),
        ({"more": 1}, "more"),
    ],
)
def test_a_field_that_cannot_be_is_named_without_the_secret(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    write_webhooks(tmp_path, [KEPT])
    path = tmp_path / FILE_NAME
    document = json.loads(path.read_bytes())
    document["webhooks"][0] |= changed
    path.write_text(json.dumps(document))
    with pytest.raises(BadWebhooks, match=said) as bad:
        House(tmp_path)
    assert str(path) in str(bad.value)
    assert SECRET[6:20] not in str(bad.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"version":2,"webhooks":[]}'])
def test_a_file_that_cannot_be_understood_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(BadWebhooks, match=r"webhooks\.json"):
        House(tmp_path)


def test_a_name_that_is_there_twice_is_said(tmp_path: Path) -> None:
    write_webhooks(tmp_path, [KEPT, KEPT])
    with pytest.raises(BadWebhooks, match="shop: expected it once, received it twice"):
        House(tmp_path)


def test_no_token_is_enough_to_make_see_or_remove_one() -> None:
    names = ("webhook_add", "webhooks", "webhook_remove")
    assert all(OPERATIONS[name].scope is None for name in names)
