"""HTLCs whose transactions nobody would relay by themselves need a coin each, for their children.

One coin bumps one transaction: two anchors in one child, or a child on a child's change, no mempool
takes (BIP 431).
"""

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.channel.content import Htlc
from cromford.channel.errors import UpdateRefused
from cromford.channel.terms import HTLC_SUCCESS_WEIGHT
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn
from cromford.watch.bumping import ONE_COIN_WEIGHT
from cromford.watch.feerates import child_fee_sat


def lacks_coin(turn: AnyTurn, link: Link, htlc: Htlc) -> bool:
    """Say whether an HTLC of the peer is one more than our coins could bring in today.

    Only where it has an output on our commitment, and our mempool's minimum is above what its
    transaction pays by itself.
    """
    return _lacks(turn, link, amount_msat=htlc.amount_msat, is_offered=False, decided=htlc)


def check_coin(turn: AnyTurn, link: Link, *, amount_msat: int) -> None:
    """Check that an HTLC of ours is not one more than our coins could bring in today.

    Raises:
        UpdateRefused: If it is.
    """
    if _lacks(turn, link, amount_msat=amount_msat, is_offered=True, decided=None):
        raise UpdateRefused(
            "coins",
            expected="a coin in the wallet for each HTLC, while fees are above those agreed",
            received=_n_coins(turn, link),
        )


def _lacks(
    turn: AnyTurn, link: Link, *, amount_msat: int, is_offered: bool, decided: Htlc | None
) -> bool:
    terms = link.setting.terms
    if turn.facts.fees.mempool_min_sat_per_kw <= terms.feerate_per_kw:
        return False
    if terms.is_trimmed(amount_msat, is_offered=is_offered):
        return False
    # Coins are for all channels: of a client, or of a house, in whichever factory.
    n_coins, n_own = _n_coins(turn, link), 1 + _n_with_output(turn.book, link, decided=decided)
    n_others = n_needing_coins(turn.book) - _n_with_output(turn.book, link, decided=None)
    if isinstance(turn.state, ClientState):
        return n_own + n_others > n_coins
    n_elsewhere = turn.facts.directory.n_needing_coins(besides=turn.stream)
    is_shared = n_elsewhere is not None or len(turn.book.links) > 1
    n_taken = n_own + n_others + (n_elsewhere or 0)
    # Half of a house's coins are for whoever comes first. Of the other half no channel takes more
    # than one: however many clients act together, they need a channel for each of these.
    is_first_come = n_taken <= (n_coins + 1) // 2
    return n_taken > n_coins or (is_shared and n_own > 1 and not is_first_come)


def n_needing_coins(book: Book) -> int:
    """Return how many HTLCs of all channels need a coin each, should these be on chain today."""
    return sum(_n_with_output(book, link, decided=None) for link in book.links.values())


def _n_with_output(book: Book, link: Link, *, decided: Htlc | None) -> int:
    """Return how many HTLCs of a channel have an output on our commitment, beside the one.

    Of a channel that is over, only those that it has not decided.
    """
    terms = link.setting.terms
    return sum(
        1
        for live in link.state.htlcs
        if live.removal is None
        and live.htlc != decided
        and (link.takes_updates or _is_under_way(book, link, live.htlc))
        and not terms.is_trimmed(live.htlc.amount_msat, is_offered=live.htlc.offered_by is link.me)
    )


def _is_under_way(book: Book, link: Link, htlc: Htlc) -> bool:
    key = (link.channel_id, htlc.htlc_id)
    return key in book.owners if htlc.offered_by is link.me else book.is_awaited(key)


def _n_coins(turn: AnyTurn, link: Link) -> int:
    """Return how many coins are free that can pay for one; a client's own, or its house's."""
    state = turn.state
    least_sat = _least_coin_sat(link, mempool_min_sat_per_kw=turn.facts.fees.mempool_min_sat_per_kw)
    if not isinstance(state, ClientState):
        return turn.facts.directory.n_free_coins(least_sat)
    free = state.wallet.free(state.chain.height)
    return sum(1 for coin in free if coin.txout.amount_sat >= least_sat)


def _least_coin_sat(link: Link, *, mempool_min_sat_per_kw: int) -> int:
    """Return what a coin holds that brings the heaviest HTLC transaction into our mempool.

    Anybody can give us coins that hold less: they must not make us take an HTLC.
    """
    terms = link.setting.terms
    paid_sat = terms.htlc_tx_cost_sat(is_offered=False) - terms.paid_anchor_sat
    return P2TR_DUST_SAT + child_fee_sat(
        ONE_COIN_WEIGHT,
        parent=FeeAndWeight(paid_sat, HTLC_SUCCESS_WEIGHT),
        feerate_sat_per_kw=mempool_min_sat_per_kw,
        mempool_min_sat_per_kw=mempool_min_sat_per_kw,
    )
