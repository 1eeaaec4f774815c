"""What a client checks of its channel before it signs: its keys, its capacity, its commitments."""

from dataclasses import fields

from cromford.channel.errors import InvalidChannelTerms
from cromford.channel.terms import Party
from cromford.crypto.keys import is_pubkey
from cromford.factory.terms import FactoryTerms
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.first_commitments import (
    ChannelSetting,
    channel_terms_of,
    least_capacity_sat,
)
from cromford.wire.messages import ChannelOffer


def check_capacity(terms: FactoryTerms, capacity_sat: int) -> None:
    """Check that a channel carries the fee of its largest commitment.

    Raises:
        Refusal: Naming the capacity, or the term that no channel can have.
    """
    try:
        channel_terms = channel_terms_of(terms)
    except InvalidChannelTerms as error:
        raise Refusal(error.field, expected=error.expected, received=error.received) from error
    least_sat = least_capacity_sat(channel_terms)
    if capacity_sat < least_sat:
        raise Refusal("capacity_sat", expected=f"at least {least_sat}", received=capacity_sat)


def check_channel_offer(offer: ChannelOffer, *, own: ChannelOffer) -> None:
    """Check that every key of the LSP's is a point, and that no key stands in two places.

    Raises:
        Refusal: Naming the key.
    """
    names = [item.name for item in fields(ChannelOffer)]
    seen = {getattr(own, name) for name in names}
    for name in names:
        pubkey = getattr(offer, name)
        if not is_pubkey(pubkey):
            raise Refusal(f"channel.{name}", expected="a pubkey", received=pubkey)
        if pubkey in seen:
            raise Refusal(f"channel.{name}", expected="a key of its own", received=pubkey)
        seen.add(pubkey)


def check_first_commitments(channel: ChannelSetting) -> None:
    """Check that both sides' first commitments can be built.

    Raises:
        Refusal: Naming the commitment.
    """
    for holder in Party:
        try:
            channel.first_commitment(holder)
        except ValueError as error:
            raise Refusal(
                f"commitment_{holder.name.lower()}",
                expected="a commitment that can be built",
                received=error,
            ) from error
