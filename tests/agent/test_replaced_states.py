"""Exit packages of a leaf that was sold of: the newest state, and what takes the older apart."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.agent.path_chain import PathChain
from tests.agent.test_rounds import World
from tests.protocol.old_states import sold
from tests.protocol.pump import Pump

from cromford.agent.keeping import NotHeld
from cromford.agent.views import held_view
from cromford.answers.packages import PackageDocument
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import Tx
from cromford.daemon.views.exit_package import exit_package
from cromford.watch.package import ExitPackage, package_document
from cromford.watch.package_progress import TakeApart
from cromford.watch.package_reading import InvalidPackage, read_package


@cache
def documents() -> tuple[PackageDocument, PackageDocument, Tx]:
    """Return Alice's packages from before and after a sale, and the signed state of before."""
    pump, done = sold()
    alice = pump.clients[0]
    attempt = pump.held(alice)
    after = exit_package(alice.state, attempt, REGTEST)
    before = exit_package(alice.state, replace(attempt, leaf_states=()), REGTEST)
    return before, after, _old_state(pump, done.leaf.states[0].name)


def _old_state(pump: Pump, name: str) -> Tx:
    tx: Tx = pump.attempt.signed_txs[name]
    return tx


def read(document: PackageDocument) -> ExitPackage:
    return read_package(json.dumps(document).encode(), REGTEST)


def test_a_package_says_the_newest_state_and_how_the_older_ones_are_taken_apart() -> None:
    before, after, old = documents()
    package = read(after)
    assert package_document(package) == after
    assert "replaced" not in before
    assert package.package_id == read(before).package_id, "it is a way to the same channel"
    assert package.txs[:-1] == read(before).txs[:-1]
    (replaced,) = package.replaced
    assert replaced.tx.txid == old.txid == read(before).txs[-1].txid
    assert replaced.tx.inputs[0].witness == (), "nobody can publish it with this"
    assert len(package.poisons) == 2
    assert {tx.inputs[0].outpoint.txid for tx in package.poisons} == {old.txid}


CHANGES: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "replaced": lambda one: one.update(replaced=[]),
    "replaced[0].extra": lambda one: one["replaced"][0].update(extra=1),
    "replaced[0].poisons": lambda one: one["replaced"][0].update(poisons=[]),
    "replaced[0].state": lambda one: one["replaced"][0].update(state="00"),
    "replaced[0].state.inputs": lambda one: one["replaced"][0].update(
        state=one["replaced"][0]["poisons"][0]
    ),
    "replaced[0].state.witness": lambda one: one["replaced"][0].update(
        state=documents()[2].serialize().hex()
    ),
    "replaced[0].poisons[1].inputs": lambda one: one["replaced"][0]["poisons"].__setitem__(
        1, one["transactions"][1]
    ),
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_is_changed_in_it_is_refused_by_name(field: str) -> None:
    document = json.loads(json.dumps(documents()[1]))
    CHANGES[field](document)
    with pytest.raises(InvalidPackage) as refused:
        read(document)
    assert refused.value.field.startswith(field.rsplit(".", 1)[0])


def test_no_byte_of_a_poison_can_be_changed() -> None:
    document = documents()[1]
    text = document["replaced"][0]["poisons"][0]
    for place in range(0, len(text), 14):
        changed = json.loads(json.dumps(document))
        digit = "0" if text[place] != "0" else "1"
        changed["replaced"][0]["poisons"][0] = text[:place] + digit + text[place + 1 :]
        with pytest.raises(InvalidPackage):
            read(changed)


def test_the_newer_package_takes_the_place_of_the_older_and_never_the_other_way() -> None:
    before, after, _ = documents()
    world = World()
    world.hold(read(before))
    assert not world.keeping.take(read(after))
    (held,) = world.keeping.held.values()
    assert held.package == read(after)
    with pytest.raises(NotHeld):
        world.keeping.take(read(before))
    with pytest.raises(NotHeld):
        world.keeping.take(replace(read(after), replaced=()))
    world.restart()
    assert [one.package for one in world.keeping.held.values()] == [read(after)]


def test_an_agent_publishes_the_poisons_of_a_replaced_state_that_is_on_chain() -> None:
    _, after, old = documents()
    package = read(after)
    world = World(chain=PathChain())
    world.hold(package)
    world.chain.confirm_path([*package.txs[:-1], old])
    world.go(lambda: world.chain.mempool)
    assert set(world.chain.mempool) == set(package.poisons)
    assert world.of(package).action == TakeApart(due=package.poisons)
    world.chain.confirm()
    world.go(lambda: world.of(package).action == TakeApart(due=()))
    (held,) = world.keeping.held.values()
    view = held_view(held, world.of(package), None)
    assert view["status"] == "replaced"
    assert "took a replaced state apart" in view["next"]


def test_an_agent_publishes_the_newest_state_of_a_kickoff_that_is_on_chain() -> None:
    package = read(documents()[1])
    world = World(chain=PathChain())
    world.hold(package)
    world.chain.confirm_path(package.txs[:-1])
    world.chain.confirm(8)
    world.go(lambda: world.chain.mempool)
    assert world.chain.mempool == [package.txs[-1]]
