"""Cooperative closes as operators read them: what is planned, under way, finished."""

from collections.abc import Iterable

from cromford.answers.closes import (
    ClosePhase,
    CloseUnderWay,
    FinishedOwnClose,
    NamedClose,
    OwnCloseUnderWay,
    PlannedClose,
)
from cromford.bitcoin.fees import sat_per_vb
from cromford.daemon.views.words import close_word
from cromford.protocol.channels.seats import is_own_seat
from cromford.protocol.closing.planning import ClosePlan, link_of
from cromford.protocol.closing.restored import restored_sides
from cromford.protocol.journal.close_scopes import lsp_scope
from cromford.protocol.journal.closes import FinishedClose
from cromford.protocol.journal.closing import ClientClosing, Closing
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.known_chain import KnownChain


def planned_close(factory: Factory, plan: ClosePlan) -> PlannedClose:
    """Return what a close would spend, who is paid what, and what each option costs the LSP."""
    seats, scope = factory.attempt.seats, plan.scope
    first = plan.options[0]
    return {
        "factory_id": factory.attempt.attempt_id.hex(),
        "name": scope.name,
        "outpoint": str(scope.outpoint),
        "amount_sat": scope.amount_sat,
        "clients": [
            {
                "client": client,
                "node_id": seats[client - 1].node_id.hex(),
                "due_msat": payout.due_msat,
                "paid_sat": payout.amount_sat,
                "moved_out": is_own_seat(factory, client),
                "restored": list(restored_sides(link_of(factory, client))),
            }
            for client, payout in zip(scope.clients, first.payouts, strict=True)
        ],
        "omitted": list(first.omitted),
        "options": [
            {
                "feerate_sat_per_vb": sat_per_vb(feerate),
                "fee_sat": option.fee_sat,
                "lsp_sat": option.lsp_sat,
                "vsize": option.vsize,
                "txid": str(option.tx.txid),
            }
            for feerate, option in zip(plan.feerates_sat_per_kw, plan.options, strict=True)
        ],
    }


def close_under_way(factory: Factory) -> CloseUnderWay | None:
    """Return the close under way, who did its part, who holds out; None if there is none."""
    closing = factory.closing
    if closing is None:
        return None
    return {
        **_named(closing),
        "name": lsp_scope(factory.attempt, closing.outpoint).name,
        "phase": close_word(closing.stage),
        "clients": list(closing.clients),
        "done": [client for client in closing.clients if client in closing.stage.done],
        "holdouts": list(closing.holdouts),
    }


def finished_closes(closed: Iterable[FinishedClose], chain: KnownChain) -> list[FinishedOwnClose]:
    """Return the closes that everybody signed, and which transaction of each is in a block."""
    return [
        {
            "close_id": close.close_id.hex(),
            "outpoint": str(close.outpoint),
            "txids": [str(tx.txid) for tx in close.txs],
            "txid": next((str(txid) for txid in close.txids if chain.depth(txid)), None),
            "confirmations": max(chain.depth(tx.txid) for tx in close.txs),
        }
        for close in sorted(closed, key=lambda close: close.close_id)
    ]


def client_close(closing: ClientClosing | None) -> OwnCloseUnderWay | None:
    """Return the close that a client agreed to; None if it waits for none."""
    if closing is None:
        return None
    phase: ClosePhase = "signing" if closing.is_signed else "agreeing"
    return {**_named(closing), "phase": phase, "balance_msat": closing.balance_msat}


def _named(closing: Closing | ClientClosing) -> NamedClose:
    return {
        "close_id": closing.close_id.hex(),
        "outpoint": str(closing.outpoint),
        "feerates_sat_per_vb": [sat_per_vb(rate) for rate in closing.feerates_sat_per_kw],
    }
