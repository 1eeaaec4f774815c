"""The LSP's side of a key handover: which keys it takes, and what it does when they are gone.

It takes keys of a channel in which nothing is its client's: other keys would let it, or whoever
breaks into it, take what is not its own. A client that lies about that is refused; one that keeps a
copy has what it had before.
"""

from typing import Final

from cromford import effects as fx
from cromford import told
from cromford.protocol import events as ev
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT, due_msat, is_at_rest, is_left
from cromford.protocol.channels.seats import GONE, link_of, lose_keys
from cromford.protocol.journal import handover_records as hr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.signing.handed_over import OfferedKeys
from cromford.wire import messages as m

NO_SEAT: Final = "you have no seat in a funded factory of this name"
LATER: Final = "the keys could not be kept: send them again later"


def on_keys_offered(turn: Turn[Factory], event: ev.KeysOffered) -> None:
    """Keep a client's keys, or say why not; the same keys again are taken again."""
    attempt = turn.state.attempt
    client = attempt.client_of(event.node_id)
    reason = NO_SEAT if client is None else refusal_of(turn.state, client, event.offered)
    if client is None or reason is not None:
        turn.ask(fx.DropOffered(offered=event.offered))
        _answer(turn, event.node_id, reason or NO_SEAT)
        return
    turn.ask(
        fx.KeepKeys(
            attempt_id=attempt.attempt_id,
            node_id=event.node_id,
            attempt=attempt.key_attempt,
            client=client,
            offered=event.offered,
        )
    )


def refusal_of(state: Factory, client: int, offered: OfferedKeys) -> str | None:
    """Return why keys are not taken, naming what is wrong; None if they are."""
    expected = keys_of(state, client)
    for name in ("factory_pubkey", "funding_pubkey"):
        pubkey, received = getattr(expected, name), getattr(offered, name)
        if received != pubkey:
            shown = received.hex() or "no key: its secret is out of range"
            return f"{name}: expected {pubkey.hex()}, received {shown}"
    link = link_of(state, client)
    if state.attempt.funded is None or link is None:
        return NO_SEAT
    if link.failure is not None:
        return f"the channel failed: {link.failure}"
    if state.attempt.leaf_name(client) in state.advances:
        return "an advance of the leaf is under way"
    closing = state.closing
    if closing is not None and client in closing.clients and client not in state.held_keys:
        return "a close is being agreed on"  # It was asked, or is about to be.
    if not is_at_rest(link):
        return "the channel is not at rest: an HTLC or an update is under way"
    if due_msat(link) >= LEFT_BEHIND_MSAT:
        least, due = told.msat(LEFT_BEHIND_MSAT), told.msat(due_msat(link))
        return f"balance_msat: expected less than {least}, received {due}"
    return None if is_left(link) else "state of this channel was lost"


def keys_of(state: Factory, client: int) -> OfferedKeys:
    """Return which keys a seat's are."""
    seat = state.attempt.seats[client - 1]
    return OfferedKeys(
        factory_pubkey=seat.factory_pubkey, funding_pubkey=seat.channel.funding_pubkey
    )


def on_keys_kept(turn: Turn[Factory], event: ev.KeysKept) -> None:
    """Remember that a client's keys are durable, and tell it, if we still may take them.

    What we offered in its channel while they were written has to come back first.
    """
    asked = event.asked
    if asked.client not in turn.state.held_keys:
        refusal = refusal_of(turn.state, asked.client, asked.offered)
        if refusal is not None:
            _answer(turn, asked.node_id, refusal)
            return
        turn.remember(hr.KeysHeld(attempt_id=asked.attempt_id, client=asked.client))
    _answer(turn, asked.node_id, "")


def on_keys_not_kept(turn: Turn[Factory], event: ev.KeysNotKept) -> None:
    """Let a client send its keys again; why they were not kept is our own affair."""
    _answer(turn, event.asked.node_id, LATER)


def on_connection(turn: Turn[Factory], node_id: bytes) -> None:
    """Look whether what we hold of a client that came is still there; ask for what is not."""
    if turn.state.begun is None:
        return
    attempt = turn.state.attempt
    client = attempt.client_of(node_id)
    if client in turn.state.lost_keys:
        _answer(turn, node_id, GONE)
    elif client is not None and client in turn.state.held_keys:
        turn.ask(
            fx.LookUpKeys(
                attempt_id=attempt.attempt_id,
                attempt=attempt.key_attempt,
                client=client,
                offered=keys_of(turn.state, client),
            )
        )


def on_keys_looked_up(turn: Turn[Factory], event: ev.KeysLookedUp) -> None:
    """Ask a client for its keys once more, if they are gone."""
    if event.problem:
        lose_keys(turn, event.asked.client, event.problem)


def _answer(turn: Turn[Factory], node_id: bytes, refusal: str) -> None:
    attempt_id = turn.state.attempt.attempt_id
    turn.send(node_id, m.KeyTaken(attempt_id=attempt_id, refusal=refusal))
