"""What a channel lets be offered now, by its closes and by the chain, and what ends it."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.decisions import STALE, remembered, said, wished
from tests.protocol.samples import Sample, dual, plain
from tests.protocol.signed_closes import CLOSE_ID
from tests.protocol.test_next_stages import deep

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn
from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import HtlcStage, LiveHtlc
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol.channels.balances import balance_now, balance_of
from cromford.protocol.channels.close_rules import (
    check_closes,
    closed_by,
    hang_up_if_it_goes_on,
    is_beyond_close,
    owed_msat,
    problem_with_advance,
    room_msat,
    stands_still,
)
from cromford.protocol.channels.failing import end_updates, fail
from cromford.protocol.channels.htlc_rules import (
    acceptance_failure,
    check_offer,
    is_alive,
    is_final,
    is_in_time,
    min_final_cltv_expiry_delta,
)
from cromford.protocol.channels.steps import on_message
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS, final_blocks, hold_blocks
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import SETTLED_DEPTH, SignedClose
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

SIDES: Final = pytest.mark.parametrize("of_lsp", [True, False])
OTHER: Final = OutPoint(txid=Txid(b"\x0a" * 32), vout=3)


def side(*, of_lsp: bool) -> Sample:
    """Return a side of a channel in use, with nothing under way."""
    sample = plain().first("on_commitment_signed", of_lsp=of_lsp)
    return sample.with_link(state=changed(sample.link.state, htlcs=()))


def chain_of(sample: Sample) -> KnownChain:
    found: KnownChain = sample.state.chain
    return found


def close(
    link: Link, balance_msat: int, *, outpoint: OutPoint | None = None, **about: Any
) -> SignedClose:
    return SignedClose(
        close_id=CLOSE_ID,
        outpoint=outpoint or link.present.outpoint,
        balance_msat=balance_msat,
        **about,
    )


def spent(chain: KnownChain, outpoint: OutPoint, depth: int) -> tuple[KnownChain, Tx]:
    """Return a chain in which something spent an outpoint, and that."""
    tx = Tx(version=2, inputs=(TxIn(outpoint=outpoint, nsequence=0),), outputs=())
    for number in range(depth):
        block = BlockRef(height=chain.height + 1, block_hash=Txid(bytes([number]) * 32))
        chain = chain.with_block(block, (tx,) if number == 0 else ())
    return chain, tx


def htlc(by: Party, amount_msat: int) -> LiveHtlc:
    return LiveHtlc(
        htlc=Htlc(
            offered_by=by,
            htlc_id=0,
            amount_msat=amount_msat,
            payment_hash=bytes(32),
            cltv_expiry=1_000,
        ),
        stage=HtlcStage.LOCKED_IN,
    )


# Closes


@SIDES
def test_a_channel_owes_its_client_the_balance_and_all_that_may_come_to_it(*, of_lsp: bool) -> None:
    link = side(of_lsp=of_lsp).link
    own = link.state.accepter_msat
    assert owed_msat(link.state) == own
    for htlcs, more in (
        ((htlc(Party.OPENER, 7_000),), 7_000),
        ((htlc(Party.ACCEPTER, 5_000),), 0),
        ((htlc(Party.OPENER, 7_000), htlc(Party.ACCEPTER, 5_000)), 7_000),
    ):
        assert owed_msat(changed(link.state, htlcs=htlcs)) == own + more


@SIDES
def test_what_a_close_leaves_of_a_channel_is_told_and_kept_to(*, of_lsp: bool) -> None:
    sample = side(of_lsp=of_lsp)
    link, chain, owed = sample.link, chain_of(sample), owed_msat(sample.link.state)
    assert room_msat(link, chain) is None
    assert not is_beyond_close(link, chain)
    for more, is_beyond in ((1, False), (0, False), (-1, True)):
        bound = changed(link, closes=(close(link, owed + more),))
        assert room_msat(bound, chain) == more
        assert is_beyond_close(bound, chain) is is_beyond
    two = changed(link, closes=(close(link, owed + 9), close(link, owed + 5, outpoint=OTHER)))
    assert room_msat(two, chain) == 5, "the least of what any of them owes"
    gone, _ = spent(chain, link.present.outpoint, SETTLED_DEPTH)
    assert room_msat(changed(link, closes=(close(link, owed),)), gone) is None


@SIDES
def test_an_htlc_of_ours_keeps_to_what_the_client_signed(*, of_lsp: bool) -> None:
    """What the client offers cannot make the channel owe it more."""
    sample = side(of_lsp=of_lsp)
    link, chain, owed = sample.link, chain_of(sample), owed_msat(sample.link.state)
    check_closes(link, chain, amount_msat=10**9)
    bound = changed(link, closes=(close(link, owed + 4_000),))
    check_closes(bound, chain, amount_msat=4_000)
    beyond = changed(link, closes=(close(link, owed - 1),))
    if not of_lsp:
        check_closes(bound, chain, amount_msat=4_001)
    else:
        with pytest.raises(UpdateRefused, match="close: expected at most 4 sat more for the cl"):
            check_closes(bound, chain, amount_msat=4_001)
    with pytest.raises(UpdateRefused, match="expected at most 0 sat more for the client"):
        check_closes(beyond, chain, amount_msat=0)


@SIDES
def test_a_channel_stands_still_while_a_close_is_agreed_on_or_may_be_in_a_block(
    *, of_lsp: bool
) -> None:
    sample = side(of_lsp=of_lsp)
    link, chain = sample.link, chain_of(sample)
    assert not stands_still(link, chain)
    assert not stands_still(changed(link, closes=(close(link, 10**9),)), chain)
    cases = [
        (changed(link, quiet_for=b"q" * 32), "one that is being agreed on"),
        (
            changed(link, closes=(close(link, 10**9, is_finished=True),)),
            "one that everybody signed",
        ),
    ]
    for quiet, received in cases:
        assert stands_still(quiet, chain)
        with pytest.raises(UpdateRefused, match=f"close: expected none, received {received}"):
            check_closes(quiet, chain, amount_msat=0)


@SIDES
def test_a_close_that_may_be_finished_is_in_the_way_of_an_advance(*, of_lsp: bool) -> None:
    sample = side(of_lsp=of_lsp)
    link, chain, advance_id = sample.link, chain_of(sample), b"a" * 32
    assert problem_with_advance(link, chain) is None
    quiet = changed(link, quiet_for=advance_id)
    assert problem_with_advance(quiet, chain) == "a close is being agreed on"
    assert problem_with_advance(quiet, chain, advance_id=advance_id) is None
    assert problem_with_advance(link, chain, advance_id=advance_id) is None
    signed = changed(link, closes=(close(link, 10**9),))
    told = f"a close of {link.present.outpoint} was signed, and may be finished"
    assert problem_with_advance(signed, chain) == told
    gone, tx = spent(chain, link.present.outpoint, SETTLED_DEPTH)
    assert problem_with_advance(signed, gone) is None, "something else spent it for good"
    assert closed_by(signed, gone) is None
    done = changed(link, closes=(close(link, 10**9, txids=(tx.txid,)),))
    assert problem_with_advance(done, gone) == told
    assert closed_by(done, gone) == tx.txid


@pytest.mark.parametrize(
    ("about", "is_connected", "failure", "n_hung_up"),
    [
        ({"is_finished": True}, False, None, 1),
        ({"is_finished": True}, True, None, 0),
        ({"is_finished": True}, False, "over", 0),
        ({"is_finished": False}, False, None, 0),
        ({"is_finished": True, "is_it": True}, False, None, 0),
    ],
)
@SIDES
def test_a_close_that_is_void_for_good_lets_its_channel_begin_anew(
    about: dict[str, Any], failure: str | None, n_hung_up: int, *, of_lsp: bool, is_connected: bool
) -> None:
    sample = side(of_lsp=of_lsp)
    link = sample.link
    chain, tx = spent(chain_of(sample), link.present.outpoint, SETTLED_DEPTH)
    is_it = about.get("is_it", False)
    bound = close(link, 10**9, is_finished=about["is_finished"], txids=(tx.txid,) if is_it else ())
    waiting = close(link, 10**9, outpoint=OTHER, is_finished=True)
    after = sample.with_link(
        closes=(waiting, bound),
        failure=failure,
        state=changed(link.state, is_connected=is_connected),
    )
    turn = after._replace(state=changed(after.state, chain=chain)).turn()
    hang_up_if_it_goes_on(turn, turn.link(link.channel_id))
    hung_up = wished(turn, fx.Disconnect)
    assert [(one.node_id, one.is_ours) for one in hung_up] == [(link.node_id, True)] * n_hung_up


# What can be paid now


@SIDES
def test_a_client_can_be_paid_up_to_what_is_covered_and_signed_for(*, of_lsp: bool) -> None:
    sample = side(of_lsp=of_lsp)
    link, chain = sample.link, chain_of(sample)
    state = changed(link.state, accepter_msat=30_000_000)
    state = changed(state, terms=replace(state.terms, htlc_minimum_msat=5_000))
    link, owed = changed(link, state=state), 30_000_000
    usual = balance_of(link)
    assert balance_now(link, chain) == usual
    limited = "spendable_msat" if of_lsp else "receivable_msat"
    full_sat = owed // MSAT_PER_SAT
    by_coverage: list[tuple[int, int | None]] = [
        (full_sat + 7, 7_000),
        (full_sat + 5, 5_000),
        (full_sat + 4, 0),
        (0, 0),
        (10**9, None),
    ]
    for covered_sat, room in by_coverage:
        expected = usual if room is None else replace(usual, **{limited: room})
        assert balance_now(link, chain, covered_sat=covered_sat) == expected
    for more, limit_sat, left in (
        (6_000, full_sat + 7, 6_000),
        (8_000, full_sat + 7, 7_000),
        (8_000, None, 8_000),
        (4_999, None, 0),
        (-1, None, 0),
    ):
        bound = changed(link, closes=(close(link, owed + more),))
        expected = replace(usual, **{limited: left})
        assert balance_now(bound, chain, covered_sat=limit_sat) == expected
    quiet = changed(link, quiet_for=b"q" * 32)
    assert balance_now(quiet, chain) == replace(usual, spendable_msat=0, receivable_msat=0)
    least = changed(link, state=changed(state, terms=replace(state.terms, htlc_minimum_msat=1)))
    none = balance_now(least, chain, covered_sat=0)
    assert getattr(none, limited) == 0


# The chain


@SIDES
def test_a_channel_is_alive_while_its_updates_mean_something_on_chain(*, of_lsp: bool) -> None:
    sample = side(of_lsp=of_lsp)
    link, chain = sample.link, chain_of(sample)
    assert is_alive(link, chain)
    assert not is_alive(changed(link, failure="over"), chain)
    assert not is_alive(link, spent(chain, link.present.outpoint, 1)[0])
    for step in link.path:
        assert not is_alive(link, spent(chain, step.outpoint, 1)[0]), "something else is there"
    bound = changed(link, closes=(close(link, 10**9, is_finished=True),))
    assert not is_alive(bound, chain)


def settled(sample: Sample) -> KnownChain:
    """Return a chain in which all of a channel's path is settled."""
    chain, _ = spent(chain_of(sample), OTHER, SETTLED_DEPTH)
    confirmed = chain.confirmed
    for step in sample.link.path:
        confirmed = confirmed.set(step.txid, 0)
    return changed(chain, confirmed=confirmed)


@SIDES
def test_from_the_exit_deadline_on_no_htlc_is_offered_or_taken(*, of_lsp: bool) -> None:
    sample = side(of_lsp=of_lsp)
    link, chain = sample.link, chain_of(sample)
    remaining = link.remaining(chain)
    deadline = remaining.exit_deadline_height
    assert deadline is not None
    for height, is_early in ((deadline - 1, True), (deadline, False)):
        assert is_in_time(link, chain, height=height) is is_early
        expiry = height + remaining.exit_blocks + CLAIM_BLOCKS + SAFETY_BLOCKS
        failure = acceptance_failure(link, expiry, chain=chain, height=height)
        assert failure is (None if is_early else Failure.TEMPORARY_CHANNEL_FAILURE)
        if is_early:
            check_offer(link, expiry, chain=chain, height=height)
            for wrong in (expiry - 1, height + link.max_cltv_blocks + 1):
                with pytest.raises(UpdateRefused, match="cltv_expiry"):
                    check_offer(link, wrong, chain=chain, height=height)
        else:
            with pytest.raises(UpdateRefused, match=f"height: expected below .* {deadline}"):
                check_offer(link, expiry, chain=chain, height=height)
    on_chain = settled(sample)
    assert link.remaining(on_chain).exit_deadline_height is None
    assert is_in_time(link, on_chain, height=deadline), "nothing about it expires any more"


def test_an_invoice_asks_for_the_blocks_that_its_payment_may_be_held() -> None:
    sample = side(of_lsp=False)
    link, chain = sample.link, chain_of(sample)
    blocks = final_blocks(link.remaining(chain).exit_blocks)
    assert min_final_cltv_expiry_delta(link, chain) == blocks
    held = min_final_cltv_expiry_delta(link, chain, hold_seconds=7_200)
    assert hold_blocks(7_200) > 0
    assert held == blocks + hold_blocks(7_200)


@pytest.mark.parametrize(
    ("failure", "facts", "is_told"),
    [
        (None, FRESH, False),
        (None, STALE, False),
        (Failure.EXPIRY_TOO_FAR, FRESH, True),
        (Failure.EXPIRY_TOO_FAR, STALE, False),
        (Failure.EXPIRY_TOO_SOON, FRESH, True),
        (Failure.EXPIRY_TOO_SOON, STALE, True),
    ],
)
def test_what_an_old_height_may_have_made_wrong_is_not_final(
    failure: Failure | None, facts: Facts, *, is_told: bool
) -> None:
    assert is_final(failure, facts) is is_told


# A word that ends it


def heard(sample: Sample, message: m.ChannelMessage, facts: Facts = FRESH) -> Turn[Any]:
    turn = sample.turn(facts)
    on_message(turn, turn.link(sample.channel_id), message)
    return turn


@SIDES
def test_updates_end_once_and_what_waited_for_them_is_let_go(*, of_lsp: bool) -> None:
    sample = side(of_lsp=of_lsp)
    turn = sample.turn()
    fail(turn, sample.link, "r" * 10_000)
    (failed,) = remembered(turn, cr.ChannelFailed)
    assert failed.reason == "r" * m.REASON_SIZE_MAX
    assert not failed.is_behind
    assert [one.pool_ids for one in wished(turn, fx.DropPools)] == [sample.link.pool_ids]
    assert [one.reason for one in said(turn, m.ChannelFailure)] == [failed.reason]
    end_updates(turn, sample.link, "again")
    assert remembered(turn, cr.ChannelFailed) == [failed]
    bare = sample.with_link(pool_id=None).turn()
    end_updates(bare, sample.link, "enough")
    assert not wished(bare, fx.DropPools)
    assert len(said(bare, m.ChannelFailure)) == 1
    silent = sample.turn()
    fail(silent, sample.link, "enough", tells_peer=False)
    assert not wished(silent, fx.Send)


@SIDES
def test_a_channel_that_is_over_says_so_to_every_word_but_that_one(*, of_lsp: bool) -> None:
    met = plain().first("on_commitment_signed", of_lsp=of_lsp)
    sample = met.with_link(failure="over")
    over = m.ChannelFailure(channel_id=sample.channel_id, reason="enough")
    assert heard(sample, over).decision.is_nothing
    turn = heard(sample, met.met)
    assert not turn.decision.records
    assert [one.reason for one in said(turn, m.ChannelFailure)] == ["over"]
    state = sample.link.state
    told = m.ChannelReestablish(
        channel_id=sample.channel_id,
        next_commitment_number=0,
        next_revocation_number=state.own_revoked,
        your_last_per_commitment_secret=bytes(32),
        next_pubnonce=bytes(66),
        advance=(),
    )
    turn = heard(sample, told)
    assert len(remembered(turn, cr.PeerLostState)) == 1
    assert len(wished(turn, fx.RecallPoint)) == 1
    assert len(said(turn, m.ChannelFailure)) == 1
    alive = heard(met, over)
    (failed,) = remembered(alive, cr.ChannelFailed)
    assert failed.reason == "the peer: enough"
    assert not wished(alive, fx.Send), "it knows"


@SIDES
def test_an_update_from_an_earlier_connection_is_dropped(*, of_lsp: bool) -> None:
    sample = side(of_lsp=of_lsp)
    update = m.UpdateFailHtlc(channel_id=sample.channel_id, htlc_id=99, reason=b"no")
    assert heard(sample.away(), update).decision.is_nothing


# The rebase


def between() -> tuple[Sample, m.UpdateRebase]:
    """Return a client between two fundings, and the rebase that its LSP may offer."""
    sample = dual().first("on_commitment_signed", of_lsp=False)
    sample = sample.with_link(state=changed(sample.link.state, htlcs=()))
    following = sample.link.next
    assert following is not None
    rebase = m.UpdateRebase(
        channel_id=sample.channel_id,
        advance_id=following.advance_id,
        capacity_sat=following.funding.capacity_sat,
        price_msat=following.price_msat,
    )
    return sample.with_link(next=changed(following, may_rebase=True)), rebase


def test_a_rebase_is_taken_once_nothing_is_lost_by_it() -> None:
    sample, rebase = between()
    following = sample.link.next
    assert following is not None
    assert len(remembered(heard(sample, rebase), cr.UpdateReceived)) == 1
    unready = sample.with_link(next=changed(following, may_rebase=False))
    landed = deep(following.funding.outpoint.txid, SETTLED_DEPTH)
    deep_enough = unready._replace(state=changed(unready.state, chain=landed))
    assert len(remembered(heard(deep_enough, rebase), cr.UpdateReceived)) == 1
    assert heard(sample.away(), rebase).decision.is_nothing
    earlier = replace(rebase, price_msat=1)
    assert heard(sample.away(), earlier).decision.is_nothing, "it is of an earlier connection"
    turn = heard(sample, rebase, STALE)
    assert not turn.decision.records
    (gone,) = wished(turn, fx.Disconnect)
    assert (gone.node_id, gone.is_ours) == (sample.link.node_id, True)


def test_a_rebase_that_was_not_agreed_or_loses_something_ends_the_channel() -> None:
    sample, rebase = between()
    following = sample.link.next
    assert following is not None
    confirmed = chain_of(sample).confirmed.set(sample.link.present.outpoint.txid, 1)
    landed = changed(chain_of(sample), confirmed=confirmed)
    cases: list[tuple[Sample, m.UpdateRebase, str]] = [
        (sample.with_link(next=None), rebase, "update_rebase: expected none"),
        (
            sample.with_link(next=changed(following, is_dual=False)),
            rebase,
            "update_rebase: expected none",
        ),
        (sample, replace(rebase, advance_id=bytes(32)), "advance_id: "),
        (sample, replace(rebase, capacity_sat=1), "capacity_sat: "),
        (sample, replace(rebase, price_msat=1), "price_msat: "),
        (
            sample.with_link(next=changed(following, may_rebase=False)),
            rebase,
            "update_rebase: expected the old state's poisons first",
        ),
        (
            sample._replace(state=changed(sample.state, chain=landed)),
            rebase,
            "update_rebase: expected none any more",
        ),
    ]
    for one, message, reason in cases:
        (failed,) = remembered(heard(one, message), cr.ChannelFailed)
        assert failed.reason.startswith(reason)
        assert not remembered(heard(one, message), cr.UpdateReceived)
