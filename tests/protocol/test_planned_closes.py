"""What is in the way of a close that an LSP's operator asks for, and whose it is: by name."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.decisions import in_factory
from tests.protocol.five_seats import (
    ALL,
    disconnected,
    holding,
    known,
    link_of,
    split,
    tx_of,
    whole,
    with_block,
    with_link,
)
from tests.protocol.test_close_limits import spend_of
from tests.protocol.test_close_steps import pool_with

from cromford.bitcoin.tx import Tx
from cromford.factory.allocation import Allocation
from cromford.protocol import events as ev
from cromford.protocol.closing.planning import (
    clients_advancing,
    clients_away,
    plan_close,
    usual_feerates,
)
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.advances import AdvanceSession, LspAdvance
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_attempt import Aborted
from cromford.protocol.journal.next_funding import NextFunding
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, OwnFees

LATEST_BLOCKS: Final = 144


def planned(factory: Factory, facts: Facts = FRESH, **asked: Any) -> tuple[int, ...]:
    """Return whose channels a close would end."""
    request = ev.CloseRequested(attempt_id=factory.attempt.attempt_id, **asked)
    plan = plan_close(factory, in_factory(factory, facts).facts, request)
    return plan.scope.clients


def refused(factory: Factory, facts: Facts = FRESH, **asked: Any) -> tuple[str, str, bool]:
    """Return why a close is refused: the code, the reason, and whether it may be asked again."""
    with pytest.raises(Rejected) as caught:
        planned(factory, facts, **asked)
    return caught.value.code, str(caught.value), caught.value.retryable


def with_funded(factory: Factory, **changes: Any) -> Factory:
    funded = factory.attempt.funded
    assert funded is not None
    return replace(factory, begun=replace(factory.attempt, stage=replace(funded, **changes)))


NOT_DEEP: Final = ("factory_not_ready", "the funding is not as deep as it has to be", True)


def test_a_whole_factory_a_vertex_or_a_channel_is_closed() -> None:
    assert planned(whole()) == ALL
    assert planned(split(), vertex="0") == planned(split(), vertex="kickoff_0") == (1, 2)
    assert planned(split(), vertex="2") == (5,)
    landed = with_block(split(), tx_of("kickoff_0"), tx_of("state_0"))
    assert planned(landed, client=1) == (1,)
    assert planned(landed, client=2) == (2,)


def test_a_vertex_that_is_not_in_the_tree_is_refused_with_those_that_are() -> None:
    code, reason, _ = refused(whole(), vertex="3")
    assert code == "vertex_not_found"
    assert reason.endswith("vertex: expected one of root, 0, 1, 2, received 3")


def test_nothing_is_closed_before_its_funding_is_as_deep_as_it_has_to_be() -> None:
    factory = whole()
    height = factory.chain.confirmed[factory.attempt.funding_tx.txid]
    reorganised = replace(factory, chain=factory.chain.without_block(height))
    assert refused(reorganised) == NOT_DEEP
    assert refused(with_funded(factory, ready_sent=False)) == NOT_DEEP


def test_what_was_never_funded_is_no_factory() -> None:
    aborted = replace(whole().attempt, stage=Aborted(reason="nobody came"))
    code, reason, _ = refused(replace(whole(), begun=aborted))
    assert code == "factory_not_found"
    assert reason.endswith(f"no funded factory {aborted.attempt_id.hex()}")


def test_whoever_did_not_find_the_funding_ready_is_named_and_in_nobody_elses_way() -> None:
    others = (seat.node_id for number, seat in enumerate(split().attempt.seats, 1) if number != 3)
    waiting = with_funded(split(), ready_received=frozenset(others))
    assert refused(waiting, vertex="1") == (
        "factory_not_ready",
        "did not find the funding ready yet: client 3",
        True,
    )
    assert planned(waiting, vertex="0") == (1, 2)
    assert planned(waiting, vertex="2") == (5,)


def advancing(factory: Factory, *, state_index: int = 1, is_asking: bool = True) -> Factory:
    """Return the factory in which the leaf of 3 and 4 has an advance under way."""
    advance = LspAdvance(
        advance_id=b"\x01" * 32,
        clients=(3, 4),
        state_index=state_index,
        allocation=Allocation(capacities_sat=(1_000, 1_000), lstock_sat=0),
        buyer=3,
        quote_id=b"\x02" * 32,
        price_msat=0,
        is_asking=is_asking,
    )
    name = factory.attempt.leaf_name(3)
    return replace(factory, advances=factory.advances.set(name, advance))


def through(factory: Factory, client: int) -> Factory:
    """Return the factory in which a channel went on to the state that is made."""
    return with_link(factory, client, superseded=(link_of(factory, client).present,))


def test_an_advance_under_way_is_in_the_way_of_its_leaf_until_all_of_it_are_through() -> None:
    busy = advancing(split())
    assert clients_advancing(busy, ALL) == [3, 4]
    assert clients_advancing(busy, (5, 4)) == [4]
    assert clients_advancing(through(busy, 3), ALL) == [3, 4]
    assert clients_advancing(through(busy, 4), ALL) == [3, 4]
    assert not clients_advancing(through(through(busy, 3), 4), ALL)
    assert refused(busy, vertex="1") == (
        "advance_under_way",
        "an advance of the leaf is under way: client 3, client 4",
        True,
    )
    assert planned(busy, vertex="0") == (1, 2)


@pytest.mark.parametrize("ended", [{"failure": "it broke"}, {"is_behind": True, "failure": "lost"}])
def test_an_advance_that_can_end_no_more_is_in_nobodys_way(ended: dict[str, Any]) -> None:
    busy = with_link(through(advancing(split()), 3), 4, **ended)
    assert not clients_advancing(busy, ALL)


def with_next(factory: Factory, client: int, tx: Tx) -> Factory:
    """Return the factory in which a channel is on its way to what a transaction pays."""
    funding = replace(link_of(factory, client).present, outpoint=tx.outpoint(0))
    following = NextFunding(advance_id=b"\x01" * 32, funding=funding, price_msat=0)
    return with_link(factory, client, next=following)


def with_advance(factory: Factory, **changes: Any) -> Factory:
    """Return the factory whose one advance under way says something else."""
    ((name, advance),) = factory.advances.items()
    return replace(factory, advances=factory.advances.set(name, replace(advance, **changes)))


def test_an_advance_that_nobody_is_asked_about_is_in_the_way_only_where_channels_may_move() -> None:
    """Without poisons none does before a state is on chain; then both are below the close."""
    unasked = advancing(split(), is_asking=False)
    assert not clients_advancing(unasked, ALL)
    assert not clients_advancing(with_advance(unasked, is_committed=True, is_signed=True), ALL)
    session = AdvanceSession(factory_pool=pool_with(bytes(33)), channel_pools={})
    assert clients_advancing(with_advance(unasked, session=session), ALL) == [3, 4]
    assert clients_advancing(with_advance(unasked, has_poisons=True), ALL) == [3, 4]
    landed = with_block(unasked, tx_of("kickoff_1"), tx_of("state_1"))
    assert clients_advancing(landed, ALL) == [3, 4]
    other = spend_of(tx_of("state_1").inputs[0].outpoint, 1_000)
    moving = with_next(unasked, 3, other)
    assert not clients_advancing(moving, ALL)
    assert clients_advancing(with_block(moving, tx_of("kickoff_1"), other), ALL) == [3, 4]


def test_nor_where_that_one_is_forgotten_by_the_lsps_store() -> None:
    unasked = advancing(split(), is_asking=False)
    known = tx_of("state_1")
    forgotten = replace(known, inputs=(replace(known.inputs[0], nsequence=0),))
    assert forgotten.txid != known.txid
    assert clients_advancing(with_block(unasked, tx_of("kickoff_1"), forgotten), ALL) == [3, 4]


@pytest.mark.parametrize("estimate", [1, BELIEVED_SAT_PER_KW, BELIEVED_SAT_PER_KW + 1])
def test_usual_feerates_follow_an_estimate_that_can_be_believed(estimate: int) -> None:
    fees = OwnFees(estimates=((36, estimate),))
    if estimate > BELIEVED_SAT_PER_KW:
        code, reason, retryable = refused(whole(), Facts(fees=fees))
        assert (code, retryable) == ("bad_feerate", True)
        assert reason.endswith("received 1,000.004 sat/vB")
        assert planned(whole(), Facts(fees=fees), feerates_sat_per_kw=(1_000,)) == ALL
        return
    first = max(750, estimate)  # 1.5 times the tree's
    assert usual_feerates(whole(), fees) == (first, 3 * first)


def test_it_is_too_late_by_what_is_known_of_the_chain_read_or_not() -> None:
    link = link_of(whole(), 1)
    deadline = link.remaining(whole().chain).exit_deadline_height
    assert deadline is not None
    first_late = deadline - LATEST_BLOCKS
    assert planned(whole(), Facts(header_height=first_late - 1)) == ALL
    assert planned(with_block(whole(), height=first_late - 1)) == ALL
    said = f"expected a height below {first_late}, received {first_late}"
    for late in (
        refused(whole(), Facts(header_height=first_late)),
        refused(with_block(whole(), height=first_late)),
    ):
        assert late == ("channel_not_ready", f"client 1: too late: {said}", True)


def test_it_is_never_too_late_for_those_whose_keys_the_lsp_holds() -> None:
    late = Facts(header_height=whole().attempt.terms.expiry_height)
    assert planned(holding(whole(), *ALL), late) == ALL
    assert refused(holding(whole(), 1, 2, 4, 5), late)[1].startswith("client 3: too late")


def test_who_is_not_here_or_whose_channel_is_not_taken_up_is_waited_for() -> None:
    def away(factory: Factory, *here: int) -> list[int]:
        facts = in_factory(factory, known=known(here)).facts
        return clients_away(factory, facts, ALL)

    assert not away(whole(), *ALL)
    assert away(whole(), 2, 3, 4) == [1, 5]
    assert away(disconnected(whole(), 4), *ALL) == [4]
    assert not away(holding(disconnected(whole(), 4), 1, 4), 2, 3, 5), "they moved out"


@pytest.mark.parametrize("restored", [{"is_behind": True}, {"peer_is_behind": True}])
def test_a_channel_with_a_restored_store_is_taken_up_by_nobody_and_waited_for_by_nobody(
    restored: dict[str, bool],
) -> None:
    factory = with_link(disconnected(whole(), 4), 4, **restored)
    facts = in_factory(factory, known=known(ALL)).facts
    assert not clients_away(factory, facts, ALL)
    facts = in_factory(factory, known=known((1, 2, 3, 5))).facts
    assert clients_away(factory, facts, ALL) == [4]
