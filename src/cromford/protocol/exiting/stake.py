"""What could still be lost in a channel by waiting, HTLC by HTLC, and nothing else.

An HTLC that we offered could, until its preimage was shown: it may never come back. One of the
peer's could, once we took it: only the chain may pay it. That a preimage is known says nothing by
itself, since a second HTLC with the same hash, or one that was given back, pays for nothing.
"""

from typing import Final

from cromford.channel.content import Htlc
from cromford.channel.stage import HtlcStage, LiveHtlc
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link

HTLC_EXPIRES: Final = "an HTLC expires"  # Why a channel is brought on chain in time.


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


def is_htlc_at_stake(book: Book, link: Link, *, chain: KnownChain, height: int) -> bool:
    """Say whether the channel has to go on chain now, because of an HTLC's expiry.

    Whatever the HTLC holds: one with an output always holds more than it costs to steal.
    """
    return any(
        publish_height(link, htlc.cltv_expiry, chain=chain) <= height
        for htlc in htlcs_at_stake(book, link)
    )


def is_worth_an_exit(book: Book, link: Link) -> bool:
    """Say whether an exit brings anything: a balance that becomes a coin, or an HTLC at stake."""
    has_balance = balance_of(link).own_msat > MSAT_PER_SAT * link.exit_cost_sat
    return has_balance or bool(htlcs_at_stake(book, link))


def is_failed_for_long(link: Link, *, failed_channel_blocks: int, height: int) -> bool:
    """Say whether a channel failed long enough ago to be left."""
    since = link.failed_height
    return since is not None and since + failed_channel_blocks <= height


def failed_long_ago(link: Link) -> str:
    """Return why a channel that failed is left."""
    return f"the channel failed at height {link.failed_height}: {link.failure}"


def _may_come_back(book: Book, link: Link, live: LiveHtlc) -> bool:
    return book.is_unpaid((link.channel_id, live.htlc.htlc_id))


def _is_taken(book: Book, link: Link, live: LiveHtlc) -> bool:
    """Say whether we took an HTLC, or are owed it for one that we paid in another channel."""
    if live.removal is not None:
        return live.removal.is_paid
    forward = book.forwards.get((link.channel_id, live.htlc.htlc_id))
    return forward is not None and forward.preimage is not None
