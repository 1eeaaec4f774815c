"""Between a channel's own messages and the wire's: the channel room knows no channel ids."""

from typing import Final, TypeVar

from cromford.channel.messages import (
    Rebase,
    Reestablish,
    Update,
    UpdateAdd,
    UpdateFail,
    UpdateFulfill,
)
from cromford.codec.reader import MalformedBytes
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.signing.nonces import PublicPool
from cromford.wire import messages as m
from cromford.wire.fields import decode_fields, encode_fields

M = TypeVar("M", bound=m.Message)
UpdateMessage = m.UpdateAddHtlc | m.UpdateFulfillHtlc | m.UpdateFailHtlc | m.UpdateRebase


# Messages that were encoded for a record which is not folded yet, by their bytes.
_unfolded: Final[dict[bytes, m.Message]] = {}
_UNFOLDED_MAX: Final = 16
# Of these an encoding says all that the message does; a longer text would be cut.
_SAYS_ALL: Final = (m.RevokeAndAck, m.UpdateAddHtlc, m.UpdateFulfillHtlc)


def journalled(message: m.Message) -> bytes:
    """Return a message as it is journalled; it is not read again by the fold that follows."""
    data = m.encode_message(message)
    if isinstance(message, _SAYS_ALL):
        if len(_unfolded) >= _UNFOLDED_MAX:
            _unfolded.clear()
        _unfolded[data] = message
    return data


def _read(data: bytes) -> m.Message | None:
    return _unfolded.pop(data, None) or m.decode_message(data)


def decoded(data: bytes, cls: type[M]) -> M:
    """Return a journalled message of a known kind."""
    message = _read(data)
    if not isinstance(message, cls):
        raise AssertionError(f"{cls.__name__} was journalled, {type(message).__name__} was read")
    return message


class _Joins:
    """Joins that were journalled and not read since, by their bytes.

    An LSP writes down everybody's with an order, and the factory reads the order in the same
    decision: those of a thousand clients are 14 MB, and need not be there twice.
    """

    def __init__(self) -> None:
        self._written: dict[bytes, m.Join] = {}

    def encoded(self, join: m.Join) -> bytes:
        """Return a join as it is journalled."""
        if len(self._written) >= N_CLIENTS_MAX:
            self._written.clear()
        data = m.encode_message(join)
        self._written[data] = join
        return data

    def decoded(self, data: bytes) -> m.Join:
        """Return a journalled join: the one that was written, or one that is read."""
        return self._written.pop(data, None) or decoded(data, m.Join)


_joins: Final = _Joins()


def encoded_join(join: m.Join) -> bytes:
    """Return a join as it is journalled."""
    return _joins.encoded(join)


def decoded_join(data: bytes) -> m.Join:
    """Return a journalled join."""
    return _joins.decoded(data)


def update_of(message: UpdateMessage) -> Update:
    """Return a wire message as the channel takes it."""
    match message:
        case m.UpdateAddHtlc():
            return UpdateAdd(
                htlc_id=message.htlc_id,
                amount_msat=message.amount_msat,
                payment_hash=message.payment_hash,
                cltv_expiry=message.cltv_expiry,
                payload=encode_fields(message.delivery),
            )
        case m.UpdateFulfillHtlc():
            return UpdateFulfill(htlc_id=message.htlc_id, preimage=message.payment_preimage)
        case m.UpdateFailHtlc():
            return UpdateFail(htlc_id=message.htlc_id, reason=message.reason)
        case m.UpdateRebase():
            return Rebase(
                advance_id=message.advance_id,
                capacity_sat=message.capacity_sat,
                price_msat=message.price_msat,
            )


def journalled_update(data: bytes) -> Update:
    """Return a journalled update as the channel takes it."""
    message = _read(data)
    if not isinstance(message, UpdateMessage):
        raise AssertionError(f"an update was journalled, {type(message).__name__} was read")
    return update_of(message)


def message_of(channel_id: bytes, update: Update) -> UpdateMessage:
    """Return an update of ours as it travels."""
    match update:
        case UpdateAdd():
            return m.UpdateAddHtlc(
                channel_id=channel_id,
                htlc_id=update.htlc_id,
                amount_msat=update.amount_msat,
                payment_hash=update.payment_hash,
                cltv_expiry=update.cltv_expiry,
                delivery=decode_fields(m.Delivery, update.payload),
            )
        case UpdateFulfill():
            return m.UpdateFulfillHtlc(
                channel_id=channel_id,
                htlc_id=update.htlc_id,
                payment_preimage=update.preimage,
            )
        case UpdateFail():
            return m.UpdateFailHtlc(
                channel_id=channel_id, htlc_id=update.htlc_id, reason=update.reason
            )
        case Rebase():
            return m.UpdateRebase(
                channel_id=channel_id,
                advance_id=update.advance_id,
                capacity_sat=update.capacity_sat,
                price_msat=update.price_msat,
            )


def encoded_pool(pool: PublicPool) -> bytes:
    """Return a pool's public half as it is journalled."""
    return encode_fields(m.Pool(pubkey=pool.pubkey, pubnonces=pool.pubnonces))


def decoded_pool(data: bytes) -> PublicPool:
    """Return a journalled pool's public half."""
    return pool_of(decode_fields(m.Pool, data))


def pool_of(pool: m.Pool) -> PublicPool:
    """Return a pool's public half as it travelled."""
    return PublicPool(pubkey=pool.pubkey, pubnonces=pool.pubnonces)


def delivery_of(payload: bytes) -> m.Delivery | None:
    """Return whom an HTLC is for; None if its payload does not say."""
    try:
        return decode_fields(m.Delivery, payload)
    except MalformedBytes:
        return None


def reestablish_of(message: m.ChannelReestablish) -> Reestablish:
    """Return a `channel_reestablish` as the channel takes it."""
    return Reestablish(
        next_commitment_number=message.next_commitment_number,
        next_revocation_number=message.next_revocation_number,
        last_secret=message.your_last_per_commitment_secret,
    )
