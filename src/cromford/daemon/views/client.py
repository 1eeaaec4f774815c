"""A client's state as its operator reads it: plain data, computed on demand, never stored."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from cromford.answers.factories import (
    DyingOwnFactory,
    KeysHandedOver,
    OwnFactoryDetail,
    OwnFactoryOnceChecked,
    OwnFactorySummary,
)
from cromford.answers.factory_words import ClientFactoryStatus, ClientStage
from cromford.bitcoin.tx import Txid
from cromford.daemon.views import channels as channel_views
from cromford.daemon.views.closes import own_close
from cromford.daemon.views.closing import client_close, finished_closes
from cromford.daemon.views.dying import UNKNOWN, show_moving, show_period
from cromford.daemon.views.export import export_branch_terms, export_funding, export_nodes
from cromford.daemon.views.ladder import client_candidates, overtaken_as
from cromford.daemon.views.market import liquidity_of, receipts_of
from cromford.factory.terms import LOOK_ON_CHAIN_BLOCKS
from cromford.protocol.channels.client import is_usable
from cromford.protocol.channels.depth import depth_asked, is_deep
from cromford.protocol.exiting.client import is_swept, link_of, was_closed
from cromford.protocol.exiting.looking import blocks_to_look_away
from cromford.protocol.exiting.through import is_through
from cromford.protocol.facts import Facts
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import FinishedClose, is_frozen
from cromford.protocol.journal.closing import ClientClosing
from cromford.protocol.journal.link import Link
from cromford.watch.remaining import Remaining, path_of, remaining_of

_STAGES: Final[Mapping[str, ClientStage]] = {
    "Received": "received",
    "Checked": "checked",
    "BelowSent": "below_sent",
    "HasExit": "holds_exit",
    "RootSent": "root_sent",
    "Complete": "complete",
}
_NEVER: Final = frozenset({"aborted", "dead", "displaced", "given_up", "moved_out"})
_ENDED: Final = _NEVER | {"closed", "swept"}


def stage_of(attempt: ClientAttempt) -> ClientStage:
    """Return the stage of the ceremony in one word."""
    return _STAGES[type(attempt.stage).__name__]


def status_of(state: ClientState, attempt: ClientAttempt) -> ClientFactoryStatus:
    """Return a factory's status in one word. What the chain shows outweighs what was said.

    `moved_out`: we are, and gave its keys to the LSP; `closed`: a close that we signed is in a
    block; `closing`: one that everybody signed waits for one. `on_chain`: our channel is; `swept`:
    something else than our branch spent an output above it, so nothing in it is ours any more;
    `expired`: the LSP may do that now; `dead`: something else spends a coin of its funding, and is
    as deep as a funding has to be; `displaced`: that is another candidate of its fee ladder than
    the one that our channel is in, so the channel is over.
    """
    if attempt.is_retired:
        return "moved_out"
    is_complete = isinstance(attempt.stage, Complete)
    if is_complete and (overtaken := overtaken_as(attempt, state.chain)):
        return overtaken
    confirmed = is_complete and attempt.funding_tx.txid in state.chain.confirmed
    if confirmed and was_closed(state, attempt):
        return "closed"
    if confirmed and _state_txid(state, attempt) in state.chain.confirmed:
        return "on_chain"
    if confirmed and is_swept(state, attempt):
        return "swept"
    if attempt.is_exiting:
        return "exiting"
    link = link_of(state, attempt) if attempt.ready_sent else None
    if confirmed and link is not None and is_frozen(link.closes, state.chain):
        return "closing"
    if confirmed and attempt.ready_sent and state.chain.height >= attempt.terms.expiry_height:
        return "expired"
    if confirmed and attempt.ready_sent:
        if link is None or not attempt.is_ready_on_both_sides:
            return "confirming"
        return "live" if is_deep(attempt, state.chain, link) else "confirming"
    if confirmed and not attempt.given_up:
        return "confirming"
    if attempt.aborted is not None:
        return "aborted"
    if attempt.given_up:
        return "given_up"
    return "waiting_for_funding" if is_complete else "building"


def meant_by_default(state: ClientState) -> ClientAttempt | None:
    """Return the factory that is meant where none is named; None where there is none.

    The newest that lives and has had a channel, for in others there is no money yet; else the
    newest that lives; else the one that is being built; else the newest that ended, and was more
    than an attempt.
    """
    newest = tuple(reversed(tuple(state.attempts.values())))
    for is_meant in (_has_money, _lives, _is_open, _was_built):
        for attempt in newest:
            if is_meant(state, attempt):
                return attempt
    return None


def _has_money(state: ClientState, attempt: ClientAttempt) -> bool:
    return attempt.is_checked and attempt.ready_sent and _lives(state, attempt)


def _lives(state: ClientState, attempt: ClientAttempt) -> bool:
    if not isinstance(attempt.stage, Complete):
        return False
    return status_of(state, attempt) not in _ENDED and not is_through(state, attempt)


def _is_open(_state: ClientState, attempt: ClientAttempt) -> bool:
    return attempt.is_open


def _was_built(state: ClientState, attempt: ClientAttempt) -> bool:
    # An LSP that aborts and funds all the same has built a factory.
    is_funded = attempt.is_checked and state.chain.depth(attempt.funding_tx.txid) > 0
    return attempt.aborted is None or is_funded


def _state_txid(state: ClientState, attempt: ClientAttempt) -> Txid:
    """Return the state of our leaf that is in a block, or the newest that we hold."""
    return attempt.branch_on(state.chain).vertices[-1].last.tx.txid


def _look_blocks(state: ClientState, attempt: ClientAttempt, *, is_in_sight: bool) -> int | None:
    """Return after how many blocks the client has to be there again; None if it need not be."""
    if status_of(state, attempt) in _NEVER or is_through(state, attempt):
        return None
    most = attempt.terms.look_blocks
    if is_in_sight:
        most = min(most, LOOK_ON_CHAIN_BLOCKS)
    link = link_of(state, attempt)
    if link is None:
        return most
    return blocks_to_look_away(state.book, link, state.chain, most_blocks=most, expires=True)


def summary(state: ClientState, attempt: ClientAttempt, facts: Facts) -> OwnFactorySummary:
    """Return a factory in one line."""
    return {
        "factory_id": attempt.attempt_id.hex(),
        "status": status_of(state, attempt),
        "stage": stage_of(attempt),
        "client": attempt.client,
        **(_once_checked(state, attempt, facts) if attempt.is_checked else _UNCHECKED),
        "aborted": attempt.aborted,
        "given_up": attempt.given_up,
        "ready_sent": attempt.ready_sent,
        "ready_received": attempt.ready_received,
        "is_exiting": attempt.is_exiting,
        "closing": client_close(_closing_of(state, attempt)),
        "closed": finished_closes(_closed_of(state, attempt), state.chain),
        "keys_handed_over": _handed_over(attempt),
        "liquidity": liquidity_of(state, attempt),
        "bought": receipts_of(state, attempt),
    }


_UNCHECKED: Final[OwnFactoryOnceChecked] = {
    "n_clients": None,
    "capacity_sat": None,
    "channel_outpoint": None,
    "funding_txid": None,
    "candidates": [],
    "funding_amount_sat": None,
    "confirmations": 0,
    "min_depth": None,
    "expiry_height": None,
    "blocks_to_expiry": None,
    "exit_deadline_height": None,
    **UNKNOWN,
    "moving": None,
    "exit_blocks": None,
    "look_blocks": None,
    "published": [],
    "channel_status": None,
    "channel_failed": None,
    "close": None,
}


def _once_checked(
    state: ClientState, attempt: ClientAttempt, facts: Facts
) -> OwnFactoryOnceChecked:
    terms, branch = attempt.terms, attempt.branch_on(state.chain)
    remaining, on_chain = remaining_now(state, attempt), published(state, attempt)
    link = next((x for x in state.book.links.values() if x.attempt_id == attempt.attempt_id), None)
    return {
        "n_clients": terms.n_clients,
        "capacity_sat": branch.channel.amount_sat,
        "channel_outpoint": str(branch.channel_outpoint),
        "funding_txid": str(attempt.funding_tx.txid),
        "candidates": client_candidates(attempt, state.chain),
        "funding_amount_sat": branch.funding_amount_sat,
        "confirmations": state.chain.depth(attempt.funding_tx.txid),
        "min_depth": terms.min_depth if link is None else depth_asked(attempt, link),
        "expiry_height": terms.expiry_height,
        "blocks_to_expiry": terms.expiry_height - state.chain.height,
        "exit_deadline_height": remaining.exit_deadline_height,
        **show_period(
            attempt.lifetime,
            state.chain.height,
            is_funded=state.chain.depth(attempt.funding_tx.txid) >= terms.min_depth,
        ),
        "moving": show_moving(state, attempt),
        "exit_blocks": remaining.exit_blocks,
        "look_blocks": _look_blocks(state, attempt, is_in_sight=bool(on_chain)),
        "published": on_chain,
        "close": own_close(state, attempt),
        # Nothing is known before both sides found it ready.
        "channel_status": None
        if link is None
        else channel_views.status_of(link, standing_of(state, link, facts)),
        "channel_failed": None if link is None else link.failure,
    }


def _handed_over(attempt: ClientAttempt) -> KeysHandedOver | None:
    """Return since when the factory's keys are not ours alone, and whether the LSP has them."""
    if attempt.retired_height is None:
        return None
    return {
        "height": attempt.retired_height,
        "taken": attempt.keys_taken,
        "refused": attempt.keys_refused or None,
    }


def _closing_of(state: ClientState, attempt: ClientAttempt) -> ClientClosing | None:
    under_way = state.closing.values()
    return next((one for one in under_way if one.attempt_id == attempt.attempt_id), None)


def _closed_of(state: ClientState, attempt: ClientAttempt) -> list[FinishedClose]:
    """Return the finished closes of a factory's channel."""
    link = link_of(state, attempt) if attempt.is_checked else None
    if link is None:
        return []
    ids = {close.close_id for close in link.closes}
    return [close for close_id, close in state.closed.items() if close_id in ids]


def dying(state: ClientState) -> list[DyingOwnFactory]:
    """Return the factories that die, and how far the client has moved out of each."""
    found = (
        (attempt, show_moving(state, attempt))
        for attempt in state.attempts.values()
        if status_of(state, attempt) in {"live", "expired"}
    )
    return [
        {
            "factory_id": attempt.attempt_id.hex(),
            **show_period(attempt.lifetime, state.chain.height, is_funded=True),
            "moving": moving,
        }
        for attempt, moving in found
        if moving is not None
    ]


def remaining_now(state: ClientState, attempt: ClientAttempt) -> Remaining:
    """Return how long leaving takes now, and until when it must begin."""
    link = link_of(state, attempt)
    if link is not None:
        return link.remaining(state.chain)
    return remaining_of(
        path_of(attempt.branch),
        expiry_height=attempt.terms.expiry_height,
        confirmed=state.chain.confirmed,
        tip_height=state.chain.height,
    )


def published(state: ClientState, attempt: ClientAttempt) -> list[str]:
    """Return what is on chain of the client's own branch, whoever published it."""
    nodes = attempt.branch_on(state.chain).nodes
    return [node.name for node in nodes if node.tx.txid in state.chain.confirmed]


def standing_of(state: ClientState, link: Link, facts: Facts) -> channel_views.Standing:
    """Return how a channel stands to the chain."""
    attempt, chain = state.attempts[link.attempt_id], state.chain
    return channel_views.Standing(
        has_moved_out=attempt.is_retired,
        is_usable=is_usable(state, link),
        is_fresh=facts.is_fresh,
        is_markable=facts.unmarkable is None,
        is_exiting=attempt.is_exiting or channel_views.is_on_chain(link, chain),
        depth=chain.depth(attempt.funding_tx.txid),
        min_depth=depth_asked(attempt, link),
        is_swept=is_swept(state, attempt),
        is_closed=was_closed(state, attempt),
        is_closing=is_frozen(link.closes, chain),
        overtaken=overtaken_as(attempt, chain),
    )


def show(state: ClientState, attempt: ClientAttempt, facts: Facts) -> OwnFactoryDetail:
    """Return everything about a factory: the client's own branch, nothing more."""
    if not attempt.is_checked:
        return {
            **summary(state, attempt, facts),
            "terms": None,
            "transactions": [],
            "funding": None,
        }
    branch = attempt.branch_on(state.chain)
    signatures: dict[str, bytes] = {}
    if isinstance(attempt.stage, Complete):
        below = [node.name for node in branch.nodes_below_root]
        signatures = dict(zip(below, attempt.stage.signatures, strict=True))
        signatures[branch.root_node.name] = attempt.stage.root_signature
        signatures |= attempt.newer_signatures
    return {
        **summary(state, attempt, facts),
        "terms": export_branch_terms(attempt.terms),
        "transactions": export_nodes(branch.nodes, signatures),
        "funding": export_funding(
            attempt.funding_tx,
            amount_sat=branch.funding_amount_sat,
            script_pubkey=branch.funding_output.script_pubkey,
            descriptor=branch.funding_output.descriptor,
            confirmations=state.chain.depth(attempt.funding_tx.txid),
        ),
    }


def with_other_lsps(state: ClientState) -> Counter[bytes]:
    """Return how many channels are with each LSP that this client was not started for.

    Nothing is paid through them; they can be left.
    """
    return Counter(
        link.node_id
        for link in state.book.ordered_links
        if link.node_id != state.config.lsp_node_id
        and not channel_views.is_on_chain(link, state.chain)
    )
