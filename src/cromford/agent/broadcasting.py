"""Publish one package by hand, with a node and without a daemon: `client exit broadcast`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from cromford.adapters.chain_check import check_node
from cromford.agent.looking import Sight, look, publish, publish_poisons
from cromford.agent.views import package_state, package_summary
from cromford.answers.packages import BroadcastPackage
from cromford.bitcoin.network import Network
from cromford.daemon.connecting import connect_chain
from cromford.daemon.options import ChainOptions
from cromford.ports import Chain, ChainUnavailable, CredentialsRefused
from cromford.watch.package import ExitPackage
from cromford.watch.package_progress import PublishNow, TakeApart, next_package_action
from cromford.watch.remaining import SETTLED_DEPTH

RETRY_SECONDS: Final = 5.0


@contextlib.asynccontextmanager
async def node_of(
    options: ChainOptions, network: Network, *, signet_challenge: str | None
) -> AsyncIterator[Chain]:
    """Give the node that the options name, once it has shown that it is of this network.

    Raises:
        ChainMismatch: If it is not, or is too old.
        CredentialsRefused: If it does not let us in.
        ChainUnavailable: If it does not answer.
    """
    async with connect_chain(options) as chain:
        # What it does not let us call is told at once, by whatever needs it.
        await check_node(chain, network, signet_challenge=signet_challenge)
        yield chain


async def broadcast_once(chain: Chain, package: ExitPackage) -> BroadcastPackage:
    """Publish what can be in the next block; return what was found, done, and is next.

    Raises:
        InvalidPackage: If the funding's output is not what the package says it is.
        ChainUnavailable: If the node does not answer.
    """
    sight = await look(chain, package)
    action = sight.poisoned or next_package_action(
        package, sight.place, tip_height=sight.height, is_begun=True
    )
    refused = None
    if isinstance(action, PublishNow):
        refused = await publish(chain, package, action.step)
    if isinstance(action, TakeApart):
        refused = await publish_poisons(chain, action.due)
    is_unspent = sight.place is not None and sight.place.n_confirmed == 0
    return {
        **package_summary(package),
        # Once it is spent, no node without an index tells what the output was.
        "is_expiry_checked": is_unspent,
        **package_state(package, sight, action, refused=refused),
        "is_settled": _is_settled(package, sight),
    }


async def broadcast_to_the_end(
    chain: Chain,
    package: ExitPackage,
    *,
    poll_seconds: float,
    told: Callable[[BroadcastPackage], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> BroadcastPackage:
    """Publish a package block by block, until its channel has been on chain for six blocks.

    Or until nothing of it was there for as long: what it led to is spent, or something else was
    first, as a close together is. Whatever the node refuses is tried again at the next block, and
    one that does not answer is waited for.

    Args:
        chain: The node.
        package: The package.
        poll_seconds: How often the node is asked for a new block.
        told: Told what is true after each block that changes something.
        sleep: Waits for a number of seconds.

    Returns:
        What is true in the end, or was while the channel was on chain. Its `status` is
        `nothing_found` if there was nothing to publish from the beginning, or is nothing any more.

    Raises:
        InvalidPackage: As `broadcast_once`.
        CredentialsRefused: If the node does not let us in any more.
    """
    said: object = None
    seen = None
    gone_height: int | None = None  # Since when nothing of it is there.
    arrived: BroadcastPackage | None = None
    while True:
        try:
            tip = (await chain.status()).tip
            if tip == seen:
                await sleep(poll_seconds)
                continue
            document = await broadcast_once(chain, package)
            seen = tip
        except CredentialsRefused:
            raise
        except ChainUnavailable:
            await sleep(RETRY_SECONDS)
            continue
        news = document["status"], document["next"]
        if news != said:
            told(document)
        if document["status"] != "nothing_found":
            gone_height = None
            arrived = document if document["status"] == "on_chain" else None
        elif gone_height is None:
            gone_height = tip.height
        is_over = said is None and gone_height is not None
        if is_over or document["is_settled"]:
            return document
        if gone_height is not None and tip.height - gone_height + 1 >= SETTLED_DEPTH:
            return document if arrived is None else arrived
        said = news


def _is_settled(package: ExitPackage, sight: Sight) -> bool:
    place = sight.place
    if sight.poisoned is not None:
        return not sight.poisoned.due
    if place is None:
        return False
    is_whole = place.is_channel_spent or place.n_confirmed == len(package.steps)
    return is_whole and sight.height - place.height + 1 >= SETTLED_DEPTH
