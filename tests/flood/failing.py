"""A client with a channel that offers payments which can only fail: nobody knows their preimage."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cromford.adapters.peer_address import parse_peer_address
from cromford.bitcoin.network import REGTEST
from cromford.daemon.api.failures import ApiFailure
from cromford.daemon.clientd import ClientDaemon
from cromford.daemon.options import ClientOptions
from cromford.demo.world import DaemonProcess, World
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import min_final_cltv_expiry_delta
from cromford.protocol.policy import ClientPolicy

AMOUNT_MSAT: Final = 1_000_000
POLL_SECONDS: Final = 0.05
SECRET_SIZE: Final = 32
OPEN_SECONDS: Final = 600.0  # Whatever takes so long hangs, on any machine.


@asynccontextmanager
async def taken_over(world: World, client: DaemonProcess, lsp: str) -> AsyncIterator[ClientDaemon]:
    """Stop a client's process and run its daemon in this one, where it can be made to misbehave."""
    world.site.children.stop([client.child])
    daemon = ClientDaemon(
        ClientOptions(
            datadir=client.datadir,
            network=REGTEST,
            chain=world.node.chain,
            lsp=parse_peer_address(lsp),
            policy=ClientPolicy(exit_delay_blocks_max=world.site.settings.max_exit_delay_blocks),
        )
    )
    running = asyncio.create_task(daemon.run())
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            while not any(link.is_open for link in daemon.book.links.values()):  # noqa: ASYNC110 - the state watched has no event
                await asyncio.sleep(POLL_SECONDS)
        yield daemon
    finally:
        await asyncio.to_thread(client.call, "stop")
        await asyncio.wait({running})


async def fail(daemon: ClientDaemon, victim: bytes, n_payments: int) -> None:
    """Offer so many payments to a victim, as fast as the channel takes them."""
    (link,) = daemon.book.links.values()
    for _ in range(n_payments):
        asked = ev.PayRequested(
            text="",
            payment_hash=secrets.token_bytes(SECRET_SIZE),
            payment_secret=secrets.token_bytes(SECRET_SIZE),
            payee=victim,
            amount_msat=AMOUNT_MSAT,
            description="",
            min_final_cltv_expiry_delta=min_final_cltv_expiry_delta(link, daemon.state.chain),
        )
        while True:
            with contextlib.suppress(ApiFailure):
                daemon.request(asked)
                break
            await asyncio.sleep(POLL_SECONDS)  # As many as may be are on their way.


def n_failed(daemon: ClientDaemon) -> int:
    """Return how many of them are over."""
    return sum(payment.status == "failed" for payment in daemon.book.payments.values())
