"""A factory of five clients at rest, as an LSP knows it, and what may be different in it.

A leaf of 1 and 2, one of 3 and 4, and one of 5 alone, below a static root. None of them has any
money, so that the LSP may sign for whoever gave it its keys.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any, Final

from tests.protocol.closes import QUICK
from tests.protocol.decisions import Known
from tests.protocol.paying_clients import live_factory

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link

ALL: Final = (1, 2, 3, 4, 5)


@cache
def whole() -> Factory:
    """Return the factory, of which nothing is on chain but its funding."""
    factory: Factory = live_factory(len(ALL), policy=QUICK).factory
    return factory


def tx_of(name: str) -> Tx:
    return next(node.tx for node in whole().attempt.tree.nodes if node.name == name)


def with_block(factory: Factory, *txs: Tx, height: int | None = None) -> Factory:
    chain = factory.chain
    block = BlockRef(height=height or chain.height + 1, block_hash=Txid(bytes(32)))
    return replace(factory, chain=chain.with_block(block, txs))


@cache
def split() -> Factory:
    """Return the same once its root is in a block: each leaf may be closed by itself."""
    return with_block(whole(), tx_of("static_root"))


def spent_by(vertex: str) -> OutPoint:
    """Return what a close of a whole vertex spends."""
    return tx_of(vertex).inputs[0].outpoint


def known(here: Iterable[int]) -> Known:
    seats = whole().attempt.seats
    return Known(here=frozenset(seats[client - 1].node_id for client in here))


def holding(factory: Factory, *clients: int) -> Factory:
    """Return the factory where these clients gave the LSP their keys."""
    return replace(factory, held_keys=frozenset(clients))


def link_of(factory: Factory, client: int) -> Link:
    return factory.book.links[factory.attempt.setting(client).channel_id]


def with_link(factory: Factory, client: int, **changes: Any) -> Factory:
    """Return the factory with a channel of which something is different."""
    link = replace(link_of(factory, client), **changes)
    links = factory.book.links.set(link.channel_id, link)
    return replace(factory, book=changed(factory.book, links=links))


def disconnected(factory: Factory, client: int) -> Factory:
    """Return the factory where a channel was not taken up in this connection."""
    state = replace(link_of(factory, client).state, is_connected=False)
    return with_link(factory, client, state=state)
