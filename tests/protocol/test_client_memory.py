"""What a client remembers: of wishes, pauses, connections, moves, purchases and restored stores."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advances import advancing_factory, market, sell
from tests.protocol.houses import spend_of, txid_of
from tests.protocol.ladders import FEERATES, asked_for_keys, build_with
from tests.protocol.paying_clients import live_factory, make_invoice
from tests.protocol.pump import Pump

from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.factory.lifetime import Period
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import Checked, ClientAttempt, Complete, HasExit
from cromford.protocol.journal.client_state import (
    ClientState,
    Joining,
    Wish,
    apply,
    tries_to_pause,
)
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.journal.moving import NOT_MOVING, RETRY_BLOCKS, Moving
from cromford.protocol.journal.next_funding import NextFunding
from cromford.protocol.journal.pause import ABORTS_TO_PAUSE, JOINS_TO_PAUSE, PAUSE_BLOCKS
from cromford.wallet.account import GAP_LIMIT
from cromford.wire import messages as m

WISH: Final = Wish(capacity_sat=100_000, capacity_least_sat=50_000)
OTHER_LSP: Final = b"\2" + bytes(32)


@cache
def live() -> ClientState:
    """Return a client with a channel, and an open invoice."""
    pump = live_factory(2)
    make_invoice(pump, pump.clients[0], 1_000)
    state = pump.clients[0].state
    assert isinstance(state, ClientState)
    return state


@cache
def bought() -> ClientState:
    """Return a client whose leaf was advanced once."""
    pump = advancing_factory(2)
    with market():
        sell(pump, 1)
    state = pump.client_at(1).state
    assert isinstance(state, ClientState)
    return state


def attempt_of(state: ClientState) -> ClientAttempt:
    (attempt,) = state.attempts.values()
    return attempt


def with_attempt(state: ClientState, **changes: Any) -> ClientState:
    attempt = replace(attempt_of(state), **changes)
    return replace(state, attempts={attempt.attempt_id: attempt})


def at_height(state: ClientState, height: int) -> ClientState:
    """Return a client after an empty block at a height."""
    return apply(state, r.BlockConnected(height=height, block_hash=bytes(txid_of(height)), txs=()))


def joined(state: ClientState) -> ClientState:
    """Return a client after it asked to join once more."""
    number = state.next_attempt
    return apply(state, lr.JoinSent(attempt=number, join=attempt_of(live()).join))


def answered(state: ClientState, refusal: str | None) -> ClientState:
    return apply(joined(state), lr.JoinAnswered(factory_pubkey=b"", refusal=refusal))


# Wishes


def test_a_client_joins_so_often_in_an_hour_and_waits_then_for_one() -> None:
    state = replace(live(), wish=WISH, join_heights=())
    height = state.chain.height
    for n in range(ABORTS_TO_PAUSE):
        assert (state.may_join, state.paused_until) == (True, None), n
        before = state
        state = joined(state)
        assert state.next_attempt == before.next_attempt + 1
        assert state.joining == Joining(
            attempt=before.next_attempt, join=attempt_of(live()).join, is_accepted=False
        )
    assert len(joined(state).join_heights) == ABORTS_TO_PAUSE
    assert (state.may_join, state.paused_until) == (False, height + PAUSE_BLOCKS)
    nearly = at_height(state, height + PAUSE_BLOCKS - 1)
    then = at_height(state, height + PAUSE_BLOCKS)
    assert (nearly.may_join, then.may_join, then.paused_until) == (False, True, None)


def test_an_older_join_is_read_with_all_that_was_sent() -> None:
    pump = Pump(1)
    pump.join()
    (join,) = pump.sent(pump.clients[0], m.Join)
    whole = lr.JoinSent(attempt=4, message=m.encode_message(join))
    state = apply(live(), whole)
    assert state.joining is not None
    assert state.joining.join.capacity_sat == join.capacity_sat
    assert state.joining.join == pump.clients[0].state.joining.join


def test_a_wish_that_waited_before_outlives_a_refusal_and_any_other_is_over() -> None:
    height = live().chain.height
    accepted = answered(replace(live(), wish=WISH, refusal="before"), None)
    assert accepted.wish == replace(WISH, was_accepted=True)
    assert (accepted.refusal, accepted.joining is not None) == (None, True)
    assert accepted.joining is not None
    assert accepted.joining.is_accepted
    refused = answered(accepted, "the lobby is full")
    assert refused.wish == replace(WISH, was_accepted=True, refused_height=height)
    assert (refused.refusal, refused.joining) == ("the lobby is full", None)
    assert refused.paused_until == height + RETRY_BLOCKS
    assert at_height(refused, height + RETRY_BLOCKS).paused_until is None
    again = answered(refused, None)
    assert again.wish == replace(WISH, was_accepted=True)
    assert answered(replace(live(), wish=WISH), "no").wish is None
    moves = replace(WISH, moves_from=b"factory", was_accepted=True)
    assert answered(replace(live(), wish=moves), "no").wish is None, "it is made anew"
    assert replace(live(), wish=None).paused_until is None
    gone = answered(replace(live(), wish=None), None)
    assert (gone.wish, gone.refusal) == (None, None)
    assert answered(replace(live(), wish=None), "no").wish is None
    with pytest.raises(AssertionError, match="an answer without a join"):
        apply(replace(live(), joining=None), lr.JoinAnswered(factory_pubkey=b"", refusal=None))


def test_a_refusal_and_too_many_joins_close_the_door_until_the_later_of_both() -> None:
    height = live().chain.height
    state = replace(
        live(),
        wish=replace(WISH, refused_height=height + 1),
        join_heights=(height,) * ABORTS_TO_PAUSE,
    )
    assert state.paused_until == max(height + PAUSE_BLOCKS, height + 1 + RETRY_BLOCKS)
    early = replace(state, wish=replace(WISH, refused_height=height - 3))
    assert early.paused_until == height + PAUSE_BLOCKS


def test_what_the_lobby_says_of_a_wish_to_move_out_is_kept_with_the_move() -> None:
    wish = replace(WISH, moves_from=b"dying")
    height = live().chain.height
    refused = answered(replace(live(), wish=wish), "full")
    assert refused.moving[b"dying"] == Moving(refusal="full", failed_height=height)
    accepted = answered(replace(refused, wish=wish), None)
    assert accepted.moving[b"dying"] == NOT_MOVING
    ours = Moving(refusal="we refused", is_own_refusal=True, failed_height=height)
    kept = answered(replace(live(), wish=wish, moving=Map({b"dying": ours})), None)
    assert kept.moving[b"dying"] == replace(ours, failed_height=None)
    theirs = answered(replace(live(), wish=wish, moving=Map({b"dying": ours})), "full")
    assert theirs.moving[b"dying"] == Moving(refusal="full", failed_height=height)
    plain = answered(replace(live(), wish=WISH), None)
    assert plain.moving == Map()


def test_another_lsp_said_nothing_of_a_wish() -> None:
    wish = replace(WISH, was_accepted=True, refused_height=5)
    state = replace(live(), wish=wish)
    same = apply(state, r.PeerConnected(node_id=state.lsp_node_id))
    other = apply(state, r.PeerConnected(node_id=OTHER_LSP))
    assert (same.wish, other.wish) == (wish, WISH)
    assert (other.lsp_node_id, other.is_connected) == (OTHER_LSP, True)
    assert apply(replace(state, wish=None), r.PeerConnected(node_id=OTHER_LSP)).wish is None
    attempt = attempt_of(state)
    assert state.attempt_with(attempt.lsp_node_id, attempt.attempt_id) == attempt
    assert state.attempt_with(OTHER_LSP, attempt.attempt_id) is None
    assert state.attempt_with(attempt.lsp_node_id, b"another") is None


# Connections


def test_a_connection_that_ends_takes_what_was_true_of_it() -> None:
    state = joined(replace(live(), wish=WISH))
    attempt_id = attempt_of(state).attempt_id
    state = apply(state, mk.QuoteAsked(attempt_id=attempt_id, amount_sat=1, payment_hash=b""))
    lobby = m.encode_message(lobby_message())
    state = apply(state, lr.LobbyGreeted(message=lobby))
    assert state.lobby == lobby_message()
    assert state.joining is None, "whoever greets again heard of no join"
    state = joined(state)
    assert state.is_connected
    for record in (r.PeerDisconnected(node_id=state.lsp_node_id), r.Started()):
        after = apply(state, record)
        assert not after.is_connected
        assert (after.lobby, after.joining, after.quotes) == (None, None, Map())
        assert not any(link.state.is_connected for link in after.book.links.values())
        assert after.wish == WISH
    withdrawn = apply(state, lr.WishWithdrawn())
    assert (withdrawn.wish, withdrawn.joining) == (None, None)


@cache
def lobby_message() -> m.Lobby:
    pump = Pump(1)
    return pump.sent(pump.lsp, m.Lobby)[0]


# Advances that others begin


def test_a_client_takes_part_in_so_many_tries_of_each_neighbour_in_an_hour() -> None:
    state = live()
    attempt, height = attempt_of(state), state.chain.height
    pubkeys = attempt.leaf_pubkeys
    assert len(pubkeys) == 3
    assert tries_to_pause(attempt) == JOINS_TO_PAUSE
    assert state.may_advance(attempt.attempt_id)
    assert state.may_advance(b"an attempt that is still checked")
    made = ar.AdvancePoolsMade(
        attempt_id=attempt.attempt_id, advance_id=b"a", factory_pool=b"", channel_pools=()
    )
    for n_blocks, may in ((0, False), (PAUSE_BLOCKS - 1, False), (PAUSE_BLOCKS, True)):
        heights = Map({attempt.attempt_id: (height - n_blocks,) * JOINS_TO_PAUSE})
        assert replace(state, advance_heights=heights).may_advance(attempt.attempt_id) is may
    few = Map({attempt.attempt_id: (height,) * (JOINS_TO_PAUSE - 1)})
    assert replace(state, advance_heights=few).may_advance(attempt.attempt_id)
    assert made.attempt_id == attempt.attempt_id


class Neighbours:
    """Stands in for an attempt in whose leaf so many clients are."""

    def __init__(self, n_clients: int) -> None:
        self.leaf_pubkeys = dict.fromkeys(range(n_clients + 1), b"")


@pytest.mark.parametrize(("n_clients", "times"), [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_each_neighbour_in_a_leaf_may_try_as_often(n_clients: int, times: int) -> None:
    neighbours: Any = Neighbours(n_clients)
    assert tries_to_pause(neighbours) == times * JOINS_TO_PAUSE


# What is watched


def test_what_matters_in_a_block_is_watched_until_a_client_gave_its_keys_away() -> None:
    state = live()
    attempt = attempt_of(state)
    assert attempt.funding_tx.txid in state.watched_txids
    assert state.watched_txids == attempt.watched_txids
    retired = with_attempt(state, retired_height=7)
    assert retired.watched_txids == frozenset()
    both = replace(state, attempts={b"retired": attempt_of(retired), attempt.attempt_id: attempt})
    assert both.watched_txids == attempt.watched_txids, "one of several"
    early = with_attempt(state, stage=Checked(candidate=attempt.candidate))
    assert early.watched_txids == frozenset(), "nothing of it can be published by us"
    stage = attempt.stage
    assert isinstance(stage, Complete)
    signing = HasExit(
        candidate=stage.candidate,
        signatures=stage.signatures,
        commitment_signature=stage.commitment_signature,
    )
    assert with_attempt(state, stage=signing).watched_txids == attempt.watched_txids
    (link,) = state.book.links.values()
    funding = replace(link.present, outpoint=OutPoint(txid=txid_of(99), vout=0))
    following = NextFunding(advance_id=b"a", funding=funding, price_msat=0)
    book = changed(
        state.book, links=state.book.links.set(link.channel_id, changed(link, next=following))
    )
    assert replace(state, book=book).watched_txids == attempt.watched_txids | {txid_of(99)}


def test_the_open_attempt_is_the_one_that_may_still_become_a_factory() -> None:
    state = live()
    assert state.open_attempt is None, "it is ready"
    waiting = with_attempt(state, ready_sent=False)
    assert waiting.open_attempt == attempt_of(waiting)


@cache
def ladder() -> ClientState:
    pump = Pump(2)
    pump.join()
    asked_for_keys(pump, len(FEERATES))
    pump.handle(pump.lsp, build_with())
    pump.run()
    state = pump.clients[0].state
    assert isinstance(state, ClientState)
    return state


def test_a_block_shows_which_candidate_of_a_ladder_is_the_present_one() -> None:
    state = ladder()
    for rung, candidate in enumerate(attempt_of(state).candidates):
        block = r.BlockConnected(
            height=state.chain.height + 1,
            block_hash=bytes(txid_of(50)),
            txs=(candidate.funding_tx.serialize(),),
        )
        there = apply(state, block)
        assert attempt_of(there).rung == rung
        assert attempt_of(apply(there, r.BlockDisconnected(height=block.height))).rung == 0
        assert attempt_of(at_height(there, block.height + 1)).rung == rung
    stranger = spend_of(OutPoint(txid=txid_of(3), vout=0))
    block = r.BlockConnected(
        height=state.chain.height + 1, block_hash=bytes(32), txs=(stranger.serialize(),)
    )
    assert apply(state, block).attempts is state.attempts
    other = replace(attempt_of(live()), attempt_id=b"another")
    with_two = replace(state, attempts={b"another": other, **state.attempts})
    block = r.BlockConnected(
        height=state.chain.height + 1,
        block_hash=bytes(32),
        txs=(attempt_of(state).candidates[2].funding_tx.serialize(),),
    )
    assert [one.rung for one in apply(with_two, block).attempts.values()] == [0, 2]


# Exits, keys, periods


def test_an_exit_rests_and_goes_on_by_its_operators_word() -> None:
    attempt_id = attempt_of(live()).attempt_id
    leaving = apply(live(), xr.ExitStarted(attempt_id=attempt_id, client=1, reason="why"))
    assert (attempt_of(leaving).is_exiting, attempt_of(leaving).is_paused) == (True, False)
    resting = apply(leaving, xr.ExitPaused(attempt_id=attempt_id))
    assert attempt_of(resting).is_paused
    assert not attempt_of(
        apply(resting, xr.ExitResumed(attempt_id=attempt_id, reason=""))
    ).is_paused


def test_keys_that_were_given_away_are_taken_or_refused_by_the_newest_word() -> None:
    attempt_id, height = attempt_of(live()).attempt_id, live().chain.height
    state = apply(live(), hr.KeyRetired(attempt_id=attempt_id, to_attempt_id=b"", height=3))
    assert (attempt_of(state).retired_height, attempt_of(state).is_retired) == (3, True)
    refused = apply(state, hr.HandoverAnswered(attempt_id=attempt_id, refusal="full"))
    one = attempt_of(refused)
    assert (one.keys_taken, one.keys_refused, one.refused_height) == (False, "full", height)
    taken = attempt_of(apply(refused, hr.HandoverAnswered(attempt_id=attempt_id, refusal="")))
    assert (taken.keys_taken, taken.keys_refused) == (True, "")
    lost = replace(refused, attempts={attempt_id: taken})
    again = attempt_of(apply(lost, hr.HandoverAnswered(attempt_id=attempt_id, refusal="lost")))
    assert (again.keys_taken, again.keys_refused) == (False, "lost")


def test_a_period_is_the_newest_that_was_told() -> None:
    attempt_id = attempt_of(live()).attempt_id
    told = dr.PeriodBegan(attempt_id=attempt_id, height=1, period="dying")
    assert attempt_of(apply(live(), told)).period is Period.DYING


# Moving out


def moved(*records: dr.ClientDyingRecord) -> Moving:
    state = live()
    for record in records:
        state = apply(state, record)
    return state.moving[b"dying"]


def test_a_move_is_under_way_until_it_arrived_or_came_back_and_what_arrived_adds_up() -> None:
    height = live().chain.height
    named: dict[str, Any] = {"attempt_id": b"dying", "to_attempt_id": b"new", "payment_hash": b"h"}
    begun = dr.MoveStarted(amount_msat=5, **named)
    arrived = dr.MoveEnded(amount_msat=5, is_moved=True, **named)
    back = dr.MoveEnded(amount_msat=5, is_moved=False, **named)
    refused = dr.MoveHindered(attempt_id=b"dying", reason="terms", is_refusal=True)
    hindered = dr.MoveHindered(attempt_id=b"dying", reason="full")
    assert moved(begun) == Moving(payment=b"h", is_under_way=True)
    assert moved(begun, arrived) == Moving(payment=b"h", moved_msat=5)
    assert moved(begun, arrived, begun, arrived).moved_msat == 10
    failed = moved(begun, back)
    assert failed == Moving(payment=b"h", failed_height=height)
    assert not failed.may_try(height + RETRY_BLOCKS - 1)
    assert failed.may_try(height + RETRY_BLOCKS)
    assert NOT_MOVING.may_try(0)
    assert moved(begun, back, begun, arrived).failed_height is None
    assert moved(refused) == Moving(refusal="terms", is_own_refusal=True, failed_height=height)
    assert moved(hindered) == Moving(hindrance="full")
    assert moved(refused, hindered, begun) == Moving(
        payment=b"h", is_under_way=True, failed_height=height
    )
    chosen = dr.MoveChosen(attempt_id=b"dying", is_moving=False)
    assert moved(refused, chosen) == Moving(choice=False)


# Purchases


def test_what_was_bought_is_remembered_with_the_leaf_and_the_receipt() -> None:
    state = bought()
    attempt = attempt_of(state)
    assert len(attempt.leaf_states) == 1
    assert state.advances == Map(), "it is over"
    (receipt,) = state.receipts[attempt.attempt_id]
    (link,) = state.book.links.values()
    assert receipt.capacity_sat == link.present.capacity_sat
    assert state.advance_heights[attempt.attempt_id] == (state.chain.height,)


# Restored stores


def test_a_restored_store_forgets_its_wish_and_doubts_what_may_have_gone_on() -> None:
    state = with_attempt(replace(live(), wish=WISH), ready_sent=False)
    restored = apply(state, r.StoreRestored(backup_id=b"", source=""))
    assert restored.wish is None
    assert (restored.restored.is_unproven, restored.restored.forgot_keys) == (True, True)
    assert attempt_of(restored).is_marked
    assert not attempt_of(apply(live(), r.StoreRestored(backup_id=b"", source=""))).is_marked
    (link,) = restored.book.links.values()
    assert link.mark == StoreMark()
    (invoice,) = restored.book.invoices.values()
    assert invoice.is_doubtful
    lifted = apply(restored, r.MarkLifted())
    assert not lifted.restored.is_unproven
    assert lifted.restored.forgot_keys, "attempts may have been lost all the same"
    assert (attempt_of(lifted).is_marked, attempt_of(lifted).awaits_states) == (False, False)
    (link,) = lifted.book.links.values()
    assert link.mark is None
    (invoice,) = lifted.book.invoices.values()
    assert not invoice.is_doubtful
    skipped = apply(restored, r.KeysSkipped(next_attempt=40, scripts=GAP_LIMIT + 5))
    assert (skipped.next_attempt, skipped.restored.forgot_keys) == (40, False)
    assert skipped.restored.is_unproven
    assert skipped.wallet == restored.wallet.with_gap(GAP_LIMIT + 5)
    usual = apply(restored, r.KeysSkipped(next_attempt=40))
    assert usual.wallet == restored.wallet.with_gap(GAP_LIMIT)


def test_a_channel_that_had_failed_and_an_invoice_that_is_over_are_not_doubted() -> None:
    state = live()
    (link,), (invoice,) = state.book.links.values(), state.book.invoices.values()
    for over in ({"is_expired": True}, {"paid_by": (b"c", 1)}):
        book = changed(
            state.book,
            links=Map({link.channel_id: changed(link, failure="why")}),
            invoices=Map({invoice.payment_hash: changed(invoice, **over)}),
        )
        restored = apply(replace(state, book=book), r.StoreRestored(backup_id=b"", source=""))
        assert restored.book.links[link.channel_id].mark is None
        assert not restored.book.invoices[invoice.payment_hash].is_doubtful
        assert apply(restored, r.MarkLifted()).book == restored.book


def test_a_start_asks_for_the_states_that_a_store_may_lack() -> None:
    state = bought()
    attempt = attempt_of(state)
    (link,) = state.book.links.values()
    assert attempt.may_lack_states
    assert not attempt_of(apply(state, r.Started())).awaits_states
    marked = changed(state.book, links=Map({link.channel_id: changed(link, mark=StoreMark())}))
    lacking = replace(state, book=marked)
    assert attempt_of(apply(lacking, r.Started())).awaits_states
    early = with_attempt(state, is_marked=True)
    assert attempt_of(apply(early, r.Started())).awaits_states
    (one,) = attempt.leaf_states
    full = with_attempt(lacking, leaf_states=(one,) * 3)
    assert not attempt_of(apply(full, r.Started())).awaits_states, "its leaf can have no more"
    unsigned = with_attempt(lacking, stage=Checked(candidate=attempt.candidate))
    assert not attempt_of(apply(unsigned, r.Started())).awaits_states


def test_what_only_an_lsp_remembers_is_in_no_clients_journal() -> None:
    with pytest.raises(AssertionError, match="LadderWanted in a client's journal"):
        apply(live(), lr.LadderWanted(candidates=1))


def test_a_proposal_answers_the_join_that_was_sent_last() -> None:
    said = op.ProposalReceived(attempt_id=b"new", client=2, terms_hash=b"t")
    with pytest.raises(AssertionError, match="a proposal without a join"):
        apply(replace(live(), joining=None), said)
    state = apply(joined(replace(live(), wish=WISH)), said)
    attempt = state.attempts[b"new"]
    assert (attempt.client, attempt.terms_hash, attempt.is_checked) == (2, b"t", False)
    assert (attempt.key_attempt, attempt.lsp_node_id) == (state.next_attempt - 1, state.lsp_node_id)
    assert state.joining is None
    assert state.open_attempt == attempt
