"""Buyers who mean no good: by what they ask for, and by what they do not sign."""

from tests.protocol.advances import remembered
from tests.protocol.markets import Market

from cromford.protocol.journal import advance_records as ar
from cromford.wire import messages as m


def test_a_quote_is_bought_by_once_so_that_nobody_makes_a_leaf_quiet_for_nothing() -> None:
    market = Market().with_money()
    pump, quote = market.pump, market.quote()
    for _ in range(3):
        buy = m.Buy(attempt_id=market.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
        pump.tell(pump.lsp, market.buyer, buy)
        begun = remembered(pump.lsp, ar.AdvanceProposed)
        abort = m.AdvanceAbort(
            attempt_id=market.attempt_id, advance_id=begun[-1].advance_id, reason="not now"
        )
        pump.tell(pump.lsp, market.buyer, abort)
        pump.wire.clear()
    assert len(remembered(pump.lsp, ar.AdvanceProposed)) == 1
