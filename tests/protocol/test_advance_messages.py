"""Words about an advance in a channel that failed, was closed, or whose store is a restored one."""

from collections.abc import Callable, Iterator
from typing import Final

import pytest
from tests.protocol.advances import (
    advancing_factory,
    both_links,
    check_claims,
    check_payments_work,
    connect_again,
    leaf_of,
    market,
    quote_for,
    remembered,
    sell,
)
from tests.protocol.closes import close, finished
from tests.protocol.pump import Letter, Pump, PumpNode
from tests.protocol.restoring import backup_of, restore

from cromford import effects as fx
from cromford.protocol.journal import advance_records as ar
from cromford.wire import messages as m

BUYER, NEIGHBOUR = 1, 2
SIGNING: Final = (
    fx.PartialSign,
    fx.SignNext,
    fx.FinishNext,
    fx.SignCommitment,
    fx.FinishCommitment,
)
SAID: Final = (
    m.AdvancePropose,
    m.AdvanceAgree,
    m.AdvanceCommit,
    m.AdvanceSign,
    m.AdvanceDone,
    m.AdvanceHeld,
)
WHY: Final = "the peer says so"


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def n_signed(pump: Pump) -> int:
    """Return how often anybody's signer was asked for anything that is sent."""
    return sum(isinstance(one.effect, SIGNING) for one in pump.wished)


def fail(pump: Pump, receiver: PumpNode, sender: PumpNode, seat: int) -> None:
    """Let one side hear that the other takes no further part in a channel."""
    channel_id = both_links(pump, seat)[0].channel_id
    pump.tell(receiver, sender, m.ChannelFailure(channel_id=channel_id, reason=WHY))


def sell_to(pump: Pump, step: type[m.Message], *, of: PumpNode) -> Letter:
    """Let a purchase come to a message from or to a client; take it off the wire and return it."""
    pump.lsp_says(pump.client_at(BUYER), quote_for(pump, BUYER))
    found: list[Letter] = []

    def is_next() -> bool:
        letter = pump.wire[0]
        is_it = of in (letter.sender, letter.receiver) and isinstance(letter.message, step)
        found.extend([letter] if is_it else [])
        return is_it

    pump.run(until=is_next)
    (letter,) = found
    pump.wire.remove(letter)
    return letter


@pytest.mark.parametrize("step", [m.AdvancePropose, m.AdvanceAgree, m.AdvanceCommit])
def test_in_a_channel_that_failed_nothing_is_signed_and_whose_it_is_is_said(
    step: type[m.Message],
) -> None:
    """Its client tells its LSP why; the LSP tells a leaf no more than who is in the way."""
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    letter = sell_to(pump, step, of=neighbour)
    fail(pump, letter.receiver, letter.sender, NEIGHBOUR)
    n_before = len(pump.sent(neighbour, m.AdvanceSign))
    pump.tell(letter.receiver, letter.sender, letter.message)
    (refused,) = pump.sent(letter.receiver, m.AdvanceAbort)[:1]
    is_lsps = letter.receiver is pump.lsp
    assert (f"client {NEIGHBOUR} is in the way" if is_lsps else WHY) in refused.reason
    pump.run()
    assert len(pump.sent(neighbour, m.AdvanceSign)) == n_before == 0
    assert not remembered(neighbour, ar.AdvanceSigned)
    assert not pump.sent(pump.lsp, m.AdvanceDone)
    check_claims(pump)


def test_a_state_on_which_we_have_no_claim_is_not_signed() -> None:
    """The LSP hears that a channel failed before it hears that its client signed for the next."""
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    letter = sell_to(pump, m.AdvanceSign, of=neighbour)
    fail(pump, pump.lsp, neighbour, NEIGHBOUR)
    pump.tell(pump.lsp, neighbour, letter.message)
    pump.run()
    pump.mine(2)
    connect_again(pump)
    pump.run()
    assert not remembered(pump.lsp, ar.StateSigned)
    assert not pump.sent(pump.lsp, m.AdvanceDone)
    assert both_links(pump, NEIGHBOUR)[1].finished_on(both_links(pump, NEIGHBOUR)[1].present)
    check_claims(pump)
    check_payments_work(pump, BUYER)


@pytest.mark.parametrize("step", [m.AdvanceDone, m.AdvanceHeld])
def test_what_is_signed_is_held_where_a_channel_failed_which_alone_is_not_rebased(
    step: type[m.Message],
) -> None:
    """Its client needs the poisons no less than the others; no update can follow there."""
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    letter = sell_to(pump, step, of=neighbour)
    fail(pump, letter.receiver, letter.sender, NEIGHBOUR)
    pump.tell(letter.receiver, letter.sender, letter.message)
    pump.run()
    (held,) = pump.held(neighbour).leaf_states
    assert held.poisons is not None
    for link in both_links(pump, NEIGHBOUR):
        assert link.next is not None
        assert [link.finished_on(funding) is not None for funding in link.fundings] == [True, True]
    assert any(link.failure for link in both_links(pump, NEIGHBOUR))
    (sold,) = remembered(pump.lsp, ar.LiquiditySold)
    assert sold.client == BUYER
    check_claims(pump)


def recorded(pump: Pump) -> list[Letter]:
    """Let a purchase be made; return all that was said about the advance, once each."""
    said: list[Letter] = []

    def listen(by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if isinstance(message, SAID):
            said.append(Letter(sender=by, receiver=to, link=0, message=message))
        return (message,)

    with pump.tampering(listen):
        sell(pump, BUYER)
    assert {type(letter.message) for letter in said} == set(SAID)
    return said


def closed(pump: Pump) -> None:
    close(pump)
    assert finished(pump.lsp)


def failed(pump: Pump) -> None:
    for seat in (BUYER, NEIGHBOUR):
        fail(pump, pump.client_at(seat), pump.lsp, seat)
    pump.run()


@pytest.mark.parametrize(("over", "field"), [(closed, "close"), (failed, "channel")])
def test_what_was_said_before_is_said_again_in_a_channel_that_is_over(
    over: Callable[[Pump], None], field: str
) -> None:
    pump = advancing_factory(2)
    said = recorded(pump)
    over(pump)
    n_before = n_signed(pump)
    n_records = [len(node.store.entries) for node in (pump.lsp, *pump.clients)]
    n_refused = [len(pump.sent(client, m.AdvanceAbort)) for client in pump.clients]
    for letter in said:
        pump.tell(letter.receiver, letter.sender, letter.message)
    pump.run()
    assert n_signed(pump) == n_before
    assert [len(node.store.entries) for node in (pump.lsp, *pump.clients)] == n_records
    for client, n in zip(pump.clients, n_refused, strict=True):
        (refused,) = pump.sent(client, m.AdvanceAbort)[n:]
        assert refused.reason.startswith(f"{field}: expected ")
    assert len(leaf_of(pump, BUYER).states) == 2
    check_claims(pump)


def test_a_restored_store_refuses_by_name_to_begin_again_with_what_it_may_have_signed() -> None:
    """The backup is from before: whether it signed another state, it cannot know."""
    pump = advancing_factory(2)
    buyer = pump.client_at(BUYER)
    backup = backup_of(buyer)
    propose = sell_to(pump, m.AdvancePropose, of=buyer)
    pump.tell(propose.receiver, propose.sender, propose.message)
    pump.run_to(m.AdvanceDone)
    assert remembered(buyer, ar.AdvanceSigned)
    restore(pump, (buyer, backup))
    n_before, n_refused = n_signed(pump), len(pump.sent(buyer, m.AdvanceAbort))
    pump.tell(buyer, pump.lsp, propose.message)
    pump.run()
    (refused,) = pump.sent(buyer, m.AdvanceAbort)[n_refused:]
    assert refused.reason == "store: expected our newest on both sides, received a restored one"
    assert n_signed(pump) == n_before
    assert not remembered(buyer, ar.AdvanceSigned)
