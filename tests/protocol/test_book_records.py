"""What records make of payments: invoices, our HTLCs, and those that go on, are held, or ended."""

from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

import pytest
from immutables import Map
from tests.protocol.paying_clients import begin_payment, live_factory, lsp_link, newest_link, pay

from cromford.changed import changed
from cromford.channel.stage import HtlcStage
from cromford.channel.terms import Party
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import (
    AWAY,
    Book,
    Errand,
    Forward,
    Held,
    HtlcKey,
    OwnInvoice,
    Payment,
)
from cromford.protocol.journal.book_fold import (
    FORWARDS_KEPT_MAX,
    apply_to_book,
    with_answered_forward,
    with_refused_forward,
)
from cromford.protocol.journal.mail import (
    AnnouncedPaid,
    ForwardAnswered,
    ForwardAsked,
    ForwardRefused,
    PayAnswered,
)
from cromford.protocol.journal.numbers import ListPlace
from cromford.protocol.journal.streams import HOUSE

V = TypeVar("V")
MONEY_MSAT: Final = 30_000_000
PAID_MSAT: Final = 5_000_000
OUT: Final[HtlcKey] = (b"out", 9)
ERRAND: Final = Errand(asker="factory:7", incoming=(b"in", 3))


@cache
def held_for_away() -> tuple[Book, Book, HtlcKey]:
    """Return the book of a payer, that of the LSP in which its HTLC waits, and its name there."""
    pump = live_factory(2)
    payer, payee = pump.clients
    assert pay(pump, pump.lsp, payer, MONEY_MSAT).status == "paid"
    pump.disconnect(payee)
    begin_payment(pump, payer, payee, PAID_MSAT)
    book = pump.factory.book
    (key,) = book.held
    assert lsp_link(pump, newest_link(payer)).channel_id == key[0]
    return payer.state.book, book, key


def keyed(of: dict[HtlcKey, V]) -> Map[HtlcKey, V]:
    found: Map[HtlcKey, V] = Map(of)
    return found


def theirs() -> tuple[Book, HtlcKey]:
    _, book, key = held_for_away()
    return book, key


def forwarded(book: Book, key: HtlcKey, **changes: Any) -> Book:
    known: dict[str, Any] = {"to": "factory:2", "fee_msat": 7, "cltv_expiry": 500, "seconds": 60}
    record = cr.HtlcForwarded(channel_id=key[0], htlc_id=key[1], **(known | changes))
    return without_letters(apply_to_book(book, record, at=90))


def without_letters(book: Book) -> Book:
    return changed(book, letters=())


def told(book: Book) -> list[tuple[str, Any]]:
    return [(letter.receiver, letter.mail) for letter in book.letters]


def hold_ended(book: Book, key: HtlcKey) -> Book:
    return apply_to_book(book, cr.HoldEnded(channel_id=key[0], htlc_id=key[1]))


def answer(key: HtlcKey, **how: Any) -> ForwardAnswered:
    return ForwardAnswered(channel_id=key[0], htlc_id=key[1], out_channel_id=b"out", **how)


def refusal(key: HtlcKey) -> ForwardRefused:
    return ForwardRefused(channel_id=key[0], htlc_id=key[1], reason="not now")


# What goes on


def test_what_is_held_goes_on_as_old_as_it_is_and_nobody_else_waits_for_it() -> None:
    book, key = theirs()
    held = changed(book.held[key], created_at=40)
    other = (b"other", 1)
    book = changed(
        book,
        held=Map({key: held, other: held}),
        held_for=Map({held.payee: (other, key)}),
    )
    record = cr.HtlcForwarded(
        channel_id=key[0], htlc_id=key[1], to="factory:2", fee_msat=7, cltv_expiry=500, seconds=60
    )
    after = apply_to_book(book, record, at=90)
    forward = after.forwards[key]
    assert (forward.to, forward.payee, forward.fee_msat) == ("factory:2", held.payee, 7)
    live = book.links[key[0]].incoming(key[1])
    assert live is not None
    assert forward.amount_msat == live.htlc.amount_msat - 7
    assert (forward.created_at, forward.hold_seconds, forward.status) == (40, 60, "pending")
    assert forward.announced_by == held.payee
    assert replace(forward, hold_seconds=0).announced_by == b""
    ((receiver, asked),) = told(after)
    assert receiver == "factory:2"
    assert asked == ForwardAsked(
        channel_id=key[0],
        htlc_id=key[1],
        payment_hash=live.htlc.payment_hash,
        cltv_expiry=500,
        delivery=live.payload,
    )
    assert (after.held, after.held_for) == (keyed({other: held}), Map({held.payee: (other,)}))
    assert book.is_awaited(key)
    assert not book.is_awaited(OUT)
    alone = forwarded(theirs()[0], key)
    assert (alone.held, alone.held_for) == (Map(), Map())
    assert alone.is_awaited(key)
    at_once = changed(book, held=Map(), held_for=Map(), arrived=keyed({key: None}))
    assert at_once.is_awaited(key)
    new = forwarded(at_once, key)
    assert (new.forwards[key].created_at, new.arrived) == (90, Map())


def test_what_the_payees_factory_did_not_take_waits_again_with_its_age() -> None:
    book, key = theirs()
    going = forwarded(changed(book, held=Map({key: changed(book.held[key], created_at=40)})), key)
    back = with_refused_forward(going, refusal(key))
    assert back.held[key] == Held(
        payee=book.held[key].payee, reason="not now", seconds=60, created_at=40
    )
    assert back.held_for == Map({book.held[key].payee: (key,)})
    assert (back.forwards, back.resolved) == (Map(), Map())
    over = with_refused_forward(hold_ended(going, key), refusal(key))
    assert over.resolved == keyed({key: None}), "its hold is over, so it is given back"
    assert with_refused_forward(book, refusal(OUT)) is book


def test_a_failure_is_told_its_payer_once_the_hold_is_over_and_a_preimage_at_once() -> None:
    book, key = theirs()
    going = forwarded(book, key)
    failed = with_answered_forward(going, answer(key, failure=b"f"))
    assert (failed.forwards[key].status, failed.resolved) == ("failed", Map())
    assert failed.forwards[key].out_channel_id == b"out"
    assert hold_ended(failed, key).resolved == keyed({key: None})
    assert hold_ended(going, key).resolved == Map()
    late = with_answered_forward(hold_ended(going, key), answer(key, failure=b"f"))
    assert late.resolved == keyed({key: None})
    paid = with_answered_forward(going, answer(key, preimage=b"p"))
    assert (paid.forwards[key].status, paid.resolved) == ("paid", keyed({key: None}))
    assert with_answered_forward(paid, answer(key, failure=b"f")) is paid
    assert with_answered_forward(book, answer(OUT, preimage=b"p")) is book
    assert hold_ended(book, key).resolved == keyed({key: None}), "what is held is given back"
    assert hold_ended(changed(book, held=Map()), key).resolved == Map()


def test_what_was_withdrawn_is_given_back_and_what_is_over_cannot_be() -> None:
    book, key = theirs()
    record = cr.ForwardWithdrawn(channel_id=key[0], htlc_id=key[1])
    after = apply_to_book(forwarded(book, key), record)
    assert (after.forwards[key].status, after.resolved) == ("failed", keyed({key: None}))
    assert apply_to_book(book, record) is book


def test_only_what_is_locked_in_is_held_or_goes_on() -> None:
    book, key = theirs()
    gone = (key[0], key[1] + 50)
    with pytest.raises(AssertionError, match="is held that is not locked in"):
        apply_to_book(book, cr.HtlcHeld(channel_id=gone[0], htlc_id=gone[1], reason=""))
    link = book.links[key[0]]
    (live,) = link.state.htlcs
    unread = changed(link, state=changed(link.state, htlcs=(changed(live, payload=b""),)))
    for unknown, name in ((book, gone), (changed(book, links=Map({key[0]: unread})), key)):
        with pytest.raises(AssertionError, match="was forwarded that is not locked in"):
            forwarded(unknown, name)


# What came to its end


def ended(book: Book, key: HtlcKey, reason: str = "over", at: int = 0) -> Book:
    record = cr.IncomingEnded(channel_id=key[0], htlc_id=key[1], reason=reason, paid_msat=0)
    return apply_to_book(book, record, at)


def earned(book: Book, key: HtlcKey, at: int = 0, announced_by: bytes = b"") -> Book:
    record = cr.FeeEarned(
        channel_id=key[0],
        htlc_id=key[1],
        payment_hash=b"h",
        fee_msat=7,
        announced_by=announced_by,
    )
    return apply_to_book(book, record, at)


def test_a_fee_is_earned_once_what_was_forwarded_is_paid_and_an_announced_one_is_told() -> None:
    book, key = theirs()
    paid = with_answered_forward(forwarded(book, key), answer(key, preimage=b"p"))
    after = earned(paid, key, at=99)
    assert (after.earned_msat, after.n_finished) == (book.earned_msat + 7, book.n_finished + 1)
    (forward,) = after.finished.values()
    assert (forward.status, forward.settled_at) == ("paid", 99)
    assert (after.forwards, after.resolved, after.released) == (Map(), Map(), Map())
    assert told(after) == []
    announced = earned(paid, key, announced_by=b"payee")
    assert told(announced) == [(HOUSE, AnnouncedPaid(node_id=b"payee", payment_hash=b"h"))]


def test_what_a_payer_was_told_and_kept_from_us_is_not_earned() -> None:
    book, key = theirs()
    paid = with_answered_forward(forwarded(book, key), answer(key, preimage=b"p"))
    after = earned(paid, key)
    assert after.place_of_paid(key) == book.n_finished
    lost = ended(after, key)
    assert (lost.earned_msat, lost.n_finished) == (book.earned_msat, after.n_finished)
    (forward,) = lost.finished.values()
    assert (forward.status, forward.ended) == ("unsettled", "over")
    assert lost.place_of_paid(key) is None
    assert ended(lost, key).earned_msat == lost.earned_msat, "it is taken back once"
    assert after.place_of_paid(OUT) is None
    failed = with_answered_forward(forwarded(book, key), answer(key, failure=b"f"))
    over = ended(failed, key, at=5)
    (forward,) = over.finished.values()
    assert (forward.status, forward.ended, forward.settled_at) == ("failed", "over", 5)
    assert over.place_of_paid(key) is None


def test_what_ends_with_its_channel_waits_no_more() -> None:
    book, key = theirs()
    over = ended(hold_ended(book, key), key)
    assert (over.held, over.held_for, over.resolved, over.released) == (Map(), Map(), Map(), Map())
    assert not over.is_awaited(key)
    arrived = changed(book, held=Map(), held_for=Map(), arrived=keyed({key: None}))
    assert ended(arrived, key).arrived == Map()
    assert ended(book, OUT) is book
    only = keyed({key: None})
    for waiting in (changed(arrived, released=only), changed(arrived, resolved=only)):
        over = ended(waiting, key)
        assert (over.arrived, over.resolved, over.released) == (Map(), Map(), Map())
    unsettled = ended(with_answered_forward(forwarded(book, key), answer(key, preimage=b"p")), key)
    (forward,) = unsettled.finished.values()
    assert forward.status == "unsettled"
    assert unsettled.earned_msat == book.earned_msat


def test_the_newest_forwards_are_listed_and_all_are_counted() -> None:
    book, key = theirs()
    going = forwarded(book, key)
    one = going.forwards[key]
    full = changed(
        going,
        finished=Map(dict.fromkeys(range(5, FORWARDS_KEPT_MAX + 5), one)),
        n_finished=FORWARDS_KEPT_MAX + 5,
    )
    after = ended(full, key)
    assert after.n_finished == FORWARDS_KEPT_MAX + 6
    assert (min(after.finished), max(after.finished)) == (6, FORWARDS_KEPT_MAX + 5)
    assert len(after.finished) == FORWARDS_KEPT_MAX


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_paid_forward_is_found_wherever_it_is_among_the_newest(place: int) -> None:
    one = Forward(
        payment_hash=b"h",
        incoming=(b"c", 0),
        to=HOUSE,
        payee=b"",
        amount_msat=1,
        fee_msat=1,
        preimage=b"p",
    )
    finished = {n + 10: changed(one, incoming=(b"c", n)) for n in range(4)}
    book = Book(finished=Map(finished), n_finished=14)
    assert book.place_of_paid((b"c", place)) == place + 10
    assert book.place_of_paid((b"c", 4)) is None


# Our HTLCs


def with_errand(errand: Errand = ERRAND) -> Book:
    return Book(owners=Map({OUT: errand}))


def decided(book: Book, preimage: bytes | None, at: int = 0) -> Book:
    record = cr.HtlcDecided(channel_id=OUT[0], htlc_id=OUT[1], preimage=preimage)
    return apply_to_book(book, record, at)


def test_what_became_of_an_htlc_for_another_factory_is_told_it_once() -> None:
    book = with_errand()
    assert book.is_unpaid(OUT)
    paid = decided(book, b"p")
    ((receiver, said),) = told(paid)
    assert receiver == "factory:7"
    assert said == ForwardAnswered(
        channel_id=b"in", htlc_id=3, out_channel_id=b"out", preimage=b"p"
    )
    assert paid.owners == Map()
    assert not paid.is_unpaid(OUT)
    ((_, said),) = told(decided(book, None))
    assert (said.preimage, said.failure is not None) == (None, True)
    known = with_errand(replace(ERRAND, preimage=b"p"))
    assert not known.is_unpaid(OUT)
    for preimage in (b"p", None):
        assert told(decided(known, preimage)) == [], "it was told"
        assert decided(known, preimage).owners == Map()


def with_payment(**changes: Any) -> Book:
    payment = Payment(
        payment_hash=b"h",
        payee=b"payee",
        amount_msat=5,
        fee_msat=1,
        description="",
        text="",
        htlc=OUT,
        number=1,
    )
    payment = changed(payment, **changes)
    return Book(owners=Map({OUT: b"h"}), payments=Map({b"h": payment}))


def test_a_payment_is_paid_or_failed_by_what_is_known_first() -> None:
    book = with_payment()
    assert book.is_unpaid(OUT)
    paid = decided(book, b"p", at=9)
    one = paid.payments[b"h"]
    assert (one.status, one.preimage, one.settled_at) == ("paid", b"p", 9)
    failed = decided(book, None, at=9).payments[b"h"]
    assert (failed.status, failed.settled_at) == ("failed", 9)
    known = with_payment(preimage=b"p", settled_at=4)
    for preimage in (b"q", None):
        assert decided(known, preimage, at=9).payments == known.payments, "it stays paid"
    assert told(paid) == []
    asked = with_payment(asker=HOUSE)
    assert told(decided(asked, b"p")) == [
        (HOUSE, PayAnswered(payment_hash=b"h", preimage=b"p", failure=None))
    ]
    ((_, answered),) = told(decided(asked, None))
    assert (answered.preimage, answered.failure is not None) == (None, True)


def test_of_an_htlc_that_ended_with_its_channel_nothing_tells_whether_it_was_paid() -> None:
    record = cr.OutgoingEnded(channel_id=OUT[0], htlc_id=OUT[1], reason="gone")
    after = apply_to_book(with_payment(), record, 9)
    one = after.payments[b"h"]
    assert (one.status, one.ended, one.settled_at, after.owners) == ("unknown", "gone", 9, Map())
    assert replace(one, preimage=b"p").status == "paid"
    assert replace(one, failure=b"f").status == "failed"
    for known in ({"preimage": b"p"}, {"failure": b"f"}):
        book = with_payment(**known)
        assert apply_to_book(book, record, 9).payments == book.payments
    errand = apply_to_book(with_errand(), record, 9)
    assert (errand.owners, errand.letters) == (Map(), ())
    assert apply_to_book(Book(), record, 9) == Book()


def test_our_undecided_htlcs_are_those_that_are_for_something() -> None:
    book, _, _ = held_for_away()
    (link,) = book.links.values()
    (htlc,) = book.undecided(link)
    assert htlc.offered_by is link.me
    key = (link.channel_id, htlc.htlc_id)
    assert [*changed(book, owners=book.owners.delete(key)).undecided(link)] == []
    lsp, incoming = theirs()
    mirrored = changed(lsp, owners=lsp.owners.set(incoming, b"h"))
    assert [*mirrored.undecided(lsp.links[incoming[0]])] == [], "those that a peer offered"


def test_what_never_left_failed_with_its_payment_and_what_was_decided_stays_so() -> None:
    book, _, _ = held_for_away()
    (link,) = book.links.values()
    (sent,) = link.state.htlcs
    unsent = changed(sent, stage=HtlcStage.ADD_PROPOSED)
    link = changed(link, state=changed(link.state, htlcs=(unsent,)))
    book = changed(book, links=Map({link.channel_id: link}))
    key = (link.channel_id, sent.htlc.htlc_id)
    payment_hash = sent.htlc.payment_hash

    def taken_back(htlc_id: int, before: Book = book) -> Book:
        record = cr.AddsTakenBack(channel_id=link.channel_id, htlc_id=htlc_id)
        return apply_to_book(before, record, 8)

    after = taken_back(sent.htlc.htlc_id)
    payment = after.payments[payment_hash]
    assert (payment.status, payment.settled_at, after.owners) == ("failed", 8, Map())
    assert after.links[link.channel_id].state.htlcs == ()
    decided_before = changed(book, owners=book.owners.delete(key))
    assert taken_back(sent.htlc.htlc_id, decided_before).payments == book.payments
    later = changed(unsent, htlc=replace(sent.htlc, htlc_id=sent.htlc.htlc_id + 1))
    two = changed(link, state=changed(link.state, htlcs=(unsent, later)))
    owners = book.owners.set((link.channel_id, later.htlc.htlc_id), ERRAND)
    both = changed(book, links=Map({link.channel_id: two}), owners=owners)
    left = taken_back(later.htlc.htlc_id, both)
    assert left.payments[payment_hash].status == "pending", "it stays, and may leave yet"
    assert left.owners == book.owners
    ((receiver, answer),) = told(left)
    assert receiver == ERRAND.asker
    assert isinstance(answer, ForwardAnswered)
    again = cr.AddsTakenBack(
        channel_id=link.channel_id, htlc_id=sent.htlc.htlc_id, waits_again=True
    )
    waits = apply_to_book(both, again, 8)
    assert waits.payments[payment_hash].status == "failed", "ours is not asked for again"
    channel_id, htlc_id = ERRAND.incoming
    refused = ForwardRefused(channel_id=channel_id, htlc_id=htlc_id, reason=AWAY)
    assert told(waits) == [(ERRAND.asker, refused)]
    assert waits.owners == Map()


def test_an_htlc_of_the_peers_that_is_gone_ends_nothing_of_ours_that_has_its_number() -> None:
    pump = live_factory(2)
    payer, payee = pump.clients
    assert pay(pump, pump.lsp, payer, MONEY_MSAT).status == "paid"
    pump.disconnect(payee)
    for _ in range(2):
        begin_payment(pump, payer, payee, PAID_MSAT)
    channel_id = newest_link(payer).channel_id
    assert pay(pump, pump.lsp, payer, 1_000_000).status == "paid"
    assert newest_link(payer).state.next_id(Party.OPENER) == 2, "both sides have had 0 and 1"
    assert set(payer.state.book.owners) == {(channel_id, 0), (channel_id, 1)}
    pump.connect(payee)
    pump.run()
    pump.pass_holds()
    assert not payer.state.book.owners
    assert [one.status for one in payer.state.book.payments.values()] == ["paid"] * 2


# Invoices and payments by number


def issued(payment_hash: bytes, external_id: str = "") -> cr.InvoiceIssued:
    return cr.InvoiceIssued(
        payment_hash=payment_hash,
        preimage=b"p",
        payment_secret=b"s",
        amount_msat=5,
        description="",
        expires_at=100,
        text="invoice",
        external_id=external_id,
    )


def started(payment_hash: bytes) -> cr.PaymentStarted:
    return cr.PaymentStarted(
        payment_hash=payment_hash,
        payee=b"payee",
        amount_msat=5,
        fee_msat=1,
        description="",
        channel_id=b"c",
        htlc_id=1,
        text="",
        asker="",
    )


def test_invoices_and_payments_are_numbered_together_and_a_new_try_counts_anew() -> None:
    book = Book()
    for record in (issued(b"a"), started(b"b"), started(b"b"), issued(b"a"), issued(b"c", "order")):
        book = apply_to_book(book, record, 50)
    assert book.n_begun == 5
    assert (book.payments[b"b"].number, book.invoices[b"a"].number) == (3, 4)
    assert book.payments[b"b"].created_at == 50
    everything = ListPlace(top=book.n_begun, below=book.n_begun + 1)
    met = [(n, payment_hash, is_met) for n, payment_hash, is_met in book.numbers.walk(everything)]
    assert met == [
        (5, b"c", True),
        (4, b"a", True),
        (3, b"b", True),
        (2, b"b", False),
        (1, b"a", False),
    ]
    assert book.numbers.again == Map({1: 4, 2: 3})
    older = changed(book.numbers, hashes=book.numbers.hashes.delete(4).delete(1))
    assert [n for n, _, _ in older.walk(everything)] == [5, 3, 2], "those that are known"
    assert book.external_ids == Map({"order": b"c"})
    assert book.owners[b"c", 1] == b"b"


def test_an_invoice_is_open_until_it_is_paid_expired_or_in_doubt() -> None:
    book = apply_to_book(Book(), issued(b"a"), 50)
    one = book.invoices[b"a"]
    assert (one.status, one.created_at, one.is_own_move) == ("open", 50, False)
    assert replace(one, text="").is_own_move
    expired = apply_to_book(book, cr.InvoiceExpired(payment_hash=b"a"), 60).invoices[b"a"]
    assert (expired.status, expired.settled_at) == ("expired", 60)
    assert replace(one, is_doubtful=True).status == "expired"
    record = cr.InvoicePaid(payment_hash=b"a", channel_id=b"c", htlc_id=2, amount_msat=6)
    paid: OwnInvoice = apply_to_book(book, record, 70).invoices[b"a"]
    assert (paid.status, paid.paid_by, paid.paid_msat) == ("paid", (b"c", 2), 6)
    assert paid.settled_at == 70
    assert replace(paid, is_doubtful=True).status == "paid"
    agreed = apply_to_book(book, cr.HoldAgreed(payment_hash=b"a", hold_seconds=9)).invoices[b"a"]
    assert (one.agreed_seconds, agreed.agreed_seconds) == (None, 9)


def test_a_role_lists_its_channels_in_the_order_of_their_names() -> None:
    book, _, _ = held_for_away()
    (link,) = book.links.values()
    links = {name: changed(link, channel_id=name) for name in (b"b", b"c", b"a")}
    assert [one.channel_id for one in changed(book, links=Map(links)).ordered_links] == [
        b"a",
        b"b",
        b"c",
    ]
