"""Until when a factory may sleep, or rest while its clients are here: by what is left to do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.ladders import DEPTH, candidates, forked
from tests.protocol.paying_clients import live_factory, pay
from tests.protocol.seen_blocks import buried, spending, up_to
from tests.protocol.sleepers import all_away, lsp_state
from tests.protocol.test_beside_closes import close_of
from tests.protocol.test_confirming import CHANGE, coin
from tests.protocol.test_ladder_reorgs import bury
from tests.protocol.test_lsp_sweeps import SHORT
from tests.protocol.test_what_is_at_stake import live

from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.channel.terms import Party
from cromford.factory.lifetime import Period
from cromford.protocol.exiting.rest import (
    LEFT_BLOCKS,
    LOOK_AGAIN_BLOCKS,
    NEVER,
    at_rest_until,
    has_guests,
    is_shared_out,
    wakes_at,
)
from cromford.protocol.journal.book import Errand
from cromford.protocol.journal.closing import Agreeing, Closing, EndedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import Letter
from cromford.protocol.policy import DyingStep, LspPolicy
from cromford.wallet.coins import Purse

DEEP: Final = 6
CLOSES: Final = replace(SHORT, dying_blocks=288, dying_policy=(DyingStep.CLOSE, DyingStep.SWEEP))
SWEEPS: Final = replace(SHORT, dying_policy=(DyingStep.SWEEP,))
KEY: Final = (b"c" * 32, 0)


def quiet_factory(policy: LspPolicy) -> Factory:
    pump = live_factory(4, policy=policy)
    pay(pump, pump.lsp, pump.clients[0], 30_000_000)
    all_away(pump)
    return lsp_state(pump).factory(0)


@pytest.fixture(scope="module")
def quiet() -> Factory:
    """Return a factory of four, in which nothing happens and nobody is here."""
    return quiet_factory(SWEEPS)


@pytest.fixture(scope="module")
def closable() -> Factory:
    """Return one that is closed by its policy once it dies."""
    return quiet_factory(CLOSES)


def at(factory: Factory, height: int, period: Period) -> Factory:
    """Return it at a height, and what it told of its life."""
    return replace(factory, chain=up_to(factory.chain, height), period=period)


def with_links(factory: Factory, change: Callable[[Link], Link]) -> Factory:
    links = {name: change(link) for name, link in factory.book.links.items()}
    return replace(factory, book=changed(factory.book, links=Map(links)))


def with_link(factory: Factory, change: Callable[[Link], Link]) -> Factory:
    link = factory.book.ordered_links[-1]
    links = factory.book.links.set(link.channel_id, change(link))
    return replace(factory, book=changed(factory.book, links=links))


def swept(factory: Factory, depth: int = DEEP) -> Factory:
    sweep = spending(factory.attempt.funding_outpoint)
    return replace(factory, chain=buried(factory.chain, depth, sweep))


def owning(factory: Factory) -> Factory:
    errand = Errand(asker="factory:9", incoming=KEY)
    return replace(factory, book=changed(factory.book, owners=Map({KEY: errand})))


# What keeps it awake


OUTPOINT: Final = OutPoint(txid=coin(7, 1).outpoint.txid, vout=3)
PURSE: Final = Purse(coins=(coin(1, 5_000),), change_script=CHANGE)
CLOSE: Final = close_of(OUTPOINT, 5_000)


def closing(factory: Factory) -> Closing:
    return Closing(
        close_id=b"c" * 32,
        outpoint=factory.attempt.funding_outpoint,
        clients=(1, 2, 3, 4),
        feerates_sat_per_kw=(500,),
        stage=Agreeing(),
    )


ANYTHING: Final[Any] = object()


AWAKE: Final[dict[str, Callable[[Factory], Factory]]] = {
    "it was only ordered": lambda one: replace(one, begun=None),
    "coins that it asked for": lambda one: replace(one, coins_asked=Map({OUTPOINT: 5_000})),
    "coins that it was lent": lambda one: replace(one, purses=Map({OUTPOINT: PURSE})),
    "a close under way": lambda one: replace(one, closing=closing(one)),
    "a close that waits for a block": lambda one: replace(one, closed=Map({b"a" * 32: CLOSE})),
    "an advance": lambda one: replace(one, advances=Map({"0": ANYTHING})),
    "a mark": lambda one: replace(one, is_marked=True),
}


@pytest.mark.parametrize("why", AWAKE)
def test_whatever_is_to_do_in_a_factory_keeps_it_awake_and_has_blocks_ask_it(
    quiet: Factory, why: str
) -> None:
    dying = quiet.lifetime.dying_height
    assert wakes_at(quiet) == at_rest_until(quiet) == dying
    busy = AWAKE[why](quiet)
    assert wakes_at(busy) is None
    assert at_rest_until(busy) is None


def test_what_went_elsewhere_or_was_given_back_keeps_nobody_awake(quiet: Factory) -> None:
    spent = replace(quiet, chain=buried(quiet.chain, 1, spending(OUTPOINT)))
    done = replace(spent, closed=Map({b"a" * 32: CLOSE}))
    assert wakes_at(done) == quiet.lifetime.dying_height
    empty = replace(quiet, purses=Map({OUTPOINT: replace(PURSE, coins=())}))
    assert wakes_at(empty) == quiet.lifetime.dying_height


BUSY: Final[dict[str, Callable[[Link], Link]]] = {
    "an HTLC": lambda link: changed(link, state=changed(link.state, htlcs=(live(Party.OPENER),))),
    "it failed": lambda link: changed(link, failure="it did"),
    "it waits for a nonce": lambda link: changed(link, awaits_nonce=True),
}


@pytest.mark.parametrize("why", BUSY)
def test_a_block_asks_a_factory_with_a_channel_in_which_a_height_may_be_due(
    quiet: Factory, why: str
) -> None:
    assert at_rest_until(with_link(quiet, BUSY[why])) is None


def test_a_session_keeps_a_factory_in_memory_and_at_rest(quiet: Factory) -> None:
    here = with_link(quiet, lambda link: changed(link, pool_id=b"pool"))
    assert wakes_at(here) is None
    assert at_rest_until(here) == quiet.lifetime.dying_height


# When nothing ever is


def test_a_factory_that_was_swept_sleeps_for_good_once_no_payment_waits(quiet: Factory) -> None:
    assert wakes_at(swept(quiet, DEEP - 1)) is None
    assert (wakes_at(swept(quiet)), at_rest_until(swept(quiet))) == (NEVER, NEVER)
    assert wakes_at(owning(swept(quiet))) is None
    marked = replace(swept(quiet), is_marked=True)
    assert wakes_at(marked) == NEVER, "nothing is left of which it could hear"


def dead(factory: Factory) -> Factory:
    """Return it with something else in the place of its funding, as deep as a funding has to be."""
    stage = factory.attempt.funded
    assert stage is not None
    (coin_spent, *_) = factory.attempt.funding_tx.inputs
    rival = spending(coin_spent.outpoint)
    begun = changed(factory.attempt, stage=replace(stage, is_dead=True))
    chain = buried(factory.chain, factory.attempt.terms.min_depth, rival)
    return replace(factory, begun=begun, chain=chain)


def test_a_dead_factory_sleeps_for_good_once_no_payment_waits(quiet: Factory) -> None:
    assert dead(quiet).is_dead
    assert (wakes_at(dead(quiet)), at_rest_until(dead(quiet))) == (NEVER, NEVER)
    assert wakes_at(owning(dead(quiet))) is None


@pytest.mark.parametrize("n_blocks", [DEPTH - 1, DEPTH])
def test_a_factory_whose_channels_lost_their_place_stays_until_it_is_told_and_nothing_waits(
    n_blocks: int,
) -> None:
    """Another candidate of its ladder is in a block instead, as deep as a funding has to be."""
    pump = forked()
    bury(pump, candidates(pump)[0])
    all_away(pump)
    before = lsp_state(pump).asleep[0].wake_height
    pump.take_back(DEPTH)
    bury(pump, candidates(pump)[1], n_blocks)
    factory = pump.factory
    assert factory.landed is not factory
    assert factory.is_dead is (n_blocks == DEPTH)
    assert wakes_at(factory) == (before if factory.is_dead else None)
    assert at_rest_until(factory) == wakes_at(factory)
    assert wakes_at(owning(factory)) is None


def spent_channels(factory: Factory, *clients: int, depth: int = DEEP) -> Factory:
    """Return it with the whole tree on chain, its L-stocks taken, and these channels elsewhere."""
    chain = factory.chain
    for node in factory.attempt.tree.nodes:
        chain = buried(chain, 1, factory.attempt.signed_txs[node.name])
    stocks = (one.outpoint for one in factory.attempt.tree.timelocked_outputs if one.rival is None)
    gone = spending(*stocks, *(factory.funding_on_chain(client).outpoint for client in clients))
    return replace(factory, chain=buried(chain, depth, gone))


def test_a_factory_is_shared_out_once_each_of_its_channels_is_settled(quiet: Factory) -> None:
    done = spent_channels(quiet, 1, 2, 3, 4)
    assert is_shared_out(done)
    assert wakes_at(done) == NEVER
    assert wakes_at(owning(done)) is None
    shallow = spent_channels(quiet, 1, 2, 3, 4, depth=DEEP - 1)
    assert not is_shared_out(shallow)
    assert wakes_at(shallow) is None
    one_left = spent_channels(quiet, 1, 2, 3)
    assert not is_shared_out(one_left)
    assert wakes_at(one_left) is None
    later = spending(one_left.funding_on_chain(4).outpoint)
    waiting = replace(one_left, chain=buried(one_left.chain, DEEP - 1, later))
    assert not is_shared_out(waiting), "the last is not settled, the others are"


# What is left lying


def left(factory: Factory, *, n_blocks: int = 0) -> tuple[Factory, int]:
    """Return it so many blocks after the first at which it may rest, long after its expiry.

    Its tree is on chain, and so is a channel that nobody spent.
    """
    spent = spent_channels(factory, 1, 2, 3)
    newest = spent.chain.height - DEEP + 1
    height = max(factory.attempt.terms.expiry_height, newest) + LEFT_BLOCKS + n_blocks
    return at(spent, height, Period.EXPIRED), height


def test_a_factory_of_which_only_what_nobody_takes_is_left_is_asked_once_a_day(
    quiet: Factory,
) -> None:
    lying, height = left(quiet)
    assert wakes_at(lying) is None, "what is left of it is still to be taken"
    assert (LEFT_BLOCKS, LOOK_AGAIN_BLOCKS) == (2_016, 144)
    assert at_rest_until(lying) == height + LOOK_AGAIN_BLOCKS
    assert at_rest_until(left(quiet, n_blocks=-1)[0]) is None
    assert at_rest_until(at(lying, height, Period.LATE)) is None, "it has not said that it expired"
    later = spending(lying.funding_on_chain(4).outpoint)
    taken = replace(lying, chain=buried(lying.chain, 1, later))
    assert at_rest_until(taken) is None, "something happened"
    newest = replace(lying, chain=buried(lying.chain, 1, spending(OUTPOINT)))
    for n_blocks, rests in ((LEFT_BLOCKS - 1, False), (LEFT_BLOCKS, True)):
        after = at(newest, newest.chain.height + n_blocks, Period.EXPIRED)
        assert (at_rest_until(after) is not None) is rests


def test_an_htlc_of_which_the_chain_decides_nothing_more_is_waited_for_at_rest(
    quiet: Factory,
) -> None:
    """So is one of a breach whose second output is not worth its fee, and that nobody takes."""
    lying, height = left(quiet)
    forwarded = changed(lying.book, forwards=Map({KEY: ANYTHING}))
    for waiting in (owning(lying), replace(lying, book=forwarded)):
        assert at_rest_until(waiting) == height + LOOK_AGAIN_BLOCKS
    htlc = live(Party.OPENER)
    for expiry, is_over in ((height - LEFT_BLOCKS, True), (height - LEFT_BLOCKS + 1, False)):
        old = changed(htlc, htlc=changed(htlc.htlc, cltv_expiry=expiry))

        def with_htlc(link: Link, one: Any = old) -> Link:
            return changed(link, state=changed(link.state, htlcs=(one,)))

        assert (at_rest_until(with_link(lying, with_htlc)) is not None) is is_over


@pytest.mark.parametrize("why", AWAKE)
def test_whatever_is_to_do_has_blocks_ask_a_factory_that_is_left(quiet: Factory, why: str) -> None:
    assert at_rest_until(AWAKE[why](left(quiet)[0])) is None


@pytest.mark.parametrize("where", ["arrived", "held", "resolved"])
def test_an_htlc_that_is_to_be_answered_has_blocks_ask_it(quiet: Factory, where: str) -> None:
    lying, _ = left(quiet)
    waiting: Any = {where: Map({KEY: ANYTHING})}
    book = changed(lying.book, **waiting)
    assert at_rest_until(replace(lying, book=book)) is None


def test_neither_a_channel_that_waits_for_a_nonce_nor_a_letter_is_left_lying(
    quiet: Factory,
) -> None:
    lying, _ = left(quiet)
    assert at_rest_until(with_link(lying, BUSY["it waits for a nonce"])) is None
    told = lying.post.with_sent((Letter("house", ANYTHING),))
    assert at_rest_until(replace(lying, post=told)) is None
    unspent = replace(at(quiet, lying.chain.height, Period.EXPIRED), exits=frozenset({4}))
    assert at_rest_until(unspent) is None, "it is to be swept"


# While it dies


def moved_out(factory: Factory, *clients: int) -> Factory:
    """Return a factory whose clients gave their keys, with nothing in their channels."""

    def emptied(link: Link) -> Link:
        state = link.state
        held_msat = state.opener_msat + state.accepter_msat
        return changed(link, state=changed(state, opener_msat=held_msat, accepter_msat=0))

    return replace(with_links(factory, emptied), held_keys=frozenset(clients))


def test_a_factory_that_dies_and_needs_nobody_to_be_closed_stays_in_memory(
    closable: Factory,
) -> None:
    life = closable.lifetime
    alone = moved_out(closable, 1, 2, 3, 4)
    begun = life.dying_height
    assert wakes_at(at(alone, begun - 1, Period.WAITING)) == begun
    assert wakes_at(at(alone, begun, Period.DYING)) is None
    for clients in ((2, 3, 4), (1, 2, 3)):
        needed = moved_out(closable, *clients)
        assert wakes_at(at(needed, begun, Period.DYING)) == life.exit_deadline_height
    over = swept(at(alone, begun, Period.DYING))
    assert wakes_at(over) == NEVER, "nothing of it is left to be closed"


def test_at_rest_it_is_asked_when_a_close_is_due_or_its_life_changes(closable: Factory) -> None:
    life = closable.lifetime
    begun = life.dying_height
    dying = at(closable, begun + 1, Period.DYING)
    assert at_rest_until(closable) == begun
    assert at_rest_until(replace(dying, close_height=begun)) == begun + 36
    assert at_rest_until(dying) == begun + 2
    assert at_rest_until(swept(dying)) == NEVER
    assert at_rest_until(at(closable, begun, Period.WAITING)) is None, "it is to be told"
    sold = at(closable, life.exit_deadline_height - 1, Period.DYING)
    assert at_rest_until(sold) == life.exit_deadline_height
    late = at(closable, life.exit_deadline_height - 100, Period.DYING)
    assert at_rest_until(replace(late, close_height=begun)) == life.exit_deadline_height
    ended = EndedClose(close_id=b"c" * 32, reason="no", outpoint=closable.attempt.funding_outpoint)
    failed = replace(late, close_ended=ended, close_height=begun)
    asked_again = at_rest_until(failed)
    assert asked_again is not None
    assert late.chain.height < asked_again <= late.chain.height + 36, "its part may be closed yet"


def test_guests_are_those_that_are_here_and_whose_channels_are_not_closed(
    quiet: Factory,
) -> None:
    seats = quiet.attempt.seats

    def here(*clients: int) -> Any:
        ids = {seats[client - 1].node_id for client in clients}
        return lambda node_id: node_id in ids

    assert not has_guests(quiet, here())
    for client in range(1, 5):
        assert has_guests(quiet, here(client))
    closed = replace(quiet, closed_seats=frozenset({1, 2}))
    assert not has_guests(closed, here(1, 2))
    assert has_guests(closed, here(1, 3))
