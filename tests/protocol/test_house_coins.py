"""A house's coins: for children, in purses, for what takes a funding's place; and its orders."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from immutables import Map
from tests.protocol.houses import (
    ALICE,
    BOB,
    entry,
    house_of,
    spend_of,
    told,
    txid_of,
    with_block,
    with_coins,
    without_block,
)
from tests.protocol.pump import Pump

from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.changed import changed
from cromford.factory.funding import CHANGE_VOUT
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal import mail
from cromford.protocol.journal import records as r
from cromford.protocol.journal import spending_records as sr
from cromford.protocol.journal.bumps import SETTLED_DEPTH
from cromford.protocol.journal.dead_coins import with_dead_coins
from cromford.protocol.journal.entries import ABORTED, BUILDING, DEAD
from cromford.protocol.journal.gathered import Build, CalledBuild
from cromford.protocol.journal.house import House
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.numbers import ListPlace
from cromford.protocol.journal.pause import JOINS_TO_PAUSE
from cromford.protocol.journal.purses import (
    N_COINS_MAX,
    change_script_of,
    least_of_use_sat,
    with_lent,
    with_settled,
)
from cromford.wallet.account import CHANGE
from cromford.wallet.coins import Purse, SpentCoin
from cromford.wire import messages as m

SERVED = OutPoint(txid=txid_of(4), vout=1)
FUNDING = Tx(
    version=2,
    inputs=(TxIn(outpoint=OutPoint(txid=txid_of(77), vout=0), nsequence=0),),
    outputs=(
        TxOut(amount_sat=50_000, script_pubkey=b"\x51"),
        TxOut(amount_sat=8_000, script_pubkey=b"\x52"),
    ),
)


# Children of fundings


def bumped(house: House, *coins: OutPoint, funding: Tx = FUNDING, fee_sat: int = 9) -> House:
    """Return a house whose child of a funding spends its change, and these coins."""
    child = spend_of(funding.outpoint(CHANGE_VOUT), *coins, pays=house.wallet.next_script(CHANGE))
    record = lr.FundingBumped(
        attempt_id=b"attempt 1",
        funding=funding.serialize(),
        tx=child.serialize(),
        fee_sat=fee_sat,
    )
    return apply_to_house(house, record)


def test_a_child_of_a_funding_takes_the_place_of_the_one_before_and_frees_its_coins() -> None:
    house, (first, second) = with_coins(house_of(entry(1, ALICE)), 1_000, 2_000)
    script = house.wallet.next_script(CHANGE)
    once = bumped(house, first)
    bump = once.bumps[b"attempt 1"]
    assert (bump.fee_sat, bump.change.amount_sat, bump.funding) == (9, 8_000, FUNDING)
    assert once.n_free_coins(1) == 1
    assert once.wallet.next_script(CHANGE) != script, "its change goes where nothing else does"
    twice = bumped(once, second)
    assert [coin.outpoint for coin in twice.wallet.free(twice.chain.height)] == [first]
    assert len(twice.bumps) == 1
    same = lr.FundingBumped(
        attempt_id=b"attempt 1",
        funding=FUNDING.serialize(),
        tx=twice.bumps[b"attempt 1"].child.serialize(),
        fee_sat=10,
    )
    again = apply_to_house(twice, same)
    assert again.wallet.next_script(CHANGE) == twice.wallet.next_script(CHANGE)
    over = told(twice, mail.FactoryDied(attempt_id=b"attempt 1"))
    assert (over.bumps, over.n_free_coins(1)) == (Map(), 2)
    assert told(house, mail.FactoryDied(attempt_id=b"attempt 1")).n_free_coins(1) == 2


def test_a_child_is_kept_until_its_funding_is_so_deep_that_nobody_asks() -> None:
    house = bumped(with_block(house_of(entry(1, ALICE, funding_txid=FUNDING.txid))))
    house = with_block(house, FUNDING)
    for _ in range(SETTLED_DEPTH - 2):
        house = with_block(house)
    assert house.chain.depth(FUNDING.txid) == SETTLED_DEPTH - 1
    assert house.bumps
    assert not with_block(house).bumps


def test_a_child_of_a_candidate_ends_once_another_candidate_is_in_a_block() -> None:
    other = replace(FUNDING, outputs=(*FUNDING.outputs, TxOut(amount_sat=1, script_pubkey=b"")))
    ladder = entry(1, ALICE, funding_txid=FUNDING.txid, higher_txids=(other.txid,))
    house, coins = with_coins(house_of(ladder, entry(2, BOB)), 1_000)
    house = bumped(house, *coins)
    assert with_block(house, spend_of(OutPoint(txid=txid_of(9), vout=0))).bumps
    assert with_block(house).bumps == house.bumps
    mine = with_block(house, FUNDING)
    assert mine.bumps, "it pays for the one that is there"
    overtaken = with_block(house, other)
    assert (overtaken.bumps, overtaken.n_free_coins(1)) == (Map(), 1)
    raised = apply_to_house(house, lr.FundingReplaced(attempt_id=b"attempt 1", rung=1, fee_sat=5))
    assert (raised.bumps, raised.n_free_coins(1), raised.entry_of(1).published) == (Map(), 1, 1)
    assert raised.post.outbox["factory:1"][-1] == mail.FundingRaised(
        attempt_id=b"attempt 1", rung=1
    )


# What takes a funding's place


def given_up(house: House, tx: Tx) -> House:
    record = lr.FundingAbandoned(attempt_id=b"attempt 1", tx=tx.serialize(), reason="why")
    return apply_to_house(house, record)


def test_what_takes_a_funding_s_place_keeps_its_coins_and_frees_those_of_the_one_before() -> None:
    house, (funded, more) = with_coins(house_of(), 9_000, 1_000)
    one = entry(1, ALICE, coins=(funded,))
    house = changed(
        house,
        entries=house.entries.set(one.attempt_id, one),
        order=house.order.set(1, one.attempt_id),
        wallet=house.wallet.with_reserved((funded,), one.attempt_id),
    )
    script = house.wallet.next_script(CHANGE)
    first = spend_of(funded, more, pays=script)
    once = given_up(house, first)
    assert once.entry_of(1).replacement == first
    assert once.given_up == {b"attempt 1"}
    assert once.n_free_coins(1) == 0
    assert once.wallet.next_script(CHANGE) != script
    told_factory = once.post.outbox["factory:1"][-1]
    assert told_factory == mail.FundingGivenUp(attempt_id=b"attempt 1", tx=first.serialize())
    signed = changed(once, wallet=once.wallet.with_spending(first))
    second = spend_of(funded, pays=once.wallet.next_script(CHANGE))
    twice = given_up(signed, second)
    assert twice.entry_of(1).replacement == second
    assert first.txid not in twice.wallet.payments
    assert twice.wallet.reserved[funded] == b"attempt 1"


def test_a_funding_that_died_twice_was_lent_once() -> None:
    """A reorganisation revives it, and takes it away again."""
    house = house_of(entry(1, ALICE), entry(2, BOB))
    died = mail.FactoryDied(attempt_id=b"attempt 1")
    once = told(house, died)
    twice = told(once, died)
    assert once.lent_sat() == twice.lent_sat() == 10_000
    assert twice.entry_of(1).status == DEAD
    assert twice.tally.lent_sat == 10_000


def test_coins_of_a_dead_funding_are_looked_at_where_a_block_has_something_of_ours() -> None:
    house, coins = with_coins(house_of(), 9_000)
    one = entry(1, ALICE, status=DEAD, coins=coins)
    house = changed(
        house,
        entries=house.entries.set(one.attempt_id, one),
        order=house.order.set(1, one.attempt_id),
        tally=replace(house.tally, dead=frozenset({one.attempt_id})),
    )
    stranger = spend_of(OutPoint(txid=txid_of(9), vout=0))
    after = with_block(house, stranger)
    assert after.wallet.reserved[coins[0]] == one.attempt_id, "what it died of is in no block"
    spent = with_block(after, spend_of(coins[0]))
    assert one.attempt_id not in spent.wallet.reserved_for
    back = without_block(spent, spent.chain.height)
    assert back.wallet.reserved[coins[0]] == one.attempt_id
    held = changed(house, wallet=house.wallet.with_reserved(coins, b"another"))
    assert with_block(held, stranger).wallet.reserved[coins[0]] == b"another"


@pytest.mark.parametrize("n_spent", [0, 1, 2])
def test_coins_of_a_dead_funding_are_set_aside_until_one_of_them_is_spent(n_spent: int) -> None:
    """A funding with one coin less can never confirm; a coin that nobody knows says nothing."""
    house, coins = with_coins(house_of(), 9_000, 8_000)
    unknown = OutPoint(txid=txid_of(99), vout=9)
    one = entry(1, ALICE, status=DEAD, coins=(unknown, *coins))
    wallet = house.wallet
    for coin in coins[:n_spent]:
        wallet = wallet.with_tx(spend_of(coin), house.chain.height)
    for before in (wallet, wallet.with_reserved(coins, one.attempt_id)):
        after = with_dead_coins(before, [one])
        assert [coin in after.reserved for coin in coins] == [n_spent == 0] * 2
        assert with_dead_coins(after, [one]) == after
        assert after.coins == before.coins
    another = with_dead_coins(wallet.with_reserved(coins[1:], b"another"), [one])
    assert another.reserved[coins[1]] == b"another"


def test_news_of_a_block_is_remembered_only_where_there_is_some() -> None:
    house = with_block(house_of())
    assert dict(house.news.walk()) == {}
    tx = spend_of(OutPoint(txid=txid_of(9), vout=0))
    house = with_block(house, tx)
    assert dict(house.news.walk()) == {house.chain.height: (tx.txid,)}
    assert house.chain.depth(tx.txid) == 1
    assert house.chain.spends == {}, "nobody asks the house"
    assert dict(without_block(house, house.chain.height).news.walk()) == {}


# Purses


def spent_coins(*amounts_sat: int) -> tuple[SpentCoin, ...]:
    house, coins = with_coins(house_of(), *amounts_sat)
    return tuple(house.wallet.coins[coin].to_spend for coin in coins)


def test_a_coin_is_of_use_to_a_child_if_it_is_among_the_largest_that_one_spends() -> None:
    many = spent_coins(*range(1_000, 1_000 + 100 * (N_COINS_MAX + 2), 100))
    assert least_of_use_sat(many) == 1_200
    assert least_of_use_sat(many[:N_COINS_MAX]) == 1_000
    assert least_of_use_sat(many[: N_COINS_MAX - 1]) == 0


def test_a_purse_that_is_settled_keeps_what_was_in_it_and_the_most_that_it_has_cost() -> None:
    (coin, more) = spent_coins(1_000, 2_000)
    purses = Map({SERVED: Purse(coins=(coin,), change_script=b"\x51", cost_sat=30)})
    settled = with_settled(purses, SERVED, cost_sat=20)[SERVED]
    assert (settled.coins, settled.returned, settled.cost_sat) == ((), (coin,), 30)
    assert with_settled(purses, SERVED, cost_sat=40)[SERVED].cost_sat == 40
    assert with_settled(purses, OutPoint(txid=txid_of(9), vout=0), cost_sat=4) is purses
    house, _ = with_coins(house_of(), 1_000, 2_000)
    record = xr.CoinsLent(
        outpoint=SERVED.serialize(), coins=(more.outpoint.serialize(),), change_script=b"\x52"
    )
    script = house.wallet.next_script(CHANGE)
    wallet, refilled = with_lent(house.wallet, Map({SERVED: settled}), record)
    assert wallet.next_script(CHANGE) == script, "its change goes where it went"
    assert (refilled[SERVED].coins, refilled[SERVED].cost_sat) == ((more,), 30)
    assert change_script_of(wallet, refilled, SERVED) == b"\x52"
    assert change_script_of(wallet, Map(), SERVED) == script
    unknown = OutPoint(txid=txid_of(9), vout=0)
    with pytest.raises(AssertionError, match="is no coin of the wallet"):
        with_lent(
            house.wallet,
            Map(),
            xr.CoinsLent(
                outpoint=SERVED.serialize(), coins=(unknown.serialize(),), change_script=b""
            ),
        )


def test_coins_that_nobody_asked_for_any_more_are_lent_all_the_same() -> None:
    """The letter that gives them back may have crossed."""
    house, (coin,) = with_coins(house_of(), 1_000)
    record = xr.CoinsLent(
        outpoint=SERVED.serialize(),
        coins=(coin.serialize(),),
        change_script=house.wallet.next_script(CHANGE),
        to="factory:1",
    )
    after = apply_to_house(house, record)
    assert after.purses[SERVED].amount_sat == 1_000
    assert not after.coins_wanted


# Who joins, and is ordered for


@cache
def ordered() -> tuple[House, House, lr.FactoryOrdered, lr.ClientJoined]:
    """Return a house before a factory was ordered, the house since, the order, and one join."""
    pump = Pump(2)
    pump.join()
    before = pump.lsp.state.house
    pump.build()
    pump.run()
    remembered: list[Any] = pump.lsp.store.remembered
    (order,) = [one for one in remembered if isinstance(one, lr.FactoryOrdered)]
    (join, *_) = pump.sent(pump.clients[0], m.Join)
    joined = lr.ClientJoined(
        node_id=pump.clients[0].node_id, message=m.encode_message(join), is_moving=True
    )
    return before, pump.lsp.state.house, order, joined


def test_a_client_that_joins_is_a_member_and_counted_as_new_where_it_has_no_channel() -> None:
    before, after, _, joined = ordered()
    house = changed(before, members={}, joins={}, n_new_joins=0)
    for n in range(JOINS_TO_PAUSE + 1):
        house = apply_to_house(house, joined)
        assert house.n_new_joins == n + 1
    assert apply_to_house(with_block(house_of()), joined).is_stirred
    member = house.members[joined.node_id]
    assert (member.is_moving, member.node_id) == (True, joined.node_id)
    assert house.joins[joined.node_id] == (house.chain.height,) * JOINS_TO_PAUSE
    assert house.counts_attendance(joined.node_id)
    known = apply_to_house(changed(after, n_new_joins=0), joined)
    assert known.n_new_joins == 0, "it has a channel"
    left = apply_to_house(house, lr.ClientLeft(node_id=joined.node_id))
    assert joined.node_id not in left.members
    gone = apply_to_house(house, r.PeerDisconnected(node_id=joined.node_id))
    assert joined.node_id not in gone.members
    others = apply_to_house(house, lr.ClientLeft(node_id=ALICE))
    assert others.members == house.members


def test_an_order_takes_its_clients_from_the_lobby_and_sets_its_coins_aside() -> None:
    before, _, order, joined = ordered()
    stranger = replace(before.members[joined.node_id], node_id=ALICE)
    house = changed(before, members={**before.members, ALICE: stranger})
    n_free = house.n_free_coins(1)
    script = house.wallet.next_script(CHANGE)
    after = apply_to_house(house, order)
    assert set(after.members) == {ALICE}
    entry_of = after.entry_of(order.order.attempt)
    assert after.under_way == entry_of.attempt_id == order.order.attempt_id
    assert entry_of.status == BUILDING
    assert after.n_free_coins(1) == n_free - len(entry_of.coins)
    assert after.wallet.next_script(CHANGE) != script
    funding = Tx.parse(order.order.funding_tx)
    assert (entry_of.funding_txid, entry_of.funding_amount_sat) == (
        funding.txid,
        funding.outputs[0].amount_sat,
    )
    keys = {entry_of.own_pubkey, *order.factory_pubkeys}
    assert {key for key, number in after.keys.walk() if number == entry_of.number} == keys
    assert after.post.outbox[entry_of.stream][-1] == order.order
    assert after.counts_attendance(joined.node_id)
    funded = told(after, mail.CeremonyEnded(attempt_id=entry_of.attempt_id))
    assert funded.under_way is None
    assert funded.build is None
    other = changed(after, under_way=b"another", entries=after.entries)
    assert told(other, mail.CeremonyEnded(attempt_id=entry_of.attempt_id)).under_way == b"another"


def test_a_ban_that_is_lifted_leaves_nothing_of_its_node_and_all_of_others() -> None:
    both: dict[bytes, tuple[int, ...]] = {ALICE: (99,), BOB: (99,)}
    house = changed(house_of(), faults=both, aborts=both, joins=both)
    for name in (ALICE, BOB):
        house = apply_to_house(house, lr.BanSet(node_id=name, until_height=200, reason="why"))
    after = apply_to_house(house, lr.BanLifted(node_id=ALICE))
    assert set(after.bans) == set(after.faults) == set(after.aborts) == set(after.joins) == {BOB}
    assert (after.bans[BOB].since_height, after.bans[BOB].until_height) == (99, 200)


def test_only_who_has_a_channel_is_missed() -> None:
    house = house_of(entry(1, ALICE))
    house = apply_to_house(house, lr.Attendance(came=(ALICE, BOB), went=()))
    house = with_block(house)
    house = apply_to_house(house, lr.Attendance(came=(), went=(ALICE, BOB)))
    assert dict(house.last_seen.walk()) == {ALICE: 100}


# Payments of the operator


def asked(payment_hash: bytes) -> mail.PayAsked:
    return mail.PayAsked(
        payment_hash=payment_hash,
        payment_secret=b"s",
        payee=ALICE,
        amount_msat=1,
        description="",
        min_final_cltv_expiry_delta=18,
        text="",
    )


def test_a_payment_is_numbered_told_its_factory_and_expected_until_it_is_paid() -> None:
    house = house_of()
    for payment_hash in (b"a", b"b", b"a"):
        order = lr.PaymentOrdered(to="factory:1", asked=asked(payment_hash), label="rent")
        house = apply_to_house(house, order, 50)
    payment = house.payments[b"a"]
    assert (payment.number, payment.created_at, payment.label) == (3, 50, "rent")
    place = ListPlace(top=house.n_payments, below=house.n_payments + 1)
    assert [*house.numbers.walk(place)] == [(3, b"a", True), (2, b"b", True), (1, b"a", False)]
    assert len(house.post.outbox["factory:1"]) == 3
    for name in (b"a", b"b"):
        announced = lr.PaymentExpected(
            node_id=ALICE, payment_hash=name, hold_seconds=60, until_height=500
        )
        house = apply_to_house(house, announced)
    paid = told(house, mail.PayAnswered(payment_hash=b"a", preimage=b"p"), at=70)
    assert (paid.payments[b"a"].status, paid.payments[b"a"].settled_at) == ("paid", 70)
    assert set(paid.expected.of(ALICE)) == {b"b"}
    failed = told(house, mail.PayAnswered(payment_hash=b"a", failure=b"f"), at=70)
    assert (failed.payments[b"a"].status, set(failed.expected.of(ALICE))) == (
        "failed",
        {b"a", b"b"},
    )
    elsewhere = told(house, mail.AnnouncedPaid(node_id=ALICE, payment_hash=b"b"))
    assert set(elsewhere.expected.of(ALICE)) == {b"a"}
    withdrawn = apply_to_house(house, lr.PaymentWithdrawn(payment_hash=b"b", reason="too late"), 80)
    assert withdrawn.payments[b"b"].refused == "too late"
    assert withdrawn.post.outbox["factory:1"].count(mail.Withdrawn()) == 1


# A store that was put back, and what else is folded


def test_a_restored_house_is_unproven_until_its_mark_is_lifted() -> None:
    house = apply_to_house(house_of(), r.StoreRestored(backup_id=b"", source=""))
    assert (house.restored.is_unproven, house.restored.forgot_keys) == (True, True)
    skipped = apply_to_house(house, r.KeysSkipped(next_attempt=70))
    assert (skipped.next_attempt, skipped.restored.forgot_keys) == (70, False)
    assert not apply_to_house(house, r.MarkLifted()).restored.is_unproven


def test_a_clients_seat_that_it_left_is_known_by_its_entry() -> None:
    house = told(house_of(entry(1, ALICE, BOB)), mail.SeatLeft(attempt_id=b"attempt 1", client=2))
    assert house.entry_of(1).moved_out == {2}


def test_what_the_wallet_signs_sets_its_coins_aside_until_it_is_given_up() -> None:
    house, (coin,) = with_coins(house_of(), 5_000)
    tx = spend_of(coin)
    signed = apply_to_house(house, sr.SpendingWasSigned(tx=tx.serialize(), has_change=False))
    assert signed.n_free_coins(1) == 0
    over = apply_to_house(signed, sr.SpendingAbandoned(txid=bytes(tx.txid), reason="why"))
    assert over.n_free_coins(1) == 1


def test_a_build_that_is_dropped_says_why_and_what_hindered_it() -> None:
    begun = lr.BuildStarted(
        attempt=4, node_ids=(ALICE,), reasons=("",), capacity_sat=(1,), min_clients=1, max_clients=2
    )
    house = apply_to_house(house_of(), begun)
    dropped = apply_to_house(house, lr.BuildDropped(reason="few", code="too_few"))
    assert (dropped.build, dropped.build_dropped, dropped.hindered_by) == (None, "few", "too_few")
    again = apply_to_house(dropped, begun)
    assert (again.build_dropped, again.hindered_by) == (None, "")
    assert again.build is not None


def test_an_order_of_a_build_that_has_an_id_is_found_by_it_unless_nothing_came_of_it() -> None:
    before, _, order, _ = ordered()
    build = Build(
        attempt=order.order.attempt,
        node_ids=(),
        reasons=(),
        capacity_sat=(),
        min_clients=2,
        max_clients=7,
        feerates_sat_per_kw=(500, 2_000),
        external_id="may",
    )
    after = apply_to_house(changed(before, build=build), order)
    called = after.built_as("may")
    assert called == CalledBuild(
        attempt_id=order.order.attempt_id,
        min_clients=2,
        max_clients=7,
        feerates_sat_per_kw=(500, 2_000),
    )
    assert after.built_as("") is after.built_as("june") is None
    entry_of = after.entry_of(order.order.attempt)
    aborted = after.entries.set(entry_of.attempt_id, replace(entry_of, status=ABORTED))
    assert changed(after, entries=aborted).built_as("may") is None
    for unnamed in (None, replace(build, external_id="")):
        assert not len(apply_to_house(changed(before, build=unnamed), order).called)
