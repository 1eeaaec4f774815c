"""A funding that our node refuses is given up: a coin of it is spent, and everybody sees it."""

from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.ladders import DEPTH, candidates
from tests.protocol.ladders import funded as with_ladder
from tests.protocol.old_states import told
from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.stalling import stall
from tests.protocol.test_bumped_payments import bump as bumped_payment
from tests.protocol.test_leaving import QUICK
from tests.simulation.sums import locked_sat

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.daemon.views.lsp import status_of
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.house import House
from cromford.protocol.lobby import giving_up
from cromford.protocol.lobby.choosing import lent_sat, room_sat
from cromford.protocol.opening.abandoning import DIED, DISPLACED
from cromford.wire import messages as m

POLICY = replace(QUICK, min_depth=3)
FEERATE = 1_000
REASON = "mempool min fee not met, 154 < 616"


def unheard() -> Pump:
    """Return a pump in which everything is signed, and nobody has heard of the funding."""
    pump = Pump(2, policy=POLICY, watches_folds=True)
    pump.join()
    pump.build()
    pump.run()
    assert pump.is_funded()
    pump.chain.mempool.clear()
    return pump


def abandon(pump: Pump, *, feerate_sat_per_kw: int = FEERATE) -> Tx:
    """Let the operator give the factory up; return what spends a coin of it."""
    pump.handle(pump.lsp, request(pump, feerate_sat_per_kw))
    pump.run()
    funded = pump.attempt.funded
    assert funded is not None
    assert funded.replacement is not None
    return funded.replacement


def request(pump: Pump, feerate_sat_per_kw: int = FEERATE) -> ev.FactoryAbandonRequested:
    return ev.FactoryAbandonRequested(
        attempt_id=pump.attempt.attempt_id, reason=REASON, feerate_sat_per_kw=feerate_sat_per_kw
    )


def published(pump: Pump, tx: Tx) -> int:
    return sum(wish.tx.txid == tx.txid for wish in pump.wishes(pump.lsp, fx.Broadcast))


def status(pump: Pump) -> str:
    return status_of(pump.factory)


def first_attempt(client: PumpNode) -> Any:
    return next(iter(client.state.attempts.values()))


def test_the_coins_of_a_funding_are_free_once_its_replacement_is_deep_enough() -> None:
    pump = unheard()
    before_sat = pump.lsp.state.wallet.confirmed_sat()
    replacement = abandon(pump)
    assert replacement.inputs[0].outpoint in {i.outpoint for i in pump.attempt.funding_tx.inputs}
    for depth in (1, 2):
        pump.mine()
        assert pump.lsp.state.chain.depth(replacement.txid) == depth
        assert (status(pump), locked_sat(pump.lsp.state) > 0) == ("abandoned", True)
        assert all(first_attempt(client).is_open for client in pump.clients)
    pump.mine()
    wallet = pump.lsp.state.wallet
    assert (status(pump), wallet.reserved, wallet.payments) == ("dead", {}, {})
    assert locked_sat(pump.lsp.state) == 0
    fee_sat = before_sat - wallet.confirmed_sat()
    assert 0 < fee_sat < 1_000


def test_a_dead_factory_lends_nobody_anything() -> None:
    pump = unheard()
    node_id, (capacity_sat, _) = pump.clients[0].node_id, pump.attempt.terms.capacity_sat

    def lending() -> tuple[int, int, bool]:
        state = pump.lsp.state
        policy = replace(state.config.policy, capital_max_sat=5 * capacity_sat)
        limited = replace(state.house, config=replace(state.config, policy=policy))
        return lent_sat(limited, node_id), room_sat(limited), state.has_seat(node_id)

    abandon(pump)
    assert lending() == (capacity_sat, 3 * capacity_sat, True)
    pump.mine(3)
    assert lending() == (0, 5 * capacity_sat, False)


def test_a_funding_that_was_given_up_is_published_no_more() -> None:
    pump = unheard()
    funding = pump.attempt.funding_tx
    abandon(pump)
    n_published = published(pump, funding)
    pump.mine()
    pump.restart(pump.lsp)
    pump.mine(5)
    pump.restart(pump.lsp)
    assert published(pump, funding) == n_published
    assert funding.txid not in pump.chain.confirmed


def test_everybody_is_told_and_builds_again() -> None:
    pump = unheard()
    abandon(pump)
    pump.mine(3)
    for client in pump.clients:
        attempt = first_attempt(client)
        assert attempt.given_up or attempt.aborted is not None
        assert client.state.joining.is_accepted
    pump.build(min_clients=2)
    pump.run()
    pump.mine(3)
    assert all(newest_link(client).is_open for client in pump.clients)


def deaths(pump: Pump) -> list[int | None]:
    """Return which candidate took the place of a funding, each time that one died."""
    return [one.rung for one in told(pump.lsp, op.FundingDied)]


def aborts(pump: Pump) -> list[tuple[bytes, str]]:
    """Return whom the LSP told that an attempt is over, and why."""
    wishes = pump.wishes(pump.lsp, fx.Send)
    return [
        (wish.node_id, wish.message.reason) for wish in wishes if isinstance(wish.message, m.Abort)
    ]


def test_that_a_funding_died_is_told_to_everybody_in_it_once_and_why() -> None:
    pump = unheard()
    abandon(pump)
    pump.mine(2)
    assert (deaths(pump), aborts(pump)) == ([], [])
    pump.mine(3)
    assert deaths(pump) == [None]
    assert aborts(pump) == [(seat.node_id, DIED) for seat in pump.attempt.seats]


def test_whose_funding_another_candidate_displaced_is_told_so() -> None:
    """Channels are in one of a ladder, and a reorganisation has the other."""
    pump = with_ladder(Pump(1))
    pump.mine(DEPTH)
    (client,) = pump.clients
    pump.chain.remove_tip(DEPTH)
    pump.chain.mempool.clear()
    for node in (pump.lsp, client):
        for _ in range(DEPTH):
            pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    pump.chain.mempool.clear()
    pump.chain.broadcast(candidates(pump)[1])
    pump.mine(DEPTH)
    assert deaths(pump) == [1]
    assert aborts(pump) == [(client.node_id, DISPLACED)]


def test_a_client_that_nobody_tells_sees_it_on_its_own_chain_and_no_block_too_soon() -> None:
    pump = unheard()
    alice = pump.clients[0]
    pump.disconnect(alice)
    abandon(pump)
    pump.mine(2)
    assert first_attempt(alice).is_open
    pump.mine()
    attempt = first_attempt(alice)
    assert (attempt.given_up, attempt.aborted) == (True, None)
    pump.connect(alice)
    pump.run()
    assert alice.state.joining.is_accepted


def test_a_funding_dies_of_whatever_spends_its_coin() -> None:
    """A copy of the LSP with the same seed spends it; this one knows nothing of it."""
    pump = unheard()
    before, n_entries = pump.lsp.state, len(pump.lsp.store.entries)
    replacement = abandon(pump)
    assert pump.lsp.driver is not None
    pump.lsp.driver.state, pump.lsp._fold = before, None
    del pump.lsp.store.entries[n_entries:]
    assert status(pump) == "funding"
    n_published = published(pump, pump.attempt.funding_tx)
    pump.mine(3)
    assert replacement.txid in pump.chain.confirmed
    assert (status(pump), pump.lsp.state.wallet.reserved) == ("dead", {})
    assert all(not first_attempt(client).is_open for client in pump.clients)
    n_tried = published(pump, pump.attempt.funding_tx)
    assert n_tried > n_published
    pump.mine(3)
    assert published(pump, pump.attempt.funding_tx) == n_tried


def test_a_client_that_asks_after_a_dead_factory_is_told_that_it_is_over() -> None:
    pump = unheard()
    alice = pump.clients[0]
    abandon(pump)
    pump.mine(3)
    attempt = pump.attempt
    asked = m.Resume(attempt_id=attempt.attempt_id, terms_hash=attempt.terms.terms_hash)
    pump.tell(pump.lsp, alice, asked)
    assert pump.sent(pump.lsp, m.Abort)[-1].reason == "this attempt is over"


def test_a_funding_that_confirms_all_the_same_makes_a_factory() -> None:
    pump = unheard()
    funding = pump.published[0]
    abandon(pump)
    pump.chain.mempool.clear()
    pump.chain.broadcast(funding)
    pump.mine(3)
    assert status(pump) == "live"
    assert all(newest_link(client).is_open for client in pump.clients)
    assert pump.lsp.state.wallet.payments == {}


def test_a_replacement_that_a_reorganisation_takes_back_is_published_again() -> None:
    pump = unheard()
    replacement = abandon(pump)
    pump.mine(2)
    for node in (pump.lsp, *pump.clients):
        for _ in range(2):
            pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    pump.chain.remove_tip(2)
    pump.chain.mempool.clear()
    pump.mine(2)
    assert replacement.txid in pump.chain.confirmed
    assert status(pump) == "abandoned"


def test_a_replacement_with_a_higher_feerate_replaces_the_first() -> None:
    pump = unheard()
    first = abandon(pump)
    pump.chain.mempool.clear()
    second = abandon(pump, feerate_sat_per_kw=4 * FEERATE)
    assert first.inputs == second.inputs
    assert first.outputs[0].amount_sat > second.outputs[0].amount_sat
    assert list(pump.lsp.state.wallet.payments) == [second.txid]
    pump.mine(3)
    assert second.txid in pump.chain.confirmed
    assert (status(pump), pump.lsp.state.wallet.reserved) == ("dead", {})


@pytest.mark.parametrize("fuse", [1, 2, 3, 4])
def test_an_lsp_that_dies_while_it_gives_up_goes_on_after_its_restart(fuse: int) -> None:
    pump = unheard()
    pump.lsp.fuse = fuse
    pump.handle(pump.lsp, request(pump))
    pump.lsp.fuse = None
    pump.run()
    if pump.attempt.funded is not None and pump.attempt.funded.replacement is None:
        pump.chain.mempool.clear()  # It died before it remembered, and published the funding.
        abandon(pump)
    pump.mine(3)
    assert status(pump) == "dead"


def code_of(pump: Pump, event: ev.Event) -> str:
    driver = pump.lsp.driver
    assert driver is not None
    driver.facts = pump.lsp.facts
    with pytest.raises(Rejected) as rejected:
        driver.handle(event)
    return rejected.value.code


def test_what_is_not_given_up() -> None:
    pump = unheard()
    unknown = replace(request(pump), attempt_id=bytes(32))
    assert code_of(pump, unknown) == "factory_not_found"
    assert code_of(pump, request(pump, 100_000_000)) == "insufficient_coins"
    abandon(pump)
    pump.mine(3)
    assert code_of(pump, request(pump)) == "factory_dead"


def test_the_payment_that_ends_a_funding_is_not_given_up_like_another() -> None:
    pump = unheard()
    replacement = abandon(pump)
    asked = ev.AbandonRequested(txid=replacement.txid, reason=REASON)
    assert code_of(pump, asked) == "ends_a_funding"
    assert code_of(pump, bumped_payment(replacement.txid)) == "ends_a_funding"
    other = replace(asked, txid=pump.attempt.funding_tx.txid)
    assert code_of(pump, other) == "payment_not_found"
    assert list(pump.lsp.state.wallet.payments) == [replacement.txid]


def test_nobody_waits_to_leave_a_factory_whose_funding_is_dead() -> None:
    """Until something else is as deep as a funding has to be, it may still come."""
    pump = unheard()
    abandon(pump)
    client = pump.clients[0]
    attempt_id = pump.attempt.attempt_id
    asked = {
        client: ev.ExitRequested(attempt_id=attempt_id),
        pump.lsp: ev.ExitRequested(attempt_id=attempt_id, client=1),
    }
    told = [("factory_not_funded", True)] * POLICY.min_depth + [("factory_dead", False)]
    for depth, expected in enumerate(told):
        for node, event in asked.items():
            rejected = refused_by(node, event)
            assert (rejected.code, rejected.retryable) == expected, (depth, node.name)
        pump.mine()


def refused_by(node: PumpNode, event: ev.Event) -> Rejected:
    assert node.driver is not None
    with pytest.raises(Rejected) as rejected:
        node.driver.handle(event)
    return rejected.value


def test_a_factory_in_a_block_is_not_given_up() -> None:
    pump = unheard()
    pump.mine(2)
    assert status(pump) == "funding"
    assert code_of(pump, request(pump)) == "factory_funded"


def test_on_a_stale_chain_no_funding_is_given_up() -> None:
    """It may be in a block that was not read."""
    pump = unheard()
    stall(pump, pump.lsp)
    assert code_of(pump, request(pump)) == "chain_stale"
    assert status(pump) == "funding"


def test_an_attempt_that_is_not_funded_is_not_given_up_but_aborted() -> None:
    pump = Pump(2, policy=POLICY)
    pump.join()
    pump.build()
    pump.run_to(m.SignRoot)
    assert code_of(pump, request(pump)) == "factory_not_found"


def test_what_ends_a_funding_is_signed_once_its_coin_is_on_the_chain() -> None:
    """A crash came before the signature, and a reorganisation before the next start."""
    pump = unheard()
    replacement = abandon(pump)
    (spent,) = replacement.inputs

    def unsigned() -> House:
        house: House = pump.lsp.state.house
        return replace(house, wallet=replace(house.wallet, payments={}))

    (owed,) = giving_up.owed(unsigned())
    assert (owed.tx, len(owed.prevouts)) == (replacement, 1)
    while spent.outpoint in unsigned().wallet.coins:
        pump.handle(pump.lsp, ev.BlockRemoved(height=pump.lsp.state.chain.height))
    assert not [*giving_up.owed(unsigned())]
