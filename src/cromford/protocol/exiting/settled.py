"""When a channel that ended is settled for good, so that its house lends nothing in it any more."""

from cromford.bitcoin.tx import OutPoint
from cromford.protocol.channels.close_rules import closed_by
from cromford.protocol.exiting.channel import (
    ANY_FEES,
    RESOLVED_DEPTH,
    landed_channel,
    settled_spender,
)
from cromford.protocol.exiting.lsp import in_hand
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.watch.channel_exit import left_behind
from cromford.watch.exit import swept_by
from cromford.watch.feerates import OwnFees
from cromford.watch.landed import PreimageMissing, takings


def is_resolved(factory: Factory, link: Link) -> bool:
    """Say whether a channel ended for good, and nothing of it on chain is still to be taken."""
    chain = factory.chain
    close = closed_by(link, chain)
    sweep = swept_by(factory.attempt.branch_on(link.client, chain).nodes, chain.spends)
    taken = close if sweep is None else sweep.txid
    if taken is not None:
        return chain.depth(taken) >= RESOLVED_DEPTH
    return _is_all_taken(factory, link)


def tell_settled(turn: Turn[Factory]) -> None:
    """Remember which channels on chain are settled, once: the house lends nothing there any more.

    What is not worth its fee is not waited for: it must not hold the whole channel's capital. But
    for a feerate that nobody should believe, at which nothing is.
    """
    state, fees = turn.state.landed, turn.facts.fees
    if state.begun is None or state.attempt.funded is None:
        return
    if state.attempt.funding_outpoint not in state.chain.spends:
        return
    for link in state.book.ordered_links:
        is_told = link.client in state.settled or link.client in state.closed_seats
        if is_told or closed_by(link, state.chain) is not None:
            continue
        if _is_all_taken(state, link, fees if fees.day_sat_per_kw else None):
            turn.remember(
                xr.ExitSettled(
                    attempt_id=state.attempt.attempt_id,
                    client=link.client,
                    amount_sat=link.funding_on(state.chain).capacity_sat,
                )
            )


def _is_all_taken(factory: Factory, link: Link, fees: OwnFees | None = None) -> bool:
    """Say whether all of a channel that is ours was taken, and its output, as deep as it has to be.

    Nothing is waited for of HTLCs whose preimage will never come; with fees, nor what is left for
    them. What a revoked commitment says has to be looked up before.
    """
    chain = factory.chain
    if settled_spender(link, chain) is None:
        return False
    channel = landed_channel(in_hand(factory, link.client), chain, fees=fees or ANY_FEES)
    left = set() if fees is None else {one.outpoint for one in left_behind(channel)}
    return all(
        _is_taken(factory, one.outpoint)
        for one in takings(channel)
        if one.outpoint not in left
        and not (isinstance(one, PreimageMissing) and _is_its_payers(factory, link, one))
    )


def _is_its_payers(factory: Factory, link: Link, missing: PreimageMissing) -> bool:
    """Say whether an HTLC's preimage will never come: whoever offered it takes it back, or not."""
    return not factory.book.is_awaited((link.channel_id, missing.htlc.htlc_id))


def _is_taken(factory: Factory, outpoint: OutPoint) -> bool:
    spender = factory.chain.spends.get(outpoint)
    return spender is not None and factory.chain.depth(spender.txid) >= RESOLVED_DEPTH
