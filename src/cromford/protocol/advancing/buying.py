"""A client's market: what it asks for, what it is offered, and what it buys."""

from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def take_message(turn: Turn[ClientState], message: m.QuoteMessage) -> None:
    """Take an LSP's quote, or its refusal; what only a client says ends the connection."""
