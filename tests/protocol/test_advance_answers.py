"""What a role decides in an advance about an answer that comes late, or not, or finds no chain.

It is asked of its state as it is at a step; of what follows from it other tests tell.
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
    kept,
    messages,
    next_message,
    only,
    said,
    whole_sale,
)
from tests.protocol.advances import (
    advancing_factory,
    buy,
    leaf_of,
    market,
    remembered,
    sell,
    under_way,
)
from tests.protocol.closes import losing
from tests.protocol.paying_clients import make_invoice
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import advance_id_of
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.streams import CLIENT
from cromford.wire import messages as m
from cromford.wire.selling import AllocatedChannel

WHY: Final = "no nonce is left"
STALE: Final = replace(FRESH, stale="no block for hours")


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


@pytest.mark.parametrize("kind", [m.AdvanceAgree, m.AdvanceSign, m.AdvanceHeld])
def test_an_lsp_that_says_what_only_a_client_says_is_parted_from(kind: type[m.Message]) -> None:
    pump, recorded = whole_sale()
    client = pump.client_at(BUYER)
    message = next(one for one in recorded if isinstance(one, kind))
    decision = decided(client, said(pump.lsp, message))
    (parted,) = decision.effects
    assert isinstance(parted, fx.Disconnect)
    assert (parted.node_id, parted.reason) == (
        pump.lsp.node_id,
        f"{kind.__name__} is a client's message",
    )
    assert not decision.records


# Not quiet yet


@cache
def asking() -> Pump:
    """Return an LSP that begins an advance while an update of its own is on its way to a client."""
    with market():
        pump = advancing_factory(2)
        neighbour = pump.client_at(NEIGHBOUR)
        answers = (m.RevokeAndAck, m.CommitmentSigned)
        with pump.tampering(losing(*answers, of=lambda node: node is neighbour)):
            pump.handle(pump.lsp, make_invoice(pump, neighbour, 5_000))
            pump.run()
            sell(pump, BUYER)
    advance = under_way(pump)
    assert advance is not None
    assert advance.is_asking
    assert not pump.wishes(pump.lsp, fx.PrepareAdvance)
    assert not pump.sent(pump.lsp, m.AdvancePropose)
    return pump


def deadline_passes(pump: Pump) -> ev.DeadlineReached:
    deadline = fx.AdvanceDeadline(advance_id=advance_of(pump).advance_id)
    return ev.DeadlineReached(stream=pump.factory.stream, deadline=deadline)


def neighbour_refuses(pump: Pump) -> ev.MessageReceived:
    abort = m.AdvanceAbort(
        attempt_id=pump.attempt.attempt_id, advance_id=advance_of(pump).advance_id, reason="no"
    )
    return said(pump.client_at(NEIGHBOUR), abort)


def neighbour_goes(pump: Pump) -> ev.ConnectionClosed:
    return ev.ConnectionClosed(node_id=pump.client_at(NEIGHBOUR).node_id)


def no_room(pump: Pump) -> ev.AdvanceUnprepared:
    return ev.AdvanceUnprepared(asked=nonces_for(pump), reason=WHY)


def nonces_for(pump: Pump) -> fx.PrepareAdvance:
    """Return how an LSP asks for the nonces of an advance of this factory."""
    (asked, *_) = whole_sale()[0].wishes(whole_sale()[0].lsp, fx.PrepareAdvance)
    advance = under_way(pump)
    return replace(
        asked,
        attempt_id=pump.attempt.attempt_id,
        advance_id=bytes(32) if advance is None else advance.advance_id,
    )


@pytest.mark.parametrize(
    ("happens", "why", "culprits", "holdouts"),
    [
        (
            deadline_passes,
            "deadline: clients [2] did not come to be quiet in time",
            [NEIGHBOUR],
            (NEIGHBOUR,),
        ),
        (neighbour_refuses, "client 2 refused: no", [NEIGHBOUR], ()),
        (neighbour_goes, "client 2 disconnected", [], ()),
        (no_room, f"our signer: {WHY}", [], ()),
    ],
)
def test_an_advance_that_nobody_was_asked_for_ends_and_nobody_hears_of_it(
    happens: Callable[[Pump], ev.Event], why: str, culprits: list[int], holdouts: tuple[int, ...]
) -> None:
    pump = asking()
    assert fx.AdvanceDeadline(advance_id=advance_of(pump).advance_id) in [
        deadline for node, deadline in pump.deadlines_of(fx.AdvanceDeadline) if node is pump.lsp
    ]
    decision = decided(pump.lsp, happens(pump))
    dropped = only(decision, ar.AdvanceDropped)
    assert (dropped.reason, dropped.is_fault) == (why, False)
    assert dropped.culprits == tuple(pump.client_at(seat).node_id for seat in culprits)
    assert dropped.holdouts == holdouts
    assert not [one for one in messages(decision) if isinstance(one, m.AdvanceAbort)]
    assert isinstance(only(decision, fx.ClearDeadline).deadline, fx.AdvanceDeadline)
    (factory,) = decision.state.factories.values()
    assert not factory.advances
    assert not any(link.quiet_for for link in factory.book.links.values())


# Late answers of a signer


def nonces_made(pump: Pump) -> ev.AdvancePrepared:
    """Return that nonces come which were asked for a moment ago."""
    sold = whole_sale()[0]
    pools = remembered(sold.lsp, ar.AdvancePoolsMade)
    assert pools
    assert sold.lsp.signer is not None
    asked = nonces_for(pump)
    signer = sold.lsp.signer
    return ev.AdvancePrepared(
        asked=asked,
        factory_pool=signer.make_pool(asked.factory_key, asked.factory_size),
        channel_pools=tuple(
            signer.make_pool(key, asked.channel_size) for key in asked.channel_keys
        ),
    )


@pytest.mark.parametrize("made", [whole_sale, lambda: (at_step(m.AdvanceAgree), ())])
def test_nonces_that_come_too_late_or_twice_are_forgotten(made: Callable[[], Any]) -> None:
    pump = made()[0]
    event = nonces_made(pump)
    decision = decided(pump.lsp, event)
    assert kept(decision) == ()
    (dropped,) = decision.effects
    assert isinstance(dropped, fx.DropPools)
    pools = (event.factory_pool, *event.channel_pools)
    assert set(dropped.pool_ids) == {pool.pool_id for pool in pools}


@pytest.mark.parametrize("made", [whole_sale, lambda: (at_step(m.AdvanceAgree), ())])
def test_that_there_was_no_room_for_nonces_ends_no_later_step(made: Callable[[], Any]) -> None:
    pump = made()[0]
    assert decided(pump.lsp, no_room(pump)).is_nothing


def test_an_lsps_signer_that_fails_ends_the_try_of_an_advance_and_blames_nobody() -> None:
    pump = at_step(m.AdvanceCommit)
    asked = pump.wishes(pump.lsp, fx.SignNext)[-1]
    signing = fx.PartialSign(
        attempt_id=pump.attempt.attempt_id, requests=(), advance_id=advance_of(pump).advance_id
    )
    for event in (
        ev.NextSigningFailed(asked=asked, reason=WHY),
        ev.SigningFailed(asked=signing, reason=WHY),
    ):
        decision = decided(pump.lsp, event)
        ended = only(decision, ar.AdvanceSessionEnded)
        assert ended.holdouts == ()
        parted = [one for one in decision.effects if isinstance(one, fx.Disconnect)]
        assert {(one.node_id, one.reason, one.is_ours) for one in parted} == {
            (client.node_id, f"our signer: {WHY}", True) for client in pump.clients
        }
        assert decided(whole_sale()[0].lsp, event).is_nothing


def client_fails(pump: Pump, client: PumpNode) -> list[ev.Event]:
    """Return every way in which a client's signer may fail in an advance."""
    (asked, *_) = pump.wishes(client, fx.PrepareAdvance)
    sold, buyer = whole_sale()[0], whole_sale()[0].client_at(BUYER)
    attempt_id, advance_id = asked.attempt_id, asked.advance_id
    (half, *_) = sold.wishes(buyer, fx.FinishNext)
    half = replace(half, attempt_id=attempt_id, advance_id=advance_id)
    signing = fx.PartialSign(attempt_id=attempt_id, requests=(), advance_id=advance_id)
    return [
        ev.AdvanceUnprepared(asked=asked, reason=WHY),
        ev.NextSigningFailed(asked=half, reason=WHY),
        ev.SigningFailed(asked=signing, reason=WHY),
    ]


def test_a_client_whose_signer_fails_before_it_signed_refuses_the_advance() -> None:
    pump = at_step(m.AdvanceCommit)
    client = pump.client_at(NEIGHBOUR)
    for event in client_fails(pump, client):
        decision = decided(client, event)
        assert only(decision, ar.AdvanceDropped).reason == f"our signer: {WHY}"
        (refused,) = messages(decision)
        assert isinstance(refused, m.AdvanceAbort)
        assert refused.reason == f"our signer: {WHY}"
        assert client_role.decide(decision.state, event).is_nothing, "once"


def test_a_client_whose_signer_fails_afterwards_is_bound_and_begins_anew() -> None:
    pump = at_step(m.AdvanceDone)
    client = pump.client_at(NEIGHBOUR)
    for event in client_fails(pump, client):
        decision = decided(client, event)
        assert kept(decision) == ()
        (parted,) = decision.effects
        assert isinstance(parted, fx.Disconnect)
        assert (parted.node_id, parted.reason) == (pump.lsp.node_id, f"our signer: {WHY}")


# A client looks once more


def test_a_client_whose_chain_is_stale_by_the_time_it_has_nonces_does_not_agree() -> None:
    pump = at_step(m.AdvancePropose)
    client = pump.client_at(NEIGHBOUR)
    proposed = decided(client, next_message(pump, client, m.AdvancePropose))
    asked = only(proposed, fx.PrepareAdvance)
    assert client.signer is not None
    prepared = ev.AdvancePrepared(
        asked=asked,
        factory_pool=client.signer.make_pool(asked.factory_key, asked.factory_size),
        channel_pools=tuple(
            client.signer.make_pool(key, asked.channel_size) for key in asked.channel_keys
        ),
    )
    agreed = client_role.decide(proposed.state, prepared)
    assert [type(one) for one in messages(agreed)] == [m.AdvanceAgree]
    refused = client_role.decide(proposed.state, prepared, STALE)
    assert only(refused, ar.AdvanceDropped).reason.startswith("chain: expected fresh")
    assert [type(one) for one in messages(refused)] == [m.AdvanceAbort]
    again = client_role.decide(agreed.state, prepared)
    assert set(only(again, fx.DropPools).pool_ids) == {
        pool.pool_id for pool in (prepared.factory_pool, *prepared.channel_pools)
    }
    late = client_role.decide(refused.state, prepared)
    assert isinstance(late.effects[0], fx.DropPools)
    assert kept(late) == ()


def test_a_client_whose_chain_is_stale_as_the_lsps_half_comes_finishes_nothing_with_it() -> None:
    """And once more, as it is finished: it is the last chance to refuse."""
    pump = at_step(m.AdvanceCommit)
    client = pump.client_at(NEIGHBOUR)
    commit = next_message(pump, client, m.AdvanceCommit)
    refused = decided(client, commit, STALE)
    assert only(refused, ar.AdvanceDropped).reason.startswith("chain: expected fresh")
    assert not [one for one in refused.effects if isinstance(one, fx.FinishNext)]
    finishing = decided(client, commit)
    assert client.signer is not None
    made = answer_of(client, only(finishing, fx.FinishNext))
    late = client_role.decide(finishing.state, made, STALE)
    assert only(late, ar.AdvanceDropped).reason.startswith("chain: expected fresh")
    assert not [one for one in late.effects if isinstance(one, fx.PartialSign)]
    signed = client_role.decide(finishing.state, made)
    assert only(signed, ar.AdvanceSigned).advance_id == advance_of(pump).advance_id
    assert only(signed, fx.PartialSign)
    again = client_role.decide(signed.state, commit)
    assert again.is_nothing, "what it signs is on its way"


def test_an_lsps_half_counts_only_for_whoever_agreed() -> None:
    pump, early = at_step(m.AdvanceCommit), at_step(m.AdvancePropose)
    client = early.client_at(NEIGHBOUR)
    proposed = decided(client, next_message(early, client, m.AdvancePropose))
    commit = next_message(pump, pump.client_at(NEIGHBOUR), m.AdvanceCommit).message
    assert isinstance(commit, m.AdvanceCommit)
    event = said(
        early.lsp,
        replace(
            commit,
            attempt_id=early.attempt.attempt_id,
            advance_id=advance_of(early).advance_id,
        ),
    )
    assert client_role.decide(proposed.state, event).is_nothing


def other_sale(pump: Pump) -> m.AdvancePropose:
    """Return how an LSP would propose another sale of the same leaf."""
    leaf = leaf_of(pump, BUYER)
    after = leaf.sold(Purchase(buyer=BUYER, amount_sat=20_000))
    (propose, *_) = pump.sent(pump.lsp, m.AdvancePropose)
    advance_id = advance_id_of(
        leaf,
        attempt_id=pump.attempt.attempt_id,
        state_index=len(leaf.states),
        allocation=after.allocation,
    )
    return replace(
        propose,
        advance_id=advance_id,
        channels=tuple(
            AllocatedChannel(capacity_sat=one) for one in after.allocation.capacities_sat
        ),
        lstock_sat=after.allocation.lstock_sat,
        quote_id=b"",
        price_msat=0,
    )


def test_another_advance_than_the_one_that_was_agreed_to_ends_it_and_is_not_begun() -> None:
    pump = at_step(m.AdvanceCommit)
    client, other = pump.client_at(NEIGHBOUR), other_sale(pump)
    (known,) = client.state.advances.values()
    decision = decided(client, said(pump.lsp, other))
    dropped = only(decision, ar.AdvanceDropped)
    assert dropped.advance_id == known.advance_id
    assert dropped.reason.startswith("advance_id: expected ")
    (refused,) = messages(decision)
    assert isinstance(refused, m.AdvanceAbort)
    assert refused.advance_id == known.advance_id
    assert not decision.state.advances


def test_words_of_another_advance_are_not_of_the_one_under_way() -> None:
    pump = at_step(m.AdvanceCommit)
    client = pump.client_at(NEIGHBOUR)
    commit = next_message(pump, client, m.AdvanceCommit).message
    assert isinstance(commit, m.AdvanceCommit)
    ids = {"attempt_id": pump.attempt.attempt_id, "advance_id": bytes(32)}
    for message in (
        replace(commit, advance_id=bytes(32)),
        m.AdvanceAbort(reason="over", **ids),
        m.AdvanceDone(state_signature=bytes(64), stock_poison=b"", channel_poison=b"", **ids),
    ):
        assert decided(client, said(pump.lsp, message)).is_nothing


def test_a_deadline_is_nothing_to_a_client_that_signed_or_to_another_advance() -> None:
    pump = at_step(m.AdvanceDone)
    client = pump.client_at(NEIGHBOUR)
    advance_id = advance_of(pump).advance_id

    def passes(advance_id: bytes) -> ev.DeadlineReached:
        deadline = fx.AdvanceDeadline(advance_id=advance_id)
        return ev.DeadlineReached(stream=CLIENT, deadline=deadline)

    assert decided(client, passes(advance_id)).is_nothing
    early = at_step(m.AdvanceCommit)
    waiting = early.client_at(NEIGHBOUR)
    assert decided(waiting, passes(bytes(32))).is_nothing
    parted = only(decided(waiting, passes(advance_of(early).advance_id)), fx.Disconnect)
    assert parted.reason == "deadline: the LSP went silent in an advance"


# Poisons


def signed_below(pump: Pump) -> tuple[LspState, ev.PartialSigned]:
    """Return an LSP that signed the next state, and its signer's answer about the poisons."""
    with pump.tampering(losing(m.AdvanceSign, of=lambda _node: True)):
        pump.run()
    waiting: list[ev.Event] = []
    for client in pump.clients:
        (sign,) = pump.sent(client, m.AdvanceSign)
        waiting.append(said(client, sign))
    state: LspState = pump.lsp.state
    poisons: list[ev.Event] = []
    while waiting:
        decision = lsp_role.decide(state, waiting.pop(0))
        state = decision.state
        for effect in decision.effects:
            if isinstance(effect, fx.FinishNext):
                waiting.extend(pump.lsp.perform_signing(effect))
            elif isinstance(effect, fx.PartialSign):
                answers = pump.lsp.perform_signing(effect)
                (poisons if len(effect.requests) > 1 else waiting).extend(answers)
    (signed,) = poisons
    assert isinstance(signed, ev.PartialSigned)
    return state, signed


def test_poisons_that_are_signed_while_the_chain_goes_stale_are_not_sent() -> None:
    """What nobody saw is forgotten: every client hears of the state alone."""
    pump = advancing_factory(2)
    buy(pump, BUYER)
    state, signed = signed_below(pump)
    for facts, n_held in ((STALE, 0), (FRESH, 1)):
        decision = lsp_role.decide(state, signed, facts)
        assert len([one for one in kept(decision) if isinstance(one, ar.PoisonHeld)]) == n_held
        told = [one for one in messages(decision) if isinstance(one, m.AdvanceDone)]
        assert len(told) == 2
        for done in told:
            assert [bool(done.stock_poison), bool(done.channel_poison)] == [bool(n_held)] * 2
