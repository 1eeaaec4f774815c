"""What can be paid and received through a channel now, in millisatoshi."""

from dataclasses import dataclass, replace

from cromford.channel.content import CommitmentContent
from cromford.channel.stage import Edition
from cromford.channel.state import ChannelState
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.protocol.channels.close_rules import owed_msat, room_msat, stands_still
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """One side's money in a channel, in msat.

    Attributes:
        own_msat: What is ours on our latest commitment, without HTLCs.
        peer_msat: What is the peer's.
        spendable_msat: The largest HTLC that we can offer now.
        receivable_msat: The largest that the peer can offer.
        sending_msat: What our HTLCs hold.
        receiving_msat: What the peer's hold.
    """

    own_msat: int
    peer_msat: int
    spendable_msat: int
    receivable_msat: int
    sending_msat: int
    receiving_msat: int


def balance_of(link: Link) -> Balance:
    """Return a channel's money as we see it. Nothing is spendable where no update is possible."""
    state = link.state
    content = state.content(state.me, Edition.SIGNED)
    can_pay = link.takes_updates
    return Balance(
        own_msat=content.balance_msat(state.me),
        peer_msat=content.balance_msat(state.peer),
        spendable_msat=offerable_msat(state, state.me) if can_pay else 0,
        receivable_msat=offerable_msat(state, state.peer) if can_pay else 0,
        sending_msat=_offered_msat(content, state.me),
        receiving_msat=_offered_msat(content, state.peer),
    )


def balance_now(link: Link, chain: KnownChain, *, covered_sat: int | None = None) -> Balance:
    """Return a channel's money with what its cooperative closes leave of it to be offered.

    A client receives no more than up to what it signed for, or to what is covered, and nothing
    moves where a close or an advance is being agreed on, or a close may be finished.

    Args:
        link: The channel.
        chain: What is in blocks.
        covered_sat: Up to where the client's money is covered, if that is a limit.
    """
    balance = balance_of(link)
    if stands_still(link, chain):
        return replace(balance, spendable_msat=0, receivable_msat=0)
    room = room_msat(link, chain)
    if covered_sat is not None:
        covered = covered_sat * MSAT_PER_SAT - owed_msat(link.state)
        room = covered if room is None else min(room, covered)
    if room is None:
        return balance
    to_client = "spendable_msat" if link.me is Party.OPENER else "receivable_msat"
    most_msat = min(getattr(balance, to_client), max(0, room))
    least_msat = link.state.terms.htlc_minimum_msat
    return replace(balance, **{to_client: most_msat if most_msat >= least_msat else 0})


def offerable_msat(state: ChannelState, party: Party) -> int:
    """Return the largest HTLC that a party can offer now: balance, reserve and limits decide.

    It may still be refused where many small HTLCs are under way (`max_dust_exposure_msat`).
    """
    content = state.content(party.other, Edition.NEXT)
    terms = state.terms
    if sum(1 for htlc in content.htlcs if htlc.offered_by is party) >= terms.max_accepted_htlcs:
        return 0
    reserve_msat = MSAT_PER_SAT * terms.reserve_sat(party, capacity_sat=content.capacity_sat)
    reserve_msat += state.reserved_msat_of(party, Edition.NEXT)
    free_msat = content.balance_msat(party) - reserve_msat
    flight_msat = terms.max_in_flight_msat - _offered_msat(content, party)
    largest_msat = min(free_msat, flight_msat)
    return largest_msat if largest_msat >= terms.htlc_minimum_msat else 0


def _offered_msat(content: CommitmentContent, party: Party) -> int:
    return sum(htlc.amount_msat for htlc in content.htlcs if htlc.offered_by is party)
