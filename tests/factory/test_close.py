"""What a cooperative close pays, by the vectors that independent implementations agreed on."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from tests.factory.test_tree_vectors import SHAPES, tree_of_vector

from cromford.factory.close import CloseScope, Payout, build_close, scope_of
from cromford.factory.tree import Tree

CLOSES: Final = (("two-advance-part", 0), ("six-default-parts", 0), ("six-default-parts", 1))
TAPROOT: Final = bytes.fromhex("5120") + bytes(range(32))


@pytest.fixture
def vectors(json_vectors: Callable[[str], Any]) -> dict[str, Any]:
    return {vector["case"]["name"]: vector for vector in json_vectors("factory-shapes.json")}


def _scope(tree: Tree, outpoint: str) -> CloseScope:
    if outpoint == "funding":
        return scope_of(tree.root_node)
    vout = int(outpoint.split()[1])
    spent = tree.root_node.tx.outpoint(vout)
    return next(scope_of(node) for node in tree.nodes if node.tx.inputs[0].outpoint == spent)


def _payouts(given: Any, scope: CloseScope, balances: list[int | None]) -> list[Payout]:
    payouts = []
    for client in scope.clients:
        due_msat = balances[client - 1]
        assert due_msat is not None
        script = bytes.fromhex(given["participants"][client]["payout_script"])
        payouts.append(Payout(script_pubkey=script, due_msat=due_msat))
    return payouts


def test_every_close_of_the_vectors_is_read(vectors: dict[str, Any]) -> None:
    found = [(name, i) for name in SHAPES for i in range(len(vectors[name]["case"]["closes"]))]
    assert tuple(found) == CLOSES


@pytest.mark.parametrize(("name", "number"), CLOSES)
def test_the_agreed_closes_are_reproduced_to_the_byte(
    vectors: dict[str, Any], name: str, number: int
) -> None:
    """Txids commit to every byte; outputs, fees and sizes are compared, too."""
    given, result = vectors[name]["case"], vectors[name]["result"][f"close {number}"]
    wish = given["closes"][number]
    scope = _scope(tree_of_vector(given), wish["outpoint"])
    close = build_close(
        scope,
        _payouts(given, scope, wish["balances_msat"]),
        lsp_script=bytes.fromhex(given["participants"][0]["payout_script"]),
        feerate_sat_per_kw=wish["feerate_sat_per_kw"],
    )
    assert str(close.tx.txid) == result["txid"]
    assert close.vsize == result["vsize_signed"]
    assert close.fee_sat == result["fee_sat"]
    paid = [[one.amount_sat, one.script_pubkey.hex()] for one in close.tx.outputs]
    assert paid == result["outputs"]
