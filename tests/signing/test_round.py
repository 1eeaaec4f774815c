"""Collecting partial signatures: any order, no honest signer blamed, every spoiler named."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.signing.cohort import ORDER, Cohort, cohort_of, pubkey, seckey, shifted

from cromford.bitcoin.taproot import tapleaf_hash
from cromford.crypto import schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.musig2 import SecNonce
from cromford.signing.nonces import NoncePool
from cromford.signing.round import FaultyContribution, SigningRound, aggregate_nonces

FACTORY = [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2), (0, 3)]


@pytest.fixture
def cohort() -> Cohort:
    return cohort_of(FACTORY)


@st.composite
def memberships(draw: st.DrawFn) -> list[list[int]]:
    """Draw 1 to 4 sessions of 2 to 8 signers; the first has everybody."""
    n_signers = draw(st.integers(2, 8))
    some = st.lists(st.integers(0, n_signers - 1), min_size=1, unique=True)
    return [list(range(n_signers)), *draw(st.lists(some, max_size=3))]


def check_signed(collected: SigningRound) -> None:
    signatures = collected.signatures()
    assert list(signatures) == list(collected.sessions)
    for name, signature in signatures.items():
        task = collected.sessions[name].task
        assert schnorr.verify(signature, task.sighash, task.key_agg.output_key)


@settings(max_examples=25)
@given(members=memberships(), root=st.none() | st.just(tapleaf_hash(b"")), data=st.data())
def test_contributions_in_any_order_and_any_number_give_every_signature(
    members: list[list[int]], root: bytes | None, data: st.DataObject
) -> None:
    cohort = cohort_of(members, merkle_root=root)
    pieces = [
        (signer, {name: partial_sig})
        for signer, partial_sigs in cohort.contributions.items()
        for name, partial_sig in partial_sigs.items()
    ]
    repeats = data.draw(st.lists(st.sampled_from(pieces), max_size=5))
    collected = cohort.empty_round
    for signer, piece in data.draw(st.permutations(pieces + repeats)):
        collected = collected.with_contribution(signer, piece)
    assert collected.partial_sigs == cohort.full_round.partial_sigs
    assert collected.holdouts() == frozenset()
    check_signed(collected)


@settings(max_examples=25)
@given(members=memberships(), data=st.data())
def test_holdouts_are_those_who_owe_anything_and_until_then_there_is_no_signature(
    members: list[list[int]], data: st.DataObject
) -> None:
    cohort = cohort_of(members)
    collected = cohort.empty_round
    owed = {(s, name) for s, sigs in cohort.contributions.items() for name in sigs}
    for signer, name in data.draw(st.permutations(sorted(owed))):
        assert collected.holdouts() == {signer for signer, _ in owed}
        with pytest.raises(ValueError, match=f"{len({s for s, _ in owed})} signers hold out"):
            collected.signatures()
        piece = {name: cohort.contributions[signer][name]}
        collected = collected.with_contribution(signer, piece)
        owed.remove((signer, name))
    assert collected.holdouts() == frozenset()
    check_signed(collected)


@settings(max_examples=40)
@given(members=memberships(), data=st.data())
def test_an_honest_signer_is_never_blamed(members: list[list[int]], data: st.DataObject) -> None:
    """However many others spoil however many sessions, each by whatever it likes."""
    cohort = cohort_of(members)
    pairs = sorted((s, name) for s, sigs in cohort.contributions.items() for name in sigs)
    spoilt = data.draw(st.lists(st.sampled_from(pairs), min_size=1, unique=True))
    for signer, name in spoilt:
        by = data.draw(st.one_of(st.integers(1, 3), st.integers(1, ORDER - 1)))
        honest = cohort.contributions[signer][name]
        cohort.contributions[signer][name] = shifted(honest, by)
    try:
        check_signed(cohort.full_round)
    except FaultyContribution as fault:
        blamed, contribution = (fault.signer, fault.session_name), fault.contribution
        assert blamed in spoilt
        assert contribution == "partial_sig"
    else:
        # Errors that cancel out spoil nothing: the signature is good.
        assert all(sum(name == other for _, other in spoilt) != 1 for _, name in spoilt)


@settings(max_examples=40)
@given(members=memberships(), data=st.data())
def test_the_one_who_spoils_one_session_is_named_with_it(
    members: list[list[int]], data: st.DataObject
) -> None:
    cohort = cohort_of(members)
    pairs = sorted((s, name) for s, sigs in cohort.contributions.items() for name in sigs)
    signer, name = data.draw(st.sampled_from(pairs))
    spoilt = shifted(cohort.contributions[signer][name], data.draw(st.integers(1, ORDER - 1)))
    cohort.contributions[signer][name] = spoilt
    with pytest.raises(FaultyContribution) as fault:
        cohort.full_round.signatures()
    assert (fault.value.signer, fault.value.session_name) == (signer, name)
    assert str(fault.value) == f"{name}: bad partial_sig from {signer.hex()}"


def test_errors_that_cancel_out_still_make_a_good_signature(cohort: Cohort) -> None:
    one, other = pubkey(1), pubkey(2)
    for signer, by in ((one, 7), (other, ORDER - 7)):
        cohort.contributions[signer]["s0"] = shifted(cohort.contributions[signer]["s0"], by)
    check_signed(cohort.full_round)


def test_a_partial_signature_of_another_session_is_found_out(cohort: Cohort) -> None:
    sigs = cohort.contributions[pubkey(2)]
    sigs["s0"], sigs["s1"] = sigs["s1"], sigs["s0"]
    with pytest.raises(FaultyContribution) as fault:
        cohort.full_round.signatures()
    assert (fault.value.signer, fault.value.session_name) == (pubkey(2), "s0")


def test_somebody_elses_partial_signature_is_found_out(cohort: Cohort) -> None:
    cohort.contributions[pubkey(2)]["s2"] = cohort.contributions[pubkey(1)]["s2"]
    with pytest.raises(FaultyContribution) as fault:
        cohort.full_round.signatures()
    assert (fault.value.signer, fault.value.session_name) == (pubkey(2), "s2")


@pytest.mark.parametrize(
    "malformed", [b"", bytes(31), bytes(33), ORDER.to_bytes(32, "big"), b"\xff" * 32]
)
def test_a_malformed_contribution_names_its_signer_and_changes_nothing(
    cohort: Cohort, malformed: bytes
) -> None:
    before = cohort.empty_round.with_contribution(pubkey(1), cohort.contributions[pubkey(1)])
    sigs = {**cohort.contributions[pubkey(2)], "s1": malformed}
    with pytest.raises(FaultyContribution) as fault:
        before.with_contribution(pubkey(2), sigs)
    named = (fault.value.signer, fault.value.session_name, fault.value.contribution)
    assert named == (pubkey(2), "s1", "partial_sig")
    assert set(before.partial_sigs["s0"]) == {pubkey(1)}


@pytest.mark.parametrize(("signer", "name"), [(3, "s2"), (1, "s3"), (1, "s9"), (7, "s0")])
def test_a_contribution_to_a_session_of_others_is_a_fault(
    cohort: Cohort, signer: int, name: str
) -> None:
    with pytest.raises(FaultyContribution, match=f"{name}: bad session"):
        cohort.empty_round.with_contribution(pubkey(signer), {name: bytes(32)})


def test_a_second_different_contribution_is_a_fault_and_the_first_stays(cohort: Cohort) -> None:
    collected = cohort.full_round
    other = {"s0": shifted(cohort.contributions[pubkey(1)]["s0"], 1)}
    with pytest.raises(FaultyContribution, match="bad second, different partial_sig"):
        collected.with_contribution(pubkey(1), other)
    check_signed(collected)


def test_a_round_without_sessions_is_done() -> None:
    assert SigningRound(sessions={}).signatures() == {}


def test_a_malformed_pubnonce_names_its_signer() -> None:
    pubnonces = {pubkey(signer): SecNonce(Keypair(seckey(signer))).pubnonce for signer in range(3)}
    assert len(aggregate_nonces(pubnonces)) == 66
    for signer in range(3):
        for malformed in (b"", bytes(66), b"\x04" * 66, bytes(67)):
            with pytest.raises(FaultyContribution) as fault:
                aggregate_nonces({**pubnonces, pubkey(signer): malformed})
            assert (fault.value.signer, fault.value.contribution) == (pubkey(signer), "pubnonce")


def test_a_wrong_aggregate_nonce_is_our_own_bug_and_nobody_is_blamed() -> None:
    """Every partial signature is right for it; only whoever aggregated made a mistake."""
    stranger = SecNonce(Keypair(seckey(7))).pubnonce
    honest = cohort_of([(0, 1)]).sessions["s0"]
    pools = {pubkey(signer): NoncePool(Keypair(seckey(signer)), size=1) for signer in (0, 1)}
    pubnonces = {signer: pool.public.pubnonces[0] for signer, pool in pools.items()}
    aggnonce = aggregate_nonces({**pubnonces, pubkey(1): stranger})
    session = replace(honest, pubnonces=pubnonces, aggnonce=aggnonce)
    collected = SigningRound(sessions={"s0": session})
    for signer, pool in pools.items():
        partial_sig = pool.partial_sign(0, session.task, aggnonce)
        collected = collected.with_contribution(signer, {"s0": partial_sig})
    with pytest.raises(AssertionError, match="a bad aggregate of good partial signatures"):
        collected.signatures()
