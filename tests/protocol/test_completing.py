"""What an older version did not write of a state is what this one would have remembered."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from immutables import Map
from tests.protocol.houses import ALICE, BOB, CAROL, entry, house_of
from tests.protocol.paying_clients import live_factory
from tests.protocol.pump import Pump
from tests.protocol.test_abandoned_fundings import abandon, unheard
from tests.protocol.test_leaving import QUICK
from tests.simulation.sums import check_sums

from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.completing import completed_client, completed_house
from cromford.protocol.journal.entries import ABORTED, BUILDING, DEAD, FUNDED
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_state import LspState, new_lsp
from cromford.protocol.journal.market import SoldEntry
from cromford.protocol.journal.tally import Tally
from cromford.shelf import Shelf
from cromford.wallet.coins import Wallet


def older_wallet(wallet: Wallet) -> Wallet:
    return replace(wallet, unspent=Map(), touched=Shelf(), reserved_for=Shelf())


def older(house: House) -> House:
    """Return a house as it was read before there were shelves."""
    entries = {key: replace(entry, own_pubkey=b"") for key, entry in house.entries.walk()}
    return replace(
        house,
        entries=Shelf(entries),
        tally=Tally(),
        news=Shelf(),
        wallet=older_wallet(house.wallet),
    )


def a_live_one() -> Pump:
    return live_factory(2, policy=QUICK)


def a_dead_one() -> Pump:
    pump = unheard()
    abandon(pump)
    pump.mine(pump.policy.min_depth)
    return pump


@pytest.mark.parametrize(("made", "status"), [(a_live_one, FUNDED), (a_dead_one, DEAD)])
def test_an_older_house_finds_by_other_keys_what_it_had(
    made: Callable[[], Pump], status: str
) -> None:
    pump = made()
    state: LspState = pump.lsp.state
    house = state.house
    assert {entry.status for entry in house.factories()} == {status}
    completed = completed_house(older(house))
    assert (completed.tally, completed.entries) == (house.tally, house.entries)
    assert completed.news == house.news
    check_sums(replace(state, house=completed))
    assert older(completed) == older(house)
    assert completed_house(house) == house, "what lacks something else has these as they are"


def test_an_older_house_counts_what_was_funded_and_numbers_its_sales_as_they_were_made() -> None:
    def sold(height: int) -> SoldEntry:
        return SoldEntry(
            client=1, height=height, amount_sat=1, capacity_sat=2, price_msat=3, advance_id=b"a"
        )

    first = entry(1, ALICE, BOB, sold=(sold(5), sold(9)))
    second = entry(2, CAROL, sold=(sold(7),))
    others = (entry(3, ALICE, status=ABORTED), entry(4, BOB, status=BUILDING))
    house = house_of(first, second, *others)
    completed = completed_house(older(house))
    assert completed.tally == house.tally
    assert completed.tally.n_funded == 2
    assert completed_house(completed) == completed
    assert dict(completed.sales) == {
        1: (first.attempt_id, 0),
        2: (second.attempt_id, 0),
        3: (first.attempt_id, 1),
    }


def test_sales_that_have_numbers_keep_them_whatever_else_a_house_lacks() -> None:
    """Of two in one block the one of the later factory may have been the first."""

    def sold() -> tuple[SoldEntry, ...]:
        return (
            SoldEntry(
                client=1, height=5, amount_sat=1, capacity_sat=2, price_msat=3, advance_id=b"a"
            ),
        )

    first, second = entry(1, ALICE, sold=sold()), entry(2, BOB, sold=sold())
    numbered = Shelf({1: (second.attempt_id, 0), 2: (first.attempt_id, 0)})
    house = replace(house_of(first, second), sales=numbered)
    assert completed_house(older(house)).sales == numbered


def test_an_older_client_finds_its_coins_by_other_keys() -> None:
    pump = a_live_one()
    client: ClientState = pump.clients[0].state
    older_one = replace(client, wallet=older_wallet(client.wallet))
    assert completed_client(older_one) == client


def test_who_has_no_journal_has_nobody_who_sleeps() -> None:
    state = new_lsp(a_live_one().lsp.state.config)
    assert list(state.due_at(1_000_000)) == []
    assert dict(state.asleep) == {}
