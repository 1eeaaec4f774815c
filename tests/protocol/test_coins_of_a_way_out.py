"""What an LSP asks its house for, to pay for a way out: once, first for what hurries, and back."""

from dataclasses import replace
from functools import cache
from typing import Final

from immutables import Map
from tests.protocol.decisions import in_factory, remembered
from tests.protocol.left_factories import (
    ALICE,
    House,
    channel,
    leaving,
    on,
    paid,
    path,
    seeing,
)
from tests.protocol.paying_clients import begin_payment, live_factory, pay
from tests.protocol.seen_blocks import spending, up_to
from tests.protocol.test_confirming import CHANGE, coin
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.protocol.exiting.lending import needs_of
from cromford.protocol.exiting.lsp import ask_for_coins, owed
from cromford.protocol.facts import FRESH, Lacking
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.wallet.coins import Purse
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

FEES: Final = OwnFees(estimates=((1, 8_000), (100, 4_000)))
MUCH: Final = 1_000_000
ELSEWHERE: Final = OutPoint(txid=Txid(b"\x0c" * 32), vout=0)


def factory() -> Factory:
    return leaving(paid(), ALICE)


def root() -> OutPoint:
    """Return what the first transaction of the way out spends."""
    return paid().attempt.funding_outpoint


def beside() -> OutPoint:
    """Return another output in a block, for which nothing is published."""
    return OutPoint(txid=root().txid, vout=7)


def asking(state: Factory, house: House | None = None, *, fees: OwnFees = FEES) -> Turn[Factory]:
    turn = in_factory(state, replace(FRESH, fees=fees), house or House())
    effects = ask_for_coins(turn)
    assert effects == owed(turn.state, fees), "and it is what is owed after it"
    return turn


def asked(turn: Turn[Factory]) -> list[tuple[OutPoint, int, int]]:
    return [
        (OutPoint.parse(one.outpoint), one.needed_sat, one.feerate_sat_per_kw)
        for one in remembered(turn, xr.CoinsAsked)
    ]


def given_back(turn: Turn[Factory]) -> list[OutPoint]:
    return [OutPoint.parse(one.outpoint) for one in remembered(turn, xr.CoinsReturned)]


def lent(state: Factory, outpoint: OutPoint, amount_sat: int) -> Factory:
    purse = Purse(coins=(coin(1, amount_sat),), change_script=CHANGE)
    return replace(state, purses=state.purses.set(outpoint, purse))


def need_sat() -> tuple[int, int]:
    """Return what the root's coin has to hold, and the feerate that is wanted."""
    (need,) = needs_of(owed(asking(factory()).state, FEES))
    return need.whole_sat, need.feerate_sat_per_kw


def test_coins_are_asked_for_once_and_the_first_broadcast_is_dated() -> None:
    turn = asking(factory())
    needed_sat, feerate = need_sat()
    assert asked(turn) == [(root(), needed_sat, feerate)]
    assert feerate == 4_000
    first = xr.FirstPublished(outpoint=root().serialize(), height=factory().chain.height)
    assert remembered(turn, xr.FirstPublished) == [first]
    again = asking(turn.state)
    assert again.decision.records == ()
    assert asking(paid()).decision.records == (), "nobody leaves"


def test_more_coins_are_asked_for_only_when_it_is_a_quarter_more_or_hurries_so_much_more() -> None:
    needed_sat, feerate = need_sat()
    before = asking(factory()).state
    for sat, is_asked in ((needed_sat * 4 // 5 - 1, True), (needed_sat * 4 // 5 + 1, False)):
        known = replace(before, coins_asked=Map({root(): sat}))
        assert bool(asked(asking(known))) is is_asked
    # It waits by what it said when it did not hurry.
    for rate, is_asked in ((feerate * 4 // 5 - 1, True), (feerate * 4 // 5 + 1, False)):
        house = House(wanted={root(): Lacking(needed_sat, rate)})
        assert bool(asked(asking(before, house))) is is_asked


def test_coins_go_back_once_what_they_are_for_is_spent_and_stay_while_it_is_not() -> None:
    rich = lent(asking(factory()).state, root(), MUCH)
    assert given_back(asking(rich)) == []
    assert asked(asking(rich)) == [], "it has enough"
    assert given_back(asking(seeing(rich, spending(root())))) == [root()]
    assert given_back(asking(lent(rich, ELSEWHERE, MUCH))) == [ELSEWHERE], "no block has that"
    gone = House(gone=frozenset({coin(1, MUCH).outpoint}))
    turn = asking(rich, gone)
    assert given_back(turn) == [root()]
    assert [one for one, _, _ in asked(turn)] == [root()], "others are asked for"


def test_what_needs_much_less_than_it_waits_for_says_so_and_asks_anew() -> None:
    needed_sat, feerate = need_sat()
    before = replace(asking(factory()).state, coins_asked=Map({root(): MUCH}))
    house = House(wanted={root(): Lacking(MUCH, feerate)})
    turn = asking(before, house)
    assert given_back(turn) == [root()]
    assert asked(turn) == [(root(), needed_sat, feerate)]
    dear = House(wanted={root(): Lacking(needed_sat, 10 * feerate)})
    assert asked(asking(before, dear)) == [(root(), needed_sat, feerate)]


def test_coins_go_to_what_hurries_much_more_and_waits_for_some() -> None:
    rich = lent(asking(factory()).state, root(), MUCH)
    _, feerate = need_sat()
    waits = {ELSEWHERE: Lacking(1_000, 2 * feerate)}
    assert given_back(asking(rich, House(wanted=waits))) == [root()]
    assert given_back(asking(rich, House(wanted={ELSEWHERE: Lacking(1_000, feerate)}))) == []


def test_what_is_not_needed_any_more_takes_nobodys_coins_and_hides_nobody_else() -> None:
    """What waits by a high feerate of before is taken back first."""
    _, feerate = need_sat()
    rich = lent(asking(factory()).state, root(), MUCH)
    rich = replace(rich, coins_asked=rich.coins_asked.set(beside(), 1_000))
    over = {beside(): Lacking(1_000, 100 * feerate)}
    assert given_back(asking(rich, House(wanted=over))) == [beside()]
    both = {**over, ELSEWHERE: Lacking(1_000, 2 * feerate)}
    assert given_back(asking(rich, House(wanted=both))) == [beside(), root()]


@cache
def two_ways_out() -> Factory:
    """Return a factory two of whose leaves are to be kicked off; for the second an HTLC hurries."""
    pump = live_factory(4, policy=QUICK)
    payer, payee = pump.client_at(1), pump.client_at(4)
    pay(pump, pump.lsp, payer, FIRST_MSAT)
    with pump.tampering(mute(pump.lsp, payee, m.RevokeAndAck)):
        begin_payment(pump, payer, payee, WORTH_MSAT)
    state = leaving(pump.factory, 1, 4)
    there = seeing(state, *path(state, 1)[:2])
    (live,) = channel(state, 4).state.htlcs
    return on(there, up_to(there.chain, live.htlc.cltv_expiry - 40))


def test_what_hurries_most_asks_first() -> None:
    """Coins are lent in that order."""
    state = two_ways_out()
    found = asked(asking(state))
    kickoffs = [path(state, client)[2].inputs[0].outpoint for client in (4, 1)]
    assert [outpoint for outpoint, _, _ in found] == kickoffs
    rates = [rate for _, _, rate in found]
    assert rates[0] > rates[1] == 4_000
