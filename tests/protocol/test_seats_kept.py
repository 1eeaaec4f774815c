"""Which clients a close can do without, and with which of their keys it is signed for them."""

from types import SimpleNamespace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.arrivals import moment
from tests.protocol.decisions import in_factory, remembered, said
from tests.protocol.samples import dual, plain

from cromford.changed import changed
from cromford.channel.content import Htlc
from cromford.channel.stage import HtlcStage, LiveHtlc, Removal
from cromford.channel.terms import Party
from cromford.crypto.keys import sha256
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT, due_msat, is_at_rest, is_left
from cromford.protocol.channels.seats import GONE, is_own_seat, key_of, lose_keys, restored_of
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

SIDES: Final = pytest.mark.parametrize("of_lsp", [True, False])


def carols() -> Link:
    known = moment().factory.book.links.values()
    return next(link for link in known if link.node_id == moment().carol)


def holding(accepter_msat: int = 0, *, is_held: bool = True) -> Factory:
    """Return a factory that has Carol's keys, when so much is due to her in its channel."""
    state = changed(carols().state, accepter_msat=accepter_msat, htlcs=())
    factory = moment().with_link(changed(carols(), state=state, peer_unrevoked=None))
    return changed(factory, held_keys=frozenset({carols().client}) if is_held else frozenset())


def test_a_close_needs_nobody_whose_keys_are_here_and_who_is_owed_nothing() -> None:
    client = carols().client
    assert is_own_seat(holding(), client)
    assert is_own_seat(holding(LEFT_BEHIND_MSAT - 1), client)
    assert not is_own_seat(holding(LEFT_BEHIND_MSAT), client)
    assert not is_own_seat(holding(is_held=False), client)
    gone = holding()
    links = gone.book.links.delete(carols().channel_id)
    without = changed(gone, book=changed(gone.book, links=links))
    assert not is_own_seat(without, client), "before the factory was ready"


def test_for_a_client_signs_the_key_that_the_output_asks_for() -> None:
    factory, client = holding(), carols().client
    seat = factory.attempt.seats[client - 1]

    def scope(*signers: bytes) -> Any:
        return SimpleNamespace(output=SimpleNamespace(signers=signers))

    assert key_of(factory, scope(bytes(33), seat.factory_pubkey), client) == seat.factory_pubkey
    funding = seat.channel.funding_pubkey
    assert key_of(factory, scope(bytes(33), funding), client) == funding


def test_of_some_clients_the_first_is_named_whose_store_lost_state() -> None:
    factory, carol = moment().factory, carols().client
    everybody = range(1, len(factory.attempt.seats) + 1)
    assert restored_of(factory, everybody) is None
    behind = moment().with_link(changed(carols(), peer_is_behind=True))
    assert restored_of(behind, everybody) == carol
    assert restored_of(behind, ()) is None
    assert restored_of(behind, set(everybody) - {carol}) is None
    for link in behind.book.links.values():
        links = behind.book.links.set(link.channel_id, changed(link, peer_is_behind=True))
        behind = changed(behind, book=changed(behind.book, links=links))
    assert restored_of(behind, everybody) == 1
    assert restored_of(behind, (carol, 1)) == carol
    without = changed(behind, book=changed(behind.book, links=Map()))
    assert restored_of(without, everybody) is None, "before the factory was ready"


def test_keys_that_are_gone_are_asked_for_and_others_are_not() -> None:
    client = carols().client
    turn = in_factory(holding())
    lose_keys(turn, client, "no file")
    (lost,) = remembered(turn, hr.KeysLost)
    assert (lost.client, lost.reason) == (client, "no file")
    attempt_id = turn.state.attempt.attempt_id
    assert said(turn, m.KeyTaken) == [m.KeyTaken(attempt_id=attempt_id, refusal=GONE)]
    again = in_factory(turn.state)
    lose_keys(again, client, "no file")
    assert again.decision.is_nothing


@SIDES
def test_what_is_due_is_the_most_that_either_commitment_owes_the_client(*, of_lsp: bool) -> None:
    link = plain().first("on_commitment_signed", of_lsp=of_lsp).link
    preimage = bytes(32)
    taken = LiveHtlc(
        htlc=Htlc(
            offered_by=Party.OPENER,
            htlc_id=0,
            amount_msat=2_000_000,
            payment_hash=sha256(preimage),
            cltv_expiry=1_000,
        ),
        stage=HtlcStage.REMOVE_SIGNED,
        removal=Removal(preimage=preimage),
    )
    own = link.state.accepter_msat
    assert due_msat(changed(link, state=changed(link.state, htlcs=()))) == own
    assert due_msat(changed(link, state=changed(link.state, htlcs=(taken,)))) == own + 2_000_000


@SIDES
def test_a_channel_with_commitments_on_two_fundings_is_not_at_rest(*, of_lsp: bool) -> None:
    sample = dual().first("on_commitment_signed", of_lsp=of_lsp)
    state = changed(sample.link.state, htlcs=(), accepter_msat=0, rebase=None)
    both = changed(sample.link, state=state, peer_unrevoked=None)
    one = changed(both, next=None)
    if one.state.is_quiet:
        assert is_at_rest(one)
        assert is_left(one)
    assert not is_at_rest(both)
    assert not is_left(both)
