"""What the payee's factory takes of an HTLC that another one asks for, and until when it waits."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from msgspec import structs
from tests.protocol.arrivals import AMOUNT_MSAT, FIRST_MSAT, HERE, decided, held, moment
from tests.protocol.decisions import (
    STALE,
    UNMARKABLE,
    Known,
    in_factory,
    remembered,
    wished,
)

from cromford import effects as fx
from cromford.changed import changed
from cromford.channel.messages import UpdateAdd
from cromford.factory.terms import SAFETY_BLOCKS
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.balances import offerable_msat
from cromford.protocol.channels.forwarding import (
    hold_deadline,
    kept_msat,
    most_kept_msat,
    room_msat,
    waiting_msat,
    withdraw_own,
    withdraw_untaken,
)
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.book import AWAY
from cromford.protocol.journal.encoding import journalled_update
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import AnyMail, ForwardAnswered, ForwardRefused, Letter
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields, encode_fields
from cromford.wire.selling import Skimmed

ASKER: Final = "factory:5"
PRICE_MSAT: Final = 250_000
ELSEWHERE: Final = bytes(32)  # The channel of a payer in another factory.
NOT_GROWN: Final = "its payee buys out of it, and its channel has not grown yet"
NO_CHANNEL: Final = "the payee has no other channel here"
OTHER_HASH: Final = b"\x77" * 32


def bobs(factory: Factory | None = None) -> Link:
    """Return the payee's channel."""
    return (factory or moment().factory).book.links[moment().payee_channel_id]


def offered(
    factory: Factory | None = None,
    facts: Facts = FRESH,
    *,
    here: bool = True,
    elsewhere: int | None = 0,
    **about: Any,
) -> tuple[Turn[Factory], m.UpdateAddHtlc | str]:
    """Let a payee's factory be asked; return what it offers, or why it does not."""
    factory = factory or moment().factory
    asked = structs.replace(moment().asked, **{"channel_id": ELSEWHERE, **about})
    known = Known(here=moment().everybody if here else frozenset(), kept=elsewhere)
    refusal = channels.obstacle(in_factory(factory, facts, known), asked)
    turn = in_factory(factory, facts, known)
    channels.on_forward_asked(turn, ASKER, asked)
    declined = remembered(turn, cr.ForwardDeclined)
    assert [one.reason for one in declined] == ([] if refusal is None else [refusal]), "as foretold"
    for one in declined:
        named = (one.asker, one.in_channel_id, one.in_htlc_id)
        assert named == (ASKER, asked.channel_id, asked.htlc_id)
        updates = (journalled_update(own.message) for own in remembered(turn, cr.UpdateProposed))
        assert not any(isinstance(update, UpdateAdd) for update in updates)
        assert not remembered(turn, cr.ForwardOffered)
        return turn, one.reason
    (signed,) = wished(turn, fx.SignCommitment)
    (update,) = signed.before
    assert isinstance(update, m.UpdateAddHtlc)
    return turn, update


def test_what_is_taken_is_offered_to_the_payee_as_it_was_asked_for() -> None:
    turn, update = offered()
    assert isinstance(update, m.UpdateAddHtlc)
    assert update.channel_id == moment().payee_channel_id
    assert update.amount_msat == AMOUNT_MSAT
    assert update.payment_hash == moment().payment_hash
    assert update.cltv_expiry == moment().asked.cltv_expiry
    assert update.delivery == decode_fields(m.Delivery, moment().asked.delivery)
    (record,) = remembered(turn, cr.ForwardOffered)
    assert (record.asker, record.in_channel_id, record.in_htlc_id) == (ASKER, ELSEWHERE, 0)
    assert (record.channel_id, record.htlc_id) == (update.channel_id, update.htlc_id)


def paid_by_itself() -> bytes:
    delivery = decode_fields(m.Delivery, moment().asked.delivery)
    return encode_fields(replace(delivery, payee=moment().alice))


def not_connected() -> Factory:
    link = bobs()
    return moment().with_link(changed(link, state=changed(link.state, is_connected=False)))


def failed() -> Factory:
    return moment().with_link(changed(bobs(), failure="over"))


def left() -> Factory:
    return changed(moment().factory, exits=frozenset({bobs().client}))


def shallow() -> Factory:
    """Return the factory after its funding left the chain."""
    factory = moment().factory
    funding = factory.attempt.funding_tx.txid
    return changed(factory, chain=factory.chain.without(10**6, [funding]))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"factory": shallow}, NO_CHANNEL),
        ({"facts": STALE}, "our chain is stale"),
        ({"facts": UNMARKABLE}, "no mark can be written here"),
        ({"here": False}, AWAY),
        ({"factory": not_connected}, AWAY),
        ({"factory": failed}, NO_CHANNEL),
        ({"factory": left}, NO_CHANNEL),
        ({"delivery": paid_by_itself, "channel_id": lambda: moment().key[0]}, NO_CHANNEL),
    ],
)
def test_why_an_htlc_is_not_taken_is_told(case: dict[str, Any], reason: str) -> None:
    told = {name: value() if callable(value) else value for name, value in case.items()}
    _, answer = offered(**told)
    assert answer == reason


def test_a_client_that_pays_itself_is_offered_it_in_another_channel_than_it_came_from() -> None:
    """Not where it came from: it would move nothing, and fill both journals."""
    _, update = offered(delivery=paid_by_itself())
    assert isinstance(update, m.UpdateAddHtlc)
    assert update.channel_id == moment().key[0]


def test_what_the_payees_channel_cannot_carry_is_told_with_its_limit() -> None:
    delivery = decode_fields(m.Delivery, moment().asked.delivery)
    huge = encode_fields(replace(delivery, amount_msat=10**12))
    _, answer = offered(delivery=huge)
    assert isinstance(answer, str)
    assert answer.startswith("the payee's channel cannot carry it: max_htlc_value_in_flight_msat")


# What is kept of a payment


def kept(client: int, payment_hash: bytes | None = None) -> Factory:
    """Return the factory when a client bought out of a payment."""
    bought_of = moment().payment_hash if payment_hash is None else payment_hash
    skims = Map({client: Map({bought_of: PRICE_MSAT})})
    return changed(moment().factory, skims=skims)


def buying(*, payment_hash: bytes, buyer: int, grown_sat: int = 0) -> Factory:
    """Return the factory while somebody buys out of a payment."""
    factory = moment().factory
    leaf = factory.attempt.leaf(bobs().client)
    present = leaf.allocation
    capacities = tuple(one + grown_sat for one in present.capacities_sat)
    advance = LspAdvance(
        advance_id=b"a" * 32,
        clients=tuple(leaf.clients),
        state_index=1,
        allocation=changed(present, capacities_sat=capacities),
        buyer=buyer,
        quote_id=b"q" * 32,
        price_msat=PRICE_MSAT,
        payment_hash=payment_hash,
    )
    return changed(factory, advances=Map({"leaf": advance}))


def skimmed(factory: Factory, *, elsewhere: int | None = 0) -> int | str:
    """Return what is kept of the payment, as its payee is told; or why it waits."""
    _, update = offered(factory, elsewhere=elsewhere)
    if isinstance(update, str):
        return update
    told = sum(one.price_msat for one in update.delivery.skimmed)
    assert update.amount_msat == AMOUNT_MSAT - told
    assert update.delivery.skimmed == ((Skimmed(price_msat=told),) if told else ())
    return told


def test_what_a_payee_bought_out_of_a_payment_is_kept_of_that_one_alone() -> None:
    bob, alice = bobs().client, moment().factory.book.links[moment().key[0]].client
    assert skimmed(kept(bob)) == PRICE_MSAT
    assert skimmed(kept(bob, OTHER_HASH)) == 0
    assert skimmed(kept(alice)) == 0, "another bought out of one with its hash"


def test_what_a_payee_bought_out_of_it_in_other_factories_is_kept_of_a_payment_too() -> None:
    bob = bobs().client
    assert skimmed(moment().factory, elsewhere=7) == 7
    assert skimmed(kept(bob), elsewhere=7) == PRICE_MSAT + 7
    assert skimmed(kept(bob), elsewhere=None) == NOT_GROWN


def test_what_a_factory_keeps_of_a_payment_is_told_to_the_others() -> None:
    here = moment()
    bob, this = bobs().client, here.payment_hash
    assert kept_msat(here.factory, here.bob, this) == 0
    assert kept_msat(kept(bob), here.bob, this) == PRICE_MSAT
    assert kept_msat(kept(bob), here.bob, OTHER_HASH) == 0
    assert kept_msat(kept(bob), here.alice, this) == 0
    assert kept_msat(buying(payment_hash=this, buyer=bob), here.bob, this) == PRICE_MSAT
    assert kept_msat(buying(payment_hash=this, buyer=bob, grown_sat=1), here.bob, this) is None


def test_a_payment_that_is_bought_out_of_waits_until_its_payees_channel_has_grown() -> None:
    bob, alice = bobs().client, moment().factory.book.links[moment().key[0]].client
    this = moment().payment_hash
    assert skimmed(buying(payment_hash=this, buyer=bob, grown_sat=1)) == NOT_GROWN
    grown = buying(payment_hash=this, buyer=bob)
    assert skimmed(grown) == PRICE_MSAT
    assert skimmed(buying(payment_hash=OTHER_HASH, buyer=bob, grown_sat=1)) == 0
    assert skimmed(buying(payment_hash=this, buyer=alice, grown_sat=1)) == 0


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({}, False),
        ({"is_asking": True}, True),
        ({"is_signed": True}, True),
        ({"session": object()}, True),  # A try of which it may know already what the others sign.
        ({"clients": (1,)}, True),  # It is of another leaf.
    ],
    ids=["no try", "asking", "signed", "a try", "another leaf"],
)
def test_it_waits_for_no_store_that_was_restored(
    changes: dict[str, Any],
    waits: bool,  # noqa: FBT001 - a table
) -> None:
    """Such a store signs no state: who is paid by that invoice would never be."""
    bob = bobs().client
    factory = buying(payment_hash=moment().payment_hash, buyer=bob, grown_sat=1)
    (advance,) = factory.advances.values()
    (neighbour,) = (client for client in advance.clients if client != bob)
    (link,) = (one for one in factory.book.links.values() if one.client == neighbour)
    links = factory.book.links.set(link.channel_id, changed(link, peer_is_behind=True))
    factory = changed(
        factory,
        book=changed(factory.book, links=links),
        advances=Map({"leaf": replace(advance, **changes)}),
    )
    assert skimmed(factory) == (NOT_GROWN if waits else 0)


# What waits for a payee


def test_what_waits_for_a_payee_is_what_it_would_be_paid() -> None:
    here, waiting = moment(), held()
    assert waiting_msat(waiting.book, here.bob, here.payment_hash) == AMOUNT_MSAT
    assert waiting_msat(waiting.book, here.bob, OTHER_HASH) == 0
    assert waiting_msat(waiting.book, here.carol, here.payment_hash) == 0
    assert waiting_msat(here.factory.book, here.bob, here.payment_hash) == 0
    turn = in_factory(waiting)
    turn.remember(cr.HoldEnded(channel_id=here.key[0], htlc_id=here.key[1]))
    assert waiting_msat(turn.book, here.bob, here.payment_hash) == 0, "it goes back"


def test_a_payee_has_room_for_what_its_channel_can_be_offered() -> None:
    here, link = moment(), bobs()
    most_msat = offerable_msat(link.state, link.me)
    assert most_msat > FIRST_MSAT
    assert room_msat(here.factory, here.bob) == most_msat
    assert room_msat(here.factory, b"\x02" * 33) == 0
    assert room_msat(not_connected(), here.bob) == 0
    poorer = changed(link, state=changed(link.state, opener_msat=link.state.opener_msat - 1))
    links = here.factory.book.links.set(b"second", poorer)
    by_node = here.factory.book.by_node.set(here.bob, (b"second", link.channel_id))
    both = changed(here.factory, book=changed(here.factory.book, links=links, by_node=by_node))
    assert offerable_msat(poorer.state, poorer.me) == most_msat - 1
    assert room_msat(both, here.bob) == most_msat, "by whichever carries more"
    terms = replace(link.state.terms, max_in_flight_msat=1, htlc_minimum_msat=2)
    full = here.with_link(changed(link, state=changed(link.state, terms=terms)))
    assert offerable_msat(bobs(full).state, link.me) == 0
    assert room_msat(full, here.bob) == 0


def test_what_is_kept_of_one_payment_is_at_most_the_largest_of_all_that_its_payee_owes() -> None:
    here, bob = moment(), bobs().client
    dues = {bob: Map({OTHER_HASH: 5_000, bytes(32): 7_000}), bob + 1: Map({OTHER_HASH: 9_000})}
    bought = changed(here.factory, skims=Map(dues))
    assert most_kept_msat(bought, here.bob) == 7_000
    assert most_kept_msat(here.factory, here.bob) == 0
    assert most_kept_msat(bought, b"\x02" * 33) == 0


# Until when it waits


def forwarded(to: str = HERE, *, announced: int = 0) -> Factory:
    """Return the factory after it asked for the HTLC to go on."""
    known = Known(streams=(to,), announced={moment().payment_hash: announced})
    return decided(known=known).state


def paid_on() -> Factory:
    """Return the factory when its payee showed the preimage, and the payer does not know yet."""
    factory = forwarded()
    forward = changed(factory.book.forwards[moment().key], preimage=bytes(32))
    forwards = factory.book.forwards.set(moment().key, forward)
    return changed(factory, book=changed(factory.book, forwards=forwards))


def ended(factory: Factory) -> Factory:
    turn = in_factory(factory)
    turn.remember(cr.HoldEnded(channel_id=moment().key[0], htlc_id=moment().key[1]))
    return turn.state


@pytest.mark.parametrize(
    ("factory", "is_told"),
    [
        (held, True),
        (forwarded, True),
        (paid_on, False),
        (lambda: ended(held()), False),
        (lambda: ended(forwarded()), False),
        (lambda: moment().factory, False),
    ],
)
def test_the_end_of_a_hold_is_remembered_once_and_only_for_what_is_not_decided(
    factory: Any, *, is_told: bool
) -> None:
    turn = in_factory(factory(), STALE)
    channels.on_hold_ended(turn, hold_deadline(moment().key))
    assert len(remembered(turn, cr.HoldEnded)) == is_told


@pytest.mark.parametrize("seconds", [0, 29, 31, 7_200])
@pytest.mark.parametrize("factory", ["held", "forwarded"])
def test_after_a_restart_everything_waits_as_long_as_was_agreed(factory: str, seconds: int) -> None:
    announced = {moment().payment_hash: seconds}
    state = held(Known(announced=announced)) if factory == "held" else forwarded(announced=seconds)
    (hold,) = channels.owed(state)
    assert (hold.deadline, hold.seconds) == (hold_deadline(moment().key), max(30, seconds))
    assert channels.owed(ended(state)) == ()
    assert channels.owed(moment().factory) == ()


def test_no_hold_lasts_until_its_payer_would_have_to_leave() -> None:
    """Blocks may come quickly, and a hold begins anew with each start."""
    expiry = moment().live.htlc.cltv_expiry
    for factory in (held(), forwarded(ASKER)):
        link = factory.book.links[moment().key[0]]
        blocks = link.remaining(factory.chain).exit_blocks + CLAIM_BLOCKS + SAFETY_BLOCKS
        last = expiry - blocks
        for height, is_told in ((last, False), (last + 1, True)):
            turn = in_factory(factory, replace(STALE, header_height=height))
            channels.on_block(turn)
            assert len(remembered(turn, cr.HoldEnded)) == is_told


def test_what_nobody_took_is_withdrawn_once_its_hold_is_over_and_not_before() -> None:
    for factory, is_withdrawn in ((forwarded(ASKER), False), (ended(forwarded(ASKER)), True)):
        turn = in_factory(factory)
        withdraw_untaken(turn)
        assert len(turn.decision.records) == len(remembered(turn, cr.ForwardWithdrawn))
        assert len(turn.decision.records) == is_withdrawn


def test_a_factory_takes_back_what_it_asked_itself_for_and_nothing_else() -> None:
    key = moment().key
    asking = forwarded()
    turn = in_factory(asking)
    withdraw_own(turn)
    assert len(remembered(turn, cr.HoldEnded)) == 1
    assert len(remembered(turn, cr.ForwardWithdrawn)) == 1
    turn = in_factory(forwarded(ASKER))
    withdraw_own(turn)
    assert not turn.decision.records, "another may take it still"
    others: list[AnyMail] = [
        ForwardRefused(channel_id=key[0], htlc_id=key[1], reason="no room"),
        ForwardAnswered(channel_id=key[0], htlc_id=key[1], out_channel_id=key[0]),
    ]
    waiting = held()
    post = waiting.post.with_sent([Letter(HERE, one) for one in others])
    turn = in_factory(changed(waiting, post=post))
    withdraw_own(turn)
    assert not turn.decision.records, "a word to itself is no reason to end a hold"
