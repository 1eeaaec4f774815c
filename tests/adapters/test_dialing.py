"""Whoever has several addresses is reached, though the way to some of them is broken."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Iterator

import pytest
from tests.adapters.test_noise_tcp import ALICE, BOB, serving
from tests.dead_ends import DEAD_END, NAME, dead_end, let_it_have

from cromford.adapters.dialing import connected
from cromford.adapters.noise_tcp import connect


@contextlib.contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_peer_is_reached_though_its_first_address_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_it_have(monkeypatch, [DEAD_END, "127.0.0.1"])

    async def scenario() -> None:
        async with serving() as server:
            with dead_end(server.port):
                connection = await connect(
                    NAME, server.port, node_id=BOB.node_id, identity=ALICE, timeout_seconds=5
                )
                await connection.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("n_dead_ends", [1, 3])
def test_each_address_has_its_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch, n_dead_ends: int
) -> None:
    let_it_have(monkeypatch, [*[DEAD_END] * n_dead_ends, "127.0.0.1"])
    with listening() as port, dead_end(port), connected(NAME, port, seconds=0.2) as reached:
        assert reached.getpeername() == ("127.0.0.1", port)
        assert reached.gettimeout() == 0.2


def test_after_a_refusal_nobody_waits_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    let_it_have(monkeypatch, ["127.0.0.3", "127.0.0.1"])
    with listening() as port, connected(NAME, port, seconds=10_000) as reached:
        assert reached.getpeername() == ("127.0.0.1", port)


def test_where_nobody_answers_the_time_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    let_it_have(monkeypatch, [DEAD_END, DEAD_END])
    began = time.monotonic()
    with listening() as port, dead_end(port), pytest.raises(TimeoutError):
        connected(NAME, port, seconds=0.1)
    assert time.monotonic() - began >= 0.1


def test_who_has_no_time_left_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    let_it_have(monkeypatch, [DEAD_END])
    with listening() as port, dead_end(port), pytest.raises(TimeoutError):
        connected(NAME, port, seconds=0)


def test_where_everybody_refuses_the_last_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    let_it_have(monkeypatch, ["127.0.0.3", "127.0.0.4"])
    with listening() as port, pytest.raises(ConnectionRefusedError) as refused:
        connected(NAME, port, seconds=10_000)
    assert refused.value.strerror == "Connection refused"


def test_a_family_that_this_machine_has_not_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    let_it_have(monkeypatch, ["::2", "127.0.0.1"])

    class WithoutIpv6(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *args: int, **kwargs: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args, **kwargs)

    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    with listening() as port, connected(NAME, port, seconds=10_000) as reached:
        assert reached.getpeername() == ("127.0.0.1", port)


def test_a_name_that_nobody_knows_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match=r"not known|failure"):
        connected("no-such-host.invalid", 80, seconds=10_000)
