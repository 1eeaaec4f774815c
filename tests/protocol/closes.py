"""A funded factory whose clients have money, and closes of it."""

from typing import Any, Final

from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode

from cromford.protocol import events as ev
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.factory import Factory

BALANCES_MSAT: Final = (30_000_123, 12_345_678, 329_999, 330_000, 1, 20_000_000, 999, 5_000_500)


def closable_factory(n_clients: int, **options: Any) -> Pump:
    """Return a pump whose clients have some money each, from much to nothing worth an output."""
    pump = live_factory(n_clients, **options)
    for client, amount_msat in zip(pump.clients, BALANCES_MSAT, strict=False):
        assert pay(pump, pump.lsp, client, amount_msat) is not None
    return pump


def ask_for_close(pump: Pump, **asked: Any) -> None:
    """Let the LSP's operator ask for a close; nothing is delivered yet."""
    attempt_id = pump.attempt.attempt_id
    pump.handle(pump.lsp, ev.CloseRequested(attempt_id=attempt_id, **asked))


def close(pump: Pump, **asked: Any) -> None:
    """Ask for a close, and let everybody do its part."""
    ask_for_close(pump, **asked)
    pump.run()


def lsp_factory(pump: Pump) -> Factory:
    return pump.factory


def ended(node: PumpNode) -> list[cl.CloseEnded]:
    """Return what a node remembers of closes that came to nothing."""
    return [one for one in node.store.remembered if isinstance(one, cl.CloseEnded)]


def finished(node: PumpNode) -> list[cl.CloseFinished]:
    """Return what a node remembers of closes that were finished."""
    return [one for one in node.store.remembered if isinstance(one, cl.CloseFinished)]


def due_msat(client: PumpNode) -> int:
    """Return what a client's newest channel owes it."""
    return newest_link(client).state.accepter_msat
