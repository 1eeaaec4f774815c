"""Another try of an advance that somebody may have signed: when it begins, and when it does not."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.protocol.advances import (
    advancing_factory,
    both_links,
    buy,
    check_nothing_is_left,
    check_sold,
    market,
    quote_for,
    remembered,
    under_way,
)
from tests.protocol.closes import losing
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_advance_attacks import deliver, half_signed
from tests.protocol.test_advance_troubles import land_old_state

from cromford import effects as fx
from cromford.factory.leaf import advance_height_max
from cromford.protocol.advancing.rules import STALL_BLOCKS
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.wire import messages as m

BUYER, NEIGHBOUR = 1, 2


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def asked(pump: Pump, client: PumpNode) -> int:
    """Return how often the LSP asked a client to take part."""
    wishes = pump.wishes(pump.lsp, fx.Send)
    return sum(
        wish.node_id == client.node_id and isinstance(wish.message, m.AdvancePropose)
        for wish in wishes
    )


def come_back(pump: Pump, *clients: PumpNode) -> None:
    for client in clients:
        pump.connect(client)
    pump.run()


def see(pump: Pump, *, header_height: int = -1) -> None:
    """Let the LSP's node know of headers up to a height."""
    pump.lsp.facts_at = lambda _own_height: replace(FRESH, header_height=header_height)


def too_late(pump: Pump) -> int:
    """Return the first height at which no advance of the leaf begins any more."""
    _, link = both_links(pump, BUYER)
    patience_blocks = pump.attempt.terms.patience_blocks
    last = advance_height_max(
        exit_deadline_height=link.exit_deadline_height, patience_blocks=patience_blocks
    )
    return last + 1


def half_signed_pump() -> tuple[Pump, PumpNode, PumpNode]:
    """Return an advance that the buyer signed, and its neighbour, which is away, did not."""
    pump = advancing_factory(2)
    half_signed(pump)
    return pump, pump.client_at(BUYER), pump.client_at(NEIGHBOUR)


def let_deadline_pass(pump: Pump) -> None:
    """Let the LSP wait in vain for its present step."""
    (deadline,) = [one for node, one in pump.deadlines_of(fx.AdvanceDeadline) if node is pump.lsp]
    pump.pass_deadline(pump.lsp, deadline)
    pump.run()


def test_each_try_has_a_deadline_and_who_lets_two_pass_is_not_asked_for_a_day() -> None:
    pump, _, neighbour = half_signed_pump()
    for n_missed in (1, 2):
        with pump.tampering(losing(m.AdvanceAgree, of=lambda node: node is neighbour)):
            come_back(pump, neighbour)
            let_deadline_pass(pump)
        assert remembered(pump.lsp, ar.AdvanceSessionEnded)[-1].holdouts == (NEIGHBOUR,)
        assert neighbour.name not in pump.links, "it may begin anew"
        assert pump.factory.stalls[NEIGHBOUR].n_missed == n_missed
    n_asked = asked(pump, neighbour)
    come_back(pump, neighbour)
    assert asked(pump, neighbour) == n_asked
    see(pump, header_height=pump.chain.height + STALL_BLOCKS)
    pump.mine()
    assert asked(pump, neighbour) == n_asked + 1
    check_nothing_is_left(pump)
    assert len(remembered(pump.lsp, ar.LiquiditySold)) == 1


def test_who_signed_nothing_yet_is_asked_only_while_an_advance_might_begin() -> None:
    """By the block that makes it possible again, if nobody comes or goes."""
    pump, buyer, neighbour = half_signed_pump()
    see(pump, header_height=too_late(pump))
    n_asked = asked(pump, neighbour)
    come_back(pump, neighbour)
    assert asked(pump, neighbour) == n_asked
    assert under_way(pump) is not None, "the buyer is bound"
    see(pump)
    pump.mine()
    assert asked(pump, neighbour) == n_asked + 1
    assert not any(node.state.advances for node in (buyer, neighbour))
    check_nothing_is_left(pump)


def test_what_nobody_signed_is_dropped_with_all_back_where_it_might_not_begin() -> None:
    pump = advancing_factory(2)
    buy(pump, BUYER)
    pump.run_to(m.AdvanceCommit)
    pump.wire.clear()
    for client in pump.clients:
        pump.disconnect(client)
    pump.run()
    see(pump, header_height=too_late(pump))
    come_back(pump, pump.client_at(BUYER))
    assert not remembered(pump.lsp, ar.AdvanceDropped), "the other may have signed"
    come_back(pump, pump.client_at(NEIGHBOUR))
    (dropped,) = remembered(pump.lsp, ar.AdvanceDropped)
    assert dropped.reason.startswith("height: expected at most ")
    assert (dropped.culprits, dropped.is_fault, dropped.holdouts) == ((), False, ())
    check_nothing_is_left(pump)


def signed_one_by_one(*, fails: bool = False) -> tuple[Pump, m.Quote]:
    """Return an advance that both clients signed, the second after its try had ended.

    With `fails` the first one's channel is over by then.
    """
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    buyer, neighbour = pump.client_at(BUYER), pump.client_at(NEIGHBOUR)
    pump.lsp_says(buyer, quote)
    pump.run_to(m.AdvanceSign)
    deliver(pump, pump.lsp, buyer)
    if fails:
        channel_id = both_links(pump, BUYER)[0].channel_id
        pump.tell(pump.lsp, buyer, m.ChannelFailure(channel_id=channel_id, reason="no"))
    pump.disconnect(buyer)
    deliver(pump, pump.lsp, neighbour)
    pump.run()
    for seat in (BUYER, NEIGHBOUR):
        following = both_links(pump, seat)[1].next
        assert following is not None
        assert following.is_dual
    assert not remembered(pump.lsp, ar.StateSigned)
    assert not pump.links
    return pump, quote


@pytest.mark.parametrize("fails", [False, True])
def test_what_everybody_signed_apart_is_finished_once_all_are_here(*, fails: bool) -> None:
    """Whoever's channel failed included: it is bound as well, and its signature is needed."""
    pump, quote = signed_one_by_one(fails=fails)
    n_asked = asked(pump, pump.client_at(NEIGHBOUR))
    come_back(pump, pump.client_at(NEIGHBOUR))
    assert asked(pump, pump.client_at(NEIGHBOUR)) == n_asked
    come_back(pump, pump.client_at(BUYER))
    assert asked(pump, pump.client_at(NEIGHBOUR)) == n_asked + 1
    assert len(remembered(pump.lsp, ar.StateSigned)) == 1
    if not fails:
        check_sold(pump, BUYER, quote)


def test_with_the_old_state_in_a_block_no_other_try_begins() -> None:
    """Signed now, the next state would come too late: its channels go on in the old one."""
    pump, _ = signed_one_by_one()
    neighbour = pump.client_at(NEIGHBOUR)
    land_old_state(pump)
    pump.sync()
    n_asked = asked(pump, neighbour)
    come_back(pump, pump.client_at(BUYER), neighbour)
    assert asked(pump, neighbour) == n_asked
    assert not remembered(pump.lsp, ar.StateSigned)


def test_a_client_that_signed_waits_for_another_try_for_as_long_as_it_takes() -> None:
    pump, buyer, neighbour = half_signed_pump()
    with pump.tampering(losing(m.AdvanceAgree, of=lambda node: node is neighbour)):
        come_back(pump, neighbour)
    assert len(pump.sent(buyer, m.AdvanceAgree)) == 2
    waiting = {node.name for node, _ in pump.deadlines_of(fx.AdvanceDeadline)}
    assert waiting == {pump.lsp.name, neighbour.name}
    assert len(remembered(buyer, ar.AdvanceSent)) == 1


def test_a_client_that_is_silent_about_poisons_is_hung_up_on_and_they_come_when_it_is_back() -> (
    None
):
    """They were not signed while the LSP did not see the chain, and somebody went meanwhile."""
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    buyer, neighbour = pump.client_at(BUYER), pump.client_at(NEIGHBOUR)
    pump.lsp_says(buyer, quote)
    pump.run_to(m.AdvanceSign)
    pump.lsp.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    pump.run()
    assert remembered(pump.lsp, ar.StateSigned)
    pump.disconnect(neighbour)
    pump.run()
    see(pump)
    with pump.tampering(losing(m.AdvanceAgree, of=lambda node: node is neighbour)):
        come_back(pump, neighbour)
        let_deadline_pass(pump)
    assert not remembered(pump.lsp, ar.PoisonHeld)
    assert remembered(pump.lsp, ar.AdvanceSessionEnded)[-1].holdouts == (NEIGHBOUR,)
    assert neighbour.name not in pump.links, "it may begin anew"
    assert buyer.name in pump.links
    come_back(pump, neighbour)
    check_sold(pump, BUYER, quote)
    check_nothing_is_left(pump)
