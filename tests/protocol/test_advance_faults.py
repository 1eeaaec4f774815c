"""An advance in which somebody breaks a rule: it is named, and costs the others nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advance_steps import (
    BUYER,
    NEIGHBOUR,
    answer_of,
    at_step,
    decided,
    decided_by,
    found,
    kept,
    messages,
    next_message,
    only,
)
from tests.protocol.advances import (
    advancing_factory,
    check_nothing_is_left,
    check_sold,
    market,
    remembered,
    sell,
)
from tests.protocol.closes import changing
from tests.protocol.pump import PumpNode

from cromford import effects as fx
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.turn import Decision
from cromford.wire import messages as m

NO_SCALAR: Final = b"\xff" * 32
NO_POINTS: Final = bytes(66)
ANOTHER_SCALAR: Final = bytes(31) + b"\x01"
Change = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def but(**changes: Any) -> Change:
    return lambda message: [replace(message, **changes)]


def but_channel(**changes: Any) -> Change:
    def change(message: Any) -> list[Any]:
        (nonces,) = message.channel
        return [replace(message, channel=(replace(nonces, **changes),))]

    return change


def but_half(**changes: Any) -> Change:
    def change(message: Any) -> list[Any]:
        (half,) = message.half
        return [replace(message, half=(replace(half, **changes),))]

    return change


def but_partials(**changes: Any) -> Change:
    def change(message: m.AdvanceSign) -> list[m.AdvanceSign]:
        (partials,) = message.partials
        return [replace(message, partials=(replace(partials, **changes),))]

    return change


# Lies of a client


def one_nonce(agree: m.AdvanceAgree) -> list[m.AdvanceAgree]:
    return [replace(agree, pubnonces=agree.pubnonces[:1])]


def next_number(agree: m.AdvanceAgree) -> list[Any]:
    (nonces,) = agree.channel
    return [replace(agree, channel=(replace(nonces, number=nonces.number + 1),))]


def told(to: PumpNode, kind: type[m.Message], change: Change) -> Any:
    """Return that such a message arrives, changed on its way."""
    event = next_message(at_step(kind), to, kind)
    (message,) = change(event.message)
    decoded = m.decode_message(m.encode_message(message))
    assert decoded is not None
    return replace(event, message=decoded)


def after_signing(node: PumpNode, decision: Decision[Any]) -> Decision[Any]:
    """Return what follows once our own half of a commitment is made, if it was asked for."""
    asked = found(decision, fx.FinishNext)
    if not asked:
        return decision
    made = answer_of(node, asked[0])
    return decided_by(decision.state, made)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (but(factory_pubkey=b"\x02" + bytes(31) + b"\x01"), "nonces of another key"),
        (one_nonce, "1 nonces of the factory key, expected 2"),
        (but(pubnonces=(NO_POINTS,) * 2), "a nonce that is not two points"),
        (but_channel(pubnonce=NO_POINTS), "a nonce that is not two points"),
        (but_channel(following_pubnonce=NO_POINTS), "a nonce that is not two points"),
        (but(channel=()), "nonces for commitments [], expected [{0}]"),
        (next_number, "nonces for commitments [{1}], expected [{0}]"),
    ],
)
def test_an_agreement_that_is_none_is_named_and_ends_the_advance(change: Change, what: str) -> None:
    lsp = at_step(m.AdvanceAgree).lsp
    event = told(lsp, m.AdvanceAgree, change)
    attempt = at_step(m.AdvanceAgree).attempt
    seat = attempt.client_of(event.node_id)
    assert seat is not None
    (link,) = [one for one in lsp.state.book.links.values() if one.client == seat]
    number = link.state.peer_signed
    decision = decided(lsp, event)
    dropped = only(decision, ar.AdvanceDropped)
    assert dropped.reason == f"client {seat}: {what.format(number, number + 1)}"
    assert (dropped.culprits, dropped.is_fault) == ((event.node_id,), True)
    aborts = [one.reason for one in messages(decision) if isinstance(one, m.AdvanceAbort)]
    assert aborts == [dropped.reason] * 2, "everybody hears of it"


def test_an_agreement_that_comes_again_changes_nothing_and_counts_for_its_try_alone() -> None:
    lsp = at_step(m.AdvanceAgree).lsp
    event = next_message(at_step(m.AdvanceAgree), lsp, m.AdvanceAgree)
    agreed = decided(lsp, event)
    assert only(agreed, ar.AdvanceAgreementReceived)
    assert decided_by(agreed.state, event).is_nothing
    assert decided(lsp, told(lsp, m.AdvanceAgree, but(session=bytes(32)))).is_nothing
    later = at_step(m.AdvanceCommit).lsp
    assert decided(later, event).is_nothing, "it is further than that"


def test_who_breaks_a_rule_before_anything_is_signed_costs_the_others_nothing() -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    with pump.tampering(changing(neighbour, m.AdvanceAgree, one_nonce)):
        sell(pump, BUYER)
    (dropped,) = remembered(pump.lsp, ar.AdvanceDropped)
    assert (dropped.culprits, dropped.is_fault) == ((neighbour.node_id,), True)
    assert not pump.sent(pump.lsp, m.AdvanceCommit)
    assert [len(remembered(client, ar.AdvanceDropped)) for client in pump.clients] == [1, 1]
    check_nothing_is_left(pump)
    check_sold(pump, BUYER, sell(pump, BUYER))


BAD_HALVES: Final = [
    (but_half(number=1_000), "half.number: expected "),
    (but_half(pubnonce=NO_POINTS), "half.pubnonce: expected "),
    (but_half(partial_sig=NO_SCALAR), "half.partial_sig: expected a scalar"),
    (but_half(partial_sig=ANOTHER_SCALAR), "partial_signature_with_nonce: expected "),
    (but_half(htlc_signatures=(bytes(64),)), "num_htlcs: expected 0, received 1"),
]


@pytest.mark.parametrize(
    ("change", "failure"), [(but(half=()), "half: expected for commitment "), *BAD_HALVES]
)
def test_a_clients_bad_half_ends_its_channel_and_the_lsp_holds_nothing_of_it(
    change: Change, failure: str
) -> None:
    """Without a claim of our own on the next funding there is no next state."""
    lsp = at_step(m.AdvanceSign).lsp
    decision = after_signing(lsp, decided(lsp, told(lsp, m.AdvanceSign, change)))
    failed = only(decision, cr.ChannelFailed)
    assert failed.reason.startswith(failure)
    assert not found(decision, ar.NextCommitmentHeld | fx.PartialSign)
    good = next_message(at_step(m.AdvanceSign), lsp, m.AdvanceSign)
    held = after_signing(lsp, decided(lsp, good))
    assert only(held, ar.NextCommitmentHeld).channel_id == failed.channel_id


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (but_partials(poison_pubnonce=NO_POINTS), "a nonce that is not two points"),
        (but_partials(state=NO_SCALAR), "state_root v1: a partial signature that is no scalar"),
        (but_partials(state=ANOTHER_SCALAR), "state_root v1: a bad partial signature"),
        (but_partials(stock_poison=ANOTHER_SCALAR), "stock_poison v0: a bad partial signature"),
        (
            but_partials(channel_poison=NO_SCALAR),
            "channel_poison c{} v0: a partial signature that is no scalar",
        ),
        (
            but_partials(channel_poison=ANOTHER_SCALAR),
            "channel_poison c{} v0: a bad partial signature",
        ),
    ],
)
def test_a_part_of_a_state_or_a_poison_that_is_none_ends_the_try_and_says_why(
    change: Change, what: str
) -> None:
    pump = at_step(m.AdvanceSign)
    event = told(pump.lsp, m.AdvanceSign, change)
    seat = pump.attempt.client_of(event.node_id)
    assert seat is not None
    decision = decided(pump.lsp, event)
    assert only(decision, ar.AdvanceSessionEnded).holdouts == (seat,)
    (parted,) = [one for one in found(decision, fx.Disconnect) if one.node_id == event.node_id]
    assert parted.reason == f"client {seat}: {what.format(seat)}"
    assert not parted.is_ours, "it has to answer for it"
    assert not found(decision, ar.AdvancePartialsReceived | fx.FinishNext)


# Lies of an LSP


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (but(half=()), "advance_commit: expected one of each, received 0 halves, 1 pairs"),
        (but(channel=()), "advance_commit: expected one of each, received 1 halves, 0 pairs"),
        (but_channel(number=1_000), "channel.number: expected "),
        (but_channel(pubnonce=NO_POINTS), "channel.pubnonce: expected "),
        (but_channel(following_pubnonce=NO_POINTS), "channel.following_pubnonce: expected "),
        *BAD_HALVES,
        (but(aggnonces=(b"\x02" * 66,)), "aggnonces: expected 2, received 1"),
        (but(aggnonces=(b"\x05" * 66,) * 2), "aggnonces: expected two points"),
        (but(poison_pubnonce=NO_POINTS), "poison_pubnonce: expected "),
    ],
)
def test_a_client_names_what_is_wrong_with_its_lsps_half_and_signs_nothing(
    change: Change, failure: str
) -> None:
    client = at_step(m.AdvanceCommit).client_at(NEIGHBOUR)
    decision = after_signing(client, decided(client, told(client, m.AdvanceCommit, change)))
    assert only(decision, cr.ChannelFailed).reason.startswith(failure)
    assert only(decision, ar.AdvanceDropped).reason.startswith(failure)
    assert not found(decision, ar.AdvanceSigned | fx.PartialSign)
    assert not [one for one in messages(decision) if isinstance(one, m.AdvanceAbort)]
    (link,) = decision.state.book.links.values()
    assert (link.next, link.state.reserved_msat, link.quiet_for) == (None, 0, b"")


def test_a_client_that_goes_on_says_what_it_signed_before_its_channel_moves_again() -> None:
    """Its parts leave with its half of the LSP's commitment, and it is quiet until they have."""
    client = at_step(m.AdvanceCommit).client_at(NEIGHBOUR)
    event = next_message(at_step(m.AdvanceCommit), client, m.AdvanceCommit)
    signed = after_signing(client, decided(client, event))
    assert only(signed, ar.AdvanceSigned)
    assert messages(signed) == []
    (link,) = signed.state.book.links.values()
    assert link.quiet_for
    parts = answer_of(client, only(signed, fx.PartialSign))
    following = decided_by(signed.state, parts)
    assert (messages(following), kept(following)) == ([], ())
    half = answer_of(client, only(following, fx.SignNext))
    sent = decided_by(following.state, half)
    assert only(sent, ar.AdvanceSent)
    (sign,) = messages(sent)
    assert isinstance(sign, m.AdvanceSign)
    assert (len(sign.half), len(sign.partials)) == (1, 1)
    (link,) = sent.state.book.links.values()
    assert not link.quiet_for
    again = decided_by(sent.state, half)
    assert not found(again, ar.AdvanceSent), "it left once"
