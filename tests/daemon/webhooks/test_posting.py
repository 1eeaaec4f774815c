"""One post: what it may take is bounded, and TLS is checked."""

import asyncio
import base64
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from tests.daemon.webhooks.receiver import Receiver, play, status, tls
from tests.dead_ends import DEAD_END, NAME, dead_end, let_it_have

from cromford.daemon.webhooks.kept import Target
from cromford.daemon.webhooks.posting import (
    ANSWER_SECONDS,
    ANSWER_SIZE_MAX,
    NO_THREAD,
    Message,
    PostFailed,
    look_up,
    post,
    signature,
)

KEY = bytes(range(32))
MESSAGE = Message(message_id="evt_7f-1", body=b'{"event":"created"}')


async def posted(
    port: int, *, seconds: float = ANSWER_SECONDS, host: str = "127.0.0.1", is_tls: bool = False
) -> None:
    target = Target(is_tls=is_tls, host=host, port=port, path="/")
    await post(target, KEY, MESSAGE, unix_time=1_700_000_000, seconds=seconds)


def test_a_signature_is_that_of_the_standard() -> None:
    # The example of the Standard Webhooks' own libraries.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message = Message(message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", body=b'{"test": 2432232314}')
    made = signature(key, message, unix_time=1_614_265_330)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("number", [200, 201, 204, 299])
def test_every_status_of_success_is_taken(number: int) -> None:
    async def scenario() -> None:
        async with Receiver([status(number)]).open() as receiver:
            await posted(receiver.port)
        assert receiver.got[0].body == MESSAGE.body

    play(scenario)


def test_of_a_long_answer_little_is_read() -> None:
    async def scenario() -> None:
        size = 100 * ANSWER_SIZE_MAX
        endless = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        async with Receiver([endless + bytes(2 * ANSWER_SIZE_MAX)]).open() as receiver:
            await posted(receiver.port)  # It waits for no more of it.

    play(scenario)


def test_where_no_thread_can_begin_it_is_not_taken_and_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # What CPython says: `pids.max`, `ulimit -u`.

    async def scenario() -> None:
        async with Receiver([status(200)]).open() as receiver:
            with monkeypatch.context() as full:
                full.setattr(threading.Thread, "start", refuse)
                with pytest.raises(PostFailed, match=NO_THREAD):
                    await posted(receiver.port)
                target = Target(is_tls=False, host="127.0.0.1", port=receiver.port, path="/")
                assert await look_up(target) == NO_THREAD
            await posted(receiver.port)
        assert len(receiver.got) == 1

    play(scenario)


def test_silence_ends_after_a_time() -> None:
    async def scenario() -> None:
        async with Receiver(is_silent=True).open() as receiver:
            with pytest.raises(PostFailed, match=r"within 0\.05 s"):
                await posted(receiver.port, seconds=0.05)
            await receiver.is_left.wait()

    play(scenario)


@pytest.mark.parametrize("said", [b"HTTP/1.1 100 Go on\r\n\r\n", b"a"], ids=["go_on", "trickle"])
def test_who_says_something_now_and_then_has_no_longer_than_who_is_silent(said: bytes) -> None:
    async def scenario() -> None:
        left = asyncio.Event()

        async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    writer.write(said)
                    await writer.drain()
                    await asyncio.sleep(0.01)
            except ConnectionError:
                left.set()
            finally:
                writer.close()

        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        with pytest.raises(PostFailed, match=r"within 0\.2 s"):
            await posted(server.sockets[0].getsockname()[1], seconds=0.2)
        await left.wait()
        server.close()

    play(scenario)


def test_a_handshake_that_never_ends_is_given_up() -> None:
    async def scenario() -> None:
        left = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(65_536):
                pass
            left.set()
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        posting = asyncio.create_task(posted(port, seconds=100_000.0, is_tls=True))
        await asyncio.sleep(0.05)
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting
        await left.wait()
        server.close()

    play(scenario)


def test_who_does_not_speak_tls_is_not_spoken_to_without() -> None:
    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert b"evt_7f" not in await reader.read(1_024)
            writer.write(status(200))
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        with pytest.raises(PostFailed, match="TLS: WRONG_VERSION_NUMBER"):
            await posted(server.sockets[0].getsockname()[1], is_tls=True)
        server.close()

    play(scenario)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN=a -addext subjectAltName=IP:127.0.0.1,DNS:{NAME} "
        f"-out {paths[0]} -keyout {paths[1]}"
    )
    subprocess.run(made.split(), check=True, capture_output=True, timeout=60)
    return paths


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        async with Receiver().open(host="127.0.0.1", port=0, ssl=tls(*certificate)) as receiver:
            with pytest.raises(PostFailed, match="TLS: self-signed certificate"):
                await posted(receiver.port, is_tls=True)
        assert receiver.got == []

    play(scenario)


def test_by_tls_it_is_posted_to_whom_the_certificate_names(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    async def scenario() -> None:
        async with Receiver().open(host="127.0.0.1", port=0, ssl=tls(*certificate)) as receiver:
            await posted(receiver.port, is_tls=True)
            with pytest.raises(PostFailed, match="TLS: Hostname mismatch"):
                await posted(receiver.port, is_tls=True, host="localhost")
        assert receiver.got[0].headers["host"] == f"127.0.0.1:{receiver.port}"
        assert len(receiver.got) == 1

    play(scenario)


@pytest.mark.parametrize("is_tls", [False, True])
def test_who_has_two_addresses_is_posted_to_though_one_leads_nowhere(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, *, is_tls: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    let_it_have(monkeypatch, [DEAD_END, "127.0.0.1"])
    by_tls = {"ssl": tls(*certificate)} if is_tls else {}

    async def scenario() -> None:
        async with Receiver().open(host="127.0.0.1", port=0, **by_tls) as receiver:
            with dead_end(receiver.port):
                await posted(receiver.port, host=NAME, is_tls=is_tls, seconds=2)
        assert receiver.got[0].body == MESSAGE.body

    play(scenario)
