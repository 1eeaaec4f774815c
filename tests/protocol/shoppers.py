"""Clients whose operators ask for prices, and buy, whatever happens meanwhile.

Whoever handles events may be a pump or a simulated world; what may not be asked now is ignored.
"""

from collections.abc import Callable
from typing import Final

from tests.simulation.sim_node import SimNode

from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import answer_to
from cromford.wire import messages as m

Handle = Callable[[SimNode, ev.Event], None]
ALL: Final = 0  # That much of an L-stock.
NO_LIMIT_MSAT: Final = 2**60


def newest_attempt(node: SimNode) -> bytes | None:
    """Return the factory of a client's newest channel."""
    if node.driver is None:
        return None
    held = {link.attempt_id for link in node.state.book.links.values()}
    return next((one for one in reversed([*node.state.attempts]) if one in held), None)


def ask_price(handle: Handle, node: SimNode, amount_sat: int) -> None:
    """Let a client's operator ask what so much costs."""
    attempt_id = newest_attempt(node)
    if attempt_id is not None:
        handle(node, ev.QuoteRequested(attempt_id=attempt_id, amount_sat=amount_sat))


def buy_what_is_quoted(handle: Handle, node: SimNode, *, beyond_coverage: bool = True) -> bool:
    """Let a client's operator buy by the newest quote, if there is one; say whether there is."""
    attempt_id = newest_attempt(node)
    wanted = None if attempt_id is None else node.state.quotes.get(attempt_id)
    quote = None if wanted is None else answer_to(wanted)
    if attempt_id is None or not isinstance(quote, m.Quote):
        return False
    asked = ev.PurchaseRequested(
        attempt_id=attempt_id,
        quote_id=quote.quote_id,
        price_max_msat=NO_LIMIT_MSAT,
        beyond_coverage=beyond_coverage,
    )
    handle(node, asked)
    return True
