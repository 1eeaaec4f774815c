"""The LSP's exits: bringing a client's channel on chain, and taking what is the LSP's there."""

from collections.abc import Collection, Iterator
from typing import Final, assert_never

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint
from cromford.protocol import events as ev
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.seats import link_of
from cromford.protocol.exiting.channel import (
    DEAD_FUNDING,
    allow_stale,
    arriving_sat,
    earned_on_chain,
    exit_effects_of,
    given_up,
    has_lost_its_place,
    never_signed,
    on_chain,
    owes_commitment,
    preimages_told,
    remember_breach,
    resolved_on_chain,
    spend_of,
    tell_published,
    watched_outpoints,
)
from cromford.protocol.exiting.closes import (
    arriving_of_closes_sat,
    beside_closes,
    close_anchors,
    is_closed,
    on_closed,
    tell_closed,
    tell_closed_for_good,
    why_swept,
)
from cromford.protocol.exiting.forgotten import recall_as_lsp
from cromford.protocol.exiting.in_hand import InHand, stake_of
from cromford.protocol.exiting.incoming import ended_with_channel
from cromford.protocol.exiting.lending import (
    first_published,
    given_up_for,
    is_much_more,
    needs_of,
    outdated,
    returned,
    settled_coins,
)
from cromford.protocol.exiting.lsp_sweep import (
    awaited_outputs,
    effects_of,
    is_to_be_swept,
    lost_by_sweep,
    sweep_actions,
    tell_swept,
    watched_outputs,
    without_what_is_swept,
)
from cromford.protocol.exiting.stake import (
    HTLC_EXPIRES,
    failed_long_ago,
    htlcs_at_stake,
    is_failed_for_long,
    is_htlc_at_stake,
    is_just_back,
    is_worth_an_exit,
    patient,
)
from cromford.protocol.exiting.superseded import (
    SUPERSEDED,
    decided_by_poison,
    end_if_superseded,
    given_up_with_funding,
    given_up_with_state,
    learn_state,
)
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.book import Errand
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.opened import lsp_link
from cromford.protocol.journal.streams import HOUSE
from cromford.protocol.turn import Turn
from cromford.watch.exit import swept_by
from cromford.watch.feerates import OwnFees

EXITING: Final = "the LSP brings the channel on chain"
RESTORED: Final = (
    "the store was restored from a backup: what it has of this factory may be superseded, and is "
    "not published; the factory is swept at its expiry"
)
SWEPT: Final = "the factory expired, and was swept above this channel"


def preimages_of(state: Factory, link: Link) -> dict[bytes, bytes]:
    """Return the preimages that claim the incoming HTLCs of a channel, by payment hash.

    Of its forwards that are not answered yet, and of answers that the client may never have got.
    What another client's HTLC was paid for claims nothing here: nobody was paid for this one.
    """
    unanswered = {
        forward.payment_hash: forward.preimage
        for forward in state.book.forwards.values()
        if forward.preimage is not None and forward.incoming[0] == link.channel_id
    }
    return {**unanswered, **preimages_told(link)}


def in_hand(state: Factory, client: int) -> InHand:
    """Return what we hold of the channel with a client.

    Raises:
        ValueError: If the tree is not completely signed.
    """
    attempt = state.attempt
    link = link_of(state, client) or lsp_link(attempt, client, is_marked=state.is_unproven(client))
    return InHand(
        link=link,
        terms=attempt.terms,
        signed=attempt.signed_branch_on(client, state.chain),
        preimages=preimages_of(state, link),
        payout_script=attempt.payout_script,
        stake=stake_of(
            link,
            htlcs_at_stake(state.book, link),
            state.chain,
            expires=False,
            forwarded=_forwarded(state, link),
        ),
        published=state.published,
        purses=state.purses,
    )


def _forwarded(state: Factory, link: Link) -> Iterator[int]:
    """Yield the ids of our HTLCs of a channel that pay for one of another client's."""
    for live in link.state.htlcs:
        owner = state.book.owners.get((link.channel_id, live.htlc.htlc_id))
        if live.htlc.offered_by is link.me and isinstance(owner, Errand) and owner.asker != HOUSE:
            yield live.htlc.htlc_id


def take(turn: Turn[Factory], event: ev.ExitEvent) -> None:
    """Take the operator's wish to exit, or what was asked for in an exit.

    Raises:
        Rejected: If there is nothing to exit from.
    """
    match event:
        case ev.ExitRequested():
            on_exit_requested(turn, event)
        case ev.TakingTxSigned(asked=asked, tx=tx):
            turn.ask(spend_of(asked, tx))
        case ev.SweepSigned(asked=swept, tx=tx):
            turn.ask(fx.Broadcast(name=swept.spend.name, tx=tx, replaces=True))
        case ev.ExitPauseRequested() | ev.PayoutsSigned():
            raise AssertionError(f"{type(event).__name__} is a client's event")
        case ev.CommitmentRecalled():
            on_commitment_recalled(turn, event)
        case _:
            assert_never(event)


def on_exit_requested(turn: Turn[Factory], event: ev.ExitRequested) -> None:
    """Bring a client's channel on chain because the operator says so.

    Raises:
        Rejected: If there is no such channel, its funding is not confirmed, or the expiry came
            before its branch.
    """
    client, attempt = event.client, turn.state.landed.attempt
    if attempt.funded is None:
        raise Rejected("factory_not_found", f"no funded factory {event.attempt_id.hex()}")
    if client is None or not 1 <= client <= len(attempt.seats):
        raise Rejected(
            "client_not_found", f"client: expected 1..{len(attempt.seats)}, received {client}"
        )
    if attempt.is_overtaken(turn.chain):
        raise Rejected("factory_dead", DEAD_FUNDING)
    if turn.chain.depth(attempt.funding_tx.txid) == 0:
        raise Rejected("factory_not_funded", "the funding is not confirmed", retryable=True)
    if was_closed(turn.state.landed, client):
        raise Rejected("factory_closed", CLOSED_TOGETHER)
    if is_swept(turn.state.landed, client):
        raise Rejected("factory_swept", _why_swept(turn.state.landed, client))
    if is_to_be_swept(turn.state.landed, client):
        raise Rejected("factory_swept", "the factory expired: what is left of it is swept")
    if event.publishes_stale:
        allow_stale(turn, link_of(turn.state, client), is_restored=turn.state.is_marked)
    elif not _may_leave(turn.state, client):
        raise Rejected("store_restored", RESTORED)
    start_exit(turn, client, "the operator's wish")


def start_exit(turn: Turn[Factory], client: int, reason: str) -> None:
    """Bring a client's channel on chain: from here on it takes no update.

    What is published must stay our latest commitment: to go on with updates would revoke it.
    """
    if client not in turn.state.exits:
        attempt_id = turn.state.attempt.attempt_id
        turn.remember(xr.ExitStarted(attempt_id=attempt_id, client=client, reason=reason))
        link = link_of(turn.state, client)
        if link is not None:
            end_updates(turn, link, EXITING, tells_peer=True)
    ask_for_coins(turn)
    turn.ask(*exit_effects(turn.state, client, turn.facts.fees))


def ask_for_coins(turn: Turn[Factory]) -> tuple[fx.Effect, ...]:
    """Ask the house for coins for what has to confirm and pays too little; give back what is over.

    So is what hurries much less than what the house has no coin for. What was asked before is asked
    again only if it has become much more or much less, or hurries so. Returns what is owed, as
    `owed` would after this: to ask changes nothing of it.
    """
    state = turn.state
    is_dead = state.begun is not None and state.landed.is_dead
    turn.remember(
        *settled_coins(
            state.purses,
            turn.chain,
            asked=state.coins_asked,
            is_dead=is_dead,
            are_there=turn.facts.directory.has_coins,
        )
    )
    effects = owed(turn.state, turn.facts.fees)
    news = tuple(first_published(effects, state.published, height=turn.known_height))
    if news:
        turn.remember(*news)
        effects = owed(turn.state, turn.facts.fees)
    waiting = turn.facts.directory.lacking()
    if over := frozenset(outdated(turn.state.coins_asked, effects, waiting)):
        purses = turn.state.purses
        turn.remember(*(returned(one, purses.get(one), turn.chain) for one in sorted(over)))
        effects = owed(turn.state, turn.facts.fees)
        waiting = {one: wanted for one, wanted in waiting.items() if one not in over}
    lazy = given_up_for(
        turn.state.purses, effects, waiting, has_some=turn.facts.directory.is_lent_to
    )
    if lazy is not None:
        turn.remember(returned(lazy, turn.state.purses[lazy], turn.chain))
        effects = owed(turn.state, turn.facts.fees)
    for need in sorted(needs_of(effects), key=lambda need: -need.feerate_sat_per_kw):
        asked_sat = turn.state.coins_asked.get(need.outpoint, 0)
        known = waiting.get(need.outpoint)
        hurries = known is not None and is_much_more(
            need.feerate_sat_per_kw, known.feerate_sat_per_kw
        )
        if hurries or is_much_more(need.whole_sat, asked_sat):
            turn.remember(
                xr.CoinsAsked(
                    outpoint=need.outpoint.serialize(),
                    needed_sat=need.whole_sat,
                    feerate_sat_per_kw=need.feerate_sat_per_kw,
                )
            )
    return effects


def exit_effects(state: Factory, client: int, fees: OwnFees) -> tuple[fx.Effect, ...]:
    """Return what is to be published now for a channel that we, or its client, left."""
    state = state.landed
    return without_what_is_swept(_exit_effects(state, client, fees), sweep_actions(state, fees))


def _exit_effects(state: Factory, client: int, fees: OwnFees) -> tuple[fx.Effect, ...]:
    is_exiting = client in state.exits
    is_on_chain = state.funding_on_chain(client).outpoint in state.chain.spends
    is_owed = owes_commitment(link_of(state, client))
    if not (is_exiting or is_on_chain or is_owed) or is_over(state, client):
        return ()
    effects = exit_effects_of(
        in_hand(state, client),
        state.chain,
        fees=fees,
        is_exiting=is_exiting,
        publishes_path=_may_publish_path(state, client),
    )
    return beside_closes(effects, state.closed)


def _may_publish_path(state: Factory, client: int) -> bool:
    """Say whether what we have of a client's path is ours to publish.

    With a store that was restored it may be superseded, and whatever of it confirms takes the place
    of what we sweep at the expiry.
    """
    link = link_of(state, client)
    return not state.is_marked or (link is not None and link.publishes_stale)


def _may_leave(state: Factory, client: int) -> bool:
    """Say whether we may bring a client's channel on chain, and our commitment after it."""
    link = link_of(state, client)
    if link is not None and link.publishes_stale:
        return True
    outpoint = state.funding_on_chain(client).outpoint
    is_on_chain = outpoint.txid in state.chain.confirmed
    is_ours = not state.is_unproven(client) if link is None else link.mark is None
    return is_ours and (is_on_chain or not state.is_marked)


def on_commitment_recalled(turn: Turn[Factory], recalled: ev.CommitmentRecalled) -> None:
    """Punish a client for a commitment that it had revoked."""
    if remember_breach(turn, recalled):
        link = turn.link(recalled.asked.channel_id)
        turn.ask(*exit_effects(turn.state, link.client, turn.facts.fees))


def owed(state: Factory, fees: OwnFees) -> tuple[fx.Effect, ...]:
    """Return what is to be published now, of every channel and of the tree."""
    state = state.landed
    exits = [
        effect for client in _funded_clients(state) for effect in _exit_effects(state, client, fees)
    ]
    actions = sweep_actions(state, fees)
    leaving = without_what_is_swept(exits, actions)
    # Whoever has less to lose does not say what may be paid: the same is asked for by both.
    published = {one.tx.txid for one in leaving if isinstance(one, fx.Broadcast)}
    return (
        *leaving,
        *(
            effect
            for effect in beside_closes(effects_of(actions, state, fees), state.closed)
            if not (
                isinstance(effect, fx.Broadcast)
                and effect.bumping is None
                and effect.tx.txid in published
            )
        ),
    )


def sweep_again(turn: Turn[Factory]) -> None:
    """Ask once more for what can be taken of the tree: together it was refused."""
    fees = turn.facts.fees
    state = turn.state.landed
    turn.ask(*effects_of(sweep_actions(state, fees), state, fees))


def arriving_total_sat(state: Factory) -> int:
    """Return what is on its way to the wallet: of channels on chain, sweeps, finished closes."""
    state = state.landed
    swept_sat = sum(output.prevout.amount_sat for output in awaited_outputs(state))
    scripts = (state.attempt.payout_script,) if state.closed else ()
    closed_sat = arriving_of_closes_sat(state.closed, state.chain, scripts)
    return (
        swept_sat
        + closed_sat
        + sum(
            arriving_sat(in_hand(state, client), state.chain)
            for client in _funded_clients(state)
            if state.funding_on_chain(client).outpoint in state.chain.spends
        )
    )


def watched(state: Factory) -> frozenset[OutPoint]:
    """Return the outpoints whose spends matter, of what is in blocks; and what funds it."""
    state = state.landed
    attempt, confirmed = state.attempt, state.chain.confirmed
    outpoints = {
        *(tx_in.outpoint for tx_in in attempt.funding_tx.inputs),
        *(one.blueprint.funding_outpoint for one in attempt.ladder),
    }
    if attempt.funding_outpoint not in state.chain.spends:
        return frozenset(outpoints)
    outpoints |= {one for one in attempt.blueprint.tree_outpoints if one.txid in confirmed}
    outpoints |= watched_outputs(state) | close_anchors(state)
    # What our children cost is told by what becomes of their coins.
    outpoints |= {coin.outpoint for purse in state.purses.values() for coin in purse.coins}
    for client in _funded_clients(state):
        outpoint = state.funding_on_chain(client).outpoint
        if outpoint.txid in confirmed:
            outpoints.add(outpoint)
        if outpoint in state.chain.spends:
            outpoints.update(watched_outpoints(in_hand(state, client), state.chain))
    return frozenset(outpoints)


def keep_watching(turn: Turn[Factory], *, has_news: bool = False) -> None:
    """Say what is to be watched from here on, if it is something else than is watched now.

    Args:
        turn: The decision so far.
        has_news: Whether the chain watches more by itself, because of what it has just found: what
            is swept or paid back is nobody's news any more, whatever becomes of it later.
    """
    if turn.state.attempt.funded is None:
        return
    outpoints = watched(turn.state)
    if has_news or outpoints != turn.state.watch:
        turn.remember(
            xr.Watching(
                height=turn.height,
                outpoints=tuple(sorted(outpoint.serialize() for outpoint in outpoints)),
            )
        )


def learn_from_block(turn: Turn[Factory]) -> None:
    """Remember what the newest block shows of states that we signed and do not hold."""
    under_way = {one.advance_id for one in turn.state.advances.values()}
    if turn.state.begun is not None and under_way:
        for link in turn.book.ordered_links:
            learn_state(turn, turn.link(link.channel_id), under_way)  # Once for all of its leaf.


def on_block(turn: Turn[Factory]) -> None:
    """Do what a new block makes due: save HTLCs in time, and learn what the chain decided."""
    attempt = turn.state.landed.attempt
    if attempt.funded is not None and attempt.funding_outpoint in turn.chain.spends:
        tell_published(turn, attempt.attempt_id, attempt.tree_on(turn.chain).nodes)
        recall_as_lsp(turn)  # Before what was swept is told: a close takes nothing.
        tell_swept(turn)
        tell_closed(turn, turn.book.ordered_links, payout_script=attempt.payout_script)
    for link in turn.book.ordered_links:
        state, client = turn.state, link.client
        if client in state.exits:
            # It may have begun before there was a channel whose updates could be ended.
            end_updates(turn, link, EXITING, tells_peer=True)
        end_if_superseded(turn, link)
        if is_closed(link, state.chain):
            on_closed(turn, link)
        elif link.funding_on(state.chain).outpoint in state.chain.spends:
            on_chain(turn, link)
            turn.remember(*_resolved(state, link))
        elif is_swept(state, client):
            end_updates(turn, link, _why_swept(state, client), tells_peer=False)
            turn.remember(*lost_by_sweep(turn.state, turn.link(link.channel_id)))
        elif client not in state.exits:
            reason = _reason_to_exit(turn, link)
            if reason is None:
                _give_up(turn, link)
            else:
                start_exit(turn, client, reason)
        turn.remember(
            *given_up_with_state(turn.book, turn.link(link.channel_id), turn.chain),
            *never_signed(turn.book, turn.link(link.channel_id)),
        )
        _end_incoming(turn, turn.link(link.channel_id))
    tell_closed_for_good(turn)


def _end_incoming(turn: Turn[Factory], link: Link) -> None:
    """Let HTLCs of a client be over that ended with its channel; nothing in it answers them now."""
    ended = tuple(ended_with_channel(turn.state, link, in_hand))
    if ended and link.mark is None:
        end_updates(turn, link, ended[0].reason, tells_peer=False)
    turn.remember(*ended)


def _reason_to_exit(turn: Turn[Factory], link: Link) -> str | None:
    state = turn.state
    height, n_blocks = state.chain.height, state.config.policy.failed_channel_blocks
    if state.chain.depth(state.attempt.funding_tx.txid) == 0 or not _may_leave(state, link.client):
        return None
    reason = None
    if link.is_poisoned(state.chain):
        # Until it is rebased we have a commitment there: what the poison takes is ours, too.
        is_ours = link.finished_on(link.funding_on(state.chain)) is not None
        reason = SUPERSEDED if is_ours else None
    elif _must_save_htlc(state, link, height=height, patient=patient(turn, link)):
        reason = HTLC_EXPIRES
    elif is_frozen(link.closes, state.chain):
        return None  # It did not fail, nor is it left behind: a close of it is on its way.
    elif is_failed_for_long(link, failed_channel_blocks=n_blocks, height=height):
        is_worth_it = is_worth_an_exit(state.book, link, turn.facts.fees)
        reason = failed_long_ago(link) if is_worth_it else None
    elif (who := _left_behind_by(turn, link)) is not None:
        reason = who
    if reason is not None and is_to_be_swept(state, link.client):
        return None
    return reason


def is_swept(state: Factory, client: int) -> bool:
    """Say whether an output above a client's channel went elsewhere: to no branch, by no close."""
    if state.attempt.funding_outpoint not in state.chain.spends or was_closed(state, client):
        return False
    nodes = state.attempt.branch_on(client, state.chain).nodes
    return swept_by(nodes, state.chain.spends) is not None


def _why_swept(state: Factory, client: int) -> str:
    attempt, chain = state.attempt, state.chain
    nodes, expiry_height = attempt.branch_on(client, chain).nodes, attempt.terms.expiry_height
    return why_swept(nodes, chain, expiry_height=expiry_height, from_expiry=SWEPT)


def was_closed(state: Factory, client: int) -> bool:
    """Say whether a close is in a block, above a client's channel or in its place."""
    return is_closed(link_of(state, client), state.chain)


def is_over(state: Factory, client: int) -> bool:
    """Say whether there is no way to a client's channel any more: closed, or gone elsewhere."""
    return was_closed(state, client) or is_swept(state, client)


def _left_behind_by(turn: Turn[Factory], link: Link) -> str | None:
    """Return why to leave a channel that a client abandoned after another's exit settled it.

    It does not expire, so the LSP's money would wait in it for ever. A client that comes back in
    time finds it as it was: until the factory's expiry that money was promised to it anyway. Who
    moved out never comes back to it, though it be here: unless its keys closed it before.
    """
    is_left = (
        link.is_settled(turn.chain)
        and turn.height >= link.expiry_height
        and is_worth_an_exit(turn.book, link, turn.facts.fees)
    )
    if is_left and link.client in turn.state.held_keys | turn.state.lost_keys:
        return "the client moved out"
    if not is_left or is_just_back(turn.facts, height=turn.height):
        return None
    return "the client vanished" if turn.facts.directory.is_vanished(link.node_id) else None


def on_headers(turn: Turn[Factory]) -> None:
    """Save HTLCs in time though blocks do not come, by the headers of those that were not shown.

    What they hold may have ended what we leave: then nothing that is published finds its coin. A
    block that is only still to be read is waited for instead: it says better what to do.
    """
    for link in turn.book.ordered_links:
        is_on_chain = link.funding_on(turn.chain).outpoint in turn.chain.spends
        if not is_on_chain and _must_save_htlc(turn.state, link, height=turn.known_height):
            start_exit(turn, link.client, HTLC_EXPIRES)


def _must_save_htlc(
    state: Factory, link: Link, *, height: int, patient: Collection[int] = ()
) -> bool:
    """Say whether a channel must be brought on chain at a height, because of an HTLC in it."""
    return (
        bool(link.state.htlcs)
        and not link.is_poisoned(state.chain)
        and link.client not in state.exits
        and _may_leave(state, link.client)
        and state.chain.depth(state.attempt.funding_tx.txid) > 0
        and is_htlc_at_stake(state.book, link, chain=state.chain, height=height, patient=patient)
        and not is_to_be_swept(state, link.client)
    )


def _give_up(turn: Turn[Factory], link: Link) -> None:
    """Give up HTLCs that a client never answered, and end the channel with it.

    The LSP bears what the client may still take of them on chain: less than the exit costs. Else
    the amounts, and places for HTLCs, would stay in two channels for ever.
    """
    attempt = turn.state.attempt
    if has_lost_its_place(attempt, turn.chain):
        records = tuple(given_up_with_funding(turn.book, link, height=turn.height))
    else:
        records = given_up(turn.book, link, height=turn.height)
    if records and link.mark is None:
        # Answered in the channel after this, an HTLC would be paid downstream and not upstream.
        end_updates(turn, link, "an HTLC expired without an answer", tells_peer=False)
        turn.remember(*records)


def _resolved(state: Factory, link: Link) -> Iterator[cr.HtlcDecided | cr.FeeEarned]:
    if link.state.htlcs:
        holding = in_hand(state, link.client)
        yield from resolved_on_chain(state.book, link, holding, state.chain)
        yield from decided_by_poison(state.book, state.attempt, link, state.chain)
        yield from earned_on_chain(state.book, link, holding, state.chain)


def _funded_clients(state: Factory) -> range:
    attempt = state.attempt
    return range(1, len(attempt.seats) + 1) if attempt.funded is not None else range(0)
