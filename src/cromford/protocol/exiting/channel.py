"""Leaving a channel: down the branch, out of the commitment, into one's own wallet.

What comes next follows from what is held and what the chain shows, so an exit resumes from any
half-published state. Whoever did not ask to leave still claims what is its own, once the peer
brought the channel on chain.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.channel.claims import to_peer_claims
from cromford.channel.content import Htlc
from cromford.channel.stage import HtlcStage
from cromford.channel.terms import Party
from cromford.crypto.keys import sha256
from cromford.factory.vertices import TreeNode
from cromford.protocol import events as ev
from cromford.protocol.channels.failing import end_updates
from cromford.protocol.channels.htlc_rules import give_up_height
from cromford.protocol.exiting.breach import (
    is_to_be_recalled,
    known_breach,
    revoked_commitment,
    revoked_number,
)
from cromford.protocol.exiting.confirming import of_commitment, of_spend, paid_for, step_of_path
from cromford.protocol.exiting.in_hand import InHand
from cromford.protocol.exiting.stake import htlcs_at_stake
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.turn import AnyTurn
from cromford.watch.bumping import anchor_of
from cromford.watch.channel_exit import (
    NeedsChild,
    PublishCommitment,
    Unrecognised,
    channel_actions,
    outpoints_of_interest,
    preimages_in,
    preimages_seen,
)
from cromford.watch.exit import Publish, next_exit_action
from cromford.watch.exit_cost import COMMITMENT_NAME
from cromford.watch.feerates import OwnFees
from cromford.watch.landed import (
    HtlcTxDue,
    LandedChannel,
    RevokedCommitment,
    SupersededOutput,
    Sweepable,
    UnknownSpender,
    takings,
)
from cromford.watch.sweep import TakingTx

ANY_FEES: Final = OwnFees()
RESOLVED_DEPTH: Final = 6  # From then on what the chain says of an HTLC is passed on.
# How an HTLC ended of which nobody said so, for the operator.
SWEPT_ABOVE: Final = "the factory was swept above its channel"
DEAD_FUNDING: Final = "something else spends a coin of its funding, as deep as a funding has to be"
OVERTAKEN: Final = "its channel's funding lost its place"
ELSEWHERE: Final = "its channel ended without a commitment that our store has"


def landed_channel(
    holding: InHand, chain: KnownChain, *, fees: OwnFees = ANY_FEES
) -> LandedChannel:
    """Return a channel as the chain shows it: by the output of it that is in a block.

    Args:
        holding: What we have of it.
        chain: What is in blocks.
        fees: Our node's; any will do where nothing is to be signed.
    """
    link = holding.link
    funding = link.funding_on(chain)
    finished = link.finished_on(funding)
    superseded = SupersededOutput(me=link.me, outpoint=funding.outpoint)
    spender = chain.spends.get(funding.outpoint)
    return LandedChannel(
        revoked=known_breach(link, funding),
        unknown=None if spender is None else _unknown(link, spender),
        finished=finished,
        superseded=superseded if finished is None else None,
        own_point=link.own_point,
        peer_commitments=link.peer_commitments_on(funding),
        preimages=holding.preimages,
        spends=chain.spends,
        heights=chain.confirmed,
        tip_height=chain.height,
        payout_script=holding.payout_script,
        fees=fees,
    )


def has_lost_its_place(attempt: LspAttempt | ClientAttempt, chain: KnownChain) -> bool:
    """Say whether a factory's funding lost its place for good, so that no channel of it is left."""
    return attempt.overtaken_depth(chain) >= max(attempt.terms.min_depth, RESOLVED_DEPTH)


def settled_spender(link: Link, chain: KnownChain) -> Tx | None:
    """Return what spent a channel's output `RESOLVED_DEPTH` ago; None if what it says is unknown.

    That of a revoked commitment still has to be looked up.
    """
    spender = chain.spends.get(link.funding_on(chain).outpoint)
    if spender is None or is_to_be_recalled(link, spender):
        return None
    return spender if chain.depth(spender.txid) >= RESOLVED_DEPTH else None


def _unknown(link: Link, spender: Tx) -> UnknownSpender | None:
    """Return what spent a channel's output, unless it has to be punished as a whole."""
    if revoked_number(link, spender) is not None:
        return None
    to_us = link.setting.keys.to_peer(link.me)
    return UnknownSpender(tx=spender, claims=to_peer_claims(spender, to_us))


def owes_commitment(link: Link | None) -> bool:
    """Say whether our commitment is published for the peer as well, once the output is on chain.

    A peer that lost state, or says so, must not publish its own.
    """
    return link is not None and link.peer_is_behind


def exit_effects_of(
    holding: InHand,
    chain: KnownChain,
    *,
    fees: OwnFees,
    is_exiting: bool,
    is_paused: bool = False,
    publishes_path: bool = True,
) -> tuple[fx.Effect, ...]:
    """Return what is to be published now.

    Whoever stays publishes its newest state, too, once somebody started its clock: else an older
    one could come first.

    Args:
        holding: What we have of the channel.
        chain: What is in blocks.
        fees: Our node's.
        is_exiting: Whether we leave.
        is_paused: Whether our exit rests.
        publishes_path: Whether what we have of the tree is ours to publish.
    """
    step = next_exit_action(holding.signed, confirmed=chain.confirmed, tip_height=chain.height)
    is_leaving = is_exiting and not is_paused
    if isinstance(step, Publish) and publishes_path and (step.step.is_raced or is_leaving):
        return (step_of_path(holding, chain, step.step, fees=fees, is_leaving=is_exiting),)
    landed = landed_channel(holding, chain, fees=fees)
    return tuple(_claims(holding, chain, landed, is_leaving=is_leaving, fees=fees))


def _claims(
    holding: InHand, chain: KnownChain, landed: LandedChannel, *, is_leaving: bool, fees: OwnFees
) -> Iterator[fx.Effect]:
    link = holding.link
    for action in channel_actions(landed):
        match action:
            case PublishCommitment(tx=tx) | NeedsChild(due=PublishCommitment(tx=tx)):
                if link.withholds_commitment or not (is_leaving or link.peer_is_behind):
                    continue
                if link.me is Party.ACCEPTER and link.is_poisoned(chain):
                    continue  # The poison pays all of the channel, and spends the same.
                bumping = None
                if is_leaving or isinstance(action, NeedsChild):
                    bumping = of_commitment(holding, chain, tx, fees=fees)
                yield fx.Broadcast(name=COMMITMENT_NAME, tx=tx, bumping=bumping)
            case TakingTx():
                bumping = of_spend(holding, chain, action, fees=fees)
                yield fx.SignTakingTx(key=link.key, spend=action, bumping=bumping)
            case NeedsChild(due=TakingTx() as spend):
                bumping = of_spend(holding, chain, spend, fees=fees)
                paid = spend if bumping is None else paid_for(spend, bumping)
                yield fx.SignTakingTx(key=link.key, spend=paid, bumping=bumping)
            case Unrecognised(tx=tx):
                number = revoked_number(link, tx)
                if number is not None:
                    yield fx.RecallCommitment(channel_id=link.channel_id, number=number)
            case _:
                continue


def spend_of(asked: fx.SignTakingTx, tx: Tx) -> fx.Broadcast:
    """Return how a signed transaction that takes outputs of a channel is published."""
    # What has an anchor stays as it is; all else is signed anew for each block.
    bumping = None if anchor_of(tx) is None else asked.bumping
    return fx.Broadcast(name=asked.spend.name, tx=tx, replaces=bumping is None, bumping=bumping)


def preimages_told(link: Link) -> dict[bytes, bytes]:
    """Return the preimages that we took the peer's HTLCs with, by payment hash.

    Until such an HTLC is gone from both commitments, only the chain may pay it.
    """
    return {
        live.htlc.payment_hash: live.removal.preimage
        for live in link.state.htlcs
        if live.htlc.offered_by is not link.me
        and live.removal is not None
        and live.removal.preimage is not None
    }


def arriving_sat(holding: InHand, chain: KnownChain) -> int:
    """Return what is on its way from a channel that is on chain to the wallet, before its fees.

    Balances that wait out a delay, and HTLCs that are ours to take.
    """
    return sum(
        taking.input.prevout.amount_sat
        for taking in takings(landed_channel(holding, chain))
        if isinstance(taking, Sweepable | HtlcTxDue) and taking.outpoint not in chain.spends
    )


def watched_outpoints(holding: InHand, chain: KnownChain) -> Iterator[OutPoint]:
    """Yield the outpoints whose spends matter once the channel is on chain.

    Of what spent its output all, whatever it is: what a revoked one says has to be looked up, and
    blocks are read meanwhile. A forgotten one may show preimages.
    """
    yield from outpoints_of_interest(landed_channel(holding, chain))
    spender = chain.spends.get(holding.link.funding_on(chain).outpoint)
    if spender is None:
        return
    yield from spender.outpoints
    if is_to_be_recalled(holding.link, spender):
        for outpoint in spender.outpoints:
            following = chain.spends.get(outpoint)
            yield from () if following is None else following.outpoints


def resolved_on_chain(
    book: Book, link: Link, holding: InHand, chain: KnownChain
) -> Iterator[cr.HtlcDecided]:
    """Yield what the chain decided about our HTLCs of a channel.

    A preimage counts at once. That an HTLC came back, or never was on the commitment that
    confirmed, counts `RESOLVED_DEPTH` blocks deep.
    """
    landed = landed_channel(holding, chain)
    commitment = landed.landed
    if commitment is None:
        yield from _shown_beyond_our_store(book, link, chain)
        return
    seen = preimages_seen(landed)
    outpoints = {
        output.htlc.htlc_id: commitment.commitment.tx.outpoint(vout)
        for vout, output in enumerate(commitment.commitment.outputs)
        if output.htlc is not None and output.htlc.offered_by is link.me
    }
    for live in link.state.htlcs:
        htlc = live.htlc
        key = (link.channel_id, htlc.htlc_id)
        if htlc.offered_by is not link.me or key not in book.owners:
            continue
        preimage = seen.get(htlc.payment_hash)
        if preimage is None:
            outpoint = outpoints.get(htlc.htlc_id)
            decided = commitment.commitment.tx if outpoint is None else landed.spends.get(outpoint)
            if decided is None or chain.depth(decided.txid) < RESOLVED_DEPTH:
                continue
        yield cr.HtlcDecided(channel_id=link.channel_id, htlc_id=htlc.htlc_id, preimage=preimage)


def _shown_beyond_our_store(book: Book, link: Link, chain: KnownChain) -> Iterator[cr.HtlcDecided]:
    """Yield our HTLCs whose preimage was shown in a commitment that our store has lost.

    Whatever else is in that commitment: with the preimage we take the HTLC that ours pays for.
    """
    spender = chain.spends.get(link.funding_on(chain).outpoint)
    if spender is None or not link.may_lack_state:
        return
    shown: dict[bytes, bytes] = {}
    for outpoint in spender.outpoints:
        following = chain.spends.get(outpoint)
        if following is not None:
            shown |= preimages_in(following)
    for live in link.state.htlcs:
        htlc, preimage = live.htlc, shown.get(live.htlc.payment_hash)
        key = (link.channel_id, htlc.htlc_id)
        if htlc.offered_by is link.me and key in book.owners and preimage is not None:
            yield cr.HtlcDecided(channel_id=key[0], htlc_id=key[1], preimage=preimage)


def earned_on_chain(
    book: Book, link: Link, holding: InHand, chain: KnownChain
) -> Iterator[cr.FeeEarned]:
    """Yield the fees of forwards whose incoming HTLC we took on chain, `RESOLVED_DEPTH` deep."""
    landed = landed_channel(holding, chain)
    commitment = landed.landed
    if commitment is None:
        return
    for vout, output in enumerate(commitment.commitment.outputs):
        htlc = output.htlc
        if htlc is None or htlc.offered_by is link.me:
            continue
        forward = book.forwards.get((link.channel_id, htlc.htlc_id))
        end = end_of_incoming(landed, commitment.commitment.tx.outpoint(vout), htlc)
        if forward is None or end is None or chain.depth(end.txid) < RESOLVED_DEPTH:
            continue
        if forward.preimage is not None and end.is_ours:
            yield cr.FeeEarned(
                channel_id=link.channel_id,
                htlc_id=htlc.htlc_id,
                payment_hash=htlc.payment_hash,
                fee_msat=forward.fee_msat,
                announced_by=forward.announced_by,
            )


class EndOfIncoming(NamedTuple):
    """What took an HTLC that the peer offered: a transaction in a block, and whether it is ours."""

    txid: Txid
    is_ours: bool


def end_of_incoming(landed: LandedChannel, outpoint: OutPoint, htlc: Htlc) -> EndOfIncoming | None:
    """Return what took an HTLC that the peer offered; None while its output is anybody's.

    Only the party it was offered to spends an HTLC with its preimage. Of a commitment that its
    payer had revoked all is ours, by penalty: its witness is one signature, which nobody else can
    make. What the payer was first to take is ours likewise, until it has that out of its delay.
    """
    spender = landed.spends.get(outpoint)
    if spender is None:
        return None
    place = next(i for i, one in enumerate(spender.inputs) if one.outpoint == outpoint)
    witness = spender.inputs[place].witness
    if not isinstance(landed.landed, RevokedCommitment):
        is_shown = htlc.payment_hash in {sha256(item) for item in witness}
        return EndOfIncoming(spender.txid, is_shown)
    if len(witness) == 1:
        return EndOfIncoming(spender.txid, is_ours=True)
    made = OutPoint(txid=spender.txid, vout=place)
    following = landed.spends.get(made)
    if following is None:
        return None
    witness = next(one.witness for one in following.inputs if one.outpoint == made)
    return EndOfIncoming(following.txid, len(witness) == 1)


def given_up(book: Book, link: Link, *, height: int) -> tuple[cr.HtlcDecided, ...]:
    """Return an LSP's HTLCs of a channel that have no output, and that nobody answered in time.

    They have none on the client's commitment either, so only the client's word could pay it, and
    that is not taken any more: final. One with an output leads to an exit; if that has to wait,
    because the funding left the chain, the HTLC waits, too.
    """
    at_stake = htlcs_at_stake(book, link)
    return tuple(
        cr.HtlcDecided(channel_id=link.channel_id, htlc_id=live.htlc.htlc_id, preimage=None)
        for live in link.state.htlcs
        if live.htlc.offered_by is link.me
        and book.is_unpaid((link.channel_id, live.htlc.htlc_id))
        and live.htlc not in at_stake
        and give_up_height(live.htlc.cltv_expiry) <= height
    )


def never_signed(book: Book, link: Link) -> tuple[cr.HtlcDecided, ...]:
    """Return our HTLCs of a channel that is over, if they are on no commitment and never will be.

    What was not signed before the channel failed is not signed any more: nobody can be paid by it.
    Whoever lost state cannot say what it signed.
    """
    if link.failure is None or link.may_lack_state:
        return ()
    return tuple(
        cr.HtlcDecided(channel_id=link.channel_id, htlc_id=live.htlc.htlc_id, preimage=None)
        for live in link.state.htlcs
        if live.htlc.offered_by is link.me
        and live.stage is HtlcStage.ADD_PROPOSED
        and book.is_unpaid((link.channel_id, live.htlc.htlc_id))
    )


def on_chain(turn: AnyTurn, link: Link) -> None:
    """End the updates of a channel whose output is spent: an update would move nothing any more.

    What the chain says must not be overtaken by what two parties agree on afterwards.
    """
    if link.funding_on(turn.chain).outpoint in turn.chain.spends:
        end_updates(turn, link, "the channel is on chain", tells_peer=False)


def tell_published(turn: AnyTurn, attempt_id: bytes, nodes: Iterable[TreeNode]) -> None:
    """Remember which of a factory's transactions the newest block confirmed, whoever sent them."""
    names = turn.chain.names_at(nodes, turn.height)
    if names:
        turn.remember(
            xr.TreePublished(attempt_id=attempt_id, height=turn.height, transactions=names)
        )


def allow_stale(turn: AnyTurn, link: Link | None, *, is_restored: bool) -> None:
    """Let our commitment of a marked channel be published, because the operator takes the risk.

    Raises:
        Rejected: If there is no channel yet, nothing is withheld, or the peer proved that the
            commitment is revoked.
    """
    if link is None:
        raise Rejected("channel_not_ready", "the channel is not ready yet", retryable=True)
    if link.mark is None and not is_restored:
        raise Rejected("store_not_restored", "our commitment is the newest: nothing is withheld")
    if link.is_behind:
        raise Rejected(
            "commitment_revoked",
            "the peer proved that our commitment is revoked: published, it would give the peer all",
        )
    if not link.publishes_stale:
        turn.remember(cr.StaleAllowed(channel_id=link.channel_id))


def remember_breach(turn: AnyTurn, recalled: ev.CommitmentRecalled) -> bool:
    """Remember what a revoked commitment says, if it is the one that is on chain, and say so.

    After a reorganisation it may be another one than before, or on another funding, which what this
    one says cannot spend.
    """
    link = turn.link(recalled.asked.channel_id)
    funding = link.funding_on(turn.chain)
    spender = turn.chain.spends.get(funding.outpoint)
    if spender is None or link.breach == recalled.content:
        return False
    try:
        revoked = revoked_commitment(link, recalled.content, funding)
    except ValueError:
        return False
    if spender.txid != revoked.commitment.tx.txid:
        return False
    turn.remember(cr.BreachFound(channel_id=link.channel_id, content=recalled.content))
    return True
