"""For how many blocks somebody may look away, without losing anything meanwhile."""

from collections.abc import Iterator

from cromford.channel.content import Htlc
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.stake import htlcs_at_stake
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link


def blocks_to_look_away(
    book: Book, link: Link, chain: KnownChain, *, most_blocks: int, expires: bool
) -> int:
    """Return after how many blocks a channel has to be looked after again, at least 1.

    Sooner than for a race where an HTLC is at stake: it has to be left for at a height of its own.

    Args:
        book: Whose channel it is.
        link: The channel.
        chain: How much of its way out is behind us.
        most_blocks: What the races of its factory allow.
        expires: Whether the exit deadline counts, too: a client's.
    """
    heights = _heights(book, link, chain, expires=expires)
    return max(1, min((most_blocks, *(height - chain.height for height in heights))))


def _heights(book: Book, link: Link, chain: KnownChain, *, expires: bool) -> Iterator[int]:
    for htlc in _undecided(book, link, chain):
        yield publish_height(link, htlc.cltv_expiry, chain=chain)
    deadline_height = link.remaining(chain).exit_deadline_height
    if expires and deadline_height is not None and deadline_height > chain.height:
        yield deadline_height


def _undecided(book: Book, link: Link, chain: KnownChain) -> list[Htlc]:
    """Return the HTLCs that waiting could lose, less those of which a block took the output.

    Of a channel that did not end with a commitment none is claimed, and what is to be punished is
    not waited for.
    """
    at_stake, funding = htlcs_at_stake(book, link), link.funding_on(chain)
    spender = chain.spends.get(funding.outpoint)
    if spender is None or not at_stake:
        return at_stake
    finished = link.finished_on(funding)
    commitments = [] if finished is None else [finished.commitment]
    commitments += [one.commitment for one in link.peer_commitments_on(funding)]
    unspent = {
        (output.htlc.offered_by, output.htlc.htlc_id)
        for commitment in commitments
        if commitment.tx.txid == spender.txid
        for vout, output in enumerate(commitment.outputs)
        if output.htlc is not None and spender.outpoint(vout) not in chain.spends
    }
    return [htlc for htlc in at_stake if (htlc.offered_by, htlc.htlc_id) in unspent]
