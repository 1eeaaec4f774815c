"""A funding that waits is replaced by a higher candidate, or given up, or bumped."""

from typing import Final

import pytest
from tests.protocol.forked_world import ForkedPump
from tests.protocol.ladders import (
    DEPTH,
    FEERATES,
    ask_build,
    asked_for_keys,
    candidates,
    forked,
    refused,
    replace_by,
)
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_forked_fundings import shown
from tests.protocol.test_ladder_reorgs import bury, live_in
from tests.protocol.test_paying import pay

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol.lobby import giving_up

FAR_MORE: Final = 20_000  # sat per 1000 weight units: above every candidate


def bump(pump: ForkedPump, feerate_sat_per_kw: int) -> Tx:
    """Let a child pay for the published candidate; return it."""
    asked = ev.FundingBumpRequested(
        attempt_id=pump.attempt.attempt_id, feerate_sat_per_kw=feerate_sat_per_kw
    )
    pump.handle(pump.lsp, asked)
    pump.run()
    child: Tx = lsp_state(pump).house.bumps[pump.attempt.attempt_id].child
    return child


def asked_for(pump: ForkedPump, rung: int | None) -> ev.FundingReplaceRequested:
    return ev.FundingReplaceRequested(attempt_id=pump.attempt.attempt_id, rung=rung)


def in_mempool(pump: ForkedPump) -> set[object]:
    return set(pump.chain.mempool)


def test_each_takes_the_place_of_the_one_before_in_the_mempool_and_no_client_is_asked() -> None:
    pump = forked()
    for client in pump.clients:
        pump.disconnect(client)
    txs = candidates(pump)
    assert in_mempool(pump) == {txs[0].txid}
    for rung in (1, 2):
        assert replace_by(pump).txid == txs[rung].txid
        assert in_mempool(pump) == {txs[rung].txid}
    assert refused(pump, asked_for(pump, None)).code == "no_higher_candidate"


def test_none_takes_the_place_of_one_whose_change_pays_for_something() -> None:
    """A block had that one, and a reorganisation took it back."""
    pump = forked()
    pump.mine()
    pay(pump, pump.lsp, None)
    pump.chain.remove_tip(1)
    for node in (pump.lsp, *pump.clients):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    for asked in (asked_for(pump, None), abandon_request(pump, FAR_MORE)):
        assert refused(pump, asked).code == "change_spent"


def test_a_candidate_may_be_left_out_and_none_is_gone_back_to() -> None:
    pump = forked()
    assert replace_by(pump, 2).txid == candidates(pump)[2].txid
    assert in_mempool(pump) == {candidates(pump)[2].txid}
    for rung in (0, 1, 3):
        assert refused(pump, asked_for(pump, rung)).code == "no_higher_candidate"
    other = forked()
    for rung in (-1, 0, 3):
        assert refused(other, asked_for(other, rung)).code == "invalid_candidate"


def test_a_candidate_that_is_asked_for_again_is_published_once() -> None:
    pump = forked()
    second = replace_by(pump, 1)
    child = bump(pump, FAR_MORE)
    house = lsp_state(pump).house
    assert replace_by(pump, 1) == second
    assert lsp_state(pump).house == house
    assert in_mempool(pump) == {second.txid, child.txid}
    pump.mine()
    assert refused(pump, asked_for(pump, 1)).code == "factory_funded"
    other = forked()
    assert refused(other, asked_for(other, 0)).code == "invalid_candidate", "it replaced nothing"


def test_a_candidate_pays_for_the_child_that_ends_with_the_one_before() -> None:
    pump = forked()
    first, second, third = candidates(pump)
    child = bump(pump, 4_000)
    assert in_mempool(pump) == {first.txid, child.txid}
    error = refused(pump, asked_for(pump, 1))
    assert error.code == "feerate_too_low"
    assert "candidate 2 would do" in str(error)
    assert replace_by(pump).txid == third.txid, "the lowest that pays enough"
    assert in_mempool(pump) == {third.txid}
    house = lsp_state(pump).house
    assert not house.bumps
    assert child.txid not in house.wallet.payments
    later = bump(pump, FAR_MORE)
    assert in_mempool(pump) == {third.txid, later.txid}
    pump.mine(DEPTH)
    assert live_in(pump, 2)
    assert second.txid not in pump.chain.confirmed


def test_none_that_pays_less_than_both_is_published() -> None:
    pump = forked()
    bump(pump, FAR_MORE)
    error = refused(pump, asked_for(pump, None))
    assert error.code == "feerate_too_low"
    assert "no candidate would do" in str(error)


def test_a_child_of_a_candidate_beside_which_another_confirmed_lets_its_coins_go() -> None:
    pump = forked()
    child = bump(pump, FAR_MORE)
    pump.chain.forget_all()
    bury(pump, candidates(pump)[1])
    house = lsp_state(pump).house
    assert not house.bumps
    assert not house.wallet.payments
    assert child.txid not in house.wallet.reserved_for
    assert live_in(pump, 1)


def test_what_is_published_is_published_again_after_a_restart_and_at_each_block() -> None:
    pump = forked()
    second = replace_by(pump)
    pump.chain.forget_all()
    pump.restart(pump.lsp)
    pump.run()
    assert in_mempool(pump) == {second.txid}
    pump.chain.forget_all()
    pump.mine_only()
    assert in_mempool(pump) == {second.txid}
    published = [one.tx.txid for one in pump.wishes(pump.lsp, fx.Broadcast)]
    assert published.count(candidates(pump)[0].txid) == 1


def abandon_request(pump: ForkedPump, feerate_sat_per_kw: int) -> ev.FactoryAbandonRequested:
    return ev.FactoryAbandonRequested(
        attempt_id=pump.attempt.attempt_id, reason="", feerate_sat_per_kw=feerate_sat_per_kw
    )


@pytest.mark.parametrize("published", [0, 2])
def test_a_ladder_that_is_given_up_is_dead_for_everybody(published: int) -> None:
    """What ends it pays more than the candidate that is published, and none confirms any more."""
    pump = forked()
    if published:
        replace_by(pump, published)
    error = refused(pump, abandon_request(pump, 250))
    assert error.code == "feerate_too_low"
    pump.handle(pump.lsp, abandon_request(pump, FAR_MORE))
    pump.run()
    funded = pump.attempt.funded
    assert funded is not None
    assert funded.replacement is not None
    assert in_mempool(pump) == {funded.replacement.txid}
    assert refused(pump, asked_for(pump, None)).code == "factory_abandoned"
    for _ in range(DEPTH - 1):
        pump.mine()
        assert shown(pump)[0] == "abandoned"
    pump.mine()
    assert shown(pump) == ("dead", "dead", "dead")
    assert not lsp_state(pump).house.wallet.reserved
    assert not pump.chain.confirmed.keys() & {tx.txid for tx in candidates(pump)}


def test_a_ladder_that_was_given_up_and_confirms_all_the_same_lives() -> None:
    pump = forked()
    replace_by(pump)
    pump.handle(pump.lsp, abandon_request(pump, FAR_MORE))
    pump.run()
    pump.chain.forget_all()
    bury(pump, candidates(pump)[0])
    assert live_in(pump, 0)


@pytest.mark.parametrize("feerates_sat_per_kw", [FEERATES[:1], FEERATES])
def test_a_funding_whose_coin_a_reorganisation_took_is_given_up_by_another_of_its_coins(
    feerates_sat_per_kw: tuple[int, ...],
) -> None:
    """The coin may never come back, and the others would be set aside for ever.

    What a ladder pays is not known then, so what ends it may be refused where it waits; asked
    again, it pays more.
    """
    pump = ForkedPump(2)
    for client in pump.clients:
        wish = ev.JoinRequested(capacity_sat=9_000_000, capacity_least_sat=9_000_000)
        pump.handle(client, wish)
    pump.run()
    asked_for_keys(pump, len(feerates_sat_per_kw))
    ask_build(pump, feerates_sat_per_kw)
    pump.run()
    entry = lsp_state(pump).house.entries[pump.attempt.attempt_id]
    assert len(entry.coins) > 1
    while all(coin in lsp_state(pump).wallet.coins for coin in entry.coins):
        pump.handle(pump.lsp, ev.BlockRemoved(height=pump.lsp.state.chain.height))
    there = {coin for coin in entry.coins if coin in lsp_state(pump).wallet.coins}
    assert not giving_up.is_outbid(lsp_state(pump).house, entry.attempt_id)
    pump.handle(pump.lsp, abandon_request(pump, 250))
    funded = pump.attempt.funded
    assert funded is not None
    assert funded.replacement is not None
    assert {tx_in.outpoint for tx_in in funded.replacement.inputs} <= there
    pump.sync()
    pump.handle(pump.lsp, abandon_request(pump, FAR_MORE))
    pump.run()
    for _ in range(DEPTH):
        pump.mine()
    assert shown(pump) == ("dead", "dead", "dead")
    assert not lsp_state(pump).house.wallet.reserved


def test_a_funding_without_a_coin_on_the_chain_is_given_up_once_one_is() -> None:
    pump = forked()
    entry = lsp_state(pump).house.entries[pump.attempt.attempt_id]
    while any(coin in lsp_state(pump).wallet.coins for coin in entry.coins):
        pump.handle(pump.lsp, ev.BlockRemoved(height=pump.lsp.state.chain.height))
    error = refused(pump, abandon_request(pump, FAR_MORE))
    assert (error.code, error.retryable) == ("coins_off_chain", True)
    pump.sync()
    pump.handle(pump.lsp, abandon_request(pump, FAR_MORE))
    pump.run()
    funded = pump.attempt.funded
    assert funded is not None
    assert funded.replacement is not None
