"""HTLCs of clients that end with their channel, and not by an answer of the LSP's.

What the chain shows is believed `RESOLVED_DEPTH` deep. While what was offered for an HTLC may still
be paid, nothing of it is over: its preimage may claim it yet.
"""

from collections.abc import Callable, Iterator
from typing import Final

from cromford.bitcoin.tx import OutPoint
from cromford.channel.commitment import Commitment
from cromford.channel.content import Htlc
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER, closed_by
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.channel import (
    ELSEWHERE,
    OVERTAKEN,
    RESOLVED_DEPTH,
    SWEPT_ABOVE,
    end_of_incoming,
    has_lost_its_place,
    landed_channel,
    settled_spender,
)
from cromford.protocol.exiting.in_hand import InHand
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.book import Book, HtlcKey
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.watch.exit import swept_by
from cromford.watch.landed import LandedChannel

# How it ended, for the operator.
NO_OUTPUT: Final = "it had no output on chain"
TAKEN: Final = "its payer took it back on chain"
PAYERS: Final = "it is on chain, and its payer's to take back"


def ended_with_channel(
    state: Factory, link: Link, in_hand: Callable[[Factory, int], InHand]
) -> Iterator[cr.IncomingEnded]:
    """Yield the HTLCs of a client that ended with its channel, and of which we have nothing.

    One that we can take with a preimage is ours until somebody took its output, however little it
    is worth at today's feerates. Of any other nothing will ever be ours. One whose preimage its
    payer was told counts as paid until then: it is in the commitment all the same where that payer
    signed no other.

    Args:
        state: The factory.
        link: The client's channel.
        in_hand: Returns what we hold of a client's channel.
    """
    for live in link.state.htlcs:
        key = (link.channel_id, live.htlc.htlc_id)
        if live.htlc.offered_by is link.me:
            continue
        if is_decided(state.book, key):
            reason = _how_it_ended(state, link, live.htlc, in_hand)
        elif live.removal is not None and live.removal.preimage is not None:
            reason = _how_it_was_lost(state, link, live.htlc, in_hand)
        else:
            continue
        if reason is not None:
            paid_msat = _paid_msat(state.book, key)
            yield cr.IncomingEnded(
                channel_id=key[0], htlc_id=key[1], reason=reason, paid_msat=paid_msat
            )


def is_decided(book: Book, key: HtlcKey) -> bool:
    """Say whether it is known what an HTLC of a client is owed, and nobody has answered it."""
    forward = book.forwards.get(key)
    if forward is None:
        return key in book.arrived or key in book.held
    return forward.status != "pending"


def _paid_msat(book: Book, key: HtlcKey) -> int:
    """Return what was paid on for an HTLC of a client, in msat; 0 if nothing was."""
    forward, place = book.forwards.get(key), book.place_of_paid(key)
    if forward is None and place is not None:
        forward = book.finished[place]
    return 0 if forward is None or forward.preimage is None else forward.amount_msat


def _how_it_ended(
    state: Factory, link: Link, htlc: Htlc, in_hand: Callable[[Factory, int], InHand]
) -> str | None:
    chain, attempt = state.chain, state.attempt
    if has_lost_its_place(attempt, chain):
        # As what was offered for it: nobody brings that channel on chain.
        return OVERTAKEN if give_up_height(htlc.cltv_expiry) <= chain.height else None
    closed = closed_by(link, chain)
    if closed is not None:
        return CLOSED_TOGETHER if chain.depth(closed) >= RESOLVED_DEPTH else None
    sweep = swept_by(attempt.branch_on(link.client, chain).nodes, chain.spends)
    if sweep is not None:
        return SWEPT_ABOVE if chain.depth(sweep.txid) >= RESOLVED_DEPTH else None
    if settled_spender(link, chain) is None:
        return None
    channel = landed_channel(in_hand(state, link.client), chain)
    landed = channel.landed
    if landed is None:
        return ELSEWHERE
    outpoint = _outpoint_of(landed.commitment, htlc)
    if outpoint is None:
        return NO_OUTPUT
    if not _paid_msat(state.book, (link.channel_id, htlc.htlc_id)):
        return PAYERS
    return _taken_by_payer(channel, chain, outpoint, htlc)


def _how_it_was_lost(
    state: Factory, link: Link, htlc: Htlc, in_hand: Callable[[Factory, int], InHand]
) -> str | None:
    """Say how an HTLC ended that its payer had to give us, and did not; None if it is not lost."""
    chain, key = state.chain, (link.channel_id, htlc.htlc_id)
    if settled_spender(link, chain) is None or state.book.place_of_paid(key) is None:
        return None
    channel = landed_channel(in_hand(state, link.client), chain)
    landed = channel.landed
    if landed is None or htlc not in landed.commitment.content.htlcs:
        return None  # Its amount is in our balance.
    outpoint = _outpoint_of(landed.commitment, htlc)
    if outpoint is None:
        return NO_OUTPUT
    return _taken_by_payer(channel, chain, outpoint, htlc)


def _taken_by_payer(
    channel: LandedChannel, chain: KnownChain, outpoint: OutPoint, htlc: Htlc
) -> str | None:
    """Say that its payer took an HTLC's output; None if we did, or it is not decided."""
    end = end_of_incoming(channel, outpoint, htlc)
    if end is None or end.is_ours or chain.depth(end.txid) < RESOLVED_DEPTH:
        return None
    return TAKEN


def _outpoint_of(commitment: Commitment, htlc: Htlc) -> OutPoint | None:
    """Return an HTLC's output of a commitment; None if it has none there."""
    outputs = zip(commitment.tx.outpoints, commitment.outputs, strict=True)
    return next((where for where, output in outputs if _is(output.htlc, htlc)), None)


def _is(found: Htlc | None, htlc: Htlc) -> bool:
    """Say whether an output's HTLC is this one, by its offerer and its id."""
    if found is None:
        return False
    return (found.offered_by, found.htlc_id) == (htlc.offered_by, htlc.htlc_id)
