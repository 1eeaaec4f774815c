"""What bringing a client's channel on chain takes next, as the LSP's operator reads it."""

from cromford.daemon.views.exit import describe, describe_channel
from cromford.protocol.exiting.channel import landed_channel
from cromford.protocol.exiting.lsp import in_hand
from cromford.protocol.journal.factory import Factory
from cromford.watch.channel_exit import channel_actions
from cromford.watch.exit import ChannelOnChain, next_exit_action
from cromford.watch.feerates import OwnFees


def exit_next(factory: Factory, client: int, fees: OwnFees) -> str:
    """Return the next action on the way of a client's channel to the chain in a sentence."""
    holding, chain = in_hand(factory, client), factory.chain
    action = next_exit_action(holding.signed, confirmed=chain.confirmed, tip_height=chain.height)
    if not isinstance(action, ChannelOnChain):
        return describe(action)
    actions = channel_actions(landed_channel(holding, chain, fees=fees))
    following = [
        describe_channel(one, is_behind=holding.link.is_behind, peer="the client")
        for one in actions
    ]
    return "; ".join(following) or "nothing: everything that is worth its fee was taken"
