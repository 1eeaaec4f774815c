"""What is in the way of any close of a channel, for whoever asks: each alone, on both sides."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.closes import closable_factory, links, scope_in
from tests.protocol.pump import Pump
from tests.protocol.test_close_limits import a_close, spend_of

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol.closing.rules import (
    ADVANCE_OPEN,
    LATEST_BLOCKS,
    problem_on_chain,
    problem_with_channel,
    problem_with_feerates,
    problem_with_height,
)
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import POISONS_HELD, NextFunding

SEAT: Final = 2


@pytest.fixture(scope="module")
def pump() -> Pump:
    """Return a world that these tests only look at."""
    return closable_factory(3)


def owing_a_revocation(link: Link) -> Link:
    return replace(link, state=replace(link.state, own_signed=link.state.own_revoked + 1))


def on_the_way_to_another_funding(link: Link) -> Link:
    following = NextFunding(
        advance_id=b"\x01" * 32, funding=link.present, price_msat=0, stage=POISONS_HELD
    )
    return replace(link, next=following)


IN_THE_WAY: Final[dict[str, Callable[[Link], Link]]] = {
    "the channel failed: it broke": lambda link: replace(link, failure="it broke"),
    "another close of it is finished already": lambda link: replace(
        link, closes=(a_close(b"\x01", 5_000, is_finished=True),)
    ),
    ADVANCE_OPEN: on_the_way_to_another_funding,
    "an update is on its way": owing_a_revocation,
}


@pytest.mark.parametrize("said", IN_THE_WAY)
def test_a_channel_that_is_not_at_rest_is_not_closed_by_either_side(pump: Pump, said: str) -> None:
    for link, chain in both_sides(pump):
        assert problem_with_channel(link, chain, height=chain.height) is None
        disturbed = IN_THE_WAY[said](link)
        assert problem_with_channel(disturbed, chain, height=chain.height) == said


def both_sides(pump: Pump) -> tuple[tuple[Link, KnownChain], ...]:
    own, theirs = links(pump)[SEAT]
    return (own, pump.client_at(SEAT).state.chain), (theirs, pump.factory.chain)


def with_block(chain: KnownChain, *txs: Tx, height: int | None = None) -> KnownChain:
    block = BlockRef(height=height or chain.height + 1, block_hash=Txid(bytes(32)))
    return chain.with_block(block, txs)


def test_what_can_have_no_update_any_more_is_not_in_the_way_of_its_close(pump: Pump) -> None:
    """A store that lacks state: no advance of it will ever be finished, and its failure is that."""
    for link, chain in both_sides(pump):
        restored = on_the_way_to_another_funding(replace(link, is_behind=True, failure="it lags"))
        said = problem_with_channel(restored, chain, height=chain.height)
        assert said is None


def test_a_channel_whose_output_or_one_above_it_was_spent_otherwise_is_not_closed(
    pump: Pump,
) -> None:
    for link, chain in both_sides(pump):
        for outpoint in (link.present.outpoint, *(step.outpoint for step in link.path)):
            spent = with_block(chain, spend_of(outpoint, 1_000))
            said = problem_with_channel(link, spent, height=spent.height)
            assert said == "its output, or one above it, was spent otherwise"


@pytest.mark.parametrize(("stage", "is_in_the_way"), [(0, False), (2, False), (3, True)])
def test_a_channel_moves_once_the_poisons_of_its_old_state_may_be_held(
    pump: Pump, stage: int, *, is_in_the_way: bool
) -> None:
    for link, chain in both_sides(pump):
        following = NextFunding(
            advance_id=b"\x01" * 32, funding=link.present, price_msat=0, stage=stage
        )
        said = problem_with_channel(replace(link, next=following), chain, height=chain.height)
        assert said == (ADVANCE_OPEN if is_in_the_way else None)


def test_an_output_is_closed_while_it_is_in_a_block_and_unspent(pump: Pump) -> None:
    scope, chain = scope_in(pump, pump.attempt.funding_outpoint), pump.factory.chain
    assert problem_on_chain(scope, chain) is None
    before = chain.without_block(chain.confirmed[scope.outpoint.txid])
    assert problem_on_chain(scope, before) == "kickoff_root: its output is not on chain"
    spender = spend_of(scope.outpoint, 1_000)
    said = problem_on_chain(scope, with_block(chain, spender))
    assert said == f"kickoff_root: its output was spent by {spender.txid}"


def test_it_is_late_from_a_day_before_the_exit_deadline_on_but_never_for_what_is_settled(
    pump: Pump,
) -> None:
    for link, chain in both_sides(pump):
        deadline = link.remaining(chain).exit_deadline_height
        assert deadline is not None
        late = deadline - LATEST_BLOCKS
        assert problem_with_height(link, chain, height=late - 1) is None
        said = f"too late: expected a height below {late}, received {late}"
        assert problem_with_height(link, chain, height=late) == said
        path = [node.tx for node in pump.attempt.tree.nodes if SEAT in node.shape.clients]
        landed = with_block(chain, *path)
        assert problem_with_height(link, landed, height=link.expiry_height) is not None
        settled = with_block(landed, height=landed.height + 5)
        assert problem_with_height(link, settled, height=link.expiry_height) is None


def test_one_feerate_or_two_ascend_from_the_least() -> None:
    for feerates in ((1,), (1, 2), (250, 260)):
        assert problem_with_feerates(feerates, least_sat_per_kw=1) is None
    assert problem_with_feerates((), least_sat_per_kw=1) == ("options", "1..2 feerates", 0)
    said = problem_with_feerates((2, 2), least_sat_per_kw=1)
    assert said == ("feerate_sat_per_kw", "above 0.008 sat/vB, the one before", 2)
    said = problem_with_feerates((0,), least_sat_per_kw=1)
    assert said == ("feerate_sat_per_kw", "at least 0.004 sat/vB", 0)
