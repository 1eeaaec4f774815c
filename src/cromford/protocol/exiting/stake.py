"""What could still be lost in a channel by waiting, HTLC by HTLC, and nothing else.

An HTLC that we offered could, until its preimage was shown: it may never come back. One of the
peer's could, once we took it: only the chain may pay it. That a preimage is known says nothing by
itself, since a second HTLC with the same hash, or one that was given back, pays for nothing.
"""

from collections.abc import Collection
from typing import Final

from cromford.channel.commitment import balances_sat, untrimmed_htlcs
from cromford.channel.content import Htlc
from cromford.channel.stage import Edition, HtlcStage, LiveHtlc
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.facts import Facts
from cromford.protocol.journal.book import Book, Errand
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.watch.feerates import OwnFees
from cromford.watch.worth import sweep_sat

HTLC_EXPIRES: Final = "an HTLC expires"  # Why a channel is brought on chain in time.
# In which the other side comes back to one that was away: weeks of blocks are read in a moment.
# A third of `CLAIM_BLOCKS`, so that it may be waited for somebody else's, too.
COME_BACK_BLOCKS: Final = 6


def htlcs_at_stake(book: Book, link: Link) -> list[Htlc]:
    """Return the HTLCs of a channel that waiting could lose, if they have an output.

    One that was never signed is on no commitment: whoever comes on chain comes without it.
    """
    terms = link.setting.terms
    return [
        live.htlc
        for live in link.state.htlcs
        if live.stage is not HtlcStage.ADD_PROPOSED
        and (_may_come_back if live.htlc.offered_by is link.me else _is_taken)(book, link, live)
        and not terms.is_trimmed(live.htlc.amount_msat, is_offered=live.htlc.offered_by is link.me)
    ]


def is_htlc_at_stake(
    book: Book, link: Link, *, chain: KnownChain, height: int, patient: Collection[int] = ()
) -> bool:
    """Say whether the channel has to go on chain now, because of an HTLC's expiry.

    Whatever the HTLC holds: one with an output always holds more than it costs to steal.

    Args:
        book: All channels and payments of this side.
        link: The channel.
        chain: How much of its way out is on chain.
        height: The height of now.
        patient: The ids of those that we offered, and that can wait for now.
    """
    return any(
        publish_height(link, htlc.cltv_expiry, chain=chain) <= height
        for htlc in htlcs_at_stake(book, link)
        if htlc.offered_by is not link.me or htlc.htlc_id not in patient
    )


def patient(turn: AnyTurn, link: Link) -> frozenset[int]:
    """Return the ids of our HTLCs of a channel that can wait for now: while we are just back.

    Those by which we pay ourselves: only their preimage takes one from us, so that nothing is lost
    meanwhile. What pays for somebody else's has to be back before that one's payer leaves: it waits
    for a part of the blocks in which our commitment is on chain before the expiry.
    """
    if not is_just_back(turn.facts, height=turn.height):
        return frozenset()
    ours = [live.htlc for live in link.state.htlcs if live.htlc.offered_by is link.me]
    return frozenset(
        htlc.htlc_id
        for htlc in ours
        if not isinstance(turn.book.owners.get((link.channel_id, htlc.htlc_id)), Errand)
        or turn.known_height
        < publish_height(link, htlc.cltv_expiry, chain=turn.chain) + COME_BACK_BLOCKS
    )


def is_just_back(facts: Facts, *, height: int) -> bool:
    """Say whether we were away, or still read, and the other side had no time to come back to us.

    Args:
        facts: What is known of the world now.
        height: The height of the block that was read last.
    """
    is_new_here = facts.fresh_since >= 0 and height < facts.fresh_since + COME_BACK_BLOCKS
    return not facts.is_fresh or is_new_here


def is_worth_an_exit(book: Book, link: Link, fees: OwnFees) -> bool:
    """Say whether an exit brings anything: a balance worth its sweep, or an HTLC at stake.

    Args:
        book: All channels and payments of this side.
        link: The channel.
        fees: What our own node says; the answer changes with it, from block to block.
    """
    return balance_output_sat(link) > _least_sat(link, fees) or bool(htlcs_at_stake(book, link))


def may_be_worth_an_exit(book: Book, link: Link, fees: OwnFees) -> bool:
    """Say whether a client leaves at its exit deadline: an exit brings something, or may.

    A store that was restored, or lost state, does not know what came after it. What both sides'
    stores found counts, if they were compared; else all of the channel may be ours, and what
    nobody brought on chain is swept at the expiry.

    Args:
        book: All channels and payments of the client.
        link: The channel.
        fees: What our own node says.
    """
    if link.is_balance_unknown:
        return True
    if link.mark is None or link.mark.agreed_msat is None:
        return is_worth_an_exit(book, link, fees)
    return link.mark.agreed_msat // MSAT_PER_SAT > _least_sat(link, fees)


def _least_sat(link: Link, fees: OwnFees) -> int:
    return max(link.exit_cost_sat, sweep_sat(fees))


def balance_output_sat(link: Link) -> int:
    """Return what our own commitment pays to our balance; below the dust limit, to nobody.

    The LSP's is less than its balance: it pays the fee and the anchor.
    """
    state = link.state
    content = state.content(state.me, Edition.SIGNED)
    amounts_sat = balances_sat(
        content,
        state.terms,
        capacity_sat=content.capacity_sat,
        n_htlc_outputs=len(untrimmed_htlcs(content, state.terms)),
    )
    return amounts_sat[state.me]


def is_failed_for_long(link: Link, *, failed_channel_blocks: int, height: int) -> bool:
    """Say whether a channel failed long enough ago to be left."""
    since = link.failed_height
    return since is not None and since + failed_channel_blocks <= height


def failed_long_ago(link: Link) -> str:
    """Return why a channel that failed is left."""
    return f"the channel failed at height {link.failed_height}: {link.failure}"


def _may_come_back(book: Book, link: Link, live: LiveHtlc) -> bool:
    """Say whether nobody showed the preimage of an HTLC of ours: not the peer, and not we.

    Who pays itself shows it where it is paid. From there on what it offered is the peer's to take.
    """
    invoice = book.invoices.get(live.htlc.payment_hash)
    is_shown = invoice is not None and invoice.paid_by is not None
    return book.is_unpaid((link.channel_id, live.htlc.htlc_id)) and not is_shown


def _is_taken(book: Book, link: Link, live: LiveHtlc) -> bool:
    """Say whether we took an HTLC, or are owed it for one that we paid in another channel."""
    if live.removal is not None:
        return live.removal.is_paid
    forward = book.forwards.get((link.channel_id, live.htlc.htlc_id))
    return forward is not None and forward.preimage is not None
