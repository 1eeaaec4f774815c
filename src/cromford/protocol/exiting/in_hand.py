"""What one side has in its hands of one channel, and what it could lose of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from immutables import Map

from cromford.bitcoin.tx import OutPoint
from cromford.channel.content import Htlc
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.branch import SignedBranch
from cromford.factory.terms import SAFETY_BLOCKS, GeneralTerms
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.purses import Purses


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """What is lost if our commitment is not in a block by a height."""

    end_height: int
    amount_sat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """What could be lost of a channel, and until when it has to be on chain.

    Attributes:
        amount_sat: Our balance, and the HTLCs that waiting could lose.
        risks: What hurries, the soonest first, each with all that ends before it.
        forwarded: The ids of HTLCs that we offered for somebody else's.
    """

    amount_sat: int = 0
    risks: tuple[Risk, ...] = ()
    forwarded: frozenset[int] = frozenset()

    @property
    def end_height(self) -> int | None:
        """When our commitment has to be in a block; None where nothing hurries."""
        return self.risks[0].end_height if self.risks else None


@dataclass(frozen=True, kw_only=True)
class InHand:
    """What one side has in its hands of one channel.

    Attributes:
        link: The channel, as it first was if it was not ready yet.
        terms: The factory's.
        signed: The branch down to the channel.
        preimages: By payment hash.
        payout_script: Our wallet's.
        stake: What we could lose.
        published: Since which height what may be bumped is published, by what it spends.
        purses: Our coins for children, by what these children's parents spend.
    """

    link: Link
    terms: GeneralTerms
    signed: SignedBranch
    preimages: Mapping[bytes, bytes]
    payout_script: bytes
    stake: Stake = field(default_factory=Stake)
    published: Mapping[OutPoint, int] = field(default_factory=Map)
    purses: Purses = field(default_factory=Map)


def stake_of(
    link: Link,
    at_stake: Iterable[Htlc],
    chain: KnownChain,
    *,
    expires: bool,
    forwarded: Iterable[int] = (),
) -> Stake:
    """Return what could be lost of a channel.

    Args:
        link: The channel.
        at_stake: Its HTLCs that waiting could lose.
        chain: How much of the way out is behind us.
        expires: Whether the factory's expiry takes our balance.
        forwarded: The ids of HTLCs that we offered for somebody else's.
    """
    htlcs = tuple(at_stake)
    own_msat = balance_of(link).own_msat
    if link.mark is not None and link.mark.agreed_msat is not None:
        own_msat = link.mark.agreed_msat  # By the later of both sides' stores.
    elif expires and link.is_balance_unknown:
        # Any of it may be ours. With nothing at stake nothing would pay for the way out.
        own_msat = max(own_msat, MSAT_PER_SAT * link.funding_on(chain).capacity_sat // 2)
    ends = [(htlc.cltv_expiry - CLAIM_BLOCKS, htlc.amount_msat) for htlc in htlcs]
    if expires and link.remaining(chain).exit_deadline_height is not None:
        ends.append((link.expiry_height - SAFETY_BLOCKS, own_msat))
    return Stake(
        amount_sat=(own_msat + sum(htlc.amount_msat for htlc in htlcs)) // MSAT_PER_SAT,
        risks=tuple(
            Risk(
                end_height=end_height,
                amount_sat=sum(msat for end, msat in ends if end <= end_height) // MSAT_PER_SAT,
            )
            for end_height in sorted({end for end, _ in ends})
        ),
        forwarded=frozenset(forwarded),
    )
