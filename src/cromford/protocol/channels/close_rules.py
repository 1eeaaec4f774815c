"""What a cooperative close lets a channel do: its limit, and when it stands still.

A close that its client signed can be finished by the LSP alone, at any later time. So until its
outpoint is spent for good the channel may never come to owe the client more than the close pays it:
then finishing it takes nothing from the client, whatever becomes of the HTLCs on their way.
"""

from typing import Final

from cromford import effects as fx
from cromford import told
from cromford.bitcoin.tx import Txid
from cromford.channel.errors import UpdateRefused
from cromford.channel.state import ChannelState
from cromford.channel.terms import Party
from cromford.protocol.journal.closes import SETTLED_DEPTH, is_frozen, limit_msat
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn

CLOSED_TOGETHER: Final = "the factory, or this part of it, was closed together"
# What an HTLC is refused for, before a name and a number.
FIELD: Final = "close"


def owed_msat(state: ChannelState) -> int:
    """Return the most that a channel may owe its client by what is on its way, in msat.

    Its balance and all HTLCs of both directions, trimmed and merely proposed ones, too. Those that
    it offered are in what is settled: each may come back. Of the LSP's, each may be taken.
    """
    offered = (live.htlc for live in state.htlcs if live.htlc.offered_by is Party.OPENER)
    return state.accepter_msat + sum(htlc.amount_msat for htlc in offered)


def room_msat(link: Link, chain: KnownChain) -> int | None:
    """Return how much more a channel may come to owe its client, by its closes; None if no limit.

    Negative where it owes too much already: a limit that ended began anew with a reorganisation.
    """
    if not link.closes:
        return None
    limit = limit_msat(link.closes, chain)
    return None if limit is None else limit - owed_msat(link.state)


def is_beyond_close(link: Link, chain: KnownChain) -> bool:
    """Say whether a channel may owe its client more than a close pays: no HTLC is taken then."""
    room = room_msat(link, chain)
    return room is not None and room < 0


def stands_still(link: Link, chain: KnownChain) -> bool:
    """Say whether no update is begun now: a close may be finished, or something is agreed on."""
    return bool(link.quiet_for) or is_frozen(link.closes, chain)


def problem_with_advance(link: Link, chain: KnownChain, *, advance_id: bytes = b"") -> str | None:
    """Return which close of a channel is in the way of an advance of its leaf; None if none is.

    One that its client signed may be finished at any time, and spends an output of the leaf or
    above it; and one may be agreed on now.

    Args:
        link: The channel.
        chain: What is in blocks.
        advance_id: The advance, where it is under way: the channel may be quiet for it.
    """
    if link.quiet_for not in {b"", advance_id}:
        return "a close is being agreed on"
    for close in link.closes:
        if close.is_live(chain) or close.is_confirmed(chain):
            return f"a close of {close.outpoint} was signed, and may be finished"
    return None


def check_closes(link: Link, chain: KnownChain, *, amount_msat: int) -> None:
    """Check that an HTLC of ours keeps to what closes of this channel allow.

    Args:
        link: The channel.
        chain: What is in blocks.
        amount_msat: What it holds. What the client offers cannot make the channel owe it more.

    Raises:
        UpdateRefused: If it does not; the field is `close`.
    """
    if stands_still(link, chain):
        is_agreed = not link.quiet_for
        received = "one that everybody signed" if is_agreed else "one that is being agreed on"
        raise UpdateRefused(FIELD, expected="none", received=received)
    room = room_msat(link, chain)
    if room is None:
        return
    added_msat = amount_msat if link.me is Party.OPENER else 0
    if added_msat > room:
        raise UpdateRefused(
            FIELD,
            expected=f"at most {told.msat(max(0, room))} more for the client, by what it signed",
            received=told.msat(added_msat),
        )


def hang_up_if_it_goes_on(turn: AnyTurn, link: Link) -> None:
    """Begin anew with the peer of a channel whose freeze ends in this block.

    Something else spent the close's outpoint for good. Whoever connected meanwhile has no session
    in the channel; the last of the two who sees the block hangs up last.
    """
    ends = any(
        close.is_finished
        and not close.is_confirmed(turn.chain)
        and (spender := close.spender(turn.chain)) is not None
        and turn.chain.depth(spender.txid) == SETTLED_DEPTH
        for close in link.closes
    )
    if ends and link.takes_updates and not link.state.is_connected:
        reason = "a close of this channel is void: it goes on"
        turn.ask(fx.Disconnect(node_id=link.node_id, reason=reason, is_ours=True))


def closed_by(link: Link, chain: KnownChain) -> Txid | None:
    """Return the close of this channel that is in a block; None if none is."""
    for close in link.closes:
        spender = close.spender(chain)
        if spender is not None and close.is_confirmed(chain):
            return spender.txid
    return None
