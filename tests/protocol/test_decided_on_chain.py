"""What blocks decide of HTLCs in a channel that is on chain: each by its own output, how deep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import pytest
from immutables import Map
from tests.protocol.exits import ExitPump
from tests.protocol.paying_clients import book, lsp_link, make_invoice, newest_link, pay
from tests.protocol.seen_blocks import buried, spending, up_to
from tests.protocol.sleepers import lsp_state
from tests.protocol.unanswered import FIRST_MSAT, SMALL_MSAT, WORTH_MSAT

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.channel.commitment import Commitment
from cromford.channel.content import CommitmentContent
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc, Removal
from cromford.channel.terms import Party
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting import client as client_exits
from cromford.protocol.exiting import lsp as lsp_exits
from cromford.protocol.exiting.channel import (
    ELSEWHERE,
    OVERTAKEN,
    SWEPT_ABOVE,
    arriving_sat,
    earned_on_chain,
    given_up,
    has_lost_its_place,
    never_signed,
    owes_commitment,
    preimages_told,
    resolved_on_chain,
    settled_spender,
    watched_outpoints,
)
from cromford.protocol.exiting.incoming import TAKEN, ended_with_channel
from cromford.protocol.exiting.outgoing import ended_untold
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark

DEEP: Final = 6
INCOMING_MSAT: Final = 15_000_000  # More than what goes out: its output is the later one.
SECOND_MSAT: Final = 5_000_000
BOTH: Final = pytest.mark.parametrize("whose", ["own", "peer's"])


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """One channel in which both sides have HTLCs of the same number, as each side has it.

    Alice offered two, which Bob was paid for while she was away. The LSP offered one.
    """

    alice: ClientState
    factory: Factory
    link: Link
    theirs: Link
    preimages: tuple[bytes, bytes]
    preimage_of_alice: bytes


@cache
def crossing() -> Crossing:
    pump = ExitPump(0, n_clients=2)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, 2 * FIRST_MSAT).status == "paid"
    assert pay(pump, alice, bob, WORTH_MSAT).status == "paid"
    bob.facts_at = no_block_comes
    requests = [make_invoice(pump, bob, amount_msat) for amount_msat in (WORTH_MSAT, SECOND_MSAT)]
    for request in requests:
        pump.handle(alice, request)
        pump.run()
    alice.facts_at = no_block_comes
    incoming = make_invoice(pump, alice, INCOMING_MSAT)
    pump.handle(pump.lsp, incoming)
    pump.run()
    pump.disconnect(alice)
    bob.facts_at = lambda _height: FRESH
    pump.handle(bob, ev.FactsChanged())
    pump.run()
    link = newest_link(alice)
    first, second = (book(bob).invoices[one.payment_hash].preimage for one in requests)
    return Crossing(
        alice=alice.state,
        factory=lsp_state(pump).factory(0),
        link=link,
        theirs=lsp_link(pump, link),
        preimages=(first, second),
        preimage_of_alice=book(alice).invoices[incoming.payment_hash].preimage,
    )


def no_block_comes(_height: int) -> Facts:
    return replace(FRESH, stale="no block comes")


def commitment_of(link: Link, whose: str) -> Commitment:
    if whose == "own":
        return link.finished.commitment
    (theirs,) = link.peer_commitments_on(link.present)
    return theirs.commitment


def outputs_of(commitment: Commitment) -> dict[tuple[Party, int], OutPoint]:
    """Return where HTLCs are in a commitment, by who offered them and their numbers."""
    outputs = zip(commitment.tx.outpoints, commitment.outputs, strict=True)
    return {
        (one.htlc.offered_by, one.htlc.htlc_id): where
        for where, one in outputs
        if one.htlc is not None
    }


def numbers(link: Link) -> list[tuple[Party, int]]:
    return [(live.htlc.offered_by, live.htlc.htlc_id) for live in link.state.htlcs]


def with_htlcs(link: Link, htlcs: Sequence[LiveHtlc]) -> Link:
    return changed(link, state=changed(link.state, htlcs=tuple(htlcs)))


def two_inputs(first: OutPoint, second: OutPoint, witness: tuple[bytes, ...]) -> Tx:
    """Return what takes two outputs, and shows something in its second input alone."""
    both = spending(first, second)
    shows = replace(both.inputs[1], witness=witness)
    return replace(both, inputs=(both.inputs[0], shows))


def test_both_sides_count_their_htlcs_from_the_same_number_on() -> None:
    at = crossing()
    accepter, opener = Party.ACCEPTER, Party.OPENER
    assert numbers(at.link) == [(accepter, 1), (accepter, 2), (opener, 1)]
    assert sorted(numbers(at.theirs)) == sorted(numbers(at.link))
    for whose in ("own", "peer's"):
        assert set(outputs_of(commitment_of(at.link, whose))) == set(numbers(at.link))


# Of who offered them


def ends(
    chain: KnownChain, link: Link | None = None, known: Book | None = None
) -> list[tuple[int, bytes | None]]:
    """Return which of Alice's HTLCs a chain decides, and by which preimage."""
    at = crossing()
    (attempt,) = at.alice.attempts.values()
    holding = client_exits.in_hand(replace(at.alice, chain=chain), attempt)
    link = at.link if link is None else link
    holding = replace(holding, link=link)
    decided = list(resolved_on_chain(known or at.alice.book, link, holding, chain))
    assert all(one.channel_id == link.channel_id for one in decided)
    return [(one.htlc_id, one.preimage) for one in decided]


@BOTH
def test_an_htlc_is_decided_by_its_own_output_and_by_no_other(whose: str) -> None:
    at = crossing()
    commitment = commitment_of(at.link, whose)
    outputs = outputs_of(commitment)
    now = at.alice.chain
    assert ends(now) == []
    landed = buried(now, 4 * DEEP, commitment.tx)
    assert ends(landed) == [], "its preimage may still be shown"
    assert ends(buried(landed, DEEP, spending(outputs[Party.OPENER, 1]))) == []
    for number in (1, 2):
        back = spending(outputs[Party.ACCEPTER, number])
        assert ends(buried(landed, DEEP - 1, back)) == []
        assert ends(buried(landed, DEEP, back)) == [(number, None)]
        paid = spending(outputs[Party.ACCEPTER, number], witness=(at.preimages[number - 1],))
        assert ends(buried(landed, 1, paid)) == [(number, at.preimages[number - 1])], "at once"


@BOTH
def test_whatever_order_they_are_in_each_is_decided(whose: str) -> None:
    at = crossing()
    commitment = commitment_of(at.link, whose)
    outputs = outputs_of(commitment)
    back = spending(outputs[Party.ACCEPTER, 1])
    there = buried(buried(at.alice.chain, 2, commitment.tx), DEEP, back)
    turned = with_htlcs(at.link, at.link.state.htlcs[::-1])
    assert ends(there, turned) == [(1, None)]


@BOTH
def test_what_is_not_on_the_commitment_is_back_once_that_is_deep(whose: str) -> None:
    at = crossing()
    (first, *_) = at.link.state.htlcs
    proposed = changed(first, htlc=changed(first.htlc, htlc_id=3), stage=HtlcStage.ADD_PROPOSED)
    link = with_htlcs(at.link, (*at.link.state.htlcs, proposed))
    key = (link.channel_id, 3)
    known = replace(at.alice.book, owners=at.alice.book.owners.set(key, first.htlc.payment_hash))
    for depth in (DEEP - 1, DEEP):
        landed = buried(at.alice.chain, depth, commitment_of(link, whose).tx)
        assert ends(landed, link, known) == ([(3, None)] if depth == DEEP else [])
        assert ends(landed, link) == [], "it was decided"


def test_a_preimage_in_a_commitment_that_a_store_lost_counts_and_nothing_else_of_it() -> None:
    """Of what it pays our store knows nothing; who shows a preimage was paid by it all the same."""
    at = crossing()
    lost = spending(at.link.present.outpoint)
    shown = spending(lost.outpoint(0), witness=(*at.preimages[:1], at.preimage_of_alice))
    marked = changed(at.link, mark=StoreMark())
    behind = changed(at.link, is_behind=True)
    landed = buried(at.alice.chain, 2 * DEEP, lost)
    there = buried(landed, 1, shown)
    for link in (marked, behind):
        assert ends(at.alice.chain, link) == []
        assert ends(landed, link) == [], "it may be paid yet"
        assert ends(there, link) == [(1, at.preimages[0])]
    assert ends(there) == [], "what a whole store has never seen is no commitment"
    nobody = replace(at.alice.book, owners=Map())
    assert ends(there, marked, nobody) == [], "it was decided"


@BOTH
def test_what_was_decided_is_not_decided_again(whose: str) -> None:
    at = crossing()
    commitment = commitment_of(at.link, whose)
    back = spending(outputs_of(commitment)[Party.ACCEPTER, 2])
    there = buried(buried(at.alice.chain, 2, commitment.tx), DEEP, back)
    known = replace(at.alice.book, owners=at.alice.book.owners.delete((at.link.channel_id, 2)))
    assert ends(there, known=known) == []


def untold(chain: KnownChain) -> list[tuple[int, str]]:
    """Return which of Alice's HTLCs a chain ends of which nothing will tell, and how."""
    at = crossing()
    (attempt,) = at.alice.attempts.values()
    state = replace(at.alice, chain=chain)
    found = list(ended_untold(state, attempt, at.link, client_exits.in_hand))
    assert all(one.channel_id == at.link.channel_id for one in found)
    return [(one.htlc_id, one.reason) for one in found]


def test_an_htlc_is_untold_twelve_blocks_after_its_expiry_if_its_channel_ended_elsewhere() -> None:
    at = crossing()
    (attempt,) = at.alice.attempts.values()
    (gives_up,) = {
        give_up_height(live.htlc.cltv_expiry)
        for live in at.link.state.htlcs
        if live.htlc.offered_by is Party.ACCEPTER
    }

    def chain_with(tx: Tx, *, depth: int, height: int = gives_up) -> KnownChain:
        return buried(up_to(at.alice.chain, height - depth), depth, tx)

    assert untold(up_to(at.alice.chain, gives_up + 100)) == [], "it may be decided yet"
    ends_of = {
        SWEPT_ABOVE: spending(attempt.funding_outpoint),
        ELSEWHERE: spending(at.link.present.outpoint),
        OVERTAKEN: spending(attempt.funding_tx.inputs[0].outpoint),
    }
    for reason, tx in ends_of.items():
        assert untold(chain_with(tx, depth=DEEP - 1)) == []
        for depth in (DEEP, DEEP + 1):
            assert untold(chain_with(tx, depth=depth)) == [(1, reason), (2, reason)]
        assert untold(chain_with(tx, depth=2 * DEEP, height=gives_up - 1)) == []
    for whose in ("own", "peer's"):
        known = commitment_of(at.link, whose).tx
        assert untold(chain_with(known, depth=DEEP)) == [], "the chain decides each"


# Of who is paid by them


def earned(
    chain: KnownChain, link: Link | None = None, known: Book | None = None
) -> list[tuple[int, int]]:
    """Return of which of Alice's HTLCs the LSP earned the fee by a chain, and how much."""
    at = crossing()
    link = at.theirs if link is None else link
    holding = lsp_exits.in_hand(replace(at.factory, chain=chain), link.client)
    holding = replace(holding, link=link)
    found = list(earned_on_chain(known or at.factory.book, link, holding, chain))
    for one in found:
        forward = at.factory.book.forwards[one.channel_id, one.htlc_id]
        assert one.payment_hash == forward.payment_hash
        assert one.announced_by == forward.announced_by
    return [(one.htlc_id, one.fee_msat) for one in found]


def fee_of(number: int) -> int:
    at = crossing()
    fee_msat = at.factory.book.forwards[at.theirs.channel_id, number].fee_msat
    assert fee_msat > 0
    return fee_msat


@BOTH
def test_a_fee_is_earned_once_the_payers_htlc_was_taken_by_its_preimage_six_blocks_ago(
    whose: str,
) -> None:
    at = crossing()
    commitment = commitment_of(at.theirs, whose)
    outputs = outputs_of(commitment)
    assert earned(at.factory.chain) == []
    landed = buried(at.factory.chain, 4 * DEEP, commitment.tx)
    assert earned(landed) == []
    for number in (1, 2):
        taken = spending(outputs[Party.ACCEPTER, number], witness=(at.preimages[number - 1],))
        assert earned(buried(landed, DEEP - 1, taken)) == []
        for depth in (DEEP, DEEP + 1):
            assert earned(buried(landed, depth, taken)) == [(number, fee_of(number))]
        back = spending(outputs[Party.ACCEPTER, number])
        assert earned(buried(landed, DEEP, back)) == [], "its payer took it"


@BOTH
def test_what_another_input_shows_takes_no_htlc(whose: str) -> None:
    at = crossing()
    commitment = commitment_of(at.theirs, whose)
    outputs = outputs_of(commitment)
    landed = buried(at.factory.chain, 2, commitment.tx)
    first, second = outputs[Party.ACCEPTER, 1], outputs[Party.ACCEPTER, 2]
    shows = (at.preimages[1],)
    assert earned(buried(landed, DEEP, two_inputs(first, second, shows))) == [(2, fee_of(2))]
    assert earned(buried(landed, DEEP, two_inputs(second, first, shows))) == []


@BOTH
def test_nothing_is_earned_by_an_htlc_of_its_own_or_one_that_went_nowhere(whose: str) -> None:
    """An HTLC of the LSP's may have the number of one that it passed on."""
    at = crossing()
    commitment = commitment_of(at.theirs, whose)
    outputs = outputs_of(commitment)
    landed = buried(at.factory.chain, 2, commitment.tx)
    for preimage in (at.preimages[0], at.preimage_of_alice):
        own = spending(outputs[Party.OPENER, 1], witness=(preimage,))
        assert earned(buried(landed, DEEP, own)) == []
    taken = spending(outputs[Party.ACCEPTER, 1], witness=(at.preimages[0],))
    held = replace(at.factory.book, forwards=Map())
    assert earned(buried(landed, DEEP, taken), known=held) == []


@dataclass(frozen=True, kw_only=True)
class Cheat:
    """A payer's HTLC that is on a commitment which the payer revoked, at the LSP."""

    factory: Factory
    link: Link
    tx: Tx
    content: CommitmentContent
    output: OutPoint


@cache
def cheat() -> Cheat:
    pump = ExitPump(0, n_clients=2)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    bob.facts_at = no_block_comes
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run()
    before = newest_link(alice)
    (output,) = outputs_of(before.finished.commitment).values()
    assert pay(pump, pump.lsp, alice, SMALL_MSAT).status == "paid"
    link = lsp_link(pump, newest_link(alice))
    return Cheat(
        factory=lsp_state(pump).factory(0),
        link=link,
        tx=before.finished.tx,
        content=before.state.content(before.me, Edition.SIGNED),
        output=output,
    )


def test_of_a_cheat_a_fee_is_earned_by_the_penalty_if_somebody_was_paid() -> None:
    at = cheat()
    ((key, forward),) = at.factory.book.forwards.items()
    found = changed(at.link, breach=at.content)
    penalty = spending(at.output, witness=(bytes(64),))
    there = buried(buried(at.factory.chain, 2, at.tx), DEEP, penalty)
    holding = replace(
        lsp_exits.in_hand(replace(at.factory, chain=there), at.link.client), link=found
    )
    assert forward.preimage is None
    assert list(earned_on_chain(at.factory.book, found, holding, there)) == []
    paid = changed(forward, preimage=bytes(32))
    known = replace(at.factory.book, forwards=at.factory.book.forwards.set(key, paid))
    (one,) = earned_on_chain(known, found, holding, there)
    assert (one.htlc_id, one.fee_msat) == (key[1], forward.fee_msat)
    unknown = replace(holding, link=at.link)
    assert list(earned_on_chain(known, at.link, unknown, there)) == [], "it is looked up first"


def test_of_a_cheat_that_nobody_punished_in_time_no_fee_is_earned() -> None:
    """What it took by its HTLC's transaction is still ours until it has that out of its delay."""
    at = cheat()
    ((key, forward),) = at.factory.book.forwards.items()
    found = changed(at.link, breach=at.content)
    forwards = at.factory.book.forwards.set(key, changed(forward, preimage=bytes(32)))
    known = replace(at.factory.book, forwards=forwards)
    first = spending(at.output, witness=(bytes(64), bytes(64), bytes(33), bytes(65)))
    made = first.outpoint(0)
    punished, kept = (spending(made, witness=(bytes(64),) * n) for n in (1, 3))

    def end(chain: KnownChain) -> tuple[list[int], list[str]]:
        factory = replace(at.factory, chain=chain)
        holding = replace(lsp_exits.in_hand(factory, at.link.client), link=found)
        fees = [one.htlc_id for one in earned_on_chain(known, found, holding, chain)]
        ended = ended_with_channel(replace(factory, book=known), found, lambda *_: holding)
        return fees, [one.reason for one in ended]

    taken = buried(buried(at.factory.chain, 2, at.tx), 300, first)
    assert end(taken) == ([], [])
    assert end(buried(taken, DEEP - 1, kept)) == end(buried(taken, DEEP - 1, punished)) == ([], [])
    assert end(buried(taken, DEEP, kept)) == ([], [TAKEN])
    assert end(buried(taken, DEEP, punished)) == ([key[1]], [])
    # What else one of these takes, or pays, says nothing of it.
    beside = at.tx.outpoint(len(at.tx.outputs) - 1)
    assert end(buried(taken, DEEP, two_inputs(beside, made, (bytes(64),)))) == ([key[1]], [])
    merged = two_inputs(beside, at.output, first.inputs[0].witness)
    merged = replace(merged, outputs=first.outputs * 2)
    both = buried(buried(at.factory.chain, 2, at.tx), 300, merged)
    assert end(both) == end(buried(both, DEEP, spending(merged.outpoint(0)))) == ([], [])
    kept = spending(merged.outpoint(1), witness=(bytes(64),) * 3)
    assert end(buried(both, DEEP, kept)) == ([], [TAKEN])


# What is looked at on the way


def test_what_spent_a_channel_is_settled_six_blocks_deep_unless_it_has_to_be_looked_up() -> None:
    at = crossing()
    assert settled_spender(at.link, at.alice.chain) is None
    for tx in (at.link.finished.tx, spending(at.link.present.outpoint)):
        assert settled_spender(at.link, buried(at.alice.chain, DEEP - 1, tx)) is None
        for depth in (DEEP, DEEP + 1):
            assert settled_spender(at.link, buried(at.alice.chain, depth, tx)) == tx
    revoked = cheat()
    there = buried(revoked.factory.chain, 2 * DEEP, revoked.tx)
    assert settled_spender(revoked.link, there) is None
    found = changed(revoked.link, breach=revoked.content)
    assert settled_spender(found, there) == revoked.tx


def test_a_funding_has_lost_its_place_six_blocks_deep() -> None:
    """However few blocks a funding needs: it ends HTLCs, and all that does is as deep."""
    at = crossing()
    (attempt,) = at.alice.attempts.values()
    assert attempt.terms.min_depth < DEEP
    (coin, *_) = attempt.funding_tx.inputs
    rival = spending(coin.outpoint)
    told = [
        has_lost_its_place(who, buried(at.alice.chain, depth, rival))
        for who in (attempt, at.factory.attempt)
        for depth in (0, 1, DEEP - 1, DEEP, DEEP + 1)
    ]
    assert told == [False, False, False, True, True] * 2


def test_a_commitment_is_owed_to_a_peer_that_lost_state_alone() -> None:
    link = crossing().link
    assert not owes_commitment(None)
    assert not owes_commitment(link)
    assert owes_commitment(changed(link, peer_is_behind=True))


def test_all_outputs_of_what_spent_a_channel_are_watched_and_what_a_cheat_took_of_them() -> None:
    at = crossing()
    (attempt,) = at.alice.attempts.values()

    def watched(chain: KnownChain) -> set[OutPoint]:
        holding = client_exits.in_hand(replace(at.alice, chain=chain), attempt)
        return set(watched_outpoints(holding, chain))

    assert watched(at.alice.chain) == {at.link.present.outpoint}
    own = at.link.finished.tx
    landed = buried(at.alice.chain, 1, own)
    assert watched(landed) == {at.link.present.outpoint, *own.outpoints}
    anchor = own.outpoint(0)
    following = spending(anchor)
    assert following.outpoint(0) not in watched(buried(landed, 1, following)), "nobody's business"

    revoked = cheat()

    def watched_by_lsp(chain: KnownChain, link: Link = revoked.link) -> set[OutPoint]:
        holding = lsp_exits.in_hand(replace(revoked.factory, chain=chain), link.client)
        return set(watched_outpoints(replace(holding, link=link), chain))

    there = buried(revoked.factory.chain, 1, revoked.tx)
    assert watched_by_lsp(there) == {revoked.link.present.outpoint, *revoked.tx.outpoints}
    taken = spending(revoked.output)
    assert taken.outpoint(0) in watched_by_lsp(buried(there, 1, taken)), "it may be ours as well"


def test_what_arrives_is_what_can_be_taken_and_is_not_taken_yet() -> None:
    """A payer's HTLC is nothing for the LSP that has no preimage of it."""
    at = crossing()
    commitment = commitment_of(at.theirs, "peer's")
    outputs = outputs_of(commitment)
    amounts = dict(zip(commitment.tx.outpoints, commitment.tx.outputs, strict=True))
    landed = buried(at.factory.chain, 1, commitment.tx)

    def arriving(chain: KnownChain, factory: Factory = at.factory) -> int:
        there = replace(factory, chain=chain)
        return arriving_sat(lsp_exits.in_hand(there, at.theirs.client), chain)

    (mine,) = (
        where
        for where, one in zip(commitment.tx.outpoints, commitment.outputs, strict=True)
        if one.htlc is None and one.kind.name == "TO_PEER"
    )
    taken = [mine, *outputs.values()]
    assert arriving(at.factory.chain) == 0
    assert arriving(landed) == sum(amounts[one].amount_sat for one in taken)
    assert arriving(buried(landed, 1, spending(mine))) == sum(
        amounts[one].amount_sat for one in outputs.values()
    )
    unpaid = replace(at.factory, book=replace(at.factory.book, forwards=Map()))
    assert arriving(landed, unpaid) == sum(
        amounts[one].amount_sat for one in (mine, outputs[Party.OPENER, 1])
    )


# What is known of preimages, and of what was given up


def test_the_preimages_told_are_those_of_the_peers_htlcs_that_we_took() -> None:
    at = crossing()
    ours, theirs = Party.OPENER, Party.ACCEPTER

    def told(offered_by: Party, removal: Removal | None) -> dict[bytes, bytes]:
        (live,) = (
            one
            for one in at.theirs.state.htlcs
            if (one.htlc.offered_by, one.htlc.htlc_id) == (offered_by, 1)
        )
        return preimages_told(with_htlcs(at.theirs, [changed(live, removal=removal)]))

    preimage = at.preimages[0]
    assert told(theirs, None) == {}
    assert told(theirs, Removal(reason=b"no")) == {}
    assert list(told(theirs, Removal(preimage=preimage)).values()) == [preimage]
    assert told(ours, Removal(preimage=preimage)) == {}


def test_a_peers_htlc_of_the_same_number_is_none_that_is_given_up() -> None:
    """What waits is ours; the peer's own is the peer's to take back."""
    at = crossing()
    (ours,) = (live for live in at.theirs.state.htlcs if live.htlc.offered_by is Party.OPENER)
    key = (at.theirs.channel_id, ours.htlc.htlc_id)
    assert at.factory.book.is_unpaid(key)
    small = [
        changed(live, htlc=changed(live.htlc, amount_msat=SMALL_MSAT), stage=stage)
        for live in at.theirs.state.htlcs
        for stage in (HtlcStage.ADD_PROPOSED,)
        if live.htlc.htlc_id == ours.htlc.htlc_id
    ]
    assert len(small) == 2
    link = changed(with_htlcs(at.theirs, small), failure="it broke")
    lost = cr.HtlcDecided(channel_id=key[0], htlc_id=key[1], preimage=None)
    assert given_up(at.factory.book, link, height=10_000) == (lost,)
    assert never_signed(at.factory.book, link) == (lost,)
