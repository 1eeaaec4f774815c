"""Leaving with money in the channel: every satoshi reaches the wallet that owns it."""

from typing import Any

from tests.protocol.paying_clients import balance, live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode

from cromford.protocol import events as ev


def wallet_sat(node: PumpNode) -> int:
    """Return what a node's wallet holds."""
    return sum(
        coin.txout.amount_sat
        for coin in node.state.wallet.coins.values()
        if coin.spent_height is None
    )


def leave(pump: Pump, client: PumpNode, **changes: Any) -> None:
    """Let a client leave, and mine until nothing more can come of it."""
    link = newest_link(client)
    pump.handle(client, ev.ExitRequested(attempt_id=link.attempt_id, **changes))
    pump.run()
    pump.mine(link.exit_blocks + link.setting.terms.to_self_delay_accepter + 2)


def test_a_client_without_a_coin_leaves_with_its_balance() -> None:
    pump = live_factory(3)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    pay(pump, alice, bob, 7_000_000)
    left_sat = balance(alice).own_msat // 1000
    before_sat = wallet_sat(pump.lsp)
    assert wallet_sat(alice) == 0
    leave(pump, alice)
    sweep_fee_sat = left_sat - wallet_sat(alice)
    assert 0 < sweep_fee_sat < 400
    assert wallet_sat(pump.lsp) > before_sat, "the LSP swept its own side of the commitment"
