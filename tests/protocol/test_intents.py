"""One sighash for every kickoff, every state and index, every commitment and number, for ever."""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.forge import scene
from tests.protocol.pump import Pump
from tests.simulation.sim_node import CLIENT_ROLE, LSP_ROLE, SimStore, durable

from cromford.channel.terms import Party
from cromford.daemon.driver import Driver, Role, Undecided
from cromford.effects import ClearDeadline, RejoinDeadline
from cromford.factory.vertices import NodeKind
from cromford.ports import Entry
from cromford.protocol import client as client_role
from cromford.protocol.events import DeadlineReached, Event
from cromford.protocol.facts import Facts
from cromford.protocol.journal.factory import apply_to_factory, new_factory
from cromford.protocol.journal.intents import DoubleSigning, IntentKey, check_intents, intent_of
from cromford.protocol.journal.opening_records import Intent, SigningIntended
from cromford.protocol.journal.records import encode_record
from cromford.protocol.journal.streams import CLIENT, HOUSE
from cromford.protocol.turn import Decision, Turn

OUTPOINTS: Final = [bytes((n,)) * 36 for n in range(3)]
SIGHASHES: Final = [bytes((n,)) * 32 for n in range(2)]

intents = st.builds(
    Intent,
    kind=st.sampled_from(["kickoff", "state", "commitment_opener", "commitment_accepter"]),
    outpoint=st.sampled_from(OUTPOINTS),
    state_index=st.integers(0, 1),
    sighash=st.sampled_from(SIGHASHES),
)


def key_of(intent: Intent) -> IntentKey:
    return (intent.kind, intent.outpoint, intent.state_index)


@given(batches=st.lists(st.lists(intents, max_size=4).map(tuple), max_size=6))
def test_no_history_of_intents_holds_two_sighashes_for_one_key(
    batches: list[tuple[Intent, ...]],
) -> None:
    known: Mapping[IntentKey, bytes] = {}
    signed: dict[IntentKey, set[bytes]] = {}
    for batch in batches:
        before = dict(known)
        try:
            known = check_intents(known, batch)
        except DoubleSigning:
            assert known == before, "a refused batch leaves nothing behind"
            continue
        for intent in batch:
            signed.setdefault(key_of(intent), set()).add(intent.sighash)
    assert all(len(sighashes) == 1 for sighashes in signed.values())


OPENINGS: Final = tuple(
    Intent(kind="state", outpoint=outpoint, state_index=0, sighash=SIGHASHES[0])
    for outpoint in OUTPOINTS
)


@given(first=intents, second=intents)
def test_only_another_sighash_for_the_same_key_is_double_signing(
    first: Intent, second: Intent
) -> None:
    known = check_intents({}, OPENINGS)
    for intent in (first, second):
        if known.get(key_of(intent), intent.sighash) != intent.sighash:
            with pytest.raises(DoubleSigning):
                check_intents(known, (intent,))
        else:
            known = check_intents(known, (intent,))
            assert known[key_of(intent)] == intent.sighash


def test_no_state_is_signed_before_the_one_that_it_replaces() -> None:
    """A leaf whose index 2 exists and whose index 1 does not has a state that nothing poisons."""
    known = check_intents({}, OPENINGS[:1])
    first, second = (
        Intent(kind="state", outpoint=OUTPOINTS[0], state_index=index, sighash=SIGHASHES[1])
        for index in (1, 2)
    )
    with pytest.raises(DoubleSigning, match="the state before was never signed"):
        check_intents(known, (second,))
    known = check_intents(known, (first,))
    assert check_intents(known, (second,))[key_of(second)] == second.sighash


@pytest.mark.parametrize("kind", ["stock_poison", "channel_poison"])
def test_a_poison_is_signed_with_the_state_that_supersedes_what_it_spends(kind: str) -> None:
    """Of a live state a poison would rob the LSP."""
    known = check_intents({}, OPENINGS[:1])
    state = Intent(kind="state", outpoint=OUTPOINTS[0], state_index=1, sighash=SIGHASHES[1])
    poison = Intent(kind=kind, outpoint=OUTPOINTS[1], state_index=0, sighash=SIGHASHES[0])
    live = Intent(kind=kind, outpoint=OUTPOINTS[2], state_index=1, sighash=SIGHASHES[0])
    for refused in ((poison,), (state, live)):
        with pytest.raises(DoubleSigning, match="nothing supersedes the state"):
            check_intents(known, refused)
    assert check_intents(known, (state, poison))[key_of(poison)] == poison.sighash


def test_the_same_sighash_may_be_intended_again() -> None:
    """A session whose nonce was lost is rerun: same bytes to sign, fresh nonces."""
    intent = Intent(kind="state", outpoint=OUTPOINTS[0], state_index=0, sighash=SIGHASHES[0])
    known = check_intents({}, (intent, intent))
    assert check_intents(known, (intent,)) == known


def test_an_intent_names_the_outpoint_the_index_and_the_sighash_of_its_transaction() -> None:
    for node in scene().attempt.tree.nodes:
        intent = intent_of(node)
        assert intent.outpoint == node.tx.inputs[0].outpoint.serialize()
        assert intent.sighash == node.task.sighash
        assert intent.kind == node.name.partition("_")[0]
        assert intent.state_index == 0


def test_two_indices_of_one_state_are_two_intents() -> None:
    state = next(node for node in scene().attempt.tree.nodes if node.kind is NodeKind.STATE)
    later = replace(state, state_index=1)
    assert key_of(intent_of(state)) != key_of(intent_of(later))


ROLES: Final[dict[str, Role[Any]]] = {"lsp": LSP_ROLE, "client": CLIENT_ROLE}


@pytest.mark.parametrize("name", ROLES)
def test_double_signing_stops_the_role_before_anything_is_durable(name: str) -> None:
    """Were a bug to decide it, the journal and the state stay as they were, and nothing is done."""
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run()
    node = pump.lsp if name == "lsp" else pump.clients[0]
    (kind, outpoint, index), sighash = next(iter(node.state.intents.items()))
    attempt_id = pump.attempt.attempt_id
    other = Intent(kind=kind, outpoint=outpoint, state_index=index, sighash=bytes(32))
    assert sighash != other.sighash
    performed: list[object] = []

    def decide_badly(state: Any, _event: Event, facts: Facts) -> Decision[Any]:
        if name == "lsp":
            turn: Turn[Any] = Turn(pump.factory, apply_to_factory, facts)
        else:
            turn = Turn(state, client_role.apply, facts)
        turn.remember(SigningIntended(attempt_id=attempt_id, intents=(other,)))
        turn.ask(ClearDeadline(deadline=RejoinDeadline()))
        return turn.decision

    role: Role[Any] = replace(ROLES[name], decide=decide_badly)
    store = SimStore(dice=lambda: False)

    def perform(effect: Any) -> tuple[Event, ...]:
        performed.append(effect)
        return ()

    driver = Driver(role, node.state, store, perform)
    with pytest.raises(Undecided) as met:
        driver.handle(DeadlineReached(stream=HOUSE, deadline=RejoinDeadline()))
    assert isinstance(met.value.__cause__, DoubleSigning)
    assert store.entries == []
    assert durable(driver.state) == durable(node.state)
    assert performed == []


@pytest.mark.parametrize("name", ROLES)
def test_double_signing_is_found_across_a_restart(name: str) -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run()
    node = pump.lsp if name == "lsp" else pump.clients[0]
    known = dict(node.state.intents)
    pump.restart(node)
    assert node.state.intents == known, "intents are for ever"
    (kind, outpoint, index), _ = next(iter(known.items()))
    other = Intent(kind=kind, outpoint=outpoint, state_index=index, sighash=bytes(32))
    record = SigningIntended(attempt_id=pump.attempt.attempt_id, intents=(other,))
    stream = pump.factory.stream if name == "lsp" else CLIENT
    node.store.append([Entry(stream, encode_record(record))])
    with pytest.raises(DoubleSigning):
        node.start()


def test_every_signature_of_a_ceremony_was_intended_before_it_was_made() -> None:
    pump = Pump(3)
    pump.join()
    pump.build()
    pump.run()
    tree = {node.task.sighash for node in pump.attempt.tree.nodes}
    commitments = {
        commitment.signing_task.sighash
        for commitment in pump.attempt.blueprint.first_commitments.values()
    }
    assert set(pump.lsp.state.intents.values()) == tree | commitments
    assert len(pump.lsp.state.intents) == len(tree) + 2 * len(pump.clients)
    for client in pump.clients:
        held = pump.held(client)
        own = {held.setting.first_commitment(party).signing_task.sighash for party in Party}
        intended = set(client.state.intents.values())
        assert intended == {node.task.sighash for node in held.branch.nodes} | own
        assert intended <= tree | commitments


def test_a_factory_knows_its_own_intents_and_finds_double_signing_without_the_others() -> None:
    """Its stream names them: what is known elsewhere is not looked at, and need not be there."""
    pump = Pump(2)
    for client in pump.clients:
        pump.join(client)
        pump.build()
        pump.run()
        pump.mine()
    first, second = pump.lsp.state.all_factories()
    assert first.intents
    assert second.intents
    for factory in (first, second):
        told = [record for stream, record in pump.lsp.store.told if stream == factory.stream]
        alone = reduce(apply_to_factory, told, new_factory(pump.lsp.state.config, factory.number))
        assert alone.intents == factory.intents
        (kind, outpoint, index), _ = next(iter(factory.intents.items()))
        other = Intent(kind=kind, outpoint=outpoint, state_index=index, sighash=bytes(32))
        record = SigningIntended(attempt_id=factory.attempt.attempt_id, intents=(other,))
        with pytest.raises(DoubleSigning):
            apply_to_factory(alone, record)


def test_attempts_share_no_intent_because_they_share_no_key() -> None:
    """Even on the same coins: the first tree's outpoints are not the second's."""
    pump = Pump(3)
    pump.join()
    pump.build()
    pump.run(until=lambda: bool(pump.attempt.signatures))
    first = set(pump.lsp.state.intents)
    inputs = {tx_in.outpoint for tx_in in pump.attempt.funding_tx.inputs}
    pump.disconnect(pump.client_at(1))
    pump.run()
    assert {tx_in.outpoint for tx_in in pump.attempt.funding_tx.inputs} & inputs
    assert first < set(pump.lsp.state.intents)
    assert not first & {key_of(intent_of(node)) for node in pump.attempt.tree.nodes}
