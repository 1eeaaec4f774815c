"""Records of an advance that come again, late, or where a channel is over: what they leave be."""

from dataclasses import replace
from typing import Any

import pytest
from immutables import Map
from msgspec.structs import replace as said_otherwise
from tests.protocol.test_advance_steps import (
    BUYER,
    NEIGHBOUR,
    Moment,
    at,
    named,
    next_of,
    own,
    said,
    with_lsp,
)
from tests.protocol.test_attempt_states import as_told, sold_twice

from cromford.changed import changed
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import records as r
from cromford.protocol.journal.advance_fold import ClientAdvances, with_client_advance
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.client_state import apply as apply_to_client
from cromford.wire import messages as m


def without_next(moment: Moment, seat: int = BUYER) -> Moment:
    """Return a moment in which a channel at the LSP has no next funding any more."""
    link = changed(moment.lsp(seat), next=None)
    book = moment.factory.book
    book = changed(book, links=book.links.set(link.channel_id, link))
    return replace(moment, factory=replace(moment.factory, book=book))


def client_after(state: ClientState, *kinds: type[Any]) -> ClientState:
    for kind in kinds:
        state = apply_to_client(state, own(kind))
    return state


def test_an_agreement_that_comes_again_keeps_what_was_signed_on_the_next_funding() -> None:
    committed = at(m.AdvanceCommit)
    before = next_of(committed.lsp(BUYER))
    again = with_lsp(
        committed,
        ar.AdvanceSessionEnded(**named()),
        ar.AdvanceResumed(**named()),
        said(ar.AdvancePoolsMade),
        said(ar.AdvanceAgreementReceived, BUYER),
    )
    after = next_of(again.lsp(BUYER))
    assert (after.given, after.stage, after.is_agreed) == (before.given, before.stage, True)
    assert after.session_pool


def test_an_agreement_without_a_channel_is_only_one_to_sign() -> None:
    """Of a client whose channel carries both fundings already."""
    agreement = said(ar.AdvanceAgreementReceived, BUYER)
    message = m.decode_message(agreement.message)
    assert isinstance(message, m.AdvanceAgree)
    bare = said_otherwise(agreement, message=m.encode_message(replace(message, channel=())))
    asked = at(m.AdvancePropose)
    after = with_lsp(asked, bare)
    assert after.lsp(BUYER) == asked.lsp(BUYER)
    assert after.advance.holdouts == (NEIGHBOUR,)


def test_who_is_asked_again_stands_still_again() -> None:
    ended, resumed = ar.AdvanceSessionEnded(**named()), ar.AdvanceResumed(**named())
    idle = with_lsp(at(m.AdvancePropose), ended)
    assert [idle.lsp(seat).quiet_for for seat in (BUYER, NEIGHBOUR)] == [b"", b""]
    again = with_lsp(idle, resumed)
    assert {again.lsp(seat).quiet_for for seat in (BUYER, NEIGHBOUR)} == {named()["advance_id"]}


def test_nonces_that_end_leave_those_of_a_channel_that_carries_both_fundings() -> None:
    moment = at(m.AdvanceCommit)
    signed = with_lsp(moment, said(ar.AdvancePartialsReceived, BUYER))
    session = signed.advance.session
    assert session is not None
    name = signed.factory.attempt.leaf_name(BUYER)
    asked_anew = replace(signed.advance, session=replace(session, is_committed=False))
    late = replace(signed, factory=replace(signed.factory, advances=Map({name: asked_anew})))
    after = with_lsp(late, ar.AdvanceSessionEnded(**named()))
    assert next_of(after.lsp(BUYER)).own_nonces == next_of(signed.lsp(BUYER)).own_nonces
    assert not next_of(after.lsp(NEIGHBOUR)).own_nonces
    once_more = with_lsp(after, ar.AdvanceSessionEnded(**named()))
    assert once_more.advance == after.advance


@pytest.mark.parametrize(
    ("step", "record"),
    [
        (m.AdvanceSign, lambda: said(ar.StateSigned)),
        (m.AdvanceHeld, lambda: said(ar.PoisonHeld)),
        (m.AdvanceHeld, lambda: ar.AdvanceAcknowledged(client=BUYER, **named())),
        (m.AdvanceCommit, lambda: said(ar.AdvancePartialsReceived, BUYER)),
        (m.AdvanceCommit, lambda: ar.AdvanceDeclined(client=BUYER, reason="", **named())),
        (m.AdvanceCommit, lambda: ar.AdvanceSessionEnded(**named())),
    ],
    ids=["state", "poisons", "acknowledged", "partials", "declined", "session"],
)
def test_where_a_channel_has_no_next_funding_any_more_nothing_of_it_begins_anew(
    step: type[m.Message], record: Any
) -> None:
    """Its peer saw the old state six deep, and it goes on there."""
    after = with_lsp(without_next(at(step)), record())
    assert after.lsp(BUYER).next is None


def test_a_client_that_signed_keeps_its_next_funding_as_it_agrees_again() -> None:
    signed = at(m.AdvanceSign).clients[BUYER]
    started = apply_to_client(signed, r.Started())
    (before,) = started.book.links.values()
    again = client_after(started, ar.AdvancePoolsMade, ar.AdvanceAgreed)
    (link,) = again.book.links.values()
    assert link == before
    (advance,) = again.advances.values()
    assert (advance.is_agreed, advance.is_signed) == (True, True)


def test_a_client_agrees_with_nonces_and_signs_what_it_agreed_to() -> None:
    asked = client_after(at(m.AdvancePropose).clients[BUYER], ar.AdvanceReceived)
    with pytest.raises(AssertionError, match="a client agreed without nonces"):
        client_after(asked, ar.AdvanceAgreed)
    with pytest.raises(AssertionError, match="signed that was never agreed to"):
        client_after(asked, ar.AdvancePoolsMade, ar.AdvanceSigned)
    gone = at(m.AdvanceCommit).clients[BUYER]
    (link,) = gone.book.links.values()
    book = changed(gone.book, links=Map({link.channel_id: changed(link, next=None)}))
    (after,) = client_after(replace(gone, book=book), ar.AdvanceSent).book.links.values()
    assert (after.next, after.quiet_for) == (None, b"")


@pytest.mark.parametrize("n_known", [0, 1, 2])
def test_what_an_lsp_tells_of_a_leaf_or_does_not_ends_the_wait_for_it(n_known: int) -> None:
    whole, _ = sold_twice(3)
    known = replace(whole, leaf_states=whole.leaf_states[:n_known], awaits_states=True)
    for message, expected in (
        (b"", known.leaf_states),
        (m.encode_message(as_told(whole)), whole.leaf_states),
    ):
        record = ar.LeafStatesTold(attempt_id=whole.attempt_id, message=message)
        after = with_client_advance(ClientAdvances(None, known, Book()), record).attempt
        assert (after.leaf_states, after.awaits_states) == (expected, False)
