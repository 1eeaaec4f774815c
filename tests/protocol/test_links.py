"""What a channel's value says of its fundings, its commitments, and what it may still do."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.houses import spend_of, txid_of
from tests.protocol.paying_clients import begin_payment, live_factory, lsp_link, newest_link, pay

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.changed import changed
from cromford.channel.commitment import Funding
from cromford.channel.errors import PeerViolation
from cromford.channel.stage import Edition, HtlcStage
from cromford.channel.terms import Party
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.link_fold import applied, disconnected
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.journal.next_funding import (
    POISONS_HELD,
    SIGNED,
    STATE_HELD,
    UNSAID,
    HeldCommitment,
    NextFunding,
    OwnNonce,
)
from cromford.shelf import Shelf
from cromford.watch.remaining import PathStep

MONEY_MSAT: Final = 30_000_000


@cache
def live() -> tuple[Link, Link]:
    """Return a client's end of a channel with money and an HTLC on its way, and the LSP's."""
    pump = live_factory(3)
    payer, payee, _ = pump.clients
    assert pay(pump, pump.lsp, payer, MONEY_MSAT).status == "paid"
    pump.disconnect(payee)
    begin_payment(pump, payer, payee, 5_000_000)
    link = newest_link(payer)
    return link, lsp_link(pump, link)


def funding_at(number: int, like: Funding) -> Funding:
    """Return another funding of the same keys, of 1,000 sat more."""
    outpoint = OutPoint(txid=txid_of(number), vout=2)
    return replace(like, outpoint=outpoint, capacity_sat=like.capacity_sat + 1_000)


def state_tx(link: Link, *outputs: TxOut) -> Tx:
    """Return what spends the kickoff above a channel, with these outputs."""
    spent = TxIn(outpoint=link.path[-1].outpoint, nsequence=0)
    return Tx(version=3, inputs=(spent,), outputs=outputs)


def next_of(link: Link, **said: Any) -> NextFunding:
    """Return a next funding, in a state of its own that waits twice as long."""
    last = link.path[-1]
    step = PathStep(txid=txid_of(801), outpoint=last.outpoint, delay_blocks=2 * last.delay_blocks)
    known: dict[str, Any] = {"advance_id": b"advance", "price_msat": 7_000, "step": step}
    return NextFunding(funding=funding_at(801, link.present), **(known | said))


def chain_with(*txs: Tx, height: int = 50) -> KnownChain:
    block = BlockRef(height=height, block_hash=txid_of(height))
    return KnownChain().with_block(block, txs)


# Whether it may be used


def test_updates_flow_while_it_is_connected_has_not_failed_and_its_store_is_the_newest() -> None:
    link, _ = live()
    assert (link.is_open, link.takes_updates) == (True, True)
    for change in ({"failure": "why"}, {"mark": StoreMark()}):
        assert not changed(link, **change).takes_updates
        assert not changed(link, **change).is_open
    away = disconnected(link)
    assert (away.is_open, away.takes_updates) == (False, True)


@pytest.mark.parametrize(
    ("change", "may_lack", "is_unknown", "withholds"),
    [
        ({}, False, False, False),
        ({"is_behind": True}, True, True, True),
        ({"mark": StoreMark()}, True, True, True),
        ({"mark": StoreMark(agreed_msat=0)}, True, False, True),
        ({"mark": StoreMark(), "publishes_stale": True}, True, True, False),
        ({"is_behind": True, "publishes_stale": True}, True, True, True),
        ({"is_behind": True, "mark": StoreMark(agreed_msat=5)}, True, False, True),
        ({"peer_is_behind": True}, False, False, False),
        ({"publishes_stale": True}, False, False, False),
    ],
    ids=str,
)
def test_what_a_restored_or_proven_loss_means_for_balance_and_commitment(
    change: dict[str, Any],
    may_lack: bool,  # noqa: FBT001 - a table
    is_unknown: bool,  # noqa: FBT001 - a table
    withholds: bool,  # noqa: FBT001 - a table
) -> None:
    """What the peer proved to be revoked is published by nobody, whatever the operator risks."""
    link = changed(live()[0], **change)
    assert link.may_lack_state is may_lack
    assert link.is_balance_unknown is is_unknown
    assert link.withholds_commitment is withholds


def test_a_session_is_whatever_ends_with_the_connection() -> None:
    away = disconnected(live()[0])
    assert not away.has_session
    pool = next_of(away, session_pool=b"pool")
    for change in (
        {"state": changed(away.state, is_connected=True)},
        {"pool_id": b"pool"},
        {"awaits_nonce": True},
        {"quiet_for": b"close"},
        {"next": pool},
    ):
        assert changed(away, **change).has_session
    assert not changed(away, next=next_of(away)).has_session


def test_nonces_are_in_the_pools_of_both_fundings_each_once() -> None:
    link = changed(live()[0], pool_id=b"b")
    assert link.pool_ids == (b"b",)
    assert changed(link, pool_id=None).pool_ids == ()
    own = Map(
        {n: OwnNonce(pool_id=name, index=n, pubnonce=b"") for n, name in ((1, b"b"), (2, b"a"))}
    )
    both = changed(link, next=next_of(link, own_nonces=own, session_pool=b"c"))
    assert both.pool_ids == (b"b", b"a", b"c")
    assert changed(both, pool_id=None).pool_ids == (b"a", b"b", b"c")


def test_a_nonce_is_for_one_commitment_on_one_funding() -> None:
    link = changed(live()[0], pool_id=b"p", nonce_index=4, pubnonce=b"half")
    ours = OwnNonce(pool_id=b"p", index=4, pubnonce=b"half")
    assert link.own_nonce(link.present, 9) == ours
    assert changed(link, pool_id=None).own_nonce(link.present, 9) is None
    other = OwnNonce(pool_id=b"q", index=1, pubnonce=b"other")
    both = changed(link, next=next_of(link, own_nonces=Map({9: other})))
    assert both.next is not None
    assert both.own_nonce(both.present, 9) == ours
    assert both.own_nonce(both.next.funding, 9) == other
    assert both.own_nonce(both.next.funding, 8) is None


def test_it_is_still_from_both_sides_word_until_the_next_funding_carries_the_same() -> None:
    link = live()[0]
    for said, is_still in (
        ({}, False),
        ({"is_agreed": True}, True),
        ({"is_agreed": True, "is_dual": True}, False),
        ({"is_dual": True}, False),
        ({"is_leaving": True}, True),
        ({"is_leaving": True, "is_agreed": True, "is_dual": True}, True),
    ):
        one = changed(link, next=next_of(link, **said))
        assert one.is_still is is_still, said
        if is_still:
            with pytest.raises(PeerViolation, match="an advance is under way"):
                one.check_may_act("update_add_htlc")
    assert not link.is_still


# Where it is


def test_its_path_is_the_present_one_until_the_next_state_is_in_a_block() -> None:
    link = live()[0]
    old, step = state_tx(link, TxOut(amount_sat=1, script_pubkey=b"")), None
    assert link.path_on(chain_with(old)) == link.path
    following = next_of(link)
    landed = state_tx(link, TxOut(amount_sat=2, script_pubkey=b""))
    step = following.step
    assert step is not None
    step = replace(step, txid=landed.txid)
    both = changed(link, next=replace(following, step=step))
    assert both.path_on(KnownChain()) == link.path
    assert both.path_on(chain_with(old)) == link.path
    assert both.path_on(chain_with(landed)) == (*link.path[:-1], step)
    unknown = changed(link, next=replace(following, step=None))
    assert unknown.path_on(chain_with(landed)) == link.path


def landing(link: Link, funding: Funding) -> KnownChain:
    """Return a chain whose block has the state of one funding."""
    chain = chain_with(state_tx(link))
    (spender,) = chain.spends.values()
    found = changed(spender)
    found.__dict__["txid"] = funding.outpoint.txid
    return replace(chain, spends={link.path[-1].outpoint: found})


def test_the_funding_that_counts_is_in_a_block_or_else_that_of_the_newest_signed_state() -> None:
    link = live()[0]
    before, present = funding_at(700, link.present), link.present
    for stage, newest in ((0, False), (SIGNED, False), (STATE_HELD, True), (POISONS_HELD, True)):
        following = next_of(link, stage=stage)
        one = changed(link, superseded=(before,), next=following)
        assert one.fundings == (before, present, following.funding)
        assert one.landed(KnownChain()) is None
        assert one.funding_on(KnownChain()) == (following.funding if newest else present)
        for funding in one.fundings:
            chain = landing(one, funding)
            assert one.landed(chain) == funding
            assert one.funding_on(chain) == funding
    alone = changed(link, superseded=(before,))
    assert alone.fundings == (before, present)
    assert alone.funding_on(KnownChain()) == present


def test_a_state_that_a_restored_store_lacks_pays_the_channel_by_its_script() -> None:
    link = live()[0]
    script = link.present.txout.script_pubkey
    other = TxOut(amount_sat=9, script_pubkey=b"\x51")
    tx = state_tx(link, other, TxOut(amount_sat=12_345, script_pubkey=script), other)
    found = link.landed(chain_with(tx))
    assert found is not None
    assert (found.outpoint, found.capacity_sat) == (tx.outpoint(1), 12_345)
    assert found.pubkeys == link.present.pubkeys
    assert link.funding_on(chain_with(tx)) == found
    assert not link.is_poisoned(chain_with(tx))
    stranger = state_tx(link, other)
    assert link.landed(chain_with(stranger)) is None
    assert link.funding_on(chain_with(stranger)) == link.present
    elsewhere = spend_of(OutPoint(txid=txid_of(1), vout=0), pays=script)
    assert link.landed(chain_with(elsewhere)) is None


def test_a_state_is_taken_apart_once_it_was_replaced_and_its_poisons_may_be_held() -> None:
    link = live()[0]
    before, present = funding_at(700, link.present), link.present
    one = changed(link, superseded=(before,))
    assert not one.is_poisoned(KnownChain())
    assert one.is_poisoned(landing(one, before))
    assert not one.is_poisoned(landing(one, present))
    for stage, is_held in ((SIGNED, False), (STATE_HELD, False), (POISONS_HELD, True)):
        following = next_of(link, stage=stage)
        both = changed(one, next=following)
        assert not both.is_poisoned(KnownChain())
        assert both.is_poisoned(landing(both, before))
        assert both.is_poisoned(landing(both, present)) is is_held
        assert not both.is_poisoned(landing(both, following.funding))


# What is signed


def test_what_it_says_is_signed_for_both_fundings_from_the_word_on_and_for_one_after_it() -> None:
    link = live()[0]
    content = link.state.content(link.me, Edition.SIGNED)
    rebased = replace(content, is_rebased=True)
    assert link.fundings_of(content) == link.fundings_of(rebased) == (link.present,)
    quiet, dual = next_of(link), next_of(link, is_dual=True)
    assert changed(link, next=quiet).fundings_of(content) == (link.present,)
    assert changed(link, next=dual).fundings_of(content) == (link.present, dual.funding)
    for following in (quiet, dual):
        assert changed(link, next=following).fundings_of(rebased) == (following.funding,)


def test_an_output_is_on_chain_for_good_once_all_above_it_is_six_deep() -> None:
    link = live()[0]
    heights = dict.fromkeys((step.txid for step in link.path), 50)
    for tip_height, is_settled in ((54, False), (55, True)):
        tip = (BlockRef(height=tip_height, block_hash=txid_of(tip_height)),)
        chain = KnownChain(recent=tip, confirmed=Shelf(heights))
        assert link.is_settled(chain) is is_settled


def test_our_commitment_on_each_funding_is_the_one_whose_signature_we_hold() -> None:
    link = live()[0]
    content = link.state.content(link.me, Edition.SIGNED)
    assert link.commitment(content, link.own_point) == link.finished.commitment
    number = link.state.content(link.me, Edition.SIGNED).number
    assert link.finished_on(link.present) == link.finished
    own = HeldCommitment(number=number, signature=b"s" * 64, htlc_signatures=(b"h" * 64,))
    following = next_of(link, is_dual=True, own=own)
    both = changed(link, next=following)
    assert both.finished_on(link.present) == both.finished
    assert both.finished.commitment.tx.inputs[0].outpoint == link.present.outpoint
    other = both.finished_on(following.funding)
    assert other is not None
    assert other.commitment.tx.inputs[0].outpoint == following.funding.outpoint
    assert (other.signature, other.htlc_signatures) == (own.signature, own.htlc_signatures)
    elsewhere = funding_at(700, link.present)
    assert both.finished_on(elsewhere) is None
    assert link.finished_on(following.funding) is None
    for lacking in (replace(own, number=number - 1), None):
        one = changed(link, next=replace(following, own=lacking))
        assert one.finished_on(following.funding) is None


@pytest.mark.parametrize("whose", [0, 1], ids=["client's", "LSP's"])
def test_the_peers_commitments_are_those_that_it_has_not_revoked(whose: int) -> None:
    link = live()[whose]
    state = link.state
    latest = state.content(state.peer, Edition.SIGNED)
    settled = changed(link, peer_unrevoked=None, state=changed(state, peer_next_point=None))
    assert settled.peer_contents == ((latest, state.peer_point),)
    before = replace(latest, number=latest.number - 1)
    late = changed(link, peer_unrevoked=before)
    unpointed = changed(late, state=changed(state, peer_next_point=None))
    assert unpointed.peer_contents == ((latest, state.peer_point),)
    assert state.peer_next_point is not None
    assert late.peer_contents == ((before, state.peer_point), (latest, state.peer_next_point))
    following = next_of(link, is_dual=True)
    both = changed(late, next=following, superseded=(funding_at(700, link.present),))
    for funding in (both.present, following.funding):
        found = both.peer_commitments_on(funding)
        assert [one.commitment.tx.inputs[0].outpoint for one in found] == [funding.outpoint] * 2
        points = [one.per_commitment_point for one in found]
        assert points == [state.peer_point, state.peer_next_point]
    assert both.peer_commitments_on(both.superseded[0]) == (), "all of them are revoked"
    rebased = changed(both, peer_unrevoked=replace(before, is_rebased=True))
    assert len(rebased.peer_commitments_on(both.present)) == 1
    assert len(rebased.peer_commitments_on(following.funding)) == 2


def test_the_numbers_that_may_come_next_begin_with_the_latest_until_it_is_on_the_next_funding() -> (
    None
):
    link = live()[0]
    latest = link.state.own_signed
    assert link.next_numbers == ()
    for number, numbers in (
        (None, (latest, latest + 1)),
        (latest - 1, (latest, latest + 1)),
        (latest, (latest + 1,)),
    ):
        own = (
            None
            if number is None
            else HeldCommitment(number=number, signature=b"", htlc_signatures=())
        )
        assert changed(link, next=next_of(link, own=own)).next_numbers == numbers


def test_an_htlc_that_waits_for_its_signature_is_ours_and_one_that_waits_for_us_is_locked_in() -> (
    None
):
    client, lsp = live()
    (sent,) = client.state.htlcs
    assert sent.htlc.offered_by is client.me
    assert client.unsent == ()
    assert lsp.incoming(sent.htlc.htlc_id) is not None
    assert lsp.incoming(sent.htlc.htlc_id + 1) is None
    for stage in HtlcStage:
        live_one = changed(sent, stage=stage)
        one = changed(client, state=changed(client.state, htlcs=(live_one,)))
        assert (one.unsent == (live_one,)) is (stage is HtlcStage.ADD_PROPOSED)
        theirs = changed(lsp, state=changed(lsp.state, htlcs=(live_one,)))
        assert theirs.unsent == ()
        is_waiting = theirs.incoming(sent.htlc.htlc_id) is not None
        assert is_waiting is (stage is HtlcStage.LOCKED_IN)


# What records make of it


def test_a_connection_that_ends_takes_nonces_and_words_and_leaves_what_was_signed() -> None:
    link = changed(
        live()[1],
        pool_id=b"p",
        nonce_index=3,
        awaits_nonce=True,
        early_reestablish=b"e",
        pubnonce=b"n",
        peer_pubnonce=b"m",
        quiet_for=b"q",
    )
    nonces = Map({1: OwnNonce(pool_id=b"p", index=1, pubnonce=b"")})
    words = {
        "own_nonces": nonces,
        "peer_nonces": Map({1: b"n"}),
        "said_void": True,
        "is_agreed": True,
        "peer_stage": 2,
        "is_leaving": True,
        "session_pool": b"p",
        "is_dual": True,
        "given": Map({1: b"sighash"}),
    }
    for stage in (0, SIGNED, STATE_HELD):
        after = disconnected(changed(link, next=next_of(link, stage=stage, **words)))
        assert not after.state.is_connected
        assert (after.pool_id, after.nonce_index, after.awaits_nonce) == (None, 0, False)
        assert (after.early_reestablish, after.pubnonce, after.quiet_for) == (b"", b"", b"")
        assert after.peer_pubnonce is None
        if stage < SIGNED:
            assert after.next is None
            continue
        kept = next_of(link, stage=stage, is_dual=True, given=words["given"])
        assert after.next == kept
        assert after.next.peer_stage == UNSAID


def test_what_was_kept_for_the_price_is_free_once_nothing_of_the_advance_was_signed() -> None:
    client = live()[0]
    lsp = live()[1]
    for link in (client, lsp):
        reserving = changed(link.state, reserved_msat=5_000)
        begun = changed(link, state=reserving, next=next_of(link))
        assert disconnected(begun).state.reserved_msat == 0
        signed = changed(begun, next=next_of(link, stage=SIGNED))
        assert disconnected(signed).state.reserved_msat == 5_000


def test_a_channel_keeps_the_height_at_which_it_first_failed_and_the_newest_reason() -> None:
    link = live()[0]
    first = cr.ChannelFailed(channel_id=link.channel_id, reason="one", height=7, is_behind=False)
    later = cr.ChannelFailed(channel_id=link.channel_id, reason="two", height=9, is_behind=True)
    once, _ = applied(link, first)
    twice, _ = applied(once, later)
    assert (once.failure, once.failed_height, once.is_behind) == ("one", 7, False)
    assert (twice.failure, twice.failed_height, twice.is_behind) == ("two", 7, True)


def test_what_a_peer_says_of_its_own_loss_is_kept_and_its_mark_only_where_we_have_one() -> None:
    link = live()[0]
    lost, _ = applied(link, cr.PeerLostState(channel_id=link.channel_id, message=b""))
    assert (link.peer_is_behind, lost.peer_is_behind) == (False, True)
    marked = cr.PeerMarked(channel_id=link.channel_id, peer_hash=b"hash")
    whole, _ = applied(link, marked)
    assert (whole.peer_is_behind, whole.mark) == (True, None)
    both, _ = applied(changed(link, mark=StoreMark(agreed_msat=4)), marked)
    assert both.mark == StoreMark(peer_hash=b"hash", agreed_msat=4)
    assert both.peer_is_behind
    compared = cr.MarksCompared(channel_id=link.channel_id, message=b"", own_msat=6)
    agreed, _ = applied(both, compared)
    assert agreed.mark == StoreMark(peer_hash=b"hash", agreed_msat=6)
    with pytest.raises(AssertionError, match="marks were compared"):
        applied(link, compared)
    risked, _ = applied(both, cr.StaleAllowed(channel_id=link.channel_id))
    assert risked.publishes_stale


def given(link: Link, number: int, sighash: bytes) -> Link:
    """Return a link after one more of the peer's commitments is about to be signed."""
    record = ar.NextCommitmentIntended(channel_id=link.channel_id, number=number, sighash=sighash)
    return applied(link, record)[0]


def test_each_commitment_on_the_next_funding_is_signed_once_and_the_newest_two_are_known() -> None:
    link = live()[1]
    both = changed(link, next=next_of(link, given=Map({4: b"a", 5: b"b"}), peer_stage=2))
    again = given(both, 5, b"b")
    assert again.next is not None
    assert (again.next.given, again.next.peer_stage) == (Map({4: b"a", 5: b"b"}), UNSAID)
    later = given(both, 6, b"c")
    assert later.next is not None
    assert later.next.given == Map({5: b"b", 6: b"c"})
    with pytest.raises(DoubleSigning, match="commitment 5 on the next funding"):
        given(both, 5, b"another")
    with pytest.raises(AssertionError, match="there is no next funding"):
        given(link, 5, b"a")


def test_only_our_latest_commitment_is_held_on_the_next_funding() -> None:
    link = live()[1]
    held = ar.NextCommitmentHeld(
        channel_id=link.channel_id,
        number=link.state.own_signed,
        signature=b"s",
        htlc_signatures=(b"h",),
    )
    both = changed(link, next=next_of(link))
    after, _ = applied(both, held)
    assert after.next is not None
    assert after.next.own == HeldCommitment(
        number=link.state.own_signed, signature=b"s", htlc_signatures=(b"h",)
    )
    behind = changed(both, state=changed(both.state, own_signed=link.state.own_signed + 1))
    for one in (link, behind):
        with pytest.raises(AssertionError, match="is not our latest on a next funding"):
            applied(one, held)


def test_an_advance_that_is_void_leaves_the_channel_as_it_was() -> None:
    link = live()[0]
    begun = changed(
        link, next=next_of(link, stage=POISONS_HELD), state=changed(link.state, reserved_msat=9)
    )
    after, _ = applied(begun, ar.NextFundingVoid(channel_id=link.channel_id))
    assert (after.next, after.state.reserved_msat) == (None, 0)
    assert replace(after, state=link.state) == link


def test_the_party_that_opened_a_channel_is_the_lsp() -> None:
    client, lsp = live()
    assert (client.me, lsp.me) == (Party.ACCEPTER, Party.OPENER)
