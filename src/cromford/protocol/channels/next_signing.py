"""What a next funding adds to a channel's messages: stages, nonces, and who still lacks what.

Its two sides see blocks at different times, so no view of the chain alone changes what is said: a
next funding is void once both sides have said, in one connection, that the old state is six deep.
"""

from typing import Final

from cromford import effects as fx
from cromford.channel.commitment import Commitment
from cromford.channel.errors import PeerViolation
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.stage import HtlcStage, UpdateStep
from cromford.channel.terms import Party
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.intents import DoubleSigning
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import POISONS_HELD, SIGNED, NextFunding
from cromford.protocol.turn import AnyTurn
from cromford.wire import messages as m
from cromford.wire.selling import AdvancePartials, NextNonce

STAGE_MAX: Final = POISONS_HELD


def is_void(link: Link, chain: KnownChain) -> bool:
    """Say whether we see the state of the present funding six deep, and another was to replace it.

    Then nothing of the next funding can confirm any more.
    """
    return link.next is not None and chain.depth(link.present.outpoint.txid) >= SETTLED_DEPTH


def is_settled(following: NextFunding, chain: KnownChain) -> bool:
    """Say whether we see a next funding six deep: nothing of the old state can confirm any more."""
    return chain.depth(following.funding.outpoint.txid) >= SETTLED_DEPTH


def next_stage(link: Link) -> tuple[m.AdvanceStage, ...]:
    """Return what our `channel_reestablish` says of a next funding; nothing below the first stage.

    An LSP says where it is from its first `AdvanceCommit` on, whoever got it.
    """
    following = link.next
    if following is None or following.stage < SIGNED:
        return ()
    return (
        m.AdvanceStage(
            advance_id=following.advance_id,
            stage=following.stage,
            is_void=int(following.said_void),
            funding_txid=following.funding.outpoint.txid,
            nonces=tuple(
                NextNonce(number=number, pubnonce=nonce.pubnonce)
                for number, nonce in sorted(following.own_nonces.items())
            ),
        ),
    )


def check_next_stage(link: Link, message: m.ChannelReestablish) -> None:
    """Check what a peer says of a next funding, and that the nonces are there for what may come.

    Raises:
        PeerViolation: If it signed less than we know, names another funding, or a nonce is missing.
    """
    told = message.advance[0] if message.advance else None
    following = link.next
    if told is None:
        if following is not None and following.is_dual and not _may_be_rebased(link):
            # A liar's, or a store's that lost it: to go on would revoke what only we have there.
            raise PeerViolation("advance", expected=following.advance_id, received="none")
        return
    if not SIGNED <= told.stage <= STAGE_MAX:
        raise PeerViolation("stage", expected=f"{SIGNED}..{STAGE_MAX}", received=told.stage)
    is_ahead = link.me is Party.OPENER and following is None
    if not (is_ahead and told.funding_txid == link.present.outpoint.txid):
        # Whoever revokes last is rebased first: the LSP, and nothing is under way there then.
        if following is None:
            if link.me is Party.ACCEPTER:
                return  # The LSP had begun with what we never signed: it begins anew.
            raise PeerViolation("advance_id", expected="none", received=told.advance_id)
        if told.funding_txid != following.funding.outpoint.txid:
            expected = following.funding.outpoint.txid
            raise PeerViolation("funding_txid", expected=expected, received=told.funding_txid)
        if told.advance_id != following.advance_id:
            raise PeerViolation(
                "advance_id", expected=following.advance_id, received=told.advance_id
            )
    numbers = {one.number for one in told.nonces}
    if message.next_commitment_number not in numbers:
        raise PeerViolation(
            "nonces",
            expected=f"one for commitment {message.next_commitment_number}",
            received=sorted(numbers),
        )


def _may_be_rebased(link: Link) -> bool:
    """Say whether the peer may be rebased already: its revocation is all that we wait for."""
    rebase = link.state.rebase
    if rebase is None or link.me is not Party.ACCEPTER:
        return False
    return rebase.stage is HtlcStage.ADD_COUNTERSIGNED


def check_further_nonce(link: Link, message: m.RevokeAndAck) -> None:
    """Check that a revocation brings a nonce for each commitment that may come next.

    Raises:
        PeerViolation: If one is missing, or is for a funding that is not under way.
    """
    following, rebase = link.next, link.state.rebase
    awaited: tuple[bytes, ...] = ()
    if following is not None and following.is_dual:
        awaited = (following.funding.outpoint.txid,)
    if rebase is not None and rebase.moved(UpdateStep.REVOKE, link.state.peer).is_over:
        awaited = ()  # It has no other funding from here on.
    received = tuple(one.funding_txid for one in message.further)
    if following is None and link.superseded and received == (link.present.outpoint.txid,):
        return  # The client has not heard yet that we are over with the funding before.
    if received != awaited:
        raise PeerViolation(
            "further",
            expected=[txid.hex() for txid in awaited],
            received=[txid.hex() for txid in received],
        )


def hand_in_latest(turn: AnyTurn, link: Link, message: m.ChannelReestablish) -> None:
    """Sign the LSP's latest commitment on the next funding again, where it says that it lacks it.

    It goes before all that BOLT 2 sends again: what follows is for both fundings. What the LSP has
    as its latest may be the one before what we signed since.

    Raises:
        DoubleSigning: If it would be another sighash than before.
    """
    following = link.next
    if following is None or link.me is not Party.ACCEPTER or not following.is_dual:
        return
    number = message.next_commitment_number - 1
    pubnonce, sighash = following.peer_nonces.get(number), following.given.get(number)
    if pubnonce is None or sighash is None:
        return
    known = {content.number: (content, point) for content, point in link.peer_contents}
    if number not in known:
        raise AssertionError(f"commitment {number} of the LSP is not known")
    content, point = known[number]
    commitment = link.commitment(content, point, following.funding)
    if commitment.signing_task.sighash != sighash:
        raise DoubleSigning(f"commitment {number} on the next funding")
    turn.ask(sign_next_of(link, commitment, point, pubnonce))


def sign_next_of(
    link: Link,
    commitment: Commitment,
    per_commitment_point: bytes,
    pubnonce: bytes,
    partials: tuple[AdvancePartials, ...] = (),
) -> fx.SignNext:
    """Return the wish to sign the peer's commitment on a channel's next funding.

    Args:
        link: The channel.
        commitment: The peer's latest, on its next funding.
        per_commitment_point: The peer's.
        pubnonce: The peer's.
        partials: What goes with it, made before.
    """
    return fx.SignNext(
        channel_id=link.channel_id,
        attempt_id=link.attempt_id,
        advance_id=b"" if link.next is None else link.next.advance_id,
        key=link.key,
        task=commitment.signing_task,
        number=commitment.content.number,
        pubnonce=pubnonce,
        per_commitment_point=per_commitment_point,
        htlc_sighashes=tuple(htlc.peer_sighash for htlc in htlc_txs(commitment)),
        partials=partials,
    )
