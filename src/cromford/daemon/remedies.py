"""What an operator is told of what a role refuses, and can do about it, by the refusal's code."""

from typing import Final

from cromford.daemon.api.failures import EXIT_NOT_FOUND, ApiFailure
from cromford.protocol.faults import Rejected

_LOOK_AT_CLOSE: Final = "`lsp factory show` tells how far it is, and for whom it waits."
_REMEDIES: Final = {
    "chain_stale": "Look after the node, and at `status`. What is owed goes on meanwhile.",
    "mark_unreachable": "Look after the mark's place, and at `backup status`.",
    "clients_away": "A close takes the signature of everybody in it: ask again when they are "
    "connected. Of a part that is on chain only its own clients sign: see --vertex and --client.",
    "close_under_way": f"Wait: it ends by itself, closed or not. {_LOOK_AT_CLOSE}",
    "factory_not_ready": "Ask again when `lsp factories` shows it as live, and all of its clients "
    "as ready.",
    "exit_under_way": "What is being left goes on chain. A part of the factory in which nobody "
    "leaves can be closed once its output is there: see --vertex and --client.",
    "channel_not_ready": f"`lsp balances` shows the channel. {_LOOK_AT_CLOSE}",
    "output_not_there": "`lsp factory show` tells what is on chain, and what was closed. Of a "
    "factory that is partly on chain close what lies there: see --vertex and --client.",
    "vertex_not_found": "`lsp factory show` draws the tree; a transaction's name will do, too.",
    "client_not_found": "`lsp factory show` lists the clients by their numbers.",
    "bad_feerate": "A close pays at least 1.5 times what its tree does, "
    "and twice what the node's mempool takes; a second feerate is above the first.",
    "insufficient_coins": "`wallet balance` shows what is free, what is set aside, and what comes "
    "back with a block. Pay to `wallet address`, or ask for less.",
    "feerate_too_high": "Look after the node: its `minrelaytxfee` is in bitcoin per 1000 vB.",
    "funding_feerate_too_low": "Give a higher one: `lsp build --funding-feerates`, or "
    "lsp.funding_feerate_sat_per_vb in the configuration.",
    "coins_off_chain": "Wait until a block has the coin again. If none does, give up what spends "
    "it: `wallet abandon`, or `lsp factory abandon`.",
    "change_spent": "Wait until a block has it again: by another txid, or none, it would end what "
    "spends it. Or give up that first: `wallet balance` and `lsp factories` show what waits.",
    "coins_taken": "Wait: a block has one of both. `wallet coins` shows what its coins are for.",
    "cannot_close": "Close it in parts, once they are on chain: see --vertex.",
}


def refusal(rejected: Rejected) -> ApiFailure:
    """Return what whoever asked is told."""
    not_found = rejected.code.endswith("not_found")
    return ApiFailure(
        rejected.code,
        str(rejected),
        retryable=rejected.retryable,
        remediation=_REMEDIES.get(rejected.code, ""),
        exit_code=EXIT_NOT_FOUND if not_found else 1,
    )
