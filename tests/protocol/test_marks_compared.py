"""What a channel of a restored store says, hears and agrees to, one word at a time."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.decisions import remembered, said, wished
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.samples import Sample

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.errors import PeerViolation
from cromford.channel.secret_store import N_COMMITMENTS_MAX
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc, Removal
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.crypto.keys import sha256
from cromford.crypto.signature_proof import prove
from cromford.protocol.channels import marks
from cromford.protocol.channels.marks import (
    HTLCS_PENDING,
    NOTHING_TO_SHOW,
    PEER_MARKED,
    agreed_msat,
    begin,
    hash_of,
    is_marked,
    least_close_msat,
    revealed,
    take_message,
)
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.turn import Turn
from cromford.told import msat
from cromford.wire import messages as m
from cromford.wire.messages import encode_message

SIDES: Final = pytest.mark.parametrize("of_lsp", [True, False])
FIRST_MSAT: Final = 30_000_000
STEP_MSAT: Final = 1_000_000
OTHER_HASH: Final = b"\x07" * 32


class Past:
    """Both sides of one channel after each of three payments to the client."""

    def __init__(self) -> None:
        pump = live_factory(1)
        (client,) = pump.clients
        self.taken: list[dict[bool, Sample]] = []
        for amount_msat in (FIRST_MSAT, STEP_MSAT, STEP_MSAT):
            assert pay(pump, pump.lsp, client, amount_msat).status == "paid"
            link = newest_link(client)
            self.taken.append(
                {
                    False: Sample(client.state, link, link.channel_id),
                    True: Sample(pump.factory, lsp_link(pump, link), link.channel_id),
                }
            )


@cache
def past() -> Past:
    return Past()


def at(moment: int, *, of_lsp: bool, **mark: Any) -> Sample:
    """Return a side as its store was after a payment, restored and not connected."""
    sample = past().taken[moment][of_lsp].away()
    return sample.with_link(mark=StoreMark(**mark), pool_id=None)


def whole(moment: int = -1, *, of_lsp: bool) -> Sample:
    """Return a side whose store lost nothing."""
    return past().taken[moment][of_lsp]


def told_by(moment: int, *, of_lsp: bool, **changes: Any) -> m.MarkRevealed:
    """Return what a side reveals, or a liar that proves what it changed."""
    told = revealed(at(moment, of_lsp=of_lsp).link)
    assert told is not None
    if not changes:
        return told
    blank = replace(told, proof=bytes(64), **changes)
    return replace(
        blank, proof=prove(whole(moment, of_lsp=of_lsp).link.signature, encode_message(blank))
    )


def own_msat(moment: int, *, of_lsp: bool) -> int:
    link = whole(moment, of_lsp=of_lsp).link
    clients = FIRST_MSAT + STEP_MSAT * (moment % 3)
    return link.present.capacity_sat * MSAT_PER_SAT - clients if of_lsp else clients


# Comparing


@SIDES
@pytest.mark.parametrize("ours", [0, 1, 2])
@pytest.mark.parametrize("theirs", [0, 1, 2])
def test_the_balance_of_the_later_store_counts(ours: int, theirs: int, *, of_lsp: bool) -> None:
    told = told_by(theirs, of_lsp=not of_lsp)
    found = agreed_msat(at(ours, of_lsp=of_lsp).link, told)
    assert found == own_msat(max(ours, theirs), of_lsp=of_lsp)


@SIDES
def test_a_store_that_lost_the_last_signature_it_gave_is_the_earlier_one(*, of_lsp: bool) -> None:
    link = at(1, of_lsp=of_lsp).link
    told = told_by(2, of_lsp=not of_lsp, peer_number=link.state.own_signed)
    assert told.commitment_number > link.state.peer_signed
    assert agreed_msat(link, told) == own_msat(2, of_lsp=of_lsp)


LIES: Final[list[tuple[dict[str, Any], str]]] = [
    ({"opener_msat": 0}, "opener_msat"),
    ({"commitment_number": N_COMMITMENTS_MAX}, "commitment_number"),
    ({"per_commitment_point": bytes(33)}, "per_commitment_point"),
    ({"commitment_number": 99}, "proof"),
    ({"nonce": bytes(32)}, "proof"),
    ({"proof": bytes(64)}, "proof"),
]


@SIDES
@pytest.mark.parametrize(("changes", "field"), LIES)
def test_what_is_not_proved_is_refused_by_name(
    changes: dict[str, Any], field: str, *, of_lsp: bool
) -> None:
    told = replace(told_by(2, of_lsp=not of_lsp), **changes)
    with pytest.raises(PeerViolation, match=f"^{field}: "):
        agreed_msat(at(2, of_lsp=of_lsp).link, told)


@SIDES
def test_what_does_not_add_up_to_the_channel_is_told_with_what_would(*, of_lsp: bool) -> None:
    told = replace(told_by(2, of_lsp=not of_lsp), opener_msat=1)
    expected = msat(own_msat(2, of_lsp=True))
    with pytest.raises(PeerViolation, match=f"opener_msat: expected {expected}, received 1 msat"):
        agreed_msat(at(2, of_lsp=of_lsp).link, told)


@SIDES
def test_a_balance_that_cannot_pay_its_fee_is_refused_by_name(*, of_lsp: bool) -> None:
    link = at(2, of_lsp=of_lsp).link
    total_msat = link.present.capacity_sat * MSAT_PER_SAT
    poor: dict[str, Any] = {"opener_msat": 1_000, "accepter_msat": total_msat - 1_000}
    with pytest.raises(PeerViolation, match=r"^opener_msat: expected fee and anchor"):
        agreed_msat(link, replace(told_by(2, of_lsp=not of_lsp), **poor))


@SIDES
def test_of_fundings_that_hold_the_same_either_may_be_the_one_that_is_proved(
    *, of_lsp: bool
) -> None:
    """The stores may be on either side of an advance."""
    link = at(2, of_lsp=of_lsp).link
    other = replace(link.present, outpoint=replace(link.present.outpoint, vout=7))
    larger = replace(other, capacity_sat=other.capacity_sat + 1)
    for superseded in ((other,), (larger,), (larger, other)):
        found = agreed_msat(changed(link, superseded=superseded), told_by(2, of_lsp=not of_lsp))
        assert found == own_msat(2, of_lsp=of_lsp)
    known = changed(link, superseded=(larger,))
    told = told_by(2, of_lsp=not of_lsp)
    more = replace(told, opener_msat=told.opener_msat + MSAT_PER_SAT)
    with pytest.raises(PeerViolation, match=r"^proof: "):
        agreed_msat(known, more)


@SIDES
def test_with_an_htlc_in_our_store_nothing_is_compared(*, of_lsp: bool) -> None:
    link = pending(at(2, of_lsp=of_lsp)).link
    assert revealed(link) is None
    with pytest.raises(PeerViolation, match=r"^htlcs: expected none in either store, received 1"):
        agreed_msat(link, told_by(2, of_lsp=not of_lsp))


def pending(sample: Sample, stage: HtlcStage = HtlcStage.LOCKED_IN) -> Sample:
    """Return a side with an HTLC of the LSP's."""
    live = LiveHtlc(
        htlc=Htlc(
            offered_by=Party.OPENER,
            htlc_id=9,
            amount_msat=2_000_000,
            payment_hash=sha256(bytes(32)),
            cltv_expiry=1_000,
        ),
        stage=stage,
        removal=None if stage < HtlcStage.REMOVE_PROPOSED else Removal(preimage=bytes(32)),
    )
    return sample.with_link(state=changed(sample.link.state, htlcs=(live,)))


def test_of_one_number_there_is_one_balance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could prove another; were it proved all the same, nothing is agreed."""
    monkeypatch.setattr(marks, "_is_proved_on", lambda *_: True)
    for of_lsp in (True, False):
        told = told_by(2, of_lsp=not of_lsp)
        less = replace(told, accepter_msat=told.accepter_msat - 1, opener_msat=told.opener_msat + 1)
        for fewer in (0, 1):  # Whatever it says that we signed.
            one = replace(less, peer_number=less.peer_number - fewer)
            with pytest.raises(PeerViolation, match=r"^accepter_msat: "):
                agreed_msat(at(2, of_lsp=of_lsp).link, one)
    # The client took an HTLC: it is off our commitment, and not yet off its own.
    link = pending(at(2, of_lsp=True), HtlcStage.REMOVE_SIGNED).link
    theirs = link.state.content(Party.ACCEPTER, Edition.SIGNED)
    ours = link.finished.commitment.content
    assert not ours.htlcs
    assert ours.accepter_msat == theirs.accepter_msat + 2_000_000
    total_msat = link.present.capacity_sat * MSAT_PER_SAT
    without = replace(
        told_by(2, of_lsp=False),
        accepter_msat=theirs.accepter_msat,
        opener_msat=total_msat - theirs.accepter_msat,
    )
    with pytest.raises(PeerViolation, match=r"^accepter_msat: "):
        agreed_msat(link, without)
    lost = replace(without, peer_number=without.peer_number - 1)
    assert agreed_msat(link, lost) == ours.balance_msat(Party.OPENER), "it lost what we signed"


@SIDES
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_how_much_a_peer_signed_for_us_moves_no_balance(more: int, *, of_lsp: bool) -> None:
    number = told_by(2, of_lsp=not of_lsp).peer_number + more
    told = told_by(2, of_lsp=not of_lsp, peer_number=number)
    assert agreed_msat(at(2, of_lsp=of_lsp).link, told) == own_msat(2, of_lsp=of_lsp)


@SIDES
def test_a_store_that_is_the_later_one_by_half_is_none(*, of_lsp: bool) -> None:
    link = at(2, of_lsp=of_lsp).link
    ahead = changed(link, state=changed(link.state, peer_signed=link.state.peer_signed + 1))
    number = told_by(2, of_lsp=not of_lsp).peer_number + 1
    told = told_by(2, of_lsp=not of_lsp, peer_number=number)
    with pytest.raises(PeerViolation, match=r"^commitment_number: expected one store to be the"):
        agreed_msat(ahead, told)


# What is agreed to


@SIDES
def test_a_close_pays_what_both_stores_found_or_all_that_may_be_ours(*, of_lsp: bool) -> None:
    own = own_msat(2, of_lsp=of_lsp)
    assert least_close_msat(at(2, of_lsp=of_lsp).link) == own
    assert least_close_msat(whole(of_lsp=of_lsp).link) == own
    assert least_close_msat(at(2, of_lsp=of_lsp, agreed_msat=5).link) == 5
    assert least_close_msat(at(2, of_lsp=of_lsp, agreed_msat=0).link) == 0
    taken = pending(at(2, of_lsp=of_lsp), HtlcStage.REMOVE_PROPOSED).link
    sign = -1 if of_lsp else 1
    assert least_close_msat(taken) == own + sign * 2_000_000
    assert is_marked(taken)
    assert not is_marked(whole(of_lsp=of_lsp).link)


# What is said


def begun(sample: Sample) -> Turn[Any]:
    turn = sample.turn()
    begin(turn, sample.link)
    return turn


def heard(sample: Sample, *messages: m.ChannelMessage | m.MarkMessage) -> Turn[Any]:
    turn = sample.turn()
    for message in messages:
        take_message(turn, turn.link(sample.channel_id), message)
    return turn


def marked(revealed_hash: bytes) -> m.StoreMarked:
    return m.StoreMarked(channel_id=whole(of_lsp=True).channel_id, revealed_hash=revealed_hash)


@SIDES
def test_a_whole_store_begins_with_a_nonce_a_marked_lsp_with_its_mark(*, of_lsp: bool) -> None:
    fresh = whole(of_lsp=of_lsp).away().with_link(pool_id=None)
    assert len(wished(begun(fresh), fx.PrepareNonce)) == 1
    turn = begun(at(2, of_lsp=of_lsp))
    assert not wished(turn, fx.PrepareNonce)
    expected = [marked(hash_of(told_by(2, of_lsp=True)))] if of_lsp else []
    assert said(turn, m.StoreMarked) == expected, "a marked client hears its LSP first"
    waits = begun(pending(at(2, of_lsp=of_lsp)))
    assert said(waits, m.StoreMarked) == ([marked(NOTHING_TO_SHOW)] if of_lsp else [])


def reestablish(sample: Sample) -> m.ChannelReestablish:
    """Return what a whole peer of a side says of where the channel stands."""
    state = sample.link.state
    return m.ChannelReestablish(
        channel_id=sample.channel_id,
        next_commitment_number=state.peer_signed + 1,
        next_revocation_number=state.own_revoked,
        your_last_per_commitment_secret=sample.link.last_secret or bytes(32),
        next_pubnonce=b"\x02" + bytes(31) + b"\x01" + b"\x02" + bytes(31) + b"\x01",
        advance=(),
    )


@SIDES
def test_a_marked_side_hears_where_its_peer_stands_and_takes_no_update(*, of_lsp: bool) -> None:
    sample = at(2, of_lsp=of_lsp)
    turn = heard(sample, reestablish(sample))
    assert not remembered(turn, cr.ChannelReestablished)
    assert len(wished(turn, fx.RecallPoint)) == 1
    assert len(said(turn, m.StoreMarked)) == (not of_lsp)
    assert not said(turn, m.ChannelReestablish)
    over = heard(sample, m.ChannelFailure(channel_id=sample.channel_id, reason="enough"))
    (failed,) = remembered(over, cr.ChannelFailed)
    assert failed.reason == "the peer: enough"
    assert not wished(over, fx.Send), "it knows"
    for message in (
        m.RevokeAndAck(
            channel_id=sample.channel_id,
            per_commitment_secret=bytes(32),
            next_per_commitment_point=bytes(33),
            next_pubnonce=bytes(66),
            further=(),
        ),
    ):
        assert heard(sample, message).decision.is_nothing


@SIDES
def test_a_whole_side_ends_the_updates_with_a_marked_peer_and_says_so_again(
    *, of_lsp: bool
) -> None:
    sample = whole(of_lsp=of_lsp)
    turn = heard(sample, marked(OTHER_HASH))
    (noted,) = remembered(turn, cr.PeerMarked)
    assert noted.peer_hash == OTHER_HASH
    (failed,) = remembered(turn, cr.ChannelFailed)
    assert failed.reason == PEER_MARKED
    assert [one.reason for one in said(turn, m.ChannelFailure)] == [PEER_MARKED]
    again = heard(sample._replace(state=turn.state), marked(OTHER_HASH))
    assert not again.decision.records
    assert [one.reason for one in said(again, m.ChannelFailure)] == [PEER_MARKED]


@SIDES
def test_two_marked_sides_bind_themselves_and_then_the_lsp_shows_first(*, of_lsp: bool) -> None:
    sample = at(2, of_lsp=of_lsp)
    theirs = told_by(1, of_lsp=not of_lsp)
    turn = heard(sample, marked(hash_of(theirs)))
    (noted,) = remembered(turn, cr.PeerMarked)
    assert noted.peer_hash == hash_of(theirs)
    assert not remembered(turn, cr.ChannelFailed)
    own = told_by(2, of_lsp=of_lsp)
    assert said(turn, m.MarkRevealed) == ([own] if of_lsp else [])
    assert said(turn, m.StoreMarked) == ([] if of_lsp else [marked(hash_of(own))])
    bound = sample._replace(state=turn.state)
    # Once for ever: the same again says nothing new, another is a lie.
    again = heard(bound, marked(hash_of(theirs)))
    assert not again.decision.records
    assert len(wished(again, fx.Send)) == 1
    other = heard(bound, marked(OTHER_HASH))
    assert not remembered(other, cr.PeerMarked)
    (failed,) = remembered(other, cr.ChannelFailed)
    assert failed.reason.startswith("revealed_hash: expected")
    # What it shows then is compared once, and the client shows its own.
    compared = heard(bound, theirs)
    (found,) = remembered(compared, cr.MarksCompared)
    assert found.own_msat == own_msat(2, of_lsp=of_lsp)
    assert said(compared, m.MarkRevealed) == ([] if of_lsp else [own])
    once = heard(bound._replace(state=compared.state), theirs)
    assert not once.decision.records
    assert said(once, m.MarkRevealed) == ([] if of_lsp else [own])
    lie = heard(bound, told_by(0, of_lsp=not of_lsp))
    assert not remembered(lie, cr.MarksCompared)
    (failed,) = remembered(lie, cr.ChannelFailed)
    assert failed.reason.startswith("revealed_hash: expected")


@SIDES
def test_what_is_revealed_to_one_that_did_not_ask_for_it_means_nothing(*, of_lsp: bool) -> None:
    theirs = told_by(1, of_lsp=not of_lsp)
    assert heard(whole(of_lsp=of_lsp), theirs).decision.is_nothing
    assert heard(at(2, of_lsp=of_lsp), theirs).decision.is_nothing, "it never bound itself"


@SIDES
def test_with_an_htlc_in_either_store_both_say_that_nothing_can_be_compared(
    *, of_lsp: bool
) -> None:
    cases: list[tuple[Sample, bytes]] = [
        (at(2, of_lsp=of_lsp), NOTHING_TO_SHOW),
        (pending(at(2, of_lsp=of_lsp)), OTHER_HASH),
    ]
    for sample, revealed_hash in cases:
        turn = heard(sample, marked(revealed_hash))
        assert len(remembered(turn, cr.PeerMarked)) == 1
        (failed,) = remembered(turn, cr.ChannelFailed)
        assert failed.reason == HTLCS_PENDING
        assert not said(turn, m.MarkRevealed)


@SIDES
def test_a_peer_that_lost_state_and_is_marked_later_binds_itself_then(*, of_lsp: bool) -> None:
    sample = at(2, of_lsp=of_lsp).with_link(peer_is_behind=True)
    turn = heard(sample, marked(OTHER_HASH))
    assert [one.peer_hash for one in remembered(turn, cr.PeerMarked)] == [OTHER_HASH]
