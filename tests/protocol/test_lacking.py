"""A lack of something of ours delays a channel, and never ends it."""

import pytest
from tests.protocol.paying_clients import live_factory, lsp_link, newest_link, pay
from tests.protocol.pump import Pump, PumpNode

from cromford import effects as fx
from cromford.signing import signer as signer_module

FIRST_MSAT = 20_000_000


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> tuple[Pump, PumpNode]:
    """Three live channels at an LSP that has room for the nonces of two, and the third client.

    The two that found room are connected.
    """
    pump = live_factory(3)
    for client in pump.clients:
        assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
        pump.disconnect(client)
    monkeypatch.setattr(signer_module, "N_POOLS_SPARE", 2)
    for client in pump.clients:
        pump.connect(client)
        pump.run()
    late = pump.clients[2]
    assert [newest_link(client).is_open for client in pump.clients] == [True, True, False]
    return pump, late


def try_again(pump: Pump) -> None:
    ((node, deadline),) = pump.deadlines_of(fx.NonceDeadline)
    pump.pass_deadline(node, deadline)
    pump.run()


def assert_pays(pump: Pump, client: PumpNode) -> None:
    assert lsp_link(pump, newest_link(client)).failure is None
    assert newest_link(client).failure is None
    assert pay(pump, client, pump.clients[0], 1_000_000).status == "paid"


def test_one_channel_too_many_is_taken_up_once_there_is_room(
    crowded: tuple[Pump, PumpNode],
) -> None:
    pump, late = crowded
    assert pay(pump, pump.clients[1], pump.clients[0], 1_000_000).status == "paid"
    for _ in range(3):
        try_again(pump)
        assert not newest_link(late).is_open
        assert lsp_link(pump, newest_link(late)).failure is None
    pump.disconnect(pump.clients[1])
    try_again(pump)
    assert_pays(pump, late)


def test_a_reconnection_finds_the_room_too_and_the_old_wait_is_over(
    crowded: tuple[Pump, PumpNode],
) -> None:
    pump, late = crowded
    pump.disconnect(pump.clients[1])
    pump.disconnect(late)
    try_again(pump)
    assert lsp_link(pump, newest_link(late)).pool_id is None, "nobody is there to tell"
    pump.connect(late)
    pump.run()
    assert not pump.deadlines_of(fx.NonceDeadline)
    assert_pays(pump, late)


def test_a_restart_forgets_the_wait_and_begins_anew(crowded: tuple[Pump, PumpNode]) -> None:
    pump, late = crowded
    pump.restart(pump.lsp)
    pump.run()
    assert pump.deadlines_of(fx.NonceDeadline)
    waiting = [client for client in pump.clients if not newest_link(client).is_open]
    assert len(waiting) == 1
    pump.disconnect(next(client for client in pump.clients[1:] if client not in waiting))
    try_again(pump)
    assert_pays(pump, waiting[0])
    assert late in pump.clients
