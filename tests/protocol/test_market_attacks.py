"""Buyers who mean no good, by what they ask for or do not sign; and an LSP that sells to them."""

from dataclasses import replace

import pytest
from tests.protocol.advances import remembered
from tests.protocol.markets import POLICY, Market
from tests.protocol.paying_clients import make_invoice, newest_link, pay
from tests.protocol.pump import PumpNode

from cromford.channel.stage import Edition
from cromford.protocol import events as ev
from cromford.protocol.advancing.selling import QUOTES_PER_BLOCK
from cromford.protocol.exiting.stake import balance_output_sat
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.pause import JOINS_TO_PAUSE, PAUSE_BLOCKS
from cromford.protocol.journal.quotes import VAIN_PURCHASE_ASKS
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


def buy_in_vain(market: Market) -> m.QuoteRefused | None:
    """Let the buyer ask anew, buy, and take its word back while its whole leaf is quiet for it.

    Returns why it gets no price.
    """
    pump, quote = market.pump, market.ask()
    if isinstance(quote, m.QuoteRefused):
        return quote
    buy = m.Buy(attempt_id=market.attempt_id, quote_id=quote.quote_id, payment_hash=b"")
    pump.tell(pump.lsp, market.buyer, buy)
    (advance,) = pump.factory.advances.values()
    said = {"attempt_id": market.attempt_id, "advance_id": advance.advance_id}
    pump.tell(pump.lsp, market.buyer, m.AdvanceAbort(**said, reason="not now"))
    pump.run()
    assert not pump.factory.advances
    return None


def test_with_fresh_quotes_a_leaf_is_made_quiet_for_nothing_only_so_often_in_a_block() -> None:
    market, n_most = Market().with_money(), QUOTES_PER_BLOCK // VAIN_PURCHASE_ASKS
    assert [buy_in_vain(market) for _ in range(n_most)] == [None] * n_most
    refused = buy_in_vain(market)
    assert refused is not None
    assert refused.code == "too_many_requests"
    assert len(remembered(market.pump.lsp, ar.AdvanceProposed)) == n_most
    market.pump.mine()
    market.advance(20_000)


def test_who_buys_in_vain_for_ever_leaves_its_neighbour_tries_of_its_own() -> None:
    market = Market().with_money()
    pump, neighbour = market.pump, market.pump.client_at(2)
    for _ in range(PAUSE_BLOCKS + 1):
        for _ in range(JOINS_TO_PAUSE):
            buy_in_vain(market)
        pump.mine()
    assert neighbour.state.may_advance(market.attempt_id)
    market.advance(20_000, buyer=2)


class Crowd(Market):
    """A leaf of several clients, each of whom may be the buyer."""

    seat = 1

    @property
    def buyer(self) -> PumpNode:
        return self.pump.client_at(self.seat)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [3, 4, 5])
def test_neighbours_who_buy_in_vain_together_leave_a_client_tries_of_its_own(
    n_clients: int,
) -> None:
    crowd = Crowd(n_clients, policy=replace(POLICY, leaf_arity=n_clients))
    pump, victim = crowd.pump, crowd.pump.client_at(n_clients)
    for seat in range(1, n_clients + 1):
        crowd.seat = seat
        crowd.with_money()
    for _ in range(PAUSE_BLOCKS + 1):
        for seat in range(1, n_clients):
            crowd.seat = seat
            while buy_in_vain(crowd) is None:
                pass
        pump.mine()
    assert victim.state.may_advance(crowd.attempt_id)
    crowd.advance(20_000, buyer=n_clients)


def test_an_lsp_that_withholds_its_last_word_of_a_rebase_stops_no_client_and_keeps_none() -> None:
    """Our commitment is for the larger channel then, and an HTLC in it is of what that grew by."""
    market = Market()
    pump, buyer, lsp = market.pump, market.buyer, market.pump.lsp
    assert pay(pump, lsp, buyer, 90_000_000).status == "paid"
    quote = market.quote(50_000)
    order = ev.PurchaseRequested(
        attempt_id=market.attempt_id,
        quote_id=quote.quote_id,
        price_max_msat=quote.price_msat,
        beyond_coverage=True,
    )
    pump.handle(buyer, order)
    pump.run_to(m.UpdateRebase)

    def withholding(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        return () if by is lsp and isinstance(message, m.RevokeAndAck) else (message,)

    with pump.tampering(withholding):
        pump.run_to(m.CommitmentSigned)
        pump.handle(lsp, make_invoice(pump, buyer, 40_000_000))
        pump.run()
    link = newest_link(buyer)
    content = link.state.content(link.me, Edition.SIGNED)
    assert content.is_rebased
    assert [htlc.amount_msat for htlc in content.htlcs] == [40_000_000]
    assert link.state.rebase is not None
    assert balance_output_sat(link) == content.accepter_msat // 1000
    pump.disconnect(buyer)
    pump.mine(2)
    assert buyer.state.chain.height == pump.chain.height
    pump.handle(buyer, ev.ExitRequested(attempt_id=market.attempt_id))
    assert pump.held(buyer).is_exiting
