"""The end of an exit: every satoshi between a channel's balance and a wallet's coin is followed."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cromford.bitcoin.address import address_of_script
from cromford.bitcoin.network import REGTEST
from cromford.demo.coin import coin_of, taken_out
from cromford.demo.exiting import _bring, _check_foretold, _outcome
from cromford.demo.failure import DemoFailed
from cromford.demo.node import Node
from cromford.demo.steps import DemoStep
from cromford.demo.world import DaemonProcess, World

SCRIPT = "5120" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
ADDRESS = address_of_script(bytes.fromhex(SCRIPT), REGTEST)
TXIDS = {"commitment": "aa" * 32, "sweep": "bb" * 32}
COIN = f"{'bb' * 32}:0"
BALANCE_MSAT = 5_000_999


def a_node(
    *,
    swept: str = "0.00005000",
    source: str = "aa" * 32,
    output: dict[str, Any] | None = None,
    heights: dict[str, int] | None = None,
) -> Node:
    txs = {
        "aa" * 32: {"vin": [], "vout": [{"value": Decimal(1)}, {"value": Decimal(swept)}]},
        "bb" * 32: {"vin": [{"txid": source, "vout": 1}], "vout": [{}]},
    }
    confirmed = {"aa" * 32: 100, "bb" * 32: 532} if heights is None else heights
    there = {"amount_sat": 4_740, "script_pubkey": SCRIPT, "confirmations": 1}
    return cast(
        "Node",
        SimpleNamespace(
            transaction=txs.get,
            confirmed_height=confirmed.get,
            output=lambda _txid, _vout: there | (output or {}),
        ),
    )


def a_client(**coin: object) -> DaemonProcess:
    held = {"outpoint": COIN, "amount_sat": 4_740, "address": ADDRESS, **coin}
    return cast("DaemonProcess", SimpleNamespace(call=lambda _method: {"coins": [held]}))


def test_a_coin_is_the_balance_rounded_down_less_the_fee_of_its_sweep() -> None:
    coin = coin_of(a_node(), a_client(), TXIDS, balance_msat=BALANCE_MSAT)
    assert (coin["outpoint"], coin["address"]) == (COIN, ADDRESS)
    assert (coin["balance_sat"], coin["fee_sat"], coin["amount_sat"]) == (5_000, 260, 4_740)


@pytest.mark.parametrize(
    ("node", "client", "said"),
    [
        (a_node(swept="0.00004999"), a_client(), "the swept output: expected 5000, received 4999"),
        (a_node(source="cc" * 32), a_client(), "the sweep's sources"),
        (a_node(output={"amount_sat": 4_741}), a_client(), "the coin's amount"),
        (a_node(), a_client(address="bcrt1qother"), "the coin's address"),
        (a_node(), a_client(outpoint="elsewhere:0"), "is not in the client's wallet"),
    ],
)
def test_a_coin_other_than_what_was_the_clients_is_noticed(
    node: Node, client: DaemonProcess, said: str
) -> None:
    with pytest.raises(DemoFailed, match=said):
        coin_of(node, client, TXIDS, balance_msat=BALANCE_MSAT)


def test_a_sweep_before_its_delay_is_noticed() -> None:
    shown = taken_out(a_node(), TXIDS, to_self_delay=432)
    assert [(tx["name"], tx["delay_blocks"]) for tx in shown] == [("commitment", 0), ("sweep", 432)]
    with pytest.raises(DemoFailed, match="came 432 blocks after the commitment, its delay is 433"):
        taken_out(a_node(), TXIDS, to_self_delay=433)
    with pytest.raises(DemoFailed, match="sweep is not on chain"):
        taken_out(a_node(heights={"aa" * 32: 100}), TXIDS, to_self_delay=432)


def test_an_exit_other_than_foretold_is_noticed() -> None:
    foretold = {"steps": [{"name": "commitment"}, {"name": "sweep"}], "exit_sat": 4_740}
    _check_foretold(foretold, TXIDS, {"amount_sat": 4_740})
    with pytest.raises(DemoFailed, match="amount in the wallet: expected 4740, received 4739"):
        _check_foretold(foretold, TXIDS, {"amount_sat": 4_739})
    with pytest.raises(DemoFailed, match="transactions: expected"):
        _check_foretold(foretold, {"commitment": "aa" * 32}, None)


def test_an_exit_without_a_coin_says_why() -> None:
    assert "100 msat are not worth an output" in _outcome(2, 100, None)


@pytest.mark.parametrize("status", ["await_preimage", "withheld", "unrecognised"])
def test_an_exit_that_waits_for_more_than_blocks_is_given_up(status: str) -> None:
    world = cast("World", SimpleNamespace(node=SimpleNamespace(height=lambda: 7)))
    entry = {"name": "commitment", "status": status, "txid": None, "height": None}
    with pytest.raises(DemoFailed, match=f"commitment: {status.replace('_', ' ')}"):
        _bring(world, cast("DemoStep", SimpleNamespace()), entry)
