"""What a channel's records make of it between two fundings, one by one, as both sides fold them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advances import advancing_factory, both_links, buy, check_claims, market
from tests.protocol.paying_clients import begin_payment, make_invoice, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_advance_steps import END, at, next_of
from tests.protocol.test_two_fundings import connect_anew, hushed

from cromford.changed import changed
from cromford.channel.content import CommitmentContent
from cromford.channel.messages import Rebase
from cromford.channel.stage import Edition, HtlcStage
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.client_state import apply as apply_to_client
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.factory import apply_to_factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.link_fold import applied, with_update
from cromford.protocol.journal.next_funding import HeldCommitment, OwnNonce
from cromford.watch.coverage import NOTHING_PENDING, Fullest, fuller, fullest_in
from cromford.wire import messages as m

BUYER, NEIGHBOUR, ELSEWHERE = 1, 2, 3
PENDING_MSAT: Final = 1_000_000


@dataclass(frozen=True)
class Step:
    """One record of a channel, and the channel before and after it."""

    before: Link
    record: Any
    after: Link


def folded(state: Any, told: list[Any], apply: Callable[[Any, Any], Any], seat: int) -> list[Step]:
    """Return what records make of the channel of one client, whose records these are."""
    steps: list[Step] = []

    def link_in(one: Any) -> Link:
        (link,) = [link for link in one.book.links.values() if link.client == seat]
        assert isinstance(link, Link)
        return link

    for record in told:
        before, state = link_in(state), apply(state, record)
        if getattr(record, "channel_id", b"") == before.channel_id:
            steps.append(Step(before, record, link_in(state)))
    return steps


class Watched:
    """A world whose buyer's channel is watched on both sides from here on."""

    def __init__(self, pump: Pump) -> None:
        self.pump, self.client = pump, pump.client_at(BUYER)
        self._states = self.client.state, pump.factory
        self._n_entries = [len(node.store.entries) for node in (self.client, pump.lsp)]

    def steps(self) -> tuple[list[Step], list[Step]]:
        """Return what became of the channel since: the client's steps, and the LSP's."""
        told = [
            node.store.told_since(n)
            for node, n in zip((self.client, self.pump.lsp), self._n_entries, strict=True)
        ]
        stream = self.pump.factory.stream
        ours = [record for _, record in told[0]]
        theirs = [record for name, record in told[1] if name == stream]
        client, factory = self._states
        return (
            folded(client, ours, apply_to_client, BUYER),
            folded(factory, theirs, apply_to_factory, BUYER),
        )


def paying_at_once(pump: Pump, payer: PumpNode, payee: PumpNode, n_payments: int) -> None:
    for _ in range(n_payments):
        pump.handle(payer, make_invoice(pump, payee, PENDING_MSAT))
    pump.run()


@cache
def crossing() -> tuple[list[Step], list[Step]]:
    """Return the steps of a channel from an advance's beginning on, with payments all along it."""
    with market():
        pump = advancing_factory(3)
        alice, dora = pump.client_at(BUYER), pump.client_at(ELSEWHERE)
        assert pay(pump, pump.lsp, alice, 9 * PENDING_MSAT).status == "paid"
        watched = Watched(pump)
        with pump.tampering(hushed(pump)):
            buy(pump, BUYER)
            pump.run()
            pump.disconnect(pump.client_at(NEIGHBOUR))
            paying_at_once(pump, pump.lsp, alice, 2)
            paying_at_once(pump, alice, dora, 3)
        pump.connect(pump.client_at(NEIGHBOUR))
        pump.run_to(m.UpdateRebase)
        # What the client offers now crosses the rebase, and is first in a commitment that has both.
        deliveries = iter((False,))
        pump.run(until=lambda: next(deliveries, True))
        for _ in range(4):
            pump.handle(alice, make_invoice(pump, dora, PENDING_MSAT))
        pump.run()
        pump.pass_holds()
        assert not pump.factory.advances
        check_claims(pump)
        return watched.steps()


each_side = pytest.mark.parametrize("side", [0, 1], ids=["client's", "LSP's"])


def of_kind(steps: list[Step], *kinds: type[Any]) -> Iterator[Step]:
    return (step for step in steps if isinstance(step.record, kinds))


# What is signed for which funding


def signed_for(step: Step, content: CommitmentContent, point: bytes, record: Any) -> list[Any]:
    """Return the fundings on which a commitment with this content has a sighash of a record."""
    sighashes = {record.sighash, getattr(record, "next_sighash", b"")}
    return [
        funding
        for funding in step.before.fundings
        if step.before.commitment(content, point, funding).signing_task.sighash in sighashes
    ]


def test_a_client_knows_of_each_funding_the_fullest_commitment_that_it_signed_for_it() -> None:
    """And as it signs, not before: its own commitments say nothing of it."""
    steps, _ = crossing()
    seen: dict[str, int] = {}
    for step in steps:
        before, after = step.before, step.after
        present = before.fullest
        following = None if before.next is None else before.next.fullest
        if isinstance(step.record, cr.CommitmentIntended | ar.NextCommitmentIntended):
            state = after.state
            content = state.content(state.peer, Edition.SIGNED)
            assert content.holder is Party.OPENER
            point = state.peer_next_point if state.awaits_revocation else state.peer_point
            assert point is not None
            full = fullest_in(content, before.setting.terms)
            for funding in signed_for(step, content, point, step.record):
                if funding == before.present:
                    assert present is not None
                    present = fuller(present, full, before.setting.terms)
                    seen["present"] = seen.get("present", 0) + 1
                else:
                    assert following is not None
                    following = fuller(following, full, before.setting.terms)
                    seen["next"] = seen.get("next", 0) + 1
        if len(after.superseded) > len(before.superseded):
            assert (after.fullest, after.fullest_superseded[-1]) == (following, present)
            assert following != present, "the last had no place on the old funding"
        elif after.next is not None and before.next is not None:
            assert (after.fullest, after.next.fullest) == (present, following), step.record
        else:
            assert after.fullest == present
    assert min(seen.values()) > 3, seen


def test_an_lsp_knows_the_same_of_its_own_as_it_holds_it() -> None:
    clients, lsps = crossing()
    assert clients[-1].after.fullest_superseded == lsps[-1].after.fullest_superseded
    assert clients[-1].after.fullest == lsps[-1].after.fullest
    for step in lsps:
        before, after = step.before, step.after
        if isinstance(step.record, cr.CommitmentFinished | ar.NextCommitmentHeld):
            continue
        if after.next is not None and before.next is not None:
            known = (before.fullest, before.next.fullest)
            assert (after.fullest, after.next.fullest) == known, step.record


def test_what_an_older_store_did_not_count_stays_unknown() -> None:
    clients, lsps = crossing()
    n_met = 0
    for step in (
        *of_kind(clients, cr.CommitmentIntended),
        *of_kind(lsps, cr.CommitmentFinished),
    ):
        if step.before.superseded == step.after.superseded:
            after, _ = applied(changed(step.before, fullest=None), step.record)
            assert after == changed(step.after, fullest=None)
            n_met += 1
    assert n_met > 10


@each_side
def test_what_is_signed_of_the_peers_on_the_next_funding_is_known_by_its_number(side: int) -> None:
    steps = crossing()[side]
    n_met = 0
    for step in of_kind(steps, cr.CommitmentIntended):
        if step.after.next is None:
            continue
        is_rebased = step.after.state.content(step.after.state.peer, Edition.SIGNED).is_rebased
        sighash = step.record.sighash if is_rebased else step.record.next_sighash
        assert sighash
        assert step.after.next.given[step.record.number] == sighash
        assert set(step.after.next.given) <= {step.record.number - 1, step.record.number}
        n_met += 1
    assert n_met > 3


# What we hold


@each_side
def test_our_latest_commitment_on_the_next_funding_has_the_signature_that_came_for_it(
    side: int,
) -> None:
    """On both as long as it is for both; from the rebase on there is none on the present one."""
    seen: set[bool] = set()
    for step in of_kind(crossing()[side], cr.CommitmentFinished):
        record, after = step.record, step.after
        if after.next is None:
            continue
        content = after.state.content(after.me, Edition.SIGNED)
        seen.add(content.is_rebased)
        said = (record.signature, record.htlc_signatures)
        if not content.is_rebased:
            said = (record.next_signature, record.next_htlc_signatures)
        assert after.next.own == HeldCommitment(
            number=content.number, signature=said[0], htlc_signatures=said[1]
        )
        on_next = after.finished_on(after.next.funding)
        assert on_next is not None
        assert on_next.commitment.funding == after.next.funding
        assert (after.finished_on(after.present) is None) is content.is_rebased
        assert (record.next_pubnonce != b"") is (len(after.next.own_nonces) == 1)
        assert after.next.own_nonces == Map(
            {
                content.number + 1: OwnNonce(
                    pool_id=record.pool_id, index=1, pubnonce=record.next_pubnonce
                )
            }
        )
    assert seen == ({False, True} if side == 0 else {False})


@each_side
def test_a_revocation_brings_the_peers_nonces_for_each_funding(side: int) -> None:
    seen = {"next": 0, "present": 0}
    for step in of_kind(crossing()[side], cr.RevocationReceived):
        message, after = decoded(step.record.message, m.RevokeAndAck), step.after
        further = {one.funding_txid: one.pubnonce for one in message.further}
        on_present = further.get(after.present.outpoint.txid, message.next_pubnonce)
        assert after.peer_pubnonce == on_present
        seen["present"] += on_present != message.next_pubnonce
        if after.next is not None:
            on_next = further[after.next.funding.outpoint.txid]
            assert after.next.peer_nonces == Map({after.state.peer_signed + 1: on_next})
            seen["next"] += 1
    assert seen["next"] > 3
    assert seen["present"] == side, "a client is the last that is over with the old funding"


def test_a_word_about_another_funding_is_no_nonce_for_either() -> None:
    """It is refused as it comes; what a journal says all the same is for neither."""
    (step, *_) = [
        one for one in of_kind(crossing()[0], cr.RevocationReceived) if one.after.next is not None
    ]
    message = decoded(step.record.message, m.RevokeAndAck)
    (part,) = message.further
    other = replace(message, further=(replace(part, funding_txid=bytes(32)),))
    record = cr.RevocationReceived(
        channel_id=step.before.channel_id, message=m.encode_message(other)
    )
    after, _ = applied(step.before, record)
    assert after.next == changed(next_of(step.after), peer_nonces=Map())
    assert after.peer_pubnonce == message.next_pubnonce


# The rebase


def rebased_at(steps: list[Step]) -> Step:
    (step,) = [one for one in steps if len(one.after.superseded) > len(one.before.superseded)]
    return step


def test_a_client_goes_on_with_the_nonces_that_were_for_the_next_funding() -> None:
    step = rebased_at(crossing()[0])
    assert isinstance(step.record, cr.RevocationReceived)
    following, after = next_of(step.before), step.after
    own = following.own_nonces[step.before.state.own_signed + 1]
    assert (after.pool_id, after.nonce_index, after.pubnonce) == (own.pool_id, 1, own.pubnonce)
    assert after.own_nonce(after.present, after.state.own_signed + 1) == own
    assert (after.setting.funding, after.next) == (following.funding, None)
    assert after.path == (*step.before.path[:-1], following.step)
    without = changed(step.before, next=changed(following, own_nonces=Map()))
    bare, _ = applied(without, step.record)
    unchanged = step.before.pool_id, step.before.nonce_index, step.before.pubnonce
    assert (bare.pool_id, bare.nonce_index, bare.pubnonce) == unchanged


def test_an_lsp_signs_on_with_the_nonce_that_its_client_told_for_the_next_funding() -> None:
    """Where none was told for that number, one comes with the revocation that it waits for."""
    step = rebased_at(crossing()[1])
    assert isinstance(step.record, cr.CommitmentFinished)
    number = step.before.state.peer_signed + 1
    nonces = Map({n: b"nonce %d" % n for n in range(number - 2, number + 3)})
    told = changed(step.before, next=changed(next_of(step.before), peer_nonces=nonces))
    assert applied(told, step.record)[0].peer_pubnonce == nonces[number]
    untold = changed(told, next=changed(next_of(told), peer_nonces=nonces.delete(number)))
    assert applied(untold, step.record)[0].peer_pubnonce == step.before.peer_pubnonce


def test_a_next_state_of_which_an_older_store_knows_no_step_leaves_the_way_out_as_it_was() -> None:
    step = rebased_at(crossing()[0])
    older = changed(step.before, next=changed(next_of(step.before), step=None))
    after, _ = applied(older, step.record)
    assert after == changed(step.after, path=step.before.path)


def test_a_rebase_without_a_next_funding_ends_the_decision() -> None:
    for steps in crossing():
        step = rebased_at(steps)
        with pytest.raises(AssertionError, match="a rebase without a next funding"):
            applied(changed(step.before, next=None), step.record)


# Where the client signed nothing of it


def pending(link: Link, amount_msat: int, offered_by: Party) -> Link:
    """Return a channel in which one more HTLC is locked in, among those that it had."""
    step = next(one for one in crossing()[0] if one.after.state.htlcs)
    (live, *_) = step.after.state.htlcs
    htlc = replace(live.htlc, amount_msat=amount_msat, offered_by=offered_by, htlc_id=99)
    locked_in = changed(live, htlc=htlc, stage=HtlcStage.LOCKED_IN)
    return changed(link, state=changed(link.state, htlcs=(*link.state.htlcs, locked_in)))


def test_on_the_next_funding_too_the_lsps_commitment_counts_alone() -> None:
    """Of one small HTLC it has an output on the LSP's, where it is offered, and none on ours."""
    committed, signing = at(m.AdvanceCommit), at(m.AdvanceSign)
    terms = committed.client(BUYER).setting.terms
    most = max(terms.htlc_tx_cost_sat(is_offered=is_offered) for is_offered in (False, True))
    amount_msat = (terms.dust_limit_sat + most) * MSAT_PER_SAT - 1
    assert not terms.is_trimmed(amount_msat, is_offered=True)
    assert terms.is_trimmed(amount_msat, is_offered=False)
    one = Fullest(n_htlc_outputs=1, trimmed_sat=0)
    client = pending(signing.client(BUYER), amount_msat, Party.OPENER)
    lsp = pending(committed.lsp(BUYER), amount_msat, Party.OPENER)
    for link, counts in ((client, False), (lsp, True)):
        held = ar.NextCommitmentHeld(
            channel_id=link.channel_id,
            number=link.state.own_signed,
            signature=b"s" * 64,
            htlc_signatures=(),
        )
        after = next_of(applied(link, held)[0])
        assert after.fullest == (one if counts else NOTHING_PENDING)
    for link, counts in ((client, True), (lsp, False)):
        following = changed(next_of(link), given=Map())
        intended = ar.NextCommitmentIntended(
            channel_id=link.channel_id, number=link.state.peer_signed, sighash=b"s" * 32
        )
        after = next_of(applied(changed(link, next=following), intended)[0])
        assert after.fullest == (one if counts else NOTHING_PENDING)


def test_a_channel_whose_client_signed_nothing_goes_on_on_the_present_funding_alone() -> None:
    """The LSP committed itself, and its half was lost: of what is paid now the next has nothing."""
    with market():
        pump = advancing_factory(3)
        alice, dora = pump.client_at(BUYER), pump.client_at(ELSEWHERE)
        assert pay(pump, pump.lsp, alice, 9 * PENDING_MSAT).status == "paid"
        buy(pump, BUYER)
        pump.run_to(m.AdvanceCommit)

        def is_lost(_by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
            return () if isinstance(message, m.AdvancePropose | m.AdvanceCommit) else (message,)

        with pump.tampering(is_lost):
            connect_anew(pump, alice)
            watched = Watched(pump)
            paying_at_once(pump, pump.lsp, alice, 2)
            begin_payment(pump, alice, dora, PENDING_MSAT)
            clients, lsps = watched.steps()
    assert all(step.after.next is None for step in clients)
    assert all(not next_of(step.after).is_dual for step in lsps)
    finished = [*of_kind(lsps, cr.CommitmentFinished)]
    assert len(finished) >= 4
    for step in lsps:
        following = next_of(step.after)
        assert (following.fullest, following.own) == (NOTHING_PENDING, None), step.record
        if isinstance(step.record, cr.CommitmentFinished):
            assert not following.own_nonces, "those that were told are for numbers that are over"
        assert following.given == next_of(lsps[0].before).given
        assert step.after.finished_on(following.funding) is None
    assert lsps[-1].after.fullest == clients[-1].after.fullest
    assert both_links(pump, BUYER)[0].failure is None


def test_a_rebased_commitment_of_ours_is_on_the_next_funding_alone() -> None:
    link = at(m.UpdateRebase).client(BUYER)
    following = next_of(link)
    rebase = Rebase(
        advance_id=following.advance_id,
        capacity_sat=following.funding.capacity_sat,
        price_msat=following.price_msat,
    )
    offered = with_update(link, rebase, is_ours=False)
    record = cr.CommitmentFinished(
        channel_id=link.channel_id,
        signature=b"s" * 64,
        htlc_signatures=(),
        secret=b"k" * 32,
        next_point=b"\2" * 33,
        pool_id=b"pool",
        pubnonce=b"n" * 66,
    )
    after, settlement = applied(offered, record)
    assert settlement is not None
    assert settlement.rebase is None, "the LSP's is not rebased yet"
    assert after.finished_on(after.present) is None
    found = after.finished_on(following.funding)
    assert found is not None
    assert (found.signature, found.commitment.funding) == (record.signature, following.funding)
    assert link.finished_on(link.present) is not None
    assert at(END).client(BUYER).finished_on(following.funding) is not None
