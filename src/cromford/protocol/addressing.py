"""Which factory an event of an LSP's is about, and what room of it takes the event."""

from functools import partial
from typing import assert_never

from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.protocol.advancing import lsp as advancing
from cromford.protocol.advancing import selling
from cromford.protocol.channels import lsp as channels
from cromford.protocol.closing import lsp as closing
from cromford.protocol.closing.telling import tell_closed
from cromford.protocol.delivery import Round
from cromford.protocol.exiting import lsp as exiting
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.entries import ABORTED
from cromford.protocol.journal.factory import Factory
from cromford.protocol.lobby import bumping, giving_up, ordering, replacing
from cromford.protocol.opening import lsp as opening
from cromford.protocol.opening.funding import published_funding, published_ladder
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


def named(round_: Round, attempt_id: bytes) -> Turn[Factory] | None:
    """Return the turn of a factory by its name; None if there is none, or it was stopped."""
    entry = round_.house_now().entries.get(attempt_id)
    if entry is None or not round_.goes_on(entry.stream):
        return None
    turn = round_.factory(entry.number)
    return None if turn.state.begun is None else turn


def with_channel(round_: Round, channel_id: bytes) -> Turn[Factory] | None:
    """Return the turn of the factory that a channel is in."""
    number = round_.before.channels.get(channel_id)
    if number is None:
        return None
    turn = round_.factory(number)
    return turn if round_.goes_on(turn.stream) else None


def factories_of(round_: Round, node_id: bytes) -> list[Turn[Factory]]:
    """Return the turns of the factories that a client has a seat in, the one being signed last."""
    house = round_.house_now()
    entries = list(house.entries_of(node_id))
    if house.under_way is not None and node_id in house.entries[house.under_way].node_ids:
        entries.append(house.entries[house.under_way])
    turns = (round_.factory(entry.number) for entry in entries if round_.goes_on(entry.stream))
    return [turn for turn in turns if turn.state.begun is not None]


def take_opening_message(round_: Round, node_id: bytes, message: m.OpeningMessage) -> None:
    """Let a factory hear its client; whoever merely knows its name wakes no factory."""
    entry = round_.house_now().entries.get(message.attempt_id)
    is_own = entry is not None and node_id in entry.node_ids
    if entry is None or entry.status == ABORTED or not is_own:
        if isinstance(message, m.Resume) or (is_own and isinstance(message, m.Acknowledge)):
            round_.house.send(node_id, opening.over(message))
        return
    if node_id not in entry.seated:
        return  # Its channel was closed together with others, for good: nothing is to be opened.
    turn = named(round_, message.attempt_id)
    if turn is not None:  # Of one that was stopped nothing is said: it is not over.
        opening.take_message(turn, node_id, message)


def take_opening(round_: Round, event: ev.OpeningEvent) -> None:
    """Let the house, or the factory that it is about, take an event of a ceremony.

    Raises:
        Rejected: If the operator asked for something impossible.
    """
    match event:
        case ev.AttemptPrepared():
            ordering.on_attempt_prepared(round_.house, event)
        case ev.FactoryAbandonRequested(attempt_id=attempt_id):
            fundings = _fundings(round_, attempt_id)
            giving_up.on_abandon_requested(round_.house, event, fundings)
        case ev.FundingReplaceRequested(attempt_id=attempt_id):
            fundings = _fundings(round_, attempt_id)
            replacing.on_replace_requested(round_.house, event, fundings)
        case ev.FundingBumpRequested(attempt_id=attempt_id):
            turn = named(round_, attempt_id)
            funding = None if turn is None else published_funding(turn.state)
            bumping.on_bump_requested(round_.house, event, funding)
        case ev.CoinsLookedUp():
            raise AssertionError("CoinsLookedUp is a client's event")
        case _:
            turn = named(round_, event.asked.attempt_id)
            if turn is not None:
                round_.try_in(turn, partial(_take_signature, turn, event))


def _fundings(round_: Round, attempt_id: bytes) -> tuple[Tx, ...]:
    """Return every signed candidate of a factory's funding; none while nobody may hear of them."""
    turn = named(round_, attempt_id)
    return () if turn is None else published_ladder(turn.state)


def _take_signature(turn: Turn[Factory], event: ev.OpeningEvent) -> None:
    """Take an answer of our signer, in a ceremony or in a close."""
    if isinstance(event, ev.PartialSigned) and event.asked.close_id:
        closing.on_partial_signed(turn, event)
    elif isinstance(event, ev.SigningFailed) and event.asked.close_id:
        closing.on_signing_failed(turn, event)
    elif isinstance(event, ev.PartialSigned) and event.asked.advance_id:
        advancing.on_partial_signed(turn, event)
    elif isinstance(event, ev.SigningFailed) and event.asked.advance_id:
        advancing.on_signing_failed(turn, event)
    else:
        opening.take(turn, event)


def take_close(round_: Round, event: ev.CloseEvent) -> None:
    """Let a factory take the operator's wish to close it, or our signer's nonces.

    Raises:
        Rejected: If it cannot be closed now.
    """
    if isinstance(event, ev.CloseRequested):
        turn = named(round_, event.attempt_id)
        if turn is None:
            raise Rejected("factory_not_found", f"no funded factory {event.attempt_id.hex()}")
    else:
        turn = named(round_, event.asked.attempt_id)
    if turn is not None:
        round_.try_in(turn, partial(closing.take, turn, event))


def take_close_message(
    round_: Round, node_id: bytes, message: m.CloseAgree | m.CloseSign | m.CloseEnd
) -> None:
    """Let the factory hear a client that has the close it speaks of; no other is woken by it."""
    for turn in factories_of(round_, node_id):
        if closing.knows(turn.state, message.close_id):
            closing.take_message(turn, node_id, message)


def take_advance(round_: Round, event: ev.AdvanceEvent) -> None:
    """Let a factory take its signer's answer in an advance."""
    turn = named(round_, event.asked.attempt_id)
    if turn is not None:
        round_.try_in(turn, partial(_advance, turn, event))


def _advance(turn: Turn[Factory], event: ev.AdvanceEvent) -> None:
    advancing.take(turn, event)
    _go_on(turn)


def _go_on(turn: Turn[Factory], *, client: int | None = None) -> None:
    """Do all that follows in channels, and in advances that wait for them: of a client's leaf."""
    leaf = None if client is None else turn.state.attempt.leaf_name(client)
    advancing.go_on(turn, leaf=leaf)
    channels.finish_channels(turn)


def _go_on_after(turn: Turn[Factory], channel_id: bytes) -> None:
    """Do the same after a word about a channel, where an advance of its leaf is under way.

    It changes nothing for those of other leaves: they must not make it dearer.
    """
    link = turn.book.links.get(channel_id)
    if link is not None and turn.state.attempt.leaf_name(link.client) in turn.state.advances:
        _go_on(turn, client=link.client)


def take_advance_message(
    round_: Round,
    node_id: bytes,
    message: m.AdvanceAgree | m.AdvanceSign | m.AdvanceHeld | m.AdvanceAbort,
) -> None:
    """Let a factory hear what a client of it says of an advance."""
    turn = _of_member(round_, node_id, message.attempt_id)
    if turn is not None:
        advancing.take_message(turn, node_id, message)
        _go_on(turn, client=turn.state.attempt.client_of(node_id))


def take_quote_message(round_: Round, node_id: bytes, message: m.QuoteRequest | m.Buy) -> None:
    """Let a factory answer a client of it that asks for a price, or buys."""
    turn = _of_member(round_, node_id, message.attempt_id)
    if turn is not None:
        selling.take_message(turn, node_id, message)
        _go_on(turn, client=turn.state.attempt.client_of(node_id))


def _of_member(round_: Round, node_id: bytes, attempt_id: bytes) -> Turn[Factory] | None:
    """Return the turn of a factory for a client with a seat in it: it wakes no other."""
    entry = round_.house_now().entries.get(attempt_id)
    if entry is None or node_id not in entry.seated:
        return None
    return named(round_, attempt_id)


def take_channel_message(
    round_: Round, node_id: bytes, message: m.ChannelMessage | m.MarkMessage
) -> None:
    """Let a factory hear of its channel; of one that is closed only that is said."""
    turn = with_channel(round_, message.channel_id)
    if turn is not None and not tell_closed(turn, node_id, message.channel_id):
        channels.on_channel_message(turn, node_id, message)
        if turn.state.advances:
            _go_on_after(turn, message.channel_id)
        advancing.tell_if_restored(turn, node_id, message)


def take_exit(round_: Round, event: ev.ExitEvent) -> None:
    """Let a factory take the operator's wish to exit, or what an exit asked for.

    Raises:
        Rejected: If there is no such factory, or nothing to exit from.
    """
    match event:
        case ev.ExitRequested(attempt_id=attempt_id):
            turn = named(round_, attempt_id)
            if turn is None:
                raise Rejected("factory_not_found", f"no funded factory {attempt_id.hex()}")
        case ev.TakingTxSigned(asked=taking):
            turn = round_.factory(taking.key.attempt)
        case ev.SweepSigned(asked=sweeping):
            turn = round_.factory(sweeping.key.attempt)
        case ev.ExitPauseRequested() | ev.PayoutsSigned():
            raise AssertionError(f"{type(event).__name__} is a client's event")
        case ev.CommitmentRecalled(asked=recalled):
            turn = with_channel(round_, recalled.channel_id)
        case _:
            assert_never(event)
    if turn is not None and round_.goes_on(turn.stream):
        round_.try_in(turn, partial(_leave, turn, event))


def _leave(turn: Turn[Factory], event: ev.ExitEvent) -> None:
    exiting.take(turn, event)
    exiting.keep_watching(turn)


def on_channel_answer(round_: Round, event: ev.ChannelAnswer) -> None:
    """Let a factory go on with what a channel of it asked the signer for."""
    turn = with_channel(round_, event.asked.channel_id)
    if turn is not None:
        round_.try_in(turn, partial(_channel_answer, turn, event))


def _channel_answer(turn: Turn[Factory], event: ev.ChannelAnswer) -> None:
    channels.take(turn, event)
    if turn.state.advances:
        _go_on_after(turn, event.asked.channel_id)
