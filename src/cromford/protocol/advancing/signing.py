"""What a client signs of an advance, and with which nonces."""

from cromford.channel.errors import PeerViolation
from cromford.crypto.musig2 import is_pubnonce, nonce_agg
from cromford.effects import SignRequest
from cromford.factory.leaf import Leaf
from cromford.protocol.advancing.making import (
    FACTORY_NONCES,
    POISON_NONCE,
    STATE_NONCE,
    STOCK_NONCE,
)
from cromford.protocol.channels.signing import bad_pubnonce, check_pubnonce
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.link import Link
from cromford.signing.nonces import PublicPool
from cromford.signing.task import SigningTask
from cromford.wire import messages as m
from cromford.wire.selling import AdvancePartials


def check_commit(link: Link, message: m.AdvanceCommit) -> None:
    """Check that the LSP gives its half, and nonces for its own latest commitment and the next.

    Raises:
        PeerViolation: If not; names the field.
    """
    if len(message.half) != 1 or len(message.channel) != 1:
        received = f"{len(message.half)} halves, {len(message.channel)} pairs of nonces"
        raise PeerViolation("advance_commit", expected="one of each", received=received)
    (nonces,) = message.channel
    if nonces.number != link.state.peer_signed:
        raise PeerViolation(
            "channel.number", expected=link.state.peer_signed, received=nonces.number
        )
    check_pubnonce("channel.pubnonce", nonces.pubnonce)
    check_pubnonce("channel.following_pubnonce", nonces.following_pubnonce)


def requests_of(
    leaf: Leaf, advance: ClientAdvance, message: m.AdvanceCommit
) -> tuple[SignRequest, ...]:
    """Return the requests for our parts: of the state, the L-stock's poison, our channel's.

    Raises:
        PeerViolation: If an aggregated nonce, or the LSP's, is malformed.
    """
    factory_pool, channel_pool = advance.factory_pool, advance.channel_pool
    if factory_pool is None or channel_pool is None:
        raise AssertionError("agreed without nonces")
    if len(message.aggnonces) != FACTORY_NONCES:
        raise PeerViolation("aggnonces", expected=FACTORY_NONCES, received=len(message.aggnonces))
    before = advance.state_index - 1
    stock = leaf.stock_poison(before)
    (channel,) = (poison for poison in leaf.poisons(before) if poison.name != stock.name)
    own_nonce = channel_pool.pubnonces[POISON_NONCE]
    if not is_pubnonce(message.poison_pubnonce):
        raise bad_pubnonce("poison_pubnonce", message.poison_pubnonce)
    poison_aggnonce = nonce_agg([own_nonce, message.poison_pubnonce])
    state_task = leaf.states[advance.state_index].task
    return (
        _request(factory_pool, STATE_NONCE, state_task, message.aggnonces[STATE_NONCE]),
        _request(factory_pool, STOCK_NONCE, stock.task, message.aggnonces[STOCK_NONCE]),
        _request(channel_pool, POISON_NONCE, channel.task, poison_aggnonce),
    )


def _request(pool: PublicPool, number: int, task: SigningTask, aggnonce: bytes) -> SignRequest:
    try:
        task.session(aggnonce)
    except ValueError as error:
        raise PeerViolation("aggnonces", expected="two points", received=aggnonce) from error
    return SignRequest(pool_id=pool.pool_id, nonce_index=number, task=task, aggnonce=aggnonce)


def made_partials(partial_sigs: tuple[bytes, ...], poison_pubnonce: bytes) -> AdvancePartials:
    """Return our partial signatures as they travel, in the order of `requests_of`."""
    state, stock_poison, channel_poison = partial_sigs
    return AdvancePartials(
        state=state,
        stock_poison=stock_poison,
        poison_pubnonce=poison_pubnonce,
        channel_poison=channel_poison,
    )
