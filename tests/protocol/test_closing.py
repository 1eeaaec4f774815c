"""A cooperative close from the operator's wish to the block: everybody is paid by one tx."""

import pytest
from tests.protocol.closes import closable_factory, close, ended, finished


@pytest.mark.parametrize("n_clients", [1, 2, 5, 8])
def test_a_factory_is_closed_by_one_transaction(n_clients: int) -> None:
    pump = closable_factory(n_clients, watches_folds=True)
    close(pump)
    for node in (pump.lsp, *pump.clients):
        assert not ended(node)
        assert len(finished(node)) == 1
    pump.mine(1)
    factory = pump.factory
    spender = factory.chain.spends[factory.attempt.funding_outpoint]
    assert spender.txid == next(iter(factory.closed.values())).txs[0].txid
