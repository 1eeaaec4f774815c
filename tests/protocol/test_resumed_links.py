"""A channel between two fundings after a reconnection: what each side is told, and what follows."""

from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol.advances import PRICE_MSAT
from tests.protocol.test_advance_steps import BUYER, END, at, next_of

from cromford.changed import changed
from cromford.channel.reestablish import reestablish_message
from cromford.crypto.keys import pubkey_of
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.link_fold import applied, disconnected
from cromford.protocol.journal.next_funding import OwnNonce
from cromford.wire import messages as m
from cromford.wire.selling import AdvanceStage, NextNonce

PRESENT, NEXT, LATER = (b"\2" + bytes([n]) * 65 for n in (1, 2, 3))  # Nonces of the peer.
OTHER_ADVANCE: Final = bytes(32)


def stage_of(link: Link, stage: int, **changes: Any) -> AdvanceStage:
    """Return what a peer says of the advance of a channel."""
    latest = link.state.peer_signed
    known: dict[str, Any] = {
        "advance_id": next_of(link).advance_id,
        "stage": stage,
        "is_void": 0,
        "funding_txid": bytes(next_of(link).funding.outpoint.txid),
        "nonces": (
            NextNonce(number=latest, pubnonce=NEXT),
            NextNonce(number=latest + 1, pubnonce=LATER),
        ),
    }
    return AdvanceStage(**(known | changes))


def reestablished(link: Link, peer: Link, *told: AdvanceStage) -> Link:
    """Return a channel after its peer said where it stands."""
    said = reestablish_message(peer.state)
    message = m.ChannelReestablish(
        channel_id=link.channel_id,
        next_commitment_number=said.next_commitment_number,
        next_revocation_number=said.next_revocation_number,
        your_last_per_commitment_secret=said.last_secret,
        next_pubnonce=PRESENT,
        advance=told,
    )
    record = cr.ChannelReestablished(
        channel_id=link.channel_id,
        message=m.encode_message(message),
        own_point=pubkey_of(said.last_secret),
    )
    return applied(disconnected(link), record)[0]


def test_a_client_that_signed_is_dual_to_its_lsp_and_its_price_set_aside_whatever_was_between() -> (
    None
):
    moment = at(m.AdvanceCommit)
    lsp, client = moment.lsp(BUYER), moment.client(BUYER)
    signed = reestablished(lsp, client, stage_of(lsp, 1))
    assert next_of(signed).is_dual
    assert (next_of(signed).peer_stage, signed.state.reserved_msat) == (1, PRICE_MSAT)
    latest = lsp.state.peer_signed
    assert next_of(signed).peer_nonces == Map({latest: NEXT, latest + 1: LATER})
    assert (signed.peer_pubnonce, signed.state.is_connected) == (PRESENT, True)
    for told in ((), (stage_of(lsp, 0),), (stage_of(lsp, 2, advance_id=OTHER_ADVANCE),)):
        unsigned = reestablished(lsp, client, *told)
        assert not next_of(unsigned).is_dual, told
        assert (next_of(unsigned).peer_stage, unsigned.state.reserved_msat) == (0, 0), told
        if not told or told[0].advance_id == OTHER_ADVANCE:
            assert next_of(unsigned).peer_nonces == Map()


def test_a_channel_that_carries_both_fundings_goes_on_so_whatever_its_client_says() -> None:
    moment = at(m.AdvanceDone)
    lsp, client = moment.lsp(BUYER), moment.client(BUYER)
    after = reestablished(lsp, client)
    assert next_of(after).is_dual
    assert (next_of(after).peer_stage, after.state.reserved_msat) == (0, PRICE_MSAT)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_what_an_lsp_says_makes_nothing_of_a_clients_own_word(stage: int) -> None:
    moment = at(m.AdvanceSign)
    client, lsp = moment.client(BUYER), moment.lsp(BUYER)
    after = reestablished(client, lsp, stage_of(client, stage))
    assert next_of(after).peer_stage == stage
    assert next_of(after).is_dual, "it signed"
    assert after.state.reserved_msat == PRICE_MSAT
    fresh = changed(client, next=changed(next_of(client), is_dual=False))
    again = reestablished(fresh, lsp, stage_of(client, stage))
    assert not next_of(again).is_dual
    assert again.state.reserved_msat == PRICE_MSAT


def test_who_is_rebased_takes_the_nonce_that_is_for_its_present_funding() -> None:
    """The peer, that is not over with the funding before, tells it as one for the next."""
    before, after = at(m.UpdateRebase), at(END)
    client, lsp = after.client(BUYER), after.lsp(BUYER)
    said = reestablish_message(lsp.state)
    number = said.next_commitment_number
    told = stage_of(
        before.client(BUYER),
        3,
        funding_txid=bytes(client.present.outpoint.txid),
        nonces=(NextNonce(number=number, pubnonce=NEXT),),
    )
    assert reestablished(client, lsp, told).peer_pubnonce == NEXT
    none = stage_of(
        before.client(BUYER), 3, funding_txid=bytes(client.present.outpoint.txid), nonces=()
    )
    assert reestablished(client, lsp, none).peer_pubnonce == PRESENT
    elsewhere = stage_of(before.client(BUYER), 3, funding_txid=bytes(32), nonces=told.nonces)
    for other in ((), (elsewhere,)):
        found = reestablished(client, lsp, *other)
        assert (found.peer_pubnonce, found.next) == (PRESENT, None)


def test_nonces_are_prepared_for_both_fundings_and_those_of_the_next_follow_one_another() -> None:
    link = disconnected(at(m.AdvanceDone).client(BUYER))
    numbers = link.next_numbers
    assert numbers == (link.state.own_signed + 1,)
    lacking = changed(link, next=changed(next_of(link), own=None))
    assert len(lacking.next_numbers) == 2
    for one in (link, lacking):
        pubnonces = (NEXT, LATER)[: len(one.next_numbers)]
        record = cr.ChannelPrepared(
            channel_id=one.channel_id,
            pool_id=b"pool",
            pubnonce=PRESENT,
            next_pubnonces=pubnonces,
            is_void=True,
        )
        waiting = changed(one, awaits_nonce=True, early_reestablish=b"early", nonce_index=5)
        after, _ = applied(waiting, record)
        assert (after.pool_id, after.nonce_index, after.pubnonce) == (b"pool", 0, PRESENT)
        assert (after.awaits_nonce, after.early_reestablish) == (False, b"")
        assert next_of(after).said_void
        assert next_of(after).own_nonces == Map(
            {
                number: OwnNonce(pool_id=b"pool", index=index, pubnonce=pubnonce)
                for index, (number, pubnonce) in enumerate(
                    zip(one.next_numbers, pubnonces, strict=True), start=1
                )
            }
        )
    alone = disconnected(at(END).client(BUYER))
    record = cr.ChannelPrepared(channel_id=alone.channel_id, pool_id=b"p", pubnonce=PRESENT)
    assert applied(alone, record)[0].next is None


def test_where_there_is_no_room_for_a_nonce_the_peers_word_is_kept() -> None:
    link = disconnected(at(END).client(BUYER))
    record = cr.NonceAwaited(channel_id=link.channel_id, reestablish=b"said")
    after, _ = applied(link, record)
    assert (after.awaits_nonce, after.early_reestablish) == (True, b"said")
