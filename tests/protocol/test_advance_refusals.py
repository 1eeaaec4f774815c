"""Who takes no part in an advance, and says why: nothing is signed, and the channels go on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from immutables import Map
from tests.protocol.advances import (
    ADVANCING,
    SOLD_SAT,
    advancing_factory,
    buy,
    check_nothing_is_left,
    check_payments_work,
    check_sold,
    leaf_of,
    market,
    quote_for,
    remembered,
    sell,
)
from tests.protocol.closes import ask_for_close, close
from tests.protocol.pump import Pump, PumpNode

from cromford.changed import changed
from cromford.daemon.views.market import leaves_of, liquidity_of
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.client_state import ClientState
from cromford.wire import messages as m
from cromford.wire.selling import AllocatedChannel

BUYER, NEIGHBOUR = 1, 2


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def refusals(pump: Pump, seat: int) -> list[str]:
    """Return why a client refused, each time."""
    return [one.reason for one in pump.sent(pump.client_at(seat), m.AdvanceAbort)]


def check_dropped(pump: Pump, quote: m.Quote) -> None:
    """Check that nothing came of it, and that the same is sold once nothing is in the way."""
    (dropped,) = remembered(pump.lsp, ar.AdvanceDropped)
    assert not dropped.is_fault
    assert not remembered(pump.lsp, ar.AdvanceCommitted)
    check_nothing_is_left(pump)
    check_payments_work(pump, BUYER, NEIGHBOUR)
    check_sold(pump, BUYER, sell(pump, BUYER))
    assert quote.state_index == 1


Change = Callable[[m.AdvancePropose], m.AdvancePropose]


def with_capacities(*changes_sat: int) -> Change:
    def change(propose: m.AdvancePropose) -> m.AdvancePropose:
        channels = tuple(
            AllocatedChannel(capacity_sat=one.capacity_sat + change_sat)
            for one, change_sat in zip(propose.channels, changes_sat, strict=True)
        )
        return replace(propose, channels=channels)

    return change


def but(**changes: Any) -> Change:
    return lambda propose: replace(propose, **changes)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("seat", "change", "field"),
    [
        (NEIGHBOUR, but(attempt_id=bytes(32)), "attempt_id"),
        (NEIGHBOUR, but(terms_hash=bytes(32)), "terms_hash"),
        (NEIGHBOUR, but(advance_id=bytes(32)), "advance_id"),
        (NEIGHBOUR, but(state_index=2), "state_index"),
        (NEIGHBOUR, but(state_index=0), "state_index"),
        (NEIGHBOUR, but(price_msat=1), "price_msat"),
        (NEIGHBOUR, but(quote_id=bytes(32)), "quote_id"),
        (NEIGHBOUR, but(channels=()), "capacities_sat"),
        (NEIGHBOUR, with_capacities(0, -1), "capacity_sat of client 2"),
        (NEIGHBOUR, with_capacities(-SOLD_SAT, SOLD_SAT), "advance_id"),
        (NEIGHBOUR, with_capacities(-SOLD_SAT, 0), "capacities_sat"),
        (NEIGHBOUR, with_capacities(0, 1), "capacities_sat"),
        (NEIGHBOUR, with_capacities(1, 0), "capacity_sat of client 1"),
        (BUYER, but(price_msat=500_001), "price_msat"),
        (BUYER, but(quote_id=b""), "capacity_sat of client 1"),
        (BUYER, but(quote_id=bytes(32)), "capacity_sat of client 1"),
        (BUYER, with_capacities(-1, 1), "capacities_sat"),
    ],
)
def test_a_client_takes_no_part_in_what_it_did_not_compute(
    seat: int, change: Change, field: str
) -> None:
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)

    def tamper(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> list[m.Message]:
        if receiver is pump.client_at(seat) and isinstance(message, m.AdvancePropose):
            return [change(message)]
        return [message]

    with pump.tampering(tamper):
        sell(pump, BUYER)
    (reason,) = refusals(pump, seat)
    assert reason.split(":")[0] == field
    if reason.startswith(("attempt_id", "advance_id")):
        return  # The LSP does not know what is refused so.
    check_dropped(pump, quote)


def with_facts(**facts: Any) -> Callable[[Pump, PumpNode], None]:
    def make(_pump: Pump, client: PumpNode) -> None:
        client.facts_at = lambda _own_height: replace(FRESH, **facts)

    return make


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"stale": "no block for hours"}, "chain"),
        ({"unmarkable": "no answer"}, "chain"),
        ({"header_height": 1_000_000}, "height"),
    ],
)
def test_a_client_whose_chain_does_not_allow_it_refuses(facts: dict[str, Any], field: str) -> None:
    pump = advancing_factory(2)
    client = pump.client_at(NEIGHBOUR)
    client.facts_at = lambda _own_height: replace(FRESH, **facts)
    quote = sell(pump, BUYER)
    (reason,) = refusals(pump, NEIGHBOUR)
    assert reason.startswith(f"{field}:")
    client.facts_at = lambda _own_height: FRESH
    check_dropped(pump, quote)


def test_a_client_that_sees_the_kickoff_in_a_block_refuses() -> None:
    pump = advancing_factory(2)
    client = pump.client_at(NEIGHBOUR)
    kickoff = leaf_of(pump, NEIGHBOUR).kickoff.tx.txid
    chain = client.state.chain
    seen = changed(chain, confirmed=chain.confirmed.update({kickoff: chain.height}))
    put_state(client, chain=seen)
    quote = sell(pump, BUYER)
    (reason,) = refusals(pump, NEIGHBOUR)
    assert reason.startswith("kickoff:")
    put_state(client, chain=chain)
    check_dropped(pump, quote)


def put_state(client: PumpNode, **changes: Any) -> None:
    """Let a client know something else."""
    driver = client.driver
    assert driver is not None
    driver.state = changed(driver.state, **changes)


def test_a_client_that_is_asked_too_often_pauses() -> None:
    pump = advancing_factory(2)
    tries = Map({pump.attempt.attempt_id: (pump.chain.height,) * 16})
    put_state(pump.client_at(NEIGHBOUR), advance_heights=tries)
    sell(pump, BUYER)
    (reason,) = refusals(pump, NEIGHBOUR)
    assert reason.startswith("advance: expected fewer in these blocks")
    pump.mine(6)
    check_sold(pump, BUYER, sell(pump, BUYER))


def test_who_buys_in_vain_in_one_factory_is_in_the_way_of_no_other() -> None:
    pump = advancing_factory(2)
    victim = pump.client_at(NEIGHBOUR)
    for _ in range(16):
        buy(pump, BUYER)
        pump.run_to(m.AdvanceAgree)
        pump.disconnect(pump.client_at(BUYER))
        pump.connect(pump.client_at(BUYER))
        pump.run()
    assert not remembered(pump.lsp, ar.AdvanceCommitted)
    assert not victim.state.may_advance(pump.attempt.attempt_id)
    assert victim.state.may_advance(bytes(32)), "of another factory"


def test_growth_of_ours_that_we_did_not_buy_is_refused() -> None:
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    buy = m.Buy(attempt_id=quote.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
    pump.tell(pump.lsp, pump.client_at(BUYER), buy)
    pump.run()
    (reason,) = refusals(pump, BUYER)
    assert reason.startswith("capacity_sat of client 1: expected 100000, for we bought nothing")
    check_dropped(pump, quote)


def test_what_the_balance_does_not_carry_is_not_sold() -> None:
    pump = advancing_factory(2)
    sell(pump, BUYER, price_msat=40_000_000)
    (refused,) = pump.sent(pump.lsp, m.QuoteRefused)
    assert (refused.code, refused.missing_msat) == ("price", 40_000_000 - 30_000_123)
    assert not pump.factory.advances


def at_facts(pump: Pump, **facts: Any) -> None:
    pump.lsp.facts_at = lambda _own_height: replace(FRESH, **facts)


def leave(pump: Pump) -> None:
    """Let the neighbour leave, until its kickoff is in a block."""
    pump.handle(pump.client_at(NEIGHBOUR), ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.run()
    kickoff = leaf_of(pump, NEIGHBOUR).kickoff.tx.txid
    for _ in range(60):
        if pump.factory.chain.depth(kickoff):
            return
        pump.mine(1)
    raise AssertionError("the kickoff never came")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda pump: pump.disconnect(pump.client_at(NEIGHBOUR)), "offline"),
        (lambda pump: sell(pump, BUYER, amount_sat=None), "sold_out"),
        (lambda pump: at_facts(pump, header_height=1_000_000), "too_late"),
        (lambda pump: at_facts(pump, stale="no block for hours"), "not_fresh"),
        (lambda pump: at_facts(pump, unmarkable="no answer"), "not_fresh"),
        (ask_for_close, "closing"),
        (leave, "on_chain"),
    ],
)
def test_a_leaf_in_which_something_is_in_the_way_is_not_sold_of(
    make: Callable[[Pump], Any], code: str
) -> None:
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    make(pump)
    n_before = len(remembered(pump.lsp, ar.AdvanceProposed))
    buy = m.Buy(attempt_id=quote.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
    pump.tell(pump.lsp, pump.client_at(BUYER), buy)
    refused = pump.sent(pump.lsp, m.QuoteRefused)[-1]
    assert refused.code == code
    assert len(remembered(pump.lsp, ar.AdvanceProposed)) == n_before


def begin_to_leave(pump: Pump) -> None:
    pump.handle(pump.client_at(BUYER), ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.run()


@pytest.mark.parametrize("end", [leave, close, begin_to_leave], ids=["left", "closed", "leaving"])
def test_of_a_leaf_that_is_sold_of_no_more_nobody_reads_that_something_is_for_sale(
    end: Callable[[Pump], None],
) -> None:
    pump = advancing_factory(2)

    def sales_left() -> list[int | None]:
        client = pump.client_at(BUYER).state
        assert isinstance(client, ClientState)
        own = liquidity_of(client, client.attempts[pump.attempt.attempt_id])
        return [own["sales_left"], *(leaf["sales_left"] for leaf in leaves_of(pump.factory))]

    assert set(sales_left()) == {3}
    end(pump)
    assert sales_left() == [0, 0]
    pump.mine()
    assert sales_left() == [0, 0]


def test_one_advance_of_a_leaf_at_a_time() -> None:
    pump = advancing_factory(2)
    quote = quote_for(pump, BUYER)
    pump.lsp_says(pump.client_at(BUYER), quote)
    pump.run_to(m.AdvanceAgree)
    buy = m.Buy(attempt_id=quote.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
    pump.tell(pump.lsp, pump.client_at(NEIGHBOUR), buy)
    (refused,) = pump.sent(pump.lsp, m.QuoteRefused)
    assert refused.code == "busy"
    pump.run()
    check_sold(pump, BUYER, quote)


def test_with_a_step_of_one_block_nothing_is_sold() -> None:
    pump = advancing_factory(1, policy=replace(ADVANCING, step_blocks=1))
    sell(pump, BUYER)
    (refused,) = pump.sent(pump.lsp, m.QuoteRefused)
    assert refused.code == "no_race"
