"""What is worth an exit: a balance that becomes a coin, and every HTLC that has an output.

An HTLC with an output is never given up, however little it holds: what a thief has to spend for
it, its HTLC transaction and a sweep, is always less. What the LSP prepaid is no part of that.
Nothing is lost where the HTLC is taken with the whole factory, after the expiry, or where the
branch is on chain for another reason.
"""

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, P2TR_DUST_SAT, fee_sat_of
from cromford.channel.terms import ChannelTerms
from cromford.watch.sweep import SWEEP_VSIZE


def least_balance_sat(terms: ChannelTerms) -> int:
    """Return the least balance that is worth an exit: it has an output, and leaves a coin.

    The feerate is the least that is relayed, not the terms', which the LSP chose: from the moment
    the channel is on chain nothing takes the output away, so its sweep can wait for that.
    """
    sweep_sat = fee_sat_of(vsize=SWEEP_VSIZE, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)
    return max(terms.dust_limit_sat, P2TR_DUST_SAT + sweep_sat)
