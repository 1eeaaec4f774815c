"""What a block costs an LSP does not depend on how many channels are quiet, their clients here."""

import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from tests.protocol.exits import ask_to_leave
from tests.protocol.paying_clients import pay
from tests.protocol.pump import PumpNode
from tests.protocol.sleepers import Village, lsp_state

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Txid
from cromford.crypto.keys import sha256
from cromford.daemon.lspd import LSP_ROLE
from cromford.factory.lifetime import Period
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.exiting.rest import at_rest_until
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.restless import Restless, all_restless

PAID_MSAT: Final = 5_000_000
FIRST_COPY: Final = 1_000
QUIET, LEFT = 0, 1  # The two factories, by number.
# Rooms in which something is done about one factory, and how one is taken into a decision.
ROOMS: Final = (
    *("exiting", "channels", "opening", "closing", "advancing", "dying", "handover"),
    *("delivery.py", "turn.py", "factory.py", "book.py", "known_chain.py"),
)


@cache
def village() -> Village:
    """Return a world of two factories with two clients each: one is quiet, of one somebody leaves.

    All clients are connected.
    """
    pump = Village(1, PumpNode, n_clients=4)
    for pair in (pump.clients[:2], pump.clients[2:]):
        pump.found(*pair)
    leaver = pump.clients[2]
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, PAID_MSAT).status == "paid"
    ask_to_leave(pump, "client", leaver)
    pump.run()
    assert all(pump.lsp.state.house.is_connected(client.node_id) for client in pump.clients)
    return pump


def block_after(state: LspState) -> ev.BlockAdded:
    height = state.scan.height + 1
    return ev.BlockAdded(height=height, block_hash=Txid(sha256(b"%d" % height)), txs=())


def after_block(state: LspState) -> LspState:
    return lsp_role.decide(state, block_after(state)).state


def with_quiet(n_channels: int, state: LspState | None = None) -> LspState:
    """Return an LSP with one exit under way, and this many quiet channels at least."""
    state = state or lsp_state(village())
    quiet = state.factory(QUIET)
    n_links = len(quiet.book.links)
    for number in range(FIRST_COPY, FIRST_COPY + n_channels // n_links):
        attempt = replace(quiet.attempt, attempt_id=sha256(b"copy %d" % number))
        state = state.with_factory(replace(quiet, number=number, begun=attempt))
    return state


def calls_of_block(state: LspState) -> Counter[str]:
    """Return how often which function of a factory's rooms is called for one empty block."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _arg: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and ({path.name, *path.parts} & {*ROOMS}):
            calls[f"{path.name}:{frame.f_code.co_name}"] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        lsp_role.decide(state, block_after(state))
    finally:
        sys.setprofile(before)
    return calls


def test_a_block_does_the_same_whether_a_hundred_channels_are_quiet_or_ten_thousand() -> None:
    seen: list[Counter[str]] = []
    for n_channels in (100, 1_000, 10_000):
        state = after_block(with_quiet(n_channels))
        assert set(state.restless.asked) == {LEFT}
        seen.append(calls_of_block(state))
        assert [*LSP_ROLE.parts.quiet(state)] == []
    assert seen[0].total() > 0
    assert seen[0] == seen[1] == seen[2]


def dying(blocks_before_close: int) -> LspState:
    """Return the LSP with its quiet factory in its dying period; one of its clients is away.

    Args:
        blocks_before_close: How many blocks are left until the policy asks for a close.
    """
    away = village().clients[0]
    gone = ev.ConnectionClosed(node_id=away.node_id)
    state = lsp_role.decide(lsp_state(village()), gone).state
    life, policy = state.factory(QUIET).lifetime, state.config.policy
    height = life.share_height(policy.dying_step_percent) - blocks_before_close
    tip = BlockRef(height=height, block_hash=Txid(bytes(32)))
    return replace(state, scan=replace(state.scan, recent=(tip,)))


@pytest.mark.parametrize(
    ("blocks_before_close", "sizes"), [(3, (100, 1_000, 10_000)), (0, (100, 1_000))]
)
def test_a_block_does_the_same_whether_a_hundred_channels_die_or_ten_thousand(
    blocks_before_close: int, sizes: tuple[int, ...]
) -> None:
    seen: list[Counter[str]] = []
    for n_channels in sizes:
        state = after_block(with_quiet(n_channels, dying(blocks_before_close)))
        factory = state.factory(FIRST_COPY)
        assert (factory.period, factory.closing) == (Period.DYING, None)
        assert (factory.close_height is None) == (blocks_before_close > 0)
        assert set(state.restless.asked) == {LEFT}
        seen.append(calls_of_block(state))
        assert [*LSP_ROLE.parts.quiet(state)] == []
    assert seen[0].total() > 0
    assert all(calls == seen[0] for calls in seen)


def test_a_factory_at_rest_is_asked_again_at_its_height_and_once_something_happens() -> None:
    state = after_block(lsp_state(village()))
    assert QUIET not in state.restless.asked
    until = at_rest_until(state.factory(QUIET))
    assert until == state.factory(QUIET).lifetime.dying_height
    assert QUIET in state.restless.at(until).asked
    assert QUIET not in state.restless.at(until - 1).asked
    alice = village().clients[0]
    away = lsp_role.decide(state, ev.ConnectionClosed(node_id=alice.node_id)).state
    assert QUIET in away.restless.asked
    assert QUIET not in after_block(away).restless.asked, "the other client is here"


def test_a_factory_that_everybody_has_left_is_asked_until_it_sleeps() -> None:
    state: Any = after_block(lsp_state(village()))
    for client in village().clients[:2]:
        state = lsp_role.decide(state, ev.ConnectionClosed(node_id=client.node_id)).state
    for _ in range(2):
        state = after_block(state)
        assert QUIET in state.restless.asked
        assert [*LSP_ROLE.parts.quiet(state)] == [state.factory(QUIET).stream]


@pytest.mark.parametrize("jump", [1, 3, 1_000])
def test_whose_rest_ended_is_asked_however_far_a_block_is_from_the_last(jump: int) -> None:
    rested = all_restless(range(6)).at(10)
    for number in range(5):
        rested = rested.with_rest(number, 11 + number)
    assert {*rested.asked} == {5}
    later = rested.at(10 + jump)
    assert {*later.asked} == {5, *range(min(jump, 5))}
    assert {*later.due} == {11 + number for number in range(5) if number >= jump}
    assert later.with_one(5) is later
    assert {*later.without_one(5).asked} == {*later.asked} - {5}
    assert Restless().at(7) == Restless(height=7)
