"""What a block says of an LSP's factory: what it remembers, whom it tells, which channels end."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.advanced import Step
from tests.protocol.closes import closable_factory, close
from tests.protocol.decisions import Known, in_factory, remembered, said, wished
from tests.protocol.left_factories import (
    ALICE,
    BOB,
    channel,
    forwarding,
    having,
    holding,
    leaving,
    on,
    overtaken,
    paid,
    path,
    restored,
    seeing,
    unfunded,
    without_funding,
)
from tests.protocol.old_states import sold
from tests.protocol.seen_blocks import spending, up_to
from tests.protocol.unanswered import SMALL_MSAT, WORTH_MSAT

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.channel.stage import HtlcStage
from cromford.protocol.channels.htlc_rules import give_up_height, publish_height
from cromford.protocol.exiting.closes import SPENT_UNKNOWN, close_anchors
from cromford.protocol.exiting.lsp import learn_from_block, on_block, on_headers
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.advance_records import StateSigned
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.record import Record
from cromford.protocol.turn import Turn
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

EXITING: Final = "the LSP brings the channel on chain"
SWEPT: Final = "the factory expired, and was swept above this channel"
SUPERSEDED: Final = "a state of the leaf that was replaced is on chain: its poisons take it apart"
UNANSWERED: Final = "an HTLC expired without an answer"
DEAR: Final = replace(FRESH, fees=OwnFees(estimates=((1008, 250_000),)))
FAILED: Final = "it broke"
LATE: Final = 1_000  # Blocks, after which nobody waits for a channel that failed in the first.


def block(factory: Factory, facts: Facts = FRESH, known: Known | None = None) -> Turn[Factory]:
    """Return what a factory decides of the block that it saw last."""
    turn = in_factory(factory, facts, known)
    on_block(turn)
    return turn


def ended(turn: Turn[Factory]) -> dict[int, str]:
    """Return the channels whose updates a decision ends, by client, and why."""
    failed = remembered(turn, cr.ChannelFailed)
    return {turn.link(one.channel_id).client: one.reason for one in failed}


def told(turn: Turn[Factory]) -> list[tuple[bytes, str]]:
    return [(one.channel_id, one.reason) for one in said(turn, m.ChannelFailure)]


def decided(turn: Turn[Factory]) -> list[cr.HtlcDecided]:
    return remembered(turn, cr.HtlcDecided)


def kinds(turn: Turn[Factory]) -> list[type[Record]]:
    return [type(one) for one in turn.decision.records]


def lost(factory: Factory, client: int) -> cr.HtlcDecided:
    """Return that the HTLC of a channel that the LSP offered came back."""
    link = channel(factory, client)
    (live,) = link.state.htlcs
    return cr.HtlcDecided(channel_id=link.channel_id, htlc_id=live.htlc.htlc_id, preimage=None)


def expiry_of(factory: Factory, client: int) -> int:
    (live,) = channel(factory, client).state.htlcs
    return live.htlc.cltv_expiry


def at(factory: Factory, height: int) -> Factory:
    return on(factory, up_to(factory.chain, height))


def deep(factory: Factory, n_blocks: int = 5) -> Factory:
    """Return a factory after some blocks more, with nothing of it in them."""
    return at(factory, factory.chain.height + n_blocks)


def swept(factory: Factory) -> Factory:
    return seeing(factory, spending(factory.attempt.funding_outpoint))


# Of a tree


def test_of_a_factory_that_nothing_happens_to_nothing_is_remembered() -> None:
    for factory in (paid(), unfunded(), forwarding(WORTH_MSAT)):
        assert block(factory).decision.records == ()


def test_what_the_newest_block_has_of_the_tree_is_told_once_whoever_published_it() -> None:
    root, state = path(paid(), ALICE)
    there = seeing(paid(), root)
    (told_root,) = remembered(block(there), xr.TreePublished)
    assert (told_root.height, told_root.transactions) == (there.chain.height, ("kickoff_root",))
    assert remembered(block(deep(there, 1)), xr.TreePublished) == []
    (told_state,) = remembered(block(seeing(there, state)), xr.TreePublished)
    assert told_state.transactions == (list(paid().attempt.branch(ALICE).nodes)[1].name,)


def test_what_is_swept_above_its_channels_is_told_once_and_ends_them_without_a_word() -> None:
    factory = forwarding(WORTH_MSAT)
    there = swept(at(factory, factory.attempt.terms.expiry_height))
    turn = block(there)
    (told_sweep,) = remembered(turn, xr.OutputsSwept)
    assert told_sweep.amount_sat == there.attempt.blueprint.tree.root_node.input_amount_sat
    assert ended(turn) == {ALICE: SWEPT, BOB: SWEPT}
    assert told(turn) == []
    assert decided(turn) == [], "a reorganisation may undo it"
    later = deep(turn.state)
    turn = block(later)
    assert remembered(turn, xr.OutputsSwept) == []
    assert decided(turn) == [lost(later, BOB)]


def test_what_was_spent_before_the_expiry_by_nothing_it_knows_is_called_by_its_name() -> None:
    """That takes the LSP's own key: somebody else has it, or it has an older journal."""
    expiry = paid().attempt.terms.expiry_height
    for height, why in ((0, SPENT_UNKNOWN), (expiry, SPENT_UNKNOWN), (expiry + 1, SWEPT)):
        before = at(paid(), height - 1) if height else paid()
        assert ended(block(swept(before))) == {ALICE: why, BOB: why}


# Of closes


@cache
def closing() -> Factory:
    """Return a factory whose close everybody signed, and that no block has yet."""
    pump = closable_factory(2)
    close(pump)
    return pump.factory


def close_tx() -> Tx:
    (finished,) = closing().closed.values()
    return finished.txs[0]


def test_a_close_in_a_block_is_told_and_ends_its_channels_only_six_blocks_deep() -> None:
    there = seeing(closing(), close_tx())
    turn = block(there)
    (confirmed,) = remembered(turn, cl.CloseConfirmed)
    script = there.attempt.payout_script
    paid_sat = sum(one.amount_sat for one in close_tx().outputs if one.script_pubkey == script)
    assert (confirmed.txid, confirmed.amount_sat) == (close_tx().txid, paid_sat)
    assert kinds(turn) == [cl.CloseConfirmed]
    assert kinds(block(deep(there, 4))) == []
    turn = block(deep(there))
    together = "the factory, or this part of it, was closed together"
    assert ended(turn) == {ALICE: together, BOB: together}
    assert told(turn) == []
    (over,) = remembered(turn, cl.PartClosed)
    assert over.clients == (ALICE, BOB)
    assert close_anchors(there) == {close_tx().outpoints[-1]}


def test_while_a_close_may_be_in_the_next_block_nobody_leaves_because_a_channel_failed() -> None:
    factory = having(closing(), ALICE, failure=FAILED, failed_height=0)
    assert kinds(block(at(factory, LATE))) == []


# Of channels


def test_a_channel_on_chain_takes_no_update_and_what_it_says_is_believed_six_blocks_deep() -> None:
    factory = forwarding(WORTH_MSAT)
    commitment = channel(factory, BOB).finished.commitment
    there = seeing(factory, *path(factory, BOB), commitment.tx)
    turn = block(there)
    assert ended(turn) == {BOB: "the channel is on chain"}
    assert told(turn) == []
    assert decided(turn) == []
    (vout,) = (vout for vout, one in enumerate(commitment.outputs) if one.htlc is not None)
    taken = seeing(there, spending(commitment.tx.outpoint(vout)))
    assert decided(block(deep(taken, 4))) == []
    assert decided(block(deep(taken))) == [lost(factory, BOB)]
    assert ended(block(seeing(factory, *path(factory, BOB)))) == {}, "its output is unspent"


def test_a_channel_that_is_left_takes_no_update_though_it_was_not_ready_when_that_began() -> None:
    turn = block(leaving(paid(), ALICE))
    assert ended(turn) == {ALICE: EXITING}
    assert told(turn) == [(channel(paid(), ALICE).channel_id, EXITING)]
    assert block(turn.state).decision.records == (), "it is said once"


def test_of_a_channel_that_is_left_the_chain_says_what_became_of_its_htlcs() -> None:
    small = forwarding(SMALL_MSAT)
    late = at(small, give_up_height(expiry_of(small, BOB)))
    assert decided(block(late)) == [lost(small, BOB)]
    assert decided(block(leaving(late, BOB))) == []


def test_an_exit_that_goes_on_is_not_begun_again() -> None:
    """Though the channel failed long ago by then: what is owed was asked for once."""
    factory = leaving(having(paid(), ALICE, failure=EXITING, failed_height=0), ALICE)
    turn = block(at(factory, LATE))
    assert (turn.decision.records, wished(turn, fx.Broadcast)) == ((), [])


# Of a state that was replaced


@cache
def old_state(until: Step) -> Factory:
    """Return a factory whose leaf lands in the state before the last that was sold."""
    pump, done = sold(until)
    root, _ = path(pump.factory, ALICE)
    return seeing(pump.factory, root, pump.attempt.signed_txs[done.leaf.states[0].name])


def test_in_a_state_that_was_replaced_channels_end_and_those_with_a_commitment_on_it_are_left() -> (
    None
):
    """What the poison takes is ours, too, until the channel was rebased: then all is revoked."""
    turn = block(old_state(Step.REBASED))
    assert ended(turn) == {ALICE: SUPERSEDED, BOB: SUPERSEDED}
    assert told(turn) == []
    assert remembered(turn, xr.ExitStarted) == []
    turn = block(old_state(Step.ACKNOWLEDGED))
    assert {one.client: one.reason for one in remembered(turn, xr.ExitStarted)} == {
        ALICE: SUPERSEDED,
        BOB: SUPERSEDED,
    }


def test_what_expired_in_a_state_that_was_replaced_is_lost_before_its_poison_comes() -> None:
    factory = forwarding(WORTH_MSAT)
    replaced = having(factory, BOB, superseded=(channel(factory, BOB).present,))
    there = seeing(replaced, *path(factory, BOB))
    late = at(there, give_up_height(expiry_of(factory, BOB)))
    assert decided(block(late)) == [lost(factory, BOB)]
    assert decided(block(at(there, late.chain.height - 1))) == []


def test_what_was_never_signed_is_lost_to_nobody_once_its_channel_is_over() -> None:
    factory = forwarding(WORTH_MSAT)
    link = channel(factory, BOB)
    (live,) = link.state.htlcs
    proposed = replace(link.state, htlcs=(replace(live, stage=HtlcStage.ADD_PROPOSED),))
    assert decided(block(having(factory, BOB, state=proposed))) == []
    over = having(factory, BOB, state=proposed, failure=FAILED)
    assert decided(block(over)) == [lost(factory, BOB)]


def test_a_state_that_the_lsp_alone_lacks_is_learned_from_the_block_that_has_it() -> None:
    pump, done = sold(Step.COMMITTED)
    factory = pump.factory
    root, _ = path(factory, ALICE)

    def learned(factory: Factory) -> list[StateSigned]:
        turn = in_factory(factory)
        learn_from_block(turn)
        return remembered(turn, StateSigned)

    signed = done.leaf.state.tx.with_witnesses((b"\x07" * 64,))
    assert learned(seeing(factory, root)) == []
    (found,) = learned(seeing(factory, root, signed))
    assert (found.attempt_id, found.signature) == (factory.attempt.attempt_id, b"\x07" * 64)


# HTLCs that nobody answers


def test_an_htlc_with_an_output_is_not_given_up_while_its_funding_may_come_back() -> None:
    factory = without_funding(forwarding(WORTH_MSAT))
    late = at(factory, give_up_height(expiry_of(factory, BOB)))
    assert block(late).decision.records == ()


def test_where_the_funding_lost_its_place_both_channels_end_with_what_was_in_them() -> None:
    """What was offered to a client, and what another one offered, and nobody took up."""
    factory = overtaken(forwarding(WORTH_MSAT))
    turn = block(at(factory, give_up_height(expiry_of(factory, BOB))))
    assert (ended(turn), decided(turn), told(turn)) == (
        {BOB: UNANSWERED},
        [lost(factory, BOB)],
        [],
    )
    factory = overtaken(holding())
    late = at(factory, give_up_height(expiry_of(factory, ALICE)))
    assert block(at(factory, late.chain.height - 1)).decision.records == ()
    turn = block(late)
    (over,) = remembered(turn, cr.IncomingEnded)
    assert (over.channel_id, over.paid_msat) == (channel(factory, ALICE).channel_id, 0)
    assert (ended(turn), told(turn)) == ({ALICE: over.reason}, [])
    assert over.reason == "its channel's funding lost its place"


def test_of_a_restored_channel_no_htlc_is_written_off_and_one_that_ended_is_over() -> None:
    """It takes no update anyway, and its mark says why."""
    small = forwarding(SMALL_MSAT)
    late = at(small, give_up_height(expiry_of(small, BOB)))
    assert block(restored(late)).decision.records == ()
    held = overtaken(holding())
    turn = block(restored(at(held, give_up_height(expiry_of(held, ALICE)))))
    assert kinds(turn) == [cr.IncomingEnded]


# Whether a channel is left


def why(factory: Factory, *here: int, facts: Facts = FRESH) -> dict[int, str]:
    """Return which channels are left, and why, while some clients are here."""
    seats = factory.attempt.seats
    known = Known(here=frozenset(seats[client - 1].node_id for client in here))
    started = remembered(block(factory, facts, known), xr.ExitStarted)
    return {one.client: one.reason for one in started}


def failed() -> Factory:
    """Return a factory in which Alice's channel failed long ago."""
    return at(having(paid(), ALICE, failure=FAILED, failed_height=0), LATE)


def with_funding_at(factory: Factory, depth: int) -> Factory:
    txid, chain = factory.attempt.funding_tx.txid, factory.chain
    confirmed = chain.confirmed.update({txid: chain.height - depth + 1})
    return on(factory, replace(chain, confirmed=confirmed))


def test_a_failed_channel_is_left_from_the_fundings_first_block_on_until_the_expiry() -> None:
    left = {ALICE: f"the channel failed at height 0: {FAILED}"}
    assert why(failed()) == left
    assert why(without_funding(failed())) == {}
    assert why(with_funding_at(failed(), 1)) == left
    expiry = failed().attempt.terms.expiry_height
    assert why(at(failed(), expiry - 1)) == left
    assert why(at(failed(), expiry)) == {}, "what is left of it is swept"
    assert why(restored(failed())) == {}
    assert why(failed(), facts=DEAR) == {}


def settled(height: int, *, of: Factory | None = None) -> Factory:
    """Return a factory that somebody else's exit brought as far as its channels, at a height."""
    factory = of or paid()
    return at(seeing(factory, *path(factory, ALICE)), height)


VANISHED: Final = "the client vanished"
MOVED: Final = "the client moved out"


def test_a_channel_that_others_brought_on_chain_is_left_once_its_client_vanished() -> None:
    """It does not expire: the LSP's money would wait in it for ever."""
    expiry = paid().attempt.terms.expiry_height
    assert why(settled(expiry)) == {ALICE: VANISHED, BOB: VANISHED}
    assert why(settled(expiry - 1)) == {}
    assert why(settled(expiry), ALICE) == {BOB: VANISHED}
    assert why(settled(expiry), facts=DEAR) == {}
    late = at(paid(), expiry - 6)
    fresh = seeing(late, *path(late, ALICE))
    assert why(at(fresh, expiry)) == {}, "its output is five blocks deep"
    assert why(at(fresh, expiry + 1)) == {ALICE: VANISHED, BOB: VANISHED}


def test_who_was_away_itself_waits_six_blocks_for_its_clients() -> None:
    expiry = paid().attempt.terms.expiry_height
    for facts, is_left in (
        (replace(FRESH, stale="it reads"), False),
        (replace(FRESH, fresh_since=expiry - 5), False),
        (replace(FRESH, fresh_since=expiry - 6), True),
    ):
        assert bool(why(settled(expiry), facts=facts)) is is_left


@pytest.mark.parametrize("whose", ["held_keys", "lost_keys"])
def test_who_moved_out_does_not_come_back_to_its_channel_though_it_is_here(whose: str) -> None:
    expiry = paid().attempt.terms.expiry_height
    moved: Any = {whose: frozenset({ALICE})}
    factory = replace(settled(expiry), **moved)
    assert why(factory, ALICE, BOB) == {ALICE: MOVED}
    assert why(factory, BOB, facts=replace(FRESH, stale="it reads")) == {ALICE: MOVED}
    assert why(replace(settled(expiry - 1), **moved), ALICE, BOB) == {}


# By headers alone


def by_headers(factory: Factory) -> Turn[Factory]:
    """Return what a factory decides while no block comes, its node's headers far ahead."""
    height = expiry_of(forwarding(WORTH_MSAT), BOB)
    turn = in_factory(factory, replace(FRESH, stale="no block", header_height=height))
    on_headers(turn)
    return turn


def test_by_headers_a_channel_is_left_in_time_unless_that_is_of_no_use() -> None:
    factory = forwarding(WORTH_MSAT)
    (started,) = remembered(by_headers(factory), xr.ExitStarted)
    assert (started.client, started.reason) == (BOB, "an HTLC expires")
    down = path(factory, BOB)
    commitment = channel(factory, BOB).finished.tx
    poisoned = having(factory, BOB, superseded=(channel(factory, BOB).present,))
    for of_no_use in (
        leaving(factory, BOB),
        seeing(factory, *down, commitment),
        seeing(poisoned, *down),
        restored(factory),
        without_funding(factory),
        at(factory, factory.attempt.terms.expiry_height),
        paid(),
    ):
        assert by_headers(of_no_use).decision.is_nothing


def test_an_htlc_hurries_by_the_way_that_is_left() -> None:
    factory = forwarding(WORTH_MSAT)
    due = publish_height(channel(factory, BOB), expiry_of(factory, BOB), chain=factory.chain)
    assert why(at(factory, due - 1)) == {}
    assert why(at(factory, due)) == {BOB: "an HTLC expires"}
    poisoned = having(factory, BOB, superseded=(channel(factory, BOB).present,))
    assert why(at(seeing(poisoned, *path(factory, BOB)), due)) == {BOB: SUPERSEDED}
