"""The update machine step by step: what each message does, and which are refused by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from tests.channel import specimen
from tests.channel.duet import Duet
from tests.channel.specimen import ENDOGENOUS

from cromford.channel.commits import (
    receive_channel_ready,
    receive_commitment,
    receive_revocation,
    revoke,
    sign_commitment,
)
from cromford.channel.errors import PeerViolation, UpdateRefused
from cromford.channel.messages import Rebase, RevocationDue, UpdateAdd, UpdateFail, UpdateFulfill
from cromford.channel.rebase import propose_rebase, receive_rebase
from cromford.channel.reestablish import disconnect
from cromford.channel.stage import Edition, HtlcStage, LiveRebase, UpdateStep
from cromford.channel.state import ChannelState, open_channel
from cromford.channel.terms import Party
from cromford.channel.updates import (
    propose_add,
    propose_fail,
    propose_fulfill,
    receive_update,
    take_back_adds,
)
from cromford.crypto import keys

OPENER, ACCEPTER = Party.OPENER, Party.ACCEPTER


def ready() -> Duet:
    duet = Duet(terms=ENDOGENOUS)
    duet.settle()
    return duet


def with_locked_in() -> Duet:
    """Return a channel with one HTLC that the opener offered."""
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.settle()
    return duet


def assert_refused(field: str, act: Callable[[], object]) -> None:
    with pytest.raises(UpdateRefused) as caught:
        act()
    assert caught.value.field == field


def assert_violation(field: str, act: Callable[[], object]) -> None:
    with pytest.raises(PeerViolation) as caught:
        act()
    assert caught.value.field == field


def stages(duet: Duet) -> list[HtlcStage]:
    return [live.stage for party in Party for live in duet.states[party].htlcs]


def test_an_htlc_passes_all_stages_in_order_on_both_sides_and_is_quiet_where_locked_in() -> None:
    duet = ready()
    seen: list[tuple[HtlcStage, ...]] = []
    quiet: list[HtlcStage] = []

    def step(act: Callable[[Party], object], party: Party) -> None:
        act(party)
        if act != duet.deliver and duet.inboxes[party.other]:
            duet.deliver(party.other)
        seen.append(tuple(stages(duet)))
        quiet.extend(state.htlcs[0].stage for state in duet.states.values() if state.is_quiet)

    step(lambda party: duet.add(party, 50_000_000, 1), OPENER)
    for act, party in (
        (duet.sign, OPENER),
        (duet.revoke, ACCEPTER),
        (duet.sign, ACCEPTER),
        (duet.revoke, OPENER),
        (lambda party: duet.fulfill(party, duet.answerable(party)[0]), ACCEPTER),
        (duet.sign, ACCEPTER),
        (duet.revoke, OPENER),
        (duet.sign, OPENER),
    ):
        step(act, party)
    assert seen == [(stage, stage) for stage in list(HtlcStage)[:-1]]
    assert quiet == [HtlcStage.LOCKED_IN] * 2

    duet.revoke(ACCEPTER)
    duet.settle()
    assert stages(duet) == []
    assert duet.states[OPENER].opener_msat == 600_000_000 - 50_000_000


def test_a_rebase_is_added_by_the_steps_of_an_htlc_and_is_over_when_both_are_bound_to_it() -> None:
    rebase = LiveRebase(growth_msat=0, price_msat=0)
    seen = [rebase]
    for step, party in (
        (UpdateStep.SIGN, OPENER),
        (UpdateStep.REVOKE, ACCEPTER),
        (UpdateStep.SIGN, ACCEPTER),
        (UpdateStep.REVOKE, OPENER),
    ):
        assert not rebase.is_moved(step, party.other)
        assert rebase.moved(step, party.other) is rebase
        assert rebase.is_moved(step, party)
        rebase = rebase.moved(step, party)
        seen.append(rebase)
    assert [live.stage for live in seen] == list(HtlcStage)[:5]
    assert [live.is_over for live in seen] == [False, False, False, False, True]


def test_a_stage_is_kept_by_its_number() -> None:
    """Snapshots of a channel have it."""
    assert [stage.value for stage in HtlcStage] == list(range(1, 11))


def test_a_commitment_has_an_htlc_from_its_signing_to_its_removals_signing() -> None:
    duet = ready()

    def on_commitments() -> list[bool]:
        state = duet.states[OPENER]
        return [bool(state.content(holder, Edition.SIGNED).htlcs) for holder in Party]

    duet.add(OPENER, 50_000_000, 1)
    assert on_commitments() == [False, False]
    duet.sign(OPENER)
    assert on_commitments() == [False, True]
    duet.settle()
    assert on_commitments() == [True, True]
    duet.fail(ACCEPTER, duet.answerable(ACCEPTER)[0])
    duet.sign(ACCEPTER)
    duet.deliver(OPENER)
    duet.deliver(OPENER)
    assert on_commitments() == [False, True]
    duet.settle()
    assert on_commitments() == [False, False]
    assert duet.states[OPENER].opener_msat == 600_000_000


def add_until_countersigned(duet: Duet, index: int) -> None:
    """Let an HTLC of the opener come as far as its revocation, which locks it in."""
    duet.add(OPENER, 50_000_000, index)
    duet.sign(OPENER)
    for party in (ACCEPTER, ACCEPTER):
        duet.deliver(party)
    duet.revoke(ACCEPTER)
    duet.sign(ACCEPTER)
    for party in (OPENER, OPENER):
        duet.deliver(party)


def test_a_settlement_names_what_is_locked_in_and_what_is_gone() -> None:
    duet = ready()
    duet.add(OPENER, 40_000_000, 0)
    duet.settle()
    add_until_countersigned(duet, 1)
    settlement, due = revoke(duet.states[OPENER])
    assert [live.payload for live in settlement.locked_in] == [b"1"]
    assert settlement.gone == ()
    assert due == RevocationDue(number=1)
    assert due.next_number == 3

    duet.revoke(OPENER)
    duet.deliver(ACCEPTER)
    duet.fulfill(ACCEPTER, duet.answerable(ACCEPTER)[1])
    duet.sign(ACCEPTER)
    for party in (OPENER, OPENER):
        duet.deliver(party)
    duet.revoke(OPENER)
    duet.sign(OPENER)
    for party in (ACCEPTER, ACCEPTER):
        duet.deliver(party)
    settlement, _ = revoke(duet.states[ACCEPTER])
    assert [live.htlc.htlc_id for live in settlement.gone] == [1]
    assert settlement.gone[0].removal is not None
    assert settlement.gone[0].removal.preimage == specimen.preimage(1)
    assert settlement.locked_in == ()


def test_an_htlc_of_ours_is_not_locked_in_by_a_revocation_of_the_peer() -> None:
    duet = ready()
    add_until_countersigned(duet, 1)
    duet.add(OPENER, 40_000_000, 2)
    duet.sign(OPENER)
    for party in (ACCEPTER, ACCEPTER):
        duet.deliver(party)
    settlement = receive_revocation(
        duet.states[OPENER],
        secret=specimen.secret(ACCEPTER, 1),
        next_point=specimen.point(ACCEPTER, 3),
    )
    stages = [live.stage for live in settlement.state.htlcs]
    assert stages == [HtlcStage.ADD_COUNTERSIGNED, HtlcStage.ADD_ACKED]
    assert settlement.locked_in == ()
    settlement, _ = revoke(settlement.state)
    assert [live.payload for live in settlement.locked_in] == [b"1"]


def test_nothing_is_signed_before_channel_ready() -> None:
    duet = Duet(terms=ENDOGENOUS)
    duet.add(OPENER, 50_000_000, 1)
    assert_refused("commitment_signed", lambda: duet.sign(OPENER))


def test_a_repeated_channel_ready_is_ignored_and_a_wrong_point_is_not() -> None:
    state = ready().states[OPENER]
    assert receive_channel_ready(state, specimen.point(ACCEPTER, 7)) is state
    assert_violation("second_per_commitment_point", lambda: receive_channel_ready(state, bytes(33)))


def test_nothing_is_signed_without_an_update_or_twice_before_a_revocation() -> None:
    duet = ready()
    assert_refused("commitment_signed", lambda: duet.sign(OPENER))
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    duet.add(OPENER, 40_000_000, 2)
    assert_refused("commitment_signed", lambda: duet.sign(OPENER))


def test_a_signature_without_an_update_or_before_our_revocation_is_a_violation() -> None:
    duet = ready()
    assert_violation("commitment_signed", lambda: receive_commitment(duet.states[ACCEPTER]))
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    duet.add(OPENER, 40_000_000, 2)
    for _ in range(3):
        duet.deliver(ACCEPTER)
    with pytest.raises(PeerViolation, match="wait for the revocation of commitment 0"):
        receive_commitment(duet.states[ACCEPTER])


def test_what_a_preimage_brings_can_be_offered_in_the_same_batch() -> None:
    duet = Duet(terms=ENDOGENOUS, accepter_msat=0)
    duet.add(OPENER, 50_000_000, 1)
    duet.settle()
    assert_refused("amount_msat", lambda: duet.add(ACCEPTER, 1_000_000, 2))
    duet.fulfill(ACCEPTER, duet.answerable(ACCEPTER)[0])
    duet.add(ACCEPTER, 50_000_000, 2)
    duet.settle()
    assert duet.states[OPENER].content(OPENER, Edition.SIGNED).accepter_msat == 0


def test_nothing_is_revoked_that_is_not_replaced() -> None:
    duet = ready()
    assert_refused("revoke_and_ack", lambda: revoke(duet.states[OPENER]))
    assert_violation(
        "revoke_and_ack",
        lambda: receive_revocation(
            duet.states[OPENER],
            secret=specimen.secret(ACCEPTER, 0),
            next_point=specimen.point(ACCEPTER, 2),
        ),
    )


@pytest.mark.parametrize(
    ("secret", "next_point", "field"),
    [
        (bytes(32), specimen.point(ACCEPTER, 2), "per_commitment_secret"),
        (specimen.secret(ACCEPTER, 1), specimen.point(ACCEPTER, 2), "per_commitment_secret"),
        (specimen.secret(OPENER, 0), specimen.point(ACCEPTER, 2), "per_commitment_secret"),
        (specimen.secret(ACCEPTER, 0), bytes(33), "next_per_commitment_point"),
    ],
)
def test_a_wrong_secret_or_point_is_a_violation(
    secret: bytes, next_point: bytes, field: str
) -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    assert_violation(
        field,
        lambda: receive_revocation(duet.states[OPENER], secret=secret, next_point=next_point),
    )


def test_a_secret_of_another_tree_is_a_violation_even_if_it_fits_its_point() -> None:
    """The peer would make us unable to derive earlier secrets from it."""
    stranger = specimen.secrets_of("stranger").seed
    state = open_channel(
        me=OPENER,
        terms=ENDOGENOUS,
        opener_msat=10**9,
        accepter_msat=0,
        peer_point=specimen.point(ACCEPTER, 0),
    )
    state = receive_channel_ready(state, keys.pubkey_of(stranger))
    state = pay_once(state, specimen.secret(ACCEPTER, 0))
    after_add = propose_add(
        state, amount_msat=10**6, payment_hash=specimen.payment_hash(2), cltv_expiry=900_000
    )[0]
    signed = sign_commitment(after_add)[0]
    assert_violation(
        "per_commitment_secret",
        lambda: receive_revocation(signed, secret=stranger, next_point=specimen.point(ACCEPTER, 3)),
    )


def pay_once(state: ChannelState, secret: bytes) -> ChannelState:
    state, _ = propose_add(
        state, amount_msat=10**6, payment_hash=specimen.payment_hash(1), cltv_expiry=900_000
    )
    state, _ = sign_commitment(state)
    return receive_revocation(state, secret=secret, next_point=specimen.point(ACCEPTER, 2)).state


def test_only_an_htlc_of_the_peer_that_is_locked_in_can_be_removed_and_once() -> None:
    duet = with_locked_in()
    state = duet.states[ACCEPTER]
    for htlc_id in (1, -1):
        with pytest.raises(UpdateRefused, match="received unknown"):
            propose_fail(state, htlc_id, b"")
    assert_refused("id", lambda: propose_fail(duet.states[OPENER], 0, b""))

    removing, _ = propose_fail(state, 0, b"")
    with pytest.raises(UpdateRefused, match="received remove_proposed"):
        propose_fulfill(removing, 0, specimen.preimage(1))

    duet.add(OPENER, 50_000_000, 2)
    duet.deliver(ACCEPTER)
    assert_refused("id", lambda: propose_fail(duet.states[ACCEPTER], 1, b""))


def test_a_removal_of_what_is_not_locked_in_is_a_violation() -> None:
    duet = with_locked_in()
    for state, htlc_id in ((duet.states[ACCEPTER], 0), (duet.states[OPENER], 1)):
        message = UpdateFail(htlc_id=htlc_id, reason=b"")
        assert_violation("id", partial(receive_update, state, message))


@pytest.mark.parametrize("preimage", [b"", specimen.preimage(2), specimen.preimage(1)[:-1]])
def test_a_preimage_that_is_not_the_htlcs_is_refused_by_both(preimage: bytes) -> None:
    duet = with_locked_in()
    assert_refused("payment_preimage", lambda: propose_fulfill(duet.states[ACCEPTER], 0, preimage))
    message = UpdateFulfill(htlc_id=0, preimage=preimage)
    assert_violation("payment_preimage", lambda: receive_update(duet.states[OPENER], message))


def test_a_reason_has_a_limit() -> None:
    duet = with_locked_in()
    assert_refused("reason", lambda: propose_fail(duet.states[ACCEPTER], 0, bytes(1025)))
    message = UpdateFail(htlc_id=0, reason=bytes(1025))
    assert_violation("reason", lambda: receive_update(duet.states[OPENER], message))
    receive_update(duet.states[OPENER], replace(message, reason=bytes(1024)))


def test_two_htlcs_may_have_one_payment_hash() -> None:
    duet = ready()
    for _ in range(2):
        duet.add(OPENER, 50_000_000, 1)
    duet.settle()
    for live in duet.answerable(ACCEPTER):
        duet.fulfill(ACCEPTER, live)
    duet.settle()
    assert duet.states[OPENER].opener_msat == 500_000_000


def test_a_preimage_longer_than_the_script_allows_is_refused() -> None:
    """Its hash could be right, and on chain it would be worthless."""
    long = bytes(33)
    duet = ready()
    state, message = propose_add(
        duet.states[OPENER],
        amount_msat=50_000_000,
        payment_hash=keys.sha256(long),
        cltv_expiry=900_000,
    )
    duet.states[OPENER] = state
    duet.post(OPENER, message)
    duet.settle()
    assert_refused("payment_preimage", lambda: propose_fulfill(duet.states[ACCEPTER], 0, long))


def test_nothing_flows_between_a_disconnection_and_channel_reestablish() -> None:
    duet = with_locked_in()
    duet.add(OPENER, 40_000_000, 2)
    state = disconnect(duet.states[OPENER])
    add = UpdateAdd(
        htlc_id=0, amount_msat=10**6, payment_hash=specimen.payment_hash(3), cltv_expiry=9
    )
    assert_refused(
        "channel_reestablish",
        lambda: propose_add(
            state, amount_msat=10**6, payment_hash=specimen.payment_hash(3), cltv_expiry=9
        ),
    )
    rebase = Rebase(advance_id=b"", capacity_sat=specimen.CAPACITY_SAT, price_msat=0)
    accepter = disconnect(duet.states[ACCEPTER])
    assert_refused("channel_reestablish", lambda: propose_rebase(state, rebase))
    assert_violation("channel_reestablish", lambda: receive_rebase(accepter, rebase))
    assert_refused("channel_reestablish", lambda: propose_fail(state, 0, b""))
    assert_refused("channel_reestablish", lambda: propose_fulfill(state, 0, bytes(32)))
    assert_refused("channel_reestablish", lambda: sign_commitment(state))
    assert_refused("channel_reestablish", lambda: revoke(state))
    assert_violation("channel_reestablish", lambda: receive_update(state, add))


def test_nothing_that_was_under_way_is_taken_before_channel_reestablish() -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    revoked = {"secret": specimen.secret(ACCEPTER, 0), "next_point": specimen.point(ACCEPTER, 2)}
    with pytest.raises(PeerViolation, match="channel_reestablish first"):
        receive_revocation(disconnect(duet.states[OPENER]), **revoked)
    state = receive_revocation(duet.states[OPENER], **revoked).state
    with pytest.raises(PeerViolation, match="channel_reestablish first"):
        receive_commitment(disconnect(state))
    assert receive_commitment(state)[1].htlcs


def test_what_was_never_signed_is_taken_back_as_if_it_never_was() -> None:
    state = with_locked_in().states[OPENER]
    kept, _ = propose_add(state, amount_msat=1_000, payment_hash=bytes(32), cltv_expiry=500)
    after = kept
    for amount_msat in (2_000, 3_000):
        after, _ = propose_add(
            after, amount_msat=amount_msat, payment_hash=bytes(32), cltv_expiry=500
        )
    assert take_back_adds(after, state.next_id(OPENER) + 1) == kept
    assert take_back_adds(after, state.next_id(OPENER)) == state


def test_what_the_peer_offered_and_its_answer_stay_where_adds_are_taken_back() -> None:
    """Ids of both parties count from 0, so the peer's can be those that are taken back."""
    duet = ready()
    for index in range(2):
        duet.add(ACCEPTER, 50_000_000, index)
    duet.settle()
    answered, _ = propose_fail(duet.states[OPENER], 1, b"")
    added, _ = propose_add(answered, amount_msat=1_000, payment_hash=bytes(32), cltv_expiry=500)
    assert take_back_adds(added, 0) == answered


def test_what_was_signed_is_never_taken_back() -> None:
    state = with_locked_in().states[OPENER]
    added, _ = propose_add(state, amount_msat=1_000, payment_hash=bytes(32), cltv_expiry=500)
    signed, _ = sign_commitment(added)
    more, _ = propose_add(signed, amount_msat=1_000, payment_hash=bytes(32), cltv_expiry=500)
    for first_id in (0, state.next_id(OPENER), more.next_id(OPENER)):
        assert_refused("id", partial(take_back_adds, more, first_id))
    assert take_back_adds(more, signed.next_id(OPENER)) == signed
