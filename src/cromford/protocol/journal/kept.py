"""What a client keeps of a join, and of a proposal that passed every check: journalled, and stored.

It is what the client needs to verify and to publish its branch, to sign for its leaf, and to know
its channel. Above the leaf it keeps what the keys of the signers add up to, and not the keys; of
the amounts those on its own branch. So all of this grows with the length of a branch, and not with
the number of clients. No nonce is in it: those of a pool die with the process that made them.
"""

from functools import lru_cache
from typing import Final

import msgspec

from cromford.bitcoin.tx import TxOut
from cromford.factory.branch import Branch, KnownVertex, known_vertices
from cromford.factory.shape import LSP_INDEX
from cromford.factory.terms import BranchTerms, decode_branch_terms
from cromford.signing.nonces import PublicPool
from cromford.wire.fields import decode_fields, encode_fields
from cromford.wire.messages import ChannelOffer, Join, NonceUse
from cromford.wire.pool import Pool

OFFERS_CACHED: Final = 64


class KeptPool(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A nonce pool of ours: its key, its name, and how many nonces it had."""

    pubkey: bytes
    pool_id: bytes
    size: int


class KeptOffer(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Our channel keys for one funding candidate, as they travelled, and their pool."""

    keys: bytes
    pool: KeptPool

    @property
    def channel(self) -> ChannelOffer:
        """The keys."""
        return offer_in(self.keys)


class KeptJoin(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A wish that went out, without its nonces."""

    capacity_sat: int
    capacity_least_sat: int
    factory_pool: KeptPool
    payout_script: bytes
    candidates: tuple[KeptOffer, ...]


class KeptVertex(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A vertex of our branch, as `factory.branch.KnownVertex` says."""

    internal_key: bytes
    amounts_sat: tuple[int, ...]
    scripts: tuple[bytes, ...]

    @property
    def known(self) -> KnownVertex:
        """The same as the factory takes it."""
        paid = zip(self.amounts_sat, self.scripts, strict=True)
        return KnownVertex(
            internal_key=self.internal_key,
            paid=tuple(
                TxOut(amount_sat=amount_sat, script_pubkey=script) for amount_sat, script in paid
            ),
        )


class KeptUse(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A session: which nonce of our pool it takes, and the aggregate nonce."""

    index: int
    aggnonce: bytes


class KeptCandidate(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Our branch under one funding transaction.

    `channel` are the LSP's channel keys as they travelled. `root` is the session of the root, which
    is signed last, `commitment_aggnonce` the aggregate nonce of our own first commitment's.
    """

    funding_tx: bytes
    vertices: tuple[KeptVertex, ...]
    channel: bytes
    root: KeptUse
    commitment_aggnonce: bytes


class KeptProposal(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A proposal that passed every check.

    `client` is our participant index, `terms` what `BranchTerms` encodes. `leaf_pubkeys` are the
    factory keys of the LSP and then of our leaf's clients, in placement order. `candidates` are
    those of the fee ladder, lowest feerate first.
    """

    client: int
    n_clients: int
    terms: bytes
    leaf_pubkeys: tuple[bytes, ...]
    candidates: tuple[KeptCandidate, ...]

    def decoded_terms(self) -> BranchTerms:
        """Return the terms.

        Raises:
            MalformedBytes: If they are none.
            InvalidTerms: Likewise.
        """
        return decode_branch_terms(self.terms, n_clients=self.n_clients)


@lru_cache(maxsize=OFFERS_CACHED)
def offer_in(data: bytes) -> ChannelOffer:
    """Return channel keys that were kept as they travelled."""
    return decode_fields(ChannelOffer, data)


def kept_join(join: Join) -> KeptJoin:
    """Return what is kept of a join."""
    return KeptJoin(
        capacity_sat=join.capacity_sat,
        capacity_least_sat=join.capacity_least_sat,
        factory_pool=_kept_pool(join.factory_pool),
        payout_script=join.payout_script,
        candidates=tuple(
            KeptOffer(keys=encode_fields(one.channel), pool=_kept_pool(one.pool))
            for one in join.candidates
        ),
    )


def _kept_pool(pool: Pool) -> KeptPool:
    public = PublicPool(pubkey=pool.pubkey, pubnonces=pool.pubnonces)
    return KeptPool(pubkey=pool.pubkey, pool_id=public.pool_id, size=len(pool.pubnonces))


def kept_candidate(
    branch: Branch,
    *,
    funding_tx: bytes,
    channel: ChannelOffer,
    root: NonceUse,
    commitment_aggnonce: bytes,
) -> KeptCandidate:
    """Return what is kept of a branch that was computed, under one funding transaction.

    Args:
        branch: Ours, unsigned, as it was opened.
        funding_tx: What it hangs from.
        channel: The LSP's keys of our channel.
        root: The session of the root.
        commitment_aggnonce: The aggregate nonce of our own first commitment's.
    """
    return KeptCandidate(
        funding_tx=funding_tx,
        vertices=tuple(
            KeptVertex(
                internal_key=vertex.internal_key,
                amounts_sat=tuple(txout.amount_sat for txout in vertex.paid),
                scripts=tuple(txout.script_pubkey for txout in vertex.paid),
            )
            for vertex in known_vertices(branch)
        ),
        channel=encode_fields(channel),
        root=KeptUse(index=root.index, aggnonce=root.aggnonce),
        commitment_aggnonce=commitment_aggnonce,
    )


def leaf_pubkeys_of(branch: Branch, pubkeys: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the factory keys of the LSP and of the clients of a branch's leaf.

    Args:
        branch: The branch.
        pubkeys: One per participant, the LSP's first.
    """
    clients = branch.vertices[-1].first.shape.clients
    return (pubkeys[LSP_INDEX], *(pubkeys[client] for client in clients))
