"""When a client has nothing to look after in a factory any more."""

from collections.abc import Iterator

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.protocol.channels.close_rules import closed_by
from cromford.protocol.exiting.breach import is_to_be_recalled
from cromford.protocol.exiting.channel import RESOLVED_DEPTH, landed_channel
from cromford.protocol.exiting.client import in_hand, link_of
from cromford.protocol.exiting.poisons import held_poisons
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.watch.exit import swept_by
from cromford.watch.landed import takings


def is_through(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether all that a factory held for us was taken, or went elsewhere, for good.

    From then on nothing of it can be lost, whether or not anybody looks at the chain.
    """
    link, chain = link_of(state, attempt), state.chain
    if link is None:
        return False
    taken = _taken_above(state, attempt, link)
    if taken is not None:
        return chain.depth(taken) >= RESOLVED_DEPTH
    spender = chain.spends.get(link.funding_on(chain).outpoint)
    if spender is None or is_to_be_recalled(link, spender):
        return False
    if link.is_poisoned(chain) and not held_poisons(attempt, chain):
        return False  # A restored store lacks them: what they pay is ours all the same.
    spenders = [chain.spends.get(outpoint) for outpoint in _ours(state, attempt, link)]
    return all(one is not None and chain.depth(one.txid) >= RESOLVED_DEPTH for one in spenders)


def _taken_above(state: ClientState, attempt: ClientAttempt, link: Link) -> Txid | None:
    """Return what ended our channel before it was on chain: a close, or a sweep of what expired."""
    close = closed_by(link, state.chain)
    if close is not None:
        return close
    sweep = swept_by(attempt.branch_on(state.chain).nodes, state.chain.spends)
    return None if sweep is None else sweep.txid


def _ours(state: ClientState, attempt: ClientAttempt, link: Link) -> Iterator[OutPoint]:
    """Yield the channel's output, and what its commitment, and poisons, have for us."""
    chain = state.chain
    yield link.funding_on(chain).outpoint
    for one in takings(landed_channel(in_hand(state, attempt), chain)):
        yield one.outpoint
    for poison in held_poisons(attempt, chain):
        if poison.own_outpoint is not None:
            yield poison.own_outpoint if poison.tx.txid in chain.confirmed else poison.spends
