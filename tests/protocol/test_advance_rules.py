"""What is in the way of an advance, one by one: at the LSP, and at a client at each moment."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advances import (
    ADVANCING,
    SOLD_SAT,
    advancing_factory,
    check_sold,
    leaf_of,
    market,
    quote_for,
    remembered,
    sell,
)
from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.signed_closes import change_link
from tests.protocol.test_close_limits import a_close, spend_of

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.changed import changed
from cromford.factory.allocation import Allocation, Purchase
from cromford.factory.leaf import advance_id_of
from cromford.protocol import policy
from cromford.protocol.advancing import rules
from cromford.protocol.advancing.rules import (
    Obstacle,
    problem_of,
    problem_with_closes,
    problem_with_depth,
    problem_with_presence,
    problem_with_time,
)
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import Stall
from cromford.protocol.journal.closes import SETTLED_DEPTH, SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.wire import messages as m
from cromford.wire.selling import AllocatedChannel

BUYER, NEIGHBOUR, ELSEWHERE = 1, 2, 3


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


# At the LSP, as values


@pytest.fixture(scope="module")
def factory() -> Factory:
    """Return a factory of two leaves in which nothing is in the way."""
    return advancing_factory(3).factory


def channel_of(factory: Factory, client: int) -> Link:
    return factory.book.links[factory.attempt.setting(client).channel_id]


def with_link(factory: Factory, client: int, **changes: Any) -> Factory:
    link = replace(channel_of(factory, client), **changes)
    book = changed(factory.book, links=factory.book.links.set(link.channel_id, link))
    return changed(factory, book=book)


def spent_on(chain: KnownChain, outpoint: OutPoint, *, depth: int = 1) -> KnownChain:
    """Return a chain on which something else spent an outpoint, so deep."""
    for n_blocks in range(depth):
        block = BlockRef(height=chain.height + 1, block_hash=Txid(bytes(32)))
        chain = chain.with_block(block, () if n_blocks else (spend_of(outpoint, 1_000),))
    return chain


def with_spent(factory: Factory, outpoint: OutPoint) -> Factory:
    return changed(factory, chain=spent_on(factory.chain, outpoint))


Disturb = Callable[[Factory], Factory]
OF_A_CLIENT: Final[dict[str, Disturb]] = {
    "it moved out": lambda one: changed(one, held_keys=frozenset({NEIGHBOUR})),
    "it moved out, and its keys were lost": lambda one: changed(
        one, lost_keys=frozenset({NEIGHBOUR})
    ),
    "its channel was closed": lambda one: changed(one, closed_seats=frozenset({NEIGHBOUR})),
    "its channel is being left": lambda one: changed(one, exits=frozenset({NEIGHBOUR})),
    "its channel failed": lambda one: with_link(one, NEIGHBOUR, failure="it broke"),
    "a store was restored from a backup": lambda one: with_link(one, NEIGHBOUR, mark=StoreMark()),
    "a store was restored from a backup, the client's": lambda one: with_link(
        one, NEIGHBOUR, peer_is_behind=True
    ),
    "its channel's output, or one above it, was spent otherwise": lambda one: with_spent(
        one, channel_of(one, NEIGHBOUR).present.outpoint
    ),
    "its channel's output, or one above it, was spent otherwise: the root": lambda one: with_spent(
        one, channel_of(one, NEIGHBOUR).path[0].outpoint
    ),
}


@pytest.mark.parametrize("why", OF_A_CLIENT)
def test_whatever_is_wrong_with_one_client_is_in_the_way_of_its_leaf(
    factory: Factory, why: str
) -> None:
    assert problem_of(factory, FRESH, BUYER) is None
    problem = problem_of(OF_A_CLIENT[why](factory), FRESH, BUYER)
    assert problem is not None
    assert problem.code == "leaf_blocked"
    # What is spent above the leaf concerns all in it: its first client is named.
    named = BUYER if "root" in why else NEIGHBOUR
    assert problem.reason.startswith(f"client {named}: ")
    assert why.startswith(problem.reason.removeprefix(f"client {named}: "))


@pytest.mark.parametrize("why", [why for why in OF_A_CLIENT if "spent" not in why])
def test_and_in_the_way_of_no_other_leaf(factory: Factory, why: str) -> None:
    assert problem_of(OF_A_CLIENT[why](factory), FRESH, ELSEWHERE) is None


@pytest.mark.parametrize(
    ("n_missed", "blocks_ago", "is_asked"),
    [(1, 0, True), (2, 0, False), (2, 143, False), (2, 144, True), (3, 143, False)],
)
def test_whoever_missed_two_deadlines_is_asked_again_a_day_later(
    factory: Factory, n_missed: int, blocks_ago: int, *, is_asked: bool
) -> None:
    height = factory.chain.height
    for missed_at, facts in (
        (height - blocks_ago, FRESH),
        (height, replace(FRESH, header_height=height + blocks_ago)),
    ):
        stall = Stall(n_missed=n_missed, height=missed_at)
        stalled = changed(factory, stalls=factory.stalls.set(NEIGHBOUR, stall))
        assert (problem_of(stalled, facts, BUYER) is None) is is_asked


def test_an_advance_may_begin_up_to_its_last_height_by_blocks_and_by_headers(
    factory: Factory,
) -> None:
    """The patience and a block before the earliest exit deadline of the leaf's channels."""
    leaf, terms = factory.attempt.leaf(BUYER), factory.attempt.terms
    deadline = channel_of(factory, BUYER).exit_deadline_height
    last = deadline - terms.patience_blocks - 1
    for late in (0, 1):
        facts = replace(FRESH, header_height=last + late)
        problem = problem_with_time(factory, facts, leaf)
        assert (problem is None) is (late == 0)
    sooner = with_link(factory, NEIGHBOUR, exit_deadline_height=deadline - 1)
    problem = problem_with_time(sooner, replace(FRESH, header_height=last), leaf)
    assert problem is not None
    assert problem.code == "too_late"
    higher = with_tip(factory, last + 1)
    problem = problem_with_time(higher, replace(FRESH, header_height=0), leaf)
    assert problem is not None
    assert problem.code == "too_late"


def with_tip(factory: Factory, height: int) -> Factory:
    """Return a factory that has read blocks up to a height, none of which concern it."""
    block = BlockRef(height=height, block_hash=Txid(bytes(32)))
    return changed(factory, chain=changed(factory.chain, recent=(block,)))


def test_a_funding_that_a_reorganisation_made_shallow_is_not_sold_under(factory: Factory) -> None:
    leaf = factory.attempt.leaf(BUYER)
    funding = factory.attempt.funding_tx.txid
    confirmed = factory.chain.confirmed.delete(funding)
    shallow = changed(factory, chain=changed(factory.chain, confirmed=confirmed))
    problem = problem_with_time(shallow, FRESH, leaf)
    assert problem is not None
    assert problem.code == "not_funded"


def large_once_sold(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let the buyer's channel be a large one by what it buys; return how deep its funding is."""
    (place,) = (i for i, one in enumerate(leaf_of(pump, BUYER).clients) if one == BUYER)
    capacity_sat = leaf_of(pump, BUYER).allocation.capacities_sat[place]
    monkeypatch.setattr(policy, "LARGE_CAPACITY_SAT", capacity_sat + SOLD_SAT)
    depth = pump.factory.chain.depth(pump.attempt.funding_tx.txid)
    assert depth < policy.MIN_DEPTH_LARGE, "deep enough for what its terms were agreed for"
    return depth


def test_what_makes_a_channel_a_large_one_is_sold_at_a_large_ones_depth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = advancing_factory(2)
    depth = large_once_sold(pump, monkeypatch)
    leaf = leaf_of(pump, BUYER)
    assert problem_of(pump.factory, FRESH, BUYER) is None
    sold = leaf.sold(Purchase(buyer=BUYER, amount_sat=SOLD_SAT))
    assert problem_with_depth(pump.factory, sold) == Obstacle(
        "not_funded",
        f"the factory's funding is not deep enough: expected 6, received {depth} confirmations",
    )
    assert problem_with_depth(pump.factory, leaf) is None
    sell(pump, BUYER)
    (refused,) = pump.sent(pump.lsp, m.QuoteRefused)
    assert refused.code == "not_funded"
    assert not remembered(pump.lsp, ar.AdvanceProposed)
    pump.mine(policy.MIN_DEPTH_LARGE - depth)
    check_sold(pump, BUYER, sell(pump, BUYER))


def test_a_client_does_not_sign_for_a_large_channel_above_a_shallow_funding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = advancing_factory(2)
    depth = large_once_sold(pump, monkeypatch)
    monkeypatch.setattr(rules, "problem_with_growth", lambda *_: None)
    sell(pump, BUYER)
    said = f"funding: expected at least 6 confirmations, received {depth}"
    for seat in (BUYER, NEIGHBOUR):
        assert refusals(pump, pump.client_at(seat)) == [said]
        assert not remembered(pump.client_at(seat), ar.AdvanceReceived)


def test_a_close_that_may_still_be_finished_is_in_the_way_where_it_spends_above_the_leaf(
    factory: Factory,
) -> None:
    leaf = factory.attempt.leaf(BUYER)
    link = channel_of(factory, ELSEWHERE)
    root, own = link.path[0].outpoint, link.present.outpoint

    def problem(outpoint: OutPoint, chain: KnownChain = factory.chain) -> str | None:
        signed = changed(with_link(factory, ELSEWHERE, closes=(close_of(outpoint),)), chain=chain)
        found = problem_with_closes(signed, leaf.clients)
        return None if found is None else found.reason

    said = f"client {ELSEWHERE} signed a close of {root}"
    assert problem(root) == said
    assert problem(root, spent_on(factory.chain, root, depth=SETTLED_DEPTH - 1)) == said
    assert problem(root, spent_on(factory.chain, root, depth=SETTLED_DEPTH)) is None
    assert problem(own) is None, "that is in the way of its own leaf alone"


def close_of(outpoint: OutPoint, *, is_finished: bool = False) -> SignedClose:
    return replace(a_close(b"\x01", 5_000, is_finished=is_finished), outpoint=outpoint)


def test_a_channel_that_was_closed_together_is_in_the_way_of_its_own_leaf_alone(
    factory: Factory,
) -> None:
    """Whatever the close spends: here an output that no channel of the leaf lies below."""
    elsewhere = OutPoint(txid=Txid(b"\x05" * 32), vout=0)
    closes = (close_of(elsewhere, is_finished=True),)
    frozen = with_link(factory, NEIGHBOUR, closes=closes)
    leaf, other = factory.attempt.leaf(BUYER), factory.attempt.leaf(ELSEWHERE)
    problem = problem_with_closes(frozen, leaf.clients)
    assert problem is not None
    assert problem.reason == f"client {NEIGHBOUR}: its channel was closed together"
    assert problem_with_closes(frozen, other.clients) is None


def test_whoever_of_a_leaf_is_away_or_not_taken_up_or_quiet_is_waited_for(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = factory.attempt.leaf(BUYER).clients
    here = {seat.node_id for seat in factory.attempt.seats}
    monkeypatch.setattr(FRESH.directory, "is_connected", here.__contains__)
    assert problem_with_presence(factory, FRESH, clients) is None
    state = changed(channel_of(factory, NEIGHBOUR).state, is_connected=False)
    closed = problem_with_presence(with_link(factory, NEIGHBOUR, state=state), FRESH, clients)
    assert closed == Obstacle("offline", f"client {NEIGHBOUR}: its channel is not open yet")
    quiet = with_link(factory, NEIGHBOUR, quiet_for=b"\x01" * 32)
    busy = problem_with_presence(quiet, FRESH, clients)
    assert busy == Obstacle("closing", f"client {NEIGHBOUR}: something is being agreed on")
    here.remove(factory.attempt.seats[NEIGHBOUR - 1].node_id)
    away = problem_with_presence(factory, FRESH, clients)
    assert away == Obstacle("offline", f"clients [{NEIGHBOUR}] are not connected")
    assert problem_with_presence(factory, FRESH, (ELSEWHERE,)) is None


# At a client


def put_attempt(pump: Pump, client: PumpNode, **changes: Any) -> None:
    driver = client.driver
    assert driver is not None
    attempt_id = pump.attempt.attempt_id
    attempts = driver.state.attempts
    attempt = replace(attempts[attempt_id], **changes)
    driver.state = changed(driver.state, attempts={**attempts, attempt_id: attempt})


def with_channel(**changes: Any) -> Callable[[Pump, PumpNode], None]:
    def make(_pump: Pump, client: PumpNode) -> None:
        channel_id = newest_link(client).channel_id
        change_link(client, channel_id, lambda link: replace(link, **changes))

    return make


def with_attempt(**changes: Any) -> Callable[[Pump, PumpNode], None]:
    return lambda pump, client: put_attempt(pump, client, **changes)


def see_something_else(_pump: Pump, client: PumpNode) -> None:
    """Let a client's chain have another spend of what its path's root spends."""
    driver = client.driver
    assert driver is not None
    root = newest_link(client).path[0].outpoint
    driver.state = changed(driver.state, chain=spent_on(driver.state.chain, root))


def see_no_funding(pump: Pump, client: PumpNode) -> None:
    """Let a client's chain have no funding any more, as after a reorganisation."""
    driver = client.driver
    assert driver is not None
    chain = driver.state.chain
    confirmed = chain.confirmed.delete(pump.attempt.funding_tx.txid)
    driver.state = changed(driver.state, chain=changed(chain, confirmed=confirmed))


def see_the_last_height(late_blocks: int) -> Callable[[Pump, PumpNode], None]:
    """Let a client's headers be so far beyond the last height at which an advance begins."""

    def make(pump: Pump, client: PumpNode) -> None:
        deadline = newest_link(client).exit_deadline_height
        height = deadline - pump.attempt.terms.patience_blocks - 1 + late_blocks
        client.facts_at = lambda _own_height: replace(FRESH, header_height=height)

    return make


LAGS: Final = "store: expected our newest on both sides, received a restored one"
AT_A_CLIENT: Final[dict[str, tuple[str, Callable[[Pump, PumpNode], None]]]] = {
    "its store lags": (LAGS, with_channel(is_behind=True)),
    "its store was put back": (LAGS, with_channel(mark=StoreMark())),
    "its store was put back before it had a channel": (LAGS, with_attempt(is_marked=True)),
    "the LSP's store lags": (LAGS, with_channel(peer_is_behind=True)),
    "its channel failed": (
        "channel: expected open, received it broke",
        with_channel(failure="it broke"),
    ),
    "it leaves": (
        "channel: expected one that we stay in, received we leave it",
        with_attempt(is_exiting=True),
    ),
    "it moved out": (
        "channel: expected one that we stay in, received we leave it",
        with_attempt(retired_height=1),
    ),
    "it signed a close": (
        "close: expected none that may be finished, received one",
        with_channel(closes=(close_of(OutPoint(txid=Txid(b"\x05" * 32), vout=0)),)),
    ),
    "its path is cut off": (
        "channel: expected alive on chain, received closed, or cut off",
        see_something_else,
    ),
    "it is too late": ("height: expected at most", see_the_last_height(1)),
    "its chain has the funding no more": (
        "funding: expected at least 1 confirmations, received 0",
        see_no_funding,
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("what", AT_A_CLIENT)
def test_a_client_whose_channel_is_not_as_it_was_takes_no_part(what: str) -> None:
    said, make = AT_A_CLIENT[what]
    pump = advancing_factory(2)
    client = pump.client_at(NEIGHBOUR)
    make(pump, client)
    sell(pump, BUYER)
    assert refusals(pump, client)[0].startswith(said)
    assert not remembered(client, ar.AdvanceReceived)


# Without a channel that is open the commit is not even looked at.
@pytest.mark.sampled(3)
@pytest.mark.parametrize("what", [what for what in AT_A_CLIENT if "failed" not in what])
def test_a_client_that_agreed_looks_once_more_before_it_signs(what: str) -> None:
    said, make = AT_A_CLIENT[what]
    pump = advancing_factory(2)
    client = pump.client_at(NEIGHBOUR)
    pump.lsp_says(pump.client_at(BUYER), quote_for(pump, BUYER))
    pump.run_to(m.AdvanceCommit)
    assert remembered(client, ar.AdvanceAgreed)
    make(pump, client)
    pump.run()
    assert refusals(pump, client)[0].startswith(said)
    assert not remembered(client, ar.AdvanceSigned)
    assert not pump.sent(client, m.AdvanceSign)


def refusals(pump: Pump, client: PumpNode) -> list[str]:
    """Return why a client refused, each time."""
    return [one.reason for one in pump.sent(client, m.AdvanceAbort)]


def test_at_the_last_height_a_client_still_takes_part() -> None:
    pump = advancing_factory(2)
    see_the_last_height(0)(pump, pump.client_at(NEIGHBOUR))
    sell(pump, BUYER)
    assert len(leaf_of(pump, BUYER).states) == 2


def test_a_client_takes_no_part_where_a_step_is_one_block_whatever_its_lsp_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of such a step is no block: nobody could be sure to publish the newer state in time."""
    monkeypatch.setattr("cromford.protocol.advancing.rules.STEP_BLOCKS_MIN", 1)
    pump = advancing_factory(1, policy=replace(ADVANCING, step_blocks=1))
    sell(pump, BUYER)
    assert refusals(pump, pump.client_at(BUYER)) == ["step_blocks: expected at least 2, received 1"]


def test_with_a_step_of_two_blocks_a_leaf_is_advanced() -> None:
    pump = advancing_factory(1, policy=replace(ADVANCING, step_blocks=2))
    sell(pump, BUYER)
    assert len(leaf_of(pump, BUYER).states) == 2


@pytest.mark.parametrize("less_sat", [1, -1])
def test_a_buyer_takes_part_in_what_it_bought_and_in_no_other_sale(less_sat: int) -> None:
    """The LSP makes a whole and valid next state, and names it rightly: of another amount."""
    pump = advancing_factory(2)
    leaf = leaf_of(pump, BUYER)

    def other(propose: m.AdvancePropose) -> m.AdvancePropose:
        capacities = [one.capacity_sat for one in propose.channels]
        capacities[leaf.clients.index(BUYER)] -= less_sat
        allocation = Allocation(
            capacities_sat=tuple(capacities), lstock_sat=propose.lstock_sat + less_sat
        )
        assert leaf.advanced(allocation).states[1].state_index == 1
        return replace(
            propose,
            channels=tuple(AllocatedChannel(capacity_sat=one) for one in capacities),
            lstock_sat=allocation.lstock_sat,
            advance_id=advance_id_of(
                leaf, attempt_id=propose.attempt_id, state_index=1, allocation=allocation
            ),
        )

    def tamper(_by: PumpNode, to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if to is pump.client_at(BUYER) and isinstance(message, m.AdvancePropose):
            return (other(message),)
        return (message,)

    with pump.tampering(tamper):
        quote = sell(pump, BUYER)
    capacity_sat = quote.capacity_sat - less_sat
    said = f"capacity_sat: expected {quote.capacity_sat}, received {capacity_sat}"
    assert refusals(pump, pump.client_at(BUYER)) == [said]
