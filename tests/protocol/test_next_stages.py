"""What is said of a next funding, and what a side makes of it: stages, nonces, one sighash each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.decisions import wished
from tests.protocol.samples import Sample, dual, dual_again

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.changed import changed
from cromford.channel.errors import PeerViolation
from cromford.channel.stage import HtlcStage, LiveRebase
from cromford.protocol.channels.next_signing import (
    check_further_nonce,
    check_next_stage,
    hand_in_latest,
    is_settled,
    is_void,
    next_stage,
)
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import SIGNED, NextFunding
from cromford.wire import messages as m

SIDES: Final = pytest.mark.parametrize("of_lsp", [True, False])


def between(*, of_lsp: bool) -> Sample:
    """Return a side that takes its channel up while its funding is being replaced."""
    return dual_again(m.CommitmentSigned).first("on_point_recalled", of_lsp=of_lsp)


def following_of(sample: Sample) -> NextFunding:
    following = sample.link.next
    assert following is not None
    return following


def with_next(sample: Sample, **about: Any) -> Link:
    return changed(sample.link, next=changed(following_of(sample), **about))


def deep(txid: Txid, depth: int) -> KnownChain:
    """Return a chain in which a transaction is so deep."""
    chain = KnownChain()
    for height in range(depth):
        chain = chain.with_block(BlockRef(height=height, block_hash=Txid(bytes(32))), ())
    return changed(chain, confirmed=chain.confirmed.set(txid, 0)) if depth else chain


@SIDES
@pytest.mark.parametrize("depth", [0, SETTLED_DEPTH - 1, SETTLED_DEPTH, SETTLED_DEPTH + 1])
def test_what_is_six_deep_decides_which_funding_is_void(depth: int, *, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    following = following_of(sample)
    present, other = (one.outpoint.txid for one in (sample.link.present, following.funding))
    is_deep = depth >= SETTLED_DEPTH
    assert is_void(sample.link, deep(present, depth)) is is_deep
    assert not is_void(sample.link, deep(other, depth))
    assert not is_void(changed(sample.link, next=None), deep(present, depth))
    assert is_settled(following, deep(other, depth)) is is_deep
    assert not is_settled(following, deep(present, depth))


@SIDES
def test_from_the_first_signature_on_a_side_says_how_far_it_is(*, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    assert next_stage(changed(sample.link, next=None)) == ()
    assert next_stage(with_next(sample, stage=SIGNED - 1)) == ()
    for stage in (SIGNED, SIGNED + 1):
        (told,) = next_stage(with_next(sample, stage=stage))
        following = following_of(sample)
        assert (told.advance_id, told.stage) == (following.advance_id, stage)
        assert told.funding_txid == following.funding.outpoint.txid
        known = [(one.number, one.pubnonce) for one in told.nonces]
        own = following.own_nonces
        assert known == sorted((number, nonce.pubnonce) for number, nonce in own.items())
        assert known


# What the peer says


def check(link: Link, sample: Sample, **about: Any) -> None:
    """Let a side hear what a peer says of the advance; without `about`, what it really said."""
    message = sample.met.asked.message
    (stage,) = message.advance
    check_next_stage(link, replace(message, advance=(replace(stage, **about),)))


def check_silent(link: Link, sample: Sample) -> None:
    check_next_stage(link, replace(sample.met.asked.message, advance=()))


@SIDES
def test_what_a_peer_says_of_an_advance_fits_what_is_known_of_it(*, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    for stage in (1, 2, 3):
        check(sample.link, sample, stage=stage)
    lies: list[tuple[dict[str, Any], str]] = [
        ({"stage": 0}, "stage"),
        ({"stage": 4}, "stage"),
        ({"funding_txid": bytes(32)}, "funding_txid"),
        ({"advance_id": bytes(32)}, "advance_id"),
        ({"nonces": ()}, "nonces"),
    ]
    for about, field in lies:
        with pytest.raises(PeerViolation, match=f"^{field}: "):
            check(sample.link, sample, **about)


@SIDES
def test_a_peer_that_says_nothing_of_an_advance_that_it_signed_lies(*, of_lsp: bool) -> None:
    sample = between(of_lsp=of_lsp)
    with pytest.raises(PeerViolation, match=r"^advance: expected .* received none"):
        check_silent(sample.link, sample)
    check_silent(with_next(sample, is_dual=False), sample)
    check_silent(changed(sample.link, next=None), sample)


def rebased(link: Link, stage: HtlcStage) -> Link:
    rebase = LiveRebase(growth_msat=0, price_msat=0, stage=stage)
    return changed(link, state=changed(link.state, rebase=rebase))


@pytest.mark.parametrize(
    ("of_lsp", "stage", "is_fine"),
    [
        (False, HtlcStage.ADD_COUNTERSIGNED, True),
        (False, HtlcStage.ADD_ACKED, False),
        (True, HtlcStage.ADD_COUNTERSIGNED, False),
    ],
)
def test_only_an_lsp_whose_revocation_was_lost_may_be_over_with_it(
    *, of_lsp: bool, stage: HtlcStage, is_fine: bool
) -> None:
    """Whoever revokes last is rebased first."""
    sample = between(of_lsp=of_lsp)
    link = rebased(sample.link, stage)
    if is_fine:
        check_silent(link, sample)
        return
    with pytest.raises(PeerViolation, match=r"^advance: "):
        check_silent(link, sample)


def test_an_lsp_that_is_over_with_it_hears_of_its_present_funding_alone() -> None:
    sample = between(of_lsp=True)
    over = changed(sample.link, next=None)
    present = over.present.outpoint.txid
    check(over, sample, funding_txid=present, advance_id=bytes(32))
    with pytest.raises(PeerViolation, match=r"^nonces: "):
        check(over, sample, funding_txid=present, nonces=())
    with pytest.raises(PeerViolation, match=r"^advance_id: expected none"):
        check(over, sample)


def test_a_client_that_signed_nothing_lets_its_lsp_begin_anew() -> None:
    sample = between(of_lsp=False)
    none = changed(sample.link, next=None)
    check(none, sample)
    check(none, sample, funding_txid=none.present.outpoint.txid, nonces=())


# What comes with a revocation


def revoked(*, of_lsp: bool) -> Sample:
    return dual().first("on_revoke_and_ack", of_lsp=of_lsp)


def check_further(link: Link, sample: Sample, *txids: Txid) -> None:
    nonces = tuple(m.FurtherNonce(funding_txid=txid, pubnonce=bytes(66)) for txid in txids)
    check_further_nonce(link, replace(sample.met, further=nonces))


def refuse_further(link: Link, sample: Sample, *txids: Txid) -> None:
    with pytest.raises(PeerViolation, match=r"^further: "):
        check_further(link, sample, *txids)


@SIDES
def test_a_revocation_brings_a_nonce_for_each_funding_that_may_come_next(*, of_lsp: bool) -> None:
    sample = revoked(of_lsp=of_lsp)
    link, other = sample.link, following_of(sample).funding.outpoint.txid
    check_further(link, sample, other)
    refuse_further(link, sample)
    refuse_further(link, sample, link.present.outpoint.txid)
    agreed = with_next(sample, is_dual=False)
    check_further(agreed, sample)
    refuse_further(agreed, sample, other)


@SIDES
def test_with_the_revocation_that_ends_a_rebase_comes_none(*, of_lsp: bool) -> None:
    """It is the LSP's: until then both fundings may be on chain."""
    sample = revoked(of_lsp=of_lsp)
    other = following_of(sample).funding.outpoint.txid
    for stage in (HtlcStage.ADD_SIGNED, HtlcStage.ADD_COUNTERSIGNED):
        link = rebased(sample.link, stage)
        is_over = stage is HtlcStage.ADD_COUNTERSIGNED and not of_lsp
        (check_further if is_over else refuse_further)(link, sample)
        (refuse_further if is_over else check_further)(link, sample, other)


@SIDES
def test_whoever_is_over_with_a_funding_hears_a_late_nonce_for_what_it_has_now(
    *, of_lsp: bool
) -> None:
    """The other side has not heard yet that the funding before is nobody's."""
    sample = revoked(of_lsp=of_lsp)
    following, present = following_of(sample), sample.link.present
    other = following.funding.outpoint.txid
    before = replace(present, outpoint=OutPoint(txid=Txid(b"\x09" * 32), vout=0))
    over = changed(sample.link, next=None, superseded=(before,))
    check_further(over, sample)
    check_further(over, sample, present.outpoint.txid)
    refuse_further(over, sample, other)
    refuse_further(changed(over, superseded=()), sample, present.outpoint.txid)
    again = changed(sample.link, superseded=(before,))
    check_further(again, sample, other)
    refuse_further(again, sample, present.outpoint.txid)


# What the LSP lacks of it


def handed_in(link: Link, sample: Sample, number: int) -> list[fx.SignNext]:
    """Return what a side signs on the next funding when its peer says which commitment is next."""
    turn = sample.turn()
    message = replace(sample.met.asked.message, next_commitment_number=number + 1)
    hand_in_latest(turn, link, message)
    return wished(turn, fx.SignNext)


def lacking(*, of_lsp: bool = False, **about: Any) -> tuple[Link, Sample, int]:
    """Return a side whose peer says that it lacks its latest commitment on the next funding."""
    sample = between(of_lsp=of_lsp)
    following, link = following_of(sample), sample.link
    content, point = link.peer_contents[-1]
    sighash = link.commitment(content, point, following.funding).signing_task.sighash
    nonces = following.peer_nonces.set(content.number, b"\x02" * 66)
    told = {
        "peer_nonces": nonces,
        "given": following.given.set(content.number, sighash),
        **about,
    }
    return with_next(sample, **told), sample, content.number


def test_a_client_hands_in_what_its_lsp_lacks_on_the_next_funding() -> None:
    link, sample, number = lacking()
    (asked,) = handed_in(link, sample, number)
    following = link.next
    assert following is not None
    assert asked.number == number
    assert asked.pubnonce == b"\x02" * 66
    assert asked.task.sighash == following.given[number]
    assert asked.advance_id == following.advance_id
    assert (asked.channel_id, asked.attempt_id) == (link.channel_id, link.attempt_id)
    assert asked.partials == ()


NOTHING: Final[list[Callable[[], tuple[Link, Sample, int]]]] = [
    lambda: lacking(is_dual=False),
    lambda: lacking(of_lsp=True),
    lambda: lacking(peer_nonces=type(following_of(between(of_lsp=False)).peer_nonces)()),
    lambda: lacking(given=type(following_of(between(of_lsp=False)).given)()),
]


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_is_handed_in_that_is_not_lacking_or_was_never_signed(
    case: Callable[[], tuple[Link, Sample, int]],
) -> None:
    link, sample, number = case()
    assert handed_in(link, sample, number) == []
    assert handed_in(changed(link, next=None), sample, number) == []


def test_nothing_else_is_signed_on_the_next_funding_than_before() -> None:
    link, sample, number = lacking()
    following = link.next
    assert following is not None
    given = following.given.set(number, bytes(32))
    with pytest.raises(DoubleSigning, match=f"commitment {number} on the next funding"):
        handed_in(changed(link, next=changed(following, given=given)), sample, number)
    nonces = following.peer_nonces.set(77, b"\x02" * 66)
    odd = changed(following, given=following.given.set(77, bytes(32)), peer_nonces=nonces)
    with pytest.raises(AssertionError, match="commitment 77 of the LSP is not known"):
        handed_in(changed(link, next=odd), sample, 77)
