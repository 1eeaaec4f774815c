"""What every decision about channels ends with: answers, in which order, and signatures."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.decisions import Known, in_factory, remembered, wished
from tests.protocol.paying_clients import book, live_factory, make_invoice, newest_link, pay
from tests.protocol.pump import Pump

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.messages import UpdateFail, UpdateFulfill
from cromford.channel.stage import LiveHtlc
from cromford.protocol import events as ev
from cromford.protocol.channels import finish
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.channels.forwarding import hold_deadline, waiting_msat
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Forward, Held, HtlcKey
from cromford.protocol.journal.encoding import journalled_update
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn, Turn

FIRST_MSAT: Final = 30_000_000
# Who pays Bob what, in the order in which it came to wait for him.
PAYMENTS: Final = ((2, 5_000_000), (0, 2_000_000), (0, 9_000_000), (0, 1_000_000))


class Crowd:
    """A factory in which four HTLCs wait for Bob, who is away."""

    def __init__(self) -> None:
        pump = live_factory(3)
        bob = pump.clients[1]
        for client in pump.clients:
            assert pay(pump, pump.lsp, client, FIRST_MSAT).status == "paid"
        self.ids = {client: newest_link(client).channel_id for client in pump.clients}
        self.alices, self.bobs, self.carols = (self.ids[client] for client in pump.clients)
        requests = [make_invoice(pump, bob, amount_msat) for _, amount_msat in PAYMENTS]
        pump.disconnect(bob)
        for (payer, _), request in zip(PAYMENTS, requests, strict=True):
            pump.handle(pump.clients[payer], request)
            pump.run()
        self.factory = pump.factory
        self.bob = bob.node_id
        self.order: tuple[HtlcKey, ...] = self.factory.book.held_for[bob.node_id]
        assert self.order == ((self.carols, 0), *((self.alices, number) for number in range(3)))
        self.preimage = book(bob).invoices[requests[0].payment_hash].preimage
        self.pump: Pump = pump


@cache
def crowd() -> Crowd:
    return Crowd()


class Asked:
    """An answer that is noted, and what goes on by it."""

    def __init__(self, *, goes_on: Callable[[HtlcKey], bool] = lambda _: False) -> None:
        self.keys: list[HtlcKey] = []
        self.goes_on = goes_on

    def __call__(self, turn: AnyTurn, link: Link, live: LiveHtlc) -> None:
        key = (link.channel_id, live.htlc.htlc_id)
        assert live.htlc.offered_by is link.state.peer
        self.keys.append(key)
        if self.goes_on(key):
            turn.remember(
                cr.HtlcForwarded(
                    channel_id=key[0],
                    htlc_id=key[1],
                    to="factory:9",
                    fee_msat=0,
                    cltv_expiry=live.htlc.cltv_expiry,
                    seconds=0,
                )
            )


def with_link(factory: Factory, channel_id: bytes, **about: Any) -> Factory:
    """Return a factory with a channel as it might be."""
    link = changed(factory.book.links[channel_id], **about)
    links = factory.book.links.set(channel_id, link)
    return changed(factory, book=changed(factory.book, links=links))


def away(factory: Factory, channel_id: bytes) -> Factory:
    state = changed(factory.book.links[channel_id].state, is_connected=False)
    return with_link(factory, channel_id, state=state)


def quiet(factory: Factory, channel_id: bytes) -> Factory:
    return with_link(factory, channel_id, quiet_for=b"c" * 32)


def failed(factory: Factory, channel_id: bytes) -> Factory:
    return with_link(factory, channel_id, failure="over")


def released(factory: Factory, *keys: HtlcKey) -> Factory:
    book = factory.book
    return changed(factory, book=changed(book, released=book.released.update(dict.fromkeys(keys))))


def arrived(factory: Factory) -> Factory:
    """Return the factory with what waits not decided yet."""
    arrived = factory.book.arrived.update(dict.fromkeys(factory.book.held))
    held: Map[HtlcKey, Held] = Map()
    held_for: Map[bytes, tuple[HtlcKey, ...]] = Map()
    book = changed(factory.book, arrived=arrived, held=held, held_for=held_for)
    return changed(factory, book=book)


CANNOT_ANSWER: Final = [away, quiet, failed]


def test_what_arrived_is_answered_in_the_order_of_its_channel() -> None:
    asked = Asked()
    finish.finish(in_factory(arrived(crowd().factory)), asked)
    assert asked.keys == sorted(crowd().order)


@pytest.mark.parametrize("change", CANNOT_ANSWER)
def test_nothing_is_answered_in_a_channel_that_takes_no_update(change: Any) -> None:
    here, asked = crowd(), Asked()
    finish.finish(in_factory(change(arrived(here.factory), here.carols)), asked)
    assert asked.keys == sorted(here.order[1:])
    held = Asked()
    turn = in_factory(change(here.factory, here.carols), known=Known(room=10**12))
    finish.finish(turn, held, payees=(here.bob,))
    assert held.keys == [*here.order[1:]]


def test_what_waits_is_taken_up_when_it_may_go_on_and_not_when_its_payer_was_told() -> None:
    here, asked = crowd(), Asked()
    finish.finish(in_factory(here.factory), asked)
    assert asked.keys == []
    finish.finish(in_factory(released(here.factory, here.order[1])), asked, takes_up_held=True)
    assert asked.keys == sorted(key for key in here.order if key != here.order[1])


def test_what_a_payers_channel_came_back_with_is_decided_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It alone, and nothing that its payer heard of already."""
    pump = Crowd().pump
    alice = pump.clients[0]
    held = [*pump.factory.book.held]
    alices = sorted(key for key in held if key[0] == newest_link(alice).channel_id)
    pump.handle(pump.lsp, ended(alices[1]))
    pump.disconnect(alice)
    asked: list[HtlcKey] = []

    def note(_: AnyTurn, link: Link, live: LiveHtlc, __: object) -> None:
        asked.append((link.channel_id, live.htlc.htlc_id))

    monkeypatch.setattr(channels, "answer_as_lsp", note)
    pump.connect(alice)
    pump.run()
    assert asked == [alices[0], alices[2]]


def ended(key: HtlcKey) -> Any:
    stream = crowd().factory.stream
    return ev.DeadlineReached(stream=stream, deadline=hold_deadline(key))


# What waits for one payee


def asked_again(factory: Factory, room: int, **about: Any) -> list[HtlcKey]:
    """Return what is asked for when a payee may have room, in order."""
    asked, here = Asked(**about), crowd()
    finish.finish(in_factory(factory, known=Known(room=room)), asked, payees=(here.bob,))
    return asked.keys


def test_what_any_payment_that_waits_would_bring_its_payee_is_known() -> None:
    here = crowd()
    for key, (_, amount_msat) in zip(here.order, PAYMENTS, strict=True):
        payment_hash = incoming(in_factory(here.factory), key).htlc.payment_hash
        assert waiting_msat(here.factory.book, here.bob, payment_hash) == amount_msat


def test_what_waits_for_a_payee_is_asked_for_in_the_order_in_which_it_came() -> None:
    here = crowd()
    assert asked_again(here.factory, 10**12) == [*here.order]
    assert asked_again(here.factory, 0) == []
    first, second, third, fourth = here.order
    assert asked_again(released(here.factory, second), 10**12) == [first, third, fourth]


@pytest.mark.parametrize(
    ("room", "places"),
    [(999_999, []), (1_000_000, [3]), (5_000_000, [0, 1, 3]), (9_000_000, [0, 1, 2, 3])],
)
def test_what_is_larger_than_a_payees_room_is_not_asked_for(room: int, places: list[int]) -> None:
    assert asked_again(crowd().factory, room) == [crowd().order[place] for place in places]


def test_a_payee_that_refuses_one_after_another_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What goes on meanwhile does not count."""
    here = crowd()
    monkeypatch.setattr(finish, "VAIN_MAX", 2)
    assert asked_again(here.factory, 10**12) == [*here.order[:2]]
    first = here.order[0]
    assert asked_again(here.factory, 10**12, goes_on=first.__eq__) == [*here.order[:3]]


def test_once_one_went_on_what_is_left_of_the_room_counts() -> None:
    here, known = crowd(), Known(room=9_000_000)

    def fills(_key: HtlcKey) -> bool:
        known.room = 1_000_000
        return True

    asked = Asked(goes_on=fills)
    finish.finish(in_factory(here.factory, known=known), asked, payees=(here.bob,))
    assert asked.keys == [here.order[0], here.order[3]]


def over(channel_id: bytes) -> cr.ChannelFailed:
    return cr.ChannelFailed(channel_id=channel_id, reason="over", height=1, is_behind=False)


def test_whoever_has_a_word_in_its_channel_may_have_room_now() -> None:
    here, asked = crowd(), Asked()
    turn = in_factory(here.factory, known=Known(room=10**12))
    turn.remember(over(here.carols))
    finish.finish(turn, asked)
    assert asked.keys == [], "it is not hers that it waits for"
    turn = in_factory(here.factory, known=Known(room=10**12))
    turn.remember(over(here.bobs))
    finish.finish(turn, asked, payees=(here.bob,))
    assert asked.keys == [*here.order], "once, though it is named twice"


# What is passed back


def resolved(*, is_paid: bool) -> Factory:
    """Return the factory when the first went on, and its payee answered."""
    here = crowd()
    turn = in_factory(here.factory)
    Asked(goes_on=lambda _: True)(turn, turn.link(here.carols), incoming(turn, here.order[0]))
    book = turn.book
    forward = book.forwards[here.order[0]]
    about: dict[str, Any] = {"preimage": here.preimage} if is_paid else {"failure": b"no"}
    told: Forward = changed(forward, fee_msat=7, **about)
    book = changed(
        book,
        forwards=book.forwards.set(here.order[0], told),
        resolved=book.resolved.set(here.order[0], None),
    )
    return changed(turn.state, book=book)


def incoming(turn: Turn[Factory], key: HtlcKey) -> LiveHtlc:
    live = turn.link(key[0]).incoming(key[1])
    assert live is not None
    return live


def updates(turn: Turn[Factory]) -> list[Any]:
    return [journalled_update(one.message) for one in remembered(turn, cr.UpdateProposed)]


def test_a_preimage_is_passed_back_at_once_and_its_fee_is_earned() -> None:
    here = crowd()
    turn = in_factory(resolved(is_paid=True))
    finish.finish(turn, Asked())
    assert updates(turn) == [UpdateFulfill(htlc_id=0, preimage=here.preimage)]
    (earned,) = remembered(turn, cr.FeeEarned)
    assert (earned.channel_id, earned.htlc_id, earned.fee_msat) == (here.carols, 0, 7)
    assert [one.deadline for one in wished(turn, fx.ClearDeadline)] == [
        hold_deadline(here.order[0])
    ]
    assert not turn.book.resolved
    assert len(wished(turn, fx.SignCommitment)) == 1


def test_a_failure_is_passed_back_as_the_one_that_every_payer_hears() -> None:
    turn = in_factory(resolved(is_paid=False))
    finish.finish(turn, Asked())
    assert updates(turn) == [UpdateFail(htlc_id=0, reason=NOT_DELIVERED.reason)]
    assert not remembered(turn, cr.FeeEarned)


@pytest.mark.parametrize("change", CANNOT_ANSWER)
@pytest.mark.parametrize("is_paid", [True, False])
def test_an_answer_waits_for_its_channel(change: Any, *, is_paid: bool) -> None:
    here = crowd()
    turn = in_factory(change(resolved(is_paid=is_paid), here.carols))
    finish.finish(turn, Asked())
    assert not turn.decision.records
    assert [*turn.book.resolved] == [here.order[0]]


# What is signed


def test_a_decision_signs_in_the_channels_that_it_touches_and_in_all_when_all_is_taken_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A decision about one channel costs what one channel does, however many there are."""
    here = crowd()
    looked: list[bytes] = []
    monkeypatch.setattr(finish, "sign_if_due", lambda _, link: looked.append(link.channel_id))
    turn = in_factory(resolved(is_paid=False))
    finish.finish(turn, Asked())
    assert looked == [here.carols]
    looked.clear()
    finish.finish(in_factory(here.factory), Asked(), takes_up_held=True)
    assert looked == sorted([here.alices, here.bobs, here.carols])
