"""Cooperative closes put into a world by their values, without the ceremony that agrees on them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump, PumpNode

from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.closes import SignedClose, with_close
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_state import LspState

CLOSE_ID: Final = b"c" * 32


def change_link(node: PumpNode, channel_id: bytes, change: Callable[[Link], Link]) -> None:
    """Change one side of a channel in place, as a record would."""
    assert node.driver is not None
    state = node.driver.state

    def changed_book(book: Book) -> Book:
        return changed(book, links=book.links.set(channel_id, change(book.links[channel_id])))

    if isinstance(state, LspState):
        factory = state.factory(state.channels[channel_id])
        node.driver.state = state.with_factory(replace(factory, book=changed_book(factory.book)))
    else:
        node.driver.state = replace(state, book=changed_book(state.book))


def sign_close(
    pump: Pump,
    client: PumpNode,
    *,
    balance_msat: int | None = None,
    is_known_to_lsp: bool = True,
    close_id: bytes = CLOSE_ID,
    outpoint: OutPoint | None = None,
) -> int:
    """Let a client have signed a close; return what it owes it, in msat.

    Args:
        pump: The world.
        client: The client.
        balance_msat: What the close owes it; None for all that it has.
        is_known_to_lsp: Whether the LSP keeps to it.
        close_id: Its name.
        outpoint: What it spends; None for the funding's output.
    """
    link = newest_link(client)
    due_msat = owed_msat(link.state) if balance_msat is None else balance_msat
    close = SignedClose(
        close_id=close_id,
        outpoint=outpoint or pump.attempt.funding_outpoint,
        balance_msat=due_msat,
    )
    for node in [client, pump.lsp] if is_known_to_lsp else [client]:
        change_link(
            node,
            link.channel_id,
            lambda own: changed(own, closes=with_close(own.closes, close)),
        )
    return due_msat
