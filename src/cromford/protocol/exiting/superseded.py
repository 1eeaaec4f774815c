"""States of a leaf that are in a block, and what that says of a channel: alike for both roles.

A state that was replaced, and whose poisons a client may hold, is dead: its channels take no update
any more. The LSP does nothing with poisons but watch them.
"""

from collections.abc import Collection, Iterator
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advance_records import StateSigned
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.next_funding import STATE_HELD
from cromford.protocol.turn import AnyTurn

SUPERSEDED: Final = "a state of the leaf that was replaced is on chain: its poisons take it apart"


def learn_state(turn: AnyTurn, link: Link, under_way: Collection[bytes]) -> None:
    """Remember the signature of a leaf's next state, if a block has it and we do not.

    Whoever signed it last may have published it before it told the others. Once the state before
    was six blocks deep, the advance is over: what a reorganisation brings of it all the same is
    known by its form.

    Args:
        turn: The decision so far.
        link: A channel of the leaf.
        under_way: The ids of the advances that are not over.
    """
    following = link.next
    if following is None or following.stage >= STATE_HELD or following.step is None:
        return
    if following.advance_id not in under_way:
        return
    state = turn.chain.spends.get(following.step.outpoint)
    if state is None or state.txid != following.step.txid:
        return
    (tx_in,) = state.inputs
    turn.remember(
        StateSigned(
            attempt_id=link.attempt_id,
            advance_id=following.advance_id,
            signature=tx_in.witness[0],
        )
    )


def end_if_superseded(turn: AnyTurn, link: Link) -> None:
    """End the updates of a channel whose leaf is on chain in a state that was replaced."""
    if link.is_poisoned(turn.chain):
        end_updates(turn, link, SUPERSEDED, tells_peer=False)


def channel_poison_in(attempt: LspAttempt, link: Link, chain: KnownChain) -> Tx | None:
    """Return the poison of a client's channel that is in a block; None if none is."""
    spender = chain.spends.get(link.funding_on(chain).outpoint)
    if spender is None:
        return None
    for leaf, state in attempt.superseded_states():
        if state.tx.txid != spender.inputs[0].outpoint.txid or state.state_index is None:
            continue
        poison = leaf.channel_poison(state.state_index, link.client)
        return spender if spender.txid == poison.tx.txid else None
    return None


def decided_by_poison(
    book: Book, attempt: LspAttempt, link: Link, chain: KnownChain
) -> Iterator[cr.HtlcDecided]:
    """Yield that an LSP's HTLCs of a channel are lost, once its poison is six blocks deep.

    The client has all of it. What paid for them elsewhere is given back there.
    """
    poison = channel_poison_in(attempt, link, chain)
    if poison is None or chain.depth(poison.txid) < RESOLVED_DEPTH:
        return
    for htlc in book.undecided(link):
        yield cr.HtlcDecided(channel_id=link.channel_id, htlc_id=htlc.htlc_id, preimage=None)


def given_up_with_state(book: Book, link: Link, chain: KnownChain) -> Iterator[cr.HtlcDecided]:
    """Yield that an LSP's HTLCs of a channel are lost that expired before its poison came.

    Six blocks deep, a state on which we revoked all takes the channel from us: by the poison, or we
    punish what comes in its place. Its client need not hurry, but who paid for an HTLC elsewhere
    would have to leave its own channel.
    """
    landed = link.landed(chain)
    if landed is None or landed not in link.superseded:
        return
    if chain.depth(landed.outpoint.txid) < RESOLVED_DEPTH:
        return
    for htlc in book.undecided(link):
        if give_up_height(htlc.cltv_expiry) <= chain.height:
            yield cr.HtlcDecided(channel_id=link.channel_id, htlc_id=htlc.htlc_id, preimage=None)


def given_up_with_funding(book: Book, link: Link, *, height: int) -> Iterator[cr.HtlcDecided]:
    """Yield that an LSP's HTLCs are lost that expired in a channel whose funding lost its place.

    For one that did so six blocks deep: nobody brings that channel on chain. As with a state that a
    poison takes, who paid for an HTLC elsewhere would have to leave its own channel.
    """
    for htlc in book.undecided(link):
        if give_up_height(htlc.cltv_expiry) <= height:
            yield cr.HtlcDecided(channel_id=link.channel_id, htlc_id=htlc.htlc_id, preimage=None)


def stock_poisons_of(state: Factory) -> frozenset[Txid]:
    """Return the txids of what takes superseded L-stocks apart: nothing of it is ours."""
    return frozenset(
        leaf.stock_poison(old.state_index).tx.txid
        for leaf, old in state.attempt.superseded_states()
        if old.state_index is not None
    )


def superseded_stocks(state: Factory) -> frozenset[OutPoint]:
    """Return the L-stocks of states whose poisons clients may hold: we take none of them."""
    return frozenset(
        old.tx.outpoint(len(leaf.clients)) for leaf, old in state.attempt.superseded_states()
    )
