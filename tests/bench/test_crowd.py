"""A small crowd over sockets: its factory is built, every branch verified, one client leaves."""

import asyncio
import random
from dataclasses import replace

import pytest
from bench.crowd_clients import InTurn, Turns

from bench import crowd
from cromford.ports import ConnectionLost
from cromford.wire.ping import ping

N_CLIENTS = 24


def test_a_crowd_is_signed_over_sockets_verified_and_one_of_it_leaves() -> None:
    seed = random.randrange(2**32)
    outcome = crowd.run(N_CLIENTS, seed, is_quick=True)
    assert [*outcome.broken()] == [], f"seed {seed}"
    assert outcome.n_verified == N_CLIENTS
    assert 1 <= outcome.leaver <= N_CLIENTS
    assert outcome.exit_blocks > crowd.QUICK_BLOCKS
    spoilt = (
        replace(outcome, n_verified=N_CLIENTS - 1),
        replace(outcome, lsp_end_mb=crowd.LSP_MEMORY_MAX_MB + 1),
        replace(outcome, exit_sat=0),
    )
    assert [len([*one.broken()]) for one in spoilt] == [1, 1, 1]


class Line:
    """A connection on which something was said, and then nothing more. Implements `Connection`."""

    node_id = bytes(33)

    def __init__(self, *said: bytes) -> None:
        self._said = [*said]

    async def send(self, *messages: bytes) -> None:
        raise AssertionError(messages)

    async def receive(self) -> bytes:
        if not self._said:
            raise ConnectionLost("the end")
        return self._said.pop(0)

    async def close(self) -> None:
        self._said.clear()


def test_a_ping_is_heard_while_a_message_waits_for_the_turn_of_its_client() -> None:
    async def heard() -> None:
        turns, first, second = Turns(), b"\xc0\x01first", b"\xc0\x01second"
        async with turns.others():
            line = InTurn(Line(first, ping(), second), turns)
            assert await line.receive() == ping()
        assert [await line.receive(), await line.receive()] == [first, second]
        with pytest.raises(ConnectionLost, match="the end"):
            await line.receive()
        await line.close()

    asyncio.run(heard())
