"""The signer's answers about channels, taken alike by both roles."""

from typing import assert_never

from cromford.protocol import events as ev
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.resuming import (
    on_nonce_lacking,
    on_nonce_prepared,
    on_point_recalled,
)
from cromford.protocol.channels.signing import on_commitment_made, on_half_made
from cromford.protocol.turn import AnyTurn


def on_signer_answer(turn: AnyTurn, answer: ev.ChannelAnswer) -> None:
    """Go on with what a channel asked the signer for."""
    match answer:
        case ev.NoncePrepared():
            on_nonce_prepared(turn, answer)
        case ev.NonceLacking(asked=asked):
            on_nonce_lacking(turn, turn.link(asked.channel_id))
        case ev.CommitmentMade():
            on_commitment_made(turn, answer)
        case ev.HalfMade():
            on_half_made(turn, answer)
        case ev.PointRecalled():
            on_point_recalled(turn, answer)
        case ev.ChannelSigningFailed(asked=asked, reason=reason):
            end_updates(turn, turn.link(asked.channel_id), f"our signer: {reason}")
        case _:
            assert_never(answer)
