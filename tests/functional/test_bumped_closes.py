"""A close whose feerate was agreed too low gets into a block: any payee's child pays, of its own.

Each move is made as a daemon makes it, and seen at both nodes.
"""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.functional.family_world import (
    FUNDING_SAT,
    anchor_of,
    fee_at,
    funding,
    node_tx,
    padded,
    purse,
    sent,
    spend,
    waiting,
)
from tests.functional.node_world import KEY_SCRIPT, NODES, Coin, World, coin_of
from tests.functional.test_bumping_moves import DEAR, DEAR_FEES, QUIET, pays, sign

from cromford import effects as fx
from cromford.bitcoin.fees import ANCHOR_DUST_SAT, TRUC_CHILD_VSIZE_MAX
from cromford.bitcoin.script import ANCHOR_SCRIPT
from cromford.bitcoin.tx import Tx
from cromford.daemon.bumping import Bumper, Waiting
from cromford.ports import TxRefused
from cromford.wallet.account import WalletPath
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import OwnFees, path_budget_sat

PATH: Final = WalletPath(change=0, index=0)
OTHER_SCRIPT: Final = bytes.fromhex("5120") + b"\x09" * 32
PAYOUT_SAT: Final = 60_000


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module", params=NODES, ids=lambda kind: kind.__name__)
def dear(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from request.param(tmp_path_factory.mktemp("node"), DEAR)


def close_of(coin: Coin, sat_per_vb: float, *, payout_sat: int = PAYOUT_SAT) -> Tx:
    """Return a close: it pays us, somebody else, and has an anchor last."""

    def made(fee_sat: int) -> Tx:
        left_sat = coin.amount_sat - payout_sat - ANCHOR_DUST_SAT - fee_sat
        return spend(
            [coin],
            (payout_sat, KEY_SCRIPT),
            (left_sat, OTHER_SCRIPT),
            (ANCHOR_DUST_SAT, ANCHOR_SCRIPT),
        )

    return made(fee_at(sat_per_vb, made(0)))


def wanted(
    close: Tx, sat_per_vb: float, *, fees: OwnFees = QUIET, twins: tuple[Tx, ...] = ()
) -> Bumping:
    payout_sat = sum(out.amount_sat for out in close.outputs if out.script_pubkey == KEY_SCRIPT)
    return Bumping(
        fee_sat=FUNDING_SAT - sum(out.amount_sat for out in close.outputs),
        feerate_sat_per_kw=int(sat_per_vb * 250),
        budget_sat=path_budget_sat(payout_sat),
        fees=fees,
        own_script=KEY_SCRIPT if payout_sat else b"",
        twins=tuple(tx.txid for tx in twins),
        spares_rivals=True,
    )


def published(world: World, tx: Tx, bumping: Bumping) -> Waiting:
    """Publish as a payee's daemon does, and return what waits then."""

    async def publish(chain: Any) -> Waiting:
        bumper = Bumper(chain, sign=sign, path_of={KEY_SCRIPT: PATH}.get)
        await bumper.publish(fx.Broadcast(name="close", tx=tx, bumping=bumping), bumping)
        seen = bumper.waiting_at(tx.inputs[0].outpoint)
        assert seen is not None
        return seen

    return world.ask(publish)


def test_a_payee_bumps_a_close_with_what_it_is_paid(world: World) -> None:
    close = close_of(funding(world), 3)
    seen = published(world, close, wanted(close, 10))
    assert pays(seen, 10)
    assert seen.is_ours
    raw = Tx.parse(bytes.fromhex(world.call("getrawtransaction", str(seen.child_txid))))
    assert [one.outpoint for one in raw.inputs] == [close.outpoint(2), close.outpoint(0)]
    assert [one.script_pubkey for one in raw.outputs] == [KEY_SCRIPT]
    assert raw.vsize <= TRUC_CHILD_VSIZE_MAX
    assert seen.child_fee_sat is not None
    assert raw.outputs[0].amount_sat == PAYOUT_SAT + ANCHOR_DUST_SAT - seen.child_fee_sat
    world.mine()
    assert waiting(world) == set()


def test_what_pays_enough_is_published_without_a_child(world: World) -> None:
    close = close_of(funding(world), 10)
    assert published(world, close, wanted(close, 10)).child_txid is None


def test_several_payees_do_not_outbid_each_other(world: World) -> None:
    """Whoever pays: the second and the third find that what they want is paid."""
    close = close_of(funding(world), 3)
    first = published(world, close, wanted(close, 10))
    for sat_per_vb in (10, 9, 4):
        same = published(world, close, wanted(close, sat_per_vb))
        assert (same.child_txid, same.is_ours) == (first.child_txid, False)


@pytest.mark.parametrize(("sat_per_vb", "cost_sat"), [(1, None), (3, None), (9, 9_000 + 16)])
def test_a_pinning_childs_owner_gains_nothing_through_the_anchor(
    world: World, sat_per_vb: int, cost_sat: int | None
) -> None:
    """A stranger's child of 1,000 vB at the anchor: evicted, for no more than its fee and ours."""
    close = close_of(funding(world), 3)
    theirs = padded(
        [anchor_of(close), purse(world)],
        vsize=TRUC_CHILD_VSIZE_MAX,
        fee_sat=sat_per_vb * TRUC_CHILD_VSIZE_MAX,
    )
    sent(world, close, theirs)
    seen = published(world, close, wanted(close, 10))
    assert seen.is_ours
    assert str(theirs.txid) not in waiting(world)
    assert seen.package_sat_per_kw is not None
    assert seen.package_sat_per_kw >= 2_500
    if cost_sat is not None:
        assert seen.child_fee_sat == cost_sat
    world.mine()
    assert waiting(world) == set()


def test_beyond_half_of_the_payout_a_pin_stays(world: World) -> None:
    """Then the payee waits, and leaves at its deadline: no close is worth more than that."""
    close = close_of(funding(world), 3, payout_sat=18_000)
    theirs = padded([anchor_of(close), purse(world)], vsize=1_000, fee_sat=9_000)
    sent(world, close, theirs)
    assert published(world, close, wanted(close, 10)).child_txid == theirs.txid
    other = close_of(funding(world), 3, payout_sat=18_040)
    theirs = padded([anchor_of(other), purse(world)], vsize=1_000, fee_sat=9_000)
    sent(world, other, theirs)
    assert published(world, other, wanted(other, 10)).is_ours


def test_a_pinned_root_is_replaced_by_the_close_and_its_child(world: World) -> None:
    """An exit's root waits, with a stranger's child of 1,000 vB: both go, for the close."""
    coin = funding(world)
    root = node_tx(coin, fee_sat=248)
    pin = padded([anchor_of(root), purse(world)], vsize=1_000, fee_sat=2_000)
    sent(world, root, pin)
    close = close_of(coin, 3)
    seen = published(world, close, wanted(close, 3))
    assert seen.is_ours
    assert {str(root.txid), str(pin.txid)}.isdisjoint(waiting(world))


def test_a_root_alone_is_replaced_by_the_close_alone_or_its_child(world: World) -> None:
    coin = funding(world)
    root = node_tx(coin, fee_sat=248)
    sent(world, root)
    close = close_of(coin, 3)
    seen = published(world, close, wanted(close, 3))
    assert seen.package_sat_per_kw is not None
    assert str(root.txid) not in waiting(world)


def test_below_the_mempools_minimum_it_goes_with_its_child(dear: World) -> None:
    close = close_of(funding(dear), 2)
    assert pays(published(dear, close, wanted(close, 2, fees=DEAR_FEES)), 3)


def test_the_cheaper_one_is_left_alone_while_it_pays_with_whosever_child(world: World) -> None:
    coin = funding(world)
    cheap, dearer = close_of(coin, 3), close_of(coin, 6)
    seen = published(world, cheap, wanted(cheap, 10))
    same = published(world, dearer, wanted(dearer, 10, twins=(cheap, dearer)))
    assert same.package_sat_per_kw is None
    assert {str(cheap.txid), str(seen.child_txid)} <= waiting(world)


def test_the_dearer_one_takes_its_place_where_it_does_not(world: World) -> None:
    coin = funding(world)
    cheap, dearer = close_of(coin, 3), close_of(coin, 6)
    sent(world, cheap)
    seen = published(world, dearer, wanted(dearer, 6, twins=(cheap, dearer)))
    assert str(cheap.txid) not in waiting(world)
    assert seen.package_sat_per_kw is not None
    assert seen.package_sat_per_kw >= 1_500


def test_a_way_out_gives_way_to_a_close_that_pays_enough(world: World) -> None:
    coin = funding(world)
    close, root = close_of(coin, 10), node_tx(coin, fee_sat=248)
    sent(world, close)
    leaving = replace(wanted(root, 10, twins=(close,)), own_script=b"", spares_rivals=False)
    assert published(world, root, leaving).package_sat_per_kw is None
    assert str(close.txid) in waiting(world)


def test_a_close_and_a_way_out_that_hurries_do_not_outbid_each_other(world: World) -> None:
    """The way out pays more than the close wants: a close goes against it as it was signed."""
    coin = funding(world)
    close, root = close_of(coin, 3), node_tx(coin, fee_sat=248)
    theirs = padded([anchor_of(root), purse(world)], vsize=200, fee_sat=4_000)
    sent(world, root, theirs)
    with pytest.raises(TxRefused, match="insufficient fee"):
        published(world, close, wanted(close, 10))
    assert {str(root.txid), str(theirs.txid)} <= waiting(world)


def test_a_payee_with_nothing_to_lose_pays_nothing(world: World) -> None:
    """Below the dust limit it has no output; of one that is another's it makes no coin."""
    close = close_of(funding(world), 3)
    bumping = replace(wanted(close, 10), own_script=OTHER_SCRIPT, budget_sat=0)
    seen = published(world, close, bumping)
    assert seen.child_fee_sat in {None, ANCHOR_DUST_SAT}
    assert coin_of(close, 0).amount_sat == PAYOUT_SAT
