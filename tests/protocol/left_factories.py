"""An LSP's factories as values, for what it does on the way out: each is made once, and changed."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from tests.protocol.decisions import Known
from tests.protocol.paying_clients import begin_payment, live_factory, pay
from tests.protocol.pump import Pump
from tests.protocol.seen_blocks import spending, up_to, with_blocks
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.changed import changed
from cromford.protocol.channels.seats import link_of
from cromford.protocol.facts import Lacking
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mark import StoreMark
from cromford.wire import messages as m

ALICE: Final = 1
BOB: Final = 2


@cache
def paid() -> Factory:
    """Return a factory of two clients of whom the first has money."""
    pump = live_factory(2, policy=QUICK)
    assert pay(pump, pump.lsp, pump.client_at(ALICE), FIRST_MSAT).status == "paid"
    return pump.factory


@cache
def forwarding(amount_msat: int, *, by_lsp: bool = False) -> Factory:
    """Return one in which Alice, or the LSP, pays Bob, who never answers."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.client_at(ALICE), pump.client_at(BOB)
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        begin_payment(pump, pump.lsp if by_lsp else alice, bob, amount_msat)
    return pump.factory


@cache
def holding() -> Factory:
    """Return one that holds what Alice pays Bob, who is away."""
    pump = live_factory(2, policy=QUICK)
    alice, bob = pump.client_at(ALICE), pump.client_at(BOB)
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    begin_payment(pump, alice, bob, WORTH_MSAT)
    assert pump.factory.book.held
    return pump.factory


@cache
def unfunded() -> Factory:
    """Return one whose clients did not sign the root."""
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run_to(m.SignRoot)
    assert pump.attempt.funded is None
    return pump.factory


@cache
def unready() -> Factory:
    """Return one whose funding no block has yet."""
    pump = Pump(2, policy=QUICK)
    pump.join()
    pump.build()
    pump.run()
    assert pump.attempt.funded is not None
    assert not pump.factory.book.links
    return pump.factory


def channel(factory: Factory, client: int) -> Link:
    link = link_of(factory, client)
    assert link is not None
    return link


def having(factory: Factory, client: int, **changes: Any) -> Factory:
    """Return a factory that knows a channel otherwise."""
    link = replace(channel(factory, client), **changes)
    book = changed(factory.book, links=factory.book.links.set(link.channel_id, link))
    return replace(factory, book=book)


def restored(factory: Factory) -> Factory:
    """Return a factory as a store that was put back has it: all of it is marked."""
    for link in factory.book.ordered_links:
        factory = having(factory, link.client, mark=StoreMark())
    return replace(factory, is_marked=True)


def leaving(factory: Factory, *clients: int) -> Factory:
    return replace(factory, exits=frozenset(clients))


def path(factory: Factory, client: int) -> tuple[Tx, ...]:
    """Return the signed transactions down to a client's channel, root first."""
    attempt = factory.attempt
    nodes = attempt.branch(client).nodes
    return tuple(attempt.signed_txs[node.name] for node in nodes)


def seeing(factory: Factory, *txs: Tx) -> Factory:
    """Return a factory after blocks with one of these each."""
    return replace(factory, chain=with_blocks(factory.chain, *([tx] for tx in txs)))


def on(factory: Factory, chain: KnownChain) -> Factory:
    return replace(factory, chain=chain)


def without_funding(factory: Factory) -> Factory:
    """Return a factory whose funding a reorganisation took off the chain."""
    confirmed = factory.chain.confirmed.delete(factory.attempt.funding_tx.txid)
    return on(factory, replace(factory.chain, confirmed=confirmed))


def overtaken(factory: Factory) -> Factory:
    """Return a factory a coin of whose funding something else spent, six blocks ago."""
    there = without_funding(factory)
    coin = factory.attempt.funding_tx.inputs[0].outpoint
    spends = {one: tx for one, tx in there.chain.spends.items() if one != coin}
    chain = with_blocks(replace(there.chain, spends=spends), [spending(coin)])
    return on(there, up_to(chain, chain.height + 5))


@dataclass(kw_only=True)
class House(Known):
    """A directory of a house that has coins, or lacks them.

    Attributes:
        gone: Coins that the wallet has no more.
        wanted: What it has no coin for.
        lent: For what it set coins aside.
    """

    gone: frozenset[OutPoint] = frozenset()
    wanted: dict[OutPoint, Lacking] = field(default_factory=dict)
    lent: frozenset[OutPoint] = frozenset()

    def has_coins(self, outpoints: Iterable[OutPoint]) -> bool:
        return self.gone.isdisjoint(outpoints)

    def lacking(self) -> dict[OutPoint, Lacking]:
        return self.wanted

    def is_lent_to(self, outpoint: OutPoint) -> bool:
        return outpoint in self.lent
