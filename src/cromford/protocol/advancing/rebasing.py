"""The end of an advance at the LSP: each channel is rebased, or the chain decides."""

from cromford import effects as fx
from cromford.channel.rebase import can_pay
from cromford.protocol.advancing.ending import drop_pools
from cromford.protocol.advancing.landing import has_landed, is_decided, say_void
from cromford.protocol.advancing.making import is_rebased, sold_sat
from cromford.protocol.advancing.rules import links_of
from cromford.protocol.advancing.sessions import leaf_of
from cromford.protocol.channels.close_rules import stands_still
from cromford.protocol.channels.next_signing import is_void
from cromford.protocol.channels.seats import link_of
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.messages import encode_message


def rebase_what_can_be(turn: Turn[Factory], advance: LspAdvance) -> None:
    """Offer each client that acknowledged the rebase of its channel, once."""
    if not turn.facts.may_risk:
        return
    for link in links_of(turn.state, advance.clients):
        following = link.next
        if following is None or not following.may_rebase or not following.is_dual:
            continue
        if not link.is_open or link.state.rebase is not None or stands_still(link, turn.chain):
            continue
        if has_landed(turn, link):
            continue
        if not can_pay(link.state, following.price_msat):
            continue
        rebase = m.UpdateRebase(
            channel_id=link.channel_id,
            advance_id=advance.advance_id,
            capacity_sat=following.funding.capacity_sat,
            price_msat=following.price_msat,
        )
        turn.remember(cr.UpdateProposed(channel_id=link.channel_id, message=encode_message(rebase)))


def end_what_is_done(turn: Turn[Factory], advance: LspAdvance) -> None:
    """Write a sale into the ledger once its buyer's channel has grown; end what is over."""
    if not advance.is_committed:
        return
    leaf, attempt_id = leaf_of(turn.state, advance), turn.state.attempt.attempt_id
    buyer = link_of(turn.state, advance.buyer)
    if buyer is not None and not advance.is_sold and is_rebased(buyer, leaf, advance.state_index):
        turn.remember(
            ar.LiquiditySold(
                attempt_id=attempt_id,
                channel_id=buyer.channel_id,
                client=advance.buyer,
                advance_id=advance.advance_id,
                height=turn.height,
                amount_sat=sold_sat(leaf, advance.state_index),
                capacity_sat=buyer.present.capacity_sat,
                price_msat=advance.price_msat,
            )
        )
    links = links_of(turn.state, advance.clients)
    if all(_is_over(turn, advance, link) for link in links):
        turn.remember(ar.AdvanceEnded(attempt_id=attempt_id, advance_id=advance.advance_id))
        turn.ask(fx.ClearDeadline(deadline=fx.AdvanceDeadline(advance_id=advance.advance_id)))
        drop_pools(turn, advance)


def _is_over(turn: Turn[Factory], advance: LspAdvance, link: Link) -> bool:
    """Say whether a channel needs nothing more of an advance.

    One that failed is never rebased. Its client still gets what it lacks, until it has all of it,
    or the chain has decided.
    """
    if link.next is None:
        return True
    if link.failure is None:
        return False
    return link.client in advance.acknowledged or is_decided(turn, link)


def on_block(turn: Turn[Factory], advance: LspAdvance) -> None:
    """Do what the chain makes due in the channels of an advance."""
    for link in links_of(turn.state, advance.clients):
        if _signed_nothing(link) and is_void(link, turn.chain):
            turn.remember(ar.NextFundingVoid(channel_id=link.channel_id))
        else:
            say_void(turn, link)


def _signed_nothing(link: Link) -> bool:
    following = link.next
    return following is not None and not following.is_dual and following.peer_stage == 0
