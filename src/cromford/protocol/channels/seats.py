"""The seats of a factory for which its LSP signs by itself: their clients gave it their keys.

What was true when the keys came has to be true at each use: a channel whose client is due
something is closed with its client, or not at all.
"""

from collections.abc import Iterable
from typing import Final

from cromford.effects import SeatKey
from cromford.factory.close import CloseScope
from cromford.protocol.channels.moved import is_known_to_be_left
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.signing.keychain import HandedOverKey
from cromford.wire import messages as m

GONE: Final = "the keys are gone: send them again"
NOT_FOR_IT: Final = "it moved out, and is not to be signed for any more"


def own_seats(factory: Factory, scope: CloseScope) -> tuple[int, ...]:
    """Return the clients of a scope that need not be there: we sign for them, and owe them nothing.

    In the scope's order. Theirs are channels in which less than 330 sat are due on both sides'
    commitments, without an HTLC, now: a close has no output for them.
    """
    return tuple(client for client in scope.clients if is_own_seat(factory, client))


def is_own_seat(factory: Factory, client: int) -> bool:
    """Say whether we sign for a client in a close now.

    Also where our store was restored: one that has the keys has the last of that channel, too. Its
    client signs nothing there any more, and we hear nothing of it.
    """
    if client not in factory.held_keys:
        return False
    link = link_of(factory, client)
    return link is not None and is_known_to_be_left(link)


def seat_keys(factory: Factory, scope: CloseScope, clients: Iterable[int]) -> tuple[SeatKey, ...]:
    """Return the keys that sign in a scope for clients who gave them to us."""
    return tuple(_seat_key(factory, scope, client) for client in clients)


def _seat_key(factory: Factory, scope: CloseScope, client: int) -> SeatKey:
    attempt = factory.attempt
    pubkey = key_of(factory, scope, client)
    is_funding = pubkey != attempt.seats[client - 1].factory_pubkey
    name = HandedOverKey(attempt=attempt.key_attempt, client=client, is_funding=is_funding)
    return SeatKey(name=name, pubkey=pubkey)


def key_of(factory: Factory, scope: CloseScope, client: int) -> bytes:
    """Return the key of a client that signs for an output: its factory key, or a funding key."""
    seat = factory.attempt.seats[client - 1]
    is_tree = seat.factory_pubkey in scope.output.signers
    return seat.factory_pubkey if is_tree else seat.channel.funding_pubkey


def link_of(factory: Factory, client: int) -> Link | None:
    """Return the channel with a client; None before the factory was ready."""
    return factory.book.links.get(factory.attempt.setting(client).channel_id)


def restored_of(factory: Factory, clients: Iterable[int]) -> int | None:
    """Return the first of some clients whose store lost state; None if none did.

    It signs no state of its leaf any more, nor the poisons of one.
    """
    links = ((client, link_of(factory, client)) for client in clients)
    return next((client for client, link in links if link and link.peer_is_behind), None)


def lose_keys(turn: Turn[Factory], client: int, reason: str) -> None:
    """Remember that a client's keys are not there, and ask for them, if it is here."""
    if client not in turn.state.held_keys:
        return
    attempt = turn.state.attempt
    turn.remember(hr.KeysLost(attempt_id=attempt.attempt_id, client=client, reason=reason))
    node_id = attempt.seats[client - 1].node_id
    turn.send(node_id, m.KeyTaken(attempt_id=attempt.attempt_id, refusal=GONE))
