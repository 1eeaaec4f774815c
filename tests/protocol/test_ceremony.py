"""The opening ceremony under attack: exits first, funding last, and one culprit at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.attacks import (
    OTHER_ID,
    PHASES,
    acknowledged,
    confirm,
    culprits_of,
    flipped,
    nothing,
    only_from,
    only_to,
    proposed,
    to_client,
    to_lsp,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_operator_requests import rejection
from tests.simulation.commitments import signed_with

from cromford import effects as fx
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import FaultyLsp
from cromford.protocol.journal.client_attempt import Complete, RootSent
from cromford.protocol.journal.kept import kept_join
from cromford.wire import messages as m

# Exits first


@pytest.mark.sampled(1)
@pytest.mark.parametrize("order", range(6))
def test_exits_come_first_whatever_order_messages_arrive_in(order: int) -> None:
    """The pump asserts it at every message: no root without an exit, no funding without all."""
    pump = Pump(4, order=order, watches_folds=True)
    pump.join()
    pump.build()
    pump.run()
    assert pump.is_funded()
    pump.mine(pump.attempt.terms.min_depth)
    assert all(pump.held(client).ready_sent for client in pump.clients)


def test_the_lsp_funds_only_when_the_last_client_has_acknowledged() -> None:
    pump = proposed()
    held_back: list[m.Message] = []

    def hold(message: m.Message) -> Sequence[m.Message]:
        held_back.append(message)
        return ()

    last = pump.client_at(3)
    with pump.tampering(only_from(last, hold, m.Acknowledge)):
        pump.run()
    assert acknowledged(pump.attempt) == {1, 2}
    assert not pump.wishes(pump.lsp, fx.SignFunding)
    pump.tell(pump.lsp, last, held_back[0])
    assert pump.is_funded()


def test_everybody_who_is_in_a_funded_factory_can_leave_alone() -> None:
    pump = proposed()
    pump.run()
    pump.mine()
    for client in pump.clients:
        held = pump.held(client)
        assert isinstance(held.stage, Complete)
        first = held.signed_branch.txs[0]
        pump.handle(client, ev.ExitRequested(attempt_id=held.attempt_id))
        assert first.txid in pump.chain.mempool


# Finished signatures


def with_signatures(
    change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]],
) -> Callable[[m.SignedBelow], Sequence[m.Message]]:
    def changed(message: m.SignedBelow) -> Sequence[m.Message]:
        (candidate,) = message.candidates
        return (
            replace(
                message,
                candidates=(replace(candidate, signatures=change(candidate.signatures)),),
            ),
        )

    return changed


def corrupted(place: int) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    return lambda sigs: (*sigs[:place], flipped(sigs[place]), *sigs[place + 1 :])


BAD_BELOW: Final[dict[str, Callable[[tuple[bytes, ...]], tuple[bytes, ...]]]] = {
    "state_root": corrupted(0),
    "kickoff_0": corrupted(1),
    "state_0": corrupted(2),
    "two exchanged": lambda sigs: (sigs[1], sigs[0], *sigs[2:]),
    "one too few": lambda sigs: sigs[:-1],
    "one too many": lambda sigs: (*sigs, sigs[-1]),
    "none": lambda _: (),
    "zeros": lambda sigs: (bytes(64), *sigs[1:]),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("what", BAD_BELOW)
def test_one_bad_signature_below_the_root_releases_nothing_for_the_root(what: str) -> None:
    pump = proposed()
    victim = pump.client_at(2)
    with pump.tampering(only_to(victim, with_signatures(BAD_BELOW[what]), m.SignedBelow)):
        pump.run()
    held = next(iter(victim.state.attempts.values()))
    assert held.aborted is not None
    assert held.aborted.startswith("the LSP is at fault: ")
    assert not pump.sent(victim, m.SignRoot)
    asked = [r.task.name for e in pump.wishes(victim, fx.PartialSign) for r in e.requests]
    assert "kickoff_root" not in asked, "the signer was asked for the root"
    assert held.funding_tx.txid not in {tx.txid for tx in pump.published}


def test_every_signature_below_the_root_is_checked_and_the_wrong_one_named() -> None:
    pump = proposed(3)
    pump.run()
    stage = pump.held(pump.client_at(2)).stage
    assert isinstance(stage, Complete)
    stage.candidate.check_below(stage.signatures)
    names = [node.name for node in stage.candidate.branch.nodes_below_root]
    for place, name in enumerate(names):
        with pytest.raises(FaultyLsp, match=f"{name}: the signature does not verify"):
            stage.candidate.check_below(corrupted(place)(stage.signatures))


@pytest.mark.parametrize("count", [0, 2])
def test_signatures_for_another_number_of_candidates_release_nothing(count: int) -> None:
    pump = proposed()
    victim = pump.client_at(2)
    change = only_to(
        victim, lambda msg: (replace(msg, candidates=msg.candidates * count),), m.SignedBelow
    )
    with pump.tampering(change):
        pump.run()
    assert not pump.sent(victim, m.SignRoot)
    assert pump.held(victim).aborted is not None


def test_the_signatures_of_another_branch_release_nothing() -> None:
    pump = proposed()
    victim = pump.client_at(2)
    attempt = pump.attempt

    def exchanged(message: m.SignedBelow) -> Sequence[m.Message]:
        stage = pump.lsp.state.attempts[attempt.attempt_id].stage
        return (replace(message, candidates=(stage.below.for_client(3),)),)

    with pump.tampering(only_to(victim, exchanged, m.SignedBelow)):
        pump.run()
    assert not pump.sent(victim, m.SignRoot)


BAD_ROOT: Final[dict[str, Callable[[m.SignedRoot], Sequence[m.Message]]]] = {
    "a flipped bit": lambda msg: (replace(msg, signatures=(flipped(msg.signatures[0]),)),),
    "none": lambda msg: (replace(msg, signatures=()),),
    "two": lambda msg: (replace(msg, signatures=msg.signatures * 2),),
}


@pytest.mark.parametrize("what", BAD_ROOT)
def test_a_bad_kickoff_root_is_neither_acknowledged_nor_ever_ready(what: str) -> None:
    """The LSP may hold the good one and fund all the same; the client says nothing to that."""
    pump = proposed()
    victim = pump.client_at(2)
    attempt_id = pump.attempt.attempt_id
    with pump.tampering(only_to(victim, BAD_ROOT[what], m.SignedRoot)):
        pump.run()
    held = victim.state.attempts[attempt_id]
    assert isinstance(held.stage, RootSent)
    assert held.aborted is not None
    assert attempt_id not in {msg.attempt_id for msg in pump.sent(victim, m.Acknowledge)}
    confirm(pump, victim, held.funding_tx)
    assert attempt_id not in {msg.attempt_id for msg in pump.sent(victim, m.ChannelReady)}


# Contributions


def in_partials(
    change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]],
) -> Callable[[m.SignBelow], Sequence[m.Message]]:
    def changed(message: m.SignBelow) -> Sequence[m.Message]:
        (candidate,) = message.candidates
        return (
            replace(
                message,
                candidates=(replace(candidate, partial_sigs=change(candidate.partial_sigs)),),
            ),
        )

    return changed


def in_half(change: Callable[[bytes], bytes]) -> Callable[[m.SignBelow], Sequence[m.Message]]:
    """Change a client's half of the LSP's first commitment."""

    def changed(message: m.SignBelow) -> Sequence[m.Message]:
        (candidate,) = message.candidates
        half = change(candidate.commitment_partial_sig)
        return (replace(message, candidates=(replace(candidate, commitment_partial_sig=half),)),)

    return changed


NOT_A_SCALAR: Final = b"\xff" * 32
BAD_PARTIALS: Final[dict[str, tuple[type, Callable[[Any], Sequence[m.Message]]]]] = {
    **{
        f"a flipped bit in partial {place}": (m.SignBelow, in_partials(corrupted(place)))
        for place in range(3)
    },
    "not a scalar": (m.SignBelow, in_partials(lambda sigs: (NOT_A_SCALAR, *sigs[1:]))),
    "zero": (m.SignBelow, in_partials(lambda sigs: (bytes(32), *sigs[1:]))),
    "one too few": (m.SignBelow, in_partials(lambda sigs: sigs[:-1])),
    "one too many": (m.SignBelow, in_partials(lambda sigs: (*sigs, sigs[0]))),
    "two exchanged": (m.SignBelow, in_partials(lambda sigs: (sigs[1], sigs[0], *sigs[2:]))),
    "no candidate": (m.SignBelow, lambda msg: (replace(msg, candidates=()),)),
    "two candidates": (m.SignBelow, lambda msg: (replace(msg, candidates=msg.candidates * 2),)),
    "a flipped bit in its half of the commitment": (m.SignBelow, in_half(flipped)),
    "no scalar for the commitment": (m.SignBelow, in_half(lambda _: NOT_A_SCALAR)),
    "zero for the commitment": (m.SignBelow, in_half(lambda _: bytes(32))),
    "its tree's half for the commitment": (
        m.SignBelow,
        lambda msg: in_half(lambda _: msg.candidates[0].partial_sigs[-1])(msg),
    ),
    "a second, different half of the commitment": (
        m.SignBelow,
        lambda msg: (msg, *in_half(flipped)(msg)),
    ),
    "a flipped bit in the root": (
        m.SignRoot,
        lambda msg: (replace(msg, partial_sigs=(flipped(msg.partial_sigs[0]),)),),
    ),
    "no scalar for the root": (
        m.SignRoot,
        lambda msg: (replace(msg, partial_sigs=(NOT_A_SCALAR,)),),
    ),
    "nothing for the root": (m.SignRoot, lambda msg: (replace(msg, partial_sigs=()),)),
    "two for the root": (
        m.SignRoot,
        lambda msg: (replace(msg, partial_sigs=msg.partial_sigs * 2),),
    ),
    "a second, different contribution": (
        m.SignBelow,
        lambda msg: (msg, *in_partials(corrupted(1))(msg)),
    ),
    "a second, different root": (
        m.SignRoot,
        lambda msg: (msg, replace(msg, partial_sigs=(flipped(msg.partial_sigs[0]),))),
    ),
    "the root before its time": (
        m.SignBelow,
        lambda msg: (
            m.SignRoot(
                attempt_id=msg.attempt_id,
                terms_hash=msg.terms_hash,
                partial_sigs=(msg.candidates[0].partial_sigs[0],),
            ),
        ),
    ),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("what", BAD_PARTIALS)
def test_a_bad_contribution_names_its_author_and_the_others_finish_without_it(what: str) -> None:
    pump = proposed()
    kind, change = BAD_PARTIALS[what]
    first = pump.attempt
    culprit = pump.client_at(2)
    with pump.tampering(only_from(culprit, change, kind)):
        pump.run()

    spoiled = pump.lsp.state.attempts[first.attempt_id]
    assert spoiled.aborted is not None
    assert spoiled.aborted.startswith("client 2: ")
    assert culprits_of(spoiled) == (culprit.node_id,)
    assert set(pump.lsp.state.house.faults) == {culprit.node_id}
    assert pump.is_funded(), "the others finished"
    finished = pump.attempt
    assert {seat.node_id for seat in finished.seats} == {
        client.node_id for client in pump.clients if client is not culprit
    }
    check_nothing_is_shared(pump, first, finished)


def check_nothing_is_shared(pump: Pump, first: Any, second: Any) -> None:
    """Two attempts have no key, no pool, no nonce and no outpoint in common."""
    assert first.attempt_id != second.attempt_id
    assert not set(first.blueprint.factory_pubkeys) & set(second.blueprint.factory_pubkeys)
    assert not nonces_of(pump, first) & nonces_of(pump, second)
    assert not channel_keys_of(first) & channel_keys_of(second)
    assert not outpoints_of(first) & outpoints_of(second)


def nonces_of(pump: Pump, attempt: Any) -> set[bytes]:
    candidate = signed_with(pump.lsp.store.remembered, attempt.attempt_id)
    pools: list[Any] = [candidate.factory_pool, *(join.factory_pool for join in candidate.joins)]
    pools += [join.candidates[0].pool for join in candidate.joins]
    return {pubnonce for pool in pools for pubnonce in pool.pubnonces}


def channel_keys_of(attempt: Any) -> set[bytes]:
    offers = [*attempt.blueprint.channels, *(seat.channel for seat in attempt.seats)]
    return {offer.funding_pubkey for offer in offers} | {
        offer.first_per_commitment_point for offer in offers
    }


def outpoints_of(attempt: Any) -> set[bytes]:
    return {node.tx.inputs[0].outpoint.serialize() for node in attempt.tree.nodes}


def test_two_culprits_are_named_one_after_the_other() -> None:
    """Each spoils its own leaf: in a transaction of both, their errors might cancel out."""
    pump = proposed(4)
    culprits = [pump.client_at(1), pump.client_at(4)]

    def tamper(sender: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if sender in culprits and isinstance(message, m.SignBelow):
            return in_partials(corrupted(1))(message)
        return (message,)

    with pump.tampering(tamper):
        pump.run()
    assert set(pump.lsp.state.house.faults) == {culprit.node_id for culprit in culprits}
    assert pump.is_funded()
    assert len(pump.attempt.seats) == 2


def test_two_clients_whose_errors_cancel_out_spoil_nothing() -> None:
    """Their partial signatures are both wrong and their sum is right: so is the signature."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    pump = proposed(2)

    def shifted(by: int) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
        return lambda sigs: (
            ((int.from_bytes(sigs[0], "big") + by) % order).to_bytes(32, "big"),
            *sigs[1:],
        )

    def tamper(sender: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, m.SignBelow):
            return in_partials(shifted(1 if sender is pump.clients[0] else -1))(message)
        return (message,)

    with pump.tampering(tamper):
        pump.run()
    assert pump.is_funded()
    assert not pump.lsp.state.house.faults


# Messages that are late, repeated or somebody else's


@pytest.mark.parametrize("phase", PHASES)
def test_a_message_of_another_attempt_is_dropped_and_never_a_fault(phase: str) -> None:
    pump = proposed()
    pump.run_to(PHASES[phase])
    attempt = pump.attempt
    client = pump.client_at(1)
    lsp_state, client_state = pump.lsp.state, client.state
    right = attempt.terms.terms_hash
    for ids in ((OTHER_ID, right), (OTHER_ID, OTHER_ID), (attempt.attempt_id, OTHER_ID)):
        for message in to_lsp(*ids):
            event = ev.MessageReceived(node_id=client.node_id, message=message)
            assert lsp_role.decide(lsp_state, event).is_nothing, message
        for message in to_client(*ids):
            event = ev.MessageReceived(node_id=pump.lsp.node_id, message=message)
            assert client_role.decide(client_state, event).is_nothing, message
    unknown = m.Abort(attempt_id=OTHER_ID, reason="")
    for node, role, sender in (
        (pump.lsp, lsp_role, client),
        (client, client_role, pump.lsp),
    ):
        event = ev.MessageReceived(node_id=sender.node_id, message=unknown)
        assert role.decide(node.state, event).is_nothing


@pytest.mark.parametrize("phase", PHASES)
def test_a_connected_stranger_to_an_attempt_is_not_heard_in_it(phase: str) -> None:
    pump = Pump(4)
    stranger = pump.clients[3]
    pump.join(*pump.clients[:3])
    pump.build()
    pump.run_to(PHASES[phase])
    attempt = pump.attempt
    messages = to_lsp(attempt.attempt_id, attempt.terms.terms_hash)
    messages.append(m.Abort(attempt_id=attempt.attempt_id, reason="no"))
    for message in messages:
        event = ev.MessageReceived(node_id=stranger.node_id, message=message)
        assert lsp_role.decide(pump.lsp.state, event).is_nothing, message


def test_every_message_may_come_twice() -> None:
    pump = Pump(3)

    def twice(_sender: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        return (message, message)

    with pump.tampering(twice):
        pump.join()
        pump.build()
        pump.run()
        pump.mine(pump.attempt.terms.min_depth)
    assert len(pump.published) == 1
    assert len(pump.lsp.state.attempts) == 1
    assert not pump.lsp.state.house.faults
    assert all(pump.held(client).ready_sent for client in pump.clients)
    assert pump.attempt.funded is not None
    assert pump.attempt.funded.ready_received == {client.node_id for client in pump.clients}


def test_the_messages_of_a_spoiled_attempt_do_not_disturb_the_next() -> None:
    pump = proposed()
    kept: list[tuple[PumpNode, PumpNode, m.Message]] = []
    culprit = pump.client_at(1)

    def recording(sender: PumpNode, to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        kept.append((sender, to, message))
        if sender is culprit and isinstance(message, m.SignRoot):
            return ()
        return (message,)

    with pump.tampering(recording):
        pump.run()
    pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id))
    replayed = [letter for letter in kept if not isinstance(letter[2], m.Propose | m.Join)]
    for sender, to, message in replayed:
        pump.tell(to, sender, message)
    pump.run()
    assert pump.is_funded()
    assert set(pump.lsp.state.house.faults) <= {culprit.node_id}


# Silence and aborts


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", [m.SignBelow, m.SignRoot, m.Acknowledge])
@pytest.mark.parametrize("n_silent", [1, 2])
def test_silence_in_any_phase_costs_the_others_one_deadline(kind: type, n_silent: int) -> None:
    pump = proposed()
    silent = [pump.client_at(seat) for seat in (2, 3)[:n_silent]]

    def tamper(sender: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        return () if sender in silent and isinstance(message, kind) else (message,)

    first = pump.attempt
    with pump.tampering(tamper):
        pump.run()
        assert not pump.is_funded()
        pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=first.attempt_id))
        pump.run()
    aborted = pump.lsp.state.attempts[first.attempt_id]
    assert set(culprits_of(aborted)) == {client.node_id for client in silent}
    assert pump.is_funded(), "no second deadline was needed"
    assert len(pump.attempt.seats) == 3 - n_silent
    assert all(pump.lsp.state.house.uptime_blocks(client.node_id) == 0 for client in silent)
    check_nothing_is_shared(pump, first, pump.attempt)


def test_too_few_who_stay_end_the_build_by_name() -> None:
    pump = Pump(2)
    pump.join()
    pump.build(min_clients=2)
    with pump.tampering(only_from(pump.client_at(1), nothing, m.SignBelow)):
        pump.run()
        pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id))
        pump.run()
    assert pump.lsp.state.house.build_dropped == "1 client is left, 2 are needed"
    assert not pump.is_funded()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", ["abort", "disconnect", "malformed"])
def test_whatever_ends_an_attempt_frees_the_coins_and_drops_every_nonce(
    phase: str, how: str
) -> None:
    pump = proposed(2)
    pump.run_to(PHASES[phase])
    attempt = pump.attempt
    client = pump.client_at(1)
    match how:
        case "abort":
            pump.tell(pump.lsp, client, m.Abort(attempt_id=attempt.attempt_id, reason="no"))
        case "disconnect":
            pump.disconnect(client)
        case _:
            pump.handle(pump.lsp, ev.MessageMalformed(node_id=client.node_id, reason="noise"))
    ended = pump.lsp.state.attempts[attempt.attempt_id]
    has_signed_the_root = attempt.said_root is not None and 1 in attempt.said_root.done
    if how == "disconnect" and has_signed_the_root:
        assert ended.is_open, "it can come back and acknowledge"
        pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=attempt.attempt_id))
        ended = pump.lsp.state.attempts[attempt.attempt_id]
    assert culprits_of(ended)[:1] == (client.node_id,)
    assert attempt.attempt_id not in pump.lsp.state.wallet.reserved.values()
    pump.run()
    old_pools = {attempt.candidate.factory_pool.pool_id} | {
        kept_join(join).factory_pool.pool_id for join in attempt.candidate.joins
    }
    for node in (pump.lsp, *pump.clients):
        assert node.signer is not None
        assert not old_pools & set(node.signer._pools)


def test_clients_that_stay_through_an_abort_join_again_with_fresh_keys() -> None:
    pump = proposed()
    before = {client.name: pump.sent(client, m.Join)[-1] for client in pump.clients}
    culprit = pump.client_at(1)
    pump.tell(pump.lsp, culprit, m.Abort(attempt_id=pump.attempt.attempt_id, reason="no"))
    pump.run(until=lambda: len(pump.lsp.state.attempts) == 2)
    for client in pump.clients:
        if client is culprit:
            continue
        old, new = before[client.name], pump.sent(client, m.Join)[-1]
        assert new.capacity_sat == old.capacity_sat
        assert new.factory_pool.pubkey != old.factory_pool.pubkey
        assert not set(new.factory_pool.pubnonces) & set(old.factory_pool.pubnonces)
        assert new.candidates[0].channel != old.candidates[0].channel


CALLED = ev.BuildRequested(min_clients=2, max_clients=100, external_id="may")


def test_by_one_external_id_one_factory_is_built_by_whichever_try() -> None:
    pump = Pump(3)
    pump.join()
    pump.handle(pump.lsp, CALLED)
    pump.run_to(m.SignBelow)
    first = pump.attempt.attempt_id
    assert rejection(pump, pump.lsp, CALLED).code == "external_id_taken", "while it is signed, too"
    pump.disconnect(pump.clients[0])
    pump.run()
    assert pump.is_funded()
    assert pump.attempt.attempt_id != first
    called = pump.lsp.state.house.built_as("may")
    assert called is not None
    assert called.attempt_id == pump.attempt.attempt_id
    pump.restart(pump.lsp)
    pump.run()
    pump.mine()
    pump.join_again()
    assert rejection(pump, pump.lsp, CALLED).code == "external_id_taken"
    assert pump.lsp.state.house.built_as("june") is pump.lsp.state.house.built_as("") is None


def test_a_build_of_which_nothing_came_is_tried_again_by_its_id() -> None:
    pump = Pump(2)
    pump.join()
    pump.handle(pump.lsp, CALLED)
    pump.run_to(m.SignBelow)
    pump.disconnect(pump.clients[0])
    pump.run()
    assert not pump.is_funded()
    assert pump.lsp.state.house.built_as("may") is None
    pump.connect(pump.clients[0])
    pump.run()
    pump.handle(pump.lsp, CALLED)
    pump.run()
    assert pump.is_funded()
