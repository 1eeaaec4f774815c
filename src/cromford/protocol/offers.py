"""A channel's public keys as a message carries them: the same for both sides."""

from cromford.signing.keychain import ChannelPubkeys
from cromford.wire import messages as m


def offer_of(keys: ChannelPubkeys) -> m.ChannelOffer:
    """Return one side's keys of a channel, ready to be sent."""
    return m.ChannelOffer(
        funding_pubkey=keys.funding_pubkey,
        revocation_basepoint=keys.revocation_basepoint,
        payment_basepoint=keys.payment_basepoint,
        delayed_payment_basepoint=keys.delayed_payment_basepoint,
        htlc_basepoint=keys.htlc_basepoint,
        first_per_commitment_point=keys.first_per_commitment_point,
        second_per_commitment_point=keys.second_per_commitment_point,
    )
