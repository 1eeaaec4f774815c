"""A factory of eight dies: who is there moves, what can be closed is closed, the rest is swept."""

from pathlib import Path

import pytest

from cromford import effects as fx
from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.daemon.views.lsp import status_of
from cromford.protocol.exiting.rest import NEVER
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import dying_records as dr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import handover_records as hr
from cromford.wire import messages as m
from tests.dying.accounts import ANYBODY, LSP, MINERS, Accounts, rows
from tests.dying.world import MOVERS, SEATS, DyingWorld, balance_msat
from tests.protocol.moving_clients import told

pytestmark = pytest.mark.sampled_file(4)

CLOSE_MESSAGES = (m.CloseBegin, m.CloseAgree, m.ClosePropose, m.CloseSign, m.Closed, m.CloseEnd)


@pytest.fixture(scope="module")
def world() -> DyingWorld:
    world = DyingWorld()
    world.play()
    return world


@pytest.fixture(scope="module")
def accounts(world: DyingWorld) -> Accounts:
    return Accounts(world)


@pytest.mark.sampled(0)
def test_everybody_is_warned_who_is_there_or_comes_back(world: DyingWorld) -> None:
    for node in (world.lsp, *(world.people[name] for name in (*MOVERS, "F", "G"))):
        (first, *_) = told(node, dr.PeriodBegan)
        assert (first.period, first.height) == ("dying", world.life.dying_height)
    assert not told(world.people["H"], dr.PeriodBegan)


@pytest.mark.sampled(0)
def test_who_was_there_has_all_of_it_in_the_next_factory(accounts: Accounts) -> None:
    assert [(one.who, one.amount_msat) for one in accounts.moved] == [
        (name, balance_msat(SEATS[name])) for name in MOVERS
    ]
    for name in MOVERS:
        assert not accounts.of(name), "and nothing on chain"


def test_they_hand_over_their_keys_and_are_asked_for_nothing_more(world: DyingWorld) -> None:
    held = [one.client for one in world.of_old(hr.KeysHeld)]
    assert sorted(held) == sorted(SEATS[name] for name in MOVERS)
    for name in MOVERS:
        client = world.people[name]
        assert not any(world.sent(client, kind) for kind in CLOSE_MESSAGES)
        asked = [
            one.message
            for one in world.wishes(world.lsp, fx.Send)
            if one.node_id == client.node_id and isinstance(one.message, CLOSE_MESSAGES)
        ]
        assert not asked


def test_who_left_and_who_came_back_are_paid_on_chain(accounts: Accounts) -> None:
    (left,) = accounts.of("F")
    (closed,) = accounts.of("G")
    # A sweep of 129 vB at 1 sat/vB; a close pays what is due, rounded down.
    assert left.amount_sat == balance_msat(SEATS["F"]) // 1000 - 129
    assert closed.amount_sat == balance_msat(SEATS["G"]) // 1000
    assert closed.what == "close of kickoff_2"
    for name, piece in (("F", left), ("G", closed)):
        client = accounts.world.people[name]
        assert piece.outpoint is not None
        assert client.state.wallet.coins[piece.outpoint].txout.amount_sat == piece.amount_sat
        assert client.state.wish is None, "nor does it wait for a next factory any more"


def test_who_never_came_back_gets_nothing(accounts: Accounts) -> None:
    assert not accounts.of("H")
    (*_, last) = accounts.of(LSP)
    assert last.what == "sweep of static_root:3"
    assert last.height == accounts.world.life.expiry_height + 1


def test_the_policy_closes_part_by_part_in_its_window(world: DyingWorld) -> None:
    begun = [(one.name, one.clients) for one in world.of_old(cl.CloseBegun)]
    assert begun == [("kickoff_0", (1, 2)), ("kickoff_2", (5, 6)), ("channel 3", (3,))]
    assert not world.of_old(cl.CloseEnded)
    half = world.life.share_height(50)
    wanted = [one.height for one in world.of_old(dr.CloseWanted)]
    assert wanted == [half, half + 36]
    confirmed = [one.height for one in world.of_old(cl.CloseConfirmed)]
    assert confirmed == [half + 1, half + 2, half + 3]
    (asked,) = world.sent(world.lsp, m.CloseBegin)
    (agreed,) = world.sent(world.people["G"], m.CloseAgree)
    assert asked.close_id == agreed.close_id, "nobody but G was asked"


def test_every_satoshi_is_accounted_for(accounts: Accounts) -> None:
    assert accounts.total_sat == accounts.funding_sat
    anchors = accounts.of(ANYBODY)
    assert {one.amount_sat for one in anchors} == {ANCHOR_DUST_SAT}
    assert len(anchors) == 7, "four transactions of F's way out, three closes"
    assert len(accounts.of(MINERS)) == 11
    on_chain_sat = sum(
        piece.amount_sat for who in (*SEATS, LSP, ANYBODY, MINERS) for piece in accounts.of(who)
    )
    assert on_chain_sat == accounts.funding_sat


def test_the_lsp_is_told_of_all_that_it_got(accounts: Accounts) -> None:
    world = accounts.world
    wallet = world.lsp.state.wallet
    for piece in accounts.of(LSP):
        assert piece.outpoint is not None
        assert wallet.coins[piece.outpoint].txout.amount_sat == piece.amount_sat
    closed = [one.amount_sat for one in world.of_old(cl.CloseConfirmed)]
    assert closed == [one.amount_sat for one in accounts.of(LSP) if "close" in one.what]
    swept = [one.outputs for one in world.of_old(xr.OutputsSwept)]
    assert swept == [("state_1:2",), ("static_root:3",)]


def test_then_the_factory_is_over_and_sleeps(world: DyingWorld) -> None:
    assert status_of(world.dying_factory) == "swept"
    assert world.woken_at == [None, NEVER], "five, and six blocks deep"
    assert len(world.lsp.state.attempts) == 2, "two of eight made no factory of their own"


def test_the_page_tells_this_run(accounts: Accounts) -> None:
    page = (Path(__file__).parents[2] / "docs/dying.md").read_text(encoding="utf-8").splitlines()
    story = [line.split("**")[1] for line in page if line.startswith("- **")]
    world = accounts.world
    since = {name: height - world.life.dying_height for name, height in world.came_back.items()}
    life = (world.life.blocks_of(50), world.life.expiry_height - world.life.dying_height)
    assert story[:6] == ["0.", "1.", f"{since['F']}.", f"{since['G']}.", *map(str, life)]
    table = list(rows(accounts, by_outpoint=False))
    assert [line for line in page if line.startswith("|")][-len(table) :] == table
