"""Closes in a block that a restored store forgot: it signed them, and learns that from the chain.

What spends an output of all signers by one signature has everybody's part in it. In a close's form
it is none of the tree, and no commitment: so it is a close.
"""

from collections.abc import Iterable, Iterator, Mapping

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.crypto.schnorr import SIGNATURE_SIZE
from cromford.factory.close import CannotClose, CloseScope, check_is_close
from cromford.factory.vertices import TreeNode
from cromford.protocol.exiting.closes import is_closed, paid_sat
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.close_scopes import client_scope, known_lsp_scope
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn


def recall_as_client(turn: Turn[ClientState], attempt: ClientAttempt, link: Link) -> None:
    """Remember a close of our channel that is in a block, and that our restored store forgot."""
    state = turn.state
    if not (state.restored.is_unproven or link.may_lack_state) or is_closed(link, state.chain):
        return
    for outpoint, tx in _spent(attempt.branch.nodes, (link,), state.chain):
        scope = client_scope(attempt, outpoint)
        if scope is not None and _has_its_form(scope, tx):
            scripts = {link.channel_id: attempt.join.payout_script}
            turn.remember(_finished(attempt.attempt_id, outpoint, tx, scripts))
            return


def recall_as_lsp(turn: Turn[Factory]) -> None:
    """Remember closes of a factory that are in a block, and that our restored store forgot."""
    state, attempt = turn.state, turn.state.attempt
    links = {
        link.client: link
        for link in state.book.ordered_links
        if state.is_marked or link.may_lack_state
    }
    for outpoint, tx in _spent(attempt.tree.nodes if links else (), links.values(), state.chain):
        scope = known_lsp_scope(attempt, outpoint)
        # None of a channel in a next state of its leaf that we never held.
        clients = () if scope is None else scope.clients
        ended = [links[client] for client in clients if client in links]
        if scope is None or not ended or is_closed(turn.link(ended[0].channel_id), state.chain):
            continue
        if _has_its_form(scope, tx):
            scripts = {
                link.channel_id: attempt.seats[link.client - 1].payout_script for link in ended
            }
            turn.remember(_finished(attempt.attempt_id, outpoint, tx, scripts))


def _spent(
    nodes: Iterable[TreeNode], links: Iterable[Link], chain: KnownChain
) -> Iterator[tuple[OutPoint, Tx]]:
    """Yield what blocks spent of a tree's outputs and of channels', and by which transaction."""
    inputs = (node.tx.inputs[0].outpoint for node in nodes)
    outpoints = [*inputs, *(one.outpoint for link in links for one in link.fundings)]
    for outpoint in dict.fromkeys(outpoints):
        spender = chain.spends.get(outpoint)
        if spender is not None:
            yield outpoint, spender


def _has_its_form(scope: CloseScope, tx: Tx) -> bool:
    try:
        check_is_close(scope, tx)
    except CannotClose:
        return False
    return [len(item) for item in tx.inputs[0].witness] == [SIGNATURE_SIZE]


def _finished(
    attempt_id: bytes, outpoint: OutPoint, tx: Tx, scripts: Mapping[bytes, bytes]
) -> cl.CloseFinished:
    """Return what would have been remembered of it; its txid stands for a name that is lost."""
    return cl.CloseFinished(
        attempt_id=attempt_id,
        close_id=tx.txid,
        outpoint=outpoint.serialize(),
        txs=(tx.serialize(),),
        channels=tuple(scripts),
        balances_msat=tuple(MSAT_PER_SAT * paid_sat(tx, script) for script in scripts.values()),
    )
