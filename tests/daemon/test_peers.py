"""A daemon's connections: how they end, whoever ends them."""

import asyncio

import pytest

from cromford.daemon.peers import Peers
from cromford.ports import ConnectionLost
from cromford.protocol import events as ev
from cromford.wire.messages import Leave

PEER = b"\x02" * 33


class SlowToLetGo:
    """A connection that is lost at once, and whose sending takes its time to be cancelled."""

    node_id = PEER

    def __init__(self) -> None:
        self.sending = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.released = asyncio.Event()

    async def send(self, _message: bytes) -> None:
        self.sending.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.released.wait()
            raise

    async def receive(self) -> bytes:
        await self.sending.wait()
        raise ConnectionLost("gone")

    async def close(self) -> None:
        """Nothing to release."""


def test_whoever_stops_a_daemon_is_obeyed_while_a_connection_ends() -> None:
    """Swallowed, the cancellation would leave a daemon that connects again for ever."""

    async def stop_in_the_middle() -> list[ev.Event]:
        happened: list[ev.Event] = []
        peers, connection = Peers(happened.append), SlowToLetGo()
        serving = asyncio.create_task(peers.run(connection))
        async with asyncio.timeout(5):
            while not peers.n_connected:  # noqa: ASYNC110 - the state watched has no event
                await asyncio.sleep(0)
            peers.send(PEER, Leave(factory_pubkey=PEER))
            await connection.cancelled.wait()
            serving.cancel()
            await asyncio.sleep(0)
            connection.released.set()
            with pytest.raises(asyncio.CancelledError):
                await serving
        return happened

    happened = asyncio.run(stop_in_the_middle())
    assert happened[0] == ev.ConnectionOpened(node_id=PEER)
