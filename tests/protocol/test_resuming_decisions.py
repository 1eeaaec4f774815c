"""What a side tells, hears and sends again in a new connection (BOLT 2), one word at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.decisions import STALE, UNMARKABLE, remembered, said, wished
from tests.protocol.samples import (
    Sample,
    dual_again,
    first_connection,
    plain_again,
)
from tests.protocol.test_next_stages import lacking

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.errors import PeerViolation
from cromford.channel.secret_store import N_COMMITMENTS_MAX
from cromford.channel.stage import HtlcStage, LiveRebase
from cromford.crypto.keys import pubkey_of
from cromford.protocol.channels.resuming import (
    LOST_STATE,
    NONCE_RETRY_SECONDS,
    PEER_LOST_STATE,
    VOID,
    heed_lost_state,
    on_nonce_deadline,
    on_nonce_lacking,
    on_nonce_prepared,
    on_point_recalled,
    on_reestablish,
    prepare,
    recall_point,
)
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.next_funding import POISONS_HELD
from cromford.protocol.turn import Turn
from cromford.signing.nonces import PublicPool
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

SIDES: Final = pytest.mark.parametrize("of_lsp", [True, False])
LOST: Final = pytest.mark.parametrize("lost", [m.CommitmentSigned, m.RevokeAndAck])
KINDS: Final = pytest.mark.parametrize("again", [plain_again, dual_again])
Again = Any  # What was met after such a message was lost.
SECRET: Final = b"\x05" * 32


def prepared(sample: Sample, **about: Any) -> Turn[Any]:
    turn = sample.turn()
    on_nonce_prepared(turn, replace(sample.met, **about))
    return turn


def told(sample: Sample, facts: Any = None, **about: Any) -> Turn[Any]:
    turn = sample.turn() if facts is None else sample.turn(facts)
    on_reestablish(turn, turn.link(sample.channel_id), replace(sample.met, **about))
    return turn


def recalled(sample: Sample, *, point: bytes | None = None, **about: Any) -> Turn[Any]:
    """Let a side take up its channel once it knows the point of the secret that it was shown."""
    turn, event = sample.turn(), sample.met
    message = replace(event.asked.message, **about)
    asked = replace(event.asked, message=message)
    on_point_recalled(turn, replace(event, asked=asked, point=point or event.point))
    return turn


# A nonce


@KINDS
@SIDES
def test_a_side_tells_where_the_channel_stands_once_its_nonces_are_there(
    again: Again, *, of_lsp: bool
) -> None:
    sample = again(m.CommitmentSigned).first("on_nonce_prepared", of_lsp=of_lsp)
    turn, pool = prepared(sample), sample.met.pool
    (record,) = remembered(turn, cr.ChannelPrepared)
    assert (record.pool_id, record.pubnonce) == (pool.pool_id, pool.pubnonces[0])
    assert record.next_pubnonces == pool.pubnonces[1:]
    assert len(pool.pubnonces) == 1 + len(sample.link.next_numbers)
    (message,) = said(turn, m.ChannelReestablish)
    state = sample.link.state
    assert message.next_commitment_number == state.own_signed + 1
    assert message.next_revocation_number == state.peer_revoked
    assert message.next_pubnonce == pool.pubnonces[0]
    assert len(message.advance) == (again is dual_again)
    if message.advance:
        assert [one.pubnonce for one in message.advance[0].nonces] == [*pool.pubnonces[1:]]


@KINDS
@SIDES
def test_nonces_that_are_too_few_or_too_many_by_now_are_asked_for_anew(
    again: Again, *, of_lsp: bool
) -> None:
    """What is under way became another while the signer was asked."""
    sample = again(m.CommitmentSigned).first("on_nonce_prepared", of_lsp=of_lsp)
    pool = sample.met.pool
    for pubnonces in ((*pool.pubnonces, pool.pubnonces[0]), pool.pubnonces[:-1]):
        turn = prepared(sample, pool=PublicPool(pubkey=pool.pubkey, pubnonces=pubnonces))
        assert not turn.decision.records
        (dropped,) = wished(turn, fx.DropPools)
        (asked,) = wished(turn, fx.PrepareNonce)
        assert len(dropped.pool_ids) == 1
        assert (asked.channel_id, asked.key) == (sample.channel_id, sample.link.key)
        assert asked.n_next == len(sample.link.next_numbers)
        assert not wished(turn, fx.Send)


def test_one_nonce_is_asked_for_in_a_connection() -> None:
    sample = plain_again(m.CommitmentSigned).first("on_nonce_prepared", of_lsp=True)
    turn = sample.turn()
    prepare(turn, sample.link)
    assert len(wished(turn, fx.PrepareNonce)) == 1
    turn = prepared(sample)
    prepare(turn, turn.link(sample.channel_id))
    assert not wished(turn, fx.PrepareNonce)


@SIDES
def test_what_the_peer_said_before_there_was_a_nonce_is_heard_then(*, of_lsp: bool) -> None:
    samples = plain_again(m.CommitmentSigned)
    sample = samples.first("on_nonce_prepared", of_lsp=of_lsp)
    early = samples.first("on_reestablish", of_lsp=of_lsp).met
    waiting = sample.with_link(awaits_nonce=True, early_reestablish=encode_message(early))
    turn = prepared(waiting)
    assert len(said(turn, m.ChannelReestablish)) == 1
    (asked,) = wished(turn, fx.RecallPoint)
    assert asked.message == early
    assert not wished(prepared(sample.with_link(awaits_nonce=True)), fx.RecallPoint)
    over = prepared(waiting.with_link(failure="over"))
    assert not wished(over, fx.RecallPoint)
    lie = encode_message(replace(early, next_pubnonce=bytes(66)))
    (failed,) = remembered(prepared(waiting.with_link(early_reestablish=lie)), cr.ChannelFailed)
    assert failed.reason.startswith("next_pubnonce: ")


def test_a_channel_for_which_there_is_no_room_is_tried_again_in_this_connection() -> None:
    sample = plain_again(m.CommitmentSigned).first("on_nonce_prepared", of_lsp=True)
    deadline = fx.NonceDeadline(channel_id=sample.channel_id)
    turn = sample.turn()
    on_nonce_lacking(turn, sample.link)
    assert [one.reestablish for one in remembered(turn, cr.NonceAwaited)] == [b""]
    (hold,) = wished(turn, fx.SetDeadline)
    assert (hold.deadline, hold.seconds) == (deadline, NONCE_RETRY_SECONDS)
    again = sample.with_link(awaits_nonce=True).turn()
    on_nonce_lacking(again, again.link(sample.channel_id))
    assert not again.decision.records
    assert len(wished(again, fx.SetDeadline)) == 1
    for one, asked, n_asked in (
        (sample.with_link(awaits_nonce=True), deadline, 1),
        (sample, deadline, 0),
        (sample, fx.NonceDeadline(channel_id=bytes(32)), 0),
    ):
        turn = one.turn()
        on_nonce_deadline(turn, asked)
        assert len(wished(turn, fx.PrepareNonce)) == n_asked
        assert not turn.decision.records


# Where the peer believes that it stands


@KINDS
@SIDES
def test_the_secret_that_a_peer_shows_is_looked_up_before_anything_follows(
    again: Again, *, of_lsp: bool
) -> None:
    sample = again(m.CommitmentSigned).first("on_reestablish", of_lsp=of_lsp)
    turn = told(sample)
    (asked,) = turn.decision.effects
    assert isinstance(asked, fx.RecallPoint)
    assert asked.number == sample.met.next_revocation_number - 1
    assert (asked.channel_id, asked.key) == (sample.channel_id, sample.link.key)
    assert asked.message == sample.met
    assert not turn.decision.records


@SIDES
def test_with_the_first_commitment_there_is_no_secret_to_look_up(*, of_lsp: bool) -> None:
    sample = first_connection().first("on_reestablish", of_lsp=of_lsp)
    assert sample.met.next_revocation_number == 0
    (record,) = remembered(told(sample), cr.ChannelReestablished)
    assert record.own_point == b""


@SIDES
def test_a_peer_that_speaks_before_there_is_a_nonce_is_kept_in_mind_once(*, of_lsp: bool) -> None:
    sample = plain_again(m.CommitmentSigned).first("on_reestablish", of_lsp=of_lsp)
    waiting = sample.with_link(pool_id=None, awaits_nonce=True)
    turn = told(waiting)
    (record,) = turn.decision.records
    assert isinstance(record, cr.NonceAwaited)
    assert record.reestablish == encode_message(sample.met)
    assert told(sample._replace(state=turn.state)).decision.is_nothing, "the first one counts"
    assert told(sample.with_link(pool_id=None)).decision.is_nothing
    assert not told(sample).decision.records


@SIDES
def test_nothing_is_taken_up_twice_or_while_no_mark_can_be_written(*, of_lsp: bool) -> None:
    sample = plain_again(m.CommitmentSigned).first("on_reestablish", of_lsp=of_lsp)
    connected = sample.with_link(state=changed(sample.link.state, is_connected=True))
    assert told(connected).decision.is_nothing
    assert told(sample, UNMARKABLE).decision.is_nothing
    assert not told(sample, STALE).decision.is_nothing


@pytest.mark.parametrize(
    ("again", "change", "field"),
    [
        (plain_again, lambda _: {"next_pubnonce": bytes(66)}, "next_pubnonce"),
        (dual_again, lambda one: {"advance": with_bad_nonces(one.met)}, "advance.nonces"),
        (
            plain_again,
            lambda _: {"next_revocation_number": N_COMMITMENTS_MAX + 1},
            "next_revocation_number",
        ),
    ],
)
@SIDES
def test_a_word_that_cannot_be_breaks_the_rules(
    again: Again, change: Callable[[Sample], Any], field: str, *, of_lsp: bool
) -> None:
    sample = again(m.CommitmentSigned).first("on_reestablish", of_lsp=of_lsp)
    with pytest.raises(PeerViolation, match=f"^{field}: "):
        told(sample, **change(sample))


def with_bad_nonces(message: m.ChannelReestablish) -> tuple[m.AdvanceStage, ...]:
    (stage,) = message.advance
    nonces = tuple(replace(one, pubnonce=bytes(66)) for one in stage.nonces)
    return (replace(stage, nonces=nonces),)


@pytest.mark.parametrize(
    ("number", "asked"), [(0, []), (1, [0]), (N_COMMITMENTS_MAX, [N_COMMITMENTS_MAX - 1]),
                          (N_COMMITMENTS_MAX + 1, [])]
)  # fmt: skip
def test_a_secret_is_looked_up_where_there_can_be_one(number: int, asked: list[int]) -> None:
    sample = plain_again(m.CommitmentSigned).first("on_reestablish", of_lsp=True)
    turn = sample.turn()
    recall_point(turn, sample.link, replace(sample.met, next_revocation_number=number))
    assert [one.number for one in wished(turn, fx.RecallPoint)] == asked


def test_the_last_number_that_there_can_be_is_looked_up() -> None:
    sample = plain_again(m.CommitmentSigned).first("on_reestablish", of_lsp=True)
    turn = told(sample, next_revocation_number=N_COMMITMENTS_MAX)
    assert [one.number for one in wished(turn, fx.RecallPoint)] == [N_COMMITMENTS_MAX - 1]


# State that was lost


@SIDES
def test_a_peer_that_lost_state_ends_the_channel_and_may_prove_that_we_did_too(
    *, of_lsp: bool
) -> None:
    sample = plain_again(m.CommitmentSigned).first("on_reestablish", of_lsp=of_lsp)
    number = sample.met.next_revocation_number
    turn = told(sample, next_commitment_number=0)
    assert len(remembered(turn, cr.PeerLostState)) == 1
    (failed,) = remembered(turn, cr.ChannelFailed)
    assert (failed.reason, failed.is_behind) == (PEER_LOST_STATE, False)
    assert len(said(turn, m.ChannelFailure)) == 1
    assert [one.number for one in wished(turn, fx.RecallPoint)] == [number - 1]
    again = sample._replace(state=turn.state).turn()
    message = replace(sample.met, next_commitment_number=0)
    assert heed_lost_state(again, again.link(sample.channel_id), message)
    assert not again.decision.records, "it is remembered once"
    assert not heed_lost_state(again, sample.link, sample.met)


def fallen_behind(sample: Sample, *, point: bytes | None = None) -> Turn[Any]:
    """Let a peer prove that we revoked more than we know of."""
    return recalled(
        sample,
        point=point or pubkey_of(SECRET),
        next_revocation_number=sample.link.state.own_revoked + 5,
        your_last_per_commitment_secret=SECRET,
    )


@SIDES
def test_who_is_shown_that_it_lost_state_takes_no_update_any_more(*, of_lsp: bool) -> None:
    sample = plain_again(m.CommitmentSigned).first("on_point_recalled", of_lsp=of_lsp)
    turn = fallen_behind(sample)
    (failed,) = remembered(turn, cr.ChannelFailed)
    assert (failed.reason, failed.is_behind) == (LOST_STATE, True)
    assert len(said(turn, m.ChannelFailure)) == 1
    assert not remembered(turn, cr.ChannelReestablished)
    lie = fallen_behind(sample, point=pubkey_of(b"\x06" * 32))
    (failed,) = remembered(lie, cr.ChannelFailed)
    assert failed.reason.startswith("your_last_per_commitment_secret: ")
    assert not failed.is_behind


@SIDES
def test_a_channel_that_is_over_still_learns_that_it_lost_state(*, of_lsp: bool) -> None:
    """It would publish a commitment that it has revoked."""
    sample = plain_again(m.CommitmentSigned).first("on_point_recalled", of_lsp=of_lsp)
    over = sample.with_link(failure="over")
    for one in (over, over.with_link(state=changed(over.link.state, is_connected=True))):
        turn = fallen_behind(one)
        (failed,) = turn.decision.records
        assert isinstance(failed, cr.ChannelFailed)
        assert (failed.reason, failed.is_behind) == (LOST_STATE, True)
        assert not wished(turn, fx.Send), "that it is over was said"
    assert fallen_behind(over, point=pubkey_of(b"\x06" * 32)).decision.is_nothing
    assert fallen_behind(over.with_link(is_behind=True)).decision.is_nothing
    assert recalled(over).decision.is_nothing, "nothing is taken up"


# Taking it up


@KINDS
@SIDES
@LOST
def test_a_channel_is_taken_up_once_in_a_connection(
    again: Again, lost: type[m.Message], *, of_lsp: bool
) -> None:
    sample = again(lost).first("on_point_recalled", of_lsp=of_lsp)
    turn = recalled(sample)
    (record,) = remembered(turn, cr.ChannelReestablished)
    assert record.own_point == sample.met.point
    assert record.message == encode_message(sample.met.asked.message)
    assert turn.link(sample.channel_id).is_open
    connected = sample.with_link(state=changed(sample.link.state, is_connected=True))
    assert recalled(connected).decision.is_nothing
    assert recalled(sample.with_link(pool_id=None)).decision.is_nothing


def sent_again(turn: Turn[Any]) -> list[str]:
    """Return what goes again, in order; a signature with what goes before it and after it."""
    found = [type(one.message).__name__ for one in wished(turn, fx.Send)]
    for asked in wished(turn, fx.SignCommitment):
        found += [type(one).__name__ for one in asked.before]
        found += ["CommitmentSigned", *(type(one).__name__ for one in asked.after)]
    return found


@KINDS
def test_an_lsp_whose_signature_was_lost_signs_the_same_again_after_its_updates(
    again: Again,
) -> None:
    sample = again(m.CommitmentSigned).first("on_point_recalled", of_lsp=True)
    turn = recalled(sample)
    assert sent_again(turn) == ["UpdateAddHtlc", "CommitmentSigned"]
    (asked,) = wished(turn, fx.SignCommitment)
    sighashes = [part.commitment.signing_task.sighash for part in asked.parts]
    assert len(sighashes) == (2 if again is dual_again else 1)
    link = sample.link
    assert sighashes[0] == link.signed_sighash
    if link.next is not None:
        assert sighashes[1] in link.next.given.values()
    (wait,) = wished(turn, fx.SetDeadline)
    assert wait.deadline == fx.RevocationDeadline(channel_id=sample.channel_id)


@KINDS
def test_a_client_that_heard_nothing_sends_nothing_again(again: Again) -> None:
    sample = again(m.CommitmentSigned).first("on_point_recalled", of_lsp=False)
    turn = recalled(sample)
    assert sent_again(turn) == []
    assert not wished(turn, fx.SetDeadline), "it waits for nothing"


@KINDS
def test_a_client_whose_revocation_was_lost_revokes_the_same_again(again: Again) -> None:
    sample = again(m.RevokeAndAck).first("on_point_recalled", of_lsp=False)
    turn = recalled(sample)
    found = sent_again(turn)
    assert found[0] == "RevokeAndAck"
    first: list[m.Message] = [*said(turn, m.RevokeAndAck)]
    first += [one for asked in wished(turn, fx.SignCommitment) for one in asked.before]
    revoked = next(one for one in first if isinstance(one, m.RevokeAndAck))
    assert revoked.per_commitment_secret == sample.link.last_secret
    last = sample.with_link(state=changed(sample.link.state, is_revocation_last=True))
    if "CommitmentSigned" in found:
        assert sent_again(recalled(last)) == ["CommitmentSigned", "RevokeAndAck"]
    else:
        assert sent_again(recalled(last)) == ["RevokeAndAck"]


def test_what_the_lsp_lacks_on_the_next_funding_goes_before_all_that_goes_again() -> None:
    link, sample, number = lacking()
    (stage,) = sample.met.asked.message.advance
    (nonce, *_) = stage.nonces
    nonces = (replace(nonce, number=number), replace(nonce, number=number + 1))
    turn = recalled(
        sample.with_link(next=link.next),
        next_commitment_number=number + 1,
        advance=(replace(stage, nonces=nonces),),
    )
    (asked,) = wished(turn, fx.SignNext)
    assert (asked.number, asked.pubnonce) == (number, nonce.pubnonce)
    assert turn.decision.effects[0] == asked


def test_an_lsp_that_says_it_is_over_with_a_rebase_gets_nothing_signed_for_no_nonce() -> None:
    """It may be over with it; then it lacks nothing of what we signed since."""
    sample = dual_again(m.RevokeAndAck).first("on_point_recalled", of_lsp=False)
    state = sample.link.state
    rebase = LiveRebase(growth_msat=0, price_msat=0, stage=HtlcStage.ADD_COUNTERSIGNED)
    content, point = sample.link.peer_contents[-1]
    over = sample.with_link(
        state=changed(
            state,
            rebase=rebase,
            htlcs=(),
            unacked=(),
            n_signed_updates=0,
            peer_next_point=point,
        )
    )
    turn = recalled(over, advance=(), next_commitment_number=content.number)
    assert not wished(turn, fx.SignCommitment)
    (failed,) = remembered(turn, cr.ChannelFailed)
    assert failed.reason.startswith(f"nonces: expected one for commitment {content.number}")


@KINDS
def test_no_other_commitment_of_one_number_is_ever_signed(again: Again) -> None:
    sample = again(m.CommitmentSigned).first("on_point_recalled", of_lsp=True)
    link, others = sample.link, []
    others.append(sample.with_link(signed_sighash=bytes(32)))
    if link.next is not None:
        given = {number: bytes(32) for number in link.next.given}
        wrong = changed(link.next, given=type(link.next.given)(given))
        others.append(sample.with_link(next=wrong))
    for other in others:
        with pytest.raises(DoubleSigning):
            recalled(other)


# A next funding that is void


def void(sample: Sample, *, is_told: int = 1, **about: Any) -> Turn[Any]:
    """Let both sides say that the old state is six deep, or one of them not."""
    following = sample.link.next
    assert following is not None
    event = sample.met
    (stage,) = event.asked.message.advance
    one = sample.with_link(next=changed(following, **{"said_void": True, **about}))
    return recalled(one, advance=(replace(stage, is_void=is_told),))


@SIDES
def test_a_next_funding_is_void_once_both_sides_said_so(*, of_lsp: bool) -> None:
    sample = dual_again(m.RevokeAndAck).first("on_point_recalled", of_lsp=of_lsp)
    held = POISONS_HELD - 1
    turn = void(sample, stage=held)
    assert len(remembered(turn, ar.NextFundingVoid)) == 1
    assert turn.link(sample.channel_id).next is None
    for alone in (void(sample, is_told=0, stage=held), void(sample, said_void=False, stage=held)):
        assert not remembered(alone, ar.NextFundingVoid)
        assert not remembered(alone, cr.ChannelFailed)


@SIDES
def test_an_old_state_whose_poisons_were_given_away_ends_the_channel(*, of_lsp: bool) -> None:
    sample = dual_again(m.RevokeAndAck).first("on_point_recalled", of_lsp=of_lsp)
    turn = void(sample, stage=POISONS_HELD)
    (failed,) = remembered(turn, cr.ChannelFailed)
    assert failed.reason == VOID
    assert not remembered(turn, ar.NextFundingVoid)
    assert not wished(turn, fx.SignCommitment)


@SIDES
def test_a_rebase_that_has_begun_cannot_be_taken_back(*, of_lsp: bool) -> None:
    sample = dual_again(m.RevokeAndAck).first("on_point_recalled", of_lsp=of_lsp)
    rebase = LiveRebase(growth_msat=0, price_msat=0, stage=HtlcStage.ADD_SIGNED)
    begun = sample.with_link(state=changed(sample.link.state, rebase=rebase))
    turn = void(begun, stage=POISONS_HELD - 1)
    assert [one.reason for one in remembered(turn, cr.ChannelFailed)] == [VOID]
    assert not remembered(turn, ar.NextFundingVoid)


@SIDES
def test_what_only_one_side_knows_of_is_not_void(*, of_lsp: bool) -> None:
    sample = dual_again(m.RevokeAndAck).first("on_point_recalled", of_lsp=of_lsp)
    following = sample.link.next
    assert following is not None
    alone = sample.with_link(next=changed(following, is_dual=False, said_void=True, stage=1))
    turn = recalled(alone, advance=())
    assert len(remembered(turn, cr.ChannelReestablished)) == 1
    assert not remembered(turn, ar.NextFundingVoid)


@SIDES
def test_what_is_told_of_the_advance_is_checked_before_anything_is_taken_up(
    *, of_lsp: bool
) -> None:
    sample = dual_again(m.RevokeAndAck).first("on_point_recalled", of_lsp=of_lsp)
    turn = recalled(sample, advance=())
    (failed,) = turn.decision.records
    assert isinstance(failed, cr.ChannelFailed)
    assert failed.reason.startswith("advance: expected ")
