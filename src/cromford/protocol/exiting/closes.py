"""What an exit has to do with cooperative closes: one beside it, and one in a block in its place.

An exit and a finished close may both be published, and one confirms. They do not outbid each other:
what leaves gives way to a close that pays enough, and who does not leave publishes the close alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.factory.vertices import TreeNode
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER, closed_by
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.close_scopes import lsp_scope
from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn, Turn
from cromford.watch.exit import swept_by

SPENT_UNKNOWN: Final = (
    "the factory is over: before its expiry it was spent by a transaction that is not in this"
    " journal, and that takes our own key: look for a copy of the seed, or an older journal, in use"
)


def why_swept(
    nodes: Iterable[TreeNode], chain: KnownChain, *, expiry_height: int, from_expiry: str
) -> str:
    """Return why there is no way to a channel. Until the expiry that takes a signature of ours.

    Args:
        nodes: The transactions of the way.
        chain: What is known of the chain.
        expiry_height: Of the factory.
        from_expiry: Why, for what spent it later.
    """
    sweep = swept_by(nodes, chain.spends)
    height = None if sweep is None else chain.confirmed.get(sweep.txid)
    return SPENT_UNKNOWN if height is not None and height <= expiry_height else from_expiry


def beside_closes(
    effects: Iterable[fx.Effect], closed: Mapping[bytes, FinishedClose]
) -> tuple[fx.Effect, ...]:
    """Return what is published of an exit, or of a tree, beside finished closes.

    Args:
        effects: What would be published without closes.
        closed: The closes that everybody signed, by their names.
    """
    if not closed:
        return tuple(effects)
    closes = {close.outpoint: close for _, close in sorted(closed.items())}
    return tuple(_beside(effects, closes))


def _beside(
    effects: Iterable[fx.Effect], closes: Mapping[OutPoint, FinishedClose]
) -> Iterator[fx.Effect]:
    for effect in effects:
        close = None
        if isinstance(effect, fx.Broadcast):
            close = closes.get(effect.tx.inputs[0].outpoint)
        if close is None or not isinstance(effect, fx.Broadcast):
            yield effect
        elif effect.bumping is not None:
            yield replace(effect, bumping=replace(effect.bumping, twins=close.txids))


def is_closed(link: Link | None, chain: KnownChain) -> bool:
    """Say whether a close of a channel is in a block: nothing is left to leave with."""
    return link is not None and closed_by(link, chain) is not None


def on_closed(turn: AnyTurn, link: Link) -> None:
    """Follow a channel whose close is in a block: over for good once that is deep enough.

    Until then a reorganisation may take it back, and the channel merely stands still. Of HTLCs that
    were still in it none is paid any more: a close pays the client for all of its own.
    """
    txid = closed_by(link, turn.chain)
    if txid is None or turn.chain.depth(txid) < RESOLVED_DEPTH:
        return
    end_updates(turn, link, CLOSED_TOGETHER, tells_peer=False)
    turn.remember(*_returned(turn.book, turn.link(link.channel_id)))


def _returned(book: Book, link: Link) -> Iterator[cr.HtlcDecided]:
    for htlc in book.undecided(link):
        yield cr.HtlcDecided(channel_id=link.channel_id, htlc_id=htlc.htlc_id, preimage=None)


def tell_closed(turn: AnyTurn, links: Iterable[Link], *, payout_script: bytes) -> None:
    """Remember which closes the newest block confirmed, and what they pay to a script of ours."""
    confirmed: dict[bytes, tuple[Link, bytes, Tx]] = {}
    for link in links:
        for close in link.closes:
            spender = close.spender(turn.chain)
            if spender is None or not close.is_confirmed(turn.chain):
                continue
            if turn.chain.confirmed.get(spender.txid) == turn.height:
                confirmed[spender.txid] = (link, close.close_id, spender)
    turn.remember(
        *(
            cl.CloseConfirmed(
                attempt_id=link.attempt_id,
                close_id=close_id,
                height=turn.height,
                txid=txid,
                amount_sat=paid_sat(tx, payout_script),
            )
            for txid, (link, close_id, tx) in confirmed.items()
        )
    )


def tell_closed_for_good(turn: Turn[Factory]) -> None:
    """Remember what closes spent six blocks deep, once: the house lends none of it any more."""
    state = turn.state
    for _, close in sorted(state.closed.items()):
        spender = close.confirmed(turn.chain)
        if spender is None:
            continue
        scope = lsp_scope(state.attempt, close.outpoint)
        is_told = state.closed_seats.issuperset(scope.clients)
        if not is_told and turn.chain.depth(spender.txid) >= RESOLVED_DEPTH:
            turn.remember(
                cl.PartClosed(
                    attempt_id=state.attempt.attempt_id,
                    clients=scope.clients,
                    amount_sat=scope.amount_sat,
                )
            )


def arriving_of_closes_sat(
    closed: Mapping[bytes, FinishedClose], chain: KnownChain, payout_scripts: Iterable[bytes]
) -> int:
    """Return what finished closes that wait for a block pay to scripts of ours, at the least."""
    scripts = frozenset(payout_scripts)
    return sum(
        min(sum(paid_sat(tx, script) for script in scripts) for tx in close.txs)
        for close in closed.values()
        if close.is_waiting(chain)
    )


def close_anchors(state: Factory) -> frozenset[OutPoint]:
    """Return the anchors of closes in blocks: what spends one tells what a child of ours cost."""
    txs = (close.confirmed(state.chain) for close in state.closed.values())
    return frozenset(_anchor_of(tx) for tx in txs if tx is not None)


def child_cost_sat(state: Factory, close: FinishedClose) -> int:
    """Return what our own child of a close took of our payout, in sat; 0 if no block has one.

    Of a child that spends nothing of ours we bear nothing.
    """
    tx, script = close.confirmed(state.chain), state.attempt.payout_script
    child = None if tx is None else state.chain.spends.get(_anchor_of(tx))
    if tx is None or child is None:
        return 0
    spent = {tx_in.outpoint for tx_in in child.inputs}
    ours = (
        output.amount_sat
        for outpoint, output in zip(tx.outpoints, tx.outputs, strict=True)
        if outpoint in spent and output.script_pubkey == script
    )
    own_sat = sum(ours)
    return own_sat - paid_sat(child, script) if own_sat else 0


def _anchor_of(tx: Tx) -> OutPoint:
    return OutPoint(txid=tx.txid, vout=len(tx.outputs) - 1)


def paid_sat(tx: Tx, script_pubkey: bytes) -> int:
    """Return what a transaction pays to a script."""
    outputs = (output for output in tx.outputs if output.script_pubkey == script_pubkey)
    return sum(output.amount_sat for output in outputs)
