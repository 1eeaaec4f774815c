"""Whose turn it is in an advance: each word in its time, each wait, and what of it counts once.

Asked of states as they are at a step, one thing changed.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.advance_steps import (
    BUYER,
    NEIGHBOUR,
    advance_of,
    answer_of,
    at_step,
    decided,
    decided_by,
    found,
    kept,
    messages,
    next_message,
    only,
    said,
    whole_sale,
)
from tests.protocol.advances import market
from tests.protocol.attacks import with_house
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_advance_checks import (
    bought,
    kicked_off,
    link_in,
    with_attempt,
    with_chain,
    with_link,
)
from tests.protocol.test_advance_tries import come_back, half_signed_pump, see, too_late

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol import events as ev
from cromford.protocol.advancing.landing import SAYS_VOID
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import Stall
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.lsp_state import LspState
from cromford.wire import messages as m

AGAIN: Final = b"\x01" * 32


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


# Another try, at the LSP


@cache
def waiting() -> tuple[Pump, PumpNode, PumpNode]:
    """Return an LSP that may begin another try with its next block: all are here and nothing runs.

    The buyer is bound, and its neighbour is not.
    """
    with market():
        pump, buyer, neighbour = half_signed_pump()
        see(pump, header_height=too_late(pump))
        come_back(pump, neighbour)
        see(pump)
    return pump, buyer, neighbour


def block(state: Any) -> ev.BlockAdded:
    chain = state.scan if isinstance(state, LspState) else state.chain
    tip = chain.recent[-1]
    return ev.BlockAdded(height=tip.height + 1, block_hash=tip.block_hash, txs=())


def with_factory(change: Callable[[Factory], Factory]) -> LspState:
    state: LspState = waiting()[0].lsp.state
    (factory,) = state.factories.values()
    return state.with_factory(change(factory))


def with_advance(**changes: Any) -> LspState:
    def change(factory: Factory) -> Factory:
        ((name, advance),) = factory.advances.items()
        return changed(factory, advances=factory.advances.set(name, changed(advance, **changes)))

    return with_factory(change)


def with_seat(seat: int, **changes: Any) -> LspState:
    """Return a state in which something of one client's channel is different."""

    def change(factory: Factory) -> Factory:
        (link,) = [one for one in factory.book.links.values() if one.client == seat]
        links = factory.book.links.set(link.channel_id, changed(link, **changes))
        return changed(factory, book=changed(factory.book, links=links))

    return with_factory(change)


def next_of(seat: int) -> Any:
    links = waiting()[0].factory.book.links.values()
    (following,) = [link.next for link in links if link.client == seat]
    return following


def stalled(seat: int) -> LspState:
    height = waiting()[0].chain.height
    stall = Stall(n_missed=2, height=height)
    return with_factory(lambda one: changed(one, stalls=one.stalls.set(seat, stall)))


def away(node: PumpNode) -> LspState:
    state: LspState = waiting()[0].lsp.state
    return with_house(state, connected=state.house.connected - {node.node_id})


NOT_NOW: Final[dict[str, Callable[[], LspState]]] = {
    "who is not bound is away": lambda: away(waiting()[2]),
    "who is bound is away, and its channel failed": lambda: with_house(
        with_seat(BUYER, failure="it lied"),
        connected=waiting()[0].lsp.state.house.connected - {waiting()[1].node_id},
    ),
    "who is not bound let deadlines pass": lambda: stalled(NEIGHBOUR),
    "who is bound let deadlines pass": lambda: stalled(BUYER),
    "the channel of who is not bound failed": lambda: with_seat(NEIGHBOUR, failure="it lied"),
    "nobody was ever committed to": lambda: with_advance(is_committed=False),
}


def test_another_try_begins_with_the_block_that_finds_everybody_here() -> None:
    pump, *_ = waiting()
    decision = decided(pump.lsp, block(pump.lsp.state))
    assert only(decision, ar.AdvanceResumed).advance_id == advance_of(pump).advance_id
    deadline = fx.AdvanceDeadline(advance_id=advance_of(pump).advance_id)
    (asked,) = [one for one in found(decision, fx.SetDeadline) if one.deadline == deadline]
    assert asked.seconds == pump.policy.deadline_seconds
    assert found(decision, fx.PrepareAdvance), "nothing is on its way"


@pytest.mark.parametrize("why", NOT_NOW)
def test_no_other_try_begins_while_somebody_is_missing_or_nothing_is(why: str) -> None:
    state = NOT_NOW[why]()
    decision = decided_by(state, block(state))
    assert not found(decision, ar.AdvanceResumed | ar.AdvanceDropped | fx.PrepareAdvance)


def test_of_two_that_are_bound_nothing_is_asked_again_but_their_signatures() -> None:
    """It may be late for another advance: this one is finished all the same."""
    bound = changed(next_of(NEIGHBOUR), is_dual=True)
    state = with_seat(NEIGHBOUR, next=bound)
    late = replace(FRESH, header_height=too_late(waiting()[0]))
    assert found(decided_by(state, block(state), late), ar.AdvanceResumed)
    one = with_seat(NEIGHBOUR)
    assert not found(decided_by(one, block(one), late), ar.AdvanceResumed | ar.AdvanceDropped)


def test_what_is_being_begun_again_is_not_begun_twice() -> None:
    pump, *_ = waiting()
    decision = decided(pump.lsp, block(pump.lsp.state))
    again = decided_by(decision.state, block(decision.state))
    assert not found(again, ar.AdvanceResumed)


# Words to the LSP


def refusing(pump: Pump, seat: int) -> ev.MessageReceived:
    abort = m.AdvanceAbort(
        attempt_id=pump.attempt.attempt_id, advance_id=advance_of(pump).advance_id, reason="no"
    )
    return said(pump.client_at(seat), abort)


def test_a_refusal_between_two_tries_ends_nothing() -> None:
    pump, *_ = waiting()
    assert decided(pump.lsp, refusing(pump, NEIGHBOUR)).is_nothing


@pytest.mark.parametrize(
    ("step", "n_declined"), [(m.AdvanceAgree, 0), (m.AdvanceCommit, 1), (m.AdvanceDone, 0)]
)
def test_only_who_was_given_something_to_sign_and_did_not_declines(
    step: type[m.Message], n_declined: int
) -> None:
    """Before it, the advance is dropped; afterwards its word takes nothing back."""
    pump = at_step(step)
    decision = decided(pump.lsp, refusing(pump, NEIGHBOUR))
    assert len(found(decision, ar.AdvanceDeclined)) == n_declined
    assert bool(found(decision, ar.AdvanceDropped)) is (step is m.AdvanceAgree)
    assert all(one.holdouts == () for one in found(decision, ar.AdvanceSessionEnded))


def test_a_price_that_the_balance_does_not_carry_any_more_ends_it_and_is_nobodys_fault() -> None:
    pump = at_step(m.AdvanceAgree)
    letters = [one for one in pump.wire if isinstance(one.message, m.AdvanceAgree)]
    (mine,) = [one for one in letters if one.sender is pump.client_at(BUYER)]
    state: LspState = pump.lsp.state
    (factory,) = state.factories.values()
    ((name, advance),) = factory.advances.items()
    dear = changed(advance, price_msat=10**10)
    state = state.with_factory(changed(factory, advances=factory.advances.set(name, dear)))
    dropped = only(decided_by(state, said(mine.sender, mine.message)), ar.AdvanceDropped)
    assert dropped.reason.startswith("price_msat: 10,000,000 sat is ")
    assert (dropped.is_fault, dropped.culprits) == (False, ())


def test_poisons_do_not_leave_while_the_leafs_kickoff_is_in_a_block() -> None:
    pump = at_step(m.AdvanceHeld)
    state: LspState = pump.lsp.state
    (factory,) = state.factories.values()
    kickoff = pump.attempt.leaf(BUYER).kickoff.tx.txid
    confirmed = factory.chain.confirmed.update({kickoff: factory.chain.height})
    landed = state.with_factory(changed(factory, chain=changed(factory.chain, confirmed=confirmed)))
    for one, n_told in ((state, 2), (landed, 0)):
        told = [x for x in messages(decided_by(one, block(one))) if isinstance(x, m.AdvanceDone)]
        assert len(told) == n_told, "again with each block, until it is acknowledged"
        assert all(done.stock_poison for done in told)


# A client's turns


def client_at(step: type[m.Message], seat: int = NEIGHBOUR) -> tuple[Pump, PumpNode]:
    pump = at_step(step)
    return pump, pump.client_at(seat)


def test_a_client_waits_for_its_lsp_for_as_long_as_its_policy_says() -> None:
    pump, client = client_at(m.AdvancePropose)
    decision = decided(client, next_message(pump, client, m.AdvancePropose))
    asked = only(decision, fx.SetDeadline)
    assert asked.deadline == fx.AdvanceDeadline(advance_id=advance_of(pump).advance_id)
    assert asked.seconds == client.state.config.policy.deadline_seconds


def proposed_again(pump: Pump) -> ev.MessageReceived:
    (propose, *_) = pump.sent(pump.lsp, m.AdvancePropose)
    return said(pump.lsp, replace(propose, session=AGAIN))


def nonces(client: PumpNode, asked: fx.PrepareAdvance) -> ev.AdvancePrepared:
    signer = client.signer
    assert signer is not None
    return ev.AdvancePrepared(
        asked=asked,
        factory_pool=signer.make_pool(asked.factory_key, asked.factory_size),
        channel_pools=tuple(
            signer.make_pool(key, asked.channel_size) for key in asked.channel_keys
        ),
    )


def test_a_client_that_signed_signs_again_with_fresh_nonces_and_says_nothing_else() -> None:
    """It looks at nothing any more, waits for as long as it takes, and gives no second half."""
    pump, client = client_at(m.AdvanceDone)
    (advance,) = client.state.advances.values()
    proposed = decided(client, proposed_again(pump))
    assert not found(proposed, fx.SetDeadline)
    prepared = nonces(client, only(proposed, fx.PrepareAdvance))
    agreed = decided_by(proposed.state, prepared, replace(FRESH, stale="no block for hours"))
    (agree,) = messages(agreed)
    assert isinstance(agree, m.AdvanceAgree)
    assert (agree.channel, agree.session) == ((), AGAIN)
    dropped = only(agreed, fx.DropPools).pool_ids
    assert set(dropped) == set(advance.pool_ids) - set(link_in(client.state).pool_ids)
    (commit, *_) = pump.sent(pump.lsp, m.AdvanceCommit)
    signing = decided_by(agreed.state, said(pump.lsp, replace(commit, half=(), channel=())), FRESH)
    assert not found(signing, fx.FinishNext)
    parts = answer_of(client, only(signing, fx.PartialSign))
    (sign,) = messages(decided_by(signing.state, parts))
    assert isinstance(sign, m.AdvanceSign)
    assert (len(sign.half), len(sign.partials)) == (0, 1)


def test_a_client_that_signed_hears_of_no_other_advance_of_its_leaf() -> None:
    pump, client = client_at(m.AdvanceDone)
    (propose, *_) = pump.sent(pump.lsp, m.AdvancePropose)
    other = said(pump.lsp, replace(propose, advance_id=bytes(32)))
    assert decided(client, other).is_nothing


def test_another_lsp_has_no_say_in_an_advance() -> None:
    pump, client = client_at(m.AdvanceCommit)
    state = with_attempt(client.state, pump, lsp_node_id=client.node_id)
    event = next_message(pump, client, m.AdvanceCommit)
    assert decided_by(state, event).is_nothing


def test_nobody_agrees_before_its_channel_is_open_and_quiet() -> None:
    pump, client = client_at(m.AdvancePropose)
    proposed = decided(client, next_message(pump, client, m.AdvancePropose))
    prepared = nonces(client, only(proposed, fx.PrepareAdvance))
    link = link_in(proposed.state)
    owing = changed(link.state, own_revoked=link.state.own_revoked - 1)
    closed = changed(link.state, is_connected=False)
    for channel in (owing, closed):
        decision = decided_by(with_link(proposed.state, state=channel), prepared)
        assert not messages(decision)
        assert not found(decision, ar.AdvanceAgreed | ar.AdvanceDropped)


def test_what_was_made_for_a_step_that_is_over_is_not_used() -> None:
    pump, client = client_at(m.AdvanceCommit)
    finishing = decided(client, next_message(pump, client, m.AdvanceCommit))
    made = answer_of(client, only(finishing, fx.FinishNext))
    signed = decided_by(finishing.state, made)
    parts = answer_of(client, only(signed, fx.PartialSign))
    assert decided_by(signed.state, made).is_nothing, "it signed already"
    assert decided_by(client.state, parts).is_nothing, "it did not sign yet"
    attempt_id, advances = pump.attempt.attempt_id, finishing.state.advances
    begun = changed(advances[attempt_id], is_agreed=False)
    not_agreed = changed(finishing.state, advances=advances.set(attempt_id, begun))
    assert not found(decided_by(not_agreed, made), ar.AdvanceSigned | fx.PartialSign)
    over = whole_sale()[0].client_at(NEIGHBOUR).state
    sold = whole_sale()[0]
    ids = {"attempt_id": sold.attempt.attempt_id}
    for late in (
        replace(made, asked=replace(made.asked, channel_id=link_in(over).channel_id, **ids)),
        replace(parts, asked=replace(parts.asked, **ids)),
    ):
        assert decided_by(over, late).is_nothing


def test_what_a_client_signed_is_sent_while_it_is_connected_and_no_deadline_runs_then() -> None:
    pump, client = client_at(m.AdvanceCommit)
    finishing = decided(client, next_message(pump, client, m.AdvanceCommit))
    made = answer_of(client, only(finishing, fx.FinishNext))
    signed = decided_by(finishing.state, made)
    parts = answer_of(client, only(signed, fx.PartialSign))
    leaving = decided_by(signed.state, parts)
    half = answer_of(client, only(leaving, fx.SignNext))
    sent = decided_by(leaving.state, half)
    assert only(sent, ar.AdvanceSent)
    deadline = fx.AdvanceDeadline(advance_id=advance_of(pump).advance_id)
    assert only(sent, fx.ClearDeadline).deadline == deadline
    gone = decided_by(leaving.state, ev.ConnectionClosed(node_id=pump.lsp.node_id))
    late = decided_by(gone.state, half)
    assert (messages(late), kept(late)) == ([], ())
    idle = whole_sale()[0].client_at(NEIGHBOUR)
    asked = replace(half.asked, channel_id=link_in(idle.state).channel_id)
    assert not messages(decided(idle, replace(half, asked=asked)))


def test_an_lsps_word_that_nothing_comes_of_it_is_not_answered_and_ends_the_purchase() -> None:
    pump, buyer = client_at(m.AdvanceCommit, BUYER)
    abort = m.AdvanceAbort(
        attempt_id=pump.attempt.attempt_id,
        advance_id=advance_of(pump).advance_id,
        reason="not now",
    )
    (advance,) = buyer.state.advances.values()
    decision = decided(buyer, said(pump.lsp, abort))
    assert only(decision, ar.AdvanceDropped).reason == "the LSP: not now"
    assert not messages(decision)
    ended = only(decision, ar.PurchaseEnded)
    assert (ended.quote_id, ended.reason) == (advance.quote_id, "the LSP: not now")
    dropped = {one for each in found(decision, fx.DropPools) for one in each.pool_ids}
    assert set(advance.pool_ids) <= dropped


def test_with_its_connection_go_the_nonces_of_an_advance_and_its_deadline() -> None:
    pump, client = client_at(m.AdvanceCommit)
    (advance,) = client.state.advances.values()
    decision = decided(client, ev.ConnectionClosed(node_id=pump.lsp.node_id))
    deadline = fx.AdvanceDeadline(advance_id=advance.advance_id)
    assert deadline in [one.deadline for one in found(decision, fx.ClearDeadline)]
    dropped = [set(one.pool_ids) for one in found(decision, fx.DropPools)]
    assert set(advance.pool_ids) in dropped
    assert all(dropped), "nothing is dropped for nothing"


def confirmed_for(state: ClientState, txid: Any, depth: int) -> ClientState:
    height = state.chain.height + 1 - depth + 1
    return with_chain(state, confirmed=state.chain.confirmed.update({txid: height}))


def test_a_client_says_that_it_holds_what_protects_it_once_the_new_state_is_six_deep() -> None:
    _, client = client_at(m.AdvanceDone)
    following = link_in(client.state).next
    assert following is not None
    for depth, n_said in ((SETTLED_DEPTH - 1, 0), (SETTLED_DEPTH, 1)):
        state = confirmed_for(client.state, following.funding.outpoint.txid, depth)
        held = [
            one
            for one in messages(decided_by(state, block(state)))
            if isinstance(one, m.AdvanceHeld)
        ]
        assert len(held) == n_said


def test_a_client_that_sees_the_old_state_six_deep_begins_anew_to_say_so() -> None:
    pump, client = client_at(m.AdvanceDone)
    present = link_in(client.state).present.outpoint.txid
    for depth, is_said in ((SETTLED_DEPTH - 1, False), (SETTLED_DEPTH, True)):
        state = confirmed_for(kicked_off(client.state, pump), present, depth)
        parted = [one.reason for one in found(decided_by(state, block(state)), fx.Disconnect)]
        assert (SAYS_VOID in parted) is is_said


def test_what_was_bought_by_another_name_is_not_what_an_advance_was_agreed_to_for() -> None:
    """Its purchase is over: it is let go with the next thing that happens, unless it is signed."""
    for step, n_dropped in ((m.AdvanceCommit, 1), (m.AdvanceDone, 0)):
        _, buyer = client_at(step, BUYER)
        state = bought(buyer.state)
        bare = changed(state, purchases=state.purchases.delete(*state.purchases))
        decision = decided_by(bare, ev.FactsChanged())
        assert len(found(decision, ar.AdvanceDropped)) == n_dropped
