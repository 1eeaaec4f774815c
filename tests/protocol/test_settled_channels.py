"""When a channel on chain is settled: all of it that is an LSP's was taken, six blocks deep."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.exits import POLICY
from tests.protocol.paying_clients import lsp_link, newest_link
from tests.protocol.seen_blocks import buried, spending
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_ended_forwards import paid_on, refused_on, world
from tests.protocol.test_ends_of_incoming import DEEP, Scene, closed, elsewhere, scene_of, swept
from tests.protocol.unanswered import WORTH_MSAT

from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.factory.terms import FeePolicy
from cromford.protocol.exiting.settled import is_resolved, tell_settled
from cromford.protocol.facts import FRESH
from cromford.protocol.journal.exit_records import ExitSettled
from cromford.protocol.journal.factory import Factory, apply_to_factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import Aborted
from cromford.protocol.turn import Turn
from cromford.watch.feerates import OwnFees

CHEAP: Final = OwnFees(estimates=((144, 500),))
DEAR: Final = OwnFees(estimates=((144, 240_000),))  # A sweep costs more than this balance.
UNBELIEVED: Final = OwnFees(estimates=((144, 10_000_000),))


@pytest.fixture(scope="module")
def paid() -> Scene:
    """An HTLC that was paid on, and is the LSP's to take by its preimage."""
    pump = world()
    paid_on(pump, WORTH_MSAT)
    return scene_of(pump)


@pytest.fixture(scope="module")
def refused() -> Scene:
    """One that its payee refused: it waits to be given back to its payer."""
    pump = world()
    refused_on(pump, WORTH_MSAT)
    return scene_of(pump)


def answered(scene: Scene) -> Scene:
    """Return it after all that its HTLCs had to hear was said, or ended."""
    book = changed(scene.factory.book, forwards=Map(), resolved=Map())
    return replace(scene, factory=replace(scene.factory, book=book))


def balance_of(scene: Scene) -> OutPoint:
    """Return the LSP's balance in its client's commitment: the largest of all outputs."""
    outputs = zip(scene.commitment.outpoints, scene.commitment.outputs, strict=True)
    others = [(one.amount_sat, where) for where, one in outputs if where != scene.output]
    return max(others)[1]


def is_settled(scene: Scene, chain: KnownChain) -> bool:
    return is_resolved(replace(scene.factory, chain=chain), scene.link)


def told(factory: Factory, chain: KnownChain, fees: OwnFees = CHEAP) -> list[Any]:
    turn: Turn[Factory] = Turn(
        replace(factory, chain=chain), apply_to_factory, replace(FRESH, fees=fees)
    )
    tell_settled(turn)
    return list(turn.decision.records)


def root_spent(scene: Scene, chain: KnownChain) -> KnownChain:
    """Return a chain in which the root is, too: how the channel came to be on chain."""
    return buried(chain, 1, scene.factory.attempt.signed_txs["kickoff_root"])


@pytest.mark.parametrize("ended_by", [swept, closed, elsewhere])
def test_a_channel_that_went_elsewhere_is_settled_six_blocks_later(
    paid: Scene, ended_by: Any
) -> None:
    link, tx = ended_by(paid)
    scene = replace(paid, link=link)
    assert not is_settled(scene, scene.factory.chain)
    assert not is_settled(scene, buried(scene.factory.chain, DEEP - 1, tx))
    assert is_settled(scene, buried(scene.factory.chain, DEEP, tx))


def test_a_channel_is_settled_once_all_of_a_commitment_that_is_ours_is_taken(
    paid: Scene,
) -> None:
    balance, htlc = balance_of(paid), paid.output
    landed = paid.landed(300)
    assert not is_settled(paid, landed)
    assert not is_settled(paid, buried(landed, DEEP, spending(balance)))
    assert not is_settled(paid, buried(landed, DEEP, spending(htlc)))
    assert not is_settled(paid, buried(landed, DEEP - 1, spending(balance, htlc)))
    assert is_settled(paid, buried(landed, DEEP, spending(balance, htlc)))


def test_an_htlc_is_waited_for_as_long_as_it_may_have_to_be_answered(refused: Scene) -> None:
    """Once nothing will answer it, it is its payer's: who never takes it back holds nobody up."""
    chain = buried(refused.landed(300), DEEP, spending(balance_of(refused)))
    assert not is_settled(refused, chain)
    assert is_settled(answered(refused), chain)
    assert not is_settled(answered(refused), refused.landed(300)), "the balance is to be taken"


def test_before_a_channel_is_over_even_what_a_cheap_day_alone_would_take_is_waited_for() -> None:
    """The smallest HTLC with an output: for what a factory sleeps no day's fees are asked."""
    pump = world(replace(POLICY, fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0))
    terms = lsp_link(pump, newest_link(pump.clients[0])).setting.terms
    least_sat = terms.dust_limit_sat + terms.htlc_tx_cost_sat(is_offered=True)
    paid_on(pump, 1_000 * least_sat)
    small = scene_of(pump)
    chain = buried(small.landed(300), DEEP, spending(balance_of(small)))
    assert not is_settled(small, chain)
    assert is_settled(small, buried(chain, DEEP, spending(small.output)))
    assert len(told(small.factory, root_spent(small, chain))) == 1, "its capital is not held for it"


def test_it_is_told_once_with_all_that_was_in_the_channel(paid: Scene) -> None:
    chain = root_spent(paid, paid.landed(300))
    done = buried(chain, DEEP, spending(balance_of(paid), paid.output))
    link = paid.link
    settled = ExitSettled(
        attempt_id=link.attempt_id,
        client=link.client,
        amount_sat=link.present.capacity_sat,
    )
    assert told(paid.factory, chain) == []
    assert told(paid.factory, done) == [settled]
    known = apply_to_factory(paid.factory, settled)
    assert told(known, done) == []
    closed_for_good = replace(paid.factory, closed_seats=frozenset({link.client}))
    assert told(closed_for_good, done) == []
    still = buried(paid.landed(300), DEEP, spending(balance_of(paid), paid.output))
    assert told(paid.factory, still) == [], "a tree of which nothing is on chain is not looked at"


def test_what_is_not_worth_its_fee_is_not_waited_for(paid: Scene) -> None:
    """But at a feerate that nobody should believe nothing is worth it: that says nothing."""
    chain = root_spent(paid, buried(paid.landed(300), DEEP, spending(paid.output)))
    assert told(paid.factory, chain, CHEAP) == []
    assert told(paid.factory, chain, UNBELIEVED) == []
    assert len(told(paid.factory, chain, DEAR)) == 1


def test_each_channel_is_told_by_itself(paid: Scene) -> None:
    """Whatever the others are doing: one is closed together, one was told, and one is settled."""
    pump = world(n_clients=3)
    factory = lsp_state(pump).factory(0)
    links = [lsp_link(pump, newest_link(client)) for client in pump.clients]
    first, second, third = sorted(links, key=lambda link: link.channel_id)
    _, close = closed(replace(paid, factory=factory, link=first))
    closing = changed(first, closes=closed(replace(paid, factory=factory, link=first))[0].closes)
    book = changed(factory.book, links=factory.book.links.set(first.channel_id, closing))
    there = replace(factory, book=book, settled=Map({second.client: 1}))
    gone = spending(*(link.present.outpoint for link in (first, second, third)))
    chain = buried(buried(factory.chain, 1, close), DEEP, gone)
    assert [one.client for one in told(there, chain)] == [third.client]


def test_nothing_is_told_of_what_never_was_funded(paid: Scene) -> None:
    chain = root_spent(paid, buried(paid.factory.chain, DEEP, elsewhere(paid)[1]))
    assert len(told(paid.factory, chain)) == 1
    aborted = changed(paid.factory.attempt, stage=Aborted(reason="somebody went"))
    assert told(replace(paid.factory, begun=aborted), chain) == []
    assert told(Factory(config=paid.factory.config, number=7), chain) == []
