"""Of which finished closes a client is told, who speaks for itself in one, and whose key signs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest
from immutables import Map
from tests.protocol.decisions import in_factory, said
from tests.protocol.five_seats import (
    ALL,
    holding,
    link_of,
    spent_by,
    split,
    tx_of,
    whole,
    with_block,
    with_link,
)
from tests.protocol.test_close_limits import spend_of

from cromford.bitcoin.tx import OutPoint
from cromford.protocol.closing.seats import has_say
from cromford.protocol.closing.sessions import client_of_key
from cromford.protocol.closing.telling import tell_closed
from cromford.protocol.journal.close_scopes import channel_scope, lsp_scope
from cromford.protocol.journal.closes import SETTLED_DEPTH, FinishedClose, SignedClose
from cromford.protocol.journal.closing import Agreed, Agreeing, Closing
from cromford.protocol.journal.factory import Factory
from cromford.signing.nonces import PublicPool
from cromford.wire import messages as m

FIRST, SECOND = b"\x01" * 32, b"\x02" * 32
POOL: Final = PublicPool(pubkey=b"\x02" * 33, pubnonces=())


def closed(outpoints: Mapping[bytes, OutPoint], *clients: int) -> Factory:
    """Return the factory with finished closes of these clients' channels, by their names."""
    factory = split()
    for client in clients:
        signed = tuple(
            SignedClose(close_id=close_id, outpoint=outpoint, balance_msat=0, is_finished=True)
            for close_id, outpoint in outpoints.items()
        )
        factory = with_link(factory, client, closes=signed)
    finished = {
        close_id: FinishedClose(
            close_id=close_id, outpoint=outpoint, txs=(spend_of(outpoint, 1_000),)
        )
        for close_id, outpoint in outpoints.items()
    }
    return replace(factory, closed=Map(finished))


def told(factory: Factory, client: int, channel_of: int | None = None) -> list[bytes]:
    """Return the names of the closes of which a client is told; whether any is said as well."""
    turn = in_factory(factory)
    channel_id = None if channel_of is None else link_of(factory, channel_of).channel_id
    node_id = factory.attempt.seats[client - 1].node_id
    is_any = tell_closed(turn, node_id, channel_id)
    names = [one.close_id for one in said(turn, m.Closed)]
    assert is_any is bool(names)
    return names


def test_a_client_is_told_of_the_closes_of_its_own_channel() -> None:
    both = closed({SECOND: spent_by("kickoff_0"), FIRST: spent_by("state_0")}, 1, 2)
    for client in (1, 2):
        assert told(both, client) == told(both, client, client) == [FIRST, SECOND]
    assert told(both, 3) == told(both, 3, 3) == []
    assert told(both, 1, 2) == [], "of another's channel it is told nothing"


def test_of_what_the_factory_has_no_finished_close_of_it_tells_nothing() -> None:
    factory = closed({FIRST: spent_by("kickoff_0")}, 1)
    assert told(replace(factory, closed=Map()), 1) == []
    (close,) = link_of(factory, 1).closes
    signed = with_link(factory, 1, closes=(replace(close, is_finished=False, close_id=SECOND),))
    assert told(signed, 1) == []


@pytest.mark.parametrize("depth", [SETTLED_DEPTH - 1, SETTLED_DEPTH])
def test_nobody_is_told_any_more_once_something_else_took_its_coin_for_good(depth: int) -> None:
    factory = closed({FIRST: spent_by("kickoff_0")}, 1)
    kicked_off = with_block(factory, tx_of("kickoff_0"))
    later = with_block(kicked_off, height=kicked_off.chain.height + depth - 1)
    assert told(later, 1) == ([FIRST] if depth < SETTLED_DEPTH else [])


def closing(agreed: Mapping[int, Agreed]) -> Closing:
    return Closing(
        close_id=FIRST,
        outpoint=spent_by("kickoff_0"),
        clients=(1, 2),
        feerates_sat_per_kw=(1_000,),
        stage=Agreeing(pool=POOL, agreed=agreed),
    )


def speakers(factory: Factory, agreed: Mapping[int, Agreed]) -> list[int | None]:
    everybody = (None, *ALL)
    return [client for client in everybody if has_say(factory, closing(agreed), client)]


def test_who_signs_for_itself_has_a_say_and_nobody_else() -> None:
    own = Agreed(balance_msat=0, pool=POOL)
    ours = replace(own, is_ours=True)
    assert speakers(split(), {}) == speakers(split(), {1: own}) == [1, 2]
    assert speakers(split(), {1: ours}) == [2]
    assert speakers(holding(split(), 1), {}) == [2], "we shall agree for it"
    assert speakers(holding(split(), 1), {1: ours}) == [2]
    # Its keys came after its word: with that it speaks for itself until this close is over.
    assert speakers(holding(split(), 1, 2), {1: own}) == [1]


def test_each_clients_key_in_a_close_is_known_for_its_own() -> None:
    attempt = whole().attempt
    tree = lsp_scope(attempt, spent_by("static_root"))
    channel = channel_scope(whole().funding_on_chain(2), 2)
    for client, seat in enumerate(attempt.seats, start=1):
        assert client_of_key(whole(), tree, seat.factory_pubkey) == client
        if client != 2:
            with pytest.raises(AssertionError, match="our own part"):
                client_of_key(whole(), channel, seat.channel.funding_pubkey)
    assert client_of_key(whole(), channel, attempt.seats[1].channel.funding_pubkey) == 2
