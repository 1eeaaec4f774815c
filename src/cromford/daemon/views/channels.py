"""The money in live channels as an operator reads it: plain data, computed on demand."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cromford.answers.channels import ChannelAmounts, ChannelMoney, ChannelStatus
from cromford.answers.factory_words import OvertakenStatus
from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.daemon.metrics import Sample
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.marks import least_close_msat
from cromford.protocol.journal.closes import limit_msat
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.watch.exit_cost import exit_cost_of
from cromford.watch.feerates import OwnFees

RESTORED: Final = "the store was restored from a backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a channel stands to the chain.

    Attributes:
        is_usable: Whether new payments may begin once both sides are connected.
        is_fresh: Whether what we see of the chain is of this moment.
        is_exiting: Whether one of its parties brings it on chain.
        depth: Confirmations of the factory's funding.
        min_depth: How many it needs.
        is_swept: Whether an output above it went elsewhere: to no way to it, and by no close.
        is_closed: Whether a close of it is in a block.
        is_closing: Whether one that everybody signed waits for a block.
        has_moved_out: Whether its client moved out of it, and gave its keys away.
        is_markable: Whether a mark can be written, where marks are kept.
        overtaken: What its factory is called whose funding lost its place; None if it did not.
    """

    is_usable: bool
    is_fresh: bool
    is_exiting: bool
    depth: int
    min_depth: int
    is_swept: bool = False
    is_closed: bool = False
    is_closing: bool = False
    has_moved_out: bool = False
    is_markable: bool = True
    overtaken: OvertakenStatus | None = None


def status_of(link: Link, standing: Standing) -> ChannelStatus:
    """Return in one word whether payments may begin in a channel now, or why not.

    `open`: they may; `offline`: they may when the peer is back; `stale`: they may when our chain is
    fresh again; `unmarkable`: they may when the mark's place answers again; `pending`: the funding
    is not deep enough; `exiting`: on its way to the chain; `ending`: past its exit deadline;
    `behind`: the peer proved that state was lost here; `marked`: the store was restored from a
    backup, and nothing but a close is signed; `swept`: it is gone with its factory; `failed`: no
    update any more; `closed`: a block has a close of it; `closing`: one that everybody signed waits
    for a block; `moved_out`: it was left empty, and its keys are the LSP's; `displaced`: another
    candidate of its factory's fee ladder confirmed, and `dead`: something else took the place of
    the funding, so deep that the channel is over.
    """
    if standing.is_closed:
        return "closed"
    if standing.has_moved_out:
        return "moved_out"
    if standing.is_swept:
        return "swept"
    if standing.overtaken:
        return standing.overtaken
    if link.is_behind and not standing.is_closing:
        return "behind"
    if standing.is_exiting:
        return "exiting"
    if standing.is_closing:
        return "closing"
    if link.mark is not None:
        return "marked"
    if link.failure is not None:
        return "failed"
    if standing.is_usable and not standing.is_fresh:
        return "stale"
    if standing.is_usable and not standing.is_markable:
        return "unmarkable"
    if standing.is_usable:
        return "open" if link.is_open else "offline"
    return "pending" if standing.depth < standing.min_depth else "ending"


def is_on_chain(link: Link, chain: KnownChain) -> bool:
    """Say whether a channel's output was spent: its money is in the wallet, or on its way."""
    return link.funding_on(chain).outpoint in chain.spends


def show_channel(
    link: Link, standing: Standing, chain: KnownChain, *, covered_sat: int | None = None
) -> ChannelMoney:
    """Return a channel's money, and the blocks that are left to use it.

    What can be sent and received is 0 where no new payment may begin now; the status says why.
    `close_limit_msat` is the most that the client may come to own by the closes that it signed,
    None if no such limit binds it. The blocks are None once the channel's output is on chain:
    nothing about it expires. `covered_sat` limits what the client is paid, if it is not None.
    """
    balance = balance_now(link, chain, covered_sat=covered_sat)
    status = status_of(link, standing)
    is_open = status == "open"
    deadline_height = link.remaining(chain).exit_deadline_height
    return {
        "channel_id": link.channel_id.hex(),
        "factory_id": link.attempt_id.hex(),
        "status": status,
        "failed": link.failure,
        "marked": _why_marked(link),
        "capacity_sat": link.state.content(link.me, Edition.SIGNED).capacity_sat,
        "own_msat": balance.own_msat,
        "peer_msat": balance.peer_msat,
        "spendable_msat": balance.spendable_msat if is_open else 0,
        "receivable_msat": balance.receivable_msat if is_open else 0,
        "sending_msat": balance.sending_msat,
        "receiving_msat": balance.receiving_msat,
        "close_limit_msat": limit_msat(link.closes, chain),
        "blocks_to_exit_deadline": None
        if deadline_height is None
        else deadline_height - chain.height,
    }


def _why_marked(link: Link) -> str | None:
    """Return what a mark means for a channel, and at which balance it can be closed."""
    if link.mark is None:
        return None
    least_sat = f"{least_close_msat(link) // MSAT_PER_SAT:,} sat"
    if link.mark.agreed_msat is not None:
        at = f"at {least_sat} of ours, which both sides' stores say"
    else:
        at = f"at {least_sat} of ours or more"
    who = "ask your LSP" if link.me is Party.ACCEPTER else "see `lsp close`"
    return f"{RESTORED}: it can only be closed, {at}: {who}"


def totals(channels: Iterable[ChannelAmounts]) -> ChannelAmounts:
    """Return the sum of every amount."""
    listed = list(channels)
    return {
        "own_msat": sum(channel["own_msat"] for channel in listed),
        "peer_msat": sum(channel["peer_msat"] for channel in listed),
        "spendable_msat": sum(channel["spendable_msat"] for channel in listed),
        "receivable_msat": sum(channel["receivable_msat"] for channel in listed),
        "sending_msat": sum(channel["sending_msat"] for channel in listed),
        "receiving_msat": sum(channel["receiving_msat"] for channel in listed),
    }


def amounts_of(sums: Mapping[str, int]) -> ChannelAmounts:
    """Return sums that were kept by name, as `sums_of` gives them; what is missing is 0."""
    return {
        "own_msat": sums.get("own_msat", 0),
        "peer_msat": sums.get("peer_msat", 0),
        "spendable_msat": sums.get("spendable_msat", 0),
        "receivable_msat": sums.get("receivable_msat", 0),
        "sending_msat": sums.get("sending_msat", 0),
        "receiving_msat": sums.get("receiving_msat", 0),
    }


def sums_of(amounts: ChannelAmounts) -> dict[str, int]:
    """Return amounts to be kept by name."""
    return {
        "own_msat": amounts["own_msat"],
        "peer_msat": amounts["peer_msat"],
        "spendable_msat": amounts["spendable_msat"],
        "receivable_msat": amounts["receivable_msat"],
        "sending_msat": amounts["sending_msat"],
        "receiving_msat": amounts["receiving_msat"],
    }


def exit_sat(
    link: Link, preimages: Mapping[bytes, bytes], *, chain: KnownChain, fees: OwnFees
) -> int | None:
    """Return what would reach the wallet if this channel were left now and the peer did nothing.

    The tree's own transactions are prepaid; what the sweeps pay is deducted, and what children cost
    today is the exit plan's to say. None where state was lost, or may be.
    """
    finished = link.finished_on(link.funding_on(chain))
    if link.withholds_commitment or finished is None:
        return None
    leaving = exit_cost_of(
        finished,
        landed_height=chain.height + link.remaining(chain).exit_blocks,
        fees=fees,
        preimages=preimages,
    )
    return leaving.remainder_sat


def channel_samples(n_open: int, total: ChannelAmounts) -> Iterator[Sample]:
    """Yield for Prometheus how many channels are open, what can be sent, and what is on its way."""
    yield "channels_open", {}, n_open
    yield "channels_msat", {"kind": "own"}, total["own_msat"]
    yield "channels_msat", {"kind": "spendable"}, total["spendable_msat"]
    yield "channels_msat", {"kind": "receivable"}, total["receivable_msat"]
    yield "channels_msat", {"kind": "sending"}, total["sending_msat"]
    yield "channels_msat", {"kind": "receiving"}, total["receiving_msat"]
