"""Clients of a factory that dies move themselves, with all that they have."""

from tests.protocol.moving_clients import (
    factory_with_money,
    mine_to_dying,
    own_msat,
    told,
)
from tests.protocol.paying_clients import book

from cromford.protocol.journal import lobby_records as lr


def test_everybody_moves_by_itself_with_all_that_it_has() -> None:
    pump = factory_with_money(4, watches_folds=True)
    mine_to_dying(pump)
    pump.mine(1)
    assert [own_msat(pump, client) for client in pump.clients] == [
        (0, 30_000_123),
        (0, 0),
        (0, 5_000_000),
        (0, 330_000),
    ]
    assert book(pump.lsp).earned_msat == 0
    for client in pump.clients:
        (wish,) = [one for one in told(client, lr.WishMade) if one.moves_from]
        assert wish.capacity_sat == 100_000
