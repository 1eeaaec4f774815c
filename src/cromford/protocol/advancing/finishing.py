"""The end of an advance at a client: the new state and the poisons are held, then it is rebased."""

from typing import Final

from cromford import effects as fx
from cromford.channel.errors import PeerViolation
from cromford.channel.stage import Edition
from cromford.channel.terms import Party
from cromford.factory.leaf import Leaf
from cromford.factory.poison import Poison, PoisonKind
from cromford.factory.vertices import TreeNode
from cromford.protocol.advancing.checking import next_leaf
from cromford.protocol.advancing.landing import is_decided, is_gone
from cromford.protocol.advancing.making import is_rebased, sold_sat
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.next_signing import is_settled
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.seldom import LeafState

VOID: Final = "the leaf's old state is on chain: nothing was bought"
GONE: Final = "the leaf was closed or swept before it got its next state: nothing was bought"
LEFT: Final = (
    "the channel ended on chain before it moved to the leaf's next state: nothing was paid"
)
CUT_SHORT: Final = (
    "the channel ended on chain while it moved to the leaf's next state: the price was paid if the "
    "commitment in the block has it"
)


def on_done(turn: Turn[ClientState], advance: ClientAdvance, message: m.AdvanceDone) -> None:
    """Hold what the LSP finished, each after comparing it with our own bytes, and say so.

    It is sent again as often as we may lack it: what we hold already is not looked at again.
    """
    if not advance.is_signed:
        return
    link, attempt = turn.link(advance.channel_id), turn.state.attempts[message.attempt_id]
    leaf = next_leaf(attempt, advance)
    known = {one.advance_id: one for one in attempt.leaf_states}.get(advance.advance_id)
    try:
        if known is None:
            check_signed(leaf.states[advance.state_index], message.state_signature)
            turn.remember(
                ar.StateSigned(
                    attempt_id=message.attempt_id,
                    advance_id=advance.advance_id,
                    signature=message.state_signature,
                )
            )
        check_both(message)
        if message.stock_poison and (known is None or known.poisons is None):
            _hold_poisons(turn, link, leaf, advance, message)
    except PeerViolation as violation:
        end_updates(turn, link, str(violation))
        return
    tell_held(turn, advance)


def check_both(message: m.AdvanceDone | LeafState) -> None:
    """Check that both poisons of a state come, or none.

    Raises:
        PeerViolation: If one comes without the other.
    """
    if bool(message.stock_poison) != bool(message.channel_poison):
        raise PeerViolation("poisons", expected="both or none", received="one")


def _hold_poisons(
    turn: Turn[ClientState],
    link: Link,
    leaf: Leaf,
    advance: ClientAdvance,
    message: m.AdvanceDone,
) -> None:
    check_poisons(leaf, advance.state_index, message)
    turn.remember(
        ar.PoisonHeld(
            attempt_id=message.attempt_id,
            advance_id=advance.advance_id,
            stock_signature=message.stock_poison,
            clients=(link.client,),
            channel_signatures=(message.channel_poison,),
        )
    )


def check_poisons(leaf: Leaf, state_index: int, message: m.AdvanceDone | LeafState) -> None:
    """Check everybody's signatures of the poisons of the state before one of a leaf.

    Raises:
        PeerViolation: If one is none of it.
    """
    given = {PoisonKind.STOCK: message.stock_poison, PoisonKind.CHANNEL: message.channel_poison}
    for poison in leaf.poisons(state_index - 1):
        check_signed(poison, given[poison.kind])


def check_signed(node: TreeNode | Poison, signature: bytes) -> None:
    """Check everybody's signature of a state, or of a poison, that we computed.

    Raises:
        PeerViolation: If it is none of it.
    """
    if not node.task.is_signed_by(signature, node.task.key_agg.output_key):
        raise PeerViolation(node.name, expected="a valid signature", received=signature)


def tell_held(turn: Turn[ClientState], advance: ClientAdvance) -> None:
    """Say that we hold the poisons, or see the new state six deep: then the channel is rebased."""
    link = turn.link(advance.channel_id)
    following = link.next
    if following is None or not advance.is_signed or not turn.state.is_connected:
        return
    if link.state.rebase is not None:
        return
    if following.may_rebase or is_settled(following, turn.chain):
        held = m.AdvanceHeld(attempt_id=link.attempt_id, advance_id=advance.advance_id)
        turn.send(link.node_id, held)


def drop_pools(turn: Turn[ClientState], before: ClientAdvance) -> None:
    """Forget the nonces of a try, but for those that our channel uses."""
    in_use = turn.link(before.channel_id).pool_ids
    unused = tuple(pool_id for pool_id in before.pool_ids if pool_id not in in_use)
    if unused:
        turn.ask(fx.DropPools(pool_ids=unused))


def end_if_done(turn: Turn[ClientState], attempt_id: bytes, advance: ClientAdvance) -> None:
    """End an advance once our channel is rebased, goes on in the old state for good, or is over."""
    now = turn.state.advances.get(attempt_id)
    if now is None or not now.is_signed:
        return
    link = turn.link(advance.channel_id)
    if link.next is not None and (link.failure is None or not is_decided(turn, link)):
        return
    leaf = next_leaf(turn.state.attempts[attempt_id], advance)
    reason = "" if is_rebased(link, leaf, advance.state_index) else VOID
    if link.next is not None and is_settled(link.next, turn.chain):
        reason = CUT_SHORT if _may_be_paid(link) else LEFT
    elif link.next is not None and is_gone(link, link.next, turn.chain):
        reason = GONE
    if advance.quote_id and not reason:
        purchase = turn.state.purchases.get(advance.quote_id)
        turn.remember(
            ar.LiquidityBought(
                attempt_id=attempt_id,
                channel_id=link.channel_id,
                advance_id=advance.advance_id,
                height=turn.height,
                amount_sat=sold_sat(leaf, advance.state_index),
                capacity_sat=link.present.capacity_sat,
                price_msat=advance.price_msat if purchase is None else purchase.price_msat,
            )
        )
    turn.remember(ar.AdvanceEnded(attempt_id=attempt_id, advance_id=advance.advance_id))
    drop_pools(turn, now)
    end_purchase(turn, attempt_id, advance.quote_id, reason)


def _may_be_paid(link: Link) -> bool:
    """Say whether a commitment is signed that is rebased already: there the price is paid."""
    return any(link.state.content(holder, Edition.SIGNED).is_rebased for holder in Party)


def end_purchase(
    turn: Turn[ClientState], attempt_id: bytes, quote_id: bytes, reason: str = ""
) -> None:
    """End what we bought by a quote, if that is under way; without a reason it is ours."""
    if quote_id in turn.state.purchases:
        reason = reason[: m.REASON_SIZE_MAX]
        turn.remember(ar.PurchaseEnded(attempt_id=attempt_id, quote_id=quote_id, reason=reason))
