"""What a client decides about an HTLC that is locked in: for which its preimage is shown."""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.decisions import STALE, UNMARKABLE, in_client, remembered, wished
from tests.protocol.paying_clients import live_factory, make_invoice, newest_link, pay
from tests.protocol.signed_closes import CLOSE_ID

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Txid
from cromford.changed import changed
from cromford.channel.messages import UpdateFail, UpdateFulfill
from cromford.crypto.keys import sha256
from cromford.protocol.channels import client as channels
from cromford.protocol.channels import payments
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import OwnInvoice, Payment
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.encoding import journalled_update
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields, encode_fields
from cromford.wire.selling import Skimmed

AMOUNT_MSAT: Final = 5_000_000
NOW: Final = Failure.TEMPORARY_CHANNEL_FAILURE
UNKNOWN: Final = Failure.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS


class Moment:
    """A client in whose channel an HTLC was locked in this moment that pays its invoice."""

    def __init__(self) -> None:
        pump = live_factory(1)
        (client,) = pump.clients
        assert pay(pump, pump.lsp, client, 30_000_000).status == "paid"
        request = make_invoice(pump, client, AMOUNT_MSAT)
        self.payment_hash = request.payment_hash
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(channels, "answer_as_payee", lambda *_, **__: None)
            pump.handle(pump.lsp, request)
            pump.run()
        self.state: ClientState = client.state
        self.link = newest_link(client)
        (live,) = self.link.state.htlcs
        self.live = live
        self.key = (self.link.channel_id, live.htlc.htlc_id)
        assert list(self.state.book.arrived) == [self.key]
        self.invoice: OwnInvoice = self.state.book.invoices[self.payment_hash]

    def with_link(self, link: Link) -> ClientState:
        """Return the client with its channel as it might be."""
        links = self.state.book.links.set(link.channel_id, link)
        return changed(self.state, book=changed(self.state.book, links=links))

    def with_payload(self, payload: bytes) -> ClientState:
        """Return the client with an HTLC that says something else of whom it is for."""
        live = changed(self.live, payload=payload)
        return self.with_link(changed(self.link, state=changed(self.link.state, htlcs=(live,))))

    def with_htlc(self, *, skimmed_msat: int | None = None, **about: Any) -> ClientState:
        """Return the client with another HTLC in the place of that one."""
        delivery = decode_fields(m.Delivery, self.live.payload)
        fields = {name: about.pop(name) for name in ("payment_secret",) if name in about}
        if skimmed_msat is not None:
            fields["skimmed"] = (Skimmed(price_msat=skimmed_msat),)
        live = changed(
            self.live,
            htlc=changed(self.live.htlc, **about),
            payload=encode_fields(replace(delivery, **fields)),
        )
        return self.with_link(changed(self.link, state=changed(self.link.state, htlcs=(live,))))

    def with_invoice(self, **about: Any) -> ClientState:
        """Return the client with its invoice as it might be."""
        invoices = self.state.book.invoices.set(self.payment_hash, changed(self.invoice, **about))
        return changed(self.state, book=changed(self.state.book, invoices=invoices))


@cache
def moment() -> Moment:
    return Moment()


def decided(state: ClientState | None = None, facts: Facts = FRESH) -> Turn[ClientState]:
    """Let the client decide about what arrived."""
    turn = in_client(state or moment().state, facts)
    channels.finish_channels(turn)
    return turn


def answers(turn: Turn[ClientState]) -> list[UpdateFail | UpdateFulfill]:
    """Return how HTLCs are answered."""
    updates = (journalled_update(one.message) for one in remembered(turn, cr.UpdateProposed))
    return [one for one in updates if isinstance(one, UpdateFail | UpdateFulfill)]


def check_given_back(turn: Turn[ClientState], failure: Failure) -> None:
    (answer,) = answers(turn)
    assert answer == UpdateFail(htlc_id=moment().key[1], reason=failure.reason)
    assert not remembered(turn, cr.InvoicePaid)
    assert moment().invoice.preimage.hex() not in repr(turn.decision.effects)


def check_taken(turn: Turn[ClientState], amount_msat: int = AMOUNT_MSAT) -> None:
    here = moment()
    assert answers(turn) == [UpdateFulfill(htlc_id=here.key[1], preimage=here.invoice.preimage)]
    (paid,) = remembered(turn, cr.InvoicePaid)
    assert (paid.payment_hash, paid.amount_msat) == (here.payment_hash, amount_msat)
    assert (paid.channel_id, paid.htlc_id) == here.key
    deadline = fx.InvoiceDeadline(payment_hash=here.payment_hash)
    assert [one.deadline for one in wished(turn, fx.ClearDeadline)] == [deadline]


@pytest.mark.parametrize("amount_msat", [AMOUNT_MSAT, AMOUNT_MSAT + 1, 2 * AMOUNT_MSAT])
def test_what_pays_an_invoice_once_to_twice_is_taken(amount_msat: int) -> None:
    check_taken(decided(moment().with_htlc(amount_msat=amount_msat)), amount_msat)


def skims(msat: int) -> Map[bytes, int]:
    return Map({moment().payment_hash: msat})


@pytest.mark.parametrize(
    ("may_skim", "skimmed", "amount_msat", "is_taken"),
    [
        (7_000, 7_000, AMOUNT_MSAT - 7_000, True),
        (7_000, 7_000, AMOUNT_MSAT - 7_001, False),
        (7_000, 7_001, AMOUNT_MSAT - 7_001, False),
        (7_000, 7_001, AMOUNT_MSAT, False),
        (7_000, None, AMOUNT_MSAT, True),
        (7_000, None, AMOUNT_MSAT - 1, False),
        (0, 1, AMOUNT_MSAT, False),
        (0, 0, AMOUNT_MSAT, True),
        (None, 1, AMOUNT_MSAT - 1, False),
    ],
)
def test_what_the_lsp_kept_counts_as_far_as_it_was_agreed_for_this_payment(
    may_skim: int | None, skimmed: int | None, amount_msat: int, *, is_taken: bool
) -> None:
    state = moment().with_htlc(skimmed_msat=skimmed, amount_msat=amount_msat)
    agreed = Map({bytes(32): 7_000}) if may_skim is None else skims(may_skim)
    turn = decided(changed(state, skims=agreed))
    if is_taken:
        check_taken(turn, amount_msat)
    else:
        check_given_back(turn, UNKNOWN)


@pytest.mark.parametrize("facts", [FRESH, STALE, UNMARKABLE])
@pytest.mark.parametrize(
    "state",
    [
        lambda: moment().with_payload(b""),
        lambda: moment().with_htlc(payment_hash=bytes(32)),
        lambda: moment().with_htlc(payment_secret=bytes(32)),
        lambda: moment().with_htlc(amount_msat=AMOUNT_MSAT - 1),
        lambda: moment().with_htlc(amount_msat=2 * AMOUNT_MSAT + 1),
        lambda: moment().with_invoice(is_expired=True),
        lambda: moment().with_invoice(is_doubtful=True),
        lambda: moment().with_invoice(paid_by=(bytes(32), 0)),
    ],
)
def test_who_probes_for_an_invoice_hears_one_answer_at_any_time(state: Any, facts: Facts) -> None:
    check_given_back(decided(state(), facts), UNKNOWN)


def too_soon() -> ClientState:
    return moment().with_htlc(cltv_expiry=moment().state.chain.height + 1)


def too_far() -> ClientState:
    return moment().with_htlc(cltv_expiry=moment().live.htlc.cltv_expiry + 100_000)


@pytest.mark.parametrize("facts", [STALE, UNMARKABLE])
def test_a_payment_waits_while_it_may_have_expired_in_a_block_that_was_not_read(
    facts: Facts,
) -> None:
    for state in (moment().state, too_far() if facts is STALE else moment().state):
        turn = decided(state, facts)
        assert not turn.decision.records
        again = in_client(turn.state)
        channels.finish_channels(again)
        assert len(answers(again)) == 1, "it is decided as soon as it may be"


@pytest.mark.parametrize("facts", [FRESH, STALE, UNMARKABLE])
def test_an_expiry_that_is_too_near_is_told_at_any_time(facts: Facts) -> None:
    check_given_back(decided(too_soon(), facts), Failure.EXPIRY_TOO_SOON)
    shallow = changed(moment().link, failure=None, closes=(close(0),))
    (live,) = too_soon().book.links[moment().key[0]].state.htlcs
    both = moment().with_link(changed(shallow, state=changed(shallow.state, htlcs=(live,))))
    check_given_back(decided(both, facts), Failure.EXPIRY_TOO_SOON)


def test_an_expiry_that_is_too_far_is_told() -> None:
    check_given_back(decided(too_far()), Failure.EXPIRY_TOO_FAR)


def close(balance_msat: int) -> SignedClose:
    outpoint = moment().link.present.outpoint
    return SignedClose(close_id=CLOSE_ID, outpoint=outpoint, balance_msat=balance_msat)


def test_no_more_is_taken_than_a_close_pays_that_was_signed() -> None:
    link = moment().link
    owed = owed_msat(link.state)
    check_taken(decided(moment().with_link(changed(link, closes=(close(owed),)))))
    beyond = moment().with_link(changed(link, closes=(close(owed - 1),)))
    check_given_back(decided(beyond), NOW)


def test_without_a_coin_for_it_an_htlc_is_given_back_while_fees_are_above_those_agreed() -> None:
    """A coin must hold what a child costs: anybody can send dust."""
    terms = moment().link.setting.terms
    assert not moment().state.wallet.free(moment().state.chain.height)
    agreed = Facts(fees=OwnFees(mempool_min_sat_per_kw=terms.feerate_per_kw))
    check_taken(decided(facts=agreed))
    dear = Facts(fees=OwnFees(mempool_min_sat_per_kw=terms.feerate_per_kw + 1))
    lacking = decided(facts=dear)
    check_given_back(lacking, NOW)
    assert not remembered(lacking, cr.HtlcRefused), "its operator sees what coins there are"


def test_too_much_without_an_output_is_given_back() -> None:
    small = moment().with_htlc(amount_msat=3_000)
    invoices = small.book.invoices.set(
        moment().payment_hash, changed(moment().invoice, amount_msat=3_000)
    )
    small = changed(small, book=changed(small.book, invoices=invoices))
    link = small.book.links[moment().key[0]]

    def limited(most_msat: int) -> ClientState:
        terms = replace(link.state.terms, max_dust_exposure_msat=most_msat)
        now = changed(link, state=changed(link.state, terms=terms))
        links = small.book.links.set(link.channel_id, now)
        return changed(small, book=changed(small.book, links=links))

    check_taken(decided(limited(3_000)), 3_000)
    check_given_back(decided(limited(2_999)), NOW)


def leaving() -> ClientState:
    state = moment().state
    attempt_id = moment().link.attempt_id
    leaving = changed(state.attempts[attempt_id], is_exiting=True)
    return changed(state, attempts={**state.attempts, attempt_id: leaving})


def test_a_channel_that_is_left_takes_nothing() -> None:
    check_given_back(decided(leaving()), NOW)


def paid_by_ourselves(out_of: bytes) -> ClientState:
    """Return the client when it pays its own invoice, to move money out of a channel."""
    here = moment()
    payment = Payment(
        payment_hash=here.payment_hash,
        payee=here.state.config.node_id,
        amount_msat=AMOUNT_MSAT,
        fee_msat=0,
        description="",
        text="",
        htlc=(out_of, 0),
        number=9,
    )
    book = changed(
        here.state.book, payments=here.state.book.payments.set(here.payment_hash, payment)
    )
    return changed(here.state, book=book)


def test_what_moves_to_another_channel_is_not_taken_where_it_came_from() -> None:
    """It would move nothing."""
    check_taken(decided(paid_by_ourselves(bytes(32))))
    check_given_back(decided(paid_by_ourselves(moment().link.channel_id)), NOW)


@pytest.mark.parametrize(("before", "is_taken"), [(1, True), (0, False)])
def test_what_moves_out_of_a_factory_that_dies_is_not_taken_in_another_that_does(
    before: int, *, is_taken: bool
) -> None:
    state = paid_by_ourselves(bytes(32))
    attempt = state.attempts[moment().link.attempt_id]
    height = attempt.lifetime.dying_height - before
    state = changed(
        state, chain=state.chain.with_block(BlockRef(height=height, block_hash=Txid(bytes(32))), ())
    )
    far = height + moment().link.max_cltv_blocks
    link = state.book.links[moment().key[0]]
    (live,) = link.state.htlcs
    late = changed(live, htlc=changed(live.htlc, cltv_expiry=far))
    links = state.book.links.set(
        link.channel_id, changed(link, state=changed(link.state, htlcs=(late,)))
    )
    turn = decided(changed(state, book=changed(state.book, links=links)))
    if is_taken:
        check_taken(turn)
    else:
        check_given_back(turn, NOW)


def test_what_is_not_covered_is_given_back_and_its_operator_reads_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(payments, "why_beyond", lambda *_: "coverage: too much")
    turn = decided()
    check_given_back(turn, NOW)
    (refused,) = remembered(turn, cr.HtlcRefused)
    assert (refused.channel_id, refused.htlc_id) == moment().key
    assert refused.reason == "coverage: too much"
    late = decided(too_soon())
    check_given_back(late, Failure.EXPIRY_TOO_SOON)
    assert not remembered(late, cr.HtlcRefused), "that was not the reason"


def test_the_preimage_is_the_one_of_the_invoice() -> None:
    assert sha256(moment().invoice.preimage) == moment().payment_hash
