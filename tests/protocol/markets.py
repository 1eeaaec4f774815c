"""A live factory in which inbound liquidity is asked for, quoted and bought."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.pump import PumpNode

from cromford.factory.leaf import Leaf
from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import answer_to
from cromford.protocol.facts import FRESH
from cromford.protocol.policy import LspPolicy, SalePrice
from cromford.wire import messages as m

POLICY: Final = LspPolicy(min_clients=1, min_depth=1)
MONEY_MSAT: Final = 30_000_000


class Market:
    """A live factory, and what is said about prices in it."""

    def __init__(self, n_clients: int = 2, *, policy: LspPolicy = POLICY, **options: Any) -> None:
        self.said: list[m.Message] = []
        self.lost: tuple[type[m.Message], ...] = ()  # Messages that never arrive.
        self.pump = live_factory(n_clients, policy=policy, **options)
        self.pump.tamper = self._listen
        self.attempt_id = self.pump.attempt.attempt_id

    def _listen(self, _from: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        self.said.append(message)
        return () if isinstance(message, self.lost) else (message,)

    @property
    def buyer(self) -> PumpNode:
        return self.pump.client_at(1)

    @property
    def leaf(self) -> Leaf:
        return self.pump.factory.attempt.leaf(1)

    def with_money(self, amount_msat: int = MONEY_MSAT) -> "Market":
        assert pay(self.pump, self.pump.lsp, self.buyer, amount_msat) is not None
        return self

    def ask(self, amount_sat: int = 20_000, **asked: Any) -> m.Quote | m.QuoteRefused:
        """Let the buyer's operator ask for a price, and return the LSP's answer."""
        self.said.clear()
        asked = {"attempt_id": self.attempt_id, "amount_sat": amount_sat, **asked}
        self.pump.handle(self.buyer, ev.QuoteRequested(**asked))
        self.pump.run()
        (answer,) = (one for one in self.said if isinstance(one, m.Quote | m.QuoteRefused))
        return answer

    def quote(self, amount_sat: int = 20_000, **asked: Any) -> m.Quote:
        answer = self.ask(amount_sat, **asked)
        assert isinstance(answer, m.Quote), answer
        return answer

    def refusal(self, amount_sat: int = 20_000, **asked: Any) -> m.QuoteRefused:
        answer = self.ask(amount_sat, **asked)
        assert isinstance(answer, m.QuoteRefused), answer
        return answer

    def set_price(self, **price: Any) -> SalePrice:
        """Let the LSP's operator change its price."""
        asked: SalePrice = replace(self.pump.lsp.state.house.sale_price(), **price)
        self.pump.handle(self.pump.lsp, ev.PriceRequested(price=asked))
        return asked

    def buy_by(self, quote_id: bytes, payment_hash: bytes = b"") -> m.QuoteRefused | None:
        """Let the buyer say that it buys, whatever its own rules are; return a refusal."""
        self.said.clear()
        said = m.Buy(attempt_id=self.attempt_id, quote_id=quote_id, payment_hash=payment_hash)
        self.pump.tell(self.pump.lsp, self.buyer, said)
        self.pump.run()
        return next((one for one in self.said if isinstance(one, m.QuoteRefused)), None)

    def advance(self, amount_sat: int, *, buyer: int = 1) -> None:
        """Let somebody buy so much, 0 for all, at no price and whatever is covered."""
        price = self.pump.lsp.state.house.sale_price()
        self.set_price(base_msat=0, per_million=0, per_month=0)
        node = self.pump.client_at(buyer)
        asked = ev.QuoteRequested(attempt_id=self.attempt_id, amount_sat=amount_sat)
        self.pump.handle(node, asked)
        self.pump.run()
        quote = answer_to(node.state.quotes[self.attempt_id])
        assert isinstance(quote, m.Quote), quote
        order = ev.PurchaseRequested(
            attempt_id=self.attempt_id,
            quote_id=quote.quote_id,
            price_max_msat=0,
            beyond_coverage=True,
        )
        self.pump.handle(node, order)
        self.pump.run()
        assert newest_link(node).state.capacity_sat == quote.capacity_sat
        self.pump.handle(self.pump.lsp, ev.PriceRequested(price=price))

    def at_height(self, height: int) -> "Market":
        """Let the LSP hear of headers up to a height."""
        self.pump.lsp.facts_at = lambda _own_height: replace(FRESH, header_height=height)
        return self
