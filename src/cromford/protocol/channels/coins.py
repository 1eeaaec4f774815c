"""HTLCs whose transactions nobody would relay by themselves need a coin each, for their children.

One coin bumps one transaction: two anchors in one child, or a child on a child's change, no mempool
takes (BIP 431).
"""

from cromford.channel.content import Htlc
from cromford.channel.errors import UpdateRefused
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn


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
            received=_n_coins(turn),
        )


def _lacks(
    turn: AnyTurn, link: Link, *, amount_msat: int, is_offered: bool, decided: Htlc | None
) -> bool:
    terms = link.setting.terms
    if turn.facts.fees.mempool_min_sat_per_kw <= terms.feerate_per_kw:
        return False
    if terms.is_trimmed(amount_msat, is_offered=is_offered):
        return False
    others = sum(
        1
        for live in link.state.htlcs
        if live.removal is None
        and live.htlc != decided
        and not terms.is_trimmed(live.htlc.amount_msat, is_offered=live.htlc.offered_by is link.me)
    )
    return 1 + others > _n_coins(turn)


def _n_coins(turn: AnyTurn) -> int:
    """Return how many coins are free; those of a client, or of the house."""
    state = turn.state
    if isinstance(state, ClientState):
        return len(state.wallet.free(state.chain.height))
    return turn.facts.directory.n_free_coins()
