"""The client's exits: when it leaves, and what it does until its coin is in its wallet."""

from collections.abc import Iterator
from typing import Final, assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint
from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.exiting.channel import (
    Holding,
    arriving_sat,
    end_updates,
    given_up,
    htlcs_at_stake,
    is_htlc_at_stake,
    leaving_effects,
    on_chain,
    remember_breach,
    resolved_on_chain,
    watched_outpoints,
)
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import records as r
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.opened import client_link
from cromford.protocol.turn import Turn

LEAVING: Final = "leaving by an exit"


def link_of(state: ClientState, attempt: ClientAttempt) -> Link | None:
    """Return a factory's channel; None before it was ready."""
    return state.book.links.get(attempt.setting.channel_id)


def preimages_of(state: ClientState) -> dict[bytes, bytes]:
    """Return the preimages of what we are being paid, by payment hash."""
    return {
        invoice.payment_hash: invoice.preimage
        for invoice in state.book.invoices.values()
        if invoice.paid_by is not None
    }


def holding_of(state: ClientState, attempt: ClientAttempt) -> Holding:
    """Return what we hold of a factory's channel.

    Raises:
        ValueError: If the attempt is not complete.
    """
    link = link_of(state, attempt)
    return Holding(
        link=link or client_link(attempt),
        terms=attempt.terms,
        signed=attempt.signed_branch,
        preimages=preimages_of(state),
        payout_script=attempt.join.payout_script,
    )


def take(turn: Turn[ClientState], event: ev.ExitEvent) -> None:
    """Take the operator's wish to exit, or what was asked for in an exit.

    Raises:
        Rejected: If there is nothing to exit from.
    """
    match event:
        case ev.ExitRequested():
            on_exit_requested(turn, event.attempt_id)
        case ev.SpendSigned(asked=asked, tx=tx):
            turn.wish(fx.Broadcast(name=asked.spend.name, tx=tx))
        case ev.CommitmentRecalled():
            on_commitment_recalled(turn, event)
        case _:
            assert_never(event)


def on_exit_requested(turn: Turn[ClientState], attempt_id: bytes) -> None:
    """Leave a factory because the operator says so.

    Raises:
        Rejected: If there is nothing to leave from.
    """
    attempt = turn.state.attempts.get(attempt_id)
    if attempt is None:
        raise Rejected("factory_not_found", f"no factory {attempt_id.hex()}")
    if not isinstance(attempt.stage, Complete):
        raise Rejected("factory_not_complete", "the branch is not signed; nothing was funded")
    if turn.chain.depth(attempt.funding_tx.txid) == 0:
        raise Rejected("factory_not_funded", "the funding is not confirmed", retryable=True)
    start_exit(turn, attempt, "the operator's wish")


def start_exit(turn: Turn[ClientState], attempt: ClientAttempt, reason: str) -> None:
    """Leave a factory: from here on its channel takes no update.

    What is published must stay our latest commitment: to go on with updates would revoke it.
    """
    if not attempt.is_exiting:
        turn.remember(
            r.ExitStarted(
                attempt_id=attempt.attempt_id, client=attempt.propose.client, reason=reason
            )
        )
        link = link_of(turn.state, attempt)
        if link is not None:
            end_updates(turn, link, LEAVING, tells_peer=True)
    turn.wish(*exit_effects(turn.state, turn.state.attempts[attempt.attempt_id]))


def exit_effects(state: ClientState, attempt: ClientAttempt) -> tuple[fx.Effect, ...]:
    """Return what is to be published now for a channel that is left, or that the LSP left."""
    if not isinstance(attempt.stage, Complete):
        return ()
    if not attempt.is_exiting and attempt.branch.channel_outpoint not in state.chain.spends:
        return ()
    return leaving_effects(holding_of(state, attempt), state.chain, is_exiting=attempt.is_exiting)


def on_commitment_recalled(turn: Turn[ClientState], recalled: ev.CommitmentRecalled) -> None:
    """Punish the LSP for a commitment that it had revoked."""
    if remember_breach(turn, recalled):
        link = turn.link(recalled.asked.channel_id)
        turn.wish(*exit_effects(turn.state, turn.state.attempts[link.attempt_id]))


def arriving_total_sat(state: ClientState) -> int:
    """Return what is on its way to the wallet out of all channels that are on chain."""
    return sum(
        arriving_sat(holding_of(state, attempt), state.chain)
        for attempt in state.attempts.values()
        if isinstance(attempt.stage, Complete)
        and attempt.branch.channel_outpoint in state.chain.spends
    )


def watched(state: ClientState) -> frozenset[OutPoint]:
    """Return the outpoints whose spends matter."""
    outpoints: set[OutPoint] = set()
    for attempt in state.attempts.values():
        if isinstance(attempt.stage, Complete):
            outpoint = attempt.branch.channel_outpoint
            outpoints.add(outpoint)
            if outpoint in state.chain.spends:
                outpoints.update(watched_outpoints(holding_of(state, attempt), state.chain))
    return frozenset(outpoints)


def on_block(turn: Turn[ClientState]) -> None:
    """Do what a new block makes due: leave in time, and learn what the chain decided."""
    for attempt in turn.state.attempts.values():
        state = turn.state
        link = link_of(state, attempt) if attempt.ready_sent else None
        if link is None:
            continue
        reason = None if attempt.is_exiting else _reason_to_leave(state, attempt, link)
        if reason is not None:
            start_exit(turn, attempt, reason)
        if attempt.is_exiting:
            # It may have begun before there was a channel whose updates could be ended.
            end_updates(turn, link, LEAVING, tells_peer=True)
        on_chain(turn, link)
        turn.remember(*_resolved(state, attempt, link))
        if reason is None and link.failure is not None and not _is_leaving(state, attempt):
            # The channel is over and its small HTLCs are not worth an exit.
            turn.remember(*given_up(state.book, link, height=turn.height))


def _is_leaving(state: ClientState, attempt: ClientAttempt) -> bool:
    return attempt.is_exiting or attempt.branch.channel_outpoint in state.chain.spends


def _reason_to_leave(state: ClientState, attempt: ClientAttempt, link: Link) -> str | None:
    height = state.chain.height
    if state.chain.depth(attempt.funding_tx.txid) == 0:
        return None
    if attempt.branch.channel_outpoint in state.chain.spends:
        return None
    if is_htlc_at_stake(link, preimages_of(state), height=height):
        return "an HTLC expires"
    has_balance = balance_of(link).own_msat > MSAT_PER_SAT * link.exit_cost_sat
    is_worth_it = has_balance or htlcs_at_stake(link, preimages_of(state))
    if height >= link.exit_deadline_height and is_worth_it:
        return "the exit deadline"
    return None


def _resolved(state: ClientState, attempt: ClientAttempt, link: Link) -> Iterator[cr.HtlcDecided]:
    if attempt.branch.channel_outpoint in state.chain.spends:
        yield from resolved_on_chain(state.book, link, holding_of(state, attempt), state.chain)
