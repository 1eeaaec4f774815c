"""Payments in a demo: the choice stays payable, and what does not add up is noticed."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.demo.accounts import (
    ClientAccount,
    accounts_at_rest,
    check_nothing_lost,
    check_on_chain,
    purses_of,
)
from cromford.demo.failure import DemoFailed
from cromford.demo.parallel import in_parallel
from cromford.demo.paying import _chosen, _paid_first, n_wanted
from cromford.demo.purses import (
    AMOUNT_MAX_MSAT,
    AMOUNT_MIN_MSAT,
    IN_FLIGHT_MAX_MSAT,
    DemoPurse,
    PlannedPayment,
    Price,
    Purses,
)
from cromford.demo.settings import DemoSettings
from cromford.demo.world import World

PRICE = Price(base_msat=1000, proportional_millionths=1000)
CAPACITY_SAT = 10_000
FUNDING = "11" * 32


def account(own_msat: int) -> ClientAccount:
    lsp_msat = 1000 * CAPACITY_SAT - own_msat
    return ClientAccount(
        own_msat=own_msat,
        lsp_msat=lsp_msat,
        spendable_msat=own_msat,
        receivable_msat=lsp_msat,
    )


def purses(*pairs: tuple[int, int]) -> dict[int, DemoPurse]:
    return {
        seat: DemoPurse(spendable_msat=spendable, receivable_msat=receivable)
        for seat, (spendable, receivable) in enumerate(pairs, start=1)
    }


money = st.integers(0, 4_000_000)


@given(
    pairs=st.lists(st.tuples(money, money), min_size=2, max_size=6),
    n=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
    dice=st.randoms(use_true_random=False),
)
def test_a_choice_can_be_paid_in_its_order_whatever_arrives_first(
    pairs: list[tuple[int, int]], n: int, seed: int, dice: Any
) -> None:
    before = purses(*pairs)
    chosen = Purses(before).plan(n, PRICE, seed=seed)
    assert before == purses(*pairs)
    assert chosen == Purses(before).plan(n, PRICE, seed=seed)
    held = Purses(before)
    under_way: list[PlannedPayment] = []
    for payment in chosen:
        assert payment.payer != payment.payee
        assert AMOUNT_MIN_MSAT <= payment.amount_msat <= AMOUNT_MAX_MSAT
        assert payment.fee_msat == PRICE.fee_msat(payment.amount_msat)
        while not held.can_begin(payment):
            # With nothing on its way any more, the next can always begin.
            held.end(under_way.pop(dice.randrange(len(under_way))))
        held.begin(payment)
        under_way.append(payment)
        for purse in before.values():
            assert 0 <= purse.in_flight_msat <= IN_FLIGHT_MAX_MSAT
            assert min(purse.spendable_msat, purse.receivable_msat) >= 0
    for payment in under_way:
        held.end(payment)
    paid = sum(payment.fee_msat for payment in chosen)
    assert sum(p.spendable_msat for p in before.values()) == sum(a for a, _ in pairs) - paid


@pytest.mark.parametrize("purse_msat", [0, 1999, 2000, 2001, 2002, 1_502_500, 10**12])
def test_what_is_affordable_is_so_together_with_its_fee(purse_msat: int) -> None:
    amount_msat = PRICE.affordable_msat(purse_msat)
    if amount_msat > 0:
        assert amount_msat + PRICE.fee_msat(amount_msat) <= purse_msat
        assert purse_msat - 2 <= amount_msat + PRICE.fee_msat(amount_msat)


def test_payments_are_made_together_and_each_once() -> None:
    held = purses((50_000_000, 50_000_000), (50_000_000, 50_000_000), (0, 50_000_000))
    chosen = Purses(held).plan(200, PRICE, seed=1)
    made: list[PlannedPayment] = []
    both = threading.Barrier(2, timeout=10)
    told: list[int] = []

    def make(payment: PlannedPayment) -> None:
        made.append(payment)
        if payment in chosen[:2]:
            both.wait()  # The first two are under way at one moment.

    in_parallel(chosen, Purses(held), make, n_workers=3, told=told.append)
    assert sorted(made, key=chosen.index) == chosen
    assert told[-1] == 200
    assert {purse.in_flight_msat for purse in held.values()} == {0}


def test_a_payment_that_fails_ends_the_others_without_waiting_for_them() -> None:
    held = purses((50_000_000, 50_000_000), (50_000_000, 50_000_000))
    chosen = Purses(held).plan(50, PRICE, seed=2)
    released = threading.Event()

    def make(payment: PlannedPayment) -> None:
        if payment is chosen[1]:
            raise DemoFailed("payment_failed", "the payee is away")
        released.wait(30)

    began = time.monotonic()
    try:
        with pytest.raises(DemoFailed, match="the payee is away"):
            in_parallel(chosen, Purses(held), make, n_workers=2, told=lambda _n: None)
    finally:
        released.set()
    assert time.monotonic() - began < 15


PAYMENTS = [
    PlannedPayment(payer=1, payee=2, amount_msat=2_000_500, fee_msat=3_000),
    PlannedPayment(payer=2, payee=1, amount_msat=500_001, fee_msat=1_500),
]
LEFT = {1: account(2_496_501), 2: account(1_498_999)}


def test_accounts_that_add_up_are_taken() -> None:
    check_nothing_lost(
        LEFT, capacity_sat=CAPACITY_SAT, first={1: 4_000_000}, payments=PAYMENTS, earned_msat=4_500
    )


@pytest.mark.parametrize(
    ("accounts", "earned_msat", "said"),
    [
        (LEFT | {2: account(1_498_998)}, 4_500, "client 2's balance"),
        (LEFT, 4_499, "the LSP's fees: expected 4,500 msat, received 4,499"),
        (
            LEFT
            | {
                1: ClientAccount(
                    own_msat=2_496_501, lsp_msat=7_503_498, spendable_msat=0, receivable_msat=0
                )
            },
            4_500,
            "client 1's channel: expected 10,000,000",
        ),
    ],
)
def test_a_lost_millisatoshi_is_noticed(
    accounts: dict[int, ClientAccount], earned_msat: int, said: str
) -> None:
    with pytest.raises(DemoFailed, match=said):
        check_nothing_lost(
            accounts,
            capacity_sat=CAPACITY_SAT,
            first={1: 4_000_000},
            payments=PAYMENTS,
            earned_msat=earned_msat,
        )


def channel(own_msat: int, **more: object) -> dict[str, object]:
    return {
        "client": 1,
        "factory_id": "f0",
        "status": "open",
        "failed": None,
        "own_msat": own_msat,
        "peer_msat": 1000 * CAPACITY_SAT - own_msat,
        "spendable_msat": own_msat,
        "receivable_msat": 1,
        "sending_msat": 0,
        "receiving_msat": 0,
        **more,
    }


def world_with(own: dict[str, object], lsp: dict[str, object]) -> World:
    client = SimpleNamespace(client=1, call=lambda _method: {"channels": [own]})
    node = SimpleNamespace(call=lambda _method: {"channels": [lsp]})
    return cast("World", SimpleNamespace(clients=[client], lsp=node))


def test_an_account_is_what_both_sides_say_at_rest() -> None:
    own, lsp = channel(4_000), channel(1000 * CAPACITY_SAT - 4_000)
    found = accounts_at_rest(world_with(own, lsp), "f0")
    assert found is not None
    assert (found[1].own_msat, found[1].lsp_msat) == (4_000, 9_996_000)
    assert accounts_at_rest(world_with(own, lsp | {"own_msat": 5}), "f0") is None
    assert accounts_at_rest(world_with(own | {"sending_msat": 7}, lsp), "f0") is None
    assert accounts_at_rest(world_with(own | {"status": "offline"}, lsp), "f0") is None
    assert accounts_at_rest(world_with(own, lsp), "another") is None
    with pytest.raises(DemoFailed, match="a channel failed: it lied"):
        accounts_at_rest(world_with(own | {"status": "failed", "failed": "it lied"}, lsp), "f0")


def on_chain_world(heights: dict[str, int], *, is_spent: bool = False, is_theirs: bool) -> World:
    node = SimpleNamespace(
        payments=lambda: heights,
        output=lambda _txid, _vout: None if is_spent else {"amount_sat": 1},
        height=lambda: 104,
    )
    settings = SimpleNamespace(chain="a user's node" if is_theirs else None)
    return cast("World", SimpleNamespace(node=node, site=SimpleNamespace(settings=settings)))


EXPORTED = {"funding": {"txid": FUNDING, "vout": 0}, "transactions": [{"txid": "22" * 32}]}


@pytest.mark.parametrize(
    ("heights", "is_spent", "is_theirs", "said"),
    [
        ({}, False, False, "not confirmed"),
        ({FUNDING: 1}, True, True, "is spent"),
        ({FUNDING: 1, "22" * 32: 2}, False, True, "22 too"),
        ({FUNDING: 1, "33" * 32: 2}, False, False, "33 too"),
    ],
)
def test_anything_on_chain_but_the_funding_is_noticed(
    *, heights: dict[str, int], is_spent: bool, is_theirs: bool, said: str
) -> None:
    with pytest.raises(DemoFailed, match=said):
        check_on_chain(on_chain_world(heights, is_spent=is_spent, is_theirs=is_theirs), EXPORTED)


def test_what_others_do_on_a_users_node_is_their_business() -> None:
    shown = check_on_chain(on_chain_world({FUNDING: 1, "33" * 32: 2}, is_theirs=True), EXPORTED)
    assert (shown["funding_txid"], shown["n_transactions"]) == (FUNDING, 1)


@pytest.mark.parametrize(
    ("settings", "n"),
    [
        (DemoSettings(n_clients=1, n_payments=9), 0),
        (DemoSettings(n_clients=2), 4),
        (DemoSettings(n_clients=9), 18),
        (DemoSettings(n_clients=9, n_payments=5), 5),
        (DemoSettings(n_payments=0), 0),
    ],
)
def test_how_many_payments_there_are(settings: DemoSettings, n: int) -> None:
    assert n_wanted(settings) == n


def test_who_leaves_is_paid_before() -> None:
    assert _paid_first(DemoSettings(n_clients=1)) == [1]
    assert _paid_first(DemoSettings(n_clients=9)) == [1, 2, 3]
    assert _paid_first(DemoSettings(n_clients=9, exit_client=7)) == [1, 2, 3, 7]


def test_more_payments_than_fees_leave_money_for_are_refused() -> None:
    lobby = {"fee_base_msat": 1000, "fee_proportional_millionths": 1000}
    client = SimpleNamespace(call=lambda _method: {"lobby": lobby})

    def world(n_payments: int | None) -> World:
        site = SimpleNamespace(settings=SimpleNamespace(n_payments=n_payments))
        return cast("World", SimpleNamespace(clients=[client], site=site))

    accounts = {1: account(5_000), 2: account(0)}
    with pytest.raises(
        DemoFailed, match=r"--payments: fees leave money for \d payments"
    ) as refused:
        _chosen(world(50), accounts, 50, 1)
    assert refused.value.exit_code == 2
    fewer = _chosen(world(None), accounts, 50, 1)
    assert fewer == purses_of(accounts).plan(50, PRICE, seed=1)
    assert 0 < len(fewer) < 5
