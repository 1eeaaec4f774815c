"""Cooperative closes as an operator reads them: what waits for a block, and what each brought back.

Amounts in sat unless the name says msat.
"""

from collections.abc import Iterable, Iterator

from cromford.answers.closes import CloseItem, CloseSeen, LspClose, OwnClose, OwnCloseStatus
from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.close import CloseScope, Payout
from cromford.factory.outputs import OutputKind, TreeOutput
from cromford.factory.vertices import TreeNode
from cromford.protocol.exiting.client import link_of
from cromford.protocol.exiting.closes import child_cost_sat, paid_sat
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.close_scopes import lsp_scope
from cromford.protocol.journal.closes import FinishedClose, SignedClose
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain


def closes_of(factory: Factory) -> list[LspClose]:
    """Return the finished closes of a factory, and what each brings back to the LSP.

    Its `items` are what opening locked below its outpoint, what the clients are paid of it is not
    among them, and what the close itself costs, with the child of ours that is in a block. They sum
    to `lsp_sat`.
    """
    return [
        _lsp_close(factory, close)
        for _, close in sorted(factory.closed.items())
        if _is_of_use(close, factory.chain)
    ]


def closed_sat(factory: Factory) -> int:
    """Return what closes spent of a factory for good, as its house knows it."""
    scopes = (lsp_scope(factory.attempt, one.outpoint) for one in factory.closed.values())
    gone = factory.closed_seats
    return sum(scope.amount_sat for scope in scopes if gone.issuperset(scope.clients))


def _is_of_use(close: FinishedClose, chain: KnownChain) -> bool:
    """Say whether a close is in a block, or may come to be: no other spender is seen there."""
    spender = chain.spends.get(close.outpoint)
    return spender is None or spender.txid in close.txids


def _lsp_close(factory: Factory, close: FinishedClose) -> LspClose:
    scope = lsp_scope(factory.attempt, close.outpoint)
    tx = _published(close, factory.chain)
    payouts = list(_payouts(factory, close, scope))
    fee_sat = scope.amount_sat - sum(output.amount_sat for output in tx.outputs)
    child_sat = child_cost_sat(factory, close)
    items = _items(factory, scope, payouts, fee_sat=fee_sat, child_sat=child_sat)
    return {
        "close_id": close.close_id.hex(),
        "name": scope.name,
        "clients": list(scope.clients),
        "outpoint": str(close.outpoint),
        "txids": [str(txid) for txid in close.txids],
        "amount_sat": scope.amount_sat,
        **_place(tx, factory.chain),
        "paid_sat": [payout.amount_sat for payout in payouts],
        "items": [{"item": item, "amount_sat": amount_sat} for item, amount_sat in items],
        "lsp_sat": paid_sat(tx, factory.attempt.payout_script) - child_sat,
    }


def _published(close: FinishedClose, chain: KnownChain) -> Tx:
    """Return the transaction of a close that is in a block, else the cheaper one."""
    return next((tx for tx in close.txs if chain.depth(tx.txid)), close.txs[0])


def _place(tx: Tx, chain: KnownChain) -> CloseSeen:
    depth = chain.depth(tx.txid)
    return {
        "status": "confirmed" if depth else "waiting",
        "txid": str(tx.txid),
        "confirmations": depth,
    }


def _payouts(factory: Factory, close: FinishedClose, scope: CloseScope) -> Iterator[Payout]:
    for client in scope.clients:
        link = factory.book.links[factory.attempt.setting(client).channel_id]
        signed = next(one for one in link.closes if one.close_id == close.close_id)
        script = factory.attempt.seats[client - 1].payout_script
        yield Payout(script_pubkey=script, due_msat=signed.balance_msat)


def _items(
    factory: Factory, scope: CloseScope, payouts: Iterable[Payout], *, fee_sat: int, child_sat: int
) -> Iterator[tuple[CloseItem, int]]:
    """Yield what a close brings back, and what it costs, to the satoshi."""
    own_sat = rounded_sat = omitted_sat = 0
    terms = factory.attempt.terms
    for client, payout in zip(scope.clients, payouts, strict=True):
        whole_sat, part_msat = divmod(payout.due_msat, MSAT_PER_SAT)
        broken_sat = 1 if part_msat else 0
        own_sat += terms.capacity_sat[client - 1] - whole_sat - broken_sat
        rounded_sat += broken_sat
        omitted_sat += whole_sat - payout.amount_sat
    nodes = _nodes_from(factory.attempt.tree.nodes, scope.outpoint)
    outputs = [output for node in nodes for output in node.outputs]
    yield "channel_balances", own_sat
    yield "rounded", rounded_sat
    yield "omitted", omitted_sat
    yield "lstock", _sum_of(outputs, OutputKind.LSTOCK)
    yield "tree_fees", sum(node.fee_sat for node in nodes)
    yield "anchors", _sum_of(outputs, OutputKind.ANCHOR)
    yield "close_fee", -fee_sat
    yield "close_anchor", -ANCHOR_DUST_SAT
    yield "close_child", -child_sat


def _sum_of(outputs: Iterable[TreeOutput], kind: OutputKind) -> int:
    return sum(output.amount_sat for output in outputs if output.kind is kind)


def _nodes_from(nodes: Iterable[TreeNode], outpoint: OutPoint) -> list[TreeNode]:
    """Return what would spend an outpoint, and all below it; nodes come parents first."""
    found: list[TreeNode] = []
    for node in nodes:
        spent = node.tx.inputs[0].outpoint
        if spent == outpoint or any(spent.txid == above.tx.txid for above in found):
            found.append(node)
    return found


def own_close(state: ClientState, attempt: ClientAttempt) -> OwnClose | None:
    """Return the close of a client's channel that matters most; None if it signed none.

    `confirmed`: a block has it; `waiting`: everybody signed it; `signed`: we did, and the LSP may
    finish it at any time. `payout_sat` is what it pays us.
    """
    link = link_of(state, attempt)
    if link is None:
        return None
    live = [close for close in link.closes if close.is_live(state.chain)]
    confirmed = [close for close in link.closes if close.is_confirmed(state.chain)]
    finished = [close for close in live if close.is_finished]
    chosen = next(iter([*confirmed, *finished, *live]), None)
    return None if chosen is None else _own_close(state, attempt, chosen)


def _own_close(state: ClientState, attempt: ClientAttempt, close: SignedClose) -> OwnClose:
    script = attempt.join.payout_script
    owed = Payout(script_pubkey=script, due_msat=close.balance_msat)
    spender = close.spender(state.chain)
    finished = state.closed.get(close.close_id)
    status: OwnCloseStatus = "signed"
    tx = None
    if spender is not None and close.is_confirmed(state.chain):
        tx = spender
    elif finished is not None:
        tx = finished.txs[0]
    depth = 0 if tx is None else state.chain.depth(tx.txid)
    if tx is not None:
        status = "confirmed" if depth else "waiting"
    return {
        "close_id": close.close_id.hex(),
        "outpoint": str(close.outpoint),
        "status": status,
        "txid": None if tx is None else str(tx.txid),
        "confirmations": depth,
        "balance_msat": close.balance_msat,
        "payout_sat": owed.amount_sat,
    }
