"""The funding that takes the place of a channel's present one, once both sides are rebased onto it.

Until then both may confirm: what a channel says is signed for both outpoints. Which commitments lie
on it, and which nonces are in use for it, is the fold of a channel's records, as in `link`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from immutables import Map

from cromford.channel.commitment import Funding
from cromford.signing.nonces import PublicPool
from cromford.watch.coverage import NOTHING_PENDING, Fullest
from cromford.watch.remaining import PathStep

SIGNED: Final = 1
STATE_HELD: Final = 2
POISONS_HELD: Final = 3
UNSAID: Final = -1  # Of a stage: in this connection the peer did not say, or has moved on since.


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnNonce:
    """A nonce of ours for one commitment: its place in a pool, and its public half."""

    pool_id: bytes
    index: int
    pubnonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCommitment:
    """What makes our commitment of this number one that can be published."""

    number: int
    signature: bytes
    htlc_signatures: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class NextFunding:
    """A channel's next funding.

    Attributes:
        advance_id: The advance that makes it.
        funding: Where it will be, and what it holds.
        price_msat: What the channel's client pays the LSP with the rebase onto it.
        is_agreed: Whether both sides are quiet for it, in this connection.
        is_dual: Whether updates are signed for it, too: from a client's `AdvanceSign` on.
        is_leaving: Whether our `AdvanceSign` is being made: nothing is said before it.
        stage: How far we are, as `ChannelReestablish` says it: `SIGNED`, `STATE_HELD`, or
            `POISONS_HELD`, which at the LSP says that they may have been sent.
        said_void: Whether we told the peer, in this connection, that the old state is six deep.
        may_rebase: Whether the client holds the poisons of the state before, or that state can no
            longer confirm: the rebase may be offered, and is taken.
        own: Our latest commitment on it; None before there is one.
        given: By number, the sighash of the peer's latest, as we signed it or are about to, and of
            the one before.
        own_nonces: Ours for our own commitments on it, by number, in this connection.
        peer_nonces: The peer's public halves for its own, likewise.
        fullest: The LSP's fullest commitment that was signed for it.
        peer_stage: What the peer says of its stage: 0 that it signed nothing; `UNSAID` where it did
            not say it in this connection, or got what it could sign with since.
        session_pool: The pool of our nonces that the advance needs besides, while it does.
        step: The state that pays it, as a step of the way out; None where that is not known.
    """

    advance_id: bytes
    funding: Funding
    price_msat: int
    is_agreed: bool = False
    is_dual: bool = False
    stage: int = 0
    said_void: bool = False
    may_rebase: bool = False
    own: HeldCommitment | None = None
    given: Map[int, bytes] = field(default_factory=Map)
    own_nonces: Map[int, OwnNonce] = field(default_factory=Map)
    peer_nonces: Map[int, bytes] = field(default_factory=Map)
    fullest: Fullest = NOTHING_PENDING
    peer_stage: int = UNSAID
    is_leaving: bool = False
    session_pool: bytes = b""
    step: PathStep | None = None

    @property
    def pool_ids(self) -> frozenset[bytes]:
        """The pools that its nonces are in."""
        needed = frozenset({self.session_pool} if self.session_pool else ())
        return needed | {nonce.pool_id for nonce in self.own_nonces.values()}


def nonces_in(pool: PublicPool, numbers: Mapping[int, int]) -> Map[int, OwnNonce]:
    """Return what nonces of a pool are for.

    Args:
        pool: The pool.
        numbers: By the number of a commitment, the index of its nonce.
    """
    return Map(
        {
            number: OwnNonce(pool_id=pool.pool_id, index=index, pubnonce=pool.pubnonces[index])
            for number, index in numbers.items()
        }
    )
