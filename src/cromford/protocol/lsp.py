"""The LSP's table: which event goes to which stream, and who takes which mail.

It gathers clients, proposes a tree, collects signatures below the root, then the root, then
acknowledgements; then, and only then, it signs and broadcasts the funding transaction. Whoever
spoils a ceremony is named and dropped, and the others start again with fresh keys.

Here, and where mail is delivered, house and factories are known together.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import assert_never

from cromford import effects as fx
from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import Tx, Txid
from cromford.protocol import (
    addressing,
    handing_over,
    paying,
    proving,
    publishing,
    restored,
    spending,
    sweeping_together,
)
from cromford.protocol import events as ev
from cromford.protocol.advancing import lsp as advancing
from cromford.protocol.channels import lsp as channels
from cromford.protocol.channels.forwarding import withdraw_own
from cromford.protocol.channels.resuming import on_nonce_deadline
from cromford.protocol.channels.signing import on_revocation_deadline
from cromford.protocol.closing import lsp as closing
from cromford.protocol.closing.by_policy import close_what_can_be, waits_for_clients
from cromford.protocol.closing.confirming import owed_by_factory
from cromford.protocol.closing.telling import tell_closed
from cromford.protocol.delivery import Round
from cromford.protocol.dying import lsp as dying
from cromford.protocol.exiting import lsp as exiting
from cromford.protocol.exiting.channel import ANY_FEES
from cromford.protocol.exiting.rest import (
    NEVER,
    at_rest_until,
    has_guests,
    is_shared_out,
    wakes_at,
)
from cromford.protocol.exiting.settled import tell_settled
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.handover import lsp as handover
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import mail
from cromford.protocol.journal import records as r
from cromford.protocol.journal import scan_records as sc
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.gathered import Build
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_state import LspState, apply, new_lsp, pending, tip_of
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.scan import UNKNOWN
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_number
from cromford.protocol.lobby import announcing, bumping, giving_up, lending, pricing
from cromford.protocol.lobby import lsp as lobby
from cromford.protocol.opening import lsp as opening
from cromford.protocol.opening.funding import fund_if_due
from cromford.protocol.turn import Decision, StreamBug, Turn
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

__all__ = ["apply", "decide", "new_lsp", "relevant", "resume", "stop"]


def stop(state: LspState, fault: StreamBug) -> LspState | None:
    """Return a state in which nothing more is decided about a factory, until the next block.

    None for the house and the chain: without them an LSP cannot go on.
    """
    if factory_number(fault.stream) is None:
        return None
    name = type(fault.error).__name__
    return replace(state, stopped=state.stopped.set(fault.stream, name))


def relevant(state: LspState, txs: Sequence[Tx]) -> tuple[Tx, ...]:
    """Return the transactions of a block that matter to this LSP."""
    news = {id(tx) for found in _findings(state, txs).values() for tx in found}
    return tuple(tx for tx in txs if id(tx) in news)


def _findings(state: LspState, txs: Sequence[Tx]) -> Mapping[str, list[Tx]]:
    """Return which transactions of a block are whose news."""
    found = dict(state.scan.findings(txs))
    ours = list(state.house.wallet.news(txs))
    return {HOUSE: ours, **found} if ours else found


def decide(
    state: LspState, event: ev.Event, facts: Facts = FRESH, *, delivers: bool = True
) -> Decision[LspState]:
    """Return what to remember and do about one event.

    Args:
        state: All streams, as they are now.
        event: What happened.
        facts: What is true now.
        delivers: Whether the mail that it causes is taken in the same decision. Else it stays in
            the outboxes, until it arrives by `MailArrived`.

    Raises:
        Rejected: If the operator asked for something impossible; nothing is changed.
    """
    round_ = Round(state, facts, take_mail, delivers=delivers)
    _take(round_, event)
    round_.deliver()
    ended = _go_on_after_quiet(round_)
    _take_up_held(round_, ended)
    sweeping_together.ask_at_once(round_)
    return round_.decision


def _take(round_: Round, event: ev.Event) -> None:
    if isinstance(event, ev.MessageReceived):  # Most events are one: it need not be asked further.
        _take_from_world(round_, event)
    elif isinstance(event, ev.ChannelAnswer):
        addressing.on_channel_answer(round_, event)
    elif isinstance(event, ev.PayRequested):
        paying.on_pay_requested(round_, event)
    elif isinstance(event, ev.OpeningEvent):
        addressing.take_opening(round_, event)
    elif isinstance(event, ev.ExitEvent):
        addressing.take_exit(round_, event)
    elif isinstance(event, ev.CloseEvent):
        addressing.take_close(round_, event)
    elif isinstance(event, ev.AdvanceEvent):
        addressing.take_advance(round_, event)
    elif isinstance(event, ev.MarketEvent):
        pricing.take(round_.house, event)
    elif isinstance(event, ev.JointSweepEvent):
        sweeping_together.take(round_, event)
    elif isinstance(event, ev.HandoverEvent):
        handing_over.take(round_, event)
    elif isinstance(event, ev.LobbyEvent):
        lobby.take(round_.house, event)
    elif isinstance(event, ev.SpendingEvent):
        if isinstance(event, ev.AbandonRequested | ev.SpendingBumpRequested):
            giving_up.check_is_no_replacement(round_.house.state, event.txid)
            bumping.check_is_no_child(round_.house.state, event.txid)
        house = round_.house
        if isinstance(event, ev.SpendingSigned) and bumping.is_child(house.state, event.tx.txid):
            bumping.on_signed(house, event)
        else:
            spending.take(house, event)
    elif isinstance(event, ev.InvoiceRequested | ev.MoveEvent):
        raise AssertionError(f"{type(event).__name__} is a client's event")
    else:
        _take_from_world(round_, event)


def _take_from_world(round_: Round, event: ev.WorldEvent) -> None:
    match event:
        case ev.MessageReceived(node_id=node_id, message=message):
            _take_message(round_, node_id, message)
        case ev.DaemonStarted(drawn=drawn):
            restored.skip_keys(round_.house, drawn)
            _on_start(round_)
        case ev.StoreProven():
            proving.on_proven(round_)
        case ev.ConnectionOpened(node_id=node_id):
            lobby.on_connection(round_.house, node_id)
            for turn in addressing.factories_of(round_, node_id):
                round_.try_in(turn, partial(_greet, turn, node_id))
        case ev.ConnectionClosed():
            _on_disconnection(round_, event)
        case ev.MessageMalformed(node_id=node_id, reason=reason):
            _on_malformed(round_, node_id, reason)
        case ev.BlockAdded():
            _on_block(round_, event)
        case ev.BlockRemoved(height=height):
            round_.scan.remember(sc.ScanUndone(height=height))
        case ev.RescanRequested():
            restored.watch_further(round_.house)
        case ev.FactsChanged():
            _on_facts_changed(round_)
        case ev.MailArrived(delivery=delivery):
            round_.arrive(delivery)
        case ev.DeadlineReached():
            _on_deadline(round_, event)
        case ev.BroadcastRefused():
            _on_refused(round_, event)
        case _:
            assert_never(event)


def _greet(turn: Turn[Factory], node_id: bytes) -> None:
    opening.tell_ready_again(turn, node_id)
    tell_closed(turn, node_id)
    handover.on_connection(turn, node_id)


def _take_message(round_: Round, node_id: bytes, message: m.Message) -> None:
    if isinstance(message, m.ChannelMessage):
        addressing.take_channel_message(round_, node_id, message)
    elif isinstance(message, m.Join | m.Leave):
        lobby.take_message(round_.house, node_id, message)
    elif isinstance(message, m.AnnounceHash):
        announcing.on_announced(round_.house, node_id, message)
    elif isinstance(message, m.MarkMessage):
        addressing.take_channel_message(round_, node_id, message)
    elif isinstance(message, m.CloseAgree | m.CloseSign | m.CloseEnd):
        addressing.take_close_message(round_, node_id, message)
    elif isinstance(message, m.AdvanceAgree | m.AdvanceSign | m.AdvanceHeld | m.AdvanceAbort):
        addressing.take_advance_message(round_, node_id, message)
    elif isinstance(message, m.QuoteRequest | m.Buy):
        addressing.take_quote_message(round_, node_id, message)
    elif isinstance(message, m.Propose | m.SignedBelow | m.SignedRoot) or not isinstance(
        message, m.OpeningMessage
    ):
        _on_malformed(round_, node_id, f"{type(message).__name__} is an LSP's message")
    else:
        addressing.take_opening_message(round_, node_id, message)


def _on_refused(round_: Round, event: ev.BroadcastRefused) -> None:
    number = factory_number(event.asked.stream)
    if number is None:
        publishing.on_refused(round_.house, event)
        sweeping_together.on_refused(round_, event)
    elif round_.goes_on(event.asked.stream):
        turn = round_.factory(number)
        round_.try_in(turn, partial(publishing.on_refused, turn, event))


def _on_deadline(round_: Round, event: ev.DeadlineReached) -> None:
    number = factory_number(event.stream)
    if number is None:
        if not isinstance(event.deadline, fx.RejoinDeadline):
            raise AssertionError(f"{type(event.deadline).__name__} is no house's deadline")
        lobby.on_deadline(round_.house)
    elif number in round_.before.factories and round_.goes_on(event.stream):
        # Who sleeps waits for nothing: it is not woken by what was not cleared before.
        turn = round_.factory(number)
        round_.try_in(turn, partial(_pass_deadline, turn, event.deadline))


def _pass_deadline(turn: Turn[Factory], deadline: fx.Deadline) -> None:
    match deadline:
        case fx.AttemptDeadline():
            opening.on_deadline(turn)
        case fx.HoldDeadline():
            channels.on_hold_ended(turn, deadline)
        case fx.CloseDeadline():
            closing.on_deadline(turn, deadline)
        case fx.AdvanceDeadline():
            advancing.on_deadline(turn, deadline)
        case fx.RevocationDeadline():
            on_revocation_deadline(turn, deadline)
        case fx.NonceDeadline():
            on_nonce_deadline(turn, deadline)
        case _:
            raise AssertionError(f"{type(deadline).__name__} is no factory's deadline")


# What concerns several


def _on_start(round_: Round) -> None:
    """End what a restart voids: nonces are gone, so unsigned ceremonies are over."""
    round_.house.remember(r.Started())
    round_.house.ask(*_owed_by_house(round_.house.state))
    for number in round_.before.asleep_for_ever():
        round_.factory(number)
    known = {turn.stream for turn in round_.factories()}
    for turn in round_.factories():
        round_.try_in(turn, partial(_start, turn))
    # What was on its way when the last run ended goes on; but for an order, whose nonces are gone.
    for delivery in pending(round_.before):
        _touch(round_, delivery.sender)
    round_.deliver()
    paying.withdraw_untaken(round_)
    for turn in round_.factories():
        if turn.stream not in known and turn.state.begun is not None:
            round_.try_in(turn, partial(opening.on_start, turn))


def _start(turn: Turn[Factory]) -> None:
    if turn.state.begun is None:
        return
    turn.remember(r.Started())
    opening.on_start(turn)
    closing.on_start(turn)
    advancing.on_start(turn)
    turn.ask(*_owed_by_factory(turn.state, turn.facts.fees))
    fund_if_due(turn)


def _take_up_again(round_: Round) -> list[Turn[Factory]]:
    """Try again with factories in which a bug was met, and return the turns of those that go on.

    Their sessions are as new as after a restart.
    """
    turns = [turn for stream in round_.stopped if (turn := round_.take_up(stream)) is not None]
    return [turn for turn in turns if round_.try_in(turn, partial(_start_anew, turn))]


def _begin_sessions_anew(round_: Round, turns: Iterable[Turn[Factory]]) -> None:
    """Let clients of factories that go on connect again; of one that stopped again, for nothing."""
    for turn in turns:
        if turn.state.begun is None or not round_.goes_on(turn.stream):
            continue
        for seat in turn.state.attempt.seats:
            if round_.facts.directory.is_connected(seat.node_id):
                reason = "begin again, after a bug"
                turn.ask(fx.Disconnect(node_id=seat.node_id, reason=reason, is_ours=True))


def _start_anew(turn: Turn[Factory]) -> None:
    """Start, with a signer that did not: what it holds for the sessions before is let go."""
    links = turn.book.ordered_links
    pools = tuple(pool_id for link in links for pool_id in link.pool_ids)
    if pools:
        turn.ask(fx.DropPools(pool_ids=pools))
    _start(turn)
    withdraw_own(turn)


def _touch(round_: Round, stream: str) -> None:
    number = factory_number(stream)
    _ = round_.factory(number) if number is not None else (round_.house, round_.scan)


def resume(state: LspState, fees: OwnFees = ANY_FEES) -> tuple[fx.Effect, ...]:
    """Return what is still owed, whatever was done before."""
    return (
        *_owed_by_house(state.house),
        *(
            effect
            for factory in state.all_factories()
            for effect in _owed_by_factory(factory, fees)
        ),
    )


def _owed_by_house(house: House) -> Iterable[fx.Effect]:
    payments = bumping.without_children(house, spending.owed_spendings(house.wallet))
    return (*payments, *giving_up.owed(house), *bumping.owed(house))


def _owed_by_factory(factory: Factory, fees: OwnFees) -> Iterable[fx.Effect]:
    published = (*exiting.owed(factory, fees), *owed_by_factory(factory, fees))
    return (*published, *opening.owed(factory), *channels.owed(factory))


def _on_disconnection(round_: Round, event: ev.ConnectionClosed) -> None:
    """A connection takes its pools with it; what needs them is over."""
    node_id = event.node_id
    if node_id not in round_.house.state.connected:
        return
    turns = addressing.factories_of(round_, node_id)
    lobby.on_disconnection(round_.house, node_id)
    for turn in turns:
        round_.try_in(turn, partial(_end_session, turn, event))


def _end_session(turn: Turn[Factory], event: ev.ConnectionClosed) -> None:
    node_id = event.node_id
    closing.on_disconnection(turn, node_id, is_ours=event.is_ours)
    advancing.on_disconnection(turn, node_id)
    channels.on_disconnection(turn, node_id)
    opening.on_disconnection(turn, node_id, is_ours=event.is_ours)


def _on_malformed(round_: Round, node_id: bytes, reason: str) -> None:
    """Part from a peer that sends no message of the protocol; its ceremony goes on without it."""
    round_.house.ask(fx.Disconnect(node_id=node_id, reason=reason))
    under_way = round_.house_now().under_way
    turn = None if under_way is None else addressing.named(round_, under_way)
    if turn is not None:
        opening.on_malformed(turn, node_id, reason)


def _on_block(round_: Round, event: ev.BlockAdded) -> None:
    found = _findings(round_.before, event.txs)
    round_.scan.remember(
        sc.Scanned(
            height=event.height,
            block_hash=event.block_hash,
            found=tuple(
                sc.Finding(stream=stream, txs=tuple(tx.serialize() for tx in txs))
                for stream, txs in found.items()
            ),
        )
    )
    taken_up = _take_up_again(round_)
    for number in sorted(round_.before.due_at(event.height)):
        round_.factory(number)
    round_.deliver()
    asked = round_.asked_at(event.height)
    for turn in asked:
        if turn.stream not in found:  # Those who have news of the block began with it.
            # One that was stopped may have begun with the news of an earlier one.
            turn.amend(turn.state.at(tip_of(turn.state, round_.scan.state)))
            round_.try_in(turn, partial(_begin_with_block, turn))
    round_.deliver()
    paying.withdraw_untaken(round_)
    _begin_sessions_anew(round_, taken_up)
    lobby.part_from_idle(round_.house)
    lobby.build_if_due(round_.house, at_height=event.height)
    for turn in asked:
        _let_rest(round_, turn)


def _let_rest(round_: Round, turn: Turn[Factory]) -> None:
    """Let a factory be at rest in which only its clients may do something.

    One that nobody is connected to goes on being asked, until it sleeps, if it may.
    """
    number, state = factory_number(turn.stream), turn.state
    if number is None or not round_.goes_on(turn.stream) or state.begun is None:
        return
    until_height = at_rest_until(state)
    if until_height is None:
        return
    if until_height != NEVER and not waits_for_clients(turn, dying.closers_between(state)):
        return
    if has_guests(state, round_.facts.directory.is_connected) or wakes_at(state) is None:
        round_.let_rest(number, until_height)


def _begin_with_block(turn: Turn[Factory], *, has_news: bool = False) -> None:
    """Do what a new height makes due in a factory, once it knows all that the block had for it."""
    exiting.learn_from_block(turn)
    turn.ask(*exiting.ask_for_coins(turn), *owed_by_factory(turn.state, turn.facts.fees))
    opening.on_block(turn)
    exiting.on_block(turn)
    tell_settled(turn)
    closing.on_block(turn)
    advancing.on_block(turn)
    # What the chain decided about an outgoing HTLC answers the incoming one.
    channels.on_block(turn)
    close_what_can_be(turn, dying.on_block(turn, is_over=is_shared_out))
    exiting.keep_watching(turn, has_news=has_news)


def _on_facts_changed(round_: Round) -> None:
    """Go on with what waited for a fresh chain; or leave in time though no block comes."""
    if round_.facts.is_fresh:
        for turn in round_.factories():
            round_.try_in(turn, partial(_go_on_fresh, turn))
        round_.deliver()
        lobby.build_if_due(round_.house, at_height=None)
        return
    round_.house.ask(*_owed_by_house(round_.house.state))
    for turn in round_.factories():
        round_.try_in(turn, partial(_go_on_stale, turn))


def _go_on_fresh(turn: Turn[Factory]) -> None:
    advancing.go_on(turn)
    channels.finish_channels(turn, takes_up_held=True)
    fund_if_due(turn)


def _go_on_stale(turn: Turn[Factory]) -> None:
    fees = turn.facts.fees
    turn.ask(*exiting.owed(turn.state, fees), *owed_by_factory(turn.state, fees))
    exiting.on_headers(turn)
    channels.finish_channels(turn)


def _go_on_after_quiet(round_: Round) -> frozenset[bytes]:
    """Answer what waited in channels that were quiet for a close, or an advance, and are no more.

    Returns whose channels these may be, by node id.
    """
    ended = [turn for turn in round_.opened() if _may_go_on(turn)]
    for turn in ended:
        round_.try_in(turn, partial(channels.finish_channels, turn))
    if ended:
        round_.deliver()
    return frozenset(link.node_id for turn in ended for link in turn.book.links.values())


def _may_go_on(turn: Turn[Factory]) -> bool:
    """Say whether a channel of a factory may have ceased to be quiet in this decision."""
    kinds = (
        cl.CloseEnded,
        ar.AdvanceDropped,
        ar.AdvanceSessionEnded,
        ar.AdvanceDeclined,
        ar.AdvancePartialsReceived,
    )
    return any(turn.first(kind) is not None for kind in kinds)


def _take_up_held(round_: Round, also: AbstractSet[bytes]) -> None:
    """Ask again for HTLCs that wait for a payee whose channels changed: there may be room now.

    No record says that they should: what waits is given back in time, whether or not it was asked
    for again.

    Args:
        round_: The decision so far.
        also: Those who have room though no record of a channel says so.
    """
    if not round_.before.holding:
        return
    touched = {
        turn.link(channel_id).node_id for turn in round_.opened() for channel_id in turn.touched
    }
    touched |= also
    for number in sorted(round_.before.holding):
        held_for = round_.book_now(number).held_for
        payees = [payee for payee in sorted(touched) if payee in held_for]
        if not payees:
            continue  # Others may hold for many; who is not concerned takes no part.
        turn = round_.factory(number)
        if round_.goes_on(turn.stream):
            round_.try_in(turn, partial(channels.finish_channels, turn, payees=payees))
    round_.deliver()


# Mail


def take_mail(round_: Round, delivery: mail.Posted) -> None:
    """Let a stream take a letter, and do what follows from it."""
    taken = MailTaken(sender=delivery.sender, number=delivery.number, mail=delivery.mail)
    if delivery.receiver == HOUSE:
        _house_takes(round_.house, taken)
    elif delivery.receiver == CHAIN:
        round_.scan.remember(taken)
    else:
        number = factory_number(delivery.receiver)
        if number is None:
            raise AssertionError(f"{delivery.receiver} is no stream of an LSP")
        _factory_takes(round_.factory(number), taken)


def _house_takes(turn: Turn[House], taken: MailTaken) -> None:
    build = turn.state.build
    _house_takes_letter(turn, taken, build)
    lending.lend(turn)


def _house_takes_letter(turn: Turn[House], taken: MailTaken, build: Build | None) -> None:
    match taken.mail:
        case mail.Found(txs=txs):
            lobby.note_attendance(turn)
            wallet = turn.state.wallet
            turn.remember(taken)
            spending.tell_overtaken(turn, wallet, map(Tx.parse, txs))
            turn.ask(*_owed_by_house(turn.state))
        case mail.CeremonyEnded() as ended:
            turn.remember(taken)
            lobby.on_ceremony_ended(turn, ended, build)
        case _:
            turn.remember(taken)


def _factory_takes(turn: Turn[Factory], taken: MailTaken) -> None:
    turn.remember(taken)
    match taken.mail:
        case mail.Ordered():
            opening.on_ordered(turn)
        case mail.Watched() | mail.FundingRaised():
            opening.on_watched(turn)
        case mail.Found(height=height, block_hash=block_hash, txs=txs):
            tip = BlockRef(height=height, block_hash=Txid(block_hash))
            turn.amend(turn.state.at((tip,)))
            _begin_with_block(turn, has_news=bool(txs))
        case mail.Lost(height=height):
            turn.amend(turn.state.at((BlockRef(height=height - 1, block_hash=UNKNOWN),)))
            exiting.keep_watching(turn)
        case mail.ForwardAsked() as asked:
            channels.on_forward_asked(turn, taken.sender, asked)
        case mail.ForwardRefused() as refused:
            channels.on_forward_refused(turn, taken.sender, refused)
        case mail.ForwardAnswered():
            channels.finish_channels(turn)
        case mail.PayAsked() as asked:
            channels.on_pay_asked(turn, taken.sender, asked)
        case mail.CoinsSent():
            turn.ask(*exiting.owed(turn.state, turn.facts.fees))
            exiting.keep_watching(turn)
        case _:
            return
