"""Advances under way, as each side knows them: from the proposal until every channel is rebased.

What of an advance binds is with the attempt (`leaf_states`) and in its channels (`next_funding`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from immutables import Map

from cromford.factory.allocation import Allocation
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.encoding import decoded, decoded_pool
from cromford.signing.nonces import PublicPool
from cromford.wire import messages as m


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceSession:
    """What is signed with nonces that last as long as the connections of all who take part.

    Attributes:
        factory_pool: Of our factory key: a nonce for the state, one for the L-stock's poison.
        channel_pools: Of our key of each channel, by client.
        agreed: What clients agreed with, by client.
        is_committed: Whether `AdvanceCommit` went out in it.
        signed: What clients signed, by client.
    """

    factory_pool: PublicPool
    channel_pools: Mapping[int, PublicPool]
    agreed: Map[int, m.AdvanceAgree] = field(default_factory=Map)
    is_committed: bool = False
    signed: Map[int, m.AdvanceSign] = field(default_factory=Map)

    @property
    def name(self) -> bytes:
        """What tells it from every other try."""
        return self.factory_pool.pool_id

    @property
    def pool_ids(self) -> tuple[bytes, ...]:
        """All pools of it."""
        return (self.factory_pool.pool_id, *(pool.pool_id for pool in self.channel_pools.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class LspAdvance:
    """An advance of one leaf, at the LSP.

    Attributes:
        advance_id: Its name.
        clients: The leaf's, in placement order.
        state_index: Of the state that is made.
        allocation: What that pays.
        buyer: The client whose channel grows.
        quote_id: What it bought by.
        price_msat: What it pays.
        payment_hash: Of the payment that it pays out of; empty where it pays with the rebase.
        is_committed: Whether our halves of commitments on the next funding may have left, ever.
        is_signed: Whether the state has everybody's signature.
        has_poisons: Whether the poisons of the state before may have been sent.
        acknowledged: The clients that hold them.
        session: What is signed at present; None where nobody is asked.
        is_asking: Whether everybody is asked as soon as our nonces are there and we are quiet.
        is_sold: Whether the buyer's channel has grown: it is in the ledger.
        quoted_at: When the buyer was told the price, in unix seconds; 0 if unknown.
        ordered_at: When the advance was begun; likewise.
    """

    advance_id: bytes
    clients: tuple[int, ...]
    state_index: int
    allocation: Allocation
    buyer: int
    quote_id: bytes
    price_msat: int
    payment_hash: bytes = b""
    is_committed: bool = False
    is_signed: bool = False
    has_poisons: bool = False
    acknowledged: frozenset[int] = frozenset()
    session: AdvanceSession | None = None
    is_asking: bool = False
    is_sold: bool = False
    quoted_at: int = 0
    ordered_at: int = 0

    def price_of(self, client: int) -> int:
        """Return what a client's channel pays with its rebase, in msat."""
        return self.price_msat if client == self.buyer and not self.payment_hash else 0

    @property
    def holdouts(self) -> tuple[int, ...]:
        """The clients whose contribution the present step waits for."""
        if self.session is None:
            return ()
        done = self.session.signed if self.session.is_committed else self.session.agreed
        return tuple(client for client in self.clients if client not in done)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAdvance:
    """An advance of our leaf, at a client.

    Attributes:
        advance_id: Its name.
        channel_id: Our channel.
        state_index: Of the state that is made.
        allocation: What that pays.
        quote_id: What we bought by; empty where somebody else buys.
        price_msat: What our channel pays with the rebase.
        factory_pool: Our nonces of the factory key, in this connection.
        channel_pool: Of our key of the channel.
        is_agreed: Whether we said so in this connection.
        is_signed: Whether we signed: from then on it is never dropped.
        is_leaving: Whether what we signed for the first time is being made, and has not left.
        session: What the LSP asked with: an agreement says so.
    """

    advance_id: bytes
    channel_id: bytes
    state_index: int
    allocation: Allocation
    quote_id: bytes
    price_msat: int
    factory_pool: PublicPool | None = None
    channel_pool: PublicPool | None = None
    is_agreed: bool = False
    is_signed: bool = False
    is_leaving: bool = False
    session: bytes = b""

    @property
    def pool_ids(self) -> tuple[bytes, ...]:
        """The pools that are in use for it."""
        pools = (self.factory_pool, self.channel_pool)
        return tuple(pool.pool_id for pool in pools if pool is not None)


def lsp_advance_of(record: ar.AdvanceProposed) -> LspAdvance:
    """Return an advance as it begins."""
    return LspAdvance(
        advance_id=record.advance_id,
        clients=record.clients,
        state_index=record.state_index,
        allocation=Allocation(capacities_sat=record.capacities_sat, lstock_sat=record.lstock_sat),
        buyer=record.buyer,
        quote_id=record.quote_id,
        price_msat=record.price_msat,
        payment_hash=record.payment_hash,
        is_asking=True,
    )


def client_advance_of(record: ar.AdvanceReceived) -> ClientAdvance:
    """Return an advance as a client hears of it."""
    return ClientAdvance(
        advance_id=record.advance_id,
        channel_id=record.channel_id,
        state_index=record.state_index,
        allocation=Allocation(capacities_sat=record.capacities_sat, lstock_sat=record.lstock_sat),
        quote_id=record.quote_id,
        price_msat=record.price_msat,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Deadlines that a client let pass in a row: how many, and at which height the last."""

    n_missed: int
    height: int


Stalls = Map[int, Stall]  # By client.


def with_stalls(stalls: Stalls, record: ar.SharedAdvanceRecord | ar.LspAdvanceRecord) -> Stalls:
    """Return who let deadlines pass after a record: whoever comes to the end begins anew."""
    match record:
        case ar.AdvanceAcknowledged(client=client):
            return stalls.delete(client) if client in stalls else stalls
        case ar.AdvanceDropped() | ar.AdvanceSessionEnded():
            for client in record.holdouts:
                n_before = stalls[client].n_missed if client in stalls else 0
                stall = Stall(n_missed=n_before + 1, height=record.height)
                stalls = stalls.set(client, stall)
            return stalls
        case _:
            return stalls


LspStep = (
    ar.AdvanceResumed
    | ar.AdvancePoolsMade
    | ar.AdvanceAgreementReceived
    | ar.AdvanceCommitted
    | ar.AdvancePartialsReceived
    | ar.StateSigned
    | ar.PoisonHeld
    | ar.AdvanceAcknowledged
    | ar.LiquiditySold
)
ClientStep = ar.AdvancePoolsMade | ar.AdvanceAgreed | ar.AdvanceSigned | ar.AdvanceSent


def lsp_advance_after(advance: LspAdvance, record: LspStep) -> LspAdvance:
    """Return an LSP's advance after a record about it."""
    match record:
        case ar.AdvanceResumed():
            return replace(advance, is_asking=True)
        case ar.LiquiditySold():
            return replace(advance, is_sold=True)
        case ar.AdvancePoolsMade(factory_pool=factory_pool, channel_pools=channel_pools):
            pools = map(decoded_pool, channel_pools)
            session = AdvanceSession(
                factory_pool=decoded_pool(factory_pool),
                channel_pools=Map(zip(advance.clients, pools, strict=True)),
            )
            return replace(advance, session=session, is_asking=False)
        case ar.AdvanceAgreementReceived(client=client, message=data):
            session = asked_session(advance)
            agreed = session.agreed.set(client, decoded(data, m.AdvanceAgree))
            return replace(advance, session=replace(session, agreed=agreed))
        case ar.AdvanceCommitted():
            session = replace(asked_session(advance), is_committed=True)
            return replace(advance, is_committed=True, session=session)
        case ar.AdvancePartialsReceived(client=client, message=data):
            return _with_partials(advance, client, decoded(data, m.AdvanceSign))
        case ar.StateSigned():
            return replace(advance, is_signed=True)
        case ar.PoisonHeld():
            return replace(advance, has_poisons=True, session=None)
        case ar.AdvanceAcknowledged(client=client):
            return replace(advance, acknowledged=advance.acknowledged | {client})
        case _:
            assert_never(record)


def client_advance_after(advance: ClientAdvance, record: ClientStep) -> ClientAdvance:
    """Return a client's advance after a record about it."""
    match record:
        case ar.AdvancePoolsMade(factory_pool=factory_pool, channel_pools=channel_pools):
            (channel_pool,) = channel_pools
            return replace(
                advance,
                factory_pool=decoded_pool(factory_pool),
                channel_pool=decoded_pool(channel_pool),
                is_agreed=False,
                session=record.session,
            )
        case ar.AdvanceAgreed():
            return replace(advance, is_agreed=True)
        case ar.AdvanceSigned():
            return replace(advance, is_signed=True, is_leaving=True)
        case ar.AdvanceSent():
            return replace(advance, is_leaving=False)
        case _:
            assert_never(record)


def _with_partials(advance: LspAdvance, client: int, message: m.AdvanceSign) -> LspAdvance:
    """Return an advance with a client's partial signatures, if the nonces they need are there."""
    session = advance.session
    if session is None or not session.is_committed or not message.partials:
        return advance
    signed = session.signed.set(client, message)
    return replace(advance, session=replace(session, signed=signed))


def without_session(advance: LspAdvance) -> LspAdvance:
    """Return an advance after somebody's nonces are gone: whoever goes on asks for fresh ones."""
    return replace(advance, session=None, is_asking=False)


def without_nonces(advance: ClientAdvance) -> ClientAdvance | None:
    """Return a client's advance after its connection ended; None where nothing of it was signed."""
    if not advance.is_signed:
        return None
    return replace(advance, factory_pool=None, channel_pool=None, is_agreed=False, is_leaving=False)


def asked_session(advance: LspAdvance) -> AdvanceSession:
    """Return what is signed at present.

    Raises:
        AssertionError: If nobody was asked.
    """
    if advance.session is None:
        raise AssertionError(f"advance {advance.advance_id.hex()}: nobody was asked")
    return advance.session
