"""What bringing a client's channel on chain takes next, as the LSP's operator reads it."""

from cromford.daemon.views.exit import CLOSED, beside_a_close, describe, next_of_channel
from cromford.protocol.exiting.channel import landed_channel
from cromford.protocol.exiting.lsp import in_hand, was_closed
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.factory import Factory
from cromford.watch.exit import ChannelOnChain, next_exit_action
from cromford.watch.feerates import OwnFees


def exit_next(factory: Factory, client: int, fees: OwnFees) -> str:
    """Return the next action on the way of a client's channel to the chain in a sentence."""
    factory = factory.landed
    if was_closed(factory, client):
        return CLOSED
    following = _next_step(factory, client, fees)
    is_closing = is_frozen(in_hand(factory, client).link.closes, factory.chain)
    return beside_a_close(following) if is_closing else following


def _next_step(factory: Factory, client: int, fees: OwnFees) -> str:
    holding, chain = in_hand(factory, client), factory.chain
    action = next_exit_action(holding.signed, confirmed=chain.confirmed, tip_height=chain.height)
    if not isinstance(action, ChannelOnChain):
        return describe(action)
    landed = landed_channel(holding, chain, fees=fees)
    return next_of_channel(landed, is_withheld=holding.link.withholds_commitment, peer="the client")
