"""What an LSP's factory remembers by record and letter, and tells its house and the chain."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from immutables import Map
from tests.protocol.frozen_state import LSP
from tests.protocol.houses import spend_of, txid_of
from tests.protocol.ladders import funded
from tests.protocol.paying_clients import live_factory
from tests.protocol.pump import Pump

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.factory.lifetime import Period
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal import records as r
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.channel_records import ForwardWithdrawn, PayDeclined
from cromford.protocol.journal.factory import Factory, apply_to_factory, new_factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import Aborted, Funded
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.mark import StoreMark
from cromford.protocol.journal.streams import CHAIN, HOUSE
from cromford.protocol.policy import LspPolicy

SERVED = OutPoint(txid=txid_of(4), vout=1)
BLOCKS = tuple(BlockRef(height=n, block_hash=txid_of(n)) for n in (7, 8, 9))


@cache
def live() -> Factory:
    """Return a live factory of two clients."""
    return live_factory(2).factory


@cache
def ladder() -> Factory:
    """Return a factory whose funding has three candidates, none in a block."""
    return funded(Pump(2, policy=LspPolicy(min_clients=1))).factory


def told(factory: Factory, content: mail.AnyMail, *, by: str = HOUSE) -> Factory:
    number = factory.post.taken.get(by, 0) + 1
    return apply_to_factory(factory, MailTaken(sender=by, number=number, mail=content))


def found(factory: Factory, *txs: Tx, height: int = 50) -> Factory:
    """Return a factory after a block that has something for it."""
    content = mail.Found(
        height=height, block_hash=bytes(txid_of(height)), txs=tuple(tx.serialize() for tx in txs)
    )
    return told(factory, content, by=CHAIN)


def letters(factory: Factory, receiver: str) -> list[Any]:
    return [*factory.post.outbox.get(receiver, ())]


def name_of(factory: Factory) -> bytes:
    return factory.attempt.attempt_id


# Its beginning


def test_a_factory_begins_with_its_order_and_with_no_other() -> None:
    new = new_factory(LSP, 4)
    with pytest.raises(AssertionError, match="factory:4 has not begun"):
        _ = new.attempt
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run()
    (order,) = [one for one in pump.lsp.store.remembered if isinstance(one, lr.FactoryOrdered)]
    begun = told(new, order.order)
    assert begun.attempt.is_open
    assert [coin.outpoint for coin in begun.coins] == [
        tx_in.outpoint for tx_in in begun.attempt.funding_tx.inputs
    ]
    with pytest.raises(AssertionError, match="factory:4 was ordered before"):
        told(begun, order.order)


def test_what_became_of_a_ceremony_is_told_the_house_as_it_was() -> None:
    begun = live()
    aborted = op.AttemptAborted(
        attempt_id=name_of(begun),
        reason="silent",
        culprits=(b"n",),
        is_fault=True,
        tries_again=False,
    )
    over = letters(apply_to_factory(begun, aborted), HOUSE)[-1]
    assert over == mail.CeremonyEnded(
        attempt_id=name_of(begun),
        aborted="silent",
        culprits=(b"n",),
        is_fault=True,
        tries_again=False,
    )


def test_channels_of_a_restored_store_that_may_have_been_used_begin_with_a_mark() -> None:
    begun = replace(live(), book=Book())
    ready = op.ReadySent(attempt_id=name_of(begun))
    plain = apply_to_factory(begun, ready).book
    assert sorted(link.client for link in plain.links.values()) == [1, 2]
    assert [link.mark for link in plain.ordered_links] == [None, None]
    restored = replace(begun, is_marked=True, exits=frozenset({2}))
    assert [restored.is_unproven(client) for client in (1, 2)] == [True, False]
    assert not begun.is_unproven(1)
    marked = apply_to_factory(restored, ready).book
    marks = {link.client: link.mark for link in marked.links.values()}
    assert marks == {1: StoreMark(), 2: None}, "one that we were leaving takes no update"


# The chain


def test_its_tip_is_a_fact_and_no_part_of_what_it_remembers() -> None:
    one = live().at(BLOCKS)
    assert one.chain.recent == BLOCKS[-1:]
    assert one.at(BLOCKS) is one
    assert one.at(BLOCKS[:2]).chain.height == 8
    assert one.at(()).chain.recent == ()
    assert one.at(one.chain.recent) is one
    later = found(one, spend_of(SERVED))
    assert later.chain.recent == one.chain.recent
    assert SERVED in later.chain.spends
    back = told(later, mail.Lost(height=50), by=CHAIN)
    assert (back.chain.recent, SERVED in back.chain.spends) == (one.chain.recent, False)
    assert one.durable.chain.recent == ()
    asked = apply_to_factory(one, mk.QuoteCounted(client=1))
    assert asked.quoted != one.quoted
    assert asked.durable == one.durable, "what was quoted is true of one run"


def test_it_is_dead_while_something_took_its_fundings_place_deep_enough() -> None:
    one = live()
    attempt = one.attempt
    assert isinstance(attempt.stage, Funded)
    rival = spend_of(attempt.funding_tx.inputs[0].outpoint)
    chain = KnownChain(recent=(BlockRef(height=60, block_hash=txid_of(60)),))
    over = chain.with_block(BlockRef(height=50, block_hash=txid_of(50)), (rival,))
    deep = replace(over, recent=(BlockRef(height=60, block_hash=txid_of(60)),))
    died = replace(attempt, stage=replace(attempt.stage, is_dead=True))
    dead = replace(one, begun=died, chain=deep)
    assert dead.is_dead
    assert not replace(one, chain=deep).is_dead, "nobody found it dead"
    assert not replace(one, begun=died, chain=chain).is_dead, "a reorganisation undid it"
    assert not replace(one, begun=replace(attempt, stage=Aborted(reason="")), chain=deep).is_dead


def test_another_candidate_in_a_block_is_a_tree_without_channels() -> None:
    one = ladder()
    attempt = one.attempt
    assert isinstance(attempt.stage, Funded)
    pinned = replace(attempt, stage=replace(attempt.stage, ready_sent=True))
    channels = apply_to_factory(one, op.ReadySent(attempt_id=attempt.attempt_id)).book
    full = replace(
        one,
        begun=pinned,
        book=channels,
        closed_seats=frozenset({1}),
        settled=Map({2: 5}),
    )
    assert full.landed is full
    for rung, rival in enumerate(attempt.ladder):
        there = found(full, rival.blueprint.funding_tx)
        assert there.attempt.rung == 0, "channels keep their candidate"
        if rung == 0:
            assert there.landed is there
            continue
        landed = there.landed
        assert landed.attempt.rung == rung
        assert (landed.book, landed.closed_seats, landed.settled) == (Book(), frozenset(), Map())
        unpinned = found(one, rival.blueprint.funding_tx)
        assert unpinned.attempt.rung == rung, "the chain says which one is the present one"
        assert unpinned.landed is unpinned
        assert told(unpinned, mail.Lost(height=50), by=CHAIN).attempt.rung == 0
    assert new_factory(LSP, 4).landed == new_factory(LSP, 4)
    raised = told(one, mail.FundingRaised(attempt_id=attempt.attempt_id, rung=2))
    assert (raised.attempt.published, raised.attempt.rung) == (2, 2)
    given_up = mail.FundingGivenUp(attempt_id=attempt.attempt_id, tx=spend_of(SERVED).serialize())
    stage = told(one, given_up).attempt.stage
    assert isinstance(stage, Funded)
    assert stage.replacement == spend_of(SERVED)


def test_a_channel_is_where_the_chain_has_it_and_before_it_is_ready_where_it_was_opened() -> None:
    one = live()
    setting = one.attempt.setting(1)
    assert one.funding_on_chain(1) == setting.funding
    assert replace(one, book=Book()).funding_on_chain(1) == setting.funding
    (link,) = [link for link in one.book.links.values() if link.client == 1]
    moved = replace(link.present, capacity_sat=link.present.capacity_sat + 1)
    other = changed(link, setting=replace(link.setting, funding=moved))
    book = changed(one.book, links=one.book.links.set(link.channel_id, other))
    assert replace(one, book=book).funding_on_chain(1) == moved


# What it asks of the house and the chain


def test_what_it_watches_is_asked_of_the_chain_with_the_letters_it_had_heard() -> None:
    one = found(found(live()), height=51)
    heard = one.post.taken.get(CHAIN, 0)
    asked = apply_to_factory(one, xr.Watching(height=9, outpoints=(SERVED.serialize(),)))
    assert asked.watch == {SERVED}
    assert not asked.is_watched
    assert letters(asked, CHAIN)[-1] == mail.Watch(
        height=9, outpoints=(SERVED.serialize(),), heard=heard
    )
    assert told(asked, mail.Watched(height=9), by=CHAIN).is_watched
    new = apply_to_factory(new_factory(LSP, 4), xr.Watching(height=9, outpoints=()))
    assert letters(new, CHAIN)[-1].heard == 0


def coins_sent(*amounts_sat: int) -> mail.CoinsSent:
    coins = tuple(
        mail.FundingCoin(amount_sat=amount_sat, script_pubkey=b"\x51", change=0, index=n)
        for n, amount_sat in enumerate(amounts_sat)
    )
    outpoints = [OutPoint(txid=txid_of(20 + n), vout=n).serialize() for n in range(len(coins))]
    return mail.CoinsSent(
        outpoint=SERVED.serialize(),
        outpoints=tuple(outpoints),
        coins=coins,
        change_script=b"\x52",
    )


def test_coins_are_wanted_until_what_was_asked_for_is_there_and_given_back_once_settled() -> None:
    asked = apply_to_factory(
        live(), xr.CoinsAsked(outpoint=SERVED.serialize(), needed_sat=3_000, feerate_sat_per_kw=9)
    )
    assert asked.coins_asked == Map({SERVED: 3_000})
    assert letters(asked, HOUSE)[-1] == mail.CoinsRequested(
        outpoint=SERVED.serialize(), needed_sat=3_000, feerate_sat_per_kw=9
    )
    some = told(asked, coins_sent(1_000, 1_999))
    assert some.coins_asked == Map({SERVED: 3_000})
    purse = some.purses[SERVED]
    assert (purse.amount_sat, purse.change_script) == (2_999, b"\x52")
    assert [coin.path.index for coin in purse.coins] == [0, 1]
    enough = told(some, coins_sent(1))
    assert enough.coins_asked == Map()
    assert enough.purses[SERVED].amount_sat == 3_000
    unasked = told(live(), coins_sent(5))
    assert (unasked.coins_asked, unasked.purses[SERVED].amount_sat) == (Map(), 5)
    record = xr.CoinsReturned(outpoint=SERVED.serialize(), cost_sat=40)
    back = apply_to_factory(some, record)
    assert (back.coins_asked, back.purses[SERVED].coins, back.purses[SERVED].cost_sat) == (
        Map(),
        (),
        40,
    )
    assert letters(back, HOUSE)[-1] == mail.CoinsGivenBack(outpoint=SERVED.serialize())


def test_what_ended_for_good_is_told_the_house_once_for_each_record() -> None:
    name = name_of(live())
    closed = apply_to_factory(live(), cl.PartClosed(attempt_id=name, clients=(1, 2), amount_sat=70))
    assert closed.closed_seats == {1, 2}
    assert letters(closed, HOUSE)[-1] == mail.ChannelsClosed(
        attempt_id=name, clients=(1, 2), amount_sat=70
    )
    settled = apply_to_factory(live(), xr.ExitSettled(attempt_id=name, client=2, amount_sat=60))
    assert settled.settled == Map({2: 60})
    assert letters(settled, HOUSE)[-1] == mail.ChannelSettled(
        attempt_id=name, client=2, amount_sat=60
    )


def test_what_another_factory_was_asked_to_take_is_void_once_it_is_withdrawn() -> None:
    asked = mail.ForwardAsked(
        channel_id=b"c", htlc_id=3, payment_hash=b"", cltv_expiry=1, delivery=b""
    )
    one = live()
    one = replace(one, post=one.post.with_sent((mail.Letter("factory:9", asked),)))
    after = apply_to_factory(one, ForwardWithdrawn(channel_id=b"c", htlc_id=3))
    assert letters(after, "factory:9") == [mail.Withdrawn()]
    other = apply_to_factory(one, ForwardWithdrawn(channel_id=b"c", htlc_id=4))
    assert letters(other, "factory:9") == [asked]


def test_a_block_may_concern_a_factory_of_which_nothing_is_remembered_yet() -> None:
    assert SERVED in found(new_factory(LSP, 4), spend_of(SERVED)).chain.spends


def test_keys_that_are_held_and_lost_are_never_both() -> None:
    name = name_of(live())
    held = apply_to_factory(live(), hr.KeysHeld(attempt_id=name, client=2))
    assert (held.held_keys, held.lost_keys) == (frozenset({2}), frozenset())
    assert letters(held, HOUSE)[-1] == mail.SeatLeft(attempt_id=name, client=2)
    lost = apply_to_factory(held, hr.KeysLost(attempt_id=name, client=2, reason=""))
    assert (lost.held_keys, lost.lost_keys) == (frozenset(), frozenset({2}))
    assert letters(lost, HOUSE) == letters(held, HOUSE)
    again = apply_to_factory(lost, hr.KeysHeld(attempt_id=name, client=2))
    assert (again.held_keys, again.lost_keys) == (frozenset({2}), frozenset())


def test_exits_periods_and_refusals_are_kept_as_they_come() -> None:
    name = name_of(live())
    leaving = apply_to_factory(live(), xr.ExitStarted(attempt_id=name, client=2, reason=""))
    assert leaving.exits == {2}
    both = apply_to_factory(leaving, xr.ExitStarted(attempt_id=name, client=1, reason=""))
    assert both.exits == {1, 2}
    dying = apply_to_factory(live(), dr.PeriodBegan(attempt_id=name, height=1, period="dying"))
    assert dying.period is Period.DYING
    wanted = apply_to_factory(live(), dr.CloseWanted(attempt_id=name, height=8))
    assert wanted.close_height == 8
    refused = r.BroadcastRefusalSeen(name="", txid=bytes(txid_of(3)), reason="low fee, 1 < 2")
    assert apply_to_factory(live(), refused).chain.refused == {txid_of(3): ("low fee",)}
    published = xr.FirstPublished(outpoint=SERVED.serialize(), height=8)
    assert apply_to_factory(live(), published).published == Map({SERVED: 8})


def test_what_a_book_has_to_tell_goes_into_the_outbox_and_is_told_once() -> None:
    declined = PayDeclined(asker=HOUSE, payment_hash=b"h", reason="no")
    after = apply_to_factory(live(), declined)
    assert letters(after, HOUSE)[-1] == mail.PayAnswered(payment_hash=b"h", refused="no")
    assert after.book.letters == ()
    assert after.post.n_sent.get(HOUSE, 0) == live().post.n_sent.get(HOUSE, 0) + 1


def test_a_connection_that_ends_is_that_of_one_client_and_a_start_ends_all() -> None:
    one = live()
    (first, second) = sorted(one.book.links.values(), key=lambda link: link.client)
    gone = apply_to_factory(one, r.PeerDisconnected(node_id=first.node_id)).book.links
    connected = {link.client: link.state.is_connected for link in gone.values()}
    assert connected == {1: False, 2: True}
    started = apply_to_factory(one, r.Started()).book.links
    assert not any(link.state.is_connected for link in started.values())
    assert second.state.is_connected


def test_what_is_no_record_or_letter_of_a_factory_ends_the_decision() -> None:
    with pytest.raises(AssertionError, match="LadderWanted is no record of a factory"):
        apply_to_factory(live(), lr.LadderWanted(candidates=1))
    with pytest.raises(AssertionError, match="SeatLeft is no mail for a factory"):
        told(live(), mail.SeatLeft(attempt_id=b"", client=1))
