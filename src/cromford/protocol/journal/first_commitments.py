"""A channel as the factory's terms make it: its numbers, keys, funding and first commitments.

The one place that translates from the factory to the channel, which does not know factories.
The LSP is the opener: everything in a new channel is its own.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cromford.bitcoin.tx import OutPoint
from cromford.channel.commitment import ChannelKeys, Commitment, Funding, build_commitment
from cromford.channel.content import CommitmentContent
from cromford.channel.keys import Basepoints
from cromford.channel.state import ChannelState, open_channel
from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms, Party
from cromford.crypto.keys import sha256
from cromford.crypto.musig2 import KeyAgg
from cromford.factory.outputs import OutputKind, TreeOutput
from cromford.factory.terms import GeneralTerms
from cromford.factory.vertices import TreeNode
from cromford.signing.keychain import ChannelPubkeys
from cromford.wire.messages import N_FIRST_COMMITMENTS, ChannelOffer

LSP_CHANNEL_POOL_SIZE: Final = N_FIRST_COMMITMENTS  # Each takes one nonce of the LSP's pool.


@dataclass(frozen=True, kw_only=True)
class ChannelSetting:
    """What does not change while a channel lives, or, as its funding, changes seldom."""

    terms: ChannelTerms
    keys: ChannelKeys
    funding: Funding
    lsp: ChannelOffer
    client: ChannelOffer

    @property
    def channel_id(self) -> bytes:
        """The channel's name, which no change of its funding outpoint changes.

        BOLT 2, `channel_id` of version 2: the hash of both revocation basepoints.
        """
        points = sorted((self.lsp.revocation_basepoint, self.client.revocation_basepoint))
        return sha256(points[0] + points[1])

    def offer_of(self, party: Party) -> ChannelOffer:
        """Return one party's keys."""
        return self.lsp if party is Party.OPENER else self.client

    def first_state(self, me: Party) -> ChannelState:
        """Return the channel as one party first sees it.

        Raises:
            ValueError: If the capacity is below the LSP's reserve.
        """
        peer = self.offer_of(me.other)
        return open_channel(
            me=me,
            terms=self.terms,
            opener_msat=self.funding.capacity_sat * MSAT_PER_SAT,
            accepter_msat=0,
            peer_point=peer.first_per_commitment_point,
            peer_next_point=peer.second_per_commitment_point,
        )

    @cached_property
    def _first_commitments(self) -> dict[Party, Commitment]:
        """Those that were asked for: whoever checks them signs them next."""
        return {}

    def first_commitment(self, holder: Party) -> Commitment:
        """Return a party's commitment number 0: everything is the LSP's.

        Raises:
            UnpayableFee: If the capacity does not carry fee and anchor.
            ValueError: If a point is not on the curve.
        """
        if holder in self._first_commitments:
            return self._first_commitments[holder]
        content = CommitmentContent(
            holder=holder,
            number=0,
            opener_msat=self.funding.capacity_sat * MSAT_PER_SAT,
            accepter_msat=0,
        )
        commitment = build_commitment(
            content,
            funding=self.funding,
            terms=self.terms,
            keys=self.keys,
            per_commitment_point=self.offer_of(holder).first_per_commitment_point,
        )
        self._first_commitments[holder] = commitment
        return commitment


def channel_terms_of(terms: GeneralTerms) -> ChannelTerms:
    """Return the numbers of every channel of a factory."""
    return ChannelTerms(
        feerate_per_kw=terms.tree_feerate_sat_per_kw,
        to_self_delay_opener=terms.to_self_delay_lsp,
        to_self_delay_accepter=terms.to_self_delay_client,
        max_accepted_htlcs=terms.max_accepted_htlcs,
        max_in_flight_msat=terms.max_in_flight_msat,
        dust_limit_sat=terms.dust_limit_sat,
    )


def least_capacity_sat(terms: ChannelTerms) -> int:
    """Return the least that a channel must hold: twice what its largest commitment costs.

    The LSP keeps that cost in reserve (BOLT 2). Where it is more than a half, the terms' feerate
    has eaten the channel: most of what a client asked for could never be paid to it.
    """
    return 2 * terms.reserve_sat(Party.OPENER, capacity_sat=0)


def channel_setting(
    terms: GeneralTerms,
    *,
    outpoint: OutPoint,
    channel: TreeOutput,
    lsp: ChannelOffer,
    client: ChannelOffer,
) -> ChannelSetting:
    """Return a channel of a factory.

    Args:
        terms: The factory's.
        outpoint: Where the leaf's output is that funds the channel.
        channel: That output, which pays to the funding keys of both.
        lsp: The LSP's keys.
        client: The client's.
    """
    funding = Funding(
        outpoint=outpoint,
        pubkeys=(lsp.funding_pubkey, client.funding_pubkey),
        capacity_sat=channel.amount_sat,
    )
    paid_to = channel.signers_output
    if paid_to is None or not isinstance(paid_to.spending_key_agg, KeyAgg):
        raise AssertionError("both sides know whose keys a channel has")
    funding.take_key_agg(paid_to.spending_key_agg)
    return ChannelSetting(
        terms=channel_terms_of(terms),
        keys=ChannelKeys(opener=_basepoints(lsp), accepter=_basepoints(client)),
        funding=funding,
        lsp=lsp,
        client=client,
    )


def funding_in(state: TreeNode, funding: Funding, *, client: int) -> Funding:
    """Return where a channel is in another state of its leaf, and what it holds there.

    Args:
        state: The state.
        funding: The channel's, in any state.
        client: Whose channel it is.

    Raises:
        AssertionError: If the state pays no such channel.
    """
    for vout, output in enumerate(state.outputs):
        if output.kind is OutputKind.CHANNEL and output.client == client:
            return Funding(
                outpoint=state.tx.outpoint(vout),
                pubkeys=funding.pubkeys,
                capacity_sat=output.amount_sat,
            )
    raise AssertionError(f"{state.name} pays no channel of client {client}")


def _basepoints(offer: ChannelOffer) -> Basepoints:
    return Basepoints(
        revocation=offer.revocation_basepoint,
        payment=offer.payment_basepoint,
        delayed_payment=offer.delayed_payment_basepoint,
        htlc=offer.htlc_basepoint,
    )


def offer_of(keys: ChannelPubkeys) -> ChannelOffer:
    """Return one side's keys of a channel, ready to be sent."""
    return ChannelOffer(
        funding_pubkey=keys.funding_pubkey,
        revocation_basepoint=keys.revocation_basepoint,
        payment_basepoint=keys.payment_basepoint,
        delayed_payment_basepoint=keys.delayed_payment_basepoint,
        htlc_basepoint=keys.htlc_basepoint,
        first_per_commitment_point=keys.first_per_commitment_point,
        second_per_commitment_point=keys.second_per_commitment_point,
    )
