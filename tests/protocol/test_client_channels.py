"""Which channels a client pays and is paid through, what for, and what it says of its invoices."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest
from tests.protocol.decisions import STALE, UNMARKABLE, in_client, remembered, said, wished
from tests.protocol.paying_clients import live_factory, make_invoice, open_factory, pay
from tests.protocol.signed_closes import CLOSE_ID

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Txid
from cromford.changed import changed
from cromford.channel.messages import UpdateAdd
from cromford.crypto.keys import sha256
from cromford.protocol import events as ev
from cromford.protocol.channels import client as channels
from cromford.protocol.channels import finish
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.depth import NOT_DEEP
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import OwnInvoice
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import SignedClose
from cromford.protocol.journal.encoding import journalled_update
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

AMOUNT_MSAT: Final = 5_000_000
FEE_MSAT: Final = 6_000
HOUR: Final = 3_600


class Owner:
    """A client with 20,000 sat in an older channel and 30,000 in a newer one."""

    def __init__(self) -> None:
        pump = live_factory(2)
        alice, bob = pump.clients
        assert pay(pump, pump.lsp, alice, 20_000_000).status == "paid"
        open_factory(pump)
        assert pay(pump, pump.lsp, alice, 30_000_000).status == "paid"
        self.request = make_invoice(pump, bob, AMOUNT_MSAT, hold_seconds=0)
        self.lsp = pump.lsp.node_id
        self.state: ClientState = alice.state
        by_money = sorted(self.state.book.links.values(), key=lambda one: balance_of(one).own_msat)
        self.small, self.large = by_money
        assert [balance_of(one).own_msat for one in by_money] == [20_000_000, 30_000_000]


@cache
def owner() -> Owner:
    return Owner()


def with_links(*links: Link, state: ClientState | None = None) -> ClientState:
    """Return the client with channels as they might be."""
    state = state or owner().state
    known = state.book.links
    for link in links:
        known = known.set(link.channel_id, link)
    return changed(state, book=changed(state.book, links=known))


def both(change: Callable[[Link], Link]) -> ClientState:
    return with_links(change(owner().small), change(owner().large))


def with_attempts(state: ClientState | None = None, **about: Any) -> ClientState:
    """Return the client with what it knows of both factories as it might be."""
    state = state or owner().state
    attempts = {name: changed(one, **about) for name, one in state.attempts.items()}
    return changed(state, attempts=attempts)


def connected(link: Link, *, is_connected: bool) -> Link:
    return changed(link, state=changed(link.state, is_connected=is_connected))


def at_height(state: ClientState, height: int) -> ClientState:
    block = BlockRef(height=height, block_hash=Txid(bytes(32)))
    return changed(state, chain=state.chain.with_block(block, ()))


# Which channel


def leaving() -> ClientState:
    return with_attempts(is_exiting=True)


def retired() -> ClientState:
    return with_attempts(retired_height=100)


def failed() -> ClientState:
    return both(lambda link: changed(link, failure="over"))


def anothers() -> ClientState:
    return both(lambda link: changed(link, node_id=b"\x02" * 33))


def too_late() -> ClientState:
    return at_height(owner().state, owner().large.exit_deadline_height)


def shallow(state: ClientState | None = None) -> ClientState:
    """Return the client after the fundings of its factories left the chain."""
    state = state or owner().state
    fundings = [one.funding_tx.txid for one in state.attempts.values()]
    return changed(state, chain=state.chain.without(10**6, fundings))


def closed_together(link: Link) -> Link:
    close = SignedClose(
        close_id=CLOSE_ID,
        outpoint=link.present.outpoint,
        balance_msat=30_000_000,
        is_finished=True,
    )
    return changed(link, closes=(close,))


UNUSABLE: Final[list[tuple[Callable[[], ClientState], str]]] = [
    (leaving, "no_channel"),
    (retired, "no_channel"),
    (failed, "no_channel"),
    (anothers, "no_channel"),
    (too_late, "no_channel"),
    (lambda: both(closed_together), "no_channel"),
    (shallow, NOT_DEEP),
    (lambda: shallow(leaving()), "no_channel"),
    (lambda: shallow(anothers()), "no_channel"),
]


def invoice(**about: Any) -> ev.InvoiceRequested:
    asked = ev.InvoiceRequested(
        preimage=b"\x11" * 32,
        payment_secret=b"\x12" * 32,
        amount_msat=AMOUNT_MSAT,
        description="tea",
        expires_at=10_000,
        expiry_seconds=600,
        text="an invoice",
    )
    return replace(asked, **about)


@pytest.mark.parametrize(("state", "code"), UNUSABLE)
@pytest.mark.parametrize("purpose", ["pay", "receive"])
def test_a_channel_that_no_payment_may_begin_in_is_not_used(
    purpose: str, state: Callable[[], ClientState], code: str
) -> None:
    turn = in_client(state())
    with pytest.raises(Rejected) as refused:
        channels.take(turn, owner().request if purpose == "pay" else invoice())
    assert refused.value.code == code
    assert refused.value.retryable
    if code == "no_channel":
        assert purpose in str(refused.value)
    assert not turn.decision.records


def test_one_that_is_only_away_may_be_paid_and_pays_nothing_now() -> None:
    away = both(lambda link: connected(link, is_connected=False))
    with pytest.raises(Rejected) as refused:
        channels.take(in_client(away), owner().request)
    assert refused.value.code == "no_channel"
    turn = in_client(away)
    channels.take(turn, invoice())
    assert len(remembered(turn, cr.InvoiceIssued)) == 1


# Paying


def paid(turn: Turn[ClientState]) -> UpdateAdd:
    """Return what is offered."""
    (update,) = (journalled_update(one.message) for one in remembered(turn, cr.UpdateProposed))
    assert isinstance(update, UpdateAdd)
    return update


def test_a_payment_takes_the_channel_with_the_most_to_spend() -> None:
    turn = in_client(owner().state)
    channels.take(turn, replace(owner().request, label="for tea"))
    (started,) = remembered(turn, cr.PaymentStarted)
    assert started.channel_id == owner().large.channel_id
    assert (started.amount_msat, started.fee_msat) == (AMOUNT_MSAT, FEE_MSAT)
    assert (started.label, started.asker) == ("for tea", "")
    assert paid(turn).amount_msat == AMOUNT_MSAT + FEE_MSAT
    assert len(wished(turn, fx.SignCommitment)) == 1


def test_a_payment_takes_the_factory_that_is_named() -> None:
    for link in (owner().small, owner().large):
        turn = in_client(owner().state)
        channels.take(turn, replace(owner().request, attempt_id=link.attempt_id))
        (started,) = remembered(turn, cr.PaymentStarted)
        assert started.channel_id == link.channel_id
    with pytest.raises(Rejected, match="no channel is ready to pay"):
        channels.take(in_client(owner().state), replace(owner().request, attempt_id=bytes(32)))


def test_what_no_channel_can_carry_is_refused_for_what_the_largest_lacks() -> None:
    """Its limit is the one that matters to whoever wants to pay."""
    request = replace(owner().request, amount_msat=28_000_000)
    quiet = with_links(changed(owner().large, quiet_for=b"q" * 32))
    for state, field in ((quiet, "close"), (owner().state, None)):
        turn = in_client(state)
        if field is None:
            channels.take(turn, request)
            assert paid(turn).amount_msat == 28_000_000 + 29_000
            continue
        with pytest.raises(Rejected, match=f"the channel cannot carry it now: {field}") as refused:
            channels.take(turn, request)
        assert refused.value.code == "not_payable"
        assert not turn.decision.records


def test_a_payment_goes_through_the_next_channel_where_the_first_cannot_carry_it() -> None:
    turn = in_client(with_links(changed(owner().large, quiet_for=b"q" * 32)))
    channels.take(turn, owner().request)
    (started,) = remembered(turn, cr.PaymentStarted)
    assert started.channel_id == owner().small.channel_id


def test_the_lsp_is_paid_without_a_fee() -> None:
    turn = in_client(owner().state)
    channels.take(turn, replace(owner().request, payee=owner().lsp))
    (started,) = remembered(turn, cr.PaymentStarted)
    assert started.fee_msat == 0
    assert paid(turn).amount_msat == AMOUNT_MSAT


@pytest.mark.parametrize(
    ("amount_msat", "fee_max_msat", "is_paid"),
    [(AMOUNT_MSAT, FEE_MSAT, True), (AMOUNT_MSAT, FEE_MSAT - 1, False), (AMOUNT_MSAT, None, True)],
)
def test_no_more_fee_is_paid_than_is_allowed(
    amount_msat: int, fee_max_msat: int | None, *, is_paid: bool
) -> None:
    request = replace(owner().request, amount_msat=amount_msat, fee_max_msat=fee_max_msat)
    turn = in_client(owner().state)
    if is_paid:
        channels.take(turn, request)
        assert len(remembered(turn, cr.PaymentStarted)) == 1
        return
    with pytest.raises(Rejected, match="expected at most 5,999 msat, the LSP asks 6 sat"):
        channels.take(turn, request)


def test_a_policy_limits_the_fee_where_nobody_else_does() -> None:
    lobby = owner().state.lobby
    assert lobby is not None
    policy = owner().state.config.policy
    limit_msat = policy.fee_base_msat_max
    lobby = replace(lobby, fee_proportional_millionths=policy.fee_proportional_millionths_max)
    for base_msat, is_paid in ((limit_msat, True), (limit_msat + 1, False)):
        turn = in_client(changed(owner().state, lobby=replace(lobby, fee_base_msat=base_msat)))
        if is_paid:
            channels.take(turn, owner().request)
        else:
            with pytest.raises(Rejected, match="fee_max_msat"):
                channels.take(turn, owner().request)


@pytest.mark.parametrize(
    ("state", "facts", "code"),
    [
        (lambda: owner().state, STALE, "chain_stale"),
        (lambda: owner().state, UNMARKABLE, "mark_unreachable"),
        (lambda: changed(owner().state, lobby=None), FRESH, "lsp_unreachable"),
    ],
)
def test_a_payment_that_could_not_be_sent_now_is_refused(
    state: Callable[[], ClientState], facts: Facts, code: str
) -> None:
    turn = in_client(state(), facts)
    with pytest.raises(Rejected) as refused:
        channels.take(turn, owner().request)
    assert refused.value.code == code
    assert not turn.decision.records


def test_what_is_paid_or_on_its_way_is_not_paid_again_and_what_failed_is() -> None:
    turn = in_client(owner().state)
    channels.take(turn, owner().request)
    begun = turn.state.book.payments[owner().request.payment_hash]
    on_its_way = turn.state

    def with_payment(**about: Any) -> ClientState:
        payments = on_its_way.book.payments.set(begun.payment_hash, changed(begun, **about))
        return changed(on_its_way, book=changed(on_its_way.book, payments=payments))

    for state in (on_its_way, with_payment(preimage=bytes(32)), with_payment(ended="swept")):
        for facts in (FRESH, STALE):
            again = in_client(state, facts)
            channels.take(again, owner().request)
            assert not again.decision.records, "and nobody is bothered with it"
    again = in_client(with_payment(failure=b"no"))
    channels.take(again, owner().request)
    assert len(remembered(again, cr.PaymentStarted)) == 1


# Invoices


def issued(**about: Any) -> Turn[ClientState]:
    turn = in_client(owner().state)
    channels.take(turn, invoice(**about))
    return turn


def test_an_invoice_is_announced_if_it_is_to_be_held_and_expires_when_that_is_over_too() -> None:
    payment_hash = sha256(invoice().preimage)
    for hold_seconds in (0, HOUR):
        turn = issued(hold_seconds=hold_seconds)
        (deadline,) = wished(turn, fx.SetDeadline)
        assert deadline.deadline == fx.InvoiceDeadline(payment_hash=payment_hash)
        assert deadline.seconds == 600 + hold_seconds
        told = said(turn, m.AnnounceHash)
        expected = m.AnnounceHash(
            payment_hash=payment_hash, hold_seconds=hold_seconds, expiry_seconds=600
        )
        assert told == ([expected] if hold_seconds else [])


def test_an_invoice_that_is_made_while_nobody_hears_it_is_announced_later() -> None:
    turn = in_client(changed(owner().state, is_connected=False))
    channels.take(turn, invoice(hold_seconds=HOUR))
    assert not said(turn, m.AnnounceHash)
    again = in_client(turn.state)
    channels.announce_again(again)
    assert len(said(again, m.AnnounceHash)) == 1


def with_invoice(**about: Any) -> ClientState:
    """Return the client with one invoice, that was to be held for an hour, as it might be."""
    state = issued(hold_seconds=HOUR).state
    payment_hash = sha256(invoice().preimage)
    known: OwnInvoice = changed(state.book.invoices[payment_hash], **about)
    invoices = state.book.invoices.set(payment_hash, known)
    return changed(state, book=changed(state.book, invoices=invoices))


@pytest.mark.parametrize(
    ("about", "is_told"),
    [
        ({}, True),
        ({"agreed_seconds": 0}, True),
        ({"agreed_seconds": 30}, False),
        ({"hold_seconds": 0}, False),
        ({"is_expired": True}, False),
        ({"paid_by": (bytes(32), 1)}, False),
    ],
)
def test_what_the_lsp_did_not_agree_to_hold_is_announced_again(
    about: dict[str, Any], *, is_told: bool
) -> None:
    turn = in_client(with_invoice(**about))
    channels.announce_again(turn)
    assert len(said(turn, m.AnnounceHash)) == is_told


@pytest.mark.parametrize(
    ("about", "told", "agreed"),
    [
        ({}, 600, 600),
        ({}, HOUR + 1, HOUR),
        ({}, 0, 0),
        ({"agreed_seconds": 0}, 0, None),
        ({"agreed_seconds": 0}, 600, 600),
        ({"agreed_seconds": 600}, 1_200, None),
        ({"hold_seconds": 0}, 600, None),
    ],
)
def test_what_the_lsp_agrees_to_hold_is_remembered_up_to_what_was_asked(
    about: dict[str, Any], told: int, agreed: int | None
) -> None:
    payment_hash = sha256(invoice().preimage)
    turn = in_client(with_invoice(**about))
    channels.on_hash_announced(turn, m.HashAnnounced(payment_hash=payment_hash, hold_seconds=told))
    kept = [one.hold_seconds for one in remembered(turn, cr.HoldAgreed)]
    assert kept == ([] if agreed is None else [agreed])
    unknown = in_client(with_invoice(**about))
    message = m.HashAnnounced(payment_hash=bytes(32), hold_seconds=told)
    channels.on_hash_announced(unknown, message)
    assert not unknown.decision.records


@pytest.mark.parametrize(
    ("unix_time", "is_fresh", "seconds"),
    [
        (10_000, True, HOUR),
        (10_000 + HOUR - 1, False, 1),
        (10_000 + HOUR - 1, True, 1),
        (10_000 + HOUR, True, 0),
        (10_000 + HOUR, False, None),
        (10_000 + HOUR + 9, True, 0),
        (10_000 + HOUR + 9, False, None),
    ],
)
def test_after_a_restart_an_invoice_has_the_time_that_is_left_by_the_clock(
    unix_time: int, *, is_fresh: bool, seconds: int | None
) -> None:
    """While the chain is stale its time may be over by the clock alone, so it stays open."""
    asked = channels.invoice_deadlines(with_invoice(), unix_time, is_fresh=is_fresh)
    deadline = fx.InvoiceDeadline(payment_hash=sha256(invoice().preimage))
    expected = () if seconds is None else (fx.SetDeadline(deadline=deadline, seconds=seconds),)
    assert asked == expected
    for over in ({"paid_by": (bytes(32), 1)}, {"is_expired": True}, {"text": ""}):
        state = with_invoice(**over)
        assert channels.invoice_deadlines(state, unix_time, is_fresh=is_fresh) == ()


def test_an_invoice_expires_once_and_not_when_it_was_paid() -> None:
    payment_hash = sha256(invoice().preimage)
    turn = in_client(with_invoice())
    channels.on_invoice_deadline(turn, payment_hash)
    (expired,) = remembered(turn, cr.InvoiceExpired)
    assert expired.payment_hash == payment_hash
    for state in (with_invoice(is_expired=True), with_invoice(paid_by=(bytes(32), 1))):
        again = in_client(state)
        channels.on_invoice_deadline(again, payment_hash)
        assert not again.decision.records
    unknown = in_client(owner().state)
    channels.on_invoice_deadline(unknown, bytes(32))
    assert not unknown.decision.records


def test_a_decision_about_nothing_looks_at_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    monkeypatch.setattr(finish, "sign_if_due", lambda _, link: looked.append(link.channel_id))
    channels.finish_channels(in_client(owner().state))
    assert looked == []
    channels.finish_channels(in_client(owner().state), takes_up_held=True)
    assert looked == sorted(owner().state.book.links), "once all is taken up, at each"


# Who is heard


def over(channel_id: bytes) -> m.ChannelFailure:
    return m.ChannelFailure(channel_id=channel_id, reason="enough")


def test_a_channel_is_heard_of_only_from_its_lsp_and_until_it_is_closed_together() -> None:
    here = owner().large
    turn = in_client(owner().state)
    channels.on_channel_message(turn, over(here.channel_id))
    assert len(remembered(turn, cr.ChannelFailed)) == 1
    for state, channel_id in (
        (owner().state, bytes(32)),
        (with_links(changed(here, node_id=b"\x02" * 33)), here.channel_id),
        (with_links(closed_together(here)), here.channel_id),
    ):
        turn = in_client(state)
        channels.on_channel_message(turn, over(channel_id))
        assert turn.decision.is_nothing


def begun(state: ClientState, link: Link | None = None) -> list[bytes]:
    """Return for which channels a nonce is asked when the LSP says that one is ready."""
    turn = in_client(state)
    link = link or owner().large
    channels.begin(turn, turn.state.attempts[link.attempt_id])
    return [one.channel_id for one in wished(turn, fx.PrepareNonce)]


def test_a_channel_is_taken_up_once_both_sides_are_here_and_found_it_ready() -> None:
    here = owner().large
    unprepared = with_links(changed(connected(here, is_connected=False), pool_id=None))
    assert begun(unprepared) == [here.channel_id]
    assert begun(owner().state) == [], "it is in use"
    none_of_them = unprepared.book.links.delete(here.channel_id)
    for state in (
        changed(unprepared, is_connected=False),
        with_attempts(unprepared, ready_received=False),
        with_attempts(unprepared, keys_taken=True),
        with_links(closed_together(unprepared.book.links[here.channel_id])),
        changed(unprepared, book=changed(unprepared.book, links=none_of_them)),
        changed(unprepared, lsp_node_id=b"\x02" * 33),
    ):
        assert begun(state) == []
