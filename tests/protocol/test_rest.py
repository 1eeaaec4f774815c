"""What keeps a factory awake, what wakes it, and that it is the same whether or not it slept."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.paying_clients import (
    balance,
    begin_payment,
    book,
    live_factory,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.sleepers import (
    SleepyNode,
    Village,
    all_away,
    live_through,
    lsp_state,
    settled,
    sleeping,
)
from tests.protocol.test_abandoned_fundings import abandon, unheard
from tests.protocol.test_leaving import QUICK, mute
from tests.simulation.sim_node import durable
from tests.simulation.transcript import recording

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.views.lsp import status_of
from cromford.factory.lifetime import Period
from cromford.protocol import events as ev
from cromford.protocol.exiting.lsp import arriving_total_sat
from cromford.protocol.exiting.rest import NEVER, at_rest_until, wakes_at
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Errand, Forward, Held
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import Funded
from cromford.protocol.journal.mail import Letter, Watched
from cromford.protocol.journal.records import Started, decode_record
from cromford.protocol.journal.streams import factory_number
from cromford.protocol.policy import DyingStep
from cromford.shelf import Shelf
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(7)

FIRST_MSAT: Final = 30_000_000
AMOUNT_MSAT: Final = 5_000_000
KEY: Final = (b"c" * 32, 0)
SHORT: Final = replace(QUICK, active_blocks=200, dying_blocks=144, ready_min_blocks=10)


def factory_of(n_clients: int = 2, **policy: Any) -> Pump:
    """Return a pump with a factory that a client was paid in."""
    pump = live_factory(n_clients, policy=replace(QUICK, **policy))
    assert pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT).status == "paid"
    return pump


def found(pump: Pump, client: PumpNode) -> None:
    """Build a factory with one client, and confirm it."""
    pump.join(client)
    pump.build()
    pump.run()
    pump.mine(pump.policy.min_depth)


# What keeps it awake


@cache
def quiet_factory(**policy: Any) -> Factory:
    pump = factory_of(**policy)
    all_away(pump)
    return lsp_state(pump).factory(0)


@cache
def links_with_business() -> tuple[Link, Link]:
    """Return the LSP's end of a channel in a session, and of one with an HTLC and no session."""
    pump = factory_of()
    alice, bob = pump.clients
    in_session = next(iter(book(pump.lsp).links_with(alice.node_id)))
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        begin_payment(pump, pump.lsp, bob, AMOUNT_MSAT)
    all_away(pump)
    return in_session, next(iter(book(pump.lsp).links_with(bob.node_id)))


def with_book(factory: Factory, **changes: Any) -> Factory:
    return replace(factory, book=replace(factory.book, **changes))


def with_link(factory: Factory, change: Callable[[Link], Link]) -> Factory:
    link = next(iter(factory.book.links.values()))
    return with_book(factory, links=factory.book.links.set(link.channel_id, change(link)))


def funded(factory: Factory) -> Funded:
    stage = factory.attempt.stage
    assert isinstance(stage, Funded)
    return stage


FORWARD: Final = Forward(
    payment_hash=b"h", incoming=KEY, to="factory:1", payee=b"p", amount_msat=1, fee_msat=0
)
AWAKE: Final[dict[str, Callable[[Factory], Factory]]] = {
    "it was only ordered": lambda one: replace(one, begun=None),
    "mail that nobody took": lambda one: replace(
        one, post=one.post.with_sent((Letter("chain", Watched(height=1)),))
    ),
    "a funding in no block": lambda one: replace(
        one, chain=replace(one.chain, confirmed=Shelf(), spends={})
    ),
    "nobody was told that it is ready": lambda one: replace(
        one, begun=replace(one.attempt, stage=replace(funded(one), ready_sent=False))
    ),
    "an exit of ours": lambda one: replace(one, exits=frozenset({1})),
    "its output is spent": lambda one: replace(
        one,
        chain=replace(one.chain, spends={one.attempt.funding_outpoint: one.attempt.funding_tx}),
    ),
    "an HTLC that arrived": lambda one: with_book(one, arrived=Map({KEY: None})),
    "an HTLC that is held": lambda one: with_book(
        one, held=Map({KEY: Held(payee=b"p", reason="away")})
    ),
    "a forward": lambda one: with_book(one, forwards=Map({KEY: FORWARD})),
    "an answer that is due": lambda one: with_book(one, resolved=Map({KEY: None})),
    "an HTLC of ours": lambda one: with_book(
        one, owners=Map({KEY: Errand(asker="factory:1", incoming=KEY)})
    ),
    "a session": lambda one: with_link(
        one, lambda link: replace(link, state=replace(link.state, is_connected=True))
    ),
    "a nonce": lambda one: with_link(one, lambda link: replace(link, pool_id=b"pool")),
    "no room for a nonce": lambda one: with_link(
        one, lambda link: replace(link, awaits_nonce=True)
    ),
    "an HTLC in a channel": lambda one: with_link(
        one,
        lambda link: replace(
            link, state=replace(link.state, htlcs=links_with_business()[1].state.htlcs)
        ),
    ),
    "a channel that failed": lambda one: with_link(one, lambda link: replace(link, failure="no")),
}


@pytest.mark.parametrize("why", AWAKE)
def test_whatever_is_still_to_do_keeps_a_factory_awake(why: str) -> None:
    assert wakes_at(quiet_factory()) is not None
    assert wakes_at(AWAKE[why](quiet_factory())) is None


def at(factory: Factory, height: int, **told: Any) -> Factory:
    """Return a factory whose chain has this height, and what it has told."""
    tip = (BlockRef(height=height, block_hash=Txid(bytes(32))),)
    return replace(factory, **told).at(tip)


def test_a_quiet_factory_names_the_next_change_of_its_life() -> None:
    quiet = quiet_factory(dying_policy=(DyingStep.SWEEP,))
    lifetime = quiet.lifetime
    assert wakes_at(quiet) == lifetime.dying_height
    for before, told, wakes in (
        (lifetime.dying_height - 1, Period.WAITING, lifetime.dying_height),
        (lifetime.dying_height, Period.WAITING, None),
        (lifetime.dying_height, Period.DYING, lifetime.exit_deadline_height),
        (lifetime.exit_deadline_height - 1, Period.DYING, lifetime.exit_deadline_height),
        (lifetime.exit_deadline_height, Period.LATE, lifetime.expiry_height),
        (lifetime.expiry_height - 1, Period.LATE, lifetime.expiry_height),
        (lifetime.expiry_height, Period.EXPIRED, None),
    ):
        assert wakes_at(at(quiet, before, period=told)) == wakes, (before, told)


def test_a_quiet_factory_wakes_for_no_close_for_which_somebody_has_to_come() -> None:
    quiet = quiet_factory(dying_policy=(DyingStep.CLOSE, DyingStep.SWEEP), dying_blocks=288)
    lifetime = quiet.lifetime
    begins = lifetime.dying_height
    for height, asked in ((begins, None), (begins, begins), (begins + 35, begins)):
        dying = at(quiet, height, period=Period.DYING, close_height=asked)
        assert wakes_at(dying) == lifetime.exit_deadline_height
        rests = begins + 36 if asked else height + 1
        assert at_rest_until(dying) == rests, "but while somebody is here it is asked for"


def test_a_session_and_an_htlc_of_a_real_channel_are_business() -> None:
    in_session, with_htlc = links_with_business()
    assert in_session.has_session
    assert in_session.failure is None
    assert with_htlc.state.htlcs
    assert not with_htlc.has_session


def test_a_ceremony_and_a_funding_that_is_not_deep_enough_keep_it_awake() -> None:
    pump = Pump(2, policy=replace(QUICK, min_depth=3))
    pump.join()
    pump.build()
    pump.run_to(m.SignRoot)
    assert wakes_at(pump.factory) is None, "a ceremony"
    pump.run()
    all_away(pump)
    assert wakes_at(pump.factory) is None, "a funding in no block"
    for _ in range(2):
        pump.mine()
        pump.lsp.checkpoint()
        assert (wakes_at(pump.factory), sleeping(pump)) == (None, set()), "not deep enough"
    pump.mine()
    pump.lsp.checkpoint()
    assert sleeping(pump) == {0}


def test_an_attempt_that_was_aborted_sleeps_for_good() -> None:
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run_to(m.SignRoot)
    all_away(pump)
    assert lsp_state(pump).asleep[0].wake_height == NEVER
    assert lsp_state(pump).asleep[0].status == "aborted"
    pump.mine(3)
    assert sleeping(pump) == {0}


def test_a_factory_whose_funding_was_overtaken_sleeps_for_good() -> None:
    pump = unheard()
    abandon(pump)
    all_away(pump)
    assert sleeping(pump) == set()
    pump.mine(3)
    pump.lsp.checkpoint()
    asleep = lsp_state(pump).asleep[0]
    assert (asleep.wake_height, asleep.status) == (NEVER, "dead")


def test_a_held_htlc_keeps_the_payers_factory_awake_until_it_was_given_back() -> None:
    pump = two_factories()
    alice, bob = pump.clients
    begin_payment(pump, alice, bob, AMOUNT_MSAT)
    pump.disconnect(alice)
    pump.lsp.checkpoint()
    assert sleeping(pump) == {1}
    assert wakes_at(lsp_state(pump).factory(0)) is None
    pump.connect(alice)
    pump.pass_holds()
    all_away(pump)
    assert sleeping(pump) == {0, 1}


# What wakes it


def two_factories() -> Pump:
    """Return alice's factory, and bob's, which sleeps."""
    pump = Pump(2, policy=QUICK)
    for client in pump.clients:
        found(pump, client)
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
    all_away(pump)
    assert sleeping(pump) == {0, 1}
    pump.connect(pump.clients[0])
    pump.run()
    assert sleeping(pump) == {1}, "a client that comes wakes its own factory, and no other"
    return pump


def test_a_block_without_news_for_it_lets_it_sleep() -> None:
    pump = two_factories()
    pump.mine(5)
    assert sleeping(pump) == {1}


def test_a_block_that_spends_its_output_wakes_it() -> None:
    pump = two_factories()
    bob = pump.clients[1]
    pump.handle(bob, ev.ExitRequested(attempt_id=newest_link(bob).attempt_id))
    assert sleeping(pump) == {1}
    pump.mine()
    assert sleeping(pump) == set()
    factory = lsp_state(pump).factory(1)
    assert factory.attempt.funding_outpoint in factory.chain.spends
    pump.lsp.checkpoint()
    assert sleeping(pump) == set(), "and what is on chain keeps it awake"


def test_a_block_that_took_its_funding_wakes_it_when_it_leaves_the_chain() -> None:
    pump = settled(0, PumpNode, 2, 2)
    all_away(pump)
    assert sleeping(pump) == {0, 1}
    funding_txid = lsp_state(pump).factory(1).attempt.funding_tx.txid
    depth = pump.chain.height - pump.chain.confirmed[funding_txid] + 1
    for _ in range(depth - 1):
        pump.handle(pump.lsp, ev.BlockRemoved(height=lsp_state(pump).scan.height))
    assert sleeping(pump) == {0, 1}
    pump.handle(pump.lsp, ev.BlockRemoved(height=lsp_state(pump).scan.height))
    assert sleeping(pump) == {0}
    assert wakes_at(lsp_state(pump).factory(1)) is None
    pump.sync()
    pump.lsp.checkpoint()
    assert sleeping(pump) == {0, 1}


def test_a_payment_to_a_client_that_is_away_waits_and_wakes_its_factory_when_it_comes() -> None:
    pump = two_factories()
    alice, bob = pump.clients
    begun = begin_payment(pump, alice, bob, AMOUNT_MSAT)
    assert begun.status == "pending"
    assert sleeping(pump) == {1}
    (held,) = lsp_state(pump).factory(0).book.held.values()
    assert held.reason == "the payee is away"
    pump.connect(bob)
    pump.run()
    assert sleeping(pump) == set()
    assert book(alice).payments[begun.payment_hash].status == "paid"
    assert balance(bob).own_msat == FIRST_MSAT + AMOUNT_MSAT


@pytest.mark.sampled(0)
def test_it_wakes_at_its_expiry_and_sleeps_for_good_once_it_is_swept_six_deep() -> None:
    pump = live_factory(2, policy=SHORT)
    for client in pump.clients:
        pump.blind.add(client.name)  # Or they would leave before.
    all_away(pump)
    lifetime = lsp_state(pump).factory(0).lifetime
    assert lsp_state(pump).asleep[0].wake_height == lifetime.dying_height
    for height, period in (
        (lifetime.dying_height, "dying"),
        (lifetime.exit_deadline_height, "late"),
    ):
        pump.mine(height - pump.chain.height - 1)
        assert sleeping(pump) == {0}
        pump.mine()
        assert sleeping(pump) == set(), "it says what it is at"
        pump.lsp.checkpoint()
        assert lsp_state(pump).asleep[0].period == period
    pump.mine(lifetime.expiry_height - pump.chain.height - 1)
    assert lsp_state(pump).asleep[0].status == "live"
    pump.mine()
    for depth in range(7):
        assert sleeping(pump) == set(), f"its sweep is {depth - 1} deep"
        pump.lsp.checkpoint()
        status = status_of(lsp_state(pump).factory(0))
        assert status == ("swept" if depth else "expired")
        pump.mine()
    pump.lsp.checkpoint()
    asleep = lsp_state(pump).asleep[0]
    assert (asleep.wake_height, asleep.status, asleep.locked_sat) == (NEVER, "swept", 0)


@pytest.mark.parametrize("leavers", ["the clients", "the operator"])
def test_one_that_went_into_its_channels_is_over_and_sleeps_for_good(leavers: str) -> None:
    """Nothing of it was swept, and no close spent it: the channels alone took all of it."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    for client in pump.clients:
        pay(pump, pump.lsp, client, FIRST_MSAT)
    for seat, client in enumerate(pump.clients, start=1):
        attempt_id = newest_link(client).attempt_id
        if leavers == "the clients":
            pump.handle(client, ev.ExitRequested(attempt_id=attempt_id))
        else:
            pump.handle(pump.lsp, ev.ExitRequested(attempt_id=attempt_id, client=seat))
    pump.run()
    n_blocks = max(newest_link(client).exit_blocks for client in pump.clients)
    assert status_of(lsp_state(pump).factory(0)) == "live"
    pump.mine(n_blocks)
    link = newest_link(pump.clients[0])
    assert link.setting.funding.outpoint.txid in pump.chain.confirmed
    for _ in range(link.setting.terms.to_self_delay_accepter + 20):
        factory = lsp_state(pump).factory(0)
        assert not (wakes_at(factory) == NEVER and arriving_total_sat(factory)), "it is to be taken"
        pump.mine()
    assert status_of(lsp_state(pump).factory(0)) == "on_chain"
    all_away(pump)
    asleep = lsp_state(pump).asleep[0]
    assert (asleep.wake_height, asleep.status, asleep.locked_sat) == (NEVER, "on_chain", 0)


def test_an_operator_leaves_with_a_factory_that_sleeps() -> None:
    pump = two_factories()
    bob = pump.clients[1]
    attempt_id = newest_link(bob).attempt_id
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=attempt_id, client=1))
    assert sleeping(pump) == set()
    assert lsp_state(pump).factory(1).exits == {1}
    pump.mine()
    assert newest_link(bob).path[0].txid in pump.chain.confirmed


def test_a_payment_of_the_operators_to_a_sleeping_factory_is_refused_and_wakes_nobody() -> None:
    pump = two_factories()
    bob = pump.clients[1]
    n_entries = len(pump.lsp.store.entries)
    request = make_invoice(pump, bob, AMOUNT_MSAT)
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected, match="not connected") as rejected:
        pump.lsp.driver.handle(request)
    assert rejected.value.code == "payee_offline"
    assert (sleeping(pump), len(pump.lsp.store.entries)) == ({1}, n_entries)


# That it slept changes nothing


@pytest.mark.sampled(1)
@pytest.mark.parametrize("sleeps", [False, True])
def test_a_payment_waits_for_one_reason_whether_or_not_the_payees_factory_sleeps(
    sleeps: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """Its channel is past its exit deadline: only a factory in memory knows that."""
    pump = Pump(2, policy=replace(SHORT, active_blocks=400))
    alice, bob = pump.clients
    found(pump, bob)
    pump.blind.add(bob.name)  # Or it would leave in time.
    pump.disconnect(bob)
    pump.mine(300)
    found(pump, alice)
    assert pay(pump, pump.lsp, alice, FIRST_MSAT).status == "paid"
    (link,) = book(pump.lsp).links_with(bob.node_id)
    pump.mine(link.exit_deadline_height - pump.chain.height)
    if sleeps:
        pump.lsp.checkpoint()
    assert sleeping(pump) == ({0} if sleeps else set())
    begin_payment(pump, alice, bob, AMOUNT_MSAT)
    (held,) = lsp_state(pump).factory(1).book.held.values()
    assert held.reason == "the payee is away"


def lived(seed: int, lsp_kind: type[PumpNode]) -> Village:
    """Return a village after its life; nonces are the same in every life of a seed."""
    with recording(f"village {seed}"):
        village = settled(seed, lsp_kind, 1, 1, 2)
        live_through(village, seed)
    return village


def broadcasts(village: Village) -> list[bytes]:
    """Return what the LSP published, each once, in the order in which it first did."""
    txs: list[Tx] = [wish.tx for wish in village.wishes(village.lsp, fx.Broadcast)]
    return list(dict.fromkeys(tx.serialize() for tx in txs))


def told(village: Village) -> dict[str, list[Any]]:
    """Return what each stream remembers, but for starts: one that sleeps is not told of them."""
    found: dict[str, list[Any]] = {}
    for entry in village.lsp.store.entries:
        record = decode_record(entry.record)
        if factory_number(entry.stream) is None or not isinstance(record, Started):
            found.setdefault(entry.stream, []).append(record)
    return found


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_decided_differently_because_a_factory_slept(seed: int) -> None:
    awake, slept = lived(seed, PumpNode), lived(seed, SleepyNode)
    assert isinstance(slept.lsp, SleepyNode)
    assert slept.lsp.n_slept > 10
    assert sleeping(awake) == set()
    assert told(slept) == told(awake)
    assert durable(slept.lsp.state) == durable(awake.lsp.state)
    assert broadcasts(slept) == broadcasts(awake)
    for one, other in zip(slept.clients, awake.clients, strict=True):
        assert one.state == other.state
        assert balance(one) == balance(other)
    assert slept.chain.confirmed == awake.chain.confirmed
