"""A factory in the moment in which an HTLC of a client was locked in, for one decision about it."""

from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.decisions import Known, in_factory, remembered
from tests.protocol.paying_clients import live_factory, lsp_link, make_invoice, newest_link, pay

from cromford.changed import changed
from cromford.channel.messages import UpdateFail
from cromford.protocol.channels import lsp as channels
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import HtlcKey
from cromford.protocol.journal.encoding import journalled_update
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import ForwardAsked
from cromford.protocol.turn import Turn

FIRST_MSAT: Final = 30_000_000
AMOUNT_MSAT: Final = 5_000_000
FEE_MSAT: Final = 6_000
HERE: Final = "factory:0"


class Moment:
    """A factory in which an HTLC of Alice's, for Bob, was locked in this moment."""

    def __init__(self) -> None:
        pump = live_factory(3)
        self.alice, self.bob, self.carol = (client.node_id for client in pump.clients)
        for client in pump.clients:
            assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
        request = make_invoice(pump, pump.clients[1], AMOUNT_MSAT)
        self.payment_hash = request.payment_hash
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(channels, "answer_as_lsp", lambda *_: None)
            pump.handle(pump.clients[0], request)
            pump.run()
        self.factory = pump.factory
        alices, bobs = (lsp_link(pump, newest_link(client)) for client in pump.clients[:2])
        self.key: HtlcKey = (alices.channel_id, 0)
        self.payee_channel_id = bobs.channel_id
        assert list(self.factory.book.arrived) == [self.key]
        live = alices.incoming(0)
        assert live is not None
        self.live = live
        self.asked = ForwardAsked(
            channel_id=self.key[0],
            htlc_id=0,
            payment_hash=self.payment_hash,
            cltv_expiry=live.htlc.cltv_expiry - 100,
            delivery=live.payload,
        )

    @property
    def everybody(self) -> frozenset[bytes]:
        return frozenset({self.alice, self.bob, self.carol})

    def with_link(self, link: Link, factory: Factory | None = None) -> Factory:
        """Return a factory with a channel as it might be."""
        factory = factory or self.factory
        links = factory.book.links.set(link.channel_id, link)
        return changed(factory, book=changed(factory.book, links=links))

    def with_htlc(self, *, payload: bytes | None = None, **about: Any) -> Factory:
        """Return the factory with another HTLC in the place of Alice's."""
        link = self.factory.book.links[self.key[0]]
        htlcs = tuple(
            changed(
                live,
                htlc=changed(live.htlc, **about),
                payload=live.payload if payload is None else payload,
            )
            for live in link.state.htlcs
        )
        return self.with_link(changed(link, state=changed(link.state, htlcs=htlcs)))


@cache
def moment() -> Moment:
    return Moment()


def decided(
    factory: Factory | None = None, facts: Facts = FRESH, known: Known | None = None
) -> Turn[Factory]:
    """Let a factory decide about what arrived."""
    turn = in_factory(factory or moment().factory, facts, known)
    channels.finish_channels(turn)
    return turn


def held(known: Known | None = None) -> Factory:
    """Return the factory after the HTLC had to wait."""
    factory = decided(known=known).state
    assert moment().key in factory.book.held
    return factory


def forwarded(*, announced: int = 0) -> Factory:
    """Return the factory after it asked itself to let the HTLC go on."""
    known = Known(streams=(HERE,), announced={moment().payment_hash: announced})
    return decided(known=known).state


def failures(turn: Turn[Factory]) -> list[bytes]:
    """Return the reasons with which HTLCs are given back."""
    updates = (journalled_update(one.message) for one in remembered(turn, cr.UpdateProposed))
    return [one.reason for one in updates if isinstance(one, UpdateFail)]
