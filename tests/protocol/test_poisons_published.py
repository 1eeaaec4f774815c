"""The poisons of a replaced state: which a client holds, publishes, bumps, and watches."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.advanced import Advance, kickoff_of
from tests.protocol.old_states import POLICY, channel_outpoint, sold, state_of, stock_outpoint
from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.seen_blocks import buried, spending, up_to

from cromford import effects as fx
from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.tx import OutPoint
from cromford.factory.poison import PoisonKind
from cromford.protocol.exiting import poisons
from cromford.protocol.exiting.poisons import (
    held_poisons,
    poison_effects,
    poison_outpoints,
    poisons_arriving_sat,
    poisons_held_of,
)
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.known_chain import KnownChain
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import OwnFees
from cromford.watch.poisons import SignedPoison

DAY, SOON = 1_000, 8_000
FEES: Final = OwnFees(estimates=((1, SOON), (100, DAY)))
STRANGER: Final = 99


@pytest.fixture(scope="module")
def world() -> tuple[Pump, Advance]:
    """Return two clients in a leaf whose first state was replaced."""
    return sold()


@pytest.fixture
def alice(world: tuple[Pump, Advance]) -> PumpNode:
    """Return one of them."""
    return world[0].clients[0]


@pytest.fixture
def attempt(world: tuple[Pump, Advance], alice: PumpNode) -> ClientAttempt:
    """Return what she has of the factory."""
    return world[0].held(alice)


@pytest.fixture
def old(world: tuple[Pump, Advance], alice: PumpNode) -> KnownChain:
    """Return a chain at whose tip the replaced state is."""
    return landed(world, alice, 0)


def landed(world: tuple[Pump, Advance], node: PumpNode, state_index: int) -> KnownChain:
    pump, done = world
    chain: KnownChain = buried(node.state.chain, 5, kickoff_of(pump))
    return buried(chain, 1, state_of(pump, done, state_index))


def by_kind(attempt: ClientAttempt, chain: KnownChain) -> dict[PoisonKind, SignedPoison]:
    return {one.poison.kind: one for one in held_poisons(attempt, chain)}


def effects(
    node: PumpNode, attempt: ClientAttempt, chain: KnownChain
) -> tuple[dict[str, fx.Broadcast], list[fx.SignPayouts]]:
    """Return what is published by name, and what takes outputs of poisons."""
    found = list(poison_effects(replace(node.state, chain=chain), attempt, FEES))
    published = [one for one in found if isinstance(one, fx.Broadcast)]
    taking = [one for one in found if isinstance(one, fx.SignPayouts)]
    assert len(published) + len(taking) == len(found)
    return {one.name: one for one in published}, taking


def test_a_client_holds_the_poisons_of_a_state_that_was_replaced_and_none_of_a_live_one(
    world: tuple[Pump, Advance], alice: PumpNode, attempt: ClientAttempt, old: KnownChain
) -> None:
    _, done = world
    held = by_kind(attempt, old)
    assert held.keys() == {PoisonKind.CHANNEL, PoisonKind.STOCK}
    assert held[PoisonKind.CHANNEL].spends == channel_outpoint(done, 0, alice)
    assert held[PoisonKind.STOCK].spends == stock_outpoint(done, 0)
    assert held_poisons(attempt, landed(world, alice, 1)) == ()
    assert poisons_held_of(attempt, 0) == tuple(held.values())
    assert poisons_held_of(attempt, 1) == ()


def test_of_an_attempt_that_is_not_complete_no_poison_is_held(
    attempt: ClientAttempt, old: KnownChain
) -> None:
    unfinished = replace(attempt, stage=None)  # type: ignore[arg-type]  # one before
    assert held_poisons(unfinished, old) == ()
    assert held_poisons(replace(attempt, leaf_states=()), old) == ()


def test_a_poison_is_published_until_something_took_its_output(
    world: tuple[Pump, Advance], alice: PumpNode, attempt: ClientAttempt, old: KnownChain
) -> None:
    held = by_kind(attempt, old)
    channel, stock = held[PoisonKind.CHANNEL], held[PoisonKind.STOCK]
    published, taking = effects(alice, attempt, old)
    assert {name: one.tx for name, one in published.items()} == {
        channel.name: channel.tx,
        stock.name: stock.tx,
    }
    assert taking == []
    there = buried(old, 1, channel.tx)
    published, (taken,) = effects(alice, attempt, there)
    assert set(published) == {stock.name}
    assert [tx_in.outpoint for tx_in in taken.spend.tx.inputs] == [channel.own_outpoint]
    assert (taken.attempt_id, taken.key.attempt) == (attempt.attempt_id, attempt.key_attempt)
    gone = buried(old, 1, spending(channel.spends, stock.spends))
    assert effects(alice, attempt, gone) == ({}, [])
    assert effects(alice, attempt, landed(world, alice, 1)) == ({}, [])


def bumping_of(
    node: PumpNode, attempt: ClientAttempt, chain: KnownChain, kind: PoisonKind
) -> Bumping:
    published, _ = effects(node, attempt, chain)
    (found,) = (one.bumping for one in published.values() if one.name.startswith(kind.value))
    assert found is not None
    return found


def test_the_poison_of_the_stock_hurries_until_the_lsp_may_take_that_alone(
    alice: PumpNode, attempt: ClientAttempt, old: KnownChain
) -> None:
    stock = by_kind(attempt, old)[PoisonKind.STOCK]
    deadline = old.height + POLICY.lstock_csv_blocks - 6

    def at(height: int) -> Bumping:
        return bumping_of(alice, attempt, up_to(old, height), PoisonKind.STOCK)

    assert at(deadline - 1).budget_sat == stock.own_sat // 2
    assert at(deadline).budget_sat == stock.own_sat - P2TR_DUST_SAT
    assert at(deadline).feerate_sat_per_kw == SOON
    assert at(deadline).fee_sat == stock.poison.fee_sat
    assert not at(deadline).gives_way
    own = at(deadline).own
    assert own is not None
    assert (own.vout, own.payout_script) == (stock.own_vout, attempt.join.payout_script)
    assert own.key.attempt == attempt.key_attempt


def test_the_poison_of_a_channel_waits_for_a_days_rate_and_gives_way(
    alice: PumpNode, attempt: ClientAttempt, old: KnownChain
) -> None:
    """Nobody else takes that output without a signature of ours."""
    channel = by_kind(attempt, old)[PoisonKind.CHANNEL]
    for n_blocks in (0, POLICY.lstock_csv_blocks - 6, 200):
        there = up_to(old, old.height + n_blocks)
        bumping = bumping_of(alice, attempt, there, PoisonKind.CHANNEL)
        assert bumping.gives_way
        assert (bumping.feerate_sat_per_kw, bumping.budget_sat) == (DAY, channel.own_sat // 2)


@pytest.mark.parametrize("pays_itself", [True, False])
def test_a_poison_that_has_nothing_for_us_is_published_as_it_is_if_it_pays_for_itself(
    alice: PumpNode,
    attempt: ClientAttempt,
    old: KnownChain,
    monkeypatch: pytest.MonkeyPatch,
    *,
    pays_itself: bool,
) -> None:
    """What pays nothing, and can have no child of ours, no mempool takes."""
    stock = by_kind(attempt, old)[PoisonKind.STOCK]
    poison = stock.poison
    assert poison.fee_sat > 0
    if not pays_itself:
        paid_sat = sum(one.amount_sat for one in poison.tx.outputs)
        poison = replace(poison, input_amount_sat=paid_sat)
    others = replace(stock, poison=poison, client=STRANGER)
    assert (others.own_vout, others.own_sat) == (None, 0)
    own = replace(stock, poison=poison)
    monkeypatch.setattr(poisons, "held_poisons", lambda *_: (others,))
    published, _ = effects(alice, attempt, old)
    assert [one.bumping for one in published.values()] == ([None] if pays_itself else [])
    monkeypatch.setattr(poisons, "held_poisons", lambda *_: (own,))
    published, _ = effects(alice, attempt, old)
    assert len(published) == 1, "with a child of our own output"


def test_what_poisons_take_and_pay_us_is_watched_and_is_coming_until_it_is_taken(
    world: tuple[Pump, Advance],
    alice: PumpNode,
    attempt: ClientAttempt,
    old: KnownChain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = by_kind(attempt, old)
    channel, stock = held[PoisonKind.CHANNEL], held[PoisonKind.STOCK]
    watched = {channel.spends, stock.spends, channel.own_outpoint, stock.own_outpoint}
    assert poison_outpoints(attempt, old) == watched
    assert poisons_arriving_sat(attempt, old) == channel.own_sat + stock.own_sat
    own: OutPoint | None = channel.own_outpoint
    assert own is not None
    there = buried(old, 1, channel.tx, spending(own))
    assert poisons_arriving_sat(attempt, there) == stock.own_sat
    assert poison_outpoints(attempt, landed(world, alice, 1)) == frozenset()
    assert newest_link(alice).client in stock.poison.clients
    others = replace(stock, client=STRANGER)
    monkeypatch.setattr(poisons, "held_poisons", lambda *_: (others,))
    assert poison_outpoints(attempt, old) == {stock.spends}
