"""The LSP's market: what inbound liquidity costs, and who may buy how much of a leaf's L-stock."""

from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def take_message(turn: Turn[Factory], node_id: bytes, message: m.QuoteRequest | m.Buy) -> None:
    """Answer a client that asks for a price, or buys."""
