"""What the LSP decides about an HTLC of a client that is locked in, and what it tells of it."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.arrivals import (
    AMOUNT_MSAT,
    FEE_MSAT,
    HERE,
    decided,
    failures,
    held,
    moment,
)
from tests.protocol.decisions import (
    STALE,
    UNMARKABLE,
    Known,
    in_factory,
    remembered,
    wished,
)
from tests.protocol.signed_closes import CLOSE_ID

from cromford import effects as fx
from cromford.changed import changed
from cromford.protocol.channels import forwarding
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.channels.finish import NOT_DELIVERED
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.mail import ForwardRefused
from cromford.protocol.turn import Turn
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields, encode_fields

HOLD_SECONDS: Final = 30
OLD: Final = "factory:7"
NEW: Final = "factory:8"


def of_the_payment(turn: Turn[Factory]) -> list[object]:
    """Return what is remembered of an HTLC, beside the channels' own records."""
    kinds = (cr.HtlcHeld, cr.HtlcForwarded, cr.HoldEnded, cr.ForwardWithdrawn, cr.FeeEarned)
    return [one for one in turn.decision.records if isinstance(one, kinds)]


def hold_deadline() -> fx.HoldDeadline:
    return forwarding.hold_deadline(moment().key)


# A new HTLC


def test_an_htlc_goes_on_to_the_newest_factory_that_takes_it() -> None:
    here = moment()
    known = Known(streams=(OLD, HERE, NEW), obstacles={NEW: "no room"})
    turn = decided(known=known)
    (record,) = remembered(turn, cr.HtlcForwarded)
    assert (record.to, record.fee_msat, record.seconds) == (HERE, FEE_MSAT, 0)
    assert record.cltv_expiry < here.live.htlc.cltv_expiry
    assert of_the_payment(turn) == [record]
    assert [stream for stream, _ in known.asked] == [NEW, HERE], "none is asked after it"
    for _, question in known.asked:
        assert question == {
            "channel_id": here.key[0],
            "payment_hash": here.payment_hash,
            "cltv_expiry": record.cltv_expiry,
            "delivery": here.live.payload,
        }
    assert not failures(turn)


@pytest.mark.parametrize(
    ("obstacles", "reason"),
    [({}, "the payee has no other channel here"), ({OLD: "a", NEW: "b"}, "a")],
)
def test_an_htlc_that_nobody_takes_waits(obstacles: dict[str, str], reason: str) -> None:
    turn = decided(known=Known(streams=tuple(obstacles), obstacles=obstacles))
    (record,) = of_the_payment(turn)
    assert isinstance(record, cr.HtlcHeld)
    assert (record.reason, record.seconds) == (reason, 0)
    assert not failures(turn)
    (hold,) = wished(turn, fx.SetDeadline)
    assert (hold.deadline, hold.seconds) == (hold_deadline(), HOLD_SECONDS)


@pytest.mark.parametrize(("announced", "seconds"), [(0, 30), (29, 30), (31, 31), (7_200, 7_200)])
@pytest.mark.parametrize("goes_on", [False, True])
def test_an_announced_payment_is_held_for_as_long_as_was_agreed(
    *, announced: int, seconds: int, goes_on: bool
) -> None:
    known = Known(streams=(NEW,) if goes_on else (), announced={moment().payment_hash: announced})
    turn = decided(known=known)
    (hold,) = wished(turn, fx.SetDeadline)
    assert (hold.deadline, hold.seconds) == (hold_deadline(), seconds)
    (record,) = of_the_payment(turn)
    assert isinstance(record, cr.HtlcForwarded if goes_on else cr.HtlcHeld)
    assert record.seconds == announced, "as a restart needs it"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [(STALE, "our chain is stale"), (UNMARKABLE, "no mark can be written here")],
)
def test_nothing_goes_on_while_no_risk_may_be_taken(facts: Facts, reason: str) -> None:
    known = Known(streams=(NEW,))
    turn = decided(facts=facts, known=known)
    (record,) = of_the_payment(turn)
    assert isinstance(record, cr.HtlcHeld)
    assert record.reason == reason
    assert not known.asked
    again = in_factory(turn.state, known=known)
    channels.finish_channels(again, takes_up_held=True)
    assert len(remembered(again, cr.HtlcForwarded)) == 1, "and goes on once it may"


# What is wrong whoever the payee is


def too_soon() -> Factory:
    return moment().with_htlc(cltv_expiry=moment().factory.chain.height + 1)


def too_far() -> Factory:
    return moment().with_htlc(cltv_expiry=moment().live.htlc.cltv_expiry + 100_000)


def too_cheap() -> Factory:
    return moment().with_htlc(amount_msat=AMOUNT_MSAT + FEE_MSAT - 1)


def for_nobody() -> Factory:
    return moment().with_htlc(payload=b"")


@pytest.mark.parametrize(
    ("factory", "failure"),
    [
        (too_soon, Failure.EXPIRY_TOO_SOON),
        (too_far, Failure.EXPIRY_TOO_FAR),
        (too_cheap, Failure.FEE_INSUFFICIENT),
        (for_nobody, Failure.INVALID_ONION_PAYLOAD),
    ],
)
def test_what_is_the_payers_own_affair_is_told_at_once(factory: Any, failure: Failure) -> None:
    turn = decided(factory(), known=Known(streams=(NEW,)))
    assert failures(turn) == [failure.reason]
    assert not of_the_payment(turn)
    assert not wished(turn, fx.SetDeadline)


def of_a_channel_that_is_left() -> tuple[Factory, Facts]:
    here = moment()
    client = here.factory.book.links[here.key[0]].client
    return changed(here.factory, exits=frozenset({client})), FRESH


def of_a_channel_with_too_much_without_an_output() -> tuple[Factory, Facts]:
    factory = small()
    link = factory.book.links[moment().key[0]]
    terms = replace(link.state.terms, max_dust_exposure_msat=link.state.htlcs[0].htlc.amount_msat)
    assert not failures(decided(with_terms(factory, terms), known=Known(streams=(NEW,))))
    less = replace(terms, max_dust_exposure_msat=terms.max_dust_exposure_msat - 1)
    return with_terms(factory, less), FRESH


def small() -> Factory:
    delivery = decode_fields(m.Delivery, moment().live.payload)
    payload = encode_fields(replace(delivery, amount_msat=1_000))
    return moment().with_htlc(payload=payload, amount_msat=3_000)


def with_terms(factory: Factory, terms: Any) -> Factory:
    link = factory.book.links[moment().key[0]]
    return moment().with_link(changed(link, state=changed(link.state, terms=terms)))


def without_a_coin_for_it() -> tuple[Factory, Facts]:
    terms = moment().factory.book.links[moment().key[0]].setting.terms
    dear = Facts(fees=OwnFees(mempool_min_sat_per_kw=terms.feerate_per_kw + 1))
    rich = Known(streams=(NEW,), coins=1)
    assert not failures(decided(facts=dear, known=rich))
    return moment().factory, dear


def of_a_channel_that_owes_more_than_its_close() -> tuple[Factory, Facts]:
    here = moment()
    link = here.factory.book.links[here.key[0]]

    def closed_at(balance_msat: int) -> Factory:
        close = SignedClose(
            close_id=CLOSE_ID, outpoint=link.present.outpoint, balance_msat=balance_msat
        )
        return here.with_link(changed(link, closes=(close,)))

    owed = owed_msat(link.state)
    assert not failures(decided(closed_at(owed), known=Known(streams=(NEW,))))
    return closed_at(owed - 1), FRESH


@pytest.mark.parametrize(
    "case",
    [
        of_a_channel_that_is_left,
        of_a_channel_with_too_much_without_an_output,
        without_a_coin_for_it,
        of_a_channel_that_owes_more_than_its_close,
    ],
)
def test_an_htlc_is_given_back_at_once(case: Any) -> None:
    factory, facts = case()
    turn = decided(factory, facts, Known(streams=(NEW,)))
    assert failures(turn) == [Failure.TEMPORARY_CHANNEL_FAILURE.reason]
    assert not of_the_payment(turn)


def test_an_expiry_that_an_old_height_makes_too_far_waits_for_the_blocks() -> None:
    turn = decided(too_far(), STALE, Known(streams=(NEW,)))
    assert not failures(turn)
    (record,) = of_the_payment(turn)
    assert isinstance(record, cr.HtlcHeld)


def test_an_htlc_that_waits_is_given_back_for_nothing_before_its_hold_ends() -> None:
    """Else a payer would learn how soon its payee failed."""
    factory = held()
    client = factory.book.links[moment().key[0]].client
    left = changed(factory, exits=frozenset({client}))
    turn = in_factory(left, known=Known(streams=(NEW,)))
    channels.finish_channels(turn, takes_up_held=True)
    assert not failures(turn)
    assert not of_the_payment(turn)
    channels.on_hold_ended(turn, hold_deadline())
    assert failures(turn) == [NOT_DELIVERED.reason]


def test_an_htlc_that_waits_is_decided_again_with_what_was_agreed_when_it_came() -> None:
    """What its payee announced may be over by then: the payer's deadline is set, and its expiry."""
    here = moment()
    factory = held(Known(announced={here.payment_hash: 7_200}))
    vain = in_factory(factory, known=Known())
    channels.finish_channels(vain, takes_up_held=True)
    assert not vain.decision.records
    assert not wished(vain, fx.SetDeadline), "its hold goes on"
    turn = in_factory(factory, known=Known(streams=(NEW,)))
    channels.finish_channels(turn, takes_up_held=True)
    (record,) = of_the_payment(turn)
    assert isinstance(record, cr.HtlcForwarded)
    assert record.seconds == 7_200
    assert not wished(turn, fx.SetDeadline), "its hold goes on"


# What a client pays itself


@pytest.mark.parametrize(
    ("amount_msat", "is_own", "is_dying", "is_free"),
    [
        (330_000, True, True, True),
        (329_999, True, True, False),
        (330_000, False, True, False),
        (330_000, True, False, False),
    ],
)
def test_moving_330_sat_or_more_out_of_a_factory_that_dies_is_all_that_is_free(
    *, amount_msat: int, is_own: bool, is_dying: bool, is_free: bool
) -> None:
    here = moment()
    link = here.factory.book.links[here.key[0]]
    rules = forwarding.ForwardingRules(
        fee_base_msat=1_000,
        fee_proportional_millionths=1_000,
        hold_seconds=HOLD_SECONDS,
        is_usable=lambda _: True,
        is_dying=lambda _: is_dying,
    )
    delivery = m.Delivery(
        payee=here.alice if is_own else here.bob,
        payment_secret=bytes(32),
        amount_msat=amount_msat,
    )
    price_msat = 0 if is_free else 1_000 + amount_msat // 1_000
    assert rules.price_msat(link, delivery) == price_msat


def test_what_a_client_pays_itself_goes_on_only_where_it_lasts() -> None:
    here = moment()
    delivery = decode_fields(m.Delivery, here.live.payload)
    own = here.with_htlc(payload=encode_fields(replace(delivery, payee=here.alice)))
    turn = decided(own, known=Known(streams=(OLD, NEW), lasting=(OLD,)))
    (record,) = remembered(turn, cr.HtlcForwarded)
    assert record.to == OLD
    turn = decided(own, known=Known(streams=(OLD, NEW)))
    assert len(remembered(turn, cr.HtlcHeld)) == 1
    turn = decided(known=Known(streams=(OLD, NEW), lasting=(OLD,)))
    (record,) = remembered(turn, cr.HtlcForwarded)
    assert record.to == NEW, "what others are paid goes to the newest"


# A factory that refuses


def refused(
    sender: str,
    factory: Factory | None = None,
    facts: Facts = FRESH,
    *,
    streams: tuple[str, ...] = (OLD, HERE, NEW),
    reason: str = "no room",
) -> Turn[Factory]:
    """Let a factory hear that another does not take what waits here."""
    turn = in_factory(factory or held(), facts, Known(streams=streams))
    told = ForwardRefused(channel_id=moment().key[0], htlc_id=moment().key[1], reason=reason)
    channels.on_forward_refused(turn, sender, told)
    return turn


@pytest.mark.parametrize(
    ("sender", "asked"), [(NEW, HERE), (HERE, OLD), (OLD, None), ("factory:99", NEW)]
)
def test_after_a_refusal_the_next_older_factory_is_asked(sender: str, asked: str | None) -> None:
    turn = refused(sender)
    assert [one.to for one in remembered(turn, cr.HtlcForwarded)] == ([asked] if asked else [])
    assert not failures(turn)


def test_after_a_refusal_nobody_is_asked_for_an_htlc_that_may_not_go_on() -> None:
    here, waiting = moment(), held()
    turn = in_factory(waiting)
    turn.remember(cr.HoldEnded(channel_id=here.key[0], htlc_id=here.key[1]))
    ended, link = turn.state, waiting.book.links[here.key[0]]
    away = here.with_link(changed(link, state=changed(link.state, is_connected=False)), waiting)
    for turn in (
        refused(NEW, ended),
        refused(NEW, away),
        refused(NEW, facts=STALE),
        refused(NEW, facts=UNMARKABLE),
    ):
        assert not remembered(turn, cr.HtlcForwarded)


def test_a_refusal_of_what_went_on_elsewhere_means_nothing() -> None:
    known = Known(streams=(OLD, HERE, NEW))
    on_its_way = decided(known=known).state
    turn = in_factory(on_its_way, known=known)
    told = ForwardRefused(channel_id=moment().key[0], htlc_id=moment().key[1], reason="no room")
    forwarding.on_refused(turn, NEW, told)
    assert not turn.decision.records
