"""What is worth an exit: a balance that pays for its sweep, and every HTLC that has an output.

An HTLC with an output is never given up, however little it holds: what a thief has to spend for
it, its HTLC transaction and a sweep, is always less. What the LSP prepaid is no part of that.
Nothing is lost where the HTLC is taken with the whole factory, after the expiry, or where the
branch is on chain for another reason.
"""

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, P2TR_DUST_SAT, fee_sat_of
from cromford.channel.terms import ChannelTerms
from cromford.watch.feerates import OwnFees
from cromford.watch.sweep import SWEEP_VSIZE


def least_balance_sat(terms: ChannelTerms) -> int:
    """Return the least balance that is worth an exit on the cheapest day that there may be.

    It has an output, and leaves a coin at the least feerate that is relayed: a smaller output is
    never spent, whatever the day asks.
    """
    relayed_sat = fee_sat_of(vsize=SWEEP_VSIZE, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)
    return max(terms.dust_limit_sat, P2TR_DUST_SAT + relayed_sat)


def sweep_sat(fees: OwnFees) -> int:
    """Return the least that a balance's sweep costs by one's own node: what it has to be worth.

    By its lowest estimate, and not by the terms' feerate, which the LSP chose: branch and
    commitment are prepaid, and from the moment the channel is on chain nothing takes the output
    away, so its sweep waits for that. Asked at every block: what is not worth it today is, once
    fees fall.
    """
    return fee_sat_of(vsize=SWEEP_VSIZE, feerate_sat_per_kw=fees.lowest_sat_per_kw)
