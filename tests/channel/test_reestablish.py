"""`channel_reestablish`: what is resent in each case, in which order, and who is out of step."""

from dataclasses import replace

import pytest
from tests.channel import specimen
from tests.channel.duet import Duet
from tests.channel.specimen import ENDOGENOUS

from cromford.channel.errors import FallenBehind, PeerViolation
from cromford.channel.messages import (
    CommitmentDue,
    Outgoing,
    Reestablish,
    RevocationDue,
    UpdateAdd,
    UpdateFail,
)
from cromford.channel.reestablish import (
    Resumption,
    claims_lost_state,
    disconnect,
    receive_reestablish,
    reestablish_message,
)
from cromford.channel.stage import HtlcStage
from cromford.channel.terms import Party

OPENER, ACCEPTER = Party.OPENER, Party.ACCEPTER


def ready() -> Duet:
    duet = Duet(terms=ENDOGENOUS)
    duet.settle()
    return duet


def after_payments(n_payments: int) -> Duet:
    """Return a quiet channel with some commitments behind it."""
    duet = ready()
    for index in range(n_payments):
        duet.add(OPENER, 1_000_000, index)
        duet.settle()
        duet.fulfill(ACCEPTER, duet.answerable(ACCEPTER)[0])
        duet.settle()
    return duet


def resumed(duet: Duet, party: Party) -> Resumption:
    """Break the connection and let one party take what the other says."""
    states = {one: disconnect(state) for one, state in duet.states.items()}
    message = reestablish_message(states[party.other])
    return resume(duet, party, message)


def resume(duet: Duet, party: Party, message: Reestablish) -> Resumption:
    number = message.next_revocation_number - 1
    own_point = specimen.point(party, number) if number >= 0 else None
    return receive_reestablish(disconnect(duet.states[party]), message, own_point=own_point)


def kinds(resend: tuple[Outgoing, ...]) -> list[type]:
    return [type(outgoing) for outgoing in resend]


def test_a_quiet_channel_has_nothing_to_send_again() -> None:
    duet = after_payments(1)
    for party in Party:
        resumption = resumed(duet, party)
        assert resumption.resend == ()
        assert not resumption.resends_channel_ready
        assert resumption.state == duet.states[party]


def test_before_the_first_update_channel_ready_is_sent_again() -> None:
    duet = ready()
    assert resumed(duet, OPENER).resends_channel_ready


def test_channel_ready_is_not_sent_again_once_either_holds_a_commitment_after_it() -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    duet.deliver(ACCEPTER)
    duet.deliver(ACCEPTER)
    for party in Party:
        assert not resumed(duet, party).resends_channel_ready


def test_an_update_that_was_not_signed_is_forgotten_by_the_peer_and_sent_again() -> None:
    duet = ready()
    add = duet.add(OPENER, 50_000_000, 1)
    duet.deliver(ACCEPTER)
    forgetful = disconnect(duet.states[ACCEPTER])
    assert forgetful.htlcs == ()
    assert forgetful.next_ids == (0, 0)
    assert resumed(duet, OPENER).resend == (add,)


def test_the_accepters_unsigned_adds_are_forgotten_too() -> None:
    duet = ready()
    duet.add(ACCEPTER, 50_000_000, 1)
    duet.deliver(OPENER)
    assert disconnect(duet.states[OPENER]).next_ids == (0, 0)
    assert disconnect(duet.states[ACCEPTER]).next_ids == (0, 1)


def test_a_removal_that_was_not_signed_is_forgotten_by_who_offered() -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.settle()
    duet.fail(ACCEPTER, duet.answerable(ACCEPTER)[0])
    duet.deliver(OPENER)
    assert disconnect(duet.states[OPENER]).htlcs[0].stage is HtlcStage.LOCKED_IN
    assert disconnect(duet.states[OPENER]).htlcs[0].removal is None
    assert disconnect(duet.states[ACCEPTER]).htlcs[0].stage is HtlcStage.REMOVE_PROPOSED
    assert kinds(resumed(duet, ACCEPTER).resend) == [UpdateFail]


def test_a_lost_signature_is_sent_again_with_exactly_its_updates_then_the_others() -> None:
    duet = ready()
    first = duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    later = duet.add(OPENER, 40_000_000, 2)
    signed = duet.contents[ACCEPTER, 1]

    resend = resumed(duet, OPENER).resend

    due = CommitmentDue(content=signed, per_commitment_point=specimen.point(ACCEPTER, 1))
    assert resend == (first, due, later)
    assert [htlc.htlc_id for htlc in signed.htlcs] == [0]


def test_an_update_made_while_a_revocation_is_awaited_is_still_sent_again_after_it() -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    later = duet.add(OPENER, 40_000_000, 2)
    duet.deliver(ACCEPTER)
    duet.deliver(ACCEPTER)
    duet.revoke(ACCEPTER)
    duet.deliver(OPENER)
    assert resumed(duet, OPENER).resend == (later,)


def test_a_signature_that_arrived_is_not_sent_again() -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    duet.deliver(ACCEPTER)
    duet.deliver(ACCEPTER)
    assert resumed(duet, OPENER).resend == ()
    # Its revocation was never sent, so it is not sent again, but it is still owed.
    assert resumed(duet, ACCEPTER).resend == ()
    assert resumed(duet, ACCEPTER).state.owes_revocation


def test_a_lost_revocation_is_sent_again() -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    duet.deliver(ACCEPTER)
    duet.deliver(ACCEPTER)
    duet.revoke(ACCEPTER)
    assert resumed(duet, ACCEPTER).resend == (RevocationDue(number=0),)


@pytest.mark.parametrize("is_signed_first", [True, False])
def test_a_signature_and_a_revocation_are_sent_again_in_their_order(
    is_signed_first: bool,  # noqa: FBT001 - pytest names it
) -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    duet.sign(OPENER)
    duet.add(ACCEPTER, 30_000_000, 2)
    duet.deliver(ACCEPTER)
    duet.deliver(ACCEPTER)
    for act in (duet.sign, duet.revoke) if is_signed_first else (duet.revoke, duet.sign):
        act(ACCEPTER)

    resend = resumed(duet, ACCEPTER).resend

    signature = [UpdateAdd, CommitmentDue]
    expected = [*signature, RevocationDue] if is_signed_first else [RevocationDue, *signature]
    assert kinds(resend) == expected
    due = next(one for one in resend if isinstance(one, CommitmentDue))
    assert due.content == duet.contents[OPENER, 1]
    # Signed before our revocation, the peer's own HTLC is not on its commitment yet.
    assert len(due.content.htlcs) == (1 if is_signed_first else 2)


def test_a_disconnection_of_what_is_disconnected_changes_nothing() -> None:
    duet = ready()
    duet.add(OPENER, 50_000_000, 1)
    state = disconnect(duet.states[OPENER])
    assert disconnect(state) == state


def test_a_channel_is_reestablished_only_after_a_disconnection() -> None:
    duet = ready()
    message = reestablish_message(duet.states[ACCEPTER])
    with pytest.raises(ValueError, match="is connected"):
        receive_reestablish(duet.states[OPENER], message, own_point=None)


def test_a_peer_that_knows_a_secret_we_do_not_remember_revealing_proves_we_fell_behind() -> None:
    old, new = after_payments(1), after_payments(3)
    message = reestablish_message(new.states[ACCEPTER])
    with pytest.raises(FallenBehind) as caught:
        resume(old, OPENER, message)
    assert (caught.value.remembered, caught.value.revoked) == (2, 6)
    assert str(caught.value) == "we remember 2 revocations, the peer proved 6"


@pytest.mark.parametrize("secret", [bytes(32), specimen.secret(OPENER, 0), b"\xff" * 32])
def test_a_peer_that_only_claims_so_is_in_violation(secret: bytes) -> None:
    old, new = after_payments(1), after_payments(3)
    message = replace(reestablish_message(new.states[ACCEPTER]), last_secret=secret)
    with pytest.raises(PeerViolation) as caught:
        resume(old, OPENER, message)
    assert caught.value.field == "your_last_per_commitment_secret"


def test_a_first_channel_reestablish_carries_no_secret() -> None:
    duet = ready()
    message = reestablish_message(duet.states[ACCEPTER])
    assert message == Reestablish(
        next_commitment_number=1, next_revocation_number=0, last_secret=bytes(32)
    )
    with pytest.raises(PeerViolation) as caught:
        resume(duet, OPENER, replace(message, last_secret=specimen.secret(OPENER, 0)))
    assert caught.value.field == "your_last_per_commitment_secret"


def test_a_peer_lost_state_that_tells_of_less_than_may_have_been_on_its_way() -> None:
    """Our last revocation may have been, and no commitment: the peer revoked for all of them."""
    duet = after_payments(3)
    state, message = duet.states[OPENER], reestablish_message(duet.states[ACCEPTER])
    assert (message.next_commitment_number, message.next_revocation_number) == (7, 6)
    assert not claims_lost_state(state, message)
    assert not claims_lost_state(state, replace(message, next_revocation_number=5))
    assert claims_lost_state(state, replace(message, next_revocation_number=4))
    assert claims_lost_state(state, replace(message, next_commitment_number=6))


@pytest.mark.parametrize("n_missing", [2, 6])
def test_a_peer_that_lost_more_than_one_revocation_is_out_of_step(n_missing: int) -> None:
    duet = after_payments(3)
    number = 6 - n_missing
    message = replace(
        reestablish_message(duet.states[ACCEPTER]),
        next_revocation_number=number,
        last_secret=specimen.secret(OPENER, number - 1) if number else bytes(32),
    )
    with pytest.raises(PeerViolation) as caught:
        resume(duet, OPENER, message)
    assert (caught.value.field, caught.value.received) == ("next_revocation_number", number)


@pytest.mark.parametrize("number", [0, 6, 8])
def test_a_peer_that_waits_for_another_commitment_is_out_of_step(number: int) -> None:
    duet = after_payments(3)
    message = reestablish_message(duet.states[ACCEPTER])
    assert message.next_commitment_number == 7
    with pytest.raises(PeerViolation) as caught:
        resume(duet, OPENER, replace(message, next_commitment_number=number))
    assert (caught.value.field, caught.value.received) == ("next_commitment_number", number)
