"""When a channel that ended is settled for good, so that its house lends nothing in it any more."""

from cromford.bitcoin.tx import OutPoint
from cromford.protocol.channels.close_rules import closed_by
from cromford.protocol.exiting.breach import is_to_be_recalled
from cromford.protocol.exiting.channel import ANY_FEES, RESOLVED_DEPTH, landed_channel
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
    return all(_is_taken(factory, one) for one in _to_be_taken(factory, link))


def tell_settled(turn: Turn[Factory]) -> None:
    """Remember which channels on chain are settled, once: the house lends nothing there any more.

    What is not worth its fee is not waited for: it must not hold the whole channel's capital.
    """
    state = turn.state.landed
    if state.begun is None or state.attempt.funded is None:
        return
    if state.attempt.funding_outpoint not in state.chain.spends:
        return
    for link in state.book.ordered_links:
        is_told = link.client in state.settled or link.client in state.closed_seats
        outpoint = link.funding_on(state.chain).outpoint
        if is_told or not _is_taken(state, outpoint) or closed_by(link, state.chain) is not None:
            continue
        if all(_is_taken(state, one) for one in _to_be_taken(state, link, turn.facts.fees)):
            turn.remember(
                xr.ExitSettled(
                    attempt_id=state.attempt.attempt_id,
                    client=link.client,
                    amount_sat=link.funding_on(state.chain).capacity_sat,
                )
            )


def _to_be_taken(factory: Factory, link: Link, fees: OwnFees | None = None) -> list[OutPoint]:
    """Return a channel's output, and all of it that is ours, spent or not.

    Without HTLCs whose preimage will never come; with fees, also without what is left for them.
    """
    chain, outpoint = factory.chain, link.funding_on(factory.chain).outpoint
    spender = chain.spends.get(outpoint)
    if spender is None or is_to_be_recalled(link, spender):
        return [outpoint]
    channel = landed_channel(in_hand(factory, link.client), chain, fees=fees or ANY_FEES)
    left = set() if fees is None else {one.outpoint for one in left_behind(channel)}
    of_interest = (
        one.outpoint
        for one in takings(channel)
        if not (isinstance(one, PreimageMissing) and _is_its_payers(factory, link, one))
    )
    return [outpoint, *(one for one in of_interest if one not in left)]


def _is_its_payers(factory: Factory, link: Link, missing: PreimageMissing) -> bool:
    """Say whether an HTLC's preimage will never come: whoever offered it takes it back, or not."""
    return not factory.book.is_awaited((link.channel_id, missing.htlc.htlc_id))


def _is_taken(factory: Factory, outpoint: OutPoint) -> bool:
    spender = factory.chain.spends.get(outpoint)
    return spender is not None and factory.chain.depth(spender.txid) >= RESOLVED_DEPTH
