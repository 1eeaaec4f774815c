"""An advance as it is at a step: what a role decides there is asked without doing it."""

from functools import cache
from typing import Any, Final

from tests.protocol.advances import advancing_factory, buy, market, sell, under_way
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

BUYER: Final = 1
NEIGHBOUR: Final = 2


def at_step(step: type[m.Message]) -> Pump:
    """Return an advance in which such a message is next; only its states are asked."""
    key: Any = step
    return _at_step(key)


@cache
def _at_step(step: type[m.Message]) -> Pump:
    with market():
        pump = advancing_factory(2)
        buy(pump, BUYER)
        pump.run_to(step)
    return pump


@cache
def whole_sale() -> tuple[Pump, list[m.Message]]:
    """Return a pump in which something was sold, and all that the buyer ever said."""
    with market():
        pump = advancing_factory(2)
        sell(pump, BUYER)
    return pump, [wish.message for wish in pump.wishes(pump.client_at(BUYER), fx.Send)]


def advance_of(pump: Pump) -> LspAdvance:
    """Return the LSP's advance under way."""
    advance = under_way(pump)
    assert advance is not None
    return advance


def decided(node: PumpNode, event: ev.Event, facts: Facts = FRESH) -> Decision[Any]:
    """Return what a node decides, without doing it."""
    return decided_by(node.state, event, facts)


def decided_by(state: Any, event: ev.Event, facts: Facts = FRESH) -> Decision[Any]:
    """Return what an LSP, or a client, in such a state decides."""
    role: Any = lsp_role if isinstance(state, LspState) else client_role
    decision: Decision[Any] = role.decide(state, event, facts)
    assert not decision.faults
    return decision


def said(by: PumpNode, message: m.Message) -> ev.MessageReceived:
    """Return that a node said something."""
    return ev.MessageReceived(node_id=by.node_id, message=message)


def next_message(pump: Pump, to: PumpNode, kind: type[m.Message]) -> Any:
    """Return that the next such message to a node arrives."""
    letter = next(one for one in pump.wire if one.receiver is to and isinstance(one.message, kind))
    return said(letter.sender, letter.message)


def kept(decision: Decision[Any]) -> tuple[Any, ...]:
    """Return what a decision journals: all but what is true of one run only."""
    return tuple(entry.record for entry in decision.entries if entry.is_kept)


def found(decision: Decision[Any], kind: Any) -> list[Any]:
    """Return the records and effects of a kind that a decision has."""
    return [one for one in (*kept(decision), *decision.effects) if isinstance(one, kind)]


def only(decision: Decision[Any], kind: type[Any]) -> Any:
    """Return the one record or effect of a kind that a decision has."""
    (one,) = found(decision, kind)
    return one


def messages(decision: Decision[Any]) -> list[m.Message]:
    """Return what is said."""
    return [one.message for one in decision.effects if isinstance(one, fx.Send)]


def answer_of(node: PumpNode, asked: fx.Performed) -> Any:
    """Return what a node's signer answers."""
    (answer,) = node.perform_signing(asked)
    return answer
