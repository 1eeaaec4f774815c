"""An advance in which somebody breaks a rule: it is named, and costs the others nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.advances import (
    advancing_factory,
    both_links,
    check_claims,
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
from cromford.wire import messages as m

BUYER, NEIGHBOUR = 1, 2
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


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (but(factory_pubkey=b"\x02" + bytes(31) + b"\x01"), "nonces of another key"),
        (one_nonce, "1 nonces of the factory key, expected 2"),
        (but(pubnonces=(NO_POINTS,) * 2), "a nonce that is not two points"),
        (but_channel(pubnonce=NO_POINTS), "a nonce that is not two points"),
        (but_channel(following_pubnonce=NO_POINTS), "a nonce that is not two points"),
        (but(channel=()), "nonces for commitments [], expected [{}]"),
        (next_number, "nonces for commitments [{}], expected [{}]"),
    ],
)
def test_an_agreement_that_is_none_is_named_and_costs_the_others_nothing(
    change: Change, what: str
) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    number = both_links(pump, NEIGHBOUR)[1].state.peer_signed
    with pump.tampering(changing(neighbour, m.AdvanceAgree, change)):
        sell(pump, BUYER)
    (dropped,) = remembered(pump.lsp, ar.AdvanceDropped)
    numbers = (number + 1, number) if change is next_number else (number,)
    assert dropped.reason == f"client {NEIGHBOUR}: {what.format(*numbers)}"
    assert (dropped.culprits, dropped.is_fault) == ((neighbour.node_id,), True)
    assert not pump.sent(pump.lsp, m.AdvanceCommit)
    assert [len(remembered(client, ar.AdvanceDropped)) for client in pump.clients] == [1, 1]
    check_nothing_is_left(pump)
    check_sold(pump, BUYER, sell(pump, BUYER))


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (but(half=()), "half: expected for commitment "),
        (but_half(number=1_000), "half.number: expected "),
        (but_half(pubnonce=NO_POINTS), "half.pubnonce: expected "),
        (but_half(partial_sig=NO_SCALAR), "half.partial_sig: expected a scalar"),
        (but_half(partial_sig=ANOTHER_SCALAR), "partial_signature_with_nonce: expected "),
        (but_half(htlc_signatures=(bytes(64),)), "num_htlcs: expected 0, received 1"),
    ],
)
def test_a_bad_half_of_a_commitment_ends_its_channel_and_nothing_is_signed_on_it(
    change: Change, failure: str
) -> None:
    """Without a claim of our own on the next funding there is no next state."""
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    with pump.tampering(changing(neighbour, m.AdvanceSign, change)):
        sell(pump, BUYER)
    _, lsp_link = both_links(pump, NEIGHBOUR)
    assert (lsp_link.failure or "").startswith(failure)
    assert not remembered(pump.lsp, ar.StateSigned)
    assert both_links(pump, BUYER)[1].failure is None
    assert lsp_link.finished_on(lsp_link.present) is not None
    check_claims(pump)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (but_partials(poison_pubnonce=NO_POINTS), "a nonce that is not two points"),
        (but_partials(state=NO_SCALAR), "state_root v1: a partial signature that is no scalar"),
        (but_partials(state=ANOTHER_SCALAR), "state_root v1: a bad partial signature"),
        (but_partials(stock_poison=ANOTHER_SCALAR), "stock_poison v0: a bad partial signature"),
        (
            but_partials(channel_poison=NO_SCALAR),
            "channel_poison c2 v0: a partial signature that is no scalar",
        ),
    ],
)
def test_a_part_of_a_state_or_a_poison_that_is_none_ends_the_try_and_says_why(
    change: Change, what: str
) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)
    with pump.tampering(changing(neighbour, m.AdvanceSign, change)):
        sell(pump, BUYER)
    (ended,) = remembered(pump.lsp, ar.AdvanceSessionEnded)
    assert ended.holdouts == (NEIGHBOUR,)
    hung_up = [one for one in pump.wishes(pump.lsp, fx.Disconnect) if one.reason]
    assert (hung_up[-1].node_id, hung_up[-1].reason) == (
        neighbour.node_id,
        f"client {NEIGHBOUR}: {what}",
    )
    assert not hung_up[-1].is_ours, "it has to answer for it"
    assert not remembered(pump.lsp, ar.StateSigned)


# Lies of an LSP


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (but(half=()), "advance_commit: expected one of each, received 0 halves, 1 pairs"),
        (but(channel=()), "advance_commit: expected one of each, received 1 halves, 0 pairs"),
        (but_channel(number=1_000), "channel.number: expected "),
        (but_channel(pubnonce=NO_POINTS), "channel.pubnonce: expected "),
        (but_channel(following_pubnonce=NO_POINTS), "channel.following_pubnonce: expected "),
        (but_half(number=1_000), "half.number: expected "),
        (but_half(pubnonce=NO_POINTS), "half.pubnonce: expected "),
        (but_half(partial_sig=NO_SCALAR), "half.partial_sig: expected a scalar"),
        (but_half(partial_sig=ANOTHER_SCALAR), "partial_signature_with_nonce: expected "),
        (but(aggnonces=(b"\x02" * 66,)), "aggnonces: expected 2, received 1"),
        (but(aggnonces=(b"\x05" * 66,) * 2), "aggnonces: expected two points"),
        (but(poison_pubnonce=NO_POINTS), "poison_pubnonce: expected "),
    ],
)
def test_a_client_names_what_is_wrong_with_its_lsps_half_and_signs_nothing(
    change: Change, failure: str
) -> None:
    pump = advancing_factory(2)
    neighbour = pump.client_at(NEIGHBOUR)

    def tamper(_by: PumpNode, to: PumpNode, message: m.Message) -> list[Any]:
        is_it = to is neighbour and isinstance(message, m.AdvanceCommit)
        return change(message) if is_it else [message]

    with pump.tampering(tamper):
        sell(pump, BUYER)
    link, _ = both_links(pump, NEIGHBOUR)
    assert (link.failure or "").startswith(failure)
    assert not remembered(neighbour, ar.AdvanceSigned)
    assert not pump.sent(neighbour, m.AdvanceSign)
    assert not neighbour.state.advances
    assert (link.next, link.state.reserved_msat) == (None, 0)
