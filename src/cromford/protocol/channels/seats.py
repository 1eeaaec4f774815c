"""The seats of a factory for which its LSP signs by itself: their clients gave it their keys.

What was true when the keys came has to be true at each use: a channel whose client is due
something is closed with its client, or not at all.
"""

from collections.abc import Iterable

from cromford.effects import SeatKey
from cromford.factory.close import CloseScope, Payout
from cromford.protocol.channels.moved import due_msat, is_left
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.signing.keychain import HandedOverKey


def own_seats(factory: Factory, scope: CloseScope) -> tuple[int, ...]:
    """Return the clients of a scope that need not be there: we sign for them, and owe them nothing.

    In the scope's order. Theirs are channels in which less than 330 sat are due on both sides'
    commitments, without an HTLC, now.
    """
    return tuple(client for client in scope.clients if is_own_seat(factory, client))


def is_own_seat(factory: Factory, client: int) -> bool:
    """Say whether we sign for a client in a close now."""
    if client not in factory.held_keys:
        return False
    link = link_of(factory, client)
    return link is not None and is_left(link)


def seat_keys(factory: Factory, scope: CloseScope, clients: Iterable[int]) -> tuple[SeatKey, ...]:
    """Return the keys that sign for clients who gave them to us, in this scope.

    Of a channel's output it is its funding key, of any output of the tree the factory key.
    """
    return tuple(_seat_key(factory, scope, client) for client in clients)


def seat_payout(factory: Factory, client: int) -> Payout:
    """Return what a close pays a client that moved out: nothing, for it is due less than 330 sat.

    What it is due, in msat, is counted as left out, like anybody's that is too little.

    Raises:
        AssertionError: If we do not sign for this client.
    """
    link = link_of(factory, client)
    if link is None or not is_own_seat(factory, client):
        raise AssertionError(f"client {client} signs for itself")
    script = factory.attempt.seats[client - 1].payout_script
    return Payout(script_pubkey=script, due_msat=due_msat(link))


def link_of(factory: Factory, client: int) -> Link | None:
    """Return the channel with a client; None before the factory was ready."""
    return factory.book.links.get(factory.attempt.setting(client).channel_id)


def _seat_key(factory: Factory, scope: CloseScope, client: int) -> SeatKey:
    attempt = factory.attempt
    seat = attempt.seats[client - 1]
    is_funding = scope.outpoint == attempt.setting(client).funding.outpoint
    name = HandedOverKey(attempt=attempt.key_attempt, client=client, is_funding=is_funding)
    pubkey = seat.channel.funding_pubkey if is_funding else seat.factory_pubkey
    return SeatKey(name=name, pubkey=pubkey)
