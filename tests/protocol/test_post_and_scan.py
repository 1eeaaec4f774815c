"""Mail and the scan of the chain as values: who is told what, from which block on, how often."""

from itertools import pairwise
from typing import Any

import pytest
from immutables import Map
from tests.protocol.houses import ALICE, BOB, spend_of, txid_of

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail
from cromford.protocol.journal import records as r
from cromford.protocol.journal import scan_records as sc
from cromford.protocol.journal.expected import ExpectedPayments
from cromford.protocol.journal.known_chain import RECENT_BLOCKS
from cromford.protocol.journal.mail import Letter, Post
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.pause import (
    ABORTS_TO_PAUSE,
    BAN_BLOCKS,
    FAULTS_TO_BAN,
    NEVER,
    UPTIME_WINDOW_BLOCKS,
    Ban,
    Pause,
    closed_by,
    closed_until,
    longest_pause,
    seen_after,
    still_banned,
    with_aborts,
)
from cromford.protocol.journal.restless import all_restless
from cromford.protocol.journal.scan import UNKNOWN, Scan, apply_to_scan
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_number, factory_stream

ONE, TWO = "factory:1", "factory:2"
COIN = OutPoint(txid=txid_of(1), vout=0)
OTHER = OutPoint(txid=txid_of(2), vout=0)


# Letters


def lost(height: int) -> mail.Lost:
    return mail.Lost(height=height)


def post_with(receiver: str, *mails: mail.AnyMail) -> Post:
    return Post().with_sent(Letter(receiver, one) for one in mails)


def forward(channel_id: bytes, htlc_id: int) -> mail.ForwardAsked:
    return mail.ForwardAsked(
        channel_id=channel_id, htlc_id=htlc_id, payment_hash=b"", cltv_expiry=1, delivery=b""
    )


def asked_to_pay(payment_hash: bytes) -> mail.PayAsked:
    return mail.PayAsked(
        payment_hash=payment_hash,
        payment_secret=b"",
        payee=ALICE,
        amount_msat=1,
        description="",
        min_final_cltv_expiry_delta=1,
        text="",
    )


def test_letters_are_numbered_for_each_receiver_and_pending_until_they_are_taken() -> None:
    post = post_with(ONE, lost(1), lost(2)).with_sent([Letter(TWO, lost(3))])
    assert [(p.sender, p.receiver, p.number, p.mail) for p in post.pending(HOUSE)] == [
        (HOUSE, ONE, 1, lost(1)),
        (HOUSE, ONE, 2, lost(2)),
        (HOUSE, TWO, 1, lost(3)),
    ]
    assert [post.untaken(ONE, taken=n) for n in (0, 1, 2, 3)] == [
        (lost(1), lost(2)),
        (lost(2),),
        (),
        (),
    ]
    settled = post.settled(ONE, taken=1)
    assert settled.outbox == Map({ONE: (lost(2),), TWO: (lost(3),)})
    assert [p.number for p in settled.pending_for(HOUSE, ONE)] == [2]
    assert settled.untaken(ONE, taken=0) == (), "what is not there any more was taken"
    assert settled.settled(ONE, taken=2).outbox == Map({TWO: (lost(3),)})
    assert post.settled(ONE, taken=0) is post
    assert Post().untaken(ONE, taken=0) == ()
    assert [*Post().pending_for(HOUSE, ONE)] == []


def test_a_letter_is_taken_if_it_is_the_next_of_its_sender() -> None:
    post = Post().with_taken(CHAIN, 1)
    assert [post.is_next(CHAIN, n) for n in (0, 1, 2, 3)] == [False, False, True, False]
    assert [post.is_next(HOUSE, n) for n in (0, 1, 2)] == [False, True, False]
    for number in (1, 3):
        with pytest.raises(AssertionError, match=f"letter {number} of chain is not the next"):
            post.with_taken(CHAIN, number)
    assert dict(post.with_taken(CHAIN, 2).taken.walk()) == {CHAIN: 2}


def test_a_letter_that_is_void_keeps_its_number_and_others_their_words() -> None:
    mine, others = forward(b"c", 1), (forward(b"c", 2), forward(b"d", 1))
    pays, unlike = asked_to_pay(b"h"), asked_to_pay(b"i")
    post = post_with(ONE, mine, pays, lost(1)).with_sent(
        [Letter(TWO, one) for one in (*others, unlike)]
    )
    assert [*post.asked_to_forward()] == [mine, *others]
    assert [*post.asked_to_pay()] == [(ONE, pays), (TWO, unlike)]
    without = post.without_forward(b"c", 1)
    assert without.outbox == Map({ONE: (mail.Withdrawn(), pays, lost(1)), TWO: (*others, unlike)})
    assert [*without.asked_to_forward()] == [*others]
    without = post.without_payment(b"h")
    assert without.outbox == Map({ONE: (mine, mail.Withdrawn(), lost(1)), TWO: (*others, unlike)})
    assert [*without.asked_to_pay()] == [(TWO, unlike)]
    assert post.without_forward(b"x", 1) == post == post.without_payment(b"x")


# The scan


def scanned(scan: Scan, height: int, **found: tuple[Tx, ...]) -> Scan:
    """Return a scan after a block that has news of these streams: `_1` is the first factory."""
    findings = tuple(
        sc.Finding(
            stream=HOUSE if name == "house" else factory_stream(int(name[1:])),
            txs=tuple(tx.serialize() for tx in txs),
        )
        for name, txs in found.items()
    )
    record = sc.Scanned(height=height, block_hash=bytes(txid_of(height)), found=findings)
    return apply_to_scan(scan, record)


def watching(scan: Scan, stream: str, *outpoints: OutPoint, heard: int = 0) -> Scan:
    asked = mail.Watch(height=5, outpoints=tuple(one.serialize() for one in outpoints), heard=heard)
    number = scan.post.taken.get(stream, 0) + 1
    return apply_to_scan(scan, MailTaken(sender=stream, number=number, mail=asked))


def letters(scan: Scan, stream: str) -> list[Any]:
    return [*scan.post.outbox.get(stream, ())]


def test_a_block_is_told_the_house_and_whom_it_concerns() -> None:
    tx = spend_of(COIN)
    scan = scanned(scanned(Scan(), 7), 8, _2=(tx,))
    assert [one.height for one in letters(scan, HOUSE)] == [7, 8]
    assert letters(scan, ONE) == []
    (found,) = letters(scan, TWO)
    assert (found.height, found.txs) == (8, (tx.serialize(),))
    assert dict(scan.told.walk()) == {8: (TWO,)}
    assert (scan.height, scan.recorded_height) == (8, 8)
    assert Scan().height == -1
    alone = scanned(Scan(), 8, house=(tx,), _1=())
    assert dict(alone.told.walk()) == {8: (ONE,)}
    assert letters(alone, HOUSE)[0].txs == (tx.serialize(),)
    assert dict(alone.watchers.walk()) == {}, "what the house hears it watches by itself"
    both = scanned(Scan(), 8, house=(tx,), _1=(tx,))
    assert dict(both.watchers.walk()) == {tx.outpoint(0): (ONE,)}
    assert both.watched[ONE] == Map({tx.outpoint(0): 1}), "its first letter told of it"


def test_a_block_that_left_is_told_once_to_all_who_heard_of_any_above_it() -> None:
    scan = scanned(scanned(scanned(Scan(), 7, _1=()), 8, _2=()), 9)
    back = apply_to_scan(scan, sc.ScanUndone(height=8))
    assert (back.height, back.recorded_height) == (7, 7)
    assert letters(back, HOUSE)[-1] == lost(8)
    assert letters(back, TWO)[-1] == lost(8)
    assert lost(8) not in letters(back, ONE)
    assert dict(back.told.walk()) == {7: (ONE,)}
    whole = apply_to_scan(scan, sc.ScanUndone(height=7))
    assert (letters(whole, ONE)[-1], letters(whole, TWO)[-1]) == (lost(7), lost(7))
    assert (whole.height, whole.recorded_height) == (-1, 6)


def test_what_a_watched_coin_becomes_is_watched_until_its_watcher_says_what_matters() -> None:
    tx, other = spend_of(COIN), spend_of(OTHER)
    child = spend_of(tx.outpoint(0))
    scan = watching(Scan(), ONE, COIN, OTHER)
    scan = watching(scan, TWO, COIN)
    assert scan.findings([tx, other, spend_of(OutPoint(txid=txid_of(9), vout=0))]) == {
        ONE: [tx, other],
        TWO: [tx],
    }
    assert scan.findings([tx, child]) == {ONE: [tx, child], TWO: [tx, child]}
    assert scan.findings([child]) == {}
    scan = scanned(scan, 7, _1=(tx,))
    assert scan.watched[ONE][tx.outpoint(0)] == 2, "its second letter told of it"
    assert scan.findings([child]) == {ONE: [child]}
    unheard = watching(scan, ONE, OTHER, heard=1)
    assert set(unheard.watched[ONE]) == {OTHER, tx.outpoint(0)}, "that letter is on its way"
    assert dict(unheard.watchers.walk())[COIN] == (TWO,), "the other still watches it"
    heard = watching(scan, ONE, OTHER, heard=2)
    assert set(heard.watched[ONE]) == {OTHER}
    assert tx.outpoint(0) not in dict(heard.watchers.walk())
    none = watching(watching(heard, ONE, heard=2), TWO)
    assert (dict(none.watched.walk()), dict(none.watchers.walk())) == ({}, {})
    assert isinstance(letters(none, TWO)[-1], mail.Watched)


def test_a_stream_stands_before_the_news_that_it_has_not_heard() -> None:
    scan = scanned(scanned(scanned(scanned(Scan(), 6), 7), 8, _1=()), 9)
    assert [one.height for one in scan.tip_for(ONE, taken=0)] == [7]
    assert [one.height for one in scan.tip_for(ONE, taken=1)] == [9]
    assert [one.height for one in scan.tip_for(TWO, taken=0)] == [9]
    back = apply_to_scan(scan, sc.ScanUndone(height=8))
    assert back.tip_for(ONE, taken=1) == (BlockRef(height=8, block_hash=UNKNOWN),)
    assert [one.height for one in back.tip_for(ONE, taken=2)] == [7]
    asked = watching(scan, TWO, COIN)
    assert [one.height for one in asked.tip_for(TWO, taken=0)] == [9], "that is no news of a block"
    early = scanned(Scan(), 7, _1=())
    assert early.tip_for(ONE, taken=0) == ()


def test_the_scan_remembers_the_newest_blocks() -> None:
    scan = Scan(recent=tuple(BlockRef(height=n, block_hash=UNKNOWN) for n in range(RECENT_BLOCKS)))
    after = scanned(scan, RECENT_BLOCKS)
    assert (len(after.recent), after.recent[0].height) == (RECENT_BLOCKS, 1)


def test_what_is_no_record_or_letter_of_the_scan_ends_the_decision() -> None:
    with pytest.raises(AssertionError, match="PeerDisconnected is no record of the scan"):
        apply_to_scan(Scan(), r.PeerDisconnected(node_id=b""))
    with pytest.raises(AssertionError, match="Lost is no mail for the chain"):
        apply_to_scan(Scan(), MailTaken(sender=HOUSE, number=1, mail=lost(1)))
    assert apply_to_scan(Scan(), r.Started()) == Scan()


@pytest.mark.parametrize(
    ("stream", "number"),
    [
        (ONE, 1),
        ("factory:10", 10),
        (HOUSE, None),
        (CHAIN, None),
        ("factory:x", None),
        ("1", None),
        ("someone:12", None),
    ],
)
def test_a_factory_is_named_by_its_number(stream: str, number: int | None) -> None:
    assert factory_number(stream) == number


# Whom a block asks


def test_a_block_asks_who_is_not_at_rest_and_whose_rest_ends() -> None:
    restless = all_restless([1, 2, 3]).at(10)
    resting = restless.with_rest(2, 12).with_rest(3, 14)
    assert [*resting.asked] == [1]
    heights = {n: sorted(resting.at(n).asked) for n in (11, 12, 13, 14, 20)}
    assert heights == {11: [1], 12: [1, 2], 13: [1, 2], 14: [1, 2, 3], 20: [1, 2, 3]}
    assert set(resting.at(12).due) == {14}
    steps = [resting]
    for height in range(11, 16):
        steps.append(steps[-1].at(height))
    for before, after in pairwise(steps):
        assert set(before.asked) <= set(after.asked)
    assert steps[-1] == resting.at(15)
    both = restless.with_rest(2, 12).with_rest(3, 12).at(12)
    assert sorted(both.asked) == [1, 2, 3]
    assert resting.with_one(2).at(11).asked == Map({1: None, 2: None})
    assert resting.with_one(1) is resting
    assert [*resting.without_one(1).asked] == []
    assert resting.without_one(2) is resting


# What clients announced


def announced(node_id: bytes, payment_hash: bytes, until_height: int) -> lr.PaymentExpected:
    return lr.PaymentExpected(
        node_id=node_id, payment_hash=payment_hash, hold_seconds=60, until_height=until_height
    )


def test_what_is_announced_is_known_until_its_height_or_until_it_is_paid() -> None:
    expected = ExpectedPayments()
    for one in (announced(ALICE, b"a", 10), announced(ALICE, b"b", 11), announced(BOB, b"c", 10)):
        expected = expected.with_payment(one)
    assert expected.hold_seconds(ALICE, b"a") == 60
    assert expected.hold_seconds(BOB, b"a") == 0, "a hash is its client's own"
    assert expected.at_height(9) is expected
    later = expected.at_height(10)
    assert (set(later.of(ALICE)), set(later.of(BOB))) == ({b"b"}, set())
    assert set(later.of_clients) == {ALICE}
    assert later.at_height(11) == ExpectedPayments()
    paid = expected.without_payment(ALICE, b"a")
    assert (set(paid.of(ALICE)), set(paid.of(BOB))) == ({b"b"}, {b"c"})
    assert paid.without_payment(ALICE, b"b").of_clients == Map({BOB: expected.of(BOB)})
    assert expected.without_payment(BOB, b"a") is expected


# What closes the lobby


def test_so_many_events_close_something_if_they_lie_within_a_window() -> None:
    def until(*heights: int) -> int:
        return closed_until(heights, limit=3, window_blocks=6)

    assert until() == until(5) == until(5, 5) == NEVER
    assert until(5, 5, 5) == 11
    assert until(5, 8, 11) == 17
    assert until(5, 5, 12) == NEVER
    assert until(1, 1, 5, 8, 11) == 17, "the newest"
    assert until(5, 11, 12) == NEVER
    pause = closed_by((1, 5, 8, 11), limit=3, window_blocks=6, why="why")
    assert pause == Pause(since_height=11, until_height=17, why="why")
    assert closed_by((5, 5), limit=3, window_blocks=6, why="why") is None


def test_of_all_that_closes_the_lobby_the_longest_is_told_and_the_operators_of_two_alike() -> None:
    nothing: dict[str, Any] = {"faults": {}, "aborts": {}, "joins": {}, "bans": {}}
    assert longest_pause(ALICE, **nothing) is None
    faulty = nothing | {"faults": {ALICE: (9,) * FAULTS_TO_BAN}}
    pause = longest_pause(ALICE, **faulty)
    assert pause == Pause(since_height=9, until_height=9 + BAN_BLOCKS, why="too many faults")
    assert longest_pause(BOB, **faulty) is None
    both = faulty | {"aborts": {ALICE: (9,) * ABORTS_TO_PAUSE}}
    assert longest_pause(ALICE, **both) == pause
    for until_height, is_ban in ((9 + BAN_BLOCKS - 1, False), (9 + BAN_BLOCKS, True)):
        ban = Ban(since_height=2, until_height=until_height, reason="spam")
        found = longest_pause(ALICE, **(both | {"bans": {ALICE: ban}}))
        assert found is not None
        assert found.is_operators is is_ban
        assert (found.why == "banned by the operator (spam)") is is_ban


def test_a_ban_is_over_at_its_height_whatever_others_there_are() -> None:
    bans = {
        name: Ban(since_height=1, until_height=height, reason="")
        for name, height in ((ALICE, 10), (BOB, 12))
    }
    assert still_banned(bans, 9) is bans
    assert set(still_banned(bans, 10)) == set(still_banned(bans, 11)) == {BOB}
    assert still_banned(bans, 12) == {}


def test_only_the_newest_spoilt_ceremonies_are_kept() -> None:
    aborts: dict[bytes, tuple[int, ...]] = {BOB: (1,)}
    for height in range(ABORTS_TO_PAUSE + 2):
        aborts = with_aborts(aborts, (ALICE,), height)
    assert aborts == {BOB: (1,), ALICE: tuple(range(2, ABORTS_TO_PAUSE + 2))}


def test_presence_is_kept_for_a_window_of_blocks() -> None:
    assert seen_after(0b101, 2, is_here=False) == 0b10100
    assert seen_after(0b101, 2, is_here=True) == 0b10111
    assert seen_after(0b101, 0, is_here=True) == 0b101
    whole = (1 << UPTIME_WINDOW_BLOCKS) - 1
    assert seen_after(1, UPTIME_WINDOW_BLOCKS - 1, is_here=False) == 1 << UPTIME_WINDOW_BLOCKS - 1
    for n_blocks in (UPTIME_WINDOW_BLOCKS, UPTIME_WINDOW_BLOCKS + 1, 10**9):
        assert seen_after(0, n_blocks, is_here=True) == whole
        assert seen_after(whole, n_blocks, is_here=False) == 0
    assert seen_after(whole, 1, is_here=True) == whole
    assert seen_after(whole, 1, is_here=False) == whole - 1
