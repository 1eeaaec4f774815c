"""What a house knows of its factories, their clients, and its capital, by what it was told."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as told_otherwise
from tests.protocol.frozen_state import LSP
from tests.protocol.houses import (
    ALICE,
    BOB,
    CAROL,
    EXPIRY,
    entry,
    house_of,
    spend_of,
    told,
    txid_of,
    with_block,
    with_coins,
    without_block,
)

from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail
from cromford.protocol.journal import records as r
from cromford.protocol.journal.entries import ABORTED, BUILDING, DEAD, FUNDED, HousePayment
from cromford.protocol.journal.house import House, new_house
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.market_records import PriceSet
from cromford.protocol.journal.pause import (
    ABORTS_TO_PAUSE,
    PAUSE_BLOCKS,
    RELIABLE_UPTIME_BLOCKS,
    UPTIME_WINDOW_BLOCKS,
    Ban,
)
from cromford.protocol.policy import SalePrice
from cromford.wallet.account import CHANGE

FUNDING = spend_of(OutPoint(txid=txid_of(77), vout=0))


def closed(*clients: int, amount_sat: int = 1_000) -> mail.ChannelsClosed:
    return mail.ChannelsClosed(attempt_id=b"attempt 1", clients=clients, amount_sat=amount_sat)


def settled(client: int, amount_sat: int = 1_000) -> mail.ChannelSettled:
    return mail.ChannelSettled(attempt_id=b"attempt 1", client=client, amount_sat=amount_sat)


# One factory


def test_an_entry_counts_each_channel_as_lent_until_it_is_over_and_once() -> None:
    """Channels hold 10,000, 11,000 and 12,000 sat; the funding 50,000."""
    one = entry(1, ALICE, BOB, CAROL)
    assert (one.seated, one.lent_to) == ((ALICE, BOB, CAROL),) * 2
    assert (one.lent_sat, one.locked_sat) == (33_000, 50_000)
    one = one.with_closed(closed(2, amount_sat=13_000))
    assert (one.seated, one.lent_to) == ((ALICE, CAROL),) * 2
    assert (one.lent_sat, one.locked_sat) == (22_000, 37_000)
    for _ in range(2):  # What it is told once more counts no more.
        one = one.with_settled(settled(1, amount_sat=10_000))
        assert (one.seated, one.lent_to) == ((ALICE, CAROL), (CAROL,))
        assert (one.lent_sat, one.locked_sat) == (12_000, 27_000)
    one = one.with_closed(closed(3, amount_sat=20_000))
    assert (one.seated, one.lent_to, one.lent_sat) == ((ALICE,), (), 0)
    assert one.closed == {2, 3}
    assert (one.closed_sat, one.settled_sat) == (33_000, 10_000)


def test_an_entry_knows_its_clients_by_their_places_from_1_on() -> None:
    one = entry(1, ALICE, BOB)
    assert [one.client_of(name) for name in (ALICE, BOB, CAROL)] == [1, 2, None]
    assert [one.is_dying(1, height=height) for height in (699, 700)] == [False, True]
    assert [one.is_dying(2, height=height) for height in (709, 710)] == [False, True]


def test_a_house_lends_more_in_the_channel_that_grew_and_its_ledger_says_which() -> None:
    house = house_of(entry(1, ALICE, BOB), entry(2, CAROL))
    sold = mail.SaleBooked(
        attempt_id=b"attempt 1",
        client=2,
        height=98,
        amount_sat=4_000,
        capacity_sat=15_000,
        price_msat=70_000,
        advance_id=b"advance",
        quoted_at=5,
        ordered_at=6,
        payment_hash=b"hash",
    )
    house = told(house, sold, at=7)
    known, place = house.sale(1)
    assert (known.number, place, known.capacity_sat) == (1, 0, (10_000, 15_000))
    (line,) = known.sold
    assert (line.client, line.height, line.amount_sat, line.capacity_sat) == (2, 98, 4_000, 15_000)
    assert (line.price_msat, line.advance_id, line.payment_hash) == (70_000, b"advance", b"hash")
    assert (line.quoted_at, line.ordered_at, line.in_force_at) == (5, 6, 7)
    assert house.lent_sat() == 10_000 + 15_000 + 10_000
    other = told_otherwise(
        sold, attempt_id=b"attempt 2", client=1, capacity_sat=11_000, price_msat=1
    )
    house = told(house, sold_again(sold), at=8)
    house = told(house, other, at=9)
    assert [house.sale(n)[1] for n in (1, 2, 3)] == [0, 1, 0]
    assert [house.sale(n)[0].number for n in (1, 2, 3)] == [1, 1, 2]
    dead = house_of(entry(1, ALICE, BOB, status=DEAD))
    assert told(dead, sold).tally.lent_sat == 0, "nothing is lent in it by the sums"
    market = house.market
    assert (market.n_sold, market.sold_sat, market.earned_msat) == (3, 12_000, 140_001)


def sold_again(sold: mail.SaleBooked) -> mail.SaleBooked:
    return told_otherwise(sold, advance_id=b"another", capacity_sat=19_000)


# Capital


def test_what_is_lent_ends_with_channels_and_fundings_and_comes_back_by_a_reorganisation() -> None:
    house = house_of(entry(1, ALICE, BOB, funding_txid=FUNDING.txid), entry(2, CAROL))
    assert house.lent_sat() == 31_000
    house = told(house, closed(1))
    assert (house.lent_sat(), house.of_client.get(ALICE)) == (21_000, None)
    house = told(house, mail.FactoryDied(attempt_id=b"attempt 1"))
    assert house.lent_sat() == 10_000
    assert house.tally.dead == {b"attempt 1"}
    assert not house.is_standing(house.entry_of(1))
    freed = told(house, settled(2))
    assert (freed.lent_sat(), freed.tally.lent_sat) == (10_000, 10_000), "freed once, as it died"
    # The funding that was found dead is in a block all the same: what it lends, it lends.
    house = with_block(house, FUNDING)
    assert house.is_standing(house.entry_of(1))
    assert house.lent_sat() == 10_000 + 11_000
    assert told(house, settled(2)).lent_sat() == 10_000
    house = without_block(house, house.chain.height)
    assert not house.is_standing(house.entry_of(1))
    assert house.lent_sat() == 10_000
    assert [with_block(house, height=height).lent_sat() for height in (EXPIRY - 1, EXPIRY)] == [
        10_000,
        0,
    ]


def test_a_funding_may_be_any_candidate_of_its_ladder() -> None:
    ladder = entry(1, ALICE, status=DEAD, higher_txids=(FUNDING.txid,))
    assert ladder.funding_txids == (txid_of(1), FUNDING.txid)
    house = house_of(ladder)
    assert not house.is_confirmed(ladder)
    house = with_block(house, FUNDING)
    assert house.is_confirmed(ladder)
    assert house.is_standing(ladder)
    assert not house.is_standing(replace(ladder, closed=frozenset({1}))), "nobody is in it"
    assert not house.is_standing(replace(ladder, status=BUILDING)), "it was never signed"


def test_nothing_is_lent_in_a_candidate_that_displaced_the_one_that_channels_are_in() -> None:
    """Until the chain turns back to that one; not while it has neither."""
    other = spend_of(OutPoint(txid=txid_of(77), vout=0), amount_sat=900)
    ladder = entry(1, ALICE, funding_txid=FUNDING.txid, higher_txids=(other.txid,))
    house = with_block(house_of(ladder), other)
    house = told(house, mail.FactoryDied(attempt_id=ladder.attempt_id))
    known = house.entry_of(1)
    assert (known.status, known.displaced_by) == (DEAD, other.txid)
    assert (house.is_confirmed(known), house.is_standing(known), house.lent_sat()) == (
        True,
        False,
        0,
    )
    house = without_block(house, house.chain.height)
    assert (house.is_standing(known), house.lent_sat()) == (False, 0)
    house = with_block(house, FUNDING)
    assert (house.is_standing(known), house.lent_sat()) == (True, 10_000)


def test_a_factory_stands_until_its_expiry() -> None:
    one = entry(1, ALICE)
    before = house_of(one, height=EXPIRY - 1)
    assert before.is_standing(one)
    assert not before.is_standing(replace(one, closed=frozenset({1})))
    assert not with_block(before).is_standing(one)
    for status in (BUILDING, ABORTED, DEAD):
        assert not before.is_standing(replace(one, status=status))


def test_a_client_has_its_seats_until_each_is_closed_together() -> None:
    house = house_of(entry(1, ALICE, BOB), entry(2, BOB), entry(3, ALICE, BOB))
    assert [one.number for one in house.entries_of(BOB)] == [1, 2, 3]
    assert house.streams_of(ALICE) == ("factory:1", "factory:3")
    house = told(house, closed(2))
    assert [one.number for one in house.entries_of(BOB)] == [2, 3]
    assert [one.number for one in house.entries_of(ALICE)] == [1, 3]
    house = told(house, closed(1))
    assert house.streams_of(ALICE) == ("factory:3",)
    house = told(house, settled(1))
    assert house.streams_of(ALICE) == ("factory:3",), "what is settled on chain keeps no seat"
    assert house.entries_of(CAROL) == ()


def test_own_keys_are_those_of_factories_that_were_funded() -> None:
    kinds = (BUILDING, ABORTED, FUNDED, DEAD)
    entries = [
        entry(n, ALICE, status=status, own_pubkey=b"key %d" % n)
        for n, status in enumerate(kinds, start=1)
    ]
    assert [*house_of(*entries).own_keys()] == [(3, b"key 3"), (4, b"key 4")]


@pytest.mark.parametrize(
    ("numbers", "below", "found"),
    [
        ([0, 1, 2, 3], 3, [2, 1, 0]),
        ([0, 1], 0, []),
        ([0, 1], 1, [0]),
        ([1, 999, 1_000, 1_001], 1_001, [1_000, 999, 1]),
        ([3, 5_000, 5_001, 2**40, 2**40 + 1], 2**40 + 1, [2**40, 5_001, 5_000, 3]),
        ([], 2**40, []),
    ],
)
def test_factories_below_a_number_are_found_newest_first_whatever_numbers_are_left_out(
    numbers: list[int], below: int, found: list[int]
) -> None:
    house = house_of(*(entry(number) for number in numbers))
    assert [*house.numbers_below(below)] == found


def test_millions_of_numbers_that_were_left_out_are_looked_through_in_few_walks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of a store that was put back: each step that finds nothing is twice the one before."""
    n_walks = 0
    walk = type(house_of().order).walk

    def counting(*given: object) -> object:
        nonlocal n_walks
        n_walks += 1
        return walk(*given)  # type: ignore[arg-type]  # passed on as it came

    house = house_of(entry(1), entry(2**30))
    monkeypatch.setattr(type(house.order), "walk", counting)
    assert [*house.numbers_below(2**30)] == [1]
    assert n_walks <= 22


# Who is here, and how reliable


def test_who_has_a_channel_has_vanished_once_nobody_saw_it_for_the_whole_window() -> None:
    house = house_of(entry(1, ALICE, BOB, expiry_height=9_000))
    house = apply_to_house(house, lr.Attendance(came=(ALICE, BOB), went=()))
    house = with_block(house, height=200)
    house = apply_to_house(house, lr.Attendance(came=(), went=(ALICE,)))
    assert house.last_seen.get(ALICE) == 200
    nearly = with_block(house, height=200 + UPTIME_WINDOW_BLOCKS - 1)
    then = with_block(nearly)
    assert [one.is_vanished(ALICE) for one in (house, nearly, then)] == [False, False, True]
    assert not then.is_vanished(BOB), "it was here at the last block"
    back = apply_to_house(then, r.PeerConnected(node_id=ALICE))
    assert not back.is_vanished(ALICE), "it is here now"
    assert (then.is_connected(ALICE), back.is_connected(ALICE)) == (False, True)
    never_seen = with_block(house_of(), height=UPTIME_WINDOW_BLOCKS - 1)
    assert not never_seen.is_vanished(CAROL)
    assert with_block(never_seen).is_vanished(CAROL)


def test_who_was_here_for_a_day_or_is_in_a_factory_is_reliable_unless_it_just_spoilt_one() -> None:
    house = house_of(entry(1, ALICE))
    house = apply_to_house(house, lr.Attendance(came=(BOB,), went=()))
    for _ in range(RELIABLE_UPTIME_BLOCKS - 1):
        house = with_block(house)
    assert [house.is_reliable(name) for name in (ALICE, BOB, CAROL)] == [True, False, False]
    house = with_block(house)
    assert [house.is_reliable(name) for name in (ALICE, BOB, CAROL)] == [True, True, False]
    spoilt = apply_to_house(house, lr.RejoinMissed(node_ids=(ALICE,)))
    for n in range(PAUSE_BLOCKS + 2):
        is_unsteady = n <= PAUSE_BLOCKS
        assert (spoilt.is_unsteady(ALICE), spoilt.is_reliable(ALICE)) == (
            is_unsteady,
            not is_unsteady,
        )
        assert not spoilt.is_unsteady(BOB)
        spoilt = with_block(spoilt)


def test_only_the_newest_spoilt_ceremony_says_whether_somebody_is_unsteady() -> None:
    house = with_block(house_of(), height=200)
    for heights, is_unsteady in (((100,), False), ((100, 199), True), ((199, 100), False)):
        assert changed(house, aborts={ALICE: heights}).is_unsteady(ALICE) is is_unsteady


def test_it_matters_who_is_here_of_those_who_have_a_channel_or_wait_for_one() -> None:
    house = house_of(entry(1, ALICE), entry(2, BOB, status=BUILDING))
    counts = [house.counts_attendance(name) for name in (ALICE, BOB, CAROL)]
    assert counts == [True, False, False]
    house = changed(house, under_way=b"attempt 2")
    counts = [house.counts_attendance(name) for name in (ALICE, BOB, CAROL)]
    assert counts == [True, True, False]


def test_who_others_called_back_too_often_waits_by_itself_for_about_an_hour() -> None:
    house = house_of(entry(1, ALICE, BOB, status=BUILDING))
    aborted = mail.CeremonyEnded(attempt_id=b"attempt 1", aborted="silent", culprits=(BOB,))
    for _ in range(ABORTS_TO_PAUSE):
        assert not house.rests(ALICE)
        house = told(house, aborted)
    assert (house.rests(ALICE), house.rests(BOB)) == (True, False)
    assert house.pause_of(ALICE) is None, "nobody else keeps it from joining"
    pause = house.pause_of(BOB)
    assert pause is not None
    assert (pause.why, pause.since_height) == ("too many ceremonies ended", 99)
    assert pause.until_height == 99 + PAUSE_BLOCKS
    for n in range(1, PAUSE_BLOCKS + 1):
        house = with_block(house)
        assert house.rests(ALICE) == (n < PAUSE_BLOCKS)
        assert (house.pause_of(BOB) is not None) == (n < PAUSE_BLOCKS)


def test_an_abort_is_counted_against_its_culprits_alone_and_a_fault_only_where_it_is_proven() -> (
    None
):
    house = house_of(entry(1, ALICE, BOB, status=BUILDING))
    house = changed(house, joins={ALICE: (98, 99), BOB: (99,)}, n_new_joins=2)
    ended = mail.CeremonyEnded(attempt_id=b"attempt 1", aborted="silent", culprits=(BOB,))
    after = told(house, ended)
    assert (after.aborts, after.called_back, after.faults) == ({BOB: (99,)}, {ALICE: (99,)}, {})
    assert after.joins == {ALICE: (98,), BOB: (99,)}, "that join was for nothing of its own"
    assert after.n_new_joins == 1
    assert after.entry_of(1).status == ABORTED
    assert after.under_way is None
    proven = told(house, told_otherwise(ended, is_fault=True))
    assert proven.faults == {BOB: (99,)}
    nobody = told(house, told_otherwise(ended, culprits=()))
    assert (nobody.aborts, nobody.called_back) == ({}, {ALICE: (99,), BOB: (99,)})


def test_who_has_a_channel_is_no_new_client_however_often_it_joins() -> None:
    house = house_of(entry(1, ALICE), entry(2, ALICE, BOB, status=BUILDING))
    house = changed(house, joins={ALICE: (99,)}, n_new_joins=5)
    ended = mail.CeremonyEnded(attempt_id=b"attempt 2", aborted="silent")
    after = told(house, ended)
    assert (after.n_new_joins, after.joins) == (5, {ALICE: ()}), "bob's join was before this run"


def test_a_block_forgets_what_no_longer_closes_the_lobby_to_anybody() -> None:
    house = house_of()
    least = {ALICE: (94,), BOB: (93,)}
    house = changed(
        house,
        aborts=least,
        called_back=least,
        joins={**least, CAROL: ()},
        faults={ALICE: (-44,), BOB: (-45,)},
        bans={
            ALICE: Ban(since_height=1, until_height=101, reason=""),
            BOB: Ban(since_height=1, until_height=100, reason=""),
        },
        n_new_joins=7,
    )
    after = with_block(house)
    assert after.aborts == after.called_back == after.joins == {ALICE: (94,)}
    assert after.faults == {ALICE: (-44,)}
    assert set(after.bans) == {ALICE}
    assert after.n_new_joins == 0
    assert set(with_block(after).bans) == set()


def test_a_build_awaits_its_clients_only_while_it_waits_for_them_to_join_again() -> None:
    house = house_of()
    assert not house.is_awaited(ALICE)
    awaited = lr.RebuildAwaited(node_ids=(ALICE,), min_clients=1, max_clients=2)
    house = apply_to_house(house, awaited)
    assert (house.is_awaited(ALICE), house.is_awaited(BOB)) == (True, False)
    begun = lr.BuildStarted(
        attempt=4,
        node_ids=(ALICE,),
        reasons=("",),
        capacity_sat=(1,),
        min_clients=1,
        max_clients=2,
    )
    house = apply_to_house(house, begun)
    assert (house.is_awaited(ALICE), house.next_attempt) == (False, 5)


def test_what_tells_who_is_here_is_asked_again_once_one_comes_goes_joins_or_gets_a_channel() -> (
    None
):
    quiet = house_of(entry(1, ALICE), entry(2, BOB, status=BUILDING))
    assert not quiet.is_stirred
    came = apply_to_house(quiet, r.PeerConnected(node_id=ALICE))
    funded = told(quiet, mail.CeremonyEnded(attempt_id=b"attempt 2"))
    over = told(
        changed(quiet, under_way=b"attempt 2"),
        mail.CeremonyEnded(attempt_id=b"attempt 2", aborted="silent"),
    )
    left = told(quiet, closed(1))
    assert [one.is_stirred for one in (came, funded, over, left)] == [True] * 4
    still = apply_to_house(came, lr.LadderWanted(candidates=1))
    assert still.is_stirred, "until the next block notes it"
    assert not with_block(came).is_stirred
    for other in (lr.LadderWanted(candidates=2), lr.BanLifted(node_id=BOB)):
        assert not apply_to_house(quiet, other).is_stirred
    seat_left = mail.SeatLeft(attempt_id=b"attempt 1", client=1)
    assert not told(changed(quiet, under_way=b"attempt 2"), seat_left).is_stirred


def test_a_restart_finds_nobody_here_and_looks_at_everybody() -> None:
    house = house_of(entry(1, ALICE))
    house = apply_to_house(house, r.PeerConnected(node_id=ALICE))
    house = changed(with_block(house), joins={ALICE: (1,)}, n_new_joins=1)
    durable = house.durable
    assert (durable.connected, durable.members, durable.joins) == (frozenset(), {}, {})
    assert (durable.is_stirred, durable.n_new_joins) == (True, 0)
    house = apply_to_house(house, lr.Attendance(came=(ALICE,), went=()))
    started = apply_to_house(house, r.Started())
    assert (started.present, started.build) == (frozenset(), None)
    assert started.last_seen.get(ALICE) == house.chain.height


# Coins


def test_coins_are_counted_if_they_are_large_enough_and_free() -> None:
    house, coins = with_coins(house_of(), 1_000, 2_000, 3_000)
    assert [house.n_free_coins(least) for least in (1_000, 1_001, 3_000, 3_001)] == [3, 2, 1, 0]
    assert house.has_coins(coins)
    assert house.has_coins(())
    assert not house.has_coins((coins[0], OutPoint(txid=txid_of(5), vout=5)))
    house = with_block(house, spend_of(coins[0]))
    assert not house.has_coins(coins)
    assert house.has_coins(coins[1:])
    assert house.n_free_coins(1_000) == 2
    house = without_block(house, house.chain.height)
    assert house.has_coins(coins)


def test_coins_of_a_factory_that_died_are_free_for_something_else() -> None:
    house, coins = with_coins(house_of(), 9_000)
    one = entry(1, ALICE, coins=coins)
    house = changed(
        house,
        entries=house.entries.set(one.attempt_id, one),
        given_up=frozenset({one.attempt_id, b"another"}),
        wallet=house.wallet.with_reserved(coins, one.attempt_id),
    )
    assert house.n_free_coins(1) == 0
    house = told(house, mail.FactoryDied(attempt_id=one.attempt_id))
    assert house.n_free_coins(1) == 1
    assert house.given_up == {b"another"}


def lent(outpoint: OutPoint, *coins: OutPoint, script: bytes) -> xr.CoinsLent:
    return xr.CoinsLent(
        outpoint=outpoint.serialize(),
        coins=tuple(coin.serialize() for coin in coins),
        change_script=script,
        to="factory:1",
    )


def test_a_house_lends_until_what_was_asked_is_there_and_each_loan_names_its_coins() -> None:
    house, (small, large) = with_coins(house_of(), 1_000, 5_000)
    served = OutPoint(txid=txid_of(4), vout=1)
    asked = mail.CoinsRequested(
        outpoint=served.serialize(), needed_sat=6_000, feerate_sat_per_kw=500
    )
    house = told(house, asked)
    wanted = house.coins_wanted[served]
    assert (wanted.stream, wanted.needed_sat, wanted.feerate_sat_per_kw) == (
        "factory:1",
        6_000,
        500,
    )
    script = house.wallet.next_script(CHANGE)
    house = apply_to_house(house, lent(served, small, script=script))
    assert served in house.coins_wanted, "5,000 sat are lacking"
    assert house.wallet.next_script(CHANGE) != script, "nothing else pays there"
    later = house.wallet.next_script(CHANGE)
    house = apply_to_house(house, lent(served, large, script=script))
    assert served not in house.coins_wanted
    assert house.wallet.next_script(CHANGE) == later, "its change goes where it went"
    assert house.n_free_coins(1) == 0
    sent = [one for one in house.post.outbox["factory:1"] if isinstance(one, mail.CoinsSent)]
    assert [one.outpoints for one in sent] == [(small.serialize(),), (large.serialize(),)]
    assert [coin.amount_sat for one in sent for coin in one.coins] == [1_000, 5_000]
    back = told(house, mail.CoinsGivenBack(outpoint=served.serialize()))
    assert (back.n_free_coins(1), back.purses.get(served)) == (2, None)


def test_what_is_asked_for_no_more_is_no_more_wanted() -> None:
    house, _ = with_coins(house_of(), 1_000)
    served = OutPoint(txid=txid_of(4), vout=1)
    house = told(house, mail.CoinsRequested(outpoint=served.serialize(), needed_sat=6_000))
    house = told(house, mail.CoinsGivenBack(outpoint=served.serialize()))
    assert not house.coins_wanted


# Payments, prices


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({}, "pending"),
        ({"preimage": b"p"}, "paid"),
        ({"failure": b""}, "failed"),
        ({"refused": "no"}, "failed"),
        ({"preimage": b"p", "failure": b"late"}, "paid"),
    ],
)
def test_a_payment_is_paid_failed_or_pending_by_what_was_answered(
    answer: dict[str, object], status: str
) -> None:
    asked = mail.PayAsked(
        payment_hash=b"h",
        payment_secret=b"s",
        payee=ALICE,
        amount_msat=1,
        description="",
        min_final_cltv_expiry_delta=18,
        text="",
    )
    payment = HousePayment(asked=asked, to="factory:1", number=1)
    assert replace(payment, **answer).status == status  # type: ignore[arg-type]  # by name


def test_an_operators_price_takes_the_place_of_the_usual_one() -> None:
    house = new_house(LSP)
    assert house.sale_price() == SalePrice()
    said = {"base_msat": 1, "per_million": 2, "per_month": 3, "min_sat": 4, "is_for_sale": False}
    house = apply_to_house(house, PriceSet(**said))  # type: ignore[arg-type]  # by name
    assert house.sale_price() == SalePrice(**said)  # type: ignore[arg-type]  # by name


def test_what_is_no_record_or_letter_of_a_house_ends_the_decision() -> None:
    house: House = house_of()
    with pytest.raises(AssertionError, match="TreePublished is no record of the house"):
        apply_to_house(house, xr.TreePublished(attempt_id=b"", height=1, transactions=()))
    with pytest.raises(AssertionError, match="Watched is no mail for the house"):
        told(house, mail.Watched(height=1))


def test_a_sale_of_which_no_time_is_known_has_none() -> None:
    sold = mail.SaleBooked(
        attempt_id=b"a",
        client=1,
        height=5,
        amount_sat=1,
        capacity_sat=20_000,
        price_msat=3,
        advance_id=b"x",
    )
    (one,) = entry(1, ALICE).with_sale(sold).sold
    assert (one.in_force_at, one.height, one.capacity_sat) == (0, 5, 20_000)
    (dated,) = entry(1, ALICE).with_sale(sold, 50).sold
    assert dated.in_force_at == 50
