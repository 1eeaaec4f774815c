"""The LSP between two clients: an HTLC goes on, waits for its payee, or is given back.

What a payer is told must not tell who is a client, who is at home, and how much it can receive. So
it hears one and the same of all that depends on the payee, after one and the same time.

It never offers what it could lose: the incoming HTLC is locked in, pays the fee, and expires so
much later that it can still be claimed after the outgoing one was.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from immutables import Map

from cromford import effects as fx
from cromford.channel.errors import UpdateRefused
from cromford.channel.limits import is_overexposed
from cromford.channel.messages import UpdateAdd
from cromford.channel.stage import LiveHtlc
from cromford.protocol.channels.balances import offerable_msat
from cromford.protocol.channels.close_rules import is_beyond_close
from cromford.protocol.channels.coins import lacks_coin
from cromford.protocol.channels.htlc_rules import (
    acceptance_failure,
    forward_delta_blocks,
    is_expiry_too_near,
    is_final,
)
from cromford.protocol.channels.moved import LEFT_BEHIND_MSAT
from cromford.protocol.channels.payments import give_back, offer, prepare_offer
from cromford.protocol.channels.seats import restored_of
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.book import AWAY, Book, HtlcKey
from cromford.protocol.journal.encoding import delivery_of
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.failures import Failure
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.mail import ForwardAsked, ForwardRefused
from cromford.protocol.turn import AnyTurn, Turn
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields
from cromford.wire.selling import Skimmed

MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingRules:
    """What an LSP asks for a forward, and where it stands now.

    Attributes:
        fee_base_msat: For each HTLC (BOLT 7).
        fee_proportional_millionths: Of its amount.
        hold_seconds: How long it waits for a payee, or for a chain that is stale, and how soon a
            payer hears of a failure.
        is_usable: Whether new HTLCs may be offered in a channel.
        is_dying: Whether a channel's factory dies: then moving out of it costs nothing.
    """

    fee_base_msat: int
    fee_proportional_millionths: int
    hold_seconds: int
    is_usable: Callable[[Link], bool]
    is_dying: Callable[[Link], bool]

    def price_msat(self, link: Link, delivery: m.Delivery) -> int:
        """Return what an HTLC of a channel has to pay for going on, in msat.

        Nothing where a client moves its own money out of a factory that dies, 330 sat or more.
        """
        is_move = delivery.payee == link.node_id and delivery.amount_msat >= LEFT_BEHIND_MSAT
        if is_move and self.is_dying(link):
            return 0
        return forwarding_fee_msat(
            delivery.amount_msat,
            fee_base_msat=self.fee_base_msat,
            fee_proportional_millionths=self.fee_proportional_millionths,
        )


def forwarding_fee_msat(
    amount_msat: int, *, fee_base_msat: int, fee_proportional_millionths: int
) -> int:
    """Return the fee for forwarding an amount (BOLT 7)."""
    return fee_base_msat + amount_msat * fee_proportional_millionths // MILLION


def answer_as_lsp(turn: AnyTurn, link: Link, live: LiveHtlc, rules: ForwardingRules) -> None:
    """Forward an HTLC that is locked in, or give it back for what is its payer's own affair.

    Where it is the payee's, or our chain is stale, it waits: in time, that may change. Whatever
    comes of it, its payer hears of a failure when the hold is over, and not before. It is longer
    where the payee announced the payment, and as its invoice gives more blocks, the payer knows.
    """
    key = (link.channel_id, live.htlc.htlc_id)
    is_new = key not in turn.book.held
    failure = _failure_before(turn, link, live, rules)
    if failure is not None and is_final(failure, turn.facts):
        if is_new:
            give_back(turn, link, key[1], failure.reason)
        return
    announced = _announced_seconds(turn, live) if is_new else turn.book.held[key].seconds
    if is_new:
        seconds = max(rules.hold_seconds, announced)
        turn.ask(fx.SetDeadline(deadline=hold_deadline(key), seconds=seconds))
    obstacle = turn.facts.why_no_risk or _ask(turn, link, live, announced)
    if obstacle is not None and is_new:
        held = cr.HtlcHeld(channel_id=key[0], htlc_id=key[1], reason=obstacle, seconds=announced)
        turn.remember(held)


def _announced_seconds(turn: AnyTurn, live: LiveHtlc) -> int:
    payee = decode_fields(m.Delivery, live.payload).payee
    return turn.facts.directory.hold_seconds(payee, live.htlc.payment_hash)


def _failure_before(
    turn: AnyTurn,
    link: Link,
    live: LiveHtlc,
    rules: ForwardingRules,
) -> Failure | None:
    """Say what is wrong with an HTLC whoever its payee is."""
    htlc, delivery = live.htlc, delivery_of(live.payload)
    if delivery is None:
        return Failure.INVALID_ONION_PAYLOAD
    failure = acceptance_failure(link, htlc.cltv_expiry, chain=turn.chain, height=turn.known_height)
    if failure is not None:
        return failure
    if is_overexposed(turn.link(link.channel_id).state, htlc) or not rules.is_usable(link):
        return Failure.TEMPORARY_CHANNEL_FAILURE
    if lacks_coin(turn, link, htlc) or is_beyond_close(link, turn.chain):
        return Failure.TEMPORARY_CHANNEL_FAILURE
    if htlc.amount_msat < delivery.amount_msat + rules.price_msat(link, delivery):
        return Failure.FEE_INSUFFICIENT
    return None


def _ask(
    turn: AnyTurn, link: Link, live: LiveHtlc, announced: int, *, refused_by: str | None = None
) -> str | None:
    """Ask a factory of the payee's to take an HTLC, or say, for the operator alone, why not.

    The newest first: an older one is on its way out. None is asked that is known to refuse: that
    would only fill two journals.
    """
    delivery = decode_fields(m.Delivery, live.payload)
    cltv_expiry = live.htlc.cltv_expiry - forward_delta_blocks(link, turn.chain)
    directory = turn.facts.directory
    # What a client pays itself goes to where it lasts: between two factories that die, money could
    # be moved to and fro for nothing.
    is_own = delivery.payee == link.node_id
    known = directory.lasting_streams_of if is_own else directory.streams_of
    streams = [*reversed(known(delivery.payee))]
    if refused_by in streams:
        streams = streams[streams.index(refused_by) + 1 :]
    obstacle = "the payee has no other channel here"
    for stream in streams:
        refusal = directory.obstacle(
            stream,
            channel_id=link.channel_id,
            payment_hash=live.htlc.payment_hash,
            cltv_expiry=cltv_expiry,
            delivery=live.payload,
        )
        if refusal is None:
            turn.remember(
                cr.HtlcForwarded(
                    channel_id=link.channel_id,
                    htlc_id=live.htlc.htlc_id,
                    to=stream,
                    fee_msat=live.htlc.amount_msat - delivery.amount_msat,
                    cltv_expiry=cltv_expiry,
                    seconds=announced,
                )
            )
            return None
        obstacle = refusal
    return obstacle


def on_refused(turn: AnyTurn, sender: str, refused: ForwardRefused) -> None:
    """Ask the next factory of the payee's, if there is one; else the HTLC waits, as it does now."""
    key = (refused.channel_id, refused.htlc_id)
    link = turn.link(key[0])
    live = link.incoming(key[1])
    is_over = key not in turn.book.held or key in turn.book.released
    if not is_over and live is not None and link.is_open and turn.facts.may_risk:
        _ask(turn, link, live, turn.book.held[key].seconds, refused_by=sender)


def take_forward(
    turn: Turn[Factory], sender: str, asked: ForwardAsked, *, is_usable: Callable[[Link], bool]
) -> None:
    """Let an HTLC of another factory go on to its payee here, or say why it cannot."""
    way = _way_on(turn, asked, is_usable=is_usable)
    if isinstance(way, str):
        turn.remember(
            cr.ForwardDeclined(
                asker=sender,
                in_channel_id=asked.channel_id,
                in_htlc_id=asked.htlc_id,
                reason=way,
            )
        )
        return
    link, update = way
    offered = cr.ForwardOffered(
        asker=sender,
        in_channel_id=asked.channel_id,
        in_htlc_id=asked.htlc_id,
        channel_id=link.channel_id,
        htlc_id=update.htlc_id,
    )
    offer(turn, link, update, first=offered)


def obstacle_to(
    turn: Turn[Factory], asked: ForwardAsked, *, is_usable: Callable[[Link], bool]
) -> str | None:
    """Return why an HTLC of another factory cannot go on here now; None if it can."""
    way = _way_on(turn, asked, is_usable=is_usable)
    return way if isinstance(way, str) else None


def _way_on(
    turn: Turn[Factory], asked: ForwardAsked, *, is_usable: Callable[[Link], bool]
) -> tuple[Link, UpdateAdd] | str:
    """Return the payee's channel that can carry an HTLC and its update, or why there is none."""
    if turn.facts.why_no_risk is not None:
        return turn.facts.why_no_risk
    delivery = decode_fields(m.Delivery, asked.delivery)
    if not turn.facts.directory.is_connected(delivery.payee):
        return AWAY  # However its channels are: of a factory asleep nobody knows more.
    links = turn.book.links_with(delivery.payee)  # A client has one in a factory.
    others = (one for one in links if one.channel_id != asked.channel_id and is_usable(one))
    link = next(others, None)
    if link is None:
        return "the payee has no other channel here"
    if not link.is_open:
        return AWAY
    skimmed_msat = _skimmed_msat(turn, link, asked.payment_hash)
    if skimmed_msat is None:
        return "its payee buys out of it, and its channel has not grown yet"
    skimmed = (Skimmed(price_msat=skimmed_msat),) if skimmed_msat else ()
    try:
        update = prepare_offer(
            turn,
            link,
            amount_msat=delivery.amount_msat - skimmed_msat,
            payment_hash=asked.payment_hash,
            cltv_expiry=asked.cltv_expiry,
            delivery=replace(delivery, skimmed=skimmed),
        )
    except UpdateRefused as refused:
        return f"the payee's channel cannot carry it: {refused}"
    return link, update


def waiting_msat(book: Book, payee: bytes, payment_hash: bytes) -> int:
    """Return what an HTLC brings its payee that waits here for it to have room; 0 if none does."""
    for key in book.held_for.get(payee, ()):
        live = book.links[key[0]].incoming(key[1])
        if live is None or key in book.released or live.htlc.payment_hash != payment_hash:
            continue
        return decode_fields(m.Delivery, live.payload).amount_msat
    return 0


def room_msat(factory: Factory, payee: bytes) -> int:
    """Return what no HTLC may be larger than that a client could be offered in a factory."""
    links = factory.book.links_with(payee)
    return max((offerable_msat(one.state, one.me) for one in links if one.is_open), default=0)


def most_kept_msat(factory: Factory, payee: bytes) -> int:
    """Return the most that is kept of one payment for what its payee bought in a factory.

    So much larger than what its payee is offered for it a payment may be.
    """
    dues = (
        price_msat
        for link in factory.book.links_with(payee)
        for price_msat in factory.skims.get(link.client, Map()).values()
    )
    return max(dues, default=0)


def _skimmed_msat(turn: Turn[Factory], link: Link, payment_hash: bytes) -> int | None:
    """Return what we keep of a payment, in msat, in whichever factory its payee bought out of it.

    None while one of its channels has not grown yet.
    """
    here = _kept_msat(turn.state, link, payment_hash)
    directory, stream = turn.facts.directory, turn.state.stream
    elsewhere = directory.kept_msat(link.node_id, payment_hash, besides=stream)
    return None if here is None or elsewhere is None else here + elsewhere


def kept_msat(factory: Factory, payee: bytes, payment_hash: bytes) -> int | None:
    """Return what is kept of a payment for what its payee bought in a factory; None as it buys."""
    whole_msat = 0
    for link in factory.book.links_with(payee):
        kept = _kept_msat(factory, link, payment_hash)
        if kept is None:
            return None
        whole_msat += kept
    return whole_msat


def _kept_msat(state: Factory, link: Link, payment_hash: bytes) -> int | None:
    """Return what is kept of a payment for what its payee buys for a channel.

    None while that has not grown yet: the payment waits for that. Where it never will, for a store
    of the leaf was restored before it signed, it is delivered whole.
    """
    kept_msat = state.kept_msat(link.client, payment_hash)
    for advance in state.advances.values():
        is_for_it = advance.payment_hash == payment_hash and advance.buyer == link.client
        if is_for_it and not advance.is_sold and not _awaits_restored(state, advance):
            place = advance.clients.index(link.client)
            capacity_sat = advance.allocation.capacities_sat[place]
            has_grown = link.present.capacity_sat == capacity_sat
            return kept_msat + advance.price_msat if has_grown else None
    return kept_msat


def _awaits_restored(state: Factory, advance: LspAdvance) -> bool:
    """Say whether an advance lacks the signature of a store that was restored: it signs no more."""
    if advance.is_signed or advance.session is not None or advance.is_asking:
        return False
    return restored_of(state, advance.clients) is not None


def on_hold_deadline(turn: AnyTurn, deadline: fx.HoldDeadline) -> None:
    """Let the payer know from now on that its HTLC failed, if it did or does."""
    key = (deadline.channel_id, deadline.htlc_id)
    forward = turn.book.forwards.get(key)
    is_unsettled = forward is not None and forward.preimage is None
    if key not in turn.book.released and (key in turn.book.held or is_unsettled):
        turn.remember(cr.HoldEnded(channel_id=key[0], htlc_id=key[1]))


def withdraw_untaken(turn: Turn[Factory]) -> None:
    """Take back what was asked of other factories and not taken, once its hold is over.

    A bug has stopped whoever was asked, and nobody knows for how long. Its payer would wait, and at
    last leave its channel. What that factory took is not withdrawn: its payee may be paid by it.
    """
    for asked in tuple(turn.state.post.asked_to_forward()):
        key = (asked.channel_id, asked.htlc_id)
        if key in turn.book.released:
            turn.remember(cr.ForwardWithdrawn(channel_id=key[0], htlc_id=key[1]))


def withdraw_own(turn: Turn[Factory]) -> None:
    """Take back what a factory asked of itself and could not take, as it is taken up again.

    Taken once more, it would stop the factory once more.
    """
    for letter in tuple(turn.state.post.pending_for(turn.stream, turn.stream)):
        if isinstance(letter.mail, ForwardAsked):
            key = (letter.mail.channel_id, letter.mail.htlc_id)
            on_hold_deadline(turn, hold_deadline(key))
    withdraw_untaken(turn)


def end_late_holds(turn: AnyTurn) -> None:
    """Let payers know of HTLCs whose expiry has come so near that no new one would be accepted.

    At each block, because blocks do not wait for the clock: they may come quickly, and a hold
    begins anew with each start. Held any longer, an HTLC would bring its payer's channel on chain.
    """
    book = turn.book
    for key in sorted({*book.held, *book.forwards} - {*book.released}):
        link = turn.link(key[0])
        live = link.incoming(key[1])
        if live is not None and is_expiry_too_near(
            link, live.htlc.cltv_expiry, chain=turn.chain, height=turn.known_height
        ):
            on_hold_deadline(turn, hold_deadline(key))


def hold_deadlines(book: Book, *, hold_seconds: int) -> tuple[fx.SetDeadline, ...]:
    """Return the deadlines of all HTLCs that are held or went on, after a restart."""
    waiting = {*book.held, *book.forwards} - {*book.released}
    announced = {key: held.seconds for key, held in book.held.items()}
    announced |= {key: forward.hold_seconds for key, forward in book.forwards.items()}
    return tuple(
        fx.SetDeadline(deadline=hold_deadline(key), seconds=max(hold_seconds, announced[key]))
        for key in sorted(waiting)
    )


def hold_deadline(key: HtlcKey) -> fx.HoldDeadline:
    """Return the deadline before which no payer hears of a failure."""
    return fx.HoldDeadline(channel_id=key[0], htlc_id=key[1])
