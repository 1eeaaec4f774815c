"""What a channel's two sides meet while payments go through it, with the state of that moment.

So one step can be taken again, alone, under other circumstances.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, NamedTuple

import pytest
from tests.protocol.advances import advancing_factory, market, sell
from tests.protocol.decisions import Known, in_client, in_factory
from tests.protocol.paying_clients import (
    POLICY,
    live_factory,
    make_invoice,
    open_factory,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_two_fundings import BUYER, ELSEWHERE, between_states

from cromford.changed import changed
from cromford.protocol.channels import finish, signer_answers, steps
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn, Turn
from cromford.wire import messages as m

WATCHED: Final = (
    (signer_answers, "on_commitment_made"),
    (signer_answers, "on_half_made"),
    (steps, "on_commitment_signed"),
    (steps, "on_revoke_and_ack"),
    (finish, "sign_if_due"),
    (signer_answers, "on_nonce_prepared"),
    (signer_answers, "on_point_recalled"),
    (steps, "on_reestablish"),
)


class Sample(NamedTuple):
    """One step: the state before it, and what was met: an event, or a message."""

    state: Any
    met: Any
    channel_id: bytes

    @property
    def is_lsps(self) -> bool:
        """Whether the LSP met it."""
        return isinstance(self.state, Factory)

    @property
    def link(self) -> Link:
        """The channel before it."""
        found: Link = self.state.book.links[self.channel_id]
        return found

    def with_link(self, **about: Any) -> "Sample":
        """Return it when the channel is another."""
        link = changed(self.link, **about)
        book = changed(self.state.book, links=self.state.book.links.set(link.channel_id, link))
        return self._replace(state=changed(self.state, book=book))

    def away(self) -> "Sample":
        """Return it when the peer is not connected."""
        return self.with_link(state=changed(self.link.state, is_connected=False))

    def turn(self, facts: Facts = FRESH) -> Turn[Any]:
        """Return a decision on its state."""
        if not self.is_lsps:
            return in_client(self.state, facts)
        return in_factory(self.state, facts, Known(here=frozenset({self.link.node_id})))


class Samples:
    """All steps of a run, by the names of the functions that take them."""

    def __init__(self) -> None:
        self.taken: dict[str, list[Sample]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what is met from here on."""
        with pytest.MonkeyPatch.context() as patched:
            for module, name in WATCHED:
                patched.setattr(module, name, self._noting(name, getattr(module, name)))
            yield

    def _noting(self, name: str, original: Callable[..., None]) -> Callable[..., None]:
        def noting(turn: AnyTurn, *about: Any) -> None:
            met = about[-1]
            asked = met.asked if hasattr(met, "asked") else met
            self.taken.setdefault(name, []).append(Sample(turn.state, met, asked.channel_id))
            original(turn, *about)

        return noting

    def first(self, name: str, *, of_lsp: bool) -> Sample:
        """Return the first step of a kind that a side took."""
        return next(one for one in self.taken[name] if one.is_lsps is of_lsp)


def paid_through(pump: Pump, client: PumpNode, other: PumpNode) -> Samples:
    """Return what is met while a client is paid by the LSP, and pays another."""
    samples = Samples()
    with samples.watching():
        assert pay(pump, pump.lsp, client, 2_000_000).status == "paid"
        assert pay(pump, client, other, 1_500_000).status == "paid"
    return samples


def taken_up(pump: Pump, client: PumpNode, lost: type[m.Message]) -> Samples:
    """Return what is met in a new connection, after what the LSP pays was not heard to its end."""
    pump.handle(pump.lsp, make_invoice(pump, client, 2_000_000))
    pump.run_to(lost)
    samples = Samples()
    with samples.watching():
        pump.disconnect(client)
        pump.connect(client)
        pump.run()
    return samples


@cache
def first_connection() -> Samples:
    """Return what is met in the first connection of a channel."""
    samples, pump = Samples(), Pump(1, policy=POLICY)
    with samples.watching():
        open_factory(pump)
    return samples


@cache
def plain_again(lost: type[m.Message]) -> Samples:
    """Return what is met in a new connection of a channel with one funding."""
    pump = live_factory(1)
    assert pay(pump, pump.lsp, pump.clients[0], 30_000_000).status == "paid"
    return taken_up(pump, pump.clients[0], lost)


@cache
def dual_again(lost: type[m.Message]) -> Samples:
    """Return the same of one whose funding is being replaced."""
    with market(), between_states() as pump:
        return taken_up(pump, pump.client_at(BUYER), lost)


@cache
def plain() -> Samples:
    """Return what is met in a channel with one funding."""
    pump = live_factory(2)
    alice, bob = pump.clients
    assert pay(pump, pump.lsp, alice, 30_000_000).status == "paid"
    return paid_through(pump, alice, bob)


@cache
def dual() -> Samples:
    """Return what is met in a channel whose funding is being replaced."""
    with market(), between_states() as pump:
        return paid_through(pump, pump.client_at(BUYER), pump.client_at(ELSEWHERE))


@cache
def rebasing() -> Samples:
    """Return what is met while a leaf is advanced, and its channels are rebased."""
    samples = Samples()
    with market():
        pump = advancing_factory(2)
        with samples.watching():
            sell(pump, BUYER)
    return samples
