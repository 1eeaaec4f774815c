"""The first commitments of both sides: whole before the root is signed, and the LSP's alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.attacks import (
    culprits_of,
    flipped,
    heard,
    join_of,
    left,
    only_from,
    only_to,
    proposed,
    refusal,
)
from tests.protocol.forge import NOT_A_POINT, rebuilt, scene, victim_with
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode
from tests.protocol.refusal import check_refused
from tests.simulation.commitments import (
    check_all_is_the_lsps,
    check_first_commitments,
    client_first_commitment,
    lsp_first_commitment,
    signed_with,
)

from cromford import effects as fx
from cromford.channel.commitment import UnpayableFee
from cromford.channel.errors import PeerViolation
from cromford.channel.stage import Edition
from cromford.channel.terms import Party
from cromford.factory.terms import FeePolicy
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Refusal, Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.client_attempt import BelowSent, Complete, HasExit, RootSent
from cromford.protocol.journal.factory import apply_to_factory
from cromford.protocol.journal.first_commitments import (
    LSP_CHANNEL_POOL_SIZE,
    channel_terms_of,
    least_capacity_sat,
)
from cromford.protocol.journal.intents import DoubleSigning, check_intents, intent_of_commitment
from cromford.protocol.journal.lsp_attempt import Acknowledging, SigningBelow, SigningRoot
from cromford.protocol.lobby.build import plan_build
from cromford.protocol.opening import funding
from cromford.protocol.opening import lsp as lsp_opening
from cromford.protocol.opening.verification_channel import (
    check_first_commitments as check_buildable,
)
from cromford.protocol.policy import LspPolicy
from cromford.protocol.turn import Turn
from cromford.signing.round import FaultyContribution
from cromford.watch.burnt import BurnLimit
from cromford.wire import messages as m

EPHEMERAL: Final = LspPolicy(
    min_clients=1, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0
)
BOTH_POLICIES: Final = pytest.mark.parametrize(
    "policy", [LspPolicy(min_clients=1), EPHEMERAL], ids=["endogenous", "ephemeral"]
)
QUICK: Final[dict[str, Any]] = {
    "step_blocks": 4,
    "states_per_layer": 2,
    "lstock_csv_blocks": 4,
    "to_self_delay_lsp": 4,
    "to_self_delay_client": 4,
}
NOT_A_SCALAR: Final = b"\xff" * 32


@BOTH_POLICIES
def test_both_sides_hold_a_first_commitment_that_the_kernel_takes(policy: LspPolicy) -> None:
    """The pump checks it when the funding is published; here nothing may hide that check."""
    pump = proposed(policy=policy)
    pump.run()
    assert pump.is_funded()
    for client in range(1, len(pump.attempt.seats) + 1):
        check_first_commitments(pump.attempt, client, pump.held(pump.client_at(client)))


@pytest.mark.sampled(1)
@BOTH_POLICIES
@pytest.mark.parametrize("holder", list(Party), ids=lambda holder: holder.name.lower())
def test_a_channel_that_never_moved_closes_with_everything_the_lsps(
    policy: LspPolicy, holder: Party
) -> None:
    pump = proposed(policy=replace(policy, **QUICK))
    pump.run()
    pump.mine()
    client = pump.client_at(2)
    held = pump.held(client)
    for tx in held.signed_branch.txs:
        pump.mine(held.branch.exit_blocks)
        pump.chain.broadcast(tx)
        pump.chain.mine()
    own = (
        client_first_commitment(held)
        if holder is Party.ACCEPTER
        else lsp_first_commitment(pump.attempt, 2)
    )
    pump.chain.broadcast(own.tx)
    pump.chain.mine()
    assert own.tx.txid in pump.chain.confirmed
    check_all_is_the_lsps(own)


def test_the_channel_is_the_same_to_both_sides_and_starts_at_number_0() -> None:
    pump = proposed()
    pump.run()
    for client in range(1, 4):
        setting = pump.held(pump.client_at(client)).setting
        assert setting == pump.attempt.setting(client)
        for party in Party:
            state = setting.first_state(party)
            assert (state.own_signed, state.peer_signed) == (0, 0)
            assert (state.opener_msat, state.accepter_msat) == (
                1000 * pump.attempt.terms.capacity_sat[client - 1],
                0,
            )
            peer = setting.offer_of(party.other)
            assert state.peer_point == peer.first_per_commitment_point
            assert state.peer_next_point == peer.second_per_commitment_point
            assert setting.first_commitment(party).content == state.content(party, Edition.SIGNED)
    ids = {pump.attempt.setting(client).channel_id for client in range(1, 4)}
    assert len(ids) == 3


# The LSP's half


BAD_HALVES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "a flipped bit": flipped,
    "not a scalar": lambda _: NOT_A_SCALAR,
    "zero": lambda _: bytes(32),
}


def with_half(change: Callable[[bytes], bytes]) -> Callable[[m.SignedBelow], Sequence[m.Message]]:
    def changed(message: m.SignedBelow) -> Sequence[m.Message]:
        (candidate,) = message.candidates
        half = change(candidate.commitment_partial_sig)
        return (replace(message, candidates=(replace(candidate, commitment_partial_sig=half),)),)

    return changed


def check_nothing_is_released(pump: Pump, victim: PumpNode) -> None:
    held = next(iter(victim.state.attempts.values()))
    assert held.aborted is not None
    assert held.aborted.startswith("the LSP is at fault: first commitment: ")
    asked = [req.task.name for e in pump.wishes(victim, fx.PartialSign) for req in e.requests]
    assert "kickoff_root" not in asked, "the signer was asked for the root"
    assert held.attempt_id not in {msg.attempt_id for msg in pump.sent(victim, m.SignRoot)}
    assert held.funding_tx.txid not in {tx.txid for tx in pump.published}
    assert isinstance(held.stage, BelowSent), "no commitment is held"


@pytest.mark.parametrize("what", BAD_HALVES)
def test_a_bad_half_of_the_clients_commitment_releases_nothing_for_the_root(what: str) -> None:
    pump = proposed()
    victim = pump.client_at(2)
    with pump.tampering(only_to(victim, with_half(BAD_HALVES[what]), m.SignedBelow)):
        pump.run()
    check_nothing_is_released(pump, victim)


def test_the_half_of_another_clients_commitment_releases_nothing_for_the_root() -> None:
    pump = proposed()
    victim, attempt_id = pump.client_at(2), pump.attempt.attempt_id

    def others(_half: bytes) -> bytes:
        half: bytes = pump.lsp.state.attempts[attempt_id].stage.below.commitment_partial_sigs[2]
        return half

    with pump.tampering(only_to(victim, with_half(others), m.SignedBelow)):
        pump.run()
    check_nothing_is_released(pump, victim)


def test_an_aggregate_nonce_that_is_not_the_sum_releases_nothing_for_the_root() -> None:
    """A client cannot know it before; the signature that comes of it is no signature."""
    pump = proposed()
    victim = pump.client_at(2)

    def swapped(message: m.Propose) -> Sequence[m.Message]:
        (candidate,) = message.candidates
        first, second = candidate.commitment_nonces
        nonces = (first, replace(second, aggnonce=first.aggnonce))
        return (replace(message, candidates=(replace(candidate, commitment_nonces=nonces),)),)

    with pump.tampering(only_to(victim, swapped, m.Propose)):
        pump.run()
    check_nothing_is_released(pump, victim)


# The client's half


@pytest.mark.parametrize("what", BAD_HALVES)
def test_a_bad_half_of_the_lsps_commitment_is_named_and_nobody_gets_a_signature(what: str) -> None:
    pump = proposed(2)
    culprit, first = pump.client_at(2), pump.attempt.attempt_id

    def changed(message: m.SignBelow) -> Sequence[m.Message]:
        (candidate,) = message.candidates
        half = BAD_HALVES[what](candidate.commitment_partial_sig)
        return (replace(message, candidates=(replace(candidate, commitment_partial_sig=half),)),)

    with pump.tampering(only_from(culprit, changed, m.SignBelow)):
        pump.run()
    spoiled = pump.lsp.state.attempts[first]
    assert spoiled.aborted is not None
    assert spoiled.aborted.startswith("client 2: commitment ")
    assert spoiled.aborted.endswith(" opener 0: bad partial_sig")
    assert culprits_of(spoiled) == (culprit.node_id,)
    assert not spoiled.signatures
    assert first not in {msg.attempt_id for msg in pump.sent(pump.lsp, m.SignedBelow)}
    assert spoiled.funding_tx.txid not in {tx.txid for tx in pump.published}


def test_two_clients_with_one_channel_key_are_told_apart_by_their_channels() -> None:
    """Whose half is bad follows from the session: a key alone could be in two channels."""
    attempt = scene().attempt
    for client in range(1, 4):
        session = attempt.candidate.commitment_sessions[client, Party.OPENER]
        same_key = attempt.candidate.joins[0].candidates[0].pool.pubkey
        fault = FaultyContribution(same_key, session.task.name, "partial_sig")
        assert attempt.candidate.blamed(fault) == client


def test_nobody_is_blamed_for_a_contribution_of_our_own() -> None:
    attempt = scene().attempt
    session = attempt.candidate.commitment_sessions[1, Party.OPENER]
    own_keys = {session.task.name: attempt.blueprint.channels[0].funding_pubkey}
    own_keys["kickoff_root"] = attempt.candidate.factory_pool.pubkey
    for name, own in own_keys.items():
        with pytest.raises(AssertionError, match="our own contribution"):
            attempt.candidate.blamed(FaultyContribution(own, name, "partial_sig"))


# Nonces


def test_the_lsp_makes_a_pool_for_every_channel_and_each_commitment_takes_one_nonce_of_it() -> None:
    pump = proposed()
    pump.run()
    attempt = pump.attempt
    pools = signed_with(pump.lsp.store.remembered, attempt.attempt_id).channel_pools
    assert len(pools) == 3
    assert {len(pool.pubnonces) for pool in pools} == {LSP_CHANNEL_POOL_SIZE}
    for offer, pool in zip(attempt.blueprint.channels, pools, strict=True):
        assert pool.pubkey == offer.funding_pubkey
    for propose in pump.sent(pump.lsp, m.Propose):
        uses = propose.candidates[0].commitment_nonces
        assert [use.index for use in uses] == [0, 1]


def test_a_factory_remembers_none_of_what_it_was_signed_with() -> None:
    """Joins with their pools are half of what a channel would cost in memory for ever."""
    pump = proposed(2)
    candidate = pump.attempt.candidate
    pump.run()
    with pytest.raises(ValueError, match="its ceremony is over"):
        _ = pump.attempt.candidate
    remembered = repr(pump.attempt)
    for join in candidate.joins:
        assert repr(join.factory_pool.pubnonces[0]) not in remembered
        assert repr(join.candidates[0].channel) in remembered


@pytest.mark.parametrize("how", ["funded", "aborted", "restarted"])
def test_no_pool_outlives_its_ceremony(how: str) -> None:
    pump = proposed(2)
    if how == "aborted":
        pump.run_to(m.SignedBelow)
        pump.pass_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=pump.attempt.attempt_id))
        pump.wire.clear()
    elif how == "restarted":
        pump.run_to(m.SignedBelow)
        pump.restart(pump.lsp)
        pump.wire.clear()
    else:
        pump.run()
    signer: Any = pump.lsp.signer
    assert signer._pools == {}


# One sighash for ever


@pytest.mark.parametrize("holder", list(Party), ids=lambda holder: holder.name.lower())
def test_another_sighash_for_commitment_0_is_double_signing(holder: Party) -> None:
    pump = proposed(2)
    pump.run()
    for node in (pump.lsp, pump.client_at(1)):
        commitment = pump.attempt.blueprint.first_commitments[1, holder]
        intent = intent_of_commitment(commitment)
        assert intent.kind == f"commitment_{holder.name.lower()}"
        known = node.state.intents
        assert known[intent.kind, intent.outpoint, 0] == commitment.signing_task.sighash
        other = op.Intent(
            kind=intent.kind, outpoint=intent.outpoint, state_index=0, sighash=bytes(32)
        )
        with pytest.raises(DoubleSigning):
            check_intents(known, (other,))
        later = op.Intent(
            kind=intent.kind, outpoint=intent.outpoint, state_index=1, sighash=bytes(32)
        )
        check_intents(known, (later,))


# Funding


def test_funding_without_an_own_first_commitment_is_a_bug() -> None:
    pump = proposed(2)
    pump.run()
    factory = pump.factory
    funded = pump.attempt.funded
    assert funded is not None
    candidate = signed_with(pump.lsp.store.remembered, pump.attempt.attempt_id)
    before = SigningBelow(candidate=candidate)
    root = SigningRoot(before=before, below=funded.signed.below)
    stage = Acknowledging(before=root, signed=funded.signed, done=frozenset({1, 2}))
    unfunded = replace(pump.attempt, stage=stage)
    assert funding.fund(replace(factory, begun=unfunded)).tx == unfunded.funding_tx
    below = funded.signed.below
    for held in ((), below.commitment_signatures[:-1]):
        fewer = replace(funded.signed, below=replace(below, commitment_signatures=held))
        spoiled = replace(unfunded, stage=replace(stage, signed=fewer))
        with pytest.raises(AssertionError, match="every own first commitment"):
            funding.fund(replace(factory, begun=spoiled))


def test_a_first_commitment_is_held_from_the_record_on_and_never_unverified() -> None:
    pump = proposed(2)
    client, attempt_id = pump.client_at(1), pump.attempt.attempt_id
    pump.run_to(m.SignRoot)
    stage = client.state.attempts[attempt_id].stage
    assert isinstance(stage, RootSent)
    signature = stage.commitment_signature
    held = client.state.attempts[attempt_id]
    exit_held = HasExit(
        candidate=stage.candidate,
        signatures=stage.signatures,
        commitment_signature=signature,
    )
    assert client_first_commitment(replace(held, stage=exit_held)).signature == signature
    pump.run()
    completed = client.state.attempts[attempt_id].stage
    assert isinstance(completed, Complete)
    assert completed.commitment_signature == signature
    spoiled = replace(completed, commitment_signature=flipped(signature))
    attempt = replace(held, stage=spoiled)
    with pytest.raises(PeerViolation):
        client_first_commitment(attempt)


def test_what_was_computed_of_a_channel_is_not_computed_again() -> None:
    pump = proposed(2)
    pump.run()
    client = pump.client_at(1)
    attempt, held = pump.attempt, pump.held(client)
    tree = attempt.tree
    pump.mine(pump.policy.min_depth)
    assert pump.attempt is not attempt, "it has changed since"
    assert pump.attempt.tree is tree
    assert pump.attempt.setting(1) is attempt.setting(1)
    assert pump.held(client) is not held
    assert pump.held(client).branch is held.branch
    assert pump.held(client).setting is held.setting


# Capacity


def test_a_channel_that_cannot_pay_for_its_commitment_cannot_be_built() -> None:
    """The terms exclude it; were they to let one through, it has a name all the same."""
    setting = scene().attempt.setting(1)
    least_sat = least_capacity_sat(channel_terms_of(scene().attempt.terms))
    assert 0 < least_sat < setting.funding.capacity_sat
    poor = replace(setting, funding=replace(setting.funding, capacity_sat=500))
    with pytest.raises(UnpayableFee):
        poor.first_commitment(Party.OPENER)
    with pytest.raises(Refusal, match="commitment_opener: expected a commitment that can be built"):
        check_buildable(poor)
    check_buildable(replace(setting, funding=replace(setting.funding, capacity_sat=least_sat)))


ALL_MAY_BURN: Final = BurnLimit(times_estimate=100, percent=100)  # Another rule, of its own.
DEAR: Final = 10_000  # sat/kw: the largest commitment costs half of what the least channel holds.
LEAST_DEAR_SAT: Final = 2 * (240 + DEAR * (668 + 172 * 24) // 1000)
DEAR_POLICY: Final = LspPolicy(
    min_clients=1,
    capacity_min_sat=1_000,
    tree_feerate_sat_per_kw=DEAR,
    burn_limit=ALL_MAY_BURN,
)


def test_a_client_refuses_a_channel_that_does_not_carry_its_largest_commitment() -> None:
    capacities_sat = (WANTED_SAT, LEAST_SAT, WANTED_SAT)
    assert LEAST_SAT < LEAST_DEAR_SAT < WANTED_SAT
    propose = rebuilt(tree_feerate_sat_per_kw=DEAR, capacity_sat=capacities_sat)
    check_refused(
        propose, "capacity_sat", expected=f"at least {LEAST_DEAR_SAT}", received=LEAST_SAT
    )


def test_a_client_whose_policy_takes_everything_still_refuses_what_no_channel_can_have() -> None:
    victim = victim_with(dust_limit_sat=(1, 1000))
    check_refused(rebuilt(dust_limit_sat=329), "dust_limit_sat", received=329, victim=victim)


@pytest.mark.parametrize(("capacity_sat", "fits"), [(-1, False), (0, True)])
def test_the_lobby_refuses_a_channel_that_does_not_carry_its_largest_commitment(
    capacity_sat: int, *, fits: bool
) -> None:
    pump = Pump(1, policy=DEAR_POLICY)
    client = pump.clients[0]
    assert client.state.lobby.capacity_min_sat == LEAST_DEAR_SAT, "and says so before"
    pump.join()
    join = replace(left(pump, client), capacity_sat=LEAST_DEAR_SAT + capacity_sat)
    decision = heard(pump, client, replace(join, capacity_least_sat=1))
    if fits:
        assert isinstance(decision.records[0], lr.ClientJoined)
    else:
        assert refusal(decision).startswith(f"capacity_sat: expected {LEAST_DEAR_SAT}..")


def test_a_build_never_offers_less_than_a_channel_needs() -> None:
    """The coins do not reach for what is wanted, and the client would take a single satoshi."""
    policy = LspPolicy(min_clients=1, capacity_min_sat=1, capital_per_client_sat=40_000_000)
    pump = Pump(1, policy=policy)
    wish = ev.JoinRequested(capacity_sat=40_000_000, capacity_least_sat=1)
    pump.handle(pump.clients[0], wish)
    pump.run()
    pump.build()
    terms = pump.attempt.terms
    channel = channel_terms_of(terms)
    least_sat = policy.burn_limit.capacity_min_sat(channel)
    assert terms.capacity_sat == (least_sat,)
    assert least_sat > least_capacity_sat(channel)
    pump.run()
    assert pump.is_funded()


IMPOSSIBLE: Final = {
    "a largest channel below what one needs": (
        replace(DEAR_POLICY, capacity_max_sat=50_000),
        f"capacity_sat: expected at least {LEAST_DEAR_SAT}, received 50000",
    ),
    "a feerate that no channel has": (
        LspPolicy(min_clients=1, tree_feerate_sat_per_kw=1_000_001),
        "feerate_per_kw: expected 0..1000000, received 1000001",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_a_policy_that_no_channel_can_have_is_refused_by_name(what: str) -> None:
    policy, reason = IMPOSSIBLE[what]
    pump = Pump(1, policy=policy)
    client = pump.clients[0]
    donor = Pump(1)
    donor.join()
    join = replace(join_of(donor, donor.clients[0]), capacity_least_sat=1)
    pump.tell(pump.lsp, client, join)
    assert client.node_id in pump.lsp.state.house.members
    with pytest.raises(Rejected) as caught:
        plan_build(pump.lsp.state.house, min_clients=1, max_clients=1)
    assert (caught.value.code, str(caught.value)) == ("invalid_terms", reason)


def test_a_join_whose_second_point_is_none_is_refused() -> None:
    pump = Pump(1)
    pump.join()
    join = left(pump, pump.clients[0])
    (candidate,) = join.candidates
    channel = replace(candidate.channel, second_per_commitment_point=NOT_A_POINT)
    spoiled = replace(join, candidates=(replace(candidate, channel=channel),))
    reason = refusal(heard(pump, pump.clients[0], spoiled))
    assert reason == "candidates[0].channel.second_per_commitment_point: expected a point"


def test_an_attempt_that_is_over_does_not_end_again() -> None:
    pump = proposed(2)
    attempt_id = pump.attempt.attempt_id
    pump.reach_deadline(pump.lsp, fx.AttemptDeadline(attempt_id=attempt_id))
    assert pump.lsp.state.attempts[attempt_id].aborted is not None
    turn = Turn(pump.factory, apply_to_factory, FRESH)
    lsp_opening.abort(turn, reason="again", outcome=op.Outcome.REFUSED)
    assert turn.decision.is_nothing
