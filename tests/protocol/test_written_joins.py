"""A join that an order journals is not read again by the factory that the order begins."""

from dataclasses import replace

from tests.protocol.attacks import join_of
from tests.protocol.pump import Pump

from cromford.factory.terms import N_CLIENTS_MAX
from cromford.protocol.journal.encoding import decoded_join, encoded_join
from cromford.wire import messages as m


def test_a_join_is_found_again_once_and_then_read_to_the_same() -> None:
    pump = Pump(2)
    pump.join()
    join = join_of(pump, pump.clients[0])
    data = encoded_join(join)
    assert data == m.encode_message(join)
    assert decoded_join(data) is join
    again = decoded_join(data)
    assert again is not join
    assert again == join


def test_no_more_joins_are_held_than_an_order_has() -> None:
    pump = Pump(2)
    pump.join()
    first = join_of(pump, pump.clients[0])
    data = encoded_join(first)
    for capacity_sat in range(N_CLIENTS_MAX):
        encoded_join(replace(first, capacity_sat=capacity_sat))
    assert decoded_join(data) is not first
    assert decoded_join(data) == first
