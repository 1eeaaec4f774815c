"""Whether a peer has a seat is asked for each message, and read once a block."""

from dataclasses import replace

import pytest
from tests.protocol.paying_clients import live_factory, pay
from tests.protocol.pump import Pump
from tests.protocol.sleepers import lsp_state

from cromford.daemon.seats import Seats
from cromford.protocol.journal.lsp_state import LspState


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return who was read of what there is of each factory."""
    found: list[bytes] = []
    has_seat = LspState.has_seat

    def noted(state: LspState, node_id: bytes) -> bool:
        found.append(node_id)
        return has_seat(state, node_id)

    monkeypatch.setattr(LspState, "has_seat", noted)
    return found


def test_seats_are_not_read_anew_for_each_message(read: list[bytes]) -> None:
    """The entry of a factory of 1,024 is 50 kB: for each message of a payment it would be slow."""
    pump = live_factory(2)
    seats = Seats(lambda: lsp_state(pump))
    node_ids = [client.node_id for client in pump.clients]
    alice, bob = pump.clients
    assert all(seats(node_id) for node_id in node_ids)
    assert pay(pump, pump.lsp, alice, 2_000_000).status == "paid"
    assert pay(pump, alice, bob, 1_000_000).status == "paid"
    assert all(seats(node_id) for node_id in node_ids)
    assert read == node_ids
    pump.mine()
    assert all(seats(node_id) for node_id in node_ids)
    assert read == node_ids * 2


def test_a_seat_is_known_as_soon_as_a_build_takes_somebody_and_no_longer_than_it_has_one() -> None:
    pump = Pump(2)
    seats = Seats(lambda: lsp_state(pump))
    alice = pump.clients[0].node_id
    pump.join()
    assert not seats(alice)
    pump.build()
    assert seats(alice)
    pump.run()
    pump.mine(pump.policy.min_depth)
    assert seats(alice)
    now = [lsp_state(pump)]
    later = Seats(lambda: now[0])
    assert later(alice)
    entries = now[0].house.entries
    expired = replace(entries[pump.attempt.attempt_id], expiry_height=0)
    house = replace(now[0].house, entries=entries.set(expired.attempt_id, expired))
    now[0] = replace(now[0], house=house)
    assert not later(alice)
