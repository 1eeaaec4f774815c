"""The client's exits: when it leaves, and what it does until its coin is in its wallet."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from typing import Final, assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint
from cromford.protocol import events as ev
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.htlc_rules import is_in_time
from cromford.protocol.exiting.channel import (
    DEAD_FUNDING,
    allow_stale,
    arriving_sat,
    exit_effects_of,
    never_signed,
    on_chain,
    owes_commitment,
    remember_breach,
    resolved_on_chain,
    spend_of,
    tell_published,
    watched_outpoints,
)
from cromford.protocol.exiting.closes import (
    arriving_of_closes_sat,
    beside_closes,
    is_closed,
    on_closed,
    tell_closed,
    why_swept,
)
from cromford.protocol.exiting.forgotten import recall_as_client
from cromford.protocol.exiting.in_hand import InHand, stake_of
from cromford.protocol.exiting.lending import (
    Need,
    first_published,
    given_up_for,
    needs_of,
    returned,
    settled_coins,
)
from cromford.protocol.exiting.outgoing import ended_untold
from cromford.protocol.exiting.poisons import (
    poison_effects,
    poison_outpoints,
    poisons_arriving_sat,
)
from cromford.protocol.exiting.stake import (
    HTLC_EXPIRES,
    failed_long_ago,
    htlcs_at_stake,
    is_failed_for_long,
    is_htlc_at_stake,
    is_worth_an_exit,
    may_be_worth_an_exit,
    patient,
)
from cromford.protocol.exiting.superseded import end_if_superseded, learn_state
from cromford.protocol.facts import Lacking
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.opened import client_link
from cromford.protocol.journal.purses import (
    N_COINS_MAX,
    Purses,
    change_script_of,
    least_of_use_sat,
)
from cromford.protocol.turn import Turn
from cromford.watch.exit import swept_by
from cromford.watch.feerates import OwnFees

EXITING: Final = "leaving by an exit"
EXIT_DEADLINE: Final = "the exit deadline"
MOVED_OUT: Final = "we moved out of this factory, and its keys are not ours alone any more"
SWEPT: Final = "the factory is over: something else than the way to this channel was published"


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


def in_hand(state: ClientState, attempt: ClientAttempt) -> InHand:
    """Return what we hold of a factory's channel.

    Raises:
        ValueError: If the attempt is not complete.
    """
    link = link_of(state, attempt) or client_link(attempt)
    return InHand(
        link=link,
        terms=attempt.terms,
        signed=attempt.signed_branch_on(state.chain),
        preimages=preimages_of(state),
        payout_script=attempt.join.payout_script,
        stake=stake_of(link, htlcs_at_stake(state.book, link), state.chain, expires=True),
        published=state.published,
        # Without coins that a reorganisation took away.
        purses=_with_live_coins(state.purses, state.wallet.coins),
    )


def _with_live_coins(held: Purses, coins: Container[OutPoint]) -> Purses:
    """Return purses without what is none of these coins."""
    purses = held
    for outpoint, purse in held.items():
        live = tuple(coin for coin in purse.coins if coin.outpoint in coins)
        if len(live) < len(purse.coins):
            purses = purses.set(outpoint, replace(purse, coins=live))
    return purses


def take(turn: Turn[ClientState], event: ev.ExitEvent) -> None:
    """Take the operator's wish to exit, or what was asked for in an exit.

    Raises:
        Rejected: If there is nothing to exit from.
    """
    match event:
        case ev.ExitRequested():
            on_exit_requested(turn, event)
        case ev.ExitPauseRequested():
            on_pause_requested(turn, event.attempt_id)
        case ev.TakingTxSigned(asked=asked, tx=tx):
            turn.ask(spend_of(asked, tx))
        case ev.PayoutsSigned(asked=payouts, tx=tx):
            turn.ask(fx.Broadcast(name=payouts.spend.name, tx=tx, replaces=True))
        case ev.SweepSigned():
            raise AssertionError("SweepSigned is an LSP's event")
        case ev.CommitmentRecalled():
            on_commitment_recalled(turn, event)
        case _:
            assert_never(event)


def on_exit_requested(turn: Turn[ClientState], event: ev.ExitRequested) -> None:
    """Leave a factory because the operator says so.

    With a store that was restored this publishes the path alone: the LSP's commitment pays both,
    unless the operator takes the risk of ours.

    Raises:
        Rejected: If there is nothing to leave from.
    """
    attempt = turn.state.attempts.get(event.attempt_id)
    if attempt is None:
        raise Rejected("factory_not_found", f"no factory {event.attempt_id.hex()}")
    if not isinstance(attempt.stage, Complete):
        raise Rejected("factory_not_complete", "the branch is not signed; nothing was funded")
    if attempt.is_retired:
        raise Rejected("moved_out", MOVED_OUT)
    if attempt.is_overtaken(turn.chain):
        raise Rejected("factory_dead", DEAD_FUNDING)
    if turn.chain.depth(attempt.funding_tx.txid) == 0:
        raise Rejected("factory_not_funded", "the funding is not confirmed", retryable=True)
    if was_closed(turn.state, attempt):
        raise Rejected("factory_closed", f"{CLOSED_TOGETHER}: the close pays what was yours")
    sweep = swept_by(attempt.branch_on(turn.chain).nodes, turn.chain.spends)
    if sweep is not None:
        raise Rejected("factory_swept", f"{SWEPT}: {sweep.txid} spent it")
    if event.publishes_stale:
        allow_stale(turn, link_of(turn.state, attempt), is_restored=False)
    start_exit(turn, attempt, "the operator's wish")


def start_exit(turn: Turn[ClientState], attempt: ClientAttempt, reason: str) -> None:
    """Leave a factory: from here on its channel takes no update.

    What is published must stay our latest commitment: to go on with updates would revoke it.
    """
    if not attempt.is_exiting:
        turn.remember(
            xr.ExitStarted(
                attempt_id=attempt.attempt_id,
                client=attempt.client,
                reason=reason,
            )
        )
        link = link_of(turn.state, attempt)
        if link is not None:
            end_updates(turn, link, EXITING, tells_peer=True)
    else:
        go_on(turn, attempt, reason)
    lend(turn)
    turn.ask(*exit_effects(turn.state, turn.state.attempts[attempt.attempt_id], turn.facts.fees))


def on_pause_requested(turn: Turn[ClientState], attempt_id: bytes) -> None:
    """Let an exit rest, until the operator goes on with it, or it has to go on.

    Raises:
        Rejected: If there is no exit under way, or waiting could lose something already.
    """
    attempt = turn.state.attempts.get(attempt_id)
    if attempt is None:
        raise Rejected("factory_not_found", f"no factory {attempt_id.hex()}")
    if not attempt.is_exiting:
        raise Rejected("not_exiting", f"no exit from {attempt_id.hex()} is under way")
    reason = _hurry(turn.state, attempt, height=turn.known_height)
    if reason is not None:
        raise Rejected("exit_is_due", f"the exit cannot wait: {reason}")
    if not attempt.is_paused:
        turn.remember(xr.ExitPaused(attempt_id=attempt_id))


def go_on(turn: Turn[ClientState], attempt: ClientAttempt, reason: str) -> None:
    """Go on with an exit that rests."""
    if turn.state.attempts[attempt.attempt_id].is_paused:
        turn.remember(xr.ExitResumed(attempt_id=attempt.attempt_id, reason=reason))


def lend(turn: Turn[ClientState]) -> tuple[fx.Effect, ...]:
    """Set coins aside for what has to confirm and pays too little; take back what is settled.

    So is what hurries much less than what there is no coin for. Returns what is to be published
    then, of all factories.
    """
    turn.remember(*settled_coins(turn.state.purses, turn.chain))
    effects = _all_effects(turn)
    news = tuple(first_published(effects, turn.state.published, height=turn.known_height))
    if news:
        turn.remember(*news)
        effects = _all_effects(turn)
    effects = _lend_to_all(turn, effects)
    waiting = {
        need.outpoint: Lacking(need.whole_sat, need.feerate_sat_per_kw)
        for need in needs_of(effects)
    }
    # Coins that are gone help nobody, wherever they went.
    purses = _with_live_coins(turn.state.purses, turn.state.wallet.unspent)
    lazy = given_up_for(
        purses, effects, waiting, has_some=lambda one: one in purses and bool(purses[one].coins)
    )
    if lazy is None:
        return effects
    turn.remember(returned(lazy, turn.state.purses[lazy], turn.chain))
    return _lend_to_all(turn, _all_effects(turn))


def _lend_to_all(turn: Turn[ClientState], effects: tuple[fx.Effect, ...]) -> tuple[fx.Effect, ...]:
    """Set coins aside for what lacks some; return what is to be published then.

    The feerate says what hurries most: it has the first choice of what coins there are.
    """
    needs = sorted(needs_of(effects), key=lambda need: -need.feerate_sat_per_kw)
    for need in needs:
        _lend(turn, need)
    return _all_effects(turn) if needs else effects


def _all_effects(turn: Turn[ClientState]) -> tuple[fx.Effect, ...]:
    """Return what is to be published now of all factories."""
    state, fees = turn.state, turn.facts.fees
    return tuple(
        effect
        for attempt in state.attempts.values()
        for effect in exit_effects(state, attempt, fees)
    )


def _lend(turn: Turn[ClientState], need: Need) -> None:
    state = turn.state
    coins = state.wallet.purse_coins(
        need.needed_sat,
        held_sat=need.held_sat,
        n_most=N_COINS_MAX,
        free=state.wallet.free(turn.height),
        input_sat=need.input_sat,
        above_sat=least_of_use_sat(need.coins),
    )
    if coins:
        turn.remember(
            xr.CoinsLent(
                outpoint=need.outpoint.serialize(),
                coins=tuple(coin.outpoint.serialize() for coin in coins),
                change_script=change_script_of(state.wallet, state.purses, need.outpoint),
            )
        )


def exit_effects(
    state: ClientState, attempt: ClientAttempt, fees: OwnFees
) -> tuple[fx.Effect, ...]:
    """Return what is to be published now for a channel that is left, or that the LSP left."""
    if not isinstance(attempt.stage, Complete) or attempt.is_retired:
        return ()
    if is_over(state, attempt) or not _concerns_us(state, attempt):
        return ()
    effects = exit_effects_of(
        in_hand(state, attempt),
        state.chain,
        fees=fees,
        is_exiting=attempt.is_exiting,
        is_paused=attempt.is_paused,
    )
    return (
        *_without_old_state(attempt, beside_closes(effects, state.closed)),
        *poison_effects(state, attempt, fees),
    )


def _without_old_state(attempt: ClientAttempt, effects: Iterable[fx.Effect]) -> Iterator[fx.Effect]:
    """Yield what is published while the LSP is asked for newer states of our leaf: not ours."""
    held_back = attempt.branch.vertices[-1].last.tx.txid if attempt.awaits_states else None
    for effect in effects:
        if not isinstance(effect, fx.Broadcast) or effect.tx.txid != held_back:
            yield effect


def _concerns_us(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether there can be anything to publish: we leave, or somebody published our path."""
    funding = attempt.branch.root_node.tx.inputs[0].outpoint
    return (
        attempt.is_exiting
        or funding in state.chain.spends
        or owes_commitment(link_of(state, attempt))
    )


def on_commitment_recalled(turn: Turn[ClientState], recalled: ev.CommitmentRecalled) -> None:
    """Punish the LSP for a commitment that it had revoked."""
    if remember_breach(turn, recalled):
        link = turn.link(recalled.asked.channel_id)
        turn.ask(*exit_effects(turn.state, turn.state.attempts[link.attempt_id], turn.facts.fees))


def arriving_total_sat(state: ClientState) -> int:
    """Return what is on its way to the wallet: of channels that are on chain, finished closes."""
    scripts = (attempt.join.payout_script for attempt in state.attempts.values())
    return arriving_of_closes_sat(state.closed, state.chain, scripts) + sum(
        arriving_of_attempt_sat(state, attempt)
        for attempt in state.attempts.values()
        if isinstance(attempt.stage, Complete)
        and not attempt.is_retired
        and attempt.funding_outpoint in state.chain.spends
    )


def arriving_of_attempt_sat(state: ClientState, attempt: ClientAttempt) -> int:
    """Return what is on its way out of one factory: of our channel, or of poisons."""
    holding, chain = in_hand(state, attempt), state.chain
    coming_sat = poisons_arriving_sat(attempt, chain)
    if holding.link.funding_on(chain).outpoint in chain.spends:
        coming_sat += arriving_sat(holding, chain)
    return coming_sat


def watched(state: ClientState) -> frozenset[OutPoint]:
    """Return the outpoints whose spends matter."""
    outpoints: set[OutPoint] = set()
    for attempt in state.attempts.values():
        if isinstance(attempt.stage, Complete) and not attempt.is_retired:
            outpoints |= attempt.candidate.branch_outpoints | _channel_outpoints(state, attempt)
            outpoints |= poison_outpoints(attempt, state.chain)
            if _is_channel_spent(state, attempt):
                outpoints.update(watched_outpoints(in_hand(state, attempt), state.chain))
    return frozenset(outpoints)


def _channel_outpoints(state: ClientState, attempt: ClientAttempt) -> frozenset[OutPoint]:
    """Return where our channel may be, or is, though our store forgot of that state."""
    link = link_of(state, attempt)
    if link is None:
        return frozenset(funding.outpoint for funding in attempt.fundings)
    fundings = (*link.fundings, *attempt.fundings, link.funding_on(state.chain))
    return frozenset(funding.outpoint for funding in fundings)


def _is_channel_spent(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether our channel's output is on chain, and spent."""
    link = link_of(state, attempt)
    funding = attempt.setting.funding if link is None else link.funding_on(state.chain)
    return funding.outpoint in state.chain.spends


def learn_from_block(turn: Turn[ClientState]) -> None:
    """Remember what the newest block shows of states that we signed and were not told of."""
    under_way = {one.advance_id for one in turn.state.advances.values()}
    for link in turn.book.ordered_links if under_way else ():
        learn_state(turn, link, under_way)


def on_block(turn: Turn[ClientState]) -> None:
    """Do what a new block makes due: leave in time, and learn what the chain decided."""
    for attempt in turn.state.attempts.values():
        if attempt.is_retired:
            continue
        if isinstance(attempt.stage, Complete):
            nodes = attempt.branch_on(turn.chain).nodes
            tell_published(turn, attempt.attempt_id, nodes)
        state = turn.state
        link = link_of(state, attempt) if attempt.ready_sent else None
        if link is None:
            continue
        recall_as_client(turn, attempt, link)
        state, link = turn.state, turn.link(link.channel_id)
        if is_closed(link, state.chain):
            tell_closed(turn, (link,), payout_script=attempt.join.payout_script)
            on_closed(turn, link)
            continue
        end_if_superseded(turn, link)
        reason = _reason_to_exit(turn, attempt, link, height=turn.height)
        if reason is not None:
            start_exit(turn, attempt, reason)
        _end_rest(turn, attempt)
        if attempt.is_exiting:
            # It may have begun before there was a channel whose updates could be ended.
            end_updates(turn, link, EXITING, tells_peer=True)
        on_chain(turn, link)
        if is_swept(turn.state, attempt):
            end_updates(turn, link, _why_swept(turn.state, attempt), tells_peer=False)
        # A payment that was signed and that nobody answers is never said to have failed.
        turn.remember(*_resolved(turn.state, attempt, link))
        turn.remember(*never_signed(turn.book, turn.link(link.channel_id)))
        _end_outgoing(turn, attempt, turn.link(link.channel_id))


def _end_outgoing(turn: Turn[ClientState], attempt: ClientAttempt, link: Link) -> None:
    """Let HTLCs of ours be over of which nothing will tell; nothing in the channel answers now."""
    ended = tuple(ended_untold(turn.state, attempt, link, in_hand))
    if ended and link.mark is None:
        end_updates(turn, link, ended[0].reason, tells_peer=False)
    turn.remember(*ended)


def on_headers(turn: Turn[ClientState]) -> None:
    """Leave in time though blocks do not come, by the headers of those that the node has not shown.

    What they hold may have ended what we leave: then nothing that is published finds its coin. A
    block that is only still to be read is waited for instead: it says better what to do.
    """
    for attempt in turn.state.attempts.values():
        link = link_of(turn.state, attempt) if attempt.ready_sent else None
        if link is not None:
            reason = _reason_to_exit(turn, attempt, link, height=turn.known_height)
            if reason is not None:
                start_exit(turn, attempt, reason)
        _end_rest(turn, attempt)


def _end_rest(turn: Turn[ClientState], attempt: ClientAttempt) -> None:
    """Go on with an exit that rests, once waiting could lose something."""
    if attempt.is_paused:
        reason = _hurry(turn.state, attempt, height=turn.known_height)
        if reason is not None:
            start_exit(turn, attempt, reason)


def _hurry(state: ClientState, attempt: ClientAttempt, *, height: int) -> str | None:
    """Return why an exit cannot wait any longer; None if it can."""
    link = link_of(state, attempt) or client_link(attempt)
    if is_htlc_at_stake(state.book, link, chain=state.chain, height=height):
        return HTLC_EXPIRES
    return None if is_in_time(link, state.chain, height=height) else EXIT_DEADLINE


def is_swept(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether an output above our channel went elsewhere: not to our branch, nor by a close."""
    return (
        isinstance(attempt.stage, Complete)
        and swept_by(attempt.branch_on(state.chain).nodes, state.chain.spends) is not None
        and not was_closed(state, attempt)
    )


def was_closed(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether a close that we signed is in a block, above our channel or in its place.

    It is known by the transactions that we signed, whether or not anybody told us that it was
    finished.
    """
    return is_closed(link_of(state, attempt), state.chain)


def is_over(state: ClientState, attempt: ClientAttempt) -> bool:
    """Say whether there is no way to our channel any more: it was closed, or went elsewhere."""
    return was_closed(state, attempt) or is_swept(state, attempt)


def _why_swept(state: ClientState, attempt: ClientAttempt) -> str:
    nodes, expiry_height = attempt.branch_on(state.chain).nodes, attempt.terms.expiry_height
    return why_swept(nodes, state.chain, expiry_height=expiry_height, from_expiry=SWEPT)


def _reason_to_exit(
    turn: Turn[ClientState], attempt: ClientAttempt, link: Link, *, height: int
) -> str | None:
    state = turn.state
    if attempt.is_retired or attempt.is_exiting or state.chain.depth(attempt.funding_tx.txid) == 0:
        return None
    if _is_channel_spent(state, attempt) or is_over(state, attempt):
        return None
    if link.is_poisoned(state.chain):
        return None  # Its poisons are published without it.
    # Where blocks do not come there is no time to wait.
    waiting = patient(turn, link) if height == turn.height else ()
    if is_htlc_at_stake(state.book, link, chain=state.chain, height=height, patient=waiting):
        return HTLC_EXPIRES
    if not is_in_time(link, state.chain, height=height):
        is_worth_it = may_be_worth_an_exit(state.book, link, turn.facts.fees)
        return EXIT_DEADLINE if is_worth_it else None
    if not is_worth_an_exit(state.book, link, turn.facts.fees):
        return None
    if is_frozen(link.closes, state.chain):
        return None  # It did not fail: a close of it is on its way.
    n_blocks = state.config.policy.failed_channel_blocks
    if is_failed_for_long(link, failed_channel_blocks=n_blocks, height=height):
        return failed_long_ago(link)
    return None


def _resolved(state: ClientState, attempt: ClientAttempt, link: Link) -> Iterator[cr.HtlcDecided]:
    if _is_channel_spent(state, attempt):
        yield from resolved_on_chain(state.book, link, in_hand(state, attempt), state.chain)
