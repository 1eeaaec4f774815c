"""When a side signs, what it signs, and what it says then: BOLT 2, one step at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.decisions import STALE, UNMARKABLE, remembered, said, wished
from tests.protocol.samples import Sample, Samples, dual, plain, rebasing
from tests.protocol.signed_closes import CLOSE_ID

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.commits import next_own_content
from cromford.channel.content import Htlc
from cromford.channel.errors import PeerViolation
from cromford.channel.messages import UpdateAdd, UpdateFulfill
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc
from cromford.channel.updates import propose_add
from cromford.crypto.musig2 import is_pubnonce
from cromford.protocol.channels.signing import (
    REVOCATION_SECONDS,
    UNMARKED,
    on_commitment_made,
    on_commitment_signed,
    on_half_made,
    on_revocation_deadline,
    on_revoke_and_ack,
    revocation,
    set_revocation_deadline,
    sign_if_due,
)
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.encoding import journalled
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

KINDS: Final = pytest.mark.parametrize("samples", [plain, dual])
SIDES: Final = pytest.mark.parametrize("of_lsp", [True, False])
GROUP_ORDER: Final = bytes.fromhex(
    "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
)


def frozen(sample: Sample) -> Sample:
    close = SignedClose(
        close_id=CLOSE_ID,
        outpoint=sample.link.present.outpoint,
        balance_msat=10**9,
        is_finished=True,
    )
    return sample.with_link(closes=(close,))


def still(sample: Sample) -> Sample:
    following = sample.link.next
    assert following is not None
    return sample.with_link(next=changed(following, is_leaving=True))


LAST: Final = m.ChannelFailure(channel_id=bytes(32), reason="what goes after it")


# What is signed


def due_sample(samples: Samples, *, of_lsp: bool) -> Sample:
    """Return a side in the moment in which it signs an update of its own."""
    return next(
        one
        for one in samples.taken["sign_if_due"]
        if one.is_lsps is of_lsp and one.link.state.unacked and signed(one)
    )


def signed(sample: Sample, facts: Facts = FRESH) -> list[fx.SignCommitment]:
    """Return what a side signs now."""
    turn = sample.turn(facts)
    sign_if_due(turn, turn.link(sample.channel_id))
    asked = wished(turn, fx.SignCommitment)
    assert len(remembered(turn, cr.CommitmentIntended)) == len(asked), "before it is signed"
    return asked


@KINDS
@SIDES
def test_what_is_due_is_signed_for_each_funding_with_the_updates_that_it_covers(
    samples: Callable[[], Samples], *, of_lsp: bool
) -> None:
    sample = due_sample(samples(), of_lsp=of_lsp)
    turn = sample.turn()
    sign_if_due(turn, turn.link(sample.channel_id))
    (intended,) = remembered(turn, cr.CommitmentIntended)
    (asked,) = wished(turn, fx.SignCommitment)
    link = turn.link(sample.channel_id)
    content = link.state.content(link.state.peer, Edition.SIGNED)
    assert [part.commitment.funding for part in asked.parts] == [*link.fundings_of(content)]
    assert len(asked.parts) == (2 if samples is dual else 1)
    sighashes = [part.commitment.signing_task.sighash for part in asked.parts]
    assert (intended.number, intended.sighash) == (content.number, sighashes[0])
    assert intended.next_sighash == b"".join(sighashes[1:])
    before = sample.link
    nonces = [before.peer_pubnonce]
    if before.next is not None:
        nonces.append(before.next.peer_nonces[content.number])
    assert [part.pubnonce for part in asked.parts] == nonces
    assert len(asked.before) == len(before.state.unacked)
    assert asked.after == ()


def unmet(sample: Sample) -> list[Sample]:
    """Return the same side when its peer cannot take a signature, or when it must not sign."""
    link = sample.link
    rivals = [
        sample.away(),
        sample.with_link(failure="over"),
        sample.with_link(peer_pubnonce=None),
        frozen(sample),
    ]
    if link.next is not None:
        no_nonces = changed(link.next, peer_nonces=type(link.next.peer_nonces)())
        rivals += [still(sample), sample.with_link(next=no_nonces)]
    return rivals


@KINDS
@SIDES
def test_nothing_is_signed_that_cannot_be_taken(
    samples: Callable[[], Samples], *, of_lsp: bool
) -> None:
    sample = due_sample(samples(), of_lsp=of_lsp)
    for one in unmet(sample):
        assert signed(one) == []
    assert signed(sample, UNMARKABLE) == []
    after = sample.turn()
    sign_if_due(after, after.link(sample.channel_id))
    assert after.link(sample.channel_id).state.awaits_revocation
    offer_one_more(after, sample.channel_id)
    assert signed(sample._replace(state=after.state)) == [], "it gathers what is new"


def offer_one_more(turn: Turn[Any], channel_id: bytes) -> None:
    state = turn.link(channel_id).state
    update = m.UpdateAddHtlc(
        channel_id=channel_id,
        htlc_id=state.next_id(state.me),
        amount_msat=1_000_000,
        payment_hash=bytes(32),
        cltv_expiry=1_000,
        delivery=m.Delivery(payee=bytes(33), payment_secret=bytes(32), amount_msat=1_000_000),
    )
    turn.remember(cr.UpdateProposed(channel_id=channel_id, message=journalled(update)))


@SIDES
def test_our_own_commitment_is_finished_before_the_peers_next_is_signed(*, of_lsp: bool) -> None:
    """Our revocation leaves first, so what it acknowledges has to be in what we sign."""
    sample = due_sample(plain(), of_lsp=of_lsp)
    asked = next(
        effect
        for one in plain().taken["on_commitment_signed"]
        if one.is_lsps is of_lsp
        for effect in finishing(one)
    )
    for channel_id, n_signed in ((sample.channel_id, 0), (bytes(32), 1)):
        turn = sample.turn()
        turn.ask(changed(asked, channel_id=channel_id))
        sign_if_due(turn, turn.link(sample.channel_id))
        assert len(wished(turn, fx.SignCommitment)) == n_signed


def finishing(sample: Sample, facts: Facts = FRESH) -> list[fx.FinishCommitment]:
    """Return what a side asks of its signer when its peer signed."""
    turn = sample.turn(facts)
    on_commitment_signed(turn, turn.link(sample.channel_id), sample.met)
    return wished(turn, fx.FinishCommitment)


def showing_a_preimage(*, of_lsp: bool) -> Sample:
    return next(
        one
        for one in plain().taken["sign_if_due"]
        if one.is_lsps is of_lsp
        and any(isinstance(update, UpdateFulfill) for update in one.link.state.unacked)
        and signed(one)
    )


def test_while_the_chain_is_stale_only_what_is_passed_back_is_signed() -> None:
    """No HTLC is added, and no preimage shown for the first time: its HTLC may have expired."""
    adding = due_sample(plain(), of_lsp=True)
    assert isinstance(adding.link.state.unacked[-1], UpdateAdd)
    assert signed(adding, STALE) == []
    assert signed(showing_a_preimage(of_lsp=False), STALE) == []
    passing_back = showing_a_preimage(of_lsp=True)
    assert len(signed(passing_back, STALE)) == 1


# What is said once it is signed


def made(samples: Samples, *, of_lsp: bool) -> Sample:
    return samples.first("on_commitment_made", of_lsp=of_lsp)


@KINDS
@SIDES
def test_a_signature_is_said_after_what_it_covers_and_answered_in_time(
    samples: Callable[[], Samples], *, of_lsp: bool
) -> None:
    sample = made(samples(), of_lsp=of_lsp)
    event = replace(sample.met, asked=replace(sample.met.asked, after=(LAST,)))
    turn = sample.turn()
    on_commitment_made(turn, event)
    told = [one.message for one in wished(turn, fx.Send)]
    *before, signature, after = told
    assert tuple(before) == event.asked.before
    assert after == LAST
    first, *others = event.parts
    assert isinstance(signature, m.CommitmentSigned)
    assert (signature.pubnonce, signature.partial_sig) == (first.pubnonce, first.partial_sig)
    assert signature.htlc_signatures == first.htlc_signatures
    following = sample.link.next
    assert [one.funding_txid for one in signature.further] == (
        [] if following is None else [following.funding.outpoint.txid]
    )
    assert [one.partial_sig for one in signature.further] == [one.partial_sig for one in others]
    (deadline,) = wished(turn, fx.SetDeadline)
    assert deadline.deadline == fx.RevocationDeadline(channel_id=sample.channel_id)
    assert deadline.seconds == REVOCATION_SECONDS
    for other in (sample.away(), sample.with_link(failure="over")):
        turn = other.turn()
        on_commitment_made(turn, event)
        assert turn.decision.is_nothing, "it goes again in the next connection"


# What the peer signed


@KINDS
@SIDES
def test_what_the_peer_signed_is_finished_on_every_funding_at_once(
    samples: Callable[[], Samples], *, of_lsp: bool
) -> None:
    sample = samples().first("on_commitment_signed", of_lsp=of_lsp)
    (asked,) = finishing(sample)
    n_fundings = 2 if samples is dual else 1
    assert len(asked.parts) == asked.n_nonces == n_fundings
    assert asked.after == sample.link.pool_id
    assert asked.message == sample.met
    for one in (sample.away(), sample.with_link(pool_id=None)):
        assert finishing(one) == []


@SIDES
def test_no_revocation_is_given_that_no_mark_would_cover(*, of_lsp: bool) -> None:
    """The connection is ours to end, and in a later one the signature comes again."""
    sample = plain().first("on_commitment_signed", of_lsp=of_lsp)
    turn = sample.turn(UNMARKABLE)
    on_commitment_signed(turn, sample.link, sample.met)
    assert not wished(turn, fx.FinishCommitment)
    (gone,) = wished(turn, fx.Disconnect)
    assert (gone.node_id, gone.reason, gone.is_ours) == (sample.link.node_id, UNMARKED, True)


def further(sample: Sample, **about: Any) -> tuple[m.FurtherPart, ...]:
    return tuple(replace(one, **about) for one in sample.met.further)


@pytest.mark.parametrize(
    ("samples", "change", "field"),
    [
        (plain, lambda _: {"partial_sig": GROUP_ORDER}, "partial_signature_with_nonce"),
        (plain, lambda _: {"pubnonce": bytes(66)}, "pubnonce"),
        (plain, lambda _: {"further": dual_parts()}, "further"),
        (dual, lambda _: {"further": ()}, "further"),
        (dual, lambda one: {"further": one.met.further * 2}, "further"),
        (dual, lambda one: {"further": further(one, funding_txid=bytes(32))}, "further"),
        (dual, lambda one: {"further": further(one, pubnonce=bytes(66))}, "pubnonce"),
        (
            dual,
            lambda one: {"further": further(one, partial_sig=GROUP_ORDER)},
            "partial_signature_with_nonce",
        ),
    ],
)
@SIDES
def test_a_part_that_is_malformed_missing_or_too_many_breaks_the_rules(
    samples: Callable[[], Samples], change: Callable[[Sample], Any], field: str, *, of_lsp: bool
) -> None:
    sample = samples().first("on_commitment_signed", of_lsp=of_lsp)
    with pytest.raises(PeerViolation, match=f"^{field}: "):
        finishing(sample._replace(met=replace(sample.met, **change(sample))))


def dual_parts() -> tuple[m.FurtherPart, ...]:
    found: tuple[m.FurtherPart, ...] = dual().first("on_commitment_signed", of_lsp=True).met.further
    return found


@SIDES
def test_who_is_quiet_for_an_advance_is_told_no_update(*, of_lsp: bool) -> None:
    sample = still(dual().first("on_commitment_signed", of_lsp=of_lsp))
    with pytest.raises(PeerViolation, match="commitment_signed: expected none"):
        finishing(sample)


@SIDES
def test_who_gave_no_nonce_for_a_commitment_on_the_next_funding_is_sent_none(
    *, of_lsp: bool
) -> None:
    sample = dual().first("on_commitment_signed", of_lsp=of_lsp)
    following = sample.link.next
    assert following is not None
    without = changed(following, own_nonces=type(following.own_nonces)())
    with pytest.raises(PeerViolation, match="commitment_signed: expected our nonce first"):
        finishing(sample.with_link(next=without))


# The rebase


def onto_the_next_alone(*, of_lsp: bool) -> Sample:
    """Return a side whose peer signs, for the first time, for the next funding alone."""
    return next(
        one
        for one in rebasing().taken["on_commitment_signed"]
        if one.is_lsps is of_lsp
        and next_own_content(one.link.state).is_rebased
        and not one.link.state.content(one.link.me, Edition.SIGNED).is_rebased
    )


@SIDES
def test_the_last_claim_on_the_old_funding_is_given_away_with_a_fresh_chain_alone(
    *, of_lsp: bool
) -> None:
    sample = onto_the_next_alone(of_lsp=of_lsp)
    (asked,) = finishing(sample)
    following = sample.link.next
    assert following is not None
    assert [part.commitment.funding for part in asked.parts] == [following.funding]
    assert asked.n_nonces == (1 if of_lsp else 2), "whoever revokes last is over with it"
    turn = sample.turn(STALE)
    on_commitment_signed(turn, sample.link, sample.met)
    assert not wished(turn, fx.FinishCommitment)
    (gone,) = wished(turn, fx.Disconnect)
    assert (gone.node_id, gone.is_ours) == (sample.link.node_id, True)
    confirmed = sample.state.chain.confirmed.set(sample.link.present.outpoint.txid, 1)
    chain = changed(sample.state.chain, confirmed=confirmed)
    with pytest.raises(PeerViolation, match="update_rebase: expected none any more"):
        finishing(sample._replace(state=changed(sample.state, chain=chain)))


@SIDES
def test_what_gives_no_claim_away_goes_on_while_the_chain_is_stale(*, of_lsp: bool) -> None:
    ordinary = dual().first("on_commitment_signed", of_lsp=of_lsp)
    assert len(finishing(ordinary, STALE)) == 1
    sample = onto_the_next_alone(of_lsp=of_lsp)
    rebase = sample.link.state.rebase
    assert rebase is not None
    stage = HtlcStage.ADD_COUNTERSIGNED if of_lsp else HtlcStage.ADD_SIGNED
    state = sample.link.state
    update = LiveHtlc(
        htlc=Htlc(
            offered_by=state.peer,
            htlc_id=state.next_id(state.peer),
            amount_msat=10_000,
            payment_hash=bytes(32),
            cltv_expiry=1_000,
        )
    )
    state = changed(state, rebase=replace(rebase, stage=stage), htlcs=(update,))
    given_away = sample.with_link(state=state)
    assert state.content(state.me, Edition.SIGNED).is_rebased
    assert len(finishing(given_away, STALE)) == 1


def test_a_nonce_for_the_next_funding_is_made_once_both_sign_for_it() -> None:
    sample = plain().first("on_commitment_signed", of_lsp=True)
    following = dual().first("on_commitment_signed", of_lsp=True).link.next
    assert following is not None
    agreed = sample.with_link(next=changed(following, is_dual=False, is_agreed=False))
    (asked,) = finishing(agreed)
    assert asked.n_nonces == 1


# What is revoked


@KINDS
@SIDES
def test_a_finished_commitment_is_remembered_with_what_it_revokes_before_that_is_said(
    samples: Callable[[], Samples], *, of_lsp: bool
) -> None:
    sample = samples().first("on_half_made", of_lsp=of_lsp)
    turn = sample.turn()
    on_half_made(turn, sample.met)
    (finished,) = remembered(turn, cr.CommitmentFinished)
    event = sample.met
    assert (finished.secret, finished.next_point) == (event.secret, event.next_point)
    assert finished.pubnonce == event.pool.pubnonces[0]
    assert finished.next_pubnonce == b"".join(event.pool.pubnonces[1:])
    assert bool(finished.next_signature) == bool(finished.next_pubnonce) == (samples is dual)
    (dropped,) = wished(turn, fx.DropPools)
    kept = turn.link(sample.channel_id).pool_ids
    assert dropped.pool_ids == tuple(one for one in sample.link.pool_ids if one not in kept)
    assert sample.link.pool_id in dropped.pool_ids
    (revoked,) = said(turn, m.RevokeAndAck)
    assert revoked.per_commitment_secret == event.secret
    assert revoked.next_pubnonce == event.pool.pubnonces[0]
    assert [one.pubnonce for one in revoked.further] == [*event.pool.pubnonces[1:]]
    link = turn.link(sample.channel_id)
    assert revocation(link) == revoked, "and the same again, if it was lost"
    if samples is plain:
        assert link.finished.signature == finished.signature
        return
    assert link.next is not None
    on_next = link.finished_on(link.next.funding)
    assert on_next is not None
    assert on_next.signature == finished.next_signature
    assert on_next.htlc_signatures == finished.next_htlc_signatures
    assert [one.funding_txid for one in revoked.further] == [link.next.funding.outpoint.txid]
    undecided = changed(link, next=changed(link.next, is_dual=False))
    assert revocation(undecided).further == (), "the peer would know of no such funding"
    without = changed(link, next=changed(link.next, own_nonces=type(link.next.own_nonces)()))
    assert revocation(without).further == ()


def test_next_htlc_signatures_are_of_the_htlcs_there() -> None:
    samples = [
        one
        for one in dual().taken["on_half_made"]
        if one.met.asked.message.htlc_signatures and one.link.next is not None
    ]
    assert samples
    for sample in samples:
        turn = sample.turn()
        on_half_made(turn, sample.met)
        (finished,) = remembered(turn, cr.CommitmentFinished)
        message = sample.met.asked.message
        assert finished.htlc_signatures == message.htlc_signatures
        assert finished.next_htlc_signatures == message.further[0].htlc_signatures


@SIDES
def test_halves_that_come_too_late_or_do_not_fit_leave_no_nonce_behind(*, of_lsp: bool) -> None:
    sample = plain().first("on_half_made", of_lsp=of_lsp)
    new = (sample.met.pool.pool_id,)
    for late in (sample.away(), sample.with_link(failure="over")):
        turn = late.turn()
        on_half_made(turn, sample.met)
        assert not turn.decision.records
        assert turn.decision.effects == (fx.DropPools(pool_ids=new),)
    other = bytes(31) + b"\x01"
    asked = replace(sample.met.asked, message=replace(sample.met.asked.message, partial_sig=other))
    turn = sample.turn()
    on_half_made(turn, replace(sample.met, asked=asked))
    (failed,) = turn.decision.records
    assert isinstance(failed, cr.ChannelFailed)
    assert "partial_signature_with_nonce: expected a signature" in failed.reason
    assert not said(turn, m.RevokeAndAck)
    dropped = [one.pool_ids for one in wished(turn, fx.DropPools)]
    assert dropped == [new, sample.link.pool_ids]


def test_nothing_is_revoked_before_there_is_anything_to_revoke() -> None:
    link = changed(plain().first("on_half_made", of_lsp=True).link, last_secret=None)
    with pytest.raises(AssertionError, match="nothing was revoked"):
        revocation(link)


# The peer's revocation


@KINDS
@SIDES
def test_a_revocation_ends_the_wait_for_it(samples: Callable[[], Samples], *, of_lsp: bool) -> None:
    sample = samples().first("on_revoke_and_ack", of_lsp=of_lsp)
    turn = sample.turn()
    on_revoke_and_ack(turn, sample.link, sample.met)
    assert len(remembered(turn, cr.RevocationReceived)) == 1
    deadline = fx.RevocationDeadline(channel_id=sample.channel_id)
    assert [one.deadline for one in wished(turn, fx.ClearDeadline)] == [deadline]
    turn = sample.away().turn()
    on_revoke_and_ack(turn, sample.away().link, sample.met)
    assert turn.decision.is_nothing


@pytest.mark.parametrize(
    ("samples", "change", "field"),
    [
        (plain, lambda _: {"next_pubnonce": bytes(66)}, "next_pubnonce"),
        (plain, lambda _: {"further": dual_nonces()}, "further"),
        (dual, lambda _: {"further": ()}, "further"),
        (dual, lambda one: {"further": one.met.further * 2}, "further"),
        (dual, lambda one: {"further": bad_nonces(one.met.further)}, r"further\.pubnonce"),
    ],
)
@SIDES
def test_a_revocation_without_a_nonce_for_what_comes_next_breaks_the_rules(
    samples: Callable[[], Samples], change: Callable[[Sample], Any], field: str, *, of_lsp: bool
) -> None:
    sample = samples().first("on_revoke_and_ack", of_lsp=of_lsp)
    assert is_pubnonce(sample.met.next_pubnonce)
    turn = sample.turn()
    with pytest.raises(PeerViolation, match=f"^{field}: "):
        on_revoke_and_ack(turn, sample.link, replace(sample.met, **change(sample)))
    assert turn.decision.is_nothing


@SIDES
def test_a_revocation_of_nothing_breaks_the_rules(*, of_lsp: bool) -> None:
    sample = plain().first("on_revoke_and_ack", of_lsp=of_lsp)
    turn = sample.turn()
    on_revoke_and_ack(turn, sample.link, sample.met)
    link = turn.link(sample.channel_id)
    assert link.peer_unrevoked is None
    with pytest.raises(PeerViolation, match="expected a signature first"):
        on_revoke_and_ack(turn, link, sample.met)


def bad_nonces(nonces: tuple[m.FurtherNonce, ...]) -> tuple[m.FurtherNonce, ...]:
    return tuple(replace(one, pubnonce=bytes(66)) for one in nonces)


def dual_nonces() -> tuple[m.FurtherNonce, ...]:
    found: tuple[m.FurtherNonce, ...] = dual().first("on_revoke_and_ack", of_lsp=True).met.further
    return found


@SIDES
def test_who_does_not_revoke_in_time_is_hung_up_on(*, of_lsp: bool) -> None:
    sample = plain().first("on_revoke_and_ack", of_lsp=of_lsp)
    deadline = fx.RevocationDeadline(channel_id=sample.channel_id)

    def hung_up(one: Sample, asked: fx.RevocationDeadline = deadline) -> list[fx.Disconnect]:
        turn = one.turn()
        on_revocation_deadline(turn, asked)
        assert not turn.decision.records
        return wished(turn, fx.Disconnect)

    turn = sample.turn()
    on_revocation_deadline(turn, deadline)
    assert wished(turn, fx.SetDeadline) == [set_revocation_deadline(sample.link)], "it may be back"
    (gone,) = hung_up(sample)
    assert gone.node_id == sample.link.node_id
    assert not gone.is_ours, "it was the peer's to answer"
    after: Turn[Any] = sample.turn()
    on_revoke_and_ack(after, sample.link, sample.met)
    for one in (
        sample.away(),
        sample.with_link(failure="over"),
        sample._replace(state=after.state),
    ):
        assert hung_up(one) == []
    assert hung_up(sample, fx.RevocationDeadline(channel_id=bytes(32))) == []


@SIDES
def test_what_never_left_is_taken_back_from_who_does_not_come_back(*, of_lsp: bool) -> None:
    sample = plain().first("on_revoke_and_ack", of_lsp=of_lsp)
    after = sample.link.state
    for _ in range(2):
        after, _ = propose_add(after, amount_msat=1000, payment_hash=bytes(32), cltv_expiry=500)
    waiting = sample.with_link(state=after)
    first, second = waiting.link.unsent
    deadline = fx.RevocationDeadline(channel_id=sample.channel_id)

    def taken_back(one: Sample) -> list[cr.AddsTakenBack]:
        turn = one.turn()
        on_revocation_deadline(turn, deadline)
        found = remembered(turn, cr.AddsTakenBack)
        assert not (found and wished(turn, fx.SetDeadline))
        return found

    (taken,) = taken_back(waiting.away())
    assert (taken.channel_id, taken.htlc_id) == (sample.channel_id, first.htlc.htlc_id)
    assert taken.waits_again
    assert second.htlc.htlc_id == first.htlc.htlc_id + 1, "what follows goes with it"
    assert taken_back(waiting) == [], "it is hung up on first"
    assert taken_back(waiting.with_link(failure="over").away()) == [], "that is the channel's end"
