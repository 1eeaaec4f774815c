"""A client goes silent, or answers at the last moment: one deadline, one name, and fresh keys."""

from collections.abc import Sequence
from typing import Any, Final

import pytest
from tests.protocol.attacks import culprits_of, nothing, only_from, proposed
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.protocol.journal.client_candidate import pool_ids_of
from cromford.protocol.journal.kept import kept_join
from cromford.protocol.journal.pause import ABORTS_TO_PAUSE
from cromford.wire import messages as m

# Every message that a client owes in a ceremony, and the phase that waits for it.
OWED: Final[dict[type[m.Message], str]] = {
    m.SignBelow: "signing_below",
    m.SignRoot: "signing_root",
    m.Acknowledge: "acknowledging",
}
EACH: Final = pytest.mark.parametrize("kind", OWED, ids=lambda kind: kind.__name__)


def deadline_of(pump: Pump) -> fx.AttemptDeadline:
    return fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id)


def go_silent(pump: Pump, silent: PumpNode, kind: type[m.Message]) -> None:
    """Let a client never send one kind of message, and its deadline pass."""
    with pump.tampering(only_from(silent, nothing, kind)):
        pump.run()
        assert not pump.is_funded()
        pump.pass_deadline(pump.lsp, deadline_of(pump))
        pump.run()


def secrets_of(pump: Pump, client: PumpNode) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return the keys, the pools and the nonces of every join that a client sent, in order."""
    joins = pump.sent(client, m.Join)
    pools = [pool for join in joins for pool in (join.factory_pool, join.candidates[0].pool)]
    points = [
        point
        for join in joins
        for point in (
            join.candidates[0].channel.first_per_commitment_point,
            join.candidates[0].channel.second_per_commitment_point,
        )
    ]
    keys = [*(pool.pubkey for pool in pools), *points]
    pool_ids = [pool_id for join in joins for pool_id in pool_ids_of(kept_join(join))]
    return keys, pool_ids, [nonce for pool in pools for nonce in pool.pubnonces]


def check_all_fresh(pump: Pump) -> None:
    """No key, no pool and no nonce of anybody, the LSP included, was ever there before."""
    for values in zip(*(secrets_of(pump, client) for client in pump.clients), strict=True):
        everything = [value for one in values for value in one]
        assert len(set(everything)) == len(everything)
    own = [attempt.blueprint.factory_pubkeys[0] for attempt in pump.lsp.state.attempts.values()]
    own += [
        offer.funding_pubkey
        for attempt in pump.lsp.state.attempts.values()
        for offer in attempt.blueprint.channels
    ]
    assert len(set(own)) == len(own)


@EACH
def test_who_goes_silent_is_named_and_the_others_finish_with_fresh_keys(
    kind: type[m.Message],
) -> None:
    pump = proposed(3)
    silent = pump.client_at(2)
    first = pump.attempt
    go_silent(pump, silent, kind)
    ended = pump.lsp.state.attempts[first.attempt_id]
    assert ended.aborted == f"deadline in {OWED[kind]}: no answer from clients [2]"
    assert culprits_of(ended) == (silent.node_id,)
    assert pump.is_funded(), "one deadline was enough"
    assert {seat.node_id for seat in pump.attempt.seats} == {
        client.node_id for client in pump.clients if client is not silent
    }
    check_all_fresh(pump)
    for client in pump.clients:
        told = [abort.reason for abort in pump.sent(pump.lsp, m.Abort)]
        assert told.count(ended.aborted) == 3, f"{client.name} was told why"


@EACH
def test_what_silence_cost_is_remembered_over_a_restart_of_the_lsp(kind: type[m.Message]) -> None:
    pump = Pump(3)
    pump.join()
    pump.mine()
    assert pump.lsp.state.house.uptime_blocks(pump.clients[0].node_id) == 1
    pump.build()
    silent = pump.client_at(2)
    go_silent(pump, silent, kind)
    pump.restart(pump.lsp)
    pump.run()
    house = pump.lsp.state.house
    assert set(house.aborts) == {silent.node_id}
    assert house.faults == {}, "silence is no fault"
    assert house.uptime_blocks(silent.node_id) == 0
    assert house.is_unsteady(silent.node_id)
    for client in pump.clients:
        if client is not silent:
            assert not house.is_unsteady(client.node_id)


def test_whoever_is_silent_again_and_again_has_the_lobby_closed_to_it_over_restarts() -> None:
    pump = Pump(2)
    pump.join()
    silent = pump.clients[0]
    for _ in range(ABORTS_TO_PAUSE):
        pump.join_again()
        pump.build(min_clients=2)
        with pump.tampering(only_from(silent, nothing, m.SignBelow)):
            pump.run()
            pump.pass_deadline(pump.lsp, deadline_of(pump))
            pump.run()
        assert not pump.is_funded()
    pump.restart(pump.lsp)
    pump.run()
    pause = pump.lsp.state.house.pause_of(silent.node_id)
    assert pause is not None
    assert pause.why == "too many ceremonies ended"
    assert pump.lsp.state.house.pause_of(pump.clients[1].node_id) is None
    check_all_fresh(pump)


def test_who_does_not_join_again_after_somebody_elses_abort_is_left_out_and_pays() -> None:
    pump = proposed(3)
    silent, culprit = pump.client_at(1), pump.client_at(2)
    first = pump.attempt.attempt_id
    with pump.tampering(only_from(silent, nothing, m.Join)):
        pump.tell(pump.lsp, culprit, m.Abort(attempt_id=first, reason="no"))
        pump.run()
        assert not pump.is_funded()
        pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
        pump.run()
    assert pump.is_funded()
    assert silent.node_id not in {seat.node_id for seat in pump.attempt.seats}
    house = pump.lsp.state.house
    assert [len(house.aborts[one.node_id]) for one in (silent, culprit)] == [1, 1]
    assert house.uptime[silent.node_id] == 0
    assert set(house.aborts) == {silent.node_id, culprit.node_id}
    pump.restart(pump.lsp)
    assert pump.lsp.state.house.aborts == house.aborts
    check_all_fresh(pump)


@EACH
def test_too_few_who_stay_end_it_cleanly(kind: type[m.Message]) -> None:
    """A named end, nothing spent, and nothing kept that could be."""
    pump = Pump(2)
    pump.join()
    pump.build(min_clients=2)
    go_silent(pump, pump.client_at(1), kind)
    house = pump.lsp.state.house
    assert house.build_dropped == "1 client is left, 2 are needed"
    assert (house.build, house.under_way) == (None, None)
    assert not pump.is_funded()
    assert not pump.wishes(pump.lsp, fx.SignFunding)
    assert not pump.lsp.state.wallet.reserved
    assert pump.lsp.signer is not None
    assert not pump.lsp.signer._pools
    assert not pump.deadlines_of(fx.AttemptDeadline)
    assert not pump.deadlines_of(fx.RejoinDeadline)
    for client in pump.clients:
        assert client.state.open_attempt is None


def test_a_client_that_never_says_it_is_ready_keeps_nobody_from_their_channel() -> None:
    pump = proposed(3)
    silent = pump.client_at(2)
    with pump.tampering(only_from(silent, nothing, m.ChannelReady)):
        pump.run()
        pump.mine(pump.attempt.terms.min_depth)
    open_for = {link.node_id for link in pump.lsp.state.book.links.values() if link.is_open}
    assert open_for == {client.node_id for client in pump.clients if client is not silent}
    pump.disconnect(silent)
    pump.connect(silent)
    pump.run()
    open_for = {link.node_id for link in pump.lsp.state.book.links.values() if link.is_open}
    assert silent.node_id in open_for, "it says so again in its next connection"


# At the last moment


def slowly(pump: Pump, slow: Sequence[PumpNode], *, until_silent: int = 99) -> int:
    """Run a ceremony in which some answer a second before each deadline; return its seconds.

    After so many answers they are silent, and the deadline passes.
    """
    held: list[tuple[PumpNode, m.Message]] = []
    n_answered, elapsed = 0, 0

    def hold(sender: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if sender in slow and type(message) in OWED:
            held.append((sender, message))
            return ()
        return (message,)

    with pump.tampering(hold):
        pump.run()
        while held:
            answers, held[:] = list(held), []
            (seconds,) = {
                seconds
                for (_, due), seconds in pump.deadlines.items()
                if due == deadline_of(pump) and seconds == pump.policy.deadline_seconds
            }
            if n_answered == until_silent:
                elapsed += seconds
                pump.pass_deadline(pump.lsp, deadline_of(pump))
                pump.run()
                break
            n_answered += 1
            elapsed += seconds - 1
            for sender, message in answers:
                pump.tell(pump.lsp, sender, message)
            pump.run()
    return elapsed


@pytest.mark.parametrize("n_slow", [1, 3])
def test_answers_at_the_last_moment_cost_no_more_than_a_deadline_for_each_phase(
    n_slow: int,
) -> None:
    """However many are slow: they are waited for at once. And no client gives up before that."""
    pump = proposed(3)
    elapsed = slowly(pump, pump.clients[:n_slow])
    assert pump.is_funded()
    assert elapsed == len(OWED) * (pump.policy.deadline_seconds - 1)
    assert not pump.lsp.state.house.aborts
    (patience,) = {
        effect.seconds
        for client in pump.clients
        for effect in pump.wishes(client, fx.SetDeadline)
        if effect.deadline == deadline_of(pump)
    }
    assert patience > len(OWED) * pump.policy.deadline_seconds


@pytest.mark.parametrize("n_answers", range(len(OWED)))
def test_who_is_slow_and_then_silent_costs_one_deadline_more_than_who_answers(
    n_answers: int,
) -> None:
    pump = proposed(3)
    slow = pump.client_at(2)
    first: Any = pump.attempt
    elapsed = slowly(pump, [slow], until_silent=n_answers)
    seconds = pump.policy.deadline_seconds
    assert elapsed == n_answers * (seconds - 1) + seconds
    assert culprits_of(pump.lsp.state.attempts[first.attempt_id]) == (slow.node_id,)
    assert pump.is_funded(), "and the others are done without another one"
