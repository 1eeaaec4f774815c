"""Answers that come too late: of the signer, of the chain. The roles wait for nothing and nobody.

An effect is answered by an event, sooner or later. Whatever happened in between, an answer that
is no longer waited for makes nothing known, publishes nothing, and leaves no nonce behind.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.attacks import OTHER_ID, acknowledged, culprits_of
from tests.protocol.ladders import FEERATES, build_with
from tests.protocol.pump import COIN_SAT, LEAST_SAT, WANTED_SAT, Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal.client_attempt import BelowSent, RootSent
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m


class SlowPump(Pump):
    """A pump in which some answers wait until the test hands them over."""

    def __init__(self, n_clients: int, **options: Any) -> None:
        self.waits_for: tuple[PumpNode | None, type] = (None, object)
        self.late: list[tuple[Any, ev.Event]] = []
        super().__init__(n_clients, **options)

    def hold(self, node: PumpNode, effect_type: type) -> None:
        """Let a node's effects of a type be answered late from now on."""
        self.waits_for = (node, effect_type)

    def _perform(self, node: Any, effect: fx.Performed) -> Any:
        answers = super()._perform(node, effect)
        if node is self.waits_for[0] and isinstance(effect, self.waits_for[1]):
            self.late += [(node, answer) for answer in answers]
            return ()
        return answers

    def hand_over(self) -> None:
        """Hand over what was held; from now on nothing is."""
        self.waits_for = (None, object)
        late, self.late = self.late, []
        assert late, "something was late"
        for node, answer in late:
            self.handle(node, answer)
        self.run()


def abort_by(pump: SlowPump, client: PumpNode) -> None:
    refusal = m.Abort(attempt_id=pump.attempt.attempt_id, reason="no")
    pump.tell(pump.lsp, client, refusal)


# A client's


def test_keys_that_are_ready_after_the_wish_was_withdrawn_join_nothing() -> None:
    pump = SlowPump(1)
    client = pump.clients[0]
    pump.hold(client, fx.PrepareJoin)
    pump.join()
    pump.handle(client, ev.LeaveRequested())
    assert client.signer is not None
    assert client.signer._pools, "nonces were made"
    pump.hand_over()
    assert not pump.sent(client, m.Join)
    assert not client.signer._pools, "and are forgotten"
    pump.join()
    assert client.node_id in pump.lsp.state.house.members, "a new wish has new keys"


@pytest.mark.parametrize(("n_answers", "sends"), [(1, m.SignBelow), (2, m.SignRoot)])
def test_signatures_that_are_ready_after_the_abort_are_not_sent(
    n_answers: int, sends: type[m.Message]
) -> None:
    """Below the root and of it: what was made for an attempt that is over stays at home."""
    pump = SlowPump(2)
    pump.join()
    pump.build()
    client = pump.client_at(1)
    attempt_id = pump.attempt.attempt_id
    if n_answers == 2:
        pump.run_to(m.SignedBelow)
    pump.hold(client, fx.PartialSign)
    pump.run()
    abort_by(pump, pump.client_at(2))
    pump.run()
    pump.hand_over()
    sent: list[Any] = pump.sent(client, sends)
    assert attempt_id not in {message.attempt_id for message in sent}


@pytest.mark.parametrize("stops_at", [m.SignBelow, m.SignRoot])
def test_signatures_that_are_answered_twice_are_sent_once(stops_at: type[m.Message]) -> None:
    pump = SlowPump(1)
    client = pump.clients[0]
    pump.join()
    pump.build()
    if stops_at is m.SignRoot:
        pump.run_to(m.SignedBelow)
    pump.hold(client, fx.PartialSign)
    pump.run()
    pump.late *= 2
    for node, answer in pump.late:
        pump.handle(node, answer)
    assert len(pump.sent(client, stops_at)) == 1
    assert isinstance(pump.held(client).stage, BelowSent | RootSent)


def test_a_signer_that_fails_after_the_abort_says_nothing_more() -> None:
    pump = SlowPump(2)
    pump.join()
    pump.build()
    client = pump.client_at(1)
    attempt_id = pump.attempt.attempt_id
    pump.hold(client, fx.PartialSign)
    pump.run()
    abort_by(pump, pump.client_at(2))
    pump.run()
    failed = ev.SigningFailed(
        asked=fx.PartialSign(attempt_id=attempt_id, requests=()), reason="the pool is gone"
    )
    assert client_role.decide(client.state, failed).is_nothing


@pytest.mark.parametrize("asked", ["an attempt that is over", "no attempt", "a checked attempt"])
def test_coins_that_are_no_longer_asked_for_start_no_signature(asked: str) -> None:
    pump = SlowPump(2)
    pump.join()
    pump.build()
    client = pump.client_at(1)
    pump.hold(client, fx.LookUpCoins)
    pump.run()
    ((_, answer),) = pump.late
    assert isinstance(answer, ev.CoinsLookedUp)
    match asked:
        case "an attempt that is over":
            abort_by(pump, pump.client_at(2))
            pump.run(until=lambda: pump.held(client).aborted is not None)
        case "no attempt":
            answer = replace(answer, asked=replace(answer.asked, attempt_id=OTHER_ID))
        case _:
            pump.hand_over()
    assert client_role.decide(client.state, answer).is_nothing


# The LSP's


def test_keys_of_a_build_that_a_restart_ended_propose_nothing() -> None:
    pump = SlowPump(1)
    pump.join()
    pump.hold(pump.lsp, fx.PrepareAttempt)
    pump.build()
    pump.restart(pump.lsp)
    ((_, prepared),) = pump.late
    assert isinstance(prepared, ev.AttemptPrepared)
    pump.hand_over()
    assert not pump.sent(pump.lsp, m.Propose)
    pools = (prepared.factory_pool, *(pool for _, pool in prepared.channels))
    dropped = pump.wishes(pump.lsp, fx.DropPools)[-1].pool_ids
    assert dropped == tuple(pool.pool_id for pool in pools)


@pytest.mark.parametrize("how", ["disconnects", "leaves"])
def test_who_goes_before_the_proposal_is_left_out_and_nobody_joins_again(how: str) -> None:
    """Nothing was proposed, so the keys of those who stay are as fresh as before."""
    pump = SlowPump(3)
    pump.join()
    pump.hold(pump.lsp, fx.PrepareAttempt)
    pump.build()
    going, *staying = pump.clients
    if how == "leaves":
        pump.handle(going, ev.LeaveRequested())
        pump.run()
    else:
        pump.disconnect(going)
    pump.hand_over()
    if how == "leaves":
        # It is still connected, and might come back: it has one deadline's time for that.
        pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
        pump.run()
    assert pump.is_funded()
    assert {seat.node_id for seat in pump.attempt.seats} == {c.node_id for c in staying}
    assert all(len(pump.sent(client, m.Join)) == 1 for client in staying)


def test_who_joins_anew_with_fewer_keys_while_those_of_a_ladder_are_made_is_proposed_none() -> None:
    """Strangers may bring keys of more candidates than anybody asks for, and then of fewer."""
    pump = SlowPump(2)
    n_keys = {client.node_id: 2 for client in pump.clients}

    def with_keys(sender: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, m.Join):
            twice = (*message.candidates, *message.candidates)
            message = replace(message, candidates=twice[: n_keys[sender.node_id]])
        return (message,)

    with pump.tampering(with_keys):
        pump.join()
        pump.hold(pump.lsp, fx.PrepareAttempt)
        pump.handle(pump.lsp, build_with(FEERATES[:2]))
        anew = pump.clients[0]
        n_keys[anew.node_id] = 1
        pump.handle(anew, ev.LeaveRequested())
        pump.run()
        pump.join(anew)
        pump.hand_over()
    assert not pump.sent(pump.lsp, m.Propose)
    house = pump.lsp.state.house
    assert house.under_way is None
    assert house.build is None
    assert "1 of 2 clients joined with keys for fewer than 2" in str(house.build_dropped)


@pytest.mark.parametrize("wanted_sat", [LEAST_SAT - 20_000, 3 * WANTED_SAT])
def test_who_joins_anew_with_another_wish_while_keys_are_made_gets_what_it_wishes_now(
    wanted_sat: int,
) -> None:
    """It would have to refuse what it wished for before, and be named for it."""
    pump = SlowPump(2)
    pump.join()
    pump.hold(pump.lsp, fx.PrepareAttempt)
    pump.build()
    anew = pump.clients[0]
    pump.handle(anew, ev.LeaveRequested())
    pump.run()
    wish = ev.JoinRequested(capacity_sat=wanted_sat, capacity_least_sat=wanted_sat)
    pump.handle(anew, wish)
    pump.run()
    pump.hand_over()
    assert not pump.sent(anew, m.Abort)
    assert pump.is_funded()
    place = pump.attempt.client_of(anew.node_id)
    assert place is not None
    assert pump.attempt.terms.capacity_sat[place - 1] == wanted_sat


def test_who_is_banned_while_keys_are_made_is_not_waited_for() -> None:
    """It could not join again if it wanted to."""
    pump = SlowPump(3)
    pump.join()
    pump.hold(pump.lsp, fx.PrepareAttempt)
    pump.build()
    banned, *staying = pump.clients
    pump.handle(pump.lsp, ev.BanRequested(node_id=banned.node_id, n_blocks=1, reason="no"))
    pump.hand_over()
    assert pump.is_funded(), "no deadline had to pass"
    assert {seat.node_id for seat in pump.attempt.seats} == {c.node_id for c in staying}


def test_a_build_whose_coins_were_paid_away_meanwhile_ends_with_that_reason() -> None:
    pump = SlowPump(2)
    pump.join()
    pump.hold(pump.lsp, fx.PrepareAttempt)
    pump.build(min_clients=2)
    everything = ev.SpendingRequested(
        script_pubkey=b"\x51\x20" + bytes(32), amount_sat=None, feerate_sat_per_kw=500
    )
    pump.handle(pump.lsp, everything)
    pump.hand_over()
    assert not pump.sent(pump.lsp, m.Propose)
    assert "0 sat are free" in str(pump.lsp.state.house.build_dropped)
    assert pump.lsp.signer is not None
    assert not pump.lsp.signer._pools
    assert set(pump.lsp.state.house.members) == {client.node_id for client in pump.clients}
    pump.chain.fund(pump.lsp.state.wallet.next_script(0), COIN_SAT)
    pump.sync()
    pump.build()
    pump.run()
    assert pump.is_funded(), "they still wait, and the next build takes them"


def test_the_lsps_own_signatures_after_an_abort_release_nothing() -> None:
    pump = SlowPump(2)
    pump.join()
    pump.hold(pump.lsp, fx.PartialSign)
    pump.build()
    pump.run()
    attempt_id = pump.attempt.attempt_id
    abort_by(pump, pump.client_at(1))
    pump.run()
    pump.hand_over()
    sent = [message.attempt_id for message in pump.sent(pump.lsp, m.SignedBelow)]
    assert attempt_id not in sent
    assert pump.is_funded(), "the next attempt is not disturbed"


def test_a_funding_that_is_signed_after_an_abort_is_never_published() -> None:
    """Somebody refused at the last moment: what the wallet signed then is thrown away."""
    pump = SlowPump(2)
    pump.join()
    pump.hold(pump.lsp, fx.SignFunding)
    pump.build(min_clients=2)
    pump.run()
    attempt = pump.attempt
    assert acknowledged(attempt) == {1, 2}
    abort_by(pump, pump.client_at(1))
    pump.hand_over()
    pump.mine()
    assert pump.published == []
    assert attempt.attempt_id not in pump.lsp.state.wallet.reserved.values()


def test_a_signer_that_fails_after_an_abort_ends_nothing_a_second_time() -> None:
    pump = SlowPump(2)
    pump.join()
    pump.build()
    attempt_id = pump.attempt.attempt_id
    abort_by(pump, pump.client_at(1))
    before = pump.lsp.state.attempts[attempt_id]
    failed = ev.SigningFailed(
        asked=fx.PartialSign(attempt_id=attempt_id, requests=()), reason="the pool is gone"
    )
    decision = lsp_role.decide(pump.lsp.state, failed)
    assert decision.effects == ()
    pump.handle(pump.lsp, failed)
    assert pump.lsp.state.attempts[attempt_id] == before


# Signers that fail in time


def test_an_lsp_that_cannot_sign_ends_the_build_and_says_so_to_everybody() -> None:
    """Its nonces are gone: no client is at fault, and trying again would end the same way."""
    pump = Pump(2)
    pump.join()
    pump.build()
    assert pump.lsp.signer is not None
    pump.lsp.signer.drop_pool(pump.attempt.candidate.factory_pool.pool_id)
    pump.run()
    attempt = pump.attempt
    assert attempt.aborted == pump.lsp.state.house.build_dropped
    assert attempt.aborted is not None
    assert attempt.aborted.startswith("our signer: ")
    assert culprits_of(attempt) == ()
    assert len(pump.lsp.state.attempts) == 1
    assert [abort.reason for abort in pump.sent(pump.lsp, m.Abort)] == [attempt.aborted] * 2
    assert not pump.lsp.state.wallet.reserved
    pump.join_again()
    pump.build()
    pump.run()
    assert pump.is_funded(), "with fresh nonces it can"


def test_a_client_that_cannot_sign_says_so_and_the_others_go_on_without_it() -> None:
    pump = Pump(2, policy=LspPolicy(min_clients=1))
    pump.join()
    pump.build()
    client = pump.client_at(1)
    first = pump.attempt
    assert client.signer is not None
    client.signer._pools.clear()
    pump.run()
    held = client.state.attempts[first.attempt_id]
    assert held.aborted is not None
    assert not pump.sent(client, m.SignBelow)
    spoiled = pump.lsp.state.attempts[first.attempt_id]
    assert spoiled.aborted == f"client 1 refused: {held.aborted}"
    assert pump.is_funded()
    assert [seat.node_id for seat in pump.attempt.seats] == [first.seats[1].node_id]


def test_a_wish_that_was_made_while_keys_were_made_keeps_its_capacity() -> None:
    """Withdrawn and wished anew: the keys that come first serve the newest wish, once."""
    pump = SlowPump(1)
    client = pump.clients[0]
    pump.hold(client, fx.PrepareJoin)
    pump.join()
    pump.handle(client, ev.LeaveRequested())
    wish = ev.JoinRequested(capacity_sat=2 * WANTED_SAT, capacity_least_sat=LEAST_SAT)
    pump.handle(client, wish)
    pump.hand_over()
    (join,) = pump.sent(client, m.Join)
    assert join.capacity_sat == 2 * WANTED_SAT
    assert client.signer is not None
    assert len(client.signer._pools) == 2, "the second keys' nonces are forgotten"
